"""What is acknowledged stays: with many writers, after a kill, a crash of the server, on a full or a lost disk."""

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.postgres import Cluster
from tests.store.requests import ADA, TEAM, array, intends, leading, request, submitted
from watteau.domain.records import EventKind
from watteau.domain.requests import After, Dependency, JobId
from watteau.store.store import JobFilter, NotFound, Store, StoreUnavailable

ROOT = Path(__file__).resolve().parents[2]


def test_whoever_follows_the_log_misses_nothing_while_many_write(url: str, open_store: Callable[[str], Store]) -> None:
    """The order of seq is the order of commits: no event appears behind one that was read."""
    stores = [open_store(url) for _ in range(3)]
    acknowledged: list[JobId] = []
    writing = threading.Event()
    followed: list[int] = []

    def write(number: int) -> None:
        for turn in range(20):
            store = stores[number % 2]
            if turn % 4 == 3:
                asked = store.ask(acknowledged[-1:], EventKind.HELD, ADA, 2)
                assert len(asked) == 1
            else:
                acknowledged.extend(submitted(store, 1 + turn % 3))

    def follow() -> None:
        done = False
        while not done:
            done = writing.is_set()
            last = followed[-1] if followed else 0
            followed.extend(event.seq for event in stores[2].events(last, 7))
            done = done and (followed[-1] if followed else 0) == stores[2].last_seq()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    follower = threading.Thread(target=follow)
    for thread in (*writers, follower):
        thread.start()
    for thread in writers:
        thread.join()
    writing.set()
    follower.join()
    assert followed == list(range(1, stores[0].last_seq() + 1))
    assert len(set(acknowledged)) == len(acknowledged)
    assert {job.job_id for job in stores[2].jobs(JobFilter(), 1_000).jobs} == set(acknowledged)


def test_writers_that_share_a_commit_fail_each_for_itself(url: str, open_store: Callable[[str], Store]) -> None:
    store = open_store(url)
    barrier = threading.Barrier(8)
    kept: list[JobId] = []
    refused: list[NotFound] = []

    def write(number: int) -> None:
        barrier.wait()
        for _ in range(20):
            needs = [Dependency(after=After.OK, job_id=999_999)] if number == 3 else []
            try:
                kept.extend(job.job_id for job in store.submit([(request(dependencies=needs), TEAM)] * 2, ADA, 1))
            except NotFound as error:
                refused.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 20
    assert sorted(kept) == list(range(1, 7 * 20 * 2 + 1)), "what failed took no number"
    assert store.last_seq() == len(kept)


