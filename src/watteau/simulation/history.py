"""What a site's own scheduler did, as a workload that can be run again."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice

import numpy as np
import polars as pl

from watteau.domain.errors import Fault, InputError
from watteau.domain.jobs import Workload
from watteau.domain.requests import JobState
from watteau.domain.sites import SiteJob
from watteau.domain.units import SiteId, TenantId
from watteau.workload.accounting import NEVER_STARTED, TIMED_OUT, UNFINISHED, shape_of, tenant_of, workload_of_ended
from watteau.workload.columns import Numbering

_ROWS_AT_ONCE = 1 << 16
_EARLIER_RUN = "runs of jobs that were requeued, before their last one"
_BACKWARDS = "jobs ended before their own start, by their site's clock"
_SCHEMA = {
    "site": pl.Int32,
    "engine_id": pl.String,
    "submit_s": pl.Int64,
    "eligible_s": pl.Int64,
    "start_s": pl.Int64,
    "runtime_s": pl.Int64,
    "limit_s": pl.Int64,
    "shape": pl.Int32,
    "tenant": pl.Int32,
}


def workload_of(
    jobs: Iterable[SiteJob],
    *,
    source: str,
    gpu_models: Mapping[tuple[SiteId, str], str] | None = None,
    nobody: Collection[TenantId] = (),
) -> Workload:
    """The jobs of sites that are over, each with its last run; what is left out is counted in the notes.

    - Left out: jobs that wait or run still, those that ended before they started, and all runs but the last of a job
      that was requeued (the same site, id and owner again).
    - A job arrives when it was eligible, else when it was submitted; runs from its start to its end; and has its
      limit as its estimate: see `workload_of_ended`.
    - Each node of a job is a worker. Its GPU models are those of the nodes that it ran on, by `gpu_models` of (site,
      node): what else would have done is not known. Without an entry for each of its nodes it may run on any.
    - It belongs to its own tenant. One of `nobody` (the tenants that stand for "not in the site's table") says
      nothing: such a job belongs to `account/user`, as in a file of sacct.
    - job_id is the site's own where all are plain numbers, each once, else the number of the row from 0, in order of
      (site, submit time, id).

    `jobs` is read once and may be long: a job takes about 100 bytes. Raises InputError when none is over.
    """
    models = gpu_models or {}
    sites, shapes, tenants = Numbering(str), Numbering(shape_of), Numbering(str)
    left_out, remarks = Counter[str](), Counter[str]()

    def rows() -> Iterator[tuple[object, ...]]:
        for job in jobs:
            if not job.state.is_end or job.ended_ms is None:
                left_out[UNFINISHED] += job.tasks
            elif job.started_ms is None:
                left_out[NEVER_STARTED] += job.tasks
            elif job.ended_ms < job.started_ms:
                left_out[_BACKWARDS] += 1
            else:
                remarks[TIMED_OUT] += job.state is JobState.TIMED_OUT
                allowed = _models(job, models)
                tenant = tenant_of(job.account, job.user) if job.tenant in nobody else str(job.tenant)
                yield (
                    sites.index(job.site),
                    job.engine_id,
                    job.submitted_ms // 1_000,
                    (job.submitted_ms if job.eligible_ms is None else job.eligible_ms) // 1_000,
                    job.started_ms // 1_000,
                    job.ended_ms // 1_000 - job.started_ms // 1_000,
                    job.time_limit_s,
                    shapes.index(max(1, job.workers), job.gpus, job.cpus, job.memory_mib, allowed),
                    tenants.index(tenant),
                )

    table = _last_runs(_frame(rows()), left_out)
    if table.is_empty():
        found = "; ".join(["no job that ended", *(f"{count} {what}" for what, count in left_out.items() if count)])
        raise InputError(source, [Fault(0, "", found, "at least one job")])
    models_known = np.array([bool(shape.gpu_models) for shape in shapes.values])[table["shape"].to_numpy()]
    remarks["jobs allow only the GPU models that they ran on: what they asked for is not known"] += int(
        np.count_nonzero(models_known)
    )
    job_id = table["engine_id"].cast(pl.Int64, strict=False)
    if job_id.null_count() or job_id.n_unique() < len(job_id):
        job_id = pl.Series(np.arange(len(table), dtype=np.int64))
        remarks["jobs are numbered by their row: their own ids are no numbers, or not unique"] += len(table)
    names = ("submit_s", "eligible_s", "start_s", "runtime_s", "limit_s", "shape", "tenant")
    return workload_of_ended(
        {"job_id": job_id.to_numpy(), **{name: table[name].to_numpy() for name in names}},
        source=source,
        shapes=shapes.values,
        tenants=tenants.values,
        left_out=left_out,
        remarks=remarks,
    )


def _models(job: SiteJob, gpu_models: Mapping[tuple[SiteId, str], str]) -> tuple[str, ...]:
    """The GPU models of the nodes that a job ran on; none when it had no GPU, or one of them is not known."""
    if not job.gpus or not job.held:
        return ()
    found = {gpu_models.get((job.site, held.node), "") for held in job.held}
    return () if "" in found else tuple(sorted(found))


def _frame(rows: Iterator[tuple[object, ...]]) -> pl.DataFrame:
    """Rows as columns, a piece at a time: a tuple is much larger than its row."""
    pieces = [pl.DataFrame(schema=_SCHEMA)]
    while piece := list(islice(rows, _ROWS_AT_ONCE)):
        pieces.append(pl.DataFrame(piece, schema=_SCHEMA, orient="row"))
    return pl.concat(pieces)


def _last_runs(table: pl.DataFrame, left_out: "Counter[str]") -> pl.DataFrame:
    """The last run of each job, in order; accounting may list each run of one that was requeued."""
    ordered = table.sort("site", "submit_s", "start_s", "engine_id")
    last = ordered.unique(subset=["site", "engine_id", "tenant"], keep="last", maintain_order=True)
    left_out[_EARLIER_RUN] += len(ordered) - len(last)
    return last
