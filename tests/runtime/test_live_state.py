"""The live arrays agree with what is kept beside them, whatever happens, and can be built anew from it at any time."""

from collections import defaultdict
from dataclasses import replace
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_step_properties import SHAPES, TWO_SITES
from tests.core.world import fleet, gpus, leaf, nodes, pool, site, tree
from watteau.core.state import Outlook
from watteau.domain.decisions import Reason
from watteau.domain.fleet import Pue
from watteau.domain.jobs import Shape
from watteau.domain.policy import named_policy
from watteau.domain.records import Place
from watteau.domain.requests import JobId
from watteau.domain.units import SiteId, TenantId
from watteau.runtime.live_state import Asked, LiveState, digest_of

TENANTS = [TenantId(name) for name in ("alice", "bob", "carol")]


def asked(job: int, shape: Shape, tenant: str = "alice", estimate_s: int = 10) -> Asked:
    return Asked(JobId(job), shape, TenantId(tenant), 0, estimate_s, 0, 0)


class Mirror:
    """What a store would keep: each job that has not ended, and where it runs."""

    def __init__(self, random: Random, policy: str) -> None:
        self.random = random
        self.policy = named_policy(policy, half_life_s=50, rank_every_s=5)
        self.live = LiveState(TWO_SITES, self.policy, 0)
        self.jobs: dict[JobId, Asked] = {}
        self.waits: set[JobId] = set()
        self.now_s = 0
        self.next_id = 1

    def submit(self, shape: Shape) -> None:
        job = asked(self.next_id, shape, self.random.choice(TENANTS), self.random.randint(1, 30))
        self.next_id += 1
        self.live.add(job)
        self.jobs[job.job_id] = job
        if self.random.random() < 0.8:
            self.live.arrive(job.job_id)
            self.waits.add(job.job_id)

    def happen(self) -> None:
        running = [job.job_id for job in self.jobs.values() if job.running]
        idle = [job.job_id for job in self.jobs.values() if not job.running]
        kinds = ["end", "lose", "lose and cancel", "withdraw", "arrive", "cancel", "cancel", "by hand", "move"]
        kind = self.random.choice(kinds)
        if kind == "end" and running:
            self._end(self.random.choice(running))
        elif kind.startswith("lose") and running:
            job_id = self.random.choice(running)
            self.live.lose(job_id)
            self.jobs[job_id] = replace(self.jobs[job_id], running=None, start_s=-1)
            self.waits.add(job_id)
            if kind == "lose and cancel":
                self._end(job_id)
        elif kind == "withdraw" and idle:
            job_id = self.random.choice(idle)
            self.live.withdraw(job_id)
            self.waits.discard(job_id)
        elif kind == "arrive" and idle:
            job_id = self.random.choice(idle)
            self.live.arrive(job_id)
            self.waits.add(job_id)
        elif kind == "cancel" and idle:
            self._end(self.random.choice(idle))
        elif kind == "by hand" and (found := self._room(gpus(1))):
            self._others_start(self.random.choice(found))
        elif kind == "move" and running:
            job = self.jobs[self.random.choice(running)]
            assert job.running is not None
            site_id = job.running[0]
            there = [place for its, place in self._room(job.shape) if its == site_id]
            if job.shape.workers == 1 and job.shape.gpu_milli % 1000 == 0 and there:
                places = self.live.move(job.job_id, site_id, (self.random.choice(there),), self.now_s)
                self.jobs[job.job_id] = replace(job, running=(site_id, places), start_s=self.now_s)

    def _room(self, shape: Shape) -> list[tuple[SiteId, Place]]:
        """Nodes with room for one worker, by what the jobs hold and not by what the arrays say."""
        taken: dict[tuple[SiteId, str, int], set[int]] = defaultdict(set)
        used: dict[tuple[SiteId, str, int], list[int]] = defaultdict(lambda: [0, 0])
        for job in self.jobs.values():
            site_id, places = job.running or (SiteId(""), ())
            for place in places:
                at = (site_id, place.pool, place.node)
                taken[at].update(place.gpus)
                used[at] = [used[at][0] + job.shape.cpu_milli, used[at][1] + job.shape.memory_mib]
        return [
            (site.id, Place(pool.id, node, ()))
            for site, pool in TWO_SITES.pools()
            for node in range(site.nodes(pool.id))
            if pool.gpus_per_node - len(taken[site.id, pool.id, node]) >= shape.gpu_milli // 1000
            and 1000 * pool.cpu_cores - used[site.id, pool.id, node][0] >= shape.cpu_milli
            and 1024 * pool.memory_gib - used[site.id, pool.id, node][1] >= shape.memory_mib
        ]

    def _others_start(self, there: tuple[SiteId, Place]) -> None:
        """Someone else started a job there: nobody decided it, and it holds its place all the same."""
        job = replace(
            asked(self.next_id, gpus(1), self.random.choice(TENANTS)),
            running=(there[0], (there[1],)),
            start_s=self.now_s,
        )
        self.next_id += 1
        places = self.live.take_over(job)
        self.jobs[job.job_id] = replace(job, running=(there[0], places))

    def _end(self, job_id: JobId) -> None:
        self.live.forget(job_id)
        del self.jobs[job_id]
        self.waits.discard(job_id)

    def step(self) -> None:
        self.now_s += self.random.randint(0, 3)
        stepped = self.live.step(self.now_s)
        for start in stepped.starts:
            assert start.job_id in self.waits
            self.waits.discard(start.job_id)
            job = self.jobs[start.job_id]
            self.jobs[start.job_id] = replace(job, running=(start.site, start.places), start_s=self.now_s)
        for job_id, reason in stepped.reasons:
            if reason.is_final:
                self._end(job_id)

    def check(self) -> None:
        self.live.check()
        assert self.live.digest() == digest_of(TWO_SITES, self.jobs.values())
        used: set[tuple[str, str, int, int]] = set()
        for job in self.jobs.values():
            site_id, places = job.running or (SiteId(""), ())
            for place in places:
                its = {(site_id, place.pool, place.node, gpu) for gpu in place.gpus}
                assert len(its) == len(place.gpus)
                if place.shared_gpu < 0:
                    assert used.isdisjoint(its)
                    used |= its

    def rebuilt(self) -> None:
        fresh = LiveState(TWO_SITES, self.policy, self.now_s)
        for job in self.jobs.values():
            fresh.add(job)
            if job.job_id in self.waits:
                fresh.arrive(job.job_id)
        assert fresh.digest() == self.live.digest()
        self.live = fresh


