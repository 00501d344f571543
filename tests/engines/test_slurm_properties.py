"""Whatever happens in whatever order: no command runs twice, and what is said of its end is what happened."""

from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.engines.fake_slurm import FakeSlurm, Fault
from tests.engines.kits import launch, slurm_engine
from watteau.domain.requests import Outcome
from watteau.engines.contract import EngineUnreachable, LaunchRefused, Observation, Seen, WorkerPlace, attempt_name
from watteau.engines.slurm.engine import SlurmEngine

_NAMES = [attempt_name(job_id, 1) for job_id in range(1, 4)]
_names = st.sampled_from(_NAMES)
_faults: st.SearchStrategy[list[Fault]] = st.lists(st.sampled_from(["unreachable", "cut", "lost", "late"]), max_size=2)


class OneRunEach(RuleBasedStateMachine):
    """A controller that repeats its commands until they are answered, and a cluster that forgets, doubles and requeues.

    `came_to` is what each command came to; `told` is what the engine said. A controller starts a name again only after
    it heard that it is absent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ms = 1_000_000_000
        self.cluster = FakeSlurm(lambda: self.ms)
        self.engine = self._open()
        self.wanted: set[str] = set()  # started, and not heard to have ended
        self.stopped: set[str] = set()
        #: Of two jobs the second was cancelled, the first forgotten: who comes later sees one that was cancelled.
        self.unlucky: set[str] = set()
        self.told: dict[str, list[Observation]] = {name: [] for name in _NAMES}
        self.came_to: dict[str, tuple[int | None, int | None]] = {}

    def _open(self) -> SlurmEngine:
        return slurm_engine(self.cluster, "/shared", lambda: self.ms, poll_s=3_600)

    def teardown(self) -> None:
        self.engine.close()

    # ---- what Watteau does

    @rule(name=_names, faults=_faults)
    def start(self, name: str, faults: list[Fault]) -> None:
        if name in self.stopped or self._has_ended(name):
            return
        self.wanted.add(name)
        self.cluster.faults.extend(faults)
        self._repeat(lambda: self.engine.start(_attempt(name)))
        self.cluster.faults.clear()

    @rule(name=_names)
    def stop(self, name: str) -> None:
        if self._has_ended(name):
            return
        self.stopped.add(name)
        self._repeat(lambda: self.engine.stop(name, Outcome.CANCELLED))
        self.wanted.add(name)

    @rule(seconds=st.integers(0, 100))
    def look(self, seconds: int) -> None:
        self.ms += 1_000 * seconds
        self.engine.leftovers(())
        self._hear(self.engine.changes())

    @rule()
    def restart(self) -> None:
        with suppress(EngineUnreachable):
            self._hear(self.engine.changes())
        self.engine.close()
        self.engine = self._open()
        live = sorted(name for name in self.wanted if not self._has_ended(name))
        for said in self.engine.adopt(live):
            if said.seen is Seen.ABSENT and said.name not in self.stopped:
                self.start(said.name, [])
            elif said.seen is Seen.ABSENT:
                self.stop(said.name)
            else:
                self._hear([said])

    # ---- what happens at the site

    @rule()
    def late_requests_arrive(self) -> None:
        self.cluster.arrive()

    @rule(data=st.data())
    def a_job_begins(self, data: st.DataObject) -> None:
        job = self._draw(data, "PENDING")
        if job is not None:
            self.cluster.begin(job.job_id)

    @rule(data=st.data(), code=st.integers(0, 3))
    def a_job_ends(self, data: st.DataObject, code: int) -> None:
        job = self._draw(data, "RUNNING")
        if job is not None:
            self.came_to[job.name] = (code, None)
            self.cluster.end(job.job_id, code)

    @rule(data=st.data())
    def a_job_is_requeued(self, data: st.DataObject) -> None:
        job = self._draw(data, "RUNNING")
        if job is not None:
            self.cluster.requeue(job.job_id)

    @rule(data=st.data(), code=st.integers(0, 3), ends=st.booleans())
    def slurmctld_forgets_a_job(self, data: st.DataObject, code: int, ends: bool) -> None:
        job = self._draw(data, "RUNNING" if ends else "PENDING")
        if job is not None:
            if ends:
                self.came_to[job.name] = (code, None)
            if any(other.state == "CANCELLED" for other in self.cluster.all_of(job.name)):
                self.unlucky.add(job.name)
            self.cluster.forget(job.job_id, ends=(code, None) if ends else None)

    @rule()
    def min_job_age_is_over(self) -> None:
        self.cluster.purge()

    @precondition(lambda self: self.wanted)
    @rule()
    def the_site_is_silent_for_a_while(self) -> None:
        self.cluster.silence = "slurmctld is down"
        for _ in range(2):
            with suppress(EngineUnreachable):
                self.engine.leftovers(())
        self.cluster.silence = ""
        self.engine.leftovers(())  # as the site's own thread does, again and again

    # ---- what must be true

    @invariant()
    def no_command_ran_twice(self) -> None:
        assert len(self.cluster.ran) == len(set(self.cluster.ran)), self.cluster.ran

    @invariant()
    def each_ends_once_as_it_did(self) -> None:
        for name, said in self.told.items():
            ends = [each for each in said if each.seen is Seen.ENDED]
            assert len(ends) <= 1, ends
            for end in ends:
                if name in self.came_to and end.outcome is not Outcome.CANCELLED:
                    code, number = self.came_to[name]
                    assert end.outcome is (Outcome.COMPLETED if code == 0 else Outcome.FAILED), (name, end)
                    assert (end.exit_code, end.signal) == (code, number)
                elif end.outcome is Outcome.CANCELLED:
                    assert name in self.stopped | self.unlucky
                else:
                    assert end.outcome is Outcome.LOST, (name, end)

    # ---- helpers

    def _repeat(self, command: Any) -> None:
        """As the site's thread does: until it is answered."""
        for _ in range(6):
            try:
                command()
                return
            except EngineUnreachable:
                self.ms += 10_000
            except LaunchRefused as refused:
                raise AssertionError("nothing is refused here") from refused
        raise AssertionError("the site answers, and the command is never carried out")

    def _hear(self, said: list[Observation]) -> None:
        for each in said:
            self.told[each.name].append(each)
            if each.seen is Seen.ABSENT and not self._has_ended(each.name):
                if each.name in self.stopped:
                    self.stop(each.name)
                else:
                    self.start(each.name, [])

    def _has_ended(self, name: str) -> bool:
        return any(said.seen is Seen.ENDED for said in self.told[name])

    def _draw(self, data: st.DataObject, state: str) -> Any:
        jobs = [job for job in self.cluster.jobs(None).jobs if job.state == state]  # type: ignore[union-attr]
        # A tombstone runs nothing.
        jobs = [job for job in jobs if self.cluster._runs[job.job_id].what]
        return data.draw(st.sampled_from(jobs)) if jobs else None


def _attempt(name: str) -> Any:
    job_id = int(name.split("-")[1])
    return launch(job_id, "sleep", "600", places=(WorkerPlace("n0", ()),))


TestOneRunEach = OneRunEach.TestCase
TestOneRunEach.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
