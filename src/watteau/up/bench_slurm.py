"""Measures a Slurm site on this machine: what goes through it beside a loop of sbatch, and what watching it costs.

The clusters are real ones that a testbed starts for the time of the measurement, with files and ports of their own.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console

from watteau.cli.inputs import fail
from watteau.client import Client
from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import SlurmAccess
from watteau.domain.requests import JobId, Request
from watteau.engines.contract import Launch, attempt_name
from watteau.engines.slurm.bench import cpu_s
from watteau.engines.slurm.facts import Submission
from watteau.engines.slurm.marks import folder_of
from watteau.engines.slurm.reach import reach
from watteau.engines.slurm.script import batch_script
from watteau.runtime.clock import Clock
from watteau.up.bench import Line, print_lines, running_up, spread

SITE = "bench"
WAYS = ("rest", "commands")
_PATIENCE_S = 300.0
#: What Watteau makes of a job of these.
_LAUNCH = Launch(
    name="",
    job_id=JobId(0),
    number=1,
    job_name="bench",
    user="bench",
    tenant="bench",
    command=(),
    script="",
    arguments=(),
    environment={},
    workdir="",
    stdout="",
    stderr="",
    time_limit_s=600,
    grace_s=30,
    gpu_milli=0,
    cpu_milli=1_000,
    memory_mib=0,
    places=(),
)
_POLLS = 5
_SETTLE_S, _WATCH_S = 20.0, 30.0

_FLEET = """
name = "bench"

[[sites]]
id = "bench"
name = "bench"
latitude = 48.0
longitude = 7.0
power_limit_kw = 100000
pue = 1.2
engine = "slurm"
mode = "{mode}"

[sites.slurm]
user = "{user}"
folder = "{folder}"
folder_here = "{folder}"
{access}

