"""Single rules of the step, each on a case small enough to work out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.world import (
    Ask,
    World,
    build,
    fleet,
    fraction,
    gang,
    gpus,
    leaf,
    nodes,
    pool,
    rows,
    run,
    site,
    tree,
)
from watteau.core import layout
from watteau.core.state import Outlook
from watteau.core.step import Events, step
from watteau.domain.decisions import Reason
from watteau.domain.jobs import Shape, Topology
from watteau.domain.policy import POLICIES, Order, Policy, named_policy

NAMES = sorted(POLICIES)
PROMISING = ["conservative", "easy", "hybrid"]
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)
promising = pytest.mark.parametrize("policy", [POLICIES[name] for name in PROMISING], ids=lambda policy: policy.name)


# Order


@every_policy
def test_a_higher_class_goes_first_and_equal_classes_by_arrival(policy: Policy) -> None:
    asked = [Ask(0, 5, gpus(1)), *(Ask(1, 5, gpus(1), priority=priority) for priority in (0, -1, 3, 0, 3))]
    assert run(nodes(1, 1), asked, policy).starts() == [0, 15, 25, 5, 20, 10]


def test_a_promise_outlives_the_arrival_of_a_higher_class() -> None:
    """EASY's one promise is held by the job that waits; the newcomer comes next, though it is ahead in the queue."""
    asked = [Ask(0, 5, gpus(2)), Ask(1, 5, gpus(2)), Ask(2, 5, gpus(2), priority=1)]
    assert run(nodes(1, 2), asked, named_policy("easy")).starts() == [0, 5, 10]


def test_in_strict_order_a_higher_class_passes_the_job_that_blocks_the_queue() -> None:
    asked = [Ask(0, 10, gpus(1)), Ask(1, 5, gpus(2)), Ask(2, 5, gpus(1), priority=1), Ask(2, 5, gpus(1))]
    assert run(nodes(1, 2), asked, named_policy("fifo")).starts() == [0, 10, 2, 15]


def test_in_strict_order_newcomers_are_told_though_the_queue_is_blocked_anew() -> None:
    """A job ends and one arrives in the same second (World looks at the reasons after each step)."""
    asked = [Ask(0, 3, gpus(1)), Ask(0, 9, gpus(1)), Ask(1, 1, gpus(2)), Ask(2, 1, gpus(1)), Ask(3, 1, gpus(1))]
    world = build(nodes(1, 2), asked, named_policy("fifo")).run(4)
    assert [world.reason(job) for job in (2, 3, 4)] == [Reason.CAPACITY, Reason.BEHIND_OTHERS, Reason.BEHIND_OTHERS]


# Quotas


@every_policy
@given(
    asked=st.lists(
        st.builds(
            lambda submit_s, runtime_s, count, tenant: Ask(submit_s, runtime_s, gpus(count), tenant=tenant),
            st.integers(0, 20),
            st.integers(1, 9),
            st.integers(1, 4),
            st.sampled_from([2, 3, 4]),
        ),
        min_size=1,
        max_size=14,
    )
)
def test_no_quota_is_exceeded_and_all_that_may_run_runs(policy: Policy, asked: list[Ask]) -> None:
    """The party's quota binds its two teams together; one team's own binds it further."""
    party = tree(leaf("team a", quota_gpus=2), leaf("team b"))
    ours = tree(
        type(party)(party.id, "party", 1, 5, party.children),
        leaf("other"),
    )

    def watch(world: World) -> None:
        quota, used = world.state.tenants["quota_milli"], world.state.tenants["used_milli"]
        assert ((quota < 0) | (used <= quota)).all()

    world = run(nodes(2, 4, tenants=ours), asked, policy, watch=watch)
    too_large = [job for job, ask in enumerate(world.asked) if ask.tenant == 2 and ask.shape.gpu_milli > 2000]
    assert world.in_state(layout.REJECTED) == too_large
    assert all(world.reason(job) == Reason.EXCEEDS_QUOTA for job in too_large)
    assert len(world.in_state(layout.ENDED)) == len(asked) - len(too_large)


