"""`watteau ps`, `show`, `logs`, `wait`, `cancel`, `hold`, `release`: jobs that are there."""

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import typer

from watteau.cli import by_hand, complete
from watteau.cli.exits import Exit
from watteau.cli.session import (
    AsJson,
    Yes,
    clean,
    confirm,
    connected,
    counted,
    exit_of,
    fail,
    is_terminal,
    local,
    now,
    number,
    print_fields,
    print_json,
    print_table,
    span,
    table_of,
    told,
)
from watteau.client import Client, WatteauError
from watteau.domain.requests import JobState
from watteau.server.schemas import JobDetail, JobView, SiteJobView

__all__ = [
    "cancel",
    "end_with",
    "exit_code_of",
    "follow_to",
    "hold",
    "logs",
    "ps",
    "release",
    "show",
    "wait",
    "wait_all",
]

_MOST_ROWS = 1_000
_WATCH_S = 2.0

Job = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="A job: 17, or 17_3 for a task of an array; paris:1234 by hand.",
        autocompletion=complete.any_jobs,
    ),
]
Jobs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="JOB...",
        help="Jobs: 17, a task 17_3, tasks 17_[1-3,7]; the id of an array means all of it.",
        autocompletion=complete.live_jobs,
    ),
]
#: A job of Watteau, or one that somebody gave to a site by hand.
AnyJob = JobView | SiteJobView
All = Annotated[bool, typer.Option("--all", help="All of your own jobs that have not ended.")]


# --- ps -------------------------------------------------------------------------------------------------------------


