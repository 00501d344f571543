"""`watteau sites` and `watteau usage`: the fleet as it is now, how far Watteau goes there, and what was used of it."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watteau.cli import complete
from watteau.cli.exits import Exit
from watteau.cli.session import (
    AsJson,
    Yes,
    confirm,
    connected,
    counted,
    fail,
    given_moment,
    local,
    now,
    number,
    print_fields,
    print_json,
    print_table,
    warn,
)
from watteau.client import Invalid
from watteau.domain.fleet import Mode
from watteau.server.schemas import DifferenceView, SiteDetailView, SiteView

if TYPE_CHECKING:
    from watteau.domain.fleet import Fleet

__all__ = ["sites_app", "usage"]


class By(StrEnum):
    """What usage is counted by."""

    TENANT = "tenant"
    USER = "user"
    SITE = "site"


sites_app = typer.Typer(
    name="sites",
    help="The sites as they are now, and how far Watteau goes there.",
    invoke_without_command=True,
    add_completion=False,
)

SiteId = Annotated[str, typer.Argument(metavar="SITE", help="A site of the fleet.", autocompletion=complete.sites)]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="Kept in the audit log, and shown to who asks why.")]


@sites_app.callback()
def sites(context: typer.Context, as_json: AsJson = False) -> None:
    """The sites as they are now, and how far Watteau goes there."""
    if context.invoked_subcommand is not None:
        if as_json:
            fail(f"give --json after {context.invoked_subcommand}")
        return
    with connected() as client:
        found = client.sites()
    if as_json:
        print_json(found)
        return
    headings, rows = table_of_sites(found)
    print_table(headings, rows, right=range(3, 9), long=[0])
    for each in found:
        for what in _troubles(each):
            warn(what)


def table_of_sites(found: Sequence[SiteView]) -> tuple[list[str], list[list[str]]]:
    """(headings, rows): `OUT` are nodes that take no jobs, `BY HAND` is 12+3 of which 12 run and 3 wait."""
    headings = ["SITE", "STATE", "MODE", "NODES", "OUT", "GPUS", "OURS", "BY HAND", "KW"]
    rows = [
        [
            each.id,
            "fenced" if each.fenced else each.state,
            each.mode,
            _of(each.nodes_up, each.nodes_total),
            _whole(each.nodes_out),
            _of(each.gpus_busy, each.gpus_total),
            _whole(each.running),
            "-" if each.people_running is None else f"{each.people_running}+{each.people_waiting or 0}",
            _whole(each.power_kw),
        ]
        for each in found
    ]
    return headings, rows


def _troubles(site: SiteView) -> Iterable[str]:
    if site.fenced:
        yield f"{site.id} is {site.fenced}"
    if site.state != "ready":
        since = f" since {local(site.since)}" if site.since else ""
        yield f"{site.id} is {site.state}{since}{f': {site.why}' if site.why else ''}"


def _of(part: float | None, whole: float | None) -> str:
    """`480/512`: nodes that are up, GPUs and cores that are busy; `-` for what is not known."""
    return "-" if part is None and whole is None else f"{_whole(part)}/{_whole(whole)}"


def _whole(amount: float | None) -> str:
    """Without thousands' commas: the table has eighty columns."""
    return "-" if amount is None else f"{amount:.0f}"


@sites_app.command("show")
def show_site(site: SiteId, as_json: AsJson = False) -> None:
    """One site: how it is, what holds there and who said so, the queues of its own scheduler."""
    with connected() as client:
        found = client.site(site)
    if as_json:
        print_json(found)
        return
    print_fields(_fields(found))
    if found.partitions:
        typer.echo()
        rows = [
            [
                each.name + (" *" if each.is_default else ""),
                "up" if each.up else "down",
                str(each.nodes),
                str(each.most_nodes) if each.most_nodes else "no limit",
                f"{each.most_time_s} s" if each.most_time_s else "no limit",
            ]
            for each in found.partitions
        ]
        print_table(["PARTITION", "STATE", "NODES", "MOST NODES", "MOST TIME"], rows, right=[2, 3, 4], long=[0])
    if found.reservations:
        typer.echo()
        rows = [
            [
                each.name,
                local(each.start, "minutes"),
                local(each.end, "minutes"),
                str(len(each.nodes)),
                ",".join(each.flags),
            ]
            for each in found.reservations
        ]
        print_table(["RESERVATION", "FROM", "TO", "NODES", "FLAGS"], rows, right=[3], long=[0, 4])


