"""Three real clusters under one queue: three hundred mixed jobs end right and once, whatever breaks meanwhile."""

import ast
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.runtime.nursery import Nursery
from tests.runtime.test_kill import faults_in, kill
from tests.slurm.mixed import Mixed
from tests.slurm.proxy import Mood, Proxy
from tests.slurm_sites import SlurmSites
from watteau.domain.people import Grant, Role
from watteau.domain.records import JobRecord
from watteau.domain.requests import JobId, Outcome
from watteau.domain.units import TenantId
from watteau.engines.slurm.marks import folder_of
from watteau.server.auth import digest
from watteau.store.store import JobFilter, Store

SITES = ("paris", "marseille", "mulhouse")
_PATIENCE_S = 300

pytestmark = pytest.mark.slow

_SITE = """
[[sites]]
id = "{site}"
name = "{site}"
latitude = 48.0
longitude = 7.0
power_limit_kw = 1000
pue = 1.2
engine = "slurm"
mode = "drive"

[sites.slurm]
user = "{user}"
folder = "{folder}"
poll_s = 0.5
{access}

[[sites.pools]]
id = "{site}-hgx"
gpu_model = "h100"
gpus_per_node = 8
cpu_cores = 64
memory_gib = 1024
mig_capable = false
node_idle_w = 1000
node_typical_w = 5000
node_max_w = 8000
nodes_per_block = 2

[[sites.phases]]
name = "first"
opens = 2024-01-01T00:00:00Z
nodes = {{ {site}-hgx = 2 }}
"""


class Cloud:
    """A server over three clusters, which is killed and started again, and the jobs that it is given."""

    def __init__(self, folder: Path, sites: SlurmSites, nursery: Nursery, seed: int) -> None:
        self.sites = sites
        self.nursery = nursery
        self.random = Random(seed)
        self.proxies = {site: Proxy(sites.rest_port(site)) for site in SITES[:2]}
        # Of this test alone: each begins with a database of its own, and so with the same names of attempts.
        self.ground = f"three-sites-{seed}"
        self.shared = sites.shared_folder(self.ground)
        self.fleet = folder / "fleet.toml"
        self.fleet.write_text('name = "three"\n' + "".join(self._site(site) for site in SITES))
        self.url = f"sqlite:///{folder}/watteau.db"
        self.data = folder / "data"
        self.store = Store(self.url)
        root = TenantId("everyone")
        self.user = self.store.add_user("ada", None, [Grant(Role.MEMBER, root)], 0, "test")
        self.token = "wt_" + secrets.token_urlsafe(32)
        self.store.add_token(self.user.user_id, digest(self.token), "test", ["read", "submit"], 0, None, "test")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.mixed = Mixed(self.store, self.user, root, self.shared / "runs", self.random)
        self.server = 0

    def _site(self, site: str) -> str:
        """Two sites by slurmrestd, through something that can fail; one by commands, as a login node would have it."""
        folder = self.sites.shared_folder(f"{self.ground}/{site}")
        if site in self.proxies:
            # Tokens that live for half a minute: each is renewed several times.
            command = ", ".join(f"'{word}'" for word in self.sites.token_command(site, lifespan_s=30))
            access = f'rest_url = "{self.proxies[site].url}"\ntoken_command = [{command}]\nfolder_here = "{folder}"'
        else:
            prefix = ", ".join(f"'{word}'" for word in self.sites.command_prefix(site))
            access = f"command_prefix = [{prefix}]"
        return _SITE.format(site=site, user=self.sites.user, folder=folder, access=access)

    def up(self) -> None:
        self.server = self.nursery.start(
            *("--fleet", str(self.fleet), "--db", self.url, "--data-dir", str(self.data), "--port", str(self.port))
        )

    def kill(self) -> None:
        kill(self.server)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def jobs(self) -> dict[JobId, JobRecord]:
        found: dict[JobId, JobRecord] = {}
        cursor = None
        while True:
            page = self.store.jobs(JobFilter(), 1_000, cursor)
            found.update((job.job_id, job) for job in page.jobs)
            cursor = page.next_cursor
            if cursor is None:
                return found

    def all_ended(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while left := [job for job in self.jobs().values() if not job.state.is_end]:
            if time.monotonic() > deadline:
                shown = [(job.job_id, job.request.name, job.state, job.reason, job.detail) for job in left[:8]]
                attempts = [self.store.attempts(job.job_id)[-1:] for job in left[:8]]
                there = [line for site in SITES for line in self.sites.live_jobs(site)]
                raise AssertionError(f"{len(left)} did not end: {shown} {attempts} {there}")
            self.open_drained_nodes()
            time.sleep(2)

    def open_drained_nodes(self) -> None:
        """As a site's people do: Slurm drains a node where it meets a job id that it has given twice.

        It does give ids twice when slurmctld was killed and has forgotten its last seconds.
        """
        for site in SITES:
            for line in self.sites.admin(site, "sinfo", "-h", "-N", "-o", "%N %T %E").splitlines():
                node, state, why = line.split(" ", 2)
                if "drain" in state and "Duplicate jobid" in why:
                    with suppress(RuntimeError):  # slurmctld refuses it of a node that registers just now
                        self.sites.admin(site, "scontrol", "update", f"nodename={node}", "state=resume")

    def check(self, log: Path, *, may_be_lost: bool = False) -> None:
        """Every end is the right one, every log whole, and the server never contradicted itself."""
        assert self.mixed.faults(self.jobs(), may_be_lost=may_be_lost) == []
        for job_id in self.mixed.expected:
            for attempt in self.store.attempts(job_id):
                mark = Path(folder_of(str(self.shared / attempt.site), attempt.name)) / "ended"
                if attempt.outcome is Outcome.LOST and mark.exists():
                    assert ast.literal_eval(mark.read_text())["asked"], (
                        f"{attempt.name} ended by itself, and is called lost"
                    )
        with httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}/api/v1",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=60,
        ) as client:
            for job_id, its in self.mixed.expected.items():
                if its.log is not None:
                    answer = client.get(f"/jobs/{job_id}/log")
                    assert (answer.status_code, answer.text) == (200, its.log), (job_id, its)
        assert faults_in(log) == []
        # A slurmctld that forgot an end shows the job for some minutes more, unless it is cancelled as a stray.
        deadline = time.monotonic() + _PATIENCE_S
        while left := [line for site in SITES for line in self.sites.live_jobs(site)]:
            assert time.monotonic() < deadline, f"left at the sites: {left}"
            time.sleep(1)


