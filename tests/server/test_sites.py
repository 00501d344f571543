"""Sites over HTTP: their modes and fences, their nodes, and the jobs that people gave them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.test_shared_sites import HUB, fleet
from tests.runtime.test_shared_sites import World as Running
from tests.server.world import FLEET, START_MS, World
from watteau.domain.fleet import Fleet, Mode, Pool, Pue
from watteau.domain.people import Role
from watteau.domain.sites import Difference, Partition, Reservation, SiteSetting
from watteau.domain.units import PoolId, SiteId
from watteau.engines.contract import NodeCapacity
from watteau.engines.contract import SiteView as Shown
from watteau.runtime.live_state import compile_core
from watteau.server.live import NoController, Status, WithController

PARIS = SiteId("paris")
POOL = Pool(PoolId("p"), "H100", 8, 64, 512, True, 1_000, 5_000, 8_000, 1)
#: The same site, which nobody but Watteau uses.
ALONE = Fleet.of_one_site("paris", [(POOL, 4)], power_limit_kw=100, pue=Pue.constant(1.2), tenants=FLEET.tenants)
OBSERVE = {"mode": "observe", "fenced": False, "why": "the site is new to us"}
FENCE = {"mode": "drive", "fenced": True, "why": "the hall is under water"}


# --- setting ----------------------------------------------------------------------------------------------------------


def test_a_mode_is_kept_audited_and_told_to_the_controller(world: World) -> None:
    said = world.ask("root", "PUT", "/sites/paris", json=OBSERVE)
    assert said.status_code == 200, said.text
    assert (said.json()["mode"], said.json()["fleet_mode"], said.json()["fenced"]) == ("observe", "drive", "")
    assert said.json()["setting"] == OBSERVE | {"by": "root", "at": said.json()["setting"]["at"]}
    assert world.live.woken == 1
    (kept,) = world.store.site_settings()
    assert (kept.site, kept.mode, kept.fenced, kept.by) == ("paris", Mode.OBSERVE, False, "root")
    line = world.ask("root", "GET", "/audit").json()["lines"][-1]
    assert (line["user"], line["action"], line["target"], line["data"]) == ("root", "set_site", "site paris", OBSERVE)


def test_a_fence_is_shown_with_its_reason_to_whoever_sees_sites(world: World) -> None:
    world.ask("root", "PUT", "/sites/paris", json=FENCE)
    (paris,) = world.ask("member", "GET", "/sites").json()["sites"]
    assert paris["fenced"] == "fenced by root: the hall is under water"
    assert world.ask("member", "GET", "/sites/paris").json()["setting"]["fenced"] is True
    world.ask("root", "PUT", "/sites/paris", json=FENCE | {"fenced": False, "why": "it is dry"})
    assert world.ask("member", "GET", "/sites/paris").json()["fenced"] == ""


def test_another_process_leads_and_the_setting_is_written_all_the_same(world: World) -> None:
    world.live.state = Status(leading=False, compiled=True, detail="another controller leads")
    said = world.ask("root", "PUT", "/sites/paris", json=FENCE)
    assert said.status_code == 200
    assert said.json()["fenced"] == "fenced by root: the hall is under water", "what was ordered, as it is not seen"
    assert world.store.settings_version() == 1
    world.serve(NoController(FLEET))
    assert world.ask("root", "PUT", "/sites/paris", json=OBSERVE).json()["mode"] == "observe"
    (paris,) = world.ask("member", "GET", "/sites").json()["sites"]
    assert (paris["mode"], paris["state"], paris["people_running"]) == ("observe", "silent", None)


@pytest.mark.parametrize(
    ("body", "pointer", "message"),
    [
        ({"mode": "drive", "fenced": True}, "/why", "say why: it is kept in the audit log"),
        (FENCE | {"why": "  "}, "/why", "say why: it is kept in the audit log"),
        (FENCE | {"why": "a\nb"}, "/why", "pattern"),
        (FENCE | {"mode": "rule"}, "/mode", "'observe', 'shadow' or 'drive'"),
        (FENCE | {"fenced": "yes"}, "/fenced", "boolean"),
        ({"mode": "drive", "why": "x"}, "/fenced", "required"),
        (FENCE | {"fence": True}, "/fence", "not permitted"),
    ],
)
def test_a_wrong_setting_is_refused_at_its_place_and_changes_nothing(
    world: World, body: dict[str, object], pointer: str, message: str
) -> None:
    said = world.ask("root", "PUT", "/sites/paris", json=body)
    assert said.status_code == 422
    (error,) = said.json()["errors"]
    assert error["pointer"] == pointer
    assert message in error["message"]
    assert world.store.settings_version() == 0
    assert world.live.woken == 0


def test_a_site_that_nobody_else_uses_is_only_driven(world: World) -> None:
    world.serve(world.live, ALONE)
    for mode in ("observe", "shadow"):
        said = world.ask("root", "PUT", "/sites/paris", json=OBSERVE | {"mode": mode})
        assert said.status_code == 422
        assert said.json()["errors"] == [
            {
                "pointer": "/mode",
                "message": "the engine of paris is simulated, which nobody but Watteau gives jobs to: there is nothing "
                f"to {mode}; say drive, or hold the jobs that must wait",
            }
        ]
    (error,) = world.ask("root", "PUT", "/sites/paris", json=FENCE).json()["errors"]
    assert error["pointer"] == "/fenced"
    assert world.store.settings_version() == 0
    assert world.ask("root", "PUT", "/sites/paris", json=OBSERVE | {"mode": "drive"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("PUT", ""), ("GET", "/nodes"), ("GET", "/differences"), ("GET", "/jobs")],
)
def test_a_site_that_is_not_there_is_answered_with_those_that_are(world: World, method: str, path: str) -> None:
    said = world.ask("root", method, f"/sites/pariss{path}", json=OBSERVE if method == "PUT" else None)
    assert (said.status_code, said.json()["code"]) == (404, "not_found")
    assert said.json()["detail"] == "There is no site 'pariss'; there are: paris."
    assert world.store.settings_version() == 0


# --- what a site shows ------------------------------------------------------------------------------------------------


def test_nodes_are_listed_with_what_they_have_once_that_was_seen(world: World) -> None:
    world.by_hand("1", "beta", START_MS, None, gpus=1)
    (node,) = world.ask("member", "GET", "/sites/paris/nodes").json()["nodes"]
    assert (node["node"], node["pool"], node["number"], node["state"], node["gpus"]) == ("gpu1", "p", 0, "up", None)
    world.live.seen = Shown((NodeCapacity("gpu1", "h100", 8, 64, 500_000),), (), (), (), "Slurm 22.05.8")
    (node,) = world.ask("member", "GET", "/sites/paris/nodes").json()["nodes"]
    assert (node["gpu_model"], node["gpus"], node["cpu_cores"], node["memory_mib"]) == ("h100", 8, 64, 500_000)


def test_a_site_is_shown_with_the_queues_and_reservations_of_its_scheduler(world: World) -> None:
    normal = Partition("normal", True, True, ("gpu1", "gpu2"), 86_400, 3_600, 2, 1)
    repair = Reservation("repair", START_MS // 1000, START_MS // 1000 + 3_600, ("gpu1",), (), (), ("MAINT",))
    world.live.seen = Shown((), (), (normal,), (repair,), "Slurm 22.05.8")
    said = world.ask("member", "GET", "/sites/paris").json()
    assert said["partitions"] == [
        {"name": "normal", "is_default": True, "up": True, "nodes": 2, "most_time_s": 86_400, "most_nodes": 2}
    ]
    (repair_said,) = said["reservations"]
    assert (repair_said["start"], repair_said["end"]) == ("2026-01-05T12:00:00Z", "2026-01-05T13:00:00Z")
    assert (said["setting"], said["differences"]) == (None, None)


def test_differences_are_listed_each_with_what_would_help(world: World) -> None:
    world.live.found = [Difference("pool p", "nodes", "4", "3", "change the phases of the fleet file")]
    said = world.ask("member", "GET", "/sites/paris/differences").json()["differences"]
    assert said == [
        {
            "where": "pool p",
            "what": "nodes",
            "fleet": "4",
            "engine": "3",
            "remedy": "change the phases of the fleet file",
        }
    ]
    assert world.ask("member", "GET", "/sites/paris").json()["differences"] == 1


def test_nothing_can_be_compared_before_the_site_has_shown_something(world: World) -> None:
    world.live.trouble = "connection refused"
    said = world.ask("member", "GET", "/sites/paris/differences")
    assert (said.status_code, said.json()["code"], said.headers["retry-after"]) == (409, "nothing_seen", "5")
    assert said.json()["detail"] == (
        "paris has shown nothing since this process began to lead: connection refused. Ask again when it answers."
    )


def test_only_the_process_that_leads_compares(world: World) -> None:
    world.live.state = Status(leading=False, compiled=True, detail="another controller leads")
    said = world.ask("member", "GET", "/sites/paris/differences")
    assert (said.status_code, said.json()["code"]) == (409, "not_leading")
    assert "another controller leads" in said.json()["detail"]


def test_a_site_that_nobody_else_uses_has_nothing_to_compare(world: World) -> None:
    world.serve(world.live, ALONE)
    said = world.ask("member", "GET", "/sites/paris/differences")
    assert (said.status_code, said.json()["code"]) == (409, "conflict")


# --- jobs by hand -----------------------------------------------------------------------------------------------------


def test_jobs_by_hand_are_seen_by_those_who_see_their_tenants_jobs(world: World) -> None:
    for number, tenant in enumerate(("alpha-lab", "alpha-prod", "beta", "programme")):
        world.by_hand(str(number), tenant, START_MS + number, None, gpus=1)

    def seen(who: str, conditions: str = "") -> list[str]:
        said = world.ask(who, "GET", f"/sites/paris/jobs{conditions}")
        assert said.status_code == 200, said.text
        return [job["engine_id"] for job in said.json()["jobs"]]

    assert seen("root") == ["3", "2", "1", "0"]
    assert seen("member") == ["1", "0"]
    assert seen("stranger") == ["2"]
    assert seen("root", "?tenant=alpha") == ["1", "0"]
    assert seen("member", "?tenant=alpha-lab") == ["0"]
    assert world.ask("member", "GET", "/sites/paris/jobs?tenant=beta").status_code == 404


def test_a_job_by_hand_is_told_with_all_that_is_known_of_it(world: World) -> None:
    world.by_hand("9", "beta", START_MS, START_MS + 60_000, gpus=2)
    (job,) = world.ask("stranger", "GET", "/sites/paris/jobs").json()["jobs"]
    assert job == {
        "site": "paris",
        "engine_id": "9",
        "name": "by hand 9",
        "user": "zoe",
        "account": "atelier",
        "tenant": "beta",
        "partition": "normal",
        "state": "completed",
        "reason": "",
        "tasks": 1,
        "workers": 1,
        "gpus": 2,
        "cpus": 16,
        "memory_mib": 1_024,
        "time_limit_s": 3_600,
        "priority": 1,
        "submitted_at": "2026-01-05T12:00:00Z",
        "eligible_at": None,
        "started_at": "2026-01-05T12:00:00Z",
        "ended_at": "2026-01-05T12:01:00Z",
        "exit_code": None,
        "signal": None,
        "cause": "",
        "restarts": 0,
        "held": [{"node": "gpu1", "gpus": 2, "cpus": 16, "memory_mib": 1_024}],
    }


def test_jobs_by_hand_come_page_by_page_and_by_condition(world: World) -> None:
    for number in range(5):
        world.by_hand(str(number), "beta", START_MS + 1000 * number, START_MS + 10_000 if number % 2 else None, gpus=1)
    read, cursor = [], ""
    while cursor is not None:
        page = world.ask("root", "GET", f"/sites/paris/jobs?limit=2{cursor and f'&cursor={cursor}'}").json()
        read += [job["engine_id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
    assert read == ["4", "3", "2", "1", "0"]
    for conditions, expected in (
        ("state=running", ["4", "2", "0"]),
        ("state=completed&state=running&name=HAND%203", ["3"]),
        ("user=nobody", []),
        ("engine_id=2", ["2"]),
        ("since=2026-01-05T12:00:01Z&until=2026-01-05T12:00:03Z", ["2", "1"]),
    ):
        said = world.ask("root", "GET", f"/sites/paris/jobs?{conditions}").json()
        assert [job["engine_id"] for job in said["jobs"]] == expected, conditions
    refused = world.ask("root", "GET", "/sites/paris/jobs?cursor=mine")
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#query/cursor")


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_metrics_have_every_site_and_only_where_it_is_led(world: World) -> None:
    world.ask("root", "PUT", "/sites/paris", json=FENCE | {"mode": "shadow"})
    world.live.trouble = "connection refused"
    lines = world.ask(None, "GET", "/metrics").text.splitlines()
    assert {line for line in lines if line.startswith("watteau_site_")} == {
        'watteau_site_mode{mode="observe",site="paris"} 0.0',
        'watteau_site_mode{mode="shadow",site="paris"} 1.0',
        'watteau_site_mode{mode="drive",site="paris"} 0.0',
        'watteau_site_silent{site="paris"} 1.0',
        'watteau_site_fenced{site="paris"} 1.0',
        'watteau_site_attempts{site="paris"} 2.0',
        'watteau_site_people_running{site="paris"} 12.0',
        'watteau_site_people_waiting{site="paris"} 3.0',
    }
    world.live.state = Status(leading=False, compiled=True)
    assert "watteau_site_" not in world.ask(None, "GET", "/metrics").text


# --- with a controller ------------------------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A controller, a site that others use, and one that they do not."""
    compile_core()
    folder = tmp_path / "running"
    folder.mkdir()
    world = Running(folder)
    with world.store.closing():
        yield world
        world.controller.close()


