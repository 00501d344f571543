"""Accounts, grants, tokens by their digests, and the audit log that names every change of them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, text

from tests.store.requests import OTHER, TEAM, submitted
from watteau.domain.people import Grant, Role, User
from watteau.store.store import Conflict, NotFound, Store

OWNER = Grant(Role.TENANT_OWNER, TEAM)
AUDITOR = Grant(Role.AUDITOR, OTHER)


def added(store: Store, name: str = "ada", *grants: Grant) -> User:
    return store.add_user(name, "argon2id...", grants, 1_000, "root")


def test_an_account_is_read_back_with_its_grants_in_order(store: Store) -> None:
    user = added(store, "ada", OWNER, AUDITOR, OWNER)
    assert user == User(user.user_id, "ada", False, (OWNER, AUDITOR))
    assert store.user("ada") == (user, "argon2id...")
    nobody = store.add_user("zoé", None, [], 1_000, "root")
    assert store.user("zoé") == (nobody, None)
    capital = added(store, "Zed")
    assert store.users() == [capital, user, nobody]


def test_a_name_is_taken_once_even_by_many_at_once(store: Store) -> None:
    barrier = threading.Barrier(4)

    def add(_: int) -> bool:
        barrier.wait()
        try:
            added(store)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(add, range(4))) == [False, False, False, True]


@pytest.mark.parametrize("name", ["nobody", "", "a\0b", "\ud800", "' OR 1=1 --"])
def test_an_unknown_name_is_not_found(store: Store, name: str) -> None:
    with pytest.raises(NotFound):
        store.user(name)
    with pytest.raises(NotFound):
        store.change_user(name, 1, "root", disabled=True)


def test_only_what_is_given_changes(store: Store) -> None:
    user = added(store, "ada", OWNER)
    store.add_token(user.user_id, "digest", "laptop", ["read"], 1_000, None, "ada")
    changed = store.change_user("ada", 2_000, "root", grants=[AUDITOR])
    assert changed == User(user.user_id, "ada", False, (AUDITOR,))
    assert store.user("ada")[1] == "argon2id..."
    assert store.token("digest", 3_000) is not None
    assert store.change_user("ada", 2_000, "root") == changed


@pytest.mark.parametrize("change", [{"password_hash": "new"}, {"disabled": True}])
def test_a_new_password_or_a_disabled_account_revokes_its_tokens(store: Store, change: dict[str, object]) -> None:
    ada, bob = added(store), added(store, "bob")
    store.add_token(ada.user_id, "hers", "laptop", [], 1_000, None, "ada")
    store.add_token(bob.user_id, "his", "laptop", [], 1_000, None, "bob")
    store.change_user("ada", 2_000, "root", **change)  # type: ignore[arg-type]
    assert store.token("hers", 3_000) is None
    assert store.tokens(ada.user_id)[0].revoked_ms == 2_000
    assert store.token("his", 3_000) is not None
    store.change_user("ada", 4_000, "root", disabled=False)
    assert store.token("hers", 5_000) is None, "it stays revoked"


def test_a_token_is_valid_until_it_expires_or_is_revoked(store: Store) -> None:
    user = added(store, "ada", OWNER, AUDITOR)
    token = store.add_token(user.user_id, "digest", "laptop", ["read", "submit"], 1_000, 5_000, "ada")
    assert (token.scopes, token.one_time, token.expires_ms) == (("read", "submit"), False, 5_000)
    found = store.token("digest", 4_999)
    assert found is not None
    assert found[1] == user
    assert store.token("digest", 5_000) is None
    for unknown in ("other", "a\0b", ""):
        assert store.token(unknown, 2_000) is None
    store.revoke(token.token_id, 3_000, "root")
    store.revoke(token.token_id, 4_000, "root")
    assert store.token("digest", 4_000) is None
    assert store.tokens(user.user_id)[0].revoked_ms == 3_000


def test_the_use_of_a_token_is_noted_once_a_minute(store: Store) -> None:
    user = added(store)
    store.add_token(user.user_id, "digest", "laptop", [], 1_000, None, "ada")
    noted = []
    for now_ms in (2_000, 61_999, 62_000, 63_000):
        store.token("digest", now_ms)
        noted.append(store.tokens(user.user_id)[0].last_used_ms)
    assert noted == [2_000, 2_000, 62_000, 62_000]


def test_a_one_time_token_is_spent_once_even_by_many_at_once(store: Store) -> None:
    user = added(store)
    store.add_token(user.user_id, "once", "first login", [], 1_000, None, "root", one_time=True)
    assert store.token("once", 2_000) is None, "it is for spending, not for showing again and again"
    barrier = threading.Barrier(4)

    def spend(_: int) -> User | None:
        barrier.wait()
        return store.use_once("once", 2_000)

    with ThreadPoolExecutor(4) as threads:
        spent = [found for found in threads.map(spend, range(4)) if found is not None]
    assert spent == [user]
    assert store.use_once("once", 3_000) is None
    store.add_token(user.user_id, "again", "", [], 1_000, None, "ada")
    assert store.use_once("again", 3_000) is None, "not a one-time token"
    store.add_token(user.user_id, "late", "", [], 1_000, 2_000, "ada", one_time=True)
    assert store.use_once("late", 2_000) is None


def test_tokens_belong_to_someone(store: Store) -> None:
    user = added(store)
    for nobody in (99, 0, 2**70):
        with pytest.raises(NotFound):
            store.add_token(nobody, "digest", "", [], 1_000, None, "root")
        with pytest.raises(NotFound):
            store.revoke(nobody, 1_000, "root")
        assert store.tokens(nobody) == []
    first = store.add_token(user.user_id, "a", "", [], 1_000, None, "ada")
    second = store.add_token(user.user_id, "b", "", [], 1_000, None, "ada")
    assert store.tokens(user.user_id) == [second, first]
    with pytest.raises(Conflict):
        store.add_token(user.user_id, "a", "", [], 1_000, None, "ada")


def test_every_change_of_an_account_is_in_the_audit_log_without_a_secret(store: Store) -> None:
    user = store.add_user("ada", "HASH", [OWNER], 1_000, "root")
    token = store.add_token(user.user_id, "DIGEST", "laptop", ["read"], 2_000, None, "ada", one_time=True)
    store.use_once("DIGEST", 3_000)
    other = store.add_token(user.user_id, "DIGEST2", "ci", [], 3_500, None, "ada")
    store.revoke(other.token_id, 4_000, "root")
    store.change_user("ada", 5_000, "root", password_hash="HASH2", grants=[AUDITOR])
    store.audit("bob", "log in", "user ada", 6_000, {"from": "127.0.0.1"})
    lines = store.audit_lines(0, 100)
    assert [(line.seq, line.at_ms, line.user, line.action, line.target) for line in lines] == [
        (1, 1_000, "root", "add user", "user ada"),
        (2, 2_000, "ada", "add token", f"token {token.token_id}"),
        (3, 3_000, "ada", "use token", f"token {token.token_id}"),
        (4, 3_500, "ada", "add token", f"token {other.token_id}"),
        (5, 4_000, "root", "revoke token", f"token {other.token_id}"),
        (6, 5_000, "root", "change user", "user ada"),
        (7, 6_000, "bob", "log in", "user ada"),
    ]
    assert not any(secret in str(lines) for secret in ("HASH", "DIGEST"))
    assert store.audit_lines(5, 1) == lines[5:6]
    assert lines[-1].data == {"from": "127.0.0.1"}


@pytest.mark.parametrize("table", ["events", "audit"])
@pytest.mark.parametrize("change", ["UPDATE {} SET data = 'x'", "DELETE FROM {}"])
def test_nobody_can_rewrite_a_log(store: Store, url: str, table: str, change: str) -> None:
    """Not even whoever opens the database by hand."""
    submitted(store)
    store.audit("ada", "look", "at it", 1_000)
    engine = create_engine(url)
    try:
        with pytest.raises(Exception, match=f"{table} is append-only"), engine.begin() as connection:
            connection.execute(text(change.format(table)))
        if engine.dialect.name == "postgresql":
            with pytest.raises(Exception, match=f"{table} is append-only"), engine.begin() as connection:
                connection.execute(text(f"TRUNCATE {table}"))
    finally:
        engine.dispose()
    assert len(store.events(0, 10)) == len(store.audit_lines(0, 10)) == 1
