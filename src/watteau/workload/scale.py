"""Brings a trace to a wanted load, by compressing its arrivals or by drawing from it, and gives jobs tenants."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from watteau.domain.errors import Fault, InputError
from watteau.domain.jobs import Workload
from watteau.domain.units import (
    DAY_S,
    GPU_MILLI,
    HOUR_S,
    WEEK_S,
    BoolArray,
    Float64Array,
    Int32Array,
    Int64Array,
    from_epoch_s,
)
from watteau.workload.columns import build_workload

#: More jobs than any run can hold; a request for more is a mistake in the load, the capacity or the duration.
JOBS_MAX = 500_000_000

_HOURS_PER_WEEK = WEEK_S // HOUR_S
_DRAW_ROWS = 1 << 20
#: Hours of mean arrivals added to each hour of the week, so that none is empty in a short trace.
_SMOOTHING_H = 0.5


def compress_to_load(workload: Workload, capacity_gpus: int, load: float) -> Workload:
    """The same jobs with arrival times multiplied by one factor, in whole seconds.

    `load` is served GPU-seconds over capacity times arrival span. A trace that asks for more than the load is
    stretched by the same rule. Raises InputError when the trace has no arrival span or asks for no GPUs.
    """
    _check_wanted(capacity_gpus, load)
    gpu_s = float(_gpu_seconds(workload).sum())
    span_s = int(workload.submit_s[-1] - workload.submit_s[0]) if len(workload) else 0
    wanted_span_s = gpu_s / (capacity_gpus * load)
    if span_s < 1 or wanted_span_s < 1:
        found = f"{len(workload)} jobs over {span_s} s that hold {gpu_s / HOUR_S:.1f} GPU-hours"
        raise _unusable(workload, found, "jobs that arrive over at least a second and fill the fleet for one")
    factor = wanted_span_s / span_s
    submit_s: Int64Array = np.rint(workload.submit_s * factor).astype(np.int64)
    note = (
        f"arrival times multiplied by {factor:.6g} so that {capacity_gpus} GPUs are loaded {load:g} on average "
        f"over the {submit_s[-1] - submit_s[0]} s in which jobs arrive"
    )
    # Moments that fall together are sorted again, by job_id.
    return _rebuilt(workload, {"submit_s": submit_s}, note)


def resample_to_load(workload: Workload, capacity_gpus: int, load: float, duration_s: int, seed: int) -> Workload:
    """Jobs drawn with replacement until they ask for `load` times the capacity over the duration.

    A drawn job brings its run time, estimate, limit, shape, tenant and class together. Arrivals follow the trace's own
    rate by hour of the week, counted from its zero. Job ids are 0..n-1. The same seed gives the same workload.
    It is marked synthetic, because its arrivals were drawn. Raises InputError when the trace asks for no GPUs.
    """
    _check_wanted(capacity_gpus, load, duration_s)
    rng = np.random.Generator(np.random.PCG64(seed))
    gpu_s = _gpu_seconds(workload)
    target_gpu_s = load * capacity_gpus * duration_s
    mean_gpu_s = float(gpu_s.mean()) if len(gpu_s) else 0.0
    check_count(workload.source, target_gpu_s, mean_gpu_s)
    rows = draw_until(
        target_gpu_s, mean_gpu_s, lambda n: rng.integers(0, len(gpu_s), n, dtype=np.int32), lambda row: gpu_s[row]
    )
    submit_s = arrivals(rng, len(rows), hour_of_week_rate(workload.submit_s), duration_s)
    note = (
        f"{len(rows)} jobs drawn with replacement (seed {seed}) so that {capacity_gpus} GPUs are loaded {load:g} over "
        f"{duration_s / DAY_S:g} days; synthetic: arrivals drawn by the trace's rate per hour of the week"
    )
    drawn = {
        name: getattr(workload, name)[rows]
        for name in ("runtime_s", "estimate_s", "limit_s", "shape", "tenant", "priority_class")
    }
    made = {"job_id": np.arange(len(rows), dtype=np.int64), "submit_s": submit_s, **drawn}
    return replace(_rebuilt(workload, made, note), synthetic=True)


def assign_tenants(workload: Workload, leaf_names: Sequence[str], shares: Sequence[float], seed: int) -> Workload:
    """Give each job without a tenant one of the named, with a probability in proportion to its share.

    Jobs that have a tenant keep it. The result is synthetic as soon as one job was given a tenant.
    Raises ValueError when names and shares do not match or a share is not positive.
    """
    weights: Float64Array = np.asarray(shares, dtype=np.float64)
    if not len(leaf_names) or len(leaf_names) != len(weights) or len(set(leaf_names)) != len(leaf_names):
        raise ValueError("tenants need distinct names, one share each, and at least one")
    if not bool(np.all(np.isfinite(weights) & (weights > 0))):
        raise ValueError("each share must be positive")
    nobody: BoolArray = workload.tenant < 0
    count = int(np.count_nonzero(nobody))
    if not count:
        return workload
    rng = np.random.Generator(np.random.PCG64(seed))
    names = list(workload.tenants) + [name for name in leaf_names if name not in workload.tenants]
    index: Int32Array = np.array([names.index(name) for name in leaf_names], dtype=np.int32)
    tenant = workload.tenant.copy()
    tenant[nobody] = index[draw(rng, weights, count)]
    note = f"synthetic: {count} jobs without a tenant were given one of {len(leaf_names)} by share (seed {seed})"
    return replace(workload, synthetic=True, tenant=tenant, tenants=tuple(names), notes=(*workload.notes, note))


def submitted_between(workload: Workload, since_s: int, until_s: int) -> Workload:
    """The jobs that arrived in [since, until), in epoch seconds, counted from the first of them.

    Raises InputError when the workload has no dates, or no job then.
    """
    if workload.zero_s is None:
        raise _unusable(workload, "a workload without dates", "one whose times are dates, as those of accounting are")
    first, end = np.searchsorted(workload.submit_s, [since_s - workload.zero_s, until_s - workload.zero_s])
    if first >= end:
        seen = [from_epoch_s(workload.zero_s + int(s)).isoformat() for s in workload.submit_s[[0, -1]]]
        wanted = f"{from_epoch_s(since_s).isoformat()} to {from_epoch_s(until_s).isoformat()}"
        raise _unusable(workload, f"no job from {wanted}", f"a part of {seen[0]} to {seen[1]}, when its jobs arrived")
    others = len(workload) - int(end - first)
    part = workload.part(slice(int(first), int(end)), f"{others} jobs arrived at other times than asked for: left out")
    moved_s = int(part.submit_s[0])
    return replace(part, submit_s=part.submit_s - moved_s, zero_s=workload.zero_s + moved_s)


def with_models_of(workload: Workload, gpu_models: Iterable[str]) -> Workload:
    """The workload with each GPU model spelled as one of these where they differ in upper and lower case only."""
    spelled = {model.casefold(): model for model in gpu_models}
    shapes = tuple(
        replace(shape, gpu_models=tuple(spelled.get(model.casefold(), model) for model in shape.gpu_models))
        for shape in workload.shapes
    )
    return workload if shapes == workload.shapes else replace(workload, shapes=shapes)


def on_any_gpu_model(workload: Workload) -> Workload:
    """The workload without its jobs' wishes for GPU models; a job runs as long on another model as on its own."""
    bound = np.array([bool(shape.gpu_models) for shape in workload.shapes] or [False])[workload.shape]
    note = f"{int(np.count_nonzero(bound))} jobs that ran on, or asked for, some GPU model may run as long on any other"
    shapes = tuple(replace(shape, gpu_models=()) for shape in workload.shapes)
    return replace(workload, shapes=shapes, notes=(*workload.notes, note)) if bound.any() else workload


