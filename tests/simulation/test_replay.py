"""The replay: what runs when, what a limit, a phase and an outage do, and that no node ever holds too much."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from tests.simulation.runs import ZERO_S, fleet_of, jobs_of, random_jobs, run, settled, times
from watteau.domain.decisions import Reason
from watteau.domain.jobs import Workload
from watteau.domain.policy import POLICIES
from watteau.domain.units import GPU_MILLI
from watteau.simulation.replay import Replay
from watteau.simulation.results import waiting_spans

EVERY_POLICY = pytest.mark.parametrize("policy", list(POLICIES))


def states(happened: Replay) -> list[str]:
    index, names = happened.state_of_jobs()
    return [names[i] for i in index]


def most_held(happened: Replay) -> int:
    """The most GPUs that any node held at once, recounted from the jobs alone."""
    changes: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for job in np.flatnonzero(happened.started).tolist():
        gpus = happened.shapes[happened.workload.shape[job]].gpu_milli // GPU_MILLI
        for worker in range(happened.first_worker[job], happened.first_worker[job + 1]):
            node = int(happened.worker_node[worker])
            changes[node] += [(int(happened.start_s[job]), gpus), (int(happened.end_s[job]), -gpus)]
    most = 0
    for its in changes.values():
        held = 0
        for _, change in sorted(its):  # what ends goes before what starts
            held += change
            most = max(most, held)
    return most


def check_waiting_is_explained(happened: Replay) -> None:
    """The spans of each job are exactly the time in which it waited: no gap, no overlap, nothing beyond."""
    spans = waiting_spans(happened)
    by_job: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for job, since, until in zip(spans.job.tolist(), spans.from_s.tolist(), spans.until_s.tolist(), strict=True):
        by_job[job].append((since, until))
    lost: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for job, start, end, _ in happened.lost.tolist():
        lost[job].append((start, end))
    for job in range(len(happened.workload)):
        at = int(happened.submit_s[job])
        goal: list[tuple[int, int]] = []
        for start, end in [*lost[job], (int(happened.start_s[job]), -1)]:
            if start != at:
                goal.append((at, start))
            at = end
        joined: list[tuple[int, int]] = []
        for since, until in by_job[job]:
            if joined and joined[-1][1] == since:
                joined[-1] = (joined[-1][0], until)
            else:
                joined.append((since, until))
        assert joined == goal, f"job {job}"


def test_a_job_killed_at_its_limit_is_timed_out_and_ends_at_start_plus_limit() -> None:
    happened = run(fleet_of(), jobs_of((0, 900, 8), (0, 900, 8), estimate_s=(600, 900), limit_s=(600, 900)))
    assert times(happened) == [(0, 600), (0, 900)]
    assert states(happened) == ["timed_out", "completed"]


@EVERY_POLICY
def test_an_estimate_that_is_too_low_kills_nobody(policy: str) -> None:
    happened = run(fleet_of(nodes=1), jobs_of((0, 5_000, 8), (1, 10, 8), estimate_s=(1, 1)), policy)
    assert times(happened) == [(0, 5_000), (5_000, 5_010)]
    assert states(happened) == ["completed", "completed"]


@EVERY_POLICY
def test_a_job_that_ends_in_the_second_of_its_start_lets_the_next_start_in_that_second(policy: str) -> None:
    happened = run(fleet_of(nodes=1), jobs_of((0, 0, 8), (0, 0, 8), (0, 5, 8)), policy)
    assert times(happened) == [(0, 0), (0, 0), (0, 5)]


@EVERY_POLICY
def test_a_phase_that_opens_during_the_run_starts_what_waited_for_it(policy: str) -> None:
    happened = run(fleet_of(opens={0: 1, 7_200: 3}), jobs_of((0, 60, 8), (10, 60, 32)), policy)
    assert times(happened) == [(0, 60), (7_200, 7_260)]
    check_waiting_is_explained(happened)
    assert Reason.NOT_OPEN_YET in waiting_spans(happened).reason


def test_an_outage_ends_a_job_that_overruns_and_it_runs_again_in_full() -> None:
    fleet = fleet_of(nodes=1, outages=((1_000, 5_000),))
    happened = run(fleet, jobs_of((0, 3_000, 8), estimate_s=(500,)))
    assert times(happened) == [(5_000, 8_000)]
    assert happened.lost.tolist() == [[0, ZERO_S, ZERO_S + 1_000, 0]]
    assert states(happened) == ["completed"]
    check_waiting_is_explained(happened)


def test_the_energy_of_a_lost_attempt_is_booked() -> None:
    fleet = fleet_of(nodes=1, outages=((3_600, 7_200),))
    results = settled(run(fleet, jobs_of((0, 7_200, 8), estimate_s=(500,))))
    assert results.books.job_wh.tolist() == [[7_000, 0, 7_000, 7_000]]
    assert results.books.site_wh[0, 1] == 0


def test_a_job_that_ends_as_the_outage_begins_is_not_lost() -> None:
    happened = run(fleet_of(nodes=1, outages=((1_000, 5_000),)), jobs_of((0, 1_000, 8), estimate_s=(1,)))
    assert times(happened) == [(0, 1_000)]
    assert len(happened.lost) == 0


@EVERY_POLICY
def test_no_job_starts_that_is_known_to_run_into_an_outage(policy: str) -> None:
    happened = run(fleet_of(nodes=1, outages=((1_000, 5_000),)), jobs_of((1, 1_000, 8), (2, 10, 1)), policy)
    assert times(happened)[0] == (5_000, 6_000)
    assert len(happened.lost) == 0
    check_waiting_is_explained(happened)


def test_a_job_that_two_outages_end_runs_a_third_time() -> None:
    fleet = fleet_of(nodes=1, outages=((100, 200), (300, 400)))
    happened = run(fleet, jobs_of((0, 500, 8), (5, 50, 1), estimate_s=(10, 10)))
    assert [(start - ZERO_S, end - ZERO_S) for job, start, end, _ in happened.lost.tolist() if job == 0] == [
        (0, 100),
        (200, 300),
    ]
    assert times(happened)[0] == (400, 900)
    check_waiting_is_explained(happened)


@pytest.mark.parametrize("first_s", [-50, 100])
def test_outages_that_overlap_or_touch_are_one(first_s: int) -> None:
    """Each used to open the nodes at its end, and at the zero the one that came last in the list had its way."""
    fleet = fleet_of(nodes=1, opens={-100: 1}, outages=((first_s, 300), (200, 400), (150, 250), (400, 500)))
    happened = run(fleet, jobs_of((0, 90, 8), (110, 500, 8), estimate_s=(10, 10)))
    assert times(happened) == ([(500, 590), (590, 1_090)] if first_s < 0 else [(0, 90), (500, 1_000)])
    assert len(happened.lost) == 0
    assert settled(happened).books.open_gpu_milli_s[0, 0] == 8_000 * (3_600 - 500 + max(first_s, 0))


def test_an_outage_may_send_more_jobs_back_than_the_queue_had_room_for() -> None:
    many = 18_000
    jobs = jobs_of(*((0, 1_000 + job, 1) for job in range(many)), estimate_s=(10,) * many)
    happened = run(fleet_of(nodes=many // 8, outages=((100, 200),)), jobs)
    assert len(happened.lost) == many
    assert times(happened) == [(200, 1_200 + job) for job in range(many)]


def test_the_log_holds_what_many_outages_in_a_row_say_to_a_deep_queue() -> None:
    """Each boundary changes the reason of every job that waits, and between two of them nothing else happens."""
    outages = tuple((100 * k, 100 * k + 50) for k in range(1, 9))
    many = 9_000
    jobs = jobs_of(*((1, 60, 8) for _ in range(many)), estimate_s=(1_000,) * many)
    happened = run(fleet_of(nodes=1, outages=outages), jobs, "easy")
    assert len(happened.logged) > 16 * many
    assert happened.started.all()


@EVERY_POLICY
def test_an_end_beyond_the_wheel_of_the_clock_comes_on_time(policy: str) -> None:
    year = 365 * 86_400
    happened = run(fleet_of(nodes=1), jobs_of((0, year, 8), (5, 3 * year, 8), (6, 7, 8)), policy)
    assert times(happened) == [(0, year), (year, 4 * year), (4 * year, 4 * year + 7)]


def test_an_outage_ends_a_job_whose_end_lies_beyond_the_wheel() -> None:
    year = 365 * 86_400
    happened = run(fleet_of(nodes=1, outages=((1_000, 2_000),)), jobs_of((0, year, 8), estimate_s=(10,)))
    assert times(happened) == [(2_000, 2_000 + year)]


@EVERY_POLICY
@pytest.mark.parametrize("seed", range(6))
def test_no_node_ever_holds_more_than_it_has_and_all_waiting_is_explained(policy: str, seed: int) -> None:
    fleet = fleet_of(opens={0: 2, 3_000: 3}, outages=((8_000, 9_000), (15_000, 16_000)))
    workload = random_jobs(seed, 300, 40)
    happened = run(fleet, workload, policy)
    assert most_held(happened) <= 8
    check_waiting_is_explained(happened)
    too_large = workload.gpu_milli() > 40 * GPU_MILLI
    assert np.array_equal(~happened.started, too_large)
    assert {Reason(code) for code in happened.reason[too_large].tolist()} == {Reason.EXCEEDS_MAXIMUM}
    served = (happened.end_s - happened.start_s)[~too_large]
    assert np.array_equal(served, workload.served_s()[~too_large])
    assert (happened.start_s >= happened.submit_s)[~too_large].all()


@pytest.mark.parametrize("seed", range(4))
def test_the_jobs_idle_and_overhead_add_up_to_the_meter(seed: int) -> None:
    fleet = fleet_of(opens={0: 2, 3_000: 3}, outages=((8_000, 9_000),))
    books = settled(run(fleet, random_jobs(seed, 300, 40))).books
    assert np.array_equal(books.job_wh + books.idle_wh + books.overhead_wh, books.site_wh)
    assert books.attempt_wh.sum() == books.job_wh.sum()


def test_a_workload_without_jobs_ends_at_its_zero() -> None:
    happened = run(fleet_of(), jobs_of())
    assert happened.last_end_s == ZERO_S
    assert settled(happened).books.hours == 1


def test_a_fleet_without_power_starts_nothing_and_says_so() -> None:
    fleet = fleet_of()
    fleet = replace(fleet, sites=(replace(fleet.sites[0], power_limit_kw=0),))
    happened = run(fleet, jobs_of((0, 10, 1), (5, 10, 8)))
    assert not happened.started.any()
    assert happened.reason.tolist() == [Reason.SITE_POWER, Reason.SITE_POWER]
    books = settled(happened).books
    assert (int(books.site_wh.sum()), int(books.open_gpu_milli_s.sum())) == (0, 0)


def test_tenants_that_the_fleet_lacks_become_children_of_its_root() -> None:
    workload: Workload = replace(jobs_of((0, 10, 1), (0, 10, 1)), tenants=("root", "new"))
    workload = replace(workload, tenant=np.array([1, 0], dtype=np.int32))
    happened = run(fleet_of(), workload)
    names = [tenant.id for _, tenant in happened.fleet.tenants.walk()]
    assert [names[index] for index in happened.tenant.tolist()] == ["new", "root"]
    assert times(happened) == [(0, 10), (0, 10)]
