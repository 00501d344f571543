"""`watteau simulate` of what really ran: its dates, what was recorded of it, and where it comes from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.cli.test_import_sacct import YEAR, export
from tests.simulation.test_history import JOB, NOON_MS
from watteau.cli.main import app
from watteau.domain.sites import SiteJob
from watteau.store.store import Store

ROOT = Path(__file__).parents[2]
ONE_MACHINE = ROOT / "examples" / "one-machine-256.toml"
RECORD = ("--from-site", "paris", "--db", "sqlite:////nowhere.db")
FRANCE = ROOT / "examples" / "france.toml"


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
    return " ".join(result.stderr.replace("\u2502", " ").split())


@pytest.fixture
def year(tmp_path: Path) -> Path:
    path = tmp_path / "year.sacct"
    path.write_text(YEAR, encoding="utf-8")
    return path


@pytest.fixture
def database(tmp_path: Path) -> str:
    """What Watteau recorded of paris: 1,200 jobs, of which one runs still."""
    url = f"sqlite:///{tmp_path / 'watteau.db'}"
    with Store(url).closing() as store:
        lease = store.lead("test", NOON_MS, 60_000)
        assert lease is not None
        store.keep_site_jobs(lease, [_later(number) for number in range(1_200)])
    return url


def _later(number: int) -> SiteJob:
    began_ms = NOON_MS + 60_000 * number
    job = replace(
        JOB,
        engine_id=str(100 + number),
        submitted_ms=began_ms,
        eligible_ms=began_ms,
        started_ms=began_ms + 120_000,
        ended_ms=began_ms + 600_000,
    )
    return job if number else replace(job, state=job.state.RUNNING, ended_ms=None)


def test_a_trace_with_dates_is_replayed_on_them_beside_what_was_recorded(year: Path) -> None:
    summary = summary_of(ONE_MACHINE, "--trace", year, "--any-gpu-model")
    assert summary["start_utc"] == "2026-03-02T10:00:00+00:00"
    assert summary["jobs_started"] == 4
    assert summary["wait_mean_s"] == 0
    assert summary["recorded"]["wait_mean_s"] == (3 * 300 + 180) / 4
    assert summary["recorded"]["makespan_s"] == 3_900
    assert summary["recorded"]["gpus_held_mean"] == pytest.approx(8 * 3_600 / 3_900)
    assert summary["recorded"]["gpus_there_mean"] is None
    assert summary["gpus_held_mean"] == pytest.approx(8 * 3_600 / summary["makespan_s"])
    assert summary["gpus_there_mean"] == 256


def test_the_table_has_both_in_80_columns(year: Path) -> None:
    result = run(ONE_MACHINE, "--trace", year)
    assert result.exit_code == 0
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    words = " ".join(result.stdout.split())
    assert "here \u2503 as recorded" in words
    assert "wait, mean \u2502 0 s \u2502 4.5 min" in words
    assert (
        "1 job never started. No pool of this fleet has a GPU model that the job allows. (NO_SUCH_GPU_MODEL)" in words
    )


def test_a_fleet_that_is_whole_only_later_gets_the_same_day_of_a_later_year(year: Path) -> None:
    summary = summary_of(FRANCE, "--trace", year)
    start = str(summary["start_utc"])
    assert start.endswith("-03-02T10:00:00+00:00")
    assert start > "2026"
    assert any(
        note.startswith("its jobs arrived from 2026-03-02T10:00:00+00:00 on") for note in summary["workload_notes"]
    )
    assert summary_of(FRANCE, "--trace", year, "--start", "2029-05-01")["start_utc"] == "2029-05-01T00:00:00+00:00"


def test_a_leap_day_is_the_28th_where_there_is_none(tmp_path: Path) -> None:
    leap = {name: "2024-02-29T08:00:00" for name in ("Submit", "Eligible", "Start")}
    trace = tmp_path / "leap.sacct"
    trace.write_text(export(leap), encoding="utf-8")
    start = str(summary_of(FRANCE, "--trace", trace)["start_utc"])
    assert start[4:] == ("-02-28T08:00:00+00:00" if int(start[:4]) % 4 else "-02-29T08:00:00+00:00")


def test_when_arrivals_are_changed_nothing_is_recorded_of_them(year: Path) -> None:
    assert summary_of(ONE_MACHINE, "--trace", year, "--load", "0.01")["recorded"] is None


def test_what_watteau_recorded_is_replayed_from_its_database(database: str) -> None:
    record = (FRANCE, "--from-site", "paris", "--db", database)
    summary = summary_of(*record, "--since", "2026-03-01", "--until", "2026-03-09")
    assert summary["workload"] == "record of paris, 2026-03-01 to 2026-03-09"
    assert summary["jobs"] == summary["jobs_started"] == 1_199
    assert summary["recorded"]["wait_mean_s"] == 120
    assert any(note.startswith("1 jobs have not ended") for note in summary["workload_notes"])
    empty = refused(*record, "--since", "2025-01-01", "--until", "2025-02-01")
    assert "record of paris, 2025-01-01 to 2025-02-01: no job that ended; expected at least one job" in empty


def test_a_database_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    assert f"--db: no file {missing}" in refused(FRANCE, "--from-site", "paris", "--db", f"sqlite:///{missing}")
    assert not missing.exists()
    assert "--db: " in refused(FRANCE, "--from-site", "paris", "--db", "mysql://here")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from-site", "lyon"), "france.toml: no site 'lyon'; expected one of paris, marseille, mulhouse"),
        (("--from-site", "paris"), "site paris with engine simulated and no accounting; expected a site with a table"),
        (("--from-site", "none.toml:paris"), "none.toml: No such file or directory"),
        (("--from-site", "paris", "--trace", "x"), "give --trace or --from-site, not both"),
        (("--refresh",), "--refresh and --db go with --from-site"),
        (("--since", "2026-01-01"), "--since and --until go with --from-site"),
        (
            ("--from-site", "paris", "--db", "sqlite:////x", "--since", "2026-02-02", "--until", "2026-02-02"),
            "not before",
        ),
        (("--from-site", "paris", "--db", "sqlite:////x", "--since", "2150-01-01", "--until", "2151-01-01"), "to come"),
        (("--from-site", "paris", "--since", "soon"), "expected"),
    ],
)
def test_wrong_words_are_refused_with_a_remedy(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(FRANCE, *arguments)
