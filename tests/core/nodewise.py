"""A slow, obvious scheduler that knows nodes: written from docs/rules.md, it shares no line with the core.

Estimates are exact and a job ends when it says, so nothing ends early. Time goes from second to second. Every question
about the future is answered by looking at each second of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

ANYWHERE, PREFERRED, REQUIRED = range(3)


class Wish(NamedTuple):
    """A gang of `workers` with `gpus` each on one node, for `runtime_s` from when it starts."""

    submit_s: int
    runtime_s: int
    workers: int
    gpus: int
    topology: int = PREFERRED


@dataclass
class Held:
    """GPUs of nodes that a job holds, or is promised, in [start_s, end_s)."""

    start_s: int
    end_s: int
    on: list[int]  # node of each worker
    gpus: int


@dataclass
class Machine:
    """Nodes of one pool, and blocks of them."""

    nodes: int
    gpus: int
    block: int
    running: dict[int, Held] = field(default_factory=dict)
    promised: dict[int, Held] = field(default_factory=dict)

    def free(self, node: int, at_s: int) -> int:
        """GPUs of the node that are neither held nor promised in that second."""
        held = [*self.running.values(), *self.promised.values()]
        return self.gpus - sum(
            its.gpus * its.on.count(node) for its in held if its.start_s <= at_s < its.end_s and node in its.on
        )

    def idle(self, node: int) -> int:
        """GPUs of the node that nobody holds in this second, promised or not."""
        return self.gpus - sum(its.gpus * its.on.count(node) for its in self.running.values())

    def changes_s(self, now: int) -> list[int]:
        """Now and the later seconds in which something ends or begins."""
        held = [*self.running.values(), *self.promised.values()]
        return sorted({now, *(t for its in held for t in (its.start_s, its.end_s) if t > now)})

    def room(self, node: int, wish: Wish, start_s: int, end_s: int) -> int:
        """How many of the gang's workers fit on the node, all the time in [start_s, end_s)."""
        moments = [start_s, *(t for t in self.changes_s(start_s) if t < end_s)]
        return max(0, min(self.free(node, t) for t in moments)) // wish.gpus

    def blocks(self) -> list[list[int]]:
        """The nodes of each block."""
        return [list(range(first, min(first + self.block, self.nodes))) for first in range(0, self.nodes, self.block)]


def schedule(wishes: Sequence[Wish], machine: Machine, reservations: int) -> list[tuple[int, list[int]]]:
    """(start, node of each worker) of each job, in order of arrival."""
    decided: dict[int, Held] = {}
    waiting: list[int] = []
    coming = sorted(range(len(wishes)), key=lambda job: wishes[job].submit_s)
    now = 0
    while coming or waiting:
        ended = [job for job, its in machine.running.items() if its.end_s <= now]
        for job in ended:
            del machine.running[job]
        arrived = [job for job in coming if wishes[job].submit_s == now]
        waiting += arrived
        coming = [job for job in coming if job not in arrived]
        due = any(its.start_s <= now for its in machine.promised.values())
        if ended or arrived or due:
            if reservations == 1 and ended and machine.promised:  # EASY works its one promise out again
                (head,) = machine.promised
                del machine.promised[head]
                machine.promised[head] = earliest(machine, wishes[head], now)
            for job in list(waiting):
                on = start_now(machine, job, wishes[job], now)
                if on is not None:
                    machine.promised.pop(job, None)
                    decided[job] = Held(now, now + wishes[job].runtime_s, on, wishes[job].gpus)
                    machine.running[job] = decided[job]
                    waiting.remove(job)
                elif reservations == 0:
                    break
                elif job not in machine.promised and len(machine.promised) < reservations:
                    machine.promised[job] = earliest(machine, wishes[job], now)
        now += 1
    return [(decided[job].start_s, decided[job].on) for job in range(len(wishes))]


def start_now(machine: Machine, job: int, wish: Wish, now: int) -> list[int] | None:
    """Where the job starts in this second. One that holds a promise starts when and where it was promised."""
    mine = machine.promised.get(job)
    if mine is not None:
        return mine.on if mine.start_s <= now else None
    end_s = now + wish.runtime_s
    if wish.workers == 1:
        fits = [node for node in range(machine.nodes) if machine.room(node, wish, now, end_s) > 0]
        # Holes before reservations first, then the node that is left fullest, then the lowest.
        with_promise = {node for its in machine.promised.values() for node in its.on}
        fits.sort(key=lambda node: (node not in with_promise, machine.idle(node), node))
        return fits[:1] or None
    rooms = {node: machine.room(node, wish, now, end_s) for node in range(machine.nodes)}
    return gang(machine, wish, rooms, {})


def gang(machine: Machine, wish: Wish, rooms: dict[int, int], since: dict[tuple[int, int], int]) -> list[int] | None:
    """The gang's nodes, given how many of its workers each node holds."""
    if sum(rooms.values()) < wish.workers:
        return None
    left = wish.workers
    blocks = machine.blocks()
    on: list[int] = []
    while left:
        sums = [sum(rooms[node] for node in block) for block in blocks]
        whole = [b for b, total in enumerate(sums) if total >= left]
        if wish.topology == REQUIRED and not whole:
            return None
        # The smallest block that holds the rest, else the largest; the lowest of equals.
        best = min(whole, key=lambda b: (sums[b], b)) if whole else max(range(len(sums)), key=lambda b: (sums[b], -b))
        here = min(left, sums[best])
        left -= here
        while here:
            # The node that takes most of them; then the one that comes free last; then the fullest; then the lowest.
            def rank(node: int, here: int = here) -> tuple[int, int, int, int]:
                take = min(rooms[node], here)
                return -take, -since.get((node, take), 0), rooms[node] - take, node

            node = min((node for node in blocks[best] if rooms[node]), key=rank)
            take = min(rooms[node], here)
            on += [node] * take
            here -= take
            rooms[node] = 0
        for node in blocks[best]:
            rooms[node] = 0
    return on


def earliest(machine: Machine, wish: Wish, now: int) -> Held:
    """The earliest promise that delays no other: for one worker in a gap too, for a gang where nodes stay free."""
    times = machine.changes_s(now)
    if wish.workers == 1:
        for start_s in times:
            for node in range(machine.nodes):
                if machine.room(node, wish, start_s, start_s + wish.runtime_s) > 0:
                    return Held(start_s, start_s + wish.runtime_s, [node], wish.gpus)
    for_ever = max(times) + 1
    for start_s in times:
        # For a promise a node's room counts up to the whole gang.
        rooms = {node: machine.room(node, wish, start_s, for_ever) for node in range(machine.nodes)}
        since = {
            (node, take): min(
                (t for t in times if machine.room(node, wish, t, for_ever) >= take and t > now), default=0
            )
            if machine.room(node, wish, now, for_ever) < take
            else 0
            for node in range(machine.nodes)
            for take in range(1, rooms[node] + 1)
        }
        on = gang(machine, wish, rooms, since)
        if on is not None:
            return Held(start_s, start_s + wish.runtime_s, on, wish.gpus)
    raise AssertionError("the gang is larger than the machine")
