"""What every test may use: the public data, Hypothesis profiles, and a CI in which nothing is skipped in silence."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import postgres
from tests.slurm_sites import bare_slurm, slurm_sites

__all__ = ["bare_slurm", "postgres", "slurm_sites"]  # fixtures

pytest_plugins = ["pytester"]

IN_CI = os.environ.get("CI", "").lower() == "true"

#: Files that a complete data folder has; its README says where each comes from.
DATA_FILES = (
    "azure_llm_requests_2023_conv.csv",
    "dlrm_inference_instances.csv",
    "fr_capacity_factors_2013.csv",
    "fr_capacity_factors_2014.csv",
    "fr_capacity_factors_2016.csv",
    "gpu_power_cap_sweep.csv",
    "lublin_256.swf",
    "openb_node_list_gpu_node.csv",
    "openb_pod_list_default.csv",
    "pai_100k_jobs.csv",
)

# No deadline: the first call of a kernel compiles it. A failure prints the blob that replays it.
settings.register_profile("dev", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True)
settings.load_profile("ci" if IN_CI else "dev")


@pytest.fixture(scope="session")
def watteau_data() -> Path:
    """The folder of public traces that WATTEAU_DATA names; skips, and says why, where there is none."""
    named = os.environ.get("WATTEAU_DATA")
    if not named:
        pytest.skip("WATTEAU_DATA is not set: it names the folder of public traces")
    folder = Path(named).resolve()  # a test may change the working directory
    missing = [name for name in DATA_FILES if not (folder / name).is_file()]
    if missing:
        pytest.skip(f"WATTEAU_DATA lacks {', '.join(missing)}")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a skipped test is a failure, and so is one known to fail: green means that all ran."""
    report = yield
    if os.environ.get("CI", "").lower() == "true" and report.skipped:
        reason = vars(report).pop("wasxfail", None) or _skip_reason(report)
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, which CI does not allow: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole module that is skipped while it is collected, for example by `importorskip`."""
    report = yield
    if os.environ.get("CI", "").lower() == "true" and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, which CI does not allow: {_skip_reason(report)}"
    return report


def _skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
