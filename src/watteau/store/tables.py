"""The tables. Times are integer epoch milliseconds, JSON is text, and events and audit are only ever added to.

Whatever is changed here needs a migration; a test compares the two.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "fk": "%(table_name)s_%(column_0_name)s_fk",
        "uq": "%(table_name)s_%(column_0_name)s_uq",
        "ck": "%(table_name)s_%(constraint_name)s_ck",
    }
)

# SQLite's row id is a column of type INTEGER, exactly; it has 64 bits all the same.
_WHOLE = BigInteger().with_variant(Integer(), "sqlite")

#: Jobs that have not ended, as the partial index says it; queries must use the same words to be served by it.
NOT_ENDED = "state IN ('waiting', 'held', 'running')"
#: Attempts that hold their places.
LIVE = "state <> 'ended'"

#: One row. Whoever adds to a log locks it until the commit: the order of `seq` is the order of commits, without gaps.
counters = Table(
    "counters",
    metadata,
    Column("one", _WHOLE, primary_key=True, autoincrement=False),
    Column("last_seq", _WHOLE, nullable=False),
    Column("last_job_id", _WHOLE, nullable=False),
    Column("last_request_id", _WHOLE, nullable=False),
    Column("last_audit_seq", _WHOLE, nullable=False),
    Column("probes", _WHOLE, nullable=False),  # writes of `check`, which prove that writing works
    Column("identity", String(32)),  # the database's own name, for life
    CheckConstraint("one = 1", name="one_row"),
)

#: Ended jobs by state, kept with each end: counting a million rows for every scrape of the metrics is too slow.
ended_jobs = Table(
    "ended_jobs",
    metadata,
    Column("state", String(16), primary_key=True),
    Column("jobs", _WHOLE, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("request_id", _WHOLE, primary_key=True, autoincrement=False),
    Column("name_folded", Text, nullable=False),  # str.casefold of the job's name, for searching
    Column("gpu_milli", _WHOLE, nullable=False),  # all workers together
    Column("cpu_milli", _WHOLE, nullable=False),  # all workers together
    Column("body", Text, nullable=False),  # Request as JSON, without what is a default
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", _WHOLE, primary_key=True, autoincrement=False),
    Column("request_id", _WHOLE, ForeignKey("requests.request_id"), nullable=False),
    Column("array_id", _WHOLE),
    Column("array_index", _WHOLE),
    Column("tenant", Text, nullable=False),
    Column("user_name", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    Column("submitted_ms", _WHOLE, nullable=False),
    Column("started_ms", _WHOLE),
    Column("ended_ms", _WHOLE),
    Column("site", Text),
    Column("attempts", Integer, nullable=False),
    Column("exit_code", _WHOLE),
    Column("signal", _WHOLE),
    Column("cancel_requested", Boolean, nullable=False),
    # Each begins with what a page may be restricted to and ends with what it is ordered by: see pages.py.
    Index("jobs_by_tenant", "tenant", "job_id"),
    Index("jobs_by_tenant_state", "tenant", "state", "job_id"),
    Index("jobs_by_state", "state", "job_id"),
    Index("jobs_by_user", "user_name", "state", "job_id"),
    Index(
        "jobs_by_site",
        "site",
        "state",
        "job_id",
        sqlite_where=text("site IS NOT NULL"),
        postgresql_where=text("site IS NOT NULL"),
    ),
    Index(
        "jobs_by_array",
        "array_id",
        "job_id",
        sqlite_where=text("array_id IS NOT NULL"),
        postgresql_where=text("array_id IS NOT NULL"),
    ),
    Index("jobs_by_request", "request_id", "job_id"),
    Index(
        "jobs_not_ended",
        "job_id",
        "state",
        "reason",
        sqlite_where=text(NOT_ENDED),
        postgresql_where=text(NOT_ENDED),
    ),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", _WHOLE, ForeignKey("jobs.job_id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("site", Text, nullable=False),
    # The next four never change for a job; here they make usage a scan of one table.
    Column("tenant", Text, nullable=False),
    Column("user_name", Text, nullable=False),
    Column("gpu_milli", _WHOLE, nullable=False),
    Column("cpu_milli", _WHOLE, nullable=False),
    Column("state", String(16), nullable=False),
    Column("places", Text, nullable=False),
    Column("intended_ms", _WHOLE, nullable=False),
    Column("started_ms", _WHOLE),
    Column("ended_ms", _WHOLE),
    Column("outcome", String(16)),
    Column("exit_code", _WHOLE),
    Column("signal", _WHOLE),
    Column("cause", Text, nullable=False),
    # The database itself refuses a second live attempt of a job.
    Index("attempts_live", "job_id", unique=True, sqlite_where=text(LIVE), postgresql_where=text(LIVE)),
    Index("attempts_by_end", "ended_ms"),
)

events = Table(
    "events",
    metadata,
    Column("seq", _WHOLE, primary_key=True, autoincrement=False),
    Column("at_ms", _WHOLE, nullable=False),
    Column("job_id", _WHOLE, nullable=False),
    Column("tenant", Text, nullable=False),  # of the job: a tenant follows its own part of the log
    Column("attempt", Integer),
    Column("kind", String(24), nullable=False),
    Column("data", Text, nullable=False),
    Index("events_by_job", "job_id", "seq"),
    Index("events_by_tenant", "tenant", "seq"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("user_id", _WHOLE, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("at_ms", _WHOLE, nullable=False),
    Column("first_job_id", _WHOLE, nullable=False),  # the jobs of one request have consecutive ids
    Column("jobs", _WHOLE, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", Text, nullable=False),
    Column("term", _WHOLE, nullable=False),
    Column("expires_ms", _WHOLE, nullable=False),  # by the database's clock where it has one; 0: given back
)

users = Table(
    "users",
    metadata,
    Column("user_id", _WHOLE, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("password_hash", Text),
    Column("disabled", Boolean, nullable=False),
    Column("created_ms", _WHOLE, nullable=False),
)

grants = Table(
    "grants",
    metadata,
    Column("user_id", _WHOLE, ForeignKey("users.user_id"), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("role", String(32), nullable=False),
    Column("tenant", Text, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_id", _WHOLE, primary_key=True),
    Column("user_id", _WHOLE, ForeignKey("users.user_id"), nullable=False),
    Column("digest", Text, nullable=False, unique=True),  # of the secret, which is nowhere
    Column("label", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("one_time", Boolean, nullable=False),
    Column("created_ms", _WHOLE, nullable=False),
    Column("expires_ms", _WHOLE),
    Column("last_used_ms", _WHOLE),
    Column("revoked_ms", _WHOLE),
    Index("tokens_by_user", "user_id"),
)

#: What operators said of sites: one row for each. A newer word has a higher version than all before.
site_settings = Table(
    "site_settings",
    metadata,
    Column("site", Text, primary_key=True),
    Column("version", _WHOLE, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("fenced", Boolean, nullable=False),
    Column("why", Text, nullable=False),
    Column("user_name", Text, nullable=False),
    Column("at_ms", _WHOLE, nullable=False),
)

site_nodes = Table(
    "site_nodes",
    metadata,
    Column("site", Text, primary_key=True),
    Column("node", Text, primary_key=True),  # as the site's engine calls it
    Column("pool", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("why", Text, nullable=False),
)

#: Jobs that people gave to a site's own scheduler, as they were last seen there.
site_jobs = Table(
    "site_jobs",
    metadata,
    # Its milliseconds, and its number among all of the same millisecond: jobs in the order of their submission.
    Column("place", _WHOLE, primary_key=True, autoincrement=False),
    Column("site", Text, nullable=False),
    Column("engine_id", Text, nullable=False),
    Column("submitted_ms", _WHOLE, nullable=False),
    Column("name", Text, nullable=False),
    Column("name_folded", Text, nullable=False),  # str.casefold of the name, for searching
    Column("user_name", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("partition", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("tasks", _WHOLE, nullable=False),
    Column("workers", _WHOLE, nullable=False),
    Column("gpus", _WHOLE, nullable=False),
    Column("cpus", _WHOLE, nullable=False),
    Column("memory_mib", _WHOLE, nullable=False),
    Column("time_limit_s", _WHOLE, nullable=False),
    Column("priority", _WHOLE, nullable=False),
    Column("eligible_ms", _WHOLE),
    Column("started_ms", _WHOLE),
    Column("ended_ms", _WHOLE),
    Column("exit_code", _WHOLE),
    Column("signal", _WHOLE),
    Column("cause", Text, nullable=False),
    Column("restarts", _WHOLE, nullable=False),
    Column("held", Text, nullable=False),  # JSON: [node, GPUs, CPUs, MiB] of each node
    # In this order an id finds its jobs without the site, too.
    Index("site_jobs_by_engine_id", "engine_id", "site", "submitted_ms", unique=True),
    Index("site_jobs_by_site", "site", "state", "place"),
    Index("site_jobs_by_tenant", "tenant", "state", "place"),
    Index("site_jobs_by_user", "user_name", "state", "place"),
    Index("site_jobs_by_state", "state", "place"),
    Index("site_jobs_by_end", "ended_ms"),
)

#: What would have been done at a site in shadow; never changed.
shadow_decisions = Table(
    "shadow_decisions",
    metadata,
    Column("site", Text, primary_key=True),
    Column("submitted_ms", _WHOLE, primary_key=True, autoincrement=False),
    Column("engine_id", Text, primary_key=True),
    Column("decided_ms", _WHOLE, nullable=False),
    Column("nodes", Text, nullable=False),  # JSON: the name of each worker's node
)

audit = Table(
    "audit",
    metadata,
    Column("seq", _WHOLE, primary_key=True, autoincrement=False),
    Column("at_ms", _WHOLE, nullable=False),
    Column("user_name", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("data", Text, nullable=False),
)
