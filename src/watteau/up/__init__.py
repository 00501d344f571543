"""Puts the live system together: store, engines, controller and API in one process. `watteau up` runs it."""

import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Annotated

import platformdirs
import structlog
import typer
from rich.console import Console

from watteau import __version__
from watteau.cli.inputs import fail, load_fleet
from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import Engine as EngineKind
from watteau.domain.fleet import Fleet, Mode, Pue, Site
from watteau.domain.fleet_file import parse_fleet
from watteau.domain.people import Grant, Role, User
from watteau.domain.policy import POLICIES
from watteau.domain.requests import JobId, Request
from watteau.domain.units import DAY_S, PoolId, SiteId, TenantId, from_epoch_s
from watteau.energy.supply import CapacityFactors, aligned_rows, read_capacity_factors
from watteau.engines.contract import Engine, EngineUnreachable, NodeCapacity
from watteau.engines.local import LocalEngine
from watteau.engines.machine import Machine, discover_node
from watteau.engines.simulated import SimulatedEngine
from watteau.runtime.clock import Clock, monotonic_s
from watteau.runtime.controller import Controller
from watteau.runtime.feed import Feed
from watteau.runtime.sites import simulated_node
from watteau.server.api import create_app
from watteau.server.auth import first_start
from watteau.server.live import WithController
from watteau.server.serve import Server
from watteau.store.store import Conflict, Store, StoreUnavailable
from watteau.workload.generate import generate

MACHINE = SiteId("this-machine")
DEMO_SPEED = 60.0
_DEMO_DAYS = 14
#: The site is metered by nobody: its limit must only not bind.
_UNLIMITED_KW = 1_000_000
_DEFAULT_PORT = 8484
#: So many hours hold every hour of the year, 29 February as well.
_LEAP_YEARS_HOURS = 5 * 366 * 24


@dataclass(frozen=True, slots=True)
class _Parts:
    store: Store
    fleet: Fleet
    engines: Mapping[SiteId, Engine]
    controller: Controller
    clock: Clock


