"""Measures the replay and the step on this machine, beside a bare loop that only counts GPUs: the machine's own limit.

Every speed is the median of several runs; every ratio is of two runs that followed each other at once, so that a
machine whose speed drifts does not change it.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from watteau.core import layout
from watteau.core.bits import kernel, lowest_bit
from watteau.core.state import build_state, capacity_changes, write_jobs
from watteau.core.step import Events, step
from watteau.domain.fleet import Fleet, Pool, Pue
from watteau.domain.jobs import Shape, Topology, Workload
from watteau.domain.policy import POLICIES
from watteau.domain.tenants import Tenant
from watteau.domain.units import GPU_MILLI, Int64Array, PoolId, TenantId
from watteau.simulation.replay import compile_kernels, replay
from watteau.workload.scale import compress_to_load

NODES, GPUS_PER_NODE = 3_125, 8
WAITING, TENANTS, STEPS = 100_000, 2_500, 1_000
_SECONDS_BETWEEN_STEPS = 10

#: Called with what is being measured.
Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table: a figure, its unit, what was aimed at, and where it fits the ratio to the bare loop."""

    name: str
    figure: float
    unit: str
    aim: str
    ratio_to_bare_loop: float | None = None
    detail: str = ""


def bench_fleet(tenants: Tenant | None = None) -> Fleet:
    """3,125 nodes of 8 GPUs in blocks of 32, at one site that is always open."""
    pool = Pool(PoolId("gpu"), "any", GPUS_PER_NODE, 96, 1024, False, 1_500, 5_000, 8_400, 32)
    return Fleet.of_one_site("bench", [(pool, NODES)], power_limit_kw=1_000_000, pue=Pue.constant(1.2), tenants=tenants)


