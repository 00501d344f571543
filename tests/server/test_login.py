"""Ways in: the first one, one-time tokens, passwords, and the brake on guessing."""

import contextlib
import time
from pathlib import Path

import pytest

from tests.server.world import START_MS, Clock, World
from watteau.domain.people import Grant, Role
from watteau.domain.units import TenantId
from watteau.server.auth import ONE_TIME_MS, KnownTokens, Passwords, Throttle, bearer, digest, first_start, new_secret
from watteau.server.problems import Refusal
from watteau.store.store import Store

ROOT = TenantId("programme")
PASSWORD = "correct horse battery"


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path / 'empty.db'}")


def login(world: World, **body: object) -> int:
    said = world.ask(None, "POST", "/login", json=body)
    status: int = said.status_code
    if status == 201:
        world.tokens["logged-in"] = said.json()["token"]
    return status


# --- the first start --------------------------------------------------------------------------------------------------


def test_the_first_start_makes_an_operator_with_a_one_time_token(empty: Store) -> None:
    secret = first_start(empty, ROOT, START_MS)
    assert secret is not None
    assert bearer(f"Bearer {secret}") == secret
    admin, password = empty.user("admin")
    assert admin.grants == (Grant(Role.OPERATOR, ROOT),)
    assert password is None
    assert first_start(empty, ROOT, START_MS) is None
    assert empty.use_once(digest(secret), START_MS) == admin
    assert empty.use_once(digest(secret), START_MS) is None


def test_who_lost_the_first_token_gets_another_when_it_has_ended(empty: Store) -> None:
    assert first_start(empty, ROOT, START_MS)
    assert first_start(empty, ROOT, START_MS + ONE_TIME_MS - 1) is None
    again = first_start(empty, ROOT, START_MS + ONE_TIME_MS + 1)
    assert again is not None
    assert empty.use_once(digest(again), START_MS + ONE_TIME_MS + 2) is not None


def test_a_crash_between_account_and_token_locks_nobody_out(empty: Store) -> None:
    empty.add_user("admin", None, [Grant(Role.OPERATOR, ROOT)], START_MS, "first start")
    assert first_start(empty, ROOT, START_MS) is not None


def test_no_way_in_is_offered_where_an_operator_has_one(empty: Store) -> None:
    empty.add_user("ops", "a hash", [Grant(Role.OPERATOR, ROOT)], START_MS, "test")
    assert first_start(empty, ROOT, START_MS) is None
    assert [user.name for user in empty.users()] == ["ops"]


def test_admin_operates_a_fleet_with_another_root_too(empty: Store) -> None:
    assert first_start(empty, ROOT, START_MS)
    assert first_start(empty, TenantId("other"), START_MS) is None  # the first token is still good
    assert Grant(Role.OPERATOR, TenantId("other")) in empty.user("admin")[0].grants


def test_a_disabled_admin_stays_disabled(empty: Store) -> None:
    assert first_start(empty, ROOT, START_MS)
    empty.change_user("admin", START_MS, "test", disabled=True)
    assert first_start(empty, ROOT, START_MS) is None


# --- logging in -------------------------------------------------------------------------------------------------------


def test_a_new_account_logs_in_once_with_its_one_time_token(world: World) -> None:
    body = {"name": "ada", "grants": [{"role": "member", "tenant": "alpha-lab"}]}
    secret = world.ask("tenant_owner", "POST", "/users", json=body).json()["one_time_token"]
    world.tokens["unspent"] = secret
    assert world.ask("unspent", "GET", "/me").status_code == 401  # it is good for a login and nothing else
    assert login(world, one_time_token=secret) == 201
    assert world.ask("logged-in", "GET", "/me").json()["user"]["name"] == "ada"
    assert login(world, one_time_token=secret) == 401


def test_an_account_logs_in_with_its_password_and_the_scopes_it_wants(world: World) -> None:
    body = {"name": "ada", "password": PASSWORD, "grants": [{"role": "member", "tenant": "alpha-lab"}]}
    assert world.ask("tenant_owner", "POST", "/users", json=body).json()["one_time_token"] is None
    assert login(world, user="ada", password=PASSWORD, scopes=["read"], expires_in_s=60) == 201
    me = world.ask("logged-in", "GET", "/me").json()
    assert me["scopes"] == ["read"]
    assert "submit_job" not in me["allowed"]
    world.clock.at_ms += 61_000
    assert world.ask("logged-in", "GET", "/me").status_code == 401


def test_a_disabled_account_does_not_log_in(world: World) -> None:
    world.ask(
        "root",
        "POST",
        "/users",
        json={"name": "ada", "password": PASSWORD, "grants": [{"role": "member", "tenant": "beta"}]},
    )
    world.store.change_user("ada", world.clock(), "test", disabled=True)
    assert login(world, user="ada", password=PASSWORD) == 401


def test_a_lost_way_in_is_replaced(world: World) -> None:
    world.person("ada", (Role.MEMBER, "alpha-lab"))
    said = world.ask("tenant_owner", "PATCH", "/users/ada", json={"one_time_token": True, "password": PASSWORD})
    assert said.status_code == 200
    assert world.ask("ada", "GET", "/me").status_code == 401  # the new password ended the old tokens
    assert login(world, one_time_token=said.json()["one_time_token"]) == 201


