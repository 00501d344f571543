"""The hourly energy books: what each attempt, site and hour drew, in integer Wh whose parts equal the meter exactly.

The rules, each proved in tests/energy/test_books.py:

B1  An attempt draws its GPUs' share of its nodes' typical power; free GPUs draw their share of idle power.
B2  IT energy of a site-hour is integrated from the pools' busy and open GPU time, not from the attempts' entries.
B3  The meter is IT energy times PUE, rounded half to even: meter = jobs + idle + overhead, and no part is negative.
B4  An attempt's hourly entry is its exact energy rounded up or down by less than 1 Wh; its total is the sum of them.
    The remainder of one attempt is carried to the next one of the same site and hour, so the entries of a site-hour add
    up to its job energy rounded down. (Rounding each attempt's own running total instead would add up over its life,
    but in one hour of a full site thousands of remainders may fall due together: the jobs would exceed the meter.)
B5  One ledger matches the whole load of an hour with the whole supply; sites get integer shares that sum to it.
B6  What was seen to run was on, whatever the fleet file says of that hour; what is only simulated must have room.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from watteau.domain.errors import InvariantBroken
from watteau.domain.fleet import MOST_FLEET_GPUS, MOST_FLEET_MW, MOST_SITE_MW, Fleet, Pool, merged
from watteau.domain.units import (
    GPU_MILLI,
    HOUR_S,
    Float64Array,
    Int32Array,
    Int64Array,
    SiteId,
    from_epoch_s,
    to_epoch_s,
)
from watteau.energy.supply import SupplySeries, overlap_s

#: Microwatt-seconds in a watt-hour. Powers are whole milliwatts for one GPU, which are microwatts for a thousandth.
UWS_PER_WH = 3_600_000_000
_PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class Attempts:
    """What ran, as columns: [start_s, end_s) in epoch seconds, the pool in `fleet.pools()` order, all GPUs held."""

    start_s: Int64Array  # [attempt]
    end_s: Int64Array  # [attempt], >= start_s
    pool: Int32Array  # [attempt]
    gpu_milli: Int64Array  # [attempt], thousandths of a GPU of the whole attempt; 0: CPU only, draws nothing extra

    def __post_init__(self) -> None:
        count = len(self.start_s)
        if not count == len(self.end_s) == len(self.pool) == len(self.gpu_milli):
            raise ValueError("the columns of attempts differ in length")
        if bool(np.any(self.end_s < self.start_s)):
            raise ValueError("an attempt cannot end before it starts")
        most_milli = MOST_FLEET_GPUS * GPU_MILLI
        if count and not 0 <= int(self.gpu_milli.min()) <= int(self.gpu_milli.max()) <= most_milli:
            raise ValueError(f"an attempt holds between 0 and {MOST_FLEET_GPUS:,} GPUs")

    def __len__(self) -> int:
        return len(self.start_s)


@dataclass(frozen=True, slots=True)
class Presence:
    """When a pool's nodes are there: (epoch second, nodes that open) steps, and [start, end) windows with all off."""

    openings: tuple[tuple[int, int], ...]
    outages: tuple[tuple[int, int], ...] = ()


def presence_of(fleet: Fleet) -> tuple[Presence, ...]:
    """[pool] presence as the fleet's phases and planned outages say; nodes of a site without power are never on."""
    return tuple(
        Presence(
            openings=tuple(
                (to_epoch_s(phase.opens), count)
                for phase in site.phases
                for pool_id, count in phase.nodes
                if pool_id == pool.id and site.power_limit_kw > 0
            ),
            outages=tuple(site.outages_s(pool.id)),
        )
        for site, pool in fleet.pools()
    )


