"""Pages of the jobs that people gave to sites, newest first: read by an index, as those of our own jobs are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from watteau.domain.requests import JobState
from watteau.store.answers import SiteJobFilter, SiteJobPage
from watteau.store.cursors import cursor_after, key_of
from watteau.store.ranges import Ranges, first_keys, is_one_of, size
from watteau.store.rows import is_plain
from watteau.store.sites import first_place, jobs_at

#: A condition with fewer rows than this is read whole and sorted.
_FEW_ROWS = 5_000


def page(connection: Connection, only: SiteJobFilter, limit: int, cursor: str | None) -> SiteJobPage:
    """A page of jobs. See Store.site_jobs."""
    if limit < 1:
        raise ValueError("a page has at least one job")
    before = key_of(cursor)
    places = [] if _is_impossible(only) else _newest(connection, only, before, limit + 1)
    more = len(places) > limit
    return SiteJobPage(tuple(jobs_at(connection, places[:limit])), cursor_after(places[limit - 1]) if more else None)


def _newest(connection: Connection, only: SiteJobFilter, before: int | None, limit: int) -> list[int]:
    """Places of the newest jobs that the filter lets through."""
    if only.submitted_until_ms is not None:
        upto = first_place(only.submitted_until_ms)
        before = upto if before is None else min(before, upto)
    ways = _ways(only)
    if any(not values for way in ways for values in way.values):
        return []
    if len(ways) == 1:
        best, rows = ways[0], _FEW_ROWS
    else:
        sizes = [size(connection, way, _FEW_ROWS) for way in ways]
        rows = min(sizes)
        best = ways[sizes.index(rows)]
    also, given = _also(connection, only, best.columns)
    best = replace(best, also=also, given=given)
    return first_keys(connection, best, before, limit, are_short=rows < _FEW_ROWS)


def _ways(only: SiteJobFilter) -> list[Ranges]:
    """The indexes that the filter can be read by; each leaves some of its conditions to `_also`."""
    states = [state.value for state in JobState if not only.states or state in only.states]
    ways = []
    if only.engine_id:
        ways.append(_way(only, "site_jobs_by_engine_id", engine_id=[only.engine_id]))
    if only.users:
        ways.append(_way(only, "site_jobs_by_user", user_name=sorted(only.users), state=states))
    if only.sites:
        ways.append(_way(only, "site_jobs_by_site", site=sorted(only.sites), state=states))
    if only.tenants is not None:
        ways.append(_way(only, "site_jobs_by_tenant", tenant=sorted(only.tenants), state=states))
    return ways or [_way(only, "site_jobs_by_state", state=states)]


def _way(only: SiteJobFilter, index: str, **values: Sequence[str | int]) -> Ranges:
    end = None if only.submitted_since_ms is None else first_place(only.submitted_since_ms)
    return Ranges("site_jobs", "place", index, tuple(values), tuple(values.values()), newest_first=True, end=end)


def _also(connection: Connection, only: SiteJobFilter, served: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The conditions on columns that no index serves, as SQL and its parameters."""
    lists = {
        "site": only.sites or None,
        "tenant": only.tenants,
        "user_name": only.users or None,
        "state": {state.value for state in only.states} or None,
        "engine_id": {only.engine_id} if only.engine_id else None,
    }
    also, given = "", dict[str, Any]()
    for column, values in lists.items():
        if values is not None and column not in served:
            condition, given[f"only_{column}"] = is_one_of(connection, column, f"only_{column}", sorted(values))
            also += f" AND {condition}"
    if only.name_contains:
        holds = "strpos" if connection.dialect.name == "postgresql" else "instr"
        also += f" AND {holds}(name_folded, :part) > 0"
        given["part"] = only.name_contains.casefold()
    if only.ended_since_ms is not None:
        also += " AND (ended_ms >= :ended_since OR ended_ms IS NULL)"
        given["ended_since"] = only.ended_since_ms
    return also, given


def _is_impossible(only: SiteJobFilter) -> bool:
    """Whether the filter asks for what no row can hold, and what the database would stumble over."""
    words = [only.name_contains, only.engine_id, *only.sites, *only.users, *(only.tenants or ())]
    return not all(map(is_plain, words))
