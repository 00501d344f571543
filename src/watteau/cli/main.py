"""The command tree."""

import typer

from watteau import __version__
from watteau.cli.bench import bench_app
from watteau.cli.fleet import fleet_app
from watteau.cli.simulate import demo, simulate
from watteau.cli.workload import workload_app

app = typer.Typer(name="watteau", no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
app.add_typer(bench_app)
app.add_typer(fleet_app)
app.add_typer(workload_app)
app.command("simulate")(simulate)
app.command("demo")(demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"watteau {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    """Run an AI cloud that is spread over several sites, keep its books, and say why."""
