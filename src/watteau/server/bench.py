"""How fast the API is on this machine, over real HTTP, beside what the machine itself can do in the same run."""

import http.client
import json
import math
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from watteau.domain.fleet import Fleet, Pool, Pue
from watteau.domain.people import Grant, Role, User
from watteau.domain.requests import Request
from watteau.domain.tenants import Tenant
from watteau.domain.units import PoolId, TenantId
from watteau.server.api import create_app
from watteau.server.auth import digest, new_secret
from watteau.server.edge import json_log
from watteau.server.live import NoController
from watteau.server.schemas import Scope
from watteau.server.serve import Server
from watteau.store.store import Store

CONNECTIONS = 8
_BULK = 1_000
_A_YEAR_MS = 366 * 86_400_000
_START_MS = 1_767_614_400_000
_TENANTS = tuple(TenantId(f"tenant-{number}") for number in range(20))
_A_JOB = {"name": "train", "tenant": "tenant-3", "command": ["python", "train.py"], "gpu_milli": 1_000}


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of something were done in a second, how long one took, and what it cost the measured process."""

    what: str
    per_s: float
    median_ms: float
    p99_ms: float
    number: int
    cpu_ms: float  # of the process that did it, for each

    def as_figures(self) -> dict[str, float | int]:
        """For JSON."""
        return {
            "per_s": round(self.per_s, 1),
            "median_ms": round(self.median_ms, 2),
            "p99_ms": round(self.p99_ms, 2),
            "number": self.number,
            "cpu_ms": round(self.cpu_ms, 3),
        }


def bench_api(
    folder: Path,
    *,
    url: str | None = None,
    seconds: float = 5.0,
    jobs_in_store: int = 1_000_000,
    show: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure submissions, bulks and pages on a fresh store in `folder` (or at `url`, which must be empty).

    The server is a process of its own; the clients are threads of this one. Ratios are to this machine's own limits
    in the same run: small writes to a file, each on disk before the next, and answers that need no database.
    """
    show("synced writes")
    synced = _synced_writes(folder, seconds / 2)
    with _serving(folder, url or f"sqlite:///{folder / 'bench.db'}") as server:
        show("pings")
        ping = _rate("ping", server, seconds / 2, lambda: ("GET", "/healthz", b""))
        show("submissions")
        body = json.dumps(_A_JOB).encode()
        single = _rate("submit", server, seconds, lambda: ("POST", "/api/v1/jobs", body))
        show("bulks")
        many = json.dumps({"jobs": [_A_JOB] * _BULK}).encode()
        bulk = _rate("bulk", server, seconds, lambda: ("POST", "/api/v1/jobs/bulk", many), connections=1)
        pages: dict[str, Any] = {}
        if jobs_in_store:
            show(f"filling the store with {jobs_in_store:,} jobs")
            server.ask("fill", jobs_in_store)
            show("pages")
            pages = {name: rate.as_figures() for name, rate in _pages(server, seconds)}
    return {
        "connections": CONNECTIONS,
        "store": "sqlite" if url is None else url.partition(":")[0],
        "jobs_in_store": jobs_in_store,
        "synced_write": synced.as_figures(),
        "ping": ping.as_figures(),
        "submit": single.as_figures() | _ratios(single, synced, ping),
        "bulk_jobs_per_s": round(bulk.per_s * _BULK, 1),
        "bulk": bulk.as_figures() | {"jobs": _BULK},
        "pages_of_100": pages,
    }


def _ratios(single: Rate, synced: Rate, ping: Rate) -> dict[str, float]:
    return {
        "of_synced_writes": round(single.per_s / synced.per_s, 3),
        "of_pings": round(single.per_s / ping.per_s, 3),
    }


def _synced_writes(folder: Path, seconds: float) -> Rate:
    """Appending half a kilobyte to a file, each on disk before the next."""
    path = folder / "synced"
    took: list[float] = []
    began, cpu_s = time.perf_counter(), time.process_time()
    with path.open("wb", buffering=0) as file:
        while time.perf_counter() - began < seconds:
            one = time.perf_counter()
            file.write(b"x" * 512)
            os.fsync(file.fileno())
            took.append(time.perf_counter() - one)
    whole_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    path.unlink()
    return _summary("synced write", took, whole_s, cpu_s)


def _pages(server: "_Served", seconds: float) -> Iterator[tuple[str, Rate]]:
    """Walks through the list from the newest on, under several filters."""
    filters = {
        "all": "",
        "one_state": "&state=waiting",
        "one_tenant": "&tenant=tenant-7",
        "one_user": "&user=bench",
        "by_name": "&name=rain",
    }
    for name, condition in filters.items():
        cursors: list[str] = [""]

        def next_page(cursors: list[str] = cursors, condition: str = condition) -> tuple[str, str, bytes]:
            return "GET", f"/api/v1/jobs?limit=100{condition}{cursors[-1]}", b""

        def note(answer: bytes, cursors: list[str] = cursors) -> None:
            following = json.loads(answer)["next_cursor"]
            cursors.append(f"&cursor={following}" if following else "")

        yield name, _rate(name, server, seconds / 2, next_page, connections=1, note=note)


