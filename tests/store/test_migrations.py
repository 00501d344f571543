"""The tables that the migrations make are those that the code speaks of; others are refused."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from tests.store.requests import HERE, ends, leading, site_job, submitted
from watteau.domain.records import Place
from watteau.domain.requests import JobId, JobState
from watteau.domain.units import PoolId
from watteau.store import migrations
from watteau.store.store import Store, StoreUnavailable
from watteau.store.tables import metadata


def run(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def differences(url: str) -> list[Any]:
    """What a new migration would have to change."""

    def is_described(name: str | None, kind: str, _: object) -> bool:
        # The search index of names is SQL of its own on each database; MetaData cannot say it.
        return kind not in ("table", "index") or not str(name).startswith("request_names")

    engine = create_engine(url)
    with engine.connect() as connection:
        options = {"include_name": is_described, "compare_type": True, "compare_server_default": True}
        found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    engine.dispose()
    return found


def test_the_last_migration_makes_the_tables_that_the_code_speaks_of(store: Store, url: str) -> None:
    assert differences(url) == []


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE jobs ADD COLUMN colour TEXT", "DROP INDEX jobs_by_user", "CREATE TABLE other (number INTEGER)"],
)
def test_a_difference_would_be_found(store: Store, url: str, change: str) -> None:
    run(url, change)
    assert len(differences(url)) == 1


def test_a_database_is_opened_again_as_it_was(url: str, open_store: Callable[[str], Store]) -> None:
    submitted(open_store(url), 3)
    again = open_store(url)
    assert again.last_seq() == 3
    assert submitted(again) == [4]


def test_many_that_open_an_empty_database_at_once_all_succeed(url: str, open_store: Callable[[str], Store]) -> None:
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def open_and_submit() -> None:
        try:
            barrier.wait()
            submitted(open_store(url))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_and_submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert open_store(url).last_seq() == 4


#: A user, a job with a running attempt, and a job that has ended, as Watteau wrote them before it knew shared sites.
_ROWS_OF_0001 = (
    "UPDATE counters SET last_seq = 4, last_job_id = 2, last_request_id = 1",
    "INSERT INTO users (user_id, name, disabled, created_ms) VALUES (1, 'ada', FALSE, 1)",
    "INSERT INTO requests (request_id, name_folded, gpu_milli, cpu_milli, body)"
    """ VALUES (1, 'train', 2000, 1000, '{"name":"train","command":["x"],"gpu_milli":2000}')""",
    *(
        "INSERT INTO jobs (job_id, request_id, tenant, user_name, state, reason, detail, submitted_ms, started_ms,"
        " ended_ms, site, attempts, cancel_requested)"
        f" VALUES ({job_id}, 1, 'team', 'ada', '{state}', 0, '', 1000, 2000, {ended}, 'here', 1, FALSE)"
        for job_id, state, ended in ((1, "running", "NULL"), (2, "completed", "5000"))
    ),
    *(
        "INSERT INTO attempts (job_id, number, name, site, tenant, user_name, gpu_milli, cpu_milli, state, places,"
        f" intended_ms, started_ms, ended_ms, cause) VALUES ({job_id}, 1, 'watteau-{job_id}-1', 'here', 'team', 'ada',"
        f" 2000, 1000, '{state}', '[[\"h100\",3,[0,1],-1]]', 1500, 2000, {ended}, '')"
        for job_id, state, ended in ((1, "running", "NULL"), (2, "ended", "5000"))
    ),
    *(
        "INSERT INTO events (seq, at_ms, job_id, tenant, kind, data)"
        f" VALUES ({seq}, 1, {job_id}, 'team', '{kind}', '{{}}')"
        for seq, job_id, kind in ((1, 1, "submitted"), (2, 2, "submitted"), (3, 1, "started"), (4, 2, "finished"))
    ),
)


def upgraded_to(url: str, version: str) -> None:
    """Make the tables as they were in an older version."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
    engine.dispose()


def test_a_database_of_before_shared_sites_keeps_what_it_has(url: str, open_store: Callable[[str], Store]) -> None:
    upgraded_to(url, "0001")
    assert [difference[0] for difference in differences(url)].count("add_table") == 4
    run(url, *(statement.replace(":", "\\:") for statement in _ROWS_OF_0001))
    store = open_store(url)
    assert differences(url) == []
    (running,) = store.live_jobs()[1]
    assert running.attempt == store.attempts(JobId(1))[0]
    assert running.attempt.places == (Place(PoolId("h100"), 3, (0, 1)),)
    assert store.job(JobId(2)).state is JobState.COMPLETED
    (used,) = store.usage("tenant", 0, 10_000, None)
    assert (used.jobs, used.by_hand_jobs, used.gpu_milli_ms) == (2, 0, (8_000 + 3_000) * 2_000)
    assert submitted(store) == [3]
    assert store.settings_version() == 0
    lease = leading(store)
    store.record(lease, [ends(JobId(1))], 6_000)
    store.keep_site_jobs(lease, [site_job("7")])
    assert store.last_seq() == 7
    assert [job.engine_id for job in store.live_site_jobs(HERE)] == ["7"]


def test_tables_of_a_newer_watteau_are_refused(store: Store, url: str) -> None:
    run(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreUnavailable, match=r"version 9999.*newer Watteau"):
        Store(url)


def test_tables_of_something_else_are_refused(url: str) -> None:
    run(url, "CREATE TABLE jobs (what TEXT)")
    with pytest.raises(StoreUnavailable, match=r"not Watteau's \(jobs\)"):
        Store(url)


def test_what_an_interrupted_migration_made_is_gone(url: str, open_store: Callable[[str], Store]) -> None:
    """All steps are one transaction, also on SQLite: the next start begins anew."""
    run(url, "CREATE TABLE tokens (what TEXT)")
    with pytest.raises(StoreUnavailable):
        Store(url)
    run(url, "DROP TABLE tokens", "CREATE VIEW grants AS SELECT 1")  # stops the migration in its middle
    with pytest.raises(Exception, match="grants"):
        Store(url)
    run(url, "DROP VIEW grants")
    assert submitted(open_store(url)) == [1]


def test_a_database_has_one_name_for_life_and_another_one_has_another(
    url: str, tmp_path: Path, open_store: Callable[[str], Store]
) -> None:
    upgraded_to(url, "0002")
    name = open_store(url).identity()
    assert len(name) == 32
    assert open_store(url).identity() == name
    assert open_store(f"sqlite:///{tmp_path / 'another.db'}").identity() != name
