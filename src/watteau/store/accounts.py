"""Accounts, their grants, and tokens, of which only the digests are kept."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from watteau.domain.people import Grant, Role, User
from watteau.domain.units import TenantId
from watteau.store import log
from watteau.store.answers import Token
from watteau.store.errors import Conflict, NotFound
from watteau.store.rows import is_plain, json_text, plain, possible
from watteau.store.tables import grants, tokens, users

#: The use of a token is noted this often: a write for each request would be too much.
NOTE_USE_EVERY_MS = 60_000


def add_user(
    connection: Connection, name: str, password_hash: str | None, granted: Sequence[Grant], now_ms: int, by: str
) -> User:
    """A new account. See Store.add_user."""
    if not is_plain(name):
        raise Conflict("a user's name cannot hold NUL or half a surrogate pair")
    log.lock(connection)  # so that whoever looks for the name finds all that were added before
    if connection.execute(select(users.c.user_id).where(users.c.name == name)).first() is not None:
        raise Conflict(f"there is a user {name} already")
    user_id = connection.execute(
        insert(users)
        .values(name=name, password_hash=password_hash, disabled=False, created_ms=now_ms)
        .returning(users.c.user_id)
    ).scalar_one()
    _grant(connection, user_id, granted)
    log.note(connection, by, "add user", f"user {name}", now_ms, {"grants": _words(granted)})
    return _user(connection, name)[0]


def user(connection: Connection, name: str) -> tuple[User, str | None]:
    """(account, password hash or None). Raises NotFound."""
    if not is_plain(name):
        raise NotFound("there is no user of that name")
    return _user(connection, name)


def all_users(connection: Connection) -> list[User]:
    """All accounts by name."""
    of: dict[int, list[Grant]] = {}
    for row in connection.execute(select(grants).order_by(grants.c.user_id, grants.c.position)):
        of.setdefault(row.user_id, []).append(Grant(Role(row.role), TenantId(row.tenant)))
    rows = connection.execute(select(users.c.user_id, users.c.name, users.c.disabled)).all()
    # Sorted here: the two databases do not order capitals alike.
    return [
        User(row.user_id, row.name, row.disabled, tuple(of.get(row.user_id, ())))
        for row in sorted(rows, key=lambda row: str(row.name))
    ]


def change_user(
    connection: Connection,
    name: str,
    now_ms: int,
    by: str,
    password_hash: str | None,
    disabled: bool | None,
    granted: Sequence[Grant] | None,
) -> User:
    """Change what is given. See Store.change_user."""
    log.lock(connection)
    account, _ = user(connection, name)
    said: dict[str, Any] = {}
    values: dict[str, Any] = {}
    if password_hash is not None:
        said["password"], values["password_hash"] = "new", password_hash
    if disabled is not None:
        said["disabled"] = values["disabled"] = disabled
    if values:
        connection.execute(update(users).where(users.c.user_id == account.user_id).values(**values))
    if granted is not None:
        said["grants"] = _words(granted)
        connection.execute(delete(grants).where(grants.c.user_id == account.user_id))
        _grant(connection, account.user_id, granted)
    if password_hash is not None or disabled:
        revoked = connection.execute(
            update(tokens)
            .where(tokens.c.user_id == account.user_id, tokens.c.revoked_ms.is_(None))
            .values(revoked_ms=now_ms)
            .returning(tokens.c.token_id)
        ).scalars()
        said["revoked_tokens"] = sorted(revoked)
    log.note(connection, by, "change user", f"user {name}", now_ms, said)
    return _user(connection, name)[0]


def add_token(
    connection: Connection,
    user_id: int,
    digest: str,
    label: str,
    scopes: Sequence[str],
    now_ms: int,
    expires_ms: int | None,
    by: str,
    one_time: bool,
) -> Token:
    """Keep a token by the digest of its secret. See Store.add_token."""
    log.lock(connection)
    owner = connection.execute(select(users.c.name).where(users.c.user_id == possible(user_id))).scalar()
    if owner is None:
        raise NotFound(f"there is no user with id {user_id}")
    if connection.execute(select(tokens.c.token_id).where(tokens.c.digest == digest)).first() is not None:
        raise Conflict("this token is there already")
    row = connection.execute(
        insert(tokens)
        .values(
            user_id=user_id,
            digest=digest,
            label=plain(label),
            scopes=json_text(list(scopes)),
            one_time=one_time,
            created_ms=now_ms,
            expires_ms=expires_ms,
        )
        .returning(tokens)
    ).one()
    what = {"user": owner, "label": label, "scopes": list(scopes), "expires_ms": expires_ms, "one_time": one_time}
    log.note(connection, by, "add token", f"token {row.token_id}", now_ms, what)
    return _token(row)


def usable_token(connection: Connection, digest: str, now_ms: int, *, one_time: bool) -> tuple[Token, User] | None:
    """The token and its account, when it may be used now."""
    if not is_plain(digest):
        return None
    rows = connection.execute(_TOKEN_AND_USER.where(tokens.c.digest == digest)).all()
    if not rows:
        return None
    row = rows[0]
    expired = row.expires_ms is not None and row.expires_ms <= now_ms
    if expired or row.revoked_ms is not None or row.disabled or bool(row.one_time) is not one_time:
        return None
    granted = tuple(Grant(Role(each.role), TenantId(each.tenant)) for each in rows if each.role is not None)
    return _token(row), User(row.user_id, row.name, row.disabled, granted)


_TOKEN_AND_USER = (
    select(tokens, users.c.name, users.c.disabled, grants.c.role, grants.c.tenant)
    .join_from(tokens, users)
    .outerjoin(grants, grants.c.user_id == users.c.user_id)
    .order_by(grants.c.position)
)


def note_use(connection: Connection, token_id: int, now_ms: int) -> None:
    """A token was used; two processes at once write it once."""
    connection.execute(
        update(tokens)
        .where(
            tokens.c.token_id == token_id,
            tokens.c.last_used_ms.is_(None) | (tokens.c.last_used_ms <= now_ms - NOTE_USE_EVERY_MS),
        )
        .values(last_used_ms=now_ms)
    )


def spend(connection: Connection, digest: str, now_ms: int) -> User | None:
    """Spend a one-time token. See Store.use_once."""
    log.lock(connection)
    found = usable_token(connection, digest, now_ms, one_time=True)
    if found is None:
        return None
    token, owner = found
    connection.execute(
        update(tokens).where(tokens.c.token_id == token.token_id).values(last_used_ms=now_ms, revoked_ms=now_ms)
    )
    log.note(connection, owner.name, "use token", f"token {token.token_id}", now_ms)
    return owner


def tokens_of(connection: Connection, user_id: int) -> list[Token]:
    """An account's tokens, newest first."""
    wanted = select(tokens).where(tokens.c.user_id == possible(user_id)).order_by(tokens.c.token_id.desc())
    return [_token(row) for row in connection.execute(wanted)]


