"""The HTTP API as one app: `create_app` puts its parts together and refuses a route that nobody guards."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from watteau import __version__
from watteau.domain.errors import InvariantBroken
from watteau.domain.fleet import Fleet
from watteau.domain.requests import Request
from watteau.energy.supply import CapacityFactors
from watteau.server import problems, routes_energy, routes_fleet, routes_jobs, routes_people, routes_sites
from watteau.server.access import RULES, About, Tree
from watteau.server.auth import KnownTokens, Passwords, Throttle
from watteau.server.edge import Edge, Log, Metrics, Stopwatch, json_log
from watteau.server.live import Live
from watteau.server.pulse import Pulse
from watteau.server.schemas import BulkBody, LoginBody, Problem, SiteBody, TokenBody, UserBody, UserChangeBody
from watteau.server.service import GUARDS, Services
from watteau.store.store import Store

OPENAPI_PATH = "/api/v1/openapi.json"

_DESCRIPTION = """\
Submit jobs to a fleet of several sites, follow them, and ask why they wait.

Every request but `POST /api/v1/login` needs a token: `Authorization: Bearer wt_...`. Every error is a problem document
(RFC 9457) with a stable `code`. An answer to a submission means that the job is on disk and will not be lost.
"""
#: Models that come in and that FastAPI does not see, because the routes read their bodies themselves.
_BODIES: tuple[type[BaseModel], ...] = (
    Request,
    BulkBody,
    SiteBody,
    LoginBody,
    TokenBody,
    UserBody,
    UserChangeBody,
    Problem,
)


def create_app(
    store: Store,
    fleet: Fleet,
    live: Live,
    now_ms: Callable[[], int],
    *,
    log: Log | None = None,
    stopwatch_s: Stopwatch | None = None,
    report: Path | None = None,
    factors: CapacityFactors | None = None,
) -> FastAPI:
    """The API over a store and a controller.

    `now_ms` is the wall clock in epoch milliseconds; `stopwatch_s` measures durations (by `now_ms` when left out).
    `log` gets one line a request (JSON to stderr when left out). `report` is a page to show at /report.
    `factors` are those of the supply; without them the weather of the energy books is generated.
    """
    log = log or json_log(now_ms)
    metrics = Metrics(store, live, now_ms)
    pulse = Pulse(store, live)
    services = Services(
        store=store,
        fleet=fleet,
        live=live,
        now_ms=now_ms,
        tree=Tree(fleet.tenants),
        known_tokens=KnownTokens(store, now_ms),
        passwords=Passwords(),
        throttle=Throttle(now_ms),
        pulse=pulse,
        log=log,
        metrics=metrics,
        report=report,
        factors=factors,
        queries={
            str(route.operation_id): frozenset(each.alias for each in route.dependant.query_params)
            for route in routes()
        },
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        pulse.close()

    app = FastAPI(
        title="Watteau",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url=OPENAPI_PATH,
        # The pages of Swagger and ReDoc fetch their scripts from other machines.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.services = services
    app.router.routes.extend(routes())
    problems.install(app)
    app.add_middleware(Edge, log=log, metrics=metrics, stopwatch=stopwatch_s or (lambda: now_ms() / 1000))
    app.openapi = functools.cache(openapi_document)  # type: ignore[method-assign]
    faults = list(unguarded(app.router.routes))
    if faults:
        raise InvariantBroken("; ".join(faults))
    return app


def routes() -> list[APIRoute]:
    """Every operation of the API, in order."""
    routers = (
        routes_jobs.router,
        routes_people.router,
        routes_fleet.router,
        routes_sites.router,
        routes_energy.router,
        routes_fleet.process_router,
    )
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


def unguarded(found: list[Any]) -> Iterator[str]:
    """Operations without a rule, or without the guard that their rule needs."""
    for route in found:
        if not isinstance(route, APIRoute):
            if getattr(route, "path", None) != OPENAPI_PATH:
                yield f"{route}: not an operation"
            continue
        rule = RULES.get(route.operation_id or "")
        if rule is None:
            yield f"{route.path}: operation {route.operation_id} has no row in the table of rules"
        elif rule.about is not About.NOBODY and GUARDS[rule.about] not in _called(route.dependant):
            yield f"{route.path}: operation {route.operation_id} is not guarded as {rule.about.value}"


def _called(dependant: Dependant) -> Iterator[Any]:
    for each in dependant.dependencies:
        yield each.call
        yield from _called(each)


def openapi_document() -> dict[str, Any]:
    """FastAPI's document, with the bodies that it does not see and without its own form of errors."""
    document = get_openapi(title="Watteau", version=__version__, description=_DESCRIPTION, routes=routes())
    schemas = document["components"]["schemas"]
    _, bodies = models_json_schema(
        [(model, "validation") for model in _BODIES], ref_template="#/components/schemas/{model}"
    )
    schemas.update({name: schema for name, schema in bodies["$defs"].items() if name not in schemas})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["servers"] = [{"url": "/", "description": "This server."}]
    return document
