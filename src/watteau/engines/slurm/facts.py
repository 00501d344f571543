"""What a Slurm cluster says of itself, in its own words, and what may be asked of it by whichever way it is reached.

Slurm's words are those of its manual pages squeue(1), sinfo(1) and sbatch(1); units are ours.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from watteau.domain.sites import Held, Partition, Reservation


class InDoubt(Exception):  # noqa: N818 - the name says what happened
    """A submission was sent and not answered: whether Slurm has it must be looked up before it is sent again."""


class TokenRefused(Exception):  # noqa: N818
    """The cluster does not accept our token, or there is none; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """One job, or one task of an array, or the tasks of an array that have not started (`array_rest`)."""

    job_id: int
    array_job_id: int  # 0: not of an array
    array_task_id: int | None
    array_rest: str  # "8-99%10": tasks that wait as one record; "" otherwise
    name: str
    user: str
    account: str
    partition: str
    state: str  # the base state: PENDING, RUNNING, COMPLETED, ...
    flags: frozenset[str]  # COMPLETING, REQUEUED, ...
    reason: str  # squeue's %r; "None" is ""
    submit_s: int
    eligible_s: int | None
    start_s: int | None  # None while it waits, whatever the backfill guesses
    end_s: int | None  # None while it runs, whatever it plans
    time_limit_s: int  # 0: none
    priority: int
    nodes: tuple[str, ...]  # expanded; of a running or ended job
    node_count: int
    gpus: int  # all nodes together; so are the next two
    cpus: int
    memory_mib: int
    held: tuple[Held, ...]  # on each node, of a running or ended job, where Slurm says so; else spread evenly
    exit_code: int | None  # decoded; None: not ended, or ended by a signal
    signal: int | None
    restarts: int
    comment: str = ""

    @property
    def tasks(self) -> int:
        """How many jobs this record stands for."""
        return count_tasks(self.array_rest) if self.array_rest else 1

    @property
    def label(self) -> str:
        """As squeue shows it: 1234, 1234_7 or 1234_[8-99%10]."""
        if self.array_rest:
            return f"{self.array_job_id}_[{self.array_rest}]"
        return f"{self.array_job_id}_{self.array_task_id}" if self.array_task_id is not None else str(self.job_id)


def count_tasks(indices: str) -> int:
    """How many tasks `0-9:2,15%4` names; 1 when it is cut off and cannot be counted."""
    count = 0
    for part in indices.partition("%")[0].split(","):
        span, _, step = part.partition(":")
        first, dash, last = span.partition("-")
        try:
            count += (int(last if dash else first) - int(first)) // int(step or 1) + 1
        except ValueError:
            return max(1, count)
    return max(1, count)


@dataclass(frozen=True, slots=True)
class SlurmNode:
    """One node. `flags` beside the base state: DRAIN, NOT_RESPONDING, MAINTENANCE, RESERVED, COMPLETING, ..."""

    name: str
    state: str  # the base state: IDLE, MIXED, ALLOCATED, DOWN, UNKNOWN, ...
    flags: frozenset[str]
    reason: str
    cpus: int
    memory_mib: int
    gpus: tuple[tuple[str, int], ...]  # (type or "", count) of each kind in its GRES
    features: tuple[str, ...]
    partitions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Submission:
    """One attempt as Slurm is to get it. All paths are the nodes'."""

    name: str
    script: str
    comment: str
    folder: str  # the working directory, which exists on the nodes
    stdout: str
    stderr: str  # "": with stdout
    environment: Mapping[str, str]
    nodes: int
    cpus_per_node: int
    gpus_per_node: int
    gpu_type: str  # a GRES type; "": any
    constraint: str  # a feature; "": none
    memory_mib_per_node: int  # 0: the cluster's default
    time_limit_s: int  # 0: the partition's most
    partition: str
    account: str
    qos: str
    node_names: tuple[str, ...]  # run exactly there, where `Slurm.can_name_nodes`; empty: anywhere
    grace_s: int  # between SIGTERM and SIGKILL, as a wish


@dataclass(frozen=True, slots=True)
class Listing:
    """All jobs that slurmctld still remembers, ended ones within MinJobAge included."""

    jobs: tuple[SlurmJob, ...]
    as_of_s: float  # by the cluster's clock where it says so: what happened before is in here


class Slurm(Protocol):
    """One cluster. Thread-safe. Every call may raise EngineUnreachable, and TokenRefused where there are tokens.

    What changes something at the cluster is `submit` and `cancel`, and nothing else.
    """

    version: str  # for people, once something was asked: "Slurm 22.05.8, slurmrestd v0.0.38"
    can_name_nodes: bool

    def jobs(self, since: Listing | None = None) -> Listing | None:
        """Every job; None when it is known that nothing changed after `since`."""

    def job(self, job_id: int) -> SlurmJob | None:
        """One job as it is now; None: slurmctld does not know the id (any more)."""

    def nodes(self) -> tuple[SlurmNode, ...]:
        """Every node, by name."""

    def partitions(self) -> tuple[Partition, ...]:
        """Every partition."""

    def reservations(self) -> tuple[Reservation, ...]:
        """Every reservation."""

    def submit(self, submission: Submission) -> int:
        """Give a job to Slurm; returns its id. Raises LaunchRefused (the job's fault, or the site's rules), InDoubt,
        and EngineUnreachable when it is certain that Slurm does not have it.
        """

    def submit_all(self, submissions: Sequence[Submission]) -> list[int | Exception]:
        """`submit` of each, several at a time or in one go; an id, or what `submit` would have raised."""

    def cancel(self, job_id: int) -> None:
        """Ask a job to end (SIGTERM, and SIGKILL after the cluster's KillWait). One that has ended is left alone."""

    def accounting(self, names: Sequence[str], since_s: int) -> list[SlurmJob]:
        """Jobs of these names in the accounting, of our user, submitted since then. Raises NoAccounting."""

    def history(self, since_s: int, until_s: int) -> Iterator[SlurmJob]:
        """Everybody's jobs in the accounting that were submitted in [since, until). Raises NoAccounting."""

    def read_file(self, path: str, start: int, most: int) -> bytes:
        """Up to `most` bytes of a file that the nodes see, from an offset. Raises FileNotFoundError."""

    def close(self) -> None:
        """Let go of connections."""
