"""The fleet file: TOML text in, a `Fleet` out, or every fault at once with its line, its path and what was expected.

Tenants are a flat list of `[[tenants]]` with `parent = "..."`: a tree six levels deep stays readable, and moving a
tenant is a change of one line. The one tenant without a parent is the root.
"""

import difflib
import re
import tomllib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Annotated, Any, cast

import tree_sitter_toml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError
from tree_sitter import Language, Node, Parser

from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import (
    MOST_FLEET_GPUS,
    MOST_FLEET_MW,
    MOST_FLEET_NODES,
    MOST_SITE_MW,
    Contract,
    Engine,
    Fleet,
    Mode,
    Outage,
    Phase,
    Pool,
    Pue,
    Site,
    SlurmAccess,
    Technology,
)
from watteau.domain.tenants import Tenant
from watteau.domain.units import ContractId, PoolId, SiteId, TenantId

__all__ = ["MAX_BYTES", "MAX_FAULTS", "parse_fleet"]

#: A thousand sites fit in; what is larger is not a fleet file, and would take long to refuse in full.
MAX_BYTES = 2 * 1024 * 1024
#: Faults that are spelled out; the rest is counted.
MAX_FAULTS = 1_000
#: Levels of tables and dotted keys; a fleet file needs six.
MAX_KEY_DEPTH = 32
#: Levels of the tenant tree: programme > party > project > user and room to spare.
MAX_TENANT_DEPTH = 16
YEARS = (1970, 2199)

Path = tuple[str | int, ...]
RawTable = dict[str, object]


def parse_fleet(text: str, source: str) -> Fleet:
    """The fleet that a TOML text describes; `source` names it in errors.

    A date means 00:00 UTC. Raises InputError with every fault that was found, sorted by line.
    """
    lines, raw = _read_toml(text, source)
    faults = _Faults(lines)
    table: _FleetTable | None = None
    try:
        table = _FleetTable.model_validate(raw)
    except ValidationError as error:
        _add_schema_faults(error, raw, faults)
    _check_fleet(raw, faults)
    if faults.count or table is None:
        raise InputError(source, faults.listed())
    return _fleet(table)


# --- What a file may say. The description of a field is what its faults call "expected". ----------------------------

_A_MOMENT = "a date, meaning 00:00 UTC, or a time with its offset, like 2026-03-01 or 2026-03-01T06:00:00Z"


def _moment(value: object) -> datetime:
    """The UTC moment of a TOML date or offset date-time; anything else is refused with the remedy."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise PydanticCustomError(
                "no_zone", "no zone", {"remedy": f"a time with its offset, like {value.isoformat()}Z"}
            )
    elif isinstance(value, date):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif isinstance(value, str):
        raise PydanticCustomError("quoted_date", "quoted", {"remedy": f"{_A_MOMENT}, without quotes"})
    else:
        raise PydanticCustomError("no_date", "no date")
    if not YEARS[0] <= value.year <= YEARS[1]:  # also keeps the move to UTC from overflowing
        raise PydanticCustomError("far_date", "far", {"remedy": f"a year from {YEARS[0]} to {YEARS[1]}"})
    return value.astimezone(UTC)


def _printable(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise PydanticCustomError("unprintable", "unprintable")
    return value


def _pue_points(value: object) -> object:
    """A constant PUE is a curve with one point."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [{"temperature_c": 0.0, "pue": value}]
    return value


