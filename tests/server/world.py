"""A small world behind the API: a real store, a controller that the test speaks for, and people of every role."""

import io
import json
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it wants another release of httpx, which nothing else here needs
    from starlette.testclient import TestClient

from watteau.domain.fleet import Engine, Fleet, Pool, Pue
from watteau.domain.people import Grant, Role, User
from watteau.domain.records import Change, Ends, Intends, JobRecord, Place, Starts
from watteau.domain.requests import JobId, JobState, Outcome, Request
from watteau.domain.sites import Difference, Held, NodeState, SiteJob, SiteNode
from watteau.domain.tenants import Tenant
from watteau.domain.units import PoolId, SiteId, TenantId
from watteau.engines.contract import EngineUnreachable, LogPart, attempt_name
from watteau.engines.contract import SiteView as Shown
from watteau.server.api import create_app
from watteau.server.auth import digest, new_secret
from watteau.server.edge import json_log
from watteau.server.live import Live, Status
from watteau.server.schemas import Evidence, Scope, SiteView
from watteau.store.store import Lease, Store

START_MS = 1_767_614_400_000  # 2026-01-05T12:00Z
EVERYTHING = tuple(scope.value for scope in Scope)

TREE = Tenant(
    TenantId("programme"),
    "Programme",
    1,
    None,
    (
        Tenant(
            TenantId("alpha"),
            "Alpha SAS",
            1,
            64,
            (
                Tenant(TenantId("alpha-lab"), "Alpha lab", 1, None, ()),
                Tenant(TenantId("alpha-prod"), "Alpha production", 2, None, ()),
            ),
        ),
        Tenant(TenantId("beta"), "Beta SAS", 1, None, ()),
    ),
)

FLEET = Fleet.of_one_site(
    "paris",
    [(Pool(PoolId("p"), "H100", 8, 64, 512, True, 1_000, 5_000, 8_000, 1), 4)],
    power_limit_kw=100,
    pue=Pue.constant(1.2),
    tenants=TREE,
    engine=Engine.SLURM,
)


@dataclass
class Clock:
    """Time that passes when the test says so; a little with every look, so that nothing happens at once."""

    at_ms: int = START_MS

    def __call__(self) -> int:
        self.at_ms += 1
        return self.at_ms


@dataclass
class TestLive:
    """What a controller would say: set by the test."""

    __test__ = False

    store: Store
    logs: dict[tuple[int, int, str], tuple[bytes, bool]] = field(default_factory=dict)
    unreachable: bool = False
    evidence: Evidence | None = None
    woken: int = 0
    state: Status = field(
        default_factory=lambda: Status(
            leading=True, compiled=True, figures={"cycle_seconds": 0.004, "cycles_total": 17.0}
        )
    )
    changed: threading.Event = field(default_factory=threading.Event)
    seen: Shown | None = None
    found: list[Difference] | None = None
    trouble: str = ""  # of the site's engine

    def sites(self) -> list[SiteView]:
        said = next(iter(self.store.site_settings()), None) if self.state.leading else None
        return [
            SiteView(
                id="paris",
                name="Paris",
                engine="slurm",
                mode=said.mode.value if said else "drive",
                fenced=f"fenced by {said.by}: {said.why}" if said and said.fenced else "",
                state="silent" if self.trouble else "ready",
                why=self.trouble,
                nodes_up=4,
                gpus_total=32,
                **({"running": 2, "people_running": 12, "people_waiting": 3} if self.state.leading else {}),
            )
        ]

    def shown(self, site: SiteId) -> Shown | None:
        return self.seen if site == "paris" else None

    def differences(self, site: SiteId) -> list[Difference] | None:
        return self.found if site == "paris" else None

    def why(self, job_id: JobId) -> Evidence | None:
        return self.evidence

    def log(self, job_id: JobId, attempt: int, stream: str, start: int, most: int) -> LogPart:
        if self.unreachable:
            raise EngineUnreachable("local")
        if (job_id, attempt, stream) not in self.logs:
            raise FileNotFoundError(f"{job_id}-{attempt}")
        content, complete = self.logs[job_id, attempt, stream]
        part = content[start : start + most]
        return LogPart(part, start + len(part), complete and start + len(part) >= len(content))

    def status(self) -> Status:
        return self.state

    def wake(self) -> None:
        self.woken += 1
        self.changed.set()

    def wait_change(self, timeout_s: float) -> None:
        self.changed.wait(min(timeout_s, 0.05))
        self.changed.clear()