@dataclass(frozen=True, slots=True)
class EnergyBooks:
    """The books over [first_hour_s, first_hour_s + hours): all integers, all parts summing to the meter."""

    sites: tuple[SiteId, ...]
    first_hour_s: int
    hours: int
    job_wh: Int64Array  # [site, hour], sum of the attempts' entries
    idle_wh: Int64Array  # [site, hour], free GPUs of open nodes
    it_wh: Int64Array  # [site, hour], job_wh + idle_wh
    overhead_wh: Int64Array  # [site, hour], cooling and losses: site_wh - it_wh
    site_wh: Int64Array  # [site, hour], the meter
    busy_gpu_milli_s: Int64Array  # [site, hour], thousandths of a GPU times seconds held by attempts
    open_gpu_milli_s: Int64Array  # [site, hour], the same of all nodes that were on
    attempt_wh: Int64Array  # [attempt], inside the horizon
    load_wh: Int64Array  # [hour], sum of the meters
    supply_wh: Int64Array  # [hour], renewable
    matched_wh: Int64Array  # [hour], min(load, supply)
    site_supply_wh: Int64Array  # [site, hour], supply allotted by load; sums to supply_wh
    site_matched_wh: Int64Array  # [site, hour], matched energy allotted by load; sums to matched_wh

    @property
    def hourly_matched_share(self) -> float | None:
        """Sum of min(load, supply) over sum of load; None when nothing was drawn."""
        load = int(self.load_wh.sum())
        return int(self.matched_wh.sum()) / load if load else None

    @property
    def annual_ratio(self) -> float | None:
        """Supply over load, regardless of the hour (may exceed 1); None when nothing was drawn."""
        load = int(self.load_wh.sum())
        return int(self.supply_wh.sum()) / load if load else None

    @property
    def unmatched_wh(self) -> int:
        """Load that no supply met in its hour."""
        return int(self.load_wh.sum() - self.matched_wh.sum())

    @property
    def surplus_wh(self) -> int:
        """Supply that no load met in its hour."""
        return int(self.supply_wh.sum() - self.matched_wh.sum())

    @property
    def utilisation(self) -> float | None:
        """GPU time held over GPU time that was there; None when no node was on."""
        there = int(self.open_gpu_milli_s.sum())
        return int(self.busy_gpu_milli_s.sum()) / there if there else None


def settle(
    fleet: Fleet,
    attempts: Attempts,
    presence: Sequence[Presence],
    pue: Float64Array,
    supply: SupplySeries,
    first_hour_s: int,
    hours: int,
    *,
    were_seen: bool = False,
) -> EnergyBooks:
    """Close the books of [first_hour_s, first_hour_s + hours). `pue` is [site, hour], `presence` is [pool].

    Attempts are cut at the horizon. Where those of a pool hold more GPU time in an hour than its nodes had, so much was
    on when they `were_seen` to run (B6). Otherwise it raises InvariantBroken, and ValueError on arrays that do not fit
    together.
    """
    pools = list(fleet.pools())
    pool_site = np.array([fleet.sites.index(site) for site, _ in pools], dtype=np.int64)
    _check_inputs(fleet, attempts, presence, pue, supply, first_hour_s, hours)
    busy_mw = np.array([gpu_power_mw(pool, pool.node_typical_w) for _, pool in pools], dtype=np.int64)
    idle_mw = np.array([gpu_power_mw(pool, pool.node_idle_w) for _, pool in pools], dtype=np.int64)

    # B2: the meter side.
    busy = busy_time(
        attempts.start_s, attempts.end_s, attempts.pool, attempts.gpu_milli, len(pools), first_hour_s, hours
    )
    there = np.zeros((len(pools), hours), dtype=np.int64)
    for index, (_, pool) in enumerate(pools):
        there[index] = GPU_MILLI * pool.gpus_per_node * _node_seconds(presence[index], first_hour_s, hours)
    if were_seen:
        there = np.maximum(there, busy)
    else:
        _check_room(fleet, busy, there, first_hour_s)
    by_site = (len(fleet.sites), hours)
    it_uws, busy_site, there_site = (np.zeros(by_site, dtype=np.int64) for _ in range(3))
    np.add.at(it_uws, pool_site, busy * busy_mw[:, None] + (there - busy) * idle_mw[:, None])
    np.add.at(busy_site, pool_site, busy)
    np.add.at(there_site, pool_site, there)
    it_wh = it_uws // UWS_PER_WH
    site_wh = metered_wh(it_uws, np.rint(pue * _PPM).astype(np.int64))

    # B4: the receipts' side.
    job_wh, attempt_wh = job_entries(
        attempts.start_s, attempts.end_s, attempts.pool, attempts.gpu_milli, pool_site, busy_mw,
        len(fleet.sites), first_hour_s, hours,
    )  # fmt: skip
    idle_wh = it_wh - job_wh
    overhead_wh = site_wh - it_wh
    if int(idle_wh.min(initial=0)) < 0 or int(overhead_wh.min(initial=0)) < 0:
        raise InvariantBroken("the entries of the jobs exceed the meter of their site")

    # B5: one ledger.
    load_wh: Int64Array = site_wh.sum(axis=0)
    if int(load_wh.max(initial=0)) > MOST_FLEET_MW * 1_000_000:
        raise ValueError(f"a fleet that draws more than {MOST_FLEET_MW:,} MW is beyond these books")
    matched_wh: Int64Array = np.minimum(load_wh, supply.renewable_wh)
    return EnergyBooks(
        sites=tuple(site.id for site in fleet.sites),
        first_hour_s=first_hour_s,
        hours=hours,
        job_wh=job_wh,
        idle_wh=idle_wh,
        it_wh=it_wh,
        overhead_wh=overhead_wh,
        site_wh=site_wh,
        busy_gpu_milli_s=busy_site,
        open_gpu_milli_s=there_site,
        attempt_wh=attempt_wh,
        load_wh=load_wh,
        supply_wh=supply.renewable_wh,
        matched_wh=matched_wh,
        site_supply_wh=allot(supply.renewable_wh, site_wh),
        site_matched_wh=allot(matched_wh, site_wh),
    )


