"""The envelope is the optimum of what its module says: an independent model in linopy finds the same (G1 to G3)."""

import linopy
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from watteau.energy.envelope import DELAY, LATE, Envelope, Work, solve_envelope

SITES, HOURS, CLASSES = 3, 24, 2


class Case:
    """Arrays of round sizes, drawn by a seed: loads and supplies of a fleet, some of them tight."""

    def __init__(self, seed: int, hours: int = HOURS, classes: int = CLASSES) -> None:
        random = np.random.default_rng(seed)
        self.supply = random.random(hours) * random.choice([5.0, 40.0, 90.0])
        self.base = random.random((SITES, hours)) * 10
        self.pue = 1.05 + random.random((SITES, hours)) / 2
        self.room = random.random((SITES, hours)) * random.choice([1.0, 10.0])
        arrived = np.cumsum(random.random((classes, hours)) * random.choice([0.5, 6.0]), axis=1)
        slack = int(random.integers(1, hours))
        due = np.concatenate([np.zeros((classes, slack)), arrived[:, :-slack]], axis=1)
        may_run = random.random((classes, SITES)) < 0.7
        may_run[:, 0] = True
        lasts = random.integers(1, 40, classes)  # some longer than the horizon
        profile = np.maximum(0.0, 1 - np.arange(hours + 8) / lasts[:, None]) ** random.random((classes, 1))
        self.work = Work(arrived, due, may_run, profile)
        self.price = 20 + 80 * random.random((SITES, hours))

    def solve(self) -> Envelope:
        return solve_envelope(self.supply, self.base, self.pue, self.room, self.work, price=self.price)

    def cost(self, found: Envelope) -> float:
        """What an envelope costs, by its flexible power and its shortfall alone."""
        load = (self.pue * (self.base + found.flexible_mw)).sum(axis=0)
        matched = np.minimum(self.supply, load)
        energy = (self.price * self.pue * found.flexible_mw).sum() - (self.price.mean(axis=0) * matched).sum()
        energy += (found.starts_mw * self.behind()).sum()
        return float(energy + DELAY * (np.arange(HOURS) * found.starts_mw).sum() + LATE * found.late_mw_hours)

    def behind(self) -> np.ndarray:
        """[class, site, hour] what a start costs behind the horizon, hour by hour."""
        steady = sum(self.work.arrived_mw[k, -1] * self.work.profile[k].sum() for k in range(CLASSES)) / HOURS
        load = (self.pue * self.base).sum(axis=0) + self.pue.mean() * steady
        unmatched = sum(load[t] > self.supply[t] for t in range(HOURS)) / HOURS
        cost = np.zeros((CLASSES, SITES, HOURS))
        for k, s, t in np.ndindex(*cost.shape):
            tail = sum(part for since, part in enumerate(self.work.profile[k]) if t + since >= HOURS)
            cost[k, s, t] = tail * unmatched * (self.price[s] * self.pue[s]).mean()
        return cost


def best_cost(case: Case) -> float:
    """The optimum by another modelling language: from the formulation, with a constraint for each line of it."""
    model = linopy.Model()
    hours = xr.DataArray(np.arange(HOURS), dims="t")
    pue, price, base = (xr.DataArray(its, dims=("s", "t")) for its in (case.pue, case.price, case.base))
    may_run = xr.DataArray(case.work.may_run.astype(float), dims=("k", "s"))
    room = xr.DataArray(np.maximum(case.room, 0), dims=("s", "t"))
    names = {"k": range(CLASSES), "s": range(SITES), "t": range(HOURS)}
    y = model.add_variables(lower=0, coords=names, name="y")
    x = model.add_variables(lower=0, coords={"s": range(SITES), "t": range(HOURS)}, name="x")
    m = model.add_variables(lower=0, coords={"t": range(HOURS)}, name="m")
    z = model.add_variables(lower=0, coords={"k": range(CLASSES), "t": range(HOURS)}, name="z")
    model.add_constraints(m <= xr.DataArray(case.supply, dims="t"))
    model.add_constraints(m - (pue * x).sum("s") <= (pue * base).sum("s"))
    model.add_constraints(x <= room)
    model.add_constraints(y <= may_run * 1e6)
    for t in range(HOURS):
        # Of what was started so many hours ago, so large a part runs now.
        ago = xr.DataArray(case.work.profile[:, [max(0, t - began) for began in range(HOURS)]], dims=("k", "t"))
        runs = (y * ago * (hours <= t)).sum(["k", "t"])
        model.add_constraints(x.sel(t=t) - runs == 0)
    for k in range(CLASSES):
        for t in range(HOURS):
            done = y.sel(k=k, t=slice(0, t)).sum()
            model.add_constraints(done <= float(case.work.arrived_mw[k, t]))
            model.add_constraints(done + z.sel(k=k, t=t) >= float(case.work.due_mw[k, t]))
    behind = xr.DataArray(case.behind(), dims=("k", "s", "t"))
    cost = (price * pue * x).sum() - (price.mean("s") * m).sum() + LATE * z.sum()
    cost = cost + ((behind + DELAY * hours) * y).sum()
    model.add_objective(cost)
    model.solve("highs", io_api="direct", output_flag=False)
    assert model.objective.value is not None
    return float(model.objective.value)


