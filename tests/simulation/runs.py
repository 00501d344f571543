"""Small fleets and workloads for tests of the replay, and a recount of what it did."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from watteau.domain.fleet import Fleet, Outage, Phase, Pool, Pue
from watteau.domain.jobs import Shape, Workload
from watteau.domain.policy import POLICIES
from watteau.domain.tenants import Tenant
from watteau.domain.units import GPU_MILLI, PoolId, TenantId, from_epoch_s, to_epoch_s
from watteau.simulation.replay import Replay, replay
from watteau.simulation.results import Results, keep_books, outlook_of

ZERO = from_epoch_s(1_767_225_600)  # 2026-01-01
ZERO_S = to_epoch_s(ZERO)


def after(seconds: int) -> datetime:
    return ZERO + timedelta(seconds=seconds)


def fleet_of(
    *, nodes: int = 2, gpus: int = 8, opens: dict[int, int] | None = None, outages: tuple[tuple[int, int], ...] = ()
) -> Fleet:
    """One site with one pool. `opens` gives nodes by second after the zero, `outages` are [start, end) of it."""
    pool = Pool(PoolId("p"), "H100", gpus, 112, 2048, False, 2_000, 7_000, 9_000, 4)
    return Fleet.of_one_site(
        "s",
        [(pool, 0)],
        power_limit_kw=100_000,
        pue=Pue.constant(1.237),
        phases=tuple(
            Phase(f"from {at}", after(at), ((pool.id, count),)) for at, count in (opens or {0: nodes}).items()
        ),
        outages=tuple(Outage(after(start), after(end), (), "works") for start, end in outages),
        tenants=Tenant(TenantId("root"), "root", 1, None, ()),
    )


def jobs_of(*jobs: tuple[int, int, int], estimate_s: tuple[int, ...] = (), limit_s: tuple[int, ...] = ()) -> Workload:
    """Jobs as (submit_s, runtime_s, whole GPUs), sorted by submit_s; the estimate is the run time unless given."""
    count = len(jobs)
    sizes = sorted({gpus for _, _, gpus in jobs})
    runtime = np.array([runtime for _, runtime, _ in jobs], dtype=np.int64)
    return Workload(
        source="made up",
        synthetic=True,
        job_id=np.arange(count, dtype=np.int64),
        submit_s=np.array([submit for submit, _, _ in jobs], dtype=np.int64),
        runtime_s=runtime,
        estimate_s=np.array(estimate_s, dtype=np.int64) if estimate_s else np.maximum(runtime, 1),
        limit_s=np.array(limit_s or (0,) * count, dtype=np.int64),
        shape=np.array([sizes.index(gpus) for _, _, gpus in jobs], dtype=np.int32),
        tenant=np.zeros(count, dtype=np.int32),
        priority_class=np.zeros(count, dtype=np.int16),
        shapes=tuple(Shape(1, GPU_MILLI * gpus, divisible=True) for gpus in sizes),
        tenants=("root",),
    )


def random_jobs(seed: int, count: int, most_gpus: int, span_s: int = 20_000) -> Workload:
    """Jobs of all lengths, some of none, with estimates that are wrong both ways and some limits that kill."""
    rng = np.random.default_rng(seed)
    submit = np.sort(rng.integers(0, span_s, count))
    runtime = rng.choice([0, 1, 60, 600, 4_000, 9_000], count)
    gpus = rng.choice([1, 1, 2, 4, 8, most_gpus, most_gpus + 1], count)
    made = jobs_of(*zip(submit.tolist(), runtime.tolist(), gpus.tolist(), strict=True))
    limit = np.where(rng.random(count) < 0.3, rng.integers(1, 8_000, count), 0)
    estimate = rng.integers(1, 9_000, count)
    return replace(made, limit_s=limit, estimate_s=np.where(limit > 0, np.minimum(estimate, limit), estimate))


def run(fleet: Fleet, workload: Workload, policy: str = "hybrid") -> Replay:
    return replay(fleet, workload, POLICIES[policy], zero_s=ZERO_S)


def settled(happened: Replay) -> Results:
    return keep_books(happened, outlook_of(happened.fleet, ZERO_S, 24, 0), None, 0)


def times(happened: Replay) -> list[tuple[int, int]]:
    """(start, end) of each job, in seconds after the zero; (-1, -1) for those that never started."""
    never = ~happened.started
    start = np.where(never, -1, happened.start_s - ZERO_S)
    end = np.where(never, -1, happened.end_s - ZERO_S)
    return list(zip(start.tolist(), end.tolist(), strict=True))
