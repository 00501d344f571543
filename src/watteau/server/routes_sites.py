"""One site over HTTP: how it is, how far Watteau goes there, its nodes, and the jobs that people gave it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from watteau.domain.fleet import Engine, Mode, Site
from watteau.domain.requests import JobState
from watteau.domain.sites import Difference, SiteSetting
from watteau.domain.units import SiteId, TenantId
from watteau.engines.contract import SiteView as Shown
from watteau.server.problems import Refusal, documented, invalid, not_found
from watteau.server.schemas import (
    MOST_PAGE_JOBS,
    DifferencesView,
    DifferenceView,
    Instant,
    PartitionView,
    ReservationView,
    SettingView,
    SiteBody,
    SiteDetailView,
    SiteJobsView,
    SiteJobView,
    SiteNodesView,
    SiteNodeView,
    SiteView,
    moment,
)
from watteau.server.service import RawJson, Services, SiteAccess, at, guard_site, in_range, parse, takes
from watteau.store.store import SiteJobFilter

router = APIRouter(prefix="/api/v1", tags=["fleet"])

OnSite = Annotated[SiteAccess, Depends(guard_site)]

#: Engines that other people use, too. The others have no jobs but Watteau's, and nothing to compare with.
_SHARED = frozenset({Engine.SLURM})
_RETRY_SHOWN_S = 5


@router.get("/sites/{site}", operation_id="show_site", summary="Show a site", responses=documented(401, 403, 404, 422))
def show_site(access: OnSite) -> SiteDetailView:
    """One site as it is now, what an operator said of it, and the queues and reservations of its own scheduler."""
    return _detail(access)


@router.put(
    "/sites/{site}",
    operation_id="set_site",
    summary="Set a site's mode, or fence it",
    responses=documented(400, 401, 403, 404, 413, 415, 422),
    openapi_extra=takes(SiteBody),
)
def set_site(access: OnSite, raw: RawJson) -> SiteDetailView:
    """Say anew what holds at a site, above the fleet file. It is kept at once, and whoever leads obeys in a moment.

    A fence makes the site's attempts count as lost: their jobs start elsewhere. Fence only what cannot run them.
    """
    body, services, site = parse(SiteBody, raw), access.services, access.site
    _insist_on_shared(site, body)
    by = access.caller.user.name
    services.store.set_site(SiteSetting(site.id, body.mode, body.fenced, body.why, by, services.now_ms()))
    services.live.wake()
    return _detail(access)


def _insist_on_shared(site: Site, body: SiteBody) -> None:
    """Raises Refusal (422) when a site that nobody else uses is not to be driven, or is to be fenced."""
    if site.engine in _SHARED:
        return
    alone = f"the engine of {site.id} is {site.engine.value}, which nobody but Watteau gives jobs to"
    errors = []
    if body.mode is not Mode.DRIVE:
        errors.append(
            at("/mode", f"{alone}: there is nothing to {body.mode.value}; say drive, or hold the jobs that must wait")
        )
    if body.fenced:
        errors.append(at("/fenced", f"{alone}: what it runs cannot be found and stopped when it comes back; say false"))
    if errors:
        raise invalid(errors)


@router.get(
    "/sites/{site}/nodes",
    operation_id="list_site_nodes",
    summary="A site's nodes",
    responses=documented(401, 403, 404, 422),
)
def list_site_nodes(access: OnSite) -> SiteNodesView:
    """Every node that a site has ever shown, its place in our pools, and whether it takes jobs."""
    shown = access.services.live.shown(access.site.id)
    has = {
        node.node: {
            "gpu_model": node.gpu_model,
            "gpus": node.gpus,
            "cpu_cores": node.cpu_cores,
            "memory_mib": node.memory_mib,
        }
        for node in (shown.nodes if shown is not None else ())
    }
    nodes = access.services.store.site_nodes(access.site.id)
    return SiteNodesView(nodes=tuple(SiteNodeView.of(node, **has.get(node.node, {})) for node in nodes))


@router.get(
    "/sites/{site}/differences",
    operation_id="list_differences",
    summary="Fleet file and engine",
    responses=documented(401, 403, 404, 409, 422),
)
def list_differences(access: OnSite) -> DifferencesView:
    """What the fleet file and the site's engine say differently, each with what would make them agree."""
    found = access.services.live.differences(access.site.id)
    if found is None:
        raise _not_shown(access)
    return DifferencesView(differences=tuple(DifferenceView.of(each) for each in found))


