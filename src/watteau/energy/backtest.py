"""How good forecasts were: errors of every issue of a measured series, by technology and lead."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import Technology
from watteau.domain.units import HOUR_S, Float64Array, Int64Array
from watteau.energy.forecast import (
    Forecaster,
    FromMeasured,
    LastValue,
    SameHourYesterday,
    climatology,
    fit,
    refuse_common_hours,
    truth,
)
from watteau.energy.supply import WEATHER, CapacityFactors

#: Bands of hours ahead, both ends included; 1 is the hour that begins at the issue.
BANDS_H = ((1, 6), (7, 24), (25, 72))
#: Measured hours before the first issue, so that every forecaster has the past that it looks at.
WARM_UP_H = 168
#: Of normally distributed errors, so many lie within so many standard deviations.
COVERAGES = ((0.80, 1.2816), (0.95, 1.9600))


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of one forecaster, as a share of capacity."""

    forecaster: str
    technology: Technology
    first_h: int
    last_h: int
    mae: float
    rmse: float
    within: tuple[float, ...]  # share of errors inside each of COVERAGES, of hours with a stated error; or empty


@dataclass(frozen=True, slots=True)
class Backtest:
    """The scores of forecasters over the same issues."""

    source: str
    trained_on: tuple[str, ...]
    synthetic: bool
    first_issue_s: int
    issues: int
    scores: tuple[Score, ...]
    notes: tuple[str, ...]


def backtest(supply: CapacityFactors, train: Sequence[CapacityFactors]) -> Backtest:
    """Fit on some series and score the forecasts of every hour of another, beside what is known without a model.

    Raises InputError when the series is too short, or has hours that were trained on (F2).
    """
    hours = BANDS_H[-1][1]
    issues = supply.hours - WARM_UP_H - hours + 1
    if issues < 1:
        found, least = f"{supply.hours:,} hours", f"at least {WARM_UP_H + hours}: a week before the first issue"
        raise InputError(supply.source, [Fault(0, "hour_utc", found, least)])
    refuse_common_hours(supply, train)
    model, usual = fit(train, hours), climatology(train)
    first_issue_s = supply.first_hour_s + HOUR_S * WARM_UP_H
    issued_at_s = first_issue_s + HOUR_S * np.arange(issues, dtype=np.int64)
    forecasters = [FromMeasured(method, supply) for method in (model, LastValue(), SameHourYesterday(), usual)]
    scores = tuple(score for each in forecasters for score in scores_of(each, supply, issued_at_s, BANDS_H))
    notes = tuple(dict.fromkeys(f"{each.source}: {note}" for each in (supply, *train) for note in each.notes))
    synthetic = any(each.synthetic for each in (supply, *train))
    return Backtest(
        supply.source, tuple(each.source for each in train), synthetic, first_issue_s, issues, scores, notes
    )


def scores_of(
    forecaster: Forecaster, supply: CapacityFactors, issued_at_s: Int64Array, bands_h: Sequence[tuple[int, int]]
) -> list[Score]:
    """The scores of one forecaster by technology and band. Raises ValueError for hours that were not measured."""
    hours = max(last for _, last in bands_h)
    forecasts = forecaster.forecasts(issued_at_s, hours)
    scores = []
    for technology in WEATHER:
        error = np.abs(forecasts.values[technology] - truth(supply, technology, issued_at_s, hours))
        sd = forecasts.error_sd.get(technology)
        for first, last in bands_h:
            band = slice(first - 1, last)
            scores.append(
                Score(
                    forecaster.name,
                    technology,
                    first,
                    last,
                    float(error[:, band].mean()),
                    float(np.sqrt((error[:, band] ** 2).mean())),
                    () if sd is None else _within(error[:, band], sd[:, band]),
                )
            )
    return scores


def _within(error: Float64Array, sd: Float64Array) -> tuple[float, ...]:
    stated = sd > 0
    if not stated.any():
        return ()
    return tuple(float((error[stated] <= width * sd[stated]).mean()) for _, width in COVERAGES)
