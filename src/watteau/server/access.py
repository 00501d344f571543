"""Who may do what: the one table of operations and roles, and the one place that reads it.

A role is granted on a tenant and holds for everything below it. What a caller may not see does not exist for them
(404); what they may see and not do is forbidden (403). A token's scopes take away from what its account may do.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from watteau.domain.people import Grant, Role, User
from watteau.domain.tenants import Tenant
from watteau.domain.units import TenantId
from watteau.server.schemas import Scope


class Reach(StrEnum):
    """How far a role's permission goes."""

    NONE = "no"
    OWN = "own"  # the caller's own jobs, in the part of the tree where the role holds
    PART = "yes"  # everything in that part


class About(StrEnum):
    """What an operation is about, which decides what must be found before it is allowed."""

    NOBODY = "nobody"  # no account is needed
    SELF = "self"  # an account is enough
    PART = "part"  # the caller's part of the tenant tree, as a whole
    JOB = "job"  # the job that the path names
    USER = "user"  # the account that the path names
    SITE = "site"  # the site that the path names


@dataclass(frozen=True, slots=True)
class Rule:
    """What one operation needs: a scope of the token, and for each role how far it reaches."""

    about: About
    scope: Scope | None
    reach: Mapping[Role, Reach]
    what: str  # the operation in words, for the reference
    of_all: bool = False  # it concerns every tenant: the role must be held on the root of the tree


def _rule(about: About, scope: Scope | None, what: str, **reach: str) -> Rule:
    return Rule(about, scope, {role: Reach(reach.get(role.value, "no")) for role in Role}, what)


def _of_all(rule: Rule) -> Rule:
    return replace(rule, of_all=True)


_ALL = {role.value: "yes" for role in Role}
_CHANGE_JOBS = {"operator": "yes", "tenant_owner": "yes", "member": "own"}
_SUBMIT = {"operator": "yes", "tenant_owner": "yes", "member": "yes"}
_MANAGE = {"operator": "yes", "programme_manager": "yes", "tenant_owner": "yes"}
_READ, _SUBMITS, _ADMIN = Scope.READ, Scope.SUBMIT, Scope.ADMIN

#: Every operation of the API by its operation id. A route without a row here does not start.
RULES: dict[str, Rule] = {
    "submit_job": _rule(About.PART, _SUBMITS, "submit a job", **_SUBMIT),
    "submit_jobs": _rule(About.PART, _SUBMITS, "submit many jobs at once", **_SUBMIT),
    "list_jobs": _rule(About.PART, _READ, "list jobs", **_ALL),
    "show_job": _rule(About.JOB, _READ, "see a job", **_ALL),
    "explain_job": _rule(About.JOB, _READ, "ask why a job waits", **_ALL),
    "tell_job": _rule(About.JOB, _READ, "read what happened to a job", **_ALL),
    "list_attempts": _rule(About.JOB, _READ, "list a job's attempts", **_ALL),
    "read_log": _rule(About.JOB, _READ, "read a job's output", **_ALL),
    "wait_job": _rule(About.JOB, _READ, "wait for a job's end", **_ALL),
    "cancel_job": _rule(About.JOB, _SUBMITS, "cancel a job", **_CHANGE_JOBS),
    "hold_job": _rule(About.JOB, _SUBMITS, "hold a job", **_CHANGE_JOBS),
    "release_job": _rule(About.JOB, _SUBMITS, "release a held job", **_CHANGE_JOBS),
    "watch_events": _rule(About.PART, _READ, "follow events", **_ALL),
    "list_sites": _rule(About.PART, _READ, "see the sites", **_ALL),
    "show_site": _rule(About.SITE, _READ, "see a site", **_ALL),
    "set_site": _of_all(_rule(About.SITE, _ADMIN, "set a site's mode, or fence it", operator="yes")),
    "list_site_nodes": _rule(About.SITE, _READ, "list a site's nodes", **_ALL),
    "list_differences": _rule(About.SITE, _READ, "compare a site with the fleet file", **_ALL),
    "list_site_jobs": _rule(About.SITE, _READ, "list the jobs that people gave to a site", **_ALL),
    "report_usage": _rule(About.PART, _READ, "read the usage", **_ALL),
    "report_energy": _rule(About.PART, _READ, "read the energy books", **_ALL),
    "list_tenants": _rule(About.PART, _READ, "list tenants", **_ALL),
    "list_users": _rule(About.PART, _READ, "list accounts", auditor="yes", **_MANAGE),
    "add_user": _rule(About.PART, _ADMIN, "make an account", **_MANAGE),
    "change_user": _rule(About.USER, _ADMIN, "change an account", **_MANAGE),
    "read_audit": _rule(About.PART, _READ, "read the audit log", operator="yes", auditor="yes"),
    "login": _rule(About.NOBODY, None, "log in"),
    "logout": _rule(About.SELF, None, "log out: revoke the token in use"),
    "show_me": _rule(About.SELF, None, "see one's own account"),
    "list_tokens": _rule(About.SELF, _READ, "list one's own tokens"),
    "add_token": _rule(About.SELF, _ADMIN, "make a token for oneself"),
    "revoke_token": _rule(About.SELF, _ADMIN, "revoke one's own token"),
    "is_alive": _rule(About.NOBODY, None, "ask whether the process lives"),
    "is_ready": _rule(About.NOBODY, None, "ask whether it can work"),
    "read_metrics": _rule(About.NOBODY, None, "read the metrics"),
    "read_report": _rule(About.NOBODY, None, "read the demonstration's report"),
}

