"""Independent references: slow, obvious simulators that share no line with the code they check."""

from tests.reference.textbook import Job, conservative, easy, fifo
from tests.reference.waits import mean_bounded_slowdown, mean_wait_s

__all__ = ["Job", "conservative", "easy", "fifo", "mean_bounded_slowdown", "mean_wait_s"]
