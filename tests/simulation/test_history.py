"""A site's own jobs become a workload: which of them, when they arrive, what they need, whose they are."""

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watteau.domain.errors import InputError
from watteau.domain.fleet import Fleet, Phase, Pool, Pue
from watteau.domain.jobs import NO_LIMIT_S, Shape, Workload
from watteau.domain.requests import JobState
from watteau.domain.sites import Held, SiteJob
from watteau.domain.units import PoolId, SiteId, TenantId, from_epoch_s
from watteau.engines.contract import SharedEngine
from watteau.simulation.history import by_day, gpus_there, workload_of
from watteau.simulation.results import recorded_figures
from watteau.workload.scale import compress_to_load

PARIS, MULHOUSE = SiteId("paris"), SiteId("mulhouse")
NOON_MS = 1_772_452_800_000  # 2026-03-02T12:00Z

JOB = SiteJob(
    site=PARIS,
    engine_id="100",
    submitted_ms=NOON_MS,
    name="train",
    user="ann",
    account="lab",
    tenant=TenantId("physics"),
    partition="normal",
    state=JobState.COMPLETED,
    reason="",
    tasks=1,
    workers=2,
    gpus=8,
    cpus=32,
    memory_mib=131_072,
    time_limit_s=7_200,
    priority=1,
    eligible_ms=NOON_MS,
    started_ms=NOON_MS + 300_000,
    ended_ms=NOON_MS + 3_900_000,
    exit_code=0,
    held=(Held("p1", 4, 16, 65_536), Held("p2", 4, 16, 65_536)),
)


def of(*jobs: SiteJob, **more: object) -> Workload:
    """The workload of some jobs."""
    return workload_of(jobs, source="the accounting of paris", **more)  # type: ignore[arg-type]


def notes(*jobs: SiteJob, **more: object) -> str:
    """All notes as one text."""
    return "\n".join(of(*jobs, **more).notes)


def test_a_job_brings_its_times_needs_limit_and_tenant() -> None:
    workload = of(JOB, replace(JOB, engine_id="101", submitted_ms=NOON_MS + 30_000, eligible_ms=None))
    assert workload.job_id.tolist() == [100, 101]
    assert workload.zero_s == NOON_MS // 1_000
    assert workload.submit_s.tolist() == [0, 30]
    assert workload.waited_s is not None
    assert workload.waited_s.tolist() == [300, 270]
    assert workload.runtime_s.tolist() == [3_600, 3_600]
    assert workload.limit_s.tolist() == workload.estimate_s.tolist() == [7_200, 7_200]
    assert workload.shapes == (Shape(workers=2, gpu_milli=4_000, cpu_milli=16_000, memory_mib=65_536),)
    assert workload.tenants == ("physics",)
    assert not workload.synthetic


def test_a_job_arrives_when_it_was_eligible_and_its_wait_counts_from_then() -> None:
    later = replace(JOB, eligible_ms=NOON_MS + 200_000)
    workload = of(JOB, replace(later, engine_id="101"))
    assert workload.submit_s.tolist() == [0, 200]
    assert workload.waited_s is not None
    assert workload.waited_s.tolist() == [300, 100]
    assert "1 jobs were eligible after they were submitted" in notes(JOB, replace(later, engine_id="101"))


@pytest.mark.parametrize(("eligible_s", "arrives_s"), [(-50, 0), (0, 0), (299, 299), (300, 300), (9_999, 300)])
def test_an_eligible_time_outside_of_submit_and_start_is_moved_there(eligible_s: int, arrives_s: int) -> None:
    workload = of(JOB, replace(JOB, engine_id="101", eligible_ms=NOON_MS + eligible_s * 1_000))
    assert sorted(workload.submit_s.tolist()) == sorted([0, arrives_s])


def test_without_a_limit_there_is_none_and_the_run_time_is_the_estimate() -> None:
    workload = of(replace(JOB, time_limit_s=0))
    assert (workload.limit_s.tolist(), workload.estimate_s.tolist()) == ([NO_LIMIT_S], [3_600])


def test_jobs_that_wait_run_or_never_started_are_left_out_and_counted() -> None:
    waits = replace(JOB, state=JobState.WAITING, started_ms=None, ended_ms=None, held=())
    text = notes(
        JOB,
        replace(waits, engine_id="101"),
        replace(waits, engine_id="102_[8-99%10]", tasks=92),
        replace(JOB, engine_id="103", state=JobState.RUNNING, ended_ms=None),
        replace(waits, engine_id="104", state=JobState.CANCELLED, ended_ms=NOON_MS + 5_000),
        replace(JOB, engine_id="105", ended_ms=NOON_MS),
    )
    assert "94 jobs have not ended, so that their run time is unknown: left out" in text
    assert "1 jobs ended before they started: left out" in text
    assert "1 jobs ended before their own start, by their site's clock: left out" in text


def test_a_job_that_was_cancelled_failed_or_lost_its_node_while_it_ran_held_its_gpus_as_long() -> None:
    ends = (JobState.CANCELLED, JobState.FAILED, JobState.OUT_OF_MEMORY)
    workload = of(*(replace(JOB, engine_id=str(row), state=state, exit_code=None) for row, state in enumerate(ends)))
    assert workload.runtime_s.tolist() == [3_600] * 3


