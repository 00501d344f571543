"""The hourly energy books of what ran live: our attempts and jobs by hand, at every site that has an engine."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from watteau.domain.fleet import Contract, Fleet, Mode
from watteau.domain.units import (
    GPU_MILLI,
    HOUR_S,
    Int64Array,
    TenantId,
    from_epoch_s,
    to_epoch_s,
)
from watteau.energy.books import Attempts, EnergyBooks, Presence, entries_wh, presence_of, settle
from watteau.energy.climate import pue_by_hour
from watteau.energy.supply import WEATHER, CapacityFactors, SupplySeries, supply_wh, synthetic_capacity_factors
from watteau.store.store import Ran, Store

#: No longer span is settled at once.
MOST_HOURS = 366 * 24
#: Of generated weather: an hour must have the same whenever somebody asks for it.
_SEED = 0
_MS_PER_HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class Whole:
    """What only those may see who see every tenant's jobs."""

    books: EnergyBooks
    supply: SupplySeries
    supply_synthetic: bool  # the weather behind the supply was generated (R21)


@dataclass(frozen=True, slots=True)
class LiveBooks:
    """Whole hours from `first_hour_s`; the last one is settled up to `until_s` when it is not over. Integer Wh."""

    fleet: Fleet  # the sites that have an engine
    first_hour_s: int
    hours: int
    until_s: int
    ours_wh: Int64Array  # [site, hour], of our attempts
    by_hand_wh: Int64Array  # [site, hour], of jobs by hand
    whole: Whole | None  # None: only of some tenants, or no site has an engine
    notes: tuple[str, ...]  # what a reader of the figures must know


