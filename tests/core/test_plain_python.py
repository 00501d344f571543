"""Each compiled kernel equals its plain-Python self: the same worlds, run both ways, end with the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

from tests.core.plain import case, digests, policies, run_cases

SEED, CASES = 1, 12


def test_compiled_and_plain_runs_end_with_the_same_bytes() -> None:
    """Decisions, and every array of the state and of the clock, for every policy."""
    plain = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.core.plain", str(SEED), str(CASES)],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert plain.returncode == 0, plain.stderr
    for number, (one, other) in enumerate(zip(run_cases(SEED, CASES), json.loads(plain.stdout), strict=True)):
        assert one == other, f"case {number}: {[name for name in one if one[name] != other[name]]}"


def test_one_changed_byte_is_noticed() -> None:
    world = case(Random(1), policies()[0])
    before = digests(world)
    world.state.nodes["dirty"][-1] ^= 1
    assert [name for name, digest in digests(world).items() if digest != before[name]] == ["nodes"]
