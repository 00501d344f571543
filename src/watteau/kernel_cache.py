"""Where compiled kernels are kept: one folder for each state of their source, so that none is ever out of date.

Numba looks only at the file that a kernel stands in. A kernel that calls one in another file would go on running the
old one after that file has changed. The folder's name is a digest of all the parts that kernels stand in or take
constants from; numba checks the rest.
"""

import os
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from shutil import rmtree

#: The parts with kernels, and what those import; `tests/test_architecture.py` holds them to it.
PARTS = ("domain", "core", "energy", "simulation")
_KEPT = 4


def use_own_folder() -> None:
    """Point numba to the folder of this source. To be called where kernels are, before numba is first imported.

    Honours NUMBA_CACHE_DIR and XDG_CACHE_HOME as the place for such folders. Where nothing can be written, numba is
    left as it is.
    """
    if "numba" in sys.modules and "NUMBA_CACHE_DIR" not in os.environ:
        return  # numba has read its settings already
    package = Path(__file__).parent
    digest = sha256()
    for file in sorted(file for part in PARTS for file in (package / part).rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    name = f"watteau-kernels-{digest.hexdigest()[:16]}"
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given and Path(given).name.startswith("watteau-kernels-"):
        return  # a process that we started
    try:
        base = Path(given) if given else _user_cache()
        folder = base / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.touch()
        _forget_old(base)
    except (OSError, RuntimeError):
        return
    os.environ["NUMBA_CACHE_DIR"] = str(folder)


def _user_cache() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "watteau"


def _forget_old(base: Path) -> None:
    folders = sorted(base.glob("watteau-kernels-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in folders[_KEPT:]:
        with suppress(OSError):
            rmtree(old)
