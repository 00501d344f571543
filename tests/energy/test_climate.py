"""Outdoor temperature follows the normals; PUE follows the temperature."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from tests.energy.test_books import pool, site
from watteau.domain.fleet import Pue
from watteau.domain.units import to_epoch_s
from watteau.energy.climate import NORMALS_C, outdoor_temperature_c, pue_by_hour

YEAR_S = to_epoch_s(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("place", NORMALS_C)
def test_the_year_has_the_normal_mean_at_a_known_station(place: tuple[float, float]) -> None:
    years = [outdoor_temperature_c(*place, YEAR_S, 8_760, seed).mean() for seed in range(8)]
    assert np.mean(years) == pytest.approx(np.mean(NORMALS_C[place]), abs=0.5)


def test_summers_are_warm_in_both_hemispheres_and_afternoons_everywhere() -> None:
    for latitude, longitude in ((48.8, 2.3), (-33.9, 151.2), (60.2, 24.9), (-1.3, 36.8)):
        year = outdoor_temperature_c(latitude, longitude, YEAR_S, 8_760, 3)
        january, july = year[:744].mean(), year[181 * 24 : 212 * 24].mean()
        assert (july > january) == (latitude > 0)
        by_hour = year.reshape(365, 24).mean(axis=0)
        assert abs((by_hour.argmax() + longitude / 15 - 15 + 12) % 24 - 12) <= 1.5


def test_the_same_seed_and_start_give_the_same_hours_however_long() -> None:
    long, short = (outdoor_temperature_c(48.8, 2.3, YEAR_S, hours, 1) for hours in (300, 50))
    assert np.array_equal(long[:50], short)


def test_no_such_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no such place"):
        outdoor_temperature_c(91.0, 0.0, YEAR_S, 1, 0)


def test_a_constant_pue_ignores_the_temperature_and_a_curve_follows_it() -> None:
    here = site("s", pool("p"))
    assert pue_by_hour(here, YEAR_S, 24, 0).tolist() == [1.2] * 24
    curve = replace(here, pue=Pue((0.0, 30.0), (1.1, 1.4)))
    pue = pue_by_hour(curve, YEAR_S, 8_760, 0)
    assert pue.min() == 1.1
    assert pue[181 * 24 : 212 * 24].mean() > pue[:744].mean()
