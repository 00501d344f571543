"""The commands of the jobs, against a real server process on this machine."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests.cli.served import ROOT, Served, serving
from watteau.cli.jobs import exit_code_of, ranges
from watteau.cli.main import PARTS, app
from watteau.cli.session import clean, span
from watteau.client import Client
from watteau.domain.requests import JobState, Request
from watteau.server.schemas import JobView


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as served:
        yield served


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str
    raw: bytes


@pytest.fixture
def run(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Run":
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("WATTEAU_URL", served.url)
    monkeypatch.setenv("WATTEAU_TOKEN", served.tokens["ada"])
    monkeypatch.setenv("TZ", "Europe/Paris")
    monkeypatch.chdir(tmp_path)
    return Run()


class Run:
    """`run("ps", "--json")`: the command in this process, without a terminal."""

    def __call__(self, *words: str, stdin: bytes | str = "") -> Said:
        result = CliRunner().invoke(app, list(words), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr, result.stdout_bytes)

    def submit(self, *words: str) -> str:
        """The id of a job that was submitted."""
        said = self("submit", "--parsable", *words)
        assert said.code == 0, said.err
        return said.out.strip()


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from watteau.app import main; main()", *words]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "src")} | more


def on_a_terminal(*words: str, columns: int = 80, until: str = "") -> tuple[str, int]:
    """(what a terminal of that width got, exit code); with `until`, Ctrl-C comes once that is seen."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, command(*words), environment(COLUMNS=str(columns), LINES="24", TERM="xterm"))
    seen = b""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            piece = os.read(terminal, 65_536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
        if until and until.encode() in seen:
            os.kill(child, signal.SIGINT)
            until = ""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(terminal)
    return seen.decode(), code


def plain(text: str) -> list[str]:
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()]


# --- help is fast -----------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
sys.argv = ["watteau", "--help"]
from watteau.app import main
try:
    main()
except SystemExit as ended:
    assert not ended.code
