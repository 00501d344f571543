"""Supply forecasts: capacity factors of the coming hours, from nothing but what was measured before the issue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import Technology
from watteau.domain.units import DAY_S, HOUR_S, BoolArray, Float64Array, Int64Array, from_epoch_s
from watteau.energy.supply import WEATHER, CapacityFactors, aligned_rows, year_share

#: Leads that a model is fitted for, unless more are asked for; beyond them it says what the season usually brings.
HORIZON_H = 72

_YEAR_H = 365 * 24
_FAR_S = 1 << 62  # later than any hour
_DECIMALS = 6  # of a capacity factor: supply counts in ppm, too


@dataclass(frozen=True, slots=True)
class Forecast:
    """What was expected at one moment of the hours after it. Lead 0 is the hour that begins at the issue."""

    source: str
    issued_at_s: int
    values: dict[Technology, Float64Array]  # [lead], 0..1
    error_sd: dict[Technology, Float64Array]  # [lead], expected standard deviation; empty when it is not known

    def __post_init__(self) -> None:
        if self.issued_at_s % HOUR_S:
            raise ValueError("a forecast is issued on a full hour")
        if len({len(series) for series in (*self.values.values(), *self.error_sd.values())}) > 1:
            raise ValueError("a forecast says the same hours of every technology")
        if not all(bool(np.all((series >= 0.0) & (series <= 1.0))) for series in self.values.values()):
            raise ValueError("forecast capacity factors lie between 0 and 1")
        if not all(bool(np.all(sd >= 0.0)) for sd in self.error_sd.values()):
            raise ValueError("the standard deviation of an error is at least 0")


@dataclass(frozen=True, slots=True)
class Forecasts:
    """Forecasts of many issues, as a back-test needs them."""

    source: str
    issued_at_s: Int64Array  # [issue]
    values: dict[Technology, Float64Array]  # [issue, lead], 0..1
    error_sd: dict[Technology, Float64Array]  # [issue, lead]; empty when it is not known

    def __getitem__(self, issue: int) -> Forecast:
        return Forecast(
            self.source,
            int(self.issued_at_s[issue]),
            {technology: values[issue] for technology, values in self.values.items()},
            {technology: sd[issue] for technology, sd in self.error_sd.items()},
        )


class Forecaster(Protocol):
    """Gives forecasts. An issue is a full hour in UTC, in seconds; other issues, and fewer than 1 hour, are refused."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def forecast(self, issued_at_s: int, hours: int) -> Forecast:
        """The forecast of one issue: the same as among many (F4)."""

    def forecasts(self, issued_at_s: Int64Array, hours: int) -> Forecasts:
        """The forecasts of many issues at once."""


class Known:
    """What had been measured at each of many issues. There is no way to ask it for an hour that had not ended (F1)."""

    def __init__(self, measured: CapacityFactors, issued_at_s: Int64Array) -> None:
        issued_at_s = np.asarray(issued_at_s, dtype=np.int64)
        end_s = measured.first_hour_s + HOUR_S * measured.hours
        if (issued_at_s % HOUR_S).any():
            raise ValueError("a forecast is issued on a full hour")
        for at in issued_at_s[(issued_at_s <= measured.first_hour_s) | (issued_at_s > end_s)][:1]:
            raise ValueError(
                f"{measured.source} was measured from {_shown(measured.first_hour_s)} to {_shown(end_s)}: "
                f"it allows no forecast at {_shown(int(at))}"
            )
        self.issued_at_s = issued_at_s
        self._measured = measured
        self._next_row = (issued_at_s - measured.first_hour_s) // HOUR_S  # the first hour that is not known

    def ago(self, technology: Technology, hours_ago: Int64Array) -> Float64Array:
        """[issue, k] factor of the hour that began so many hours (>= 1) before the issue; NaN before the first."""
        if (hours_ago < 1).any():
            raise ValueError("an hour that begins at the issue or later is not known")
        rows = self._next_row[:, None] - hours_ago
        return np.where(rows < 0, np.nan, self._measured.values[technology][np.maximum(rows, 0)])


