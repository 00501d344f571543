"""Real Slurm clusters for the tests: started once by the testbed that lies beside the checkout, stopped at the end."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

SITES = ("paris", "marseille", "mulhouse")
_PORTS_PER_SITE = 100
_NODES = 2
_INSTALL_S, _START_S = 1_800, 180


@dataclass
class SlurmSites:
    """Running clusters with a folder and ports of their own; each has two nodes of 64 CPUs and 8 GPUs."""

    testbed: Path
    folder: Path
    port_base: int
    names: tuple[str, ...]
    has_accounting: bool
    user: str = ""  # whose jobs are submitted

    def rest_port(self, site: str) -> int:
        """Where slurmrestd of a site listens, on loopback."""
        return self.port_base + _PORTS_PER_SITE * self.names.index(site) + 1

    def rest_url(self, site: str) -> str:
        """The same as an address."""
        return f"http://127.0.0.1:{self.rest_port(site)}"

    def shared_folder(self, name: str) -> Path:
        """A folder that all nodes see, of the user who submits."""
        folder = self.folder / "shared" / name
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(folder, self.user)
        return folder

    def token_command(self, site: str, lifespan_s: int = 86_400, user: str = "") -> tuple[str, ...]:
        """A command that prints a token; also of a lifespan below 0."""
        words = ("env", f"SLURM_SITES_DIR={self.folder}", str(self.testbed), "token", site)
        return (*words, "--user", user or self.user, "--lifespan", str(lifespan_s))

    def token(self, site: str, lifespan_s: int = 86_400, user: str = "") -> str:
        """A token."""
        return _output(self.token_command(site, lifespan_s, user)).strip()

    def command_prefix(self, site: str) -> tuple[str, ...]:
        """What stands before a command that is to run as the user who submits, at a site."""
        setting = ("env", f"SLURM_CONF={self.folder}/{site}/etc/slurm.conf")
        return ("runuser", "-u", self.user, "--", *setting) if os.geteuid() == 0 else setting

    def admin(self, site: str, *command: str) -> str:
        """What one of Slurm's commands prints, as the operator of a site gives it."""
        return _output(("env", f"SLURM_CONF={self.folder}/{site}/etc/slurm.conf", *command))

    def kill(self, site: str, part: str = "ctld", hard: bool = False) -> None:
        """Stop slurmctld, or `rest`, `dbd`, `munge`, `slurmd:NODE`, `all`; `hard` as a power cut would."""
        self.run("kill", site, part, *(["--hard"] if hard else []))

    def start(self, site: str, part: str = "ctld") -> None:
        """Start a part again; returns when it answers."""
        self.run("start", site, part)

    def start_all(self) -> None:
        """Start everything that does not run."""
        for site in self.names:
            self.run("start", site, "all")

    def live_jobs(self, site: str) -> list[str]:
        """Jobs of our user that wait or run, a line each."""
        states = "PENDING,RUNNING,SUSPENDED,COMPLETING,CONFIGURING"
        out = self.admin(site, "squeue", "--all", "-h", "-u", self.user, "-t", states, "-o", "%i %j %T %r")
        return out.splitlines()

    def run(self, *words: str, timeout_s: float = _START_S) -> str:
        """One verb of the testbed."""
        return _output((str(self.testbed), *words), timeout_s, self.environment)

    @property
    def environment(self) -> dict[str, str]:
        """What the testbed reads."""
        return {
            **{name: text for name, text in os.environ.items() if not name.startswith("SLURM")},
            "SLURM_SITES_DIR": str(self.folder),
            "SLURM_SITES_PORT_BASE": str(self.port_base),
        }


def find_testbed() -> Path | None:
    """The program that starts clusters; WATTEAU_SLURM_SITES may name it."""
    named = os.environ.get("WATTEAU_SLURM_SITES")
    found = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "slurm" / "slurm-sites"
    return found.resolve() if found.is_file() else None


@contextmanager
def running_sites(names: Sequence[str] = SITES, accounting: bool = True) -> Iterator[SlurmSites]:
    """Clusters until the end of the block; skips, and says why, where there can be none."""
    testbed = find_testbed()
    if testbed is None:
        pytest.skip("the testbed of Slurm clusters is not here: ../shared/slurm/slurm-sites, or WATTEAU_SLURM_SITES")
    with_accounting = accounting and _installed(testbed, "--dbd") == ""
    if not with_accounting and (why := _installed(testbed)):
        pytest.skip(f"Slurm is not installed here and could not be (Debian, as root: {testbed} install): {why}")
    # Not pytest's tmp_path: its parents are closed to the users that the daemons and jobs run as.
    folder = Path(tempfile.mkdtemp(prefix="watteau-slurm-"))
    folder.chmod(0o755)
    sites = SlurmSites(testbed, folder, 0, tuple(names), with_accounting)
    # The clusters end when this process does, however it does: the guard's input is then closed.
    guard = subprocess.Popen(
        ["sh", "-c", 'cat; "$0" down; rm -rf "$1"', str(testbed), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=sites.environment,
        start_new_session=True,
    )
    try:
        _start(sites)
        yield sites
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(timeout=120)


def _start(sites: SlurmSites) -> None:
    words = ["up", "--sites", ",".join(sites.names), "--nodes", str(_NODES)]
    if sites.has_accounting:
        words.append("--dbd")
    for attempt in range(5):
        sites.port_base = _free_ports(len(sites.names))
        try:
            sites.run(*words)
            break
        except RuntimeError:
            # Another run may have taken a port meanwhile; the old ones are remembered until all is down.
            if attempt == 4:
                raise
            with suppress(RuntimeError):
                sites.run("down")
            sites.folder.mkdir(exist_ok=True)
    said = sites.run("env", sites.names[0])
    sites.user = next(line.partition("=")[2] for line in said.splitlines() if "SLURM_REST_USER=" in line)


def _installed(testbed: Path, *options: str) -> str:
    """Install what is missing; returns why it could not be."""
    try:
        _output((str(testbed), "install", *options), _INSTALL_S)
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        return str(error).strip().splitlines()[-1]
    return ""


def _free_ports(sites: int) -> int:
    """A base from which all ports of the clusters are free, below those that outgoing connections take."""
    offsets = [_PORTS_PER_SITE * site + port for site in range(sites) for port in (0, 1, 2, *range(10, 10 + _NODES))]
    for _ in range(200):
        base = 10_000 + secrets.randbelow(200) * 100
        if all(_is_free(base + offset) for offset in offsets):
            return base
    raise RuntimeError("no free ports between 10000 and 30000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _output(words: Sequence[str], timeout_s: float = 60, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:6])} failed ({done.returncode}):\n{(done.stdout + done.stderr)[-4_000:]}")
    return done.stdout


@pytest.fixture(scope="session")
def slurm_sites() -> Iterator[SlurmSites]:
    """Three clusters with accounting for all tests of this process."""
    with running_sites() as sites:
        yield sites


@pytest.fixture(scope="session")
def bare_slurm() -> Iterator[SlurmSites]:
    """One cluster without accounting."""
    with running_sites(("lonely",), accounting=False) as sites:
        yield sites
