"""A file of which some pieces have arrived, with holes where the others belong, beside a record of those pieces.

Any process may write into it: all write the same bytes at the same places. A piece is in the record only when the disk
has it, so that a machine that stops leaves no zeros that pass for rows.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Span = tuple[int, int]  # bytes from, to


def merged(spans: Iterable[Span]) -> list[Span]:
    """Sort spans and join those that touch: the same bytes, each once.

    Examples
    --------
    >>> merged([(6, 9), (0, 2), (2, 4), (8, 10), (5, 5)])
    [(0, 4), (6, 10)]
    """
    joined: list[Span] = []
    for begin, end in sorted(span for span in spans if span[0] < span[1]):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def without(wanted: Span, held: Iterable[Span]) -> list[Span]:
    """Return the spans of some bytes that are not held; `held` as `merged` gives it.

    Examples
    --------
    >>> without((0, 10), [(0, 2), (4, 6), (9, 12)])
    [(2, 4), (6, 9)]
    """
    at, end = wanted
    missing = []
    for first, last in held:
        if last > at and first < end:
            if first > at:
                missing.append((at, first))
            at = last
    if at < end:
        missing.append((at, end))
    return missing


def write_record(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; an OSError names the file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.write_text(json.dumps(value), "utf-8")
    temporary.replace(path)


class Pieces:
    """The file `path` of `size` bytes, as far as it has arrived; one of another size is begun anew.

    Raises
    ------
    OSError
        It cannot be made.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self._record = path.with_name(f"{path.name}.json")
        self._lock = threading.Lock()
        self._held = self._recorded()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # not emptied: another process may be writing into it
        try:
            if os.fstat(descriptor).st_size != size:
                self._held = []
                self._record.unlink(missing_ok=True)
                os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def _recorded(self) -> list[Span]:
        """Read the record; empty where it says what cannot be true."""
        try:
            spans = [(begin, end) for begin, end in json.loads(self._record.read_text("utf-8"))]
            true = all(type(n) is int and 0 <= n <= self.size for span in spans for n in span)
        except (OSError, ValueError, TypeError, RecursionError):
            return []
        return merged(spans) if true else []

    def missing(self, begin: int, end: int) -> list[Span]:
        """Return the spans of these bytes that have not arrived."""
        return without((begin, end), self._held)

    def add(self, begin: int, end: int) -> None:
        """Record that these bytes were written.

        Raises
        ------
        OSError
            The disk is full, or gone.
        """
        if begin >= end:
            return
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with self._lock:
            self._held = merged([*self._held, *self._recorded(), (begin, end)])  # another process may have added some
            write_record(self._record, self._held)

    def forget(self) -> None:
        """Take nothing as arrived any more."""
        with self._lock:
            self._record.unlink(missing_ok=True)
            self._held = []
