"""Runs one attempt on the first node of a Slurm job: a program of its own, which `script.py` sends as the batch script.

It needs Python 3.6 or newer and nothing else there. Whoever links the mark `claim` runs the command, and nobody else
ever does: not a second job of the same name, and not the same job when Slurm starts it anew. How the command ended is
written down (`ended`) and told to Slurm by ending in the same way. What else is a mark, `marks.py` says.

It asks the time itself: `runtime/clock.py` is out of its reach. Whatever it imports beyond what Python has loaded by
then costs every job some milliseconds of a core: `json` and `contextlib` half of the time in which an attempt starts,
so marks are Python's literals, and `try` stands where `suppress` would. It is compiled once at each site (`script.py`).
"""

import errno
import os
import resource
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any, NoReturn
else:
    import _signal as signal  # the same without its enumerations, which take a fifth of that time

#: What this program ends with when it did not run the command; a command may end with them as well.
CANNOT_MARK, TAKEN, NO_PYTHON, FAILED = 73, 75, 74, 70

#: TERM and CONT go to all processes of a job, as Slurm sends them; these only to the batch shell, where asked for.
_PASSED_ON = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_HANDLED = _PASSED_ON | {signal.SIGCHLD, signal.SIGTERM, signal.SIGCONT}
_DAY_S, _LATE_S = 86_400.0, 0.5


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
        os._exit(CANNOT_MARK)
    try:
        attempt.run()
    except CannotRun as refused:
        attempt.end({"exit_code": refused.exit_code, "cause": str(refused)})
        os._exit(1 if refused.exit_code is None else refused.exit_code)
    except Exception as failed:
        attempt.end({"cause": f"Its batch script failed: {failed!r}.", "lost": True})
        os._exit(FAILED)
    attempt.leave()


class _Attempt:
    """One run of one command."""

    def __init__(self, launch: "dict[str, Any]") -> None:
        self.launch = launch
        self.folder = launch["folder"]  # type: str
        self.mine = f"{_slurm('JOB_ID', '0')}.{_slurm('RESTART_COUNT', '0')}.{os.getpid()}"
        self.umask = os.umask(0o027)
        self.pid = 0
        self.status = 0  # as wait gives it
        self.limited = False
        self.asked = False  # to end, by Slurm
        self.started_s = time.time()

    def claim(self) -> None:
        """Be the one that runs it, or leave."""
        os.makedirs(self.folder, exist_ok=True)
        fresh, claim = f"{self.folder}/.claim.{self.mine}", self.folder + "/claim"
        restarts = int(_slurm("RESTART_COUNT", "0"))
        said = {"job": int(_slurm("JOB_ID", "0")), "restarts": restarts, "nodes": _slurm("JOB_NODELIST", "")}
        _write(fresh, dict(said, at_s=int(self.started_s)), durably=True)
        try:
            os.link(fresh, claim)
        except FileExistsError:
            # Over NFS an answer may be lost, and the link be ours all the same.
            if not os.path.samefile(fresh, claim):
                os.unlink(fresh)
                os._exit(TAKEN)
        os.unlink(fresh)

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
            os.kill(0, signal.SIGTERM)
            os.kill(0, signal.SIGCONT)
            if not self._ends_within(self.launch["grace_s"]):
                self.status = signal.SIGKILL
                self.end({"signal": int(signal.SIGKILL)})
                os.kill(0, signal.SIGKILL)
        self._hear_late()
        if os.WIFSIGNALED(self.status):
            self.end({"signal": os.WTERMSIG(self.status)})
        else:
            self.end({"exit_code": os.WEXITSTATUS(self.status)})

    def end(self, how: "dict[str, Any]") -> None:
        """Write down how it ended; what cannot be written is known to Slurm all the same."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        sizes = {}
        for stream in ("stdout", "stderr"):
            try:
                sizes[stream] = os.stat(self.launch[stream]).st_size
            except OSError:
                pass
        ended = {
            "at_s": int(time.time()),
            "limited": self.limited,
            "asked": self.asked or (not self.limited and signal.SIGTERM in signal.sigpending()),
            "peak_memory_mib": used.ru_maxrss // 1024,
            "cpu_ms": int(1000 * (used.ru_utime + used.ru_stime)),
            "sizes": sizes,
        }
        try:
            self._mark("ended", dict(ended, **how))
        except OSError:
            pass

    def leave(self) -> "NoReturn":
        """End as the command did."""
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.kill(os.getpid(), number)
            os._exit(128 + number)
        os._exit(os.WEXITSTATUS(self.status))

    # -- before it runs

    def _workdir(self) -> str:
        workdir = self.launch["workdir"]  # type: str
        try:
            if workdir == self.folder + "/work":
                os.makedirs(workdir, exist_ok=True)
            os.chdir(workdir)
        except OSError as refused:
            cause = "The working directory %s cannot be used on %s: %s."
            raise CannotRun(cause % (_quoted(workdir), os.uname().nodename, refused.strerror)) from refused
        return workdir

    def _outputs(self) -> "tuple[int, int]":
        out = self._output("stdout")
        return out, self._output("stderr") if self.launch["stderr"] else out

    def _output(self, stream: str) -> int:
        path = self.launch[stream]  # type: str
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC
        try:
            opened = os.open(path, flags | os.O_NONBLOCK, 0o640)
            os.set_blocking(opened, True)
            if self.launch["number"] == 1 and stat.S_ISREG(os.fstat(opened).st_mode):
                os.ftruncate(opened, 0)
        except FileNotFoundError as refused:
            raise CannotRun(f"The folder {_quoted(os.path.dirname(path))} for {stream} does not exist.") from refused
        except OSError as refused:
            if refused.errno == errno.ENXIO:
                raise CannotRun(f"{_quoted(path)} for {stream} is a pipe that nobody reads.") from refused
            raise CannotRun(f"{_quoted(path)} for {stream} cannot be written: {refused.strerror}.") from refused
        return opened

    def _write_script(self) -> None:
        path = self.launch["argv"][0]
        script = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o750)
        with os.fdopen(script, "wb") as file:
            file.write(self.launch["script"].encode())

    def _environment(self, workdir: str) -> "dict[str, str]":
        """Slurm's own, then what was asked for, then what must be true of this attempt, which nobody overrides."""
        import pwd  # it may ask a directory service

        given = {
            name: text for name, text in os.environ.items() if name.startswith(("SLURM", "CUDA_", "ROCR_", "GPU_"))
        }
        base = {
            "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
        }
        base["TMPDIR"] = os.environ.get("TMPDIR", "/tmp")
        try:
            account = pwd.getpwuid(os.geteuid())
            base.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)
            base["SHELL"] = account.pw_shell or "/bin/sh"
        except KeyError:
            base.update(HOME="/", USER=str(os.geteuid()), LOGNAME=str(os.geteuid()), SHELL="/bin/sh")
        own = dict(self.launch["own"], WATTEAU_NODES=_nodes(), CUDA_DEVICE_ORDER="PCI_BUS_ID")
        if not self.launch["gpus"]:
            own["CUDA_VISIBLE_DEVICES"] = ""
        environment = dict(base, PWD=workdir)
        environment.update(self.launch["asked"])
        environment.update(given)
        environment.update(own)
        return environment

    def _spawn(self, workdir: str, out: int, err: int) -> None:
        environment = self._environment(workdir)
        said, saying = os.pipe()  # closes on exec
        self.pid = os.fork()
        if self.pid == 0:
            self._become_the_job(environment, out, err, saying)
        os.close(saying)
        os.close(out)
        if err != out:
            os.close(err)
        failure = b""
        while True:
            part = os.read(said, 4096)
            if not part:
                break
            failure += part
        os.close(said)
        if failure:
            os.waitpid(self.pid, 0)
            code, _, cause = failure.decode().partition(" ")
            raise CannotRun(cause, int(code) or None)

    def _become_the_job(self, environment: "dict[str, str]", out: int, err: int, saying: int) -> "NoReturn":
        """In the child: everything between fork and exec."""
        try:
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(out, 1)
            os.dup2(err, 2)
            for number in range(1, signal.NSIG):
                try:
                    signal.signal(number, signal.SIG_DFL)
                except (OSError, ValueError):  # KILL, STOP, and the C library's own
                    pass
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.umask(self.umask)
            _execute(self.launch["argv"], environment)
        except CannotRun as refused:
            os.write(saying, f"{refused.exit_code or 0} {refused}".encode())
        except BaseException as failed:
            os.write(saying, f"0 It could not be started: {failed}.".encode())
        finally:
            os._exit(127)

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
                    os.kill(self.pid, got.si_signo)
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
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == self.pid:
                self.status = status
                return True
            if pid == 0:
                return False

    def _mark(self, name: str, content: "dict[str, Any]") -> None:
        fresh = f"{self.folder}/.{name}.{self.mine}"
        _write(fresh, content, durably=name == "ended")
        os.rename(fresh, f"{self.folder}/{name}")


