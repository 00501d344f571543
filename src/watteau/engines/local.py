"""Runs attempts on this machine so that they outlive the server, and each of them exactly once.

An attempt is a folder `spool/<name>/`, made whole in a staging folder and renamed into place: `rename` refuses a name
that is taken, so of two starts of one name, from whatever process, one makes the attempt and the other finds it. In the
folder lie `launch.json` (what to run), `lock`, and `record`: four slots of fixed size, BEGAN, STOP, RUNS and ENDED,
written in place, checksummed and synced, in room that was set aside at the start, so that a disk which fills up
meanwhile costs nobody an exit status. A supervisor (`supervisor.py`, a process in a session of its own) holds the lock
for as long as it lives; the kernel lets go of it when the process ends, however it ends.

Two rules make it exactly-once:

- A command is started only by a holder of the lock who found neither BEGAN nor ENDED, and only after BEGAN is durable.
  So any number of supervisors may be started for one folder, at any time, by anybody: at most one runs the command.
- An attempt is called LOST only by a holder of the lock who found BEGAN and no ENDED, and only once that is durable.

What a `kill -9` (or a power cut) leaves behind, point by point:

1. The server, before the rename: a staging folder that nobody locks. The next engine on the spool removes it; the name
   is ABSENT, and the attempt is started again.
2. The server, after the rename and before the supervisor has the lock: an attempt with a free lock and no BEGAN.
   `adopt` and `start` give it a supervisor. If a first was only slow, one of the two finds the lock taken and leaves.
3. The supervisor, before BEGAN: as 2. If that happens three times, the attempt is ended as LOST.
4. The supervisor, after BEGAN and before the command: the child waits for a byte from its parent before it becomes the
   command, and ends when there is none. Nothing has run, but that cannot be proved afterwards: LOST.
5. The supervisor, while the command runs: the main process is killed with it by the kernel (PR_SET_PDEATHSIG); what
   else it started is found by its cgroup, its session or its environment and killed, then the attempt is LOST.
6. The supervisor, after the end of the command and before ENDED: as 5; the exit status is not known.
7. The server, at any time after the start: nothing happens to the attempt. `adopt` finds it running, or its ENDED.
8. The machine: all locks are free; what had begun is LOST, what had not is started, what had ended is as recorded.

A stop is written to STOP before anybody is told. If BEGAN is there then, the supervisor gets a signal; if not, the
supervisor will look at STOP after it has written BEGAN: one of the two sees the other. A name that was never started
is stopped by making the folder with its ENDED in it.
"""

