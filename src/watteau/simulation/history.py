"""What a site's own scheduler did, as a workload that can be run again."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import Site
from watteau.domain.jobs import Workload
from watteau.domain.requests import JobState
from watteau.domain.sites import SiteJob
from watteau.domain.units import DAY_S, Int64Array, SiteId, TenantId, to_epoch_s
from watteau.engines.contract import SharedEngine
from watteau.workload.accounting import NEVER_STARTED, TIMED_OUT, UNFINISHED, shape_of, tenant_of, workload_of_ended
from watteau.workload.columns import Columns, Numbering

_ROWS_AT_ONCE = 1 << 16
_MOST_DIGITS = 18
_EARLIER_RUN = "runs of jobs that were requeued, before their last one"
_BACKWARDS = "jobs ended before their own start, by their site's clock"
#: What is kept of a job, all in whole numbers; `number` and `task` are its id.
_COLUMNS = ("site", "number", "task", "submit_s", "eligible_s", "start_s", "runtime_s", "limit_s", "shape", "tenant")


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
      (site, submit time, start, id).

    `jobs` is read once and may be long: a job takes about 200 bytes. Raises InputError when none is over.
    """
    models = gpu_models or {}
    sites, shapes, tenants, other_ids = Numbering(str), Numbering(shape_of), Numbering(str), Numbering(str)
    left_out = Counter(dict.fromkeys((UNFINISHED, NEVER_STARTED, _BACKWARDS, _EARLIER_RUN), 0))
    remarks = Counter[str]()
    unfinished = Counter[tuple[int, int, int]]()

    def rows() -> Iterator[tuple[int, ...]]:
        for job in jobs:
            number, task = _id(job.engine_id)
            if number < 0:
                task = other_ids.index(job.engine_id)
            if not job.state.is_end or job.ended_ms is None:
                unfinished[sites.index(job.site), number, task] += job.tasks
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
                    number,
                    task,
                    job.submitted_ms // 1_000,
                    (job.submitted_ms if job.eligible_ms is None else job.eligible_ms) // 1_000,
                    job.started_ms // 1_000,
                    job.ended_ms // 1_000 - job.started_ms // 1_000,
                    job.time_limit_s,
                    shapes.index(max(1, job.workers), job.gpus, job.cpus, job.memory_mib, allowed),
                    tenants.index(tenant),
                )

    columns = _columns(rows())
    left_out[UNFINISHED] = unfinished.total()
    if not columns.rows:
        found = "; ".join(["no job that ended", *(f"{count} {what}" for what, count in left_out.items() if count)])
        raise InputError(source, [Fault(0, "", found, "at least one job")])
    table = {name: columns.take(name) for name in _COLUMNS}
    # A run that was requeued has not ended in its accounting's words; a later run of the same job has.
    rerun = _those_in(table, unfinished)
    left_out[UNFINISHED] -= rerun
    left_out[_EARLIER_RUN] += rerun
    # The order of reading means nothing: names count by their place in the alphabet.
    table["site"] = _ranks(sites.values)[table["site"]]
    of_other_form = table["number"] < 0
    table["task"][of_other_form] = _ranks(other_ids.values)[table["task"][of_other_form]]
    last = _last_runs(table)
    left_out[_EARLIER_RUN] += columns.rows - len(last)
    for name in _COLUMNS:
        table[name] = table[name][last]
    models_known = np.array([bool(shape.gpu_models) for shape in shapes.values])[table["shape"]]
    remarks["jobs allow only the GPU models that they ran on: what they asked for is not known"] += int(
        np.count_nonzero(models_known)
    )
    _, number, task = (table.pop(name) for name in ("site", "number", "task"))
    if bool(np.any(number < 0)) or bool(np.any(task >= 0)) or len(np.unique(number)) < len(number):
        number = np.arange(len(last), dtype=np.int64)
        remarks["jobs are numbered by their row: their own ids are no plain numbers, or not unique"] += len(last)
    return workload_of_ended(
        {"job_id": number, **table},
        source=source,
        shapes=shapes.values,
        tenants=tenants.values,
        left_out=left_out,
        remarks=remarks,
    )


def by_day(
    engine: SharedEngine, since_ms: int, until_ms: int, progress: Callable[[int], None] | None = None
) -> Iterator[SiteJob]:
    """A site's accounting of [since, until), asked for a day at a time: no answer is larger than a day's.

    `progress` is told where the day begins that is asked for next. Raises NoAccounting, EngineUnreachable.
    """
    for day_ms in range(since_ms, until_ms, DAY_S * 1_000):
        if progress is not None:
            progress(day_ms)
        yield from engine.history(day_ms, min(day_ms + DAY_S * 1_000, until_ms))


def gpus_there(site: Site, since_s: int, until_s: int) -> float:
    """GPUs of a site by its phases, on average over [since, until) in epoch seconds; outages are not taken off."""
    per_node = {pool.id: pool.gpus_per_node for pool in site.pools}
    gpu_s = sum(
        max(0, until_s - max(since_s, to_epoch_s(phase.opens))) * count * per_node[pool]
        for phase in site.phases
        for pool, count in phase.nodes
    )
    return gpu_s / max(1, until_s - since_s)


def _models(job: SiteJob, gpu_models: Mapping[tuple[SiteId, str], str]) -> tuple[str, ...]:
    """The GPU models of the nodes that a job ran on; none when it had no GPU, or one of them is not known."""
    if not job.gpus or not job.held:
        return ()
    found = {gpu_models.get((job.site, held.node), "") for held in job.held}
    return () if "" in found else tuple(sorted(found))


def _id(engine_id: str) -> tuple[int, int]:
    """(number, task of an array or -1) of 1234 or 1234_7; a number below 0: an id of another form."""
    number, underscore, task = engine_id.partition("_")
    if number.isdecimal() and len(number) < _MOST_DIGITS and (task.isdecimal() or not underscore) and len(task) < 10:
        return int(number), int(task) if underscore else -1
    return -1, -1


def _columns(rows: Iterator[tuple[int, ...]]) -> Columns:
    """Rows as columns, a piece at a time: a tuple is much larger than its row."""
    columns = Columns()
    while piece := list(islice(rows, _ROWS_AT_ONCE)):
        block = np.array(piece, dtype=np.int64).T.copy()
        columns.add(**dict(zip(_COLUMNS, block, strict=True)))
    return columns


def _those_in(table: dict[str, Int64Array], runs: "Counter[tuple[int, int, int]]") -> int:
    """How many runs of (site, number, task) have a row for their job."""
    near = np.flatnonzero(np.isin(table["number"], [number for _, number, _ in runs]))
    there = set(zip(*(table[name][near].tolist() for name in ("site", "number", "task")), strict=True))
    return sum(count for key, count in runs.items() if key in there)


def _ranks(names: Sequence[str]) -> Int64Array:
    """[name] its place in the alphabet."""
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return ranks


def _last_runs(table: dict[str, Int64Array]) -> Int64Array:
    """[job] row of its last run, in order; accounting may list each run of one that was requeued."""
    order = np.lexsort([table[name] for name in ("runtime_s", "task", "number", "start_s", "submit_s", "site")])
    names = ("tenant", "task", "number", "site")
    by_job = order[np.lexsort([table[name][order] for name in names])]  # stable: runs of a job stay in order
    another = np.ones(len(order), dtype=np.bool_)
    another[:-1] = np.any([table[name][by_job[1:]] != table[name][by_job[:-1]] for name in names], axis=0)
    if another.all():
        return order
    is_last = np.zeros(len(order), dtype=np.bool_)
    is_last[by_job[another]] = True
    return order[is_last[order]]
