"""The order of the queue: priority class, then Fair Tree over the tenants' decayed use, then age.

Use decays with a half-life: U(now) = sum over GPU-seconds of 0.5 ** (age / half-life). It is kept with forward decay
(Cormode et al., ICDE 2009): with weight(t) = 2 ** ((t - zero) / half-life) a job that runs from a to b adds
gpus * (weight(b) - weight(a)) to a sum that never has to be touched again; dividing by weight(now) when tenants are
compared is not needed, because only ratios count. Fair Tree: Slurm's algorithm of that name (fair_tree.shtml).
"""

from typing import Any

from watteau.core.bits import kernel
from watteau.core.layout import State

#: Weights are brought back to 1 before they leave the range in which doubles add exactly enough.
_REBASE_HALF_LIVES = 40.0


@kernel
def decay_weight(s: State, now: int) -> float:
    """The weight of one GPU-second now. Also shifts the zero when it lies too far back."""
    half_lives = (now - s.cycle[0].weight_zero_s) / s.policy[0].half_life_s
    if half_lives > _REBASE_HALF_LIVES:
        factor = 0.5**half_lives
        for tenant in range(len(s.tenants)):
            s.tenants[tenant].weighted_past *= factor
        s.cycle[0].weight_zero_s = now
        return 1.0
    return float(2.0**half_lives)


@kernel
def charge(s: State, tenant: int, milli: int, sign: int, now: int) -> None:
    """Book `milli` thousandths of a GPU in (sign 1) or out (sign -1) of use, for a tenant and all above it."""
    if s.policy[0].fair:
        gpus = sign * milli / 1000.0
        weight = decay_weight(s, now)  # first: it may rescale what is added to
        row = s.tenants[tenant]
        row.weighted_past -= gpus * weight
        row.running_gpus += gpus
    up = tenant
    while up >= 0:
        s.tenants[up].used_milli += sign * milli
        up = s.tenants[up].parent


@kernel
def over_quota(s: State, tenant: int, milli: int) -> int:
    """The tenant at or above this one whose quota `milli` more would break, or -1."""
    up = tenant
    while up >= 0:
        quota = s.tenants[up].quota_milli
        if quota >= 0 and s.tenants[up].used_milli + milli > quota:
            return up
        up = s.tenants[up].parent
    return -1


@kernel
def rank_tenants(s: State, now: int) -> None:
    """Fair Tree: sort siblings by share over use, most deserving first, depth first; write each tenant's rank.

    Ties go to the tenant that comes first in the tree.
    """
    weight = decay_weight(s, now)
    count = len(s.tenants)
    for tenant in range(count):
        row = s.tenants[tenant]
        row.usage = max(0.0, row.weighted_past + row.running_gpus * weight)
    # Children come after their parents, so one backward sweep sums every subtree.
    for tenant in range(count - 1, 0, -1):
        s.tenants[s.tenants[tenant].parent].usage += s.tenants[tenant].usage
    for tenant in range(count):
        _sort_children(s, tenant)
    stack = s.scratch_take
    stack[0] = 0
    depth = 1
    rank = 0
    while depth > 0:
        depth -= 1
        tenant = stack[depth]
        s.tenants[tenant].rank = rank
        rank += 1
        first = s.tenants[tenant].first_child
        for place in range(first + s.tenants[tenant].children - 1, first - 1, -1):
            stack[depth] = s.children[place]
            depth += 1


@kernel
def _sort_children(s: State, tenant: int) -> None:
    # Insertion sort: ranks change little from one time to the next, and a nearly sorted list costs one pass.
    first = s.tenants[tenant].first_child
    for place in range(first + 1, first + s.tenants[tenant].children):
        child = s.children[place]
        at = place
        while at > first and _deserves_more(s, child, s.children[at - 1]):
            s.children[at] = s.children[at - 1]
            at -= 1
        s.children[at] = child


