"""Watteau's own file: what is written is read, and what does not fit is refused by row."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workload.files import PAI_HEADER, columns, read
from watteau.domain.errors import InputError
from watteau.domain.jobs import Shape, Topology, Workload
from watteau.workload.columns import build_workload
from watteau.workload.formats import read_workload, write_workload

SHAPES = st.builds(
    Shape,
    workers=st.integers(1, 64),
    gpu_milli=st.one_of(st.integers(0, 1_000), st.integers(1, 8).map(lambda gpus: gpus * 1_000)),
    cpu_milli=st.integers(0, 10**6),
    memory_mib=st.integers(0, 10**6),
    gpu_models=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    sites=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    topology=st.sampled_from(Topology),
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Any workload, limits and tenants and classes included."""
    shapes = draw(st.lists(SHAPES, min_size=1, max_size=4))
    tenants = draw(st.lists(st.text(max_size=5), max_size=3, unique=True))
    job = st.tuples(
        st.integers(0, 10**9),
        st.integers(0, 10**9),
        st.sampled_from([0, 60, 3_600]),
        st.integers(0, len(shapes) - 1),
        st.integers(-1, len(tenants) - 1),
        st.integers(-5, 5),
    )
    rows = draw(st.lists(job, max_size=20))
    submit_s, runtime_s, limit_s, shape, tenant, priority_class = (
        np.array([row[place] for row in rows], dtype=np.int64) for place in range(6)
    )
    return build_workload(
        source=draw(st.text(max_size=10)),
        synthetic=draw(st.booleans()),
        columns={
            "job_id": np.arange(len(rows), dtype=np.int64),
            "submit_s": submit_s,
            "runtime_s": runtime_s,
            "limit_s": limit_s,
            "shape": shape,
            "tenant": tenant,
            "priority_class": priority_class,
            **({"waited_s": runtime_s[::-1]} if draw(st.booleans()) else {}),
        },
        shapes=shapes,
        tenants=tenants,
        notes=draw(st.lists(st.text(max_size=10), max_size=2)),
        zero_s=draw(st.none() | st.integers(0, 10**10)),
    )


@given(workload=workloads())
def test_a_workload_is_read_as_it_was_written(workload: Workload, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("w") / "jobs.parquet"
    write_workload(workload, path)
    again = read_workload(path)
    assert columns(again) == columns(workload)
    assert (again.waited_s is None) == (workload.waited_s is None)
    if again.waited_s is not None and workload.waited_s is not None:
        assert again.waited_s.tolist() == workload.waited_s.tolist()
    for name in ("source", "synthetic", "notes", "shapes", "tenants", "zero_s"):
        assert getattr(again, name) == getattr(workload, name)
    assert again.job_id.dtype == np.int64
    assert again.shape.dtype == np.int32


def test_the_same_workload_gives_the_same_bytes(tmp_path: Path) -> None:
    workload = read(PAI_HEADER + "0,5,1\n")
    write_workload(workload, tmp_path / "a")
    write_workload(workload, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "jobs.parquet"
    good = read(PAI_HEADER + "0,5,1\n")
    write_workload(good, path)
    before = path.read_bytes()
    bad = dataclasses.replace(good, priority_class=np.array(["x"]))
    with pytest.raises((pa.ArrowException, ValueError)):
        write_workload(bad, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    workload = read(PAI_HEADER + "0,5,1\n")
    with pytest.raises(InputError, match="no such folder"):
        write_workload(workload, tmp_path / "none" / "jobs.parquet")
    with pytest.raises(InputError, match="a place that can be written"):
        write_workload(workload, tmp_path)


def test_parquet_of_someone_else_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"submit_s": [1]}).write_parquet(tmp_path / "x")
    with pytest.raises(InputError, match="Parquet that Watteau did not write"):
        read_workload(tmp_path / "x")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("job_id", 1, "row|line 2, job_id: 1, a second time"),
        ("submit_s", -1, "line 2, submit_s: -1"),
        ("runtime_s", -1, "line 2, runtime_s: -1"),
        ("estimate_s", 0, "line 2, estimate_s: 0"),
        ("limit_s", 3, "line 2, estimate_s: 6; expected at most limit_s"),
        ("shape", 5, "line 2, shape: 5"),
        ("tenant", 0, "line 2, tenant: 0"),
    ],
)
def test_a_wrong_value_names_its_row(tmp_path: Path, column: str, value: int, said: str) -> None:
    path = tmp_path / "jobs.parquet"
    workload = read(PAI_HEADER + "0,5,1\n1,6,1\n")
    changed = getattr(workload, column).copy()
    changed[1] = value
    if column == "job_id":
        changed[0] = value
    object.__setattr__(workload, column, changed)
    write_workload(workload, path)
    with pytest.raises(InputError, match=said):
        read_workload(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 2}, "format_version"),
        ({"shapes": [{"workers": 0, "gpu_milli": 1}]}, "at least one worker"),
        ({"shapes": [{"workers": 1}]}, "gpu_milli"),
        ({"synthetic": "perhaps"}, "synthetic"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_header_names_its_field(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "jobs.parquet"
    write_workload(read(PAI_HEADER + "0,5,1\n"), path)
    table = pq.read_table(path)
    header = json.loads(table.schema.metadata[b"watteau.workload"]) | change
    pq.write_table(table.replace_schema_metadata({"watteau.workload": json.dumps(header)}), path)
    with pytest.raises(InputError, match=said):
        read_workload(path)


def test_a_missing_or_mistyped_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "jobs.parquet"
    write_workload(read(PAI_HEADER + "0,5,1\n"), path)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["limit_s"]), path)
    with pytest.raises(InputError, match="limit_s: no such column"):
        read_workload(path)
    pq.write_table(table.set_column(1, "submit_s", pa.array([0.5])), path)
    with pytest.raises(InputError, match="submit_s: double; expected int64"):
        read_workload(path)
