"""The hourly energy books over HTTP."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from watteau.domain.units import DAY_S, HOUR_S, Int64Array
from watteau.runtime.books import LiveBooks, keep_books
from watteau.server.problems import documented, invalid
from watteau.server.schemas import EnergyView, HourEnergyView, Instant, SiteEnergyView, Word, moment
from watteau.server.service import Access, at, guard, in_range

router = APIRouter(prefix="/api/v1", tags=["fleet"])

_SPAN_MS = 7 * DAY_S * 1000


@router.get("/energy", operation_id="report_energy", summary="Energy", responses=documented(401, 403, 422))
def report_energy(
    access: Annotated[Access, Depends(guard)],
    since: Annotated[
        Instant | None, Query(description="From the hour of then on; 7 days before `until` when left out.")
    ] = None,
    until: Annotated[
        Instant | None,
        Query(description="Up to the end of the hour of then, at most up to now; now when left out."),
    ] = None,
    site: Annotated[Word | None, Query(description="Only this site; all when left out.")] = None,
    hourly: Annotated[bool, Query(description="Whether each hour is told, too.")] = True,
) -> EnergyView:
    """What the sites with an engine drew in each hour, in Wh whose parts add up to the meter, and what supply met it.

    Who does not see every tenant's jobs gets the energy of those they see; the rest would tell what others used.
    """
    services = access.services
    now_ms = services.now_ms()
    until_ms = now_ms if until is None else in_range(until, "until")
    since_ms = max(until_ms - _SPAN_MS, 0) if since is None else in_range(since, "since")
    if since_ms > until_ms:
        raise invalid([at("#query/since", "it must not come after until")])
    tenants = access.caller.scope_of_rows(access.operation)
    try:
        books = keep_books(services.store, services.fleet, services.factors, since_ms, until_ms, now_ms, tenants)
    except ValueError as error:
        raise invalid([at("#query/since", f"{error}")]) from None
    shown = [row for row, each in enumerate(books.fleet.sites) if site is None or each.id == site]
    if site is not None and not shown:
        known = ", ".join(each.id for each in books.fleet.sites) or "none"
        raise invalid([at("#query/site", f"no site with an engine has this id; there are: {known}")])
    return _view(books, shown, hourly=hourly)


def _view(books: LiveBooks, shown: list[int], *, hourly: bool) -> EnergyView:
    whole = books.whole
    ids = [books.fleet.sites[row].id for row in shown]
    columns = {name: figures[shown] for name, figures in _columns(books).items()}
    totals = {name: figures.sum(axis=1).tolist() for name, figures in columns.items()}
    load_wh, matched_wh = sum(totals.get("site_wh", ())), sum(totals.get("matched_wh", ()))
    hours: tuple[HourEnergyView, ...] = ()
    if hourly:
        by_hour = {name: figures.T.tolist() for name, figures in columns.items()}
        hours = tuple(
            HourEnergyView(
                hour=moment(1000 * (books.first_hour_s + HOUR_S * hour)),
                over=books.first_hour_s + HOUR_S * (hour + 1) <= books.until_s,
                sites=_sites(ids, {name: figures[hour] for name, figures in by_hour.items()}),
            )
            for hour in range(books.hours)
        )
    return EnergyView(
        since=moment(1000 * books.first_hour_s),
        until=moment(1000 * books.until_s),
        sites=_sites(ids, totals),
        hourly_matched_share=matched_wh / load_wh if load_wh else None,
        supply_source=None if whole is None else whole.supply.source,
        supply_synthetic=whole is not None and whole.supply_synthetic,
        notes=books.notes,
        hours=hours,
    )


def _columns(books: LiveBooks) -> dict[str, Int64Array]:
    """[site, hour] figures by the names of the view; those that the caller may not see are left out."""
    columns = {"jobs_wh": books.ours_wh, "by_hand_wh": books.by_hand_wh}
    if books.whole is not None:
        kept = books.whole.books
        columns |= {
            "idle_wh": kept.idle_wh,
            "overhead_wh": kept.overhead_wh,
            "site_wh": kept.site_wh,
            "supply_wh": kept.site_supply_wh,
            "matched_wh": kept.site_matched_wh,
        }
    return columns


def _sites(ids: Sequence[str], columns: dict[str, list[int]]) -> tuple[SiteEnergyView, ...]:
    return tuple(
        SiteEnergyView(site=site, **{name: figures[row] for name, figures in columns.items()})
        for row, site in enumerate(ids)
    )
