"""The accounting of a real cluster becomes a workload: by slurmrestd, by commands and from a file the same one."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.cli.test_import_sacct import HEADER
from tests.slurm_sites import SlurmSites
from watteau.cli.main import app
from watteau.domain.jobs import Workload
from watteau.simulation.replay import compile_kernels
from watteau.workload.formats import read_workload

pytestmark = pytest.mark.slow

SITE, LONELY = "mulhouse", "lonely"
WAYS = ("rest", "commands")
_PATIENCE_S = 180.0

FLEET = """
name = "Testbed"

[[sites]]
id = "{site}"
name = "A cluster"
latitude = 47.7
longitude = 7.3
power_limit_kw = 100
pue = 1.2
engine = "slurm"
mode = "observe"

[sites.slurm]
user = "{user}"
folder = "{folder}"
{reached}
accounts = {{ {user} = "physics" }}

[[sites.pools]]
id = "hgx"
gpu_model = "H100"
gpus_per_node = 8
cpu_cores = 64
memory_gib = 1024
node_idle_w = 1000
node_typical_w = 5000
node_max_w = 8000
nodes_per_block = 2

[[sites.phases]]
name = "now"
opens = 2024-01-01
nodes = {{ hgx = 2 }}

[[tenants]]
id = "all"
name = "All"
share = 1

[[tenants]]
id = "physics"
name = "Physics"
share = 1
parent = "all"
"""


@dataclass
class Past:
    """Jobs that a cluster has run, and how it is reached by each way."""

    since_s: int
    until_s: int
    ids: dict[str, int]
    fleets: dict[str, Path]
    sites: SlurmSites

    def span(self) -> tuple[str, ...]:
        """The options for all of them."""
        return ("--since", f"uts{self.since_s}", "--until", f"uts{self.until_s}")


def fleet_file(folder: Path, sites: SlurmSites, site: str, way: str, **changes: object) -> Path:
    """A fleet file with a cluster as its only site."""
    known: dict[str, object] = (
        {"rest_url": sites.rest_url(site), "token_command": list(sites.token_command(site))}
        if way == "rest"
        else {"command_prefix": list(sites.command_prefix(site))}
    )
    reached = "\n".join(f"{name} = {json.dumps(value)}" for name, value in (known | changes).items())
    path = folder / f"{way}.toml"
    shared = sites.shared_folder("history")
    path.write_text(FLEET.format(site=site, user=sites.user, folder=shared, reached=reached), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def past(slurm_sites: SlurmSites, tmp_path_factory: pytest.TempPathFactory) -> Past:
    """A job that completed, a gang, an array, one requeued, one of a lost node, one cancelled and one refused."""
    folder = tmp_path_factory.mktemp("fleets")
    fleets = {way: fleet_file(folder, slurm_sites, SITE, way) for way in WAYS}
    out = slurm_sites.shared_folder("history")

    def give(*options: str, seconds: int) -> int:
        words = ("sbatch", "--parsable", "-D", str(out), "-o", "/dev/null", "-t", "10")
        done = subprocess.run(
            [*slurm_sites.command_prefix(SITE), *words, *options, "--wrap", f"sleep {seconds}"],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout.split(";")[0])

    def admin(*words: str) -> str:
        return slurm_sites.admin(SITE, *words)

    def until(what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not what():
            assert time.monotonic() < deadline, admin("squeue", "--all") + admin("sinfo", "-N", "-l")
            time.sleep(0.3)

    def states(*ids: int) -> list[str]:
        words = ("sacct", "--allusers", "-X", "-n", "-P", "-o", "State", "-j", ",".join(map(str, ids)))
        return [line.split()[0] for line in admin(*words).splitlines()]

    since_s = int(time.time()) - 1
    ids = {
        "gang": give("-N", "2", "--gpus-per-node=8", seconds=2),
        "done": give("--gpus-per-node=2", seconds=2),
        "again": give("--gpus-per-node=1", "--requeue", seconds=4),
        "array": give("--array=2-11%4", "--gpus-per-node=1", seconds=1),
    }
    ids["after"] = give("-d", f"afterok:{ids['gang']}", seconds=1)
    until(lambda: states(ids["again"]) == ["RUNNING"])
    admin("scontrol", "requeue", str(ids["again"]))
    until(lambda: set(states(*(ids[job] for job in ("gang", "done", "again", "array", "after")))) == {"COMPLETED"})
    # Alone: Slurm 22.05 loses count of GPUs when tasks of an array begin and end while a node is lost.
    ids["lost"] = give("--gpus-per-node=1", "-w", f"{SITE}-2", "--no-requeue", seconds=600)
    ids["never"] = give("-N", "2", "--gpus-per-node=8", seconds=1)
    until(lambda: states(ids["lost"], ids["never"]) == ["RUNNING", "PENDING"])
    admin("scancel", str(ids["never"]))
    slurm_sites.kill(SITE, f"slurmd:{SITE}-2", hard=True)
    until(lambda: states(ids["lost"]) == ["NODE_FAIL"])
    slurm_sites.start(SITE, f"slurmd:{SITE}-2")
    until(lambda: set(admin("sinfo", "-h", "-N", "-n", f"{SITE}-2", "-o", "%T").split()) == {"idle"})
    return Past(since_s, int(time.time()), ids, fleets, slurm_sites)


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def imported(past: Past, way: str, folder: Path) -> Workload:
    """What `import-sacct` writes of the cluster itself."""
    out = folder / f"{way}.parquet"
    given = ("workload", "import-sacct", "--site", SITE, "--fleet", past.fleets[way], "--out", out)
    result = run(*given, *past.span())
    assert result.exit_code == 0, result.output
    return read_workload(out)


def test_each_way_and_a_file_of_sacct_give_the_same_jobs(past: Past, tmp_path: Path) -> None:
    format_ = ",".join(HEADER)
    words = (
        "env",
        "SLURM_TIME_FORMAT=%s",
        "sacct",
        "--allusers",
        "--allocations",
        "--parsable2",
        f"--format={format_}",
    )
    text = past.sites.admin(
        SITE, *words, "--starttime", time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(past.since_s))
    )
    file, out = tmp_path / "sacct", tmp_path / "file.parquet"
    file.write_text(text, encoding="utf-8")
    assert run("workload", "import-sacct", file, "--out", out).exit_code == 0
    workloads = [read_workload(out), *(imported(past, way, tmp_path) for way in WAYS)]

    def jobs(workload: Workload) -> list[tuple[object, ...]]:
        assert workload.waited_s is not None
        columns = (workload.submit_s, workload.waited_s, workload.runtime_s, workload.limit_s, workload.estimate_s)
        return sorted(
            (*numbers, shape.workers, shape.gpu_milli, shape.cpu_milli, shape.memory_mib, shape.gpu_models)
            for *numbers, shape in zip(
                *(column.tolist() for column in columns),
                [workload.shapes[row] for row in workload.shape.tolist()],
                strict=True,
            )
        )

    assert len(jobs(workloads[0])) == 10 + 5  # the array's tasks; done, lost, again, gang and after
    assert jobs(workloads[1]) == jobs(workloads[0])
    assert jobs(workloads[2]) == jobs(workloads[0])
    assert workloads[0].tenants == (f"{past.sites.user}/{past.sites.user}",)
    assert workloads[1].tenants == workloads[2].tenants == ("physics",)
    for workload in workloads:
        assert sum(workload.shapes[row].workers == 2 for row in workload.shape) == 1
        text = "\n".join(workload.notes)
        assert "1 jobs ended before they started: left out" in text


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own; kernels are compiled before, into the usual one."""
    compile_kernels()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "watteau" / "history"


