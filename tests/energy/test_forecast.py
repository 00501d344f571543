"""Forecasts: nothing of later hours reaches them, many at once equal one by one, and they beat simple guesses."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from watteau.domain.errors import InputError
from watteau.domain.fleet import Technology
from watteau.domain.units import HOUR_S, Float64Array, to_epoch_s
from watteau.energy.backtest import BANDS_H, Score, backtest, scores_of
from watteau.energy.forecast import (
    Fitted,
    Forecast,
    Forecaster,
    FromMeasured,
    Known,
    LastValue,
    Method,
    Noisy,
    Perfect,
    SameHourYesterday,
    aligned,
    climatology,
    fit,
    truth,
)
from watteau.energy.supply import WEATHER, CapacityFactors, read_capacity_factors, synthetic_capacity_factors

SOLAR, WIND = Technology.SOLAR, Technology.WIND_ONSHORE


def at(*parts: int) -> int:
    return to_epoch_s(datetime(*parts, tzinfo=UTC))  # type: ignore[misc, arg-type]


def series(first_s: int, values: Float64Array) -> CapacityFactors:
    """The same factors for every technology."""
    return CapacityFactors("made", True, first_s, len(values), dict.fromkeys(WEATHER, values))


def poisoned(factors: CapacityFactors, from_row: int) -> CapacityFactors:
    """The same until a row, and nonsense from it on."""
    nonsense = np.random.default_rng(7).random(factors.hours - from_row)
    values = {each: np.concatenate([old[:from_row], nonsense]) for each, old in factors.values.items()}
    return CapacityFactors(factors.source, factors.synthetic, factors.first_hour_s, factors.hours, values)


def same(a: dict[Technology, Float64Array], b: dict[Technology, Float64Array]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[each], b[each]) for each in a)


@pytest.fixture(scope="module")
def train() -> list[CapacityFactors]:
    return [
        synthetic_capacity_factors(at(2013, 1, 1), 8_760, 1),
        synthetic_capacity_factors(at(2014, 1, 1), 8_760, 2),
    ]


@pytest.fixture(scope="module")
def measured() -> CapacityFactors:
    return synthetic_capacity_factors(at(2016, 5, 1), 1_000, 3)


@pytest.fixture(scope="module")
def model(train: list[CapacityFactors]) -> Fitted:
    return fit(train)


@pytest.fixture(scope="module")
def methods(model: Fitted, train: list[CapacityFactors]) -> list[Method]:
    return [model, LastValue(), SameHourYesterday(), climatology(train)]


# --- nothing of later hours (F1) -------------------------------------------------------------------------------------


def test_a_poisoned_future_changes_no_forecast(methods: list[Method], measured: CapacityFactors) -> None:
    spoilt_row = 600
    issued_at_s = measured.first_hour_s + HOUR_S * np.arange(24, spoilt_row + 1)
    spoilt = poisoned(measured, spoilt_row)
    for method in methods:
        clean = FromMeasured(method, measured).forecasts(issued_at_s, 72)
        blind = FromMeasured(method, spoilt).forecasts(issued_at_s, 72)
        assert same(clean.values, blind.values), method.name
        assert same(clean.error_sd, blind.error_sd), method.name


@pytest.mark.parametrize("kind", ["fitted", "last value", "yesterday"])
def test_the_poison_is_seen_one_hour_later(kind: str, methods: list[Method], measured: CapacityFactors) -> None:
    """Otherwise the test above would prove nothing."""
    method = next(each for each in methods if each.name == kind)
    issued_at_s = measured.first_hour_s + HOUR_S * 613
    clean = FromMeasured(method, measured).forecast(issued_at_s, 72)
    for technology in WEATHER:
        blind = FromMeasured(method, poisoned(measured, 612)).forecast(issued_at_s, 72)
        assert not np.array_equal(clean.values[technology], blind.values[technology])


def test_what_is_known_cannot_say_anything_of_the_hour_that_begins_at_the_issue() -> None:
    known = Known(series(at(2016, 1, 1), np.arange(10) / 10), np.array([at(2016, 1, 1, 3)]))
    assert known.ago(WIND, np.array([1, 2, 3])).tolist() == [[0.2, 0.1, 0.0]]
    assert np.isnan(known.ago(WIND, np.array([4])))
    for hours_ago in (0, -1):
        with pytest.raises(ValueError, match="not known"):
            known.ago(WIND, np.array([1, hours_ago]))
    assert [name for name in vars(known) if not name.startswith("_")] == ["issued_at_s"]


def test_the_last_issue_is_the_end_of_what_was_measured(model: Fitted, measured: CapacityFactors) -> None:
    end_s = measured.first_hour_s + HOUR_S * measured.hours
    assert FromMeasured(model, measured).forecast(end_s, 72).issued_at_s == end_s
    for wrong in (end_s + HOUR_S, measured.first_hour_s):
        with pytest.raises(ValueError, match="no forecast at"):
            FromMeasured(model, measured).forecast(wrong, 72)


# --- one by one, and many at once ------------------------------------------------------------------------------------


def test_one_by_one_equals_many_at_once_to_the_last_bit(methods: list[Method], measured: CapacityFactors) -> None:
    forecasters: list[Forecaster] = [FromMeasured(method, measured) for method in methods]
    forecasters += [Perfect(measured), Noisy(measured, seed=5)]
    issued_at_s = measured.first_hour_s + HOUR_S * np.array([400, 25, 24, 777])
    for forecaster in forecasters:
        many = forecaster.forecasts(issued_at_s, 72)
        for issue, moment in enumerate(issued_at_s):
            one = forecaster.forecast(int(moment), 72)
            assert (one.source, one.issued_at_s) == (forecaster.name, int(moment))
            assert same(one.values, many[issue].values), forecaster.name
            assert same(one.error_sd, many[issue].error_sd), forecaster.name
            shorter = forecaster.forecast(int(moment), 5)
            assert all(np.array_equal(shorter.values[each], one.values[each][:5]) for each in WEATHER)


@pytest.mark.parametrize("technology", WEATHER)
def test_the_arrays_equal_a_slow_plain_reading_of_the_method(
    technology: Technology, model: Fitted, measured: CapacityFactors
) -> None:
    for row in (30, 200, 555, 900):  # the first has less than a week behind it
        issued_at_s = measured.first_hour_s + HOUR_S * row
        got = FromMeasured(model, measured).forecast(issued_at_s, 72)
        expected = [plain(model, measured, technology, row, lead) for lead in range(72)]
        assert got.values[technology] == pytest.approx([value for value, _ in expected], abs=1.1e-6)
        assert got.error_sd[technology] == pytest.approx([sd for _, sd in expected], abs=1.1e-6)


def plain(model: Fitted, measured: CapacityFactors, technology: Technology, row: int, lead: int) -> tuple[float, float]:
    """(value, sd) of one lead, by the calendar of the standard library and sums written out."""
    fitted = model.regressions[technology]

    def usual(at_row: int) -> tuple[float, float]:
        moment = datetime.fromtimestamp(measured.first_hour_s + HOUR_S * at_row, UTC)
        begin, end = datetime(moment.year, 1, 1, tzinfo=UTC), datetime(moment.year + 1, 1, 1, tzinfo=UTC)
        day = int((moment - begin) / (end - begin) * 366)
        return float(fitted.season.mean[day, moment.hour]), float(fitted.season.spread[day, moment.hour])

    def away(hours_ago: int) -> tuple[float, float]:
        """(how far from usual, spread) of one past hour."""
        mean, spread = usual(row - hours_ago)
        if row - hours_ago < 0 or spread == 0:
            return 0.0, 0.0
        return (float(measured.values[technology][row - hours_ago]) - mean) / spread, spread

    features = [1.0, *(away(lag)[0] for lag in [*range(1, 25), 48])]
    for first, last in ((1, 24), (25, 48), (1, 168)):
        hours = [away(lag) for lag in range(first, last + 1)]
        weight = sum(spread for _, spread in hours)
        features.append(sum(z * spread for z, spread in hours) / weight if weight else 0.0)
    hour = (measured.first_hour_s // HOUR_S + row) % 24
    expected = sum(f * float(w) for f, w in zip(features, fitted.weights[hour, :, lead], strict=True))
    mean, spread = usual(row + lead)
    return min(max(mean + spread * expected, 0.0), 1.0), spread * float(fitted.error_sd[hour, lead])


def test_the_same_years_give_the_same_model(train: list[CapacityFactors]) -> None:
    first, second = fit(train[:1], 6), fit(train[:1], 6)
    for technology in WEATHER:
        a, b = first.regressions[technology], second.regressions[technology]
        assert np.array_equal(a.weights, b.weights)
        assert np.array_equal(a.error_sd, b.error_sd)


# --- what a forecast says --------------------------------------------------------------------------------------------


def test_factors_and_errors_are_in_range(methods: list[Method], measured: CapacityFactors) -> None:
    issued_at_s = measured.first_hour_s + HOUR_S * np.arange(24, 900, 7)
    for method in methods:
        found = FromMeasured(method, measured).forecasts(issued_at_s, 100)
        for technology, values in found.values.items():
            assert values.shape == (len(issued_at_s), 100)
            assert values.min() >= 0
            assert values.max() <= 1
            assert technology not in found.error_sd or found.error_sd[technology].min() >= 0


def test_a_series_that_never_changes_is_forecast_exactly() -> None:
    steady = fit([series(at(2013, 1, 1), np.full(8_760, 0.4))], 6)
    found = FromMeasured(steady, series(at(2016, 1, 1), np.full(400, 0.4))).forecast(at(2016, 1, 9), 12)
    assert found.values[WIND] == pytest.approx(np.full(12, 0.4))
    assert found.error_sd[WIND][:6] == pytest.approx(np.zeros(6), abs=1e-6)


def test_of_ar1_weather_no_more_is_missed_than_nobody_can_know() -> None:
    """The best forecast of x[t] = m x[t-1] + e misses by sd sqrt(1 - m^2k) at k hours."""
    memory, sd = 0.95, 0.1
    noise = np.random.default_rng(11).standard_normal(3 * 8_760)
    x = np.zeros(len(noise))
    for t in range(1, len(x)):
        x[t] = memory * x[t - 1] + np.sqrt(1 - memory**2) * noise[t]
    years = np.clip(0.5 + sd * x, 0, 1).reshape(3, 8_760)
    model = fit([series(at(2013, 1, 1), years[0]), series(at(2014, 1, 1), years[1])], 24)
    unseen = series(at(2015, 1, 1), years[2])
    issued_at_s = unseen.first_hour_s + HOUR_S * np.arange(168, 8_700)
    found = FromMeasured(model, unseen).forecasts(issued_at_s, 24)
    rmse = np.sqrt(((found.values[WIND] - truth(unseen, WIND, issued_at_s, 24)) ** 2).mean(axis=0))
    best = sd * np.sqrt(1 - memory ** (2 * np.arange(1, 25)))
    assert rmse == pytest.approx(best, rel=0.08)
    assert np.sqrt((found.error_sd[WIND] ** 2).mean(axis=0)) == pytest.approx(best, rel=0.10)


def test_beyond_the_fitted_leads_it_says_what_is_usual(model: Fitted, measured: CapacityFactors) -> None:
    found = FromMeasured(model, measured).forecast(measured.first_hour_s + HOUR_S * 300, 80)
    after_s = found.issued_at_s + HOUR_S * np.arange(72, 80)
    mean, spread = model.regressions[WIND].season.usual(after_s)
    assert found.values[WIND][72:] == pytest.approx(mean, abs=1e-6)
    assert found.error_sd[WIND][72:] == pytest.approx(spread, abs=1e-6)


def test_persistence_repeats_the_last_hour_or_the_last_day() -> None:
    known = series(at(2016, 1, 1), np.arange(48) / 100)
    issued_at_s = at(2016, 1, 2, 6)
    last = FromMeasured(LastValue(), known).forecast(issued_at_s, 30).values[SOLAR]
    assert last.tolist() == [0.29] * 30
    yesterday = FromMeasured(SameHourYesterday(), known).forecast(issued_at_s, 30).values[SOLAR]
    assert yesterday.tolist() == [*(k / 100 for k in range(6, 30)), *(k / 100 for k in range(6, 12))]
    with pytest.raises(ValueError, match="after a day"):
        FromMeasured(SameHourYesterday(), known).forecast(at(2016, 1, 1, 23), 30)


def test_climatology_is_the_mean_of_month_and_hour() -> None:
    hour = np.arange(8_760)
    usual = climatology([series(at(2013, 1, 1), (hour % 24) / 100), series(at(2014, 1, 1), (hour % 24) / 50)])
    found = FromMeasured(usual, series(at(2016, 1, 1), np.zeros(5))).forecast(at(2016, 1, 1, 2), 3)
    assert found.values[WIND] == pytest.approx([0.03, 0.045, 0.06])
    assert found.error_sd[WIND] == pytest.approx([0.01, 0.015, 0.02])


def test_perfect_says_what_will_be_measured(measured: CapacityFactors) -> None:
    found = Perfect(measured).forecast(measured.first_hour_s + 100 * HOUR_S, 72)
    assert all(np.array_equal(found.values[each], measured.values[each][100:172]) for each in WEATHER)
    assert not any(sd.any() for sd in found.error_sd.values())


def test_noise_is_relative_and_remembers() -> None:
    level = series(at(2016, 1, 1), np.full(3_000, 0.25))
    issued_at_s = level.first_hour_s + HOUR_S * np.arange(2_900)
    error = Noisy(level, seed=1).forecasts(issued_at_s, 72).values[WIND] / 0.25 - 1
    assert error.mean() == pytest.approx(0, abs=0.01)
    assert error.std(axis=0) == pytest.approx(np.full(72, 0.30), abs=0.02)
    assert np.corrcoef(error[:, 10], error[:, 34])[0, 1] == pytest.approx(np.exp(-1), abs=0.05)
    assert np.corrcoef(error[:-1, 10], error[1:, 10])[0, 1] == pytest.approx(0, abs=0.06)
    other = Noisy(level, seed=2).forecast(int(issued_at_s[0]), 72)
    assert not np.array_equal(other.values[WIND], Noisy(level, seed=1).forecast(int(issued_at_s[0]), 72).values[WIND])


def test_a_simulated_year_gets_the_weather_of_the_same_hours_of_the_year() -> None:
    weather = series(at(2016, 1, 1), np.arange(8_784) / 10_000)
    found = aligned(weather, at(2026, 3, 1), 48)
    assert (found.first_hour_s, found.hours) == (at(2026, 3, 1), 48)
    assert found.values[WIND][0] == weather.values[WIND][60 * 24]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_forecast_is_refused(model: Fitted, measured: CapacityFactors) -> None:
    moment = measured.first_hour_s + 200 * HOUR_S
    for forecaster in (FromMeasured(model, measured), Perfect(measured), Noisy(measured, seed=0)):
        with pytest.raises(ValueError, match="full hour"):
            forecaster.forecast(moment + 60, 72)
        with pytest.raises(ValueError, match="at least 1 hour"):
            forecaster.forecast(moment, 0)
    with pytest.raises(ValueError, match="was measured from 2016-05-01 00:00 to"):
        Perfect(measured).forecast(measured.first_hour_s + (measured.hours - 71) * HOUR_S, 72)
    with pytest.raises(ValueError, match="a seed"):
        Noisy(measured, seed=-1)
    with pytest.raises(ValueError, match="a spread"):
        Noisy(measured, seed=1, relative_sd=float("nan"))


@pytest.mark.parametrize(
    ("issued_at_s", "values", "sd", "said"),
    [
        (60, [0.5, 0.5], [0.1, 0.1], "full hour"),
        (0, [0.5, 0.5], [0.1], "same hours"),
        (0, [0.5, 1.01], [0.1, 0.1], "between 0 and 1"),
        (0, [0.5, float("nan")], [0.1, 0.1], "between 0 and 1"),
        (0, [0.5, 0.5], [0.1, -0.1], "at least 0"),
    ],
)
def test_a_wrong_forecast_cannot_be_built(issued_at_s: int, values: list[float], sd: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Forecast("made", issued_at_s, {WIND: np.array(values)}, {WIND: np.array(sd)})


@pytest.mark.parametrize("make", [fit, climatology])
def test_training_needs_whole_years_and_every_hour_once(
    make: object, train: list[CapacityFactors], measured: CapacityFactors
) -> None:
    assert callable(make)
    with pytest.raises(InputError, match="1,000 hours; expected a year"):
        make([train[0], measured])
    with pytest.raises(
        InputError, match=r"hours that .* has, too, from 2013-01-01 00:00; expected no hour in two files"
    ):
        make([train[0], train[1], train[0]])
    with pytest.raises(ValueError, match="at least one"):
        make([])


def test_a_back_test_refuses_hours_that_were_trained_on(train: list[CapacityFactors]) -> None:
    with pytest.raises(InputError, match="seed 2 has, too, from 2014-12-31 00:00"):
        backtest(synthetic_capacity_factors(at(2014, 12, 31), 800, 1), train)
    with pytest.raises(InputError, match="239 hours; expected at least 240"):
        backtest(synthetic_capacity_factors(at(2016, 1, 1), 239, 1), train)


# --- measured weather ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def french(watteau_data: Path) -> dict[int, CapacityFactors]:
    return {
        year: read_capacity_factors(watteau_data / f"fr_capacity_factors_{year}.csv", clock="Europe/Paris")
        for year in (2013, 2014, 2016)
    }


@pytest.fixture(scope="module")
def of_france(french: dict[int, CapacityFactors]) -> Fitted:
    return fit([french[2013], french[2014]])


@pytest.fixture(scope="module")
def of_2016(french: dict[int, CapacityFactors], of_france: Fitted) -> list[Score]:
    """As a back-test scores them."""
    usual, unseen = climatology([french[2013], french[2014]]), french[2016]
    issued_at_s = unseen.first_hour_s + HOUR_S * np.arange(168, unseen.hours - 71)
    methods: list[Method] = [of_france, LastValue(), SameHourYesterday(), usual]
    return [score for each in methods for score in scores_of(FromMeasured(each, unseen), unseen, issued_at_s, BANDS_H)]


@pytest.mark.data
@pytest.mark.parametrize("technology", WEATHER)
def test_fitted_beats_persistence_and_climatology_on_french_2016(technology: Technology, of_2016: list[Score]) -> None:
    scores = {(each.forecaster, each.first_h): each for each in of_2016 if each.technology is technology}
    for first, _ in BANDS_H:
        fitted = scores["fitted", first]
        for other in ("last value", "yesterday", "climatology"):
            assert fitted.mae < scores[other, first].mae
            assert fitted.rmse < scores[other, first].rmse


@pytest.mark.data
def test_stated_errors_cover_what_they_say(of_2016: list[Score]) -> None:
    """Errors are more peaked than normal ones: a little more than 80 % within 1.28 sd, and about 95 % within 1.96."""
    fitted = [each.within for each in of_2016 if each.forecaster == "fitted"]
    assert len(fitted) == len(WEATHER) * len(BANDS_H)
    for within_80, within_95 in fitted:
        assert 0.78 < within_80 < 0.88
        assert 0.92 < within_95 < 0.98


@pytest.mark.data
def test_the_stated_error_of_each_lead_is_near_the_one_measured(
    french: dict[int, CapacityFactors], of_france: Fitted
) -> None:
    unseen = french[2016]
    issued_at_s = unseen.first_hour_s + HOUR_S * np.arange(168, unseen.hours - 71)
    found = FromMeasured(of_france, unseen).forecasts(issued_at_s, 72)
    for technology in WEATHER:
        rmse = np.sqrt(((found.values[technology] - truth(unseen, technology, issued_at_s, 72)) ** 2).mean(axis=0))
        stated = np.sqrt((found.error_sd[technology] ** 2).mean(axis=0))
        assert ((stated / rmse > 0.90) & (stated / rmse < 1.15)).all(), technology
        assert rmse[0] < rmse[5] < rmse[23] < rmse[71]


def test_scores_are_those_of_the_definition() -> None:
    known = series(at(2016, 1, 1), np.array([0.5, 0.1, 0.2, 0.6, 0.0]))
    issued_at_s = known.first_hour_s + HOUR_S * np.array([1, 2])
    score = scores_of(FromMeasured(LastValue(), known), known, issued_at_s, [(1, 1), (2, 3)])[1]
    errors = np.array([0.5 - 0.2, 0.5 - 0.6, 0.1 - 0.6, 0.1 - 0.0])
    assert (score.first_h, score.last_h, score.within) == (2, 3, ())
    assert score.mae == pytest.approx(np.abs(errors).mean())
    assert score.rmse == pytest.approx(np.sqrt((errors**2).mean()))
