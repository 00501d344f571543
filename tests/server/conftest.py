from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.world import World
from watteau.domain.people import Role


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world with one person of each role on `alpha`, an operator above all, and a stranger at `beta`."""
    world = World(tmp_path)
    world.person("root", (Role.OPERATOR, "programme"))
    for role in Role:
        world.person(role.value, (role, "alpha"))
    world.person("stranger", (Role.TENANT_OWNER, "beta"))
    world.person("nobody")
    with world.store.closing():
        yield world
