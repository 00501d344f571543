"""On one machine of interchangeable GPUs the core decides as the textbook does, job by job."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests import reference
from tests.core.world import Ask, build, gang, gpus, nodes, run
from tests.reference.test_textbook import lublin, pai_up_to_160_gpus
from watteau.core.state import check_invariants
from watteau.domain.fleet import Fleet
from watteau.domain.policy import named_policy
from watteau.domain.units import NEVER_S
from watteau.simulation.clock import IDLE, advance

GPUS = 6
AGGREGATE = nodes(1, GPUS)
SPREAD = nodes(GPUS, 1)

Rows = list[tuple[int, int, int, int]]  # submit, run time, estimate above it, processors
ROWS: st.SearchStrategy[Rows] = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 12), st.integers(0, 12), st.integers(1, GPUS)),
    min_size=1,
    max_size=14,
)
EXACT_ROWS: st.SearchStrategy[Rows] = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 12), st.just(0), st.integers(1, GPUS)), min_size=1, max_size=14
)

# The drawn cases of tests/reference, where each rule of the textbook shows.
COMPRESSION_LEAVES_A_HOLE: Rows = [(0, 30, 0, 2), (0, 3, 7, 4), (0, 5, 0, 2), (0, 4, 0, 3), (0, 2, 0, 2)]


def textbook(rows: Rows) -> list[reference.Job]:
    """The rows as the references take them, numbered by arrival."""
    return [
        reference.Job(number, submit_s, runtime_s, max(1, runtime_s + more_s), processors)
        for number, (submit_s, runtime_s, more_s, processors) in enumerate(sorted(rows, key=lambda row: row[0]))
    ]


def asks(rows: Rows, spread: bool = False) -> list[Ask]:
    """The same for the core: one worker with so many GPUs, or a gang of workers with one."""
    return [
        Ask(job.submit_s, job.runtime_s, gang(job.processors, 1) if spread else gpus(job.processors), job.estimate_s)
        for job in textbook(rows)
    ]


def starts_of(fleet: Fleet, rows: Rows, policy: str) -> dict[int, int]:
    """Starts by job under a policy that compresses in every step."""
    world = run(fleet, asks(rows, spread=fleet is SPREAD), named_policy(policy, compress_every_s=0))
    return dict(enumerate(world.starts()))


@pytest.mark.parametrize("fleet", [AGGREGATE, SPREAD], ids=["one node", "many nodes"])
@given(rows=ROWS)
def test_fifo_equals_the_textbook(fleet: Fleet, rows: Rows) -> None:
    assert starts_of(fleet, rows, "fifo") == reference.fifo(textbook(rows), GPUS)


@pytest.mark.parametrize("fleet", [AGGREGATE, SPREAD], ids=["one node", "many nodes"])
@given(rows=ROWS)
def test_easy_equals_the_textbook(fleet: Fleet, rows: Rows) -> None:
    assert starts_of(fleet, rows, "easy") == reference.easy(textbook(rows), GPUS)


@given(rows=EXACT_ROWS)
def test_conservative_with_exact_estimates_equals_the_textbook(rows: Rows) -> None:
    assert starts_of(AGGREGATE, rows, "conservative") == reference.conservative(textbook(rows), GPUS)


@given(rows=ROWS)
@example(rows=COMPRESSION_LEAVES_A_HOLE)
def test_conservative_equals_the_textbook_when_jobs_end_early_too(rows: Rows) -> None:
    """The hole: a job is promised a time at which nothing else happens, and is started then."""
    assert starts_of(AGGREGATE, rows, "conservative") == reference.conservative(textbook(rows), GPUS)


def replayed(jobs: list[reference.Job], processors: int, policy: str, spread: bool = False) -> dict[int, int]:
    """Starts by job id, of a whole trace: recounted at the end only."""
    ordered = sorted(jobs, key=lambda job: (job.submit_s, job.job_id))
    shape_of = gang if spread else lambda count, _: gpus(count)
    asked = [Ask(job.submit_s, job.runtime_s, shape_of(job.processors, 1), job.estimate_s) for job in ordered]
    fleet = nodes(processors, 1, block=processors) if spread else nodes(1, processors)
    policy_now = named_policy(policy, compress_every_s=0)
    world = build(fleet, asked, policy_now, queue=1 << 15, log=1 << 20)
    assert advance(world.state, world.clock, NEVER_S, 1 << 40) == IDLE
    check_invariants(world.state)
    return {job.job_id: start for job, start in zip(ordered, world.starts(), strict=True)}


@pytest.mark.data
@pytest.mark.parametrize("spread", [False, True], ids=["one node", "256 nodes"])
def test_lublin_figures_equal_those_of_other_systems(watteau_data: Path, spread: bool) -> None:
    jobs = lublin(watteau_data)
    strict, backfilled = (replayed(jobs, 256, policy, spread) for policy in ("fifo", "easy"))
    assert round(reference.mean_wait_s(jobs, strict), 1) == 2_388_443.8
    assert round(reference.mean_wait_s(jobs, backfilled), 1) == 97_156.0
    assert round(reference.mean_bounded_slowdown(jobs, backfilled), 2) == 590.05


@pytest.mark.data
def test_lublin_starts_equal_the_textbook_job_by_job(watteau_data: Path) -> None:
    jobs = lublin(watteau_data)
    assert replayed(jobs, 256, "fifo") == reference.fifo(jobs, 256)
    assert replayed(jobs, 256, "easy") == reference.easy(jobs, 256)
    assert replayed(jobs, 256, "conservative") == reference.conservative(jobs, 256)


@pytest.mark.data
@pytest.mark.parametrize("count", [10_000, pytest.param(99_983, marks=pytest.mark.slow)])
def test_pai_starts_equal_the_textbook_job_by_job(watteau_data: Path, count: int) -> None:
    jobs = pai_up_to_160_gpus(watteau_data)[:count]
    strict, backfilled = replayed(jobs, 160, "fifo"), replayed(jobs, 160, "easy")
    assert strict == reference.fifo(jobs, 160)
    assert backfilled == reference.easy(jobs, 160)
    if count == 10_000:
        assert round(reference.mean_wait_s(jobs, strict), 1) == 11_670.8
        assert 1_684 <= round(reference.mean_wait_s(jobs, backfilled)) <= 1_697
