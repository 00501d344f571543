"""Bringing a trace to a load: the load is met, jobs stay whole, the same seed gives the same workload."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workload.files import PAI_HEADER, columns, notes, read
from watteau.domain.errors import InputError
from watteau.domain.jobs import Shape, Workload
from watteau.domain.units import DAY_S, HOUR_S, WEEK_S
from watteau.workload.columns import build_workload
from watteau.workload.scale import (
    assign_tenants,
    compress_to_load,
    hour_of_week_rate,
    on_any_gpu_model,
    resample_to_load,
    submitted_between,
    with_models_of,
)


def trace(jobs: int = 500) -> Workload:
    """Jobs over three weeks that come by day only; run time and size tell each other."""
    rows = [(day * DAY_S + 12 * HOUR_S + n, 100 + n % 7, 1 + n % 7) for day in range(20) for n in range(jobs // 20)]
    return read(PAI_HEADER + "".join(f"{a},{b},{c}\n" for a, b, c in rows))


def offered_gpu_s(workload: Workload) -> float:
    return float((workload.served_s() * workload.gpu_milli() / 1_000).sum())


@given(st.floats(0.05, 3.0), st.integers(1, 50))
def test_compression_meets_the_load_to_the_second_and_keeps_every_job(load: float, gpus: int) -> None:
    before = trace()
    after = compress_to_load(before, gpus, load)
    span_s = int(after.submit_s[-1] - after.submit_s[0])
    assert abs(offered_gpu_s(after) / (gpus * load) - span_s) <= 2
    assert sorted(after.job_id.tolist()) == before.job_id.tolist()
    assert "arrival times multiplied by" in notes(after)
    assert not after.synthetic


def test_compression_keeps_jobs_sorted_when_moments_fall_together() -> None:
    before = read("; x\n" + "".join(f"{9 - n} {n * 10} -1 5 1" + " -1" * 13 + "\n" for n in range(9)))
    after = compress_to_load(before, 1, 20.0)
    pairs = list(zip(after.submit_s.tolist(), after.job_id.tolist(), strict=True))
    assert pairs == sorted(pairs)
    assert len(set(after.submit_s.tolist())) < 9


def dated() -> Workload:
    """Three jobs, a day apart, from noon on; the middle one asks for a GPU model."""
    shapes = (Shape(1, 1_000), Shape(2, 4_000, gpu_models=("a100", "h100")))
    column = np.arange(3, dtype=np.int64)
    return build_workload(
        source="dated",
        synthetic=False,
        columns={
            "job_id": column,
            "submit_s": DAY_S * column,
            "runtime_s": column + 60,
            "shape": column % 2,
            "waited_s": 7 * column,
        },
        shapes=shapes,
        zero_s=DAY_S // 2,
    )


def test_jobs_of_a_span_are_those_that_arrived_in_it_counted_from_the_first() -> None:
    part = submitted_between(dated(), DAY_S + DAY_S // 2, 3 * DAY_S)
    assert part.job_id.tolist() == [1, 2]
    assert part.submit_s.tolist() == [0, DAY_S]
    assert part.zero_s == DAY_S + DAY_S // 2
    assert part.waited_s is not None
    assert part.waited_s.tolist() == [7, 14]
    assert "1 jobs arrived at other times than asked for: left out" in notes(part)
    assert submitted_between(dated(), 0, DAY_S).job_id.tolist() == [0]


def test_a_span_wants_dates_and_jobs() -> None:
    with pytest.raises(InputError, match="a workload without dates"):
        submitted_between(trace(), 0, DAY_S)
    with pytest.raises(InputError, match="no job from 1970-02-01"):
        submitted_between(dated(), 31 * DAY_S, 32 * DAY_S)


def test_models_are_spelled_as_the_fleet_spells_them() -> None:
    spelled = with_models_of(dated(), ["A100", "B200"])
    assert [shape.gpu_models for shape in spelled.shapes] == [(), ("A100", "h100")]


def test_jobs_may_be_let_onto_any_gpu_model_and_the_notes_count_them() -> None:
    free = on_any_gpu_model(dated())
    assert not any(shape.gpu_models for shape in free.shapes)
    assert "1 jobs that ran on, or asked for, some GPU model may run as long on any other" in notes(free)
    assert "any other" not in notes(on_any_gpu_model(trace()))


def test_a_trace_without_span_or_gpus_cannot_be_compressed() -> None:
    with pytest.raises(InputError, match="arrive over at least a second"):
        compress_to_load(read(PAI_HEADER + "5,5,1\n"), 1, 1.0)
    with pytest.raises(InputError, match="fill the fleet"):
        compress_to_load(read(PAI_HEADER + "0,5,0\n9,5,0\n"), 1, 1.0)


@pytest.mark.parametrize(("gpus", "load"), [(0, 1.0), (1, 0.0), (1, float("nan")), (1, float("inf")), (1, -1.0)])
def test_a_load_that_means_nothing_is_refused(gpus: int, load: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        compress_to_load(trace(), gpus, load)
    with pytest.raises(ValueError, match="must be positive"):
        resample_to_load(trace(), gpus, load, DAY_S, 1)


def test_resampling_meets_the_load_and_says_that_arrivals_are_drawn() -> None:
    after = resample_to_load(trace(), 40, 0.8, WEEK_S, seed=3)
    target = 0.8 * 40 * WEEK_S
    assert target <= offered_gpu_s(after) < target + 107 * 7
    assert after.synthetic
    assert "seed 3" in notes(after)
    assert after.job_id.tolist() == list(range(len(after)))
    assert 0 <= after.submit_s[0] <= after.submit_s[-1] < WEEK_S


def test_a_drawn_job_keeps_its_fields_together() -> None:
    after = resample_to_load(trace(), 40, 0.5, WEEK_S, seed=3)
    assert np.array_equal(after.runtime_s - 100 + 1, after.gpu_milli() // 1_000)


def test_resampled_arrivals_follow_the_hours_of_the_trace() -> None:
    after = resample_to_load(trace(2_000), 200, 0.8, 2 * WEEK_S, seed=1)
    hours = np.bincount((after.submit_s // HOUR_S) % 24, minlength=24)
    assert hours.argmax() == 12
    assert hours[12] > 0.4 * hours.sum()


def test_the_same_seed_gives_the_same_workload_and_another_one_another() -> None:
    first, second, other = (resample_to_load(trace(), 9, 0.7, DAY_S, seed) for seed in (5, 5, 6))
    assert columns(first) == columns(second)
    assert columns(first) != columns(other)


def test_a_trace_without_gpus_or_an_absurd_load_cannot_be_drawn_from() -> None:
    with pytest.raises(InputError, match="hold no GPU"):
        resample_to_load(read(PAI_HEADER + "0,5,0\n"), 1, 1.0, DAY_S, 1)
    with pytest.raises(InputError, match="a load that takes about"):
        resample_to_load(read(PAI_HEADER + "0,1,1\n"), 10**7, 1.0, 10**6, 1)


@given(st.lists(st.integers(0, 10 * WEEK_S), min_size=1, max_size=50))
def test_no_hour_of_the_week_is_empty(submits: list[int]) -> None:
    rate = hour_of_week_rate(np.array(sorted(submits)))
    assert len(rate) == 168
    assert np.all(rate > 0)


def test_tenants_are_drawn_by_share_and_marked_as_made_up() -> None:
    workload = assign_tenants(trace(10_000), ["small", "large"], [1, 3], seed=2)
    assert workload.tenants == ("small", "large")
    assert 0.73 < np.mean(workload.tenant == 1) < 0.77
    assert workload.synthetic
    assert "synthetic" in notes(workload)


def test_a_job_that_has_a_tenant_keeps_it() -> None:
    known = read("1 0 -1 5 1 -1 -1 -1 -1 -1 1 7" + " -1" * 6 + "\n2 0 -1 5 1 -1 -1 -1 -1 -1 1 -1" + " -1" * 6 + "\n")
    after = assign_tenants(known, ["a"], [1], seed=1)
    assert [after.tenants[tenant] for tenant in after.tenant] == ["user7", "a"]
    assert assign_tenants(after, ["b"], [1], seed=1) is after


@pytest.mark.parametrize(("names", "shares"), [([], []), (["a"], [1, 2]), (["a", "a"], [1, 1]), (["a"], [0])])
def test_shares_that_mean_nothing_are_refused(names: list[str], shares: list[float]) -> None:
    with pytest.raises(ValueError, match="share"):
        assign_tenants(trace(), names, shares, seed=1)
