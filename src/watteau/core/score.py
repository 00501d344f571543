"""Scoring nodes by what a placement costs them: fragmentation that the typical mix of tasks would meet.

The rule is Fragmentation Gradient Descent (FGD: Weng et al., "Beware of Fragmentation", USENIX ATC 2023). A node's
fragmentation, for a mix in which a worker is of type m with the share p_m, is F = sum over m of p_m * f(m), in
thousandths of a GPU:

    f(m) = every free thousandth of the node, when m cannot run there now (CPU, memory, GPU model, GPUs) or asks for no
           GPU; else what is free on those GPUs alone that have less free than m takes of one.

A worker goes to the node, and a fraction to the GPU, where F rises least. FGD looks one task ahead, so it sees a lack
of CPU or memory only when the last task no longer fits, and strands GPUs on nodes with little CPU per GPU. The
balanced rule (`Scoring.BALANCED_FRAGMENTATION`) minimises the rise of F + B instead:

    B = the free thousandths for which the node has not enough free CPU, or not enough free memory (the scarcer of the
        two), if every GPU is to have as much beside it as the mix asks for on average, CPU-only tasks included.

So lean tasks go where CPU is scarce and CPU-heavy ones where it is plentiful. It has no parameter: a GPU that lacks its
CPU counts as much as one that is fragmented. Both rules know the mix's shares and nothing of what will arrive.

Ties: the node with the fewest free GPU thousandths, then the least free CPU, then the lowest node; inside a node the
fullest GPU. Shares are whole millionths, so that losses are integers and a tie is one to the digit. A score is kept
until its node changes; neighbours in the same state share one. It holds for single workers; gangs go by blocks.
"""

from watteau.core.bits import kernel
from watteau.core.feasible import fits_until, fraction_fits_until
from watteau.core.layout import State

#: The loss of a worker for which the node has no room.
DOES_NOT_FIT = 1 << 62
_BALANCED = 2
_WHOLE = 1000
_ALL = 1_000_000  # the sum of all shares


@kernel
def find_by_loss(s: State, index: int, p: int, best: int, now: int, until: int, skip: int) -> int:
    """The node of pool `p` on which a worker of shape `index` costs least, or `best` (-1: none) if that costs no more.

    Only nodes on which the worker fits until then without delaying a reservation but that of `skip`. The GPU that a
    fraction is to take is in the node's score.
    """
    pool = s.pools[p]
    cached = -1
    for n in range(pool.first_node, pool.first_node + pool.nodes):
        node = s.nodes[n]
        score = s.scores[index, n]
        if node.up == 0:
            continue
        if node.reserved >= 0:
            evaluate(s, index, n, now, until, skip)  # depends on the time, too: not kept
        elif score.version != node.version:
            if cached >= 0 and same_state(s, n, cached):
                score.loss = s.scores[index, cached].loss
                score.gpu = s.scores[index, cached].gpu
                s.potentials[n].value = s.potentials[cached].value
                s.potentials[n].free = s.potentials[cached].free
                s.potentials[n].version = node.version
            else:
                evaluate(s, index, n, now, until, skip)
            score.version = node.version
            cached = n
        if score.loss < DOES_NOT_FIT and (best < 0 or _is_better(s, index, n, best)):
            best = n
    return best


@kernel
def _is_better(s: State, index: int, n: int, than: int) -> bool:
    # Nodes come in rising order, so that a full tie keeps the lower one.
    loss = s.scores[index, n].loss
    least = s.scores[index, than].loss
    if loss != least:
        return bool(loss < least)
    free = s.potentials[n].free
    least_free = s.potentials[than].free
    if free != least_free:
        return bool(free < least_free)
    return bool(s.nodes[n].cpu_free_milli < s.nodes[than].cpu_free_milli)


@kernel
def same_state(s: State, a: int, b: int) -> bool:
    """Whether two nodes of one pool have the same free, GPU by GPU."""
    left = s.nodes[a]
    right = s.nodes[b]
    if (
        left.gpus_free != right.gpus_free
        or left.cpu_free_milli != right.cpu_free_milli
        or left.memory_free_mib != right.memory_free_mib
        or left.share_best != right.share_best
    ):
        return False
    if left.share_best >= 0:
        for gpu in range(left.gpus):
            if s.shared_free[a, gpu] != s.shared_free[b, gpu]:
                return False
    return True


