"""`watteau simulate`: what a person and a script get for right and wrong inputs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from tests.simulation.runs import jobs_of
from watteau.cli.main import app
from watteau.workload.formats import write_workload

ROOT = Path(__file__).parents[2]
FRANCE = ROOT / "examples" / "france.toml"
ONE_MACHINE = ROOT / "examples" / "one-machine-256.toml"
PAI_160 = ROOT / "examples" / "pai-160.toml"
FILES = ["hours.parquet", "jobs.parquet", "reasons.parquet", "report.html", "summary.json"]
FULL = Path("/dev/full")

KEYS = {
    *("jobs", "jobs_unschedulable", "makespan_s", "wait_mean_s", "wait_p50_s", "wait_p99_s", "jct_mean_s"),
    *("bounded_slowdown_mean", "gpu_utilization", "wall_s", "jobs_per_s", "peak_rss_mib"),
    *("energy", "by_site", "by_tenant"),
}
ENERGY_KEYS = {"it_energy_wh", "site_energy_wh", "supply_wh", "matched_wh", "hourly_matched_share", "annual_ratio"}


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["simulate", *(str(argument) for argument in arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def summary_of(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    rows = [f"{at * 600},{300 + at % 7 * 1_000},{1 + at % 4}" for at in range(200)]
    path.write_text("\n".join(["submit_s,duration_s,gpus", *rows, ""]), encoding="utf-8")
    return path


@pytest.fixture
def year_2013(tmp_path: Path) -> Path:
    return year_of(tmp_path, 2013)


def year_of(tmp_path: Path, year: int) -> Path:
    path = tmp_path / f"{year}.csv"
    hours = pl.datetime_range(pl.datetime(year, 1, 1), pl.datetime(year, 12, 31, 23), "1h", eager=True).dt.strftime(
        "%Y-%m-%d %H:%M:%S"
    )
    rows = [f"{hour},0.5,0.25,0.25,0.5" for hour in hours]
    header = "hour_utc,solar,wind_onshore,wind_offshore,hydro_run_of_river"
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def test_the_supply_can_be_forecast_by_what_was_fitted_on_other_years(
    tmp_path: Path, trace: Path, year_2013: Path
) -> None:
    green = (PAI_160, "--trace", trace, "--supply", year_2013, "--green", "--forecast", "fitted")
    summary = summary_of(*green, "--train", year_of(tmp_path, 2014))
    assert summary["green"]["forecast"] == "fitted"
    assert summary["green"]["envelopes"] > 24
    assert summary["green"]["envelopes_unusable"] == 0
    assert "--train go together" in refused(*green)
    assert "no hour in two files" in refused(*green, "--train", year_2013)
    assert "goes with --supply" in refused(
        PAI_160, "--trace", trace, "--green", "--forecast", "fitted", "--train", year_2013
    )


def test_the_summary_has_every_figure_and_the_files_are_all_there(tmp_path: Path, trace: Path) -> None:
    out = tmp_path / "deep" / "out"
    summary = summary_of(PAI_160, "--trace", trace, "--out", out)
    assert summary.keys() >= KEYS
    assert summary["energy"].keys() >= ENERGY_KEYS
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert json.loads((out / "summary.json").read_text(encoding="utf-8")) == summary


def test_one_seed_gives_the_same_bytes_in_any_process(tmp_path: Path, trace: Path) -> None:
    code = "from watteau.app import main; main()"
    for name in ("a", "b"):
        arguments = ["simulate", PAI_160, "--trace", trace, "--seed", "5", "--load", "0.9", "--days", "2", "--out"]
        subprocess.run([sys.executable, "-c", code, *map(str, arguments), str(tmp_path / name)], check=True)
    for file in ("jobs.parquet", "hours.parquet", "reasons.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_without_a_trace_a_workload_is_generated_and_marked() -> None:
    result = run(PAI_160, "--days", "0.5")
    assert result.exit_code == 0
    assert "(synthetic)" in result.stdout
    assert summary_of(PAI_160, "--days", "0.5")["workload_synthetic"] is True


def test_notes_speak_of_the_tenants_that_the_jobs_have() -> None:
    notes = summary_of(ONE_MACHINE, "--days", "0.01")["workload_notes"]
    assert sum("tenant" in note for note in notes) == 1
    assert "by share" in notes[-1]


def test_a_workload_without_jobs_is_refused(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.parquet"
    write_workload(jobs_of(), nothing)
    for more in ((), ("--load", "0.5"), ("--days", "3"), ("--load", "0.5", "--days", "3")):
        assert f"{nothing}: a workload without jobs; expected at least one job" in refused(
            ONE_MACHINE, "--trace", nothing, *more
        )


def test_the_table_fits_80_columns_and_says_what_was_drawn(trace: Path, tmp_path: Path) -> None:
    result = run(FRANCE, "--trace", trace, "--out", tmp_path / "out")
    assert max(len(line) for line in result.stdout.splitlines() if "report.html" not in line) <= 80
    words = " ".join(result.stdout.split())
    assert "partly drawn, see notes" in words
    assert "Workload: synthetic: 200 jobs without a tenant were given one of" in words


def test_markup_in_names_is_shown_and_not_obeyed(tmp_path: Path, trace: Path) -> None:
    text = PAI_160.read_text(encoding="utf-8")
    lines = ['name = "[/bold] [red]F"' if line.startswith("name =") else line for line in text.splitlines()]
    fleet = tmp_path / "fleet.toml"
    fleet.write_text("\n".join(lines), encoding="utf-8")
    result = run(fleet, "--trace", trace)
    assert result.exit_code == 0
    assert "[/bold] [red]F" in result.stdout


def test_days_cut_a_trace_and_with_a_load_they_draw_it_anew(trace: Path) -> None:
    cut = summary_of(PAI_160, "--trace", trace, "--days", "0.5")
    assert cut["jobs"] == 72
    assert "only the 72 jobs of the first 0.5 days" in cut["workload_notes"]
    drawn = summary_of(PAI_160, "--trace", trace, "--days", "0.5", "--load", "0.7")
    assert any("drawn with replacement" in note and "loaded 0.7" in note for note in drawn["workload_notes"])
    compressed = summary_of(PAI_160, "--trace", trace, "--load", "0.7")
    assert compressed["jobs"] == 200
    assert any("arrival times multiplied" in note for note in compressed["workload_notes"])


def test_a_trace_may_bring_tenants_that_the_fleet_lacks(tmp_path: Path) -> None:
    path = tmp_path / "users.swf"
    path.write_text("1 0 -1 60 4 -1 -1 4 90 -1 1 7 -1 -1 -1 -1 -1 -1\n", encoding="utf-8")
    assert summary_of(FRANCE, "--trace", path)["by_tenant"].keys() == {"user7"}


@pytest.mark.parametrize("start", ["2028-02-29", "2026-03-29", "2026-10-25", "2027-12-31T23:59:59"])
def test_any_start_is_aligned_with_the_weather_of_another_year(trace: Path, year_2013: Path, start: str) -> None:
    summary = summary_of(FRANCE, "--trace", trace, "--start", start, "--supply", year_2013)
    assert summary["energy"]["supply_aligned_from_year"] == 2013
    assert summary["energy"]["supply_synthetic"] is False
    assert summary["energy"]["supply_wh"] > 0
    assert summary["start_utc"].startswith(start)


def test_a_job_larger_than_the_fleet_is_named_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    path.write_text("submit_s,duration_s,gpus\n0,60,99999\n", encoding="utf-8")
    result = run(PAI_160, "--trace", path, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "1 job never started. The job asks for more than" in " ".join(result.stdout.split())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"\x00\x01\x02", "a binary file"),
        (b"\x1f\x8b\x08", "packed with gzip"),
        (b"submit_s,duration_s,gpus\n", "a header and no row"),
        (b"submit_s,duration_s,gpus\n0,x,1\n", ":2: duration_s"),
        (b"submit_s,duration_s,gpus\n99999999999,5,1\n", "at most 36,525 days"),
        (b"submit_s,duration_s,gpus\n0,99999999999,1\n", "at most 36,525 days"),
    ],
)
def test_a_wrong_trace_is_refused_and_leaves_no_file(tmp_path: Path, data: bytes, found: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(data)
    answer = refused(PAI_160, "--trace", path, "--out", tmp_path / "out")
    assert found in answer
    assert "expected" in answer
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["/none.toml"], "/none.toml: No such file"),
        ([PAI_160, "--trace", "/none.csv"], "/none.csv: No such file"),
        ([PAI_160, "--supply", "/none.csv"], "/none.csv: No such file"),
        ([PAI_160, "--policy", "best"], "--policy"),
        ([PAI_160, "--load", "0"], "--load"),
        ([PAI_160, "--load", "nan"], "--load"),
        ([PAI_160, "--load", "1e300"], "expected at most"),
        ([PAI_160, "--days", "-1"], "--days"),
        ([PAI_160, "--days", "1e-9"], "--days"),
        ([PAI_160, "--days", "1e300"], "--days"),
        ([PAI_160, "--days", "inf"], "--days"),
        ([PAI_160, "--start", "tomorrow"], "--start"),
        ([FRANCE, "--start", "2024-12-31"], "expected a time from 2025-01-01"),
        ([FRANCE, "--start", "1969-12-31"], "expected a time from 2025-01-01"),
        ([FRANCE, "--start", "0001-01-01"], "expected a time from 2025-01-01"),
        ([FRANCE, "--start", "9999-12-31"], "to the year 2199"),
    ],
)
def test_a_wrong_option_is_refused_with_its_name_and_the_remedy(arguments: list[object], found: str) -> None:
    assert found in refused(*arguments)


def test_a_supply_file_that_does_not_cover_the_run_is_refused(tmp_path: Path, year_2013: Path, trace: Path) -> None:
    short = tmp_path / "short.csv"
    short.write_text("".join(year_2013.read_text(encoding="utf-8").splitlines(keepends=True)[:50]), encoding="utf-8")
    answer = refused(FRANCE, "--trace", trace, "--supply", short, "--start", "2026-06-01", "--out", tmp_path / "out")
    assert "expected the simulated hours, or a whole year" in answer
    assert not list((tmp_path / "out").iterdir())


def test_a_place_that_is_a_file_is_refused_before_the_run(tmp_path: Path, trace: Path) -> None:
    answer = refused(PAI_160, "--trace", trace, "--out", trace)
    assert answer.startswith(f"{trace}: File exists; expected a directory with room to write into")
    assert trace.read_text(encoding="utf-8").startswith("submit_s")


def test_a_place_where_nothing_can_be_written_is_refused(trace: Path) -> None:
    answer = refused(PAI_160, "--trace", trace, "--out", "/proc/watteau")
    assert "/proc/watteau: " in answer
    assert "expected a directory with room to write into" in answer


@pytest.mark.parametrize("file", FILES)
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, trace: Path, file: str) -> None:
    assert FULL.exists(), "this test writes to a device that is always full"
    out = tmp_path / "out"
    out.mkdir()
    os.symlink(FULL, out / f"{file}.partial")
    answer = refused(PAI_160, "--trace", trace, "--out", out)
    assert "No space left on device; expected " in answer
    assert not list(out.iterdir())


@pytest.mark.data
@pytest.mark.parametrize(
    ("policy", "wait_mean_s", "slowdown"), [("fifo", 2_388_443.8, 66_502.48), ("easy", 97_156.0, 590.05)]
)
def test_lublin_on_one_machine_waits_as_in_the_textbook(
    watteau_data: Path, policy: str, wait_mean_s: float, slowdown: float
) -> None:
    summary = summary_of(ONE_MACHINE, "--trace", watteau_data / "lublin_256.swf", "--policy", policy)
    assert round(summary["wait_mean_s"], 1) == wait_mean_s
    assert round(summary["bounded_slowdown_mean"], 2) == slowdown


@pytest.mark.data
def test_the_pai_trace_runs_on_the_french_fleet_against_the_supply_of_2013(watteau_data: Path) -> None:
    trace, supply = watteau_data / "pai_100k_jobs.csv", watteau_data / "fr_capacity_factors_2013.csv"
    summary = summary_of(FRANCE, "--trace", trace, "--load", "0.8", "--supply", supply)
    assert summary["jobs"] == summary["jobs_started"] == 99_998
    assert summary["energy"]["supply_aligned_from_year"] == 2013
    assert 0 < summary["energy"]["hourly_matched_share"] < 1
