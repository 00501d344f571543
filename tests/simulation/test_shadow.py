"""The comparison of a site's own scheduler with Watteau: no difference where there is none, and what cannot be told."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from watteau.domain.errors import InputError
from watteau.domain.fleet import Contract, Engine, Fleet, Outage, Pool, Pue, Technology
from watteau.domain.jobs import Shape, Workload
from watteau.domain.policy import POLICIES
from watteau.domain.records import PastUse
from watteau.domain.requests import JobState
from watteau.domain.sites import Held, NodeState, ShadowDecision, SiteJob, SiteNode
from watteau.domain.tenants import Tenant
from watteau.domain.units import DAY_S, HOUR_S, ContractId, Int64Array, PoolId, SiteId, TenantId, from_epoch_s
from watteau.simulation.replay import Replay, replay
from watteau.simulation.results import outlook_of
from watteau.simulation.shadow import Comparison, compare
from watteau.simulation.shadow_figures import held_by, jain
from watteau.simulation.shadow_load import OwnRun, Window

SITE = SiteId("hub")
ZERO_S = 1_767_225_600  # 2026-01-01
NODES, GPUS = 4, 8
POOL = Pool(PoolId("p"), "h100", GPUS, 64, 1_024, False, 2_000, 7_000, 9_000, 4)


def fleet(outages: tuple[Outage, ...] = ()) -> Fleet:
    tenants = tuple(Tenant(TenantId(name), name, 1, None, ()) for name in ("alice", "bob", "carol"))
    made = Fleet.of_one_site(
        "hub",
        [(POOL, NODES)],
        power_limit_kw=100_000,
        pue=Pue.constant(1.2),
        engine=Engine.SLURM,
        outages=outages,
        tenants=Tenant(TenantId("root"), "root", 1, None, tenants),
    )
    years = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC))
    sun = Contract(ContractId("sun"), Technology.SOLAR, 0.05, 50.0, *years)
    return replace(made, contracts=(sun,))


def nodes(state: NodeState = NodeState.UP) -> list[SiteNode]:
    return [SiteNode(SITE, f"gpu{n}", POOL.id, n, state, "") for n in range(NODES)]


def workload(seed: int, days: float, load: float, sizes: tuple[int, ...] = (1, 2, 4, 8)) -> Workload:
    """Jobs of three tenants at random, whose limits are twice their run times."""
    draw = np.random.default_rng(seed)
    mean_s = 3 * HOUR_S
    count = int(days * DAY_S * load * NODES * GPUS / (mean_s * float(np.mean(sizes))))
    submit = np.sort(draw.integers(0, int(days * DAY_S), count))
    runtime = np.maximum(60, draw.exponential(mean_s, count)).astype(np.int64)
    return Workload(
        source="made up",
        synthetic=True,
        job_id=np.arange(count, dtype=np.int64),
        submit_s=submit.astype(np.int64),
        runtime_s=runtime,
        estimate_s=2 * runtime,
        limit_s=2 * runtime,
        shape=draw.integers(0, len(sizes), count).astype(np.int32),
        tenant=draw.integers(0, 3, count).astype(np.int32),
        priority_class=np.zeros(count, dtype=np.int16),
        shapes=tuple(Shape(1, 1_000 * size, 1_000 * size, 1_024 * size, gpu_models=("h100",)) for size in sizes),
        tenants=("alice", "bob", "carol"),
    )


def run(made: Workload, policy: str, on: Fleet) -> Replay:
    return replay(on, made, POLICIES[policy], zero_s=ZERO_S, outlook=outlook_of(on, ZERO_S, 24 * 90, 0))


def as_site_jobs(happened: Replay, as_of_s: int | None = None) -> list[SiteJob]:
    """What a site would show whose scheduler had done this; what lies after `as_of_s` has not happened yet."""
    made, result = happened.workload, []
    until_s = as_of_s if as_of_s is not None else 1 << 60
    for row in range(len(made)):
        submit, start, end = (int(a[row]) for a in (happened.submit_s, happened.start_s, happened.end_s))
        if submit > until_s:
            continue
        shape = made.shapes[made.shape[row]]
        gpus = shape.gpu_milli // 1_000
        runs, over = start <= until_s, end <= until_s
        at = f"gpu{int(happened.worker_node[happened.first_worker[row]])}"
        result.append(
            SiteJob(
                site=SITE,
                engine_id=str(row + 1),
                submitted_ms=1_000 * submit,
                name="j",
                user=f"user-{row % 5}",
                account="a",
                tenant=TenantId(made.tenants[made.tenant[row]]),
                partition="normal",
                state=JobState.COMPLETED if over else JobState.RUNNING if runs else JobState.WAITING,
                reason="" if runs else "Priority",
                tasks=1,
                workers=1,
                gpus=gpus,
                cpus=gpus,
                memory_mib=1_024 * gpus,
                time_limit_s=int(made.limit_s[row]),
                priority=1,
                eligible_ms=1_000 * submit,
                started_ms=1_000 * start if runs else None,
                ended_ms=1_000 * end if over else None,
                held=(Held(at, gpus, gpus, 1_024 * gpus),) if runs else (),
            )
        )
    return result


def window(days_from: float, days_to: float, as_of: float | None = None) -> Window:
    since, until = ZERO_S + round(days_from * DAY_S), ZERO_S + round(days_to * DAY_S)
    return Window(since, until, until if as_of is None else ZERO_S + round(as_of * DAY_S))


def compared(
    jobs: list[SiteJob], over: Window, policy: str = "fifo", on: Fleet | None = None, **more: object
) -> Comparison:
    return compare(on or fleet(), SITE, POLICIES[policy], jobs, nodes(), over, seed=11, **more)  # type: ignore[arg-type]


def test_a_site_that_did_what_watteau_does_shows_no_difference_at_all() -> None:
    """The counterfactual is the production core: fed with its own doing it must find itself again, to the second."""
    happened = run(workload(1, 20, 0.95), "fifo", fleet())
    found = compared(as_site_jobs(happened), window(0, 20, as_of=60))
    assert found.jobs == len(happened.workload)
    for figure in found.figures:
        assert figure.slurm.value == figure.watteau.value, figure.key
        assert figure.difference.value == 0, figure.key
        if figure.difference.interval is not None:
            assert (figure.difference.interval.low, figure.difference.interval.high) == (0, 0)
    wait = happened.start_s - happened.submit_s
    assert found.figure("wait_mean_s").slurm.value == pytest.approx(float(wait.mean()))
    assert found.figure("wait_mean_s").slurm.value > 60  # type: ignore[operator]
    assert np.array_equal(found.series.slurm_wait_s, found.series.watteau_wait_s)
    assert "as long on average" in found.verdict


def test_a_window_that_begins_in_the_middle_is_entered_with_what_ran_and_waited_then() -> None:
    happened = run(workload(2, 20, 1.0, sizes=(1,)), "fifo", fleet())
    jobs = as_site_jobs(happened)
    over = window(8, 14, as_of=60)
    found = compared(jobs, over)
    submit = happened.submit_s
    assert found.jobs == int(((submit >= over.since_s) & (submit < over.until_s)).sum())
    assert found.figure("wait_mean_s").difference.value == 0
    assert found.figure("utilisation").difference.value == pytest.approx(0, abs=1e-12)
    assert found.figure("energy_kwh").difference.value == 0
    assert any("ran when the window began" in note for note in found.notes)
    busy = held_by(
        happened.start_s, happened.end_s, happened.workload.gpu_milli(), np.array([over.since_s, over.until_s])
    )
    there = NODES * GPUS * 1_000 * (over.until_s - over.since_s)
    assert found.figure("utilisation").slurm.value == pytest.approx(float(busy[0]) / there)


def test_backfill_beside_strict_order_is_told_apart() -> None:
    happened = run(workload(3, 40, 0.85), "fifo", fleet())
    found = compared(as_site_jobs(happened), window(0, 40, as_of=90), policy="hybrid")
    wait = found.figure("wait_mean_s").difference
    assert wait.interval is not None
    assert wait.value is not None
    assert wait.interval.low <= wait.value <= wait.interval.high < 0
    assert "less on average, and the data can tell" in found.verdict


def test_few_jobs_have_figures_and_no_intervals() -> None:
    happened = run(workload(4, 1, 0.05), "fifo", fleet())
    found = compared(as_site_jobs(happened), window(0, 1, as_of=9), policy="hybrid")
    assert 0 < found.jobs < 20
    for key in ("wait_mean_s", "wait_p50_s", "bounded_slowdown_mean"):
        assert found.figure(key).slurm.value is not None
        assert found.figure(key).difference.interval is None
        assert "too few to tell" in found.figure(key).difference.why
    assert "not known" in found.verdict


def one(number: int, start_s: int | None, end_s: int | None, **more: object) -> SiteJob:
    job = SiteJob(
        SITE, str(number), 1_000 * (ZERO_S + number), "j", "ann", "a", TenantId("alice"), "normal",
        JobState.COMPLETED if end_s is not None else JobState.RUNNING if start_s is not None else JobState.WAITING,
        "" if start_s is not None else "Priority", 1, 1, 1, 1, 1_024, 3_600, 1,
        started_ms=None if start_s is None else 1_000 * (ZERO_S + start_s),
        ended_ms=None if end_s is None else 1_000 * (ZERO_S + end_s),
        held=(Held("gpu0", 1, 1, 1_024),) if start_s is not None else (),
    )  # fmt: skip
    return replace(job, **more)  # type: ignore[arg-type]


HOUR = Window(ZERO_S, ZERO_S + 2 * HOUR_S, ZERO_S + 3 * HOUR_S)


def test_one_job_is_compared() -> None:
    found = compared([one(10, 100, 1_000)], HOUR)
    assert (found.jobs, found.figure("wait_mean_s").slurm.value, found.figure("wait_mean_s").watteau.value) == (
        1,
        90,
        0,
    )
    assert found.figure("fairness_users").difference.interval is None


def test_what_is_left_out_or_guessed_is_counted_with_its_reason() -> None:
    jobs = [
        one(10, 100, 1_000),
        one(11, None, 500, state=JobState.CANCELLED),
        one(12, None, None, state=JobState.HELD, reason="JobHeldUser"),
        one(13, None, None, reason="Dependency"),
        one(14, None, None, tasks=5),
        one(15, 20, None),
        one(16, 20, 30, held=(Held("elsewhere", 1, 1, 1),)),
        one(17, 20, 30, held=()),
        one(18, 20, 10),
        one(19, 25, 60, restarts=2),
        one(20, 30, 40, gpus=99, workers=1),
    ]
    notes = "\n".join(compared(jobs, HOUR).notes)
    for said in (
        "jobs cancelled before they started: 1, left out",
        "jobs that are held, or kept waiting by a rule of the site's own: 2, left out",
        "jobs that had not started when this was read, which compete in the replay with their limit as run time and "
        "count in no figure: 5",
        "jobs still running when this was read, whose run time so far is taken for the whole on both sides: 1",
        "jobs on nodes that are in no pool of the fleet file: 1, left out",
        "jobs without nodes on record, which are taken to have run in the first pool: 1",
        "jobs that ended before they started, by their site's clock: 1, left out",
        "requeued jobs, of which only the last run is known: 1",
        "jobs that fit no pool of the fleet file: 1",
    ):
        assert said in notes
    assert compared(jobs, HOUR).jobs == 4  # 10, 15, 17 and 19


def test_jobs_that_never_started_count_in_no_figure() -> None:
    some = [one(10, 100, 1_000), one(11, 12, 500)]
    with_waiting = compared([*some, one(12, None, None)], HOUR)
    assert with_waiting.figure("utilisation").watteau.value == compared(some, HOUR).figure("utilisation").watteau.value
    assert with_waiting.jobs == 2


def test_an_eligible_time_is_the_arrival() -> None:
    waits_for_another = one(10, 700, 800, eligible_ms=1_000 * (ZERO_S + 640))
    assert compared([waits_for_another], HOUR).figure("wait_mean_s").slurm.value == 60


def test_runs_of_our_own_are_on_both_sides() -> None:
    own = [
        OwnRun(ZERO_S - 50, ZERO_S + 3_600, Shape(1, 8_000), POOL.id, TenantId("bob")),
        OwnRun(ZERO_S + 60, None, Shape(2, 8_000), POOL.id, TenantId("nobody")),
    ]
    found, without = (compared([one(10, 100, 1_000)], HOUR, own=its) for its in (own, []))
    gained = [
        (getattr(found.figure("utilisation"), side).value - getattr(without.figure("utilisation"), side).value)
        for side in ("slurm", "watteau")
    ]
    assert gained[0] == pytest.approx(gained[1])
    assert gained[0] == pytest.approx((8 * 3_600 + 16 * (7_200 - 60)) / (32 * 7_200))


@pytest.mark.parametrize(("heavy", "first"), [("alice", "carol"), ("carol", "alice")])
def test_who_used_more_before_the_window_waits_longer_in_the_replay(heavy: str, first: str) -> None:
    def whole_node(number: int, tenant: str, node: int, start_s: int, end_s: int) -> SiteJob:
        held = (Held(f"gpu{node}", 8, 8, 1_024),)
        return one(number, start_s, end_s, gpus=8, cpus=8, tenant=TenantId(tenant), held=held)

    full = [whole_node(node, "bob", node, 10, 3_000 if node else 1_000) for node in range(NODES)]
    come = [
        replace(whole_node(50, who, 0, 3_100, 3_600), engine_id=str(50 + at))
        for at, who in enumerate(("alice", "carol"))
    ]
    before_ms = 1_000 * np.array([[ZERO_S - 7_200], [ZERO_S - 60]])
    past = PastUse((TenantId(heavy),), np.array([0]), np.array([32_000]), before_ms[0], before_ms[1])
    found = compared([*full, *come], HOUR, policy="hybrid", past=past)
    waits = dict(zip(("alice", "carol"), found.series.watteau_wait_s[-2:].tolist(), strict=True))
    assert waits[first] < waits[heavy]


def test_nodes_that_take_no_jobs_and_ran_none_are_in_neither_side() -> None:
    some = [*nodes()[:1], *[replace(node, state=NodeState.DOWN) for node in nodes()[1:]]]
    found = compare(fleet(), SITE, POLICIES["fifo"], [one(10, 100, 3_700)], some, HOUR)
    assert found.figure("utilisation").slurm.value == pytest.approx(3_600 / (8 * 7_200))
    assert any(
        "nodes of the fleet file that take no jobs now, or are not there, and ran none: 3" in note
        for note in found.notes
    )


def test_a_planned_outage_in_which_jobs_ran_did_not_happen() -> None:
    def outage(start_s: int, end_s: int) -> Outage:
        return Outage(from_epoch_s(ZERO_S + start_s), from_epoch_s(ZERO_S + end_s), (), "works")

    kept = compared([one(10, 100, 1_000)], HOUR, on=fleet((outage(3_600, 7_200),)))
    assert kept.figure("utilisation").slurm.value == pytest.approx(900 / (32 * 3_600))
    ignored = compared([one(10, 100, 1_000)], HOUR, on=fleet((outage(500, 7_200),)))
    assert ignored.figure("utilisation").slurm.value == pytest.approx(900 / (32 * 7_200))
    assert any("in which jobs ran all the same" in note for note in ignored.notes)


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(InputError, match="no job that became eligible"):
        compared([one(10, None, None)], HOUR)
    with pytest.raises(InputError, match="no node of hub"):
        compare(fleet(), SITE, POLICIES["fifo"], [one(10, 100, 1_000)], [], HOUR)


def test_the_same_seed_gives_the_same_report_whatever_the_order_of_the_jobs() -> None:
    happened = run(workload(5, 10, 0.9), "fifo", fleet())
    jobs = as_site_jobs(happened)
    first, again = (compared(its, window(0, 10, as_of=40), policy="hybrid") for its in (jobs, jobs[::-1]))
    assert first.figures == again.figures
    assert first.verdict == again.verdict


def test_jobs_still_running_or_waiting_when_read_are_cut_there() -> None:
    happened = run(workload(6, 10, 1.1), "fifo", fleet())
    as_of_s = ZERO_S + 10 * DAY_S
    found = compared(as_site_jobs(happened, as_of_s), window(0, 10))
    assert found.jobs == int((happened.start_s <= as_of_s).sum())
    notes = "\n".join(found.notes)
    running = (happened.start_s <= as_of_s) & (happened.end_s > as_of_s)
    assert f"is taken for the whole on both sides: {int(running.sum())}\n" in notes
    assert f"count in no figure: {int((happened.start_s > as_of_s).sum())}" in notes


def decision(number: int | str, at_s: int, submitted: int) -> ShadowDecision:
    return ShadowDecision(SITE, str(number), 1_000 * (ZERO_S + submitted), 1_000 * (ZERO_S + at_s), ("gpu0",))


def test_live_decisions_are_beside_what_the_site_did() -> None:
    array = 1_000 * (ZERO_S + 15)
    jobs = [
        one(10, 100, 1_000),
        one(11, 105, 500),
        one(12, None, None),
        one(13, None, 60, state=JobState.CANCELLED),
        one(25, 30, 40),
        replace(one(15, 400, 900), engine_id="15_1", submitted_ms=array),
        replace(one(15, 300, 900), engine_id="15_2", submitted_ms=array),
        one(9, 30, 40),
    ]
    decisions = [
        decision(10, 20, 10),
        decision(11, 100, 11),
        decision(12, 50, 12),
        decision(13, 50, 13),
        decision(15, 20, 15),
    ]
    found = compared(jobs, HOUR, decisions=decisions).agreement
    assert (found.jobs, found.earlier, found.same) == (6, 2, 1)
    assert (found.site_first, found.still_waiting, found.cancelled) == (1, 1, 1)
    assert found.lead_s.value == 80  # of 80, 5 and 280
    assert compared(jobs, HOUR).agreement.since_s is None


def test_jains_index_is_one_for_equals_and_a_share_of_one_for_all_to_one() -> None:
    assert jain(np.array([3.0, 3.0, 3.0])) == pytest.approx(1)
    assert jain(np.array([5.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert np.isnan(jain(np.zeros(0)))


def test_time_held_is_counted_to_the_second() -> None:
    def held(*spans: tuple[int, int]) -> Int64Array:
        start, end = (np.array(column, dtype=np.int64) for column in zip(*spans, strict=True))
        return held_by(start, end, np.full(len(spans), 2, dtype=np.int64), np.array([100, 110, 120, 125]))

    assert held((90, 105), (108, 200)).tolist() == [2 * (5 + 2), 20, 10]
    assert held((0, 50), (125, 300)).tolist() == [0, 0, 0]
    assert held((111, 111)).tolist() == [0, 0, 0]


def test_a_window_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="a window from"):
        Window(10, 10, 20)