def _slurm(name: str, otherwise: str) -> str:
    return os.environ.get("SLURM_" + name) or otherwise


def _write(path: str, content: "dict[str, Any]", *, durably: bool) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        os.write(opened, ascii(content).encode())
        if durably:
            os.fsync(opened)
    finally:
        os.close(opened)


def _size(opened: int) -> int:
    """From which byte on a file is this attempt's; -1: a pipe or a device, and what goes there is not kept."""
    found = os.fstat(opened)
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


def _execute(argv: "list[str]", environment: "dict[str, str]") -> "NoReturn":
    """Become the command; looks along the job's own PATH. Raises CannotRun, with the code that a shell gives."""
    name = argv[0]
    tried = [name] if "/" in name else [part + "/" + name for part in environment.get("PATH", "").split(":") if part]
    kept = None  # type: OSError | None
    for path in tried:
        try:
            os.execve(path, argv, environment)
        except OSError as refused:
            # A folder of PATH that may not be searched is passed over, as a shell does.
            missing = (errno.ENOENT, errno.ENOTDIR) if "/" in name else (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
            if refused.errno in missing and not os.path.exists(path):
                continue
            kept = kept or refused
            if refused.errno != errno.EACCES:
                raise CannotRun(_cause(path, refused), 126) from refused
    if kept is None:
        where = "" if "/" in name else " in PATH"
        raise CannotRun(f"The command {_quoted(name)} was not found{where} on {os.uname().nodename}.", 127)
    raise CannotRun(_cause(name, kept), 126)


def _cause(path: str, refused: OSError) -> str:
    if refused.errno == errno.EACCES:
        why = "it is a folder" if os.path.isdir(path) else "permission denied"
        return f"{_quoted(path)} may not be executed: {why}."
    if refused.errno == errno.ENOEXEC:
        return f"{_quoted(path)} is neither a program for this machine nor a script that begins with #!."
    if refused.errno == errno.ENOENT:
        return f"The interpreter that {_quoted(path)} names in its first line does not exist on {os.uname().nodename}."
    if refused.errno == errno.E2BIG:
        return "Its arguments and environment are larger than the kernel takes."
    return f"{_quoted(path)} cannot be executed: {refused.strerror}."


def _quoted(text: str) -> str:
    quoted = repr(text)
    return quoted if len(quoted) <= 300 else quoted[:150] + "..." + quoted[-147:]
