"""The batch script of an attempt, run as a node runs it: who runs the command, how it ends, and what it leaves."""

import ast
import marshal
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engines.kits import eventually, launch
from watteau.domain.fleet import SlurmAccess
from watteau.domain.requests import Outcome
from watteau.engines.contract import Launch, WorkerPlace
from watteau.engines.slurm import attempt
from watteau.engines.slurm.marks import Marks, folder_of
from watteau.engines.slurm.script import batch_script, need_of


@dataclass
class Node:
    """Runs batch scripts as slurmd does: the script is a file, and its process group gets the signals."""

    ground: Path

    @property
    def base(self) -> str:
        return str(self.ground / "shared")

    def begin(self, launch: Launch, job_id: int = 12, restarts: int = 0, **more: str) -> subprocess.Popen[bytes]:
        spool = self.ground / f"slurm_script.{job_id}.{restarts}.{time.monotonic_ns()}"
        spool.write_text(batch_script(launch, folder_of(self.base, launch.name)))
        spool.chmod(0o700)
        environment = {
            "PATH": os.environ["PATH"],
            "SLURM_JOB_ID": str(job_id),
            "SLURM_RESTART_COUNT": str(restarts),
            "SLURM_JOB_NODELIST": "n1",
        }
        return subprocess.Popen([spool], env=environment | more, start_new_session=True)

    def run(self, *command: str, **changes: Any) -> tuple[int, dict[str, Any]]:
        """Run an attempt to its end; the exit status as Python gives it, and the mark of its end."""
        process = self.begin(launch(1, *command, **changes))
        return process.wait(timeout=30), self.mark("ended")

    def mark(self, which: str, name: str = "watteau-1-1") -> dict[str, Any]:
        said: dict[str, Any] = ast.literal_eval((self.folder(name) / which).read_text())
        return said

    def folder(self, name: str = "watteau-1-1") -> Path:
        return Path(folder_of(self.base, name))

    def log(self) -> str:
        return (self.folder() / "stdout").read_text()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "shared").mkdir()
    return Node(tmp_path)


def test_the_program_is_one_for_old_pythons_too() -> None:
    """RHEL 8 has 3.6 for its own use; what these files import has been there since before."""
    for text in (Path(attempt.__file__).read_text(), batch_script(launch(1, "true"), "/shared/000000/watteau-1-1")):
        ast.parse(text, feature_version=(3, 6))


@pytest.mark.parametrize("start", [attempt._start, attempt._fork], ids=["posix_spawn", "fork"])
def test_a_process_begins_as_from_a_shell_whatever_python_the_node_has(
    start: Callable[[str, list[str], dict[str, str], int, int], int], tmp_path: Path
) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    script = "read none || echo $A; echo oops >&2; kill -PIPE $$"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with out.open("w") as its_out, err.open("w") as its_err:
            streams = its_out.fileno(), its_err.fileno()
            pid = start("/bin/sh", ["sh", "-c", script], {"A": "b c"}, *streams)
            _, status = os.waitpid(pid, 0)
            blocked = start("/bin/sh", ["sh", "-c", "grep SigBlk /proc/self/status"], dict(os.environ), *streams)
            os.waitpid(blocked, 0)
            with pytest.raises(FileNotFoundError):
                start(str(tmp_path / "none"), ["none"], {}, *streams)
            with pytest.raises(PermissionError):
                start(str(out), ["none"], {}, *streams)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert os.WTERMSIG(status) == signal.SIGPIPE  # which Python itself ignores
    assert (out.read_text(), err.read_text()) == ("b c\nSigBlk:\t0000000000000000\n", "oops\n")


def test_what_was_compiled_is_kept_and_read_by_the_next_attempt(node: Node) -> None:
    node.run("true")
    (kept,) = Path(node.base).glob(".attempt-*")
    before = kept.stat()
    assert before.st_mode & 0o777 == 0o600
    assert node.begin(launch(2, "sh", "-c", "exit 3")).wait(timeout=30) == 3
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xe3\x00", b"N", b"i\x01\x00\x00\x00"])
def test_what_is_kept_and_cannot_be_read_is_made_anew(node: Node, content: bytes) -> None:
    node.run("true")
    (kept,) = Path(node.base).glob(".attempt-*")
    whole = kept.read_bytes()
    kept.write_bytes(content)
    assert node.begin(launch(2, "sh", "-c", "exit 3")).wait(timeout=30) == 3
    assert kept.read_bytes() == whole


