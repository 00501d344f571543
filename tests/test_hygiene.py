"""What may lie in the repository: sources, small pictures, and nothing that names a machine."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LARGEST_BYTES = 400_000
BUILT = re.compile(r"(^|/)(site|out|build|dist|__pycache__|\.venv)/|\.(pyc|whl|parquet)$|(^|/)bench-[^/]*\.json$")
# The groups keep these patterns from finding themselves.
NAMES_A_MACHINE = {
    "an absolute home path": re.compile(rb"/(?:home|Users)/[A-Za-z0-9_.]+/|/(?:root)/|[A-Z]:\\\\?(?:Users)\\"),
    "a package registry": re.compile(
        rb"//[^/\s\"']*(?:py(?:pi)|files\.python(?:hosted))|index(?:-)url|(?:trusted)-host"
    ),
}


def faults(root: Path, names: list[str]) -> Iterator[str]:
    """What is wrong with the named files, a line each."""
    for name in names:
        content = (root / name).read_bytes()
        if len(content) > LARGEST_BYTES:
            yield f"{name}: {len(content)} bytes; the largest file has {LARGEST_BYTES}"
        if name.endswith(".min.js"):
            yield f"{name}: minified JavaScript"
        if BUILT.search(name):
            yield f"{name}: built, not written"
        if b"\0" not in content:
            yield from (f"{name}: names {what}" for what, sign in NAMES_A_MACHINE.items() if sign.search(content))


def test_the_repository_is_clean() -> None:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    assert "pyproject.toml" in names
    assert list(faults(ROOT, names)) == []


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("data.csv", b"x" * (LARGEST_BYTES + 1), "data.csv: 400001 bytes; the largest file has 400000"),
        ("js/plot.min.js", b"", "js/plot.min.js: minified JavaScript"),
        ("site/index.html", b"", "site/index.html: built, not written"),
        ("a.py", b"/".join([b"open('", b"home", b"ada", b"x')"]), "a.py: names an absolute home path"),
        ("a.toml", b"-".join([b"index", b"url = 1"]), "a.toml: names a package registry"),
    ],
)
def test_what_does_not_belong_is_named(tmp_path: Path, name: str, content: bytes, fault: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    assert list(faults(tmp_path, [name])) == [fault]
