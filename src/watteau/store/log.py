"""The two logs, events and audit: only added to, under a lock that makes the order of `seq` the order of commits."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from watteau.domain.records import Event, EventKind
from watteau.domain.units import TenantId
from watteau.store.answers import AuditLine
from watteau.store.ranges import Ranges, first_keys
from watteau.store.rows import EVENT, event_from, in_parts, is_plain, json_text, plain, possible
from watteau.store.tables import audit, counters, events

#: An event to be: job, tenant, attempt, kind, data.
Line = tuple[int, str, int | None, EventKind, Mapping[str, Any]]


_LOCK = select(counters.c.one).with_for_update()


def lock(connection: Connection) -> None:
    """Wait until nobody else writes to the logs, and keep others from it until the commit."""
    connection.execute(_LOCK)


_TAKE = (
    update(counters)
    .values(
        last_seq=counters.c.last_seq + bindparam("seqs"),
        last_job_id=counters.c.last_job_id + bindparam("jobs"),
        last_request_id=counters.c.last_request_id + bindparam("requests"),
        last_audit_seq=counters.c.last_audit_seq + bindparam("lines"),
    )
    .returning(counters)
)


def take(connection: Connection, *, seqs: int = 0, jobs: int = 0, requests: int = 0, lines: int = 0) -> Row[Any]:
    """Reserve consecutive numbers (and lock, as `lock` does); the row holds the last of each kind."""
    return connection.execute(_TAKE, {"seqs": seqs, "jobs": jobs, "requests": requests, "lines": lines}).one()


def append(connection: Connection, lines: Sequence[Line], now_ms: int) -> range:
    """Add events in this order; returns their seqs (none after the log's last when there are none)."""
    last: int = take(connection, seqs=len(lines)).last_seq if lines else last_seq(connection)
    seqs = range(last - len(lines) + 1, last + 1)
    write(connection, lines, now_ms, seqs.start)
    return seqs


def write(connection: Connection, lines: Sequence[Line], now_ms: int, first_seq: int) -> None:
    """Add events with seqs that `take` reserved."""
    if lines:
        connection.execute(
            insert(events),
            [
                {
                    "seq": seq,
                    "at_ms": now_ms,
                    "job_id": job_id,
                    "tenant": tenant,
                    "attempt": attempt,
                    "kind": kind,
                    "data": json_text(data),
                }
                for seq, (job_id, tenant, attempt, kind, data) in enumerate(lines, first_seq)
            ],
        )


def last_seq(connection: Connection) -> int:
    """The newest event's seq; 0: none."""
    found: int = connection.execute(select(counters.c.last_seq)).scalar_one()
    return found


def note(
    connection: Connection, user: str, action: str, target: str, now_ms: int, data: Mapping[str, Any] | None = None
) -> None:
    """Add a line to the audit log."""
    seq: int = take(connection, lines=1).last_audit_seq
    connection.execute(
        insert(audit),
        {
            "seq": seq,
            "at_ms": now_ms,
            "user_name": plain(user),
            "action": plain(action),
            "target": plain(target),
            "data": json_text(data or {}),
        },
    )


def notes(connection: Connection, after_seq: int, limit: int) -> list[AuditLine]:
    """The audit log from a seq on (exclusive)."""
    wanted = select(audit).where(audit.c.seq > possible(after_seq)).order_by(audit.c.seq).limit(limit)
    return [
        AuditLine(row.seq, row.at_ms, row.user_name, row.action, row.target, json.loads(row.data))
        for row in connection.execute(wanted)
    ]


def story(connection: Connection, job_id: int, after_seq: int, limit: int) -> list[Event]:
    """One job's events."""
    wanted = select(*EVENT).where(events.c.job_id == possible(job_id), events.c.seq > possible(after_seq))
    return [event_from(row) for row in connection.execute(wanted.order_by(events.c.seq).limit(limit))]


def tail(connection: Connection, after_seq: int, limit: int, tenants: frozenset[TenantId] | None = None) -> list[Event]:
    """The log from a seq on (exclusive), of these tenants' jobs when given."""
    wanted = select(*EVENT).order_by(events.c.seq)
    if tenants is None:
        rows = connection.execute(wanted.where(events.c.seq > possible(after_seq)).limit(limit))
        return [event_from(row) for row in rows]
    plain_ones = sorted(tenant for tenant in tenants if is_plain(tenant))
    theirs = Ranges("events", "seq", "events_by_tenant", ("tenant",), (plain_ones,), newest_first=False)
    return [
        event_from(row)
        for seqs in in_parts(first_keys(connection, theirs, possible(after_seq), limit))
        for row in connection.execute(wanted.where(events.c.seq.in_(seqs)))
    ]
