"""Which node is which, and what the fleet file says otherwise than the engine."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from watteau.domain.fleet import Engine as EngineKind
from watteau.domain.fleet import Fleet, Pool, Pue, Site, SlurmAccess
from watteau.domain.sites import NodeState, Partition, Reservation, SiteNode
from watteau.domain.units import PoolId, SiteId
from watteau.engines.contract import NodeCapacity, SiteView
from watteau.runtime.diff import NOT_LISTED, assign, closed_windows, differences

H100 = Pool(PoolId("h100s"), "h100", 8, 64, 1024, False, 1_000, 2_000, 3_000, 2)
CPUS = Pool(PoolId("cpus"), "", 0, 128, 512, False, 100, 200, 300, 2)


def site(h100s: int = 3, cpus: int = 1, **slurm: object) -> Site:
    fleet = Fleet.of_one_site(
        "hub", [(H100, h100s), (CPUS, cpus)], power_limit_kw=99, pue=Pue.constant(1), engine=EngineKind.SLURM
    )
    access = SlurmAccess(user="watteau", folder="/shared", **slurm)  # type: ignore[arg-type]
    return replace(fleet.sites[0], slurm=access)


def gpu(name: str, **changes: object) -> NodeCapacity:
    return replace(NodeCapacity(name, "h100", 8, 64, 1_048_576), **changes)  # type: ignore[arg-type]


def view(
    *nodes: NodeCapacity, partitions: tuple[Partition, ...] = (), reserved: tuple[Reservation, ...] = ()
) -> SiteView:
    return SiteView(nodes, (), partitions, reserved, "a test's scheduler")


def partition(name: str, *nodes: str, default: bool = True, up: bool = True) -> Partition:
    return Partition(name, default, up, nodes, 0, 0, 0, 0)


def where(nodes: tuple[SiteNode, ...]) -> dict[str, tuple[str, int]]:
    return {node.node: (node.pool, node.number) for node in nodes}


def words(found: object) -> list[tuple[str, str, str, str]]:
    return [(its.where, its.what, its.fleet, its.engine) for its in found]  # type: ignore[attr-defined]


def test_nodes_go_to_the_pool_of_their_shape_and_model_in_the_order_of_their_names() -> None:
    cpu = NodeCapacity("login", "", 0, 128, 524_288)
    other = gpu("a100-1", gpu_model="a100")
    found = assign(site(), view(gpu("n2"), cpu, gpu("n1"), other), ())
    assert where(found) == {"n1": ("h100s", 0), "n2": ("h100s", 1), "login": ("cpus", 0)}
    (homeless,) = [its for its in differences(site(), view(other), ()) if its.what == "in no pool"]
    assert (homeless.where, homeless.engine) == ("nodes a100-1", "8 x a100, 64 cores, 1024 GiB")


def test_a_number_stays_when_nodes_come_and_go() -> None:
    first = assign(site(), view(gpu("n2"), gpu("n3")), ())
    later = assign(site(), view(gpu("n1"), gpu("n3")), first)
    assert where(later) == {"n2": ("h100s", 0), "n3": ("h100s", 1), "n1": ("h100s", 2)}
    gone = next(node for node in later if node.node == "n2")
    assert (gone.state, gone.why) == (NodeState.DOWN, NOT_LISTED)


def test_more_nodes_than_the_fleet_file_opens_are_left_out_and_said() -> None:
    nodes = [gpu(f"n{number}") for number in range(5)]
    found = assign(site(), view(*nodes), ())
    assert len(found) == 3
    said = words(differences(site(), view(*nodes), found))
    assert ("nodes n3, n4", "in no pool", "no room for them", "8 x h100, 64 cores, 1024 GiB") in said


def test_a_pool_whose_nodes_are_named_has_these_and_no_others() -> None:
    named = site(nodes=((PoolId("h100s"), "gpu[08-09]"),))
    found = assign(named, view(gpu("gpu08"), gpu("gpu10"), gpu("gpu09", gpus=6)), ())
    assert where(found) == {"gpu08": ("h100s", 0), "gpu09": ("h100s", 1)}
    said = words(differences(named, view(gpu("gpu08"), gpu("gpu09", gpus=6)), found))
    assert ("pool h100s, nodes gpu09", "GPUs per node", "8", "6") in said


def test_a_node_that_is_out_or_in_no_partition_of_ours_takes_no_jobs_and_says_why() -> None:
    drained = gpu("n1", up=False, state=NodeState.DRAINED, why_down="fan broken")
    partitions = (partition("normal", "n1", "n2"), partition("debug", "n3", default=False))
    found = assign(site(), view(drained, gpu("n2"), gpu("n3"), partitions=partitions), ())
    assert [(node.node, node.state, node.why) for node in found] == [
        ("n1", NodeState.DRAINED, "fan broken"),
        ("n2", NodeState.UP, ""),
        ("n3", NodeState.RESERVED, "not in partition normal"),
    ]
    said = [its.engine for its in differences(site(), view(drained), found) if its.what == "takes no jobs"]
    assert said == ["drained: fan broken", "reserved: not in partition normal"]


def test_a_partition_that_is_not_there_is_said() -> None:
    named = site(partition="gpu")
    shown = view(gpu("n1"), partitions=(partition("normal", "n1"),))
    found = assign(named, shown, ())
    assert found[0].state is NodeState.RESERVED
    assert ("partition gpu", "not there", "gpu", "there are normal") in words(differences(named, shown, found))


def test_a_little_less_memory_is_no_difference_and_much_less_is() -> None:
    close, far = gpu("n1", memory_mib=1_031_000), gpu("n2", memory_mib=524_288)
    found = assign(site(), view(close, far), ())
    said = [its for its in differences(site(), view(close, far), found) if its.what.startswith("memory")]
    assert [(its.where, its.engine) for its in said] == [("pool h100s, nodes n2", "512")]


def test_a_fleet_file_that_agrees_has_no_differences() -> None:
    nodes = [gpu("n1"), gpu("n2"), gpu("n3"), NodeCapacity("login", "", 0, 128, 524_288)]
    shown = view(*nodes, partitions=(partition("normal", "n1", "n2", "n3", "login"),))
    assert differences(site(), shown, assign(site(), shown, ())) == []


def test_a_reservation_of_a_whole_pool_closes_it_and_one_of_ours_does_not() -> None:
    nodes = assign(site(), view(gpu("n1"), gpu("n2")), ())
    both = Reservation("works", 2_000, 3_000, ("n1", "n2", "n9"), (), ("root",), ("MAINT",))
    part = replace(both, nodes=("n1",))
    ours = replace(both, users=("watteau",), flags=())
    begun = replace(both, start_s=500)
    for reservation, windows in ((both, [(2_000, 3_000, "h100s")]), (part, []), (ours, []), (begun, [])):
        shown = view(gpu("n1"), gpu("n2"), reserved=(reservation,))
        assert closed_windows(shown, nodes, ("watteau", ""), 1_000) == windows


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sets(st.integers(0, 9)), max_size=6))
def test_no_place_is_ever_given_to_two_nodes_and_none_changes(rounds: list[set[int]]) -> None:
    known: tuple[SiteNode, ...] = ()
    for names in rounds:
        before = where(known)
        known = assign(site(h100s=4), view(*(gpu(f"n{number}") for number in names)), known)
        now = where(known)
        assert len(set(now.values())) == len(now)
        assert before.items() <= now.items()
        assert all(number < 4 for _, number in now.values())
        assert SiteId("hub") in {node.site for node in known} or not known
