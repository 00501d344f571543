"""The database under the store: its schema, the order of its log, and what is said when it cannot be written."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from tests.postgres import Cluster
from tests.store.requests import submitted
from watteau.domain.requests import JobId
from watteau.store.store import JobFilter, Store, StoreUnavailable
from watteau.store.tables import metadata


def test_a_reader_of_the_log_misses_nothing_while_many_write(store: Store) -> None:
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
            submitted(store, 2)

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


def test_the_migrations_lead_to_the_tables_as_they_are(store: Store, url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    # The index of parts of names is made of what each database has for that, which SQLAlchemy cannot say.
    assert [its for its in differences if "request_names" not in repr(its)] == []
    engine.dispose()


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
        with store._database.writing() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 20}")
        kept: list[JobId] = []

        def fill_with_jobs() -> None:
            while True:
                kept.extend(submitted(store, 3, command=(), script="#!/bin/sh\n" + "x" * 5_000 + str(len(kept))))

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
        (job,) = submitted(store)
        with store._database.writing() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
        with pytest.raises(StoreUnavailable, match="read-only"):
            submitted(store)
        assert store.job(job).job_id == job


def test_the_store_goes_on_after_the_database_was_restarted(postgres: Cluster) -> None:
    with postgres.database() as url, Store(url).closing() as store:
        (job,) = submitted(store)
        postgres.stop("immediate")
        with pytest.raises(StoreUnavailable):
            submitted(store)
        postgres.start()
        assert store.job(job).job_id == job
        assert len(submitted(store)) == 1


def test_a_database_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StoreUnavailable) as refused:
        Store("postgresql+psycopg://watteau:secret@127.0.0.1:1/none")
    assert "secret" not in str(refused.value)
    assert "127.0.0.1" in str(refused.value)
