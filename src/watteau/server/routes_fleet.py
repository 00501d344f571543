"""Sites, tenants, usage, and the process itself over HTTP."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from watteau.domain.units import DAY_S, TenantId
from watteau.server.problems import cause, documented, invalid, not_found
from watteau.server.routes_sites import sites_now
from watteau.server.schemas import (
    Instant,
    OkView,
    ReadyView,
    SitesView,
    TenantsView,
    TenantView,
    UsageLine,
    UsageView,
    moment,
)
from watteau.server.service import Access, at, guard, in_range, services_of
from watteau.store.store import StoreUnavailable

router = APIRouter(prefix="/api/v1", tags=["fleet"])
process_router = APIRouter(tags=["process"])

Anyone = Annotated[Access, Depends(guard)]
_MS_PER_HOUR = 3_600_000
_USAGE_SPAN_MS = 30 * DAY_S * 1000


@router.get("/sites", operation_id="list_sites", summary="The sites", responses=documented(401, 403, 422))
def list_sites(access: Anyone) -> SitesView:
    """Every site of the fleet as it is now."""
    return SitesView(sites=sites_now(access.services))


@router.get("/tenants", operation_id="list_tenants", summary="Tenants", responses=documented(401, 403, 422))
def list_tenants(access: Anyone) -> TenantsView:
    """The caller's part of the tenant tree, depth first."""
    tree, caller = access.services.tree, access.caller
    seen, pays = caller.part(access.operation), caller.part("submit_job")
    return TenantsView(
        tenants=tuple(
            TenantView(
                id=tenant.id,
                name=tenant.name,
                parent=_seen_parent(tree.parent[tenant.id], seen),
                share=tenant.share,
                quota_gpus=tenant.quota_gpus,
                takes_jobs=tree.takes_jobs(tenant.id),
                may_submit=tenant.id in pays and tree.takes_jobs(tenant.id),
            )
            for tenant in tree.tenants.values()
            if tenant.id in seen
        )
    )


def _seen_parent(parent: TenantId | None, seen: frozenset[TenantId]) -> str | None:
    return parent if parent in seen else None


@router.get("/usage", operation_id="report_usage", summary="Usage", responses=documented(401, 403, 422))
def report_usage(
    access: Anyone,
    by: Annotated[Literal["tenant", "user", "site"], Query(description="What the lines are by.")] = "tenant",
    since: Annotated[Instant | None, Query(description="From then on; 30 days before `until` when left out.")] = None,
    until: Annotated[Instant | None, Query(description="Up to then; now when left out.")] = None,
) -> UsageView:
    """GPU-hours and core-hours in [since, until), of jobs that the caller may see, jobs by hand among them."""
    services = access.services
    until_ms = services.now_ms() if until is None else in_range(until, "until")
    since_ms = max(until_ms - _USAGE_SPAN_MS, 0) if since is None else in_range(since, "since")
    if since_ms > until_ms:
        raise invalid([at("#query/since", "it must not come after until")])
    rows = services.store.usage(by, since_ms, until_ms, access.caller.scope_of_rows(access.operation))
    return UsageView(
        by=by,
        since=moment(since_ms),
        until=moment(until_ms),
        usage=tuple(
            UsageLine(
                key=row.key,
                jobs=row.jobs,
                by_hand_jobs=row.by_hand_jobs,
                attempts=row.attempts,
                gpu_hours=round(row.gpu_milli_ms / 1000 / _MS_PER_HOUR, 3),
                cpu_hours=round(row.cpu_milli_ms / 1000 / _MS_PER_HOUR, 3),
                gpu_milli_ms=row.gpu_milli_ms,
                cpu_milli_ms=row.cpu_milli_ms,
            )
            for row in rows
        ),
    )


# --- the process ------------------------------------------------------------------------------------------------------


@process_router.get("/healthz", operation_id="is_alive", summary="Does the process live?")
def is_alive() -> OkView:
    """Answers as long as the process does; it asks nothing of the database."""
    return OkView(ok=True)


@process_router.get(
    "/readyz",
    operation_id="is_ready",
    summary="Can it work?",
    response_model=ReadyView,
    responses={503: {"model": ReadyView, "description": "Not now: what is wrong is said."}},
)
def is_ready(http: HttpRequest) -> Response:
    """200 when a submission would be kept now and the core is compiled, else 503. One of several processes leads."""
    services = services_of(http)
    said = "ok"
    try:
        services.store.check()
    except StoreUnavailable as fault:
        said = cause(fault)
    status = services.live.status()
    view = ReadyView(
        ready=said == "ok" and status.compiled,
        store=said,
        leading=status.leading,
        compiled=status.compiled,
        detail=status.detail,
    )
    return Response(view.model_dump_json(), 200 if view.ready else 503, media_type="application/json")


@process_router.get(
    "/metrics",
    operation_id="read_metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
def read_metrics(http: HttpRequest) -> Response:
    """Requests, jobs by state and reason, the controller's figures, the version. It names no tenant and no user."""
    return Response(generate_latest(services_of(http).metrics.registry), media_type=CONTENT_TYPE_LATEST)


@process_router.get(
    "/report",
    operation_id="read_report",
    summary="The demonstration's report",
    response_class=Response,
    responses={
        **documented(404),
        200: {"description": "One page.", "content": {"text/html": {"schema": {"type": "string"}}}},
    },
)
def read_report(http: HttpRequest) -> Response:
    """The page that `watteau demo` wrote, of a synthetic workload; only `watteau up --demo` shows one."""
    report = services_of(http).report
    if report is None or not report.is_file():
        raise not_found("report")
    return Response(report.read_bytes(), media_type="text/html")
