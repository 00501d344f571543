"""Builds the core's arrays from a fleet, the shapes that are asked for and a policy; and reads them back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from watteau.core import layout
from watteau.core.bits import WORD_BITS
from watteau.core.layout import State, records
from watteau.core.step import judge_shapes
from watteau.domain.decisions import Reason
from watteau.domain.errors import InvariantBroken
from watteau.domain.fleet import Fleet, Pool, Site
from watteau.domain.jobs import NO_LIMIT_S, Shape, Topology
from watteau.domain.policy import Order, Policy, Scoring
from watteau.domain.units import (
    GPU_MILLI,
    HOUR_S,
    NEVER_S,
    Float64Array,
    Int32Array,
    Int64Array,
    to_epoch_s,
)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is expected hour by hour, from `first_hour_s` on; the last hour holds for ever after."""

    first_hour_s: int
    pue: Float64Array  # [site, hour]

    @staticmethod
    def constant(fleet: Fleet) -> "Outlook":
        """Every site at its lowest PUE, for ever."""
        return Outlook(0, np.array([[min(site.pue.value)] for site in fleet.sites], dtype=np.float64))

    @staticmethod
    def worst(fleet: Fleet) -> "Outlook":
        """Every site at its highest PUE, for ever: what fits then fits on every day."""
        return Outlook(0, np.array([[max(site.pue.value)] for site in fleet.sites], dtype=np.float64))


@dataclass(frozen=True, slots=True)
class CapacityChange:
    """Nodes [first, first + count) of the state open or close at a time."""

    at_s: int
    first_node: int
    count: int
    up: bool


def cut_for_fleet(shapes: Sequence[Shape], fleet: Fleet) -> tuple[Shape, ...]:
    """Every shape as the fleet will run it: a divisible one as a gang of equal workers, as large as the fleet can hold.

    That is the cut into the fewest workers that some allowed pool can hold together, GPUs, CPU and memory counted. When
    none can, the shape stays whole, and is refused with its reason.
    """
    return tuple(_cut(shape, fleet) if shape.divisible else shape for shape in shapes)