def revoke(connection: Connection, token_id: int, now_ms: int, by: str) -> None:
    """A token is no longer valid. See Store.revoke."""
    log.lock(connection)
    found = connection.execute(select(tokens.c.revoked_ms).where(tokens.c.token_id == possible(token_id))).one_or_none()
    if found is None:
        raise NotFound(f"there is no token {token_id}")
    if found.revoked_ms is None:
        connection.execute(update(tokens).where(tokens.c.token_id == token_id).values(revoked_ms=now_ms))
        log.note(connection, by, "revoke token", f"token {token_id}", now_ms)


def _user(connection: Connection, name: str) -> tuple[User, str | None]:
    rows = connection.execute(
        select(users, grants.c.role, grants.c.tenant)
        .outerjoin_from(users, grants)
        .where(users.c.name == name)
        .order_by(grants.c.position)
    ).all()
    if not rows:
        raise NotFound(f"there is no user {name}")
    granted = tuple(Grant(Role(row.role), TenantId(row.tenant)) for row in rows if row.role is not None)
    return User(rows[0].user_id, rows[0].name, rows[0].disabled, granted), rows[0].password_hash


def _grant(connection: Connection, user_id: int, granted: Sequence[Grant]) -> None:
    if rows := [
        {"user_id": user_id, "position": position, "role": grant.role, "tenant": grant.tenant}
        for position, grant in enumerate(dict.fromkeys(granted))
    ]:
        connection.execute(insert(grants), rows)


def _token(row: Row[Any]) -> Token:
    return Token(
        token_id=row.token_id,
        user_id=row.user_id,
        label=row.label,
        scopes=tuple(json.loads(row.scopes)),
        one_time=row.one_time,
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
        last_used_ms=row.last_used_ms,
        revoked_ms=row.revoked_ms,
    )


def _words(granted: Sequence[Grant]) -> list[str]:
    return [f"{grant.role} of {grant.tenant}" for grant in granted]
