"""The commands that the README promises, and the messages for machines that cannot run them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as a user would, not as a child of the make that may run these tests."""
    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "WATTEAU_DATA"}
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the files that setup reads, and nothing installed."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def python_that(folder: Path, behaves: str) -> str:
    """A stand-in for an interpreter of the user's machine."""
    script = folder / "python"
    script.write_text(f"#!/bin/sh\n{behaves}\n", encoding="utf-8")
    script.chmod(0o755)
    return f"PYTHON={script}"


def test_bare_make_lists_every_target(checkout: Path) -> None:
    listed = make(checkout).stdout
    for target in ("setup", "demo", "test", "test-fast", "bench", "docs", "format", "clean"):
        assert f"make {target} " in listed


@pytest.mark.parametrize("target", ["demo", "test", "test-fast", "bench", "docs", "format"])
def test_every_target_begins_with_setup(checkout: Path, target: str) -> None:
    lines = make(checkout, "-n", target).stdout
    assert "pip install" in lines
    assert "-c constraints.txt -e '.[dev]'" in lines


def test_demo_replays_and_then_runs_the_live_system(checkout: Path) -> None:
    lines = make(checkout, "-n", "demo").stdout.splitlines()
    assert ".venv/bin/watteau demo" in lines
    assert lines[-1] == ".venv/bin/watteau up --demo $(test -t 1 || echo --once --port 0)"


def test_setup_is_not_repeated_until_what_is_installed_changes(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv/.ready").touch()
    assert "pip" not in make(checkout, "-n", "demo").stdout
    newer = (checkout / ".venv/.ready").stat().st_mtime + 10
    os.utime(checkout / "constraints.txt", (newer, newer))
    assert "pip" in make(checkout, "-n", "demo").stdout


@pytest.mark.parametrize(
    ("behaves", "says"),
    [
        # Debian's python3 without python3-venv: `import venv` works and `import ensurepip` does not.
        ('case "$2" in *ensurepip*) exit 1;; esac', "apt install python3-venv"),
        (
            'case "$2" in *version_info*) exit 1;; esac; echo Python 3.9.2',
            "needs Python 3.11 or newer; '{python}' is Python 3.9.2",
        ),
    ],
)
def test_a_python_that_will_not_do_is_named_with_the_remedy(checkout: Path, behaves: str, says: str) -> None:
    python = python_that(checkout, behaves)
    run = make(checkout, "setup", python)
    assert run.returncode != 0
    assert says.format(python=python.removeprefix("PYTHON=")) in run.stderr
    assert not (checkout / ".venv").exists()


def test_a_missing_python_is_named_with_the_remedy(checkout: Path) -> None:
    run = make(checkout, "setup", "PYTHON=no-such-python")
    assert run.returncode != 0
    assert "'no-such-python' is not here" in run.stderr


def test_public_data_beside_the_checkout_are_used(tmp_path: Path) -> None:
    checkout = tmp_path / "watteau"
    (tmp_path / "shared/data").mkdir(parents=True)
    (tmp_path / "shared/data/README.md").touch()
    checkout.mkdir()
    (checkout / "Makefile").write_text(
        (ROOT / "Makefile").read_text(encoding="utf-8") + "\nshow:\n\t@echo $$WATTEAU_DATA\n", encoding="utf-8"
    )
    assert make(checkout, "show").stdout.strip() == str(tmp_path / "shared/data")
    assert make(checkout, "show", "WATTEAU_DATA=elsewhere").stdout.strip() == "elsewhere"


def test_ci_runs_make_test_and_nothing_else_of_its_own() -> None:
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert lines[-1].startswith("make test")
    assert "export CI=true" in lines


def test_every_constraint_is_a_name_and_a_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert all(len(line.split("==")) == 2 and " " not in line and "/" not in line for line in pinned)