import contextlib
import errno
import fcntl
import json
import os
import pwd
import py_compile
import re
import secrets
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from watteau.domain.requests import Outcome
from watteau.engines import supervisor
from watteau.engines.contract import (
    Capabilities,
    EngineUnreachable,
    Launch,
    LaunchRefused,
    LogPart,
    NodeCapacity,
    Observation,
    Seen,
    one_by_one,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_STAGING = ".staging-"
_MOST_SUPERVISORS = 3
#: How often we look at attempts that start, should no note of theirs have come; and at running ones without a pidfd.
_LOOK_STARTING_S, _LOOK_RUNNING_S = 0.02, 0.25
_TIDY_ROUNDS, _TIDY_ROUND_S = 20, 0.01
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class _Attended:
    """An attempt whose changes are wanted."""

    told: Seen = Seen.ABSENT  # what `changes` said last
    process: subprocess.Popen[bytes] | None = None  # a supervisor that we started and have not reaped
    pidfd: int | None = None  # becomes readable when the supervisor ends
    supervisors: int = 0  # started by us


@dataclass(frozen=True, slots=True)
class _Record:
    """What an attempt's folder says, and who holds its lock."""

    holder: int | None  # pid; 0: somebody who cannot be named; None: nobody
    began: supervisor.Slot | None
    stop: supervisor.Slot | None
    runs: supervisor.Slot | None
    ended: supervisor.Slot | None


class LocalEngine:
    """Attempts on this machine, under the server's own account. Linux 5.4 or newer.

    `spool` is on a local disk and belongs to this account alone. `gpu_ids` are what CUDA calls the node's GPUs, by
    index (default: the index itself). `base_environment` replaces the clean base of what every attempt inherits;
    `cgroup` names the folder to make the attempts' cgroups in ("": none; None: found).

    An attempt runs its command once, whatever the number of its workers; it sees the GPUs of all of them.
    """

    def __init__(
        self,
        spool: Path,
        node: NodeCapacity,
        now_ms: Callable[[], int],
        *,
        gpu_ids: Sequence[str] = (),
        base_environment: Mapping[str, str] | None = None,
        cgroup: str | None = None,
    ) -> None:
        self.capabilities = Capabilities(notes=("runs under the account of the server", "one node"))
        self._node = node
        self._now_ms = now_ms
        self._gpu_ids = tuple(gpu_ids) or tuple(str(index) for index in range(node.gpus))
        self._base = dict(clean_environment(os.environ) if base_environment is None else base_environment)
        self._cgroup, self._cgroup_memory = find_cgroup() if cgroup is None else (cgroup, _limits_memory(cgroup))
        self._spool = spool.absolute()
        try:
            self._staging, self._staging_lock = _open_spool(self._spool)
        except OSError as failed:
            raise EngineUnreachable(f"the spool {self._spool} cannot be used: {failed.strerror or failed}") from failed
        self._program = _compiled_supervisor(self._spool, self._staging)
        self._mutex = threading.Lock()  # guards all below
        self._attended: dict[str, _Attended] = {}
        self._changes: deque[Observation] = deque()
        self._wakes: list[Callable[[], None]] = []
        self._by_pidfd: dict[int, str] = {}
        self._closed = False
        self._notes, self._notes_in = os.pipe()  # supervisors write names into it when something has happened
        os.set_blocking(self._notes, False)
        os.set_blocking(self._notes_in, False)
        self._poll = select.epoll()
        self._poll.register(self._notes, select.EPOLLIN)
        self._watcher = threading.Thread(target=self._watch, name="watteau-local-engine", daemon=True)
        self._watcher.start()

    # ---- the contract

    def capacity(self) -> tuple[NodeCapacity, ...]:
        """This machine."""
        self._check_open()
        return (self._node,)

    def start_all(self, launches: Sequence[Launch]) -> list[tuple[str, str]]:
        """One after the other; see the contract."""
        return one_by_one(self, launches)

    def start(self, launch: Launch) -> None:
        """Start an attempt once; see the contract. A spool that cannot be written is no fault of the attempt's."""
        self._check_open()
        folder = self._folder(launch.name)
        if folder is None:
            raise LaunchRefused(f"{launch.name!r} cannot be an attempt's name: letters, digits, '.', '_' and '-'")
        try:
            if not folder.exists():
                self._make(folder, launch)
        except OSError as failed:
            raise EngineUnreachable(_spool_cause(self._spool, failed)) from failed
        self._settle(launch.name)

    def stop(self, name: str, why: Outcome) -> None:
        """Ask an attempt to end, or see to it that it never begins; see the contract."""
        self._check_open()
        folder = self._folder(name)
        if folder is None:
            return
        try:
            stopped = (not folder.exists() and self._make_stopped(folder, why)) or self._stop_made(folder, why)
        except OSError as failed:
            raise EngineUnreachable(_spool_cause(self._spool, failed)) from failed
        if stopped:
            self._settle(name)

    def adopt(self, names: Iterable[str]) -> list[Observation]:
        """One observation for each name; an attempt that was left without a supervisor gets one."""
        self._check_open()
        return [self._settle(name, adopting=True) for name in names]

    def changes(self) -> list[Observation]:
        """What changed since the last call, oldest first."""
        self._check_open()
        with self._mutex:
            found = list(self._changes)
            self._changes.clear()
        return found

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call `wake` from now on whenever there are changes; at once when there are some already."""
        with self._mutex:
            self._wakes.append(wake)
            waiting = bool(self._changes)
        if waiting:
            wake()

    def read_log(self, name: str, stream: str, start: int, most: int) -> LogPart:
        """A piece of what the attempt wrote. The offset counts from where this attempt began to write."""
        self._check_open()
        if start < 0 or most < 0:
            raise ValueError("an offset or a length is below zero")
        folder = self._folder(name)
        if folder is None or not folder.exists() or stream not in ("stdout", "stderr"):
            raise FileNotFoundError(f"{name} has no {stream}")
        with _opened(folder) as (_, record):
            # Before the content, which may grow until there is an end.
            began, _, _, ended = supervisor.read_slots(record)
        launch = json.loads((folder / supervisor.LAUNCH_FILE).read_bytes())
        if stream == "stderr" and launch["stderr"] in ("", launch["stdout"]):
            raise FileNotFoundError(f"{name} writes stderr to stdout")
        if began is None:
            return LogPart(b"", start, ended is not None)
        device, inode, base = began["outputs"][stream == "stderr"]
        if base < 0:  # a pipe or a device: what went there is not kept
            return LogPart(b"", start, ended is not None)
        with _open_log(launch[stream], device, inode, f"{name} {stream}") as log:
            log.seek(base + start)
            content = log.read(most)
            end = start + len(content)
            size = os.fstat(log.fileno()).st_size
        return LogPart(content, end, ended is not None and base + end >= size)

    def close(self) -> None:
        """Let go of the watcher and of all handles. Attempts go on."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            self._nudge()
        if threading.current_thread() is not self._watcher:
            self._watcher.join()

    # ---- making an attempt

    def _make(self, folder: Path, launch: Launch) -> None:
        """Put the whole folder in place, or nothing. Returns also when another made it first."""
        content = json.dumps(self._describe(folder, launch)).encode()
        staged = self._stage()
        try:
            if launch.script:
                _write_durably(staged / supervisor.SCRIPT_FILE, _encoded(launch.script), 0o700)
            _write_durably(staged / supervisor.LAUNCH_FILE, content)
            if not launch.workdir:
                (staged / "work").mkdir(mode=0o700)
            self._place(staged, folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _make_stopped(self, folder: Path, why: Outcome) -> bool:
        """Put a folder in place that says that the attempt has ended. False when another made one first."""
        staged = self._stage()
        launch = {"name": folder.name, "stdout": "", "stderr": ""}
        try:
            _write_durably(staged / supervisor.LAUNCH_FILE, json.dumps(launch).encode())
            record = os.open(staged / supervisor.RECORD_FILE, os.O_RDWR)
            try:
                cause = "It was stopped before it was started."
                supervisor.write_slot(record, supervisor.ENDED, self._ended(why, cause))
            finally:
                os.close(record)
            return self._place(staged, folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _stage(self) -> Path:
        staged = self._staging / secrets.token_hex(8)
        staged.mkdir(mode=0o700)
        try:
            _write_durably(staged / supervisor.LOCK_FILE, b"")
            _write_durably(staged / supervisor.RECORD_FILE, bytes(supervisor.RECORD_BYTES))
        except OSError:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        return staged

    def _place(self, staged: Path, folder: Path) -> bool:
        _sync(staged)
        try:
            staged.rename(folder)
        except OSError as taken:
            if taken.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return False
            raise
        _sync(self._spool)
        return True

    def _describe(self, folder: Path, launch: Launch) -> supervisor.Slot:
        """What the supervisor is told. Raises LaunchRefused for what no supervisor could do."""
        argv = [str(folder / supervisor.SCRIPT_FILE), *launch.arguments] if launch.script else list(launch.command)
        workdir = launch.workdir or str(folder / "work")
        others = {place.node for place in launch.places} - {self._node.node}
        if others:
            raise LaunchRefused(f"this engine has the node {self._node.node}, not {', '.join(sorted(others))}")
        if not argv or not argv[0]:
            raise LaunchRefused("there is neither a command nor a script")
        if not workdir.startswith("/"):
            raise LaunchRefused(f"the working directory {workdir!r} is not an absolute path")
        environment = self._environment(launch)
        for text in (*argv, workdir, launch.stdout, launch.stderr, *environment, *environment.values()):
            if b"\0" in _encoded(text):
                raise LaunchRefused("a NUL cannot be part of a command, a path or the environment")
        return {
            "name": launch.name,
            "number": launch.number,
            "argv": argv,
            "environment": environment,
            "workdir": workdir,
            "stdout": _output(launch.stdout, launch, workdir) or str(folder / "stdout"),
            "stderr": _output(launch.stderr, launch, workdir),
            "time_limit_s": launch.time_limit_s,
            "grace_s": launch.grace_s,
            "memory_mib": launch.memory_mib * max(1, len(launch.places)),
            "cgroup": f"{self._cgroup}/watteau-{secrets.token_hex(8)}" if self._cgroup else "",
            "cgroup_memory": self._cgroup_memory,
        }

    def _environment(self, launch: Launch) -> dict[str, str]:
        """The clean base, then what was asked for, then what must be true of this attempt, which nobody overrides.

        Otherwise an environment taken over from a shell that runs under a scheduler would name the wrong job, and
        the wrong GPUs.
        """
        workers = max(1, len(launch.places))
        indices = sorted({gpu for place in launch.places for gpu in place.gpus})
        if indices and not 0 <= indices[0] <= indices[-1] < len(self._gpu_ids):
            raise LaunchRefused(f"{self._node.node} has {len(self._gpu_ids)} GPUs; asked for was number {indices[-1]}")
        cores = max(1, launch.cpu_milli // 1000)
        own = {
            "WATTEAU_JOB_ID": str(launch.job_id),
            "WATTEAU_JOB_NAME": launch.job_name,
            "WATTEAU_ATTEMPT": str(launch.number),
            "WATTEAU_ATTEMPT_DIR": str(self._spool / launch.name),
            "WATTEAU_TENANT": launch.tenant,
            "WATTEAU_USER": launch.user,
            "WATTEAU_NODES": self._node.node,
            "WATTEAU_WORKERS": str(workers),
            "CUDA_VISIBLE_DEVICES": ",".join(self._gpu_ids[index] for index in indices),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # CUDA's own order is by speed; ours is NVML's
            "SLURM_JOB_ID": str(launch.job_id),
            "SLURM_JOBID": str(launch.job_id),
            "SLURM_JOB_NAME": launch.job_name,
            "SLURM_JOB_ACCOUNT": launch.tenant,
            "SLURM_JOB_USER": launch.user,
            "SLURM_JOB_NODELIST": self._node.node,
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_NNODES": "1",
            "SLURM_NODEID": "0",
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
            "SLURM_NTASKS": str(workers),
            "SLURM_CPUS_PER_TASK": str(cores),
            "SLURM_CPUS_ON_NODE": str(cores * workers),
            "SLURM_GPUS_ON_NODE": str(len(indices)),
            "SLURM_RESTART_COUNT": str(launch.number - 1),
        }
        if launch.workdir:
            own["SLURM_SUBMIT_DIR"] = launch.workdir
        if launch.memory_mib:
            own["SLURM_MEM_PER_NODE"] = str(launch.memory_mib * workers)
        if launch.array_id is not None and launch.array_index is not None:
            own["WATTEAU_ARRAY_ID"] = own["SLURM_ARRAY_JOB_ID"] = str(launch.array_id)
            own["WATTEAU_ARRAY_INDEX"] = own["SLURM_ARRAY_TASK_ID"] = str(launch.array_index)
        asked = {name: text for name, text in launch.environment.items() if not name.startswith(("WATTEAU_", "SLURM_"))}
        return self._base | asked | own

    # ---- stopping one

    def _stop_made(self, folder: Path, why: Outcome) -> bool:
        """Stop an attempt whose folder is there. False when it had ended before."""
        with _opened(folder) as (lock, record):
            said = _look(lock, record)
            if said.ended:
                return False
            if not said.stop:
                supervisor.write_slot(record, supervisor.STOP, {"outcome": why.value})
            said = _look(lock, record)
            if said.holder and said.began and not said.ended:
                _terminate(lock, said.holder)
            elif said.holder is None and not said.began:
                # Nobody has it in hand: end it here, rather than start a supervisor that would do the same.
                self._end_unbegun(lock, record, why)
        return True

    def _end_unbegun(self, lock: int, record: int, why: Outcome) -> None:
        if supervisor.take_lock(lock):
            began, _, _, ended = supervisor.read_slots(record)
            if not began and not ended:
                supervisor.write_slot(record, supervisor.ENDED, self._ended(why, "It was stopped before it began."))

    def _ended(self, outcome: Outcome, cause: str) -> supervisor.Slot:
        return {"outcome": outcome.value, "cause": cause, "ended_ms": self._now_ms()}

    # ---- seeing to one

    def _settle(self, name: str, *, adopting: bool = False) -> Observation:
        """Look at an attempt, do what it needs, remember what there is to tell, and attend to it from now on.

        What `adopt` says of an attempt that was not attended to is its answer, not a change.
        """
        folder = self._folder(name)
        try:
            if folder is None or not folder.exists():
                return Observation(name, Seen.ABSENT)
            with self._mutex:
                self._check_open()
                known = name in self._attended
                attended = self._attended.setdefault(name, _Attended())
                with _opened(folder) as (lock, record):
                    observation = self._see_to(folder, attended, lock, record)
                changed = observation.seen is not attended.told and observation.seen is not Seen.STARTING
                if changed:
                    attended.told = observation.seen
                    if known or not adopting:
                        self._changes.append(observation)
                if observation.seen is Seen.ENDED:
                    self._let_go(name, attended)
                elif attended.pidfd is None or observation.seen is Seen.STARTING:
                    self._nudge()  # the watcher may be waiting for ever, and has to look for itself now and then
                wakes = tuple(self._wakes) if changed else ()
        except OSError as failed:
            raise EngineUnreachable(_spool_cause(self._spool, failed)) from failed
        for wake in wakes:
            wake()
        return observation

    def _see_to(self, folder: Path, attended: _Attended, lock: int, record: int) -> Observation:
        said = _look(lock, record)
        if said.ended is None and said.holder is None:
            if said.began:
                said = self._lose(
                    lock, record, "Its supervisor was killed; what was left of it was killed too.", folder
                )
            elif attended.process is None or attended.process.poll() is not None:
                said = self._supervise(folder, attended, lock, record)
        if said.ended is None and said.holder:
            self._keep_watch(folder.name, attended, lock, said.holder)
        return _observation(folder.name, said)

    def _supervise(self, folder: Path, attended: _Attended, lock: int, record: int) -> _Record:
        """Give a supervisor to an attempt that has none and did not begin; after three, call it lost."""
        failed = ""
        if attended.supervisors < _MOST_SUPERVISORS:
            try:
                attended.process = _spawn_supervisor(self._program, folder, self._notes_in)
                attended.supervisors += 1
                self._unwatch(attended)
                self._watch_pid(folder.name, attended, attended.process.pid)
                return _look(lock, record)
            except OSError as refused:
                failed = f": {refused.strerror or refused}"
        status = attended.process.poll() if attended.process else None
        failed = failed or f" (exit status {status}; see {supervisor.ERRORS_FILE} in its folder)"
        return self._lose(lock, record, f"Its supervisor could not be started{failed}.", folder)

    def _lose(self, lock: int, record: int, cause: str, folder: Path) -> _Record:
        """End an attempt that nobody has in hand as LOST: only under the lock, and only once nothing of it is left."""
        if not supervisor.take_lock(lock):
            return _look(lock, record)
        began, stop, runs, ended = supervisor.read_slots(record)
        if ended is None:
            if runs is not None and not _kill_what_is_left(runs, str(folder)):
                return _Record(None, began, stop, runs, None)  # it still holds its GPUs; the watcher looks again
            if began is not None:  # a cgroup may be there without RUNS
                _remove_cgroup(json.loads((folder / supervisor.LAUNCH_FILE).read_bytes())["cgroup"])
            elif stop is not None:
                cause = "It was stopped before it began."
            outcome = Outcome(stop["outcome"]) if stop is not None else Outcome.LOST
            ended = self._ended(outcome, cause) | {"started_ms": (runs or {}).get("started_ms")}
            supervisor.write_slot(record, supervisor.ENDED, ended)
        return _Record(None, began, stop, runs, ended)

    # ---- the watcher

    def _keep_watch(self, name: str, attended: _Attended, lock: int, holder: int) -> None:
        """Watch the holder of the lock, if we do not watch it already."""
        if attended.pidfd is not None:
            return
        self._watch_pid(name, attended, holder)
        if supervisor.lock_holder(lock) != holder:  # it ended, and its number may be another's by now
            self._unwatch(attended)

    def _watch_pid(self, name: str, attended: _Attended, pid: int) -> None:
        with contextlib.suppress(OSError):  # no such process, or no descriptor left: then we look now and then
            attended.pidfd = os.pidfd_open(pid)
            self._by_pidfd[attended.pidfd] = name
            self._poll.register(attended.pidfd, select.EPOLLIN)

    def _unwatch(self, attended: _Attended) -> None:
        if attended.pidfd is not None:
            self._by_pidfd.pop(attended.pidfd, None)
            os.close(attended.pidfd)  # which also takes it out of the poll
            attended.pidfd = None

    def _let_go(self, name: str, attended: _Attended) -> None:
        """Nothing more will happen to it; a supervisor of ours is reaped when it is gone."""
        if attended.process is not None and attended.process.poll() is None:
            return  # it has recorded the end and is about to leave: its pidfd will say so
        self._unwatch(attended)
        del self._attended[name]

    def _watch(self) -> None:
        try:
            rounds = 0
            while not self._closed:
                rounds += 1
                self._look_at_what_changed(patient=rounds % 256 != 0)
        finally:  # also when a waker fails: an engine that no longer watches must not look as if it did
            with self._mutex:
                self._closed = True
                self._close_all()

    def _look_at_what_changed(self, *, patient: bool) -> None:
        with self._mutex:
            starting = {name for name, attended in self._attended.items() if attended.told is Seen.ABSENT}
            unwatched = {name for name, attended in self._attended.items() if attended.pidfd is None}
        found = self._poll.poll(_LOOK_STARTING_S if starting else _LOOK_RUNNING_S if unwatched else None)
        # While notes pour in, looking at all that starts after each of them would take more time than starting.
        names = set() if found and patient else starting | unwatched
        for descriptor, _ in found:
            names |= self._read_notes() if descriptor == self._notes else self._supervisor_left(descriptor)
        for name in sorted(names):
            # An unreadable spool is told to whoever asks; here it is only looked at again.
            with contextlib.suppress(EngineUnreachable):
                self._settle_again(name)

    def _settle_again(self, name: str) -> None:
        with self._mutex:
            if self._closed or name not in self._attended:
                return
        self._settle(name)

    def _supervisor_left(self, pidfd: int) -> set[str]:
        with self._mutex:
            name = self._by_pidfd.get(pidfd)
            attended = self._attended.get(name) if name is not None else None
            if name is None or attended is None or attended.pidfd != pidfd:
                return set()
            self._unwatch(attended)
            if attended.process is not None:
                attended.process.poll()
            return {name}

    def _read_notes(self) -> set[str]:
        content = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._notes, 65_536):
                content += part
        return set(content.decode(errors="replace").split())

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._notes_in, b"\n")

    def _close_all(self) -> None:
        for attended in self._attended.values():
            self._unwatch(attended)
            if attended.process is not None and attended.process.poll() is None:
                attended.process.returncode = 0  # it outlives us on purpose: no warning, no waiting
        self._attended.clear()
        self._poll.close()
        for descriptor in (self._notes, self._notes_in, self._staging_lock):
            os.close(descriptor)
        shutil.rmtree(self._staging, ignore_errors=True)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineUnreachable("this engine was closed")

    def _folder(self, name: str) -> Path | None:
        return self._spool / name if _NAME.fullmatch(name) else None


# ---- the spool -----------------------------------------------------------------------------------------------------


def _open_spool(spool: Path) -> tuple[Path, int]:
    """Make the spool, remove what dead engines were staging, and return our own staging folder and its lock."""
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = spool.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "it must belong to the account of the server, and nobody else may write it")
    whole = os.open(spool / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(whole, fcntl.LOCK_EX)  # nobody else makes or removes a staging folder meanwhile
        for old in spool.glob(f"{_STAGING}*"):
            descriptor = os.open(old, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
            except BlockingIOError:
                pass
            finally:
                os.close(descriptor)
        staging = spool / f"{_STAGING}{secrets.token_hex(8)}"
        staging.mkdir(mode=0o700)
        lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return staging, lock
    finally:
        os.close(whole)


def _compiled_supervisor(spool: Path, staging: Path) -> str:
    """The supervisor, compiled: compiling it for each attempt takes a third of the time to the job's start.

    It lies in the spool because nobody says that bytecode may be written beside the source; and by its content, so
    that engines of two versions can share a spool.
    """
    source = Path(supervisor.__file__)
    try:
        version = zlib.crc32(source.read_bytes())
        compiled = spool / f".supervisor-{version:08x}.{sys.implementation.cache_tag}.pyc"
        if not compiled.exists():
            fresh = staging / compiled.name
            py_compile.compile(str(source), str(fresh), doraise=True)
            fresh.rename(compiled)
        return str(compiled)
    except (OSError, py_compile.PyCompileError):
        return str(source)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[tuple[int, int]]:
    lock = os.open(folder / supervisor.LOCK_FILE, os.O_RDWR)
    try:
        record = os.open(folder / supervisor.RECORD_FILE, os.O_RDWR)
        try:
            yield lock, record
        finally:
            os.close(record)
    finally:
        os.close(lock)


def _look(lock: int, record: int) -> _Record:
    # The lock first: if it is free before the record is read, the record says all that its last holder had to say.
    holder = supervisor.lock_holder(lock)
    return _Record(holder, *supervisor.read_slots(record))


def _observation(name: str, said: _Record) -> Observation:
    if said.ended is not None:
        end = said.ended
        return Observation(
            name,
            Seen.ENDED,
            started_ms=end.get("started_ms"),
            ended_ms=end["ended_ms"],
            outcome=Outcome(end["outcome"]),
            exit_code=end.get("exit_code"),
            signal=end.get("signal"),
            cause=end["cause"],
            peak_memory_mib=end.get("peak_memory_mib"),
            cpu_ms=end.get("cpu_ms"),
            enforced=tuple(end.get("enforced") or (said.runs or {}).get("enforced", ())),
        )
    if said.runs is not None:
        return Observation(
            name, Seen.RUNNING, started_ms=said.runs["started_ms"], enforced=tuple(said.runs["enforced"])
        )
    return Observation(name, Seen.STARTING)


def _open_log(path: str, device: int, inode: int, what: str) -> BinaryIO:
    """The file that the attempt wrote, and no other: by now anything may lie under that path."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as failed:
        raise FileNotFoundError(f"{what} cannot be read: {failed.strerror or failed}") from failed
    found = os.fstat(descriptor)
    if (found.st_dev, found.st_ino) != (device, inode) or not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise FileNotFoundError(f"{what} was replaced by another file")
    return open(descriptor, "rb", buffering=0)


def _write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _spool_cause(spool: Path, failed: OSError) -> str:
    if failed.errno in _FULL:
        return f"the disk of the spool {spool} is full: make room, and it goes on by itself"
    return f"the spool {spool} cannot be written: {failed.strerror or failed}"


# ---- processes -----------------------------------------------------------------------------------------------------


def _spawn_supervisor(program: str, folder: Path, notes: int) -> subprocess.Popen[bytes]:
    errors = os.open(folder / supervisor.ERRORS_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", program, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=notes,
            stderr=errors,
            # Nothing of the server's, but for what the interpreter itself may need to be found and loaded.
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(errors)


def _terminate(lock: int, holder: int) -> None:
    """Send SIGTERM to the supervisor that holds the lock, and to no other process that got its number since."""
    try:
        pidfd = os.pidfd_open(holder)
    except ProcessLookupError:
        return
    try:
        if supervisor.lock_holder(lock) == holder:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def _kill_what_is_left(runs: supervisor.Slot, folder: str) -> bool:
    """Kill the processes of a job whose supervisor is gone; whether all are: one that hangs in the kernel stays."""
    if runs["boot_id"] != supervisor.boot_id():
        return True
    for _ in range(_TIDY_ROUNDS):
        supervisor.kill_cgroup(runs["cgroup"])
        left = _left(runs, folder)
        if not left:
            supervisor.remove_cgroup(runs["cgroup"])
            return True
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        threading.Event().wait(_TIDY_ROUND_S)
    return False


def _remove_cgroup(folder: str) -> None:
    """Remove the cgroup of an attempt of which nothing is left; what was killed takes a moment to leave it."""
    supervisor.kill_cgroup(folder)
    for _ in range(_TIDY_ROUNDS):
        supervisor.remove_cgroup(folder)
        if not folder or not os.path.exists(f"{folder}/cgroup.kill"):
            return
        threading.Event().wait(_TIDY_ROUND_S)


def _left(runs: supervisor.Slot, folder: str) -> list[int]:
    """Processes of the job's session, or with its folder in their environment, that began no earlier than the job."""
    alive = [each for each in supervisor.processes() if each[1] != "Z" and each[0] != os.getpid()]
    # The number of a session is taken until its last process is gone. If its leader is another one, ours is gone.
    taken = any(pid == runs["pid"] and start != runs["start_ticks"] for pid, _, _, _, start in alive)
    mark = os.fsencode(f"WATTEAU_ATTEMPT_DIR={folder}")
    return [
        pid
        for pid, _, _, session, start in alive
        if start >= runs["start_ticks"] and ((session == runs["pid"] and not taken) or mark in _environment_of(pid))
    ]


def _environment_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


# ---- what a job sees -----------------------------------------------------------------------------------------------


def clean_environment(server: Mapping[str, str]) -> dict[str, str]:
    """What every attempt starts from: the account's own names, and of the server's environment only three."""
    try:
        account = pwd.getpwuid(os.geteuid())
        home, user, shell = account.pw_dir, account.pw_name, account.pw_shell or "/bin/sh"
    except KeyError:  # as in a container with an arbitrary number for its user
        home, user, shell = "/", str(os.geteuid()), "/bin/sh"
    return {
        "PATH": server.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "LANG": server.get("LANG", "C.UTF-8"),
        "TMPDIR": server.get("TMPDIR", "/tmp"),
        "HOME": home,
        "USER": user,
        "LOGNAME": user,
        "SHELL": shell,
    }


def expand_path(pattern: str, launch: Launch) -> str:
    """A path with %j (job), %A (array, or job), %a (array index), %x (job name) and %% replaced.

    A job's name is whatever its owner typed, so it cannot add a folder or leave one: slashes, control characters and
    leading dots become '_'.
    """
    name = re.sub(r"[/\x00-\x1f\x7f]|^\.+", lambda found: "_" * len(found[0]), launch.job_name)
    words = {
        "%": "%",
        "j": str(launch.job_id),
        "A": str(launch.job_id if launch.array_id is None else launch.array_id),
        "a": "0" if launch.array_index is None else str(launch.array_index),
        "x": name,
    }
    return re.sub(r"%([%jAax])", lambda found: words[found[1]], pattern)


def _output(pattern: str, launch: Launch, workdir: str) -> str:
    return os.path.join(workdir, expand_path(pattern, launch)) if pattern else ""


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as refused:
        raise LaunchRefused(f"a text of the job is not valid Unicode: {refused.reason}") from refused


# ---- cgroups -------------------------------------------------------------------------------------------------------


def find_cgroup() -> tuple[str, bool]:
    """The nearest cgroup v2 folder that we may make folders in ("" if none), and whether they can limit memory."""
    near = _own_cgroups()
    for distance, folder in enumerate(near):
        if _limits_memory(folder, enable=distance < 2) and _may_make_in(folder):
            return folder, True
    return next(((folder, False) for folder in near[:1] if _may_make_in(folder)), ("", False))


def _own_cgroups() -> list[str]:
    """Our own cgroup v2 folder and those above it, as far as they are mounted here."""
    try:
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            words, _, kind = line.partition(" - ")
            root, mounted = words.split()[3:5]
            if kind.startswith("cgroup2 ") and (own + "/").startswith(root.rstrip("/") + "/"):
                below = Path(own).relative_to(root)
                return [str(Path(mounted) / part) for part in (below, *below.parents)]
    except (OSError, StopIteration):
        pass
    return []


def _limits_memory(folder: str, *, enable: bool = False) -> bool:
    """Whether cgroups made in a folder can limit memory; `enable`: see to it, where that is ours to decide."""
    control = Path(folder) / "cgroup.subtree_control"
    try:
        if "memory" in control.read_text().split():
            return True
        if enable and "memory" in (Path(folder) / "cgroup.controllers").read_text().split():
            control.write_text("+memory")
            return True
    except OSError:  # not ours, or processes live in it
        pass
    return False


def _may_make_in(folder: str) -> bool:
    probe = Path(folder) / f"watteau-{secrets.token_hex(8)}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True
