"""Text tables in bounded memory: batches of rows with their line numbers, every fault collected, nothing half-read."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from watteau.domain.errors import Fault, InputError
from watteau.domain.units import BoolArray, Int64Array

#: No line of a job table is longer. A file without a line end in its first mebibyte is not a table.
LINE_MAX_BYTES = 1 << 20
#: No time in a trace is larger (about 31,700 years), no count of GPUs, and no memory in MiB.
TIME_MAX_S = 10**12
GPUS_MAX = 10**7
MEMORY_MAX_MIB = 10**12

_BLOCK_BYTES = 8 << 20
_FAULTS_SHOWN = 20
_FAULTS_KEPT = 500  # a batch is checked column by column: keep more than are shown, so that the first lines win
_FOUND_MAX_CHARS = 60

#: Called with the number of bytes read so far.
Progress = Callable[[int], None]


class Faults:
    """Every fault of one file: the first ones in line order, and how many there are in all."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.total = 0
        self._kept: list[Fault] = []

    def add(self, line: int, path: str, found: str, expected: str) -> None:
        """Record one fault."""
        self.total += 1
        if len(self._kept) < _FAULTS_KEPT:
            self._kept.append(Fault(line, path, _shorten(found), expected))

    def add_rows(self, batch: "Batch", column: str, bad: BoolArray, expected: str) -> None:
        """Record a fault for each row of a batch where `bad`, showing what stands in the column."""
        rows = np.flatnonzero(bad)
        shown = rows[: max(0, min(_FAULTS_SHOWN, _FAULTS_KEPT - len(self._kept)))]
        values = batch.frame[column].gather(shown).to_list()
        for row, value in zip(shown, values, strict=True):
            found = repr(_shorten(str(value))) if value else "nothing"
            self._kept.append(Fault(int(batch.line[row]), column, found, expected))
        self.total += len(rows)

    def fail(self, line: int, path: str, found: str, expected: str) -> "InputError":
        """The error that ends the reading at once, with what was found before."""
        self.add(line, path, found, expected)
        return self.error()

    def error(self) -> InputError:
        """All faults as one error; the total is stated when not all are shown."""
        shown = sorted(self._kept, key=lambda fault: fault.line)[:_FAULTS_SHOWN]
        if self.total > len(shown):
            shown.append(Fault(0, "", f"{self.total} faults in all, {len(shown)} of them shown", "none"))
        return InputError(self.source, shown)

    def raise_if_any(self) -> None:
        """Raise InputError when at least one fault was recorded."""
        if self.total:
            raise self.error()


@dataclass(frozen=True, slots=True)
class Table:
    """How the rows of a text file are cut into fields."""

    columns: tuple[str, ...]
    separator: str  # one character; " " means any run of blanks and tabs
    quoted: bool = False  # whether "…" may surround a field
    comment: str = ""  # what a comment line starts with
    header_line: int = 0  # the line that names the columns; 0: there is none


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a file, every field still text, each with its line number from 1."""

    frame: pl.DataFrame
    line: Int64Array  # [row]

    def __len__(self) -> int:
        return len(self.line)

    def where(self, keep: BoolArray) -> "Batch":
        """The rows that are kept."""
        return self if bool(keep.all()) else Batch(self.frame.filter(pl.Series(keep)), self.line[keep])


def read_batches(path: Path, table: Table, faults: Faults, progress: Progress | None = None) -> Iterator[Batch]:
    """The rows of a file in batches of a few mebibytes. Blank lines and comments hold no row and are passed over.

    Faulty rows (wrong number of fields, open quotes) go to `faults`; the caller raises when the file is read.
    Raises InputError at once when the file is binary, not UTF-8 or has a line above LINE_MAX_BYTES.
    """
    for first_line, text, ended in _line_blocks(path, faults, progress):
        lines = np.arange(first_line, first_line + text.count(b"\n"), dtype=np.int64)
        if first_line <= table.header_line:
            skip = table.header_line - first_line + 1
            text, lines = text.split(b"\n", skip)[-1], lines[skip:]
        if table.separator == " ":
            text = _single_blanks(text)
        if b"\n\n" in text or text.startswith(b"\n") or (table.comment and table.comment.encode() in text):
            text, lines = _without_empty_lines(text, lines, table.comment)
        if len(lines):
            batch = _split(text, lines, table)
            yield batch if batch is not None else _split_by_line(text, lines, table, faults, ended)


def integers(
    batch: Batch,
    column: str,
    faults: Faults,
    *,
    minimum: int = 0,
    maximum: int = TIME_MAX_S,
    empty: int | None = None,
) -> Int64Array:
    """[row] whole numbers of a column. `5.0` is a whole number; an empty field is one only when `empty` says which.

    Every other value becomes a fault, and `minimum` in the result, which is then never used.
    """
    text = batch.frame[column].str.strip_chars()
    value = text.cast(pl.Int64, strict=False)
    if value.null_count():
        number = text.cast(pl.Float64, strict=False)
        whole = (number.is_finite() & (number == number.floor()) & (number.abs() < 2.0**53)).fill_null(False)
        value = value.fill_null(number.set(~whole, None).cast(pl.Int64, strict=False))
        if empty is not None:
            value = value.set((text == "").fill_null(False) & value.is_null(), empty)
    missing: BoolArray = value.is_null().to_numpy()
    result: Int64Array = value.fill_null(minimum).to_numpy().copy()
    allowed = np.zeros(len(result), dtype=np.bool_) if empty is None else result == empty
    outside = missing | (((result < minimum) | (result > maximum)) & ~allowed)
    if outside.any():
        expected = f"a whole number from {minimum} to {maximum}"
        faults.add_rows(batch, column, outside, expected + (" or nothing" if empty is not None else ""))
        result[outside] = minimum
    return result


def check_columns(
    faults: Faults, line: int, found: tuple[str, ...], required: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    """Raise InputError when a column is missing, stands twice or is unknown; the message names it."""
    expected = f"the columns {', '.join(required)}" + (f" (optional: {', '.join(optional)})" if optional else "")
    check_no_duplicates(faults, line, found)
    for name in required:
        if name not in found:
            faults.add(line, name, f"no such column among {', '.join(found)}", expected)
    for name in found:
        if name not in required and name not in optional:
            faults.add(line, name, "unknown column", expected)
    faults.raise_if_any()


def check_no_duplicates(faults: Faults, line: int, found: tuple[str, ...]) -> None:
    """Raise InputError when a column stands twice in the header."""
    for name in sorted({name for name in found if found.count(name) > 1}):
        faults.add(line, name, f"the column stands {found.count(name)} times", "each column once")
    faults.raise_if_any()


def _shorten(text: str) -> str:
    return text if len(text) <= _FOUND_MAX_CHARS else text[: _FOUND_MAX_CHARS - 1] + "…"


def _line_blocks(path: Path, faults: Faults, progress: Progress | None) -> Iterator[tuple[int, bytes, bool]]:
    """(number of the first line, whole lines that each end in a newline, whether the file's own last line did)."""
    line, rest, read = 1, b"", 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            read += len(block)
            if line == 1 and not rest and read == len(block):
                block = block.removeprefix(b"\xef\xbb\xbf")
            end = block.rfind(b"\n") + 1
            text, rest = (rest + block[:end], block[end:]) if end else (b"", rest + block)
            if text:
                yield line, _checked(text, line, faults), True
                line += text.count(b"\n")
            if len(rest) > LINE_MAX_BYTES:
                raise _line_too_long(line, faults)
            if progress is not None:
                progress(read)
    if rest:
        yield line, _checked(rest + b"\n", line, faults), False


def _checked(text: bytes, first_line: int, faults: Faults) -> bytes:
    if b"\0" in text:
        line = first_line + text.count(b"\n", 0, text.index(b"\0"))
        raise faults.fail(line, "", "a zero byte: this is a binary file", "text")
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError as error:
            line = first_line + text.count(b"\n", 0, error.start)
            found = f"byte 0x{text[error.start]:02x}, which is not UTF-8"
            raise faults.fail(line, "", found, "text in UTF-8") from None
    if len(text) > LINE_MAX_BYTES:
        ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == 10)
        lengths = np.diff(ends, prepend=-1)
        if int(lengths.max()) > LINE_MAX_BYTES:
            raise _line_too_long(first_line + int(lengths.argmax()), faults)
    return text.replace(b"\r\n", b"\n") if b"\r" in text else text


