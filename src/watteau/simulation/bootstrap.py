"""Confidence intervals of figures over time, whose neighbours depend on each other: the circular block bootstrap.

Time is cut into bins; what happened in one bin stays together. A resample puts blocks of consecutive bins, drawn with
replacement from the window closed to a circle, end to end until it is as long as the window (Politis and Romano 1992;
the moving blocks are Kunsch's, 1989). A figure's interval are the quantiles of the figure over the resamples, set a
little wider for the few blocks that there are (the expanded percentile interval of Hesterberg 2015).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from watteau.domain.units import Float64Array, Int64Array

#: Of the interval: 95 % confidence.
CONFIDENCE = 0.95
RESAMPLES = 2_000
#: With fewer blocks than these an interval says more about chance than about the figure.
LEAST_BLOCKS = 10


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a figure lies with 95 % confidence."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Resamples:
    """How often each bin of time is in each resample; every figure of one comparison is made from the same ones."""

    times: Int64Array  # [resample, bin]
    block: int  # bins in a block
    seed: int

    @property
    def bins(self) -> int:
        """Bins of the window."""
        return int(self.times.shape[1])

    @property
    def blocks(self) -> int:
        """Blocks that fit the window side by side."""
        return self.bins // self.block

    def interval(self, figure: Callable[[Int64Array], float | None]) -> Interval | None:
        """Where a figure of the resampled bins lies; None: too few blocks, or some resamples have no such figure.

        `figure` gets [bin] how often each bin counts.
        """
        if self.blocks < LEAST_BLOCKS:
            return None
        values = []
        for times in self.times:
            if (value := figure(times)) is None:
                return None
            values.append(value)
        return interval_of(np.array(values), self.blocks)


def resample(bins: int, block: int, seed: int, resamples: int = RESAMPLES) -> Resamples:
    """Draw resamples. The last block of each is cut to the window's length. Raises ValueError without a bin."""
    if not 1 <= block <= bins:
        raise ValueError(f"blocks of {block} bins in a window of {bins}")
    draw = np.random.Generator(np.random.PCG64(seed))
    count = -(-bins // block)
    first = draw.integers(0, bins, (resamples, count))
    chosen = ((first[:, :, None] + np.arange(block)) % bins).reshape(resamples, -1)[:, :bins]
    times = np.zeros((resamples, bins), dtype=np.int64)
    for at in range(resamples):
        times[at] = np.bincount(chosen[at], minlength=bins)
    return Resamples(times, block, seed)


def interval_of(values: Float64Array, blocks: int) -> Interval:
    """The expanded percentile interval of a figure's resamples, which had so many blocks (at least 2)."""
    tail = _expanded_tail(blocks)
    low, high = np.quantile(values, (tail, 1 - tail))
    return Interval(float(low), float(high))


def _expanded_tail(blocks: int) -> float:
    # Hesterberg 2015, section 4.1: percentiles are as much too narrow as z is against t, and n-1 against n.
    t = _t_quantile((1 + CONFIDENCE) / 2, blocks - 1)
    return NormalDist().cdf(-math.sqrt(blocks / (blocks - 1)) * t)


def _t_quantile(probability: float, freedom: int) -> float:
    """Student's t by the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5): to 0.2 % from 9 degrees on."""
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def block_length(series: Sequence[Float64Array]) -> int:
    """The longest of the block lengths that each series asks for, in bins; at least 1.

    The rule of Politis and White (2004), corrected by Patton, Politis and White (2009), for the mean of a series and
    circular blocks. A series without variation asks for 1.
    """
    return max((_block_length(each) for each in series), default=1)


def _block_length(series: Float64Array) -> int:
    count = len(series)
    if count < 4:
        return 1
    centred = series - series.mean()
    insignificant = max(5, math.ceil(math.sqrt(math.log10(count))))
    most_lag = min(count - 1, math.ceil(math.sqrt(count)) + insignificant)
    covariance = np.array([float(centred[: count - lag] @ centred[lag:]) / count for lag in range(most_lag + 1)])
    if covariance[0] <= 1e-12 * max(1.0, float(series.mean()) ** 2):
        return 1
    small = np.abs(covariance[1:]) < 2 * math.sqrt(math.log10(count) / count) * covariance[0]
    last = next(
        (at for at in range(len(small)) if small[at : at + insignificant].all() and at + insignificant <= len(small)),
        None,
    )
    if last is None:  # no run of small ones: up to the last lag that is not small
        last = int(np.flatnonzero(~small)[-1]) + 1
    bandwidth = min(2 * max(last, 1), most_lag)
    lags = np.arange(1, bandwidth + 1)
    flat_top = np.clip(2 * (1 - lags / bandwidth), 0, 1)
    spectrum = covariance[0] + 2 * float(flat_top @ covariance[1 : bandwidth + 1])
    slope = 2 * float((flat_top * lags) @ covariance[1 : bandwidth + 1])
    if spectrum <= 0:
        return 1
    best: float = (2 * slope**2 / (4 / 3 * spectrum**2)) ** (1 / 3) * count ** (1 / 3)
    most = math.ceil(min(3 * math.sqrt(count), count / 3))
    return max(1, min(math.ceil(best), most))
