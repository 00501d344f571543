"""A site that is only observed, on a real cluster: its jobs and nodes are seen, and nothing that changes it leaves."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.kits import eventually, launch, now_ms
from tests.slurm.proxy import Proxy
from tests.slurm_sites import SlurmSites
from watteau.domain.fleet import SlurmAccess
from watteau.domain.requests import JobState, Outcome
from watteau.domain.sites import SiteJob
from watteau.domain.units import SiteId, TenantId
from watteau.engines.contract import EngineUnreachable, Seen, WorkerPlace
from watteau.engines.slurm.engine import SlurmEngine
from watteau.engines.slurm.marks import folder_of
from watteau.engines.slurm.reach import reach

pytestmark = pytest.mark.slow

SITE = "paris"


class Observed:
    """An engine, and a witness of all that it says to the cluster."""

    def __init__(self, access: SlurmAccess, may_change: bool = False) -> None:
        self.engine = SlurmEngine(SiteId(SITE), access, reach(access, now_ms), now_ms, TenantId)
        self.engine.may_change = may_change
        self.jobs: dict[str, SiteJob] = {}

    def look(self) -> None:
        self.engine.leftovers(())
        if (view := self.engine.look()) is not None:
            self.jobs = {job.engine_id: job for job in view.jobs}

    def close(self) -> None:
        self.engine.close()


@pytest.fixture
def proxy(slurm_sites: SlurmSites) -> Iterator[Proxy]:
    proxy = Proxy(slurm_sites.rest_port(SITE))
    yield proxy
    proxy.close()


def by_hand(sites: SlurmSites, *options: str, script: str = "sleep 600") -> str:
    """Someone's job; its id."""
    command = ["sbatch", "--parsable", "-D", "/", "-o", "/dev/null", "-t", "20", *options, f"--wrap={script}"]
    return sites.admin(SITE, *sites.command_prefix(SITE), *command).strip()


def use_everything(observed: Observed, sites: SlurmSites, attempt_there: str) -> None:
    """Every call of an engine, at a site with jobs of all kinds: by hand, ended, arrays, and of another life."""
    job_id = by_hand(sites, "-N1", "--gres=gpu:2", "-J", "hers")
    array_id = by_hand(sites, "-J", "sweep", "--array=0-9%1")
    failed_id = by_hand(sites, script="exit 3")

    def is_seen() -> bool:
        observed.look()
        jobs = observed.jobs
        return (
            jobs.keys() >= {job_id, array_id, f"{array_id}_0", failed_id}
            and jobs[job_id].state is JobState.RUNNING
            and jobs[failed_id].state is JobState.FAILED
        )

    eventually(is_seen, "the jobs by hand are seen")
    hers, rest = observed.jobs[job_id], observed.jobs[array_id]
    assert (hers.name, hers.gpus, hers.user, [held.gpus for held in hers.held]) == ("hers", 2, sites.user, [2])
    assert (rest.tasks, observed.jobs[failed_id].exit_code) == (9, 3)
    # Attempts of other folders are other people's jobs; those of this cluster's other tests have ended.
    assert attempt_there not in {job.name for job in observed.jobs.values() if not job.state.is_end}

    engine = observed.engine
    assert [node.node for node in engine.capacity()] == [f"{SITE}-1", f"{SITE}-2"]
    assert engine.leftovers(()) == [attempt_there]
    absent, there = engine.adopt(["watteau-77-1", attempt_there])
    assert (absent.seen, there.seen) == (Seen.ABSENT, Seen.RUNNING)
    for command in (
        lambda: engine.start(launch(77, "true", places=(WorkerPlace(f"{SITE}-1", ()),))),
        lambda: engine.start_all([launch(77, "true")]),
        lambda: engine.stop("watteau-77-1", Outcome.CANCELLED),
        lambda: engine.stop(attempt_there, Outcome.CANCELLED),
    ):
        with pytest.raises(EngineUnreachable, match="does not drive it"):
            command()
    engine.read_log(attempt_there, "stdout", 0, 100)
    if sites.has_accounting:
        eventually(lambda: list(engine.history(now_ms() - 600_000, now_ms())), "the accounting has heard of them")
    observed.look()
    for each in (job_id, array_id):
        sites.admin(SITE, "scancel", each)

    def has_ended() -> bool:
        observed.look()
        return observed.jobs[job_id].state is JobState.CANCELLED

    eventually(has_ended, "her end is seen")


def an_attempt(access: SlurmAccess, job_id: int) -> str:
    """An attempt that runs there, started by a Watteau that drove the site."""
    driving = Observed(access, may_change=True)
    attempt = launch(job_id, "sleep", "600", places=(WorkerPlace(f"{SITE}-1", ()),))
    driving.engine.start(attempt)
    eventually(lambda: driving.engine.adopt([attempt.name])[0].seen is Seen.RUNNING, "it runs")
    marks = Path(folder_of(access.folder, attempt.name))
    eventually(lambda: (marks / "began").exists(), "its script has written what it writes at its start")
    driving.close()
    return attempt.name


def files_in(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_only_questions_are_put_to_slurmrestd(slurm_sites: SlurmSites, proxy: Proxy) -> None:
    folder = slurm_sites.shared_folder("observed-rest")
    access = SlurmAccess(
        user=slurm_sites.user,
        folder=str(folder),
        folder_here=str(folder),
        poll_s=0.3,
        rest_url=proxy.url,
        token_command=slurm_sites.token_command(SITE),
    )
    name = an_attempt(access, 7)
    assert any(line.startswith("POST ") for line in proxy.requests), "the witness sees what changes something"
    proxy.requests.clear()
    before = files_in(folder)
    observed = Observed(access)
    use_everything(observed, slurm_sites, name)
    observed.close()
    assert proxy.requests
    assert [line for line in proxy.requests if not line.startswith("GET ")] == []
    assert files_in(folder) == before
    slurm_sites.admin(SITE, "scancel", "-n", name)


def test_only_questions_are_put_to_slurms_commands(slurm_sites: SlurmSites, tmp_path: Path) -> None:
    folder, said = slurm_sites.shared_folder("observed-commands"), tmp_path / "said"
    real = slurm_sites.command_prefix(SITE)
    access = SlurmAccess(
        user=slurm_sites.user,
        folder=str(folder),
        poll_s=0.3,
        command_prefix=("sh", "-c", f'tee -a {shlex.quote(str(said))} | "$@"', "witness", *real),
    )
    name = an_attempt(access, 8)
    assert "sbatch" in said.read_text(), "the witness sees what changes something"
    said.write_text("")
    before = files_in(folder)
    observed = Observed(access)
    use_everything(observed, slurm_sites, name)
    observed.close()
    programs = said.read_text()
    assert "squeue" in programs
    for changes in ("sbatch", "scancel", "scontrol update", "scontrol hold", "scontrol requeue", "mkdir", "rm ", "mv "):
        assert changes not in programs
    assert files_in(folder) == before
    slurm_sites.admin(SITE, "scancel", "-n", name)
