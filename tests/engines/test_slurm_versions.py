"""API versions that no daemon here speaks, by answers of the shapes that Slurm's sources and documentation give."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from tests.engines.kits import now_ms
from tests.engines.slurmrestd import Slurmrestd, answering
from watteau.domain.fleet import SlurmAccess
from watteau.domain.sites import Held, Partition, Reservation
from watteau.engines.contract import EngineUnreachable, LaunchRefused, NoAccounting
from watteau.engines.slurm.facts import InDoubt, Submission, TokenRefused
from watteau.engines.slurm.rest import RestSlurm
from watteau.engines.slurm.tokens import read_token

_PATHS = ("diag", "ping", "jobs", "job/submit", "nodes", "partitions", "reservations")


def paths(*versions: str, accounting: bool = True) -> tuple[int, Any]:
    """The description of an API of these versions."""
    found: dict[str, Any] = {f"/slurm/{version}/{path}": {} for version in versions for path in _PATHS}
    if accounting:
        found |= {f"/slurmdb/{version}/jobs": {} for version in versions}
    return 200, {"openapi": "3.0.3", "paths": found | {"/openapi/v3": {}}}


def n(number: float | None) -> dict[str, Any]:
    """A number as v0.0.39 and later wrap it."""
    return {"set": number is not None, "infinite": False, "number": number or 0}


INFINITE = {"set": False, "infinite": True, "number": 0}
META = {"plugin": {"type": "openapi/slurmctld"}, "slurm": {"version": {"major": "24"}, "release": "24.05.3"}}

SUBMISSION = Submission(
    name="watteau-7-1",
    script="#!/bin/sh\nexit 0\n",
    comment="a comment",
    folder="/tmp",
    stdout="/dev/null",
    stderr="",
    environment={"PATH": "/usr/bin:/bin", "X": "a=b"},
    nodes=2,
    cpus_per_node=8,
    gpus_per_node=4,
    gpu_type="h100",
    constraint="nvlink",
    memory_mib_per_node=65_536,
    time_limit_s=90,
    partition="gpu",
    account="",
    qos="",
    node_names=(),
    grace_s=0,
)


def job_39(**changes: Any) -> dict[str, Any]:
    """A job that ended, by v0.0.39."""
    return {
        "job_id": 17,
        "array_job_id": n(0),
        "array_task_id": n(None),
        "array_task_string": "",
        "name": "train",
        "user_name": "ada",
        "account": "lab",
        "partition": "gpu",
        "comment": "",
        "job_state": "FAILED",
        "state_reason": "NonZeroExitCode",
        "submit_time": 1_700_000_000,
        "eligible_time": 1_700_000_000,
        "start_time": 1_700_000_010,
        "end_time": 1_700_000_020,
        "time_limit": n(60),
        "priority": n(4_294_901_758),
        "nodes": "gpu[1-2]",
        "node_count": n(2),
        "cpus": n(20),
        "tasks": n(2),
        "memory_per_node": n(1_000),
        "memory_per_cpu": n(None),
        "tres_req_str": "cpu=20,mem=2000M,node=2,billing=20,gres/gpu=8",
        "tres_alloc_str": "cpu=20,mem=2000M,node=2,billing=20,gres/gpu=8,gres/gpu:h100=8",
        "gres_detail": ["gpu:h100:4(IDX:0-3)", "gpu:h100:4(IDX:0-3)"],
        "job_resources": {
            "nodes": "gpu[1-2]",
            "allocated_cores": 20,
            "allocated_nodes": [
                {"nodename": "gpu1", "sockets": {"0": {"cores": {str(core): "allocated" for core in range(16)}}}},
                {"nodename": "gpu2", "sockets": {"0": {"cores": {str(core): "allocated" for core in range(4)}}}},
            ],
        },
        "exit_code": n(768),
        "restart_cnt": 1,
        **changes,
    }


def job_40(**changes: Any) -> dict[str, Any]:
    """The same by v0.0.40."""
    times = {name: n(job_39()[name]) for name in ("submit_time", "eligible_time", "start_time", "end_time")}
    code = {"status": ["ERROR"], "return_code": n(3), "signal": {"id": n(None), "name": ""}}
    return job_39() | times | {"job_state": ["FAILED"], "exit_code": code} | changes


def job_41(**changes: Any) -> dict[str, Any]:
    """The same by v0.0.41 and later."""
    allocation = [
        {"index": 0, "name": "gpu1", "cpus": {"count": 16, "used": 0}, "memory": {"used": 0, "allocated": 1_000}},
        {"index": 1, "name": "gpu2", "cpus": {"count": 4, "used": 0}, "memory": {"used": 0, "allocated": 1_000}},
    ]
    nodes = {"count": 2, "select_type": ["AVAILABLE"], "list": "gpu[1-2]", "whole": False, "allocation": allocation}
    return job_40() | {"job_resources": {"select_type": ["CORE", "MEMORY"], "nodes": nodes, "cpus": 20}} | changes


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Any]:
    """Opens a cluster whose slurmrestd gives these answers."""
    opened: list[Any] = []

    def open_site(answers: Mapping[str, tuple[int, Any]], token: str = "t") -> tuple[RestSlurm, Slurmrestd]:
        file = tmp_path / "token"
        file.write_text(token)
        served = answering(answers)
        daemon = served.__enter__()
        slurm = RestSlurm(SlurmAccess(user="ada", folder="/s", rest_url=daemon.url, token_file=str(file)), now_ms)
        opened.extend([slurm.close, lambda: served.__exit__(None, None, None)])
        return slurm, daemon

    yield open_site
    for close in opened:
        close()


def served(version: str, **answers: Any) -> dict[str, tuple[int, Any]]:
    """What a daemon of one version answers; `jobs=[...]` is the answer to GET /jobs."""
    diag = {"meta": META, "errors": [], "statistics": {"req_time": n(int(time.time()))}}
    known: dict[str, tuple[int, Any]] = {
        "GET /openapi/v3": paths(version),
        f"GET /slurm/{version}/diag": (200, diag),
    }
    for name, said in answers.items():
        known[f"GET /slurm/{version}/{name}"] = (200, {"meta": META, "errors": [], "warnings": [], name: said})
    return known


@pytest.mark.parametrize(
    ("version", "job"), [("v0.0.39", job_39), ("v0.0.40", job_40), ("v0.0.41", job_41), ("v0.0.43", job_41)]
)
def test_a_job_is_the_same_by_each_version(site: Any, version: str, job: Any) -> None:
    rest = job(
        job_id=20,
        array_job_id=n(20),
        array_task_string="3-9%2",
        job_state="PENDING" if version == "v0.0.39" else ["PENDING"],
        state_reason="Resources",
        nodes="",
        time_limit=INFINITE,
        job_resources=None if version == "v0.0.39" else {},
        restart_cnt=0,
    )
    killed = job(
        exit_code=n(9)
        if version == "v0.0.39"
        else {"status": ["SIGNALED"], "return_code": n(0), "signal": {"id": n(9), "name": "SIGKILL"}}
    )
    slurm, _ = site(served(version, jobs=[job(), rest, killed]))
    listing = slurm.jobs()
    assert listing is not None
    failed, waits, shot = listing.jobs
    assert (failed.state, failed.exit_code, failed.signal, failed.restarts) == ("FAILED", 3, None, 1)
    assert (failed.submit_s, failed.start_s, failed.end_s) == (1_700_000_000, 1_700_000_010, 1_700_000_020)
    assert (failed.nodes, failed.gpus, failed.cpus, failed.memory_mib) == (("gpu1", "gpu2"), 8, 20, 2_000)
    assert failed.held == (Held("gpu1", 4, 16, 1_000), Held("gpu2", 4, 4, 1_000))
    assert (failed.time_limit_s, failed.array_job_id, failed.array_task_id) == (3_600, 0, None)
    assert (waits.label, waits.tasks, waits.time_limit_s, waits.reason) == ("20_[3-9%2]", 7, 0, "Resources")
    assert (waits.nodes, waits.held, waits.start_s, waits.end_s, waits.exit_code) == ((), (), None, None, None)
    assert (shot.exit_code, shot.signal) == (None, 9)
    assert slurm.version == f"Slurm 24.05.3, slurmrestd {version}"


def test_a_job_that_completes_its_end_says_both(site: Any) -> None:
    slurm, _ = site(served("v0.0.40", jobs=[job_40(job_state=["CANCELLED", "COMPLETING"])]))
    (job,) = slurm.jobs().jobs
    assert (job.state, job.flags) == ("CANCELLED", {"COMPLETING"})


@pytest.mark.parametrize("version", ["v0.0.39", "v0.0.40", "v0.0.43"])
def test_nodes_partitions_and_reservations_are_the_same_by_each_version(site: Any, version: str) -> None:
    node = {
        "name": "gpu1",
        "state": ["MIXED", "DRAIN", "NOT_RESPONDING"],
        "reason": "bad fan",
        "cpus": 128,
        "real_memory": 2_000_000,
        "gres": "gpu:h100:8(S:0-1)",
        "features": ["nvlink", "h100"],
        "partitions": ["gpu"],
    }
    partition = {
        "name": "gpu",
        "nodes": {"configured": "gpu[1-2]", "total": 2},
        "maximums": {"nodes": n(16), "time": n(1_440)},
        "minimums": {"nodes": 1},
        "defaults": {"time": INFINITE},
        "partition": {"state": ["UP"]},
    }
    reservation = {
        "name": "night",
        "start_time": n(1_700_000_000),
        "end_time": n(1_700_003_600),
        "node_list": "gpu[1-2]",
        "users": "ada,bob",
        "accounts": "",
        "flags": ["MAINT"],
    }
    slurm, _ = site(served(version, nodes=[node], partitions=[partition], reservations=[reservation]))
    (found,) = slurm.nodes()
    assert (found.state, found.flags, found.reason) == ("MIXED", {"DRAIN", "NOT_RESPONDING"}, "bad fan")
    assert (found.cpus, found.memory_mib, found.gpus) == (128, 2_000_000, (("h100", 8),))
    assert (found.features, found.partitions) == (("nvlink", "h100"), ("gpu",))
    assert slurm.partitions() == (Partition("gpu", False, True, ("gpu1", "gpu2"), 86_400, 0, 16, 1),)
    assert slurm.reservations() == (
        Reservation("night", 1_700_000_000, 1_700_003_600, ("gpu1", "gpu2"), ("ada", "bob"), (), ("MAINT",)),
    )


def test_a_submission_is_in_the_words_of_the_version(site: Any) -> None:
    for version in ("v0.0.38", "v0.0.39", "v0.0.41", "v0.0.43"):
        answers = served(version) | {f"POST /slurm/{version}/job/submit": (200, {"errors": [], "job_id": 42})}
        slurm, daemon = site(answers)
        assert slurm.submit(SUBMISSION) == 42
        body = daemon.asked[-1][2]
        job = body["job"]
        common = {"name": "watteau-7-1", "nodes": "2", "tasks": 2, "tasks_per_node": 1, "cpus_per_task": 8}
        assert common.items() <= job.items()
        if version == "v0.0.38":
            assert job["environment"] == {"PATH": "/usr/bin:/bin", "X": "a=b"}
            assert (job["gres"], job["memory_per_node"], job["time_limit"]) == ("gpu:h100:4", 65_536, 2)
            assert job["no_requeue"] is True
        else:
            assert job["environment"] == ["PATH=/usr/bin:/bin", "X=a=b"]
            assert (job["tres_per_node"], job["memory_per_node"]) == ("gres/gpu:h100:4", n(65_536))
            assert (job["time_limit"], job["requeue"]) == (n(2), False)
        assert ("script" in job, "script" in body) == ((True, False) if version >= "v0.0.41" else (False, True))


def test_the_newest_version_that_both_speak_is_taken(site: Any) -> None:
    answers = served("v0.0.40", nodes=[]) | {"GET /openapi/v3": paths("v0.0.39", "v0.0.40", "v0.0.99")}
    slurm, daemon = site(answers)
    assert slurm.nodes() == ()
    assert daemon.asked[-1][0] == "GET /slurm/v0.0.40/nodes"


def test_a_description_may_lie_at_the_older_address(site: Any) -> None:
    answers = served("v0.0.38", nodes=[])
    answers["GET /openapi"] = answers.pop("GET /openapi/v3")
    slurm, _ = site(answers)
    assert slurm.nodes() == ()


def test_a_version_that_nobody_here_speaks_is_named(site: Any) -> None:
    slurm, _ = site({"GET /openapi/v3": paths("v0.0.35", "v0.0.99")})
    with pytest.raises(EngineUnreachable, match=r"speaks v0\.0\.35, v0\.0\.99 .* Watteau v0\.0\.38 to v0\.0\.43"):
        slurm.nodes()


def test_what_is_no_slurmrestd_is_named(site: Any) -> None:
    for said in ("<html>hello</html>", {"paths": 7}):
        slurm, _ = site({"GET /openapi/v3": (200, said)})
        with pytest.raises(EngineUnreachable, match="is no description of slurmrestd's API"):
            slurm.nodes()


def test_a_slurmrestd_of_another_version_may_take_its_place(site: Any) -> None:
    slurm, daemon = site(served("v0.0.39", nodes=[]))
    slurm.nodes()
    daemon.answers = served("v0.0.41", nodes=[])
    assert slurm.nodes() == ()
    assert daemon.asked[-1][0] == "GET /slurm/v0.0.41/nodes"


def test_that_nothing_changed_is_told_by_the_clusters_own_time(site: Any) -> None:
    answers = served("v0.0.40")
    listed = {"meta": META, "errors": [], "jobs": [], "last_update": n(1_700_000_000)}
    answers["GET /slurm/v0.0.40/jobs"] = (200, listed)
    slurm, daemon = site(answers)
    listing = slurm.jobs()
    assert listing is not None
    assert listing.as_of_s == 1_700_000_000
    daemon.answers = answers | {"GET /slurm/v0.0.40/jobs": (304, "")}
    assert slurm.jobs(listing) is None
    assert daemon.asked[-1][0] == "GET /slurm/v0.0.40/jobs?update_time=1700000000"
    unchanged = {"errors": [{"error_number": 1_900, "error": "Data has not changed since time specified"}]}
    daemon.answers = answers | {"GET /slurm/v0.0.40/jobs": (500, unchanged)}
    assert slurm.jobs(listing) is None


@pytest.mark.parametrize(("skew_s", "at_most"), [(3_600, 3_600), (-3_600, -3_600)])
def test_a_clock_that_is_wrong_here_hides_no_change(site: Any, skew_s: int, at_most: int) -> None:
    """v0.0.38 does not say when a listing was made: the cluster's clock is asked for."""
    diag = {"errors": [], "statistics": {"req_time": int(time.time()) + skew_s}}
    slurm, _ = site(served("v0.0.38", jobs=[]) | {"GET /slurm/v0.0.38/diag": (200, diag)})
    listing = slurm.jobs()
    assert listing is not None
    assert time.time() + at_most - 10 < listing.as_of_s <= time.time() + at_most


