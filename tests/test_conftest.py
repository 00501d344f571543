"""The guards of the test suite itself can fire."""

import os
from pathlib import Path

import pytest

OUR_CONFTEST = Path(__file__).with_name("conftest.py")

SKIPS = """
import pytest

def test_runs():
    pass

def test_skips_itself():
    pytest.skip("no such machine")

@pytest.mark.skip(reason="marked away")
def test_is_marked():
    pass

def test_asks_for_data(watteau_data):
    pass

@pytest.mark.xfail(reason="known to fail")
def test_is_known_to_fail():
    assert False
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("WATTEAU_DATA", raising=False)
    monkeypatch.delenv("CI", raising=False)
    # Our conftest takes fixtures from modules beside it.
    root = str(OUR_CONFTEST.parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])))
    # pytest refuses `pytest_plugins` in a conftest that is not at the root; there it would load pytester only.
    pytester.makeconftest(OUR_CONFTEST.read_text(encoding="utf-8"))
    return pytester


def test_a_skip_is_a_skip_outside_ci(suite: pytest.Pytester) -> None:
    suite.makepyfile(SKIPS)
    suite.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1, skipped=3, xfailed=1)


def test_a_skip_fails_in_ci_and_names_its_reason(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    suite.makepyfile(SKIPS)
    result = suite.runpytest_subprocess("-p", "no:cacheprovider")
    outcomes = result.parseoutcomes()
    assert outcomes.get("skipped", 0) == 0
    assert outcomes["passed"] == 1
    assert outcomes.get("xfailed", 0) == 0
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 4
    for reason in ("no such machine", "marked away", "WATTEAU_DATA is not set", "known to fail"):
        result.stdout.fnmatch_lines([f"*CI does not allow*{reason}*"])


def test_a_skipped_module_fails_in_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    suite.makepyfile("import pytest\npytest.importorskip('no_such_library')\n")
    result = suite.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*CI does not allow*no_such_library*"])


def test_data_that_lacks_a_file_is_named(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lublin_256.swf").touch()
    monkeypatch.setenv("WATTEAU_DATA", str(tmp_path))
    suite.makepyfile(SKIPS)
    result = suite.runpytest_subprocess("-rs", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*WATTEAU_DATA lacks*pai_100k_jobs.csv*"])
