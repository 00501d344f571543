"""Who may do what: roles are granted on a tenant and hold for everything below it."""

from dataclasses import dataclass
from enum import StrEnum

from watteau.domain.units import TenantId


class Role(StrEnum):
    """What a person does here. A person may have several, each on its own part of the tenant tree."""

    OPERATOR = "operator"
    PROGRAMME_MANAGER = "programme_manager"
    TENANT_OWNER = "tenant_owner"
    MEMBER = "member"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Grant:
    """A role on a tenant and all below it."""

    role: Role
    tenant: TenantId


@dataclass(frozen=True, slots=True)
class User:
    """An account."""

    user_id: int
    name: str
    disabled: bool
    grants: tuple[Grant, ...]
