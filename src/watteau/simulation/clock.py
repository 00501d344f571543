"""The virtual clock: feeds arrivals and simulated ends to `core.step`, from one event to the next, compiled.

Ends wait in a timing wheel (Varghese and Lauck, SOSP 1987) of one-second slots: pushing and popping cost the same at
any number of running jobs. Ends beyond the wheel's horizon wait in a list. Everything that happens in one second is one
step: ends first, then arrivals. A job that ends in the second in which it started gets a further step in that second.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from watteau.core.bits import kernel, lowest_bit
from watteau.core.layout import State
from watteau.core.passing import Bundle
from watteau.core.step import step_kernel
from watteau.domain.units import NEVER_S

_SLOTS = 1 << 17  # 36 hours: longer than most jobs, and small enough for a core's own cache
_MASK = _SLOTS - 1
_BITS = 32

#: Why `advance` returned.
STOPPED, PAUSED, QUEUE_FULL, LOG_FULL, IDLE = range(5)

CLOCK = np.dtype(
    [
        ("now_s", np.int64),
        ("next_arrival", np.int64),
        ("base_s", np.int64),  # the wheel covers [base, base + slots)
        ("in_wheel", np.int64),
        ("beyond", np.int64),
        ("steps", np.int64),
        ("queue_most", np.int64),
    ],
    align=True,
)


@dataclass(frozen=True, eq=False)
class Clock(Bundle):
    """The driver's own state beside the core's."""

    clock: Any  # [1] CLOCK
    served_s: Any  # int64 [job]: how long each job holds its GPUs once started
    slot_first: Any  # int32 [slot]
    slot_next: Any  # int32 [job]
    slot_bits: Any  # int64 [slot / 32]
    beyond: Any  # int32 [job]: ends beyond the horizon
    ended: Any  # int32 [.]: scratch
    arrived: Any  # int32 [.]: scratch


def new_clock(served_s: Any, submit_s: Any, start_s: int, most_running: int) -> Clock:
    """A clock before the first event. `submit_s` is sorted; `most_running` bounds the jobs that run at once."""
    jobs = len(served_s)
    clock = np.zeros(1, dtype=CLOCK).view(np.recarray)
    clock[0].now_s = clock[0].base_s = start_s
    together = int(np.unique(submit_s, return_counts=True)[1].max()) if jobs else 0
    return Clock(
        clock=clock,
        served_s=served_s,
        slot_first=np.full(_SLOTS, -1, dtype=np.int32),
        slot_next=np.full(jobs, -1, dtype=np.int32),
        slot_bits=np.zeros(_SLOTS // _BITS, dtype=np.int64),
        beyond=np.zeros(most_running, dtype=np.int32),
        ended=np.zeros(most_running, dtype=np.int32),
        arrived=np.zeros(together, dtype=np.int32),
    )


@kernel
def push_end(c: Clock, job: int, at_s: int) -> None:
    """Note that a job ends at a time that is not before the wheel's base."""
    clock = c.clock[0]
    if at_s >= clock.base_s + _SLOTS:
        c.beyond[clock.beyond] = job
        clock.beyond += 1
        return
    slot = at_s & _MASK
    c.slot_next[job] = c.slot_first[slot]
    c.slot_first[slot] = job
    c.slot_bits[slot // _BITS] |= 1 << (slot % _BITS)
    clock.in_wheel += 1


@kernel
def cancel_end(c: Clock, job: int, at_s: int) -> None:
    """Forget the end of a job (its node was lost)."""
    clock = c.clock[0]
    for i in range(clock.beyond):
        if c.beyond[i] == job:
            clock.beyond -= 1
            c.beyond[i] = c.beyond[clock.beyond]
            return
    slot = at_s & _MASK
    if c.slot_first[slot] == job:
        c.slot_first[slot] = c.slot_next[job]
    else:
        before = c.slot_first[slot]
        while c.slot_next[before] != job:
            before = c.slot_next[before]
        c.slot_next[before] = c.slot_next[job]
    if c.slot_first[slot] < 0:
        c.slot_bits[slot // _BITS] ^= 1 << (slot % _BITS)
    clock.in_wheel -= 1


@kernel
def pop_ends(c: Clock, at_s: int) -> int:
    """Take out the jobs that end at a time, sorted by row, into `c.ended`; returns how many."""
    slot = at_s & _MASK
    job = c.slot_first[slot]
    if job < 0:
        return 0
    count = 0
    while job >= 0:
        at = count
        while at > 0 and c.ended[at - 1] > job:
            c.ended[at] = c.ended[at - 1]
            at -= 1
        c.ended[at] = job
        count += 1
        job = c.slot_next[job]
    c.slot_first[slot] = -1
    c.slot_bits[slot // _BITS] ^= 1 << (slot % _BITS)
    c.clock[0].in_wheel -= count
    return count


@kernel
def _turn_wheel(s: State, c: Clock, now: int) -> None:
    # Move the base forward and take in the ends that have come inside the horizon.
    clock = c.clock[0]
    clock.base_s = now
    waiting = clock.beyond
    clock.beyond = 0
    for i in range(waiting):
        job = c.beyond[i]
        push_end(c, job, s.jobs[job].start_s + c.served_s[job])


@kernel
def _next_end_s(s: State, c: Clock, before_s: int) -> int:
    """The next end that comes before a time, or NEVER_S."""
    clock = c.clock[0]
    nearest = NEVER_S
    if clock.in_wheel > 0:
        at = clock.now_s
        last = min(before_s, clock.base_s + _SLOTS)
        while at < last:
            slot = at & _MASK
            bits = c.slot_bits[slot // _BITS] >> (slot % _BITS)
            if bits:
                nearest = at + lowest_bit(bits)
                break
            at += _BITS - slot % _BITS
    if nearest == NEVER_S and clock.beyond > 0:
        for i in range(clock.beyond):
            job = c.beyond[i]
            nearest = min(nearest, s.jobs[job].start_s + c.served_s[job])
    return int(nearest if nearest < before_s else NEVER_S)


@kernel
def advance(s: State, c: Clock, stop_s: int, most_steps: int) -> int:
    """Run from event to event until `stop_s` (which is not entered), or until Python is needed; returns why."""
    clock = c.clock[0]
    cycle = s.cycle[0]
    none = c.ended[:0]
    jobs = len(c.served_s)
    for _ in range(most_steps):
        arrival_s = s.jobs[clock.next_arrival].submit_s if clock.next_arrival < jobs else NEVER_S
        at_s = min(arrival_s, cycle.wake_s)
        end_s = _next_end_s(s, c, min(at_s + 1, stop_s))
        at_s = min(at_s, end_s)
        if at_s >= stop_s:
            return IDLE if at_s == NEVER_S else STOPPED
        if at_s - clock.base_s >= _SLOTS // 2:
            clock.now_s = at_s
            _turn_wheel(s, c, at_s)
        first = clock.next_arrival
        last = first
        if at_s == arrival_s:
            while last < jobs and s.jobs[last].submit_s == at_s:
                c.arrived[last - first] = last
                last += 1
        newcomers = last - first + cycle.gated
        if cycle.queue_tail + newcomers > len(s.queue) - 1 and cycle.waiting + newcomers > len(s.queue) // 2:
            return QUEUE_FULL
        if len(s.logged) > 0 and len(s.logged) - cycle.logged < 4 * (cycle.waiting + newcomers) + 16:
            return LOG_FULL
        clock.now_s = at_s
        clock.next_arrival = last
        ended = pop_ends(c, at_s) if at_s == end_s else 0
        started = step_kernel(s, c.ended[:ended], none, c.arrived[: last - first], none, none, none, none, at_s)
        for i in range(started):
            job = s.started[i]
            push_end(c, job, at_s + c.served_s[job])
        clock.steps += 1
        clock.queue_most = max(clock.queue_most, cycle.waiting)
    return PAUSED


@kernel
def ends_now(s: State, c: Clock, at_s: int) -> Any:
    """Bring the clock to a time that `advance` stopped at, and take out the jobs that end in that second."""
    c.clock[0].now_s = at_s
    _turn_wheel(s, c, at_s)
    return c.ended[: pop_ends(c, at_s)].copy()


@kernel
def running_on(s: State, closing: Any) -> Any:
    """The jobs that run on the marked nodes, sorted, each once."""
    count = 0
    for n in range(len(s.nodes)):
        w = s.nodes[n].running if closing[n] else -1
        while w >= 0:
            count += 1
            w = s.workers[w].next
    found = np.zeros(count, np.int32)
    for n in range(len(s.nodes)):
        w = s.nodes[n].running if closing[n] else -1
        while w >= 0:
            count -= 1
            found[count] = s.workers[w].job
            w = s.workers[w].next
    return np.unique(found)
