"""The accounting of Slurm sites as a workload, for commands: whose, of which days, and kept for the next time."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from watteau.cli.exits import Exit
from watteau.cli.inputs import load_fleet
from watteau.cli.session import clean, given_moment, now, warn
from watteau.cli.session import fail as stop
from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import Fleet, Site
from watteau.domain.jobs import Workload
from watteau.domain.sites import SiteJob, SiteNode
from watteau.domain.units import SiteId, TenantId, from_epoch_s, to_epoch_s
from watteau.engines.contract import EngineUnreachable, NoAccounting
from watteau.engines.slurm.facts import TokenRefused
from watteau.runtime.clock import Clock
from watteau.runtime.diff import assign
from watteau.simulation.history import by_day, gpus_there, workload_of
from watteau.workload.formats import read_workload, write_workload
from watteau.workload.scale import submitted_between

__all__ = ["Asked", "Since", "Until", "asked_for", "between", "gpus_of", "history"]

Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Jobs submitted from then on: 2026-01-01, now-90days. Of a site: a year before --until."
    ),
]
Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="Jobs submitted before then. Of a site: the last midnight, UTC.")
]

#: Part of the name of what is kept: a change in how accounting becomes a workload makes older files void.
_VERSION = 1
_KEPT = 20
_PAGE = 1_000
_LAST_S = to_epoch_s(datetime(2200, 1, 1, tzinfo=UTC))
_YEAR = timedelta(days=365)

#: Called with (what is done now, done, of how many).
Show = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose accounting, of jobs submitted in [since, until) in epoch milliseconds."""

    sites: tuple[tuple[Fleet, Site], ...]
    since_ms: int
    until_ms: int
    is_open: bool = False  # the span goes on until now, and is another one the next time
    db: str | None = None  # what Watteau itself recorded of their jobs, in this database, instead of their accounting

    @property
    def source(self) -> str:
        """For people."""
        what = "accounting" if self.db is None else "record"
        since, until = (f"{from_epoch_s(ms // 1_000):%Y-%m-%d}" for ms in (self.since_ms, self.until_ms))
        return f"{what} of {', '.join(site.id for _, site in self.sites)}, {since} to {until}"


def _span(since: str | None, until: str | None) -> tuple[int, int, bool]:
    """[since, until) in epoch milliseconds, and whether it goes on, of what a person wrote.

    It goes up to the last midnight, UTC, and begins a year before, unless said otherwise. Raises InputError for one
    that is empty or has not begun.
    """
    at = now().replace(microsecond=0)
    ended = given_moment(until, "--until", at) or datetime(*at.astimezone(UTC).timetuple()[:3], tzinfo=UTC)
    began = given_moment(since, "--since", at) or ended - _YEAR
    if began >= ended:
        found = f"{began.isoformat()}, which is not before {ended.isoformat()}"
        raise InputError("--since", [Fault(0, "", found, "a time before --until")])
    if began >= at:
        raise InputError("--since", [Fault(0, "", f"{began.isoformat()}, which is to come", "a time that is past")])
    return 1_000 * int(began.timestamp()), 1_000 * int(min(ended, at).timestamp()), ended >= at


def between(workload: Workload, since: str | None, until: str | None) -> Workload:
    """The jobs of a workload with dates that arrived then, as a person wrote it. Raises InputError."""
    at = now()
    began, ended = given_moment(since, "--since", at), given_moment(until, "--until", at)
    if began and ended and began >= ended:
        raise InputError("--since", [Fault(0, "", f"{since}, which is not before {until}", "a time before --until")])
    return submitted_between(
        workload, int(began.timestamp()) if began else 0, int(ended.timestamp()) if ended else _LAST_S
    )


def asked_for(
    names: Sequence[str], fleet: Fleet, fleet_file: Path, since: str | None, until: str | None, db: str | None = None
) -> Asked:
    """The accounting of `SITE` of the fleet, or of `FILE:SITE` of another fleet file; or what a database has of it.

    Raises InputError.
    """
    sites: list[tuple[Fleet, Site]] = []
    for name in dict.fromkeys(names):
        file, colon, site_id = name.rpartition(":")
        path = Path(file) if colon else fleet_file
        of = load_fleet(path) if colon else fleet
        sites.append((of, _site(of, site_id, path, needs_access=db is None)))
    return Asked(tuple(sites), *_span(since, until), db)


