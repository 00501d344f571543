"""Batch scripts as people write them, read as Slurm reads them. Facts: slurm.schedmd.com/sbatch.html."""

import string
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from watteau.domain.errors import InputError
from watteau.domain.requests import MOST_ARRAY_TASKS, After, Dependency, JobId, Request
from watteau.workload import slurm_values
from watteau.workload.sbatch import OPTIONS, Notice, Place, is_secret, read_command, read_script
from watteau.workload.slurm_values import Unreadable

PARIS = ZoneInfo("Europe/Paris")
#: A Tuesday, 14:30 in summer time.
NOW = datetime(2026, 6, 16, 14, 30, tzinfo=PARIS)
FLEET = {
    "paris": Place(sites=("paris",)),
    "lyon": Place(sites=("lyon",)),
    "gpu_p13": Place(sites=("paris",), gpu_models=("H100",)),
    "h100": Place(gpu_models=("H100",)),
    "a100": Place(gpu_models=("A100-80", "A100-40")),
}


def script(*directives: str, body: str = "srun python train.py") -> str:
    return "\n".join(["#!/bin/bash", *directives, "", body, ""])


def read(text: str, *options: str, **more: Any) -> tuple[Request, list[Notice]]:
    settings: dict[str, Any] = {"now": NOW, "workdir": "/scratch/ada", "resolve": FLEET.get}
    return read_script(text, options=options, **(settings | more))


def faults(text: str, *options: str, **more: Any) -> list[str]:
    with pytest.raises(InputError) as raised:
        read(text, *options, **more)
    return [str(fault) for fault in raised.value.faults]


def epoch(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=PARIS).timestamp())  # type: ignore[arg-type, misc]


# --- whole scripts, as they are found in the world --------------------------------------------------------------------

PYTORCH_DDP = """#!/bin/bash -l
# Four nodes of eight, one task a GPU.
#SBATCH --job-name=ddp-resnet      # shown in squeue
#SBATCH --account=abc@h100
#SBATCH --partition=gpu_p13
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=10
#SBATCH --hint=nomultithread
#SBATCH --time=20:00:00
#SBATCH --output=logs/%x_%j.out
#SBATCH --error=logs/%x_%j.err

module purge
srun python -u train.py --batch 256
"""

ARRAY_SWEEP = """#!/usr/bin/env bash
#SBATCH -J sweep -a 0-99%8
#SBATCH -c 4 --mem 16G -t 2:00:00
#SBATCH -o 'out/run %A_%a.log'
#SBATCH --mail-type=END,FAIL --mail-user=ada@example.org

set -euo pipefail
python sweep.py --index "$SLURM_ARRAY_TASK_ID"
"""

SINGLE_GPU = """#!/bin/bash
#SBATCH --gpus=a100:1
#SBATCH --mem-per-gpu=64GB
#SBATCH --cpus-per-gpu=16
#SBATCH --time=3-00:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
##SBATCH --nodes=10

export OMP_NUM_THREADS=16
python train.py
#SBATCH --mem=1G
"""

MPI = """#!/bin/sh
#SBATCH --nodes=2-4
#SBATCH --ntasks=64
#SBATCH --ntasks-per-node=32
#SBATCH --mem-per-cpu=2000
#SBATCH --exclusive
#SBATCH --constraint="h100"
#SBATCH -d afterok:101:102,after:103+5
mpirun ./solver
"""

NIGHTLY = """#!/bin/bash
#SBATCH --begin=22:00
#SBATCH --deadline=2026-06-18T06:00
#SBATCH --no-requeue
#SBATCH --dependency=singleton
#SBATCH --export=NONE
#SBATCH --chdir=nightly
#SBATCH -p paris,lyon
#SBATCH --comment="every night, 'til it works" --nice=100
./nightly.sh
"""


