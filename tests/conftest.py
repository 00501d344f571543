"""Fixtures that several test folders share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def watteau_data() -> Path:
    """The folder of public data; skips where WATTEAU_DATA is unset, but never in CI."""
    folder = os.environ.get("WATTEAU_DATA")
    if not folder:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must set WATTEAU_DATA")
        pytest.skip("WATTEAU_DATA is unset: the public data are not at hand")
    return Path(folder)
