"""Values of Slurm's options as Slurm reads them: times, durations, memory, GPUs, arrays, dependencies.

After the sbatch manual (slurm.schedmd.com/sbatch.html) and what sbatch accepts. Every function takes the text of one
value and raises Unreadable, which says what was expected.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from watteau.domain.requests import MOST_ARRAY_TASKS, After
from watteau.domain.units import DAY_S, HOUR_S

_MINUTE_S = 60
#: Larger numbers mean nothing here, and would only cost time.
_MOST_DIGITS = 12
_LAST_INDEX = 2**31
_MOST_DELAY_MIN = 365 * 24 * 60


class Unreadable(ValueError):  # noqa: N818 - the name says what happened, as in STYLE
    """A value that is not of its form; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class GpuCount:
    """So many thousandths of a GPU, of one model where that is said."""

    milli: int
    model: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a dependency list: `job` is a job, an array, or one task of an array (`17_3`)."""

    after: After
    job: str
    delay_s: int = 0


@dataclass(frozen=True, slots=True)
class DependencyList:
    """Conditions that must hold together (`any_of` False), or of which one is enough."""

    conditions: tuple[Condition, ...]
    singleton: bool
    any_of: bool


def count(text: str, least: int = 1) -> int:
    """A whole number in decimal."""
    if not re.fullmatch(rf"\d{{1,{_MOST_DIGITS}}}", text.strip(), re.A) or int(text) < least:
        raise Unreadable(f"a whole number, {least} or more")
    return int(text)


def nodes(text: str) -> tuple[int, int]:
    """(fewest, most) of `4`, `2-8`, `1k`, `1-15:4` or `2,4,8`."""
    expected = "a number of nodes like 4, or a range like 2-8"
    sizes: list[int] = []
    for part in text.strip().split(","):
        found = re.fullmatch(r"(\d{1,7}[kKmM]?)(?:-(\d{1,7}[kKmM]?))?(?::(\d{1,7}))?", part, re.A)
        if not found:
            raise Unreadable(expected)
        low = _with_suffix(found[1])
        high = _with_suffix(found[2]) if found[2] else low
        step = int(found[3]) if found[3] else 1
        if low < 1 or high < low or step < 1:
            raise Unreadable(expected)
        sizes += [low, high - (high - low) % step]
    return min(sizes), max(sizes)


def memory_mib(text: str) -> int:
    """MiB of `4000`, `16G`, `16GB`, `500M`, `1T`, `2048K` (rounded up); 0 is all of a node."""
    found = re.fullmatch(rf"(\d{{1,{_MOST_DIGITS}}})(?:([kKmMgGtT])[bB]?)?", text.strip(), re.A)
    if not found:
        raise Unreadable("an amount of memory like 16G, 500M, or 4000 (MB)")
    amount = int(found[1])
    match (found[2] or "M").upper():
        case "K":
            return -(-amount // 1024)
        case "G":
            return amount * 1024
        case "T":
            return amount * 1024 * 1024
    return amount


def duration_s(text: str) -> int:
    """Seconds of minutes, minutes:seconds, h:m:s, days-hours, days-h:m or days-h:m:s; 0 for no limit."""
    expected = "a time like 90 (minutes), 90:00, 1:30:00, 1-12, 1-12:30 or 1-12:30:00, or UNLIMITED"
    text = text.strip()
    if text.upper() in ("UNLIMITED", "INFINITE", "-1"):
        return 0
    found = re.fullmatch(
        r"(?:(?P<days>\d{1,6})-)?(?P<first>\d{1,9})(?::(?P<second>\d{1,9}))?(?::(?P<third>\d{1,9}))?", text, re.A
    )
    if not found:
        raise Unreadable(expected)
    first, second, third = (int(found[name] or 0) for name in ("first", "second", "third"))
    if found["days"] is not None:
        return int(found["days"]) * DAY_S + first * HOUR_S + second * _MINUTE_S + third
    if found["third"] is not None:
        return first * HOUR_S + second * _MINUTE_S + third
    return first * _MINUTE_S + second


def gpus(text: str) -> GpuCount:
    """`4`, `a100:4`; Watteau's own addition is a part of one GPU, `0.5`. Several models in a list are refused."""
    expected = "a number of GPUs like 4 or a100:4, or a part of one like 0.5"
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 1:
        raise Unreadable("GPUs of one model; a job has the same GPUs on every node")
    model, colon, number = parts[0].rpartition(":")
    if (colon and not model) or ":" in model:
        raise Unreadable(expected)
    return GpuCount(_gpu_milli(number, expected), model)


