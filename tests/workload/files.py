"""Small invented files: read them, or say what is wrong with them."""

import tempfile
from pathlib import Path

import pytest

from watteau.domain.errors import InputError
from watteau.domain.jobs import Workload
from watteau.workload.formats import read_workload

PAI_HEADER = "submit_s,duration_s,gpus\n"


def read(content: str | bytes, timezone: str = "UTC") -> Workload:
    """The workload that a file with this content holds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_workload(path, timezone=timezone)


def faults(content: str | bytes, timezone: str = "UTC") -> list[str]:
    """The faults of a file that must not be readable, each as one sentence."""
    with pytest.raises(InputError) as caught:
        read(content, timezone)
    return [str(fault) for fault in caught.value.faults]


def notes(workload: Workload) -> str:
    """All notes as one text."""
    return "\n".join(workload.notes)


def columns(workload: Workload) -> dict[str, list[int]]:
    """The columns as lists, to compare whole workloads."""
    names = ("job_id", "submit_s", "runtime_s", "estimate_s", "limit_s", "shape", "tenant", "priority_class")
    return {name: getattr(workload, name).tolist() for name in names}