@kernel
def bare_loop(submit_s: Any, runtime_s: Any, gpus: Any, nodes: int, per_node: int) -> int:
    """Strict order and best fit by free count, with no node chosen for gangs, no tenants, no reasons, no log.

    Returns the sum of starts, so that nothing is optimised away. Wide jobs take whole nodes.
    """
    words = (nodes + 61) // 62
    buckets = np.zeros((per_node + 1, words), np.int64)
    counts = np.zeros(per_node + 1, np.int64)
    for n in range(nodes):
        buckets[per_node, n // 62] |= 1 << (n % 62)
    counts[per_node] = nodes
    slots = 1 << 20
    first = np.full(slots, -1, np.int32)
    following = np.full(len(submit_s) * 2 + nodes, -1, np.int32)
    # A placement: (node, GPUs); wide jobs have one for each node.
    placed_node = np.zeros(len(following), np.int32)
    placed_gpus = np.zeros(len(following), np.int32)
    free_place = 0
    unused = np.zeros(len(following), np.int32)
    unused_count = 0
    now = submit_s[0]
    total = 0
    for job in range(len(submit_s)):
        at_s = max(now, submit_s[job])
        wanted = gpus[job]
        wide = (wanted + per_node - 1) // per_node if wanted > per_node else 1
        each = min(wanted, per_node)
        while True:
            while now <= at_s:  # ends up to the arrival
                place = first[now & (slots - 1)]
                first[now & (slots - 1)] = -1
                while place >= 0:
                    n = placed_node[place]
                    for k in range(per_node + 1):
                        if buckets[k, n // 62] >> (n % 62) & 1:
                            buckets[k, n // 62] ^= 1 << (n % 62)
                            counts[k] -= 1
                            buckets[k + placed_gpus[place], n // 62] |= 1 << (n % 62)
                            counts[k + placed_gpus[place]] += 1
                            break
                    unused[unused_count] = place
                    unused_count += 1
                    place = following[place]
                now += 1
            fits = counts[per_node] >= wide
            if wide == 1:
                fits = False
                for k in range(each, per_node + 1):
                    fits |= counts[k] > 0
            if fits:
                break
            at_s = now
        start_s = now - 1
        total += start_s
        for _ in range(wide):
            for k in range(each, per_node + 1):
                if counts[k] > 0:
                    word = 0
                    while buckets[k, word] == 0:
                        word += 1
                    bit = lowest_bit(buckets[k, word])
                    buckets[k, word] ^= 1 << bit
                    counts[k] -= 1
                    buckets[k - each, word] |= 1 << bit
                    counts[k - each] += 1
                    if unused_count > 0:
                        unused_count -= 1
                        place = unused[unused_count]
                    else:
                        place = free_place
                        free_place += 1
                    placed_node[place] = word * 62 + bit
                    placed_gpus[place] = each
                    slot = (start_s + max(runtime_s[job], 1)) & (slots - 1)
                    following[place] = first[slot]
                    first[slot] = place
                    break
    return int(total)


def bench_replay(workload: Workload, runs: int, show: Show) -> list[Measured]:
    """Speed of the replay under fifo and hybrid, each run beside one of the bare loop."""
    compile_kernels()
    fleet = bench_fleet()
    capacity = NODES * GPUS_PER_NODE
    cases = [
        ("fifo", 0.7, "2,000,000 jobs/s"),
        ("hybrid", 0.9, "500,000 jobs/s"),
        ("hybrid", 1.05, "50,000 jobs/s"),
        ("easy", 0.9, ""),
    ]
    lines = []
    for policy, load, aim in cases:
        loaded = compress_to_load(workload, capacity, load)
        gpus = loaded.gpu_milli() // GPU_MILLI
        bare_loop(loaded.submit_s, loaded.runtime_s, gpus, NODES, GPUS_PER_NODE)
        speeds, ratios = [], []
        happened = None
        for run in range(runs):
            show(f"{policy} at load {load:g}, run {run + 1} of {runs}")
            began = perf_counter()
            bare_loop(loaded.submit_s, loaded.runtime_s, gpus, NODES, GPUS_PER_NODE)
            bare_s = perf_counter() - began
            happened = replay(fleet, loaded, POLICIES[policy], zero_s=0)
            speeds.append(len(loaded) / happened.wall_s)
            ratios.append(bare_s / happened.wall_s)
        assert happened is not None
        wait = happened.start_s - happened.submit_s
        lines.append(
            Measured(
                f"{len(loaded):,} jobs, {policy}, load {load:g}",
                statistics.median(speeds),
                "jobs/s",
                aim,
                statistics.median(ratios),
                f"mean wait {wait.mean():.1f} s, at most {happened.queue_most:,} waiting",
            )
        )
    return lines


def bench_year(trace: Path | None, supply: Path | None, show: Show) -> list[Measured]:
    """A year of the fleet at 80 % load under hybrid, books and report included, in a process of its own."""
    show("a whole year")
    with tempfile.TemporaryDirectory() as out, as_file(files("watteau.cli").joinpath("france.toml")) as fleet:
        command = [sys.executable, "-c", "from watteau.app import main; main()", "simulate", str(fleet)]
        command += ["--policy", "hybrid", "--load", "0.8", "--days", "365", "--json", "--out", out]
        if trace is not None:
            command += ["--trace", str(trace)]
        if supply is not None:
            command += ["--supply", str(supply)]
        began = perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        whole_s = perf_counter() - began
    summary = json.loads(done.stdout)
    jobs = f"{summary['jobs']:,} jobs"
    return [
        Measured("a year at load 0.8, hybrid: everything", whole_s, "s", "60 s", None, f"{jobs}, report included"),
        Measured("a year at load 0.8, hybrid: the replay", summary["wall_s"], "s", "", None, jobs),
        Measured("a year at load 0.8, hybrid: memory", summary["peak_rss_mib"] / 1024, "GiB", "8 GiB", None, jobs),
    ]


def bench_step(show: Show, seed: int = 0) -> list[Measured]:
    """One `core.step` with a full fleet and a deep queue, and the verdict on gangs that can never fit."""
    show(f"one step with {WAITING:,} waiting jobs and {TENANTS:,} tenants")
    compile_kernels()
    rng = np.random.Generator(np.random.PCG64(seed))
    parties = tuple(
        Tenant(
            TenantId(f"party-{p}"),
            "",
            1 + p % 5,
            None,
            tuple(Tenant(TenantId(f"tenant-{p}-{t}"), "", 1 + t % 3, None, ()) for t in range(TENANTS // 50)),
        )
        for p in range(50)
    )
    fleet = bench_fleet(Tenant(TenantId("programme"), "", 1, None, parties))
    leaves = np.array(
        [index for index, (_, tenant) in enumerate(fleet.tenants.walk()) if not tenant.children], dtype=np.int32
    )
    sizes = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 8), (4, 8), (8, 8), (16, 8), (32, 8)]
    shapes = [Shape(workers, gpus * GPU_MILLI) for workers, gpus in sizes]
    never = [
        Shape(NODES + 1, GPUS_PER_NODE * GPU_MILLI),
        Shape(33, GPUS_PER_NODE * GPU_MILLI, topology=Topology.ONE_BLOCK_REQUIRED),
    ]
    arriving = STEPS * 5
    jobs = 2 * WAITING + arriving
    shape = rng.choice(len(sizes), size=jobs, p=[0.6, 0.1, 0.08, 0.1, 0.05, 0.03, 0.02, 0.015, 0.005])
    shape[-len(never) :] = [len(sizes), len(sizes) + 1]
    workers = np.array([s.workers for s in [*shapes, *never]])[shape]
    state = build_state(
        fleet, [*shapes, *never], POLICIES["hybrid"], jobs=jobs, workers=int(workers.sum()), queue=1 << 18
    )
    estimate_s = rng.integers(600, 86_400, size=jobs)
    write_jobs(state, slice(0, jobs), 0, shape=shape, estimate_s=estimate_s, tenant=rng.choice(leaves, size=jobs))
    rows = state.jobs
    change = capacity_changes(fleet, state)[0]
    nodes = np.arange(change.first_node, change.first_node + change.count, dtype=np.int32)
    step(state, Events(nodes_up=nodes), 0)
    arrived = 0
    while state.cycle[0]["waiting"] < WAITING:
        batch = np.arange(arrived, arrived + 10_000, dtype=np.int32)
        step(state, Events(arrived=batch), 1)
        arrived += 10_000
    took = np.zeros(STEPS)
    now = 1
    for index in range(STEPS):
        now += _SECONDS_BETWEEN_STEPS
        running = np.flatnonzero(rows["state"] == layout.RUNNING)
        ended = rng.choice(running, size=5, replace=False).astype(np.int32)
        new = np.arange(arrived, arrived + 5, dtype=np.int32)
        arrived += 5
        events = Events(ended=ended, arrived=new)
        began = perf_counter()
        step(state, events, now)
        took[index] = perf_counter() - began
    verdicts: Int64Array = np.zeros(len(never), dtype=np.int64)
    verdict_s = []
    for index in range(len(never)):
        row = jobs - len(never) + index
        began = perf_counter()
        step(state, Events(arrived=np.array([row], dtype=np.int32)), now + index + 1)
        verdict_s.append(perf_counter() - began)
        verdicts[index] = rows[row]["state"]
    assert bool(np.all(verdicts == layout.REJECTED))
    waiting = int(state.cycle[0]["waiting"])
    detail = f"{waiting:,} waiting, {TENANTS:,} tenants, 25,000 GPUs, 5 ends and 5 arrivals a step"
    return [
        Measured("one step, median", float(np.median(took)) * 1e3, "ms", "", None, detail),
        Measured("one step, 99 % below", float(np.quantile(took, 0.99)) * 1e3, "ms", "100 ms", None, detail),
        Measured("one step, slowest", float(took.max()) * 1e3, "ms", "", None, f"of {STEPS:,} steps"),
        Measured(
            "verdict on a gang that can never fit",
            max(verdict_s) * 1e3,
            "ms",
            "10 ms",
            None,
            "too many nodes; too large for one block",
        ),
    ]


def as_figures(lines: list[Measured], workload: str) -> dict[str, Any]:
    """The table with what was measured, and on what."""
    return {
        "workload": workload,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "measured": [asdict(line) for line in lines],
    }
