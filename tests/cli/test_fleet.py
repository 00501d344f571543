"""`watteau fleet`: what a person and a script get for right and wrong files."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from watteau.cli.fleet import expected_gwh_per_year, fleet_app
from watteau.cli.inputs import load_fleet
from watteau.domain.errors import InputError
from watteau.domain.fleet_file import MAX_BYTES

EXAMPLES = Path(__file__).parents[2] / "examples"
FRANCE = EXAMPLES / "france.toml"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(fleet_app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("name", ["france", "one-machine-256", "pai-160"])
def test_every_example_is_right(name: str) -> None:
    result = run("check", str(EXAMPLES / f"{name}.toml"))
    assert result.exit_code == 0, result.output
    assert "ok." in result.stdout
    assert result.stderr == ""


def test_check_prints_each_fault_with_file_and_line_and_their_number(tmp_path: Path) -> None:
    text = FRANCE.read_text(encoding="utf-8").replace("latitude = 48.70", "lattitude = 48.70")
    text = text.replace("power_limit_kw = 12_500", "power_limit_kw = 12")
    file = tmp_path / "wrong.toml"
    file.write_text(text, encoding="utf-8")
    result = run("check", str(file))
    lines = result.stderr.splitlines()
    at = text[: text.index("lattitude")].count("\n") + 1
    assert result.exit_code == 2
    assert result.stdout == ""
    assert lines[0].startswith(f"{file}:{at}: sites[0].lattitude: unknown key; expected 'latitude'")
    assert "sites[1].power_limit_kw: 12 kW; expected at least" in lines[1]
    assert lines[2] == "2 faults found; nothing was changed"
    assert len(lines) == 3


def test_check_json_gives_the_faults_as_data_on_stdout(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text('name = "x"\nsites = 3\n', encoding="utf-8")
    result = run("check", str(file), "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == 2
    assert answer["ok"] is False
    assert answer["faults"] == [{"line": 2, "path": "sites", "found": "3", "expected": "at least one [[sites]]"}]
    assert json.loads(run("check", str(FRANCE), "--json").stdout)["gpus_all"] == 25_000


def test_check_notes_a_pool_that_no_phase_opens(tmp_path: Path) -> None:
    text = FRANCE.read_text(encoding="utf-8")
    text = text.replace('"marseille-h200" = 150, "marseille-b200" = 250', '"marseille-h200" = 150')
    file = tmp_path / "fleet.toml"
    file.write_text(text, encoding="utf-8")
    result = run("check", str(file))
    assert result.exit_code == 0
    assert "note: pool marseille-b200 of site marseille has no nodes" in result.stdout


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"\x7fELF\x02\x01\x01\x00\xff\xfe", "which is not UTF-8"),
        (b"a" * (MAX_BYTES + 1), "more than 2 MiB"),
        (b'name = "x', "the end of the file"),
        (b"a = " + b"[" * 100_000, "levels of nesting"),
    ],
)
@pytest.mark.parametrize("command", ["check", "show"])
def test_a_file_that_is_no_fleet_file_is_refused_in_one_line(
    tmp_path: Path, command: str, data: bytes, found: str
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_bytes(data)
    result = run(command, str(file))
    assert result.exit_code == 2
    assert found in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_a_missing_file_and_a_directory_are_input_errors(tmp_path: Path) -> None:
    assert "No such file" in run("check", str(tmp_path / "none.toml")).stderr
    assert "directory" in run("check", str(tmp_path)).stderr
    with pytest.raises(InputError, match="null"):
        load_fleet(Path("a\0b"))


@pytest.mark.parametrize("arguments", [(), ("--at", "2026-03-01")])
def test_show_fits_80_columns_and_names_every_part(arguments: tuple[str, ...]) -> None:
    result = run("show", str(FRANCE), *arguments)
    assert result.exit_code == 0, result.output
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= 80
    for word in ("Mulhouse", "marseille-b200", "river-1", "Building 3", "Alder laboratory (research-alder) 7.5%"):
        assert word.lower() in result.stdout.lower()


def test_show_at_a_date_counts_what_is_open_then() -> None:
    assert "9,800 of 25,000 GPUs, as open on 2026-03-01" in run("show", str(FRANCE), "--at", "2026-03-01").stdout
    answer = json.loads(run("show", str(FRANCE), "--at", "2026-12-01T01:00:00+02:00", "--json").stdout)
    assert answer["at"] == "2026-11-30T23:00:00+00:00"
    assert answer["gpus_open"] == 13_000
    assert answer["sites"][2]["next_phase"] == {"name": "Building 1", "opens": "2026-12-01T00:00:00+00:00"}


def test_a_site_without_power_is_shown_with_its_nodes_off(tmp_path: Path) -> None:
    file = tmp_path / "dark.toml"
    file.write_text(
        (EXAMPLES / "one-machine-256.toml").read_text().replace("power_limit_kw = ", "power_limit_kw = 0 # ")
    )
    power = next(line for line in run("show", str(file)).stdout.splitlines() if "0 kW" in line)
    assert power.split()[-5:] == ["0.00", "0.00", "0.00", "0", "kW"]
    assert json.loads(run("show", str(file), "--json").stdout)["sites"][0]["idle_kw"] == 0


@pytest.mark.parametrize("at", ["2026-13-01", "tomorrow", "2026-03-01T08:00:00", "0001-01-01T00:00:00+14:00", ""])
def test_a_wrong_date_is_refused_with_an_example(at: str) -> None:
    result = run("show", str(FRANCE), "--at", at)
    assert result.exit_code == 2
    assert "2026-03-01" in result.stderr


def test_shares_are_shown_as_parts_of_the_whole() -> None:
    tenants = json.loads(run("show", str(FRANCE), "--json").stdout)["tenants"]
    parents = {"startups", "research", "training", "internal"}
    assert sum(tenant["share_of_whole"] for tenant in tenants if tenant["id"] in parents) == pytest.approx(1.0)
    assert next(t["share_of_whole"] for t in tenants if t["id"] == "research-birch") == pytest.approx(0.25 * 0.2)


def test_the_contracts_of_france_give_about_the_energy_of_its_full_typical_load() -> None:
    fleet = load_fleet(FRANCE)
    supply_gwh = sum(expected_gwh_per_year(contract) for contract in fleet.contracts)
    load_kw = sum(
        site.nodes(pool.id) * pool.node_typical_w / 1_000 * sum(site.pue.value) / len(site.pue.value)
        for site, pool in fleet.pools()
    )
    assert 30_000 <= load_kw <= 35_000
    assert 0.97 <= supply_gwh / (load_kw * 8_760 / 1_000_000) <= 1.03


def test_markup_in_a_name_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    text = FRANCE.read_text(encoding="utf-8").replace('"Existing halls"', '"[/bold] halls"')
    file.write_text(text.replace('name = "Classrooms"', 'name = "[red]Class[/]"'), encoding="utf-8")
    result = run("show", str(file))
    assert "[/bold]" in result.stdout
    assert "[red]Class[/]" in result.stdout


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_fleet_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(data)
    with pytest.raises(InputError):
        load_fleet(file)
