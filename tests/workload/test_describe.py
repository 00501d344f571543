"""The figures of a workload, and the command that prints them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.workload.files import PAI_HEADER, read
from watteau.cli.workload import workload_app
from watteau.workload.describe import describe
from watteau.workload.formats import read_workload

RUN = CliRunner()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(PAI_HEADER + "0,3600,1\n3600,7200,4\n7200,3600,3\n")
    return path


def test_gpu_hours_and_offered_gpus_are_what_jobs_hold() -> None:
    figures = describe(read(PAI_HEADER + "0,3600,1\n3600,7200,4\n7200,3600,3\n"))
    assert figures["gpu_hours"] == 12.0
    assert figures["offered_gpus_mean"] == 6.0
    assert figures["jobs"] == 3
    assert figures["runtime_s"]["p50"] == 3600
    assert [row["gpus"] for row in figures["sizes"]] == ["1", "2-4"]
    assert [row["gpu_hours_share"] for row in figures["sizes"]] == [pytest.approx(1 / 12), pytest.approx(11 / 12)]


def test_time_beyond_the_limit_is_not_counted() -> None:
    figures = describe(read("1 0 -1 7200 1 -1 -1 -1 3600" + " -1" * 9 + "\n"))
    assert figures["gpu_hours"] == 1.0
    assert figures["jobs_killed_by_limit"] == 1


def test_figures_of_one_job_are_json_with_nothing_where_nothing_can_be_measured() -> None:
    figures = describe(read(PAI_HEADER + "5,0,0\n"))
    assert figures["offered_gpus_mean"] is None
    assert figures["interarrival_s"] is None
    assert figures["estimate_over_runtime"] is None
    json.dumps(figures, allow_nan=False)


def test_describe_prints_tables_no_wider_than_80_columns(trace: Path) -> None:
    result = RUN.invoke(workload_app, ["describe", str(trace)])
    assert result.exit_code == 0
    assert "GPU-hours" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_describe_prints_json(trace: Path) -> None:
    result = RUN.invoke(workload_app, ["describe", str(trace), "--json"])
    assert json.loads(result.stdout)["gpu_hours"] == 12.0


def test_a_wrong_file_ends_with_code_2_and_its_faults_on_stderr(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(PAI_HEADER + "0,-1,1\n")
    result = RUN.invoke(workload_app, ["describe", str(path)])
    assert result.exit_code == 2
    assert "bad.csv:2: duration_s: '-1'" in result.stderr
    assert result.stdout == ""


def test_generate_writes_a_file_that_describe_reads_and_calls_synthetic(tmp_path: Path) -> None:
    out = tmp_path / "made.parquet"
    made = RUN.invoke(workload_app, ["generate", str(out), "--gpus=64", "--load=0.7", "--days=2", "--seed=1"])
    assert made.exit_code == 0, made.output
    assert "(synthetic)" in made.stdout
    assert "SYNTHETIC" in RUN.invoke(workload_app, ["describe", str(out)]).stdout


def test_convert_compresses_without_days_and_draws_with_them(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    for options, jobs in (([], 3), (["--load=0.5", "--gpus=2"], 3), (["--load=0.5", "--gpus=2", "--days=30"], None)):
        result = RUN.invoke(workload_app, ["convert", str(trace), str(out), *options])
        assert result.exit_code == 0, result.output
        assert jobs is None or len(read_workload(out)) == jobs
    assert read_workload(out).synthetic


@pytest.mark.parametrize(
    "options",
    [["--load=0.5"], ["--gpus=2"], ["--days=3"], ["--load=nan", "--gpus=2"], ["--load=-1", "--gpus=2"], ["--load=x"]],
)
def test_options_that_do_not_fit_end_with_code_2(trace: Path, tmp_path: Path, options: list[str]) -> None:
    result = RUN.invoke(workload_app, ["convert", str(trace), str(tmp_path / "out.parquet"), *options])
    assert result.exit_code == 2
    assert not (tmp_path / "out.parquet").exists()
