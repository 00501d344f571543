"""The batch script that runs an attempt at a Slurm site: what is said to `attempt.py`, which it is."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from watteau.domain.units import GPU_MILLI
from watteau.engines.contract import Launch, LaunchRefused
from watteau.engines.local import expand_path
from watteau.engines.slurm import attempt

#: Names that a job's own environment cannot change: they come from another scheduler's shell, or from Slurm.
_NOT_ASKED = ("WATTEAU_", "SLURM_")
_GIVEN = frozenset({"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"})
#: What every attempt starts from; the rest is of the account, and is found on the node.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

_HEAD = f"""#!/bin/sh
''':'
for python in python3 /usr/libexec/platform-python; do
    command -v "$python" > /dev/null && exec "$python" -I -S -X utf8 "$0"
done
exit {attempt.NO_PYTHON}
'''
"""

#: To compile the program takes as long as Python takes to start. So the first attempt of a site keeps what came of it
#: beside the marks, and later ones read that, if it is of our own account and nobody else can write it.
_LOAD = """
import posix
import sys
from marshal import dumps, loads

kept = "%s/.attempt-%s-%x" % (BASE, DIGEST, sys.hexversion)
code = None
try:
    opened = posix.open(kept, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
    try:
        about = posix.fstat(opened)
        if about.st_uid == posix.geteuid() and not about.st_mode & 0o022:
            code = loads(posix.read(opened, about.st_size))
    finally:
        posix.close(opened)
except (OSError, EOFError, ValueError, TypeError):
    pass
if not hasattr(code, "co_code"):
    code = compile(PROGRAM, "attempt.py", "exec")
    fresh = "%s.%s.%d" % (kept, posix.environ.get(b"SLURM_JOB_ID", b"").decode(), posix.getpid())
    try:
        opened = posix.open(fresh, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
        try:
            posix.write(opened, dumps(code))
        finally:
            posix.close(opened)
        posix.rename(fresh, kept)
    except OSError:
        pass
exec(code)
main(LAUNCH)
"""


@dataclass(frozen=True, slots=True)
class Need:
    """What an attempt asks of Slurm: so many nodes, and so much of each."""

    workers: tuple[int, ...]  # on each node, the largest first
    cpus: int
    gpus: int
    memory_mib: int

    @property
    def nodes(self) -> int:
        """How many nodes."""
        return len(self.workers)


def need_of(launch: Launch) -> Need:
    """Slurm gives every node of a job the same: where workers are uneven, as much as the fullest node needs."""
    named = [place.node or f"unknown-{number}" for number, place in enumerate(launch.places)]
    workers = tuple(sorted(Counter(named).values(), reverse=True)) or (1,)
    return Need(
        workers=workers,
        cpus=max(1, -(-workers[0] * launch.cpu_milli // 1000)),
        gpus=-(-workers[0] * launch.gpu_milli // GPU_MILLI),
        memory_mib=workers[0] * launch.memory_mib,
    )


def batch_script(launch: Launch, folder: str) -> str:
    """The whole text that Slurm runs; `folder` is the attempt's own. Raises LaunchRefused for what cannot be run.

    It is a program for two: a shell looks for Python, which then takes the same file from its start.
    """
    argv = [f"{folder}/script", *launch.arguments] if launch.script else list(launch.command)
    workdir = launch.workdir or f"{folder}/work"
    if not argv or not argv[0]:
        raise LaunchRefused("there is neither a command nor a script")
    if not workdir.startswith("/"):
        raise LaunchRefused(f"the working directory {workdir!r} is not an absolute path")
    out = _output(launch.stdout, launch, workdir) or f"{folder}/stdout"
    err = _output(launch.stderr, launch, workdir)
    what = {
        "folder": folder,
        "number": launch.number,
        "argv": argv,
        "script": launch.script,
        "workdir": workdir,
        "stdout": out,
        "stderr": "" if err == out else err,
        "time_limit_s": launch.time_limit_s,
        "grace_s": launch.grace_s,
        "gpus": need_of(launch).gpus,
        "asked": _asked(launch.environment),
        "own": _own(launch, folder),
    }
    _check([*argv, launch.script, workdir, out, err, *launch.environment, *launch.environment.values()])
    program, digest = _program()
    base = os.path.dirname(os.path.dirname(folder))
    said = {"BASE": base, "DIGEST": digest, "PROGRAM": program, "LAUNCH": what}
    return _HEAD + "".join(f"{name} = {value!a}\n" for name, value in said.items()) + _LOAD


def _asked(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: text
        for name, text in environment.items()
        if name and "=" not in name and name not in _GIVEN and not name.startswith(_NOT_ASKED)
    }


def _own(launch: Launch, folder: str) -> dict[str, str]:
    """What must be true of this attempt; that of the node is added there. SLURM_* are Slurm's own, but for a few.

    To Slurm every task of an array is a job of its own, and every attempt a new one: what scripts read of that is ours.
    """
    own = {
        "WATTEAU_JOB_ID": str(launch.job_id),
        "WATTEAU_JOB_NAME": launch.job_name,
        "WATTEAU_ATTEMPT": str(launch.number),
        "WATTEAU_ATTEMPT_DIR": folder,
        "WATTEAU_TENANT": launch.tenant,
        "WATTEAU_USER": launch.user,
        "WATTEAU_WORKERS": str(max(1, len(launch.places))),
        "SLURM_JOB_NAME": launch.job_name,
        "SLURM_RESTART_COUNT": str(launch.number - 1),
    }
    if launch.workdir:
        own["SLURM_SUBMIT_DIR"] = launch.workdir
    if launch.array_id is not None and launch.array_index is not None:
        own["WATTEAU_ARRAY_ID"] = own["SLURM_ARRAY_JOB_ID"] = str(launch.array_id)
        own["WATTEAU_ARRAY_INDEX"] = own["SLURM_ARRAY_TASK_ID"] = str(launch.array_index)
    return own


def _output(pattern: str, launch: Launch, workdir: str) -> str:
    if not pattern:
        return ""
    path = expand_path(pattern, launch)
    return path if path.startswith("/") else f"{workdir}/{path}"


def _check(texts: Iterable[str]) -> None:
    for text in texts:
        if "\0" in text:
            raise LaunchRefused("a NUL cannot be part of a command, a path or the environment")
        try:
            text.encode()
        except UnicodeEncodeError as refused:
            raise LaunchRefused(f"a text of the job is not valid Unicode: {refused.reason}") from refused


@cache
def _program() -> tuple[str, str]:
    """The program, and a name that no other version of it has."""
    text = files("watteau.engines.slurm").joinpath("attempt.py").read_text(encoding="utf-8")
    return text, hashlib.sha256(text.encode()).hexdigest()[:16]
