"""What all commands that speak to a server share: the connection, its errors as exit codes, and how answers look.

On a terminal answers are tables of at most its width; in a pipe they are lines of tab-separated words, without colour.
Times are those of the reader's zone.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from pydantic import BaseModel

from watteau.cli.exits import Exit
from watteau.client import Client, Invalid, NotAllowed, NotFound, Settings, Unavailable, WatteauError
from watteau.runtime.clock import Clock

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_GAP = 2
_NARROWEST = 6
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@contextmanager
def connected(retries: int = 2) -> Iterator[Client]:
    """The client of the settings. Whatever the server says is wrong ends the command with its exit code."""
    settings = Settings.load()
    if settings.complaint:
        warn(settings.complaint)
    try:
        with Client(settings.url, settings.token, retries=retries) as client:
            yield client
    except WatteauError as error:
        stop(error)


def exit_of(error: WatteauError) -> Exit:
    """The exit code of what a server, or its absence, says."""
    match error:
        case NotAllowed():
            return Exit.NOT_ALLOWED
        case NotFound():
            return Exit.NOT_FOUND
        case Invalid():
            return Exit.WRONG_INPUT
        case Unavailable():
            return Exit.NOT_REACHABLE
    return Exit.JOB_FAILED


def told(error: WatteauError) -> str:
    """An error and what to do about it."""
    text = clean(str(error), keep_lines=True)
    if error.problem is not None and error.problem.status == 401:
        text = "not logged in, or the token has ended or was revoked: watteau login"
    elif isinstance(error, Unavailable) and error.problem is None:
        text += "\nis it running (watteau up), and is WATTEAU_URL or `watteau login URL` right?"
    return text


def stop(error: WatteauError) -> NoReturn:
    """Say what is wrong, and end."""
    fail(told(error), exit_of(error))


def fail(text: str, code: Exit = Exit.WRONG_INPUT) -> NoReturn:
    """Say what is wrong on stderr, and end."""
    typer.echo(f"watteau: {text}", err=True)
    raise typer.Exit(code)


def warn(text: str) -> None:
    """Say something on stderr that does not stop the command."""
    typer.echo(f"warning: {text}", err=True)


def confirm(question: str, yes: bool) -> None:
    """Ask, unless it was answered before; without somebody to ask, say how to answer before, and end."""
    if yes:
        return
    if not sys.stdin.isatty():
        fail(f"{question} There is nobody to ask: say so with --yes.")
    if not typer.confirm(question, err=True):
        fail("nothing was changed", Exit.JOB_FAILED)


# --- How answers look -----------------------------------------------------------------------------------------------


def print_json(answer: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> None:
    """One JSON document."""
    if isinstance(answer, BaseModel):
        typer.echo(answer.model_dump_json(indent=2))
    elif isinstance(answer, dict):
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        listed = [each.model_dump(mode="json") for each in answer]
        typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))


def is_terminal() -> bool:
    """Whether a person looks at stdout."""
    return sys.stdout.isatty()


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), long: Sequence[int] = ()
) -> None:
    """A table on a terminal, where the `long` columns give way when it is narrow; otherwise tab-separated lines."""
    cleaned = [[clean(cell) for cell in row] for row in rows]
    if not is_terminal():
        for row in [list(headings), *cleaned]:
            typer.echo("\t".join(row))
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(table_of(headings, cleaned, right, long, console.width))


def table_of(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int], long: Sequence[int], width: int
) -> Any:
    """A rich table of at most that width; the cells must be clean. The widest of the `long` columns gives way."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    widths = [max(map(cell_len, (heading, *(row[at] for row in rows)))) for at, heading in enumerate(headings)]
    excess = sum(widths) + _GAP * (len(widths) - 1) - width
    while excess > 0 and (widest := max(long, key=lambda at: widths[at], default=None)) is not None:
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
        excess -= 1
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for at, heading in enumerate(headings):
        justify: Literal["left", "right"] = "right" if at in right else "left"
        table.add_column(heading, justify=justify, no_wrap=True, overflow="ellipsis", width=widths[at])
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Names with their values, a line each; what is empty is left out. Long values wrap on a terminal."""
    shown = [(name, clean(value, keep_lines=True)) for name, value in fields if value]
    if not is_terminal():
        for name, value in shown:
            typer.echo(f"{name}\t{value}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in shown:
        table.add_row(Text(name), Text(value))
    Console(highlight=False).print(table)


def clean(text: str, keep_lines: bool = False) -> str:
    """Without letters that move the cursor or turn the line: names and output are other people's."""
    if keep_lines:
        return "\n".join(clean(line) for line in text.split("\n"))
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


# --- Times and amounts ----------------------------------------------------------------------------------------------


def now() -> datetime:
    """The present time in the reader's zone."""
    return datetime.fromtimestamp(Clock().now_ms() / 1_000, zone())


def given_moment(text: str | None, option: str, at: datetime) -> datetime | None:
    """A moment that someone gave to an option, as Slurm's commands read them; None: they did not. Else it ends."""
    from watteau.workload.slurm_values import Unreadable, moment_s

    if text is None:
        return None
    try:
        return datetime.fromtimestamp(0, at.tzinfo) + timedelta(seconds=moment_s(text, at))
    except (Unreadable, OverflowError) as error:
        fail(f"{option}: {text!r}; expected {error}")


def zone() -> ZoneInfo:
    """The reader's zone: TZ, else the machine's, else UTC. By name, so that it knows when the clocks change."""
    names = [os.environ.get("TZ", "").removeprefix(":")]
    try:
        names.append(str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2])
        names.append(Path("/etc/timezone").read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        pass
    for name in filter(None, names):
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    return ZoneInfo("UTC")


def local(moment: datetime | None, to: Literal["minutes", "seconds", "milliseconds"] = "seconds") -> str:
    """A moment as the reader's clock shows it, with the zone unless it is to the minute; "" for none."""
    if moment is None:
        return ""
    at = moment.astimezone(zone())
    shown = at.replace(tzinfo=None).isoformat(" ", to)
    return shown if to == "minutes" else f"{shown} {at:%Z}"


def span(length: timedelta) -> str:
    """A span for people: 12s, 3m05s, 2h03m, 4d06h."""
    total_s = max(0, int(length.total_seconds()))
    minutes, seconds = divmod(total_s, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"


def number(amount: float) -> str:
    """An amount without needless decimals."""
    return f"{amount:,.3f}".rstrip("0").rstrip(".")


def counted(count: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
