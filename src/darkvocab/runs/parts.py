"""The parts of a run: files of consecutive records, each landed whole and sealed with a hash of its run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CorruptFile, InvalidInput
from ..landing import write_whole
from .folder import fixed

if TYPE_CHECKING:
    import polars as pl

# Its number, and a hash of the run, this number and its bytes; earlier versions merged parts, the first and the last
# of which are named.
NAME = re.compile(r"part-(\d{6,})(?:-(\d{6,}))?-[0-9a-f]{16}\.parquet")
MERGED_PARTS = 64  # that earlier versions merged into one file at most
MERGED_RECORDS = 1 << 18
ROW_GROUP = 1 << 16  # records of a row group, and of what is written or read of the final files at a time


class Part(NamedTuple):
    """A file of consecutive records: a part, or several that an earlier version merged."""

    first: int
    last: int
    path: Path


class Parts:
    """The landed parts of a run, listed by their names; the content of one is checked when it is read.

    A part has `records_per_part` records, the last one what is left.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        """List the parts of a run folder; CorruptFile where its manifest is not of records."""
        for key in ("n_records", "records_per_part"):
            if not isinstance(manifest.get(key), int) or manifest[key] < 1:
                raise CorruptFile(
                    f"{folder / 'manifest.json'}: not a manifest of records ({key} is no positive number)"
                )
        self.folder = folder / "records"
        self.n_records: int = manifest["n_records"]
        self.size: int = manifest["records_per_part"]
        self.n_parts = -(-self.n_records // self.size)
        self._identity = json.dumps(fixed(manifest), sort_keys=True).encode()
        names = sorted(os.listdir(self.folder)) if self.folder.is_dir() else []  # noqa: PTH208 (names, not paths)
        parts = [part for name in names if (part := self._named(name))]
        # An earlier version that was killed may have left parts beside the file that they were merged in.
        self._landed = {
            number: part
            for part in sorted(parts, key=lambda part: part.last - part.first)
            for number in range(part.first, part.last + 1)
        }
        self._merged = {part.path.name for part in parts if part.last - part.first < self._span_of(part.first)}

    def _named(self, name: str) -> Part | None:
        """Return the part of this name, if it is one that this run would have written."""
        if not (match := NAME.fullmatch(name)):
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        block = min(MERGED_PARTS, MERGED_RECORDS // self.size)
        is_ours = match[2] is None or (block > 1 and first % block == 0 and last == first + block - 1)
        return Part(first, last, self.folder / name) if is_ours and last < self.n_parts else None

    def _span_of(self, number: int) -> int:
        return self._landed[number].last - self._landed[number].first

    @property
    def names(self) -> set[str]:
        """Names of the files that are parts of this run."""
        return {part.path.name for part in self} | self._merged

    def missing(self) -> list[int]:
        """Return the numbers of the parts that have not landed."""
        return [number for number in range(self.n_parts) if number not in self._landed]

    def __iter__(self) -> Iterator[Part]:
        """Yield what has landed, in order."""
        for number, part in sorted(self._landed.items()):
            if part.first == number:
                yield part

    def n_records_of(self, part: Part) -> int:
        """Return the number of records that a part has."""
        return min((part.last + 1) * self.size, self.n_records) - part.first * self.size

    @property
    def n_landed(self) -> int:
        """Records that have landed."""
        return sum(self.n_records_of(part) for part in self)

    def _seal(self, span: str, content: bytes) -> str:
        """Hash the run, the part's numbers and its bytes: a part whose name does not bear it is not parsed."""
        return hashlib.sha256(self._identity + f"\n{span}\n".encode() + content).hexdigest()[:16]

    def read(self, part: Part) -> pl.DataFrame:
        """Read the records of a part; CorruptFile where it is not what this run would have written."""
        import polars as pl

        try:
            content = part.path.read_bytes()
        except OSError as error:
            raise CorruptFile(f"{part.path}: cannot be read ({error.strerror}); delete it and --resume") from None
        span, _, seal = part.path.stem.removeprefix("part-").rpartition("-")
        if seal != self._seal(span, content):
            raise CorruptFile(f"{part.path}: does not hold what this run wrote; delete it and --resume")
        return pl.read_parquet(io.BytesIO(content))

    def read_number(self, number: int) -> pl.DataFrame:
        """Read the records of the landed part of this number; raises as `read`."""
        part = self._landed[number]
        return self.read(part).slice((number - part.first) * self.size, self.size)

    def land(self, number: int, frame: pl.DataFrame) -> None:
        """Write the part of this number, which must have all of its records (else InvalidInput)."""
        expected = self.n_records_of(Part(number, number, self.folder))
        if len(frame) != expected:
            raise InvalidInput(f"part {number} must have {expected:,} records, got {len(frame):,}")
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", row_group_size=ROW_GROUP)
        span = f"{number:06d}"
        part = Part(number, number, self.folder / f"part-{span}-{self._seal(span, buffer.getvalue())}.parquet")
        write_whole(part.path, buffer.getvalue())
        self._landed[number] = part
