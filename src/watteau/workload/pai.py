"""PAI CSV: `submit_s,duration_s,gpus`, the extract of Alibaba's cluster-trace-gpu-v2020 in the GAIA artefact."""

from pathlib import Path

import numpy as np

from watteau.domain.jobs import Workload
from watteau.domain.units import Int32Array
from watteau.workload.columns import Columns, Numbering, build_workload, divisible_shape, no_jobs
from watteau.workload.text import GPUS_MAX, Faults, Progress, Table, check_columns, integers, read_batches

COLUMNS = ("submit_s", "duration_s", "gpus")


def read_pai(path: Path, header: tuple[str, ...], header_line: int, progress: Progress | None = None) -> Workload:
    """Read a PAI CSV. job_id is the row number from 0; `gpus` are whole and divisible; there are no limits.

    Times stay as they are in the file. Raises InputError with every fault.
    """
    faults = Faults(str(path))
    check_columns(faults, header_line, header, COLUMNS, ())
    table = Table(header, separator=",", quoted=True, header_line=header_line)
    columns, shapes = Columns(), Numbering(divisible_shape)
    for batch in read_batches(path, table, faults, progress):
        submit_s = integers(batch, "submit_s", faults)
        runtime_s = integers(batch, "duration_s", faults)
        gpus, row = np.unique(integers(batch, "gpus", faults, maximum=GPUS_MAX), return_inverse=True)
        by_gpus: Int32Array = np.array([shapes.index(count) for count in gpus.tolist()], dtype=np.int32)
        columns.add(submit_s=submit_s, runtime_s=runtime_s, shape=by_gpus[row])
    faults.raise_if_any()
    if not columns.rows:
        raise no_jobs(faults, "a header and no row")
    return build_workload(
        source=f"PAI CSV {path.name}",
        synthetic=False,
        columns={
            "job_id": np.arange(columns.rows, dtype=np.int64),
            **{name: columns.take(name) for name in ("submit_s", "runtime_s", "shape")},
        },
        shapes=shapes.values,
        notes=("the file has no estimates: each is the run time; it has no limits",),
    )
