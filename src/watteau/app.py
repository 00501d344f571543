"""The composition root: what `watteau` starts."""

from watteau.cli.main import app


def main() -> None:
    """Run the command line."""
    app()
