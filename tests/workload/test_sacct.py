"""Slurm's sacct export: which lines are jobs, and what their times, resources and limits mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workload.files import faults, notes, read
from watteau.domain.jobs import NO_LIMIT_S, Shape, Workload

GOOD = {
    "JobID": "100",
    "Submit": "2026-03-02T10:00:00",
    "Start": "2026-03-02T10:05:00",
    "End": "2026-03-02T11:05:00",
    "ElapsedRaw": "3600",
    "AllocTRES": "billing=8,cpu=8,gres/gpu=2,mem=64G,node=1",
    "TimelimitRaw": "120",
    "State": "COMPLETED",
    "Account": "lab",
    "User": "ann",
}


def export(*jobs: dict[str, str], without: tuple[str, ...] = (), extra: tuple[str, ...] = ()) -> str:
    """An export of jobs that differ from GOOD as said, numbered from 100 unless they say otherwise."""
    names = [name for name in (*GOOD, *extra) if name not in without]
    rows = [GOOD | {"JobID": str(100 + place)} | job for place, job in enumerate(jobs)]
    return "\n".join(["|".join(names), *("|".join(row.get(name, "") for name in names) for row in rows)]) + "\n"


def one(timezone: str = "UTC", without: tuple[str, ...] = (), extra: tuple[str, ...] = (), **job: str) -> Workload:
    """The workload of one job that differs from GOOD as said."""
    return read(export(job, without=without, extra=extra), timezone)


def submit_epoch_s(submit: str, timezone: str) -> int:
    """Epoch seconds of a submit, from the shift that the notes state."""
    return int(notes(one(timezone, Submit=submit)).split("moved by -")[1].split(" s")[0])


def test_a_job_brings_its_times_resources_limit_and_tenant() -> None:
    workload = read(export({}, {"Submit": "2026-03-02T10:00:30"}))
    assert workload.job_id.tolist() == [100, 101]
    assert workload.submit_s.tolist() == [0, 30]
    assert workload.runtime_s.tolist() == [3600, 3600]
    assert workload.limit_s.tolist() == workload.estimate_s.tolist() == [7200, 7200]
    assert workload.shapes == (Shape(workers=1, gpu_milli=2_000, cpu_milli=8_000, memory_mib=65_536),)
    assert workload.tenants == ("lab/ann",)
    assert "2026-03-02T10:00:00+00:00, is 0" in notes(workload)


def test_job_steps_are_part_of_their_job_and_counted() -> None:
    workload = read(export({}, {"JobID": "100.batch"}, {"JobID": "100.extern", "State": ""}, {"JobID": "100.0"}))
    assert workload.job_id.tolist() == [100]
    assert "3 lines are job steps" in notes(workload)


def test_array_tasks_are_jobs_numbered_by_row_without_the_raw_number() -> None:
    workload = read(export({"JobID": "7_1"}, {"JobID": "7_2"}))
    assert workload.job_id.tolist() == [0, 1]
    assert "numbered by their row" in notes(workload)
    raw = read(export({"JobID": "7_1", "JobIDRaw": "8"}, {"JobID": "7_2", "JobIDRaw": "7"}, extra=("JobIDRaw",)))
    assert raw.job_id.tolist() == [7, 8]


def test_jobs_that_have_not_ended_or_never_started_are_left_out_and_counted() -> None:
    nothing = {"Start": "Unknown", "End": "Unknown", "ElapsedRaw": "0", "AllocTRES": ""}
    workload = read(
        export(
            {},
            {"State": "RUNNING", "End": "Unknown"},
            {"State": "PENDING", "JobID": "102_[1-9%2]", **nothing},
            {"State": "CANCELLED by 1000", **nothing},
            {"State": "CANCELLED by 1000"},
        )
    )
    assert len(workload) == 2
    assert "2 jobs have not ended" in notes(workload)
    assert "1 jobs ended before they started" in notes(workload)


def test_a_job_that_slurm_refused_after_its_submit_never_started_although_it_has_a_start() -> None:
    at_once = {"State": "FAILED", "Start": GOOD["Submit"], "End": GOOD["Submit"], "AllocTRES": "", "ElapsedRaw": "0"}
    for without in ((), ("ElapsedRaw",)):
        workload = read(export({}, at_once | {"ReqTRES": GOOD["AllocTRES"]}, without=without, extra=("ReqTRES",)))
        assert workload.job_id.tolist() == [100]
        assert "1 jobs ended before they started: left out" in notes(workload)


def test_a_job_arrives_when_it_was_eligible_and_waits_from_then_to_its_start() -> None:
    begun = {"Eligible": "2026-03-02T10:04:00"}
    workload = read(export({"Eligible": GOOD["Submit"]}, begun, {"Eligible": "Unknown"}, extra=("Eligible",)))
    assert workload.job_id.tolist() == [100, 102, 101]
    assert workload.submit_s.tolist() == [0, 0, 240]
    assert workload.waited_s is not None
    assert workload.waited_s.tolist() == [300, 300, 60]
    assert "1 jobs were eligible after they were submitted" in notes(workload)


def test_a_timeout_is_counted_because_the_job_would_have_run_longer() -> None:
    assert "1 jobs were ended by their limit" in notes(one(State="TIMEOUT"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("UNLIMITED", 0), ("Partition_Limit", 0), ("2-03:04:05", 183_845), ("01:00:00", 3_600), ("30:00", 1_800)],
)
def test_time_limits_are_read_as_slurm_writes_them(text: str, seconds: int) -> None:
    workload = one(without=("TimelimitRaw",), extra=("Timelimit",), Timelimit=text)
    assert workload.limit_s.tolist() == [seconds or NO_LIMIT_S]
    assert workload.estimate_s.tolist() == [seconds or 3600]


def test_unlimited_raw_limits_are_no_limit() -> None:
    assert one(TimelimitRaw="UNLIMITED").limit_s.tolist() == [NO_LIMIT_S]


def test_the_run_time_is_elapsed_raw_else_elapsed_else_end_less_start() -> None:
    without = ("ElapsedRaw",)
    assert one(ElapsedRaw="5").runtime_s.tolist() == [5]
    assert one(without=without, extra=("Elapsed",), Elapsed="1-00:00:07").runtime_s.tolist() == [86_407]
    assert one(without=without, End="2026-03-02T10:05:09").runtime_s.tolist() == [9]


@pytest.mark.parametrize(
    ("tres", "shape"),
    [
        ("cpu=4,mem=1000K,node=1", Shape(1, 0, 4_000, 1)),
        ("cpu=4,mem=62.50G,node=1,gres/gpu=1", Shape(1, 1_000, 4_000, 64_000)),
        ("gres/gpu=8,node=2,cpu=6,mem=1T", Shape(2, 4_000, 3_000, 524_288)),
        ("gres/gpu:a100=4,node=2", Shape(2, 2_000, gpu_models=("a100",))),
        ("gres/gpu:a100=1,gres/gpu:h100=2,node=3", Shape(3, 1_000, gpu_models=("a100", "h100"))),
        ("gres/gpu=5,node=2,cpu=3", Shape(1, 5_000, 3_000, divisible=True)),
        ("cpu=2,mem=7,energy=123456789012", Shape(1, 0, 2_000, 7)),
    ],
)
def test_trackable_resources_become_a_shape(tres: str, shape: Shape) -> None:
    assert one(AllocTRES=tres).shapes == (shape,)


def test_models_are_those_asked_for_not_those_given() -> None:
    given = "cpu=1,gres/gpu:a100=1,gres/gpu=1,node=1"
    free = one(extra=("ReqTRES",), AllocTRES=given, ReqTRES="cpu=1,gres/gpu=1")
    bound = one(extra=("ReqTRES",), AllocTRES=given, ReqTRES="cpu=1,gres/gpu:a100=1")
    assert free.shapes[0].gpu_models == ()
    assert bound.shapes[0].gpu_models == ("a100",)


def test_mig_slices_are_not_taken_for_gpus_in_silence() -> None:
    assert "1 jobs were given MIG slices" in notes(one(AllocTRES="gres/gpu:a100_1g.5gb=1,node=1"))


def test_a_leap_day_is_a_day() -> None:
    workload = read(export({"Submit": "2024-02-28T12:00:00"}, {"Submit": "2024-03-01T12:00:00"}))
    assert workload.submit_s.tolist() == [0, 2 * 86_400]
    assert faults(export({"Submit": "2025-02-29T12:00:00"}))[0].startswith("line 2, Submit: '2025-02-29T12:00:00'")


def test_times_follow_the_clusters_clock_across_both_changes() -> None:
    assert submit_epoch_s("2026-03-29T01:59:59", "Europe/Paris") + 1 == submit_epoch_s(
        "2026-03-29T03:00:00", "Europe/Paris"
    )
    assert submit_epoch_s("2026-07-01T12:00:00", "Europe/Paris") == submit_epoch_s("2026-07-01T10:00:00", "UTC")


def test_a_time_that_the_clock_skips_is_a_fault_that_asks_for_the_zone() -> None:
    found = faults(export({"Submit": "2026-03-29T02:30:00"}), "Europe/Paris")
    assert found[0].startswith("line 2, Submit: '2026-03-29T02:30:00'; expected a time that exists in Europe/Paris")
    assert "is the time zone right?" in found[0]


def test_a_time_that_the_clock_shows_twice_is_its_first_pass_and_counted() -> None:
    workload = one("Europe/Paris", Submit="2026-10-25T02:30:00")
    assert "1 Submit times fall in an hour that the clock of Europe/Paris shows twice" in notes(workload)
    assert submit_epoch_s("2026-10-25T02:30:00", "Europe/Paris") == submit_epoch_s("2026-10-25T00:30:00", "UTC")


def test_epoch_seconds_are_never_ambiguous() -> None:
    assert "moved by -1792888200 s" in notes(one("Europe/Paris", Submit="1792888200"))


def test_an_unknown_zone_is_refused() -> None:
    assert "expected an IANA time zone" in faults(export({}), "Europe/Atlantis")[0]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("JobID", "abc"),
        ("Submit", "yesterday"),
        ("Submit", "Unknown"),
        ("ElapsedRaw", "-5"),
        ("ElapsedRaw", "nan"),
        ("AllocTRES", "cpu=many"),
        ("AllocTRES", ""),
        ("AllocTRES", "cpu=4,,mem=3G"),
        ("AllocTRES", "gres/gpu:a100=x,cpu=1"),
        ("AllocTRES", "mem=3X"),
        ("AllocTRES", "node=0,cpu=1"),
        ("AllocTRES", "cpu=99999999999999999999"),
        ("TimelimitRaw", "soon"),
        ("State", "DREAMING"),
    ],
)
def test_a_wrong_value_names_its_line_and_column(column: str, value: str) -> None:
    found = faults(export({}, {column: value}))
    assert len(found) == 1
    assert found[0].startswith(f"line 3, {column}: ")


def test_an_end_before_the_start_is_named() -> None:
    assert faults(export({"End": "2026-03-02T10:00:00"}, without=("ElapsedRaw",)))[0].startswith("line 2, End")


def test_a_job_that_stands_twice_is_named_with_the_remedy() -> None:
    assert "sacct without --duplicates" in faults(export({"JobID": "1"}, {"JobID": "1"}))[0]


def test_missing_columns_are_named_with_the_command_that_writes_them() -> None:
    found = faults(export({}, without=("AllocTRES", "Account", "User")))
    assert found[0].startswith("line 1, AllocTRES or ReqTRES: no such column")
    assert found[1].startswith("line 1, Account or User: no such column")
    assert "sacct --allusers" in found[0]


def test_a_bar_in_a_job_name_is_a_wrong_number_of_fields() -> None:
    assert "line 2: 12 fields" in faults(export({"JobName": "a|b"}, extra=("JobName",)))[0]


def test_parsable_instead_of_parsable2_is_recognised() -> None:
    assert "as --parsable writes it" in faults(export({}).replace("\n", "|\n"))[0]


def test_other_columns_are_named_as_not_used() -> None:
    assert "columns that are not used: JobName" in notes(one(extra=("JobName",)))


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**6), st.integers(1, 10**5), st.integers(0, 64))))
def test_every_export_of_ended_jobs_is_read_as_written(rows: list[tuple[int, int, int, int]]) -> None:
    jobs = [
        {
            "Submit": str(submit),
            "ElapsedRaw": str(elapsed),
            "TimelimitRaw": str(minutes),
            "AllocTRES": f"cpu=1,gres/gpu={gpus},node=1",
        }
        for submit, elapsed, minutes, gpus in [*rows, (0, 0, 1, 1)]
    ]
    workload = read(export(*jobs))
    order = sorted(range(len(jobs)), key=lambda row: (int(jobs[row]["Submit"]), row))
    assert workload.submit_s.tolist() == [int(jobs[row]["Submit"]) for row in order]
    assert workload.runtime_s.tolist() == [int(jobs[row]["ElapsedRaw"]) for row in order]
    assert workload.limit_s.tolist() == [60 * int(jobs[row]["TimelimitRaw"]) for row in order]
