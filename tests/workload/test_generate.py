"""The generator: its figures are those that are cited, and it meets the load."""

import math

import numpy as np
import pytest

from tests.workload.files import columns, notes
from watteau.domain.jobs import Workload
from watteau.domain.units import DAY_S, HOUR_S, WEEK_S
from watteau.workload import generate as figures
from watteau.workload.generate import generate, tenant_names


@pytest.fixture(scope="module")
def workload() -> Workload:
    return generate(capacity_gpus=1_000, load=0.8, duration_s=8 * WEEK_S, seed=1, tenants=tenant_names(100))


def test_the_load_is_met_and_the_workload_says_that_it_is_synthetic(workload: Workload) -> None:
    held_gpu_s = float((workload.served_s() * workload.gpu_milli() / 1_000).sum())
    target = 0.8 * 1_000 * 8 * WEEK_S
    assert target <= held_gpu_s < 1.01 * target
    assert workload.synthetic
    for said in ("synthetic", "cluster-trace-gpu-v2020", "Tsafrir", "Mu'alem", "Lublin", "assumed"):
        assert said in notes(workload)


def test_sizes_are_as_common_as_in_the_cited_trace(workload: Workload) -> None:
    sizes, counts = np.unique(workload.gpu_milli() // 1_000, return_counts=True)
    measured = dict(zip(sizes.tolist(), counts / len(workload), strict=True))
    total = sum(figures.JOBS_BY_GPUS.values())
    for gpus in (1, 2, 3, 5, 8, 10, 20, 25):
        assert measured[gpus] == pytest.approx(figures.JOBS_BY_GPUS[gpus] / total, rel=0.15)


def test_run_times_have_the_cited_quantiles(workload: Workload) -> None:
    alone = workload.runtime_s[workload.gpu_milli() == 1_000]
    cited = dict(zip(figures.RUNTIME_QUANTILES, figures.RUNTIME_S[1], strict=True))
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9, 0.95):
        assert np.quantile(alone, quantile) == pytest.approx(cited[quantile], rel=0.06)


def test_limits_are_few_and_round_and_mostly_too_long(workload: Workload) -> None:
    assert set(np.unique(workload.limit_s).tolist()) <= set(figures.LIMITS_S)
    assert {HOUR_S, 2 * HOUR_S, 4 * HOUR_S, 12 * HOUR_S, 24 * HOUR_S} <= set(figures.LIMITS_S)
    assert np.array_equal(workload.estimate_s, workload.limit_s)
    killed = float(np.mean(workload.runtime_s > workload.limit_s))
    assert 0.02 < killed < figures.KILLED_SHARE
    assert np.median(workload.estimate_s / workload.runtime_s) > 1.5


def test_arrivals_have_a_day_and_a_week(workload: Workload) -> None:
    hours = np.bincount((workload.submit_s // HOUR_S) % 24, minlength=24)
    assert 11 <= int(hours.argmax()) <= 16
    assert hours.max() > 5 * hours.min()
    days = np.bincount((workload.submit_s // DAY_S) % 7, minlength=7)
    assert days[5:].mean() / days[:5].mean() == pytest.approx(figures.WEEKEND_FACTOR, abs=0.05)


def test_the_daily_cycle_is_the_cited_gamma_distribution() -> None:
    shape, scale = 8.1737, 3.9631
    steps = 200
    weight = [0.0] * 48
    for bucket in range(11, 59):
        points = (bucket - 0.5 + (step + 0.5) / steps for step in range(steps))
        density = (x ** (shape - 1) * math.exp(-x / scale) for x in points)
        weight[bucket % 48] = sum(density) / steps
    hourly = np.array(weight).reshape(24, 2).sum(axis=1)
    assert np.allclose(1_000 * hourly / hourly.sum(), figures.ARRIVALS_BY_HOUR, atol=0.1)


def test_few_tenants_submit_most_jobs_and_few_jobs_are_urgent(workload: Workload) -> None:
    counts = np.sort(np.bincount(workload.tenant, minlength=100))[::-1]
    assert 0.4 < counts[:5].sum() / len(workload) < 0.5
    assert np.mean(workload.priority_class == 1) == pytest.approx(figures.URGENT_SHARE, abs=0.01)


def test_the_same_seed_gives_the_same_workload() -> None:
    first, second, other = (generate(capacity_gpus=100, load=0.5, duration_s=DAY_S, seed=s) for s in (1, 1, 2))
    assert columns(first) == columns(second)
    assert columns(first) != columns(other)


def test_no_job_is_larger_than_the_fleet() -> None:
    assert generate(capacity_gpus=4, load=0.9, duration_s=WEEK_S, seed=1).gpu_milli().max() <= 4_000


def test_without_tenants_the_jobs_are_the_same_and_nobodys() -> None:
    owned, nobodys = (
        generate(capacity_gpus=4, load=0.5, duration_s=DAY_S, seed=1, tenants=who) for who in (("a",), ())
    )
    assert set(nobodys.tenant.tolist()) == {-1}
    assert nobodys.submit_s.tolist() == owned.submit_s.tolist()
    assert nobodys.shape.tolist() == owned.shape.tolist()
    assert not any("tenant" in note for note in nobodys.notes)


def test_arguments_that_mean_nothing_are_refused() -> None:
    for change in ({"capacity_gpus": 0}, {"load": float("nan")}, {"duration_s": 0}, {"tenants": "aa"}):
        with pytest.raises(ValueError, match=r"must be positive|distinct names"):
            generate(**({"capacity_gpus": 4, "load": 0.5, "duration_s": DAY_S, "seed": 1} | change))
