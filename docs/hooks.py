"""Writes the reference pages from the code while MkDocs builds, so that they cannot fall behind it."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import watteau
from watteau.cli.exits import MEANING
from watteau.cli.main import app
from watteau.domain.decisions import SENTENCE, Reason
from watteau.domain.jobs import Workload
from watteau.domain.people import Role
from watteau.server.access import MAY_GIVE, RULES, About, Rule
from watteau.server.api import openapi_document

#: Parts whose modules declare the tables that they write, as `<NAME>_COLUMNS`.
PARTS_WITH_TABLES = ("simulation", "energy", "ledger", "workload")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs calls this before it reads the pages."""
    for uri, text in pages().items():
        files.append(File.generated(config, uri, content=text))
    return files


def pages() -> dict[str, str]:
    """Every generated page: its place under docs/, and its Markdown."""
    return {
        "reference/cli.md": cli_page(app),
        "reference/exit-codes.md": exit_codes_page(),
        "reference/reasons.md": reasons_page(),
        "reference/roles.md": roles_page(RULES, MAY_GIVE),
        "reference/api.md": api_page(openapi_document()),
        "reference/columns.md": columns_page({"workload": commented_columns(Workload), **dict(declared_tables())}),
    }


def cli_page(tree: typer.Typer) -> str:
    """Each command of a command tree with its arguments and options."""
    parts = ["# The `watteau` command", "`watteau COMMAND --help` says the same in the terminal."]
    described = [_command_section(words, command) for words, command in commands(tree)]
    return "\n\n".join(parts + (described or ["There is no command in this version."])) + "\n"


def commands(tree: typer.Typer) -> Iterator[tuple[str, Any]]:
    """(full name, command) of every command that does something by itself, in the order of the help."""
    command: Any = typer.main.get_command(tree)
    if hasattr(command, "load_all"):  # commands that are otherwise imported only when they are called
        command.load_all()
    yield from _commands_below("watteau", command)


def exit_codes_page() -> str:
    """What the exit codes of the command mean."""
    rows = "\n".join(f"| {code.value} | {_cell(said)} |" for code, said in MEANING.items())
    return (
        "# Exit codes\n\nOf every `watteau` command. `watteau wait`, `submit --wait` and `submit --follow` end with "
        "the job's own exit code; a job that a signal ended counts as 128 + the signal's number, and one that ended "
        "without an exit code (cancelled while it waited, stopped at its limit) as 1. Of several jobs it is that of "
        "the first "
        f"that did not complete.\n\n| code | meaning |\n|---|---|\n{rows}\n"
    )


def reasons_page() -> str:
    """Each reason with its code, its sentence, and whether waiting can help."""
    parts = [
        "# Reasons",
        "Every job that a step looks at and does not start gets one reason; which, when several hold, "
        "[R16](../rules.md#scheduling) says. Codes are stored: they are never renumbered, only added to. What to do "
        "about each: [Read a reason](../how-to/read-a-reason.md).",
    ]
    for reason in Reason:
        ending = " Waiting does not help: the job can never start on this fleet." if reason.is_final else ""
        parts.append(f"## {reason.name}\n\nCode {reason.value}. {SENTENCE[reason]}{ending}")
    return "\n\n".join(parts) + "\n"


_OF_ALL = " (of every tenant)"


def roles_page(rules: Mapping[str, Rule], may_give: Mapping[Role, frozenset[Role]]) -> str:
    """Each operation of the API with the scope that it needs and the roles that may do it."""
    heads = [_role(role) for role in Role]
    rows = [
        f"| {_cell(rule.what)}{_OF_ALL if rule.of_all else ''} | `{name}` | {rule.scope or ''} | "
        + " | ".join(_reach(rule, role) for role in Role)
        + " |"
        for name, rule in rules.items()
    ]
    given = [
        f"| {_role(giver)} | {', '.join(_role(role) for role in Role if role in roles)} |"
        for giver, roles in may_give.items()
    ]
    return (
        "\n\n".join(
            [
                "# Roles",
                "A role is granted on a tenant and holds for everything below it; a person may have several, each on "
                "its own part of the tree. *yes*: on everything in that part; *own*: on the person's own jobs there; "
                "*all*: whoever has an account; *anybody*: without one.",
                "What somebody may not see does not exist for them: the answer is 404. What they may see and not do is "
                "403. A token's scope takes away from what its account may do, and never adds.",
                "What is *of every tenant* takes the role on the root of the tree.",
                "\n".join(
                    [f"| to | operation | scope | {' | '.join(heads)} |", "|---" * (3 + len(heads)) + "|", *rows]
                ),
                "## Who gives roles",
                "Inside their own part, and to accounts that hold nothing beyond what they may give: otherwise a new "
                "password for an operator would make its giver one. Nobody changes their own roles.",
                "\n".join(["| who | may give |", "|---|---|", *given]),
            ]
        )
        + "\n"
    )


