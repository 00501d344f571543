"""`watteau bench`: measure on this machine, beside what others have published."""

import json
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from watteau.cli.inputs import fail
from watteau.cli.lazy import LazyGroup, Part
from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import Fleet
from watteau.domain.jobs import Workload
from watteau.domain.units import DAY_S, GPU_MILLI
from watteau.simulation.benchmark import Measured, as_figures, bench_replay, bench_step, bench_year
from watteau.simulation.packing import (
    ARRIVED_MOST_PERCENT,
    PUBLISHED,
    PUBLISHED_SOURCE,
    RULES,
    draw_arrivals,
    openb_fleet,
    pack,
    typical_mix,
)
from watteau.workload.formats import read_openb_nodes, read_workload
from watteau.workload.generate import generate

NODES_FILE = "openb_node_list_gpu_node.csv"
TASKS_FILE = "openb_pod_list_default.csv"
_PAI_FILE = "pai_100k_jobs.csv"
_SUPPLY_FILE = "fr_capacity_factors_2013.csv"
_WHERE_TO_GET = (
    f"a folder with {NODES_FILE} and {TASKS_FILE}: take both from cluster-trace-gpu-v2023/csv of "
    "https://github.com/alibaba/clusterdata and name the folder with --data or WATTEAU_DATA"
)


class _Bench(LazyGroup):
    #: What measures the live system needs the server, which the others do not.
    parts: ClassVar = {
        "live": Part("watteau.up.bench", "live", "How fast jobs are kept, listed and started by a live system."),
        "slurm": Part(
            "watteau.up.bench_slurm", "slurm", "What goes through a Slurm site, and what watching one costs."
        ),
    }


bench_app = typer.Typer(
    name="bench",
    cls=_Bench,
    help="Measure on this machine, beside published figures.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@bench_app.callback()
def bench_root() -> None:
    """Measure on this machine, beside published figures."""


@bench_app.command("packing")
def packing_command(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with the openb node and pod lists.", envvar="WATTEAU_DATA", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1_000, help="How many orders of arrival are drawn.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="The first seed; the others follow it.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file as well.", show_default=False)] = None,
) -> None:
    """How full the openb cluster gets when tasks only arrive: three scoring rules beside six published ones."""
    try:
        fleet, workload = _read_openb(data)
        figures = _measure(fleet, workload, list(range(seed, seed + seeds)))
    except InputError as error:
        fail(error)
    _give(figures, out, as_json, lambda: _print_packing(figures))


@bench_app.command("replay")
def replay_command(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with pai_100k_jobs.csv; without it a workload is generated.",
            envvar="WATTEAU_DATA",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, max=100, help="How often each replay is measured.")] = 5,
    year: Annotated[bool, typer.Option(help="Also replay a whole year of the French fleet (about a minute).")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file as well.", show_default=False)] = None,
) -> None:
    """How fast jobs are replayed and steps are decided, beside a bare loop that does nothing else."""
    console = Console(stderr=True)
    trace = data / _PAI_FILE if data is not None else None
    supply = data / _SUPPLY_FILE if data is not None else None
    try:
        with console.status("reading the workload") as status:

            def show(what: str) -> None:
                status.update(f"measuring {what}")

            if trace is not None and trace.is_file():
                workload = read_workload(trace)
            else:
                trace = None
                workload = generate(capacity_gpus=25_000, load=0.8, duration_s=2 * DAY_S, seed=0)
            lines = bench_replay(workload, runs, show)
            if year:
                lines += bench_year(trace, supply if supply is not None and supply.is_file() else None, show)
            lines += bench_step(show)
    except InputError as error:
        fail(error)
    _give(as_figures(lines, workload.source), out, as_json, lambda: _print_replay(lines, workload.source))


def _read_openb(data: Path | None) -> tuple[Fleet, Workload]:
    if data is None:
        raise InputError("watteau bench packing", [Fault(0, "", "no folder of public traces is named", _WHERE_TO_GET)])
    missing = [name for name in (NODES_FILE, TASKS_FILE) if not (data / name).is_file()]
    if missing:
        raise InputError(str(data), [Fault(0, "", f"no {' and no '.join(missing)} there", _WHERE_TO_GET)])
    return openb_fleet(read_openb_nodes(data / NODES_FILE)), read_workload(data / TASKS_FILE)


