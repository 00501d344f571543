"""The commands of the sites, against a real server process on this machine."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.cli.served import Served, serving
from tests.cli.test_jobs import Run
from watteau.cli import complete
from watteau.cli.session import table_of
from watteau.cli.sites import table_of_sites
from watteau.server.schemas import SiteView

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), differs=True) as served:
        yield served


@pytest.fixture
def run(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As an operator of every tenant."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("WATTEAU_URL", served.url)
    monkeypatch.setenv("WATTEAU_TOKEN", served.tokens["root"])
    monkeypatch.setenv("TZ", "Europe/Paris")
    return Run()


def test_a_mode_is_set_and_shown_with_who_said_it(run: Run) -> None:
    said = run("sites", "set", "paris", "observe", "--why", "the site is new to us")
    assert (said.code, said.out) == (0, "paris: observe\n")
    shown = run("sites", "show", "paris").out
    assert "mode\tobserve\nfleet file\tmode drive\nlast said\tobserve, by root at " in shown
    assert ": the site is new to us\n" in shown
    assert "\tready\tobserve\t" in run("sites").out
    set_back = run("sites", "set", "paris", "drive", "--why", "it is known", "--json")
    assert json.loads(set_back.out)["setting"]["mode"] == "drive"


def test_a_fence_says_what_is_lost_and_wants_an_answer(run: Run) -> None:
    asked = run("sites", "fence", "paris", "--why", "the hall is under water")
    assert asked.code == 2
    assert (
        "Fence paris? 2 attempts of Watteau at paris will count as lost, and their jobs start elsewhere." in asked.err
    )
    assert "Do this only if paris really cannot run them any more: else they run twice." in asked.err
    assert "say so with --yes" in asked.err
    assert json.loads(run("sites", "show", "paris", "--json").out)["fenced"] == ""
    assert run("sites", "fence", "paris", "--why", "the hall is under water", "--yes").out == "paris: fenced\n"
    listed = run("sites")
    assert "paris\tfenced\tdrive\t" in listed.out
    assert "warning: paris is fenced by root: the hall is under water" in listed.err


def test_a_new_mode_keeps_the_fence_and_says_so(run: Run) -> None:
    run("sites", "fence", "paris", "--why", "the hall is under water", "--yes")
    said = run("sites", "set", "paris", "shadow", "--why", "a look at it first")
    assert "paris is still fenced: nothing starts there before watteau sites unfence paris" in said.err
    assert run("sites", "unfence", "paris", "--why", "it is dry").out == "paris: no longer fenced, shadow\n"
    again = run("sites", "unfence", "paris", "--why", "it is dry")
    assert (again.code, again.err) == (2, "watteau: paris is not fenced; nothing was changed\n")
    run("sites", "set", "paris", "drive", "--why", "done")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["show", "pariss"], 3, "There is no site 'pariss'; there are: paris."),
        (["nodes", "pariss"], 3, "there are: paris"),
        (["diff", "pariss"], 3, "there are: paris"),
        (["set", "pariss", "drive", "--why", "x"], 3, "there are: paris"),
        (["set", "paris", "rule", "--why", "x"], 2, "'rule' is not one of"),
        (["set", "paris", "drive"], 2, "Missing option '--why'"),
        (["set", "paris", "drive", "--why", " "], 2, "say why"),
        (["--json", "show", "paris"], 2, "give --json after show"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(run: Run, words: list[str], code: int, text: str) -> None:
    before = json.loads(run("sites", "show", "paris", "--json").out)["setting"]
    said = run("sites", *words)
    assert said.code == code
    assert text in said.err
    assert json.loads(run("sites", "show", "paris", "--json").out)["setting"] == before


def test_who_is_no_operator_of_every_tenant_sees_and_does_not_set(
    run: Run, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTEAU_TOKEN", served.tokens["ada"])
    assert run("sites", "show", "paris").code == 0
    said = run("sites", "set", "paris", "observe", "--why", "x")
    assert said.code == 4
    assert "it concerns every tenant, and takes a role on the whole tree" in said.err


def test_the_nodes_are_listed(run: Run) -> None:
    assert run("sites", "nodes", "paris").out.splitlines()[1:] == ["gpu1\tp\t0\tup\t-\t-\t"]
    assert json.loads(run("sites", "nodes", "paris", "--out", "--json").out) == []


@pytest.mark.parametrize("words", [[], ["paris"]])
def test_differences_end_with_1_and_what_would_help(run: Run, words: list[str]) -> None:
    said = run("sites", "diff", *words)
    assert said.code == 1
    assert said.out.splitlines() == ["SITE\tWHERE\tWHAT\tFLEET FILE\tENGINE", "paris\tpool p\tnodes\t4\t3"]
    assert said.err == "paris, pool p, nodes: change the phases\n"
    (found,) = json.loads(run("sites", "diff", *words, "--json").out)["paris"]
    assert found["remedy"] == "change the phases"


def test_no_difference_ends_with_0(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as agrees:
        monkeypatch.setenv("WATTEAU_URL", agrees.url)
        monkeypatch.setenv("WATTEAU_TOKEN", agrees.tokens["ada"])
        assert (run("sites", "diff").code, run("sites", "diff").out) == (0, "")
        assert json.loads(run("sites", "diff", "paris", "--json").out) == {"paris": []}


def test_a_file_without_a_slurm_site_has_nothing_to_compare(run: Run, tmp_path: Path) -> None:
    said = run("sites", "diff", "--fleet", str(EXAMPLES / "one-machine-256.toml"))
    assert said.code == 3
    assert "a site with a table [sites.slurm] is not there; there are: none" in said.err
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('name = "x"\nsites = 3\n', encoding="utf-8")
    assert run("sites", "diff", "--fleet", str(wrong)).code == 2


def test_a_site_that_does_not_answer_is_named_and_the_next_one_is_asked_all_the_same(run: Run, tmp_path: Path) -> None:
    said = (EXAMPLES / "one-machine-256.toml").read_text(encoding="utf-8").replace('"simulated"', '"slurm"')
    name, _, site = said.partition("[[sites]]")
    site = "[[sites]]" + site.replace(
        "[[sites.pools]]", '[sites.slurm]\nuser = "u"\nfolder = "/x"\ncommand_prefix = ["false"]\n\n[[sites.pools]]'
    )
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(name + site + site.replace('"machine"', '"other"'), encoding="utf-8")
    found = run("sites", "diff", "--fleet", str(fleet))
    assert (found.code, found.out) == (5, "")
    assert [line.split(":")[0] for line in found.err.splitlines()] == [
        "site machine does not answer",
        "site other does not answer",
    ]
    assert json.loads(run("sites", "diff", "--fleet", str(fleet), "--json").out) == {"machine": None, "other": None}


def test_sites_are_completed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete.sites("pa") == [("paris", "Paris")]
    assert complete.sites("x") == []
    monkeypatch.setenv("WATTEAU_URL", "http://127.0.0.1:1")
    assert complete.sites("pa") == []


def test_the_table_of_a_fleet_fits_on_eighty_columns() -> None:
    mulhouse = SiteView(
        id="mulhouse",
        name="Mulhouse",
        engine="slurm",
        mode="observe",
        state="silent",
        nodes_up=1_250,
        nodes_total=1_250,
        gpus_total=10_000,
        gpus_busy=9_999.5,
        running=4_711,
        people_running=1_200,
        people_waiting=345,
        nodes_out=17,
        power_kw=12_345.6,
        power_limit_kw=12_500,
    )
    headings, rows = table_of_sites([mulhouse])
    out = io.StringIO()
    Console(file=out, width=80).print(table_of(headings, rows, range(3, 9), [0], 80))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    for word in ("1250/1250", "10000/10000", "1200+345", "12346", "observe"):
        assert word in out.getvalue()


def test_help_names_every_command_of_the_group() -> None:
    from watteau.cli.main import app

    said = CliRunner().invoke(app, ["sites", "--help"])
    for word in ("show", "set", "fence", "unfence", "nodes", "diff"):
        assert word in said.stdout
