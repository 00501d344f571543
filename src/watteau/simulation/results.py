"""What a replay amounts to: the tables, the figures and the report that `watteau simulate` leaves behind."""

import json
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from watteau import __version__
from watteau.core.state import Outlook
from watteau.domain.decisions import SENTENCE, Reason
from watteau.domain.fleet import Fleet
from watteau.domain.jobs import Workload
from watteau.domain.units import GPU_MILLI, HOUR_S, Int64Array, from_epoch_s
from watteau.energy.books import Attempts, EnergyBooks, Presence, presence_of, settle
from watteau.energy.climate import pue_by_hour
from watteau.energy.supply import CapacityFactors, SupplySeries, supply_wh, synthetic_capacity_factors
from watteau.simulation.history import gpus_there
from watteau.simulation.replay import Replay
from watteau.simulation.report import (
    ReasonRow,
    ReportContent,
    SiteRow,
    TenantRow,
    wait_rows,
    waits_by_size,
    write_report,
)

#: Bounded slowdown divides by at least this run time (Feitelson and Rudolph, JSSPP 1998).
SLOWDOWN_BOUND_S = 10
_ROWS_AT_ONCE = 1 << 20

JOBS_COLUMNS: dict[str, tuple[str, str]] = {
    "job_id": ("int64", "The job's number in the workload."),
    "tenant": ("string", "The tenant that the job belongs to."),
    "gpus": ("double", "GPUs that the whole gang held; fractions count as such."),
    "submit_s": ("int64", "Arrival, in seconds from the workload's zero."),
    "start_s": ("int64", "Start, in seconds from the workload's zero; null: never started."),
    "end_s": ("int64", "End, in seconds from the workload's zero; null: never started."),
    "site": ("string", "Where it ran; null: never started."),
    "pool": ("string", "The pool it ran in; null: never started."),
    "nodes": ("list<int32>", "For each worker the number of its node inside the pool, from 0; null: never started."),
    "state": ("string", "`completed`, `timed_out` (killed at its limit) or `unschedulable`."),
}
HOURS_COLUMNS: dict[str, tuple[str, str]] = {
    "site": ("string", "The site."),
    "hour_utc": ("timestamp", "Start of the hour [h, h + 1), UTC."),
    "it_energy_wh": ("int64", "IT energy: jobs and idle nodes."),
    "site_energy_wh": ("int64", "The site's meter: jobs + idle + overhead."),
    "supply_wh": ("int64", "The site's share of the hour's contracted renewable supply."),
    "matched_wh": ("int64", "Load that renewable supply of the same hour met."),
    "gpus_busy": ("double", "GPUs held, mean over the hour."),
    "job_energy_wh": ("int64", "IT energy of jobs."),
    "idle_energy_wh": ("int64", "IT energy of GPUs that nobody held."),
    "overhead_energy_wh": ("int64", "Cooling and losses: meter less IT."),
}
REASONS_COLUMNS: dict[str, tuple[str, str]] = {
    "job_id": ("int64", "The job's number in the workload."),
    "reason": ("string", "The stable name of why it waited."),
    "from_s": ("int64", "Since when, in seconds from the workload's zero."),
    "until_s": ("int64", "Until when; null: to the end, the job never started."),
}


@dataclass(frozen=True, slots=True)
class Results:
    """A replay with its energy books."""

    replay: Replay
    books: EnergyBooks
    supply: SupplySeries
    factors: CapacityFactors
    first_hour_s: int


def outlook_of(fleet: Fleet, first_hour_s: int, hours: int, seed: int) -> Outlook:
    """PUE by site and hour, as the core and the books both see it."""
    return Outlook(first_hour_s, np.stack([pue_by_hour(site, first_hour_s, hours, seed) for site in fleet.sites]))


