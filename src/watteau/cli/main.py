"""The command tree. Each command's module is imported when it is called, so that `--help` does not wait for numba."""

from importlib.util import find_spec
from typing import Annotated, ClassVar

import typer

from watteau import __version__
from watteau.cli.exits import SUMMARY
from watteau.cli.lazy import LazyGroup, Part

_JOBS, _ACCOUNT, _FLEET, _PLAN = "Jobs", "Account", "Fleet", "Planning and files"

PARTS: dict[str, Part] = {
    "submit": Part(
        "watteau.cli.submit", "submit_app", "Submit a job: a command, or a script with #SBATCH lines.", _JOBS
    ),
    "ps": Part("watteau.cli.jobs", "ps", "List jobs: your own that wait or run, unless you say otherwise.", _JOBS),
    "show": Part("watteau.cli.jobs", "show", "Show a job: how it stands, what was asked for, every attempt.", _JOBS),
    "logs": Part("watteau.cli.jobs", "logs", "Print what a job wrote, byte for byte.", _JOBS),
    "wait": Part("watteau.cli.jobs", "wait", "Wait for jobs to end; exit with the job's own exit code.", _JOBS),
    "cancel": Part("watteau.cli.jobs", "cancel", "Cancel jobs, tasks of arrays, or whole arrays.", _JOBS),
    "hold": Part("watteau.cli.jobs", "hold", "Keep waiting jobs from starting, until they are released.", _JOBS),
    "release": Part("watteau.cli.jobs", "release", "Let held jobs wait for their start again.", _JOBS),
    "why": Part("watteau.cli.why", "why", "Why does a job wait? The reason, its evidence, what would help.", _JOBS),
    "story": Part("watteau.cli.why", "story", "Everything that happened to a job, in order, with times.", _JOBS),
    "up": Part("watteau.up", "up", "Run Watteau on this machine: API and controller in one process.", _FLEET),
    "sites": Part(
        "watteau.cli.sites", "sites_app", "The sites as they are now, and how far Watteau goes there.", _FLEET
    ),
    "shadow": Part(
        "watteau.cli.shadow",
        "shadow_app",
        "A site in shadow: what Watteau would have done there, beside what the site did.",
        _FLEET,
    ),
    "usage": Part("watteau.cli.sites", "usage", "GPU-hours and core-hours, by tenant, user or site.", _FLEET),
    "energy": Part(
        "watteau.cli.energy", "energy", "What the sites drew, hour by hour, and what renewable supply met it.", _FLEET
    ),
    "login": Part("watteau.cli.account", "login", "Log in to a server, with a one-time token or a password.", _ACCOUNT),
    "logout": Part("watteau.cli.account", "logout", "Log out: revoke this machine's token and forget it.", _ACCOUNT),
    "tokens": Part("watteau.cli.account", "tokens_app", "Your API tokens: list, make, revoke.", _ACCOUNT),
    "users": Part("watteau.cli.account", "users_app", "Accounts: list, add, change.", _ACCOUNT),
    "fleet": Part("watteau.cli.fleet", "fleet_app", "Check and show fleet files.", _PLAN),
    "workload": Part("watteau.cli.workload", "workload_app", "Job traces: describe, generate, convert, import.", _PLAN),
    "simulate": Part(
        "watteau.cli.simulate",
        "simulate",
        "Replay a workload on a fleet with the production scheduler, hour by hour against the renewable supply.",
        _PLAN,
    ),
    "demo": Part(
        "watteau.cli.simulate",
        "demo",
        "Replay two synthetic weeks on the French fleet (25,000 GPUs, three sites) and write a report.",
        _PLAN,
    ),
    "forecast": Part(
        "watteau.cli.forecast",
        "forecast",
        "How good supply forecasts would have been on a measured series, beside simple guesses.",
        _PLAN,
    ),
    "bench": Part("watteau.cli.bench", "bench_app", "Measure on this machine, beside published figures.", _PLAN),
}


class _Watteau(LazyGroup):
    # A part whose module is not there yet is not offered.
    parts: ClassVar = {name: part for name, part in PARTS.items() if find_spec(part.module) is not None}


app = typer.Typer(
    name="watteau",
    cls=_Watteau,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=SUMMARY,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"watteau {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Run an AI cloud that is spread over several sites, keep its books, and say why."""
