"""Placing: which nodes a job gets now, all of its gang or nothing; taking them, and giving them back.

A worker goes first into a gap in front of a reservation (nothing else can use it), then to the node that it leaves
fullest (best fit); ties go to the lowest node. A gang goes to the smallest block that holds it, else to as few blocks
as possible, always inside one pool.
"""

from typing import Any

from watteau.core.bits import count_bits, kernel, lowest_bit
from watteau.core.feasible import fits_empty_handed, fits_until, fraction_fits_until, mark_dirty, mark_stale
from watteau.core.layout import ENDED, RUNNING, State
from watteau.core.order import charge
from watteau.core.score import find_by_loss
from watteau.domain.decisions import Reason

_CAPACITY = int(Reason.CAPACITY)
_TOPOLOGY = int(Reason.TOPOLOGY)
_BEHIND_OTHERS = int(Reason.BEHIND_OTHERS)
_OUTAGE_AHEAD = int(Reason.OUTAGE_AHEAD)
_SITE_POWER = int(Reason.SITE_POWER)
_GREEN_HOLD = int(Reason.GREEN_HOLD)
_QUOTA = int(Reason.QUOTA)
_ONE_BLOCK_REQUIRED = 2


@kernel
def enlist(s: State, n: int) -> None:
    """Put a node into the bit sets under the GPUs it has free."""
    node = s.nodes[n]
    if node.up == 0:
        return
    k = node.gpus_free
    if node.reserved < 0:
        s.open_nodes[k, node.word] |= 1 << node.bit
        s.open_count[node.pool, k] += 1
        s.open_first[node.pool, k] = min(s.open_first[node.pool, k], node.word)
    else:
        s.held_nodes[k, node.word] |= 1 << node.bit
        s.held_count[node.pool, k] += 1


@kernel
def delist(s: State, n: int) -> None:
    """Take a node out of the bit sets; to be followed by a change and `enlist`."""
    node = s.nodes[n]
    if node.up == 0:
        return
    k = node.gpus_free
    if node.reserved < 0:
        s.open_nodes[k, node.word] ^= 1 << node.bit
        s.open_count[node.pool, k] -= 1
    else:
        s.held_nodes[k, node.word] ^= 1 << node.bit
        s.held_count[node.pool, k] -= 1


@kernel
def link_running(s: State, w: int, n: int) -> None:
    """Put a worker at the front of a node's list of running workers."""
    first = s.nodes[n].running
    s.workers[w].node = n
    s.workers[w].next = first
    s.workers[w].previous = -1
    if first >= 0:
        s.workers[first].previous = w
    s.nodes[n].running = w


@kernel
def unlink_running(s: State, w: int) -> None:
    """Take a worker out of its node's list of running workers."""
    worker = s.workers[w]
    if worker.previous >= 0:
        s.workers[worker.previous].next = worker.next
    else:
        s.nodes[worker.node].running = worker.next
    if worker.next >= 0:
        s.workers[worker.next].previous = worker.previous


@kernel
def take(s: State, w: int, n: int, shape: Any) -> None:
    """Give a node's room to one worker; a fraction goes to the fullest shared GPU that has room."""
    gpu = _fullest_with_room(s, n, shape.milli) if shape.milli > 0 else -1
    take_gpu(s, w, n, shape, gpu)


@kernel
def take_gpu(s: State, w: int, n: int, shape: Any, gpu: int) -> None:
    """Give a node's room to one worker; a fraction goes to the shared GPU `gpu`, or to a fresh one (-1)."""
    node = s.nodes[n]
    delist(s, n)
    worker = s.workers[w]
    worker.shared_gpu = -1
    if shape.milli > 0:
        _take_fraction(s, n, w, shape.milli, gpu)
    else:
        node.gpus_free -= shape.gpus
    node.cpu_free_milli -= shape.cpu_milli
    node.memory_free_mib -= shape.memory_mib
    node.version += 1
    link_running(s, w, n)
    enlist(s, n)
    mark_stale(s, n)


