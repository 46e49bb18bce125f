"""A file of which some pieces are here: holes where the others belong, and beside it a record of those that are.

Any process may write into it: all write the same bytes at the same places. A piece gets its line in the record only
when the disk has it, so that a machine that stops leaves no zeros that pass for rows.
"""

import os
import re
from pathlib import Path

Span = tuple[int, int]  # bytes from, to


class Pieces:
    """The file `path` of `size` bytes, as far as it is here; one of another size is begun anew."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._record = path.with_name(f"{path.name}.spans")
        with path.open("ab") as file:  # not emptied: another process may be writing into it
            if file.tell() != size:
                self.forget()
                file.truncate(size)

    def missing(self, begin: int, end: int) -> list[Span]:
        """Return the parts of these bytes that are not here, in order."""
        gaps = []
        for first, last in [*self._spans(), (end, end)]:
            if begin < min(first, end):
                gaps.append((begin, min(first, end)))
            begin = max(begin, last)
        return gaps

    def add(self, begin: int, end: int) -> None:
        """Record that these bytes were written; OSError where the disk is full, or gone."""
        if begin < end:
            with self.path.open("r+b") as file:
                os.fsync(file.fileno())
            with self._record.open("a", encoding="ascii") as record:  # one write, which no other process can split
                record.write(f"{begin} {end}\n")

    def forget(self) -> None:
        """Take nothing for here any more."""
        self._record.unlink(missing_ok=True)

    def _spans(self) -> list[Span]:
        """Return the record in ascending order, without lines that were cut or cannot be true."""
        try:
            text = self._record.read_text("ascii", "replace")
        except OSError:
            return []
        lines = re.findall("^([0-9]{1,19}) ([0-9]{1,19})\n", text, re.MULTILINE)
        return sorted((int(begin), int(end)) for begin, end in lines if int(begin) < int(end) <= self.size)
