"""Replays a workload on a fleet: loads the core's arrays, lets the virtual clock run, and collects what happened."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from watteau.core import layout
from watteau.core.layout import State
from watteau.core.state import (
    CapacityChange,
    Outlook,
    add_past_use,
    announce_outages,
    build_state,
    capacity_changes,
    cut_for_fleet,
    make_room,
    outage_windows,
    write_jobs,
)
from watteau.core.step import Events, step
from watteau.domain.errors import InvariantBroken
from watteau.domain.fleet import Fleet, Outage, Pool, Pue
from watteau.domain.jobs import Shape, Workload
from watteau.domain.policy import POLICIES, Policy
from watteau.domain.records import PastUse
from watteau.domain.requests import JobState
from watteau.domain.units import (
    GPU_MILLI,
    HOUR_S,
    NEVER_S,
    Int32Array,
    Int64Array,
    PoolId,
    TenantId,
    from_epoch_s,
)
from watteau.simulation.clock import (
    IDLE,
    LOG_FULL,
    QUEUE_FULL,
    STOPPED,
    Clock,
    advance,
    cancel_end,
    ends_now,
    new_clock,
    push_end,
    running_on,
)
from watteau.simulation.green import Green, Planner, planner_of

#: Called now and then with (jobs that have arrived, jobs in all).
Progress = Callable[[int, int], None]
_STEPS_BETWEEN_PROGRESS = 200_000
_FIRST_LOG = 1 << 16


@dataclass(frozen=True, slots=True)
class Replay:
    """What happened. Times are epoch seconds; rows are those of the workload."""

    fleet: Fleet  # with the workload's own tenants added
    workload: Workload
    shapes: tuple[Shape, ...]  # as the fleet ran them: divisible ones cut into gangs
    policy: Policy
    zero_s: int  # epoch second of the workload's zero
    submit_s: Int64Array  # [job]
    start_s: Int64Array  # [job], -1: never started
    end_s: Int64Array  # [job], -1: never started
    pool: Int32Array  # [job], -1: never started
    tenant: Int32Array  # [job], position in the fleet's tenant tree
    reason: Int32Array  # [job]: why a job never started
    first_worker: Int64Array  # [job + 1]
    worker_node: Int32Array  # [worker], node of the state
    first_node: Int64Array  # [pool]
    lost: NDArray[np.int64]  # [., 4]: job, start, end, pool of attempts that an outage ended
    logged: NDArray[np.void]  # [.] layout.LOGGED: every change of a waiting job's reason
    steps: int
    queue_most: int
    wall_s: float  # of the replay itself: deciding where and when every job runs
    green: Green | None = None
    planner: Planner | None = None

    @property
    def started(self) -> NDArray[np.bool_]:
        """[job] whether the job ever started."""
        return self.start_s >= 0

    @property
    def last_end_s(self) -> int:
        """When the last job ended; the workload's zero when none started."""
        return int(self.end_s.max()) if self.started.any() else self.zero_s

    def state_of_jobs(self) -> tuple[NDArray[np.int8], tuple[str, ...]]:
        """([job] index, names): how each job ended."""
        names = (JobState.COMPLETED, JobState.TIMED_OUT, JobState.UNSCHEDULABLE)
        index = np.where(~self.started, 2, np.where(self.workload.killed(), 1, 0)).astype(np.int8)
        return index, tuple(name.value for name in names)


