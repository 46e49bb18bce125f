"""Typed rows and the run folder: what an experiment leaves behind, landed whole, resumable to the same bytes."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Generic, NamedTuple, NewType, TypeVar

from ..errors import CorruptFile, InvalidInput, MissingFile
from ..text import printable
from .folder import Folder, fixed, landing, read_manifest, write_whole

if TYPE_CHECKING:
    import polars as pl

# Its number, or the first and last of those merged in it; a hash of the run, these numbers and its bytes.
PART = re.compile(r"part-(\d{6,})(?:-(\d{6,}))?-[0-9a-f]{16}\.parquet")
MERGED_PARTS, MERGED_RECORDS = 64, 1 << 18  # at most these are merged into one file while a run goes on
ROW_GROUP = 1 << 16  # records of a row group, and of what is written or read of the final files at a time
EXPECTED = "expected.parquet"  # of a sweep: its census in closed form, along sigma
CURVES = "curves.parquet"  # of replicas: the way to their records
PLAIN_CSV = 250_000  # with more records the CSV is compressed: a million would take 300 MB
Row = TypeVar("Row")
Unsigned = NewType("Unsigned", int)  # a column of integers from 0 to 2**64 - 1, as seeds are


def csv_text(text: str) -> str:
    """Text that a spreadsheet shows and does not execute: control characters escaped, no formula at the start."""
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def csv_bytes(frame: pl.DataFrame, *, header: bool = True) -> bytes:
    """A frame as CSV: shortest floats that read back the same, missing values empty, texts made harmless."""
    import polars as pl

    for name in (name for name, dtype in frame.schema.items() if dtype == pl.String):
        unsafe = {text: safe for text in frame[name].unique().drop_nulls() if (safe := csv_text(text)) != text}
        frame = frame.with_columns(frame[name].replace(unsafe))
    return frame.write_csv(include_header=header).encode("utf-8")


def _dtype(annotation: Any) -> Any:
    import polars as pl

    if isinstance(annotation, types.UnionType):
        annotation = next(kind for kind in typing.get_args(annotation) if kind is not types.NoneType)
    return {
        int: pl.Int64,
        Unsigned: pl.UInt64,
        float: pl.Float64,
        str: pl.String,
        bool: pl.Boolean,
        tuple[int, ...]: pl.List(pl.Int64),
    }[annotation]


def _schema(row: type) -> dict[str, Any]:
    return {name: _dtype(kind) for name, kind in typing.get_type_hints(row).items()}


def frame_of(row: type[Row], records: Sequence[Row]) -> pl.DataFrame:
    """Records of one type as a polars frame; columns are the fields, in their order."""
    import polars as pl

    schema = _schema(row)
    return pl.DataFrame({name: list(map(attrgetter(name), records)) for name in schema}, schema=schema)


def _write_parquet(frames: Iterable[pl.DataFrame], schema: dict[str, Any], file: IO[bytes]) -> None:
    """Frames as one Parquet file, a few of them in memory at a time.

    Row groups have a fixed number of records, so that the bytes depend neither on how the records are cut into frames
    nor on the number of threads.
    """
    import polars as pl
    from polars.io.plugins import register_io_source

    try:
        # All columns and rows are asked for, so that what else polars passes has nothing to say.
        register_io_source(lambda *_: iter(frames), schema=schema).sink_parquet(
            file, compression="zstd", row_group_size=ROW_GROUP, maintain_order=True
        )
    except pl.exceptions.PolarsError as error:
        if found := re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]", str(error)):
            number = int(found[1] or found[2])
            raise OSError(number, os.strerror(number)) from None
        raise


def write_frames(path: Path, row: type, frames: Iterable[pl.DataFrame]) -> None:
    """Write frames of records of one type as Parquet, whole or not at all; raises as `landing`."""
    with landing(path) as file:
        _write_parquet(frames, _schema(row), file)


def read_records_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run of records; raises as `read_manifest`."""
    manifest = read_manifest(folder)
    if manifest.get("experiment") == "train":
        raise MissingFile(f"{folder} holds a training, which has a recording and no records")
    for key in ("n_records", "records_per_part"):
        if not isinstance(manifest.get(key), int) or manifest[key] < 1:
            raise CorruptFile(f"{folder / 'manifest.json'}: not a manifest of records ({key} is no positive number)")
    return manifest


