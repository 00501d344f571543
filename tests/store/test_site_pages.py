"""Pages of the jobs that people gave to sites: complete and in order, whatever the filter and whatever is added."""

import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.postgres import Cluster
from tests.store.requests import OTHER, TEAM, leading, site_job
from watteau.domain.requests import JobState
from watteau.domain.sites import SiteJob
from watteau.domain.units import SiteId, TenantId
from watteau.store.store import SiteJobFilter, Store

TENANTS = [TEAM, OTHER, *(TenantId(f"t{number}") for number in range(20))]
NAMES = ["train", "Train-BERT", "eval_7%", "Überprüfung", "50%", "back\\slash"]
SITES = [SiteId("paris"), SiteId("mulhouse"), SiteId("marseille")]
USERS = ["zoe", "yann", "ada"]


def all_pages(store: Store, only: SiteJobFilter, limit: int) -> list[SiteJob]:
    found: list[SiteJob] = []
    cursor: str | None = None
    while True:
        page = store.site_jobs(only, limit, cursor)
        assert len(page.jobs) <= limit
        found += page.jobs
        cursor = page.next_cursor
        if cursor is None:
            return found
        assert len(page.jobs) == limit, "only the last page may be shorter"


def lets_through(only: SiteJobFilter, job: SiteJob) -> bool:
    """What a filter means, said plainly."""
    since_ms, until_ms, ended_ms = only.submitted_since_ms, only.submitted_until_ms, only.ended_since_ms
    return (
        (not only.sites or job.site in only.sites)
        and (only.tenants is None or job.tenant in only.tenants)
        and (not only.users or job.user in only.users)
        and (not only.states or job.state in only.states)
        and only.name_contains.casefold() in job.name.casefold()
        and (not only.engine_id or job.engine_id == only.engine_id)
        and (since_ms is None or job.submitted_ms >= since_ms)
        and (until_ms is None or job.submitted_ms < until_ms)
        and (ended_ms is None or job.ended_ms is None or job.ended_ms >= ended_ms)
    )


def fill(store: Store) -> list[SiteJob]:
    """Some hundred jobs of all sorts, newest first; many were submitted in the same second."""
    states = list(JobState)
    jobs = [
        site_job(
            str(number % 50),
            number // 7 * 1_000,
            states[number % 9],
            site=SITES[number % 3],
            user=USERS[number // 2 % 3],
            tenant=TENANTS[number * 7 % len(TENANTS)],
            name=NAMES[number % len(NAMES)],
            ended_ms=number * 1_000 if states[number % 9].is_end else None,
        )
        for number in range(400)
    ]
    lease = leading(store)
    # As they come: one site after the other, and of each the newest first.
    for site in SITES:
        for first in (270, 200, 0):
            of_site = [job for job in jobs[first : {270: 400, 200: 270, 0: 200}[first]] if job.site == site]
            store.keep_site_jobs(lease, of_site)
    found = all_pages(store, SiteJobFilter(), 1_000)
    assert len(found) == len(set(found)) == len(jobs) == len(set(jobs) | set(found))
    assert [job.submitted_ms for job in found] == sorted((job.submitted_ms for job in jobs), reverse=True)
    return found


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Store, list[SiteJob]]]:
    if request.param == "sqlite":
        with Store(f"sqlite:///{tmp_path_factory.mktemp('pages') / 'watteau.db'}").closing() as store:
            yield store, fill(store)
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with cluster.database() as url, Store(url).closing() as store:
        yield store, fill(store)


TIMES = st.none() | st.integers(-1, 60).map(lambda second: second * 1_000) | st.just(2**62)
FILTERS = st.builds(
    SiteJobFilter,
    sites=st.frozensets(st.sampled_from([*SITES, SiteId("mars")]), max_size=2),
    tenants=st.none() | st.frozensets(st.sampled_from([*TENANTS, TenantId("nobody")])),
    users=st.frozensets(st.sampled_from([*USERS, "nobody"]), max_size=2),
    states=st.frozensets(st.sampled_from(JobState), max_size=4),
    name_contains=st.sampled_from(["", "", "", "t", "rai", "BERT", "_7%", "ÜBER", "%", "\\", "zzz"]),
    engine_id=st.sampled_from(["", "", "", "7", "1000"]),
    submitted_since_ms=TIMES,
    submitted_until_ms=TIMES,
    ended_since_ms=st.none() | st.integers(0, 400_000),
)


@given(only=FILTERS, limit=st.integers(1, 60))
@settings(max_examples=60)
def test_pages_are_complete_in_order_and_as_the_filter_says(
    filled: tuple[Store, list[SiteJob]], only: SiteJobFilter, limit: int
) -> None:
    store, everything = filled
    assert all_pages(store, only, limit) == [job for job in everything if lets_through(only, job)]


def test_of_the_jobs_of_one_second_the_one_that_came_last_is_first(store: Store) -> None:
    lease = leading(store)
    store.keep_site_jobs(lease, [site_job("9", 5_000), site_job("10", 5_000)])
    store.keep_site_jobs(lease, [site_job("8", 4_000), site_job("11", 5_000), site_job("9", 5_000)])
    assert [job.engine_id for job in all_pages(store, SiteJobFilter(), 1)] == ["11", "10", "9", "8"]


def test_what_no_row_can_hold_is_on_no_page(filled: tuple[Store, list[SiteJob]]) -> None:
    store, _ = filled
    impossible = [
        SiteJobFilter(users=frozenset({"a\0b"})),
        SiteJobFilter(name_contains="\ud800"),
        SiteJobFilter(engine_id="\0"),
        SiteJobFilter(sites=frozenset({SiteId("\0")})),
        SiteJobFilter(tenants=frozenset({TenantId("\0")})),
        SiteJobFilter(tenants=frozenset()),
    ]
    for only in impossible:
        assert store.site_jobs(only, 10).jobs == ()


@pytest.mark.parametrize("cursor", ["", "17", "YmVmb3JlOjA", "\0"])
def test_a_cursor_that_is_not_ours_is_refused(filled: tuple[Store, list[SiteJob]], cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        filled[0].site_jobs(SiteJobFilter(), 10, cursor)


def test_a_page_has_at_least_one_job(filled: tuple[Store, list[SiteJob]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        filled[0].site_jobs(SiteJobFilter(), 0)


def test_pages_miss_and_repeat_nothing_while_jobs_come_and_change(url: str, open_store: Callable[[str], Store]) -> None:
    store, other = open_store(url), open_store(url)
    lease = leading(store)
    there = [site_job(str(number), number // 10 * 1_000) for number in range(300)]
    store.keep_site_jobs(lease, there)
    stop = threading.Event()

    def add() -> None:
        number = 300
        while not stop.is_set():
            new = [site_job(str(each), each // 10 * 1_000) for each in range(number, number + 3)]
            changed = site_job(str(number % 300), number % 300 // 10 * 1_000, priority=number)
            other.keep_site_jobs(lease, [*new, changed])
            number += 3

    adding = threading.Thread(target=add)
    adding.start()
    try:
        for only in (
            SiteJobFilter(),
            SiteJobFilter(users=frozenset({"zoe"})),
            SiteJobFilter(tenants=frozenset({TEAM})),
        ):
            keys = [job.key for job in all_pages(store, only, 7)]
            assert len(keys) == len(set(keys))
            assert {job.key for job in there} <= set(keys)
    finally:
        stop.set()
        adding.join()