def entries_wh(fleet: Fleet, attempts: Attempts, first_hour_s: int, hours: int) -> Int64Array:
    """[site, hour] the sum of the attempts' entries (B4), as `settle` has it for attempts in this order.

    Those of the first few alone are never more than those of all, so that they can be told from the rest.
    """
    pools = list(fleet.pools())
    pool_site = np.array([fleet.sites.index(site) for site, _ in pools], dtype=np.int64)
    busy_mw = np.array([gpu_power_mw(pool, pool.node_typical_w) for _, pool in pools], dtype=np.int64)
    return job_entries(
        attempts.start_s, attempts.end_s, attempts.pool, attempts.gpu_milli, pool_site, busy_mw,
        len(fleet.sites), first_hour_s, hours,
    )[0]  # fmt: skip


def gpu_power_mw(pool: Pool, node_w: int) -> int:
    """One GPU's share of a node's power in whole milliwatts; what does not divide is dropped (under 1 mW a GPU).

    0 for a node without GPUs: only what holds GPUs is metered by them.
    """
    return node_w * 1_000 // pool.gpus_per_node if pool.gpus_per_node else 0


def _check_inputs(
    fleet: Fleet,
    attempts: Attempts,
    presence: Sequence[Presence],
    pue: Float64Array,
    supply: SupplySeries,
    first_hour_s: int,
    hours: int,
) -> None:
    pools = [pool for _, pool in fleet.pools()]
    if first_hour_s % HOUR_S or hours < 0:
        raise ValueError("the books begin on a full hour and have no negative length")
    if len(presence) != len(pools):
        raise ValueError(f"{len(presence)} presences for {len(pools)} pools")
    if pue.shape != (len(fleet.sites), hours):
        raise ValueError(f"pue has the shape {pue.shape}, not ({len(fleet.sites)}, {hours})")
    if not bool(np.all((pue >= 1.0) & (pue <= 3.0))):
        raise ValueError("a PUE lies between 1.0 and 3.0")
    if (supply.first_hour_s, supply.hours) != (first_hour_s, hours):
        raise ValueError("the supply covers other hours than the books")
    if len(attempts) and not 0 <= int(attempts.pool.min()) <= int(attempts.pool.max()) < len(pools):
        raise ValueError("an attempt ran in a pool that the fleet does not have")
    draw_w = dict.fromkeys((site.id for site in fleet.sites), 0)
    for (site, pool), there in zip(fleet.pools(), presence, strict=True):
        draw_w[site.id] += pool.node_typical_w * sum(count for _, count in there.openings if count > 0)
    if not draw_w or max(draw_w.values()) > MOST_SITE_MW * 1_000_000:
        raise ValueError(f"the books need at least one site, and none whose nodes may draw over {MOST_SITE_MW:,} MW")


def _check_room(fleet: Fleet, busy: Int64Array, there: Int64Array, first_hour_s: int) -> None:
    over = np.argwhere(busy > there)
    if len(over):
        index, hour = (int(at) for at in over[0])
        site, pool = list(fleet.pools())[index]
        raise InvariantBroken(
            f"{site.id}/{pool.id}: attempts hold {busy[index, hour] / GPU_MILLI / HOUR_S:.3f} GPUs on average in the "
            f"hour from {from_epoch_s(first_hour_s + hour * HOUR_S):%Y-%m-%d %H:%M}Z, "
            f"{there[index, hour] / GPU_MILLI / HOUR_S:.3f} were on"
        )


def _node_seconds(presence: Presence, first_hour_s: int, hours: int) -> Int64Array:
    """[hour] node-seconds that a pool was on."""
    hour_s = first_hour_s + HOUR_S * np.arange(hours, dtype=np.int64)
    end_s = first_hour_s + HOUR_S * hours
    on = np.zeros(hours, dtype=np.int64)
    for opens_s, nodes in presence.openings:
        on += nodes * overlap_s(hour_s, opens_s, end_s)
        for outage_s, back_s in merged(presence.outages):
            on -= nodes * overlap_s(hour_s, max(opens_s, outage_s), back_s)
    if int(on.min(initial=0)) < 0:
        raise ValueError("more nodes close than ever opened")
    return on