@pytest.mark.parametrize(
    ("text", "fields", "notices"),
    [
        (
            PYTORCH_DDP,
            {
                "name": "ddp-resnet",
                "tenant": "abc@h100",
                "sites": ("paris",),
                "gpu_models": ("H100",),
                "workers": 4,
                "gpu_milli": 8_000,
                "cpu_milli": 80_000,
                "memory_mib": 0,
                "time_limit_s": 72_000,
                "stdout": "logs/%x_%j.out",
                "stderr": "logs/%x_%j.err",
                "workdir": "/scratch/ada",
            },
            [(10, "--hint")],
        ),
        (
            ARRAY_SWEEP,
            {
                "name": "sweep",
                "workers": 1,
                "gpu_milli": 0,
                "cpu_milli": 4_000,
                "memory_mib": 16_384,
                "time_limit_s": 7_200,
                "stdout": "out/run %A_%a.log",
            },
            [(5, "--mail-type"), (5, "--mail-user")],
        ),
        (
            SINGLE_GPU,
            {
                "gpu_milli": 1_000,
                "gpu_models": ("A100-80", "A100-40"),
                "memory_mib": 65_536,
                "cpu_milli": 16_000,
                "time_limit_s": 259_200,
                "requeue": True,
                "workers": 1,
            },
            [(7, "--signal"), (12, "#SBATCH")],
        ),
        (
            MPI,
            {
                "workers": 2,
                "cpu_milli": 32_000,
                "memory_mib": 64_000,
                "gpu_models": ("H100",),
                "dependencies": (
                    Dependency(after=After.OK, job_id=101),
                    Dependency(after=After.OK, job_id=102),
                    Dependency(after=After.BEGUN, job_id=103, delay_s=300),
                ),
                "dependency_mode": "all",
            },
            [(2, "--nodes"), (6, "--exclusive")],
        ),
        (
            NIGHTLY,
            {
                "begin_s": epoch(2026, 6, 16, 22),
                "deadline_s": epoch(2026, 6, 18, 6),
                "requeue": False,
                "singleton": True,
                "environment": {},
                "workdir": "/scratch/ada/nightly",
                "sites": ("paris", "lyon"),
            },
            [(9, "--comment"), (9, "--nice")],
        ),
    ],
    ids=["ddp", "sweep", "single", "mpi", "nightly"],
)
def test_scripts_of_the_world_are_read(text: str, fields: dict[str, Any], notices: list[tuple[int, str]]) -> None:
    request, said = read(text, environment={"HOME": "/h"})
    assert {name: getattr(request, name) for name in fields} == fields
    assert request.script == text
    assert [(notice.line, notice.option) for notice in said] == notices


def test_an_array_keeps_its_indices_and_its_limit() -> None:
    request, _ = read(ARRAY_SWEEP)
    assert request.array is not None
    assert request.array.indices == tuple(range(100))
    assert request.array.most_running == 8


# --- which lines count, and how they are cut into words ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("directives", "name"),
    [
        (["#SBATCH --job-name=a"], "a"),
        (["#SBATCH --job-name a"], "a"),
        (["#SBATCH -Ja"], "a"),
        (["#SBATCH -J a"], "a"),
        (["#SBATCH\t-J\ta"], "a"),
        (["#SBATCH -HJ a"], "a"),
        (["#SBATCH --job=a"], "job"),  # job-name or jobid: not unique
        (["#SBATCH --job-n=a"], "a"),
        (["#SBATCH--job-name=a"], "a"),
        (['#SBATCH --job-name="a b"'], "a b"),
        (["#SBATCH --job-name='a \"b'"], 'a "b'),
        (["#SBATCH --job-name=a\\ b"], "a b"),
        (["#SBATCH --job-name=a#b"], "a"),
        (["#SBATCH --job-name=a\\#b"], "a#b"),
        (["#SBATCH -J a # -J b"], "a"),
        (["#SBATCH -J a", "#SBATCH -J b"], "b"),
        (["#SBATCH -J", "#SBATCH a"], "a"),  # sbatch puts all words behind one another
        (["# a comment", "", "   ", "#SBATCH -J a"], "a"),
        ([" #SBATCH -J a"], "job"),
        (["##SBATCH -J a"], "job"),
        (["# SBATCH -J a"], "job"),
        (["#sbatch -J a"], "job"),
        (["date", "#SBATCH -J a"], "job"),
    ],
)
def test_directives_are_cut_as_sbatch_cuts_them(directives: list[str], name: str) -> None:
    assert read(script(*directives))[0].name == name


