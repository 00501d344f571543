"""The envelope: how much flexible work each site should run in each hour, by a linear programme over the next days.

    min  sum_s,t price[s,t] pue[s,t] x[s,t] - sum_t price[t] m[t] + what runs on behind the horizon
         + DELAY sum t y[k,s,t] + LATE sum z[k,t]
    s.t. x[s,t] = sum over k, tau <= t of profile[k,t-tau] y[k,s,tau]   what was started runs on;
         m[t] <= supply[t]                                              what is matched is supplied in that hour,
         m[t] <= sum_s pue[s,t] (base[s,t] + x[s,t])                    and drawn in it (books, B5);
         x[s,t] <= room[s,t]                                            free GPUs, and what the power limit leaves;
         due[k,t] - z[k,t] <= c[k,t] <= arrived[k,t]                    c[k,t] = sum over tau <= t, s of y[k,s,tau]

y is IT power in MW that is started in an hour, x what of it runs in each, so that a job that begins in a windy hour is
there in the calm ones after it. z is work that is started too late: it costs more than any energy, so that deadlines
win over green (G2). What is due behind the horizon may wait; what arrives later may be foreseen in `arrived`. Energy
behind the horizon costs what one more MWh costs on average in front of it, were flexible work done as it comes. Jobs
are not divisible and the programme divides them: it sets a limit, and the core's gate fills it with real jobs, the
earliest latest start first.

The aggregate of many jobs by their deadlines is that of virtual capacity curves (Radovanovic et al., Carbon-Aware
Computing for Datacenters, IEEE Trans. Power Systems 2023); the matching term is the hourly one of the books.
"""

from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np

from watteau.domain.units import BoolArray, Float64Array, Int64Array

#: Above any price of energy in EUR/MWh: a deadline is never missed to save money.
LATE = 1e5
#: In EUR/MWh for each hour of delay: of two hours that cost the same, the earlier one.
DELAY = 1e-3
_PRICE = 65.0


