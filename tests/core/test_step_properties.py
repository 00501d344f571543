"""What holds for every step, whatever is asked: promises are kept, decisions repeat, order does not matter."""

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.world import Ask, World, build, fleet, fraction, gang, gpus, leaf, nodes, pool, rows, run, site, tree
from watteau.core.state import check_invariants
from watteau.core.step import Events, step
from watteau.domain.errors import InvariantBroken
from watteau.domain.jobs import Shape, Topology
from watteau.domain.policy import POLICIES, Policy, Scoring, named_policy
from watteau.domain.units import NEVER_S

TWO_SITES = fleet(
    site((pool("p", 4, block=2), 4), name="s", pue=1.2),
    site((pool("q", 8, block=3, model="b200"), 2), (pool("r", 2), 3), name="t", pue=1.1),
    tenants=tree(leaf("alice"), leaf("bob", 2), leaf("carol", quota_gpus=8)),
)
SHAPES = st.one_of(
    st.integers(1, 8).map(gpus),
    st.builds(gang, st.integers(2, 6), st.integers(1, 4), st.sampled_from(Topology)),
    st.builds(fraction, st.sampled_from([100, 250, 500, 700]), st.integers(1, 3)),
    st.builds(Shape, st.integers(1, 2), st.sampled_from([0, 1000]), st.integers(0, 96_000), st.integers(0, 900_000)),
)
ONE_TENANT = st.builds(
    lambda submit_s, runtime_s, more_s, shape: Ask(submit_s, runtime_s, shape, max(1, runtime_s + more_s)),
    st.integers(0, 20),
    st.integers(0, 15),
    st.sampled_from([0, 0, 3, 10]),
    SHAPES,
)
ASKS = st.builds(
    lambda ask, tenant, priority: ask._replace(tenant=tenant, priority=priority),
    ONE_TENANT,
    st.integers(1, 3),
    st.sampled_from([0, 0, 0, 1, -3]),
)
NAMES = sorted(POLICIES)


def every_policy() -> list[Policy]:
    """The named ones, compressing in every step and now and then; with few promises and with a small budget."""
    return [
        *POLICIES.values(),
        named_policy("hybrid", reservations=2, compress_every_s=0),
        named_policy("hybrid", reservations=3, compress_every_s=7, rank_every_s=5, half_life_s=20),
        named_policy("conservative", step_budget=2),
        named_policy("easy", scoring=Scoring.FRAGMENTATION_GRADIENT),
        named_policy("hybrid", scoring=Scoring.BALANCED_FRAGMENTATION),
    ]


def arrays(world: World) -> dict[str, bytes]:
    """Every array of the state."""
    return {name: array.tobytes() for name, array in vars(world.state).items() if isinstance(array, np.ndarray)}


@pytest.mark.parametrize("policy", every_policy(), ids=repr)
@given(asked=st.lists(ASKS, min_size=1, max_size=14))
def test_every_job_that_can_run_runs_to_its_end(policy: Policy, asked: list[Ask]) -> None:
    """World counts after each step: no GPU twice, no gang in part, a reason for each that waits."""
    world = run(TWO_SITES, asked, policy)
    assert world.waiting() == []


@given(asked=st.lists(ASKS, min_size=1, max_size=14), policy=st.sampled_from(every_policy()))
def test_same_input_gives_the_same_bytes(asked: list[Ask], policy: Policy) -> None:
    first, second = (run(TWO_SITES, asked, policy) for _ in range(2))
    for state in (first.state, second.state):  # where the arrays lie is no decision
        state.table[:] = 0
    assert arrays(first) == arrays(second)


@given(
    asked=st.lists(ASKS, min_size=2, max_size=12),
    policy=st.sampled_from(every_policy()),
    random=st.randoms(use_true_random=False),
)
def test_the_order_in_which_the_events_of_a_second_are_given_does_not_matter(
    asked: list[Ask], policy: Policy, random: Random
) -> None:
    """All arrive at 0 s and all that runs ends at 9 s, in any order; then half of the nodes close and open again."""
    asked = [ask._replace(submit_s=0) for ask in asked]
    straight, shuffled = build(TWO_SITES, asked, policy), build(TWO_SITES, asked, policy)
    closing = list(range(0, len(straight.state.nodes), 2))

    def steps(world: World, mixed: Callable[[list[int]], list[int]]) -> None:
        step(world.state, Events(arrived=rows(mixed(list(range(len(asked)))))), 0)
        running = world.in_state(2)
        step(world.state, Events(ended=rows(mixed(running))), 9)
        running = world.in_state(2)
        lost = [job for job in running if set(world.nodes_of(job)) & set(closing)]
        step(world.state, Events(lost=rows(mixed(lost)), nodes_down=rows(mixed(closing))), 10)
        step(world.state, Events(nodes_up=rows(mixed(closing))), 11)
        world.state.table[:] = 0

    def mixed(values: list[int]) -> list[int]:
        random.shuffle(values)
        return values

    steps(straight, lambda values: values)
    steps(shuffled, mixed)
    assert arrays(straight) == arrays(shuffled)


