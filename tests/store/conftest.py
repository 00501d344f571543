"""The store on both databases: every test that takes `store` or `url` runs on SQLite and on a real PostgreSQL."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.postgres import Cluster
from watteau.store.store import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of the test's own, still without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'watteau.db'}"
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with cluster.database() as url:
        yield url


@pytest.fixture
def open_store() -> Iterator[Callable[[str], Store]]:
    """Opens stores that are closed at the end of the test."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(Store(url).closing())


@pytest.fixture
def store(url: str, open_store: Callable[[str], Store]) -> Store:
    return open_store(url)
