"""Reservations: the earliest start of a blocked job, kept as a promise that backfill may not delay.

A promise holds nodes, not only a number of GPUs, so it survives fragmentation. It moves only forward (compression,
Mu'alem and Feitelson, IEEE TPDS 2001), unless a node is lost, a job overruns its estimate, or the order changes.
A single worker's reservation may lie in a gap between others; a gang's lies where its nodes stay free from then on
(it still starts in a gap when the gap is there).
"""

from typing import Any

import numpy as np

from watteau.core.bits import kernel, lowest_bit
from watteau.core.feasible import (
    available_from,
    earliest_on_node,
    from_when_on_node,
    gap_is_possible,
    mark_dirty,
    mark_stale,
    refresh_available,
)
from watteau.core.layout import State
from watteau.core.place import choose_nodes, delist, enlist
from watteau.domain.units import HOUR_S, NEVER_S

_ONE_BLOCK_REQUIRED = 2


@kernel
def hold(s: State, job: int, pool: int, at_s: int) -> None:
    """Promise the job its workers' nodes from a time on. The workers already name the nodes."""
    row = s.jobs[job]
    row.reserved_s = at_s
    row.pool = pool
    for w in range(row.first_worker, row.first_worker + s.shapes[row.shape].workers):
        n = s.workers[w].node
        first = s.nodes[n].reserved
        if first < 0:
            delist(s, n)
        s.workers[w].next = first
        s.workers[w].previous = -1
        if first >= 0:
            s.workers[first].previous = w
        s.nodes[n].reserved = w
        if first < 0:
            enlist(s, n)
        mark_stale(s, n)


@kernel
def drop(s: State, job: int) -> None:
    """Release a promise. The workers keep naming the nodes, so that it can be held again."""
    row = s.jobs[job]
    row.reserved_s = NEVER_S
    for w in range(row.first_worker, row.first_worker + s.shapes[row.shape].workers):
        worker = s.workers[w]
        n = worker.node
        alone = worker.previous < 0 and worker.next < 0
        if alone:
            delist(s, n)
        if worker.previous >= 0:
            s.workers[worker.previous].next = worker.next
        else:
            s.nodes[n].reserved = worker.next
        if worker.next >= 0:
            s.workers[worker.next].previous = worker.previous
        if alone:
            enlist(s, n)
        mark_stale(s, n)


@kernel
def mark_nodes_dirty(s: State, job: int) -> None:
    """Note that the nodes that a job's workers name may have more room now."""
    row = s.jobs[job]
    for w in range(row.first_worker, row.first_worker + s.shapes[row.shape].workers):
        mark_dirty(s, s.workers[w].node, 0)


@kernel
def plan_add(s: State, job: int) -> None:
    """Append to the list of promises."""
    s.plan[s.cycle[0].planned] = job
    s.cycle[0].planned += 1


@kernel
def plan_remove(s: State, job: int) -> None:
    """Take a job off the list of promises."""
    cycle = s.cycle[0]
    at = 0
    while s.plan[at] != job:
        at += 1
    for move in range(at, cycle.planned - 1):
        s.plan[move] = s.plan[move + 1]
    cycle.planned -= 1


@kernel
def drop_all(s: State) -> None:
    """Release every promise (the order or the capacity has changed)."""
    for at in range(s.cycle[0].planned):
        drop(s, s.plan[at])
    s.cycle[0].planned = 0
    s.cycle[0].epoch += 1


@kernel
def reserve(s: State, job: int, now: int) -> bool:
    """Give the job the earliest promise that delays no other; False when there is no such time on the open fleet."""
    refresh_available(s, now)
    row = s.jobs[job]
    shape = s.shapes[row.shape]
    best_s = NEVER_S
    best_pool = -1
    best_node = -1
    for choice in range(len(s.pools)):
        p = s.preference[s.cycle[0].hour, choice]
        if s.shape_pools[row.shape, p] == 0:
            continue
        if shape.workers == 1:
            at_s, n = _earliest_single(s, p, shape, row.estimate_s, now, True)
        else:
            at_s, n = _earliest_gang(s, p, shape, now), -1
        later_s = _allowed_s(s, p, shape, row.estimate_s, at_s)
        if later_s > at_s and shape.workers == 1:  # a gap may be over by then
            at_s, n = _earliest_single(s, p, shape, row.estimate_s, now, False)
            later_s = _allowed_s(s, p, shape, row.estimate_s, at_s)
        at_s = later_s
        if at_s < best_s:
            best_s = at_s
            best_pool = p
            best_node = n
    if best_pool < 0:
        return False
    if shape.workers == 1:
        s.workers[row.first_worker].node = best_node
    else:
        _choose_gang(s, best_pool, shape, best_s, now)
        for i in range(shape.workers):
            s.workers[row.first_worker + i].node = s.scratch_node[i]
    hold(s, job, best_pool, best_s)
    return True


