"""What is asked: the shape of a job, and a workload as columns."""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from watteau.domain.units import GPU_MILLI, NEVER_S, BoolArray, Int16Array, Int32Array, Int64Array

#: A job without a time limit.
NO_LIMIT_S = 0


class Topology(IntEnum):
    """How much a gang cares about sitting in one fast-fabric block."""

    ANYWHERE = 0
    ONE_BLOCK_PREFERRED = 1
    ONE_BLOCK_REQUIRED = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """What one job needs at once: a gang of equal workers. Jobs with the same shape are scheduled alike.

    Each worker runs on one node with `gpu_milli` thousandths of a GPU (a multiple of 1000, or a fraction of one
    GPU below 1000, or 0), `cpu_milli` and `memory_mib`. A `divisible` shape says only how much it needs in all
    (`workers` is 1): it is cut into equal workers, as few as some pool can hold together.
    Empty `gpu_models` or `sites` allow all.
    """

    workers: int
    gpu_milli: int
    cpu_milli: int = 0
    memory_mib: int = 0
    gpu_models: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    topology: Topology = Topology.ONE_BLOCK_PREFERRED
    divisible: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError("a job has at least one worker")
        if min(self.gpu_milli, self.cpu_milli, self.memory_mib) < 0:
            raise ValueError("a job cannot ask for less than nothing")
        if self.gpu_milli > GPU_MILLI and self.gpu_milli % GPU_MILLI:
            raise ValueError("a worker takes whole GPUs or a fraction of one")
        if self.divisible and self.workers != 1:
            raise ValueError("a divisible shape has one worker, which the fleet cuts")

    @property
    def total_gpu_milli(self) -> int:
        """Thousandths of a GPU that the whole gang holds."""
        return self.workers * self.gpu_milli


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs as columns, sorted by (submit_s, job_id). Times are whole seconds from the workload's own zero.

    `runtime_s` is what the job would run if nobody stopped it, `estimate_s` what the scheduler is told, `limit_s`
    when it is killed (NO_LIMIT_S: never). They differ in real life, and only the limit kills.
    """

    source: str
    synthetic: bool  # True when any column was made up rather than measured; shown wherever figures are
    job_id: Int64Array  # [job], unique
    submit_s: Int64Array  # [job], >= 0
    runtime_s: Int64Array  # [job], >= 0
    estimate_s: Int64Array  # [job], >= 1, <= limit_s where there is one
    limit_s: Int64Array  # [job], NO_LIMIT_S or >= 1
    shape: Int32Array  # [job], index into shapes
    tenant: Int32Array  # [job], index into tenants, or -1: not known
    priority_class: Int16Array  # [job], higher goes first
    shapes: tuple[Shape, ...]
    tenants: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what was changed, filled in or left out on the way in
    waited_s: Int64Array | None = None  # [job] from its submit to its start where it really ran; None: not recorded
    zero_s: int | None = None  # the epoch second of the workload's zero; None: not known

    def __post_init__(self) -> None:
        count = len(self.job_id)
        for name in ("submit_s", "runtime_s", "estimate_s", "limit_s", "shape", "tenant", "priority_class"):
            if len(getattr(self, name)) != count:
                raise ValueError(f"column {name} has {len(getattr(self, name))} rows, job_id has {count}")
        if self.waited_s is not None and (len(self.waited_s) != count or bool(np.any(self.waited_s < 0))):
            raise ValueError("waited_s has a value for each job, and none below 0")
        if not count:
            return
        for name, least, most in (
            ("submit_s", 0, NEVER_S),
            ("runtime_s", 0, NEVER_S),
            ("estimate_s", 1, NEVER_S),
            ("limit_s", NO_LIMIT_S, NEVER_S),
            ("shape", 0, len(self.shapes) - 1),
            ("tenant", -1, len(self.tenants) - 1),
        ):
            column = getattr(self, name)
            if not least <= int(column.min()) <= int(column.max()) <= most:
                raise ValueError(f"column {name} goes from {column.min()} to {column.max()}, not {least} to {most}")
        if bool(np.any(np.diff(self.submit_s) < 0)):
            raise ValueError("jobs must be sorted by submit_s")

    def __len__(self) -> int:
        return len(self.job_id)

    def part(self, rows: slice, note: str) -> "Workload":
        """Some of the jobs, with one more note; the zero stays."""
        names = ("job_id", "submit_s", "runtime_s", "estimate_s", "limit_s", "shape", "tenant", "priority_class")
        columns = {name: getattr(self, name)[rows] for name in names}
        waited_s = None if self.waited_s is None else self.waited_s[rows]
        return replace(self, **columns, waited_s=waited_s, notes=(*self.notes, note))

    def gpu_milli(self) -> Int64Array:
        """[job] thousandths of a GPU that each job's whole gang holds."""
        by_shape = np.array([shape.total_gpu_milli for shape in self.shapes] or [0], dtype=np.int64)
        result: Int64Array = by_shape[self.shape]
        return result

    def served_s(self) -> Int64Array:
        """[job] seconds that each job holds its GPUs: its run time, or its limit where that is shorter."""
        return np.where(self.killed(), self.limit_s, self.runtime_s)

    def killed(self) -> BoolArray:
        """[job] whether its limit ends it before its run time does."""
        result: BoolArray = (self.limit_s != NO_LIMIT_S) & (self.limit_s < self.runtime_s)
        return result