def gpus_of(asked: Asked) -> float:
    """GPUs that the sites had on average in that time, by their fleet files."""
    return sum(gpus_there(site, asked.since_ms // 1_000, asked.until_ms // 1_000) for _, site in asked.sites)


def history(asked: Asked, show: Show, *, keep: bool = False, refresh: bool = False) -> Workload:
    """The jobs that the sites' own accounting, or a database of Watteau, has of that time.

    With `keep`, what is read of accounting is kept in the user's cache, and taken from there the next time unless
    `refresh`. Whatever keeps the accounting from being read ends the command and says what to do.
    """
    kept = _kept_file(asked) if keep and asked.db is None and not asked.is_open else None
    if kept is not None and not refresh:
        with suppress(InputError):  # it is not there, or cannot be read
            return read_workload(kept)
    clock = Clock()
    workload = _read(asked, clock.now_ms, show)
    read_at = from_epoch_s(clock.now_ms() // 1_000).isoformat()
    workload = replace(workload, notes=(*workload.notes, f"read at {read_at}"))
    if kept is not None:
        _keep(workload, kept)
    return workload


def _site(fleet: Fleet, site_id: str, path: Path, *, needs_access: bool) -> Site:
    found = next((site for site in fleet.sites if site.id == site_id), None)
    if found is None:
        known = ", ".join(site.id for site in fleet.sites)
        raise InputError(str(path), [Fault(0, "", f"no site {site_id!r}", f"one of {known}")])
    if needs_access and found.slurm is None:
        able = ", ".join(site.id for site in fleet.sites if site.slurm is not None) or "there is none in this file"
        expected = f"a site with a table [sites.slurm] ({able}); `FILE:SITE` takes it from another fleet file"
        raise InputError(
            str(path), [Fault(0, "", f"site {site_id} with engine {found.engine} and no accounting", expected)]
        )
    return found


def _read(asked: Asked, now_ms: Callable[[], int], show: Show) -> Workload:
    gpu_models: dict[tuple[SiteId, str], str] = {}

    def jobs() -> Iterator[SiteJob]:
        for fleet, site in asked.sites:
            if asked.db is not None:
                yield from _recorded_jobs(site, asked, asked.db, show, gpu_models)
            else:
                yield from _jobs_of(fleet, site, asked, now_ms, show, gpu_models)

    nobody: Collection[TenantId] = {fleet.tenants.id for fleet, _ in asked.sites}
    return workload_of(jobs(), source=asked.source, gpu_models=gpu_models, nobody=nobody)


def _jobs_of(
    fleet: Fleet,
    site: Site,
    asked: Asked,
    now_ms: Callable[[], int],
    show: Show,
    gpu_models: dict[tuple[SiteId, str], str],
) -> Iterator[SiteJob]:
    """The site's jobs; `gpu_models` of its nodes is filled in before the first of them comes."""
    from watteau.engines.slurm.engine import open_slurm

    days = -(-(asked.until_ms - asked.since_ms) // 86_400_000)

    def progress(day_ms: int) -> None:
        done = (day_ms - asked.since_ms) // 86_400_000
        show(f"Accounting of {site.id}, {from_epoch_s(day_ms // 1_000):%Y-%m-%d}", done, days)

    try:
        engine = open_slurm(site, fleet.tenants, now_ms)
        try:
            if _has_a_choice(site):
                engine.capacity()  # waits until the site was seen
                view = engine.look()
                gpu_models |= _gpu_models(site, () if view is None else assign(site, view, ()))
            yield from by_day(engine, asked.since_ms, asked.until_ms, progress)
        finally:
            engine.close()
    except NoAccounting as none:
        stop(
            f"site {site.id}: {clean(str(none))}\n"
            "With a file: watteau workload import-sacct FILE --out jobs.parquet, where somebody may run sacct;\n"
            "then watteau simulate FLEET --trace jobs.parquet.\n"
            "What Watteau itself recorded there, in whatever mode: watteau simulate FLEET --from-site SITE --db URL."
        )
    except (EngineUnreachable, TokenRefused) as gone:
        stop(f"site {site.id}: {clean(str(gone))}", Exit.NOT_REACHABLE)


def _recorded_jobs(
    site: Site, asked: Asked, db: str, show: Show, gpu_models: dict[tuple[SiteId, str], str]
) -> Iterator[SiteJob]:
    """The site's jobs in a database of Watteau; `gpu_models` as in `_jobs_of`."""
    from watteau.store.answers import SiteJobFilter
    from watteau.store.errors import StoreUnavailable
    from watteau.store.store import Store

    file = Path(db.removeprefix("sqlite:///"))
    if db.startswith("sqlite:///") and not file.is_file():  # it would be made, and be empty
        raise InputError("--db", [Fault(0, "", f"no file {file}", "the database of `watteau up`")])
    only = SiteJobFilter(
        sites=frozenset({site.id}), submitted_since_ms=asked.since_ms, submitted_until_ms=asked.until_ms
    )
    try:
        with Store(db).closing() as store:
            if _has_a_choice(site):
                gpu_models |= _gpu_models(site, store.site_nodes(site.id))
            page = store.site_jobs(only, _PAGE)
            yield from page.jobs
            while page.next_cursor is not None:
                show(f"Record of {site.id}, {from_epoch_s(page.jobs[-1].submitted_ms // 1_000):%Y-%m-%d}", 0, 0)
                page = store.site_jobs(only, _PAGE, page.next_cursor)
                yield from page.jobs
    except (StoreUnavailable, ValueError) as gone:
        raise InputError("--db", [Fault(0, "", str(gone), "a database that can be opened and read")]) from None


def _has_a_choice(site: Site) -> bool:
    """Whether its nodes have several models: where all have one, it says nothing of what a job needs."""
    return len({pool.gpu_model for pool in site.pools}) > 1


def _gpu_models(site: Site, nodes: Iterable[SiteNode]) -> dict[tuple[SiteId, str], str]:
    """(site, node) -> the model of its pool."""
    model = {pool.id: pool.gpu_model for pool in site.pools}
    return {(site.id, node.node): model[node.pool] for node in nodes if node.pool in model}


def _kept_file(asked: Asked) -> Path:
    """Named by all that the workload depends on: how the site is reached, whose accounts are whose, the span."""
    sites = [(site.id, site.slurm, site.pools, fleet.tenants) for fleet, site in asked.sites]
    depends = (_VERSION, asked.since_ms, asked.until_ms, sites)
    digest = sha256(repr(depends).encode()).hexdigest()[:16]
    given = os.environ.get("XDG_CACHE_HOME")
    base = Path(given) if given else Path.home() / ".cache"
    return base / "watteau" / "history" / f"{'+'.join(site.id for _, site in asked.sites)[:64]}-{digest}.parquet"


def _keep(workload: Workload, kept: Path) -> None:
    """Other people's jobs: for the user's own eyes. What cannot be kept is read again the next time."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_workload(workload, kept)
        files = sorted(kept.parent.glob("*.parquet"), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in files[_KEPT:]:
            old.unlink(missing_ok=True)
    except (OSError, InputError) as error:
        warn(f"what was read is not kept for the next time: {error}")
