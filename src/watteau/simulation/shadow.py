"""What a site's own scheduler did with people's jobs, beside what Watteau would have done with the same jobs.

The counterfactual is a replay with the production core: the same arrivals (when the site's scheduler says that a job
might start), the same run times, limits and tenants, on the same nodes. docs/how-to/try-it-in-shadow.md says what that
can tell and what not. Both sides are measured in one window [since, until) and by the same code.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from watteau.domain.fleet import Fleet
from watteau.domain.policy import Policy
from watteau.domain.records import PastUse
from watteau.domain.sites import ShadowDecision, SiteJob, SiteNode
from watteau.domain.units import (
    HOUR_S,
    Float64Array,
    Int64Array,
    SiteId,
    from_epoch_s,
)
from watteau.energy.supply import CapacityFactors
from watteau.simulation.page import span_words
from watteau.simulation.replay import replay
from watteau.simulation.results import outlook_of
from watteau.simulation.shadow_figures import Books, Figure, Sample, books_of, figures_of, sample_of
from watteau.simulation.shadow_live import Agreement, agreement_of
from watteau.simulation.shadow_load import OwnRun, Window, aligned, as_seen, before, load_of

#: Room after the window for which hourly PUE is looked up; beyond it the last hour's holds.
_TAIL_HOURS = 60 * 24


@dataclass(frozen=True, slots=True)
class Series:
    """What the page draws. Shares by piece of time; waits of the compared jobs."""

    first_s: int
    step_s: int
    slurm_use: Float64Array  # [piece]
    watteau_use: Float64Array  # [piece]
    slurm_wait_s: Int64Array  # [job], in the jobs' order
    watteau_wait_s: Int64Array  # [job]
    first_hour_s: int
    load_wh: Int64Array  # [2, hour], the site's and Watteau's; no hour where energy was not compared
    matched_wh: Int64Array  # [2, hour]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that the report says."""

    site: SiteId
    site_name: str
    policy: str
    seed: int
    window: Window
    jobs: int  # compared by their waits
    resamples: int
    step_s: int  # of a piece of time
    block_s: int  # of the differences' blocks
    level_block_s: int  # of each side's own
    figures: tuple[Figure, ...]
    agreement: Agreement
    verdict: str
    notes: tuple[str, ...]  # what was left out, taken for something else, or is not known
    supply_source: str
    supply_synthetic: bool
    series: Series
    replay_s: float

    def figure(self, key: str) -> Figure:
        """A figure by its key."""
        return next(figure for figure in self.figures if figure.key == key)


