"""What the API asks of the controller: all that is not in the store because only the running process knows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

from watteau.domain.fleet import Fleet, Site
from watteau.domain.requests import JobId
from watteau.domain.sites import Difference
from watteau.domain.units import SiteId
from watteau.engines.contract import LogPart
from watteau.engines.contract import SiteView as Shown
from watteau.runtime.controller import Controller, SiteFigures
from watteau.server.schemas import Evidence, PoolFree, SiteView, moment


@dataclass(frozen=True, slots=True)
class Status:
    """How the controller is, for /readyz and /metrics."""

    leading: bool  # this process decides; otherwise another one does, or will
    compiled: bool  # the decision core is compiled: the next cycle is a quick one
    detail: str = ""
    #: Figures for /metrics: name with unit -> value, for example `cycle_seconds` or `cycles_total`.
    figures: Mapping[str, float] = field(default_factory=dict)


class Live(Protocol):
    """The controller, as the API sees it. Thread-safe; nothing but `wait_change` blocks for long."""

    def sites(self) -> list[SiteView]:
        """Every site as it is now, in the order of the fleet file."""

    def shown(self, site: SiteId) -> Shown | None:
        """What a site that others use, too, showed last; None: nothing yet, not to this process, or no such site."""

    def differences(self, site: SiteId) -> list[Difference] | None:
        """What the fleet file and the site's engine say differently; None as for `shown`."""

    def why(self, job_id: JobId) -> Evidence | None:
        """Figures behind a waiting job's reason; None when there are none (not leading, not waiting)."""

    def log(self, job_id: JobId, attempt: int, stream: str, start: int, most: int) -> LogPart:
        """A piece of an attempt's output. Raises FileNotFoundError (none is kept) and EngineUnreachable."""

    def status(self) -> Status:
        """How the controller is."""

    def wake(self) -> None:
        """Something was submitted or asked for: look at the store now. Never blocks."""

    def wait_change(self, timeout_s: float) -> None:
        """Return as soon as something was written to the event log, or after `timeout_s`. Once too often is fine."""