def test_what_others_could_have_written_is_not_run(node: Node) -> None:
    node.run("true")
    (kept,) = Path(node.base).glob(".attempt-*")
    kept.write_bytes(marshal.dumps(compile("import os; os._exit(99)", "attempt.py", "exec")))
    kept.chmod(0o660)
    assert node.begin(launch(2, "sh", "-c", "exit 3")).wait(timeout=30) == 3
    assert kept.stat().st_mode & 0o777 == 0o600


def test_where_nothing_can_be_kept_the_program_runs_all_the_same(node: Node) -> None:
    program = batch_script(launch(1, "sh", "-c", "exit 3"), "/proc/000000/watteau-1-1")
    (node.ground / "script").write_text(program)
    done = subprocess.run(["sh", node.ground / "script"], timeout=30, check=False)
    assert done.returncode == attempt.CANNOT_MARK


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("true", 0, {"exit_code": 0}),
        ("exit 3", 3, {"exit_code": 3}),
        ("exit 137", 137, {"exit_code": 137}),
        ("kill -9 $$", -9, {"signal": 9}),
        ("kill -2 $$", -2, {"signal": 2}),
        ("kill -11 $$", -11, {"signal": 11}),
    ],
)
def test_the_exit_status_is_told_to_slurm_and_written_down(
    node: Node, script: str, status: int, said: dict[str, int]
) -> None:
    found, ended = node.run("sh", "-c", script)
    assert found == status
    assert {key: ended[key] for key in ("exit_code", "signal") if key in ended} == said
    assert ended["limited"] is False


def test_words_reach_the_command_as_they_are(node: Node) -> None:
    words = ["a b", "it's", '"$HOME"', "line\nline", "", "é", "\\", "'''", "%s"]
    assert node.run("printf", "[%s]", *words)[0] == 0
    assert node.log() == "".join(f"[{word}]" for word in words)


def test_a_script_runs_under_its_own_interpreter_with_its_arguments(node: Node) -> None:
    script = "#!/usr/bin/env python3\nimport sys\nprint(sys.argv[1:], '''x''')"
    assert node.run(script=script, arguments=("x y", "z"))[0] == 0
    assert node.log() == "['x y', 'z'] x\n"


def test_what_a_job_sees_is_its_own(node: Node) -> None:
    asked = {"A": "1\n2", "PATH": "/usr/bin:/bin", "WATTEAU_JOB_ID": "9", "CUDA_VISIBLE_DEVICES": "7", "SLURM_X": "1"}
    changes: dict[str, Any] = {"array_id": 3, "array_index": 4, "number": 2, "name": "watteau-1-2"}
    assert node.begin(launch(1, "env", "-0", environment=asked, **changes)).wait(timeout=30) == 0
    seen = dict(each.split("=", 1) for each in (node.folder("watteau-1-2") / "stdout").read_text().split("\0") if each)
    assert (seen["A"], seen["PATH"], seen["CUDA_VISIBLE_DEVICES"]) == ("1\n2", "/usr/bin:/bin", "")
    assert seen["WATTEAU_JOB_ID"] == "1"
    assert (seen["WATTEAU_ARRAY_INDEX"], seen["SLURM_ARRAY_TASK_ID"]) == ("4", "4")
    assert (seen["WATTEAU_ATTEMPT"], seen["SLURM_RESTART_COUNT"], seen["SLURM_JOB_NAME"]) == ("2", "1", "train")
    assert (seen["SLURM_JOB_ID"], seen["WATTEAU_NODES"]) == ("12", "n1")
    assert seen["HOME"]
    assert "SLURM_X" not in seen


def test_slurms_gpus_are_left_as_they_are(node: Node) -> None:
    attempt = launch(1, "sh", "-c", "echo $CUDA_VISIBLE_DEVICES", gpu_milli=2_000)
    assert node.begin(attempt, CUDA_VISIBLE_DEVICES="4,5").wait(timeout=30) == 0
    assert node.log() == "4,5\n"