def test_a_job_that_its_limit_ended_is_remarked() -> None:
    assert "1 jobs were ended by their limit" in notes(replace(JOB, state=JobState.TIMED_OUT))


def test_of_a_requeued_job_the_last_run_counts() -> None:
    again = replace(
        JOB,
        submitted_ms=NOON_MS + 4_000_000,
        eligible_ms=NOON_MS + 4_120_000,
        started_ms=NOON_MS + 4_200_000,
        ended_ms=NOON_MS + 4_260_000,
        restarts=1,
    )
    for order in ((JOB, again), (again, JOB)):
        assert of(*order).runtime_s.tolist() == [60]
        assert "1 runs of jobs that were requeued, before their last one: left out" in notes(*order)


def test_a_run_that_was_requeued_and_runs_again_in_the_end_is_an_earlier_run_not_an_unfinished_job() -> None:
    requeued = replace(JOB, state=JobState.WAITING, submitted_ms=NOON_MS - 60_000)
    waits = replace(requeued, engine_id="101")
    text = notes(requeued, JOB, waits)
    assert "1 runs of jobs that were requeued, before their last one: left out" in text
    assert "1 jobs have not ended" in text


def test_an_id_that_its_site_gave_again_to_someone_else_is_another_job() -> None:
    again = replace(JOB, user="bob", tenant=TenantId("chemistry"), submitted_ms=NOON_MS + 1_000)
    assert len(of(JOB, again)) == 2


def test_jobs_of_one_id_at_two_sites_are_two_jobs() -> None:
    workload = of(JOB, replace(JOB, site=MULHOUSE))
    assert workload.job_id.tolist() == [0, 1]
    assert "2 jobs are numbered by their row" in "\n".join(workload.notes)


def test_each_task_of_an_array_is_a_job() -> None:
    workload = of(*(replace(JOB, engine_id=f"7_{task}") for task in range(3)))
    assert workload.job_id.tolist() == [0, 1, 2]


def test_tasks_that_were_submitted_at_once_stand_in_the_order_of_their_numbers() -> None:
    tasks = (10, 9, 2)
    workload = of(*(replace(JOB, engine_id=f"7_{task}", time_limit_s=task) for task in tasks))
    assert workload.limit_s.tolist() == [2, 9, 10]


def test_components_of_heterogeneous_jobs_are_jobs_by_their_whole_id() -> None:
    workload = of(*(replace(JOB, engine_id=engine_id) for engine_id in ("7", "7+0", "7+1", "7+1")))
    assert len(workload) == 3


def test_gpus_that_do_not_divide_among_the_nodes_make_a_divisible_shape() -> None:
    assert of(replace(JOB, gpus=5)).shapes == (Shape(1, 5_000, 32_000, 131_072, divisible=True),)


def test_the_gpu_models_are_those_of_the_nodes_that_it_ran_on() -> None:
    h100 = {(PARIS, "p1"): "H100", (PARIS, "p2"): "H100"}
    assert of(JOB, gpu_models=h100).shapes[0].gpu_models == ("H100",)
    assert of(JOB, gpu_models=h100 | {(PARIS, "p2"): "A100"}).shapes[0].gpu_models == ("A100", "H100")
    assert "1 jobs allow only the GPU models that they ran on" in notes(JOB, gpu_models=h100)


def test_without_a_model_for_each_of_its_nodes_a_job_may_run_on_any() -> None:
    assert of(JOB, gpu_models={(PARIS, "p1"): "H100"}).shapes[0].gpu_models == ()
    assert of(replace(JOB, held=()), gpu_models={(PARIS, "p1"): "H100"}).shapes[0].gpu_models == ()
    h100 = {(PARIS, "p1"): "H100", (PARIS, "p2"): "H100"}
    assert of(replace(JOB, gpus=0), gpu_models=h100).shapes[0].gpu_models == ()


def test_a_job_whose_account_is_in_no_table_belongs_to_account_and_user_as_in_a_file() -> None:
    assert of(JOB, nobody={TenantId("physics")}).tenants == ("lab/ann",)


def test_what_was_recorded_is_counted_from_the_first_arrival_to_the_last_end() -> None:
    late = replace(JOB, engine_id="101", started_ms=NOON_MS + 900_000, ended_ms=NOON_MS + 7_200_000)
    figures = recorded_figures(of(JOB, late), gpus=16)
    assert figures is not None
    assert (figures["wait_mean_s"], figures["wait_p50_s"], figures["wait_max_s"]) == (600, 600, 900)
    assert figures["makespan_s"] == 7_200
    assert figures["gpus_held_mean"] == 8 * (3_600 + 6_300) / 7_200
    assert figures["gpus_there_mean"] == 16
    assert figures["bounded_slowdown_mean"] == pytest.approx((3_900 / 3_600 + 7_200 / 6_300) / 2)


