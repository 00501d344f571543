"""The fragmentation scores against their definition, written as plainly as it reads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watteau.core import layout
from watteau.core.layout import State
from watteau.core.state import build_state, check_invariants
from watteau.core.step import Events, step
from watteau.domain.fleet import Fleet, Pool, Pue
from watteau.domain.jobs import Shape
from watteau.domain.policy import Order, Policy, Scoring
from watteau.domain.units import NEVER_S, PoolId

RULES = (Scoring.FRAGMENTATION_GRADIENT, Scoring.BALANCED_FRAGMENTATION)


@dataclass
class Node:
    """A node as the definition sees it: thousandths free on each GPU."""

    model: str
    free_milli: list[int]
    cpu_milli: int
    memory_mib: int

    def runs(self, shape: Shape) -> bool:
        whole = sum(free == 1000 for free in self.free_milli)
        return (
            (not shape.gpu_models or self.model in shape.gpu_models)
            and self.cpu_milli >= shape.cpu_milli
            and self.memory_mib >= shape.memory_mib
            and (max(self.free_milli) >= shape.gpu_milli if shape.gpu_milli % 1000 else whole * 1000 >= shape.gpu_milli)
        )

    def with_worker(self, shape: Shape, gpu: int) -> "Node":
        free = list(self.free_milli)
        if shape.gpu_milli % 1000:
            free[gpu] -= shape.gpu_milli
        else:
            for _ in range(shape.gpu_milli // 1000):
                free[free.index(1000)] = 0
        return Node(self.model, free, self.cpu_milli - shape.cpu_milli, self.memory_mib - shape.memory_mib)

    def fragmentation(self, mix: Sequence[tuple[float, Shape]]) -> int:
        """In millionths of thousandths of a GPU, like the shares of the mix."""
        whole_mix = sum(share for share, _ in mix)
        total = 0
        for share, shape in mix:
            of_one_gpu = min(shape.gpu_milli, 1000)
            if shape.gpu_milli == 0 or not self.runs(shape):
                idle = sum(self.free_milli)
            else:
                idle = sum(free for free in self.free_milli if free < of_one_gpu)
            total += round(1e6 * share / whole_mix) * idle
        return total

    def lacking(self, mix: Sequence[tuple[float, Shape]]) -> int:
        """Free thousandths that have less CPU or memory beside them than the mix asks for on average."""
        gpu = math.fsum(share * shape.gpu_milli for share, shape in mix)
        cpu = math.fsum(share * shape.cpu_milli for share, shape in mix)
        memory = math.fsum(share * shape.memory_mib for share, shape in mix)
        most = 0
        if gpu and cpu:
            most = max(most, sum(self.free_milli) - int(self.cpu_milli * (gpu / cpu)))
        if gpu and memory:
            most = max(most, sum(self.free_milli) - int(self.memory_mib * (gpu / memory)))
        return most

    def potential(self, mix: Sequence[tuple[float, Shape]], rule: Scoring) -> int:
        balanced = rule is Scoring.BALANCED_FRAGMENTATION
        return self.fragmentation(mix) + (1_000_000 * self.lacking(mix) if balanced else 0)


def best_choices(
    nodes: Sequence[Node], shape: Shape, mix: Sequence[tuple[float, Shape]], rule: Scoring
) -> tuple[int, int] | None:
    """(node, thousandths that its GPU has free before) by the rule and its ties; None when the shape fits nowhere."""
    found = []
    for n, node in enumerate(nodes):
        if not node.runs(shape):
            continue
        before = node.potential(mix, rule)
        gpus = [gpu for gpu, free in enumerate(node.free_milli) if free >= shape.gpu_milli]
        for gpu in gpus if shape.gpu_milli % 1000 else [-1]:
            loss = node.with_worker(shape, gpu).potential(mix, rule) - before
            level = node.free_milli[gpu] if gpu >= 0 else 0
            found.append((loss, sum(node.free_milli), node.cpu_milli, n, level))
    if not found:
        return None
    return min(found)[3:]


KINDS = (("A", 4, 16, 32), ("B", 2, 32, 16), ("A", 1, 2, 8))


def fleet(counts: Sequence[int]) -> Fleet:
    pools = tuple(
        Pool(PoolId(f"p{i}"), model, gpus, cores, gib, False, 1, 1, 1, 8)
        for i, (model, gpus, cores, gib) in enumerate(KINDS)
    )
    counted = list(zip(pools, counts, strict=True))
    return Fleet.of_one_site("s", counted, power_limit_kw=10_000, pue=Pue.constant(1.0))


@dataclass
class World:
    """A state with its running jobs. `jobs` are indices into the shapes."""

    state: State
    now_s: int = 0
    running: list[int] = field(default_factory=list)

    @staticmethod
    def of(
        counts: Sequence[int],
        shapes: Sequence[Shape],
        mix: Sequence[tuple[float, Shape]],
        rule: Scoring,
        *,
        jobs: Sequence[int] = (),
        estimates_s: Sequence[int] = (),
    ) -> "World":
        shape_of = np.array(jobs if len(jobs) else range(len(shapes)), dtype=np.int32)
        policy = Policy("test", reservations=1, order=Order.ARRIVAL, scoring=rule)
        state = build_state(fleet(counts), shapes, policy, jobs=len(shape_of), workers=len(shape_of), typical=mix)
        rows = state.jobs
        rows["estimate_s"] = estimates_s if len(estimates_s) else NEVER_S // 2
        rows["start_s"] = -1
        rows["reserved_s"] = NEVER_S
        rows["first_worker"] = np.arange(len(shape_of))
        rows["shape"] = shape_of
        rows["pool"] = -1
        state.workers["job"] = np.arange(len(shape_of))
        state.workers["node"] = -1
        step(state, Events(nodes_up=np.arange(len(state.nodes), dtype=np.int32)), 0)
        return World(state)

    def step(self, *, arrived: Sequence[int] = (), ended: Sequence[int] = ()) -> list[int]:
        events = Events(arrived=np.array(arrived, dtype=np.int32), ended=np.array(ended, dtype=np.int32))
        started: list[int] = step(self.state, events, self.now_s).started.tolist()
        self.running = sorted({*self.running, *started} - set(ended))
        return started

    def nodes(self) -> list[Node]:
        """What is free, counted from the running workers alone."""
        rows = self.state.nodes
        result = []
        for n in range(len(rows)):
            model, gpus, cores, gib = KINDS[int(rows["pool"][n])]
            whole, levels = gpus, dict[int, int]()
            cpu_milli, memory_mib = cores * 1000, gib * 1024
            for job in self.running:
                if self.state.workers["node"][job] != n:
                    continue
                shape = self.state.shapes[int(self.state.jobs["shape"][job])]
                cpu_milli -= int(shape.cpu_milli)
                memory_mib -= int(shape.memory_mib)
                whole -= int(shape.gpus)
                if shape.milli:
                    gpu = int(self.state.workers["shared_gpu"][job])
                    levels[gpu] = levels.get(gpu, 1000) - int(shape.milli)
            whole -= len(levels)
            held = gpus - whole - len(levels)
            result.append(Node(model, [1000] * whole + list(levels.values()) + [0] * held, cpu_milli, memory_mib))
        return result


gpu_demand = st.sampled_from([0, 110, 300, 470, 500, 530, 700, 999, 1000, 2000, 4000])
shape_strategy = st.builds(
    Shape,
    workers=st.just(1),
    gpu_milli=gpu_demand,
    cpu_milli=st.integers(0, 9).map(lambda cores: 900 * cores),
    memory_mib=st.integers(0, 9).map(lambda gib: 1000 * gib),
    gpu_models=st.sampled_from([(), ("A",), ("B",), ("A", "B")]),
)
mix_strategy = st.lists(st.tuples(st.integers(1, 50).map(float), shape_strategy), min_size=1, max_size=6)


@given(
    counts=st.tuples(st.integers(1, 2), st.integers(0, 2), st.integers(0, 2)),
    shapes=st.lists(shape_strategy, min_size=1, max_size=3),
    asked=st.lists(st.integers(0, 2), min_size=1, max_size=25),
    mix=mix_strategy,
    rule=st.sampled_from(RULES),
    ends=st.lists(st.integers(0, 1_000), max_size=40),
)
@settings(max_examples=200)
def test_every_worker_goes_where_the_definition_says(
    counts: tuple[int, int, int],
    shapes: list[Shape],
    asked: list[int],
    mix: list[tuple[float, Shape]],
    rule: Scoring,
    ends: list[int],
) -> None:
    """Arrivals and ends in any order: no kept score outlives the state it was worked out for."""
    jobs = [index % len(shapes) for index in asked]
    world = World.of(counts, shapes, mix, rule, jobs=jobs)
    for job, index in enumerate(jobs):
        shape = shapes[index]
        expected = best_choices(world.nodes(), shape, mix, rule)
        before = world.nodes()
        started = world.step(arrived=[job])
        check_invariants(world.state)
        assert started == ([job] if expected else [])
        if expected is None:  # from here on a promise narrows the choice
            return
        node = int(world.state.workers["node"][job])
        assert node == expected[0]
        if shape.gpu_milli % 1000:
            gone = sorted(before[node].free_milli)
            gone.remove(expected[1])
            assert sorted(world.nodes()[node].free_milli) == sorted([*gone, expected[1] - shape.gpu_milli])
        if world.running and ends and ends[job % len(ends)] % 3 == 0:
            world.step(ended=[world.running[ends[job % len(ends)] % len(world.running)]])


def test_a_fraction_takes_a_fresh_gpu_where_that_fragments_less() -> None:
    """Best fit takes the GPU with 600 free and leaves 100, of no use to the mix; 500 and 600 serve most of it."""
    shapes = [Shape(1, 400), Shape(1, 500)]
    left = {}
    for rule in (Scoring.BEST_FIT, *RULES):
        world = World.of((0, 1, 0), shapes, [(1.0, Shape(1, 600)), (9.0, Shape(1, 500))], rule)
        world.step(arrived=[0])
        world.step(arrived=[1])
        left[rule] = sorted(world.nodes()[0].free_milli)
    assert left[Scoring.BEST_FIT] == [100, 1000]
    assert left[Scoring.FRAGMENTATION_GRADIENT] == left[Scoring.BALANCED_FRAGMENTATION] == [500, 600]


def test_the_balanced_rule_keeps_cpu_beside_free_gpus() -> None:
    """The mix asks for 6 cores a GPU. Kind A has 4, kind B 16: the job of 12 cores goes to B, the lean one to A."""
    mix = [(1.0, Shape(1, 1000, 12_000)), (1.0, Shape(1, 1000))]
    for order in ((0, 1), (1, 0)):
        shapes = [Shape(1, 1000, 12_000), Shape(1, 1000)]
        world = World.of((1, 1, 0), shapes, mix, Scoring.BALANCED_FRAGMENTATION)
        for job in order:
            world.step(arrived=[job])
        assert [KINDS[int(world.state.nodes["pool"][world.state.workers["node"][job]])][0] for job in (0, 1)] == [
            "B",
            "A",
        ]


@pytest.mark.parametrize("rule", RULES)
def test_a_fraction_does_not_delay_a_promise(rule: Scoring) -> None:
    """Half a GPU and a whole one run until 100; two GPUs are promised from then on."""
    half, both = Shape(1, 500), Shape(1, 2000)
    shapes = [half, Shape(1, 1000), both, half, half]
    world = World.of((0, 1, 0), shapes, [(1.0, half)], rule, estimates_s=[100, 100, 50, 200, 60])
    assert world.step(arrived=[0]) == [0]
    assert world.step(arrived=[1]) == [1]
    assert world.step(arrived=[2]) == []
    assert world.state.jobs["reserved_s"][2] == 100
    assert world.step(arrived=[3]) == [], "it would hold the GPU until 200"
    assert world.step(arrived=[4]) == [4], "it ends before the GPU would have been whole"
    world.now_s = 100
    assert world.step(ended=[0, 1, 4]) == [2]
    check_invariants(world.state)


def test_equal_nodes_go_in_order() -> None:
    world = World.of((0, 2, 0), [Shape(1, 2000)] * 3, [(1.0, Shape(1, 1000))], Scoring.FRAGMENTATION_GRADIENT)
    assert [world.step(arrived=[job]) for job in range(3)] == [[0], [1], []]
    assert world.state.workers["node"][:2].tolist() == [0, 1]
    assert world.state.jobs["state"][2] == layout.WAITING


def test_a_rule_without_a_mix_is_best_fit_over_the_site() -> None:
    world = World.of((1, 1, 1), [Shape(1, 1000)] * 3, [], Scoring.FRAGMENTATION_GRADIENT)
    for job in range(3):
        world.step(arrived=[job])
    assert world.state.nodes["pool"][world.state.workers["node"]].tolist() == [2, 1, 1]