@every_policy
def test_a_job_that_its_quota_holds_blocks_nobody(policy: Policy) -> None:
    ours = nodes(1, 4, tenants=tree(leaf("alice", quota_gpus=1), leaf("bob")))
    asked = [Ask(0, 9, gpus(1)), Ask(1, 5, gpus(1)), Ask(2, 5, gpus(3), tenant=2)]
    world = build(ours, asked, policy).run(3)
    assert world.reason(1) == Reason.QUOTA
    assert world.run().starts() == [0, 9, 2]


# Power: a node draws 1 kW idle, and 1 kW more for each of its 4 GPUs; two nodes are open


@every_policy
def test_the_power_limit_holds_and_who_waits_for_power_starts(policy: Policy) -> None:
    ours = fleet(site((pool(gpus_per_node=4), 2), power_kw=7))
    asked = [Ask(0, 10, gpus(3)), Ask(1, 10, gpus(2)), Ask(2, 4, gpus(2)), Ask(3, 3, gpus(3))]

    def watch(world: World) -> None:
        assert world.state.sites["power_mw"][0] <= 7_000_000

    world = build(ours, asked, policy, watch=watch).run(4)
    assert world.reason(2) == Reason.SITE_POWER
    assert world.run().starts() == [0, 1, 10, 11]


@pytest.mark.parametrize("name", ["easy", "hybrid", "conservative"])
def test_a_job_that_lacks_gpus_too_does_not_close_its_site_to_others(name: str) -> None:
    """It would break the power limit as well, but until there is room for it that is no reason."""
    ours = fleet(site((pool(gpus_per_node=4), 2), power_kw=8))
    asked = [Ask(0, 10, gpus(3)), Ask(1, 10, gpus(2)), Ask(2, 4, gpus(4)), Ask(3, 3, gpus(1))]
    world = build(ours, asked, named_policy(name)).run(4)
    assert world.reason(2) == Reason.CAPACITY
    assert world.run().starts()[3] == 3


@every_policy
def test_a_job_starts_in_the_hour_whose_limit_allows_it(policy: Policy) -> None:
    """No event comes at 7,200 s; the hour's PUE does."""
    ours = fleet(site((pool(gpus_per_node=4), 2), power_kw=8))
    outlook = Outlook(0, np.array([[2.0, 2.0, 1.0]]))
    assert run(ours, [Ask(5, 10, gpus(4))], policy, outlook=outlook).starts() == [7200]


@every_policy
def test_a_site_without_the_power_for_a_job_says_so(policy: Policy) -> None:
    world = run(fleet(site((pool(gpus_per_node=4), 2), power_kw=5)), [Ask(0, 9, gpus(4)), Ask(0, 9, gpus(3))], policy)
    assert world.reason(0) == Reason.SITE_POWER
    assert world.starts() == [-1, 0]


@every_policy
def test_the_idle_power_of_every_pool_of_a_site_counts(policy: Policy) -> None:
    """4 kW idle in two pools, and 4 kW for the job: of 7 kW too much, now and for ever, so nobody waits behind it."""
    ours = fleet(site((pool("p", 4), 2), (pool("q", 4), 2), power_kw=7))
    world = build(ours, [Ask(0, 9, gpus(4)), Ask(1, 9, gpus(3))], policy).run(2)
    assert (world.reason(0), world.promises()) == (Reason.SITE_POWER, {})
    assert world.run().starts() == [-1, 1]


@every_policy
def test_an_hour_that_is_over_gives_no_power_any_more(policy: Policy) -> None:
    """From 3,600 s on 4 kW are left, of which 2 for idle nodes: not for job 1, which waited for it, nor for job 2."""
    ours = fleet(site((pool(gpus_per_node=4), 2), power_kw=8))
    outlook = Outlook(0, np.array([[1.0, 2.0]]))
    asked = [Ask(0, 4000, gpus(4)), Ask(1, 9, gpus(4)), Ask(3700, 9, gpus(3)), Ask(3800, 9, gpus(2))]
    world = build(ours, asked, policy, outlook=outlook).run(3701)
    assert [world.reason(job) for job in (1, 2)] == [Reason.SITE_POWER] * 2
    assert world.promises() == {}
    assert world.run().starts() == [0, -1, -1, 4000]