@kernel
def give_back(s: State, w: int, shape: Any) -> None:
    """Return a worker's room to its node."""
    n = s.workers[w].node
    node = s.nodes[n]
    delist(s, n)
    unlink_running(s, w)
    gpu = s.workers[w].shared_gpu
    if gpu >= 0:
        s.shared_free[n, gpu] += shape.milli
        if s.shared_free[n, gpu] == 1000:  # its last user has gone: a whole GPU again
            s.shared_free[n, gpu] = -1
            node.gpus_free += 1
        _find_best_share(s, n)
    else:
        node.gpus_free += shape.gpus
    node.cpu_free_milli += shape.cpu_milli
    node.memory_free_mib += shape.memory_mib
    node.version += 1
    enlist(s, n)
    mark_stale(s, n)


@kernel
def _fullest_with_room(s: State, n: int, milli: int) -> int:
    best = -1
    for gpu in range(s.nodes[n].gpus):
        free = s.shared_free[n, gpu]
        if free >= milli and (best < 0 or free < s.shared_free[n, best]):
            best = gpu
    return best


@kernel
def _take_fraction(s: State, n: int, w: int, milli: int, gpu: int) -> None:
    if gpu < 0:  # a fresh GPU
        gpu = 0
        while s.shared_free[n, gpu] >= 0:
            gpu += 1
    if s.shared_free[n, gpu] < 0:
        s.shared_free[n, gpu] = 1000
        s.nodes[n].gpus_free -= 1
    s.shared_free[n, gpu] -= milli
    s.workers[w].shared_gpu = gpu
    _find_best_share(s, n)


@kernel
def _find_best_share(s: State, n: int) -> None:
    best = -1
    for gpu in range(s.nodes[n].gpus):
        best = max(best, s.shared_free[n, gpu])
    s.nodes[n].share_best = best


@kernel
def forget_reason(s: State, job: int) -> None:
    """The job no longer waits for what it waited for."""
    row = s.jobs[job]
    if row.reason == _QUOTA:
        s.cycle[0].held_by_quota -= 1
        s.tenants[row.held_by].holds_back -= 1
    row.reason = 0


@kernel
def say(s: State, job: int, reason: int, now: int) -> None:
    """Keep a job's reason, and log it when it changed."""
    cycle = s.cycle[0]
    if s.jobs[job].reason == reason:
        return
    forget_reason(s, job)
    s.jobs[job].reason = reason
    if cycle.logged < len(s.logged):
        line = s.logged[cycle.logged]
        line.job = job
        line.reason = reason
        line.at_s = now
        cycle.logged += 1
    elif len(s.logged) > 0:
        cycle.logged_lost += 1


@kernel
def most_mw(s: State, shape: int) -> int:
    """The IT power in mW that a job of this shape adds where it adds most, and at least 1."""
    most = 1
    for p in range(len(s.pools)):
        if s.shape_pools[shape, p]:
            most = max(most, s.shapes[shape].total_milli * s.pools[p].busy_mw_per_milli)
    return int(most)


@kernel
def commit(s: State, job: int, pool: int, now: int) -> None:
    """Book a job whose workers have all been placed: it runs from now."""
    row = s.jobs[job]
    shape = s.shapes[row.shape]
    row.state = RUNNING
    row.start_s = now
    row.pool = pool
    forget_reason(s, job)
    need_mw = shape.total_milli * s.pools[pool].busy_mw_per_milli
    s.sites[s.pools[pool].site].power_mw += need_mw
    if row.due_s > 0:
        s.sites[s.pools[pool].site].flexible_mw += need_mw
        if row.due_s > now:
            s.cycle[0].released_mw = max(0, s.cycle[0].released_mw - most_mw(s, row.shape))
    charge(s, row.tenant, shape.total_milli, 1, now)
    s.started[s.cycle[0].started] = job
    s.cycle[0].started += 1


