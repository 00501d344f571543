"""Runs attempts that only take time: each ends when its simulated run time, or its limit, is over."""

import contextlib
import heapq
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from watteau.domain.requests import Outcome
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

_NEVER_MS = 1 << 60
_STARTS_FILE = "attempts.jsonl"


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One attempt, and when and how it ends if nobody stops it. This is also one line of the file of starts."""

    name: str
    started_ms: int | None  # None: stopped before it was started
    end_ms: int
    outcome: str
    nodes: str
    runtime_s: float  # simulated


class SimulatedEngine:
    """Attempts that end after `Launch.simulated_runtime_s` (without one: at their time limit, or when stopped).

    A simulated second takes 1/`speed` seconds of `now_ms`. An attempt ends at the millisecond that follows from its
    start, not when that is noticed, and changes are told in the order of those ends: two runs with the same clock tell
    the same story. With a clock that is not the wall's, call `settle` after moving it.

    It has no processes. Without `folder` it forgets everything when it is closed, and `adopt` says ABSENT of what it
    has forgotten. With one, starts and stops are appended to a file there, and a later engine on that folder adopts
    each attempt with its first start and its end. They are not synced: a power cut may lose the last of them, and then
    those start again. Beyond `most_ended` ended attempts the oldest are forgotten.
    """

    def __init__(
        self,
        nodes: Iterable[NodeCapacity],
        now_ms: Callable[[], int],
        speed: float = 1.0,
        *,
        folder: Path | None = None,
        most_ended: int = 100_000,
    ) -> None:
        if not speed > 0:
            raise ValueError("the speed must be above 0")
        self.capabilities = Capabilities(runs_commands=False, notes=("simulated: nothing is run",))
        self._nodes = tuple(nodes)
        self._now_ms = now_ms
        self._speed = speed
        self._most_ended = most_ended
        self._state = threading.Condition()  # guards all below, and wakes the timer
        self._attempts: dict[str, _Attempt] = {}
        self._running: set[str] = set()
        self._ended: deque[str] = deque()
        self._heap: list[tuple[int, int, str]] = []  # (end, order of start, name); stale after a stop
        self._order = 0
        self._changes: deque[Observation] = deque()
        self._wakes: list[Callable[[], None]] = []
        self._silent = False
        self._closed = False
        self._file: int | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._load(folder / _STARTS_FILE)
        self._timer = threading.Thread(target=self._wait_for_ends, name="watteau-simulated-engine", daemon=True)
        self._timer.start()

    # ---- the contract

    def capacity(self) -> tuple[NodeCapacity, ...]:
        """The nodes as given."""
        with self._state:
            self._check()
            return self._nodes

    def start_all(self, launches: Sequence[Launch]) -> list[tuple[str, str]]:
        """One after the other; see the contract."""
        return one_by_one(self, launches)

    def start(self, launch: Launch) -> None:
        """Start an attempt once; see the contract."""
        with self._state:
            self._check()
            if launch.name in self._attempts:
                return
            unknown = {place.node for place in launch.places} - {node.node for node in self._nodes}
            if unknown:
                raise LaunchRefused(f"this engine has no node {', '.join(sorted(unknown))}")
            try:
                self._keep(self._plan(launch))
            except OSError as failed:
                raise EngineUnreachable(f"the start cannot be written down: {failed.strerror or failed}") from failed
            self._running.add(launch.name)
            self._changes.append(self._observe(launch.name))
            self._state.notify_all()
        self._wake()

    def stop(self, name: str, why: Outcome) -> None:
        """End an attempt now (nothing is there that would need a grace), or see to it that it never starts."""
        with self._state:
            self._check()
            now_ms = self._now_ms()
            self._end_due(now_ms)
            known = self._attempts.get(name)
            if known is not None and name not in self._running:
                return
            stopped = replace(known or _Attempt(name, None, 0, "", "", 0.0), end_ms=now_ms, outcome=why.value)
            try:
                self._keep(stopped)
            except OSError as failed:
                raise EngineUnreachable(f"the stop could not be written down: {failed.strerror or failed}") from failed
            self._close_attempt(name)
        self._wake()

    def adopt(self, names: Iterable[str]) -> list[Observation]:
        """One observation for each name; ABSENT for what was never started, or was forgotten."""
        with self._state:
            self._check()
            self._end_due(self._now_ms())
            return [self._observe(name) for name in names]

    def changes(self) -> list[Observation]:
        """What changed since the last call, in the order in which it happened."""
        with self._state:
            self._check()
            self._end_due(self._now_ms())
            found = list(self._changes)
            self._changes.clear()
            return found

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call `wake` from now on whenever there are changes; at once when there are some already."""
        with self._state:
            self._wakes.append(wake)
        self._wake()

    def read_log(self, name: str, stream: str, start: int, most: int) -> LogPart:
        """A few lines that say what would have run. There is no stderr."""
        if start < 0 or most < 0:
            raise ValueError("an offset or a length is below zero")
        with self._state:
            self._check()
            self._end_due(self._now_ms())
            attempt = self._attempts.get(name)
            if attempt is None or stream != "stdout":
                raise FileNotFoundError(f"{name} has no {stream}")
            ended = name not in self._running
        content = _log(attempt, ended=ended)
        part = content[start : start + most]
        return LogPart(part, start + len(part), ended and start + len(part) >= len(content))

    def close(self) -> None:
        """End the timer. With a folder the attempts go on; without one they are forgotten."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            if self._file is not None:
                os.close(self._file)
            self._state.notify_all()
        if threading.current_thread() is not self._timer:
            self._timer.join()

    # ---- for tests and demonstrations

    def silence(self) -> None:
        """From now on every call raises EngineUnreachable, and nobody is woken. Attempts go on, and end."""
        with self._state:
            self._silent = True

    def answer(self) -> None:
        """Answer again; what happened meanwhile is told by `changes`."""
        with self._state:
            self._silent = False
            self._state.notify_all()
        self.settle()

    def settle(self) -> None:
        """End what is due by the clock, now."""
        with self._state:
            self._end_due(self._now_ms())
        self._wake()

    # ---- within

    def _check(self) -> None:
        if self._closed:
            raise EngineUnreachable("this engine was closed")
        if self._silent:
            raise EngineUnreachable("the simulated engine is silent")

    def _plan(self, launch: Launch) -> _Attempt:
        runtime_s = float("inf") if launch.simulated_runtime_s is None else max(0.0, launch.simulated_runtime_s)
        limit_s = float(launch.time_limit_s or "inf")
        lasts_s = min(runtime_s, limit_s)
        started_ms = self._now_ms()
        end_ms = _NEVER_MS if lasts_s == float("inf") else started_ms + round(lasts_s * 1000 / self._speed)
        outcome = Outcome.TIMED_OUT if limit_s < runtime_s else Outcome.COMPLETED
        nodes = ",".join(sorted({place.node for place in launch.places}))
        return _Attempt(launch.name, started_ms, end_ms, outcome.value, nodes, 0.0 if end_ms == _NEVER_MS else lasts_s)

    def _keep(self, attempt: _Attempt) -> None:
        if self._file is not None:
            # The line break comes first, so that a line which a full disk cut off does not spoil the next one.
            os.write(self._file, b"\n" + _line(attempt))
        self._attempts[attempt.name] = attempt
        if attempt.end_ms != _NEVER_MS:
            self._order += 1
            heapq.heappush(self._heap, (attempt.end_ms, self._order, attempt.name))

    def _end_due(self, now_ms: int) -> None:
        while self._heap and self._heap[0][0] <= now_ms:
            end_ms, _, name = heapq.heappop(self._heap)
            if name in self._running and self._attempts[name].end_ms == end_ms:
                self._close_attempt(name)

    def _close_attempt(self, name: str) -> None:
        self._running.discard(name)
        self._changes.append(self._observe(name))
        self._ended.append(name)
        while len(self._ended) > self._most_ended:
            del self._attempts[self._ended.popleft()]

    def _observe(self, name: str) -> Observation:
        attempt = self._attempts.get(name)
        if attempt is None:
            return Observation(name, Seen.ABSENT)
        if name in self._running:
            return Observation(name, Seen.RUNNING, started_ms=attempt.started_ms)
        outcome = Outcome(attempt.outcome)
        completed = outcome is Outcome.COMPLETED
        return Observation(
            name,
            Seen.ENDED,
            started_ms=attempt.started_ms,
            ended_ms=attempt.end_ms,
            outcome=outcome,
            exit_code=0 if completed else None,
            cause="" if completed else _cause(attempt),
        )

    def _wake(self) -> None:
        with self._state:
            wakes = tuple(self._wakes) if self._changes and not self._silent and not self._closed else ()
        for wake in wakes:
            wake()

    def _wait_for_ends(self) -> None:
        while True:
            with self._state:
                if self._closed:
                    return
                now_ms = self._now_ms()
                self._end_due(now_ms)
                told = bool(self._changes)
            if told:
                self._wake()
            with self._state:
                if self._closed:
                    return
                # Not longer than an hour: a wait cannot be arbitrarily long.
                wait_s = min((self._heap[0][0] - self._now_ms()) / 1000, 3600) if self._heap else None
                if wait_s is None or wait_s > 0:
                    self._state.wait(wait_s)

    def _load(self, path: Path) -> None:
        """Take over what an earlier engine wrote, and write the file anew without what is no longer needed."""
        now_ms = self._now_ms()
        found: dict[str, _Attempt] = {}
        if path.exists():
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError):  # a last line that was cut off
                    attempt = _Attempt(**json.loads(line))
                    found[attempt.name] = attempt
        ended = sorted((each for each in found.values() if each.end_ms <= now_ms), key=lambda each: each.end_ms)
        for attempt in ended[: max(0, len(ended) - self._most_ended)]:
            del found[attempt.name]
        fresh = path.with_suffix(".new")
        fresh.write_bytes(b"\n".join(map(_line, found.values())))
        fresh.replace(path)
        for attempt in found.values():
            self._keep(attempt)
            if attempt.end_ms > now_ms:
                self._running.add(attempt.name)
        self._ended.extend(each.name for each in ended if each.name in found)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)


def _line(attempt: _Attempt) -> bytes:
    return json.dumps(asdict(attempt)).encode()


def _cause(attempt: _Attempt) -> str:
    if attempt.started_ms is None:
        return "It was stopped before it was started."
    if attempt.outcome == Outcome.TIMED_OUT:
        return "It reached its time limit."
    return f"It was stopped ({attempt.outcome})."


def _log(attempt: _Attempt, *, ended: bool) -> bytes:
    lines = ["This attempt is simulated: nothing is run.\n"]
    if attempt.started_ms is not None:
        lasts = f"for {attempt.runtime_s:g} simulated seconds" if attempt.runtime_s else "until it is stopped"
        lines.append(f"{attempt.started_ms} ms: {attempt.name} runs on {attempt.nodes[:1000] or 'no node'} {lasts}.\n")
    if ended:
        cause = "" if attempt.outcome == Outcome.COMPLETED else f": {_cause(attempt)}"
        lines.append(f"{attempt.end_ms} ms: {attempt.outcome}{cause}\n")
    return "".join(lines).encode()