def _fields(site: SiteDetailView) -> list[tuple[str, str]]:
    said = site.setting
    ordered = f"{said.mode.value}{', fenced' if said.fenced else ''}" if said is not None else ""
    return [
        ("site", f"{site.id} ({site.name})"),
        ("state", f"{site.state}{f' since {local(site.since)}' if site.since else ''}"),
        ("trouble", site.why),
        ("mode", site.mode),
        ("fenced", site.fenced),
        ("fleet file", f"mode {site.fleet_mode.value}"),
        ("last said", f"{ordered}, by {said.by} at {local(said.at)}: {said.why}" if said is not None else ""),
        ("engine", site.engine),
        ("version", site.engine_version),
        ("nodes", _if_known(site.nodes_up, f"{_of(site.nodes_up, site.nodes_total)} up")),
        ("out", _if_known(site.nodes_out, f"{counted(site.nodes_out or 0, 'node')} out: watteau sites nodes --out")),
        ("GPUs", _if_known(site.gpus_busy, f"{_of(site.gpus_busy, site.gpus_total)} busy")),
        ("cores", _if_known(site.cpu_cores_busy, f"{_of(site.cpu_cores_busy, site.cpu_cores_total)} busy")),
        ("attempts", _if_known(site.running, f"{counted(site.running or 0, 'attempt')} of Watteau")),
        (
            "by hand",
            _if_known(
                site.people_running,
                f"{counted(site.people_running or 0, 'job')} running, {site.people_waiting or 0:,} waiting",
            ),
        ),
        ("power", _if_known(site.power_kw, f"{number(site.power_kw or 0)} of {number(site.power_limit_kw or 0)} kW")),
        ("differs", "" if not site.differences else f"{counted(site.differences, 'difference')}: watteau sites diff"),
        ("notes", "\n".join(site.notes)),
    ]


def _if_known(figure: float | None, words: str) -> str:
    return "" if figure is None else words


# --- how far Watteau goes ---------------------------------------------------------------------------------------------


@sites_app.command("set")
def set_site(
    site: SiteId,
    mode: Annotated[
        Mode,
        typer.Argument(
            metavar="observe|shadow|drive", help="Look only; decide, too, and show it; or start and stop jobs."
        ),
    ],
    why: Why,
    as_json: AsJson = False,
) -> None:
    """Say how far Watteau goes at a site, from now on and over restarts. What runs there is left alone."""
    with connected() as client:
        fenced = _is_fenced(client.site(site))
        found = client.set_site(site, mode=mode, fenced=fenced, why=why)
    if fenced:
        warn(f"{site} is still fenced: nothing starts there before watteau sites unfence {site}")
    _print_set(found, f"{site}: {mode.value}", as_json)


@sites_app.command("fence")
def fence_site(site: SiteId, why: Why, yes: Yes = False, as_json: AsJson = False) -> None:
    """Say that a site is gone: what runs there counts as lost and starts elsewhere, whatever the site would say."""
    with connected() as client:
        found = client.site(site)
        if found.running is None:
            losing = f"all attempts of Watteau at {site} (how many, only the process that leads knows)"
        else:
            losing = f"{counted(found.running, 'attempt')} of Watteau at {site}"
        question = (
            f"Fence {site}? {losing} will count as lost, and their jobs start elsewhere. "
            f"Do this only if {site} really cannot run them any more: else they run twice."
        )
        if found.state == "ready":
            question += f" It answers now, so `watteau sites set {site} observe` may be what you want."
        confirm(question, yes)
        mode = found.setting.mode if found.setting is not None else found.fleet_mode
        found = client.set_site(site, mode=mode, fenced=True, why=why)
    _print_set(found, f"{site}: fenced", as_json)


@sites_app.command("unfence")
def unfence_site(site: SiteId, why: Why, as_json: AsJson = False) -> None:
    """Say that a site is back. Before it gets anything new, what it still runs of lost attempts is stopped."""
    with connected() as client:
        found = client.site(site)
        if not _is_fenced(found):
            fail(f"{site} is not fenced; nothing was changed")
        mode = found.setting.mode if found.setting is not None else found.fleet_mode
        found = client.set_site(site, mode=mode, fenced=False, why=why)
    _print_set(found, f"{site}: no longer fenced, {mode.value}", as_json)


def _is_fenced(site: SiteDetailView) -> bool:
    return site.setting is not None and site.setting.fenced


