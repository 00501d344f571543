"""Runs one attempt on the first node of a Slurm job: a program of its own, which `script.py` sends as the batch script.

It needs Python 3.6 or newer and nothing else there. Whoever links the mark `claim` runs the command, and nobody else
ever does: not a second job of the same name, and not the same job when Slurm starts it anew. How the command ended is
written down (`ended`) and told to Slurm by ending in the same way. What else is a mark, `marks.py` says.

It asks the time itself: `runtime/clock.py` is out of its reach. Whatever it imports beyond what Python has loaded by
then costs every job some milliseconds of a core: `json` and `contextlib` half of the time in which an attempt starts,
`os` an eighth. So marks are Python's literals, `try` stands where `suppress` would, and the modules below are those
that are part of Python's own program. It is compiled once at each site (`script.py`).
"""

import errno
import posix
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import stat
    from typing import Any, NoReturn
else:
    import _signal as signal  # the same without its enumerations, which take a fifth of that time
    import _stat as stat

#: What this program ends with when it did not run the command; a command may end with them as well.
CANNOT_MARK, TAKEN, NO_PYTHON, FAILED = 73, 75, 74, 70

#: TERM and CONT go to all processes of a job, as Slurm sends them; these only to the batch shell, where asked for.
_PASSED_ON = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_HANDLED = _PASSED_ON | {signal.SIGCHLD, signal.SIGTERM, signal.SIGCONT}
_DAY_S, _LATE_S = 86_400.0, 0.5
_ENVIRONMENT = {
    name.decode(errors="surrogateescape"): text.decode(errors="surrogateescape") for name, text in posix.environ.items()
}


class CannotRun(Exception):  # noqa: N818 - the name says what happened
    """The command cannot be started as it was asked for: the cause, and the exit code that a shell would give."""

    def __init__(self, cause: str, exit_code: "int | None" = None) -> None:
        super().__init__(cause)
        self.exit_code = exit_code


