"""The load of a comparison: the site as it was, and people's jobs as a workload that begins in the midst of things."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import Contract, Fleet, Outage, Phase, Pool, Site
from watteau.domain.jobs import NO_LIMIT_S, Shape, Workload
from watteau.domain.records import PastUse
from watteau.domain.sites import Held, NodeState, SiteJob, SiteNode
from watteau.domain.units import (
    DAY_S,
    GPU_MILLI,
    HOUR_S,
    PoolId,
    SiteId,
    TenantId,
    from_epoch_s,
    to_epoch_s,
)
from watteau.workload.accounting import shape_of
from watteau.workload.columns import Numbering

#: From this window on, time is cut into whole hours; shorter ones into pieces of whole minutes.
HOURLY_FROM_S = 2 * DAY_S
#: Above every class of people's jobs, and still room for the size of a job below the class's type's end.
_BACKGROUND_CLASS = 10_000
_MIB_PER_GIB = 1_024
#: What is told of jobs, each before their number.
_NO_POOL = "jobs on nodes that are in no pool of the fleet file"
_CANCELLED = "jobs cancelled before they started"
_KEPT = "jobs that are held, or kept waiting by a rule of the site's own"
_BACKWARDS = "jobs that ended before they started, by their site's clock"
_LEFT_OUT = {_NO_POOL, _CANCELLED, _KEPT, _BACKWARDS}
_RAN = "jobs that ran when the window began, which run to their real end on both sides and whose waits do not count"
_WAITED = "jobs that waited when the window began, which queue in the replay from then on and whose waits do not count"
_UNSTARTED = (
    "jobs that had not started when this was read, which compete in the replay with their limit as run time and count "
    "in no figure"
)


@dataclass(frozen=True, slots=True)
class Window:
    """[since, until) in epoch seconds, and when the jobs were read: what had not happened by then is not known."""

    since_s: int
    until_s: int
    as_of_s: int

    def __post_init__(self) -> None:
        if not self.since_s < self.until_s <= self.as_of_s:
            raise ValueError(f"a window from {self.since_s} to {self.until_s}, read at {self.as_of_s}")


@dataclass(frozen=True, slots=True)
class OwnRun:
    """A run of Watteau's own at the site, from a time when it drove there: both sides have it as it was."""

    started_s: int
    ended_s: int | None
    shape: Shape
    pool: PoolId
    tenant: TenantId


