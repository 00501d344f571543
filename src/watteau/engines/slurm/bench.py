"""Measures what one look at a Slurm site costs, in a process that does nothing else."""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from watteau.domain.fleet_file import parse_fleet
from watteau.engines.slurm.engine import open_slurm


def bench_look(fleet_file: Path, polls: int, change: Sequence[str], now_ms: int) -> dict[str, Any]:
    """See the first site of a fleet again and again; `change` is a command that changes something there in between.

    CPU times are of this process and of the commands that it runs; `wall_s` is how long the answer takes.
    """
    fleet = parse_fleet(fleet_file.read_text(), str(fleet_file))
    me = psutil.Process()
    before_mib = me.memory_info().rss / 2**20
    # Times are only told apart here, so that they need not be true; what is old is not asked for.
    engine = open_slurm(fleet.sites[0], fleet.tenants, lambda: now_ms + time.perf_counter_ns() // 1_000_000)
    began, spent = time.perf_counter(), cpu_s(me)
    engine.capacity()
    first = {"wall_s": round(time.perf_counter() - began, 3), "cpu_s": round(cpu_s(me) - spent, 3)}
    view = engine.look()
    walls, spents = [], []
    for _ in range(polls):
        subprocess.run(change, check=True)
        began, spent = time.perf_counter(), cpu_s(me)
        engine.leftovers(())  # the one call that looks at once
        view = engine.look() or view
        walls.append(time.perf_counter() - began)
        spents.append(cpu_s(me) - spent)
    engine.close()
    return {
        "first": first,
        "cpu_s": round(statistics.median(spents), 3),
        "cpu_most_s": round(max(spents), 3),
        "wall_s": round(statistics.median(walls), 3),
        "jobs_seen": len(view.jobs) if view else 0,
        "nodes_seen": len(view.nodes) if view else 0,
        "peak_mib": round(_peak_mib(), 1),
        "before_mib": round(before_mib, 1),
    }


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and of those that it started and waited for."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _peak_mib() -> float:
    """What getrusage(2) says is at least what the process that started this one had: the kernel hands it on."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    print(json.dumps(bench_look(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4]))))
