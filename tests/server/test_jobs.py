"""Submitting, listing, looking at and changing jobs over HTTP."""

from typing import Any

import pytest

from tests.server.world import START_MS, World
from watteau.domain.decisions import Reason
from watteau.domain.people import Role
from watteau.domain.records import Waits
from watteau.domain.requests import JobId
from watteau.server.schemas import BulkView, Evidence, JobDetail, JobView, PageView, StoryView, WhyView

A_JOB = {"name": "train", "command": ["python", "train.py"], "tenant": "alpha-lab", "gpu_milli": 2000, "workers": 2}


def submitted(world: World, **more: Any) -> JobView:
    said = world.ask("member", "POST", "/jobs", json=A_JOB | more)
    assert said.status_code == 201, said.text
    return JobView.model_validate_json(said.content)


# --- submit -----------------------------------------------------------------------------------------------------------


def test_a_submitted_job_is_in_the_store_and_the_controller_is_woken(world: World) -> None:
    said = world.ask("member", "POST", "/jobs", json=A_JOB)
    assert said.status_code == 201
    job = JobView.model_validate_json(said.content)
    assert said.headers["location"] == f"/api/v1/jobs/{job.id}"
    assert (job.label, job.name, job.tenant, job.user, job.state, job.gpus) == (
        str(job.id),
        "train",
        "alpha-lab",
        "member",
        "waiting",
        4.0,
    )
    assert world.store.job(JobId(job.id)).request.command == ("python", "train.py")
    assert world.live.woken == 1
    shown = JobDetail.model_validate_json(world.ask("member", "GET", said.headers["location"]).content)
    assert shown.request.gpu_milli == 2000


def test_an_array_is_answered_with_its_first_task_and_found_by_its_indices(world: World) -> None:
    first = submitted(world, array={"indices": [3, 1, 7]})
    assert first.array is not None
    assert (first.array.id, first.array.index, first.label) == (first.id, 3, f"{first.id}_3")
    task = world.ask("member", "GET", f"/jobs/{first.id}_7").json()
    assert (task["id"], task["label"]) == (first.id + 2, f"{first.id}_7")
    for label in (
        f"{first.id}_2",
        f"{first.id + 1}_1",
        f"{first.id}_",
        "0",
        "x",
        "-1",
        "9" * 30,
        f"{first.id}_3_1",
        "٣",
    ):
        assert world.ask("member", "GET", f"/jobs/{label}").status_code == 404, label
    listed = PageView.model_validate_json(world.ask("member", "GET", f"/jobs?array={first.id}").content)
    assert sorted(job.label for job in listed.jobs) == sorted(f"{first.id}_{index}" for index in (1, 3, 7))


