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
from dataclasses import dataclass, field, replace

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
from watteau.domain.sites import Difference, Partition, SiteJob, SiteNode, SiteSetting
from watteau.domain.units import GPU_MILLI, NEVER_S, SiteId, TenantId
from watteau.engines.contract import Engine, Launch, LogPart, Observation, Seen, SiteView, attempt_name
from watteau.runtime.clock import Clock, monotonic_s
from watteau.runtime.dependencies import Dependencies, Target
from watteau.runtime.diff import closed_windows, differences, limits
from watteau.runtime.live_state import Asked, LiveState, PoolFigures, Promise, Stepped, compile_core, digest_of
from watteau.runtime.recorder import SiteRecorder
from watteau.runtime.shadow import ShadowSite
from watteau.runtime.shared import SharedSite, same_nodes
from watteau.runtime.sites import News, Refused, SiteDriver, Swept, Viewed, Voice
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
_MOST_DETAIL = 500


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
    placed: bool = True  # False: the site has it, and others stand where we had planned it to be
    waits_for: str = ""  # what the site's own scheduler says of it before it runs


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
    mode: Mode  # in force
    fenced: str  # why; "": it is not
    silent_cause: str  # "": it answers
    since_ms: int
    pools: tuple[PoolFigures, ...]
    running: int  # attempts of ours
    it_power_w: int
    by_hand_running: int = 0
    by_hand_waiting: int = 0
    nodes_out: int = 0
    version: str = ""  # of what runs the site's jobs


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


