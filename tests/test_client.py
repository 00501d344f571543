"""The Python client: what it sends, when it sends it again, and what its errors say."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.cli.served import ROOT, Served, serving
from watteau.client import Client, Invalid, NotAllowed, NotFound, Settings, Unavailable, WatteauError
from watteau.domain.fleet import Mode
from watteau.domain.hosts import is_loopback
from watteau.domain.requests import ArraySpec, JobState, Request

JOB = {
    "id": 17,
    "label": "17",
    "name": "j",
    "kind": "batch",
    "tenant": "t",
    "user": "ada",
    "state": "waiting",
    "reason": "NONE",
    "reason_sentence": "",
    "detail": "",
    "submitted_at": "2026-01-05T12:00:00Z",
    "started_at": None,
    "ended_at": None,
    "site": None,
    "exit_code": None,
    "signal": None,
    "attempts": 0,
    "cancel_requested": False,
    "priority": 0,
    "workers": 1,
    "gpus": 0.0,
    "time_limit_s": 0,
    "array": None,
}
TRUE = Request(name="j", command=("true",))


def client_of(handler: Callable[[httpx.Request], httpx.Response], retries: int = 2, token: str = "wt_x") -> Client:
    return Client("http://127.0.0.1:1", token, retries=retries, transport=httpx.MockTransport(handler))


def problem(
    status: int, code: str = "x", detail: str = "no", errors: tuple[dict[str, str], ...] = ()
) -> httpx.Response:
    body = {"title": "T", "status": status, "code": code, "detail": detail, "request_id": "r1", "errors": list(errors)}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"})


# --- when a request is sent again -------------------------------------------------------------------------------------


def test_a_submission_is_sent_again_with_the_same_key_and_the_same_bytes() -> None:
    seen: list[tuple[str, bytes]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers["Idempotency-Key"], request.content))
        match len(seen):
            case 1:
                return problem(503, "store_unavailable")
            case 2:
                raise httpx.ReadError("gone", request=request)
        return httpx.Response(201, json=JOB)

    assert client_of(answer).submit(TRUE).id == 17
    assert len(seen) == 3
    assert len(set(seen)) == 1


def test_a_key_of_ones_own_is_used() -> None:
    keys = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        return httpx.Response(201, json=JOB)

    client_of(answer).submit(TRUE, idempotency_key="nightly-1")
    assert keys == ["nightly-1"]


def test_what_may_have_been_done_is_not_sent_again() -> None:
    """A login or a new account is not idempotent: after a broken line nobody knows whether it was carried out."""
    tries = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(request.url.path)
        raise httpx.ReadError("gone", request=request)

    client = client_of(answer)
    with pytest.raises(Unavailable):
        client.login(one_time_token="wt_y")
    with pytest.raises(Unavailable):
        client.add_token("ci", ["read"])
    assert tries == ["/api/v1/login", "/api/v1/tokens"]


def test_what_never_left_is_sent_again() -> None:
    tries = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(Unavailable, match=r"cannot reach http://127\.0\.0\.1:1: refused"):
        client_of(answer, retries=1).login(one_time_token="wt_y")
    assert len(tries) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500])
def test_what_will_not_change_by_itself_is_not_asked_again(status: int) -> None:
    tries = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(1)
        return problem(status)

    with pytest.raises(WatteauError):
        client_of(answer).job(17)
    assert len(tries) == 1


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, NotAllowed),
        (403, NotAllowed),
        (404, NotFound),
        (409, Invalid),
        (413, Invalid),
        (422, Invalid),
        (429, NotAllowed),
        (503, Unavailable),
    ],
)
def test_a_problem_is_an_error_with_its_text(status: int, kind: type[WatteauError]) -> None:
    with pytest.raises(kind, match="There is no job 17") as raised:
        client_of(lambda _: problem(status, "code", "There is no job 17."), retries=0).job(17)
    assert type(raised.value) is kind
    assert raised.value.problem is not None
    assert raised.value.problem.code == "code"


def test_every_wrong_field_is_in_the_text() -> None:
    wrong = ({"pointer": "/workers", "message": "too many"}, {"pointer": "/name", "message": "too long"})
    with pytest.raises(Invalid) as raised:
        client_of(lambda _: problem(422, detail="2 things are wrong", errors=wrong)).job(17)
    assert str(raised.value) == "2 things are wrong\n  /workers: too many\n  /name: too long"


def test_a_fault_of_the_server_names_the_request() -> None:
    with pytest.raises(WatteauError, match=r"A fault \(request r1\)"):
        client_of(lambda _: problem(500, detail="A fault")).job(17)


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, json={"id": 17}),
        httpx.Response(404, text="<html>nginx</html>"),
        httpx.Response(301, headers={"Location": "https://elsewhere.example"}),
    ],
)
def test_another_server_is_named_as_such(response: httpx.Response) -> None:
    with pytest.raises(Unavailable, match="does not answer as a Watteau server"):
        client_of(lambda _: response, retries=0).job(17)


@pytest.mark.parametrize("url", ["", "watteau.example", "ftp://x", "http://", "http://[::1", "http://a b"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="is not an address"):
        Client(url or "nothing", "t")


@pytest.mark.parametrize("token", ["wt_\n", "wt_é", "a\x00"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(Invalid, match="copied whole"):
        Client("http://127.0.0.1:1", token)


@pytest.mark.parametrize("job", ["../users", "17/cancel", "17?x=1", "é", "", "..", "17#a", "a b"])
def test_a_label_stays_one_word_of_the_path(job: str) -> None:
    paths = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path.decode())
        return problem(404)

    with pytest.raises(NotFound):
        client_of(answer).job(job)
    assert paths[0].startswith("/api/v1/jobs/")
    assert paths[0].count("/") == 4
    assert "?" not in paths[0]


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("WATTEAU_URL", raising=False)
    monkeypatch.delenv("WATTEAU_TOKEN", raising=False)
    return tmp_path / "watteau"


def test_settings_are_kept_for_their_owner_alone(settings_folder: Path) -> None:
    Settings('https://w.example/é"\\', "wt_a").save()
    file = settings_folder / "settings.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    assert settings_folder.stat().st_mode & 0o777 == 0o700
    assert Settings.load() == Settings('https://w.example/é"\\', "wt_a")
    assert os.listdir(settings_folder) == ["settings.toml"]


def test_settings_that_others_can_read_are_complained_of(settings_folder: Path) -> None:
    Settings("https://w.example", "wt_a").save()
    file = settings_folder / "settings.toml"
    file.chmod(0o644)
    assert f"chmod 600 {file}" in Settings.load().complaint
    assert Settings.load().token == "wt_a"


@pytest.mark.parametrize("text", [b"url = [", b"\xff\xfe", b"url = 3\ntoken = []\n"])
def test_settings_that_cannot_be_read_are_left_aside(settings_folder: Path, text: bytes) -> None:
    settings_folder.mkdir()
    file = settings_folder / "settings.toml"
    file.write_bytes(text)
    file.chmod(0o600)
    loaded = Settings.load()
    assert (loaded.url, loaded.token) == (Settings().url, "")


def test_the_environment_wins_over_the_file(settings_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Settings("https://w.example", "wt_a").save()
    monkeypatch.setenv("WATTEAU_TOKEN", "wt_b")
    assert Settings.load().token == "wt_b"
    monkeypatch.setenv("WATTEAU_URL", "https://v.example/")
    assert Settings.load().url == "https://v.example"


def test_a_token_is_not_sent_to_another_server(settings_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Settings("https://w.example", "wt_a").save()
    monkeypatch.setenv("WATTEAU_URL", "https://evil.example")
    assert Settings.load().token == ""
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization"))
        return problem(401)

    with pytest.raises(NotAllowed):
        Client("https://other.example", transport=httpx.MockTransport(answer)).me()
    assert seen == [None]


@pytest.mark.parametrize(("host", "is_ours"), [("localhost", True), ("127.9.9.9", True), ("::1", True), ("a.b", False)])
def test_this_machine_is_known(host: str, is_ours: bool) -> None:
    assert is_loopback(host) is is_ours


def test_importing_watteau_costs_next_to_nothing_and_gives_the_client() -> None:
    heavy = "httpx", "pydantic", "numpy", "numba"
    code = f"""
