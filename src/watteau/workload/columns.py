"""Columns of jobs that grow batch by batch and become one sorted Workload, without a second copy of them all."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from watteau.domain.errors import InputError
from watteau.domain.jobs import Shape, Workload
from watteau.domain.units import GPU_MILLI, Int32Array, Int64Array
from watteau.workload.text import Faults

#: The columns of a Workload and their types, in file order.
DTYPES: dict[str, type[np.generic]] = {
    "job_id": np.int64,
    "submit_s": np.int64,
    "runtime_s": np.int64,
    "estimate_s": np.int64,
    "limit_s": np.int64,
    "shape": np.int32,
    "tenant": np.int32,
    "priority_class": np.int16,
}
#: Columns that not every Workload has.
OPTIONAL_DTYPES: dict[str, type[np.generic]] = {"waited_s": np.int64}

Key = TypeVar("Key")


class Columns:
    """Named columns, kept as pieces until they are taken."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[NDArray[Any]]] = {}
        self.rows = 0

    def add(self, **pieces: NDArray[Any]) -> None:
        """Append a piece of equal length to each named column."""
        lengths = {len(piece) for piece in pieces.values()}
        if len(lengths) != 1:
            raise ValueError(f"pieces of different lengths {lengths}")
        self.rows += lengths.pop()
        for name, piece in pieces.items():
            self._pieces.setdefault(name, []).append(piece)

    def take(self, name: str) -> NDArray[Any]:
        """A whole column, which is then no longer kept here: at most one column is in memory twice."""
        pieces = self._pieces.pop(name)
        return np.concatenate(pieces) if len(pieces) > 1 else pieces[0]


class Numbering(Generic[Key]):
    """Gives each distinct value an index, in order of first appearance; `make` turns raw keys into values once."""

    def __init__(self, make: Callable[..., Key]) -> None:
        self._make = make
        self._index: dict[tuple[Any, ...], int] = {}
        self.values: list[Key] = []

    def index(self, *key: Any) -> int:
        """The index of one raw key."""
        found = self._index.get(key)
        if found is None:
            found = self._index[key] = len(self.values)
            self.values.append(self._make(*key))
        return found

    def indices(self, keys: pl.DataFrame) -> Int32Array:
        """[row] index of each row's raw key, its columns in order."""
        distinct = keys.unique(maintain_order=True)
        numbered = distinct.with_columns(index=pl.Series([self.index(*key) for key in distinct.rows()], dtype=pl.Int32))
        joined = keys.join(numbered, on=keys.columns, how="left", nulls_equal=True, maintain_order="left")
        result: Int32Array = joined["index"].to_numpy().copy()
        return result


def divisible_shape(gpus: int) -> Shape:
    """So many whole GPUs in all, however the fleet cuts them: what traces say that know no nodes."""
    return Shape(workers=1, gpu_milli=GPU_MILLI * gpus, divisible=True)


def build_workload(
    *,
    source: str,
    synthetic: bool,
    columns: dict[str, NDArray[Any]],
    shapes: Sequence[Shape],
    tenants: Sequence[str] = (),
    notes: Sequence[str] = (),
    zero_s: int | None = None,
) -> Workload:
    """A Workload from columns in any order. Takes them out of the dictionary one by one as it sorts them.

    A missing `estimate_s` is the limit where there is one and the run time elsewhere, at least 1 s; a missing
    `limit_s` is no limit; a missing `tenant` is not known; a missing `priority_class` is 0. `waited_s` is optional.
    """
    job_id, submit_s = columns["job_id"], columns["submit_s"]
    rows = len(job_id)
    columns.setdefault("limit_s", np.zeros(rows, dtype=np.int64))
    if "estimate_s" not in columns:
        columns["estimate_s"] = estimates_from_limits(columns["runtime_s"], columns["limit_s"])
    columns.setdefault("tenant", np.full(rows, -1, dtype=np.int32))
    columns.setdefault("priority_class", np.zeros(rows, dtype=np.int16))
    order = None if is_sorted(submit_s, job_id) else np.lexsort((job_id, submit_s))
    del job_id, submit_s
    done: dict[str, Any] = {}
    for name, dtype in (DTYPES | OPTIONAL_DTYPES).items():
        if name in columns or name in DTYPES:
            column = columns.pop(name).astype(dtype, copy=False)
            done[name] = column if order is None else column[order]
    return Workload(
        source=source,
        synthetic=synthetic,
        shapes=tuple(shapes),
        tenants=tuple(tenants),
        notes=tuple(notes),
        zero_s=zero_s,
        **done,
    )


def estimates_from_limits(runtime_s: Int64Array, limit_s: Int64Array) -> Int64Array:
    """[job] what a scheduler is told when nobody says more: the limit, or without one the run time; at least 1 s."""
    return np.where(limit_s > 0, limit_s, np.maximum(runtime_s, 1))


def is_sorted(submit_s: Int64Array, job_id: Int64Array) -> bool:
    """Whether the rows rise by (submit_s, job_id), each pair once."""
    later = submit_s[1:] > submit_s[:-1]
    return bool(np.all(later | ((submit_s[1:] == submit_s[:-1]) & (job_id[1:] > job_id[:-1]))))


def check_unique_ids(job_id: Int64Array, line: Int64Array | None, faults: Faults, column: str, expected: str) -> None:
    """Record a fault at each line whose job id stood on an earlier line; without lines they are the rows from 1."""
    if bool(np.all(job_id[1:] > job_id[:-1])):
        return
    order = np.argsort(job_id, kind="stable")
    again = np.flatnonzero(job_id[order][1:] == job_id[order][:-1])
    for row in np.sort(order[again + 1]).tolist():
        faults.add(row + 1 if line is None else int(line[row]), column, f"{job_id[row]}, a second time", expected)


def no_jobs(faults: Faults, what: str) -> InputError:
    """The error for a file that is well formed and holds no job that can be used."""
    return faults.fail(0, "", what, "at least one job")