[[sites.pools]]
id = "hgx"
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
nodes = {{ hgx = {nodes} }}
"""


def slurm(
    testbed: Annotated[
        Path,
        typer.Option(
            help="The program that starts Slurm clusters on this machine.",
            envvar="WATTEAU_SLURM_SITES",
            show_default=False,
        ),
    ],
    jobs: Annotated[int, typer.Option(min=10, max=100_000, help="Jobs that go through the site.")] = 1_000,
    runs: Annotated[int, typer.Option(min=5, max=1_000, help="Jobs that are started one after another.")] = 30,
    seconds: Annotated[int, typer.Option(min=1, max=600, help="How long jobs sleep that do something.")] = 10,
    queue: Annotated[int, typer.Option(min=0, max=90_000, help="Jobs at the site that is watched.")] = 10_000,
    nodes: Annotated[int, typer.Option(min=0, max=60_000, help="Nodes of the site that is watched.")] = 3_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the JSON to this file as well.", show_default=False)] = None,
) -> None:
    """What goes through a Slurm site beside a plain loop of sbatch, how soon, and what watching a large one costs."""
    if not os.access(testbed, os.X_OK):
        fail(InputError(str(testbed), [Fault(0, "", "not a program", "the testbed that starts Slurm clusters")]))
    console = Console(stderr=True)
    with console.status("starting") as status:

        def show(what: str) -> None:
            status.update(f"measuring {what}")

        figures: dict[str, Any] = {"machine": _machine()}
        with running_cluster(testbed) as cluster:
            figures["latency"] = bench_latency(cluster, runs, show)
            figures["through"] = bench_through(cluster, jobs, 0, show)
            figures["through_longer"] = bench_through(cluster, jobs, seconds, show)
            figures["slurm"] = cluster.version
        with running_cluster(testbed) as cluster:
            figures["watch"] = bench_watch(cluster, queue, nodes, show)
    text = json.dumps(figures, indent=2, allow_nan=False)
    if as_json:
        typer.echo(text)
    else:
        print_lines(list(_lines(figures)), f"A Slurm site on this machine ({figures['slurm']})")
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            fail(InputError(str(out), [Fault(0, "", error.strerror or str(error), "a file that can be written")]))


# ---- a cluster -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cluster:
    """One running cluster of two nodes, 64 CPUs and 8 GPUs each."""

    testbed: Path
    folder: Path
    port: int
    user: str

    @property
    def jobs_folder(self) -> Path:
        """Where its jobs may write."""
        return self.folder / SITE / "jobs"

    @property
    def version(self) -> str:
        """Which Slurm it is."""
        return self.admin("squeue", "--version").strip()

    def verb(self, *words: str) -> str:
        """One verb of the testbed."""
        return _said([str(self.testbed), *words], self.environment)

    def admin(self, *command: str) -> str:
        """A command of Slurm's, as the operator."""
        return _said(command, self.environment | {"SLURM_CONF": str(self.folder / SITE / "etc" / "slurm.conf")})

    @property
    def environment(self) -> dict[str, str]:
        """What the testbed reads."""
        known = {name: text for name, text in os.environ.items() if not name.startswith("SLURM")}
        return known | {"SLURM_SITES_DIR": str(self.folder), "SLURM_SITES_PORT_BASE": str(self.port)}

    @property
    def prefix(self) -> tuple[str, ...]:
        """Before a command of the user who submits."""
        words = ("env", f"SLURM_CONF={self.folder / SITE / 'etc' / 'slurm.conf'}")
        return ("runuser", "-u", self.user, "--", *words) if os.geteuid() == 0 else words

    def access(self, way: str) -> SlurmAccess:
        """How Watteau reaches it."""
        # Attempts leave marks there by their names, and each server begins with job 1.
        folder = self.jobs_folder / f"watteau-{secrets.token_hex(8)}"
        folder.mkdir()
        if os.geteuid() == 0:
            shutil.chown(folder, self.user)
        known = SlurmAccess(user=self.user, folder=str(folder), folder_here=str(folder), command_prefix=self.prefix)
        if way == "commands":
            return known
        token = ("env", f"SLURM_SITES_DIR={self.folder}", str(self.testbed), "token", SITE)
        return replace(
            known,
            command_prefix=(),
            rest_url=f"http://127.0.0.1:{self.port + 1}",
            token_command=(*token, "--user", self.user),
        )

    def fleet_file(self, way: str, mode: str, nodes: int = 2, poll_s: float = 2.0) -> str:
        """A fleet of this one site."""
        access = self.access(way)
        words = [f"poll_s = {poll_s}"]
        if access.rest_url:
            words += [
                f"rest_url = {json.dumps(access.rest_url)}",
                f"token_command = {json.dumps(access.token_command)}",
            ]
        else:
            words.append(f"command_prefix = {json.dumps(access.command_prefix)}")
        return _FLEET.format(mode=mode, user=access.user, folder=access.folder, access="\n".join(words), nodes=nodes)


