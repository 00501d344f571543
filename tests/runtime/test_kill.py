"""The server is killed again and again under load: nothing that was acknowledged is lost, and nothing runs twice."""

import math
import os
import re
import secrets
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from threading import Event, Thread

import httpx
import pytest

from tests.postgres import Cluster
from tests.runtime.nursery import Nursery
from watteau.domain.records import EventKind, JobRecord
from watteau.domain.requests import JobId, JobState
from watteau.server.auth import digest, first_start
from watteau.store.store import JobFilter, Store

ROUNDS = 150
_ROOT = "everyone"


class Load:
    """Submits jobs over HTTP until it is told to stop; every one is tried until it is acknowledged."""

    def __init__(self, port: int, token: str, folder: Path, seed: int) -> None:
        self.acknowledged: dict[str, int] = {}  # key: job
        self.faults: list[str] = []
        self.go_to(port)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._folder = folder
        self._random = Random(seed)
        self._stop = Event()
        self._give_up_s = math.inf
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def go_to(self, port: int) -> None:
        """Submit to another server from now on."""
        self._url = f"http://127.0.0.1:{port}/api/v1/jobs"

    def stop(self) -> None:
        """The job in hand is still brought home, if there is a server to take it."""
        self._give_up_s = time.monotonic() + 60
        self._stop.set()
        self._thread.join()
        assert self.faults == []

    def _run(self) -> None:
        while not self._stop.is_set():
            key = secrets.token_hex(8)
            # One line for each run, in one write: a second run would be a second line.
            seconds = self._random.random() / 2
            script = f"#!/bin/sh\necho {key} >> {self._folder}/runs\nsleep {seconds:.3f}\necho done {key}\n"
            body = {"name": key, "script": script, "cpu_milli": self._random.choice([100, 200, 400])}
            while time.monotonic() < self._give_up_s:
                try:
                    answer = httpx.post(
                        self._url, json=body, headers={**self._headers, "Idempotency-Key": key}, timeout=20
                    )
                except httpx.TransportError:
                    time.sleep(0.01)
                    continue
                if answer.status_code == 201:
                    self.acknowledged[key] = answer.json()["id"]
                    break
                if answer.status_code != 503:
                    self.faults.append(f"{answer.status_code}: {answer.text[:300]}")
                    return
                time.sleep(0.01)
            else:
                self.faults.append("nobody took the last job")
            time.sleep(self._random.random() / 20)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Proof:
    """One store, one spool, and what must hold in the end."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.store = Store(url)
        now_ms = int(time.time() * 1000)
        once = first_start(self.store, _ROOT, now_ms)  # type: ignore[arg-type]
        assert once is not None
        user = self.store.use_once(digest(once), now_ms)
        assert user is not None
        self.token = "wt_" + secrets.token_urlsafe(32)
        self.store.add_token(user.user_id, digest(self.token), "test", ["read", "submit"], now_ms, None, "test")
        self.port = free_port()

    def arguments(self, port: int | None = None) -> tuple[str, ...]:
        return ("--db", self.url, "--data-dir", str(self.folder / "data"), "--port", str(port or self.port))

    def all_ended(self, load: Load, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(job.state in (JobState.WAITING, JobState.RUNNING, JobState.HELD) for job in self.jobs()):
            left = [(job.job_id, job.state, job.detail) for job in self.jobs() if not job.state.is_end]
            assert time.monotonic() < deadline, f"{len(left)} of {len(load.acknowledged)} did not end: {left[:5]}"
            time.sleep(0.2)

    def jobs(self) -> list[JobRecord]:
        found: list[JobRecord] = []
        cursor = None
        while True:
            page = self.store.jobs(JobFilter(), 1_000, cursor)
            found += page.jobs
            cursor = page.next_cursor
            if cursor is None:
                return found

    def check_logs(self, load: Load, port: int) -> None:
        """Every job's output is there, whole. Asked of a server that runs."""
        with httpx.Client(headers={"Authorization": f"Bearer {self.token}"}) as client:
            for key, job_id in load.acknowledged.items():
                answer = client.get(f"http://127.0.0.1:{port}/api/v1/jobs/{job_id}/log")
                assert (answer.status_code, answer.text) == (200, f"done {key}\n"), job_id

    def check(self, load: Load) -> None:
        """Every acknowledged job ended exactly once, none ran twice, no log is lost, usage adds up."""
        assert load.faults == []
        jobs = {job.job_id: job for job in self.jobs()}
        assert sorted(jobs) == sorted(load.acknowledged.values()), "a job was lost, or kept twice"
        runs = Counter(line.split()[0] for line in (self.folder / "runs").read_text().splitlines())
        assert runs == Counter(load.acknowledged.keys())
        used_ms = 0
        for job_id in load.acknowledged.values():
            job = jobs[JobId(job_id)]
            assert (job.state, job.exit_code, job.attempts) == (JobState.COMPLETED, 0, 1), self.store.story(job.job_id)
            kinds = Counter(event.kind for event in self.store.story(job.job_id))
            for kind in (EventKind.SUBMITTED, EventKind.INTENDED, EventKind.ENDED, EventKind.FINISHED):
                assert kinds[kind] == 1, (job_id, kinds)
            assert kinds[EventKind.REQUEUED] == 0
            (attempt,) = self.store.attempts(job.job_id)
            assert attempt.started_ms is not None
            assert attempt.ended_ms is not None
            used_ms += (attempt.ended_ms - attempt.started_ms) * job.request.cpu_milli
        booked = self.store.usage("tenant", 0, 2**60, None)
        assert sum(row.cpu_milli_ms for row in booked) == used_ms
        assert sum(row.jobs for row in booked) == len(jobs)


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.002)
    raise AssertionError(f"{process} does not die")