def main(launch: "dict[str, Any]") -> "NoReturn":
    """Run an attempt; `script.py` says what is known of it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    attempt = _Attempt(launch)
    try:
        attempt.claim()
    except OSError:
        posix._exit(CANNOT_MARK)
    try:
        attempt.run()
    except CannotRun as refused:
        attempt.end({"exit_code": refused.exit_code, "cause": str(refused)})
        posix._exit(1 if refused.exit_code is None else refused.exit_code)
    except Exception as failed:
        attempt.end({"cause": f"Its batch script failed: {failed!r}.", "lost": True})
        posix._exit(FAILED)
    attempt.leave()


class _Attempt:
    """One run of one command."""

    def __init__(self, launch: "dict[str, Any]") -> None:
        self.launch = launch
        self.folder = launch["folder"]  # type: str
        self.mine = f"{_slurm('JOB_ID', '0')}.{_slurm('RESTART_COUNT', '0')}.{posix.getpid()}"
        self.umask = posix.umask(0o027)
        self.pid = 0
        self.status = 0  # as wait gives it
        self.peak_kib, self.cpu_s = 0, 0.0  # of what has ended
        self.limited = False
        self.asked = False  # to end, by Slurm
        self.started_s = time.time()

    def claim(self) -> None:
        """Be the one that runs it, or leave."""
        _make_folder(self.folder)
        fresh, claim = f"{self.folder}/.claim.{self.mine}", self.folder + "/claim"
        restarts = int(_slurm("RESTART_COUNT", "0"))
        said = {"job": int(_slurm("JOB_ID", "0")), "restarts": restarts, "nodes": _slurm("JOB_NODELIST", "")}
        _write(fresh, dict(said, at_s=int(self.started_s)), durably=True)
        try:
            posix.link(fresh, claim)
        except FileExistsError:
            # Over NFS an answer may be lost, and the link be ours all the same.
            if posix.stat(fresh).st_ino != posix.stat(claim).st_ino:
                posix.unlink(fresh)
                posix._exit(TAKEN)
        posix.unlink(fresh)

    def run(self) -> None:
        """From the first file to the recorded end."""
        workdir = self._workdir()
        out, err = self._outputs()
        began = {"stdout": [self.launch["stdout"], _size(out)]}
        if err != out:
            began["stderr"] = [self.launch["stderr"], _size(err)]
        self._mark("began", began)
        if self.launch["script"]:
            self._write_script()
        self._spawn(workdir, out, err)
        if not self._ends_within(self.launch["time_limit_s"] or None):
            self.limited = True
            posix.kill(0, signal.SIGTERM)
            posix.kill(0, signal.SIGCONT)
            if not self._ends_within(self.launch["grace_s"]):
                self.status = signal.SIGKILL
                self.end({"signal": int(signal.SIGKILL)})
                posix.kill(0, signal.SIGKILL)
        self._hear_late()
        if posix.WIFSIGNALED(self.status):
            self.end({"signal": posix.WTERMSIG(self.status)})
        else:
            self.end({"exit_code": posix.WEXITSTATUS(self.status)})

    def end(self, how: "dict[str, Any]") -> None:
        """Write down how it ended; what cannot be written is known to Slurm all the same."""
        sizes = {}
        for stream in ("stdout", "stderr"):
            try:
                sizes[stream] = posix.stat(self.launch[stream]).st_size
            except OSError:
                pass
        ended = {
            "at_s": int(time.time()),
            "limited": self.limited,
            "asked": self.asked or (not self.limited and signal.SIGTERM in signal.sigpending()),
            "peak_memory_mib": self.peak_kib // 1024,
            "cpu_ms": int(1000 * self.cpu_s),
            "sizes": sizes,
        }
        try:
            self._mark("ended", dict(ended, **how))
        except OSError:
            pass

    def leave(self) -> "NoReturn":
        """End as the command did."""
        if posix.WIFSIGNALED(self.status):
            import resource

            number = posix.WTERMSIG(self.status)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            posix.kill(posix.getpid(), number)
            posix._exit(128 + number)
        posix._exit(posix.WEXITSTATUS(self.status))

    # -- before it runs

    def _workdir(self) -> str:
        workdir = self.launch["workdir"]  # type: str
        try:
            if workdir == self.folder + "/work":
                _make_folder(workdir)
            posix.chdir(workdir)
        except OSError as refused:
            cause = "The working directory %s cannot be used on %s: %s."
            raise CannotRun(cause % (_quoted(workdir), posix.uname().nodename, refused.strerror)) from refused
        return workdir

    def _outputs(self) -> "tuple[int, int]":
        out = self._output("stdout")
        return out, self._output("stderr") if self.launch["stderr"] else out

    def _output(self, stream: str) -> int:
        path = self.launch[stream]  # type: str
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_NOCTTY | posix.O_CLOEXEC
        try:
            opened = posix.open(path, flags | posix.O_NONBLOCK, 0o640)
            posix.set_blocking(opened, True)
            if self.launch["number"] == 1 and stat.S_ISREG(posix.fstat(opened).st_mode):
                posix.ftruncate(opened, 0)
        except FileNotFoundError as refused:
            raise CannotRun(
                f"The folder {_quoted(path.rpartition('/')[0] or '/')} for {stream} does not exist."
            ) from refused
        except OSError as refused:
            if refused.errno == errno.ENXIO:
                raise CannotRun(f"{_quoted(path)} for {stream} is a pipe that nobody reads.") from refused
            raise CannotRun(f"{_quoted(path)} for {stream} cannot be written: {refused.strerror}.") from refused
        return opened

    def _write_script(self) -> None:
        path = self.launch["argv"][0]
        script = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o750)
        try:
            _write_all(script, self.launch["script"].encode())
        finally:
            posix.close(script)

    def _environment(self, workdir: str) -> "dict[str, str]":
        """Slurm's own, then what was asked for, then what must be true of this attempt, which nobody overrides."""
        import pwd  # it may ask a directory service

        given = {
            name: text for name, text in _ENVIRONMENT.items() if name.startswith(("SLURM", "CUDA_", "ROCR_", "GPU_"))
        }
        base = {
            "PATH": _ENVIRONMENT.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
            "LANG": _ENVIRONMENT.get("LANG", "C.UTF-8"),
        }
        base["TMPDIR"] = _ENVIRONMENT.get("TMPDIR", "/tmp")
        try:
            account = pwd.getpwuid(posix.geteuid())
            base.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)
            base["SHELL"] = account.pw_shell or "/bin/sh"
        except KeyError:
            base.update(HOME="/", USER=str(posix.geteuid()), LOGNAME=str(posix.geteuid()), SHELL="/bin/sh")
        own = dict(self.launch["own"], WATTEAU_NODES=_nodes(), CUDA_DEVICE_ORDER="PCI_BUS_ID")
        if not self.launch["gpus"]:
            own["CUDA_VISIBLE_DEVICES"] = ""
        environment = dict(base, PWD=workdir)
        environment.update(self.launch["asked"])
        environment.update(given)
        environment.update(own)
        return environment

    def _spawn(self, workdir: str, out: int, err: int) -> None:
        """Start the command; looks along the job's own PATH. Raises CannotRun, with the code that a shell gives."""
        argv, environment = self.launch["argv"], self._environment(workdir)
        name = argv[0]  # type: str
        along = [] if "/" in name else [part for part in environment.get("PATH", "").split(":") if part]
        kept = None  # type: OSError | None
        posix.umask(self.umask)
        for path in [part + "/" + name for part in along] or [name]:
            try:
                self.pid = _start(path, argv, environment, out, err)
                break
            except OSError as refused:
                # A folder of PATH that may not be searched is passed over, as a shell does.
                missing = {errno.ENOENT, errno.ENOTDIR} | ({errno.EACCES} if along else set())
                if refused.errno in missing and not _is_there(path):
                    continue
                kept = kept or refused
                if refused.errno != errno.EACCES:
                    raise CannotRun(_cause(path, refused), 126) from refused
        posix.umask(0o027)
        posix.close(out)
        if err != out:
            posix.close(err)
        if not self.pid and kept is not None:
            raise CannotRun(_cause(name, kept), 126)
        if not self.pid:
            where = "" if "/" in name else " in PATH"
            raise CannotRun(f"The command {_quoted(name)} was not found{where} on {posix.uname().nodename}.", 127)

    # -- while it runs

    def _ends_within(self, seconds: "float | None") -> bool:
        """Whether the command ended before so many seconds were over; None: as many as it takes."""
        until_s = None if seconds is None else time.monotonic() + seconds
        while not self._ended():
            left_s = _DAY_S if until_s is None else min(_DAY_S, until_s - time.monotonic())
            if left_s <= 0:
                return False
            got = signal.sigtimedwait(_HANDLED, left_s)
            if got is not None and got.si_signo == signal.SIGTERM:
                self.asked = self.asked or not self.limited
            elif got is not None and got.si_signo in _PASSED_ON:
                try:
                    posix.kill(self.pid, got.si_signo)
                except OSError:
                    pass
        return True

    def _hear_late(self) -> None:
        """Slurm signals one process after the other, us the last: who ended by SIGTERM was asked to."""
        by_term = signal.SIGTERM in (self.status & 0x7F, (self.status >> 8) - 128)
        if by_term and not self.limited and not self.asked:
            self.asked = signal.sigtimedwait({signal.SIGTERM}, _LATE_S) is not None

    def _ended(self) -> bool:
        """Reap what ended; whether the command did."""
        while True:
            try:
                pid, status, used = posix.wait4(-1, posix.WNOHANG)
            except ChildProcessError:
                return True
            self.peak_kib = max(self.peak_kib, used.ru_maxrss)
            self.cpu_s += used.ru_utime + used.ru_stime
            if pid == self.pid:
                self.status = status
                return True
            if pid == 0:
                return False

    def _mark(self, name: str, content: "dict[str, Any]") -> None:
        fresh = f"{self.folder}/.{name}.{self.mine}"
        _write(fresh, content, durably=name == "ended")
        posix.rename(fresh, f"{self.folder}/{name}")