def compare(
    fleet: Fleet,
    site_id: SiteId,
    policy: Policy,
    jobs: Iterable[SiteJob],
    nodes: Sequence[SiteNode],
    window: Window,
    *,
    own: Sequence[OwnRun] = (),
    decisions: Sequence[ShadowDecision] = (),
    past: PastUse | None = None,
    factors: CapacityFactors | None = None,
    seed: int = 0,
    show: Callable[[str], None] = lambda _what: None,
) -> Comparison:
    """Compare both over a window. `jobs`: all that ran in it or were submitted since, and those that wait.

    `past`: use before the window, for the order of tenants. Raises InputError when there is nothing to compare.
    """
    window = aligned(window)
    jobs = sorted(jobs, key=lambda job: (job.submitted_ms, len(job.engine_id), job.engine_id))
    notes: list[str] = []
    site = next(its for its in fleet.sites if its.id == site_id)
    alone = as_seen(fleet, site, jobs, nodes, window, notes)
    load = load_of(alone, site_id, jobs, nodes, own, window, notes)
    show("Replaying the window")
    first_hour_s = window.since_s // HOUR_S * HOUR_S
    outlook = outlook_of(alone, first_hour_s, (window.until_s - first_hour_s) // HOUR_S + _TAIL_HOURS, seed)
    happened = replay(
        alone, load.workload, policy, zero_s=window.since_s, outlook=outlook, past=before(past, load, window)
    )
    sample = sample_of(load, happened, window, notes)
    show("Keeping both books")
    books = books_of(fleet, alone, site, load, happened, window, outlook.pue, factors, seed, notes)
    show("Drawing resamples")
    figures, blocks, resamples = figures_of(sample, books, seed)
    return Comparison(
        site=site_id,
        site_name=site.name,
        policy=policy.name,
        seed=seed,
        window=window,
        jobs=len(sample.arrival_s),
        resamples=resamples,
        step_s=sample.step_s,
        block_s=blocks[0] * sample.step_s,
        level_block_s=blocks[1] * sample.step_s,
        figures=figures,
        agreement=agreement_of(jobs, decisions, window, seed),
        verdict=_verdict(site.name, figures, len(sample.arrival_s), window),
        notes=tuple(notes),
        supply_source=books.source,
        supply_synthetic=books.synthetic,
        series=_series(sample, books),
        replay_s=happened.wall_s,
    )


# --- words ------------------------------------------------------------------------------------------------------------


def _series(sample: Sample, books: Books) -> Series:
    there = np.maximum(sample.there_milli_s, 1)
    load = matched = np.zeros((2, 0), dtype=np.int64)
    first_hour_s = 0
    if books.sides is not None:
        first_hour_s = books.sides[0].first_hour_s
        load, matched = (
            np.stack(both) for both in zip(*((its.load_wh, its.matched_wh) for its in books.sides), strict=True)
        )
    return Series(
        first_s=sample.window.since_s,
        step_s=sample.step_s,
        slurm_use=sample.held_milli_s[0] / there,
        watteau_use=sample.held_milli_s[1] / there,
        slurm_wait_s=sample.wait_s[0],
        watteau_wait_s=sample.wait_s[1],
        first_hour_s=first_hour_s,
        load_wh=load,
        matched_wh=matched,
    )


def _verdict(name: str, figures: Sequence[Figure], jobs: int, window: Window) -> str:
    """In plain words: what would have changed, and whether the data can tell."""
    by_key = {figure.key: figure for figure in figures}
    days = f"{from_epoch_s(window.since_s):%Y-%m-%d %H:%M} to {from_epoch_s(window.until_s):%Y-%m-%d %H:%M} UTC"
    said = f"Had Watteau driven {name} from {days}, the {jobs:,} jobs that came "
    said += _change(by_key["wait_mean_s"], "would have waited", "as long on average", span_words)
    said += f" Of the GPUs, {_level(by_key['utilisation'])} would have been held"
    said += f"; of the energy, {_level(by_key['renewable_share'])} would have been renewable in its hour."
    return said


def _change(figure: Figure, verb: str, equal: str, words: Callable[[float], str]) -> str:
    value, interval = figure.difference.value or 0.0, figure.difference.interval
    less = f"{words(abs(value))} {'less' if value < 0 else 'more'} on average" if round(abs(value)) else equal
    if interval is None:
        return f"{verb} {less}; whether that is more than chance is not known ({figure.difference.why})."
    bounds = " and ".join(_signed(edge, words) for edge in (interval.low, interval.high))
    if interval.low <= 0 <= interval.high:
        return f"{verb} {less}, but the data cannot tell: with 95 % confidence it lies between {bounds}."
    return f"{verb} {less}, and the data can tell: with 95 % confidence it lies between {bounds}."


def _signed(value: float, words: Callable[[float], str]) -> str:
    return "no change" if not round(abs(value)) else f"{words(abs(value))} {'less' if value < 0 else 'more'}"


def _level(figure: Figure) -> str:
    ours, theirs = figure.watteau.value, figure.slurm.value
    if ours is None or theirs is None:
        return "an unknown share"
    told = figure.difference.interval
    sure = "" if told is None else " (the data can tell)" if not told.low <= 0 <= told.high else " (not told apart)"
    return f"{100 * ours:.1f} % instead of {100 * theirs:.1f} %{sure}"
