"""`watteau bench slurm`: it measures what it says, on clusters of its own, and leaves nothing behind."""

import json
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.slurm_sites import find_testbed
from watteau.cli.main import app
from watteau.up import bench_slurm


def run(*arguments: object) -> Result:
    words = ["bench", "slurm", *(str(argument) for argument in arguments)]
    result = CliRunner(env={"COLUMNS": "250"}).invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_testbed_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = run("--testbed", tmp_path / "nothing")
    assert result.exit_code == 2
    assert "not a program" in result.output
    assert "the testbed that starts Slurm clusters" in result.output


@pytest.mark.slow
def test_a_small_site_is_measured_and_put_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder whose parents are open to the users that the daemons run as.
    folder = Path(tempfile.mkdtemp(prefix="watteau-"))
    folder.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    # How long a watched server settles and is measured is nothing that can go wrong.
    monkeypatch.setattr(bench_slurm, "_SETTLE_S", 1.0)
    monkeypatch.setattr(bench_slurm, "_WATCH_S", 2.0)
    testbed = find_testbed()
    if testbed is None:
        pytest.skip("the testbed of Slurm clusters is not here: ../shared/slurm/slurm-sites, or WATTEAU_SLURM_SITES")
    out = tmp_path / "bench.json"
    sizes = ("--jobs", 10, "--runs", 5, "--seconds", 1, "--queue", 40, "--nodes", 12)
    result = run("--testbed", testbed, *sizes, "--out", out)
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    for way in ("rest", "commands"):
        assert (figures["watch"][way]["jobs_seen"], figures["watch"][way]["nodes_seen"]) == (40, 12)
        assert figures["through"][f"watteau_by_{way}_s"] > 0
        assert figures["through_longer"][f"watteau_by_{way}_s"] > 0
        assert figures["latency"][f"watteau_by_{way}_ms"]["median"] > 0
    for row in ("10 jobs that do nothing, by rest", "10 jobs of 1 s, by commands", "one look at 40 jobs, 12 nodes"):
        assert row in result.output
    folder.rmdir()  # empty
