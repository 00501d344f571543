"""R26: flexible jobs wait at the gate for room in the envelope, and no longer than until their latest start."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_step_properties import ASKS, NAMES, TWO_SITES, arrays
from tests.core.world import Ask, World, build, fleet, gang, gpus, nodes, pool, rows, run, site
from watteau.core import layout
from watteau.core.state import Outlook, set_envelope
from watteau.core.step import Events, step
from watteau.domain.decisions import Reason
from watteau.domain.policy import POLICIES
from watteau.domain.units import HOUR_S, NEVER_S

HYBRID = POLICIES["hybrid"]


def hours(count: int) -> Outlook:
    """An outlook of so many hours."""
    return Outlook(0, np.ones((1, count)))


def starts(asked: list[Ask], green_kw: list[float], policy: str = "hybrid", *, most_nodes: int = 4) -> list[int]:
    """When jobs start on some nodes of one site under an envelope by hour. Each busy GPU adds half a kilowatt."""
    world = run(nodes(most_nodes, 8), asked, POLICIES[policy], outlook=hours(len(green_kw)), green_kw=[green_kw])
    return world.starts()


@pytest.mark.parametrize("policy", NAMES)
def test_a_flexible_job_starts_in_the_hour_that_has_room_for_it(policy: str) -> None:
    flexible = Ask(0, 60, gpus(4), due_s=10 * HOUR_S)
    assert starts([flexible], [0, 1, 2, 0], policy) == [2 * HOUR_S]


@pytest.mark.parametrize("policy", NAMES)
def test_at_its_latest_start_it_starts_whatever_the_envelope_says(policy: str) -> None:
    flexible = Ask(0, 60, gpus(4), due_s=HOUR_S + 1234)
    assert starts([flexible], [0, 0, 0], policy) == [HOUR_S + 1234]


def test_who_is_not_flexible_starts_at_once() -> None:
    assert starts([Ask(5, 60, gpus(4))], [0]) == [5]


def test_the_earliest_latest_start_goes_first_and_not_the_first_to_come() -> None:
    asked = [Ask(0, HOUR_S // 2, gpus(4), due_s=20 * HOUR_S), Ask(1, HOUR_S // 2, gpus(4), due_s=19 * HOUR_S)]
    assert starts(asked, [0, 2, 0]) == [HOUR_S + HOUR_S // 2, HOUR_S]


def test_room_that_an_ended_job_leaves_is_given_to_the_next_within_the_hour() -> None:
    asked = [Ask(0, 600, gpus(4), due_s=20 * HOUR_S) for _ in range(3)]
    assert starts(asked, [0, 2, 0]) == [HOUR_S, HOUR_S + 600, HOUR_S + 1200]


def test_what_was_let_go_and_did_not_start_comes_back_when_its_hour_is_over() -> None:
    """The nodes are full until the third hour, and the room was in the second."""
    blocker = Ask(0, 2 * HOUR_S + 10, gang(4, 8))
    flexible = Ask(1, 60, gpus(4), due_s=8 * HOUR_S)
    assert starts([blocker, flexible], [0, 9, 0, 0, 2, 0]) == [0, 4 * HOUR_S]


def test_a_flexible_job_is_promised_nothing_before_its_latest_start_and_something_after() -> None:
    blocker = Ask(0, 3 * HOUR_S, gang(4, 8))
    flexible = Ask(1, 60, gang(4, 8), due_s=HOUR_S + 30)
    world = build(nodes(4, 8), [blocker, flexible], HYBRID, outlook=hours(8), green_kw=[[99.0] * 8])
    world.run(HOUR_S + 29)
    assert (world.promises(), world.reason(1)) == ({}, Reason.CAPACITY)
    world.run(2 * HOUR_S + 1)
    assert world.promises() == {1: 3 * HOUR_S}


def test_a_job_at_the_gate_says_so_and_keeps_nobody_from_starting() -> None:
    flexible = Ask(0, 60, gpus(4), due_s=10 * HOUR_S)
    world = build(
        nodes(1, 8), [flexible, Ask(1, 60, gpus(8))], POLICIES["fifo"], outlook=hours(4), green_kw=[[0.0] * 4]
    )
    world.run(HOUR_S)
    assert world.reason(0) is Reason.GREEN_HOLD
    assert world.starts() == [-1, 1]


def test_it_goes_to_the_site_whose_envelope_has_room() -> None:
    two = fleet(site((pool("p"), 2), name="a"), site((pool("q"), 2), name="b"))
    world = run(
        two,
        [Ask(0, 60, gpus(4), due_s=10 * HOUR_S)],
        HYBRID,
        outlook=Outlook(0, np.ones((2, 3))),
        green_kw=[[1.9, 1.9, 1.9], [0.0, 2.0, 0.0]],
    )
    assert (world.starts(), world.nodes_of(0)) == ([HOUR_S], [2])


def test_a_held_job_leaves_the_gate_and_may_come_again() -> None:
    asked = [Ask(0, 60, gpus(4), due_s=due * HOUR_S) for due in (9, 7, 8)]
    world = build(nodes(4, 8), asked, HYBRID, outlook=hours(12), green_kw=[[0.0] * 12])
    world.run(10)
    step(world.state, Events(withdrawn=rows([1])), 10)
    world.second(11)
    assert world.in_state(layout.ABSENT) == [1]
    step(world.state, Events(arrived=rows([1])), 12)
    world.run()
    assert world.starts() == [9 * HOUR_S, 7 * HOUR_S, 8 * HOUR_S]


def test_a_new_envelope_counts_from_its_hour_on() -> None:
    asked = [Ask(0, 60, gpus(4), due_s=90 * HOUR_S), Ask(0, 60, gpus(4), due_s=91 * HOUR_S)]
    world = build(nodes(4, 8), asked, HYBRID, outlook=hours(100), green_kw=[[0.0] * 100])
    world.run(5 * HOUR_S + 7)
    set_envelope(world.state, 5 * HOUR_S, np.array([[0, 2_000_000, 0]], dtype=np.int64))
    world.run(8 * HOUR_S)
    assert world.starts() == [6 * HOUR_S, 6 * HOUR_S + 60]
    set_envelope(world.state, 8 * HOUR_S, None)
    assert np.unique(world.state.green_mw[:, 8:]).tolist() == [NEVER_S]
    with pytest.raises(ValueError, match="first hour"):
        set_envelope(world.state, -HOUR_S, None)


FLEXIBLE = st.builds(
    lambda ask, due_s: ask._replace(due_s=0 if due_s is None else ask.submit_s + due_s),
    ASKS,
    st.sampled_from([None, 0, 1, 7, 40, HOUR_S - 3, HOUR_S, 2 * HOUR_S + 11]),
)
ENVELOPES = st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.5, 50.0]), min_size=4, max_size=4)


@pytest.mark.parametrize("policy", NAMES)
@given(asked=st.lists(FLEXIBLE, min_size=1, max_size=14), first=ENVELOPES, second=ENVELOPES)
def test_nothing_starts_beyond_the_envelope_before_its_latest_start(
    policy: str, asked: list[Ask], first: list[float], second: list[float]
) -> None:
    """And every job that can run does, those at the gate by their latest start at the latest where there is room."""
    known: set[int] = set()

    def watch(world: World) -> None:
        state = world.state
        now_s = world.now_s
        hour = min(now_s // HOUR_S, 3)
        running = world.in_state(layout.RUNNING)
        green_mw = [0, 0]  # of all that began before their latest start
        for job in running:
            row = state.jobs[job]
            if row.due_s > row.start_s:
                pool = state.pools[row.pool]
                green_mw[pool.site] += state.shapes[row.shape].total_milli * pool.busy_mw_per_milli
        for job in set(running) - known:
            row = state.jobs[job]
            if row.due_s > row.start_s:
                where = state.pools[row.pool].site
                assert green_mw[where] <= int(1e6 * (first, second)[where][hour])
        known.update(running)
        for job in world.waiting():
            row = state.jobs[job]
            if row.gated:
                assert row.due_s > now_s
                assert row.reason == Reason.GREEN_HOLD
            if row.reserved_s < NEVER_S:
                assert row.due_s <= now_s

    world = run(
        TWO_SITES, asked, POLICIES[policy], outlook=Outlook(0, np.ones((2, 4))), green_kw=[first, second], watch=watch
    )
    assert world.waiting() == []


@given(asked=st.lists(FLEXIBLE, min_size=1, max_size=14), first=ENVELOPES, second=ENVELOPES)
def test_the_same_input_gives_the_same_bytes(asked: list[Ask], first: list[float], second: list[float]) -> None:
    worlds = [
        run(TWO_SITES, asked, HYBRID, outlook=Outlook(0, np.ones((2, 4))), green_kw=[first, second]) for _ in range(2)
    ]
    for world in worlds:  # where the arrays lie is no decision
        world.state.table[:] = 0
    assert arrays(worlds[0]) == arrays(worlds[1])
