"""openb pods: one worker each, whole GPUs or a fraction of one."""

import pytest

from tests.workload.files import faults, notes, read
from watteau.domain.jobs import Shape

HEADER = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"
)


def test_a_pod_becomes_a_worker_with_its_fraction_and_models() -> None:
    workload = read(
        HEADER + "p0,6000,12288,1,460,,LS,Running,100,900,150\np1,4000,1,2,1000,V100M16|V100M32,BE,X,0,5,0\n"
    )
    assert workload.job_id.tolist() == [1, 0]
    assert workload.submit_s.tolist() == [0, 100]
    assert workload.runtime_s.tolist() == [5, 750], "from scheduling to deletion"
    assert workload.shapes[workload.shape[0]] == Shape(1, 2_000, 4_000, 1, gpu_models=("V100M16", "V100M32"))
    assert workload.shapes[workload.shape[1]] == Shape(1, 460, 6_000, 12_288)


def test_a_pod_that_was_never_scheduled_counts_from_creation_and_one_never_deleted_is_left_out() -> None:
    workload = read(HEADER + "p0,1,1,0,0,,LS,Pending,100,900,\np1,1,1,0,0,,LS,Running,1,,2\n")
    assert workload.runtime_s.tolist() == [800]
    assert "1 pods were never scheduled" in notes(workload)
    assert "1 pods were never deleted" in notes(workload)


@pytest.mark.parametrize(
    "row", ["p,1,1,2,500,,,,0,1,0", "p,1,1,0,500,,,,0,1,0", "p,1,1,1,0,,,,0,1,0", "p,1,1,1,1500,,,,0,1,0"]
)
def test_a_fraction_of_several_gpus_is_refused(row: str) -> None:
    assert faults(HEADER + row + "\n")[0].startswith("line 2, gpu_milli")


def test_a_deletion_before_the_start_is_refused() -> None:
    assert faults(HEADER + "p,1,1,1,1000,,,,10,12,15\n")[0].startswith("line 2, deletion_time: '12'")


def test_a_missing_column_is_named() -> None:
    header = HEADER.replace("gpu_spec,", "").replace("qos,", "").replace("pod_phase,", "")
    assert faults(header + "p,1,1,1,1000,1,2,3\n")[0].startswith("line 1, gpu_spec: no such column")
