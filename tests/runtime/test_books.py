"""The energy books of what ran live: jobs by hand are in, the parts are the meter, and what is not known is said."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.world import leaf, tree
from tests.store.conftest import open_store, store, url
from tests.store.requests import ADA, leading, request, site_job
from watteau.domain.fleet import Contract, Fleet, Mode, Pool, Pue, SlurmAccess, Technology
from watteau.domain.fleet import Engine as EngineKind
from watteau.domain.records import Intends, Place, Starts
from watteau.domain.requests import JobState
from watteau.domain.sites import Held, NodeState, SiteJob, SiteNode
from watteau.domain.units import HOUR_S, ContractId, PoolId, SiteId, TenantId, from_epoch_s
from watteau.energy.supply import WEATHER, CapacityFactors
from watteau.runtime.books import MOST_HOURS, LiveBooks, keep_books
from watteau.store.store import Lease, Store

__all__ = ["open_store", "store", "url"]  # fixtures: each test runs on both databases

HOUR_MS = 3_600_000
ZERO_S = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp())
ZERO_MS = 1000 * ZERO_S
LATER_MS = ZERO_MS + 100 * HOUR_MS
HUB, FAR = SiteId("hub"), SiteId("far")
ALICE, BOB = TenantId("alice"), TenantId("bob")
#: Of 4 GPUs each; a node draws 1,000 W idle and 2,000 W at work.
NODES = 3


def fleet(pue: Pue | None = None, *contracts: Contract) -> Fleet:
    """An observed Slurm site, a simulated one, and one of which nothing is seen."""
    pool = Pool(PoolId("p"), "h100", 4, 32, 64, False, 1_000, 2_000, 3_000, 2)
    one = Fleet.of_one_site("hub", [(pool, NODES)], power_limit_kw=100, pue=pue or Pue.constant(1.25)).sites[0]
    access = SlurmAccess(user="watteau", folder="/shared")
    hub = replace(one, engine=EngineKind.SLURM, mode=Mode.OBSERVE, slurm=access)
    blind = replace(one, id=SiteId("blind"), mode=Mode.OBSERVE)
    return Fleet("three", (hub, replace(one, id=FAR), blind), contracts, tree(leaf("alice"), leaf("bob")))


def contract(mw: float, technology: Technology = Technology.SOLAR) -> Contract:
    return Contract(
        ContractId("c"), technology, mw, 50.0, datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
    )


def half(hours: int = 24 * 366) -> CapacityFactors:
    """Every plant at half of its capacity."""
    first = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    return CapacityFactors("measured", False, first, hours, {each: np.full(hours, 0.5) for each in WEATHER})


def with_nodes(store: Store) -> Lease:
    lease = leading(store)
    nodes = [SiteNode(HUB, f"gpu{n}", PoolId("p"), n, NodeState.UP, "") for n in range(NODES)]
    store.keep_nodes(lease, HUB, nodes)
    return lease


def by_hand(engine_id: str, start_h: float, end_h: float | None, gpus: int = 4, **fields: object) -> SiteJob:
    """A job by hand at the hub, in hours from ZERO."""
    state = JobState.RUNNING if end_h is None else JobState.COMPLETED
    usual: dict[str, object] = {
        "site": HUB,
        "tenant": BOB,
        "gpus": gpus,
        "started_ms": ZERO_MS + round(start_h * HOUR_MS),
        "ended_ms": None if end_h is None else ZERO_MS + round(end_h * HOUR_MS),
        "held": (Held("gpu0", gpus, 8, 1_024),),
    }
    return site_job(engine_id, ZERO_MS, state, **(usual | fields))


def ours(store: Store, lease: Lease, site: SiteId, start_h: float, gpus: int = 2) -> None:
    """A job of alice's that has run there since then."""
    (job,) = store.submit([(request(gpu_milli=1_000 * gpus), ALICE)], ADA, ZERO_MS)
    place = Place(PoolId("p"), 1, tuple(range(gpus)))
    started = Starts(job.job_id, 1, ZERO_MS + round(start_h * HOUR_MS))
    store.record(lease, [Intends(job.job_id, 1, f"watteau-{job.job_id}-1", site, (place,)), started], ZERO_MS)


def books_of(store: Store, since_h: float, until_h: float, now_ms: int = LATER_MS, **more: object) -> LiveBooks:
    given = {"fleet": fleet(), "factors": half(), "tenants": None} | more
    return keep_books(
        store,
        cast(Fleet, given["fleet"]),
        cast("CapacityFactors | None", given["factors"]),
        ZERO_MS + round(since_h * HOUR_MS),
        ZERO_MS + round(until_h * HOUR_MS),
        now_ms,
        cast("frozenset[TenantId] | None", given["tenants"]),
    )