_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_AN_ID = "a short id of letters, digits, dots, dashes and underscores that begins with a letter or a digit"
_Name = Annotated[str, StringConstraints(max_length=200), AfterValidator(_printable)]
_A_NAME = "a name of 1 to 200 printable characters"
_Moment = Annotated[datetime, BeforeValidator(_moment)]
_Watts = Annotated[int, Field(ge=1, le=1_000_000_000)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _PuePointTable(_Table):
    temperature_c: float = Field(ge=-60, le=60, description="an outdoor temperature from -60 to 60 degrees Celsius")
    pue: float = Field(ge=1.0, le=3.0, description="a PUE from 1.0 to 3.0")


class _PoolTable(_Table):
    id: _Id = Field(description=_AN_ID)
    gpu_model: _Id = Field(description='a GPU model like "H100": letters, digits, dots, dashes and underscores')
    gpus_per_node: int = Field(ge=1, le=1_000_000, description="a whole number of GPUs from 1 to 1,000,000")
    cpu_cores: int = Field(ge=1, le=1_000_000, description="a whole number of cores per node from 1 to 1,000,000")
    memory_gib: int = Field(ge=1, le=1_000_000_000, description="the memory of a node in GiB, a whole number above 0")
    mig_capable: bool = Field(default=False, description="true or false")
    node_idle_w: _Watts = Field(description="the idle power of a node in watts, a whole number above 0")
    node_typical_w: _Watts = Field(description="the typical power of a busy node in watts, a whole number above 0")
    node_max_w: _Watts = Field(description="the maximum power of a node in watts, a whole number above 0")
    nodes_per_block: int = Field(
        ge=1, le=MOST_FLEET_NODES, description="a whole number of nodes that share a fast fabric, at least 1"
    )


class _PhaseTable(_Table):
    name: _Name = Field(description=_A_NAME)
    opens: _Moment = Field(description=_A_MOMENT)
    nodes: dict[str, Annotated[int, Field(ge=1, le=MOST_FLEET_NODES)]] = Field(
        min_length=1,
        description='whole numbers of nodes by pool, each from 1 to 1,000,000, like { "paris-h100" = 200 }',
    )


class _OutageTable(_Table):
    start: _Moment = Field(description=_A_MOMENT)
    end: _Moment = Field(description=_A_MOMENT)
    pools: list[str] | None = Field(
        default=None, min_length=1, max_length=1_000, description="pool ids in a list, or no such key for all pools"
    )
    reason: _Name = Field(default="planned outage", description=_A_NAME)


class _SlurmTable(_Table):
    user: str = Field(min_length=1, max_length=64, description="the account at the site whose jobs Watteau's are")
    folder: str = Field(
        pattern="^/", max_length=1_000, description="an absolute path on storage that every node of the site sees"
    )
    folder_here: str = Field(default="", max_length=1_000, description="the same folder as this machine sees it")
    rest_url: str = Field(
        default="",
        pattern="^(https?://.+)?$",
        max_length=1_000,
        description="slurmrestd, like http://login1:6820; no such key: by Slurm's commands",
    )
    token_file: str = Field(default="", max_length=1_000, description="a file that holds a JWT and is renewed in time")
    token_command: list[str] = Field(
        default=[],
        max_length=100,
        description="a command that prints a JWT, like ['scontrol', 'token', 'lifespan=3600']",
    )
    command_prefix: list[str] = Field(
        default=[], max_length=100, description="what stands before each command, like ['ssh', 'login1']"
    )
    partition: str = Field(default="", max_length=64, description="where jobs go, or no such key for the default")
    account: str = Field(default="", max_length=64, description="the account that jobs are charged to")
    qos: str = Field(default="", max_length=64, description="the quality of service that jobs ask for")
    poll_s: float = Field(default=2.0, ge=0.1, le=3_600, description="seconds between two looks, 0.1 to 3600")
    nodes: dict[str, str] = Field(
        default={}, max_length=1_000, description="pool = host list, like { hgx = 'gpu[001-100]' }"
    )
    accounts: dict[str, str] = Field(
        default={}, max_length=100_000, description="account = tenant, for jobs that people submit by hand"
    )
    tenant: str = Field(default="", max_length=128, description="the tenant that other accounts' jobs count for")


class _SiteTable(_Table):
    id: _Id = Field(description=_AN_ID)
    name: _Name = Field(description=_A_NAME)
    latitude: float = Field(ge=-90, le=90, description="degrees north from -90 to 90")
    longitude: float = Field(ge=-180, le=180, description="degrees east from -180 to 180")
    power_limit_kw: int = Field(
        ge=0, le=100_000_000, description="a whole number of kW, at least 0 (0: a site without power)"
    )
    pue: Annotated[list[_PuePointTable], BeforeValidator(_pue_points)] = Field(
        min_length=1,
        max_length=100,
        description="a PUE from 1.0 to 3.0, or a curve like [{ temperature_c = 10, pue = 1.15 }, ...]",
    )
    engine: Engine = Field(strict=False, description=f"one of {', '.join(Engine)}")
    mode: Mode = Field(strict=False, description=f"one of {', '.join(Mode)}")
    pools: list[_PoolTable] = Field(min_length=1, max_length=1_000, description="at least one [[sites.pools]]")
    phases: list[_PhaseTable] = Field(min_length=1, max_length=1_000, description="at least one [[sites.phases]]")
    outages: list[_OutageTable] = Field(default=[], max_length=10_000, description="tables written [[sites.outages]]")
    slurm: _SlurmTable | None = Field(default=None, description="a table [sites.slurm], for engine slurm only")


class _ContractTable(_Table):
    id: _Id = Field(description=_AN_ID)
    technology: Technology = Field(strict=False, description=f"one of {', '.join(Technology)}")
    capacity_mw: float = Field(gt=0, le=100_000, description="megawatts above 0, at most 100,000")
    price_eur_per_mwh: float = Field(ge=0, le=100_000, description="euros per MWh from 0 to 100,000")
    start: _Moment = Field(description=_A_MOMENT)
    end: _Moment = Field(description=_A_MOMENT)


class _TenantTable(_Table):
    id: _Id = Field(description=_AN_ID)
    name: _Name | None = Field(default=None, description=_A_NAME)
    parent: str | None = Field(default=None, description="the id of another tenant, or no such key for the root")
    share: int = Field(default=1, ge=1, le=1_000_000_000, description="a whole number of shares, at least 1")
    quota_gpus: int | None = Field(
        default=None,
        ge=0,
        le=MOST_FLEET_GPUS,
        description="a whole number of GPUs, at least 0, or no such key for no ceiling",
    )


class _FleetTable(_Table):
    name: _Name = Field(description=_A_NAME)
    sites: list[_SiteTable] = Field(min_length=1, max_length=1_000, description="at least one [[sites]]")
    contracts: list[_ContractTable] = Field(default=[], max_length=10_000, description="tables written [[contracts]]")
    tenants: list[_TenantTable] = Field(default=[], max_length=100_000, description="tables written [[tenants]]")


_TABLES: dict[tuple[str, ...], type[_Table]] = {
    (): _FleetTable,
    ("sites",): _SiteTable,
    ("sites", "pue"): _PuePointTable,
    ("sites", "pools"): _PoolTable,
    ("sites", "phases"): _PhaseTable,
    ("sites", "outages"): _OutageTable,
    ("sites", "slurm"): _SlurmTable,
    ("contracts",): _ContractTable,
    ("tenants",): _TenantTable,
}


# --- Faults ---------------------------------------------------------------------------------------------------------


class _Faults:
    """The faults of one file. Every path gets the line of its key, or of the nearest table around it."""

    def __init__(self, lines: dict[Path, int]) -> None:
        self._lines = lines
        self._faults: dict[Fault, None] = {}  # a set that keeps its order
        self._uncounted = 0

    @property
    def count(self) -> int:
        return len(self._faults) + self._uncounted

    def add(self, path: Path, found: str, expected: str) -> None:
        if len(self._faults) < MAX_FAULTS:
            self._faults[Fault(self.line(path), _path_text(path), _plain(found), _plain(expected))] = None
        else:
            self._uncounted += 1

    def nearest(self, name: str, known: Collection[str]) -> str | None:
        """The known name that was probably meant; no longer looked for when there are a hundred faults."""
        if self.count >= 100:
            return None
        return next(iter(difflib.get_close_matches(name[:64], list(known)[:1_000], n=1)), None)

    def leave_out(self, count: int) -> None:
        self._uncounted += count

    def line(self, path: Path) -> int:
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def listed(self) -> list[Fault]:
        faults = sorted(self._faults, key=lambda fault: fault.line)
        if self._uncounted:
            faults.append(Fault(0, "", f"{self._uncounted:,} more faults", "these to be mended first"))
        return faults


def _add_schema_faults(error: ValidationError, raw: RawTable, faults: _Faults) -> None:
    """Turns what pydantic found into faults; a missing key whose misspelling is reported is not reported twice."""
    details = error.errors(include_url=False, include_input=False)
    faults.leave_out(max(0, len(details) - MAX_FAULTS))
    misspelled: set[Path] = set()
    missing: list[Path] = []
    for detail in details[:MAX_FAULTS]:
        path: Path = detail["loc"]
        if detail["type"] == "missing":
            missing.append(path)
        elif detail["type"] == "extra_forbidden":
            known = list(_TABLES[_names(path[:-1])].model_fields)
            near = faults.nearest(str(path[-1]), known)
            if near:
                misspelled.add((*path[:-1], near))
            others = ", ".join(name for name in known if name != near)
            faults.add(path, "unknown key", f"{near!r}, or one of {others}" if near else f"one of {others}")
        else:
            path, found = _reached(raw, path)
            context = detail.get("ctx", {})
            remedy = context.get("remedy")
            if detail["type"] == "too_long":
                remedy = f"at most {context['max_length']:,} of them"
            faults.add(path, _shown(found), str(remedy or _description(path)))
    for path in missing:
        if path not in misspelled:
            faults.add(path, "missing", _description(path))


def _names(path: Path) -> tuple[str, ...]:
    return tuple(part for part in path if isinstance(part, str))


def _description(path: Path) -> str:
    """What the field at a path wants, or the nearest field around it."""
    names = _names(path)
    for end in range(len(names), 0, -1):
        table = _TABLES.get(names[: end - 1])
        if table is not None and names[end - 1] in table.model_fields:
            return table.model_fields[names[end - 1]].description or ""
    return "a fleet"


def _reached(raw: RawTable, path: Path) -> tuple[Path, object]:
    """The part of a path that the file really has, and the value there."""
    value: Any = raw
    for depth, part in enumerate(path):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return path[:depth], value
    return path, value


def _shown(value: object) -> str:
    """A value as one short printable piece of text."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() if abs(value) >= 10**30:
            return "a whole number of more than 30 digits"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case dict():
            return "a table" if value else "an empty table"
        case list():
            return f"a list of {len(value):,}" if value else "an empty list"
        case datetime() if value.tzinfo is None:
            return f"{value.isoformat()} without an offset from UTC"
        case date():
            return value.isoformat()
    return str(value)


def _plain(text: str) -> str:
    """Ids that were not checked yet go into sentences: what could move a terminal's cursor is escaped."""
    text = text if len(text) <= 2_000 else text[:1_997] + "..."
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _path_text(path: Path) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", part) else _shown(part)
            text += f".{key}" if text else key
    return text


# --- TOML: tomllib gives the values, tree-sitter the lines -----------------------------------------------------------


def _read_toml(text: str, source: str) -> tuple[dict[Path, int], RawTable]:
    """The line of every key and the values. Raises InputError with one fault when the text is not TOML."""

    def refuse(line: int, found: str, expected: str) -> InputError:
        return InputError(source, [Fault(line, "", found, expected)])

    text = text.removeprefix("\ufeff")  # editors on Windows write a byte order mark
    if len(text) > MAX_BYTES:
        raise refuse(0, "more than 2 MiB", "a fleet file of at most 2 MiB")
    if not text.strip():
        raise refuse(1, "an empty file", 'a fleet: name = "..." and at least one [[sites]]')
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise refuse(line, f"the lone surrogate {text[error.start]!r}", "Unicode text") from None
    try:
        # First the lines: their walk is linear and refuses the nesting on which tomllib is slow or gives up.
        lines = _key_lines(data)
        return lines, tomllib.loads(text)
    except _TooDeepError as error:
        raise refuse(error.line, f"more than {MAX_KEY_DEPTH} levels of nesting", "a fleet, which needs six") from None
    except tomllib.TOMLDecodeError as error:
        line, found = _syntax_fault(str(error), text)
        raise refuse(line, found, "TOML 1.0") from None
    except RecursionError:
        raise refuse(1, f"more than {MAX_KEY_DEPTH} levels of nesting", "a fleet, which needs six") from None
    except ValueError:  # int() refuses more than 4,300 digits
        digits = re.search(r"[0-9_]{4300}", text)
        line = text.count("\n", 0, digits.start() if digits else 0) + 1
        raise refuse(line, "a number of thousands of digits", "numbers of at most 19 digits") from None


def _syntax_fault(message: str, text: str) -> tuple[int, str]:
    """(line, what was found there) from tomllib's message, which ends with the position."""
    what, _, position = message.rpartition(" (at ")
    numbers = re.fullmatch(r"line (\d+), column (\d+)\)", position)
    if numbers:
        return int(numbers[1]), f"column {numbers[2]}: {what}"
    last = text.removesuffix("\n").rpartition("\n")[2]
    return text.removesuffix("\n").count("\n") + 1, f"column {len(last) + 1}, the end of the file: {what or message}"


class _TooDeepError(Exception):
    def __init__(self, node: Node) -> None:
        self.line = _line(node)
        super().__init__()


def _line(node: Node) -> int:
    return node.start_point.row + 1


_PARSER_LANGUAGE = Language(tree_sitter_toml.language())


def _key_lines(data: bytes) -> dict[Path, int]:
    """The line of each table, key and array element, by path. Whatever is not TOML is passed over."""
    lines: dict[Path, int] = {}
    lengths: dict[Path, int] = {}  # elements so far of each array of tables
    top = deque(Parser(_PARSER_LANGUAGE).parse(data).root_node.named_children)
    while top:
        node = top.popleft()
        if node.type == "pair":
            _record_pair(node, (), lines)
        elif node.type in ("table", "table_array_element"):
            parts = node.named_children
            if not parts:
                continue
            path = _header_path(_key_parts(parts[0]), node.type == "table_array_element", lengths)
            _record(path, node, lines)
            for child in parts[1:]:
                if child.type == "pair":
                    _record_pair(child, path, lines)
        elif node.type == "ERROR":
            top.extend(node.named_children)
        elif node.type == "dotted_key":
            _key_parts(node)  # only for its depth: a key outside a pair is left over from a syntax error
    return lines


def _header_path(parts: Sequence[str], is_element: bool, lengths: dict[Path, int]) -> Path:
    """The path that a table header means: each array of tables on the way stands for its newest element."""
    path: Path = ()
    for part in parts[:-1]:
        path = (*path, part)
        if path in lengths:
            path = (*path, lengths[path] - 1)
    path = (*path, *parts[-1:])
    if is_element:
        lengths[path] = lengths.get(path, 0) + 1
        path = (*path, lengths[path] - 1)
    return path


def _record(path: Path, node: Node, lines: dict[Path, int]) -> None:
    if len(path) > MAX_KEY_DEPTH:
        raise _TooDeepError(node)
    line = _line(node)
    while path and path not in lines:
        lines[path] = line
        path = path[:-1]


def _record_pair(pair: Node, base: Path, lines: dict[Path, int]) -> None:
    waiting: list[tuple[Node, Path]] = [(pair, base)]
    while waiting:
        node, path = waiting.pop()
        children = [child for child in node.named_children if child.type != "comment"]
        if node.type == "pair" and children:
            path = (*path, *_key_parts(children[0]))
            _record(path, node, lines)
            waiting.extend((child, path) for child in children[1:])
        elif node.type == "inline_table":
            waiting.extend((child, path) for child in reversed(children))
        elif node.type == "array":
            for position, child in enumerate(children):
                _record((*path, position), child, lines)
                if child.type in ("array", "inline_table"):
                    waiting.append((child, (*path, position)))


def _key_parts(node: Node) -> list[str]:
    """The parts of a bare, quoted or dotted key, unescaped."""
    parts: deque[str] = deque()
    key: Node | None = node
    while key is not None:
        children = key.named_children if key.type == "dotted_key" else [key]
        for part in reversed(children[1:] if key.type == "dotted_key" else children):
            parts.appendleft(_key_text(part))
        key = children[0] if key.type == "dotted_key" and children else None
        if len(parts) > MAX_KEY_DEPTH:
            raise _TooDeepError(node)
    return list(parts)


def _key_text(node: Node) -> str:
    text = (node.text or b"").decode(errors="replace")
    if node.type == "quoted_key":
        try:
            return next(iter(tomllib.loads(f"{text} = 0")))
        except ValueError:
            return text
    return text


# --- What no single field can know ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Spot:
    """A table of the file as it was read, before anything is known to be right."""

    path: Path
    table: RawTable

    def tables(self, key: str) -> list["_Spot"]:
        value = self.table.get(key)
        elements = value if isinstance(value, list) else []
        return [
            _Spot((*self.path, key, position), cast(RawTable, element))
            for position, element in enumerate(elements)
            if isinstance(element, dict)
        ]

    def text(self, key: str) -> str | None:
        value = self.table.get(key)
        return value if isinstance(value, str) else None

    def whole(self, key: str) -> int | None:
        value = self.table.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def number(self, key: str) -> float | None:
        value = self.table.get(key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def moment(self, key: str) -> datetime | None:
        try:
            return _moment(self.table.get(key))
        except PydanticCustomError:
            return None

    def at(self, key: str) -> Path:
        return (*self.path, key)


def _check_fleet(raw: RawTable, faults: _Faults) -> None:
    fleet = _Spot((), raw)
    sites = fleet.tables("sites")[:1_000]
    pools = [pool for site in sites for pool in site.tables("pools")]
    _check_unique(sites, "id", "site", faults)
    _check_unique(pools, "id", "pool", faults)
    home = {pool.text("id"): site.text("id") for site in sites for pool in site.tables("pools")}
    for site in sites:
        _check_site(site, home, faults)
    _check_size(sites, faults)
    _check_busy_power(sites, faults)
    contracts = fleet.tables("contracts")
    _check_unique(contracts, "id", "contract", faults)
    for contract in contracts:
        _check_interval(contract, faults)
    _check_tenants(fleet.tables("tenants")[:100_000], faults)


def _check_unique(spots: Iterable[_Spot], key: str, noun: str, faults: _Faults) -> None:
    first: dict[str, Path] = {}
    for spot in spots:
        name = spot.text(key)
        if name is None:
            continue
        if name in first:
            found = f"{_shown(name)} is already the {noun} on line {faults.line(first[name])}"
            faults.add(spot.at(key), found, f"{'an id' if key == 'id' else 'a name'} of its own")
        else:
            first[name] = spot.at(key)


def _check_interval(spot: _Spot, faults: _Faults) -> None:
    start, end = spot.moment("start"), spot.moment("end")
    if start is not None and end is not None and end <= start:
        faults.add(spot.at("end"), end.isoformat(), f"a time after the start, {start.isoformat()}")


def _check_site(site: _Spot, home: dict[str | None, str | None], faults: _Faults) -> None:
    pools = site.tables("pools")
    known = {name: None for pool in pools if (name := pool.text("id")) is not None}
    for pool in pools:
        _check_powers(pool, faults)
    _check_unique(site.tables("phases"), "name", "phase", faults)
    for phase in site.tables("phases"):
        nodes = phase.table.get("nodes")
        for name in nodes if isinstance(nodes, dict) else {}:
            _check_pool_name(name, (*phase.at("nodes"), name), known, home, faults)
    for outage in site.tables("outages"):
        _check_interval(outage, faults)
        named = outage.table.get("pools")
        for position, name in enumerate(named if isinstance(named, list) else []):
            if isinstance(name, str):
                _check_pool_name(name, (*outage.at("pools"), position), known, home, faults)
    _check_slurm(site, known, home, faults)
    _check_curve(site, faults)
    _check_idle_power(site, faults)


def _check_slurm(site: _Spot, known: Collection[str], home: dict[str | None, str | None], faults: _Faults) -> None:
    table = site.table.get("slurm")
    if not isinstance(table, dict):
        return
    slurm = _Spot(site.at("slurm"), cast(RawTable, table))
    if site.text("engine") != Engine.SLURM:
        faults.add(slurm.path, "a table for engine slurm", 'engine = "slurm" at this site, or no such table')
    if slurm.text("rest_url") and not (slurm.text("token_file") or slurm.table.get("token_command")):
        faults.add(slurm.at("rest_url"), "slurmrestd without a token", "token_file or token_command beside it")
    if slurm.text("rest_url") and slurm.table.get("command_prefix"):
        faults.add(slurm.at("command_prefix"), "both slurmrestd and commands", "one of rest_url and command_prefix")
    named = slurm.table.get("nodes")
    for name in named if isinstance(named, dict) else {}:
        _check_pool_name(name, (*slurm.at("nodes"), name), known, home, faults)


def _check_powers(pool: _Spot, faults: _Faults) -> None:
    order = ("node_idle_w", "node_typical_w", "node_max_w")
    known = [(key, watts) for key in order if (watts := pool.whole(key)) is not None]
    for (lower, lower_w), (upper, upper_w) in pairwise(known):
        if upper_w < lower_w:
            faults.add(pool.at(upper), f"{_shown(upper_w)} W", f"at least {lower}, {_shown(lower_w)} W")


def _check_pool_name(
    name: str, path: Path, known: Collection[str], home: dict[str | None, str | None], faults: _Faults
) -> None:
    if name in known:
        return
    found = f"a pool of site {home[name]}" if name in home else f"the unknown pool {_shown(name)}"
    near = faults.nearest(name, known)
    choices = ", ".join(list(known)[:20]) or "none so far"
    faults.add(path, found, f"{near!r}?" if near else f"a pool of this site: {choices}")


def _check_curve(site: _Spot, faults: _Faults) -> None:
    points = [(p, t) for p in site.tables("pue") if (t := p.number("temperature_c")) is not None]
    for (_, before), (point, temperature) in pairwise(points):
        if temperature <= before:
            faults.add(
                point.at("temperature_c"), _shown(temperature), f"more than {_shown(before)}: the curve must rise"
            )


def _check_idle_power(site: _Spot, faults: _Faults) -> None:
    """All nodes of all phases, idle, on the worst day. A limit of 0 is a site without power, which is allowed."""
    limit_kw, idle_w, worst = site.whole("power_limit_kw"), _draw_w(site, "node_idle_w"), _worst_pue(site)
    if idle_w is None or worst is None or not limit_kw or limit_kw < 0:
        return
    needed_kw = idle_w * worst / 1_000
    if needed_kw > limit_kw:
        faults.add(
            site.at("power_limit_kw"),
            f"{limit_kw:,} kW" if limit_kw < 10**12 else _shown(limit_kw),
            f"at least {needed_kw:,.0f} kW, what all nodes draw when idle x PUE {worst:g} (or 0: no power)",
        )


def _check_busy_power(sites: list[_Spot], faults: _Faults) -> None:
    """What the hourly books can add up; here, because there it would show only when a replay is over."""
    total_mw = 0.0
    for site in sites:
        busy_w = _draw_w(site, "node_typical_w") or 0
        total_mw += busy_w * (_worst_pue(site) or 1.0) / 1e6
        if busy_w > MOST_SITE_MW * 10**6:
            found = f"{busy_w / 1e6:,.0f} MW when all nodes are busy"
            faults.add(site.path, found, f"at most {MOST_SITE_MW:,} MW at one site, for the hourly books")
    if total_mw > MOST_FLEET_MW:
        found = f"{total_mw:,.0f} MW when all nodes of all sites are busy, PUE included"
        faults.add(("sites",), found, f"at most {MOST_FLEET_MW:,} MW, for the hourly books")


def _draw_w(site: _Spot, power: str) -> int | None:
    """What all nodes of all phases draw; None where a figure is missing or wrong, which is a fault of its own."""
    node_w = {pool.text("id"): pool.whole(power) for pool in site.tables("pools")}
    total_w = 0
    for phase in site.tables("phases"):
        nodes = phase.table.get("nodes")
        for name in nodes if isinstance(nodes, dict) else {}:
            count, each_w = _Spot((), cast(RawTable, nodes)).whole(name), node_w.get(name)
            if count is None or each_w is None or not 0 < count <= MOST_FLEET_NODES or not 0 < each_w <= 10**9:
                return None
            total_w += count * each_w
    return total_w


def _worst_pue(site: _Spot) -> float | None:
    pue = [site.number("pue")] if site.number("pue") is not None else [p.number("pue") for p in site.tables("pue")]
    known = [value for value in pue if value is not None and 1.0 <= value <= 3.0]
    return max(known) if known and len(known) == len(pue) else None


def _check_size(sites: list[_Spot], faults: _Faults) -> None:
    nodes_total, gpus_total = 0, 0
    for site in sites:
        per_node = {pool.text("id"): pool.whole("gpus_per_node") or 0 for pool in site.tables("pools")}
        for phase in site.tables("phases"):
            nodes = phase.table.get("nodes")
            for name in nodes if isinstance(nodes, dict) else {}:
                count, gpus = _Spot((), cast(RawTable, nodes)).whole(name) or 0, per_node.get(name, 0)
                if 0 < count <= MOST_FLEET_NODES and 0 <= gpus <= MOST_FLEET_GPUS:  # others are faults of their own
                    nodes_total += count
                    gpus_total += count * gpus
    if nodes_total > MOST_FLEET_NODES or gpus_total > MOST_FLEET_GPUS:
        found = f"{nodes_total:,} nodes with {gpus_total:,} GPUs in all"
        faults.add(("sites",), found, f"at most {MOST_FLEET_NODES:,} nodes and {MOST_FLEET_GPUS:,} GPUs")


def _check_tenants(tenants: list[_Spot], faults: _Faults) -> None:
    _check_unique(tenants, "id", "tenant", faults)
    by_id: dict[str, _Spot] = {}
    for tenant in tenants:
        if (name := tenant.text("id")) is not None:
            by_id.setdefault(name, tenant)
    root: _Spot | None = None
    for tenant in tenants:
        if "parent" not in tenant.table:
            if root is not None:
                found = f"no parent, but {_shown(root.text('id'))} on line {faults.line(root.path)} is the root"
                faults.add(tenant.at("parent"), found, "the id of another tenant: a fleet has one root")
            root = root or tenant
        elif (parent := tenant.text("parent")) is not None and parent not in by_id:
            near = faults.nearest(parent, by_id)
            expected = f"{near!r}?" if near else "the id of a tenant of this file"
            faults.add(tenant.at("parent"), f"the unknown tenant {_shown(parent)}", expected)
    settled: set[str] = set()  # their ancestors are known to be in order
    for name, tenant in by_id.items():
        _check_ancestors(name, tenant, by_id, settled, faults)


def _check_ancestors(name: str, tenant: _Spot, by_id: dict[str, _Spot], settled: set[str], faults: _Faults) -> None:
    """No circle, not too deep, and no quota above that of the nearest ancestor that has one."""
    chain = [name]
    quota = tenant.whole("quota_gpus")
    for parent in _ancestors(tenant, by_id):
        if parent in chain:
            if parent not in settled:  # one fault for a circle, not one for each tenant that leads into it
                circle = [*chain[chain.index(parent) :], parent]
                shown = " > ".join(circle[:8]) + (" > ..." if len(circle) > 8 else "")
                faults.add(by_id[parent].at("parent"), f"a circle: {shown}", "parents that lead to the root")
            settled.update(chain)
            return
        chain.append(parent)
        if len(chain) > MAX_TENANT_DEPTH:
            if parent not in settled:
                faults.add(tenant.at("parent"), f"more than {MAX_TENANT_DEPTH} levels of tenants", "a shallower tree")
            settled.update(chain)
            return
        limit = by_id[parent].whole("quota_gpus")
        if quota is not None and limit is not None:
            if quota > limit:
                expected = f"at most the {_shown(limit)} GPUs of {parent} on line {faults.line(by_id[parent].path)}"
                faults.add(tenant.at("quota_gpus"), f"{_shown(quota)} GPUs", expected)
            quota = None  # the ancestor's own quota is checked against the next one in its own turn


def _ancestors(tenant: _Spot, by_id: dict[str, _Spot]) -> Iterator[str]:
    while (parent := tenant.text("parent")) is not None and parent in by_id:
        yield parent
        tenant = by_id[parent]


# --- From the valid tables to the nouns -----------------------------------------------------------------------------


def _fleet(table: _FleetTable) -> Fleet:
    return Fleet(
        name=table.name,
        sites=tuple(_site(site) for site in table.sites),
        contracts=tuple(
            Contract(
                id=ContractId(contract.id),
                technology=contract.technology,
                capacity_mw=contract.capacity_mw,
                price_eur_per_mwh=contract.price_eur_per_mwh,
                start=contract.start,
                end=contract.end,
            )
            for contract in table.contracts
        ),
        tenants=_tenant_tree(table.tenants),
    )


def _site(site: _SiteTable) -> Site:
    return Site(
        id=SiteId(site.id),
        name=site.name,
        latitude=site.latitude,
        longitude=site.longitude,
        power_limit_kw=site.power_limit_kw,
        pue=Pue(tuple(point.temperature_c for point in site.pue), tuple(point.pue for point in site.pue)),
        engine=site.engine,
        mode=site.mode,
        pools=tuple(_pool(pool) for pool in site.pools),
        phases=tuple(
            Phase(phase.name, phase.opens, tuple((PoolId(pool), count) for pool, count in phase.nodes.items()))
            for phase in site.phases
        ),
        outages=tuple(
            Outage(outage.start, outage.end, tuple(PoolId(pool) for pool in outage.pools or ()), outage.reason)
            for outage in site.outages
        ),
        slurm=None if site.slurm is None else _slurm(site.slurm),
    )


def _slurm(table: _SlurmTable) -> SlurmAccess:
    return SlurmAccess(
        user=table.user,
        folder=table.folder,
        folder_here=table.folder_here,
        rest_url=table.rest_url.rstrip("/"),
        token_file=table.token_file,
        token_command=tuple(table.token_command),
        command_prefix=tuple(table.command_prefix),
        partition=table.partition,
        account=table.account,
        qos=table.qos,
        poll_s=table.poll_s,
        nodes=tuple((PoolId(pool), hosts) for pool, hosts in table.nodes.items()),
        accounts=tuple((account, TenantId(tenant)) for account, tenant in table.accounts.items()),
        tenant=TenantId(table.tenant) if table.tenant else None,
    )


def _pool(pool: _PoolTable) -> Pool:
    return Pool(
        id=PoolId(pool.id),
        gpu_model=pool.gpu_model,
        gpus_per_node=pool.gpus_per_node,
        cpu_cores=pool.cpu_cores,
        memory_gib=pool.memory_gib,
        mig_capable=pool.mig_capable,
        node_idle_w=pool.node_idle_w,
        node_typical_w=pool.node_typical_w,
        node_max_w=pool.node_max_w,
        nodes_per_block=pool.nodes_per_block,
    )


def _tenant_tree(tables: list[_TenantTable]) -> Tenant:
    """The tree, children in file order; one tenant "everyone" where the file names none."""
    if not tables:
        return Tenant(TenantId("everyone"), "everyone", share=1, quota_gpus=None, children=())
    children: dict[str | None, list[_TenantTable]] = {}
    for table in tables:
        children.setdefault(table.parent, []).append(table)

    def grow(table: _TenantTable) -> Tenant:  # at most MAX_TENANT_DEPTH deep
        below = tuple(grow(child) for child in children.get(table.id, ()))
        return Tenant(TenantId(table.id), table.name or table.id, table.share, table.quota_gpus, below)

    return grow(children[None][0])
