"""What is known of a site that others use, too: its nodes, its queues, and the jobs that people gave it by hand."""

from dataclasses import dataclass
from enum import StrEnum

from watteau.domain.fleet import Mode
from watteau.domain.requests import JobState
from watteau.domain.units import PoolId, SiteId, TenantId


class NodeState(StrEnum):
    """Whether a node takes jobs, in the words of Slurm's node states."""

    UP = "up"
    DRAINING = "draining"  # runs what it has and takes nothing new
    DRAINED = "drained"
    DOWN = "down"
    RESERVED = "reserved"  # for someone else, now


@dataclass(frozen=True, slots=True)
class SiteNode:
    """A node of a site by the name that its engine gives it, and its place in our pools, which never changes."""

    site: SiteId
    node: str
    pool: PoolId
    number: int  # in its pool, from 0
    state: NodeState
    why: str  # why it takes no jobs, in the words of the site's people; "" when it does


@dataclass(frozen=True, slots=True)
class Held:
    """What a job has of one node."""

    node: str
    gpus: int
    cpus: int
    memory_mib: int


#: squeue's words for "there is no room, or others are first", and for a job that was not looked at yet.
_FOR_ROOM = frozenset({"", "None", "Priority", "Resources", "ReqNodeNotAvail"})


@dataclass(frozen=True, slots=True)
class SiteJob:
    """A job that people gave to a site's own scheduler, as it was last seen there.

    (site, engine_id, submitted_ms) names it: a scheduler may give an id again after it has lost its memory.
    """

    site: SiteId
    engine_id: str  # the scheduler's own: 1234, or 1234_7 for a task of an array
    submitted_ms: int
    name: str
    user: str
    account: str
    tenant: TenantId  # who it counts for, by the site's table of accounts
    partition: str
    state: JobState
    reason: str  # the scheduler's own word while it waits, for example Priority; "" otherwise
    tasks: int  # 1; of an array's tasks that have not started and are listed as one: how many
    workers: int  # nodes
    gpus: int  # of all nodes together, and so are the next two
    cpus: int
    memory_mib: int
    time_limit_s: int  # 0: none
    priority: int  # the scheduler's own
    eligible_ms: int | None = None  # when it might have started, had there been room
    started_ms: int | None = None
    ended_ms: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    cause: str = ""  # one sentence when it did not simply complete
    restarts: int = 0
    held: tuple[Held, ...] = ()  # on each node, of a job that runs or has run; empty while it waits

    @property
    def key(self) -> tuple[str, int]:
        """What names it at its site."""
        return self.engine_id, self.submitted_ms

    @property
    def array_id(self) -> str:
        """1234 of a task 1234_7 and of a rest 1234_[8-99]; of a job that is of no array its own id."""
        return self.engine_id.partition("_")[0]

    @property
    def waits_for_room(self) -> bool:
        """Whether it waits for room, or for its turn, and for nothing else that its site's own rules ask."""
        return self.state is JobState.WAITING and self.reason.partition(",")[0] in _FOR_ROOM


@dataclass(frozen=True, slots=True)
class Reservation:
    """Nodes that a site keeps for someone in [start, end), in epoch seconds."""

    name: str
    start_s: int
    end_s: int
    nodes: tuple[str, ...]
    users: tuple[str, ...]
    accounts: tuple[str, ...]
    flags: tuple[str, ...]  # MAINT: nobody may use them


@dataclass(frozen=True, slots=True)
class Partition:
    """A queue of the site's scheduler, and what it allows. 0: no limit."""

    name: str
    is_default: bool
    up: bool
    nodes: tuple[str, ...]
    most_time_s: int
    default_time_s: int
    most_nodes: int
    least_nodes: int


@dataclass(frozen=True, slots=True)
class SiteSetting:
    """What an operator said of a site at run time; it outlives restarts and stands above the fleet file."""

    site: SiteId
    mode: Mode
    fenced: bool  # its attempts count as lost, whatever it would say
    why: str
    by: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class ShadowDecision:
    """What Watteau would have done at a site in shadow with a job that people gave it: the first start it decided.

    It was decided on what really ran there at that moment; nothing of it was carried out.
    """

    site: SiteId
    engine_id: str
    submitted_ms: int
    decided_ms: int
    nodes: tuple[str, ...]  # where, one for each worker, by the names of the site's engine


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the fleet file and the engine say differently."""

    where: str  # pool, node or partition
    what: str
    fleet: str
    engine: str
    remedy: str