def csv_path(folder: str | Path, manifest: dict[str, Any]) -> Path:
    """Where a run has its records as CSV."""
    return Path(folder) / ("records.csv" if manifest["n_records"] <= PLAIN_CSV else "records.csv.gz")


def read_records(folder: str | Path) -> pl.DataFrame:
    """All records of a finished run.

    Raises
    ------
    MissingFile
        No run there, or one that is not finished.
    CorruptFile
        A manifest or records that cannot be read.
    """
    import polars as pl

    folder = Path(folder)
    status = read_manifest(folder)["status"]
    path = folder / "records.parquet"
    if status != "complete" or not path.is_file():
        raise MissingFile(f"{folder} holds a run that is {status}; finish it with --resume first")
    with _reading(path), path.open("rb") as file:
        return pl.read_parquet(file)


class Part(NamedTuple):
    """A file of consecutive records: a part, or a block of them merged into one."""

    first: int
    last: int
    path: Path


class Parts:
    """The landed parts of a run. Which are there, their names say; what they hold is checked when it is read.

    A part has `records_per_part` records, the last one what is left. Aligned blocks of `block` parts are merged.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder / "records"
        self.n_records, self.size = manifest["n_records"], manifest["records_per_part"]
        self.n_parts = -(-self.n_records // self.size)
        self.block = max(1, min(MERGED_PARTS, MERGED_RECORDS // self.size))
        self._identity = json.dumps(fixed(manifest), sort_keys=True).encode()
        names = sorted(os.listdir(self.folder)) if self.folder.is_dir() else []  # noqa: PTH208
        found = [part for name in names if (part := self._named(name))]
        merged = [part for part in found if part.first < part.last]
        blocks = {number: part for part in merged for number in range(part.first, part.last + 1)}
        single = [part for part in found if part.first == part.last]
        self.landed: dict[int, Part] = {part.first: part for part in single} | blocks  # of each number
        # In a merged one already: the process ended between its landing and their deletion.
        self.covered = [part for part in single if part.first in blocks]

    def _named(self, name: str) -> Part | None:
        """The part of this name, if it is one that this run would have written."""
        if not (named := PART.fullmatch(name)):
            return None
        first, last = int(named[1]), int(named[2] or named[1])
        aligned = named[2] is None or (first % self.block == 0 and last == first + self.block - 1 > first)
        return Part(first, last, self.folder / name) if aligned and last < self.n_parts else None

    def __iter__(self) -> Iterator[Part]:
        """What has landed, in order."""
        for number in sorted(self.landed):
            if self.landed[number].first == number:
                yield self.landed[number]

    def n_records_of(self, part: Part) -> int:
        return min((part.last + 1) * self.size, self.n_records) - part.first * self.size

    @property
    def n_landed(self) -> int:
        """Records that have landed."""
        return sum(self.n_records_of(part) for part in self)

    def _seal(self, span: str, content: bytes) -> str:
        """Hash of the run, the part's numbers and its bytes: a part whose name does not bear it is not parsed."""
        return hashlib.sha256(self._identity + f"\n{span}\n".encode() + content).hexdigest()[:16]

    def read(self, part: Part) -> pl.DataFrame:
        """Records of a part.

        Raises
        ------
        CorruptFile
            Not what this run would have written.
        """
        import polars as pl

        try:
            content = part.path.read_bytes()
        except OSError as error:
            raise CorruptFile(f"{part.path}: cannot be read ({error.strerror}); delete it and --resume") from None
        span, _, seal = part.path.stem.removeprefix("part-").rpartition("-")
        if seal != self._seal(span, content):
            raise CorruptFile(f"{part.path}: does not hold what this run wrote; delete it and --resume")
        return pl.read_parquet(io.BytesIO(content))

    def land(self, first: int, last: int, frame: pl.DataFrame) -> None:
        """Write parts `first` to `last` as one file."""
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", row_group_size=ROW_GROUP)
        span = f"{first:06d}" if first == last else f"{first:06d}-{last:06d}"
        part = Part(first, last, self.folder / f"part-{span}-{self._seal(span, buffer.getvalue())}.parquet")
        write_whole(part.path, buffer.getvalue())
        self.landed.update(dict.fromkeys(range(first, last + 1), part))

    def merge(self, first: int) -> None:
        """Merge the block that starts with part `first` into one file, if all of it has landed in several."""
        import polars as pl

        numbers = range(first, first + self.block)
        if self.block == 1 or not all(number in self.landed for number in numbers):
            return
        parts = [self.landed[number] for number in numbers]
        if parts[0].first == parts[0].last:
            self.land(first, numbers[-1], pl.concat([self.read(part) for part in parts], rechunk=True))
            self._delete(parts)

    def heal(self) -> None:
        """Delete parts that a merged one covers, once they and it are seen to be ours and whole.

        Raises
        ------
        CorruptFile
            One is not; nothing is deleted.
        """
        for part in (*self.covered, *{self.landed[part.first] for part in self.covered}):
            self.read(part)
        if self.covered:
            self._delete(self.covered)

    def _delete(self, parts: list[Part]) -> None:
        if os.name == "posix":  # a power cut must not undo the renaming of the merged file and keep this
            folder = os.open(self.folder, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        for part in parts:
            part.path.unlink()


class RunFolder(Folder, Generic[Row]):
    """A folder that one process at a time fills with records, in numbered parts.

    `manifest.json`, `records/part-*.parquet`; at the end `records.parquet` and `records.csv`. The manifest has no times
    and no machine in it: a run that was killed and resumed ends with the bytes of one that was not. No more than
    2**18 records are in memory at a time, or one part where that is more.
    """

    def __init__(
        self,
        path: str | Path,
        row: type[Row],
        manifest: dict[str, Any],
        *,
        records_per_part: int,
        resume: bool = False,
    ) -> None:
        """Take the folder for this run, or for its continuation; how many records it will have, the manifest says.

        Raises
        ------
        RunFolderRefused, CorruptFile
            As `Folder`.
        """
        self.row = row
        self._last_read: tuple[Part, pl.DataFrame] | None = None
        super().__init__(path, {**manifest, "records_per_part": records_per_part}, resume=resume)

    def _prepare(self) -> None:
        (self.path / "records").mkdir(exist_ok=True)
        self._parts = Parts(self.path, self.manifest)
        self._parts.heal()

    @property
    def is_whole(self) -> bool:
        """Whether the run is complete and its merged records are there."""
        merged = (self.path / "records.parquet", csv_path(self.path, self.manifest))
        return self.manifest["status"] == "complete" and all(path.is_file() for path in merged)

    @property
    def n_landed(self) -> int:
        """Records that have landed."""
        return self._parts.n_landed

    def missing(self) -> list[int]:
        """Numbers of the parts that have not landed."""
        return [number for number in range(self._parts.n_parts) if number not in self._parts.landed]

    def land(self, number: int, records: Sequence[Row]) -> None:
        """Write one part."""
        self.land_frame(number, frame_of(self.row, records))

    def land_frame(self, number: int, frame: pl.DataFrame) -> None:
        """Write one part, and merge the block that it completes."""
        expected = self._parts.n_records_of(Part(number, number, self.path))
        if len(frame) != expected:
            raise InvalidInput(f"part {number} must have {expected:,} records, got {len(frame):,}")
        self._parts.land(number, number, frame)
        self._parts.merge(number - number % self._parts.block)

    def read(self, number: int) -> list[Row]:
        """Records of a landed part.

        Raises
        ------
        CorruptFile
            Not the part that this run would have written.
        """
        part = self._parts.landed[number]
        if self._last_read is None or self._last_read[0] != part:  # a merged one is asked for many times in a row
            self._last_read = part, self._parts.read(part)
        size = self._parts.size
        records = self._last_read[1].slice((number - part.first) * size, size)
        return [self.row(**values) for values in records.iter_rows(named=True)]

    def finish(self) -> None:
        """Write `records.parquet` and the CSV from the parts, and call the run complete.

        Raises
        ------
        CorruptFile
            A part that is not this run's, or another file among them.
        """
        ours = {part.path.name for part in self._parts}
        foreign = sorted({item.name for item in self._parts.folder.iterdir()} - ours)
        if foreign:
            raise CorruptFile(f"{self._parts.folder} holds {', '.join(foreign[:4])}, no part of this run; move it away")
        for first in range(0, self._parts.n_parts, self._parts.block):
            self._parts.merge(first)  # where an interruption came before
        with landing(self.path / "records.parquet") as file:
            _write_parquet(self._frames(), _schema(self.row), file)
        path = csv_path(self.path, self.manifest)
        with landing(path) as file:
            # Neither a time nor a name in its header.
            zipped = gzip.GzipFile("", "wb", 6, file, mtime=0) if path.suffix == ".gz" else contextlib.nullcontext(file)
            with zipped as text:
                for number, frame in enumerate(self._frames()):
                    text.write(csv_bytes(frame, header=number == 0))
        self.set_status("complete")

    def _frames(self) -> Iterator[pl.DataFrame]:
        """All records. By now the files are the same whatever came between, and so are the frames."""
        for part in self._parts:
            yield from self._parts.read(part).iter_slices(ROW_GROUP)


class Records:
    """The records of a run, finished or not, as many as had landed when this was made.

    Takes no lock and writes nothing: the run may be going on. Every part's seal is checked whenever it is read.
    """

    def __init__(self, folder: str | Path) -> None:
        import polars as pl

        folder = Path(folder)
        self.manifest = read_records_manifest(folder)
        self._parts = Parts(folder, self.manifest)
        self._landed = list(self._parts)
        self._path = folder / "records.parquet"
        self._file: pl.LazyFrame | None = None
        self.n_landed = sum(map(self._parts.n_records_of, self._landed))
        self.schema: dict[str, pl.DataType] = {}
        if self.manifest["status"] == "complete" and self._path.is_file():
            with _reading(self._path):
                self._file = pl.scan_parquet(_nameable(self._path), glob=False, hive_partitioning=False)
                self.schema = dict(self._file.collect_schema())
                self.n_landed = self._file.select(pl.len()).collect().item()
            if self.n_landed != self.manifest["n_records"]:
                raise CorruptFile(f"{self._path}: holds {self.n_landed:,} records, not those of a finished run")
        elif self._landed:
            self.schema = dict(self._read(self._landed[0]).schema)

    def frames(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """Records in order, at most 2**18 at a time (or one part, where that is more).

        Raises
        ------
        CorruptFile
            A part that is not this run's, or records that cannot be read.
        """
        asked = list(self.schema) if columns is None else list(columns)
        if self._file is None:
            yield from (self._read(part).select(asked) for part in self._landed)
            return
        for first in range(0, self.n_landed, ROW_GROUP):
            with _reading(self._path):
                frame = self._file.select(asked).slice(first, ROW_GROUP).collect()
            yield frame

    def __len__(self) -> int:
        return self.n_landed

    def __getitem__(self, name: str) -> pl.Series:
        """One column of all the records that had landed, as of a frame in memory."""
        import polars as pl

        frames = [pl.DataFrame(schema={name: self.schema[name]}), *self.frames([name])]
        return pl.concat(frames, rechunk=True)[name]

    def _read(self, part: Part) -> pl.DataFrame:
        try:
            return self._parts.read(part)
        except CorruptFile:
            now = Parts(self._path.parent, self.manifest).landed.get(part.first, part)
            if part.path.exists() or now == part:
                raise
            # The run goes on, and has merged it with others.
            first = (part.first - now.first) * self._parts.size
            return self._parts.read(now).slice(first, self._parts.n_records_of(part))


def _nameable(path: Path) -> Path | IO[bytes]:
    """The path; or what it holds, where its name is not UTF-8 and polars cannot spell it."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return io.BytesIO(path.read_bytes())
    return path


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise CorruptFile(f"{path}: not the records of a run ({error})") from None


def scan_records(folder: str | Path) -> Records:
    """The records of a run, finished or not, to be read piece by piece.

    Raises
    ------
    MissingFile
        No run there.
    CorruptFile
        A manifest or records that cannot be read.
    """
    return Records(folder)
