"""A site that others use, too: counted and planned around, and changed only as far as its mode allows."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.core.world import leaf, tree
from tests.runtime.shared_engine import SharedSimulated
from watteau.domain.decisions import Reason
from watteau.domain.fleet import Engine as EngineKind
from watteau.domain.fleet import Fleet, Mode, Pool, Pue
from watteau.domain.people import Grant, Role
from watteau.domain.policy import named_policy
from watteau.domain.records import AttemptRecord, EventKind, JobRecord
from watteau.domain.requests import AttemptState, JobId, JobState, Outcome, Request
from watteau.domain.sites import Partition, Reservation, SiteSetting
from watteau.domain.units import PoolId, SiteId, TenantId
from watteau.engines.contract import NodeCapacity
from watteau.engines.simulated import SimulatedEngine
from watteau.runtime.clock import Clock
from watteau.runtime.controller import Controller, SiteFigures
from watteau.runtime.live_state import compile_core
from watteau.store.store import JobFilter, Store

HUB, FAR = SiteId("hub"), SiteId("far")
LONG = 600


def fleet() -> Fleet:
    """A shared site and a simulated one, with 2 nodes of 4 GPUs each."""
    pool = Pool(PoolId("p"), "h100", 4, 32, 64, False, 1_000, 2_000, 3_000, 2)
    other = Pool(PoolId("q"), "b200", 4, 32, 64, False, 1_000, 2_000, 3_000, 2)
    hub = Fleet.of_one_site("hub", [(pool, 2)], power_limit_kw=100, pue=Pue.constant(1.2), engine=EngineKind.SLURM)
    far = Fleet.of_one_site("far", [(other, 2)], power_limit_kw=100, pue=Pue.constant(1.2))
    return Fleet("both", hub.sites + far.sites, (), tree(leaf("alice"), leaf("bob")))


class World:
    """One controller, a shared site, and a simulated one to go to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.store = Store(f"sqlite:///{folder}/watteau.db")
        self.user = self.store.add_user("alice", None, [Grant(Role.MEMBER, TenantId("alice"))], 0, by="test")
        self.hub = SharedSimulated(
            HUB, [NodeCapacity(f"gpu{n}", "h100", 4, 32, 65_536) for n in range(2)], self.clock.now_ms
        )
        nodes = [NodeCapacity(f"q-{n:05d}", "b200", 4, 32, 65_536) for n in range(2)]
        self.far = SimulatedEngine(nodes, self.clock.now_ms, folder=folder / "far")
        self.controller = self._up()

    def _up(self) -> Controller:
        engines = {HUB: self.hub, FAR: self.far}
        controller = Controller(self.store, fleet(), engines, named_policy("hybrid"), self.clock, "first")
        controller.start()
        return controller

    def restart(self) -> None:
        """Another process, the same site."""
        close, self.hub.close = self.hub.close, lambda: None  # type: ignore[method-assign]
        self.controller.close()
        self.hub.close = close  # type: ignore[method-assign]
        self.far = SimulatedEngine(self.far._nodes, self.clock.now_ms, folder=self.folder / "far")
        self.hub._wakes.clear()
        self.hub.poll()
        self.controller = self._up()

    def submit(
        self,
        gpus: int = 1,
        workers: int = 1,
        sites: tuple[str, ...] = ("hub",),
        seconds: float = LONG,
        requeue: bool = True,
    ) -> JobId:
        request = Request(
            command=("sleep", str(seconds)),
            gpu_milli=1000 * gpus,
            workers=workers,
            sites=sites,
            time_limit_s=3_600,
            requeue=requeue,
        )
        (record,) = self.store.submit([(request, TenantId("alice"))], self.user, self.clock.now_ms())
        self.controller.wake()
        return record.job_id

    def set(self, mode: Mode, fenced: bool = False, why: str = "a test") -> None:
        self.store.set_site(SiteSetting(HUB, mode, fenced, why, "zoe", self.clock.now_ms()))
        self.controller.wake()

    def until(self, what: Callable[[], object], words: str = "") -> None:
        deadline = time.monotonic() + 20
        while not what():
            jobs = self.store.jobs(JobFilter(), 20).jobs
            seen = [(job.label, job.state.value, job.reason.name, job.detail, job.site) for job in jobs]
            assert time.monotonic() < deadline, f"{words}: {self.controller.detail}; {seen}"
            time.sleep(0.01)

    def job(self, job_id: JobId) -> JobRecord:
        return self.store.job(job_id)

    def attempt(self, job_id: JobId) -> AttemptRecord:
        return self.store.attempts(job_id)[-1]

    def runs(self, job_id: JobId) -> AttemptRecord:
        self.until(
            lambda: self.store.attempts(job_id) and self.attempt(job_id).state is AttemptState.RUNNING, "it runs"
        )
        return self.attempt(job_id)

    def waits(self, job_id: JobId, reason: Reason) -> JobRecord:
        self.until(lambda: self.job(job_id).reason is reason and not self.store.attempts(job_id), f"waits: {reason}")
        return self.job(job_id)

    def figures(self, site: SiteId = HUB) -> SiteFigures:
        self.until(self.controller.sites, "it leads")
        return next(its for its in self.controller.sites() if its.site == site)

    def consistent(self) -> None:
        """Nothing had to be built anew, and the arrays still say what the store says."""
        with self.controller._live_lock:
            self.controller._verify()
        assert self.controller.figures.errors == 0


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    compile_core()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.controller.close()


