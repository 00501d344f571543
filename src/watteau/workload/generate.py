"""Synthetic workloads whose figures come from public traces and published models, each cited where it stands."""

from collections.abc import Sequence

import numpy as np

from watteau.domain.jobs import Workload
from watteau.domain.units import DAY_S, HOUR_S, Float64Array, Int64Array
from watteau.workload.columns import Columns, build_workload, divisible_shape
from watteau.workload.scale import arrivals, check_count, draw

#: GPUs of a job: jobs in the trace that ask for so many; the 28 sizes cover 99.8 % of its 99,998 jobs.
#: Counted by us in the 100,000-job extract of Alibaba PAI, cluster-trace-gpu-v2020, in the GAIA artefact
#: (umassos/GAIA). The extract has no job below 301 s.
JOBS_BY_GPUS: dict[int, int] = {
    1: 73_531,
    2: 4_906,
    3: 4_069,
    4: 2_133,
    5: 3_344,
    6: 257,
    7: 1_113,
    8: 1_844,
    9: 168,
    10: 1_994,
    12: 56,
    13: 885,
    15: 585,
    16: 676,
    18: 47,
    20: 1_593,
    24: 88,
    25: 1_043,
    30: 299,
    32: 96,
    35: 50,
    40: 246,
    50: 505,
    60: 50,
    75: 55,
    100: 128,
    200: 8,
    400: 3,
}
#: The quantiles that RUNTIME_S gives.
RUNTIME_QUANTILES = (0.0, 0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 0.999, 1.0)
#: Largest number of GPUs of a group of sizes: seconds at RUNTIME_QUANTILES. Same source.
RUNTIME_S: dict[int, tuple[int, ...]] = {
    1: (301, 309, 345, 405, 729, 2_239, 7_264, 18_480, 31_908, 80_843, 161_916, 254_905),
    2: (301, 316, 368, 438, 618, 1_685, 5_571, 16_399, 31_255, 87_614, 226_021, 256_093),
    4: (302, 333, 414, 549, 1_185, 2_773, 10_801, 25_215, 37_781, 84_680, 180_077, 244_413),
    8: (301, 323, 417, 582, 1_293, 4_140, 9_190, 23_215, 37_596, 123_507, 210_906, 240_854),
    16: (301, 313, 368, 460, 940, 2_141, 7_510, 20_524, 37_091, 92_435, 212_500, 255_510),
    32: (301, 311, 367, 499, 1_091, 2_383, 8_424, 26_642, 49_724, 102_995, 182_420, 196_895),
    64: (303, 332, 557, 819, 1_898, 6_602, 23_324, 51_695, 74_602, 157_936, 209_615, 244_833),
    400: (438, 446, 825, 1_631, 3_235, 6_534, 14_758, 25_566, 35_265, 93_525, 137_034, 150_337),
}
#: The round times that users ask for. Users take very few values: 20 of them cover about 90 % of the jobs
#: (Tsafrir, Etsion, Feitelson, "Modeling user runtime estimates", JSSPP 2005). Which ones is our choice.
LIMITS_S = tuple(hours * HOUR_S // 4 for hours in (1, 2, 4, 8, 16, 32, 48, 96, 192, 288, 672))
#: Run time over estimate is spread about evenly between 0 and 1, apart from jobs that end at once and jobs that are
#: killed at their limit (Mu'alem and Feitelson, IEEE TPDS 12(6), 2001). The lowest ratio is our choice.
ACCURACY_MIN = 0.05
#: Share of jobs whose limit is too short, so that it kills them. Our assumption.
KILLED_SHARE = 0.05
#: Jobs per thousand in each hour of the day: gamma(8.1737, 3.9631) over 48 half hours, the day starting at bucket 11
#: (Lublin and Feitelson, JPDC 63(11), 2003, and the parameters of its program lublin99.c). Deep-learning clusters
#: show such a daily cycle too (Hu et al., "Helios", SC '21).
ARRIVALS_BY_HOUR = (
    *(22.3, 18.0, 14.4, 11.3, 8.9, 7.1, 11.8, 20.6, 31.4, 42.9, 54.1, 63.7),
    *(70.8, 75.0, 76.4, 75.0, 71.4, 66.2, 59.9, 53.0, 46.1, 39.3, 33.0, 27.3),
)
#: Arrivals on Saturday and Sunday against a working day. Our assumption.
WEEKEND_FACTOR = 0.6
#: The k-th tenant submits in proportion to 1 / k ** this. Few users submit most jobs in every trace (Hu et al., SC '21;
#: Weng et al., "MLaaS in the Wild", NSDI '22); 1.0 gives the first 5 of 100 tenants 44 % of the jobs. Our choice.
TENANT_ZIPF = 1.0
#: Share of jobs in priority class 1; the others are in class 0. Our assumption.
URGENT_SHARE = 0.03

_DRAW_ROWS = 1 << 20


def generate(
    *, capacity_gpus: int, load: float, duration_s: int, seed: int, tenants: Sequence[str] = ("tenant-001",)
) -> Workload:
    """A synthetic workload whose jobs hold `load` times the capacity over the duration; its zero is Monday 00:00.

    Sizes and run times follow Alibaba PAI, limits are round and mostly too long, arrivals have a day and a week, few
    tenants submit most jobs (without tenants the jobs belong to nobody yet). Sizes above the capacity do not occur.
    The same arguments give the same workload.
    Raises ValueError for arguments that are not positive or tenants that are not distinct, and InputError for a
    load that takes an absurd number of jobs.
    """
    if capacity_gpus < 1 or duration_s < 1 or not 0 < load < float("inf"):
        raise ValueError("capacity, load and duration must be positive")
    if len(set(tenants)) != len(tenants):
        raise ValueError("tenants need distinct names")
    source = f"generated (seed {seed})"
    gpus_of_size = np.array([gpus for gpus in JOBS_BY_GPUS if gpus <= capacity_gpus], dtype=np.int64)
    weights = np.array([float(JOBS_BY_GPUS[gpus]) for gpus in gpus_of_size.tolist()])
    target_gpu_s = load * capacity_gpus * duration_s
    tenant_weights: Float64Array = np.arange(1, max(1, len(tenants)) + 1, dtype=np.float64) ** -TENANT_ZIPF
    rng = np.random.Generator(np.random.PCG64(seed))
    mean_gpu_s = _mean_gpu_s(rng, gpus_of_size, weights)
    check_count(source, target_gpu_s, mean_gpu_s)
    # Sizes, run times and limits are drawn together, batch by batch, until their GPU-seconds reach the target.
    jobs, held_gpu_s = Columns(), 0.0
    while held_gpu_s < target_gpu_s:
        count = min(_DRAW_ROWS, int((target_gpu_s - held_gpu_s) / mean_gpu_s * 1.05) + 1_000)
        size = draw(rng, weights, count)
        runtime_s = _runtimes_s(rng, gpus_of_size[size])
        limit_s = _limits_s(rng, runtime_s)
        reached = held_gpu_s + np.cumsum(np.minimum(runtime_s, limit_s) * gpus_of_size[size].astype(np.float64))
        kept = min(count, int(np.searchsorted(reached, target_gpu_s)) + 1)
        held_gpu_s = float(reached[kept - 1])
        jobs.add(
            shape=size[:kept].astype(np.int32),
            runtime_s=runtime_s[:kept],
            limit_s=limit_s[:kept],
            tenant=draw(rng, tenant_weights, kept).astype(np.int32),
            priority_class=(rng.random(kept) < URGENT_SHARE).astype(np.int16),
        )
    columns = {name: jobs.take(name) for name in ("shape", "runtime_s", "limit_s", "tenant", "priority_class")}
    if not tenants:
        columns["tenant"][:] = -1
    columns["job_id"] = np.arange(jobs.rows, dtype=np.int64)
    columns["submit_s"] = arrivals(rng, jobs.rows, arrival_rate(), duration_s)
    return build_workload(
        source=source,
        synthetic=True,
        columns=columns,
        shapes=[divisible_shape(gpus) for gpus in gpus_of_size.tolist()],
        tenants=tenants,
        notes=_notes(capacity_gpus, load, duration_s, seed, tenants),
    )


def tenant_names(count: int) -> tuple[str, ...]:
    """So many names for made-up tenants: tenant-001, tenant-002, …"""
    return tuple(f"tenant-{number:03d}" for number in range(1, count + 1))


def arrival_rate() -> Float64Array:
    """[hour of week, from Monday 00:00] relative rate of arrivals."""
    day: Float64Array = np.array(ARRIVALS_BY_HOUR)
    return np.concatenate([day] * 5 + [day * WEEKEND_FACTOR] * 2)


def _runtimes_s(rng: np.random.Generator, gpus: Int64Array) -> Int64Array:
    """[job] whole seconds: between two quantiles of its size, the logarithm of the run time is uniform."""
    result: Int64Array = np.empty(len(gpus), dtype=np.int64)
    chance = rng.random(len(gpus))
    group = np.searchsorted(np.array(list(RUNTIME_S)), gpus)
    for index, quantiles_s in enumerate(RUNTIME_S.values()):
        rows = group == index
        log_s = np.interp(chance[rows], RUNTIME_QUANTILES, np.log(np.array(quantiles_s)))
        result[rows] = np.rint(np.exp(log_s)).astype(np.int64)
    return result


def _limits_s(rng: np.random.Generator, runtime_s: Int64Array) -> Int64Array:
    """[job] a round limit: long enough for most, and for a few the longest that is shorter than their run time."""
    choices: Int64Array = np.array(LIMITS_S, dtype=np.int64)
    guess_s = runtime_s / (ACCURACY_MIN + (1 - ACCURACY_MIN) * rng.random(len(runtime_s)))
    enough = np.minimum(np.searchsorted(choices, guess_s), len(choices) - 1)
    too_short = np.searchsorted(choices, runtime_s) - 1
    killed = (rng.random(len(runtime_s)) < KILLED_SHARE) & (too_short >= 0)
    result: Int64Array = choices[np.where(killed, too_short, enough)]
    return result


def _mean_gpu_s(rng: np.random.Generator, gpus_of_size: Int64Array, weights: Float64Array) -> float:
    """GPU-seconds of a mean job, from a sample: only sets how many jobs are drawn at a time."""
    gpus = gpus_of_size[draw(rng, weights, 10_000)]
    return float((gpus * _runtimes_s(rng, gpus)).mean())


def _notes(capacity_gpus: int, load: float, duration_s: int, seed: int, tenants: Sequence[str]) -> list[str]:
    notes = [
        f"synthetic: every job was generated (seed {seed}) to load {capacity_gpus} GPUs {load:g} over "
        f"{duration_s / DAY_S:g} days from Monday 00:00",
        "sizes and run times: quantiles of Alibaba PAI, cluster-trace-gpu-v2020, via the GAIA artefact",
        "estimates and limits: round values (Tsafrir et al. 2005), accuracy spread evenly "
        f"(Mu'alem and Feitelson 2001); {KILLED_SHARE:.0%} killed by their limit is assumed",
        "arrivals: daily cycle of Lublin and Feitelson 2003; the weekend at "
        f"{WEEKEND_FACTOR:.0%} of a working day is assumed",
        f"{URGENT_SHARE:.0%} of the jobs in priority class 1: assumed",
    ]
    return [*notes, f"tenants: Zipf with exponent {TENANT_ZIPF:g}, assumed"] if tenants else notes
