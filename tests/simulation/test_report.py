"""The report page: self-contained, true titles in odd cases, hostile names harmless, readable colours."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from watteau.domain.errors import InputError
from watteau.domain.units import HOUR_S, to_epoch_s
from watteau.simulation.report import (
    ReasonRow,
    ReportContent,
    SiteRow,
    TenantRow,
    WaitRow,
    wait_rows,
    waits_by_size,
    write_report,
)

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}</title>"


def content_of(hours: int = 200, sites: int = 2, load_wh: int = 5_000_000, supply_wh: int = 4_000_000) -> ReportContent:
    ones = np.ones((sites, hours), dtype=np.int64)
    return ReportContent(
        title="A run",
        command="watteau simulate fleet.toml --seed 7",
        seed=7,
        version="0.1.0",
        policy="hybrid",
        fleet="test fleet",
        workload_source="made up",
        workload_synthetic=True,
        supply_source="fr_2016.csv",
        supply_synthetic=False,
        supply_aligned_from_year=2016,
        jobs=10,
        jobs_started=9,
        wait_p50_s=60.0,
        wait_p99_s=7_200.0,
        first_hour_s=to_epoch_s(datetime(2027, 3, 28, tzinfo=UTC)),
        site_names=tuple(f"Site {k}" for k in range(sites)),
        site_wh=ones * load_wh,
        supply_wh=np.full(hours, supply_wh * sites, dtype=np.int64),
        busy_gpu_milli_s=ones * 600 * HOUR_S,
        open_gpu_milli_s=ones * 1_000 * HOUR_S,
        waits_by_size=(WaitRow("up to 1 GPU", 9, 10.0, 60.0, 7_200.0),),
        waits_by_tenant=(WaitRow("Tenant", 9, 10.0, 60.0, 7_200.0),),
        sites=(SiteRow("Site 0", 9, 1.0, 2.0, 3_000_000, 1_000_000, 1_000_000, 4_000_000),),
        tenants=(TenantRow("Tenant", 9, 1.0, 1),),
        reasons=(ReasonRow("Not enough GPUs", 30), ReasonRow("Behind others", 70)),
    )


def written(tmp_path: Path, content: ReportContent) -> str:
    path = tmp_path / "report.html"
    write_report(path, content)
    return path.read_text(encoding="utf-8")


def without_plotly(page: str) -> str:
    return page.replace(get_plotlyjs(), "")


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of the headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self._in_heading = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_heading = tag in ("h1", "h2")
        if self._in_heading:
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h1", "h2"):
            self._in_heading = False

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.headings[-1] += data


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = written(tmp_path, content_of())
    assert "default-src 'none'" in page, "the page's own policy forbids every request"
    for tag, attributes in Elements(without_plotly(page)).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        for name in ("src", "srcset", "data", "action", "poster"):
            assert name not in attributes, (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "http" not in without_plotly(page).replace("http-equiv", "")
    assert not re.search(r"@import|url\(", without_plotly(page))


def test_the_page_has_every_section_and_replays(tmp_path: Path) -> None:
    page = written(tmp_path, content_of())
    elements = Elements(without_plotly(page))
    assert ("html", {"lang": "en"}) in elements.tags
    assert elements.headings == [
        "A run",
        "Renewables covered 80 % of the load, hour by hour",
        "The match hardly depends on the hour of the day",
        "The sites were about equally busy, at 60 %",
        "up to 1 GPU: nine in ten jobs started within 1 min",
        "Tenant: nine in ten jobs started within 1 min",
        "70 % of all waiting had one reason: Behind others",
        "The sites",
        "The tenants",
        "Where this comes from",
    ]
    for text in ("watteau simulate fleet.toml --seed 7", "Synthetic workload", "Weather of 2016", "fr_2016.csv"):
        assert text in page


def test_every_chart_has_words_and_a_table(tmp_path: Path) -> None:
    page = without_plotly(written(tmp_path, content_of()))
    plots = [attributes for _, attributes in Elements(page).tags if "data-figure" in attributes]
    figures = json.loads(page.split('id="figures">')[1].split("</script>")[0])
    assert {plot["data-figure"] for plot in plots} == set(figures)
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    assert page.count("<details>") == len(plots)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    content = replace(
        content_of(),
        title=HOSTILE,
        command=HOSTILE,
        fleet=HOSTILE,
        policy=HOSTILE,
        workload_source=HOSTILE,
        workload_notes=(HOSTILE,),
        supply_source=HOSTILE,
        site_names=(HOSTILE, HOSTILE),
        waits_by_size=(WaitRow(HOSTILE, 1, 1.0, 2.0, 3.0),),
        waits_by_tenant=(WaitRow(HOSTILE, 1, 1.0, 2.0, 3.0), WaitRow("b", 1, 1.0, 900.0, 901.0)),
        tenants=(TenantRow(HOSTILE, 1, 1.0, 1),),
        reasons=(ReasonRow(HOSTILE, 1),),
    )
    page = without_plotly(written(tmp_path, content))
    tags = [tag for tag, _ in Elements(page).tags]
    assert tags.count("script") == 3
    assert "img" not in tags
    assert not [1 for _, attributes in Elements(page).tags if any(name.startswith("on") for name in attributes)]
    assert "{{ 7*7 }}" in page, "names are data, not templates"


@pytest.mark.parametrize(
    ("content", "title"),
    [
        (content_of(3, supply_wh=0), "No renewable supply in these hours: none of the load was matched"),
        (content_of(3, load_wh=0), "The sites drew no power"),
        (content_of(3, 1), "Renewables covered 80 % of the load, hour by hour"),
        (content_of(0, 1), "The sites drew no power"),
        (content_of(3, supply_wh=9_000_000), "Renewables covered 100 % of the load, hour by hour"),
        (content_of(3, supply_wh=4_999_999), "Renewables covered 99.9 % of the load, hour by hour"),
        (content_of(3, supply_wh=1), "Renewables covered under 0.1 % of the load, hour by hour"),
    ],
)
def test_the_title_of_the_match_is_true_in_odd_cases(tmp_path: Path, content: ReportContent, title: str) -> None:
    assert title in Elements(without_plotly(written(tmp_path, content))).headings


def test_a_run_without_jobs_says_so(tmp_path: Path) -> None:
    none = replace(
        content_of(50, 1),
        jobs=0,
        jobs_started=0,
        wait_p50_s=None,
        wait_p99_s=None,
        busy_gpu_milli_s=np.zeros((1, 50), dtype=np.int64),
        waits_by_size=(),
        waits_by_tenant=(),
        sites=(),
        tenants=(),
        reasons=(),
    )
    headings = Elements(without_plotly(written(tmp_path, none))).headings
    for title in ("No GPU was used", "No waits by job size: no job started", "No waiting time was recorded"):
        assert title in headings


def test_a_year_of_three_sites_stays_small(tmp_path: Path) -> None:
    assert len(written(tmp_path, content_of(8_760, 3)).encode()) < 8_000_000


def test_an_unwritable_path_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        write_report(tmp_path / "absent" / "report.html", content_of(3))


def test_waits_are_grouped_by_size_and_label() -> None:
    wait_s = np.array([0, 10, 20, 30], dtype=np.int64)
    by_size = waits_by_size(wait_s, np.array([0, 500, 1_000, 8_000], dtype=np.int64))
    assert [(row.label, row.jobs, row.p50_s) for row in by_size] == [
        ("CPU only", 1, 0.0),
        ("up to 1 GPU", 2, 15.0),
        ("2 to 8 GPUs", 1, 30.0),
    ]
    assert [row.label for row in wait_rows(wait_s, np.array([1, 1, -1, 1]), ["a", "b"])] == ["b"]


def luminance(colour: str) -> float:
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_reach_wcag_aa_contrast(theme: str) -> None:
    css = files("watteau.simulation").joinpath("templates/report.css").read_text(encoding="utf-8")
    light, dark = css.split("@media (prefers-color-scheme: dark)")
    colours = dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", light))
    if theme == "dark":
        colours |= dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", dark.split("}")[0]))
    for ground in ("--paper", "--card"):
        for text in ("--ink", "--ink-2", "--link"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for line in ("--supply", "--water-1", "--water-2", *(f"--line-{k}" for k in range(1, 7))):
        assert contrast(colours[line], colours["--card"]) >= 3.0, line
