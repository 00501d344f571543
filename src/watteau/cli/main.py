"""The command tree."""

import typer

app = typer.Typer(name="watteau", no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Run an AI cloud that is spread over several sites, keep its books, and say why."""