@pytest.mark.parametrize("way", WAYS)
def test_a_site_is_replayed_beside_what_it_recorded_and_read_once(past: Past, way: str, cache: Path) -> None:
    given = ("simulate", past.fleets[way], "--from-site", SITE, *past.span(), "--json")

    def read_at(summary: dict[str, Any]) -> str:
        return str(next(note for note in summary["workload_notes"] if note.startswith("read at ")))

    def summary(*more: str) -> dict[str, Any]:
        result = run(*given, *more)
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    first = summary()
    assert first["jobs"] == first["jobs_started"] == 15
    assert first["recorded"]["gpus_there_mean"] == 16
    assert first["recorded"]["wait_max_s"] > 0
    assert first["by_tenant"].keys() == {"physics"}
    [kept] = cache.iterdir()
    assert kept.parent.stat().st_mode & 0o077 == 0
    time.sleep(1.1)
    assert read_at(summary()) == read_at(first)
    assert read_at(summary("--refresh")) != read_at(first)
    assert list(cache.iterdir()) == [kept]
    summary("--until", "now")
    assert list(cache.iterdir()) == [kept]


@pytest.mark.usefixtures("cache")
def test_a_changed_fleet_without_the_site_replays_its_history(past: Past, tmp_path: Path) -> None:
    half = tmp_path / "half.toml"
    text = past.fleets["commands"].read_text(encoding="utf-8")
    start, _, rest = text.partition("[sites.slurm]")
    slurmless = (
        start.replace('"slurm"', '"simulated"').replace(SITE, "elsewhere") + rest[rest.index("[[sites.pools]]") :]
    )
    half.write_text(slurmless.replace("hgx = 2", "hgx = 1"), encoding="utf-8")
    source = f"{past.fleets['commands']}:{SITE}"
    result = run("simulate", half, "--from-site", source, *past.span(), "--refresh", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["jobs_unschedulable"] == 1  # the gang over two nodes
    assert list(summary["unschedulable_by_reason"].values()) == [1]
    assert summary["by_site"].keys() == {"elsewhere"}


@pytest.mark.parametrize("way", WAYS)
def test_a_site_without_accounting_says_what_to_do(bare_slurm: SlurmSites, way: str, tmp_path: Path) -> None:
    fleet = fleet_file(tmp_path, bare_slurm, LONELY, way)
    result = run("simulate", fleet, "--from-site", LONELY, "--refresh")
    assert result.exit_code == 2, result.output
    said = " ".join(result.stderr.split())
    assert f"site {LONELY}: " in said
    assert "watteau workload import-sacct FILE" in said
    assert "--db URL" in said


def test_a_site_that_does_not_answer_or_refuses_us_ends_with_its_exit_code(past: Past, tmp_path: Path) -> None:
    out = tmp_path / "none.parquet"
    for changes in ({"rest_url": "http://127.0.0.1:9"}, {"token_command": ["echo", "nonsense"]}):
        fleet = fleet_file(tmp_path, past.sites, SITE, "rest", **changes)
        result = run("workload", "import-sacct", "--site", SITE, "--fleet", fleet, "--out", out)
        assert result.exit_code == 5, result.output
        assert f"site {SITE}: " in result.stderr
        assert not out.exists()
