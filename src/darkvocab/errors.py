"""Errors that a user can cause or mend, as one tree; the command line exits with the `exit_code` of each.

Whatever else is raised is a bug. Each class is also the built-in exception of its kind, so that
``except ValueError`` or ``except FileNotFoundError`` work as they do anywhere else.
"""

import errno
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Known = TypeVar("Known")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DarkvocabError(Exception):
    """Base of every error that a user can cause or mend."""

    exit_code = 2


class InvalidInput(DarkvocabError, ValueError):
    """A setting, an option or data that cannot be used as asked."""


class RunFolderRefused(InvalidInput):
    """The folder holds another run or other files, or another process works in it."""


class OutOfMemory(DarkvocabError, MemoryError):
    """The work asked for does not fit in the memory of this machine or device."""


class Missing(DarkvocabError):
    """Something that the work needs is not there or cannot be reached."""

    exit_code = 3


class MissingFile(Missing, FileNotFoundError):
    """A file, a folder, a model or a revision does not exist."""


class AccessRefused(Missing, PermissionError):
    """A file or a gated model may not be read with these rights."""


class Unreachable(Missing, ConnectionError):
    """A server does not answer, or answers what cannot be used."""


class NoScheduler(Unreachable):
    """No Dask scheduler answers."""


class MissingExtra(Missing, ImportError):
    """An optional dependency is not installed; the message has the command that installs it."""


class OtherVersion(Missing, ImportError):
    """A worker lacks darkvocab, or has another version of it, of numpy or of numba."""


class NoEmbedding(Missing, LookupError):
    """No tensor of a source is, by name or by shape, plainly its embedding matrix."""


class CorruptFile(DarkvocabError, ValueError):
    """A file that contradicts itself or its format: truncated, overlapping, unknown dtype, not a matrix of numbers."""

    exit_code = 4


class NoResult(DarkvocabError, ArithmeticError):
    """The work was done and has a negative result."""

    exit_code = 1


class Diverged(NoResult):
    """The loss or the gradient norm of a training is NaN or infinite."""


class NoFit(NoResult):
    """No sigma explains a target."""


class Stopped(DarkvocabError):
    """The work ended before its end; what has landed is kept, and the same run with --resume goes on."""

    exit_code = 130


class EngineLost(Stopped, ConnectionError):
    """The scheduler or the workers went away before the tasks were done."""


class WorkerDied(Stopped, ChildProcessError):
    """Every worker process that took this task died."""


class DiskFull(Stopped, OSError):
    """No space was left to land a file; what had landed before is whole."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()


def one_of(value: Any, name: str, known: Collection[Known]) -> Known:
    """Return a value that is one of those known, or raise `InvalidInput`, which calls it an unknown `name`."""
    if value not in known:
        raise InvalidInput(f"unknown {name} {value!r}; choose one of {', '.join(map(str, known))}")
    return value


def at_least(least: int, **values: float) -> None:
    """Raise `InvalidInput`, which names it, for a value that is below this."""
    for name, value in values.items():
        if value < least:
            raise InvalidInput(f"{name} must be >= {least}, got {value}")


def of_the_machine(error: BaseException) -> DarkvocabError | None:
    """Return the error of the tree for what the operating system refuses, or None where that is not what happened.

    Covers a full disk or quota, memory that is not there, and a file that the system does not open.
    """
    if isinstance(error, MemoryError):
        return OutOfMemory(f"this needs more memory than there is ({error})")
    if not isinstance(error, OSError):
        return None
    if error.errno in FULL:  # numba keeps what it compiles, and the Hub's cache what it reads
        return DiskFull(
            error.errno,
            f"no space left to write ({error}); set NUMBA_CACHE_DIR (compiled kernels) or HF_HOME (what is read from "
            "the Hub) to where there is some",
        )
    if error.filename and isinstance(error, PermissionError):
        return AccessRefused(f"{error.filename}: {error.strerror}")
    return MissingFile(f"{error.filename}: {error.strerror}") if error.filename else None


@contextmanager
def machine_errors() -> Iterator[None]:
    """Raise what the operating system refuses as an error of the tree; a decorator, too."""
    try:
        yield
    except (OSError, MemoryError) as error:
        known = None if isinstance(error, DarkvocabError) else of_the_machine(error)
        if known is None:
            raise
        raise known from None
