"""Long answers over a real socket: events with resuming, logs that are followed, waits that are woken, and stopping."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from tests.server.world import World
from watteau.domain.decisions import Reason
from watteau.domain.records import Finishes
from watteau.domain.requests import JobState, Outcome
from watteau.server.serve import Server

_SOON_S = 20.0  # on a machine that is busy with other things


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    server = Server(world.app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    yield server
    server.should_exit = True
    thread.join(_SOON_S)
    assert not thread.is_alive()


def until(holds: object) -> None:
    """Wait until it holds."""
    assert callable(holds)
    end = time.monotonic() + _SOON_S
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)


@dataclass
class Sent:
    """One server-sent event."""

    id: str
    event: str
    data: dict[str, object]


class Stream:
    """An open event stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.iter_lines()

    def next(self) -> Sent:
        said: dict[str, str] = {}
        for line in self._lines:
            if not line and "data" in said:
                return Sent(said["id"], said["event"], json.loads(said["data"]))
            name, _, value = line.partition(": ")
            if name:
                said[name] = value
        raise EOFError

    def take(self, number: int) -> list[Sent]:
        return [self.next() for _ in range(number)]


@contextmanager
def stream(world: World, server: Server, who: str, path: str, **headers: str) -> Iterator[httpx.Response]:
    headers["Authorization"] = f"Bearer {world.tokens[who]}"
    url = f"http://127.0.0.1:{server.port}/api/v1{path}"
    with httpx.Client(timeout=_SOON_S) as client, client.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        yield answer


def watched(world: World) -> None:
    """Wait until somebody waits for changes."""
    until(lambda: world.app.state.services.pulse._watches)


