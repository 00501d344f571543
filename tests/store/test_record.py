"""The controller's side: leadership, and changes that are written as a whole or, when they contradict, not at all."""

import threading
from collections.abc import Callable

import pytest

from tests.store.requests import ADA, HERE, PLACES, ends, intends, leading, submitted
from watteau.domain.decisions import Reason
from watteau.domain.errors import InvariantBroken
from watteau.domain.records import Answers, Change, EventKind, FallsSilent, Finishes, Place, Starts, Waits
from watteau.domain.requests import AttemptState, JobId, JobState, Outcome
from watteau.domain.units import PoolId
from watteau.store.store import Conflict, JobFilter, Lease, LeaseLost, Store


def kinds(store: Store, job_id: JobId) -> list[EventKind]:
    return [event.kind for event in store.story(job_id)]


def test_a_life_from_waiting_to_the_end(store: Store) -> None:
    (job_id,) = submitted(store)
    lease = leading(store)
    store.record(lease, [Waits(job_id, Reason.CAPACITY, "needs 2, has 1")], 2_000)
    waiting = store.job(job_id)
    assert (waiting.state, waiting.reason, waiting.detail) == (JobState.WAITING, Reason.CAPACITY, "needs 2, has 1")
    store.record(lease, [intends(job_id)], 2_500)
    intended = store.job(job_id)
    assert (intended.state, intended.reason, intended.detail) == (JobState.RUNNING, Reason.NONE, "")
    assert (intended.site, intended.attempts, intended.started_ms) == (HERE, 1, None)
    (attempt,) = store.attempts(job_id)
    assert (attempt.name, attempt.state, attempt.places) == (f"watteau-{job_id}-1", AttemptState.INTENDED, PLACES)
    assert (attempt.intended_ms, attempt.started_ms, attempt.site) == (2_500, None, HERE)
    store.record(lease, [Starts(job_id, 1, 3_000)], 3_001)
    assert store.attempts(job_id)[0].state is AttemptState.RUNNING
    assert store.job(job_id).started_ms == 3_000
    seqs = store.record(lease, [ends(job_id, exit_code=3, outcome=Outcome.FAILED, cause="exit status 3")], 5_001)
    ended = store.job(job_id)
    assert (ended.state, ended.detail, ended.exit_code) == (JobState.FAILED, "exit status 3", 3)
    assert (ended.started_ms, ended.ended_ms) == (3_000, 5_000)
    (attempt,) = store.attempts(job_id)
    assert (attempt.state, attempt.outcome, attempt.ended_ms) == (AttemptState.ENDED, Outcome.FAILED, 5_000)
    story = store.story(job_id)
    assert [(event.kind, event.attempt, event.at_ms) for event in story] == [
        (EventKind.SUBMITTED, None, 1_000),
        (EventKind.WAITING, None, 2_000),
        (EventKind.INTENDED, 1, 2_500),
        (EventKind.STARTED, 1, 3_001),
        (EventKind.ENDED, 1, 5_001),
        (EventKind.FINISHED, 1, 5_001),
    ]
    assert list(seqs) == [event.seq for event in story[-2:]]
    assert seqs[-1] == store.last_seq()
    assert story[1].data == {"reason": "CAPACITY", "detail": "needs 2, has 1"}
    assert story[2].data["places"] == [["h100", 3, [0, 1], -1], ["h100", 4, [], 2]]


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.COMPLETED, JobState.COMPLETED),
        (Outcome.FAILED, JobState.FAILED),
        (Outcome.TIMED_OUT, JobState.TIMED_OUT),
        (Outcome.OUT_OF_MEMORY, JobState.OUT_OF_MEMORY),
        (Outcome.CANCELLED, JobState.CANCELLED),
        (Outcome.LOST, JobState.FAILED),
    ],
)
def test_the_state_follows_the_outcome(store: Store, outcome: Outcome, state: JobState) -> None:
    (job_id,) = submitted(store)
    store.record(leading(store), [intends(job_id), ends(job_id, outcome=outcome, cause="so it was")], 6_000)
    job = store.job(job_id)
    assert (job.state, job.detail) == (state, "so it was")
    assert store.counts() == {(state.value, ""): 1}


