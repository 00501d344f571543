"""Supply: the reader refuses what it cannot trust, alignment follows the calendar, the generator resembles France."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watteau.domain.errors import InputError
from watteau.domain.fleet import Contract, Technology
from watteau.domain.units import HOUR_S, ContractId, Float64Array, to_epoch_s
from watteau.energy import supply
from watteau.energy.supply import (
    WEATHER,
    CapacityFactors,
    read_capacity_factors,
    supply_wh,
    synthetic_capacity_factors,
)

HEADER = "hour_utc,solar,wind_onshore,wind_offshore,hydro_run_of_river"


def at(*parts: int) -> int:
    return to_epoch_s(datetime(*parts, tzinfo=UTC))  # type: ignore[misc, arg-type]


def contract(technology: Technology, mw: float, start: datetime, end: datetime) -> Contract:
    return Contract(ContractId("c"), technology, mw, 60.0, start, end)


def numbered(first_s: int, hours: int) -> CapacityFactors:
    """Factors that name their own row: row / 10,000."""
    series = np.arange(hours) / 10_000
    return CapacityFactors("numbered", False, first_s, hours, dict.fromkeys(WEATHER, series))


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "supply.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_good_file_is_read_with_columns_in_any_order(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "\ufeffsolar,hour_utc,hydro_run_of_river,wind_offshore,wind_onshore",
        "0.1,2025-03-30 01:00:00,0.4,0.3,0.2",
        "0.5,2025-03-30T02:00:00Z,0.8,0.7,0.6",
        "",
    )
    factors = read_capacity_factors(path)
    assert (factors.first_hour_s, factors.hours, factors.synthetic) == (at(2025, 3, 30, 1), 2, False)
    assert [factors.values[t].tolist() for t in WEATHER] == [[0.1, 0.5], [0.2, 0.6], [0.3, 0.7], [0.4, 0.8]]


ROW = "2025-01-01 00:00:00,0,0,0,0"
BAD_FILES: list[tuple[bytes, str]] = [
    (b"", "empty file"),
    (b"\n\n", "empty file"),
    (HEADER.encode() + b"\n", "no rows"),
    (b"\x7fELF\x00\x01\x02", "binary"),
    (b"\xff\xfe\xfa\n", "not UTF-8"),
    (b"hour_utc,solar\n", "wind_onshore: no such column"),
    (HEADER.encode() + b",nuclear\n", "'nuclear': unknown column"),
    (HEADER.encode() + b",solar\n", "column given twice"),
    (f"{HEADER}\n{ROW},0\n".encode(), "line 2: 6 cells"),
    (f"{HEADER}\n{ROW[:-1]}nan\n".encode(), "line 2, hydro_run_of_river: 'nan'"),
    (f"{HEADER}\n{ROW[:-1]}inf\n".encode(), "line 2, hydro_run_of_river: 'inf'"),
    (f"{HEADER}\n{ROW[:-1]}-0.1\n".encode(), "'-0.1'"),
    (f"{HEADER}\n{ROW[:-1]}1.01\n".encode(), "'1.01'"),
    (f"{HEADER}\n{ROW[:-1]}\n".encode(), "''"),
    (f"{HEADER}\n{ROW[:-1]}<b>\n".encode(), "'<b>'"),
    (f"{HEADER}\n2025-13-01,0,0,0,0\n".encode(), "2025-13-01"),
    (f"{HEADER}\n2025-01-01 00:30:00,0,0,0,0\n".encode(), "a full hour"),
    (f"{HEADER}\n2025-01-01T00:00:00+01:00,0,0,0,0\n".encode(), "a UTC hour"),
    (f"{HEADER}\n{ROW}\n{ROW}\n".encode(), "line 3, hour_utc: 2025-01-01 00:00 twice"),
    (f"{HEADER}\n{ROW}\n2025-01-01 03:00:00,0,0,0,0\n".encode(), "2 hours missing before"),
    (f"{HEADER}\n{ROW}\n2024-01-01 03:00:00,0,0,0,0\n".encode(), "after a later hour"),
    (f"{HEADER}\n{ROW}\n{'9' * 5_000}\n".encode(), "line 3: a line over 4,096 bytes"),
    (f"{HEADER}\n{ROW}\n\xe9\n".encode("latin-1"), "line 3: not UTF-8"),
    (f'{HEADER}\n{ROW}\n"open,0,0,0,0\n'.encode(), "line 3"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
def test_a_bad_file_is_refused_with_its_place_and_never_a_traceback(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_capacity_factors(path)
    assert message in str(caught.value)


def test_a_file_of_one_endless_line_is_refused_after_its_first_mebibyte(tmp_path: Path) -> None:
    path = tmp_path / "line.csv"
    with path.open("wb") as file:
        file.write(b"x" * (1 << 20))
        file.truncate(1 << 30)  # sparse: takes no disk
    with pytest.raises(InputError, match="no line end in the first MiB"):
        read_capacity_factors(path)


def test_missing_files_and_folders_are_input_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(InputError):
            read_capacity_factors(path)


def test_all_faults_are_collected_up_to_a_cap(tmp_path: Path) -> None:
    two = write(tmp_path, HEADER, "2025-01-01 00:00:00,2,0,0,0", "2025-01-01 01:00:00,0,0,-1,0")
    with pytest.raises(InputError) as caught:
        read_capacity_factors(two)
    assert [fault.line for fault in caught.value.faults] == [2, 3]
    hours = [datetime(2025, 1, 1) + timedelta(hours=k) for k in range(500)]
    many = write(tmp_path, HEADER, *(f"{hour},9,9,9,9" for hour in hours))
    with pytest.raises(InputError, match="reading stopped") as capped:
        read_capacity_factors(many)
    assert len(capped.value.faults) <= supply.MAX_FAULTS + 4


def test_a_contract_counts_only_inside_its_dates_and_for_parts_of_hours() -> None:
    start = at(2025, 1, 1)
    factors = CapacityFactors("half", False, start, 4, dict.fromkeys(WEATHER, np.full(4, 0.5)))
    part = contract(
        Technology.SOLAR, 1.0, datetime(2025, 1, 1, 0, 45, tzinfo=UTC), datetime(2025, 1, 1, 2, 0, 1, tzinfo=UTC)
    )
    series = supply_wh([part], factors, start, 4)
    assert series.renewable_wh.tolist() == [125_000, 500_000, 500_000 // 3_600, 0]
    assert series.renewable_wh.dtype == np.int64


def test_baseload_runs_every_hour_and_is_not_renewable_unless_said() -> None:
    start, end = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    used = [contract(Technology.BASELOAD, 2.0, start, end), contract(Technology.SOLAR, 1.0, start, end)]
    factors = numbered(at(2025, 1, 1), 3)
    series = supply_wh(used, factors, at(2025, 1, 1), 3)
    assert series.renewable_wh.tolist() == [0, 100, 200]
    everything = supply_wh(used, factors, at(2025, 1, 1), 3, renewable=set(Technology))
    assert everything.renewable_wh.tolist() == [2_000_000, 2_000_100, 2_000_200]


def rows_for(factors: CapacityFactors, start_s: int, hours: int) -> list[int]:
    return [int(row) for row in supply.aligned_rows(factors, start_s, hours)[0]]


def test_a_common_year_file_gives_leap_day_the_hours_of_february_28() -> None:
    file = numbered(at(2025, 1, 1), 8_760)
    rows = rows_for(file, at(2028, 1, 1), 8_784)
    feb_28 = 58 * 24
    assert rows[: 59 * 24] == list(range(59 * 24))
    assert rows[59 * 24 : 60 * 24] == list(range(feb_28, feb_28 + 24))
    assert rows[60 * 24 :] == list(range(59 * 24, 8_760))


def test_a_leap_file_read_for_a_common_year_skips_february_29() -> None:
    file = numbered(at(2016, 1, 1), 8_784)
    assert rows_for(file, at(2025, 1, 1), 8_760) == [*range(59 * 24), *range(60 * 24, 8_784)]
    assert rows_for(file, at(2028, 1, 1), 8_784) == list(range(8_784))


def test_a_longer_horizon_repeats_the_year_by_the_calendar() -> None:
    file = numbered(at(2016, 1, 1), 8_784)
    rows = rows_for(file, at(2016, 1, 1), 8_784 + 8_760)
    assert rows == [*range(8_784), *range(59 * 24), *range(60 * 24, 8_784)]


def test_weather_of_another_year_is_marked_and_the_same_year_is_not() -> None:
    end = datetime(2100, 1, 1, tzinfo=UTC)
    used = [contract(Technology.SOLAR, 1.0, datetime(2000, 1, 1, tzinfo=UTC), end)]
    file = numbered(at(2016, 1, 1), 8_784)
    assert supply_wh(used, file, at(2016, 5, 1), 24).aligned_from_year is None
    assert supply_wh(used, file, at(2026, 5, 1), 24).aligned_from_year == 2016


def test_a_file_too_short_to_align_is_refused_with_both_dates() -> None:
    used = [contract(Technology.SOLAR, 1.0, datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))]
    with pytest.raises(InputError, match="48 hours from 2025-01-01 00:00, which say nothing about 2025-01-03 00:00"):
        supply_wh(used, numbered(at(2025, 1, 1), 48), at(2025, 1, 1), 72)


@given(st.floats(1e-6, 1_000_000), st.floats(0, 1), st.integers(0, 2 * HOUR_S), st.integers(1, 2 * HOUR_S))
def test_supply_is_the_exact_product_rounded_down(mw: float, factor: float, begin: int, length: int) -> None:
    origin = datetime(2025, 1, 1, tzinfo=UTC)
    used = contract(Technology.SOLAR, mw, origin + timedelta(seconds=begin), origin + timedelta(seconds=begin + length))
    factors = CapacityFactors("one", False, at(2025, 1, 1), 3, dict.fromkeys(WEATHER, np.full(3, factor)))
    got = supply_wh([used], factors, at(2025, 1, 1), 3).renewable_wh.tolist()
    for hour in range(3):
        inside = max(0, min(begin + length, (hour + 1) * HOUR_S) - max(begin, hour * HOUR_S))
        exact = round(mw * 1e6) * round(factor * 10**6) * inside
        assert got[hour] == exact // (10**6 * HOUR_S)


# --- the generator ---------------------------------------------------------------------------------------------------

YEARS = [synthetic_capacity_factors(at(2013, 1, 1), 8_760, seed).values for seed in range(12)]

#: Yearly means of France 2013-2016 (field notes, section 5 "Resource").
CITED_MEAN = {
    Technology.SOLAR: (0.135, 0.148),
    Technology.WIND_ONSHORE: (0.22, 0.248),
    Technology.WIND_OFFSHORE: (0.385, 0.429),
    Technology.HYDRO_RUN_OF_RIVER: (0.43, 0.56),
}


def figures(series: Float64Array) -> list[float]:
    """Mean, p10, p50, p90, lag-1 autocorrelation."""
    return [series.mean(), *np.quantile(series, [0.1, 0.5, 0.9]), np.corrcoef(series[1:], series[:-1])[0, 1]]


@pytest.mark.parametrize("technology", WEATHER)
def test_the_generator_has_the_cited_yearly_means(technology: Technology) -> None:
    low, high = CITED_MEAN[technology]
    assert low <= np.mean([year[technology].mean() for year in YEARS]) <= high


def test_the_same_seed_and_start_give_the_same_hours_however_long() -> None:
    long, short = (synthetic_capacity_factors(at(2026, 1, 1), hours, 7).values for hours in (500, 100))
    other = synthetic_capacity_factors(at(2026, 1, 1), 100, 8).values
    for technology in WEATHER:
        assert np.array_equal(long[technology][:100], short[technology])
        assert not np.array_equal(other[technology], short[technology])


def test_the_generated_sun_sets_and_follows_utc_not_summer_time() -> None:
    sun = YEARS[0][Technology.SOLAR]
    night = sun.reshape(365, 24)[:, [0, 1, 2, 22, 23]]
    assert night.max() == 0.0
    assert not supply._follows_summer_time(sun, at(2013, 1, 1))


def test_the_filter_kernel_equals_its_plain_python() -> None:
    noise = np.random.Generator(np.random.PCG64(1)).standard_normal(200)
    assert np.allclose(supply.ar1(noise, 0.9), supply.ar1.py_func(noise, 0.9), rtol=1e-12)


@pytest.mark.data
@pytest.mark.parametrize("technology", WEATHER)
def test_the_generator_matches_the_real_french_series(watteau_data: Path, technology: Technology) -> None:
    real = np.mean(
        [
            figures(read_capacity_factors(watteau_data / f"fr_capacity_factors_{year}.csv").values[technology])
            for year in (2013, 2014, 2016)
        ],
        axis=0,
    )
    made = np.mean([figures(year[technology]) for year in YEARS], axis=0)
    assert made[:4] == pytest.approx(real[:4], abs=0.035)
    assert made[4] == pytest.approx(real[4], abs=0.01)


@pytest.mark.data
def test_the_published_french_series_are_in_clock_time_which_is_noticed_and_can_be_corrected(
    watteau_data: Path,
) -> None:
    for year, march, october in ((2013, 31, 27), (2014, 30, 26), (2016, 27, 30)):
        path = watteau_data / f"fr_capacity_factors_{year}.csv"
        as_labelled, moved = read_capacity_factors(path), read_capacity_factors(path, clock="Europe/Paris")
        assert "look like local clock time" in as_labelled.notes[0]
        assert moved.notes == ("hours moved from Europe/Paris clock time to UTC",)
        assert not supply._follows_summer_time(moved.values[Technology.SOLAR], moved.first_hour_s)
        for (month, day), before, after in (((3, march), 1, 2), ((10, october), 2, 1)):
            change = (at(year, month, day) - moved.first_hour_s) // HOUR_S
            a, b = as_labelled.values[Technology.SOLAR], moved.values[Technology.SOLAR]
            assert np.array_equal(b[change - 24 : change], a[change - 24 + before : change + before])
            assert np.array_equal(b[change + 2 : change + 24], a[change + 2 + after : change + 24 + after])
