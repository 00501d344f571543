"""What all pages share: charts and tables as values, figures for Plotly, words for durations, and writing one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from watteau.domain.errors import Fault, InputError
from watteau.domain.units import DAY_S, from_epoch_s

#: JSON that goes into the page: figures for Plotly. Colours are names of CSS variables, resolved by the page.
Json = dict[str, Any]
#: Where there is no figure.
NONE = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page: head and rows of text; the first column names the row."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its words: the finding, how to read it, and the same in a table. No figure: nothing to draw."""

    key: str
    title: str
    reading: str
    summary: str
    figure: Json | None
    table: Table | None
    wide: bool = True


def write_page(path: Path, template: str, figures: Mapping[str, Json], **words: object) -> None:
    """Write a page. It loads nothing from anywhere (its own content policy forbids it) and works from a file.

    `figures` are drawn where the template has an element with their key. Raises InputError when it cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("watteau.simulation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template(template).render(
        figures=script_json(figures),
        plotly=Markup(get_plotlyjs()),
        css=Markup(environment.get_template("report.css").render()),
        **words,
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(str(path), [Fault(0, "", error.strerror or "cannot be written", "a writable path")]) from error


def script_json(figures: Mapping[str, Json]) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(figures, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def stamp(epoch_s: int) -> str:
    """A moment as Plotly's date axes take it, UTC."""
    return f"{from_epoch_s(epoch_s):%Y-%m-%d %H:%M}"


def span_words(seconds: float) -> str:
    """A duration in the largest unit that reads well."""
    if seconds < 1:
        return "0 s"
    for size, unit, most in ((1, "s", 59.4), (60, "min", 59.4), (3_600, "h", 48)):
        if seconds / size <= most:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 and size > 1 and value % 1 >= 0.05 else f"{value:.0f} {unit}"
    return f"{seconds / DAY_S:,.1f} days"


def log_s(seconds: float) -> float:
    """Where a duration lies on a logarithmic axis that begins at one second."""
    return round(float(np.log10(max(seconds, 1.0))), 4)


def cut(label: str, most: int = 24) -> str:
    """A label short enough for an axis, with Plotly's own markup disarmed."""
    short = label if len(label) <= most else label[: most - 1].rstrip() + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") or " "
