"""`watteau shadow`: what Watteau would have done at a site, beside what the site's own scheduler did."""

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from watteau.cli.database import Database, DataDir, open_store
from watteau.cli.inputs import fail, load_fleet
from watteau.cli.session import AsJson, clean, local, now, print_table
from watteau.cli.simulate import PolicyName, Seed
from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import Fleet, Site
from watteau.domain.policy import named_policy
from watteau.domain.requests import AttemptState
from watteau.domain.sites import ShadowDecision, SiteJob
from watteau.domain.units import DAY_S, SiteId
from watteau.energy.supply import read_capacity_factors
from watteau.simulation.page import span_words
from watteau.simulation.replay import compile_kernels
from watteau.simulation.shadow import Comparison, compare
from watteau.simulation.shadow_live import first_starts
from watteau.simulation.shadow_load import OwnRun, Window
from watteau.simulation.shadow_report import (
    agreement_words,
    confidence,
    figure_rows,
    period,
    write_shadow_report,
)
from watteau.simulation.shadow_report import (
    as_json as report_json,
)
from watteau.store.store import JobFilter, SiteJobFilter, Store, StoreUnavailable
from watteau.workload.slurm_values import Unreadable, moment_s

_PAGE = 5_000
_DEFAULT_DAYS = 28
_HALF_LIVES = 20

shadow_app = typer.Typer(
    name="shadow",
    help="A site in shadow: what Watteau would have done there, beside what the site did.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_SiteArgument = Annotated[str, typer.Argument(metavar="SITE", help="The site's id, as in the fleet file.")]
_Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="From then on: 2026-06-01, 2026-06-01T08:00, now-7days. Default: 28 days ago."),
]
_Until = Annotated[str | None, typer.Option(metavar="TIME", help="Up to then, without it. Default: now.")]


@shadow_app.callback()
def shadow_root() -> None:
    """A site in shadow: what Watteau would have done there, beside what the site did."""


