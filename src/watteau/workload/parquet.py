"""Watteau's own workload file: Parquet with the columns of a Workload and everything else in its key-value part.

Schema, version 1 (all columns but the last required, sorted by submit_s, then job_id):

    job_id int64 · submit_s int64 · runtime_s int64 · estimate_s int64 · limit_s int64 (0: none)
    shape int32 (index into shapes) · tenant int32 (index into tenants, -1: not known) · priority_class int16
    waited_s int64, only where it was recorded

Key `watteau.workload`: JSON with format_version, source, synthetic, notes, tenants, shapes (the fields of Shape), and
zero_s (the epoch second of the workload's zero) where it is known.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from watteau.domain.errors import Fault, InputError
from watteau.domain.jobs import NO_LIMIT_S, Shape, Workload
from watteau.domain.units import BoolArray
from watteau.workload.columns import DTYPES, OPTIONAL_DTYPES, Columns, build_workload, check_unique_ids
from watteau.workload.text import GPUS_MAX, TIME_MAX_S, Faults, Progress

MAGIC = b"PAR1"
FORMAT_VERSION: Literal[1] = 1

_KEY = b"watteau.workload"
_BATCH_ROWS = 1 << 18
_REQUIRED, _OPTIONAL = (
    [pa.field(name, pa.from_numpy_dtype(dtype), nullable=False) for name, dtype in dtypes.items()]
    for dtypes in (DTYPES, OPTIONAL_DTYPES)
)


class _Header(BaseModel):
    """What the key-value part says, checked."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format_version: Literal[1]
    source: str
    synthetic: bool
    notes: list[str]
    tenants: list[str]
    shapes: list[dict[str, Any]]
    zero_s: Annotated[int, Field(ge=0, le=TIME_MAX_S)] | None = None


_SHAPES = TypeAdapter(list[Shape])


def write_workload(workload: Workload, path: Path) -> None:
    """Write a workload as Parquet, whole or not at all: an earlier file stays until the new one is complete.

    Raises InputError when the place cannot be written.
    """
    header = _Header(
        format_version=FORMAT_VERSION,
        source=workload.source,
        synthetic=workload.synthetic,
        notes=list(workload.notes),
        tenants=list(workload.tenants),
        shapes=_SHAPES.dump_python(list(workload.shapes), mode="json"),
        zero_s=workload.zero_s,
    )
    fields = _REQUIRED + [field for field in _OPTIONAL if getattr(workload, field.name) is not None]
    schema = pa.schema(fields, metadata={_KEY: header.model_dump_json(exclude_none=True)})
    check_place(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        try:
            with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
                for start in range(0, len(workload), _BATCH_ROWS):
                    columns = [getattr(workload, name)[start : start + _BATCH_ROWS] for name in schema.names]
                    writer.write_batch(pa.record_batch([pa.array(column) for column in columns], schema=schema))
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        fault = Fault(0, "", error.strerror or str(error), "a place that can be written")
        raise InputError(str(path), [fault]) from None


def check_place(path: Path) -> None:
    """Refuse a place in no folder, before a long run has something to write there. Raises InputError."""
    try:
        found = "" if path.parent.is_dir() else "no such folder"
    except (OSError, ValueError) as error:  # a folder above may not be read; a zero byte in the path
        found = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if found:
        raise InputError(str(path), [Fault(0, "", found, "a place that can be written")])


def read_parquet(path: Path, progress: Progress | None = None) -> Workload:
    """Read a workload that `write_workload` wrote; the line of a fault is the row from 1.

    Raises InputError with every fault.
    """
    faults = Faults(str(path))
    try:
        with pq.ParquetFile(path) as file:
            header, shapes = _header(file.schema_arrow, faults)
            columns = Columns()
            present = DTYPES | {name: kind for name, kind in OPTIONAL_DTYPES.items() if name in file.schema_arrow.names}
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(present)):
                # Copies: a view would keep every decoded page of the file in memory.
                piece = {name: batch.column(name).to_numpy().copy() for name in present}
                _check_rows(piece, columns.rows, header, faults)
                columns.add(**piece)
                if progress is not None:
                    progress(path.stat().st_size * columns.rows // max(1, file.metadata.num_rows))
    except (pa.ArrowException, OSError, ValueError) as error:
        found = f"not a readable Parquet file ({' '.join(str(error).split())})"
        raise faults.fail(0, "", found, "a file written by Watteau") from None
    if not columns.rows:
        columns.add(**{name: np.zeros(0, dtype=dtype) for name, dtype in present.items()})
    whole = {name: columns.take(name) for name in present}
    check_unique_ids(whole["job_id"], None, faults, "job_id", "each job_id once")
    faults.raise_if_any()
    return build_workload(
        source=header.source,
        synthetic=header.synthetic,
        columns=whole,
        shapes=shapes,
        tenants=header.tenants,
        notes=header.notes,
        zero_s=header.zero_s,
    )


def _header(schema: Any, faults: Faults) -> tuple[_Header, list[Shape]]:
    if _KEY not in (schema.metadata or {}):
        raise faults.fail(0, "", "Parquet that Watteau did not write", f"the key {_KEY.decode()} in its metadata")
    for field in _REQUIRED + [field for field in _OPTIONAL if field.name in schema.names]:
        found = schema.field(field.name).type if schema.names.count(field.name) == 1 else "no such column, or several"
        if found != field.type:
            faults.add(0, field.name, str(found), str(field.type))
    faults.raise_if_any()
    try:
        header = _Header.model_validate_json(schema.metadata[_KEY])
        shapes = _SHAPES.validate_python(header.shapes)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            where = ".".join(str(part) for part in detail["loc"])
            faults.add(0, where, repr(detail["input"]), f"{detail['msg']} (format version {FORMAT_VERSION})")
        raise faults.error() from None
    for index, shape in enumerate(shapes):
        if shape.total_gpu_milli > GPUS_MAX * 1000:
            faults.add(
                0, f"shapes.{index}", f"{shape.total_gpu_milli} thousandths of a GPU", f"{GPUS_MAX} GPUs at most"
            )
    faults.raise_if_any()
    return header, shapes


def _check_rows(piece: dict[str, Any], rows_before: int, header: _Header, faults: Faults) -> None:
    limit_s, estimate_s = piece["limit_s"], piece["estimate_s"]
    for name, minimum, maximum in (
        ("job_id", 0, 2**62),
        ("submit_s", 0, TIME_MAX_S),
        ("runtime_s", 0, TIME_MAX_S),
        ("estimate_s", 1, TIME_MAX_S),
        ("limit_s", 0, TIME_MAX_S),
        ("shape", 0, len(header.shapes) - 1),
        ("tenant", -1, len(header.tenants) - 1),
        *([("waited_s", 0, TIME_MAX_S)] if "waited_s" in piece else []),
    ):
        _check(
            name,
            piece,
            (piece[name] < minimum) | (piece[name] > maximum),
            f"{minimum} to {maximum}",
            rows_before,
            faults,
        )
    beyond = (limit_s != NO_LIMIT_S) & (estimate_s > limit_s)
    _check("estimate_s", piece, beyond, "at most limit_s", rows_before, faults)


def _check(name: str, piece: dict[str, Any], bad: BoolArray, expected: str, rows_before: int, faults: Faults) -> None:
    for row in np.flatnonzero(bad).tolist():
        faults.add(rows_before + row + 1, name, str(piece[name][row]), expected)