def test_a_lost_attempt_is_followed_by_another_even_in_one_cycle(store: Store) -> None:
    (job_id,) = submitted(store)
    lease = leading(store)
    store.record(lease, [intends(job_id), Starts(job_id, 1, 3_000)], 3_000)
    lost = ends(job_id, outcome=Outcome.LOST, exit_code=None, cause="node n3 is down", requeue=True)
    store.record(lease, [lost], 5_000)
    job = store.job(job_id)
    assert (job.state, job.site, job.ended_ms, job.exit_code) == (JobState.WAITING, None, None, None)
    assert job.detail == "node n3 is down"
    store.record(lease, [intends(job_id, 2), ends(job_id, 2, Outcome.LOST, requeue=True), intends(job_id, 3)], 6_000)
    assert store.job(job_id).attempts == 3
    assert [attempt.state for attempt in store.attempts(job_id)] == [
        AttemptState.ENDED,
        AttemptState.ENDED,
        AttemptState.INTENDED,
    ]
    assert kinds(store, job_id)[3:6] == [EventKind.ENDED, EventKind.REQUEUED, EventKind.INTENDED]


def test_a_silent_attempt_is_unknown_until_its_engine_answers(store: Store) -> None:
    ran, intended = submitted(store, 2)
    lease = leading(store)
    store.record(lease, [intends(ran), intends(intended), Starts(ran, 1, 3_000)], 3_000)
    store.record(lease, [FallsSilent(ran, 1, "no route"), FallsSilent(intended, 1, "no route")], 4_000)
    assert {store.attempts(job_id)[0].state for job_id in (ran, intended)} == {AttemptState.UNKNOWN}
    assert store.job(ran).state is JobState.RUNNING
    store.record(lease, [Answers(ran, 1), Answers(intended, 1)], 5_000)
    assert store.attempts(ran)[0].state is AttemptState.RUNNING
    assert store.attempts(intended)[0].state is AttemptState.INTENDED
    store.record(lease, [FallsSilent(ran, 1, ""), ends(ran)], 6_000)
    assert store.job(ran).state is JobState.COMPLETED
    assert store.story(ran)[3].data == {"cause": "no route"}


def test_where_an_engine_really_put_an_attempt_is_where_it_is(store: Store) -> None:
    moved, stays, at_once = submitted(store, 3)
    elsewhere = (Place(PoolId("h100"), 9, ()), Place(PoolId("a100"), 0, ()))
    lease = leading(store)
    store.record(lease, [intends(moved), intends(stays)], 2_000)
    store.record(
        lease,
        [
            Starts(moved, 1, 3_000, elsewhere, ("gpu9", "old0")),
            Starts(stays, 1, 3_000, nodes=("gpu3", "gpu4")),
            intends(at_once),
            Starts(at_once, 1, 3_000, elsewhere),
        ],
        3_001,
    )
    assert [store.attempts(job_id)[0].places for job_id in (moved, stays, at_once)] == [elsewhere, PLACES, elsewhere]
    assert [store.story(job_id)[-1].data for job_id in (moved, stays, at_once)] == [
        {"started_ms": 3_000, "nodes": ["gpu9", "old0"]},
        {"started_ms": 3_000, "nodes": ["gpu3", "gpu4"]},
        {"started_ms": 3_000},
    ]
    store.record(lease, [ends(moved)], 6_000)
    assert store.attempts(moved)[0].places == elsewhere
    assert store.story(moved)[1].data["places"] == [["h100", 3, [0, 1], -1], ["h100", 4, [], 2]], "as it was decided"


def test_a_job_may_end_while_it_waits(store: Store) -> None:
    cancelled, hopeless = submitted(store, 2)
    store.ask([cancelled], EventKind.HELD, ADA, 2_000)
    store.record(
        leading(store),
        [
            Finishes(cancelled, JobState.CANCELLED, Reason.NONE, "by ada"),
            Finishes(hopeless, JobState.UNSCHEDULABLE, Reason.NO_SUCH_SITE, "no site mars"),
        ],
        3_000,
    )
    assert store.job(cancelled).state is JobState.CANCELLED
    job = store.job(hopeless)
    assert (job.state, job.reason, job.detail) == (JobState.UNSCHEDULABLE, Reason.NO_SUCH_SITE, "no site mars")
    assert (job.ended_ms, job.started_ms) == (3_000, None)
    assert kinds(store, hopeless) == [EventKind.SUBMITTED, EventKind.FINISHED]


