"""What Watteau asks of whatever runs jobs at a site. `tests/engines/test_contract.py` holds every engine to it.

An attempt's name, `watteau-<job>-<attempt>`, is all that both sides must agree on. Commands are idempotent by it:
after a crash nobody needs to know whether a command was carried out, it is given again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from watteau.domain.requests import Outcome
from watteau.domain.sites import NodeState, Partition, Reservation, SiteJob


def attempt_name(job_id: int, number: int) -> str:
    """The deterministic name of a job's attempt; numbers start at 1."""
    return f"watteau-{job_id}-{number}"


class EngineUnreachable(Exception):  # noqa: N818 - the name says what happened, as in STYLE
    """The engine does not answer, or cannot do anything now (a full disk). Nothing is known of its attempts.

    The message says what was tried. The command is given again until it is answered.
    """


class LaunchRefused(Exception):  # noqa: N818
    """The engine will never run this attempt as it was asked for; the message says why and what to change."""


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Where one worker of a gang runs: the site's node and the indices of its GPUs there."""

    node: str
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Launch:
    """One attempt to start. `command` or `script` as in the request; paths are as the engine's machines see them."""

    name: str
    job_id: int
    number: int
    job_name: str
    user: str
    tenant: str
    command: tuple[str, ...]
    script: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    workdir: str  # "": a folder of the attempt's own
    stdout: str  # "": kept by the engine
    stderr: str  # "": with stdout
    time_limit_s: int  # 0: none
    grace_s: int  # between the polite signal and the last one
    gpu_milli: int  # per worker
    cpu_milli: int  # per worker
    memory_mib: int  # per worker; 0: no limit
    places: tuple[WorkerPlace, ...]
    partition: str = ""  # "": the engine's usual one
    array_id: int | None = None
    array_index: int | None = None
    #: For the simulated engine: what the job would run if nobody stopped it, in seconds. Others ignore it.
    simulated_runtime_s: float | None = None


class Seen(StrEnum):
    """What an engine says of an attempt."""

    ABSENT = "absent"  # never started here, and it will not start by itself
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Observation:
    """What an engine last saw of one attempt. Its times are evidence, not order."""

    name: str
    seen: Seen
    started_ms: int | None = None
    ended_ms: int | None = None
    outcome: Outcome | None = None  # when ended
    exit_code: int | None = None
    signal: int | None = None
    cause: str = ""  # one sentence when it did not simply complete
    peak_memory_mib: int | None = None
    cpu_ms: int | None = None
    enforced: tuple[str, ...] = ()  # how limits are kept, for example "memory: cgroup v2"
    nodes: tuple[str, ...] = ()  # where it runs, one for each worker, when the engine chose that itself
    waits_for: str = ""  # while STARTING: what the engine itself says, for example "Slurm: Resources"


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """One node as the engine sees it."""

    node: str
    gpu_model: str  # "" without GPUs
    gpus: int
    cpu_cores: int
    memory_mib: int
    up: bool = True  # it takes new jobs
    why_down: str = ""
    state: NodeState = NodeState.UP
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogPart:
    """A piece of an attempt's output. `end` is where to go on; `complete`: nothing more will come."""

    content: bytes
    end: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do; the rest is refused before it is asked."""

    runs_commands: bool = True
    keeps_logs: bool = True
    fractions: bool = True  # it can give a part of a GPU
    gangs: bool = True  # it can run an attempt on several nodes
    chooses_nodes: bool = False  # `Launch.places` are a wish; `Observation.nodes` says what became of it
    most_starts: int = 1  # so many attempts are given to `start_all` at once
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class SiteView:
    """All that an engine which others use, too, shows of itself at one moment."""

    nodes: tuple[NodeCapacity, ...]
    jobs: tuple[SiteJob, ...]  # of other people; ended ones as long as they are remembered; no attempts of Watteau's
    partitions: tuple[Partition, ...]
    reservations: tuple[Reservation, ...]
    version: str  # for people, for example "Slurm 22.05.8 by slurmrestd v0.0.38"


class Engine(Protocol):
    """Runs attempts at one site. Thread-safe. Every call may raise EngineUnreachable."""

    capabilities: Capabilities

    def capacity(self) -> tuple[NodeCapacity, ...]:
        """The nodes that are there now."""

    def start(self, launch: Launch) -> None:
        """Start an attempt. One that was started before under this name is left as it is, whatever became of it.

        Returns when it is certain that the attempt will be seen again by `adopt`. Raises LaunchRefused.
        """

    def start_all(self, launches: Sequence[Launch]) -> list[tuple[str, str]]:
        """`start` of several attempts in their order; returns (name, why) of those that are refused."""

    def stop(self, name: str, why: Outcome) -> None:
        """Ask an attempt to end, politely first; `why` becomes its outcome. No effect on one that has ended.

        One that was never started is marked so that it never will be: a later `start` of that name has no effect and
        `adopt` says ENDED with that outcome.
        """

    def adopt(self, names: Iterable[str]) -> list[Observation]:
        """One observation for each name, and from now on their changes too. Of a name never seen: ABSENT."""

    def changes(self) -> list[Observation]:
        """Everything that changed since the last call, oldest first; empty when nothing did. Never blocks."""

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call `wake` (from any thread, often enough) whenever `changes` has something to say."""

    def read_log(self, name: str, stream: str, start: int, most: int) -> LogPart:
        """Up to `most` bytes of `stdout` or `stderr` from an offset. Raises FileNotFoundError when there is none."""

    def close(self) -> None:
        """Let go of threads and handles. Attempts go on running."""


def one_by_one(engine: Engine, launches: Sequence[Launch]) -> list[tuple[str, str]]:
    """`start_all` for an engine that gains nothing by starting several attempts at once."""
    refused = []
    for launch in launches:
        try:
            engine.start(launch)
        except LaunchRefused as why:
            refused.append((launch.name, str(why)))
    return refused


@runtime_checkable
class SharedEngine(Engine, Protocol):
    """An engine that other people use, too. Unless `may_change`, no call that changes anything leaves it."""

    may_change: bool  # False: `start` and `stop` raise EngineUnreachable before anything is sent

    def look(self) -> SiteView | None:
        """The site as of the last poll; None when it has not changed since the last call. Never blocks.

        Each view has every job that the engine still remembers: whoever missed one finds the ends in the next.
        """

    def leftovers(self, live: Collection[str]) -> list[str]:
        """Names of attempts that wait or run at the site and are not among `live`: of a fence, or of another life."""

    def history(self, since_ms: int, until_ms: int) -> Iterator[SiteJob]:
        """Jobs in the accounting that were submitted then, of everybody. Raises NoAccounting."""


class NoAccounting(Exception):  # noqa: N818
    """The site keeps no accounting, or shows none; the message says what to do."""