def test_events_come_as_they_are_written(world: World, server: Server) -> None:
    world.job("member", "alpha-lab")
    with stream(world, server, "member", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        watched(world)
        job = world.job("member", "alpha-lab")  # nobody announces it: it is seen all the same
        world.start(job.job_id)
        got = Stream(answer).take(3)
    assert [each.event for each in got] == ["submitted", "intended", "started"]
    assert {each.data["job_id"] for each in got} == {job.job_id}
    assert [int(each.id) for each in got] == [each.data["seq"] for each in got]


def test_a_broken_stream_goes_on_where_it_had_got_to(world: World, server: Server) -> None:
    jobs = [world.job("member", "alpha-lab") for _ in range(10)]
    with stream(world, server, "member", "/events?after=0") as answer:
        first = Stream(answer).take(4)
    for job in jobs:
        world.start(job.job_id)
    with stream(world, server, "member", "/events?after=0", **{"Last-Event-ID": first[-1].id}) as answer:
        rest = Stream(answer).take(26)
    assert [int(each.id) for each in first + rest] == [event.seq for event in world.store.events(0, 100)]


def test_a_stream_shows_ones_own_part_only(world: World, server: Server) -> None:
    with stream(world, server, "stranger", "/events?after=0") as answer:
        for _ in range(600):  # more than are read at once
            world.job("member", "alpha-lab")
        mine = world.job("stranger", "beta")
        assert Stream(answer).next().data["job_id"] == mine.job_id


def test_a_stream_of_one_job(world: World, server: Server) -> None:
    job, other = world.job("member", "alpha-lab"), world.job("member", "alpha-lab")
    with stream(world, server, "member", f"/events?job={job.job_id}&after=0") as answer:
        world.start(other.job_id)
        world.start(job.job_id)
        assert {each.data["job_id"] for each in Stream(answer).take(3)} == {job.job_id}


def test_a_stream_ends_with_the_token(world: World, server: Server) -> None:
    with stream(world, server, "member", "/events?after=0") as answer:
        watched(world)
        world.store.change_user("member", world.clock(), "test", disabled=True)
        world.job("member", "alpha-lab")
        with pytest.raises(EOFError):
            Stream(answer).next()


def test_a_log_is_followed_to_its_end_over_attempts(world: World, server: Server) -> None:
    job = world.job("member", "alpha-lab").job_id

    def runs() -> None:
        watched(world)
        world.start(job)
        world.live.logs[job, 1, "stdout"] = (b"one ", False)
        time.sleep(0.3)
        world.live.logs[job, 1, "stdout"] = (b"one two ", True)
        world.end(job, Outcome.LOST, requeue=True)
        world.start(job)
        world.live.unreachable = True
        time.sleep(0.2)
        world.live.logs[job, 2, "stdout"] = (b"again", True)
        world.live.unreachable = False
        world.end(job)

    thread = threading.Thread(target=runs)
    thread.start()
    with stream(world, server, "member", f"/jobs/{job}/log?follow=true") as answer:
        assert b"".join(answer.iter_raw()) == b"one two again"
    thread.join()


def test_one_attempt_is_followed_to_its_own_end(world: World, server: Server) -> None:
    job = world.job("member", "alpha-lab").job_id
    world.start(job)
    world.live.logs[job, 1, "stdout"] = (b"first", True)
    world.end(job, Outcome.LOST, requeue=True)
    with stream(world, server, "member", f"/jobs/{job}/log?follow=true&attempt=1") as answer:
        assert b"".join(answer.iter_raw()) == b"first"


def test_a_cancelled_job_that_never_ran_has_an_empty_log(world: World, server: Server) -> None:
    job = world.job("member", "alpha-lab").job_id

    def ends() -> None:
        watched(world)
        world.record(Finishes(job, JobState.CANCELLED, Reason.NONE, ""))

    thread = threading.Thread(target=ends)
    thread.start()
    with stream(world, server, "member", f"/jobs/{job}/log?follow=true") as answer:
        assert b"".join(answer.iter_raw()) == b""
    thread.join()


def test_a_wait_is_woken_by_the_end(world: World, server: Server) -> None:
    job = world.job("member", "alpha-lab").job_id
    world.start(job)

    def ends() -> None:
        watched(world)
        world.end(job)

    thread = threading.Thread(target=ends)
    thread.start()
    with stream(world, server, "member", f"/jobs/{job}/wait?timeout_s=3600") as answer:
        assert json.loads(answer.read())["state"] == "completed"
    thread.join()


def test_many_who_wait_leave_the_api_free(world: World, server: Server) -> None:
    job = world.job("member", "alpha-lab").job_id
    done: list[str] = []

    def waits() -> None:
        with stream(world, server, "member", f"/jobs/{job}/wait?timeout_s=600") as answer:
            done.append(json.loads(answer.read())["state"])

    threads = [threading.Thread(target=waits) for _ in range(60)]  # more than the pool has threads
    for thread in threads:
        thread.start()
    until(lambda: len(world.app.state.services.pulse._watches) == 60)
    with stream(world, server, "member", "/me") as answer:
        answer.read()
    world.start(job)
    world.end(job)
    for thread in threads:
        thread.join(_SOON_S)
    assert done == ["completed"] * 60
    until(lambda: world.app.state.services.pulse._thread is None)  # nobody waits, nobody asks


def test_stopping_ends_streams_and_polls(world: World, server: Server) -> None:
    job = world.job("member", "alpha-lab").job_id
    states: list[str] = []

    def waits() -> None:
        with stream(world, server, "member", f"/jobs/{job}/wait?timeout_s=3600") as answer:
            states.append(json.loads(answer.read())["state"])

    thread = threading.Thread(target=waits)
    thread.start()
    with stream(world, server, "member", "/events") as answer:
        until(lambda: len(world.app.state.services.pulse._watches) == 2)
        server.should_exit = True
        with pytest.raises(EOFError):
            Stream(answer).next()
    thread.join(_SOON_S)
    assert states == ["waiting"]


def test_a_client_that_goes_away_is_forgotten(world: World, server: Server) -> None:
    with stream(world, server, "member", "/events"):
        watched(world)
    until(lambda: not world.app.state.services.pulse._watches)
    assert all(line["event"] != "fault" for line in world.log_lines())
