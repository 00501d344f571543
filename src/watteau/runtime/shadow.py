"""A site in shadow: what Watteau would start there now, given what really runs, and nothing of it is carried out."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import structlog

from watteau.core.state import cut_for_fleet
from watteau.domain.decisions import Reason
from watteau.domain.fleet import Fleet, Site
from watteau.domain.jobs import Shape
from watteau.domain.policy import Policy
from watteau.domain.records import PastUse
from watteau.domain.requests import JobId, JobState
from watteau.domain.sites import NodeState, ShadowDecision, SiteJob, SiteNode
from watteau.domain.units import DAY_S, PoolId, SiteId, TenantId
from watteau.engines.contract import SiteView
from watteau.runtime.clock import Clock, monotonic_s
from watteau.runtime.diff import closed_windows
from watteau.runtime.live_state import Asked, LiveState, Start
from watteau.runtime.shared import SharedSite
from watteau.store.store import Lease, LeaseLost, Store, StoreUnavailable
from watteau.workload.accounting import shape_of

#: Jobs that one decision tries (R7); an array's rest counts as many as could start or hold a promise.
MOST_TRIED = 20_000
#: Deciding rests nine times as long as it took, and at least this long.
_REST, _LEAST_REST_S = 9.0, 1.0
_PAST_USE_EVERY_S = 300.0
_HALF_LIVES = 20
_MIB_PER_GIB = 1_024


@dataclass(frozen=True, slots=True)
class Decided:
    """What one look decided. Keys are `SiteJob.key`; each waiting job has exactly one of the three."""

    starts: tuple[ShadowDecision, ...]  # an array's rest: its first task's
    waits: Mapping[tuple[str, int], Reason]
    not_tried: Mapping[tuple[str, int], str]  # what keeps it out of the queue, in the scheduler's words or ours


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A waiting job as the core gets it: so many jobs of one shape."""

    job: SiteJob
    shape: Shape
    jobs: int


