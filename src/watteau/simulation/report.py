"""The report of a run: one self-contained HTML page whose every title states what the figures say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from watteau.domain.units import DAY_S, HOUR_S, WEEK_S, Int64Array, from_epoch_s
from watteau.simulation.page import NONE, Chart, Json, Table, cut, log_s, span_words, stamp, write_page

_WEEK_H = WEEK_S // HOUR_S
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: At most this many rows in a table of the page; longer series are summed by day, then by month.
_TABLE_ROWS = 62
_SITE_COLOURS = 6


@dataclass(frozen=True, slots=True)
class WaitRow:
    """Waits of a group of started jobs: how many, and the wait that 50, 90 and 99 % of them did not exceed."""

    label: str
    jobs: int
    p50_s: float
    p90_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One site over the whole run. GPU hours held and there; energy of jobs, free GPUs and cooling."""

    label: str
    jobs: int
    gpu_hours: float
    open_gpu_hours: float
    job_wh: int
    idle_wh: int
    overhead_wh: int
    matched_wh: int


@dataclass(frozen=True, slots=True)
class TenantRow:
    """One tenant over the whole run; `energy_wh` is what its jobs' GPUs drew, without cooling."""

    label: str
    jobs: int
    gpu_hours: float
    energy_wh: int


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """Why jobs waited: the reason in words and the waiting time of all jobs that it explains."""

    label: str
    waited_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """Everything the page shows. Energy figures come from the hourly arrays, so that they cannot contradict them."""

    title: str
    command: str  # replays the run
    seed: int
    version: str
    policy: str
    fleet: str
    workload_source: str
    workload_synthetic: bool
    workload_notes: tuple[str, ...] = ()
    supply_source: str
    supply_synthetic: bool
    supply_aligned_from_year: int | None = None
    supply_notes: tuple[str, ...] = ()
    jobs: int
    jobs_started: int
    wait_p50_s: float | None  # None: no job started
    wait_p99_s: float | None
    recorded_wait_p50_s: float | None = None  # of the same jobs where they really ran; None: not known
    first_hour_s: int
    site_names: tuple[str, ...]
    site_wh: Int64Array  # [site, hour], the meters
    supply_wh: Int64Array  # [hour], renewable
    busy_gpu_milli_s: Int64Array  # [site, hour]
    open_gpu_milli_s: Int64Array  # [site, hour]
    waits_by_size: tuple[WaitRow, ...] = ()
    waits_by_tenant: tuple[WaitRow, ...] = ()
    sites: tuple[SiteRow, ...] = ()
    tenants: tuple[TenantRow, ...] = ()
    reasons: tuple[ReasonRow, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.site_names), len(self.supply_wh))
        for name in ("site_wh", "busy_gpu_milli_s", "open_gpu_milli_s"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has the shape {getattr(self, name).shape}, not {shape}")

    @property
    def hours(self) -> int:
        """Hours of the run."""
        return len(self.supply_wh)

    @property
    def load_wh(self) -> Int64Array:
        """[hour] all meters."""
        load: Int64Array = self.site_wh.sum(axis=0)
        return load

    @property
    def matched_wh(self) -> Int64Array:
        """[hour] load that renewable supply of the same hour met."""
        matched: Int64Array = np.minimum(self.load_wh, self.supply_wh)
        return matched


#: Size classes of jobs: the upper bound in GPUs (included) and the name.
SIZE_CLASSES: tuple[tuple[int, str], ...] = (
    (0, "CPU only"),
    (1, "up to 1 GPU"),
    (8, "2 to 8 GPUs"),
    (64, "9 to 64 GPUs"),
    (512, "65 to 512 GPUs"),
    (1 << 40, "over 512 GPUs"),
)


def waits_by_size(wait_s: Int64Array, gpu_milli: Int64Array) -> tuple[WaitRow, ...]:
    """Waits of started jobs by size class; classes without jobs are left out. Both arrays are [job]."""
    bounds = np.array([bound * 1_000 for bound, _ in SIZE_CLASSES], dtype=np.int64)
    group = np.searchsorted(bounds, gpu_milli, side="left")
    return wait_rows(wait_s, group, [label for _, label in SIZE_CLASSES])


def wait_rows(wait_s: Int64Array, group: NDArray[np.integer[Any]], labels: Sequence[str]) -> tuple[WaitRow, ...]:
    """Waits by group, in the labels' order; `group` is [job], an index into labels (negative: in no group)."""
    rows = []
    for index, label in enumerate(labels):
        own = wait_s[group == index]
        if len(own):
            p50, p90, p99 = (float(q) for q in np.quantile(own, (0.5, 0.9, 0.99)))
            rows.append(WaitRow(label, len(own), p50, p90, p99))
    return tuple(rows)


def write_report(path: Path, content: ReportContent) -> None:
    """Write the page. It loads nothing from anywhere (its own content policy forbids it) and works from a file."""
    charts = [chart for chart in (_match(content), _heat(content), _use(content), *_waits(content)) if chart]
    charts += [_reasons(content)]
    write_page(
        path,
        "report.html",
        {chart.key: chart.figure for chart in charts if chart.figure},
        content=content,
        lede=_lede(content),
        headline=_headline(content),
        charts=charts,
        site_table=_site_table(content),
        tenant_table=_tenant_table(content),
        flags=_flags(content),
        provenance=_provenance(content),
        period=_period(content),
        site_colours=_SITE_COLOURS,
    )


# --- what the page says in words -------------------------------------------------------------------------------------


def _share(part: int, whole: int) -> str:
    """A percentage that never rounds up to a claim: 100 % only when it is all, 0 % only when it is nothing."""
    if part == whole:
        return "100 %"
    if part == 0:
        return "0 %"
    per_mille = part * 1_000 // whole
    if 10 <= per_mille < 990:
        return f"{round(part * 100 / whole)} %"
    return f"{per_mille / 10:.1f} %" if per_mille else "under 0.1 %"


def _energy(wh: int) -> str:
    for size, unit in ((10**9, "GWh"), (10**6, "MWh"), (10**3, "kWh")):
        if abs(wh) >= size:
            return f"{_three(wh / size)} {unit}"
    return f"{wh} Wh"


def _three(figure: float) -> str:
    """At least three digits, without more decimals than they need."""
    digits = 0 if abs(figure) >= 100 else 1 if abs(figure) >= 10 else 2
    return f"{figure:,.{digits}f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _day(epoch_s: int) -> str:
    moment = from_epoch_s(epoch_s)
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}"