def _cut(shape: Shape, fleet: Fleet) -> Shape:
    allowed = [
        (site, pool)
        for site, pool in fleet.pools()
        if (not shape.gpu_models or pool.gpu_model in shape.gpu_models) and (not shape.sites or site.id in shape.sites)
    ]
    whole = replace(shape, divisible=False)
    gangs = (
        replace(
            whole,
            workers=workers,
            gpu_milli=shape.gpu_milli // workers,
            cpu_milli=-(-shape.cpu_milli // workers),
            memory_mib=-(-shape.memory_mib // workers),
        )
        for workers in _ways_to_cut(shape, [pool for _, pool in allowed])
    )
    return next((gang for gang in gangs if any(_holds(site, pool, gang) for site, pool in allowed)), whole)


def _ways_to_cut(shape: Shape, pools: Sequence[Pool]) -> list[int]:
    """Numbers of equal workers to try, the fewest first; whole GPUs stay whole, and a fraction is one worker's."""
    if shape.gpu_milli == 0:
        by_node = {
            max(1, -(-shape.cpu_milli // (pool.cpu_cores * 1000)), -(-shape.memory_mib // (pool.memory_gib * 1024)))
            for pool in pools
        }
        return sorted({1, *by_node})
    gpus, most = shape.gpu_milli // GPU_MILLI, max((pool.gpus_per_node for pool in pools), default=0)
    if shape.gpu_milli % GPU_MILLI or most == 0:
        return [1]
    small = [workers for workers in range(1, math.isqrt(gpus) + 1) if gpus % workers == 0]
    return sorted(workers for workers in {*small, *(gpus // each for each in small)} if workers * most >= gpus)


def _holds(site: Site, pool: Pool, shape: Shape) -> bool:
    """Whether the pool, all phases open and empty, holds the whole gang."""
    nodes = site.nodes(pool.id)
    if shape.topology is Topology.ONE_BLOCK_REQUIRED and shape.workers > 1:
        nodes = min(nodes, pool.nodes_per_block)
    return _workers_per_node(shape, pool) * nodes >= shape.workers


def build_state(
    fleet: Fleet,
    shapes: Sequence[Shape],
    policy: Policy,
    *,
    jobs: int,
    workers: int,
    queue: int = 1 << 14,
    log: int = 0,
    outlook: Outlook | None = None,
    typical: Sequence[tuple[float, Shape]] = (),
) -> State:
    """Empty arrays for a fleet: all nodes closed (see `capacity_changes`), no job known, room for so many.

    `shapes` are final (see `cut_for_fleet`); `typical` is the mix that fragmentation is measured against:
    (share, what one worker asks for); shares need not sum to 1.
    Raises InvariantBroken when a shape is still divisible.
    """
    if any(shape.divisible for shape in shapes):
        raise InvariantBroken("cut divisible shapes before the state is built")
    outlook = outlook or Outlook.constant(fleet)
    pools = list(fleet.pools())
    site_of = {site.id: index for index, site in enumerate(fleet.sites)}
    pool_rows = records(len(pools), layout.POOL)
    nodes_total = sum(site.nodes(pool.id) for site, pool in pools)
    blocks_total = sum(-(-site.nodes(pool.id) // pool.nodes_per_block) for site, pool in pools)
    node_rows = records(nodes_total, layout.NODE)
    block_rows = records(blocks_total, layout.BLOCK)
    word_node: list[int] = []
    node = block = 0
    for index, (site, pool) in enumerate(pools):
        row = pool_rows[index]
        count = site.nodes(pool.id)
        row.site = site_of[site.id]
        row.first_node, row.nodes, row.first_word, row.first_block = node, count, len(word_node), block
        row.gpus = pool.gpus_per_node
        row.cpu_milli = pool.cpu_cores * 1000
        row.memory_mib = pool.memory_gib * 1024
        row.busy_mw_per_milli = round((pool.node_typical_w - pool.node_idle_w) / max(pool.gpus_per_node, 1))
        row.node_idle_mw = pool.node_idle_w * 1000
        row.closes_s = row.reopens_s = NEVER_S
        for start in range(0, count, pool.nodes_per_block):
            size = min(pool.nodes_per_block, count - start)
            block_rows[block] = (node, size, len(word_node), -(-size // WORD_BITS))
            for word_start in range(0, size, WORD_BITS):
                word_node.append(node)
                for bit in range(min(WORD_BITS, size - word_start)):
                    it = node_rows[node]
                    it.pool, it.block, it.word, it.bit = index, block, len(word_node) - 1, bit
                    node += 1
            block += 1
        row.words = len(word_node) - row.first_word
        row.blocks = block - row.first_block
        its_nodes = node_rows[row.first_node : node]
        its_nodes["gpus"] = its_nodes["gpus_free"] = pool.gpus_per_node
        its_nodes["cpu_free_milli"] = row.cpu_milli
        its_nodes["memory_free_mib"] = row.memory_mib
        its_nodes["running"] = its_nodes["reserved"] = its_nodes["share_best"] = -1
    most_gpus = max([1, *(pool.gpus_per_node for _, pool in pools)])
    shape_rows, shape_pools = _shape_rows(shapes, fleet)
    tenant_rows, children = _tenant_rows(fleet)
    cycle = records(1, layout.CYCLE)
    cycle[0].now_s = -NEVER_S
    cycle[0].hour = -1
    cycle[0].hour_zero = outlook.first_hour_s // HOUR_S
    cycle[0].compressed_s = cycle[0].ranked_s = -NEVER_S
    cycle[0].wake_s = NEVER_S
    cycle[0].weight_zero_s = outlook.first_hour_s
    limits_kw = np.array([[site.power_limit_kw] for site in fleet.sites], dtype=np.float64)
    limit_mw = (limits_kw * 1e6 / outlook.pue).astype(np.int64)
    # Sites are tried in the order of the energy that a GPU-hour costs there: one shared supply, so PUE decides.
    pue_of_pool = outlook.pue[[site_of[site.id] for site, _ in pools], :]
    policy_row = _policy_row(policy)
    typical_rows = _typical_rows(typical)
    policy_row[0].gpu_per_cpu, policy_row[0].gpu_per_memory = _mix_ratios(typical)
    scored = (1, 1) if policy.scoring is Scoring.BEST_FIT else (len(shapes), nodes_total)
    scores = records(scored[0] * scored[1], layout.SCORE).reshape(scored)
    scores["version"] = -1
    potentials = records(nodes_total, layout.POTENTIAL)
    potentials["version"] = -1
    scratch = max(nodes_total, len(tenant_rows), max((shape.workers for shape in shapes), default=1)) + 1
    state = State(
        cycle=cycle,
        policy=policy_row,
        sites=records(len(fleet.sites), layout.SITE),
        pools=pool_rows,
        blocks=block_rows,
        nodes=node_rows,
        tenants=tenant_rows,
        children=children,
        shapes=shape_rows,
        shape_pools=shape_pools,
        jobs=records(jobs, layout.JOB),
        workers=records(workers, layout.WORKER),
        word_node=np.array(word_node, dtype=np.int32),
        open_nodes=np.zeros((most_gpus + 1, len(word_node)), dtype=np.int64),
        held_nodes=np.zeros((most_gpus + 1, len(word_node)), dtype=np.int64),
        open_first=np.full((len(pools), most_gpus + 1), len(word_node), dtype=np.int32),
        open_count=np.zeros((len(pools), most_gpus + 1), dtype=np.int32),
        held_count=np.zeros((len(pools), most_gpus + 1), dtype=np.int32),
        available_s=np.full((most_gpus, nodes_total), NEVER_S, dtype=np.int64),
        holds_until_s=np.full(nodes_total, NEVER_S, dtype=np.int64),
        shared_free=np.full((nodes_total, most_gpus), -1, dtype=np.int16),
        queue=records(queue, layout.QUEUED),
        plan=np.zeros(queue, dtype=np.int32),
        gained=np.zeros(most_gpus + 1, dtype=np.int64),
        dirty=np.zeros(nodes_total, dtype=np.int32),
        stale=np.zeros(nodes_total, dtype=np.int32),
        started=np.zeros(queue, dtype=np.int32),
        logged=records(log, layout.LOGGED),
        limit_mw=limit_mw,
        green_mw=np.full(limit_mw.shape, NEVER_S, dtype=np.int64),
        gate=np.zeros(jobs, dtype=np.int32),
        limit_ahead_mw=np.maximum.accumulate(limit_mw[:, ::-1], axis=1)[:, ::-1].copy(),
        preference=np.argsort(pue_of_pool, axis=0, kind="stable").T.astype(np.int32).copy(),
        typical=typical_rows,
        typical_pools=_shape_rows([shape for _, shape in typical], fleet)[1],
        scores=scores,
        potentials=potentials,
        scratch_node=np.zeros(scratch, dtype=np.int32),
        scratch_take=np.zeros(scratch, dtype=np.int32),
        scratch_room=np.zeros(blocks_total, dtype=np.int64),
        scratch_word=np.zeros(len(word_node), dtype=np.int64),
    )
    cycle[0].cpu_binds = _cpu_binds(state)
    judge_shapes(state)
    return state


def add_shapes(state: State, fleet: Fleet, shapes: Sequence[Shape]) -> State:
    """The same state with more shapes behind those that it knows; they are final (see `cut_for_fleet`)."""
    if not shapes:
        return state
    rows, may_run = _shape_rows(shapes, fleet)
    most_workers = max(shape.workers for shape in shapes)
    scratch = max(len(state.scratch_node), most_workers + 1)
    scores = state.scores
    if scores.shape != (1, 1):
        more = records(len(shapes) * len(state.nodes), layout.SCORE).reshape(len(shapes), -1)
        more["version"] = -1
        scores = _longer(scores, more)
    state = replace(
        state,
        shapes=_longer(state.shapes, rows),
        shape_pools=np.concatenate([state.shape_pools, may_run]),
        scores=scores,
        scratch_node=np.zeros(scratch, dtype=np.int32),
        scratch_take=np.zeros(scratch, dtype=np.int32),
    )
    judge_shapes(state)
    cycle = state.cycle[0]
    if not cycle.cpu_binds and _cpu_binds(state):
        cycle.cpu_binds = 1
        cycle.scan_all = 1  # what was passed over because only GPUs could be short is looked at again
    return state


def grow_jobs(state: State, jobs: int, workers: int) -> State:
    """The same state with room for at least so many jobs and workers."""
    if jobs > len(state.jobs):
        more = jobs - len(state.jobs)
        gate = _longer(state.gate, np.zeros(more, dtype=np.int32))
        state = replace(state, jobs=_longer(state.jobs, records(more, layout.JOB)), gate=gate)
    if workers > len(state.workers):
        state = replace(state, workers=_longer(state.workers, records(workers - len(state.workers), layout.WORKER)))
    return state


def _longer(old: Any, more: Any) -> Any:
    # Not np.concatenate, which forgets the record class whose fields read as attributes.
    result = np.zeros((len(old) + len(more), *old.shape[1:]), dtype=old.dtype)
    result[: len(old)], result[len(old) :] = old, more
    return result


def make_room(state: State, newcomers: int) -> State:
    """The same state with room for what one step may bring: newcomers in the queue, and changes of reasons in the log.

    All that wait at the gate may be let go in one step.

    Every job that waits may change its reason in each of a step's few passes; without a log there is nothing to lose.
    """
    cycle = state.cycle[0]
    newcomers += int(cycle.gated)
    waiting = int(cycle.waiting) + newcomers
    if int(cycle.queue_tail) + newcomers >= len(state.queue):
        state = grow_queue(state, 2 * (int(cycle.queue_tail) + newcomers + 1))
    room = int(cycle.logged) + 4 * waiting + 16
    if 0 < len(state.logged) < room:
        state = grow_log(state, room + len(state.logged))
    return state


def grow_log(state: State, room: int) -> State:
    """The same state with room for at least `room` changes of reasons."""
    if room <= len(state.logged):
        return state
    return replace(state, logged=_longer(state.logged, records(room - len(state.logged), layout.LOGGED)))


def write_jobs(
    state: State,
    rows: slice,
    first_worker: int,
    *,
    shape: Any,
    estimate_s: Any,
    submit_s: Any = 0,
    limit_s: Any = NO_LIMIT_S,
    tenant: Any = 0,
    priority_class: Any = 0,
    due_s: Any = 0,
) -> None:
    """Fill rows with jobs that are known and have not arrived: columns, or one value for all.

    `due_s`: the latest start of a flexible job, in epoch seconds; 0: it is not flexible. The workers' rows of the jobs
    follow each other from `first_worker` on.
    """
    jobs = state.jobs[rows]
    jobs["submit_s"], jobs["estimate_s"], jobs["limit_s"] = submit_s, estimate_s, limit_s
    jobs["shape"], jobs["tenant"], jobs["priority_class"] = shape, tenant, priority_class
    jobs["state"], jobs["reason"] = layout.ABSENT, 0
    jobs["due_s"], jobs["gated"] = due_s, 0
    jobs["start_s"] = jobs["pool"] = -1
    jobs["reserved_s"] = NEVER_S
    workers = state.shapes["workers"][jobs["shape"]]
    ends = first_worker + np.cumsum(workers, dtype=np.int64)
    jobs["first_worker"] = ends - workers
    its_workers = state.workers[first_worker : int(ends[-1]) if len(ends) else first_worker]
    its_workers["job"] = np.repeat(np.arange(rows.start, rows.start + len(jobs), dtype=np.int32), workers)
    its_workers["node"] = -1


def set_envelope(state: State, first_hour_s: int, green_mw: Int64Array | None) -> None:
    """From an hour on, flexible jobs may add so much power before their latest start; None: as much as there is.

    `green_mw` is IT power in mW, [site, hour]; its last hour holds for ever after. Hours before stay as they were.
    """
    cycle = state.cycle[0]
    first = first_hour_s // HOUR_S - int(cycle.hour_zero)
    if first < 0:
        raise ValueError("an envelope begins in the outlook's first hour or later")
    hours = state.green_mw.shape[1]
    if green_mw is None:
        state.green_mw[:, min(first, hours - 1) :] = NEVER_S
    else:
        last = min(hours, first + green_mw.shape[1])
        state.green_mw[:, first:last] = green_mw[:, : last - first]
        state.green_mw[:, last:] = green_mw[:, -1:]
        if first >= hours:
            state.green_mw[:, -1] = green_mw[:, 0]
    if cycle.hour >= 0:
        state.sites["green_mw"] = state.green_mw[:, cycle.hour]


def add_past_use(
    state: State, tenant: Int32Array, gpu_milli: Int64Array, start_s: Int64Array, end_s: Int64Array
) -> None:
    """Charge tenants for jobs that have ended before this state was built; see order.py for the decay."""
    if not state.policy[0].fair:
        return
    half_life_s, zero_s = int(state.policy[0].half_life_s), int(state.cycle[0].weight_zero_s)
    weight = np.exp2((end_s - zero_s) / half_life_s) - np.exp2((start_s - zero_s) / half_life_s)
    np.add.at(state.tenants["weighted_past"], tenant, gpu_milli / GPU_MILLI * weight)


def grow_queue(state: State, room: int) -> State:
    """The same state with room for at least `room` waiting jobs."""
    if room <= len(state.queue):
        return state
    queue = records(room, layout.QUEUED)
    queue[: len(state.queue)] = state.queue
    plan = np.zeros(room, dtype=np.int32)
    plan[: len(state.plan)] = state.plan
    return replace(state, queue=queue, plan=plan, started=np.zeros(room, dtype=np.int32))


def capacity_changes(fleet: Fleet, state: State) -> list[CapacityChange]:
    """Every opening of a phase and every planned outage, sorted by time. What a node is follows from its last one."""
    changes = []
    pools = list(fleet.pools())
    for index, (site, pool) in enumerate(pools):
        first = int(state.pools[index]["first_node"])
        outages = site.outages_s(pool.id)
        for phase in sorted(site.phases, key=lambda phase: phase.opens):
            count = sum(nodes for pool_id, nodes in phase.nodes if pool_id == pool.id)
            opens = to_epoch_s(phase.opens)
            if count:
                if not any(start <= opens < end for start, end in outages):
                    changes.append(CapacityChange(opens, first, count, True))
                for start, end in outages:
                    if start > opens:
                        changes.append(CapacityChange(start, first, count, False))
                    if end > opens:
                        changes.append(CapacityChange(end, first, count, True))
                first += count
    return sorted(changes, key=lambda change: (change.at_s, change.up, change.first_node))


def outage_windows(fleet: Fleet) -> list[tuple[int, int, int]]:
    """(start_s, end_s, pool) of every time in which planned outages close a pool, sorted."""
    return sorted(
        (start, end, index)
        for index, (site, pool) in enumerate(fleet.pools())
        for start, end in site.outages_s(pool.id)
    )


def announce_outages(state: State, windows: Sequence[tuple[int, int, int]], now_s: int) -> None:
    """Tell each pool its next planned outage, so that no job starts that would still run when it begins.

    `windows` as from `outage_windows`. To be called again when one of them has begun.
    """
    state.pools["closes_s"] = NEVER_S
    state.pools["reopens_s"] = NEVER_S
    for start, end, pool in reversed(windows):
        if start > now_s:
            state.pools["closes_s"][pool] = start
            state.pools["reopens_s"][pool] = end


def _policy_row(policy: Policy) -> NDArray[np.void]:
    row = records(1, layout.POLICY)
    row[0].reservations = policy.reservations
    row[0].fair = policy.order is Order.FAIR_TREE
    row[0].scoring = policy.scoring
    row[0].half_life_s = policy.half_life_s
    row[0].rank_every_s = policy.rank_every_s
    row[0].compress_every_s = policy.compress_every_s
    row[0].step_budget = policy.step_budget
    return row


def _typical_rows(typical: Sequence[tuple[float, Shape]]) -> Int64Array:
    # Shares in whole millionths, so that scores are integers and equal ones are equal to the digit.
    total = math.fsum(share for share, _ in typical)
    rows = [
        (round(1e6 * share / total), *_gpu_split(shape), shape.cpu_milli, shape.memory_mib) for share, shape in typical
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 5)


def _mix_ratios(typical: Sequence[tuple[float, Shape]]) -> tuple[float, float]:
    """Thousandths of a GPU that the mix asks for per CPU milli and per MiB of memory; 0 where it asks for none."""
    gpu = math.fsum(share * shape.gpu_milli for share, shape in typical)
    cpu = math.fsum(share * shape.cpu_milli for share, shape in typical)
    memory = math.fsum(share * shape.memory_mib for share, shape in typical)
    return (gpu / cpu if cpu else 0.0), (gpu / memory if memory else 0.0)


def _gpu_split(shape: Shape) -> tuple[int, int]:
    if shape.gpu_milli % GPU_MILLI:
        return 0, shape.gpu_milli
    return shape.gpu_milli // GPU_MILLI, 0


def _shape_rows(shapes: Sequence[Shape], fleet: Fleet) -> tuple[NDArray[np.void], NDArray[np.int8]]:
    rows = records(len(shapes), layout.SHAPE)
    pools = list(fleet.pools())
    may_run = np.zeros((len(shapes), len(pools)), dtype=np.int8)
    models = {pool.gpu_model for _, pool in pools}
    sites = {site.id for site in fleet.sites}
    for index, shape in enumerate(shapes):
        row = rows[index]
        row.workers = shape.workers
        row.gpus, row.milli = _gpu_split(shape)
        row.topology = shape.topology
        row.cpu_milli, row.memory_mib = shape.cpu_milli, shape.memory_mib
        row.total_milli = shape.total_gpu_milli
        row.failed_epoch = row.longest_epoch = -1
        if shape.gpu_models and not models.intersection(shape.gpu_models):
            row.verdict = Reason.NO_SUCH_GPU_MODEL
        elif shape.sites and not sites.intersection(shape.sites):
            row.verdict = Reason.NO_SUCH_SITE
        else:
            row.verdict = Reason.EXCEEDS_MAXIMUM
            for pool_index, (site, pool) in enumerate(pools):
                if shape.gpu_models and pool.gpu_model not in shape.gpu_models:
                    continue
                if shape.sites and site.id not in shape.sites:
                    continue
                if _holds(site, pool, shape):
                    may_run[index, pool_index] = 1
                    row.verdict = 0
    return rows, may_run


def _workers_per_node(shape: Shape, pool: Pool) -> int:
    # As `most_workers_on_empty_node`, which works on rows: there are none before shapes are cut.
    whole, milli = _gpu_split(shape)
    most = shape.workers
    if milli:
        most = min(most, pool.gpus_per_node * (GPU_MILLI // milli))
    elif whole:
        most = min(most, pool.gpus_per_node // whole)
    if shape.cpu_milli:
        most = min(most, pool.cpu_cores * 1000 // shape.cpu_milli)
    if shape.memory_mib:
        most = min(most, pool.memory_gib * 1024 // shape.memory_mib)
    return most


def _cpu_binds(state: State) -> bool:
    """Whether some shape asks for more CPU or memory than the even share of the GPUs it takes on some node."""
    for index, shape in enumerate(state.shapes):
        for p, pool in enumerate(state.pools):
            if state.shape_pools[index, p]:
                if pool.gpus == 0:
                    return True
                gpus = int(shape.gpus) + int(shape.milli) / GPU_MILLI
                if int(shape.cpu_milli) * int(pool.gpus) > gpus * int(pool.cpu_milli) or int(shape.memory_mib) * int(
                    pool.gpus
                ) > gpus * int(pool.memory_mib):
                    return True
    return False


def _tenant_rows(fleet: Fleet) -> tuple[NDArray[np.void], Int32Array]:
    walked = list(fleet.tenants.walk())
    rows = records(len(walked), layout.TENANT)
    children: list[list[int]] = [[] for _ in walked]
    for index, (parent, tenant) in enumerate(walked):
        rows[index].parent = parent
        rows[index].share = tenant.share
        rows[index].quota_milli = -1 if tenant.quota_gpus is None else tenant.quota_gpus * GPU_MILLI
        if parent >= 0:
            children[parent].append(index)
    flat: list[int] = []
    for index, its in enumerate(children):
        rows[index].first_child, rows[index].children = len(flat), len(its)
        flat.extend(its)
    return rows, np.array(flat, dtype=np.int32)


def check_invariants(state: State, *, drained: bool = False) -> None:
    """Recount everything from the running jobs; raises InvariantBroken with what does not agree.

    `drained`: jobs may run on nodes that are not up, as live ones do when a node is drained or its site is silent.
    No GPU twice, no gang half-started, bit sets and counters as the nodes are, tenants' use as their jobs say.
    """
    nodes, jobs, shapes = state.nodes, state.jobs, state.shapes
    free_gpus = nodes["gpus"].astype(np.int64)
    pools = state.pools
    free_cpu = pools["cpu_milli"][nodes["pool"]].copy()
    free_memory = pools["memory_mib"][nodes["pool"]].copy()
    used: Int64Array = np.zeros(len(state.tenants), dtype=np.int64)
    shared = np.zeros(state.shared_free.shape, dtype=np.int64)
    power = np.zeros(len(state.sites), dtype=np.int64)
    np.add.at(power, pools["site"][nodes["pool"]], np.where(nodes["up"] == 1, pools["node_idle_mw"][nodes["pool"]], 0))
    idle = power.copy()
    flexible = np.zeros_like(power)
    for job in np.flatnonzero(jobs["state"] == layout.RUNNING):
        row = jobs[job]
        shape = shapes[row.shape]
        need_mw = shape.total_milli * pools[row.pool].busy_mw_per_milli
        power[pools[row.pool].site] += need_mw
        flexible[pools[row.pool].site] += need_mw if row.due_s > 0 else 0
        up = int(row.tenant)
        while up >= 0:
            used[up] += shape.total_milli
            up = int(state.tenants[up].parent)
        for w in range(row.first_worker, row.first_worker + shape.workers):
            worker = state.workers[w]
            if worker.job != job or nodes[worker.node].pool != row.pool or not (drained or nodes[worker.node].up):
                raise InvariantBroken(f"worker {w} of job {job} is not where the job is")
            if not state.shape_pools[row.shape, row.pool]:
                raise InvariantBroken(f"job {job} runs in a pool that it may not use")
            free_cpu[worker.node] -= shape.cpu_milli
            free_memory[worker.node] -= shape.memory_mib
            if shape.milli:
                shared[worker.node, worker.shared_gpu] += shape.milli
            else:
                free_gpus[worker.node] -= shape.gpus
    free_gpus -= (shared > 0).sum(axis=1)
    for name, counted, kept in (
        ("GPUs", free_gpus, nodes["gpus_free"]),
        ("CPU", free_cpu, nodes["cpu_free_milli"]),
        ("memory", free_memory, nodes["memory_free_mib"]),
        ("tenants' use", used, state.tenants["used_milli"]),
        ("shared GPUs", np.where(shared > 0, GPU_MILLI - shared, -1), state.shared_free),
        ("power", power, state.sites["power_mw"]),
        ("idle power", idle, state.sites["idle_mw"]),
        ("power of flexible jobs", flexible, state.sites["flexible_mw"]),
        ("jobs at the gate", np.flatnonzero(jobs["gated"]), np.sort(state.gate[: int(state.cycle[0].gated)])),
    ):
        if not np.array_equal(counted, kept):
            raise InvariantBroken(f"{name}: counted {counted.tolist()}, kept {kept.tolist()}")
        if name != "shared GPUs" and (counted < 0).any():
            raise InvariantBroken(f"{name}: more is held than there is")
    for bits, count, holds in (
        (state.open_nodes, state.open_count, nodes["reserved"] < 0),
        (state.held_nodes, state.held_count, nodes["reserved"] >= 0),
    ):
        expected = np.zeros_like(bits)
        expected_count = np.zeros_like(count)
        for n in np.flatnonzero((nodes["up"] == 1) & holds):
            expected[nodes[n].gpus_free, nodes[n].word] |= 1 << int(nodes[n].bit)
            expected_count[nodes[n].pool, nodes[n].gpus_free] += 1
        if not np.array_equal(bits, expected) or not np.array_equal(count, expected_count):
            raise InvariantBroken("the bit sets of nodes do not agree with the nodes")
    for p, pool in enumerate(state.pools):
        for k, bits in enumerate(state.open_nodes):
            its_words = bits[pool.first_word : pool.first_word + pool.words]
            if its_words[: max(0, int(state.open_first[p, k]) - pool.first_word)].any():
                raise InvariantBroken(f"a node with {k} free GPUs stands before the first word of pool {p}")