def adds_up(kept: LiveBooks) -> None:
    """B1 to B5, in integers."""
    assert kept.whole is not None
    books = kept.whole.books
    assert np.array_equal(kept.ours_wh + kept.by_hand_wh, books.job_wh)
    assert np.array_equal(kept.ours_wh + kept.by_hand_wh + books.idle_wh + books.overhead_wh, books.site_wh)
    assert min(int(part.min(initial=0)) for part in (kept.ours_wh, kept.by_hand_wh, books.idle_wh)) >= 0
    assert np.array_equal(books.site_wh.sum(axis=0), books.load_wh)
    assert np.array_equal(books.site_matched_wh.sum(axis=0), np.minimum(books.load_wh, books.supply_wh))


def test_jobs_by_hand_of_an_observed_site_are_in_the_books(store: Store) -> None:
    lease = with_nodes(store)
    store.keep_site_jobs(lease, [by_hand("1", 0.5, 2), by_hand("2", 1, 1.5, gpus=1, held=(Held("gpu1", 1, 8, 1),))])
    ours(store, lease, FAR, 1.5)
    kept = books_of(store, 0, 3, fleet=fleet(None, contract(0.008)))
    adds_up(kept)
    assert [site.id for site in kept.fleet.sites] == [HUB, FAR]
    # A GPU at work draws 500 W, a free one 250 W.
    assert kept.by_hand_wh.tolist() == [[1_000, 2_250, 0], [0, 0, 0]]
    assert kept.ours_wh.tolist() == [[0, 0, 0], [0, 500, 1_000]]
    assert kept.whole is not None
    books = kept.whole.books
    assert books.idle_wh.tolist() == [[2_500, 1_875, 3_000], [3_000, 2_750, 2_500]]
    assert books.site_wh.tolist() == [[4_375, 5_156, 3_750], [3_750, 4_062, 4_375]]
    assert books.supply_wh.tolist() == [4_000] * 3
    assert books.matched_wh.tolist() == [4_000] * 3
    assert "sites without an engine are not in: blind" in kept.notes
    assert not kept.whole.supply_synthetic


