"""Brings a database's tables up to date when it is opened; a newer or a foreign one is refused."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from watteau.store.errors import StoreUnavailable
from watteau.store.tables import metadata

#: PostgreSQL's advisory lock for migrations: any number that nobody else uses.
_MIGRATES = 0x57A77EA0


def upgrade(engine: Engine, name: str) -> None:
    """Bring the tables to the head, all steps in one transaction; two processes at once do it once.

    Raises StoreUnavailable when the database was written by a newer Watteau, or belongs to something else.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    with engine.connect() as connection:
        if _version(connection) == head:
            return
    with engine.execution_options(begin="BEGIN IMMEDIATE").begin() as connection:
        if connection.dialect.name == "postgresql":
            # Whoever waits here must wait for as long as the steps take, not for as long as a request may.
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATES})
        version = _version(connection)
        if version == head:
            return
        known = {step.revision for step in script.walk_revisions()}
        if version is not None and version not in known:
            raise StoreUnavailable(
                f"{name}: its tables are of version {version}, and this Watteau knows them up to {head}: a newer "
                "Watteau wrote them. Install that version, or name another database"
            )
        foreign = set(inspect(connection).get_table_names()) & set(metadata.tables)
        if version is None and foreign:
            raise StoreUnavailable(
                f"{name}: it holds tables that are not Watteau's ({', '.join(sorted(foreign))}); name another database"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _version(connection: Connection) -> str | None:
    """The last step that was made; None: none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found