@contextmanager
def running_cluster(testbed: Path) -> Iterator[Cluster]:
    """A cluster until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="watteau-bench-slurm-"))
    folder.chmod(0o755)  # the daemons and the jobs run as other users
    cluster = Cluster(testbed.resolve(), folder, _free_ports(), "")
    etc = folder / SITE / "etc"
    etc.mkdir(parents=True)
    # Jobs of a partition that is down stay where they are, and cost its scheduler nothing.
    (etc / "extra.conf").write_text("PartitionName=parked Nodes=ALL State=DOWN\n")
    try:
        cluster.verb("install")
        cluster.verb("up", "--sites", SITE, "--nodes", "2")
        found = re.search(r"SLURM_REST_USER=(\S+)", cluster.verb("env", SITE))
        yield replace(cluster, user=found[1] if found else "")
    finally:
        try:
            cluster.verb("down")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _free_ports() -> int:
    for _ in range(100):
        base = 10_000 + secrets.randbelow(200) * 100
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", base))
                other.bind(("127.0.0.1", base + 1))
            except OSError:
                continue
            return base
    raise RuntimeError("no free ports between 10000 and 30000")


def _said(words: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=600, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:4])} failed ({done.returncode}): {(done.stdout + done.stderr)[-2_000:]}")
    return done.stdout


# ---- how soon ------------------------------------------------------------------------------------------------------


def bench_latency(cluster: Cluster, runs: int, show: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """From a submission to the first line of the job's own program, on an idle site, one job after another.

    The nodes are this machine, so the clock is one. Beside it: the same by sbatch alone, which is Slurm's own time.
    """
    figures: dict[str, Any] = {"runs": runs}
    show("how soon sbatch starts a job")
    figures["sbatch_ms"] = spread([_started_by_sbatch(cluster) for _ in range(runs)])
    for way in WAYS:
        show(f"how soon Watteau starts a job, by {way}")
        with _watteau(cluster, way) as (client, _):
            client.wait(client.submit(_request(cluster, "first")).id, timeout_s=_PATIENCE_S)
            figures[f"watteau_by_{way}_ms"] = spread([_started_by_watteau(cluster, client) for _ in range(runs)])
    return figures


def _started_by_sbatch(cluster: Cluster) -> float:
    mark = cluster.jobs_folder / f"mark-{secrets.token_hex(8)}"
    began_ns = _now_ns()
    subprocess.run(
        [*cluster.prefix, "sbatch", "--parsable", "-t", "10", "-o", "/dev/null", "-D", "/tmp"],
        input=f"#!/bin/sh\n{_leaves(mark)}\n".encode(),
        stdout=subprocess.DEVNULL,
        check=True,
        cwd="/tmp",
    )
    return (_when(mark) - began_ns) / 1e6


def _started_by_watteau(cluster: Cluster, client: Client) -> float:
    mark = f"mark-{secrets.token_hex(8)}"
    began_ns = _now_ns()
    job = client.submit(_request(cluster, mark))
    started_ns = _when(cluster.jobs_folder / mark)
    client.wait(job.id, timeout_s=_PATIENCE_S)
    return (started_ns - began_ns) / 1e6


def _request(cluster: Cluster, mark: str) -> Request:
    return Request(
        name="bench", script=f"#!/bin/sh\n{_leaves(cluster.jobs_folder / mark)}\n", cpu_milli=1_000, time_limit_s=600
    )


def _leaves(mark: Path) -> str:
    """A line of shell that writes down when it ran."""
    return f"date +%s%N > {mark}.new; mv {mark}.new {mark}"


def _when(mark: Path) -> int:
    deadline = time.perf_counter() + _PATIENCE_S
    while not mark.exists():
        if time.perf_counter() > deadline:
            raise RuntimeError(f"a job did not start within {_PATIENCE_S:.0f} s")
        time.sleep(0.002)
    return int(mark.read_text())


def _now_ns() -> int:
    return 1_000_000 * Clock().now_ms()


@contextmanager
def _watteau(cluster: Cluster, way: str) -> Iterator[tuple[Client, psutil.Process]]:
    """A server that drives the cluster, and somebody who may submit there."""
    with tempfile.TemporaryDirectory(prefix="watteau-bench-") as folder:
        fleet = Path(folder) / "fleet.toml"
        fleet.write_text(cluster.fleet_file(way, "drive"))
        with running_up(Path(folder) / "up", "--fleet", str(fleet)) as (url, token, process):
            with Client(url, "") as client:
                secret = client.login(one_time_token=token, label="bench").token
            with Client(url, secret) as client:
                yield client, process


# ---- how many ------------------------------------------------------------------------------------------------------


def bench_through(
    cluster: Cluster, jobs: int, seconds: int = 0, show: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """So many jobs that write down when they run, and then sleep: from the first submission to the last one's line.

    A plain loop, `sbatch` after `sbatch`, goes before and after, and its better run is what is compared with: once over
    these jobs as anybody would write them, and once over the batch scripts that Watteau makes of them, which run a
    command once and keep how it ended. What lies between the two loops is what that costs on the nodes.
    """
    figures: dict[str, Any] = {"jobs": jobs, "seconds": seconds, "sbatch_loop_s": [], "sbatch_loop_of_attempts_s": []}
    what = f"{jobs} jobs of {seconds} s"

    def loop() -> None:
        show(f"{what} by a loop of sbatch")
        figures["sbatch_loop_s"].append(round(_through_sbatch(cluster, jobs, seconds), 2))

    def loop_of_attempts() -> None:
        show(f"{what} by a loop of sbatch over Watteau's batch scripts")
        figures["sbatch_loop_of_attempts_s"].append(round(_attempts_through_sbatch(cluster, jobs, seconds), 2))

    loop()
    loop_of_attempts()
    for way in WAYS:
        show(f"{what} by Watteau, by {way}")
        took_s, cpu_s = _through_watteau(cluster, way, jobs, seconds)
        figures[f"watteau_by_{way}_s"] = round(took_s, 2)
        figures[f"server_by_{way}_cpu_s"] = round(cpu_s, 2)
    loop_of_attempts()
    loop()
    for way in WAYS:
        took_s = figures[f"watteau_by_{way}_s"]
        figures[f"ratio_by_{way}"] = round(min(figures["sbatch_loop_s"]) / took_s, 3)
        figures[f"ratio_of_attempts_by_{way}"] = round(min(figures["sbatch_loop_of_attempts_s"]) / took_s, 3)
    return figures


def _through_sbatch(cluster: Cluster, jobs: int, seconds: int) -> float:
    folder = _fresh_folder(cluster)
    script = cluster.jobs_folder / f"{folder.name}.sh"
    script.write_text(_script(folder, "$SLURM_JOB_ID", seconds))
    return _looped(cluster, folder, jobs, str(script))


def _attempts_through_sbatch(cluster: Cluster, jobs: int, seconds: int) -> float:
    folder = _fresh_folder(cluster)
    scripts, marks = folder.with_suffix(".scripts"), cluster.access("rest").folder
    scripts.mkdir()
    script = _script(folder, "$WATTEAU_JOB_ID", seconds)
    for number in range(jobs):
        name = attempt_name(JobId(number + 1), 1)
        launch = replace(_LAUNCH, name=name, job_id=JobId(number + 1), script=script)
        (scripts / f"{number}.sh").write_text(batch_script(launch, folder_of(marks, name)))
    return _looped(cluster, folder, jobs, f"{scripts}/$i.sh")


def _looped(cluster: Cluster, folder: Path, jobs: int, script: str) -> float:
    """A loop of sbatch; `script` may say $i."""
    loop = f'i=0; while [ $i -lt {jobs} ]; do sbatch --parsable -n 1 -t 10 -o /dev/null "{script}"; i=$((i+1)); done'
    began_ns = _now_ns()
    subprocess.run([*cluster.prefix, "sh", "-c", loop], stdout=subprocess.DEVNULL, check=True, cwd="/tmp")
    took_s = (_last_of(folder, jobs) - began_ns) / 1e9
    _until_empty(cluster)
    return took_s


def _through_watteau(cluster: Cluster, way: str, jobs: int, seconds: int) -> tuple[float, float]:
    """(seconds until the last job's line, CPU seconds of the server and its commands meanwhile)."""
    folder = _fresh_folder(cluster)
    script = _script(folder, "$WATTEAU_JOB_ID", seconds)
    request = Request(name="bench", script=script, cpu_milli=1_000, time_limit_s=600)
    with _watteau(cluster, way) as (client, server):
        client.wait(client.submit(_request(cluster, folder.name + "-first")).id, timeout_s=_PATIENCE_S)
        began_ns, before_s = _now_ns(), cpu_s(server)
        last = client.submit_many([request] * jobs)[-1]
        last_ns = _last_of(folder, jobs)
        spent_s = cpu_s(server) - before_s
        client.wait(last.id, timeout_s=_PATIENCE_S)
        _until_empty(cluster)
    return (last_ns - began_ns) / 1e9, spent_s


def _script(folder: Path, name: str, seconds: int) -> str:
    return f"#!/bin/sh\n{_leaves(folder / name)}\n" + (f"sleep {seconds}\n" if seconds else "")


def _until_empty(cluster: Cluster) -> None:
    """The next measurement begins on an idle cluster."""
    deadline = time.perf_counter() + _PATIENCE_S
    while cluster.admin("squeue", "-h", "-o", "%i").strip():
        if time.perf_counter() > deadline:
            raise RuntimeError(f"jobs were left at the cluster for {_PATIENCE_S:.0f} s")
        time.sleep(0.5)


def _fresh_folder(cluster: Cluster) -> Path:
    folder = cluster.jobs_folder / f"run-{secrets.token_hex(8)}"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def _last_of(folder: Path, jobs: int) -> int:
    """When the last of so many jobs ran."""
    deadline = time.perf_counter() + _PATIENCE_S
    while True:
        marks = [name for name in os.listdir(folder) if not name.endswith(".new")]
        if len(marks) >= jobs:
            return max(int((folder / name).read_text()) for name in marks)
        if time.perf_counter() > deadline:
            raise RuntimeError(f"{len(marks)} of {jobs} jobs ran within {_PATIENCE_S:.0f} s")
        time.sleep(0.05)


# ---- what it costs to watch ----------------------------------------------------------------------------------------


def bench_watch(
    cluster: Cluster, queue: int, nodes: int, show: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """A site with so many jobs and nodes, seen again and again with one job changed in between.

    The first two figures are of a process that does nothing else: its CPU time (with that of Slurm's commands where it
    runs those) and its memory. `wall_s` is how long an answer takes: most of it is slurmrestd's and slurmctld's time.
    """
    show(f"a site with {queue:,} jobs and {nodes:,} nodes: making it")
    _fill(cluster, queue)
    with (cluster.folder / SITE / "etc" / "extra.conf").open("a") as conf:
        if nodes > 2:
            conf.write(
                f"NodeName=far-[1-{nodes - 2}] NodeAddr=127.0.0.1 Port=1 CPUs=64 SocketsPerBoard=2 CoresPerSocket=32 "
                "ThreadsPerCore=1 RealMemory=1048576 Gres=gpu:8 Feature=h100 State=DOWN\n"
            )
    cluster.verb("kill", SITE, "all")
    cluster.verb("start", SITE, "all")
    figures: dict[str, Any] = {"jobs": queue, "nodes": nodes, "polls": _POLLS}
    for way in WAYS:
        show(f"a site with {queue:,} jobs and {nodes:,} nodes, by {way}")
        fleet = cluster.jobs_folder / f"watch-{way}.toml"
        fleet.write_text(cluster.fleet_file(way, "observe", nodes=max(2, nodes), poll_s=3_600))
        change = json.dumps(_change(cluster))
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "watteau.engines.slurm.bench",
                str(fleet),
                str(_POLLS),
                change,
                str(Clock().now_ms()),
            ],
            stdout=subprocess.PIPE,
            env=cluster.environment,
            check=True,
        )
        figures[way] = json.loads(done.stdout)
        show(f"`watteau up` with a site of {queue:,} jobs and {nodes:,} nodes, by {way}")
        figures[way]["server"] = _watched(cluster, way, max(2, nodes))
    return figures


