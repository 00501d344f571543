"""The Slurm engine against a cluster in memory: what is sent once, what is lost, and what is said of it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.engines.fake_slurm import USER, FakeSlurm, Fault, a_job
from tests.engines.kits import eventually, launch, slurm_engine
from watteau.domain.requests import JobState, Outcome
from watteau.domain.sites import Held, NodeState, Reservation
from watteau.engines.contract import (
    EngineUnreachable,
    Launch,
    LaunchRefused,
    NoAccounting,
    Observation,
    Seen,
    SharedEngine,
    SiteView,
    WorkerPlace,
)
from watteau.engines.slurm.engine import SlurmEngine
from watteau.engines.slurm.facts import Listing, TokenRefused
from watteau.engines.slurm.marks import folder_of

NAME = "watteau-1-1"


class World:
    """A cluster, an engine, and a clock that stands still unless it is moved. The engine looks when it is told to."""

    def __init__(self, folder_here: str = "") -> None:
        self.folder_here = folder_here
        self.ms = 1_000_000_000
        self.cluster = FakeSlurm(lambda: self.ms)
        self.engine = self.open()
        self.heard: list[Observation] = []

    def open(self) -> SlurmEngine:
        return slurm_engine(
            self.cluster, "/shared/watteau", lambda: self.ms, poll_s=3_600, folder_here=self.folder_here
        )

    def restart(self) -> None:
        """Another process, which knows nothing."""
        self.engine.close()
        self.engine = self.open()

    def poll(self, *, after_s: float = 0) -> list[Observation]:
        """Look at the cluster now; returns all that was heard so far."""
        self.ms += round(1000 * after_s)
        self.engine.leftovers(())
        self.heard += self.engine.changes()
        return self.heard

    def start(self, job_id: int = 1, *command: str, **changes: Any) -> int:
        """Start an attempt; the id of its Slurm job."""
        attempt = an_attempt(job_id, *command, **changes)
        self.engine.start(attempt)
        return self.cluster.of(attempt.name).job_id

    def runs(self, job_id: int = 1) -> int:
        """Start an attempt, and let Slurm run it."""
        slurm_id = self.start(job_id)
        assert self.cluster.begin(slurm_id)
        self.poll()
        return slurm_id

    def says(self, name: str = NAME) -> Observation:
        (said,) = self.engine.adopt([name])
        return said

    def look(self) -> SiteView:
        self.engine.leftovers(())
        view = self.engine.look()
        assert view is not None
        return view


def an_attempt(job_id: int = 1, *command: str, **changes: Any) -> Launch:
    fields: dict[str, Any] = {"places": (WorkerPlace("n0", ()),)}
    return launch(job_id, *(command or ("sleep", "600")), **(fields | changes))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.engine.close()


def test_it_is_a_shared_engine(world: World) -> None:
    assert isinstance(world.engine, SharedEngine)


# ---- one submission for each name


def test_what_was_started_before_is_not_submitted_again_after_a_restart(world: World) -> None:
    world.start()
    world.restart()
    world.engine.start(an_attempt())
    assert world.cluster.changed == [f"submit {NAME}"]
    assert world.says().seen is Seen.STARTING


def test_an_answer_that_was_lost_is_looked_for_and_the_submission_is_found(world: World) -> None:
    world.cluster.faults.append("cut")
    world.engine.start(an_attempt())
    assert world.cluster.changed == [f"submit {NAME}"]
    assert world.says().seen is Seen.STARTING


def test_a_submission_in_doubt_that_is_not_there_is_sent_again_only_after_a_while(world: World) -> None:
    world.cluster.faults.append("lost")
    with pytest.raises(EngineUnreachable, match="no answer came"):
        world.engine.start(an_attempt())
    assert world.cluster.changed == [f"submit {NAME}"]
    world.ms += 60_000
    world.engine.start(an_attempt())
    assert world.cluster.changed == [f"submit {NAME}"] * 2
    assert world.says().seen is Seen.STARTING


def test_a_restart_in_doubt_finds_what_arrived(world: World) -> None:
    world.cluster.faults.append("late")
    with pytest.raises(EngineUnreachable):
        world.engine.start(an_attempt())
    world.cluster.arrive()
    world.restart()
    assert world.says().seen is Seen.STARTING
    world.engine.start(an_attempt())
    assert world.cluster.changed == [f"submit {NAME}"]


def test_an_attempt_that_ended_while_its_answer_was_lost_is_told_to_have_ended(world: World) -> None:
    world.cluster.faults.append("late")
    with pytest.raises(EngineUnreachable):
        world.engine.start(an_attempt())
    world.cluster.arrive()
    (job,) = world.cluster.all_of(NAME)
    world.cluster.begin(job.job_id)
    world.cluster.end(job.job_id, 3)
    world.engine.start(an_attempt())
    assert [(said.seen, said.exit_code) for said in world.poll()] == [(Seen.RUNNING, None), (Seen.ENDED, 3)]
    assert world.cluster.changed == [f"submit {NAME}"]


def test_an_attempt_that_ended_before_it_is_started_again_is_told_to_have_ended(world: World) -> None:
    slurm_id = world.runs()
    world.cluster.end(slurm_id, 3)
    world.restart()
    world.heard.clear()
    world.engine.start(an_attempt())
    assert [(said.seen, said.exit_code) for said in world.poll()] == [(Seen.RUNNING, None), (Seen.ENDED, 3)]


def test_what_adoption_answers_is_told_by_nothing_else(world: World) -> None:
    slurm_id = world.runs()
    world.cluster.end(slurm_id, 3)
    world.restart()
    world.heard.clear()
    assert world.says().seen is Seen.ENDED
    world.engine.start(an_attempt())
    assert world.poll() == []


def test_of_two_jobs_of_one_name_the_first_is_kept_and_the_other_cancelled(world: World) -> None:
    world.cluster.faults.append("late")
    with pytest.raises(EngineUnreachable):
        world.engine.start(an_attempt())
    world.ms += 60_000
    world.engine.start(an_attempt())
    world.cluster.arrive()
    world.poll()
    first, second = world.cluster.all_of(NAME)
    assert (first.state, second.state) == ("PENDING", "CANCELLED")


def test_a_double_that_was_cancelled_is_not_taken_for_the_attempt_when_the_first_is_forgotten(world: World) -> None:
    world.cluster.faults.append("late")
    with pytest.raises(EngineUnreachable):
        world.engine.start(an_attempt())
    world.ms += 60_000
    world.engine.start(an_attempt())
    world.cluster.arrive()
    world.poll()
    first, _ = world.cluster.all_of(NAME)
    world.cluster.forget(first.job_id)
    assert world.poll()[-1].seen is Seen.ABSENT
    world.engine.start(an_attempt())
    assert world.says().seen is Seen.STARTING


def test_of_two_jobs_of_one_name_that_which_has_the_claim_counts_whichever_it_is(world: World) -> None:
    world.cluster.faults.append("late")
    with pytest.raises(EngineUnreachable):
        world.engine.start(an_attempt())
    world.ms += 60_000
    world.engine.start(an_attempt())
    world.cluster.arrive()
    first, second = world.cluster.all_of(NAME)
    assert world.cluster.begin(second.job_id)
    assert not world.cluster.begin(first.job_id)
    world.poll()
    assert world.says().seen is Seen.RUNNING
    world.cluster.end(second.job_id, 3)
    world.poll()
    assert (world.says().outcome, world.says().exit_code) == (Outcome.FAILED, 3)
    assert world.cluster.ran == [NAME]


def test_a_submission_that_arrives_after_the_end_is_cancelled(world: World) -> None:
    world.cluster.faults.append("late")
    with pytest.raises(EngineUnreachable):
        world.engine.start(an_attempt())
    world.ms += 60_000
    world.engine.start(an_attempt())
    (job,) = world.cluster.all_of(NAME)
    world.cluster.begin(job.job_id)
    world.cluster.end(job.job_id)
    world.poll()
    world.cluster.arrive()
    world.poll()
    assert sorted(job.state for job in world.cluster.all_of(NAME)) == ["CANCELLED", "COMPLETED"]
    assert [said.seen for said in world.heard] == [Seen.RUNNING, Seen.ENDED]


def test_a_refused_submission_is_said_in_slurms_words_and_its_record_is_no_attempt(world: World) -> None:
    world.cluster.faults.append("refused")
    with pytest.raises(LaunchRefused, match="Requested node configuration is not available"):
        world.engine.start(an_attempt())
    assert world.says().seen is Seen.ABSENT


def test_of_many_starts_those_are_refused_that_slurm_refuses(world: World) -> None:
    world.cluster.faults.extend(["refused"])
    refused = world.engine.start_all([an_attempt(1), an_attempt(2), an_attempt(3, partition="nowhere")])
    assert sorted(name for name, _ in refused) == ["watteau-1-1", "watteau-3-1"]
    assert dict(refused)["watteau-3-1"] == "this site has no partition nowhere; it has normal, short"
    assert world.says("watteau-2-1").seen is Seen.STARTING


@pytest.mark.parametrize("fault", ["unreachable", "cut", "lost"])
def test_starts_that_were_not_answered_are_repeated_and_the_others_are_not(world: World, fault: Fault) -> None:
    world.cluster.faults.extend([fault])
    attempts = [an_attempt(1), an_attempt(2)]
    try:
        world.engine.start_all(attempts)
    except EngineUnreachable:
        world.ms += 60_000
        world.engine.start_all(attempts)
    assert [len(world.cluster.all_of(attempt.name)) for attempt in attempts] == [1, 1]


def test_two_watteaus_with_two_folders_do_not_touch_each_others_attempts(world: World) -> None:
    slurm_id = world.start()
    other = slurm_engine(world.cluster, "/shared/another", lambda: world.ms, poll_s=3_600)
    assert other.adopt([NAME])[0].seen is Seen.ABSENT
    assert other.leftovers(()) == []
    view = other.look()
    assert view is not None
    assert [job.engine_id for job in view.jobs] == [str(slurm_id)]
    other.close()


def test_of_two_watteaus_with_one_folder_the_second_is_told_so_and_starts_nothing(tmp_path: Path) -> None:
    cluster = FakeSlurm(lambda: 1_000_000)

    def opened(owner: str) -> SlurmEngine:
        return slurm_engine(cluster, "/shared", lambda: 1_000_000, owner, poll_s=3_600, folder_here=str(tmp_path))

    with closing(opened("one")) as engine:
        engine.start(an_attempt())
    with closing(opened("another")) as engine, pytest.raises(EngineUnreachable, match="another folder"):
        engine.start(an_attempt())
    with closing(opened("one")) as engine:
        assert engine.adopt([NAME])[0].seen is Seen.STARTING
    (tmp_path / "owner").unlink()
    with closing(opened("another")) as engine:
        engine.start(an_attempt(2))
    assert cluster.changed == [f"submit {NAME}", "submit watteau-2-1"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"places": (WorkerPlace("n9", ()),)}, "no node n9"),
        ({"partition": "short", "time_limit_s": 7_200}, "partition short allows 3600 s, and the time limit is 7200 s"),
        ({"partition": "short", "places": (WorkerPlace("n0", ()), WorkerPlace("n1", ()))}, "allows 1 nodes"),
        ({"workdir": "here"}, "not an absolute path"),
        ({"environment": {"A": "\0"}}, "NUL"),
        ({"environment": {"A": "\udc80"}}, "not valid Unicode"),
    ],
)
def test_what_the_site_could_never_run_is_refused_before_it_is_sent(
    world: World, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(LaunchRefused, match=why):
        world.engine.start(an_attempt(**changes))
    assert world.cluster.changed == []


def test_uneven_workers_ask_on_every_node_for_what_the_fullest_one_needs(world: World) -> None:
    places = tuple(WorkerPlace(node, ()) for node in ("n0", "n1", "n1"))
    slurm_id = world.start(places=places, gpu_milli=2_000, cpu_milli=1_500, memory_mib=100)
    job = world.cluster.of(NAME)
    assert (job.node_count, job.gpus, job.cpus) == (2, 8, 6)
    world.cluster.begin(slurm_id)
    world.poll()
    assert world.says().nodes == ("n0", "n0", "n1")
    world.restart()
    assert world.says().nodes == ("n0", "n0", "n1")


# ---- how attempts end


def test_an_attempt_that_ends_between_two_looks_is_told_to_have_run(world: World) -> None:
    slurm_id = world.start()
    world.cluster.begin(slurm_id)
    world.cluster.end(slurm_id, 7)
    running, ended = world.poll()
    assert (running.seen, running.started_ms, running.nodes) == (Seen.RUNNING, world.ms, ("n0",))
    assert (ended.outcome, ended.exit_code, ended.cause) == (Outcome.FAILED, 7, "It exited with code 7.")


@pytest.mark.parametrize(
    ("state", "outcome", "cause"),
    [
        ("TIMEOUT", Outcome.TIMED_OUT, "time limit"),
        ("DEADLINE", Outcome.TIMED_OUT, "deadline"),
        ("OUT_OF_MEMORY", Outcome.OUT_OF_MEMORY, "more than its memory limit on n0"),
        ("PREEMPTED", Outcome.LOST, "preempted it on n0"),
        ("NODE_FAIL", Outcome.LOST, "A node failed on n0"),
        ("BOOT_FAIL", Outcome.LOST, "could not be started"),
        ("CANCELLED", Outcome.CANCELLED, "cancelled at the site, and not by Watteau"),
        ("REVOKED", Outcome.LOST, "REVOKED"),
    ],
)
def test_why_slurm_ended_it_is_said(world: World, state: str, outcome: Outcome, cause: str) -> None:
    world.cluster.end_as(world.runs(), state)
    ended = world.poll()[-1]
    assert (ended.seen, ended.outcome) == (Seen.ENDED, outcome)
    assert cause in ended.cause


@pytest.mark.parametrize("state", ["NODE_FAIL", "CANCELLED", "TIMEOUT", "PREEMPTED"])
def test_a_command_that_had_ended_by_itself_ended_as_it_did_whatever_slurm_calls_it(world: World, state: str) -> None:
    """A slurmctld that forgot the end finds a node that does not run the job, and calls that NODE_FAIL."""
    slurm_id = world.runs()
    world.cluster.end_unheard(slurm_id, 3)
    world.ms += 150_000
    world.cluster.end_as(slurm_id, state)
    ended = world.poll()[-1]
    assert (ended.outcome, ended.exit_code) == (Outcome.FAILED, 3)


def test_a_command_that_slurm_ended_before_its_batch_script_heard_of_it_was_cancelled(world: World) -> None:
    slurm_id = world.runs()
    world.engine.stop(NAME, Outcome.CANCELLED)
    world.cluster.end_unheard(slurm_id, 143)
    ended = world.poll()[-1]
    assert ended.outcome is Outcome.CANCELLED


def test_an_end_that_slurm_forgot_is_seen_by_its_mark_and_the_job_that_is_left_is_cancelled(tmp_path: Path) -> None:
    world = World(folder_here=str(tmp_path))
    slurm_id = world.runs()
    world.cluster.end_unheard(slurm_id, 3)
    for _ in range(40):
        world.poll(after_s=2)
    assert [said.seen for said in world.heard] == [Seen.RUNNING, Seen.ENDED]
    assert (world.says().outcome, world.says().exit_code) == (Outcome.FAILED, 3)
    assert world.cluster.of(NAME).state == "CANCELLED"
    world.engine.close()


def test_a_command_that_ended_with_0_has_completed_though_slurm_killed_some_process_of_it(world: World) -> None:
    """As on a machine of our own."""
    slurm_id = world.runs()
    world.cluster.end_unheard(slurm_id, 0)
    world.cluster.end_as(slurm_id, "OUT_OF_MEMORY")
    assert world.poll()[-1].outcome is Outcome.COMPLETED


# ---- where marks are near


class Near(World):
    """Marks are looked for in a folder of this machine. Its clock must be moved for each look."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder

    def show(self, mark: str, *, after_s: float = 0.5) -> None:
        """A mark is seen here, so long after now."""
        its_folder = Path(folder_of(str(self.folder), NAME))
        its_folder.mkdir(parents=True, exist_ok=True)
        (its_folder / mark).touch()
        self.ms += round(1000 * after_s)

    def hears(self, count: int) -> list[Observation]:
        """What the engine has said by itself, once it is so much."""

        def enough() -> bool:
            self.heard += self.engine.changes()
            return len(self.heard) >= count

        self.until(enough, f"{count} changes")
        return self.heard

    def until(self, holds: Callable[[], Any], what: str) -> None:
        """Wait. A look in whose middle the clock was moved takes itself for a slow one, and makes a longer pause."""
        nudges_s = [time.monotonic() + seconds for seconds in (1, 2, 3)]

        def nudged() -> Any:
            if nudges_s and time.monotonic() > nudges_s[0]:
                nudges_s.pop(0)
                self.ms += 1_000
            return holds()

        eventually(nudged, what)

    def asked_of_jobs(self) -> int:
        return sum(what in ("job", "jobs") for what in self.cluster.asked)