def _length(hours: int) -> str:
    if hours <= 48:
        return _count(hours, "hour")
    return _count(hours // 24, "day") + (f" and {_count(hours % 24, 'hour')}" if hours % 24 else "")


def _period(content: ReportContent) -> str:
    last_s = content.first_hour_s + max(content.hours - 1, 0) * HOUR_S
    first, last = _day(content.first_hour_s), _day(last_s)
    days = first if first == last else f"{first} to {last}"
    return f"{days} · {_length(content.hours)} · UTC"


def _match_title(content: ReportContent) -> str:
    load, supply = int(content.load_wh.sum()), int(content.supply_wh.sum())
    if not load:
        return "The sites drew no power"
    if not supply:
        return "No renewable supply in these hours: none of the load was matched"
    return f"Renewables covered {_share(int(content.matched_wh.sum()), load)} of the load, hour by hour"


def _lede(content: ReportContent) -> str:
    load, supply = int(content.load_wh.sum()), int(content.supply_wh.sum())
    if not load:
        return "No node was on in this run, so there is nothing to match."
    if not supply:
        return f"The sites drew {_energy(load)}; no contract delivered renewable energy in these hours."
    matched = int(content.matched_wh.sum())
    ratio = _share(supply, load) if supply <= load else f"{supply * 100 / load:.0f} %"
    surplus = supply - matched
    sentence = (
        f"The sites drew {_energy(load)}; the contracts delivered {_energy(supply)}, {ratio} of that by volume. "
        f"Counted in the hour it was needed, {_share(matched, load)} was renewable."
    )
    if surplus and load - matched:
        sentence += f" {_energy(surplus)} came when nobody could use it; {_energy(load - matched)} was missing."
    return sentence


def _headline(content: ReportContent) -> list[tuple[str, str, str]]:
    """(figure, what it is, one more thing to know)."""
    load, supply, matched = (int(a.sum()) for a in (content.load_wh, content.supply_wh, content.matched_wh))
    busy, there = int(content.busy_gpu_milli_s.sum()), int(content.open_gpu_milli_s.sum())
    started = "all of them started" if content.jobs_started == content.jobs else f"{content.jobs_started:,} started"
    wait = NONE if content.wait_p50_s is None else span_words(content.wait_p50_s)
    tail = "no job started" if content.wait_p99_s is None else f"99 % started within {span_words(content.wait_p99_s)}"
    if content.recorded_wait_p50_s is not None:
        tail += f"; the recorded median is {span_words(content.recorded_wait_p50_s)}"
    return [
        (_share(matched, load) if load else NONE, "matched hour by hour", "renewable supply in the hour of the load"),
        (
            (_share(supply, load) if supply <= load else f"{supply * 100 / load:.0f} %") if load else NONE,
            "by yearly volume" if content.hours >= 8_760 else "by volume",
            "supply over load, whatever the hour",
        ),
        (_energy(load), "drawn by the sites", "at the meter, cooling included"),
        (_share(busy, there) if there else NONE, "of GPU time in use", f"{_three(busy / 3_600_000)} GPU hours"),
        (f"{content.jobs:,}", "jobs" if content.jobs != 1 else "job", started if content.jobs else "nothing was asked"),
        (wait, "median wait", tail),
    ]


def _flags(content: ReportContent) -> list[tuple[str, str]]:
    """(label, sentence) of everything a reader must know before quoting a figure."""
    flags = []
    if content.workload_synthetic:
        flags.append(("Synthetic workload", "jobs, or part of what is known of them, were made up from cited figures"))
    if content.supply_synthetic:
        flags.append(
            ("Synthetic weather", "supply comes from a generator calibrated on French series, not from a meter")
        )
    if content.supply_aligned_from_year is not None:
        year = content.supply_aligned_from_year
        flags.append((f"Weather of {year}", f"supply of {year} was laid over these dates by hour of the year"))
    flags += [("Workload", note) for note in content.workload_notes]
    flags += [("Supply", note) for note in content.supply_notes]
    return flags


def _provenance(content: ReportContent) -> list[tuple[str, str]]:
    return [
        ("Fleet", content.fleet),
        ("Workload", content.workload_source),
        ("Supply", content.supply_source),
        ("Policy", content.policy),
        ("Seed", str(content.seed)),
        ("Watteau", content.version),
    ]


# --- the charts ------------------------------------------------------------------------------------------------------


def _hours_axis(content: ReportContent) -> Json:
    return {"x0": stamp(content.first_hour_s), "dx": HOUR_S * 1_000}


def _drawn(wh: Int64Array) -> list[float]:
    """Mean power in MW (an hour's Wh are W), with the last hour given again so that its step has a width."""
    digits = 4 if int(wh.max(initial=0)) < 10_000_000 else 2
    return [round(float(v), digits) for v in (*wh / 1e6, *wh[-1:] / 1e6)]


def _match(content: ReportContent) -> Chart:
    first = _typical_week(content)
    last = min(first + _WEEK_H, content.hours)
    traces: list[Json] = []
    for index, name in enumerate(content.site_names):
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": cut(name),
                "stackgroup": "load",
                "line": {"shape": "hv", "width": 0},
                "fillcolor": _site_colour(index),
                "y": _drawn(content.site_wh[index]),
                "hovertemplate": "%{y:.2f} MW",
                **_hours_axis(content),
            }
        )
    line: Json = {"type": "scatter", "mode": "lines", "y": _drawn(content.supply_wh), **_hours_axis(content)}
    halo: Json = {"line": {"shape": "hv", "width": 5.5, "color": "--card"}, "hoverinfo": "skip", "showlegend": False}
    traces.append(line | halo)  # keeps the line legible on every colour below it
    traces.append(
        line
        | {
            "name": "Renewable supply",
            "line": {"shape": "hv", "width": 2.5, "color": "--supply"},
            "hovertemplate": "%{y:.2f} MW",
        }
    )
    whole = content.hours <= _WEEK_H
    begin_s = content.first_hour_s
    shown = [stamp(begin_s + first * HOUR_S), stamp(begin_s + last * HOUR_S)]
    axis: Json = {"type": "date", "range": shown}
    if not whole:
        axis["rangeslider"] = {
            "range": [stamp(begin_s), stamp(begin_s + content.hours * HOUR_S)],
            "thickness": 0.12,
        }
    reading = "Coloured areas: what each site drew. Line: what the renewable contracts delivered. "
    if not whole:
        reading += (
            f"Shown first: the week from {_day(begin_s + first * HOUR_S)}, the most typical one. Drag the strip below."
        )
    load, supply = content.load_wh, content.supply_wh
    short = int((supply < load).sum())
    summary = f"Over {_length(content.hours)}, supply fell short of the load in {_count(short, 'hour')} "
    summary += f"and covered it in {content.hours - short:,}."
    layout: Json = {
        "xaxis": axis,
        "yaxis": {"title": {"text": "MW"}, "rangemode": "tozero", "fixedrange": True},
        "hovermode": "x unified",
    }
    figure: Json = {"data": traces, "layout": layout, "height": 430 if whole else 500}
    return Chart(
        "match", _match_title(content), reading, summary, figure if content.hours else None, _hour_table(content)
    )


