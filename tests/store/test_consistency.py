"""Whatever is submitted, asked and recorded, in whatever order: jobs, attempts, events and counts tell one story."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.requests import ADA, TEAM, array, ends, intends, leading, request
from watteau.domain.decisions import Reason
from watteau.domain.errors import InvariantBroken
from watteau.domain.records import Answers, Change, EventKind, FallsSilent, Finishes, Starts, Waits
from watteau.domain.requests import AttemptState, JobId, JobState, Outcome
from watteau.store.store import Conflict, JobFilter, Lease, Store

#: (word, which of the example's jobs, attempt number, yes or no): made into a request of some kind by `_do`.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "array", "ask", "record", "record", "record", "record"]),
        st.lists(
            st.tuples(
                st.sampled_from(["waits", "intends", "starts", "silent", "answers", "ends", "finishes"]),
                st.integers(0, 5),
                st.integers(1, 3),
                st.booleans(),
            ),
            min_size=1,
            max_size=4,
        ),
    ),
    max_size=25,
)

#: The events of a job, as its state follows from them: what a reader who has only the log would say.
_STATE_AFTER = {
    EventKind.INTENDED: JobState.RUNNING,
    EventKind.REQUEUED: JobState.WAITING,
    EventKind.SUBMITTED: JobState.WAITING,
}


def _change(word: str, job_id: JobId, number: int, yes: bool) -> Change:
    outcome = Outcome.LOST if yes else Outcome.COMPLETED
    match word:
        case "waits":
            return Waits(job_id, Reason.CAPACITY if yes else Reason.QUOTA)
        case "intends":
            return intends(job_id, number)
        case "starts":
            return Starts(job_id, number, 3_000)
        case "silent":
            return FallsSilent(job_id, number, "no answer")
        case "answers":
            return Answers(job_id, number)
        case "ends":
            return ends(job_id, number, outcome, started_ms=None, requeue=yes)
        case _:
            return Finishes(job_id, JobState.CANCELLED, Reason.NONE, "")


def _do(store: Store, lease: Lease, ids: list[JobId], step: tuple[str, list[tuple[str, int, int, bool]]]) -> None:
    word, parts = step
    if word in ("submit", "array") or not ids:
        asked = array(range(2)) if word == "array" else request(held=parts[0][3])
        ids += [job.job_id for job in store.submit([(asked, TEAM)], ADA, 1_000)]
        return
    of = [(kind, ids[place % len(ids)], number, yes) for kind, place, number, yes in parts]
    if word == "ask":
        kinds = (EventKind.HELD, EventKind.RELEASED, EventKind.CANCEL_REQUESTED)
        store.ask(sorted({job_id for _, job_id, _, _ in of}), kinds[of[0][2] - 1], ADA, 2_000)
        return
    before = store.last_seq()
    try:
        assert store.record(lease, [_change(*each) for each in of], 4_000).start == before + 1
    except (InvariantBroken, Conflict):
        assert store.last_seq() == before, "what is refused leaves nothing behind"


def _check(store: Store, job_id: JobId) -> None:
    job, attempts, story = store.job(job_id), store.attempts(job_id), store.story(job_id)
    kinds = Counter(event.kind for event in story)
    assert [attempt.number for attempt in attempts] == list(range(1, job.attempts + 1))
    assert [event.seq for event in story] == sorted({event.seq for event in story})
    assert story[0].kind is EventKind.SUBMITTED
    assert kinds[EventKind.INTENDED] == len(attempts)
    live = [attempt for attempt in attempts if attempt.state is not AttemptState.ENDED]
    assert kinds[EventKind.ENDED] == len(attempts) - len(live)
    assert len(live) == (job.state is JobState.RUNNING)
    assert live == attempts[-1:] or not live
    assert kinds[EventKind.FINISHED] == job.state.is_end == (job.ended_ms is not None)
    assert job.state.is_end == (story[-1].kind is EventKind.FINISHED), "nothing happens after the end"
    assert job.cancel_requested == (kinds[EventKind.CANCEL_REQUESTED] == 1)
    state = JobState.WAITING
    for event in story:
        if event.kind is EventKind.SUBMITTED:
            state = JobState.HELD if event.data.get("held") else JobState.WAITING
        elif event.kind in (EventKind.HELD, EventKind.RELEASED) and state is not JobState.RUNNING:
            state = JobState.HELD if event.kind is EventKind.HELD else JobState.WAITING
        elif event.kind is EventKind.FINISHED:
            state = JobState(event.data["state"])
        else:
            state = _STATE_AFTER.get(event.kind, state)
    assert job.state is state, "the log alone tells where the job stands"


@given(steps=STEPS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_jobs_attempts_and_events_tell_one_story(
    store: Store, steps: list[tuple[str, list[tuple[str, int, int, bool]]]]
) -> None:
    lease = leading(store)
    ids: list[JobId] = []
    for step in steps:
        _do(store, lease, ids, step)
    for job_id in ids:
        _check(store, job_id)
    assert {live.job.job_id: live for live in store.live_jobs()[1]} == {
        live.job.job_id: live
        for live in store.live_by_id([JobId(number) for number in range(1, 5_000)])
        if not live.job.state.is_end
    }
    counted = Counter[str]()
    for (state, _), number in store.counts().items():
        counted[state] += number
    every = store.jobs(JobFilter(), 5_000).jobs
    assert counted == Counter(job.state.value for job in every)
    assert [event.seq for event in store.events(0, 50_000)] == list(range(1, store.last_seq() + 1)), "without gaps"