@kernel
def resume(s: State, jobs: Any) -> None:
    """Take in jobs that run already: their workers name their nodes and shared GPUs, `start_s` is when they began.

    For a state that is built anew; what does not fit shows in the recount (`check_invariants`).
    """
    for i in range(len(jobs)):
        row = s.jobs[jobs[i]]
        shape = s.shapes[row.shape]
        for w in range(row.first_worker, row.first_worker + shape.workers):
            take_gpu(s, w, s.workers[w].node, shape, s.workers[w].shared_gpu)
        commit(s, jobs[i], s.nodes[s.workers[row.first_worker].node].pool, row.start_s)
        s.cycle[0].started = 0


@kernel
def end_job(s: State, job: int, now: int) -> None:
    """A running job has ended: give everything back."""
    row = s.jobs[job]
    if row.state != RUNNING:
        return
    shape = s.shapes[row.shape]
    for w in range(row.first_worker, row.first_worker + shape.workers):
        node = s.nodes[s.workers[w].node]
        says_it_all = node.reserved < 0 and not s.cycle[0].cpu_binds
        before = node.gpus_free if says_it_all else 0
        give_back(s, w, shape)
        mark_dirty(s, s.workers[w].node, before)
    row.state = ENDED
    row.end_s = now
    if now != row.start_s + row.estimate_s:  # one that overran has had its estimate raised, often beyond now
        s.cycle[0].freed_early = 1
    need_mw = shape.total_milli * s.pools[row.pool].busy_mw_per_milli
    s.sites[s.pools[row.pool].site].power_mw -= need_mw
    if row.due_s > 0:
        s.sites[s.pools[row.pool].site].flexible_mw -= need_mw
    charge(s, row.tenant, shape.total_milli, -1, now)
    if s.cycle[0].held_by_quota > 0:
        up = row.tenant
        while up >= 0:
            if s.tenants[up].holds_back:
                s.cycle[0].quota_freed = 1
            up = s.tenants[up].parent


@kernel
def has_power(site: Any, need_mw: int) -> bool:
    """Whether this hour's limit allows a job once nothing else runs: only such a job may keep others from starting."""
    return bool(site.idle_mw + need_mw <= site.limit_mw)


@kernel
def place_now(s: State, job: int, now: int, skip: int) -> int:
    """Start the job if its gang fits somewhere without delaying a reservation (but its own, when `skip` is the job).

    Returns 0 when it runs, else the Reason why it does not.
    """
    row = s.jobs[job]
    shape = s.shapes[row.shape]
    scored = s.policy[0].scoring and shape.workers == 1
    chosen = -1
    why = 0
    s.cycle[0].gang_room = 0
    for choice in range(len(s.pools)):
        p = s.preference[s.cycle[0].hour, choice]
        if s.shape_pools[row.shape, p] == 0:
            continue
        pool = s.pools[p]
        if chosen >= 0 and pool.site != s.pools[s.nodes[chosen].pool].site:
            break  # nodes compete by score inside one site only; sites in the order of preference
        if now + row.estimate_s > pool.closes_s:
            why = _nearer(why, _OUTAGE_AHEAD)
            continue
        site = s.sites[pool.site]
        if site.power_hold and skip < 0:
            why = _nearer(why, _BEHIND_OTHERS)
            continue
        # Power is the reason only where there is room: a job that lacks GPUs as well must not close the site to others.
        need_mw = shape.total_milli * pool.busy_mw_per_milli
        if row.due_s > now and site.flexible_mw + need_mw > site.green_mw:
            why = _nearer(why, _GREEN_HOLD)
            continue
        short = site.power_mw + need_mw > site.limit_mw
        if scored and not short:
            chosen = find_by_loss(s, row.shape, p, chosen, now, now + row.estimate_s, skip)
            outcome = _why_not_one(s, p, shape)
        elif shape.workers == 1:
            n = find_node(s, p, shape, now, now + row.estimate_s, skip)
            if n >= 0 and not short:
                take(s, row.first_worker, n, shape)
                commit(s, job, p, now)
                return 0
            outcome = _SITE_POWER if n >= 0 else _why_not_one(s, p, shape)
        else:
            outcome = _place_gang(s, row, shape, p, short, now, skip)
            if outcome == 0:
                commit(s, job, p, now)
                return 0
        if outcome == _SITE_POWER:
            s.cycle[0].power_binds = 1
            if skip >= 0 and has_power(site, need_mw):
                site.power_hold = 1
        why = _nearer(why, outcome)
    if chosen >= 0:
        take_gpu(s, row.first_worker, chosen, shape, s.scores[row.shape, chosen].gpu)
        commit(s, job, s.nodes[chosen].pool, now)
        return 0
    if why != _CAPACITY and why != _BEHIND_OTHERS:
        s.cycle[0].gang_room = shape.workers  # not for want of room
    return int(why) if why else _CAPACITY


