"""Sites that others use, too: what operators said of them, and what they showed of themselves when last seen."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

from watteau.domain.fleet import Mode
from watteau.domain.requests import JobState
from watteau.domain.sites import Held, NodeState, ShadowDecision, SiteJob, SiteNode, SiteSetting
from watteau.domain.units import PoolId, SiteId, TenantId
from watteau.store import log
from watteau.store.ranges import is_one_of
from watteau.store.rows import in_parts, json_text, plain, possible
from watteau.store.tables import NOT_ENDED, shadow_decisions, site_jobs, site_nodes, site_settings

Upsert = postgresql.Insert | sqlite.Insert

#: A job's place is its millisecond times this, plus its number among the jobs of that millisecond, from 1.
PLACES_PER_MS = 1 << 20
_LAST_MS = 1 << 42  # in the year 2109; with the places of a millisecond it still fits into 64 bits
#: PostgreSQL's advisory lock of those who give places: any number that nobody else uses.
_GIVES_PLACES = 0x57A77EA1


# --- what operators said ---------------------------------------------------------------------------------------------


def set_site(connection: Connection, setting: SiteSetting) -> None:
    """Keep an operator's word. See Store.set_site."""
    log.lock(connection)
    said = {
        "version": settings_version(connection) + 1,
        "mode": setting.mode.value,
        "fenced": setting.fenced,
        "why": plain(setting.why),
        "user_name": plain(setting.by),
        "at_ms": setting.at_ms,
    }
    keep = _upsert(connection, site_settings, ["site"], list(said))
    connection.execute(keep, {"site": plain(setting.site), **said})
    words = {"mode": setting.mode.value, "fenced": setting.fenced, "why": setting.why}
    log.note(connection, setting.by, "set_site", f"site {setting.site}", setting.at_ms, words)


def settings(connection: Connection) -> list[SiteSetting]:
    """What was said of each site last, by site."""
    rows = connection.execute(select(site_settings)).all()
    return [
        SiteSetting(SiteId(row.site), Mode(row.mode), bool(row.fenced), row.why, row.user_name, row.at_ms)
        for row in sorted(rows, key=lambda row: str(row.site))
    ]


def settings_version(connection: Connection) -> int:
    """How often operators have said something of sites."""
    found: int = connection.execute(select(func.coalesce(func.max(site_settings.c.version), 0))).scalar_one()
    return found


# --- nodes -----------------------------------------------------------------------------------------------------------


def keep_nodes(connection: Connection, site: SiteId, nodes: Sequence[SiteNode]) -> None:
    """Keep nodes as they are now. See Store.keep_nodes."""
    if others := sorted({str(node.site) for node in nodes if node.site != site}):
        raise ValueError(f"nodes of {', '.join(others)} are given as nodes of {site}")
    if nodes:
        keep = _upsert(connection, site_nodes, ["site", "node"], ["pool", "number", "state", "why"])
        connection.execute(
            keep,
            [
                {
                    "site": plain(node.site),
                    "node": plain(node.node),
                    "pool": plain(node.pool),
                    "number": node.number,
                    "state": node.state.value,
                    "why": plain(node.why),
                }
                for node in nodes
            ],
        )


def nodes(connection: Connection, site: SiteId) -> list[SiteNode]:
    """A site's nodes by pool and number."""
    rows = connection.execute(select(site_nodes).where(site_nodes.c.site == plain(site))).all()
    found = [
        SiteNode(SiteId(row.site), row.node, PoolId(row.pool), row.number, NodeState(row.state), row.why)
        for row in rows
    ]
    return sorted(found, key=lambda node: (node.pool, node.number, node.node))


# --- jobs that people gave to sites ----------------------------------------------------------------------------------

_KEY = ("engine_id", "site", "submitted_ms")
# Schedulers forget where a job was when it has ended; the books must not.
_HELD = text(f"CASE WHEN excluded.held = '[]' AND NOT excluded.{NOT_ENDED} THEN site_jobs.held ELSE excluded.held END")


def keep_jobs(connection: Connection, jobs: Sequence[SiteJob]) -> None:
    """Keep jobs as they were seen. See Store.keep_site_jobs."""
    if not jobs:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _GIVES_PLACES})
    rows = list({(row["engine_id"], row["site"], row["submitted_ms"]): row for row in map(_row, jobs)}.values())
    _give_places(connection, rows)
    new = _insert(connection, site_jobs)
    seen: dict[str, object] = {
        column: new.excluded[column] for column in rows[0] if column not in (*_KEY, "place", "held")
    }
    keep = new.on_conflict_do_update(index_elements=_KEY, set_=seen | {"held": _HELD})
    connection.execute(keep, rows)