@promising
def test_who_waits_for_an_hour_with_more_power_is_promised_it_and_closes_the_site_to_nobody(policy: Policy) -> None:
    ours = fleet(site((pool(gpus_per_node=4), 2), power_kw=8))
    outlook = Outlook(0, np.array([[2.0, 2.0, 1.0]]))
    asked = [Ask(5, 10, gpus(4)), Ask(6, 10, gpus(2)), Ask(7, 10, gpus(3)), Ask(8, 10, gpus(1))]
    world = build(ours, asked, policy, outlook=outlook).run(7)
    assert world.promises() == {0: 7200}
    assert world.run().starts() == [7200, 6, 7210, 16]


# Capacity that comes and goes


@every_policy
@given(
    asked=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 15), st.sampled_from([gpus(1), gpus(2), gang(3, 1)])).map(
            lambda fields: Ask(*fields)
        ),
        min_size=1,
        max_size=12,
    )
)
def test_nothing_runs_into_a_planned_outage(policy: Policy, asked: list[Ask]) -> None:
    ours = fleet(site((pool(gpus_per_node=2), 2), outages=[(20, 30), (47, 50)]))
    world = run(ours, asked, policy)
    for start_s, ask in zip(world.starts(), world.asked, strict=True):
        assert start_s >= 0
        assert all(start_s + ask.told_s <= begin or start_s >= end for begin, end in [(20, 30), (47, 50)])


@every_policy
def test_a_planned_outage_is_given_as_the_reason(policy: Policy) -> None:
    world = build(fleet(site((pool(gpus_per_node=2), 1), outages=[(20, 30)])), [Ask(15, 9, gpus(1))], policy).run(16)
    assert world.reason(0) == Reason.OUTAGE_AHEAD
    assert world.run().starts() == [30]


@every_policy
def test_jobs_of_lost_nodes_wait_again_and_run_later(policy: Policy) -> None:
    world = build(nodes(3, 1), [Ask(0, 9, gang(2, 1)), Ask(0, 9, gpus(1)), Ask(1, 50, gpus(1))], policy).run(4)
    assert world.nodes_of(0) == [0, 1]
    assert world.second(4, nodes_down=[1]) == []
    assert (world.waiting(), world.in_state(layout.RUNNING)) == ([0, 2], [1])
    world.second(6, nodes_up=[1])
    assert world.run().starts()[:2] == [6, 0]


@every_policy
def test_a_job_for_nodes_that_open_later_waits_for_them_and_blocks_nobody(policy: Policy) -> None:
    ours = fleet(site((pool(gpus_per_node=2), 1), later=[(50, "p", 1)]))
    world = build(ours, [Ask(0, 9, gang(2, 2)), Ask(1, 5, gpus(2))], policy).run(2)
    assert world.reason(0) == Reason.NOT_OPEN_YET
    assert world.run().starts() == [50, 1]


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (Shape(1, 1000, gpu_models=("mi300x",)), Reason.NO_SUCH_GPU_MODEL),
        (Shape(1, 1000, sites=("mulhouse",)), Reason.NO_SUCH_SITE),
        (gpus(3), Reason.EXCEEDS_MAXIMUM),
        (gang(5, 2), Reason.EXCEEDS_MAXIMUM),
        (gang(3, 2, Topology.ONE_BLOCK_REQUIRED), Reason.EXCEEDS_MAXIMUM),
        (Shape(1, 1000, cpu_milli=96_001), Reason.EXCEEDS_MAXIMUM),
        (Shape(1, 1000, memory_mib=1024 * 1024 + 1), Reason.EXCEEDS_MAXIMUM),
    ],
)
@every_policy
def test_what_can_never_run_is_refused_with_its_reason(policy: Policy, shape: Shape, reason: Reason) -> None:
    world = run(nodes(4, 2, block=2), [Ask(0, 9, shape), Ask(0, 9, gpus(1))], policy)
    assert world.in_state(layout.REJECTED) == [0]
    assert world.reason(0) == reason
    assert reason.is_final


