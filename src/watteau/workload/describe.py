"""What a workload is like: counts, GPU-hours and quantiles."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from watteau.domain.jobs import NO_LIMIT_S, Workload
from watteau.domain.units import GPU_MILLI, HOUR_S, from_epoch_s

#: The quantiles that are given, by their key.
QUANTILES: dict[str, float] = {
    "p1": 0.01,
    "p5": 0.05,
    "p10": 0.10,
    "p25": 0.25,
    "p50": 0.50,
    "p75": 0.75,
    "p90": 0.90,
    "p95": 0.95,
    "p99": 0.99,
    "p99.9": 0.999,
}
#: Size classes by the largest number of GPUs in each, in thousandths.
_SIZE_CLASSES: tuple[tuple[str, int], ...] = (
    ("0", 0),
    ("<1", GPU_MILLI - 1),
    ("1", GPU_MILLI),
    ("2-4", 4 * GPU_MILLI),
    ("5-8", 8 * GPU_MILLI),
    ("9-16", 16 * GPU_MILLI),
    ("17-64", 64 * GPU_MILLI),
    ("65-512", 512 * GPU_MILLI),
    (">512", np.iinfo(np.int64).max),
)


def describe(workload: Workload) -> dict[str, Any]:
    """Figures of a workload, ready for JSON; None where there is nothing to measure.

    `span_s` goes from the first to the last submit. `offered_gpus_mean` is served GPU-seconds over that span: the
    fleet that the workload would keep full. Served time ends at the limit. Shares are of jobs, from 0 to 1, and
    `gpu_hours_share` of GPU-hours. `accounts` are the tenants up to their first slash, the largest first; `gpu_models`
    are of the jobs that hold GPUs, None where any will do; `waited_s` is what jobs waited where they really ran.
    """
    jobs = len(workload)
    gpu_milli, served_s = workload.gpu_milli(), workload.served_s()
    gpu_s = served_s * (gpu_milli / GPU_MILLI)
    total_gpu_s = float(gpu_s.sum())
    span_s = int(workload.submit_s[-1] - workload.submit_s[0]) if jobs else 0
    killed = workload.killed()
    ran = workload.runtime_s > 0
    return {
        "source": workload.source,
        "synthetic": workload.synthetic,
        "jobs": jobs,
        "shapes": len(workload.shapes),
        "tenants": len(workload.tenants),
        "jobs_without_tenant": int(np.count_nonzero(workload.tenant < 0)),
        "jobs_without_limit": int(np.count_nonzero(workload.limit_s == NO_LIMIT_S)),
        "jobs_killed_by_limit": int(np.count_nonzero(killed)),
        "first_submit_s": int(workload.submit_s[0]) if jobs else None,
        "first_submit_utc": _utc(workload, 0),
        "last_submit_utc": _utc(workload, -1),
        "span_s": span_s,
        "gpu_hours": total_gpu_s / HOUR_S,
        "offered_gpus_mean": total_gpu_s / span_s if span_s else None,
        "runtime_s": _quantiles(workload.runtime_s),
        "gpus": _quantiles(gpu_milli / GPU_MILLI),
        "waited_s": None if workload.waited_s is None else _quantiles(workload.waited_s),
        "interarrival_s": _quantiles(np.diff(workload.submit_s)),
        "estimate_over_runtime": _quantiles(workload.estimate_s[ran] / workload.runtime_s[ran]),
        "sizes": _sizes(gpu_milli, gpu_s),
        "gpu_models": _gpu_models(workload, gpu_s),
        "accounts": _accounts(workload, gpu_s),
        "priority_classes": _priority_classes(workload),
        "notes": list(workload.notes),
    }


def _quantiles(values: NDArray[Any]) -> dict[str, float] | None:
    if not len(values):
        return None
    found = np.quantile(values, list(QUANTILES.values()))
    return {"mean": float(values.mean()), "max": float(values.max())} | {
        name: float(value) for name, value in zip(QUANTILES, found, strict=True)
    }


def _sizes(gpu_milli: NDArray[np.int64], gpu_s: NDArray[np.float64]) -> list[dict[str, Any]]:
    index = np.searchsorted(np.array([largest for _, largest in _SIZE_CLASSES]), gpu_milli)
    jobs = np.bincount(index, minlength=len(_SIZE_CLASSES))
    held_s = np.bincount(index, weights=gpu_s, minlength=len(_SIZE_CLASSES))
    total_s = float(held_s.sum())
    return [
        {
            "gpus": name,
            "jobs": int(count),
            "share": float(count / len(gpu_milli)),
            "gpu_hours_share": float(held / total_s) if total_s else None,
        }
        for (name, _), count, held in zip(_SIZE_CLASSES, jobs, held_s, strict=True)
        if count
    ]


def _priority_classes(workload: Workload) -> list[dict[str, Any]]:
    classes, counts = np.unique(workload.priority_class, return_counts=True)
    return [
        {"priority_class": int(number), "jobs": int(count), "share": float(count / len(workload))}
        for number, count in zip(classes, counts, strict=True)
    ]


def _utc(workload: Workload, row: int) -> str | None:
    if workload.zero_s is None or not len(workload):
        return None
    return from_epoch_s(workload.zero_s + int(workload.submit_s[row])).isoformat()


def _gpu_models(workload: Workload, gpu_s: NDArray[np.float64]) -> list[dict[str, Any]]:
    names = [" or ".join(shape.gpu_models) or None for shape in workload.shapes]
    holds = np.array([shape.gpu_milli > 0 for shape in workload.shapes] or [False])[workload.shape]
    return [{"gpu_model": name, **figures} for name, figures, _ in _groups(names, workload.shape[holds], gpu_s[holds])]


def _accounts(workload: Workload, gpu_s: NDArray[np.float64]) -> list[dict[str, Any]]:
    names = [name.partition("/")[0] for name in workload.tenants] + [None]  # -1, not known, is the last entry
    return [
        {"account": name, "tenants": tenants, **figures}
        for name, figures, tenants in _groups(names, workload.tenant % len(names), gpu_s)
    ]


def _groups(
    names: Sequence[str | None], index: NDArray[Any], gpu_s: NDArray[np.float64]
) -> list[tuple[str | None, dict[str, Any], int]]:
    """(name, figures, how many of its indices have jobs) of the jobs whose indices have that name, largest first."""
    jobs = np.bincount(index, minlength=len(names))
    held_s = np.bincount(index, weights=gpu_s, minlength=len(names))
    all_jobs, all_s = int(jobs.sum()), float(held_s.sum())
    members_of: dict[str | None, list[int]] = {}
    for at in np.flatnonzero(jobs).tolist():
        members_of.setdefault(names[at], []).append(at)
    rows = []
    for name, members in members_of.items():
        count, hold_s = int(jobs[members].sum()), float(held_s[members].sum())
        figures = {
            "jobs": count,
            "share": count / all_jobs if all_jobs else None,
            "gpu_hours": hold_s / HOUR_S,
            "gpu_hours_share": hold_s / all_s if all_s else None,
        }
        rows.append((name, figures, len(members)))
    return sorted(rows, key=lambda row: (-row[1]["gpu_hours"], -row[1]["jobs"], row[0] or ""))
