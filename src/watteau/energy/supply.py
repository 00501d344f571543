"""Supply by hour: capacity factors read from a file or generated, and contracts times factors in integer Wh."""

import csv
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import BinaryIO
from zoneinfo import ZoneInfo

import numpy as np
from numba import njit

from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import Contract, Technology
from watteau.domain.units import DAY_S, HOUR_S, Float64Array, Int64Array, from_epoch_s, to_epoch_s

#: Technologies that weather drives: the columns of a supply file.
WEATHER: tuple[Technology, ...] = tuple(t for t in Technology if t is not Technology.BASELOAD)

#: What counts as renewable unless said otherwise. Baseload does not: in France it may be nuclear (field notes, 0.4).
RENEWABLE: frozenset[Technology] = frozenset(WEATHER)

MAX_FAULTS = 20
MAX_ROWS = 100 * 366 * 24
MAX_LINE_BYTES = 4_096
FIRST_LOOK_BYTES = 1 << 20
_PPM = 1_000_000
_LEAP_YEAR_HOURS = 366 * 24
_FEB_29_HOUR = (31 + 28) * 24


@dataclass(frozen=True, slots=True)
class CapacityFactors:
    """Output of each technology as a share of its capacity, by hour from `first_hour_s` (UTC, start of the hour)."""

    source: str
    synthetic: bool
    first_hour_s: int
    hours: int
    values: dict[Technology, Float64Array]  # [hour], 0..1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.first_hour_s % HOUR_S:
            raise ValueError("capacity factors begin on a full hour")
        for technology, series in self.values.items():
            if len(series) != self.hours:
                raise ValueError(f"{technology}: {len(series)} values for {self.hours} hours")
            if not bool(np.all((series >= 0.0) & (series <= 1.0))):
                raise ValueError(f"{technology}: capacity factors lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class SupplySeries:
    """What the contracts deliver in each hour, in Wh rounded down per contract and hour (as EnergyTag issues)."""

    source: str
    synthetic: bool
    aligned_from_year: int | None  # the year of the weather when another year than the simulated one; else None
    first_hour_s: int
    hours: int
    renewable_wh: Int64Array  # [hour], contracts of the technologies that count as renewable
    notes: tuple[str, ...] = ()


def supply_wh(
    contracts: Iterable[Contract],
    factors: CapacityFactors,
    start_hour_s: int,
    hours: int,
    renewable: Collection[Technology] = RENEWABLE,
) -> SupplySeries:
    """Contracts times capacity factors over [start, start + hours), exact in integers.

    A contract counts only inside [start, end), also for part of an hour. Hours that the factors do not cover take
    the same hour of the year: Feb 29 takes Feb 28 where the factors have none, and Feb 29 of the factors is skipped in
    a common year. Raises InputError when the factors cover neither the hours nor a whole year.
    """
    if start_hour_s % HOUR_S or hours < 0:
        raise ValueError("a supply series begins on a full hour and has no negative length")
    used = [contract for contract in contracts if contract.technology in renewable]
    renewable_wh: Int64Array = np.zeros(hours, dtype=np.int64)
    aligned = False
    if any(contract.technology is not Technology.BASELOAD for contract in used):
        rows, aligned = aligned_rows(factors, start_hour_s, hours)
    else:
        rows = np.zeros(hours, dtype=np.int64)
    for contract in used:
        if contract.technology is Technology.BASELOAD:
            factor_ppm = np.full(hours, _PPM, dtype=np.int64)
        else:
            factor_ppm = np.rint(factors.values[contract.technology][rows] * _PPM).astype(np.int64)
        renewable_wh += _contract_wh(contract, factor_ppm, start_hour_s)
    return SupplySeries(
        source=factors.source,
        synthetic=factors.synthetic,
        aligned_from_year=from_epoch_s(factors.first_hour_s).year if aligned else None,
        first_hour_s=start_hour_s,
        hours=hours,
        renewable_wh=renewable_wh,
        notes=factors.notes,
    )


def _contract_wh(contract: Contract, factor_ppm: Int64Array, start_hour_s: int) -> Int64Array:
    """[hour] Wh of one contract, rounded down."""
    capacity_w = round(contract.capacity_mw * 1_000_000)
    if not 0 <= capacity_w <= 1_000_000_000_000:
        raise ValueError(f"contract {contract.id}: capacity must lie between 0 and 1,000,000 MW")
    hour_s = start_hour_s + HOUR_S * np.arange(len(factor_ppm), dtype=np.int64)
    seconds = overlap_s(hour_s, to_epoch_s(contract.start), to_epoch_s(contract.end))
    energy = np.where(seconds == HOUR_S, capacity_w * factor_ppm // _PPM, 0)
    for hour in np.flatnonzero((seconds > 0) & (seconds < HOUR_S)):  # at most the first and the last hour
        energy[hour] = capacity_w * int(factor_ppm[hour]) * int(seconds[hour]) // (_PPM * HOUR_S)
    return energy


def overlap_s(hour_s: Int64Array, start_s: int, end_s: int) -> Int64Array:
    """[hour] seconds of each hour (given by its start) that lie inside [start_s, end_s)."""
    inside: Int64Array = np.minimum(hour_s + HOUR_S, end_s) - np.maximum(hour_s, start_s)
    return np.clip(inside, 0, HOUR_S)


def aligned_rows(factors: CapacityFactors, start_hour_s: int, hours: int) -> tuple[Int64Array, bool]:
    """[hour] row of the factors for each hour, and whether any hour was taken from another year."""
    hour_s = start_hour_s + HOUR_S * np.arange(hours, dtype=np.int64)
    rows = (hour_s - factors.first_hour_s) // HOUR_S
    outside = (rows < 0) | (rows >= factors.hours)
    if not outside.any():
        return rows, False
    by_hour_of_year = np.full(_LEAP_YEAR_HOURS, -1, dtype=np.int64)
    own_keys = _hour_of_leap_year(factors.first_hour_s + HOUR_S * np.arange(factors.hours, dtype=np.int64))
    by_hour_of_year[own_keys[::-1]] = np.arange(factors.hours, dtype=np.int64)[::-1]  # the earliest year wins
    feb_29 = slice(_FEB_29_HOUR, _FEB_29_HOUR + 24)
    feb_28 = by_hour_of_year[_FEB_29_HOUR - 24 : _FEB_29_HOUR]
    by_hour_of_year[feb_29] = np.where(by_hour_of_year[feb_29] < 0, feb_28, by_hour_of_year[feb_29])
    rows[outside] = by_hour_of_year[_hour_of_leap_year(hour_s[outside])]
    if (rows < 0).any():
        missing = from_epoch_s(int(hour_s[np.flatnonzero(rows < 0)[0]]))
        raise InputError(
            factors.source,
            [
                Fault(
                    0,
                    "hour_utc",
                    f"{factors.hours} hours from {from_epoch_s(factors.first_hour_s):%Y-%m-%d %H:%M}, which say "
                    f"nothing about {missing:%Y-%m-%d %H:%M}",
                    "the simulated hours, or a whole year that can be aligned by hour of year",
                )
            ],
        )
    return rows, True


def _hour_of_leap_year(hour_s: Int64Array) -> Int64Array:
    """[hour] position in a year of 366 days; common years leave out Feb 29."""
    moment = hour_s.astype("datetime64[s]")
    year = moment.astype("datetime64[Y]")
    hour = (moment - year.astype("datetime64[s]")).astype(np.int64) // HOUR_S
    year_hours = ((year + 1).astype("datetime64[s]") - year.astype("datetime64[s]")).astype(np.int64) // HOUR_S
    common = (year_hours == 365 * 24) & (hour >= _FEB_29_HOUR)
    result: Int64Array = hour + 24 * common
    return result


# --- reading a file --------------------------------------------------------------------------------------------------


def read_capacity_factors(path: Path, clock: str = "UTC") -> CapacityFactors:
    """Read `hour_utc,solar,wind_onshore,wind_offshore,hydro_run_of_river`; raise InputError with every fault (capped).

    `clock` names the time zone that the file's hours are truly in. Published series are sometimes local clock time
    under a UTC label (the RTE-derived files of 2013-2016 are): a note says so when the sun jumps by an hour between
    winter and summer, and `clock="Europe/Paris"` moves the rows to UTC.
    """
    source = str(path)
    faults: list[Fault] = []
    hour_s: list[int] = []
    rows: list[list[float]] = []
    try:
        with path.open("rb") as file:
            columns = _read_header(source, file)
            for line_number, cells in _lines(source, file):
                moment, row = _read_row(cells, columns, line_number, faults)
                if moment is not None:
                    _check_step(hour_s, moment, line_number, faults)
                    hour_s.append(moment)
                    rows.append(row)
                if len(faults) >= MAX_FAULTS:
                    faults.append(Fault(0, "", f"{MAX_FAULTS} faults, reading stopped", "a clean file"))
                    break
                if len(hour_s) > MAX_ROWS:
                    faults.append(Fault(line_number, "", f"more than {MAX_ROWS:,} rows", "at most 100 years of hours"))
                    break
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise InputError(source, [Fault(0, "", reason, "a readable CSV file")]) from error
    if not hour_s and not faults:
        faults.append(Fault(0, "", "a header and no rows", "one row for each hour"))
    if faults:
        raise InputError(source, faults)
    table = np.array(rows, dtype=np.float64)
    values = {technology: np.ascontiguousarray(table[:, k]) for k, technology in enumerate(WEATHER)}
    notes: tuple[str, ...] = ()
    if clock != "UTC":
        at = _local_rows(hour_s[0], len(hour_s), clock)
        values = {technology: series[at] for technology, series in values.items()}
        notes = (f"hours moved from {clock} clock time to UTC",)
    elif _follows_summer_time(values[Technology.SOLAR], hour_s[0]):
        notes = (
            "the sun peaks one hour later in summer than in winter: the hours look like local clock time, not UTC; "
            "they are used as labelled",
        )
    return CapacityFactors(source, False, hour_s[0], len(hour_s), values, notes)


def _read_header(source: str, file: BinaryIO) -> list[int]:
    """Positions of hour_utc and of the WEATHER columns. Raises InputError: without a header no row can be judged."""
    start = file.read(FIRST_LOOK_BYTES)
    expected = ",".join(["hour_utc", *WEATHER])
    if not start.strip():
        raise InputError(source, [Fault(0, "", "an empty file", f"the columns {expected}")])
    if b"\0" in start:
        raise InputError(source, [Fault(0, "", "binary content", f"a text file with the columns {expected}")])
    line, newline, _ = start.partition(b"\n")
    if not newline and len(start) == FIRST_LOOK_BYTES:
        raise InputError(source, [Fault(1, "", "no line end in the first MiB", f"the columns {expected}")])
    if len(line) > MAX_LINE_BYTES:
        raise InputError(source, [Fault(1, "", f"a line of {len(line):,} bytes", f"the columns {expected}")])
    file.seek(len(line) + len(newline))
    try:
        names = [name.strip() for name in next(csv.reader([line.decode("utf-8-sig")]), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(source, [Fault(1, "", "not UTF-8 text", f"the columns {expected}")]) from error
    wanted = ["hour_utc", *(str(technology) for technology in WEATHER)]
    faults = [Fault(1, name, "no such column", "present once") for name in wanted if name not in names]
    faults += [Fault(1, _shown(name), "unknown column", expected) for name in names if name not in wanted][:MAX_FAULTS]
    faults += [Fault(1, name, "column given twice", "present once") for name in wanted if names.count(name) > 1]
    if faults:
        raise InputError(source, faults)
    return [names.index(name) for name in wanted]


def _lines(source: str, file: BinaryIO) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each line after the header; blank lines at the end are passed over."""
    number = 1
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number > 2 * MAX_ROWS:
            raise InputError(source, [Fault(number, "", "too many lines", f"at most {MAX_ROWS:,} rows")])
        if len(raw) > MAX_LINE_BYTES:
            raise InputError(source, [Fault(number, "", f"a line over {MAX_LINE_BYTES:,} bytes", "one short row")])
        try:
            text = raw.decode("utf-8").strip()
            if text:
                yield number, next(csv.reader([text], strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(source, [Fault(number, "", "not UTF-8 CSV text", "numbers")]) from error


def _read_row(cells: list[str], columns: list[int], line: int, faults: list[Fault]) -> tuple[int | None, list[float]]:
    if len(cells) != len(columns):
        faults.append(Fault(line, "", f"{len(cells)} cells", f"{len(columns)} cells"))
        return None, []
    row = [
        _read_factor(cells[at], technology, line, faults) for at, technology in zip(columns[1:], WEATHER, strict=True)
    ]
    return _read_hour(cells[columns[0]], line, faults), row


def _read_hour(text: str, line: int, faults: list[Fault]) -> int | None:
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        if moment.utcoffset() != timedelta(0):
            raise ValueError("not UTC")
        epoch_s = int(moment.timestamp())
    except (ValueError, OverflowError):
        faults.append(Fault(line, "hour_utc", _shown(text), "a UTC hour like 2026-01-31 13:00:00"))
        return None
    if moment.microsecond or epoch_s % HOUR_S:
        faults.append(Fault(line, "hour_utc", _shown(text), "a full hour"))
        return None
    return epoch_s


def _read_factor(text: str, technology: Technology, line: int, faults: list[Fault]) -> float:
    try:
        value = float(text) if "_" not in text else float("nan")
    except ValueError:
        value = float("nan")
    if not 0.0 <= value <= 1.0:
        faults.append(Fault(line, technology, _shown(text), "a capacity factor between 0 and 1"))
    return value


def _check_step(hour_s: list[int], moment: int, line: int, faults: list[Fault]) -> None:
    if not hour_s or moment - hour_s[-1] == HOUR_S:
        return
    step_h = (moment - hour_s[-1]) // HOUR_S
    at = f"{from_epoch_s(moment):%Y-%m-%d %H:%M}"
    if step_h == 0:
        found = f"{at} twice"
    elif step_h < 0:
        found = f"{at} after a later hour"
    else:
        found = f"{step_h - 1:,} hours missing before {at}"
    faults.append(Fault(line, "hour_utc", found, "every hour once, in order, in UTC (which has no clock changes)"))


def _shown(text: str) -> str:
    """A cell as it can be printed: quoted, control characters escaped, cut."""
    return ascii(text if len(text) <= 40 else text[:40] + "...")


def _local_rows(first_hour_s: int, hours: int, clock: str) -> Int64Array:
    """[hour] row that shows each UTC hour's local clock hour; the edges repeat the first or last row."""
    zone = ZoneInfo(clock)
    utc = first_hour_s + HOUR_S * np.arange(hours, dtype=np.int64)
    offset_s = [int((datetime.fromtimestamp(int(t), zone).utcoffset() or timedelta(0)).total_seconds()) for t in utc]
    rows: Int64Array = np.clip(np.arange(hours) + np.array(offset_s, dtype=np.int64) // HOUR_S, 0, hours - 1)
    return rows


def _follows_summer_time(solar: Float64Array, first_hour_s: int) -> bool:
    """Whether the sun's centre of gravity in the day moves by an hour between winter and summer.

    In UTC it moves by some minutes only (the equation of time), at any longitude.
    """
    days = len(solar) // 24
    if days < 300 or first_hour_s % DAY_S:
        return False
    by_day = solar[: days * 24].reshape(days, 24)
    month = ((first_hour_s + DAY_S * np.arange(days)).astype("datetime64[s]").astype("datetime64[M]").astype(int)) % 12
    summer, winter = by_day[(month >= 4) & (month <= 7)].sum(axis=0), by_day[(month <= 0) | (month >= 10)].sum(axis=0)
    if not summer.sum() or not winter.sum():
        return False
    hour = np.arange(24)
    return bool(abs((summer @ hour) / summer.sum() - (winter @ hour) / winter.sum()) > 0.5)


# --- the calibrated generator ----------------------------------------------------------------------------------------
# All figures below are summaries (means, quantiles, autocorrelations) that we computed from the French hourly capacity
# factors of 2013, 2014 and 2016 in robingirard/Energy-Alternatives-Planning (MIT; from RTE), hours moved from French
# clock time to UTC. No row of those series is shipped. The yearly means they imply are in field notes 5 "Resource".

#: Levels of the wind quantiles below.
_LEVELS = (0.0005, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.9995)
_WIND_QUANTILES = {
    Technology.WIND_ONSHORE: (0.007, 0.020, 0.041, 0.057, 0.102, 0.180, 0.308, 0.480, 0.592, 0.736, 0.799),
    Technology.WIND_OFFSHORE: (0.012, 0.036, 0.073, 0.103, 0.183, 0.324, 0.554, 0.864, 1.0, 1.0, 1.0),
}
#: Normal scores of the wind: what season and hour of day explain (cos and sin of one and two cycles), and the rest.
_WIND_YEAR = (0.473, 0.278, 0.065, -0.019)
_WIND_DAY = (0.117, -0.087, 0.011, 0.024)
_WIND_REST_SD = 0.914
_WIND_MEMORY_H = (27.0, 1.6)  # two cascaded AR(1): autocorrelation 0.99 at 1 h, 0.85 at 6 h, 0.44 at 24 h
_WIND_ON_OFFSHORE = 0.99  # correlation of the normal scores
#: Share of the clear-sky model's output that reaches the grid, by month: mean; its spread and memory.
_SUN_CLEARNESS = (0.637, 0.752, 0.874, 0.846, 0.844, 0.887, 0.924, 0.957, 0.940, 0.923, 0.696, 0.824)
_SUN_SD, _SUN_MEMORY_H, _SUN_RANGE = 0.24, 32.0, (0.15, 1.45)
#: Points of (latitude, longitude) over which the sun is averaged: where French PV stands, mostly in the south.
_SUN_POINTS = ((48.5, 0.0), (46.5, 2.0), (45.0, 0.5), (43.7, 3.5), (44.5, 5.5))
_SUN_TILT_DEG = 25.0
_RIVER_MONTH = (0.558, 0.624, 0.568, 0.614, 0.663, 0.620, 0.546, 0.407, 0.321, 0.331, 0.479, 0.419)
_RIVER_HOUR = (
    *(-0.028, -0.042, -0.050, -0.054, -0.051, -0.036, -0.012, 0.010, 0.021, 0.026, 0.029, 0.026),
    *(0.012, -0.006, -0.015, -0.013, 0.001, 0.031, 0.054, 0.047, 0.028, 0.020, 0.010, -0.009),
)
_RIVER_SLOW, _RIVER_FAST = (0.087, 336.0), (0.018, 3.0)  # (spread, memory in hours)
_RIVER_RANGE = (0.12, 0.83)


def synthetic_capacity_factors(start_hour_s: int, hours: int, seed: int) -> CapacityFactors:
    """Made-up weather with the statistics of France, for when no measured series is at hand.

    The same start and seed give the same hours, however long the series is.
    """
    hour_s = start_hour_s + HOUR_S * np.arange(hours, dtype=np.int64)
    streams = np.random.SeedSequence([seed & (2**64 - 1), 0x5755]).spawn(5)
    noise = [np.random.Generator(np.random.PCG64(stream)).standard_normal(hours) for stream in streams]
    wind = _wind_scores(hour_s, noise[0])
    rho = _WIND_ON_OFFSHORE
    offshore = rho * wind + np.sqrt(1 - rho * rho) * _cascade(noise[1], *_WIND_MEMORY_H)
    values = {
        Technology.SOLAR: _sun(hour_s, noise[2]),
        Technology.WIND_ONSHORE: _by_quantile(wind, Technology.WIND_ONSHORE),
        Technology.WIND_OFFSHORE: _by_quantile(offshore, Technology.WIND_OFFSHORE),
        Technology.HYDRO_RUN_OF_RIVER: _river(hour_s, noise[3], noise[4]),
    }
    return CapacityFactors(f"calibrated generator, seed {seed}", True, start_hour_s, hours, values)


def _wind_scores(hour_s: Int64Array, noise: Float64Array) -> Float64Array:
    year, day = 2 * np.pi * year_share(hour_s), 2 * np.pi * (hour_s % DAY_S) / DAY_S
    season = sum(
        a * np.cos(k * angle) + b * np.sin(k * angle)
        for angle, (a1, b1, a2, b2) in ((year, _WIND_YEAR), (day, _WIND_DAY))
        for k, a, b in ((1, a1, b1), (2, a2, b2))
    )
    return np.asarray(season + _WIND_REST_SD * _cascade(noise, *_WIND_MEMORY_H), dtype=np.float64)


def _by_quantile(score: Float64Array, technology: Technology) -> Float64Array:
    at = [NormalDist().inv_cdf(level) for level in _LEVELS]
    return np.interp(score, at, _WIND_QUANTILES[technology])


def _sun(hour_s: Int64Array, noise: Float64Array) -> Float64Array:
    clearness = by_month(hour_s, _SUN_CLEARNESS) + _SUN_SD * ar1(noise, np.exp(-1 / _SUN_MEMORY_H))
    return np.clip(clear_sky(hour_s) * np.clip(clearness, *_SUN_RANGE), 0.0, 1.0)


def clear_sky(hour_s: Int64Array) -> Float64Array:
    """[hour] output of French PV under a clear sky: sun geometry, air mass, a little diffuse light.

    Declination and equation of time after Spencer (1971), air mass after Kasten and Young (1989).
    """
    output = np.zeros(len(hour_s))
    substeps, tilt = 6, np.radians(_SUN_TILT_DEG)
    for step in range(substeps):
        moment_s = hour_s + int((step + 0.5) * HOUR_S / substeps)
        g = 2 * np.pi * year_share(moment_s)
        declination = 0.006918 - 0.399912 * np.cos(g) + 0.070257 * np.sin(g)
        declination += -0.006758 * np.cos(2 * g) + 0.000907 * np.sin(2 * g)
        equation_h = 3.8197 * (0.000075 + 0.001868 * np.cos(g) - 0.032077 * np.sin(g))
        equation_h += 3.8197 * (-0.014615 * np.cos(2 * g) - 0.040849 * np.sin(2 * g))
        for latitude, longitude in _SUN_POINTS:
            phi = np.radians(latitude)
            angle = np.pi / 12 * ((moment_s % DAY_S) / HOUR_S + longitude / 15 + equation_h - 12)
            height = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(angle)
            on_panel = np.sin(phi - tilt) * np.sin(declination)
            on_panel += np.cos(phi - tilt) * np.cos(declination) * np.cos(angle)
            up = np.clip(height, 0.0, 1.0)
            air_mass = 1 / (up + 0.50572 * (np.degrees(np.arcsin(up)) + 6.07995) ** -1.6364)
            beam = 0.7 ** (air_mass**0.678)
            output += np.where(height > 0, 0.85 * beam * np.clip(on_panel, 0, None) + 0.15 * np.sqrt(beam) * up, 0.0)
    mean: Float64Array = output / (substeps * len(_SUN_POINTS))
    return mean


def _river(hour_s: Int64Array, slow: Float64Array, fast: Float64Array) -> Float64Array:
    level = by_month(hour_s, _RIVER_MONTH) + np.array(_RIVER_HOUR)[(hour_s % DAY_S) // HOUR_S]
    for noise, (spread, memory_h) in ((slow, _RIVER_SLOW), (fast, _RIVER_FAST)):
        level = level + spread * ar1(noise, np.exp(-1 / memory_h))
    river: Float64Array = np.clip(level, *_RIVER_RANGE)
    return river


def year_share(moment_s: Int64Array) -> Float64Array:
    """Position in the year, 0..1."""
    moment = moment_s.astype("datetime64[s]")
    year = moment.astype("datetime64[Y]")
    begin = year.astype("datetime64[s]").astype(np.int64)
    length = (year + 1).astype("datetime64[s]").astype(np.int64) - begin
    share: Float64Array = (moment_s - begin) / length
    return share


def by_month(hour_s: Int64Array, figures: tuple[float, ...]) -> Float64Array:
    """Monthly figures placed at mid-month, linear between, around the year."""
    middle = (np.arange(12) + 0.5) / 12
    return np.interp(year_share(hour_s), middle, figures, period=1.0)


def _cascade(noise: Float64Array, memory_h: float, smoothing_h: float) -> Float64Array:
    """AR(1) passed through another AR(1), with unit variance: smooth from hour to hour, like wind over a country."""
    a, b = float(np.exp(-1 / memory_h)), float(np.exp(-1 / smoothing_h))
    variance = (1 + a * b) / ((1 - a * b) * (1 - a * a) * (1 - b * b))
    inner = ar1(noise, a) / np.sqrt(1 - a * a)
    smoothed: Float64Array = ar1(inner, b) / np.sqrt(1 - b * b) / np.sqrt(variance)
    return smoothed


@njit(cache=True)
def ar1(noise: Float64Array, memory: float) -> Float64Array:
    """x[t] = memory x[t-1] + sqrt(1 - memory^2) noise[t], begun in its steady state: unit variance throughout."""
    series = np.empty(len(noise))
    gain = np.sqrt(1.0 - memory * memory)
    for t in range(len(noise)):
        series[t] = noise[t] if t == 0 else memory * series[t - 1] + gain * noise[t]
    return series