@every_policy
def test_a_gang_that_must_sit_in_one_block_waits_for_one(policy: Policy) -> None:
    asked = Ask(6, 9, gang(2, 1, Topology.ONE_BLOCK_REQUIRED))
    busy = [Ask(0, 9, gpus(1)), Ask(0, 5, gpus(1)), Ask(0, 9, gpus(1)), Ask(0, 5, gpus(1))]
    world = build(nodes(4, 1, block=2), [Ask(0, 9, gang(4, 1)), asked], policy).run(7)
    assert world.reason(1) == Reason.CAPACITY
    world = build(nodes(4, 1, block=2), [*busy, asked], policy).run(7)
    assert world.reason(4) == Reason.TOPOLOGY
    assert world.run().starts()[4] == 9


@pytest.mark.parametrize(
    "shape",
    [
        Shape(2, 700, topology=Topology.ONE_BLOCK_REQUIRED),
        Shape(2, 0, cpu_milli=60_000, topology=Topology.ONE_BLOCK_REQUIRED),
    ],
    ids=["fractions", "cores"],
)
@every_policy
def test_a_gang_without_whole_gpus_waits_for_its_block_too(policy: Policy, shape: Shape) -> None:
    busy = [Ask(0, end_s, Shape(1, 1000, cpu_milli=96_000)) for end_s in (9, 5, 20, 5)]
    world = build(nodes(4, 1, block=2), [*busy, Ask(6, 9, shape)], policy).run(7)
    assert world.reason(4) == Reason.TOPOLOGY
    assert world.run().starts()[4] == 9
    assert world.nodes_of(4) in ([0, 1], [1, 0])


def test_of_several_pools_the_reason_is_that_of_the_pool_where_least_is_missing() -> None:
    """One GPU of p is free and promised to job 2; q has none."""
    ours = fleet(site((pool("q", 1, model="b200"), 1), (pool("p", 2), 1), (pool("r", 1, model="l4"), 1)))
    asked = [Ask(0, 20, Shape(1, 1000, gpu_models=(model,))) for model in ("h100", "b200", "l4")]
    asked += [Ask(1, 9, Shape(1, 2000, gpu_models=("h100",))), Ask(2, 50, gpus(1))]
    world = build(ours, asked, named_policy("easy")).run(3)
    assert [world.reason(job) for job in (3, 4)] == [Reason.CAPACITY, Reason.BEHIND_OTHERS]


# Parts of a GPU, CPU and memory


@every_policy
def test_fractions_share_a_gpu_and_the_whole_comes_back_when_the_last_leaves(policy: Policy) -> None:
    asked = [
        *(Ask(0, 5 + job, fraction(300)) for job in range(3)),
        Ask(1, 3, gpus(2)),
        Ask(1, 4, fraction(100)),
    ]
    world = build(nodes(1, 2), asked, policy).run(2)
    assert world.state.nodes["gpus_free"][0] == 1
    assert world.run().starts() == [0, 0, 0, 7, 1 if policy.reservations else 10]


@promising
def test_a_fraction_delays_no_promise(policy: Policy) -> None:
    """It would fit on the shared GPU at once, but hold that GPU when the promise of 2 GPUs falls due."""
    asked = [Ask(0, 9, fraction(500)), Ask(0, 9, gpus(1)), Ask(1, 5, gpus(2)), Ask(2, 20, fraction(500))]
    assert run(nodes(1, 2), asked, policy).starts() == [0, 0, 9, 14]


@promising
def test_gangs_that_find_room_for_some_workers_let_the_step_end(policy: Policy) -> None:
    """Each undid its half, which woke the other for another try, for ever."""
    asked = [Ask(0, 10, gpus(1)), Ask(1, 10, fraction(500, 3)), Ask(1, 10, fraction(400, 4))]
    assert run(nodes(2, 1), asked, policy).starts() == [0, 10, 20]


@every_policy
def test_cores_and_memory_bind_too(policy: Policy) -> None:
    """Of 96 cores and 1,024 GiB: GPUs are free for all of these, but not the rest."""
    half, most = Shape(1, 1000, cpu_milli=48_000), Shape(1, 1000, cpu_milli=49_000)
    asked = [Ask(0, 10, half), Ask(0, 6, half), Ask(1, 5, most), Ask(1, 5, Shape(1, 1000, memory_mib=1 << 20))]
    world = build(nodes(1, 8), asked, policy).run(2)
    assert world.reason(2) == Reason.CAPACITY
    assert world.run().starts()[:3] == [0, 0, 10] if policy.reservations == 0 else world.starts()[:2] == [0, 0]


