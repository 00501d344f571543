"""FIFO, EASY and conservative backfilling on P interchangeable processors, as the textbook has them.

Written from Mu'alem and Feitelson, "Utilization, Predictability, Workloads, and User Runtime Estimates in Scheduling
the IBM SP2 with Backfilling", IEEE TPDS 12(6), 2001, and from nothing else; in plain Python, to be read rather than
to be fast.

What the paper leaves open is decided here, the same for all three:

- Time is whole seconds. All events of one second belong together: ends first, then arrivals, then one scheduling
  pass over the waiting jobs in arrival order (ties by job id).
- A job holds its processors in [start, start + runtime). One that runs 0 s starts and ends in the same second: it
  holds its processors for the rest of that pass, and its end is the cause of a further pass at the same second.
- A scheduler knows a running job's expected end, start + estimate, never its runtime.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import groupby
from typing import NamedTuple


class Job(NamedTuple):
    """What a textbook job is. `estimate_s` is at least 1 and at least `runtime_s`."""

    job_id: int
    submit_s: int
    runtime_s: int
    estimate_s: int
    processors: int


#: Anything that unpacks as a Job.
JobLike = tuple[int, int, int, int, int]


def fifo(jobs: Iterable[JobLike], processors: int) -> dict[int, int]:
    """Start of each job when nothing overtakes: the head of the queue starts when it fits, and only then the next."""
    starts: dict[int, int] = {}
    free = processors
    waiting: list[Job] = []
    running = _Ends()
    arrivals = _Arrivals(_checked(jobs, processors))
    while (now := _earliest(arrivals.next_s(), running.next_s())) is not None:
        free += sum(job.processors for job in running.ended(now))
        waiting += arrivals.arrived(now)

        while waiting and waiting[0].processors <= free:
            job = waiting.pop(0)
            starts[job.job_id] = now
            free -= job.processors
            running.add(now, job)
    return starts


def easy(jobs: Iterable[JobLike], processors: int) -> dict[int, int]:
    """Start of each job under EASY: only the head holds a reservation, others may overtake if they do not delay it.

    The head's reservation is worked out again in every pass. Its *shadow time* is when, by the estimates, enough
    running jobs have ended for it; the *extra* processors are those that it leaves over at that time. A waiting job
    that fits now is backfilled, in queue order, if it ends by the shadow time or needs no more than the extra
    processors (and then they are fewer).
    """
    starts: dict[int, int] = {}
    free = processors
    waiting: list[Job] = []
    running = _Ends()
    expected_ends: list[tuple[int, int, int]] = []  # (start + estimate, job id, processors), sorted
    arrivals = _Arrivals(_checked(jobs, processors))
    while (now := _earliest(arrivals.next_s(), running.next_s())) is not None:
        for job in running.ended(now):
            free += job.processors
            expected_ends.remove((starts[job.job_id] + job.estimate_s, job.job_id, job.processors))
        waiting += arrivals.arrived(now)

        started: list[Job] = []
        while waiting and waiting[0].processors <= free:
            job = waiting.pop(0)
            started.append(job)
            free -= job.processors
            insort(expected_ends, (now + job.estimate_s, job.job_id, job.processors))

        if waiting:
            shadow_s, extra = _shadow(waiting[0].processors, free, expected_ends)
            for job in waiting[1:]:
                if free == 0:
                    break
                ends_in_time = now + job.estimate_s <= shadow_s
                if job.processors <= free and (ends_in_time or job.processors <= extra):
                    started.append(job)
                    free -= job.processors
                    if not ends_in_time:
                        extra -= job.processors
                    insort(expected_ends, (now + job.estimate_s, job.job_id, job.processors))

        for job in started:
            starts[job.job_id] = now
            running.add(now, job)
        gone = {job.job_id for job in started}
        if gone:
            waiting = [job for job in waiting if job.job_id not in gone]
    return starts


def conservative(jobs: Iterable[JobLike], processors: int) -> dict[int, int]:
    """Start of each job when every job is given, as it arrives, the earliest place that delays nobody before it.

    When jobs end before their estimate, the schedule is compressed, once in that second and before the arrivals:
    in arrival order each waiting job gives its reservation up and takes the earliest one there is, which is never
    later than the one it gave up.
    """
    starts: dict[int, int] = {}
    reserved_s: dict[int, int] = {}
    waiting: list[Job] = []
    running = _Ends()
    profile = _Profile(processors)
    arrivals = _Arrivals(_checked(jobs, processors))
    while (now := _earliest(arrivals.next_s(), running.next_s(), min(reserved_s.values(), default=None))) is not None:
        profile.forget_before(now)

        ended_early = False
        for job in running.ended(now):
            expected_end_s = starts[job.job_id] + job.estimate_s
            if now < expected_end_s:
                profile.give_back(now, expected_end_s, job.processors)
                ended_early = True
        if ended_early:
            for job in waiting:
                before_s = reserved_s[job.job_id]
                profile.give_back(before_s, before_s + job.estimate_s, job.processors)
                reserved_s[job.job_id] = profile.reserve_earliest(job.estimate_s, job.processors)
                assert reserved_s[job.job_id] <= before_s, "compression made a promise worse"

        for job in arrivals.arrived(now):
            waiting.append(job)
            reserved_s[job.job_id] = profile.reserve_earliest(job.estimate_s, job.processors)

        due = [job for job in waiting if reserved_s[job.job_id] == now]
        for job in due:
            starts[job.job_id] = now
            running.add(now, job)
            del reserved_s[job.job_id]
        if due:
            waiting = [job for job in waiting if job.job_id in reserved_s]
    return starts


def _shadow(wanted: int, free: int, expected_ends: Sequence[tuple[int, int, int]]) -> tuple[int, int]:
    """When `wanted` processors will be free by the estimates, and how many more than that are free then."""
    # All jobs that are expected to end in one second count before the extra processors are worked out.
    for end_s, same_end in groupby(expected_ends, key=lambda entry: entry[0]):
        free += sum(count for _, _, count in same_end)
        if free >= wanted:
            return end_s, free - wanted
    raise AssertionError("the head is larger than the machine")


class _Profile:
    """Free processors over time, as sorted breakpoints: `free[i]` holds in [times[i], times[i + 1])."""

    def __init__(self, processors: int) -> None:
        self.times = [0]
        self.free = [processors]

    def forget_before(self, now: int) -> None:
        """The profile begins at `now`."""
        past = bisect_right(self.times, now) - 1
        del self.times[:past], self.free[:past]
        self.times[0] = now

    def reserve_earliest(self, duration_s: int, wanted: int) -> int:
        """Take `wanted` processors for the whole duration as early as they can be had; the start."""
        start = 0
        at = 0
        while at < len(self.times) and self.times[at] < self.times[start] + duration_s:
            if self.free[at] < wanted:
                start = at + 1
            at += 1
        start_s = self.times[start]
        self._change(start_s, start_s + duration_s, -wanted)
        return start_s

    def give_back(self, start_s: int, end_s: int, count: int) -> None:
        """Free processors again in [start_s, end_s)."""
        self._change(start_s, end_s, count)

    def _change(self, start_s: int, end_s: int, by: int) -> None:
        first = self._breakpoint(start_s)
        last = self._breakpoint(end_s)
        for at in range(first, last):
            self.free[at] += by
        for at in (last, first):  # a breakpoint where nothing changes is no breakpoint
            if at > 0 and self.free[at] == self.free[at - 1]:
                del self.times[at], self.free[at]

    def _breakpoint(self, time_s: int) -> int:
        at = bisect_left(self.times, time_s)
        if at == len(self.times) or self.times[at] != time_s:
            self.times.insert(at, time_s)
            self.free.insert(at, self.free[at - 1])
        return at


class _Arrivals:
    """The jobs still to come."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._coming = sorted(jobs, key=lambda job: (job.submit_s, job.job_id), reverse=True)

    def next_s(self) -> int | None:
        return self._coming[-1].submit_s if self._coming else None

    def arrived(self, now: int) -> Iterator[Job]:
        while self._coming and self._coming[-1].submit_s <= now:
            yield self._coming.pop()


class _Ends:
    """The real ends of running jobs, which the simulator knows and the scheduler does not."""

    def __init__(self) -> None:
        self._ends: list[tuple[int, Job]] = []

    def add(self, start_s: int, job: Job) -> None:
        heappush(self._ends, (start_s + job.runtime_s, job))

    def next_s(self) -> int | None:
        return self._ends[0][0] if self._ends else None

    def ended(self, now: int) -> Iterator[Job]:
        while self._ends and self._ends[0][0] <= now:
            yield heappop(self._ends)[1]


def _earliest(*times: int | None) -> int | None:
    return min((time for time in times if time is not None), default=None)


def _checked(jobs: Iterable[JobLike], processors: int) -> list[Job]:
    checked = [Job(*job) for job in jobs]
    if len({job.job_id for job in checked}) != len(checked):
        raise ValueError("job ids must be unique")
    for job in checked:
        if not 1 <= job.processors <= processors:
            raise ValueError(f"job {job.job_id} wants {job.processors} of {processors} processors")
        if job.submit_s < 0 or job.runtime_s < 0 or job.estimate_s < max(1, job.runtime_s):
            raise ValueError(f"job {job.job_id}: times are not negative, and an estimate covers the run time and 1 s")
    return checked
