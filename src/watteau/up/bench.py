"""Measures the live system on this machine: from a submission to a running process, an idle controller, the API."""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from watteau.cli.inputs import fail
from watteau.client import Client
from watteau.domain.errors import Fault, InputError
from watteau.domain.requests import Request
from watteau.server.bench import bench_api

_READY_WITHIN_S = 300.0
_IDLE_S = 20.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    name: str
    figure: float
    unit: str
    aim: str
    ratio: str = ""


def live(
    runs: Annotated[int, typer.Option(min=5, max=1_000, help="Jobs that are started one after another.")] = 50,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="How long each rate is measured.")] = 5.0,
    jobs: Annotated[int, typer.Option(min=0, max=10**7, help="Jobs in the store when pages are read.")] = 1_000_000,
    postgres: Annotated[
        str | None,
        typer.Option(
            help="SQLAlchemy URL of an empty PostgreSQL database, to measure submissions there as well.",
            envvar="WATTEAU_BENCH_POSTGRES",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file as well.", show_default=False)] = None,
) -> None:
    """How fast jobs are kept, listed and started, beside what the machine itself can do in the same run."""
    console = Console(stderr=True)
    with console.status("starting") as status, tempfile.TemporaryDirectory(prefix="watteau-bench-") as folder:

        def show(what: str) -> None:
            status.update(f"measuring {what}")

        figures: dict[str, Any] = {"start": bench_start(Path(folder) / "up", runs, show)}
        figures["sqlite"] = bench_api(Path(folder), seconds=seconds, jobs_in_store=jobs, show=show)
        if postgres is not None:
            show("submissions on PostgreSQL")
            figures["postgresql"] = bench_api(Path(folder), url=postgres, seconds=seconds, jobs_in_store=0, show=show)
    text = json.dumps(figures, indent=2, allow_nan=False)
    if as_json:
        typer.echo(text)
    else:
        print_lines(list(_lines(figures)))
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            fail(InputError(str(out), [Fault(0, "", error.strerror or str(error), "a file that can be written")]))


def bench_start(folder: Path, runs: int, show: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Start `watteau up` as a process, submit `true` again and again, and let it be idle for a while.

    `submit_to_running_ms` is between our own two time stamps in the store; `round_trip_ms` is what a client sees until
    the job has ended. The reference is the start of the same program by itself, in the same run.
    """
    show("the start of a process")
    bare = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(["/bin/true"], check=True)
        bare.append(1000 * (time.perf_counter() - began))
    show("the first start")
    with running_up(folder) as (url, token, process):
        with Client(url, "") as client:
            secret = client.login(one_time_token=token, label="bench").token
        with Client(url, secret) as client:
            request = Request(name="bench", command=("/bin/true",), cpu_milli=100)
            client.wait(client.submit(request).id)  # the first one loads what later ones find loaded
            show("submissions to an idle machine")
            to_running, round_trip = [], []
            for _ in range(runs):
                began = time.perf_counter()
                job = client.wait(client.submit(request).id)
                round_trip.append(1000 * (time.perf_counter() - began))
                if job.started_at is None:
                    raise RuntimeError(f"job {job.id} ended as {job.state} without having started")
                to_running.append(1000 * (job.started_at - job.submitted_at).total_seconds())
            show("an idle controller")
            time.sleep(2.0)
            before, began = process.cpu_times(), time.perf_counter()
            time.sleep(_IDLE_S)
            after, spent = process.cpu_times(), time.perf_counter() - began
            idle = (after.user + after.system - before.user - before.system) / spent
    return {
        "runs": runs,
        "process_start_ms": spread(bare),
        "submit_to_running_ms": spread(to_running),
        "round_trip_ms": spread(round_trip),
        "idle_percent_of_a_core": round(100 * idle, 3),
    }


@contextmanager
def running_up(folder: Path, *options: str) -> Iterator[tuple[str, str, psutil.Process]]:
    """A server of its own: its address, the first user's one-time token, its process."""
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / "stderr"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from watteau.app import main; main()",
                "up",
                "--port",
                "0",
                "--data-dir",
                folder,
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, "COLUMNS": "200"},
        )
    try:
        yield (*_first_words(said, process), psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(timeout=60)


def _first_words(said: Path, process: subprocess.Popen[bytes]) -> tuple[str, str]:
    deadline = time.perf_counter() + _READY_WITHIN_S
    while time.perf_counter() < deadline and process.poll() is None:
        text = said.read_text("utf-8", "replace")
        if (found := re.search(r"login (\S+) --one-time-token (\S+)", text)) and '"rebuilt"' in text:
            return found[1], found[2]
        time.sleep(0.05)
    raise RuntimeError(f"watteau up did not become ready: {said.read_text('utf-8', 'replace')[-2_000:]}")


def spread(values: list[float]) -> dict[str, float]:
    """The median, and what 99 % stay below."""
    ordered = sorted(values)
    return {"median": round(statistics.median(ordered), 2), "p99": round(ordered[int(0.99 * (len(ordered) - 1))], 2)}


def _lines(figures: dict[str, Any]) -> Iterator[Line]:
    start = figures["start"]
    bare, running = start["process_start_ms"]["median"], start["submit_to_running_ms"]["median"]
    yield Line("submit to running, median", running, "ms", "< 300", f"{running / bare:.1f} bare process starts")
    yield Line("submit to ended, as a client sees it", start["round_trip_ms"]["median"], "ms", "")
    yield Line("idle controller and API", start["idle_percent_of_a_core"], "% of a core", "< 2")
    for name in ("sqlite", "postgresql"):
        if name not in figures:
            continue
        api = figures[name]
        of = f"{api['submit']['of_pings']:.2f} of pings, {api['submit']['of_synced_writes']:.2f} of synced writes"
        yield Line(f"single submissions, {name}", api["submit"]["per_s"], "/s", "300", of)
        yield Line(f"bulk, {name}", api["bulk_jobs_per_s"], "jobs/s", "5,000")
        for what, page in api["pages_of_100"].items():
            yield Line(f"page of 100, {what}, 99 % below", page["p99_ms"], "ms", "< 50")


def print_lines(lines: list[Line], title: str = "The live system on this machine") -> None:
    """A table for people."""
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    for column in ("figure", "to reach"):
        table.add_column(column, justify="right")
    table.add_column("beside")
    for line in lines:
        table.add_row(line.name, f"{line.figure:,.4g} {line.unit}", line.aim, line.ratio)
    Console(width=min(max(Console().width, 80), 110)).print(table)
