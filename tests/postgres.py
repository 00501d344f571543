"""A real PostgreSQL for the tests: a private cluster in a temporary folder, started once and stopped at the end."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest


@dataclass(slots=True)
class Cluster:
    """A running server, and databases of it that are lent out one test at a time."""

    programs: Path
    folder: Path
    port: int
    user: str | None  # who runs it, when that is not us: the server refuses to run as root
    _free: list[str] = field(default_factory=list)
    _made: int = 0

    @contextmanager
    def database(self) -> Iterator[str]:
        """SQLAlchemy's URL of an empty database that nobody else uses until the end of the block."""
        if not self._free:
            self._made += 1
            self._free.append(f"test_{self._made}")
            self.execute(f"CREATE DATABASE {self._free[-1]}")
        name = self._free.pop()
        yield f"postgresql+psycopg://watteau@127.0.0.1:{self.port}/{name}"
        # Emptied and lent again: each database is three hundred files, which the server syncs after every crash.
        self.execute(f"ALTER DATABASE {name} RESET ALL")
        self.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public", name)
        self._free.append(name)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as the superuser."""
        # Whatever a test left open would keep the tables locked; better an error than a test that hangs.
        address = f"host=127.0.0.1 port={self.port} user=watteau dbname={database} options='-c lock_timeout=10s'"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        """Start the server and wait until it answers. fsync stays on: durability is what is tested."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c max_connections=100"
        self._run("pg_ctl", "-D", self._data, "-l", str(self.folder / "log"), "-w", "-t", "300", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; `immediate` is a crash."""
        self._run("pg_ctl", "-D", self._data, "-m", mode, "-w", "-t", "300", "stop")

    def create(self) -> None:
        """Make the files of the cluster."""
        self._run("initdb", "-D", self._data, "-U", "watteau", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        group = None if self.user is None else pwd.getpwnam(self.user).pw_gid
        # To a file and not a pipe: the server inherits it, and a pipe would be open for as long as it runs.
        log = self.folder / "programs.log"
        with log.open("ab") as out:
            done = subprocess.run(
                [str(self.programs / program), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                user=self.user,
                group=group,
                extra_groups=None if self.user is None else (),
                timeout=330,
                check=False,
            )
        if done.returncode:
            server = self.folder / "log"
            said = log.read_text("utf-8", "replace") + (server.read_text("utf-8", "replace") if server.exists() else "")
            raise RuntimeError(f"{program} failed ({done.returncode}):\n{said[-4_000:]}")


def find_programs() -> Path | None:
    """The folder of initdb and pg_ctl; None: there is no PostgreSQL. Debian keeps them out of PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda folder: int(folder.parent.name))
    if found := shutil.which("initdb"):
        folders.append(Path(found).resolve().parent)
    usable = [folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()]
    return usable[-1] if usable else None


@contextmanager
def running_cluster(programs: Path) -> Iterator[Cluster]:
    """A server with files of its own until the end of the block."""
    # Not pytest's tmp_path: its parents are closed to the user that the server needs when we are root.
    folder = Path(tempfile.mkdtemp(prefix="watteau-pg-"))
    user = None
    if os.geteuid() == 0:
        user = "nobody"
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = Cluster(programs, folder, port, user)
    try:
        cluster.create()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One PostgreSQL for all tests of this process; skips, and says why, where there is none."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not here (Debian, Ubuntu: apt install postgresql)")
    with running_cluster(programs) as cluster:
        yield cluster


def main(command: list[str]) -> int:
    """Run a command with the address of an empty database in WATTEAU_BENCH_POSTGRES, where there is a PostgreSQL."""
    programs = find_programs()
    if programs is None:
        print("no PostgreSQL here (Debian: apt install postgresql): measured without it", file=sys.stderr)
        return subprocess.run(command, check=False).returncode
    with running_cluster(programs) as cluster, cluster.database() as url:
        environment = os.environ | {"WATTEAU_BENCH_POSTGRES": url}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
