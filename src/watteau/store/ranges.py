"""The first few rows of several index ranges at once, in order of one key: how a page is read whatever its filter.

A planner guesses whether matching rows are dense enough to walk the table, and one that guesses wrong reads a million
rows for a page of fifty. Here nothing is guessed: every range is an index's own, and only its first rows are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from sqlalchemy import Connection, text

from watteau.store.rows import MOST_ID, json_text

#: So many ranges are read at once; of more, those that cannot hold one of the first rows are left out before.
_FEW = 16
#: Of many, they are looked for among so many rows of the whole table first: many ranges are often most of it.
_WALKED = 1_000
#: SQLite joins at most 500 selects.
_MOST_SELECTS = 400


@dataclass(frozen=True, slots=True)
class Ranges:
    """The ranges of `index`, one for each combination of `values` for its leading `columns`; its last column is `key`.

    `also` holds for every row besides: SQL that begins with AND, with the parameters `given`. No key lies past `end`.
    """

    table: str
    key: str
    index: str
    columns: tuple[str, ...]
    values: tuple[Sequence[str | int], ...]  # of each column
    newest_first: bool
    end: int | None = None  # None: that of the table
    also: str = ""
    given: dict[str, Any] = field(default_factory=dict)


def size(connection: Connection, ranges: Ranges, most: int) -> int:
    """How many rows the ranges have together, whatever `also` says of them; `most` for that many or more."""
    keys = list(product(*ranges.values))
    bare = replace(ranges, also="", given={})
    given = _given(bare, None, most)
    if connection.dialect.name == "postgresql":
        source, values = _lateral(bare, keys, most=":limit")
    else:
        source, values = _joined(bare, keys)
    statement = text(f"SELECT count(*) FROM (SELECT 1 FROM {source} LIMIT :limit) AS rows")
    found: int = connection.execute(statement, given | values).scalar_one()
    return found


def first_keys(
    connection: Connection, ranges: Ranges, beyond: int | None, limit: int, *, are_short: bool = False
) -> list[int]:
    """The first keys of all ranges together, after (newest first: before) `beyond`, at most `limit`.

    `are_short`: all their rows may be read; that is quicker when `also` lets few of them through.
    """
    on_postgresql = connection.dialect.name == "postgresql"
    keys = list(product(*ranges.values))
    given = _given(ranges, beyond, limit)
    if are_short:
        return (_rows_on_postgresql if on_postgresql else _all_rows_on_sqlite)(connection, ranges, keys, given)
    if len(keys) > _FEW:
        walked = _walked(connection, ranges, given)
        if len(walked) == limit:
            return walked
        heads = (_heads_on_postgresql if on_postgresql else _heads_on_sqlite)(connection, ranges, keys, given)
        # A range whose first row comes after the first `limit` heads has none of the first `limit` rows.
        first = sorted(heads, reverse=ranges.newest_first)[:limit]
        keys = [keys[number] for _, number in first]
        if len(first) == limit:
            given["end"] = first[-1][0]
    rows = (_rows_on_postgresql if on_postgresql else _rows_on_sqlite)(connection, ranges, keys, given)
    return sorted(rows, reverse=ranges.newest_first)[:limit]


def _walked(connection: Connection, ranges: Ranges, given: dict[str, Any]) -> list[int]:
    """The first keys among the next rows of the table, whatever they are."""
    isin, values = "", dict[str, Any]()
    for place, (column, wanted) in enumerate(zip(ranges.columns, ranges.values, strict=True)):
        condition, value = is_one_of(connection, column, f"w{place}", wanted)
        isin += f" AND {condition}"
        values[f"w{place}"] = value
    statement = text(
        f"SELECT {ranges.key} FROM {ranges.table} WHERE {ranges.key} IN"
        f" (SELECT {ranges.key} FROM {ranges.table} WHERE {_between(replace(ranges, also=''))}"
        f" ORDER BY {ranges.key} {_order(ranges)} LIMIT {_WALKED}){isin}{ranges.also}"
        f" ORDER BY {ranges.key} {_order(ranges)} LIMIT :limit"
    )
    return list(connection.execute(statement, given | values).scalars())


def is_one_of(connection: Connection, column: str, name: str, values: Sequence[str | int]) -> tuple[str, Any]:
    """(SQL for "the column has one of these values", the value of its parameter `name`): any number of them."""
    if connection.dialect.name == "postgresql":
        kind = "bigint" if values and isinstance(values[0], int) else "text"
        return f"{column} = ANY(CAST(:{name} AS {kind}[]))", list(values)
    return f"{column} IN (SELECT value FROM json_each(:{name}))", json_text(list(values))


def _given(ranges: Ranges, beyond: int | None, limit: int) -> dict[str, Any]:
    first, last = (MOST_ID, 0) if ranges.newest_first else (0, MOST_ID)
    return {
        **ranges.given,
        "beyond": first if beyond is None else beyond,
        "end": last if ranges.end is None else ranges.end,
        "limit": limit,
    }


def _joined(ranges: Ranges, keys: Sequence[tuple[str | int, ...]]) -> tuple[str, dict[str, Any]]:
    equal = " AND ".join(
        f"{column} = json_extract(keys.value, '$[{place}]')" for place, column in enumerate(ranges.columns)
    )
    # CROSS JOIN: in this order.
    source = f"json_each(:keys) AS keys CROSS JOIN {ranges.table} INDEXED BY {ranges.index}"
    return f"{source} WHERE {equal} AND {_between(ranges)}", {"keys": json_text(keys)}


def _all_rows_on_sqlite(
    connection: Connection, ranges: Ranges, keys: Sequence[tuple[str | int, ...]], given: dict[str, Any]
) -> list[int]:
    source, values = _joined(ranges, keys)
    statement = text(f"SELECT {ranges.key} FROM {source} ORDER BY {ranges.key} {_order(ranges)} LIMIT :limit")
    return list(connection.execute(statement, given | values).scalars())


def _heads_on_sqlite(
    connection: Connection, ranges: Ranges, keys: Sequence[tuple[str | int, ...]], given: dict[str, Any]
) -> list[tuple[int, int]]:
    """(first key, number of the range) of each range that has a row."""
    equal = " AND ".join(
        f"{column} = json_extract(keys.value, '$[{place}]')" for place, column in enumerate(ranges.columns)
    )
    statement = text(
        f"SELECT (SELECT {ranges.key} FROM {ranges.table} INDEXED BY {ranges.index}"
        f" WHERE {equal} AND {_between(ranges)} ORDER BY {ranges.key} {_order(ranges)} LIMIT 1) AS head, keys.key"
        " FROM json_each(:keys) AS keys"
    )
    return [(row[0], row[1]) for row in connection.execute(statement, given | {"keys": json_text(keys)}) if row[0]]


def _rows_on_sqlite(
    connection: Connection, ranges: Ranges, keys: Sequence[tuple[str | int, ...]], given: dict[str, Any]
) -> list[int]:
    found: list[int] = []
    for start in range(0, len(keys), _MOST_SELECTS):
        selects, values = [], dict(given)
        for number, key in enumerate(keys[start : start + _MOST_SELECTS]):
            equal = " AND ".join(f"{column} = :k{number}_{place}" for place, column in enumerate(ranges.columns))
            values |= {f"k{number}_{place}": value for place, value in enumerate(key)}
            selects.append(
                f"SELECT * FROM (SELECT {ranges.key} FROM {ranges.table} INDEXED BY {ranges.index}"
                f" WHERE {equal} AND {_between(ranges)} ORDER BY {ranges.key} {_order(ranges)} LIMIT :limit)"
            )
        found += connection.execute(text(" UNION ALL ".join(selects)), values).scalars()
    return found


def _heads_on_postgresql(
    connection: Connection, ranges: Ranges, keys: Sequence[tuple[str | int, ...]], given: dict[str, Any]
) -> list[tuple[int, int]]:
    source, values = _lateral(ranges, keys, most="1")
    statement = text(f"SELECT found.key, keys.number - 1 FROM {source} ORDER BY 1 {_order(ranges)} LIMIT :limit")
    return [(row[0], row[1]) for row in connection.execute(statement, given | values)]


def _rows_on_postgresql(
    connection: Connection, ranges: Ranges, keys: Sequence[tuple[str | int, ...]], given: dict[str, Any]
) -> list[int]:
    source, values = _lateral(ranges, keys, most=":limit")
    statement = text(f"SELECT found.key FROM {source} ORDER BY 1 {_order(ranges)} LIMIT :limit")
    return list(connection.execute(statement, given | values).scalars())


def _lateral(ranges: Ranges, keys: Sequence[tuple[str | int, ...]], most: str) -> tuple[str, dict[str, Any]]:
    # A range for each row of `keys`: the planner does not see the values, takes each range for a small one, and so
    # reads it by its index. With the values in sight it may hope to meet a frequent one soon on a walk by primary key.
    columns = [list(column) for column in zip(*keys, strict=True)] or [[] for _ in ranges.columns]
    arrays = ", ".join(
        f"CAST(:c{place} AS {'bigint' if column and isinstance(column[0], int) else 'text'}[])"
        for place, column in enumerate(columns)
    )
    names = ", ".join(f"c{place}" for place in range(len(columns)))
    equal = " AND ".join(f"{column} = keys.c{place}" for place, column in enumerate(ranges.columns))
    return (
        f"unnest({arrays}) WITH ORDINALITY AS keys({names}, number) CROSS JOIN LATERAL ("
        f"SELECT {ranges.key} AS key FROM {ranges.table} WHERE {equal} AND {_between(ranges)}"
        f" ORDER BY {ranges.key} {_order(ranges)} LIMIT {most}) AS found",
        {f"c{place}": column for place, column in enumerate(columns)},
    )


def _between(ranges: Ranges) -> str:
    after, upto = ("<", ">=") if ranges.newest_first else (">", "<=")
    return f"{ranges.key} {after} :beyond AND {ranges.key} {upto} :end{ranges.also}"


def _order(ranges: Ranges) -> str:
    return "DESC" if ranges.newest_first else "ASC"
