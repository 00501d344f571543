"""The database itself: connections, transactions, the schema, and what is said when it cannot be used."""

import os
import sqlite3
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InternalError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from watteau.store.errors import StoreUnavailable
from watteau.store.migrations.upgrade import upgrade

_BUSY_S = 10

#: Said for what the drivers report by number. SQLite: the primary result code; PostgreSQL: SQLSTATE or its class.
_SQLITE_SAYS = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "it is read-only; check the permissions of the file and of its folder",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; try again, or find who does (fuser names it)",
    sqlite3.SQLITE_LOCKED: "another process keeps it locked; try again, or find who does (fuser names it)",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check its folder and the permissions",
    sqlite3.SQLITE_IOERR: "reading or writing the file failed; check the disk, its quota and the file size limit",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; stop, keep a copy, and restore a backup",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database; name another one",
    sqlite3.SQLITE_PERM: "access was denied; check the permissions of the file and of its folder",
}
_POSTGRES_SAYS = {
    "25006": "it is read-only (a standby, or default_transaction_read_only); name the primary",
    "40001": "another transaction was in the way; try again",
    "40P01": "another transaction was in the way; try again",
    "53100": "the server's disk is full; free some space",
    "53200": "the server is out of memory",
    "53300": "the server has no free connection; raise max_connections or use fewer processes",
    "55P03": "another transaction keeps it locked; try again",
    "57014": "the server cancelled the statement",
    "57P01": "the server is shutting down or was restarted; try again",
    "57P02": "the server crashed; try again",
    "57P03": "the server is starting up; try again",
    "28": "the server refuses the login; check user and password",
    "3D": "there is no such database; create it first",
    "42501": "the login lacks a permission; make it the owner of the database",
}


