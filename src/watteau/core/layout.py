"""The arrays that the core works on: one record type for each noun, and the tuple that holds them all.

Records (and not one array per field) because a decision touches many fields of few rows: one cache line per job.
Index names: [node], [pool], [site], [tenant], [shape], [job], [worker], [block], [word], [hour].
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from watteau.core.passing import Bundle

i1, i2, i4, i8, f8 = np.int8, np.int16, np.int32, np.int64, np.float64


class Row(np.record):  # type: ignore[misc]  # numpy itself makes it no more final than np.record
    """One record as plain Python reads it: whole numbers without a width, as compiled code computes with them.

    `shape` is its field, and not the shape that numpy gives every scalar.
    """

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        return value.item() if isinstance(value, np.number) else value

    @property
    def shape(self) -> Any:
        """The row of the shape that a job asks for."""
        return self["shape"]

    @shape.setter
    def shape(self, value: int) -> None:
        self["shape"] = value


def records(count: int, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """So many zeroed rows, whose fields read as attributes in compiled code and in plain Python alike."""
    return np.zeros(count, dtype=np.dtype((Row, dtype)))


#: Job states.
ABSENT, WAITING, RUNNING, ENDED, REJECTED = range(5)

NODE = np.dtype(
    [
        ("pool", i4),
        ("block", i4),
        ("word", i4),  # where the node stands in the bit sets
        ("bit", i4),
        ("gpus", i4),
        ("gpus_free", i4),  # GPUs that nobody holds, not even a fraction of
        ("cpu_free_milli", i8),
        ("memory_free_mib", i8),
        ("running", i4),  # first worker of the list of running workers, -1: none
        ("reserved", i4),  # first worker of the list of reservations, -1: none
        ("up", i1),  # open, not in an outage, not drained
        ("stale", i1),  # its column of `available_s` must be worked out again
        ("dirty", i1),  # more may be free on it than when the queue was last looked at
        ("share_best", i2),  # most thousandths free on any GPU that is already shared
        ("version", i4),  # rises with every change of what is free; see score.py
    ],
    align=True,
)
POOL = np.dtype(
    [
        ("site", i4),
        ("first_node", i4),
        ("nodes", i4),
        ("first_word", i4),
        ("words", i4),
        ("first_block", i4),
        ("blocks", i4),
        ("gpus", i4),  # per node
        ("cpu_milli", i8),  # per node
        ("memory_mib", i8),  # per node
        ("busy_mw_per_milli", i8),  # power that one thousandth of a GPU adds when held
        ("node_idle_mw", i8),
        ("closes_s", i8),  # start of the next planned outage, NEVER_S: none
        ("reopens_s", i8),
    ],
    align=True,
)
BLOCK = np.dtype([("first_node", i4), ("nodes", i4), ("first_word", i4), ("words", i4)], align=True)
SITE = np.dtype(
    [
        ("power_mw", i8),  # IT power of what is open and runs
        ("idle_mw", i8),  # of which what the open nodes draw even when nothing runs
        ("limit_mw", i8),  # what the site's limit leaves for IT at this hour's PUE
        ("power_hold", i1),  # a job that holds a reservation waits for power here
        ("flexible_mw", i8),  # what flexible jobs that run add to power_mw
        ("green_mw", i8),  # the envelope of this hour: so much flexible jobs may add before their latest start
    ],
    align=True,
)
TENANT = np.dtype(
    [
        ("parent", i4),  # -1 at the root
        ("first_child", i4),
        ("children", i4),
        ("share", i8),
        ("quota_milli", i8),  # -1: none
        ("used_milli", i8),  # of the subtree
        ("rank", i8),
        ("holds_back", i4),  # waiting jobs that its quota keeps
        ("weighted_past", f8),  # see order.py: decayed use = weighted_past + running * weight(now)
        ("running_gpus", f8),
        ("usage", f8),
    ],
    align=True,
)
SHAPE = np.dtype(
    [
        ("workers", i4),
        ("gpus", i4),  # whole GPUs per worker
        ("milli", i4),  # thousandths of one shared GPU per worker; then gpus is 0
        ("topology", i1),
        ("verdict", i2),  # a Reason: 0 when the shape fits the open fleet when that is empty
        ("cpu_milli", i8),
        ("memory_mib", i8),
        ("total_milli", i8),
        ("failed_estimate_s", i8),  # with this estimate or a longer one the shape did not fit ...
        ("failed_epoch", i8),  # ... since this epoch, in which nothing has been freed
        ("failed_reason", i2),
        ("failed_room", i4),  # of a gang: how many workers would have fitted into one pool then
        ("longest_s", i8),  # longest estimate that the nodes freed in ...
        ("longest_epoch", i8),  # ... this epoch could take
    ],
    align=True,
)
JOB = np.dtype(
    [
        ("submit_s", i8),
        ("estimate_s", i8),
        ("limit_s", i8),
        ("start_s", i8),
        ("end_s", i8),
        ("tried_gained", i8),  # of a gang that found too little room: `gained` for its GPUs then
        ("tried_room", i4),  # ... and how many of its workers would have fitted into one pool
        ("reserved_s", i8),  # promised start, NEVER_S: no reservation
        ("due_s", i8),  # latest start of a flexible job, until which the gate may hold it; 0: not flexible
        ("first_worker", i4),
        ("shape", i4),
        ("tenant", i4),
        ("pool", i4),
        ("held_by", i4),  # the tenant whose quota keeps the job, while its reason is QUOTA
        ("priority_class", i2),
        ("reason", i2),
        ("state", i1),
        ("gated", i1),  # it waits at the gate, not in the queue
    ],
    align=True,
)
WORKER = np.dtype([("node", i4), ("job", i4), ("next", i4), ("previous", i4), ("shared_gpu", i2)], align=True)
QUEUED = np.dtype([("key", i8), ("estimate_s", i8), ("job", i4), ("shape", i4)], align=True)
SCORE = np.dtype(
    [
        ("loss", i8),  # what taking the worker costs the node, see score.py; DOES_NOT_FIT: no room
        ("version", i4),  # of the node, when this was worked out; -1: never
        ("gpu", i2),  # the shared GPU that a fraction would take, -1: a fresh one, or whole GPUs
    ],
    align=True,
)
POTENTIAL = np.dtype([("value", i8), ("free", i4), ("version", i4)], align=True)  # free: GPU thousandths
LOGGED = np.dtype([("at_s", i8), ("job", i4), ("reason", i2)], align=True)
POLICY = np.dtype(
    [
        ("reservations", i8),
        ("fair", i1),
        ("scoring", i1),
        ("half_life_s", i8),
        ("rank_every_s", i8),
        ("compress_every_s", i8),
        ("step_budget", i8),
        ("gpu_per_cpu", f8),  # of the typical mix: thousandths of a GPU per CPU milli, 0: no CPU is asked for
        ("gpu_per_memory", f8),  # of the typical mix: thousandths of a GPU per MiB, 0: no memory is asked for
    ],
    align=True,
)
CYCLE = np.dtype(
    [
        ("now_s", i8),
        ("hour", i8),  # index into the outlook
        ("hour_zero", i8),  # the first hour of the outlook, in hours since 1970
        ("queue_head", i8),
        ("queue_tail", i8),
        ("waiting", i8),
        ("planned", i8),  # reservations held
        ("epoch", i8),  # rises whenever something is freed
        ("dirty", i8),
        ("stale", i8),
        ("scan_all", i1),  # every waiting job must be tried again
        ("freed_early", i1),  # something was freed before its time: reservations may move forward
        ("compressed_s", i8),
        ("ranked_s", i8),
        ("weight_zero_s", i8),  # the moment at which the decay weight is 1
        ("cpu_binds", i1),  # some shape asks for more CPU or memory than its GPUs' even share
        ("power_binds", i1),
        ("gated", i8),  # jobs at the gate
        ("green_hour", i8),  # since 1970: the one in whose envelope jobs were let go
        ("released_mw", i8),  # power of those that were let go in this hour; above 0 if any was
        ("blocked", i1),  # strict order: the first job did not fit and nothing was freed since
        ("held_by_quota", i8),  # waiting jobs whose reason is a quota
        ("quota_freed", i1),  # a tenant whose quota keeps jobs waiting uses less than before
        ("gang_room", i8),  # how many of the gang tried last would have fitted into one pool
        ("started", i8),
        ("logged", i8),
        ("logged_lost", i8),
        ("overflow", i1),
        ("left_untried", i1),  # an earlier step's budget ran out, and its jobs still wait to be tried
        ("exhausted", i1),  # the step's budget ran out before the queue did
        ("wake_s", i8),
    ],
    align=True,
)


@dataclass(frozen=True, eq=False)
class State(Bundle):
    """Everything `step` reads and changes. One owner; `step` is the only mutator. Arrays as in the record types."""

    cycle: Any  # [1] CYCLE
    policy: Any  # [1] POLICY
    sites: Any  # [site] SITE
    pools: Any  # [pool] POOL
    blocks: Any  # [block] BLOCK
    nodes: Any  # [node] NODE
    tenants: Any  # [tenant] TENANT
    children: Any  # int32 [tenant - 1]: children of each tenant, in order of their parent
    shapes: Any  # [shape] SHAPE
    shape_pools: Any  # int8 [shape, pool]: 1 where the shape may run
    jobs: Any  # [job] JOB, in the order of (submit, id): the row breaks ties
    workers: Any  # [worker] WORKER
    word_node: Any  # int32 [word]: the node at bit 0
    open_nodes: Any  # int64 [GPUs free, word]: up, without reservations
    held_nodes: Any  # int64 [GPUs free, word]: up, with reservations
    open_first: Any  # int32 [pool, GPUs free]: no such node stands in an earlier word of open_nodes
    open_count: Any  # int32 [pool, GPUs free]
    held_count: Any  # int32 [pool, GPUs free]
    available_s: Any  # int64 [GPUs - 1, node]: from when on so many GPUs stay free
    holds_until_s: Any  # int64 [node]: when its column of available_s grows old: an expected end or a promise passes
    shared_free: Any  # int16 [node, GPU]: thousandths free on a shared GPU, -1: the GPU is not shared
    queue: Any  # [position] QUEUED, between queue_head and queue_tail; shape -1: gone
    plan: Any  # int32 [reservation]: jobs in the order of the queue
    gained: Any  # int64 [GPUs]: workers of so many GPUs that have been given room, never less than were
    dirty: Any  # int32 [node]
    stale: Any  # int32 [node]
    started: Any  # int32 [.]: jobs that this step started
    logged: Any  # [.] LOGGED: every change of a waiting job's reason
    limit_mw: Any  # int64 [site, hour]: outlook
    limit_ahead_mw: Any  # int64 [site, hour]: the highest limit of this hour and of all later ones
    green_mw: Any  # int64 [site, hour]: the envelope, as in SITE
    gate: Any  # int32 [job]: a heap of those at the gate, the earliest latest start on top
    preference: Any  # int32 [hour, pool]: outlook, pools in the order in which they are tried
    typical: Any  # int64 [typical task, 5]: share in millionths, whole GPUs, thousandths, CPU milli, memory MiB
    typical_pools: Any  # int8 [typical task, pool]
    scores: Any  # [shape, node] SCORE; one row and column when the policy scores by best fit
    potentials: Any  # [node] POTENTIAL
    scratch_node: Any  # int32 [node]
    scratch_take: Any  # int32 [node]
    scratch_room: Any  # int64 [block]
    scratch_word: Any  # int64 [word]