@kernel
def _deserves_more(s: State, a: int, b: int) -> bool:
    # share_a / use_a > share_b / use_b, without dividing by a use of zero.
    left = s.tenants[a].share * s.tenants[b].usage
    right = s.tenants[b].share * s.tenants[a].usage
    if left != right:
        return bool(left > right)
    if s.tenants[a].usage != s.tenants[b].usage:  # both products are zero: nothing used goes first
        return bool(s.tenants[a].usage < s.tenants[b].usage)
    return bool(a < b)


@kernel
def queue_key(s: State, job: int) -> int:
    """Where a job belongs in the queue: lower keys go first; equal keys by row, that is by age."""
    row = s.jobs[job]
    key = (32_767 - row.priority_class) << 40
    if s.policy[0].fair:
        key += s.tenants[row.tenant].rank
    return int(key)


@kernel
def enqueue(s: State, job: int) -> int:
    """Insert a job where its key and its row say; its position, or -1 and `overflow` when the queue is full."""
    cycle = s.cycle[0]
    queue = s.queue
    key = queue_key(s, job)
    if cycle.queue_tail == len(queue):
        tidy_queue(s)
        if cycle.queue_tail == len(queue):
            cycle.overflow = 1
            return -1
    at = cycle.queue_tail
    # Most jobs belong at the end; the others are found their place by bisection.
    if at > cycle.queue_head and _goes_before(key, job, queue[at - 1]):
        low = cycle.queue_head
        high = at
        while low < high:
            middle = (low + high) >> 1
            if _goes_before(key, job, queue[middle]):
                high = middle
            else:
                low = middle + 1
        for move in range(at, low, -1):
            queue[move] = queue[move - 1]
        at = low
    entry = queue[at]
    entry.key = key
    entry.job = job
    entry.shape = s.jobs[job].shape
    entry.estimate_s = s.jobs[job].estimate_s
    cycle.queue_tail += 1
    cycle.waiting += 1
    return int(at)


@kernel
def leave_queue(s: State, at: int) -> None:
    """Whoever stands at a position leaves; the gap is closed later."""
    cycle = s.cycle[0]
    s.queue[at].shape = -1
    cycle.waiting -= 1
    while cycle.queue_head < cycle.queue_tail and s.queue[cycle.queue_head].shape < 0:
        cycle.queue_head += 1
    if cycle.waiting == 0:
        cycle.queue_head = 0
        cycle.queue_tail = 0


@kernel
def _goes_before(key: int, job: int, entry: Any) -> bool:
    return bool(key < entry.key or (key == entry.key and job < entry.job))


@kernel
def tidy_queue(s: State) -> None:
    """Close the gaps that started jobs left."""
    cycle = s.cycle[0]
    to = 0
    for at in range(cycle.queue_head, cycle.queue_tail):
        if s.queue[at].shape >= 0:
            if to != at:
                s.queue[to] = s.queue[at]
            to += 1
    cycle.queue_head = 0
    cycle.queue_tail = to


@kernel
def sort_queue(s: State) -> bool:
    """Give every waiting job its present key and sort; True when the order changed."""
    tidy_queue(s)
    tail = s.cycle[0].queue_tail
    changed = False
    for at in range(tail):
        s.queue[at].key = queue_key(s, s.queue[at].job)
        if at > 0 and _before(s.queue[at], s.queue[at - 1]):
            changed = True
    if changed:
        _merge_sort(s.queue, tail)
    return changed


@kernel
def _before(a: Any, b: Any) -> bool:
    return bool(a.key < b.key or (a.key == b.key and a.job < b.job))


@kernel
def _merge_sort(queue: Any, count: int) -> None:
    # Bottom-up: the queue is a few sorted runs, one per tenant, and records must move as a whole.
    source = queue[:count].copy()
    target = queue[:count].copy()
    width = 1
    while width < count:
        for left in range(0, count, 2 * width):
            middle = min(left + width, count)
            right = min(left + 2 * width, count)
            a = left
            b = middle
            for to in range(left, right):
                if a < middle and (b >= right or not _before(source[b], source[a])):
                    target[to] = source[a]
                    a += 1
                else:
                    target[to] = source[b]
                    b += 1
        source, target = target, source
        width *= 2
    for at in range(count):
        queue[at] = source[at]