def test_options_beside_the_script_win() -> None:
    text = script("#SBATCH --mem=4G -J inside --time=10", "#SBATCH --no-requeue")
    request, said = read(text, "--mem-per-cpu=1G", "-J", "outside", "--requeue", "-c2")
    assert (request.name, request.memory_mib, request.time_limit_s, request.requeue) == ("outside", 2_048, 600, True)
    assert said == []


def test_what_is_not_known_is_named_with_its_line() -> None:
    _, said = read(script("#SBATCH --time=5", "#SBATCH --walltime=10 -Z", "#SBATCH stray"))
    assert [str(notice).split(":")[:2] for notice in said] == [
        ["line 3", " --walltime"],
        ["line 3", " -Z"],
        ["line 4", " stray"],
    ]


def test_only_the_first_component_of_a_heterogeneous_job_is_read() -> None:
    request, said = read(script("#SBATCH -c 2", "#SBATCH hetjob", "#SBATCH -c 8"))
    assert request.cpu_milli == 2_000
    assert [(notice.line, notice.option) for notice in said] == [(3, "hetjob")]


def test_directives_of_another_system_are_named_once() -> None:
    _, said = read(script("#PBS -l walltime=1:00:00", "#PBS -N x"))
    assert [(notice.line, notice.option) for notice in said] == [(2, "#PBS")]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 1: an empty line; expected #! and an interpreter, for example #!/bin/bash"),
        ("echo hi\n", "line 1: 'echo hi'; expected #! and an interpreter, for example #!/bin/bash"),
        ("#!/bin/sh\necho\r\n", "line 2: a DOS line break; expected Unix line breaks (dos2unix converts a file)"),
        ("#!/bin/sh\n\0", "line 2: a NUL; expected text"),
        (
            "#!/bin/sh\n" + "x" * (1 << 20),
            "file: a script of more than 1 MiB; expected a shorter one that calls the rest",
        ),
    ],
)
def test_what_is_not_a_script_is_refused(text: str, fault: str) -> None:
    assert faults(text)[0] == fault


def test_all_faults_are_named_at_once_in_the_order_of_their_lines() -> None:
    text = script(
        "#SBATCH --mem=4X",
        "#SBATCH -t soon --array=5-1",
        "#SBATCH --gres=gpu:a:b:c",
        "#SBATCH --comment='open",
        "#SBATCH -N",
    )
    assert [fault.split(";")[0] for fault in faults(text, "--begin=never")] == [
        "file, --begin: 'never'",
        "line 2, --mem: '4X'",
        "line 3, --time: 'soon'",
        "line 3, --array: '5-1'",
        "line 4, --gres: 'gpu:a:b:c'",
        "line 5: ' without its end in \"--comment='open\"",
        "line 6, -N: no value",
    ]


def test_what_the_request_refuses_is_named_by_its_option() -> None:
    assert faults(script("#SBATCH --nodes=200000"))[0].startswith("line 2, --nodes: '200000'; expected")
    assert "deadline must come after the begin" in faults(script("#SBATCH --begin=tomorrow --deadline=18:00"))[0]


