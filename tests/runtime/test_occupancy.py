"""Room on a site's nodes is never given twice, and what was seen to run wins over what was planned."""

from hypothesis import given
from hypothesis import strategies as st

from tests.core.world import nodes
from watteau.domain.units import PoolId
from watteau.runtime.occupancy import Occupancy, Part

GPUS, NODES = 4, 3
SITE = nodes(NODES, GPUS).sites[0]
POOL = SITE.pools[0]
WHOLE = (POOL.gpus_per_node, 1000 * POOL.cpu_cores, 1024 * POOL.memory_gib)

PARTS = st.lists(
    st.builds(
        Part,
        st.just(POOL.id),
        st.integers(0, NODES),  # one more than there is
        st.integers(0, GPUS + 1),
        st.sampled_from([0, 1000, WHOLE[1] // 2, WHOLE[1]]),
        st.sampled_from([0, 1024, WHOLE[2]]),
    ),
    max_size=3,
    unique_by=lambda part: part.number,
)
CLAIMS = st.lists(st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), st.booleans()), PARTS), max_size=25)


def of(part: Part) -> tuple[int, int, int]:
    return part.gpus, part.cpu_milli, part.memory_mib


@given(claims=CLAIMS)
def test_room_is_given_once_and_plans_give_way_newest_first(claims: list[tuple[str, bool | None, list[Part]]]) -> None:
    occupancy = Occupancy(SITE)
    held: dict[str, tuple[tuple[Part, ...], bool]] = {}  # in the order of their coming: the slow reference
    for who, sure, parts in claims:
        held.pop(who, None)
        if sure is None:
            occupancy.leave(who)
            continue
        granted = occupancy.claim(who, parts, sure=sure)
        for other in granted.left:
            assert sure, "a plan makes nobody leave"
            assert not held.pop(other)[1], "what runs does not leave"
        there = [part for part in parts if part.number < NODES]
        if sure or granted.parts == tuple(part for part in there if part):
            held[who] = (granted.parts, sure)
        else:
            assert granted.parts == (), "a plan is granted whole or not at all"
        for number in range(NODES):
            used = [
                sum(of(part)[kind] for its, _ in held.values() for part in its if part.number == number)
                for kind in range(3)
            ]
            assert all(0 <= some <= all_of_it for some, all_of_it in zip(used, WHOLE, strict=True))
        for asked in there if sure else ():
            has = next((of(part) for part in granted.parts if part.number == asked.number), (0, 0, 0))
            if has != of(asked):
                here = [
                    (its, is_sure)
                    for name, (its, is_sure) in held.items()
                    if name != who
                    for part in its
                    if part.number == asked.number
                ]
                assert all(is_sure for _, is_sure in here), "less than asked only where others were seen as well"
        for who_else in "abcdef":
            assert (who_else in occupancy) == (who_else in held)


def test_the_newest_plan_leaves_first_and_the_older_one_stays() -> None:
    occupancy = Occupancy(SITE)
    for name in ("older", "newer"):
        assert occupancy.claim(name, [Part(POOL.id, 0, 2, 0, 0)], sure=False).parts
    assert occupancy.claim("by hand", [Part(POOL.id, 0, 2, 0, 0)], sure=True).left == ("newer",)
    assert "older" in occupancy


def test_a_pool_that_the_site_does_not_have_holds_nothing() -> None:
    occupancy = Occupancy(SITE)
    assert occupancy.claim("a", [Part(PoolId("elsewhere"), 0, 1, 0, 0)], sure=True).parts == ()
