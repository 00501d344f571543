"""Records of the accounting: which piece of time each belongs to, and which of several runs of a job counts."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from watteau.engines.slurm.facts import SlurmJob

#: There was no Slurm before, and it takes earlier times for none at all.
FIRST_S = 1_000_000_000
#: A job may become eligible long after it was submitted, and the accounting is asked by that time.
_LATE_S = 31 * 86_400


def pieces(since_s: int, until_s: int, piece_s: int) -> Iterator[tuple[int, int]]:
    """[start, end) of the times to ask for, so that jobs submitted in [since, until) are found, one piece at a time."""
    since_s = max(since_s, FIRST_S)
    for start_s in range(since_s, until_s + _LATE_S if since_s < until_s else since_s, piece_s):
        yield start_s, start_s + piece_s


def belongs(job: SlurmJob, since_s: int, until_s: int, piece: tuple[int, int]) -> bool:
    """Whether a job that was submitted in [since, until) counts in a piece: it is shown in all that it touches."""
    return since_s <= job.submit_s < until_s and piece[0] <= (job.eligible_s or job.submit_s) < piece[1]


def last_runs(records: Iterable[SlurmJob]) -> list[SlurmJob]:
    """Each job once, as its last record has it; each earlier one is a run that was put back into the queue."""
    found: dict[tuple[int, str], SlurmJob] = {}
    for job in records:
        # Slurm may have given an id again after it had lost its memory: the name is part of what names a job.
        key = (job.job_id, job.name)
        earlier = found.get(key)
        if earlier is None:
            found[key] = job
        else:
            last = max(earlier, job, key=lambda each: (each.submit_s, each.end_s or 2**63))
            found[key] = replace(last, restarts=earlier.restarts + 1)
    return list(found.values())
