"""Work that follows the wind, in simulation: which jobs are flexible, and an envelope anew for each hour.

What the planner knows is what a live system would: the arrays of the core, the load of past weeks, and a forecast of
the supply. It never sees a job before it arrives, nor how long it runs before it has ended. People ask for several
times what their jobs need, so what is expected of a job is what came of such estimates before (`RunTimes`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from watteau.core import layout
from watteau.core.bits import kernel
from watteau.core.layout import State
from watteau.core.place import most_mw
from watteau.core.state import Outlook, set_envelope
from watteau.domain.fleet import Contract
from watteau.domain.jobs import Workload
from watteau.domain.units import DAY_S, HOUR_S, Float64Array, Int64Array
from watteau.energy.envelope import Work, solve_envelope
from watteau.energy.forecast import FromMeasured, Method, aligned
from watteau.energy.supply import CapacityFactors, SupplySeries, supply_wh
from watteau.simulation.clock import running_on

#: The supply in Wh that is foreseen for so many hours from an hour on, as it is foreseen at that hour.
Foreseen = Callable[[int, int], Int64Array]

_MW = 1e9  # of milliwatts
_WEEK_H = 7 * 24
#: An estimate is cut into so many parts; who lasts longer lasts to its end.
_PARTS = 64
#: Until jobs have ended, estimates are believed, as if so many average jobs had lasted as long as theirs.
_BELIEVED = 20
#: Measured hours before the first one, for methods that look back.
_KNOWN_H = 8 * 24
#: Gangs do not fit into the last few free GPUs; a plan that fills them all is one that the gate cannot follow.
_FILLED = 0.97
#: A job enters the queue so long before its latest start, or a quarter of its slack: it may have to wait there.
_RESERVE_S = 2 * HOUR_S


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


def as_forecast(
    method: Method, contracts: Sequence[Contract], weather: CapacityFactors, first_hour_s: int, hours: int
) -> Foreseen:
    """What the contracts are expected to deliver, by a method that sees what was measured before each hour (F1).

    `weather` is that of the simulated hours, by hour of the year where it is of other years. Raises InputError where it
    covers neither them nor a whole year.
    """
    measured = aligned(weather, first_hour_s - _KNOWN_H * HOUR_S, _KNOWN_H + hours)
    forecaster = FromMeasured(method, measured)

    def foreseen(hour_s: int, hours: int) -> Int64Array:
        said = forecaster.forecast(hour_s, hours)
        factors = CapacityFactors(said.source, measured.synthetic, hour_s, hours, said.values)
        return supply_wh(contracts, factors, hour_s, hours).renewable_wh

    return foreseen


def _hours_of(supply: SupplySeries, hour_s: int, hours: int) -> Int64Array:
    wanted = (hour_s - supply.first_hour_s) // HOUR_S + np.arange(hours)
    inside = (wanted >= 0) & (wanted < supply.hours)
    result: Int64Array = np.where(inside, supply.renewable_wh[np.clip(wanted, 0, supply.hours - 1)], 0)
    return result


class Arrivals:
    """Power of flexible work by the hour in which it arrived; of hours to come nothing is told."""

    def __init__(self, submit_s: Int64Array, power_mw: Float64Array, first_hour_s: int) -> None:
        self._first_hour_s = first_hour_s
        hour = (submit_s - first_hour_s) // HOUR_S
        self._mw = np.bincount(hour, weights=power_mw) if len(hour) else np.zeros(1)

    def mean_mw(self, hour_s: int) -> float:
        """What arrived in an hour on average, in the week before this one."""
        now = (hour_s - self._first_hour_s) // HOUR_S
        past = self._mw[max(0, now - _WEEK_H) : max(0, now)]
        return float(past.mean()) if len(past) else 0.0


class RunTimes:
    """How long jobs run beside their estimates, by those that have ended, each weighed by what it had asked for.

    Of jobs that still run it is known that they have lasted so long (the product-limit estimator; Kaplan and Meier, J.
    Am. Stat. Assoc. 1958): those that have ended so far were short.
    """

    def __init__(self, weight: Float64Array) -> None:
        """`weight`: [row] what each job asks for, in any unit of energy; rows are sorted by submission."""
        self._weight = weight
        self._ended = np.zeros(_PARTS + 1)  # weight of those that ended in each part
        self._ended[_PARTS] = _BELIEVED * weight.mean() if len(weight) else 1.0
        self._known = 0
        self._open = np.zeros(0, dtype=np.int64)

    def learn(self, jobs: np.ndarray, now: int) -> Float64Array:
        """[2, part + 1] the part of jobs that still run after each part of the estimate, and its integral."""
        known = int(np.searchsorted(jobs["submit_s"], now))
        rows = np.concatenate([self._open, np.arange(self._known, known)])
        self._known = known
        state = jobs["state"][rows]
        over, runs = rows[state == layout.ENDED], rows[state == layout.RUNNING]
        self._open = rows[(state != layout.ENDED) & (state != layout.ABSENT) & (state != layout.REJECTED)]
        self._ended += self._by_part(jobs, over, jobs["end_s"][over])
        running = self._by_part(jobs, runs, np.full(len(runs), now))
        at_risk = (self._ended + running)[::-1].cumsum()[::-1]
        share = np.divide(self._ended, at_risk, out=np.zeros(_PARTS + 1), where=at_risk > 0)
        alive = np.concatenate([[1.0], np.cumprod(1 - share)[:-1]])
        lasted = np.concatenate([[0.0], np.cumsum((alive[:-1] + alive[1:]) / 2) / _PARTS])
        return np.stack([alive, lasted])

    def _by_part(self, jobs: np.ndarray, rows: Int64Array, until_s: Int64Array) -> Float64Array:
        ran_s, estimate_s = until_s - jobs["start_s"][rows], np.maximum(jobs["estimate_s"][rows], 1)
        part = np.clip(_PARTS * ran_s // estimate_s, 0, _PARTS)
        return np.asarray(np.bincount(part, self._weight[rows], _PARTS + 1), dtype=np.float64)


class Planner:
    """Makes the envelope of each hour, and counts what came of it."""

    def __init__(
        self, green: Green, pue: Float64Array, first_hour_s: int, arrivals: Arrivals, run_times: RunTimes
    ) -> None:
        self._green = green
        self._arrivals = arrivals
        self._run_times = run_times
        self._pue = pue
        self._first_hour_s = first_hour_s
        self._profile = np.zeros((pue.shape[0], _WEEK_H))  # inflexible busy power by hour of the week, last seen
        self._seen = np.zeros(_WEEK_H, dtype=bool)
        self._profile_of_work = np.ones(1)  # [hour since the start] part of the power of flexible work, last seen
        self.solves = 0
        self.unusable = 0
        self.solve_s = 0.0
        self.late_mw = 0.0

    def plan(self, state: State, hour_s: int) -> None:
        """Give the core its envelope for the hour that begins, and for those after it."""
        hours = self._green.hours
        sites = len(state.sites)
        committed = np.zeros((sites, hours))
        course, due = np.zeros(2 * hours), np.zeros(hours)
        everywhere = np.ones(len(state.nodes), dtype=np.bool_)
        inflexible = np.zeros(sites)
        room = np.zeros(sites)
        lasts = self._run_times.learn(state.jobs, hour_s)
        _survey(state, running_on(state, everywhere), hour_s, lasts, committed, course, due, inflexible, room)
        base = self._inflexible(inflexible / _MW, hour_s)
        idle = (state.sites["idle_mw"] / _MW)[:, None]
        committed /= _MW
        at = (hour_s - self._first_hour_s) // HOUR_S + np.arange(hours)
        pue = self._pue[:, np.minimum(at, self._pue.shape[1] - 1)]
        limit = state.limit_mw[:, np.minimum(at, state.limit_mw.shape[1] - 1)] / _MW
        busy = base + committed
        free = np.minimum(_FILLED * (room / _MW)[:, None] - busy, limit - idle - busy)
        waiting_mw = 0.0
        if course.any():
            waiting_mw, self._profile_of_work = course[0] / _MW, np.minimum(course[1:] / course[0], 1.0)
        coming_mw = self._arrivals.mean_mw(hour_s)
        ahead = np.arange(hours)
        work = Work(
            np.asarray(waiting_mw + coming_mw * ahead, dtype=np.float64)[None, :],
            (np.cumsum(due) / _MW + coming_mw * np.maximum(0, ahead - self._green.slack_s // HOUR_S))[None, :],
            np.ones((1, sites), dtype=np.bool_),
            self._profile_of_work[None, :],
        )
        supply = self._green.foreseen(hour_s, hours) / 1e6
        found = solve_envelope(supply, idle + busy, pue, free, work)
        self.solves += 1
        self.solve_s += found.solve_s
        self.late_mw += found.late_mw
        if found.usable:
            more_mw = found.flexible_mw
            first_mw, first_mwh = _first(state, lasts)
            # The programme divides jobs. Where it would run most of the first one in this hour, that one may go whole.
            wanted = more_mw[:, 0] * _MW >= first_mwh / 2
            more_mw[:, 0] = np.where(wanted, np.maximum(more_mw[:, 0], first_mw / _MW), more_mw[:, 0])
            green = np.maximum(committed + more_mw, 0.0)
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
    power_mw = state.shapes["total_milli"][jobs["shape"]] * state.pools["busy_mw_per_milli"].max(initial=0) / _MW
    energy_mwh = power_mw * jobs["estimate_s"] / HOUR_S
    first_hour_s = zero_s // HOUR_S * HOUR_S
    flexible = np.flatnonzero(jobs["due_s"] > 0)
    arrivals = Arrivals(jobs["submit_s"][flexible], power_mw[flexible], first_hour_s)
    return Planner(green, outlook.pue, first_hour_s, arrivals, RunTimes(energy_mwh))


@kernel
def _survey(s, running, now, lasts, committed, course, due, inflexible, room):  # type: ignore[no-untyped-def]
    """Energy in mWh by hour: of what runs [site, hour], and of all that may wait, were it started now, after its power.

    Power in mW: of what may wait by the hour of its latest start; of what cannot wait and of all open GPUs by site.
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
            _spread(committed[pool.site], 0, now - row.start_s, row.estimate_s, lasts, power)
        else:
            inflexible[pool.site] += power
    for i in range(s.cycle[0].gated):
        _add_waiting(s, s.gate[i], now, lasts, course, due)
    for at in range(s.cycle[0].queue_head, s.cycle[0].queue_tail):
        if s.queue[at].shape >= 0 and s.jobs[s.queue[at].job].due_s > 0:
            _add_waiting(s, s.queue[at].job, now, lasts, course, due)


