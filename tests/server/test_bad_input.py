"""Whatever is sent: a clear 4xx as a problem document, nothing kept, and never a fault of the server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.world import World
from watteau.domain.people import Role
from watteau.server.edge import MOST_BODY_BYTES
from watteau.server.schemas import Problem
from watteau.store.store import Store, StoreUnavailable

JSON = {"Content-Type": "application/json"}
PATHS = ("/jobs", "/jobs/bulk", "/login", "/users", "/tokens")

BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "NUL": b'{"name": "a\x00b"}',
    "escaped NUL": rb'{"name": "a\u0000b", "command": ["true"]}',
    "half a surrogate pair": rb'{"name": "\ud800", "command": ["true"]}',
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "deep arrays": b"[" * 1_000_000,
    "deep objects": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "a huge number": b'{"workers": ' + b"9" * 100_000 + b"}",
    "a huge exponent": b'{"workers": 1e999999}',
    "not a number": b'{"workers": NaN}',
    "an array": b"[]",
    "null": b"null",
    "a string": b'"x"',
    "trailing words": b"{} {}",
}

REQUESTS: dict[str, dict[str, Any]] = {
    "a number as a string": {"workers": "2"},
    "a string as a number": {"name": 7},
    "a boolean as a number": {"workers": True},
    "a fraction": {"workers": 1.5},
    "a number out of range": {"workers": 2**63},
    "less than nothing": {"gpu_milli": -1},
    "a path in the name": {"name": "../../x"},
    "a line break in the name": {"name": "a\nb"},
    "NUL in an argument": {"command": ["a\x00b"]},
    "NUL in a path": {"stdout": "/tmp/a\x00b"},
    "a line break in a path": {"stdout": "/tmp/a\nb"},
    "a folder that is not absolute": {"workdir": "../x"},
    "NUL in the environment": {"environment": {"A": "b\x00"}},
    "an environment name with =": {"environment": {"A=B": "c"}},
    "a million tasks": {"array": {"indices": list(range(1_000_000))}},
    "an index twice": {"array": {"indices": [1, 1]}},
    "an unknown state": {"kind": "dance"},
    "an unknown field": {"comand": ["true"]},
    "a dependency on nothing": {"dependencies": [{"after": "afterok", "job_id": 0}]},
    "a dependency beyond all ids": {"dependencies": [{"after": "afterok", "job_id": 2**62}]},
    "a tenant of another kind": {"tenant": ["alpha"]},
    "a tenant with NUL": {"tenant": "a\x00"},
    "a time before time": {"begin_s": -1},
    "a time beyond time": {"deadline_s": 2**41},
    "null where a value must be": {"workers": None},
}


def is_a_refusal(said: Any) -> Problem:
    assert 400 <= said.status_code < 500, said.text
    assert said.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(said.content)
    assert problem.status == said.status_code
    assert problem.request_id == said.headers["x-request-id"]
    assert problem.title
    assert problem.detail
    assert "Traceback" not in said.text
    return problem


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_cannot_be_read_is_refused_everywhere(world: World, kind: str) -> None:
    for path in PATHS:
        is_a_refusal(world.ask("root", "POST", path, content=BODIES[kind], headers=JSON))
    is_a_refusal(world.ask("root", "PATCH", "/users/member", content=BODIES[kind], headers=JSON))
    assert world.store.last_seq() == 0


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_without_sense_is_refused_and_says_where(world: World, kind: str) -> None:
    body = {"command": ["true"], "tenant": "alpha-lab"} | REQUESTS[kind]
    said = world.ask("member", "POST", "/jobs", json=body)
    problem = is_a_refusal(said)
    assert said.status_code == 422
    field = next(iter(REQUESTS[kind]))
    assert problem.errors
    assert field in problem.errors[0].pointer + problem.errors[0].message
    assert world.store.last_seq() == 0


def test_every_invalid_field_is_named_and_no_value_is_repeated(world: World) -> None:
    body = {"command": ["true"], "workers": 0, "gpu_milli": -1, "environment": {"bad name": "hunter2"}, "x": "hunter3"}
    said = world.ask("member", "POST", "/jobs", json=body)
    assert {error.pointer for error in is_a_refusal(said).errors} == {
        "/workers",
        "/gpu_milli",
        "/environment/bad name/[key]",
        "/x",
    }
    assert "hunter" not in said.text


def test_ten_mebibytes_are_enough(world: World) -> None:
    body = json.dumps({"command": ["true"], "tenant": "alpha-lab"}).encode()
    largest = body + b" " * (MOST_BODY_BYTES - len(body))
    assert world.ask("member", "POST", "/jobs", content=largest, headers=JSON).status_code == 201
    assert world.ask("member", "POST", "/jobs", content=largest + b" ", headers=JSON).status_code == 413

    def pieces() -> Iterator[bytes]:
        yield from (largest[start : start + 65_536] for start in range(0, len(largest), 65_536))
        yield b" "

    said = world.ask("member", "POST", "/jobs", content=pieces(), headers=JSON)
    assert said.status_code == 413
    assert is_a_refusal(said).code == "too_large"
    for length in ("99999999999999999999999999", str(MOST_BODY_BYTES + 1)):
        said = world.ask("member", "POST", "/jobs", content=b"{}", headers=JSON | {"Content-Length": length})
        assert is_a_refusal(said).code == "too_large"


@pytest.mark.parametrize("kind", ["text/plain", "", "multipart/form-data; boundary=x", "application/xml"])
def test_a_body_must_be_said_to_be_json(world: World, kind: str) -> None:
    said = world.ask("member", "POST", "/jobs", content=b"{}", headers={"Content-Type": kind})
    assert said.status_code == 415
    is_a_refusal(said)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/jobs/", 404),
        ("GET", "/jobs/17/../18", 404),
        ("GET", "/jobs/..%2f..%2fetc", 404),
        ("GET", "/jobs/%00", 404),
        ("GET", "/jobs/%ff", 404),
        ("GET", "/jobs/" + "9" * 5_000, 422),
        ("GET", "/jobs/1e3", 404),
        ("PATCH", "/users/%00", 404),
        ("PATCH", "/users/" + "x" * 5_000, 422),
        ("DELETE", "/tokens/0", 422),
        ("DELETE", "/tokens/9223372036854775808", 422),
        ("DELETE", "/tokens/x", 422),
        ("PUT", "/jobs", 405),
        ("DELETE", "/jobs/1", 405),
        ("TRACE", "/jobs", 405),
        ("OPTIONS", "/jobs", 405),
        ("HEAD", "/jobs", 405),
        ("GET", "/login", 405),
        ("GET", "/events?after=-1", 422),
        ("GET", "/events?job=0", 404),
        ("GET", "/audit?after=99999999999999999999", 422),
        ("GET", "/jobs?tenant=%00", 404),
        ("GET", "/jobs?state=%00", 422),
        ("GET", "/jobs?stat=running", 422),
        ("GET", "/jobs?=x", 422),
        ("GET", "/jobs?%ff=%00", 422),
        ("GET", "/me?x=1", 422),
        ("GET", "/jobs/1/story?after=x", 404),
    ],
)
def test_paths_and_queries_without_sense_are_refused(world: World, method: str, path: str, status: int) -> None:
    said = world.ask("root", method, path, headers=JSON, **({"content": b"{}"} if method == "PATCH" else {}))
    assert said.status_code == status
    if method != "HEAD":
        is_a_refusal(said)
    if status == 405:
        assert said.headers["allow"]


@pytest.mark.parametrize("header", ["x", "-1", "9" * 30, ""])
def test_a_last_event_id_that_is_none_is_refused(world: World, header: str) -> None:
    is_a_refusal(world.ask("root", "GET", "/events", headers={"Last-Event-ID": header}))


@pytest.mark.parametrize("given", ["x" * 65, "a b", "a\tb", '"><script>', "{}"])
def test_a_request_id_that_could_harm_a_log_is_replaced(world: World, given: str) -> None:
    said = world.ask(None, "GET", "/healthz", headers={"X-Request-ID": given})
    assert said.headers["x-request-id"] != given
    assert world.ask(None, "GET", "/healthz", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"


class BrokenStore(Store):
    """A store whose disk filled up after it had been opened."""

    said = "sqlite:////secret/place.db: the disk is full; free some space"
    broken = False

    def submit(self, *args: Any, **rest: Any) -> Any:
        if self.broken:
            raise StoreUnavailable(self.said)
        return super().submit(*args, **rest)

    def check(self) -> None:
        if self.broken:
            raise StoreUnavailable(self.said)

    def counts(self) -> dict[tuple[str, str], int]:
        if self.broken:
            raise StoreUnavailable(self.said)
        return super().counts()

    def job(self, job_id: Any) -> Any:
        if self.broken:
            raise KeyError("password=hunter2")
        return super().job(job_id)


@pytest.fixture
def broken(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("tests.server.world.Store", BrokenStore)
    world = World(tmp_path)
    world.person("member", (Role.MEMBER, "beta"))
    assert isinstance(world.store, BrokenStore)
    world.store.broken = True
    return world


def test_a_full_disk_is_a_503_that_says_so_and_not_where(broken: World) -> None:
    said = broken.ask("member", "POST", "/jobs", json={"command": ["true"]})
    assert said.status_code == 503
    assert said.headers["content-type"] == "application/problem+json"
    assert said.headers["retry-after"]
    problem = Problem.model_validate_json(said.content)
    assert problem.code == "store_unavailable"
    assert "the disk is full" in problem.detail
    assert "secret" not in said.text
    ready = broken.ask(None, "GET", "/readyz")
    assert (ready.status_code, ready.json()["store"]) == (503, "the disk is full; free some space")
    assert "watteau_store_up 0.0" in broken.ask(None, "GET", "/metrics").text
    assert broken.ask(None, "GET", "/healthz").status_code == 200


def test_a_fault_of_ours_is_a_500_without_its_words(broken: World) -> None:
    said = broken.ask("member", "GET", "/jobs/1")
    assert said.status_code == 500
    problem = Problem.model_validate_json(said.content)
    assert problem.code == "internal"
    fault = next(line for line in broken.log_lines() if line["event"] == "fault")
    assert (fault["request_id"], fault["kind"]) == (problem.request_id, "KeyError")
    assert any("find_job" in place for place in fault["passed"])
    assert "hunter2" not in said.text + broken.log.getvalue()
