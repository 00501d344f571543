"""What the API asks of the controller: all that is not in the store because only the running process knows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

from watteau.domain.fleet import Fleet
from watteau.domain.requests import JobId
from watteau.engines.contract import LogPart
from watteau.server.schemas import Evidence, SiteView


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