def test_an_hour_that_is_not_over_is_settled_up_to_now(store: Store) -> None:
    lease = with_nodes(store)
    store.keep_site_jobs(lease, [by_hand("1", 0, None)])
    now_ms = ZERO_MS + HOUR_MS + HOUR_MS // 4
    kept = books_of(store, 0, 50, now_ms, fleet=fleet(None, contract(0.008)))
    adds_up(kept)
    assert (kept.hours, kept.until_s) == (2, now_ms // 1000)
    assert kept.by_hand_wh[0].tolist() == [2_000, 500]
    assert kept.whole is not None
    assert kept.whole.books.idle_wh[0].tolist() == [2_000, 500]
    assert kept.whole.books.supply_wh.tolist() == [4_000, 1_000]


def test_whole_hours_are_settled_whatever_minutes_are_asked_for(store: Store) -> None:
    kept = books_of(store, 0.5, 1.2)
    assert (kept.first_hour_s, kept.hours, kept.until_s) == (ZERO_S, 2, ZERO_S + 2 * HOUR_S)


def test_of_what_is_to_come_there_are_no_books(store: Store) -> None:
    kept = books_of(store, 200, 300)
    assert (kept.hours, kept.by_hand_wh.shape) == (0, (2, 0))
    adds_up(kept)


def test_more_than_a_year_is_not_settled_at_once(store: Store) -> None:
    now_ms = ZERO_MS + 2 * MOST_HOURS * HOUR_MS
    assert books_of(store, 0, MOST_HOURS, now_ms, tenants=frozenset()).hours == MOST_HOURS
    with pytest.raises(ValueError, match="8,785 hours; at most 8,784"):
        books_of(store, 0, MOST_HOURS + 1, now_ms)


def test_an_hour_has_the_same_figures_whatever_span_it_is_asked_for_in(store: Store) -> None:
    """Weather that is made up must not depend on the question, over new year and on 29 February either."""
    curve = Pue((0.0, 30.0), (1.1, 1.4))
    given = {"fleet": fleet(curve, contract(5.0)), "factors": None}
    year_h = (int(datetime(2028, 1, 1, tzinfo=UTC).timestamp()) - ZERO_S) // HOUR_S
    now_ms = ZERO_MS + 3 * MOST_HOURS * HOUR_MS
    long = books_of(store, year_h - 30, year_h + 60 * 24, now_ms, **given)
    adds_up(long)
    for first in (-30, -2, 0, 17, 58 * 24 + 5, 59 * 24 + 7):
        short = books_of(store, year_h + first, year_h + first + 5, now_ms, **given)
        assert long.whole is not None
        assert short.whole is not None
        at = slice(first + 30, first + 35)
        for figures in ("site_wh", "supply_wh"):
            want = getattr(long.whole.books, figures)[..., at]
            assert np.array_equal(getattr(short.whole.books, figures), want), f"{figures} from hour {first}"
    assert long.whole is not None
    assert long.whole.supply_synthetic
    assert "supply: synthetic, by the calibrated generator, seed 0" in long.notes
    assert "PUE of hub, far: by synthetic outdoor temperatures" in long.notes


def test_only_the_energy_of_their_own_jobs_is_told_to_some_tenants(store: Store) -> None:
    lease = with_nodes(store)
    store.keep_site_jobs(
        lease, [by_hand("1", 0, 2), by_hand("2", 0, 1, gpus=2, tenant=ALICE, held=(Held("gpu1", 2, 1, 1),))]
    )
    ours(store, lease, FAR, 0)
    alice = books_of(store, 0, 2, tenants=frozenset({ALICE}))
    assert alice.ours_wh.tolist() == [[0, 0], [1_000, 1_000]]
    assert alice.by_hand_wh.tolist() == [[1_000, 0], [0, 0]]
    assert alice.whole is None
    bob = books_of(store, 0, 2, tenants=frozenset({BOB}))
    assert (bob.ours_wh.sum(), bob.by_hand_wh.tolist()) == (0, [[2_000, 2_000], [0, 0]])
    nobody = books_of(store, 0, 2, tenants=frozenset())
    assert (nobody.ours_wh.sum(), nobody.by_hand_wh.sum(), nobody.whole) == (0, 0, None)


def test_what_was_seen_to_run_was_on_whatever_the_fleet_file_says(store: Store) -> None:
    """A site's clock goes wrong, or it has more nodes than the file: its people's jobs ran all the same."""
    lease = with_nodes(store)
    store.keep_site_jobs(lease, [by_hand(str(number), 0, 1, started_ms=ZERO_MS) for number in range(5)])
    kept = books_of(store, 0, 1)
    adds_up(kept)
    assert kept.by_hand_wh[0].tolist() == [5 * 2_000]
    assert kept.whole is not None
    assert kept.whole.books.idle_wh[0].tolist() == [0]


def test_times_that_contradict_each_other_draw_nothing(store: Store) -> None:
    lease = with_nodes(store)
    store.keep_site_jobs(lease, [by_hand("1", 2, 0.5), by_hand("2", 1, 1)])
    kept = books_of(store, 0, 3)
    adds_up(kept)
    assert kept.by_hand_wh.sum() == 0


def test_what_cannot_be_placed_is_said(store: Store) -> None:
    lease = with_nodes(store)
    store.keep_site_jobs(lease, [by_hand("1", 0, 1.5, held=()), by_hand("2", 0, 1, site=SiteId("gone"))])
    ours(store, lease, SiteId("gone"), 0)
    kept = books_of(store, 0, 2)
    adds_up(kept)
    assert (kept.by_hand_wh.sum(), kept.ours_wh.sum()) == (0, 0)
    assert set(kept.notes) >= {
        "hub: 6.0 GPU-hours of jobs by hand on nodes of no pool are not in",
        "gone: 4.0 GPU-hours of jobs by hand on nodes of no pool are not in",
        "gone/p: 4.0 GPU-hours are not in: the fleet has no such pool with an engine",
    }


def test_a_fleet_without_engines_has_no_books(store: Store) -> None:
    blind = replace(fleet(), sites=fleet().sites[2:])
    kept = books_of(store, 0, 2, fleet=blind)
    assert (kept.fleet.sites, kept.hours, kept.ours_wh.shape, kept.whole) == ((), 2, (0, 2), None)


SPANS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 5 * HOUR_S), st.integers(0, 3 * HOUR_S), st.integers(1, 4)), max_size=12
)


@given(spans=SPANS, now_s=st.integers(0, 6 * HOUR_S))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_parts_are_the_meter_to_the_watt_hour(
    store: Store, spans: list[tuple[int, int, int, int]], now_s: int
) -> None:
    lease = with_nodes(store)
    jobs = [
        by_hand(
            str(number),
            start_s / HOUR_S,
            (start_s + length_s) / HOUR_S,
            gpus,
            held=(Held(f"gpu{node}", gpus, 1, 1),),
        )
        for number, (node, start_s, length_s, gpus) in enumerate(spans)
    ]
    store.keep_site_jobs(lease, jobs)
    kept = books_of(store, 0, 6, ZERO_MS + 1000 * now_s, fleet=fleet(Pue.constant(1.237), contract(0.007)))
    adds_up(kept)
    assert from_epoch_s(kept.until_s) <= from_epoch_s(ZERO_S + now_s)
