"""`watteau up` as a process: what it prints, how it is refused, and the demonstration to its end."""

import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from watteau.up import _listen

UP = "import sys; from watteau.app import main; sys.argv[0] = 'watteau'; main()"


def up(*arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [sys.executable, "-c", UP, "up", *arguments],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def test_answers_do_not_wait_for_the_acknowledgement_of_the_one_before() -> None:
    """asyncio sets TCP_NODELAY on a connection only where its protocol is named, and it inherits what listens."""
    with _listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_the_demonstration_runs_a_real_job_and_ends(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("<!doctype html>", encoding="utf-8")
    done = up("--demo", "--once", "--port", "0", "--data-dir", str(tmp_path / "home"), "--report", str(report))
    assert done.returncode == 0, done.stderr
    assert "ran on this machine: completed, exit code 0" in done.stderr
    assert "| step 3 of 3" in done.stderr
    assert re.search(r"The replay's report: http://127\.0\.0\.1:\d+/report", done.stderr)
    assert re.search(r"watteau login http://127\.0\.0\.1:\d+ --one-time-token wt_[\w-]{43}\n", done.stderr)
    home = tmp_path / "home" / "demo"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "watteau.db").stat().st_mode) == 0o600
    token = re.findall(r"wt_[\w-]{43}", done.stderr)[0]
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert token.encode() not in kept, "only its digest is kept"


def test_what_is_wrong_is_said_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = up("--port", str(port), "--data-dir", str(tmp_path))
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--port 0 takes any" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--policy", "best"), "one of fifo, easy, hybrid, conservative"),
        (("--fleet", "no-such.toml"), "no-such.toml"),
        (("--db", "postgresql://nobody@127.0.0.1:1/none"), "a database that can be opened and written"),
        (("--db", "carrier-pigeon://"), "--db"),
        (("--data-dir", "/proc/watteau"), "a folder that can be written"),
        (("--host", "256.1.1.1"), "256.1.1.1"),
        (("--supply", "no-such.csv"), "no-such.csv"),
    ],
)
def test_a_wrong_option_ends_with_code_2_and_no_traceback(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    home = () if "--data-dir" in arguments else ("--data-dir", str(tmp_path))
    done = up("--port", "0", *home, *arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_capacity_factors_that_say_nothing_of_most_hours_are_refused(tmp_path: Path) -> None:
    """Otherwise the energy books would fail in summer."""
    january = tmp_path / "january.csv"
    hours = [f"2026-01-{1 + hour // 24:02}T{hour % 24:02}:00:00,0.1,0.2,0.3,0.4" for hour in range(31 * 24)]
    header = "hour_utc,solar,wind_onshore,wind_offshore,hydro_run_of_river"
    january.write_text("\n".join([header, *hours]), encoding="utf-8")
    done = up("--port", "0", "--data-dir", str(tmp_path / "home"), "--supply", str(january))
    assert done.returncode == 2
    assert "which say nothing about 2026-02-01 00:00" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fleet_file_with_an_engine_that_cannot_be_driven_is_refused(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[1] / "examples" / "france.toml"
    text = example.read_text(encoding="utf-8").replace('engine = "simulated"', 'engine = "kubernetes"', 1)
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(text, encoding="utf-8")
    done = up("--port", "0", "--data-dir", str(tmp_path / "home"), "--fleet", str(fleet))
    assert done.returncode == 2
    assert "kubernetes, which this version cannot drive" in done.stderr
