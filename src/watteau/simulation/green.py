"""Work that follows the wind, in simulation: which jobs are flexible, and an envelope anew for each hour.

What the planner knows is what a live system would: the arrays of the core, the load of past weeks, and a forecast of
the supply. It never sees a job before it arrives, nor a run time but the estimate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from watteau.core.bits import kernel
from watteau.core.layout import State
from watteau.core.state import Outlook, set_envelope
from watteau.domain.jobs import Workload
from watteau.domain.units import DAY_S, HOUR_S, Float64Array, Int64Array
from watteau.energy.envelope import Work, solve_envelope
from watteau.energy.supply import SupplySeries
from watteau.simulation.clock import running_on

#: The supply in Wh that is foreseen for so many hours from an hour on, as it is foreseen at that hour.
Foreseen = Callable[[int, int], Int64Array]

_MW = 1e9  # of milliwatts
_WEEK_H = 7 * 24
#: Gangs do not fit into the last few free GPUs; a plan that fills them all is one that the gate cannot follow.
_FILLED = 0.97
#: A job enters the queue so long before its latest start, or a quarter of its slack: it may have to wait there.
_RESERVE_S = HOUR_S


@dataclass(frozen=True, slots=True)
class Green:
    """What may wait, and what is foreseen."""

    flexible: np.ndarray  # bool [job]
    slack_s: int  # from submission to the latest start
    foreseen: Foreseen
    forecast: str = "perfect"  # what `foreseen` is called where figures are shown

    @property
    def hours(self) -> int:
        """The horizon: the slack, and a day more."""
        return max(72, self.slack_s // HOUR_S + 24)

    def due_s(self, submit_s: Int64Array) -> Int64Array:
        """[job] until when the gate may hold each job; 0: it is not flexible."""
        reserve_s = min(_RESERVE_S, self.slack_s // 4)
        return np.where(self.flexible, submit_s + self.slack_s - reserve_s, 0)


def flexible_jobs(workload: Workload, share: float, seed: int) -> np.ndarray:
    """bool [job] so large a part of the jobs, drawn; of the work it is about the same part."""
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0x6EEE])))
    drawn: np.ndarray = random.random(len(workload)) < share
    return drawn


def perfect(supply: SupplySeries) -> Foreseen:
    """The supply as it will be: what no forecast can beat. After its end there is none."""

    def foreseen(hour_s: int, hours: int) -> Int64Array:
        return _hours_of(supply, hour_s, hours)

    return foreseen


def as_yesterday(supply: SupplySeries) -> Foreseen:
    """Each hour as the same hour of the last day that is over: what costs nothing, and what a forecast must beat."""

    def foreseen(hour_s: int, hours: int) -> Int64Array:
        day = _hours_of(supply, hour_s - DAY_S, 24)
        return np.resize(day, hours)

    return foreseen


def _hours_of(supply: SupplySeries, hour_s: int, hours: int) -> Int64Array:
    wanted = (hour_s - supply.first_hour_s) // HOUR_S + np.arange(hours)
    inside = (wanted >= 0) & (wanted < supply.hours)
    result: Int64Array = np.where(inside, supply.renewable_wh[np.clip(wanted, 0, supply.hours - 1)], 0)
    return result


class Arrivals:
    """Flexible work by the hour in which it arrived; of hours to come nothing is told."""

    def __init__(self, submit_s: Int64Array, energy_mwh: Float64Array, first_hour_s: int) -> None:
        self._first_hour_s = first_hour_s
        hour = (submit_s - first_hour_s) // HOUR_S
        self._mwh = np.bincount(hour, weights=energy_mwh) if len(hour) else np.zeros(1)

    def mean_mwh(self, hour_s: int) -> float:
        """What arrived in an hour on average, in the week before this one."""
        now = (hour_s - self._first_hour_s) // HOUR_S
        past = self._mwh[max(0, now - _WEEK_H) : max(0, now)]
        return float(past.mean()) if len(past) else 0.0


class Planner:
    """Makes the envelope of each hour, and counts what came of it."""

    def __init__(self, green: Green, pue: Float64Array, first_hour_s: int, arrivals: Arrivals) -> None:
        self._green = green
        self._arrivals = arrivals
        self._pue = pue
        self._first_hour_s = first_hour_s
        self._profile = np.zeros((pue.shape[0], _WEEK_H))  # inflexible busy power by hour of the week, last seen
        self._seen = np.zeros(_WEEK_H, dtype=bool)
        self.solves = 0
        self.unusable = 0
        self.solve_s = 0.0
        self.late_mwh = 0.0

    def plan(self, state: State, hour_s: int) -> None:
        """Give the core its envelope for the hour that begins, and for those after it."""
        hours = self._green.hours
        sites = len(state.sites)
        committed = np.zeros((sites, hours))
        arrived, due = np.zeros(hours), np.zeros(hours)
        everywhere = np.ones(len(state.nodes), dtype=np.bool_)
        inflexible = np.zeros(sites)
        room = np.zeros(sites)
        _survey(state, running_on(state, everywhere), hour_s, committed, arrived, due, inflexible, room)
        base = self._inflexible(inflexible / _MW, hour_s)
        idle = (state.sites["idle_mw"] / _MW)[:, None]
        committed /= _MW
        at = (hour_s - self._first_hour_s) // HOUR_S + np.arange(hours)
        pue = self._pue[:, np.minimum(at, self._pue.shape[1] - 1)]
        limit = state.limit_mw[:, np.minimum(at, state.limit_mw.shape[1] - 1)] / _MW
        busy = base + committed
        free = np.minimum(_FILLED * (room / _MW)[:, None] - busy, limit - idle - busy)
        coming = self._arrivals.mean_mwh(hour_s)
        work = Work(
            (np.cumsum(arrived) / _MW + coming * np.arange(hours))[None, :],
            (np.cumsum(due) / _MW + coming * np.maximum(0, np.arange(hours) - self._green.slack_s // HOUR_S))[None, :],
            np.ones((1, sites), dtype=np.bool_),
        )
        supply = self._green.foreseen(hour_s, hours) / 1e6
        found = solve_envelope(supply, idle + busy, pue, free, work)
        self.solves += 1
        self.solve_s += found.solve_s
        self.late_mwh += found.late_mwh
        if found.usable:
            green = np.maximum(committed + found.flexible_mw, 0.0)
            set_envelope(state, hour_s, np.rint(green * _MW).astype(np.int64))
        else:  # G3
            self.unusable += 1
            set_envelope(state, hour_s, None)

    def _inflexible(self, now_mw: Float64Array, hour_s: int) -> Float64Array:
        """[site, hour] busy power of what cannot wait: as now, and as it moved a week ago where that is known."""
        hour = hour_s // HOUR_S % _WEEK_H
        ahead = (hour + np.arange(self._green.hours)) % _WEEK_H
        moved = np.where(self._seen[ahead] & self._seen[hour], self._profile[:, ahead] - self._profile[:, [hour]], 0.0)
        # The further ahead, the less what is seen now says: in a day it is worth a third.
        fades = np.exp(-np.arange(self._green.hours) * HOUR_S / DAY_S)
        mean = self._profile[:, self._seen].mean(axis=1) if self._seen.any() else now_mw
        known = np.where(self._seen[ahead], self._profile[:, ahead], mean[:, None])
        foreseen = fades * (now_mw[:, None] + moved) + (1 - fades) * known
        self._profile[:, hour], self._seen[hour] = now_mw, True
        result: Float64Array = np.maximum(foreseen, 0.0)
        return result


def planner_of(green: Green, state: State, outlook: Outlook, zero_s: int) -> Planner:
    """A planner for jobs whose rows are filled."""
    jobs = state.jobs
    rows = np.flatnonzero(jobs["due_s"] > 0)
    power_mw = state.shapes["total_milli"][jobs["shape"][rows]] * state.pools["busy_mw_per_milli"].max(initial=0) / _MW
    energy_mwh = power_mw * jobs["estimate_s"][rows] / HOUR_S
    first_hour_s = zero_s // HOUR_S * HOUR_S
    return Planner(green, outlook.pue, first_hour_s, Arrivals(jobs["submit_s"][rows], energy_mwh, first_hour_s))


@kernel
def _survey(s, running, now, committed, arrived, due, inflexible, room):  # type: ignore[no-untyped-def]
    """Energy in mWh by hour: of what runs [site, hour], and the fastest and the slowest course of what may wait.

    Busy power of what cannot wait, and of all GPUs that are open, by site, in mW.
    """
    for n in range(len(s.nodes)):
        pool = s.pools[s.nodes[n].pool]
        if s.nodes[n].up:
            room[pool.site] += 1000 * pool.gpus * pool.busy_mw_per_milli
    for i in range(len(running)):
        row = s.jobs[running[i]]
        pool = s.pools[row.pool]
        power = s.shapes[row.shape].total_milli * pool.busy_mw_per_milli
        if row.due_s > 0:
            _spread(committed[pool.site], 0, max(row.start_s + row.estimate_s - now, 60), power)
        else:
            inflexible[pool.site] += power
    for i in range(s.cycle[0].gated):
        _add_waiting(s, s.gate[i], now, arrived, due)
    for at in range(s.cycle[0].queue_head, s.cycle[0].queue_tail):
        if s.queue[at].shape >= 0 and s.jobs[s.queue[at].job].due_s > 0:
            _add_waiting(s, s.queue[at].job, now, arrived, due)


@kernel
def _add_waiting(s, job, now, arrived, due):  # type: ignore[no-untyped-def]
    row = s.jobs[job]
    power = 0
    for p in range(len(s.pools)):
        if s.shape_pools[row.shape, p]:
            power = max(power, s.shapes[row.shape].total_milli * s.pools[p].busy_mw_per_milli)
    # The gate lets power go and not energy: a shorter job takes its room for the hour, and what follows it the rest.
    lasts_s = max(row.estimate_s, 3_600)
    latest_s = max(0, row.due_s - now)
    _spread(arrived, 0, lasts_s, power)
    _spread(due, latest_s, latest_s + lasts_s, power)


@kernel
def _spread(by_hour, first_s, last_s, power):  # type: ignore[no-untyped-def]
    """Add power over [first, last) seconds from the first hour's beginning on, as energy in each hour."""
    hour = first_s // 3_600
    while hour < len(by_hour) and hour * 3_600 < last_s:
        seconds = min(last_s, (hour + 1) * 3_600) - max(first_s, hour * 3_600)
        by_hour[hour] += power * seconds / 3_600
        hour += 1