def test_jobs_by_hand_hold_their_gpus_and_ours_are_planned_around_them(world: World) -> None:
    world.hub.by_hand(1, "gpu0", 4)
    world.hub.by_hand(2, "gpu1", 3)
    world.until(lambda: world.figures().by_hand_running == 2)
    fits, too_large = world.submit(1), world.submit(2)
    (place,) = world.runs(fits).places
    assert (place.pool, place.node) == ("p", 1)
    world.waits(too_large, Reason.CAPACITY)
    world.hub.by_hand(1, "gpu0", 4, JobState.COMPLETED)
    (place,) = world.runs(too_large).places
    assert place.node == 0
    world.consistent()


def test_a_drained_node_gets_nothing_new_and_opens_again(world: World) -> None:
    runs = world.submit(4)
    (place,) = world.runs(runs).places
    other = f"gpu{1 - place.node}"
    world.hub.drain(other, "fan broken")
    world.until(lambda: world.figures().nodes_out == 1)
    waits = world.submit(4)
    world.waits(waits, Reason.CAPACITY)
    world.hub.drain(other)
    assert world.runs(waits).places[0].node == 1 - place.node
    world.consistent()


def test_where_the_site_really_put_it_is_what_is_written_down(world: World) -> None:
    world.hub.elsewhere["watteau-1-1"] = ("gpu1",)
    world.hub.elsewhere["watteau-2-1"] = ("gpu1",)
    for _ in range(2):
        world.submit(2)
    for job_id in (JobId(1), JobId(2)):
        world.runs(job_id)
        assert [place.node for place in world.attempt(job_id).places] == [1]
    started = next(event for event in world.store.story(JobId(1)) if event.kind is EventKind.STARTED)
    assert started.data["nodes"] == ["gpu1"]
    assert world.runs(world.submit(4)).places[0].node == 0
    world.waits(world.submit(1), Reason.CAPACITY)
    world.consistent()


