"""The rules B1..B6 of watteau.energy.books, against a slow reference in fractions."""

from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watteau.domain.errors import InvariantBroken
from watteau.domain.fleet import Engine, Fleet, Mode, Outage, Phase, Pool, Pue, Site
from watteau.domain.tenants import Tenant
from watteau.domain.units import GPU_MILLI, HOUR_S, Float64Array, PoolId, SiteId, TenantId
from watteau.energy import books
from watteau.energy.books import Attempts, EnergyBooks, Presence, entries_wh, presence_of, settle
from watteau.energy.supply import SupplySeries

START_S = 1_774_652_400 // HOUR_S * HOUR_S
OPEN = datetime(2020, 1, 1, tzinfo=UTC)


def pool(name: str, gpus: int = 8, idle_w: int = 1_500, typical_w: int = 6_000) -> Pool:
    return Pool(PoolId(name), "H100", gpus, 64, 512, False, idle_w, typical_w, typical_w, 4)


def site(name: str, *pools: Pool, phases: tuple[Phase, ...] = (), outages: tuple[Outage, ...] = ()) -> Site:
    pue = Pue.constant(1.2)
    return Site(SiteId(name), name, 48.0, 2.0, 9_999, pue, Engine.SIMULATED, Mode.DRIVE, pools, phases, outages)


def fleet_of(*sites: Site) -> Fleet:
    return Fleet("test", sites, (), Tenant(TenantId("all"), "all", 1, None, ()))


def supply_of(wh: list[int]) -> SupplySeries:
    series = np.array(wh, dtype=np.int64)
    return SupplySeries("test", True, None, START_S, len(wh), series)


def attempts_of(*rows: tuple[int, int, int, int]) -> Attempts:
    """(start, end, pool, gpu_milli), seconds from START_S."""
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 4)
    return Attempts(table[:, 0] + START_S, table[:, 1] + START_S, table[:, 2].astype(np.int32), table[:, 3].copy())


def settled(
    fleet: Fleet, attempts: Attempts, presence: tuple[Presence, ...], pue: Float64Array, supply: list[int]
) -> EnergyBooks:
    return settle(fleet, attempts, presence, pue, supply_of(supply), START_S, pue.shape[1])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Fleet, Attempts, tuple[Presence, ...], Float64Array, list[int]]:
    """Small fleets that may be quite full: attempts are kept while their pool has room in every second."""
    hours = draw(st.integers(1, 5))
    shapes = draw(st.lists(st.lists(st.integers(1, 8), min_size=1, max_size=2), min_size=1, max_size=3))
    powers = st.tuples(st.integers(1, 2_000), st.integers(0, 8_000))
    sites, presence = [], []
    second = st.integers(-HOUR_S, (hours + 1) * HOUR_S)
    for s, gpus in enumerate(shapes):
        made = []
        for p, count in enumerate(gpus):
            idle, more = draw(powers)
            made.append(pool(f"p{s}{p}", count, idle, idle + more))
            openings = draw(st.lists(st.tuples(second, st.integers(0, 2)), min_size=1, max_size=2))
            outages = draw(st.lists(st.tuples(second, second), max_size=2))
            presence.append(
                Presence(
                    tuple((START_S + at, n) for at, n in openings),
                    tuple((START_S + a, START_S + b) for a, b in outages),
                )
            )
        sites.append(site(f"s{s}", *made))
    fleet = fleet_of(*sites)
    pools = [p for _, p in fleet.pools()]
    kept: list[tuple[int, int, int, int]] = []
    span = (hours + 2) * HOUR_S
    free = []
    for index, there in enumerate(presence):
        room = np.zeros(span, dtype=np.int64)  # [second from START_S - 1 h]
        for at, n in there.openings:
            room[at - START_S + HOUR_S :] += n * pools[index].gpus_per_node * GPU_MILLI
        for a, b in there.outages:
            room[a - START_S + HOUR_S : max(a, b) - START_S + HOUR_S] = 0
        free.append(room)
    wanted = st.tuples(
        second,
        st.integers(0, 3 * HOUR_S),
        st.integers(0, len(pools) - 1),
        st.sampled_from([0, 1, 125, 333, 1_000, 2_000]),
    )
    for begin, length, p, milli in draw(st.lists(wanted, max_size=25)):
        end = min(begin + length, (hours + 1) * HOUR_S)
        window = free[p][begin + HOUR_S : end + HOUR_S]
        if len(window) == 0 or window.min() >= milli:
            window -= milli
            kept.append((begin, max(begin, end), p, milli))
    if draw(st.booleans()):  # fill every free second of the first pool, cut into tiny holders: no idle is left
        least = int(free[0][HOUR_S : (hours + 1) * HOUR_S].min())
        kept += [(0, hours * HOUR_S, 0, 1)] * min(least, 700) + [(0, hours * HOUR_S, 0, max(least - 700, 0))]
    pue = draw(
        st.lists(st.sampled_from([1.0, 1.5, 1.08, 1.18, 3.0]), min_size=len(sites) * hours, max_size=len(sites) * hours)
    )
    supply = draw(st.lists(st.integers(0, 60_000), min_size=hours, max_size=hours))
    return fleet, attempts_of(*kept), tuple(presence), np.array(pue).reshape(len(sites), hours), supply