# --- nodes, tasks, cores, GPUs, memory --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directive", "workers", "gpu_milli", "cpu_milli", "memory_mib"),
    [
        ("", 1, 0, 1_000, 0),
        ("-N 3", 3, 0, 1_000, 0),
        ("-n 4", 1, 0, 4_000, 0),
        ("-N 2 -n 4 -c 3", 2, 0, 6_000, 0),
        ("-N 4 -n 10", 4, 0, 3_000, 0),
        ("-N 4 -n 2", 2, 0, 1_000, 0),
        ("-n 16 --ntasks-per-node=4", 4, 0, 4_000, 0),
        ("-n 16 --tasks-per-node 5", 4, 0, 4_000, 0),
        ("-N 2 --ntasks-per-node=4 -c 8 --mem=100G", 2, 0, 32_000, 102_400),
        ("--gres=gpu", 1, 1_000, 1_000, 0),
        ("--gres=gpu:4 -N 2", 2, 4_000, 1_000, 0),
        ("--gres=gpu:h100:4,tmp:10G", 1, 4_000, 1_000, 0),
        ("--gres=gpu:2(S:0-1)", 1, 2_000, 1_000, 0),
        ("--gres=gres/gpu=2", 1, 2_000, 1_000, 0),
        ("--gres=none", 1, 0, 1_000, 0),
        ("-G 8 -N 2", 2, 4_000, 1_000, 0),
        ("-G 7 -N 2", 2, 4_000, 1_000, 0),
        ("-G 8 --gpus-per-node=4", 2, 4_000, 1_000, 0),
        ("-G 8 --gpus-per-task=2 -c 5", 1, 8_000, 20_000, 0),
        ("-n 4 --gpus-per-task=h100:2", 1, 8_000, 4_000, 0),
        ("-N 2 -n 8 --gpus-per-task=1 -c 12", 2, 4_000, 48_000, 0),
        ("-N 2 --gpus-per-node=8 --gres=gpu:4", 2, 4_000, 1_000, 0),
        ("--gpus=0.25", 1, 250, 1_000, 0),
        ("--gpus-per-task=.5", 1, 500, 1_000, 0),
        ("-n 3 --gpus-per-task=.5", 1, 2_000, 3_000, 0),
        ("-G 2 --cpus-per-gpu=6 --mem-per-gpu=40G", 1, 2_000, 12_000, 81_920),
        ("-c 4 --mem-per-cpu=500M", 1, 0, 4_000, 2_000),
        ("--mem=1T", 1, 0, 1_000, 1_048_576),
        ("--mem=1500K", 1, 0, 1_000, 2),
        ("--mem=0", 1, 0, 1_000, 0),
        ("--mem=4G --mem-per-cpu=1G -c 2", 1, 0, 2_000, 2_048),
        ("-N 1k", 1024, 0, 1_000, 0),
        ("-N 1-15:4", 1, 0, 1_000, 0),
    ],
)
def test_a_worker_is_a_nodes_share(
    directive: str, workers: int, gpu_milli: int, cpu_milli: int, memory_mib: int
) -> None:
    request, _ = read(script(f"#SBATCH {directive}"))
    assert (request.workers, request.gpu_milli, request.cpu_milli, request.memory_mib) == (
        workers,
        gpu_milli,
        cpu_milli,
        memory_mib,
    )


@pytest.mark.parametrize(
    "directive",
    [
        "-n 4",
        "-N 2-4",
        "-N 4 -n 10",
        "-N 4 -n 2",
        "-G 7 -N 2",
        "-G 7 -N 2 --gpus-per-node=4",
        "--mem=0",
        "--mem=4G --mem-per-cpu=1G",
        "--mem-per-gpu=4G",
        "--gres=tmp:10G",
        "--gpus-per-node=8 --gres=gpu:4",
        "-c 4 -G 1 --cpus-per-gpu=6",
        "-p nowhere",
        "-C skylake",
        "-J a/b",
        "-o %N.out",
        "-o run_%4a.out",
    ],
)
def test_whatever_is_not_done_as_asked_is_said(directive: str) -> None:
    assert read(script(f"#SBATCH {directive}"))[1] != []


@pytest.mark.parametrize(
    "directive",
    ["-N 2 --gres=gpu:4", "-o %x-%j_%A_%a-100%%.out", "-p paris", "-C h100", "--export=ALL", "-G 8 --gpus-per-node=4"],
)
def test_what_is_done_as_asked_needs_no_word(directive: str) -> None:
    assert read(script(f"#SBATCH {directive}"))[1] == []


def test_a_gpu_type_that_the_fleet_does_not_know_is_kept() -> None:
    """The server then says that no pool has it, rather than giving another one."""
    assert read(script("#SBATCH --gres=gpu:v100:1"))[0].gpu_models == ("v100",)