def replay(
    fleet: Fleet,
    workload: Workload,
    policy: Policy,
    *,
    zero_s: int,
    outlook: Outlook | None = None,
    past: PastUse | None = None,
    green: Green | None = None,
    progress: Progress | None = None,
) -> Replay:
    """Run every job of the workload, whose zero is the epoch second `zero_s`, until nothing can happen any more.

    Phases open and planned outages begin and end on their dates. Jobs of an outage start anew when it is over.
    `green`: flexible jobs wait at the gate for the envelope that is made in each hour. `past`: what tenants used before
    the zero; it counts in their order. That of tenants that are not known is left out.
    """
    fleet = fleet.with_tenants(workload.tenants)
    shapes = cut_for_fleet(workload.shapes, fleet)
    workers_of = np.array([shape.workers for shape in shapes] or [0], dtype=np.int64)[workload.shape]
    first_worker = np.zeros(len(workload) + 1, dtype=np.int64)
    np.cumsum(workers_of, out=first_worker[1:])
    state = build_state(
        fleet,
        shapes,
        policy,
        jobs=len(workload),
        workers=int(first_worker[-1]),
        log=_FIRST_LOG,
        outlook=outlook,
    )
    tenant = _tenant_rows(fleet, workload)
    write_jobs(
        state,
        slice(0, len(workload)),
        0,
        shape=workload.shape,
        estimate_s=workload.estimate_s,
        submit_s=workload.submit_s + zero_s,
        limit_s=workload.limit_s,
        tenant=tenant,
        priority_class=workload.priority_class,
        due_s=0 if green is None else green.due_s(workload.submit_s + zero_s),
    )
    if past is not None:
        state.cycle[0].weight_zero_s = zero_s  # weights of now are near 1, whenever that is
        _charge(state, fleet, past)
    served_s = np.ascontiguousarray(workload.served_s(), dtype=np.int64)
    clock = new_clock(served_s, state.jobs["submit_s"], zero_s, len(workload))
    planner = None if green is None else planner_of(green, state, outlook or Outlook.constant(fleet), zero_s)
    driver = _Driver(fleet, state, clock, zero_s, progress, planner)
    began = perf_counter()
    driver.run()
    wall_s = perf_counter() - began
    state = driver.state
    if state.cycle[0].logged_lost:
        raise InvariantBroken(f"{state.cycle[0].logged_lost} reasons were not logged")
    jobs = state.jobs
    ran = jobs["state"] == layout.ENDED
    start_s = np.where(ran, jobs["start_s"], -1)
    return Replay(
        fleet=fleet,
        workload=workload,
        shapes=shapes,
        policy=policy,
        zero_s=zero_s,
        submit_s=jobs["submit_s"].copy(),
        start_s=start_s,
        end_s=np.where(ran, jobs["end_s"], -1),
        pool=np.where(ran, jobs["pool"], -1).astype(np.int32),
        tenant=tenant,
        reason=jobs["reason"].astype(np.int32),
        first_worker=first_worker,
        worker_node=state.workers["node"].copy(),
        first_node=state.pools["first_node"].astype(np.int64),
        lost=np.array(driver.lost, dtype=np.int64).reshape(-1, 4),
        logged=state.logged[: state.cycle[0].logged],
        steps=int(clock.clock[0].steps),
        queue_most=int(clock.clock[0].queue_most),
        wall_s=wall_s,
        green=green,
        planner=planner,
    )


def _tenant_rows(fleet: Fleet, workload: Workload) -> Int32Array:
    """[job] position of its tenant in the fleet's tree; a job whose tenant is not known is the first leaf's."""
    position = {tenant.id: index for index, (_, tenant) in enumerate(fleet.tenants.walk())}
    first_leaf = position[fleet.tenants.leaves()[0].id]
    known = np.array([position[TenantId(name)] for name in workload.tenants] + [first_leaf], dtype=np.int32)
    tenant: Int32Array = known[workload.tenant]  # -1, not known, is the last entry
    return tenant


def _charge(state: State, fleet: Fleet, past: PastUse) -> None:
    position = {tenant.id: index for index, (_, tenant) in enumerate(fleet.tenants.walk())}
    row_of = np.array([position.get(name, -1) for name in past.tenants] or [-1], dtype=np.int32)
    rows = row_of[past.tenant] if len(past.tenant) else np.zeros(0, dtype=np.int32)
    known = rows >= 0
    start_s, end_s = past.started_ms[known] // 1_000, past.ended_ms[known] // 1_000
    add_past_use(state, rows[known], past.gpu_milli[known], start_s, end_s)


def compile_kernels() -> None:
    """Compile (or load from the disk's cache) everything that a replay calls, so that timings are of the replay."""
    pool = Pool(PoolId("p"), "any", 1, 1, 1, False, 1, 1, 1, 1)
    outage = Outage(from_epoch_s(2), from_epoch_s(3), (), "none")
    fleet = Fleet.of_one_site("s", [(pool, 1)], power_limit_kw=1, pue=Pue.constant(1.0), outages=(outage,))
    one = np.ones(1, dtype=np.int64)
    workload = Workload(
        source="none",
        synthetic=True,
        job_id=one,
        submit_s=one,
        runtime_s=one * 5,
        estimate_s=one,
        limit_s=one * 0,
        shape=np.zeros(1, dtype=np.int32),
        tenant=np.zeros(1, dtype=np.int32),
        priority_class=np.zeros(1, dtype=np.int16),
        shapes=(Shape(1, GPU_MILLI),),
        tenants=(fleet.tenants.id,),
    )
    replay(fleet, workload, POLICIES["hybrid"], zero_s=0)


