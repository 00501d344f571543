"""Three hundred jobs of every kind that a site sees, and what must have become of each in the end."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from watteau.domain.people import User
from watteau.domain.records import EventKind, JobRecord
from watteau.domain.requests import After, ArraySpec, Dependency, JobId, JobState, Outcome, Request
from watteau.domain.units import TenantId
from watteau.store.store import Store

_CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Expected:
    """The end of one job; `runs` is how many times its script may have begun."""

    key: str
    state: JobState
    exit_code: int | None
    signal: int | None = None
    runs: tuple[int, ...] = (1,)
    log: str | None = None  # all of it; None: not compared


@dataclass
class Mixed:
    """The jobs, as submitted: `runs` is a file that every node sees, to which each begun script adds a line."""

    store: Store
    user: User
    tenant: TenantId
    runs: Path
    random: Random
    expected: dict[JobId, Expected] = field(default_factory=dict)
    to_cancel: list[JobId] = field(default_factory=list)
    _number: int = 0

    def submit(self, now_ms: int, sites: tuple[str, ...]) -> None:
        """About three hundred jobs, in the order in which they are drawn."""
        makers = (
            [self._simple] * 100
            + [self._array] * 12  # of five tasks each
            + [self._gang] * 16
            + [self._depends] * 12  # two jobs each
            + [self._fails] * 36
            + [self._is_killed] * 14
            + [self._is_cancelled] * 24
            + [self._is_limited] * 14
            + [self._never] * 6  # two jobs each
        )
        self.random.shuffle(makers)
        for maker in makers:
            where = self.random.choice([(), (), sites[:1], sites[1:2], sites[2:3]])
            maker(now_ms, where)

    def _give(self, now_ms: int, key: str, body: str, **more: object) -> list[JobId]:
        script = f'#!/bin/bash\necho "{key}${{WATTEAU_ARRAY_INDEX:-}}" >> {self.runs}\n{body}\n'
        fields = {"cpu_milli": 1000, "gpu_milli": self.random.choice([0, 0, 1000, 2000]), "time_limit_s": 600} | more
        request = Request(name=key, script=script, **fields)
        records = self.store.submit([(request, self.tenant)], self.user, now_ms)
        return [record.job_id for record in records]

    def _key(self, kind: str) -> str:
        self._number += 1
        return f"{kind}-{self._number:03d}"

    def _simple(self, now_ms: int, sites: tuple[str, ...]) -> JobId:
        key = self._key("simple")
        seconds = self.random.choice([0, 0.1, 0.5, 1, 2])
        (job_id,) = self._give(now_ms, key, f"sleep {seconds}; echo done {key}", sites=sites)
        self.expected[job_id] = Expected(key, JobState.COMPLETED, 0, log=f"done {key}\n")
        return job_id

    def _array(self, now_ms: int, sites: tuple[str, ...]) -> None:
        key = self._key("array")
        array = ArraySpec(indices=tuple(range(5)), most_running=self.random.choice([None, 2]))
        tasks = self._give(
            now_ms, key, "echo task $WATTEAU_ARRAY_INDEX; exit $WATTEAU_ARRAY_INDEX", sites=sites, array=array
        )
        for index, job_id in enumerate(tasks):
            state = JobState.FAILED if index else JobState.COMPLETED
            self.expected[job_id] = Expected(f"{key}{index}", state, index, log=f"task {index}\n")

    def _gang(self, now_ms: int, sites: tuple[str, ...]) -> None:
        """Five GPUs for each of two workers are two nodes."""
        key = self._key("gang")
        body = 'echo "$SLURM_JOB_NUM_NODES nodes"; sleep 0.3'
        (job_id,) = self._give(now_ms, key, body, sites=sites, workers=2, gpu_milli=5000)
        self.expected[job_id] = Expected(key, JobState.COMPLETED, 0, log="2 nodes\n")

    def _depends(self, now_ms: int, sites: tuple[str, ...]) -> None:
        first = self._simple(now_ms, sites)
        key = self._key("after")
        # The first one's line must be there before the second one looks.
        body = f"grep -qx {self.expected[first].key} {self.runs} && echo after {key}"
        needs = (Dependency(after=After.OK, job_id=first),)
        (job_id,) = self._give(now_ms, key, body, dependencies=needs)
        self.expected[job_id] = Expected(key, JobState.COMPLETED, 0, log=f"after {key}\n")

    def _never(self, now_ms: int, sites: tuple[str, ...]) -> None:
        key = self._key("fails")
        (first,) = self._give(now_ms, key, "exit 9", sites=sites)
        self.expected[first] = Expected(key, JobState.FAILED, 9)
        key = self._key("never")
        needs = (Dependency(after=After.OK, job_id=first),)
        (job_id,) = self._give(now_ms, key, "echo not to be", dependencies=needs)
        self.expected[job_id] = Expected(key, JobState.UNSCHEDULABLE, None, runs=(0,))

    def _fails(self, now_ms: int, sites: tuple[str, ...]) -> None:
        key, code = self._key("fails"), self.random.randint(1, 100)
        (job_id,) = self._give(now_ms, key, f"echo to stderr >&2; exit {code}", sites=sites)
        self.expected[job_id] = Expected(key, JobState.FAILED, code, log="to stderr\n")

    def _is_killed(self, now_ms: int, sites: tuple[str, ...]) -> None:
        key = self._key("killed")
        (job_id,) = self._give(now_ms, key, "echo before; kill -9 $$", sites=sites)
        self.expected[job_id] = Expected(key, JobState.FAILED, None, 9, log="before\n")

    def _is_cancelled(self, now_ms: int, sites: tuple[str, ...]) -> None:
        key = self._key(_CANCELLED)
        (job_id,) = self._give(now_ms, key, "sleep 600", sites=sites)
        self.expected[job_id] = Expected(key, JobState.CANCELLED, None, runs=(0, 1))
        self.to_cancel.append(job_id)

    def _is_limited(self, now_ms: int, sites: tuple[str, ...]) -> None:
        key = self._key("limited")
        (job_id,) = self._give(now_ms, key, "echo begun; sleep 600", sites=sites, time_limit_s=2)
        self.expected[job_id] = Expected(key, JobState.TIMED_OUT, None, log="begun\n")

    def cancel_some(self, now_ms: int, share: float) -> None:
        """Cancel some of those that are to be cancelled, wherever they are by now."""
        self.random.shuffle(self.to_cancel)
        for _ in range(round(len(self.to_cancel) * share)):
            self.store.ask([self.to_cancel.pop()], EventKind.CANCEL_REQUESTED, self.user, now_ms)

    def faults(self, jobs: dict[JobId, JobRecord], *, may_be_lost: bool) -> list[str]:
        """What is not as it must be, a line each; `may_be_lost`: attempts, when a slurmctld was killed."""
        lines = self.runs.read_text().split() if self.runs.exists() else []
        begun, wrong = Counter(lines), []
        for job_id, its in self.expected.items():
            job = jobs.get(job_id)
            if job is None:
                wrong.append(f"{its.key}: job {job_id} is gone")
            elif job.state is not its.state:
                wrong.append(f"{its.key}: job {job_id} is {job.state} ({job.detail}), not {its.state}")
            elif its.state in (JobState.COMPLETED, JobState.FAILED) and (job.exit_code, job.signal) != (
                its.exit_code,
                its.signal,
            ):
                wrong.append(f"{its.key}: exit code {job.exit_code}, signal {job.signal}")
            attempts = self.store.attempts(job_id)
            lost = [attempt for attempt in attempts if attempt.outcome is Outcome.LOST]
            if lost and not may_be_lost:
                wrong.append(f"{its.key}: job {job_id} was lost: {lost[0].cause}")
            # One that was lost may have begun, and each has begun once at most.
            if not its.runs[0] <= begun[its.key] <= its.runs[-1] + len(lost):
                wrong.append(f"{its.key}: job {job_id} ran {begun[its.key]} times in {len(attempts)} attempts")
            ends = [event for event in self.store.story(job_id) if event.kind is EventKind.FINISHED]
            if len(ends) != 1:
                wrong.append(f"{its.key}: job {job_id} finished {len(ends)} times")
        wrong += [
            f"{key} ran and nobody submitted it" for key in begun.keys() - {its.key for its in self.expected.values()}
        ]
        return wrong
