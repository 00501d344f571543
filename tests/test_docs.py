"""The documentation says all that the code can say, its links hold, and it asks nothing of other machines."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import pytest
import typer

from watteau.cli.exits import MEANING, SUMMARY, Exit
from watteau.cli.main import app
from watteau.domain.decisions import SENTENCE, Reason
from watteau.domain.remedies import REMEDY
from watteau.server.api import routes
from watteau.workload.sbatch import OPTIONS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def undocumented(hooks: ModuleType, tree: typer.Typer) -> list[str]:
    """Commands without a sentence, and arguments and options without one."""
    found = []
    for words, command in hooks.commands(tree):
        if not (command.help or "").strip():
            found.append(words)
        found += [f"{words} {each.name}" for each in command.params if each.name != "help" and not each.help]
    return found


def unexplained(text: str) -> list[str]:
    """Reasons that a page has no row for: `| NAME | who | what to do |`, none of them empty."""
    rows = {found[1] for found in re.finditer(r"^\| \[?`?([A-Z_]+)`?[^|]*\|[^|]*\w[^|]*\|[^|]*\w[^|]*\|$", text, re.M)}
    return [reason.name for reason in Reason if reason is not Reason.NONE and reason.name not in rows]


def test_every_reason_is_in_the_reference_with_its_code_and_sentence(hooks: ModuleType) -> None:
    page = hooks.pages()["reference/reasons.md"]
    for reason in Reason:
        assert f"## {reason.name}\n\nCode {reason.value}. {SENTENCE[reason]}" in page


def test_every_reason_says_who_can_do_what() -> None:
    assert unexplained((ROOT / "docs/how-to/read-a-reason.md").read_text(encoding="utf-8")) == []


def test_a_reason_without_a_remedy_is_named() -> None:
    rows = [f"| `{reason.name}` | you | Wait. |" for reason in Reason if reason is not Reason.QUOTA]
    assert unexplained("\n".join(rows)) == ["QUOTA"]
    assert unexplained("\n".join([*rows, "| `QUOTA` | you | |"])) == ["QUOTA"]


def test_every_command_and_option_says_what_it_does(hooks: ModuleType) -> None:
    assert undocumented(hooks, app) == []


def test_every_command_is_in_the_reference(hooks: ModuleType) -> None:
    page = hooks.pages()["reference/cli.md"]
    for words, _ in hooks.commands(app):
        assert f"\n## {words}\n" in page


def test_a_command_or_option_that_says_nothing_is_named(hooks: ModuleType) -> None:
    tree, below = typer.Typer(), typer.Typer()
    tree.add_typer(below, name="store")

    @tree.command()
    def silent(fleet: Annotated[str, typer.Argument(help="The fleet file.")]) -> None: ...

    @below.command()
    def migrate(dry_run: bool = False) -> None:
        """Bring the tables up to date."""

    assert undocumented(hooks, tree) == ["watteau silent", "watteau store migrate dry_run"]
    page = hooks.cli_page(tree)
    assert "## watteau silent\n\n```text\nwatteau silent FLEET [OPTIONS]\n```" in page
    assert "| `FLEET` | The fleet file. | required |" in page


def test_every_operation_is_in_the_reference_with_those_who_may_do_it(hooks: ModuleType) -> None:
    pages = hooks.pages()
    for route in routes():
        method = next(iter(route.methods or ()))
        assert f"\n## {method} {route.path}\n" in pages["reference/api.md"]
        assert f"| `{route.operation_id}` |" in pages["reference/roles.md"]
    assert "| cancel a job | `cancel_job` | submit | yes |  | yes | own |  |" in pages["reference/roles.md"]
    assert "| log in | `login` |  | anybody |" in pages["reference/roles.md"]


def test_every_curl_in_the_how_to_asks_for_something_that_is_there() -> None:
    text = (ROOT / "docs/how-to/use-the-api.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^\$ (curl .*)$", text, re.M)
    assert len(commands) > 8
    for command in commands:
        method = found[1] if (found := re.search(r"-X (\w+)", command)) else "GET"
        path = re.findall(r"\$WATTEAU_URL(/[^\s?\"]*)", command)[0]
        assert [route for route in routes() if route.path_regex.match(path) and method in (route.methods or ())], (
            command
        )


def test_columns_are_shown_with_type_and_meaning(hooks: ModuleType) -> None:
    page = hooks.columns_page({"hours": {"hour": (int, "Start of the hour | UTC."), "energy_wh": "Energy."}})
    assert "## hours" in page
    assert "| `hour` | `int` | Start of the hour \\| UTC. |" in page
    assert "| `energy_wh` |  | Energy. |" in page


def test_columns_of_a_workload_file_are_those_of_a_workload(hooks: ModuleType) -> None:
    page = hooks.pages()["reference/columns.md"]
    assert "## workload" in page
    assert "| `submit_s` | `int64` | [job], >= 0 |" in page
    assert "| `priority_class` | `int16` | [job], higher goes first |" in page


def unlisted_rules(sources: list[str], rules: str) -> list[str]:
    """Rules that a module states (`R7  Every search ...`, at the start of a line) and that the list does not have."""
    stated = {found[1] for text in sources for found in re.finditer(r"^\s*([BFR]\d+)  \S", text, re.M)}
    return sorted(stated - set(re.findall(r"^([BFR]\d+)$", rules, re.M)))


def test_every_rule_that_a_module_states_is_in_the_list() -> None:
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py")]
    assert unlisted_rules(sources, (ROOT / "docs/rules.md").read_text(encoding="utf-8")) == []


def test_a_rule_that_is_not_in_the_list_is_named() -> None:
    assert unlisted_rules(["B1  Parts equal the meter.\nR99  Never."], "B1\n:   Parts equal the meter.") == ["R99"]


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder / "site")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A copy of the documentation that a test may spoil."""
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def outside_requests(html: str) -> list[str]:
    """Addresses that a browser would ask for on opening a page: not links, which a person follows."""
    loads = r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(https?:)?//[^\"'\s>]+"
    styles = r"<link\b(?![^>]*rel=[\"']?canonical)[^>]*\bhref=[\"']?(https?:)?//[^\"'\s>]+"
    return [found[0] for found in re.finditer(f"{loads}|{styles}", html)]


