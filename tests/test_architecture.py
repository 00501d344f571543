"""Imports point one way, the core touches nothing, and only one module asks the time. See docs/architecture.md."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from watteau.kernel_cache import PARTS

SOURCE = Path(__file__).resolve().parents[1] / "src"

CAPABILITIES = {"core", "workload", "energy", "ledger", "engines"}
DRIVERS = {"simulation", "planning", "programmes", "runtime", "store"}

#: What each part may import of Watteau, itself apart. Drivers may use each other, as long as no circle arises.
MAY_IMPORT: dict[str, set[str]] = {
    "domain": set(),
    **{part: {"domain"} for part in CAPABILITIES},
    **{part: {"domain", "kernel_cache"} for part in ("core", "energy")},
    **{part: {"domain"} | CAPABILITIES | (DRIVERS - {part}) for part in DRIVERS},
    "client": {"domain"},
    "server": {"domain"} | CAPABILITIES | DRIVERS,
    "cli": {"domain", "client"} | CAPABILITIES | DRIVERS,
    "up": {"domain", "client", "server", "cli"} | CAPABILITIES | DRIVERS,  # the live process, put together
    "app": {"domain", "client", "server", "cli", "up"} | CAPABILITIES | DRIVERS,
    "__main__": {"app"},
    "": {"client", "domain"},  # only when somebody asks for `watteau.Client`
    "kernel_cache": set(),  # must run before numba is imported, so nothing of ours comes before it
}

#: The words of the API, which both ends of the wire speak: the client and the command line may import these of the
#: server, and so they may import the nouns only.
WORDS = "server.schemas"
SPEAK_THE_WORDS = {"client", "cli"}

#: All that the core may import from outside: nothing in it reads, writes, waits or draws lots.
CORE_MAY_IMPORT = {
    *("numpy", "numba", "llvmlite"),
    *("__future__", "bisect", "collections", "dataclasses", "enum", "functools", "heapq", "itertools", "math"),
    *("operator", "types", "typing"),
}

#: What the nouns may not import: a fleet file's text comes in as a string.
DOES_IO = {"http", "io", "logging", "os", "pathlib", "shutil", "socket", "sqlite3", "subprocess", "tempfile", "urllib"}

#: Libraries that one part keeps to itself.
OWNER: dict[str, set[str]] = {
    library: owners
    for libraries, owners in (
        (("sqlalchemy", "alembic", "psycopg", "sqlite3"), {"store"}),
        (("fastapi", "starlette"), {"server"}),
        (("uvicorn",), {"server"}),
        (("highspy",), {"energy", "planning"}),
        (("ray", "kubernetes"), {"engines"}),
        (("typer", "click"), {"cli", "app", "up"}),
    )
    for library in libraries
}

ASKS_THE_TIME = {
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
    *("time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.localtime", "time.gmtime"),
    *("time.ctime", "time.asctime", "time.strftime", "time.clock_gettime", "time.clock_gettime_ns"),
}
MEASURES_A_SPAN = {"time.perf_counter", "time.perf_counter_ns", "time.process_time", "time.process_time_ns"}
DRAWS_LOTS = ("numpy.random", "random")


#: Programs of their own, which outlive the process that would pass them the time. They use the standard library only.
STAND_ALONE = {"engines.supervisor", "engines.slurm.attempt"}


@dataclass(frozen=True, slots=True)
class Module:
    """One file of the package: its dotted name without `watteau.`, and what it says."""

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def part(self) -> str:
        """The first word: the part of the layout that the module belongs to ("" for the package itself)."""
        return self.name.split(".")[0]

    def imports(self) -> Iterator[tuple[int, str]]:
        """(line, absolute dotted name) of everything that is imported, wherever it stands in the file."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                origin = self._origin(node)
                yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)

    def mentions(self) -> Iterator[tuple[int, str]]:
        """(line, absolute dotted name) of every imported name where it is used, aliases resolved."""
        known: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.split(".")[0]
                    known |= {alias.asname: alias.name} if alias.asname else {top: top}
            elif isinstance(node, ast.ImportFrom):
                known |= {alias.asname or alias.name: f"{self._origin(node)}.{alias.name}" for alias in node.names}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute | ast.Name):
                words: list[str] = []
                inner: ast.expr = node
                while isinstance(inner, ast.Attribute):
                    words.append(inner.attr)
                    inner = inner.value
                if isinstance(inner, ast.Name) and inner.id in known:
                    yield node.lineno, ".".join([known[inner.id], *reversed(words)])

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        here = ["watteau", *filter(None, self.name.split("."))]
        parent = here[: len(here) - node.level + self.is_package]
        return ".".join([*parent, *([node.module] if node.module else [])])


