"""Refuse to write over what is read."""

from __future__ import annotations

from pathlib import Path

from ..errors import InvalidInput


def check_place(out: str | Path, source: str | Path) -> None:
    """Refuse to write over a file of the source.

    Raises
    ------
    InvalidInput
    """
    out = Path(out)
    read = (Path(source), *Path(source).glob("*"))
    if out.exists() and any(out.samefile(file) for file in read if file.exists()):
        raise InvalidInput(f"{out} is part of the source; choose another place to write to")


def check_folder_apart(out: str | Path, source: str | Path) -> None:
    """Refuse a folder to write to that is the source, in it or around it.

    Raises
    ------
    InvalidInput
    """
    folder = Path(out).resolve()
    taken = Path(source).resolve()
    if folder == taken or taken in folder.parents or folder in taken.parents:
        raise InvalidInput(f"{out} is the source, or in it, or around it; choose another folder to write to")
