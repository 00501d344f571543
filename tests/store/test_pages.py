"""Pages of jobs: complete, in order and without duplicates, whatever the filter and whatever happens meanwhile."""

import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.postgres import Cluster
from tests.store.requests import ADA, BOB, OTHER, TEAM, array, ends, intends, leading, request, submitted
from watteau.domain.records import JobRecord
from watteau.domain.requests import JobId, JobState, Outcome
from watteau.domain.units import SiteId, TenantId
from watteau.store.store import JobFilter, Store

TENANTS = [TEAM, OTHER, *(TenantId(f"t{number}") for number in range(40))]
NAMES = ["train", "Train-BERT", "eval_7%", "Überprüfung", 'say "hi"', "ab", "50%", "back\\slash"]
SITES = [SiteId("paris"), SiteId("mulhouse")]


def all_pages(store: Store, only: JobFilter, limit: int) -> list[JobRecord]:
    found: list[JobRecord] = []
    cursor: str | None = None
    while True:
        page = store.jobs(only, limit, cursor)
        assert len(page.jobs) <= limit
        found += page.jobs
        cursor = page.next_cursor
        if cursor is None:
            return found
        assert len(page.jobs) == limit, "only the last page may be shorter"


def lets_through(only: JobFilter, job: JobRecord) -> bool:
    """What a filter means, said plainly."""
    return (
        (only.tenants is None or job.tenant in only.tenants)
        and (not only.states or job.state in only.states)
        and (not only.user or job.user == only.user)
        and only.name_contains.casefold() in job.request.name.casefold()
        and (only.array_id is None or job.array_id == only.array_id)
        and (not only.site or job.site == only.site)
    )


def fill(store: Store) -> list[JobRecord]:
    """Some hundred jobs of all sorts, newest first."""
    lease = leading(store)
    for number in range(60):
        user = (ADA, BOB)[number % 2]
        name = NAMES[number % len(NAMES)]
        tenant = TENANTS[number * 7 % len(TENANTS)]
        one = store.submit([(request(name=name), tenant), (array(range(number % 4 + 1), name=name), TEAM)], user, 1)
        for place, job in enumerate(one[: number % 3]):
            store.record(lease, [intends(job.job_id, site=SITES[place])], 2)
            if number % 5:
                outcome = list(Outcome)[number % len(Outcome)]
                store.record(lease, [ends(job.job_id, outcome=outcome)], 3)
    return [live for live in all_pages(store, JobFilter(), 1_000)]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Store, list[JobRecord]]]:
    if request.param == "sqlite":
        with Store(f"sqlite:///{tmp_path_factory.mktemp('pages') / 'watteau.db'}").closing() as store:
            yield store, fill(store)
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with cluster.database() as url, Store(url).closing() as store:
        yield store, fill(store)


FILTERS = st.builds(
    JobFilter,
    tenants=st.none() | st.frozensets(st.sampled_from([*TENANTS, TenantId("nobody")])),
    states=st.frozensets(st.sampled_from(JobState), max_size=4),
    user=st.sampled_from(["", "", "ada", "bob", "nobody"]),
    name_contains=st.sampled_from(["", "", "", "t", "rai", "BERT", "_7%", "ÜBER", '"', "ab", "%", "\\", "zzz", "50%"]),
    array_id=st.none() | st.integers(1, 200).map(JobId),
    site=st.sampled_from(["", "", "paris", "mulhouse", "mars"]),
)


@given(only=FILTERS, limit=st.integers(1, 60))
@settings(max_examples=150)
def test_pages_are_complete_in_order_and_as_the_filter_says(
    filled: tuple[Store, list[JobRecord]], only: JobFilter, limit: int
) -> None:
    store, everything = filled
    assert all_pages(store, only, limit) == [job for job in everything if lets_through(only, job)]


def test_many_ranges_give_what_one_walk_gives(store: Store) -> None:
    """The newest jobs are of others: those of forty tenants are found among older ones, by their indexes."""
    wanted = [store.submit([(request(), tenant)], ADA, 1)[0] for tenant in TENANTS * 3]
    submitted(store, 1_200, tenant=TenantId("busy"))
    only = JobFilter(tenants=frozenset(TENANTS), states=frozenset({JobState.WAITING, JobState.HELD}))
    for limit in (1, 7, 50, 1_000):
        assert all_pages(store, only, limit) == list(reversed(wanted))


def test_what_no_row_can_hold_is_on_no_page(filled: tuple[Store, list[JobRecord]]) -> None:
    store, _ = filled
    impossible = [
        JobFilter(user="a\0b"),
        JobFilter(name_contains="\ud800"),
        JobFilter(site="\0"),
        JobFilter(tenants=frozenset({TenantId("\0")})),
        JobFilter(array_id=JobId(2**70)),
        JobFilter(array_id=JobId(0)),
        JobFilter(tenants=frozenset()),
    ]
    for only in impossible:
        assert store.jobs(only, 10).jobs == ()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "17",
        "YmVmb3JlOg",
        "YmVmb3JlOi01",
        "YmVmb3JlOjA",
        "YmVmb3JlOjk5OTk5OTk5OTk5OTk5OTk5OTk5",
        "é",
        "\0",
        "*",
    ],
)
def test_a_cursor_that_is_not_ours_is_refused(filled: tuple[Store, list[JobRecord]], cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        filled[0].jobs(JobFilter(), 10, cursor)


def test_a_page_has_at_least_one_job(filled: tuple[Store, list[JobRecord]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        filled[0].jobs(JobFilter(), 0)


def test_pages_miss_and_repeat_nothing_while_jobs_are_added(url: str, open_store: Callable[[str], Store]) -> None:
    store, other = open_store(url), open_store(url)
    there = submitted(store, 300)
    stop = threading.Event()

    def add() -> None:
        while not stop.is_set():
            submitted(other, 3)

    adding = threading.Thread(target=add)
    adding.start()
    try:
        for only in (JobFilter(), JobFilter(user="ada"), JobFilter(tenants=frozenset({TEAM}))):
            ids = [job.job_id for job in all_pages(store, only, 7)]
            assert ids == sorted(set(ids), reverse=True)
            assert set(there) <= set(ids)
    finally:
        stop.set()
        adding.join()