def modules(source: Path) -> list[Module]:
    """Every module under `source`/watteau."""
    found = []
    for file in sorted((source / "watteau").rglob("*.py")):
        words = list(file.relative_to(source / "watteau").with_suffix("").parts)
        is_package = words[-1] == "__init__"
        name = ".".join(words[:-1] if is_package else words)
        found.append(Module(name, is_package, ast.parse(file.read_text(encoding="utf-8"), str(file))))
    return found


def faults(source: Path) -> list[str]:
    """Everything under `source`/watteau that breaks the architecture, a line each, in order."""
    package = modules(source)
    return [fault for module in package for fault in _module_faults(module)] + _circles(package)


def _module_faults(module: Module) -> Iterator[str]:
    place = f"watteau.{module.name}".rstrip(".")
    if module.part and module.part not in MAY_IMPORT:
        yield f"{place}: {module.part} is not a part of the layout"
        return
    for line, name in module.imports():
        top, _, rest = name.partition(".")
        if top == "watteau":
            wanted = rest.split(".")[0]
            if module.part in SPEAK_THE_WORDS and f"{rest}.".startswith(f"{WORDS}."):
                continue
            if wanted in MAY_IMPORT and wanted != module.part and wanted not in MAY_IMPORT.get(module.part, set()):
                yield f"{place}:{line}: {module.part or 'watteau'} may not import {wanted}"
            elif module.name == WORDS and wanted != "domain":
                yield f"{place}:{line}: {WORDS} may not import {wanted}"
        elif module.part not in OWNER.get(top, {module.part}):
            yield f"{place}:{line}: only {', '.join(sorted(OWNER[top]))} may import {top}"
        if module.part == "core" and top != "watteau" and top not in CORE_MAY_IMPORT:
            yield f"{place}:{line}: core may not import {top}"
        if module.part == "domain" and top in DOES_IO:
            yield f"{place}:{line}: domain may not import {top}"
    if module.name in STAND_ALONE:
        for line, name in module.imports():
            if name.split(".")[0] not in sys.stdlib_module_names:
                yield f"{place}:{line}: a program of its own may not import {name.split('.')[0]}"
    elif module.name != "runtime.clock":
        yield from _time_faults(module, place)
    if module.part == "core":
        for line, name in module.mentions():
            if name in DRAWS_LOTS:
                yield f"{place}:{line}: core may not draw lots with {name}"
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("open", "print", "input")
            ):
                yield f"{place}:{node.lineno}: core may not {node.func.id}"


def _time_faults(module: Module, place: str) -> Iterator[str]:
    measures = module.part == "simulation" or module.name.split(".")[-1].startswith("bench")
    said = {(line, name) for line, name in (*module.mentions(), *module.imports())}
    for line, name in sorted(said):
        if name in ASKS_THE_TIME:
            yield f"{place}:{line}: only runtime.clock may ask for {name}"
        if name in MEASURES_A_SPAN and not measures:
            yield f"{place}:{line}: only simulation and benchmarks may use {name}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and any(
            isinstance(argument, ast.Constant) and argument.value in ("now", "today") for argument in node.args
        ):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "datetime64":
                yield f"{place}:{node.lineno}: only runtime.clock may ask for numpy.datetime64('now')"