@pytest.mark.slow
def test_the_site_builds_and_asks_nothing_of_other_machines(docs: Path) -> None:
    built = build(docs)
    assert built.returncode == 0, built.stderr
    html_files = list((docs / "site").rglob("*.html"))
    assert len(html_files) > 10
    assert [found for file in html_files for found in outside_requests(file.read_text(encoding="utf-8"))] == []
    styles = "".join(file.read_text(encoding="utf-8") for file in (docs / "site").rglob("*.css"))
    assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles)


def test_an_outside_request_is_named() -> None:
    assert outside_requests('<link rel="stylesheet" href="https://fonts.example/css">')
    assert outside_requests("<script src=//cdn.example/x.js></script>")
    assert not outside_requests('<a href="https://example.org">read</a><script src="a.js"></script>')


@pytest.mark.slow
@pytest.mark.parametrize("link", ["no-such-page.md", "glossary.md#no-such-anchor"])
def test_a_broken_link_fails_the_build(docs: Path, link: str) -> None:
    with (docs / "docs/index.md").open("a", encoding="utf-8") as page:
        page.write(f"\n[broken]({link})\n")
    built = build(docs)
    assert built.returncode != 0
    assert link.split("#")[-1] in built.stderr


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_pages_at_the_root_lead_somewhere(name: str) -> None:
    """MkDocs checks what lies in docs/; these it does not see."""
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?://)([^)#\s]*)(?:#[^)\s]*)?\)", text)
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_directive_that_is_acted_on_is_in_the_how_to() -> None:
    page = (ROOT / "docs/how-to/bring-your-slurm-scripts.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| (?:`-\w`, )?`--([\w-]+)` \| [^|]*\w[^|]*\|$", page, re.M))
    assert rows == {option.name for option in OPTIONS if option.help}


def test_what_helps_is_the_same_in_the_terminal_and_in_the_how_to() -> None:
    page = (ROOT / "docs/how-to/read-a-reason.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \|$", page, re.M)
    told = {reason.name: REMEDY[reason] for reason in Reason if reason is not Reason.NONE}
    assert {name: (who.strip(), what.strip()) for name, who, what in rows} == told


def test_every_exit_code_is_in_the_reference_and_in_the_help(hooks: ModuleType) -> None:
    page = hooks.pages()["reference/exit-codes.md"]
    for code in Exit:
        assert f"| {code.value} | {MEANING[code]} |" in page
        assert f"{code.value} {MEANING[code].replace('`', '')}" in SUMMARY