@njit(cache=True)
def busy_time(
    start_s: Int64Array,
    end_s: Int64Array,
    pool: Int32Array,
    gpu_milli: Int64Array,
    pools: int,
    first_hour_s: int,
    hours: int,
) -> Int64Array:
    """[pool, hour] thousandths of a GPU times seconds held. Each attempt costs the same, however long it ran.

    The running sum of `step` is what is held through the whole of an hour; `part` corrects first and last hours.
    """
    held = np.zeros((pools, hours), dtype=np.int64)
    step = np.zeros((pools, hours + 1), dtype=np.int64)
    last_s = first_hour_s + hours * 3_600
    for attempt in range(len(start_s)):
        begin = max(start_s[attempt], first_hour_s) - first_hour_s
        end = min(end_s[attempt], last_s) - first_hour_s
        if begin >= end:
            continue
        p, milli = pool[attempt], gpu_milli[attempt]
        first, last = begin // 3_600, end // 3_600
        step[p, first] += milli
        step[p, last] -= milli
        held[p, first] -= milli * (begin - first * 3_600)
        if last < hours:
            held[p, last] += milli * (end - last * 3_600)
    for p in range(pools):
        level = 0
        for hour in range(hours):
            level += step[p, hour]
            held[p, hour] += level * 3_600
    return held


@njit(cache=True)
def job_entries(
    start_s: Int64Array,
    end_s: Int64Array,
    pool: Int32Array,
    gpu_milli: Int64Array,
    pool_site: Int64Array,
    busy_mw: Int64Array,
    sites: int,
    first_hour_s: int,
    hours: int,
) -> tuple[Int64Array, Int64Array]:
    """([site, hour], [attempt]) Wh of the attempts' entries, walking each attempt through its hours (rule B4)."""
    job_wh = np.zeros((sites, hours), dtype=np.int64)
    carry_uws = np.zeros((sites, hours), dtype=np.int64)
    attempt_wh = np.zeros(len(start_s), dtype=np.int64)
    last_s = first_hour_s + hours * 3_600
    for attempt in range(len(start_s)):
        at = max(start_s[attempt], first_hour_s) - first_hour_s
        end = min(end_s[attempt], last_s) - first_hour_s
        power_uw = gpu_milli[attempt] * busy_mw[pool[attempt]]
        site = pool_site[pool[attempt]]
        total = 0
        while at < end:
            hour = at // 3_600
            until = min(end, (hour + 1) * 3_600)
            energy_uws = power_uw * (until - at) + carry_uws[site, hour]
            entry = energy_uws // 3_600_000_000
            carry_uws[site, hour] = energy_uws - entry * 3_600_000_000
            job_wh[site, hour] += entry
            total += entry
            at = until
        attempt_wh[attempt] = total
    return job_wh, attempt_wh


@njit(cache=True)
def metered_wh(it_uws: Int64Array, pue_ppm: Int64Array) -> Int64Array:
    """[site, hour] IT energy times PUE in Wh, rounded half to even, exact: no product leaves 64 bits."""
    meter = np.empty(it_uws.shape, dtype=np.int64)
    for site in range(it_uws.shape[0]):
        for hour in range(it_uws.shape[1]):
            whole, rest = it_uws[site, hour] // 3_600_000_000, it_uws[site, hour] % 3_600_000_000
            product = whole * pue_ppm[site, hour]
            floor, millionths = product // 1_000_000, product % 1_000_000
            # What is left, in millionths of a microwatt-second: below 10^6 * 3.6e9 + 3.6e9 * 3e6.
            left = millionths * 3_600_000_000 + rest * pue_ppm[site, hour]
            floor += left // 3_600_000_000_000_000
            left %= 3_600_000_000_000_000
            half = 1_800_000_000_000_000
            if left > half or (left == half and floor % 2 == 1):
                floor += 1
            meter[site, hour] = floor
    return meter


@njit(cache=True)
def allot(total_wh: Int64Array, weight_wh: Int64Array) -> Int64Array:
    """[site, hour] whole shares of each hour's total in proportion to the weights, by the largest remainder.

    Ties go to the earlier site; without any weight the shares are equal. Each share is at most 1 away from its quota.
    """
    sites, hours = weight_wh.shape
    share = np.zeros((sites, hours), dtype=np.int64)
    remainder = np.zeros(sites, dtype=np.int64)
    for hour in range(hours):
        weights = 0
        for site in range(sites):
            weights += weight_wh[site, hour]
        even = weights == 0
        if even:
            weights = sites
        left = total_wh[hour]
        for site in range(sites):
            weight = 1 if even else weight_wh[site, hour]
            whole, rest = total_wh[hour] // weights, total_wh[hour] % weights
            share[site, hour] = whole * weight + rest * weight // weights
            remainder[site] = rest * weight % weights
            left -= share[site, hour]
        while left > 0:
            best = 0
            for site in range(1, sites):
                if remainder[site] > remainder[best]:
                    best = site
            share[best, hour] += 1
            remainder[best] = -1
            left -= 1
    return share