@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=5),
    random=st.randoms(use_true_random=False),
    policy=st.sampled_from(["fifo", "easy", "hybrid", "conservative"]),
)
def test_the_arrays_agree_with_the_jobs_whatever_happens(shapes: list[Shape], random: Random, policy: str) -> None:
    mirror = Mirror(random, policy)
    for _ in range(12):
        for _ in range(random.randint(0, 3)):
            mirror.submit(random.choice(shapes))
        for _ in range(random.randint(0, 3)):
            mirror.happen()
        mirror.step()
        mirror.check()
        if random.random() < 0.2:
            mirror.rebuilt()
            mirror.step()
            mirror.check()


def test_ended_jobs_leave_the_arrays_and_the_others_keep_their_places() -> None:
    live = LiveState(nodes(1, 4, tenants=tree(leaf("alice"))), named_policy("easy"), 0)
    live.add(asked(1, gpus(1), estimate_s=10**6))
    live.arrive(JobId(1))
    held = live.step(0).starts[0]
    for job in range(2, 12_000):
        live.add(asked(job, gpus(1)))
        live.arrive(JobId(job))
        started = live.step(job).starts
        assert [start.job_id for start in started] == [job]
        live.forget(JobId(job))
    assert len(live._asked) < 10_000
    live.step(20_000)
    live.check()
    again = asked(1, gpus(1), estimate_s=10**6)
    assert live.digest() == digest_of(live.fleet, [replace(again, running=(held.site, held.places))])


def test_a_barred_site_starts_nothing_and_keeps_what_runs() -> None:
    machine = fleet(site((pool(gpus_per_node=2), 1)), tenants=tree(leaf("alice")))
    live = LiveState(machine, named_policy("easy"), 0)
    for job in (1, 2):
        live.add(asked(job, gpus(1)))
    live.arrive(JobId(1))
    assert len(live.step(0).starts) == 1
    live.bar(SiteId("s"), barred=True)
    live.arrive(JobId(2))
    assert live.step(1).reasons == ((2, Reason.NOT_OPEN_YET),)
    live.check()
    live.forget(JobId(1))
    live.step(2)
    live.bar(SiteId("s"), barred=False)
    assert [start.job_id for start in live.step(3).starts] == [2]
    live.check()


def test_nothing_starts_that_would_run_into_a_planned_outage() -> None:
    """The second outage is announced when the first, which touches another, has begun."""
    machine = fleet(
        site((pool(gpus_per_node=1), 1), outages=[(20, 30), (30, 40), (90, 99)]), tenants=tree(leaf("alice"))
    )
    live = LiveState(machine, named_policy("easy"), 0)
    waits = {
        job: Asked(JobId(job), gpus(1), TenantId("alice"), 0, estimate_s, 0, 0)
        for job, estimate_s in ((1, 21), (2, 51), (3, 5))
    }
    for job in waits.values():
        live.add(job)
    starts: dict[int, int] = {}
    live.arrive(JobId(1))
    for now_s in (0, 20, 30, 40, 61, 90, 99):
        if now_s == 61:
            live.forget(JobId(1))
            live.arrive(JobId(2))
        starts |= {start.job_id: now_s for start in live.step(now_s).starts}
        live.check()
    assert live.promise(JobId(1)) is None
    assert starts == {1: 40, 2: 99}


def test_a_live_limit_holds_on_a_hot_day_unless_an_outlook_says_more() -> None:
    """Two nodes idle at 1 kW, 1 kW more for each of 4 GPUs; 9 kW at a PUE of 1.0 to 1.5: 6 kW for IT when it is hot."""
    curve = Pue((10.0, 35.0), (1.0, 1.5))
    machine = fleet(replace(site((pool(gpus_per_node=4), 2), power_kw=9), pue=curve), tenants=tree(leaf("alice")))
    for outlook, started in ((None, 4), (Outlook(0, np.array([[1.0]])), 7)):
        live = LiveState(machine, named_policy("easy"), 5, outlook)
        for job in range(1, 9):
            live.add(asked(job, gpus(1)))
            live.arrive(JobId(job))
        assert len(live.step(5).starts) == started


def test_two_fractions_share_one_gpu_and_a_whole_one_takes_another() -> None:
    live = LiveState(nodes(1, 2, tenants=tree(leaf("alice"))), named_policy("easy"), 0)
    for job, milli in ((1, 500), (2, 500), (3, 1000)):
        live.add(asked(job, Shape(1, milli)))
        live.arrive(JobId(job))
    gpus_of = {start.job_id: start.places[0].gpus for start in live.step(0).starts}
    assert gpus_of == {1: (0,), 2: (0,), 3: (1,)}
    live.forget(JobId(1))
    live.step(1)
    live.add(asked(4, Shape(1, 500)))
    live.arrive(JobId(4))
    assert live.step(2).starts[0].places[0].gpus == (0,)