@pytest.fixture
def cloud(tmp_path: Path, slurm_sites: SlurmSites) -> Iterator[Cloud]:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    with ExitStack() as stack:
        nursery = Nursery(tmp_path / "server.log")
        stack.callback(nursery.close)
        cloud = Cloud(tmp_path, slurm_sites, nursery, seed)
        cloud.up()
        yield cloud
        cloud.kill()
        for proxy in cloud.proxies.values():
            proxy.close()


def test_three_hundred_mixed_jobs_end_right_and_once(cloud: Cloud, tmp_path: Path) -> None:
    cloud.mixed.submit(cloud.now_ms(), SITES)
    assert len(cloud.mixed.expected) >= 300
    for share in (0.3, 0.5, 1.0):
        time.sleep(2)
        cloud.mixed.cancel_some(cloud.now_ms(), share)
    cloud.all_ended()
    cloud.check(tmp_path / "server.log")


class Trouble:
    """One thing after another goes wrong, in an order that the seed gives, until it is told to stop."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._stop = threading.Event()
        self.happened: list[str] = []
        self._faults: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """What is broken is mended first."""
        self._stop.set()
        self._thread.join(timeout=120)
        assert not self._thread.is_alive()
        assert self._faults == []
        print(", ".join(self.happened))

    def _run(self) -> None:
        cloud, random = self._cloud, self._cloud.random
        kinds: list[Callable[[], None]] = [self._controller, self._errors, self._hangs, self._cuts, self._server]
        try:
            while not self._stop.is_set():
                random.shuffle(kinds)
                for kind in kinds:
                    kind()
                    if self._stop.wait(random.uniform(1, 4)):
                        break
        except BaseException as fault:
            self._faults.append(fault)
        cloud.sites.start_all()

    def _say(self, what: str) -> None:
        self.happened.append(what)

    def _controller(self) -> None:
        """slurmctld is killed as by a power cut, and comes back."""
        site = self._cloud.random.choice(SITES)
        self._say(f"slurmctld of {site}")
        self._cloud.sites.kill(site, "ctld", hard=True)
        time.sleep(self._cloud.random.uniform(1, 8))
        self._cloud.sites.start(site, "ctld")

    def _errors(self) -> None:
        self._mood(Mood.ERROR, 4)

    def _hangs(self) -> None:
        self._mood(Mood.HANG, 6)

    def _cuts(self) -> None:
        """Requests arrive, and their answers never do: what was submitted is there, and nobody was told."""
        self._mood(Mood.CUT, 2)

    def _mood(self, mood: Mood, most_s: float) -> None:
        site, proxy = self._cloud.random.choice(list(self._cloud.proxies.items()))
        self._say(f"{mood} at {site}")
        proxy.be(mood)
        time.sleep(self._cloud.random.uniform(0.5, most_s))
        proxy.be(Mood.PASS)

    def _server(self) -> None:
        self._say("Watteau")
        self._cloud.kill()
        time.sleep(self._cloud.random.uniform(0, 2))
        self._cloud.up()


def test_three_hundred_mixed_jobs_end_right_and_once_whatever_breaks(cloud: Cloud, tmp_path: Path) -> None:
    trouble = Trouble(cloud)
    try:
        cloud.mixed.submit(cloud.now_ms(), SITES)
        for share in (0.2, 0.3, 0.5, 0.5):
            time.sleep(10)
            cloud.mixed.cancel_some(cloud.now_ms(), share)
    finally:
        trouble.stop()
    cloud.mixed.cancel_some(cloud.now_ms(), 1.0)
    cloud.all_ended()
    cloud.check(tmp_path / "server.log", may_be_lost=True)