@kernel
def _first(s, lasts):  # type: ignore[no-untyped-def]
    """Power of the job that goes next and its energy in an hour, in mW and mWh; no job needs more than none."""
    if s.cycle[0].gated == 0:
        return 0, 1e300
    row = s.jobs[s.gate[0]]
    power = most_mw(s, row.shape)
    in_hour = np.zeros(1)
    _spread(in_hour, 0, 0, row.estimate_s, lasts, power)
    return power, in_hour[0]


@kernel
def _add_waiting(s, job, now, lasts, course, due):  # type: ignore[no-untyped-def]
    row = s.jobs[job]
    power = most_mw(s, row.shape)
    course[0] += power
    _spread(course[1:], 0, 0, row.estimate_s, lasts, power)
    latest = max(0, row.due_s - now) // 3_600
    if latest < len(due):
        due[latest] += power


@kernel
def _spread(by_hour, begins_s, ran_s, estimate_s, lasts, power):  # type: ignore[no-untyped-def]
    """Add what is expected of a job that has run for some time when it begins (or goes on), as energy in each hour."""
    alive = _at(lasts[0], ran_s, estimate_s)
    if alive <= 0.0:  # longer than any before: it is expected to end soon
        by_hour[0] += power / 2
        return
    before = _at(lasts[1], ran_s, estimate_s)
    hour = begins_s // 3_600
    while hour < len(by_hour) and ran_s < estimate_s:
        ran_s += (hour + 1) * 3_600 - max(begins_s, hour * 3_600)
        by_then = _at(lasts[1], ran_s, estimate_s)
        by_hour[hour] += power * (by_then - before) * estimate_s / 3_600 / alive
        before = by_then
        hour += 1


@kernel
def _at(table, ran_s, estimate_s):  # type: ignore[no-untyped-def]
    """The table at a part of the estimate, straight between its entries; beyond it its last entry."""
    at = _PARTS * min(1.0, ran_s / max(1, estimate_s))
    below = min(_PARTS - 1, int(at))
    return table[below] + (at - below) * (table[below + 1] - table[below])