def test_a_job_by_hand_takes_the_place_of_one_that_only_waits_at_the_site(world: World) -> None:
    world.hub.pending.update({"watteau-1-1", "watteau-2-1"})
    first, second = world.submit(4), world.submit(4)
    world.until(lambda: world.controller.waits_for(first) == world.controller.waits_for(second) == "Slurm: Priority")
    world.hub.by_hand(1, "gpu0", 4)
    world.until(lambda: world.figures().by_hand_running == 1)
    world.consistent()
    world.hub.elsewhere["watteau-2-1"] = ("gpu1",)
    world.hub.begin("watteau-2-1")
    assert world.runs(second).places[0].node == 1
    world.waits(world.submit(1), Reason.CAPACITY)
    world.hub.by_hand(1, "gpu0", 4, JobState.COMPLETED)
    world.hub.elsewhere["watteau-1-1"] = ("gpu0",)
    world.hub.begin("watteau-1-1")
    assert world.runs(first).places[0].node == 0
    world.consistent()


def test_an_observed_site_is_counted_and_nothing_is_sent_to_it(world: World) -> None:
    world.set(Mode.OBSERVE)
    world.hub.by_hand(1, "gpu0", 3)
    world.hub.by_hand(2, "gpu0", 1, JobState.WAITING)
    world.until(lambda: world.figures().by_hand_running == 1)
    assert (world.figures().mode, world.figures().by_hand_waiting) == (Mode.OBSERVE, 1)
    stays = world.submit(1)
    assert "observe" in world.waits(stays, Reason.NOT_OPEN_YET).detail
    assert world.runs(world.submit(1, sites=())).site == FAR
    assert world.hub.given == []
    assert [job.engine_id for job in world.store.live_site_jobs(HUB)] == ["1", "2"]
    world.set(Mode.DRIVE)
    assert world.runs(stays).site == HUB
    world.consistent()


def test_out_of_drive_what_runs_is_followed_and_nothing_more_is_sent(world: World) -> None:
    ends, stays = world.submit(1, seconds=1.5), world.submit(1)
    world.runs(ends)
    world.runs(stays)
    world.set(Mode.SHADOW)
    world.until(lambda: world.figures().mode is Mode.SHADOW)
    given = list(world.hub.given)
    later = world.submit(1)
    world.store.ask([stays], EventKind.CANCEL_REQUESTED, world.user, world.clock.now_ms())
    world.controller.wake()
    world.until(lambda: world.job(ends).state is JobState.COMPLETED)
    world.waits(later, Reason.NOT_OPEN_YET)
    assert world.hub.given == given
    world.set(Mode.DRIVE)
    world.until(lambda: world.job(stays).state is JobState.CANCELLED)
    world.runs(later)


def test_a_silent_sites_attempts_are_unknown_until_it_answers(world: World) -> None:
    runs = world.submit(1)
    world.runs(runs)
    world.hub.silence()
    world.hub.poll()
    world.until(lambda: world.attempt(runs).state is AttemptState.UNKNOWN)
    blocked, goes = world.submit(1), world.submit(1, sites=())
    assert "silent" in world.waits(blocked, Reason.SITE_UNREACHABLE).detail
    assert world.runs(goes).site == FAR
    world.hub.answer()
    world.hub.poll()
    assert world.runs(runs).number == 1
    world.runs(blocked)
    world.consistent()


def test_only_a_fence_restarts_the_attempts_of_a_silent_site(world: World) -> None:
    blockers = [world.submit(4, sites=("far",), seconds=5) for _ in range(2)]  # so that it goes to the hub
    for blocker in blockers:
        world.runs(blocker)
    job_id = world.submit(1, sites=("hub", "far"))
    first = world.runs(job_id)
    assert first.site == HUB
    world.hub.silence()
    world.hub.poll()
    world.until(lambda: world.attempt(job_id).state is AttemptState.UNKNOWN)
    world.set(Mode.DRIVE, fenced=True, why="the hall burns")
    world.until(lambda: len(world.store.attempts(job_id)) == 2)
    lost, again = world.store.attempts(job_id)
    assert (lost.outcome, again.site) == (Outcome.LOST, FAR)
    assert "the hall burns" in lost.cause
    world.runs(job_id)
    world.hub.answer()
    world.hub.poll()
    time.sleep(0.3)
    assert world.hub.adopt([first.name])[0].outcome is None, "a fenced site is not touched"
    world.set(Mode.DRIVE)
    world.until(lambda: world.hub.adopt([first.name])[0].outcome is Outcome.CANCELLED, "what it still ran is stopped")
    assert world.runs(world.submit(1)).site == HUB
    world.consistent()