def reference_it_wh(
    fleet: Fleet, attempts: Attempts, presence: tuple[Presence, ...], hours: int
) -> list[list[Fraction]]:
    """[site][hour] IT energy in exact Wh: walks the moments at which anything changes."""
    pools = list(fleet.pools())
    result = [[Fraction(0)] * hours for _ in fleet.sites]
    for index, (owner, pool_) in enumerate(pools):
        there = presence[index]
        moments = {START_S + hour * HOUR_S for hour in range(hours + 1)}
        moments |= {at for at, _ in there.openings} | {at for window in there.outages for at in window}
        mine = [k for k in range(len(attempts)) if attempts.pool[k] == index]
        moments |= {int(attempts.start_s[k]) for k in mine} | {int(attempts.end_s[k]) for k in mine}
        for a, b in zip(sorted(moments), sorted(moments)[1:], strict=False):
            hour = (a - START_S) // HOUR_S
            if not 0 <= hour < hours:
                continue
            nodes = sum(n for at, n in there.openings if at <= a)
            if any(x <= a < y for x, y in there.outages):
                nodes = 0
            held = sum(int(attempts.gpu_milli[k]) for k in mine if attempts.start_s[k] <= a < attempts.end_s[k])
            busy_w = Fraction(books.gpu_power_mw(pool_, pool_.node_typical_w), 1_000)
            idle_w = Fraction(books.gpu_power_mw(pool_, pool_.node_idle_w), 1_000)
            power_w = Fraction(held, 1_000) * busy_w + (nodes * pool_.gpus_per_node - Fraction(held, 1_000)) * idle_w
            result[fleet.sites.index(owner)][hour] += power_w * (b - a) / HOUR_S
    return result


