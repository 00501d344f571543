"""The store: what is acknowledged is in here. One transaction for each request, an event log that only grows.

Every write takes the log's lock for its transaction, so that the order of `seq` is the order of commits, and whoever
has read up to a `seq` will never miss an earlier event.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from watteau.domain.people import Grant, User
from watteau.domain.records import AttemptRecord, Change, Event, EventKind, JobRecord
from watteau.domain.requests import JobId, JobState, Request
from watteau.domain.units import Int64Array, TenantId

LEADER = "controller"


class StoreUnavailable(Exception):  # noqa: N818 - the name says what happened, as in STYLE
    """The database cannot be read or written now (gone, locked, full, read-only). Nothing of the request was kept."""


class LeaseLost(Exception):  # noqa: N818
    """Another controller leads; what this one decided was not written."""


class Conflict(Exception):  # noqa: N818
    """The request contradicts what is there: a taken name, a job that has ended, a key used for something else."""


class NotFound(Exception):  # noqa: N818
    """There is no such row."""


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
    name_contains: str = ""
    array_id: JobId | None = None
    site: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, newest first, and where the next page begins (None: this was the last)."""

    jobs: tuple[JobRecord, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A job that has not ended, as the controller needs it at start."""

    job: JobRecord
    attempt: AttemptRecord | None  # the one that is intended, running or unknown


@dataclass(frozen=True, slots=True)
class PastUse:
    """Ended attempts as columns, for the tenants' decayed use."""

    tenants: tuple[TenantId, ...]
    tenant: Int64Array  # [attempt], index into tenants
    gpu_milli: Int64Array  # [attempt]
    started_ms: Int64Array  # [attempt]
    ended_ms: Int64Array  # [attempt]


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one tenant, user or site used in a span: whole attempts, cut to the span."""

    key: str
    jobs: int
    attempts: int
    gpu_milli_ms: int
    cpu_milli_ms: int


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


class Store:
    """All reads and writes. Thread-safe; `url` is SQLAlchemy's (`sqlite:////path`, `postgresql+psycopg://...`)."""

    def __init__(self, url: str) -> None:
        raise NotImplementedError

    # --- jobs, as their owners see them -----------------------------------------------------------------------------

    def submit(
        self,
        requests: Sequence[tuple[Request, TenantId]],
        user: User,
        now_ms: int,
        idempotency: IdempotencyKey | None = None,
    ) -> list[JobRecord]:
        """Keep new jobs, each with its SUBMITTED event; arrays become one job per task. All or nothing.

        Raises Conflict (the key was used for another request), NotFound (a dependency names no job),
        StoreUnavailable. A repeated key gives the first answer again.
        """
        raise NotImplementedError

    def ask(self, job_ids: Sequence[JobId], kind: EventKind, user: User, now_ms: int) -> list[JobRecord]:
        """Write down that someone wants jobs HELD, RELEASED or cancelled (CANCEL_REQUESTED); the controller acts on it.

        A waiting job is HELD or WAITING again at once. Jobs that have ended are left as they are. Audited.
        """
        raise NotImplementedError

    def job(self, job_id: JobId) -> JobRecord:
        """One job. Raises NotFound."""
        raise NotImplementedError

    def jobs(self, only: JobFilter, limit: int, cursor: str | None = None) -> Page:
        """A page of jobs, newest first. Raises ValueError for a cursor that is not one of ours."""
        raise NotImplementedError

    def attempts(self, job_id: JobId) -> list[AttemptRecord]:
        """A job's attempts, oldest first."""
        raise NotImplementedError

    def story(self, job_id: JobId, after_seq: int = 0, limit: int = 10_000) -> list[Event]:
        """A job's events, oldest first."""
        raise NotImplementedError

    def usage(self, by: str, since_ms: int, until_ms: int, tenants: frozenset[TenantId] | None) -> list[UsageRow]:
        """Use by `tenant`, `user` or `site` in [since, until), running attempts up to `until`; largest first."""
        raise NotImplementedError

    def counts(self) -> dict[tuple[str, str], int]:
        """Number of jobs by (state, reason name), for the metrics and `sites`; ended jobs only by state."""
        raise NotImplementedError

    # --- the controller ----------------------------------------------------------------------------------------------

    def lead(self, holder: str, now_ms: int, ttl_ms: int) -> Lease | None:
        """Take or renew leadership. None: someone else leads. By the database's clock where it has one."""
        raise NotImplementedError

    def resign(self, lease: Lease) -> None:
        """Give leadership back, if it is still ours."""
        raise NotImplementedError

    def live_jobs(self) -> tuple[int, Iterator[LiveJob]]:
        """(last seq, every job that has not ended, by id): one consistent picture."""
        raise NotImplementedError

    def past_use(self, since_ms: int) -> PastUse:
        """Attempts that ran and ended after a time."""
        raise NotImplementedError

    def events(self, after_seq: int, limit: int, tenants: frozenset[TenantId] | None = None) -> list[Event]:
        """The log from a seq on (exclusive), in order; of these tenants' jobs only, when given."""
        raise NotImplementedError

    def last_seq(self) -> int:
        """The newest event's seq; 0: none. Cheap: it is asked several times a second."""
        raise NotImplementedError

    def live_by_id(self, job_ids: Sequence[JobId]) -> list[LiveJob]:
        """The controller's view of some jobs, by id; those that do not exist are left out."""
        raise NotImplementedError

    def record(self, lease: Lease, changes: Sequence[Change], now_ms: int) -> int:
        """Write a cycle's decisions and observations in one transaction; returns the last seq written.

        Raises LeaseLost (nothing written) when another leads, checked inside the transaction.
        """
        raise NotImplementedError

    # --- people ------------------------------------------------------------------------------------------------------

    def add_user(self, name: str, password_hash: str | None, grants: Sequence[Grant], now_ms: int, by: str) -> User:
        """A new account. Raises Conflict when the name is taken. Audited."""
        raise NotImplementedError

    def user(self, name: str) -> tuple[User, str | None]:
        """(account, password hash or None). Raises NotFound."""
        raise NotImplementedError

    def users(self) -> list[User]:
        """All accounts by name."""
        raise NotImplementedError

    def change_user(
        self,
        name: str,
        now_ms: int,
        by: str,
        *,
        password_hash: str | None = None,
        disabled: bool | None = None,
        grants: Sequence[Grant] | None = None,
    ) -> User:
        """Change what is given. Raises NotFound. A new password or a disabled account revokes its tokens. Audited."""
        raise NotImplementedError

    def add_token(
        self,
        user_id: int,
        digest: str,
        label: str,
        scopes: Sequence[str],
        now_ms: int,
        expires_ms: int | None,
        by: str,
        *,
        one_time: bool = False,
    ) -> Token:
        """Keep a token by the digest of its secret. Audited."""
        raise NotImplementedError

    def token(self, digest: str, now_ms: int) -> tuple[Token, User] | None:
        """The token and its account, when it may be used now; None otherwise. Notes the use at most once a minute."""
        raise NotImplementedError

    def use_once(self, digest: str, now_ms: int) -> User | None:
        """Spend a one-time token: its account, the first time; None ever after. Audited."""
        raise NotImplementedError

    def tokens(self, user_id: int) -> list[Token]:
        """An account's tokens, newest first."""
        raise NotImplementedError

    def revoke(self, token_id: int, now_ms: int, by: str) -> None:
        """A token is no longer valid. Raises NotFound. Audited."""
        raise NotImplementedError

    def audit(self, user: str, action: str, target: str, now_ms: int, data: Mapping[str, Any] | None = None) -> None:
        """Add a line to the audit log."""
        raise NotImplementedError

    def audit_lines(self, after_seq: int, limit: int) -> list[AuditLine]:
        """The audit log from a seq on (exclusive), in order."""
        raise NotImplementedError

    # --- the database itself -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Whether a write would be kept now. Raises StoreUnavailable with what is wrong."""
        raise NotImplementedError

    @contextmanager
    def closing(self) -> Iterator["Store"]:
        """Close the connections at the end."""
        raise NotImplementedError
        yield self