def test_the_same_key_is_answered_as_the_first_time(world: World) -> None:
    key = {"Idempotency-Key": "once"}
    first = world.ask("member", "POST", "/jobs", json=A_JOB, headers=key)
    again = world.ask("member", "POST", "/jobs", json=A_JOB, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    other = world.ask("member", "POST", "/jobs", json=A_JOB | {"name": "other"}, headers=key)
    assert other.status_code == 409
    elsewhere = world.ask("member", "POST", "/jobs/bulk", json={"jobs": [A_JOB]}, headers=key)
    assert elsewhere.status_code == 409
    of_another = world.ask("tenant_owner", "POST", "/jobs", json=A_JOB, headers=key)
    assert of_another.json()["id"] != first.json()["id"]
    assert len(world.ask("root", "GET", "/jobs").json()["jobs"]) == 2


@pytest.mark.parametrize("key", ["x" * 256, "a b", "\u00e9"])
def test_a_key_that_cannot_be_kept_is_refused(world: World, key: str) -> None:
    said = world.ask("member", "POST", "/jobs", json=A_JOB, headers={"Idempotency-Key": key.encode()})
    assert said.status_code == 422


def test_who_has_one_tenant_need_not_name_it(world: World) -> None:
    assert world.ask("stranger", "POST", "/jobs", json={"command": ["true"]}).json()["tenant"] == "beta"
    said = world.ask("member", "POST", "/jobs", json={"command": ["true"]})
    assert said.status_code == 422
    assert said.json()["errors"] == [{"pointer": "/tenant", "message": "say which tenant pays: alpha-lab, alpha-prod"}]


def test_a_tenant_with_others_below_it_takes_no_jobs(world: World) -> None:
    said = world.ask("root", "POST", "/jobs", json=A_JOB | {"tenant": "alpha"})
    assert said.status_code == 422
    assert "alpha-lab, alpha-prod" in said.json()["errors"][0]["message"]


def test_a_bulk_is_answered_in_order_with_the_tasks_of_each(world: World) -> None:
    jobs = [A_JOB, A_JOB | {"array": {"indices": [0, 1, 2]}}, A_JOB]
    said = world.ask("member", "POST", "/jobs/bulk", json={"jobs": jobs})
    assert said.status_code == 201
    view = BulkView.model_validate_json(said.content)
    assert [each.tasks for each in view.jobs] == [1, 3, 1]
    assert [each.id - view.jobs[0].id for each in view.jobs] == [0, 1, 4]


def test_a_bulk_is_kept_whole_or_not_at_all_and_every_invalid_job_is_named(world: World) -> None:
    jobs = [
        A_JOB,
        A_JOB | {"workers": 0},
        A_JOB | {"tenant": 7},
        A_JOB | {"name": "a/b"},
        A_JOB | {"surprise": True},
    ]
    said = world.ask("member", "POST", "/jobs/bulk", json={"jobs": jobs})
    assert said.status_code == 422
    assert [error["pointer"] for error in said.json()["errors"]] == [
        "/jobs/1/workers",
        "/jobs/2/tenant",
        "/jobs/3",
        "/jobs/4/surprise",
    ]
    jobs = [A_JOB, A_JOB | {"tenant": "gamma"}, A_JOB | {"dependencies": [{"after": "afterok", "job_id": 999}]}]
    said = world.ask("member", "POST", "/jobs/bulk", json={"jobs": jobs})
    assert [error["pointer"] for error in said.json()["errors"]] == [
        "/jobs/1/tenant",
        "/jobs/2/dependencies/0/job_id",
    ]
    assert world.ask("root", "GET", "/jobs").json()["jobs"] == []
    assert world.live.woken == 0


def test_a_bulk_has_a_most(world: World) -> None:
    said = world.ask("member", "POST", "/jobs/bulk", json={"jobs": [{"command": ["x"]}] * 10_001})
    assert said.status_code == 422
    assert world.ask("member", "POST", "/jobs/bulk", json={"jobs": []}).status_code == 422


def test_a_dependency_on_a_job_of_others_is_as_one_on_no_job(world: World) -> None:
    theirs = world.job("stranger", "beta")
    mine = submitted(world)
    asked = [{"after": "afterok", "job_id": job_id} for job_id in (theirs.job_id, mine.id)]
    said = world.ask("member", "POST", "/jobs", json=A_JOB | {"dependencies": asked})
    assert said.status_code == 422
    assert said.json()["errors"] == [
        {"pointer": "/dependencies/0/job_id", "message": f"there is no job {theirs.job_id}"}
    ]
    assert submitted(world, dependencies=asked[1:]).id > mine.id


# --- look -------------------------------------------------------------------------------------------------------------


def test_pages_hold_every_job_once_while_jobs_are_added(world: World) -> None:
    for _ in range(7):
        submitted(world)
    seen: list[int] = []
    cursor = ""
    while True:
        page = PageView.model_validate_json(world.ask("member", "GET", f"/jobs?limit=3{cursor}").content)
        seen += [job.id for job in page.jobs]
        submitted(world)
        if page.next_cursor is None:
            break
        cursor = f"&cursor={page.next_cursor}"
    assert seen == [7, 6, 5, 4, 3, 2, 1]


def test_conditions_hold_at_once(world: World) -> None:
    mine, held = submitted(world, name="one"), submitted(world, name="two", held=True)
    other = world.job("tenant_owner", "alpha-prod", name="one")
    world.start(other.job_id)

    def ids(query: str) -> list[int]:
        return [job["id"] for job in world.ask("member", "GET", f"/jobs?{query}").json()["jobs"]]

    assert ids("state=held") == [held.id]
    assert ids("state=held&state=running") == [other.job_id, held.id]
    assert ids("name=one") == [other.job_id, mine.id]
    assert ids("name=one&user=member") == [mine.id]
    assert ids("tenant=alpha") == [other.job_id, held.id, mine.id]
    assert ids("tenant=alpha-prod") == [other.job_id]
    assert ids("site=paris") == [other.job_id]


@pytest.mark.parametrize("tenant", ["beta", "gamma", "programme"])
def test_a_tenant_that_one_may_not_see_is_not_there(world: World, tenant: str) -> None:
    world.job("stranger", "beta")
    said = world.ask("member", "GET", f"/jobs?tenant={tenant}")
    if tenant == "programme":  # above one's own: what is asked for is cut to what one may see
        assert said.json()["jobs"] == []
    else:
        assert said.status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "cursor=x",
        "cursor=%00",
        "cursor=" + "A" * 400,
        "limit=0",
        "limit=1001",
        "limit=x",
        "state=lost",
        "array=0",
        "array=99999999999999999999",
        "user=%00",
        "name=" + "x" * 129,
    ],
)
def test_a_query_that_says_nothing_sensible_is_refused(world: World, query: str) -> None:
    said = world.ask("member", "GET", f"/jobs?{query}")
    assert said.status_code == 422
    assert said.headers["content-type"] == "application/problem+json"
    assert said.json()["errors"][0]["pointer"].startswith(f"#query/{query.partition('=')[0]}")


