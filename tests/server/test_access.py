"""Every route, crossed with every role, a foreign tenant, an account without roles, and nobody at all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi.routing import APIRoute

from tests.server.world import EVERYTHING, TREE, World
from watteau.domain.people import Role
from watteau.domain.units import TenantId
from watteau.server.access import RULES, Tree
from watteau.server.api import OPENAPI_PATH, unguarded
from watteau.server.schemas import Scope

#: The columns of the table. The first five hold that role on `alpha`; `stranger` owns `beta`; `nobody` holds no role.
WHO = ("operator", "programme_manager", "tenant_owner", "member", "auditor", "stranger", "nobody", None)
ANY = "any"


@dataclass(frozen=True)
class Row:
    """One operation: how it is asked for, what each of WHO gets, and the scope that it needs."""

    method: str
    path: str
    statuses: tuple[int, ...]
    scope: str | None
    rest: dict[str, Any] = field(default_factory=dict)


READ_JOB = (200, 200, 200, 200, 200, 404, 404, 401)
READ = (200, 200, 200, 200, 200, 200, 403, 401)
CHANGE_JOB = (200, 403, 200, 403, 403, 404, 404, 401)
SUBMIT = (201, 403, 201, 201, 403, 422, 403, 401)
OWN = (200, 200, 200, 200, 200, 200, 200, 401)
PUBLIC = (200,) * 8

A_JOB = {"name": "x", "command": ["true"], "tenant": "alpha-lab"}
A_SETTING = {"mode": "observe", "fenced": False, "why": "a test"}
A_USER = {"name": "new", "grants": [{"role": "member", "tenant": "alpha-lab"}]}

#: {job} is a colleague's job at alpha-lab; {user} is that colleague; {token} is one of theirs.
TABLE: dict[str, Row] = {
    "submit_job": Row("POST", "/jobs", SUBMIT, "submit", {"json": A_JOB}),
    "submit_jobs": Row("POST", "/jobs/bulk", SUBMIT, "submit", {"json": {"jobs": [A_JOB, A_JOB]}}),
    "list_jobs": Row("GET", "/jobs", READ, "read"),
    "show_job": Row("GET", "/jobs/{job}", READ_JOB, "read"),
    "explain_job": Row("GET", "/jobs/{job}/why", READ_JOB, "read"),
    "tell_job": Row("GET", "/jobs/{job}/story", READ_JOB, "read"),
    "list_attempts": Row("GET", "/jobs/{job}/attempts", READ_JOB, "read"),
    "read_log": Row("GET", "/jobs/{job}/log", READ_JOB, "read"),
    "wait_job": Row("GET", "/jobs/{job}/wait", READ_JOB, "read"),
    "cancel_job": Row("POST", "/jobs/{job}/cancel", CHANGE_JOB, "submit"),
    "hold_job": Row("POST", "/jobs/{job}/hold", CHANGE_JOB, "submit"),
    "release_job": Row("POST", "/jobs/{job}/release", CHANGE_JOB, "submit"),
    "watch_events": Row("GET", "/events?after=0", READ, "read"),
    "list_sites": Row("GET", "/sites", READ, "read"),
    "show_site": Row("GET", "/sites/paris", READ, "read"),
    "set_site": Row("PUT", "/sites/paris", (403,) * 7 + (401,), "admin", {"json": A_SETTING}),  # none is over the root
    "list_site_nodes": Row("GET", "/sites/paris/nodes", READ, "read"),
    "list_differences": Row("GET", "/sites/paris/differences", READ, "read"),
    "list_site_jobs": Row("GET", "/sites/paris/jobs", READ, "read"),
    "report_usage": Row("GET", "/usage?by=user", READ, "read"),
    "report_energy": Row("GET", "/energy?hourly=false", READ, "read"),
    "list_tenants": Row("GET", "/tenants", READ, "read"),
    "list_users": Row("GET", "/users", (200, 200, 200, 403, 200, 200, 403, 401), "read"),
    "add_user": Row("POST", "/users", (201, 201, 201, 403, 403, 422, 403, 401), "admin", {"json": A_USER}),
    "change_user": Row(
        "PATCH", "/users/{user}", (200, 200, 200, 404, 403, 404, 404, 401), "admin", {"json": {"disabled": True}}
    ),
    "read_audit": Row("GET", "/audit", (200, 403, 403, 403, 200, 403, 403, 401), "read"),
    "login": Row("POST", "/login", (422,) * 8, ANY, {"json": {"user": "x"}}),
    "logout": Row("POST", "/logout", OWN, None),
    "show_me": Row("GET", "/me", OWN, None),
    "list_tokens": Row("GET", "/tokens", OWN, "read"),
    "add_token": Row("POST", "/tokens", (201,) * 7 + (401,), "admin", {"json": {"label": "x", "scopes": ["admin"]}}),
    "revoke_token": Row("DELETE", "/tokens/{token}", (404,) * 7 + (401,), "admin"),
    "is_alive": Row("GET", "/healthz", PUBLIC, ANY),
    "is_ready": Row("GET", "/readyz", PUBLIC, ANY),
    "read_metrics": Row("GET", "/metrics", PUBLIC, ANY),
    "read_report": Row("GET", "/report", (404,) * 8, ANY),  # there is none outside a demonstration
}


@pytest.fixture
def with_colleague(world: World) -> World:
    """Streams end at once, so that they can be asked for like anything else."""
    world.person("colleague", (Role.MEMBER, "alpha"))
    world.by_hand("1", "alpha-lab", world.clock(), None, gpus=1)
    world.live.found = []
    world.app.state.services.pulse.close()
    return world


def places(world: World) -> dict[str, object]:
    """What the words in the paths stand for: new things each time, as some requests use them up."""
    colleague, _ = world.store.user("colleague")
    if colleague.disabled:
        world.store.change_user("colleague", world.clock(), "test", disabled=False)
    return {
        "job": world.job("colleague", "alpha-lab").job_id,
        "user": "colleague",
        "token": world.store.tokens(colleague.user_id)[0].token_id,
    }


def asked(world: World, who: str | None, row: Row) -> Any:
    rest = dict(row.rest)
    if rest.get("json") == A_USER:
        rest["json"] = A_USER | {"name": f"new-{world.clock()}"}
    return world.ask(who, row.method, row.path.format(**places(world)), **rest)


def test_the_table_has_a_row_for_every_route(world: World) -> None:
    found = {route.operation_id for route in world.app.router.routes if isinstance(route, APIRoute)}
    assert found == TABLE.keys() == RULES.keys()
    others = [route for route in world.app.router.routes if not isinstance(route, APIRoute)]
    assert [getattr(route, "path", "") for route in others] == [OPENAPI_PATH]


@pytest.mark.parametrize("operation", TABLE)
def test_every_route_with_every_role(with_colleague: World, operation: str) -> None:
    row = TABLE[operation]
    got = tuple(asked(with_colleague, who, row).status_code for who in WHO)
    assert dict(zip(WHO, got, strict=True)) == dict(zip(WHO, row.statuses, strict=True))


@pytest.mark.parametrize("operation", [name for name, row in TABLE.items() if row.statuses[5] < 300])
def test_a_stranger_learns_nothing_of_another_tenant(with_colleague: World, operation: str) -> None:
    if operation in ("read_metrics", "list_sites"):
        return  # figures of the whole fleet, which name no tenant
    for _ in range(2):
        job = with_colleague.job("colleague", "alpha-lab", name="alpha-secret")
        with_colleague.start(job.job_id)
    said = asked(with_colleague, "stranger", TABLE[operation])
    assert said.status_code < 300
    assert "alpha" not in said.text
    assert "colleague" not in said.text


@pytest.mark.parametrize("operation", TABLE)
@pytest.mark.parametrize("scope", EVERYTHING)
def test_a_token_is_good_for_its_scopes_only(with_colleague: World, operation: str, scope: str) -> None:
    row = TABLE[operation]
    user, _ = with_colleague.store.user("operator")
    with_colleague.tokens["scoped"] = with_colleague.token(user, (scope,))
    said = asked(with_colleague, "scoped", row)
    if row.scope in (scope, None, ANY):
        beyond = operation == "add_token" and scope != "admin"
        assert said.status_code == (403 if beyond else row.statuses[0])
    else:
        assert said.status_code == 403
        assert said.json()["code"] == "out_of_scope"


@pytest.mark.parametrize("what", ["cancel", "hold", "release"])
def test_a_member_changes_their_own_jobs(world: World, what: str) -> None:
    job = world.job("member", "alpha-lab")
    assert world.ask("member", "POST", f"/jobs/{job.job_id}/{what}").status_code == 200


def test_a_job_of_a_tenant_that_is_left_is_no_longer_ones_own(world: World) -> None:
    job = world.job("member", "beta")
    assert world.ask("member", "GET", f"/jobs/{job.job_id}").status_code == 404


def test_a_role_below_does_not_reach_up_or_aside(world: World) -> None:
    world.person("lab", (Role.TENANT_OWNER, "alpha-lab"))
    aside = world.job("member", "alpha-prod")
    below = world.job("member", "alpha-lab")
    assert world.ask("lab", "GET", f"/jobs/{aside.job_id}").status_code == 404
    assert world.ask("lab", "POST", f"/jobs/{below.job_id}/cancel").status_code == 200
    assert [each["id"] for each in world.ask("lab", "GET", "/tenants").json()["tenants"]] == ["alpha-lab"]


def test_roles_on_different_parts_add_up_and_do_not_mix(world: World) -> None:
    world.person("both", (Role.AUDITOR, "alpha"), (Role.MEMBER, "beta"))
    job = world.job("member", "alpha-lab")
    assert world.ask("both", "GET", f"/jobs/{job.job_id}").status_code == 200
    assert world.ask("both", "POST", f"/jobs/{job.job_id}/cancel").status_code == 403
    assert world.ask("both", "POST", "/jobs", json={"command": ["true"]}).json()["tenant"] == "beta"
    assert world.ask("both", "POST", "/jobs", json=A_JOB).status_code == 403


def test_jobs_of_a_former_fleet_are_seen_by_the_operator_of_all(world: World) -> None:
    job = world.job("member", "gone")
    assert world.ask("root", "GET", f"/jobs/{job.job_id}").status_code == 200
    assert [each["id"] for each in world.ask("root", "GET", "/jobs").json()["jobs"]] == [job.job_id]
    assert world.ask("operator", "GET", f"/jobs/{job.job_id}").status_code == 404
    assert world.ask("operator", "GET", "/jobs").json()["jobs"] == []


@pytest.mark.parametrize("role", list(Role))
def test_a_site_is_set_by_an_operator_of_every_tenant(world: World, role: Role) -> None:
    world.person("above", (role, "programme"))
    said = world.ask("above", "PUT", "/sites/paris", json=A_SETTING)
    assert said.status_code == (200 if role is Role.OPERATOR else 403)
    below = world.ask("operator", "PUT", "/sites/paris", json=A_SETTING).json()
    assert below["detail"].endswith("it concerns every tenant, and takes a role on the whole tree.")
    assert ("set_site" in world.ask("above", "GET", "/me").json()["allowed"]) is (role is Role.OPERATOR)
    assert "set_site" not in world.ask("operator", "GET", "/me").json()["allowed"]


# --- accounts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "role", "tenant", "status"),
    [
        ("root", "operator", "programme", 201),
        ("operator", "operator", "alpha", 201),
        ("operator", "operator", "programme", 422),  # it is not in their part, so it does not exist
        ("programme_manager", "programme_manager", "alpha", 201),
        ("programme_manager", "operator", "alpha", 403),
        ("tenant_owner", "tenant_owner", "alpha-lab", 201),
        ("tenant_owner", "auditor", "alpha", 403),
        ("tenant_owner", "member", "beta", 422),
    ],
)
def test_nobody_gives_more_than_their_role_may(world: World, who: str, role: str, tenant: str, status: int) -> None:
    body = {"name": "new", "grants": [{"role": role, "tenant": tenant}]}
    assert world.ask(who, "POST", "/users", json=body).status_code == status
    world.person("old", (Role.MEMBER, "alpha-lab"))
    changed = world.ask(who, "PATCH", "/users/old", json={"grants": body["grants"]})
    assert changed.status_code == (200 if status == 201 else status)


@pytest.mark.parametrize("body", [{"password": "long enough for it"}, {"one_time_token": True}, {"disabled": True}])
def test_nobody_takes_over_an_account_above_them(world: World, body: dict[str, Any]) -> None:
    assert world.ask("tenant_owner", "PATCH", "/users/operator", json=body).status_code == 403
    assert world.ask("programme_manager", "PATCH", "/users/operator", json=body).status_code == 403
    assert world.ask("operator", "PATCH", "/users/root", json=body).status_code == 404
    world.person("above-too", (Role.MEMBER, "alpha"), (Role.MEMBER, "beta"))
    assert world.ask("tenant_owner", "PATCH", "/users/above-too", json=body).status_code == 403


def test_nobody_gives_roles_to_themselves(world: World) -> None:
    grants = [{"role": "tenant_owner", "tenant": "alpha"}]
    assert (
        world.ask("programme_manager", "PATCH", "/users/programme_manager", json={"grants": grants}).status_code == 403
    )
    assert world.ask("root", "PATCH", "/users/root", json={"disabled": True}).status_code == 403


def test_ones_own_password_can_be_changed_and_ends_the_tokens(world: World) -> None:
    assert world.ask("member", "PATCH", "/users/member", json={"password": "a new good one"}).status_code == 200
    assert world.ask("member", "GET", "/me").status_code == 401


def test_audit_below_the_root_shows_what_its_people_did(world: World) -> None:
    body = {"name": "new", "grants": [{"role": "member", "tenant": "beta"}]}
    assert world.ask("stranger", "POST", "/users", json=body).status_code == 201
    mine = {"name": "mine", "grants": [{"role": "member", "tenant": "alpha"}]}
    assert world.ask("tenant_owner", "POST", "/users", json=mine).status_code == 201
    lines = world.ask("auditor", "GET", "/audit").json()["lines"]
    assert {line["user"] for line in lines} == {"tenant_owner"}
    assert "user new" in [line["target"] for line in world.ask("root", "GET", "/audit").json()["lines"]]


def test_the_audit_log_is_read_page_by_page(world: World) -> None:
    read, after = [], 0
    while after is not None:
        page = world.ask("root", "GET", f"/audit?after={after}&limit=3").json()
        read += [line["seq"] for line in page["lines"]]
        after = page["next_after"]
    assert read == [line.seq for line in world.store.audit_lines(0, 1000)]


# --- tokens -----------------------------------------------------------------------------------------------------------


def _expired(world: World) -> str:
    return world.token(world.store.user("member")[0], expires_ms=world.clock() + 1)


def _revoked(world: World) -> str:
    token = world.token(world.store.user("member")[0])
    user_id = world.store.user("member")[0].user_id
    world.store.revoke(world.store.tokens(user_id)[0].token_id, world.clock(), "test")
    return token


def _disabled(world: World) -> str:
    world.store.change_user("member", world.clock(), "test", disabled=True)
    return world.tokens["member"]


@pytest.mark.parametrize(
    "token",
    [
        _expired,
        _revoked,
        _disabled,
        lambda _: "wt_" + "x" * 43,
        lambda _: "",
        lambda _: "wt_" + "x" * 10_000,
        lambda world: world.tokens["member"][:-1],
        lambda world: world.tokens["member"] + "x",
    ],
)
def test_a_token_that_is_not_valid_opens_nothing(world: World, token: Callable[[World], str]) -> None:
    world.tokens["bad"] = token(world)
    said = world.ask("bad", "GET", "/me")
    assert said.status_code == 401
    assert said.headers["www-authenticate"] == "Bearer"
    assert said.json()["code"] == "no_valid_token"


@pytest.mark.parametrize("header", ["Basic abc", "Bearer", "bearer  ", "\xff", "Bearer \xff" + "x" * 45])
def test_other_authorization_opens_nothing(world: World, header: str) -> None:
    said = world.ask(None, "GET", "/me", headers={"Authorization": header.encode("latin-1")})
    assert said.status_code == 401


def test_a_token_makes_no_token_with_more_scopes(world: World) -> None:
    user, _ = world.store.user("member")
    world.tokens["narrow"] = world.token(user, ("read", "admin"))
    body = {"label": "wide", "scopes": ["read", "submit"]}
    assert world.ask("narrow", "POST", "/tokens", json=body).status_code == 403
    made = world.ask("narrow", "POST", "/tokens", json=body | {"scopes": ["read"]})
    assert made.status_code == 201
    world.tokens["made"] = made.json()["token"]
    assert world.ask("made", "GET", "/jobs").status_code == 200
    assert world.ask("made", "POST", "/jobs", json=A_JOB).status_code == 403


def test_own_tokens_are_listed_revoked_and_logged_out(world: World) -> None:
    made = world.ask("member", "POST", "/tokens", json={"label": "ci", "scopes": ["read"]}).json()
    listed = world.ask("member", "GET", "/tokens").json()["tokens"]
    assert [token["label"] for token in listed] == ["ci", "test"]
    assert made["token"] not in str(listed)
    assert world.ask("member", "DELETE", f"/tokens/{made['about']['id']}").status_code == 200
    world.tokens["ci"] = made["token"]
    assert world.ask("ci", "GET", "/me").status_code == 401
    assert world.ask("member", "POST", "/logout").status_code == 200
    assert world.ask("member", "GET", "/me").status_code == 401


# --- the guard itself -------------------------------------------------------------------------------------------------


def test_a_route_without_a_rule_or_guard_is_named(world: World) -> None:
    app = world.app

    @app.get("/api/v1/new", operation_id="new")
    def new() -> None: ...

    @app.get("/api/v1/open", operation_id="show_job")
    def unguarded_job() -> None: ...

    assert list(unguarded(app.router.routes)) == [
        "/api/v1/new: operation new has no row in the table of rules",
        "/api/v1/open: operation show_job is not guarded as job",
    ]


def test_every_scope_guards_something() -> None:
    assert {rule.scope for rule in RULES.values()} == {None, *Scope}


def test_a_tenant_tree_is_asked_by_id() -> None:
    tree = Tree(TREE)
    assert tree.below(TenantId("alpha")) == {"alpha", "alpha-lab", "alpha-prod"}
    assert tree.below(TenantId("elsewhere")) == frozenset()
    assert not tree.takes_jobs(TenantId("alpha"))
    assert tree.takes_jobs(TenantId("beta"))
