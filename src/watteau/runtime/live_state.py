"""The core's arrays for live work: which row is which job, and which GPUs of a node are whose.

It can be built at any time from what the store keeps; `digest` says the same of both when they agree.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from watteau.core import layout
from watteau.core.backfill import drop_all
from watteau.core.place import resume
from watteau.core.state import (
    Outlook,
    add_past_use,
    add_shapes,
    announce_outages,
    build_state,
    capacity_changes,
    check_invariants,
    grow_jobs,
    make_room,
    outage_windows,
    write_jobs,
)
from watteau.core.step import Events, step
from watteau.domain.decisions import Reason
from watteau.domain.errors import InvariantBroken
from watteau.domain.fleet import Engine as EngineKind
from watteau.domain.fleet import Fleet, Pool, Pue
from watteau.domain.jobs import Shape
from watteau.domain.policy import POLICIES, Policy
from watteau.domain.records import Place
from watteau.domain.requests import JobId
from watteau.domain.units import (
    GPU_MILLI,
    HOUR_S,
    NEVER_S,
    Float64Array,
    Int32Array,
    Int64Array,
    PoolId,
    SiteId,
    TenantId,
)

_SPARE_ROWS = 4_096
_LEAST_ROWS = 1_024
_LEAST_LOG = 1 << 12


@dataclass(frozen=True, slots=True)
class Asked:
    """A job as the core needs it. `running`: it runs there already, since `start_s`."""

    job_id: JobId
    shape: Shape
    tenant: TenantId
    submit_s: int
    estimate_s: int
    limit_s: int
    priority_class: int
    running: tuple[SiteId, tuple[Place, ...]] | None = None
    start_s: int = -1


@dataclass(frozen=True, slots=True)
class Start:
    """A job is to start there."""

    job_id: JobId
    site: SiteId
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Stepped:
    """What one step decided."""

    starts: tuple[Start, ...]
    reasons: tuple[tuple[JobId, Reason], ...]  # the last one of each waiting job whose reason changed
    wake_s: int


@dataclass(frozen=True, slots=True)
class Promise:
    """What the core knows of a waiting job."""

    reason: Reason
    starts_by_s: int | None  # the promised start, where it holds a reservation
    ahead: int  # jobs in front of it in the queue


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """One pool as it is now; what is free is counted on nodes that are up."""

    site: SiteId
    pool: Pool
    nodes_open: int
    nodes_up: int
    nodes_idle: int
    gpu_milli_free: int
    cpu_milli_free: int
    memory_mib_free: int


class _Gpus:
    """Which GPUs of the nodes are taken. The core counts whole GPUs; here each gets its number."""

    def __init__(self) -> None:
        self._whole: dict[int, set[int]] = {}
        self._shared: dict[tuple[int, int], tuple[int, int]] = {}  # (node, the core's number): (GPU, users)

    def take(self, node: int, whole: int, shared_gpu: int) -> tuple[int, ...]:
        """The numbers of `whole` free GPUs, or of the one that stands behind the core's `shared_gpu`."""
        taken = self._whole.setdefault(node, set())
        if shared_gpu >= 0:
            gpu, users = self._shared.get((node, shared_gpu), (-1, 0))
            if users == 0:
                gpu = _lowest_free(taken, 1)[0]
                taken.add(gpu)
            self._shared[node, shared_gpu] = (gpu, users + 1)
            return (gpu,)
        chosen = _lowest_free(taken, whole)
        taken.update(chosen)
        return chosen

    def retake(self, node: int, gpus: tuple[int, ...], shared_gpu: int) -> None:
        """Take GPUs that were chosen before."""
        taken = self._whole.setdefault(node, set())
        if shared_gpu >= 0:
            _, users = self._shared.get((node, shared_gpu), (gpus[0], 0))
            self._shared[node, shared_gpu] = (gpus[0], users + 1)
        elif taken.intersection(gpus):
            raise InvariantBroken(f"GPU {sorted(taken.intersection(gpus))} of node {node} would be used twice")
        taken.update(gpus)

    def give_back(self, node: int, gpus: tuple[int, ...], shared_gpu: int) -> None:
        """Free them again."""
        if shared_gpu >= 0:
            gpu, users = self._shared[node, shared_gpu]
            if users > 1:
                self._shared[node, shared_gpu] = (gpu, users - 1)
                return
            del self._shared[node, shared_gpu]
        if gpus:
            self._whole[node].difference_update(gpus)


