"""The Python client: what the API does, as methods, with typed results, retries and clear errors.

with watteau.Client() as client:
    job = client.submit(Request(name="train", command=("python", "train.py"), gpu_milli=1000))
    print(client.wait(job.label).state)
"""

import json
import os
import random
import re
import ssl
import stat
import time
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import httpx
from platformdirs import user_config_path
from pydantic import BaseModel, ValidationError

from watteau import __version__
from watteau.domain.fleet import Mode
from watteau.domain.hosts import is_loopback
from watteau.domain.requests import JobState, Request
from watteau.server.schemas import (
    AttemptsView,
    AttemptView,
    AuditPageView,
    AuditView,
    BulkView,
    ChangedView,
    DifferencesView,
    DifferenceView,
    EnergyView,
    EventView,
    GrantBody,
    JobDetail,
    JobView,
    MeView,
    NewTokenView,
    PageView,
    Problem,
    Scope,
    SiteDetailView,
    SiteJobsView,
    SiteJobView,
    SiteNodesView,
    SiteNodeView,
    SitesView,
    SiteView,
    StoryView,
    SubmittedView,
    TenantsView,
    TenantView,
    TokensView,
    TokenView,
    UsageView,
    UserChangedView,
    UsersView,
    UserView,
    WhyView,
)

__all__ = ["Client", "Invalid", "LogPiece", "NotAllowed", "NotFound", "Settings", "Unavailable", "WatteauError"]

#: Where `watteau up` listens when nothing else is said.
DEFAULT_URL = "http://127.0.0.1:8484"

_View = TypeVar("_View", bound=BaseModel)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
_LONGEST_WAIT_S = 60.0
_LOG_BYTES = 1 << 20
_FOLLOW_PAUSE_S = 0.5


class WatteauError(Exception):
    """Something that was asked of the server was not done. `problem` is what the server said, if it said anything."""

    def __init__(self, text: str, problem: Problem | None = None) -> None:
        super().__init__(text)
        self.problem = problem


class NotAllowed(WatteauError):  # noqa: N818 - the name says what happened, as in STYLE
    """Nobody is logged in, or the account or its token may not do this."""


class NotFound(WatteauError):  # noqa: N818
    """There is no such thing, as far as the caller may know."""


class Invalid(WatteauError):  # noqa: N818
    """The request is wrong, or contradicts what is there (`problem.code` is "conflict")."""


class Unavailable(WatteauError):  # noqa: N818
    """The server cannot be reached or cannot work now. Nothing was done, or it may safely be asked for again."""


@dataclass(frozen=True, slots=True)
class LogPiece:
    """A piece of a job's output. `end` is where to go on; `complete`: nothing more of this attempt will come."""

    content: bytes
    attempt: int
    end: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """Which server, and as whom. `complaint` is what is wrong with the file that they came from, or ""."""

    url: str = DEFAULT_URL
    token: str = ""
    complaint: str = ""

    @classmethod
    def path(cls) -> Path:
        """The settings file, in the platform's folder for settings."""
        return user_config_path("watteau") / "settings.toml"

    @classmethod
    def load(cls) -> Self:
        """The file's settings; WATTEAU_URL and WATTEAU_TOKEN win over it. A token is for its own server only."""
        path = cls.path()
        saved, complaint = _read_settings(path)
        url = os.environ.get("WATTEAU_URL") or saved.get("url", "") or DEFAULT_URL
        token = os.environ.get("WATTEAU_TOKEN", "")
        if not token and _same_server(url, saved.get("url", "")):
            token = saved.get("token", "")
        return cls(url.rstrip("/"), token, complaint)

    def save(self) -> None:
        """Write the file anew as a whole, readable by its owner only. Raises OSError."""
        path = self.path()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A basic string of TOML is written as one of JSON is.
        text = (
            f"url = {json.dumps(self.url, ensure_ascii=False)}\ntoken = {json.dumps(self.token, ensure_ascii=False)}\n"
        )
        with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".settings-", delete=False) as file:
            try:
                os.chmod(file.name, 0o600)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(file.name)
                raise

    def without_token(self) -> Self:
        """The same server, as nobody."""
        return replace(self, token="")


