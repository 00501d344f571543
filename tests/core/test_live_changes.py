"""What only live work does to the state: jobs are withdrawn, running ones taken in, and shapes added as they come."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_step_properties import ASKS, TWO_SITES, every_policy
from tests.core.world import Ask, World, build, check_reasons, fleet, gang, gpus, leaf, nodes, pool, rows, site, tree
from watteau.core import layout
from watteau.core.place import resume
from watteau.core.state import add_past_use, add_shapes, build_state, check_invariants, grow_jobs
from watteau.core.step import Events, step
from watteau.domain.decisions import Reason
from watteau.domain.jobs import Shape
from watteau.domain.policy import Policy, named_policy
from watteau.domain.units import NEVER_S
from watteau.simulation import clock as wheel


@given(
    asked=st.lists(ASKS, min_size=1, max_size=12),
    policy=st.sampled_from(every_policy()),
    when=st.integers(0, 20),
    which=st.sets(st.integers(0, 11)),
    comes_back=st.booleans(),
)
def test_withdrawn_jobs_never_start_and_nobody_else_is_lost(
    asked: list[Ask], policy: Policy, when: int, which: set[int], comes_back: bool
) -> None:
    world = build(TWO_SITES, asked, policy).run(when)
    withdrawn = sorted(which & set(world.waiting()))
    step(world.state, Events(withdrawn=rows(withdrawn)), max(when, world.now_s))
    started = [int(job) for job in world.state.started[: world.state.cycle[0].started]]
    check_invariants(world.state)
    check_reasons(world.state)
    for job in started:  # room that was promised to them was given to others
        will_end(world, job)
    assert set(withdrawn).isdisjoint(started)
    if comes_back and withdrawn:
        step(world.state, Events(arrived=rows(withdrawn)), world.now_s)
        for job in world.state.started[: world.state.cycle[0].started].tolist():
            will_end(world, job)
    world.run()
    assert world.waiting() == []
    gone = set(world.in_state(layout.ABSENT))
    assert gone == (set() if comes_back else set(withdrawn))
    assert world.state.cycle[0].held_by_quota == 0
    assert not world.state.tenants["holds_back"].any()


def will_end(world: World, job: int) -> None:
    wheel.push_end(world.clock, job, world.now_s + world.asked[job].served_s)


def test_a_withdrawn_promise_frees_its_nodes_at_once() -> None:
    """Two GPUs run until 9; the gang of 4 is promised 9 on all; a job of 100 s stands behind it."""
    asked = [Ask(0, 9, gpus(2)), Ask(1, 9, gpus(4)), Ask(2, 100, gpus(2))]
    world = build(nodes(1, 4), asked, named_policy("easy")).run(3)
    assert world.reason(2) is Reason.BEHIND_OTHERS
    decisions = step(world.state, Events(withdrawn=rows([1])), 3)
    assert decisions.started.tolist() == [2]


def test_in_strict_order_the_job_behind_a_withdrawn_one_starts() -> None:
    asked = [Ask(0, 9, gpus(2)), Ask(1, 9, gpus(4)), Ask(2, 9, gpus(2))]
    world = build(nodes(1, 4), asked, named_policy("fifo")).run(3)
    assert step(world.state, Events(withdrawn=rows([1])), 3).started.tolist() == [2]


@given(asked=st.lists(ASKS, min_size=1, max_size=12), policy=st.sampled_from(every_policy()), when=st.integers(0, 30))
def test_a_state_built_anew_from_what_runs_holds_the_same(asked: list[Ask], policy: Policy, when: int) -> None:
    world = build(TWO_SITES, asked, policy).run(when)
    again = rebuilt(world, policy)
    check_invariants(again)
    for name in ("gpus_free", "cpu_free_milli", "memory_free_mib", "up"):
        assert again.nodes[name].tolist() == world.state.nodes[name].tolist(), name
    assert again.shared_free.tolist() == world.state.shared_free.tolist()
    assert again.tenants["used_milli"].tolist() == world.state.tenants["used_milli"].tolist()
    assert again.sites["power_mw"].tolist() == world.state.sites["power_mw"].tolist()
    assert again.cycle[0].waiting == world.state.cycle[0].waiting


def rebuilt(world: World, policy: Policy) -> Any:
    """A fresh state with the running jobs where they run and the waiting ones in the queue."""
    old = world.state
    shapes = sorted({ask.shape for ask in world.asked}, key=repr)
    fresh = build_state(
        world.fleet,
        shapes,
        policy,
        jobs=len(old.jobs),
        workers=len(old.workers),
        queue=len(old.queue),
        log=256,
        typical=[(1.0, shape) for shape in shapes],
    )
    fresh.jobs[:] = old.jobs
    fresh.jobs["reason"] = 0
    fresh.jobs["reserved_s"] = NEVER_S
    for name in ("job", "node", "shared_gpu"):
        fresh.workers[name] = old.workers[name]
    step(fresh, Events(nodes_up=rows(np.flatnonzero(old.nodes["up"]))), world.now_s)
    running = np.flatnonzero(old.jobs["state"] == layout.RUNNING).astype(np.int32)
    resume(fresh, running)
    waiting = np.flatnonzero(old.jobs["state"] == layout.WAITING)
    fresh.jobs["state"][waiting] = layout.ABSENT
    step(fresh, Events(arrived=rows(waiting)), world.now_s)
    started = fresh.started[: fresh.cycle[0].started]
    assert len(started) == 0 or policy.name != "fifo", "in strict order nothing more can start"
    return fresh if not len(started) else undo(fresh, started)


def undo(state: Any, started: Any) -> Any:
    """What a fresh look could start is not the matter here: take it back."""
    for job in started.tolist():
        step(state, Events(lost=rows([job]), withdrawn=rows([])), int(state.cycle[0].now_s))
    return state


@given(asked=st.lists(ASKS, min_size=2, max_size=10, unique_by=lambda ask: repr(ask.shape)))
def test_shapes_added_later_are_as_if_known_from_the_start(asked: list[Ask]) -> None:
    shapes = [ask.shape for ask in asked]
    whole = build_state(TWO_SITES, shapes, named_policy("easy"), jobs=1, workers=1)
    grown = build_state(TWO_SITES, shapes[:1], named_policy("easy"), jobs=1, workers=1)
    for state in (whole, grown):
        step(state, Events(nodes_up=rows(range(len(state.nodes)))), 0)
    for shape in shapes[1:]:
        grown = add_shapes(grown, TWO_SITES, [shape])
    assert grown.shapes.tolist() == whole.shapes.tolist()
    assert grown.shape_pools.tolist() == whole.shape_pools.tolist()
    assert grown.cycle[0].cpu_binds == whole.cycle[0].cpu_binds
    assert len(grown.scratch_take) >= len(whole.scratch_take)


def test_a_state_grows_and_keeps_what_it_holds() -> None:
    world = build(nodes(2, 2), [Ask(0, 9, gang(2, 1))], named_policy("easy")).run(1)
    grown = grow_jobs(world.state, 100, 200)
    assert (len(grown.jobs), len(grown.workers)) == (100, 200)
    assert grown.jobs[0].state == layout.RUNNING
    check_invariants(grown)


@pytest.mark.parametrize("name", ["fifo", "easy", "hybrid", "conservative"])
def test_a_machine_without_gpus_runs_what_asks_for_none(name: str) -> None:
    machine = fleet(site((pool("cpu", 0, cores=4, memory_gib=8), 1)), tenants=tree(leaf("alice")))
    asked = [Ask(0, 5, Shape(1, 0, 2_000, 1024)) for _ in range(5)] + [Ask(0, 5, Shape(2, 0, 1_000, 0))]
    asked += [Ask(0, 5, gpus(1)), Ask(0, 5, Shape(1, 500))]
    world = build(machine, asked, named_policy(name)).run()
    assert world.in_state(layout.ENDED) == [0, 1, 2, 3, 4, 5]
    assert [world.reason(job) for job in world.in_state(layout.REJECTED)] == [Reason.EXCEEDS_MAXIMUM] * 2
    assert sorted(world.starts()[:5]) == [0, 0, 5, 5, 10]


def test_past_use_is_charged_as_if_the_jobs_had_run_here() -> None:
    """Bob used eight GPU-hours just now, alice as much two half-lives ago: she goes first."""
    policy = named_policy("easy", half_life_s=3_600, rank_every_s=1)
    machine = fleet(site((pool(gpus_per_node=1), 1)), tenants=tree(leaf("alice"), leaf("bob")))
    for users, first in (((1, 2), 1), ((2, 1), 0)):
        state = world_of_two(machine, policy)
        state.cycle[0].weight_zero_s = 10_000
        add_past_use(state, np.array(users, np.int32), *columns((8_000, 0, 3_600), (8_000, 6_400, 10_000)))
        step(state, Events(nodes_up=rows([0])), 10_000)
        assert step(state, Events(arrived=rows([0, 1])), 10_001).started.tolist() == [1 - first]


def world_of_two(machine: Any, policy: Policy) -> Any:
    state = build_state(machine, [gpus(1)], policy, jobs=2, workers=2)
    state.jobs["estimate_s"] = 10
    state.jobs["tenant"] = [1, 2]
    state.jobs["first_worker"] = [0, 1]
    state.jobs["submit_s"] = 10_001
    state.workers["job"] = [0, 1]
    return state


def columns(*attempts: tuple[int, int, int]) -> Sequence[Any]:
    return [np.array(column, dtype=np.int64) for column in zip(*attempts, strict=True)]