def gres(text: str) -> tuple[GpuCount | None, list[str]]:
    """(GPUs on each node, entries that ask for something else) of `gpu`, `gpu:2`, `gpu:a100`, `gpu:a100:2,tmp:1`."""
    expected = "generic resources like gpu:2 or gpu:a100:2"
    asked: GpuCount | None = None
    others: list[str] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        words = re.sub(r"\(S:[^)]*\)$", "", entry).removeprefix("gres/").replace("=", ":").split(":")
        if words[0].lower() in ("none", "0"):
            continue
        if words[0].lower() != "gpu":
            others.append(entry)
            continue
        if asked is not None:
            raise Unreadable("GPUs of one model; a job has the same GPUs on every node")
        match words[1:]:
            case []:
                asked = GpuCount(1_000)
            case [number] if re.fullmatch(r"[\d.]+[kK]?", number, re.A):
                asked = GpuCount(_gpu_milli(number, expected))
            case [model] if model:
                asked = GpuCount(1_000, model)
            case [model, number] if model:
                asked = GpuCount(_gpu_milli(number, expected), model)
            case _:
                raise Unreadable(expected)
    return asked, others


def array(text: str) -> tuple[tuple[int, ...], int | None]:
    """(indices in order, each once; how many may run at once) of `0-15`, `1,3,5-9:2`, `0-99%10`."""
    expected = f"array indices like 0-15, 1,3,5 or 0-99:10%4, at most {MOST_ARRAY_TASKS:,} of them"
    listed, percent, most = text.strip().partition("%")
    if percent and not re.fullmatch(r"\d{1,9}", most, re.A):
        raise Unreadable(expected)
    ranges: list[range] = []
    for part in listed.removeprefix("[").removesuffix("]").split(","):
        found = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?(?::(\d{1,10}))?", part.strip(), re.A)
        if not found or (found[3] and not found[2]):
            raise Unreadable(expected)
        first, last, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
        if last < first or last > _LAST_INDEX or step < 1:
            raise Unreadable(expected)
        # Counted before it is written out: 0-2147483647 would fill the memory.
        ranges.append(range(first, last + 1, step))
        if sum(map(len, ranges)) > 10 * MOST_ARRAY_TASKS:
            raise Unreadable(expected)
    indices = sorted(set().union(*ranges))
    if len(indices) > MOST_ARRAY_TASKS:
        raise Unreadable(expected)
    return tuple(indices), min(int(most), MOST_ARRAY_TASKS) or None if percent else None


def dependencies(text: str) -> DependencyList:
    """`afterok:20:21,afterany:23`, `after:5+10?afternotok:6`, `singleton`; a bare job id is `afterany`."""
    expected = "dependencies like afterok:20:21, after:20+10 (minutes) or singleton, joined by ',' or '?', not both"
    text = text.strip()
    if "," in text and "?" in text:
        raise Unreadable(expected)
    conditions: list[Condition] = []
    singleton = False
    for part in re.split(r"[,?]", text):
        word, *jobs = part.strip().split(":")
        if word.lower() == "singleton" and not jobs:
            singleton = True
            continue
        if re.match(r"\d", word, re.A):
            word, jobs = After.ANY.value, [word, *jobs]
        try:
            after = After(word.lower())
        except ValueError:
            raise Unreadable(expected) from None
        if not jobs:
            raise Unreadable(expected)
        for job in jobs:
            found = re.fullmatch(r"(\d{1,18}(?:_\d{1,10}|_\*)?)(?:\+(\d{1,6}))?", job.strip(), re.A)
            if not found or (found[2] and after is not After.BEGUN) or int(found[1].partition("_")[0]) < 1:
                raise Unreadable(expected)
            if int(found[2] or 0) > _MOST_DELAY_MIN:
                raise Unreadable("a delay of at most a year")
            conditions.append(Condition(after, found[1].removesuffix("_*"), int(found[2] or 0) * _MINUTE_S))
    return DependencyList(tuple(conditions), singleton, "?" in text)


#: Times of day with a name, as hours.
_NAMED_HOURS = {"midnight": 0, "elevenses": 11, "noon": 12, "fika": 15, "teatime": 16}
_UNIT_S = {"second": 1, "minute": _MINUTE_S, "hour": HOUR_S, "day": DAY_S, "week": 7 * DAY_S}
_NOW = re.compile(r"now\s*(?:([+-])\s*(\d{1,10})\s*(?:(second|minute|hour|day|week)s?)?)?\s*", re.I | re.A)
_TIME = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?\s*([ap]m)?", re.I | re.A)
_ISO_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.A)
_DATE = re.compile(r"(\d{1,2}+)[./]?(\d{1,2}+)[./]?(\d{2})?(?!\d)", re.A)


