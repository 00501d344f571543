"""The cycle: observe, decide, write down, act. One controller leads; the others stand by.

    observe   the store's events (what people ask) and the engines' news (what attempts do)
    decide    `core.step` on the live arrays
    record    one transaction with everything that was observed and decided; nothing is done before it is durable
    act       attempts are started and stopped, by commands that may be repeated

Whatever goes wrong between `record` and the end of `act` is mended by building everything anew from the store: that is
how a controller starts, and how it goes on after an error of its own or of the database.
"""

import heapq
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from watteau.domain.decisions import SENTENCE, Reason
from watteau.domain.errors import InvariantBroken
from watteau.domain.fleet import Engine as EngineKind
from watteau.domain.fleet import Fleet, Mode
from watteau.domain.policy import Policy
from watteau.domain.records import (
    Answers,
    AttemptRecord,
    Change,
    Ends,
    EventKind,
    FallsSilent,
    Finishes,
    Intends,
    JobRecord,
    Place,
    Starts,
    Waits,
)
from watteau.domain.requests import AttemptState, JobId, JobState, Outcome, Request
from watteau.domain.units import NEVER_S, SiteId
from watteau.engines.contract import Engine, Launch, LogPart, Observation, Seen, attempt_name
from watteau.runtime.clock import Clock, monotonic_s
from watteau.runtime.dependencies import Dependencies, Target
from watteau.runtime.live_state import Asked, LiveState, PoolFigures, Promise, Stepped, compile_core, digest_of
from watteau.runtime.sites import Refused, SiteDriver, Voice
from watteau.store.store import Conflict, JobFilter, Lease, LeaseLost, LiveJob, NotFound, Store, StoreUnavailable

LEASE_MS = 6_000
_RENEW_S = 2.0
_STANDBY_S = 1.0
#: The log is looked at this often even if nobody called: another process may have written to it.
_POLL_S = 0.5
_SAY_REASONS_EVERY_S = 5.0
_VERIFY_EVERY_S = 600.0
_EVENTS_AT_ONCE = 10_000
_PAGE = 1_000
#: An attempt that is lost again and again is not the site's fault alone.
MOST_ATTEMPTS = 5
GRACE_S = 10
#: Use older than this many half-lives weighs under a millionth.
_HALF_LIVES = 20
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.2, 10.0


@dataclass(slots=True)
class _Attempt:
    number: int
    name: str
    site: SiteId
    places: tuple[Place, ...]
    state: AttemptState
    intended_ms: int
    started_ms: int | None = None
    stopping: bool = False


@dataclass(slots=True)
class _Job:
    """A job that has not ended, as the controller knows it."""

    job_id: JobId
    array_id: JobId | None
    array_index: int | None
    request: Request
    tenant: str
    user: str
    submitted_ms: int
    held: bool
    attempts: int
    cancel: bool
    reason: Reason
    said: Reason | None  # the reason that is in the store
    detail: str = ""
    said_detail: str = ""
    attempt: _Attempt | None = None
    queued: bool = False  # in the core's queue


@dataclass(frozen=True, slots=True)
class SiteFigures:
    """One site as the controller sees it."""

    site: SiteId
    silent_cause: str  # "": it answers
    since_ms: int
    pools: tuple[PoolFigures, ...]
    running: int
    it_power_w: int


@dataclass(slots=True)
class Figures:
    """What the controller counts of itself; read by /metrics."""

    cycles: int = 0
    steps: int = 0
    rebuilds: int = 0
    verified: int = 0
    cycle_s: float = 0.0  # the last one
    step_s: float = 0.0  # the last one
    started: int = 0
    ended: int = 0
    errors: int = 0
    digest: str = ""


@dataclass(slots=True)
class _Now:
    """What one cycle gathers."""

    now_ms: int
    changes: list[Change] = field(default_factory=list)
    acts: list[Callable[[], None]] = field(default_factory=list)
    touched: set[JobId] = field(default_factory=set)


