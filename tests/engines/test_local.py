"""What only the local engine has: real processes, a spool on a real disk, and everything that can be killed."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines.kits import NODE, Listener, eventually, launch, now_ms, whole_log
from watteau.domain.requests import Outcome
from watteau.engines import supervisor
from watteau.engines.contract import (
    EngineUnreachable,
    LaunchRefused,
    NodeCapacity,
    Observation,
    Seen,
    WorkerPlace,
    attempt_name,
)
from watteau.engines.local import LocalEngine, expand_path

ROOT = Path(__file__).resolve().parents[2]
NAME = "watteau-1-1"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "spool"
    yield folder
    for attempt in folder.glob("watteau-*"):  # leave nothing running
        pid = _supervisor_of(attempt)
        if pid:
            os.kill(pid, signal.SIGTERM)


@pytest.fixture
def engine(spool: Path) -> Iterator[LocalEngine]:
    opened = LocalEngine(spool, NODE, now_ms)
    yield opened
    opened.close()


@pytest.fixture
def listener(engine: LocalEngine) -> Listener:
    return Listener(engine)


def _supervisor_of(attempt: Path) -> int | None:
    try:
        lock = os.open(attempt / supervisor.LOCK_FILE, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        return supervisor.lock_holder(lock)
    finally:
        os.close(lock)


def _lives(pid: int) -> bool:
    return any(found == pid and state != "Z" for found, state, _, _, _ in supervisor.processes())


def _numbers(file: Path, count: int) -> list[int]:
    """Process numbers that a job writes to a file, a line each."""
    eventually(lambda: file.exists() and file.read_text().count("\n") == count, f"{file.name} has {count} lines")
    return [int(line) for line in file.read_text().split()]


# ---- exactly once --------------------------------------------------------------------------------------------------


class _Servers:
    """Servers in processes of their own, on one spool."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.ledger = spool.parent / "ledger"
        self.ledger.touch()
        self._forker = subprocess.Popen(
            [sys.executable, "-m", "tests.engines.servers", str(spool), str(self.ledger)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(["src", ".", *filter(None, sys.path)])},
        )

    def fork(self, first: int, last: int) -> int:
        assert self._forker.stdin is not None
        assert self._forker.stdout is not None
        self._forker.stdin.write(f"{first} {last}\n")
        self._forker.stdin.flush()
        return int(self._forker.stdout.readline())

    def close(self) -> None:
        self._forker.communicate()

    def run_count(self) -> Counter[int]:
        return Counter(int(line) for line in self.ledger.read_text().split())

    def see_all_end(self, last: int) -> list[Observation]:
        engine = LocalEngine(self.spool, NODE, now_ms)
        listener = Listener(engine)
        names = [attempt_name(job_id, 1) for job_id in range(1, last)]
        said = engine.adopt(names)
        found = [each if each.seen is Seen.ENDED else listener.ended(each.name) for each in said]
        engine.close()
        return found


@pytest.fixture
def servers(spool: Path) -> Iterator[_Servers]:
    forked = _Servers(spool)
    yield forked
    forked.close()


def test_servers_killed_at_any_moment_run_every_attempt_exactly_once(servers: _Servers) -> None:
    rounds, jobs_a_round, chance = 60, 3, random.Random("servers")
    for number in range(rounds):
        pid = servers.fork(max(1, (number - 1) * jobs_a_round), 1 + (number + 1) * jobs_a_round)
        time.sleep(chance.uniform(0.0, 0.06))  # the random moment, not a wait for anything
        os.kill(pid, signal.SIGKILL)
    last = 1 + rounds * jobs_a_round
    survivor = servers.fork(1, last)
    eventually(lambda: len(servers.run_count()) == last - 1, "every attempt runs")
    os.kill(survivor, signal.SIGKILL)
    ended = servers.see_all_end(last)
    assert {said.outcome for said in ended} == {Outcome.COMPLETED}
    assert servers.run_count() == Counter(range(1, last))
    engine = LocalEngine(servers.spool, NODE, now_ms)
    assert {whole_log(engine, said.name) for said in ended} == {b"done\n"}
    engine.close()


def test_engines_of_several_processes_on_one_spool_run_every_attempt_exactly_once(servers: _Servers) -> None:
    last = 41
    pids = [servers.fork(1, last) for _ in range(3)]
    eventually(lambda: len(servers.run_count()) == last - 1, "every attempt runs")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert {said.outcome for said in servers.see_all_end(last)} == {Outcome.COMPLETED}
    assert servers.run_count() == Counter(range(1, last))