def test_only_names_of_environment_variables_are_shown(world: World) -> None:
    job = submitted(world, environment={"API_KEY": "hunter2-secret", "B": "x"})
    for path in ("", "/story", "/why", "/attempts"):
        assert "hunter2-secret" not in world.ask("member", "GET", f"/jobs/{job.id}{path}").text
    shown = JobDetail.model_validate_json(world.ask("member", "GET", f"/jobs/{job.id}").content)
    assert shown.request.environment_names == ("API_KEY", "B")
    assert "hunter2-secret" not in world.ask("member", "GET", "/jobs").text
    assert "hunter2-secret" not in world.log.getvalue()


def test_why_gives_the_reason_and_the_controllers_figures(world: World) -> None:
    job = submitted(world)
    world.record(Waits(JobId(job.id), Reason.CAPACITY, "needs 4 GPUs, 1 is free"))
    world.live.evidence = Evidence(jobs_ahead=12)
    why = WhyView.model_validate_json(world.ask("member", "GET", f"/jobs/{job.id}/why").content)
    assert (why.reason, why.code, why.detail) == ("CAPACITY", 50, "needs 4 GPUs, 1 is free")
    assert why.sentence == "Not enough GPUs, CPU cores or memory are free together."
    assert why.evidence == Evidence(jobs_ahead=12)


def test_the_story_is_told_in_order_and_in_words(world: World) -> None:
    job = submitted(world)
    world.record(Waits(JobId(job.id), Reason.CAPACITY))
    world.start(JobId(job.id))
    world.end(JobId(job.id))
    story = StoryView.model_validate_json(world.ask("member", "GET", f"/jobs/{job.id}/story").content)
    assert [event.text for event in story.events] == [
        "Submitted by member.",
        "Waits: Not enough GPUs, CPU cores or memory are free together.",
        "Attempt 1 was decided for site paris.",
        "Attempt 1 runs.",
        "Attempt 1 ended: completed, exit code 0.",
        "The job ended: completed.",
    ]
    rest = world.ask("member", "GET", f"/jobs/{job.id}/story?after={story.events[3].seq}").json()["events"]
    assert [event["kind"] for event in rest] == ["ended", "finished"]
    attempts = world.ask("member", "GET", f"/jobs/{job.id}/attempts").json()["attempts"]
    assert [(each["number"], each["outcome"], each["site"]) for each in attempts] == [(1, "completed", "paris")]


