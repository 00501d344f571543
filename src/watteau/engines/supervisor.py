"""Runs one attempt of the local engine to its end, whatever becomes of the server: a program of its own.

`python -I -S supervisor.py FOLDER` is started by its path, in a session of its own, and uses the standard library only,
so that neither the server's death nor a change of what is installed touches it. It is also the one place that knows
what lies in an attempt's folder; `local.py` imports those names from here. How the two stay exactly-once is written
down there.

It asks the time itself (`runtime/clock.py` is out of its reach, and may be gone): the wall clock for what it reports,
the monotonic clock for limits, so that a corrected wall clock kills nobody.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import stat
import struct
import sys
import time
import zlib

TYPE_CHECKING = False  # typing takes a tenth of the time in which an attempt starts; this is what mypy looks for
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

LAUNCH_FILE = "launch.json"
LOCK_FILE = "lock"
RECORD_FILE = "record"
SCRIPT_FILE = "script"
ERRORS_FILE = "supervisor.err"  # empty, unless the supervisor itself failed

#: The record's slots. STOP is written by whoever asks; the others only by the holder of the lock.
BEGAN, STOP, RUNS, ENDED = range(4)
_SLOT_BYTES = 8_192
RECORD_BYTES = 4 * _SLOT_BYTES
_MOST_CAUSE_BYTES = 4_000

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CLONE3, _CLONE_INTO_CGROUP = 435, 0x2_0000_0000  # the number of the call is the same on every architecture
_HANDLED = {signal.SIGCHLD, signal.SIGTERM}
#: How far before everything else on the machine a job's processes go when the kernel runs out of memory.
_OOM_SCORE = b"300"
_SHORT_S = 0.05

Slot = dict[str, "Any"]  # JSON at the edge of two programs


# ---- what both programs share: the record, the lock, the processes -----------------------------------------------


def short(cause: str) -> str:
    """As much of a cause as fits into its slot. JSON takes up to twelve bytes for a character."""
    while len(json.dumps(cause)) > _MOST_CAUSE_BYTES:
        cause = cause[: len(cause) * 3 // 4] + "..."
    return cause


def write_slot(record: int, slot: int, content: Slot) -> None:
    """Write one slot in place and make it durable.

    The file has its full size from the start, so this needs no new room: a job that fills the disk still gets its
    exit status recorded. The checksum makes a half-written slot an empty one.
    """
    body = json.dumps(content).encode()
    line = b"%08x " % zlib.crc32(body) + body + b"\n"
    if len(line) > _SLOT_BYTES:
        raise ValueError(f"a slot holds {_SLOT_BYTES} bytes, not {len(line)}")
    os.pwrite(record, line.ljust(_SLOT_BYTES, b"\0"), slot * _SLOT_BYTES)
    os.fdatasync(record)


def read_slots(record: int) -> tuple[Slot | None, Slot | None, Slot | None, Slot | None]:
    """BEGAN, STOP, RUNS and ENDED; None for what has not been written (whole)."""
    content = os.pread(record, RECORD_BYTES, 0)
    began, stop, runs, ended = (_slot(content[at : at + _SLOT_BYTES]) for at in range(0, RECORD_BYTES, _SLOT_BYTES))
    return began, stop, runs, ended


def _slot(content: bytes) -> Slot | None:
    line, end, _ = content.partition(b"\n")
    if not end or line[:8] != b"%08x" % zlib.crc32(line[9:]):
        return None
    said: Slot = json.loads(line[9:])
    return said


def take_lock(lock: int) -> bool:
    """Take the attempt's lock, without waiting; it is this open file's, and ends with it or with the process."""
    try:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK))
    except OSError as refused:
        if refused.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def lock_holder(lock: int) -> int | None:
    """The supervisor that holds the lock, without taking it: its pid, 0 if it cannot be said, None if there is none."""
    answer = fcntl.fcntl(lock, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK))
    kind, _, _, _, pid = struct.unpack_from("hhqqi", answer)
    return None if kind == fcntl.F_UNLCK else max(0, pid)


def _flock(kind: int) -> bytes:
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, 0, 0, 0)


def processes() -> Iterator[tuple[int, str, int, int, int]]:
    """(pid, state, parent, session, start in clock ticks since boot) of every process that can be seen."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                words = _read(f"/proc/{entry}/stat").rpartition(b")")[2].split()
                yield int(entry), words[0].decode(), int(words[1]), int(words[3]), int(words[19])


