"""The store: what is acknowledged is in here. One transaction for each request, an event log that only grows.

Every write takes the log's lock for its transaction, so that the order of `seq` is the order of commits, and whoever
has read up to a `seq` will never miss an earlier event.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, select, update

from watteau.domain.people import Grant, User
from watteau.domain.records import AttemptRecord, Change, Event, EventKind, JobRecord, PastUse
from watteau.domain.requests import JobId, Request
from watteau.domain.sites import ShadowDecision, SiteJob, SiteNode, SiteSetting
from watteau.domain.units import SiteId, TenantId
from watteau.store import accounts, jobs, leadership, log, pages, ran, site_pages, sites, use
from watteau.store.answers import (
    AuditLine,
    IdempotencyKey,
    JobFilter,
    Lease,
    LiveJob,
    Page,
    Ran,
    SiteJobFilter,
    SiteJobPage,
    Token,
    UsageRow,
)
from watteau.store.changes import apply
from watteau.store.commits import SharedCommits
from watteau.store.database import Database
from watteau.store.errors import Conflict, LeaseLost, NotFound, StoreUnavailable
from watteau.store.leadership import LEADER
from watteau.store.rows import Bodies
from watteau.store.tables import counters

__all__ = [
    "LEADER",
    "AuditLine",
    "Conflict",
    "IdempotencyKey",
    "JobFilter",
    "Lease",
    "LeaseLost",
    "LiveJob",
    "NotFound",
    "Page",
    "Ran",
    "SiteJobFilter",
    "SiteJobPage",
    "Store",
    "StoreUnavailable",
    "Token",
    "UsageRow",
]

#: Submissions of so many requests share a commit with others; larger ones would make them wait.
_FEW_REQUESTS = 100


class Store:
    """All reads and writes. Thread-safe; `url` is SQLAlchemy's (`sqlite:////path`, `postgresql://...`).

    Opening makes the tables or brings them up to date. Any method may raise StoreUnavailable; a URL that is not one of
    these two is a ValueError.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self._bodies = Bodies()
        self._submissions = SharedCommits[list[JobRecord]](self._database)

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

        def keep(connection: Connection) -> list[JobRecord]:
            return jobs.submit(connection, self._bodies, requests, user, now_ms, idempotency)

        if len(requests) <= _FEW_REQUESTS:
            return self._submissions.write(keep)
        with self._database.writing() as connection:
            return keep(connection)

    def ask(self, job_ids: Sequence[JobId], kind: EventKind, user: User, now_ms: int) -> list[JobRecord]:
        """Write down that someone wants jobs HELD, RELEASED or cancelled (CANCEL_REQUESTED); the controller acts on it.

        A waiting job is HELD or WAITING again at once. Jobs that have ended are left as they are, and so are those of
        which it was asked before. Audited. Raises NotFound, and ValueError for another kind.
        """
        if kind not in (EventKind.HELD, EventKind.RELEASED, EventKind.CANCEL_REQUESTED):
            raise ValueError(f"nobody asks for {kind}")
        with self._database.writing() as connection:
            return jobs.ask(connection, self._bodies, job_ids, kind, user, now_ms)

    def job(self, job_id: JobId) -> JobRecord:
        """One job. Raises NotFound."""
        with self._database.reading() as connection:
            return jobs.one(connection, self._bodies, job_id)

    def jobs(self, only: JobFilter, limit: int, cursor: str | None = None) -> Page:
        """A page of jobs, newest first. Raises ValueError for a cursor that is not one of ours."""
        with self._database.snapshot() as connection:
            return pages.page(connection, self._bodies, only, limit, cursor)

    def attempts(self, job_id: JobId) -> list[AttemptRecord]:
        """A job's attempts, oldest first; none of a job that does not exist."""
        with self._database.reading() as connection:
            return jobs.attempts_of(connection, job_id)

    def story(self, job_id: JobId, after_seq: int = 0, limit: int = 10_000) -> list[Event]:
        """A job's events, oldest first."""
        with self._database.reading() as connection:
            return log.story(connection, job_id, after_seq, limit)

    def usage(self, by: str, since_ms: int, until_ms: int, tenants: frozenset[TenantId] | None) -> list[UsageRow]:
        """Use by `tenant`, `user` or `site` in [since, until), running attempts up to `until`; largest first.

        Jobs that people gave to a site's own scheduler count like ours, as one attempt each.
        """
        with self._database.reading() as connection:
            return use.usage(connection, by, since_ms, until_ms, tenants)

    def ran(self, since_ms: int, until_ms: int, tenants: frozenset[TenantId] | None) -> Ran:
        """What held GPUs in [since, until), by pool: attempts, and jobs by hand on nodes that are ours."""
        with self._database.snapshot() as connection:
            return ran.ran(connection, since_ms, until_ms, tenants)

    def counts(self) -> dict[tuple[str, str], int]:
        """Number of jobs by (state, reason name), for the metrics and `sites`; ended jobs only by state."""
        with self._database.reading() as connection:
            return jobs.counts(connection)

    # --- the controller ----------------------------------------------------------------------------------------------

    def lead(self, holder: str, now_ms: int, ttl_ms: int) -> Lease | None:
        """Take or renew leadership. None: someone else leads. By the database's clock where it has one."""
        with self._database.writing() as connection:
            return leadership.take(connection, holder, now_ms, ttl_ms)

    def resign(self, lease: Lease) -> None:
        """Give leadership back, if it is still ours."""
        with self._database.writing() as connection:
            leadership.give_back(connection, lease)

    def live_jobs(self) -> tuple[int, Iterator[LiveJob]]:
        """(last seq, every job that has not ended, by id): one consistent picture."""
        with ExitStack() as stack:
            connection = stack.enter_context(self._database.snapshot())
            seq = log.last_seq(connection)
            return seq, _to_the_end(stack.pop_all(), connection, self._bodies)

    def past_use(self, since_ms: int) -> PastUse:
        """Attempts, and jobs by hand, that ran and ended after a time."""
        with self._database.reading() as connection:
            return use.past_use(connection, since_ms)

    def events(self, after_seq: int, limit: int, tenants: frozenset[TenantId] | None = None) -> list[Event]:
        """The log from a seq on (exclusive), in order; of these tenants' jobs only, when given."""
        with self._database.reading() as connection:
            return log.tail(connection, after_seq, limit, tenants)

    def last_seq(self) -> int:
        """The newest event's seq; 0: none. Cheap: it is asked several times a second."""
        with self._database.reading() as connection:
            return log.last_seq(connection)

    def live_by_id(self, job_ids: Sequence[JobId]) -> list[LiveJob]:
        """The controller's view of some jobs, by id; those that do not exist are left out."""
        with self._database.snapshot() as connection:
            return jobs.live_by_ids(connection, self._bodies, job_ids)

    def record(self, lease: Lease, changes: Sequence[Change], now_ms: int) -> range:
        """Write a cycle's decisions and observations in one transaction; returns the seqs of their events.

        Nothing is written when it raises: LeaseLost (another leads, checked inside the transaction), Conflict (an
        attempt is intended for a job that was held after the cycle read the log: read on, decide again), or
        InvariantBroken (a change contradicts what is there).
        """
        with self._database.writing() as connection:
            log.lock(connection)
            leadership.insist(connection, lease)
            return apply(connection, changes, now_ms)

    # --- sites that others use, too ----------------------------------------------------------------------------------

    def set_site(self, setting: SiteSetting) -> None:
        """Keep what an operator said of a site in place of what was said before. Audited; the version rises."""
        with self._database.writing() as connection:
            sites.set_site(connection, setting)

    def site_settings(self) -> list[SiteSetting]:
        """What operators said last of each site, by site; nothing of those that the fleet file alone speaks of."""
        with self._database.reading() as connection:
            return sites.settings(connection)

    def settings_version(self) -> int:
        """Rises with each `set_site`; 0: there was none. Cheap: it is asked several times a second."""
        with self._database.reading() as connection:
            return sites.settings_version(connection)

    def keep_nodes(self, lease: Lease, site: SiteId, nodes: Sequence[SiteNode]) -> None:
        """Keep a site's nodes as they are now; those that are not given stay as they were. Raises LeaseLost."""
        with self._database.writing() as connection:
            leadership.insist(connection, lease)
            sites.keep_nodes(connection, site, nodes)

    def site_nodes(self, site: SiteId) -> list[SiteNode]:
        """Every node that a site has shown, by pool and number."""
        with self._database.reading() as connection:
            return sites.nodes(connection, site)

    def keep_site_jobs(self, lease: Lease, jobs: Sequence[SiteJob]) -> None:
        """Keep jobs that people gave to sites as they were seen, in place of what was seen before. Raises LeaseLost.

        Only where an ended job was is kept when it is no longer said. Of a job that is given twice the last counts.
        """
        with self._database.writing() as connection:
            leadership.insist(connection, lease)
            sites.keep_jobs(connection, jobs)

    def live_site_jobs(self, site: SiteId) -> list[SiteJob]:
        """A site's jobs by hand that have not ended, oldest first."""
        with self._database.reading() as connection:
            return sites.live_jobs(connection, site)

    def site_jobs(self, only: SiteJobFilter, limit: int, cursor: str | None = None) -> SiteJobPage:
        """A page of jobs by hand, newest first. Raises ValueError for a cursor that is not one of ours."""
        with self._database.snapshot() as connection:
            return site_pages.page(connection, only, limit, cursor)

    def keep_shadow(self, lease: Lease, decisions: Sequence[ShadowDecision]) -> None:
        """Keep what would have been decided of jobs by hand; the first decision on a job stays. Raises LeaseLost."""
        with self._database.writing() as connection:
            leadership.insist(connection, lease)
            sites.keep_shadow(connection, decisions)

    def shadow_decisions(self, site: SiteId, since_ms: int, until_ms: int) -> list[ShadowDecision]:
        """Decisions on jobs that were submitted to a site in [since, until), oldest submission first."""
        with self._database.reading() as connection:
            return sites.shadow(connection, site, since_ms, until_ms)

    # --- people ------------------------------------------------------------------------------------------------------

    def add_user(self, name: str, password_hash: str | None, grants: Sequence[Grant], now_ms: int, by: str) -> User:
        """A new account. Raises Conflict when the name is taken. Audited."""
        with self._database.writing() as connection:
            return accounts.add_user(connection, name, password_hash, grants, now_ms, by)

    def user(self, name: str) -> tuple[User, str | None]:
        """(account, password hash or None). Raises NotFound."""
        with self._database.reading() as connection:
            return accounts.user(connection, name)

    def users(self) -> list[User]:
        """All accounts by name."""
        with self._database.snapshot() as connection:
            return accounts.all_users(connection)

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
        with self._database.writing() as connection:
            return accounts.change_user(connection, name, now_ms, by, password_hash, disabled, grants)

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
        with self._database.writing() as connection:
            return accounts.add_token(connection, user_id, digest, label, scopes, now_ms, expires_ms, by, one_time)

    def token(self, digest: str, now_ms: int) -> tuple[Token, User] | None:
        """The token and its account, when it may be used now; None otherwise, and for a one-time token.

        Notes the use at most once a minute.
        """
        with self._database.reading() as connection:
            found = accounts.usable_token(connection, digest, now_ms, one_time=False)
        if found is None:
            return None
        last_used_ms = found[0].last_used_ms
        if last_used_ms is None or last_used_ms <= now_ms - accounts.NOTE_USE_EVERY_MS:
            # Who may read may go on reading when the disk is full.
            with suppress(StoreUnavailable), self._database.writing() as connection:
                accounts.note_use(connection, found[0].token_id, now_ms)
        return found

    def use_once(self, digest: str, now_ms: int) -> User | None:
        """Spend a one-time token: its account, the first time; None ever after. Audited."""
        with self._database.writing() as connection:
            return accounts.spend(connection, digest, now_ms)

    def tokens(self, user_id: int) -> list[Token]:
        """An account's tokens, newest first."""
        with self._database.reading() as connection:
            return accounts.tokens_of(connection, user_id)

    def revoke(self, token_id: int, now_ms: int, by: str) -> None:
        """A token is no longer valid. Raises NotFound. Audited."""
        with self._database.writing() as connection:
            accounts.revoke(connection, token_id, now_ms, by)

    def audit(self, user: str, action: str, target: str, now_ms: int, data: Mapping[str, Any] | None = None) -> None:
        """Add a line to the audit log."""
        with self._database.writing() as connection:
            log.note(connection, user, action, target, now_ms, data)

    def audit_lines(self, after_seq: int, limit: int) -> list[AuditLine]:
        """The audit log from a seq on (exclusive), in order."""
        with self._database.reading() as connection:
            return log.notes(connection, after_seq, limit)

    # --- the database itself -----------------------------------------------------------------------------------------

    def identity(self) -> str:
        """The name that this database has for life, and no other one has but a copy of it."""
        with self._database.reading() as connection:
            found: str = connection.execute(select(counters.c.identity)).scalar_one()
            return found

    def check(self) -> None:
        """Whether a write would be kept now. Raises StoreUnavailable with what is wrong."""
        with self._database.writing() as connection:
            connection.execute(update(counters).values(probes=counters.c.probes + 1))

    @contextmanager
    def closing(self) -> Iterator["Store"]:
        """Close the connections at the end."""
        try:
            yield self
        finally:
            self._database.close()


def _to_the_end(snapshot: ExitStack, connection: Connection, bodies: Bodies) -> Iterator[LiveJob]:
    """The live jobs of a snapshot, which ends with them."""
    with snapshot:
        yield from jobs.live(connection, bodies)
