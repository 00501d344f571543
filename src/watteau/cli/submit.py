"""`watteau submit`: a command or a batch script becomes a job, with sbatch's options under their own names."""

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from watteau.cli.exits import Exit
from watteau.cli.jobs import end_with, follow_to, wait_all
from watteau.cli.session import AsJson, clean, connected, counted, fail, now, print_json, warn
from watteau.client import Client, NotFound, WatteauError
from watteau.domain.errors import InputError
from watteau.domain.fleet import Engine
from watteau.domain.requests import MOST_SCRIPT_BYTES, JobId, Kind, Request
from watteau.workload.sbatch import OPTIONS, Notice, Option, Place, read_command, read_script

__all__ = ["submit_app"]

_META = "watteau.submit"
#: Options of sbatch that `watteau submit` has itself, with the same meaning.
_OWN = {"wait", "parsable", "quiet", "test-only", "help", "version", "usage", "verbose"}


class SubmitCommand(TyperCommand):
    """`submit` with every option of sbatch; what follows the script, or `--`, is not ours to read."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._slurm = {option.name: option for option in OPTIONS if option.name not in _OWN}
        taken = {letter for each in self.params for letter in each.opts}
        self.params += _parameters(self._slurm.values(), taken)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Ours are the words up to the script or `--`; sbatch's options among them are kept in their order."""
        ours, slurm, rest, is_command = self._divided(args)
        ctx.meta[_META] = (slurm, is_command)
        return super().parse_args(ctx, [*ours, "--", *rest])

    def _divided(self, args: list[str]) -> tuple[list[str], list[str], list[str], bool]:
        takes_value = {
            word: not vars(each)["is_flag"] for each in self.params if _is_option(each) for word in _words(each)
        }
        slurm_of = {
            word: option
            for option in self._slurm.values()
            for word in (f"--{option.name}", *([f"-{option.short}"] if option.short else []))
            if word in takes_value
        }
        ours: list[str] = []
        slurm: list[str] = []
        position = 0
        while position < len(args):
            word = args[position]
            if word == "--":
                return ours, slurm, args[position + 1 :], True
            if not word.startswith("-") or word == "-":
                return ours, slurm, args[position:], False
            position += 1
            name = word.partition("=")[0] if word.startswith("--") else word[:2]
            option = slurm_of.get(name)
            wants_more = word == name and (option.takes == "must" if option else takes_value.get(name, False))
            taken = [word, *args[position : position + wants_more]]
            position += len(taken) - 1
            (slurm if option else ours).extend(taken)
        return ours, slurm, [], False


def _parameters(options: Iterable[Option], taken: set[str]) -> list[Any]:
    """The options for --help, completion and the reference. Their values are not passed on: `_divided` keeps words."""
    signed: dict[str, inspect.Parameter] = {}
    for option in options:
        letter = f"-{option.short}"
        about = typer.Option(
            f"--{option.name}",
            *([letter] if option.short and letter not in taken else []),
            metavar=option.metavar or None,
            help=option.help or f"Understood, and {option.why_not}.",
            hidden=not option.help,
            rich_help_panel="As in sbatch",
            show_default=False,
        )
        kind: Any = Annotated[str | None, about] if option.takes == "must" else Annotated[bool, about]
        name = f"slurm_{option.name.replace('-', '_')}"
        default = None if option.takes == "must" else False
        signed[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)

    def bearer(**_: Any) -> None: ...

    # Typer makes options of a signature; this one is written by hand from the table of sbatch's options.
    bearer.__signature__ = inspect.Signature(list(signed.values()))  # type: ignore[attr-defined]
    bearer.__annotations__ = {name: each.annotation for name, each in signed.items()}
    maker = typer.Typer(add_completion=False)
    maker.command()(bearer)
    made = [each for each in typer.main.get_command(maker).params if each.name in signed]
    for each in made:
        each.expose_value = False
    return made


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def _words(parameter: Any) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts]


