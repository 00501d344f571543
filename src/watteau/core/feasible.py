"""What fits where, now and later: one node's future, from the running workers' expected ends and the reservations."""

from typing import Any

import numpy as np

from watteau.core.bits import kernel
from watteau.core.layout import State
from watteau.domain.units import NEVER_S

#: Up to so many reservations on a node are looked at one by one; more are sorted into the node's future.
_FEW = 6
#: Nodes up to so many GPUs are sorted by insertion.
_SMALL_NODE = 16


@kernel
def expected_end_s(job: Any, now: int) -> int:
    """When a running job is expected to end, always later than now.

    An estimate that has passed is doubled until it lies ahead (raise on overrun, Tsafrir et al., TPDS 2007), at most
    to the limit, which is the only thing that kills.
    """
    estimate = job.estimate_s
    end = job.start_s + estimate
    while end <= now:
        estimate *= 2
        if job.limit_s > 0 and estimate >= job.limit_s:
            return int(max(job.start_s + job.limit_s, now + 1))
        end = job.start_s + estimate
    return int(end)


@kernel
def fits_empty_handed(node: Any, gpus: int, cpu_milli: int, memory_mib: int) -> bool:
    """Whether one worker fits on what the node has free at this moment, future or not."""
    return bool(node.gpus_free >= gpus and node.cpu_free_milli >= cpu_milli and node.memory_free_mib >= memory_mib)


@kernel
def node_future(s: State, n: int, now: int, skip: int) -> tuple[Any, Any, int]:
    """The node's free GPUs, CPU and memory from now on, as steps, without the reservation of job `skip`.

    Returns (times [step], free [step, 3], steps); times[0] is now. A GPU that is shared counts as free when the last of
    its users is expected to end. A reservation that is due but has not started is taken to start now.
    """
    node = s.nodes[n]
    size = 1
    w = node.running
    while w >= 0:
        size += 1
        w = s.workers[w].next
    w = node.reserved
    while w >= 0:
        size += 2
        w = s.workers[w].next
    times = np.empty(size, np.int64)
    change = np.zeros((size, 3), np.int64)
    times[0] = now
    change[0, 0] = node.gpus_free
    change[0, 1] = node.cpu_free_milli
    change[0, 2] = node.memory_free_mib
    count = 1
    shared_until = np.zeros(node.gpus if node.share_best >= 0 else 0, np.int64)
    w = node.running
    while w >= 0:
        worker = s.workers[w]
        job = s.jobs[worker.job]
        shape = s.shapes[job.shape]
        end = expected_end_s(job, now)
        times[count] = end
        if worker.shared_gpu >= 0:
            shared_until[worker.shared_gpu] = max(shared_until[worker.shared_gpu], end)
        else:
            change[count, 0] = shape.gpus
        change[count, 1] = shape.cpu_milli
        change[count, 2] = shape.memory_mib
        count += 1
        w = worker.next
    for gpu in range(len(shared_until)):
        for step in range(1, count):
            if times[step] == shared_until[gpu]:
                change[step, 0] += 1
                break
    w = node.reserved
    while w >= 0:
        worker = s.workers[w]
        if worker.job != skip:
            job = s.jobs[worker.job]
            shape = s.shapes[job.shape]
            start = max(job.reserved_s, now)
            gpus = shape.gpus if shape.milli == 0 else 1
            times[count] = start
            change[count, 0] = -gpus
            change[count, 1] = -shape.cpu_milli
            change[count, 2] = -shape.memory_mib
            times[count + 1] = start + job.estimate_s
            change[count + 1, 0] = gpus
            change[count + 1, 1] = shape.cpu_milli
            change[count + 1, 2] = shape.memory_mib
            count += 2
        w = worker.next
    return _summed(times, change, count)


@kernel
def _summed(times: Any, change: Any, count: int) -> tuple[Any, Any, int]:
    # Sort the changes by time, then add them up; changes at one time become one step.
    free = np.empty((count, 3), np.int64)
    at = np.empty(count, np.int64)
    if count <= 24:
        order = np.arange(count)
        for i in range(2, count):
            moving = order[i]
            j = i
            while j > 1 and times[order[j - 1]] > times[moving]:
                order[j] = order[j - 1]
                j -= 1
            order[j] = moving
    else:
        order = np.argsort(times[:count], kind="mergesort")
    steps = 0
    for k in range(count):
        source = order[k]
        if steps > 0 and at[steps - 1] == times[source]:
            for r in range(3):
                free[steps - 1, r] += change[source, r]
        else:
            at[steps] = times[source]
            for r in range(3):
                free[steps, r] = change[source, r] + (free[steps - 1, r] if steps > 0 else 0)
            steps += 1
    return at, free, steps


@kernel
def _few_reservations(s: State, n: int) -> bool:
    count = 0
    w = s.nodes[n].reserved
    while w >= 0 and count <= _FEW:
        count += 1
        w = s.workers[w].next
    return count <= _FEW


