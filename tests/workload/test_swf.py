"""The Standard Workload Format: what each field means, and what -1 leaves out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workload.files import faults, notes, read
from watteau.domain.jobs import NO_LIMIT_S

NUMBER, SUBMIT, RUNTIME, ALLOCATED, REQUESTED, TIME, STATUS, USER, GROUP = 0, 1, 3, 4, 7, 8, 10, 11, 12


def job(**fields: int | str) -> str:
    """A line with 18 fields, unknown where not given."""
    places = dict(
        number=NUMBER,
        submit=SUBMIT,
        runtime=RUNTIME,
        allocated=ALLOCATED,
        requested=REQUESTED,
        time=TIME,
        status=STATUS,
        user=USER,
        group=GROUP,
    )
    values = ["-1"] * 18
    for name, value in ({"number": 1, "submit": 0, "runtime": 10, "allocated": 4, "status": 1} | fields).items():
        values[places[name]] = str(value)
    return " ".join(values) + "\n"


def test_processors_become_divisible_gpus_and_the_trace_keeps_its_zero() -> None:
    workload = read("; Version: 2\n" + job(submit=5094, runtime=12072, allocated=16))
    assert workload.submit_s.tolist() == [5094]
    assert workload.gpu_milli().tolist() == [16_000]
    assert workload.shapes[0].divisible


def test_a_requested_time_is_the_limit_and_the_estimate() -> None:
    workload = read(job(number=1, time=3600) + job(number=2))
    assert workload.limit_s.tolist() == [3600, NO_LIMIT_S]
    assert workload.estimate_s.tolist() == [3600, 10]
    assert "1 jobs have no requested time" in notes(workload)


def test_only_the_limit_kills_a_job_that_ran_over_it() -> None:
    workload = read(job(runtime=5000, time=3600))
    assert workload.runtime_s.tolist() == [5000]
    assert workload.served_s().tolist() == [3600]
    assert "1 jobs ran beyond their requested time" in notes(workload)


def test_requested_processors_stand_in_for_unknown_or_no_allocated_ones() -> None:
    workload = read(job(number=1, allocated=-1, requested=8) + job(number=2, allocated=0, requested=2))
    assert workload.gpu_milli().tolist() == [8_000, 2_000]


def test_a_job_is_left_out_only_where_the_file_says_unknown_and_is_counted() -> None:
    workload = read(job(number=1) + job(number=2, runtime=-1) + job(number=3, allocated=-1) + job(number=4, submit=-1))
    assert workload.job_id.tolist() == [1]
    for said in (
        "1 jobs have an unknown run time",
        "1 jobs have an unknown number of proc",
        "1 jobs have an unknown su",
    ):
        assert said in notes(workload)


def test_a_job_with_0_processors_is_kept_without_gpus_and_counted() -> None:
    workload = read(job(number=1) + job(number=2, allocated=0, status=5))
    assert workload.gpu_milli().tolist() == [4_000, 0]
    assert "1 jobs have 0 processors: kept" in notes(workload)


def test_parts_of_a_checkpointed_job_are_not_jobs() -> None:
    workload = read(job(number=1) + job(number=1, status=2) + job(number=1, status=3))
    assert len(workload) == 1
    assert "2 lines are parts of a checkpointed job" in notes(workload)


def test_tenants_are_users_or_else_groups() -> None:
    workload = read(
        job(number=1, user=7, group=1) + job(number=2, group=3) + job(number=3) + job(number=4, user=7, group=2)
    )
    assert workload.tenants == ("group3", "user7")
    assert workload.tenant.tolist() == [1, 0, -1, 1]


def test_seventeen_fields_tabs_and_columns_of_blanks_are_read() -> None:
    line = "  1\t 5094 -1   12072  16 -1 -1 -1 -1 -1 1 -1 -1 -1 0 -1 -1"
    assert read(line + "  \r\n").runtime_s.tolist() == [12072]
    assert read("\ufeff;c\n" + line + " -1\n").runtime_s.tolist() == [12072]


@pytest.mark.parametrize("field", ["number", "submit", "runtime", "allocated", "requested", "time", "status", "user"])
@pytest.mark.parametrize("value", ["-2", "x", "nan", "1.5", "9" * 30])
def test_a_wrong_value_names_its_line_and_field(field: str, value: str) -> None:
    found = faults("; head\n" + job(number=1) + job(**({"number": 2} | {field: value})))
    assert len(found) == 1
    assert found[0].startswith("line 3, ")


def test_a_job_number_may_stand_once() -> None:
    assert faults(job(number=1) + job(number=2) + job(number=1))[0].startswith("line 3, job number: 1, a second time")


@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 10**6), st.integers(-1, 10**6)),
        min_size=1,
    )
)
def test_every_file_of_known_jobs_is_read_as_written(rows: list[tuple[int, int, int, int]]) -> None:
    lines = [
        job(number=number, submit=submit, runtime=runtime, allocated=gpus, time=time)
        for number, (submit, runtime, gpus, time) in enumerate(rows)
    ]
    workload = read("".join(lines))
    order = sorted(range(len(rows)), key=lambda row: (rows[row][0], row))
    assert workload.job_id.tolist() == order
    assert workload.runtime_s.tolist() == [rows[row][1] for row in order]
    assert workload.gpu_milli().tolist() == [rows[row][2] * 1_000 for row in order]
    assert workload.limit_s.tolist() == [max(0, rows[row][3]) for row in order]
