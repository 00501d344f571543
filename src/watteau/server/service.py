"""What every route needs: the parts it works with, the guard that lets callers in, and how bodies are read."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path as FilePath
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from watteau.domain.fleet import Fleet, Site
from watteau.domain.people import User
from watteau.domain.records import JobRecord
from watteau.domain.requests import JobId
from watteau.energy.supply import CapacityFactors
from watteau.server.access import RULES, About, Caller, Tree
from watteau.server.auth import KnownTokens, Passwords, Throttle, bearer, digest, scopes_of
from watteau.server.edge import Log, Metrics
from watteau.server.live import Live
from watteau.server.problems import Refusal, body_errors, invalid, not_found
from watteau.server.pulse import Pulse
from watteau.server.schemas import USER_NAME, FieldError, epoch_ms, moment
from watteau.store.store import NotFound, Store
from watteau.store.store import Token as TokenRecord

_LABEL = re.compile(r"([1-9][0-9]{0,17})(?:_([0-9]{1,10}))?", re.ASCII)
_BodyModel = TypeVar("_BodyModel", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that the routes of one app work with."""

    store: Store
    fleet: Fleet
    live: Live
    now_ms: Callable[[], int]
    tree: Tree
    known_tokens: KnownTokens
    passwords: Passwords
    throttle: Throttle
    pulse: Pulse
    log: Log
    metrics: Metrics
    report: FilePath | None
    factors: CapacityFactors | None
    queries: Mapping[str, frozenset[str]]  # by operation, the names that its query may have


@dataclass(frozen=True, slots=True)
class Access:
    """A caller who was let in to one operation."""

    services: Services
    operation: str
    caller: Caller


@dataclass(frozen=True, slots=True)
class JobAccess(Access):
    """... on a job that the caller may do this to."""

    job: JobRecord


@dataclass(frozen=True, slots=True)
class UserAccess(Access):
    """... on an account that the caller may do this to."""

    user: User


@dataclass(frozen=True, slots=True)
class SiteAccess(Access):
    """... on a site of the fleet."""

    site: Site


def services_of(request: Request) -> Services:
    """The parts of the app that a request came to."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Token = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(
        HTTPBearer(
            auto_error=False,
            scheme_name="token",
            description="An API token, as `POST /api/v1/login` or `POST /api/v1/tokens` gave it.",
        )
    ),
]


async def guard(request: Request, token: Token) -> Access:
    """Let a caller in to the operation of this route. Raises Refusal (401, 403)."""
    services = services_of(request)
    operation = str(request.scope["route"].operation_id)
    secret = bearer(request.headers.get("authorization"))
    # Hashing takes a microsecond and a thread fifty: only the database is asked in one.
    found = None if secret is None else services.known_tokens.recent(digest(secret))
    caller = await run_in_threadpool(identify, services, secret) if found is None else _caller(services, *found)
    request.state.user = caller.user.name
    if not caller.in_scope(operation):
        scope = RULES[operation].scope
        raise Refusal(403, "out_of_scope", f"This token may not be used for it: it lacks the scope `{scope}`.")
    rule = RULES[operation]
    if rule.about in (About.PART, About.SITE) and not caller.reaches_somewhere(operation):
        where = "; it concerns every tenant, and takes a role on the whole tree" if rule.of_all else ""
        raise Refusal(403, "forbidden", f"None of your roles allows you to {rule.what}{where}.")
    if unknown := request.query_params.keys() - services.queries[operation]:
        # A misspelt condition would list everything, and be believed.
        raise invalid(at(f"#query/{name}"[:256], "there is no such parameter") for name in sorted(unknown))
    return Access(services, operation, caller)


def guard_job(
    request: Request,
    access: Annotated[Access, Depends(guard)],
    job: Annotated[
        str,
        Path(
            description="A job: its number, or `ARRAY_INDEX` for a task of an array.",
            openapi_examples={
                "a job": {"summary": "Job 17", "value": "17"},
                "a task of an array": {"summary": "The task with index 3 of array 17", "value": "17_3"},
            },
            max_length=32,
        ),
    ],
) -> JobAccess:
    """The same for the job that the path names. Raises Refusal (404: none that the caller may see)."""
    record = visible_job(access, job)
    request.state.job = record.job_id
    if not access.caller.may_with_job(access.operation, record.tenant, record.user):
        what = RULES[access.operation].what
        raise Refusal(403, "forbidden", f"None of your roles allows you to {what} of {record.user}.")
    return JobAccess(access.services, access.operation, access.caller, record)


def guard_user(
    access: Annotated[Access, Depends(guard)],
    name: Annotated[str, Path(description="An account's name.", examples=["ada"], max_length=128)],
) -> UserAccess:
    """The same for the account that the path names. One's own is always allowed; the route says what of it."""
    try:
        if not USER_NAME.fullmatch(name):
            raise NotFound(name)
        user, _ = access.services.store.user(name)
    except NotFound:
        raise not_found(f"account {name!r}") from None
    if not access.caller.sees_user(user):
        raise not_found(f"account {name!r}")
    if user.user_id != access.caller.user.user_id and not access.caller.may_change_user(user):
        raise Refusal(403, "forbidden", f"None of your roles allows you to change the account {name}.")
    return UserAccess(access.services, access.operation, access.caller, user)