def _not_shown(access: SiteAccess) -> Refusal:
    """Why there is nothing to compare."""
    site, live = access.site, access.services.live
    if site.engine not in _SHARED:
        what = f"The engine of {site.id} is {site.engine.value}: its nodes are those of the fleet file, as it is."
        return Refusal(409, "conflict", f"{what} There is nothing to compare.")
    status = live.status()
    if not status.leading:
        why = status.detail or "this process does not lead"
        return Refusal(
            409, "not_leading", f"Only the process that leads sees {site.id} ({why}). Ask that one.", retry_after_s=10
        )
    view = next((each for each in live.sites() if each.id == site.id), None)
    why = f": {view.why}" if view is not None and view.why else ""
    said = f"{site.id} has shown nothing since this process began to lead{why}. Ask again when it answers."
    return Refusal(409, "nothing_seen", said, retry_after_s=_RETRY_SHOWN_S)


@router.get(
    "/sites/{site}/jobs",
    operation_id="list_site_jobs",
    summary="Jobs by hand",
    response_model=SiteJobsView,
    responses=documented(401, 403, 404, 422),
)
def list_site_jobs(
    access: OnSite,
    state: Annotated[list[JobState], Query(description="Only these states; may be given several times.")] = [],  # noqa: B006
    tenant: Annotated[
        str | None, Query(max_length=128, description="Only this tenant and all below it.", examples=["alpha"])
    ] = None,
    user: Annotated[
        str, Query(max_length=128, pattern=r"^[^\x00]*$", description="Only this user's.", examples=["zoe"])
    ] = "",
    name: Annotated[
        str, Query(max_length=128, pattern=r"^[^\x00]*$", description="Only with this in the name.", examples=["train"])
    ] = "",
    engine_id: Annotated[
        str, Query(max_length=64, pattern=r"^[^\x00]*$", description="Only this number of the scheduler's own.")
    ] = "",
    since: Annotated[Instant | None, Query(description="Only those submitted then or later.")] = None,
    until: Annotated[Instant | None, Query(description="Only those submitted before then.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_PAGE_JOBS, description="How many on a page.")] = 100,
    cursor: Annotated[
        str | None,
        Query(max_length=512, pattern=r"^[^\x00]*$", description="`next_cursor` of the page before."),
    ] = None,
) -> Response:
    """Jobs that people gave to the site's own scheduler, of the tenants whose jobs the caller may see, newest first."""
    services = access.services
    tenants = access.caller.scope_of_rows(access.operation)
    if tenant is not None:
        below = services.tree.below(TenantId(tenant))
        tenants = below if tenants is None else below & tenants
        if not tenants:
            raise not_found(f"tenant {tenant!r}")
    only = SiteJobFilter(
        sites=frozenset({access.site.id}),
        tenants=tenants,
        users=frozenset({user} if user else ()),
        states=frozenset(state),
        name_contains=name,
        engine_id=engine_id,
        submitted_since_ms=None if since is None else in_range(since, "since"),
        submitted_until_ms=None if until is None else in_range(until, "until"),
    )
    try:
        page = services.store.site_jobs(only, limit, cursor)
    except ValueError:
        raise invalid([at("#query/cursor", "not a cursor that this server gave")]) from None
    view = SiteJobsView(jobs=tuple(SiteJobView.of(job) for job in page.jobs), next_cursor=page.next_cursor)
    return Response(view.model_dump_json(), media_type="application/json")


def sites_now(services: Services) -> tuple[SiteView, ...]:
    """Every site as it is now, in the order of the fleet file, with what holds there."""
    said = {each.site: each for each in services.store.site_settings()}
    views = services.live.sites()
    if services.live.status().leading:  # it says what is in force; another process can only say what was ordered
        return tuple(views)
    return tuple(_as_ordered(view, said.get(SiteId(view.id))) for view in views)


def _as_ordered(view: SiteView, said: SiteSetting | None) -> SiteView:
    if said is None:
        return view
    fenced = f"fenced by {said.by}: {said.why}" if said.fenced else ""
    return view.model_copy(update={"mode": said.mode.value, "fenced": fenced})


def _detail(access: SiteAccess) -> SiteDetailView:
    services, site = access.services, access.site
    view = next(each for each in sites_now(services) if each.id == site.id)
    setting = next((each for each in services.store.site_settings() if each.site == site.id), None)
    found: list[Difference] | None = services.live.differences(site.id)
    shown: Shown | None = services.live.shown(site.id)
    return SiteDetailView(
        **view.model_dump(),
        fleet_mode=site.mode,
        setting=None if setting is None else SettingView.of(setting),
        differences=None if found is None else len(found),
        partitions=tuple(
            PartitionView(
                name=each.name,
                is_default=each.is_default,
                up=each.up,
                nodes=len(each.nodes),
                most_time_s=each.most_time_s,
                most_nodes=each.most_nodes,
            )
            for each in (shown.partitions if shown is not None else ())
        ),
        reservations=tuple(
            ReservationView(
                name=each.name,
                start=moment(1000 * each.start_s),
                end=moment(1000 * each.end_s),
                nodes=each.nodes,
                flags=each.flags,
            )
            for each in (shown.reservations if shown is not None else ())
        ),
    )