def test_the_accounting_is_the_same_by_each_version(site: Any) -> None:
    for version, wrap in (("v0.0.39", lambda x: x), ("v0.0.40", n)):
        past = {
            "job_id": 17,
            "array": {"job_id": 15, "task_id": n(2), "task": ""},
            "name": "watteau-7-1",
            "user": "ada",
            "account": "lab",
            "partition": "gpu",
            "state": {"current": "TIMEOUT" if version == "v0.0.39" else ["TIMEOUT"], "reason": "None"},
            "time": {
                "submission": 1_700_000_000,
                "eligible": 1_700_000_000,
                "start": 1_700_000_010,
                "end": 1_700_003_610,
                "limit": n(60),
            },
            "priority": n(7),
            "nodes": "gpu[1-2]",
            "allocation_nodes": 2,
            "tres": {
                "allocated": [
                    {"type": "cpu", "name": "", "id": 1, "count": 20},
                    {"type": "mem", "name": "", "id": 2, "count": 2_000},
                    {"type": "node", "name": "", "id": 4, "count": 2},
                    {"type": "gres", "name": "gpu", "id": 1_001, "count": 8},
                    {"type": "gres", "name": "gpu:h100", "id": 1_002, "count": 8},
                ],
                "requested": [],
            },
            "exit_code": {
                "return_code": wrap(0),
                "signal": {"signal_id": 15} if version == "v0.0.39" else {"id": n(15)},
            },
            "comment": {"job": "of ours"},
        }
        slurm, daemon = site(served(version) | {f"GET /slurmdb/{version}/jobs": (200, {"errors": [], "jobs": [past]})})
        (job,) = slurm.accounting(["watteau-7-1"], 1_699_999_999)
        assert (job.label, job.state, job.exit_code, job.signal) == ("15_2", "TIMEOUT", None, 15)
        assert (job.gpus, job.cpus, job.memory_mib, job.node_count, job.time_limit_s) == (8, 20, 2_000, 2, 3_600)
        assert (job.start_s, job.end_s, job.comment) == (1_700_000_010, 1_700_003_610, "of ours")
        assert "start_time=uts1699999999" in daemon.asked[-1][0]
        nothing = {"errors": [{"error_number": 9_003, "error": "Nothing found with query"}]}
        daemon.answers = served(version) | {f"GET /slurmdb/{version}/jobs": (500, nothing)}
        assert slurm.accounting(["watteau-7-1"], 0) == []


