"""Help that people can scan: commands under the question they answer, options by purpose, the common ones first."""

import tomllib
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

TEXTS = tomllib.loads(Path(__file__).with_name("help.toml").read_text("utf-8"))
COMMANDS: dict[str, dict[str, str]] = TEXTS["commands"]
OPTIONS: dict[str, str] = TEXTS["options"]


def section_of(command: str, option: str) -> str | None:
    """Return the heading that an option stands under in the help of a command; None for the common ones."""
    of_checkpoints = command in COMMANDS["Which tokens are dark in my model?"]
    for heading, names in OPTIONS.items():
        if option in names.split() and heading != ("The snowball" if of_checkpoints else "What is read"):
            return heading
    return None


class Command(TyperCommand):
    """A command whose help groups its options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then the options in their sections."""
        arguments: list[tuple[str, str]] = []
        sections: dict[str | None, list[tuple[str, str]]] = {None: [], **{heading: [] for heading in OPTIONS}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            else:
                sections[section_of(self.name or "", parameter.name or "")].append(record)
        for heading, rows in {"Arguments": arguments, **sections}.items():
            if rows:
                with formatter.section(heading or "Options"):
                    formatter.write_dl(rows)


class Group(TyperGroup):
    """The application, whose help groups its commands by question."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one whole line for each command."""
        width = max(len(name) for rows in COMMANDS.values() for name in rows)
        for heading, rows in COMMANDS.items():
            formatter.write(f"\n{heading}\n")
            with formatter.indentation():
                formatter.write_dl([(name.ljust(width), short) for name, short in rows.items()])

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands in the order of the help."""
        return [name for rows in COMMANDS.values() for name in rows if name in self.commands]
