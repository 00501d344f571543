"""Whatever bytes a file holds, it is a workload or a clear error."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workload.files import PAI_HEADER, faults, read
from watteau.domain.errors import InputError
from watteau.domain.jobs import Workload
from watteau.workload import text
from watteau.workload.formats import read_openb_nodes, read_workload, write_workload
from watteau.workload.text import Faults, Table, read_batches


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"\n \n\n", "nothing but blank lines"),
        (b"\x7fELF\x02\x01\x00\x00", "a binary file"),
        (b"\x1f\x8b\x08 packed", "packed with gzip"),
        (PAI_HEADER.encode("utf-16"), "UTF-16"),
        (b"submit_s,dur\xe9e,gpus\n", "not UTF-8"),
        (b"name,age\nann,3\n", "unknown format, beginning with 'name,age'"),
        (b"sn,cpu_milli,memory_mib,gpu,model\nn,1,1,1,m\n", "a list of openb nodes"),
        (b"PAR1 and then nothing of the kind", "not a readable Parquet file"),
        (b"1 2 3\n", "3 fields"),
        (b"; only comments\n", "no job"),
        (PAI_HEADER.encode() + b"1,2,3\n\x00\x01\n", "binary file"),
        (PAI_HEADER.encode() + b"1,2,3\n1,\xff,3\n", "line 3: byte 0xff"),
        (PAI_HEADER.encode() + b'1,"2,3\n', "closed quotes"),
    ],
)
def test_a_wrong_file_is_refused_and_says_what_it_is(content: bytes, said: str) -> None:
    assert any(said in fault for fault in faults(content))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, tmp_path / "zero\0byte"):
        with pytest.raises(InputError, match="a file that can be read"):
            read_workload(path)


def test_a_gigabyte_in_one_line_is_refused_after_its_first_mebibyte(tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    with path.open("wb") as file:
        file.write(b"1,")
        file.truncate(1 << 30)  # the rest are zero bytes that take no room on disk
    assert "binary" in _error(path)
    with path.open("r+b") as file:
        file.write(b"1" * (2 << 20))
    assert "a line of more than 1048576 bytes" in _error(path)


def test_a_long_line_after_good_ones_is_named() -> None:
    for size in (2 << 20, 20 << 20):
        assert "line 3: a line of more than" in faults(PAI_HEADER + "1,2,3\n" + "1" * size + "\n1,2,3\n")[0]


@given(st.binary(max_size=400))
def test_random_bytes_are_refused_or_read(content: bytes) -> None:
    _read_or_refuse(content)


@given(
    st.sampled_from(["pai", "swf", "sacct", "openb"]), st.lists(st.text('0123456789,|; -.:T"\n\rnaNx_é', max_size=40))
)
def test_random_rows_under_a_good_header_are_refused_or_read(kind: str, rows: list[str]) -> None:
    header = {
        "pai": PAI_HEADER,
        "swf": "; Version: 2\n",
        "sacct": "JobID|Submit|Start|ElapsedRaw|AllocTRES|TimelimitRaw|State|User\n",
        "openb": "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time,scheduled_time\n",
    }[kind]
    _read_or_refuse((header + "\n".join(rows)).encode())


@given(st.binary(max_size=60), st.integers(0, 2_000), st.integers(0, 60))
def test_a_damaged_parquet_file_is_refused_or_read(noise: bytes, start: int, cut: int) -> None:
    good = _parquet()
    start = min(start, len(good))
    _read_or_refuse(good[:start] + noise + good[start + cut :])


@given(
    st.lists(st.lists(st.text("ab \"'é", max_size=3), min_size=1, max_size=4), max_size=12),
    st.sampled_from(["", "\n"]),
)
def test_the_compiled_split_agrees_with_the_line_by_line_one(rows: list[list[str]], end: str) -> None:
    """The fast path is only an accelerator: rows, line numbers and faults are those of the careful path."""
    content = "\n".join(",".join(row) for row in rows) + end
    table = Table(("a", "b", "c"), separator=",")
    assert _batches(content, table, fast=True) == _batches(content, table, fast=False)


def test_line_numbers_hold_across_blocks_comments_and_blank_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_BLOCK_BYTES", 64)
    row = "{} 0 -1 5 1 -1 -1 -1 -1 -1 1 -1 -1 -1 0 -1 -1 -1\n"
    lines = ["; head\n", *(row.format(number) for number in range(1, 9)), "\n", "; more\n", "9 zero\n", row.format(10)]
    assert faults("".join(lines))[0].startswith("line 12: 2 fields")


def test_openb_nodes_are_read_in_order_and_bad_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "nodes.csv"
    path.write_text("sn,cpu_milli,memory_mib,gpu,model\nb,64000,262144,2,P100\na,1000,2000,8,G3\n")
    nodes = read_openb_nodes(path)
    assert [(node.name, node.gpus, node.model) for node in nodes] == [("b", 2, "P100"), ("a", 8, "G3")]
    path.write_text("sn,cpu_milli,memory_mib,gpu,model\n,64000,262144,-2,P100\n")
    with pytest.raises(InputError, match="line 2, gpu"):
        read_openb_nodes(path)


def _error(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_workload(path)
    return str(caught.value)


def _read_or_refuse(content: bytes) -> None:
    try:
        workload = read(content)
    except InputError as error:
        faults_of_error = error.faults
    else:
        faults_of_error = ()
        _check(workload)
    assert all("\n" not in str(fault) for fault in faults_of_error)


def _check(workload: Workload) -> None:
    assert len(workload) > 0
    assert np.all(workload.estimate_s >= 1)
    assert np.all((workload.limit_s == 0) | (workload.estimate_s <= workload.limit_s))


def _batches(content: str, table: Table, *, fast: bool) -> tuple[list[tuple[int, list[str]]], int]:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        if not fast:
            patch.setattr(text, "_split", lambda *_: None)
        path = Path(folder) / "rows"
        path.write_bytes(content.encode())
        found = Faults("x")
        rows = [
            (line, list(row))
            for batch in read_batches(path, table, found)
            for line, row in zip(batch.line.tolist(), batch.frame.rows(), strict=True)
        ]
    return rows, found.total


@functools.cache
def _parquet() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.parquet"
        write_workload(read(PAI_HEADER + "0,5,1\n1,6,2\n"), path)
        return path.read_bytes()
