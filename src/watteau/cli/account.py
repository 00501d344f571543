"""`watteau login`, `logout`, `tokens`, `users`: who is asking, and who may ask."""

import platform
import sys
from typing import Annotated
from urllib.parse import urlsplit

import typer

from watteau.cli.exits import Exit
from watteau.cli.session import (
    AsJson,
    Yes,
    confirm,
    connected,
    fail,
    local,
    print_json,
    print_table,
    stop,
    warn,
)
from watteau.client import Client, NotAllowed, Settings, WatteauError
from watteau.domain.hosts import is_loopback
from watteau.domain.people import Role
from watteau.server.schemas import GrantBody, Scope, UserChangedView

__all__ = ["login", "logout", "tokens_app", "users_app"]

_DAY_S = 86_400


def login(
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="The server; without it, the one of WATTEAU_URL or of the last login."),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Log in with this account and a password.")] = None,
    one_time_token: Annotated[
        str | None,
        typer.Option("--one-time-token", "-t", help="As the server or a manager gave it; asked for when left out."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="What the new token is called; this machine's name when left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Log in to a server, with a one-time token or a password. Nothing secret is shown, or kept but the new token."""
    settings = Settings.load()
    address = url or settings.url
    if user and one_time_token:
        fail("give --user or --one-time-token, not both")
    try:
        with Client(address, "", retries=2) as client:
            parts = urlsplit(client.url)
            if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
                warn(f"what you send to {client.url} is not encrypted on its way: use https")
            named = (label or platform.node() or "login")[:128]
            if user:
                made = client.login(user=user, password=_secret("password"), label=named)
            else:
                secret = one_time_token or _secret("one-time token")
                made = client.login(one_time_token=secret, label=named)
            saved = Settings(client.url, made.token)
    except NotAllowed as error:
        fail(str(error), Exit.NOT_ALLOWED)
    except WatteauError as error:
        stop(error)
    try:
        saved.save()
    except OSError as error:
        fail(f"logged in, but {Settings.path()} cannot be written ({error.strerror}): the token is not kept")
    if as_json:
        print_json({"url": saved.url, "user": made.user, "token": made.about.model_dump(mode="json")})
        return
    until = f"; the token ends {local(made.about.expires_at)}" if made.about.expires_at else ""
    typer.echo(f"logged in to {saved.url} as {made.user}{until}")


def _secret(what: str) -> str:
    """Asked for without showing it on a terminal; else the first line of stdin."""
    if sys.stdin.isatty():
        return str(typer.prompt(what, hide_input=True, err=True)).strip()
    line = sys.stdin.readline().rstrip("\n")
    if not line:
        fail(f"no {what}: there is nobody to ask, and nothing on stdin")
    return line if what == "password" else line.strip()


def logout() -> None:
    """Log out: revoke this machine's token and forget it."""
    settings = Settings.load()
    if not settings.token:
        typer.echo("not logged in")
        return
    trouble: WatteauError | None = None
    try:
        with Client(settings.url, settings.token, retries=1) as client:
            client.logout()
    except NotAllowed:
        pass  # it was not valid any more
    except WatteauError as error:
        trouble = error
    try:
        settings.without_token().save()
    except OSError as error:
        fail(f"{Settings.path()} cannot be written ({error.strerror}): the token is still there")
    if trouble is not None:
        warn("the token is forgotten here, but could not be revoked: it stays valid until it ends")
        stop(trouble)
    typer.echo(f"logged out of {settings.url}")


# --- tokens ---------------------------------------------------------------------------------------------------------

tokens_app = typer.Typer(
    name="tokens", help="Your API tokens: list, make, revoke.", no_args_is_help=True, add_completion=False
)


@tokens_app.callback()
def tokens_root() -> None:
    """Your API tokens: list, make, revoke."""


@tokens_app.command("list")
def list_tokens(as_json: AsJson = False) -> None:
    """Your tokens, newest first. Their secrets are not kept anywhere."""
    with connected() as client:
        found = client.tokens()
    if as_json:
        print_json(found)
        return
    rows = [
        [
            str(each.id),
            each.label,
            ",".join(each.scopes),
            local(each.created_at, "minutes"),
            "revoked" if each.revoked_at else local(each.expires_at, "minutes") or "never",
            local(each.last_used_at, "minutes") or "never",
        ]
        for each in found
    ]
    print_table(["ID", "LABEL", "SCOPES", "MADE", "ENDS", "USED"], rows, right=[0], long=[1, 2])


@tokens_app.command("add")
def add_token(
    label: Annotated[str, typer.Argument(metavar="LABEL", help="What it is for, for example `ci`.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option("--scope", help="read, submit or admin; may be given several times. Without it: read and submit."),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=3_650, help="It ends after so many days; else never.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token. It is shown once, alone on stdout."""
    scopes = scope or [Scope.READ, Scope.SUBMIT]
    with connected() as client:
        made = client.add_token(label, scopes, None if days is None else days * _DAY_S)
    if as_json:
        print_json(made)
        return
    typer.echo(made.token)
    typer.echo(f"token {made.about.id} of {made.user}; it is not shown again", err=True)


@tokens_app.command("revoke")
def revoke_token(
    token_ids: Annotated[list[int], typer.Argument(metavar="ID...", help="Numbers as `watteau tokens list` shows.")],
) -> None:
    """Tokens are no longer valid."""
    with connected() as client:
        for token_id in token_ids:
            client.revoke_token(token_id)
            typer.echo(f"revoked token {token_id}")


# --- users ----------------------------------------------------------------------------------------------------------

users_app = typer.Typer(name="users", help="Accounts: list, add, change.", no_args_is_help=True, add_completion=False)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.")]
Grants = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        metavar="ROLE:TENANT",
        help=f"A role on a tenant and all below it ({', '.join(Role)}); may be given several times.",
    ),
]
AskPassword = Annotated[
    bool, typer.Option("--password", help="Ask for a password (or read it from stdin) instead of a one-time token.")
]


@users_app.callback()
def users_root() -> None:
    """Accounts: list, add, change."""


@users_app.command("list")
def list_users(as_json: AsJson = False) -> None:
    """Accounts that you may see, with their roles."""
    with connected() as client:
        found = client.users()
    if as_json:
        print_json(found)
        return
    rows = [
        [
            each.name,
            "disabled" if each.disabled else "active",
            ", ".join(f"{grant.role}:{grant.tenant}" for grant in each.grants),
        ]
        for each in found
    ]
    print_table(["NAME", "STATE", "ROLES"], rows, long=[0, 2])


@users_app.command("add")
def add_user(name: Name, role: Grants = None, password: AskPassword = False, as_json: AsJson = False) -> None:
    """Make an account. Its owner's one-time token is shown once, unless you set a password."""
    grants = _grants(role)
    if not grants:
        fail("give at least one --role, for example --role member:TENANT")
    with connected() as client:
        made = client.add_user(name, grants, _secret("password") if password else None)
    _print_changed(made, f"made the account {name}", as_json)


@users_app.command("change")
def change_user(
    name: Name,
    role: Grants = None,
    password: AskPassword = False,
    disable: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Whether it can do nothing; disabling revokes its tokens.")
    ] = None,
    invite: Annotated[
        bool, typer.Option("--invite", help="A one-time token for an owner who has lost the way in.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Change an account. Roles that are given replace all that it has."""
    if role is None and not password and disable is None and not invite:
        fail("nothing to change: give --role, --password, --disable, --enable or --invite")
    if disable:
        confirm(f"disable {name} and revoke all its tokens?", yes)
    with connected() as client:
        made = client.change_user(
            name,
            password=_secret("password") if password else None,
            disabled=disable,
            grants=_grants(role) if role is not None else None,
            one_time_token=invite,
        )
    _print_changed(made, f"changed the account {name}", as_json)


def _grants(words: list[str] | None) -> list[GrantBody]:
    found = []
    for word in words or []:
        role, colon, tenant = word.partition(":")
        if not colon or not tenant or role not in list(Role):
            fail(f"--role: {word!r}; expected ROLE:TENANT with one of {', '.join(Role)}")
        found.append(GrantBody(role=Role(role), tenant=tenant))
    return found


def _print_changed(made: UserChangedView, text: str, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    if made.one_time_token is None:
        typer.echo(text)
        return
    typer.echo(made.one_time_token)
    typer.echo(f"{text}; its owner logs in with this token once, within a week: watteau login", err=True)