def _watched(cluster: Cluster, way: str, nodes: int) -> dict[str, float]:
    """A whole server that looks every two seconds, while one job changes each second: its CPU time and memory."""
    with tempfile.TemporaryDirectory(prefix="watteau-bench-") as folder:
        fleet = Path(folder) / "fleet.toml"
        fleet.write_text(cluster.fleet_file(way, "observe", nodes=nodes))
        with running_up(Path(folder) / "up", "--fleet", str(fleet)) as (_, _, process):
            time.sleep(_SETTLE_S)
            began, before_s = time.perf_counter(), cpu_s(process)
            while time.perf_counter() - began < _WATCH_S:
                subprocess.run(_change(cluster), check=True)
                time.sleep(1)
            share = (cpu_s(process) - before_s) / (time.perf_counter() - began)
            return {"percent_of_a_core": round(100 * share, 1), "mib": round(process.memory_info().rss / 2**20, 1)}


def _fill(cluster: Cluster, queue: int) -> None:
    """Jobs that wait, of some variety."""
    site = reach(cluster.access("rest"), Clock().now_ms)
    parked = Submission(
        name="",
        script="#!/bin/sh\nexit 0\n",
        comment="one of many, with a comment as people write them",
        folder="/tmp",
        stdout="/dev/null",
        stderr="",
        environment={"PATH": "/usr/bin:/bin"},
        nodes=1,
        cpus_per_node=8,
        gpus_per_node=1,
        gpu_type="",
        constraint="h100",
        memory_mib_per_node=65_536,
        time_limit_s=3_600,
        partition="parked",
        account="",
        qos="",
        node_names=(),
        grace_s=0,
    )
    wanted = [
        replace(parked, name=f"train-{number}", nodes=1 + number % 2, gpus_per_node=1 + number % 8)
        for number in range(queue)
    ]
    given = site.submit_all(wanted)
    site.close()
    if wrong := [each for each in given if isinstance(each, Exception)]:
        raise RuntimeError(f"{len(wrong)} of {queue} jobs could not be submitted: {wrong[0]}")


