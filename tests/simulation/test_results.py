"""What a run leaves behind: the columns, the figures and the files, in plain and in empty cases."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.simulation.runs import fleet_of, jobs_of, random_jobs, run, settled
from watteau.domain.jobs import Workload
from watteau.simulation.results import (
    HOURS_COLUMNS,
    JOBS_COLUMNS,
    REASONS_COLUMNS,
    summarise,
    write_results,
)

FILES = ["hours.parquet", "jobs.parquet", "reasons.parquet", "report.html", "summary.json"]


def left_behind(out: Path, workload: Workload, **fleet: Any) -> dict[str, Any]:
    results = settled(run(fleet_of(**fleet), workload))
    summary = summarise(results, 3)
    write_results(results, out, command="watteau simulate", seed=3, summary=summary)
    assert sorted(path.name for path in out.iterdir()) == FILES
    written: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert written == summary
    return written


def type_name(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        assert kind.tz == "UTC"
        return "timestamp"
    if pa.types.is_list(kind):
        return f"list<{kind.value_type}>"
    return "string" if pa.types.is_large_string(kind) or pa.types.is_string(kind) else str(kind)


@pytest.mark.parametrize("workload", [random_jobs(1, 200, 16), jobs_of((0, 5, 99)), jobs_of()])
def test_the_columns_are_those_that_are_documented(tmp_path: Path, workload: Workload) -> None:
    left_behind(tmp_path, workload)
    for name, columns in (("jobs", JOBS_COLUMNS), ("hours", HOURS_COLUMNS), ("reasons", REASONS_COLUMNS)):
        schema = pq.read_schema(tmp_path / f"{name}.parquet")
        assert {field.name: type_name(field.type) for field in schema} == {
            column: kind for column, (kind, _) in columns.items()
        }, name


def test_a_run_in_which_no_job_can_start_is_written_in_full(tmp_path: Path) -> None:
    summary = left_behind(tmp_path, jobs_of((0, 5, 99), (7, 5, 99)))
    assert summary["jobs_unschedulable"] == 2
    assert summary["unschedulable_by_reason"] == {"EXCEEDS_MAXIMUM": 2}
    assert summary["wait_mean_s"] is None
    assert summary["bounded_slowdown_mean"] is None
    jobs = pl.read_parquet(tmp_path / "jobs.parquet")
    assert jobs["state"].to_list() == ["unschedulable"] * 2
    assert jobs.select("start_s", "end_s", "site", "pool", "nodes").null_count().row(0) == (2,) * 5
    reasons = pl.read_parquet(tmp_path / "reasons.parquet")
    assert reasons.rows() == [(0, "EXCEEDS_MAXIMUM", 0, None), (1, "EXCEEDS_MAXIMUM", 7, None)]


def test_the_nodes_of_a_gang_are_numbered_inside_their_pool(tmp_path: Path) -> None:
    left_behind(tmp_path, jobs_of((0, 5, 16), (0, 5, 8), (9, 5, 16)), nodes=3)
    nodes = pl.read_parquet(tmp_path / "jobs.parquet")["nodes"].to_list()
    assert sorted(nodes[0] + nodes[1]) == [0, 1, 2]
    assert [len(its) for its in nodes] == [2, 1, 2]


def test_waits_and_slowdowns_are_those_of_the_textbook(tmp_path: Path) -> None:
    summary = left_behind(tmp_path, jobs_of((0, 100, 8), (20, 4, 8)), nodes=1)
    assert summary["wait_mean_s"] == 40
    assert summary["wait_p50_s"] == 40
    assert summary["jct_mean_s"] == (100 + 84) / 2
    assert summary["bounded_slowdown_mean"] == (1 + 84 / 10) / 2
    assert summary["makespan_s"] == 104
    assert summary["by_tenant"]["root"]["wait_mean_s"] == 40


def test_a_lost_attempt_is_no_waiting_and_its_gpu_hours_count(tmp_path: Path) -> None:
    """It runs from 0 to 1,000, waits for the outage to end at 5,000, and runs for 3,000 s: 4,000 s on 8 GPUs."""
    summary = left_behind(tmp_path, jobs_of((0, 3_000, 8), estimate_s=(500,)), nodes=1, outages=((1_000, 5_000),))
    assert summary["attempts_lost"] == 1
    assert (summary["wait_mean_s"], summary["wait_max_s"], summary["jct_mean_s"]) == (4_000, 4_000, 8_000)
    its = summary["by_tenant"]["root"]
    assert (its["wait_mean_s"], its["gpu_hours"]) == (4_000, 8 * 4_000 / 3_600)
    assert its["gpu_hours"] == summary["by_site"]["s"]["gpu_hours"]


def test_energies_by_hour_site_and_tenant_add_up_to_those_of_the_summary(tmp_path: Path) -> None:
    summary = left_behind(tmp_path, random_jobs(5, 300, 16), outages=((8_000, 9_000),))
    hours = pl.read_parquet(tmp_path / "hours.parquet")
    for name in ("it_energy_wh", "site_energy_wh", "supply_wh", "matched_wh"):
        assert hours[name].sum() == summary["energy"][name], name
    parts = hours["job_energy_wh"] + hours["idle_energy_wh"] + hours["overhead_energy_wh"]
    assert parts.to_list() == hours["site_energy_wh"].to_list()
    assert sum(its["energy_wh"] for its in summary["by_tenant"].values()) == summary["energy"]["job_energy_wh"]
    assert summary["attempts_lost"] > 0


def test_an_earlier_run_stays_whole_when_a_later_one_cannot_be_written(tmp_path: Path) -> None:
    left_behind(tmp_path, jobs_of((0, 5, 1)))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "report.html.partial").mkdir()  # nothing can be written there
    results = settled(run(fleet_of(), jobs_of((0, 9, 1), (0, 9, 1))))
    with pytest.raises(OSError, match="directory"):
        write_results(results, tmp_path, command="", seed=0, summary=summarise(results, 0))
    (tmp_path / "report.html.partial").rmdir()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
