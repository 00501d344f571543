"""A large file streams: what is kept is the columns of the workload, not a copy of the file."""

import subprocess
import sys
from pathlib import Path

import pytest

JOBS = 2_000_000
#: The columns take 50 bytes a job (0.1 GiB here); Python, Polars and Arrow take 0.1 GiB before they read anything.
PEAK_MAX_MIB = 700

PROGRAM = """
import sys
from pathlib import Path
from watteau.simulation.results import peak_rss_mib
from watteau.workload.formats import read_workload, write_workload
workload = read_workload(Path(sys.argv[1]))
if len(sys.argv) > 2:
    write_workload(workload, Path(sys.argv[2]))
print(len(workload), int(peak_rss_mib()))
"""


@pytest.mark.slow
def test_two_million_rows_are_read_and_written_in_bounded_memory(tmp_path: Path) -> None:
    source, copy = tmp_path / "jobs.csv", tmp_path / "jobs.parquet"
    with source.open("w") as file:
        file.write("submit_s,duration_s,gpus\n")
        for start in range(0, JOBS, 1_000):
            file.write(
                "".join(f"{n * 15},{300 + n * 7919 % 90_000},{1 + n % 8}\n" for n in range(start, start + 1_000))
            )
    for arguments in ([source, copy], [copy]):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=True
        )
        jobs, peak_mib = map(int, done.stdout.split())
        assert jobs == JOBS
        assert peak_mib < PEAK_MAX_MIB


def test_the_memory_of_the_process_that_started_this_one_is_not_counted() -> None:
    held = bytearray(600 << 20)
    program = "from watteau.simulation.results import peak_rss_mib; print(peak_rss_mib())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout) < len(held) >> 20
