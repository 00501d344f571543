"""Errors as RFC 9457 problem documents: every one that leaves the server is made here."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from watteau.engines.contract import EngineUnreachable
from watteau.server.schemas import FieldError, Problem
from watteau.store.store import Conflict, NotFound, StoreUnavailable

MEDIA_TYPE = "application/problem+json"
_MOST_ERRORS = 1_000
_RETRY_STORE_S = 2

#: Problem codes and what they mean, by status; for OpenAPI.
MEANING: dict[int, str] = {
    400: "The request cannot be read: not JSON, not UTF-8.",
    401: "There is no valid token.",
    403: "The token's account or its scopes do not allow this here.",
    404: "There is no such thing, or the caller may not see it.",
    405: "The path is right and the method is not; `Allow` names those that are.",
    409: "The request contradicts what is there.",
    413: "The body is larger than 10 MiB.",
    415: "The body is not declared as JSON.",
    422: "The request is invalid; `errors` names every field that is wrong.",
    429: "Too many failed tries; `Retry-After` says how long to wait.",
    500: "A fault of the server; its log has the request id.",
    503: "The database or an engine does not answer now. `Retry-After` says when to try again.",
}


class Refusal(Exception):  # noqa: N818 - the name says what happened, as in STYLE
    """A request that is answered with a problem document."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s


def not_found(what: str) -> Refusal:
    """404: there is no such thing, as far as the caller may know."""
    return Refusal(404, "not_found", f"There is no {what}.")


def invalid(errors: Iterable[FieldError]) -> Refusal:
    """422: every field that is wrong."""
    named = tuple(errors)
    more = f" ({_MOST_ERRORS} of {len(named)} are shown)" if len(named) > _MOST_ERRORS else ""
    first = ": ".join(filter(None, (named[0].pointer, named[0].message))) if named else "The request is invalid."
    detail = first if len(named) < 2 else f"{len(named)} things are wrong{more}; the first: {first}"
    return Refusal(422, "invalid", detail, named[:_MOST_ERRORS])


def body_errors(fault: ValidationError) -> list[FieldError]:
    """pydantic's complaints about a body, with JSON pointers and without the values: they may be secret."""
    return [
        FieldError(pointer=pointer(each["loc"]), message=str(each["msg"]).removeprefix("Value error, "))
        for each in fault.errors(include_url=False, include_context=False, include_input=False)
    ]


def pointer(place: Iterable[object]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(word).replace("~", "~0").replace("/", "~1")[:256] for word in place)


def answer(scope: Scope, refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    """The problem document of a refusal."""
    problem = Problem(
        title=HTTPStatus(refusal.status).phrase,
        status=refusal.status,
        code=refusal.code,
        detail=refusal.detail,
        # A path may hold what is no text (lone surrogates); a JSON document may not.
        instance=str(scope.get("path", ""))[:1024].encode("utf-8", "replace").decode(),
        request_id=str(scope.get("state", {}).get("request_id", "")),
        errors=refusal.errors,
    )
    sent = dict(headers or {})
    if refusal.retry_after_s is not None:
        sent["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    return Response(problem.model_dump_json(), refusal.status, sent, media_type=MEDIA_TYPE)


def refusal_of(fault: Exception) -> Refusal:
    """What any exception becomes for the caller. Never says more than the caller may know."""
    match fault:
        case Refusal():
            return fault
        case StoreUnavailable():
            return Refusal(
                503,
                "store_unavailable",
                f"The database cannot be used now: {cause(fault)}",
                retry_after_s=_RETRY_STORE_S,
            )
        case EngineUnreachable():
            return Refusal(503, "engine_unreachable", f"The site's engine does not answer. {fault}", retry_after_s=10)
        case Conflict():
            return Refusal(409, "conflict", str(fault))
        case NotFound():
            return Refusal(404, "not_found", str(fault))
        case _:
            return Refusal(500, "internal", "A fault of the server; its log has this request id.")


def cause(fault: StoreUnavailable) -> str:
    """What is wrong with the database, without its address, which is nobody's business outside."""
    address, _, said = str(fault).partition(": ")
    return said or address


def install(app: FastAPI) -> None:
    """Answer every foreseen exception of an app with a problem document. What is unforeseen is the edge's."""

    async def on_fault(request: Request, fault: Exception) -> Response:
        return answer(request.scope, refusal_of(fault))

    async def on_parameters(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, RequestValidationError)
        return answer(request.scope, invalid(_parameter_error(each) for each in fault.errors()))

    async def on_http(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, HTTPException)
        if fault.status_code == 404:
            refusal = Refusal(404, "not_found", "There is nothing at this path.")
        elif fault.status_code == 405:
            refusal = Refusal(405, "method_not_allowed", f"{request.method} is not possible here.")
        else:
            refusal = Refusal(fault.status_code, "refused", str(fault.detail))
        return answer(request.scope, refusal, fault.headers)

    for kind in (Refusal, StoreUnavailable, EngineUnreachable, Conflict, NotFound):
        app.add_exception_handler(kind, on_fault)
    app.add_exception_handler(RequestValidationError, on_parameters)
    app.add_exception_handler(HTTPException, on_http)


def _parameter_error(said: Mapping[str, Any]) -> FieldError:
    where, *rest = [str(word) for word in said.get("loc", ())] or ["request"]
    return FieldError(pointer="#" + "/".join([where, *rest])[:256], message=str(said.get("msg", "")))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of an operation for OpenAPI; every operation has 500 and 503 besides."""
    return {
        status: {"description": MEANING[status], "content": {MEDIA_TYPE: {"schema": {"$ref": _PROBLEM_REF}}}}
        for status in sorted({*statuses, 500, 503})
    }


_PROBLEM_REF = "#/components/schemas/Problem"
