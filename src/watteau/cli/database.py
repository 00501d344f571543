"""The server's database, for commands that read it themselves: with the same options as `watteau up`."""

from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from watteau.domain.errors import Fault, InputError
from watteau.store.store import Store, StoreUnavailable

__all__ = ["DataDir", "Database", "open_store"]

Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        help="The server's database: a postgresql://... URL, or sqlite:///PATH. Default: SQLite in the data directory.",
        envvar="WATTEAU_DB",
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The server's data directory.", envvar="WATTEAU_HOME", show_default=False),
]


def open_store(db: str | None, data_dir: Path | None) -> Store:
    """The database that `watteau up` keeps, with the same options. Raises InputError where there is none."""
    url = db or f"sqlite:///{(data_dir or platformdirs.user_data_path('watteau')).absolute() / 'watteau.db'}"
    for short in ("postgresql://", "postgres://"):
        if url.startswith(short):
            url = "postgresql+psycopg://" + url.removeprefix(short)
    expected = "the database of a server: --db, or --data-dir as for `watteau up`"
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise InputError(url, [Fault(0, "", "no such file", expected)])
    try:
        return Store(url)
    except (StoreUnavailable, ValueError) as gone:
        raise InputError("--db", [Fault(0, "", str(gone), expected)]) from None