class Database:
    """One database with all its tables. Thread-safe. Every method may raise StoreUnavailable."""

    def __init__(self, url: str) -> None:
        self._url = _checked(url)
        self.is_postgres = self._url.get_backend_name() == "postgresql"
        self._writer = threading.Lock()
        self._file: Path | None = None
        self._identity: tuple[int, int] | None = None
        if not self.is_postgres and not self._url.query.get("uri"):
            # Absolute, for a later connection must find the same file from another working directory.
            self._file = Path(str(self._url.database)).absolute()
            self._url = self._url.set(database=str(self._file))
        with self._saying():
            if self._file is not None:
                _make(self._file)
            self._engine = self._connected()
            try:
                if not self.is_postgres:
                    self._use_a_write_ahead_log()
                upgrade(self._engine, str(self))
                if self._file is not None:
                    self._identity = _identity(self._file)
            except BaseException:
                self._engine.dispose()
                raise
        self._write = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        # A single statement is consistent by itself; PostgreSQL is spared the round trips of BEGIN and ROLLBACK.
        self._read = self._engine.execution_options(isolation_level="AUTOCOMMIT") if self.is_postgres else self._engine
        self._snapshot = (
            self._engine.execution_options(isolation_level="REPEATABLE READ") if self.is_postgres else self._engine
        )

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for one statement, or several that need not agree."""
        with self._saying(), self._read.connect() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection whose statements all see the same moment."""
        with self._saying(), self._snapshot.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: kept as a whole and durable when the block ends, and not at all when it raises."""
        with self._saying():
            if self.is_postgres:
                with self._write.begin() as connection:
                    yield connection
                return
            # SQLite has one writer. Who waits here goes on at once; its own busy handler sleeps and tries again.
            if not self._writer.acquire(timeout=_BUSY_S):
                raise StoreUnavailable(f"{self}: other writes of this process take more than {_BUSY_S} s; try again")
            try:
                self._refuse_if_gone()
                with self._write.begin() as connection:
                    yield connection
            finally:
                self._writer.release()

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def _connected(self) -> Engine:
        if self.is_postgres:
            return create_engine(
                self._url,
                isolation_level="READ COMMITTED",
                # A server that was restarted is noticed when a connection is taken, not in the middle of a request.
                pool_pre_ping=True,
                pool_size=10,
                max_overflow=20,
                pool_timeout=_BUSY_S,
                connect_args={
                    "connect_timeout": 5,
                    "application_name": "watteau",
                    # An acknowledged request is durable, whatever the server's default is. Compiling a statement
                    # (jit) takes longer than running any of ours. What is read often is in memory, where a page
                    # costs no more than its rows: by its defaults the planner prefers long walks to short hops.
                    "options": f"-c synchronous_commit=on -c lock_timeout={_BUSY_S}s -c jit=off"
                    " -c seq_page_cost=0.02 -c random_page_cost=0.02"
                    f" {self._url.query.get('options', '')}",
                },
            )
        patience = {} if "timeout" in self._url.query else {"timeout": _BUSY_S}
        engine = create_engine(self._url, connect_args=patience, pool_size=16, max_overflow=48, pool_timeout=_BUSY_S)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _use_a_write_ahead_log(self) -> None:
        with self._engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            connection.rollback()
            (mode,) = driver.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreUnavailable(f"{self}: SQLite cannot keep a write-ahead log there; name a local disk")

    def _refuse_if_gone(self) -> None:
        """SQLite would go on writing into a file that was deleted, and all of it would be lost."""
        if self._file is not None and _identity(self._file) != self._identity:
            raise StoreUnavailable(f"{self}: the file was removed or replaced; put it back and restart")

    @contextmanager
    def _saying(self) -> Generator[None]:
        """Turn what the driver raises about the database into StoreUnavailable; our own mistakes pass."""
        try:
            yield
        except PoolTimeout as error:
            raise StoreUnavailable(f"{self}: all connections are busy; try again") from error
        except (DBAPIError, sqlite3.Error) as error:
            said = _what_is_wrong(error)
            if said is None:
                raise
            raise StoreUnavailable(f"{self}: {said}") from error
        except OSError as error:
            raise StoreUnavailable(f"{self}: {error.strerror or error}") from error


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        name = parsed.get_dialect().name
    except (ArgumentError, NoSuchModuleError) as error:
        raise ValueError("the database URL is not one of sqlite:////path or postgresql://...") from error
    if name not in ("sqlite", "postgresql"):
        raise ValueError(f"{name} is not supported: use sqlite:////path or postgresql://...")
    if name == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ValueError("SQLite in memory keeps nothing: name a file, for example sqlite:////var/lib/watteau.db")
    return parsed


def _make(file: Path) -> None:
    """The file and its folder, for their owner only: it holds scripts, environments and password hashes."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not file.exists():
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _prepare_sqlite(driver: sqlite3.Connection, _: object) -> None:
    # The driver must not begin transactions by itself; `_begin_sqlite` does, and says which kind.
    driver.isolation_level = None
    driver.execute("PRAGMA synchronous = FULL")
    driver.execute("PRAGMA foreign_keys = ON")
    # Otherwise INSERT OR REPLACE would delete without the triggers that keep the logs append-only.
    driver.execute("PRAGMA recursive_triggers = ON")
    driver.execute("PRAGMA cache_size = -16384")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a transaction that begins by reading could not become a writer once another one has written.
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _what_is_wrong(error: DBAPIError | sqlite3.Error) -> str | None:
    """A sentence without a subject; None when the statement is wrong, not the database."""
    driver = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(driver, sqlite3.Error):
        code = getattr(driver, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _SQLITE_SAYS:
            return _SQLITE_SAYS[code & 0xFF]
        if isinstance(driver, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
            return f"{driver}"
        return None
    state = str(getattr(driver, "sqlstate", None) or "")
    if said := _POSTGRES_SAYS.get(state) or _POSTGRES_SAYS.get(state[:2]):
        return said
    if isinstance(error, OperationalError | InterfaceError | InternalError) or type(error) is DatabaseError:
        first_line = str(driver).strip().partition("\n")[0]
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return (
                f"the server is gone ({first_line}); if this was during a commit, all of the request was kept or "
                "nothing: repeat it with its idempotency key"
            )
        return f"the server does not answer as it should ({first_line})"
    return None
