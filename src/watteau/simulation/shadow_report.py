"""The report of a comparison: one self-contained page, and the same figures as one JSON object."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from watteau import __version__
from watteau.domain.units import DAY_S, HOUR_S, WEEK_S, Float64Array, Int64Array, from_epoch_s
from watteau.simulation.page import NONE, Chart, Json, Table, log_s, span_words, stamp, write_page
from watteau.simulation.shadow import Comparison
from watteau.simulation.shadow_figures import Estimate, Figure
from watteau.simulation.shadow_live import SAME_MOMENT_S

MINUS = "\N{MINUS SIGN}"
_COLOURS = ("--supply", "--line-1")
_DAILY_FROM_S = 31 * DAY_S
_MOST_STEPS = 400


def write_shadow_report(path: Path, found: Comparison, command: str) -> None:
    """Write the page. Raises InputError when it cannot be written."""
    charts = [_waits(found), _use(found), _by_hour(found)]
    wait = found.figure("wait_mean_s").difference
    write_page(
        path,
        "shadow.html",
        {chart.key: chart.figure for chart in charts if chart.figure},
        title=f"{found.site_name}: its own scheduler beside Watteau",
        found=found,
        version=__version__,
        command=command,
        period=period(found),
        giant=_giant(wait),
        giant_what=f"mean wait, Watteau less {found.site}; 95 %: {confidence(wait, 's')}",
        figures_table=figure_table(found),
        agreement=agreement_words(found),
        charts=charts,
        synthetic=found.supply_synthetic,
        method=method_words(found),
        provenance=[
            ("Site", f"{found.site_name} ({found.site})"),
            ("Policy", found.policy),
            ("Jobs compared", f"{found.jobs:,}"),
            ("Supply", found.supply_source),
            ("Seed", str(found.seed)),
            ("Watteau", __version__),
        ],
    )


def as_json(found: Comparison) -> dict[str, Any]:
    """Everything but the series, in plain values; times are epoch seconds."""
    whole = asdict(found)
    del whole["series"], whole["replay_s"]
    whole["figures"] = {figure.pop("key"): figure for figure in whole["figures"]}
    return whole


# --- words -----------------------------------------------------------------------------------------------------------


def period(found: Comparison) -> str:
    """From when to when, UTC."""
    return (
        " to ".join(f"{from_epoch_s(at):%Y-%m-%d %H:%M}" for at in (found.window.since_s, found.window.until_s))
        + " UTC"
    )


def value_words(value: float | None, unit: str, *, signed: bool = False) -> str:
    """A figure in its unit; `signed` for differences."""
    if value is None:
        return NONE
    said = _size_words(abs(value) if signed else value, unit, "points" if signed else "%")
    if not signed or said == _size_words(0, unit, "points"):
        return said
    return f"{'+' if value > 0 else MINUS}{said}"


def _size_words(value: float, unit: str, of_share: str) -> str:
    match unit:
        case "s":
            return span_words(value)
        case "share":
            return f"{100 * value:.1f} {of_share}"
        case "kWh":
            return f"{value / 1_000:,.2f} MWh" if value >= 10_000 else f"{value:,.1f} kWh"
    return f"{value:,.3f}"


def confidence(estimate: Estimate, unit: str) -> str:
    """The interval of a difference in words, or why there is none."""
    if estimate.interval is None:
        return estimate.why
    return _from_to(*(value_words(edge, unit, signed=True) for edge in (estimate.interval.low, estimate.interval.high)))


def told_apart(figure: Figure) -> str:
    """Whether the data can tell the two sides apart, and which is better."""
    interval = figure.difference.interval
    if interval is None:
        return "too few to tell" if figure.difference.why.startswith("too few") else figure.difference.why or NONE
    if interval.low <= 0 <= interval.high:
        return "not told apart"
    if not figure.better:
        return "differs"
    return "Watteau better" if (interval.low > 0) == (figure.better > 0) else "Watteau worse"


def figure_rows(found: Comparison) -> list[tuple[str, str, str, str, str]]:
    """(figure, the site's, Watteau's, difference with its interval, whether it is told apart)."""
    return [
        (
            figure.label,
            value_words(figure.slurm.value, figure.unit),
            value_words(figure.watteau.value, figure.unit),
            value_words(figure.difference.value, figure.unit, signed=True),
            told_apart(figure),
        )
        for figure in found.figures
    ]


def figure_table(found: Comparison) -> Table:
    """All figures, each with its interval in a second line."""
    rows = [
        (
            figure.label + (" (synthetic supply)" if _is_synthetic(figure, found) else ""),
            _two_lines(value_words(figure.slurm.value, figure.unit), _between(figure.slurm, figure.unit)),
            _two_lines(value_words(figure.watteau.value, figure.unit), _between(figure.watteau, figure.unit)),
            _two_lines(
                value_words(figure.difference.value, figure.unit, signed=True),
                confidence(figure.difference, figure.unit) if figure.difference.interval else "",
            ),
            told_apart(figure),
        )
        for figure in found.figures
    ]
    head = ("Figure", str(found.site), "Watteau", "Difference", "Told apart")
    return Table(head, rows, "Figures of both, and their difference, with 95 % intervals")


def _is_synthetic(figure: Figure, found: Comparison) -> bool:
    return figure.key == "renewable_share" and found.supply_synthetic


def _two_lines(first: str, second: str) -> str:
    return f"{first}\n{second}" if second else first


def _between(estimate: Estimate, unit: str) -> str:
    if estimate.interval is None:
        return ""
    return _from_to(*(value_words(edge, unit) for edge in (estimate.interval.low, estimate.interval.high)))


def _from_to(low: str, high: str) -> str:
    """Both ends; a unit that they share is said once."""
    number, _, unit = low.partition(" ")
    return f"{number if unit and high.endswith(f' {unit}') else low} to {high}"


def _giant(wait: Estimate) -> str:
    return value_words(wait.value, "s", signed=True) if wait.value is not None else NONE


def agreement_words(found: Comparison) -> str:
    """What the decisions that were made live came to, in one paragraph."""
    its = found.agreement
    if its.since_s is None:
        return "No decision was made live for jobs of this window: the site was not in mode shadow, or nobody led."
    lead = its.lead_s
    median = (
        f" At the median the site started those it has started {span_words(abs(lead.value))} "
        f"{'after' if lead.value >= 0 else 'before'} the decision (95 %: {confidence(lead, 's')})."
        if lead.value is not None
        else ""
    )
    return (
        f"Of {its.jobs:,} jobs since {from_epoch_s(its.since_s):%Y-%m-%d %H:%M} UTC, Watteau would have started "
        f"{its.earlier:,} earlier than the site did and {its.same:,} at the same moment (within {SAME_MOMENT_S} s); "
        f"{its.site_first:,} the site had started before Watteau decided. {its.still_waiting:,} more would run already "
        f"and still wait there; {its.cancelled:,} were cancelled.{median} These decisions were made on what really "
        "ran, one look at a time; what they would have led to, only the replay above says."
    )


def method_words(found: Comparison) -> tuple[str, ...]:
    """How the figures were made."""
    return (
        "The counterfactual is a replay with the production scheduler: each job arrives when the site's scheduler said "
        "that it might start, runs as long as it ran, on the GPU models that it had, with its limit as the estimate.",
        f"Intervals: circular block bootstrap (Politis and Romano 1992; Künsch 1989) over pieces of "
        f"{span_words(found.step_s)}, {found.resamples:,} resamples, seed {found.seed}. Blocks of "
        f"{span_words(found.block_s)} for differences and {span_words(found.level_block_s)} for each side, by the rule "
        "of Politis and White (2004, corrected 2009); expanded percentiles (Hesterberg 2015). They say how far chance "
        "in the arrivals may carry the figures, not how true the model is.",
        "Wait: from the moment that a job might have started to its start. Bounded slowdown: (wait + run time) over "
        "the run time, at least 10 s, at least 1 (Feitelson and Rudolph 1998). Fairness: Jain's index (Jain, Chiu and "
        "Hawe 1984) of the part of its jobs' time in the system in which each user, or tenant, was served.",
        "Renewable: sum over the hours of min(load, supply) / sum of load, of the site's meter as modelled. "
        "GPUs held: GPU time of the same jobs over the GPU time that was there.",
    )


# --- charts ----------------------------------------------------------------------------------------------------------


def _waits(found: Comparison) -> Chart:
    both = (found.series.slurm_wait_s, found.series.watteau_wait_s)
    names = (str(found.site), "Watteau")
    reading = "Share of the jobs that had started after each wait. Further left is better. Logarithmic scale."
    at_once = [float((wait <= 1).mean()) for wait in both]
    median = [found.figure("wait_p50_s").slurm.value or 0.0, found.figure("wait_p50_s").watteau.value or 0.0]
    title = f"Half of the jobs started within {span_words(median[0])} at the site, {span_words(median[1])} with Watteau"
    summary = f"Started at once: {100 * at_once[0]:.0f} % at the site, {100 * at_once[1]:.0f} % with Watteau."
    ticks = [
        (1, "≤ 1 s"),
        (10, "10 s"),
        (60, "1 min"),
        (600, "10 min"),
        (3_600, "1 h"),
        (21_600, "6 h"),
        (DAY_S, "1 d"),
    ]
    ticks += [(WEEK_S, "1 wk"), (30 * DAY_S, "30 d")]
    most = max(log_s(float(max(wait.max(initial=0) for wait in both))), log_s(60))
    figure: Json = {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": x,
                "y": y,
                "line": {"shape": "hv", "width": 2.5, "color": colour},
                "hovertemplate": "%{y:.0f} %",
            }
            for name, colour, (x, y) in zip(names, _COLOURS, (_steps(wait) for wait in both), strict=True)
        ],
        "layout": {
            "xaxis": {
                "tickvals": [log_s(at) for at, _ in ticks],
                "ticktext": [text for _, text in ticks],
                "range": [-0.05, most + 0.1],
                "fixedrange": True,
            },
            "yaxis": {"range": [0, 103], "ticksuffix": " %", "fixedrange": True},
        },
        "height": 400,
    }
    shares = (0.25, 0.5, 0.75, 0.9, 0.99)
    rows = [
        (f"{100 * share:.0f} % within", *(span_words(float(np.quantile(wait, share))) for wait in both))
        for share in shares
    ]
    return Chart("waits", title, reading, summary, figure, Table(("Jobs", *names), rows, "Waits of both"))


def _steps(wait: Int64Array) -> tuple[list[float], list[float]]:
    """The empirical distribution, in at most so many steps."""
    values = np.sort(wait)
    at = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST_STEPS)).round().astype(np.int64))
    x = [-0.05, *(log_s(float(values[index])) for index in at)]
    return x, [0.0, *(round(100 * (int(index) + 1) / len(values), 2) for index in at)]


def _use(found: Comparison) -> Chart:
    series, names = found.series, (str(found.site), "Watteau")
    step = 1
    if found.window.until_s - found.window.since_s > _DAILY_FROM_S:
        step = max(1, DAY_S // series.step_s)
    both = [_means(use, step) for use in (series.slurm_use, series.watteau_use)]
    values = found.figure("utilisation")
    title = (
        f"Of the GPUs, {value_words(values.slurm.value, 'share')} were held at the site, "
        f"{value_words(values.watteau.value, 'share')} with Watteau"
    )
    figure: Json = {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x0": stamp(series.first_s),
                "dx": step * series.step_s * 1_000,
                "y": [round(100 * float(share), 1) for share in use],
                "line": {"shape": "hv", "width": 2, "color": colour},
                "hovertemplate": "%{y:.1f} %",
            }
            for name, colour, use in zip(names, _COLOURS, both, strict=True)
        ],
        "layout": {
            "xaxis": {"type": "date"},
            "yaxis": {"range": [0, 103], "ticksuffix": " %", "fixedrange": True},
            "hovermode": "x unified",
        },
        "height": 380,
    }
    reading = f"Share of the GPUs that jobs held, by {span_words(step * series.step_s)}. The same work on both sides."
    summary = f"Difference: {value_words(values.difference.value, 'share', signed=True)}; {told_apart(values)}."
    return Chart("use", title, reading, summary, figure, None)


def _means(use: Float64Array, step: int) -> Float64Array:
    whole = len(use) // step * step
    parts = [use[:whole].reshape(-1, step).mean(axis=1)] + (
        [use[whole:].mean(keepdims=True)] if whole < len(use) else []
    )
    result: Float64Array = np.concatenate(parts)
    return result


def _by_hour(found: Comparison) -> Chart:
    series, names = found.series, (str(found.site), "Watteau")
    hours = series.load_wh.shape[1]
    hour = (series.first_hour_s // HOUR_S + np.arange(hours)) % 24
    load = np.stack([np.bincount(hour, side, 24) for side in series.load_wh])
    matched = np.stack([np.bincount(hour, side, 24) for side in series.matched_wh])
    share = np.divide(100 * matched, load, out=np.full(load.shape, np.nan), where=load > 0)
    known = np.flatnonzero(load.min(axis=0) > 0)
    reading = "Share of the site's energy that renewable supply of the same hour met, by hour of the day (UTC)."
    values = found.figure("renewable_share")
    if not len(known):
        return Chart("hour", "No renewable share to compare", reading, values.difference.why or "-", None, None)
    title = (
        f"Renewable: {value_words(values.slurm.value, 'share')} at the site, "
        f"{value_words(values.watteau.value, 'share')} with Watteau"
    )
    figure: Json = {
        "data": [
            {
                "type": "bar",
                "name": name,
                "x": [int(at) for at in known],
                "y": [round(float(side[at]), 1) for at in known],
                "marker": {"color": colour},
                "hovertemplate": "%{x:02d}:00 %{y:.1f} %",
            }
            for name, colour, side in zip(names, _COLOURS, share, strict=True)
        ],
        "layout": {
            "xaxis": {
                "tickvals": list(range(0, 24, 3)),
                "ticktext": [f"{at:02d}" for at in range(0, 24, 3)],
                "fixedrange": True,
            },
            "yaxis": {"range": [0, 103], "ticksuffix": " %", "fixedrange": True},
            "barmode": "group",
        },
        "height": 360,
    }
    rows = [
        (f"{at:02d}:00", *(f"{side[at]:.1f} %" for side in share), *(f"{side[at] / 1_000:,.1f} kWh" for side in load))
        for at in known
    ]
    head = ("Hour (UTC)", *names, *(f"Energy, {name}" for name in names))
    synthetic = " The supply is synthetic: made by a generator, not measured." if found.supply_synthetic else ""
    summary = (
        f"Difference: {value_words(values.difference.value, 'share', signed=True)}; {told_apart(values)}.{synthetic}"
    )
    return Chart("hour", title, reading, summary, figure, Table(head, rows, "Renewable share by hour of the day"))