def _measure(fleet: Fleet, workload: Workload, seeds: list[int]) -> dict[str, Any]:
    capacity_milli = fleet.gpus() * GPU_MILLI
    mix = typical_mix(workload)
    at_100: dict[str, list[float]] = {name: [] for name in RULES}
    at_most: dict[str, list[float]] = {name: [] for name in RULES}
    arrivals_count = []
    with _working(len(seeds) * len(RULES)) as advanced:
        for seed in seeds:
            arrivals = draw_arrivals(workload, capacity_milli, seed)
            arrivals_count.append(len(arrivals))
            for name, scoring in RULES.items():
                packing = pack(fleet, workload.shapes, mix, arrivals, scoring, advanced)
                at_100[name].append(packing.allocated_percent(100))
                at_most[name].append(packing.last_percent)
    return {
        "measure": "share of GPUs allocated in %, when the GPUs asked for reach 100 % and 130 % of the cluster's",
        "source": workload.source,
        "nodes": sum(site.nodes(pool.id) for site, pool in fleet.pools()),
        "gpus": fleet.gpus(),
        "tasks": len(workload),
        "task_types": len(workload.shapes),
        "arrivals_mean": round(statistics.fmean(arrivals_count), 1),
        "seeds": seeds,
        "published_source": PUBLISHED_SOURCE,
        "published": {name: {"at_100": low, "at_130": high} for name, (low, high) in PUBLISHED.items()},
        "measured": {
            name: {"at_100": _summary(at_100[name]), f"at_{ARRIVED_MOST_PERCENT}": _summary(at_most[name])}
            for name in RULES
        },
    }


def _summary(values: list[float]) -> dict[str, Any]:
    return {
        "mean": round(statistics.fmean(values), 3),
        "sd": round(statistics.stdev(values), 3) if len(values) > 1 else None,
        "by_seed": [round(value, 3) for value in values],
    }


def _give(figures: dict[str, Any], out: Path | None, as_json: bool, print_table: Callable[[], None]) -> None:
    """The figures as JSON in `out` where one is named, and on the terminal as JSON or as a table.

    They are printed first: a disk that refuses the file does not take an hour's measurements with it.
    """
    text = json.dumps(figures, indent=2, allow_nan=False)
    if as_json:
        typer.echo(text)
    else:
        print_table()
    if out is None:
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        fail(InputError(str(out), [Fault(0, "", error.strerror or str(error), "a file that can be written")]))


@contextmanager
def _working(runs: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr when that is a terminal; yields what is called with (tasks decided, tasks in all) of a run."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("packing"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bar:
        whole = bar.add_task("packing", total=float(runs))
        done = 0

        def advanced(decided: int, tasks: int) -> None:
            nonlocal done
            bar.update(whole, completed=done + decided / tasks)
            if decided == tasks:
                done += 1

        yield advanced


def _print_replay(lines: list[Measured], source: str) -> None:
    table = Table(title=f"Measured with {source}", caption="ratio: speed over that of the bare loop")
    table.add_column("what")
    for column in ("figure", "to reach", "ratio"):
        table.add_column(column, justify="right")
    for line in lines:
        ratio = "" if line.ratio_to_bare_loop is None else f"{line.ratio_to_bare_loop:.3f}"
        figure = f"{line.figure:,.0f}" if line.figure >= 1_000 else f"{line.figure:.3g}"
        table.add_row(f"{line.name}\n[dim]{escape(line.detail)}[/dim]", f"{figure} {line.unit}", line.aim, ratio)
    Console(width=min(Console().width, 100)).print(table)


def _print_packing(figures: dict[str, Any]) -> None:
    table = Table(title=f"GPUs allocated, in % of {figures['gpus']:,}", title_justify="left")
    table.add_column("rule")
    table.add_column("asked for: 100 %", justify="right")
    table.add_column("asked for: 130 %", justify="right")
    for name, row in figures["published"].items():
        table.add_row(f"{name} (published)", f"{row['at_100']:.2f}", f"{row['at_130']:.2f}")
    table.add_section()
    for name, row in figures["measured"].items():
        table.add_row(f"{name} (Watteau)", _spread(row["at_100"]), _spread(row["at_130"]))
    # Without a terminal the width is unknown, and a cut figure is worse than a long line.
    console = Console(width=None if os.isatty(1) else 100)
    console.print(table)
    typer.echo(
        f"openb: {figures['nodes']:,} nodes, {figures['tasks']:,} tasks of {figures['task_types']} types; "
        f"{figures['arrivals_mean']:,.0f} arrivals, nothing leaves; mean ± standard deviation over "
        f"{len(figures['seeds'])} seeds ({figures['seeds'][0]} to {figures['seeds'][-1]})."
    )
    typer.echo(f"Published: {figures['published_source']}. The tasks: alibaba/clusterdata, cluster-trace-gpu-v2023.")


def _spread(summary: dict[str, Any]) -> str:
    return f"{summary['mean']:.2f}" if summary["sd"] is None else f"{summary['mean']:.2f} ± {summary['sd']:.2f}"
