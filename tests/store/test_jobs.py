"""Jobs as their owners see them: submitted whole or not at all, asked things of, and read back."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.store.requests import ADA, BOB, OTHER, TEAM, array, ends, intends, leading, request, site_job, submitted
from watteau.domain.decisions import Reason
from watteau.domain.records import EventKind, Starts, Waits
from watteau.domain.requests import After, Dependency, JobId, JobState, Outcome, Request
from watteau.domain.units import GPU_MILLI, SiteId, TenantId
from watteau.store.store import Conflict, IdempotencyKey, JobFilter, NotFound, Store


def test_a_job_is_read_back_as_it_was_asked_for(store: Store) -> None:
    asked = request(
        name="entraînement \N{BRAIN}",
        environment={"LANG": "C.UTF-8", "QUOTED": "'\"\\ \n"},
        estimate_s=60,
        time_limit_s=3_600,
        sites=("paris",),
        begin_s=5,
    )
    (job,) = store.submit([(asked, TEAM)], ADA, 1_234)
    assert store.job(job.job_id) == job
    assert job.request == asked
    assert (job.state, job.reason, job.tenant, job.user) == (JobState.WAITING, Reason.NONE, TEAM, "ada")
    assert (job.submitted_ms, job.started_ms, job.ended_ms, job.site, job.attempts) == (1_234, None, None, None, 0)
    assert job.label == str(job.job_id)


def test_what_is_left_out_of_a_kept_request_still_means_the_same() -> None:
    """Requests are kept without their defaults: a new default would change what old jobs asked for."""
    assert Request(command=("x",)).model_dump_json(exclude={"command"}) == (
        '{"name":"job","kind":"batch","tenant":null,"script":"","arguments":[],"workers":1,"gpu_milli":0,'
        '"cpu_milli":1000,"memory_mib":0,"gpu_models":[],"sites":[],"partition":"","topology":1,"priority":0,"time_limit_s":0,'
        '"estimate_s":0,"workdir":"","stdout":"","stderr":"","environment":{},"array":null,"dependencies":[],'
        '"dependency_mode":"all","singleton":false,"begin_s":null,"deadline_s":null,"requeue":true,"held":false}'
    )
    assert GPU_MILLI == 1_000


def test_each_job_has_its_submitted_event(store: Store) -> None:
    ids = submitted(store, 3)
    assert [(event.job_id, event.kind, event.data) for event in store.events(0, 10)] == [
        (job_id, EventKind.SUBMITTED, {"user": "ada"}) for job_id in ids
    ]
    assert store.last_seq() == 3


def test_an_array_becomes_a_job_for_each_task(store: Store) -> None:
    alone, *tasks, after = store.submit([(request(), TEAM), (array([5, 2, 9]), TEAM), (request(), OTHER)], ADA, 1)
    assert [task.label for task in tasks] == [f"{tasks[0].job_id}_{index}" for index in (5, 2, 9)]
    assert [job.array_id for job in (alone, after)] == [None, None]
    assert [store.job(task.job_id) for task in tasks] == tasks
    assert store.jobs(JobFilter(array_id=tasks[0].job_id), 10).jobs == tuple(reversed(tasks))
    assert store.story(tasks[1].job_id)[0].data == {"user": "ada", "array_id": tasks[0].job_id, "array_index": 2}


def test_ten_thousand_tasks_with_a_long_script_are_read_at_once(store: Store) -> None:
    script = "#!/bin/sh\n" + "#" * 500_000
    tasks = store.submit([(array(range(10_000), command=(), script=script), TEAM)], ADA, 1)
    _, live = store.live_jobs()
    assert sum(1 for _ in live) == len(tasks) == 10_000


def test_a_held_request_is_held_from_the_start(store: Store) -> None:
    (job,) = store.submit([(request(held=True), TEAM)], ADA, 1)
    assert (job.state, job.reason) == (JobState.HELD, Reason.STOPPED)
    assert store.job(job.job_id) == job


def test_nothing_is_submitted_when_a_dependency_names_no_job(store: Store) -> None:
    known = submitted(store)[0]
    missing = [Dependency(after=After.OK, job_id=job_id) for job_id in (known, 77, 2**62)]
    with pytest.raises(NotFound, match=f"77, {2**62}"):
        store.submit([(request(), TEAM), (request(dependencies=missing), TEAM)], ADA, 2)
    assert store.last_seq() == 1
    assert len(store.jobs(JobFilter(), 10).jobs) == 1
    on_known = request(dependencies=missing[:1])
    assert store.submit([(on_known, TEAM)], ADA, 3)[0].job_id == known + 1, "no number is lost"


def test_no_request_makes_no_job(store: Store) -> None:
    assert store.submit([], ADA, 1) == []
    assert store.last_seq() == 0


def test_a_repeated_key_gives_the_first_answer_again(store: Store) -> None:
    key = IdempotencyKey(1, "k", "digest")
    first = store.submit([(request(), TEAM), (array([1, 2]), TEAM)], ADA, 1, key)
    lease = leading(store)
    store.record(lease, [intends(first[0].job_id)], 2)
    store.ask([first[1].job_id], EventKind.HELD, ADA, 3)
    assert store.submit([(request(), TEAM), (array([1, 2]), TEAM)], ADA, 4, key) == first
    assert len(store.jobs(JobFilter(), 10).jobs) == 3


def test_a_key_is_one_users_and_for_one_request(store: Store) -> None:
    store.submit([(request(), TEAM)], ADA, 1, IdempotencyKey(1, "k", "digest"))
    with pytest.raises(Conflict):
        store.submit([(request(), TEAM)], ADA, 2, IdempotencyKey(1, "k", "other"))
    assert store.submit([(request(), TEAM)], BOB, 3, IdempotencyKey(2, "k", "other"))[0].job_id == 2


def test_one_key_from_many_threads_at_once_submits_once(store: Store) -> None:
    barrier = threading.Barrier(8)

    def submit(_: int) -> list[JobId]:
        barrier.wait()
        return [job.job_id for job in store.submit([(request(), TEAM)] * 3, ADA, 1, IdempotencyKey(1, "k", "d"))]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(submit, range(8)))
    assert answers == [[1, 2, 3]] * 8
    assert store.last_seq() == 3


def test_a_waiting_job_is_held_and_released_at_once(store: Store) -> None:
    first, second = submitted(store, 2)
    held = store.ask([second, first], EventKind.HELD, BOB, 5)
    assert [(job.job_id, job.state, job.reason) for job in held] == [
        (second, JobState.HELD, Reason.STOPPED),
        (first, JobState.HELD, Reason.STOPPED),
    ]
    (released,) = store.ask([first], EventKind.RELEASED, ADA, 6)
    assert (released.state, released.reason) == (JobState.WAITING, Reason.NONE)
    assert [(event.kind, event.at_ms, event.data) for event in store.story(first)[1:]] == [
        (EventKind.HELD, 5, {"user": "bob"}),
        (EventKind.RELEASED, 6, {"user": "ada"}),
    ]
    assert [(line.user, line.action, line.data) for line in store.audit_lines(0, 10)] == [
        ("bob", "hold", {"job_ids": [first, second]}),
        ("ada", "release", {"job_ids": [first]}),
    ]


def test_a_cancellation_is_a_flag_until_the_controller_acts(store: Store) -> None:
    (job_id,) = submitted(store)
    (job,) = store.ask([job_id], EventKind.CANCEL_REQUESTED, ADA, 5)
    assert (job.state, job.cancel_requested) == (JobState.WAITING, True)
    store.ask([job_id], EventKind.CANCEL_REQUESTED, BOB, 6)
    assert [event.kind for event in store.story(job_id)] == [EventKind.SUBMITTED, EventKind.CANCEL_REQUESTED]
    assert len(store.audit_lines(0, 10)) == 1


@pytest.mark.parametrize("kind", [EventKind.HELD, EventKind.RELEASED, EventKind.CANCEL_REQUESTED])
def test_jobs_that_have_ended_are_left_as_they_are(store: Store, kind: EventKind) -> None:
    (job_id,) = submitted(store)
    store.record(leading(store), [intends(job_id), Starts(job_id, 1, 3_000), ends(job_id)], 6_000)
    before, last = store.job(job_id), store.last_seq()
    assert store.ask([job_id], kind, ADA, 7_000) == [before]
    assert store.last_seq() == last


def test_a_running_job_goes_on_when_it_is_held(store: Store) -> None:
    (job_id,) = submitted(store)
    store.record(leading(store), [intends(job_id)], 2_000)
    (job,) = store.ask([job_id], EventKind.HELD, ADA, 3_000)
    assert job.state is JobState.RUNNING
    assert store.story(job_id)[-1].kind is EventKind.HELD, "the controller may want to know"


def test_asking_of_a_job_that_is_not_there_changes_nothing(store: Store) -> None:
    (job_id,) = submitted(store)
    with pytest.raises(NotFound, match="9"):
        store.ask([job_id, JobId(9)], EventKind.HELD, ADA, 5)
    assert store.job(job_id).state is JobState.WAITING
    with pytest.raises(ValueError, match="finished"):
        store.ask([job_id], EventKind.FINISHED, ADA, 5)


@pytest.mark.parametrize("job_id", [0, -1, 99, 2**63, 2**80])
def test_an_id_that_is_nobodys_is_not_found(store: Store, job_id: int) -> None:
    with pytest.raises(NotFound):
        store.job(JobId(job_id))
    assert store.attempts(JobId(job_id)) == []
    assert store.story(JobId(job_id)) == []
    assert store.live_by_id([JobId(job_id)]) == []


def test_live_jobs_are_one_picture_by_id_with_their_attempts(store: Store) -> None:
    waiting, running, ended, silent = submitted(store, 4)
    lease = leading(store)
    store.record(lease, [intends(running), intends(ended), intends(silent)], 2_000)
    store.record(lease, [Starts(running, 1, 3_000), ends(ended)], 6_000)
    seq, live = store.live_jobs()
    submitted(store)  # after the picture was taken
    store.record(lease, [Waits(waiting, Reason.CAPACITY)], 7_000)
    found = list(live)
    assert seq == store.last_seq() - 2
    assert [each.job.job_id for each in found] == [waiting, running, silent]
    assert found[0].job.reason is Reason.NONE
    assert [each.attempt for each in found] == [None, store.attempts(running)[0], store.attempts(silent)[0]]
    assert [each.job.job_id for each in store.live_by_id([silent, ended, JobId(999)])] == [ended, silent]


def test_a_picture_that_nobody_looks_at_holds_nothing(store: Store) -> None:
    submitted(store, 5)
    for _ in range(100):  # more than there are connections
        store.live_jobs()
    assert len(list(store.live_jobs()[1])) == 5


def test_counts_are_by_state_and_reason_and_ended_ones_by_state(store: Store) -> None:
    ids = submitted(store, 6)
    lease = leading(store)
    store.record(
        lease, [Waits(ids[0], Reason.CAPACITY), Waits(ids[1], Reason.CAPACITY), Waits(ids[2], Reason.QUOTA)], 2
    )
    store.record(lease, [intends(ids[3]), intends(ids[4]), intends(ids[5])], 3)
    store.record(lease, [ends(ids[4]), ends(ids[5], outcome=Outcome.LOST)], 4)
    assert store.counts() == {
        ("waiting", "CAPACITY"): 2,
        ("waiting", "QUOTA"): 1,
        ("running", "NONE"): 1,
        ("completed", ""): 1,
        ("failed", ""): 1,
    }


def test_events_are_followed_by_tenant(store: Store) -> None:
    ours, theirs = submitted(store, 2), submitted(store, 2, tenant=OTHER)
    store.ask([ours[0], theirs[0]], EventKind.HELD, ADA, 5)
    only_ours = store.events(0, 10, frozenset({TEAM}))
    assert [(event.seq, event.job_id) for event in only_ours] == [(1, ours[0]), (2, ours[1]), (5, ours[0])]
    assert store.events(1, 1, frozenset({TEAM})) == only_ours[1:2]
    assert store.events(0, 10, frozenset({TEAM, OTHER})) == store.events(0, 10)
    many = frozenset({TEAM, *(type(TEAM)(f"t{number}") for number in range(1_000))})
    assert store.events(0, 10, many) == only_ours
    assert store.events(0, 10, frozenset()) == []
    assert store.events(store.last_seq(), 10) == store.events(2**70, 10) == store.events(2**70, 10, many) == []
    assert store.story(ours[0], after_seq=1) == only_ours[2:]


def test_use_is_whole_attempts_cut_to_the_span(store: Store) -> None:
    long, short, running, never = submitted(store, 4, workers=2, gpu_milli=500, cpu_milli=3_000)
    (theirs,) = submitted(store, tenant=OTHER, user=BOB, gpu_milli=0, cpu_milli=1_000)
    lease = leading(store)
    store.record(lease, [intends(job_id) for job_id in (long, short, running, never, theirs)], 2_000)
    store.record(lease, [Starts(running, 1, 9_000)], 9_000)
    store.record(
        lease,
        [
            ends(long, started_ms=1_000, ended_ms=8_000),
            ends(short, started_ms=2_000, ended_ms=3_000, outcome=Outcome.LOST, requeue=True),
            ends(never, started_ms=None, ended_ms=3_000, outcome=Outcome.CANCELLED),
            ends(theirs, started_ms=4_000, ended_ms=6_000),
        ],
        9_000,
    )
    store.record(lease, [intends(short, 2)], 9_500)
    store.record(lease, [ends(short, 2, started_ms=4_000, ended_ms=5_000)], 9_900)
    rows = store.usage("tenant", 2_500, 9_500, None)
    spent = 5_500 + (500 + 1_000) + 500
    assert [(row.key, row.jobs, row.attempts, row.gpu_milli_ms, row.cpu_milli_ms) for row in rows] == [
        (TEAM, 3, 4, spent * 1_000, spent * 6_000),
        (OTHER, 1, 1, 0, 2_000 * 1_000),
    ]
    assert [row.key for row in store.usage("user", 0, 10_000, None)] == ["ada", "bob"]
    assert [(row.key, row.jobs) for row in store.usage("site", 0, 10_000, None)] == [("here", 4)]
    assert [row.key for row in store.usage("tenant", 0, 10_000, frozenset({OTHER}))] == [OTHER]
    assert store.usage("tenant", 0, 10_000, frozenset()) == []
    assert store.usage("tenant", 10_000, 10_000, None) == []
    parts = [store.usage("tenant", start, start + 1_000, None) for start in range(0, 12_000, 1_000)]
    whole = {row.key: row.gpu_milli_ms for row in store.usage("tenant", 0, 12_000, None)}
    summed = Counter[str]()
    for part in parts:
        summed.update({row.key: row.gpu_milli_ms for row in part})
    assert summed == Counter(whole), "hours add up to the day"
    with pytest.raises(ValueError, match="colour"):
        store.usage("colour", 0, 1, None)


def test_jobs_by_hand_count_as_use(store: Store) -> None:
    (ours,) = submitted(store, gpu_milli=2_000, cpu_milli=1_000)
    lease = leading(store)
    store.record(lease, [intends(ours), ends(ours, started_ms=2_000, ended_ms=4_000)], 9_000)
    far = SiteId("far")
    store.keep_site_jobs(
        lease,
        [
            site_job("1", state=JobState.COMPLETED, user="ada", started_ms=1_000, ended_ms=3_000),
            site_job("1", 2_000, state=JobState.FAILED, started_ms=3_000, ended_ms=4_000, restarts=3),
            site_job("1", state=JobState.RUNNING, started_ms=8_000, tenant=OTHER, site=far, gpus=0),
            site_job("2"),
            site_job("3", state=JobState.HELD),
            site_job("4", state=JobState.CANCELLED, started_ms=None, held=()),
            site_job("5", started_ms=2_000, restarts=1),  # it was put back into its queue
            site_job("6", state=JobState.COMPLETED, started_ms=500, ended_ms=2_000),
        ],
    )

    def used(by: str, tenants: frozenset[TenantId] | None = None) -> list[tuple[str, int, int, int, int, int]]:
        rows = store.usage(by, 2_000, 10_000, tenants)
        return [(row.key, row.jobs, row.attempts, row.by_hand_jobs, row.gpu_milli_ms, row.cpu_milli_ms) for row in rows]

    team = (TEAM, 3, 3, 2, 2_000 * 2_000 + (1_000 + 1_000) * 4_000, 2_000 * 1_000 + (1_000 + 1_000) * 8_000)
    other = (OTHER, 1, 1, 1, 0, 2_000 * 8_000)
    assert used("tenant") == [team, other]
    assert used("tenant", frozenset({TEAM})) == [team]
    assert used("tenant", frozenset({OTHER})) == [other]
    assert used("tenant", frozenset()) == []
    assert used("site") == [("here", *team[1:]), ("far", *other[1:])]
    assert [row[:4] for row in used("user")] == [("ada", 2, 2, 1), ("zoe", 2, 2, 2)]
    assert used("user", frozenset({OTHER})) == [("zoe", *other[1:])]
    parts = [store.usage("tenant", start, start + 1_000, None) for start in range(0, 12_000, 1_000)]
    whole = {row.key: row.gpu_milli_ms for row in store.usage("tenant", 0, 12_000, None)}
    summed = Counter[str]()
    for part in parts:
        summed.update({row.key: row.gpu_milli_ms for row in part})
    assert summed == Counter(whole), "hours add up to the day"


def test_past_use_has_jobs_by_hand_that_ran_and_ended(store: Store) -> None:
    (ours,) = submitted(store)
    lease = leading(store)
    store.record(lease, [intends(ours), ends(ours, started_ms=2_000, ended_ms=5_000)], 9_000)
    store.keep_site_jobs(
        lease,
        [
            site_job("1", state=JobState.COMPLETED, started_ms=1_000, ended_ms=5_000),
            site_job("2", state=JobState.FAILED, started_ms=1_000, ended_ms=4_000, tenant=OTHER, gpus=1),
            site_job("3", state=JobState.COMPLETED, started_ms=1_000, ended_ms=3_000),
            site_job("4", state=JobState.RUNNING),
            site_job("5", state=JobState.CANCELLED, started_ms=None),
            site_job("6", started_ms=1_000),
        ],
    )
    use = store.past_use(3_000)
    assert [use.tenants[tenant] for tenant in use.tenant] == [OTHER, TEAM, TEAM]
    assert use.gpu_milli.tolist() == [1_000, 2_000, 4_000]
    assert (use.started_ms.tolist(), use.ended_ms.tolist()) == ([1_000, 2_000, 1_000], [4_000, 5_000, 5_000])


def test_past_use_has_what_ran_and_ended(store: Store) -> None:
    early, late, never, running = submitted(store, 4)
    (theirs,) = submitted(store, tenant=OTHER, gpu_milli=500)
    lease = leading(store)
    store.record(lease, [intends(job_id) for job_id in (early, late, never, running, theirs)], 1)
    store.record(lease, [Starts(running, 1, 2), ends(early, started_ms=2, ended_ms=9), ends(never, started_ms=None)], 9)
    store.record(lease, [ends(late, started_ms=3, ended_ms=20), ends(theirs, started_ms=4, ended_ms=15)], 21)
    use = store.past_use(9)
    found = [
        (use.tenants[tenant], gpu_milli, started_ms, ended_ms)
        for tenant, gpu_milli, started_ms, ended_ms in zip(
            use.tenant, use.gpu_milli, use.started_ms, use.ended_ms, strict=True
        )
    ]
    assert found == [(OTHER, 500, 4, 15), (TEAM, 2_000, 3, 20)]
    assert store.past_use(100).tenant.shape == (0,)
