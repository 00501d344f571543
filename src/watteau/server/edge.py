"""The outermost layer: request ids, one log line and one measurement for each request, and the limit of bodies.

It also catches what nobody foresaw: the caller gets a problem document with the request id, the log gets the places in
the code that were passed and not the message of the fault, which may quote a password or an environment value.
"""

import re
import secrets
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watteau import __version__
from watteau.domain.fleet import Mode
from watteau.server.live import Live
from watteau.server.problems import Refusal, answer, refusal_of
from watteau.server.schemas import SiteView
from watteau.store.store import Store, StoreUnavailable

MOST_BODY_BYTES = 10 << 20
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

Log = Any  # a structlog logger: any callable attribute is a level
Stopwatch = Callable[[], float]


def json_log(now_ms: Callable[[], int], to: TextIO | None = None) -> Log:
    """A logger that writes one JSON object a line, to stderr unless told otherwise. `at_ms` is our clock's."""

    def stamp(_: Any, __: str, said: Any) -> Any:
        said["at_ms"] = now_ms()
        return said

    return structlog.wrap_logger(
        structlog.PrintLogger(to or sys.stderr),
        processors=[structlog.processors.add_log_level, stamp, structlog.processors.JSONRenderer(ensure_ascii=True)],
    )


class Metrics:
    """What /metrics says, for one app: its own registry, so that two apps in one process do not add up."""

    def __init__(self, store: Store, live: Live, now_ms: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "watteau_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.duration_s = Histogram(
            "watteau_http_request_duration_seconds",
            "From the request's first byte to the answer's last; streams are not counted.",
            ["route"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.registry.register(_Now(store, live, now_ms))


class _Now:
    """Figures that are read when they are asked for. The jobs are counted at most every ten seconds."""

    _COUNTS_KEEP_MS = 10_000

    def __init__(self, store: Store, live: Live, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._live = live
        self._now_ms = now_ms
        self._counted: dict[tuple[str, str], int] = {}
        self._counted_ms = -self._COUNTS_KEEP_MS

    def describe(self) -> list[Metric]:
        """Nothing: registering must not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The figures of now."""
        build = GaugeMetricFamily("watteau_build_info", "Always 1.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield from self._jobs()
        status = self._live.status()
        if status.leading:
            yield from _site_figures(self._live.sites())
        yield GaugeMetricFamily("watteau_leading", "1 when this process's controller leads.", value=status.leading)
        for name, value in sorted(status.figures.items()):
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(f"watteau_{name}", "A figure of the controller; the unit is in its name.", value=value)

    def _jobs(self) -> Iterator[Metric]:
        is_up = 1
        if self._now_ms() - self._counted_ms >= self._COUNTS_KEEP_MS:
            try:
                self._counted = self._store.counts()
                self._counted_ms = self._now_ms()
            except StoreUnavailable:
                is_up = 0
        yield GaugeMetricFamily("watteau_store_up", "1 when the database answered.", value=is_up)
        jobs = GaugeMetricFamily("watteau_jobs", "Jobs by state and reason.", labels=["state", "reason"])
        for (state, reason), number in sorted(self._counted.items()):
            jobs.add_metric([state, reason], number)
        yield jobs


def _site_figures(sites: Iterable[SiteView]) -> Iterator[Metric]:
    """How each site is, from the process that leads: the others would contradict it."""
    modes = GaugeMetricFamily("watteau_site_mode", "1 for the mode in force.", labels=["site", "mode"])
    figures = {
        name: GaugeMetricFamily(f"watteau_site_{name}", what, labels=["site"])
        for name, what in (
            ("silent", "1 when the site's engine does not answer."),
            ("fenced", "1 when the site's attempts count as lost."),
            ("attempts", "Watteau's attempts there that have not ended."),
            ("people_running", "Jobs that people gave the site's own scheduler and that run."),
            ("people_waiting", "Jobs that people gave the site's own scheduler and that wait."),
            ("nodes_out", "Nodes that take no jobs: drained, down, reserved."),
        )
    }
    for site in sites:
        for mode in Mode:
            modes.add_metric([site.id, mode.value], mode.value == site.mode)
        said = {
            "silent": int(site.state == "silent"),
            "fenced": int(bool(site.fenced)),
            "attempts": site.running,
            "people_running": site.people_running,
            "people_waiting": site.people_waiting,
            "nodes_out": site.nodes_out,
        }
        for name, value in said.items():
            if value is not None:  # not known is no zero
                figures[name].add_metric([site.id], value)
    yield modes
    yield from figures.values()


class BrokenOff(Exception):  # noqa: N818 - the name says what happened, as in STYLE
    """An answer that had begun could not be completed; the log has the fault under this request id."""


class Edge:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, log: Log, metrics: Metrics, stopwatch: Stopwatch) -> None:
        self._app = app
        self._log = log
        self._metrics = metrics
        self._stopwatch = stopwatch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = self._stopwatch()
        said = dict(scope["headers"])
        given = said.get(b"x-request-id", b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            if _too_long(said.get(b"content-length", b"")):
                raise _TOO_LARGE
            await self._app(scope, _limited(receive), sending)
        except ClientDisconnect:
            status = status or _HUNG_UP
        except Exception as fault:
            refusal = refusal_of(fault)
            if refusal.status == 500:
                self._log.error("fault", request_id=request_id, kind=type(fault).__name__, passed=_passed(fault))
            if status:  # the answer has begun; all that is left is to break it off
                raise BrokenOff(request_id) from None
            await answer(scope, refusal)(scope, receive, sending)
        finally:
            self._account(scope, request_id, status, self._stopwatch() - began_s)

    def _account(self, scope: Scope, request_id: str, status: int, took_s: float) -> None:
        route = getattr(scope.get("route"), "path", "(none)")
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._metrics.requests.labels(method, route, str(status)).inc()
        state = scope["state"]
        if not state.get("streams"):
            self._metrics.duration_s.labels(route).observe(took_s)
        self._log.info(
            "request",
            request_id=request_id,
            method=method,
            route=route,
            status=status,
            duration_ms=round(took_s * 1000, 3),
            user=state.get("user"),
            job=state.get("job"),
        )


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_HUNG_UP = 499  # nobody saw it; nginx's word for the log
_TOO_LARGE = Refusal(413, "too_large", f"A body has at most {MOST_BODY_BYTES} bytes.")


def _too_long(content_length: bytes) -> bool:
    return content_length.isdigit() and (len(content_length) > 18 or int(content_length) > MOST_BODY_BYTES)


def _limited(receive: Receive) -> Receive:
    """Counts a body while it comes in, so that one without a length is stopped too."""
    got = 0

    async def receiving() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > MOST_BODY_BYTES:
            raise _TOO_LARGE
        return message

    return receiving


def _passed(fault: BaseException) -> list[str]:
    """Where in the code a fault passed, innermost last."""
    frames = traceback.extract_tb(fault.__traceback__)
    return [f"{frame.filename.rsplit('/site-packages/')[-1]}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
