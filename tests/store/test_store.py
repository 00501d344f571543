"""One suite for both databases: what is acknowledged is kept, once, in order, and nothing is half-done."""

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from tests.postgres import Cluster
from watteau.domain.decisions import Reason
from watteau.domain.errors import InvariantBroken
from watteau.domain.people import Grant, Role, User
from watteau.domain.records import Answers, Ends, EventKind, FallsSilent, Finishes, Intends, Place, Starts, Waits
from watteau.domain.requests import (
    After,
    ArraySpec,
    AttemptState,
    Dependency,
    JobId,
    JobState,
    Outcome,
    Request,
)
from watteau.domain.units import PoolId, SiteId, TenantId
from watteau.engines.contract import attempt_name
from watteau.store.store import (
    Conflict,
    IdempotencyKey,
    JobFilter,
    Lease,
    LeaseLost,
    NotFound,
    Store,
    StoreUnavailable,
)
from watteau.store.tables import metadata

ALICE = TenantId("alice")
DATABASES = ["sqlite", "postgresql"]
ENDS: dict[Outcome, JobState] = {its: JobState(its.value) for its in Outcome if its is not Outcome.LOST}


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/watteau.db"
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.fresh_url()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store(url).closing() as store:
        yield store


@pytest.fixture
def alice(store: Store) -> User:
    return store.add_user("alice", None, [Grant(Role.MEMBER, ALICE)], 1, "test")


def ask(**more: Any) -> Request:
    return Request.model_validate(more if "script" in more else {"command": ["true"], **more})


def submit(store: Store, user: User, *requests: Request, now_ms: int = 1_000) -> list[JobId]:
    return [job.job_id for job in store.submit([(its, ALICE) for its in requests or (ask(),)], user, now_ms)]


def lead(store: Store, holder: str = "one", now_ms: int = 1_000) -> Lease:
    lease = store.lead(holder, now_ms, 10_000_000)
    assert lease is not None
    return lease


def intends(job: JobId, number: int = 1) -> Intends:
    place = Place(PoolId("p"), 3, (0, 1), -1)
    return Intends(job, number, attempt_name(job, number), SiteId("s"), (place, place))


def ends(job: JobId, number: int = 1, outcome: Outcome = Outcome.COMPLETED, **more: Any) -> Ends:
    known: dict[str, Any] = {
        "started_ms": 2_000,
        "ended_ms": 5_000,
        "exit_code": 0,
        "signal": None,
        "cause": "",
        "requeue": False,
        "used": {},
    }
    return Ends(job, number, outcome, **(known | more))


def kinds(store: Store, job: JobId) -> list[EventKind]:
    return [event.kind for event in store.story(job)]


# --- submissions ------------------------------------------------------------------------------------------------------


def test_a_submission_is_there_after_the_store_is_opened_again(store: Store, alice: User, url: str) -> None:
    request = ask(name="näme 😀", environment={"A": "ü"}, gpu_milli=500, time_limit_s=60)
    (job,) = submit(store, alice, request)
    with Store(url).closing() as again:
        record = again.job(job)
        assert (record.request, record.tenant, record.user, record.state) == (request, ALICE, "alice", JobState.WAITING)
        assert kinds(again, job) == [EventKind.SUBMITTED]
        assert again.last_seq() == again.story(job)[-1].seq


def test_an_array_becomes_one_job_for_each_task(store: Store, alice: User) -> None:
    tasks = submit(store, alice, ask(array=ArraySpec(indices=(5, 1, 9), most_running=2)))
    records = [store.job(task) for task in tasks]
    assert [record.label for record in records] == [f"{tasks[0]}_{index}" for index in (5, 1, 9)]
    found = store.jobs(JobFilter(array_id=tasks[0]), 10).jobs
    assert {record.job_id for record in found} == set(tasks)


def test_a_submission_with_one_wrong_job_keeps_none(store: Store, alice: User) -> None:
    wrong = ask(dependencies=(Dependency(after=After.OK, job_id=10**9),))
    with pytest.raises(NotFound, match=str(10**9)):
        submit(store, alice, ask(), wrong)
    assert store.jobs(JobFilter(), 10).jobs == ()
    assert store.last_seq() == 0


