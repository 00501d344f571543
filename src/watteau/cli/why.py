"""`watteau why` and `watteau story`: why a job waits, and everything that happened to it."""

from typing import Annotated

import typer

from watteau.cli import by_hand, complete
from watteau.cli.jobs import _plain
from watteau.cli.session import AsJson, clean, connected, counted, is_terminal, local, number, print_json, print_table
from watteau.domain.decisions import Reason
from watteau.domain.remedies import REMEDY
from watteau.server.schemas import WhyView

__all__ = ["remedy", "story", "why"]

Job = Annotated[
    str,
    typer.Argument(metavar="JOB", help="A job: 17, or 17_3 for a task of an array.", autocompletion=complete.any_jobs),
]


def why(job: Job, as_json: AsJson = False) -> None:
    """Why does a job wait? The reason, its evidence, what would help."""
    with connected() as client:
        if (named := by_hand.split(job)) is not None:
            of_site = by_hand.one(client, *named)
            print_json(of_site) if as_json else by_hand.why(of_site)
            return
        found = client.why(_plain(job))
    who, what = remedy(found.reason)
    if as_json:
        print_json(found.model_dump(mode="json") | {"who_can_act": who, "what_would_help": what})
        return
    typer.echo(f"job {found.job.label} ({clean(found.job.name)}) is {found.job.state.value}")
    if found.reason == Reason.NONE.name:
        if found.detail:
            typer.echo(clean(found.detail))
        _print_site(found)
        return
    typer.echo(f"{found.reason}: {clean(found.sentence)}")
    if found.detail:
        typer.echo(clean(found.detail))
    _print_evidence(found)
    if what:
        typer.echo(f"what would help: {what}")
        typer.echo(f"who can act: {who}")
    if found.is_final:
        typer.echo("waiting longer does not help")


def _print_site(found: WhyView) -> None:
    """What there is to say of an attempt that its site has."""
    evidence, site = found.evidence, found.job.site
    if evidence is None:
        return
    if evidence.site_silent:
        typer.echo(f"its site does not answer: {clean(evidence.site_silent)}")
        typer.echo("it keeps its place, and is neither failed nor started again until the site answers")
        typer.echo(f"who can act: platform; if the site is really gone: watteau sites fence {site} --why ...")
    elif evidence.site_says:
        typer.echo(f"{site} has it, and has not started it yet")
        by_hand.say_reason(evidence.site_says)


def remedy(reason: str) -> tuple[str, str]:
    """(who can act, what to do) about a reason by its name; nothing for one that this version does not know."""
    known = Reason.__members__.get(reason)
    return REMEDY.get(known, ("", "")) if known is not None else ("", "")


def _print_evidence(found: WhyView) -> None:
    evidence = found.evidence
    if evidence is None:
        return
    if evidence.jobs_ahead is not None:
        typer.echo(f"{counted(evidence.jobs_ahead, 'job')} ahead of it")
    if evidence.promised_start is not None:
        typer.echo(f"starts at the latest: {local(evidence.promised_start)}, if running jobs keep to their limits")
    if evidence.pools:
        rows = [
            [each.pool, each.site, each.gpu_model, number(each.gpus_free), str(each.nodes_whole), each.note]
            for each in evidence.pools
        ]
        headings = ["POOL", "SITE", "GPU MODEL", "FREE GPUS", "FREE NODES", "NOTE"]
        print_table(headings, rows, right=[3, 4], long=[0, 1, 2, 5])


def story(job: Job, as_json: AsJson = False) -> None:
    """Everything that happened to a job, in order, with times."""
    by_hand.refuse(job, "tell the story of")
    with connected() as client:
        events = list(client.story(_plain(job)))
    if as_json:
        print_json(events)
        return
    if not is_terminal():
        rows = [[local(each.at, "milliseconds"), each.kind.value, each.text] for each in events]
        print_table(["TIME", "EVENT", "WHAT"], rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for each in events:
        table.add_row(local(each.at, "milliseconds"), Text(clean(each.text)))
    Console(highlight=False).print(table)