@pytest.fixture
def served(world: World, running: Running) -> World:
    """The app before that controller. `root` speaks for every tenant."""
    world.store = running.store
    world.serve(WithController(running.controller, fleet()), fleet())
    world.person("root", (Role.OPERATOR, fleet().tenants.id))
    return world


def test_a_mode_said_over_http_keeps_everything_from_the_engine(served: World, running: Running) -> None:
    running.runs(running.submit())
    given = list(running.hub.given)
    running.hub.by_hand(7, "gpu1", 2)
    assert served.ask("root", "PUT", "/sites/hub", json=OBSERVE).status_code == 200
    running.until(lambda: running.figures().mode is Mode.OBSERVE, "it obeys")
    job = running.submit()
    running.until(lambda: running.job(job).reason.value and not running.store.attempts(job), "it waits")
    assert running.hub.given == given
    assert not running.hub.may_change
    said = served.ask("root", "GET", "/sites/hub").json()
    assert (said["mode"], said["running"], said["people_running"], said["engine_version"]) == (
        "observe",
        1,
        1,
        "a test's scheduler",
    )
    assert served.ask("root", "PUT", "/sites/hub", json=OBSERVE | {"mode": "drive"}).status_code == 200
    running.runs(job)


def test_a_fence_said_over_http_starts_the_jobs_elsewhere(served: World, running: Running) -> None:
    fills = [running.submit(gpus=4, sites=("far",)) for _ in range(2)]
    for each in fills:
        running.runs(each)
    job = running.submit(sites=("hub", "far"))
    assert running.runs(job).site == HUB
    for each in fills:
        assert served.ask("root", "POST", f"/jobs/{each}/cancel").status_code == 200
    assert served.ask("root", "PUT", "/sites/hub", json=FENCE).status_code == 200
    running.until(lambda: running.attempt(job).site == "far", "it starts elsewhere")
    assert "under water" in running.store.attempts(job)[0].cause


