"""The thread of one site: what is asked of it reaches the engine in order and in batches, and is taken back in time."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.engines.kits import launch
from tests.runtime.shared_engine import SharedSimulated
from watteau.domain.fleet import Engine as EngineKind
from watteau.domain.fleet import Fleet, Pool, Pue
from watteau.domain.sites import NodeState, SiteNode
from watteau.domain.units import PoolId, SiteId
from watteau.engines.contract import EngineUnreachable, Launch, NodeCapacity, Observation, SiteView
from watteau.runtime.clock import Clock
from watteau.runtime.sites import News, SiteDriver, Swept, Viewed, Voice

HUB = SiteId("hub")
POOL = Pool(PoolId("p"), "h100", 4, 32, 64, False, 1_000, 2_000, 3_000, 2)
SITE = Fleet.of_one_site("hub", [(POOL, 1)], power_limit_kw=9, pue=Pue.constant(1), engine=EngineKind.SLURM).sites[0]


class Gated(SharedSimulated):
    """Lets a batch of starts in only when the gate is open, and notes the batches."""

    def __init__(self) -> None:
        super().__init__(HUB, [NodeCapacity("here", "h100", 4, 32, 65_536)], Clock().now_ms)
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[str]] = []
        self.fails = False

    def start_all(self, launches: Sequence[Launch]) -> list[tuple[str, str]]:
        self.batches.append([each.name for each in launches])
        assert self.gate.wait(20)
        if self.fails:
            raise EngineUnreachable("the line is cut")
        return super().start_all(launches)


@pytest.fixture
def engine() -> Gated:
    return Gated()


@pytest.fixture
def driver(engine: Gated) -> Iterator[SiteDriver]:
    def record(view: SiteView) -> tuple[SiteNode, ...]:
        return tuple(SiteNode(HUB, node.node, POOL.id, 0, NodeState.UP, "") for node in view.nodes)

    driver = SiteDriver(SITE, engine, lambda: True, lambda: None, record)
    yield driver
    engine.gate.set()
    driver.close()


def hear(driver: SiteDriver, until: Callable[[list[News]], object]) -> list[News]:
    heard: list[News] = []
    deadline = time.monotonic() + 20
    while not until(heard):
        assert time.monotonic() < deadline, heard
        heard += driver.drain()
        time.sleep(0.005)
    return heard


def of(heard: list[News], kind: type) -> list[News]:
    return [news for news in heard if isinstance(news, kind)]


def give(driver: SiteDriver, first: int, last: int) -> list[str]:
    attempts = [launch(job_id, "sleep", "600") for job_id in range(first, last + 1)]
    for attempt in attempts:
        driver.start(attempt)
    return [attempt.name for attempt in attempts]


def test_starts_that_wait_together_are_given_together(driver: SiteDriver, engine: Gated) -> None:
    engine.gate.clear()
    first = give(driver, 1, 1)
    hear(driver, lambda _: engine.batches)
    rest = give(driver, 2, 20)
    engine.gate.set()
    hear(driver, lambda heard: len(of(heard, Observation)) == 20)
    assert [name for batch in engine.batches for name in batch] == first + rest
    assert max(map(len, engine.batches)) == engine.capabilities.most_starts


def test_what_was_never_given_to_the_engine_is_taken_back(driver: SiteDriver, engine: Gated) -> None:
    engine.gate.clear()
    tried = give(driver, 1, 1)
    hear(driver, lambda _: engine.batches)
    waits = give(driver, 2, 5)
    engine.fails = True
    engine.gate.set()
    hear(driver, lambda heard: of(heard, Voice))
    assert driver.take_back_starts() <= set(waits)
    engine.fails = False
    hear(driver, lambda heard: of(heard, Observation))
    given = {name for batch in engine.batches for name in batch}
    assert tried[0] in given, "what may have reached the engine is given again until it is answered"
    assert driver.take_back_starts() == set()


def test_after_taking_back_nothing_of_it_reaches_the_engine(driver: SiteDriver, engine: Gated) -> None:
    engine.gate.clear()
    give(driver, 1, 1)
    hear(driver, lambda _: engine.batches)
    waits = give(driver, 2, 5)
    assert driver.take_back_starts() == set(waits)
    engine.gate.set()
    hear(driver, lambda heard: of(heard, Observation))
    time.sleep(0.1)
    assert engine.batches == [["watteau-1-1"]]


def test_what_the_site_showed_is_told_again_when_it_is_asked_for(driver: SiteDriver, engine: Gated) -> None:
    (first,) = of(hear(driver, lambda heard: of(heard, Viewed)), Viewed)
    driver.reset()
    driver.show()
    (second,) = of(hear(driver, lambda heard: of(heard, Viewed)), Viewed)
    assert first == second


def test_a_sweep_stops_what_nobody_knows_and_leaves_the_rest(driver: SiteDriver, engine: Gated) -> None:
    names = give(driver, 1, 3)
    hear(driver, lambda heard: len(of(heard, Observation)) == 3)
    driver.sweep(names[1:2])
    (swept,) = of(hear(driver, lambda heard: of(heard, Swept)), Swept)
    assert swept == Swept((names[0], names[2]))
    assert [said.seen.value for said in engine.adopt(names)] == ["ended", "running", "ended"]