def _circles(package: list[Module]) -> list[str]:
    """Parts that import each other in a circle."""
    wants: dict[str, set[str]] = {}
    for module in package:
        if module.part not in ("", "app", "__main__"):
            named = {name.split(".")[1] for _, name in module.imports() if name.startswith("watteau.")}
            wants.setdefault(module.part, set()).update(named & MAY_IMPORT.keys() - {module.part})
    reached = {part: set(direct) for part, direct in wants.items()}
    for via in sorted(wants):
        for part in wants:
            if via in reached[part]:
                reached[part] |= reached[via]
    circle = sorted(part for part in wants if part in reached[part])
    return [f"parts import each other in a circle: {', '.join(circle)}"] if circle else []


def test_watteau_keeps_its_architecture() -> None:
    assert faults(SOURCE) == []


def test_the_digest_of_the_kernels_covers_all_that_they_are_made_from() -> None:
    """Otherwise a change of the source would go on running what was compiled before it."""
    package = modules(SOURCE)
    with_kernels = {
        module.part for module in package if "watteau.core.bits.kernel" in {name for _, name in module.imports()}
    }
    assert with_kernels
    assert with_kernels <= set(PARTS)
    for part in PARTS:
        named = {
            name.split(".")[1]
            for module in package
            if module.part == part
            for _, name in module.imports()
            if name.startswith("watteau.") and name.split(".")[1] in MAY_IMPORT
        }
        assert named <= {*PARTS, "kernel_cache", "workload", "engines"}, "workload and engines have no kernels"


def test_the_checker_sees_the_whole_package() -> None:
    names = {module.name for module in modules(SOURCE)}
    assert {"", "app", "cli.main", "core", "domain.decisions", "domain.fleet"} <= names


def test_what_the_core_may_import_from_the_standard_library_exists() -> None:
    assert CORE_MAY_IMPORT - sys.stdlib_module_names == {"numpy", "numba", "llvmlite"}


