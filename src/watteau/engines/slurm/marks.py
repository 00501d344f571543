"""The marks that attempts leave on storage that all nodes of a site see: who runs it, where it writes, how it ended.

They outlive slurmctld's memory, and make a second run of one attempt impossible: whoever links `claim` runs it, and
`link` is made once, whoever else tries at the same moment. `attempt.py` writes them, and `stop_before` does for an
attempt that is never to begin.

    FOLDER/000012/watteau-12345-1/
        claim    the Slurm job that runs it; or that it was stopped, and none ever does
        began    where its output goes, and from which byte on it is this attempt's
        stop     what its end is to be called
        ended    how the command ended
        script, work/, stdout
    FOLDER/owner  which Watteau's attempts these are
    FOLDER/.attempt-*  `attempt.py`, compiled

Each is a dictionary as Python writes it, and is there as a whole or not at all.
"""

import ast
import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from watteau.domain.fleet import SlurmAccess
from watteau.domain.requests import Outcome
from watteau.engines.slurm.facts import Slurm

_MOST_BYTES = 65_536
_PER_FOLDER = 1_000


@dataclass(frozen=True, slots=True)
class Claim:
    """Who runs an attempt: a Slurm job, in one of its runs; or nobody, ever."""

    at_s: int
    job_id: int = 0
    restarts: int = 0
    nodes: str = ""  # a host list
    stopped: Outcome | None = None  # it is never to begin


@dataclass(frozen=True, slots=True)
class Output:
    """Where one stream of an attempt goes. `base` below 0: to something that is no file."""

    path: str
    base: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How the command ended."""

    at_s: int
    exit_code: int | None
    signal: int | None
    limited: bool  # by its time limit
    cause: str
    asked: bool = False  # Slurm had sent SIGTERM; it alone knows why
    lost: bool = False  # through no fault of the command's
    peak_memory_mib: int | None = None  # of the largest process
    cpu_ms: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)  # of "stdout" and "stderr", as whole files


def folder_of(base: str, name: str) -> str:
    """An attempt's own folder; a thousand jobs share the one above it."""
    _, _, rest = name.partition("-")
    job_id = rest.partition("-")[0]
    return f"{base}/{int(job_id) // _PER_FOLDER if job_id.isdigit() else 0:06d}/{name}"