def hour_of_week_rate(submit_s: Int64Array) -> Float64Array:
    """[hour of week] arrivals per hour in a trace that starts with the week, smoothed so that none is 0."""
    first_h, end_h = int(submit_s.min()) // HOUR_S, int(submit_s.max()) // HOUR_S + 1
    weeks, rest_h = divmod(end_h - first_h, _HOURS_PER_WEEK)
    seen = np.full(_HOURS_PER_WEEK, weeks, dtype=np.int64)  # [hour of week] how often the trace covers it
    seen[np.arange(first_h, first_h + rest_h) % _HOURS_PER_WEEK] += 1
    arrived = np.bincount((submit_s // HOUR_S) % _HOURS_PER_WEEK, minlength=_HOURS_PER_WEEK)
    mean_per_h = len(submit_s) / (end_h - first_h)
    rate: Float64Array = (arrived + mean_per_h * _SMOOTHING_H) / (seen + _SMOOTHING_H)
    return rate


def arrivals(rng: np.random.Generator, count: int, rate: Float64Array, duration_s: int) -> Int64Array:
    """[job] sorted seconds in [0, duration_s) at which so many jobs arrive, by a rate per hour of the week."""
    start_s: Int64Array = np.arange(0, duration_s, HOUR_S, dtype=np.int64)
    length_s = np.minimum(HOUR_S, duration_s - start_s)
    weight = rate[(start_s // HOUR_S) % _HOURS_PER_WEEK] * length_s
    per_hour = rng.multinomial(count, weight / weight.sum())
    moments = np.repeat(start_s, per_hour)
    for row in range(0, count, _DRAW_ROWS):
        part = moments[row : row + _DRAW_ROWS]
        part += (rng.random(len(part)) * np.minimum(HOUR_S, duration_s - part)).astype(np.int64)
    moments.sort()
    return moments


def draw(rng: np.random.Generator, weights: Float64Array, count: int) -> Int64Array:
    """[draw] indices with a probability in proportion to their weight."""
    edges = np.cumsum(weights)
    result: Int64Array = np.searchsorted(edges[:-1] / edges[-1], rng.random(count), side="right")
    return result


def draw_until(
    target_gpu_s: float,
    mean_gpu_s: float,
    draw_rows: Callable[[int], Int32Array],
    gpu_s_of: Callable[[Int32Array], Float64Array],
) -> Int32Array:
    """As many draws as it takes for their GPU-seconds to reach the target."""
    pieces: list[Int32Array] = []
    missing_gpu_s = target_gpu_s
    while missing_gpu_s > 0:
        rows = draw_rows(min(_DRAW_ROWS, int(missing_gpu_s / mean_gpu_s * 1.05) + 1_000))
        reached = np.cumsum(gpu_s_of(rows))
        enough = int(np.searchsorted(reached, missing_gpu_s)) + 1
        pieces.append(rows[:enough])
        missing_gpu_s -= float(reached[min(enough, len(rows)) - 1])
    return np.concatenate(pieces)


def check_count(source: str, target_gpu_s: float, mean_gpu_s: float) -> None:
    """Refuse a load that no number of jobs, or an absurd one, would reach. Raises InputError."""
    if mean_gpu_s <= 0:
        raise InputError(source, [Fault(0, "", "jobs that hold no GPU", "at least one job that holds a GPU")])
    if target_gpu_s / mean_gpu_s > JOBS_MAX:
        found = f"a load that takes about {target_gpu_s / mean_gpu_s:.0f} jobs"
        raise InputError(source, [Fault(0, "", found, f"at most {JOBS_MAX}")])


def _check_wanted(capacity_gpus: int, load: float, duration_s: int = 1) -> None:
    if capacity_gpus < 1 or duration_s < 1 or not 0 < load < float("inf"):
        raise ValueError("capacity, load and duration must be positive")


def _gpu_seconds(workload: Workload) -> Float64Array:
    """[job] seconds held times GPUs held."""
    result: Float64Array = workload.served_s() * (workload.gpu_milli() / GPU_MILLI)
    return result


def _rebuilt(workload: Workload, changed: dict[str, Int64Array], note: str) -> Workload:
    """The workload with some columns changed, sorted again, and one more note; what its jobs once waited is void."""
    names = ("job_id", "submit_s", "runtime_s", "estimate_s", "limit_s", "shape", "tenant", "priority_class")
    return build_workload(
        source=workload.source,
        synthetic=workload.synthetic,
        columns={name: changed[name] if name in changed else getattr(workload, name) for name in names},
        shapes=workload.shapes,
        tenants=workload.tenants,
        notes=(*workload.notes, note),
        zero_s=workload.zero_s,
    )


def _unusable(workload: Workload, found: str, expected: str) -> InputError:
    return InputError(workload.source, [Fault(0, "", found, expected)])