def _lowest_free(taken: set[int], count: int) -> tuple[int, ...]:
    chosen: list[int] = []
    gpu = 0
    while len(chosen) < count:
        if gpu not in taken:
            chosen.append(gpu)
        gpu += 1
    return tuple(chosen)


class LiveState:
    """Owns the arrays; changes are gathered and taken in by the next `step`.

    `outlook`: PUE by site and hour, from an hour that has begun; without it every hour is taken for the worst.
    """

    def __init__(self, fleet: Fleet, policy: Policy, now_s: int, outlook: Outlook | None = None) -> None:
        # A live power limit protects a feeder, and nobody has said how warm it will be: at the lowest PUE, or at a
        # mean one, what is started on a cool night would break the limit on a hot afternoon, and only preemption
        # could mend that. The highest PUE costs some GPUs at sites that are short of power, and no limit.
        hour_s = now_s // HOUR_S * HOUR_S
        self.fleet = fleet
        self.policy = policy
        self._outlook = outlook
        self._state = build_state(
            fleet,
            (),
            policy,
            jobs=_LEAST_ROWS,
            workers=_LEAST_ROWS,
            queue=_LEAST_ROWS,
            log=_LEAST_LOG,
            outlook=outlook or replace(Outlook.worst(fleet), first_hour_s=hour_s),
        )
        self._state.jobs["start_s"] = self._state.jobs["pool"] = -1
        self._tenant_row = {tenant.id: row for row, (_, tenant) in enumerate(fleet.tenants.walk())}
        self._pools = [(site.id, pool.id) for site, pool in fleet.pools()]
        self._first_node = {key: int(self._state.pools[row].first_node) for row, key in enumerate(self._pools)}
        self._shape_row: dict[Shape, int] = {}
        self._row: dict[JobId, int] = {}
        self._asked: list[Asked | None] = []  # by row
        self._places: dict[JobId, tuple[Place, ...]] = {}
        self._gpus = _Gpus()
        #: Slurm gives a job its GPUs itself: numbers of ours would be nobody's, and clash once a job stands elsewhere.
        self._unnumbered = {site.id for site in fleet.sites if site.engine is EngineKind.SLURM}
        self._workers_used = 0
        self._changes = capacity_changes(fleet, self._state)
        self._changes_done = 0
        self._outages = outage_windows(fleet)
        self._said_windows: dict[SiteId, list[tuple[int, int, int]]] = {}
        self._announced_anew = False
        self._announce_s = now_s  # when the pools' next outage is looked up again
        self._up_wanted = np.zeros(len(self._state.nodes), dtype=np.bool_)  # by phases and outages
        self._barred = np.zeros(len(self._state.nodes), dtype=np.bool_)  # by their engine
        self._closed = np.zeros(len(self._state.nodes), dtype=np.bool_)  # one by one: drained, down, not there
        names = ("ended", "lost", "arrived", "withdrawn", "resumed")
        self._gathered: dict[str, set[int]] = {name: set() for name in names}  # rows

    @property
    def tenants(self) -> Collection[TenantId]:
        """All that jobs may belong to."""
        return self._tenant_row.keys()

    # --- jobs --------------------------------------------------------------------------------------------------------

    def add(self, asked: Asked) -> None:
        """Make a job known; it waits only after `arrive`. One that is `running` holds its places at once."""
        row = self._add(asked)
        if asked.running is not None:
            self._stand(row, asked, *asked.running)
            resume(self._state, np.array([row], dtype=np.int32))

    def foresee(self, shapes: Iterable[Shape]) -> None:
        """Make many shapes known in one go: each new one costs a look at all the others."""
        new = [shape for shape in dict.fromkeys(shapes) if shape not in self._shape_row]
        self._state = add_shapes(self._state, self.fleet, new)
        self._shape_row |= {shape: row for row, shape in enumerate(new, len(self._shape_row))}

    def take_over(self, asked: Asked) -> tuple[Place, ...]:
        """Make a job known that others started: it holds its places from the next step on, before that step decides.

        GPUs are numbered here where its places name none, unless the engine numbers them itself.
        """
        assert asked.running is not None
        site, places = asked.running
        numbered = tuple(self._numbered(site, place, asked.shape) for place in places)
        row = self._add(replace(asked, running=(site, numbered)))
        self._stand(row, asked, site, numbered)
        self._gathered["resumed"].add(row)
        return numbered

    def move(self, job_id: JobId, site: SiteId, places: tuple[Place, ...], now_s: int) -> tuple[Place, ...]:
        """A running job stands elsewhere than was decided, since now; returns its places with their GPUs."""
        asked = self._asked[self._row[job_id]]
        if asked is None:
            raise InvariantBroken(f"job {job_id} was moved after its end")
        self.forget(job_id)
        return self.take_over(replace(asked, running=(site, places), start_s=now_s))

    def _add(self, asked: Asked) -> int:
        if asked.job_id in self._row:
            raise InvariantBroken(f"job {asked.job_id} is known already")
        if asked.shape not in self._shape_row:
            self._state = add_shapes(self._state, self.fleet, [asked.shape])
            self._shape_row[asked.shape] = len(self._shape_row)
        row = len(self._asked)
        workers = asked.shape.workers
        if row == len(self._state.jobs) or self._workers_used + workers > len(self._state.workers):
            self._grow(workers)
        write_jobs(
            self._state,
            slice(row, row + 1),
            self._workers_used,
            shape=self._shape_row[asked.shape],
            estimate_s=asked.estimate_s,
            submit_s=asked.submit_s,
            limit_s=asked.limit_s,
            tenant=self._tenant_row[asked.tenant],
            priority_class=asked.priority_class,
        )
        self._workers_used += workers
        self._row[asked.job_id] = row
        self._asked.append(asked)
        return row

    def _grow(self, workers: int) -> None:
        rows = max(len(self._state.jobs), 2 * (len(self._asked) + 1))
        room = max(len(self._state.workers), 2 * (self._workers_used + workers))
        self._state = grow_jobs(self._state, rows, room)

    def _stand(self, row: int, asked: Asked, site: SiteId, places: tuple[Place, ...]) -> None:
        """Write down where a running job's workers are."""
        first = int(self._state.jobs[row].first_worker)
        for worker, place in enumerate(places, first):
            node = self._node(site, place)
            self._state.workers["node"][worker] = node
            self._state.workers["shared_gpu"][worker] = place.shared_gpu
            self._gpus.retake(node, place.gpus, place.shared_gpu)
        self._state.jobs[row].start_s = asked.start_s
        self._places[asked.job_id] = places

    def _numbered(self, site: SiteId, place: Place, shape: Shape) -> Place:
        if place.gpus or place.shared_gpu >= 0 or site in self._unnumbered:
            return place
        node, gpus = self._node(site, place), shape.gpu_milli // GPU_MILLI
        chosen = self._gpus.take(node, gpus, -1)
        self._gpus.give_back(node, chosen, -1)  # `_stand` takes it, as it takes what was chosen before
        return replace(place, gpus=chosen)

    def knows(self, job_id: JobId) -> bool:
        """Whether the job has been added and has not ended."""
        return job_id in self._row

    def arrive(self, job_id: JobId) -> None:
        """The job waits from now on."""
        row = self._row[job_id]
        self._gathered["withdrawn"].discard(row)
        if row not in self._gathered["lost"] and self._state.jobs[row].state != layout.WAITING:
            self._gathered["arrived"].add(row)

    def withdraw(self, job_id: JobId) -> None:
        """The job no longer waits; it may arrive again."""
        self._withdraw(self._row[job_id])

    def _withdraw(self, row: int) -> None:
        if row in self._gathered["arrived"]:
            self._gathered["arrived"].discard(row)
        elif row in self._gathered["lost"] or self._state.jobs[row].state == layout.WAITING:
            self._gathered["withdrawn"].add(row)

    def lose(self, job_id: JobId) -> None:
        """The job no longer runs and waits again."""
        row = self._row[job_id]
        self._release(job_id)
        if row in self._gathered["resumed"]:
            self._gathered["resumed"].discard(row)
            self.arrive(job_id)
        else:
            self._gathered["lost"].add(row)

    def forget(self, job_id: JobId) -> None:
        """The job has ended, or will never start."""
        row = self._row[job_id]
        if row in self._gathered["lost"]:
            self._gathered["lost"].discard(row)
            self._gathered["ended"].add(row)
        elif row in self._gathered["resumed"]:
            self._release(job_id)
            self._gathered["resumed"].discard(row)
        elif self._state.jobs[row].state == layout.RUNNING:
            self._release(job_id)
            self._gathered["ended"].add(row)
        else:
            self._withdraw(row)
        self._asked[row] = None
        del self._row[job_id]

    def _release(self, job_id: JobId) -> None:
        row = self._row[job_id]
        first = int(self._state.jobs[row].first_worker)
        for worker, place in enumerate(self._places.pop(job_id), first):
            self._gpus.give_back(int(self._state.workers["node"][worker]), place.gpus, place.shared_gpu)

    # --- nodes -------------------------------------------------------------------------------------------------------

    def bar(self, site: SiteId, *, barred: bool) -> None:
        """Let nothing start at a site (its engine is silent, or someone said so), or let it start again."""
        for row, (its_site, _) in enumerate(self._pools):
            if its_site == site:
                pool = self._state.pools[row]
                self._barred[pool.first_node : pool.first_node + pool.nodes] = barred

    def close_nodes(self, site: SiteId, open_nodes: Mapping[PoolId, Collection[int]]) -> bool:
        """Only these nodes of a site take jobs, as its engine says; returns whether that is news."""
        before = self._closed.copy()
        for row, (its_site, pool_id) in enumerate(self._pools):
            if its_site == site:
                pool = self._state.pools[row]
                self._closed[pool.first_node : pool.first_node + pool.nodes] = True
                for number in open_nodes.get(pool_id, ()):
                    if number < pool.nodes:
                        self._closed[pool.first_node + number] = False
        return not np.array_equal(before, self._closed)

    def announce(self, site: SiteId, windows: Iterable[tuple[int, int, PoolId]]) -> bool:
        """[start, end) in which the site itself will close whole pools, beside planned outages: whether it is news.

        Nothing starts that would still run when one begins. The nodes themselves are closed by `close_nodes` then.
        """
        row = {pool: row for row, (its_site, pool) in enumerate(self._pools) if its_site == site}
        said = sorted((start, end, row[pool]) for start, end, pool in windows if pool in row)
        if said == self._said_windows.get(site, []):
            return False
        self._said_windows[site] = said
        self._outages = sorted(
            outage_windows(self.fleet) + [each for its in self._said_windows.values() for each in its]
        )
        self._announce_s, self._announced_anew = 0, True
        return True

    def next_change_s(self) -> int:
        """When a phase opens or a planned outage begins or ends next; NEVER_S: no more."""
        later = self._changes[self._changes_done :]
        return later[0].at_s if later else NEVER_S

    # --- the step ----------------------------------------------------------------------------------------------------

    def step(self, now_s: int) -> Stepped:
        """Take in what was gathered and decide. Changes are complete even when the queue had to be made larger."""
        while self._changes_done < len(self._changes) and self._changes[self._changes_done].at_s <= now_s:
            change = self._changes[self._changes_done]
            self._up_wanted[change.first_node : change.first_node + change.count] = change.up
            self._changes_done += 1
        if now_s >= self._announce_s:
            announce_outages(self._state, self._outages, now_s)
            self._announce_s = next((start for start, _, _ in self._outages if start > now_s), NEVER_S)
        if self._announced_anew:  # promises and reasons were given on other windows
            drop_all(self._state)
            self._state.cycle[0].scan_all, self._state.cycle[0].blocked = 1, 0
            self._announced_anew = False
        wanted = self._up_wanted & ~self._barred & ~self._closed
        is_up = self._state.nodes["up"] == 1
        events = Events(
            ended=self._rows("ended"),
            lost=self._rows("lost"),
            arrived=self._rows("arrived"),
            withdrawn=self._rows("withdrawn"),
            resumed=self._rows("resumed"),
            nodes_up=np.flatnonzero(wanted & ~is_up).astype(np.int32),
            nodes_down=np.flatnonzero(~wanted & is_up).astype(np.int32),
        )
        self._state.cycle[0].logged = 0
        state = self._state = make_room(self._state, len(events.arrived) + len(events.lost))
        decided = step(state, events, max(now_s, int(state.cycle[0].now_s)))
        if state.cycle[0].logged_lost:
            raise InvariantBroken(f"{state.cycle[0].logged_lost} reasons were not logged")
        for gathered in self._gathered.values():
            gathered.clear()
        starts = tuple(self._start(row) for row in decided.started.tolist())
        reasons: dict[JobId, Reason] = {}
        for line in state.logged[: state.cycle[0].logged]:
            asked = self._asked[int(line["job"])]
            if asked is not None and asked.job_id not in self._places:
                reasons[asked.job_id] = Reason(int(line["reason"]))
        if len(self._asked) > 2 * (len(self._row) + _SPARE_ROWS):
            self._drop_ended()
            return Stepped(starts, tuple(reasons.items()), now_s)
        return Stepped(starts, tuple(reasons.items()), decided.wake_s)

    def _rows(self, name: str) -> Int32Array:
        return np.array(sorted(self._gathered[name]), dtype=np.int32)

    def _start(self, row: int) -> Start:
        asked = self._asked[row]
        if asked is None:
            raise InvariantBroken(f"row {row} was started after its job had ended")
        job = self._state.jobs[row]
        shape = self._state.shapes[job.shape]
        site, pool = self._pools[job.pool]
        first_node = self._first_node[site, pool]
        places = []
        for worker in range(job.first_worker, job.first_worker + shape.workers):
            node, shared_gpu = int(self._state.workers["node"][worker]), int(self._state.workers["shared_gpu"][worker])
            gpus = () if site in self._unnumbered else self._gpus.take(node, shape.gpus, shared_gpu)
            places.append(Place(pool, node - first_node, gpus, shared_gpu))
        self._places[asked.job_id] = tuple(places)
        return Start(asked.job_id, site, tuple(places))

    def _drop_ended(self) -> None:
        """Build the arrays anew from the jobs that have not ended; what they were promised is worked out again."""
        old = self._state
        now_s = int(old.cycle[0].now_s)
        fresh = LiveState(self.fleet, self.policy, now_s, self._outlook)
        fresh._state.cycle[0].weight_zero_s = old.cycle[0].weight_zero_s
        running = [row for row, asked in enumerate(self._asked) if asked and old.jobs[row].state == layout.RUNNING]
        # What running jobs have used so far comes with them; `resume` charges it anew.
        past: Float64Array = old.tenants["weighted_past"] + 0.0
        fresh._barred, fresh._closed = self._barred, self._closed
        fresh._said_windows, fresh._outages = self._said_windows, self._outages
        fresh._up_wanted, fresh._changes_done = self._up_wanted, self._changes_done
        for row, asked in enumerate(self._asked):
            if asked is None:
                continue
            at = int(old.jobs[row].start_s)
            if row in running:
                pool = self._pools[old.jobs[row].pool]
                asked = replace(asked, running=(pool[0], self._places[asked.job_id]), start_s=at)
            else:
                asked = replace(asked, running=None)
            fresh.add(asked)
            if old.jobs[row].state == layout.WAITING:
                fresh.arrive(asked.job_id)
        fresh._state.tenants["weighted_past"] = past
        self.__dict__.update(fresh.__dict__)

    # --- reading -----------------------------------------------------------------------------------------------------

    def charge_past(
        self,
        tenants: Sequence[TenantId],
        tenant: Int64Array,
        gpu_milli: Int64Array,
        start_s: Int64Array,
        end_s: Int64Array,
    ) -> None:
        """Charge ended attempts to their tenants, as columns; those of tenants that are no more are left out."""
        row_of = np.array([self._tenant_row.get(name, -1) for name in tenants] or [-1], dtype=np.int32)
        rows = row_of[tenant] if len(tenant) else np.zeros(0, dtype=np.int32)
        known = rows >= 0
        add_past_use(self._state, rows[known], gpu_milli[known], start_s[known], end_s[known])

    def promise(self, job_id: JobId) -> Promise | None:
        """What the core knows of a job that waits in the queue; None when it does not wait there."""
        row = self._row.get(job_id)
        if row is None or self._state.jobs[row].state != layout.WAITING:
            return None
        job = self._state.jobs[row]
        cycle = self._state.cycle[0]
        queue = self._state.queue[cycle.queue_head : cycle.queue_tail]
        at = np.flatnonzero((queue["job"] == row) & (queue["shape"] >= 0))
        ahead = int((queue["shape"][: at[0]] >= 0).sum()) if len(at) else 0
        return Promise(Reason(int(job.reason)), None if job.reserved_s >= NEVER_S else int(job.reserved_s), ahead)

    def pools(self) -> list[PoolFigures]:
        """Every pool as it is now, in the order of the fleet."""
        nodes, shared = self._state.nodes, self._state.shared_free
        result = []
        for row, (site, pool) in enumerate(self.fleet.pools()):
            first, count = int(self._state.pools[row].first_node), int(self._state.pools[row].nodes)
            its = slice(first, first + count)
            up = nodes["up"][its] == 1
            gpus_free = nodes["gpus_free"][its][up]
            gpu_milli_free = GPU_MILLI * int(gpus_free.sum()) + int(np.maximum(shared[its][up], 0).sum())
            whole = (gpus_free == pool.gpus_per_node) & (nodes["running"][its][up] < 0)
            result.append(
                PoolFigures(
                    site=site.id,
                    pool=pool,
                    nodes_open=int(self._up_wanted[its].sum()),
                    nodes_up=int(up.sum()),
                    nodes_idle=int(whole.sum()),
                    gpu_milli_free=gpu_milli_free,
                    cpu_milli_free=int(nodes["cpu_free_milli"][its][up].sum()),
                    memory_mib_free=int(nodes["memory_free_mib"][its][up].sum()),
                )
            )
        return result

    def stand_ins(self) -> list[Asked]:
        """The running jobs that stand for those of other people: their ids are below zero."""
        return [
            asked if self._state.jobs[row].state == layout.RUNNING else replace(asked, running=None)
            for row, asked in enumerate(self._asked)
            if asked is not None and asked.job_id < 0
        ]

    def running(self, job_id: JobId) -> Asked | None:
        """A job with the places that it holds; None when it holds none."""
        asked, places = self._asked[self._row[job_id]], self._places.get(job_id)
        if asked is None or places is None:
            return None
        job = self._state.jobs[self._row[job_id]]
        site = asked.running[0] if asked.running else self._pools[job.pool][0]
        return replace(asked, running=(site, places), start_s=int(job.start_s))

    def shape(self, job_id: JobId) -> Shape:
        """What the core was told that a job asks for."""
        asked = self._asked[self._row[job_id]]
        if asked is None:
            raise InvariantBroken(f"job {job_id} has ended")
        return asked.shape

    def power_w(self) -> dict[SiteId, int]:
        """IT power of each site as the model has it."""
        return {site.id: int(self._state.sites[row].power_mw) // 1000 for row, site in enumerate(self.fleet.sites)}

    def check(self) -> None:
        """Recount everything. Raises InvariantBroken."""
        check_invariants(self._state, drained=True)

    def digest(self) -> str:
        """Of every job that has not ended, and of the tenants' use; equal to `digest_of` the same jobs."""
        jobs = self._state.jobs
        lines = []
        for row, asked in enumerate(self._asked):
            if asked is None:
                continue
            runs = jobs[row].state == layout.RUNNING
            site = self._pools[jobs[row].pool][0] if runs else ""
            lines.append(_line(asked.job_id, site, self._placed_by_core(row) if runs else ()))
        used = {tenant: int(self._state.tenants[row].used_milli) for tenant, row in self._tenant_row.items()}
        return _digest(lines, used)

    def _placed_by_core(self, row: int) -> tuple[Place, ...]:
        # From the arrays, not from what was kept beside them: that is the point of the comparison.
        job = self._state.jobs[row]
        asked = self._asked[row]
        site, pool = self._pools[job.pool]
        first = self._first_node[site, pool]
        count = int(self._state.shapes[job.shape].workers)
        kept = self._places[asked.job_id] if asked else ()
        workers = self._state.workers[job.first_worker : job.first_worker + count]
        return tuple(
            Place(pool, int(worker["node"]) - first, place.gpus, int(worker["shared_gpu"]))
            for worker, place in zip(workers, kept, strict=True)
        )

    def _node(self, site: SiteId, place: Place) -> int:
        if (site, place.pool) not in self._first_node:
            raise InvariantBroken(f"a job runs in pool {place.pool} of {site}, which the fleet does not have")
        return self._first_node[site, place.pool] + place.node


def digest_of(fleet: Fleet, asked: Iterable[Asked]) -> str:
    """What `LiveState.digest` says when it holds exactly these jobs."""
    above: dict[TenantId, list[TenantId]] = {}
    walked = list(fleet.tenants.walk())
    for parent, tenant in walked:
        above[tenant.id] = [tenant.id, *(above[walked[parent][1].id] if parent >= 0 else [])]
    used = dict.fromkeys(above, 0)
    lines = []
    for job in asked:
        site, places = job.running or (SiteId(""), ())
        lines.append(_line(job.job_id, site, places))
        for name in above[job.tenant] if job.running else ():
            used[name] += job.shape.total_gpu_milli
    return _digest(lines, used)


def compile_core() -> None:
    """Compile (or load from the disk's cache) everything that live work calls, so that no cycle waits for it."""
    pool = Pool(PoolId("p"), "any", 1, 1, 1, False, 1, 1, 1, 1)
    fleet = Fleet.of_one_site("s", [(pool, 1)], power_limit_kw=1, pue=Pue.constant(1.0))
    for running in (None, (SiteId("s"), (Place(pool.id, 0, (0,)),))):
        live = LiveState(fleet, POLICIES["hybrid"], 0)
        live.add(Asked(JobId(1), Shape(1, GPU_MILLI), fleet.tenants.id, 0, 1, 0, 0, running, 0))
        if running is None:
            live.arrive(JobId(1))
        live.step(0)


def _line(job_id: JobId, site: str, places: Sequence[Place]) -> str:
    return f"{job_id} {site} {[(place.pool, place.node, place.gpus, place.shared_gpu) for place in places]}"


def _digest(lines: list[str], used: dict[TenantId, int]) -> str:
    whole = "\n".join([*sorted(lines), *(f"{tenant} {milli}" for tenant, milli in sorted(used.items()))])
    return sha256(whole.encode()).hexdigest()