def test_a_site_compares_itself_with_the_fleet_file(served: World, running: Running) -> None:
    running.until(lambda: running.controller.differences(HUB) is not None, "it has shown its nodes")
    assert served.ask("root", "GET", "/sites/hub/differences").json() == {"differences": []}
    running.hub.drain("gpu1", "a fan is broken")
    running.until(lambda: running.controller.differences(HUB), "the drain is seen")
    (found,) = served.ask("root", "GET", "/sites/hub/differences").json()["differences"]
    assert "gpu1" in found["where"]
    assert "a fan is broken" in f"{found}"
    nodes = served.ask("root", "GET", "/sites/hub/nodes").json()["nodes"]
    assert [(node["node"], node["state"], node["why"], node["gpus"]) for node in nodes] == [
        ("gpu0", "up", "", 4),
        ("gpu1", "drained", "a fan is broken", 4),
    ]
    assert served.ask("root", "GET", "/sites/far/differences").status_code == 409
    assert served.ask("root", "GET", "/sites").json()["sites"][0]["nodes_out"] == 1


def test_a_setting_from_before_stands_above_the_fleet_file(running: Running) -> None:
    running.store.set_site(SiteSetting(HUB, Mode.SHADOW, False, "a test", "zoe", 1))
    running.controller.wake()
    running.until(lambda: running.figures().mode is Mode.SHADOW, "it obeys")
    live = WithController(running.controller, fleet())
    assert [(site.id, site.mode) for site in live.sites()] == [("hub", "shadow"), ("far", "drive")]
