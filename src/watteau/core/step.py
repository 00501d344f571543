"""One step: take in what happened, order the queue, start what fits, promise the rest, and say why each job waits."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from watteau.core.backfill import (
    any_overdue,
    compress,
    drop,
    drop_all,
    hold,
    mark_nodes_dirty,
    most_workers_on_empty_node,
    plan_add,
    plan_remove,
    reserve,
)
from watteau.core.bits import kernel
from watteau.core.feasible import fits_until, longest_fit_s, mark_dirty, mark_stale
from watteau.core.gate import call_back, hold_at_gate, leave_gate, open_gate
from watteau.core.layout import ABSENT, REJECTED, RUNNING, WAITING, State
from watteau.core.order import enqueue, leave_queue, over_quota, rank_tenants, sort_queue, tidy_queue
from watteau.core.place import (
    delist,
    end_job,
    enlist,
    forget_reason,
    free_workers_bound,
    place_now,
    resume,
    say,
    start_where_promised,
)
from watteau.domain.decisions import Reason
from watteau.domain.errors import InvariantBroken
from watteau.domain.units import NEVER_S, Int32Array

_EXCEEDS_MAXIMUM = int(Reason.EXCEEDS_MAXIMUM)
_EXCEEDS_QUOTA = int(Reason.EXCEEDS_QUOTA)
_QUOTA = int(Reason.QUOTA)
_BEHIND_OTHERS = int(Reason.BEHIND_OTHERS)
_NOT_OPEN_YET = int(Reason.NOT_OPEN_YET)
_SITE_POWER = int(Reason.SITE_POWER)
_GREEN_HOLD = int(Reason.GREEN_HOLD)
_BUDGET_EXHAUSTED = int(Reason.BUDGET_EXHAUSTED)
_HOUR_S = 3_600


def _rows(*values: int) -> Int32Array:
    return np.array(values, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Events:
    """What happened since the last step. Rows of the job and node arrays; the order inside an array does not matter."""

    ended: Int32Array = field(default_factory=_rows)  # [.] jobs that no longer run
    lost: Int32Array = field(default_factory=_rows)  # [.] jobs whose node was lost: they wait again
    arrived: Int32Array = field(default_factory=_rows)  # [.] jobs that wait from now on
    nodes_up: Int32Array = field(default_factory=_rows)  # [.] nodes that open or come back
    nodes_down: Int32Array = field(default_factory=_rows)  # [.] nodes that close, drain or fail
    withdrawn: Int32Array = field(default_factory=_rows)  # [.] waiting jobs that are held or cancelled
    #: [.] jobs that others started: they run already, their workers name their nodes, `start_s` says since when.
    resumed: Int32Array = field(default_factory=_rows)


@dataclass(frozen=True, slots=True)
class Decisions:
    """What one step decided. A waiting job's reason is in `state.jobs.reason`, its promise in `reserved_s`."""

    started: Int32Array  # [.] jobs, in the order in which they were placed
    wake_s: int  # when to step again even if nothing happens; NEVER_S: no need


def step(state: State, events: Events, now_s: int) -> Decisions:
    """Decide one cycle. Changes `state` and nothing else; no clock, no I/O, no chance: same input, same output.

    The outlook (power limits and preferences by hour) and the policy are part of the state; see `state.py`.
    Raises InvariantBroken when the state contradicts itself.
    """
    if now_s < int(state.cycle[0]["now_s"]):
        raise InvariantBroken(f"time ran backwards: {now_s} after {int(state.cycle[0]['now_s'])}")
    count = step_kernel(
        state,
        np.sort(events.ended),
        np.sort(events.lost),
        np.sort(events.arrived),
        np.sort(events.nodes_up),
        np.sort(events.nodes_down),
        np.sort(events.withdrawn),
        np.sort(events.resumed),
        now_s,
    )
    if state.cycle[0]["overflow"]:
        raise InvariantBroken("the queue is full; call `make_room` before jobs arrive")
    return Decisions(started=state.started[:count].copy(), wake_s=int(state.cycle[0]["wake_s"]))


