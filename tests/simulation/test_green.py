"""Work that follows the wind: flexible jobs wait for supply, not too long, and nothing is known before its time."""

from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.runs import ZERO_S, fleet_of, jobs_of, random_jobs, run, times
from watteau.core import layout
from watteau.domain.fleet_file import parse_fleet
from watteau.domain.jobs import Workload
from watteau.domain.policy import POLICIES
from watteau.domain.units import HOUR_S
from watteau.energy.envelope import Envelope
from watteau.energy.forecast import LastValue
from watteau.energy.supply import CapacityFactors, SupplySeries, supply_wh, synthetic_capacity_factors
from watteau.simulation import green as module
from watteau.simulation.green import Foreseen, Green, RunTimes, as_forecast, as_yesterday, flexible_jobs, perfect
from watteau.simulation.replay import Replay, replay

DAY_H = 24


def supply_of(kw_by_hour: list[float], first_hour_s: int = ZERO_S) -> SupplySeries:
    """A supply in kW that is known for so many hours."""
    wh = np.array([1000 * kw for kw in kw_by_hour], dtype=np.int64)
    return SupplySeries("made up", True, None, first_hour_s, len(wh), wh)


def noon(days: int, kw: float = 500.0) -> SupplySeries:
    """Supply from 10 to 14 h of each day, and none in the rest of it."""
    return supply_of([kw if 10 <= hour % DAY_H < 14 else 0.0 for hour in range(days * DAY_H)])


def green_run(
    workload: Workload, supply: SupplySeries, *, slack_h: int = 24, share: float = 1.0, foreseen: Foreseen | None = None
) -> Replay:
    flexible = flexible_jobs(workload, share, 7)
    green = Green(flexible, slack_h * HOUR_S, foreseen or perfect(supply))
    return replay(fleet_of(nodes=4), workload, POLICIES["hybrid"], zero_s=ZERO_S, green=green)


def hourly(count: int, runtime_s: int = 3_000, gpus: int = 4) -> Workload:
    return jobs_of(*((hour * HOUR_S + 60, runtime_s, gpus) for hour in range(count)))


def test_a_flexible_job_waits_for_the_supply_that_is_foreseen() -> None:
    happened = green_run(jobs_of((60, 3_000, 4)), noon(3))
    ((start, _),) = times(happened)
    assert 10 * HOUR_S <= start < 14 * HOUR_S


