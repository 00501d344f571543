"""The first tables: jobs, attempts, the two append-only logs, accounts, leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_APPEND_ONLY = ("events", "audit")


def upgrade() -> None:
    """Make the tables, the triggers of the append-only ones, and the search index of names."""
    _make_tables()
    op.execute(
        "INSERT INTO counters (one, last_seq, last_job_id, last_request_id, last_audit_seq, probes)"
        " VALUES (1, 0, 0, 0, 0, 0)"
    )
    if op.get_bind().dialect.name == "postgresql":
        _protect_on_postgresql()
        _index_names_on_postgresql()
    else:
        _protect_on_sqlite()
        _index_names_on_sqlite()


def _protect_on_sqlite() -> None:
    for table in _APPEND_ONLY:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )


def _protect_on_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION watteau_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION watteau_append_only()"
        )


def _index_names_on_sqlite() -> None:
    # Three letters and more are found by their trigrams; the index holds no copy of the names, which are folded.
    op.execute(
        "CREATE VIRTUAL TABLE request_names USING fts5(name_folded, content='', tokenize='trigram case_sensitive 1')"
    )
    op.execute(
        "CREATE TRIGGER requests_name AFTER INSERT ON requests"
        " BEGIN INSERT INTO request_names (rowid, name_folded) VALUES (NEW.request_id, NEW.name_folded); END"
    )


def _index_names_on_postgresql() -> None:
    # pg_trgm comes with Debian's server, and the owner of a database may create it. Without it a search for a part of
    # a name reads the names one after the other: slower, not wrong.
    bind = op.get_bind()
    try:
        with bind.begin_nested():
            bind.execute(sa.text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
    except sa.exc.DBAPIError:
        return
    op.execute("CREATE INDEX request_names ON requests USING gin (name_folded gin_trgm_ops)")


def _make_tables() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", _WHOLE, autoincrement=False, nullable=False),
        sa.Column("at_ms", _WHOLE, nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="audit_pk"),
    )
    op.create_table(
        "counters",
        sa.Column("one", _WHOLE, autoincrement=False, nullable=False),
        sa.Column("last_seq", _WHOLE, nullable=False),
        sa.Column("last_job_id", _WHOLE, nullable=False),
        sa.Column("last_request_id", _WHOLE, nullable=False),
        sa.Column("last_audit_seq", _WHOLE, nullable=False),
        sa.Column("probes", _WHOLE, nullable=False),
        sa.CheckConstraint("one = 1", name="counters_one_row_ck"),
        sa.PrimaryKeyConstraint("one", name="counters_pk"),
    )
    op.create_table(
        "ended_jobs",
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("jobs", _WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("state", name="ended_jobs_pk"),
    )
    op.create_table(
        "events",
        sa.Column("seq", _WHOLE, autoincrement=False, nullable=False),
        sa.Column("at_ms", _WHOLE, nullable=False),
        sa.Column("job_id", _WHOLE, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="events_pk"),
    )
    op.create_index("events_by_job", "events", ["job_id", "seq"], unique=False)
    op.create_index("events_by_tenant", "events", ["tenant", "seq"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("user_id", _WHOLE, autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("at_ms", _WHOLE, nullable=False),
        sa.Column("first_job_id", _WHOLE, nullable=False),
        sa.Column("jobs", _WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "key", name="idempotency_pk"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("term", _WHOLE, nullable=False),
        sa.Column("expires_ms", _WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("name", name="leases_pk"),
    )
    op.create_table(
        "requests",
        sa.Column("request_id", _WHOLE, autoincrement=False, nullable=False),
        sa.Column("name_folded", sa.Text(), nullable=False),
        sa.Column("gpu_milli", _WHOLE, nullable=False),
        sa.Column("cpu_milli", _WHOLE, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="requests_pk"),
    )
    op.create_table(
        "users",
        sa.Column("user_id", _WHOLE, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_ms", _WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="users_pk"),
        sa.UniqueConstraint("name", name="users_name_uq"),
    )
    op.create_table(
        "grants",
        sa.Column("user_id", _WHOLE, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.user_id"], name="grants_user_id_fk"),
        sa.PrimaryKeyConstraint("user_id", "position", name="grants_pk"),
    )
    op.create_table(
        "jobs",
        sa.Column("job_id", _WHOLE, autoincrement=False, nullable=False),
        sa.Column("request_id", _WHOLE, nullable=False),
        sa.Column("array_id", _WHOLE, nullable=True),
        sa.Column("array_index", _WHOLE, nullable=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Integer(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("submitted_ms", _WHOLE, nullable=False),
        sa.Column("started_ms", _WHOLE, nullable=True),
        sa.Column("ended_ms", _WHOLE, nullable=True),
        sa.Column("site", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("exit_code", _WHOLE, nullable=True),
        sa.Column("signal", _WHOLE, nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["requests.request_id"], name="jobs_request_id_fk"),
        sa.PrimaryKeyConstraint("job_id", name="jobs_pk"),
    )
    op.create_index(
        "jobs_by_array",
        "jobs",
        ["array_id", "job_id"],
        unique=False,
        sqlite_where=sa.text("array_id IS NOT NULL"),
        postgresql_where=sa.text("array_id IS NOT NULL"),
    )
    op.create_index("jobs_by_request", "jobs", ["request_id", "job_id"], unique=False)
    op.create_index(
        "jobs_by_site",
        "jobs",
        ["site", "state", "job_id"],
        unique=False,
        sqlite_where=sa.text("site IS NOT NULL"),
        postgresql_where=sa.text("site IS NOT NULL"),
    )
    op.create_index("jobs_by_state", "jobs", ["state", "job_id"], unique=False)
    op.create_index("jobs_by_tenant", "jobs", ["tenant", "job_id"], unique=False)
    op.create_index("jobs_by_tenant_state", "jobs", ["tenant", "state", "job_id"], unique=False)
    op.create_index("jobs_by_user", "jobs", ["user_name", "state", "job_id"], unique=False)
    op.create_index(
        "jobs_not_ended",
        "jobs",
        ["job_id", "state", "reason"],
        unique=False,
        sqlite_where=sa.text("state IN ('waiting', 'held', 'running')"),
        postgresql_where=sa.text("state IN ('waiting', 'held', 'running')"),
    )
    op.create_table(
        "tokens",
        sa.Column("token_id", _WHOLE, nullable=False),
        sa.Column("user_id", _WHOLE, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("one_time", sa.Boolean(), nullable=False),
        sa.Column("created_ms", _WHOLE, nullable=False),
        sa.Column("expires_ms", _WHOLE, nullable=True),
        sa.Column("last_used_ms", _WHOLE, nullable=True),
        sa.Column("revoked_ms", _WHOLE, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.user_id"], name="tokens_user_id_fk"),
        sa.PrimaryKeyConstraint("token_id", name="tokens_pk"),
        sa.UniqueConstraint("digest", name="tokens_digest_uq"),
    )
    op.create_index("tokens_by_user", "tokens", ["user_id"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("job_id", _WHOLE, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("gpu_milli", _WHOLE, nullable=False),
        sa.Column("cpu_milli", _WHOLE, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("places", sa.Text(), nullable=False),
        sa.Column("intended_ms", _WHOLE, nullable=False),
        sa.Column("started_ms", _WHOLE, nullable=True),
        sa.Column("ended_ms", _WHOLE, nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("exit_code", _WHOLE, nullable=True),
        sa.Column("signal", _WHOLE, nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name="attempts_job_id_fk"),
        sa.PrimaryKeyConstraint("job_id", "number", name="attempts_pk"),
    )
    op.create_index("attempts_by_end", "attempts", ["ended_ms"], unique=False)
    op.create_index(
        "attempts_live",
        "attempts",
        ["job_id"],
        unique=True,
        sqlite_where=sa.text("state <> 'ended'"),
        postgresql_where=sa.text("state <> 'ended'"),
    )