def test_without_a_fleet_a_partition_is_named() -> None:
    request, said = read(script("#SBATCH -p gpu"), resolve=None)
    assert request.sites == ()
    assert str(said[0]) == "line 2: --partition: not used: no fleet is known"


# --- values one by one ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5_400),
        ("90:30", 5_430),
        ("1:30:00", 5_400),
        ("1-0", 86_400),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("1-12:30:15", 131_415),
        ("0-00:05", 300),
        ("0", 0),
        ("UNLIMITED", 0),
        ("infinite", 0),
        ("-1", 0),
    ],
)
def test_a_limit_is_read_in_all_of_slurms_forms(text: str, seconds: int) -> None:
    assert slurm_values.duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "indices", "most"),
    [
        ("5", (5,), None),
        ("0-3", (0, 1, 2, 3), None),
        ("1,3,5-9:2", (1, 3, 5, 7, 9), None),
        ("0-15:4", (0, 4, 8, 12), None),
        ("1-3,2-4", (1, 2, 3, 4), None),
        ("[0-2]%1", (0, 1, 2), 1),
        ("0-2%0", (0, 1, 2), None),
        ("2147483648", (2**31,), None),
    ],
)
def test_array_indices_are_read(text: str, indices: tuple[int, ...], most: int | None) -> None:
    assert slurm_values.array(text) == (indices, most)


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("now", (2026, 6, 16, 14, 30)),
        ("now+60", (2026, 6, 16, 14, 31)),
        ("now+1hour", (2026, 6, 16, 15, 30)),
        ("now + 2 weeks", (2026, 6, 30, 14, 30)),
        ("NOW+3days", (2026, 6, 19, 14, 30)),
        ("now-10minutes", (2026, 6, 16, 14, 20)),
        ("16:00", (2026, 6, 16, 16)),
        ("14:30", (2026, 6, 17, 14, 30)),  # no longer ahead
        ("9:15:30", (2026, 6, 17, 9, 15, 30)),
        ("4:00pm", (2026, 6, 16, 16)),
        ("12:05 AM", (2026, 6, 17, 0, 5)),
        ("noon", (2026, 6, 17, 12)),
        ("midnight", (2026, 6, 17)),
        ("teatime", (2026, 6, 16, 16)),
        ("fika", (2026, 6, 16, 15)),
        ("today", (2026, 6, 16)),
        ("tomorrow", (2026, 6, 17)),
        ("Tomorrow18:00", (2026, 6, 17, 18)),
        ("teatime tomorrow", (2026, 6, 17, 16)),
        ("2027-01-20", (2027, 1, 20)),
        ("2027-01-20T12:34", (2027, 1, 20, 12, 34)),
        ("2027-1-2T12:34:56", (2027, 1, 2, 12, 34, 56)),
        ("12/24", (2026, 12, 24)),
        ("01/20", (2027, 1, 20)),  # past this year
        ("06/16-15:00", (2026, 6, 16, 15)),
        ("06/16-14:00", (2027, 6, 16, 14)),
        ("01/20/28-08:00", (2028, 1, 20, 8)),
        ("012028", (2028, 1, 20)),
        ("1.20.28", (2028, 1, 20)),
    ],
)
def test_times_are_read_in_the_zone_of_the_reader(text: str, local: tuple[int, ...]) -> None:
    assert slurm_values.moment_s(text, NOW) == epoch(*local)


def test_tomorrow_at_eight_is_at_eight_when_the_clocks_change() -> None:
    """The night of 25 October 2026 has 25 hours in Paris."""
    evening = datetime(2026, 10, 24, 20, 0, tzinfo=PARIS)
    assert slurm_values.moment_s("8:00", evening) - int(evening.timestamp()) == 13 * 3_600


def test_a_time_in_seconds_needs_no_clock() -> None:
    assert slurm_values.moment_s("uts1800000000", None) == 1_800_000_000


