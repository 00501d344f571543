"""A Slurm cluster by its commands, on this machine or behind a prefix like `ssh login1`.

Everything is said to a shell through its standard input, so that no word is quoted twice on its way. Fields of what the
commands print are told apart by a mark that is drawn at random for each use: no name or comment can contain it.
"""

import os
import re
import secrets
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Thread, Timer

from watteau.domain.fleet import SlurmAccess
from watteau.domain.sites import Partition, Reservation
from watteau.engines.contract import EngineUnreachable, NoAccounting
from watteau.engines.slurm.facts import InDoubt, Listing, SlurmJob, SlurmNode, Submission
from watteau.engines.slurm.files import read_here
from watteau.engines.slurm.hosts import fold
from watteau.engines.slurm.past import FIRST_S, belongs, last_runs, pieces
from watteau.engines.slurm.refusals import NOT_TAKEN, number_of, refusal
from watteau.engines.slurm.values import (
    ENDED,
    code_and_signal,
    epoch_s,
    gpu_count,
    gpu_kinds,
    how_ended,
    job_state,
    limit_s,
    memory_mib,
    names,
    node_state,
    reason_of,
    spread,
    text_of,
    tres,
    wait_status,
)

#: Slurm's commands wait for slurmctld for some MessageTimeouts, 10 s each by default.
_READ_TIMEOUT_S = 60.0
_HISTORY_TIMEOUT_S = 600.0
_EACH_SUBMIT_S = 2.0
#: Shells that submit at the same time; a login node counts its connections.
_LANES = 4
_FEWEST_IN_LANE = 8
_PIECE_S = 7 * 86_400
_EVER_S = 3_650 * 86_400

#: Settings of an account's shell that would change what the commands show.
_UNSET = (
    *("SQUEUE_ACCOUNT", "SQUEUE_ARRAY", "SQUEUE_LICENSES", "SQUEUE_NAMES", "SQUEUE_PARTITION", "SQUEUE_QOS"),
    *("SQUEUE_USERS", "SQUEUE_FORMAT", "SQUEUE_FORMAT2", "SQUEUE_SORT", "SINFO_PARTITION", "SINFO_FORMAT"),
    *("SLURM_CLUSTERS", "SACCT_FORMAT", "SACCT_FEDERATION", "SACCT_LOCAL", "SLURM_JSON"),
)
_ENV = "env " + " ".join(f"-u {name}" for name in _UNSET)
#: Times as epoch seconds, texts whole, words in English.
_ENV += " TZ=UTC0 SLURM_TIME_FORMAT=%s SLURM_BITSTR_LEN=0 LC_ALL=C"

_JOB_FIELDS = (
    *("JobID", "ArrayJobID", "ArrayTaskID", "JobArrayID", "UserName", "Account", "Partition", "State", "Reason"),
    *("SubmitTime", "EligibleTime", "StartTime", "EndTime", "TimeLimit", "PriorityLong", "NodeList", "NumNodes"),
    *("NumCPUs", "NumTasks", "MinMemory", "tres-alloc", "tres-per-node", "tres-per-job", "tres-per-task"),
    *("exit_code", "RestartCnt", "Name", "Comment"),
)
_PAST_FIELDS = (
    *("JobID", "User", "Account", "Partition", "State", "Submit", "Eligible", "Start", "End", "TimelimitRaw"),
    *("Priority", "NodeList", "NNodes", "NCPUS", "ReqMem", "AllocTRES", "ReqTRES", "ExitCode", "JobName", "Comment"),
    "JobIDRaw",  # a number: a record ends with the line that it stands on
)


@dataclass(frozen=True, slots=True)
class _Output:
    """What a program of commands printed: by the shell that ran it to its end, or by one that was cut off."""

    code: int | None  # of the last command; None: it was cut off
    text: bytes
    errors: str


