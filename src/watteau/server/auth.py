"""Proof of who someone is: passwords, API tokens, the first way in, and the brake on guessing."""

import hashlib
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from watteau.domain.people import Grant, Role, User
from watteau.domain.units import TenantId
from watteau.server.problems import Refusal
from watteau.server.schemas import Scope
from watteau.store.store import Conflict, NotFound, Store, Token

FIRST_USER = "admin"
ONE_TIME_MS = 7 * 86_400_000
_PREFIX = "wt_"
_TOKEN_CHARS = len(_PREFIX) + 43


def new_secret() -> str:
    """A token's secret: 256 random bits behind `wt_`, by which a leaked one can be found in files."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is stored of a token. A plain hash is enough for 256 random bits; nobody can guess through them."""
    return hashlib.sha256(secret.encode()).hexdigest()


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header, when it has the form of one of ours."""
    kind, _, secret = (header or "").partition(" ")
    secret = secret.strip()
    is_ours = kind.lower() == "bearer" and secret.startswith(_PREFIX) and len(secret) == _TOKEN_CHARS
    return secret if is_ours and secret.isascii() else None


def first_start(store: Store, root: TenantId, now_ms: int) -> str | None:
    """A way in for the person at the machine, when nobody has one: a one-time token for `admin`, or None.

    Makes the account with the role of operator on the root tenant. When it is there and can neither log in nor be
    helped (the token was never used and has ended, or was lost in a crash), it gets a new token; when the fleet has
    another root than before and so no operator, `admin` is made one again.
    """
    wanted = Grant(Role.OPERATOR, root)
    users = store.users()
    if not users:
        try:
            admin = store.add_user(FIRST_USER, None, [wanted], now_ms, "first start")
        except Conflict:
            return None  # another process was first, and prints its token
    elif any(wanted in user.grants and _has_a_way_in(store, user, now_ms) for user in users if not user.disabled):
        return None
    else:
        try:
            admin, _ = store.user(FIRST_USER)
        except NotFound:
            return None
        if admin.disabled:
            return None
        if wanted not in admin.grants:
            admin = store.change_user(FIRST_USER, now_ms, "first start", grants=[*admin.grants, wanted])
            if _has_a_way_in(store, admin, now_ms):
                return None
    return one_time_token(store, admin, now_ms, "first start")


def one_time_token(store: Store, user: User, now_ms: int, by: str) -> str:
    """A secret that is good for one login within a week."""
    secret = new_secret()
    scopes = [each.value for each in Scope]
    store.add_token(user.user_id, digest(secret), "one-time", scopes, now_ms, now_ms + ONE_TIME_MS, by, one_time=True)
    return secret


def _has_a_way_in(store: Store, user: User, now_ms: int) -> bool:
    if store.user(user.name)[1] is not None:
        return True
    return any(
        token.revoked_ms is None
        and (token.expires_ms is None or token.expires_ms > now_ms)
        and not (token.one_time and token.last_used_ms is not None)
        for token in store.tokens(user.user_id)
    )


class KnownTokens:
    """Tokens that were looked up within the last second, so that a busy client does not ask the database each time.

    What this process changes about tokens and accounts is seen at once (`forget`); what another one does, within that
    second. Memory is bounded; a clock that steps back lets nothing live longer.
    """

    _KEEP_MS = 1_000
    _MOST = 10_000

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._found: dict[str, tuple[int, Token, User]] = {}
        self._forgotten = 0  # how often, so that a look-up that began before does not come back after

    def recent(self, hashed: str) -> tuple[Token, User] | None:
        """The token and its account if it was looked up just now; asks no database."""
        now_ms = self._now_ms()
        known = self._found.get(hashed)
        if known is None or not 0 <= now_ms - known[0] < self._KEEP_MS:
            return None
        _, token, user = known
        return None if token.expires_ms is not None and token.expires_ms <= now_ms else (token, user)

    def look_up(self, hashed: str) -> tuple[Token, User] | None:
        """The same from the database."""
        forgotten, now_ms = self._forgotten, self._now_ms()
        found = self._store.token(hashed, now_ms)
        if found is not None and forgotten == self._forgotten:
            if len(self._found) >= self._MOST:
                self._found = {}
            self._found[hashed] = (now_ms, *found)
        return found

    def forget(self) -> None:
        """Something about tokens or accounts was changed."""
        self._forgotten += 1
        self._found = {}


class Passwords:
    """argon2id with the library's parameters (RFC 9106, low memory: 64 MiB, three passes)."""

    #: Of no password: checked when there is no such user, so that the answer takes as long.
    _NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    _AT_ONCE = 2  # each takes 64 MiB: a crowd of logins must not take the machine's memory
    _LONGEST_WAIT_S = 5.0

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._turn = BoundedSemaphore(self._AT_ONCE)

    def hash(self, password: str) -> str:
        """What is stored of a password."""
        with self._Turn(self._turn, self._LONGEST_WAIT_S):
            return self._hasher.hash(password)

    def is_right(self, stored: str | None, password: str) -> bool:
        """Whether it is the password; takes as long when there is none."""
        with self._Turn(self._turn, self._LONGEST_WAIT_S):
            try:
                return self._hasher.verify(stored or self._NOBODY, password) and stored is not None
            except (VerificationError, InvalidHashError):
                return False

    class _Turn:
        def __init__(self, turn: BoundedSemaphore, longest_wait_s: float) -> None:
            self._turn = turn
            self._longest_wait_s = longest_wait_s

        def __enter__(self) -> None:
            if not self._turn.acquire(timeout=self._longest_wait_s):
                raise Refusal(503, "busy", "Too many logins at once; try again.", retry_after_s=5)

        def __exit__(self, *_: object) -> None:
            self._turn.release()