def _rate(
    what: str,
    server: "_Served",
    seconds: float,
    request: Callable[[], tuple[str, str, bytes]],
    *,
    connections: int = CONNECTIONS,
    note: Callable[[bytes], None] | None = None,
) -> Rate:
    """Ask again and again over connections that stay open. Raises RuntimeError when something is refused."""
    took: list[list[float]] = [[] for _ in range(connections)]
    failed: list[str] = []
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    until = time.perf_counter() + seconds

    def ask(own: list[float]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        while time.perf_counter() < until and not failed:
            method, path, body = request()
            one = time.perf_counter()
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            own.append(time.perf_counter() - one)
            if answer.status >= 300:
                failed.append(f"{what}: {answer.status} {content[:200]!r}")
            elif note is not None:
                note(content)
        connection.close()

    cpu_s = server.ask("cpu", 0)
    began = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(own,)) for own in took]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole_s = time.perf_counter() - began
    if failed:
        raise RuntimeError(failed[0])
    return _summary(what, [each for own in took for each in own], whole_s, server.ask("cpu", 0) - cpu_s)


def _summary(what: str, took: Sequence[float], whole_s: float, cpu_s: float) -> Rate:
    ordered = sorted(took)
    p99 = ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)) - 1)]
    number = len(took)
    return Rate(what, number / whole_s, statistics.median(ordered) * 1000, p99 * 1000, number, cpu_s / number * 1000)


# --- the server's process ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Served:
    """The server's process, from outside."""

    port: int
    token: str
    pipe: Connection

    def ask(self, what: str, number: int) -> float:
        """`fill` the store with so many jobs, or the seconds of `cpu` that it has used."""
        self.pipe.send((what, number))
        return float(_heard(self.pipe))


@contextmanager
def _serving(folder: Path, url: str) -> Iterator["_Served"]:
    """A server in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, url, str(folder / "log.jsonl")), daemon=True
    )
    process.start()
    theirs.close()
    try:
        port, token = _heard(ours)
        yield _Served(port, token, ours)
    finally:
        ours.send(("stop", 0))
        process.join(30)
        if process.is_alive():
            process.terminate()


def _heard(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError("the server to be measured has ended; what it wrote to stderr says why") from None


def _now_ms() -> int:
    return _START_MS + time.perf_counter_ns() // 1_000_000


def _serve(pipe: Connection, url: str, log_file: str) -> None:
    """The measured process: API and store as in `watteau up`, without a controller that would take its share."""
    fleet = _fleet()
    store = Store(url)
    user = store.add_user("bench", None, [Grant(Role.OPERATOR, TenantId("programme"))], _now_ms(), "bench")
    token = new_secret()
    store.add_token(
        user.user_id,
        digest(token),
        "bench",
        [scope.value for scope in Scope],
        _now_ms(),
        _now_ms() + _A_YEAR_MS,
        "bench",
    )
    with open(log_file, "w", encoding="utf-8") as log:
        app = create_app(
            store, fleet, NoController(fleet), _now_ms, log=json_log(_now_ms, log), stopwatch_s=time.perf_counter
        )
        server = Server(app, "127.0.0.1", 0)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        pipe.send((server.port, token))
        asked: tuple[str, int] = pipe.recv()
        while asked[0] != "stop":
            if asked[0] == "fill":
                _fill(store, user, asked[1])
            pipe.send(time.process_time())
            asked = pipe.recv()
        server.should_exit = True
        thread.join()
    sys.stderr.flush()


def _fill(store: Store, user: User, number: int) -> None:
    requests: Mapping[TenantId, Request] = {
        tenant: Request.model_validate({**_A_JOB, "tenant": tenant, "name": f"train-{tenant}"}) for tenant in _TENANTS
    }
    lot = 10_000
    for start in range(0, number, lot):
        tenants = [_TENANTS[job % len(_TENANTS)] for job in range(start, min(start + lot, number))]
        store.submit([(requests[tenant], tenant) for tenant in tenants], user, _now_ms())


def _fleet() -> Fleet:
    tenants = tuple(Tenant(tenant, tenant, 1, None, ()) for tenant in _TENANTS)
    return Fleet.of_one_site(
        "bench",
        [(Pool(PoolId("p"), "H100", 8, 64, 512, True, 1_000, 5_000, 8_000, 1), 4)],
        power_limit_kw=100,
        pue=Pue.constant(1.2),
        tenants=Tenant(TenantId("programme"), "Programme", 1, None, tenants),
    )
