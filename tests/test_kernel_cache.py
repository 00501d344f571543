"""Compiled kernels have a folder of their own, and only who imports kernels is pointed to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def cache_dir_after(module: str, given: str | None) -> str:
    """NUMBA_CACHE_DIR as a process finds it after an import."""
    says = f"import os, {module}; print(os.environ.get('NUMBA_CACHE_DIR', '-'))"
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    if given is not None:
        environment["NUMBA_CACHE_DIR"] = given
    done = subprocess.run([sys.executable, "-c", says], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["watteau", "watteau.domain.jobs", "watteau.domain.requests"])
def test_what_has_no_kernels_leaves_the_environment_as_it_is(tmp_path: Path, module: str) -> None:
    assert cache_dir_after(module, None) == "-"
    assert cache_dir_after(module, str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("module", ["watteau.core.bits", "watteau.energy.supply"])
def test_kernels_go_to_a_folder_of_their_own_in_the_place_that_is_given(tmp_path: Path, module: str) -> None:
    folder = Path(cache_dir_after(module, str(tmp_path)))
    assert folder.parent == tmp_path
    assert folder.name.startswith("watteau-kernels-")
    assert cache_dir_after(module, str(folder)) == str(folder)
