"""The public traces, read whole: the figures are those that others published or that we counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from watteau.domain.units import DAY_S, WEEK_S
from watteau.workload import generate as figures
from watteau.workload.describe import describe
from watteau.workload.formats import read_openb_nodes, read_workload
from watteau.workload.generate import generate, tenant_names
from watteau.workload.scale import compress_to_load, resample_to_load

pytestmark = pytest.mark.data


def test_pai_has_its_published_counts(watteau_data: Path) -> None:
    workload = read_workload(watteau_data / "pai_100k_jobs.csv")
    assert len(workload) == 99_998
    assert workload.gpu_milli().max() == 400_000
    assert np.mean(workload.gpu_milli() == 1_000) == pytest.approx(0.735, abs=0.001)
    assert describe(workload)["gpu_hours"] == pytest.approx(1_011_245.85, abs=0.01)


def test_lublin_keeps_its_first_submit(watteau_data: Path) -> None:
    workload = read_workload(watteau_data / "lublin_256.swf")
    assert len(workload) == 10_000
    assert workload.submit_s[0] == 5_094
    assert workload.runtime_s.max() <= 162_754


def test_openb_has_its_published_pods_nodes_and_gpus(watteau_data: Path) -> None:
    workload = read_workload(watteau_data / "openb_pod_list_default.csv")
    nodes = read_openb_nodes(watteau_data / "openb_node_list_gpu_node.csv")
    assert len(workload) == 8_152
    assert (len(nodes), sum(node.gpus for node in nodes)) == (1_213, 6_212)
    assert "897 pods were never scheduled" in "\n".join(workload.notes)


def test_the_figures_of_the_generator_are_those_of_the_trace(watteau_data: Path) -> None:
    workload = read_workload(watteau_data / "pai_100k_jobs.csv")
    gpus = workload.gpu_milli() // 1_000
    for size, jobs in figures.JOBS_BY_GPUS.items():
        assert np.count_nonzero(gpus == size) == jobs
    below = 0
    for largest, quantiles_s in figures.RUNTIME_S.items():
        group = workload.runtime_s[(gpus > below) & (gpus <= largest)]
        assert np.allclose(np.quantile(group, figures.RUNTIME_QUANTILES), quantiles_s, atol=1)
        below = largest


def test_generated_quantiles_are_close_to_the_traces(watteau_data: Path) -> None:
    real = describe(read_workload(watteau_data / "pai_100k_jobs.csv"))
    made = describe(generate(capacity_gpus=2_000, load=0.8, duration_s=8 * WEEK_S, seed=2, tenants=tenant_names(50)))
    for name in ("p10", "p25", "p50", "p75", "p90", "p95", "p99"):
        assert made["runtime_s"][name] == pytest.approx(real["runtime_s"][name], rel=0.10)
        assert made["gpus"][name] == pytest.approx(real["gpus"][name], rel=0.15)


def test_pai_is_brought_to_a_load_both_ways(watteau_data: Path) -> None:
    workload = read_workload(watteau_data / "pai_100k_jobs.csv")
    assert describe(compress_to_load(workload, 160, 0.8))["offered_gpus_mean"] == pytest.approx(128, rel=1e-6)
    drawn = resample_to_load(workload, 1_000, 0.7, 30 * DAY_S, seed=1)
    assert describe(drawn)["gpu_hours"] == pytest.approx(0.7 * 1_000 * 30 * 24, rel=0.001)