@kernel
def step_kernel(
    s: State,
    ended: Int32Array,
    lost: Int32Array,
    arrived: Int32Array,
    nodes_up: Int32Array,
    nodes_down: Int32Array,
    withdrawn: Int32Array,
    resumed: Int32Array,
    now: int,
) -> int:
    """The compiled step; rows sorted. Returns how many jobs started; they are in `s.started`."""
    cycle = s.cycle[0]
    cycle.now_s = now
    cycle.started = 0
    cycle.exhausted = 0
    if len(ended) + len(lost) + len(nodes_up) + len(nodes_down) > 0:
        _take_in(s, ended, lost, nodes_up, nodes_down, now)
    if len(withdrawn) > 0:
        _withdraw(s, withdrawn)
    if len(resumed) > 0:  # they may stand on nodes that were promised to others, who are promised anew
        drop_all(s)
        resume(s, resumed)
        cycle.scan_all = 1
        cycle.blocked = 0
    hour = min(now // _HOUR_S - cycle.hour_zero, s.limit_mw.shape[1] - 1)
    if now // _HOUR_S != cycle.green_hour:  # an outlook may be shorter than the envelopes that follow each other
        cycle.green_hour = now // _HOUR_S
        call_back(s, now)
    if hour != cycle.hour:
        _turn_hour(s, hour)
    position = -1
    for i in range(len(arrived)):
        position = _admit(s, arrived[i], now)
        if 0 <= position < cycle.queue_tail - 1:  # a higher class goes in front of the job that blocks the queue
            cycle.blocked = 0
    released = open_gate(s, now) if cycle.gated > 0 else 0
    if released > 0:
        cycle.blocked = 0
    if cycle.waiting > 0:
        if s.policy[0].reservations == 0:
            _start_in_order(s, lost, arrived, now)
        elif (
            len(arrived) == 1
            and released == 0
            and cycle.dirty == 0
            and cycle.scan_all == 0
            and now < cycle.wake_s
            and not _rank_is_due(s, now)
        ):
            # Nothing was freed and no promise is due: only the newcomer can have a chance.
            if position >= 0:
                _consider(s, position, now)
        else:
            _decide(s, len(arrived) + len(lost) + released, now)
    _forget_dirty(s)
    cycle.wake_s = _wake_s(s, now)
    return int(cycle.started)


@kernel
def _wake_s(s: State, now: int) -> int:
    """When to look again even if nothing happens until then; always later than now."""
    cycle = s.cycle[0]
    if cycle.exhausted:
        return int(now + 1)
    wake_s = NEVER_S
    if cycle.freed_early and cycle.planned > 0:
        wake_s = max(now + 1, cycle.compressed_s + s.policy[0].compress_every_s)
    for at in range(cycle.planned):
        row = s.jobs[s.plan[at]]
        if row.reserved_s > now:
            wake_s = min(wake_s, row.reserved_s)
        elif s.sites[s.pools[row.pool].site].power_hold == 0:  # not kept, and not for power: it is given anew
            wake_s = min(wake_s, max(now + 1, cycle.compressed_s + s.policy[0].compress_every_s))
    if cycle.power_binds and cycle.waiting > 0 and cycle.hour + 1 < s.limit_mw.shape[1]:
        wake_s = min(wake_s, (cycle.hour_zero + cycle.hour + 1) * _HOUR_S)  # another hour, another limit
    if cycle.gated > 0 or cycle.released_mw > 0:  # another hour, another envelope; or the latest start of one comes
        wake_s = min(wake_s, (now // _HOUR_S + 1) * _HOUR_S)
    if cycle.gated > 0:
        wake_s = min(wake_s, max(now + 1, s.jobs[s.gate[0]].due_s))
    return int(wake_s)


@kernel
def _take_in(s: State, ended: Any, lost: Any, nodes_up: Any, nodes_down: Any, now: int) -> None:
    cycle = s.cycle[0]
    for i in range(len(ended)):
        end_job(s, ended[i], now)
    cycle.blocked = 0
    if cycle.power_binds:
        cycle.scan_all = 1
    for i in range(len(lost)):
        if s.jobs[lost[i]].state == RUNNING:
            end_job(s, lost[i], now)
            s.jobs[lost[i]].start_s = -1
            _admit(s, lost[i], now)
    if len(nodes_up) + len(nodes_down) > 0:
        drop_all(s)
        for i in range(len(nodes_up)):
            _set_node(s, nodes_up[i], 1)
        for i in range(len(nodes_down)):
            _set_node(s, nodes_down[i], 0)
        judge_shapes(s)
        cycle.scan_all = 1


@kernel
def _withdraw(s: State, withdrawn: Any) -> None:
    """Waiting jobs leave the queue; what they were promised is free for others. They may arrive again later."""
    cycle = s.cycle[0]
    for i in range(len(withdrawn)):
        job = withdrawn[i]
        row = s.jobs[job]
        if row.state != WAITING:
            continue
        if row.reserved_s < NEVER_S:
            drop(s, job)
            plan_remove(s, job)
            mark_nodes_dirty(s, job)
            cycle.freed_early = 1
            cycle.scan_all = 1  # who stood behind the promise may go now, on other nodes too
        if row.gated:
            leave_gate(s, job)
        forget_reason(s, job)
        row.state = ABSENT
    cycle.blocked = 0
    for at in range(cycle.queue_head, cycle.queue_tail):
        if s.queue[at].shape >= 0 and s.jobs[s.queue[at].job].state == ABSENT:
            leave_queue(s, at)
    if cycle.waiting == 0:
        cycle.scan_all = 0


@kernel
def _set_node(s: State, n: int, up: int) -> None:
    node = s.nodes[n]
    if node.up == up:
        return
    pool = s.pools[node.pool]
    delist(s, n)
    node.up = up
    enlist(s, n)
    mark_stale(s, n)
    mark_dirty(s, n, 0)
    idle_mw = pool.node_idle_mw if up else -pool.node_idle_mw
    s.sites[pool.site].power_mw += idle_mw
    s.sites[pool.site].idle_mw += idle_mw


@kernel
def _turn_hour(s: State, hour: int) -> None:
    before = max(s.cycle[0].hour, 0)
    s.cycle[0].hour = hour
    less_ahead = False
    for site in range(len(s.sites)):
        s.sites[site].limit_mw = s.limit_mw[site, hour]
        s.sites[site].green_mw = s.green_mw[site, hour]
        less_ahead |= s.limit_ahead_mw[site, hour] < s.limit_ahead_mw[site, before]
    judged_anew = less_ahead and judge_shapes(s)  # the last hour with enough power for some shape may be over
    if s.cycle[0].power_binds or judged_anew:
        s.cycle[0].epoch += 1
        s.cycle[0].scan_all = 1


@kernel
def judge_shapes(s: State) -> bool:
    """For each shape: does it fit the open fleet when that is empty, in this hour or a later one? If not, why not.

    By the same sum as `place_now`: the idle power of all that is open at the site, and the job's own.
    Returns whether a verdict has changed.
    """
    hour = max(s.cycle[0].hour, 0)
    changed = False
    blocks = len(s.blocks)
    block_up = np.zeros(blocks, np.int64)
    pool_up = np.zeros(len(s.pools), np.int64)
    for n in range(len(s.nodes)):
        if s.nodes[n].up:
            block_up[s.nodes[n].block] += 1
            pool_up[s.nodes[n].pool] += 1
    for index in range(len(s.shapes)):
        shape = s.shapes[index]
        if 0 < shape.verdict < _QUOTA:
            continue  # final
        verdict = _NOT_OPEN_YET
        for p in range(len(s.pools)):
            if s.shape_pools[index, p] == 0:
                continue
            pool = s.pools[p]
            most = most_workers_on_empty_node(pool, shape)
            nodes = pool_up[p]
            if shape.topology == 2 and shape.workers > 1:
                nodes = 0
                for b in range(pool.first_block, pool.first_block + pool.blocks):
                    nodes = max(nodes, block_up[b])
            if most * nodes < shape.workers:
                continue
            need_mw = shape.total_milli * pool.busy_mw_per_milli
            if s.sites[pool.site].idle_mw + need_mw > s.limit_ahead_mw[pool.site, hour]:
                verdict = _SITE_POWER
                continue
            verdict = 0
            break
        changed |= verdict != shape.verdict
        shape.verdict = verdict
    return changed


@kernel
def _admit(s: State, job: int, now: int) -> int:
    """Put an arrived job into the queue; one that can never run is refused with its reason. Returns its position."""
    row = s.jobs[job]
    shape = s.shapes[row.shape]
    row.reason = 0
    row.reserved_s = NEVER_S
    if 0 < shape.verdict < _QUOTA:
        row.state = REJECTED
        say(s, job, shape.verdict, now)
        return -1
    up = row.tenant
    while up >= 0:
        if 0 <= s.tenants[up].quota_milli < shape.total_milli:
            row.state = REJECTED
            say(s, job, _EXCEEDS_QUOTA, now)
            return -1
        up = s.tenants[up].parent
    row.state = WAITING
    if row.due_s > now:
        hold_at_gate(s, job, now)
        return -1
    return enqueue(s, job)


@kernel
def _held_back(s: State, job: int, now: int) -> bool:
    """Whether a quota or a closed site keeps the job from being tried; says which."""
    row = s.jobs[job]
    shape = s.shapes[row.shape]
    if shape.verdict != 0:
        say(s, job, shape.verdict, now)
        return True
    tenant = over_quota(s, row.tenant, shape.total_milli)
    if tenant >= 0:
        if row.reason == _QUOTA:
            s.tenants[row.held_by].holds_back -= 1
        else:
            say(s, job, _QUOTA, now)
            s.cycle[0].held_by_quota += 1
        row.held_by = tenant
        s.tenants[tenant].holds_back += 1
        return True
    return False


@kernel
def _start_in_order(s: State, lost: Any, arrived: Any, now: int) -> None:
    """Strict order: nobody overtakes the first job that does not fit (a quota holds back only its own tenant)."""
    cycle = s.cycle[0]
    if _reorder(s, now) or cycle.scan_all:
        cycle.blocked = 0
    cycle.scan_all = 0
    at = cycle.queue_head
    while at < cycle.queue_tail and not cycle.blocked:
        if s.queue[at].shape >= 0:
            job = s.queue[at].job
            if not _held_back(s, job, now):
                why = place_now(s, job, now, -1)
                if why == 0:
                    leave_queue(s, at)
                else:
                    say(s, job, why, now)
                    if why != _GREEN_HOLD:
                        cycle.blocked = 1
        at += 1
    _say_behind(s, lost, now)
    _say_behind(s, arrived, now)


@kernel
def _say_behind(s: State, newcomers: Any, now: int) -> None:
    # Those who waited before have been told in their time.
    for i in range(len(newcomers)):
        row = s.jobs[newcomers[i]]
        if row.state == WAITING and row.reason == 0 and not _held_back(s, newcomers[i], now):
            say(s, newcomers[i], _BEHIND_OTHERS, now)


@kernel
def _rank_is_due(s: State, now: int) -> bool:
    policy = s.policy[0]
    return bool(policy.fair and len(s.tenants) > 2 and now - s.cycle[0].ranked_s >= policy.rank_every_s)


@kernel
def _reorder(s: State, now: int) -> bool:
    """Rank the tenants anew when it is time; True when that changed the order of the queue."""
    if not _rank_is_due(s, now):
        return False
    rank_tenants(s, now)
    s.cycle[0].ranked_s = now
    return sort_queue(s)


@kernel
def _decide(s: State, newcomers: int, now: int) -> None:
    """Backfill: rank, move promises forward, then pass over the queue until a pass frees nothing new."""
    cycle = s.cycle[0]
    policy = s.policy[0]
    if cycle.queue_tail - cycle.queue_head > 2 * cycle.waiting + 64:
        tidy_queue(s)
    if _reorder(s, now):
        drop_all(s)
        cycle.scan_all = 1
    if cycle.planned > 0 and now - cycle.compressed_s >= policy.compress_every_s and any_overdue(s, now):
        # An estimate was wrong and the promises contradict it: give them anew, in the order of the queue. Moving them
        # one by one would put the job that waits too long already behind all that were promised after it.
        drop_all(s)
        cycle.scan_all = 1
        cycle.compressed_s = now
    if cycle.planned == 0:
        cycle.freed_early = 0
    elif (cycle.freed_early and now - cycle.compressed_s >= policy.compress_every_s) or (
        policy.reservations == 1 and cycle.dirty > 0
    ):
        compress(s, now)
    first = True
    while (first or cycle.dirty > 0 or cycle.scan_all or cycle.quota_freed) and not cycle.exhausted:
        first = False
        count = cycle.dirty
        freed = s.dirty[:count].copy()
        _forget_dirty(s)
        _pass(s, freed, newcomers, now)
    if cycle.exhausted and cycle.dirty > 0:
        cycle.scan_all = 1


@kernel
def _quota_left(s: State) -> bool:
    """Whether some tenant whose quota keeps jobs waiting could still run more."""
    for tenant in range(len(s.tenants)):
        row = s.tenants[tenant]
        if row.holds_back > 0 and row.used_milli < row.quota_milli:
            return True
    return False


@kernel
def _room_left(s: State, freed: Any) -> bool:
    for i in range(len(freed)):
        if s.nodes[freed[i]].gpus_free > 0 or s.nodes[freed[i]].share_best > 0:
            return True
    return False


@kernel
def _forget_dirty(s: State) -> None:
    for i in range(s.cycle[0].dirty):
        s.nodes[s.dirty[i]].dirty = 0
    s.cycle[0].dirty = 0


@kernel
def _pass(s: State, freed: Any, newcomers: int, now: int) -> None:
    """Look at the waiting jobs in order; what cannot have changed since it was last tried is passed over."""
    cycle = s.cycle[0]
    policy = s.policy[0]
    scan_all = cycle.scan_all
    quota_freed = cycle.quota_freed
    cycle.scan_all = 0
    cycle.quota_freed = 0
    if scan_all:
        cycle.epoch += 1
        for site in range(len(s.sites)):
            s.sites[site].power_hold = 0
    pass_epoch = cycle.epoch
    tried = 0
    # Where only GPUs can be short, nobody gains once the freed nodes, and the freed quotas, are full again.
    may_stop = not (scan_all or newcomers or cycle.cpu_binds or cycle.left_untried)
    started = -1
    at = cycle.queue_head
    while at < cycle.queue_tail:
        if may_stop and started != cycle.started:
            started = cycle.started
            quota_freed = quota_freed and _quota_left(s)
            if (
                not quota_freed
                and cycle.planned >= min(policy.reservations, cycle.waiting - cycle.held_by_quota)
                and not _room_left(s, freed)
                and not _promise_is_due(s, now)
            ):
                return
        entry = s.queue[at]
        if entry.shape < 0:
            at += 1
            continue
        job = entry.job
        row = s.jobs[job]
        untried = scan_all or row.reason == 0 or row.reason == _BUDGET_EXHAUSTED
        if tried == policy.step_budget:  # the next step goes on from here
            freed_quota = quota_freed and row.reason == _QUOTA
            if untried or freed_quota or row.reserved_s <= now or _may_gain(s, entry, freed, pass_epoch, now):
                say(s, job, _BUDGET_EXHAUSTED, now)
                cycle.exhausted = 1
        elif row.reserved_s < NEVER_S:
            if untried or row.reserved_s <= now or (cycle.freed_early and _may_fit_freed(s, job, freed, now)):
                tried += 1
                _try_promised(s, at, now)
        elif row.reason == _QUOTA and not scan_all:
            if quota_freed and not _held_back(s, job, now):  # or by another quota now, which is noted
                tried += 1
                _consider(s, at, now)
        elif untried or _may_gain(s, entry, freed, pass_epoch, now):
            tried += 1
            _consider(s, at, now)
        elif cycle.planned < policy.reservations and row.due_s <= now and not _held_back(s, job, now):
            _promise(s, job, now)
        at += 1
    cycle.left_untried = cycle.exhausted


@kernel
def _promise_is_due(s: State, now: int) -> bool:
    for i in range(s.cycle[0].planned):
        if s.jobs[s.plan[i]].reserved_s <= now:
            return True
    return False


@kernel
def _may_gain(s: State, entry: Any, freed: Any, pass_epoch: int, now: int) -> bool:
    """Whether the nodes freed since the job was last tried could let it start: a bound, never too low."""
    shape = s.shapes[entry.shape]
    if len(freed) == 0:
        return False
    if shape.workers == 1:
        if shape.milli > 0:
            return True
        if shape.longest_epoch != pass_epoch:
            longest = 0
            for i in range(len(freed)):
                n = freed[i]
                if s.nodes[n].up and s.shape_pools[entry.shape, s.nodes[n].pool]:
                    fit = longest_fit_s(s, n, shape.gpus, shape.cpu_milli, shape.memory_mib, now)
                    longest = max(longest, fit)
            shape.longest_s = longest
            shape.longest_epoch = pass_epoch
        return bool(entry.estimate_s <= shape.longest_s)
    if shape.milli > 0 or shape.gpus == 0:
        return True
    return _gang_may_fit(s, s.jobs[entry.job])


@kernel
def _may_fit_freed(s: State, job: int, freed: Any, now: int) -> bool:
    """Whether a job that holds a promise could start earlier, on what was just freed."""
    row = s.jobs[job]
    shape = s.shapes[row.shape]
    if shape.milli > 0 or shape.gpus == 0:
        return True
    if shape.workers == 1:
        for i in range(len(freed)):
            n = freed[i]
            if (
                s.nodes[n].up
                and s.nodes[n].gpus_free >= shape.gpus
                and s.shape_pools[row.shape, s.nodes[n].pool]
                and fits_until(s, n, shape.gpus, shape.cpu_milli, shape.memory_mib, now, now + row.estimate_s, job)
            ):
                return True
        return False
    return _gang_may_fit(s, row)


@kernel
def _gang_may_fit(s: State, row: Any) -> bool:
    """Whether a gang of whole GPUs that was tried in vain may find room now: a bound, never too low."""
    shape = s.shapes[row.shape]
    if row.tried_room + s.gained[shape.gpus] - row.tried_gained < shape.workers:
        return False
    for p in range(len(s.pools)):
        if s.shape_pools[row.shape, p] and free_workers_bound(s, p, shape.gpus) >= shape.workers:
            return True
    return False


@kernel
def _note_failure(s: State, row: Any, room: int) -> None:
    """Remember how much room a gang found, so that it is tried again only when enough has been added."""
    row.tried_room = room
    row.tried_gained = s.gained[s.shapes[row.shape].gpus]


@kernel
def _try_promised(s: State, at: int, now: int) -> None:
    """Start a job that holds a promise, where it was promised or elsewhere; else it keeps the promise."""
    job = s.queue[at].job
    row = s.jobs[job]
    promised_s = row.reserved_s
    pool = row.pool
    workers = s.shapes[row.shape].workers
    if _held_back(s, job, now):
        drop(s, job)
        plan_remove(s, job)
        mark_nodes_dirty(s, job)
        return
    old = np.empty(workers, np.int32)
    for i in range(workers):
        old[i] = s.workers[row.first_worker + i].node
    drop(s, job)
    as_promised = promised_s <= now and start_where_promised(s, job, now)
    why = 0 if as_promised else place_now(s, job, now, job)
    if why == 0:
        plan_remove(s, job)
        leave_queue(s, at)
        if not as_promised:
            s.cycle[0].freed_early = 1
            for i in range(workers):
                mark_dirty(s, old[i], 0)
        return
    for i in range(workers):
        s.workers[row.first_worker + i].node = old[i]
    hold(s, job, pool, promised_s)
    _note_failure(s, row, s.cycle[0].gang_room)
    say(s, job, why, now)


@kernel
def _consider(s: State, at: int, now: int) -> None:
    """Try a job that holds no promise: start it, or promise it a start, or leave it waiting with its reason."""
    job = s.queue[at].job
    row = s.jobs[job]
    if _held_back(s, job, now):
        return
    shape = s.shapes[row.shape]
    cycle = s.cycle[0]
    if shape.failed_epoch == cycle.epoch and row.estimate_s >= shape.failed_estimate_s:
        why = shape.failed_reason
    else:
        why = place_now(s, job, now, -1)
        if why == 0:
            leave_queue(s, at)
            return
        if why == _GREEN_HOLD:  # it says nothing of other jobs of that shape
            _note_failure(s, row, cycle.gang_room)
            say(s, job, why, now)
            return
        if shape.failed_epoch != cycle.epoch or row.estimate_s < shape.failed_estimate_s:
            shape.failed_epoch = cycle.epoch
            shape.failed_estimate_s = row.estimate_s
            shape.failed_reason = why
            shape.failed_room = cycle.gang_room
    _note_failure(s, row, shape.failed_room)
    say(s, job, why, now)
    if cycle.planned < s.policy[0].reservations and row.due_s <= now:
        _promise(s, job, now)


@kernel
def _promise(s: State, job: int, now: int) -> None:
    if reserve(s, job, now):
        plan_add(s, job)
        row = s.jobs[job]
        if row.reserved_s <= now and row.reason == _SITE_POWER:  # `reserve` promises only what the hour's limit allows
            s.sites[s.pools[row.pool].site].power_hold = 1
