"""A real server process for the command line's tests: the API over HTTP, and a small controller that runs jobs.

`python -m tests.cli.served FOLDER` prints one line of JSON (address, tokens), then serves until stdin closes. Jobs run
as processes of this machine, one after another started at once; one whose name begins with `stay` waits for ever.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from tests.server.world import World
from watteau.domain.decisions import Reason
from watteau.domain.people import Role
from watteau.domain.records import Ends, Finishes, Intends, JobRecord, Place, Starts, Waits
from watteau.domain.requests import JobId, JobState, Outcome
from watteau.domain.sites import Difference
from watteau.domain.units import PoolId, SiteId
from watteau.engines.contract import attempt_name
from watteau.server.auth import one_time_token
from watteau.server.schemas import Evidence, PoolFree

_TICK_S = 0.02
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: where, and tokens of `ada` (a member), `eve` (another tenant's owner) and `root`."""

    url: str
    tokens: dict[str, str]
    one_time_token: str


@contextmanager
def serving(folder: Path, *, differs: bool = False) -> Iterator[Served]:
    """A server of one's own, in a process of its own; `differs`: its fleet file and its site do not agree."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT)))}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.served", str(folder), *(["differs"] if differs else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said: dict[str, Any] = json.loads(process.stdout.readline())
        yield Served(**said)
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@dataclass
class _Run:
    process: subprocess.Popen[bytes]
    started_ms: int
    files: dict[str, Path]


class Controller:
    """Starts what waits, notices what ended."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world = world
        self._folder = folder
        self._runs: dict[JobId, _Run] = {}
        self._told: set[JobId] = set()

    def run(self) -> None:
        """For ever."""
        while True:
            self._world.clock.at_ms = max(self._world.clock.at_ms, time.time_ns() // 1_000_000)
            for live in self._world.store.live_jobs()[1]:
                self._consider(live.job)
            time.sleep(_TICK_S)

    def _consider(self, job: JobRecord) -> None:
        run = self._runs.get(job.job_id)
        if run is not None:
            self._look_after(job, run)
        elif job.cancel_requested:
            self._world.record(Finishes(job.job_id, JobState.CANCELLED, Reason.NONE, "cancelled by its owner"))
        elif job.state is not JobState.WAITING:
            return
        elif job.request.name.startswith("stay"):
            if job.job_id not in self._told:
                self._told.add(job.job_id)
                self._world.record(Waits(job.job_id, Reason.CAPACITY, "8 GPUs are asked for, 3 are free"))
        else:
            self._start(job)

    def _start(self, job: JobRecord) -> None:
        request = job.request
        path = self._folder / f"script-{job.job_id}"
        path.write_text(request.script, encoding="utf-8")
        path.chmod(0o700)
        files = {stream: self._folder / f"{job.job_id}-{stream}" for stream in ("stdout", "stderr")}
        number = job.attempts + 1
        place = Place(PoolId("p"), 0, ())
        name = attempt_name(job.job_id, number)
        self._world.record(Intends(job.job_id, number, name, SiteId("paris"), (place,)))
        with files["stdout"].open("wb") as stdout, files["stderr"].open("wb") as stderr:
            process = subprocess.Popen(
                list(request.command) or [str(path), *request.arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=request.workdir or self._folder,
                env={"PATH": os.defpath, **request.environment, "INDEX": str(job.array_index)},
            )
        started_ms = self._world.clock()
        self._runs[job.job_id] = _Run(process, started_ms, files)
        self._world.record(Starts(job.job_id, number, started_ms))

    def _look_after(self, job: JobRecord, run: _Run) -> None:
        ended = run.process.poll()
        for stream, file in run.files.items():
            self._world.live.logs[job.job_id, job.attempts, stream] = (file.read_bytes(), ended is not None)
        if ended is None:
            if job.cancel_requested:
                run.process.send_signal(signal.SIGTERM)
            return
        self._runs.pop(job.job_id)
        outcome = Outcome.CANCELLED if job.cancel_requested else Outcome.FAILED if ended else Outcome.COMPLETED
        self._world.record(
            Ends(
                job.job_id,
                job.attempts,
                outcome,
                run.started_ms,
                self._world.clock(),
                ended if ended >= 0 else None,
                -ended if ended < 0 else None,
                "",
                False,
                {},
            )
        )


def main(folder: Path, differs: bool) -> None:
    """Serve until stdin closes."""
    world = World(folder)
    world.clock.at_ms = time.time_ns() // 1_000_000
    world.live.evidence = Evidence(
        jobs_ahead=2,
        pools=(PoolFree(site="paris", pool="p", gpu_model="H100", gpus_free=3.0, nodes_whole=0, note="no free node"),),
    )
    world.live.found = [Difference("pool p", "nodes", "4", "3", "change the phases")] if differs else []
    world.by_hand("7", "alpha-lab", world.clock.at_ms - 60_000, None, gpus=2)
    world.person("root", (Role.OPERATOR, "programme"))
    world.person("ada", (Role.MEMBER, "alpha-lab"))
    world.person("eve", (Role.TENANT_OWNER, "beta"))
    user = world.store.user("ada")[0]
    threading.Thread(target=Controller(world, folder).run, daemon=True).start()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(64)
    said = {
        "url": f"http://127.0.0.1:{listening.getsockname()[1]}",
        "tokens": world.tokens,
        "one_time_token": one_time_token(world.store, user, world.clock(), "test"),
    }
    server = uvicorn.Server(uvicorn.Config(world.app, log_level="warning"))

    def end_with_the_parent() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end_with_the_parent, daemon=True).start()
    print(json.dumps(said), flush=True)
    server.run(sockets=[listening])
    os._exit(0)  # the controller's thread holds the store


if __name__ == "__main__":
    main(Path(sys.argv[1]), "differs" in sys.argv[2:])
