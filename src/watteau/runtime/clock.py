"""The only module that asks what time it is."""

import threading
import time


class Clock:
    """Epoch milliseconds that never run backwards, whatever is done to the machine's clock."""

    def __init__(self) -> None:
        self._last_ms = 0
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00Z; at least as many as at the last call."""
        with self._lock:
            self._last_ms = max(self._last_ms, time.time_ns() // 1_000_000)
            return self._last_ms


def monotonic_s() -> float:
    """Seconds for measuring spans and time-outs."""
    return time.monotonic()
