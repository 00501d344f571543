"""The token that slurmrestd wants: from a file or a command, renewed before it ends or when it is refused."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from joserfc.errors import JoseError
from joserfc.jws import extract_compact

from watteau.domain.fleet import SlurmAccess
from watteau.engines.slurm.facts import TokenRefused

_COMMAND_TIMEOUT_S = 30
#: A token is renewed so long before its end, or when a quarter of its life is left if that is less.
_MOST_MARGIN_MS = 60_000


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and what it says of itself. That is not verified: it only hints at when to renew."""

    text: str
    user: str  # "": it does not say
    renew_ms: int | None  # when to renew it; None: when it is refused
    ends_ms: int | None


def read_token(text: str, now_ms: int) -> Token:
    """What a token says of itself; one that cannot be read is taken as it is."""
    try:
        said = json.loads(extract_compact(text.encode()).payload)
        begins_ms, ends_ms = (_ms(said.get(name)) for name in ("iat", "exp"))
        user = str(said.get("sun") or said.get("sub") or "")
    except (JoseError, ValueError, AttributeError):
        return Token(text, "", None, None)
    if ends_ms is None:
        return Token(text, user, None, None)
    # By our clock: the one that made the token may be ahead.
    life_ms = ends_ms - (now_ms if begins_ms is None else begins_ms)
    return Token(text, user, ends_ms - min(_MOST_MARGIN_MS, max(0, life_ms) // 4), ends_ms)


def _ms(seconds: object) -> int | None:
    return round(1000 * seconds) if isinstance(seconds, int | float) else None


class Tokens:
    """Where tokens come from. Thread-safe: one renewal at a time, and nobody renews what another just did."""

    def __init__(self, access: SlurmAccess, now_ms: Callable[[], int]) -> None:
        self._file = Path(access.token_file) if access.token_file else None
        self._command = access.token_command
        self._now_ms = now_ms
        self._lock = Lock()
        self._token: Token | None = None
        self._mark: tuple[int, int, int] | None = None  # of the file, when it was read

    def current(self) -> Token:
        """The token to use now. Raises TokenRefused where there is none to be had."""
        with self._lock:
            token = self._token
            now_ms = self._now_ms()
            if token is not None and self._file is not None:
                # A file is renewed by whoever writes it: each use looks whether that happened.
                return token if self._file_mark() == self._mark else self._renew()
            if token is None or (token.renew_ms is not None and now_ms >= token.renew_ms):
                try:
                    return self._renew()
                except TokenRefused:
                    # It is asked for again at the next use; the one at hand is good for a while.
                    if token is None or token.ends_ms is None or now_ms >= token.ends_ms:
                        raise
            return token

    def other_than(self, refused: Token) -> Token | None:
        """Another token than one that was refused; None: there is no other."""
        with self._lock:
            if self._token is not None and self._token.text != refused.text:
                return self._token  # another thread was faster
            token = self._renew()
            return None if token.text == refused.text else token

    def suspect(self, token: Token) -> None:
        """The next use renews this one: something failed that may have been its fault."""
        with self._lock:
            if self._token == token:
                self._token = self._mark = None

    @property
    def source(self) -> str:
        """Where tokens come from, for people."""
        return f"token_file {self._file}" if self._file else f"token_command {' '.join(self._command)}"

    def _renew(self) -> Token:
        if self._file is not None:
            mark = self._file_mark()
            text = self._read(self._file)
        else:
            mark, text = None, self._run()
        # `scontrol token` prints SLURM_JWT=..., as it is given to a shell.
        text = text.strip().rpartition("SLURM_JWT=")[2].strip()
        if not text or not text.isascii() or any(sign.isspace() for sign in text):
            raise TokenRefused(f"{self.source} gives no token: expected one word, or SLURM_JWT=..., as scontrol token")
        self._token, self._mark = read_token(text, self._now_ms()), mark
        return self._token

    def _file_mark(self) -> tuple[int, int, int] | None:
        assert self._file is not None
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self, file: Path) -> str:
        try:
            return file.read_text("utf-8", "replace")
        except OSError as error:
            raise TokenRefused(f"{self.source} cannot be read: {error.strerror or error}") from error

    def _run(self) -> str:
        program = self._command[0]
        if shutil.which(program) is None:
            raise TokenRefused(f"{self.source}: there is no program {program!r} here")
        try:
            done = subprocess.run(
                self._command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_COMMAND_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TokenRefused(f"{self.source} gave no token within {_COMMAND_TIMEOUT_S} s") from None
        except OSError as error:
            raise TokenRefused(f"{self.source} could not be started: {error.strerror or error}") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise TokenRefused(f"{self.source} failed with {done.returncode}: {said[-1] if said else 'no word of it'}")
        return done.stdout.decode("utf-8", "replace")
