"""Intervals over time: they cover the truth as often as they say where neighbours depend on each other, and repeat."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watteau.domain.units import Float64Array, Int64Array
from watteau.simulation.bootstrap import (
    LEAST_BLOCKS,
    Interval,
    Resamples,
    _block_length,
    _t_quantile,
    block_length,
    interval_of,
    resample,
)


def ar1(draw: np.random.Generator, count: int, memory: float, runs: int = 1) -> Float64Array:
    """[run, time] x(t) = memory x(t-1) + noise, with the mean 0 and started in its steady state."""
    noise = draw.standard_normal((runs, count))
    series = np.empty((runs, count))
    series[:, 0] = noise[:, 0] / np.sqrt(1 - memory**2)
    for at in range(1, count):
        series[:, at] = memory * series[:, at - 1] + noise[:, at]
    return series


def mean_interval(series: Float64Array, block: int, seed: int, resamples: int = 400) -> Interval:
    drawn = resample(len(series), block, seed, resamples)
    return interval_of(drawn.times @ series / len(series), drawn.blocks)


@pytest.mark.parametrize(("memory", "count"), [(0.0, 200), (0.5, 400), (0.8, 800)])
def test_intervals_of_an_ar1_series_cover_its_mean_about_as_often_as_they_say(memory: float, count: int) -> None:
    """With as few blocks as these the bootstrap is known to fall somewhat short of its 95 %."""
    runs = 300
    covered, alone = 0, 0
    for seed, series in enumerate(ar1(np.random.default_rng(2026), count, memory, runs)):
        found = mean_interval(series, _block_length(series), seed)
        covered += found.low <= 0 <= found.high
        one_by_one = mean_interval(series, 1, seed)
        alone += one_by_one.low <= 0 <= one_by_one.high
    assert 0.89 <= covered / runs <= 0.98, f"seed 2026: {covered / runs}"
    if memory:
        assert alone / runs < covered / runs - 0.05, "taking neighbours for independent promises too much"


def test_blocks_grow_with_the_memory_of_the_series() -> None:
    draw = np.random.default_rng(7)
    found = [float(np.mean([_block_length(x) for x in ar1(draw, 1_000, rho, 20)])) for rho in (0.0, 0.5, 0.9)]
    # For an AR(1), G / g of the rule is 2 rho / (1 - rho^2).
    best = [(1.5 * 1_000 * (2 * rho / (1 - rho**2)) ** 2) ** (1 / 3) for rho in (0.5, 0.9)]
    assert found[0] < 4
    assert found[1] == pytest.approx(best[0], rel=0.35)
    assert found[2] == pytest.approx(best[1], rel=0.35)


def test_the_longest_block_that_any_series_asks_for_is_taken() -> None:
    draw = np.random.default_rng(8)
    short, long = ar1(draw, 500, 0.0)[0], ar1(draw, 500, 0.9)[0]
    assert block_length([short, long]) == block_length([long]) > block_length([short])
    assert block_length([]) == 1


@pytest.mark.parametrize("series", [[5.0] * 50, [0.0] * 50, [1.0], [1.0, 2.0], []])
def test_a_series_without_variation_or_length_asks_for_single_bins(series: list[float]) -> None:
    assert block_length([np.array(series)]) == 1


def test_all_equal_values_have_an_interval_of_no_width() -> None:
    assert mean_interval(np.full(40, 3.0), 2, seed=1) == Interval(3.0, 3.0)


def mean_of(values: Float64Array) -> object:
    return lambda times: float(times @ values / times.sum())


def test_too_few_blocks_have_no_interval() -> None:
    values = np.arange(LEAST_BLOCKS * 4 - 1, dtype=np.float64)
    assert resample(len(values), 4, 1, 50).interval(mean_of(values)) is None  # type: ignore[arg-type]
    assert resample(len(values), 3, 1, 50).interval(mean_of(values)) is not None  # type: ignore[arg-type]


def test_a_figure_that_some_resamples_do_not_have_has_no_interval() -> None:
    drawn = resample(20, 1, 1, 50)

    def of_the_first_bin(times: Int64Array) -> float | None:
        return 1.0 if times[0] else None

    assert drawn.interval(of_the_first_bin) is None


def test_the_same_seed_gives_the_same_resamples_and_another_seed_others() -> None:
    first, again, other = (resample(50, 3, seed, 20) for seed in (1, 1, 2))
    assert np.array_equal(first.times, again.times)
    assert not np.array_equal(first.times, other.times)


@given(st.integers(1, 60), st.data())
def test_each_resample_is_as_long_as_the_window_and_each_bin_is_as_likely(bins: int, data: st.DataObject) -> None:
    block = data.draw(st.integers(1, bins))
    drawn: Resamples = resample(bins, block, seed=3, resamples=30)
    assert (drawn.times.sum(axis=1) == bins).all()
    assert drawn.times.min() >= 0
    assert drawn.blocks == bins // block


@pytest.mark.parametrize(("bins", "block"), [(0, 1), (5, 0), (5, 6)])
def test_blocks_that_do_not_fit_are_refused(bins: int, block: int) -> None:
    with pytest.raises(ValueError, match="blocks of"):
        resample(bins, block, seed=1)


def test_the_t_quantile_is_that_of_the_tables() -> None:
    """Abramowitz and Stegun, table 26.10."""
    for freedom, expected in ((9, 2.262), (15, 2.131), (30, 2.042), (120, 1.980)):
        assert _t_quantile(0.975, freedom) == pytest.approx(expected, rel=0.002)