@pytest.mark.parametrize(
    ("text", "conditions", "singleton", "any_of"),
    [
        (
            "afterok:20:21,afterany:23",
            [("afterok", "20", 0), ("afterok", "21", 0), ("afterany", "23", 0)],
            False,
            False,
        ),
        (
            "afterok:20:21?afternotok:23",
            [("afterok", "20", 0), ("afterok", "21", 0), ("afternotok", "23", 0)],
            False,
            True,
        ),
        ("after:5+10:6", [("after", "5", 600), ("after", "6", 0)], False, False),
        ("aftercorr:7_*", [("aftercorr", "7", 0)], False, False),
        ("afterok:7_3", [("afterok", "7_3", 0)], False, False),
        ("singleton", [], True, False),
        ("SINGLETON,afterok:3", [("afterok", "3", 0)], True, False),
        ("123:124", [("afterany", "123", 0), ("afterany", "124", 0)], False, False),
    ],
)
def test_dependencies_are_read(
    text: str, conditions: list[tuple[str, str, int]], singleton: bool, any_of: bool
) -> None:
    found = slurm_values.dependencies(text)
    assert [(each.after.value, each.job, each.delay_s) for each in found.conditions] == conditions
    assert (found.singleton, found.any_of) == (singleton, any_of)


UNREADABLE: list[tuple[Callable[[str], object], str]] = [
    *((slurm_values.duration_s, text) for text in ("", "x", "1:2:3:4", "1-", "-5", "1d", "1.5", "1-2-3", "\u0661")),
    *((slurm_values.memory_mib, text) for text in ("", "G", "-1", "1.5G", "4 G", "4GiB", "4P", "1e3")),
    *((slurm_values.nodes, text) for text in ("", "0", "4-2", "a", "1-", "-3", "1--2")),
    *((slurm_values.count, text) for text in ("", "0", "-1", "2.0", "x", "9" * 20)),
    *((slurm_values.gpus, text) for text in ("", "a100", "a:b:2", ":2", "1.5", "a100:1,v100:1", "0x2")),
    *((slurm_values.gres, text) for text in ("gpu:", "gpu:a:b:c", "gpu::2", "gpu:a100:1,gpu:v100:1", "gpu:a:")),
    *(
        (slurm_values.array, text)
        for text in ("", "a", "5-1", "1-", "0-5:0", "1:2", "0-5%", "0-5%x", "0-2147483647", "2147483649", "1,,2", "-1")
    ),
    *(
        (slurm_values.dependencies, text)
        for text in ("", "afterok", "afterok:", "soon:5", "afterok:5,afterok:6?afterok:7", "afterok:5+10", "after:0")
    ),
    *(
        (lambda text: slurm_values.moment_s(text, NOW), text)
        for text in (
            "",
            "soon",
            "25:00",
            "12:60",
            "13/45",
            "2026-02-30",
            "now+1fortnight",
            "now+",
            "16",
            "13:00pm",
            "T",
        )
    ),
]


@pytest.mark.parametrize(("reader", "text"), UNREADABLE)
def test_what_is_not_of_its_form_is_refused(reader: Callable[[str], object], text: str) -> None:
    with pytest.raises(Unreadable):
        reader(text)


def test_an_array_that_is_too_large_is_refused_before_it_is_written_out() -> None:
    with pytest.raises(Unreadable, match="10,000"):
        slurm_values.array(f"0-{MOST_ARRAY_TASKS}")
    with pytest.raises(Unreadable, match="10,000"):
        slurm_values.array(",".join(["0-2147483647"] * 1_000))


def test_a_task_of_an_array_is_found_by_the_reader() -> None:
    text = script("#SBATCH -d afterok:17_3")
    request, _ = read(text, job_id=lambda label: JobId(20) if label == "17_3" else None)
    assert request.dependencies == (Dependency(after=After.OK, job_id=20),)
    assert faults(text) == ["line 2, --dependency: 17_3, which is not known; expected a job or an array"]


def test_a_deadline_that_is_past_is_refused() -> None:
    assert "still to come" in faults(script("#SBATCH --deadline=2026-06-16T14:00"))[0]


