"""`watteau fleet check` and `watteau fleet show`: whether a fleet file is right, and what it says."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from watteau.cli.inputs import EXIT_WRONG_INPUT, fail, load_fleet
from watteau.domain.errors import InputError
from watteau.domain.fleet import Contract, Fleet, Phase, Pue, Site, Technology
from watteau.domain.tenants import Tenant

__all__ = ["CAPACITY_FACTOR", "expected_gwh_per_year", "fleet_app"]

#: Mean of the French hourly series of 2013, 2014 and 2016 (robingirard/Energy-Alternatives-Planning, from RTE).
#: Good for a first look only; the energy books use the hours themselves.
CAPACITY_FACTOR: dict[Technology, float] = {
    Technology.SOLAR: 0.1406,
    Technology.WIND_ONSHORE: 0.2276,
    Technology.WIND_OFFSHORE: 0.3980,
    Technology.HYDRO_RUN_OF_RIVER: 0.5118,
    Technology.BASELOAD: 1.0,
}

#: Hours of a year of 365 days.
_HOURS = 8_760

fleet_app = typer.Typer(
    name="fleet", help="Check and show fleet files.", no_args_is_help=True, pretty_exceptions_enable=False
)

_FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A fleet file (TOML).", show_default=False)]
_JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]


@fleet_app.callback()
def fleet_root() -> None:
    """Check and show fleet files."""


@fleet_app.command()
def check(file: _FileArgument, as_json: _JsonOption = False) -> None:
    """Check a fleet file. Every fault is named with its line; exit code 0 when there is none, 2 otherwise."""
    try:
        fleet = load_fleet(file)
    except InputError as error:
        if not as_json:
            fail(error)
        faults = [
            {"line": fault.line or None, "path": fault.path, "found": fault.found, "expected": fault.expected}
            for fault in error.faults
        ]
        typer.echo(json.dumps({"ok": False, "file": error.source, "faults": faults}, indent=2))
        raise typer.Exit(EXIT_WRONG_INPUT) from None
    if as_json:
        typer.echo(json.dumps({"ok": True, "file": str(file), "faults": [], **_totals(fleet, None)}, indent=2))
        return
    tenants = len(fleet.tenants.leaves())
    typer.echo(
        f"{file}: ok. {fleet.name}: {_counted(len(fleet.sites), 'site')}, {_counted(fleet.gpus(), 'GPU')} when all "
        f"phases are open, {_counted(len(fleet.contracts), 'contract')}, {_counted(tenants, 'tenant')} without children"
    )
    for site, pool in fleet.pools():
        if not site.nodes(pool.id):
            typer.echo(f"note: pool {pool.id} of site {site.id} has no nodes: no phase opens any")


@fleet_app.command()
def show(
    file: _FileArgument,
    at: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Show the fleet as it is open then; without it, with all phases open."),
    ] = None,
    as_json: _JsonOption = False,
) -> None:
    """Show the sites, pools, phases, contracts and tenants of a fleet file."""
    moment = None if at is None else _moment(at)
    try:
        fleet = load_fleet(file)
    except InputError as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps(_as_json(fleet, moment), indent=2, ensure_ascii=False))
        return
    console = Console(width=80, highlight=False)
    when = "all phases open" if moment is None else f"as open on {_date_text(moment)}"
    heading = f"{fleet.name}: {fleet.gpus(moment):,} of {fleet.gpus():,} GPUs, {when}"
    console.print(Text(heading, style="bold"))
    for part in (_site_tables(fleet, moment), [_pool_table(fleet, moment)], [_phase_table(fleet, moment)]):
        for table in part:
            console.print(table)
    if fleet.contracts:
        console.print(_contract_table(fleet, moment))
    console.print(_tenant_tree(fleet.tenants))


def expected_gwh_per_year(contract: Contract) -> float:
    """GWh of a full year at the mean French capacity factor of the contract's technology."""
    return contract.capacity_mw * CAPACITY_FACTOR[contract.technology] * _HOURS / 1_000


# --- Figures --------------------------------------------------------------------------------------------------------