def keep_books(
    store: Store,
    fleet: Fleet,
    factors: CapacityFactors | None,
    since_ms: int,
    until_ms: int,
    now_ms: int,
    tenants: frozenset[TenantId] | None,
) -> LiveBooks:
    """Settle the hours that [since, until) touches, up to now. Without `factors` the weather is generated.

    Given `tenants`, only their jobs' energy is told: the meter would tell what others used. Raises ValueError for more
    than MOST_HOURS, and InputError when the factors say nothing of an hour.
    """
    fleet, left_out = _with_engines(fleet)
    first_hour_s = since_ms // 1000 // HOUR_S * HOUR_S
    until_s = max(first_hour_s, min(-(-until_ms // _MS_PER_HOUR) * HOUR_S, now_ms // 1000))
    hours = -(-(until_s - first_hour_s) // HOUR_S)
    if hours > MOST_HOURS:
        raise ValueError(f"{hours:,} hours; at most {MOST_HOURS:,} are settled at once")
    ran = store.ran(1000 * first_hour_s, 1000 * until_s, tenants)
    every, ours = _attempts(fleet, ran)
    ours_wh = entries_wh(fleet, ours, first_hour_s, hours)
    notes = [*_unplaced(fleet, ran)]
    if left_out:
        notes.append(f"sites without an engine are not in: {', '.join(left_out)}")
    whole = None
    if tenants is None and fleet.sites:
        whole = _whole(fleet, every, factors, first_hour_s, hours, until_s)
        notes += _made_up(fleet, whole)
        all_wh = whole.books.job_wh
    else:
        all_wh = entries_wh(fleet, every, first_hour_s, hours)
    return LiveBooks(fleet, first_hour_s, hours, until_s, ours_wh, all_wh - ours_wh, whole, tuple(notes))


def _with_engines(fleet: Fleet) -> tuple[Fleet, list[str]]:
    """The fleet with the sites of which something is seen, and the names of the others."""
    seen = tuple(site for site in fleet.sites if site.mode is Mode.DRIVE or site.slurm is not None)
    return replace(fleet, sites=seen), [site.id for site in fleet.sites if site not in seen]


def _attempts(fleet: Fleet, ran: Ran) -> tuple[Attempts, Attempts]:
    """(everything that ran, ours only), in pools of the fleet; what ended in the second of its start draws nothing."""
    index = {(site.id, pool.id): number for number, (site, pool) in enumerate(fleet.pools())}
    number = np.array([index.get(pool, -1) for pool in ran.pools] or [-1], dtype=np.int32)
    pool = number[ran.pool] if len(ran.pool) else np.zeros(0, dtype=np.int32)

    def columns(rows: Int64Array) -> Attempts:
        return Attempts(ran.from_ms[rows] // 1000, ran.to_ms[rows] // 1000, pool[rows], ran.gpu_milli[rows])

    return columns(np.flatnonzero(pool >= 0)), columns(np.flatnonzero((pool >= 0) & ~ran.by_hand))


def _unplaced(fleet: Fleet, ran: Ran) -> Iterator[str]:
    """What ran and is not in the books, since it was in no pool of the fleet."""
    for site, gpu_milli_ms in sorted(ran.nowhere_gpu_milli_ms.items()):
        gpu_hours = gpu_milli_ms / GPU_MILLI / _MS_PER_HOUR
        yield f"{site}: {gpu_hours:,.1f} GPU-hours of jobs by hand on nodes of no pool are not in"
    known = {(site.id, pool.id) for site, pool in fleet.pools()}
    for number, (site, pool) in enumerate(ran.pools):
        if (site, pool) not in known:
            its = ran.pool == number
            gpu_milli_ms = int((ran.gpu_milli[its] * (ran.to_ms[its] - ran.from_ms[its])).sum())
            gpu_hours = gpu_milli_ms / GPU_MILLI / _MS_PER_HOUR
            yield f"{site}/{pool}: {gpu_hours:,.1f} GPU-hours are not in: the fleet has no such pool with an engine"


def _whole(
    fleet: Fleet, every: Attempts, factors: CapacityFactors | None, first_hour_s: int, hours: int, until_s: int
) -> Whole:
    contracts = [_cut(contract, until_s) for contract in fleet.contracts if to_epoch_s(contract.start) < until_s]
    factors = _generated_factors(first_hour_s, hours) if factors is None else factors
    supply = supply_wh(contracts, factors, first_hour_s, hours)
    pue = np.empty((len(fleet.sites), hours))
    for row, site in enumerate(fleet.sites):
        for start_s, first, last, at in _by_year(first_hour_s, hours):
            pue[row, at : at + last - first] = pue_by_hour(site, start_s, last, _SEED)[first:]
    presence = [_up_to(presence, until_s) for presence in presence_of(fleet)]
    books = settle(fleet, every, presence, pue, supply, first_hour_s, hours, were_seen=True)
    return Whole(books, supply, factors.synthetic and any(each.technology in WEATHER for each in contracts))


def _up_to(presence: Presence, until_s: int) -> Presence:
    """The same nodes until a moment, and none from then on: what is to come has not been drawn."""
    opened = tuple(step for step in presence.openings if step[0] < until_s)
    return Presence((*opened, (until_s, -sum(nodes for _, nodes in opened))), presence.outages)


def _cut(contract: Contract, until_s: int) -> Contract:
    return replace(contract, end=min(contract.end, from_epoch_s(until_s)))


def _generated_factors(first_hour_s: int, hours: int) -> CapacityFactors:
    values = {technology: np.empty(hours) for technology in WEATHER}
    source = ""
    for start_s, first, last, at in _by_year(first_hour_s, hours):
        year = synthetic_capacity_factors(start_s, last, _SEED)
        source = year.source
        for technology, series in values.items():
            series[at : at + last - first] = year.values[technology][first:]
    return CapacityFactors(source, True, first_hour_s, hours, values)


def _by_year(first_hour_s: int, hours: int) -> Iterator[tuple[int, int, int, int]]:
    """For each year that the hours touch: its start, the first and the end of its hours, and where they go.

    Made-up weather is drawn from each 1 January on: a series that began with what is asked for would change with it.
    """
    at = 0
    while at < hours:
        hour_s = first_hour_s + at * HOUR_S
        year = from_epoch_s(hour_s).year
        start_s = to_epoch_s(datetime(year, 1, 1, tzinfo=UTC))
        end_s = min(to_epoch_s(datetime(year + 1, 1, 1, tzinfo=UTC)), first_hour_s + hours * HOUR_S)
        first, last = (hour_s - start_s) // HOUR_S, (end_s - start_s) // HOUR_S
        yield start_s, first, last, at
        at += last - first


def _made_up(fleet: Fleet, whole: Whole) -> Iterator[str]:
    """What of the figures was generated, or taken from elsewhere."""
    supply = whole.supply
    if whole.supply_synthetic:
        yield f"supply: synthetic, by the {supply.source}"
    elif fleet.contracts:
        year = supply.aligned_from_year
        yield f"supply: {supply.source}" + (f", aligned by hour of year from {year}" if year is not None else "")
        yield from (f"supply: {note}" for note in supply.notes)
    else:
        yield "supply: the fleet file has no contracts"
    if warmed := [site.id for site in fleet.sites if not site.pue.is_constant]:
        yield f"PUE of {', '.join(warmed)}: by synthetic outdoor temperatures"