class Method(Protocol):
    """A way to forecast from what is known."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def predict(self, known: Known, technology: Technology, hours: int) -> tuple[Float64Array, Float64Array | None]:
        """[issue, lead] expected factor, and the standard deviation of its error where the method knows it."""


@dataclass(frozen=True, slots=True)
class FromMeasured:
    """The forecaster that applies a method to a measured series, at each issue to what was known by then."""

    method: Method
    measured: CapacityFactors

    @property
    def name(self) -> str:
        """That of the method."""
        return self.method.name

    def forecast(self, issued_at_s: int, hours: int) -> Forecast:
        """As Forecaster says. Raises ValueError for an issue outside what was measured."""
        return self.forecasts(np.array([issued_at_s], dtype=np.int64), hours)[0]

    def forecasts(self, issued_at_s: Int64Array, hours: int) -> Forecasts:
        """As Forecaster says. Raises ValueError for an issue outside what was measured."""
        _check_hours(hours)
        known = Known(self.measured, issued_at_s)
        values, error_sd = {}, {}
        for technology in WEATHER:
            expected, sd = self.method.predict(known, technology, hours)
            values[technology] = _as_factor(expected)
            if sd is not None:
                error_sd[technology] = np.round(sd, _DECIMALS)
        return Forecasts(self.name, known.issued_at_s, values, error_sd)


# --- plain methods: what any other has to beat -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LastValue:
    """Persistence: everything stays as it was in the last measured hour."""

    name: str = "last value"

    def predict(self, known: Known, technology: Technology, hours: int) -> tuple[Float64Array, Float64Array | None]:
        """As Method says."""
        return np.repeat(known.ago(technology, np.array([1])), hours, axis=1), None


@dataclass(frozen=True, slots=True)
class SameHourYesterday:
    """Persistence that knows the day: each hour is like the last measured one of the same time of day."""

    name: str = "yesterday"

    def predict(self, known: Known, technology: Technology, hours: int) -> tuple[Float64Array, Float64Array | None]:
        """As Method says. Raises ValueError when less than a day is known."""
        values = known.ago(technology, 24 - np.arange(hours, dtype=np.int64) % 24)
        if np.isnan(values).any():
            raise ValueError("the same hour of yesterday is known after a day of measurements")
        return values, None


@dataclass(frozen=True, slots=True)
class Climatology:
    """What the training years had on average in the month and hour of the day (UTC)."""

    mean: dict[Technology, Float64Array]  # [month, hour]
    sd: dict[Technology, Float64Array]  # [month, hour]
    name: str = "climatology"

    def predict(self, known: Known, technology: Technology, hours: int) -> tuple[Float64Array, Float64Array | None]:
        """As Method says."""
        hour_s = _hours_after(known.issued_at_s, hours)
        at = _month(hour_s), _hour(hour_s)
        return self.mean[technology][at], self.sd[technology][at]


def climatology(train: Sequence[CapacityFactors]) -> Climatology:
    """The climatology of measured years. Raises InputError when they are not whole years, or count hours twice."""
    _check_training(train)
    hour_s = np.concatenate([_hours_of(each) for each in train])
    cell = _month(hour_s) * 24 + _hour(hour_s)
    count = np.bincount(cell, minlength=12 * 24)
    mean, sd = {}, {}
    for technology in WEATHER:
        values = np.concatenate([each.values[technology] for each in train])
        average = np.bincount(cell, values, 12 * 24) / count
        square = np.bincount(cell, (values - average[cell]) ** 2, 12 * 24) / count
        mean[technology], sd[technology] = average.reshape(12, 24), np.sqrt(square).reshape(12, 24)
    return Climatology(mean, sd)


# --- forecasters that know the truth: bounds and experiments, never for a live decision (F5) -------------------------


@dataclass(frozen=True, slots=True)
class Perfect:
    """The bound: what will be measured."""

    measured: CapacityFactors
    name: str = "perfect"

    def forecast(self, issued_at_s: int, hours: int) -> Forecast:
        """As Forecaster says. Raises ValueError for hours that the series does not have."""
        return self.forecasts(np.array([issued_at_s], dtype=np.int64), hours)[0]

    def forecasts(self, issued_at_s: Int64Array, hours: int) -> Forecasts:
        """As Forecaster says. Raises ValueError for hours that the series does not have."""
        values = {technology: truth(self.measured, technology, issued_at_s, hours) for technology in WEATHER}
        certain = {technology: np.zeros_like(each) for technology, each in values.items()}
        return Forecasts(self.name, np.asarray(issued_at_s, dtype=np.int64), values, certain)


@dataclass(frozen=True, slots=True)
class Noisy:
    """The truth times 1 + an AR(1) error along the leads, drawn anew for each issue from the seed (field notes, 4a).

    The error is relative and has the same spread at every lead, so it flatters long leads and calm hours: a model of
    a forecast for experiments. A product that was cut at 1 makes the mean a little too low.
    """

    measured: CapacityFactors
    seed: int
    relative_sd: float = 0.30
    memory_h: float = 24.0
    name: str = "noisy"

    def __post_init__(self) -> None:
        if self.seed < 0 or not self.relative_sd >= 0 or not self.memory_h > 0:
            raise ValueError("noise has a seed and a spread of at least 0, and a memory above 0 hours")

    def forecast(self, issued_at_s: int, hours: int) -> Forecast:
        """As Forecaster says. Raises ValueError for hours that the series does not have."""
        return self.forecasts(np.array([issued_at_s], dtype=np.int64), hours)[0]

    def forecasts(self, issued_at_s: Int64Array, hours: int) -> Forecasts:
        """As Forecaster says. Raises ValueError for hours that the series does not have."""
        exact = Perfect(self.measured).forecasts(issued_at_s, hours)
        draws = np.array([self._draws(int(at), hours) for at in exact.issued_at_s])  # [issue, lead, technology]
        memory = float(np.exp(-1 / self.memory_h))
        error = np.empty_like(draws)
        for lead in range(hours):
            fresh = draws[:, lead]
            error[:, lead] = fresh if not lead else memory * error[:, lead - 1] + np.sqrt(1 - memory**2) * fresh
        error *= self.relative_sd
        return Forecasts(
            self.name,
            exact.issued_at_s,
            {each: _as_factor(exact.values[each] * (1 + error[:, :, k])) for k, each in enumerate(WEATHER)},
            {each: self.relative_sd * exact.values[each] for each in WEATHER},
        )

    def _draws(self, issued_at_s: int, hours: int) -> Float64Array:
        """[lead, technology] of one issue; they do not depend on which others are asked for, nor on their order."""
        seed = np.random.SeedSequence([self.seed, issued_at_s // HOUR_S, 0xF0CA])
        return np.random.Generator(np.random.PCG64(seed)).standard_normal((hours, len(WEATHER)))


def truth(measured: CapacityFactors, technology: Technology, issued_at_s: Int64Array, hours: int) -> Float64Array:
    """[issue, lead] what was measured in the hours after each issue. Raises ValueError where there is nothing."""
    _check_hours(hours)
    hour_s = _hours_after(np.asarray(issued_at_s, dtype=np.int64), hours)
    rows = (hour_s - measured.first_hour_s) // HOUR_S
    if (hour_s % HOUR_S).any():
        raise ValueError("a forecast is issued on a full hour")
    if rows.size and (rows.min() < 0 or rows.max() >= measured.hours):
        end_s = measured.first_hour_s + HOUR_S * measured.hours
        raise ValueError(
            f"{measured.source} was measured from {_shown(measured.first_hour_s)} to {_shown(end_s)}, "
            f"not from {_shown(int(hour_s.min()))} to {_shown(int(hour_s.max()) + HOUR_S)}"
        )
    return measured.values[technology][rows]


def aligned(factors: CapacityFactors, start_hour_s: int, hours: int) -> CapacityFactors:
    """The factors of [start, start + hours), by hour of the year where the series has other years, as supply_wh does.

    A simulated year gets its weather so; give the forecasters of a simulation some days before it and after it.
    Raises InputError when the factors cover neither the hours nor a whole year.
    """
    rows, _ = aligned_rows(factors, start_hour_s, hours)
    values = {technology: series[rows] for technology, series in factors.values.items()}
    return CapacityFactors(factors.source, factors.synthetic, start_hour_s, hours, values, factors.notes)


# --- the fitted method -----------------------------------------------------------------------------------------------
# Each factor is taken relative to its season: minus the usual value, over the usual spread, of the day of the year and
# hour of the day. What remains is forecast by linear regressions, one for each hour of issue and lead. The constants
# were chosen by fitting on French 2013 and testing on 2014, and the other way round. 2016 was looked at afterwards; it
# made us choose one of them anew, in the same way: the width of the season of rivers.

#: Days of the year to either side that count for a day's usual value, with weights falling to 0. The sun needs them
#: narrow, as its hours change quickly; elsewhere a narrow season would learn the weather of the training years, rivers
#: most of all, whose wet months are not those of the next year.
_SEASON_DAYS = {
    Technology.SOLAR: 60,
    Technology.WIND_ONSHORE: 120,
    Technology.WIND_OFFSHORE: 120,
    Technology.HYDRO_RUN_OF_RIVER: 183,
}
#: Hours whose usual spread is below this share of the largest (the sun's night) are always as usual.
_LEAST_SPREAD = 0.02

#: What is known at an issue: yesterday hour by hour, the day before at this hour, and means of (from, to) hours ago.
_LAGS_H = np.array([*range(1, 25), 48])
_MEANS_H = ((1, 24), (25, 48), (1, 168))
_MEMORY_H = 168

#: Ridge penalties: of the regression over all hours of issue towards 0, the usual; of that of one hour towards it.
_TOWARDS_USUAL, _TOWARDS_ALL_HOURS = 1.0, 100.0


@dataclass(frozen=True, slots=True)
class Season:
    """The usual value of a technology and its usual spread."""

    mean: Float64Array  # [day of year, hour]
    spread: Float64Array  # [day of year, hour], 0 where it is always as usual

    def usual(self, hour_s: Int64Array) -> tuple[Float64Array, Float64Array]:
        """(mean, spread) of full hours, in the shape in which they are given."""
        # Windows of many issues overlap: each hour is looked up in the calendar once.
        first_s = hour_s.min(initial=_FAR_S)
        rows = (hour_s - first_s) // HOUR_S
        line_s = first_s + HOUR_S * np.arange(rows.max(initial=-1) + 1, dtype=np.int64)
        at = _day_of_year(line_s), _hour(line_s)
        return self.mean[at][rows], self.spread[at][rows]


@dataclass(frozen=True, slots=True)
class Regression:
    """How far from usual the coming hours of a technology are expected to be, in usual spreads."""

    season: Season
    weights: Float64Array  # [hour of issue, feature, lead]
    error_sd: Float64Array  # [hour of issue, lead]

    def predict(self, known: Known, technology: Technology, hours: int) -> tuple[Float64Array, Float64Array]:
        """[issue, lead] expected factor and standard deviation of its error; beyond the fitted leads, the usual."""
        fitted = min(hours, self.weights.shape[2])
        away = np.zeros((len(known.issued_at_s), hours))
        sd = np.ones_like(away)
        features, hour = _features(known, technology, self.season), _hour(known.issued_at_s)
        for each in np.unique(hour):
            away[hour == each, :fitted] = _applied(self.weights[each][:, :fitted], features[hour == each])
        sd[:, :fitted] = self.error_sd[hour, :fitted]
        mean, spread = self.season.usual(_hours_after(known.issued_at_s, hours))
        return mean + spread * away, spread * sd


@dataclass(frozen=True, slots=True)
class Fitted:
    """The shipped method: the usual of the season, corrected by how the last week differed from it."""

    regressions: dict[Technology, Regression]
    name: str = "fitted"

    def predict(self, known: Known, technology: Technology, hours: int) -> tuple[Float64Array, Float64Array | None]:
        """As Method says. Hours before the first measured one count as usual."""
        return self.regressions[technology].predict(known, technology, hours)


def fit(train: Sequence[CapacityFactors], horizon_h: int = HORIZON_H) -> Fitted:
    """Fit on measured years, in some seconds; the same years give the same model.

    The error that it states is that of models which had not seen the hours in question (F3): each series left out in
    turn or, of a single one, every other month. Raises InputError when the series are not whole years, or count hours
    twice.
    """
    _check_training(train)
    _check_hours(horizon_h)
    folds = [np.full(each.hours, k) if len(train) > 1 else _month(_hours_of(each)) % 2 for k, each in enumerate(train)]
    return Fitted({each: _regression(train, folds, each, horizon_h) for each in WEATHER})


def _regression(
    train: Sequence[CapacityFactors], folds: Sequence[Int64Array], technology: Technology, horizon_h: int
) -> Regression:
    square, count = np.zeros((24, horizon_h)), np.zeros((24, horizon_h))
    for fold in np.unique(np.concatenate(folds)):
        others = [each != fold for each in folds]
        season = _season(train, others, technology)
        weights = _weights(*_examples(train, others, technology, season, horizon_h)[:3])
        features, away, hour, varies = _examples(train, [~each for each in others], technology, season, horizon_h)
        for each in range(24):
            error = away[hour == each] - _applied(weights[each], features[hour == each])
            square[each] += (error**2 * varies[hour == each]).sum(axis=0)
            count[each] += varies[hour == each].sum(axis=0)
    every = [np.ones(each.hours, dtype=np.bool_) for each in train]
    season = _season(train, every, technology)
    weights = _weights(*_examples(train, every, technology, season, horizon_h)[:3])
    return Regression(season, weights, np.sqrt(square / np.maximum(count, 1)))


def _season(train: Sequence[CapacityFactors], wanted: Sequence[BoolArray], technology: Technology) -> Season:
    hour_s = np.concatenate([_hours_of(each)[keep] for each, keep in zip(train, wanted, strict=True)])
    values = np.concatenate([each.values[technology][keep] for each, keep in zip(train, wanted, strict=True)])
    cell = _day_of_year(hour_s) * 24 + _hour(hour_s)
    day = np.arange(366)
    apart = np.abs(day[:, None] - day)
    near = np.maximum(0.0, 1 - np.minimum(apart, 366 - apart) / _SEASON_DAYS[technology])

    def smooth(figures: Float64Array | None) -> Float64Array:
        summed: Float64Array = near @ np.bincount(cell, figures, 366 * 24).reshape(366, 24)
        return summed

    count = smooth(None)
    mean = smooth(values) / count
    spread = np.sqrt(np.maximum(smooth(values**2) / count - mean**2, 0.0))
    return Season(mean, np.where(spread > _LEAST_SPREAD * spread.max(), spread, 0.0))


def _examples(
    train: Sequence[CapacityFactors],
    wanted: Sequence[BoolArray],
    technology: Technology,
    season: Season,
    horizon_h: int,
) -> tuple[Float64Array, Float64Array, Int64Array, BoolArray]:
    """([issue, feature], [issue, lead] how far from usual it was, [issue] hour of the day, [issue, lead] varies)."""
    parts = []
    for series, keep in zip(train, wanted, strict=True):
        rows = np.arange(_MEMORY_H, series.hours - horizon_h + 1)
        issued_at_s = series.first_hour_s + HOUR_S * rows[keep[rows]]
        after_s = _hours_after(issued_at_s, horizon_h)
        mean, spread = season.usual(after_s)
        away = _in_spreads(truth(series, technology, issued_at_s, horizon_h) - mean, spread)
        features = _features(Known(series, issued_at_s), technology, season)
        parts.append((features, away, _hour(issued_at_s), spread > 0))
    features, away, hour, varies = (np.concatenate(column) for column in zip(*parts, strict=True))
    return features, away, hour, varies


def _features(known: Known, technology: Technology, season: Season) -> Float64Array:
    """[issue, feature] how far from usual the last week was."""
    hours_ago = np.arange(1, _MEMORY_H + 1)
    values = known.ago(technology, hours_ago)
    mean, spread = season.usual(known.issued_at_s[:, None] - HOUR_S * hours_ago)
    counts = (spread > 0) & ~np.isnan(values)
    apart, spread = np.where(counts, values - mean, 0.0), np.where(counts, spread, 0.0)
    # Means weigh by spread: of a solar day they are what was missing in all, over what usually varies.
    means = [
        _in_spreads(apart[:, first - 1 : last].sum(axis=1), spread[:, first - 1 : last].sum(axis=1))
        for first, last in _MEANS_H
    ]
    lags = _in_spreads(apart[:, _LAGS_H - 1], spread[:, _LAGS_H - 1])
    return np.column_stack([np.ones(len(values)), lags, *means])


def _in_spreads(difference: Float64Array, spread: Float64Array) -> Float64Array:
    """The difference in usual spreads; 0 where nothing varies."""
    return np.divide(difference, spread, out=np.zeros_like(difference), where=spread > 0)


def _weights(features: Float64Array, away: Float64Array, hour: Int64Array) -> Float64Array:
    """[hour of issue, feature, lead] ridge regressions: one over all hours of issue, and from it one for each."""
    of_hour = [(features[hour == each], away[hour == each]) for each in range(24)]
    gram = np.stack([_summed(x, x) for x, _ in of_hour])
    moment = np.stack([_summed(x, y) for x, y in of_hour])
    identity = np.eye(features.shape[1])
    of_all = np.linalg.solve(gram.sum(axis=0) + _TOWARDS_USUAL * identity, moment.sum(axis=0))
    from_all = np.linalg.solve(gram + _TOWARDS_ALL_HOURS * identity, moment - gram @ of_all)
    return np.asarray(of_all + from_all, dtype=np.float64)


# Products are spelt as sums: those of a linear algebra library use threads, which on a machine at work wait for each
# other many times longer than so small a product takes.


def _summed(features: Float64Array, other: Float64Array) -> Float64Array:
    """[feature, k] sums over the issues of the products of both."""
    return np.asarray(np.einsum("nf,nk->fk", features, other), dtype=np.float64)


def _applied(weights: Float64Array, features: Float64Array) -> Float64Array:
    """[issue, lead] what the weights of one hour of issue make of the features."""
    return np.asarray(np.einsum("nf,fl->nl", features, weights), dtype=np.float64)


# --- calendar and refusals -------------------------------------------------------------------------------------------


def _hours_of(factors: CapacityFactors) -> Int64Array:
    return factors.first_hour_s + HOUR_S * np.arange(factors.hours, dtype=np.int64)


def _hours_after(issued_at_s: Int64Array, hours: int) -> Int64Array:
    return issued_at_s[:, None] + HOUR_S * np.arange(hours, dtype=np.int64)


def _hour(hour_s: Int64Array) -> Int64Array:
    return hour_s % DAY_S // HOUR_S


def _month(hour_s: Int64Array) -> Int64Array:
    return hour_s.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64) % 12


def _day_of_year(hour_s: Int64Array) -> Int64Array:
    """0..365; days of a common year are stretched a little, which a season of weeks does not notice."""
    return (year_share(hour_s) * 366).astype(np.int64)


def _as_factor(values: Float64Array) -> Float64Array:
    """Between 0 and 1, to the ppm: without the last bits, which depend on how many issues were multiplied at once."""
    return np.asarray(np.round(np.clip(values, 0.0, 1.0), _DECIMALS), dtype=np.float64)


def _check_hours(hours: int) -> None:
    if hours < 1:
        raise ValueError("a forecast covers at least 1 hour")


def _check_training(train: Sequence[CapacityFactors]) -> None:
    """Raises InputError: a season needs a whole year, and hours counted twice would vouch for themselves."""
    if not train:
        raise ValueError("a forecast is fitted on at least one series")
    for series in train:
        if series.hours < _YEAR_H:
            raise InputError(
                series.source, [Fault(0, "hour_utc", f"{series.hours:,} hours", f"a year: at least {_YEAR_H:,} hours")]
            )
    for k, series in enumerate(train):
        refuse_common_hours(series, train[:k])


def refuse_common_hours(series: CapacityFactors, others: Sequence[CapacityFactors]) -> None:
    """Raises InputError when a series has hours that another one has, too."""
    for other in others:
        begin_s = max(other.first_hour_s, series.first_hour_s)
        if begin_s < min(each.first_hour_s + HOUR_S * each.hours for each in (other, series)):
            found = f"hours that {other.source} has, too, from {_shown(begin_s)}"
            raise InputError(series.source, [Fault(0, "hour_utc", found, "no hour in two files")])


def _shown(moment_s: int) -> str:
    return f"{from_epoch_s(moment_s):%Y-%m-%d %H:%M}"
