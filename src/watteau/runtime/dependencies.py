"""What keeps a job out of the queue because of other jobs: dependencies, an array's limit, and singletons.

The words are Slurm's (sbatch --dependency, --array %limit).
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from watteau.domain.decisions import Reason
from watteau.domain.requests import After, Dependency, JobId, JobState, Request


@dataclass(slots=True)
class Target:
    """A job that others depend on, ended or not."""

    job_id: JobId
    array_index: int | None
    state: JobState
    began_s: int | None


@dataclass(frozen=True, slots=True)
class Kept:
    """Why a job may not wait for a place yet. `look_again_s`: the time alone may change that."""

    reason: Reason
    detail: str
    look_again_s: int | None = None


@dataclass(slots=True)
class _Known:
    job_id: JobId
    array_id: JobId | None
    array_index: int | None
    request: Request
    key: tuple[str, str]  # of a singleton: name and user


#: Finds a job, or all tasks of the array whose first task it is, in the store; empty when there is none.
LookUp = Callable[[JobId], Iterable[Target]]

_MET, _WAIT, _NEVER = range(3)


class Dependencies:
    """Knows every job that has not ended, and of ended ones those that somebody still waits for."""

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._jobs: dict[JobId, _Known] = {}
        self._dependents: dict[JobId, set[JobId]] = defaultdict(set)  # by the id that the request names
        self._targets: dict[JobId, dict[JobId, Target]] = {}
        self._same: dict[tuple[str, str], list[JobId]] = defaultdict(list)  # a heap, with ended ones in it
        self._admitted: dict[JobId, set[JobId]] = defaultdict(set)  # by array: tasks in the queue or running
        self._refused: dict[JobId, list[JobId]] = defaultdict(list)  # a heap: tasks that wait for the array's limit

    def add(self, job: JobId, array_id: JobId | None, array_index: int | None, request: Request, user: str) -> None:
        """A job that has not ended."""
        known = _Known(job, array_id, array_index, request, (request.name, user))
        self._jobs[job] = known
        for dependency in request.dependencies:
            self._dependents[dependency.job_id].add(job)  # type: ignore[index]
        heapq.heappush(self._same[known.key], job)

    def begun(self, job_id: JobId, at_s: int) -> None:
        """The job runs; one of an array counts against its limit."""
        known = self._jobs.get(job_id)
        if known is not None and known.array_id is not None:
            self._admitted[known.array_id].add(job_id)
        for target in self._as_target(job_id):
            target.began_s = at_s

    def ended(self, job_id: JobId, state: JobState) -> set[JobId]:
        """The job has ended; returns the jobs that may be concerned."""
        for target in self._as_target(job_id):
            target.state = state
        known = self._jobs.pop(job_id, None)
        if known is None:
            return set()
        concerned = self.dependents(job_id, known.array_id) | self._slot_free(known)
        for dependency in known.request.dependencies:
            its = self._dependents[dependency.job_id]  # type: ignore[index]
            its.discard(job_id)
            if not its:
                del self._dependents[dependency.job_id]  # type: ignore[arg-type]
                self._targets.pop(dependency.job_id, None)  # type: ignore[call-overload]
        same = self._same[known.key]
        while same and same[0] not in self._jobs:
            heapq.heappop(same)
        if same:
            concerned.add(same[0])
        else:
            del self._same[known.key]
        return concerned

    def stand_back(self, job_id: JobId) -> set[JobId]:
        """The job is held: its place under the array's limit goes to others, who are returned."""
        return self._slot_free(self._jobs[job_id])

    def dependents(self, job_id: JobId, array_id: JobId | None) -> set[JobId]:
        """The jobs that wait for something of this one, or of the array it belongs to."""
        found = set(self._dependents.get(job_id, ()))
        if array_id is not None:
            found |= self._dependents.get(array_id, set())
        return found

    def verdict(self, job_id: JobId, now_s: int) -> Kept | None:
        """Why the job may not wait for a place yet; None when it may, and then its array has one place less."""
        known = self._jobs[job_id]
        kept = self._dependency_verdict(known, now_s)
        if kept is not None:
            return kept
        if known.request.singleton:
            first = self._first_of(known.key)
            if first != job_id:
                return Kept(Reason.DEPENDENCY, f"job {first} of the same name and user comes first")
        limit = known.request.array.most_running if known.request.array and known.array_id is not None else None
        if limit is not None and known.array_id is not None:
            admitted = self._admitted[known.array_id]
            if job_id not in admitted:
                if len(admitted) >= limit:
                    heapq.heappush(self._refused[known.array_id], job_id)
                    return Kept(Reason.ARRAY_LIMIT, f"{limit} tasks at once")
                admitted.add(job_id)
        return None

    def _dependency_verdict(self, known: _Known, now_s: int) -> Kept | None:
        request = known.request
        if not request.dependencies:
            return None
        looked = [self._of(dependency, known, now_s) for dependency in request.dependencies]
        states = [state for state, _, _ in looked]
        any_is_enough = request.dependency_mode == "any"
        if (_MET in states) if any_is_enough else all(state == _MET for state in states):
            return None
        waiting = [(detail, again_s) for state, detail, again_s in looked if state == _WAIT]
        if (not waiting) if any_is_enough else (_NEVER in states):
            return Kept(Reason.DEPENDENCY_NEVER, next(detail for state, detail, _ in looked if state == _NEVER))
        again = [again_s for _, again_s in waiting if again_s is not None]
        more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        return Kept(Reason.DEPENDENCY, waiting[0][0] + more, min(again, default=None))

    def _of(self, dependency: Dependency, known: _Known, now_s: int) -> tuple[int, str, int | None]:
        targets = list(self._find(JobId(dependency.job_id)).values())
        if dependency.after is After.CORRESPONDING:
            targets = [target for target in targets if target.array_index == known.array_index]
        name = f"job {dependency.job_id}"
        if not targets:
            return _NEVER, f"there is no {name}", None
        if dependency.after is After.BEGUN:
            if any(target.began_s is None and not target.state.is_end for target in targets):
                return _WAIT, f"{name} has not begun", None
            from_s = max((target.began_s or 0) for target in targets) + dependency.delay_s
            return (_MET, "", None) if from_s <= now_s else (_WAIT, f"{name} began less long ago than asked", from_s)
        failed = [target for target in targets if target.state.is_end and target.state is not JobState.COMPLETED]
        all_ended = all(target.state.is_end for target in targets)
        if dependency.after in (After.OK, After.CORRESPONDING) and failed:
            return _NEVER, f"{name} ended as {failed[0].state}", None
        if not all_ended:
            return _WAIT, f"{name} has not ended", None
        if dependency.after is After.NOT_OK and not failed:
            return _NEVER, f"{name} completed", None
        return _MET, "", None

    def _find(self, job_id: JobId) -> dict[JobId, Target]:
        if job_id not in self._targets:
            self._targets[job_id] = {target.job_id: target for target in self._look_up(job_id)}
        return self._targets[job_id]

    def _as_target(self, job_id: JobId) -> list[Target]:
        known = self._jobs.get(job_id)
        names = {job_id} | ({known.array_id} if known and known.array_id is not None else set())
        return [found[job_id] for name in names if job_id in (found := self._targets.get(name, {}))]

    def _first_of(self, key: tuple[str, str]) -> JobId:
        same = self._same[key]
        while same[0] not in self._jobs:
            heapq.heappop(same)
        return same[0]

    def _slot_free(self, known: _Known) -> set[JobId]:
        if known.array_id is None or known.job_id not in self._admitted.get(known.array_id, ()):
            return set()
        self._admitted[known.array_id].discard(known.job_id)
        refused = self._refused[known.array_id]
        while refused and refused[0] not in self._jobs:
            heapq.heappop(refused)
        if refused:
            return {heapq.heappop(refused)}
        if not self._admitted[known.array_id]:
            del self._admitted[known.array_id]
            del self._refused[known.array_id]
        return set()