def ps(
    everyone: Annotated[bool, typer.Option("--all", "-a", help="Everyone's jobs, as far as you may see them.")] = False,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            "-s",
            help="Only these states, or `any`; without it, those that have not ended. May be given several times.",
            autocompletion=complete.states,
        ),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's and those below it, everyone's.")] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Only this user's.")] = None,
    name: Annotated[str | None, typer.Option(help="Only with this in the name.")] = None,
    site: Annotated[
        str | None,
        typer.Option(
            help="Only at this site: everyone's, and what people gave it by hand.", autocompletion=complete.sites
        ),
    ] = None,
    only_by_hand: Annotated[
        bool, typer.Option("--by-hand", help="Only jobs that people gave to a site's own scheduler.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="At most so many jobs.")] = _MOST_ROWS,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew every two seconds, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """List jobs: your own that wait or run, unless you say otherwise."""
    states = _states(state or [])
    with connected() as client:
        of_all = everyone or bool(tenant) or bool(site) or only_by_hand
        whose = user or (None if of_all else client.me().user.name)

        def found() -> list[AnyJob]:
            jobs: list[AnyJob] = []
            if not only_by_hand:
                ours = client.jobs(state=states, tenant=tenant, user=whose, name=name, site=site)
                jobs += islice(ours, limit + 1)
            if of_all:
                jobs += by_hand.find(
                    client, site=site, state=states, tenant=tenant, user=user, name=name, most=limit + 1
                )
                jobs.sort(key=lambda job: job.submitted_at, reverse=True)
            return jobs[: limit + 1]

        if watch:
            _watch(found, limit, whose is None, as_json)
            return
        jobs = found()
        if as_json:
            print_json(jobs[:limit])
        else:
            headings, rows, right, long = _listed(jobs[:limit], whose is None, now())
            print_table(headings, rows, right=right, long=long)
            _say_more(len(jobs) > limit, limit)


def _states(wanted: Sequence[str]) -> list[JobState]:
    if not wanted:
        return [state for state in JobState if not state.is_end]
    if "any" in wanted:
        return []
    try:
        return [JobState(word) for word in wanted]
    except ValueError as error:
        fail(f"{error}; the states are any, {', '.join(JobState)}")


def _watch(found: Callable[[], list[AnyJob]], limit: int, with_owner: bool, as_json: bool) -> None:
    """Live on a terminal. Elsewhere a list whenever it has changed, so that it can be read by a program."""
    if is_terminal() and not as_json:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.text import Text

        console = Console(highlight=False)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                at = now()
                # What does not fit on the screen is not asked for: it could not be seen.
                jobs = found()
                headings, rows, right, long = _listed(jobs[:limit], with_owner, at)
                fitting = max(1, console.height - 4)
                cleaned = [[clean(cell) for cell in row] for row in rows[:fitting]]
                hidden = f", {len(rows) - fitting} more" if len(rows) > fitting else ""
                above = Text(f"{local(at)}  {counted(len(rows), 'line')}{hidden}", style="dim")
                live.update(Group(above, table_of(headings, cleaned, right, long, console.width)), refresh=True)
                time.sleep(_WATCH_S)
    before: list[AnyJob] | None = None
    while True:
        jobs = found()[:limit]
        if jobs != before:
            if as_json:
                print_json(jobs)
            else:
                headings, rows, right, long = _listed(jobs, with_owner, now())
                print_table(headings, rows, right=right, long=long)
            sys.stdout.flush()
        before = jobs
        time.sleep(_WATCH_S)


def _listed(
    jobs: Sequence[AnyJob], with_owner: bool, at: datetime
) -> tuple[list[str], list[list[str]], list[int], list[int]]:
    """(headings, rows, columns of figures, columns that may be cut): tasks of an array that stand alike share a row."""
    headings = ["JOB", "NAME", *(["USER", "TENANT"] if with_owner else []), "STATE", "FOR", "GPUS", "WHERE OR WHY"]
    rows = []
    for label, job in _gathered(jobs):
        if isinstance(job, SiteJobView):
            rows.append(by_hand.row(job, with_owner, at))
            continue
        owner = [job.user, job.tenant] if with_owner else []
        rows.append([label, job.name, *owner, job.state.value, _for(job, at), number(job.gpus), _where_or_why(job)])
    last = len(headings) - 1
    return headings, rows, [last - 2, last - 1], [1, *([2, 3] if with_owner else []), last]


def _gathered(jobs: Sequence[AnyJob]) -> list[tuple[str, AnyJob]]:
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for job in jobs:
        if isinstance(job, SiteJobView):
            groups[by_hand.label_of(job), job.submitted_at] = [job]
            continue
        alike = (job.array.id, job.state, job.reason, job.detail) if job.array and job.started_at is None else (job.id,)
        groups.setdefault(alike, []).append(job)
    listed: list[tuple[str, AnyJob]] = []
    for tasks in groups.values():
        first = tasks[-1]  # newest first: the last one has waited longest
        if isinstance(first, SiteJobView):
            listed.append((by_hand.label_of(first), first))
            continue
        indices = sorted(task.array.index for task in tasks if task.array)
        many = len(tasks) > 1 and first.array is not None
        listed.append((f"{first.array.id}_[{ranges(indices)}]" if many and first.array else first.label, first))
    return listed


def ranges(indices: Sequence[int]) -> str:
    """`1-3,7` for 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and index == parts[-1][-1] + 1:
            parts[-1][1:] = [index]
        else:
            parts.append([index])
    return ",".join("-".join(map(str, part)) for part in parts)


def _for(job: JobView, at: datetime) -> str:
    """How long it has run, has waited, or ran."""
    began = job.started_at or job.submitted_at
    if job.ended_at is not None and job.started_at is None:
        return ""
    return span((job.ended_at or at) - began)


def _where_or_why(job: JobView) -> str:
    reason = job.detail or (job.reason_sentence if job.reason != "NONE" else "")
    if job.state is JobState.RUNNING:
        ending = " (ending)" if job.cancel_requested else ""
        return f"{job.site or ''}{ending}"
    if job.state.is_end:
        code = f"exit code {job.exit_code}" if job.exit_code else ""
        return reason or (f"signal {job.signal}" if job.signal else code)
    return reason


def _say_more(is_more: bool, limit: int) -> None:
    if is_more:
        typer.echo(f"only the newest {limit:,} are shown; --limit shows more", err=True)


# --- show, logs -----------------------------------------------------------------------------------------------------


def show(job: Job, as_json: AsJson = False) -> None:
    """Show a job: how it stands, what was asked for, every attempt."""
    with connected() as client:
        if (named := by_hand.split(job)) is not None:
            of_site = by_hand.one(client, *named)
            print_json(of_site) if as_json else by_hand.show(of_site, now())
            return
        found = client.job(_plain(job))
        attempts = client.attempts(found.label)
        if as_json:
            listed = [each.model_dump(mode="json") for each in attempts]
            print_json(found.model_dump(mode="json") | {"attempt_list": listed})
            return
        print_fields(_fields(found, now()))
        if attempts:
            typer.echo("")
            rows = [
                [
                    str(each.number),
                    each.site,
                    each.outcome.value if each.outcome else each.state.value,
                    local(each.started_at, "minutes"),
                    span((each.ended_at or now()) - each.started_at) if each.started_at else "",
                    each.cause or _ended_by(each.exit_code, each.signal),
                ]
                for each in attempts
            ]
            print_table(["ATTEMPT", "SITE", "STATE", "STARTED", "FOR", "CAUSE"], rows, right=[0, 4], long=[1, 5])


def _fields(job: JobDetail, at: datetime) -> Iterator[tuple[str, str]]:
    asked = job.request
    of_array = f"  (task {job.array.index} of array {job.array.id})" if job.array else ""
    yield "job", f"{job.label}  {job.name}{of_array}"
    yield "state", job.state.value + (", ending was asked for" if job.cancel_requested and not job.state.is_end else "")
    if job.reason != "NONE":
        yield "reason", f"{job.reason}: {job.reason_sentence}"
    yield "detail", job.detail
    yield "ended by", _ended_by(job.exit_code, job.signal)
    yield "owner", f"{job.user}, for tenant {job.tenant}"
    yield "submitted", local(job.submitted_at)
    yield "started", local(job.started_at)
    yield "ended", local(job.ended_at)
    yield "ran for" if job.ended_at else "running for", _for(job, at) if job.started_at else ""
    yield "site", job.site or ""
    gpus = asked.gpu_milli / 1_000
    gpu = f"{number(gpus)} GPU{'' if gpus == 1 else 's'}, " if gpus else ""
    memory = f", {asked.memory_mib:,} MiB" if asked.memory_mib else ""
    yield (
        "asked for",
        f"{counted(job.workers, 'worker')} with {gpu}{_cores(asked.cpu_milli)}{memory} each",
    )
    yield "GPU models", ", ".join(asked.gpu_models)
    yield "sites", ", ".join(asked.sites)
    yield "time limit", f"{job.time_limit_s:,} s" if job.time_limit_s else "none"
    for each in asked.dependencies:
        delay = f" +{each.delay_s} s" if each.delay_s else ""
        yield "waits for", f"{each.after} {each.job_id}{delay}"
    yield "command", " ".join(asked.command) or "a script"
    yield "arguments", " ".join(asked.arguments)
    yield "folder", asked.workdir
    yield "output", asked.stdout
    yield "error output", asked.stderr


def _cores(cpu_milli: int) -> str:
    return "1 core" if cpu_milli == 1_000 else f"{number(cpu_milli / 1_000)} cores"


def _ended_by(exit_code: int | None, signal: int | None) -> str:
    if signal:
        return f"signal {signal}"
    return "" if exit_code is None else f"exit code {exit_code}"


def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", "-e", help="The error output instead of the output.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt; else of the last one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a job wrote, byte for byte."""
    if follow and as_json:
        fail("--follow prints bytes as they come; --json prints one document: give one of the two")
    by_hand.refuse(job, "keep the output of")
    stream = "stderr" if stderr else "stdout"
    with connected() as client:
        label = _plain(job)
        if as_json:
            text = b"".join(client.whole_log(label, stream=stream, attempt=attempt)).decode("utf-8", "replace")
            print_json({"job": label, "stream": stream, "attempt": attempt, "text": text})
        elif follow:
            follow_to(client, label, stream, attempt)
        else:
            _pour(client.whole_log(label, stream=stream, attempt=attempt))


def follow_to(client: Client, job: str, stream: str = "stdout", attempt: int | None = None) -> None:
    """Write what a job writes to stdout, as it writes it."""
    _pour(client.follow_log(job, stream=stream, attempt=attempt))


def _pour(pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


# --- wait -----------------------------------------------------------------------------------------------------------


def wait(
    jobs: Annotated[
        list[str],
        typer.Argument(
            metavar="JOB...",
            help="Jobs: 17, a task 17_3, tasks 17_[1-3,7]; the id of an array means all of it.",
            autocompletion=complete.live_jobs,
        ),
    ],
    timeout: Annotated[
        float | None, typer.Option(min=0.0, help="Give up after so many seconds; they go on. Exit code 1.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Wait for jobs to end; exit with the job's own exit code.

    Of several jobs, with that of the first that did not complete. A job that a signal ended counts as 128 + signal.
    """
    with connected() as client:
        ended = wait_all(client, [label for target in targets(client, jobs) for label in target.labels], timeout)
        if as_json:
            print_json(ended)
    end_with(ended, quiet=as_json)


def wait_all(client: Client, labels: Sequence[str], timeout_s: float | None = None) -> list[JobView]:
    """The jobs once all have ended, or as they stand after the time."""
    # Those that have ended already cost nothing; the time is for all of them together.
    ended = []
    left_s = timeout_s
    for label in labels:
        began = now()
        ended.append(client.wait(label, timeout_s=left_s))
        if left_s is not None:
            left_s = max(0.0, left_s - (now() - began).total_seconds())
    return ended


def end_with(jobs: Sequence[JobView], quiet: bool = False) -> None:
    """Say on stderr what did not complete, and end with its exit code."""
    failed = [job for job in jobs if job.state is not JobState.COMPLETED]
    if not quiet:
        for job in failed:
            how = clean(job.detail or _ended_by(job.exit_code, job.signal))
            verb = "is still" if not job.state.is_end else "ended:"
            typer.echo(f"job {job.label} {verb} {job.state.value}{f' ({how})' if how else ''}", err=True)
    if failed:
        raise typer.Exit(exit_code_of(failed[0]))


def exit_code_of(job: JobView) -> int:
    """What the shell is told of a job that has ended, or that was not waited for any longer."""
    if job.state is JobState.COMPLETED:
        return Exit.OK
    if job.signal:
        return 128 + job.signal
    return job.exit_code if job.exit_code and 0 < job.exit_code < 256 else Exit.JOB_FAILED


# --- cancel, hold, release ------------------------------------------------------------------------------------------


def cancel(jobs: Jobs = None, every: All = False, yes: Yes = False, as_json: AsJson = False) -> None:
    """Cancel jobs, tasks of arrays, or whole arrays. A running job gets a moment to end by itself."""
    _change(jobs, every, yes, as_json, "cancel", "cancelling")


def hold(jobs: Jobs = None, every: All = False, yes: Yes = False, as_json: AsJson = False) -> None:
    """Keep waiting jobs from starting, until they are released."""
    _change(jobs, every, yes, as_json, "hold", "held")


def release(jobs: Jobs = None, every: All = False, yes: Yes = False, as_json: AsJson = False) -> None:
    """Let held jobs wait for their start again."""
    _change(jobs, every, yes, as_json, "release", "released")


#: What may be changed with --all.
_STATES_FOR = {
    "cancel": [JobState.WAITING, JobState.HELD, JobState.RUNNING],
    "hold": [JobState.WAITING],
    "release": [JobState.HELD],
}


def _change(jobs: list[str] | None, every: bool, yes: bool, as_json: bool, verb: str, done: str) -> None:
    if every == bool(jobs):
        fail("name jobs, or give --all" if not jobs else "name jobs or give --all, not both")
    failed: list[Exit] = []
    with connected() as client:
        if every:
            own = list(client.jobs(state=_STATES_FOR[verb], user=client.me().user.name))
            wanted = [Target(job.label, (job.label,)) for job in own]
            if wanted:
                confirm(f"{verb} {counted(len(own), 'job')} of yours?", yes)
        else:
            wanted = []
            for word in jobs or []:
                try:
                    wanted += targets(client, [word], whole_arrays=True)
                except WatteauError as error:
                    failed.append(_refused(word, error))
            arrays = [target for target in wanted if target.is_array]
            if len(arrays) > 1:
                confirm(f"{verb} {len(arrays)} whole arrays ({', '.join(each.text for each in arrays)})?", yes)
        changed = _asked(client, wanted, verb, done, as_json, failed)
    if as_json:
        print_json(changed)
    elif every and not wanted:
        typer.echo("no job to change")
    if failed:
        raise typer.Exit(max(failed))


def _asked(
    client: Client, wanted: Sequence["Target"], verb: str, done: str, as_json: bool, failed: list[Exit]
) -> list[JobView]:
    """Every target in turn: one that is refused does not keep the others from being asked for."""
    changed: list[JobView] = []
    for target in wanted:
        try:
            if target.is_array:
                found = getattr(client, verb)(target.text, array=True)
                changed += found
                _said(as_json, f"{done} {target.text} ({counted(len(found), 'task')})")
            for label in target.labels:
                changed += getattr(client, verb)(label)
                _said(as_json, f"{done} {label}")
        except WatteauError as error:
            failed.append(_refused(target.text, error))
    return changed


def _refused(word: str, error: WatteauError) -> Exit:
    typer.echo(f"watteau: {word}: {told(error)}", err=True)
    return exit_of(error)


def _said(as_json: bool, text: str) -> None:
    if not as_json:
        typer.echo(text)


# --- Which jobs are meant -------------------------------------------------------------------------------------------

_LABEL = re.compile(r"(\d{1,18})(?:_(?:(\d{1,10})|\[([\d,\-:]{1,4000})\]|(\*)))?", re.A)


@dataclass(frozen=True, slots=True)
class Target:
    """One word of the command line: jobs by label, or a whole array by its id."""

    text: str
    labels: tuple[str, ...]
    is_array: bool = False


def targets(client: Client, words: Sequence[str], whole_arrays: bool = False) -> list[Target]:
    """What the words mean. The id of an array stays whole with `whole_arrays`, and else becomes its tasks."""
    found = []
    for word in words:
        by_hand.refuse(word, "wait for, hold, release or cancel")
        match = _LABEL.fullmatch(word.strip())
        if match is None:
            fail(f"{word!r} is not a job like 17, 17_3 or 17_[1-3,7]")
        job, index, listed, every = match.groups()
        if listed is not None:
            found.append(Target(word, tuple(f"{job}_{each}" for each in _indices(listed, word))))
        elif index is not None:
            found.append(Target(word, (f"{job}_{index}",)))
        else:
            array = client.job(job).array
            if array is None or (array.id != int(job) and not every):
                found.append(Target(job, (job,)))
            elif whole_arrays:
                found.append(Target(job, (), is_array=True))
            else:
                tasks = sorted(client.jobs(array=array.id), key=lambda task: task.id)
                found.append(Target(job, tuple(task.label for task in tasks)))
    return found


def _indices(listed: str, word: str) -> tuple[int, ...]:
    from watteau.workload.slurm_values import Unreadable, array

    try:
        return array(listed)[0]
    except Unreadable as error:
        fail(f"{word!r}: expected {error}")


def _plain(job: str) -> str:
    """One job's label, refused here when it cannot be one."""
    match = _LABEL.fullmatch(job.strip())
    if match is None or match[3] or match[4]:
        fail(f"{job!r} is not a job like 17 or 17_3")
    return job.strip()
