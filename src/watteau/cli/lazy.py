"""A group whose commands are imported when they are used: `--help` and completion stay fast."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["LazyGroup", "Part"]


@dataclass(frozen=True, slots=True)
class Part:
    """One command, or group of commands: where it is, and its line in the help.

    `attribute` of `module` is a function, or a Typer instance.
    """

    module: str
    attribute: str
    help: str
    panel: str = "Commands"


class LazyGroup(TyperGroup):
    """A group of parts. A subclass names them; nothing of them is imported before one is called."""

    parts: ClassVar[dict[str, Part]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, part in self.parts.items():
            self.commands[name] = _Stub(name, help=part.help, rich_help_panel=part.panel)

    def load(self, name: str) -> Any:
        """The command itself, imported now."""
        command = self.commands[name]
        if isinstance(command, _Stub):
            command = self.commands[name] = _loaded(name, self.parts[name])
        return command

    def load_all(self) -> None:
        """Import every part, for whoever wants to see them all: the reference, the tests."""
        for name in self.parts:
            self.load(name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Called when a command is about to run, or to complete its own words."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, (self.load(name) if isinstance(command, _Stub) and name else command), rest


class _Stub(TyperCommand):
    """A line in the help."""


def _loaded(name: str, part: Part) -> Any:
    found = getattr(import_module(part.module), part.attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
        alone.command(name)(found)
        found = alone
    command: Any = typer.main.get_command(found)
    # A Typer instance of its own would offer --install-completion once more.
    command.params = [each for each in command.params if each.name not in ("install_completion", "show_completion")]
    command.name = name
    command.rich_help_panel = part.panel
    return command
