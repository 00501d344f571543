"""`watteau simulate` and `watteau demo`: replay a workload on a fleet and leave tables and a report."""

import json
import math
import shlex
import sys
from calendar import isleap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from watteau.cli.history import Asked, Since, Until, asked_for, between, gpus_of, history
from watteau.cli.inputs import fail, load_fleet
from watteau.domain.decisions import SENTENCE, Reason
from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import Fleet
from watteau.domain.fleet_file import parse_fleet
from watteau.domain.jobs import Workload
from watteau.domain.policy import named_policy
from watteau.domain.units import DAY_S, HOUR_S, from_epoch_s, to_epoch_s
from watteau.energy.forecast import fit, refuse_common_hours
from watteau.energy.supply import CapacityFactors, read_capacity_factors, supply_wh, synthetic_capacity_factors
from watteau.simulation.green import Foreseen, Green, as_forecast, as_yesterday, flexible_jobs, perfect
from watteau.simulation.replay import compile_kernels, replay
from watteau.simulation.results import keep_books, outlook_of, summarise, write_results
from watteau.workload.formats import read_workload
from watteau.workload.generate import generate
from watteau.workload.scale import assign_tenants, compress_to_load, on_any_gpu_model, resample_to_load, with_models_of

#: Room after the last arrival for which hourly PUE is looked up; beyond it the last hour's holds.
_TAIL_HOURS = 60 * 24
#: Hourly books of more years than these would fill the memory; a run that needs them is a mistake in its input.
_MOST_DAYS = 36_525
_LAST_YEAR = 2199


class PolicyName(StrEnum):
    """The named policies, as choices of an option."""

    FIFO = "fifo"
    EASY = "easy"
    HYBRID = "hybrid"
    CONSERVATIVE = "conservative"


class ForecastName(StrEnum):
    """What a simulation knows of the supply to come."""

    YESTERDAY = "yesterday"
    FITTED = "fitted"
    PERFECT = "perfect"


@dataclass(frozen=True, slots=True)
class _Waits:
    """What is asked of `--green`."""

    share: float
    slack_s: int
    forecast: ForecastName
    train: tuple[Path, ...]


def _positive(value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"{value:g} is not a positive number")
    return value


def _at_most_a_century(value: float | None) -> float | None:
    if value is not None and _positive(value) and not 1 <= value * DAY_S <= _MOST_DAYS * DAY_S:
        raise typer.BadParameter(f"{value:g} is not between one second and {_MOST_DAYS:,} days")
    return value


Load = Annotated[
    float | None,
    typer.Option(
        callback=_positive,
        help="Wanted load of the open GPUs, for example 0.8. Arrivals are compressed in time; with --days they are "
        "drawn anew with the seed.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Everything that is drawn is drawn with this seed.")]