class _Driver:
    """Lets the clock run between the moments at which capacity changes, and grows what is full."""

    def __init__(
        self,
        fleet: Fleet,
        state: State,
        clock: Clock,
        zero_s: int,
        progress: Progress | None,
        planner: Planner | None = None,
    ) -> None:
        self.state = state
        self.planner = planner
        self._hour_s = zero_s // HOUR_S * HOUR_S  # the next one to be planned
        self.clock = clock
        self.progress = progress
        self.lost: list[tuple[int, int, int, int]] = []
        self._zero_s = zero_s
        self._windows = outage_windows(fleet)
        self._changes = capacity_changes(fleet, state)

    def run(self) -> None:
        """From the first moment to the last."""
        later = [change for change in self._changes if change.at_s > self._zero_s]
        up = np.zeros(len(self.state.nodes), dtype=np.bool_)
        for change in self._changes:
            if change.at_s <= self._zero_s:
                up[change.first_node : change.first_node + change.count] = change.up
        self._step(self._zero_s, np.flatnonzero(up), np.zeros(0, dtype=np.int64))
        for at_s in sorted({change.at_s for change in later}):
            self._run_until(at_s)
            if self._all_done():
                return
            now = [change for change in later if change.at_s == at_s]
            self._step(at_s, _nodes(now, up=True), _nodes(now, up=False))
        self._run_until(NEVER_S)

    def _running(self) -> bool:
        clock = self.clock.clock[0]
        return bool(clock.in_wheel + clock.beyond > 0)

    def _all_done(self) -> bool:
        # Jobs that still run count: the next change of capacity may be an outage that ends them.
        waiting = self.state.cycle[0].waiting + self.state.cycle[0].gated
        arrived = self.clock.clock[0].next_arrival == len(self.clock.served_s)
        return bool(arrived and waiting == 0 and not self._running())

    def _run_until(self, stop_s: int) -> None:
        if self.planner is not None:
            while self._hour_s < stop_s and not self._all_done():
                if self._advance(self._hour_s) == IDLE and not self._running():
                    return  # what waits can never start
                self.planner.plan(self.state, self._hour_s)
                self._hour_s += HOUR_S
        self._advance(stop_s)

    def _advance(self, stop_s: int) -> int:
        while True:
            why = advance(self.state, self.clock, stop_s, _STEPS_BETWEEN_PROGRESS)
            if self.progress is not None:
                self.progress(int(self.clock.clock[0].next_arrival), len(self.clock.served_s))
            if why in (QUEUE_FULL, LOG_FULL):
                self.state = make_room(self.state, len(self.clock.arrived))
            elif why in (STOPPED, IDLE):
                return int(why)

    def _step(self, at_s: int, nodes_up: NDArray[np.int64], nodes_down: NDArray[np.int64]) -> None:
        ended = ends_now(self.state, self.clock, at_s)
        announce_outages(self.state, self._windows, at_s)
        lost = np.zeros(0, dtype=np.int32)
        if len(nodes_down):
            closing = np.zeros(len(self.state.nodes), dtype=np.bool_)
            closing[nodes_down] = True
            lost = np.setdiff1d(running_on(self.state, closing), ended).astype(np.int32)
        jobs = self.state.jobs
        for job in lost.tolist():
            row = jobs[job]
            cancel_end(self.clock, job, int(row.start_s) + int(self.clock.served_s[job]))
            self.lost.append((job, int(row.start_s), at_s, int(row.pool)))
        self.state = make_room(self.state, len(lost))
        decisions = step(
            self.state,
            Events(
                ended=ended,
                lost=lost,
                nodes_up=nodes_up.astype(np.int32),
                nodes_down=nodes_down.astype(np.int32),
            ),
            at_s,
        )
        for job in decisions.started.tolist():
            push_end(self.clock, job, at_s + int(self.clock.served_s[job]))


def _nodes(changes: list[CapacityChange], *, up: bool) -> NDArray[np.int64]:
    ranges = [np.arange(change.first_node, change.first_node + change.count) for change in changes if change.up is up]
    return np.unique(np.concatenate(ranges)) if ranges else np.zeros(0, dtype=np.int64)
