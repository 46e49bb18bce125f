"""Find the checkpoints that make a series, by name and in order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ..embedding.history import FILE
from ..errors import InvalidInput, MissingFile
from ..sources import READERS, WEIGHTS, open_source, revisions

LAST = "main"  # a branch that goes on where the others stop


def naturally(name: str) -> list[int | str]:
    """Return a key that sorts numbers in names as numbers.

    Examples
    --------
    >>> sorted(["step10", "step2", "Step1"], key=naturally)
    ['Step1', 'step2', 'step10']
    """
    parts = re.split("([0-9]+)", name)
    return [int(part) if place % 2 else part.lower() for place, part in enumerate(parts)]


def find_checkpoints(sources: Sequence[str | Path], pattern: str | None = None) -> list[tuple[str, str | Path]]:
    """Return names and sources of the checkpoints of a series, in order.

    Several sources: these. One: the branches and tags of a model on the Hub (`main` last), or the checkpoints in a
    folder: its model folders, else its files; sorted by name, numbers as numbers.

    Parameters
    ----------
    pattern : only those of one source whose name matches: `step*`; several, joined by commas

    Raises
    ------
    MissingFile, AccessRefused, Unreachable, CorruptFile
        As `open_source`; nothing there that matches.
    InvalidInput
        One source that is a single checkpoint; a pattern for several.
    """
    if len(sources) != 1:
        if not sources or pattern is not None:
            raise InvalidInput("give one source, with or without --revisions, or several without")
        return [(str(source), source) for source in sources]
    (source,) = sources
    known = _in_folder(Path(source)) if Path(source).is_dir() else _on_hub(source)
    globs = ["*"] if pattern is None else pattern.split(",")
    names = [name for name in known if any(fnmatchcase(name, glob) for glob in globs)]
    if not names:
        others = sorted(known, key=naturally)
        listed = ", ".join(others[:8]) + (f" and {len(others) - 8:,} more" if len(others) > 8 else "")
        raise MissingFile(
            f"{source} has no checkpoint{f' that matches {pattern!r}' if pattern else ''}; it has {listed or 'none'}"
        )
    names.sort(key=lambda name: (name == LAST, naturally(name)))
    return [(name, known[name]) for name in names]


def _on_hub(source: str | Path) -> Mapping[str, str | Path]:
    names = revisions(source) if isinstance(source, str) else None
    if names is None:
        open_source(source)  # what is wrong with it, if anything is
        raise InvalidInput(f"{source} is one checkpoint; give several, a folder of them, or org/name on the Hub")
    return names


def _in_folder(folder: Path) -> Mapping[str, str | Path]:
    """Return the model folders of a folder; where it has none, its files of weights."""
    items = list(folder.iterdir())
    models = {item.name: item for item in items if any((item / name).is_file() for name in WEIGHTS)}
    if not models and any((folder / name).is_file() for name in WEIGHTS):
        hint = f"; a training's history is measured by: darkvocab evolve {folder}" if (folder / FILE).is_file() else ""
        raise InvalidInput(f"{folder} is one model folder; give several, or the folder that they lie in{hint}")
    return models or {item.name: item for item in items if item.suffix in (*READERS, ".gguf") and item.is_file()}
