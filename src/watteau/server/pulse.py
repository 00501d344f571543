"""Tells waiting requests that something changed: one thread waits for all of them.

Long polls and streams are coroutines. A thread for each would let forty patient clients stop the whole API.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from threading import Event, Lock, Thread

from watteau.server.live import Live
from watteau.store.store import Store, StoreUnavailable

#: Changes that another process writes are not announced here; they are seen after this at the latest.
_LOOK_EVERY_S = 0.5
#: A burst of changes wakes those who wait at most this often.
_REST_S = 0.02


class Watch:
    """One request that waits for changes."""

    def __init__(self, pulse: "Pulse") -> None:
        self._pulse = pulse
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    async def next(self, timeout_s: float) -> bool:
        """Whether the log has grown since the last call (or since the watch began), within `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(timeout_s, 0.0))
        grown = self._changed.is_set()
        self._changed.clear()
        return grown

    @property
    def is_over(self) -> bool:
        """Whether the server is stopping, so that waiting on makes no sense."""
        return self._pulse.is_closed

    def notice(self) -> None:
        """From any thread: something changed."""
        with contextlib.suppress(RuntimeError):  # its loop has ended, and the request with it
            self._loop.call_soon_threadsafe(self._changed.set)


class Pulse:
    """Knows when the event log grows. Its thread runs only while somebody waits."""

    def __init__(self, store: Store, live: Live) -> None:
        self._store = store
        self._live = live
        self._watches: set[Watch] = set()
        self._lock = Lock()
        self._closed = Event()
        self._thread: Thread | None = None

    @contextlib.contextmanager
    def watch(self) -> Iterator[Watch]:
        """A watch. What was written before it began must be read from the store after it began."""
        watch = Watch(self)
        with self._lock:
            self._watches.add(watch)
            if self._thread is None and not self.is_closed:
                self._thread = Thread(target=self._run, name="watteau-pulse", daemon=True)
                self._thread.start()
        try:
            yield watch
        finally:
            with self._lock:
                self._watches.discard(watch)

    def close(self) -> None:
        """Let everybody go; the server stops."""
        self._closed.set()
        self._notice_all()

    @property
    def is_closed(self) -> bool:
        """Whether the server is stopping."""
        return self._closed.is_set()

    def _run(self) -> None:
        seq = -1
        while not self.is_closed:
            with self._lock:
                if not self._watches:
                    self._thread = None
                    return
            with contextlib.suppress(StoreUnavailable):
                newest = self._store.last_seq()
                if newest != seq:
                    seq = newest
                    self._notice_all()
                    self._closed.wait(_REST_S)
                    continue
            self._live.wait_change(_LOOK_EVERY_S)

    def _notice_all(self) -> None:
        with self._lock:
            watches = list(self._watches)
        for watch in watches:
            watch.notice()
