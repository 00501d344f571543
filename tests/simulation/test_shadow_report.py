"""The page and the words of a comparison: true in odd cases, hostile names harmless, nothing loaded from elsewhere."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from tests.simulation.test_report import HOSTILE
from tests.simulation.test_shadow import HOUR, compared, one
from watteau.domain.errors import InputError
from watteau.simulation.bootstrap import Interval
from watteau.simulation.shadow import Comparison
from watteau.simulation.shadow_figures import Estimate, Figure
from watteau.simulation.shadow_live import Agreement
from watteau.simulation.shadow_report import (
    MINUS,
    agreement_words,
    as_json,
    confidence,
    told_apart,
    value_words,
    write_shadow_report,
)


@pytest.fixture(scope="module")
def small() -> Comparison:
    return compared([one(10, 100, 1_000), one(20, 30, 400)], HOUR)


def figure(low: float, high: float, better: int = -1) -> Figure:
    side = Estimate(1.0)
    return Figure("k", "Label", "s", better, side, side, Estimate((low + high) / 2, Interval(low, high)))


@pytest.mark.parametrize(
    ("value", "unit", "signed", "said"),
    [
        (90.0, "s", False, "1.5 min"),
        (-90.0, "s", True, f"{MINUS}1.5 min"),
        (0.0, "s", True, "0 s"),
        (-0.00001, "", True, "0.000"),
        (0.0312, "share", True, "+3.1 points"),
        (0.758, "share", False, "75.8 %"),
        (23_350.0, "kWh", False, "23.35 MWh"),
        (-630.04, "kWh", True, f"{MINUS}630.0 kWh"),
        (None, "s", True, "\N{EN DASH}"),
    ],
)
def test_figures_are_said_in_their_unit(value: float | None, unit: str, signed: bool, said: str) -> None:
    assert value_words(value, unit, signed=signed) == said


def test_an_interval_names_a_common_unit_once() -> None:
    assert confidence(Estimate(0.0, Interval(-0.031, 0.034)), "share") == f"{MINUS}3.1 to +3.4 points"
    assert confidence(Estimate(0.0, Interval(-30.0, 3_600.0)), "s") == f"{MINUS}30 s to +1 h"
    assert confidence(Estimate(0.0, None, "too few to tell: 3 jobs"), "s") == "too few to tell: 3 jobs"


def test_what_is_better_depends_on_the_figure() -> None:
    assert told_apart(figure(-2, -1)) == told_apart(figure(1, 2, better=1)) == "Watteau better"
    assert told_apart(figure(1, 2)) == told_apart(figure(-2, -1, better=1)) == "Watteau worse"
    assert told_apart(figure(1, 2, better=0)) == "differs"
    assert told_apart(figure(-1, 1)) == told_apart(figure(0, 0)) == "not told apart"
    assert (
        told_apart(replace(figure(0, 1), difference=Estimate(1.0, None, "too few to tell: 3 jobs")))
        == "too few to tell"
    )


def test_the_page_needs_nothing_from_elsewhere_and_no_name_becomes_markup(small: Comparison, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_shadow_report(
        page, replace(small, site_name=HOSTILE, verdict=HOSTILE, notes=(HOSTILE,)), f"watteau {HOSTILE}"
    )
    written = page.read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert "<script>alert(1)" not in written
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", written)[0]
    assert "default-src 'none'" in written
    assert not re.search(r"""(src|href)=["'](?!#)""", written)
    figures = json.loads(re.findall(r'<script type="application/json" id="figures">(.*?)</script>', written, re.S)[0])
    assert set(figures) == {"waits", "use", "hour"}
    for said in ("too few to tell", "Synthetic weather", "Politis and White", "seed 11", "Künsch"):
        assert said in written


def test_a_page_that_cannot_be_written_is_a_fault(small: Comparison, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_shadow_report(tmp_path / "absent" / "report.html", small, "watteau")


def test_the_json_has_all_figures_with_their_intervals_and_reasons(small: Comparison) -> None:
    whole = json.loads(json.dumps(as_json(small), allow_nan=False))
    assert whole["figures"]["wait_mean_s"]["slurm"] == {
        "value": 50.0,
        "interval": None,
        "why": "too few to tell: 2 jobs, 20 are needed",
    }
    assert whole["window"] == {"since_s": HOUR.since_s, "until_s": HOUR.until_s, "as_of_s": HOUR.as_of_s}
    assert "series" not in whole


def test_without_live_decisions_it_is_said(small: Comparison) -> None:
    assert agreement_words(small).startswith("No decision was made live")
    some = replace(small, agreement=Agreement(HOUR.since_s, 3, 1, 0, 1, 1, 0, Estimate(-90.0, None, "too few")))
    assert "Of 3 jobs" in agreement_words(some)
    assert "1.5 min before the decision" in agreement_words(some)