#: Who may give which roles, and change accounts that hold them. Nobody changes their own.
MAY_GIVE: dict[Role, frozenset[Role]] = {
    Role.OPERATOR: frozenset(Role),
    Role.PROGRAMME_MANAGER: frozenset({Role.PROGRAMME_MANAGER, Role.TENANT_OWNER, Role.MEMBER, Role.AUDITOR}),
    Role.TENANT_OWNER: frozenset({Role.TENANT_OWNER, Role.MEMBER}),
}


class Tree:
    """The tenant tree of a fleet, asked by id."""

    def __init__(self, root: Tenant) -> None:
        walked = list(root.walk())
        self.root = root.id
        self.tenants: dict[TenantId, Tenant] = {tenant.id: tenant for _, tenant in walked}
        self.parent: dict[TenantId, TenantId | None] = {
            tenant.id: (walked[parent][1].id if parent >= 0 else None) for parent, tenant in walked
        }
        self._below: dict[TenantId, frozenset[TenantId]] = {}
        for _, tenant in reversed(walked):  # children come after their parent
            below = frozenset({tenant.id}).union(*(self._below[child.id] for child in tenant.children))
            self._below[tenant.id] = below

    def below(self, tenant: TenantId) -> frozenset[TenantId]:
        """A tenant and all below it; empty for a tenant that the fleet does not have."""
        return self._below.get(tenant, frozenset())

    def takes_jobs(self, tenant: TenantId) -> bool:
        """Whether jobs may belong to it: only to those without tenants below them."""
        return tenant in self.tenants and not self.tenants[tenant].children


@dataclass(frozen=True, slots=True)
class Caller:
    """Someone who asks, with the token that they ask with."""

    user: User
    token_id: int
    scopes: frozenset[Scope]
    expires_ms: int | None
    tree: Tree

    def in_scope(self, operation: str) -> bool:
        """Whether the token may be used for it."""
        scope = RULES[operation].scope
        return scope is None or scope in self.scopes

    def part(self, operation: str) -> frozenset[TenantId]:
        """The tenants in which the operation is allowed on everything."""
        return self._tenants(operation, (Reach.PART,))

    def scope_of_rows(self, operation: str) -> frozenset[TenantId] | None:
        """The same for the store: None means all, which includes jobs of tenants that the fleet no longer has."""
        if self.is_over_all(operation):
            return None
        return self.part(operation)

    def is_over_all(self, operation: str) -> bool:
        """Whether the operation is allowed on the root of the tree, and so on everything."""
        return self.tree.root in self.part(operation)

    def reaches_somewhere(self, operation: str) -> bool:
        """Whether there is anything at all that the caller could do it to."""
        rule = RULES[operation]
        if rule.about in (About.NOBODY, About.SELF):
            return True
        if rule.of_all:
            return self.is_over_all(operation)
        return bool(self._tenants(operation, (Reach.PART, Reach.OWN)))

    def may_with_job(self, operation: str, tenant: TenantId, owner: str) -> bool:
        """Whether the operation is allowed on a job of that tenant and owner."""
        if tenant in self.part(operation) or self.is_over_all(operation):
            return True
        return owner == self.user.name and tenant in self._tenants(operation, (Reach.OWN,))

    def sees_user(self, user: User) -> bool:
        """Whether the account exists for the caller: their own, or one that holds a role in their part."""
        if user.user_id == self.user.user_id or self.is_over_all("list_users"):
            return True
        part = self.part("list_users")
        return any(grant.tenant in part for grant in user.grants)

    def may_give(self, grants: Iterable[Grant]) -> bool:
        """Whether the caller may give all these roles: theirs to give, and inside their part."""
        return all(self._may_give(grant) for grant in grants)

    def may_change_user(self, user: User) -> bool:
        """Whether the caller may change another account: one that holds only what they could give.

        Otherwise a new password for an operator's account would make its giver an operator.
        """
        return self.reaches_somewhere("change_user") and self.may_give(user.grants)

    def _may_give(self, wanted: Grant) -> bool:
        return any(
            wanted.role in MAY_GIVE.get(held.role, frozenset())
            and (
                wanted.tenant in self.tree.below(held.tenant)
                or (held.role is Role.OPERATOR and held.tenant == self.tree.root)  # also tenants of a former fleet
            )
            for held in self.user.grants
        )

    def _tenants(self, operation: str, reaches: tuple[Reach, ...]) -> frozenset[TenantId]:
        rule = RULES[operation]
        parts = [self.tree.below(grant.tenant) for grant in self.user.grants if rule.reach[grant.role] in reaches]
        return parts[0] if len(parts) == 1 else frozenset().union(*parts)