def _change(cluster: Cluster) -> list[str]:
    """A command that changes one job."""
    conf = cluster.folder / SITE / "etc" / "slurm.conf"
    return [
        "env",
        f"SLURM_CONF={conf}",
        "sh",
        "-c",
        "scontrol update jobid=$(squeue -h -o %A | head -n 1) comment=$(date +%N)",
    ]


def _machine() -> dict[str, Any]:
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(psutil.getloadavg()[0], 2),
    }


def _lines(figures: Mapping[str, Any]) -> Iterator[Line]:
    latency, watched = figures["latency"], figures["watch"]
    for through in (figures["through"], figures["through_longer"]):
        what = f"of {through['seconds']} s" if through["seconds"] else "that do nothing"
        loop = through["jobs"] / min(through["sbatch_loop_s"])
        attempts = through["jobs"] / min(through["sbatch_loop_of_attempts_s"])
        for way in WAYS:
            rate = through["jobs"] / through[f"watteau_by_{way}_s"]
            beside = (
                f"{through[f'ratio_by_{way}']:.2f} of a loop of sbatch ({loop:.0f}/s), "
                f"{through[f'ratio_of_attempts_by_{way}']:.2f} of one over the same batch scripts ({attempts:.0f}/s)"
            )
            yield Line(f"{through['jobs']:,} jobs {what}, by {way}", rate, "jobs/s", "0.90 of sbatch", beside)
    for way in WAYS:
        median = latency[f"watteau_by_{way}_ms"]["median"]
        beside = f"{latency['sbatch_ms']['median']:,.0f} ms by sbatch alone, which is Slurm's own time"
        yield Line(f"submit to running, median, by {way}", median, "ms", "< 1000", beside)
    what = f"{watched['jobs']:,} jobs, {watched['nodes']:,} nodes"
    for way in WAYS:
        its = watched[way]
        beside = f"{its['wall_s']:.2f} s until the answer is there, the rest of it Slurm's time"
        yield Line(f"one look at {what}, by {way}", its["cpu_s"], "s CPU", "< 1", beside)
        yield Line(f"memory at most, by {way}", its["peak_mib"], "MiB", "< 300", f"{its['before_mib']:.0f} MiB before")
        server = its["server"]
        beside = f"looking every 2 s; {server['mib']:.0f} MiB in all"
        yield Line(f"`watteau up` that watches it, by {way}", server["percent_of_a_core"], "% of a core", "", beside)