def test_a_slurmrestd_without_the_accountings_plugin_has_none(site: Any) -> None:
    slurm, _ = site(served("v0.0.41") | {"GET /openapi/v3": paths("v0.0.41", accounting=False)})
    with pytest.raises(NoAccounting, match="openapi/slurmdbd"):
        slurm.accounting(["x"], 0)


def test_answers_to_a_submission_mean_what_they_mean(site: Any) -> None:
    def error(number: int, words: str) -> Any:
        return {"errors": [{"error_number": number, "error": words, "description": "Batch job submission failed"}]}

    for status, body, kind, says in (
        (500, error(2000, "Invalid partition name specified"), LaunchRefused, "there is no partition 'gpu'"),
        (400, error(9001, "Failure during parsing"), LaunchRefused, "Failure during parsing"),
        (500, error(11, "Resource temporarily unavailable"), EngineUnreachable, "did not take"),
        (500, error(1800, "Unable to contact slurm controller (connect failure)"), EngineUnreachable, "did not take"),
        (500, error(5004, "Socket timed out on send/recv operation"), InDoubt, "Socket timed out"),
        (502, "Bad Gateway", InDoubt, "502: Bad Gateway"),
        (404, "Unable find requested URL.", EngineUnreachable, "404 Unable find"),
        (200, {"errors": []}, InDoubt, "200"),
        (200, "", InDoubt, "nothing"),
    ):
        slurm, _ = site(served("v0.0.41") | {"POST /slurm/v0.0.41/job/submit": (status, body)})
        with pytest.raises(kind, match=says):
            slurm.submit(SUBMISSION)
    held = {"errors": [{"error_number": 2042, "error": "Job is in held state"}], "job_id": n(9)}
    slurm, _ = site(served("v0.0.41") | {"POST /slurm/v0.0.41/job/submit": (200, held)})
    assert slurm.submit(SUBMISSION) == 9


