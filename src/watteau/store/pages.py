"""Pages of jobs, newest first: found by an index whatever the filter, and complete while jobs are added."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, text

from watteau.domain.requests import JobId, JobState
from watteau.store.answers import JobFilter, Page
from watteau.store.cursors import cursor_after, key_of
from watteau.store.jobs import by_ids
from watteau.store.ranges import Ranges, first_keys, is_one_of, size
from watteau.store.rows import MOST_ID, Bodies, is_plain

#: A condition with fewer rows than this is read whole and sorted.
_FEW_ROWS = 5_000
#: A part of a name that more requests share than this is looked for row by row: it is found soon.
_MOST_NAMES = 2_000
#: What a trigram index needs.
_SHORTEST_PART = 3


def page(connection: Connection, bodies: Bodies, only: JobFilter, limit: int, cursor: str | None) -> Page:
    """A page of jobs. See Store.jobs."""
    if limit < 1:
        raise ValueError("a page has at least one job")
    before = key_of(cursor)
    ids = [] if _is_impossible(only) else _newest(connection, only, before, limit + 1)
    found = by_ids(connection, bodies, [JobId(job_id) for job_id in ids[:limit]])
    more = len(ids) > limit
    return Page(tuple(found[JobId(job_id)] for job_id in ids[:limit]), cursor_after(ids[limit - 1]) if more else None)


def _newest(connection: Connection, only: JobFilter, before: int | None, limit: int) -> list[int]:
    """Ids of the newest jobs that the filter lets through."""
    ways = _ways(only)
    if only.name_contains:
        named = _named(connection, only.name_contains.casefold())
        if len(named) <= _MOST_NAMES:
            ways.append(_way("jobs_by_request", request_id=named))
    if any(not values for way in ways for values in way.values):
        return []
    if not ways:
        return _walked(connection, only, before, limit)
    if len(ways) == 1:
        best, rows = ways[0], _FEW_ROWS
    else:
        sizes = [size(connection, way, _FEW_ROWS) for way in ways]
        rows = min(sizes)
        best = ways[sizes.index(rows)]
    also, given = _also(connection, only, best.columns)
    best = replace(best, also=also, given=given)
    return first_keys(connection, best, before, limit, are_short=rows < _FEW_ROWS)


def _ways(only: JobFilter) -> list[Ranges]:
    """The indexes that the filter can be read by; each leaves some of its conditions to `_also`."""
    some_states = [state.value for state in JobState if state in only.states]
    states = some_states or [state.value for state in JobState]
    ways = []
    if only.array_id is not None:
        ways.append(_way("jobs_by_array", array_id=[only.array_id]))
    if only.user:
        ways.append(_way("jobs_by_user", user_name=[only.user], state=states))
    if only.site:
        ways.append(_way("jobs_by_site", site=[only.site], state=states))
    if only.tenants is not None:
        tenants = sorted(only.tenants)
        if some_states:
            ways.append(_way("jobs_by_tenant_state", tenant=tenants, state=some_states))
        else:
            ways.append(_way("jobs_by_tenant", tenant=tenants))
    if some_states and not ways:
        ways.append(_way("jobs_by_state", state=some_states))
    return ways


def _way(index: str, **values: Sequence[str | int]) -> Ranges:
    return Ranges("jobs", "job_id", index, tuple(values), tuple(values.values()), newest_first=True)


def _also(connection: Connection, only: JobFilter, served: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The conditions on columns that no index serves, as SQL and its parameters."""
    on_postgresql = connection.dialect.name == "postgresql"
    lists = {"tenant": only.tenants, "state": {state.value for state in only.states} or None}
    also, given = "", dict[str, Any]()
    for column, values in lists.items():
        if values is not None and column not in served:
            condition, given[f"only_{column}"] = is_one_of(connection, column, f"only_{column}", sorted(values))
            also += f" AND {condition}"
    equals = {"user_name": only.user or None, "site": only.site or None, "array_id": only.array_id}
    for column, value in equals.items():
        if value is not None and column not in served:
            also += f" AND {column} = :only_{column}"
            given[f"only_{column}"] = value
    if only.name_contains and "request_id" not in served:
        holds = "strpos(name_folded, :part)" if on_postgresql else "instr(name_folded, :part)"
        also += f" AND (SELECT {holds} FROM requests WHERE requests.request_id = jobs.request_id) > 0"
        given["part"] = only.name_contains.casefold()
    return also, given


def _walked(connection: Connection, only: JobFilter, before: int | None, limit: int) -> list[int]:
    """The newest jobs, one after the other, with a part of a name that many have, or without a condition at all."""
    also, given = _also(connection, only, ())
    statement = text(f"SELECT job_id FROM jobs WHERE job_id < :before{also} ORDER BY job_id DESC LIMIT :limit")
    given |= {"before": MOST_ID if before is None else before, "limit": limit}
    return list(connection.execute(statement, given).scalars())


def _named(connection: Connection, part: str) -> list[int]:
    """Requests with this part in their names; at most one more than _MOST_NAMES."""
    on_postgresql = connection.dialect.name == "postgresql"
    if len(part) < _SHORTEST_PART:
        # Read one after the other: soon done when many have it, a fifth of a second for a million when none does.
        place = "strpos" if on_postgresql else "instr"
        found, given = f"SELECT request_id FROM requests WHERE {place}(name_folded, :part) > 0", part
    elif on_postgresql:
        found = "SELECT request_id FROM requests WHERE name_folded LIKE :part"
        given = f"%{_LIKE_MEANS_MORE.sub(_ESCAPED, part)}%"
    else:
        found = "SELECT rowid FROM request_names WHERE name_folded MATCH :part"
        given = '"{}"'.format(part.replace('"', '""'))
    return list(connection.execute(text(f"{found} LIMIT :most"), {"part": given, "most": _MOST_NAMES + 1}).scalars())


_LIKE_MEANS_MORE = re.compile(r"[\\%_]")
_ESCAPED = r"\\\g<0>"


def _is_impossible(only: JobFilter) -> bool:
    """Whether the filter asks for what no row can hold, and what the database would stumble over."""
    words = [only.user, only.name_contains, only.site, *(only.tenants or ())]
    return not all(map(is_plain, words)) or not 0 < (only.array_id or 1) <= MOST_ID
