"""The order of tenants against Fair Tree worked out slowly: use summed second by second, in 50 digits."""

from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.core.world import Ask, World, gpus, leaf, nodes, run, tree
from watteau.core import layout
from watteau.core.order import rank_tenants
from watteau.domain.policy import named_policy
from watteau.domain.tenants import Tenant
from watteau.domain.units import TenantId


def party(name: str, share: int, *children: Tenant) -> Tenant:
    """A tenant with children."""
    return Tenant(TenantId(name), name, share, None, children)


#: Rows: 0 root, 1 alice, 2 party, 3 and 4 its teams, 5 carol.
TREE = tree(leaf("alice", 3), party("party", 2, leaf("team a"), leaf("team b", 5)), leaf("carol"))
#: What rounding may hide, in GPU-seconds of this moment.
SLACK = Decimal("1e-9")


def use(world: World, half_life_s: int) -> list[Decimal]:
    """[tenant] 0.5 ** (age / half-life) summed over every GPU and second so far, subtree included."""
    total = [Decimal(0)] * len(world.state.tenants)
    half = Decimal("0.5")
    for job, row in enumerate(world.state.jobs):
        if row.state not in (layout.RUNNING, layout.ENDED):
            continue
        until_s = world.now_s if row.state == layout.RUNNING else row.end_s
        gpus_held = world.asked[job].shape.total_gpu_milli // 1000
        ages = range(world.now_s - until_s, world.now_s - row.start_s)
        used = sum((half ** (Decimal(age + 1) / half_life_s) for age in ages), Decimal(0)) * gpus_held
        tenant = row.tenant
        while tenant >= 0:
            total[tenant] += used
            tenant = world.state.tenants[tenant].parent
    return total


def contradictions(world: World, half_life_s: int) -> list[str]:
    """Where the ranks are not those of Fair Tree."""
    tenants = world.state.tenants
    wrong = []
    with localcontext() as context:
        context.prec = 50
        used = use(world, half_life_s)
    for parent in range(len(tenants)):
        children = sorted(np.flatnonzero(tenants["parent"] == parent), key=lambda child: int(tenants["rank"][child]))
        for first, second in pairwise(children):
            ahead = int(tenants["share"][first]) * used[second]
            behind = int(tenants["share"][second]) * used[first]
            if ahead < behind - SLACK or (used[first] == used[second] == 0 and first > second):
                wrong.append(f"at {world.now_s}: {first} before {second}, used {used[first]} and {used[second]}")
    below = {
        tenant: sorted(int(tenants["rank"][its]) for its in subtree(world, tenant)) for tenant in range(len(tenants))
    }
    for tenant, ranks in below.items():
        if ranks != list(range(int(tenants["rank"][tenant]), int(tenants["rank"][tenant]) + len(ranks))):
            wrong.append(f"the subtree of {tenant} is torn apart: {ranks}")
    return wrong


def subtree(world: World, tenant: int) -> list[int]:
    """The tenant and all below it."""
    children = np.flatnonzero(world.state.tenants["parent"] == tenant)
    return [tenant, *(its for child in children for its in subtree(world, int(child)))]


ASKS = st.lists(
    st.builds(
        lambda submit_s, runtime_s, count, tenant: Ask(submit_s, runtime_s, gpus(count), tenant=tenant),
        st.integers(0, 90),
        st.integers(0, 40),
        st.integers(1, 4),
        st.sampled_from([1, 3, 4, 5]),
    ),
    min_size=1,
    max_size=14,
)
#: Nothing is ranked between 0 s and 50 s, which is more than 40 half-lives: the zero is shifted while an end is booked.
REBASE_AT_AN_END = [
    Ask(0, 45, gpus(1), tenant=1),
    Ask(0, 1, gpus(1), tenant=5),
    *(Ask(46, 3, gpus(2), tenant=tenant) for tenant in (5, 1, 5, 1)),
]


@pytest.mark.parametrize("name", ["easy", "conservative"])
@given(asked=ASKS, half_life_s=st.sampled_from([1, 2, 30, 10_000]), every_s=st.sampled_from([1, 10]))
@example(asked=REBASE_AT_AN_END, half_life_s=1, every_s=1)
def test_tenants_are_ranked_as_fair_tree_says(name: str, asked: list[Ask], half_life_s: int, every_s: int) -> None:
    found: list[str] = []

    def watch(world: World) -> None:
        if world.state.cycle[0].ranked_s == world.now_s:
            found.extend(contradictions(world, half_life_s))

    policy = named_policy(name, half_life_s=half_life_s, rank_every_s=every_s)
    world = run(nodes(1, 4, tenants=TREE), asked, policy, watch=watch)
    rank_tenants(world.state, world.now_s)
    assert found + contradictions(world, half_life_s) == []


@given(asked=ASKS, half_life_s=st.sampled_from([1, 2, 30]))
def test_the_kept_use_equals_the_sum_over_every_second(asked: list[Ask], half_life_s: int) -> None:
    """Both up to one factor, the weight of a second, which is the same for all; shifts of the zero included."""
    world = run(nodes(1, 4, tenants=TREE), asked, named_policy("easy", half_life_s=half_life_s, rank_every_s=7))
    rank_tenants(world.state, world.now_s)
    expected = np.array([float(used) for used in use(world, half_life_s)]) * (2 ** (1 / half_life_s) - 1)
    half_lives = (world.now_s - world.state.cycle[0].weight_zero_s) / half_life_s
    np.testing.assert_allclose(world.state.tenants["usage"] / 2.0**half_lives, expected, rtol=1e-6, atol=1e-9)


def test_a_wrong_rank_is_noticed() -> None:
    world = run(nodes(1, 4, tenants=TREE), REBASE_AT_AN_END, named_policy("easy"))
    rank_tenants(world.state, world.now_s)
    assert contradictions(world, 7 * 86_400) == []
    ranks = world.state.tenants["rank"]
    ranks[[1, 5]] = ranks[[5, 1]]
    assert contradictions(world, 7 * 86_400)


def test_a_share_of_three_gets_three_times_as_much() -> None:
    asked = [Ask(0, 1, gpus(1), tenant=tenant) for tenant in (1, 2) for _ in range(400)]
    ours = nodes(1, 1, tenants=tree(leaf("alice", 3), leaf("bob")))
    world = run(ours, asked, named_policy("easy", rank_every_s=1, half_life_s=10**9), queue=1024)
    by_400 = [ask.tenant for ask, start in zip(world.asked, world.starts(), strict=True) if start < 400]
    assert abs(by_400.count(1) - 300) <= 2