class Controller:
    """Drives the core with the wall clock and real engines. `start` makes its thread; the rest is for any thread."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        engines: Mapping[SiteId, Engine],
        policy: Policy,
        clock: Clock,
        holder: str,
    ) -> None:
        self._store = store
        self._given_fleet = fleet
        self._policy = policy
        self._clock = clock
        self._holder = holder
        self._log = structlog.get_logger().bind(controller=holder)
        self._wakes = threading.Condition()
        self._called = False
        self._stopping = False
        self._changed = threading.Condition()
        self._change_count = 0
        self._lease: Lease | None = None
        self._lease_until_s = 0.0  # by the monotonic clock
        self._closed = threading.Event()
        self._heart = threading.Thread(target=self._renew, name="watteau-lease", daemon=True)
        self.drivers = {
            site.id: SiteDriver(site, engines[site.id], self._leads_still, self.wake)
            for site in fleet.sites
            if site.id in engines and site.mode is Mode.DRIVE
        }
        self._runs_commands = tuple(
            site_id for site_id, driver in self.drivers.items() if driver.engine.capabilities.runs_commands
        )
        self._silent_since_ms = dict.fromkeys(self.drivers, clock.now_ms())
        self._live_lock = threading.RLock()  # guards all below
        self._live: LiveState | None = None
        self._jobs: dict[JobId, _Job] = {}
        self._by_name: dict[str, JobId] = {}
        self._dependencies = Dependencies(self._look_up)
        self._cursor = 0
        self._timers: list[tuple[int, JobId]] = []  # (epoch second, job): begin, deadline, delay
        self._unsaid: set[JobId] = set()
        self._said_s = 0.0
        self._verified_s = 0.0
        self._wake_s = NEVER_S  # the core wants to be stepped then
        self._dirty = False  # something was gathered for the next step
        self.figures = Figures()
        self.compiled = False
        self.detail = "starting"
        self._thread = threading.Thread(target=self._run, name="watteau-controller", daemon=True)

    # --- what others call --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to lead, or to stand by."""
        self._heart.start()
        self._thread.start()

    def close(self) -> None:
        """End after the present cycle and give leadership back. Attempts go on."""
        self._stopping = True
        self.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout=30)
        self._closed.set()
        for driver in self.drivers.values():
            driver.close()

    def wake(self) -> None:
        """Look at the store and the engines now."""
        with self._wakes:
            self._called = True
            self._wakes.notify_all()
        self._tell()

    def wait_change(self, timeout_s: float) -> None:
        """Return when something was written to the log, or after a time."""
        with self._changed:
            before = self._change_count
            self._changed.wait_for(lambda: self._change_count != before or self._stopping, timeout_s)

    @property
    def leading(self) -> bool:
        """Whether this controller decides now."""
        return self._live is not None

    def promise(self, job_id: JobId) -> Promise | None:
        """What the core knows of a waiting job."""
        with self._live_lock:
            return self._live.promise(job_id) if self._live and self._live.knows(job_id) else None

    def pools_for(self, job_id: JobId) -> list[PoolFigures]:
        """The pools that a live job may use, as they are now."""
        with self._live_lock:
            if self._live is None or not self._live.knows(job_id):
                return []
            shape = self._live.shape(job_id)
            return [
                its
                for its in self._live.pools()
                if (not shape.sites or its.site in shape.sites)
                and (not shape.gpu_models or its.pool.gpu_model in shape.gpu_models)
            ]

    def sites(self) -> list[SiteFigures]:
        """Every driven site, as seen now; empty when another controller leads."""
        with self._live_lock:
            if self._live is None:
                return []
            pools, power = self._live.pools(), self._live.power_w()
            running = Counter(job.attempt.site for job in self._jobs.values() if job.attempt)
            return [
                SiteFigures(
                    site_id,
                    driver.silent_cause,
                    self._silent_since_ms[site_id],
                    tuple(pool for pool in pools if pool.site == site_id),
                    running=running[site_id],
                    it_power_w=power[site_id],
                )
                for site_id, driver in self.drivers.items()
            ]

    def read_log(self, job_id: JobId, attempt: int, stream: str, start: int, most: int) -> LogPart:
        """A piece of an attempt's output. Raises FileNotFoundError and EngineUnreachable."""
        for record in self._store.attempts(job_id):
            if record.number == attempt and record.site in self.drivers:
                return self.drivers[record.site].engine.read_log(record.name, stream, start, most)
        raise FileNotFoundError(f"attempt {attempt} of job {job_id} has no output here")

    # --- leading -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        self.detail = "compiling the core (once for each version, about a minute)"
        compile_core()
        self.compiled = True
        while not self._stopping:
            try:
                lease = self._store.lead(self._holder, self._clock.now_ms(), LEASE_MS)
                if lease is None:
                    self.detail = "another controller leads"
                    self._wait(_STANDBY_S)
                    continue
                self._hold(lease)
                self._rebuild()
                self.detail = "leading"
                pause_s = _FIRST_PAUSE_S
                while not self._stopping:
                    self._wait(self._cycle())
            except LeaseLost:
                self._log.warning("leadership lost")
            except Conflict as met:  # someone held a job after the cycle had read the log: look again
                self._log.info("decided on what had changed meanwhile", cause=str(met))
            except StoreUnavailable as gone:
                self._log.error("store unavailable", cause=str(gone))
                self.detail = f"the store is unavailable: {gone}"
            except Exception as failed:  # our mistake: nothing half-done is kept, and the store has all that counts
                self.figures.errors += 1
                self._log.exception("cycle failed; building everything anew from the store", cycle=self.figures.cycles)
                self.detail = f"a cycle failed: {failed}"
            held = self._lease
            self._let_go()
            if not self._stopping:
                self._wait(pause_s, only_stop=True)
                pause_s = min(2 * pause_s, _LAST_PAUSE_S)
            elif held is not None:
                self._resign(held)

    def _resign(self, lease: Lease) -> None:
        try:
            self._store.resign(lease)
        except StoreUnavailable as gone:
            self._log.warning("could not resign; the lease runs out by itself", cause=str(gone))

    def _hold(self, lease: Lease) -> None:
        self._lease = lease
        self._lease_until_s = monotonic_s() + LEASE_MS / 1000

    def _renew(self) -> None:
        """Keep leading while a long cycle, or a rebuild, is under way. Whether it still leads, `record` finds out."""
        while not self._closed.wait(_RENEW_S):
            held = self._lease
            if held is None:
                continue
            try:
                lease = self._store.lead(self._holder, self._clock.now_ms(), LEASE_MS)
            except StoreUnavailable:
                continue
            if lease is not None and self._lease is held and lease.term == held.term:
                self._hold(lease)

    def _leads_still(self) -> bool:
        # A margin for what a start takes; names make sure that a start that comes too late is harmless.
        return monotonic_s() < self._lease_until_s - 0.5

    @property
    def _arrays(self) -> LiveState:
        if self._live is None:
            raise InvariantBroken("nothing is decided by a controller that does not lead")
        return self._live

    def _let_go(self) -> None:
        self._lease = None
        with self._live_lock:
            self._live = None
            self._jobs.clear()
            self._by_name.clear()
        for driver in self.drivers.values():
            driver.reset()

    def _wait(self, seconds: float, *, only_stop: bool = False) -> None:
        deadline_s = monotonic_s() + seconds
        with self._wakes:
            while not self._stopping and (only_stop or not self._called):
                left_s = deadline_s - monotonic_s()
                if left_s <= 0:
                    break
                self._wakes.wait(left_s)
            self._called = False

    def _tell(self) -> None:
        with self._changed:
            self._change_count += 1
            self._changed.notify_all()

    def _rebuild(self) -> None:
        """Everything from the store; then the engines are asked for the truth about all that should run."""
        began = monotonic_s()
        now_ms = self._clock.now_ms()
        with self._live_lock:
            self._jobs.clear()
            self._by_name.clear()
            self._dependencies = Dependencies(self._look_up)
            self._timers.clear()
            self._unsaid.clear()
            self._cursor, rows = self._store.live_jobs()
            live_jobs = list(rows)
            fleet = self._given_fleet.with_tenants(str(row.job.tenant) for row in live_jobs)
            live = LiveState(fleet, self._policy, now_ms // 1000)
            past = self._store.past_use(now_ms - _HALF_LIVES * self._policy.half_life_s * 1000)
            live.charge_past(past.tenants, past.tenant, past.gpu_milli, past.started_ms // 1000, past.ended_ms // 1000)
            self._live = live
            now = _Now(now_ms)
            asked = [self._asked(row.job, row.attempt) for row in live_jobs]
            for row, its_asked in zip(live_jobs, asked, strict=True):
                self._know(row, its_asked)
            for site in fleet.sites:
                its = self.drivers.get(site.id)
                live.bar(site.id, barred=its is None or bool(its.silent_cause))
            self._check_digest(asked)
            now.touched.update(job.job_id for job in self._jobs.values() if job.attempt is None)
            for job in [job for job in self._jobs.values() if job.cancel]:
                self._cancel(job, now, "cancelled on request")
            self._dirty, self._wake_s = True, 0
            self.figures.rebuilds += 1
        by_site: dict[SiteId, list[str]] = defaultdict(list)
        for job in self._jobs.values():
            if job.attempt is not None:
                by_site[job.attempt.site].append(job.attempt.name)
        for site_id, driver in self.drivers.items():
            driver.adopt(by_site[site_id])
        with self._live_lock:
            self._finish_cycle(now)
        self._log.info("rebuilt", jobs=len(live_jobs), seconds=round(monotonic_s() - began, 3))

    def _check_digest(self, asked: Iterable[Asked]) -> None:
        """Prove that the arrays hold exactly what the store says. Raises InvariantBroken."""
        expected = digest_of(self._arrays.fleet, asked)
        self.figures.digest = self._arrays.digest()
        if self.figures.digest != expected:
            raise InvariantBroken(
                f"the arrays ({self.figures.digest[:12]}) are not what the store says ({expected[:12]})"
            )
        self._arrays.check()
        self.figures.verified += 1
        self._verified_s = monotonic_s()

    def _know(self, row: LiveJob, asked: Asked) -> _Job:
        record = row.job
        job = _Job(
            job_id=record.job_id,
            array_id=record.array_id,
            array_index=record.array_index,
            request=record.request,
            tenant=record.tenant,
            user=record.user,
            submitted_ms=record.submitted_ms,
            held=record.state is JobState.HELD,
            attempts=record.attempts,
            cancel=record.cancel_requested,
            reason=record.reason,
            said=record.reason if record.state is not JobState.RUNNING else None,
            detail=record.detail,
            said_detail=record.detail,
        )
        self._jobs[job.job_id] = job
        if row.attempt is not None:
            its = row.attempt
            job.attempt = _Attempt(
                its.number, its.name, its.site, its.places, its.state, its.intended_ms, its.started_ms
            )
            self._by_name[its.name] = job.job_id
        self._dependencies.add(job.job_id, job.array_id, job.array_index, job.request, job.user)
        if job.attempt is not None:
            self._dependencies.begun(job.job_id, job.attempt.intended_ms // 1000)
        if job.request.deadline_s is not None:
            heapq.heappush(self._timers, (job.request.deadline_s, job.job_id))
        self._arrays.add(asked)
        return job

    def _asked(self, record: JobRecord, attempt: AttemptRecord | None) -> Asked:
        request = record.request
        shape = request.shape
        if not shape.sites and self._runs_commands:
            # A real command must not land on a site that only pretends; who wants one of those names it.
            shape = type(shape)(
                **{name: getattr(shape, name) for name in shape.__slots__ if name != "sites"}, sites=self._runs_commands
            )
        return Asked(
            job_id=record.job_id,
            shape=shape,
            tenant=record.tenant,
            submit_s=record.submitted_ms // 1000,
            estimate_s=max(1, request.expected_s),
            limit_s=request.time_limit_s,
            priority_class=int(request.priority),
            running=(attempt.site, attempt.places) if attempt else None,
            start_s=attempt.intended_ms // 1000 if attempt else -1,
        )

    def _look_up(self, job_id: JobId) -> list[Target]:
        """A job, or all tasks of the array that it is the first of, whether they have ended or not."""
        try:
            record = self._store.job(job_id)
        except NotFound:
            return []
        records = [record]
        if record.array_id == job_id:
            records, cursor = [], None
            while records == [] or cursor is not None:
                page = self._store.jobs(JobFilter(array_id=job_id), _PAGE, cursor)
                records += page.jobs
                cursor = page.next_cursor
        return [
            Target(its.job_id, its.array_index, its.state, None if its.started_ms is None else its.started_ms // 1000)
            for its in records
        ]

    # --- the cycle ---------------------------------------------------------------------------------------------------

    def _cycle(self) -> float:
        """One cycle; returns how long to wait for the next one when nobody calls."""
        began = monotonic_s()
        self.figures.cycles += 1
        now = _Now(self._clock.now_ms())
        with self._live_lock:
            self._hear_people(now)
            self._hear_sites(now)
            self._hear_clock(now)
            self._finish_cycle(now)
            if monotonic_s() - self._verified_s > _VERIFY_EVERY_S:
                self._verify()
        self.figures.cycle_s = monotonic_s() - began
        return self._next_s(now.now_ms)

    def _next_s(self, now_ms: int) -> float:
        due_s = min(self._wake_s, self._arrays.next_change_s(), self._timers[0][0] if self._timers else NEVER_S)
        if due_s >= NEVER_S:
            return _POLL_S
        return max(0.0, min(_POLL_S, due_s - now_ms / 1000))

    def _finish_cycle(self, now: _Now) -> None:
        """Admit what may wait, decide, write down, act."""
        self._settle(now)
        self._decide(now)
        self._say(now)
        if now.changes:
            assert self._lease is not None
            seq = self._store.record(self._lease, now.changes, now.now_ms)
            self._tell()
            self._log.info("cycle", cycle=self.figures.cycles, seq=seq, changes=_by_kind(now.changes))
        for act in now.acts:
            act()

    def _hear_people(self, now: _Now) -> None:
        if self._store.last_seq() <= self._cursor:
            return
        while events := self._store.events(self._cursor, _EVENTS_AT_ONCE):
            new = [
                event.job_id for event in events if event.kind is EventKind.SUBMITTED and event.job_id not in self._jobs
            ]
            for row in self._store.live_by_id(new):
                if not row.job.state.is_end:
                    self._know_new(row, now)
            for event in events:
                job = self._jobs.get(event.job_id)
                if job is None:
                    continue
                if event.kind is EventKind.CANCEL_REQUESTED:
                    self._cancel(job, now, "cancelled on request")
                elif event.kind in (EventKind.HELD, EventKind.RELEASED):
                    job.held = event.kind is EventKind.HELD
                    now.touched.add(job.job_id)
            self._cursor = events[-1].seq

    def _know_new(self, row: LiveJob, now: _Now) -> None:
        if row.job.tenant not in self._arrays.tenants:
            raise InvariantBroken(
                f"job {row.job.job_id} belongs to tenant {row.job.tenant}, whom the fleet does not have"
            )
        job = self._know(row, self._asked(row.job, row.attempt))
        if job.cancel:
            self._cancel(job, now, "cancelled on request")
        elif row.attempt is None:
            now.touched.add(job.job_id)

    def _hear_sites(self, now: _Now) -> None:
        for site, driver in self.drivers.items():
            for news in driver.drain():
                match news:
                    case Observation():
                        self._observed(news, now)
                    case Refused():
                        self._refused(news, now)
                    case Voice():
                        self._voice(site, driver, news, now)

    def _observed(self, seen: Observation, now: _Now) -> None:
        job = self._jobs.get(self._by_name.get(seen.name, JobId(-1)))
        if job is None or job.attempt is None or job.attempt.name != seen.name:
            return
        attempt = job.attempt
        if attempt.state is AttemptState.UNKNOWN:
            attempt.state = AttemptState.RUNNING
            now.changes.append(Answers(job.job_id, attempt.number))
        if seen.seen is Seen.ABSENT:
            if attempt.state is AttemptState.INTENDED:
                now.acts.append(lambda: self._launch(job))  # written down, and then something happened: start it now
            else:
                self._ended(job, seen, now, Outcome.LOST, seen.cause or "the engine no longer knows the attempt")
        elif seen.seen is Seen.ENDED:
            self._ended(job, seen, now, seen.outcome or Outcome.LOST, seen.cause)
        elif attempt.state is AttemptState.INTENDED and seen.seen is Seen.RUNNING:
            self._begun(job, attempt, seen.started_ms or now.now_ms, now)
        if job.cancel and job.attempt is not None and not attempt.stopping:
            self._stop(job, now)

    def _begun(self, job: _Job, attempt: _Attempt, started_ms: int, now: _Now) -> None:
        attempt.state, attempt.started_ms = AttemptState.RUNNING, started_ms
        now.changes.append(Starts(job.job_id, attempt.number, started_ms))
        self._dependencies.begun(job.job_id, now.now_ms // 1000)
        now.touched |= self._dependencies.dependents(job.job_id, job.array_id)
        self.figures.started += 1

    def _refused(self, refused: Refused, now: _Now) -> None:
        job = self._jobs.get(self._by_name.get(refused.name, JobId(-1)))
        if job is not None and job.attempt is not None and job.attempt.name == refused.name:
            seen = Observation(refused.name, Seen.ENDED)
            self._ended(job, seen, now, Outcome.FAILED, f"{SENTENCE[Reason.LAUNCH_REFUSED]} {refused.cause}")

    def _ended(self, job: _Job, seen: Observation, now: _Now, outcome: Outcome, cause: str) -> None:
        assert job.attempt is not None
        if job.attempt.state is AttemptState.INTENDED and seen.started_ms is not None:
            # It ran and ended between two looks at it: its story has both all the same.
            self._begun(job, job.attempt, seen.started_ms, now)
        requeue = (
            outcome is Outcome.LOST and job.request.requeue and not job.cancel and job.attempt.number < MOST_ATTEMPTS
        )
        if outcome is Outcome.CANCELLED and job.detail:
            cause = job.detail
        now.changes.append(
            Ends(
                job_id=job.job_id,
                number=job.attempt.number,
                outcome=outcome,
                started_ms=seen.started_ms if seen.started_ms is not None else job.attempt.started_ms,
                ended_ms=seen.ended_ms if seen.ended_ms is not None else now.now_ms,
                exit_code=seen.exit_code,
                signal=seen.signal,
                cause=cause,
                requeue=requeue,
                used={
                    "peak_memory_mib": seen.peak_memory_mib,
                    "cpu_ms": seen.cpu_ms,
                    "enforced": list(seen.enforced),
                },
            )
        )
        del self._by_name[job.attempt.name]
        job.attempt = None
        self._dirty = True
        self.figures.ended += 1
        if requeue:
            job.reason, job.said, job.detail, job.said_detail = Reason.NONE, None, "", ""
            job.queued = True
            self._arrays.lose(job.job_id)
            now.touched.add(job.job_id)
        else:
            self._forget(job, _STATE_OF[outcome], now)

    def _forget(self, job: _Job, state: JobState, now: _Now) -> None:
        """The job has ended; whoever waited for that is looked at."""
        del self._jobs[job.job_id]
        self._unsaid.discard(job.job_id)
        self._arrays.forget(job.job_id)
        self._dirty = True
        now.touched |= self._dependencies.ended(job.job_id, state)
        now.touched.discard(job.job_id)

    def _voice(self, site: SiteId, driver: SiteDriver, voice: Voice, now: _Now) -> None:
        self._silent_since_ms[site] = now.now_ms
        self._arrays.bar(site, barred=not voice.heard)
        self._dirty = True
        names = []
        for job in self._jobs.values():
            if job.attempt is None or job.attempt.site != site:
                continue
            names.append(job.attempt.name)
            if not voice.heard and job.attempt.state is AttemptState.RUNNING:
                job.attempt.state = AttemptState.UNKNOWN
                now.changes.append(FallsSilent(job.job_id, job.attempt.number, voice.cause))
        if voice.heard:
            driver.adopt(names)

    def _hear_clock(self, now: _Now) -> None:
        now_s = now.now_ms // 1000
        # R3: when no site answers at all, it is more likely us than all of them. Nothing expires until one does.
        blind = bool(self.drivers) and all(driver.silent_cause for driver in self.drivers.values())
        while not blind and self._timers and self._timers[0][0] <= now_s:
            _, job_id = heapq.heappop(self._timers)
            job = self._jobs.get(job_id)
            if job is None:
                continue
            if job.request.deadline_s is not None and job.request.deadline_s <= now_s:
                self._cancel(job, now, "its deadline has passed")
            else:
                now.touched.add(job_id)
        if min(self._wake_s, self._arrays.next_change_s()) <= now_s:
            self._dirty = True

    def _cancel(self, job: _Job, now: _Now, why: str) -> None:
        job.cancel, job.detail = True, why
        if job.attempt is not None:
            self._stop(job, now)
        else:
            now.changes.append(Finishes(job.job_id, JobState.CANCELLED, Reason.NONE, why))
            self._forget(job, JobState.CANCELLED, now)

    def _stop(self, job: _Job, now: _Now) -> None:
        attempt = job.attempt
        assert attempt is not None
        attempt.stopping = True
        now.acts.append(lambda: self.drivers[attempt.site].stop(attempt.name, Outcome.CANCELLED))

    def _settle(self, now: _Now) -> None:
        """Let jobs wait in the core's queue, or say what keeps them out of it."""
        while now.touched:
            batch, now.touched = sorted(now.touched), set()
            for job_id in batch:
                job = self._jobs.get(job_id)
                if job is None or job.attempt is not None:
                    continue
                kept = self._kept_out(job, now)
                if kept is None:
                    if not job.queued:
                        self._arrays.arrive(job_id)
                        self._dirty = job.queued = True
                    continue
                reason, detail = kept
                if reason.is_final:
                    now.changes.append(Finishes(job_id, JobState.UNSCHEDULABLE, reason, detail))
                    self._forget(job, JobState.UNSCHEDULABLE, now)
                    continue
                if job.queued:
                    self._arrays.withdraw(job_id)
                    self._dirty = True
                    job.queued = False
                self._set_reason(job, reason, detail)

    def _kept_out(self, job: _Job, now: _Now) -> tuple[Reason, str] | None:
        """Why the job may not wait for a place yet; None when it may."""
        now_s = now.now_ms // 1000
        if job.held:
            now.touched |= self._dependencies.stand_back(job.job_id)
            return Reason.STOPPED, ""
        if job.request.begin_s is not None and job.request.begin_s > now_s:
            heapq.heappush(self._timers, (job.request.begin_s, job.job_id))
            return Reason.BEGIN_TIME, ""
        verdict = self._dependencies.verdict(job.job_id, now_s)
        if verdict is None:
            return None
        if verdict.look_again_s is not None:
            heapq.heappush(self._timers, (verdict.look_again_s, job.job_id))
        return verdict.reason, verdict.detail

    def _set_reason(self, job: _Job, reason: Reason, detail: str) -> None:
        job.reason, job.detail = reason, detail
        if (job.said, job.said_detail) != (reason, detail):
            self._unsaid.add(job.job_id)

    def _decide(self, now: _Now) -> None:
        if not self._dirty:
            return
        began = monotonic_s()
        stepped: Stepped = self._arrays.step(now.now_ms // 1000)
        self.figures.step_s = monotonic_s() - began
        self.figures.steps += 1
        self._dirty, self._wake_s = False, stepped.wake_s
        for start in stepped.starts:
            job = self._jobs[start.job_id]
            job.attempts += 1
            name = attempt_name(job.job_id, job.attempts)
            job.attempt = _Attempt(job.attempts, name, start.site, start.places, AttemptState.INTENDED, now.now_ms)
            job.queued, job.reason, job.said = False, Reason.NONE, None
            job.detail = job.said_detail = ""
            self._unsaid.discard(job.job_id)
            self._by_name[name] = job.job_id
            now.changes.append(Intends(job.job_id, job.attempts, name, start.site, start.places))
            now.acts.append(lambda job=job: self._launch(job))  # type: ignore[misc]
        for job_id, reason in stepped.reasons:
            waiting = self._jobs.get(job_id)
            if waiting is None or waiting.attempt is not None:
                continue
            if reason.is_final:
                now.changes.append(Finishes(job_id, JobState.UNSCHEDULABLE, reason, ""))
                self._forget(waiting, JobState.UNSCHEDULABLE, now)
            else:
                self._set_reason(waiting, reason, "")
        if now.touched:  # a job that will never start ends others that depend on it
            self._settle(now)

    def _say(self, now: _Now) -> None:
        """Write reasons down: the first one of a job at once, later ones gathered, since they may change many times."""
        all_due = monotonic_s() - self._said_s > _SAY_REASONS_EVERY_S
        if all_due:
            self._said_s = monotonic_s()
        for job_id in sorted(self._unsaid):
            job = self._jobs[job_id]
            if (job.said, job.said_detail) == (job.reason, job.detail):
                self._unsaid.discard(job_id)
            elif all_due or job.said in (None, Reason.NONE) or job.reason >= Reason.STOPPED:
                now.changes.append(Waits(job_id, job.reason, job.detail))
                job.said, job.said_detail = job.reason, job.detail
                self._unsaid.discard(job_id)

    def _launch(self, job: _Job) -> None:
        attempt = job.attempt
        if attempt is None:
            return
        driver = self.drivers[attempt.site]
        request = job.request
        driver.start(
            Launch(
                name=attempt.name,
                job_id=job.job_id,
                number=attempt.number,
                job_name=request.name,
                user=job.user,
                tenant=job.tenant,
                command=request.command,
                script=request.script,
                arguments=request.arguments,
                environment=request.environment,
                workdir=request.workdir,
                stdout=request.stdout,
                stderr=request.stderr,
                time_limit_s=request.time_limit_s,
                grace_s=GRACE_S,
                gpu_milli=request.gpu_milli,
                cpu_milli=request.cpu_milli,
                memory_mib=request.memory_mib,
                places=driver.worker_places(attempt.places),
                array_id=job.array_id,
                array_index=job.array_index,
                simulated_runtime_s=_slept_s(request) if driver.site.engine is EngineKind.SIMULATED else None,
            )
        )

    def _verify(self) -> None:
        """Compare the running arrays with the store. Raises InvariantBroken, upon which everything is built anew."""
        seq, rows = self._store.live_jobs()
        jobs = list(rows)
        if self._store.last_seq() == self._cursor == seq:  # else something came in meanwhile: another time
            self._check_digest([self._asked(row.job, row.attempt) for row in jobs])


_STATE_OF = {
    Outcome.COMPLETED: JobState.COMPLETED,
    Outcome.FAILED: JobState.FAILED,
    Outcome.TIMED_OUT: JobState.TIMED_OUT,
    Outcome.OUT_OF_MEMORY: JobState.OUT_OF_MEMORY,
    Outcome.CANCELLED: JobState.CANCELLED,
    Outcome.LOST: JobState.FAILED,
}


def _by_kind(changes: Iterable[Change]) -> dict[str, list[int]]:
    """Which jobs a cycle changed, and how; at most ten of a kind, for the log."""
    jobs: dict[str, list[int]] = {}
    for change in changes:
        of_kind = jobs.setdefault(type(change).__name__.lower(), [])
        if len(of_kind) < 10:
            of_kind.append(change.job_id)
    return jobs


def _slept_s(request: Request) -> float:
    """How long a simulated job runs: `sleep SECONDS` says it; anything else runs as long as it was expected to."""
    if len(request.command) == 2 and request.command[0] == "sleep":
        try:
            return max(0.0, float(request.command[1]))
        except ValueError:
            pass
    return float(request.expected_s)
