"""Who leads: one row that is taken, renewed, given back and, inside each of the leader's writes, checked."""

from sqlalchemy import ColumnElement, Connection, select, text, update

from watteau.store.answers import Lease
from watteau.store.errors import LeaseLost
from watteau.store.tables import leases

LEADER = "controller"

# A lease that was given back has expires_ms = 0. Its holder may take it again, with a new term: the old one stays lost.
_TAKE = """
INSERT INTO leases (name, holder, term, expires_ms) VALUES (:name, :holder, 1, {now} + :ttl)
ON CONFLICT (name) DO UPDATE SET
    term = leases.term
        + CASE WHEN leases.holder = excluded.holder AND leases.expires_ms > 0 THEN 0 ELSE 1 END,
    holder = excluded.holder,
    expires_ms = excluded.expires_ms
WHERE leases.holder = excluded.holder OR leases.expires_ms <= {now}
RETURNING term
"""
_TAKE_BY_OUR_CLOCK = text(_TAKE.format(now=":now"))
_TAKE_BY_ITS_CLOCK = text(_TAKE.format(now="CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"))


def take(connection: Connection, holder: str, now_ms: int, ttl_ms: int) -> Lease | None:
    """Take or renew leadership; None: someone else leads. PostgreSQL goes by its own clock, which all share."""
    values: dict[str, object] = {"name": LEADER, "holder": holder, "ttl": ttl_ms}
    if connection.dialect.name == "postgresql":
        term = connection.execute(_TAKE_BY_ITS_CLOCK, values).scalar()
    else:
        term = connection.execute(_TAKE_BY_OUR_CLOCK, values | {"now": now_ms}).scalar()
    # Ours began before the database was asked, so it never ends after the database's.
    return None if term is None else Lease(holder, term, now_ms + ttl_ms)


def give_back(connection: Connection, lease: Lease) -> None:
    """Whoever asks next may lead, if the lease is still ours."""
    connection.execute(update(leases).where(*_is(lease)).values(expires_ms=0))


def insist(connection: Connection, lease: Lease) -> None:
    """Keep the lease ours until the commit. Raises LeaseLost when it is not.

    One that has run out and that nobody else took is still ours: who wants it waits for this commit. Other writes of
    the same leader do not wait: what a site shows never holds up a cycle.
    """
    ours = select(leases.c.term).where(*_is(lease), leases.c.expires_ms > 0).with_for_update(read=True)
    if connection.execute(ours).first() is None:
        raise LeaseLost(f"{lease.holder} no longer leads (term {lease.term})")


def _is(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return leases.c.name == LEADER, leases.c.holder == lease.holder, leases.c.term == lease.term
