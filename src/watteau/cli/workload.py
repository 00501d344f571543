"""`watteau workload`: describe a trace, generate one, convert one to Watteau's own file at a wanted load."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from watteau.cli.inputs import fail
from watteau.domain.errors import InputError
from watteau.domain.jobs import Workload
from watteau.domain.units import DAY_S, HOUR_S
from watteau.workload.describe import QUANTILES, describe
from watteau.workload.formats import read_workload, write_workload
from watteau.workload.generate import generate, tenant_names
from watteau.workload.scale import compress_to_load, resample_to_load

workload_app = typer.Typer(name="workload", help="Job traces: describe, generate, convert.", no_args_is_help=True)

_WIDTH = 80


def _finite(value: float | None) -> float | None:
    """NaN is neither below a minimum nor above a maximum, so that Typer lets it through."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


Timezone = Annotated[str, typer.Option(help="Time zone of the times in an sacct export (IANA name).")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same jobs.")]


@workload_app.command("describe")
def describe_command(
    file: Annotated[Path, typer.Argument(help="PAI CSV, SWF, sacct --parsable2, openb pods, or Watteau's Parquet.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    timezone: Timezone = "UTC",
) -> None:
    """Print counts, GPU-hours and quantiles of a workload."""
    figures = describe(_read(file, timezone))
    if as_json:
        typer.echo(json.dumps(figures, indent=2, allow_nan=False))
    else:
        _print_figures(figures)


@workload_app.command("generate")
def generate_command(
    out: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of the fleet that is to be loaded.")],
    load: Annotated[
        float, typer.Option(min=0.001, max=100.0, callback=_finite, help="GPU-seconds asked for, over those there are.")
    ],
    days: Annotated[float, typer.Option(min=0.001, max=36_500, callback=_finite, help="How long jobs arrive.")],
    seed: Seed,
    tenants: Annotated[int, typer.Option(min=1, max=100_000, help="How many tenants submit jobs.")] = 100,
) -> None:
    """Write a synthetic workload: sizes and run times after Alibaba PAI, limits and arrivals after published models."""
    try:
        with _working("generating jobs"):
            workload = generate(
                capacity_gpus=gpus,
                load=load,
                duration_s=_seconds(days),
                seed=seed,
                tenants=tenant_names(tenants),
            )
            write_workload(workload, out)
    except InputError as error:
        fail(error)
    _print_written(workload, out)


@workload_app.command("convert")
def convert_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Any format that `describe` reads.")],
    out: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    load: Annotated[
        float | None, typer.Option(min=0.001, max=100.0, callback=_finite, help="Load to reach (needs --gpus).")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs of the fleet that is to be loaded.")] = None,
    days: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=36_500, callback=_finite, help="Draw jobs for so long; without it arrivals are compressed."
        ),
    ] = None,
    seed: Seed = 0,
    timezone: Timezone = "UTC",
) -> None:
    """Write a workload as Parquet; with --load, compress its arrivals, or draw from it when --days is given."""
    if (load is None) != (gpus is None) or (days is not None and load is None):
        raise typer.BadParameter("--load and --gpus go together, and --days needs both")
    workload = _read(source, timezone)
    try:
        with _working("writing jobs"):
            if load is not None and gpus is not None:
                workload = (
                    compress_to_load(workload, gpus, load)
                    if days is None
                    else resample_to_load(workload, gpus, load, _seconds(days), seed)
                )
            write_workload(workload, out)
    except InputError as error:
        fail(error)
    _print_written(workload, out)


def _seconds(days: float) -> int:
    return max(1, round(days * DAY_S))


def _read(path: Path, timezone: str) -> Workload:
    """The workload of a file; on a terminal, stderr shows how far it has been read."""
    console = Console(stderr=True)
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("reading", total=path.stat().st_size if path.is_file() else None)
            return read_workload(path, timezone=timezone, progress=lambda read: progress.update(task, completed=read))
    except InputError as error:
        fail(error)


@contextmanager
def _working(what: str) -> Iterator[None]:
    """A sign of life on stderr, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


def _print_written(workload: Workload, out: Path) -> None:
    kind = " (synthetic)" if workload.synthetic else ""
    typer.echo(f"{out}: {len(workload)} jobs{kind}")
    for note in workload.notes:
        typer.echo(f"- {note}")


def _print_figures(figures: dict[str, Any]) -> None:
    console = Console(width=_WIDTH, highlight=False)
    synthetic = "  [bold]SYNTHETIC[/bold]" if figures["synthetic"] else ""
    console.print(f"[bold]{escape(figures['source'])}[/bold]{synthetic}")
    console.print(_overview(figures))
    console.print(_quantiles(figures))
    console.print(_sizes(figures))
    for note in figures["notes"]:
        console.print(f"- {escape(note)}")


def _overview(figures: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    offered = figures["offered_gpus_mean"]
    for name, value in (
        ("jobs", f"{figures['jobs']:,}"),
        ("tenants", f"{figures['tenants']:,}"),
        ("jobs without tenant", f"{figures['jobs_without_tenant']:,}"),
        ("jobs without limit", f"{figures['jobs_without_limit']:,}"),
        ("jobs killed by their limit", f"{figures['jobs_killed_by_limit']:,}"),
        ("first to last submit", f"{figures['span_s']:,} s = {figures['span_s'] / DAY_S:.1f} days"),
        ("GPU-hours", f"{figures['gpu_hours']:,.1f}"),
        ("GPUs kept busy on average", "-" if offered is None else f"{offered:,.1f}"),
        *(
            (f"jobs of priority class {row['priority_class']}", f"{row['jobs']:,} ({row['share']:.1%})")
            for row in figures["priority_classes"]
        ),
    ):
        table.add_row(name, value)
    return table


def _quantiles(figures: dict[str, Any]) -> Table:
    """Quantiles down, measures across."""
    measures = {
        "run time (s)": "runtime_s",
        "GPUs": "gpus",
        "between arrivals (s)": "interarrival_s",
        "estimate / run time": "estimate_over_runtime",
    }
    table = Table("", *measures, title="Quantiles of jobs", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in (*QUANTILES, "max", "mean"):
        table.add_row(
            name, *("-" if (row := figures[key]) is None else _number(row[name]) for key in measures.values())
        )
    return table


def _sizes(figures: dict[str, Any]) -> Table:
    table = Table("GPUs", "jobs", "of jobs", "of GPU-hours", title="Sizes", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in figures["sizes"]:
        hours = row["gpu_hours_share"]
        table.add_row(row["gpus"], f"{row['jobs']:,}", f"{row['share']:.1%}", "-" if hours is None else f"{hours:.1%}")
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= HOUR_S or value == int(value) else f"{value:,.2f}"
