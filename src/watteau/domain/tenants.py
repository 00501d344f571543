"""The tenant tree: programme > party > project > user; shares and quotas hang on it."""

from collections.abc import Iterator
from dataclasses import dataclass

from watteau.domain.units import TenantId


@dataclass(frozen=True, slots=True)
class Tenant:
    """A node of the tree. `share` weighs it against its siblings; quotas are in GPUs in use at once.

    `quota_gpus` is a ceiling for the whole subtree (None: no ceiling).
    """

    id: TenantId
    name: str
    share: int
    quota_gpus: int | None
    children: tuple["Tenant", ...]

    def __post_init__(self) -> None:
        if self.share < 1:
            raise ValueError(f"tenant {self.id}: a share is at least 1")
        if self.quota_gpus is not None and self.quota_gpus < 0:
            raise ValueError(f"tenant {self.id}: a quota is not negative")

    def walk(self) -> Iterator[tuple[int, "Tenant"]]:
        """(parent's position or -1, tenant) in depth-first order; the order is the index in all arrays."""
        position = 0
        stack: list[tuple[int, Tenant]] = [(-1, self)]
        while stack:
            parent, tenant = stack.pop()
            yield parent, tenant
            stack.extend((position, child) for child in reversed(tenant.children))
            position += 1

    def parts(self) -> list[tuple[int, "Tenant", float, int]]:
        """(parent's position or -1, tenant, the part of the whole that shares give it, its depth), as `walk` goes."""
        rows: list[tuple[int, Tenant, float, int]] = []
        for parent, tenant in self.walk():
            if parent < 0:
                rows.append((parent, tenant, 1.0, 0))
            else:
                _, above, part, depth = rows[parent]
                siblings = sum(child.share for child in above.children)
                rows.append((parent, tenant, part * tenant.share / siblings, depth + 1))
        return rows

    def leaves(self) -> list["Tenant"]:
        """The tenants that jobs belong to, in depth-first order."""
        return [tenant for _, tenant in self.walk() if not tenant.children]
