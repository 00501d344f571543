"""The OpenAPI document is complete, and the API does what it says: schemathesis tries it, in this process."""

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.server.world import World
from watteau.domain.people import Role
from watteau.server.access import RULES

_OPERATIONS = {"get", "post", "patch", "delete", "put"}


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        said["operationId"]: said
        for methods in document["paths"].values()
        for method, said in methods.items()
        if method in _OPERATIONS
    }


def test_every_operation_is_described_with_its_errors(world: World) -> None:
    document = world.ask(None, "GET", "/api/v1/openapi.json").json()
    described = operations(document)
    assert described.keys() == RULES.keys()
    for name, said in described.items():
        assert said["summary"], name
        assert said["description"], name
        for parameter in said.get("parameters", []):
            assert parameter.get("description"), (name, parameter["name"])
        if name not in ("is_alive", "is_ready", "read_metrics", "read_report"):
            assert {"500", "503"} <= said["responses"].keys(), name
            for status, answer in said["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], (name, status)
        if name not in ("is_alive", "is_ready", "read_metrics", "read_report", "login"):
            assert "401" in said["responses"], name
            assert said["security"] == [{"token": []}], name
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_every_field_of_every_answer_is_described(world: World) -> None:
    schemas = world.ask(None, "GET", "/api/v1/openapi.json").json()["components"]["schemas"]
    silent = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, said in schema.get("properties", {}).items()
        if name.endswith(("View", "Body")) or name in ("Problem", "JobDetail", "FieldError", "Evidence", "PoolFree")
        if not said.get("description")
    ]
    assert silent == []
    references = [reference for reference in _references(schemas) if reference not in schemas]
    assert references == []


def _references(said: Any) -> list[str]:
    if isinstance(said, dict):
        own = [said["$ref"].rsplit("/", 1)[1]] if isinstance(said.get("$ref"), str) else []
        return own + [found for each in said.values() for found in _references(each)]
    return [found for each in said for found in _references(each)] if isinstance(said, list) else []


def test_nothing_is_asked_of_other_machines(world: World) -> None:
    for path in ("/docs", "/redoc"):
        assert world.ask(None, "GET", f"/api/v1{path}").status_code == 404
        assert world.http.get(path).status_code == 404


class Schemathesis(World):
    """A world for the machine to play in: it may do everything, but not disable itself."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.person("root", (Role.OPERATOR, "programme"))
        self.person("ada", (Role.MEMBER, "beta"))
        for _ in range(3):
            self.start(self.job("ada", "beta").job_id)
        self.job("ada", "beta", array={"indices": [1, 2, 3]})
        self.app.state.services.pulse.close()  # streams and polls end at once


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Schemathesis:
    return Schemathesis(tmp_path_factory.mktemp("schemathesis"))


@pytest.fixture(scope="module")
def schema(played: Schemathesis) -> Any:
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", played.app)


@pytest.mark.slow
@pytest.mark.parametrize("operation", sorted(RULES))
def test_the_api_is_as_it_says(schema: Any, played: Schemathesis, operation: str) -> None:
    """Requests that the document allows and such that it does not; the answers must be among those that it names.

    What the document allows may be refused all the same: it cannot say that a tenant must be there, or that a login is
    one of two things.
    """
    found = schema.find_operation_by_id(operation)
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    cases = st.one_of([found.as_strategy(generation_mode=mode) for mode in modes])

    @settings(max_examples=20, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def tries(case: Any) -> None:
        if operation == "logout":  # which ends its own token
            played.tokens["root"] = played.token(played.store.user("root")[0])
        said = case.call(headers={"Authorization": f"Bearer {played.tokens['root']}"})
        case.validate_response(said, excluded_checks=[positive_data_acceptance])

    tries()