# --- environment, folder, files, commands -----------------------------------------------------------------------------

HERE = {"HOME": "/h", "EDITOR": "vi", "HF_TOKEN": "s", "WATTEAU_TOKEN": "s", "SLURM_X": "1", "BASH_FUNC_m%%": "() {"}


@pytest.mark.parametrize(
    ("export", "environment"),
    [
        ("", {"HOME": "/h", "EDITOR": "vi", "SLURM_X": "1"}),
        ("--export=ALL", {"HOME": "/h", "EDITOR": "vi", "SLURM_X": "1"}),
        ("--export=NONE", {"SLURM_X": "1"}),
        ("--export=NIL", {"SLURM_X": "1"}),
        ("--export=EDITOR,A=b=c", {"EDITOR": "vi", "A": "b=c"}),
        ("--export=ALL,A=1", {"HOME": "/h", "EDITOR": "vi", "SLURM_X": "1", "A": "1"}),
        ("--export=ALL,EDITOR=emacs", {"HOME": "/h", "EDITOR": "vi", "SLURM_X": "1"}),
        ("--export=ALL,HF_TOKEN", {"HOME": "/h", "EDITOR": "vi", "SLURM_X": "1", "HF_TOKEN": "s"}),
        ("--export=WATTEAU_TOKEN,EDITOR", {"EDITOR": "vi"}),
        ("--export=NOT_THERE", {}),
        ("--export=1A=x", {}),
    ],
)
def test_the_environment_is_passed_on_as_asked(export: str, environment: dict[str, str]) -> None:
    assert read(script(f"#SBATCH {export}"), environment=HERE)[0].environment == environment


def test_a_secret_that_is_not_passed_on_is_named() -> None:
    _, said = read(script(), environment=HERE)
    assert [str(notice) for notice in said] == [
        "--export: HF_TOKEN: not passed on; to pass it, name it: --export=ALL,HF_TOKEN"
    ]


@pytest.mark.parametrize("name", ["HF_TOKEN", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "WANDB_API_KEY"])
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["PATH", "TOKENIZERS_PARALLELISM", "HOME", "PWD", "OLDPWD", "XDG_SESSION_ID"])
def test_most_names_are_no_secrets(name: str) -> None:
    assert not is_secret(name)


def test_a_command_carries_its_options_beside_it() -> None:
    request, said = read_command(
        ["python", "train.py", "--mem=1"],
        options=["--mem=2G", "-G", "1"],
        now=NOW,
        workdir="/w",
        environment={"A": "b"},
    )
    assert request.command == ("python", "train.py", "--mem=1")
    assert (request.memory_mib, request.gpu_milli, request.name, request.workdir) == (2_048, 1_000, "python", "/w")
    assert request.environment == {"A": "b"}
    assert said == []


def test_a_line_of_shell_is_wrapped() -> None:
    request, _ = read_command([], options=["--wrap=echo a | tr a b"])
    assert (request.script, request.name) == ("#!/bin/sh\necho a | tr a b\n", "wrap")
    with pytest.raises(InputError, match="one of the two"):
        read_command(["true"], options=["--wrap=true"])


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(InputError, match="give either a command or a script"):
        read_command([])


def test_none_as_a_file_is_the_null_device() -> None:
    request, _ = read(script("#SBATCH -o none -e NONE"))
    assert (request.stdout, request.stderr) == ("/dev/null", "/dev/null")


def test_options_have_one_meaning_each() -> None:
    names = [option.name for option in OPTIONS]
    letters = [option.short for option in OPTIONS if option.short]
    assert len(names) == len(set(names))
    assert len(letters) == len(set(letters))
    assert all(bool(option.help) != bool(option.why_not) for option in OPTIONS)