def test_figures_of_jobs_whose_waits_are_void_are_not_made_up() -> None:
    assert recorded_figures(replace(of(JOB), waited_s=None)) is None
    later = replace(JOB, engine_id="101", eligible_ms=NOON_MS + 100_000)
    assert recorded_figures(compress_to_load(of(JOB, later), 1, 0.5)) is None


def test_gpus_there_are_those_of_the_open_phases_on_average() -> None:
    pool = Pool(PoolId("hgx"), "H100", 8, 64, 512, False, 1, 1, 1, 1)
    more = Phase("more", from_epoch_s(1_500), ((pool.id, 10),))
    fleet = Fleet.of_one_site("s", [(pool, 2)], power_limit_kw=1, pue=Pue.constant(1.0), phases=(more,))
    assert gpus_there(fleet.sites[0], 1_000, 2_000) == 16 + 40
    assert gpus_there(fleet.sites[0], 0, 1_000) == 16


class _Days:
    """A site's accounting, and the spans that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def history(self, since_ms: int, until_ms: int) -> Iterator[SiteJob]:
        self.asked.append((since_ms, until_ms))
        yield JOB


def test_accounting_is_asked_for_a_day_at_a_time_without_a_gap_or_an_overlap() -> None:
    days, told = _Days(), list[int]()
    day_ms = 86_400_000
    until_ms = NOON_MS + 2 * day_ms + 5
    assert len(list(by_day(cast(SharedEngine, days), NOON_MS, until_ms, told.append))) == 3
    starts = [NOON_MS, NOON_MS + day_ms, NOON_MS + 2 * day_ms]
    assert days.asked == list(zip(starts, [*starts[1:], until_ms], strict=True))
    assert told == starts
    assert list(by_day(cast(SharedEngine, days), NOON_MS, NOON_MS)) == []


def test_nothing_that_ended_is_an_error_that_counts_why() -> None:
    with pytest.raises(InputError, match="no job that ended; 1 jobs have not ended"):
        of(replace(JOB, state=JobState.RUNNING, ended_ms=None))
    with pytest.raises(InputError, match="the accounting of paris: file: no job that ended; expected at least one"):
        of()


@st.composite
def site_jobs(draw: st.DrawFn) -> list[SiteJob]:
    """Jobs of two sites as an accounting may list them, in any order."""
    jobs = []
    for row in range(draw(st.integers(1, 30))):
        submitted_s = NOON_MS // 1_000 + draw(st.integers(0, 10_000))
        started_s = draw(st.none() | st.integers(submitted_s, submitted_s + 10_000))
        least_s = started_s or submitted_s
        ended_s = draw(st.none() | st.integers(least_s, least_s + 10_000))
        eligible_s = draw(st.none() | st.integers(submitted_s - 5, submitted_s + 20_000))
        jobs.append(
            replace(
                JOB,
                site=draw(st.sampled_from([PARIS, MULHOUSE])),
                engine_id=draw(st.sampled_from(["{}", "7_{}", "{}+1"])).format(row),
                user=draw(st.sampled_from(["ann", "bob"])),
                tenant=TenantId(draw(st.sampled_from(["physics", "root"]))),
                submitted_ms=submitted_s * 1_000,
                eligible_ms=None if eligible_s is None else eligible_s * 1_000,
                started_ms=None if started_s is None else started_s * 1_000,
                ended_ms=None if ended_s is None else ended_s * 1_000,
                state=draw(st.sampled_from(list(JobState))) if ended_s is not None else JobState.RUNNING,
                workers=draw(st.integers(1, 5)),
                gpus=draw(st.integers(0, 40)),
                time_limit_s=draw(st.sampled_from([0, 60, 100_000])),
            )
        )
    return jobs


@given(site_jobs(), st.randoms(use_true_random=False))
def test_every_job_is_in_the_workload_or_counted_and_the_order_of_reading_means_nothing(
    jobs: list[SiteJob], random: object
) -> None:
    over = [job for job in jobs if job.state.is_end and job.ended_ms is not None and job.started_ms is not None]
    if not over:
        return
    workload = of(*jobs, nobody={TenantId("root")})
    counted = sum(int(note.split()[0]) for note in workload.notes if note.endswith("left out"))
    assert len(workload) + counted == len(jobs)
    assert workload.zero_s is not None
    assert workload.waited_s is not None
    starts = sorted((workload.submit_s + workload.waited_s + workload.zero_s).tolist())
    assert starts == sorted(job.started_ms // 1_000 for job in over if job.started_ms is not None)
    assert int(workload.gpu_milli().sum()) == 1_000 * sum(job.gpus for job in over)
    assert sorted(workload.tenants[row] for row in workload.tenant) == sorted(
        f"{job.account}/{job.user}" if job.tenant == "root" else job.tenant for job in over
    )
    shuffled = jobs[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = of(*shuffled, nobody={TenantId("root")})
    assert again.job_id.tolist() == workload.job_id.tolist()
    assert again.submit_s.tolist() == workload.submit_s.tolist()
    assert [again.shapes[row] for row in again.shape] == [workload.shapes[row] for row in workload.shape]