@kernel
def _nearer(why: int, outcome: int) -> int:
    # Of several pools, the reason of that in which least is missing: no room, room that others are promised, then the
    # higher code, which says what is missing beside the room.
    if why == 0 or why == _CAPACITY:
        return outcome
    return why if outcome == _CAPACITY else max(why, outcome)


@kernel
def _why_not_one(s: State, p: int, shape: Any) -> int:
    # Room that is free but promised means "behind others"; no room means capacity. Only for the wording.
    if shape.milli == 0 and shape.gpus > 0:
        for k in range(shape.gpus, s.pools[p].gpus + 1):
            if s.held_count[p, k] > 0:
                return _BEHIND_OTHERS
    return _CAPACITY


@kernel
def find_node(s: State, p: int, shape: Any, now: int, until: int, skip: int) -> int:
    """The node for a single worker in a pool, or -1."""
    pool = s.pools[p]
    if shape.milli > 0:
        return _find_fraction(s, pool.first_node, pool.nodes, shape, now, until, skip)
    for k in range(shape.gpus, pool.gpus + 1):
        left = s.held_count[p, k]
        if left > 0:
            for word in range(pool.first_word, pool.first_word + pool.words):
                bits = s.held_nodes[k, word]
                while bits:
                    n = s.word_node[word] + lowest_bit(bits)
                    bits &= bits - 1
                    if fits_until(s, n, shape.gpus, shape.cpu_milli, shape.memory_mib, now, until, skip):
                        return int(n)
                    left -= 1
                if left == 0:
                    break
    for k in range(shape.gpus, pool.gpus + 1):
        left = s.open_count[p, k]
        if left > 0:
            nodes = s.open_nodes[k]
            first = s.open_first[p, k]
            while nodes[first] == 0:
                first += 1
            s.open_first[p, k] = first
            for word in range(first, pool.first_word + pool.words):
                bits = nodes[word]
                while bits:
                    n = s.word_node[word] + lowest_bit(bits)
                    bits &= bits - 1
                    if fits_empty_handed(s.nodes[n], shape.gpus, shape.cpu_milli, shape.memory_mib):
                        return int(n)
                    left -= 1
                if left == 0:
                    break
    return -1


@kernel
def _find_fraction(s: State, first: int, count: int, shape: Any, now: int, until: int, skip: int) -> int:
    # The GPU that is left with the least, then a fresh GPU on the node with the fewest free; ties: lowest node.
    best = -1
    best_left = 1 << 40
    for n in range(first, first + count):
        node = s.nodes[n]
        if node.up == 0 or node.cpu_free_milli < shape.cpu_milli or node.memory_free_mib < shape.memory_mib:
            continue
        left = 1 << 40
        if node.share_best >= shape.milli:
            for gpu in range(node.gpus):
                free = s.shared_free[n, gpu]
                if free >= shape.milli:
                    left = min(left, free - shape.milli)
        elif node.gpus_free > 0:
            left = 1000 * node.gpus_free
        if left < best_left and fraction_fits_until(
            s, n, _fullest_with_room(s, n, shape.milli), shape, now, until, skip
        ):
            best = n
            best_left = left
    return best


