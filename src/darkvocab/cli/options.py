"""Options of the commands, from options.toml, which says how it is written."""

import inspect
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

TABLES: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("options.toml").read_text("utf-8"))
TYPES = {"text": str, "integer": int, "number": float, "flag": bool, "file": Path, "texts": list[str]}
Function = TypeVar("Function", bound=Callable[..., None])


def options_of(table: str) -> dict[str, dict[str, Any]]:
    """Return the options of a command, or of a table that commands use, by name and in order."""
    options: dict[str, dict[str, Any]] = {}
    for name, given in TABLES[table].items():
        if name == "use":
            for used in given:
                options |= options_of(used)
            continue
        own = {"from": given} if isinstance(given, str) else given
        other = options_of(own["from"])[name] if "from" in own else {}
        options[name] = other | {key: value for key, value in own.items() if key != "from"}
    return options


def takes_options(function: Function) -> Function:
    """Give a command the options of the table of its name, and --json."""
    options = options_of(function.__name__) | options_of("printed")
    parameters = [_parameter(name, **option) for name, option in options.items()]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def _parameter(
    name: str,
    *,
    type: str = "",
    default: Any = None,
    required: bool = False,
    argument: str = "",
    flags: tuple[str, ...] = (),
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
    about = typer.Argument(metavar=argument, **given) if argument else typer.Option(*flags, **given)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, about])