@shadow_app.command("list")
def list_decisions(
    site: _SiteArgument,
    since: _Since = None,
    until: _Until = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many decisions, the newest ones.")] = 50,
    db: Database = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """The newest decisions in shadow, beside what the site did with the same jobs. Reads the database directly."""
    since_s, until_s, _ = _times(since, until)
    with _reading(db, data_dir) as store:
        decisions = store.shadow_decisions(SiteId(site), 1_000 * since_s, 1_000 * until_s)
        shown = sorted(decisions, key=lambda its: its.decided_ms, reverse=True)[:limit]
        jobs = list(_jobs(store, SiteId(site), since_s))
    rows = _beside(shown, jobs)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    headings = ["JOB", "USER", "SUBMITTED", "WATTEAU", "NODES", "SITE STARTED", "NODES"]
    print_table(
        headings,
        [
            [
                str(row["job"]),
                str(row["user"] or "-"),
                _moment(row["submitted_ms"]),
                _moment(row["decided_ms"]),
                _nodes(row["decided_nodes"]),
                _moment(row["started_ms"]),
                _nodes(row["started_nodes"]),
            ]
            for row in rows
        ],
        long=[0],
    )
    if not rows:
        typer.echo(f"no decision in shadow at {clean(site)} since {_moment(1_000 * since_s)}", err=True)


@shadow_app.command()
def report(
    site: _SiteArgument,
    fleet: Annotated[Path, typer.Option(help="The fleet file that the site is in.")],
    since: _Since = None,
    until: _Until = None,
    policy: Annotated[PolicyName, typer.Option(help="How Watteau would order and backfill.")] = PolicyName.HYBRID,
    seed: Seed = 0,
    supply: Annotated[
        Path | None, typer.Option(help="Hourly capacity factors (CSV). Without it they are generated, and marked so.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the report as one HTML page.")] = None,
    db: Database = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare waits, utilisation, fairness and renewable share of the site and of Watteau, with confidence intervals.

    Reads the database directly, also while the server runs; nothing is changed.
    """
    try:
        whole = load_fleet(fleet)
        its = _site(whole, site, fleet)
        factors = read_capacity_factors(supply) if supply else None
        since_s, until_s, now_s = _times(since, until)
        console = Console(stderr=True)
        chosen = named_policy(policy.value)
        with console.status("Reading the jobs", spinner="line") as status:
            with _reading(db, data_dir) as store:
                jobs = list(_jobs(store, its.id, since_s))
                nodes = store.site_nodes(its.id)
                decisions = store.shadow_decisions(its.id, 1_000 * since_s, 1_000 * until_s)
                own = list(_own_runs(store, its.id, since_s))
                past = store.past_use(1_000 * (since_s - _HALF_LIVES * chosen.half_life_s))
            status.update("Compiling the scheduler (first time only)")
            compile_kernels()
            found = compare(
                whole,
                its.id,
                chosen,
                jobs,
                nodes,
                Window(since_s, until_s, now_s),
                own=own,
                decisions=decisions,
                past=past,
                factors=factors,
                seed=seed,
                show=status.update,
            )
            if out is not None:
                status.update("Writing the report")
                write_shadow_report(out, found, shlex.join(["watteau", *sys.argv[1:]]))
    except InputError as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps(report_json(found), indent=2, allow_nan=False))
    else:
        _print(found, out)


def _site(fleet: Fleet, site: str, file: Path) -> Site:
    for its in fleet.sites:
        if its.id == site:
            return its
    known = ", ".join(str(its.id) for its in fleet.sites)
    raise InputError(str(file), [Fault(0, "sites", f"no site {site!r}", f"one of {known}")])


def _times(since: str | None, until: str | None) -> tuple[int, int, int]:
    """(since, until, now) in epoch seconds."""
    at = now()
    now_s = int(at.timestamp())
    until_s = min(_read(until, "--until", at), now_s) if until is not None else now_s
    since_s = _read(since, "--since", at) if since is not None else until_s - _DEFAULT_DAYS * DAY_S
    if since_s >= until_s:
        found = f"{since or since_s} is not before {until or 'now'}"
        fail(InputError("--since, --until", [Fault(0, "", found, "an earlier --since")]))
    return since_s, until_s, now_s


def _read(text: str, option: str, at: datetime) -> int:
    try:
        return moment_s(text, at)
    except (Unreadable, OverflowError) as error:
        fail(InputError(option, [Fault(0, "", repr(text), str(error))]))


def _jobs(store: Store, site: SiteId, since_s: int) -> Iterator[SiteJob]:
    """Jobs by hand that had not ended at a time, or came later."""
    only, cursor = SiteJobFilter(sites=frozenset({site}), ended_since_ms=1_000 * since_s), None
    while True:
        page = store.site_jobs(only, _PAGE, cursor)
        yield from page.jobs
        if (cursor := page.next_cursor) is None:
            return


def _own_runs(store: Store, site: SiteId, since_s: int) -> Iterator[OwnRun]:
    """Runs of Watteau's own at a site that had not ended at a time."""
    cursor = None
    while True:
        page = store.jobs(JobFilter(site=str(site)), _PAGE, cursor)
        for job in page.jobs:
            if job.ended_ms is not None and job.ended_ms <= 1_000 * since_s:
                continue
            for attempt in store.attempts(job.job_id):
                ended = attempt.ended_ms is None or attempt.ended_ms > 1_000 * since_s
                if attempt.site == site and attempt.started_ms is not None and ended and attempt.places:
                    end_s = None if attempt.state is not AttemptState.ENDED else (attempt.ended_ms or 0) // 1_000
                    shape, pool = job.request.shape, attempt.places[0].pool
                    yield OwnRun(attempt.started_ms // 1_000, end_s, shape, pool, job.tenant)
        if (cursor := page.next_cursor) is None:
            return


@contextmanager
def _reading(db: str | None, data_dir: Path | None) -> Iterator[Store]:
    try:
        with open_store(db, data_dir).closing() as store:
            yield store
    except StoreUnavailable as gone:
        fail(InputError("--db", [Fault(0, "", str(gone), "a database that can be read")]))
    except InputError as error:
        fail(error)


# --- showing ---------------------------------------------------------------------------------------------------------


def _beside(decisions: Sequence[ShadowDecision], jobs: Sequence[SiteJob]) -> list[dict[str, object]]:
    """Each decision with what the site did; of an array, with its first task."""
    started = first_starts(jobs)
    known: dict[tuple[str, int], SiteJob] = {}
    for job in jobs:
        for key in (job.key, (job.array_id, job.submitted_ms)):
            if key not in known or (job.started_ms is not None and job.started_ms == started.get(key)):
                known[key] = job
    rows: list[dict[str, object]] = []
    for its in decisions:
        key = its.engine_id, its.submitted_ms
        found = known.get(key)
        rows.append(
            {
                "job": its.engine_id,
                "user": found.user if found else None,
                "submitted_ms": its.submitted_ms,
                "decided_ms": its.decided_ms,
                "decided_nodes": list(its.nodes),
                "state": found.state.value if found else None,
                "started_ms": started.get(key),
                "started_nodes": [held.node for held in found.held] if found else [],
            }
        )
    return rows


def _moment(at_ms: object) -> str:
    if not isinstance(at_ms, int):
        return "-"
    return local(datetime.fromtimestamp(at_ms / 1_000, UTC)).rsplit(" ", 1)[0]


def _nodes(names: object) -> str:
    return ",".join(str(name) for name in names) if isinstance(names, list) and names else "-"


def _print(found: Comparison, out: Path | None) -> None:
    # Names come from files and from people: they are shown as they are, never as markup.
    console = Console(width=min(Console().width, 100), markup=False, emoji=False, highlight=False)
    console.print(clean(found.verdict))
    table = Table(title=f"{clean(found.site_name)}, {period(found)}, {found.jobs:,} jobs", min_width=60)
    table.add_column("figure")
    for name in ("site", "Watteau", "difference"):
        table.add_column(name, justify="right")
    table.add_column("of it, 95 % between")
    for row, figure in zip(figure_rows(found), found.figures, strict=True):
        table.add_row(*row[:4], confidence(figure.difference, figure.unit))
    console.print(table)
    console.print(f"Live decisions: {agreement_words(found)}")
    for note in found.notes:
        console.print(f"Note: {clean(note)}")
    synthetic = " (synthetic)" if found.supply_synthetic else ""
    console.print(f"Supply: {clean(found.supply_source)}{synthetic}")
    console.print(
        f"Policy {found.policy}, seed {found.seed}, {found.resamples:,} resamples of blocks of "
        f"{span_words(found.block_s)} (differences) and {span_words(found.level_block_s)} (each side)"
    )
    if out is not None:
        console.print(f"Report: {out}", soft_wrap=True)
