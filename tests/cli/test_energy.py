"""The tables of the energy books: one unit, eighty columns, and nothing is cut off."""

import io

import pytest
from rich.console import Console

from watteau.cli.energy import table_of_energy
from watteau.cli.session import table_of
from watteau.server.schemas import SiteEnergyView


def site(name: str, scale: int) -> SiteEnergyView:
    return SiteEnergyView(
        site=name,
        jobs_wh=600 * scale,
        by_hand_wh=100 * scale,
        idle_wh=50 * scale,
        overhead_wh=150 * scale,
        site_wh=900 * scale,
        supply_wh=999 * scale,
        matched_wh=900 * scale,
    )


@pytest.mark.parametrize(
    ("scale", "unit"), [(1, "kWh"), (10**3, "kWh"), (10**6, "MWh"), (10**9, "GWh"), (10**12, "TWh")]
)
def test_a_table_of_any_size_fits_on_eighty_columns(scale: int, unit: str) -> None:
    rows = [("marseille", site("marseille", scale)), ("12-31 23:00 *", site("paris", max(1, scale // 100)))]
    headings, cells = table_of_energy("HOUR", rows, synthetic=True)
    assert headings[0] == f"HOUR ({unit})"
    assert headings[-3:] == ["SUPPLY~", "MATCHED~", "SHARE~"], "made-up weather is marked"
    assert cells[0][-1] == "100.0%"
    out = io.StringIO()
    Console(file=out, width=80).print(table_of(headings, cells, range(1, len(headings)), [0], 80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in out.getvalue()


def test_who_does_not_see_the_meter_gets_the_columns_of_jobs_alone() -> None:
    rows = [("paris", SiteEnergyView(site="paris", jobs_wh=1_000, by_hand_wh=0))]
    assert table_of_energy("SITE", rows, synthetic=False) == (
        ["SITE (kWh)", "JOBS", "BY HAND"],
        [["paris", "1.0", "0.0"]],
    )


def test_a_site_that_drew_nothing_has_no_share() -> None:
    assert table_of_energy("SITE", [("paris", site("paris", 0))], synthetic=False)[1][0][-1] == "-"
