"""What the store is asked with, and what it answers that is not a noun of the domain."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from watteau.domain.records import AttemptRecord, JobRecord
from watteau.domain.requests import JobId, JobState
from watteau.domain.sites import SiteJob
from watteau.domain.units import BoolArray, Int64Array, PoolId, SiteId, TenantId


@dataclass(frozen=True, slots=True)
class Lease:
    """Leadership until `expires_ms`, by our clock. `term` rises with every change of leader."""

    holder: str
    term: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's name for one request: the same key with the same digest is answered as the first time."""

    user_id: int
    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs: all conditions hold at once; empty ones do not restrict."""

    tenants: frozenset[TenantId] | None = None  # None: all; an empty set: none
    states: frozenset[JobState] = frozenset()
    user: str = ""
    name_contains: str = ""  # capital or small letters alike
    array_id: JobId | None = None
    site: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, newest first, and where the next page begins (None: this was the last)."""

    jobs: tuple[JobRecord, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class SiteJobFilter:
    """Which jobs that people gave to sites: all conditions hold at once; empty ones do not restrict."""

    sites: frozenset[SiteId] = frozenset()
    tenants: frozenset[TenantId] | None = None  # None: all; an empty set: none
    users: frozenset[str] = frozenset()
    states: frozenset[JobState] = frozenset()
    name_contains: str = ""  # capital or small letters alike
    engine_id: str = ""
    submitted_since_ms: int | None = None
    submitted_until_ms: int | None = None  # exclusive
    ended_since_ms: int | None = None  # ended at or after it, or not at all


@dataclass(frozen=True, slots=True)
class SiteJobPage:
    """Some jobs, newest first by their submission, and where the next page begins (None: this was the last)."""

    jobs: tuple[SiteJob, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A job that has not ended, as the controller needs it at start."""

    job: JobRecord
    attempt: AttemptRecord | None  # the one that is intended, running or unknown


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one tenant, user or site used in a span: whole attempts, cut to the span; a job by hand is one attempt."""

    key: str
    jobs: int  # with those by hand
    attempts: int
    gpu_milli_ms: int
    cpu_milli_ms: int
    by_hand_jobs: int = 0  # given to a site's own scheduler


@dataclass(frozen=True, slots=True)
class Ran:
    """What held GPUs in a span, as columns: a row for each attempt or job by hand, and each pool that it stood in."""

    pools: tuple[tuple[SiteId, PoolId], ...]
    pool: Int64Array  # [row], index into pools
    gpu_milli: Int64Array  # [row], of all its workers there
    from_ms: Int64Array  # [row], inside the span, and so is the next; what still runs ends with it
    to_ms: Int64Array  # [row]
    by_hand: BoolArray  # [row], given to the site's own scheduler; all of these come after ours
    #: Thousandths of a GPU times milliseconds of jobs by hand on nodes that are in no pool, or are not known.
    nowhere_gpu_milli_ms: Mapping[SiteId, int]


@dataclass(frozen=True, slots=True)
class Token:
    """An API token without its secret."""

    token_id: int
    user_id: int
    label: str
    scopes: tuple[str, ...]
    one_time: bool
    created_ms: int
    expires_ms: int | None
    last_used_ms: int | None
    revoked_ms: int | None


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One line of the append-only audit log."""

    seq: int
    at_ms: int
    user: str
    action: str
    target: str
    data: Mapping[str, Any] = field(default_factory=dict)