@pytest.fixture
def near(tmp_path: Path) -> Iterator[Near]:
    near = Near(tmp_path)
    yield near
    near.engine.close()


def test_a_start_and_a_good_end_are_told_by_their_marks_before_slurm_says_so(near: Near) -> None:
    slurm_id = near.start()
    before = near.asked_of_jobs()
    near.cluster.begin(slurm_id)
    near.show("claim")
    began_ms = near.ms - 500
    (running,) = near.hears(1)
    assert (running.seen, running.started_ms, running.nodes) == (Seen.RUNNING, began_ms, ("n0",))
    near.ms += 7_000
    ended_ms = near.ms // 1_000 * 1_000
    near.cluster.end_unheard(slurm_id, 0)
    near.show("ended")
    ended = near.hears(2)[-1]
    assert (ended.outcome, ended.started_ms, ended.ended_ms) == (Outcome.COMPLETED, began_ms, ended_ms)
    assert near.asked_of_jobs() == before


def test_a_job_whose_end_was_told_first_is_left_to_slurm_for_a_while(near: Near) -> None:
    slurm_id = near.start()
    near.cluster.begin(slurm_id)
    near.cluster.end_unheard(slurm_id, 0)
    near.show("claim")
    near.show("ended")
    near.hears(2)
    near.poll(after_s=10)
    assert near.cluster.changed == [f"submit {NAME}"]
    near.poll(after_s=60)  # a slurmctld that was killed will never hear of it
    assert near.cluster.changed == [f"submit {NAME}", f"cancel {NAME}"]
    assert [said.seen for said in near.heard] == [Seen.RUNNING, Seen.ENDED]


