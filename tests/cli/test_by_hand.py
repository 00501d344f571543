"""Jobs that people gave to a site by hand, at the command line: seen beside ours, and never touched."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.served import Served, serving
from tests.cli.test_jobs import Run
from watteau.cli.by_hand import split
from watteau.domain.slurm_reasons import meaning


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def run(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("WATTEAU_URL", served.url)
    monkeypatch.setenv("WATTEAU_TOKEN", served.tokens["root"])
    monkeypatch.setenv("TZ", "Europe/Paris")
    return Run()


def test_jobs_by_hand_stand_beside_ours_where_everyones_are_listed(run: Run) -> None:
    ours = run.submit("--account", "alpha-lab", "--", "sleep", "0")
    for options in (["--all", "-s", "any"], ["--site", "paris", "-s", "any"]):
        lines = run("ps", *options).out.splitlines()
        labels = {line.split("\t")[0] for line in lines[1:]}
        assert "paris:7" in labels
        assert ours in labels or "--site" in options
    (line,) = run("ps", "--by-hand").out.splitlines()[1:]
    label, name, user, tenant, state, _, gpus, where = line.split("\t")
    assert (label, name, user, tenant, state) == ("paris:7", "by hand 7", "zoe", "alpha-lab", "running")
    assert (gpus, where) == ("2", "paris, by hand")
    assert [job["engine_id"] for job in json.loads(run("ps", "--by-hand", "--json").out)] == ["7"]


def test_ones_own_list_has_no_job_by_hand(run: Run) -> None:
    assert "paris:7" not in run("ps", "-s", "any").out


def test_a_tenant_sees_no_job_by_hand_of_another(run: Run, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTEAU_TOKEN", served.tokens["eve"])
    assert "paris:7" not in run("ps", "--all", "-s", "any").out
    said = run("show", "paris:7")
    assert (said.code, said.out) == (2, "")
    assert "no job of that number was seen at paris, or you may not see it" in said.err


def test_show_says_where_it_is_and_that_it_is_only_counted(run: Run) -> None:
    shown = run("show", "paris:7").out
    assert "by hand, to the scheduler of paris; Watteau only counts it" in shown
    assert "nodes\tgpu1 (2 GPUs)" in shown
    assert "owner\tzoe, account atelier, counts for tenant alpha-lab" in shown
    assert "job paris:7 (by hand 7) is running, at a site that zoe gave it to" in run("why", "paris:7").out


@pytest.mark.parametrize("verb", ["cancel", "hold", "release", "wait", "logs", "story"])
def test_nothing_is_done_to_a_job_by_hand(run: Run, verb: str) -> None:
    said = run(verb, "paris:7")
    assert said.code == 2
    assert "paris:7: it was given to paris by hand, and Watteau does not" in said.err
    assert "scancel 7" in said.err


def test_a_label_by_hand_is_a_site_and_a_number() -> None:
    assert split("paris:1234") == ("paris", "1234")
    assert split("paris:1234_[1-9%2]") == ("paris", "1234_[1-9%2]")
    for word in ("1234", "paris:", ":7", "paris:x", "a b:7"):
        assert split(word) is None


def test_slurms_reasons_are_said_in_words_and_others_as_they_are() -> None:
    assert meaning("ReqNodeNotAvail, UnavailableNodes:gpu7") == meaning("ReqNodeNotAvail")
    assert meaning("singleton(unfulfilled)") == meaning("Dependency")
    assert meaning("SomethingNew") is None
