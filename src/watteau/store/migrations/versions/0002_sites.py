"""Sites that others use, too: what operators say of them, their nodes and jobs, and decisions in shadow."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables; nothing that was there changes."""
    op.create_table(
        "site_settings",
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("version", _WHOLE, nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("fenced", sa.Boolean(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("at_ms", _WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("site", name="site_settings_pk"),
    )
    op.create_table(
        "site_nodes",
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("site", "node", name="site_nodes_pk"),
    )
    op.create_table(
        "site_jobs",
        sa.Column("place", _WHOLE, autoincrement=False, nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("engine_id", sa.Text(), nullable=False),
        sa.Column("submitted_ms", _WHOLE, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_folded", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("tasks", _WHOLE, nullable=False),
        sa.Column("workers", _WHOLE, nullable=False),
        sa.Column("gpus", _WHOLE, nullable=False),
        sa.Column("cpus", _WHOLE, nullable=False),
        sa.Column("memory_mib", _WHOLE, nullable=False),
        sa.Column("time_limit_s", _WHOLE, nullable=False),
        sa.Column("priority", _WHOLE, nullable=False),
        sa.Column("eligible_ms", _WHOLE, nullable=True),
        sa.Column("started_ms", _WHOLE, nullable=True),
        sa.Column("ended_ms", _WHOLE, nullable=True),
        sa.Column("exit_code", _WHOLE, nullable=True),
        sa.Column("signal", _WHOLE, nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("restarts", _WHOLE, nullable=False),
        sa.Column("held", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("place", name="site_jobs_pk"),
    )
    op.create_index("site_jobs_by_engine_id", "site_jobs", ["engine_id", "site", "submitted_ms"], unique=True)
    op.create_index("site_jobs_by_site", "site_jobs", ["site", "state", "place"], unique=False)
    op.create_index("site_jobs_by_tenant", "site_jobs", ["tenant", "state", "place"], unique=False)
    op.create_index("site_jobs_by_user", "site_jobs", ["user_name", "state", "place"], unique=False)
    op.create_index("site_jobs_by_state", "site_jobs", ["state", "place"], unique=False)
    op.create_index("site_jobs_by_end", "site_jobs", ["ended_ms"], unique=False)
    op.create_table(
        "shadow_decisions",
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("submitted_ms", _WHOLE, autoincrement=False, nullable=False),
        sa.Column("engine_id", sa.Text(), nullable=False),
        sa.Column("decided_ms", _WHOLE, nullable=False),
        sa.Column("nodes", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("site", "submitted_ms", "engine_id", name="shadow_decisions_pk"),
    )