def test_a_repeated_key_is_answered_as_the_first_time_also_when_both_come_at_once(store: Store, alice: User) -> None:
    answers: list[list[JobId]] = []

    def once() -> None:
        key = IdempotencyKey(alice.user_id, "k", "digest")
        answers.append([job.job_id for job in store.submit([(ask(), ALICE)], alice, 1_000, key)])

    threads = [threading.Thread(target=once) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len({tuple(answer) for answer in answers}) == 1
    assert len(store.jobs(JobFilter(), 10).jobs) == 1
    with pytest.raises(Conflict):
        store.submit([(ask(), ALICE)], alice, 1_000, IdempotencyKey(alice.user_id, "k", "another"))


def test_a_reader_of_the_log_misses_nothing_while_many_write(store: Store, alice: User) -> None:
    """The order of `seq` is the order of commits: what has been passed never gets an event before it."""
    done = threading.Event()
    seen: list[int] = []

    def tail() -> None:
        last = 0
        while True:
            finished = done.is_set()
            for event in store.events(last, 100):
                seen.append(event.seq)
                last = event.seq
            if finished:
                return

    def write() -> None:
        for _ in range(20):
            submit(store, alice, ask(), ask())

    reader = threading.Thread(target=tail)
    writers = [threading.Thread(target=write) for _ in range(6)]
    for thread in [reader, *writers]:
        thread.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert len(seen) == len(set(seen)) == 6 * 20 * 2


# --- pages ------------------------------------------------------------------------------------------------------------


def test_pages_hold_every_job_once_while_others_come(store: Store, alice: User) -> None:
    first = submit(store, alice, *[ask(name=f"n{number}") for number in range(25)])
    found: list[JobId] = []
    cursor = None
    while True:
        page = store.jobs(JobFilter(), 10, cursor)
        found += [job.job_id for job in page.jobs]
        submit(store, alice)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == sorted(first, reverse=True)


def test_conditions_of_a_filter_hold_at_once(store: Store, alice: User) -> None:
    bob = store.add_user("bob", None, [], 1, "test")
    mine = submit(store, alice, ask(name="train-a"), ask(name="eval"), ask(name="train-b", held=True))
    (his,) = submit(store, bob, ask(name="train-a"))
    assert [job.job_id for job in store.jobs(JobFilter(user="alice", name_contains="train"), 9).jobs] == [
        mine[2],
        mine[0],
    ]
    assert [job.job_id for job in store.jobs(JobFilter(states=frozenset({JobState.HELD})), 9).jobs] == [mine[2]]
    assert [job.job_id for job in store.jobs(JobFilter(user="bob"), 9).jobs] == [his]
    assert store.jobs(JobFilter(tenants=frozenset()), 9).jobs == ()
    assert store.jobs(JobFilter(name_contains="%"), 9).jobs == (), "a wildcard of the database is an ordinary letter"
    with pytest.raises(ValueError, match="cursor"):
        store.jobs(JobFilter(), 9, "made up")


# --- the controller's side --------------------------------------------------------------------------------------------


def test_a_job_lives_through_its_attempts(store: Store, alice: User) -> None:
    (job,) = submit(store, alice)
    lease = lead(store)
    store.record(lease, [Waits(job, Reason.CAPACITY, "full")], 1_100)
    assert (store.job(job).reason, store.job(job).detail) == (Reason.CAPACITY, "full")
    store.record(lease, [intends(job)], 1_200)
    assert store.job(job).state is JobState.RUNNING
    store.record(lease, [Starts(job, 1, 2_000), FallsSilent(job, 1, "gone")], 2_000)
    assert store.attempts(job)[0].state is AttemptState.UNKNOWN
    lost = ends(job, outcome=Outcome.LOST, exit_code=None, cause="node died", requeue=True)
    store.record(lease, [Answers(job, 1), lost], 5_000)
    assert store.job(job).state is JobState.WAITING
    last = store.record(
        lease, [intends(job, 2), Starts(job, 2, 6_000), ends(job, 2, started_ms=6_000, ended_ms=7_000)], 7_000
    )
    record = store.job(job)
    assert (record.state, record.attempts, record.started_ms, record.ended_ms) == (JobState.COMPLETED, 2, 6_000, 7_000)
    assert [attempt.outcome for attempt in store.attempts(job)] == [Outcome.LOST, Outcome.COMPLETED]
    assert store.attempts(job)[0].places == intends(job).places
    assert [kind.value for kind in kinds(store, job)] == [
        *("submitted", "waiting", "intended", "started", "silent", "answered", "ended", "requeued"),
        *("intended", "started", "ended", "finished"),
    ]
    assert store.last_seq() == last
    assert store.live_by_id([job])[0].attempt is None


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_state_of_a_job_follows_from_how_its_attempt_ended(store: Store, alice: User, outcome: Outcome) -> None:
    (job,) = submit(store, alice)
    store.record(lead(store), [intends(job), ends(job, outcome=outcome, exit_code=3, signal=9, cause="why")], 2_000)
    record = store.job(job)
    assert record.state is ENDS.get(outcome, JobState.FAILED)
    assert (record.exit_code, record.signal) == (3, 9)


def test_what_contradicts_the_rows_is_refused_whole(store: Store, alice: User) -> None:
    first, second = submit(store, alice, ask(), ask())
    lease = lead(store)
    store.record(lease, [intends(first)], 1_000)
    before = store.last_seq()
    for wrong in (
        [intends(second), intends(first, 2)],
        [intends(second), ends(first, 2)],
        [intends(second), Starts(JobId(10**9), 1, 0)],
        [intends(second), Finishes(first, JobState.CANCELLED, Reason.NONE, "")],
    ):
        with pytest.raises(InvariantBroken):
            store.record(lease, wrong, 1_100)  # type: ignore[arg-type]
    assert store.last_seq() == before
    assert store.job(second).state is JobState.WAITING
    store.record(lease, [ends(first)], 1_200)
    with pytest.raises(InvariantBroken):
        store.record(lease, [ends(first)], 1_300)


def test_one_leads_and_who_no_longer_does_writes_nothing(store: Store, alice: User) -> None:
    (job,) = submit(store, alice)
    first = store.lead("one", 1_000, 200)
    assert first is not None
    assert store.lead("two", 1_001, 200) is None
    renewed = store.lead("one", 1_100, 200)
    assert renewed is not None
    assert renewed.term == first.term
    threading.Event().wait(0.4)  # PostgreSQL goes by its own clock
    second = store.lead("two", 1_600, 60_000)
    assert second is not None
    assert second.term > first.term
    with pytest.raises(LeaseLost):
        store.record(renewed, [Waits(job, Reason.CAPACITY)], 1_700)
    assert store.job(job).reason is Reason.NONE
    store.resign(first)  # not ours to give
    assert store.lead("one", 1_800, 200) is None
    store.resign(second)
    assert store.lead("one", 1_900, 200) is not None


def test_live_jobs_are_those_that_have_not_ended_as_one_picture(store: Store, alice: User) -> None:
    waits, runs, ended = submit(store, alice, ask(), ask(gpu_milli=3000), ask())
    lease = lead(store)
    store.record(lease, [intends(runs), intends(ended), ends(ended)], 2_000)
    seq, rows = store.live_jobs()
    submit(store, alice)  # after the picture was taken
    live = {row.job.job_id: row for row in rows}
    assert set(live) == {waits, runs}
    assert seq < store.last_seq()
    attempt = live[runs].attempt
    assert attempt is not None
    assert (attempt.name, attempt.state) == (attempt_name(runs, 1), AttemptState.INTENDED)
    past = store.past_use(0)
    assert (past.tenants, past.gpu_milli.tolist(), past.started_ms.tolist()) == ((ALICE,), [0], [2_000])


def test_usage_counts_attempts_cut_to_the_span(store: Store, alice: User) -> None:
    first, second = submit(store, alice, ask(gpu_milli=2000, workers=2, cpu_milli=500), ask(gpu_milli=1000))
    lease = lead(store)
    store.record(lease, [intends(first), ends(first, started_ms=1_000, ended_ms=5_000)], 5_000)
    store.record(lease, [intends(second), Starts(second, 1, 4_000)], 4_000)
    (row,) = store.usage("tenant", 2_000, 6_000, None)
    assert row.gpu_milli_ms == 4_000 * 3_000 + 1_000 * 2_000
    assert row.cpu_milli_ms == 1_000 * 3_000 + 1_000 * 2_000
    assert (row.jobs, row.attempts) == (2, 2)
    assert store.usage("tenant", 0, 9_000, frozenset()) == []
    with pytest.raises(ValueError, match="colour"):
        store.usage("colour", 0, 1, None)


@given(seed=st.integers(0, 2**32))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=15)
def test_jobs_attempts_and_events_tell_one_story(store: Store, seed: int) -> None:
    random = Random(seed)
    user = store.add_user(f"user-{seed}-{random.random()}", None, [], 1, "test")
    lease = lead(store)
    jobs = submit(store, user, *[ask(held=random.random() < 0.3) for _ in range(4)])
    number = dict.fromkeys(jobs, 0)
    for step in range(25):
        job, now_ms = random.choice(jobs), 2_000 + 100 * step
        record = store.job(job)
        live = store.live_by_id([job])[0].attempt
        if random.random() < 0.3:
            store.ask(
                [job], random.choice([EventKind.HELD, EventKind.RELEASED, EventKind.CANCEL_REQUESTED]), user, now_ms
            )
        elif record.state is JobState.WAITING:
            if random.random() < 0.3:
                store.record(lease, [Finishes(job, JobState.CANCELLED, Reason.NONE, "asked")], now_ms)
            else:
                number[job] += 1
                store.record(lease, [intends(job, number[job])], now_ms)
        elif live is not None and live.state is AttemptState.INTENDED and random.random() < 0.5:
            store.record(lease, [Starts(job, live.number, now_ms)], now_ms)
        elif live is not None:
            outcome = random.choice(list(Outcome))
            requeue = outcome is Outcome.LOST and random.random() < 0.7
            store.record(
                lease, [ends(job, live.number, outcome, started_ms=None, ended_ms=now_ms, requeue=requeue)], now_ms
            )
    for job in jobs:
        record, told = store.job(job), Counter(kinds(store, job))
        attempts = store.attempts(job)
        assert told[EventKind.SUBMITTED] == 1
        assert told[EventKind.INTENDED] == record.attempts == len(attempts) == number[job]
        assert told[EventKind.FINISHED] == (1 if record.state.is_end else 0)
        assert told[EventKind.ENDED] == sum(attempt.state is AttemptState.ENDED for attempt in attempts)
        open_ones = [attempt for attempt in attempts if attempt.state is not AttemptState.ENDED]
        assert len(open_ones) == (1 if record.state is JobState.RUNNING else 0)
        assert record.cancel_requested <= (told[EventKind.CANCEL_REQUESTED] > 0)


