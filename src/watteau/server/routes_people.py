"""Accounts, tokens, logging in and the audit log over HTTP."""

import contextlib
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi import Request as HttpRequest

from watteau.domain.people import Grant, User
from watteau.server.access import RULES
from watteau.server.auth import digest, new_secret, one_time_token
from watteau.server.problems import Refusal, documented, invalid, not_found
from watteau.server.schemas import (
    AuditPageView,
    AuditView,
    GrantBody,
    LoginBody,
    MeView,
    NewTokenView,
    OkView,
    Scope,
    TokenBody,
    TokensView,
    TokenView,
    UserBody,
    UserChangeBody,
    UserChangedView,
    UsersView,
    UserView,
    moment,
    moment_or_none,
)
from watteau.server.service import (
    Access,
    RawJson,
    Services,
    UserAccess,
    at,
    guard,
    guard_user,
    parse,
    services_of,
    takes,
)
from watteau.store.store import NotFound, Token

router = APIRouter(prefix="/api/v1", tags=["people"])

Anyone = Annotated[Access, Depends(guard)]
OnUser = Annotated[UserAccess, Depends(guard_user)]

#: Failed tries before an address must wait for one account, for any account, and an account for any address.
_FREE_TRIES, _FREE_TRIES_OF_ADDRESS, _FREE_TRIES_OF_ACCOUNT = 5, 50, 50
_AUDIT_LINES_AT_ONCE = 1_000


# --- logging in -------------------------------------------------------------------------------------------------------


@router.post(
    "/login",
    operation_id="login",
    summary="Get a token",
    status_code=201,
    responses=documented(400, 401, 413, 415, 422, 429),
    openapi_extra=takes(LoginBody),
)
def login(http: HttpRequest, raw: RawJson) -> NewTokenView:
    """Exchange a one-time token, or a user's password, for an API token. After some failures one must wait."""
    services = services_of(http)
    body = parse(LoginBody, raw)
    address = http.client.host if http.client else ""
    name = "" if body.user is None else body.user
    both = f"{name}@{address}"
    tries = {both: _FREE_TRIES, f"address {address}": _FREE_TRIES_OF_ADDRESS}
    if name:
        tries[f"account {name}"] = _FREE_TRIES_OF_ACCOUNT
    services.throttle.begin(tries)
    user = _proven(services, body)
    if user is None or user.disabled:
        services.log.warning("login failed", request_id=http.state.request_id, address=address)
        raise Refusal(401, "login_failed", "The login is not right, or the account is disabled.")
    services.throttle.succeeded(tries, forget=both)
    http.state.user = user.name
    scopes = body.scopes or tuple(Scope)
    return _new_token(services, user, body.label, scopes, services.now_ms() + body.expires_in_s * 1000)


def _proven(services: Services, body: LoginBody) -> User | None:
    """Whose login it is; None when it is not right. Takes as long for an account that is not there."""
    if body.one_time_token is not None:
        return services.store.use_once(digest(body.one_time_token), services.now_ms())
    user, stored = None, None
    with contextlib.suppress(NotFound):
        user, stored = services.store.user(str(body.user))
    return user if services.passwords.is_right(stored, str(body.password)) else None


@router.post("/logout", operation_id="logout", summary="Revoke the token in use", responses=documented(401, 422))
def logout(access: Anyone) -> OkView:
    """The token that this is asked with is no longer valid."""
    services, caller = access.services, access.caller
    services.store.revoke(caller.token_id, services.now_ms(), caller.user.name)
    services.known_tokens.forget()
    return OkView(ok=True)


@router.get("/me", operation_id="show_me", summary="Who am I?", responses=documented(401, 422))
def show_me(access: Anyone) -> MeView:
    """The account behind the token, and what both allow."""
    caller = access.caller
    return MeView(
        user=_user_view(caller.user),
        scopes=tuple(sorted(caller.scopes)),
        token_expires_at=moment_or_none(caller.expires_ms),
        allowed=tuple(sorted(each for each in RULES if caller.in_scope(each) and caller.reaches_somewhere(each))),
    )


# --- tokens -----------------------------------------------------------------------------------------------------------


@router.get("/tokens", operation_id="list_tokens", summary="My tokens", responses=documented(401, 403, 422))
def list_tokens(access: Anyone) -> TokensView:
    """The caller's own tokens, newest first, without their secrets."""
    tokens = access.services.store.tokens(access.caller.user.user_id)
    return TokensView(tokens=tuple(_token_view(token) for token in tokens))


@router.post(
    "/tokens",
    operation_id="add_token",
    summary="Make a token",
    status_code=201,
    responses=documented(400, 401, 403, 413, 415, 422),
    openapi_extra=takes(TokenBody),
)
def add_token(access: Anyone, raw: RawJson) -> NewTokenView:
    """Make a token for oneself, with at most the scopes of the one in use."""
    body = parse(TokenBody, raw)
    beyond = set(body.scopes) - access.caller.scopes
    if beyond:
        raise Refusal(403, "out_of_scope", f"This token lacks the scope {', '.join(sorted(beyond))} itself.")
    services = access.services
    expires_ms = None if body.expires_in_s is None else services.now_ms() + body.expires_in_s * 1000
    return _new_token(services, access.caller.user, body.label, body.scopes, expires_ms)


@router.delete(
    "/tokens/{token_id}",
    operation_id="revoke_token",
    summary="Revoke a token",
    responses=documented(401, 403, 404, 422),
)
def revoke_token(
    access: Anyone,
    token_id: Annotated[int, Path(ge=1, le=2**63 - 1, description="One of the caller's own tokens.", examples=[3])],
) -> OkView:
    """One of the caller's own tokens is no longer valid. Revoking it again changes nothing."""
    services, user = access.services, access.caller.user
    token = next((each for each in services.store.tokens(user.user_id) if each.token_id == token_id), None)
    if token is None:
        raise not_found(f"token {token_id} of yours")
    if token.revoked_ms is None:
        services.store.revoke(token_id, services.now_ms(), user.name)
        services.known_tokens.forget()
    return OkView(ok=True)


