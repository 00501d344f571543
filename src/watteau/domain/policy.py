"""The policy: how the queue is ordered, how far backfill goes, how nodes are chosen, and every search budget."""

from dataclasses import dataclass, replace
from enum import IntEnum

ALL_RESERVATIONS = 1 << 30


class Order(IntEnum):
    """How waiting jobs are sorted inside one priority class."""

    ARRIVAL = 0
    FAIR_TREE = 1


class Scoring(IntEnum):
    """How a node is chosen among those that fit. The second and third need the typical mix; see core/score.py."""

    BEST_FIT = 0
    #: Least new fragmentation (FGD, Weng et al., USENIX ATC 2023).
    FRAGMENTATION_GRADIENT = 1
    #: The same, and GPUs are also kept with the CPU and memory that the mix needs beside them.
    BALANCED_FRAGMENTATION = 2


@dataclass(frozen=True, slots=True)
class Policy:
    """One value says how the core decides; the names `fifo`, `easy`, `hybrid`, `conservative` are in POLICIES."""

    name: str
    #: How many blocked jobs hold a reservation that nobody may delay. 0: strict order, nothing overtakes.
    reservations: int
    order: Order = Order.FAIR_TREE
    scoring: Scoring = Scoring.BEST_FIT
    #: Past use counts half after this long (Slurm's PriorityDecayHalfLife; its default is 7 days).
    half_life_s: int = 7 * 86_400
    #: The order of tenants is worked out again at most this often (Slurm's PriorityCalcPeriod: 5 min).
    rank_every_s: int = 300
    #: After an early end, reservations are moved forward at most this often. 0: in every step.
    compress_every_s: int = 0
    #: Waiting jobs that one step looks at before it says "budget exhausted".
    step_budget: int = 1 << 20

    def __post_init__(self) -> None:
        if self.reservations < 0:
            raise ValueError("a policy cannot hold a negative number of reservations")
        if min(self.half_life_s, self.rank_every_s, self.step_budget) < 1 or self.compress_every_s < 0:
            raise ValueError("half-life, ranking interval and step budget must be at least 1")


POLICIES: dict[str, Policy] = {
    "fifo": Policy("fifo", reservations=0, order=Order.ARRIVAL),
    "easy": Policy("easy", reservations=1),
    # A start that is possible now is tried at every event; promises that lie ahead move as often as tenants are ranked.
    "hybrid": Policy("hybrid", reservations=64, compress_every_s=300),
    "conservative": Policy("conservative", reservations=ALL_RESERVATIONS),
}


def named_policy(name: str, **changes: int) -> Policy:
    """A policy by name with some fields changed. Raises KeyError with the known names."""
    if name not in POLICIES:
        raise KeyError(f"unknown policy {name!r}; known: {', '.join(POLICIES)}")
    return replace(POLICIES[name], **changes)  # type: ignore[arg-type]
