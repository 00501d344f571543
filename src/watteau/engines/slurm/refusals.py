"""What Slurm says when it takes no job, as a sentence with a remedy, by slurmrestd's numbers or by sbatch's words.

The numbers and words are those of slurm_errno.h, as slurm_strerror(3) gives them.
"""

from watteau.engines.contract import LaunchRefused
from watteau.engines.slurm.facts import Submission

#: Certain that Slurm does not have it: slurmctld was not reached, or had no room. To be sent again.
NOT_TAKEN = {
    11: "Resource temporarily unavailable",  # MaxJobCount
    1007: "Protocol authentication error",
    1800: "Unable to contact slurm controller (connect failure)",
    2007: "Unable to create job record, try again",
    2019: "I/O error writing script/environment to file",
    2027: "Slurm backup controller in standby mode",
    2037: "Requested operation is presently disabled",
    2105: "System submissions disabled",
    2131: "Controller is in standby mode, try a different controller",
}
#: Slurm's words, and what is to be done about it. `{...}` are fields of the submission.
_REFUSED = {
    2000: ("Invalid partition name specified", "there is no partition {partition!r}: name one that `sinfo` lists"),
    2001: (
        "No partition specified or system default partition",
        "the site has no default partition: set `partition` in the site's table, or name one with the job",
    ),
    2002: ("Access/permission denied", "the account {user} may not do this here: ask the site's operator"),
    2003: (
        "User's group not permitted to use this partition",
        "{user} may not use partition {partition!r}: name another one, or ask the site's operator",
    ),
    2004: ("Requested nodes not in this partition", "the named nodes are not all in partition {partition!r}"),
    2005: ("More processors requested than permitted", "ask for fewer CPUs than {cpus_per_node} on each node"),
    2006: ("Node count specification invalid", "{nodes} nodes are more or fewer than the partition allows"),
    2009: ("Job script not specified", "the script is empty"),
    2012: (
        "Pathname of a file, directory or other parameter too long",
        "shorten the paths, the name or the comment (at most 1,024 bytes)",
    ),
    2014: (
        "Requested node configuration is not available",
        "no node here can ever give {shape} on each of {nodes} node(s): ask for less, or for another partition or site",
    ),
    2015: (
        "Requested partition configuration not available now",
        "partition {partition!r} does not take a job of this size or time: ask for less, or for another partition",
    ),
    2018: ("Invalid node name specified", "one of the named nodes is not of this cluster"),
    2025: ("Task count specification invalid", "ask for fewer workers"),
    2029: ("Invalid feature specification", "no node has the feature {constraint!r}: see `sinfo -o '%N %f'`"),
    2038: ("Job dependency problem", "name jobs that the cluster still knows"),
    2044: ("Memory required by task is not available", "ask for less than {memory_mib_per_node} MiB on each node"),
    2045: (
        "Invalid account or account/partition combination specified",
        "{user} may not charge account {account!r} here: correct `account` in the site's table, "
        "or have `sacctmgr add user` run",
    ),
    2048: ("Invalid license specification", "the site has no such licences, or not so many"),
    2050: (
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
        "account {account!r} and QOS {qos!r} do not allow this job: ask for less, or have their limits raised",
    ),
    2051: (
        "Requested time limit is invalid (missing or exceeds some limit)",
        "the time limit of {time_limit_s} s is above what partition {partition!r} allows: ask for less time",
    ),
    2052: ("Access denied to requested reservation", "{user} may not use the reservation"),
    2053: ("Requested reservation is invalid", "there is no such reservation"),
    2054: ("Invalid time specified", "a time of the job is not one that Slurm reads"),
    2057: ("Invalid wckey specification", "the site asks for a wckey that {user} may use"),
    2066: (
        "Invalid qos specification",
        "{user} may not use QOS {qos!r}: correct `qos` in the site's table, or have `sacctmgr` allow it",
    ),
    2070: (
        "Required partition not available (inactive or drain)",
        "partition {partition!r} is closed: name another one, or wait until it is open again",
    ),
    2072: (
        "Invalid generic resource (gres) specification",
        "the site has no GPUs of type {gpu_type!r} by that name: see `sinfo -o '%N %G'`",
    ),
    2074: ("Requested account has breached requested QOS usage threshold", "account {account!r} has used up its share"),
    2101: ("Partition in DOWN state", "partition {partition!r} is down: name another one"),
    2115: ("Invalid Trackable RESource (TRES) specification", "the site does not know one of the resources asked for"),
    2119: (
        "Invalid GRES specification (with and without type identification)",
        "the site wants GPUs named with their type, or without: see `sinfo -o '%N %G'`",
    ),
    2134: ("Insufficient GRES available in allocation", "ask for fewer GPUs"),
}
_BY_WORDS = {words: number for number, (words, _) in _REFUSED.items()} | {
    words: number for number, words in NOT_TAKEN.items()
}


def number_of(words: str) -> int | None:
    """Slurm's number for what a command printed, where its words are in there."""
    return next((number for said, number in _BY_WORDS.items() if said in words), None)


def refusal(submission: Submission, user: str, number: int | None, words: str) -> LaunchRefused:
    """Why this job is never taken, in Slurm's words, and what to do."""
    known = _REFUSED.get(number or 0)
    said = (known[0] if known else " ".join(words.split())) or f"error {number}"
    if known is None:
        return LaunchRefused(f"Slurm refuses it: {said}")
    partition = submission.partition or "the default one"
    remedy = known[1].format(
        user=user,
        shape=_shape(submission),
        partition=partition,
        account=submission.account or "(the default one)",
        qos=submission.qos or "(the default one)",
        nodes=submission.nodes,
        cpus_per_node=submission.cpus_per_node,
        memory_mib_per_node=submission.memory_mib_per_node,
        time_limit_s=submission.time_limit_s,
        constraint=submission.constraint,
        gpu_type=submission.gpu_type,
    )
    return LaunchRefused(f"Slurm refuses it: {said} ({number}); {remedy}")


def _shape(submission: Submission) -> str:
    """What each node would have to give, for people."""
    gpus = f"{submission.gpus_per_node} {submission.gpu_type or ''}".strip() + " GPU(s)"
    parts = [gpus] if submission.gpus_per_node else []
    parts.append(f"{submission.cpus_per_node} CPU(s)")
    if submission.memory_mib_per_node:
        parts.append(f"{submission.memory_mib_per_node} MiB")
    if submission.constraint:
        parts.append(f"feature {submission.constraint}")
    return ", ".join(parts)