@kernel
def _short_at(s: State, n: int, gpus: int, cpu_milli: int, memory_mib: int, at_s: int, now: int, skip: int) -> bool:
    """Whether the node lacks room for a worker at one later time, by walking its two lists."""
    node = s.nodes[n]
    w = node.reserved
    while w >= 0:
        worker = s.workers[w]
        if worker.job != skip:
            job = s.jobs[worker.job]
            start = max(job.reserved_s, now)
            if start <= at_s < start + job.estimate_s:
                shape = s.shapes[job.shape]
                gpus += shape.gpus if shape.milli == 0 else 1
                cpu_milli += shape.cpu_milli
                memory_mib += shape.memory_mib
        w = worker.next
    gpus -= node.gpus_free
    cpu_milli -= node.cpu_free_milli
    memory_mib -= node.memory_free_mib
    w = node.running
    while w >= 0 and (gpus > 0 or cpu_milli > 0 or memory_mib > 0):
        worker = s.workers[w]
        job = s.jobs[worker.job]
        if expected_end_s(job, now) <= at_s:
            shape = s.shapes[job.shape]
            gpus -= shape.gpus
            cpu_milli -= shape.cpu_milli
            memory_mib -= shape.memory_mib
        w = worker.next
    return bool(gpus > 0 or cpu_milli > 0 or memory_mib > 0)


@kernel
def fits_until(s: State, n: int, gpus: int, cpu_milli: int, memory_mib: int, now: int, until: int, skip: int) -> bool:
    """Whether a worker fits on the node from now until a time, without delaying any reservation but that of `skip`."""
    if not fits_empty_handed(s.nodes[n], gpus, cpu_milli, memory_mib):
        return False
    return room_ends_s(s, n, gpus, cpu_milli, memory_mib, now, until, skip) >= until


@kernel
def longest_fit_s(s: State, n: int, gpus: int, cpu_milli: int, memory_mib: int, now: int) -> int:
    """For how long from now the node can take a worker before a reservation needs the room; 0: not at all."""
    if not fits_empty_handed(s.nodes[n], gpus, cpu_milli, memory_mib):
        return 0
    ends = room_ends_s(s, n, gpus, cpu_milli, memory_mib, now, NEVER_S, -1)
    return int(ends if ends == NEVER_S else ends - now)


@kernel
def room_ends_s(s: State, n: int, gpus: int, cpu_milli: int, memory_mib: int, now: int, until: int, skip: int) -> int:
    """The first time before `until` at which a reservation needs the room of a worker that fits now, or NEVER_S.

    Room shrinks only when a reservation begins, so few reservations are looked at one by one. A shared GPU's end takes
    the whole node's future.
    """
    node = s.nodes[n]
    first = NEVER_S
    if node.share_best < 0 and _few_reservations(s, n):
        w = node.reserved
        while w >= 0:
            worker = s.workers[w]
            if worker.job != skip:
                start = max(s.jobs[worker.job].reserved_s, now)
                if start < until and start < first and _short_at(s, n, gpus, cpu_milli, memory_mib, start, now, skip):
                    first = start
            w = worker.next
        return int(first)
    at, free, steps = node_future(s, n, now, skip)
    for k in range(steps):
        if at[k] >= until:
            break
        if free[k, 0] < gpus or free[k, 1] < cpu_milli or free[k, 2] < memory_mib:
            return int(at[k])
    return int(first)


@kernel
def fraction_fits_until(s: State, n: int, gpu: int, shape: Any, now: int, until: int, skip: int) -> bool:
    """Whether a fraction fits on the node's shared GPU (-1: a fresh one) until then without delaying a reservation.

    The shared GPU then comes free as a whole later, which must harm nobody; a fresh one is gone from now on.
    """
    node = s.nodes[n]
    if node.reserved < 0:
        return True
    since = now  # when the GPU is expected to be whole again without the fraction
    w = node.running if gpu >= 0 else -1
    while w >= 0:
        if s.workers[w].shared_gpu == gpu:
            since = max(since, expected_end_s(s.jobs[s.workers[w].job], now))
        w = s.workers[w].next
    at, free, steps = node_future(s, n, now, skip)
    for k in range(steps):
        if at[k] >= until:
            break
        # The fraction costs a whole GPU from the time at which its GPU would have been whole again.
        lasts_past = k + 1 == steps or at[k + 1] > since
        gpus = 1 if until > since and lasts_past else 0
        if free[k, 0] < gpus or free[k, 1] < shape.cpu_milli or free[k, 2] < shape.memory_mib:
            return False
    return True


@kernel
def gap_is_possible(s: State, n: int, estimate_s: int, now: int) -> bool:
    """Whether some reservation on the node begins late enough for a job to end before it.

    If none does, room that is not free for ever is not free for long enough, and `available_s` says it all.
    """
    w = s.nodes[n].reserved
    while w >= 0:
        if s.jobs[s.workers[w].job].reserved_s >= now + estimate_s:
            return True
        w = s.workers[w].next
    return False


