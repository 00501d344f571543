"""The last step from any accounting to a Workload: what the jobs that are over asked for, and when they might start."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from watteau.domain.jobs import Shape, Workload
from watteau.domain.units import GPU_MILLI, Int64Array, from_epoch_s
from watteau.workload.columns import build_workload

#: Why rows of an accounting are no jobs of the workload, each behind a number.
UNFINISHED = "jobs have not ended, so that their run time is unknown"
NEVER_STARTED = "jobs ended before they started"
#: What is remarkable about jobs, each behind a number.
TIMED_OUT = "jobs were ended by their limit: they would have run longer"


def shape_of(nodes: int, gpus: int, cpus: int, memory_mib: int, gpu_models: tuple[str, ...] = ()) -> Shape:
    """Equal workers, one for each node; when the GPUs do not divide among the nodes, a divisible shape.

    GPUs, CPUs and memory are of all nodes together.
    """
    if gpus % nodes:
        return Shape(1, GPU_MILLI * gpus, 1_000 * cpus, memory_mib, gpu_models=gpu_models, divisible=True)
    return Shape(
        workers=nodes,
        gpu_milli=GPU_MILLI * (gpus // nodes),
        cpu_milli=-(-1_000 * cpus // nodes),
        memory_mib=-(-memory_mib // nodes),
        gpu_models=gpu_models,
    )


def tenant_of(*names: str) -> str:
    """`account/user`, or the one of them that is there."""
    return "/".join(name for name in names if name) or "(none)"


def workload_of_ended(
    columns: dict[str, Int64Array],
    *,
    source: str,
    shapes: Sequence[Shape],
    tenants: Sequence[str],
    left_out: Mapping[str, int],
    remarks: Mapping[str, int],
    how_read: str = "",
    notes: Sequence[str] = (),
) -> Workload:
    """A Workload of jobs that are over, whose times are epoch seconds; there is at least one.

    `columns` are job_id, submit_s, eligible_s, start_s, runtime_s, limit_s, shape and tenant. A job arrives when it
    was eligible: before that it waited for another job or for its hour, not for room, and would have done so on any
    fleet. An eligible time that lies outside of [submit, start] is moved to the nearer of the two. What a job waited
    goes from its arrival to its start. Arrivals are then moved so that the first is at 0.
    """
    submit_s, start_s = columns.pop("submit_s"), columns.pop("start_s")
    arrival_s = np.maximum(submit_s, np.minimum(columns.pop("eligible_s"), start_s))
    first_s = int(arrival_s.min())
    over = (columns["limit_s"] > 0) & (columns["runtime_s"] > columns["limit_s"])
    remarks = Counter(remarks)
    remarks["jobs were eligible after they were submitted (dependencies, begin times): they arrive then"] += int(
        np.count_nonzero(arrival_s > submit_s)
    )
    remarks["jobs ended beyond their limit: a replay ends them there"] += int(np.count_nonzero(over))
    return build_workload(
        source=source,
        synthetic=False,
        columns={**columns, "submit_s": arrival_s - first_s, "waited_s": np.maximum(start_s - arrival_s, 0)},
        shapes=shapes,
        tenants=tenants,
        notes=[
            f"{how_read}submit times are moved by -{first_s} s: "
            f"the first submit, {from_epoch_s(first_s).isoformat()}, is 0",
            *(f"{count} {what}: left out" for what, count in left_out.items() if count),
            *(f"{count} {what}" for what, count in remarks.items() if count),
            *notes,
        ],
        zero_s=first_s,
    )
