"""What the store keeps of live work: jobs, attempts, the event log, and the changes that a cycle decides.

Times are epoch milliseconds by our own clock; `seq` orders everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from watteau.domain.decisions import Reason
from watteau.domain.requests import AttemptState, JobId, JobState, Outcome, Request
from watteau.domain.units import Int64Array, PoolId, SiteId, TenantId


class EventKind(StrEnum):
    """What can happen to a job. Stored: never renamed, only added to."""

    SUBMITTED = "submitted"
    HELD = "held"
    RELEASED = "released"
    CANCEL_REQUESTED = "cancel_requested"
    WAITING = "waiting"  # its reason changed
    INTENDED = "intended"  # an attempt was decided and written down, before the engine was asked
    STARTED = "started"  # the engine runs it
    SILENT = "silent"  # the engine does not answer: the attempt is unknown
    ANSWERED = "answered"  # ... and does again
    ENDED = "ended"  # an attempt ended
    REQUEUED = "requeued"  # ... through no fault of the job, which waits again
    FINISHED = "finished"  # the job ended


@dataclass(frozen=True, slots=True)
class Place:
    """Where one worker of an attempt is: pool, node of that pool (from 0), GPUs, and how the core keeps a fraction."""

    pool: PoolId
    node: int
    gpus: tuple[int, ...]
    shared_gpu: int = -1


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it stands. `request` is shared by all tasks of an array; its `array` is not for one task."""

    job_id: JobId
    array_id: JobId | None  # of the first task; None: not an array
    array_index: int | None
    tenant: TenantId
    user: str
    request: Request
    state: JobState
    reason: Reason
    detail: str  # what the reason means here, or the cause of an end; "" when there is nothing to add
    submitted_ms: int
    started_ms: int | None  # of the last attempt that ran
    ended_ms: int | None
    site: SiteId | None
    attempts: int  # so far
    exit_code: int | None
    signal: int | None
    cancel_requested: bool

    @property
    def label(self) -> str:
        """How people name it: 17, or 17_3 for the task with index 3 of array 17."""
        return str(self.job_id) if self.array_id is None else f"{self.array_id}_{self.array_index}"


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One try at running a job."""

    job_id: JobId
    number: int
    name: str
    site: SiteId
    state: AttemptState
    places: tuple[Place, ...]
    intended_ms: int
    started_ms: int | None
    ended_ms: int | None
    outcome: Outcome | None
    exit_code: int | None
    signal: int | None
    cause: str


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the append-only log."""

    seq: int
    at_ms: int
    job_id: JobId
    attempt: int | None
    kind: EventKind
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Waits:
    """A waiting job's reason changed (WAITING)."""

    job_id: JobId
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Intends:
    """An attempt is to be started (INTENDED): the job counts as running from now on and holds its places."""

    job_id: JobId
    number: int
    name: str
    site: SiteId
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Starts:
    """The engine runs the attempt (STARTED). An engine that chooses nodes itself may run it elsewhere than intended."""

    job_id: JobId
    number: int
    started_ms: int
    places: tuple[Place, ...] | None = None  # where it really is; None: as intended
    nodes: tuple[str, ...] = ()  # what the engine calls them, where it said so


@dataclass(frozen=True, slots=True)
class FallsSilent:
    """The attempt's engine does not answer (SILENT)."""

    job_id: JobId
    number: int
    cause: str


@dataclass(frozen=True, slots=True)
class Answers:
    """... and does again (ANSWERED)."""

    job_id: JobId
    number: int


@dataclass(frozen=True, slots=True)
class Ends:
    """An attempt ended (ENDED). `requeue`: the job waits again (REQUEUED); otherwise it has ended too (FINISHED)."""

    job_id: JobId
    number: int
    outcome: Outcome
    started_ms: int | None  # None: it never ran
    ended_ms: int
    exit_code: int | None
    signal: int | None
    cause: str
    requeue: bool
    used: Mapping[str, Any]  # peak_memory_mib, cpu_ms, enforced: as the engine said
    given: bool = True  # False: its engine was never asked to start it, so that it counts as no try


@dataclass(frozen=True, slots=True)
class Finishes:
    """A job ends without an attempt of its own running: cancelled while it waited, or never to start (FINISHED)."""

    job_id: JobId
    state: JobState
    reason: Reason
    detail: str


Change = Waits | Intends | Starts | FallsSilent | Answers | Ends | Finishes


@dataclass(frozen=True, slots=True)
class PastUse:
    """Ended attempts as columns, jobs by hand as one attempt each, for the tenants' decayed use."""

    tenants: tuple[TenantId, ...]
    tenant: Int64Array  # [attempt], index into tenants
    gpu_milli: Int64Array  # [attempt]
    started_ms: Int64Array  # [attempt]
    ended_ms: Int64Array  # [attempt]
