"""`watteau workload import-sacct`: what a person gets for a year of accounting, and for what is not one."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from watteau.cli.workload import workload_app
from watteau.workload.formats import read_workload

JOB = {
    "JobIDRaw": "100",
    "JobID": "100",
    "Submit": "2026-03-02T10:00:00",
    "Eligible": "2026-03-02T10:00:00",
    "Start": "2026-03-02T10:05:00",
    "End": "2026-03-02T11:05:00",
    "ElapsedRaw": "3600",
    "AllocTRES": "billing=8,cpu=8,gres/gpu=2,mem=64G,node=1",
    "ReqTRES": "billing=8,cpu=8,gres/gpu=2,mem=64G,node=1",
    "TimelimitRaw": "120",
    "State": "COMPLETED",
    "Account": "lab",
    "User": "ann",
}
HEADER = list(JOB)
NEVER = {"Start": "Unknown", "Eligible": "Unknown", "ElapsedRaw": "0", "AllocTRES": "", "State": "CANCELLED by 1000"}


def export(*jobs: dict[str, str], columns: list[str] = HEADER) -> str:
    """What sacct writes of jobs that differ from JOB as said."""
    rows = [JOB | {"JobIDRaw": str(100 + at), "JobID": str(100 + at)} | job for at, job in enumerate(jobs)]
    return "".join("|".join(line) + "\n" for line in [columns, *([row[name] for name in columns] for row in rows)])


YEAR = export(
    {},
    {"JobID": "90_1", "Eligible": "2026-03-02T10:02:00"},
    {"JobID": "90_2", "State": "NODE_FAIL", "Account": "atelier", "User": "bob"},
    {"State": "TIMEOUT", "ReqTRES": "cpu=8,gres/gpu:h100=2,node=1", "User": "cleo"},
    {"State": "RUNNING", "End": "Unknown"},
    NEVER,
)


def run(*arguments: object, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(workload_app, ["import-sacct", *(str(argument) for argument in arguments)], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refused(*arguments: object, stdin: str | None = None) -> str:
    """What stderr says, in one line, when nothing was written."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return " ".join(result.stderr.replace("\u2502", " ").split())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "year.parquet"


@pytest.fixture
def year(tmp_path: Path) -> Path:
    path = tmp_path / "year.sacct"
    path.write_text(YEAR, encoding="utf-8")
    return path


def test_a_file_becomes_a_workload_and_the_summary_says_what_is_in_it(year: Path, out: Path) -> None:
    result = run(year, "--out", out)
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    for said in (
        "4 jobs from sacct year.sacct",
        "first arrival 2026-03-02T10:00:00+00:00",
        "GPU-hours 8.0",
        "lab \u2502 3 \u2502 75.0% \u2502 6.0",
        "h100 \u2502 1 \u2502 25.0%",
        "any \u2502 3 \u2502 75.0%",
        "1 jobs have not ended, so that their run time is unknown: left out",
        "1 jobs ended before they started: left out",
        "1 jobs were ended by their limit",
        "1 jobs were eligible after they were submitted",
    ):
        assert said in words
    assert max(len(line) for line in result.stdout.splitlines() if str(out) not in line) <= 80
    workload = read_workload(out)
    assert workload.waited_s is not None
    assert sorted(workload.waited_s.tolist()) == [180, 300, 300, 300]
    assert workload.zero_s == 1_772_445_600
    assert sorted(set(workload.tenants)) == ["atelier/bob", "lab/ann", "lab/cleo"]


def test_standard_input_gives_the_same_jobs(year: Path, out: Path, tmp_path: Path) -> None:
    assert run(year, "--out", out).exit_code == 0
    piped = tmp_path / "piped.parquet"
    result = run("-", "--out", piped, stdin=YEAR)
    assert result.exit_code == 0, result.output
    assert "sacct from standard input" in result.stdout
    one, other = read_workload(out), read_workload(piped)
    assert one.job_id.tolist() == other.job_id.tolist()
    assert (one.shapes, one.tenants, one.notes) == (other.shapes, other.tenants, other.notes)


def test_the_order_of_columns_means_nothing(out: Path, tmp_path: Path) -> None:
    backwards = tmp_path / "backwards.parquet"
    assert run("-", "--out", out, stdin=export({}, {"User": "zoe"})).exit_code == 0
    assert run("-", "--out", backwards, stdin=export({}, {"User": "zoe"}, columns=HEADER[::-1])).exit_code == 0
    one, other = read_workload(out), read_workload(backwards)
    assert (one.shapes, one.tenants, one.notes) == (other.shapes, other.tenants, other.notes)


def test_convert_writes_the_same_file(year: Path, out: Path, tmp_path: Path) -> None:
    assert run(year, "--out", out).exit_code == 0
    converted = tmp_path / "converted.parquet"
    assert CliRunner().invoke(workload_app, ["convert", str(year), str(converted)]).exit_code == 0
    assert converted.read_bytes() == out.read_bytes()


def test_json_has_the_figures_for_another_program(year: Path, out: Path) -> None:
    figures: dict[str, Any] = json.loads(run(year, "--out", out, "--json").stdout)
    assert figures["jobs"] == 4
    assert figures["accounts"][0] == {
        "account": "lab",
        "tenants": 2,
        "jobs": 3,
        "share": 0.75,
        "gpu_hours": 6.0,
        "gpu_hours_share": 0.75,
    }
    assert [row["gpu_model"] for row in figures["gpu_models"]] == [None, "h100"]
    assert figures["waited_s"]["max"] == 300


