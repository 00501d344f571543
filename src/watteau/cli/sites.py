"""`watteau sites` and `watteau usage`: the fleet as it is now, and what was used of it."""

from enum import StrEnum
from typing import Annotated

import typer

from watteau.cli.session import AsJson, connected, fail, given_moment, local, now, number, print_json, print_table, warn
from watteau.server.schemas import SiteView

__all__ = ["sites", "usage"]


class By(StrEnum):
    """What usage is counted by."""

    TENANT = "tenant"
    USER = "user"
    SITE = "site"


def sites(as_json: AsJson = False) -> None:
    """The sites as they are now: what is free, what runs."""
    with connected() as client:
        found = client.sites()
    if as_json:
        print_json(found)
        return
    headings = ["SITE", "STATE", "MODE", "ENGINE", "NODES", "GPUS", "CORES", "RUNNING", "KW"]
    rows = [
        [
            each.id,
            each.state,
            each.mode,
            each.engine,
            _of(each.nodes_up, each.nodes_total),
            _of(each.gpus_busy, each.gpus_total),
            _of(each.cpu_cores_busy, each.cpu_cores_total),
            _figure(each.running),
            _of(each.power_kw, each.power_limit_kw or None),
        ]
        for each in found
    ]
    print_table(headings, rows, right=range(4, 9), long=[0])
    for each in found:
        if what := _trouble(each):
            warn(what)


def _trouble(site: SiteView) -> str:
    if site.state == "ready":
        return ""
    since = f" since {local(site.since)}" if site.since else ""
    return f"{site.id} is {site.state}{since}{f': {site.why}' if site.why else ''}"


def _of(part: float | None, whole: float | None) -> str:
    """`480/512`: nodes that are up, GPUs and cores that are busy, power that is drawn; `-` for what is not known."""
    return "-" if part is None and whole is None else f"{_figure(part)}/{_figure(whole)}"


def _figure(amount: float | None) -> str:
    return "-" if amount is None else number(round(amount, 1))


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