def faults_in(log: Path) -> list[str]:
    """What a controller said of itself that should never happen, kills or not."""
    text = log.read_text("utf-8", "replace")
    return re.findall(r".*(?:cycle failed|Traceback|InvariantBroken).*", text)[:5]


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path / "server.log")
    yield nursery
    nursery.close()


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_server_that_is_killed_under_load_loses_nothing_and_runs_nothing_twice(
    database: str, tmp_path: Path, nursery: Nursery, request: pytest.FixtureRequest
) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    random = Random(seed)
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/watteau.db"
        if database == "postgresql":
            cluster: Cluster = request.getfixturevalue("postgres")
            url = stack.enter_context(cluster.database())
        _kill_again_and_again(Proof(tmp_path, url), tmp_path, nursery, random, seed)


def _kill_again_and_again(proof: Proof, tmp_path: Path, nursery: Nursery, random: Random, seed: int) -> None:
    load = Load(proof.port, proof.token, tmp_path, seed)
    try:
        for _ in range(ROUNDS):
            server = nursery.start(*proof.arguments())
            time.sleep(random.choice([0.05, 0.2, 0.5, 1.0, 1.5]) * random.random())
            kill(server)
        server = nursery.start(*proof.arguments())
    finally:
        load.stop()
    proof.all_ended(load, 120)
    proof.check_logs(load, proof.port)
    kill(server)
    print(f"{ROUNDS} kills, {len(load.acknowledged)} jobs")
    proof.check(load)
    assert faults_in(tmp_path / "server.log") == []


@pytest.mark.slow
def test_when_the_leader_is_killed_the_second_takes_over(tmp_path: Path, nursery: Nursery, postgres: Cluster) -> None:
    with postgres.database() as url:
        _take_turns(Proof(tmp_path, url), tmp_path, nursery)


def _take_turns(proof: Proof, tmp_path: Path, nursery: Nursery) -> None:
    load = Load(proof.port, proof.token, tmp_path, 1)
    try:
        # Each has a port of its own, and the API of either takes submissions.
        second_port = free_port()
        servers = {
            proof.port: nursery.start(*proof.arguments()),
            second_port: nursery.start(*proof.arguments(second_port)),
        }
        for _ in range(4):
            leader = _until(servers, True, "nobody leads")
            follower = next(port for port in servers if port != leader)
            _until({follower}, False, "the follower does not answer")
            load.go_to(follower)
            time.sleep(1)
            began = time.monotonic()
            kill(servers.pop(leader))
            _until({follower}, True, "nobody took over")
            print(f"taken over after {time.monotonic() - began:.1f} s")
            servers[leader] = nursery.start(*proof.arguments(leader))
    finally:
        load.stop()
    proof.all_ended(load, 120)
    proof.check_logs(load, next(iter(servers)))
    for server in servers.values():
        kill(server)
    proof.check(load)
    assert faults_in(tmp_path / "server.log") == []


def _leading(port: int) -> bool | None:
    try:
        return bool(httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).json()["leading"])
    except httpx.TransportError:
        return None


def _until(ports: Iterable[int], leads: bool, otherwise: str) -> int:
    """Which of the servers says so first. How long it takes is not judged: that depends on what else runs here."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for port in ports:
            if _leading(port) is leads:
                return port
        time.sleep(0.05)
    raise AssertionError(otherwise)
