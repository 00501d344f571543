"""What ran in a span, as columns by pool: our attempts by where they stood, jobs by hand by what they held."""

import json
from array import array
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import chain

import numpy as np
from sqlalchemy import ColumnElement, Connection, select

from watteau.domain.units import GPU_MILLI, PoolId, SiteId, TenantId
from watteau.store.answers import Ran
from watteau.store.tables import attempts, site_jobs, site_nodes
from watteau.store.use import HAS_RUN, ran_in

_AT_ONCE = 10_000
#: (site, pool or None for nodes that are in none, thousandths of a GPU, from, to, by hand)
_Row = tuple[str, str | None, int, int, int | None, bool]


def ran(connection: Connection, since_ms: int, until_ms: int, tenants: frozenset[TenantId] | None) -> Ran:
    """What held GPUs in [since, until). See Store.ran."""
    pool_of = {(row.site, row.node): row.pool for row in connection.execute(select(site_nodes))}
    index: dict[tuple[str, str], int] = {}
    pools, gpus, begins, ends, hands = (array("q") for _ in range(5))
    nowhere: dict[SiteId, int] = {}
    for site, pool, gpu_milli, started_ms, ended_ms, by_hand in chain(
        _ours(connection, since_ms, until_ms, tenants), _by_hand(connection, since_ms, until_ms, tenants, pool_of)
    ):
        from_ms = max(started_ms, since_ms)
        to_ms = max(from_ms, until_ms if ended_ms is None else min(ended_ms, until_ms))
        if pool is None:
            nowhere[SiteId(site)] = nowhere.get(SiteId(site), 0) + gpu_milli * (to_ms - from_ms)
            continue
        pools.append(index.setdefault((site, pool), len(index)))
        gpus.append(gpu_milli)
        begins.append(from_ms)
        ends.append(to_ms)
        hands.append(by_hand)
    return Ran(
        pools=tuple((SiteId(site), PoolId(pool)) for site, pool in index),
        pool=np.array(pools, dtype=np.int64),
        gpu_milli=np.array(gpus, dtype=np.int64),
        from_ms=np.array(begins, dtype=np.int64),
        to_ms=np.array(ends, dtype=np.int64),
        by_hand=np.array(hands, dtype=np.bool_),
        nowhere_gpu_milli_ms=nowhere,
    )


def _ours(connection: Connection, since_ms: int, until_ms: int, tenants: frozenset[TenantId] | None) -> Iterator[_Row]:
    columns = (attempts.c.site, attempts.c.gpu_milli, attempts.c.places, attempts.c.started_ms, attempts.c.ended_ms)
    wanted = (
        select(*columns)
        .where(attempts.c.gpu_milli > 0, *ran_in(attempts.c.started_ms, attempts.c.ended_ms, since_ms, until_ms))
        .where(*_of(attempts.c.tenant, tenants))
        .order_by(attempts.c.job_id, attempts.c.number)
    )
    for site, gpu_milli, places, started_ms, ended_ms in connection.execute(
        wanted, execution_options={"yield_per": _AT_ONCE}
    ):
        workers = _workers(places)
        everyone = sum(workers.values())
        for pool, count in workers.items():  # every worker of a gang has as much as the others
            yield site, pool, gpu_milli * count // everyone, started_ms, ended_ms, False


@lru_cache(maxsize=1 << 16)
def _workers(places: str) -> Mapping[str, int]:
    """How many workers stand in each pool."""
    found: dict[str, int] = {}
    for pool, *_ in json.loads(places):
        found[pool] = found.get(pool, 0) + 1
    return found


def _by_hand(
    connection: Connection,
    since_ms: int,
    until_ms: int,
    tenants: frozenset[TenantId] | None,
    pool_of: Mapping[tuple[str, str], str],
) -> Iterator[_Row]:
    columns = (site_jobs.c.site, site_jobs.c.gpus, site_jobs.c.held, site_jobs.c.started_ms, site_jobs.c.ended_ms)
    wanted = (
        select(*columns)
        .where(HAS_RUN, *ran_in(site_jobs.c.started_ms, site_jobs.c.ended_ms, since_ms, until_ms))
        .where(*_of(site_jobs.c.tenant, tenants))
        .order_by(site_jobs.c.place)
    )
    for site, gpus, held, started_ms, ended_ms in connection.execute(wanted, execution_options={"yield_per": _AT_ONCE}):
        by_pool: dict[str | None, int] = {}
        for node, node_gpus, *_ in json.loads(held):
            pool = pool_of.get((site, node))
            by_pool[pool] = by_pool.get(pool, 0) + node_gpus
        if held == "[]":  # where it was is not known
            by_pool[None] = gpus
        for pool, its_gpus in by_pool.items():
            if its_gpus > 0:
                yield site, pool, its_gpus * GPU_MILLI, started_ms, ended_ms, True


def _of(tenant: ColumnElement[str], tenants: frozenset[TenantId] | None) -> tuple[ColumnElement[bool], ...]:
    return () if tenants is None else (tenant.in_(sorted(tenants)),)
