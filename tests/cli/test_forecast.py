"""`watteau forecast`: what a person and a script get for right and wrong files."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from watteau.cli.forecast import _verdict as verdict
from watteau.cli.main import app
from watteau.domain.fleet import Technology
from watteau.domain.units import HOUR_S, from_epoch_s, to_epoch_s
from watteau.energy.backtest import BANDS_H, Backtest, Score
from watteau.energy.supply import WEATHER, synthetic_capacity_factors


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["forecast", *(str(argument) for argument in arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def write(path: Path, year: int, hours: int) -> Path:
    first_s = to_epoch_s(datetime(year, 1, 1, tzinfo=UTC))
    made = synthetic_capacity_factors(first_s, hours, seed=year)
    lines = [",".join(["hour_utc", *WEATHER])]
    for hour in range(hours):
        moment = from_epoch_s(first_s + HOUR_S * hour)
        lines.append(",".join([f"{moment:%Y-%m-%d %H:%M:%S}", *(f"{made.values[each][hour]:.5f}" for each in WEATHER)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("supply")
    write(made / "train.csv", 2013, 8_760)
    write(made / "supply.csv", 2016, 500)
    return made


def test_json_has_the_errors_of_each_forecaster_technology_and_band(folder: Path) -> None:
    result = run("--supply", folder / "supply.csv", "--train", folder / "train.csv", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert set(found) == {"source", "trained_on", "synthetic", "first_issue", "issues", "scores", "notes"}
    assert (found["first_issue"], found["issues"]) == ("2016-01-08T00:00:00+00:00", 500 - 168 - 71)
    assert len(found["scores"]) == 4 * len(WEATHER) * len(BANDS_H)
    fitted = found["scores"][0]
    assert (fitted["forecaster"], fitted["technology"], fitted["first_h"], fitted["last_h"]) == (
        "fitted",
        "solar",
        1,
        6,
    )
    assert 0 < fitted["mae"] < fitted["rmse"] < 0.1
    assert 0.5 < fitted["within_80"] < fitted["within_95"] < 1
    assert {each["within_80"] for each in found["scores"] if each["forecaster"] == "yesterday"} == {None}


def test_the_table_has_a_line_for_each_technology_and_band(folder: Path) -> None:
    result = run("--supply", folder / "supply.csv", "--train", folder / "train.csv", "--clock", "Europe/Paris")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split("\t")[:4] == ["TECHNOLOGY", "AHEAD", "FITTED", "LAST VALUE"]
    assert [line.split("\t")[:2] for line in lines[1:3]] == [["solar", "1-6 h"], ["solar", "7-24 h"]]
    assert len(lines) == 1 + len(WEATHER) * len(BANDS_H)
    assert "in % of capacity" in result.stderr
    assert "hours moved from Europe/Paris clock time to UTC" in result.stderr
    assert "261 issues" in result.stderr


def test_where_a_simple_guess_is_as_good_it_says_so() -> None:
    def score(forecaster: str, technology: Technology, first: int, last: int, mae: float) -> Score:
        return Score(forecaster, technology, first, last, mae, 0.2, ())

    scores = [score("fitted", technology, *band, 0.1) for technology in WEATHER for band in BANDS_H]
    worse = [score("yesterday", Technology.SOLAR, 1, 6, 0.1)]
    found = Backtest("made", (), True, 0, 1, tuple(scores), ())
    assert verdict(found) == "the fitted forecast is the best in every row"
    found = Backtest("made", (), True, 0, 1, (*scores, *worse), ())
    assert verdict(found) == "a simple guess is as good or better: solar 1-6 h (mae, rmse)"


@pytest.mark.parametrize(
    ("supply", "train", "clock", "said"),
    [
        ("none.csv", "train.csv", "UTC", "none.csv: No such file or directory; expected a readable CSV file"),
        ("train.csv", "train.csv", "UTC", "train.csv has, too, from 2013-01-01 00:00; expected no hour in two files"),
        ("supply.csv", "supply.csv", "UTC", "has, too"),
        ("train.csv", "supply.csv", "UTC", "supply.csv: hour_utc: 500 hours; expected a year: at least 8,760 hours"),
        ("short.csv", "train.csv", "UTC", "short.csv: hour_utc: 100 hours; expected at least 240"),
        ("supply.csv", "train.csv", "Europe/Nowhere", "is no time zone"),
        ("supply.csv", "train.csv", "../etc", "is no time zone"),
    ],
)
def test_wrong_input_is_named_and_ends_with_2(folder: Path, supply: str, train: str, clock: str, said: str) -> None:
    write(folder / "short.csv", 2015, 100)
    result = run("--supply", folder / supply, "--train", folder / train, "--clock", clock)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_without_training_nothing_is_forecast(folder: Path) -> None:
    result = run("--supply", folder / "supply.csv")
    assert result.exit_code == 2
    assert "--train" in result.stderr