@pytest.mark.parametrize(
    ("file", "says", "fault"),
    [
        ("domain/jobs.py", "from watteau.core.step import step", "watteau.domain.jobs:1: domain may not import core"),
        ("core/step.py", "from watteau.energy import books", "watteau.core.step:1: core may not import energy"),
        ("core/step.py", "from ..energy import books", "watteau.core.step:1: core may not import energy"),
        ("core/step.py", "def f():\n    import watteau.ledger", "watteau.core.step:2: core may not import ledger"),
        ("core/__init__.py", "from .. import ledger", "watteau.core:1: core may not import ledger"),
        ("energy/books.py", "from watteau import core", "watteau.energy.books:1: energy may not import core"),
        ("engines/slurm.py", "import watteau.store", "watteau.engines.slurm:1: engines may not import store"),
        ("planning/p.py", "import watteau.server", "watteau.planning.p:1: planning may not import server"),
        ("server/api.py", "import watteau.cli", "watteau.server.api:1: server may not import cli"),
        ("cli/ps.py", "from watteau.server import api", "watteau.cli.ps:1: cli may not import server"),
        ("client.py", "import watteau.server.schemas_x", "watteau.client:1: client may not import server"),
        (
            "server/schemas.py",
            "from watteau.store.store import Store",
            "watteau.server.schemas:1: server.schemas may not import store",
        ),
        (
            "server/schemas.py",
            "from watteau.server import api",
            "watteau.server.schemas:1: server.schemas may not import server",
        ),
        ("cli/main.py", "import watteau.app", "watteau.cli.main:1: cli may not import app"),
        ("cli/jobs.py", "from watteau.server import auth", "watteau.cli.jobs:1: cli may not import server"),
        ("client.py", "import watteau.server.schemas_of", "watteau.client:1: client may not import server"),
        ("client.py", "import watteau.store", "watteau.client:1: client may not import store"),
        ("__init__.py", "import watteau.core", "watteau:1: watteau may not import core"),
        ("utils/x.py", "", "watteau.utils.x: utils is not a part of the layout"),
        ("domain/x.py", "from pathlib import Path", "watteau.domain.x:1: domain may not import pathlib"),
        ("core/step.py", "import os", "watteau.core.step:1: core may not import os"),
        ("core/step.py", "from pathlib import Path", "watteau.core.step:1: core may not import pathlib"),
        ("core/step.py", "import random", "watteau.core.step:1: core may not import random"),
        ("core/step.py", "import polars", "watteau.core.step:1: core may not import polars"),
        (
            "core/step.py",
            "import numpy as np\nx = np.random.default_rng(1)",
            "watteau.core.step:2: core may not draw lots with numpy.random",
        ),
        ("core/step.py", "print(1)", "watteau.core.step:1: core may not print"),
        ("ledger/db.py", "import sqlalchemy.orm", "watteau.ledger.db:1: only store may import sqlalchemy"),
        ("cli/x.py", "from fastapi import FastAPI", "watteau.cli.x:1: only server may import fastapi"),
        (
            "energy/books.py",
            "from datetime import datetime as dt\nx = dt.now()",
            "watteau.energy.books:2: only runtime.clock may ask for datetime.datetime.now",
        ),
        (
            "energy/books.py",
            "import datetime\nask = datetime.datetime.utcnow",
            "watteau.energy.books:2: only runtime.clock may ask for datetime.datetime.utcnow",
        ),
        ("cli/x.py", "from time import time", "watteau.cli.x:1: only runtime.clock may ask for time.time"),
        (
            "runtime/cycle.py",
            "import time as t\nt.monotonic()",
            "watteau.runtime.cycle:2: only runtime.clock may ask for time.monotonic",
        ),
        (
            "energy/books.py",
            "import time\ntime.perf_counter()",
            "watteau.energy.books:2: only simulation and benchmarks may use time.perf_counter",
        ),
        (
            "engines/supervisor.py",
            "import watteau.domain.requests",
            "watteau.engines.supervisor:1: a program of its own may not import watteau",
        ),
        (
            "engines/local.py",
            "import time\ntime.time_ns()",
            "watteau.engines.local:2: only runtime.clock may ask for time.time_ns",
        ),
        (
            "energy/books.py",
            "import numpy as np\nnp.datetime64('now')",
            "watteau.energy.books:2: only runtime.clock may ask for numpy.datetime64('now')",
        ),
    ],
)
def test_a_violation_is_named(tmp_path: Path, file: str, says: str, fault: str) -> None:
    _write(tmp_path, file, says)
    assert fault in faults(tmp_path)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("core/step.py", "import math\nimport numpy as np\nfrom watteau.domain.policy import Policy"),
        ("core/step.py", "from watteau.core.kernels import fit\nfrom . import kernels"),
        ("runtime/clock.py", "import time\nfrom datetime import UTC, datetime\ndatetime.now(UTC), time.monotonic()"),
        ("simulation/replay.py", "import time\nstarted = time.perf_counter()"),
        ("cli/bench.py", "from time import process_time\nprocess_time()"),
        ("engines/supervisor.py", "import json, time\ntime.monotonic()"),
        ("store/tables.py", "import sqlalchemy"),
        ("energy/books.py", "from datetime import datetime\nfrom watteau import __version__\ndatetime(2026, 1, 1)"),
        ("planning/build_out.py", "from watteau.simulation import replay"),
        ("app.py", "import watteau.cli.main, watteau.server"),
        ("up/__init__.py", "import typer, watteau.cli.inputs, watteau.server"),
        ("cli/jobs.py", "from watteau.server.schemas import JobView\nfrom watteau.client import Client"),
        ("client.py", "from watteau.server.schemas import JobView"),
        ("cli/ps.py", "from watteau.server import schemas"),
    ],
)
def test_what_is_allowed_is_not_named(tmp_path: Path, file: str, says: str) -> None:
    _write(tmp_path, file, says)
    assert faults(tmp_path) == []


def test_a_circle_is_named(tmp_path: Path) -> None:
    _write(tmp_path, "runtime/cycle.py", "import watteau.store.tables")
    _write(tmp_path, "store/tables.py", "import watteau.simulation.replay")
    _write(tmp_path, "simulation/replay.py", "from watteau.runtime import cycle")
    assert faults(tmp_path) == ["parts import each other in a circle: runtime, simulation, store"]


def _write(source: Path, file: str, says: str) -> None:
    path = source / "watteau" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(says, encoding="utf-8")
