"""The two figures that the literature compares schedulers by."""

from collections.abc import Iterable, Mapping

from tests.reference.textbook import JobLike

#: Below this a run time says nothing (Feitelson's usual bound of the bounded slowdown).
SLOWDOWN_BOUND_S = 10


def mean_wait_s(jobs: Iterable[JobLike], starts: Mapping[int, int]) -> float:
    """Mean seconds from submission to start."""
    waits = [starts[job_id] - submit_s for job_id, submit_s, _, _, _ in jobs]
    return sum(waits) / len(waits)


def mean_bounded_slowdown(jobs: Iterable[JobLike], starts: Mapping[int, int]) -> float:
    """Mean of max(1, (wait + run) / max(run, 10 s))."""
    slowdowns = [
        max(1.0, (starts[job_id] - submit_s + runtime_s) / max(runtime_s, SLOWDOWN_BOUND_S))
        for job_id, submit_s, runtime_s, _, _ in jobs
    ]
    return sum(slowdowns) / len(slowdowns)