@pytest.mark.parametrize("skew_s", [-20, 120])
def test_a_mark_of_another_time_proves_nothing_and_slurm_is_asked(near: Near, skew_s: int) -> None:
    slurm_id = near.runs()
    near.cluster.end_unheard(slurm_id, 0)
    mark, now_s = f"{folder_of('/shared/watteau', NAME)}/ended", near.ms // 1000
    near.cluster.files[mark] = near.cluster.files[mark].replace(b"%d" % now_s, b"%d" % (now_s + skew_s))
    before = near.asked_of_jobs()
    near.show("ended")
    near.until(lambda: near.asked_of_jobs() > before, "a question to Slurm")
    assert [said.seen for said in near.poll()] == [Seen.RUNNING]
    near.cluster.end(slurm_id, 0)
    assert near.poll()[-1].outcome is Outcome.COMPLETED


def test_how_a_command_ended_that_failed_is_asked_of_slurm_too(near: Near) -> None:
    slurm_id = near.runs()
    near.cluster.end_unheard(slurm_id, 137)
    near.cluster.end_as(slurm_id, "OUT_OF_MEMORY", signal=None)
    near.show("ended")
    assert near.hears(2)[-1].outcome is Outcome.OUT_OF_MEMORY


def test_a_mark_of_another_job_is_no_start_of_this_one(near: Near) -> None:
    slurm_id = near.start()
    near.cluster.begin(slurm_id)
    near.cluster.put(_changed(near.cluster.of(NAME), state="PENDING", nodes=(), start_s=None))
    claim = f"{folder_of('/shared/watteau', NAME)}/claim"
    near.cluster.files[claim] = near.cluster.files[claim].replace(b"'job': ", b"'job': 9")
    near.show("claim")
    reads = near.cluster.asked.count("read_file")
    near.until(lambda: near.cluster.asked.count("read_file") > reads, "the mark is read")
    assert near.says().seen is Seen.STARTING


