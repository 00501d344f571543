"""Sites that others use, too: what operators said of them, and what they showed, written only by whoever leads."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from sqlalchemy import create_engine

from tests.postgres import Cluster
from tests.store.requests import HERE, intends, leading, site_job, submitted
from watteau.domain.fleet import Mode
from watteau.domain.requests import JobState
from watteau.domain.sites import Held, NodeState, ShadowDecision, SiteJob, SiteNode, SiteSetting
from watteau.domain.units import PoolId, SiteId
from watteau.store import leadership, sites
from watteau.store.store import Lease, LeaseLost, SiteJobFilter, Store

THERE = SiteId("there")
H100 = PoolId("h100")


def all_jobs(store: Store) -> tuple[SiteJob, ...]:
    return store.site_jobs(SiteJobFilter(), 10_000).jobs


def node(name: str, number: int, state: NodeState = NodeState.UP, why: str = "", site: SiteId = HERE) -> SiteNode:
    return SiteNode(site, name, H100, number, state, why)


# --- what operators said ---------------------------------------------------------------------------------------------


def test_the_last_word_on_a_site_counts_and_each_word_raises_the_version(store: Store) -> None:
    assert (store.settings_version(), store.site_settings()) == (0, [])
    first = SiteSetting(THERE, Mode.OBSERVE, False, "new here", "zoe", 1_000)
    fence = SiteSetting(HERE, Mode.DRIVE, True, "the hall burns \ud800", "ada", 2_000)
    last = SiteSetting(THERE, Mode.DRIVE, False, "", "ada", 3_000)
    versions = []
    for setting in (first, fence, last):
        store.set_site(setting)
        versions.append(store.settings_version())
    assert versions == [1, 2, 3]
    assert store.site_settings() == [replace(fence, why="the hall burns ?"), last]
    store.set_site(last)
    assert store.settings_version() == 4, "saying it again is saying something"


def test_whoever_said_something_of_a_site_is_in_the_audit_log(store: Store) -> None:
    store.set_site(SiteSetting(HERE, Mode.DRIVE, True, "the hall burns", "ada", 2_000))
    (line,) = store.audit_lines(0, 10)
    assert (line.at_ms, line.user, line.action, line.target) == (2_000, "ada", "set_site", "site here")
    assert line.data == {"mode": "drive", "fenced": True, "why": "the hall burns"}


def test_of_many_words_at_once_none_has_the_version_of_another(url: str, open_store: Callable[[str], Store]) -> None:
    stores = [open_store(url) for _ in range(4)]
    barrier = threading.Barrier(len(stores))

    def say(number: int) -> None:
        barrier.wait()
        for turn in range(5):
            stores[number].set_site(SiteSetting(SiteId(f"s{number}"), Mode.SHADOW, False, "", "ada", turn))

    threads = [threading.Thread(target=say, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores[0].settings_version() == 20
    assert len(stores[0].site_settings()) == 4


# --- nodes -----------------------------------------------------------------------------------------------------------


def test_nodes_are_as_they_were_shown_last(store: Store) -> None:
    lease = leading(store)
    store.keep_nodes(lease, HERE, [node("gpu10", 9), node("gpu2", 1), node("gpu1", 0)])
    store.keep_nodes(lease, THERE, [node("gpu1", 0, site=THERE)])
    drained = node("gpu2", 1, NodeState.DRAINED, "fan broken\0")
    store.keep_nodes(lease, HERE, [drained])
    store.keep_nodes(lease, HERE, [])
    assert store.site_nodes(HERE) == [
        node("gpu1", 0),
        replace(drained, why="fan broken\N{REPLACEMENT CHARACTER}"),
        node("gpu10", 9),
    ]
    assert store.site_nodes(THERE) == [node("gpu1", 0, site=THERE)]
    assert store.site_nodes(SiteId("mars")) == []


def test_nodes_of_another_site_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="nodes of there are given as nodes of here"):
        store.keep_nodes(leading(store), HERE, [node("gpu1", 0), node("gpu2", 1, site=THERE)])
    assert store.site_nodes(HERE) == []


# --- jobs by hand ----------------------------------------------------------------------------------------------------


def test_a_job_by_hand_is_read_back_as_it_was_seen(store: Store) -> None:
    seen = site_job(
        "1234_7",
        1_700_000_000_000,
        JobState.OUT_OF_MEMORY,
        name="entraînement \N{BRAIN} 'x'",
        eligible_ms=1_700_000_000_500,
        exit_code=1,
        signal=9,
        cause="Killed by the kernel: out of memory.",
        restarts=2,
        workers=2,
        held=(Held("gpu1", 8, 64, 4_096), Held("gpu2", 8, 64, 4_096)),
    )
    waits = site_job("99", 1_700_000_001_000, tasks=40, time_limit_s=0)
    store.keep_site_jobs(leading(store), [seen, waits])
    assert all_jobs(store) == (waits, seen)
    assert store.live_site_jobs(HERE) == [waits]
    assert store.live_site_jobs(THERE) == []


def test_what_was_seen_twice_is_there_once(store: Store) -> None:
    lease = leading(store)
    jobs = [site_job(str(number), number // 50 * 1_000, JobState.RUNNING) for number in range(2_000)]
    store.keep_site_jobs(lease, jobs)
    before = all_jobs(store)
    store.keep_site_jobs(lease, jobs)
    store.keep_site_jobs(lease, list(reversed(jobs)))
    assert all_jobs(store) == before == tuple(reversed(jobs))
    store.keep_site_jobs(lease, [])
    store.keep_site_jobs(lease, [jobs[0], replace(jobs[0], priority=99)])
    assert all_jobs(store) == (*before[:-1], replace(jobs[0], priority=99)), "given twice: the last one counts"


def test_a_jobs_life_is_its_last_sight(store: Store) -> None:
    lease = leading(store)
    runs = site_job("7", state=JobState.RUNNING)
    again = site_job("7", reason="BeginTime", restarts=1)
    ended = site_job("7", state=JobState.COMPLETED, exit_code=0)
    for seen in (site_job("7"), runs, again, runs):
        store.keep_site_jobs(lease, [seen])
        assert store.live_site_jobs(HERE) == [seen]
    store.keep_site_jobs(lease, [ended])
    assert (store.live_site_jobs(HERE), all_jobs(store)) == ([], (ended,))
    store.keep_site_jobs(lease, [again])
    assert store.live_site_jobs(HERE) == [again], "the site says that it was put back into the queue"


def test_where_an_ended_job_was_is_not_forgotten_with_its_end(store: Store) -> None:
    """The energy books need it, and a scheduler no longer says it."""
    lease = leading(store)
    runs = site_job("7", state=JobState.RUNNING)
    store.keep_site_jobs(lease, [runs])
    ended = site_job("7", state=JobState.FAILED, held=())
    store.keep_site_jobs(lease, [ended])
    assert all_jobs(store) == (replace(ended, held=runs.held),)
    moved = replace(ended, held=(Held("gpu9", 4, 8, 1_024),))
    store.keep_site_jobs(lease, [moved])
    assert all_jobs(store) == (moved,)
    store.keep_site_jobs(lease, [site_job("7")])
    assert all_jobs(store) == (site_job("7"),), "one that waits again is nowhere"


def test_an_id_that_a_scheduler_gives_again_is_another_job(store: Store) -> None:
    lease = leading(store)
    jobs = [site_job("7", 1_000), site_job("7", 2_000), site_job("7", 1_000, site=THERE)]
    store.keep_site_jobs(lease, jobs)
    assert set(all_jobs(store)) == set(jobs)
    assert store.live_site_jobs(HERE) == jobs[:2]
    assert store.live_site_jobs(THERE) == jobs[2:]


def test_what_people_write_may_hold_anything(store: Store) -> None:
    odd = site_job("7", name="a\0b \ud800", cause="\0", partition="':; --", user='"', reason="ünïcode")
    store.keep_site_jobs(leading(store), [odd])
    kept = replace(odd, name="a\N{REPLACEMENT CHARACTER}b ?", cause="\N{REPLACEMENT CHARACTER}")
    assert all_jobs(store) == (kept,)


@pytest.mark.parametrize("submitted_ms", [-5, 0, 2**43, 2**62])
def test_a_time_that_no_clock_shows_is_kept_all_the_same(store: Store, submitted_ms: int) -> None:
    jobs = [site_job(str(number), submitted_ms) for number in range(3)]
    store.keep_site_jobs(leading(store), jobs)
    assert all_jobs(store) == tuple(reversed(jobs))


def test_two_sites_that_write_at_once_do_not_meet(url: str, open_store: Callable[[str], Store]) -> None:
    """Each site has a thread of its own, and their jobs may have been submitted in the same second."""
    stores = [open_store(url) for _ in range(4)]
    lease = leading(stores[0])
    barrier = threading.Barrier(len(stores))
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            barrier.wait()
            for first in range(0, 200, 20):
                jobs = [site_job(str(first + each), 1_000, site=SiteId(f"s{number}")) for each in range(20)]
                stores[number].keep_site_jobs(lease, jobs)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(set(all_jobs(stores[0]))) == 800


# --- decisions in shadow ---------------------------------------------------------------------------------------------


def decision(engine_id: str, submitted_ms: int, decided_ms: int = 9_000, site: SiteId = HERE) -> ShadowDecision:
    return ShadowDecision(site, engine_id, submitted_ms, decided_ms, ("gpu1", "gpu1", "gpu2"))


def test_the_first_decision_in_shadow_stays(store: Store) -> None:
    lease = leading(store)
    first = [decision("8", 2_000), decision("7", 1_000), decision("7", 1_000, site=THERE)]
    store.keep_shadow(lease, first)
    store.keep_shadow(lease, [decision("7", 1_000, decided_ms=99_000), decision("9", 2_000), decision("9", 2_000, 10)])
    store.keep_shadow(lease, [])
    assert store.shadow_decisions(HERE, 0, 10_000) == [decision("7", 1_000), decision("8", 2_000), decision("9", 2_000)]
    assert store.shadow_decisions(HERE, 1_000, 2_000) == [decision("7", 1_000)]
    assert store.shadow_decisions(HERE, -1, 2**70) == store.shadow_decisions(HERE, 0, 10_000)
    assert store.shadow_decisions(THERE, 0, 10_000) == [decision("7", 1_000, site=THERE)]


# --- who may write ---------------------------------------------------------------------------------------------------

WRITES: dict[str, Callable[[Store, Lease], None]] = {
    "nodes": lambda store, lease: store.keep_nodes(lease, HERE, [node("gpu1", 0)]),
    "jobs by hand": lambda store, lease: store.keep_site_jobs(lease, [site_job("7")]),
    "decisions in shadow": lambda store, lease: store.keep_shadow(lease, [decision("7", 1_000)]),
}


def picture(store: Store) -> Sequence[object]:
    return store.site_nodes(HERE), all_jobs(store), store.shadow_decisions(HERE, 0, 10_000)


@pytest.mark.parametrize("what", WRITES)
def test_a_lease_that_was_lost_writes_nothing(store: Store, what: str) -> None:
    old = store.lead("one", 1_000, 1)
    assert old is not None
    threading.Event().wait(0.05)  # PostgreSQL goes by its own clock
    new = store.lead("two", 2_000, 60_000)
    assert new is not None
    empty = picture(store)
    with pytest.raises(LeaseLost, match="one no longer leads"):
        WRITES[what](store, old)
    assert picture(store) == empty
    WRITES[what](store, new)
    assert picture(store) != empty


def test_what_a_site_shows_holds_up_no_cycle(postgres: Cluster, open_store: Callable[[str], Store]) -> None:
    """On PostgreSQL, where two may write at once. Were one to wait for the other, it would give up after 10 s."""
    with postgres.database() as url:
        store = open_store(url)
        lease = leading(store)
        (job_id,) = submitted(store)
        engine = create_engine(url)
        with engine.begin() as connection:
            leadership.insist(connection, lease)
            sites.keep_jobs(connection, [site_job("7")])
            store.record(lease, [intends(job_id)], 2_000)
            submitted(store)
            assert store.live_site_jobs(HERE) == [], "it is not committed yet"
        engine.dispose()
        assert store.live_site_jobs(HERE) == [site_job("7")]