def test_more_runs_where_there_is_supply_than_without_waiting_for_it() -> None:
    workload, supply = hourly(48), noon(5)

    def in_the_sun(happened: Replay) -> int:
        return sum(10 <= start // HOUR_S % DAY_H < 14 for start, _ in times(happened))

    assert in_the_sun(run(fleet_of(nodes=4), workload)) == 8
    assert in_the_sun(green_run(workload, supply)) >= 40


@pytest.mark.parametrize("slack_h", [2, 6, 24])
def test_nobody_starts_after_the_latest_start_where_there_is_room(slack_h: int) -> None:
    happened = green_run(hourly(60), supply_of([0.0] * 400), slack_h=slack_h)
    waited = happened.start_s - happened.submit_s
    assert happened.started.all()
    assert waited.max() <= slack_h * HOUR_S


@pytest.mark.parametrize("seed", range(4))
def test_every_job_that_runs_without_waiting_for_supply_runs_with_it(seed: int) -> None:
    workload = random_jobs(seed, 80, 16)
    plain = run(fleet_of(nodes=4), workload)
    happened = green_run(workload, noon(4), share=0.5, slack_h=6)
    assert happened.started.tolist() == plain.started.tolist()
    assert (happened.start_s >= happened.submit_s)[happened.started].all()


def test_the_same_input_gives_the_same_starts() -> None:
    workload = random_jobs(3, 80, 16)
    first, second = (times(green_run(workload, noon(4), share=0.5)) for _ in range(2))
    assert first == second


def test_what_is_foreseen_from_yesterday_knows_nothing_of_today() -> None:
    known, changed = noon(4), noon(4)
    now = ZERO_S + 30 * HOUR_S
    wh = changed.renewable_wh.copy()
    wh[30:] = 10**12
    changed = replace(changed, renewable_wh=wh)
    assert as_yesterday(changed)(now, 72).tolist() == as_yesterday(known)(now, 72).tolist()
    assert as_yesterday(known)(now, 30).tolist() == np.resize(known.renewable_wh[6:30], 30).tolist()
    assert as_yesterday(known)(ZERO_S, 5).tolist() == [0] * 5


def test_what_a_forecast_foresees_is_what_contracts_make_of_it_and_knows_nothing_of_what_comes() -> None:
    text = files("watteau.cli").joinpath("france.toml").read_text(encoding="utf-8")
    contracts = parse_fleet(text, "france.toml").contracts
    start_s = ZERO_S // HOUR_S * HOUR_S
    weather = synthetic_capacity_factors(start_s, 366 * DAY_H, 1)
    now_s, hours = start_s + 200 * HOUR_S, 366 * DAY_H
    foreseen = as_forecast(LastValue(), contracts, weather, start_s, 30 * DAY_H)(now_s, 5)
    as_it_was = {technology: np.repeat(values[199], 5) for technology, values in weather.values.items()}
    stays = CapacityFactors("stays", True, now_s, 5, as_it_was)
    assert foreseen.tolist() == supply_wh(contracts, stays, now_s, 5).renewable_wh.tolist()
    assert foreseen.min() > 0
    later = {technology: np.where(np.arange(hours) < 200, values, 0.0) for technology, values in weather.values.items()}
    calm = CapacityFactors("calm later", True, start_s, hours, later)
    assert as_forecast(LastValue(), contracts, calm, start_s, 30 * DAY_H)(now_s, 5).tolist() == foreseen.tolist()


def test_jobs_that_arrive_later_change_nothing_before() -> None:
    workload = hourly(30)
    more = hourly(40)
    cut_s = 30 * HOUR_S
    early = [start for start, _ in times(green_run(workload, noon(6))) if start < cut_s]
    assert [start for start, _ in times(green_run(more, noon(6))) if start < cut_s] == early


def test_estimates_that_are_five_times_too_long_cost_little_once_that_is_known() -> None:
    workload, supply = hourly(24 * 9), noon(11)
    asked = replace(workload, estimate_s=5 * workload.runtime_s)

    def in_the_sun(happened: Replay) -> int:
        known = [start for start, _ in times(happened) if start >= 2 * DAY_H * HOUR_S]
        return sum(10 <= start // HOUR_S % DAY_H < 14 for start in known)

    exact, learned = in_the_sun(green_run(workload, supply)), in_the_sun(green_run(asked, supply))
    assert exact > 150
    assert learned > 0.9 * exact


class Ran:
    """Rows of jobs that were all submitted at 0: (state, part of an hour's estimate that each has run)."""

    def __init__(self, *rows: tuple[int, float]) -> None:
        names = ("submit_s", "state", "start_s", "end_s", "estimate_s")
        self.jobs = np.zeros(len(rows), dtype=[(name, np.int64) for name in names])
        self.jobs["state"] = [state for state, _ in rows]
        self.jobs["start_s"] = [HOUR_S - round(part * HOUR_S) for _, part in rows]
        self.jobs["end_s"] = self.jobs["estimate_s"] = HOUR_S
        self.times = RunTimes(np.ones(len(rows)))

    def after_an_hour(self) -> np.ndarray:
        return self.times.learn(self.jobs, HOUR_S)


def test_estimates_are_believed_until_jobs_have_ended() -> None:
    alive, lasted = Ran(*[(layout.WAITING, 0.0)] * 5).after_an_hour()
    assert alive[:-1].min() == 1.0
    assert lasted[-1] == pytest.approx(1.0)


def test_what_is_expected_of_a_job_is_what_came_of_others() -> None:
    alive, lasted = Ran(*[(layout.ENDED, 0.25)] * 10_000).after_an_hour()
    assert lasted[-1] == pytest.approx(0.25, abs=0.02)
    assert alive[20] < 0.01


def test_that_only_short_jobs_have_ended_says_nothing_of_those_that_run() -> None:
    """Half of them ended early, and the others have run for nine tenths of their time: on average more than half."""
    alive, lasted = Ran(*[(layout.ENDED, 0.1), (layout.RUNNING, 0.9)] * 5_000).after_an_hour()
    assert alive[32] == pytest.approx(0.5, abs=0.01)
    assert lasted[-1] > 0.5


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([layout.ENDED, layout.RUNNING, layout.WAITING]), st.floats(0, 3)), max_size=50)
)
def test_fewer_and_fewer_jobs_go_on(rows: list[tuple[int, float]]) -> None:
    ran = Ran(*rows)
    for _ in range(2):  # nothing new has happened the second time
        alive, lasted = ran.after_an_hour()
        assert alive[0] == 1.0
        assert (np.diff(alive) <= 1e-12).all()
        assert (alive >= 0).all()
        assert (np.diff(lasted) >= 0).all()
        assert lasted[0] == 0.0


def test_where_no_envelope_can_be_made_nobody_is_held_back_and_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """G3."""
    nothing = Envelope(False, "made to fail", np.zeros((1, 72)), np.zeros((1, 1, 72)), 0.0, 0.0, 0.0, 0.0)
    monkeypatch.setattr(module, "solve_envelope", lambda *_, **__: nothing)
    happened = green_run(hourly(5), noon(3))
    assert [start for start, _ in times(happened)] == [hour * HOUR_S + 60 for hour in range(5)]
    assert happened.planner is not None
    assert happened.planner.unusable == happened.planner.solves > 0


def test_the_drawn_part_is_about_what_was_asked_and_the_seed_decides() -> None:
    workload = hourly(2_000)
    drawn = flexible_jobs(workload, 0.4, 1)
    assert 0.35 < drawn.mean() < 0.45
    assert (drawn == flexible_jobs(workload, 0.4, 1)).all()
    assert (drawn != flexible_jobs(workload, 0.4, 2)).any()