import sys, watteau
assert not set({heavy!r}) & set(sys.modules)
from watteau import Client, Request
assert Client.__name__ == "Client" and Request(command=("true",)).workers == 1
assert not {{"numba", "fastapi", "sqlalchemy"}} & set(sys.modules)
try:
    watteau.Nothing
except AttributeError as error:
    assert "Nothing" in str(error)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})


def test_the_default_address_is_where_up_listens() -> None:
    from watteau.up import _DEFAULT_PORT

    assert Settings().url == f"http://127.0.0.1:{_DEFAULT_PORT}"


# --- against a real server --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def ada(served: Served) -> Iterator[Client]:
    with Client(served.url, served.tokens["ada"]) as client:
        yield client


def sh(script: str, **more: object) -> Request:
    return Request.model_validate({"name": "j", "command": ("sh", "-c", script), **more})


def test_a_job_lives_from_submission_to_its_end(ada: Client) -> None:
    job = ada.submit(sh("echo hello; echo oops >&2; exit 3"))
    assert ada.wait(job.id).state is JobState.FAILED
    assert b"".join(ada.whole_log(job.id)) == b"hello\n"
    assert b"".join(ada.whole_log(job.label, stream="stderr")) == b"oops\n"
    detail = ada.job(job.id)
    assert (detail.exit_code, detail.request.command[0]) == (3, "sh")
    assert [attempt.number for attempt in ada.attempts(job.id)] == [1]
    kinds = [event.kind.value for event in ada.story(job.id)]
    assert (kinds[0], kinds[-1]) == ("submitted", "finished")


