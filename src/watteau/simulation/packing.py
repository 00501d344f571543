"""Measures how full a fleet gets when tasks only arrive: the protocol of FGD's artefact, decided by the core.

The protocol (Weng et al., USENIX ATC 2023, and its public simulator): the task list in random order, each task once,
then tasks drawn from it with replacement until one more would ask for over 130 % of the fleet's GPUs, CPU-only tasks
and all; nothing ever leaves; a task that does not fit is refused and does not come back. The share of GPUs allocated at
100 % is the mean over the arrivals at which the GPUs asked for so far, refused ones too, round to 100 % of the fleet's.

Each arrival is one `core.step`. All arrive in second 0 and are expected never to end, so no blocked task can be
promised a start; and as nothing is freed, the core never looks at a refused one again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from watteau.core import layout
from watteau.core.bits import kernel
from watteau.core.layout import State
from watteau.core.state import build_state, check_invariants, write_jobs
from watteau.core.step import Events, step, step_kernel
from watteau.domain.errors import InvariantBroken
from watteau.domain.fleet import Fleet, Pool, Pue
from watteau.domain.jobs import Shape, Workload
from watteau.domain.policy import Order, Policy, Scoring
from watteau.domain.units import GPU_MILLI, NEVER_S, BoolArray, Int32Array, Int64Array, PoolId
from watteau.workload.openb import OpenbNode

#: The rules that are compared, with the names that are shown.
RULES: dict[str, Scoring] = {
    "best fit": Scoring.BEST_FIT,
    "FGD": Scoring.FRAGMENTATION_GRADIENT,
    "FGD, balanced": Scoring.BALANCED_FRAGMENTATION,
}

#: Share of GPUs allocated in %, at 100 % and 130 %, mean of ten seeds, as FGD's artefact publishes them.
PUBLISHED: dict[str, tuple[float, float]] = {
    "Random": (86.30, 87.47),
    "Dot product": (90.62, 90.85),
    "GPU clustering": (91.65, 91.88),
    "GPU packing": (91.78, 92.00),
    "Best fit": (92.86, 93.08),
    "FGD": (95.23, 95.39),
}
PUBLISHED_SOURCE = "Weng et al., Beware of Fragmentation, USENIX ATC 2023: results in the artefact of its simulator"

ARRIVED_MOST_PERCENT = 130

#: Called with (tasks decided, tasks in all) of one run.
Progress = Callable[[int, int], None]
_TASKS_BETWEEN_PROGRESS = 2_000


@dataclass(frozen=True, slots=True)
class Packing:
    """One run. Thousandths of a GPU, after each arrival."""

    capacity_milli: int
    arrived_milli: Int64Array  # [arrival], asked for so far
    allocated_milli: Int64Array  # [arrival], held by those that fitted
    fitted: BoolArray  # [arrival]

    def allocated_percent(self, arrived_percent: int) -> float:
        """Mean share of GPUs allocated over the arrivals that round to so much asked for; else at the last before."""
        arrived = np.rint(100.0 * self.arrived_milli / self.capacity_milli).astype(np.int64)
        there = np.flatnonzero(arrived == arrived_percent)
        if not len(there):
            there = np.flatnonzero(arrived < arrived_percent)[-1:]
        return float(np.mean(self.allocated_milli[there]) * 100.0 / self.capacity_milli) if len(there) else 0.0

    @property
    def last_percent(self) -> float:
        """Share of GPUs allocated after the last arrival."""
        return float(self.allocated_milli[-1] * 100.0 / self.capacity_milli) if len(self.allocated_milli) else 0.0


def openb_fleet(nodes: Sequence[OpenbNode]) -> Fleet:
    """The openb cluster as one site: a pool for each kind of node, in order of first appearance.

    The list says nothing of power or location: every node is given 1 W, which no decision depends on.
    """
    kinds: dict[tuple[str, int, int, int], int] = {}
    for node in nodes:
        kind = (node.model, node.gpus, node.cpu_milli, node.memory_mib)
        kinds[kind] = kinds.get(kind, 0) + 1
    pools = tuple(
        Pool(
            id=PoolId(f"{model}-{gpus}x-{cpu_milli // 1000}c-{memory_mib // 1024}g".lower()),
            gpu_model=model,
            gpus_per_node=gpus,
            cpu_cores=cpu_milli // 1000,
            memory_gib=memory_mib // 1024,
            mig_capable=False,
            node_idle_w=1,
            node_typical_w=1,
            node_max_w=1,
            nodes_per_block=count,
        )
        for (model, gpus, cpu_milli, memory_mib), count in kinds.items()
    )
    return Fleet.of_one_site(
        "openb", list(zip(pools, kinds.values(), strict=True)), power_limit_kw=len(nodes), pue=Pue.constant(1.0)
    )


def typical_mix(workload: Workload) -> list[tuple[float, Shape]]:
    """Every shape of a task list with its share of the tasks: all that the scoring rules may know of the workload."""
    counts = np.bincount(workload.shape, minlength=len(workload.shapes))
    return [(count / len(workload), shape) for count, shape in zip(counts.tolist(), workload.shapes, strict=True)]


def draw_arrivals(workload: Workload, capacity_milli: int, seed: int) -> Int32Array:
    """[arrival] shapes: the list in random order, then draws with replacement, up to 130 % of the capacity.

    A list that asks for more than that by itself is cut at the same point.
    """
    draw = np.random.default_rng(seed)
    milli = workload.gpu_milli()
    most_milli = capacity_milli * ARRIVED_MOST_PERCENT // 100
    if not len(workload) or not int(milli.sum()):
        raise ValueError("a task list without GPUs never reaches the capacity")
    rows = [draw.permutation(len(workload))]
    asked = int(milli.sum())
    while asked <= most_milli:
        more = draw.integers(len(workload), size=1_024)
        rows.append(more)
        asked += int(milli[more].sum())
    drawn = np.concatenate(rows)
    kept = int(np.searchsorted(np.cumsum(milli[drawn]), most_milli, side="right"))
    return workload.shape[drawn[:kept]].astype(np.int32)


def pack(
    fleet: Fleet,
    shapes: Sequence[Shape],
    mix: Sequence[tuple[float, Shape]],
    arrivals: Int32Array,
    scoring: Scoring,
    progress: Progress | None = None,
) -> Packing:
    """Let the core decide every arrival, in order. Raises InvariantBroken when a decision does not hold."""
    # One reservation is allowed so that tasks may overtake a refused one (0 means strict order); none is ever made.
    policy = Policy("packing", reservations=1, order=Order.ARRIVAL, scoring=scoring)
    count = len(arrivals)
    workers_of = np.array([shape.workers for shape in shapes], dtype=np.int64)[arrivals]
    state = build_state(
        fleet,
        shapes,
        policy,
        jobs=count,
        workers=int(workers_of.sum()),
        queue=count + 1,
        typical=mix,
    )
    write_jobs(state, slice(0, count), 0, shape=arrivals, estimate_s=NEVER_S)
    step(state, Events(nodes_up=np.arange(len(state.nodes), dtype=np.int32)), 0)
    rows = np.arange(count, dtype=np.int32)
    for first in range(0, count, _TASKS_BETWEEN_PROGRESS):
        last = min(first + _TASKS_BETWEEN_PROGRESS, count)
        if _arrive(state, rows, first, last) != last or state.cycle[0].planned:
            raise InvariantBroken("a task that had been refused was started or promised a start")
        if progress is not None:
            progress(last, count)
    check_invariants(state)
    fitted = np.asarray(state.jobs["state"] == layout.RUNNING)
    milli = np.array([shape.total_gpu_milli for shape in shapes], dtype=np.int64)[arrivals]
    return Packing(
        capacity_milli=fleet.gpus() * GPU_MILLI,
        arrived_milli=np.cumsum(milli),
        allocated_milli=np.cumsum(np.where(fitted, milli, 0)),
        fitted=fitted,
    )


@kernel
def _arrive(s: State, rows: Any, first: int, last: int) -> int:
    """One step per arrival; stops early, and returns where, when a step starts anything but its own arrival."""
    none = rows[:0]
    for job in range(first, last):
        started = step_kernel(s, none, none, rows[job : job + 1], none, none, none, none, 0)
        if started > 1 or (started == 1 and s.started[0] != job):
            return job
    return last
