"""Write a tensor row by row into a safetensors file that can be loaded at any moment."""

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptFile, InvalidInput
from ..landing import refuse_write
from ..sources.safetensors import read_metadata

DTYPES = {"bfloat16": ("BF16", 2), "float16": ("F16", 2), "float32": ("F32", 4), "float64": ("F64", 8)}
DIGITS = 15  # of the number of rows in the header, which is overwritten in place
ROOM = 16  # rows that a recording of unknown length has room for at first; doubled whenever it is full


class Recording(AbstractContextManager["Recording"]):
    """A file of `n_rows` rows of this shape under one key, written in order; without `n_rows` it grows as needed.

    The file has its whole size from the start, sparse where the file system can, so that safetensors loads it at any
    moment. Its metadata count the rows `recorded`, each after it was written: a process that dies loses none of them.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        n_rows: int | None,
        shape: tuple[int, ...],
        dtype: str,
        metadata: dict[str, Any] | None = None,
        *,
        resume_at: int = 0,
    ) -> None:
        """Create the file (raises as `refuse_write`), or append after its first `resume_at` rows (else CorruptFile)."""
        self.path = path
        self.key = key
        self.shape = shape
        self.name, size = DTYPES[dtype]
        self.row_bytes = size * int(np.prod(shape))
        self._metadata = {name: str(value) for name, value in (metadata or {}).items()}
        self.n = resume_at
        self._grows = n_rows is None
        self._start = len(self._header(10**12)) if self._grows else 0
        try:
            mode = os.O_RDWR | getattr(os, "O_BINARY", 0)  # without it Windows writes other line ends
            self._file = os.open(path, mode | (0 if resume_at else os.O_CREAT | os.O_TRUNC), 0o666)
        except OSError as error:
            if resume_at:
                raise CorruptFile(f"{path}: the recording is gone ({error.strerror}); start the run anew") from None
            raise refuse_write(path, error) from None
        if n_rows is None:
            n_rows = (os.fstat(self._file).st_size - self._start) // self.row_bytes if resume_at else ROOM
        self.n_rows = n_rows
        header = self._header(n_rows, self._start)
        self._start = len(header)
        self._count_at = header.index(b'"recorded": "') + len(b'"recorded": "')
        if resume_at:
            self._check(header, resume_at)
            self._count()
        else:
            self._write(header, 0, self._size)

    @property
    def _size(self) -> int:
        return self._start + self.n_rows * self.row_bytes

    def _header(self, n_rows: int, at_least: int = 0) -> bytes:
        """Return the first bytes of a safetensors file of so many rows, none of them recorded."""
        shape = [n_rows, *self.shape]
        value = {
            "__metadata__": {"recorded": f"{0:0{DIGITS}d}", **self._metadata},
            self.key: {"dtype": self.name, "shape": shape, "data_offsets": [0, n_rows * self.row_bytes]},
        }
        text = json.dumps(value).encode()
        text += b" " * max(-len(text) % 8, at_least - 8 - len(text))
        return len(text).to_bytes(8, "little") + text

    def _check(self, header: bytes, resume_at: int) -> None:
        os.lseek(self._file, 0, os.SEEK_SET)  # Windows has no pread
        written = bytearray(os.read(self._file, len(header)))
        digits = bytes(written[self._count_at : self._count_at + DIGITS])
        written[self._count_at : self._count_at + DIGITS] = b"0" * DIGITS
        if bytes(written) != header or os.fstat(self._file).st_size != self._size:
            raise CorruptFile(f"{self.path}: not the recording of this run; move it away and start the run anew")
        if not digits.isdigit() or int(digits) < resume_at:
            raise CorruptFile(f"{self.path}: holds fewer than the {resume_at:,} rows of the checkpoint")

    def _write(self, content: bytes | memoryview, at: int, size: int | None = None) -> None:
        """Write content at an offset and, where given, set the size of the file."""
        try:
            while content:
                os.lseek(self._file, at, os.SEEK_SET)
                written = os.write(self._file, content)
                content, at = content[written:], at + written
            if size is not None:
                os.ftruncate(self._file, size)
        except OSError as error:
            raise refuse_write(self.path, error) from None

    def _count(self) -> None:
        self._write(f"{self.n:0{DIGITS}d}".encode(), self._count_at)

    def extend(self, rows: np.ndarray) -> None:
        """Record rows [n, ...], in the dtype of the file or as its bit patterns."""
        if self._grows and self.n + len(rows) > self.n_rows:
            self._set_n_rows(max(2 * self.n_rows, self.n + len(rows)))
        content = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
        if content.size != len(rows) * self.row_bytes or self.n + len(rows) > self.n_rows:
            size = content.size // max(1, len(rows))
            raise InvalidInput(f"{self.path}: no room for a row of {size:,} bytes behind {self.n:,} rows")
        self._write(content.data, self._start + self.n * self.row_bytes)
        self.n += len(rows)
        self._count()

    def sync(self) -> None:
        """Flush what is recorded to disk."""
        os.fsync(self._file)

    def shorten(self) -> None:
        """Cut the file after the recorded rows."""
        self._set_n_rows(self.n)

    def _set_n_rows(self, n_rows: int) -> None:
        """Give the file room for so many rows."""
        self.n_rows = n_rows
        self._write(self._header(n_rows, self._start), 0, self._size)
        self._count()

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def recorded(path: Path) -> int:
    """Count the rows of a recording that are written, by its header; 0 where none can be read."""
    try:
        return int(read_metadata(path)["recorded"])
    except (OSError, ValueError, KeyError):
        return 0
