"""On one machine of interchangeable GPUs the core decides as the textbook does, job by job."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests import reference
from tests.core.world import Ask, gang, gpus, nodes, run
from tests.reference.test_textbook import lublin, pai_up_to_160_gpus
from watteau.core.state import check_invariants
from watteau.domain.fleet import Fleet
from watteau.domain.policy import named_policy

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