@every_policy
def test_a_job_without_gpus_takes_cores_only(policy: Policy) -> None:
    cores = Shape(1, 0, cpu_milli=60_000)
    asked = [Ask(0, 9, gpus(8)), Ask(0, 9, cores), Ask(0, 9, cores), Ask(0, 9, Shape(2, 0, cpu_milli=96_000))]
    assert run(nodes(2, 8), asked, policy).starts() == [0, 0, 0, 9]


# Time


@every_policy
def test_an_estimate_does_not_kill_and_the_limit_does(policy: Policy) -> None:
    asked = [Ask(0, 50, gpus(1), 10), Ask(0, 50, gpus(1), 10, limit_s=20), Ask(1, 5, gpus(2))]
    world = run(nodes(1, 2), asked, policy)
    assert world.starts() == [0, 0, 50]
    assert world.state.jobs["end_s"].tolist() == [50, 20, 55]


@promising
def test_an_estimate_that_has_passed_moves_every_later_end_on_its_node(policy: Policy) -> None:
    """Node 0: job 0 overruns 100 s and is taken to end at 200 s, job 1 at 160 s. When two GPUs of it were worked out
    (for job 3, which was promised node 1), that was 160 s for both."""
    asked = [Ask(0, 220, gpus(1), 100), Ask(0, 160, gpus(1)), Ask(0, 120, gpus(2)), Ask(10, 400, gpus(2))]
    world = build(nodes(2, 2), [*asked, Ask(150, 9, gpus(2))], policy).run(151)
    assert world.promises() == {4: 200}


@promising
def test_an_overrun_does_not_let_others_overtake_for_ever(policy: Policy) -> None:
    """Job 1 was promised 10 s; those who arrive all the time keep it no longer than one of them runs (to 41 s), or
    until the promises are next given anew."""
    asked = [Ask(0, 33, gpus(1), 10), Ask(1, 5, gpus(2)), *(Ask(2 + k, 8, gpus(1)) for k in range(0, 60, 3))]
    assert run(nodes(1, 2), asked, policy).starts()[1] <= 41 + policy.compress_every_s


@every_policy
def test_jobs_of_no_length_pass_in_one_second(policy: Policy) -> None:
    world = run(nodes(1, 1), [Ask(3, 0, gpus(1)) for _ in range(5)], policy)
    assert world.starts() == [3] * 5
    assert world.clock.clock[0].steps == 6


@pytest.mark.parametrize("budget", [1, 2, 3])
@promising
def test_a_step_that_uses_its_budget_says_so_and_the_next_goes_on(policy: Policy, budget: int) -> None:
    named = named_policy(policy.name, step_budget=budget)
    asked = [Ask(0, 50, gpus(3)), *(Ask(1, 5, gpus(4)) for _ in range(5)), Ask(1, 5, gpus(1))]
    world = build(nodes(1, 4), asked, named).run(2)
    assert [world.reason(job) for job in range(1, 1 + budget)] == [Reason.CAPACITY] * budget
    assert [world.reason(job) for job in range(1 + budget, 7)] == [Reason.BUDGET_EXHAUSTED] * (6 - budget)
    starts = world.run().starts()
    assert starts[6] == 1 + (6 - 1) // budget
    assert sorted(starts[1:6]) == [50, 55, 60, 65, 70]


# What the driver sees


def test_what_is_passed_in_is_sorted_and_what_comes_out_is_a_copy() -> None:
    world = build(nodes(1, 3), [Ask(0, 9, gpus(1)) for _ in range(3)], named_policy("easy"))
    decisions = step(world.state, Events(arrived=rows([2, 0, 1])), 0)
    world.state.started[:] = -1
    assert decisions.started.tolist() == [0, 1, 2]


def test_a_fair_order_holds_without_reservations_too() -> None:
    policy = Policy("fair and strict", reservations=0, order=Order.FAIR_TREE, rank_every_s=1)
    ours = nodes(1, 1, tenants=tree(leaf("alice"), leaf("bob")))
    asked = [Ask(0, 5, gpus(1), tenant=1), Ask(1, 5, gpus(1), tenant=1), Ask(2, 5, gpus(1), tenant=2)]
    assert run(ours, asked, policy).starts() == [0, 10, 5]