@kernel
def _allowed_s(s: State, p: int, shape: Any, estimate_s: int, at_s: int) -> int:
    """The first time from `at_s` on at which neither the site's power limit nor a planned outage forbids a start."""
    if at_s == NEVER_S:
        return NEVER_S
    pool = s.pools[p]
    need_mw = s.sites[pool.site].idle_mw + shape.total_milli * pool.busy_mw_per_milli
    at_s = _powered_s(s, pool.site, need_mw, at_s)
    if at_s + estimate_s > pool.closes_s and at_s < pool.reopens_s:
        at_s = _powered_s(s, pool.site, need_mw, pool.reopens_s)
    return int(at_s)


@kernel
def _powered_s(s: State, site: int, need_mw: int, at_s: int) -> int:
    # By the hours of the outlook, the last of which holds for ever.
    cycle = s.cycle[0]
    last = s.limit_mw.shape[1] - 1
    hour = min(max(at_s // HOUR_S - cycle.hour_zero, 0), last)
    if need_mw <= s.limit_mw[site, hour]:
        return at_s
    cycle.power_binds = 1
    if need_mw > s.limit_ahead_mw[site, hour]:
        return NEVER_S
    while need_mw > s.limit_mw[site, hour]:
        hour += 1
    return int((cycle.hour_zero + hour) * HOUR_S)


@kernel
def _whole_gpus(shape: Any) -> int:
    return int(shape.gpus if shape.milli == 0 else 1)


@kernel
def _earliest_single(s: State, p: int, shape: Any, estimate_s: int, now: int, gaps: bool) -> tuple[int, int]:
    pool = s.pools[p]
    gpus = _whole_gpus(shape)
    binds = s.cycle[0].cpu_binds
    best_s = NEVER_S
    best = -1
    if gpus > pool.gpus:
        return best_s, best
    for n in range(pool.first_node, pool.first_node + pool.nodes):
        if gpus > 0:
            if s.available_s[gpus - 1, n] >= best_s:
                continue
        elif s.nodes[n].up == 0:
            continue
        at_s = available_from(s, n, gpus, now)
        if binds and at_s < best_s:
            at_s = from_when_on_node(s, n, gpus, shape.cpu_milli, shape.memory_mib, now, -1)
        if at_s < best_s:
            best_s = at_s
            best = n
            if best_s <= now and not s.cycle[0].planned:
                break
    # Gaps between reservations.
    for k in range(pool.gpus + 1):
        if s.held_count[p, k] == 0 or not gaps:
            continue
        for word in range(pool.first_word, pool.first_word + pool.words):
            bits = s.held_nodes[k, word]
            while bits:
                n = s.word_node[word] + lowest_bit(bits)
                bits &= bits - 1
                if not gap_is_possible(s, n, estimate_s, now):
                    continue
                at_s = earliest_on_node(s, n, gpus, shape.cpu_milli, shape.memory_mib, estimate_s, now, -1)
                if at_s < best_s or (at_s == best_s and n < best):
                    best_s = at_s
                    best = n
    return best_s, best


@kernel
def most_workers_on_empty_node(pool: Any, shape: Any) -> int:
    """How many of a gang's workers one empty node of the pool holds."""
    most = shape.workers
    gpus = _whole_gpus(shape)
    if shape.milli > 0:
        most = min(most, pool.gpus * (1000 // shape.milli))
    elif gpus > 0:
        most = min(most, pool.gpus // gpus)
    if shape.cpu_milli > 0:
        most = min(most, pool.cpu_milli // shape.cpu_milli)
    if shape.memory_mib > 0:
        most = min(most, pool.memory_mib // shape.memory_mib)
    return int(most)


@kernel
def _gang_from(s: State, n: int, shape: Any, together: int, now: int) -> int:
    # From when on so many of the gang's workers fit on the node for ever after.
    gpus = together * _whole_gpus(shape)
    if s.nodes[n].up == 0:
        return NEVER_S
    if s.cycle[0].cpu_binds:
        return from_when_on_node(s, n, gpus, together * shape.cpu_milli, together * shape.memory_mib, now, -1)
    return available_from(s, n, gpus, now)


@kernel
def _most_together(pool: Any, shape: Any) -> int:
    gpus = _whole_gpus(shape)
    if gpus == 0:
        return most_workers_on_empty_node(pool, shape)
    return int(pool.gpus // gpus)  # a promise counts a fraction as a whole GPU


@kernel
def _earliest_gang(s: State, p: int, shape: Any, now: int) -> int:
    pool = s.pools[p]
    most = _most_together(pool, shape)
    if shape.topology != _ONE_BLOCK_REQUIRED:
        return _earliest_among(s, shape, most, pool.first_node, pool.nodes, now)
    best_s = NEVER_S
    for b in range(pool.first_block, pool.first_block + pool.blocks):
        best_s = min(best_s, _earliest_among(s, shape, most, s.blocks[b].first_node, s.blocks[b].nodes, now))
    return best_s


@kernel
def _earliest_among(s: State, shape: Any, most: int, first: int, count: int, now: int) -> int:
    """The time at which the gang's last worker finds room: the order statistic of all the places' times.

    The earliest places so far lie in a heap with the latest of them on top; most places are later than that and cost
    one comparison.
    """
    workers = shape.workers
    if count * most < workers:
        return NEVER_S
    heap = np.empty(workers, np.int64)
    size = 0
    gpus = _whole_gpus(shape)
    binds = s.cycle[0].cpu_binds
    for together in range(1, most + 1):
        for n in range(first, first + count):
            if size == workers and gpus > 0 and s.available_s[together * gpus - 1, n] >= heap[0]:
                continue
            if binds or gpus == 0:
                at_s = _gang_from(s, n, shape, together, now)
            else:
                at_s = available_from(s, n, together * gpus, now)
            if size < workers:
                if at_s < NEVER_S:
                    _heap_push(heap, size, at_s)
                    size += 1
            elif at_s < heap[0]:
                _heap_replace(heap, at_s)
    return int(heap[0]) if size == workers else NEVER_S


@kernel
def _heap_push(heap: Any, size: int, value: int) -> None:
    at = size
    while at > 0 and heap[(at - 1) >> 1] < value:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = value


@kernel
def _heap_replace(heap: Any, value: int) -> None:
    size = len(heap)
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= value:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = value


@kernel
def _choose_gang(s: State, p: int, shape: Any, at_s: int, now: int) -> None:
    pool = s.pools[p]
    most = _most_together(pool, shape)
    gpus = _whole_gpus(shape)
    for b in range(pool.first_block, pool.first_block + pool.blocks):
        room_of_block = 0
        for n in range(s.blocks[b].first_node, s.blocks[b].first_node + s.blocks[b].nodes):
            room = 0
            while room < most:
                if gpus > 0 and s.available_s[(room + 1) * gpus - 1, n] > at_s:
                    break
                if _gang_from(s, n, shape, room + 1, now) > at_s:
                    break
                room += 1
            s.scratch_take[n] = room
            room_of_block += room
        s.scratch_room[b] = room_of_block
    choose_nodes(s, p, shape, True, now, now, -1)


@kernel
def compress(s: State, now: int) -> None:
    """Move every promise forward as far as it goes, in the order in which they were given."""
    cycle = s.cycle[0]
    single = s.policy[0].reservations == 1
    for at in range(cycle.planned):
        job = s.plan[at]
        row = s.jobs[job]
        before_s = row.reserved_s
        before_pool = row.pool
        if before_s <= now and not single:
            continue
        mark_nodes = single
        drop(s, job)
        first = row.first_worker
        workers = s.shapes[row.shape].workers
        old = np.empty(workers, np.int32)
        for i in range(workers):
            old[i] = s.workers[first + i].node
        found = reserve(s, job, now)
        if found and row.reserved_s >= before_s and not single and before_s > now:
            drop(s, job)
            for i in range(workers):
                s.workers[first + i].node = old[i]
            hold(s, job, before_pool, before_s)
            continue
        if not found:
            for i in range(workers):
                s.workers[first + i].node = old[i]
            hold(s, job, before_pool, max(before_s, now + 1))
            continue
        if row.reserved_s != before_s:
            mark_nodes = True
        if mark_nodes:
            for i in range(workers):
                mark_dirty(s, old[i], 0)
    cycle.compressed_s = now
    cycle.freed_early = 0


@kernel
def any_overdue(s: State, now: int) -> bool:
    """Whether some promise was not kept: a job has overrun its estimate, or the site's power did not allow it."""
    late = 0
    for at in range(s.cycle[0].planned):
        if s.jobs[s.plan[at]].reserved_s < now:
            late += 1
    return late > 0
