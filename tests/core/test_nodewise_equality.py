"""On several nodes the core starts each job when and where a slow, obvious scheduler does that follows the rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.nodewise import Machine, Wish, schedule
from tests.core.world import Ask, nodes, run
from watteau.domain.jobs import Shape, Topology
from watteau.domain.policy import named_policy

CASES = st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 4)).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(
            st.builds(
                lambda submit_s, runtime_s, gpus, workers, topology: Wish(
                    submit_s, runtime_s, workers if topology != 2 else min(workers, size[2], size[0]), gpus, topology
                ),
                st.integers(0, 20),
                st.integers(1, 12),
                st.integers(1, size[1]),
                st.sampled_from([1, 1, 2, 3, 4]).map(lambda workers: min(workers, size[0])),
                st.sampled_from([0, 1, 2]),
            ),
            min_size=1,
            max_size=12,
        ).map(lambda wishes: sorted(wishes, key=lambda wish: wish.submit_s)),
    )
)
Case = tuple[tuple[int, int, int], list[Wish]]


def of_the_core(case: Case, name: str, reservations: int) -> list[tuple[int, list[int]]]:
    """What the core decides: (start, nodes) of each job."""
    (count, gpus, block), wishes = case
    asked = [
        Ask(wish.submit_s, wish.runtime_s, Shape(wish.workers, wish.gpus * 1000, topology=Topology(wish.topology)))
        for wish in wishes
    ]
    policy = named_policy(name, reservations=reservations, compress_every_s=0)
    world = run(nodes(count, gpus, block), asked, policy)
    return [(start, sorted(world.nodes_of(job))) for job, start in enumerate(world.starts())]


def of_the_rules(case: Case, reservations: int) -> list[tuple[int, list[int]]]:
    """What the slow scheduler decides."""
    (count, gpus, block), wishes = case
    return [(start, sorted(on)) for start, on in schedule(wishes, Machine(count, gpus, block), reservations)]


@pytest.mark.parametrize(
    ("name", "reservations"),
    [("fifo", 0), ("easy", 1), ("hybrid", 2), ("hybrid", 64), ("conservative", 1 << 30)],
)
@given(case=CASES)
def test_every_job_starts_when_and_where_the_rules_say(name: str, reservations: int, case: Case) -> None:
    assert of_the_core(case, name, reservations) == of_the_rules(case, reservations)
