"""One way to start any engine, to describe an attempt to it, and to wait for what it says."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.engines.fake_slurm import USER as FAKE_USER
from tests.engines.fake_slurm import FakeSlurm
from tests.slurm_sites import SlurmSites
from watteau.domain.fleet import SlurmAccess
from watteau.domain.units import SiteId, TenantId
from watteau.engines.contract import Engine, Launch, NodeCapacity, Observation, Seen, WorkerPlace, attempt_name
from watteau.engines.local import LocalEngine
from watteau.engines.simulated import SimulatedEngine
from watteau.engines.slurm.engine import SlurmEngine
from watteau.engines.slurm.facts import Slurm
from watteau.engines.slurm.reach import reach

NODE = NodeCapacity("here", "", 0, 2, 4096)
#: How long a test waits for what must come; it never waits that long when all is well.
PATIENCE_S = 20.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def launch(job_id: int = 1, *command: str, number: int = 1, **changes: Any) -> Launch:
    """An attempt that runs a command on the node of the kits; anything may be said differently."""
    fields: dict[str, Any] = {
        "name": attempt_name(job_id, number),
        "job_id": job_id,
        "number": number,
        "job_name": "train",
        "user": "ada",
        "tenant": "atelier",
        "command": command,
        "script": "",
        "arguments": (),
        "environment": {},
        "workdir": "",
        "stdout": "",
        "stderr": "",
        "time_limit_s": 0,
        "grace_s": 5,
        "gpu_milli": 0,
        "cpu_milli": 1000,
        "memory_mib": 0,
        "places": (WorkerPlace(NODE.node, ()),),
    }
    return Launch(**(fields | changes))


@dataclass(frozen=True, slots=True)
class Kit:
    """How to open one kind of engine, again and again on the same ground, as after a restart of the server."""

    kind: str
    open: Callable[[], Engine]
    nodes: tuple[str, ...] = (NODE.node,)
    restart_s: float = 0.5  # an engine can be closed and opened again within this time
    clock_ms: int = 1  # its times are whole multiples of this, rounded down

    def lasting(self, runtime_s: float, job_id: int = 1, **changes: Any) -> Launch:
        """An attempt that would run that long and then complete."""
        fields: dict[str, Any] = {"places": (WorkerPlace(self.nodes[0], ()),), "simulated_runtime_s": runtime_s}
        return launch(job_id, "sleep", str(runtime_s), **(fields | changes))

    def now_ms(self) -> int:
        """The time as the engine tells it."""
        return now_ms() // self.clock_ms * self.clock_ms


def local_kit(ground: Path) -> Kit:
    return Kit("local", lambda: LocalEngine(ground / "spool", NODE, now_ms))


def simulated_kit(ground: Path) -> Kit:
    return Kit("simulated", lambda: SimulatedEngine((NODE,), now_ms, folder=ground / "simulated"))


def fake_slurm_kit(ground: Path) -> Kit:
    """The Slurm engine against a cluster in memory; what is real there, `slurm` and `slurm-commands` show."""
    cluster = FakeSlurm(now_ms, by_itself=True)
    return Kit("slurm-in-memory", lambda: slurm_engine(cluster, str(ground)), ("n0", "n1"), clock_ms=1000)


def slurm_engine(
    cluster: Slurm, folder: str, now_ms: Callable[[], int] = now_ms, owner: str = "", **access: Any
) -> SlurmEngine:
    """An engine that drives a cluster."""
    fields: dict[str, Any] = {"user": FAKE_USER, "folder": folder, "poll_s": 0.1}
    engine = SlurmEngine(SiteId("paris"), SlurmAccess(**(fields | access)), cluster, now_ms, TenantId, owner)
    engine.may_change = True
    return engine


def slurm_kit(sites: SlurmSites, ground: str, *, by_commands: bool) -> Kit:
    """The Slurm engine against a real cluster, each test in a folder of its own: by that its attempts are told apart.

    By commands, nothing of the site is seen here: logs and marks come the same way.
    """
    site = sites.names[0]
    folder = str(sites.shared_folder(ground))
    if by_commands:
        access: dict[str, Any] = {"command_prefix": sites.command_prefix(site)}
    else:
        token = sites.token_command(site)
        access = {"rest_url": sites.rest_url(site), "token_command": token, "folder_here": folder}

    def opened() -> SlurmEngine:
        way = SlurmAccess(user=sites.user, folder=folder, poll_s=0.3, **access)
        engine = SlurmEngine(SiteId(site), way, reach(way, now_ms), now_ms, TenantId)
        engine.may_change = True
        return engine

    nodes = tuple(f"{site}-{number}" for number in (1, 2))
    return Kit("slurm-commands" if by_commands else "slurm-rest", opened, nodes, restart_s=5, clock_ms=1000)


#: Another engine joins the contract suite with a line here.
KITS: dict[str, Callable[[Path], Kit]] = {
    "local": local_kit,
    "simulated": simulated_kit,
    "slurm-in-memory": fake_slurm_kit,
}
#: ... or here, when it needs real clusters.
SLURM_KITS: dict[str, Callable[[SlurmSites, str], Kit]] = {
    "slurm-rest": partial(slurm_kit, by_commands=False),
    "slurm-commands": partial(slurm_kit, by_commands=True),
}


@dataclass
class Listener:
    """What an engine has said, from `changes` and in its order."""

    engine: Engine
    heard: list[Observation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._woken = threading.Event()
        self.engine.on_change(self._woken.set)

    def until(self, name: str, seen: Seen) -> Observation:
        """Wait to be woken for it: an engine that forgets to wake fails here."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            for said in self.heard:
                if (said.name, said.seen) == (name, seen):
                    return said
            left_s = deadline_s - time.monotonic()
            assert self._woken.wait(max(0.0, left_s)), f"{name} was never {seen}; heard {self.heard}"
            self._woken.clear()
            self.heard += self.engine.changes()

    def ended(self, name: str) -> Observation:
        return self.until(name, Seen.ENDED)

    def run(self, attempt: Launch) -> Observation:
        """Start it and wait for its end."""
        self.engine.start(attempt)
        return self.ended(attempt.name)


def eventually(holds: Callable[[], Any], what: str) -> None:
    """Poll for what nobody announces."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.005)


def whole_log(engine: Engine, name: str, stream: str = "stdout", most: int = 1 << 22) -> bytes:
    """All of an ended attempt's output, read in pieces."""
    parts, at = [], 0
    while True:
        part = engine.read_log(name, stream, at, most)
        assert part.end == at + len(part.content)
        parts.append(part.content)
        at = part.end
        if part.complete:
            return b"".join(parts)
        assert part.content, "an ended attempt's log neither goes on nor is complete"