@dataclass(slots=True)
class _Failures:
    count: int
    last_ms: int


class Throttle:
    """Slows guessing: after some failures of a key, each further one doubles the wait, up to a quarter of an hour.

    A try counts as failed from its beginning, so that many at once do not slip through; success forgets it. Of the
    keys only the latest are kept: memory is bounded whatever is sent.
    """

    _FIRST_WAIT_MS = 2_000
    _LONGEST_WAIT_MS = 900_000
    _FORGOTTEN_AFTER_MS = 4 * _LONGEST_WAIT_MS  # later than the longest wait ends, else waiting it out would pay

    def __init__(self, now_ms: Callable[[], int], most_keys: int = 10_000) -> None:
        self._now_ms = now_ms
        self._most_keys = most_keys
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._failures)

    def begin(self, free_tries: Mapping[str, int]) -> None:
        """Count a try against each key, of which so many are free. Raises Refusal (429), not counted, to wait first."""
        now_ms = self._now_ms()
        with self._lock:
            wait_ms = max(self._wait_ms(key, free, now_ms) for key, free in free_tries.items())
            if wait_ms > 0:
                seconds = math.ceil(wait_ms / 1000)
                raise Refusal(
                    429, "too_many_tries", f"Too many failed logins; try again in {seconds} s.", retry_after_s=seconds
                )
            for key in free_tries:
                failed = self._failures.pop(key, None)
                if failed is None or now_ms - failed.last_ms > self._FORGOTTEN_AFTER_MS:
                    failed = _Failures(0, now_ms)
                failed.count += 1
                failed.last_ms = now_ms
                self._failures[key] = failed
            while len(self._failures) > self._most_keys:
                self._failures.popitem(last=False)

    def succeeded(self, keys: Iterable[str], forget: str) -> None:
        """The try did not fail: take it back from each key, and forget all that was counted against one."""
        with self._lock:
            self._failures.pop(forget, None)
            for key in keys:
                failed = self._failures.get(key)
                if failed is not None:
                    failed.count -= 1
                    if not failed.count:
                        del self._failures[key]

    def _wait_ms(self, key: str, free: int, now_ms: int) -> int:
        failed = self._failures.get(key)
        if failed is None or failed.count < free:
            return 0
        wait_ms = min(self._LONGEST_WAIT_MS, self._FIRST_WAIT_MS << min(failed.count - free, 20))
        return failed.last_ms + wait_ms - now_ms


def scopes_of(token: Token) -> frozenset[Scope]:
    """What a stored token may be used for; words that this version does not know give nothing."""
    return frozenset(Scope(word) for word in token.scopes if word in set(Scope))
