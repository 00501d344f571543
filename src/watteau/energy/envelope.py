"""The envelope: how much flexible work each site should run in each hour, by a linear programme over the next days.

    min  sum_t,s price[s,t] pue[s,t] x[k,s,t] - sum_t price[t] m[t]  +  delay sum t x[k,s,t]  +  LATE sum z[k,t]
    s.t. m[t] <= supply[t]                                        what is matched is supplied in that hour,
         m[t] <= sum_s pue[s,t] (base[s,t] + sum_k x[k,s,t])      and drawn in it (books, B5);
         sum_k x[k,s,t] <= room[s,t]                              free GPUs, and what the site's power limit leaves;
         due[k,t] - z[k,t] <= c[k,t] <= arrived[k,t]              c[k,t] = sum over tau <= t, s of x[k,s,tau]

x is IT power in MW, which over an hour is MWh. z is work that cannot be done in time: it costs more than any energy, so
that deadlines win over green (G2). Work whose deadline lies behind the horizon may wait; work that arrives later may be
foreseen in `arrived`. Jobs are not divisible and the programme divides them: it sets a limit, and the core's gate fills
it with real jobs, the earliest deadline first.

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
    """Flexible work as cumulative IT energy in MWh at the end of each hour, by class."""

    arrived_mwh: Float64Array  # [class, hour] what may have been done by then, non-decreasing
    due_mwh: Float64Array  # [class, hour] what must have been done by then, non-decreasing, <= arrived
    may_run: BoolArray  # [class, site]

    def __post_init__(self) -> None:
        if self.arrived_mwh.shape != self.due_mwh.shape:
            raise ValueError("arrived and due differ in shape")
        for name, curve in (("arrived", self.arrived_mwh), ("due", self.due_mwh)):
            if bool((np.diff(curve, axis=1, prepend=0.0) < -1e-9).any()):
                raise ValueError(f"{name} is cumulative: it never falls, and begins at 0 or above")
        if bool((self.due_mwh > self.arrived_mwh + 1e-9).any()):
            raise ValueError("work cannot be due before it has arrived")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What came of a solve. Where it is not `usable` nobody is held back, and `why` says what went wrong."""

    usable: bool
    why: str
    flexible_mw: Float64Array  # [site, hour], IT power
    matched_mwh: float  # in all hours, as foreseen
    late_mwh: float  # work that no plan does in time; 0: every deadline is met
    late_mwh_hours: float  # the same times how late it is
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
    if (supply_mw.shape, pue.shape, room_mw.shape) != ((hours,), (sites, hours), (sites, hours)):
        raise ValueError("supply, base load, PUE and room differ in sites or hours")
    if work.arrived_mwh.shape != (classes, hours) or work.may_run.shape != (classes, sites):
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
        return Envelope(False, why, nothing, 0.0, 0.0, 0.0, solver.getRunTime())
    found = np.array(solver.getSolution().col_value)
    x, m, _, z = _parts(found, classes, sites, hours)
    late = np.diff(z, axis=1, prepend=0.0).clip(min=0.0).sum()
    flexible_mw = x.sum(axis=0)
    return Envelope(True, "", flexible_mw, float(m.sum()), float(late), float(z.sum()), solver.getRunTime())


def _parts(columns: Any, classes: int, sites: int, hours: int) -> tuple[Any, Any, Any, Any]:
    """x [class, site, hour], m [hour], c [class, hour] and z [class, hour] of all columns."""
    ends = np.cumsum([classes * sites * hours, hours, classes * hours])
    x, m, c, z = np.split(columns, ends)
    return x.reshape(classes, sites, hours), m, c.reshape(classes, hours), z.reshape(classes, hours)


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
    count = classes * sites * hours + hours + 2 * classes * hours
    x, m, c, z = _parts(np.arange(count), classes, sites, hours)
    hour = np.arange(hours)

    cost = np.zeros(count)
    cost[x] = (price * pue + DELAY * hour)[None, :, :]
    cost[m] = -price.mean(axis=0)
    cost[z] = LATE
    upper = np.full(count, highspy.kHighsInf)
    upper[x] = np.where(work.may_run[:, :, None], room_mw[None, :, :], 0.0)
    upper[m] = np.maximum(supply_mw, 0.0)
    upper[c] = work.arrived_mwh

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
    flows = [(x[k, s], -pue[s]) for k in range(classes) for s in range(sites)]
    add([(m, one), *flows], -free, (pue * base_mw).sum(axis=0))
    for k in range(classes):
        done = [(x[k, s], -one) for s in range(sites)]
        add([(c[k], one), *done], np.zeros(hours), np.zeros(hours))
        rows.append((first - hours + hour[1:], c[k, :-1], -one[1:]))  # c[t] - c[t-1] = what is done in t
        add([(c[k], one), (z[k], one)], work.due_mwh[k], free)
    if classes > 1:
        for s in range(sites):
            add([(x[k, s], one) for k in range(classes)], -free, room_mw[s])

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
