"""Jobs that people gave to a site's own scheduler, at the command line: `paris:1234`, or `paris:1234_7`."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice

import typer

from watteau.cli.session import clean, fail, local, number, print_fields, span
from watteau.client import Client
from watteau.domain.fleet import Engine
from watteau.domain.requests import JobState
from watteau.domain.slurm_reasons import meaning
from watteau.server.schemas import SiteJobView

_LABEL = re.compile(r"([^\s:/]{1,64}):(\d{1,18}(?:_\S{1,64})?)")


def label_of(job: SiteJobView) -> str:
    """How it is named here: its site, and the number that the site's scheduler gave it."""
    return f"{job.site}:{job.engine_id}"


def split(word: str) -> tuple[str, str] | None:
    """(site, number) when the word names a job by hand; None: it does not."""
    match = _LABEL.fullmatch(word.strip())
    return (match[1], match[2]) if match else None


def refuse(word: str, verb: str) -> None:
    """Ends the command when the word names a job by hand: Watteau changes nothing that people gave to a site (R22)."""
    if (named := split(word)) is not None:
        site, number_there = named
        fail(
            f"{word}: it was given to {site} by hand, and Watteau does not {verb} such jobs. "
            f"Its owner can, at {site}: for example scancel {number_there}, scontrol hold {number_there}"
        )


def find(
    client: Client,
    *,
    site: str | None,
    state: Sequence[JobState],
    tenant: str | None,
    user: str | None,
    name: str | None,
    most: int,
) -> list[SiteJobView]:
    """Jobs by hand of one site, or of all, newest first; at most so many."""
    names = [site] if site else [each.id for each in client.sites() if each.engine == Engine.SLURM]
    found = [
        job
        for each in names
        for job in islice(client.site_jobs(each, state=state, tenant=tenant, user=user, name=name), most)
    ]
    return sorted(found, key=lambda job: job.submitted_at, reverse=True)[:most]


def one(client: Client, site: str, number_there: str) -> SiteJobView:
    """The newest job of that number. Ends the command when there is none."""
    found = next(iter(client.site_jobs(site, engine_id=number_there)), None)
    if found is None:
        fail(f"{site}:{number_there}: no job of that number was seen at {site}, or you may not see it")
    return found


def row(job: SiteJobView, with_owner: bool, at: datetime) -> list[str]:
    """A line of `ps`."""
    owner = [job.user, job.tenant] if with_owner else []
    tasks = f" ({job.tasks} tasks)" if job.tasks > 1 else ""
    return [
        label_of(job),
        f"{job.name}{tasks}",
        *owner,
        job.state.value,
        _for(job, at),
        number(job.gpus),
        _where_or_why(job),
    ]


def _for(job: SiteJobView, at: datetime) -> str:
    if job.ended_at is not None and job.started_at is None:
        return ""
    return span((job.ended_at or at) - (job.started_at or job.submitted_at))


def _where_or_why(job: SiteJobView) -> str:
    if job.state is JobState.RUNNING:
        return f"{job.site}, by hand"
    if job.state.is_end:
        code = f"exit code {job.exit_code}" if job.exit_code else ""
        return job.cause or (f"signal {job.signal}" if job.signal else code)
    known = meaning(job.reason)
    return f"{job.reason}: {known[0]}" if known else job.reason


def show(job: SiteJobView, at: datetime) -> None:
    """All that is known of it."""
    print_fields(_fields(job, at))


def _fields(job: SiteJobView, at: datetime) -> Iterator[tuple[str, str]]:
    yield "job", f"{label_of(job)}  {job.name}"
    yield "given", f"by hand, to the scheduler of {job.site}; Watteau only counts it"
    yield "state", job.state.value
    yield "reason", _where_or_why(job) if job.state in (JobState.WAITING, JobState.HELD) else ""
    yield "detail", job.cause
    ended = f"signal {job.signal}" if job.signal else "" if job.exit_code is None else f"exit code {job.exit_code}"
    yield "ended by", ended
    yield "owner", f"{job.user}, account {job.account or '-'}, counts for tenant {job.tenant}"
    yield "partition", job.partition
    yield "submitted", local(job.submitted_at)
    yield "started", local(job.started_at)
    yield "ended", local(job.ended_at)
    yield "ran for" if job.ended_at else "running for", _for(job, at) if job.started_at else ""
    yield (
        "asked for",
        f"{job.workers} node{'' if job.workers == 1 else 's'}, {job.gpus} GPUs, {job.cpus} cores, "
        f"{job.memory_mib:,} MiB in all",
    )
    yield "tasks", f"{job.tasks}, listed as one" if job.tasks > 1 else ""
    yield "nodes", ", ".join(f"{held.node} ({held.gpus} GPUs)" for held in job.held)
    yield "time limit", f"{job.time_limit_s:,} s" if job.time_limit_s else "none"
    yield "restarts", str(job.restarts) if job.restarts else ""


def why(job: SiteJobView) -> None:
    """Why it waits, in words."""
    typer.echo(f"job {label_of(job)} ({clean(job.name)}) is {job.state.value}, at a site that {job.user} gave it to")
    if job.state not in (JobState.WAITING, JobState.HELD):
        if job.cause:
            typer.echo(clean(job.cause))
        return
    say_reason(job.reason)


def say_reason(code: str) -> None:
    """What Slurm says, what it means, who can act, and how."""
    word = code.removeprefix("Slurm: ")
    if not word:
        typer.echo("The site's scheduler does not say why.")
        return
    known = meaning(word)
    typer.echo(f"Slurm: {clean(word)}{f': {known[0]}' if known else ''}")
    if known:
        typer.echo(f"what would help: {known[2]}")
        typer.echo(f"who can act: {known[1]}")