submit_app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@submit_app.command("submit", cls=SubmitCommand)
def submit(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SCRIPT|-- COMMAND",
            help="A batch script and its arguments, or `--` and a command; without either, a script from stdin.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", "-W", help="Wait until it has ended; exit with the job's own exit code.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print what it writes until it has ended; exit as with --wait.")
    ] = False,
    parsable: Annotated[bool, typer.Option("--parsable", help="Print the job's id and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-Q", help="Print nothing when all is well.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--test-only", help="Print the request as JSON and submit nothing.")
    ] = False,
    site: Annotated[
        list[str] | None, typer.Option("--site", help="Only at this site; may be given several times.")
    ] = None,
    gpu_model: Annotated[
        list[str] | None, typer.Option("--gpu-model", help="Only on this GPU model; may be given several times.")
    ] = None,
    kind: Annotated[
        Kind, typer.Option(help="batch runs to its end, service until it is stopped, session is used by a person.")
    ] = Kind.BATCH,
    estimate: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long you expect it to run. It orders the work, and ends nothing."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="A word for this submission: sent twice, it is kept once."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job: a command, or a script with #SBATCH lines.

    Where you are and your environment go with it, as with sbatch; variables that look like secrets only when they are
    named (--export=ALL,NAME). Whatever is not done as it was asked is said on stderr.
    """
    slurm, is_command = context.meta[_META]
    if follow and as_json:
        fail("--follow prints what the job writes; --json prints one document: give one of the two")
    with connected() as client:
        try:
            request, notices = _read(words or [], slurm, is_command, client)
            request = _with_own(request, site, gpu_model, kind, estimate)
        except InputError as error:
            for fault in error.faults:
                place = f"{error.source}:{fault.line}" if fault.line else error.source
                option = f"{fault.path}: " if fault.path else ""
                typer.echo(clean(f"{place}: {option}{fault.found}; expected {fault.expected}"), err=True)
            fail(f"{counted(len(error.faults), 'fault')} found; nothing was submitted")
        for notice in notices:
            warn(clean(str(notice)))
        if dry_run:
            typer.echo(request.model_dump_json(indent=2, exclude_defaults=True))
            return
        if follow and request.array:
            fail("--follow follows one job, and this is an array: submit it, then watteau logs -f JOB_INDEX")
        job = client.submit(request, idempotency_key=key)
        tasks = len(request.array.indices) if request.array else 0
        if parsable:
            typer.echo(str(job.id))
        elif not quiet and not (as_json and wait):
            if as_json:
                print_json(job)
            else:
                what = f"array {job.id} ({counted(tasks, 'task')})" if tasks else f"job {job.id}"
                # With --follow stdout is the job's own.
                typer.echo(f"submitted {what}", err=follow)
        if wait or follow:
            _stay(client, job.id, tasks, follow, as_json)


def _stay(client: Client, job_id: int, tasks: int, follow: bool, as_json: bool) -> None:
    """Until it has ended; then end as it did. Ctrl-C leaves the job alone, and says so."""
    labels = [str(job_id + position) for position in range(tasks or 1)]
    sys.stdout.flush()
    try:
        if follow:
            try:
                follow_to(client, labels[0])
            except NotFound as error:  # it writes to files of its own: there is nothing to show
                warn(clean(str(error)))
        ended = wait_all(client, labels)
    except KeyboardInterrupt:
        typer.echo(f"\njob {job_id} goes on; `watteau cancel {job_id}` ends it", err=True)
        raise typer.Exit(Exit.INTERRUPTED) from None
    if as_json:
        print_json(ended)
    end_with(ended, quiet=as_json)


def _read(words: list[str], slurm: list[str], is_command: bool, client: Client) -> tuple[Request, list[Notice]]:
    environment, unsaid = _environment()
    around: dict[str, Any] = {
        "options": slurm,
        "now": now(),
        "workdir": _here(),
        "environment": environment,
        "resolve": _resolver(client),
        "job_id": _job_finder(client),
    }
    if is_command or (not words and _has_wrap(slurm)):
        request, notices = read_command(words, **around)
    elif words and words[0] != "-":
        path = Path(words[0])
        request, notices = read_script(_text_of(path), tuple(words[1:]), name=path.name, source=str(path), **around)
    else:
        if sys.stdin.isatty() and not words:
            fail("name a script, or give a command after `--`: watteau submit -- python train.py")
        text = _decoded(sys.stdin.buffer.read(MOST_SCRIPT_BYTES + 1), "stdin")
        request, notices = read_script(text, tuple(words[1:]), name="sbatch", source="stdin", **around)
    return request, [*unsaid, *notices]


def _has_wrap(slurm: Iterable[str]) -> bool:
    return any(word == "--wrap" or word.startswith("--wrap=") for word in slurm)


def _with_own(
    request: Request, sites: list[str] | None, models: list[str] | None, kind: Kind, estimate: str | None
) -> Request:
    """The request with what only Watteau knows of."""
    from pydantic import ValidationError

    from watteau.workload.slurm_values import Unreadable, duration_s

    changes: dict[str, Any] = {"kind": kind} if kind is not Kind.BATCH else {}
    changes |= {"sites": tuple(sites)} if sites else {}
    changes |= {"gpu_models": tuple(models)} if models else {}
    if estimate is not None:
        try:
            changes["estimate_s"] = duration_s(estimate)
        except Unreadable as error:
            fail(f"--estimate: {estimate!r}; expected {error}")
    try:
        return Request.model_validate({**dict(request), **changes}) if changes else request
    except ValidationError as error:
        fail("; ".join(each["msg"] for each in error.errors()))


# --- What is around the caller --------------------------------------------------------------------------------------


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        fail("the folder that you are in is gone; go to another one, or name one with --chdir")


def _environment() -> tuple[Mapping[str, str], list[Notice]]:
    """The caller's variables that are text."""
    kept, bad = {}, []
    for name, value in os.environ.items():
        try:
            f"{name}{value}".encode()
        except UnicodeEncodeError:
            bad.append(name)
        else:
            kept[name] = value
    listed = ", ".join(repr(name) for name in bad)
    return kept, [Notice(0, "--export", f"{listed}: not passed on, as it is not UTF-8 text")] if bad else []


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _decoded(file.read(MOST_SCRIPT_BYTES + 1), str(path))
    except FileNotFoundError:
        hint = "; a command stands after `--`: watteau submit -- COMMAND" if os.sep not in str(path) else ""
        fail(f"{str(path)!r}: no such file{hint}")
    except (OSError, ValueError) as error:
        fail(f"{str(path)!r}: {getattr(error, 'strerror', None) or error}")