@kernel
def earliest_on_node(
    s: State, n: int, gpus: int, cpu_milli: int, memory_mib: int, estimate_s: int, now: int, skip: int
) -> int:
    """The earliest time from which the node has room for a worker for `estimate_s`, between reservations too."""
    at, free, steps = node_future(s, n, now, skip)
    start = NEVER_S
    for k in range(steps):
        fits = free[k, 0] >= gpus and free[k, 1] >= cpu_milli and free[k, 2] >= memory_mib
        if not fits:
            if start < NEVER_S and at[k] >= start + estimate_s:
                return start
            start = NEVER_S
        elif start == NEVER_S:
            start = int(at[k])
    return start


@kernel
def from_when_on_node(s: State, n: int, gpus: int, cpu_milli: int, memory_mib: int, now: int, skip: int) -> int:
    """The earliest time from which the node has so much free for ever after."""
    at, free, steps = node_future(s, n, now, skip)
    start = NEVER_S
    for k in range(steps - 1, -1, -1):
        if free[k, 0] < gpus or free[k, 1] < cpu_milli or free[k, 2] < memory_mib:
            break
        start = int(at[k])
    return start


@kernel
def mark_stale(s: State, n: int) -> None:
    """Note that the node's column of `available_s` no longer holds."""
    if s.nodes[n].stale == 0:
        s.nodes[n].stale = 1
        s.stale[s.cycle[0].stale] = n
        s.cycle[0].stale += 1


@kernel
def mark_dirty(s: State, n: int, before: int) -> None:
    """Note that more may be free on the node than when the queue was last looked at.

    `before` GPUs were free, if that number said what fitted; 0 when a reservation, or CPU or memory, may have bound.
    """
    s.cycle[0].epoch += 1
    if s.cycle[0].waiting > 0:
        free = s.nodes[n].gpus_free
        for gpus in range(1, free + 1):
            s.gained[gpus] += free // gpus - before // gpus
    if s.nodes[n].dirty == 0:
        s.nodes[n].dirty = 1
        s.dirty[s.cycle[0].dirty] = n
        s.cycle[0].dirty += 1


@kernel
def refresh_available(s: State, now: int) -> None:
    """Bring `available_s` up to date on the nodes that changed."""
    for k in range(s.cycle[0].stale):
        n = s.stale[k]
        s.nodes[n].stale = 0
        refresh_node(s, n, now)
    s.cycle[0].stale = 0


@kernel
def refresh_node(s: State, n: int, now: int) -> None:
    """Work out from when on 1, 2, ... GPUs stay free on a node. 0 stands for `now and ever since`."""
    node = s.nodes[n]
    s.holds_until_s[n] = NEVER_S
    if node.up == 0:
        for g in range(node.gpus):
            s.available_s[g, n] = NEVER_S
        return
    if node.reserved < 0 and node.share_best < 0 and node.gpus <= _SMALL_NODE:
        _refresh_simple_node(s, n, now)
        return
    w = node.running
    while w >= 0:
        s.holds_until_s[n] = min(s.holds_until_s[n], expected_end_s(s.jobs[s.workers[w].job], now))
        w = s.workers[w].next
    w = node.reserved
    while w >= 0:  # one that is due is taken to start now, whenever that is
        s.holds_until_s[n] = min(s.holds_until_s[n], max(s.jobs[s.workers[w].job].reserved_s, now) + 1)
        w = s.workers[w].next
    at, free, steps = node_future(s, n, now, -1)
    least = node.gpus
    g = node.gpus - 1
    # From the last step backwards: `least` is what stays free from step k on.
    for k in range(steps - 1, -1, -1):
        least = min(least, free[k, 0])
        while g >= least and g >= 0:
            s.available_s[g, n] = at[k + 1] if k + 1 < steps else NEVER_S
            g -= 1
    while g >= 0:
        s.available_s[g, n] = 0
        g -= 1


@kernel
def _refresh_simple_node(s: State, n: int, now: int) -> None:
    # Only running workers with whole GPUs: insert each end, once per GPU, into the column kept sorted.
    node = s.nodes[n]
    filled = node.gpus_free
    for g in range(filled):
        s.available_s[g, n] = 0
    w = node.running
    while w >= 0:
        worker = s.workers[w]
        job = s.jobs[worker.job]
        gpus = s.shapes[job.shape].gpus
        if gpus > 0:
            end = expected_end_s(job, now)
            s.holds_until_s[n] = min(s.holds_until_s[n], end)
            g = filled - 1
            while g >= 0 and s.available_s[g, n] > end:
                s.available_s[g + gpus, n] = s.available_s[g, n]
                g -= 1
            for one in range(g + 1, g + 1 + gpus):
                s.available_s[one, n] = end
            filled += gpus
        w = worker.next


@kernel
def available_from(s: State, n: int, gpus: int, now: int) -> int:
    """`available_s` for so many GPUs, after making sure that no passed estimate or promise hides in it.

    One that has passed can only have made the column too early: who finds it too late already need not ask.
    """
    if gpus == 0:
        return now
    if s.holds_until_s[n] <= now:
        refresh_node(s, n, now)
    return int(max(s.available_s[gpus - 1, n], now))