def test_supervisors_killed_at_any_moment_run_an_attempt_at_most_once_and_leave_nothing(
    engine: LocalEngine, spool: Path, tmp_path: Path
) -> None:
    listener, ledger, chance = Listener(engine), tmp_path / "ledger", random.Random("supervisors")
    ledger.touch()
    for job_id in range(1, 41):
        engine.start(launch(job_id, "sh", "-c", f"echo {job_id} >>{ledger}; sleep 600 & exec sleep 600"))
        time.sleep(chance.uniform(0.0, 0.06))
        pid = _supervisor_of(spool / attempt_name(job_id, 1))
        if pid:
            os.kill(pid, signal.SIGKILL)
        else:  # it has no supervisor yet
            engine.stop(attempt_name(job_id, 1), Outcome.CANCELLED)
    for job_id in range(1, 41):
        engine.stop(attempt_name(job_id, 1), Outcome.CANCELLED)  # those that a second supervisor took on
        assert listener.ended(attempt_name(job_id, 1)).outcome in (Outcome.LOST, Outcome.CANCELLED)
    assert set(Counter(ledger.read_text().split()).values()) <= {1}  # on a slow machine none may have come to run
    marks = [f"WATTEAU_ATTEMPT_DIR={spool}/{attempt_name(job_id, 1)}".encode() for job_id in range(1, 41)]
    assert not [pid for pid, mark in _marked() if mark in marks]
    cgroups = [json.loads(file.read_text()).get("cgroup") for file in spool.glob(f"*/{supervisor.LAUNCH_FILE}")]
    assert not [folder for folder in cgroups if folder and Path(folder).exists()]


def _marked() -> Iterator[tuple[int, bytes]]:
    for pid, state, _, _, _ in supervisor.processes():
        if state != "Z":
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                yield from ((pid, word) for word in words if word.startswith(b"WATTEAU_ATTEMPT_DIR="))


def test_a_second_supervisor_does_nothing_whenever_it_comes(spool: Path, tmp_path: Path) -> None:
    """Beside the first, after it was killed and nobody has noticed yet, and after the end."""
    ledger = tmp_path / "ledger"

    def supervise() -> None:
        subprocess.run([sys.executable, "-I", "-S", supervisor.__file__, str(spool / NAME)], check=True, timeout=20)

    engine = LocalEngine(spool, NODE, now_ms)
    engine.start(launch(1, "sh", "-c", f"echo run >>{ledger}; exec sleep 600"))
    eventually(lambda: ledger.exists() and ledger.read_text(), "the job runs")
    engine.close()
    supervise()
    holder = _supervisor_of(spool / NAME)
    assert holder
    os.kill(holder, signal.SIGKILL)
    eventually(lambda: _supervisor_of(spool / NAME) is None, "the supervisor is gone")
    supervise()
    engine = LocalEngine(spool, NODE, now_ms)
    assert engine.adopt([NAME])[0].outcome is Outcome.LOST
    engine.close()
    supervise()
    assert ledger.read_text() == "run\n"


def test_a_supervisor_that_cannot_start_three_times_is_lost(
    engine: LocalEngine, listener: Listener, spool: Path
) -> None:
    """Not a patch of our code: its program is damaged on the disk."""
    for program in spool.glob(".supervisor-*"):
        program.write_bytes(b"not a program")
    ended = listener.run(launch(1, "true"))
    assert ended.outcome is Outcome.LOST
    assert "could not be started" in ended.cause
    assert (spool / NAME / supervisor.ERRORS_FILE).read_text()


def test_what_dead_servers_were_staging_is_removed(engine: LocalEngine, spool: Path) -> None:
    old = spool / ".staging-0123456789abcdef"
    (old / "deep").mkdir(parents=True)
    other = LocalEngine(spool, NODE, now_ms)
    assert not old.exists()
    assert len(list(spool.glob(".staging-*"))) == 2, "those of the living are left alone"
    other.close()