class Promises:
    """Watches every promise: while a job waits it may only come nearer, and when it falls due the job starts."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.broken: list[str] = []

    def __call__(self, world: World) -> None:
        now = world.promises()
        for job, at_s in self.held.items():
            started_s = world.starts()[job]
            if started_s < 0 and now.get(job, NEVER_S) > at_s:
                self.broken.append(f"at {world.now_s}: job {job} was promised {at_s} and now {now.get(job)}")
            if started_s > at_s or (started_s < 0 and at_s <= world.now_s):
                self.broken.append(f"at {world.now_s}: job {job} was promised {at_s} and did not start")
        self.held = now


@pytest.mark.parametrize("name", ["easy", "hybrid", "conservative"])
@pytest.mark.parametrize("every_s", [0, 7])
@given(asked=st.lists(ONE_TENANT, min_size=1, max_size=14), reservations=st.sampled_from([2, 3, 64]))
def test_backfill_moves_no_promise_back(name: str, every_s: int, asked: list[Ask], reservations: int) -> None:
    """R14, R15: estimates are upper bounds here, and the order is that of arrival."""
    kept = Promises()
    policy = named_policy(name, compress_every_s=every_s)
    if name == "hybrid":
        policy = named_policy(name, compress_every_s=every_s, reservations=reservations)
    run(TWO_SITES, asked, policy, watch=kept)
    assert kept.broken == []


def test_the_watch_on_promises_fires() -> None:
    kept = Promises()
    world = build(nodes(1, 2), [Ask(0, 9, gpus(2)), Ask(0, 5, gpus(1))], named_policy("easy"), watch=kept).run(1)
    assert kept.held == {1: 9}
    world.state.jobs["reserved_s"][1] = 10
    kept(world)
    assert kept.broken == ["at 0: job 1 was promised 9 and now 10"]


def damage_free(world: World) -> None:
    world.state.nodes["gpus_free"][0] += 1


def damage_gang(world: World) -> None:
    world.state.workers["job"][1] = 1


def damage_twice(world: World) -> None:
    world.state.jobs["state"][1] = 2
    world.state.nodes["gpus_free"][0] -= 2


def damage_bits(world: World) -> None:
    world.state.open_nodes[1] ^= 1


def damage_use(world: World) -> None:
    world.state.tenants["used_milli"][0] += 1


def damage_power(world: World) -> None:
    world.state.sites["power_mw"][0] -= 1


@pytest.mark.parametrize(
    "damage", [damage_free, damage_gang, damage_twice, damage_bits, damage_use, damage_power], ids=lambda f: f.__name__
)
def test_the_recount_fires(damage: Callable[[World], None]) -> None:
    world = build(nodes(2, 2), [Ask(0, 9, gang(2, 1)), Ask(0, 9, gpus(2))], named_policy("fifo")).run(1)
    check_invariants(world.state)
    damage(world)
    with pytest.raises(InvariantBroken):
        check_invariants(world.state)


def test_a_missing_reason_is_noticed() -> None:
    world = build(nodes(1, 1), [Ask(0, 9, gpus(1)), Ask(0, 9, gpus(1)), Ask(2, 1, gpus(1))], named_policy("fifo"))
    world.run(1)
    world.state.jobs["reason"][1] = 0
    with pytest.raises(InvariantBroken, match="job 1 is in state 1 with reason 0"):
        world.run(3)


def test_time_does_not_run_backwards() -> None:
    world = run(nodes(1, 1), [Ask(5, 9, gpus(1))], named_policy("fifo"))
    with pytest.raises(InvariantBroken, match="backwards"):
        step(world.state, Events(), 13)