def test_signals_of_a_job_are_at_their_defaults(node: Node) -> None:
    node.run("grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status")
    # 32 and 33 are the C library's own: nobody else may set them, and the shell that began this may ignore one.
    assert [int(mask, 16) & ~(0b11 << 31) for mask in node.log().split()[1::2]] == [0, 0]


@pytest.mark.parametrize(
    ("changes", "status", "code", "cause"),
    [
        ({"command": ("nosuch",)}, 127, 127, "'nosuch' was not found in PATH"),
        ({"command": ("/nosuch",)}, 127, 127, "'/nosuch' was not found"),
        ({"command": ("/etc",)}, 126, 126, "it is a folder"),
        ({"script": "#!/nosuch\n"}, 126, 126, "interpreter"),
        ({"command": ("true",), "workdir": "/nosuch"}, 1, None, "working directory '/nosuch' cannot be used"),
        ({"command": ("true",), "stdout": "/nosuch/x"}, 1, None, "folder '/nosuch' for stdout does not exist"),
        ({"command": ("true",), "stderr": "/etc"}, 1, None, "'/etc' for stderr cannot be written"),
    ],
)
def test_what_cannot_be_started_says_why(
    node: Node, changes: dict[str, Any], status: int, code: int | None, cause: str
) -> None:
    found, ended = node.run(**changes)
    assert (found, ended["exit_code"]) == (status, code)
    assert cause in ended["cause"]


# ---- limits and signals


def test_the_time_limit_is_kept_to_the_second_and_told_apart(node: Node) -> None:
    began = time.monotonic()
    status, ended = node.run("sleep", "60", time_limit_s=1)
    assert 1.0 <= time.monotonic() - began < 10
    assert (status, ended["limited"], ended["signal"]) == (-15, True, 15)


def test_who_ignores_the_polite_signal_is_killed_after_the_grace(node: Node) -> None:
    status, ended = node.run("sh", "-c", "trap '' TERM; sleep 60; sleep 60", time_limit_s=1, grace_s=1)
    assert (status, ended["limited"], ended["signal"]) == (-9, True, 9)


def test_who_ends_well_after_the_polite_signal_timed_out_all_the_same(node: Node) -> None:
    status, ended = node.run("sh", "-c", "trap 'echo saved; exit 0' TERM; sleep 60 & wait", time_limit_s=1)
    assert (status, ended["limited"], ended["exit_code"], node.log()) == (0, True, 0, "saved\n")


def test_a_signal_that_slurm_sends_to_all_is_not_sent_twice_and_the_end_is_the_commands(node: Node) -> None:
    script = "trap 'echo got' TERM; echo on; sleep 1 & wait; wait; exit 5"
    process = node.begin(launch(1, "sh", "-c", script))
    eventually(lambda: (node.folder() / "stdout").exists() and node.log() == "on\n", "it runs")
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 5
    assert node.log() == "on\ngot\n"


def test_a_signal_that_slurm_sends_to_the_batch_shell_alone_reaches_the_command(node: Node) -> None:
    script = "trap 'echo got; exit 6' USR1; echo on; while :; do sleep 0.1; done"
    process = node.begin(launch(1, "sh", "-c", script))
    eventually(lambda: (node.folder() / "stdout").exists() and node.log() == "on\n", "it runs")
    os.kill(process.pid, signal.SIGUSR1)
    assert process.wait(timeout=30) == 6


# ---- the claim


def test_of_many_jobs_of_one_name_one_runs_the_command(node: Node) -> None:
    attempt_ = launch(1, "sh", "-c", "echo $SLURM_JOB_ID; sleep 0.5")
    processes = [node.begin(attempt_, job_id) for job_id in range(20, 28)]
    statuses = [process.wait(timeout=30) for process in processes]
    assert sorted(statuses) == [0] + [attempt.TAKEN] * 7
    assert node.log() == f"{20 + statuses.index(0)}\n"
    assert node.mark("claim")["job"] == 20 + statuses.index(0)