def _decoded(data: bytes, source: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fail(f"{source}:{line}: a byte that is not UTF-8 (0x{data[error.start]:02x}); expected a script as text")


def _resolver(client: Client) -> Callable[[str], Place | None]:
    """What a partition or GPU type means here: a site of that name, else a partition of Slurm sites.

    The sites are asked for once, and only when something is named.
    """
    known: dict[str, Place] = {}
    asked = False

    def resolve(name: str) -> Place | None:
        nonlocal asked
        if not asked:
            asked = True
            try:
                sites = client.sites()
                partitions: dict[str, list[str]] = {}
                for site in sites:
                    for each in client.site(site.id).partitions if site.engine == Engine.SLURM else ():
                        partitions.setdefault(each.name, []).append(site.id)
                known.update(
                    {name.casefold(): Place(tuple(at), partition=name) for name, at in sorted(partitions.items())}
                )
                known.update({site.id.casefold(): Place(sites=(site.id,)) for site in sites})
            except WatteauError as error:
                warn(f"the fleet's sites are not known now: {clean(str(error))}")
        return known.get(re.sub(r"\s", "", name).casefold())

    return resolve


def _job_finder(client: Client) -> Callable[[str], JobId | None]:
    def find(label: str) -> JobId | None:
        try:
            return JobId(client.job(label).id)
        except NotFound:
            return None

    return find