class Client:
    """One server, as one account. A context manager; not for several threads at once.

    Reading, changing and submitting are tried again, with growing pauses, while the server does not answer: a
    submission carries an idempotency key, so that it is kept once however often it is sent.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`url` and `token` come from the environment or the settings file when they are left out."""
        settings = Settings.load() if url is None or token is None else Settings()
        self.url = (url or settings.url).rstrip("/")
        if token is None:
            token = settings.token if _same_server(self.url, settings.url) else ""
        self._retries = retries
        self._timeout_s = timeout_s
        try:
            parsed = httpx.URL(self.url)
        except (httpx.InvalidURL, TypeError) as error:
            raise Invalid(f"{self.url!r} is not an address: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host or re.search(r"[\s\x00-\x1f]", self.url):
            raise Invalid(f"{self.url!r} is not an address like https://watteau.example.org")
        if not token.isascii() or any(not letter.isprintable() for letter in token):
            raise Invalid("the token has characters that no token has; was it copied whole?")
        headers = {"User-Agent": f"watteau/{__version__}"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=5.0),
            transport=transport,
            # A proxy of the environment cannot reach this machine's own server.
            trust_env=not is_loopback(parsed.host),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # --- submit ------------------------------------------------------------------------------------------------------

    def submit(self, request: Request, *, idempotency_key: str | None = None) -> JobView:
        """Submit a job; of an array, its first task is returned. When this returns, it will not be lost."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._ask(JobView, "POST", "/jobs", content=_body(request), headers=headers, again=True)

    def submit_many(
        self, requests: Iterable[Request], *, idempotency_key: str | None = None
    ) -> tuple[SubmittedView, ...]:
        """Submit up to 10,000 jobs, all or none."""
        listed = ",".join(_body(request).decode() for request in requests)
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        content = f'{{"jobs":[{listed}]}}'.encode()
        return self._ask(BulkView, "POST", "/jobs/bulk", content=content, headers=headers, again=True).jobs

    # --- look --------------------------------------------------------------------------------------------------------

    def page(self, *, limit: int = 100, cursor: str | None = None, **only: Any) -> PageView:
        """One page of jobs, newest first. `only`: state, tenant, user, name, site, array."""
        parameters = {**only, "limit": limit, "cursor": cursor}
        return self._ask(PageView, "GET", "/jobs", parameters=parameters)

    def jobs(
        self,
        *,
        state: JobState | str | Sequence[JobState | str] = (),
        tenant: str | None = None,
        user: str | None = None,
        name: str | None = None,
        site: str | None = None,
        array: int | None = None,
        page_size: int = 200,
    ) -> Iterator[JobView]:
        """Jobs that the caller may see, newest first, page by page as they are asked for. All conditions hold."""
        states = [str(state)] if isinstance(state, str) else [str(each) for each in state]
        cursor: str | None = None
        while True:
            found = self.page(
                limit=page_size,
                cursor=cursor,
                state=states,
                tenant=tenant,
                user=user,
                name=name,
                site=site,
                array=array,
            )
            yield from found.jobs
            cursor = found.next_cursor
            if cursor is None:
                return

    def job(self, job: str | int) -> JobDetail:
        """A job as it stands, and what was asked for. `job` is 17, or 17_3 for a task of an array; so below."""
        return self._ask(JobDetail, "GET", _path(job))

    def why(self, job: str | int) -> WhyView:
        """Why a job waits, or how it ended."""
        return self._ask(WhyView, "GET", _path(job, "why"))

    def story(self, job: str | int) -> Iterator[EventView]:
        """Everything that happened to a job, oldest first."""
        after: int | None = 0
        while after is not None:
            found = self._ask(StoryView, "GET", _path(job, "story"), parameters={"after": after})
            yield from found.events
            after = found.next_after

    def attempts(self, job: str | int) -> tuple[AttemptView, ...]:
        """A job's attempts, oldest first."""
        return self._ask(AttemptsView, "GET", _path(job, "attempts")).attempts

    def log(
        self,
        job: str | int,
        *,
        stream: str = "stdout",
        start: int = 0,
        most: int = _LOG_BYTES,
        attempt: int | None = None,
    ) -> LogPiece:
        """A piece of what a job wrote, from a byte on; of its last attempt, unless one is named."""
        parameters = {"stream": stream, "start": start, "most": most, "attempt": attempt}
        answer = self._send("GET", _path(job, "log"), parameters=parameters)
        try:
            number, end = int(answer.headers["X-Log-Attempt"]), int(answer.headers["X-Log-End"])
        except (KeyError, ValueError):
            raise self._not_watteau() from None
        return LogPiece(answer.content, number, end, answer.headers.get("X-Log-Complete") == "true")

    def whole_log(self, job: str | int, *, stream: str = "stdout", attempt: int | None = None) -> Iterator[bytes]:
        """All that a job has written so far, in pieces."""
        start = 0
        while True:
            piece = self.log(job, stream=stream, start=start, attempt=attempt)
            yield piece.content
            if not piece.content:
                return
            start, attempt = piece.end, piece.attempt or attempt

    def follow_log(self, job: str | int, *, stream: str = "stdout", attempt: int | None = None) -> Iterator[bytes]:
        """What a job writes, as it writes it, attempt after attempt, until it has ended. A broken line is taken up."""
        number = attempt or 1
        while True:
            now, missing = self.job(job), None
            if now.attempts >= number:
                try:
                    yield from self._follow_attempt(job, stream, number)
                except NotFound as error:  # one that never ran has no log; a later one may
                    missing = error
                now = self.job(job)
            if attempt is not None or (now.state.is_end and now.attempts <= number):
                if missing is not None:
                    raise missing
                return
            if now.attempts > number:
                number += 1
            else:
                time.sleep(_FOLLOW_PAUSE_S)

    def _follow_attempt(self, job: str | int, stream: str, number: int) -> Iterator[bytes]:
        start, failures = 0, 0
        while True:
            parameters = {"stream": stream, "start": start, "attempt": number, "follow": True}
            try:
                with self._http.stream("GET", _path(job, "log"), params=_given(parameters), timeout=_STREAM) as answer:
                    self._check(answer)
                    for piece in answer.iter_bytes():
                        start, failures = start + len(piece), 0
                        yield piece
                return
            except httpx.ReadTimeout:
                continue  # nothing was written for a while
            except (httpx.TransportError, Unavailable) as error:
                failures += 1
                self._pause_or_fail(failures, error)
            except NotFound as error:
                if error.problem is not None and error.problem.code == "no_log" and start:
                    return
                raise

    def wait(self, job: str | int, *, timeout_s: float | None = None) -> JobView:
        """The job once it has ended, or as it stands after `timeout_s` seconds."""
        left_s = timeout_s
        while True:
            span_s = _LONGEST_WAIT_S if left_s is None else max(0.0, min(left_s, _LONGEST_WAIT_S))
            parameters = {"timeout_s": span_s}
            found = self._ask(JobView, "GET", _path(job, "wait"), parameters=parameters, longest_s=span_s + 15.0)
            if left_s is not None:
                left_s -= span_s
            if found.state.is_end or (left_s is not None and left_s <= 0):
                return found

    def events(self, *, job: str | int | None = None, after: int | None = None) -> Iterator[EventView]:
        """What happens, as it happens, from now on or after a seq; none is left out when a line breaks. Endless."""
        failures = 0
        while True:
            try:
                parameters = _given({"job": job, "after": after})
                with self._http.stream("GET", "/events", params=parameters, timeout=_STREAM) as answer:
                    self._check(answer)
                    for data in _server_sent(answer.iter_lines()):
                        event = self._read(EventView, data)
                        after, failures = event.seq, 0
                        yield event
            except (httpx.TransportError, Unavailable) as error:
                failures += 1
                self._pause_or_fail(failures, error)

    # --- change ------------------------------------------------------------------------------------------------------

    def cancel(self, job: str | int, *, array: bool = False) -> tuple[JobView, ...]:
        """Ask a job to end; with `array`, all tasks of the array that it is the first task of."""
        return self._change(job, "cancel", array)

    def hold(self, job: str | int, *, array: bool = False) -> tuple[JobView, ...]:
        """Keep a waiting job from starting until it is released."""
        return self._change(job, "hold", array)

    def release(self, job: str | int, *, array: bool = False) -> tuple[JobView, ...]:
        """Let a held job wait for its start again."""
        return self._change(job, "release", array)

    def _change(self, job: str | int, what: str, array: bool) -> tuple[JobView, ...]:
        # Asking twice does what asking once does, so that it may be sent again.
        parameters = {"array": True} if array else {}
        return self._ask(ChangedView, "POST", _path(job, what), parameters=parameters, again=True).jobs

    # --- the fleet, its use, its people ------------------------------------------------------------------------------

    def sites(self) -> tuple[SiteView, ...]:
        """The sites as they are now."""
        return self._ask(SitesView, "GET", "/sites").sites

    def site(self, site: str) -> SiteDetailView:
        """One site as it is now, and what was said of it."""
        return self._ask(SiteDetailView, "GET", _site_path(site))

    def set_site(self, site: str, *, mode: Mode | str, fenced: bool, why: str) -> SiteDetailView:
        """Say anew what holds at a site, above the fleet file: its mode, and whether its attempts count as lost."""
        body = {"mode": str(mode), "fenced": fenced, "why": why}
        # Said twice it holds as it does when said once, so that it may be sent again.
        return self._ask(SiteDetailView, "PUT", _site_path(site), json=body, again=True)

    def site_nodes(self, site: str) -> tuple[SiteNodeView, ...]:
        """The nodes that a site has ever shown, by pool and number."""
        return self._ask(SiteNodesView, "GET", _site_path(site, "nodes")).nodes

    def differences(self, site: str) -> tuple[DifferenceView, ...]:
        """What the fleet file and the site's engine say differently; empty: they agree."""
        return self._ask(DifferencesView, "GET", _site_path(site, "differences")).differences

    def site_jobs(
        self,
        site: str,
        *,
        state: JobState | str | Sequence[JobState | str] = (),
        tenant: str | None = None,
        user: str | None = None,
        name: str | None = None,
        engine_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        page_size: int = 200,
    ) -> Iterator[SiteJobView]:
        """Jobs that people gave to a site's own scheduler, newest first, page by page. All conditions hold.

        `since` and `until`: submitted in [since, until).
        """
        only = {
            "state": [str(state)] if isinstance(state, str) else [str(each) for each in state],
            "tenant": tenant,
            "user": user,
            "name": name,
            "engine_id": engine_id,
            "since": since,
            "until": until,
            "limit": page_size,
        }
        cursor: str | None = None
        while True:
            found = self._ask(SiteJobsView, "GET", _site_path(site, "jobs"), parameters={**only, "cursor": cursor})
            yield from found.jobs
            cursor = found.next_cursor
            if cursor is None:
                return

    def tenants(self) -> tuple[TenantView, ...]:
        """The tenants that the caller may see, depth first."""
        return self._ask(TenantsView, "GET", "/tenants").tenants

    def usage(self, *, by: str = "tenant", since: datetime | None = None, until: datetime | None = None) -> UsageView:
        """Use by tenant, user or site in [since, until)."""
        return self._ask(UsageView, "GET", "/usage", parameters={"by": by, "since": since, "until": until})

    def energy(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        site: str | None = None,
        hourly: bool = True,
    ) -> EnergyView:
        """The energy books of the hours that [since, until) touches, of all sites or one."""
        parameters = {"since": since, "until": until, "site": site, "hourly": hourly}
        return self._ask(EnergyView, "GET", "/energy", parameters=parameters)

    def login(
        self,
        *,
        one_time_token: str | None = None,
        user: str | None = None,
        password: str | None = None,
        label: str = "login",
        scopes: Sequence[Scope | str] = (),
    ) -> NewTokenView:
        """A new API token for a one-time token, or for a user with a password. This client goes on as before."""
        body = {"one_time_token": one_time_token, "user": user, "password": password, "label": label}
        return self._ask(NewTokenView, "POST", "/login", json=_given(body | {"scopes": [str(each) for each in scopes]}))

    def logout(self) -> None:
        """Revoke the token in use."""
        self._send("POST", "/logout")

    def me(self) -> MeView:
        """Who is asking, and what this token may do."""
        return self._ask(MeView, "GET", "/me")

    def users(self) -> tuple[UserView, ...]:
        """Accounts that the caller may see, by name."""
        return self._ask(UsersView, "GET", "/users").users

    def add_user(self, name: str, grants: Sequence[GrantBody], password: str | None = None) -> UserChangedView:
        """A new account; without a password the answer holds a one-time token for its owner."""
        body = {"name": name, "password": password, "grants": [each.model_dump(mode="json") for each in grants]}
        return self._ask(UserChangedView, "POST", "/users", json=_given(body))

    def change_user(
        self,
        name: str,
        *,
        password: str | None = None,
        disabled: bool | None = None,
        grants: Sequence[GrantBody] | None = None,
        one_time_token: bool = False,
    ) -> UserChangedView:
        """Change what is given of an account; what is left out stays."""
        body = {
            "password": password,
            "disabled": disabled,
            "grants": None if grants is None else [each.model_dump(mode="json") for each in grants],
            "one_time_token": one_time_token or None,
        }
        return self._ask(UserChangedView, "PATCH", f"/users/{_segment(name)}", json=_given(body))

    def tokens(self) -> tuple[TokenView, ...]:
        """The caller's tokens, newest first."""
        return self._ask(TokensView, "GET", "/tokens").tokens

    def add_token(self, label: str, scopes: Sequence[Scope | str], expires_in_s: int | None = None) -> NewTokenView:
        """A new token for oneself. Its secret is shown only now."""
        body = {"label": label, "scopes": [str(each) for each in scopes], "expires_in_s": expires_in_s}
        return self._ask(NewTokenView, "POST", "/tokens", json=_given(body))

    def revoke_token(self, token_id: int) -> None:
        """A token of one's own is no longer valid."""
        self._send("DELETE", f"/tokens/{token_id}", again=True)

    def audit(self, after: int = 0) -> Iterator[AuditView]:
        """The audit log, oldest first."""
        following: int | None = after
        while following is not None:
            found = self._ask(AuditPageView, "GET", "/audit", parameters={"after": following})
            yield from found.lines
            following = found.next_after

    # --- sending -----------------------------------------------------------------------------------------------------

    def _ask(self, view: type[_View], method: str, path: str, **more: Any) -> _View:
        return self._read(view, self._send(method, path, **more).content)

    def _send(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        again: bool = False,
        longest_s: float | None = None,
    ) -> httpx.Response:
        """One request, tried again where that is safe: when it never left, or when `again` or GET says so."""
        request = self._http.build_request(
            method,
            path,
            params=_given(parameters or {}),
            content=content,
            json=json,
            headers={"Content-Type": "application/json", **(headers or {})} if content is not None else headers,
            timeout=httpx.Timeout(longest_s or self._timeout_s, connect=5.0),
        )
        failures = 0
        while True:
            try:
                answer = self._http.send(request)
                self._check(answer)
                return answer
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failures += 1
                self._pause_or_fail(failures, error)
            except (httpx.TransportError, Unavailable) as error:
                if not (again or method == "GET"):
                    self._fail(error)
                failures += 1
                self._pause_or_fail(failures, error)

    def _check(self, answer: httpx.Response) -> None:
        """Raises what the server's answer says is wrong."""
        if answer.is_success:
            return
        try:
            answer.read()
            problem = Problem.model_validate_json(answer.content)
        except (ValidationError, httpx.StreamError):
            if answer.status_code >= 500:
                raise Unavailable(f"{self.url} answers {answer.status_code} {answer.reason_phrase}") from None
            raise self._not_watteau() from None
        text = problem.detail or problem.title
        listed = [f"{each.pointer}: {each.message}" for each in problem.errors]
        if listed and (len(listed) > 1 or listed[0] not in text):
            text = "\n".join([text, *(f"  {each}" for each in listed)])
        match problem.status:
            case 401 | 403 | 429:
                raise NotAllowed(text, problem)
            case 404:
                raise NotFound(text, problem)
            case status if status < 500:
                raise Invalid(text, problem)
            case status if status == 503:
                raise Unavailable(text, problem)
        raise WatteauError(f"{text} (request {problem.request_id})", problem)

    def _pause_or_fail(self, failures: int, error: Exception) -> None:
        """Wait a little longer after each failure in a row, or give up."""
        if failures > self._retries:
            self._fail(error)
        # Drawn at random, so that many clients do not come back at the same moment.
        pause_s = min(_FIRST_PAUSE_S * 2 ** (failures - 1), _LONGEST_PAUSE_S)
        time.sleep(pause_s * random.uniform(0.5, 1.0))

    def _fail(self, error: Exception) -> NoReturn:
        if isinstance(error, WatteauError):
            raise error
        cause = error.__cause__ or error.__context__
        what = str(error) or (str(cause) if cause else "") or type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            what = "it does not answer in time"
        elif isinstance(cause, ssl.SSLError) or "CERTIFICATE" in what:
            what = f"its certificate is not accepted ({what})"
        raise Unavailable(f"cannot reach {self.url}: {what}") from None

    def _read(self, view: type[_View], content: bytes | str) -> _View:
        try:
            return view.model_validate_json(content)
        except ValidationError:
            raise self._not_watteau() from None

    def _not_watteau(self) -> WatteauError:
        return Unavailable(f"{self.url} does not answer as a Watteau server of this version does")


# --- Helpers --------------------------------------------------------------------------------------------------------

_STREAM = httpx.Timeout(60.0, connect=5.0)


def _body(request: Request) -> bytes:
    """What differs from the defaults: shorter, and an older server is not asked for what it does not know."""
    return request.model_dump_json(exclude_defaults=True).encode()


def _path(job: str | int, what: str = "") -> str:
    return f"/jobs/{_segment(str(job))}" + (f"/{what}" if what else "")


def _site_path(site: str, what: str = "") -> str:
    return f"/sites/{_segment(site)}" + (f"/{what}" if what else "")


def _segment(text: str) -> str:
    """A word as one segment of a path, whatever is in it."""
    quoted = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_-.~@") else _quoted(letter) for letter in text
    )
    return {"": "%20", ".": "%2E", "..": "%2E%2E"}.get(quoted, quoted)


def _quoted(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "replace"))


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was left out; times as RFC 3339."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in fields.items()
        if value is not None and value != ""
    }


def _server_sent(lines: Iterator[str]) -> Iterator[str]:
    """The `data` of each event of a text/event-stream."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []


def _same_server(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def _read_settings(path: Path) -> tuple[dict[str, str], str]:
    """(what the file says, what is wrong with it)."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            found = tomllib.load(file)
    except FileNotFoundError:
        return {}, ""
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return {}, f"{path} cannot be read and is left aside: {error}"
    complaint = ""
    if os.name == "posix" and mode & 0o077:
        complaint = f"others can read {path}, which holds your token: chmod 600 {path}"
    return {name: value for name, value in found.items() if isinstance(value, str)}, complaint
