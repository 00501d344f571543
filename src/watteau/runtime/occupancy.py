"""Who holds what on the nodes of one site whose scheduler has the last word, so that the core never gives it twice."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from watteau.domain.fleet import Site
from watteau.domain.units import PoolId


@dataclass(frozen=True, slots=True)
class Part:
    """Room on one node of a pool."""

    pool: PoolId
    number: int
    gpus: int
    cpu_milli: int
    memory_mib: int

    def __bool__(self) -> bool:
        return self.gpus + self.cpu_milli + self.memory_mib > 0


@dataclass(frozen=True, slots=True)
class Granted:
    """What became of a claim: the room that it has, and the unsure holders that had to leave for it."""

    parts: tuple[Part, ...]
    left: tuple[str, ...]


class Occupancy:
    """Claims on the nodes of a site. A sure one is of a job that was seen to run there; the others are our plans.

    A sure claim that meets plans makes them leave, the newest first; a plan that meets no room is not granted. Room is
    never given twice: a sure claim on a node that is full of other sure ones gets what is left (a scheduler may share
    nodes, and count memory otherwise than we do).
    """

    def __init__(self, site: Site) -> None:
        self._whole = {
            pool.id: (pool.gpus_per_node, 1000 * pool.cpu_cores, 1024 * pool.memory_gib) for pool in site.pools
        }
        self._nodes = {pool.id: site.nodes(pool.id) for pool in site.pools}
        self._held: dict[str, tuple[Part, ...]] = {}
        self._sure: set[str] = set()
        self._on_node: dict[tuple[PoolId, int], dict[str, None]] = defaultdict(dict)  # in the order of their coming

    def __contains__(self, who: str) -> bool:
        return who in self._held

    def claim(self, who: str, parts: Sequence[Part], *, sure: bool) -> Granted:
        """Room for `who`, in place of what it had; see the class. A plan that has no room is granted no parts."""
        self.leave(who)
        self._held[who] = ()
        left: list[str] = []
        granted: list[Part] = []
        for part in parts:
            if part.pool not in self._whole or part.number >= self._nodes[part.pool]:
                continue
            at = (part.pool, part.number)
            while sure and not _fits(part, self._free(at)):
                plans = [other for other in self._on_node[at] if other not in self._sure and other != who]
                if not plans:
                    break
                self.leave(plans[-1])
                left.append(plans[-1])
            free = self._free(at)
            has = Part(
                part.pool, part.number, *(max(0, min(asked, room)) for asked, room in zip(_of(part), free, strict=True))
            )
            if not sure and has != part:
                self.leave(who)
                return Granted((), tuple(left))
            if has:
                granted.append(has)
                self._held[who] = (*self._held[who], has)
                self._on_node[at][who] = None
        if sure:
            self._sure.add(who)
        return Granted(tuple(granted), tuple(left))

    def leave(self, who: str) -> None:
        """Give everything back."""
        for part in self._held.pop(who, ()):
            self._on_node[part.pool, part.number].pop(who, None)
        self._sure.discard(who)

    def _free(self, at: tuple[PoolId, int]) -> tuple[int, int, int]:
        gpus, cpu_milli, memory_mib = self._whole[at[0]]
        for who in self._on_node[at]:
            for part in self._held[who]:
                if (part.pool, part.number) == at:
                    gpus, cpu_milli, memory_mib = (
                        gpus - part.gpus,
                        cpu_milli - part.cpu_milli,
                        memory_mib - part.memory_mib,
                    )
        return gpus, cpu_milli, memory_mib


def _of(part: Part) -> tuple[int, int, int]:
    return part.gpus, part.cpu_milli, part.memory_mib


def _fits(part: Part, free: tuple[int, int, int]) -> bool:
    return all(asked <= room for asked, room in zip(_of(part), free, strict=True))
