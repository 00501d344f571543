"""A name that a database has for life, by which two that share a site's folder are told apart."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Give the database its name."""
    op.add_column("counters", sa.Column("identity", sa.String(length=32)))
    name = sa.text("UPDATE counters SET identity = :identity").bindparams(identity=secrets.token_hex(16))
    op.get_bind().execute(name)
