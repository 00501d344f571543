"""`watteau shadow`: what a person and a script get, from a database as a server leaves it."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.simulation.test_shadow import POOL, SITE, as_site_jobs, fleet, nodes, workload
from watteau.cli.main import app
from watteau.domain.policy import POLICIES
from watteau.domain.requests import JobState
from watteau.domain.sites import ShadowDecision, SiteJob
from watteau.domain.units import DAY_S, HOUR_S, from_epoch_s
from watteau.runtime.clock import Clock
from watteau.simulation.replay import replay
from watteau.simulation.results import outlook_of
from watteau.store.store import Store

FLEET = f"""
name = "test"

[[sites]]
id = "hub"
name = "The hub <b>&"
latitude = 48.7
longitude = 2.2
power_limit_kw = 100_000
pue = 1.2
engine = "slurm"
mode = "shadow"

[sites.slurm]
user = "watteau"
folder = "/shared/watteau"
rest_url = "http://127.0.0.1:1"
token_file = "/nowhere"

[[sites.pools]]
id = "p"
gpu_model = "h100"
gpus_per_node = {POOL.gpus_per_node}
cpu_cores = {POOL.cpu_cores}
memory_gib = {POOL.memory_gib}
mig_capable = false
node_idle_w = {POOL.node_idle_w}
node_typical_w = {POOL.node_typical_w}
node_max_w = {POOL.node_max_w}
nodes_per_block = {POOL.nodes_per_block}

[[sites.phases]]
name = "all"
opens = 2020-01-01
nodes = {{ p = 4 }}

[[contracts]]
id = "sun"
technology = "solar"
capacity_mw = 0.05
price_eur_per_mwh = 50.0
start = 2020-01-01
end = 2040-01-01

[[tenants]]
id = "root"
name = "root"

[[tenants]]
id = "alice"
name = "alice"
parent = "root"

[[tenants]]
id = "bob"
name = "bob"
parent = "root"

[[tenants]]
id = "carol"
name = "carol"
parent = "root"
"""


@dataclass(frozen=True)
class Kept:
    folder: Path
    jobs: list[SiteJob]
    zero_s: int

    @property
    def fleet(self) -> Path:
        return self.folder / "fleet.toml"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Five days of a site that starts jobs strictly in their order, the last of them still running or waiting."""
    folder = tmp_path_factory.mktemp("data")
    now_ms = Clock().now_ms()
    zero_s = (now_ms // 1_000 - 5 * DAY_S) // HOUR_S * HOUR_S
    on = fleet()
    happened = replay(
        on, workload(9, 6, 0.9), POLICIES["fifo"], zero_s=zero_s, outlook=outlook_of(on, zero_s, 24 * 60, 0)
    )
    # Seen up to the last full hour: what arrives in the one that has begun is not in a report by the hour.
    jobs = as_site_jobs(happened, now_ms // 1_000 // HOUR_S * HOUR_S)
    jobs[0] = replace(jobs[0], user="zoe\x1b[31m")
    store = Store(f"sqlite:///{folder}/watteau.db")
    lease = store.lead("test", now_ms, 60_000)
    assert lease is not None
    store.keep_nodes(lease, SITE, nodes())
    store.keep_site_jobs(lease, jobs)
    store.keep_shadow(
        lease,
        [ShadowDecision(SITE, job.engine_id, job.submitted_ms, job.submitted_ms + 2_000, ("gpu1",)) for job in jobs],
    )
    (folder / "fleet.toml").write_text(FLEET, encoding="utf-8")
    return Kept(folder, jobs, zero_s)


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["shadow", *(str(argument) for argument in arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def report_of(kept: Kept, *arguments: object) -> dict[str, Any]:
    result = run("report", "hub", "--fleet", kept.fleet, "--data-dir", kept.folder, *arguments, "--json")
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def test_the_report_compares_the_site_with_the_policy_that_is_asked_for(kept: Kept) -> None:
    same = report_of(kept, "--policy", "fifo", "--since", f"uts{kept.zero_s}")
    started = [job for job in kept.jobs if job.started_ms is not None]
    assert same["jobs"] == len(started)
    assert same["agreement"]["jobs"] == len(kept.jobs)
    other = report_of(kept, "--since", f"uts{kept.zero_s}")
    assert other["policy"] == "hybrid"
    assert other["figures"]["wait_mean_s"]["difference"]["value"] < -60
    assert other["supply_synthetic"] is True
    keys = {"wait_mean_s", "wait_p50_s", "wait_p90_s", "wait_p99_s", "bounded_slowdown_mean", "fairness_users"}
    assert {*keys, "fairness_tenants", "utilisation", "renewable_share", "energy_kwh"} == set(other["figures"])
    assert report_of(kept, "--since", f"uts{kept.zero_s}", "--seed", 3)["figures"]["energy_kwh"] is not None


def test_a_person_reads_a_sentence_a_table_and_what_was_left_out(kept: Kept, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = run("report", "hub", "--fleet", kept.fleet, "--data-dir", kept.folder, "--out", page)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Had Watteau driven The hub <b>& from")
    for said in ("Wait, mean", "GPUs held", "Live decisions: Of", "with their limit as run time", "(synthetic)"):
        assert said in " ".join(result.stdout.split())
    written = page.read_text(encoding="utf-8")
    assert "The hub &lt;b&gt;&amp;" in written
    assert "<b>&" not in written
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", written)


def test_the_list_shows_decisions_beside_what_the_site_did(kept: Kept) -> None:
    result = run("list", "hub", "--data-dir", kept.folder, "--limit", 10_000, "--json")
    assert result.exit_code == 0, result.output
    rows = {row["job"]: row for row in json.loads(result.stdout)}
    assert len(rows) == len(kept.jobs)
    for job in kept.jobs:
        row = rows[job.engine_id]
        assert (row["started_ms"], row["state"]) == (job.started_ms, job.state.value)
        assert row["decided_nodes"] == ["gpu1"]
    shown = run("list", "hub", "--data-dir", kept.folder, "--limit", 3).stdout.splitlines()
    assert len(shown) == 4
    assert shown[0].split("\t")[:4] == ["JOB", "USER", "SUBMITTED", "WATTEAU"]
    assert "\x1b" not in run("list", "hub", "--data-dir", kept.folder, "--limit", 10_000).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "no site 'nowhere'; expected one of hub"),
        (("hub", "--since", "yesterday's"), "--since"),
        (("hub", "--since", "now", "--until", "now-1days"), "is not before"),
        (("hub", "--until", "2021-01-02", "--since", "2021-01-01"), "no job that became eligible"),
        (("hub", "--db", "sqlite:////nowhere/watteau.db"), "no such file; expected the database of a server"),
        (("hub", "--out", "/nowhere/report.html"), "report.html"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_exit_code_2(kept: Kept, arguments: tuple[str, ...], said: str) -> None:
    result = run("report", *arguments, "--fleet", kept.fleet, "--data-dir", kept.folder)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stdout == ""


def test_a_site_without_decisions_says_so(kept: Kept) -> None:
    result = run("list", "elsewhere", "--data-dir", kept.folder)
    assert result.exit_code == 0
    assert "no decision in shadow at elsewhere" in result.stderr


def test_the_jobs_of_the_fixture_are_of_every_kind(kept: Kept) -> None:
    states = {job.state for job in kept.jobs}
    assert {JobState.COMPLETED, JobState.RUNNING, JobState.WAITING} <= states, f"from {from_epoch_s(kept.zero_s)}"
