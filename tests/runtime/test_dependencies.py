"""What holds a job back because of others, beside a reference that looks at everything anew each time."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watteau.domain.decisions import Reason
from watteau.domain.requests import After, ArraySpec, Dependency, JobId, JobState, Request
from watteau.runtime.dependencies import Dependencies, Target

ENDS = [JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED]


class Others:
    """Jobs by id, as a store has them."""

    def __init__(self) -> None:
        self.targets: dict[JobId, Target] = {}
        self.array_of: dict[JobId, JobId] = {}

    def add(self, job: int, array: int | None = None, index: int | None = None) -> JobId:
        job_id = JobId(job)
        self.targets[job_id] = Target(job_id, index, JobState.WAITING, None)
        if array is not None:
            self.array_of[job_id] = JobId(array)
        return job_id

    def find(self, job_id: JobId) -> list[Target]:
        tasks = [job for job, array in self.array_of.items() if array == job_id]
        found = tasks or [job_id]
        return [
            Target(its.job_id, its.array_index, its.state, its.began_s)
            for its in (self.targets[job] for job in found if job in self.targets)
        ]


def request(*dependencies: Dependency, **more: object) -> Request:
    return Request.model_validate({"command": ["true"], "dependencies": dependencies, **more})


def on(after: After, job: int, delay_s: int = 0) -> Dependency:
    return Dependency(after=after, job_id=job, delay_s=delay_s)


def obvious(others: Others, job: JobId, dependencies: Sequence[Dependency], mode: str, now_s: int) -> str:
    """met, wait or never: written from Slurm's words, without memory."""

    def one(dependency: Dependency) -> str:
        targets = others.find(JobId(dependency.job_id))
        if dependency.after is After.CORRESPONDING:
            targets = [its for its in targets if its.array_index == others.targets[job].array_index]
        if not targets:
            return "never"
        if dependency.after is After.BEGUN:
            begun = all(its.began_s is not None or its.state.is_end for its in targets)
            late = max((its.began_s or 0) for its in targets) + dependency.delay_s <= now_s
            return "met" if begun and late else "wait"
        bad = any(its.state.is_end and its.state is not JobState.COMPLETED for its in targets)
        ended = all(its.state.is_end for its in targets)
        if dependency.after is After.ANY:
            return "met" if ended else "wait"
        if dependency.after is After.NOT_OK:
            return ("met" if bad else "never") if ended else "wait"
        return "never" if bad else "met" if ended else "wait"

    verdicts = [one(dependency) for dependency in dependencies]
    if mode == "all":
        return "never" if "never" in verdicts else "wait" if "wait" in verdicts else "met"
    return "met" if "met" in verdicts or not verdicts else "wait" if "wait" in verdicts else "never"


@given(seed=st.integers(0, 2**32), mode=st.sampled_from(["all", "any"]))
def test_verdicts_are_those_of_the_obvious_reference(seed: int, mode: str) -> None:
    random = Random(seed)
    others = Others()
    known = Dependencies(others.find)
    jobs = []
    for number in range(1, 7):
        array = 4 if number in (4, 5, 6) else None
        job = others.add(number, array, number - 4 if array else None)
        known.add(job, None if array is None else JobId(array), number - 4 if array else None, request(), "alice")
        jobs.append(job)
    followers: dict[JobId, list[Dependency]] = {}
    for number in range(11, 14):
        chosen = [
            on(random.choice(list(After)), random.choice([1, 2, 3, 4, 5, 99]), 0) for _ in range(random.randint(1, 3))
        ]
        chosen = [
            its if its.after is not After.BEGUN else on(its.after, its.job_id, random.choice([0, 5])) for its in chosen
        ]
        job = others.add(number, 20, random.randint(0, 2))
        followers[job] = chosen
        known.add(job, JobId(20), others.targets[job].array_index, request(*chosen, dependency_mode=mode), "bob")
    now_s = 100
    for _ in range(12):
        job = random.choice(jobs)
        target = others.targets[job]
        if not target.state.is_end:
            if target.began_s is None and random.random() < 0.6:
                target.began_s = now_s
                known.begun(job, now_s)
            else:
                target.state = random.choice(ENDS)
                known.ended(job, target.state)
        now_s += random.randint(0, 4)
        for follower, chosen in followers.items():
            kept = known.verdict(follower, now_s)
            said = "met" if kept is None else "never" if kept.reason is Reason.DEPENDENCY_NEVER else "wait"
            assert said == obvious(others, follower, chosen, mode, now_s)


@given(seed=st.integers(0, 2**32), limit=st.integers(1, 3))
def test_an_array_never_has_more_tasks_admitted_than_it_allows_and_none_is_forgotten(seed: int, limit: int) -> None:
    random = Random(seed)
    known = Dependencies(lambda _: [])
    asked = request(array=ArraySpec(indices=tuple(range(8)), most_running=limit))
    tasks = [JobId(number) for number in range(1, 9)]
    for index, task in enumerate(tasks):
        known.add(task, tasks[0], index, asked, "alice")
    admitted: set[JobId] = set()
    held: set[JobId] = set()
    look = list(tasks)
    done: set[JobId] = set()
    for _ in range(200):
        while look:
            task = look.pop(0)
            if task in admitted or task in done or task in held:
                continue
            kept = known.verdict(task, 0)
            if kept is None:
                admitted.add(task)
            else:
                assert kept.reason is Reason.ARRAY_LIMIT
        assert len(admitted) <= limit
        if len(done) == len(tasks):
            break
        if admitted and random.random() < 0.7:
            task = random.choice(sorted(admitted))
            admitted.discard(task)
            if random.random() < 0.2:
                held.add(task)
                look += sorted(known.stand_back(task))
            else:
                done.add(task)
                look += sorted(known.ended(task, JobState.COMPLETED))
        elif held:
            task = held.pop()
            look.append(task)
    assert len(done) == len(tasks)


def test_a_singleton_waits_for_the_one_before_it_of_the_same_name_and_user() -> None:
    known = Dependencies(lambda _: [])
    for number, user in ((1, "alice"), (2, "alice"), (3, "bob")):
        known.add(JobId(number), None, None, request(name="nightly", singleton=True), user)
    assert known.verdict(JobId(1), 0) is None
    kept = known.verdict(JobId(2), 0)
    assert kept is not None
    assert kept.reason is Reason.DEPENDENCY
    assert known.verdict(JobId(3), 0) is None
    assert known.ended(JobId(1), JobState.FAILED) == {JobId(2)}
    assert known.verdict(JobId(2), 0) is None


def test_a_job_that_asks_for_a_delay_says_when_to_look_again() -> None:
    others = Others()
    known = Dependencies(others.find)
    first = others.add(1)
    known.add(first, None, None, request(), "alice")
    known.add(JobId(2), None, None, request(on(After.BEGUN, 1, delay_s=60)), "alice")
    others.targets[first].began_s = 100
    known.begun(first, 100)
    kept = known.verdict(JobId(2), 130)
    assert kept is not None
    assert kept.look_again_s == 160
    assert known.verdict(JobId(2), 160) is None


@pytest.mark.parametrize("state", ENDS)
def test_what_has_ended_before_is_looked_up(state: JobState) -> None:
    others = Others()
    others.targets[others.add(1)].state = state
    known = Dependencies(others.find)
    known.add(JobId(2), None, None, request(on(After.OK, 1)), "alice")
    kept = known.verdict(JobId(2), 0)
    assert (kept is None) == (state is JobState.COMPLETED)
