"""Files that commands read, and how a wrong one is reported: on stderr, one fault a line, exit code 2."""

from pathlib import Path
from typing import NoReturn

import typer

from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import Fleet
from watteau.domain.fleet_file import MAX_BYTES, parse_fleet

__all__ = ["EXIT_WRONG_INPUT", "fail", "fault_line", "load_fleet"]

EXIT_WRONG_INPUT = 2


def load_fleet(path: Path) -> Fleet:
    """The fleet of a file. Raises InputError for whatever is wrong, from a missing file to a misspelled key."""
    source = str(path)
    return parse_fleet(_read_text(path, source), source)


def fail(error: InputError) -> NoReturn:
    """Prints every fault as `FILE:LINE: path: found; expected ...`, then their number, and ends with exit code 2."""
    for fault in error.faults:
        typer.echo(fault_line(error.source, fault), err=True)
    count = len(error.faults)
    typer.echo(f"{count} {'fault' if count == 1 else 'faults'} found; nothing was changed", err=True)
    raise typer.Exit(EXIT_WRONG_INPUT)


def fault_line(source: str, fault: Fault) -> str:
    """One fault in the form that editors and CI turn into a link."""
    place = f"{source}:{fault.line}" if fault.line else source
    at = f"{fault.path}: " if fault.path else ""
    return f"{place}: {at}{fault.found}; expected {fault.expected}"


def _read_text(path: Path, source: str) -> str:
    """The file's text. Never reads more than MAX_BYTES and one byte, however large the file is."""
    expected = f"a readable UTF-8 file of at most {MAX_BYTES // 1024**2} MiB"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(source, [Fault(0, "", error.strerror or str(error), expected)]) from None
    except ValueError as error:  # a NUL in the path
        raise InputError(source, [Fault(0, "", str(error), expected)]) from None
    if len(data) > MAX_BYTES:
        raise InputError(source, [Fault(0, "", f"more than {MAX_BYTES // 1024**2} MiB", expected)])
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x} at offset {error.start}, which is not UTF-8"
        raise InputError(source, [Fault(line, "", found, "UTF-8 text")]) from None
