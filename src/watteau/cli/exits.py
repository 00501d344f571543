"""What the `watteau` command's exit codes mean: the one list, which --help and the reference show."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes. `wait`, `submit --wait` and `submit --follow` end with the job's own exit code instead of 1."""

    OK = 0
    JOB_FAILED = 1
    WRONG_INPUT = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    NOT_REACHABLE = 5
    INTERRUPTED = 130


MEANING: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.JOB_FAILED: "the job did not complete (`wait`: the job's own exit code), `sites diff` found differences, or "
    "an unforeseen error",
    Exit.WRONG_INPUT: "wrong input: an option, a file, a request that the server refuses",
    Exit.NOT_FOUND: "no such job, site, account or token, as far as you may know",
    Exit.NOT_ALLOWED: "not logged in, or not allowed",
    Exit.NOT_REACHABLE: "the server cannot be reached or cannot work now",
    Exit.INTERRUPTED: "interrupted (Ctrl-C)",
}

SUMMARY = "Exit codes: " + "; ".join(f"{code.value} {said.replace('`', '')}" for code, said in MEANING.items()) + "."