heavy = {"numba", "numpy", "polars", "fastapi", "pydantic", "httpx", "sqlalchemy", "plotly"} & set(sys.modules)
assert not heavy, heavy
"""
    said = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "submit" in said.stdout
    assert "130 interrupted" in " ".join(plain(said.stdout))


@pytest.mark.parametrize("name", sorted(PARTS))
def test_the_line_in_the_help_is_what_the_command_says_of_itself(name: str) -> None:
    group = typer.main.get_command(app)
    loaded = group.load(name)  # type: ignore[attr-defined]
    assert " ".join((loaded.help or "").split("\n\n")[0].split()).startswith(PARTS[name].help)


def test_a_misspelt_command_is_answered_with_the_right_one() -> None:
    said = CliRunner().invoke(app, ["submitt"])
    assert said.exit_code == 2
    assert "submit" in said.stderr


# --- submit -----------------------------------------------------------------------------------------------------------


def test_a_command_is_submitted_and_its_id_printed(run: Run) -> None:
    said = run("submit", "--", "true")
    assert said.code == 0
    assert re.fullmatch(r"submitted job \d+\n", said.out)
    assert re.fullmatch(r"\d+\n", run("submit", "--parsable", "--", "true").out)
    assert json.loads(run("submit", "--json", "--", "true").out)["name"] == "true"
    assert run("submit", "-Q", "--", "true").out == ""


def test_a_job_is_followed_and_its_exit_code_passed_on(run: Run) -> None:
    said = run("submit", "--follow", "--", "sh", "-c", r"printf 'a\000\377\r\n'; sleep 0.2; echo b; exit 7")
    assert said.code == 7
    assert said.raw.endswith(b"\xff\r\nb\n") or "submitted" in said.out  # the runner may mix the two streams
    assert "ended: failed (exit code 7)" in said.err


def test_waiting_ends_with_the_jobs_exit_code(run: Run) -> None:
    assert run("submit", "--wait", "--", "true").code == 0
    assert run("submit", "--wait", "--", "sh", "-c", "exit 9").code == 9
    said = run("submit", "--wait", "--", "sh", "-c", "kill -9 $$")
    assert said.code == 137
    job = run.submit("-J", "array", "-a", "0-2", "--wrap", "exit $((INDEX * 3))")
    assert run("wait", job).code == 3
    assert run("wait", f"{job}_0", f"{job}_2").code == 6
    assert [task["exit_code"] for task in json.loads(run("wait", "--json", job).out)] == [0, 3, 6]


def test_a_script_runs_where_one_is_with_ones_environment(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLOUR", "blue")
    monkeypatch.setenv("MY_API_KEY", "s3cret")
    script = tmp_path / "train.sh"
    script.write_text('#!/bin/sh\n#SBATCH -J inside --qos=x\npwd; echo "$COLOUR-$MY_API_KEY-$WATTEAU_TOKEN-$1"\n')
    said = run("submit", "--follow", "-c", "2", "train.sh", "first", "--wait")
    assert said.code == 0
    assert str(tmp_path) in said.out
    assert "blue---first" in said.out
    assert "line 2: --qos: not used" in said.err
    assert "MY_API_KEY: not passed on" in said.err
    assert "s3cret" in run("submit", "--follow", "--export=ALL,MY_API_KEY", "train.sh").out
    shown = json.loads(run("ps", "--state", "any", "-n", "1", "--json").out)[0]
    assert shown["name"] == "inside"


def test_a_script_comes_from_stdin(run: Run) -> None:
    said = run("submit", "--follow", stdin="#!/bin/sh\n#SBATCH -J piped\necho in $#\n")
    assert "in 0" in said.out
    assert "in 2" in run("submit", "--follow", "-", "a", "b", stdin="#!/bin/sh\necho in $#\n").out


def test_a_dry_run_submits_nothing(run: Run) -> None:
    before = run("ps", "--state", "any", "--json").out
    said = run(
        "submit", "--dry-run", "--export=NONE", "-N2", "--gres=gpu:4", "-p", "Paris", "--nice=5", "--", "x", "-N3"
    )
    asked = json.loads(said.out)
    assert (asked["workers"], asked["gpu_milli"], asked["sites"], asked["command"]) == (
        2,
        4_000,
        ["paris"],
        ["x", "-N3"],
    )
    assert "--nice: ignored" in said.err
    assert run("ps", "--state", "any", "--json").out == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mem=4X", "-t", "soon", "--", "true"], "--time: 'soon'"),
        (["no-such-file"], "watteau submit -- COMMAND"),
        (["--no-such-option", "--", "true"], "No such option"),
        (["--mem"], "--mem: no value; expected --mem SIZE"),
        (["--"], "give either a command or a script"),
        (["--array=0-3", "--follow", "--", "true"], "follows one job"),
        (["--account", "beta", "--", "true"], "beta"),
        (["--dependency=afterok:999999", "--", "true"], "999999"),
        (["--workdir=x", "--", "true"], "No such option"),
        (["--estimate=soon", "--", "true"], "--estimate"),
        (["--follow", "--json", "--", "true"], "one of the two"),
    ],
)
def test_wrong_input_is_explained(run: Run, words: list[str], says: str) -> None:
    said = run("submit", *words)
    assert said.code in (2, 3, 4)
    assert says in said.err
    assert "Traceback" not in said.err


def test_the_same_word_submits_once(run: Run) -> None:
    words = ("--idempotency-key", "once-only", "--", "true")
    assert run.submit(*words) == run.submit(*words)


def test_ctrl_c_leaves_the_job_alone(run: Run) -> None:
    seen, code = on_a_terminal(
        "submit", "--follow", "-J", "endless", "--", "sh", "-c", "echo started; exec sleep 60", until="started"
    )
    assert code == 130
    assert "goes on" in seen
    job = re.search(r"submitted job (\d+)", seen)
    assert job is not None
    assert json.loads(run("show", job[1], "--json").out)["state"] == "running"
    assert run("cancel", job[1]).code == 0
    assert run("wait", job[1]).code != 0


# --- looking ----------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_as_plain_lines_in_a_pipe(run: Run) -> None:
    job = run.submit("-J", "stay-listed", "--gpus=2", "--", "true")
    _until(lambda: "CAPACITY" in run("show", job).out)
    lines = [line.split("\t") for line in run("ps", "--name", "stay-listed").out.splitlines()]
    assert lines[0] == ["JOB", "NAME", "STATE", "FOR", "GPUS", "WHERE OR WHY"]
    assert [lines[1][at] for at in (0, 1, 2, 4, 5)] == [
        job,
        "stay-listed",
        "waiting",
        "2",
        "8 GPUs are asked for, 3 are free",
    ]
    assert run("ps", "--state", "nonsense").code == 2
    assert len(json.loads(run("ps", "--name", "stay-listed", "--json").out)) == 1
    assert run("ps", "--all", "--name", "stay-listed").out.splitlines()[0].split("\t")[2:4] == ["USER", "TENANT"]
    run("cancel", job)


def test_tasks_that_stand_alike_share_a_line(run: Run) -> None:
    job = run.submit("-J", "stay-many", "-a", "0-4", "-H", "--", "true")
    run("release", f"{job}_3")
    labels = [line.split("\t")[0] for line in run("ps", "--name", "stay-many").out.splitlines()[1:]]
    assert sorted(labels) == [f"{job}_3", f"{job}_[0-2,4]"]
    run("cancel", job)


def test_a_table_fits_on_eighty_columns(run: Run) -> None:
    job = run.submit("-J", "stay-" + "x" * 90, "-a", "10-19", "--", "true")
    shorter = run.submit("-J", "stay [red]not markup[/red]", "--", "true")
    _until(lambda: "CAPACITY" in run("show", shorter).out)
    for words in (
        ["ps"],
        ["ps", "--all"],
        ["why", shorter],
        ["story", shorter],
        ["show", shorter],
        ["sites"],
        ["usage"],
        ["energy"],
        ["energy", "--hourly", "--since", "now-2hours"],
    ):
        seen, code = on_a_terminal(*words)
        assert code == 0
        assert max(map(len, plain(seen))) <= 80, seen
    lines = plain(on_a_terminal("ps")[0])
    assert any(line.startswith(f"{job}_[10-19]") for line in lines)
    assert any("stay [red]" in line for line in lines)
    run("cancel", job, shorter)


def test_names_cannot_move_the_cursor() -> None:
    assert clean("a\x1b[2Jb\u202ec\n") == "a\ufffd[2Jb\ufffdc\ufffd"


def test_watching_shows_the_list_until_ctrl_c(run: Run) -> None:
    job = run.submit("-J", "stay-watched", "--", "true")
    seen, code = on_a_terminal("ps", "--watch", until="stay-watched")
    assert code == 130
    assert "\x1b[?1049h" in seen  # the other screen, so that the scrollback stays as it was
    run("cancel", job)


def test_what_a_job_wrote_is_passed_through_unchanged(run: Run, served: Served) -> None:
    with Client(served.url, served.tokens["ada"]) as client:
        job = client.submit(Request(command=("sh", "-c", r"printf 'a\000\377\r\n\033[2J'; echo e >&2"))).label
        client.wait(job)
    _until(lambda: run("logs", job).raw == b"a\x00\xff\r\n\x1b[2J")
    assert run("logs", "--follow", job).raw == b"a\x00\xff\r\n\x1b[2J"
    assert run("logs", "--stderr", job).raw == b"e\n"
    assert json.loads(run("logs", "--stderr", "--json", job).out)["text"] == "e\n"
    assert run("logs", "--attempt", "5", job).code == 3


def test_a_job_is_shown_with_all_that_was_asked_for(run: Run) -> None:
    job = run.submit("-J", "shown", "-c", "2", "--mem=1G", "-t", "5", "--", "sh", "-c", "exit 2")
    run("wait", job)
    fields = dict(line.split("\t", 1) for line in run("show", job).out.splitlines() if "\t" in line)
    assert fields["state"] == "failed"
    assert fields["ended by"] == "exit code 2"
    assert fields["asked for"] == "1 worker with 2 cores, 1,024 MiB each"
    assert fields["time limit"] == "300 s"
    assert fields["submitted"].split()[-1] in ("CET", "CEST")
    assert len(json.loads(run("show", job, "--json").out)["attempt_list"]) == 1


def test_why_gives_the_reason_its_evidence_and_what_would_help(run: Run) -> None:
    job = run.submit("-J", "stay-why", "--", "true")
    _until(lambda: "CAPACITY" in run("why", job).out)
    said = run("why", job).out
    assert "Not enough GPUs, CPU cores or memory are free together." in said
    assert "2 jobs ahead of it" in said
    assert "p\tparis\tH100\t3\t0\tno free node" in said
    assert "what would help: Wait for jobs to end" in said
    assert json.loads(run("why", job, "--json").out)["who_can_act"] == "nobody"
    run("cancel", job)
    run("wait", job)
    assert "is cancelled" in run("why", job).out


def test_the_story_is_in_order_with_times(run: Run) -> None:
    job = run.submit("--", "true")
    run("wait", job)
    rows = [line.split("\t") for line in run("story", job).out.splitlines()[1:]]
    assert [row[1] for row in rows] == ["submitted", "intended", "started", "ended", "finished"]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} C", row[0]) for row in rows)
    assert len(json.loads(run("story", job, "--json").out)) == 5


def test_sites_and_usage(run: Run) -> None:
    assert "paris\tready\tdrive\t4/-\t-\t-/32\t2\t12+3\t-" in run("sites").out
    assert json.loads(run("sites", "--json").out)[0]["id"] == "paris"
    assert run("usage", "--by", "user").out.splitlines()[0].startswith("USER\tGPU-HOURS")
    assert json.loads(run("usage", "--since", "now-1day", "--json").out)["by"] == "tenant"
    assert run("usage", "--since", "tomorrow").code == 2
    assert run("usage", "--since", "soon").code == 2


def test_the_energy_books_are_of_ones_own_jobs_or_whole(
    run: Run, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = run("energy", "--since", "now-2hours")
    assert mine.out.splitlines()[0] == "SITE (kWh)\tJOBS\tBY HAND"
    assert "only of jobs that you may see" in mine.err
    monkeypatch.setenv("WATTEAU_TOKEN", served.tokens["root"])
    headings = ["JOBS", "BY HAND", "IDLE", "OVERHEAD", "METER", "SUPPLY", "MATCHED", "SHARE"]
    whole = run("energy", "--since", "now-2hours", "--site", "paris", "--hourly")
    assert whole.code == 0, whole.err
    tables = [line.split("\t") for line in whole.out.splitlines()]
    assert tables[0] == ["HOUR (kWh)", *headings]
    assert ["SITE (kWh)", *headings] in tables
    assert tables[-1][0] == "paris"
    assert tables[-1][-1] == "0.0%"
    assert len(tables) == 6
    assert "supply: the fleet file has no contracts" in whole.err
    assert "0.0% was met by renewable supply of the same hour" in whole.err
    said = json.loads(run("energy", "--since", "now-2hours", "--json").out)
    (paris,) = said["sites"]
    assert sum(paris[part] for part in ("jobs_wh", "by_hand_wh", "idle_wh", "overhead_wh")) == paris["site_wh"] > 0
    assert said["hours"] == []
    assert len(json.loads(run("energy", "--since", "now-2hours", "--json", "--hourly").out)["hours"]) == 3
    seen, code = on_a_terminal("energy", "--hourly", "--since", "now-2hours")
    assert code == 0
    assert max(map(len, plain(seen))) <= 80, seen
    assert any(" * " in line for line in plain(seen)), "the hour that is not over is marked"


def test_a_span_or_a_site_without_sense_has_no_energy_books(run: Run) -> None:
    for words, says in (
        (("--since", "soon"), "--since: 'soon'; expected"),
        (("--since", "tomorrow"), "--since comes before --until"),
        (("--since", "2001-01-01"), "at most 8,784 are settled at once"),
        (("--site", "mars"), "no site with an engine has this id; there are: paris"),
    ):
        said = run("energy", *words)
        assert (said.code, said.out) == (2, "")
        assert says in said.err


# --- changing ---------------------------------------------------------------------------------------------------------


def test_tasks_and_arrays_are_held_released_and_cancelled(run: Run) -> None:
    job = run.submit("-J", "stay-change", "-a", "0-9", "--", "true")
    assert run("hold", f"{job}_[1-3,7]").out.splitlines() == [f"held {job}_{index}" for index in (1, 2, 3, 7)]
    assert run("release", job).out == f"released {job} (10 tasks)\n"
    assert len(json.loads(run("cancel", "--json", job).out)) == 10
    assert json.loads(run("show", f"{job}_9", "--json").out)["cancel_requested"]


def test_one_that_is_refused_does_not_keep_the_others(run: Run) -> None:
    job = run.submit("-J", "stay-refused", "--", "true")
    said = run("cancel", "999999", job)
    assert said.code == 3
    assert f"cancelling {job}" in said.out
    assert "999999" in said.err


def test_more_than_one_array_is_confirmed(run: Run) -> None:
    arrays = [run.submit("-J", "stay-two", "-a", "0-1", "--", "true") for _ in range(2)]
    said = run("cancel", *arrays)
    assert said.code == 2
    assert "--yes" in said.err
    assert run("cancel", "--yes", *arrays).code == 0


def test_all_of_ones_own_are_confirmed(run: Run) -> None:
    run.submit("-J", "stay-all", "--", "true")
    assert run("cancel", "--all").code == 2
    assert run("cancel", "--all", "-y").code == 0
    _until(lambda: run("ps").out.count("\n") == 1)
    assert run("cancel", "--all", "-y").out == "no job to change\n"
    assert run("cancel").code == 2
    assert run("cancel", "--all", "1").code == 2


@pytest.mark.parametrize(
    "word", ["x", "1_", "1_[", "1_[a]", "1_[3-1]", "-1", "1_2_3", "\u0661", "../1", "1_[0-99999999]"]
)
def test_what_is_no_job_is_wrong_input(run: Run, word: str) -> None:
    assert run("cancel", "--", word).code == 2


# --- who is asking ----------------------------------------------------------------------------------------------------


def test_logging_in_and_out(run: Run, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATTEAU_TOKEN")
    assert run("ps").code == 4
    assert run("login", stdin="wt_wrong\n").code == 4
    said = run("login", stdin=f"{served.one_time_token}\n")
    assert said.code == 0, said.err
    assert "as ada" in said.out
    file = tmp_path / "config" / "watteau" / "settings.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    monkeypatch.delenv("WATTEAU_URL")
    assert run("ps").code == 0
    assert run("login", served.url, "--one-time-token", served.one_time_token).code == 4  # once
    file.chmod(0o644)
    assert f"chmod 600 {file}" in run("ps").err
    assert run("logout").code == 0
    assert "wt_" not in file.read_text()
    assert run("ps").code == 4
    assert run("logout").out == "not logged in\n"


def test_a_password_is_read_from_stdin(run: Run, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTEAU_TOKEN", served.tokens["root"])
    said = run("users", "add", "carl", "--role", "member:beta", "--password", stdin="correct horse battery\n")
    assert said.code == 0, said.err
    monkeypatch.delenv("WATTEAU_TOKEN")
    assert run("login", "--user", "carl", stdin="wrong horse battery\n").code == 4
    assert "as carl" in run("login", "--user", "carl", stdin="correct horse battery\n").out


def test_accounts_are_managed(run: Run, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("users", "list").code == 4
    monkeypatch.setenv("WATTEAU_TOKEN", served.tokens["root"])
    assert re.fullmatch(r"wt_\S+\n", run("users", "add", "dora", "--role", "member:beta").out)
    assert run("users", "add", "dora", "--role", "member:beta").code == 2
    assert run("users", "add", "x", "--role", "king:beta").code == 2
    assert run("users", "change", "dora").code == 2
    assert run("users", "change", "dora", "--disable").code == 2  # nobody to ask
    assert run("users", "change", "dora", "--disable", "--yes").code == 0
    assert "dora\tdisabled\tmember:beta" in run("users", "list").out
    assert run("users", "change", "dora", "--enable", "--role", "auditor:beta").code == 0
    assert "dora\tactive\tauditor:beta" in run("users", "list").out


def test_tokens_are_made_and_revoked(run: Run) -> None:
    made = json.loads(run("tokens", "add", "ci", "--scope", "read", "--days", "2", "--json").out)
    assert made["about"]["scopes"] == ["read"]
    number = str(made["about"]["id"])
    assert number in run("tokens", "list").out
    assert made["token"] not in run("tokens", "list", "--json").out
    assert run("tokens", "revoke", number).code == 0
    assert run("tokens", "revoke", "999999").code == 3


def test_no_server_is_said_and_has_its_own_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTEAU_URL", "http://127.0.0.1:9")
    said = run("ps")
    assert said.code == 5
    assert "cannot reach http://127.0.0.1:9" in said.err


# --- completion -------------------------------------------------------------------------------------------------------


def completed(words: str, **more: str) -> list[str]:
    """What bash would be offered for the last word."""
    asked = {"_WATTEAU_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    code = "import sys; sys.argv = ['watteau']; from watteau.app import main; main()"
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment(**asked, **more), capture_output=True, text=True, check=False
    )
    return said.stdout.split()


def test_commands_jobs_and_states_are_completed(run: Run) -> None:
    job = run.submit("-J", "stay-complete", "--", "true")
    assert completed("watteau sub") == ["submit"]
    assert job in completed("watteau cancel ")
    assert completed("watteau ps --state wai") == ["waiting"]
    assert completed("watteau cancel ", WATTEAU_URL="http://127.0.0.1:9") == []
    run("cancel", job)


# --- small things -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("indices", "text"), [([1], "1"), ([1, 2, 3], "1-3"), ([0, 2, 3, 9], "0,2-3,9")])
def test_indices_are_written_as_ranges(indices: list[int], text: str) -> None:
    assert ranges(indices) == text


@pytest.mark.parametrize(
    ("state", "exit_code", "signalled", "code"),
    [
        ("completed", 0, None, 0),
        ("failed", 3, None, 3),
        ("failed", None, 9, 137),
        ("timed_out", None, 15, 143),
        ("cancelled", None, None, 1),
        ("failed", 300, None, 1),
        ("running", None, None, 1),
    ],
)
def test_exit_codes_of_jobs(state: str, exit_code: int | None, signalled: int | None, code: int) -> None:
    fields = {name: None for name in JobView.model_fields}
    known: dict[str, Any] = {**fields, "state": JobState(state), "exit_code": exit_code, "signal": signalled}
    job = JobView.model_construct(**known)
    assert exit_code_of(job) == code


def test_spans_are_short() -> None:
    texts = [span(timedelta(seconds=seconds)) for seconds in (-1, 5, 65, 3_725, 90_000)]
    assert texts == ["0s", "5s", "1m05s", "1h02m", "1d01h"]


def _until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