def up(
    fleet: Annotated[
        Path | None, typer.Option(help="Fleet file; without it, this machine is the fleet.", show_default=False)
    ] = None,
    db: Annotated[
        str | None,
        typer.Option(
            help="Database: a postgresql://... URL, or sqlite:///PATH. Default: SQLite in the data directory.",
            envvar="WATTEAU_DB",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0: any free one.")] = _DEFAULT_PORT,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where the database, logs and the jobs' output are kept.", envvar="WATTEAU_HOME"),
    ] = None,
    policy: Annotated[str, typer.Option(help=f"How to decide: {', '.join(POLICIES)}.")] = "hybrid",
    demo: Annotated[
        bool, typer.Option("--demo", help="Add the French fleet, simulated in accelerated time, with a generated load.")
    ] = False,
    demo_speed: Annotated[float, typer.Option(min=1, max=3_600, help="How many times as fast.")] = DEMO_SPEED,
    supply: Annotated[
        Path | None,
        typer.Option(
            help="Hourly capacity factors (CSV) of at least a year, for the energy books. Without it they are "
            "generated, and marked so.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[Path, typer.Option(help="With --demo: a report of `watteau demo` to show at /report.")] = Path(
        "out/demo/report.html"
    ),
    once: Annotated[
        bool, typer.Option("--once", help="With --demo: end as soon as the demonstration's own job has run.")
    ] = False,
) -> None:
    """Run Watteau on this machine: API and controller in one process. Ctrl-C ends it; running jobs go on."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    folder = (data_dir or platformdirs.user_data_path("watteau")).absolute()
    if demo:
        folder /= "demo"
    try:
        if policy not in POLICIES:
            raise _wrong("--policy", f"{policy!r}", f"one of {', '.join(POLICIES)}")
        _make_folder(folder)
        listening = _listen(host, port)
        _log_to(folder / "watteau.log", to_file=console.is_terminal or demo)
        factors = None if supply is None else _of_a_year(read_capacity_factors(supply))
        parts = _put_together(fleet, db, folder, policy, demo)
    except InputError as error:
        fail(error)
    address = f"http://{_shown(host)}:{listening.getsockname()[1]}"
    clock, store, controller = parts.clock, parts.store, parts.controller
    try:
        token = first_start(store, parts.fleet.tenants.id, clock.now_ms())
        if demo:
            _join_this_machine(store, parts.fleet, clock)
    except StoreUnavailable as gone:
        fail(_wrong("database", str(gone), "a database that can be written"))
    app = create_app(
        store,
        parts.fleet,
        WithController(controller, parts.fleet),
        clock.now_ms,
        stopwatch_s=monotonic_s,
        report=report.absolute() if demo else None,
        factors=factors,
    )
    server = Server(app, host, port)
    _greet(console, address, host, folder, parts, token)
    controller.start()
    feed = None
    if demo:
        feed = _feed(parts, demo_speed)
        feed.start()
        Thread(
            target=_demonstrate, args=(console, parts, address, report, server if once else None), daemon=True
        ).start()
    try:
        server.run(sockets=[listening])
    finally:
        if feed is not None:
            feed.close()
        controller.close()
        console.print("Watteau has ended. Jobs that run go on, and are found again by the next `watteau up`.")
    if once and not server.started:
        raise typer.Exit(1)


def _put_together(fleet_file: Path | None, db: str | None, folder: Path, policy: str, demo: bool) -> _Parts:
    clock = Clock()
    machine = discover_node()
    fleet = load_fleet(fleet_file) if fleet_file is not None else _this_machine(machine)
    if demo:
        fleet = _with_france(fleet)
    try:
        store = Store(_url(db, folder))
        identity = store.identity()
    except (StoreUnavailable, ValueError) as gone:
        raise _wrong("--db", str(gone), "a database that can be opened and written") from None
    engines: dict[SiteId, Engine] = {}
    for site in fleet.sites:
        if site.mode is Mode.DRIVE or site.slurm is not None:
            engines[site.id] = _engine(site, fleet, machine, folder, clock, identity)
    holder = f"{socket.gethostname()}:{os.getpid()}"
    return _Parts(store, fleet, engines, Controller(store, fleet, engines, POLICIES[policy], clock, holder), clock)


def _of_a_year(factors: CapacityFactors) -> CapacityFactors:
    """Factors that say something of every hour to come, by hour of the year. Raises InputError."""
    aligned_rows(factors, factors.first_hour_s, _LEAP_YEARS_HOURS)
    return factors


def _this_machine(machine: Machine) -> Fleet:
    pool = machine.pool(PoolId("machine"))
    return Fleet.of_one_site(
        MACHINE, [(pool, 1)], power_limit_kw=_UNLIMITED_KW, pue=Pue.constant(1.0), engine=EngineKind.LOCAL
    )


def _with_france(fleet: Fleet) -> Fleet:
    text = files("watteau.cli").joinpath("france.toml").read_text(encoding="utf-8")
    france = parse_fleet(text, "france.toml")
    simulated = tuple(replace(site, engine=EngineKind.SIMULATED, mode=Mode.DRIVE) for site in france.sites)
    return replace(france, sites=fleet.sites + simulated).with_tenants([MACHINE])


def _engine(site: Site, fleet: Fleet, machine: Machine, folder: Path, clock: Clock, identity: str) -> Engine:
    """The engine that a site names. Raises InputError for one that cannot be driven (yet)."""
    if site.engine is EngineKind.SLURM:
        return _slurm(site, fleet, clock, identity)
    if site.engine is EngineKind.LOCAL:
        if len(site.pools) != 1 or site.nodes(site.pools[0].id) != 1:
            raise _wrong(f"site {site.id}", "a local site of several nodes", "one pool of one node: this machine")
        pool = site.pools[0]
        if pool.gpus_per_node > machine.node.gpus or pool.cpu_cores > machine.node.cpu_cores:
            found = f"{pool.gpus_per_node} GPUs and {pool.cpu_cores} cores"
            has = f"at most the {machine.node.gpus} GPUs and {machine.node.cpu_cores} cores of this machine"
            raise _wrong(f"site {site.id}, pool {pool.id}", found, has)
        try:
            return LocalEngine(folder / "spool", machine.node, clock.now_ms, gpu_ids=machine.gpu_ids)
        except EngineUnreachable as gone:
            raise _wrong(f"site {site.id}", str(gone), "a spool that can be written") from None
    if site.engine is EngineKind.SIMULATED:
        nodes = [
            NodeCapacity(
                simulated_node(pool.id, number),
                pool.gpu_model,
                pool.gpus_per_node,
                pool.cpu_cores,
                1024 * pool.memory_gib,
            )
            for pool in site.pools
            for number in range(site.nodes(pool.id))
        ]
        return SimulatedEngine(nodes, clock.now_ms, folder=folder / "simulated" / site.id)
    expected = "engine `local`, `simulated` or `slurm`"
    raise _wrong(f"site {site.id}", f"engine {site.engine.value}, which this version cannot drive", expected)


def _slurm(site: Site, fleet: Fleet, clock: Clock, identity: str) -> Engine:
    from watteau.engines.slurm.engine import open_slurm  # only who has a Slurm site waits for this import

    if site.slurm is None:
        raise _wrong(f"site {site.id}", "engine slurm, and no word on how to reach it", "a table [sites.slurm]")
    try:
        return open_slurm(site, fleet.tenants, clock.now_ms, identity)
    except (EngineUnreachable, ImportError) as gone:
        raise _wrong(f"site {site.id}", str(gone), "what a Slurm site needs: pip install 'watteau[slurm]'") from None


def _url(db: str | None, folder: Path) -> str:
    if db is None:
        return f"sqlite:///{folder / 'watteau.db'}"
    for short in ("postgresql://", "postgres://"):
        if db.startswith(short):
            return "postgresql+psycopg://" + db.removeprefix(short)
    return db


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        expected = "a folder that can be written; see --data-dir"
        raise _wrong(str(folder), error.strerror or str(error), expected) from None


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio turns Nagle's algorithm off where it is told that this is TCP; else an answer takes 40 ms longer.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
    except OSError as error:
        found = f"{host}:{port}: {error.strerror or error}"
        raise _wrong("--host, --port", found, "a free port; is Watteau up already? (--port 0 takes any)") from None
    return listening


def _log_to(path: Path, *, to_file: bool) -> None:
    """Lines of JSON: in a file where a person reads along, otherwise on stderr for whatever collects it."""
    out = path.open("a", encoding="utf-8", buffering=1) if to_file else sys.stderr
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ],
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=True,
    )


def _greet(console: Console, address: str, host: str, folder: Path, parts: _Parts, token: str | None) -> None:
    now = from_epoch_s(parts.clock.now_ms() // 1000)
    console.print(f"[bold]Watteau {__version__}[/bold] is up at {address} (API: {address}/api/v1)")
    for site in parts.fleet.sites:
        engine = parts.engines.get(site.id)
        notes = "; ".join(engine.capabilities.notes) if engine else "not driven"
        cores = sum(site.nodes(pool.id, now) * pool.cpu_cores for pool in site.pools)
        console.print(f"  {site.id}: {site.gpus(now):,} GPUs, {cores:,} cores ({notes})", markup=False)
    console.print(f"Data: {folder}", markup=False)
    if not ip_address(socket.gethostbyname(host)).is_loopback:
        console.print("What is sent to this address is not encrypted: put a proxy with TLS in front of it.")
    if token is not None:
        console.print("First start. Log in, once, within an hour:")
        console.print(f"  watteau login {address} --one-time-token {token}", markup=False)
    console.print("Then, for example: watteau submit -- python train.py", markup=False)


# --- the demonstration ------------------------------------------------------------------------------------------------


def _join_this_machine(store: Store, fleet: Fleet, clock: Clock) -> None:
    """Let the first user's jobs belong to this machine's tenant without naming it."""
    with suppress(Conflict):
        user, _ = store.user("admin")
        mine = Grant(Role.MEMBER, TenantId(MACHINE))
        if mine not in user.grants:
            store.change_user("admin", clock.now_ms(), "demo", grants=[*user.grants, mine])


def _demo_user(parts: _Parts) -> User:
    now_ms = parts.clock.now_ms()
    with suppress(Conflict):
        return parts.store.add_user("demo", None, [Grant(Role.MEMBER, parts.fleet.tenants.id)], now_ms, "demo")
    return parts.store.user("demo")[0]


def _feed(parts: _Parts, speed: float) -> Feed:
    now = from_epoch_s(parts.clock.now_ms() // 1000)
    sites = [site for site in parts.fleet.sites if site.engine is EngineKind.SIMULATED]
    capacity = sum(site.gpus(now) for site in sites)
    tenants = tuple(tenant.id for tenant in parts.fleet.tenants.leaves() if str(tenant.id) != str(MACHINE))
    workload = generate(capacity_gpus=capacity, load=0.8, duration_s=_DEMO_DAYS * DAY_S, tenants=tenants, seed=2024)
    return Feed(parts.store, parts.fleet, [site.id for site in sites], workload, _demo_user(parts), parts.clock, speed)


_DEMO_SCRIPT = """#!/bin/sh
echo "Hello from $(hostname): job $WATTEAU_JOB_ID runs for real, on this machine."
i=1
while [ $i -le 3 ]; do echo "step $i of 3"; sleep 1; i=$((i + 1)); done
"""


def _demonstrate(console: Console, parts: _Parts, address: str, report: Path, server: Server | None) -> None:
    """Run one real job here and tell what to look at."""
    console.print("Compiling the core if this is its first start (about a minute); submissions are kept meanwhile.")
    request = Request(name="hello", script=_DEMO_SCRIPT, sites=(MACHINE,), time_limit_s=60)
    user, now_ms = _demo_user(parts), parts.clock.now_ms()
    (job,) = parts.store.submit([(request, TenantId(MACHINE))], user, now_ms)
    parts.controller.wake()
    while not (record := parts.store.job(job.job_id)).state.is_end:
        parts.controller.wait_change(1.0)
    log = parts.controller.read_log(JobId(job.job_id), record.attempts, "stdout", 0, 10_000)
    ended = f"{record.state.value}, exit code {record.exit_code}"
    console.print(f"Job {job.job_id} ran on this machine: {ended}.", markup=False)
    for line in log.content.decode(errors="replace").splitlines():
        console.print(f"  | {line}", markup=False)
    if report.is_file():
        console.print(f"The replay's report: {address}/report", markup=False)
    console.print("Look around: watteau sites · watteau ps --all · watteau why JOB · watteau story JOB", markup=False)
    if server is not None:
        server.should_exit = True


def _wrong(place: str, found: str, expected: str) -> InputError:
    return InputError(place, [Fault(0, "", found, expected)])


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