class WithController:
    """The controller of this process, in the API's words."""

    def __init__(self, controller: Controller, fleet: Fleet) -> None:
        self._controller = controller
        self._fleet = fleet

    def sites(self) -> list[SiteView]:
        """Every site: as the controller sees it, or as the fleet file has it when another one leads."""
        figures = {its.site: its for its in self._controller.sites()}
        return [self._site(site, figures.get(site.id)) for site in self._fleet.sites]

    def _site(self, site: Site, its: SiteFigures | None) -> SiteView:
        known = {
            "id": site.id,
            "name": site.name,
            "engine": site.engine.value,
            "mode": (its.mode if its is not None else site.mode).value,
            "power_limit_kw": site.power_limit_kw,
        }
        if its is None:
            why = "Watteau does not drive it" if self._controller.leading else self._controller.detail
            return SiteView(**known, state="silent", why=why)
        pools = its.pools
        total = {
            name: sum(pool.nodes_up * getattr(pool.pool, name) for pool in pools)
            for name in ("gpus_per_node", "cpu_cores", "memory_gib")
        }
        cpu_free = sum(pool.cpu_milli_free for pool in pools) / 1000
        return SiteView(
            **known,
            state="silent" if its.silent_cause else "ready",
            why=its.silent_cause,
            since=moment(its.since_ms),
            nodes_up=sum(pool.nodes_up for pool in pools),
            nodes_total=sum(pool.nodes_open for pool in pools),
            gpus_total=total["gpus_per_node"],
            gpus_busy=total["gpus_per_node"] - sum(pool.gpu_milli_free for pool in pools) / 1000,
            cpu_cores_total=total["cpu_cores"],
            cpu_cores_busy=total["cpu_cores"] - cpu_free,
            memory_mib_total=1024 * total["memory_gib"],
            memory_mib_busy=1024 * total["memory_gib"] - sum(pool.memory_mib_free for pool in pools),
            fenced=its.fenced,
            running=its.running,
            people_running=its.by_hand_running,
            people_waiting=its.by_hand_waiting,
            nodes_out=its.nodes_out,
            engine_version=its.version,
            power_kw=round(its.it_power_w * min(site.pue.value) / 1000, 3),
            notes=self._controller.drivers[site.id].engine.capabilities.notes,
        )

    def shown(self, site: SiteId) -> Shown | None:
        """The last view of the site's engine; None when another controller leads."""
        return self._controller.site_view(site) if self._controller.leading else None

    def differences(self, site: SiteId) -> list[Difference] | None:
        """The fleet file beside that view; None when another controller leads."""
        return self._controller.differences(site) if self._controller.leading else None

    def why(self, job_id: JobId) -> Evidence | None:
        """The promise, the queue, and what is free where the job may run."""
        promise = self._controller.promise(job_id)
        site_says, site_silent = self._controller.waits_for(job_id), self._controller.unknown(job_id)
        if promise is None or site_says or site_silent:
            said = site_says or site_silent
            return Evidence(site_says=site_says, site_silent=site_silent) if said else None
        return Evidence(
            promised_start=None if promise.starts_by_s is None else moment(1000 * promise.starts_by_s),
            jobs_ahead=promise.ahead,
            pools=tuple(
                PoolFree(
                    site=its.site,
                    pool=its.pool.id,
                    gpu_model=its.pool.gpu_model,
                    gpus_free=its.gpu_milli_free / 1000,
                    nodes_whole=its.nodes_idle,
                    note="" if its.nodes_up else "no node of it is up",
                )
                for its in self._controller.pools_for(job_id)
            ),
        )

    def log(self, job_id: JobId, attempt: int, stream: str, start: int, most: int) -> LogPart:
        """A piece of an attempt's output."""
        return self._controller.read_log(job_id, attempt, stream, start, most)

    def status(self) -> Status:
        """How the controller is."""
        its = self._controller.figures
        return Status(
            leading=self._controller.leading,
            compiled=self._controller.compiled,
            detail=self._controller.detail,
            figures={
                "cycles_total": its.cycles,
                "steps_total": its.steps,
                "rebuilds_total": its.rebuilds,
                "verifications_total": its.verified,
                "attempts_started_total": its.started,
                "attempts_ended_total": its.ended,
                "cycle_faults_total": its.errors,
                "cycle_seconds": its.cycle_s,
                "step_seconds": its.step_s,
            },
        )

    def wake(self) -> None:
        """Look at the store now."""
        self._controller.wake()

    def wait_change(self, timeout_s: float) -> None:
        """Return when something was written to the event log, or after `timeout_s`."""
        self._controller.wait_change(timeout_s)


class NoController:
    """A `Live` without a controller behind it: jobs are kept, and nothing decides on them.

    For an API process beside others that decide, and for measuring the API alone.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def sites(self) -> list[SiteView]:
        """The sites of the fleet file, of which nothing is known now."""
        return [
            SiteView(
                id=site.id,
                name=site.name,
                engine=site.engine.value,
                mode=site.mode.value,
                state="silent",
                why="this process has no controller",
                power_limit_kw=site.power_limit_kw,
            )
            for site in self._fleet.sites
        ]

    def shown(self, site: SiteId) -> Shown | None:
        """None."""
        return None

    def differences(self, site: SiteId) -> list[Difference] | None:
        """None."""
        return None

    def why(self, job_id: JobId) -> Evidence | None:
        """None."""
        return None

    def log(self, job_id: JobId, attempt: int, stream: str, start: int, most: int) -> LogPart:
        """Raises FileNotFoundError."""
        raise FileNotFoundError(f"job {job_id}: this process has no controller")

    def status(self) -> Status:
        """Not leading."""
        return Status(leading=False, compiled=True, detail="this process has no controller")

    def wake(self) -> None:
        """There is nobody to wake."""

    def wait_change(self, timeout_s: float) -> None:
        """Wait for the whole span."""
        Event().wait(timeout_s)