Out = Annotated[Path | None, typer.Option(help="Directory for tables, summary and report.html.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def simulate(
    fleet: Annotated[Path, typer.Argument(help="The fleet file (TOML).")],
    trace: Annotated[
        Path | None,
        typer.Option(
            help="The workload: PAI CSV, SWF, sacct, openb or Watteau's Parquet. Without it one is generated."
        ),
    ] = None,
    from_site: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[FILE:]SITE",
            help="Instead of a trace: the jobs in the accounting of this Slurm site of the fleet, or of another fleet "
            "file; may be repeated.",
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Read the accounting again, although it was read before and kept.")
    ] = False,
    db: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="With --from-site: instead of its accounting, what Watteau itself recorded of the site's jobs in "
            "this database (postgresql://…, sqlite:///PATH).",
        ),
    ] = None,
    any_gpu_model: Annotated[
        bool,
        typer.Option("--any-gpu-model", help="Let jobs run on every GPU model, as long as on the one that they had."),
    ] = False,
    policy: Annotated[
        PolicyName, typer.Option(help="How waiting jobs are ordered and backfilled.")
    ] = PolicyName.HYBRID,
    load: Load = None,
    seed: Seed = 0,
    start: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
            help="The workload's zero, UTC. Default: its own date where it has one, in the first year in which all "
            "phases are open then; else the first 1 January on which they are.",
        ),
    ] = None,
    days: Annotated[
        float | None,
        typer.Option(callback=_at_most_a_century, help="Days in which jobs arrive; what has arrived runs to its end."),
    ] = None,
    supply: Annotated[
        Path | None, typer.Option(help="Hourly capacity factors (CSV). Without it they are generated, and marked so.")
    ] = None,
    green: Annotated[
        bool,
        typer.Option("--green", help="Let flexible jobs wait for renewable supply, until their latest start."),
    ] = False,
    flexible: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="With --green: the part of the jobs that is flexible, drawn.")
    ] = 0.4,
    slack: Annotated[
        float,
        typer.Option(min=1.0, max=336.0, help="With --green: hours from submission to the latest start."),
    ] = 24.0,
    forecast: Annotated[
        ForecastName,
        typer.Option(
            help="With --green: what is known of the supply to come: that of yesterday, a forecast fitted on --train, "
            "or all of it."
        ),
    ] = ForecastName.YESTERDAY,
    train: Annotated[
        list[Path] | None,
        typer.Option(
            help="With --forecast fitted: capacity factors (CSV) of whole years other than those of --supply.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Replay a workload on a fleet with the production scheduler, hour by hour against the renewable supply."""
    if trace is not None and from_site:
        raise typer.BadParameter("give --trace or --from-site, not both")
    if (refresh or db) and not from_site:
        raise typer.BadParameter("--refresh and --db go with --from-site")
    if (since or until) and trace is None and not from_site:
        raise typer.BadParameter("--since and --until go with --from-site, or with a --trace whose times are dates")
    if (forecast is ForecastName.FITTED) != bool(train):
        raise typer.BadParameter("--forecast fitted and --train go together")
    if train and supply is None:
        raise typer.BadParameter("--train goes with --supply: what was fitted on measured years knows measured weather")
    try:
        whole = load_fleet(fleet)
        _run(
            whole,
            trace=trace,
            asked=asked_for(from_site, whole, fleet, since, until, db) if from_site else None,
            refresh=refresh,
            span=None if from_site else (since, until),
            any_gpu_model=any_gpu_model,
            policy=policy.value,
            load=load,
            seed=seed,
            start=start,
            days=days,
            supply=supply,
            waits=_Waits(flexible, round(slack * HOUR_S), forecast, tuple(train or ())) if green else None,
            out=out,
            as_json=as_json,
            command=_command_line(),
        )
    except InputError as error:
        fail(error)


def demo(
    out: Annotated[Path, typer.Option(help="Directory for tables, summary and report.html.")] = Path("out/demo"),
    days: Annotated[float, typer.Option(callback=_at_most_a_century, help="Days in which jobs arrive.")] = 14.0,
    seed: Seed = 2024,
    as_json: AsJson = False,
) -> None:
    """Replay two synthetic weeks on the French fleet (25,000 GPUs, three sites) and write a report."""
    text = files("watteau.cli").joinpath("france.toml").read_text(encoding="utf-8")
    try:
        _run(
            parse_fleet(text, "france.toml"),
            trace=None,
            policy="hybrid",
            load=0.75,
            seed=seed,
            start=datetime(2028, 3, 1),
            days=days,
            supply=None,
            out=out,
            as_json=as_json,
            command=f"watteau demo --days {days:g} --seed {seed}",
        )
    except InputError as error:
        fail(error)


def _command_line() -> str:
    return shlex.join(["watteau", *sys.argv[1:]])


def _run(
    fleet: Fleet,
    *,
    trace: Path | None,
    asked: Asked | None = None,
    refresh: bool = False,
    span: tuple[str | None, str | None] | None = None,
    any_gpu_model: bool = False,
    policy: str,
    load: float | None,
    seed: int,
    start: datetime | None,
    days: float | None,
    supply: Path | None,
    waits: _Waits | None = None,
    out: Path | None,
    as_json: bool,
    command: str,
) -> None:
    console = Console(stderr=True, width=None)
    if start is not None:
        _checked_start_s(fleet, start)
    if out is not None:
        _check_room(out)
    factors = read_capacity_factors(supply) if supply else None
    with _progress(console) as show:
        show("Reading the workload", 0, 0)
        given = None
        if asked is not None:
            given = history(asked, show, keep=True, refresh=refresh)
        elif trace is not None:
            given = _of_trace(trace, *(span or (None, None)))
        zero_s = _zero_s(fleet, start, given)
        workload = _workload(fleet, given, load, seed, days, zero_s)
        workload = with_models_of(workload, (pool.gpu_model for _, pool in fleet.pools()))
        if any_gpu_model:
            workload = on_any_gpu_model(workload)
        if workload.zero_s is not None and workload.zero_s != zero_s:
            workload = replace(workload, notes=(*workload.notes, _moved(workload.zero_s, zero_s)))
        _check_horizon(workload.source, int(workload.submit_s[-1]), "the last job arrives")
        show("Compiling the scheduler (first time only)", 0, 0)
        compile_kernels()
        first_hour_s = zero_s // HOUR_S * HOUR_S
        hours = int(workload.submit_s[-1]) // HOUR_S + _TAIL_HOURS
        outlook = outlook_of(fleet, first_hour_s, hours, seed)
        green = None
        if waits is not None:
            if factors is None:
                factors = synthetic_capacity_factors(first_hour_s, hours, seed)
            show("Forecasting the supply", 0, 0)
            foreseen = _foreseen(waits, fleet, factors, first_hour_s, hours)
            flexible = flexible_jobs(workload, waits.share, seed)
            green = Green(flexible, waits.slack_s, foreseen, waits.forecast.value)
        happened = replay(
            fleet,
            workload,
            named_policy(policy),
            zero_s=zero_s,
            outlook=outlook,
            green=green,
            progress=lambda arrived, jobs: show("Replaying", arrived, jobs),
        )
        _check_horizon(workload.source, happened.last_end_s - zero_s, "the last job ends")
        show("Keeping the books", 0, 0)
        results = keep_books(happened, outlook, factors, seed)
        summary = summarise(results, seed, gpus_of(asked) if asked is not None else None)
        if out is not None:
            show("Writing the report", 0, 0)
            try:
                write_results(results, out, command=command, seed=seed, summary=summary)
            except OSError as error:
                raise _unwritable(out, error) from None
    if as_json:
        typer.echo(json.dumps(summary, indent=2, allow_nan=False))
    else:
        _print(summary, results.factors, out, from_a_file=given is not None)


def _foreseen(waits: _Waits, fleet: Fleet, weather: CapacityFactors, first_hour_s: int, hours: int) -> Foreseen:
    if waits.forecast is ForecastName.FITTED:
        train = [read_capacity_factors(file) for file in waits.train]
        refuse_common_hours(weather, train)
        return as_forecast(fit(train), fleet.contracts, weather, first_hour_s, hours)
    series = supply_wh(fleet.contracts, weather, first_hour_s, hours)
    return perfect(series) if waits.forecast is ForecastName.PERFECT else as_yesterday(series)


def _of_trace(trace: Path, since: str | None, until: str | None) -> Workload:
    workload = read_workload(trace)
    if not len(workload):
        raise InputError(str(trace), [Fault(0, "", "a workload without jobs", "at least one job")])
    return workload if since is None and until is None else between(workload, since, until)


def _zero_s(fleet: Fleet, start: datetime | None, given: Workload | None) -> int:
    if start is not None:
        return _checked_start_s(fleet, start)
    last = from_epoch_s(max(fleet.opening_times_s(), default=0))
    if given is not None and given.zero_s is not None:
        return _in_open_year(from_epoch_s(given.zero_s), last)
    year = last.year if last == datetime(last.year, 1, 1, tzinfo=UTC) else last.year + 1
    return to_epoch_s(datetime(year, 1, 1, tzinfo=UTC))


def _in_open_year(date: datetime, opened: datetime) -> int:
    """The same day and time in the first year, from its own, in which it is not before `opened`: seasons stay."""
    leap_day = (date.month, date.day) == (2, 29)
    for year in range(max(date.year, opened.year), _LAST_YEAR + 1):
        moved = date.replace(year=year, day=28 if leap_day and not isleap(year) else date.day)
        if moved >= opened:
            return to_epoch_s(moved)
    return to_epoch_s(opened)


def _moved(own_s: int, zero_s: int) -> str:
    return (
        f"its jobs arrived from {from_epoch_s(own_s).isoformat()} on; here from {from_epoch_s(zero_s).isoformat()} on"
    )


def _checked_start_s(fleet: Fleet, start: datetime) -> int:
    first = from_epoch_s(min(fleet.opening_times_s()))
    if start.replace(tzinfo=UTC) < first or start.year > _LAST_YEAR:
        raise InputError(
            "--start",
            [
                Fault(
                    0,
                    "",
                    f"{start:%Y-%m-%dT%H:%M:%S}, when no GPU is open" if start.year <= _LAST_YEAR else f"{start.year}",
                    f"a time from {first:%Y-%m-%d}, when the first phase opens, to the year {_LAST_YEAR}",
                )
            ],
        )
    return to_epoch_s(start.replace(tzinfo=UTC))


def _check_horizon(source: str, seconds: int, what: str) -> None:
    if seconds > _MOST_DAYS * DAY_S:
        found = f"{what} {seconds / DAY_S:,.0f} days after the workload's zero"
        raise InputError(source, [Fault(0, "", found, f"a run of at most {_MOST_DAYS:,} days")])


def _check_room(out: Path) -> None:
    """Find out before a long run whether its results can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out) as file:
            file.write(b"\0")
    except (OSError, ValueError) as error:
        raise _unwritable(out, error) from None


def _unwritable(out: Path, error: OSError | ValueError) -> InputError:
    found = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return InputError(str(out), [Fault(0, "", found, "a directory with room to write into")])


def _workload(
    fleet: Fleet, workload: Workload | None, load: float | None, seed: int, days: float | None, zero_s: int
) -> Workload:
    capacity = fleet.gpus(from_epoch_s(zero_s)) or fleet.gpus()
    leaves = [(str(tenant.id), part) for _, tenant, part, _ in fleet.tenants.parts() if not tenant.children]
    names, parts = [name for name, _ in leaves], [part for _, part in leaves]
    duration_s = round(days * DAY_S) if days is not None else None
    if workload is None:
        workload = generate(
            capacity_gpus=capacity,
            load=load if load is not None else 0.8,
            duration_s=duration_s or 7 * DAY_S,
            seed=seed,
            tenants=(),  # a generator's tenants know nothing of this fleet: its own share the jobs as they share it
        )
        return assign_tenants(workload, names, parts, seed)
    if load is not None and duration_s is not None:
        workload = resample_to_load(workload, capacity, load, duration_s, seed)
    elif load is not None:
        workload = compress_to_load(workload, capacity, load)
    elif duration_s is not None:
        workload = _first_days(workload, duration_s)
    return assign_tenants(workload, names, parts, seed)


def _first_days(workload: Workload, duration_s: int) -> Workload:
    count = int(np.searchsorted(workload.submit_s, int(workload.submit_s[0]) + duration_s))
    return workload.part(slice(0, count), f"only the {count} jobs of the first {duration_s / DAY_S:g} days")


@contextmanager
def _progress(console: Console) -> Iterator[Any]:
    """Yields show(what, done, all). Draws only on a terminal."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("Starting", total=None)

        def show(what: str, done: int, whole: int) -> None:
            bar.update(task, description=what, completed=done, total=whole or None)

        yield show


def _print(summary: dict[str, Any], factors: CapacityFactors, out: Path | None, *, from_a_file: bool) -> None:
    # Names come from files: they are shown as they are, never as markup.
    console = Console(width=min(Console().width, 80), markup=False, emoji=False, highlight=False)
    energy = summary["energy"]
    synthetic = " (partly drawn, see notes)" if from_a_file else " (synthetic)"
    if not summary["workload_synthetic"]:
        synthetic = ""
    recorded = summary["recorded"]
    table = Table(title=f"{summary['workload']}{synthetic} on {summary['fleet']}", min_width=60)
    table.show_header = recorded is not None
    table.add_column("figure" if recorded is None else "")
    table.add_column("here", justify="right")
    if recorded is not None:
        table.add_column("as recorded", justify="right")
    rows: list[tuple[str, Callable[[dict[str, Any]], str] | str]] = [
        ("policy, seed", f"{summary['policy']}, {summary['seed']}"),
        ("from", summary["start_utc"]),
        ("jobs", f"{summary['jobs']:,}"),
        ("never startable", f"{summary['jobs_unschedulable']:,}"),
        ("wait, median", lambda of: _seconds(of["wait_p50_s"])),
        ("wait, mean", lambda of: _seconds(of["wait_mean_s"])),
        ("wait, 99 % below", lambda of: _seconds(of["wait_p99_s"])),
        ("bounded slowdown, mean", lambda of: _number(of["bounded_slowdown_mean"])),
        *(
            [("GPUs held", _percent(summary["gpu_utilization"]))]
            if recorded is None
            else [
                ("first arrival to last end", lambda of: _seconds(of["makespan_s"])),
                ("GPUs held in that time, mean", lambda of: _number(of["gpus_held_mean"])),
                ("GPUs there in that time, mean", lambda of: _number(of["gpus_there_mean"])),
            ]
        ),
        ("energy of the sites", _energy(energy["site_energy_wh"])),
        (f"renewable supply{' (synthetic)' if factors.synthetic else ''}", _energy(energy["supply_wh"])),
        ("renewable, matched hour by hour", _percent(energy["hourly_matched_share"])),
        ("renewable, over the whole time", _percent(energy["annual_ratio"])),
        *_green_rows(summary["green"]),
        ("replayed in", f"{summary['wall_s']:.2f} s, {summary['jobs_per_s'] or 0:,.0f} jobs/s"),
        ("memory at most", f"{summary['peak_rss_mib']:,.0f} MiB"),
    ]
    for name, value in rows:
        here = value if isinstance(value, str) else value(summary)
        there = "" if recorded is None or isinstance(value, str) else value(recorded)
        table.add_row(name, here, *([] if recorded is None else [there]))
    console.print(table)
    for reason, count in summary["unschedulable_by_reason"].items():
        console.print(
            f"{count:,} {'job' if count == 1 else 'jobs'} never started. {SENTENCE[Reason[reason]]} ({reason})"
        )
    sites = Table(min_width=60)
    for column in ("site", "jobs", "GPU-hours", "GPUs held", "MWh", "matched"):
        sites.add_column(column, justify="left" if column == "site" else "right")
    for name, site in summary["by_site"].items():
        meter = site["site_energy_wh"]
        sites.add_row(
            name,
            f"{site['jobs']:,}",
            f"{site['gpu_hours']:,.0f}",
            _percent(site["gpu_utilization"]),
            f"{meter / 1e6:,.1f}",
            _percent(site["matched_wh"] / meter if meter else None),
        )
    console.print(sites)
    for note in summary["workload_notes"]:
        console.print(f"Workload: {note}")
    for note in _supply_notes(energy):
        console.print(f"Supply: {note}")
    if out is not None:
        console.print(f"Report: {out / 'report.html'}", soft_wrap=True)


def _green_rows(green: dict[str, Any] | None) -> list[tuple[str, Callable[[dict[str, Any]], str] | str]]:
    if green is None:
        return []
    return [
        (f"flexible jobs, {green['slack_s'] / HOUR_S:g} h slack", f"{green['flexible_jobs']:,}"),
        ("wait of flexible jobs, mean", _seconds(green["wait_flexible_mean_s"])),
        ("wait of the others, mean", _seconds(green["wait_others_mean_s"])),
        ("started after their latest start", f"{green['late_starts']:,}"),
        (f"envelopes, {green['forecast']} forecast", f"{green['envelopes']:,}, {green['envelopes_unusable']} unusable"),
    ]


def _supply_notes(energy: dict[str, Any]) -> list[str]:
    year = energy["supply_aligned_from_year"]
    aligned = [f"aligned by hour of year from {year}"] if year is not None else []
    return [energy["supply_source"], *aligned, *energy["supply_notes"]]


def _energy(wh: int) -> str:
    return f"{wh / 1e9:,.3f} GWh" if wh >= 10**9 else f"{wh / 1e6:,.3f} MWh"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 120:
        return f"{value:,.0f} s"
    return f"{value / 60:,.1f} min" if value < 7200 else f"{value / 3600:,.1f} h"
