"""What was used, by our attempts and by jobs that people gave to sites: for accounting, and for the decayed use."""

import numpy as np
from sqlalchemy import BigInteger, ColumnElement, Connection, case, cast, desc, func, literal, select, union_all

from watteau.domain.records import PastUse
from watteau.domain.requests import JobState
from watteau.domain.units import GPU_MILLI, TenantId
from watteau.store.answers import UsageRow
from watteau.store.tables import attempts, site_jobs

_BY = {"tenant": "tenant", "user": "user_name", "site": "site"}
_CPU_MILLI = 1_000
#: Jobs by hand that run or have run. One that was put back into its queue waits again, whatever it did before.
HAS_RUN = (site_jobs.c.state == JobState.RUNNING.value) | (
    site_jobs.c.ended_ms.is_not(None) & site_jobs.c.state.not_in([JobState.WAITING.value, JobState.HELD.value])
)


def usage(
    connection: Connection, by: str, since_ms: int, until_ms: int, tenants: frozenset[TenantId] | None
) -> list[UsageRow]:
    """Use in [since, until). See Store.usage."""
    if by not in _BY:
        raise ValueError(f"use is by {', '.join(_BY)}, not by {by}")
    ours = select(
        attempts.c[_BY[by]].label("key"),
        attempts.c.job_id.label("job_id"),
        literal(0).label("by_hand"),
        attempts.c.gpu_milli.label("gpu_milli"),
        attempts.c.cpu_milli.label("cpu_milli"),
        _spent_ms(attempts.c.started_ms, attempts.c.ended_ms, since_ms, until_ms).label("spent_ms"),
    ).where(*ran_in(attempts.c.started_ms, attempts.c.ended_ms, since_ms, until_ms))
    by_hand = select(
        site_jobs.c[_BY[by]],
        cast(None, BigInteger),
        literal(1),
        site_jobs.c.gpus * GPU_MILLI,
        site_jobs.c.cpus * _CPU_MILLI,
        _spent_ms(site_jobs.c.started_ms, site_jobs.c.ended_ms, since_ms, until_ms),
    ).where(HAS_RUN, *ran_in(site_jobs.c.started_ms, site_jobs.c.ended_ms, since_ms, until_ms))
    if tenants is not None:
        ours = ours.where(attempts.c.tenant.in_(sorted(tenants)))
        by_hand = by_hand.where(site_jobs.c.tenant.in_(sorted(tenants)))
    all_that_ran = union_all(ours, by_hand).subquery()
    key = all_that_ran.c.key
    gpu = cast(func.sum(all_that_ran.c.spent_ms * all_that_ran.c.gpu_milli), BigInteger).label("gpu")
    cpu = cast(func.sum(all_that_ran.c.spent_ms * all_that_ran.c.cpu_milli), BigInteger).label("cpu")
    by_hand_jobs = func.sum(all_that_ran.c.by_hand)
    rows = connection.execute(
        select(key, func.count(all_that_ran.c.job_id.distinct()), func.count(), gpu, cpu, by_hand_jobs)
        .group_by(key)
        .order_by(desc(gpu), desc(cpu), key)
    )
    return [
        UsageRow(key, jobs + int(by_hand), attempts, gpu, cpu, int(by_hand))
        for key, jobs, attempts, gpu, cpu, by_hand in rows
    ]


def ran_in(
    started_ms: ColumnElement[int], ended_ms: ColumnElement[int], since_ms: int, until_ms: int
) -> tuple[ColumnElement[bool], ...]:
    """Conditions for what ran at some time of [since, until), if only for an instant."""
    return (
        started_ms < until_ms,
        # At or after: the index serves the first; the second keeps out what ended just as the span began.
        (ended_ms >= since_ms) | ended_ms.is_(None),
        (func.coalesce(ended_ms, until_ms) > since_ms) | (started_ms == since_ms),
    )


def _spent_ms(
    started_ms: ColumnElement[int], ended_ms: ColumnElement[int], since_ms: int, until_ms: int
) -> ColumnElement[int]:
    # The functions that give the smaller of two values are called differently in the two databases.
    end_ms = func.coalesce(ended_ms, until_ms)
    from_ms = case((started_ms > since_ms, started_ms), else_=since_ms)
    to_ms = case((end_ms < until_ms, end_ms), else_=until_ms)
    return case((to_ms > from_ms, to_ms - from_ms), else_=0)


def past_use(connection: Connection, since_ms: int) -> PastUse:
    """What ran and ended after a time, in the order of its end."""
    ours = select(
        attempts.c.tenant.label("tenant"),
        attempts.c.gpu_milli.label("gpu_milli"),
        attempts.c.started_ms.label("started_ms"),
        attempts.c.ended_ms.label("ended_ms"),
        literal(0).label("by_hand"),
        attempts.c.job_id.label("number"),
        attempts.c.number.label("part"),
    ).where(attempts.c.ended_ms > since_ms, attempts.c.started_ms.is_not(None))
    by_hand = select(
        site_jobs.c.tenant,
        site_jobs.c.gpus * GPU_MILLI,
        site_jobs.c.started_ms,
        site_jobs.c.ended_ms,
        literal(1),
        site_jobs.c.place,
        literal(0),
    ).where(HAS_RUN, site_jobs.c.ended_ms > since_ms, site_jobs.c.started_ms.is_not(None))
    everything = union_all(ours, by_hand).subquery()
    order = (everything.c[column] for column in ("ended_ms", "by_hand", "number", "part"))
    rows = connection.execute(everything.select().order_by(*order)).all()
    tenants = sorted({row.tenant for row in rows})
    index = {tenant: number for number, tenant in enumerate(tenants)}
    return PastUse(
        tenants=tuple(TenantId(tenant) for tenant in tenants),
        tenant=np.array([index[row.tenant] for row in rows], dtype=np.int64),
        gpu_milli=np.array([row.gpu_milli for row in rows], dtype=np.int64),
        started_ms=np.array([row.started_ms for row in rows], dtype=np.int64),
        ended_ms=np.array([row.ended_ms for row in rows], dtype=np.int64),
    )