def moment_s(text: str, now: datetime | None) -> int:
    """Epoch second of `16:00`, `tomorrow`, `now+1hour`, `2027-01-20T12:34`, `01/20-16:00`, `uts1800000000` and so on.

    Days and times of day are those of the zone of `now`, which must be aware. A time of day that is past means
    tomorrow; a date without a year that is past means next year. Several are read one after another.
    """
    expected = "a time like 16:00, now+1hour, tomorrow, 2027-01-20T12:34 or 01/20-16:00"
    if found := re.fullmatch(r"uts(\d{7,12})", text.strip(), re.I | re.A):
        return int(found[1])
    if now is None:
        raise Unreadable("a time that does not depend on the present one, which is not known here")
    wall = now.replace(tzinfo=None)
    year: int | None = None
    day: tuple[int, int] | None = None
    clock: tuple[int, int, int] | None = None
    rest = text.strip()
    if not rest:
        raise Unreadable(expected)
    try:
        while rest := _after_separators(rest):
            if found := _NOW.match(rest):
                delta_s = int(found[2] or 0) * _UNIT_S[(found[3] or "second").lower()]
                at = now.timestamp() + (-delta_s if found[1] == "-" else delta_s)
                if found.end() < len(rest):
                    raise Unreadable(expected)
                return int(at)
            word = next((word for word in ("today", "tomorrow", *_NAMED_HOURS) if rest.lower().startswith(word)), "")
            if word:
                rest = rest[len(word) :]
                if word in _NAMED_HOURS:
                    clock = (_NAMED_HOURS[word], 0, 0)
                else:
                    meant = wall + timedelta(days=word == "tomorrow")
                    year, day = meant.year, (meant.month, meant.day)
            elif found := _TIME.match(rest):
                rest, clock = rest[found.end() :], _time_of_day(found)
            elif found := _ISO_DATE.match(rest):
                rest, year, day = rest[found.end() :], int(found[1]), (int(found[2]), int(found[3]))
            elif found := _DATE.match(rest):
                rest, day = rest[found.end() :], (int(found[1]), int(found[2]))
                year = 2000 + int(found[3]) if found[3] else None
            else:
                raise Unreadable(expected)
        return _epoch_s(now, year, day, clock, expected)
    except (OverflowError, OSError):
        raise Unreadable(expected) from None
    except Unreadable:
        raise
    except ValueError:  # the 30th of February
        raise Unreadable("a day that the calendar has") from None


# --- Helpers --------------------------------------------------------------------------------------------------------


def _after_separators(text: str) -> str:
    """Without the blanks, dashes and the T that stand between a date and a time."""
    text = text.lstrip(" \t-")
    while text.startswith("T") and not text.lower().startswith(("today", "tomorrow", "teatime")):
        text = text[1:].lstrip(" \t-")
    return text


def _epoch_s(
    now: datetime, year: int | None, day: tuple[int, int] | None, clock: tuple[int, int, int] | None, expected: str
) -> int:
    wall = now.replace(tzinfo=None)
    if day is None and clock is None:
        raise Unreadable(expected)
    hour, minute, second = clock or (0, 0, 0)
    if day is None:
        later_today = (hour, minute) > (wall.hour, wall.minute)
        meant = wall + timedelta(days=not later_today)
        year, day = meant.year, (meant.month, meant.day)
    elif year is None:
        is_ahead = (*day, hour, minute) > (wall.month, wall.day, wall.hour, wall.minute)
        year = wall.year + (not is_ahead)
    assert year is not None
    return int(datetime(year, *day, hour, minute, second, tzinfo=now.tzinfo).timestamp())


def _time_of_day(found: re.Match[str]) -> tuple[int, int, int]:
    hour, minute, second = int(found[1]), int(found[2]), int(found[3] or 0)
    match (found[4] or "").lower():
        case "pm" if hour != 12:
            hour += 12
        case "am" if hour == 12:
            hour = 0
        case "am" if hour > 12:
            hour = 24
    if hour > 23 or minute > 59 or second > 59:
        raise Unreadable("a time of day from 0:00 to 23:59:59")
    return hour, minute, second


def _gpu_milli(number: str, expected: str) -> int:
    if found := re.fullmatch(r"(\d{1,6})([kK]?)", number, re.A):
        return int(found[1]) * (1024 if found[2] else 1) * 1_000
    if found := re.fullmatch(r"0?\.(\d{1,3})", number, re.A):
        return int(found[1].ljust(3, "0"))
    raise Unreadable(expected)


def _with_suffix(number: str) -> int:
    match number[-1].lower():
        case "k":
            return int(number[:-1]) * 1024
        case "m":
            return int(number[:-1]) * 1024 * 1024
    return int(number)