@pytest.mark.parametrize("seed", range(6))
def test_an_independent_model_finds_the_same_optimum(seed: int) -> None:
    case = Case(seed)
    found = case.solve()
    assert found.usable
    assert case.cost(found) == pytest.approx(best_cost(case), rel=1e-3)


@given(st.integers(0, 10**6))
def test_no_plan_leaves_the_room_does_work_before_it_arrives_or_is_late_for_nothing(seed: int) -> None:
    case = Case(seed, classes=1)
    found = case.solve()
    assert found.usable
    assert (found.flexible_mw <= np.maximum(case.room, 0) + 1e-6).all()
    assert (found.starts_mw >= -1e-9).all()
    done = np.cumsum(found.starts_mw[0].sum(axis=0))
    assert (done <= case.work.arrived_mw[0] + 1e-5).all()
    assert (done + found.late_mw >= case.work.due_mw[0] - 1e-5).all()
    for s in range(SITES):
        runs = np.convolve(found.starts_mw[0, s], case.work.profile[0])[:HOURS]
        assert found.flexible_mw[s] == pytest.approx(runs, abs=1e-5)
    load = (case.pue * (case.base + found.flexible_mw)).sum(axis=0)
    assert found.matched_mwh <= np.minimum(load, case.supply).sum() + 1e-5


def flat(
    supply: list[float], room: float, arrived: float, due_at: int, profile: tuple[float, ...] = (1.0,)
) -> Envelope:
    """One site without a base load, and work that is there from the beginning; it lasts an hour unless it is said."""
    hours = len(supply)
    due = np.zeros((1, hours))
    due[0, due_at:] = arrived
    work = Work(np.full((1, hours), arrived), due, np.ones((1, 1), dtype=bool), np.array([profile]))
    ones = np.ones((1, hours))
    return solve_envelope(np.array(supply), 0 * ones, ones, room * ones, work)


def test_work_goes_where_the_supply_is() -> None:
    found = flat([0, 0, 5, 0], 5, 4, 3)
    assert found.flexible_mw.round(6).tolist() == [[0, 0, 4, 0]]
    assert [found.matched_mwh, found.late_mw] == pytest.approx([4, 0])


def test_what_lasts_is_started_so_that_all_of_it_meets_the_supply() -> None:
    found = flat([0, 0, 5, 5, 5, 0], 5, 4, 5, profile=(1.0, 1.0, 0.5))
    assert found.starts_mw[0].round(6).tolist() == [[0, 0, 4, 0, 0, 0]]
    assert found.flexible_mw.round(6).tolist() == [[0, 0, 4, 4, 2, 0]]
    assert found.matched_mwh == pytest.approx(10)


def test_what_was_started_takes_its_room_in_the_hours_after() -> None:
    found = flat([9, 9, 9, 9], 4, 8, 3, profile=(1.0, 1.0))
    assert found.starts_mw[0].round(6).tolist() == [[4, 0, 4, 0]]


def test_deadlines_win_over_green() -> None:
    assert flat([0, 0, 0, 9], 2, 4, 1).flexible_mw.round(6).tolist() == [[2, 2, 0, 0]]


def test_of_hours_that_cost_the_same_the_earlier_one_is_taken() -> None:
    assert flat([0, 0, 0, 0], 4, 4, 3).flexible_mw.round(6).tolist() == [[4, 0, 0, 0]]


def test_what_cannot_be_done_in_time_is_said_and_the_rest_is_done() -> None:
    found = flat([0, 0, 0, 0], 1, 4, 1)
    assert found.usable
    assert found.late_mw == pytest.approx(2)
    assert found.flexible_mw[0, :2].round(6).tolist() == [1, 1]


def test_the_site_with_less_overhead_is_taken_unless_the_other_is_cheaper() -> None:
    work = Work(np.full((1, 2), 2.0), np.array([[0.0, 2.0]]), np.ones((1, 2), dtype=bool), np.ones((1, 1)))
    two = np.ones((2, 2))
    pue = np.array([[1.5, 1.5], [1.1, 1.1]])
    found = solve_envelope(np.zeros(2), 0 * two, pue, 5 * two, work)
    assert found.flexible_mw.sum(axis=1).round(6).tolist() == [0, 2]
    price = np.array([[10.0, 10.0], [90.0, 90.0]])
    dear = solve_envelope(np.zeros(2), 0 * two, pue, 5 * two, work, price=price)
    assert dear.flexible_mw.sum(axis=1).round(6).tolist() == [2, 0]


def test_a_solve_that_fails_is_not_usable_and_says_why() -> None:
    case = Case(1, hours=4000)
    found = solve_envelope(case.supply, case.base, case.pue, case.room, case.work, time_limit_s=0.0)
    assert not found.usable
    assert "limit" in found.why.lower()


@pytest.mark.parametrize(
    ("arrived", "due", "why"),
    [([[2.0, 1.0]], [[0.0, 0.0]], "never falls"), ([[1.0, 1.0]], [[0.0, 2.0]], "before it has arrived")],
)
def test_work_that_contradicts_itself_is_refused(arrived: list[list[float]], due: list[list[float]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Work(np.array(arrived), np.array(due), np.ones((1, 1), dtype=bool), np.ones((1, 1)))


def test_a_profile_is_a_part_of_the_power() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Work(np.ones((1, 2)), np.zeros((1, 2)), np.ones((1, 1), dtype=bool), np.array([[1.5, 0.0]]))