def _slurm(name: str, otherwise: str) -> str:
    return _ENVIRONMENT.get("SLURM_" + name) or otherwise


def _write(path: str, content: "dict[str, Any]", *, durably: bool) -> None:
    opened = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o640)
    try:
        _write_all(opened, ascii(content).encode())
        if durably:
            posix.fsync(opened)
    finally:
        posix.close(opened)


def _write_all(opened: int, content: bytes) -> None:
    while content:
        content = content[posix.write(opened, content) :]


def _size(opened: int) -> int:
    """From which byte on a file is this attempt's; -1: a pipe or a device, and what goes there is not kept."""
    found = posix.fstat(opened)
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def _nodes() -> str:
    """The names of the job's nodes, with commas."""
    nodes = _slurm("JOB_NODELIST", "")
    if "[" in nodes:
        import subprocess

        try:
            nodes = ",".join(subprocess.check_output(["scontrol", "show", "hostnames", nodes]).decode().split())
        except (OSError, subprocess.CalledProcessError):
            pass
    return nodes


def _start(path: str, argv: "list[str]", environment: "dict[str, str]", out: int, err: int) -> int:
    """A new process as a shell would start it: returns its id. Raises OSError as `exec` does."""
    if not hasattr(posix, "posix_spawn"):  # Python 3.7 and older
        return _fork(path, argv, environment, out, err)
    files = [
        (posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDONLY, 0),
        (posix.POSIX_SPAWN_DUP2, out, 1),
        (posix.POSIX_SPAWN_DUP2, err, 2),
    ]
    defaults = signal.valid_signals()
    return posix.posix_spawn(path, argv, environment, file_actions=files, setsigmask=(), setsigdef=defaults)


