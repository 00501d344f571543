"""The Standard Workload Format, version 2 (Feitelson, Parallel Workloads Archive): 18 fields, -1 means unknown."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl

from watteau.domain.jobs import NO_LIMIT_S, Shape, Workload
from watteau.domain.units import BoolArray, Int32Array, Int64Array
from watteau.workload.columns import Columns, Numbering, build_workload, check_unique_ids, divisible_shape, no_jobs
from watteau.workload.text import GPUS_MAX, Faults, Progress, Table, integers, read_batches

FIELDS = (
    "job number",
    "submit time",
    "wait time",
    "run time",
    "allocated processors",
    "average CPU time",
    "used memory",
    "requested processors",
    "requested time",
    "requested memory",
    "status",
    "user",
    "group",
    "executable",
    "queue",
    "partition",
    "preceding job",
    "think time",
)
#: Some writers leave out the last field, the think time.
FIELD_COUNTS = (len(FIELDS), len(FIELDS) - 1)

_UNKNOWN = -1
#: Lines of a job that was checkpointed: the line with status 0, 1 or 5 sums them up.
_PART_FIRST, _PART_LAST = 2, 4


def read_swf(path: Path, fields: int, progress: Progress | None = None) -> Workload:
    """Read an SWF file whose lines have so many fields (17 or 18). Times stay as they are in the file.

    Processors become whole GPUs, divisible: those allocated, else those requested. A job is left out, and counted
    in the notes, only where the file itself says that its submit time, run time or processors are unknown (-1), and
    a line of status 2 to 4 because it is a part of another line's job. Without a requested time the estimate is the
    run time and there is no limit. Tenants are the users, or the groups of jobs without a user.
    Raises InputError with every fault.
    """
    faults = Faults(str(path))
    table = Table(FIELDS[:fields], separator=" ", comment=";")
    columns, left_out = Columns(), Counter[str]()
    shapes, tenants = Numbering(divisible_shape), Numbering(_tenant_name)
    for batch in read_batches(path, table, faults, progress):
        job_id = integers(batch, "job number", faults, maximum=2**62)
        submit_s, runtime_s, requested_s = (
            integers(batch, name, faults, minimum=_UNKNOWN) for name in ("submit time", "run time", "requested time")
        )
        allocated, requested = (
            integers(batch, name, faults, minimum=_UNKNOWN, maximum=GPUS_MAX)
            for name in ("allocated processors", "requested processors")
        )
        status = integers(batch, "status", faults, minimum=_UNKNOWN)
        user, group = (integers(batch, name, faults, minimum=_UNKNOWN) for name in ("user", "group"))
        processors = np.where(allocated > 0, allocated, np.maximum(allocated, requested))
        keep = _kept(status, submit_s, runtime_s, processors, left_out)
        counts, row = np.unique(processors[keep], return_inverse=True)
        by_gpus: Int32Array = np.array([shapes.index(count) for count in counts.tolist()], dtype=np.int32)
        columns.add(
            line=batch.line[keep],
            job_id=job_id[keep],
            submit_s=submit_s[keep],
            runtime_s=runtime_s[keep],
            limit_s=np.maximum(requested_s[keep], NO_LIMIT_S),
            shape=by_gpus[row],
            tenant=tenants.indices(pl.DataFrame({"user": user[keep], "group": group[keep]})),
        )
    if columns.rows:
        ids = columns.take("job_id")
        check_unique_ids(ids, columns.take("line"), faults, "job number", "each job number once")
    faults.raise_if_any()
    if not columns.rows:
        raise no_jobs(faults, "; ".join(["no job", *(f"{count} {what}" for what, count in left_out.items())]))
    taken = {name: columns.take(name) for name in ("submit_s", "runtime_s", "limit_s", "shape", "tenant")}
    taken["tenant"], names = _without_nobody(taken["tenant"], tenants.values)
    notes = ["processors are read as whole GPUs", *(f"{count} {what}: left out" for what, count in left_out.items())]
    return build_workload(
        source=f"SWF {path.name}",
        synthetic=False,
        columns={"job_id": ids, **taken},
        shapes=shapes.values,
        tenants=names,
        notes=notes + _remarks(taken["runtime_s"], taken["limit_s"], taken["shape"], shapes.values),
    )


def _kept(
    status: Int64Array, submit_s: Int64Array, runtime_s: Int64Array, processors: Int64Array, left_out: "Counter[str]"
) -> BoolArray:
    """[row] whether the row is a job and says what a replay needs; the others are counted by their first reason."""
    keep: BoolArray = np.ones(len(status), dtype=np.bool_)
    for what, unusable in (
        ("lines are parts of a checkpointed job (status 2 to 4)", (status >= _PART_FIRST) & (status <= _PART_LAST)),
        ("jobs have an unknown submit time (-1)", submit_s == _UNKNOWN),
        ("jobs have an unknown run time (-1)", runtime_s == _UNKNOWN),
        ("jobs have an unknown number of processors (-1)", processors == _UNKNOWN),
    ):
        if count := int(np.count_nonzero(keep & unusable)):
            left_out[what] += count
            keep &= ~unusable
    return keep


def _tenant_name(user: int, group: int) -> str:
    """The user, or the group where the file knows no user; "" for nobody."""
    if user == _UNKNOWN:
        return "" if group == _UNKNOWN else f"group{group}"
    return f"user{user}"


def _without_nobody(tenant: Int32Array, names: list[str]) -> tuple[Int32Array, list[str]]:
    """Tenants renumbered so that each name stands once, and -1 stands for nobody."""
    distinct = sorted(set(names) - {""})
    renumber = np.array([distinct.index(name) if name else -1 for name in names], dtype=np.int32)
    result: Int32Array = renumber[tenant]
    return result, distinct


def _remarks(runtime_s: Int64Array, limit_s: Int64Array, shape: Int32Array, shapes: list[Shape]) -> list[str]:
    without_gpus = [index for index, made in enumerate(shapes) if made.gpu_milli == 0]
    counted = (
        ("jobs have 0 processors: kept, without GPUs", np.isin(shape, without_gpus)),
        ("jobs have no requested time: the estimate is the run time, without limit", limit_s == NO_LIMIT_S),
        ("jobs ran beyond their requested time: a replay ends them there", (limit_s > 0) & (runtime_s > limit_s)),
    )
    return [f"{count} {what}" for what, rows in counted if (count := int(np.count_nonzero(rows)))]