@kernel
def free_workers_bound(s: State, p: int, gpus: int) -> int:
    """At most so many workers of so many GPUs fit in the pool now: by GPUs alone, reservations ignored."""
    total = 0
    for k in range(gpus, s.pools[p].gpus + 1):
        total += (s.open_count[p, k] + s.held_count[p, k]) * (k // gpus)
    return total


@kernel
def _place_gang(s: State, row: Any, shape: Any, p: int, short: bool, now: int, skip: int) -> int:
    if shape.milli > 0 or shape.gpus == 0:
        s.cycle[0].gang_room = shape.workers  # not counted
        return _place_one_by_one(s, row, shape, p, short, now, skip)
    bound = free_workers_bound(s, p, shape.gpus)
    if bound < shape.workers:
        s.cycle[0].gang_room = max(s.cycle[0].gang_room, bound)
        return _CAPACITY
    until = now + row.estimate_s
    total = _count_room(s, p, shape, now, until, skip)
    s.cycle[0].gang_room = max(s.cycle[0].gang_room, total)
    if total < shape.workers:
        return _BEHIND_OTHERS if not s.cycle[0].cpu_binds else _CAPACITY
    chosen = choose_nodes(s, p, shape, False, now, until, skip)
    if chosen < 0:
        return _TOPOLOGY
    if short:
        return _SITE_POWER
    for i in range(chosen):
        take(s, row.first_worker + i, s.scratch_node[i], shape)
    return 0


@kernel
def _count_room(s: State, p: int, shape: Any, now: int, until: int, skip: int) -> int:
    """How many of the gang's workers fit into each block of a pool until then (`scratch_room`); returns the sum."""
    pool = s.pools[p]
    first = pool.first_word
    last = first + pool.words
    of_word = s.scratch_word[:last]
    of_word[first:] = 0
    for k in range(shape.gpus, pool.gpus + 1):
        each = k // shape.gpus
        if s.open_count[p, k] > 0 and not s.cycle[0].cpu_binds:
            nodes = s.open_nodes[k, :last]
            for word in range(first, len(nodes)):
                of_word[word] += count_bits(nodes[word]) * each
        if s.held_count[p, k] > 0 or (s.open_count[p, k] > 0 and s.cycle[0].cpu_binds):
            for word in range(first, last):
                bits = _to_ask(s, k, word)
                while bits:
                    n = s.word_node[word] + lowest_bit(bits)
                    bits &= bits - 1
                    of_word[word] += workers_on_node_now(s, n, shape, now, until, skip)
    total = 0
    word = first
    for b in range(pool.first_block, pool.first_block + pool.blocks):
        sum_of_block = 0
        for _ in range(s.blocks[b].words):
            sum_of_block += of_word[word]
            word += 1
        s.scratch_room[b] = sum_of_block
        total += sum_of_block
    return int(total)


@kernel
def _to_ask(s: State, k: int, word: int) -> int:
    # The nodes with k free GPUs of which that count does not say it all: reservations, or CPU and memory, may bind.
    bits = s.held_nodes[k, word]
    if s.cycle[0].cpu_binds:
        bits |= s.open_nodes[k, word]
    return int(bits)


@kernel
def _fill_take(s: State, b: int, shape: Any, now: int, until: int, skip: int) -> None:
    # How many workers fit on each node of a block, for `_fill_block`.
    block = s.blocks[b]
    for n in range(block.first_node, block.first_node + block.nodes):
        s.scratch_take[n] = 0
    for k in range(shape.gpus, s.open_nodes.shape[0]):
        for word in range(block.first_word, block.first_word + block.words):
            bits = _to_ask(s, k, word)
            while bits:
                n = s.word_node[word] + lowest_bit(bits)
                bits &= bits - 1
                s.scratch_take[n] = workers_on_node_now(s, n, shape, now, until, skip)
            if not s.cycle[0].cpu_binds:
                bits = s.open_nodes[k, word]
                while bits:
                    s.scratch_take[s.word_node[word] + lowest_bit(bits)] = k // shape.gpus
                    bits &= bits - 1


@kernel
def workers_on_node_now(s: State, n: int, shape: Any, now: int, until: int, skip: int) -> int:
    """How many of the gang's workers fit on a node until then, all at once."""
    node = s.nodes[n]
    most = node.gpus_free // shape.gpus
    if shape.cpu_milli > 0:
        most = min(most, node.cpu_free_milli // shape.cpu_milli)
    if shape.memory_mib > 0:
        most = min(most, node.memory_free_mib // shape.memory_mib)
    while most > 0 and not fits_until(
        s, n, most * shape.gpus, most * shape.cpu_milli, most * shape.memory_mib, now, until, skip
    ):
        most -= 1
    return int(most)


@kernel
def choose_nodes(s: State, p: int, shape: Any, promised: bool, now: int, until: int, skip: int) -> int:
    """Pick the gang's nodes by `scratch_room` (workers that fit into each block of the pool).

    Writes one node per worker to `scratch_node`; returns the number of workers, or -1 when the gang must sit in one
    block and none is large enough. For a promise `scratch_take` (workers that fit on each node) is given, and nodes
    that come free last are preferred: what comes free earlier stays open to others.
    """
    pool = s.pools[p]
    best = -1
    best_room = 1 << 40
    for b in range(pool.first_block, pool.first_block + pool.blocks):
        room = s.scratch_room[b]
        if room >= shape.workers and room < best_room:
            best = b
            best_room = room
    if best >= 0:
        if not promised:
            _fill_take(s, best, shape, now, until, skip)
        _fill_block(s, best, shape, 0, shape.workers, promised)
        return int(shape.workers)
    if shape.topology == _ONE_BLOCK_REQUIRED:
        return -1
    done = 0
    while done < shape.workers:
        best = -1
        best_room = 0
        for b in range(pool.first_block, pool.first_block + pool.blocks):
            room = s.scratch_room[b]
            if room >= shape.workers - done and (best_room < shape.workers - done or room < best_room):
                best = b  # holds the rest: the smallest of those
                best_room = room
            elif room > best_room and best_room < shape.workers - done:
                best = b  # none holds the rest yet: the largest
                best_room = room
        count = min(best_room, shape.workers - done)
        if not promised:
            _fill_take(s, best, shape, now, until, skip)
        _fill_block(s, best, shape, done, count, promised)
        s.scratch_room[best] = 0
        done += count
    return int(done)


@kernel
def _fill_block(s: State, b: int, shape: Any, done: int, count: int, promised: bool) -> None:
    # Few nodes for the gang: the largest room first, and for the rest the smallest room that holds it.
    first = s.blocks[b].first_node
    last = first + s.blocks[b].nodes
    while count > 0:
        best = -1
        best_take = 0
        best_at = 0
        for n in range(first, last):
            room = min(s.scratch_take[n], count)
            if room == 0:
                continue
            at = s.available_s[room * shape.gpus - 1, n] if promised else 0
            spare = s.scratch_take[n] - room
            if (
                best < 0
                or room > best_take
                or (room == best_take and at > best_at)
                or (room == best_take and at == best_at and spare < s.scratch_take[best] - best_take)
            ):
                best = n
                best_take = room
                best_at = at
        n = best
        while n < last and count >= best_take:  # without a promise those of the same room follow in order
            if n == best or s.scratch_take[n] == best_take:
                for _ in range(best_take):
                    s.scratch_node[done] = n
                    done += 1
                count -= best_take
                s.scratch_take[n] = 0
            n = last if promised else n + 1


@kernel
def _place_one_by_one(s: State, row: Any, shape: Any, p: int, short: bool, now: int, skip: int) -> int:
    # Gangs of fractions or of CPU-only workers. One that must sit in one block takes the first that holds it.
    pool = s.pools[p]
    if shape.topology == _ONE_BLOCK_REQUIRED:
        for b in range(pool.first_block, pool.first_block + pool.blocks):
            if _take_one_by_one(s, row, shape, p, b, now, skip):
                if not short:
                    return 0
                _undo(s, row, shape, shape.workers)
                return _SITE_POWER
    if not _take_one_by_one(s, row, shape, p, -1, now, skip):
        return _CAPACITY
    if not short and shape.topology != _ONE_BLOCK_REQUIRED:
        return 0
    _undo(s, row, shape, shape.workers)
    return _TOPOLOGY if shape.topology == _ONE_BLOCK_REQUIRED else _SITE_POWER


@kernel
def _take_one_by_one(s: State, row: Any, shape: Any, p: int, b: int, now: int, skip: int) -> bool:
    """Take room for the whole gang in one block of the pool (-1: anywhere in it), or for none of it."""
    until = now + row.estimate_s
    row.start_s = now  # so that each worker sees when those before it will end
    for placed in range(shape.workers):
        n = find_node(s, p, shape, now, until, skip) if b < 0 else _find_in_block(s, b, shape, now, until, skip)
        if n < 0:
            _undo(s, row, shape, placed)
            return False
        take(s, row.first_worker + placed, n, shape)
    return True


@kernel
def _undo(s: State, row: Any, shape: Any, placed: int) -> None:
    for undo in range(placed):
        give_back(s, row.first_worker + undo, shape)
    row.start_s = -1


@kernel
def _find_in_block(s: State, b: int, shape: Any, now: int, until: int, skip: int) -> int:
    # Without GPUs: the node with the fewest free GPUs, which others want least; ties: lowest node.
    block = s.blocks[b]
    if shape.milli > 0:
        return _find_fraction(s, block.first_node, block.nodes, shape, now, until, skip)
    best = -1
    for n in range(block.first_node, block.first_node + block.nodes):
        if (
            s.nodes[n].up
            and (best < 0 or s.nodes[n].gpus_free < s.nodes[best].gpus_free)
            and fits_until(s, n, shape.gpus, shape.cpu_milli, shape.memory_mib, now, until, skip)
        ):
            best = n
    return best


@kernel
def start_where_promised(s: State, job: int, now: int) -> bool:
    """Start a job on the nodes of its reservation, which `drop` has released but which its workers still name."""
    row = s.jobs[job]
    shape = s.shapes[row.shape]
    pool = s.pools[row.pool]
    site = s.sites[pool.site]
    until = now + row.estimate_s
    if until > pool.closes_s:
        return False
    first = row.first_worker
    last = first + shape.workers
    w = first
    while w < last:  # workers on one node follow each other
        n = s.workers[w].node
        together = 1
        while w + together < last and s.workers[w + together].node == n:
            together += 1
        if s.nodes[n].up == 0 or not _fits_together(s, n, shape, together, now, until):
            return False
        w += together
    need_mw = shape.total_milli * pool.busy_mw_per_milli
    if site.power_mw + need_mw > site.limit_mw:
        s.cycle[0].power_binds = 1
        if has_power(site, need_mw):
            site.power_hold = 1
        return False
    for w in range(first, last):
        take(s, w, s.workers[w].node, shape)
    commit(s, job, row.pool, now)
    return True


@kernel
def _fits_together(s: State, n: int, shape: Any, together: int, now: int, until: int) -> bool:
    if shape.milli > 0:  # promised a whole GPU each
        return fits_until(s, n, together, together * shape.cpu_milli, together * shape.memory_mib, now, until, -1)
    return fits_until(
        s, n, together * shape.gpus, together * shape.cpu_milli, together * shape.memory_mib, now, until, -1
    )