def test_a_start_does_not_wait_for_a_look_that_is_under_way(near: Near) -> None:
    near.look()
    goes_on, is_asked, jobs = threading.Event(), threading.Event(), near.cluster.jobs

    def slow(since: Listing | None = None) -> Listing | None:
        is_asked.set()
        assert goes_on.wait(30)
        return jobs(since)

    near.cluster.jobs = slow  # type: ignore[method-assign]
    look = threading.Thread(target=near.engine.leftovers, args=((),))
    look.start()
    try:
        assert is_asked.wait(30)
        near.engine.start(an_attempt())
        assert near.cluster.changed == [f"submit {NAME}"]
    finally:
        goes_on.set()
        look.join()


# ---- what else befalls an attempt


def test_a_job_that_slurm_could_not_start_is_lost_and_not_failed(world: World) -> None:
    slurm_id = world.start()
    world.cluster.end_as(slurm_id, "FAILED", signal=53)
    ended = world.poll()[-1]
    assert (ended.outcome, ended.exit_code) == (Outcome.LOST, None)
    assert "could not start it" in ended.cause


def test_its_own_time_limit_is_known_from_the_mark(world: World) -> None:
    slurm_id = world.runs()
    world.cluster.end(slurm_id, None, 15, limited=True)
    assert world.poll()[-1].outcome is Outcome.TIMED_OUT