def aligned(window: Window) -> Window:
    """Long windows begin and end on full hours, as the books do."""
    if window.until_s - window.since_s < HOURLY_FROM_S:
        return window
    return replace(window, since_s=window.since_s // HOUR_S * HOUR_S, until_s=window.until_s // HOUR_S * HOUR_S)


# --- the site as it was ----------------------------------------------------------------------------------------------


def as_seen(
    fleet: Fleet, site: Site, jobs: Sequence[SiteJob], nodes: Sequence[SiteNode], window: Window, notes: list[str]
) -> Fleet:
    """The fleet of this site alone, with the nodes that were there: both sides have the same, all the time."""
    used = {held.node for job in jobs if _ran_in(job, window) for held in job.held}
    most = {pool.id: site.nodes(pool.id) for pool in site.pools}
    there = Counter(
        node.pool
        for node in nodes
        if (node.state is NodeState.UP or node.node in used) and node.number < most.get(node.pool, 0)
    )
    if not there:
        found = f"no node of {site.id} in the database"
        raise InputError(str(site.id), [Fault(0, "", found, "a site that `watteau up` has observed")])
    idle = sum(most.values()) - sum(there.values())
    if idle:
        notes.append(f"nodes of the fleet file that take no jobs now, or are not there, and ran none: {idle}, left out")
    notes.append(
        "which nodes were out of service in the window is not recorded: the replay has all others the whole time"
    )
    outages = tuple(outage for outage in site.outages if not _was_ignored(outage, site, jobs, nodes, window))
    if len(outages) < len(site.outages):
        notes.append(f"planned outages in which jobs ran all the same: {len(site.outages) - len(outages)}, left out")
    phase = Phase("as seen", from_epoch_s(0), tuple(sorted(there.items())))
    return replace(
        fleet,
        sites=(replace(site, phases=(phase,), outages=outages),),
        contracts=_its_part(fleet, site),
    )


def _was_ignored(
    outage: Outage, site: Site, jobs: Sequence[SiteJob], nodes: Sequence[SiteNode], window: Window
) -> bool:
    start_s, end_s = to_epoch_s(outage.start), to_epoch_s(outage.end)
    pools = set(outage.pools) or {pool.id for pool in site.pools}
    inside = {node.node for node in nodes if node.pool in pools}
    return any(
        held.node in inside
        for job in jobs
        if job.started_ms is not None and job.started_ms // 1_000 < end_s and _end_s(job, window) > start_s
        for held in job.held
    )


def _its_part(fleet: Fleet, site: Site) -> tuple[Contract, ...]:
    """The contracts, cut to the site's part of what the whole fleet typically draws."""
    draw_w = {its.id: sum(its.nodes(pool.id) * pool.node_typical_w for pool in its.pools) for its in fleet.sites}
    part = draw_w[site.id] / sum(draw_w.values())
    return tuple(replace(contract, capacity_mw=contract.capacity_mw * part) for contract in fleet.contracts)


def _end_s(job: SiteJob, window: Window) -> int:
    return window.as_of_s if job.ended_ms is None else job.ended_ms // 1_000


def _ran_in(job: SiteJob, window: Window) -> bool:
    return (
        job.started_ms is not None and job.started_ms // 1_000 < window.until_s and _end_s(job, window) > window.since_s
    )


# --- the jobs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A job of the replay."""

    arrival_s: int
    runtime_s: int
    estimate_s: int
    shape: Shape
    tenant: str
    priority_class: int
    background: bool  # it runs on both sides as it did, as far as there is room
    waits_count: bool  # it became eligible in the window, and its start is known
    use_counts: bool  # it ran: its GPU time is known
    real_start_s: int  # -1: it has not started
    real_end_s: int
    user: str
    held: tuple[tuple[int, int], ...]  # (pool of the fleet, GPUs) where it really ran


@dataclass(frozen=True, slots=True)
class Load:
    """The workload, and beside it what really happened. Arrays are [job], in the workload's order."""

    rows: Sequence[Row]
    workload: Workload
    before: Sequence[tuple[str, int, int]]  # (tenant, GPUs, start) of what ran when the window began


def load_of(
    fleet: Fleet,
    site_id: SiteId,
    jobs: Sequence[SiteJob],
    nodes: Sequence[SiteNode],
    own: Sequence[OwnRun],
    window: Window,
    notes: list[str],
) -> Load:
    """People's jobs and our own runs as one workload, whose zero is the window's begin. Raises InputError: no job."""
    pools = {pool.id: index for index, (_, pool) in enumerate(fleet.pools())}
    of_pool = [pool for _, pool in fleet.pools()]
    of_node = {node.node: pools[node.pool] for node in nodes if node.pool in pools}
    known = {tenant.id for _, tenant in fleet.tenants.walk()}
    root = fleet.tenants.id
    told: Counter[str] = Counter()
    rows: list[Row] = []
    before: list[tuple[str, int, int]] = []
    for job in jobs:
        tenant = str(job.tenant if job.tenant in known else root)
        if any(held.node not in of_node for held in job.held):
            told[_NO_POOL] += 1
            continue
        its = _rows_of(job, tenant, of_node, of_pool, window, told)
        rows += its
        if its and its[0].background and job.started_ms is not None:
            before.append((tenant, job.gpus, job.started_ms // 1_000))
    for run in own:
        rows += _rows_of_own(run, str(run.tenant if run.tenant in known else root), pools, of_pool, window)
    if own:
        notes.append(f"runs of Watteau's own, which are on both sides as they were: {len(own):,}")
    for what, count in sorted((+told).items()):
        notes.append(f"{what}: {count:,}{', left out' if what in _LEFT_OUT else ''}")
    if not any(row.waits_count for row in rows):
        found = "no job that became eligible in the window and was started"
        raise InputError(str(site_id), [Fault(0, "", found, "a window in which jobs came (--since, --until)")])
    rows.sort(key=lambda row: row.arrival_s)  # stable: those of one second stay in the order of their submission
    shapes = Numbering(_itself)
    tenants = Numbering(str)
    shape = np.array([shapes.index(row.shape) for row in rows], dtype=np.int32)
    tenant_of = np.array([tenants.index(row.tenant) for row in rows], dtype=np.int32)
    workload = Workload(
        source=f"jobs of {site_id}",
        synthetic=False,
        job_id=np.arange(len(rows), dtype=np.int64),
        submit_s=np.array([row.arrival_s - window.since_s for row in rows], dtype=np.int64),
        runtime_s=np.array([row.runtime_s for row in rows], dtype=np.int64),
        estimate_s=np.array([row.estimate_s for row in rows], dtype=np.int64),
        limit_s=np.full(len(rows), NO_LIMIT_S, dtype=np.int64),  # what a limit ended ran as long as it ran
        shape=shape,
        tenant=tenant_of,
        priority_class=np.array([row.priority_class for row in rows], dtype=np.int16),
        shapes=tuple(shapes.values),
        tenants=tuple(tenants.values),
        zero_s=window.since_s,
    )
    return Load(rows, workload, before)


def _itself(shape: Shape) -> Shape:
    return shape


def _rows_of(
    job: SiteJob, tenant: str, of_node: Mapping[str, int], pools: Sequence[Pool], window: Window, told: Counter[str]
) -> list[Row]:
    limit_s = job.time_limit_s or DAY_S
    if job.started_ms is None:
        return _rows_of_unstarted(job, tenant, limit_s, window, told)
    start_s, end_s = job.started_ms // 1_000, _end_s(job, window)
    arrival_s = _arrival_s(job)
    if end_s < start_s:
        told[_BACKWARDS] += 1
        return []
    if end_s <= window.since_s:
        return []
    held = tuple((of_node[its.node], its.gpus) for its in job.held)
    if not held:
        told["jobs without nodes on record, which are taken to have run in the first pool"] += 1
        held = ((0, job.gpus),)
    if job.ended_ms is None:
        told["jobs still running when this was read, whose run time so far is taken for the whole on both sides"] += 1
    if job.restarts:
        told["requeued jobs, of which only the last run is known"] += 1
    if start_s < window.since_s:
        told[_RAN] += 1
        return _background(job, tenant, held, pools, start_s, end_s, limit_s, window)
    if arrival_s < window.since_s:
        told[_WAITED] += 1
    return [
        Row(
            arrival_s=max(arrival_s, window.since_s),
            runtime_s=end_s - start_s,
            estimate_s=limit_s,
            shape=_as_it_ran(job, [pools[pool] for pool, _ in held]),
            tenant=tenant,
            priority_class=0,
            background=False,
            waits_count=window.since_s <= arrival_s < window.until_s,
            use_counts=True,
            real_start_s=start_s,
            real_end_s=end_s,
            user=job.user,
            held=held,
        )
    ]


def _as_it_ran(job: SiteJob, pools: Sequence[Pool]) -> Shape:
    """What a job asks for, on the GPU models that it had, and never more of a node than the fleet file says it has."""
    models = tuple(sorted({pool.gpu_model for pool in pools})) if job.gpus else ()
    shape = shape_of(max(1, job.workers), job.gpus, job.cpus, job.memory_mib, models)
    if shape.divisible:
        return shape
    return replace(
        shape,
        cpu_milli=min(shape.cpu_milli, 1_000 * min(pool.cpu_cores for pool in pools)),
        memory_mib=min(shape.memory_mib, _MIB_PER_GIB * min(pool.memory_gib for pool in pools)),
    )


def _arrival_s(job: SiteJob) -> int:
    """When it might have started: before that it waited for another job or for its hour, not for room."""
    submit_s = job.submitted_ms // 1_000
    eligible_s = submit_s if job.eligible_ms is None else max(submit_s, job.eligible_ms // 1_000)
    return eligible_s if job.started_ms is None else min(eligible_s, job.started_ms // 1_000)


def _rows_of_unstarted(job: SiteJob, tenant: str, limit_s: int, window: Window, told: Counter[str]) -> list[Row]:
    if job.state.is_end:
        told[_CANCELLED] += job.tasks
        return []
    arrival_s = _arrival_s(job)
    if not job.waits_for_room or arrival_s > window.as_of_s:
        told[_KEPT] += job.tasks
        return []
    told[_UNSTARTED] += job.tasks
    row = Row(
        arrival_s=max(arrival_s, window.since_s),
        runtime_s=limit_s,
        estimate_s=limit_s,
        shape=shape_of(max(1, job.workers), job.gpus, job.cpus, job.memory_mib),
        tenant=tenant,
        priority_class=0,
        background=False,
        waits_count=False,
        use_counts=False,
        real_start_s=-1,
        real_end_s=-1,
        user=job.user,
        held=(),
    )
    return [row] * job.tasks


def _background(
    job: SiteJob,
    tenant: str,
    held: tuple[tuple[int, int], ...],
    pools: Sequence[Pool],
    start_s: int,
    end_s: int,
    limit_s: int,
    window: Window,
) -> list[Row]:
    """What ran when the window began: one job for each node, the largest first, in front of all others."""
    parts = job.held or (Held("", job.gpus, job.cpus, job.memory_mib),)
    return [
        Row(
            arrival_s=window.since_s,
            runtime_s=end_s - window.since_s,
            estimate_s=max(1, start_s + limit_s - window.since_s),
            shape=_part(part, pools[pool]),
            tenant=tenant,
            priority_class=_BACKGROUND_CLASS + min(part.gpus, 1_000),
            background=True,
            waits_count=False,
            use_counts=True,
            real_start_s=window.since_s,
            real_end_s=end_s,
            user=job.user,
            held=((pool, part.gpus),),
        )
        for (pool, _), part in zip(held, parts, strict=True)
    ]


def _part(part: Held, pool: Pool) -> Shape:
    return Shape(
        1,
        GPU_MILLI * part.gpus,
        min(1_000 * part.cpus, 1_000 * pool.cpu_cores),
        min(part.memory_mib, _MIB_PER_GIB * pool.memory_gib),
        gpu_models=(pool.gpu_model,),
    )


def _rows_of_own(
    run: OwnRun, tenant: str, pools: Mapping[PoolId, int], of_pool: Sequence[Pool], window: Window
) -> list[Row]:
    pool = pools.get(run.pool, 0)
    end_s = window.as_of_s if run.ended_s is None else run.ended_s
    start_s = max(run.started_s, window.since_s)
    if end_s <= start_s:
        return []
    return [
        Row(
            arrival_s=start_s,
            runtime_s=end_s - start_s,
            estimate_s=end_s - start_s,
            shape=replace(run.shape, sites=(), gpu_models=(of_pool[pool].gpu_model,)),
            tenant=tenant,
            priority_class=_BACKGROUND_CLASS,
            background=True,
            waits_count=False,
            use_counts=True,
            real_start_s=start_s,
            real_end_s=end_s,
            user="",
            held=((pool, run.shape.total_gpu_milli // GPU_MILLI),),
        )
    ]


def before(past: PastUse | None, load: Load, window: Window) -> PastUse | None:
    """What tenants used up to the window's start: what had ended, and what ran so far."""
    if past is None:
        return None
    ended = past.ended_ms <= 1_000 * window.since_s
    names = [*past.tenants, *(TenantId(tenant) for tenant, _, _ in load.before)]
    running = len(load.before)
    return PastUse(
        tenants=tuple(names),
        tenant=np.concatenate([past.tenant[ended], len(past.tenants) + np.arange(running, dtype=np.int64)]),
        gpu_milli=np.concatenate(
            [past.gpu_milli[ended], np.array([GPU_MILLI * gpus for _, gpus, _ in load.before], dtype=np.int64)]
        ),
        started_ms=np.concatenate(
            [past.started_ms[ended], np.array([1_000 * at for _, _, at in load.before], dtype=np.int64)]
        ),
        ended_ms=np.concatenate([past.ended_ms[ended], np.full(running, 1_000 * window.since_s, dtype=np.int64)]),
    )
