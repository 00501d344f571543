"""A site that others use, too, without a cluster: simulated attempts, people's jobs, and a scheduler with a will."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from threading import Event, Lock

from watteau.domain.requests import JobState, Outcome
from watteau.domain.sites import Held, NodeState, Partition, Reservation, SiteJob
from watteau.domain.units import SiteId, TenantId
from watteau.engines.contract import (
    EngineUnreachable,
    Launch,
    NoAccounting,
    NodeCapacity,
    Observation,
    Seen,
    SiteView,
)
from watteau.engines.simulated import SimulatedEngine


class SharedSimulated(SimulatedEngine):
    """Puts attempts where it likes (`elsewhere`), shows people's jobs, and changes nothing unless it may."""

    def __init__(self, site: SiteId, nodes: Sequence[NodeCapacity], now_ms: Callable[[], int]) -> None:
        super().__init__(nodes, now_ms)
        self.capabilities = replace(self.capabilities, chooses_nodes=True, fractions=False, most_starts=8)
        self.may_change = True
        self.site = site
        self.people: dict[str, SiteJob] = {}
        self.elsewhere: dict[str, tuple[str, ...]] = {}  # attempt: the nodes that it really gets
        self.pending: set[str] = set()  # attempts that its scheduler has not started
        self.partitions: tuple[Partition, ...] = ()
        self.reservations: tuple[Reservation, ...] = ()
        self.gate = Event()  # starts wait until it is open
        self.gate.set()
        self.at_the_gate = False
        self.fails = False
        self.given: list[str] = []  # every call that changes something
        self._all_nodes = {node.node: node for node in nodes}
        self._lock = Lock()
        self._news = True

    def by_hand(self, number: int, node: str, gpus: int, state: JobState = JobState.RUNNING, user: str = "zoe") -> None:
        """Someone's job is there now."""
        held = (Held(node, gpus, gpus, 1024),) if state is JobState.RUNNING else ()
        now_ms = self._now_ms()
        with self._lock:
            self.people[str(number)] = SiteJob(
                site=self.site,
                engine_id=str(number),
                submitted_ms=1_000,
                name=f"hers-{number}",
                user=user,
                account="atelier",
                tenant=TenantId("bob"),
                partition="normal",
                state=state,
                reason="Priority" if state is JobState.WAITING else "",
                tasks=1,
                workers=1,
                gpus=gpus,
                cpus=gpus,
                memory_mib=1024,
                time_limit_s=3_600,
                priority=1,
                started_ms=now_ms if held or state.is_end else None,
                ended_ms=now_ms if state.is_end else None,
                held=held,
            )
        self.poll()

    def drain(self, node: str, why: str = "") -> None:
        """Close a node, or open it again."""
        with self._lock:
            state = NodeState.DRAINED if why else NodeState.UP
            self._all_nodes[node] = replace(self._all_nodes[node], up=not why, why_down=why, state=state)
        self.poll()

    def breaks(self, node: str, gpus: int) -> None:
        """The node has so many GPUs now."""
        with self._lock:
            self._all_nodes[node] = replace(self._all_nodes[node], gpus=gpus)
        self.poll()

    def poll(self) -> None:
        """What a poll would have found is there now."""
        with self._lock:
            self._news = True
        for wake in self._wakes:
            wake()

    def look(self) -> SiteView | None:
        self._check()
        with self._lock:
            if not self._news:
                return None
            self._news = False
            nodes, people = tuple(self._all_nodes.values()), tuple(self.people.values())
            return SiteView(nodes, people, self.partitions, self.reservations, "a test's scheduler")

    def start_all(self, launches: Sequence[Launch]) -> list[tuple[str, str]]:
        self.at_the_gate = not self.gate.is_set()
        assert self.gate.wait(20)
        if self.fails:
            raise EngineUnreachable("the line is cut")
        self._insist("start", *(launch.name for launch in launches))
        return super().start_all([replace(launch, simulated_runtime_s=float(launch.command[1])) for launch in launches])

    def stop(self, name: str, why: Outcome) -> None:
        self._insist("stop", name)
        super().stop(name, why)

    def _insist(self, *what: str) -> None:
        if not self.may_change:
            raise EngineUnreachable("this site is only observed")
        self.given.append(" ".join(what))

    def leftovers(self, live: Collection[str]) -> list[str]:
        self._check()
        return sorted(self._running - set(live))

    def history(self, since_ms: int, until_ms: int) -> Iterator[SiteJob]:
        raise NoAccounting("a test keeps none")

    def begin(self, name: str) -> None:
        """The site's scheduler starts what it has let wait."""
        with self._state:
            self.pending.discard(name)
            self._changes.append(self._observe(name))
        self.poll()

    def _observe(self, name: str) -> Observation:
        seen = super()._observe(name)
        if seen.seen is Seen.RUNNING and name in self.pending:
            return Observation(name, Seen.STARTING, waits_for="Slurm: Priority")
        return replace(seen, nodes=self.elsewhere.get(name, ())) if seen.seen is not Seen.ABSENT else seen