@settings(max_examples=60, deadline=None)
@given(cases())
def test_books_equal_a_slow_reference_and_parts_equal_the_meter(
    case: tuple[Fleet, Attempts, tuple[Presence, ...], Float64Array, list[int]],
) -> None:
    fleet, attempts, presence, pue, supply = case
    hours = pue.shape[1]
    result = settled(fleet, attempts, presence, pue, supply)
    reference = reference_it_wh(fleet, attempts, presence, hours)
    for s in range(len(fleet.sites)):
        for hour in range(hours):
            exact = reference[s][hour]
            assert result.it_wh[s, hour] == exact.numerator // exact.denominator
            assert result.site_wh[s, hour] == round(exact * Fraction(round(pue[s, hour] * 10**6), 10**6))
    # meter = jobs + idle + overhead, nothing negative
    assert np.array_equal(result.job_wh + result.idle_wh, result.it_wh)
    assert np.array_equal(result.job_wh + result.idle_wh + result.overhead_wh, result.site_wh)
    assert min(a.min() for a in (result.job_wh, result.idle_wh, result.overhead_wh)) >= 0
    assert int(result.attempt_wh.sum()) == int(result.job_wh.sum())
    # each receipt is within 1 Wh per hour touched of the exact energy
    pools = [p for _, p in fleet.pools()]
    for k in range(len(attempts)):
        a, b = max(0, int(attempts.start_s[k]) - START_S), min(hours * HOUR_S, int(attempts.end_s[k]) - START_S)
        milliwatt = books.gpu_power_mw(pools[attempts.pool[k]], pools[attempts.pool[k]].node_typical_w)
        joule = Fraction(int(attempts.gpu_milli[k]) * milliwatt * max(0, b - a), 1_000_000)
        touched = max(0, -(-b // HOUR_S) - a // HOUR_S)
        assert abs(int(result.attempt_wh[k]) - joule / HOUR_S) < max(touched, 1)
    # one ledger, shares that sum to it
    assert np.array_equal(result.matched_wh, np.minimum(result.site_wh.sum(axis=0), supply))
    assert np.array_equal(result.site_matched_wh.sum(axis=0), result.matched_wh)
    assert np.array_equal(result.site_supply_wh.sum(axis=0), result.supply_wh)
    assert (result.site_matched_wh <= result.site_wh).all()
    assert (result.site_matched_wh <= result.site_supply_wh).all()
    assert result.unmatched_wh >= 0 <= result.surplus_wh


@settings(max_examples=25, deadline=None)
@given(cases())
def test_each_kernel_equals_its_plain_python(
    case: tuple[Fleet, Attempts, tuple[Presence, ...], Float64Array, list[int]],
) -> None:
    fleet, attempts, presence, pue, supply = case
    columns = (attempts.start_s, attempts.end_s, attempts.pool, attempts.gpu_milli)
    pools = list(fleet.pools())
    hours = pue.shape[1]
    held = books.busy_time(*columns, len(pools), START_S, hours)
    assert np.array_equal(held, books.busy_time.py_func(*columns, len(pools), START_S, hours))
    owner = np.array([fleet.sites.index(s) for s, _ in pools], dtype=np.int64)
    power = np.array([books.gpu_power_mw(p, p.node_typical_w) for _, p in pools], dtype=np.int64)
    more = (*columns, owner, power, len(fleet.sites), START_S, hours)
    for compiled, plain in zip(books.job_entries(*more), books.job_entries.py_func(*more), strict=True):
        assert np.array_equal(compiled, plain)
    result = settled(fleet, attempts, presence, pue, supply)
    ppm = np.rint(pue * 1_000_000).astype(np.int64)
    energy = result.it_wh * books.UWS_PER_WH + 1_234_567_890
    assert np.array_equal(books.metered_wh(energy, ppm), books.metered_wh.py_func(energy, ppm))
    for total in (result.supply_wh, result.matched_wh):
        assert np.array_equal(books.allot(total, result.site_wh), books.allot.py_func(total, result.site_wh))


def test_meter_rounds_half_to_even() -> None:
    energy = np.array([[1, 3, 5]], dtype=np.int64) * (books.UWS_PER_WH // 2)
    assert books.metered_wh(energy, np.full((1, 3), 1_000_000)).tolist() == [[0, 2, 2]]


@given(st.integers(0, 5_400_000_000_000_000_000), st.integers(1_000_000, 3_000_000))
def test_meter_is_exact_up_to_the_largest_site(energy_uws: int, pue_ppm: int) -> None:
    exact = round(Fraction(energy_uws * pue_ppm, 1_000_000 * books.UWS_PER_WH))
    assert int(books.metered_wh(np.array([[energy_uws]]), np.array([[pue_ppm]]))[0, 0]) == exact


@given(st.integers(0, 3_000_000_000), st.lists(st.integers(0, 1_000_000_000), min_size=1, max_size=3))
def test_allotted_shares_sum_to_the_total_and_stay_within_one_of_their_quota(total: int, weights: list[int]) -> None:
    share = books.allot(np.array([total]), np.array(weights, dtype=np.int64)[:, None])[:, 0].tolist()
    assert sum(share) == total
    basis = sum(weights) or len(weights)
    for got, weight in zip(share, weights if sum(weights) else [1] * len(weights), strict=True):
        assert abs(got - Fraction(total * weight, basis)) < 1


def test_a_full_site_whose_remainders_fall_due_together_never_shows_negative_idle() -> None:
    """Rounding each attempt's own running total would book 0 Wh, then 1,000 Wh, against 500 Wh an hour on the meter."""
    small = pool("p", gpus=1, idle_w=500, typical_w=500)
    rows = [(0, 2 * HOUR_S, 0, 1)] * 1_000
    result = settled(fleet_of(site("s", small)), attempts_of(*rows), (Presence(((0, 1),)),), np.ones((1, 2)), [0, 0])
    assert result.job_wh.tolist() == [[500, 500]]
    assert result.idle_wh.tolist() == [[0, 0]]


def test_a_node_draws_idle_power_when_free_and_typical_power_when_all_its_gpus_are_held() -> None:
    fleet = fleet_of(site("s", pool("p")))
    result = settled(
        fleet, attempts_of((HOUR_S, 2 * HOUR_S, 0, 8_000)), (Presence(((0, 1),)),), np.ones((1, 2)), [0, 0]
    )
    assert result.it_wh.tolist() == [[1_500, 6_000]]
    assert result.attempt_wh.tolist() == [6_000]


def test_cpu_only_attempts_draw_nothing_extra() -> None:
    result = settled(
        fleet_of(site("s", pool("p"))), attempts_of((0, HOUR_S, 0, 0)), (Presence(((0, 1),)),), np.ones((1, 1)), [0]
    )
    assert result.job_wh.tolist() == [[0]]
    assert result.idle_wh.tolist() == [[1_500]]


def test_attempts_are_cut_at_the_horizon() -> None:
    result = settled(
        fleet_of(site("s", pool("p"))),
        attempts_of((-9_000, 9 * HOUR_S, 0, 8_000), (-10, 0, 0, 8_000), (HOUR_S, HOUR_S + 5, 0, 0)),
        (Presence(((0, 1),)),),
        np.ones((1, 1)),
        [0],
    )
    assert result.attempt_wh.tolist() == [6_000, 0, 0]


def test_nodes_draw_nothing_before_they_open_nor_in_an_outage() -> None:
    opens = datetime.fromtimestamp(START_S + 1_800, UTC)
    down = datetime.fromtimestamp(START_S + HOUR_S, UTC)
    back = datetime.fromtimestamp(START_S + 2 * HOUR_S, UTC)
    here = site(
        "s",
        pool("p"),
        pool("q"),
        phases=(Phase("one", opens, ((PoolId("p"), 2), (PoolId("q"), 1))),),
        outages=(Outage(down, back, (PoolId("p"),), "works"),),
    )
    fleet = fleet_of(here)
    result = settled(fleet, attempts_of(), presence_of(fleet), np.ones((1, 3)), [0, 0, 0])
    assert result.it_wh.tolist() == [[2_250, 1_500, 4_500]]


def test_holding_more_gpus_than_were_on_is_our_own_mistake() -> None:
    with pytest.raises(InvariantBroken, match="s/p: attempts hold 9"):
        settled(
            fleet_of(site("s", pool("p"))),
            attempts_of((0, HOUR_S, 0, 9_000)),
            (Presence(((0, 1),)),),
            np.ones((1, 1)),
            [0],
        )


@pytest.mark.parametrize(
    ("pue", "rows", "message"),
    [
        (np.ones((2, 1)), (), "pue has the shape"),
        (np.full((1, 1), np.nan), (), "PUE lies between"),
        (np.full((1, 1), 0.9), (), "PUE lies between"),
        (np.ones((1, 1)), ((0, 1, 1, 0),), "does not have"),
        (np.ones((1, 1)), ((0, 1, -1, 0),), "does not have"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(
    pue: Float64Array, rows: tuple[tuple[int, int, int, int], ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        settled(fleet_of(site("s", pool("p"))), attempts_of(*rows), (Presence(((0, 1),)),), pue, [0])


@pytest.mark.parametrize("row", [(5, 4, 0, 0), (0, 1, 0, -1), (0, 1, 0, 10**12)])
def test_impossible_attempts_cannot_be_built(row: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="an attempt"):
        attempts_of(row)


def test_without_load_there_is_no_share() -> None:
    result = settled(fleet_of(site("s", pool("p"))), attempts_of(), (Presence(()),), np.ones((1, 1)), [10])
    assert result.hourly_matched_share is None
    assert result.annual_ratio is None
    assert result.utilisation is None
    assert result.surplus_wh == 10


def test_what_was_seen_to_run_was_on_and_what_is_simulated_must_have_room() -> None:
    fleet = fleet_of(site("paris", pool("p", gpus=8)))
    attempts = attempts_of((0, HOUR_S, 0, 12 * GPU_MILLI))
    given = (fleet, attempts, (Presence(((0, 1),)),), np.full((1, 2), 1.0), supply_of([0, 0]), START_S, 2)
    with pytest.raises(InvariantBroken, match=r"12\.000 GPUs on average"):
        settle(*given)
    seen = settle(*given, were_seen=True)
    assert seen.job_wh.tolist() == [[12 * 750, 0]]
    assert seen.idle_wh.tolist() == [[0, 1_500]]


@given(case=cases(), share=st.floats(0, 1))
@settings(max_examples=60)
def test_the_first_attempts_can_be_told_from_the_rest(
    case: tuple[Fleet, Attempts, tuple[Presence, ...], Float64Array, list[int]], share: float
) -> None:
    fleet, attempts, presence, pue, supply = case
    hours = pue.shape[1]
    first = round(share * len(attempts))
    part = Attempts(attempts.start_s[:first], attempts.end_s[:first], attempts.pool[:first], attempts.gpu_milli[:first])
    whole = entries_wh(fleet, attempts, START_S, hours)
    assert np.array_equal(whole, settled(fleet, attempts, presence, pue, supply).job_wh)
    assert bool(np.all(entries_wh(fleet, part, START_S, hours) <= whole))