# --- properties -------------------------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from([f"--{option.name}" for option in OPTIONS]),
    st.sampled_from([f"-{option.short}" for option in OPTIONS if option.short]),
    st.builds("--{}={}".format, st.sampled_from([option.name for option in OPTIONS]), st.text(max_size=12)),
    st.builds(
        "--{}={}".format,
        st.sampled_from([option.name for option in OPTIONS if option.help]),
        st.text(alphabet="0123456789-:,%+?_.kKMGTgpuafternowokTUNLIMITED/= ", max_size=16),
    ),
    st.text(max_size=12),
)


@given(st.lists(st.lists(WORDS, max_size=4).map(" ".join), max_size=8), st.lists(WORDS, max_size=4))
@example(["--dependency=after:1+999999"], [])
@example(["--nodes=9999999m", "--mem=999999999999T"], [])
def test_any_script_is_read_or_refused_with_faults(lines: list[str], options: list[str]) -> None:
    text = script(*(f"#SBATCH {line}" for line in lines))
    try:
        request, said = read(text, *options, environment={"A": "b"})
    except InputError as error:
        _names_its_faults(error)
    else:
        assert request.script == text
        assert all(notice.option and notice.text for notice in said)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_faults(text: str) -> None:
    for candidate in (text, f"#!/bin/sh\n{text}", f"#!/bin/sh\n#SBATCH {text}"):
        try:
            read(candidate)
        except InputError as error:
            _names_its_faults(error)


def _names_its_faults(error: InputError) -> None:
    assert error.faults
    assert all(fault.expected for fault in error.faults)


NAME = st.text(alphabet=string.ascii_letters + string.digits + "._- ", min_size=1, max_size=30).filter(
    lambda text: text.strip() == text
)


@given(
    name=NAME,
    nodes=st.integers(1, 500),
    tasks_each=st.integers(1, 64),
    cores=st.integers(1, 64),
    gpus=st.integers(0, 16),
    memory_mib=st.integers(1, 4_000_000),
    limit_s=st.integers(1, 30 * 86_400),
    indices=st.sets(st.integers(0, 5_000), min_size=1, max_size=50),
    jobs=st.lists(st.tuples(st.sampled_from(After), st.integers(1, 2**59)), max_size=5),
    any_of=st.booleans(),
    hold=st.booleans(),
    at_s=st.integers(1_800_000_000, 2_500_000_000),
)
def test_what_is_written_as_directives_is_read_again(
    name: str,
    nodes: int,
    tasks_each: int,
    cores: int,
    gpus: int,
    memory_mib: int,
    limit_s: int,
    indices: set[int],
    jobs: list[tuple[After, int]],
    any_of: bool,
    hold: bool,
    at_s: int,
) -> None:
    days, rest = divmod(limit_s, 86_400)
    at = datetime.fromtimestamp(at_s, PARIS)
    text = script(
        f'#SBATCH --job-name="{name}" --nodes={nodes} -n {nodes * tasks_each} -c{cores}',
        f"#SBATCH --gres=gpu:{gpus} --mem={memory_mib}",
        f"#SBATCH --time={days}-{rest // 3_600}:{rest // 60 % 60}:{rest % 60}",
        f"#SBATCH --array={','.join(map(str, indices))}%3",
        *([f"#SBATCH -d {('?' if any_of else ',').join(f'{kind}:{job}' for kind, job in jobs)}"] if jobs else []),
        *(["#SBATCH -H"] if hold else []),
        f"#SBATCH --begin={at:%Y-%m-%dT%H:%M:%S}",
    )
    request, said = read(text)
    assert said == []
    assert request.name == name
    assert (request.workers, request.cpu_milli) == (nodes, tasks_each * cores * 1_000)
    assert (request.gpu_milli, request.memory_mib, request.time_limit_s) == (gpus * 1_000, memory_mib, limit_s)
    assert request.array is not None
    assert (request.array.indices, request.array.most_running) == (tuple(sorted(indices)), 3)
    assert [(each.after, each.job_id) for each in request.dependencies] == jobs
    assert request.dependency_mode == ("any" if any_of and len(jobs) > 1 else "all")
    assert request.held is hold
    # The hour that the clocks repeat has two moments for one time.
    assert request.begin_s in (at_s, at_s - 3_600)