def test_a_job_whose_node_refused_it_is_lost_and_was_not_cancelled_by_anybody(world: World) -> None:
    """Slurm calls it CANCELLED when its id is that of another job there: a slurmctld had forgotten that one."""
    slurm_id = world.start()
    job = _changed(world.cluster.of(NAME), start_s=world.ms // 1000, end_s=world.ms // 1000, nodes=("n0",))
    world.cluster.put(_changed(job, state="CANCELLED"))
    world.poll()
    ended = world.poll(after_s=10)[-1]
    assert (ended.outcome, ended.exit_code) == (Outcome.LOST, None)
    assert "before its batch script began on n0" in ended.cause
    assert slurm_id == job.job_id


def test_a_job_that_somebody_cancelled_while_it_waited_or_ran_is_cancelled(world: World) -> None:
    waits, runs = world.start(1), world.runs(2)
    for slurm_id in (waits, runs):
        world.cluster.end_as(slurm_id, "CANCELLED")
    world.poll()
    assert [world.says(name).outcome for name in (NAME, "watteau-2-1")] == [Outcome.CANCELLED] * 2


def test_nothing_has_ended_while_slurm_still_clears_its_nodes(world: World) -> None:
    slurm_id = world.runs()
    job = world.cluster.of(NAME)
    for state, flags in (("COMPLETING", frozenset[str]()), ("COMPLETED", frozenset({"COMPLETING"}))):
        world.cluster.put(_changed(job, state=state, flags=flags, end_s=world.ms // 1000))
        assert [said.seen for said in world.poll()] == [Seen.RUNNING]
    world.cluster.put(_changed(job, exit_code=None, end_s=None))
    world.cluster.end(slurm_id)
    assert world.poll()[-1].outcome is Outcome.COMPLETED


def test_what_an_attempt_waits_for_is_told_once_it_has_waited(world: World) -> None:
    world.start()
    job = world.cluster.of(NAME)
    world.cluster.put(_changed(job, reason="Resources"))
    assert world.poll() == []
    assert world.says().waits_for == "Slurm: Resources"
    assert [said.waits_for for said in world.poll(after_s=5)] == ["Slurm: Resources"]
    world.cluster.put(_changed(job, reason="Priority"))
    assert [said.waits_for for said in world.poll()] == ["Slurm: Resources", "Slurm: Priority"]


def test_an_end_that_slurm_no_longer_remembers_is_known_from_the_marks(world: World) -> None:
    slurm_id = world.runs()
    world.cluster.end(slurm_id, 9)
    world.cluster.purge()
    ended = world.poll(after_s=1_000)[-1]
    assert (ended.outcome, ended.exit_code, ended.started_ms) == (Outcome.FAILED, 9, 1_000_000_000)


def test_without_marks_the_accounting_says_how_it_ended(world: World) -> None:
    world.cluster.keeps_accounts = True
    slurm_id = world.runs()
    world.cluster.end(slurm_id, 9)
    world.cluster.purge()
    world.cluster.files.clear()
    ended = world.poll(after_s=1_000)[-1]
    assert (ended.outcome, ended.exit_code, ended.nodes) == (Outcome.FAILED, 9, ("n0",))


def test_another_watteaus_attempt_of_that_name_in_the_accounting_is_not_taken_for_ours(world: World) -> None:
    """Most sites' accounting keeps no comments."""
    world.cluster.keeps_accounts = True
    other = slurm_engine(world.cluster, "/shared/another", lambda: world.ms, poll_s=3_600)
    other.start(an_attempt())
    world.cluster.put(_changed(world.cluster.of(NAME), comment="", state="COMPLETED", exit_code=0, end_s=1_000_100))
    world.cluster.purge()
    world.ms += 10_000_000
    assert world.says().seen is Seen.ABSENT
    other.close()


def test_who_began_and_is_nowhere_is_lost_after_a_while(world: World) -> None:
    slurm_id = world.runs()
    world.cluster.forget(slurm_id)
    assert [said.seen for said in world.poll()] == [Seen.RUNNING]
    ended = world.poll(after_s=31)[-1]
    assert (ended.outcome, "forgotten" in ended.cause) == (Outcome.LOST, True)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{'at_s': 'x', 'sizes': 3, 'stopped': 4}", b"\xff", b"(" * 9_999]
)
def test_a_mark_that_somebody_spoiled_spoils_no_other_attempt(world: World, content: bytes) -> None:
    spoiled, other = world.runs(1), world.runs(2)
    for mark in ("claim", "began", "ended", "stop"):
        world.cluster.files[f"/shared/watteau/000000/watteau-1-1/{mark}"] = content
    world.cluster.forget(spoiled)
    world.cluster.end(other, 3)
    world.poll()
    world.poll(after_s=40)
    assert (world.says("watteau-2-1").outcome, world.says("watteau-2-1").exit_code) == (Outcome.FAILED, 3)
    assert world.says("watteau-1-1").seen is Seen.ENDED


# ---- slurmctld loses its memory


def test_a_submission_that_slurmctld_forgot_is_absent_and_can_be_started_again(world: World) -> None:
    world.cluster.forget(world.start())
    assert [said.seen for said in world.poll()] == [Seen.ABSENT]
    slurm_id = world.start()
    assert world.cluster.begin(slurm_id)
    assert world.poll()[-1].seen is Seen.RUNNING


def test_another_job_that_got_its_id_is_neither_taken_for_it_nor_cancelled(world: World) -> None:
    slurm_id = world.start()
    world.cluster.forget(slurm_id)
    world.cluster.put(a_job(slurm_id, name="watteau-1-1", user="zoe"))
    world.engine.stop(NAME, Outcome.CANCELLED)
    assert world.poll()[-1].seen is Seen.ABSENT
    assert world.cluster.of(NAME).state == "PENDING"
    assert f"cancel {NAME}" not in world.cluster.changed


def test_an_attempt_that_ran_and_was_forgotten_runs_no_second_time(world: World) -> None:
    slurm_id = world.start()
    world.cluster.begin(slurm_id)
    world.cluster.forget(slurm_id, ends=(4, None))
    world.restart()
    world.engine.start(an_attempt())
    again = world.cluster.of(NAME).job_id
    assert not world.cluster.begin(again)
    world.poll()
    assert (world.says().outcome, world.says().exit_code) == (Outcome.FAILED, 4)
    assert world.cluster.ran == [NAME]


def test_a_job_that_is_put_back_into_the_queue_is_lost_and_cancelled(world: World) -> None:
    slurm_id = world.runs()
    world.cluster.requeue(slurm_id)
    ended = world.poll()[-1]
    assert (ended.outcome, "put it back" in ended.cause) == (Outcome.LOST, True)
    assert world.cluster.of(NAME).state == "CANCELLED"


def test_a_job_that_ended_and_is_put_back_by_an_older_memory_has_ended_as_it_did(world: World) -> None:
    slurm_id = world.runs()
    before = world.cluster.of(NAME)
    world.cluster.end(slurm_id)
    world.cluster.put(_changed(before, state="PENDING", start_s=None, nodes=(), held=()))
    assert world.poll()[-1].outcome is Outcome.COMPLETED
    assert world.cluster.of(NAME).state == "CANCELLED"


# ---- stopping


def test_a_stop_before_the_start_leaves_a_cancelled_job_where_no_mark_can_be_written(world: World) -> None:
    world.engine.stop(NAME, Outcome.CANCELLED)
    world.restart()
    world.engine.start(an_attempt())
    assert (world.says().seen, world.says().outcome) == (Seen.ENDED, Outcome.CANCELLED)
    assert world.cluster.ran == []


def test_a_stop_after_a_doubtful_start_reaches_what_arrived(world: World) -> None:
    world.cluster.faults.append("late")
    with pytest.raises(EngineUnreachable):
        world.engine.start(an_attempt())
    world.cluster.arrive()
    world.ms += 60_000
    world.engine.stop(NAME, Outcome.CANCELLED)
    world.poll()
    assert world.says().outcome is Outcome.CANCELLED
    assert world.cluster.of(NAME).state == "CANCELLED"


# ---- nothing leaves unless it may


def test_nothing_that_changes_anything_leaves_unless_it_may(world: World) -> None:
    """Doubled submissions, requeued jobs and leftovers are there, and are left alone, too."""
    runs = world.runs()
    world.cluster.faults.append("late")
    with pytest.raises(EngineUnreachable):
        world.engine.start(an_attempt(2))
    world.ms += 60_000
    world.engine.start(an_attempt(2))
    world.engine.may_change = False
    before = list(world.cluster.changed)
    world.cluster.arrive()
    world.cluster.requeue(runs)
    for call in (
        lambda: world.engine.start(an_attempt(3)),
        lambda: world.engine.start_all([an_attempt(3)]),
        lambda: world.engine.stop("watteau-2-1", Outcome.CANCELLED),
        lambda: world.engine.stop("watteau-9-1", Outcome.CANCELLED),
    ):
        with pytest.raises(EngineUnreachable, match="does not drive it"):
            call()
    world.poll()
    world.poll(after_s=100)
    world.restart()
    world.engine.may_change = False
    world.engine.adopt([NAME, "watteau-2-1", "watteau-9-1"])
    assert world.engine.leftovers(()) == ["watteau-1-1", "watteau-2-1"]
    world.engine.capacity()
    world.engine.look()
    with pytest.raises(NoAccounting):
        list(world.engine.history(0, 10**15))
    with pytest.raises(FileNotFoundError):
        world.engine.read_log("watteau-2-1", "stderr", 0, 10)
    assert world.cluster.changed == before


def test_an_engine_may_change_nothing_until_it_is_told_so() -> None:
    from watteau.domain.fleet import SlurmAccess
    from watteau.domain.units import SiteId, TenantId

    cluster = FakeSlurm(lambda: 0)
    engine = SlurmEngine(SiteId("x"), SlurmAccess(user=USER, folder="/x"), cluster, lambda: 0, TenantId)
    with pytest.raises(EngineUnreachable):
        engine.start(an_attempt())
    assert cluster.changed == []
    engine.close()


# ---- a silent site


def test_a_silent_site_is_said_to_be_silent_with_its_cause_until_it_answers(world: World) -> None:
    world.runs()
    woken = threading.Event()
    world.engine.on_change(woken.set)
    world.cluster.silence = "slurmctld is down"
    for _ in range(2):
        with pytest.raises(EngineUnreachable):
            world.engine.leftovers(())
    assert woken.is_set()
    for call in (world.engine.changes, world.engine.look, world.engine.capacity, lambda: world.engine.adopt([NAME])):
        with pytest.raises(EngineUnreachable, match="slurmctld is down"):
            call()
    world.cluster.silence = ""
    world.poll()
    assert world.says().seen is Seen.RUNNING


def test_one_unanswered_look_is_not_silence(world: World) -> None:
    world.runs()
    world.cluster.silence = "once"
    with pytest.raises(EngineUnreachable):
        world.engine.leftovers(())
    world.cluster.silence = ""
    assert world.engine.changes() == []


def test_a_refused_token_is_silence_whose_cause_says_so(world: World) -> None:
    class Refusing(FakeSlurm):
        def jobs(self, since: Any = None) -> Any:
            raise TokenRefused("the token of /etc/token ended; renew it")

    engine = slurm_engine(Refusing(lambda: world.ms), "/x", lambda: world.ms)
    with pytest.raises(EngineUnreachable, match="renew it"):
        engine.adopt([NAME])
    engine.close()


# ---- other people's jobs


def test_jobs_by_hand_are_shown_and_their_ends_as_long_as_slurm_remembers(world: World) -> None:
    runs = a_job(7, state="RUNNING", start_s=1_100, nodes=("n0",), held=(Held("n0", 4, 8, 0),), gpus=4, cpus=8)
    world.cluster.put(runs)
    world.cluster.put(a_job(8, reason="JobHeldUser"))
    view = world.look()
    assert [(job.engine_id, job.state, job.tenant, job.held) for job in view.jobs] == [
        ("7", JobState.RUNNING, "physics", (Held("n0", 4, 8, 0),)),
        ("8", JobState.HELD, "physics", ()),
    ]
    assert world.engine.look() is None
    world.cluster.put(_changed(runs, state="FAILED", exit_code=2, end_s=1_200))
    ended, held = sorted(world.look().jobs, key=lambda job: job.engine_id)
    assert (ended.state, ended.exit_code, ended.ended_ms, ended.cause) == (
        JobState.FAILED,
        2,
        1_200_000,
        "It exited with code 2.",
    )
    world.cluster.put(a_job(9))
    assert [job.engine_id for job in world.look().jobs] == ["7", held.engine_id, "9"]
    world.cluster.purge()
    assert [job.engine_id for job in world.look().jobs] == [held.engine_id, "9"]


def test_what_did_not_change_keeps_its_object(world: World) -> None:
    world.cluster.put(a_job(7))
    (before,) = world.look().jobs
    world.cluster.put(a_job(7))
    world.cluster.put(a_job(8))
    assert world.look().jobs[0] is before


def test_the_waiting_rest_of_an_array_is_one_record_until_its_last_task_began(world: World) -> None:
    rest = a_job(20, array_job_id=20, array_rest="1-9%2")
    world.cluster.put(rest)
    (shown,) = world.look().jobs
    assert (shown.engine_id, shown.tasks) == ("20", 9)
    task = a_job(21, array_job_id=20, array_task_id=1, state="RUNNING", start_s=5, nodes=("n0",))
    world.cluster.put(task)
    world.cluster.put(_changed(rest, array_rest="2-9%2"))
    assert [(job.engine_id, job.tasks) for job in world.look().jobs] == [("20", 8), ("20_1", 1)]
    world.cluster.put(_changed(rest, array_rest="", array_task_id=9, state="RUNNING", start_s=6, nodes=("n0",)))
    jobs = {job.engine_id: job for job in world.look().jobs}
    assert jobs.keys() == {"20", "20_1", "20_9"}
    assert (jobs["20"].state, jobs["20"].tasks, jobs["20"].started_ms) == (JobState.COMPLETED, 0, None)


def test_a_requeued_job_ends_and_waits_as_submitted_anew(world: World) -> None:
    job = a_job(7, state="RUNNING", start_s=1_100, nodes=("n0",))
    world.cluster.put(job)
    world.look()
    world.cluster.put(a_job(7, submit_s=1_500, restarts=1))
    before, after = sorted(world.look().jobs, key=lambda job: job.submitted_ms)
    assert (before.state, "put it back" in before.cause) == (JobState.CANCELLED, True)
    assert (after.state, after.restarts) == (JobState.WAITING, 1)


# ---- nodes


def test_nodes_say_whether_they_take_jobs_and_why_not(world: World) -> None:
    world.cluster.most_nodes = 7
    world.cluster.node_states = {
        "n1": ("IDLE", frozenset({"DRAIN"}), "fan broken"),
        "n2": ("MIXED", frozenset({"DRAIN"}), "fan broken"),
        "n3": ("DOWN", frozenset({"NOT_RESPONDING"}), "Not responding"),
        "n4": ("IDLE", frozenset({"MAINTENANCE"}), ""),
    }
    world.cluster.kept = (
        Reservation("course", 0, 10**9, ("n5",), ("zoe",), (), ()),
        Reservation("ours", 0, 10**9, ("n6",), (USER,), (), ()),
        Reservation("later", 10**8, 10**9, ("n0",), ("zoe",), (), ()),
    )
    world.restart()
    nodes = {node.node: node for node in world.engine.capacity()}
    assert {name: (node.state, node.why_down) for name, node in nodes.items()} == {
        "n0": (NodeState.UP, ""),
        "n1": (NodeState.DRAINED, "fan broken"),
        "n2": (NodeState.DRAINING, "fan broken"),
        "n3": (NodeState.DOWN, "Not responding"),
        "n4": (NodeState.RESERVED, "maintenance"),
        "n5": (NodeState.RESERVED, "reservation course"),
        "n6": (NodeState.UP, ""),
    }
    assert (nodes["n0"].gpu_model, nodes["n0"].gpus, nodes["n0"].up, nodes["n5"].up) == ("h100", 8, True, False)


def _changed(job: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(job, **changes)
