"""The energy books over HTTP: whole for those who see everything, and of their own jobs for all others."""

import pytest

from tests.server.world import START_MS, World
from watteau.domain.requests import JobId
from watteau.server.schemas import EnergyView

HOUR_MS = 3_600_000
#: FLEET has four nodes of 8 GPUs, 1,000 W idle and 5,000 W at work, and a PUE of 1.2.
NODES, GPUS_PER_NODE = 4, 8


def asked(world: World, who: str, query: str = "") -> EnergyView:
    said = world.ask(who, "GET", f"/energy?{query}")
    assert said.status_code == 200, said.text
    return EnergyView.model_validate(said.json())


def filled(world: World) -> None:
    """From 11:00 to 12:00 a job by hand of alpha's and one of beta's; since 12:00 a job of beta's."""
    world.by_hand("1", "alpha-lab", START_MS - HOUR_MS, START_MS, gpus=4)
    world.by_hand("2", "beta", START_MS - HOUR_MS, START_MS, gpus=2)
    job = world.job("stranger", "beta", gpu_milli=8_000)
    world.start(JobId(job.job_id))
    world.clock.at_ms = START_MS + HOUR_MS + HOUR_MS // 2


def test_the_parts_are_the_meter_and_the_hours_are_the_sum(world: World) -> None:
    filled(world)
    view = asked(world, "root", "since=2026-01-05T10:00:00Z")
    (paris,) = view.sites
    parts = [paris.jobs_wh, paris.by_hand_wh, paris.idle_wh, paris.overhead_wh]
    assert sum(part or 0 for part in parts) == paris.site_wh
    assert [hour.hour.hour for hour in view.hours] == [10, 11, 12, 13]
    assert [hour.over for hour in view.hours] == [True, True, True, False]
    assert [hour.sites[0].by_hand_wh for hour in view.hours] == [0, 6 * 5_000 // GPUS_PER_NODE, 0, 0]
    assert view.hours[0].sites[0].idle_wh == NODES * 1_000
    assert 7_490 <= paris.jobs_wh <= 7_500, "a node for an hour and a half, less the milliseconds until it started"
    for part in ("jobs_wh", "by_hand_wh", "idle_wh", "overhead_wh", "site_wh", "supply_wh", "matched_wh"):
        assert sum(getattr(hour.sites[0], part) for hour in view.hours) == getattr(paris, part)
    assert (paris.supply_wh, view.hourly_matched_share) == (0, 0.0)
    assert "supply: the fleet file has no contracts" in view.notes


def test_who_does_not_see_all_sees_the_energy_of_their_own_jobs_alone(world: World) -> None:
    filled(world)
    view = asked(world, "member", "since=2026-01-05T10:00:00Z")
    (paris,) = view.sites
    assert (paris.jobs_wh, paris.by_hand_wh) == (0, 4 * 5_000 // GPUS_PER_NODE)
    hidden = ("idle_wh", "overhead_wh", "site_wh", "supply_wh", "matched_wh")
    assert [getattr(paris, part) for part in hidden] == [None] * 5
    assert {getattr(hour.sites[0], part) for hour in view.hours for part in hidden} == {None}
    assert (view.hourly_matched_share, view.supply_source) == (None, None)
    stranger = asked(world, "stranger", "since=2026-01-05T10:00:00Z").sites[0]
    assert stranger.by_hand_wh == 2 * 5_000 // GPUS_PER_NODE
    assert stranger.jobs_wh > 7_000


def test_a_year_is_told_without_its_hours_and_for_one_site(world: World) -> None:
    filled(world)
    view = asked(world, "root", "since=2025-01-06T00:00:00Z&hourly=false&site=paris")
    assert view.hours == ()
    assert view.sites[0].site_wh is not None
    assert view.sites[0].site_wh > 364 * 24 * NODES * 1_000


def test_without_times_it_is_the_last_week(world: World) -> None:
    world.clock.at_ms += HOUR_MS // 2
    view = asked(world, "root")
    assert len(view.hours) == 7 * 24 + 1
    assert not view.hours[-1].over


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("since=2026-01-05T12:00:00", "#query/since"),
        ("since=1969-01-01T00:00:00Z", "#query/since"),
        ("since=2027-01-01T00:00:00Z&until=2026-01-01T00:00:00Z", "#query/since"),
        ("since=2020-01-01T00:00:00Z", "#query/since"),
        ("since=1970-01-01T00:00:00Z&until=9999-12-31T23:59:59Z", "#query/since"),
        ("until=x", "#query/until"),
        ("site=mars", "#query/site"),
        ("site=", "#query/site"),
        ("hourly=perhaps", "#query/hourly"),
        ("sites=paris", "#query/sites"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(world: World, query: str, pointer: str) -> None:
    said = world.ask("root", "GET", f"/energy?{query}")
    assert said.status_code == 422, said.text
    assert pointer in [error["pointer"] for error in said.json()["errors"]]


def test_what_is_to_come_is_empty(world: World) -> None:
    view = asked(world, "root", "since=2030-01-01T00:00:00Z&until=2030-01-02T00:00:00Z")
    assert (view.hours, view.hourly_matched_share) == ((), None)
