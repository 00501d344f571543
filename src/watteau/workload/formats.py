"""Reads a workload file whatever its format, which is recognised by its content and never by its name."""

from pathlib import Path

from watteau.domain.errors import Fault, InputError
from watteau.domain.jobs import Workload
from watteau.workload import openb, pai, sacct, swf
from watteau.workload.openb import OpenbNode
from watteau.workload.parquet import MAGIC as PARQUET_MAGIC
from watteau.workload.parquet import check_place, read_parquet, write_workload
from watteau.workload.text import LINE_MAX_BYTES, Progress

__all__ = ["OpenbNode", "check_place", "read_accounting", "read_openb_nodes", "read_workload", "write_workload"]

KNOWN = (
    "a PAI CSV (header submit_s,duration_s,gpus), a Standard Workload Format file, an `sacct --parsable2` export "
    "with its header, an openb pod list (header name,cpu_milli,…), or Watteau's own Parquet"
)
_BOM = b"\xef\xbb\xbf"
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"PK\x03\x04": "zip", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def read_workload(path: Path, *, timezone: str = "UTC", progress: Progress | None = None) -> Workload:
    """Read a workload: PAI CSV, SWF, `sacct --parsable2`, openb pods, or Watteau's own Parquet.

    `timezone` (IANA name) is that of the times in an sacct export; the other formats count seconds. The file is
    streamed: only the columns of the Workload are kept. Raises InputError with every fault, each with its line;
    nothing of a faulty file is returned.
    """
    if _beginning(path, 4) == PARQUET_MAGIC:
        return read_parquet(path, progress)
    line, text = _first_line(path)
    if text.startswith(";"):
        return swf.read_swf(path, _swf_fields(path), progress)
    if "|" in text:
        return sacct.read_sacct(path, tuple(text.split("|")), line, timezone, progress)
    if _looks_like_swf(text):
        return swf.read_swf(path, _swf_fields(path), progress)
    names = _names(text)
    if set(names) >= set(openb.NODE_COLUMNS):
        raise _unreadable(path, line, "a list of openb nodes, which are no jobs", KNOWN)
    if len(set(names) & set(openb.POD_COLUMNS)) >= 3:
        return openb.read_openb_pods(path, names, line, progress)
    if set(names) & set(pai.COLUMNS):
        return pai.read_pai(path, names, line, progress)
    shown = text if len(text) <= 60 else text[:59] + "…"
    raise _unreadable(path, line, f"unknown format, beginning with {shown!r}", KNOWN)


def read_accounting(path: Path, *, timezone: str = "UTC", progress: Progress | None = None) -> Workload:
    """Read an `sacct --parsable2` export and nothing else; the error for another file says how to make one."""
    line, text = _first_line(path)
    if "|" not in text:
        shown = text if len(text) <= 60 else text[:59] + "…"
        raise _unreadable(path, line, f"no header of sacct, but {shown!r}", f"what `{sacct.COMMAND}` writes")
    return sacct.read_sacct(path, tuple(text.split("|")), line, timezone, progress)


def read_openb_nodes(path: Path) -> list[OpenbNode]:
    """Read the node list of the openb cluster (header sn,cpu_milli,memory_mib,gpu,model), in file order.

    Raises InputError with every fault.
    """
    line, text = _first_line(path)
    return openb.read_openb_node_rows(path, _names(text), line)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().strip('"') for name in text.split(","))


def _beginning(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise _unreadable(path, 0, error.strerror or str(error), "a file that can be read") from None
    except ValueError as error:  # a zero byte in the path
        raise _unreadable(path, 0, str(error), "a file that can be read") from None


def _first_line(path: Path) -> tuple[int, str]:
    """(number, text) of the first line that is not blank. Refuses what is no text without reading on."""
    start = _beginning(path, LINE_MAX_BYTES + 1)
    if not start:
        raise _unreadable(path, 0, "an empty file", KNOWN)
    for magic, packer in _PACKED.items():
        if start.startswith(magic):
            raise _unreadable(path, 0, f"a file packed with {packer}", "the unpacked file")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _unreadable(path, 0, "text in UTF-16", "text in UTF-8")
    if b"\0" in start:
        raise _unreadable(path, 0, "a binary file", KNOWN)
    if b"\n" not in start and len(start) > LINE_MAX_BYTES:
        raise _unreadable(path, 1, f"a line of more than {LINE_MAX_BYTES} bytes", "one job per line")
    for number, line in enumerate(start.removeprefix(_BOM).split(b"\n"), start=1):
        if line.strip():
            try:
                return number, line.decode().strip()
            except UnicodeDecodeError as error:
                raise _unreadable(
                    path, number, f"byte 0x{line[error.start]:02x}, which is not UTF-8", "text in UTF-8"
                ) from None
    raise _unreadable(path, 0, "nothing but blank lines", KNOWN)


def _looks_like_swf(text: str) -> bool:
    fields = text.split()
    return len(fields) > 2 and "," not in text and all(_is_number(field) for field in fields)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _swf_fields(path: Path) -> int:
    """Fields in the first job line; 18 when there is none, so that the reader says what is wrong."""
    with path.open("rb") as file:
        while line := file.readline(LINE_MAX_BYTES):
            if (line := line.removeprefix(_BOM).strip()) and not line.startswith(b";"):
                fields = len(line.split())
                return fields if fields in swf.FIELD_COUNTS else swf.FIELD_COUNTS[0]
    return swf.FIELD_COUNTS[0]


def _unreadable(path: Path, line: int, found: str, expected: str) -> InputError:
    return InputError(str(path), [Fault(line, "", found, expected)])