def _give_places(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """The place that each job has or, when it is new, the next one of its millisecond."""
    has = _places(connection, rows)
    new: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        row["place"] = has.get((row["engine_id"], row["site"], row["submitted_ms"]))
        if row["place"] is None:
            new[first_place(row["submitted_ms"]) // PLACES_PER_MS].append(row)
    last = _last_places(connection, list(new))
    for at_ms, its in new.items():
        for place, row in enumerate(its, last.get(at_ms, at_ms * PLACES_PER_MS) + 1):
            row["place"] = place


def first_place(at_ms: int) -> int:
    """No job that was submitted at a time or later is before this place, and all earlier ones are."""
    return min(max(at_ms, 0), _LAST_MS) * PLACES_PER_MS


def _places(connection: Connection, rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str, int], int]:
    is_one, ids = is_one_of(connection, "engine_id", "ids", sorted({row["engine_id"] for row in rows}))
    found = connection.execute(
        text(f"SELECT engine_id, site, submitted_ms, place FROM site_jobs WHERE {is_one}"), {"ids": ids}
    )
    return {(row[0], row[1], row[2]): row[3] for row in found}


def _last_places(connection: Connection, milliseconds: list[int]) -> dict[int, int]:
    """The last place that was given in each of these milliseconds, of those that have one."""
    given: Any = milliseconds
    source = "unnest(CAST(:given AS bigint[])) AS given(value)"
    if connection.dialect.name != "postgresql":
        source, given = "json_each(:given) AS given", json_text(milliseconds)
    last = text(
        "SELECT value, (SELECT max(place) FROM site_jobs"
        f" WHERE place >= value * {PLACES_PER_MS} AND place < (value + 1) * {PLACES_PER_MS}) FROM {source}"
    )
    return {row[0]: row[1] for row in connection.execute(last, {"given": given}) if row[1] is not None}


def live_jobs(connection: Connection, site: SiteId) -> list[SiteJob]:
    """A site's jobs that have not ended, oldest first."""
    wanted = select(site_jobs).where(site_jobs.c.site == plain(site), text(NOT_ENDED))
    return [_job(row) for row in connection.execute(wanted.order_by(site_jobs.c.place))]


def jobs_at(connection: Connection, places: Sequence[int]) -> list[SiteJob]:
    """The jobs at these places, newest first."""
    wanted = select(site_jobs).where(site_jobs.c.place.in_(bindparam("ids", expanding=True)))
    rows = [row for ids in in_parts(sorted(places)) for row in connection.execute(wanted, {"ids": ids})]
    return [_job(row) for row in sorted(rows, key=lambda row: int(row.place), reverse=True)]


def _row(job: SiteJob) -> dict[str, Any]:
    name = plain(job.name)
    return {
        "site": plain(job.site),
        "engine_id": plain(job.engine_id),
        "submitted_ms": job.submitted_ms,
        "name": name,
        "name_folded": name.casefold(),
        "user_name": plain(job.user),
        "account": plain(job.account),
        "tenant": plain(job.tenant),
        "partition": plain(job.partition),
        "state": job.state.value,
        "reason": plain(job.reason),
        "tasks": job.tasks,
        "workers": job.workers,
        "gpus": job.gpus,
        "cpus": job.cpus,
        "memory_mib": job.memory_mib,
        "time_limit_s": job.time_limit_s,
        "priority": job.priority,
        "eligible_ms": job.eligible_ms,
        "started_ms": job.started_ms,
        "ended_ms": job.ended_ms,
        "exit_code": job.exit_code,
        "signal": job.signal,
        "cause": plain(job.cause),
        "restarts": job.restarts,
        "held": json_text([[held.node, held.gpus, held.cpus, held.memory_mib] for held in job.held]),
    }


def _job(row: Any) -> SiteJob:
    return SiteJob(
        site=SiteId(row.site),
        engine_id=row.engine_id,
        submitted_ms=row.submitted_ms,
        name=row.name,
        user=row.user_name,
        account=row.account,
        tenant=TenantId(row.tenant),
        partition=row.partition,
        state=JobState(row.state),
        reason=row.reason,
        tasks=row.tasks,
        workers=row.workers,
        gpus=row.gpus,
        cpus=row.cpus,
        memory_mib=row.memory_mib,
        time_limit_s=row.time_limit_s,
        priority=row.priority,
        eligible_ms=row.eligible_ms,
        started_ms=row.started_ms,
        ended_ms=row.ended_ms,
        exit_code=row.exit_code,
        signal=row.signal,
        cause=row.cause,
        restarts=row.restarts,
        held=tuple(Held(*held) for held in json.loads(row.held)),
    )


# --- what would have been done in shadow -----------------------------------------------------------------------------


def keep_shadow(connection: Connection, decisions: Sequence[ShadowDecision]) -> None:
    """Keep the first decision on each job. See Store.keep_shadow."""
    if decisions:
        connection.execute(
            _insert(connection, shadow_decisions).on_conflict_do_nothing(),
            [
                {
                    "site": plain(decision.site),
                    "engine_id": plain(decision.engine_id),
                    "submitted_ms": decision.submitted_ms,
                    "decided_ms": decision.decided_ms,
                    "nodes": json_text(decision.nodes),
                }
                for decision in decisions
            ],
        )


def shadow(connection: Connection, site: SiteId, since_ms: int, until_ms: int) -> list[ShadowDecision]:
    """Decisions on jobs that were submitted to a site in [since, until), by their submission."""
    wanted = select(shadow_decisions).where(
        shadow_decisions.c.site == plain(site),
        shadow_decisions.c.submitted_ms >= possible(since_ms),
        shadow_decisions.c.submitted_ms < possible(until_ms),
    )
    rows = connection.execute(wanted).all()
    return [
        ShadowDecision(SiteId(row.site), row.engine_id, row.submitted_ms, row.decided_ms, tuple(json.loads(row.nodes)))
        for row in sorted(rows, key=lambda row: (int(row.submitted_ms), str(row.engine_id)))
    ]


def _upsert(connection: Connection, table: Table, key: Sequence[str], rest: Sequence[str]) -> Upsert:
    """Insert a row or, where there is one with the same key, replace the rest of it."""
    new = _insert(connection, table)
    return new.on_conflict_do_update(index_elements=key, set_={column: new.excluded[column] for column in rest})


def _insert(connection: Connection, table: Table) -> Upsert:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
