"""The figures of a comparison: the same jobs on both sides, their energy, and how sure each difference is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from watteau.domain.errors import InvariantBroken
from watteau.domain.fleet import Fleet, Site
from watteau.domain.units import (
    GPU_MILLI,
    HOUR_S,
    Float64Array,
    Int32Array,
    Int64Array,
)
from watteau.energy.books import Attempts, EnergyBooks, presence_of, settle
from watteau.energy.supply import CapacityFactors, supply_wh, synthetic_capacity_factors
from watteau.simulation.bootstrap import LEAST_BLOCKS, Interval, Resamples, block_length, interval_of, resample
from watteau.simulation.replay import Replay
from watteau.simulation.results import SLOWDOWN_BOUND_S
from watteau.simulation.shadow_load import HOURLY_FROM_S, Load, Row, Window
from watteau.workload.columns import Numbering

#: An interval of a mean wants so many jobs, that of a quantile so many beyond it.
LEAST_JOBS, _LEAST_BEYOND = 20, 5
_PIECES = 240


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and where it lies with 95 % confidence. No interval: `why` says what is missing."""

    value: float | None
    interval: Interval | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of both sides, and Watteau's less the site's."""

    key: str
    label: str
    unit: str  # "s", "" (a number), "share", "kWh"
    better: int  # -1: less is better, 1: more is, 0: neither
    slurm: Estimate
    watteau: Estimate
    difference: Estimate


# --- the sample: the same jobs on both sides --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """Jobs whose waits are compared, and GPU time held, by pieces of time. The first axis [2]: the site, Watteau."""

    step_s: int
    pieces: int
    arrival_s: Int64Array  # [job]
    piece: Int64Array  # [job]
    wait_s: Int64Array  # [2, job]
    runtime_s: Int64Array  # [job]
    user: Int64Array  # [job]
    tenant: Int64Array  # [job]
    held_milli_s: Int64Array  # [2, piece]
    there_milli_s: Int64Array  # [piece]
    window: Window


def sample_of(load: Load, happened: Replay, window: Window, notes: list[str]) -> Sample:
    """What is compared: jobs that became eligible in the window, and all that is known to have held GPUs in it."""
    rows = load.rows
    step_s = HOUR_S if window.until_s - window.since_s >= HOURLY_FROM_S else short_step_s(window)
    pieces = -(-(window.until_s - window.since_s) // step_s)
    counted = np.array([row.waits_count for row in rows])
    never = counted & ~happened.started
    if never.any():
        notes.append(
            f"jobs that fit no pool of the fleet file: {int(never.sum()):,}; their waits and use are left out on both "
            "sides"
        )
    late = counted & happened.started & (happened.start_s >= window.until_s)
    if late.any():
        notes.append(f"jobs that start after the window in the replay: {int(late.sum()):,}; their waits count")
    background = np.array([row.background for row in rows])
    delay_s = happened.start_s - happened.submit_s
    pushed = background & happened.started & (delay_s > 0)
    if pushed.any():
        most = int(delay_s[pushed].max())
        notes.append(
            f"parts of what both sides run as it was, but which found their room later in the replay: "
            f"{int(pushed.sum()):,}, by at most {most:,} s"
        )
    compared = counted & happened.started
    real_start = np.array([row.real_start_s for row in rows], dtype=np.int64)
    arrival = np.array([row.arrival_s for row in rows], dtype=np.int64)
    wait = np.stack([real_start - arrival, happened.start_s - arrival])[:, compared]
    users, tenants = Numbering(str), Numbering(str)
    user = np.array([users.index(row.user) for row in rows], dtype=np.int64)[compared]
    tenant = np.array([tenants.index(row.tenant) for row in rows], dtype=np.int64)[compared]
    uses = np.array([row.use_counts for row in rows]) & happened.started
    milli = load.workload.gpu_milli()[uses]
    real_end = np.array([row.real_end_s for row in rows], dtype=np.int64)
    edges = np.minimum(window.since_s + step_s * np.arange(pieces + 1, dtype=np.int64), window.until_s)
    held = np.stack(
        [
            held_by(real_start[uses], real_end[uses], milli, edges),
            held_by(happened.start_s[uses], happened.end_s[uses], milli, edges),
        ]
    )
    fleet = happened.fleet
    there = np.zeros(pieces, dtype=np.int64)
    for site, pool in fleet.pools():
        there += GPU_MILLI * pool.gpus_per_node * site.nodes(pool.id) * np.diff(edges)
        for start_s, end_s in site.outages_s(pool.id):
            gone = np.array([site.nodes(pool.id) * pool.gpus_per_node * GPU_MILLI], dtype=np.int64)
            there -= held_by(np.array([start_s]), np.array([end_s]), gone, edges)
    return Sample(
        step_s=step_s,
        pieces=pieces,
        arrival_s=arrival[compared],
        piece=(arrival[compared] - window.since_s) // step_s,
        wait_s=np.maximum(wait, 0),
        runtime_s=np.array([row.runtime_s for row in rows], dtype=np.int64)[compared],
        user=user,
        tenant=tenant,
        held_milli_s=held,
        there_milli_s=there,
        window=window,
    )


def short_step_s(window: Window) -> int:
    """The length of a piece of time in a short window: whole minutes."""
    return max(60, -(-(window.until_s - window.since_s) // (_PIECES * 60)) * 60)


def held_by(start_s: Int64Array, end_s: Int64Array, milli: Int64Array, edges: Int64Array) -> Int64Array:
    """[piece] thousandths of a GPU times seconds that are held between each two edges."""
    # The integral up to an edge of all that has begun, less that of all that has ended: no walk through the pieces.
    total = _integral(start_s, milli, edges) - _integral(np.maximum(end_s, start_s), milli, edges)
    result: Int64Array = np.diff(total)
    return result


def _integral(at_s: Int64Array, milli: Int64Array, edges: Int64Array) -> Int64Array:
    order = np.argsort(at_s, kind="stable")
    sorted_s, weight = at_s[order], milli[order]
    level = np.concatenate([[0], np.cumsum(weight)])
    moment = np.concatenate([[0], np.cumsum(weight * (sorted_s - edges[0]))])
    count = np.searchsorted(sorted_s, edges, side="right")
    result: Int64Array = level[count] * (edges - edges[0]) - moment[count]
    return result


# --- energy -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Books:
    """The energy of both sides in the whole hours of the window; none: why not."""

    sides: tuple[EnergyBooks, EnergyBooks] | None
    why: str
    source: str
    synthetic: bool


def books_of(
    fleet: Fleet,
    alone: Fleet,
    site: Site,
    load: Load,
    happened: Replay,
    window: Window,
    pue: Float64Array,
    factors: CapacityFactors | None,
    seed: int,
    notes: list[str],
) -> Books:
    """The energy books of both sides: the same jobs, nodes, PUE and supply."""
    first_hour_s = -(-window.since_s // HOUR_S) * HOUR_S
    hours = max(0, (window.until_s - first_hour_s) // HOUR_S)
    if factors is None:
        factors = synthetic_capacity_factors(first_hour_s, max(1, hours), seed)
    if not hours:
        return Books(None, "the window holds no full hour", factors.source, factors.synthetic)
    supply = supply_wh(alone.contracts, factors, first_hour_s, hours)
    if len(fleet.sites) > 1 and fleet.contracts:
        notes.append(
            f"{site.id} is given the part of the contracts' supply that its nodes' typical power is of the fleet's"
        )
    if not site.pue.is_constant:
        notes.append("the PUE follows an outdoor temperature that is made up from climate normals (synthetic)")
    behind = (first_hour_s - window.since_s // HOUR_S * HOUR_S) // HOUR_S
    presence = presence_of(happened.fleet)
    uses = np.array([row.use_counts for row in load.rows]) & happened.started
    milli = load.workload.gpu_milli()
    try:
        sides = tuple(
            settle(happened.fleet, attempts, presence, pue[:, behind : behind + hours], supply, first_hour_s, hours)
            for attempts in (
                _real_attempts([row for row, counts in zip(load.rows, uses, strict=True) if counts]),
                Attempts(happened.start_s[uses], happened.end_s[uses], happened.pool[uses], milli[uses]),
            )
        )
    except InvariantBroken as broken:
        why = f"what ran there does not fit the fleet file: {broken}"
        notes.append(f"no energy is compared: {why}")
        return Books(None, why, supply.source, supply.synthetic)
    notes.extend(f"supply: {note}" for note in supply.notes)
    if supply.aligned_from_year is not None:
        notes.append(f"supply of {supply.aligned_from_year} was laid over these dates by hour of the year")
    return Books((sides[0], sides[1]), "", supply.source, supply.synthetic)


def _real_attempts(rows: Sequence[Row]) -> Attempts:
    parts = [(row.real_start_s, row.real_end_s, pool, GPU_MILLI * gpus) for row in rows for pool, gpus in row.held]
    start_s, end_s, pool, milli = (np.array(column, dtype=np.int64) for column in zip(*parts, strict=True))
    pool_rows: Int32Array = pool.astype(np.int32)
    return Attempts(start_s, end_s, pool_rows, milli)


# --- figures ----------------------------------------------------------------------------------------------------------

_SIDES = 2
#: (key, label, unit, better, quantile of waits or None)
_OF_JOBS: tuple[tuple[str, str, str, int], ...] = (
    ("wait_mean_s", "Wait, mean", "s", -1),
    ("wait_p50_s", "Wait, median", "s", -1),
    ("wait_p90_s", "Wait, 90 % below", "s", -1),
    ("wait_p99_s", "Wait, 99 % below", "s", -1),
    ("bounded_slowdown_mean", "Bounded slowdown, mean", "", -1),
    ("fairness_users", "Fairness between users (Jain)", "", 1),
    ("fairness_tenants", "Fairness between tenants (Jain)", "", 1),
)
_OF_TIME: tuple[tuple[str, str, str, int], ...] = (("utilisation", "GPUs held", "share", 1),)
_OF_HOURS: tuple[tuple[str, str, str, int], ...] = (
    ("renewable_share", "Renewable, matched hour by hour", "share", 1),
    ("energy_kwh", "Energy of the site", "kWh", -1),
)
_QUANTILES = {"wait_p50_s": 0.5, "wait_p90_s": 0.9, "wait_p99_s": 0.99}


def figures_of(sample: Sample, books: Books, seed: int) -> tuple[tuple[Figure, ...], tuple[int, int], int]:
    """(figures, blocks of (differences, each side) in pieces, resamples)."""
    measure = _Measure(sample, books)
    once = np.ones(sample.pieces, dtype=np.int64)
    point = measure(once)  # [2, figure]
    blocks = _blocks(sample, books)
    spread: list[tuple[Float64Array, Resamples]] = []
    for block in blocks:
        drawn = resample(sample.pieces, min(block, sample.pieces), seed)
        if drawn.blocks >= LEAST_BLOCKS:
            values = np.stack([measure(times) for times in drawn.times])
        else:
            values = np.full((1, *point.shape), np.nan)
        spread.append((values, drawn))
    figures = []
    for at, (key, label, unit, better) in enumerate((*_OF_JOBS, *_OF_TIME, *_OF_HOURS)):
        lacks = _lacks(key, sample, books)
        differences, levels = spread
        sides = [_estimate(float(point[side, at]), levels[0][:, side, at], levels[1], lacks) for side in range(_SIDES)]
        difference = _estimate(
            float(point[1, at] - point[0, at]),
            differences[0][:, 1, at] - differences[0][:, 0, at],
            differences[1],
            lacks,
        )
        figures.append(Figure(key, label, unit, better, sides[0], sides[1], difference))
    return tuple(figures), (blocks[0], blocks[1]), len(spread[0][1].times)


def _estimate(value: float, values: Float64Array, drawn: Resamples, lacks: str) -> Estimate:
    if np.isnan(value):
        return Estimate(None, None, lacks or "there is no such figure")
    if lacks:
        return Estimate(value, None, lacks)
    if drawn.blocks < LEAST_BLOCKS:
        return Estimate(value, None, f"too few to tell: {drawn.blocks} blocks of time, {LEAST_BLOCKS} are needed")
    if np.isnan(values).any():
        return Estimate(value, None, "too few to tell: some resamples hold no job")
    return Estimate(value, interval_of(values, drawn.blocks))


def _lacks(key: str, sample: Sample, books: Books) -> str:
    """What a figure lacks for an interval; empty when nothing."""
    jobs = len(sample.piece)
    if key in dict.fromkeys(name for name, *_ in _OF_HOURS):
        if books.sides is None:
            return books.why
        if sample.step_s != HOUR_S:
            return f"too few to tell: an interval needs {HOURLY_FROM_S // HOUR_S} hours"
    if key in dict.fromkeys(name for name, *_ in _OF_JOBS):
        beyond = 1 - _QUANTILES.get(key, 0.0)
        least = LEAST_JOBS if key not in _QUANTILES else max(LEAST_JOBS, round(_LEAST_BEYOND / beyond))
        if jobs < least:
            return f"too few to tell: {jobs} jobs, {least} are needed"
        pieces = len(np.unique(sample.piece))
        if pieces < LEAST_BLOCKS:
            return f"too few to tell: jobs came at {pieces} times only"
    if key.startswith("fairness"):
        who = sample.user if key == "fairness_users" else sample.tenant
        if len(np.unique(who)) < 2:
            return f"there is only one {'user' if key == 'fairness_users' else 'tenant'}"
    return ""


class _Measure:
    """All figures of a resample: gets [piece] how often each piece of time counts, gives [2, figure]."""

    def __init__(self, sample: Sample, books: Books) -> None:
        self._sample = sample
        wait, run = sample.wait_s, sample.runtime_s
        self._order = np.argsort(wait, axis=1, kind="stable")
        self._sorted = np.take_along_axis(wait, self._order, axis=1)
        self._sorted_piece = sample.piece[self._order]
        slowdown = np.maximum(1.0, (wait + run) / np.maximum(run, SLOWDOWN_BOUND_S))
        pieces = sample.pieces
        self._jobs = np.bincount(sample.piece, minlength=pieces)
        self._wait = np.stack([np.bincount(sample.piece, wait[side], pieces) for side in range(_SIDES)])
        self._slow = np.stack([np.bincount(sample.piece, slowdown[side], pieces) for side in range(_SIDES)])
        self._hours = books.sides if books.sides is not None else None

    def __call__(self, times: Int64Array) -> Float64Array:
        sample = self._sample
        jobs = float(self._jobs @ times)
        result = np.full((_SIDES, len(_OF_JOBS) + len(_OF_TIME) + len(_OF_HOURS)), np.nan)
        there = float(sample.there_milli_s @ times)
        weight = times[sample.piece].astype(np.float64)
        for side in range(_SIDES):
            row = result[side]
            if jobs:
                row[0] = self._wait[side] @ times / jobs
                row[1:4] = self._quantiles(side, times)
                row[4] = self._slow[side] @ times / jobs
                row[5] = self._fairness(side, sample.user, weight)
                row[6] = self._fairness(side, sample.tenant, weight)
            if there:
                row[7] = sample.held_milli_s[side] @ times / there
            if self._hours is not None:
                row[8:10] = self._energy(side, times)
        return result

    def _quantiles(self, side: int, times: Int64Array) -> list[float]:
        """The smallest wait that so many jobs do not exceed."""
        reached = np.cumsum(times[self._sorted_piece[side]])
        wanted = [max(1, int(np.ceil(share * reached[-1]))) for share in _QUANTILES.values()]
        return [float(self._sorted[side][at]) for at in np.searchsorted(reached, wanted)]

    def _fairness(self, side: int, who: Int64Array, weight: Float64Array) -> float:
        run = np.bincount(who, weight * self._sample.runtime_s)
        there = run + np.bincount(who, weight * self._sample.wait_s[side])
        return jain(run[there > 0] / there[there > 0])

    def _energy(self, side: int, times: Int64Array) -> tuple[float, float]:
        assert self._hours is not None
        books = self._hours[side]
        if books.hours != len(times):  # short windows: pieces are no hours, and only the whole is known
            times = np.ones(books.hours, dtype=np.int64)
        load = float(books.load_wh @ times)
        return (float(books.matched_wh @ times) / load if load else np.nan), load / 1_000


def jain(received: Float64Array) -> float:
    """Jain's index of fairness: 1 when all received alike, 1/n when one of n received all; NaN of nobody.

    (sum x)^2 / (n sum x^2): Jain, Chiu and Hawe, DEC Research Report TR-301, 1984.
    """
    squares = float((received**2).sum())
    return float(received.sum()) ** 2 / (len(received) * squares) if squares else np.nan


def _blocks(sample: Sample, books: Books) -> tuple[int, int]:
    """Block lengths in pieces, for the differences and for each side: the longest that one of the series asks for."""
    jobs = np.bincount(sample.piece, minlength=sample.pieces)
    mean = sample.wait_s.mean(axis=1)
    # What each piece adds to the mean wait, beside what its jobs would add at the mean.
    waits = [
        np.bincount(sample.piece, sample.wait_s[side], sample.pieces) - mean[side] * jobs for side in range(_SIDES)
    ]
    use = [sample.held_milli_s[side] / np.maximum(sample.there_milli_s, 1) for side in range(_SIDES)]
    levels = [*waits, *use]
    differences = [waits[1] - waits[0], use[1] - use[0]]
    if books.sides is not None and books.sides[0].hours == sample.pieces:
        load = [side.load_wh.astype(np.float64) for side in books.sides]
        matched = [side.matched_wh.astype(np.float64) for side in books.sides]
        levels += [*load, *matched]
        differences += [load[1] - load[0], matched[1] - matched[0]]
    return block_length(differences), block_length(levels)