def test_what_a_job_writes_is_followed_as_it_is(ada: Client) -> None:
    job = ada.submit(sh(r"printf '\000\377\r\n'; sleep 0.3; printf last"))
    assert b"".join(ada.follow_log(job.id)) == b"\x00\xff\r\nlast"


def test_pages_are_one_list(ada: Client) -> None:
    array = ArraySpec(indices=tuple(range(7)))
    first = ada.submit(Request(name="stay-pages", command=("true",), array=array))
    found = list(ada.jobs(array=first.id, page_size=3))
    assert [job.label for job in found] == [f"{first.id}_{index}" for index in reversed(range(7))]
    assert len(list(ada.jobs(name="stay-pages", state="waiting"))) == 7
    assert len(ada.cancel(first.id, array=True)) == 7
    assert ada.wait(f"{first.id}_6").state is JobState.CANCELLED


def test_many_are_submitted_at_once(ada: Client) -> None:
    submitted = ada.submit_many([TRUE, Request(name="j", command=("true",), array=ArraySpec(indices=(0, 5)))])
    assert [each.tasks for each in submitted] == [1, 2]


def test_the_same_key_is_the_same_job(ada: Client) -> None:
    assert ada.submit(TRUE, idempotency_key="once").id == ada.submit(TRUE, idempotency_key="once").id


def test_holding_releasing_and_asking_why(ada: Client) -> None:
    job = ada.submit(Request(name="stay-held", command=("true",), held=True))
    assert ada.job(job.id).state is JobState.HELD
    assert ada.release(job.id)[0].state is JobState.WAITING
    assert ada.hold(job.id)[0].state is JobState.HELD
    assert ada.why(job.id).job.id == job.id
    ada.cancel(job.id)


def test_waiting_ends_with_the_time(ada: Client) -> None:
    job = ada.submit(Request(name="stay", command=("true",)))
    assert ada.wait(job.id, timeout_s=0.2).state is JobState.WAITING
    ada.cancel(job.id)


def test_events_come_as_they_happen(ada: Client) -> None:
    seen: list[str] = []
    job = ada.submit(Request(name="stay", command=("true",)))

    def listen() -> None:
        for event in ada_too.events(job=job.id, after=0):
            seen.append(event.kind.value)
            if event.kind.value == "finished":
                return

    with Client(ada.url, ada._http.headers["Authorization"].removeprefix("Bearer ")) as ada_too:
        listener = threading.Thread(target=listen)
        listener.start()
        ada.cancel(job.id)
        listener.join(20)
    assert seen[0] == "submitted"
    assert seen[-1] == "finished"


def test_what_is_not_ones_own_is_not_there(served: Served, ada: Client) -> None:
    job = ada.submit(TRUE)
    with Client(served.url, served.tokens["eve"]) as eve, pytest.raises(NotFound, match=f"no job {job.id}"):
        eve.job(job.id)
    with pytest.raises(NotAllowed):
        ada.users()
    with Client(served.url, "wt_wrong") as nobody, pytest.raises(NotAllowed):
        nobody.me()


def test_accounts_and_tokens(served: Served, ada: Client) -> None:
    from watteau.domain.people import Role
    from watteau.server.schemas import GrantBody

    with Client(served.url, served.tokens["root"]) as root:
        made = root.add_user("bob", [GrantBody(role=Role.MEMBER, tenant="beta")])
        assert made.one_time_token is not None
        login = root.login(one_time_token=made.one_time_token)
        with Client(served.url, login.token) as bob:
            assert bob.me().user.name == "bob"
            bob.logout()
            with pytest.raises(NotAllowed):
                bob.me()
        assert root.change_user("bob", disabled=True).user.disabled
        assert "bob" in [user.name for user in root.users()]
        assert "add user" in [line.action for line in root.audit()]
    token = ada.add_token("ci", ["read"], 3_600)
    assert token.about.id in [each.id for each in ada.tokens()]
    ada.revoke_token(token.about.id)


def test_the_fleet_and_its_use(ada: Client) -> None:
    assert [site.id for site in ada.sites()] == ["paris"]
    paris = ada.site("paris")
    assert (paris.fleet_mode, paris.setting, paris.people_running) == (Mode.DRIVE, None, 12)
    assert [node.node for node in ada.site_nodes("paris")] == ["gpu1"]
    assert ada.differences("paris") == ()
    assert [job.engine_id for job in ada.site_jobs("paris", state=JobState.RUNNING, user="zoe")] == ["7"]
    assert list(ada.site_jobs("paris", name="nothing like it")) == []
    with pytest.raises(NotAllowed, match="concerns every tenant"):
        ada.set_site("paris", mode=Mode.OBSERVE, fenced=False, why="a test")
    with pytest.raises(NotFound, match="There is no site 'lyon'; there are: paris"):
        ada.site("lyon")
    assert "alpha-lab" in [tenant.id for tenant in ada.tenants()]
    used = ada.usage(by="user", since=datetime(2026, 1, 1, tzinfo=UTC))
    assert {line.key for line in used.usage} == {"ada", "zoe"}, "jobs by hand count, too"
