"""What every request leaves behind: one log line and one measurement, and no secret in either."""

import io
import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.server.world import FLEET, World
from watteau.server.edge import json_log
from watteau.server.live import NoController, Status


def test_a_request_is_logged_in_one_line_with_what_finds_it_again(world: World) -> None:
    job = world.job("member", "alpha-lab")
    said = world.ask("member", "GET", f"/jobs/{job.job_id}?x=1", headers={"X-Request-ID": "abc-1"})
    assert said.status_code == 422
    line = world.log_lines()[-1]
    assert line["event"] == "request"
    assert line["request_id"] == said.json()["request_id"] == said.headers["x-request-id"] == "abc-1"
    assert (line["user"], line["route"], line["status"]) == ("member", "/api/v1/jobs/{job}", 422)
    world.ask("member", "GET", f"/jobs/{job.job_id}")
    line = world.log_lines()[-1]
    assert line["job"] == job.job_id
    assert line["duration_ms"] > 0
    assert line["level"] == "info"


def test_no_secret_is_logged_answered_or_measured(world: World) -> None:
    """Tokens, passwords and environment values go in by every door there is; nothing of them is found afterwards."""
    password, value = "a-very-secret-password", "a-very-secret-value"
    body = {"name": "ada", "password": password, "grants": [{"role": "member", "tenant": "alpha-lab"}]}
    answers: list[Any] = [world.ask("tenant_owner", "POST", "/users", json=body)]
    answers.append(world.ask(None, "POST", "/login", json={"user": "ada", "password": password + "x"}))
    logged_in = world.ask(None, "POST", "/login", json={"user": "ada", "password": password})
    secrets = [password, value, logged_in.json()["token"], *world.tokens.values()]
    world.tokens["ada"] = logged_in.json()["token"]
    job = {"command": ["true"], "environment": {"KEY": value}}
    for wrong in ({}, {"workers": 0}, {"environment": {"KEY": value, "bad name": value}}, {"name": value + "/"}):
        answers.append(world.ask("ada", "POST", "/jobs", json=job | wrong))
    job_id = answers[2].json()["id"]
    for path in ("", "/why", "/story", "/attempts"):
        answers.append(world.ask("ada", "GET", f"/jobs/{job_id}{path}"))
    for path in ("/jobs", "/me", "/tokens", "/nothing", f"/jobs?token={world.tokens['ada']}", "/events?x"):
        answers.append(world.ask("ada", "GET", path))
    for path in ("/users", "/audit?limit=1000", "/metrics", "/readyz"):
        answers.append(world.ask("root", "GET", path))
    answers.append(world.ask("ada", "PATCH", "/users/ada", json={"password": password + "2", "disabled": value}))
    said = world.log.getvalue() + "".join(answer.text for answer in answers)
    assert [secret for secret in secrets if secret in said] == []


def test_a_logged_line_is_one_line_whatever_is_in_it(world: World) -> None:
    world.ask(None, "GET", "/x%0a%0d{}%22", headers={"User-Agent": "a b"})
    assert json.loads(world.log.getvalue().splitlines()[-1])["route"] == "(none)"


def test_an_unknown_path_or_method_does_not_grow_the_metrics(world: World) -> None:
    for number in range(50):
        world.ask(None, "GET", f"/nothing-{number}")
        world.ask(None, f"METHOD{number}", "/jobs")
        world.ask("root", "GET", f"/jobs/{number + 1}")
    metrics = world.ask(None, "GET", "/metrics").text
    assert sum(line.startswith("watteau_http_requests_total{") for line in metrics.splitlines()) == 3


def figures(world: World) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    said = world.ask(None, "GET", "/metrics")
    assert said.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(said.text)
        for sample in family.samples
    }


def test_metrics_count_requests_jobs_and_the_controllers_figures(world: World) -> None:
    running = world.job("member", "alpha-lab")
    world.start(running.job_id)
    world.job("member", "alpha-lab", held=True)
    assert world.ask("member", "GET", "/jobs").status_code == 200
    assert world.ask("nobody", "GET", "/jobs").status_code == 403
    found = figures(world)
    route = (("method", "GET"), ("route", "/api/v1/jobs"))
    assert found["watteau_http_requests_total", (*route, ("status", "200"))] == 1
    assert found["watteau_http_requests_total", (*route, ("status", "403"))] == 1
    assert found["watteau_jobs", (("reason", "NONE"), ("state", "running"))] == 1
    assert found["watteau_jobs", (("reason", "STOPPED"), ("state", "held"))] == 1
    assert found["watteau_cycle_seconds", ()] == 0.004
    assert found["watteau_cycles_total", ()] == 17
    assert found["watteau_leading", ()] == 1
    assert found["watteau_store_up", ()] == 1
    assert [value for (name, _), value in found.items() if name == "watteau_build_info"] == [1]
    assert found["watteau_http_request_duration_seconds_count", (("route", "/api/v1/jobs"),)] == 2


def test_metrics_name_no_user_and_no_tenant(world: World) -> None:
    world.job("member", "alpha-lab")
    world.ask("member", "GET", "/jobs?tenant=alpha-lab&user=member")
    said = world.ask(None, "GET", "/metrics").text
    assert "alpha" not in said
    assert "member" not in said


def test_jobs_are_counted_at_most_every_ten_seconds(world: World) -> None:
    waiting = ("watteau_jobs", (("reason", "NONE"), ("state", "waiting")))
    world.job("member", "alpha-lab")
    assert figures(world)[waiting] == 1
    world.job("member", "alpha-lab")
    assert figures(world)[waiting] == 1
    world.clock.at_ms += 10_000
    assert figures(world)[waiting] == 2


@pytest.mark.parametrize(("leading", "compiled", "status"), [(True, True, 200), (False, True, 200), (True, False, 503)])
def test_ready_is_who_keeps_requests_and_has_compiled(world: World, leading: bool, compiled: bool, status: int) -> None:
    world.live.state = Status(leading=leading, compiled=compiled, detail="warming up")
    said = world.ask(None, "GET", "/readyz")
    assert said.status_code == status
    assert said.json() == {
        "ready": status == 200,
        "store": "ok",
        "leading": leading,
        "compiled": compiled,
        "detail": "warming up",
    }


def test_an_api_without_a_controller_keeps_jobs_and_says_so(world: World) -> None:
    world.serve(NoController(FLEET))
    job = world.ask("member", "POST", "/jobs", json={"command": ["true"], "tenant": "alpha-lab"}).json()
    assert world.ask("member", "GET", f"/jobs/{job['id']}/why").json()["evidence"] is None
    site = world.ask("member", "GET", "/sites").json()["sites"][0]
    assert (site["id"], site["state"], site["nodes_up"]) == ("paris", "silent", None)
    assert world.ask(None, "GET", "/readyz").json()["leading"] is False


def test_a_log_is_json_with_our_own_time() -> None:
    to = io.StringIO()
    json_log(lambda: 42, to).warning("login failed", address="::1")
    assert json.loads(to.getvalue()) == {"event": "login failed", "address": "::1", "level": "warning", "at_ms": 42}