class CommandSlurm:
    """One cluster by its commands."""

    can_name_nodes = True

    def __init__(self, access: SlurmAccess, patience_s: float = _READ_TIMEOUT_S) -> None:
        self._access = access
        self._patience_s = patience_s
        self._where = " ".join(access.command_prefix) or "this machine"
        self._pool = ThreadPoolExecutor(_LANES, thread_name_prefix="slurm-submit")
        self.version = ""

    # ---- what is there ----

    def jobs(self, since: Listing | None = None) -> Listing | None:
        """Every job. squeue cannot say that nothing changed."""
        mark = _mark()
        command = f"squeue --all --states=all --noheader -O {_columns(_JOB_FIELDS, mark)}"
        text = self._ask(f"date +%s; echo {mark}; {_ENV} {command}").decode("utf-8", "replace")
        clock, rows = text.split(mark, 1)
        return Listing(tuple(_job(row) for row in _rows(rows, mark, len(_JOB_FIELDS))), float(clock))

    def job(self, job_id: int) -> SlurmJob | None:
        """One job as it is now; None: slurmctld does not know the id (any more)."""
        mark = _mark()
        command = f"squeue --all --states=all --noheader --jobs={int(job_id)} -O {_columns(_JOB_FIELDS, mark)}"
        output = self._run(f"{_ENV} {command}")
        if "Invalid job id specified" in output.errors:
            return None
        text = self._whole(output, "squeue").decode("utf-8", "replace")
        found = (_job(row) for row in _rows(text, mark, len(_JOB_FIELDS)))
        # An array's id names all of its tasks: the one with that very id is meant.
        return next((job for job in found if job.job_id == job_id), None)

    def nodes(self) -> tuple[SlurmNode, ...]:
        """Every node, by name."""
        # sinfo would take some hundred times as long for thousands of nodes.
        text = self._ask(f"{_ENV} scontrol --all --oneliner show node").decode("utf-8", "replace")
        found = (_node(each) for each in re.split(r"^(?=NodeName=)", text, flags=re.M) if each.startswith("NodeName="))
        return tuple(sorted(found, key=lambda node: node.name))

    def partitions(self) -> tuple[Partition, ...]:
        """Every partition."""
        text = self._ask(f"{_ENV} scontrol --all --oneliner show partition").decode("utf-8", "replace")
        return tuple(_partition(said) for said in _lines(text, "PartitionName"))

    def reservations(self) -> tuple[Reservation, ...]:
        """Every reservation."""
        text = self._ask(f"{_ENV} scontrol --all --oneliner show reservation").decode("utf-8", "replace")
        return tuple(_reservation(said) for said in _lines(text, "ReservationName"))

    # ---- what changes something ----

    def submit(self, submission: Submission) -> int:
        """Give a job to Slurm; returns its id. Raises LaunchRefused, InDoubt and EngineUnreachable."""
        (result,) = self._submit_lane([submission])
        if isinstance(result, Exception):
            raise result
        return result

    def submit_all(self, submissions: Sequence[Submission]) -> list[int | Exception]:
        """`submit` of each: many over one connection, a few connections at a time."""
        lanes = max(1, min(_LANES, len(submissions) // _FEWEST_IN_LANE))
        results: list[int | Exception] = [EngineUnreachable("not sent")] * len(submissions)
        parts = [submissions[lane::lanes] for lane in range(lanes)]
        for lane, part in enumerate(self._pool.map(self._submit_lane, parts)):
            results[lane::lanes] = part
        return results

    def cancel(self, job_id: int) -> None:
        """Ask a job to end. One that has ended is left alone."""
        output = self._run(f"scancel {int(job_id)}")
        ended = ("Invalid job id", "already completing or completed", "Job has already finished")
        if output.code != 0 and not any(words in output.errors for words in ended):
            self._whole(output, "scancel")

    # ---- what was ----

    def accounting(self, names: Sequence[str], since_s: int) -> list[SlurmJob]:
        """Jobs of these names in the accounting, of our user, submitted since then. Raises NoAccounting."""
        records: list[SlurmJob] = []
        since_s = max(since_s, FIRST_S)
        for first in range(0, len(names), 500):
            wanted = set(names[first : first + 500])
            which = f"--user={shlex.quote(self._access.user)} --name={shlex.quote(','.join(sorted(wanted)))}"
            some = self._past(f"{which} --starttime={_moment(since_s)} --endtime={_moment(since_s + _EVER_S)}")
            records += [job for job in some if job.name in wanted and job.submit_s >= since_s]
        return last_runs(records)

    def history(self, since_s: int, until_s: int) -> Iterator[SlurmJob]:
        """Everybody's jobs in the accounting that were submitted in [since, until). Raises NoAccounting."""
        for piece in pieces(since_s, until_s, _PIECE_S):
            which = f"--allusers --starttime={_moment(piece[0])} --endtime={_moment(piece[1])}"
            yield from (job for job in self._past(which) if belongs(job, since_s, until_s, piece))

    def read_file(self, path: str, start: int, most: int) -> bytes:
        """Up to `most` bytes of a file that the nodes see, from an offset. Raises FileNotFoundError."""
        found = read_here(self._access, path, start, most)
        if found is not None:
            return found
        name, mark = shlex.quote(path), _mark()
        text = self._ask(
            f"if [ -f {name} ] && [ -r {name} ]; then echo {mark}; "
            f"tail -c +{int(start) + 1} -- {name} | head -c {int(most)}; else echo; fi"
        )
        there, _, content = text.partition(b"\n")
        if there.decode("ascii", "replace") != mark:
            raise FileNotFoundError(f"{path}: not a file that can be read by {self._where}")
        return content

    def close(self) -> None:
        """Let go of threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # ---- asking ----

    def _ask(self, program: str) -> bytes:
        return self._whole(self._run(program), program.split(";")[-1].replace(_ENV, "").split("-O")[0].strip()[:60])

    def _whole(self, output: _Output, what: str) -> bytes:
        """All that was printed. Raises EngineUnreachable when it failed or was cut off."""
        if output.code == 0:
            return output.text
        last = output.errors.strip().splitlines()[-1:]
        said = last[0] if last else "no word of it"
        if output.code is None:
            raise EngineUnreachable(f"{self._where}: {what} gave no whole answer: {said}")
        if output.code == 127:
            raise EngineUnreachable(f"{self._where}: Slurm's commands are not there ({said}): is command_prefix right?")
        raise EngineUnreachable(f"{self._where}: {what} failed with {output.code}: {said}")

    def _run(self, program: str, timeout_s: float | None = None) -> _Output:
        """Run a program of commands to its end."""
        end = _mark()
        shell = _Shell(self._access.command_prefix, timeout_s or self._patience_s)
        # The commands get an input of their own, or they would eat the shell's.
        asked = "" if self.version else f"squeue --version 2>/dev/null; echo {end}\n"
        text = shell.tell(f"{{ {asked}{program}\n}} </dev/null\necho {end}$?\n")
        if asked:
            version, found, text = text.partition(f"{end}\n".encode())
            self.version = re.sub(r"^slurm\S*", "Slurm", version.decode("utf-8", "replace").strip()) if found else ""
        content, found, code = text.rpartition(end.encode())
        whole = found and code.strip().isdigit()
        return _Output(int(code) if whole else None, content if whole else text, shell.errors)

    def _past(self, which: str) -> Iterator[SlurmJob]:
        mark = _mark()
        fields = ",".join(_PAST_FIELDS)
        command = (
            f"sacct {which} --allocations --duplicates --noheader --parsable2 --delimiter={mark} --format={fields}"
        )
        output = self._run(f"{_ENV} {command}", _HISTORY_TIMEOUT_S)
        if "accounting storage is disabled" in output.errors.lower():
            raise NoAccounting(f"{self._where}: sacct says that accounting is disabled: the site runs without slurmdbd")
        text = self._whole(output, "sacct").decode("utf-8", "replace")
        del output
        for row in _past_rows(text, mark):
            yield _past_job(row)

    def _submit_lane(self, submissions: Sequence[Submission]) -> list[int | Exception]:
        """Give jobs to Slurm, one after another over one connection."""
        hello, mark = _mark(), secrets.token_hex(8)
        shell = _Shell(self._access.command_prefix, self._patience_s + _EACH_SUBMIT_S * len(submissions))
        if not shell.greet(hello):
            why = EngineUnreachable(
                f"{self._where} cannot be reached: {_last(shell.errors) or 'no shell answers there'}"
            )
            return [why] * len(submissions)
        # sbatch gives its environment to the job: this one, and where Slurm's own settings are.
        begin = 'sbatch=$(command -v sbatch) || { echo "$0: sbatch: not found" >&2; exit 127; }\n'
        begin += 'conf=""; [ -z "$SLURM_CONF" ] || conf="SLURM_CONF=$SLURM_CONF"\n'
        text = shell.tell(begin + "".join(_sbatch(each, number, mark) for number, each in enumerate(submissions)))
        results: list[int | Exception] = []
        for number, submission in enumerate(submissions):
            found = re.search(rf"{mark} {number} (\d+)\n(.*?)\n{mark} end\n".encode(), text, re.S)
            if found is not None:
                results.append(self._submitted(submission, int(found[1]), found[2].decode("utf-8", "replace")))
            elif "sbatch: not found" in shell.errors:
                results.append(EngineUnreachable(f"{self._where}: there is no sbatch: is command_prefix right?"))
            else:
                said = _last(shell.errors) or "it was cut off"
                results.append(InDoubt(f"{self._where}: no answer to the submission of {submission.name}: {said}"))
        return results

    def _submitted(self, submission: Submission, code: int, said: str) -> int | Exception:
        """What sbatch's answer means. It prints `1234`, or `1234;cluster`, beside warnings."""
        if code == 0:
            found = re.search(r"^(\d+)(?:;\S*)?$", said, re.M | re.A)
            if found is None:
                return InDoubt(f"sbatch printed no job id for {submission.name}: {said.strip()[:200]}")
            return int(found[1])
        number = number_of(said)
        words = " ".join(re.sub(r"^sbatch: (error|fatal): ", "", said, flags=re.M).split())[:500] or "no word of it"
        if number in NOT_TAKEN:
            return EngineUnreachable(f"{self._where}: sbatch did not give {submission.name} to Slurm: {words}")
        if any(doubt in said for doubt in _DOUBTFUL):
            return InDoubt(f"{self._where}: sbatch does not know what became of {submission.name}: {words}")
        if code in (126, 127) or any(trouble in said for trouble in _TROUBLE):
            return EngineUnreachable(f"{self._where}: sbatch failed with {code}: {words}")
        return refusal(submission, self._access.user, number, words.removeprefix("Batch job submission failed: "))


#: Sent, and not answered.
_DOUBTFUL = (
    *("Socket timed out", "Zero Bytes were transmitted", "send failure", "receive failure", "shutdown failure"),
    *("Unexpected message received", "Message receive failure", "Message send failure", "Connection reset"),
)
#: Of the machine that sbatch runs on, before anything was sent.
_TROUBLE = (
    *("Munge encode failed", "authentication plugin", "could not establish a configuration", "Unable to process"),
    *("No such file or directory: slurm.conf", "s_p_parse_file", "Can't find an address", "fork", "Cannot allocate"),
)


class _Shell:
    """One shell behind a prefix, which is told a program and ends with it, or after some time."""

    def __init__(self, prefix: Sequence[str], timeout_s: float) -> None:
        self.errors = ""
        try:
            self._process = subprocess.Popen(
                [*prefix, "sh"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise EngineUnreachable(f"{' '.join(prefix) or 'sh'} cannot be started: {error.strerror}") from error
        self._timeout_s = timeout_s
        self._late = False
        self._timer = Timer(timeout_s, self._kill)
        self._timer.daemon = True
        self._timer.start()
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def greet(self, word: str) -> bool:
        """Whether somebody answers; until then nothing is said that has an effect."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"echo {word}\n".encode())
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.strip() == word.encode():
                return True
        self._finish()
        return False

    def tell(self, program: str) -> bytes:
        """Run a program to the shell's end; returns what it printed."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        # What is printed is read meanwhile, or a long program and its answers would wait for each other.
        writer = Thread(target=self._write, args=(program.encode("utf-8", "surrogateescape"),), daemon=True)
        writer.start()
        text = process.stdout.read()
        writer.join()
        self._finish()
        return text

    def _write(self, program: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(program)
            self._process.stdin.close()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        # The last words say why; a login banner of any length does not.
        for line in self._process.stderr:
            self.errors = (self.errors + line.decode("utf-8", "replace"))[-8_000:]

    def _finish(self) -> None:
        process = self._process
        with suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.close()
        process.wait()
        self._timer.cancel()
        self._listener.join(timeout=1)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
        if self._late:
            self.errors += f"\nno answer within {self._timeout_s:.0f} s"

    def _kill(self) -> None:
        self._late = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _sbatch(submission: Submission, number: int, mark: str) -> str:
    """One submission as a piece of a shell's program, which prints the mark, its number, and how it went."""
    options = {
        "job-name": submission.name,
        "comment": submission.comment,
        "chdir": submission.folder,
        "input": "/dev/null",
        "output": submission.stdout,
        "error": submission.stderr,
        "nodes": str(submission.nodes),
        "ntasks": str(submission.nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": str(submission.cpus_per_node),
        "constraint": submission.constraint,
        "time": str(-(-submission.time_limit_s // 60)) if submission.time_limit_s else "",
        "mem": f"{submission.memory_mib_per_node}M" if submission.memory_mib_per_node else "",
        "partition": submission.partition,
        "account": submission.account,
        "qos": submission.qos,
        "nodelist": fold(submission.node_names) if submission.node_names else "",
    }
    if submission.gpus_per_node:
        options["gres"] = ":".join(filter(None, ("gpu", submission.gpu_type, str(submission.gpus_per_node))))
    words = [f"--{name}={value}" for name, value in options.items() if value]
    environment = dict(submission.environment) or {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    given = [f"{name}={value}" for name, value in environment.items()]
    end = f"{mark}.script"
    return (
        # A second run is Watteau's to decide: --no-requeue.
        f'said=$(env -i ${{conf:+"$conf"}} {shlex.join(given)} "$sbatch" --parsable --no-requeue --export=ALL '
        f"{shlex.join(words)} 2>&1 <<'{end}'\n{_without_directives(submission.script)}\n{end}\n)\n"
        f"printf '%s %s %s\\n%s\\n%s end\\n' {mark} {number} $? \"$said\" {mark}\n"
    )


def _without_directives(script: str) -> str:
    """The script with its lines for sbatch as plain comments: what the job is to get is in the submission."""
    lines = script.split("\n")
    for index, line in enumerate(lines):
        if line.strip() and not line.startswith("#"):
            break  # sbatch looks no further
        if re.match(r"#(SBATCH|PBS|BSUB)", line):
            lines[index] = f"# {line[1:]}"
    return "\n".join(lines)


# ---- reading -------------------------------------------------------------------------------------------------------


def _columns(fields: Sequence[str], mark: str) -> str:
    """-O with whole fields (width 0), the mark after each."""
    return ",".join(f"{field}:0{mark}" for field in fields)


def _rows(text: str, mark: str, width: int) -> Iterator[list[str]]:
    """The rows of such an output: `width` fields each, whatever line breaks are in them."""
    words = text.split(mark)
    for first in range(0, len(words) - width, width):
        row = words[first : first + width]
        row[0] = row[0].lstrip("\n")
        yield row


def _job(row: Sequence[str]) -> SlurmJob:
    said = dict(zip(_JOB_FIELDS, row, strict=True))
    state, flags = job_state(said["State"])
    nodes = names(said["NodeList"]) if state != "PENDING" else ()
    over = state in ENDED
    count = len(nodes) or max(1, _int(said["NumNodes"].partition("-")[0]))
    known = tres(said["tres-alloc"])
    gpus = known.gpus or (
        gpu_count(said["tres-per-job"])
        or gpu_count(said["tres-per-node"]) * count
        or gpu_count(said["tres-per-task"]) * max(1, _int(said["NumTasks"]))
    )
    cpus = _int(said["NumCPUs"]) or known.cpus
    memory = known.memory_mib or memory_mib(said["MinMemory"]) * count
    array_id = _int(said["ArrayJobID"]) if "_" in said["JobArrayID"] else 0
    is_rest = "[" in said["JobArrayID"]
    code, number = how_ended(state, *wait_status(_int(said["exit_code"]))) if over and nodes else (None, None)
    return SlurmJob(
        job_id=int(said["JobID"]),
        array_job_id=array_id,
        array_task_id=int(said["ArrayTaskID"]) if array_id and not is_rest else None,
        array_rest=said["ArrayTaskID"] if is_rest else "",
        name=said["Name"],
        user=said["UserName"],
        account=text_of(said["Account"]),
        partition=said["Partition"],
        state=state,
        flags=flags,
        reason=reason_of(said["Reason"]),
        submit_s=epoch_s(said["SubmitTime"]) or 0,
        eligible_s=epoch_s(said["EligibleTime"]),
        start_s=epoch_s(said["StartTime"]) if nodes else None,
        end_s=epoch_s(said["EndTime"]) if over else None,
        time_limit_s=limit_s(said["TimeLimit"]),
        priority=_int(said["PriorityLong"]),
        nodes=nodes,
        node_count=count,
        gpus=gpus,
        cpus=cpus,
        memory_mib=memory,
        held=spread(nodes, gpus, cpus, memory),
        exit_code=code,
        signal=number,
        restarts=_int(said["RestartCnt"]),
        comment=text_of(said["Comment"]),
    )


#: Free text stands after all that is read by its key, and so it cannot pretend to be that.
_NODE_KEY = re.compile(r"(?:^| )(NodeName|CPUTot|RealMemory|AvailableFeatures|Gres|State|Partitions)=(\S*)")
_NODE_REASON = re.compile(r" Reason=(.*) \[[^\[\]]*@[^\[\]]*\]", re.S)


def _node(text: str) -> SlurmNode:
    said: dict[str, str] = {}
    for key, value in _NODE_KEY.findall(text):
        said.setdefault(key, value)
    reason = _NODE_REASON.search(text)
    state, flags = node_state(said.get("State", "").split("+"))
    return SlurmNode(
        name=said["NodeName"],
        state=state,
        flags=flags,
        reason=text_of(reason[1]) if reason else "",
        cpus=_int(said.get("CPUTot", "")),
        memory_mib=_int(said.get("RealMemory", "")),
        gpus=gpu_kinds(said.get("Gres", "")),
        features=_listed(said.get("AvailableFeatures", "")),
        partitions=_listed(said.get("Partitions", "")),
    )


def _lines(text: str, first: str) -> Iterator[dict[str, str]]:
    """Lines of scontrol that begin with a key, as keys and values: neither has blanks, where this is used."""
    for line in text.splitlines():
        if line.startswith(f"{first}="):
            yield {key: value for key, _, value in (word.partition("=") for word in line.split())}


def _partition(said: Mapping[str, str]) -> Partition:
    return Partition(
        name=said["PartitionName"],
        is_default=said.get("Default") == "YES",
        up=said.get("State") == "UP",
        nodes=names(said.get("Nodes", "")),
        most_time_s=limit_s(said.get("MaxTime", "")),
        default_time_s=limit_s(said.get("DefaultTime", "")),
        most_nodes=_int(said.get("MaxNodes", "")),
        least_nodes=_int(said.get("MinNodes", "")),
    )


def _reservation(said: Mapping[str, str]) -> Reservation:
    return Reservation(
        name=said["ReservationName"],
        start_s=epoch_s(said.get("StartTime", "")) or 0,
        end_s=epoch_s(said.get("EndTime", "")) or 0,
        nodes=names(said.get("Nodes", "")),
        users=_listed(said.get("Users", "")),
        accounts=_listed(said.get("Accounts", "")),
        flags=_listed(said.get("Flags", "")),
    )


def _past_rows(text: str, mark: str) -> Iterator[list[str]]:
    """Records of sacct; one that a name or a comment breaks into several lines is put together again."""
    begun = ""
    for line in text.splitlines(keepends=True):
        begun += line
        if begun.count(mark) >= len(_PAST_FIELDS) - 1:
            yield begun.removesuffix("\n").split(mark)
            begun = ""


def _past_job(row: Sequence[str]) -> SlurmJob:
    said = dict(zip(_PAST_FIELDS, row, strict=True))
    state, flags = job_state(said["State"])
    nodes = names(said["NodeList"]) if state != "PENDING" else ()
    over = state in ENDED or epoch_s(said["End"]) is not None
    have, asked = tres(said["AllocTRES"]), tres(said["ReqTRES"])
    count = len(nodes) or max(1, _int(said["NNodes"]))
    known = have if nodes else asked
    gpus = known.gpus
    cpus = _int(said["NCPUS"]) or known.cpus
    memory = known.memory_mib  # what is asked for by default, a whole node's, says nothing where memory is not counted
    master, _, task = said["JobID"].partition("_")
    is_rest = task.startswith("[")
    code, number = how_ended(state, *code_and_signal(said["ExitCode"])) if over and nodes else (None, None)
    return SlurmJob(
        job_id=int(said["JobIDRaw"]),
        array_job_id=int(master) if task else 0,
        array_task_id=int(task) if task and not is_rest else None,
        array_rest=task.strip("[]") if is_rest else "",
        name=said["JobName"],
        user=said["User"],
        account=said["Account"],
        partition=said["Partition"],
        state=state,
        flags=flags,
        reason="",
        submit_s=epoch_s(said["Submit"]) or 0,
        eligible_s=epoch_s(said["Eligible"]),
        start_s=epoch_s(said["Start"]) if nodes else None,
        end_s=epoch_s(said["End"]) if over else None,
        time_limit_s=60 * _int(said["TimelimitRaw"]),
        priority=_int(said["Priority"]),
        nodes=nodes,
        node_count=count,
        gpus=gpus,
        cpus=cpus,
        memory_mib=memory,
        held=spread(nodes, gpus, cpus, memory),
        exit_code=code,
        signal=number,
        restarts=0,
        comment=said["Comment"],
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text_of(text).split(",")))


def _int(text: str) -> int:
    """A whole number; 0 where there is a word in its place."""
    return int(text) if text.isascii() and text.isdigit() else 0


def _moment(epoch: int) -> str:
    """A time as sacct reads it; its zone is UTC here."""
    return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%dT%H:%M:%S}"


def _last(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _mark() -> str:
    """What nobody can have written. Not a digit first: it follows a width."""
    return f"w{secrets.token_hex(8)}"
