"""The command line that repeats a run, derived from its settings."""

import shlex
from collections.abc import Mapping
from typing import Any


def repeating(
    verb: str, options: Mapping[str, Any], defaults: Mapping[str, Any], obstacle: str | None = None, *arguments: str
) -> dict[str, str | None]:
    """Return what a manifest says of the command that repeats a run.

    Parameters
    ----------
    verb : the command's name, such as "sweep"
    options : values by the names that the command's function gives its options: ``redraw_base``
        is ``--redraw-base``. A switch is True or False (``--no-redraw-base``), a list or a tuple
        repeats its option, None leaves it out.
    defaults : the command's own; options that have these values are left out
    obstacle : why no command line can repeat this run, if none can
    arguments : what stands before the options

    Returns
    -------
    ``{"command": line}``; or ``{"command": None, "no_command": reason}``.

    Examples
    --------
    >>> repeating("sweep", {"sigma": "1e-9", "tokens": 300, "strict": True}, {"tokens": 2100})
    {'command': 'darkvocab sweep --sigma 1e-9 --tokens 300 --strict'}
    >>> repeating("sweep", {}, {}, "its base was given as an array")["no_command"]
    'its base was given as an array'
    """
    words = ["darkvocab", verb, *arguments]
    for name, value in options.items():
        if value is not None and (name not in defaults or value != defaults[name]):
            words += _words(f"--{name.replace('_', '-')}", value)
    if not obstacle and (unsaid := next((word for word in words if not word.isprintable()), None)):
        obstacle = f"{unsaid!r} has characters that a command line cannot show"
    return {"command": None, "no_command": obstacle} if obstacle else {"command": shlex.join(words)}


def _words(option: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option if value else f"--no-{option.removeprefix('--')}"]
    if isinstance(value, (list, tuple)):
        return [word for item in value for word in _words(option, item)]
    return [option, repr(value) if isinstance(value, float) else str(value)]