def decide(
    fleet: Fleet,
    site_id: SiteId,
    policy: Policy,
    view: SiteView,
    nodes: Sequence[SiteNode],
    past: PastUse | None,
    now_ms: int,
    own: Sequence[Asked] = (),
) -> Decided:
    """What would start at a site now, if Watteau decided there: a step of the core on what really runs, thrown away.

    `own`: our attempts that run there. Tenants are ordered by their use of the whole fleet (`past`) and of what runs at
    this site. The order of jobs and nodes does not matter.
    """
    site = next(its for its in fleet.sites if its.id == site_id)
    alone = replace(fleet, sites=(site,))
    live = LiveState(alone, policy, now_ms // 1_000)
    if past is not None:
        live.charge_past(past.tenants, past.tenant, past.gpu_milli, past.started_ms // 1_000, past.ended_ms // 1_000)

    def tenant_of(job: SiteJob) -> TenantId:
        return job.tenant if job.tenant in live.tenants else fleet.tenants.id

    below_zero = count(1)
    shared = SharedSite(site, tenant_of, fleet.tenants.id, lambda: JobId(-next(below_zero)))
    nodes = sorted(nodes, key=lambda node: node.node)
    jobs = sorted(view.jobs, key=_in_order)
    shared.see_nodes(live, nodes)
    shared.see_capacity(live, sorted(view.nodes, key=lambda node: node.node))
    for asked in sorted(own, key=lambda asked: asked.job_id):
        assert asked.running is not None
        if shared.stand(f"own {asked.job_id}", asked.shape, asked.running[1])[0]:
            live.take_over(replace(asked, job_id=JobId(-next(below_zero))))
    shared.see_starts(live, jobs)
    ours = () if site.slurm is None else (site.slurm.user, site.slurm.account)
    live.announce(site_id, closed_windows(view, nodes, ours, now_ms // 1_000))

    waiting, not_tried = _to_try(alone, site, policy, view, nodes, jobs, now_ms)
    live.foresee(its.shape for its in waiting)
    ids: dict[JobId, SiteJob] = {}
    for its in waiting:
        for _ in range(its.jobs):
            job_id = JobId(len(ids) + 1)
            ids[job_id] = its.job
            live.add(_asked(job_id, its, tenant_of(its.job)))
            live.arrive(job_id)
    stepped = live.step(now_ms // 1_000)

    names = shared.names()
    starts: dict[tuple[str, int], ShadowDecision] = {}
    for start in sorted(stepped.starts, key=lambda start: start.job_id):
        job = ids[start.job_id]
        starts.setdefault(job.key, _decision(job, start, names, now_ms))
    reasons = {ids[job_id].key: reason for job_id, reason in stepped.reasons if job_id in ids}
    waits = {its.job.key: reasons.get(its.job.key, Reason.NONE) for its in waiting if its.job.key not in starts}
    return Decided(tuple(starts.values()), waits, not_tried)


def _in_order(job: SiteJob) -> tuple[int, int, str]:
    """By submission, then by id as people count: 9 before 10."""
    return job.submitted_ms, len(job.engine_id), job.engine_id


def _to_try(
    fleet: Fleet,
    site: Site,
    policy: Policy,
    view: SiteView,
    nodes: Sequence[SiteNode],
    jobs: Iterable[SiteJob],
    now_ms: int,
) -> tuple[list[_Waiting], dict[tuple[str, int], str]]:
    """The jobs that wait for room, in order; and why the other waiting ones are not tried."""
    models = _models_of_partitions(site, view, nodes)
    by_pool = {pool.id: pool for pool in site.pools}
    is_open = [by_pool[node.pool] for node in nodes if node.state is NodeState.UP and node.pool in by_pool]
    gpus, cores = sum(pool.gpus_per_node for pool in is_open), sum(pool.cpu_cores for pool in is_open)
    tried: list[_Waiting] = []
    not_tried: dict[tuple[str, int], str] = {}
    left = MOST_TRIED
    for job in jobs:
        if job.state not in (JobState.WAITING, JobState.HELD):
            continue
        if why := _kept_out(job, models, now_ms):
            not_tried[job.key] = why
            continue
        if left == 0:
            not_tried[job.key] = f"the search budget of {MOST_TRIED:,} jobs was used up"
            continue
        # Of an array's rest no more can start than the site has room for, nor hold a promise than the policy gives.
        room = gpus // job.gpus if job.gpus else cores // max(1, job.cpus)
        shape = _shape(job, _allowed(site, job, models))
        tasks = min(job.tasks, room + max(1, policy.reservations), left)
        tried.append(_Waiting(job, cut_for_fleet([shape], fleet)[0], tasks))
        left -= tasks
    return tried, not_tried


def _models_of_partitions(site: Site, view: SiteView, nodes: Sequence[SiteNode]) -> dict[str, frozenset[str]]:
    """Partition -> the GPU models of its nodes that are open to us; nothing where the site has no partitions."""
    model = {pool.id: pool.gpu_model for pool in site.pools}
    of_node = {node.node: model[node.pool] for node in nodes if node.state is NodeState.UP and node.pool in model}
    return {
        its.name: frozenset(of_node[node] for node in its.nodes if its.up and node in of_node)
        for its in view.partitions
    }


def _allowed(site: Site, job: SiteJob, models: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """The GPU models that its partitions have; none named when those are all that the site has."""
    found = {model for name in job.partition.split(",") for model in models.get(name, ())}
    return () if found >= {pool.gpu_model for pool in site.pools} else tuple(sorted(found))


def _kept_out(job: SiteJob, models: Mapping[str, frozenset[str]], now_ms: int) -> str:
    """What keeps a waiting job from starting whatever room there is; empty when only room does."""
    if job.state is JobState.HELD:
        return job.reason or "held"
    if not job.waits_for_room:  # a dependency, a limit of an account: rules of the site's that Watteau does not judge
        return job.reason
    if job.eligible_ms is not None and job.eligible_ms > now_ms:
        return "its time has not come"
    if models and not any(models.get(name) for name in job.partition.split(",")):
        return f"no open node of ours is in partition {job.partition}"
    return ""


def _shape(job: SiteJob, gpu_models: tuple[str, ...]) -> Shape:
    # Whole GiB: jobs of people come in every size, and each size is a shape to the core.
    shape = shape_of(max(1, job.workers), job.gpus, job.cpus, job.memory_mib, gpu_models)
    return replace(shape, memory_mib=-(-shape.memory_mib // _MIB_PER_GIB) * _MIB_PER_GIB)


def _asked(job_id: JobId, waiting: _Waiting, tenant: TenantId) -> Asked:
    job = waiting.job
    return Asked(
        job_id=job_id,
        shape=waiting.shape,
        tenant=tenant,
        submit_s=job.submitted_ms // 1_000,
        estimate_s=job.time_limit_s or DAY_S,
        limit_s=job.time_limit_s,
        priority_class=0,
    )


def _decision(job: SiteJob, start: Start, names: Mapping[tuple[PoolId, int], str], now_ms: int) -> ShadowDecision:
    where = tuple(names[place.pool, place.node] for place in start.places)
    return ShadowDecision(job.site, _kept_under(job), job.submitted_ms, now_ms, where)


def _kept_under(job: SiteJob) -> str:
    """The id of its decision. An array's rest changes its label with each task that leaves it: its array's stays."""
    return job.array_id if job.tasks > 1 or "[" in job.engine_id else job.engine_id


class ShadowSite:
    """Decides for one site while it is in shadow, in a thread of its own, and keeps each job's first start.

    `see` never blocks. Deciding takes at most a tenth of the time: views that come meanwhile are passed over for the
    newest. Only who leads (`lease`) writes. `own` says which of our attempts run there.
    """

    def __init__(
        self,
        site: SiteId,
        fleet: Fleet,
        policy: Policy,
        store: Store,
        clock: Clock,
        *,
        in_shadow: Callable[[], bool],
        lease: Callable[[], Lease | None],
        own: Callable[[], Sequence[Asked]],
    ) -> None:
        self._site = site
        self._fleet = fleet
        self._policy = policy
        self._store = store
        self._clock = clock
        self._in_shadow = in_shadow
        self._lease = lease
        self._own = own
        self._log = structlog.get_logger().bind(site=site)
        self._state = threading.Condition()  # guards the next three
        self._seen: tuple[SiteView, tuple[SiteNode, ...]] | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        self._kept: set[tuple[str, int]] = set()  # decisions in the store; of the thread alone, as is all below
        self._past: PastUse | None = None
        self._past_s = 0.0
        self.took_s = 0.0  # the last decision

    def see(self, view: SiteView, nodes: tuple[SiteNode, ...]) -> None:
        """The site shows something new."""
        if not self._in_shadow():
            return
        with self._state:
            self._seen = view, nodes
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=f"watteau-shadow-{self._site}", daemon=True)
                self._thread.start()
            self._state.notify_all()

    def close(self) -> None:
        """End after the present decision."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        for view, nodes in self._views():
            began = monotonic_s()
            try:
                if (lease := self._lease()) is not None and self._in_shadow():
                    self._consider(lease, view, nodes)
            except LeaseLost:
                self._kept.clear()
            except StoreUnavailable as gone:
                self._log.warning("decisions in shadow could not be kept", cause=str(gone))
            except Exception:  # a mistake of ours must not end it, and touches nothing else
                self._log.exception("deciding in shadow failed")
            self.took_s = monotonic_s() - began
            self._rest(max(_LEAST_REST_S, _REST * self.took_s))

    def _views(self) -> Iterator[tuple[SiteView, tuple[SiteNode, ...]]]:
        """The newest view, each time there is one that was not considered."""
        while True:
            with self._state:
                self._state.wait_for(lambda: self._seen is not None or self._closed)
                if self._closed or self._seen is None:
                    return
                seen, self._seen = self._seen, None
            yield seen

    def _rest(self, seconds: float) -> None:
        with self._state:
            self._state.wait_for(lambda: self._closed, seconds)

    def _consider(self, lease: Lease, view: SiteView, nodes: tuple[SiteNode, ...]) -> None:
        now_ms = self._clock.now_ms()
        if self._past is None or monotonic_s() - self._past_s > _PAST_USE_EVERY_S:
            self._past = self._store.past_use(now_ms - _HALF_LIVES * self._policy.half_life_s * 1_000)
            self._past_s = monotonic_s()
        decided = decide(self._fleet, self._site, self._policy, view, nodes, self._past, now_ms, self._own())
        new = [its for its in decided.starts if (its.engine_id, its.submitted_ms) not in self._kept]
        if new:
            self._store.keep_shadow(lease, new)
        there = {(kept, job.submitted_ms) for job in view.jobs for kept in (job.engine_id, job.array_id)}
        self._kept = (self._kept | {(its.engine_id, its.submitted_ms) for its in new}) & there
