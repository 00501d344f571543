"""The green gate: flexible jobs wait in front of the queue until the envelope has room for them, or no longer can wait.

The envelope (`energy/envelope.py` makes it) says how much power flexible jobs may draw at each site in each hour. The
gate lets the job with the earliest latest start go first (EDF; Liu and Layland, JACM 1973): into the queue, where it is
ordered and placed like any other, but at sites whose envelope has room. At the turn of an hour those that have not
started come back, so that nothing starts on the room of an hour that is over. A job whose latest start has come is
flexible no more: it goes into the queue whatever the envelope says, and is promised a start. Deadlines win over green
(R26).
"""

from watteau.core.bits import kernel
from watteau.core.layout import WAITING, State
from watteau.core.order import enqueue, leave_queue
from watteau.core.place import forget_reason, most_mw, say
from watteau.domain.decisions import Reason

_GREEN_HOLD = int(Reason.GREEN_HOLD)


@kernel
def hold_at_gate(s: State, job: int, now: int) -> None:
    """A flexible job waits at the gate from now on."""
    cycle = s.cycle[0]
    at = cycle.gated
    s.gate[at] = job
    cycle.gated += 1
    s.jobs[job].gated = 1
    _rise(s, at)
    say(s, job, _GREEN_HOLD, now)


@kernel
def leave_gate(s: State, job: int) -> None:
    """A job that is held or cancelled no longer waits at the gate."""
    for at in range(s.cycle[0].gated):
        if s.gate[at] == job:
            _take_out(s, at)
            return


@kernel
def open_gate(s: State, now: int) -> int:
    """Let those go whose latest start has come, and those that the envelope has room for; returns how many went."""
    cycle = s.cycle[0]
    count = 0
    while cycle.gated > 0:
        job = s.gate[0]
        row = s.jobs[job]
        if row.due_s > now:
            need_mw = most_mw(s, row.shape)
            if not _has_room(s, row.shape, need_mw):
                break
            cycle.released_mw += need_mw
        _take_out(s, 0)
        forget_reason(s, job)
        enqueue(s, job)
        count += 1
    return count


@kernel
def call_back(s: State, now: int) -> None:
    """The hour is over: flexible jobs that were let go and have not started wait at the gate again."""
    cycle = s.cycle[0]
    if cycle.released_mw == 0:
        return
    cycle.released_mw = 0
    for at in range(cycle.queue_head, cycle.queue_tail):
        if s.queue[at].shape < 0:
            continue
        job = s.queue[at].job
        if s.jobs[job].state == WAITING and s.jobs[job].due_s > now:
            leave_queue(s, at)
            hold_at_gate(s, job, now)


@kernel
def _has_room(s: State, shape: int, need_mw: int) -> bool:
    """Whether what is left of the envelope, by all who were let go and have not started, holds one more."""
    left = -s.cycle[0].released_mw
    fits = False
    for site in range(len(s.sites)):
        room = s.sites[site].green_mw - s.sites[site].flexible_mw
        if room > 0:
            left += room
    for p in range(len(s.pools)):
        site_row = s.sites[s.pools[p].site]
        fits |= s.shape_pools[shape, p] and need_mw <= site_row.green_mw - site_row.flexible_mw
    return bool(fits and need_mw <= left)


@kernel
def _goes_first(s: State, a: int, b: int) -> bool:
    due_a, due_b = s.jobs[a].due_s, s.jobs[b].due_s
    return bool(due_a < due_b or (due_a == due_b and a < b))


@kernel
def _rise(s: State, at: int) -> None:
    # A binary heap: the earliest latest start is on top.
    while at > 0 and _goes_first(s, s.gate[at], s.gate[(at - 1) // 2]):
        above = (at - 1) // 2
        s.gate[at], s.gate[above] = s.gate[above], s.gate[at]
        at = above


@kernel
def _take_out(s: State, at: int) -> None:
    cycle = s.cycle[0]
    s.jobs[s.gate[at]].gated = 0
    cycle.gated -= 1
    last = cycle.gated
    if at == last:
        return
    s.gate[at] = s.gate[last]
    _rise(s, at)
    while True:
        below = 2 * at + 1
        if below >= last:
            return
        if below + 1 < last and _goes_first(s, s.gate[below + 1], s.gate[below]):
            below += 1
        if not _goes_first(s, s.gate[below], s.gate[at]):
            return
        s.gate[at], s.gate[below] = s.gate[below], s.gate[at]
        at = below
