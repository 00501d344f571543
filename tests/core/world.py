"""A fleet, its jobs and a clock from plain lists: drives the core one second at a time and recounts after each step."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from watteau.core import layout
from watteau.core.state import (
    CapacityChange,
    Outlook,
    announce_outages,
    build_state,
    capacity_changes,
    check_invariants,
    grow_log,
    grow_queue,
    outage_windows,
    set_envelope,
)
from watteau.core.step import Events, step
from watteau.domain.decisions import Reason
from watteau.domain.errors import InvariantBroken
from watteau.domain.fleet import Engine, Fleet, Mode, Outage, Phase, Pool, Pue, Site
from watteau.domain.jobs import NO_LIMIT_S, Shape, Topology
from watteau.domain.policy import Policy
from watteau.domain.tenants import Tenant
from watteau.domain.units import NEVER_S, PoolId, SiteId, TenantId, from_epoch_s
from watteau.simulation import clock as wheel

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ALICE = 1  # the first leaf below the root


class Ask(NamedTuple):
    """One job, as a test writes it down. `estimate_s` None: the run time, at least 1 s."""

    submit_s: int
    runtime_s: int
    shape: Shape
    estimate_s: int | None = None
    tenant: int = ALICE
    priority: int = 0
    limit_s: int = NO_LIMIT_S
    due_s: int = 0  # latest start of a flexible job; 0: it is not flexible

    @property
    def told_s(self) -> int:
        """What the scheduler is told."""
        return max(1, self.runtime_s) if self.estimate_s is None else self.estimate_s

    @property
    def served_s(self) -> int:
        """How long it holds its GPUs."""
        return self.runtime_s if self.limit_s == NO_LIMIT_S else min(self.runtime_s, self.limit_s)


def gpus(count: int) -> Shape:
    """One worker with so many GPUs."""
    return Shape(1, count * 1000)


def gang(workers: int, gpus_each: int, topology: Topology = Topology.ONE_BLOCK_PREFERRED) -> Shape:
    """A gang of equal workers."""
    return Shape(workers, gpus_each * 1000, topology=topology)


def fraction(milli: int, workers: int = 1) -> Shape:
    """Workers with a part of one GPU each."""
    return Shape(workers, milli)


def leaf(name: str, share: int = 1, quota_gpus: int | None = None) -> Tenant:
    """A tenant without children."""
    return Tenant(TenantId(name), name, share, quota_gpus, ())


def tree(*children: Tenant) -> Tenant:
    """A root over some tenants."""
    return Tenant(TenantId("root"), "root", 1, None, children)


def pool(
    name: str = "p",
    gpus_per_node: int = 8,
    *,
    block: int = 32,
    cores: int = 96,
    memory_gib: int = 1024,
    model: str = "h100",
    idle_w: int = 1000,
    typical_w: int = 5000,
) -> Pool:
    """A pool with round figures: a node draws 1 kW idle and 5 kW busy."""
    return Pool(PoolId(name), model, gpus_per_node, cores, memory_gib, False, idle_w, typical_w, typical_w, block)


def site(
    *pools: tuple[Pool, int],
    name: str = "s",
    power_kw: int = 10**6,
    pue: float = 1.0,
    later: Sequence[tuple[int, str, int]] = (),
    outages: Sequence[tuple[int, int]] = (),
) -> Site:
    """A site whose nodes are open from 1970 on; `later` is (opens_s, pool, nodes), `outages` is (start_s, end_s)."""
    phases = [Phase("first", EPOCH, tuple((its.id, count) for its, count in pools))]
    phases += [Phase(f"at {at}", from_epoch_s(at), ((PoolId(its), count),)) for at, its, count in later]
    return Site(
        SiteId(name),
        name,
        48.0,
        2.0,
        power_kw,
        Pue.constant(pue),
        Engine.SIMULATED,
        Mode.DRIVE,
        tuple(its for its, _ in pools),
        tuple(phases),
        tuple(Outage(from_epoch_s(start), from_epoch_s(end), (), "planned") for start, end in outages),
    )


def fleet(*sites: Site, tenants: Tenant | None = None) -> Fleet:
    """A fleet without contracts and, unless said otherwise, with one tenant."""
    return Fleet("f", sites, (), tenants or tree(leaf("alice")))


def nodes(count: int, gpus_per_node: int, block: int = 32, tenants: Tenant | None = None) -> Fleet:
    """One site with one pool."""
    return fleet(site((pool(gpus_per_node=gpus_per_node, block=block), count)), tenants=tenants)


@dataclass
class World:
    """A state and its clock. `asked` is sorted by arrival: the row is the job's id."""

    fleet: Fleet
    asked: Sequence[Ask]
    state: Any
    clock: Any
    changes: list[CapacityChange]
    #: Called after every step, for what a test wants to watch.
    watch: Callable[["World"], None]

    @property
    def now_s(self) -> int:
        """The second of the last step."""
        return int(self.state.cycle[0].now_s)

    def starts(self) -> list[int]:
        """Start of each job; -1: it has not started (or was lost and waits again)."""
        return [int(start) for start in self.state.jobs["start_s"]]

    def promises(self) -> dict[int, int]:
        """Promised start of each job that waits and holds a promise."""
        held = self.waiting()
        return {job: int(at) for job in held if (at := self.state.jobs["reserved_s"][job]) < NEVER_S}

    def in_state(self, which: int) -> list[int]:
        """The jobs in a state of `layout`."""
        return [int(job) for job in np.flatnonzero(self.state.jobs["state"] == which)]

    def waiting(self) -> list[int]:
        """The jobs that wait."""
        return self.in_state(layout.WAITING)

    def reason(self, job: int) -> Reason:
        """Why the job waits."""
        return Reason(int(self.state.jobs["reason"][job]))

    def nodes_of(self, job: int) -> list[int]:
        """The node of each worker, running or promised."""
        row = self.state.jobs[job]
        count = int(self.state.shapes[row.shape].workers)
        return [int(node) for node in self.state.workers["node"][row.first_worker : row.first_worker + count]]

    def run(self, until_s: int = NEVER_S) -> "World":
        """Step from event to event, up to but without a second; recounts everything after each step."""
        while True:
            stop_s = min(until_s, self.changes[0].at_s if self.changes else NEVER_S)
            why = wheel.advance(self.state, self.clock, stop_s, 1)
            if why == wheel.QUEUE_FULL:
                self.state = grow_queue(self.state, 2 * len(self.state.queue))
            elif why == wheel.LOG_FULL:
                self.state = grow_log(self.state, 2 * len(self.state.logged) + 64)
            elif why == wheel.PAUSED:
                self._checked()
            elif stop_s < until_s:
                self._change_capacity(stop_s)
            else:
                return self

    def _change_capacity(self, at_s: int) -> None:
        # What else happens in this second belongs to the same step.
        due = [change for change in self.changes if change.at_s == at_s]
        self.changes = self.changes[len(due) :]
        up = [n for change in due if change.up for n in range(change.first_node, change.first_node + change.count)]
        down = [
            n for change in due if not change.up for n in range(change.first_node, change.first_node + change.count)
        ]
        announce_outages(self.state, outage_windows(self.fleet), at_s)
        self.second(at_s, nodes_up=up, nodes_down=down)

    def second(self, at_s: int, *, nodes_up: Iterable[int] = (), nodes_down: Iterable[int] = ()) -> list[int]:
        """One step at a second, with its ends and arrivals and these changes of capacity; what it started.

        Jobs on nodes that close are lost: they wait again.
        """
        now = self.clock.clock[0]
        ended = wheel.ends_now(self.state, self.clock, at_s)
        closing = list(nodes_down)
        marked = np.zeros(len(self.state.nodes), dtype=np.bool_)
        marked[closing] = True
        hit = {int(job) for job in wheel.running_on(self.state, marked)} - {int(job) for job in ended}
        for job in hit:
            wheel.cancel_end(self.clock, job, self.starts()[job] + self.asked[job].served_s)
        first = last = int(now.next_arrival)
        while last < len(self.asked) and self.asked[last].submit_s == at_s:
            last += 1
        events = Events(ended, rows(hit), rows(range(first, last)), rows(nodes_up), rows(closing))
        started = [int(job) for job in step(self.state, events, at_s).started]
        for job in started:
            wheel.push_end(self.clock, job, at_s + self.asked[job].served_s)
        now.next_arrival = last
        self._checked()
        return started

    def _checked(self) -> None:
        check_invariants(self.state)
        check_reasons(self.state)
        self.watch(self)