def _print_set(found: SiteDetailView, text: str, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        typer.echo(text)


# --- what a site shows ------------------------------------------------------------------------------------------------


@sites_app.command("nodes")
def list_nodes(
    site: SiteId,
    out: Annotated[bool, typer.Option("--out", help="Only those that take no jobs.")] = False,
    as_json: AsJson = False,
) -> None:
    """A site's nodes: their places in our pools, whether they take jobs, and why not."""
    with connected() as client:
        found = [each for each in client.site_nodes(site) if not out or each.state != "up"]
    if as_json:
        print_json(found)
        return
    rows = [
        [each.node, each.pool, str(each.number), each.state.value, _whole(each.gpus), _whole(each.cpu_cores), each.why]
        for each in found
    ]
    print_table(["NODE", "POOL", "NUMBER", "STATE", "GPUS", "CORES", "WHY"], rows, right=[2, 4, 5], long=[0, 1, 6])


@sites_app.command("diff")
def diff_sites(
    site: Annotated[
        str | None,
        typer.Argument(metavar="SITE", help="Only this site; without it, all.", autocompletion=complete.sites),
    ] = None,
    fleet: Annotated[
        Path | None,
        typer.Option("--fleet", metavar="FILE", help="Compare this file with its engines, without a server."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What the fleet file and the sites' engines say differently.

    Exit code 0: nothing; 1: something; 5: a site did not answer, and is left out (null in the JSON).
    """
    silent: dict[str, str] = {}
    found = _asked_for(site, silent) if fleet is None else _found_in(fleet, site, silent)
    if as_json:
        said: dict[str, Any] = {each: [one.model_dump(mode="json") for one in its] for each, its in found.items()}
        print_json(said | dict.fromkeys(silent))
    else:
        rows = [[each, one.where, one.what, one.fleet, one.engine] for each, its in found.items() for one in its]
        if rows:
            print_table(["SITE", "WHERE", "WHAT", "FLEET FILE", "ENGINE"], rows, long=[1, 2, 3, 4])
        for each, its in found.items():
            for one in its:
                typer.echo(f"{each}, {one.where}, {one.what}: {one.remedy}", err=True)
    for cause in silent.values():
        typer.echo(cause, err=True)
    if not found and not silent:
        typer.echo("no site has an engine that others use, too: there is nothing to compare", err=True)
    if silent:
        raise typer.Exit(Exit.NOT_REACHABLE)
    if any(found.values()):
        raise typer.Exit(Exit.JOB_FAILED)


def _asked_for(site: str | None, silent: dict[str, str]) -> dict[str, Sequence[DifferenceView]]:
    """By site. One that has nothing to compare is left out, unless it is asked for by name."""
    with connected() as client:
        if site is not None:
            return {site: client.differences(site)}
        found: dict[str, Sequence[DifferenceView]] = {}
        for each in client.sites():
            try:
                found[each.id] = client.differences(each.id)
            except Invalid as error:
                code = error.problem.code if error.problem is not None else ""
                if code == "nothing_seen":
                    silent[each.id] = str(error)
                elif code != "conflict":
                    raise
        return found


def _found_in(file: Path, site: str | None, silent: dict[str, str]) -> dict[str, Sequence[DifferenceView]]:
    from watteau.cli import inputs
    from watteau.domain.errors import InputError

    try:
        fleet = inputs.load_fleet(file)
    except InputError as error:
        inputs.fail(error)
    return dict(_compared(fleet, file, site, silent))


def _compared(
    fleet: "Fleet", file: Path, wanted: str | None, silent: dict[str, str]
) -> Iterable[tuple[str, Sequence[DifferenceView]]]:
    from watteau.engines.contract import EngineUnreachable
    from watteau.engines.slurm.engine import open_slurm
    from watteau.runtime.clock import Clock
    from watteau.runtime.diff import assign, differences

    with_slurm = [each for each in fleet.sites if each.slurm is not None]
    chosen = [each for each in with_slurm if wanted in (None, each.id)]
    if not chosen:
        names = ", ".join(each.id for each in with_slurm) or "none"
        asked = "a site" if wanted is None else f"site {wanted}"
        fail(f"{file}: {asked} with a table [sites.slurm] is not there; there are: {names}", Exit.NOT_FOUND)
    for each in chosen:
        engine = open_slurm(each, fleet.tenants, Clock().now_ms)
        try:
            engine.capacity()  # waits for the first look
            view = engine.look()
        except EngineUnreachable as silence:
            silent[each.id] = f"site {each.id} does not answer: {silence}"
            continue
        finally:
            engine.close()
        assert view is not None, "who has answered has shown something"
        yield each.id, [DifferenceView.of(one) for one in differences(each, view, assign(each, view, ()))]


# --- what was used ----------------------------------------------------------------------------------------------------


def usage(
    by: Annotated[By, typer.Option(help="A line for each of these.")] = By.TENANT,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From then on: 2026-06-01, 2026-06-01T08:00, now-7days.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Up to then, without it; else up to now.")] = None,
    as_json: AsJson = False,
) -> None:
    """GPU-hours and core-hours, by tenant, user or site. Without times, of the last 30 days."""
    at = now()
    began = given_moment(since, "--since", at)
    ended = given_moment(until, "--until", at)
    if began and (ended or at) <= began:
        fail("--since comes before --until, and not after now")
    with connected() as client:
        found = client.usage(by=by.value, since=began, until=ended)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            each.key,
            f"{each.gpu_hours:,.3f}",
            f"{each.cpu_hours:,.3f}",
            f"{each.jobs:,}",
            f"{each.by_hand_jobs:,}",
            f"{each.attempts:,}",
        ]
        for each in found.usage
    ]
    headings = [by.value.upper(), "GPU-HOURS", "CORE-HOURS", "JOBS", "BY HAND", "ATTEMPTS"]
    print_table(headings, rows, right=range(1, 6), long=[0])
    typer.echo(f"from {local(found.since)} to {local(found.until)}", err=True)
