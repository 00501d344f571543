"""The tables that the migrations make are those that the code speaks of; others are refused."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from tests.store.requests import submitted
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