def _line_too_long(line: int, faults: Faults) -> InputError:
    return faults.fail(line, "", f"a line of more than {LINE_MAX_BYTES} bytes", "one job per line")


def _single_blanks(text: bytes) -> bytes:
    text = text.replace(b"\t", b" ")
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text.replace(b"\n ", b"\n").replace(b" \n", b"\n").removeprefix(b" ")


def _without_empty_lines(text: bytes, lines: Int64Array, comment: str) -> tuple[bytes, Int64Array]:
    rows = text.split(b"\n")[:-1]
    mark = comment.encode()
    keep = [bool(row.strip()) and not (mark and row.startswith(mark)) for row in rows]
    kept = [row for row, is_kept in zip(rows, keep, strict=True) if is_kept]
    return b"".join(row + b"\n" for row in kept), lines[np.array(keep, dtype=np.bool_)]


def _split(text: bytes, lines: Int64Array, table: Table) -> Batch | None:
    """The rows cut by compiled code, or None when at least one needs a closer look.

    Too many fields in one line raise, so an even count of separators proves that no line has too few.
    """
    fields = len(table.columns)
    if text.count(table.separator.encode()) != len(lines) * (fields - 1) or (table.quoted and b'"' in text):
        return None
    try:
        frame = pl.read_csv(
            text,
            has_header=False,
            separator=table.separator,
            quote_char=None,
            schema=dict.fromkeys(table.columns, pl.String()),
            empty_string_is_null=False,
            extra_columns="raise",
        )
    except pl.exceptions.PolarsError:
        return None
    return Batch(frame, lines) if frame.height == len(lines) else None


def _split_by_line(text: bytes, lines: Int64Array, table: Table, faults: Faults, ended: bool) -> Batch:
    """The same rows cut one by one: says for each line what is wrong with it."""
    rows: list[list[str]] = []
    kept: list[int] = []
    fields = len(table.columns)
    for line, row in zip(lines.tolist(), text.decode().split("\n"), strict=False):
        if not row.strip():
            continue
        try:
            values = next(csv.reader([row], strict=True)) if table.quoted else row.split(table.separator)
        except csv.Error as error:
            faults.add(line, "", f"{error} (in {row[:_FOUND_MAX_CHARS]!r})", "closed quotes, one job per line")
            continue
        if len(values) == fields:
            rows.append(values)
            kept.append(line)
        else:
            cut = "" if ended or line != lines[-1] else " (the file ends in the middle of this line)"
            noun = "field" if len(values) == 1 else "fields"
            faults.add(line, "", f"{len(values)} {noun}{cut}", f"{fields}: {_shorten(', '.join(table.columns))}")
    frame = pl.DataFrame(rows, schema=dict.fromkeys(table.columns, pl.String()), orient="row")
    return Batch(frame, np.array(kept, dtype=np.int64))