def test_what_an_engine_says_may_hold_anything(store: Store) -> None:
    """PostgreSQL keeps neither NUL nor half a surrogate pair."""
    (job_id,) = submitted(store)
    store.record(
        leading(store), [intends(job_id), ends(job_id, cause="core\0dumped \ud800", outcome=Outcome.FAILED)], 6
    )
    assert store.job(job_id).detail == "core\N{REPLACEMENT CHARACTER}dumped ?"
    assert store.story(job_id)[2].data["cause"] == "core\0dumped \ud800"


CONTRADICTIONS: dict[str, tuple[list[Change], list[Change]]] = {
    "a second attempt while one is live": ([intends(JobId(1))], [intends(JobId(1), 2)]),
    "an ended attempt ends": ([intends(JobId(1)), ends(JobId(1))], [ends(JobId(1))]),
    "an attempt that never was ends": ([intends(JobId(1))], [ends(JobId(1), 2)]),
    "an ended attempt starts": ([intends(JobId(1)), ends(JobId(1), requeue=True)], [Starts(JobId(1), 1, 5)]),
    "a started attempt starts": ([intends(JobId(1)), Starts(JobId(1), 1, 5)], [Starts(JobId(1), 1, 5)]),
    "a silent attempt starts after it had": (
        [intends(JobId(1)), Starts(JobId(1), 1, 5), FallsSilent(JobId(1), 1, "")],
        [Starts(JobId(1), 1, 6)],
    ),
    "one that answers answers": ([intends(JobId(1))], [Answers(JobId(1), 1)]),
    "one that is silent falls silent": (
        [intends(JobId(1)), FallsSilent(JobId(1), 1, "")],
        [FallsSilent(JobId(1), 1, "")],
    ),
    "an attempt is left out": ([], [intends(JobId(1), 2)]),
    "an attempt number comes again": ([intends(JobId(1)), ends(JobId(1), requeue=True)], [intends(JobId(1), 1)]),
    "an ended job is tried again": ([intends(JobId(1)), ends(JobId(1))], [intends(JobId(1), 2)]),
    "a running job waits": ([intends(JobId(1))], [Waits(JobId(1), Reason.CAPACITY)]),
    "an ended job waits": ([intends(JobId(1)), ends(JobId(1))], [Waits(JobId(1), Reason.CAPACITY)]),
    "a running job finishes by itself": (
        [intends(JobId(1))],
        [Finishes(JobId(1), JobState.CANCELLED, Reason.NONE, "")],
    ),
    "an ended job finishes": (
        [Finishes(JobId(1), JobState.CANCELLED, Reason.NONE, "")],
        [Finishes(JobId(1), JobState.CANCELLED, Reason.NONE, "")],
    ),
    "a job finishes as waiting": ([], [Finishes(JobId(1), JobState.WAITING, Reason.NONE, "")]),
    "there is no such job": ([], [Waits(JobId(77), Reason.CAPACITY)]),
    "two attempts of one job at once": ([], [intends(JobId(1)), intends(JobId(1), 2)]),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_change_that_contradicts_what_is_there_writes_nothing(store: Store, name: str) -> None:
    before, wrong = CONTRADICTIONS[name]
    first, other = submitted(store, 2)
    assert (first, other) == (1, 2)
    lease = leading(store)
    store.record(lease, before, 2_000)
    picture = (store.jobs(JobFilter(), 10), store.attempts(first), store.last_seq(), store.counts())
    with pytest.raises(InvariantBroken):
        store.record(lease, [intends(other), *wrong], 3_000)
    assert (store.jobs(JobFilter(), 10), store.attempts(first), store.last_seq(), store.counts()) == picture


def test_an_attempt_for_a_job_that_was_held_meanwhile_is_refused_as_a_whole(store: Store) -> None:
    """It was held, and that was acknowledged, after the cycle had read the log: nobody's mistake."""
    first, second = submitted(store, 2)
    lease = leading(store)
    store.ask([second], EventKind.HELD, ADA, 2_000)
    with pytest.raises(Conflict, match=f"job {second} is held"):
        store.record(lease, [intends(first), intends(second)], 3_000)
    assert store.job(first).state is JobState.WAITING
    store.record(lease, [intends(first)], 4_000)


def test_a_cycle_without_changes_writes_nothing(store: Store) -> None:
    submitted(store)
    assert list(store.record(leading(store), [], 2_000)) == []
    assert store.last_seq() == 1


# --- leadership ------------------------------------------------------------------------------------------------------


def test_one_leads_until_the_lease_runs_out(url: str, open_store: Callable[[str], Store]) -> None:
    first, second = open_store(url), open_store(url)
    lease = first.lead("one", 1_000, 60_000)
    assert lease == Lease("one", 1, 61_000)
    assert second.lead("two", 2_000, 60_000) is None
    assert first.lead("one", 30_000, 60_000) == Lease("one", 1, 90_000), "renewed: the same term"


def test_a_lease_that_ran_out_is_taken_with_a_new_term(store: Store) -> None:
    store.lead("one", 1_000, 1)
    threading.Event().wait(0.05)  # PostgreSQL goes by its own clock
    taken = store.lead("two", 2_000, 60_000)
    assert taken == Lease("two", 2, 62_000)
    assert store.lead("one", 3_000, 60_000) is None


def test_what_a_former_leader_decides_is_not_written(store: Store) -> None:
    (job_id,) = submitted(store)
    old = store.lead("one", 1_000, 1)
    assert old is not None
    store.record(old, [Waits(job_id, Reason.CAPACITY)], 1_500)
    threading.Event().wait(0.05)
    assert store.lead("two", 2_000, 60_000) is not None
    with pytest.raises(LeaseLost, match="one no longer leads"):
        store.record(old, [intends(job_id)], 2_500)
    with pytest.raises(LeaseLost):
        store.record(Lease("two", 1, 99_000), [intends(job_id)], 2_500)
    assert store.last_seq() == 2
    assert store.attempts(job_id) == []


def test_a_lease_that_ran_out_and_that_nobody_took_still_writes(store: Store) -> None:
    (job_id,) = submitted(store)
    lease = store.lead("one", 1_000, 1)
    assert lease is not None
    threading.Event().wait(0.05)
    store.record(lease, [Waits(job_id, Reason.CAPACITY)], 9_000)


def test_a_lease_that_was_given_back_is_free_at_once_and_lost_for_good(store: Store) -> None:
    lease = leading(store, "one")
    store.resign(lease)
    with pytest.raises(LeaseLost):
        store.record(lease, [], 2_000)
    assert leading(store, "one").term == 2
    with pytest.raises(LeaseLost):
        store.record(lease, [], 2_000)
    store.resign(lease)
    assert store.lead("two", 3_000, 60_000) is None, "an old lease gives nothing back"


def test_of_many_that_ask_at_once_one_leads(url: str, open_store: Callable[[str], Store]) -> None:
    stores = [open_store(url) for _ in range(4)]
    barrier = threading.Barrier(len(stores))
    leases: list[Lease | None] = []

    def ask(number: int) -> None:
        barrier.wait()
        leases.append(stores[number].lead(f"controller {number}", 1_000, 60_000))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leases) == len(stores)
    assert [lease.term for lease in leases if lease is not None] == [1]


def test_two_leaders_in_turn_never_start_an_attempt_twice(url: str, open_store: Callable[[str], Store]) -> None:
    """Both believe that they lead, for their leases end at once: each attempt is written by one of them."""
    stores = [open_store(url) for _ in range(2)]
    ids = submitted(stores[0], 40)
    written: list[tuple[str, JobId]] = []

    def lead(number: int) -> None:
        store, holder = stores[number], f"controller {number}"
        while any(job.job.state is JobState.WAITING for job in store.live_jobs()[1]):
            lease = store.lead(holder, 1_000, 1)
            for job in [live.job for live in store.live_jobs()[1] if live.attempt is None][:3]:
                try:
                    if lease is not None:
                        store.record(lease, [intends(job.job_id)], 2_000)
                        written.append((holder, job.job_id))
                except LeaseLost:
                    break
                except InvariantBroken:
                    break  # read before the other took over

    threads = [threading.Thread(target=lead, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(job_id for _, job_id in written) == ids
    assert [len(stores[0].attempts(job_id)) for job_id in ids] == [1] * 40
