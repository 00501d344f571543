"""What Slurm's reasons for a waiting job mean, and what helps; the codes are those of squeue(1), JOB REASON CODES."""

_OWNER, _SITE, _NOBODY = "its owner", "who runs the site", "nobody"

#: code -> (what it means, who can act, what would help)
_MEANING: dict[str, tuple[str, str, str]] = {
    "Priority": ("Jobs of a higher priority wait before it.", _NOBODY, "Wait its turn."),
    "Resources": ("It is the next one, and waits for nodes to become free.", _NOBODY, "Wait for jobs to end."),
    "Dependency": ("It waits for another job.", _OWNER, "Nothing; or cancel the job that it waits for."),
    "DependencyNeverSatisfied": ("It waits for a job that did not end as was asked.", _OWNER, "Cancel it."),
    "BeginTime": ("The time at which it may begin has not come.", _NOBODY, "Wait. After a requeue Slurm waits, too."),
    "JobHeldUser": ("Its owner holds it.", _OWNER, "Release it: scontrol release."),
    "JobHeldAdmin": ("An administrator of the site holds it.", _SITE, "Ask them to release it."),
    "JobArrayTaskLimit": ("As many tasks of its array run as it allows.", _NOBODY, "Wait for one of them to end."),
    "Licenses": ("It waits for a licence.", _NOBODY, "Wait for jobs that hold licences to end."),
    "Reservation": ("It waits for its reservation to begin.", _NOBODY, "Wait."),
    "ReqNodeNotAvail": ("Nodes that it needs are down, drained or reserved.", _SITE, "Wait, or ask who runs the site."),
    "PartitionTimeLimit": ("Its time limit is above the partition's.", _OWNER, "Give it a shorter limit."),
    "PartitionNodeLimit": ("It asks for more nodes than the partition allows.", _OWNER, "Ask for fewer nodes."),
    "PartitionDown": ("Its partition takes no jobs.", _SITE, "Ask who runs the site."),
    "PartitionInactive": ("Its partition starts no jobs.", _SITE, "Ask who runs the site."),
    "NodeDown": ("A node that it needs is down.", _SITE, "Ask who runs the site."),
    "BadConstraints": ("No nodes of the site can ever do what it asks for.", _OWNER, "Cancel it, and ask for less."),
    "AssocGrpGRES": ("Its account has all the GPUs that it may have.", _NOBODY, "Wait for the account's jobs to end."),
    "AssocGrpGRESMinutes": ("Its account has used up its GPU time.", _SITE, "Ask for more."),
    "AssocMaxJobsLimit": ("Its owner runs as many jobs as are allowed.", _NOBODY, "Wait for one of them to end."),
    "QOSMaxJobsPerUserLimit": ("Its owner runs as many jobs as the QOS allows.", _NOBODY, "Wait for one to end."),
    "QOSMaxGRESPerUser": ("Its owner has all the GPUs that the QOS allows.", _NOBODY, "Wait for jobs to end."),
    "QOSGrpGRES": ("All GPUs of its QOS are in use.", _NOBODY, "Wait for jobs to end."),
    "InvalidAccount": ("Its account is not valid there.", _OWNER, "Name another account."),
    "InvalidQOS": ("Its QOS is not valid there.", _OWNER, "Name another QOS."),
    "Prolog": ("Its nodes are being made ready.", _NOBODY, "Wait."),
}


def meaning(code: str) -> tuple[str, str, str] | None:
    """(what it means, who can act, what would help) of a code, as Slurm shows it; None for one that is not known.

    Slurm adds words to some: `ReqNodeNotAvail, UnavailableNodes:gpu7`, `singleton(unfulfilled)`.
    """
    word = code.partition(",")[0].partition("(")[0].strip()
    return _MEANING.get("Dependency" if word == "singleton" else word)
