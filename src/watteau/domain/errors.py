"""Errors that name the place and the remedy."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a file: where (line from 1, 0 when the whole file is meant), what, and what was expected."""

    line: int
    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else "file"
        at = f", {self.path}" if self.path else ""
        return f"{place}{at}: {self.found}; expected {self.expected}"


class InputError(Exception):
    """Input that cannot be used. Nothing of it was kept. Carries every fault that was found."""

    def __init__(self, source: str, faults: list[Fault]) -> None:
        self.source = source
        self.faults = tuple(faults)
        super().__init__("\n".join(f"{source}: {fault}" for fault in faults))


class InvariantBroken(Exception):  # noqa: N818 - the name says what happened, as in STYLE
    """Our own mistake: the state contradicts itself. The cycle stops and the books are kept."""