@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 255))
def test_a_damaged_slot_is_an_empty_one(noise: bytes, at: int, value: int) -> None:
    """Never another content: a supervisor may be killed, or the power cut, in the middle of a write."""
    descriptor = os.memfd_create("record")
    try:
        os.ftruncate(descriptor, supervisor.RECORD_BYTES)
        said: dict[str, Any] = {"cause": noise.decode("latin-1"), "exit_code": 3}
        supervisor.write_slot(descriptor, supervisor.ENDED, said)
        assert supervisor.read_slots(descriptor) == (None, None, None, said)
        begins = supervisor.RECORD_BYTES // 4 * supervisor.ENDED
        os.pwrite(descriptor, bytes([value]), begins + at)
        assert supervisor.read_slots(descriptor)[supervisor.ENDED] in (None, said)
    finally:
        os.close(descriptor)


# ---- ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "outcome", "exit_code", "signal_number", "cause"),
    [
        (("sh", "-c", "exit 3"), Outcome.FAILED, 3, None, "It exited with code 3."),
        (("sh", "-c", "kill -SEGV $$"), Outcome.FAILED, None, signal.SIGSEGV, "ended by the signal SIGSEGV"),
        (("sh", "-c", "kill -KILL $$"), Outcome.FAILED, None, signal.SIGKILL, "Watteau did not send it"),
        (("no-such-command",), Outcome.FAILED, 127, None, "'no-such-command' was not found in PATH"),
        (("/no/such/command",), Outcome.FAILED, 127, None, "'/no/such/command' was not found."),
        (("/etc/passwd",), Outcome.FAILED, 126, None, "permission denied"),
        (("/etc",), Outcome.FAILED, 126, None, "it is a folder"),
        (("/etc/passwd/x",), Outcome.FAILED, 127, None, "was not found"),
        (("x" * 5000,), Outcome.FAILED, 126, None, "File name too long"),
        (("echo", *["x" * 131_071] * 40), Outcome.FAILED, 126, None, "larger than the kernel takes"),
    ],
)
def test_an_end_says_what_it_was(
    listener: Listener,
    command: tuple[str, ...],
    outcome: Outcome,
    exit_code: int | None,
    signal_number: int | None,
    cause: str,
) -> None:
    ended = listener.run(launch(1, *command))
    assert (ended.outcome, ended.exit_code, ended.signal) == (outcome, exit_code, signal_number)
    assert cause in ended.cause
    assert len(ended.cause) < 1_100


@pytest.mark.parametrize(
    ("script", "exit_code", "cause"),
    [
        ("#!/no/such/interpreter\n", 126, "The interpreter '/no/such/interpreter'"),
        ("#!/bin/sh\r\necho hi\r\n", 126, "Windows line ends"),
        ("echo no first line\n", 126, "neither a program for this machine nor a script"),
    ],
)
def test_a_script_without_a_usable_interpreter_says_so(
    listener: Listener, script: str, exit_code: int, cause: str
) -> None:
    ended = listener.run(launch(1, script=script))
    assert (ended.outcome, ended.exit_code) == (Outcome.FAILED, exit_code)
    assert cause in ended.cause


def test_a_script_is_run_as_it_is_with_its_arguments(engine: LocalEngine, listener: Listener, spool: Path) -> None:
    script = '#!/bin/sh\nprintf "%s|" "$@" \'é;$(x)\'\n'
    assert listener.run(launch(1, script=script, arguments=("a b", "$HOME", ";"))).exit_code == 0
    assert whole_log(engine, NAME).decode() == "a b|$HOME|;|é;$(x)|"
    assert (spool / NAME / "script").stat().st_mode & 0o777 == 0o700
    assert (spool / NAME).stat().st_mode & 0o777 == 0o700


def test_no_shell_reads_a_command(engine: LocalEngine, listener: Listener) -> None:
    listener.run(launch(1, "echo", "$(id)", "; id", "`id`", "a\nb"))
    assert whole_log(engine, NAME) == b"$(id) ; id `id` a\nb\n"


def test_use_is_measured(listener: Listener) -> None:
    ended = listener.run(launch(1, sys.executable, "-c", "x = bytearray(100 << 20); sum(range(3_000_000))"))
    assert ended.peak_memory_mib is not None
    assert ended.cpu_ms is not None
    assert 100 <= ended.peak_memory_mib < 200
    assert ended.cpu_ms >= 10


