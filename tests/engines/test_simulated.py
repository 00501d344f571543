"""What only the simulated engine has: its own speed, silence on demand, and a file of starts."""

import threading
from pathlib import Path

import pytest

from tests.engines.kits import NODE, Listener, launch, now_ms, whole_log
from watteau.domain.requests import Outcome
from watteau.engines.contract import EngineUnreachable, Launch, Observation, Seen, attempt_name
from watteau.engines.simulated import SimulatedEngine

START_MS = 1_000_000


class _Clock:
    """A time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


def lasting(runtime_s: float | None, job_id: int = 1, **changes: int) -> Launch:
    return launch(job_id, simulated_runtime_s=runtime_s, **changes)


def test_attempts_end_at_the_millisecond_and_in_the_order_of_their_ends() -> None:
    def story() -> list[Observation]:
        clock = _Clock()
        engine = SimulatedEngine((NODE,), clock, speed=100)
        for job_id, runtime_s in ((1, 300.0), (2, 100.0), (3, 200.0), (4, 100.0)):
            engine.start(lasting(runtime_s, job_id, time_limit_s=250))
        clock.now_ms += 60_000  # long after all ends, which nobody noticed
        told = engine.changes()
        engine.close()
        return told

    told = story()
    assert [said.seen for said in told[:4]] == [Seen.RUNNING] * 4
    assert [(said.name, said.ended_ms, said.outcome) for said in told[4:]] == [
        ("watteau-2-1", START_MS + 1_000, Outcome.COMPLETED),
        ("watteau-4-1", START_MS + 1_000, Outcome.COMPLETED),
        ("watteau-3-1", START_MS + 2_000, Outcome.COMPLETED),
        ("watteau-1-1", START_MS + 2_500, Outcome.TIMED_OUT),
    ]
    assert told == story()


def test_without_a_run_time_it_runs_until_it_is_stopped() -> None:
    clock = _Clock()
    engine = SimulatedEngine((NODE,), clock)
    engine.start(lasting(None))
    clock.now_ms += 10**12
    assert engine.adopt(["watteau-1-1"])[0].seen is Seen.RUNNING
    engine.stop("watteau-1-1", Outcome.CANCELLED)
    assert engine.adopt(["watteau-1-1"])[0].outcome is Outcome.CANCELLED
    engine.close()


def test_thousands_end_at_once_with_one_thread() -> None:
    threads = threading.active_count()
    engine = SimulatedEngine((NODE,), now_ms, speed=1000)
    listener = Listener(engine)
    for job_id in range(1, 5001):
        engine.start(lasting(100, job_id))
    assert threading.active_count() == threads + 1
    for job_id in (1, 2500, 5000):
        assert listener.ended(attempt_name(job_id, 1)).outcome is Outcome.COMPLETED
    engine.close()


def test_a_silent_engine_does_not_answer_and_tells_all_afterwards() -> None:
    clock = _Clock()
    engine = SimulatedEngine((NODE,), clock)
    engine.start(lasting(10))
    engine.changes()
    engine.silence()
    woken = threading.Event()
    engine.on_change(woken.set)
    for call in (
        engine.capacity,
        engine.changes,
        lambda: engine.adopt(["watteau-1-1"]),
        lambda: engine.start(lasting(10, 2)),
        lambda: engine.stop("watteau-1-1", Outcome.CANCELLED),
        lambda: engine.read_log("watteau-1-1", "stdout", 0, 10),
    ):
        with pytest.raises(EngineUnreachable):
            call()
    clock.now_ms += 20_000
    engine.settle()
    assert not woken.is_set()
    engine.answer()
    assert woken.is_set()
    assert [(said.name, said.outcome) for said in engine.changes()] == [("watteau-1-1", Outcome.COMPLETED)]
    assert engine.adopt(["watteau-2-1"])[0].seen is Seen.ABSENT
    engine.close()


def test_without_a_folder_a_restart_has_forgotten_everything() -> None:
    clock = _Clock()
    first = SimulatedEngine((NODE,), clock)
    first.start(lasting(10))
    first.close()
    second = SimulatedEngine((NODE,), clock)
    assert second.adopt(["watteau-1-1"])[0].seen is Seen.ABSENT
    second.close()


def test_a_restart_goes_on_from_the_first_start_even_after_a_crash(tmp_path: Path) -> None:
    clock = _Clock()
    first = SimulatedEngine((NODE,), clock, folder=tmp_path)
    first.start(lasting(10, 1))
    first.start(lasting(100, 2))
    first.start(lasting(100, 3))
    first.stop("watteau-3-1", Outcome.CANCELLED)
    first.stop("watteau-4-1", Outcome.CANCELLED)
    (file,) = tmp_path.iterdir()
    with file.open("ab") as torn:  # killed in the middle of a line; and the engine is not closed
        torn.write(b'\n{"name": "watteau-9-1", "star')
    clock.now_ms += 50_000
    second = SimulatedEngine((NODE,), clock, folder=tmp_path)
    said = second.adopt([attempt_name(job_id, 1) for job_id in (1, 2, 3, 4, 9)])
    assert [(each.seen, each.started_ms, each.ended_ms, each.outcome) for each in said] == [
        (Seen.ENDED, START_MS, START_MS + 10_000, Outcome.COMPLETED),
        (Seen.RUNNING, START_MS, None, None),
        (Seen.ENDED, START_MS, START_MS, Outcome.CANCELLED),
        (Seen.ENDED, None, START_MS, Outcome.CANCELLED),
        (Seen.ABSENT, None, None, None),
    ]
    clock.now_ms += 50_000
    assert [(each.name, each.ended_ms) for each in second.changes()] == [("watteau-2-1", START_MS + 100_000)]
    first.close()
    second.close()


def test_the_oldest_ends_are_forgotten_and_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    clock = _Clock()
    engine = SimulatedEngine((NODE,), clock, folder=tmp_path, most_ended=10)
    for job_id in range(1, 101):
        engine.start(lasting(job_id, job_id))
    clock.now_ms += 1_000_000
    assert len(engine.changes()) == 200, "what is forgotten was told"
    assert engine.adopt(["watteau-90-1", "watteau-91-1"])[0].seen is Seen.ABSENT
    assert engine.adopt(["watteau-91-1"])[0].seen is Seen.ENDED
    engine.close()
    SimulatedEngine((NODE,), clock, folder=tmp_path, most_ended=10).close()
    (file,) = tmp_path.iterdir()
    assert len(file.read_bytes().splitlines()) == 10


def test_the_log_says_that_nothing_was_run() -> None:
    clock = _Clock()
    engine = SimulatedEngine((NODE,), clock)
    engine.start(lasting(10))
    clock.now_ms += 10_000
    log = whole_log(engine, "watteau-1-1").decode()
    assert log.startswith("This attempt is simulated: nothing is run.\n")
    assert log.endswith("completed\n")
    engine.close()


def test_a_speed_that_goes_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        SimulatedEngine((NODE,), now_ms, speed=0)