def _new_token(
    services: Services, user: User, label: str, scopes: tuple[Scope, ...], expires_ms: int | None
) -> NewTokenView:
    secret = new_secret()
    words = sorted({scope.value for scope in scopes})
    token = services.store.add_token(
        user.user_id, digest(secret), label, words, services.now_ms(), expires_ms, user.name
    )
    return NewTokenView(token=secret, user=user.name, about=_token_view(token))


def _token_view(token: Token) -> TokenView:
    return TokenView(
        id=token.token_id,
        label=token.label,
        scopes=tuple(Scope(word) for word in token.scopes if word in set(Scope)),
        one_time=token.one_time,
        created_at=moment(token.created_ms),
        expires_at=moment_or_none(token.expires_ms),
        last_used_at=moment_or_none(token.last_used_ms),
        revoked_at=moment_or_none(token.revoked_ms),
    )


# --- accounts ---------------------------------------------------------------------------------------------------------


@router.get("/users", operation_id="list_users", summary="Accounts", responses=documented(401, 403, 422))
def list_users(access: Anyone) -> UsersView:
    """Accounts that hold a role in the caller's part of the tenant tree."""
    seen = [user for user in access.services.store.users() if access.caller.sees_user(user)]
    return UsersView(users=tuple(_user_view(user) for user in seen))


@router.post(
    "/users",
    operation_id="add_user",
    summary="Make an account",
    status_code=201,
    responses=documented(400, 401, 403, 409, 413, 415, 422),
    openapi_extra=takes(UserBody),
)
def add_user(access: Anyone, raw: RawJson) -> UserChangedView:
    """Make an account with roles that the caller may give. Without a password it comes with a one-time token."""
    body = parse(UserBody, raw)
    grants = _givable(access, body.grants)
    services, by = access.services, access.caller.user.name
    stored = None if body.password is None else services.passwords.hash(body.password)
    user = services.store.add_user(body.name, stored, grants, services.now_ms(), by)
    secret = one_time_token(services.store, user, services.now_ms(), by) if body.password is None else None
    return UserChangedView(user=_user_view(user), one_time_token=secret)


@router.patch(
    "/users/{name}",
    operation_id="change_user",
    summary="Change an account",
    responses=documented(400, 401, 403, 404, 413, 415, 422),
    openapi_extra=takes(UserChangeBody),
)
def change_user(access: OnUser, raw: RawJson) -> UserChangedView:
    """Change an account that holds only roles which the caller may give; of one's own only the password."""
    body = parse(UserChangeBody, raw)
    services, by, name = access.services, access.caller.user, access.user.name
    is_own = access.user.user_id == by.user_id
    if is_own and (body.disabled is not None or body.grants is not None or body.one_time_token):
        raise Refusal(403, "forbidden", "Of your own account you may change the password; for the rest ask another.")
    grants = None if body.grants is None else _givable(access, body.grants)
    stored = None if body.password is None else services.passwords.hash(body.password)
    user = access.user
    if stored is not None or body.disabled is not None or grants is not None:
        user = services.store.change_user(
            name, services.now_ms(), by.name, password_hash=stored, disabled=body.disabled, grants=grants
        )
        services.known_tokens.forget()
    secret = one_time_token(services.store, user, services.now_ms(), by.name) if body.one_time_token else None
    return UserChangedView(user=_user_view(user), one_time_token=secret)


def _givable(access: Access, wanted: tuple[GrantBody, ...]) -> list[Grant]:
    """The grants as domain values, each once. Raises Refusal: no such tenant (422), not the caller's to give (403)."""
    grants = list(dict.fromkeys(each.grant() for each in wanted))
    seen = access.caller.part("list_tenants")
    errors = [
        at(f"/grants/{position}/tenant", f"there is no tenant {each.tenant!r}")
        for position, each in enumerate(wanted)
        if each.tenant not in seen
    ]
    if errors:
        raise invalid(errors)
    if not access.caller.may_give(grants):
        raise Refusal(403, "forbidden", "None of your roles allows you to give all these roles there.")
    return grants


def _user_view(user: User) -> UserView:
    return UserView.of(user.name, user.disabled, user.grants)


# --- audit ------------------------------------------------------------------------------------------------------------


@router.get("/audit", operation_id="read_audit", summary="The audit log", responses=documented(401, 403, 422))
def read_audit(
    access: Anyone,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="Only what came after this seq.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000, description="At most so many lines.")] = 100,
) -> AuditPageView:
    """Who did what, oldest first; below the root of the tree, only what accounts of the caller's part did."""
    store, caller = access.services.store, access.caller
    names = None
    if not caller.is_over_all(access.operation):
        part = caller.part(access.operation)
        names = {user.name for user in store.users() if any(grant.tenant in part for grant in user.grants)}
    lines: list[AuditView] = []
    while True:
        read = store.audit_lines(after, _AUDIT_LINES_AT_ONCE)
        for line in read:
            if len(lines) == limit:
                return AuditPageView(lines=tuple(lines), next_after=after)
            after = line.seq
            if names is None or line.user in names:
                lines.append(
                    AuditView(
                        seq=line.seq,
                        at=moment(line.at_ms),
                        user=line.user,
                        action=line.action,
                        target=line.target,
                        data=dict(line.data),
                    )
                )
        if len(read) < _AUDIT_LINES_AT_ONCE:
            return AuditPageView(lines=tuple(lines), next_after=None)
