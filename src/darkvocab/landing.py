"""Land files whole or not at all: a temporary beside the place is written, synced and then renamed."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from .errors import FULL, DarkvocabError, DiskFull, InvalidInput

COPY_BYTES = 1 << 26  # that the system is asked to copy at a time
READ_BYTES = 1 << 22  # that we read at a time, where the system does not copy


def refuse_write(path: Path, error: OSError) -> DiskFull | InvalidInput:
    """Return the error for a file that cannot be written."""
    if error.errno in FULL:
        return DiskFull(error.errno, f"no space left to write {path}")
    return InvalidInput(f"cannot write {path}: {error.strerror}; choose another place")


@contextlib.contextmanager
def landing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write, which exists whole at the end of the `with` block, or not at all.

    A pipe or a device, which has no name to take over, is written to as it stands. Raises DiskFull (the disk, the quota
    or the file size limit), and InvalidInput where the place cannot be written to.
    """
    beside = _beside(path)
    try:
        stream = path.exists() and not path.is_file() and not path.is_dir()
        with (path if stream else beside).open("wb") as file:
            yield file
            file.flush()
            if not stream:
                os.fsync(file.fileno())
        if not stream:
            beside.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        if isinstance(error, DarkvocabError) or not isinstance(error, OSError):  # of what is written, not of the place
            raise
        raise refuse_write(path, error) from None


def _beside(path: Path) -> Path:
    if "\0" in path.name:
        raise InvalidInput(f"cannot write {str(path)!r}: no name of a file; choose another place")
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def check_place(out: str | Path, source: str | Path) -> None:
    """Raise InvalidInput where `out` is a file of the source, which is not to be written over."""
    out = Path(out)
    read = (Path(source), *Path(source).glob("*"))
    if out.exists() and any(out.samefile(file) for file in read if file.exists()):
        raise InvalidInput(f"{out} is part of the source; choose another place to write to")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; raises as `landing`."""
    with landing(path) as file:
        file.write(content)


def json_bytes(value: Any, indent: int | None = 2) -> bytes:
    """Return a value as JSON with a line end; NaN and infinity, which JSON does not have, are a ValueError."""
    return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all; raises as `landing`."""
    write_whole(path, json_bytes(value))


@contextlib.contextmanager
def landing_folder(path: Path) -> Iterator[Path]:
    """Make a folder to fill, which exists whole at the end of the `with` block, or not at all.

    Raises as `landing`, and InvalidInput where the place is taken.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 (gives `.` a name, and leaves links what they are)
    beside = _beside(path)
    try:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise InvalidInput(f"{path} is there already; choose another place")
        beside.mkdir()
        yield beside
        if path.exists():
            path.rmdir()
        beside.rename(path)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, DarkvocabError) or not isinstance(error, OSError):  # of what is written, not of the place
            raise
        raise refuse_write(path, error) from None


def copy_file(source: Path, target: Path, progress: Callable[[int], None] | None = None) -> None:
    """Copy the content of a file; file systems that can do so let the two share blocks until one is written to.

    `progress` is called with the number of bytes of every piece; what the system refuses is its OSError.
    """
    advance = progress or (lambda n: None)
    with source.open("rb") as file, target.open("wb") as copy:
        done = 0
        while n := _copy_by_system(file.fileno(), copy.fileno(), done):
            done += n
            advance(n)
        file.seek(done)
        copy.seek(done)
        while block := file.read(READ_BYTES):
            advance(copy.write(block))
        copy.flush()
        os.fsync(copy.fileno())


def _copy_by_system(source: int, target: int, at: int) -> int:
    """Copy a piece without reading it here; return its number of bytes, 0 at the end and where the system does not."""
    try:
        return os.copy_file_range(source, target, COPY_BYTES, at, at)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        return 0  # not on this system, or not between these two
