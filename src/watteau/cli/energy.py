"""`watteau energy`: what the sites drew, hour by hour, and what renewable supply met it."""

from collections.abc import Sequence
from typing import Annotated

import typer

from watteau.cli.session import AsJson, connected, fail, given_moment, is_terminal, local, now, print_json, print_table
from watteau.server.schemas import EnergyView, SiteEnergyView

__all__ = ["energy"]

#: The largest figure decides for all, so that they can be compared.
_UNITS = (("kWh", 10**3), ("MWh", 10**6), ("GWh", 10**9), ("TWh", 10**12))
_MOST_SHOWN = 1_000


def energy(
    site: Annotated[str | None, typer.Option(help="Only this site; all that have an engine when left out.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From the hour of then on: 2026-06-01, now-7days.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Up to the end of that hour; else up to now.")
    ] = None,
    hourly: Annotated[bool, typer.Option("--hourly", help="A line for each hour, too, with when it began.")] = False,
    as_json: AsJson = False,
) -> None:
    """What the sites drew, hour by hour, and what renewable supply met it. Without times, of the last 7 days."""
    at = now()
    began, ended = given_moment(since, "--since", at), given_moment(until, "--until", at)
    if began and (ended or at) <= began:
        fail("--since comes before --until, and not after now")
    with connected() as client:
        found = client.energy(since=began, until=ended, site=site, hourly=hourly)
    if as_json:
        print_json(found)
        return
    if hourly:
        _print_hours(found)
    _print_sites(found)
    if found.supply_synthetic:
        typer.echo("~ by synthetic weather, not measured", err=True)
    share = found.hourly_matched_share
    if share is not None:
        of = "synthetic supply" if found.supply_synthetic else "renewable supply"
        typer.echo(f"{share:.1%} was met by {of} of the same hour", err=True)
    elif any(each.site_wh is None for each in found.sites):
        typer.echo("only of jobs that you may see; meters and supply are for those who see all", err=True)
    for note in found.notes:
        typer.echo(note, err=True)
    typer.echo(f"from {local(found.since)} to {local(found.until)}", err=True)


def _print_sites(found: EnergyView) -> None:
    rows = [(each.site, each) for each in found.sites]
    if len(rows) > 1:
        rows.append(("all sites", _sum("all sites", found.sites)))
    _print("SITE", rows, found)


def _print_hours(found: EnergyView) -> None:
    rows = []
    for hour in found.hours:
        name = local(hour.hour, "minutes") + ("" if hour.over else " *")
        name = name[len("2026-") :] if is_terminal() else name
        rows.append((name, _sum(name, hour.sites)))
    _print("HOUR", rows, found)
    if any(not hour.over for hour in found.hours):
        typer.echo("* not over: up to now", err=True)


def _print(heading: str, rows: Sequence[tuple[str, SiteEnergyView]], found: EnergyView) -> None:
    headings, cells = table_of_energy(heading, rows, synthetic=found.supply_synthetic)
    print_table(headings, cells, right=range(1, len(headings)), long=[0])


def table_of_energy(
    heading: str, rows: Sequence[tuple[str, SiteEnergyView]], *, synthetic: bool
) -> tuple[list[str], list[list[str]]]:
    """(headings, cells), all in one unit; what only those may see who see every job is left out for all others.

    Columns that follow from made-up weather are marked (R21).
    """
    largest = max((_largest(each) for _, each in rows), default=0)
    unit, wh = next((each for each in _UNITS if largest < _MOST_SHOWN * each[1]), _UNITS[-1])
    parts = ["jobs_wh", "by_hand_wh", "idle_wh", "overhead_wh", "site_wh", "supply_wh", "matched_wh"]
    mark = "~" if synthetic else ""
    names = ["JOBS", "BY HAND", "IDLE", "OVERHEAD", "METER", f"SUPPLY{mark}", f"MATCHED{mark}"]
    if any(each.site_wh is None for _, each in rows):
        parts, names = parts[:2], names[:2]
    cells = [[name, *(f"{getattr(each, part) / wh:,.1f}" for part in parts)] for name, each in rows]
    if "site_wh" in parts:
        names.append(f"SHARE{mark}")
        cells = [[*row, _share(each)] for row, (_, each) in zip(cells, rows, strict=True)]
    return [f"{heading} ({unit})", *names], cells


def _largest(each: SiteEnergyView) -> int:
    return max(each.jobs_wh, each.by_hand_wh, each.site_wh or 0, each.supply_wh or 0)


def _share(each: SiteEnergyView) -> str:
    return f"{each.matched_wh / each.site_wh:.1%}" if each.site_wh and each.matched_wh is not None else "-"


def _sum(name: str, sites: Sequence[SiteEnergyView]) -> SiteEnergyView:
    figures = [each.model_dump(exclude={"site"}) for each in sites]
    names = figures[0] if figures else {"jobs_wh": 0, "by_hand_wh": 0}
    return SiteEnergyView(
        site=name,
        **{
            part: None if any(each[part] is None for each in figures) else sum(each[part] for each in figures)
            for part in names
        },
    )