def boot_id() -> str:
    """Which boot of the machine this is: process numbers mean nothing in another one."""
    return _read("/proc/sys/kernel/random/boot_id").decode().strip()


def kill_cgroup(folder: str) -> None:
    """Kill all that runs in a cgroup of ours, at once; needs Linux 5.14."""
    if folder:
        with contextlib.suppress(OSError):
            _write(f"{folder}/cgroup.kill", b"1")


def remove_cgroup(folder: str) -> None:
    """Remove a cgroup of ours when nothing is left in it."""
    if folder:
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write(path: str, content: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(content)


# ---- the program ---------------------------------------------------------------------------------------------------


class CannotRun(Exception):  # noqa: N818 - the name says what happened
    """The command cannot be started as it was asked for: the cause, and the exit code a shell would give."""

    def __init__(self, cause: str, exit_code: int | None = None) -> None:
        super().__init__(cause)
        self.exit_code = exit_code


def main(folder: str) -> int:
    """Run the attempt of that folder, unless it was begun before or is being run. Returns the exit status."""
    # Before the lock: whoever sees the lock held may send a signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        lock = os.open(f"{folder}/{LOCK_FILE}", os.O_RDWR)
    except FileNotFoundError:
        return 0
    try:
        # A record lock, not flock: a forked child does not hold it, and the kernel tells others our pid.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 0
    record = os.open(f"{folder}/{RECORD_FILE}", os.O_RDWR)
    began, stop, _, ended = read_slots(record)
    if began or ended:
        return 0
    launch = json.loads(_read(f"{folder}/{LAUNCH_FILE}"))
    attempt = _Attempt(record, launch)
    if stop:
        attempt.end(stop["outcome"], _stopped(stop["outcome"], begun=False))
    else:
        attempt.run()
    with contextlib.suppress(OSError):
        os.write(1, f"{launch['name']}\n".encode())
    return 0


def _stopped(outcome: str, *, begun: bool) -> str:
    word = {"cancelled": "cancelled", "timed_out": "stopped at its time limit"}.get(outcome, f"stopped ({outcome})")
    return f"It was {word}{'' if begun else ' before it began'}."


class _Attempt:
    """One run of one command: its process group, its limits, its end."""

    def __init__(self, record: int, launch: Slot) -> None:
        self.record = record
        self.launch = launch
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.pid = 0
        self.started_ms: int | None = None
        self.status: int | None = None  # of the main process, once it is reaped
        self.asked = ""  # the outcome, when somebody or a limit asked it to end
        self.asked_cause = ""
        self.deadline_s: float | None = None  # monotonic: of the time limit, later of the grace
        self.cgroup = ""
        self.memory = ""  # how the memory limit is kept

    def run(self) -> None:
        """From the first file to the recorded end."""
        try:
            outputs = self._open_outputs()
            workdir = self._workdir()
        except CannotRun as refused:
            self.end("failed", str(refused), refused.exit_code)
            return
        write_slot(self.record, BEGAN, {"pid": os.getpid(), "outputs": [_which(each) for each in outputs]})
        # After BEGAN: whoever asks for a stop and finds no BEGAN sends no signal, and relies on this look.
        stop = read_slots(self.record)[STOP]
        if stop:
            self.end(stop["outcome"], _stopped(stop["outcome"], begun=False))
            return
        # Orphans of the job become our children: nothing that it starts can get away by leaving its group.
        self.libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._limit_memory()
        try:
            self._spawn(outputs, workdir)
        except CannotRun as refused:
            self._kill_all()
            self.end("failed", str(refused), refused.exit_code)
            return
        for each in set(outputs):
            os.close(each)
        if self.launch["time_limit_s"]:
            self.deadline_s = time.monotonic() + self.launch["time_limit_s"]
        self._wait()
        self._kill_all()
        self._judge()

    def end(self, outcome: str, cause: str, exit_code: int | None = None, signal_number: int | None = None) -> None:
        """Record how it ended, durably."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak_mib, cpu_ms = -(-used.ru_maxrss // 1024), round((used.ru_utime + used.ru_stime) * 1000)
        if self.memory == "cgroup v2":
            with contextlib.suppress(OSError, ValueError):
                peak_mib = -(-int(_read(f"{self.cgroup}/memory.peak")) // (1 << 20))
        remove_cgroup(self.cgroup)
        content: Slot = {
            "outcome": outcome,
            "cause": short(cause),
            "exit_code": exit_code,
            "signal": signal_number,
            "started_ms": self.started_ms,
            "ended_ms": time.time_ns() // 1_000_000,
            "peak_memory_mib": peak_mib if self.pid else None,
            "cpu_ms": cpu_ms if self.pid else None,
            "enforced": self._enforced(),
        }
        write_slot(self.record, ENDED, content)

    # -- before it runs

    def _open_outputs(self) -> tuple[int, int]:
        out = self._open_output(self.launch["stdout"], "stdout")
        if self.launch["stderr"] in ("", self.launch["stdout"]):
            return out, out
        return out, self._open_output(self.launch["stderr"], "stderr")

    def _open_output(self, path: str, stream: str) -> int:
        # A second attempt goes on where the first one left off: what it wrote is not lost.
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if self.launch["number"] > 1 else os.O_TRUNC)
        try:
            # Not blocking, not a terminal of ours: the path may be a pipe that nobody reads.
            opened = os.open(path, how | os.O_NONBLOCK | os.O_NOCTTY, 0o644)
        except (OSError, ValueError) as refused:
            raise CannotRun(_output_cause(path, stream, refused)) from refused
        os.set_blocking(opened, True)
        return opened

    def _workdir(self) -> str:
        path: str = self.launch["workdir"]
        try:
            if not stat.S_ISDIR(os.stat(path).st_mode):
                raise CannotRun(f"The working directory {_quoted(path)} is not a folder.")
        except (OSError, ValueError) as refused:
            why = "does not exist" if isinstance(refused, FileNotFoundError) else f"cannot be used: {_says(refused)}"
            raise CannotRun(f"The working directory {_quoted(path)} {why}.") from refused
        return path

    def _limit_memory(self) -> None:
        """Make the attempt's cgroup, where there can be one, and decide how its memory is limited."""
        bytes_ = self.launch["memory_mib"] << 20
        folder = self.launch["cgroup"]
        if folder:
            try:
                os.mkdir(folder)
                self.cgroup = folder
                if bytes_ and self.launch["cgroup_memory"]:
                    _write(f"{folder}/memory.max", b"%d" % bytes_)
                    self.memory = "cgroup v2"
                    with contextlib.suppress(OSError):  # kernels without swap have no such file
                        _write(f"{folder}/memory.swap.max", b"0")
                    _write(f"{folder}/memory.oom.group", b"1")
            except OSError:
                self.memory = ""
        if bytes_ and not self.memory:
            self.memory = "RLIMIT_DATA of each process"

    def _spawn(self, outputs: tuple[int, int], workdir: str) -> None:
        """Start the command. It waits for its first instruction until its process number is on record.

        So whatever is killed when, no command runs that nobody knows of.
        """
        go, gone = os.pipe(), os.pipe()  # both close on exec
        pid = self._fork()
        if pid == 0:
            os.close(go[1])  # or the end of our parent would not end the wait below
            self._become_the_job(go[0], gone[1], outputs, workdir)
        os.close(go[0])
        os.close(gone[1])
        self.pid = pid
        self.started_ms = time.time_ns() // 1_000_000
        runs: Slot = {"pid": pid, "start_ticks": _start_ticks(pid), "boot_id": boot_id(), "cgroup": self.cgroup}
        write_slot(self.record, RUNS, runs | {"started_ms": self.started_ms, "enforced": self._enforced()})
        with contextlib.suppress(BrokenPipeError):  # killed already: its exit status will say so
            os.write(go[1], b"m" if self.memory.startswith("RLIMIT") else b"-")
        os.close(go[1])
        failure = b""
        while part := os.read(gone[0], 4096):
            failure += part
        os.close(gone[0])
        if failure:
            said = json.loads(failure)
            raise CannotRun(said["cause"], said["exit_code"])
        with contextlib.suppress(OSError):  # the pipe may be full or its reader gone: then it is found by looking
            os.write(1, f"{self.launch['name']}\n".encode())

    def _fork(self) -> int:
        """Fork into the cgroup, where there is one.

        Moving a process into it afterwards takes the kernel longer than all else here (it waits for every core), so
        the child is born there, with Linux 5.7 and where clone3 is allowed. We have one thread: what os.fork does for
        the others is not missed.
        """
        if not self.cgroup:
            return os.fork()
        folder = os.open(self.cgroup, os.O_RDONLY | os.O_DIRECTORY)
        arguments = struct.pack("=11Q", _CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, folder)
        clone = ctypes.PyDLL(None).syscall
        pid = int(clone(ctypes.c_long(_CLONE3), ctypes.c_char_p(arguments), ctypes.c_size_t(len(arguments))))
        os.close(folder)
        if pid >= 0:
            return pid
        pid = os.fork()
        try:
            if pid:
                _write(f"{self.cgroup}/cgroup.procs", b"%d" % pid)
        except OSError:
            remove_cgroup(self.cgroup)
            self.cgroup = ""
            self.memory = "RLIMIT_DATA of each process" if self.memory else ""
        return pid

    def _become_the_job(self, go: int, gone: int, outputs: tuple[int, int], workdir: str) -> NoReturn:
        """In the child: everything between fork and exec. Never returns."""
        try:
            os.setsid()
            # If we are killed the job goes with us; what is recorded of it then (lost) is also true.
            self.libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            said = os.read(go, 1)
            if not said:
                os._exit(1)
            with contextlib.suppress(OSError):
                _write("/proc/self/oom_score_adj", _OOM_SCORE)
            os.chdir(workdir)
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(outputs[0], 1)
            os.dup2(outputs[1], 2)
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            if said == b"m":
                # Not RLIMIT_AS: address space that is only reserved would count, and no CUDA program would start.
                most, hard = self.launch["memory_mib"] << 20, resource.getrlimit(resource.RLIMIT_DATA)[1]
                most = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.setrlimit(resource.RLIMIT_DATA, (most, most))
            _execute(self.launch["argv"], self.launch["environment"])
        except CannotRun as refused:
            os.write(gone, json.dumps({"cause": str(refused), "exit_code": refused.exit_code}).encode())
        except BaseException as failed:
            os.write(gone, json.dumps({"cause": f"It could not be started: {failed}.", "exit_code": None}).encode())
        finally:
            os._exit(127)

    # -- while it runs

    def _wait(self) -> None:
        """Until the main process has ended, or was asked to and everything has, or the grace is over."""
        while True:
            ended = self._main_ended()
            if ended and (not self.asked or not self._others_live()):
                return
            left_s = None if self.deadline_s is None else self.deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                if self.asked:
                    return
                self._ask("timed_out", f"It reached its time limit of {self.launch['time_limit_s']} s.")
                continue
            if ended:  # others use the grace: nobody tells us when they are done
                left_s = _SHORT_S if left_s is None else min(left_s, _SHORT_S)
            # A day at most: sigtimedwait takes no infinite time, and huge ones overflow.
            got = signal.sigtimedwait(_HANDLED, 86_400 if left_s is None else min(left_s, 86_400))
            if got is not None and got.si_signo == signal.SIGTERM and not self.asked:
                stop = read_slots(self.record)[STOP]
                if stop:
                    self._ask(stop["outcome"], _stopped(stop["outcome"], begun=True))
                else:
                    self._ask("lost", "Its supervisor was asked to end, as when the machine is shut down.")

    def _ask(self, outcome: str, cause: str) -> None:
        """The polite signal, to everything that belongs to the job; the grace begins."""
        self.asked, self.asked_cause = outcome, cause
        self.deadline_s = time.monotonic() + self.launch["grace_s"]
        self._signal_group(signal.SIGTERM)
        for pid, _, session in self._descendants():
            if session != self.pid:
                _signal(pid, signal.SIGTERM)
        self._signal_group(signal.SIGCONT)

    def _main_ended(self) -> bool:
        """Whether the main process has; it is not reaped, so that its number (and its group's) stays its own."""
        while True:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return False
            if found.si_pid == self.pid:
                return True
            os.waitpid(found.si_pid, os.WNOHANG)

    def _others_live(self) -> bool:
        return any(state != "Z" for _, state, _ in self._descendants())

    def _descendants(self) -> list[tuple[int, str, int]]:
        """(pid, state, session) of every process below us."""
        below: dict[int, list[tuple[int, str, int]]] = {}
        for pid, state, parent, session, _ in processes():
            below.setdefault(parent, []).append((pid, state, session))
        found, parents = [], [os.getpid()]
        while parents:
            children = below.pop(parents.pop(), [])
            found += children
            parents += [pid for pid, _, _ in children]
        return found

    def _signal_group(self, number: int) -> None:
        if self.pid and self.status is None:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, number)

    # -- after it ran

    def _kill_all(self) -> None:
        """Kill and reap until we have no children: as a subreaper, that is until nothing of the job is left.

        It waits for ever for what the kernel does not let die: until then its GPUs and memory are not free.
        """
        scan = False
        while True:
            kill_cgroup(self.cgroup)
            self._signal_group(signal.SIGKILL)
            if scan:
                for pid, state, _ in self._descendants():
                    if state != "Z":
                        _signal(pid, signal.SIGKILL)
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if pid == 0:
                    break
                if pid == self.pid:
                    self.status = status
            if scan:
                signal.sigtimedwait({signal.SIGCHLD}, _SHORT_S)
            scan = True

    def _judge(self) -> None:
        """From the exit status and who asked for it, the outcome."""
        status = self.status or 0
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = None if number else os.WEXITSTATUS(status)
        if self.asked:
            self.end(self.asked, self.asked_cause, code, number)
        elif code == 0:
            self.end("completed", "", code)
        elif self.memory == "cgroup v2" and self._oom_kills():
            limit = f"It needed more than its memory limit of {self.launch['memory_mib']} MiB."
            self.end("out_of_memory", limit, code, number)
        else:
            self.end("failed", self._failure(code, number), code, number)

    def _oom_kills(self) -> int:
        try:
            events = dict(line.split() for line in _read(f"{self.cgroup}/memory.events").splitlines())
            return int(events[b"oom_kill"])
        except (OSError, KeyError, ValueError):
            return 0

    def _failure(self, code: int | None, number: int | None) -> str:
        cause = f"It exited with code {code}."
        if number:
            try:
                cause = f"It was ended by the signal {signal.Signals(number).name}."
            except ValueError:
                cause = f"It was ended by signal {number}."
        if number == signal.SIGKILL and self.memory != "cgroup v2":
            cause += " Watteau did not send it; the kernel does when the machine's memory is used up."
        elif self.memory.startswith("RLIMIT"):
            cause += (
                f" Whether it reached its limit of {self.launch['memory_mib']} MiB for each process cannot be told."
            )
        return cause

    def _enforced(self) -> list[str]:
        """How its limits are kept, a phrase each."""
        said = [f"memory: {self.memory}"] if self.memory else []
        if self.launch["time_limit_s"]:
            said.append(f"time: SIGTERM, after {self.launch['grace_s']} s SIGKILL")
        said.append("processes: " + ("cgroup v2, subreaper" if self.cgroup else "subreaper"))
        return said


