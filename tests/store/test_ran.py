"""What ran, as columns by pool: the input of the energy books, of both databases alike."""

from tests.store.requests import HERE, OTHER, TEAM, intends, leading, site_job, submitted
from watteau.domain.records import Ends, Intends, Place, Starts
from watteau.domain.requests import JobState, Outcome
from watteau.domain.sites import Held, NodeState, SiteNode
from watteau.domain.units import PoolId, SiteId, TenantId
from watteau.store.store import Lease, Ran, Store

Row = tuple[str, str, int, int, int, bool]


def rows(ran: Ran) -> list[Row]:
    """(site, pool, thousandths of a GPU, from, to, by hand)"""
    return [
        (*ran.pools[pool], gpu_milli, from_ms, to_ms, by_hand)
        for pool, gpu_milli, from_ms, to_ms, by_hand in zip(
            ran.pool.tolist(),
            ran.gpu_milli.tolist(),
            ran.from_ms.tolist(),
            ran.to_ms.tolist(),
            ran.by_hand.tolist(),
            strict=True,
        )
    ]


def with_nodes(store: Store) -> Lease:
    lease = leading(store)
    nodes = [("gpu1", "h100", 0), ("gpu2", "h100", 1), ("old1", "a100", 0)]
    store.keep_nodes(
        lease, HERE, [SiteNode(HERE, name, PoolId(pool), number, NodeState.UP, "") for name, pool, number in nodes]
    )
    return lease


def test_our_attempts_are_split_by_pool_and_cut_to_the_span(store: Store) -> None:
    gang, runs, cores, never = (
        submitted(store, workers=3, gpu_milli=2_000)[0],
        submitted(store, gpu_milli=500)[0],
        submitted(store, gpu_milli=0)[0],
        submitted(store)[0],
    )
    lease = leading(store)
    places = tuple(Place(PoolId(pool), node, ()) for pool, node in (("h100", 0), ("a100", 1), ("h100", 1)))
    one = (Place(PoolId("h100"), 4, (0,)),)
    store.record(
        lease,
        [
            Intends(gang, 1, f"watteau-{gang}-1", HERE, places),
            Intends(runs, 1, f"watteau-{runs}-1", SiteId("far"), one),
            intends(cores),
            intends(never),
        ],
        1_000,
    )
    store.record(
        lease,
        [
            Starts(gang, 1, 2_000),
            Starts(runs, 1, 3_500),
            Starts(cores, 1, 2_000),
            Ends(gang, 1, Outcome.COMPLETED, None, 4_000, 0, None, "", False, {}),
        ],
        5_000,
    )
    assert rows(store.ran(3_000, 9_000, None)) == [
        ("here", "h100", 4_000, 3_000, 4_000, False),
        ("here", "a100", 2_000, 3_000, 4_000, False),
        ("far", "h100", 500, 3_500, 9_000, False),
    ]
    assert rows(store.ran(4_000, 5_000, None)) == [("far", "h100", 500, 4_000, 5_000, False)]
    assert rows(store.ran(9_000, 9_000, None)) == []
    assert rows(store.ran(0, 2_000, None)) == []


def test_jobs_by_hand_are_where_their_nodes_are(store: Store) -> None:
    lease = with_nodes(store)
    wide = (Held("gpu1", 8, 8, 1), Held("old1", 4, 8, 1), Held("gpu2", 8, 8, 1), Held("login", 0, 2, 1))
    store.keep_site_jobs(
        lease,
        [
            site_job("1", state=JobState.COMPLETED, held=wide, gpus=20, started_ms=2_000, ended_ms=4_000),
            site_job("2", state=JobState.RUNNING, started_ms=3_500),
            site_job("3"),
            site_job("4", state=JobState.CANCELLED, started_ms=None, held=()),
            site_job("5", started_ms=2_000, restarts=1),
            site_job("6", state=JobState.RUNNING, gpus=0, held=(Held("gpu1", 0, 8, 1),)),
        ],
    )
    assert rows(store.ran(3_000, 9_000, None)) == [
        ("here", "h100", 16_000, 3_000, 4_000, True),
        ("here", "a100", 4_000, 3_000, 4_000, True),
        ("here", "h100", 4_000, 3_500, 9_000, True),
    ]


def test_jobs_by_hand_that_are_nowhere_of_ours_are_told_apart(store: Store) -> None:
    lease = with_nodes(store)
    half = (Held("gpu1", 2, 8, 1), Held("theirs", 6, 8, 1))
    store.keep_site_jobs(
        lease,
        [
            site_job("1", state=JobState.COMPLETED, held=half, gpus=8, started_ms=2_000, ended_ms=4_000),
            site_job("2", state=JobState.COMPLETED, held=(), gpus=3, started_ms=1_000, ended_ms=4_000),
            site_job("1", state=JobState.RUNNING, site=SiteId("far"), started_ms=8_000),
        ],
    )
    ran = store.ran(3_000, 9_000, None)
    assert rows(ran) == [("here", "h100", 2_000, 3_000, 4_000, True)]
    assert ran.nowhere_gpu_milli_ms == {HERE: (6_000 + 3_000) * 1_000, "far": 4_000 * 1_000}


def test_only_the_jobs_of_some_tenants_are_told(store: Store) -> None:
    lease = with_nodes(store)
    for tenant in (TEAM, OTHER):
        (job_id,) = submitted(store, tenant=tenant)
        store.record(lease, [intends(job_id), Starts(job_id, 1, 2_000)], 2_000)
        store.keep_site_jobs(lease, [site_job(str(job_id), state=JobState.RUNNING, tenant=tenant, held=())])
        store.keep_site_jobs(lease, [site_job(f"{job_id}_1", state=JobState.RUNNING, tenant=tenant)])

    def told(tenants: frozenset[TenantId] | None) -> tuple[int, int]:
        ran = store.ran(0, 3_000, tenants)
        return len(ran.pool), sum(ran.nowhere_gpu_milli_ms.values())

    assert told(None) == (4, 2 * 4_000 * 1_000)
    assert told(frozenset({OTHER})) == (2, 4_000 * 1_000)
    assert told(frozenset()) == (0, 0)