def test_a_token_that_is_refused_is_not_offered_twice(site: Any, tmp_path: Path) -> None:
    """Newer versions answer 401. A submission that was answered so is sent again with another token, and only then."""
    answers = served("v0.0.41") | {"POST /slurm/v0.0.41/job/submit": (401, "Authentication failure")}
    slurm, daemon = site(answers, token="old")
    with pytest.raises(TokenRefused, match="does not accept the token from token_file"):
        slurm.submit(SUBMISSION)
    assert [token for what, token, _ in daemon.asked if what.startswith("POST")] == ["old"]
    (tmp_path / "token").write_text("SLURM_JWT=new\n")
    with pytest.raises(TokenRefused):
        slurm.submit(SUBMISSION)
    assert [token for what, token, _ in daemon.asked if what.startswith("POST")] == ["old", "new"]


def test_a_token_says_when_to_renew_it() -> None:
    key = OctKey.generate_key(256)

    def token(**claims: object) -> str:
        return jwt.encode({"alg": "HS256"}, {"sun": "ada", **claims}, key)

    hour = read_token(token(iat=1_000, exp=4_600), 1_000_000)
    assert (hour.user, hour.renew_ms, hour.ends_ms) == ("ada", 4_540_000, 4_600_000)
    short = read_token(token(iat=1_000, exp=1_020), 1_000_000)
    assert short.renew_ms == 1_015_000
    assert read_token(token(exp=1_020), 1_000_000).renew_ms == 1_015_000
    ended = read_token(token(iat=1_000, exp=900), 1_000_000)
    assert ended.renew_ms == 900_000
    assert read_token(token(), 0).renew_ms is None
    for odd in ("x", "a.b.c", "", token(exp="soon")):
        assert read_token(odd, 0).renew_ms is None