def _typical_week(content: ReportContent) -> int:
    """First hour of the whole week (from a midnight) whose matched share is nearest to the whole run's."""
    if content.hours <= _WEEK_H:
        return 0
    load, matched = content.load_wh.astype(float), content.matched_wh.astype(float)
    to_midnight = (-(content.first_hour_s // HOUR_S)) % 24
    starts = list(range(to_midnight, content.hours - _WEEK_H + 1, 24)) or [0]
    if not load.sum():
        return starts[0]
    whole = matched.sum() / load.sum()

    def distance(start: int) -> float:
        week = slice(start, start + _WEEK_H)
        return float(abs(matched[week].sum() - whole * load[week].sum()))

    empty_last = [start for start in starts if load[start : start + _WEEK_H].sum()]
    return min(empty_last or starts, key=distance)


def _hour_table(content: ReportContent) -> Table:
    """Load, supply and match by hour, day or month, whichever fits."""
    hour_s = content.first_hour_s + HOUR_S * np.arange(content.hours, dtype=np.int64)
    moments = hour_s.astype("datetime64[s]")
    for unit, name in (("h", "hour"), ("D", "day"), ("M", "month"), ("Y", "year")):
        keys, at = np.unique(moments.astype(f"datetime64[{unit}]"), return_inverse=True)
        caption = name
        if len(keys) <= _TABLE_ROWS:
            break
    sums = []
    for series in (content.load_wh, content.supply_wh, content.matched_wh):
        total = np.zeros(len(keys), dtype=np.int64)
        np.add.at(total, at, series)
        sums.append([int(v) for v in total])
    rows = [
        (
            str(key).replace("T", " ") + (":00" if unit == "h" else ""),
            *(_energy(load), _energy(supply), _energy(matched), _share(matched, load) if load else NONE),
        )
        for key, load, supply, matched in zip(keys, *sums, strict=True)
    ]
    return Table(
        (caption.capitalize() + " (UTC)", "Load", "Supply", "Matched", "Share"), rows, f"The match by {caption}"
    )


def _heat(content: ReportContent) -> Chart:
    days, share = _day_by_hour(content)
    hour_of_day = (content.first_hour_s // HOUR_S + np.arange(content.hours)) % 24
    load, matched = np.zeros(24, dtype=np.int64), np.zeros(24, dtype=np.int64)
    np.add.at(load, hour_of_day, content.load_wh)
    np.add.at(matched, hour_of_day, content.matched_wh)
    known = np.flatnonzero(load > 0)
    by_hour = np.divide(matched, load, out=np.zeros(24), where=load > 0)
    said = [_share(int(part), int(whole)) if whole else NONE for part, whole in zip(matched, load, strict=True)]
    title = "No hour had any load to match"
    summary = title + "."
    if len(known):
        best, worst = int(known[by_hour[known].argmax()]), int(known[by_hour[known].argmin()])
        if not content.matched_wh.any():
            title = summary = "No hour of any day was matched"
        elif by_hour[best] - by_hour[worst] < 0.02:
            title = "The match hardly depends on the hour of the day"
            summary = f"By hour of the day it stays near {said[best]}."
        else:
            title = f"{worst:02d}:00 is the hardest hour to match, {best:02d}:00 the easiest"
            summary = f"Matched share by hour of the day: {said[worst]} at {worst:02d}:00, "
            summary += f"{said[best]} at {best:02d}:00 UTC."
    figure: Json = {
        "data": [
            {
                "type": "heatmap",
                "x": days,
                "y": list(range(24)),
                "z": share,
                "zmin": 0,
                "zmax": 100,
                "colorscale": "heat",
                "hoverongaps": False,
                "hovertemplate": "%{x|%d %b %Y}, %{y:02d}:00<br>%{z} % matched<extra></extra>",
                "colorbar": {"ticksuffix": " %", "thickness": 10, "outlinewidth": 0, "nticks": 5},
            }
        ],
        "layout": {
            "xaxis": {"type": "date", "showgrid": False},
            "yaxis": {
                "title": {"text": "hour (UTC)"},
                "tickvals": [0, 6, 12, 18, 23],
                "ticktext": ["00", "06", "12", "18", "23"],
                "autorange": "reversed",
                "showgrid": False,
                "fixedrange": True,
            },
        },
        "height": 420,
    }
    rows = [(f"{hour:02d}:00", _energy(int(load[hour])), _energy(int(matched[hour])), said[hour]) for hour in known]
    table = Table(("Hour of day (UTC)", "Load", "Matched", "Share"), rows, "The match by hour of the day")
    reading = "Each column is a day, each row an hour of it. Bright: fully renewable. Dark: nothing matched."
    return Chart("heat", title, reading, summary, figure if len(known) and len(days) > 1 else None, table)


def _day_by_hour(content: ReportContent) -> tuple[list[str], list[list[float | None]]]:
    """The days, and [hour of day][day] matched share in percent (None: no load, or not part of the run)."""
    first_day = content.first_hour_s // DAY_S
    lead = content.first_hour_s // HOUR_S % 24
    count = -(-(lead + content.hours) // 24)
    share = np.full(count * 24, np.nan)
    load, matched = content.load_wh, content.matched_wh
    share[lead : lead + content.hours] = np.divide(
        matched * 100.0, load, out=np.full(content.hours, np.nan), where=load > 0
    )
    grid = share.reshape(count, 24).T
    days = [f"{from_epoch_s((first_day + day) * DAY_S):%Y-%m-%d}" for day in range(count)]
    return days, [[None if np.isnan(v) else float(int(v)) for v in row] for row in grid]


def _use(content: ReportContent) -> Chart:
    daily = content.hours > 31 * 24
    names, busy, there = content.site_names, content.busy_gpu_milli_s, content.open_gpu_milli_s
    lead = content.first_hour_s // HOUR_S % 24 if daily else 0
    step = 24 if daily else 1
    used, room = _summed(busy, lead, step), _summed(there, lead, step)
    share = np.divide(used * 100.0, room, out=np.full(used.shape, np.nan), where=room > 0)
    origin_s = content.first_hour_s - lead * HOUR_S
    data: list[Json] = [
        {
            "type": "scatter",
            "mode": "lines" if share.shape[1] > 1 else "markers",
            "name": cut(name),
            "x0": stamp(origin_s),
            "dx": step * HOUR_S * 1_000,
            "y": [None if np.isnan(v) else round(float(v), 1) for v in share[index]],
            "line": {"color": _site_colour(index, line=True), "width": 2, "shape": "linear" if daily else "hv"},
            "hovertemplate": "%{y:.1f} %",
        }
        for index, name in enumerate(names)
    ]
    totals = [(name, int(b), int(t)) for name, b, t in zip(names, busy.sum(axis=1), there.sum(axis=1), strict=True)]
    open_sites = [(name, b / t, _share(b, t)) for name, b, t in totals if t]
    reading = f"Share of the open GPUs that jobs held, by {'day' if daily else 'hour'}."
    if not open_sites:
        return Chart("use", "No GPU was open in this run", reading, "No GPU was open.", None, None)
    low, high = min(open_sites, key=lambda s: s[1]), max(open_sites, key=lambda s: s[1])
    if not busy.any():
        title = "No GPU was used"
    elif len(open_sites) == 1:
        title = f"{high[0]} was {high[2]} in use"
    elif high[1] - low[1] < 0.02:
        title = f"The sites were about equally busy, at {_share(int(busy.sum()), int(there.sum()))}"
    else:
        title = f"{high[0]} was the busiest site at {high[2]}, {low[0]} the least at {low[2]}"
    figure: Json = {
        "data": data,
        "layout": {
            "xaxis": {"type": "date"},
            "yaxis": {"range": [0, 103], "ticksuffix": " %", "fixedrange": True},
            "hovermode": "x unified",
        },
        "height": 380,
    }
    rows = [(name, _three(b / 3_600_000), _three(t / 3_600_000), _share(b, t) if t else NONE) for name, b, t in totals]
    table = Table(("Site", "GPU hours in use", "GPU hours open", "Share"), rows, "Use of the GPUs by site")
    summary = "Over the whole run: " + ", ".join(f"{name} {text}" for name, _, text in open_sites) + "."
    return Chart("use", title, reading, summary, figure, table)


def _summed(series: Int64Array, lead: int, step: int) -> Int64Array:
    """[site, step] sums over blocks of hours; the first block starts `lead` hours before the series."""
    sites, hours = series.shape
    count = -(-(lead + hours) // step)
    padded = np.zeros((sites, count * step), dtype=np.int64)
    padded[:, lead : lead + hours] = series
    result: Int64Array = padded.reshape(sites, count, step).sum(axis=2)
    return result


def _waits(content: ReportContent) -> list[Chart]:
    by_size = _wait_chart("size", "job size", content.waits_by_size)
    by_tenant = _wait_chart("tenant", "tenant", content.waits_by_tenant)
    return [by_size, by_tenant]


#: More tenants than this are shown in the table only (by jobs, the largest are drawn).
_MOST_ROWS = 14


def _wait_chart(key: str, by: str, rows: tuple[WaitRow, ...]) -> Chart:
    reading = f"Wait from submission to start by {by}: half the jobs, 90 % and 99 % of them. Logarithmic scale."
    if not rows:
        return Chart(f"wait-{key}", f"No waits by {by}: no job started", reading, "No job started.", None, None, False)
    drawn = rows if len(rows) <= _MOST_ROWS else tuple(sorted(rows, key=lambda row: -row.jobs)[:_MOST_ROWS])
    if len(drawn) < len(rows):
        reading += f" The {_MOST_ROWS} with the most jobs of {len(rows)}."
    worst, best = max(rows, key=lambda row: row.p90_s), min(rows, key=lambda row: row.p90_s)
    if worst.p90_s < 1:
        title = "Nine in ten jobs of every " + ("size" if key == "size" else by) + " started at once"
    elif len(rows) == 1:
        title = f"{worst.label}: nine in ten jobs started within {span_words(worst.p90_s)}"
    elif span_words(worst.p90_s) == span_words(best.p90_s):
        title = f"Whatever the {by}, nine in ten jobs started within {span_words(worst.p90_s)}"
    else:
        title = f"Longest queue: {worst.label}, where nine in ten started within {span_words(worst.p90_s)}"
    labels = [cut(row.label) for row in drawn]
    order = list(range(len(drawn)))
    data: list[Json] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [v for row in drawn for v in (log_s(row.p50_s), log_s(row.p99_s), None)],
            "y": [v for at in order for v in (at, at, None)],
            "line": {"color": "--rail", "width": 6},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]
    for name, colour, symbol, field in (
        ("half", "--water-1", "circle", "p50_s"),
        ("90 %", "--water-2", "diamond", "p90_s"),
        ("99 %", "--supply", "square", "p99_s"),
    ):
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [log_s(getattr(row, field)) for row in drawn],
                "y": order,
                "marker": {"color": colour, "size": 13, "symbol": symbol, "line": {"color": "--paper", "width": 1.5}},
                "customdata": [[span_words(getattr(row, field)), f"{row.jobs:,}"] for row in drawn],
                "hovertemplate": f"{name} started within %{{customdata[0]}} (%{{customdata[1]}} jobs)<extra></extra>",
            }
        )
    ticks = [
        (1, "≤ 1 s"),
        (10, "10 s"),
        (60, "1 min"),
        (600, "10 min"),
        (3_600, "1 h"),
        (21_600, "6 h"),
        (86_400, "1 d"),
    ]
    ticks += [(WEEK_S, "1 wk"), (30 * DAY_S, "30 d"), (365 * DAY_S, "1 yr")]
    top = max(max(log_s(row.p99_s) for row in drawn), log_s(60))
    figure: Json = {
        "data": data,
        "layout": {
            "xaxis": {
                "tickvals": [log_s(at) for at, _ in ticks],
                "ticktext": [text for _, text in ticks],
                "range": [-0.2, top + 0.3],
                "fixedrange": True,
            },
            "yaxis": {
                "tickvals": order,
                "ticktext": labels,
                "range": [len(drawn) - 0.4, -0.6],
                "automargin": True,
                "showgrid": False,
                "fixedrange": True,
            },
        },
        "height": 140 + 44 * len(drawn),
    }
    cells = [
        (row.label, f"{row.jobs:,}", span_words(row.p50_s), span_words(row.p90_s), span_words(row.p99_s))
        for row in rows
    ]
    table = Table((by.capitalize(), "Jobs", "Half within", "90 % within", "99 % within"), cells, f"Waits by {by}")
    summary = f"The longest 90 % wait is {span_words(worst.p90_s)} ({worst.label})"
    summary += f", the shortest {span_words(best.p90_s)} ({best.label})." if len(rows) > 1 else "."
    return Chart(f"wait-{key}", title, reading, summary, figure, table, False)


def _reasons(content: ReportContent) -> Chart:
    rows = sorted((row for row in content.reasons if row.waited_s > 0), key=lambda row: -row.waited_s)
    reading = "Share of the jobs' waiting time by the reason that was shown for it."
    if not rows:
        return Chart("reasons", "No waiting time was recorded", reading, "There is no reason to show.", None, None)
    total = sum(row.waited_s for row in rows)
    title = f"{_share(rows[0].waited_s, total)} of all waiting had one reason: {rows[0].label[:80]}"
    figure: Json = {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "x": [round(row.waited_s * 100 / total, 2) for row in rows],
                "y": list(range(len(rows))),
                "text": [_share(row.waited_s, total) for row in rows],
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": ["--water-1"] + ["--water-2"] * (len(rows) - 1)},
                "hovertemplate": "%{text} of waiting time<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {"range": [0, min(112, rows[0].waited_s * 118 / total)], "ticksuffix": " %", "fixedrange": True},
            "yaxis": {
                "tickvals": list(range(len(rows))),
                "ticktext": [cut(row.label, 44) for row in rows],
                "range": [len(rows) - 0.5, -0.5],
                "automargin": True,
                "showgrid": False,
                "fixedrange": True,
            },
            "bargap": 0.35,
        },
        "height": 90 + 40 * len(rows),
    }
    cells = [(row.label, f"{row.waited_s / 3_600:,.1f} h", _share(row.waited_s, total)) for row in rows]
    table = Table(("Reason", "Waiting time", "Share"), cells, "Waiting time by reason")
    summary = (
        "Of all waiting time: " + "; ".join(f"{row.label} {_share(row.waited_s, total)}" for row in rows[:4]) + "."
    )
    return Chart("reasons", title, reading, summary, figure, table)


def _site_table(content: ReportContent) -> Table | None:
    head = (
        "Site",
        "Jobs",
        "GPU hours",
        "In use",
        "Jobs' energy",
        "Free GPUs",
        "Cooling, losses",
        "Meter",
        "PUE",
        "Matched",
    )
    rows = []
    for row in content.sites:
        it, meter = row.job_wh + row.idle_wh, row.job_wh + row.idle_wh + row.overhead_wh
        use = f"{row.gpu_hours * 100 / row.open_gpu_hours:.0f} %" if row.open_gpu_hours else NONE
        rows.append(
            (
                *(row.label, f"{row.jobs:,}", f"{row.gpu_hours:,.0f}", use, _energy(row.job_wh), _energy(row.idle_wh)),
                *(_energy(row.overhead_wh), _energy(meter), f"{meter / it:.2f}" if it else NONE),
                _share(row.matched_wh, meter) if meter else NONE,
            )
        )
    return Table(head, rows, "The sites") if rows else None


def _tenant_table(content: ReportContent) -> Table | None:
    waits = {row.label: row for row in content.waits_by_tenant}
    rows = []
    for row in sorted(content.tenants, key=lambda row: -row.gpu_hours):
        wait = waits.get(row.label)
        half, tail = (span_words(wait.p50_s), span_words(wait.p99_s)) if wait else (NONE, NONE)
        rows.append((row.label, f"{row.jobs:,}", f"{row.gpu_hours:,.0f}", _energy(row.energy_wh), half, tail))
    head = ("Tenant", "Jobs", "GPU hours", "Jobs' energy", "Median wait", "99 % within")
    return Table(head, rows, "The tenants") if rows else None


def _site_colour(index: int, line: bool = False) -> str:
    return f"--{'line' if line else 'site'}-{index % _SITE_COLOURS + 1}"
