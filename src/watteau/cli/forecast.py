"""`watteau forecast`: how good supply forecasts would have been on a measured series."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from watteau.cli.inputs import fail
from watteau.cli.session import AsJson, print_table
from watteau.domain.errors import InputError
from watteau.domain.units import from_epoch_s
from watteau.energy.backtest import BANDS_H, COVERAGES, Backtest, Score, backtest
from watteau.energy.supply import WEATHER, read_capacity_factors

__all__ = ["forecast"]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise typer.BadParameter(f"{name!r} is no time zone; write an IANA name like Europe/Paris") from None
    return name


def forecast(
    supply: Annotated[
        Path, typer.Option(help="CSV of hourly capacity factors whose every hour is forecast and compared.")
    ],
    train: Annotated[
        list[Path], typer.Option(help="CSV of other whole years to fit on; give it once for each file.", metavar="FILE")
    ],
    clock: Annotated[
        str,
        typer.Option(
            callback=_known_zone,
            metavar="ZONE",
            help="Time zone that the hours of all files are truly in, whatever their label says (IANA name).",
        ),
    ] = "UTC",
    as_json: AsJson = False,
) -> None:
    """How good supply forecasts would have been on a measured series, beside simple guesses.

    Fitted on the training years alone; a forecast of each hour sees only what was measured before it.
    """
    try:
        found = backtest(read_capacity_factors(supply, clock), [read_capacity_factors(file, clock) for file in train])
    except InputError as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps(_document(found), indent=2, allow_nan=False))
        return
    _print_scores(found)
    typer.echo("mean absolute error / root mean square error, in % of capacity", err=True)
    typer.echo(_verdict(found), err=True)
    for note in found.notes:
        typer.echo(note, err=True)
    typer.echo(
        f"{found.issues:,} issues, one an hour, from {from_epoch_s(found.first_issue_s):%Y-%m-%d %H:%M} UTC", err=True
    )


def _print_scores(found: Backtest) -> None:
    names = list(dict.fromkeys(score.forecaster for score in found.scores))
    coverage = f"{names[0].upper()} IN {COVERAGES[0][0]:.0%}"
    rows = []
    for scores in _compared(found):
        first = scores[0]
        ahead = f"{first.first_h}-{first.last_h} h"
        within = f"{first.within[0]:.0%}" if first.within else "-"
        rows.append(
            [first.technology, ahead, *(f"{s.mae:.2%} / {s.rmse:.2%}".replace("%", "") for s in scores), within]
        )
    headings = ["TECHNOLOGY", "AHEAD", *(name.upper() for name in names), coverage]
    print_table(headings, rows, right=range(1, len(headings)))


def _compared(found: Backtest) -> Iterator[list[Score]]:
    """The scores of each technology and band, the fitted forecaster's first."""
    for technology in WEATHER:
        for band in BANDS_H:
            yield [s for s in found.scores if (s.technology, s.first_h, s.last_h) == (technology, *band)]


def _verdict(found: Backtest) -> str:
    """Where the fitted forecast is not the best: who relies on it must know (F6)."""
    worse = []
    for fitted, *others in _compared(found):
        measures = [name for name in ("mae", "rmse") if any(getattr(s, name) <= getattr(fitted, name) for s in others)]
        if measures:
            worse.append(f"{fitted.technology} {fitted.first_h}-{fitted.last_h} h ({', '.join(measures)})")
    return (
        f"a simple guess is as good or better: {'; '.join(worse)}"
        if worse
        else "the fitted forecast is the best in every row"
    )


def _document(found: Backtest) -> dict[str, object]:
    scores = []
    for score in found.scores:
        stated = asdict(score)
        within = stated.pop("within")
        for k, (level, _) in enumerate(COVERAGES):
            stated[f"within_{level:.0%}".removesuffix("%")] = within[k] if within else None
        scores.append(stated)
    document: dict[str, object] = asdict(found)
    document["first_issue"] = from_epoch_s(found.first_issue_s).isoformat()
    del document["first_issue_s"]
    return document | {"scores": scores}