class _Anew(Exception):  # noqa: N818 - it is no error
    """Something changed that every waiting job must be matched with again."""


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
        self._settings: dict[SiteId, SiteSetting] = {}  # what operators said of sites; replaced, never changed
        self.drivers: dict[SiteId, SiteDriver] = {}
        self._shadows: dict[SiteId, ShadowSite] = {}
        for site in fleet.sites:
            if site.id in engines:
                recorder = SiteRecorder(site, store, lambda: self._lease, clock)
                shadow = self._shadows[site.id] = self._shadow_of(site.id)
                self.drivers[site.id] = SiteDriver(
                    site, engines[site.id], self._leads_still, self.wake, _both(recorder, shadow)
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
        self._settings_version = -1
        self._unswept: set[SiteId] = set()  # nothing starts there before strangers of our name are gone
        self._shared: dict[SiteId, SharedSite] = {}
        self._views: dict[SiteId, SiteView] = {}
        self._limits: dict[SiteId, tuple[Partition, ...]] = {}  # of the partitions, as jobs were last matched to them
        self._stand_ins = 0  # ids given to jobs that others put in by hand
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
        for shadow in self._shadows.values():
            shadow.close()
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

    def mode(self, site: SiteId) -> Mode:
        """How far Watteau goes at a site now: as an operator said, else as the fleet file says."""
        said = self._settings.get(site)
        return said.mode if said is not None else next(its.mode for its in self._given_fleet.sites if its.id == site)

    def fenced(self, site: SiteId) -> str:
        """Why a site is fenced; empty when it is not."""
        said = self._settings.get(site)
        return f"fenced by {said.by}: {said.why}" if said is not None and said.fenced else ""

    def site_view(self, site: SiteId) -> SiteView | None:
        """What a site that others use, too, showed last; None: nothing yet, or it is not such a site."""
        return self._views.get(site)

    def differences(self, site: SiteId) -> list[Difference] | None:
        """What the fleet file and the site's engine say differently; None: the engine has shown nothing yet."""
        with self._live_lock:
            view, shared = self._views.get(site), self._shared.get(site)
            if view is None or shared is None:
                return None
            return differences(shared.site, view, tuple(shared.nodes.values()))

    def waits_for(self, job_id: JobId) -> str:
        """What the site's own scheduler says of an attempt that it has not started; empty when there is nothing."""
        job = self._jobs.get(job_id)
        return job.attempt.waits_for if job is not None and job.attempt is not None else ""

    def unknown(self, job_id: JobId) -> str:
        """Why nothing is known of a job's attempt now: its site is silent; empty otherwise."""
        job = self._jobs.get(job_id)
        if job is None or job.attempt is None or job.attempt.state is not AttemptState.UNKNOWN:
            return ""
        driver = self.drivers.get(job.attempt.site)
        return f"{job.attempt.site}: {(driver.silent_cause if driver else '') or 'it has not answered yet'}"

    def sites(self) -> list[SiteFigures]:
        """Every site with an engine, as seen now; empty when another controller leads."""
        with self._live_lock:
            if self._live is None:
                return []
            pools, power = self._live.pools(), self._live.power_w()
            running = Counter(job.attempt.site for job in self._jobs.values() if job.attempt)
            return [
                self._figures_of(site_id, driver, tuple(pool for pool in pools if pool.site == site_id), power, running)
                for site_id, driver in self.drivers.items()
            ]

    def _figures_of(
        self,
        site: SiteId,
        driver: SiteDriver,
        pools: tuple[PoolFigures, ...],
        power_w: Mapping[SiteId, int],
        running: Mapping[SiteId, int],
    ) -> SiteFigures:
        shared, view = self._shared.get(site), self._views.get(site)
        return SiteFigures(
            site=site,
            mode=self.mode(site),
            fenced=self.fenced(site),
            silent_cause=driver.silent_cause,
            since_ms=self._silent_since_ms[site],
            pools=pools,
            running=running[site],
            it_power_w=power_w[site],
            by_hand_running=shared.running_by_hand if shared else 0,
            by_hand_waiting=shared.waiting_by_hand if shared else 0,
            nodes_out=shared.nodes_out if shared else 0,
            version=view.version if view else "",
        )

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
            except (Conflict, _Anew) as met:  # someone held a job after the cycle had read the log: look again
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
        for driver in self.drivers.values():
            if driver.shared is not None:
                driver.shared.may_change = False
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
            self._settings_version = self._store.settings_version()
            self._settings = {said.site: said for said in self._store.site_settings()}
            self._remember_sites(live, live_jobs)
            for row in live_jobs:
                self._know(row)
            self._unswept = {site for site, driver in self.drivers.items() if driver.shared is not None}
            for site in fleet.sites:
                self._bar(site.id)
                self._let(site.id)
            self._check_digest(live_jobs)
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
            driver.show()
            driver.adopt(by_site[site_id])
            if self._drives(site_id) and site_id in self._unswept:
                driver.sweep(by_site[site_id])
        with self._live_lock:
            for site in fleet.sites:  # fenced while nobody led
                if self.fenced(site.id):
                    self._lose_attempts(site.id, self.fenced(site.id), now)
            self._finish_cycle(now)
        self._log.info("rebuilt", jobs=len(live_jobs), seconds=round(monotonic_s() - began, 3))

    def _remember_sites(self, live: LiveState, rows: Iterable[LiveJob]) -> None:
        """What the sites that others use, too, showed last, and where our attempts stand among it."""
        self._shared = {
            site_id: SharedSite(driver.site, self._tenant_of, self._given_fleet.tenants.id, self._stand_in)
            for site_id, driver in self.drivers.items()
            if driver.shared is not None
        }
        self._views = {site: view for site, view in self._views.items() if site in self._shared}
        attempts = [(row.job.request.shape, row.attempt) for row in rows if row.attempt is not None]
        for site_id, shared in self._shared.items():
            shared.see_nodes(live, self._store.site_nodes(site_id))
            self.drivers[site_id].names = shared.names()
            if (view := self._views.get(site_id)) is not None:
                shared.see_capacity(live, view.nodes)
            there = [(shape, its) for shape, its in attempts if its.site == site_id]
            for shape, its in there:
                if its.started_ms is not None:
                    shared.stand(its.name, shape, its.places)
            shared.see_starts(live, self._store.live_site_jobs(site_id))
            for shape, its in there:
                if its.started_ms is None:
                    shared.plan(its.name, shape, its.places)

    def _shadow_of(self, site: SiteId) -> ShadowSite:
        return ShadowSite(
            site,
            self._given_fleet,
            self._policy,
            self._store,
            self._clock,
            in_shadow=lambda: self.mode(site) is Mode.SHADOW and not self.fenced(site),
            lease=lambda: self._lease,
            own=lambda: self._running_at(site),
        )

    def _running_at(self, site: SiteId) -> list[Asked]:
        """Our attempts that hold places at a site; none when another controller leads."""
        with self._live_lock:
            live = self._live
            there = [job.job_id for job in self._jobs.values() if job.attempt is not None and job.attempt.site == site]
            found = [live.running(job_id) for job_id in there if live.knows(job_id)] if live is not None else []
            return [asked for asked in found if asked is not None]

    def _stand_in(self) -> JobId:
        self._stand_ins += 1
        return JobId(-self._stand_ins)

    def _tenant_of(self, job: SiteJob) -> TenantId:
        return job.tenant if job.tenant in self._arrays.tenants else self._given_fleet.tenants.id

    def _check_digest(self, rows: Iterable[LiveJob]) -> None:
        """Prove that the arrays hold exactly what the store says. Raises InvariantBroken."""
        asked = [self._asked(row.job, row.attempt) for row in rows if self._is_placed(row)]
        expected = digest_of(self._arrays.fleet, [*asked, *self._arrays.stand_ins()])
        self.figures.digest = self._arrays.digest()
        if self.figures.digest != expected:
            raise InvariantBroken(
                f"the arrays ({self.figures.digest[:12]}) are not what the store says ({expected[:12]})"
            )
        self._arrays.check()
        self.figures.verified += 1
        self._verified_s = monotonic_s()

    def _is_placed(self, row: LiveJob) -> bool:
        """Whether the arrays have it: an attempt whose place others took is known to its site only."""
        return (
            row.attempt is None
            or row.attempt.site not in self._shared
            or row.attempt.name in self._shared[row.attempt.site]
        )

    def _know(self, row: LiveJob) -> _Job:
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
            job.attempt.placed = self._is_placed(row)
            self._by_name[its.name] = job.job_id
        self._dependencies.add(job.job_id, job.array_id, job.array_index, job.request, job.user)
        if job.attempt is not None:
            self._dependencies.begun(job.job_id, job.attempt.intended_ms // 1000)
        if job.request.deadline_s is not None:
            heapq.heappush(self._timers, (job.request.deadline_s, job.job_id))
        if job.attempt is None or job.attempt.placed:
            self._arrays.add(self._asked(record, row.attempt))
        return job

    def _asked(self, record: JobRecord, attempt: AttemptRecord | None) -> Asked:
        request = record.request
        shape = replace(request.shape, sites=self._can_run(request))
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

    def _can_run(self, request: Request) -> tuple[str, ...]:
        """The sites whose engines can do what is asked, of those that it allows; empty: any."""
        able = []
        for site_id, driver in self.drivers.items():
            can = driver.engine.capabilities
            if (
                # A real command must not land on a site that only pretends; who wants one of those names it.
                (can.runs_commands or site_id in request.sites)
                and (not request.sites or site_id in request.sites)
                and (can.fractions or not 0 < request.gpu_milli < GPU_MILLI)
                and (can.gangs or request.workers == 1)
                and (not request.partition or driver.site.engine is EngineKind.SLURM)
                and self._lets_in(site_id, request)
            ):
                able.append(str(site_id))
        if not able and request.partition and not request.sites:
            # No site has it: a Slurm site says so, in words. Others would take no notice.
            able = [str(site) for site, driver in self.drivers.items() if driver.site.engine is EngineKind.SLURM]
        return tuple(able) or request.sites

    def _lets_in(self, site: SiteId, request: Request) -> bool:
        """Whether the partition where the job would go allows its time limit and its nodes, as far as it is known."""
        access = self.drivers[site].site.slurm
        wanted = request.partition or (access.partition if access is not None else "")
        for its in self._limits.get(site, ()):
            if its.name == wanted if wanted else its.is_default:
                return (
                    (not its.most_time_s or request.time_limit_s <= its.most_time_s)
                    and (not its.most_nodes or self._least_nodes(site, request) <= its.most_nodes)
                    and request.workers >= its.least_nodes
                )
        return not (request.partition and self._limits.get(site))

    def _least_nodes(self, site: SiteId, request: Request) -> int:
        """How few nodes of the site hold the workers."""
        most = max(
            (
                min(
                    room // asked
                    for room, asked in (
                        (GPU_MILLI * pool.gpus_per_node, request.gpu_milli),
                        (1000 * pool.cpu_cores, request.cpu_milli),
                        (1024 * pool.memory_gib, request.memory_mib),
                        (request.workers, 1),
                    )
                    if asked
                )
                for pool in self.drivers[site].site.pools
            ),
            default=1,
        )
        return -(-request.workers // max(1, most))

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
            self._hear_operators(now)
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
            seqs = self._store.record(self._lease, now.changes, now.now_ms)
            if seqs.start == self._cursor + 1:  # nobody wrote in between: these are known
                self._cursor = seqs.stop - 1
            self._tell()
            self._log.info("cycle", cycle=self.figures.cycles, seq=seqs.stop - 1, changes=_by_kind(now.changes))
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
        job = self._know(row)
        if job.cancel:
            self._cancel(job, now, "cancelled on request")
        elif row.attempt is None:
            now.touched.add(job.job_id)

    # --- what operators say of sites ---------------------------------------------------------------------------------

    def _drives(self, site: SiteId) -> bool:
        """Whether Watteau may start and stop attempts there now."""
        return self.mode(site) is Mode.DRIVE and not self.fenced(site)

    def _bar(self, site: SiteId) -> None:
        """Nothing starts at a site that is silent, is not driven, may still run attempts that nobody knows, or has not
        shown yet what else runs there.
        """
        driver = self.drivers.get(site)
        barred = driver is None or bool(driver.silent_cause) or not self._drives(site) or site in self._unswept
        barred |= site in self._shared and site not in self._views
        self._arrays.bar(site, barred=barred)
        self._dirty = True

    def _let(self, site: SiteId) -> None:
        """Tell the engine whether it may change anything."""
        driver = self.drivers.get(site)
        if driver is not None and driver.shared is not None:
            driver.shared.may_change = self._drives(site)

    def _hear_operators(self, now: _Now) -> None:
        version = self._store.settings_version()
        if version == self._settings_version:
            return
        before = {site: (self.mode(site), self.fenced(site)) for site in self.drivers}
        self._settings_version = version
        self._settings = {said.site: said for said in self._store.site_settings()}
        for site in self.drivers:
            if (self.mode(site), self.fenced(site)) != before[site]:
                self._obey(site, now)

    def _obey(self, site: SiteId, now: _Now) -> None:
        """A site's mode has changed, or it was fenced, or is no longer."""
        driver, drives = self.drivers[site], self._drives(site)
        self._log.info("site set", site=site, mode=self.mode(site).value, fenced=self.fenced(site))
        if not drives:
            driver.reset()  # no command of ours reaches it any more
            driver.show()
        self._let(site)
        if self.fenced(site):
            self._lose_attempts(site, self.fenced(site), now)
        names = [job.attempt.name for job in self._jobs.values() if job.attempt and job.attempt.site == site]
        driver.adopt(names)  # what was decided and not sent is found to be absent, and decided anew
        if drives and driver.shared is not None:
            self._unswept.add(site)
            driver.sweep(names)
        self._bar(site)

    def _lose_attempts(self, site: SiteId, why: str, now: _Now) -> None:
        """Whatever the site would say, its attempts count as lost: each job may be started again, elsewhere."""
        lost = [job for job in self._jobs.values() if job.attempt is not None and job.attempt.site == site]
        for job in lost:
            assert job.attempt is not None
            self._ended(job, Observation(job.attempt.name, Seen.ENDED), now, Outcome.LOST, f"Its site was {why}.")

    # --- what sites say ----------------------------------------------------------------------------------------------

    def _hear_sites(self, now: _Now) -> None:
        for site, driver in self.drivers.items():
            heard = driver.drain()
            views = [news for news in heard if isinstance(news, Viewed)][-1:]
            for seen in views:
                self._dirty |= self._shared[site].see_ends(self._arrays, seen.view.jobs)
            # Ends first: what runs now may stand where others have just left.
            for news in sorted(heard, key=lambda news: isinstance(news, Observation) and news.seen is not Seen.ENDED):
                self._hear(site, driver, news, now)
            for seen in views:
                self._viewed(site, seen, now)

    def _hear(self, site: SiteId, driver: SiteDriver, news: News, now: _Now) -> None:
        match news:
            case Observation():
                self._observed(news, now)
            case Refused():
                self._refused(news, now)
            case Voice():
                self._voice(site, driver, news, now)
            case Swept():
                if news.names:
                    self._log.warning("stopped attempts that nobody knows", site=site, names=list(news.names))
                self._unswept.discard(site)
                self._bar(site)

    def _viewed(self, site: SiteId, seen: Viewed, now: _Now) -> None:
        shared, first = self._shared[site], site not in self._views
        self._views[site] = seen.view
        if (new := limits(seen.view)) != self._limits.get(site, ()):
            self._limits[site] = new
            raise _Anew(f"the partitions of {site} have other limits")
        self._dirty |= shared.see_nodes(self._arrays, seen.nodes)
        self.drivers[site].names = shared.names()
        short, displaced = shared.see_capacity(self._arrays, seen.view.nodes)
        self._displace(displaced)
        came, displaced = shared.see_starts(self._arrays, seen.view.jobs)
        self._displace(displaced)
        self._dirty |= short | came
        windows = closed_windows(seen.view, seen.nodes, self._our_names(site), now.now_ms // 1000)
        self._dirty |= self._arrays.announce(site, windows)
        if first:
            self._bar(site)
        for job in list(self._jobs.values()):
            its = job.attempt
            if its is not None and its.site == site and not its.placed and its.state is AttemptState.RUNNING:
                self._stand(job, its, its.places, now)

    def _our_names(self, site: SiteId) -> tuple[str, ...]:
        access = self.drivers[site].site.slurm
        return () if access is None else (access.user, access.account)

    def _displace(self, names: Iterable[str]) -> None:
        """Others stand where these attempts were to be: their site starts them where and when it can."""
        for name in names:
            job = self._jobs[self._by_name[name]]
            assert job.attempt is not None
            job.attempt.placed = False
            self._arrays.forget(job.job_id)
            self._dirty = True

    def _stand(self, job: _Job, attempt: _Attempt, places: tuple[Place, ...], now: _Now) -> tuple[Place, ...]:
        """An attempt runs there, wherever it was planned to be; returns its places."""
        shared = self._shared[attempt.site]
        has_room, displaced = shared.stand(attempt.name, job.request.shape, places)
        self._displace(displaced)
        if not has_room:
            self._log.warning("an attempt runs where others stand already", attempt=attempt.name)
            if attempt.placed:
                self._displace([attempt.name])
        elif not attempt.placed:
            record = self._store.live_by_id([job.job_id])[0].job
            asked = replace(
                self._asked(record, None), running=(attempt.site, places), start_s=attempt.intended_ms // 1000
            )
            attempt.places, attempt.placed, self._dirty = self._arrays.take_over(asked), True, True
        elif not same_nodes(places, attempt.places):
            attempt.places = self._arrays.move(job.job_id, attempt.site, places, now.now_ms // 1000)
            self._dirty = True
        return attempt.places

    def _observed(self, seen: Observation, now: _Now) -> None:
        job = self._jobs.get(self._by_name.get(seen.name, JobId(-1)))
        if job is None or job.attempt is None or job.attempt.name != seen.name:
            return
        attempt = job.attempt
        if attempt.state is AttemptState.UNKNOWN:
            attempt.state = AttemptState.INTENDED if attempt.started_ms is None else AttemptState.RUNNING
            now.changes.append(Answers(job.job_id, attempt.number))
        attempt.waits_for = seen.waits_for
        if seen.seen is Seen.ABSENT:
            if attempt.state is not AttemptState.INTENDED:
                self._ended(job, seen, now, Outcome.LOST, seen.cause or "the engine no longer knows the attempt")
            elif self._drives(attempt.site):
                now.acts.append(lambda: self._launch(job))  # written down, and then something happened: start it now
            else:
                self._take_back(job, now, "The site no longer takes jobs from Watteau, and was not told of it.")
        elif seen.seen is Seen.ENDED:
            self._ended(job, seen, now, seen.outcome or Outcome.LOST, seen.cause)
        elif attempt.state is AttemptState.INTENDED and seen.seen is Seen.RUNNING:
            self._begun(job, attempt, seen.started_ms or now.now_ms, now, seen.nodes)
        if job.cancel and job.attempt is not None and not attempt.stopping:
            self._stop(job, now)

    def _begun(
        self,
        job: _Job,
        attempt: _Attempt,
        started_ms: int,
        now: _Now,
        nodes: tuple[str, ...] = (),
        *,
        over: bool = False,
    ) -> None:
        """`over`: it has ended since, so that it holds nothing any more."""
        attempt.state, attempt.started_ms, attempt.waits_for = AttemptState.RUNNING, started_ms, ""
        places, shared = None, self._shared.get(attempt.site)
        if shared is not None:
            planned = attempt.places
            really = shared.places_on(nodes) or planned
            stands = really if over else self._stand(job, attempt, really, now)
            places = None if same_nodes(really, planned) else stands
        now.changes.append(Starts(job.job_id, attempt.number, started_ms, places, nodes))
        self._dependencies.begun(job.job_id, now.now_ms // 1000)
        now.touched |= self._dependencies.dependents(job.job_id, job.array_id)
        self.figures.started += 1

    def _refused(self, refused: Refused, now: _Now) -> None:
        job = self._jobs.get(self._by_name.get(refused.name, JobId(-1)))
        if job is not None and job.attempt is not None and job.attempt.name == refused.name:
            seen = Observation(refused.name, Seen.ENDED)
            self._ended(job, seen, now, Outcome.FAILED, f"{SENTENCE[Reason.LAUNCH_REFUSED]} {refused.cause}")

    def _take_back(self, job: _Job, now: _Now, cause: str) -> None:
        """Its site was never asked to start the attempt: the job waits again, and this was no try."""
        assert job.attempt is not None
        self._ended(job, Observation(job.attempt.name, Seen.ENDED), now, Outcome.LOST, cause, given=False)

    def _ended(
        self, job: _Job, seen: Observation, now: _Now, outcome: Outcome, cause: str, *, given: bool = True
    ) -> None:
        assert job.attempt is not None
        if job.attempt.state is AttemptState.INTENDED and seen.started_ms is not None:
            # It ran and ended between two looks at it: its story has both all the same.
            self._begun(job, job.attempt, seen.started_ms, now, seen.nodes, over=True)
        if outcome is Outcome.LOST and job.cancel:
            outcome = Outcome.CANCELLED  # it was to end, and has
        requeue = outcome is Outcome.LOST and (not given or self._may_try_again(job))
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
                given=given,
            )
        )
        del self._by_name[job.attempt.name]
        if job.attempt.site in self._shared:
            self._shared[job.attempt.site].leave(job.attempt.name)
        was_placed = job.attempt.placed
        job.attempt = None
        self._dirty = True
        self.figures.ended += 1
        if requeue:
            job.reason, job.said, job.detail, job.said_detail = Reason.NONE, None, "", ""
            job.queued = was_placed
            if was_placed:
                self._arrays.lose(job.job_id)
            else:
                self._arrays.add(self._asked(self._store.live_by_id([job.job_id])[0].job, None))
            now.touched.add(job.job_id)
        else:
            self._forget(job, _STATE_OF[outcome], now)

    def _may_try_again(self, job: _Job) -> bool:
        """Whether a job whose attempt was lost may have another one."""
        if not job.request.requeue or job.attempts < MOST_ATTEMPTS:
            return job.request.requeue
        ends = [event for event in self._store.story(job.job_id) if event.kind is EventKind.ENDED]
        return 1 + sum(1 for event in ends if event.data.get("given", True)) < MOST_ATTEMPTS

    def _forget(self, job: _Job, state: JobState, now: _Now) -> None:
        """The job has ended; whoever waited for that is looked at."""
        del self._jobs[job.job_id]
        self._unsaid.discard(job.job_id)
        if self._arrays.knows(job.job_id):
            self._arrays.forget(job.job_id)
        self._dirty = True
        now.touched |= self._dependencies.ended(job.job_id, state)
        now.touched.discard(job.job_id)

    def _voice(self, site: SiteId, driver: SiteDriver, voice: Voice, now: _Now) -> None:
        """R3: the attempts of a site that falls silent are unknown; they keep their places and are not restarted."""
        self._silent_since_ms[site] = now.now_ms
        self._bar(site)
        never_sent = set() if voice.heard else driver.take_back_starts()
        names = []
        for job in [job for job in self._jobs.values() if job.attempt is not None and job.attempt.site == site]:
            assert job.attempt is not None
            if job.attempt.name in never_sent:
                self._take_back(job, now, f"Its site fell silent before it was told of it: {voice.cause}")
                continue
            names.append(job.attempt.name)
            if not voice.heard and job.attempt.state is not AttemptState.UNKNOWN:
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
        if not self._drives(attempt.site):
            return  # it is asked again when the site is driven again
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
            if start.site in self._shared:
                self._shared[start.site].plan(name, job.request.shape, start.places)
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
                self._set_reason(waiting, *self._in_words(waiting, reason))
        if now.touched:  # a job that will never start ends others that depend on it
            self._settle(now)

    def _in_words(self, job: _Job, reason: Reason) -> tuple[Reason, str]:
        """The core sees closed nodes; why a site is closed to jobs is known here."""
        if reason is not Reason.NOT_OPEN_YET:
            return reason, ""
        may_use = self._can_run(job.request)
        silent, not_driven = [], []
        for site, driver in self.drivers.items():
            if may_use and site not in may_use:
                continue
            if not self._drives(site):
                not_driven.append(f"{site} is {self.fenced(site) or f'in mode {self.mode(site).value}'}")
            elif driver.silent_cause:
                silent.append(f"{site}: {driver.silent_cause}")
        detail = "; ".join(silent + not_driven)[:_MOST_DETAIL]
        return (Reason.SITE_UNREACHABLE if silent else reason), detail

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
        if attempt is None or not self._drives(attempt.site):
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
                partition=request.partition,
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
            self._check_digest(jobs)


def _both(recorder: SiteRecorder, shadow: ShadowSite) -> Callable[[SiteView], tuple[SiteNode, ...]]:
    """What the site shows is written down, and whoever decides in shadow hears of it."""

    def record(view: SiteView) -> tuple[SiteNode, ...]:
        nodes = recorder.record(view)
        shadow.see(view, nodes)
        return nodes

    return record


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
