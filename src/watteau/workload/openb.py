"""openb CSVs: pods and GPU nodes of alibaba/clusterdata, cluster-trace-gpu-v2023."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from watteau.domain.jobs import Shape, Workload
from watteau.domain.units import GPU_MILLI, Int64Array
from watteau.workload.columns import Columns, Numbering, build_workload, no_jobs
from watteau.workload.text import (
    MEMORY_MAX_MIB,
    Batch,
    Faults,
    Progress,
    Table,
    check_columns,
    integers,
    read_batches,
)

POD_COLUMNS = (
    "name",
    "cpu_milli",
    "memory_mib",
    "num_gpu",
    "gpu_milli",
    "gpu_spec",
    "creation_time",
    "deletion_time",
    "scheduled_time",
)
POD_OPTIONAL = ("qos", "pod_phase")
NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")

_GPUS_PER_NODE_MAX = 1024
_CPU_MAX_MILLI = 10**9
_NOT_GIVEN = -1


@dataclass(frozen=True, slots=True)
class OpenbNode:
    """One node of the openb cluster."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str


def read_openb_pods(
    path: Path, header: tuple[str, ...], header_line: int, progress: Progress | None = None
) -> Workload:
    """Read an openb pod list. job_id is the row number from 0; one pod is one worker on one node.

    The run time goes from scheduling to deletion, or from creation where the pod was never scheduled; a pod that was
    never deleted has no known run time and is left out; both are counted in the notes. `gpu_spec` `A|B` allows GPU
    models A and B. QoS and phase are not used. Times stay as in the file. Raises InputError with every fault.
    """
    faults = Faults(str(path))
    check_columns(faults, header_line, header, POD_COLUMNS, POD_OPTIONAL)
    table = Table(header, separator=",", quoted=True, header_line=header_line)
    columns, shapes = Columns(), Numbering(_pod_shape)
    row, never_deleted, never_scheduled = 0, 0, 0
    for batch in read_batches(path, table, faults, progress):
        created_s = integers(batch, "creation_time", faults)
        deleted_s = integers(batch, "deletion_time", faults, empty=_NOT_GIVEN)
        scheduled_s = integers(batch, "scheduled_time", faults, empty=_NOT_GIVEN)
        started_s = np.where(scheduled_s == _NOT_GIVEN, created_s, scheduled_s)
        ended = deleted_s != _NOT_GIVEN
        faults.add_rows(batch, "deletion_time", ended & (deleted_s < started_s), "a time after the pod's start")
        gpus, gpu_milli = _gpus(batch, faults)
        wanted = batch.frame.select("cpu_milli", "memory_mib", "gpu_spec").with_columns(
            cpu_milli=integers(batch, "cpu_milli", faults, maximum=_CPU_MAX_MILLI),
            memory_mib=integers(batch, "memory_mib", faults, maximum=MEMORY_MAX_MIB),
            gpu_milli=gpus * gpu_milli,
        )
        job_id = np.arange(row, row + len(batch), dtype=np.int64)
        row += len(batch)
        never_deleted += int(np.count_nonzero(~ended))
        never_scheduled += int(np.count_nonzero(ended & (scheduled_s == _NOT_GIVEN)))
        columns.add(
            job_id=job_id[ended],
            submit_s=created_s[ended],
            runtime_s=(deleted_s - started_s)[ended],
            shape=shapes.indices(wanted)[ended],
        )
    faults.raise_if_any()
    if not columns.rows:
        raise no_jobs(faults, "no pod with a deletion time" if row else "a header and no row")
    notes = ["the file has no estimates: each is the run time; it has no limits; QoS is not used"]
    if never_deleted:
        notes.append(f"{never_deleted} pods were never deleted, so that their run time is unknown: left out")
    if never_scheduled:
        notes.append(f"{never_scheduled} pods were never scheduled: their run time counts from creation to deletion")
    return build_workload(
        source=f"openb pods {path.name}",
        synthetic=False,
        columns={name: columns.take(name) for name in ("job_id", "submit_s", "runtime_s", "shape")},
        shapes=shapes.values,
        notes=notes,
    )


def read_openb_node_rows(path: Path, header: tuple[str, ...], header_line: int) -> list[OpenbNode]:
    """Read an openb node list in file order. Raises InputError with every fault."""
    faults = Faults(str(path))
    check_columns(faults, header_line, header, NODE_COLUMNS, ())
    nodes: list[OpenbNode] = []
    for batch in read_batches(path, Table(header, ",", quoted=True, header_line=header_line), faults):
        for name in ("sn", "model"):
            empty = (batch.frame[name].str.strip_chars() == "").to_numpy()
            faults.add_rows(batch, name, empty, "a name")
        fields = (
            batch.frame["sn"].to_list(),
            integers(batch, "cpu_milli", faults, maximum=_CPU_MAX_MILLI).tolist(),
            integers(batch, "memory_mib", faults, maximum=MEMORY_MAX_MIB).tolist(),
            integers(batch, "gpu", faults, maximum=_GPUS_PER_NODE_MAX).tolist(),
            batch.frame["model"].to_list(),
        )
        nodes += [OpenbNode(*values) for values in zip(*fields, strict=True)]
    faults.raise_if_any()
    if not nodes:
        raise faults.fail(0, "", "a header and no row", "at least one node")
    return nodes


def _gpus(batch: Batch, faults: Faults) -> tuple[Int64Array, Int64Array]:
    """[pod] GPUs and thousandths of each; a fraction is one of a single GPU."""
    gpus = integers(batch, "num_gpu", faults, maximum=_GPUS_PER_NODE_MAX)
    gpu_milli = integers(batch, "gpu_milli", faults, maximum=GPU_MILLI)
    odd = ((gpus > 1) & (gpu_milli != GPU_MILLI)) | ((gpus == 1) & (gpu_milli == 0)) | ((gpus == 0) & (gpu_milli > 0))
    faults.add_rows(batch, "gpu_milli", odd, "1 to 1000 for one GPU, 1000 for several, 0 for none")
    return np.where(odd, 0, gpus), np.where(odd, 0, gpu_milli)


def _pod_shape(cpu_milli: int, memory_mib: int, gpu_spec: str, gpu_milli: int) -> Shape:
    models = tuple(name.strip() for name in gpu_spec.split("|") if name.strip())
    return Shape(workers=1, gpu_milli=gpu_milli, cpu_milli=cpu_milli, memory_mib=memory_mib, gpu_models=models)