def test_the_polite_signal_is_honoured(engine: LocalEngine, listener: Listener) -> None:
    script = "#!/bin/sh\ntrap 'echo saved; exit 0' TERM\necho ready\nwhile :; do sleep 0.02; done\n"
    engine.start(launch(1, script=script, grace_s=60))
    eventually(lambda: engine.read_log(NAME, "stdout", 0, 99).content, "the job is ready")
    engine.stop(NAME, Outcome.CANCELLED)
    ended = listener.ended(NAME)
    assert (ended.outcome, ended.exit_code, ended.cause) == (Outcome.CANCELLED, 0, "It was cancelled.")
    assert whole_log(engine, NAME).endswith(b"saved\n")


def test_who_ignores_the_polite_signal_is_killed_after_the_grace(engine: LocalEngine, listener: Listener) -> None:
    engine.start(launch(1, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done", grace_s=1))
    eventually(lambda: engine.read_log(NAME, "stdout", 0, 99).content, "the job is ready")
    asked_ms = now_ms()
    engine.stop(NAME, Outcome.CANCELLED)
    ended = listener.ended(NAME)
    assert (ended.outcome, ended.signal) == (Outcome.CANCELLED, signal.SIGKILL)
    assert ended.ended_ms is not None
    assert ended.ended_ms - asked_ms >= 990


def test_the_rest_of_the_group_has_the_grace_too(engine: LocalEngine, listener: Listener) -> None:
    """The main process goes at once; the one that saves the work needs a moment."""
    worker = "trap 'sleep 0.2; echo saved; exit' TERM; echo ready; while :; do sleep 0.02; done"
    engine.start(launch(1, "sh", "-c", f'sh -c "{worker}" & wait', grace_s=60))
    eventually(lambda: engine.read_log(NAME, "stdout", 0, 99).content, "the worker is ready")
    engine.stop(NAME, Outcome.CANCELLED)
    listener.ended(NAME)
    assert whole_log(engine, NAME).endswith(b"saved\n")


_ESCAPES = """
import os, sys, time
def note(): print(os.getpid(), file=open(sys.argv[1], "a"), flush=True)
def wait(environment): os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"], environment)
if os.fork() == 0:  # in the session, without its environment
    note(); wait({})
if os.fork() == 0:  # left the session, orphaned
    os.setsid()
    if os.fork() == 0:
        note(); wait(os.environ)
    os._exit(0)
if "both" in sys.argv and os.fork() == 0:  # left the session and forgot its environment
    os.setsid(); note(); wait({})
while open(sys.argv[1]).read().count("\\n") < 2 + ("both" in sys.argv): time.sleep(0.01)
note()
if "stay" in sys.argv: time.sleep(600)
"""


#: A cgroup, where this machine gives one, must not be what everything rests on.
@pytest.fixture(params=[None, ""], ids=["cgroup if there is one", "no cgroup"])
def cgroup(request: pytest.FixtureRequest) -> str | None:
    found: str | None = request.param
    return found


def test_nothing_that_a_job_started_outlives_it(spool: Path, cgroup: str | None, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.touch()
    engine = LocalEngine(spool, NODE, now_ms, cgroup=cgroup)
    ended = Listener(engine).run(launch(1, sys.executable, "-c", _ESCAPES, str(pids), "both"))
    assert (ended.outcome, ended.exit_code) == (Outcome.COMPLETED, 0)
    assert [pid for pid in _numbers(pids, 4) if _lives(pid)] == []
    engine.close()


@pytest.mark.parametrize("server_is_up", [True, False])
def test_an_attempt_whose_supervisor_is_killed_is_lost_and_nothing_of_it_is_left(
    spool: Path, cgroup: str | None, tmp_path: Path, server_is_up: bool
) -> None:
    pids = tmp_path / "pids"
    pids.touch()
    engine = LocalEngine(spool, NODE, now_ms, cgroup=cgroup)
    listener = Listener(engine)
    engine.start(launch(1, sys.executable, "-c", _ESCAPES, str(pids), "stay"))
    numbers = _numbers(pids, 3)
    assert all(map(_lives, numbers))
    holder = _supervisor_of(spool / NAME)
    assert holder
    if server_is_up:
        os.kill(holder, signal.SIGKILL)
        ended = listener.ended(NAME)
    else:
        engine.close()
        os.kill(holder, signal.SIGKILL)
        eventually(lambda: not _lives(numbers[-1]), "the main process goes with its supervisor, without an engine")
        engine = LocalEngine(spool, NODE, now_ms)
        (ended,) = engine.adopt([NAME])
    assert (ended.seen, ended.outcome) == (Seen.ENDED, Outcome.LOST)
    assert "supervisor was killed" in ended.cause
    assert ended.started_ms is not None
    assert [pid for pid in numbers if _lives(pid)] == []
    engine.start(launch(1, "true"))
    assert engine.adopt([NAME]) == [ended]
    engine.close()


def test_a_supervisor_that_the_machine_asks_to_end_gives_the_grace_and_says_lost(
    engine: LocalEngine, listener: Listener, spool: Path
) -> None:
    engine.start(launch(1, "sleep", "600"))
    listener.until(NAME, Seen.RUNNING)
    holder = _supervisor_of(spool / NAME)
    assert holder
    os.kill(holder, signal.SIGTERM)
    ended = listener.ended(NAME)
    assert (ended.outcome, ended.signal) == (Outcome.LOST, signal.SIGTERM)
    assert "machine is shut down" in ended.cause


# ---- limits --------------------------------------------------------------------------------------------------------


def test_without_cgroups_memory_is_limited_for_each_process_and_the_cause_is_honest(spool: Path) -> None:
    engine = LocalEngine(spool, NODE, now_ms, cgroup="")
    listener = Listener(engine)
    greedy = launch(1, sys.executable, "-c", "x = bytearray(300 << 20)", memory_mib=100)
    ended = listener.run(greedy)
    assert (ended.outcome, ended.exit_code) == (Outcome.FAILED, 1)
    assert "limit of 100 MiB for each process cannot be told" in ended.cause
    assert "memory: RLIMIT_DATA of each process" in ended.enforced
    assert b"MemoryError" in whole_log(engine, NAME)
    modest = launch(2, sys.executable, "-c", "x = bytearray(50 << 20)", memory_mib=100)
    assert listener.run(modest).outcome is Outcome.COMPLETED
    engine.close()


@pytest.fixture
def stand_in_cgroup(tmp_path: Path) -> Path:
    """A folder that looks like a cgroup with the memory controller: not every machine has one to give."""
    folder = tmp_path / "cgroup"
    folder.mkdir()
    (folder / "cgroup.subtree_control").write_text("cpu memory\n")
    return folder


def test_with_cgroups_memory_is_limited_for_the_whole_attempt(spool: Path, stand_in_cgroup: Path) -> None:
    engine = LocalEngine(spool, NODE, now_ms, cgroup=str(stand_in_cgroup))
    listener = Listener(engine)
    # What the kernel would do, done by the job: count the kill, and kill.
    script = f"cd {stand_in_cgroup}/watteau-*; echo 73400320 >memory.peak; echo oom_kill 1 >memory.events; kill -9 $$"
    gang = (WorkerPlace("here", ()), WorkerPlace("here", ()))
    ended = listener.run(launch(1, "sh", "-c", script, memory_mib=64, places=gang))
    assert (ended.outcome, ended.signal, ended.peak_memory_mib) == (Outcome.OUT_OF_MEMORY, signal.SIGKILL, 70)
    assert ended.cause == "It needed more than its memory limit of 128 MiB."
    assert "memory: cgroup v2" in ended.enforced
    (made,) = (each for each in stand_in_cgroup.iterdir() if each.is_dir())
    assert (made / "memory.max").read_text() == str(128 << 20)
    assert (made / "memory.oom.group").read_text() == "1"
    assert (made / "cgroup.procs").exists()
    engine.close()


# ---- what a job sees -----------------------------------------------------------------------------------------------


def _environment(engine: LocalEngine, name: str) -> dict[str, str]:
    lines = whole_log(engine, name).decode().split("\0")
    return dict(line.split("=", 1) for line in lines if line)


def test_a_job_sees_a_clean_environment(
    engine: LocalEngine, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    listener.run(
        launch(7, "env", "-0", number=2, array_id=5, array_index=3, environment={"LR": "0.1\n", "HOME": "/elsewhere"})
    )
    seen = _environment(engine, "watteau-7-2")
    assert "SECRET_OF_THE_SERVER" not in seen
    assert {"PATH", "USER", "LANG", "TMPDIR"} <= seen.keys()
    expected = {"LR": "0.1\n", "HOME": "/elsewhere", "CUDA_VISIBLE_DEVICES": "", "WATTEAU_NODES": "here"}
    expected |= {"WATTEAU_JOB_ID": "7", "WATTEAU_ATTEMPT": "2", "WATTEAU_ARRAY_ID": "5", "WATTEAU_ARRAY_INDEX": "3"}
    expected |= {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "1"}
    assert {name: seen[name] for name in expected} == expected


def test_what_names_the_attempt_and_its_gpus_is_not_overridden(spool: Path) -> None:
    """A shell that runs under a scheduler would pass on the wrong ones with --export=ALL."""
    node = NodeCapacity("here", "H100", 3, 2, 4096)
    engine = LocalEngine(spool, node, now_ms, gpu_ids=("0", "2", "5"))
    listener = Listener(engine)
    other = {"CUDA_VISIBLE_DEVICES": "7", "SLURM_JOB_ID": "99", "SLURM_NTASKS_PER_NODE": "8", "WATTEAU_JOB_ID": "98"}
    gang = (WorkerPlace("here", (2,)), WorkerPlace("here", (0,)))
    listener.run(launch(1, "env", "-0", environment=other, places=gang))
    seen = _environment(engine, NAME)
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["CUDA_DEVICE_ORDER"]) == ("0,5", "PCI_BUS_ID")
    assert (seen["SLURM_JOB_ID"], seen["WATTEAU_JOB_ID"], seen["WATTEAU_WORKERS"]) == ("1", "1", "2")
    assert "SLURM_NTASKS_PER_NODE" not in seen
    with pytest.raises(LaunchRefused, match="has 3 GPUs"):
        engine.start(launch(2, "true", places=(WorkerPlace("here", (3,)),)))
    engine.close()


def test_a_job_runs_in_its_own_folder_or_in_the_one_asked_for(
    engine: LocalEngine, listener: Listener, spool: Path, tmp_path: Path
) -> None:
    listener.run(launch(1, "pwd"))
    assert whole_log(engine, NAME).decode().strip() == str(spool / NAME / "work")
    listener.run(launch(2, "pwd", workdir=str(tmp_path)))
    assert whole_log(engine, "watteau-2-1").decode().strip() == str(tmp_path)


def test_signals_and_files_of_the_server_are_not_passed_on(engine: LocalEngine, listener: Listener) -> None:
    """Python ignores SIGPIPE; a job that inherits that never ends when its reader does. Nor may it keep a port open."""
    held = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(held, True)
    listener.run(launch(1, "sh", "-c", "grep -E 'Sig(Ign|Blk)' /proc/self/status; ls /proc/self/fd"))
    os.close(held)
    said = whole_log(engine, NAME).decode().split()
    ignored = int(said.pop(3), 16) & ~(0b11 << 31)  # 32 and 33 are the C library's own: nobody else may set them
    assert ignored == 0
    assert said == ["SigBlk:", "0" * 16, "SigIgn:", "0", "1", "2", "3"]  # 3 is the folder that ls reads


# ---- output --------------------------------------------------------------------------------------------------------


def test_a_hundred_megabytes_of_output_arrive(engine: LocalEngine, listener: Listener) -> None:
    listener.run(launch(1, "head", "-c", "100000000", "/dev/zero"))
    at = 0
    while True:
        part = engine.read_log(NAME, "stdout", at, 8_000_000)
        assert not part.content.strip(b"\0")
        at = part.end
        if part.complete:
            break
    assert at == 100_000_000


def test_binary_output_is_kept_as_it_is(engine: LocalEngine, listener: Listener, tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    (tmp_path / "binary").write_bytes(content)
    listener.run(launch(1, "cat", str(tmp_path / "binary")))
    assert whole_log(engine, NAME, most=999) == content


def test_output_goes_where_it_was_asked_for(engine: LocalEngine, listener: Listener, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    where: dict[str, Any] = {"workdir": str(tmp_path), "stdout": "logs/%x-%A_%a-%j%%.out", "stderr": "logs/%j.err"}
    command = ("sh", "-c", "echo out; echo err >&2")
    listener.run(launch(6, *command, job_name="../a/b\n", array_id=5, array_index=1, **where))
    assert (tmp_path / "logs/___a_b_-5_1-6%.out").read_text() == "out\n"
    assert (tmp_path / "logs/6.err").read_text() == "err\n"
    assert whole_log(engine, "watteau-6-1", "stderr") == b"err\n"


def test_stderr_goes_with_stdout_unless_asked_otherwise(engine: LocalEngine, listener: Listener) -> None:
    listener.run(launch(1, "sh", "-c", "echo a; echo b >&2; echo c"))
    assert whole_log(engine, NAME) == b"a\nb\nc\n"


def test_a_second_attempt_adds_to_the_log_and_shows_its_own(
    engine: LocalEngine, listener: Listener, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    Path(out).write_text("of a job long ago\n")
    listener.run(launch(1, "echo", "first", stdout=out))
    listener.run(launch(1, "echo", "second", stdout=out, number=2))
    assert Path(out).read_text() == "first\nsecond\n"
    assert whole_log(engine, "watteau-1-2") == b"second\n"


def test_another_file_under_the_log_s_name_is_not_shown(
    engine: LocalEngine, listener: Listener, tmp_path: Path
) -> None:
    (tmp_path / "private").write_text("not for everybody")
    listener.run(launch(1, "ln", "-sf", str(tmp_path / "private"), "out", workdir=str(tmp_path), stdout="out"))
    with pytest.raises(FileNotFoundError, match="replaced"):
        engine.read_log(NAME, "stdout", 0, 100)


def test_output_to_a_device_is_not_kept(engine: LocalEngine, listener: Listener) -> None:
    assert listener.run(launch(1, "echo", "x", stdout="/dev/null")).exit_code == 0
    assert whole_log(engine, NAME) == b""


@pytest.mark.parametrize(
    ("where", "cause"),
    [
        ({"stdout": "no/such/out"}, "The folder '{tmp}/no/such' for stdout does not exist."),
        ({"stderr": "no/err"}, "The folder '{tmp}/no' for stderr does not exist."),
        ({"stdout": "."}, "'{tmp}/.' for stdout cannot be written: Is a directory."),
        ({"stdout": "pipe"}, "'{tmp}/pipe' for stdout is a pipe that nobody reads."),
        ({"stdout": "y" * 300}, "File name too long."),
        ({"workdir": "/no/such/folder"}, "The working directory '/no/such/folder' does not exist."),
        ({"workdir": "/etc/passwd"}, "The working directory '/etc/passwd' is not a folder."),
    ],
)
def test_a_place_that_cannot_be_used_is_named(
    listener: Listener, tmp_path: Path, where: dict[str, Any], cause: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    ended = listener.run(launch(1, "true", **({"workdir": str(tmp_path)} | where)))
    assert (ended.outcome, ended.exit_code) == (Outcome.FAILED, None)
    assert cause.format(tmp=tmp_path) in ended.cause


@given(st.text(min_size=1, max_size=40), st.sampled_from(["logs/%x.out", "logs/%x", "logs/%x/out", "logs/.%x/out"]))
def test_a_job_s_name_neither_adds_nor_leaves_a_folder(name: str, pattern: str) -> None:
    expanded = expand_path(pattern, launch(1, "true", job_name=name))
    assert len(expanded.split("/")) == len(pattern.split("/"))
    assert not {".", "..", ""} & set(expanded.split("/"))
    assert not any(ord(letter) < 32 for letter in expanded)


# ---- what cannot be started ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../escape"},
        {"name": ".lock"},
        {"name": ""},
        {"name": "a/b"},
        {"name": "x" * 300},
        {"name": "nul\0"},
        {"command": ("echo", "nul\0")},
        {"command": ("echo", "\ud800")},
        {"command": ()},
        {"command": ("",)},
        {"environment": {"A": "nul\0"}},
        {"stdout": "nul\0"},
        {"workdir": "relative"},
        {"job_name": "nul\0"},
    ],
)
def test_what_can_never_run_is_refused_and_leaves_nothing(
    engine: LocalEngine, spool: Path, wrong: dict[str, Any]
) -> None:
    before = sorted(spool.rglob("*"))
    with pytest.raises(LaunchRefused):
        engine.start(launch(1, **({"command": ("true",)} | wrong)))
    assert sorted(spool.rglob("*")) == before
    assert engine.adopt([wrong.get("name", NAME)])[0].seen is Seen.ABSENT


def test_a_stop_of_a_name_that_no_attempt_can_have_does_nothing(engine: LocalEngine, spool: Path) -> None:
    before = sorted(spool.parent.rglob("*"))
    engine.stop("../escape", Outcome.CANCELLED)
    assert sorted(spool.parent.rglob("*")) == before


@pytest.mark.parametrize("spoil", [lambda path: path.write_text(""), lambda path: path.mkdir(mode=0o777)])
def test_a_spool_that_cannot_be_used_is_named(tmp_path: Path, spoil: Callable[[Path], Any]) -> None:
    """A file in its place; or a folder that everybody may write, and so put programs in."""
    old = os.umask(0)
    try:
        spoil(tmp_path / "spool")
    finally:
        os.umask(old)
    with pytest.raises(EngineUnreachable, match="spool cannot be used"):
        LocalEngine(tmp_path / "spool", NODE, now_ms)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one mebibyte; mounting one takes the rights of the superuser."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("a small disk can only be mounted as root")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(disk)], check=False).returncode:
        pytest.skip("this container may not mount a small disk")
    yield disk
    subprocess.run([umount, "-l", str(disk)], check=True)


def test_a_full_disk_puts_the_start_off_and_leaves_nothing_half_done(small_disk: Path) -> None:
    engine = LocalEngine(small_disk / "spool", NODE, now_ms)
    listener = Listener(engine)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    for job_id in range(1, 4):
        with pytest.raises(EngineUnreachable, match=r"disk of the spool .* is full: make room"):
            engine.start(launch(job_id, "true"))
    assert [said.seen for said in engine.adopt([attempt_name(job_id, 1) for job_id in range(1, 4)])] == [
        Seen.ABSENT
    ] * 3
    assert not list((small_disk / "spool").glob(".staging-*/*"))
    with pytest.raises(EngineUnreachable, match="is full"):
        engine.stop("watteau-9-1", Outcome.CANCELLED)
    ballast.unlink()
    assert listener.run(launch(1, "true")).outcome is Outcome.COMPLETED
    engine.close()


@pytest.mark.parametrize("letter", ["x", "é", "😀", '"', "\\"])
def test_a_cause_of_any_length_and_script_fits_into_its_slot(letter: str) -> None:
    record = os.memfd_create("record")
    os.ftruncate(record, supervisor.RECORD_BYTES)
    for length in (10, 1_000, 5_000, 131_072):
        cause = supervisor.short(letter * length)
        supervisor.write_slot(record, supervisor.ENDED, {"cause": cause})
        assert supervisor.read_slots(record)[supervisor.ENDED] == {"cause": cause}
        assert cause == letter * length or cause.endswith("...")
    os.close(record)


def test_a_working_directory_with_an_impossible_name_is_the_jobs_own_fault(engine: LocalEngine) -> None:
    ended = Listener(engine).run(launch(1, "true", workdir="/" + "😀" * 1_000))
    assert ended.outcome is Outcome.FAILED
    assert "😀" in ended.cause


def test_a_job_that_fills_the_disk_still_has_its_exit_status_and_can_be_stopped(small_disk: Path) -> None:
    """Their room in the record was set aside when it was started."""
    engine = LocalEngine(small_disk / "spool", NODE, now_ms)
    listener = Listener(engine)
    ended = listener.run(launch(1, "sh", "-c", f"cat /dev/zero >{small_disk}/ballast; exit 7"))
    assert (ended.outcome, ended.exit_code) == (Outcome.FAILED, 7)
    (small_disk / "ballast").unlink()
    engine.start(
        launch(2, "sh", "-c", f"cat /dev/zero >{small_disk}/ballast; echo full; exec sleep 600", stdout="/dev/null")
    )
    listener.until("watteau-2-1", Seen.RUNNING)
    engine.stop("watteau-2-1", Outcome.CANCELLED)
    assert listener.ended("watteau-2-1").outcome is Outcome.CANCELLED
    engine.close()
    again = LocalEngine(small_disk / "spool", NODE, now_ms)
    assert [said.outcome for said in again.adopt([NAME, "watteau-2-1"])] == [Outcome.FAILED, Outcome.CANCELLED]
    again.close()


def test_threads_that_start_and_stop_the_same_names_agree(engine: LocalEngine, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    listener = Listener(engine)
    names = [attempt_name(job_id, 1) for job_id in range(1, 11)]

    def start() -> None:
        for job_id in range(1, 11):
            engine.start(launch(job_id, "sh", "-c", f"echo {job_id} >>{ledger}"))

    def stop() -> None:
        for name in reversed(names):
            engine.stop(name, Outcome.CANCELLED)

    threads = [threading.Thread(target=each) for each in (start, stop, start)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        assert listener.ended(name).outcome in (Outcome.COMPLETED, Outcome.CANCELLED)
    assert max(Counter(ledger.read_text().split()).values(), default=1) == 1