def guard_site(
    access: Annotated[Access, Depends(guard)],
    site: Annotated[str, Path(description="A site of the fleet.", examples=["paris"], max_length=128)],
) -> SiteAccess:
    """The same for the site that the path names. Raises Refusal (404: the fleet has none of this id)."""
    sites = access.services.fleet.sites
    found = next((each for each in sites if each.id == site), None)
    if found is None:
        raise not_found(f"site {site!r}; there are: {', '.join(each.id for each in sites)}")
    return SiteAccess(access.services, access.operation, access.caller, found)


#: The guard that a route must have, by what its operation is about.
GUARDS: dict[About, Callable[..., Access | Awaitable[Access]]] = {
    About.SELF: guard,
    About.PART: guard,
    About.JOB: guard_job,
    About.USER: guard_user,
    About.SITE: guard_site,
}


def identify(services: Services, secret: str | None) -> Caller:
    """Who a token speaks for. Raises Refusal (401), with the same words whatever is wrong."""
    found = None if secret is None else services.known_tokens.look_up(digest(secret))
    if found is None or found[0].one_time or found[1].disabled:
        raise Refusal(401, "no_valid_token", "Give a valid API token as `Authorization: Bearer wt_...`.")
    return _caller(services, *found)


def _caller(services: Services, token: TokenRecord, user: User) -> Caller:
    return Caller(user, token.token_id, scopes_of(token), token.expires_ms, services.tree)


def visible_job(access: Access, label: str) -> JobRecord:
    """The job of that label. Raises Refusal (404) when there is none that the caller may see."""
    record = find_job(access.services.store, label)
    if record is None or not access.caller.may_with_job("show_job", record.tenant, record.user):
        raise not_found(f"job {label}")
    return record


def find_job(store: Store, label: str) -> JobRecord | None:
    """The job that people call `17` or `17_3`; None when there is none."""
    words = _LABEL.fullmatch(label)
    if words is None:
        return None
    try:
        job = store.job(JobId(int(words[1])))
        if words[2] is None:
            return job
        tasks = job.request.array
        if job.array_id != job.job_id or tasks is None or int(words[2]) not in tasks.indices:
            return None
        # The ids of an array's tasks follow each other in the order of its indices.
        return store.job(JobId(job.job_id + tasks.indices.index(int(words[2]))))
    except NotFound:
        return None


async def raw_json(request: Request) -> bytes:
    """The body, if it is said to be JSON. It is parsed in the route's thread: large ones must not stop the others."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "not_json", "Send the body as Content-Type: application/json.")
    return await request.body()


RawJson = Annotated[bytes, Depends(raw_json)]


def parse(model: type[_BodyModel], raw: bytes) -> _BodyModel:
    """A body as its model. Numbers are not read from strings, nor strings from numbers. Raises Refusal (400, 422)."""
    try:
        return model.model_validate_json(raw, strict=True)
    except ValidationError as fault:
        if fault.error_count() == 1 and fault.errors(include_input=False)[0]["type"] == "json_invalid":
            message = fault.errors(include_input=False)[0]["msg"]
            raise Refusal(400, "not_json", f"The body cannot be read. {message}") from None
        raise invalid(body_errors(fault)) from None


def at(pointer: str, message: str) -> FieldError:
    """One thing that is wrong."""
    return FieldError(pointer=pointer, message=message)


def in_range(said: datetime, name: str) -> int:
    """Epoch milliseconds of a moment in a query. Raises Refusal (422) outside the years 1970 to 9999."""
    try:
        at_ms = epoch_ms(said)
        moment(at_ms)
    except (OverflowError, ValueError):
        at_ms = -1
    if at_ms < 0:
        raise invalid([at(f"#query/{name}", "a time between the years 1970 and 9999")])
    return at_ms


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI is told of a route that reads its body itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
