"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: this machine is shared, and a slow example is no fault.
settings.register_profile("watteau", deadline=None)
settings.load_profile("watteau")


@pytest.fixture(scope="session")
def watteau_data() -> Path:
    """The folder of public traces that WATTEAU_DATA names; CI must have it."""
    named = os.environ.get("WATTEAU_DATA")
    if not named:
        if os.environ.get("CI") == "true":
            pytest.fail("WATTEAU_DATA is not set: CI reads the public traces")
        pytest.skip("WATTEAU_DATA is not set: the public traces are not here")
    return Path(named)