def test_times_may_be_narrowed_to_a_span(out: Path) -> None:
    days = [{"Submit": f"2026-03-0{day}T10:00:00", "Eligible": f"2026-03-0{day}T10:00:00"} for day in (1, 2, 3)]
    days = [day | {"Start": day["Submit"]} for day in days]
    result = run("-", "--out", out, "--since", "2026-03-02T00:00", "--until", "2026-03-03T00:00", stdin=export(*days))
    assert result.exit_code == 0, result.output
    workload = read_workload(out)
    assert workload.job_id.tolist() == [101]
    assert workload.submit_s.tolist() == [0]
    assert workload.zero_s == 1_772_445_600
    assert "2 jobs arrived at other times than asked for: left out" in result.stdout


def test_a_span_without_a_job_says_when_there_were_some(year: Path, out: Path) -> None:
    text = refused(year, "--out", out, "--since", "2027-01-01")
    assert "no job from 2027-01-01" in text
    assert "expected a part of 2026-03-02T10:00:00+00:00 to" in text
    assert not out.exists()


def test_since_after_until_is_refused(year: Path, out: Path) -> None:
    text = refused(year, "--out", out, "--since", "2026-03-03", "--until", "2026-03-02")
    assert "--since: 2026-03-03, which is not before 2026-03-02; expected a time before --until" in text
    assert "expected a time like" in refused(year, "--out", out, "--since", "soon")


def test_an_hour_that_the_clock_shows_twice_is_counted_and_one_that_it_skips_is_a_fault(out: Path) -> None:
    autumn = {name: "2026-10-25T02:30:00" for name in ("Submit", "Eligible")} | {"Start": "2026-10-25T03:10:00"}
    result = run("-", "--out", out, "--timezone", "Europe/Paris", stdin=export(autumn))
    assert "1 Submit times fall in an hour that the clock of Europe/Paris shows twice" in " ".join(
        result.stdout.split()
    )
    workload = read_workload(out)
    assert workload.waited_s is not None
    assert workload.waited_s.tolist() == [6_000]  # an hour more than the clock's hands say
    spring = {"Eligible": "2026-03-29T02:30:00"}
    text = refused("-", "--out", out, "--timezone", "Europe/Paris", stdin=export(spring))
    assert "standard input:2: Eligible: '2026-03-29T02:30:00'; expected a time that exists in Europe/Paris" in text


def test_missing_columns_are_named_with_the_command_that_writes_all(out: Path) -> None:
    text = refused("-", "--out", out, stdin=export({}, columns=HEADER[:7]))
    assert "standard input:1: AllocTRES or ReqTRES: no such column" in text
    assert text.count("SLURM_TIME_FORMAT=%s sacct --allusers --allocations --parsable2 --starttime=") == 1
    assert "4 faults found; nothing was changed" in text


def test_a_file_without_its_header_is_recognised(out: Path) -> None:
    text = refused("-", "--out", out, stdin=YEAR.partition("\n")[2])
    assert "standard input:1: a job where the header should be" in text
    assert "no --noheader" in text


def test_a_file_that_ends_in_the_middle_of_a_line_is_refused_by_that_line(out: Path) -> None:
    text = refused("-", "--out", out, stdin=YEAR[: -len("|lab|ann\n")])
    assert "standard input:7: 11 fields (the file ends in the middle of this line); expected 13" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "an empty file"),
        ("\n\n", "nothing but blank lines"),
        ("submit_s,duration_s,gpus\n0,1,1\n", "no header of sacct, but 'submit_s,duration_s,gpus'"),
        (export(), "no job that ended"),
        (export(NEVER), "no job that ended; 1 jobs ended before they started"),
    ],
)
def test_what_is_no_accounting_is_refused_with_a_remedy(content: str, said: str, out: Path) -> None:
    text = refused("-", "--out", out, stdin=content)
    assert f"standard input: {said}" in text or f"standard input:1: {said}" in text
    assert "expected" in text
    assert not out.exists()


def test_places_that_cannot_be_read_or_written_are_named(year: Path, tmp_path: Path, out: Path) -> None:
    assert "Is a directory" in refused(tmp_path, "--out", out)
    assert "No such file" in refused(tmp_path / "none", "--out", out)
    assert f"{tmp_path}/no/where.parquet: no such folder" in refused(year, "--out", tmp_path / "no" / "where.parquet")


@contextmanager
def without_rights() -> Iterator[None]:
    """Root may read everything: it is somebody else here."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_what_may_not_be_read_or_written_is_named(year: Path, out: Path, tmp_path: Path) -> None:
    year.chmod(0)
    tmp_path.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with without_rights(), tempfile.TemporaryDirectory() as mine:
        assert "Permission denied" in refused(year, "--out", Path(mine) / "year.parquet")
        assert "Permission denied" in refused("-", "--out", closed / "inner" / "year.parquet", stdin=YEAR)


def test_a_file_or_a_site_with_its_fleet_is_wanted_and_not_both(year: Path, out: Path) -> None:
    for arguments in ((), (year, "--site", "paris", "--fleet", year), ("--site", "paris"), (year, "--fleet", year)):
        assert "give FILE (or - for stdin), or --site together with --fleet" in refused(*arguments, "--out", out)


def test_names_of_accounts_are_shown_and_not_obeyed(out: Path) -> None:
    result = run("-", "--out", out, stdin=export({"Account": "[red]lab"}))
    assert "[red]lab" in result.stdout
