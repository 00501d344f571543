"""What attempts used: for accounting in a span, and for the tenants' decayed use."""

import numpy as np
from sqlalchemy import BigInteger, Connection, case, cast, desc, func, select

from watteau.domain.units import TenantId
from watteau.store.answers import PastUse, UsageRow
from watteau.store.tables import attempts

_BY = {"tenant": attempts.c.tenant, "user": attempts.c.user_name, "site": attempts.c.site}


def usage(
    connection: Connection, by: str, since_ms: int, until_ms: int, tenants: frozenset[TenantId] | None
) -> list[UsageRow]:
    """Use in [since, until). See Store.usage."""
    if by not in _BY:
        raise ValueError(f"use is by {', '.join(_BY)}, not by {by}")
    key = _BY[by]
    ended_ms = func.coalesce(attempts.c.ended_ms, until_ms)
    # The functions that give the smaller of two values are called differently in the two databases.
    from_ms = case((attempts.c.started_ms > since_ms, attempts.c.started_ms), else_=since_ms)
    to_ms = case((ended_ms < until_ms, ended_ms), else_=until_ms)
    spent_ms = case((to_ms > from_ms, to_ms - from_ms), else_=0)
    gpu = cast(func.sum(spent_ms * attempts.c.gpu_milli), BigInteger).label("gpu")
    cpu = cast(func.sum(spent_ms * attempts.c.cpu_milli), BigInteger).label("cpu")
    wanted = (
        select(key.label("key"), func.count(attempts.c.job_id.distinct()), func.count(), gpu, cpu)
        .where(attempts.c.started_ms < until_ms)
        # At or after: the index serves the first; the second keeps out what ended just as the span began.
        .where((attempts.c.ended_ms >= since_ms) | attempts.c.ended_ms.is_(None))
        .where((ended_ms > since_ms) | (attempts.c.started_ms == since_ms))
        .group_by(key)
        .order_by(desc(gpu), desc(cpu), key)
    )
    if tenants is not None:
        wanted = wanted.where(attempts.c.tenant.in_(sorted(tenants)))
    return [UsageRow(*row) for row in connection.execute(wanted)]


def past_use(connection: Connection, since_ms: int) -> PastUse:
    """Attempts that ran and ended after a time, in the order of their ends."""
    rows = connection.execute(
        select(attempts.c.tenant, attempts.c.gpu_milli, attempts.c.started_ms, attempts.c.ended_ms)
        .where(attempts.c.ended_ms > since_ms, attempts.c.started_ms.is_not(None))
        .order_by(attempts.c.ended_ms, attempts.c.job_id, attempts.c.number)
    ).all()
    tenants = sorted({row.tenant for row in rows})
    index = {tenant: number for number, tenant in enumerate(tenants)}
    return PastUse(
        tenants=tuple(TenantId(tenant) for tenant in tenants),
        tenant=np.array([index[row.tenant] for row in rows], dtype=np.int64),
        gpu_milli=np.array([row.gpu_milli for row in rows], dtype=np.int64),
        started_ms=np.array([row.started_ms for row in rows], dtype=np.int64),
        ended_ms=np.array([row.ended_ms for row in rows], dtype=np.int64),
    )