def _fork(path: str, argv: "list[str]", environment: "dict[str, str]", out: int, err: int) -> int:
    """What `posix_spawn` does, in thrice its time."""
    said, saying = posix.pipe()  # closes on exec
    pid = posix.fork()
    if pid == 0:
        try:
            posix.dup2(posix.open("/dev/null", posix.O_RDONLY), 0)
            posix.dup2(out, 1)
            posix.dup2(err, 2)
            for number in range(1, signal.NSIG):
                try:
                    signal.signal(number, signal.SIG_DFL)
                except (OSError, ValueError):  # KILL, STOP, and the C library's own
                    pass
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            posix.execve(path, argv, environment)
        except OSError as refused:
            posix.write(saying, str(refused.errno).encode())
        finally:
            posix._exit(127)
    posix.close(saying)
    failure = posix.read(said, 16)
    posix.close(said)
    if failure:
        posix.waitpid(pid, 0)
        raise OSError(int(failure), posix.strerror(int(failure)))
    return pid


def _make_folder(path: str) -> None:
    """A folder, and those above it, where they are not there yet."""
    above = path.rpartition("/")[0]
    if above and not _is_there(above):
        _make_folder(above)
    try:
        posix.mkdir(path)
    except FileExistsError:
        pass


def _is_there(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def _cause(path: str, refused: OSError) -> str:
    if refused.errno == errno.EACCES:
        why = "it is a folder" if _is_there(path + "/.") else "permission denied"
        return f"{_quoted(path)} may not be executed: {why}."
    if refused.errno == errno.ENOEXEC:
        return f"{_quoted(path)} is neither a program for this machine nor a script that begins with #!."
    if refused.errno == errno.ENOENT:
        return (
            f"The interpreter that {_quoted(path)} names in its first line does not exist on {posix.uname().nodename}."
        )
    if refused.errno == errno.E2BIG:
        return "Its arguments and environment are larger than the kernel takes."
    return f"{_quoted(path)} cannot be executed: {refused.strerror}."


def _quoted(text: str) -> str:
    quoted = repr(text)
    return quoted if len(quoted) <= 300 else quoted[:150] + "..." + quoted[-147:]
