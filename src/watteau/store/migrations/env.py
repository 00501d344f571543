"""Alembic runs this: with the connection that `upgrade` gives, or one to the URL that `-x url=` names."""

from alembic import context
from sqlalchemy import create_engine

from watteau.store.tables import metadata

given = context.config.attributes.get("connection")


def _run() -> None:
    if given is not None:
        context.configure(connection=given, target_metadata=metadata)
        context.run_migrations()
        return
    # For `alembic revision --autogenerate`, while a new step is written.
    engine = create_engine(context.get_x_argument(as_dictionary=True)["url"])
    with engine.begin() as connection:
        context.configure(connection=connection, target_metadata=metadata)
        context.run_migrations()


_run()
