"""Real clusters by both ways, slurmrestd and commands: what they say, what they do, and how they fail."""

import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.engines.kits import now_ms
from tests.slurm.proxy import Mood, Proxy
from tests.slurm_sites import SlurmSites
from watteau.domain.fleet import SlurmAccess
from watteau.domain.sites import Held
from watteau.engines.contract import EngineUnreachable, LaunchRefused, NoAccounting
from watteau.engines.slurm.commands import CommandSlurm
from watteau.engines.slurm.facts import InDoubt, Slurm, SlurmJob, Submission, TokenRefused
from watteau.engines.slurm.reach import reach
from watteau.engines.slurm.rest import RestSlurm

pytestmark = pytest.mark.slow

SITE = "paris"
_PATIENCE_S = 60.0


def access(sites: SlurmSites, way: str, site: str = SITE, **changes: object) -> SlurmAccess:
    """How a site is reached by one way."""
    known: dict[str, object] = {"user": sites.user, "folder": str(sites.shared_folder(f"{site}-reach"))}
    if way == "rest":
        known |= {"rest_url": sites.rest_url(site), "token_command": sites.token_command(site)}
        known |= {"folder_here": known["folder"]}
    else:
        known |= {"command_prefix": sites.command_prefix(site)}
    return SlurmAccess(**(known | changes))  # type: ignore[arg-type]


@pytest.fixture(params=["rest", "commands"])
def way(request: pytest.FixtureRequest) -> str:
    named: str = request.param
    return named


@pytest.fixture
def slurm(slurm_sites: SlurmSites, way: str) -> Iterator[Slurm]:
    found = reach(access(slurm_sites, way), now_ms)
    yield found
    found.close()


@pytest.fixture
def both(slurm_sites: SlurmSites) -> Iterator[tuple[Slurm, Slurm]]:
    found = reach(access(slurm_sites, "rest"), now_ms), reach(access(slurm_sites, "commands"), now_ms)
    yield found
    for each in found:
        each.close()


@pytest.fixture
def give(slurm_sites: SlurmSites) -> Callable[..., Submission]:
    """A small job with a name of its own; anything may be said differently."""

    def submission(script: str = "exit 0", **changes: object) -> Submission:
        folder = slurm_sites.shared_folder(f"{SITE}-reach")
        name = f"watteau-{secrets.randbelow(10**9)}-1"
        known: dict[str, object] = {
            "name": name,
            "script": f"#!/bin/sh\n{script}\n",
            "comment": "a comment",
            "folder": "/tmp",
            "stdout": f"{folder}/{name}.out",
            "stderr": "",
            "environment": {"PATH": "/usr/bin:/bin"},
            "nodes": 1,
            "cpus_per_node": 1,
            "gpus_per_node": 0,
            "gpu_type": "",
            "constraint": "",
            "memory_mib_per_node": 0,
            "time_limit_s": 600,
            "partition": "",
            "account": "",
            "qos": "",
            "node_names": (),
            "grace_s": 5,
        }
        return Submission(**(known | changes))  # type: ignore[arg-type]

    return submission