def _role(role: Role) -> str:
    return role.value.replace("_", " ")


def _reach(rule: Rule, role: Role) -> str:
    if rule.about in (About.NOBODY, About.SELF):
        return "anybody" if rule.about is About.NOBODY else "all"
    return {"no": "", "own": "own", "yes": "yes"}[rule.reach[role].value]


def api_page(document: Mapping[str, Any]) -> str:
    """Each operation of the API: what it does, its parameters and its answers."""
    parts = [
        "# The HTTP API",
        "A running server has the same, with every field of every body, as OpenAPI at `/api/v1/openapi.json`. How to "
        "use it: [Use the API](../how-to/use-the-api.md). Who may do what: [Roles](roles.md).",
    ]
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            answers = ", ".join(f"{status}" for status in sorted(said["responses"]))
            rows = [
                f"| `{each['name']}` | {each['in']} | {_cell(each.get('description', ''))} | {_said_default(each)} |"
                for each in said.get("parameters", [])
            ]
            body = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            parts += [
                f"## {method.upper()} {path}",
                f"`{said['operationId']}`: {said['summary']}. {said['description']}".replace("?.", "?"),
                *(["\n".join(["| parameter | in | meaning | default |", "|---|---|---|---|", *rows])] if rows else []),
                f"{_body(body)}Answers: {answers}.",
            ]
    return "\n\n".join(parts) + "\n"


def _body(schema: Mapping[str, Any]) -> str:
    return f"Body: `{schema['$ref'].rsplit('/', 1)[1]}`. " if schema else ""


def _said_default(parameter: Mapping[str, Any]) -> str:
    if parameter.get("required"):
        return "required"
    default = parameter.get("schema", {}).get("default")
    return "" if default in (None, "", []) else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def columns_page(tables: Mapping[str, Mapping[str, object]]) -> str:
    """Each declared table with its columns."""
    parts = [
        "# Columns",
        "The columns of the tables that Watteau writes, read from the code that writes them. A figure's unit is the "
        "last word of its name; times are UTC; hours are half-open, `[h, h+1)`.",
    ]
    for name, columns in sorted(tables.items()):
        rows = "\n".join(f"| `{column}` | {_type_and_meaning(about)} |" for column, about in columns.items())
        parts.append(f"## {name}\n\n| column | type | meaning |\n|---|---|---|\n{rows}")
    if not tables:
        parts.append("This version declares no table.")
    return "\n\n".join(parts) + "\n"


def declared_tables() -> Iterator[tuple[str, Mapping[str, object]]]:
    """(table, its columns) for every `<NAME>_COLUMNS` mapping that a module of PARTS_WITH_TABLES declares itself."""
    for module in _modules():
        for name, value in vars(module).items():
            if name.endswith("_COLUMNS") and not name.startswith("_") and isinstance(value, Mapping):
                yield name.removesuffix("_COLUMNS").lower(), value


def commented_columns(table: type) -> dict[str, object]:
    """Columns of a class that holds one array per column: `name: Int64Array  # what it says`."""
    found = re.finditer(r"^    (\w+): (\w+)Array(?:  # (.*))?$", inspect.getsource(table), re.M)
    return {each[1]: (each[2].lower(), each[3] or "") for each in found}


def _modules() -> Iterator[ModuleType]:
    for part in pkgutil.iter_modules(watteau.__path__):
        if part.name in PARTS_WITH_TABLES:
            package = importlib.import_module(f"watteau.{part.name}")
            yield package
            for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                yield importlib.import_module(found.name)


def _type_and_meaning(about: object) -> str:
    """A column is declared as (type, sentence), or as either of them."""
    kind, meaning = about if isinstance(about, tuple) and len(about) == 2 else (about, "")
    if isinstance(about, str):
        kind, meaning = "", about
    shown = kind.__name__ if isinstance(kind, type) else str(kind)
    return f"{f'`{shown}`' if shown else ''} | {_cell(str(meaning))}"


def _commands_below(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None or getattr(command, "invoke_without_command", False):
        yield words, command
    for name, child in (below or {}).items():
        if not child.hidden:
            yield from _commands_below(f"{words} {name}", child)


def _command_section(words: str, command: Any) -> str:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    usage = " ".join([words, *(f"{parameter.name.upper()}" for parameter in arguments), "[OPTIONS]"])
    rows = [
        f"| {_names(parameter)} | {_cell(parameter.help or '')} | {_default(parameter)} |"
        for parameter in shown
        if parameter.name != "help"
    ]
    table = "\n".join(["| option | meaning | default |", "|---|---|---|", *rows]) if rows else ""
    return "\n\n".join(filter(None, [f"## {words}", (command.help or "").strip(), f"```text\n{usage}\n```", table]))


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default is None or callable(parameter.default) or parameter.default == ():
        return ""
    return f"`{getattr(parameter.default, 'value', parameter.default)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
