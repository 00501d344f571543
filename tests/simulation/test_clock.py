"""The virtual clock: its timing wheel against a sorted list, far horizons, and what it tells Python."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.world import Ask, build, gpus, nodes, run
from watteau.core import layout
from watteau.core.state import grow_log, grow_queue
from watteau.domain.policy import POLICIES, Policy, named_policy
from watteau.domain.units import NEVER_S
from watteau.simulation import clock as wheel

HORIZON_S = 1 << 20
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)


@every_policy
def test_runs_longer_than_the_wheel_end_when_they_should(policy: Policy) -> None:
    lengths = [HORIZON_S - 1, HORIZON_S, HORIZON_S + 1, 3 * HORIZON_S + 7, 5]
    world = run(nodes(1, 5), [*(Ask(3, length, gpus(1)) for length in lengths), Ask(4, 9, gpus(5))], policy)
    assert world.state.jobs["end_s"].tolist() == [3 + length for length in lengths] + [3 + 3 * HORIZON_S + 7 + 9]


@given(
    asked=st.lists(
        st.tuples(
            st.integers(0, 3 * HORIZON_S),
            st.one_of(st.integers(0, 100), st.integers(HORIZON_S - 3, HORIZON_S + 3), st.integers(0, 4 * HORIZON_S)),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_on_an_empty_machine_every_job_ends_when_it_has_run(asked: list[tuple[int, int]]) -> None:
    world = run(nodes(1, 20), [Ask(submit_s, runtime_s, gpus(1)) for submit_s, runtime_s in asked], POLICIES["fifo"])
    for row, ask in zip(world.state.jobs, world.asked, strict=True):
        assert (row.start_s, row.end_s) == (ask.submit_s, ask.submit_s + ask.runtime_s)


@given(
    ends=st.lists(st.integers(0, 3 * HORIZON_S), min_size=1, max_size=30),
    cancelled=st.sets(st.integers(0, 29)),
)
def test_the_wheel_gives_back_what_was_put_in_and_not_cancelled(ends: list[int], cancelled: set[int]) -> None:
    world = build(nodes(1, 1), [Ask(0, end_s, gpus(1)) for end_s in ends], POLICIES["fifo"])
    served = [ask.served_s for ask in world.asked]
    clock = wheel.new_clock(np.array(served), np.zeros(len(ends)), 0, len(ends))
    world.state.jobs["start_s"] = 0
    for job, end_s in enumerate(served):
        wheel.push_end(clock, job, end_s)
    for job in cancelled & set(range(len(ends))):
        wheel.cancel_end(clock, job, served[job])
    left = {job: end_s for job, end_s in enumerate(served) if job not in cancelled}
    for at_s in sorted(set(left.values())):
        assert wheel.ends_now(world.state, clock, at_s).tolist() == [job for job in left if left[job] == at_s]
    assert (clock.clock[0].in_wheel, clock.clock[0].beyond, clock.slot_bits.any()) == (0, 0, False)


def test_a_full_queue_is_said_before_anything_is_lost_and_room_helps() -> None:
    asked = [Ask(0, 5, gpus(1)) for _ in range(12)]
    world = build(nodes(1, 1), asked, named_policy("easy"), queue=8)
    assert wheel.advance(world.state, world.clock, NEVER_S, 100) == wheel.QUEUE_FULL
    assert (world.state.cycle[0].waiting, world.clock.clock[0].next_arrival) == (0, 0)
    world.state = grow_queue(world.state, 24)
    assert world.run().starts() == [5 * job for job in range(12)]


def test_a_queue_that_grows_on_the_way_changes_no_decision() -> None:
    asked = [Ask(second // 3, 4, gpus(1 + second % 2)) for second in range(60)]
    for policy in POLICIES.values():
        small, large = (run(nodes(1, 2), asked, policy, queue=room) for room in (4, 512))
        assert small.starts() == large.starts()
        assert len(small.state.queue) > 4


def test_a_full_log_is_said_before_a_reason_is_lost() -> None:
    asked = [Ask(second // 3, 4, gpus(1 + second % 2)) for second in range(60)]
    small, large = (run(nodes(1, 2), asked, named_policy("hybrid"), log=room) for room in (1, 4096))
    count = int(large.state.cycle[0].logged)
    assert small.state.cycle[0].logged == count > 0
    assert small.state.cycle[0].logged_lost == large.state.cycle[0].logged_lost == 0
    assert small.state.logged[:count].tolist() == large.state.logged[:count].tolist()


def test_a_reason_without_room_is_counted_as_lost() -> None:
    world = build(nodes(1, 1), [Ask(0, 5, gpus(1)) for _ in range(9)], named_policy("fifo"))
    world.state = replace(world.state, logged=layout.records(3, layout.LOGGED))
    world.second(0)
    assert (world.state.cycle[0].logged, world.state.cycle[0].logged_lost) == (3, 5)
    assert len(grow_log(world.state, 7).logged) == 7


def test_a_clock_without_a_log_does_not_wait_for_room_in_it() -> None:
    assert run(nodes(1, 1), [Ask(0, 5, gpus(1)), Ask(0, 5, gpus(1))], named_policy("fifo"), log=0).starts() == [0, 5]


def test_the_clock_stops_before_a_second_and_when_nothing_can_come() -> None:
    world = build(nodes(1, 1), [Ask(0, 5, gpus(1)), Ask(9, 5, gpus(1))], named_policy("fifo"))
    assert wheel.advance(world.state, world.clock, 5, 100) == wheel.STOPPED
    assert world.in_state(layout.RUNNING) == [0]
    assert wheel.advance(world.state, world.clock, NEVER_S, 1) == wheel.PAUSED
    assert wheel.advance(world.state, world.clock, NEVER_S, 100) == wheel.IDLE
    assert world.starts() == [0, 9]
