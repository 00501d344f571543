"""`watteau workload`: describe a trace, generate one, convert one, import a cluster's accounting."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copyfileobj
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from watteau.cli.history import Since, Until, asked_for, between, history
from watteau.cli.inputs import fail, load_fleet
from watteau.domain.errors import InputError
from watteau.domain.jobs import Workload
from watteau.domain.units import DAY_S, HOUR_S
from watteau.workload.describe import QUANTILES, describe
from watteau.workload.formats import check_place, read_accounting, read_workload, write_workload
from watteau.workload.generate import generate, tenant_names
from watteau.workload.scale import compress_to_load, resample_to_load

workload_app = typer.Typer(
    name="workload", help="Job traces: describe, generate, convert, import.", no_args_is_help=True
)

_WIDTH = 80
_GROUPS_SHOWN = 10
_WAITED = (("mean", "mean"), ("median", "p50"), ("99 % below", "p99"))


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
    try:
        figures = describe(_read(file, timezone))
    except InputError as error:
        fail(error)
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
    try:
        workload = _read(source, timezone)
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


@workload_app.command("import-sacct")
def import_sacct_command(
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE|-]", help="An sacct --parsable2 export with its header; -: stdin.")
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(help="Instead of a file: read the accounting of this Slurm site of --fleet; may be repeated."),
    ] = None,
    fleet: Annotated[Path | None, typer.Option(help="The fleet file that says how the site is reached.")] = None,
    since: Since = None,
    until: Until = None,
    timezone: Timezone = "UTC",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Turn the accounting of a Slurm cluster into a workload that `simulate --trace` replays, and say what is in it."""
    if (file is None) == (not site) or (fleet is None) != (not site):
        raise typer.BadParameter("give FILE (or - for stdin), or --site together with --fleet")
    try:
        check_place(out)
        if file is None and fleet is not None:
            workload = _from_sites(site or [], fleet, since, until)
        else:
            workload = _from_file(file or Path("-"), timezone, since, until)
        with _working("writing jobs"):
            write_workload(workload, out)
    except InputError as error:
        fail(error)
    figures = describe(workload)
    if as_json:
        typer.echo(json.dumps(figures, indent=2, allow_nan=False))
    else:
        _print_imported(figures, out)


def _from_sites(names: list[str], fleet_file: Path, since: str | None, until: str | None) -> Workload:
    asked = asked_for(names, load_fleet(fleet_file), fleet_file, since, until)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=None)
        return history(
            asked, lambda what, done, whole: progress.update(task, description=what, completed=done, total=whole)
        )


def _from_file(file: Path, timezone: str, since: str | None, until: str | None) -> Workload:
    if str(file) != "-":
        workload = _read(file, timezone, read_accounting)
    else:
        with NamedTemporaryFile(prefix="watteau-sacct-") as copy:  # on disk: a year may be larger than the memory
            copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
            try:
                workload = _read(Path(copy.name), timezone, read_accounting)
            except InputError as error:
                raise InputError("standard input", list(error.faults)) from None
        workload = replace(workload, source="sacct from standard input")
    return workload if since is None and until is None else between(workload, since, until)


def _seconds(days: float) -> int:
    return max(1, round(days * DAY_S))


def _read(path: Path, timezone: str, read: Callable[..., Workload] = read_workload) -> Workload:
    """The workload of a file; on a terminal, stderr shows how far it has been read. Raises InputError."""
    console = Console(stderr=True)
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=_size(path))
        return read(path, timezone=timezone, progress=lambda done: progress.update(task, completed=done))


def _size(path: Path) -> int | None:
    """Bytes of a file; None for what is none or may not be looked at, of which the reader says what is wrong."""
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return None


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


def _print_imported(figures: dict[str, Any], out: Path) -> None:
    console = Console(width=_WIDTH, highlight=False)
    console.print(f"[bold]{escape(str(out))}[/bold]: {figures['jobs']:,} jobs from {escape(figures['source'])}")
    console.print(_overview(figures))
    console.print(_groups("account", figures["accounts"], "Accounts"))
    console.print(_groups("gpu_model", figures["gpu_models"], "GPU models that jobs are bound to"))
    for note in figures["notes"]:
        console.print(f"- {escape(note)}")


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
        *([("first arrival", first)] if (first := figures["first_submit_utc"]) else []),
        *([("last arrival", figures["last_submit_utc"])] if first else []),
        ("first to last submit", f"{figures['span_s']:,} s = {figures['span_s'] / DAY_S:.1f} days"),
        ("GPU-hours", f"{figures['gpu_hours']:,.1f}"),
        ("GPUs kept busy on average", "-" if offered is None else f"{offered:,.1f}"),
        *((f"waited, {name}", _number(waited[key]) + " s") for name, key in _WAITED if (waited := figures["waited_s"])),
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


def _groups(key: str, rows: list[dict[str, Any]], title: str) -> Table:
    """The largest groups of jobs by GPU-hours, and all others together."""
    shown, others = rows[:_GROUPS_SHOWN], rows[_GROUPS_SHOWN:]
    table = Table(key.replace("_", " "), "jobs", "of jobs", "GPU-hours", "of them", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in shown:
        name = "any" if row[key] is None and key == "gpu_model" else row[key] or "(not known)"
        table.add_row(escape(name), *_shares(row["jobs"], row["share"], row["gpu_hours"], row["gpu_hours_share"]))
    if others:
        sums = (sum(row[name] or 0 for row in others) for name in ("jobs", "share", "gpu_hours", "gpu_hours_share"))
        table.add_row(f"{len(others)} others", *_shares(*sums))
    return table


def _shares(jobs: int, share: float | None, hours: float, hours_share: float | None) -> tuple[str, ...]:
    parts = ("-" if part is None else f"{part:.1%}" for part in (share, hours_share))
    return f"{jobs:,}", next(parts), f"{hours:,.1f}", next(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= HOUR_S or value == int(value) else f"{value:,.2f}"