def _execute(argv: list[str], environment: dict[str, str]) -> NoReturn:
    """Become the command; looks along the job's own PATH. Raises CannotRun, with the code that a shell gives."""
    name = argv[0]
    tried = [name] if "/" in name else [f"{part}/{name}" for part in environment.get("PATH", "").split(":") if part]
    kept: OSError | None = None
    for path in tried:
        try:
            _exec_when_written(path, argv, environment)
        except OSError as refused:
            # A folder of PATH that may not be searched is passed over, as a shell does.
            missing = (errno.ENOENT, errno.ENOTDIR) if "/" in name else (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
            if refused.errno in missing and not os.path.exists(path):
                continue
            kept = kept or refused
            if refused.errno != errno.EACCES:
                raise CannotRun(_exec_cause(path, refused), 126) from refused
        except ValueError as refused:
            raise CannotRun(f"The command cannot be passed on: {refused}.", 126) from refused
    if kept is None:
        where = "" if "/" in name else " in PATH"
        raise CannotRun(f"The command {_quoted(name)} was not found{where}.", 127)
    raise CannotRun(_exec_cause(name, kept), 126)


def _exec_when_written(path: str, argv: list[str], environment: dict[str, str]) -> NoReturn:
    # Another thread's fork may hold the script open for writing, for the instant before its own exec.
    for _ in range(50):
        try:
            os.execve(path, argv, environment)
        except OSError as refused:
            if refused.errno != errno.ETXTBSY:
                raise
            time.sleep(0.01)
    os.execve(path, argv, environment)


def _exec_cause(path: str, refused: OSError) -> str:
    if refused.errno == errno.EACCES:
        return (
            f"{_quoted(path)} may not be executed: {'it is a folder' if os.path.isdir(path) else 'permission denied'}."
        )
    if refused.errno == errno.ENOEXEC:
        return f"{_quoted(path)} is neither a program for this machine nor a script that begins with #!."
    if refused.errno == errno.ENOENT:
        first = b""
        with contextlib.suppress(OSError), open(path, "rb") as file:
            first = file.readline(256)
        interpreter = first.removeprefix(b"#!").rstrip(b"\n").decode(errors="replace").strip(" ")
        hint = " (the script has Windows line ends)" if interpreter.endswith("\r") else ""
        return f"The interpreter {_quoted(interpreter)} that {_quoted(path)} names does not exist{hint}."
    if refused.errno == errno.E2BIG:
        return "Its arguments and environment are larger than the kernel takes."
    return f"{_quoted(path)} cannot be executed: {_says(refused)}."


def _output_cause(path: str, stream: str, refused: OSError | ValueError) -> str:
    parent = os.path.dirname(path)
    if isinstance(refused, FileNotFoundError):
        return f"The folder {_quoted(parent)} for {stream} does not exist."
    if isinstance(refused, OSError) and refused.errno == errno.ENXIO:
        return f"{_quoted(path)} for {stream} is a pipe that nobody reads."
    return f"{_quoted(path)} for {stream} cannot be written: {_says(refused)}."


def _quoted(text: str) -> str:
    """A text of the job's in quotes, without control characters, its middle left out when it is long."""
    quoted = repr(text)
    return quoted if len(quoted) <= 300 else f"{quoted[:150]}...{quoted[-147:]}"


def _says(refused: OSError | ValueError) -> str:
    return refused.strerror or str(refused) if isinstance(refused, OSError) else str(refused)


def _which(opened: int) -> list[int]:
    """Which file it is, and from where on it is this attempt's: so that nothing else is ever shown as its log."""
    found = os.fstat(opened)
    return [found.st_dev, found.st_ino, found.st_size if stat.S_ISREG(found.st_mode) else -1]


def _start_ticks(pid: int) -> int:
    return int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
