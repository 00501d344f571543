"""The cycle with a real store and real engines: what people ask happens, once, in order, and with reasons."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.core.world import leaf, tree
from watteau.domain.decisions import Reason
from watteau.domain.fleet import Engine as EngineKind
from watteau.domain.fleet import Fleet, Pool, Pue
from watteau.domain.people import Grant, Role
from watteau.domain.policy import named_policy
from watteau.domain.records import Change, Event, EventKind, JobRecord
from watteau.domain.requests import After, ArraySpec, Dependency, JobId, JobState, Request
from watteau.domain.units import PoolId, SiteId, TenantId
from watteau.engines.contract import Engine, NodeCapacity
from watteau.engines.local import LocalEngine
from watteau.engines.simulated import SimulatedEngine
from watteau.runtime.clock import Clock
from watteau.runtime.controller import Controller
from watteau.runtime.live_state import compile_core
from watteau.runtime.sites import simulated_node
from watteau.store.store import Lease, Store, StoreUnavailable

HERE, FAR = SiteId("here"), SiteId("far")
CORES = 4


def fleet() -> Fleet:
    """This machine with four cores, and a simulated site with 2 nodes of 4 GPUs."""
    tenants = tree(leaf("alice"), leaf("bob"))
    machine = Pool(PoolId("machine"), "", 0, CORES, 8, False, 100, 100, 100, 1)
    pool = Pool(PoolId("p"), "h100", 4, 32, 64, False, 1_000, 2_000, 3_000, 2)
    here = Fleet.of_one_site("here", [(machine, 1)], power_limit_kw=10, pue=Pue.constant(1), engine=EngineKind.LOCAL)
    far = Fleet.of_one_site("far", [(pool, 2)], power_limit_kw=100, pue=Pue.constant(1.2))
    return Fleet("both", here.sites + far.sites, (), tenants)


class Cloud:
    """A controller that can be ended and started again on the same store and spool."""

    def __init__(self, folder: Path, url: str = "", store: type[Store] = Store) -> None:
        self.folder = folder
        self.clock = Clock()
        self.store = store(url or f"sqlite:///{folder}/watteau.db")
        self.user = self.store.add_user(
            "alice", None, [Grant(Role.MEMBER, TenantId("alice"))], self.clock.now_ms(), by="test"
        )
        self.controller: Controller | None = None

    def up(self, holder: str = "first") -> Controller:
        nodes = [NodeCapacity(simulated_node("p", n), "h100", 4, 32, 65_536) for n in range(2)]
        self.simulated = SimulatedEngine(nodes, self.clock.now_ms, folder=self.folder / "simulated")
        machine = NodeCapacity("machine", "", 0, CORES, 8_192)
        engines: dict[SiteId, Engine] = {
            HERE: LocalEngine(self.folder / "spool", machine, self.clock.now_ms),
            FAR: self.simulated,
        }
        self.controller = Controller(self.store, fleet(), engines, named_policy("hybrid"), self.clock, holder)
        self.controller.start()
        return self.controller

    def down(self) -> None:
        if self.controller is not None:
            self.controller.close()
            self.controller = None

    def submit(self, *requests: Request) -> list[JobId]:
        asked = [(request, TenantId("alice")) for request in requests]
        records = self.store.submit(asked, self.user, self.clock.now_ms())
        if self.controller:
            self.controller.wake()
        return [record.job_id for record in records]

    def ask(self, job_id: JobId, kind: EventKind) -> None:
        self.store.ask([job_id], kind, self.user, self.clock.now_ms())
        if self.controller:
            self.controller.wake()

    def until(self, job_id: JobId, holds: Callable[[JobRecord], bool], seconds: float = 30) -> JobRecord:
        deadline = time.monotonic() + seconds
        while True:
            record = self.store.job(job_id)
            if holds(record):
                return record
            story = [(event.kind.value, dict(event.data)) for event in self.store.story(job_id)]
            detail = self.controller.detail if self.controller else "down"
            assert time.monotonic() < deadline, f"{record.state}: {record.reason} {record.detail}; {detail}; {story}"
            time.sleep(0.01)

    def ended(self, job_id: JobId, seconds: float = 30) -> JobRecord:
        return self.until(job_id, lambda record: record.state.is_end, seconds)

    def waits_for(self, job_id: JobId, reason: Reason) -> JobRecord:
        return self.until(job_id, lambda record: record.reason is reason)

    def kinds(self, job_id: JobId) -> list[str]:
        return [event.kind.value for event in self.store.story(job_id)]


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """Or the first test would wait for it."""
    compile_core()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path)
    cloud.up()
    yield cloud
    cloud.down()


def shell(text: str, **more: Any) -> Request:
    return Request(script="#!/bin/sh\n" + text, **more)


def far(seconds: float, gpus: int = 1, **more: Any) -> Request:
    return Request(command=("sleep", str(seconds)), gpu_milli=gpus * 1000, sites=("far",), **more)


def test_a_job_runs_on_this_machine_and_its_story_is_whole(cloud: Cloud) -> None:
    (job,) = cloud.submit(shell("echo hello; exit 3"))
    record = cloud.ended(job)
    assert (record.state, record.exit_code, record.site) == (JobState.FAILED, 3, "here")
    assert cloud.kinds(job) == ["submitted", "intended", "started", "ended", "finished"]
    assert cloud.controller is not None
    assert cloud.controller.read_log(job, 1, "stdout", 0, 100).content == b"hello\n"


def test_a_job_without_a_site_never_lands_on_one_that_only_pretends(cloud: Cloud) -> None:
    (job,) = cloud.submit(shell("true", gpu_milli=1000))
    assert cloud.ended(job).reason is Reason.EXCEEDS_MAXIMUM


def test_jobs_wait_for_room_and_say_so(cloud: Cloud) -> None:
    first, second = cloud.submit(far(0.5, 4, workers=2, estimate_s=5), far(0.1, 4))
    cloud.waits_for(second, Reason.CAPACITY)
    assert cloud.controller is not None
    promise = cloud.controller.promise(second)
    assert promise is not None
    assert promise.starts_by_s is not None
    assert cloud.ended(second).state is JobState.COMPLETED
    assert cloud.store.job(first).ended_ms <= cloud.store.job(second).started_ms  # type: ignore[operator]


def test_hold_release_and_cancel(cloud: Cloud) -> None:
    held, waiting = cloud.submit(shell("true", held=True), shell("sleep 60"))
    cloud.waits_for(held, Reason.STOPPED)
    cloud.ask(held, EventKind.RELEASED)
    assert cloud.ended(held).state is JobState.COMPLETED
    cloud.until(waiting, lambda record: record.started_ms is not None)
    cloud.ask(waiting, EventKind.CANCEL_REQUESTED)
    record = cloud.ended(waiting)
    assert (record.state, record.detail) == (JobState.CANCELLED, "cancelled on request")
    (never,) = cloud.submit(far(1, 4, held=True))
    cloud.ask(never, EventKind.CANCEL_REQUESTED)
    assert cloud.ended(never).state is JobState.CANCELLED
    assert cloud.kinds(never)[-1] == "finished"


def test_dependencies_hold_jobs_back_and_end_what_can_never_start(cloud: Cloud) -> None:
    (good, bad) = cloud.submit(shell("sleep 0.3"), shell("sleep 0.3; exit 1"))

    def after(kind: After, job: JobId) -> Request:
        return shell("true", dependencies=(Dependency(after=kind, job_id=job),))

    ok, never, on_failure, chain = cloud.submit(
        after(After.OK, good), after(After.OK, bad), after(After.NOT_OK, bad), after(After.ANY, bad)
    )
    cloud.waits_for(ok, Reason.DEPENDENCY)
    assert cloud.ended(ok).state is JobState.COMPLETED
    assert cloud.ended(on_failure).state is JobState.COMPLETED
    assert cloud.ended(chain).state is JobState.COMPLETED
    record = cloud.ended(never)
    assert (record.state, record.reason) == (JobState.UNSCHEDULABLE, Reason.DEPENDENCY_NEVER)
    assert record.detail == f"job {bad} ended as failed"
    (late,) = cloud.submit(after(After.OK, good))
    assert cloud.ended(late).state is JobState.COMPLETED


def test_an_array_runs_as_many_tasks_at_once_as_it_allows(cloud: Cloud) -> None:
    tasks = cloud.submit(far(0.2, 1, array=ArraySpec(indices=tuple(range(6)), most_running=2)))
    assert len(tasks) == 6
    cloud.waits_for(tasks[-1], Reason.ARRAY_LIMIT)
    records = [cloud.ended(task) for task in tasks]
    spans = sorted((record.started_ms or 0, record.ended_ms or 0) for record in records)
    for at, _ in spans:
        assert sum(start <= at < end for start, end in spans) <= 2


def test_a_job_waits_for_its_begin_and_ends_at_its_deadline(cloud: Cloud) -> None:
    now_s = cloud.clock.now_ms() // 1000
    later, short = cloud.submit(shell("true", begin_s=now_s + 2), shell("sleep 60", deadline_s=now_s + 2))
    cloud.waits_for(later, Reason.BEGIN_TIME)
    record = cloud.ended(later)
    assert (record.started_ms or 0) >= (now_s + 2) * 1000
    record = cloud.ended(short)
    assert (record.state, record.detail) == (JobState.CANCELLED, "its deadline has passed")


def test_what_runs_when_the_controller_ends_is_adopted_by_the_next(cloud: Cloud) -> None:
    here, there, after = cloud.submit(shell("sleep 1; exit 7"), far(1, 2), far(0.1, 4, workers=2))
    for job in (here, there):
        cloud.until(job, lambda record: record.started_ms is not None)
    cloud.down()
    cloud.up("second")
    assert cloud.ended(here).exit_code == 7
    assert cloud.ended(there).state is JobState.COMPLETED
    assert cloud.ended(after).state is JobState.COMPLETED
    assert cloud.kinds(here).count("intended") == cloud.kinds(there).count("intended") == 1
    assert cloud.controller is not None
    assert cloud.controller.figures.verified >= 1


def test_a_silent_site_keeps_its_attempts_and_starts_nothing(cloud: Cloud) -> None:
    running, ends_meanwhile = cloud.submit(far(60, 1), far(0.5, 1))
    for job in (running, ends_meanwhile):
        cloud.until(job, lambda record: record.started_ms is not None)
    cloud.simulated.silence()
    (waiting,) = cloud.submit(far(0.1, 1))  # the engine is asked, does not answer, and is silent from then on
    cloud.until(running, lambda _: "silent" in cloud.kinds(running))
    assert cloud.store.job(running).state is JobState.RUNNING
    cloud.simulated.answer()
    assert cloud.ended(ends_meanwhile).state is JobState.COMPLETED
    assert cloud.ended(waiting).state is JobState.COMPLETED
    assert "answered" in cloud.kinds(running)
    assert cloud.kinds(running).count("intended") == 1


class Shaky(Store):
    """A store that fails now and then, before it has written or, worse, after."""

    chance = 0.0

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.random = Random(7)
        self.failed = 0

    def _maybe(self, when: str) -> None:
        if self.random.random() < self.chance:
            self.failed += 1
            raise StoreUnavailable(f"made to fail {when} the write")

    def record(self, lease: Lease, changes: Sequence[Change], now_ms: int) -> range:
        self._maybe("before")
        seqs = super().record(lease, changes, now_ms)
        self._maybe("after")
        return seqs

    def events(self, after_seq: int, limit: int, tenants: frozenset[TenantId] | None = None) -> list[Event]:
        self._maybe("before")
        return super().events(after_seq, limit, tenants)


def test_a_store_that_fails_before_and_after_writes_costs_no_job_and_runs_none_twice(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, store=Shaky)
    assert isinstance(cloud.store, Shaky)
    cloud.up()
    cloud.store.chance = 0.2
    runs = tmp_path / "runs"
    jobs = [
        job
        for _ in range(30)
        for job in cloud.submit(shell(f"echo $WATTEAU_JOB_ID >> {runs}", cpu_milli=500), far(0.2, 2))
    ]
    records = [cloud.ended(job, 120) for job in jobs]
    assert cloud.store.failed > 5
    cloud.store.chance = 0.0
    cloud.down()
    assert {record.state for record in records} == {JobState.COMPLETED}
    assert sorted(map(int, runs.read_text().split())) == jobs[::2]
    assert all(cloud.kinds(job).count("intended") == 1 for job in jobs)


def test_the_story_of_a_job_that_ends_at_once_is_whole_too(cloud: Cloud) -> None:
    """An engine may have only its end to tell; that it began is part of that."""
    jobs = cloud.submit(*[Request(command=("/bin/true",), cpu_milli=100) for _ in range(25)])
    for job in jobs:
        cloud.ended(job)
        assert cloud.kinds(job)[-4:] == ["intended", "started", "ended", "finished"]
