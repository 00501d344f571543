"""A workload is right when it is built, or it is not built."""

from dataclasses import replace

import numpy as np
import pytest

from tests.simulation.runs import jobs_of


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("submit_s", -1, "column submit_s goes from -1 to 5, not 0 to"),
        ("runtime_s", -1, "column runtime_s goes from -1 to 7, not 0 to"),
        ("estimate_s", 0, "column estimate_s goes from 0 to 7, not 1 to"),
        ("limit_s", -5, "column limit_s goes from -5 to 0, not 0 to"),
        ("shape", 2, "column shape goes from 1 to 2, not 0 to 1"),
        ("shape", -1, "column shape goes from -1 to 1, not 0 to 1"),
        ("tenant", 1, "column tenant goes from 0 to 1, not -1 to 0"),
        ("tenant", -2, "column tenant goes from -2 to 0, not -1 to 0"),
    ],
)
def test_a_column_that_leaves_its_range_is_named(column: str, value: int, says: str) -> None:
    right = jobs_of((1, 6, 1), (5, 7, 2))
    wrong = getattr(right, column).copy()
    wrong[0] = value
    with pytest.raises(ValueError, match=says):
        replace(right, **{column: wrong})


def test_a_workload_may_be_empty_and_a_tenant_unknown() -> None:
    assert len(jobs_of()) == 0
    assert replace(jobs_of((0, 1, 1)), tenant=np.array([-1], dtype=np.int32), tenants=()).tenants == ()


def test_only_the_limit_kills() -> None:
    jobs = jobs_of((0, 9, 1), (0, 9, 1), (0, 9, 1), limit_s=(0, 8, 9), estimate_s=(1, 1, 1))
    assert jobs.killed().tolist() == [False, True, False]
    assert jobs.served_s().tolist() == [9, 8, 9]