def test_what_was_acknowledged_is_there_after_a_kill(url: str, open_store: Callable[[str], Store]) -> None:
    script = """
        import sys
        from tests.store.requests import ADA, TEAM, array, submitted
        from watteau.store.store import Store
        store = Store(sys.argv[1])
        while True:
            print(submitted(store)[0], store.submit([(array(range(3)), TEAM)], ADA, 1)[-1].job_id, flush=True)
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), url], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(15)]
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0]
        said += [line for line in rest.splitlines() if len(line.split()) == 2]
        acknowledged = [int(word) for line in said for word in line.split()]
        store = open_store(url)
        jobs = store.jobs(JobFilter(), 100_000).jobs
        assert set(acknowledged) <= {job.job_id for job in jobs}
        arrays = [job.array_id for job in jobs if job.array_id is not None]
        assert all(arrays.count(array_id) == 3 for array_id in set(arrays)), "an array is whole or not there"
        assert store.last_seq() == len(jobs)


def test_what_does_not_fit_any_more_is_refused_and_the_rest_is_kept(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'watteau.db'}")
    with store.closing():
        kept = submitted(store, 50)
        before, limits = store.last_seq(), resource.getrlimit(resource.RLIMIT_FSIZE)
        # The log of writes may not grow beyond what it is now: as a quota or a full disk would have it.
        largest = max(file.stat().st_size for file in tmp_path.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
        try:
            with pytest.raises(StoreUnavailable, match="check the disk, its quota"):
                store.submit([(array(range(5_000)), TEAM)], ADA, 1)
            assert store.last_seq() == before
            assert [job.job_id for job in store.jobs(JobFilter(), 100).jobs] == kept[::-1], "reading goes on"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert submitted(store) == [kept[-1] + 1], "and so does writing, once there is room"


def test_a_full_disk_is_called_that(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'watteau.db'}"
    with Store(url).closing() as store:
        (kept,) = submitted(store)
        with store._database.writing() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            store.submit([(array(range(5_000)), TEAM)], ADA, 1)
        assert store.last_seq() == 1
        assert store.job(kept).job_id == kept


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("53100", "the server's disk is full"),
        ("25006", "read-only"),
        ("40P01", "try again"),
        ("57P01", "shutting down"),
        ("53200", "out of memory"),
    ],
)
def test_what_postgresql_reports_is_said_and_nothing_is_kept(
    postgres: Cluster, open_store: Callable[[str], Store], state: str, says: str
) -> None:
    with postgres.database() as url:
        store = open_store(url)
        submitted(store)
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(
                text(
                    "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
                    f" $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '{state}'; END $$"
                )
            )
            connection.execute(text("CREATE TRIGGER fail BEFORE INSERT ON events EXECUTE FUNCTION fail()"))
        with pytest.raises(StoreUnavailable, match=says):
            submitted(store)
        assert len(store.jobs(JobFilter(), 10).jobs) == store.last_seq() == 1
        with engine.begin() as connection:
            connection.execute(text("DROP TRIGGER fail ON events"))
        engine.dispose()
        assert submitted(store) == [2], "no number was lost"


def test_the_pool_recovers_when_the_server_comes_back(postgres: Cluster, open_store: Callable[[str], Store]) -> None:
    with postgres.database() as url:
        store = open_store(url)
        (job_id,) = submitted(store)
        lease = leading(store, ttl_ms=600_000)
        for mode in ("fast", "immediate"):
            picture = store.live_jobs()[1]
            postgres.stop(mode)
            try:
                with pytest.raises(StoreUnavailable, match="server"):
                    list(picture)
                for attempt in (store.check, store.last_seq, lambda: submitted(store)):
                    with pytest.raises(StoreUnavailable, match="server"):
                        attempt()
            finally:
                postgres.start()
            store.check()
        assert submitted(store) == [job_id + 1]
        assert list(store.record(lease, [intends(job_id)], 2_000)) == [3], "and who led leads"


def test_a_read_only_database_can_be_read(url: str, open_store: Callable[[str], Store], postgres: Cluster) -> None:
    writable = open_store(url)
    (job_id,) = submitted(writable)
    user = writable.add_user("ada", None, [], 1, "root")
    writable.add_token(user.user_id, "digest", "", [], 1, None, "ada")
    if url.startswith("sqlite"):
        read_only_url = url.replace("sqlite:///", "sqlite:///file:") + "?mode=ro&uri=true"
    else:
        read_only_url = url
        postgres.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    store = open_store(read_only_url)
    assert store.job(job_id).job_id == job_id
    assert len(list(store.live_jobs()[1])) == 1
    assert store.token("digest", 5) is not None, "that its use cannot be noted keeps nobody out"
    for write in (store.check, lambda: submitted(store), lambda: store.lead("one", 1, 1)):
        with pytest.raises(StoreUnavailable, match="it is read-only"):
            write()
    assert writable.last_seq() == 1


def test_a_database_that_another_process_locks_says_so(url: str, open_store: Callable[[str], Store]) -> None:
    open_store(url)
    patient = "timeout=0.1" if url.startswith("sqlite") else "options=-c%20lock_timeout%3D100"
    store = open_store(f"{url}?{patient}")
    engine = create_engine(url)
    with engine.connect() as connection:
        if url.startswith("sqlite"):
            driver = connection.connection.dbapi_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.execute("BEGIN IMMEDIATE")
        else:
            connection.execute(text("SELECT * FROM counters FOR UPDATE"))
        with pytest.raises(StoreUnavailable, match="keeps it locked"):
            submitted(store)
        assert store.last_seq() == 0, "readers do not wait"
    engine.dispose()
    assert submitted(store) == [1]


def test_a_file_that_was_removed_is_not_written_to(tmp_path: Path) -> None:
    """SQLite would go on writing into what nobody can open any more."""
    file = tmp_path / "watteau.db"
    with Store(f"sqlite:///{file}").closing() as store:
        submitted(store)
        file.rename(tmp_path / "elsewhere.db")
        for write in (store.check, lambda: submitted(store)):
            with pytest.raises(StoreUnavailable, match="removed or replaced"):
                write()
        (tmp_path / "elsewhere.db").rename(file)
        assert submitted(store) == [2]


def test_the_file_and_its_folder_are_their_owners(tmp_path: Path) -> None:
    file = tmp_path / "new" / "deep" / "watteau.db"
    with Store(f"sqlite:///{file}").closing() as store:
        submitted(store)
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir()}
        assert modes == {"watteau.db": 0o600, "watteau.db-wal": 0o600, "watteau.db-shm": 0o600}
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_relative_path_stays_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store("sqlite:///watteau.db").closing() as store:
        submitted(store)
        _, live = store.live_jobs()  # holds the first connection
        monkeypatch.chdir("/")
        assert submitted(store) == [2]
        assert [each.job.job_id for each in live] == [1]


def test_every_commit_on_sqlite_waits_for_the_disk(tmp_path: Path) -> None:
    with (
        Store(f"sqlite:///{tmp_path / 'watteau.db'}").closing() as store,
        store._database.writing() as connection,
    ):
        asked = ("journal_mode", "synchronous", "foreign_keys")
        assert [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in asked] == ["wal", 2, 1]


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"no database, but long enough to look like one" * 100)
    (tmp_path / "folder").mkdir()
    for name, says in (
        ("garbage", "not an SQLite database"),
        ("garbage/watteau.db", "Not a directory|File exists"),
        ("folder", "cannot be opened"),
    ):
        with pytest.raises(StoreUnavailable, match=says):
            Store(f"sqlite:///{tmp_path / name}")


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    with pytest.raises(
        StoreUnavailable, match=r"postgresql\+psycopg://ada:\*\*\*@127.0.0.1:1/watteau: the server"
    ) as info:
        Store("postgresql://ada:secret@127.0.0.1:1/watteau")
    assert "secret" not in str(info.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/x", "nonsense", "oracle://h/x", ""])
def test_a_url_that_keeps_nothing_or_is_unknown_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:///"):
        Store(url)


def test_a_check_writes_and_leaves_no_trace_in_the_logs(store: Store) -> None:
    store.check()
    assert store.last_seq() == 0
    assert store.audit_lines(0, 10) == []


def test_many_threads_share_one_store(store: Store) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                (job,) = store.submit([(request(), TEAM)], ADA, 1)
                assert store.job(job.job_id) == job
                store.jobs(JobFilter(user="ada"), 5)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.last_seq() == 400