def rows(values: Iterable[int]) -> Any:
    """Rows of events, sorted as nobody promised."""
    return np.array(list(values), dtype=np.int32)


def check_reasons(state: Any) -> None:
    """R16: after a step every job that waits has a reason, and one that runs has none."""
    which, reasons = state.jobs["state"], state.jobs["reason"]
    silent = (which == layout.WAITING) & (reasons == Reason.NONE)
    chatty = (which == layout.RUNNING) & (reasons != Reason.NONE)
    for job in np.flatnonzero(silent | chatty):
        raise InvariantBroken(f"job {job} is in state {which[job]} with reason {reasons[job]}")


def build(
    fleet: Fleet,
    asked: Iterable[Ask],
    policy: Policy,
    *,
    queue: int = 256,
    log: int = 4096,
    outlook: Outlook | None = None,
    watch: Callable[[World], None] = lambda _: None,
    open_at_s: int = 0,
    green_kw: Sequence[Sequence[float]] | None = None,
) -> World:
    """A world at its first second: what is open by then has been opened, no job has arrived."""
    jobs = sorted(asked, key=lambda ask: ask.submit_s)
    shapes = sorted({ask.shape for ask in jobs}, key=repr)
    workers = [ask.shape.workers for ask in jobs]
    state = build_state(
        fleet,
        shapes,
        policy,
        jobs=len(jobs),
        workers=sum(workers),
        queue=queue,
        log=log,
        outlook=outlook,
        typical=[(1.0, shape) for shape in shapes],
    )
    its = state.jobs
    its["submit_s"] = [ask.submit_s for ask in jobs]
    its["estimate_s"] = [ask.told_s for ask in jobs]
    its["limit_s"] = [ask.limit_s for ask in jobs]
    its["start_s"] = its["pool"] = -1
    its["reserved_s"] = NEVER_S
    its["first_worker"] = np.cumsum([0, *workers])[:-1]
    its["shape"] = [shapes.index(ask.shape) for ask in jobs]
    its["tenant"] = [ask.tenant for ask in jobs]
    its["priority_class"] = [ask.priority for ask in jobs]
    its["due_s"] = [ask.due_s for ask in jobs]
    state.workers["job"] = np.repeat(np.arange(len(jobs)), workers)
    served = np.array([ask.served_s for ask in jobs], dtype=np.int64)
    clock = wheel.new_clock(served, its["submit_s"].copy(), open_at_s, len(jobs) + 1)
    if green_kw is not None:
        set_envelope(state, 0, (1e6 * np.array(green_kw)).astype(np.int64))
    changes = capacity_changes(fleet, state)
    world = World(fleet, jobs, state, clock, [change for change in changes if change.at_s > open_at_s], watch)
    announce_outages(state, outage_windows(fleet), open_at_s)
    open_now = {
        n
        for change in changes
        if change.at_s <= open_at_s
        for n in range(change.first_node, change.first_node + change.count)
        if change.up
    }
    step(state, Events(nodes_up=rows(open_now)), open_at_s)
    check_invariants(state)
    return world


def run(fleet: Fleet, asked: Iterable[Ask], policy: Policy, **how: Any) -> World:
    """Build and run to the end."""
    return build(fleet, asked, policy, **how).run()