@kernel
def evaluate(s: State, index: int, n: int, now: int, until: int, skip: int) -> None:
    """Work out the loss of a shape's worker on a node, and the GPU that a fraction would take there."""
    node = s.nodes[n]
    shape = s.shapes[index]
    before = _potential_now(s, n)
    score = s.scores[index, n]
    score.loss = DOES_NOT_FIT
    score.gpu = -1
    score.version = -1
    cpu_milli = node.cpu_free_milli - shape.cpu_milli
    memory_mib = node.memory_free_mib - shape.memory_mib
    if cpu_milli < 0 or memory_mib < 0:
        return
    if shape.milli == 0:
        if node.gpus_free >= shape.gpus and (
            node.reserved < 0 or fits_until(s, n, shape.gpus, shape.cpu_milli, shape.memory_mib, now, until, skip)
        ):
            score.loss = potential(s, n, node.gpus_free - shape.gpus, -1, 0, cpu_milli, memory_mib) - before
        return
    last = _WHOLE
    while True:  # the shared GPUs with room, the fullest first, each level of filling once; then a fresh GPU
        gpu = _next_fullest(s, n, shape.milli, last)
        whole = node.gpus_free
        left = _WHOLE - shape.milli
        if gpu >= 0:
            last = int(s.shared_free[n, gpu])
            left = last - shape.milli
        elif whole > 0:
            whole -= 1
        else:
            return
        if fraction_fits_until(s, n, gpu, shape, now, until, skip):
            loss = potential(s, n, whole, gpu, left, cpu_milli, memory_mib) - before
            if loss < score.loss:
                score.loss = loss
                score.gpu = gpu
        if gpu < 0:
            return


@kernel
def _next_fullest(s: State, n: int, milli: int, after: int) -> int:
    # Among the shared GPUs with room for `milli`: the one with the least free that is more than was looked at before.
    best = -1
    for gpu in range(s.nodes[n].gpus):
        free = s.shared_free[n, gpu]
        if free >= milli and (after == _WHOLE or free > after) and (best < 0 or free < s.shared_free[n, best]):
            best = gpu
    return best


@kernel
def _potential_now(s: State, n: int) -> int:
    node = s.nodes[n]
    kept = s.potentials[n]
    if kept.version != node.version:
        kept.value = potential(s, n, node.gpus_free, -1, 0, node.cpu_free_milli, node.memory_free_mib)
        kept.version = node.version
        kept.free = _WHOLE * node.gpus_free
        for gpu in range(node.gpus):
            kept.free += max(0, int(s.shared_free[n, gpu]))
    return int(kept.value)


@kernel
def potential(s: State, n: int, whole: int, gpu: int, left: int, cpu_milli: int, memory_mib: int) -> int:
    """What the policy minimises: F, or F + B, in millionths of thousandths, of node `n` as if so much were free on it.

    `whole` GPUs, CPU and memory; its shared GPUs as they are, but `gpu` with `left` free (-1: one GPU more, which holds
    `left`; with 0 left: none).
    """
    node = s.nodes[n]
    shared = left if gpu < 0 else 0
    most = _WHOLE if whole > 0 else shared
    for g in range(node.gpus):
        free = left if g == gpu else int(s.shared_free[n, g])
        if free > 0:
            shared += free
            most = max(most, free)
    free = _WHOLE * whole + shared
    if free == 0:
        return 0
    total = 0
    for m in range(len(s.typical)):
        share = int(s.typical[m, 0])
        gpus = int(s.typical[m, 1])
        milli = int(s.typical[m, 2])
        if (
            gpus + milli == 0
            or s.typical_pools[m, node.pool] == 0
            or cpu_milli < s.typical[m, 3]
            or memory_mib < s.typical[m, 4]
            or gpus > whole
            or milli > most
        ):
            total += share * free
        elif gpus > 0:
            total += share * shared
        else:
            small = left if gpu < 0 and left < milli else 0
            for g in range(node.gpus):
                level = left if g == gpu else int(s.shared_free[n, g])
                if 0 < level < milli:
                    small += level
            total += share * small
    if s.policy[0].scoring == _BALANCED:
        lacking = 0
        if s.policy[0].gpu_per_cpu > 0:
            lacking = max(lacking, free - int(cpu_milli * s.policy[0].gpu_per_cpu))
        if s.policy[0].gpu_per_memory > 0:
            lacking = max(lacking, free - int(memory_mib * s.policy[0].gpu_per_memory))
        total += _ALL * lacking
    return int(total)