@pytest.mark.parametrize(
    "body",
    [
        {"user": "member"},
        {"password": "x"},
        {},
        {"user": "member", "password": "x", "one_time_token": "wt_x"},
        {"user": "member", "password": 7},
        {"user": "member", "password": PASSWORD, "scopes": ["everything"]},
        {"user": "member", "password": PASSWORD, "expires_in_s": 10**30},
    ],
)
def test_half_a_login_is_refused(world: World, body: dict[str, object]) -> None:
    assert login(world, **body) == 422


@pytest.mark.parametrize("user", ["nobody-here", "member", "a\x00b", "\N{SNOWMAN}" * 100])
def test_a_wrong_login_says_the_same_whatever_is_wrong(world: World, user: str) -> None:
    said = world.ask(None, "POST", "/login", json={"user": user, "password": "wrong"}).json()
    assert (said["status"], said["detail"]) == (401, "The login is not right, or the account is disabled.")


def test_guessing_is_slowed_and_a_success_forgets_it(world: World) -> None:
    body = {"name": "ada", "password": PASSWORD, "grants": [{"role": "member", "tenant": "beta"}]}
    world.ask("root", "POST", "/users", json=body)
    for _ in range(4):
        assert login(world, user="ada", password="wrong") == 401
    assert login(world, user="ada", password=PASSWORD) == 201
    for _ in range(5):
        assert login(world, user="ada", password="wrong") == 401
    slowed = world.ask(None, "POST", "/login", json={"user": "ada", "password": PASSWORD})
    assert slowed.status_code == 429
    assert slowed.json()["code"] == "too_many_tries"
    world.clock.at_ms += 1000 * int(slowed.headers["retry-after"])
    assert login(world, user="ada", password=PASSWORD) == 201


# --- the parts --------------------------------------------------------------------------------------------------------


def test_the_wait_doubles_up_to_a_quarter_of_an_hour_and_tries_in_vain_do_not_prolong_it() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    waits: list[int] = []
    while len(waits) < 12:
        with contextlib.suppress(Refusal):
            throttle.begin({"k": 3})
            continue
        with pytest.raises(Refusal) as refused:
            throttle.begin({"k": 3})
        waits.append(refused.value.retry_after_s or 0)
        clock.at_ms += waits[-1] * 1000
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]
    clock.at_ms += 3_600_000
    for _ in range(3):
        throttle.begin({"k": 3})


def test_the_memory_of_failures_is_bounded() -> None:
    throttle = Throttle(Clock(), most_keys=100)
    for number in range(1_000):
        throttle.begin({f"user-{number}": 5, "address": 10_000})
    assert len(throttle) == 100


def test_an_address_that_sprays_over_accounts_is_slowed_too() -> None:
    throttle = Throttle(Clock(), most_keys=100)
    for number in range(50):
        throttle.begin({f"user-{number}": 5, "address": 50})
    with pytest.raises(Refusal):
        throttle.begin({"user-50": 5, "address": 50})


def test_an_account_that_is_not_there_takes_as_long_as_one_that_is() -> None:
    passwords = Passwords()
    stored = passwords.hash(PASSWORD)
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert passwords.is_right(stored, PASSWORD)
    assert not passwords.is_right(stored, "wrong")

    def cpu_s(known: str | None) -> float:
        # Of the process: the hash is worked out in threads of its own.
        began = time.process_time()
        assert not passwords.is_right(known, "wrong")
        return time.process_time() - began

    known, unknown = (min(cpu_s(each) for _ in range(2)) for each in (stored, None))
    assert 0.5 < unknown / known < 2
    assert not passwords.is_right("not a hash", "wrong")


def test_what_another_process_revokes_is_seen_within_a_second(world: World) -> None:
    clock = Clock()
    known = KnownTokens(world.store, clock)
    user, _ = world.store.user("member")
    hashed = digest(world.token(user, expires_ms=START_MS + 10_000_000))
    assert known.recent(hashed) is None
    assert known.look_up(hashed) is not None
    assert known.recent(hashed) is not None
    world.store.revoke(world.store.tokens(user.user_id)[0].token_id, clock(), "another process")
    assert known.recent(hashed) is not None
    clock.at_ms += 1_000
    assert known.recent(hashed) is None
    assert known.look_up(hashed) is None


def test_a_known_token_ends_on_time_and_with_a_clock_that_steps_back(world: World) -> None:
    clock = Clock()
    known = KnownTokens(world.store, clock)
    hashed = digest(world.token(world.store.user("member")[0], expires_ms=clock.at_ms + 500))
    assert known.look_up(hashed) is not None
    clock.at_ms += 501
    assert known.recent(hashed) is None
    clock.at_ms -= 10_000
    assert known.recent(hashed) is None


def test_a_secret_has_256_bits_and_a_prefix_to_be_found_by() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {len(secret) for secret in secrets} == {46}
    assert all(secret.startswith("wt_") for secret in secrets)