@pytest.mark.parametrize("restarts", [0, 1])
def test_the_same_job_runs_it_no_second_time(node: Node, restarts: int) -> None:
    assert node.run("echo", "once")[0] == 0
    again = node.begin(launch(1, "echo", "twice"), 12, restarts)
    assert again.wait(timeout=30) == attempt.TAKEN
    assert node.log() == "once\n"
    assert node.mark("ended")["exit_code"] == 0


def test_what_was_stopped_before_it_began_never_begins(node: Node) -> None:
    marks = Marks(SlurmAccess(user="x", folder=node.base, folder_here=node.base), None)  # type: ignore[arg-type]
    assert marks.stop_before("watteau-1-1", Outcome.CANCELLED, 5)
    assert not marks.stop_before("watteau-1-1", Outcome.CANCELLED, 6)
    assert node.begin(launch(1, "echo", "x")).wait(timeout=30) == attempt.TAKEN
    assert [each.name for each in node.folder().iterdir()] == ["claim"]


def test_what_began_is_not_stopped_before(node: Node) -> None:
    marks = Marks(SlurmAccess(user="x", folder=node.base, folder_here=node.base), None)  # type: ignore[arg-type]
    node.run("true")
    assert not marks.stop_before("watteau-1-1", Outcome.CANCELLED, 5)


def test_a_stop_and_a_start_at_the_same_moment_have_one_winner(node: Node) -> None:
    marks = Marks(SlurmAccess(user="x", folder=node.base, folder_here=node.base), None)  # type: ignore[arg-type]
    stopped: list[bool] = []
    for job_id in range(1, 9):
        name = f"watteau-{job_id}-1"
        attempt_ = launch(job_id, "true")
        stop = threading.Thread(target=lambda name=name: stopped.append(marks.stop_before(name, Outcome.CANCELLED, 5)))
        process = node.begin(attempt_)
        time.sleep(0.005 * job_id)
        stop.start()
        stop.join()
        assert process.wait(timeout=30) == (attempt.TAKEN if stopped[-1] else 0)


def test_a_folder_that_cannot_be_written_is_said_by_the_exit_status(node: Node) -> None:
    Path(node.base).rmdir()
    Path(node.base).write_text("a file")
    assert node.begin(launch(1, "true")).wait(timeout=30) == attempt.CANNOT_MARK


# ---- output


def test_the_first_attempt_empties_a_file_that_was_asked_for_and_later_ones_add(node: Node) -> None:
    out = node.ground / "7-train.out"
    out.write_text("of another time\n")
    for number in (1, 2):
        attempt_ = launch(
            7, "echo", f"{number}", number=number, name=f"watteau-7-{number}", stdout=f"{node.ground}/%j-%x.out"
        )
        node.begin(attempt_).wait(timeout=30)
    assert out.read_text() == "1\n2\n"
    assert node.mark("began", "watteau-7-2")["stdout"] == [str(out), 2]
    assert node.mark("ended", "watteau-7-2")["sizes"] == {"stdout": 4}


def test_output_and_errors_may_go_apart(node: Node) -> None:
    node.run("sh", "-c", "echo e >&2; echo o", stderr="err.txt")
    assert node.log() == "o\n"
    assert (node.folder() / "work" / "err.txt").read_text() == "e\n"


# ---- what is asked of Slurm


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "cpus", "memory"),
    [
        (("a",), (1,), 2, 3, 100),
        (("a", "b"), (1, 1), 2, 3, 100),
        (("a", "a"), (2,), 4, 5, 200),
        (("b", "a", "a"), (2, 1), 4, 5, 200),
        (("", ""), (1, 1), 2, 3, 100),
    ],
)
def test_workers_become_nodes(
    nodes: tuple[str, ...], workers: tuple[int, ...], gpus: int, cpus: int, memory: int
) -> None:
    need = need_of(
        launch(
            1,
            "x",
            places=tuple(WorkerPlace(node, ()) for node in nodes),
            gpu_milli=2_000,
            cpu_milli=2_500,
            memory_mib=100,
        )
    )
    assert (need.workers, need.gpus, need.cpus, need.memory_mib) == (workers, gpus, cpus, memory)