@dataclass(frozen=True, slots=True)
class Work:
    """Flexible work by class, as cumulative IT power in MW: what may have been started by the end of each hour."""

    arrived_mw: Float64Array  # [class, hour] what may have been started by then, non-decreasing
    due_mw: Float64Array  # [class, hour] what must have been started by then, non-decreasing, <= arrived
    may_run: BoolArray  # [class, site]
    profile: Float64Array  # [class, hour since the start] part of the power that is drawn then; beyond it none

    def __post_init__(self) -> None:
        if self.arrived_mw.shape != self.due_mw.shape:
            raise ValueError("arrived and due differ in shape")
        for name, curve in (("arrived", self.arrived_mw), ("due", self.due_mw)):
            if bool((np.diff(curve, axis=1, prepend=0.0) < -1e-9).any()):
                raise ValueError(f"{name} is cumulative: it never falls, and begins at 0 or above")
        if bool((self.due_mw > self.arrived_mw + 1e-9).any()):
            raise ValueError("work cannot be due before it has arrived")
        if bool(((self.profile < 0) | (self.profile > 1)).any()):
            raise ValueError("a profile is a part of the power: between 0 and 1")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What came of a solve. Where it is not `usable` nobody is held back, and `why` says what went wrong."""

    usable: bool
    why: str
    flexible_mw: Float64Array  # [site, hour], IT power of what is started from now on
    starts_mw: Float64Array  # [class, site, hour], IT power that is started
    matched_mwh: float  # in all hours, as foreseen
    late_mw: float  # what no plan starts in time; 0: every deadline is met
    late_mw_hours: float  # the same times how late it is
    solve_s: float


def solve_envelope(
    supply_mw: Float64Array,
    base_mw: Float64Array,
    pue: Float64Array,
    room_mw: Float64Array,
    work: Work,
    *,
    price: Float64Array | None = None,
    time_limit_s: float = 10.0,
) -> Envelope:
    """Solve for supply [hour], base load, PUE and room [site, hour] (IT MW), and price in EUR/MWh of unmatched energy.

    Without a price every site and hour costs the same. Raises ValueError on arrays that do not fit together.
    """
    sites, hours = base_mw.shape
    classes = len(work.may_run)
    starts = np.zeros((classes, sites, hours))
    if (supply_mw.shape, pue.shape, room_mw.shape) != ((hours,), (sites, hours), (sites, hours)):
        raise ValueError("supply, base load, PUE and room differ in sites or hours")
    if (work.arrived_mw.shape, work.may_run.shape, len(work.profile)) != ((classes, hours), (classes, sites), classes):
        raise ValueError("the work has other sites or hours than the load")
    cost = np.full((sites, hours), _PRICE) if price is None else price
    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("time_limit", time_limit_s)
    solver.passModel(_programme(supply_mw, base_mw, pue, np.maximum(room_mw, 0.0), work, cost))
    solver.run()
    status = solver.getModelStatus()
    nothing = np.zeros((sites, hours))
    if status != highspy.HighsModelStatus.kOptimal:
        why = f"the solver ended with: {solver.modelStatusToString(status)}"
        return Envelope(False, why, nothing, starts, 0.0, 0.0, 0.0, solver.getRunTime())
    found = np.array(solver.getSolution().col_value)
    y, x, m, _, z = _parts(found, classes, sites, hours)
    late = np.diff(z, axis=1, prepend=0.0).clip(min=0.0).sum()
    return Envelope(True, "", x, y, float(m.sum()), float(late), float(z.sum()), solver.getRunTime())


def _parts(columns: Any, classes: int, sites: int, hours: int) -> tuple[Any, Any, Any, Any, Any]:
    """y [class, site, hour], x [site, hour], m [hour], c [class, hour] and z [class, hour] of all columns."""
    ends = np.cumsum([classes * sites * hours, sites * hours, hours, classes * hours])
    y, x, m, c, z = np.split(columns, ends)
    by_class = (classes, hours)
    return y.reshape(classes, sites, hours), x.reshape(sites, hours), m, c.reshape(by_class), z.reshape(by_class)


def _tails(profile: Float64Array, hours: int) -> Float64Array:
    """[class, hour of the start] hours at full power that lie behind the horizon."""
    left = profile.sum(axis=1, keepdims=True) - np.concatenate(
        [np.zeros((len(profile), 1)), np.cumsum(profile, axis=1)], axis=1
    )  # [class, k]: after k hours
    after = np.minimum(hours - np.arange(hours), profile.shape[1])
    return np.asarray(np.maximum(left[:, after], 0.0), dtype=np.float64)


def _programme(
    supply_mw: Float64Array,
    base_mw: Float64Array,
    pue: Float64Array,
    room_mw: Float64Array,
    work: Work,
    price: Float64Array,
) -> highspy.HighsLp:
    sites, hours = base_mw.shape
    classes = len(work.may_run)
    count = classes * sites * hours + sites * hours + hours + 2 * classes * hours
    y, x, m, c, z = _parts(np.arange(count), classes, sites, hours)
    hour = np.arange(hours)
    base = (pue * base_mw).sum(axis=0)
    steady_mw = (work.arrived_mw[:, -1] * work.profile.sum(axis=1)).sum() / hours  # of all that arrives in front of it
    unmatched = (base + pue.mean() * steady_mw > supply_mw).mean()

    cost = np.zeros(count)
    behind = (price * pue).mean(axis=1)[None, :, None] * unmatched * _tails(work.profile, hours)[:, None, :]
    cost[y] = behind + (DELAY * hour)[None, None, :]
    cost[x] = price * pue
    cost[m] = -price.mean(axis=0)
    cost[z] = LATE
    upper = np.full(count, highspy.kHighsInf)
    upper[y] = np.where(work.may_run[:, :, None], highspy.kHighsInf, 0.0)
    upper[x] = room_mw
    upper[m] = np.maximum(supply_mw, 0.0)
    upper[c] = work.arrived_mw

    rows: list[tuple[Int64Array, Int64Array, Float64Array]] = []  # (row, column, value)
    lower_row: list[Float64Array] = []
    upper_row: list[Float64Array] = []
    first = 0

    def add(columns: list[tuple[Int64Array, Float64Array]], least: Float64Array, most: Float64Array) -> None:
        nonlocal first
        for column, value in columns:
            at = first + np.arange(len(least))
            rows.append((at, column, np.broadcast_to(value, column.shape)))
        lower_row.append(least)
        upper_row.append(most)
        first += len(least)

    free = np.full(hours, highspy.kHighsInf)
    one = np.ones(hours)
    add([(m, one), *[(x[s], -pue[s]) for s in range(sites)]], -free, base)
    started, later = np.tril_indices(hours)[::-1]  # every hour of a start, and each one from then on
    since = later - started
    for s in range(sites):
        add([(x[s], one)], np.zeros(hours), np.zeros(hours))
        for k in range(classes):
            runs = since < work.profile.shape[1]
            part = np.where(runs, work.profile[k][np.minimum(since, work.profile.shape[1] - 1)], 0.0)
            some = part > 0
            rows.append((first - hours + later[some], y[k, s][started[some]], -part[some]))
    for k in range(classes):
        done = [(y[k, s], -one) for s in range(sites)]
        add([(c[k], one), *done], np.zeros(hours), np.zeros(hours))
        rows.append((first - hours + hour[1:], c[k, :-1], -one[1:]))  # c[t] - c[t-1] = what is started in t
        add([(c[k], one), (z[k], one)], work.due_mw[k], free)

    at, column, value = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    order = np.lexsort((at, column))
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = count, first
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, np.zeros(count), upper
    lp.row_lower_, lp.row_upper_ = np.concatenate(lower_row), np.concatenate(upper_row)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.searchsorted(column[order], np.arange(count + 1))
    lp.a_matrix_.index_, lp.a_matrix_.value_ = at[order], value[order]
    return lp