def _moment(text: str) -> datetime:
    """A date (00:00 UTC) or a time with its offset, from the command line."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            date.fromisoformat(text)  # a time without an offset is refused
            return moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        message = f"{text!r} is neither a date like 2026-03-01 nor a time like 2026-03-01T06:00:00Z"
        raise typer.BadParameter(message, param_hint="--at") from None


def _site_power_kw(site: Site, moment: datetime | None) -> tuple[float, float, float]:
    """(idle, typical, maximum) kW of the site with its open nodes: IT power x the highest PUE; 0 without power."""
    factor = max(site.pue.value) / 1_000 if site.power_limit_kw else 0.0
    nodes = [(site.nodes(pool.id, moment), pool) for pool in site.pools]
    return (
        sum(count * pool.node_idle_w for count, pool in nodes) * factor,
        sum(count * pool.node_typical_w for count, pool in nodes) * factor,
        sum(count * pool.node_max_w for count, pool in nodes) * factor,
    )


def _next_phase(site: Site, moment: datetime | None) -> Phase | None:
    later = [phase for phase in site.phases if moment is not None and phase.opens > moment]
    return min(later, key=lambda phase: phase.opens, default=None)


def _in_force(contract: Contract, moment: datetime | None) -> bool:
    return moment is None or contract.start <= moment < contract.end


def _totals(fleet: Fleet, moment: datetime | None) -> dict[str, object]:
    return {
        "name": fleet.name,
        "gpus_open": fleet.gpus(moment),
        "gpus_all": fleet.gpus(),
        "sites_count": len(fleet.sites),
        "pools_count": len(list(fleet.pools())),
        "contracts_count": len(fleet.contracts),
        "leaf_tenants_count": len(fleet.tenants.leaves()),
    }


# --- Tables of at most 80 columns -----------------------------------------------------------------------------------


def _site_tables(fleet: Fleet, moment: datetime | None) -> list[Table]:
    power = _table("Sites: power at the highest PUE, against the limit", "site", "nodes", "GPUs open / all", "idle MW")
    for heading in ("typical MW", "max MW", "limit MW"):
        power.add_column(heading, justify="right")
    how = _table("Sites: how they run", "site", "lat, lon", "PUE", "engine", "mode", "next phase", right=())
    for site in fleet.sites:
        idle_kw, typical_kw, max_kw = _site_power_kw(site, moment)
        max_mw = Text(_mw(max_kw), style="red" if max_kw > site.power_limit_kw else "")
        limit = "0 kW" if site.power_limit_kw == 0 else _mw(site.power_limit_kw)
        nodes = sum(site.nodes(pool.id, moment) for pool in site.pools)
        gpus = f"{site.gpus(moment):,} / {site.gpus():,}"
        power.add_row(Text(site.id), f"{nodes:,}", gpus, _mw(idle_kw), _mw(typical_kw), max_mw, limit)
        phase = _next_phase(site, moment)
        coming = "-" if phase is None else f"{_date_text(phase.opens)} {phase.name}"
        place = f"{site.latitude:.2f}, {site.longitude:.2f}"
        how.add_row(Text(site.id), place, _pue_text(site.pue), site.engine, site.mode, Text(coming))
    return [power, how]


def _pool_table(fleet: Fleet, moment: datetime | None) -> Table:
    table = _table("Pools: figures per node", "pool", "GPUs", "cores", "GiB", "kW idle/typ./max", "block", "open")
    table.add_column("all", justify="right")
    for site, pool in fleet.pools():
        gpus = f"{pool.gpus_per_node} x {pool.gpu_model}{' MIG' if pool.mig_capable else ''}"
        kilowatts = "/".join(f"{w / 1_000:,.1f}" for w in (pool.node_idle_w, pool.node_typical_w, pool.node_max_w))
        row = (f"{pool.cpu_cores:,}", f"{pool.memory_gib:,}", kilowatts, f"{pool.nodes_per_block:,}")
        table.add_row(Text(pool.id), Text(gpus), *row, f"{site.nodes(pool.id, moment):,}", f"{site.nodes(pool.id):,}")
    table.caption = "block: nodes that share a fast fabric; open, all: nodes"
    return table


def _phase_table(fleet: Fleet, moment: datetime | None) -> Table:
    table = _table("Phases and planned outages", "date", "site", "what", "nodes", "GPUs after", "", right=(3, 4))
    rows: list[tuple[datetime, str, str, str, str, str]] = []
    for site in fleet.sites:
        for phase in site.phases:
            nodes = f"+{sum(count for _, count in phase.nodes):,}"
            state = "" if moment is None else "open" if phase.opens <= moment else "to come"
            rows.append((phase.opens, site.id, phase.name, nodes, f"{fleet.gpus(phase.opens):,}", state))
        for outage in site.outages:
            what = f"outage of {', '.join(outage.pools) or 'all pools'} until {_date_text(outage.end)}"
            state = "" if moment is None else "to come" if moment < outage.start else "now"
            rows.append((outage.start, site.id, what, "", "", "over" if moment and outage.end <= moment else state))
    for start, *cells in sorted(rows, key=lambda row: row[:2]):
        table.add_row(_date_text(start), *(Text(cell) for cell in cells))
    return table


def _contract_table(fleet: Fleet, moment: datetime | None) -> Table:
    table = _table("Supply contracts", "contract", "technology", "MW", "EUR/MWh", "GWh/y", "start", right=(2, 3, 4))
    table.add_column("end")
    for contract in fleet.contracts:
        table.add_row(
            Text(contract.id),
            contract.technology.replace("_", " "),
            f"{contract.capacity_mw:,.1f}",
            f"{contract.price_eur_per_mwh:,.2f}",
            f"{expected_gwh_per_year(contract):,.1f}",
            _date_text(contract.start),
            _date_text(contract.end),
            style="" if _in_force(contract, moment) else "dim",
        )
    table.add_section()
    in_force = [contract for contract in fleet.contracts if _in_force(contract, moment)]
    total_mw = sum(contract.capacity_mw for contract in in_force)
    total_gwh = sum(expected_gwh_per_year(contract) for contract in in_force)
    table.add_row("in force" if moment else "in all", "", f"{total_mw:,.1f}", "", f"{total_gwh:,.1f}")
    typical_kw = sum(_site_power_kw(site, moment)[1] for site in fleet.sites)
    load_gwh = typical_kw * _HOURS / 1_000_000
    table.caption = (
        f"GWh/y: a full year at mean French capacity factors (2013, 2014, 2016).\n"
        f"The open nodes at typical power draw {load_gwh:,.0f} GWh a year at the highest PUE."
    )
    return table


def _tenant_tree(root: Tenant) -> Tree:
    branches: list[Tree] = []
    for parent, tenant, part, _ in root.parts():
        quota = "" if tenant.quota_gpus is None else f", at most {tenant.quota_gpus:,} GPUs"
        label = Text.assemble(tenant.name, (f" ({tenant.id})", "dim"), f" {part:.1%}{quota}")
        branches.append(Tree(label) if parent < 0 else branches[parent].add(label))
    tree = Tree(Text("Tenants: part of the whole, quota", style="bold"))
    tree.children.append(branches[0])
    return tree


def _table(title: str, *headings: str, right: tuple[int, ...] | None = None) -> Table:
    """A plain table; all columns but the first are figures unless `right` says which are."""
    table = Table(title=Text(title, style="bold"), title_justify="left", caption_justify="left", box=None)
    for position, heading in enumerate(headings):
        is_figure = position > 0 if right is None else position in right
        table.add_column(heading, justify="right" if is_figure else "left", overflow="fold")
    return table


def _mw(kw: float) -> str:
    return f"{kw / 1_000:,.1f}" if kw >= 10_000 else f"{kw / 1_000:,.2f}"


def _pue_text(pue: Pue) -> str:
    return f"{pue.value[0]:g}" if pue.is_constant else f"{min(pue.value):g}-{max(pue.value):g}"


def _date_text(moment: datetime) -> str:
    is_midnight = (moment.hour, moment.minute, moment.second, moment.microsecond) == (0, 0, 0, 0)
    return moment.strftime("%Y-%m-%d") if is_midnight else moment.strftime("%Y-%m-%d %H:%MZ")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# --- JSON -----------------------------------------------------------------------------------------------------------


def _as_json(fleet: Fleet, moment: datetime | None) -> dict[str, object]:
    return {
        "at": None if moment is None else moment.isoformat(),
        **_totals(fleet, moment),
        "sites": [_site_json(site, moment) for site in fleet.sites],
        "contracts": [
            {
                "id": contract.id,
                "technology": contract.technology.value,
                "capacity_mw": contract.capacity_mw,
                "price_eur_per_mwh": contract.price_eur_per_mwh,
                "start": contract.start.isoformat(),
                "end": contract.end.isoformat(),
                "in_force": _in_force(contract, moment),
                "expected_gwh_per_year": round(expected_gwh_per_year(contract), 3),
            }
            for contract in fleet.contracts
        ],
        "tenants": [
            {
                "id": tenant.id,
                "name": tenant.name,
                "depth": depth,
                "share": tenant.share,
                "share_of_whole": part,
                "quota_gpus": tenant.quota_gpus,
            }
            for _, tenant, part, depth in fleet.tenants.parts()
        ],
    }


def _site_json(site: Site, moment: datetime | None) -> dict[str, object]:
    idle_kw, typical_kw, max_kw = _site_power_kw(site, moment)
    phase = _next_phase(site, moment)
    return {
        "id": site.id,
        "name": site.name,
        "latitude": site.latitude,
        "longitude": site.longitude,
        "gpus_open": site.gpus(moment),
        "gpus_all": site.gpus(),
        "power_limit_kw": site.power_limit_kw,
        "idle_kw": round(idle_kw, 3),
        "typical_kw": round(typical_kw, 3),
        "max_kw": round(max_kw, 3),
        "pue": [{"temperature_c": t, "pue": v} for t, v in zip(site.pue.temperature_c, site.pue.value, strict=True)],
        "engine": site.engine.value,
        "mode": site.mode.value,
        "next_phase": None if phase is None else {"name": phase.name, "opens": phase.opens.isoformat()},
        "pools": [
            {
                "id": pool.id,
                "gpu_model": pool.gpu_model,
                "gpus_per_node": pool.gpus_per_node,
                "cpu_cores": pool.cpu_cores,
                "memory_gib": pool.memory_gib,
                "mig_capable": pool.mig_capable,
                "node_idle_w": pool.node_idle_w,
                "node_typical_w": pool.node_typical_w,
                "node_max_w": pool.node_max_w,
                "nodes_per_block": pool.nodes_per_block,
                "nodes_open": site.nodes(pool.id, moment),
                "nodes_all": site.nodes(pool.id),
            }
            for pool in site.pools
        ],
        "phases": [
            {"name": each.name, "opens": each.opens.isoformat(), "nodes": dict(each.nodes)} for each in site.phases
        ],
        "outages": [
            {"start": each.start.isoformat(), "end": each.end.isoformat(), "pools": each.pools, "reason": each.reason}
            for each in site.outages
        ],
    }
