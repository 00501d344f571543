"""What every engine must do, whatever runs behind it. An engine joins with a line in `kits.KITS`."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.kits import KITS, SLURM_KITS, Kit, Listener, eventually, now_ms, whole_log
from watteau.domain.requests import Outcome
from watteau.engines.contract import Engine, EngineUnreachable, LaunchRefused, Seen, WorkerPlace, attempt_name

LONG_S = 600


@pytest.fixture(params=[*sorted(KITS), *(pytest.param(kind, marks=pytest.mark.slow) for kind in sorted(SLURM_KITS))])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Kit:
    if request.param in SLURM_KITS:
        return SLURM_KITS[request.param](request.getfixturevalue("slurm_sites"), f"contract/{tmp_path.name}-{now_ms()}")
    return KITS[request.param](tmp_path)


@pytest.fixture
def engine(kit: Kit) -> Iterator[Engine]:
    opened = kit.open()
    yield opened
    opened.close()
    again = kit.open()
    for said in again.adopt([attempt_name(job_id, 1) for job_id in range(1, 32)]):  # leave nothing running
        if said.seen in (Seen.STARTING, Seen.RUNNING):
            again.stop(said.name, Outcome.CANCELLED)
    again.close()


@pytest.fixture
def listener(engine: Engine) -> Listener:
    return Listener(engine)


def test_the_nodes_are_named(kit: Kit, engine: Engine) -> None:
    assert tuple(node.node for node in engine.capacity()) == kit.nodes


def test_a_name_never_seen_is_absent(engine: Engine) -> None:
    (said,) = engine.adopt(["watteau-7-1"])
    assert (said.name, said.seen, said.outcome) == ("watteau-7-1", Seen.ABSENT, None)
    assert engine.changes() == []


def test_adopt_says_one_thing_of_each_name_in_their_order(kit: Kit, engine: Engine, listener: Listener) -> None:
    listener.run(kit.lasting(0, 2))
    names = ["watteau-3-1", "watteau-2-1", "watteau-1-1"]
    assert [(said.name, said.seen) for said in engine.adopt(names)] == [
        ("watteau-3-1", Seen.ABSENT),
        ("watteau-2-1", Seen.ENDED),
        ("watteau-1-1", Seen.ABSENT),
    ]


def test_an_attempt_runs_and_completes(kit: Kit, engine: Engine, listener: Listener) -> None:
    before_ms = kit.now_ms()
    engine.start(kit.lasting(0.05))
    running = listener.until("watteau-1-1", Seen.RUNNING)
    ended = listener.ended("watteau-1-1")
    assert (ended.outcome, ended.exit_code, ended.signal, ended.cause) == (Outcome.COMPLETED, 0, None, "")
    assert running.started_ms is not None
    assert ended.ended_ms is not None
    assert running.started_ms == ended.started_ms
    assert before_ms <= running.started_ms <= ended.ended_ms <= now_ms()
    assert [said.seen for said in listener.heard] == [Seen.RUNNING, Seen.ENDED]
    assert engine.adopt(["watteau-1-1"]) == [ended]


def test_a_second_start_does_nothing_while_it_runs(kit: Kit, engine: Engine, listener: Listener) -> None:
    engine.start(kit.lasting(LONG_S))
    listener.until("watteau-1-1", Seen.RUNNING)
    first = engine.adopt(["watteau-1-1"])
    engine.start(kit.lasting(0))
    assert engine.adopt(["watteau-1-1"]) == first


def test_a_second_start_does_nothing_after_the_end(kit: Kit, engine: Engine, listener: Listener) -> None:
    ended = listener.run(kit.lasting(0))
    engine.start(kit.lasting(LONG_S))
    assert engine.adopt(["watteau-1-1"]) == [ended]


def test_many_starts_of_one_name_at_once_are_one(kit: Kit, engine: Engine, listener: Listener) -> None:
    threads = [threading.Thread(target=engine.start, args=(kit.lasting(0.05),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = listener.ended("watteau-1-1")
    assert ended.outcome is Outcome.COMPLETED
    assert engine.adopt(["watteau-1-1"]) == [ended]


@pytest.mark.parametrize("why", [Outcome.CANCELLED, Outcome.TIMED_OUT, Outcome.LOST])
def test_why_it_was_stopped_becomes_the_outcome(kit: Kit, engine: Engine, listener: Listener, why: Outcome) -> None:
    engine.start(kit.lasting(LONG_S))
    listener.until("watteau-1-1", Seen.RUNNING)
    engine.stop("watteau-1-1", why)
    ended = listener.ended("watteau-1-1")
    assert ended.outcome is why
    assert ended.cause


def test_a_stop_right_after_the_start_is_not_lost(kit: Kit, engine: Engine, listener: Listener) -> None:
    for job_id in range(1, 6):
        engine.start(kit.lasting(LONG_S, job_id))
        engine.stop(attempt_name(job_id, 1), Outcome.CANCELLED)
    for job_id in range(1, 6):
        assert listener.ended(attempt_name(job_id, 1)).outcome is Outcome.CANCELLED


def test_a_stop_after_the_end_does_nothing(kit: Kit, engine: Engine, listener: Listener) -> None:
    ended = listener.run(kit.lasting(0))
    engine.stop("watteau-1-1", Outcome.CANCELLED)
    assert engine.adopt(["watteau-1-1"]) == [ended]


def test_what_was_stopped_before_its_start_never_starts(kit: Kit, engine: Engine) -> None:
    engine.stop("watteau-1-1", Outcome.CANCELLED)
    (stopped,) = engine.adopt(["watteau-1-1"])
    assert (stopped.seen, stopped.outcome, stopped.started_ms) == (Seen.ENDED, Outcome.CANCELLED, None)
    engine.start(kit.lasting(LONG_S))
    assert engine.adopt(["watteau-1-1"]) == [stopped]


def test_what_was_stopped_before_its_start_never_starts_after_a_restart_either(kit: Kit) -> None:
    first = kit.open()
    first.stop("watteau-1-1", Outcome.CANCELLED)
    first.close()
    second = kit.open()
    second.start(kit.lasting(LONG_S))
    (stopped,) = second.adopt(["watteau-1-1"])
    assert (stopped.seen, stopped.outcome) == (Seen.ENDED, Outcome.CANCELLED)
    second.close()


def test_the_time_limit_ends_it(kit: Kit, listener: Listener) -> None:
    ended = listener.run(kit.lasting(LONG_S, time_limit_s=1))
    assert ended.outcome is Outcome.TIMED_OUT
    assert ended.cause
    assert ended.started_ms is not None
    assert ended.ended_ms is not None
    assert 1_000 <= ended.ended_ms - ended.started_ms < 5_000


def test_a_restart_finds_what_runs_and_hears_of_its_end(kit: Kit) -> None:
    first = kit.open()
    heard = Listener(first)
    first.start(kit.lasting(kit.restart_s))
    running = heard.until("watteau-1-1", Seen.RUNNING)
    first.close()
    second = kit.open()
    heard = Listener(second)
    assert second.adopt(["watteau-1-1"]) == [running]
    assert second.changes() == [], "what adopt answers is not told again"
    ended = heard.ended("watteau-1-1")
    assert (ended.outcome, ended.exit_code, ended.started_ms) == (Outcome.COMPLETED, 0, running.started_ms)
    second.close()


def test_a_restart_finds_how_it_ended_meanwhile(kit: Kit) -> None:
    first = kit.open()
    first.start(kit.lasting(0.05))
    first.close()

    def ended() -> bool:
        engine = kit.open()
        (said,) = engine.adopt(["watteau-1-1"])
        engine.close()
        return (said.seen, said.outcome, said.exit_code) == (Seen.ENDED, Outcome.COMPLETED, 0)

    eventually(ended, "the attempt ends without an engine, and its exit status is found")


def test_a_restart_can_stop_what_it_adopted(kit: Kit) -> None:
    first = kit.open()
    heard = Listener(first)
    first.start(kit.lasting(LONG_S))
    heard.until("watteau-1-1", Seen.RUNNING)
    first.close()
    second = kit.open()
    heard = Listener(second)
    second.adopt(["watteau-1-1"])
    second.stop("watteau-1-1", Outcome.CANCELLED)
    assert heard.ended("watteau-1-1").outcome is Outcome.CANCELLED
    second.close()


def test_many_attempts_at_once_all_end(kit: Kit, engine: Engine, listener: Listener) -> None:
    names = [attempt_name(job_id, 1) for job_id in range(1, 31)]
    for job_id in range(1, 31):
        engine.start(kit.lasting(0.1, job_id))
    for name in names:
        assert listener.ended(name).outcome is Outcome.COMPLETED
    assert sorted(said.name for said in listener.heard if said.seen is Seen.ENDED) == sorted(names)


def test_changes_are_told_once(kit: Kit, engine: Engine, listener: Listener) -> None:
    listener.run(kit.lasting(0))
    assert engine.changes() == []


def test_who_listens_late_is_woken_for_what_waits(kit: Kit, engine: Engine, listener: Listener) -> None:
    woken = threading.Event()
    engine.start(kit.lasting(0))
    eventually(lambda: engine.adopt(["watteau-1-1"])[0].seen is Seen.ENDED, "the attempt ends")
    engine.on_change(woken.set)
    assert woken.is_set()


def test_a_place_that_the_engine_does_not_have_is_refused_and_leaves_nothing(kit: Kit, engine: Engine) -> None:
    with pytest.raises(LaunchRefused, match="elsewhere"):
        engine.start(kit.lasting(0, places=(WorkerPlace("elsewhere", ()),)))
    assert engine.adopt(["watteau-1-1"])[0].seen is Seen.ABSENT


def test_the_log_is_the_same_in_pieces_and_complete_only_at_the_end(
    kit: Kit, engine: Engine, listener: Listener
) -> None:
    engine.start(kit.lasting(LONG_S))
    listener.until("watteau-1-1", Seen.RUNNING)
    assert not engine.read_log("watteau-1-1", "stdout", 0, 1 << 20).complete
    engine.stop("watteau-1-1", Outcome.CANCELLED)
    listener.ended("watteau-1-1")
    whole = whole_log(engine, "watteau-1-1")
    assert whole_log(engine, "watteau-1-1", most=7) == whole
    beyond = engine.read_log("watteau-1-1", "stdout", len(whole) + 5, 10)
    assert (beyond.content, beyond.complete) == (b"", True)
    with pytest.raises(ValueError, match="below zero"):
        engine.read_log("watteau-1-1", "stdout", -1, 10)


@pytest.mark.parametrize(("name", "stream"), [("watteau-9-1", "stdout"), ("watteau-1-1", "stderr")])
def test_a_log_that_is_not_there_is_said_to_be_missing(
    kit: Kit, engine: Engine, listener: Listener, name: str, stream: str
) -> None:
    listener.run(kit.lasting(0))
    with pytest.raises(FileNotFoundError):
        engine.read_log(name, stream, 0, 10)


def test_a_closed_engine_says_that_it_does_not_answer(kit: Kit) -> None:
    engine = kit.open()
    engine.close()
    engine.close()
    for call in (engine.capacity, engine.changes, lambda: engine.adopt([]), lambda: engine.start(kit.lasting(0))):
        with pytest.raises(EngineUnreachable):
            call()