def keep_books(replay: Replay, outlook: Outlook, factors: CapacityFactors | None, seed: int) -> Results:
    """Settle every hour from the workload's zero to the last end. Without factors the generator makes them."""
    first_hour_s = replay.zero_s // HOUR_S * HOUR_S
    hours = max(1, -(-(replay.last_end_s - first_hour_s) // HOUR_S))
    if factors is None:
        factors = synthetic_capacity_factors(first_hour_s, hours, seed)
    supply = supply_wh(replay.fleet.contracts, factors, first_hour_s, hours)
    pue = outlook.pue
    if pue.shape[1] < hours:
        pue = outlook_of(replay.fleet, first_hour_s, hours, seed).pue
    ran = replay.started
    gpu_milli = replay.workload.gpu_milli()
    lost = replay.lost
    attempts = Attempts(
        start_s=np.concatenate([replay.start_s[ran], lost[:, 1]]),
        end_s=np.concatenate([replay.end_s[ran], lost[:, 2]]),
        pool=np.concatenate([replay.pool[ran], lost[:, 3].astype(np.int32)]),
        gpu_milli=np.concatenate([gpu_milli[ran], gpu_milli[lost[:, 0]]]),
    )
    presence: Sequence[Presence] = presence_of(replay.fleet)
    books = settle(replay.fleet, attempts, presence, pue[:, :hours], supply, first_hour_s, hours)
    return Results(replay, books, supply, factors, first_hour_s)


def _waited_s(replay: Replay) -> Int64Array:
    """[job] from its arrival to its last start, less what it ran in attempts that were lost; 0: it never started."""
    waited: Int64Array = np.where(replay.started, replay.start_s - replay.submit_s, 0)
    lost = replay.lost[replay.started[replay.lost[:, 0]]]
    np.subtract.at(waited, lost[:, 0], lost[:, 2] - lost[:, 1])
    return waited


def _attempt_wh_by_job(results: Results) -> Int64Array:
    replay, books = results.replay, results.books
    energy: Int64Array = np.zeros(len(replay.workload), dtype=np.int64)
    ran = int(replay.started.sum())
    energy[replay.started] = books.attempt_wh[:ran]
    np.add.at(energy, replay.lost[:, 0], books.attempt_wh[ran:])
    return energy


def _quantile(values: NDArray[np.int64], share: float) -> float | None:
    return float(np.quantile(values, share)) if len(values) else None


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _green(replay: Replay) -> dict[str, Any] | None:
    """How flexible jobs and the others fared; None: nothing was flexible."""
    green, planner = replay.green, replay.planner
    if green is None or planner is None:
        return None
    wait, flexible = _waited_s(replay), green.flexible & replay.started
    return {
        "forecast": green.forecast,
        "flexible_jobs": int(green.flexible.sum()),
        "slack_s": green.slack_s,
        "late_starts": int((replay.start_s - replay.submit_s > green.slack_s)[flexible].sum()),
        "wait_flexible_mean_s": _mean(wait[flexible]),
        "wait_others_mean_s": _mean(wait[replay.started & ~green.flexible]),
        "envelopes": planner.solves,
        "envelopes_unusable": planner.unusable,
        "solve_s": planner.solve_s,
    }


def summarise(results: Results, seed: int, recorded_gpus: float | None = None) -> dict[str, Any]:
    """The figures of a run as one JSON-able object. Waits and energies are of the simulated run, `wall_s` is ours.

    `recorded` says how the same jobs fared where they really ran, on `recorded_gpus`; null where that is not known.
    """
    replay, books = results.replay, results.books
    ran = replay.started
    wait = _waited_s(replay)[ran]
    served = (replay.end_s - replay.start_s)[ran]
    turnaround = (replay.end_s - replay.submit_s)[ran]
    slowdown = np.maximum(1.0, turnaround / np.maximum(served, SLOWDOWN_BOUND_S))
    jobs = len(replay.workload)
    return {
        "watteau": __version__,
        "fleet": replay.fleet.name,
        "gpus": replay.fleet.gpus(),
        "workload": replay.workload.source,
        "workload_synthetic": replay.workload.synthetic,
        "workload_notes": list(replay.workload.notes),
        "policy": replay.policy.name,
        "seed": seed,
        "start_utc": from_epoch_s(replay.zero_s).isoformat(),
        "jobs": jobs,
        "jobs_started": int(ran.sum()),
        "jobs_unschedulable": int(jobs - ran.sum()),
        "unschedulable_by_reason": {
            Reason(int(code)).name: int(count)
            for code, count in zip(*np.unique(replay.reason[~ran], return_counts=True), strict=True)
        },
        "attempts_lost": len(replay.lost),
        "makespan_s": int(replay.last_end_s - replay.submit_s[0]) if ran.any() else 0,
        "wait_mean_s": _mean(wait),
        "wait_p50_s": _quantile(wait, 0.5),
        "wait_p99_s": _quantile(wait, 0.99),
        "wait_max_s": int(wait.max()) if len(wait) else None,
        "jct_mean_s": _mean(turnaround),
        "bounded_slowdown_mean": _mean(slowdown),
        **_gpus_mean(results),
        "gpu_utilization": books.utilisation,
        "green": _green(replay),
        "recorded": recorded_figures(replay.workload, recorded_gpus),
        "steps": replay.steps,
        "queue_most": replay.queue_most,
        "wall_s": replay.wall_s,
        "jobs_per_s": jobs / replay.wall_s if replay.wall_s else None,
        "peak_rss_mib": peak_rss_mib(),
        "energy": {
            "job_energy_wh": int(books.job_wh.sum()),
            "idle_energy_wh": int(books.idle_wh.sum()),
            "overhead_energy_wh": int(books.overhead_wh.sum()),
            "it_energy_wh": int(books.it_wh.sum()),
            "site_energy_wh": int(books.site_wh.sum()),
            "supply_wh": int(books.supply_wh.sum()),
            "matched_wh": int(books.matched_wh.sum()),
            "unmatched_wh": int(books.unmatched_wh),
            "surplus_wh": int(books.surplus_wh),
            "hourly_matched_share": books.hourly_matched_share,
            "annual_ratio": books.annual_ratio,
            "supply_source": results.factors.source,
            "supply_synthetic": results.supply.synthetic,
            "supply_aligned_from_year": results.supply.aligned_from_year,
            "supply_notes": list(results.supply.notes),
        },
        "by_site": {row.label: _site_figures(row) for row in _site_rows(results)},
        "by_tenant": _tenant_figures(results),
    }


def recorded_figures(workload: Workload, gpus: float | None = None) -> dict[str, Any] | None:
    """How the jobs of a workload really waited and how many GPUs they held, to be set beside a replay of them.

    None when that is not recorded. Means of GPUs go from the first arrival to the last end. `gpus` are those that
    were there on average, None: not known.
    """
    if workload.waited_s is None or not len(workload):
        return None
    wait, runtime_s = workload.waited_s, workload.runtime_s
    span_s = int((workload.submit_s + wait + runtime_s).max() - workload.submit_s[0])
    held = float((runtime_s * (workload.gpu_milli() / GPU_MILLI)).sum()) / span_s if span_s else None
    slowdown = np.maximum(1.0, (wait + runtime_s) / np.maximum(runtime_s, SLOWDOWN_BOUND_S))
    return {
        "makespan_s": span_s,
        "wait_mean_s": float(wait.mean()),
        "wait_p50_s": float(np.quantile(wait, 0.5)),
        "wait_p99_s": float(np.quantile(wait, 0.99)),
        "wait_max_s": int(wait.max()),
        "bounded_slowdown_mean": float(slowdown.mean()),
        "gpus_there_mean": gpus,
        "gpus_held_mean": held,
    }


def _gpus_mean(results: Results) -> dict[str, float | None]:
    """GPUs that were there and that jobs held, from the first arrival to the last end: as `recorded_figures` counts."""
    replay = results.replay
    began_s = int(replay.submit_s[0]) if len(replay.submit_s) else 0
    span_s = replay.last_end_s - began_s if replay.started.any() else 0
    if span_s <= 0:
        return {"gpus_there_mean": None, "gpus_held_mean": None}
    there = sum(gpus_there(site, began_s, replay.last_end_s) for site in replay.fleet.sites)
    held = float(results.books.busy_gpu_milli_s.sum()) / GPU_MILLI / span_s
    return {"gpus_there_mean": there, "gpus_held_mean": held}


def peak_rss_mib() -> float:
    """The most memory this process has held, in MiB.

    On Linux `VmHWM` of proc(5) and not `ru_maxrss` of getrusage(2): a process that a larger one started inherits that
    one's maximum with the latter, and would report memory that it never held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        high_water = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(high_water.split()[1]) / 2**10
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def _site_of_job(replay: Replay) -> tuple[NDArray[np.int64], list[str]]:
    pools = list(replay.fleet.pools())
    sites = [site.id for site in replay.fleet.sites]
    site_of_pool = np.array([sites.index(site.id) for site, _ in pools] + [-1], dtype=np.int64)
    return site_of_pool[replay.pool], [str(site) for site in sites]


def _site_rows(results: Results) -> list[SiteRow]:
    replay, books = results.replay, results.books
    site, names = _site_of_job(replay)
    jobs = np.bincount(site[replay.started], minlength=len(names))
    return [
        SiteRow(
            label=name,
            jobs=int(jobs[index]),
            gpu_hours=float(books.busy_gpu_milli_s[index].sum()) / GPU_MILLI / HOUR_S,
            open_gpu_hours=float(books.open_gpu_milli_s[index].sum()) / GPU_MILLI / HOUR_S,
            job_wh=int(books.job_wh[index].sum()),
            idle_wh=int(books.idle_wh[index].sum()),
            overhead_wh=int(books.overhead_wh[index].sum()),
            matched_wh=int(books.site_matched_wh[index].sum()),
        )
        for index, name in enumerate(names)
    ]


def _site_figures(row: SiteRow) -> dict[str, Any]:
    meter = row.job_wh + row.idle_wh + row.overhead_wh
    return {
        "jobs": row.jobs,
        "gpu_hours": row.gpu_hours,
        "gpu_utilization": row.gpu_hours / row.open_gpu_hours if row.open_gpu_hours else None,
        "job_energy_wh": row.job_wh,
        "idle_energy_wh": row.idle_wh,
        "overhead_energy_wh": row.overhead_wh,
        "site_energy_wh": meter,
        "matched_wh": row.matched_wh,
    }


def _tenant_rows(results: Results) -> list[tuple[TenantRow, int]]:
    """(row, position in the tree) for each tenant that has jobs."""
    replay = results.replay
    names = [str(tenant.id) for _, tenant in replay.fleet.tenants.walk()]
    count = len(names)
    jobs = np.bincount(replay.tenant, minlength=count)
    held_s = np.where(replay.started, replay.end_s - replay.start_s, 0)
    np.add.at(held_s, replay.lost[:, 0], replay.lost[:, 2] - replay.lost[:, 1])
    held_s = held_s * (replay.workload.gpu_milli() / GPU_MILLI)
    gpu_s = np.bincount(replay.tenant, weights=held_s, minlength=count)
    # Wh below 2**53 add up exactly in doubles.
    energy = np.bincount(replay.tenant, weights=_attempt_wh_by_job(results), minlength=count)
    return [
        (TenantRow(names[t], int(jobs[t]), float(gpu_s[t]) / HOUR_S, int(energy[t])), t)
        for t in range(count)
        if jobs[t]
    ]


def _tenant_figures(results: Results) -> dict[str, Any]:
    replay = results.replay
    wait = _waited_s(replay)
    count = int(replay.tenant.max(initial=0)) + 1
    started = np.bincount(replay.tenant, weights=replay.started, minlength=count)
    waited = np.bincount(replay.tenant, weights=wait, minlength=count)
    return {
        row.label: {
            "jobs": row.jobs,
            "gpu_hours": row.gpu_hours,
            "wait_mean_s": float(waited[t] / started[t]) if started[t] else None,
            "energy_wh": row.energy_wh,
        }
        for row, t in _tenant_rows(results)
    }


def write_results(results: Results, out: Path, *, command: str, seed: int, summary: dict[str, Any]) -> None:
    """Write jobs, hours and reasons as Parquet, the summary as JSON and the report as HTML into a directory.

    All files appear or none: each is written beside its place, and they are moved there when all are complete.
    """
    out.mkdir(parents=True, exist_ok=True)
    waits = waiting_spans(results.replay)
    content = report_content(results, waits, command=command, seed=seed)
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    writers: dict[str, Callable[[Path], object]] = {
        "jobs.parquet": lambda path: _write_jobs(results.replay, path),
        "hours.parquet": lambda path: pq.write_table(_hours_table(results).to_arrow(), path),
        "reasons.parquet": lambda path: pq.write_table(_reasons_table(results.replay, waits).to_arrow(), path),
        "summary.json": lambda path: path.write_text(text, encoding="utf-8"),
        "report.html": lambda path: write_report(path, content),
    }
    beside = {name: out / f"{name}.partial" for name in writers}
    try:
        for name, write in writers.items():
            write(beside[name])
        for name, path in beside.items():
            path.replace(out / name)
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)


_JOBS_SCHEMA = pa.schema(
    [
        ("job_id", pa.int64()),
        ("tenant", pa.dictionary(pa.int32(), pa.string())),
        ("gpus", pa.float64()),
        ("submit_s", pa.int64()),
        ("start_s", pa.int64()),
        ("end_s", pa.int64()),
        ("site", pa.dictionary(pa.int32(), pa.string())),
        ("pool", pa.dictionary(pa.int32(), pa.string())),
        ("nodes", pa.list_(pa.int32())),
        ("state", pa.dictionary(pa.int32(), pa.string())),
    ]
)


def _write_jobs(replay: Replay, path: Path) -> None:
    # Without Arrow's own schema the dictionaries are a matter of encoding: the columns are read as plain strings.
    with pq.ParquetWriter(path, _JOBS_SCHEMA, compression="zstd", compression_level=1, store_schema=False) as writer:
        for batch in _job_batches(replay):
            writer.write_batch(batch)


def _job_batches(replay: Replay) -> Iterator[pa.RecordBatch]:
    gpu_milli = replay.workload.gpu_milli()
    site, site_names = _site_of_job(replay)
    pool_names = [str(pool.id) for _, pool in replay.fleet.pools()]
    tenant_names = [str(tenant.id) for _, tenant in replay.fleet.tenants.walk()]
    state, state_names = replay.state_of_jobs()
    for first in range(0, max(len(replay.workload), 1), _ROWS_AT_ONCE):
        rows = slice(first, min(first + _ROWS_AT_ONCE, len(replay.workload)))
        never = ~replay.started[rows]

        def names(index: NDArray[Any], labels: list[str], absent: NDArray[np.bool_] | None) -> pa.Array:
            return pa.DictionaryArray.from_arrays(
                pa.array(index.astype(np.int32), mask=absent), pa.array(labels, pa.string())
            )

        yield pa.record_batch(
            [
                pa.array(replay.workload.job_id[rows]),
                names(replay.tenant[rows], tenant_names, None),
                pa.array(gpu_milli[rows] / GPU_MILLI),
                pa.array(replay.submit_s[rows] - replay.zero_s),
                pa.array(replay.start_s[rows] - replay.zero_s, mask=never),
                pa.array(replay.end_s[rows] - replay.zero_s, mask=never),
                names(np.maximum(site[rows], 0), site_names, never),
                names(np.maximum(replay.pool[rows], 0), pool_names, never),
                _nodes_of(replay, rows, never),
                names(state[rows], list(state_names), None),
            ],
            schema=_JOBS_SCHEMA,
        )


def _nodes_of(replay: Replay, rows: slice, never: NDArray[np.bool_]) -> pa.Array:
    first, last = replay.first_worker[rows.start], replay.first_worker[rows.stop]
    workers = np.diff(replay.first_worker[rows.start : rows.stop + 1])
    pool = np.repeat(replay.pool[rows], workers)
    node = replay.worker_node[first:last] - replay.first_node[pool]
    kept = np.repeat(~never, workers)
    offsets = np.zeros(len(workers) + 1, dtype=np.int32)
    np.cumsum(np.where(never, 0, workers), out=offsets[1:])
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(node[kept].astype(np.int32)), mask=pa.array(never) if never.any() else None
    )


def _hours_table(results: Results) -> pl.DataFrame:
    books = results.books
    sites = [str(site.id) for site in results.replay.fleet.sites]
    hours = books.site_wh.shape[1]
    start = results.first_hour_s + np.arange(hours, dtype=np.int64) * HOUR_S
    return pl.DataFrame(
        {
            "site": pl.Series(np.repeat(np.arange(len(sites)), hours))
            .cast(pl.UInt32)
            .replace_strict(dict(enumerate(sites)), return_dtype=pl.String),
            "hour_utc": pl.from_epoch(pl.Series(np.tile(start, len(sites))), time_unit="s").dt.replace_time_zone("UTC"),
            "it_energy_wh": books.it_wh.ravel(),
            "site_energy_wh": books.site_wh.ravel(),
            "supply_wh": books.site_supply_wh.ravel(),
            "matched_wh": books.site_matched_wh.ravel(),
            "gpus_busy": books.busy_gpu_milli_s.ravel() / GPU_MILLI / HOUR_S,
            "job_energy_wh": books.job_wh.ravel(),
            "idle_energy_wh": books.idle_wh.ravel(),
            "overhead_energy_wh": books.overhead_wh.ravel(),
        }
    )


@dataclass(frozen=True, slots=True)
class WaitingSpans:
    """Spans of waiting with their reason. Times are epoch seconds; `until_s` is -1 for jobs that never started."""

    job: Int64Array  # [span]
    reason: Int64Array  # [span]
    from_s: Int64Array  # [span]
    until_s: Int64Array  # [span]


def waiting_spans(replay: Replay) -> WaitingSpans:
    """Why each job waited, from when to when. Spans of no length are left out: they explain no waiting."""
    logged, lost = replay.logged, replay.lost
    # A job that an outage ended waits again after it ran: its lost attempts stand between its spans.
    ran = np.repeat([False, True], [len(logged), len(lost)])
    job = np.concatenate([logged["job"].astype(np.int64), lost[:, 0]])
    from_s = np.concatenate([logged["at_s"].astype(np.int64), lost[:, 1]])
    reason = np.concatenate([logged["reason"].astype(np.int64), np.zeros(len(lost), dtype=np.int64)])
    order = np.lexsort((ran, from_s, job))  # stable: the log itself is in order of time
    job, from_s, reason, ran = job[order], from_s[order], reason[order], ran[order]
    until_s = replay.start_s[job] if len(job) else np.zeros(0, dtype=np.int64)
    same = job[1:] == job[:-1] if len(job) else np.zeros(0, dtype=np.bool_)
    until_s[:-1] = np.where(same, from_s[1:], until_s[:-1])
    keep = (until_s != from_s) & ~ran
    return WaitingSpans(job[keep], reason[keep], from_s[keep], until_s[keep])


def _reasons_table(replay: Replay, waits: WaitingSpans) -> pl.DataFrame:
    names = {int(reason): reason.name for reason in Reason}
    return pl.DataFrame(
        {
            "job_id": replay.workload.job_id[waits.job],
            "reason": pl.Series(waits.reason, dtype=pl.Int64).replace_strict(names, return_dtype=pl.String),
            "from_s": waits.from_s - replay.zero_s,
            "until_s": pl.Series(waits.until_s - replay.zero_s, dtype=pl.Int64),
            "open": waits.until_s < 0,
        }
    ).select(
        "job_id", "reason", "from_s", pl.when(pl.col("open")).then(None).otherwise(pl.col("until_s")).alias("until_s")
    )


def report_content(results: Results, waits: WaitingSpans, *, command: str, seed: int) -> ReportContent:
    """Everything the report page shows."""
    replay, books, supply = results.replay, results.books, results.supply
    ran = replay.started
    wait = _waited_s(replay)[ran]
    recorded = recorded_figures(replay.workload)
    rows = _tenant_rows(results)
    position = np.full(int(replay.tenant.max(initial=0)) + 1, -1, dtype=np.int64)
    for index, (_, tenant) in enumerate(rows):
        position[tenant] = index
    ended = np.where(waits.until_s < 0, replay.last_end_s, waits.until_s)
    waited = np.maximum(ended - waits.from_s, 0)
    return ReportContent(
        title=f"{replay.workload.source} on {replay.fleet.name}",
        command=command,
        seed=seed,
        version=__version__,
        policy=replay.policy.name,
        fleet=replay.fleet.name,
        workload_source=replay.workload.source,
        workload_synthetic=replay.workload.synthetic,
        workload_notes=replay.workload.notes,
        supply_source=results.factors.source,
        supply_synthetic=supply.synthetic,
        supply_aligned_from_year=supply.aligned_from_year,
        supply_notes=supply.notes,
        jobs=len(replay.workload),
        jobs_started=int(ran.sum()),
        wait_p50_s=_quantile(wait, 0.5),
        wait_p99_s=_quantile(wait, 0.99),
        recorded_wait_p50_s=None if recorded is None else recorded["wait_p50_s"],
        first_hour_s=results.first_hour_s,
        site_names=tuple(site.name for site in replay.fleet.sites),
        site_wh=books.site_wh,
        supply_wh=books.supply_wh,
        busy_gpu_milli_s=books.busy_gpu_milli_s,
        open_gpu_milli_s=books.open_gpu_milli_s,
        waits_by_size=waits_by_size(wait, replay.workload.gpu_milli()[ran]),
        waits_by_tenant=wait_rows(wait, position[replay.tenant[ran]], [row.label for row, _ in rows]),
        sites=tuple(_site_rows(results)),
        tenants=tuple(row for row, _ in rows),
        reasons=tuple(
            ReasonRow(f"{SENTENCE[Reason(int(code))]}", int(waited[waits.reason == code].sum()))
            for code in np.unique(waits.reason)
        ),
    )