class World:
    """The app, its parts, and people: `world.as_("ada")` asks as Ada."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.store = Store(f"sqlite:///{folder / 'watteau.db'}")
        self.live = TestLive(self.store)
        self.log = io.StringIO()
        self.serve(self.live)
        self.tokens: dict[str, str] = {}
        self._lease: Lease | None = None

    def serve(self, live: Live, fleet: Fleet = FLEET) -> None:
        """Put an app before this controller."""
        self.app = create_app(self.store, fleet, live, self.clock, log=json_log(self.clock, self.log))
        self.http = TestClient(self.app, raise_server_exceptions=False)

    def person(self, name: str, *grants: tuple[Role, str], scopes: tuple[str, ...] = EVERYTHING) -> str:
        """Make an account with a token; returns the token."""
        granted = [Grant(role, TenantId(tenant)) for role, tenant in grants]
        user = self.store.add_user(name, None, granted, self.clock(), "test")
        self.tokens[name] = self.token(user, scopes)
        return self.tokens[name]

    def token(self, user: User, scopes: tuple[str, ...] = EVERYTHING, expires_ms: int | None = None) -> str:
        """Another token of an account."""
        secret = new_secret()
        self.store.add_token(user.user_id, digest(secret), "test", scopes, self.clock(), expires_ms, "test")
        return secret

    def ask(self, who: str | None, method: str, path: str, **rest: Any) -> Any:
        """One request as someone; `/x` is below /api/v1 unless it is a process route."""
        headers = dict(rest.pop("headers", {}))
        if who is not None:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        whole = path if path.startswith(("/api/", "/healthz", "/readyz", "/metrics", "/report")) else f"/api/v1{path}"
        return self.http.request(method, whole, headers=headers, **rest)

    def job(self, user: str, tenant: str, **asked: Any) -> JobRecord:
        """A job, straight into the store."""
        request = Request.model_validate({"name": "j", "command": ["true"], **asked})
        return self.store.submit([(request, TenantId(tenant))], self.store.user(user)[0], self.clock())[0]

    def record(self, *changes: Change) -> None:
        """What a controller would write."""
        self._lease = self.store.lead("test", self.clock(), 3_600_000)
        assert self._lease is not None
        self.store.record(self._lease, changes, self.clock())
        self.live.changed.set()

    def start(self, job_id: JobId) -> None:
        """The job's next attempt runs."""
        number = self.store.job(job_id).attempts + 1
        places = (Place(PoolId("p"), 0, (0,)),)
        self.record(Intends(job_id, number, attempt_name(job_id, number), SiteId("paris"), places))
        self.record(Starts(job_id, number, self.clock()))

    def end(self, job_id: JobId, outcome: Outcome = Outcome.COMPLETED, *, requeue: bool = False) -> None:
        """The attempt that runs ends."""
        number = self.store.job(job_id).attempts
        now_ms = self.clock()
        self.record(Ends(job_id, number, outcome, now_ms - 1, now_ms, 0, None, "", requeue, {}))

    def by_hand(self, engine_id: str, tenant: str, started_ms: int, ended_ms: int | None, gpus: int) -> None:
        """A job that zoe gave to Paris's own scheduler, on a node that is the first of our pool."""
        self._lease = self.store.lead("test", self.clock(), 3_600_000)
        assert self._lease is not None
        site = SiteId("paris")
        self.store.keep_nodes(self._lease, site, [SiteNode(site, "gpu1", PoolId("p"), 0, NodeState.UP, "")])
        job = SiteJob(
            site=site,
            engine_id=engine_id,
            submitted_ms=started_ms,
            name=f"by hand {engine_id}",
            user="zoe",
            account="atelier",
            tenant=TenantId(tenant),
            partition="normal",
            state=JobState.RUNNING if ended_ms is None else JobState.COMPLETED,
            reason="",
            tasks=1,
            workers=1,
            gpus=gpus,
            cpus=8 * gpus,
            memory_mib=1_024,
            time_limit_s=3_600,
            priority=1,
            started_ms=started_ms,
            ended_ms=ended_ms,
            held=(Held("gpu1", gpus, 8 * gpus, 1_024),),
        )
        self.store.keep_site_jobs(self._lease, [job])

    def log_lines(self) -> list[Mapping[str, Any]]:
        """What was logged."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]