# --- change -----------------------------------------------------------------------------------------------------------


def test_hold_release_and_cancel_are_written_down_and_wake_the_controller(world: World) -> None:
    job = submitted(world)
    held = world.ask("member", "POST", f"/jobs/{job.id}/hold").json()["jobs"][0]
    assert (held["state"], held["reason"]) == ("held", "STOPPED")
    released = world.ask("member", "POST", f"/jobs/{job.id}/release").json()["jobs"][0]
    assert released["state"] == "waiting"
    assert world.ask("member", "POST", f"/jobs/{job.id}/cancel").json()["jobs"][0]["cancel_requested"] is True
    assert world.live.woken == 4
    audit = world.ask("root", "GET", "/audit?limit=1000").json()["lines"]
    assert [line["action"] for line in audit if line["user"] == "member"] == ["hold", "release", "cancel"]


def test_what_has_ended_or_runs_is_not_held(world: World) -> None:
    job = submitted(world)
    world.start(JobId(job.id))
    assert world.ask("member", "POST", f"/jobs/{job.id}/hold").status_code == 409
    world.end(JobId(job.id))
    assert world.ask("member", "POST", f"/jobs/{job.id}/hold").status_code == 409
    assert world.ask("member", "POST", f"/jobs/{job.id}/release").status_code == 409
    cancelled = world.ask("member", "POST", f"/jobs/{job.id}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json()["jobs"][0]["state"] == "completed"


def test_all_tasks_of_an_array_are_changed_at_once(world: World) -> None:
    first = submitted(world, array={"indices": list(range(5))})
    said = world.ask("member", "POST", f"/jobs/{first.id}/cancel?array=true").json()["jobs"]
    assert [job["cancel_requested"] for job in said] == [True] * 5
    assert world.ask("member", "POST", f"/jobs/{first.id + 1}/cancel?array=true").status_code == 409
    one = submitted(world)
    assert world.ask("member", "POST", f"/jobs/{one.id}/cancel?array=true").status_code == 409


# --- logs -------------------------------------------------------------------------------------------------------------


def test_a_log_is_read_piece_by_piece(world: World) -> None:
    job = submitted(world)
    empty = world.ask("member", "GET", f"/jobs/{job.id}/log")
    assert (empty.content, empty.headers["x-log-complete"], empty.headers["x-log-attempt"]) == (b"", "false", "0")
    world.start(JobId(job.id))
    waiting = world.ask("member", "GET", f"/jobs/{job.id}/log")  # it runs and has written nothing yet
    assert (waiting.status_code, waiting.headers["x-log-end"]) == (200, "0")
    world.live.logs[job.id, 1, "stdout"] = (b"hello \xff world", True)
    piece = world.ask("member", "GET", f"/jobs/{job.id}/log?start=2&most=6")
    assert (piece.content, piece.headers["x-log-end"], piece.headers["x-log-complete"]) == (b"llo \xff ", "8", "false")
    rest = world.ask("member", "GET", f"/jobs/{job.id}/log?start=8")
    assert (rest.content, rest.headers["x-log-complete"]) == (b"world", "true")
    assert rest.headers["x-content-type-options"] == "nosniff"


def test_a_log_that_is_not_kept_is_not_found(world: World) -> None:
    job = submitted(world)
    world.start(JobId(job.id))
    world.end(JobId(job.id))
    said = world.ask("member", "GET", f"/jobs/{job.id}/log?stream=stderr")
    assert (said.status_code, said.json()["code"]) == (404, "no_log")
    assert world.ask("member", "GET", f"/jobs/{job.id}/log?attempt=2").status_code == 404
    assert world.ask("member", "GET", f"/jobs/{job.id}/log?stream=../x").status_code == 422


def test_a_silent_engine_is_said_to_be_so(world: World) -> None:
    job = submitted(world)
    world.start(JobId(job.id))
    world.live.unreachable = True
    said = world.ask("member", "GET", f"/jobs/{job.id}/log")
    assert (said.status_code, said.json()["code"]) == (503, "engine_unreachable")
    assert int(said.headers["retry-after"]) > 0


def test_wait_answers_at_the_end_or_when_time_is_up(world: World) -> None:
    job = submitted(world)
    assert world.ask("member", "GET", f"/jobs/{job.id}/wait?timeout_s=0").json()["state"] == "waiting"
    world.start(JobId(job.id))
    world.end(JobId(job.id))
    assert world.ask("member", "GET", f"/jobs/{job.id}/wait?timeout_s=60").json()["state"] == "completed"
    for wrong in ("-1", "nan", "inf", "3601", "x"):
        assert world.ask("member", "GET", f"/jobs/{job.id}/wait?timeout_s={wrong}").status_code == 422


# --- fleet ------------------------------------------------------------------------------------------------------------


def test_usage_is_of_ones_own_part_and_exact(world: World) -> None:
    job = submitted(world)
    world.start(JobId(job.id))
    world.clock.at_ms += 3_600_000
    world.end(JobId(job.id))
    theirs = world.job("stranger", "beta")
    world.start(theirs.job_id)
    lines = world.ask("member", "GET", "/usage?by=user").json()["usage"]
    assert [line["key"] for line in lines] == ["member"]
    attempt = world.store.attempts(JobId(job.id))[0]
    assert attempt.ended_ms is not None
    assert attempt.started_ms is not None
    assert lines[0]["gpu_milli_ms"] == 4000 * (attempt.ended_ms - attempt.started_ms)
    assert (lines[0]["jobs"], lines[0]["by_hand_jobs"]) == (1, 0)


def test_usage_has_the_jobs_by_hand_of_ones_own_part(world: World) -> None:
    hour_ms = 3_600_000
    world.by_hand("7", "alpha-lab", START_MS - hour_ms, START_MS, gpus=2)
    world.by_hand("8", "beta", START_MS - hour_ms, START_MS, gpus=4)
    (line,) = world.ask("member", "GET", "/usage").json()["usage"]
    assert (line["key"], line["jobs"], line["by_hand_jobs"], line["gpu_hours"]) == ("alpha-lab", 1, 1, 2.0)
    every = world.ask("root", "GET", "/usage?by=site").json()["usage"]
    assert [(line["key"], line["by_hand_jobs"], line["gpu_hours"]) for line in every] == [("paris", 2, 6.0)]


@pytest.mark.parametrize(
    "query",
    [
        "since=2026-01-05T12:00:00",
        "since=1969-01-01T00:00:00Z",
        "since=2027-01-01T00:00:00Z&until=2026-01-01T00:00:00Z",
        "by=shoe",
        "until=0001-01-01T00:00:00%2B14:00",
        "until=x",
        "until=1767614400",
        "until=2026-01-05",
    ],
)
def test_a_span_without_sense_is_refused(world: World, query: str) -> None:
    assert world.ask("member", "GET", f"/usage?{query}").status_code == 422


def test_two_roles_see_one_list(world: World) -> None:
    world.person("both", (Role.MEMBER, "beta"), (Role.AUDITOR, "alpha-lab"))
    world.job("member", "alpha-lab"), world.job("member", "alpha-prod"), world.job("stranger", "beta")
    assert [job["tenant"] for job in world.ask("both", "GET", "/jobs").json()["jobs"]] == ["beta", "alpha-lab"]