# --- people -----------------------------------------------------------------------------------------------------------


def test_accounts_tokens_and_what_ends_them(store: Store, alice: User) -> None:
    with pytest.raises(Conflict):
        store.add_user("alice", None, [], 2, "test")
    token = store.add_token(alice.user_id, "d1", "laptop", ["read"], 2, 1_000, "alice")
    found = store.token("d1", 500)
    assert found is not None
    assert (found[0].token_id, found[1].name, found[1].grants) == (token.token_id, "alice", alice.grants)
    assert store.token("d1", 1_000) is None, "it has expired"
    assert store.token("unknown", 500) is None
    store.add_token(alice.user_id, "d2", "x", [], 2, None, "alice")
    store.change_user("alice", 3, "root", disabled=True)
    assert store.token("d2", 500) is None
    store.change_user("alice", 4, "root", disabled=False, grants=[])
    assert store.token("d2", 500) is None, "a disabled account's tokens stay revoked"
    assert store.user("alice")[0].grants == ()
    with pytest.raises(NotFound):
        store.revoke(10**9, 5, "root")
    assert {line.action for line in store.audit_lines(0, 100)} >= {"add user", "add token", "change user"}


def test_a_one_time_token_is_spent_once_whoever_comes_first(store: Store, alice: User) -> None:
    store.add_token(alice.user_id, "once", "login", [], 2, None, "root", one_time=True)
    assert store.token("once", 3) is None, "it opens nothing but the login"
    won: list[User | None] = []
    threads = [threading.Thread(target=lambda: won.append(store.use_once("once", 3))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [user.name for user in won if user is not None] == ["alice"]


# --- the database -----------------------------------------------------------------------------------------------------


def test_the_migrations_lead_to_the_tables_as_they_are(store: Store, url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    # The index of parts of names is made of what each database has for that, which SQLAlchemy cannot say.
    assert [its for its in differences if "request_names" not in repr(its)] == []
    engine.dispose()


@pytest.mark.parametrize("statement", ["UPDATE events SET at_ms = 0", "DELETE FROM events", "DELETE FROM audit"])
def test_the_logs_only_grow(store: Store, alice: User, url: str, statement: str) -> None:
    submit(store, alice)
    before = len(store.events(0, 100)), len(store.audit_lines(0, 100))
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as file, pytest.raises(sqlite3.DatabaseError):
            file.execute(statement)
    else:
        with (
            psycopg.connect(url.replace("+psycopg", "")) as connection,
            pytest.raises(psycopg.DatabaseError),
        ):
            connection.execute(statement.encode())
    assert (len(store.events(0, 100)), len(store.audit_lines(0, 100))) == before


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path}/deep/down/watteau.db").closing():
        assert (tmp_path / "deep/down/watteau.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "says"), [(b"not a database at all, but long enough to be looked at" * 20, "not an SQLite database")]
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "watteau.db").write_bytes(content)
    with pytest.raises(StoreUnavailable, match=says):
        Store(f"sqlite:///{tmp_path}/watteau.db")
    assert (tmp_path / "watteau.db").read_bytes() == content


def test_a_full_database_says_so_and_keeps_nothing_half_done(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path}/watteau.db").closing() as store:
        alice = store.add_user("alice", None, [], 1, "test")
        with store._database.writing() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 20}")
        kept: list[JobId] = []

        def fill_with_jobs() -> None:
            while True:
                kept.extend(submit(store, alice, *[ask(script="#!/bin/sh\n" + "x" * 5_000 + str(n)) for n in range(3)]))

        def fill_with_notes() -> None:
            while True:
                store.check()
                store.audit("alice", "fill", "x" * 5_000, 1)

        with pytest.raises(StoreUnavailable, match="disk is full"):
            fill_with_jobs()
        assert len(kept) % 3 == 0
        assert [job.job_id for job in store.jobs(JobFilter(), 1_000).jobs] == sorted(kept, reverse=True)
        with pytest.raises(StoreUnavailable, match="disk is full"):
            fill_with_notes()


def test_a_read_only_database_is_read_and_says_why_it_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "watteau.db"
    with Store(f"sqlite:///{path}").closing() as store:
        alice = store.add_user("alice", None, [], 1, "test")
        (job,) = submit(store, alice)
        with store._database.writing() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
        with pytest.raises(StoreUnavailable, match="read-only"):
            submit(store, alice)
        assert store.job(job).job_id == job


def test_the_store_goes_on_after_the_database_was_restarted(postgres: Cluster) -> None:
    with Store(postgres.fresh_url()).closing() as store:
        alice = store.add_user("alice", None, [], 1, "test")
        (job,) = submit(store, alice)
        postgres.stop("immediate")
        with pytest.raises(StoreUnavailable):
            submit(store, alice)
        postgres.start()
        assert store.job(job).job_id == job
        assert len(submit(store, alice)) == 1


def test_a_database_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StoreUnavailable) as refused:
        Store("postgresql+psycopg://watteau:secret@127.0.0.1:1/none")
    assert "secret" not in str(refused.value)
    assert "127.0.0.1" in str(refused.value)
