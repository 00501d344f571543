"""PAI CSV: what a row means, and what is accepted."""

from hypothesis import given
from hypothesis import strategies as st

from tests.workload.files import PAI_HEADER, faults, read
from watteau.domain.jobs import NO_LIMIT_S, Shape

ROWS = st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**7)), min_size=1)


def test_a_row_becomes_a_divisible_job_numbered_from_zero() -> None:
    workload = read(PAI_HEADER + "5,100,3\n7,200,1\n")
    assert workload.job_id.tolist() == [0, 1]
    assert workload.submit_s.tolist() == [5, 7], "a trace's own zero stays"
    assert workload.runtime_s.tolist() == [100, 200]
    assert workload.shapes[workload.shape[0]] == Shape(workers=1, gpu_milli=3_000, divisible=True)


def test_the_estimate_is_the_run_time_but_at_least_one_second_and_nothing_kills() -> None:
    workload = read(PAI_HEADER + "0,0,1\n0,9,1\n")
    assert workload.estimate_s.tolist() == [1, 9]
    assert workload.limit_s.tolist() == [NO_LIMIT_S, NO_LIMIT_S]
    assert "no estimates" in workload.notes[0]


def test_rows_are_sorted_by_submit_and_then_by_row() -> None:
    workload = read(PAI_HEADER + "9,1,1\n3,2,1\n9,3,1\n")
    assert workload.job_id.tolist() == [1, 0, 2]
    assert workload.runtime_s.tolist() == [2, 1, 3]


def test_windows_line_ends_a_byte_order_mark_blank_lines_quotes_and_5_point_0_are_accepted() -> None:
    plain = read(PAI_HEADER + "0,5,1\n1,6,2\n")
    odd = read(b'\xef\xbb\xbf\r\nsubmit_s,"duration_s",gpus\r\n\r\n 0 ,5.0,"1"\r\n+1,6e0,2')
    assert odd.submit_s.tolist() == plain.submit_s.tolist()
    assert odd.runtime_s.tolist() == plain.runtime_s.tolist()
    assert odd.gpu_milli().tolist() == plain.gpu_milli().tolist()


def test_columns_may_stand_in_any_order() -> None:
    workload = read("gpus,submit_s,duration_s\n4,10,20\n")
    assert (workload.submit_s[0], workload.runtime_s[0], workload.gpu_milli()[0]) == (10, 20, 4_000)


@given(ROWS)
def test_every_table_of_whole_numbers_is_read_as_written(rows: list[tuple[int, int, int]]) -> None:
    workload = read(PAI_HEADER + "".join(f"{submit},{runtime},{gpus}\n" for submit, runtime, gpus in rows))
    order = sorted(range(len(rows)), key=lambda row: (rows[row][0], row))
    assert workload.job_id.tolist() == order
    assert workload.submit_s.tolist() == [rows[row][0] for row in order]
    assert workload.runtime_s.tolist() == [rows[row][1] for row in order]
    assert workload.gpu_milli().tolist() == [rows[row][2] * 1_000 for row in order]


def test_every_faulty_line_is_named() -> None:
    found = faults(
        PAI_HEADER + "0,5,1\n-1,5,1\n1,nan,1\n2,inf,1\n3,1.5,1\n4,,1\n5,x,1\n6,99999999999999999999,1\n7,1\n"
    )
    assert [fault.split(":")[0] for fault in found] == [
        "line 3, submit_s",
        "line 4, duration_s",
        "line 5, duration_s",
        "line 6, duration_s",
        "line 7, duration_s",
        "line 8, duration_s",
        "line 9, duration_s",
        "line 10",
    ]
    assert "'nan'" in found[1]
    assert "a whole number from 0 to" in found[1]
    assert "2 fields" in found[-1]


def test_missing_unknown_and_double_columns_are_named() -> None:
    assert "no such column among submit_s, gpus" in faults("submit_s,gpus\n1,2\n")[0]
    assert faults("submit_s,duration_s,gpus,colour\n1,2,3,4\n")[0].startswith(
        "line 1, colour: unknown column; expected"
    )
    assert "stands 2 times" in faults("submit_s,duration_s,gpus,gpus\n1,2,3,4\n")[0]


def test_a_cut_last_line_is_named_as_such() -> None:
    assert "the file ends in the middle of this line" in faults(PAI_HEADER + "0,5,1\n1,6")[0]


def test_a_header_alone_is_no_workload() -> None:
    assert "a header and no row" in faults(PAI_HEADER)[0]


def test_of_many_faults_twenty_are_shown_and_all_are_counted() -> None:
    found = faults(PAI_HEADER + "x,1,1\n" * 1_000)
    assert found[0].startswith("line 2, ")
    assert found[-1].startswith("file: 1000 faults in all, 20 of them shown")
    assert len(found) == 21


def test_the_largest_time_is_read_and_one_second_more_is_refused() -> None:
    assert read(PAI_HEADER + "1000000000000,5,10000000\n").submit_s.tolist() == [10**12]
    assert "'1000000000001'" in faults(PAI_HEADER + "1000000000001,5,1\n")[0]
    assert "'10000001'" in faults(PAI_HEADER + "1,5,10000001\n")[0]
