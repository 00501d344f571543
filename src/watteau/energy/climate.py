"""Outdoor temperature by hour, made up from climate normals, and the PUE that follows from it."""

import numpy as np

from watteau.domain.fleet import Site
from watteau.domain.units import DAY_S, HOUR_S, Float64Array, Int64Array
from watteau.energy.supply import ar1, by_month, year_share

#: Monthly mean temperature in deg C by (latitude, longitude). The values are the 1991-2020 normals of Paris-Montsouris
#: and Marseille-Marignane (Meteo-France) and of Basel-Binningen (MeteoSwiss; 30 km from Mulhouse), FROM MEMORY and not
#: verified. A check that was possible: the older normals in the teaching data set of F. Husson (read at
#: fbertran.github.io/homepage/enseignement/Master1_2020/temperature.txt) have yearly means of 11.2 for Paris, 14.2 for
#: Marseille and 9.7 for Strasbourg; ours are 1.2 to 1.7 degrees warmer, as thirty years of warming would have it.
NORMALS_C: dict[tuple[float, float], tuple[float, ...]] = {
    (48.82, 2.34): (5.4, 6.0, 9.2, 12.2, 15.6, 18.8, 20.9, 20.8, 17.2, 13.2, 8.7, 5.9),
    (43.44, 5.22): (7.4, 8.1, 11.3, 14.2, 18.3, 22.6, 25.3, 25.1, 20.9, 16.8, 11.5, 8.2),
    (47.54, 7.58): (2.1, 3.1, 6.9, 10.7, 14.7, 18.2, 20.1, 19.8, 15.5, 11.2, 5.9, 2.8),
}
_NEAR_KM = 1_000.0
#: Half of the daily swing in deg C, by month, and the local solar hour of the daily maximum (assumed).
_DAILY_HALF_SWING_C = (2.2, 2.9, 3.9, 4.7, 4.8, 5.0, 5.3, 5.2, 4.7, 3.5, 2.4, 2.0)
_WARMEST_HOUR = 15.0
#: Weather around the normal (assumed): spread in deg C and memory in hours.
_WEATHER_SD_C, _WEATHER_MEMORY_H = 3.3, 60.0


def outdoor_temperature_c(latitude: float, longitude: float, start_hour_s: int, hours: int, seed: int) -> Float64Array:
    """[hour] made-up outdoor temperature: season + hour of the day + weather with a memory of days.

    Within 1,000 km of a known station the season is that of the stations, weighted by nearness; elsewhere it is a rough
    rule of latitude. The same place, start and seed give the same hours, however long the series is.
    """
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise ValueError(f"no such place: latitude {latitude}, longitude {longitude}")
    hour_s = start_hour_s + HOUR_S * np.arange(hours, dtype=np.int64)
    place = [round((latitude + 90) * 1000), round((longitude + 180) * 1000)]
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed & (2**64 - 1), 0x7E40, *place])))
    weather = _WEATHER_SD_C * ar1(generator.standard_normal(hours), float(np.exp(-1 / _WEATHER_MEMORY_H)))
    half_swing = by_month(_season_s(hour_s, latitude), _DAILY_HALF_SWING_C)
    solar_hour = (hour_s % DAY_S) / HOUR_S + 0.5 + longitude / 15
    day = half_swing * np.cos(2 * np.pi * (solar_hour - _WARMEST_HOUR) / 24)
    result: Float64Array = _season_c(latitude, longitude, hour_s) + day + weather
    return result


def pue_by_hour(site: Site, start_hour_s: int, hours: int, seed: int) -> Float64Array:
    """[hour] the site's PUE at the outdoor temperature of each hour; a constant PUE ignores the temperature."""
    if site.pue.is_constant:
        return np.full(hours, site.pue.value[0])
    temperature = outdoor_temperature_c(site.latitude, site.longitude, start_hour_s, hours, seed)
    return np.interp(temperature, site.pue.temperature_c, site.pue.value)


def _season_c(latitude: float, longitude: float, hour_s: Int64Array) -> Float64Array:
    """[hour] the normal of the season."""
    distance_km = {place: _distance_km(latitude, longitude, *place) for place in NORMALS_C}
    near = {place: 1 / (max(km, 1.0) ** 2) for place, km in distance_km.items() if km <= _NEAR_KM}
    if near:
        total = sum(near.values())
        normals = sum(weight / total * np.array(NORMALS_C[place]) for place, weight in near.items())
        return by_month(hour_s, tuple(np.asarray(normals).tolist()))
    # Assumed: 27 deg C at the equator, falling with the square of latitude; the swing of the year grows with it.
    mean_c, half_swing_c = 27.0 - 0.0066 * latitude**2, 0.19 * abs(latitude)
    warmest = 0.56 if latitude >= 0 else 0.06
    season: Float64Array = mean_c + half_swing_c * np.cos(2 * np.pi * (year_share(hour_s) - warmest))
    return season


def _season_s(hour_s: Int64Array, latitude: float) -> Int64Array:
    """The same season in the north: south of the equator the year is shifted by half."""
    return hour_s if latitude >= 0 else hour_s + 4_383 * HOUR_S


def _distance_km(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Great-circle distance."""
    a, b = np.radians(latitude), np.radians(other_latitude)
    half = np.sin((b - a) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(np.radians(other_longitude - longitude) / 2) ** 2
    return float(2 * 6_371 * np.arcsin(np.sqrt(min(1.0, float(half)))))
