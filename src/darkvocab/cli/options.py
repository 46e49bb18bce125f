"""Options of the commands, from options.toml, which says how it is written; and help that people can scan.

The help has commands under the question they answer, options by purpose, the common ones first.
"""

import inspect
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

TABLES: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("options.toml").read_text("utf-8"))
TEXTS = tomllib.loads(Path(__file__).with_name("help.toml").read_text("utf-8"))
COMMANDS: dict[str, dict[str, str]] = TEXTS["commands"]
ABOUT: dict[str, str] = TEXTS["about"]
OPTIONS: dict[str, str] = TEXTS["options"]
TYPES: dict[str, Any] = {"text": str, "integer": int, "number": float, "flag": bool, "file": Path}
TYPES |= {"texts": list[str], "color": Literal["auto", "always", "never"]}
Function = TypeVar("Function", bound=Callable[..., None])


def options_of(table: str) -> dict[str, dict[str, Any]]:
    """Return the options of a command, or of a table that commands use, by name and in order."""
    options: dict[str, dict[str, Any]] = {}
    for name, given in TABLES[table].items():
        if name == "use":
            for used in given:
                options |= options_of(used)
            continue
        entry = {"from": given} if isinstance(given, str) else given
        other = options_of(entry["from"])[name] if "from" in entry else {}
        options[name] = other | {key: value for key, value in entry.items() if key != "from"}
    return options


def takes_options(function: Function, *tables: str) -> Function:
    """Give a command its help, and the options of the table of its name and of others."""
    options = {name: option for table in (function.__name__, *tables) for name, option in options_of(table).items()}
    parameters = [_parameter(name, **option) for name, option in options.items()]
    function.__doc__ = ABOUT[function.__name__]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def _parameter(
    name: str,
    *,
    type: str = "",
    default: Any = None,
    required: bool = False,
    argument: str = "",
    flags: Sequence[str] = (),
    values: str = "",
    **given: Any,
) -> inspect.Parameter:
    """Return what typer reads of a parameter; a flag has no ``--no-`` beside it but where `flags` says so."""
    kind: Any = TYPES[type] if type else default.__class__
    if default is None:
        if required:
            default = inspect.Parameter.empty
        elif kind is bool:
            default = False
        else:
            kind = kind | None
    if kind is bool and not flags:
        flags = (f"--{name.replace('_', '-')}",)
    if values:
        given["autocompletion"] = lambda incomplete: [word for word in values.split() if word.startswith(incomplete)]
    about = typer.Argument(metavar=argument, **given) if argument else typer.Option(*flags, **given)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, about])


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