def test_a_new_process_knows_who_stands_where_before_the_site_has_answered(world: World) -> None:
    world.hub.by_hand(1, "gpu0", 4)
    world.until(lambda: world.figures().by_hand_running == 1)
    ours = world.submit(2)
    world.runs(ours)
    world.hub.silence()
    world.restart()
    world.until(lambda: world.controller.leading)
    assert world.figures().by_hand_running == 1
    blocked = world.submit(4)
    world.until(lambda: world.job(blocked).reason is not Reason.NONE)
    world.hub.answer()
    world.hub.poll()
    world.waits(blocked, Reason.CAPACITY)
    assert world.runs(ours).number == 1
    world.consistent()


def test_a_node_that_has_less_than_its_pools_nodes_is_short_of_it(world: World) -> None:
    world.until(lambda: world.figures().pools[0].gpu_milli_free == 8_000)
    world.hub.breaks("gpu0", 3)
    world.until(lambda: world.figures().pools[0].gpu_milli_free == 7_000)
    assert world.runs(world.submit(4)).places[0].node == 1
    waits = world.submit(4)
    world.waits(waits, Reason.CAPACITY)
    assert world.runs(world.submit(3)).places[0].node == 0
    world.consistent()
    world.restart()
    world.waits(waits, Reason.CAPACITY)
    world.consistent()


def test_a_job_goes_where_a_partition_allows_its_time(world: World) -> None:
    world.hub.partitions = (Partition("normal", True, True, ("gpu0", "gpu1"), 1_800, 0, 0, 0),)
    world.hub.poll()
    world.until(lambda: world.controller._limits.get(HUB))
    assert world.runs(world.submit(1, sites=())).site == FAR
    world.hub.partitions = (Partition("normal", True, True, ("gpu0", "gpu1"), 7_200, 0, 0, 0),)
    world.hub.poll()
    blocked = [world.submit(4, sites=("far",)) for _ in range(2)]
    assert world.runs(world.submit(4, sites=())).site == HUB
    assert sum(bool(world.store.attempts(job_id)) for job_id in blocked) == 1
    assert world.controller.figures.errors == 0


def test_nothing_starts_that_would_run_into_a_reservation_of_a_whole_pool(world: World) -> None:
    soon_s = world.clock.now_ms() // 1000 + 1_800
    works = Reservation("works", soon_s, soon_s + 3_600, ("gpu0", "gpu1"), (), ("root",), ("MAINT",))
    world.hub.reservations = (works,)
    world.hub.poll()
    world.until(lambda: world.controller.site_view(HUB) is not None)
    time.sleep(0.1)
    waits = world.submit(1)  # its limit is an hour
    world.until(lambda: world.job(waits).reason not in (Reason.NONE,))
    time.sleep(0.2)
    assert not world.store.attempts(waits)
    world.hub.reservations = ()
    world.hub.poll()
    world.runs(waits)


def test_what_a_silent_site_was_never_told_of_is_no_try(world: World) -> None:
    world.hub.gate.clear()
    world.submit(1)
    world.until(lambda: world.hub.at_the_gate)
    job_id = world.submit(1, requeue=False)
    world.until(lambda: world.store.attempts(job_id))
    world.hub.fails = True
    world.hub.gate.set()
    world.until(lambda: world.attempt(job_id).state is AttemptState.ENDED)
    ended = next(event for event in world.store.story(job_id) if event.kind is EventKind.ENDED)
    assert ended.data["given"] is False
    world.until(lambda: world.job(job_id).reason is Reason.SITE_UNREACHABLE)
    world.hub.fails = False
    assert world.runs(job_id).number == 2
    world.consistent()