class Marks:
    """The marks at one site, read through its cluster. Reading raises EngineUnreachable; writing, OSError."""

    def __init__(self, access: SlurmAccess, slurm: Slurm) -> None:
        self._slurm = slurm
        self.base = access.folder.rstrip("/")
        self._here = access.folder_here.rstrip("/")
        #: Whether files of the nodes can be read at all: slurmrestd shows none.
        self.readable = bool(access.folder_here) or not access.rest_url
        #: Whether they can be written. It costs next to nothing to look there, then.
        self.near = bool(access.folder_here)

    def claim(self, name: str) -> Claim | None:
        """Who claimed the attempt; None: nobody yet, or it cannot be known."""
        said = self._read(name, "claim")
        if said is None:
            return None
        return Claim(
            at_s=_number(said, "at_s") or 0,
            job_id=_number(said, "job") or 0,
            restarts=_number(said, "restarts") or 0,
            nodes=str(said.get("nodes", "")),
            stopped=_outcome(said["stopped"]) if "stopped" in said else None,
        )

    def outputs(self, name: str) -> dict[str, Output] | None:
        """Where "stdout", and "stderr" where it is apart, go; None: it did not come so far."""
        said = self._read(name, "began")
        if said is None:
            return None
        found = {}
        for stream in ("stdout", "stderr"):
            match said.get(stream):
                case [str() as path, int() as base]:
                    found[stream] = Output(path, base)
        return found

    def ended(self, name: str) -> Ended | None:
        """How the command ended; None: it did not, or was killed together with what would have written it down."""
        said = self._read(name, "ended")
        if said is None or (at_s := _number(said, "at_s")) is None:
            return None
        found = said.get("sizes")
        sizes = found.items() if isinstance(found, dict) else ()
        return Ended(
            at_s=at_s,
            exit_code=_number(said, "exit_code"),
            signal=_number(said, "signal"),
            limited=said.get("limited") is True,
            cause=str(said.get("cause", "")),
            asked=said.get("asked") is True,
            lost=said.get("lost") is True,
            peak_memory_mib=_number(said, "peak_memory_mib"),
            cpu_ms=_number(said, "cpu_ms"),
            sizes={str(stream): size for stream, size in sizes if isinstance(size, int)},
        )

    def shows_begin(self, name: str) -> bool:
        """Whether somebody has claimed the attempt, by a look that costs next to nothing."""
        return self.near and os.path.exists(f"{folder_of(self._here, name)}/claim")

    def shows_end(self, name: str) -> bool:
        """Whether the command has ended, by a look that costs next to nothing; over NFS it may come late."""
        return self.near and os.path.exists(f"{folder_of(self._here, name)}/ended")

    def stop(self, name: str) -> Outcome | None:
        """What its end is to be called, where somebody asked for it."""
        said = self._read(name, "stop") if self.near else None
        return None if said is None else _outcome(said.get("outcome"))

    def write_stop(self, name: str, why: Outcome) -> None:
        """Remember what its end is to be called, across restarts."""
        folder = self._own_folder(name)
        self._put(folder / "stop", {"outcome": why.value})

    def own(self, owner: str) -> str:
        """Who has the folder: `owner` from now on, if nobody had it before."""
        path = Path(self._here) / "owner"
        with contextlib.suppress(FileNotFoundError):
            return path.read_text(encoding="utf-8", errors="replace").strip()
        fresh = path.with_name(f".owner.{secrets.token_hex(8)}")
        try:
            with open(fresh, "w", encoding="utf-8") as file:
                file.write(owner + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
        return path.read_text(encoding="utf-8", errors="replace").strip()

    def stop_before(self, name: str, why: Outcome, at_s: int) -> bool:
        """See to it that the attempt never begins; False: it was claimed before."""
        folder = self._own_folder(name)
        fresh = self._put(folder / f".claim.{secrets.token_hex(8)}", {"stopped": why.value, "at_s": at_s})
        try:
            os.link(fresh, folder / "claim")
        except FileExistsError:
            # Over NFS an answer may be lost, and the link be ours all the same.
            return (folder / "claim").stat().st_ino == fresh.stat().st_ino
        finally:
            fresh.unlink()
        return True

    def _own_folder(self, name: str) -> Path:
        """The attempt's folder as this machine sees it, made as its jobs would have made it: they write there, too."""
        base = Path(self._here)
        found = base.stat()
        folder = Path(folder_of(self._here, name))
        for each in (folder.parent, folder):
            with contextlib.suppress(FileExistsError):
                each.mkdir()
                each.chmod(found.st_mode & 0o7777)
                if os.geteuid() == 0:
                    os.chown(each, found.st_uid, found.st_gid)
        return folder

    def _put(self, path: Path, content: Mapping[str, object]) -> Path:
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with open(fresh, "w", encoding="utf-8") as file:
            file.write(ascii(dict(content)))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        return path

    def _read(self, name: str, mark: str) -> Mapping[str, Any] | None:
        if not self.readable:
            return None
        path = f"{folder_of(self.base, name)}/{mark}"
        try:
            content = self._slurm.read_file(path, 0, _MOST_BYTES)
        except FileNotFoundError:
            return None
        # Jobs can write there, too. What is not a mark as it should be is one that says nothing.
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            said = ast.literal_eval(content.decode())
            if isinstance(said, dict):
                return said
        return {}


def _number(said: Mapping[str, object], key: str) -> int | None:
    number = said.get(key)
    return number if isinstance(number, int) and abs(number) < 1 << 53 else None


def _outcome(word: object) -> Outcome:
    try:
        return Outcome(str(word))
    except ValueError:
        return Outcome.CANCELLED
