"""What would be decided at a site in shadow: the core's own step, on what really runs there, and without effect."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.world import leaf, tree
from tests.runtime.test_shared_sites import HUB, World
from watteau.domain.decisions import Reason
from watteau.domain.fleet import Engine, Fleet, Mode, Pool, Pue
from watteau.domain.jobs import Shape
from watteau.domain.policy import named_policy
from watteau.domain.records import PastUse, Place
from watteau.domain.requests import JobId, JobState
from watteau.domain.sites import Held, NodeState, Partition, SiteJob, SiteNode
from watteau.domain.units import PoolId, SiteId, TenantId
from watteau.engines.contract import NodeCapacity, SiteView
from watteau.runtime.live_state import Asked, compile_core
from watteau.runtime.shadow import MOST_TRIED, Decided, decide

SITE = SiteId("hub")
HYBRID = named_policy("hybrid")
NOW_MS = 1_800_000_000_000
NODES = 3
GPUS = 4


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    compile_core()


def fleet(pools: tuple[tuple[str, str, int], ...] = (("p", "h100", NODES),)) -> Fleet:
    shaped = [(Pool(PoolId(p), model, GPUS, 32, 64, False, 1_000, 2_000, 3_000, 2), n) for p, model, n in pools]
    return Fleet.of_one_site(
        "hub",
        shaped,
        power_limit_kw=1_000,
        pue=Pue.constant(1.2),
        engine=Engine.SLURM,
        tenants=tree(leaf("alice"), leaf("bob")),
    )


def node(number: int, state: NodeState = NodeState.UP, pool: str = "p") -> SiteNode:
    return SiteNode(SITE, f"{pool}{number}", PoolId(pool), number, state, "")


def capacity(name: str, gpus: int = GPUS) -> NodeCapacity:
    return NodeCapacity(name, "", gpus, 32, 65_536)


def job(
    engine_id: str | int,
    gpus: int = 1,
    state: JobState = JobState.WAITING,
    *,
    on: str = "",
    workers: int = 1,
    tasks: int = 1,
    tenant: str = "bob",
    reason: str = "Priority",
    eligible_ms: int | None = None,
    submitted_ms: int = 1_000,
    time_limit_s: int = 3_600,
    partition: str = "normal",
    cpus: int | None = None,
) -> SiteJob:
    return SiteJob(
        site=SITE,
        engine_id=str(engine_id),
        submitted_ms=submitted_ms,
        name=f"job-{engine_id}",
        user=tenant,
        account="atelier",
        tenant=TenantId(tenant),
        partition=partition,
        state=JobState.RUNNING if on else state,
        reason="" if on else reason,
        tasks=tasks,
        workers=workers,
        gpus=gpus,
        cpus=gpus if cpus is None else cpus,
        memory_mib=1_000 * gpus,
        time_limit_s=time_limit_s,
        priority=1,
        eligible_ms=eligible_ms,
        started_ms=2_000 if on else None,
        held=(Held(on, gpus, gpus, 1_000 * gpus),) if on else (),
    )


OPEN = (node(0), node(1), node(2))


def look(
    *jobs: SiteJob,
    nodes: tuple[SiteNode, ...] = OPEN,
    partitions: tuple[Partition, ...] = (),
    fleet: Fleet = fleet(),  # noqa: B008 - frozen
    own: tuple[Asked, ...] = (),
    past: PastUse | None = None,
    capacities: tuple[NodeCapacity, ...] | None = None,
    policy: str = "hybrid",
) -> Decided:
    there = capacities if capacities is not None else tuple(capacity(its.node) for its in nodes)
    view = SiteView(there, jobs, partitions, (), "a test's")
    return decide(fleet, SITE, named_policy(policy), view, nodes, past, NOW_MS, own)


def started(decided: Decided) -> dict[str, tuple[str, ...]]:
    return {its.engine_id: its.nodes for its in decided.starts}


def test_what_fits_beside_what_runs_would_start_and_the_rest_says_why_it_waits() -> None:
    decided = look(job(1, 4, on="p0"), job(2, 3, on="p1"), job(3, 1, submitted_ms=5), job(4, 4), job(5, 4))
    assert started(decided) == {"3": ("p1",), "4": ("p2",)}
    assert decided.waits == {("5", 1_000): Reason.CAPACITY}
    assert {its.decided_ms for its in decided.starts} == {NOW_MS}


def test_a_gang_names_a_node_for_each_worker() -> None:
    assert started(look(job(1, 1, on="p1"), job(2, 8, workers=2))) == {"2": ("p0", "p2")}


def test_a_drained_node_and_the_gpus_that_a_node_lacks_are_not_counted_with() -> None:
    nodes = (node(0, NodeState.DRAINED), node(1), node(2, NodeState.DOWN))
    assert started(look(job(1, 4), job(2, 4), nodes=nodes)) == {"1": ("p1",)}
    assert started(look(job(1, 4), nodes=(node(0),), capacities=(capacity("p0", 2),))) == {}


def test_jobs_that_are_held_or_kept_by_a_rule_of_the_site_are_not_tried() -> None:
    decided = look(
        job(1, state=JobState.HELD, reason="JobHeldUser"),
        job(2, reason="Dependency"),
        job(3, reason="QOSMaxJobsPerUserLimit"),
        job(4, reason="Resources"),
        job(5, reason=""),
        job(6, eligible_ms=NOW_MS + 1),
        job(7, eligible_ms=NOW_MS),
        job(8, reason="ReqNodeNotAvail, UnavailableNodes:p2"),
    )
    assert set(started(decided)) == {"4", "5", "7", "8"}
    assert {key[0]: why for key, why in decided.not_tried.items()} == {
        "1": "JobHeldUser",
        "2": "Dependency",
        "3": "QOSMaxJobsPerUserLimit",
        "6": "its time has not come",
    }


def test_an_arrays_rest_takes_room_for_its_tasks_and_is_decided_once_under_the_arrays_id() -> None:
    decided = look(job("9_[2-7%3]", 2, tasks=6), job(10, 1, submitted_ms=2_000))
    assert started(decided) == {"9": ("p0",)}
    assert decided.waits == {("10", 2_000): Reason.CAPACITY}


def test_more_tasks_than_could_start_or_be_promised_change_nothing() -> None:
    few, many = (look(job("9_[1-99]", 3, tasks=tasks), job(10, 1, submitted_ms=2_000)) for tasks in (100, 9_999))
    assert started(few) == started(many) == {"9": ("p0",), "10": ("p0",)}


def test_a_job_goes_only_where_its_partition_has_nodes_of_ours() -> None:
    both = fleet((("p", "h100", 1), ("q", "a100", 1)))
    nodes = (node(0), node(0, pool="q"))
    partitions = tuple(
        Partition(name, name == "normal", up, its, 0, 0, 0, 0)
        for name, its, up in (("normal", ("q0",), True), ("far", ("z9",), True), ("shut", ("p0",), False))
    )
    decided = look(
        job(1, 4),
        job(2, 4, partition="far"),
        job(3, 4, partition="shut"),
        job(4, 4, partition="shut,normal", submitted_ms=2_000),
        nodes=nodes,
        partitions=partitions,
        fleet=both,
    )
    assert started(decided) == {"1": ("q0",)}
    assert set(decided.waits) == {("4", 2_000)}
    assert [key[0] for key in decided.not_tried] == ["2", "3"]
    assert "partition far" in decided.not_tried["2", 1_000]


def test_our_own_attempts_hold_what_they_hold() -> None:
    there = (SITE, (Place(PoolId("p"), 0, (0, 1, 2, 3)),))
    running = Asked(JobId(7), Shape(1, 4_000, 1_000, 0), TenantId("alice"), 0, 60, 0, 0, there, 5)
    assert started(look(job(1, 4), job(2, 4), job(3, 4), own=(running,))) == {"1": ("p1",), "2": ("p2",)}


def test_who_has_used_less_goes_first() -> None:
    hour_ms = 3_600_000
    used = PastUse(
        (TenantId("alice"),),
        np.array([0]),
        np.array([4_000]),
        np.array([NOW_MS - 2 * hour_ms]),
        np.array([NOW_MS - hour_ms]),
    )
    jobs = (job(1, 4, tenant="alice"), job(2, 4, tenant="bob", submitted_ms=9_000))
    assert set(started(look(*jobs, nodes=(node(0),)))) == {"1"}
    assert set(started(look(*jobs, nodes=(node(0),), past=used))) == {"2"}
    runs = (job(3, 4, on="p0", tenant="alice"), *jobs)
    assert set(started(look(*runs, nodes=(node(0), node(1))))) == {"2"}


def test_an_unknown_tenant_counts_for_the_root() -> None:
    assert started(look(replace(job(1), tenant=TenantId("nobody we know")))) == {"1": ("p0",)}


def test_a_job_larger_than_the_site_says_so() -> None:
    assert look(job(1, 99)).waits == {("1", 1_000): Reason.EXCEEDS_MAXIMUM}


def test_the_search_has_a_budget_and_says_when_it_was_used_up() -> None:
    many = [job(number, 4, submitted_ms=number, cpus=1) for number in range(MOST_TRIED + 2)]
    decided = look(*many)
    assert len(decided.starts) == NODES
    assert list(decided.not_tried) == [(str(n), n) for n in (MOST_TRIED, MOST_TRIED + 1)]
    assert "budget" in decided.not_tried[str(MOST_TRIED), MOST_TRIED]


@st.composite
def sites(draw: st.DrawFn) -> tuple[list[SiteJob], list[SiteNode]]:
    """Nodes in every state, jobs that run where there is room, and others that wait."""
    nodes = [node(n, draw(st.sampled_from([NodeState.UP, NodeState.UP, NodeState.DRAINING]))) for n in range(NODES)]
    jobs: list[SiteJob] = []
    for its in nodes:
        free = GPUS
        for gpus in draw(st.lists(st.integers(1, GPUS), max_size=3)):
            if gpus <= free:
                free -= gpus
                jobs.append(job(len(jobs) + 1, gpus, on=its.node, tenant=draw(st.sampled_from(["alice", "bob"]))))
    for _ in range(draw(st.integers(0, 12))):
        workers = draw(st.sampled_from([1, 1, 2, 3]))
        jobs.append(
            job(
                len(jobs) + 1,
                workers * draw(st.integers(0, GPUS + 1)),
                draw(st.sampled_from([JobState.WAITING, JobState.WAITING, JobState.HELD])),
                workers=workers,
                tasks=draw(st.sampled_from([1, 1, 3])),
                tenant=draw(st.sampled_from(["alice", "bob"])),
                reason=draw(st.sampled_from(["Priority", "Resources", "Dependency"])),
                submitted_ms=draw(st.integers(0, 3)) * 1_000,
                time_limit_s=draw(st.sampled_from([0, 60, 7_200])),
            )
        )
    return jobs, nodes


@given(sites(), st.randoms(use_true_random=False), st.sampled_from(["fifo", "easy", "hybrid", "conservative"]))
def test_the_same_is_decided_in_whatever_order_things_are_shown(
    site: tuple[list[SiteJob], list[SiteNode]], random: object, policy: str
) -> None:
    jobs, nodes = site
    first = look(*jobs, nodes=tuple(nodes), policy=policy)
    random.shuffle(jobs)  # type: ignore[attr-defined]
    random.shuffle(nodes)  # type: ignore[attr-defined]
    assert look(*jobs, nodes=tuple(nodes), policy=policy) == first


@given(sites())
def test_no_more_is_started_than_is_free_on_what_really_runs(site: tuple[list[SiteJob], list[SiteNode]]) -> None:
    jobs, nodes = site
    decided = look(*jobs, nodes=tuple(nodes))
    free = Counter({its.node: GPUS for its in nodes if its.state is NodeState.UP})
    for its in jobs:
        for held in its.held:
            free[held.node] -= held.gpus
    by_id = {its.engine_id: its for its in jobs}
    state = {its.node: its.state for its in nodes}
    for start in decided.starts:
        for name in start.nodes:
            free[name] -= by_id[start.engine_id].gpus // by_id[start.engine_id].workers
        assert {state[name] for name in start.nodes} == {NodeState.UP}
    assert all(free[its.node] >= 0 for its in nodes if its.state is NodeState.UP)


@given(sites())
def test_every_waiting_job_has_one_answer(site: tuple[list[SiteJob], list[SiteNode]]) -> None:
    jobs, nodes = site
    decided = look(*jobs, nodes=tuple(nodes))
    answers = [(its.engine_id, its.submitted_ms) for its in decided.starts] + [*decided.waits, *decided.not_tried]
    waiting = [its.key for its in jobs if its.state in (JobState.WAITING, JobState.HELD)]
    assert sorted(answers) == sorted(waiting)
    assert Reason.NONE not in decided.waits.values()


# --- as the controller has it ----------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.controller.close()


def kept(world: World) -> dict[str, tuple[str, ...]]:
    return {its.engine_id: its.nodes for its in world.store.shadow_decisions(HUB, 0, 1 << 40)}


def test_a_site_in_shadow_has_its_decisions_kept_and_nothing_is_sent_to_it(world: World) -> None:
    runs = world.submit(3)
    (place,) = world.runs(runs).places
    other = f"gpu{1 - place.node}"
    given = list(world.hub.given)
    world.hub.by_hand(1, "", 4, JobState.WAITING)
    world.set(Mode.SHADOW)
    world.until(lambda: kept(world) == {"1": (other,)})
    world.hub.by_hand(1, other, 4)
    world.hub.by_hand(2, "", 1, JobState.WAITING)
    world.hub.by_hand(3, "", 1, JobState.WAITING)
    world.until(lambda: kept(world) == {"1": (other,), "2": (f"gpu{place.node}",)})
    assert world.hub.given == given
    world.consistent()


def test_the_first_decision_on_a_job_stays_whatever_is_decided_later(world: World) -> None:
    world.set(Mode.SHADOW)
    world.hub.by_hand(1, "", 4, JobState.WAITING)
    world.until(lambda: "1" in kept(world))
    (first,) = world.store.shadow_decisions(HUB, 0, 1 << 40)
    world.hub.by_hand(2, first.nodes[0], 4)
    world.hub.by_hand(3, "", 1, JobState.WAITING)
    world.restart()
    world.hub.by_hand(4, "", 0, JobState.WAITING)
    world.until(lambda: "4" in kept(world))
    assert next(its for its in world.store.shadow_decisions(HUB, 0, 1 << 40) if its.engine_id == "1") == first


def test_nothing_is_decided_for_a_site_that_is_only_observed_or_driven(world: World) -> None:
    world.hub.by_hand(1, "", 1, JobState.WAITING)
    for mode in (Mode.DRIVE, Mode.OBSERVE):
        world.set(mode)
        world.until(lambda mode=mode: world.figures().mode is mode)  # type: ignore[misc]
    before_ms = world.clock.now_ms()
    world.set(Mode.SHADOW)
    world.until(lambda: kept(world))
    assert all(its.decided_ms >= before_ms for its in world.store.shadow_decisions(HUB, 0, 1 << 40))