def until(slurm: Slurm, job_id: int, *states: str) -> SlurmJob:
    """A job as soon as it is in one of these states."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        job = slurm.job(job_id)
        if job is not None and job.state in states and "COMPLETING" not in job.flags:
            return job
        assert time.monotonic() < deadline, f"{job_id} is not {states}, but {job}"
        time.sleep(0.1)


def by_hand(sites: SlurmSites, *options: str) -> int:
    """A job as people give it."""
    out = sites.admin(
        SITE, "runuser", "-u", sites.user, "--", "sbatch", "--parsable", "-D", "/tmp", "-o", "/dev/null", *options
    )
    return int(out)


# ---- what is done --------------------------------------------------------------------------------------------------


def test_a_job_gets_what_was_asked_and_tells_how_it_ended(
    slurm: Slurm, give: Callable[..., Submission], slurm_sites: SlurmSites
) -> None:
    asked = give(
        "sleep 3; echo done; exit 7",
        nodes=2,
        cpus_per_node=4,
        gpus_per_node=2,
        constraint="h100",
        memory_mib_per_node=1000,
        time_limit_s=90,
        partition="low",
        comment='it\'s "a" comment\nof two lines',
    )
    job_id = slurm.submit(asked)
    job = until(slurm, job_id, "RUNNING")
    assert (job.name, job.user, job.partition, job.comment) == (asked.name, slurm_sites.user, "low", asked.comment)
    assert job.nodes == (f"{SITE}-1", f"{SITE}-2")
    assert (job.gpus, job.cpus, job.memory_mib, job.time_limit_s) == (4, 8, 2000, 120)  # minutes, rounded up
    assert job.held == tuple(Held(node, 2, 4, 1000) for node in job.nodes)
    assert job.start_s is not None
    assert job.end_s is None
    assert job.exit_code is None
    ended = until(slurm, job_id, "FAILED")
    assert (ended.exit_code, ended.signal, ended.reason) == (7, None, "NonZeroExitCode")
    assert ended.end_s is not None
    assert ended.end_s >= job.start_s >= job.submit_s
    assert ended.nodes == job.nodes
    assert slurm.read_file(asked.stdout, 0, 100) == b"done\n"
    assert slurm.read_file(asked.stdout, 2, 2) == b"ne"
    assert slurm.read_file(asked.stdout, 100, 100) == b""
    assert slurm.version.startswith("Slurm 2")


def test_a_signal_is_not_an_exit_code(slurm: Slurm, give: Callable[..., Submission]) -> None:
    job = until(slurm, slurm.submit(give("kill -9 $$")), "FAILED")
    assert (job.exit_code, job.signal) == (None, 9)


def test_the_environment_is_the_one_that_was_given(slurm: Slurm, give: Callable[..., Submission]) -> None:
    odd = " a'b\"c$PATH,d=e\\;#\tü"
    asked = give('printf "%s|" "$ODD"; env | cut -d= -f1 | sort | tr "\\n" " "')
    asked = replace(asked, environment={**asked.environment, "ODD": odd})
    until(slurm, slurm.submit(asked), "COMPLETED")
    said, _, names = slurm.read_file(asked.stdout, 0, 10_000).decode().partition("|")
    assert said == odd
    own = {name for name in names.split() if not name.startswith(("SLURM", "ENVIRONMENT", "HOSTNAME", "TMPDIR"))}
    assert own <= {"ODD", "PATH", "PWD", "CUDA_VISIBLE_DEVICES"}


def test_directives_in_the_script_change_nothing(slurm: Slurm, give: Callable[..., Submission]) -> None:
    asked = give("#SBATCH --job-name=other --hold\n#SBATCH --array=1-3\n\nexit 3")
    job = until(slurm, slurm.submit(asked), "FAILED")
    assert (job.name, job.array_job_id, job.exit_code) == (asked.name, 0, 3)


def test_many_are_given_at_once_and_one_refused_among_them_harms_no_other(
    slurm: Slurm, give: Callable[..., Submission]
) -> None:
    asked = [give(f"exit {number}") for number in range(40)]
    asked[17] = replace(asked[17], partition="nowhere")
    given = slurm.submit_all(asked)
    assert isinstance(given[17], LaunchRefused)
    jobs = {job.job_id: job for job in (slurm.jobs() or pytest.fail("a listing")).jobs}
    for number, each in enumerate(given):
        if number != 17:
            assert isinstance(each, int)
            assert jobs[each].name == asked[number].name
    assert len({each for each in given if isinstance(each, int)}) == 39
    assert slurm.submit_all([]) == []


def test_what_waits_and_what_runs_is_cancelled_and_what_ended_is_left_alone(
    slurm: Slurm, give: Callable[..., Submission]
) -> None:
    runs = slurm.submit(give("sleep 600"))
    until(slurm, runs, "RUNNING")
    waits = slurm.submit(give("sleep 600", partition="low", nodes=2, gpus_per_node=8, cpus_per_node=64))
    for job_id in (runs, waits):
        slurm.cancel(job_id)
    job = until(slurm, runs, "CANCELLED")
    assert job.exit_code in (None, 143)  # a shell whose child is ended may have time for a word of its own
    never = until(slurm, waits, "CANCELLED")
    assert (never.nodes, never.start_s, never.held, never.exit_code) == ((), None, (), None)
    assert never.end_s is not None
    slurm.cancel(runs)
    slurm.cancel(9_999_999)
    assert slurm.job(9_999_999) is None


def test_nodes_can_be_named_by_commands_and_not_by_slurmrestd(
    both: tuple[Slurm, Slurm], give: Callable[..., Submission]
) -> None:
    rest, commands = both
    assert (rest.can_name_nodes, commands.can_name_nodes) == (False, True)
    job_id = commands.submit(give("sleep 1", node_names=(f"{SITE}-2",)))
    assert until(commands, job_id, "COMPLETED").nodes == (f"{SITE}-2",)


# ---- what is said --------------------------------------------------------------------------------------------------


def test_both_ways_say_the_same(
    both: tuple[Slurm, Slurm], slurm_sites: SlurmSites, give: Callable[..., Submission]
) -> None:
    rest, commands = both
    node = f"{SITE}-2"
    ids = [
        by_hand(slurm_sites, "--array=3-9%1", "--gres=gpu:1", "-J", "an array", "--wrap", "sleep 600"),
        by_hand(slurm_sites, "--hold", "-n", "3", "--gpus=3", "--wrap", "sleep 600"),
        by_hand(
            slurm_sites, "-t", "1-02:03", "-N2", "--mem=3G", "-J", "a b|c=d\ne", "--comment", "x,y", "--wrap", "id"
        ),
        by_hand(slurm_sites, "--begin=now+1hour", "-t", "UNLIMITED", "--wrap", "id"),
    ]
    slurm_sites.admin(SITE, "scontrol", "update", f"nodename={node}", "state=drain", "reason=bad fan, a b=c")
    slurm_sites.admin(
        *(SITE, "scontrol", "create", "reservation", "ReservationName=kept", "StartTime=now+1hour", "Duration=10"),
        *(f"Nodes={node}", "Flags=MAINT", f"User=root,{slurm_sites.user}"),
    )
    try:
        until(rest, rest.submit(give("exit 4", gpus_per_node=1)), "FAILED")
        time.sleep(1)
        first, second = rest.jobs(), commands.jobs()
        assert first is not None
        assert second is not None
        theirs = {job.job_id: job for job in second.jobs}
        assert [job.job_id for job in first.jobs if job.job_id not in theirs] == []
        for job in first.jobs:
            assert _as_dict(job) == _as_dict(theirs[job.job_id])
        assert abs(first.as_of_s - time.time()) < 10
        assert rest.nodes() == commands.nodes()
        assert rest.partitions() == commands.partitions()
        assert rest.reservations() == commands.reservations()
        assert [each.name for each in rest.reservations()] == ["kept"]
        found = next(each for each in rest.nodes() if each.name == node)
        assert found.reason == "bad fan, a b=c"
        assert "DRAIN" in found.flags
        assert (found.cpus, found.memory_mib, found.gpus, found.features) == (64, 2**20, (("", 8),), ("h100", SITE))
        rests = [job for job in first.jobs if job.array_job_id == ids[0] and job.array_rest]
        assert sum(job.tasks for job in first.jobs if job.array_job_id == ids[0]) == 7
        assert rests[0].label == f"{ids[0]}_[{rests[0].array_rest}]"
        by_id = {job.job_id: job for job in first.jobs}
        assert (by_id[ids[1]].gpus, by_id[ids[1]].reason) == (3, "JobHeldUser")
        assert (by_id[ids[2]].name, by_id[ids[2]].time_limit_s) == ("a b|c=d\ne", 93_780)
        assert (by_id[ids[3]].reason, by_id[ids[3]].time_limit_s) == ("BeginTime", 0)
    finally:
        slurm_sites.admin(SITE, "scontrol", "update", f"nodename={node}", "state=resume")
        slurm_sites.admin(SITE, "scontrol", "delete", "reservation=kept")
        slurm_sites.admin(SITE, "scancel", *map(str, ids))


def _as_dict(job: SlurmJob) -> dict[str, object]:
    # Commands do not say how a job's CPUs lie on its nodes: they are spread evenly then.
    return {each.name: getattr(job, each.name) for each in fields(job) if each.name != "held"}


def test_slurmrestd_says_what_a_job_has_of_each_node(both: tuple[Slurm, Slurm], slurm_sites: SlurmSites) -> None:
    job_id = by_hand(slurm_sites, "-N2", "-n", "10", "-c1", "-m", "pack", "--gres=gpu:1", "--wrap", "sleep 600")
    job = until(both[0], job_id, "RUNNING")
    assert sorted(each.cpus for each in job.held) == [1, 9]
    assert [each.gpus for each in job.held] == [1, 1]
    assert sum(each.cpus for each in until(both[1], job_id, "RUNNING").held) == 10
    both[0].cancel(job_id)


def test_a_quiet_cluster_is_not_listed_again(both: tuple[Slurm, Slurm], give: Callable[..., Submission]) -> None:
    rest = both[0]
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        listing = rest.jobs()
        assert listing is not None
        time.sleep(2)
        if rest.jobs(listing) is None:
            break
        assert time.monotonic() < deadline, "it is never quiet"
    job_id = rest.submit(give("exit 0"))
    again = rest.jobs(listing)
    assert again is not None
    assert job_id in {job.job_id for job in again.jobs}


def test_looking_changes_nothing_at_the_site(slurm_sites: SlurmSites) -> None:
    proxy = Proxy(slurm_sites.rest_port(SITE))
    slurm = reach(access(slurm_sites, "rest", rest_url=proxy.url), now_ms)
    listing = slurm.jobs()
    slurm.jobs(listing)
    slurm.job(1)
    slurm.nodes()
    slurm.partitions()
    slurm.reservations()
    slurm.accounting(["watteau-1-1"], 0)
    list(slurm.history(int(time.time()) - 3_600, int(time.time())))
    slurm.close()
    proxy.close()
    assert {line.split()[0] for line in proxy.requests} == {"GET"}


# ---- what was ------------------------------------------------------------------------------------------------------


def test_the_accounting_knows_our_jobs_by_their_names(
    slurm: Slurm, way: str, give: Callable[..., Submission], slurm_sites: SlurmSites
) -> None:
    begun = int(time.time()) - 1
    asked = [give("exit 5"), give("exit 0"), give("sleep 600")]
    ids = [slurm.submit(each) for each in asked]
    until(slurm, ids[0], "FAILED")
    until(slurm, ids[1], "COMPLETED")
    until(slurm, ids[2], "RUNNING")
    deadline = time.monotonic() + _PATIENCE_S
    while True:  # slurmctld tells slurmdbd a moment later
        found = {job.job_id: job for job in slurm.accounting([each.name for each in asked], begun)}
        if [found[each].state for each in ids if each in found] == ["FAILED", "COMPLETED", "RUNNING"]:
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    assert [found[each].name for each in ids] == [each.name for each in asked]
    # slurmdbd by API v0.0.38 says 0 of every job, which is not repeated here.
    assert found[ids[0]].exit_code == (None if way == "rest" else 5)
    assert found[ids[1]].exit_code == 0
    assert found[ids[2]].end_s is None
    assert found[ids[0]].user == slurm_sites.user
    assert slurm.accounting(["watteau-0-0"], begun) == []
    assert slurm.accounting([asked[0].name], begun + 3_600) == []
    slurm.cancel(ids[2])


def test_a_job_that_was_put_back_into_the_queue_is_one_job(slurm: Slurm, slurm_sites: SlurmSites) -> None:
    name = f"again-{secrets.token_hex(4)}"
    begun = int(time.time()) - 1
    job_id = by_hand(slurm_sites, "-J", name, "--requeue", "--wrap", "sleep 600")
    until(slurm, job_id, "RUNNING")
    slurm_sites.admin(SITE, "scontrol", "requeue", str(job_id))
    job = until(slurm, job_id, "PENDING")
    assert (job.restarts, job.start_s, job.nodes, job.held) == (1, None, (), ())
    deadline = time.monotonic() + _PATIENCE_S
    while [each.restarts for each in slurm.accounting([name], begun)] != [1]:
        assert time.monotonic() < deadline, slurm.accounting([name], begun)
        time.sleep(0.2)
    slurm.cancel(job_id)


def test_history_has_each_job_once(both: tuple[Slurm, Slurm], give: Callable[..., Submission]) -> None:
    begun = int(time.time())
    ids = [each for each in both[1].submit_all([give("exit 1") for _ in range(20)]) if isinstance(each, int)]
    for job_id in ids:
        until(both[1], job_id, "FAILED")
    until_s = int(time.time()) + 1
    deadline = time.monotonic() + _PATIENCE_S
    for slurm in both:
        while True:
            found = [job for job in slurm.history(begun - 40 * 86_400, until_s) if job.job_id in ids]
            if sorted(job.job_id for job in found if job.state == "FAILED") == sorted(ids):
                break
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        assert len(found) == len(ids)
        assert [job for job in slurm.history(begun - 40 * 86_400, begun - 86_400) if job.job_id in ids] == []


def test_a_site_without_accounting_says_so(bare_slurm: SlurmSites, way: str) -> None:
    slurm = reach(access(bare_slurm, way, "lonely"), now_ms)
    with pytest.raises(NoAccounting, match="without slurmdbd"):
        slurm.accounting(["watteau-1-1"], 0)
    with pytest.raises(NoAccounting, match="without slurmdbd"):
        next(slurm.history(int(time.time()) - 60, int(time.time())))
    # Without accounting Slurm does not count GPUs as resources; they are known all the same.
    listed = slurm.jobs()
    assert listed is not None
    slurm.close()


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"partition": "nowhere"}, r"Invalid partition name specified \(2000\); there is no partition 'nowhere'"),
        ({"gpus_per_node": 9}, r"\(2014\); no node here can ever give 9 GPU\(s\), 1 CPU\(s\) on each of 1 node"),
        ({"gpus_per_node": 1, "gpu_type": "v100"}, r"no node here can ever give 1 v100 GPU\(s\)"),
        ({"memory_mib_per_node": 10**8}, r"no node here can ever give 1 CPU\(s\), 100000000 MiB"),
        ({"nodes": 3}, r"Node count specification invalid \(2006\); 3 nodes are more or fewer"),
        ({"constraint": "v100"}, r"Invalid feature specification \(2029\); no node has the feature 'v100'"),
        ({"account": "nobody"}, r"may not charge account 'nobody' here: correct `account` in the site's table"),
        ({"qos": "best"}, r"may not use QOS 'best'"),
        ({"comment": "x" * 1_100}, r"\(2012\); shorten the paths, the name or the comment"),
    ],
)
def test_a_refusal_says_why_in_words_and_what_to_do(
    slurm: Slurm, give: Callable[..., Submission], changes: dict[str, object], says: str
) -> None:
    with pytest.raises(LaunchRefused, match=says):
        slurm.submit(give(**changes))
    job = until(slurm, slurm.submit(give()), "COMPLETED")
    assert job.exit_code == 0, "the next one is none the worse for it"


# ---- what breaks ---------------------------------------------------------------------------------------------------


def test_without_slurmctld_nothing_is_known_and_nothing_is_lost(
    slurm: Slurm, give: Callable[..., Submission], slurm_sites: SlurmSites
) -> None:
    job_id = slurm.submit(give("exit 6"))
    until(slurm, job_id, "FAILED")
    time.sleep(6)  # what slurmctld was told a moment ago, it forgets when it is killed
    slurm_sites.kill(SITE, hard=True)
    try:
        with pytest.raises(EngineUnreachable):
            slurm.jobs()
        # Certain: it could not even be connected.
        with pytest.raises(EngineUnreachable, match=r"Unable to contact slurm controller \(connect failure\)"):
            slurm.submit(give())
        with pytest.raises(EngineUnreachable):
            slurm.cancel(job_id)
    finally:
        slurm_sites.start(SITE)
    job = slurm.job(job_id)
    assert job is not None
    assert (job.state, job.exit_code) == ("FAILED", 6)


def test_slurmrestd_that_is_away_hangs_or_fails_is_no_answer(
    slurm_sites: SlurmSites, give: Callable[..., Submission]
) -> None:
    proxy = Proxy(slurm_sites.rest_port(SITE))
    slurm = RestSlurm(access(slurm_sites, "rest", rest_url=proxy.url), now_ms, read_s=1.0)
    assert slurm.jobs() is not None
    for mood in (Mood.ERROR, Mood.HANG):
        proxy.be(mood)
        with pytest.raises(EngineUnreachable, match=r"no whole answer|500"):
            slurm.nodes()
        with pytest.raises(InDoubt):
            slurm.submit(give())
        with pytest.raises(EngineUnreachable):
            slurm.cancel(1)
    proxy.be(Mood.CUT)
    asked = give("exit 0")
    with pytest.raises(InDoubt):
        slurm.submit(asked)
    proxy.be(Mood.PASS)
    listing = slurm.jobs()
    assert listing is not None
    assert [job.name for job in listing.jobs].count(asked.name) == 1, "it was submitted, though nobody was told"
    proxy.close()
    slurm.close()


def test_slurmrestd_may_be_restarted_between_two_questions(
    slurm_sites: SlurmSites, give: Callable[..., Submission]
) -> None:
    slurm = reach(access(slurm_sites, "rest"), now_ms)
    slurm.nodes()
    slurm_sites.kill(SITE, "rest")
    with pytest.raises(EngineUnreachable, match="nobody answers there"):
        slurm.nodes()
    with pytest.raises(EngineUnreachable, match="nobody answers there"):
        slurm.submit(give())
    slurm_sites.start(SITE, "rest")
    assert until(slurm, slurm.submit(give()), "COMPLETED")
    slurm.close()


# ---- tokens --------------------------------------------------------------------------------------------------------


def _with_file(sites: SlurmSites, folder: Path, token: str) -> tuple[Slurm, Path]:
    file = folder / "token"
    file.write_text(token)
    return reach(access(sites, "rest", token_command=(), token_file=str(file)), now_ms), file


@pytest.mark.parametrize("kind", ["another site's", "expired", "nonsense", "another user's"])
def test_a_wrong_token_is_called_wrong(
    slurm_sites: SlurmSites, tmp_path: Path, give: Callable[..., Submission], kind: str
) -> None:
    token, why = {
        "another site's": (slurm_sites.token("marseille"), "of another cluster"),
        "expired": (slurm_sites.token(SITE, lifespan_s=-60), "it ended at 20"),
        "nonsense": ("abc.def.ghi", "of another cluster"),
        "another user's": (slurm_sites.token(SITE, user="nobody"), f"for user 'nobody'.*user = '{slurm_sites.user}'"),
    }[kind]
    slurm, file = _with_file(slurm_sites, tmp_path, token)
    for ask in (slurm.jobs, slurm.nodes, lambda: slurm.submit(give()), lambda: slurm.cancel(1)):
        with pytest.raises(TokenRefused, match=f"does not accept the token from token_file .*{why}.*scontrol token"):
            ask()
    # As soon as a good one is in its place, all is well.
    file.write_text(slurm_sites.token(SITE) + "\n")
    assert until(slurm, slurm.submit(give()), "COMPLETED")
    slurm.close()


def test_a_file_that_is_not_there_or_says_nothing_is_named(slurm_sites: SlurmSites, tmp_path: Path) -> None:
    slurm, file = _with_file(slurm_sites, tmp_path, " \n")
    with pytest.raises(TokenRefused, match=r"gives no token: expected one word"):
        slurm.nodes()
    file.unlink()
    with pytest.raises(TokenRefused, match=r"token_file \S+token cannot be read: No such file"):
        slurm.nodes()
    slurm.close()


def test_a_command_that_gives_no_token_is_named(slurm_sites: SlurmSites) -> None:
    for command, says in (
        (("no-such-program",), "there is no program 'no-such-program' here"),
        (("sh", "-c", "echo sorry >&2; exit 3"), "failed with 3: sorry"),
        (("true",), "gives no token"),
    ):
        slurm = reach(access(slurm_sites, "rest", token_command=command), now_ms)
        with pytest.raises(TokenRefused, match=says):
            slurm.nodes()
        slurm.close()


def test_tokens_of_a_few_seconds_are_renewed_before_they_end(slurm_sites: SlurmSites, tmp_path: Path) -> None:
    count = tmp_path / "count"
    program = tmp_path / "token"
    command = " ".join(slurm_sites.token_command(SITE, lifespan_s=4))
    program.write_text(f"#!/bin/sh\necho x >> {count}\nprintf SLURM_JWT=\nexec {command}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    proxy = Proxy(slurm_sites.rest_port(SITE))
    slurm = reach(access(slurm_sites, "rest", token_command=(str(program),), rest_url=proxy.url), now_ms)
    deadline = time.monotonic() + 9
    asked = 0
    while time.monotonic() < deadline:
        slurm.partitions()
        asked += 1
        time.sleep(0.05)
    renewed = len(count.read_text().split())
    assert 3 <= renewed <= 5
    # None was refused: each question was asked once (and once what the API speaks).
    assert len([line for line in proxy.requests if "/partitions" in line]) == asked
    slurm.close()
    proxy.close()


# ---- prefixes ------------------------------------------------------------------------------------------------------


def _program(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def test_a_prefix_that_joins_its_words_for_a_shell_changes_no_word(
    slurm_sites: SlurmSites, tmp_path: Path, give: Callable[..., Submission]
) -> None:
    """As ssh does."""
    ssh = _program(tmp_path, "ssh", 'shift; exec sh -c "$*"')
    slurm = reach(
        access(slurm_sites, "commands", command_prefix=(ssh, "login1", *slurm_sites.command_prefix(SITE))), now_ms
    )
    asked = give("echo ok", comment="$(id) `id` 'a' \"b\" \\ *")
    job = until(slurm, slurm.submit(asked), "COMPLETED")
    assert job.comment == asked.comment
    assert slurm.read_file(asked.stdout, 0, 10) == b"ok\n"
    slurm.close()


def test_a_connection_that_is_cut_leaves_only_what_was_sent_in_doubt(
    slurm_sites: SlurmSites, tmp_path: Path, give: Callable[..., Submission]
) -> None:
    """The shell's answers end after some bytes, as when a network goes away."""
    words: Sequence[str] = slurm_sites.command_prefix(SITE)
    cut = _program(tmp_path, "cut", f'{" ".join(words)} "$@" | dd bs=1 count=150 2>/dev/null')
    slurm = CommandSlurm(access(slurm_sites, "commands", command_prefix=(cut,)))
    asked = [give() for _ in range(6)]
    given = slurm.submit_all(asked)
    assert isinstance(given[0], int)
    assert isinstance(given[-1], InDoubt)
    assert all(isinstance(each, int | InDoubt) for each in given)
    with pytest.raises(EngineUnreachable, match="no whole answer"):
        slurm.jobs()
    slurm.close()


