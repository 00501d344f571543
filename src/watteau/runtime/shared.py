"""A site that others use, too, in the live arrays: its nodes, the jobs that people gave it, and where ours stand.

The core plans with what it is told; what was seen to run always wins over what was planned. See `Occupancy`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from watteau.domain.fleet import Site
from watteau.domain.jobs import Shape
from watteau.domain.records import Place
from watteau.domain.requests import JobId, JobState
from watteau.domain.sites import NodeState, SiteJob, SiteNode
from watteau.domain.units import DAY_S, GPU_MILLI, PoolId, TenantId
from watteau.engines.contract import NodeCapacity
from watteau.runtime.live_state import Asked, LiveState
from watteau.runtime.occupancy import Occupancy, Part

_MIB_PER_GIB = 1024
_FOREVER_S = 10 * 366 * DAY_S


@dataclass(slots=True)
class _ByHand:
    """A running job of other people, and what stands for it in the arrays: one job of one worker for each node."""

    job: SiteJob
    stands_for: list[JobId]


class SharedSite:
    """One site. `tenant_of` says who a job by hand counts for, `root` is who nobody in particular is, and `next_id`
    gives ids that no real job has.
    """

    def __init__(
        self, site: Site, tenant_of: Callable[[SiteJob], TenantId], root: TenantId, next_id: Callable[[], JobId]
    ) -> None:
        self.site = site
        self._tenant_of = tenant_of
        self._root = root
        self._next_id = next_id
        self._occupancy = Occupancy(site)
        self.nodes: dict[str, SiteNode] = {}
        self._by_hand: dict[tuple[str, int], _ByHand] = {}
        self._missing: dict[str, tuple[Part, JobId]] = {}  # node: what it has less than its pool's nodes
        self.waiting_by_hand = 0

    @property
    def running_by_hand(self) -> int:
        """How many jobs of other people run there."""
        return len(self._by_hand)

    @property
    def nodes_out(self) -> int:
        """How many nodes take no jobs."""
        return sum(node.state is not NodeState.UP for node in self.nodes.values())

    def names(self) -> dict[tuple[PoolId, int], str]:
        """What the site calls our nodes."""
        return {(node.pool, node.number): node.node for node in self.nodes.values()}

    # --- what the site shows -----------------------------------------------------------------------------------------

    def see_nodes(self, live: LiveState, nodes: Sequence[SiteNode]) -> bool:
        """Only nodes that are there and take jobs are open; returns whether that is news."""
        self.nodes = {node.node: node for node in nodes}
        usable: dict[PoolId, list[int]] = {}
        for node in nodes:
            if node.state is NodeState.UP:
                usable.setdefault(node.pool, []).append(node.number)
        return live.close_nodes(self.site.id, usable)

    def see_capacity(self, live: LiveState, capacities: Iterable[NodeCapacity]) -> tuple[bool, list[str]]:
        """A node that has less than its pool's nodes is short of it: (whether that is news, plans that had to leave).

        What is missing is held by a job that stands for it, for ever; pools have one node shape.
        """
        missing = {}
        pools = {pool.id: pool for pool in self.site.pools}
        for capacity in capacities:
            if (node := self.nodes.get(capacity.node)) is not None and node.pool in pools:
                pool = pools[node.pool]
                missing[node.node] = Part(
                    node.pool,
                    node.number,
                    max(0, pool.gpus_per_node - capacity.gpus),
                    1000 * max(0, pool.cpu_cores - capacity.cpu_cores),
                    _MIB_PER_GIB * max(0, pool.memory_gib - capacity.memory_mib // _MIB_PER_GIB),
                )
        displaced: list[str] = []
        wanted = {name: part for name, part in missing.items() if part}
        over = [name for name, (part, _) in self._missing.items() if wanted.get(name) != part]
        for name in over:
            live.forget(self._missing.pop(name)[1])
            self._occupancy.leave(_short_of(name))
        new = [name for name in wanted if name not in self._missing]
        for name in new:
            granted = self._occupancy.claim(_short_of(name), [wanted[name]], sure=True)
            displaced += granted.left
            for has in granted.parts:
                self._missing[name] = wanted[name], self._take(live, has, self._root, 0, _FOREVER_S, 0)
        return bool(over or new), displaced

    def see_ends(self, live: LiveState, jobs: Iterable[SiteJob]) -> bool:
        """Jobs of other people that no longer run, or run elsewhere, leave their nodes; returns whether any did."""
        now_running = {job.key: job for job in jobs if job.state is JobState.RUNNING}
        over = [
            key for key, its in self._by_hand.items() if key not in now_running or now_running[key].held != its.job.held
        ]
        for key in over:
            for job_id in self._by_hand.pop(key).stands_for:
                live.forget(job_id)
            self._occupancy.leave(_who(key))
        return bool(over)

    def see_starts(self, live: LiveState, jobs: Sequence[SiteJob]) -> tuple[bool, list[str]]:
        """Jobs of other people that run now take their nodes: (whether any did, attempts whose plans had to leave)."""
        displaced: list[str] = []
        came = False
        for job in jobs:
            if job.state is JobState.RUNNING and job.key not in self._by_hand:
                displaced += self._comes(live, job)
                came = True
        self.waiting_by_hand = sum(job.tasks for job in jobs if job.state in (JobState.WAITING, JobState.HELD))
        return came, displaced

    def _comes(self, live: LiveState, job: SiteJob) -> tuple[str, ...]:
        parts = []
        for held in job.held:
            node = self.nodes.get(held.node)
            if node is not None:
                # Whole cores and GiB: jobs of people come in every size, and each size is a shape to the core.
                memory_mib = -(-held.memory_mib // _MIB_PER_GIB) * _MIB_PER_GIB
                parts.append(Part(node.pool, node.number, held.gpus, 1000 * held.cpus, memory_mib))
        granted = self._occupancy.claim(_who(job.key), parts, sure=True)
        started_s = (job.started_ms if job.started_ms is not None else job.submitted_ms) // 1000
        stands_for = []
        for part in granted.parts:
            tenant, estimate_s = self._tenant_of(job), job.time_limit_s or DAY_S
            stands_for.append(self._take(live, part, tenant, started_s, estimate_s, job.time_limit_s))
        self._by_hand[job.key] = _ByHand(job, stands_for)
        return granted.left

    def _take(
        self, live: LiveState, part: Part, tenant: TenantId, started_s: int, estimate_s: int, limit_s: int
    ) -> JobId:
        """A job of one worker that stands there for what is not ours."""
        job_id = self._next_id()
        live.take_over(
            Asked(
                job_id=job_id,
                shape=Shape(1, GPU_MILLI * part.gpus, part.cpu_milli, part.memory_mib),
                tenant=tenant,
                submit_s=started_s,
                estimate_s=estimate_s,
                limit_s=limit_s,
                priority_class=0,
                running=(self.site.id, (Place(part.pool, part.number, ()),)),
                start_s=started_s,
            )
        )
        return job_id

    # --- our own attempts --------------------------------------------------------------------------------------------

    def plan(self, name: str, shape: Shape, places: Sequence[Place]) -> bool:
        """An attempt is to stand there; False: there is no room, whatever the arrays say."""
        parts = _parts(shape, places)
        return self._occupancy.claim(name, parts, sure=False).parts == parts

    def stand(self, name: str, shape: Shape, places: Sequence[Place]) -> tuple[bool, tuple[str, ...]]:
        """An attempt was seen to run there: (whether it has its room, attempts whose plans had to leave)."""
        parts = _parts(shape, places)
        granted = self._occupancy.claim(name, parts, sure=True)
        if granted.parts != parts:  # full of others that were seen as well: it is counted when that has changed
            self._occupancy.leave(name)
            return False, granted.left
        return True, granted.left

    def __contains__(self, name: str) -> bool:
        return name in self._occupancy

    def leave(self, name: str) -> None:
        """An attempt has ended, or is no longer planned."""
        self._occupancy.leave(name)

    def places_on(self, nodes: Sequence[str]) -> tuple[Place, ...] | None:
        """Where workers are that run on these nodes; None when a node is none of ours."""
        known = [self.nodes.get(node) for node in nodes]
        if not nodes or not all(known):
            return None
        return tuple(Place(node.pool, node.number, ()) for node in known if node is not None)


def same_nodes(some: Sequence[Place], others: Sequence[Place]) -> bool:
    """Whether as many workers stand on each node."""
    return Counter((place.pool, place.node) for place in some) == Counter((place.pool, place.node) for place in others)


def _parts(shape: Shape, places: Sequence[Place]) -> tuple[Part, ...]:
    workers: Mapping[tuple[PoolId, int], int] = Counter((place.pool, place.node) for place in places)
    parts = (
        Part(
            pool,
            number,
            count * shape.gpu_milli // GPU_MILLI,
            count * shape.cpu_milli,
            count * shape.memory_mib,
        )
        for (pool, number), count in workers.items()
    )
    return tuple(part for part in parts if part)


def _short_of(node: str) -> str:
    return f"missing of {node}"


def _who(key: tuple[str, int]) -> str:
    return f"by hand: {key[0]} of {key[1]}"
