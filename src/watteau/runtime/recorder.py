"""Writes down what a site that others use, too, shows of itself. It works in the site's own thread: no cycle waits."""

from collections.abc import Callable
from dataclasses import replace

import structlog

from watteau.domain.fleet import Site
from watteau.domain.requests import JobState
from watteau.domain.sites import SiteJob, SiteNode
from watteau.engines.contract import SiteView
from watteau.runtime.clock import Clock
from watteau.runtime.diff import assign
from watteau.store.store import Lease, LeaseLost, Store, StoreUnavailable

GONE = "It left the site's memory while nobody looked; how it ended is not known."


class SiteRecorder:
    """One site's. Only changes are written, and only by whoever leads; what could not be written is tried next time."""

    def __init__(self, site: Site, store: Store, lease: Callable[[], Lease | None], clock: Clock) -> None:
        self._site = site
        self._store = store
        self._lease = lease
        self._clock = clock
        self._term: int | None = None  # of the lease under which the two below were read
        self._nodes: tuple[SiteNode, ...] = ()
        self._jobs: dict[tuple[str, int], SiteJob] = {}
        self._log = structlog.get_logger().bind(site=site.id)

    def record(self, view: SiteView) -> tuple[SiteNode, ...]:
        """Which nodes of ours the site's nodes are; numbers that were once given stay."""
        lease = self._lease()
        try:
            if lease is not None and lease.term != self._term:
                self._nodes = tuple(self._store.site_nodes(self._site.id))
                self._jobs = {job.key: job for job in self._store.live_site_jobs(self._site.id)}
                self._term = lease.term
            nodes = assign(self._site, view, self._nodes)
            if lease is not None:
                self._keep(lease, view, nodes)
            return nodes
        except LeaseLost:
            self._term = None
        except StoreUnavailable as gone:
            self._log.warning("what the site shows could not be written down", cause=str(gone))
        return assign(self._site, view, self._nodes)

    def _keep(self, lease: Lease, view: SiteView, nodes: tuple[SiteNode, ...]) -> None:
        before = set(self._nodes)
        if changed_nodes := [node for node in nodes if node not in before]:
            self._store.keep_nodes(lease, self._site.id, changed_nodes)
            self._nodes = nodes
        seen = {job.key: job for job in view.jobs}
        changed = [job for job in view.jobs if self._jobs.get(job.key) != job]
        now_ms = self._clock.now_ms()
        changed += [
            replace(job, state=JobState.FAILED, ended_ms=now_ms, cause=GONE, reason="", held=())
            for key, job in self._jobs.items()
            if key not in seen and not job.state.is_end
        ]
        if changed:
            self._store.keep_site_jobs(lease, changed)
        self._jobs = seen