def test_a_prefix_that_does_not_answer_is_given_up(
    slurm_sites: SlurmSites, tmp_path: Path, give: Callable[..., Submission]
) -> None:
    for prefix, says in (
        (("no-such-program",), "cannot be started"),
        ((_program(tmp_path, "refuses", "echo Permission denied >&2; exit 255"),), "Permission denied"),
        ((_program(tmp_path, "hangs", "exec sleep 600"),), "no answer within 1 s"),
        ((_program(tmp_path, "empty", "PATH=/nonexistent; exec /bin/sh"),), "not there|no sbatch|not found"),
    ):
        slurm = CommandSlurm(access(slurm_sites, "commands", command_prefix=prefix), patience_s=1.0)
        with pytest.raises(EngineUnreachable, match=says):
            slurm.nodes()
        # Nothing was sent to anybody, so nothing is in doubt.
        with pytest.raises(EngineUnreachable):
            slurm.submit(give())
        slurm.close()


def test_files_are_read_only_where_they_may_be(
    slurm_sites: SlurmSites, tmp_path: Path, give: Callable[..., Submission]
) -> None:
    folder = slurm_sites.shared_folder(f"{SITE}-reach")
    secret = tmp_path / "secret"
    secret.write_text("of somebody else")
    link = folder / f"link-{secrets.token_hex(4)}"
    link.symlink_to(secret)
    rest = reach(access(slurm_sites, "rest"), now_ms)
    with pytest.raises(FileNotFoundError, match="leads out of"):
        rest.read_file(str(link), 0, 100)
    with pytest.raises(FileNotFoundError, match="does not lie in"):
        rest.read_file("/etc/hostname", 0, 100)
    blind = reach(access(slurm_sites, "rest", folder_here=""), now_ms)
    with pytest.raises(FileNotFoundError, match="give folder_here in the site's table"):
        blind.read_file(f"{folder}/x", 0, 100)
    commands = reach(access(slurm_sites, "commands"), now_ms)
    for slurm in (rest, commands):
        with pytest.raises(FileNotFoundError):
            slurm.read_file(f"{folder}/no such file", 0, 100)
        with pytest.raises(FileNotFoundError):
            slurm.read_file(str(folder), 0, 100)
