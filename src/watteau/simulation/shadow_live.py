"""The decisions in shadow as they were made, beside when the site's own scheduler started the same jobs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from watteau.domain.sites import ShadowDecision, SiteJob
from watteau.domain.units import (
    HOUR_S,
    Float64Array,
    Int64Array,
)
from watteau.simulation.bootstrap import block_length, resample
from watteau.simulation.shadow_figures import LEAST_JOBS, Estimate, short_step_s
from watteau.simulation.shadow_load import HOURLY_FROM_S, Window

#: Two starts this near are the same moment: a site is looked at every few seconds.
SAME_MOMENT_S = 10


@dataclass(frozen=True, slots=True)
class Agreement:
    """The live decisions beside the site's starts, of jobs that came while decisions were being made."""

    since_s: int | None  # the first decision in the window; None: there is none
    jobs: int = 0
    earlier: int = 0  # Watteau decided the start more than SAME_MOMENT_S before the site made it
    same: int = 0
    site_first: int = 0  # the site had started it before a decision was made
    still_waiting: int = 0  # decided, and the site has not started it
    cancelled: int = 0  # decided, and it never started
    lead_s: Estimate = field(default_factory=lambda: Estimate(None))  # median of site's start less decision


def agreement_of(jobs: Sequence[SiteJob], decisions: Sequence[ShadowDecision], window: Window, seed: int) -> Agreement:
    """What the decisions on jobs of the window came to. Jobs count from the first one on: before, nobody decided."""
    inside = [its for its in decisions if window.since_s <= its.submitted_ms // 1_000 < window.until_s]
    if not inside:
        return Agreement(None)
    since_ms = min(its.decided_ms for its in inside)
    started = first_starts(jobs)
    ended = {key for key, group in _by_key(jobs).items() if all(job.state.is_end for job in group)}
    leads: list[tuple[int, int]] = []  # (submission, lead)
    found = Counter[str]()
    decided = set()
    for its in inside:
        key = its.engine_id, its.submitted_ms
        decided.add(key)
        if key in started:
            lead_s = (started[key] - its.decided_ms) / 1_000
            leads.append((its.submitted_ms // 1_000, round(lead_s)))
            found["earlier" if lead_s > SAME_MOMENT_S else "same" if lead_s >= -SAME_MOMENT_S else "site_first"] += 1
        elif key in ended:
            found["cancelled"] += 1
        else:
            found["still_waiting"] += 1
    for job in jobs:
        key, array = job.key, (job.array_id, job.submitted_ms)
        if (
            since_ms <= job.submitted_ms < 1_000 * window.until_s
            and job.started_ms is not None
            and not {key, array} & decided
        ):
            found["site_first"] += 1
    return Agreement(
        since_s=since_ms // 1_000,
        jobs=sum(found.values()),
        earlier=found["earlier"],
        same=found["same"],
        site_first=found["site_first"],
        still_waiting=found["still_waiting"],
        cancelled=found["cancelled"],
        lead_s=_median_lead(leads, window, seed),
    )


def _by_key(jobs: Sequence[SiteJob]) -> dict[tuple[str, int], list[SiteJob]]:
    """Jobs by their own key, and the tasks of an array by the array's as well."""
    found: dict[tuple[str, int], list[SiteJob]] = {}
    for job in jobs:
        for engine_id in {job.engine_id, job.array_id}:
            found.setdefault((engine_id, job.submitted_ms), []).append(job)
    return found


def first_starts(jobs: Sequence[SiteJob]) -> dict[tuple[str, int], int]:
    """When each job started, in epoch milliseconds; of an array, under its own id, its first task."""
    starts = {
        key: [job.started_ms for job in group if job.started_ms is not None] for key, group in _by_key(jobs).items()
    }
    return {key: min(its) for key, its in starts.items() if its}


def _median_lead(leads: Sequence[tuple[int, int]], window: Window, seed: int) -> Estimate:
    if not leads:
        return Estimate(None, None, "no job was both decided on and started")
    lead = np.array([lead for _, lead in leads], dtype=np.float64)
    if len(leads) < LEAST_JOBS:
        return Estimate(float(np.median(lead)), None, f"too few to tell: {len(leads)} jobs, {LEAST_JOBS} are needed")
    step_s = short_step_s(window) if window.until_s - window.since_s < HOURLY_FROM_S else HOUR_S
    pieces = -(-(window.until_s - window.since_s) // step_s)
    piece = (np.array([at for at, _ in leads], dtype=np.int64) - window.since_s) // step_s
    influence: Float64Array = np.bincount(piece, np.sign(lead - np.median(lead)), pieces).astype(np.float64)
    drawn = resample(pieces, min(pieces, block_length([influence])), seed)
    order = np.argsort(lead, kind="stable")

    def median(times: Int64Array) -> float | None:
        reached = np.cumsum(times[piece[order]])
        return float(lead[order][np.searchsorted(reached, max(1, -(-reached[-1] // 2)))]) if reached[-1] else None

    interval = drawn.interval(median)
    return Estimate(
        float(np.median(lead)), interval, "" if interval else f"too few to tell: {drawn.blocks} blocks of time"
    )
