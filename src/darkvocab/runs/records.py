"""Write and read the records of an experiment in its run folder, which can be resumed to the same bytes."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import make_dataclass
from operator import attrgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Generic, NamedTuple, NewType, TypeVar

from ..errors import CorruptFile, InvalidInput, MissingFile
from ..landing import check_place, landing, write_whole
from ..text import printable
from .folder import REPEATING, Folder, fixed, read_manifest

if TYPE_CHECKING:
    import polars as pl

EXPECTED = "expected.parquet"  # of a sweep: its census in closed form, along sigma
CURVES = "curves.parquet"  # of replicas: their census along the steps
PLAIN_CSV = 250_000  # with more records the CSV is compressed: a million would take 300 MB
# The part's number and a hash of the run, the number and the bytes. Earlier versions merged parts: first and last.
NAME = re.compile(r"part-(\d{6,})(?:-(\d{6,}))?-[0-9a-f]{16}\.parquet")
MERGED_PARTS = 64  # most parts that earlier versions merged into one file
MERGED_RECORDS = 1 << 18
ROW_GROUP = 1 << 16  # records of a row group, which are written or read at a time
WITHOUT_RECORDS = {  # experiments, and what their folders hold instead
    "train": "a training, which has a recording",
    "record": "a recorded training, which evolve takes,",
    "corpus": "counts, which scan --counts takes,",
}
Row = TypeVar("Row")
Unsigned = NewType("Unsigned", int)  # a column of integers from 0 to 2**64 - 1, as seeds are


@contextlib.contextmanager
def reading(path: Path, what: str = "the records of a run") -> Iterator[None]:
    """Turn what is raised where a file is damaged, or is not `what`, into a CorruptFile."""
    import polars as pl

    from_libraries = pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, InvalidInput
    from_content = LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError, RecursionError
    try:
        yield
    except CorruptFile:
        raise
    except (*from_libraries, *from_content) as error:
        reason = str(error) if isinstance(error, from_libraries) else repr(error)
        raise CorruptFile(f"{path}: not {what} ({reason})") from None


def csv_text(text: str) -> str:
    """Return text that no spreadsheet takes for a formula, with control characters escaped."""
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def csv_bytes(frame: pl.DataFrame, *, header: bool = True) -> bytes:
    """Return a frame as CSV: floats read back exactly, missing values are empty, texts as `csv_text`."""
    import polars as pl

    for name in (name for name, dtype in frame.schema.items() if dtype == pl.String):
        unsafe = {text: safe for text in frame[name].unique().drop_nulls() if (safe := csv_text(text)) != text}
        frame = frame.with_columns(frame[name].replace(unsafe))
    return frame.write_csv(include_header=header).encode("utf-8")


def write_csv(path: str | Path, frame: pl.DataFrame, *sources: str | Path) -> None:
    """Write a frame as CSV, but never over one of its sources; raises as `check_place` and `write_whole`."""
    for source in sources:
        check_place(path, source)
    write_whole(Path(path), csv_bytes(frame))


def record_types(file: Path, module: str) -> Iterator[Any]:
    """Make the record types that a TOML file lists, for a module: frozen dataclasses with a field for each column.

    Each column has a Python type and may have an explanation; "shared" stands for columns that several types have.
    """
    tables = tomllib.loads(file.read_text("utf-8"))
    shared = tables.pop("shared", {})
    for name, table in tables.items():
        about = table.pop("about")
        columns: dict[str, list[str]] = {}
        for column, of in table.items():
            columns |= shared[column] if of == "shared" else {column: of}
        fields = [(column, kind) for column, (kind, *_) in columns.items()]
        row = make_dataclass(name, fields, frozen=True, kw_only=True)
        meanings = (f"{column} : {'; '.join(of)}" for column, of in columns.items())
        row.__module__ = module
        row.__doc__ = "\n".join([about, "", "Columns", "-------", *meanings])
        yield row


def _schema(row: type) -> dict[str, Any]:
    import polars as pl

    dtypes: dict[Any, Any] = {int: pl.Int64, float: pl.Float64, str: pl.String, bool: pl.Boolean}
    dtypes |= {Unsigned: pl.UInt64, tuple[int, ...]: pl.List(pl.Int64)}
    dtypes |= {kind | None: dtype for kind, dtype in dtypes.items()}
    return {name: dtypes[kind] for name, kind in typing.get_type_hints(row).items()}


def frame_of(row: type[Row], records: Sequence[Row]) -> pl.DataFrame:
    """Return records of one type as a polars frame; columns are the fields, in their order."""
    return frame_of_columns(row, **{name: list(map(attrgetter(name), records)) for name in typing.get_type_hints(row)})


def frame_of_columns(row: type, /, **columns: Any) -> pl.DataFrame:
    """Return records of one type as a polars frame, from a list or an array of values for each field."""
    import polars as pl

    return pl.DataFrame(columns, schema=_schema(row))


def write_frames(path: Path, row: type, frames: Iterable[pl.DataFrame]) -> None:
    """Write frames of records as Parquet in fixed row groups: bytes do not depend on frames. Raises as `landing`."""
    import polars as pl
    from polars.io.plugins import register_io_source

    # All columns and rows are wanted, so that the arguments that polars passes can be ignored.
    source = register_io_source(lambda *_: iter(frames), schema=_schema(row))
    with landing(path) as file:
        try:
            source.sink_parquet(file, compression="zstd", row_group_size=ROW_GROUP, maintain_order=True)
        except pl.exceptions.PolarsError as error:
            if match := re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]", str(error)):
                number = int(match[1] or match[2])
                raise OSError(number, os.strerror(number)) from None
            raise


def write_table(path: Path, frame: pl.DataFrame, **metadata: str) -> None:
    """Write a frame as Parquet, through memory: polars would hide a full disk. Raises as `landing`."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", metadata=metadata or None)
    write_whole(path, buffer.getvalue())


def csv_path(folder: str | Path, manifest: dict[str, Any]) -> Path:
    """Return the path of the records of a run as CSV."""
    return Path(folder) / ("records.csv" if manifest["n_records"] <= PLAIN_CSV else "records.csv.gz")


def read_records(folder: str | Path) -> pl.DataFrame:
    """Read all records of a run; MissingFile if it has not finished, CorruptFile if it is damaged."""
    import polars as pl

    folder = Path(folder)
    status = read_manifest(folder)["status"]
    path = folder / "records.parquet"
    if status != "complete" or not path.is_file():
        raise MissingFile(f"{folder} holds a run that is {status}; finish it with --resume first")
    with reading(path), path.open("rb") as file:
        return pl.read_parquet(file)


class Part(NamedTuple):
    """A file of consecutive records: a part, or several that an earlier version merged."""

    first: int
    last: int
    path: Path


class Parts:
    """The landed parts of a run, of `records_per_part` records each, the last of the rest; checked when read."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        """List the parts of a run folder; CorruptFile where its manifest is not of records."""
        place = folder / "manifest.json"
        for key in ("n_records", "records_per_part"):
            if not isinstance(manifest.get(key), int) or manifest[key] < 1:
                raise CorruptFile(f"{place}: not a manifest of records ({key} is no positive number)")
        self.folder = folder / "records"
        self.n_records: int = manifest["n_records"]
        self.size: int = manifest["records_per_part"]
        self.n_parts = -(-self.n_records // self.size)
        self._identity = json.dumps(fixed(manifest), sort_keys=True).encode()
        names = sorted(os.listdir(self.folder)) if self.folder.is_dir() else []  # noqa: PTH208 (names, not paths)
        parts = [part for name in names if (part := self._named(name))]
        # An earlier version that was killed may have left parts beside the file that they were merged in.
        parts.sort(key=lambda part: part.last - part.first)
        self._landed = {number: part for part in parts for number in range(part.first, part.last + 1)}
        self._merged = {part.path.name for part in parts if part[:2] != self._landed[part.first][:2]}

    def _named(self, name: str) -> Part | None:
        """Return the part of this name, if it is one that this run would have written."""
        if not (match := NAME.fullmatch(name)):
            return None
        first, last = (int(number) for number in (match[1], match[2] or match[1]))
        block = min(MERGED_PARTS, MERGED_RECORDS // self.size)
        is_ours = match[2] is None or (block > 1 and first % block == 0 and last == first + block - 1)
        return Part(first, last, self.folder / name) if is_ours and last < self.n_parts else None

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
        """Return the number of records of a part."""
        return min((part.last + 1) * self.size, self.n_records) - part.first * self.size

    @property
    def n_landed(self) -> int:
        """Number of records that have landed."""
        return sum(self.n_records_of(part) for part in self)

    def _seal(self, span: str, content: bytes) -> str:
        """Hash the run, the part's numbers and its bytes; only a part with this hash in its name is parsed."""
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


class RunFolder(Folder, Generic[Row]):
    """A folder that one process at a time fills with records, in numbered parts.

    It has `manifest.json`, `records/part-*.parquet`, and at the end `records.parquet` and `records.csv`: the same bytes
    whether or not the run was killed and resumed. One part at a time is in memory.
    """

    adopted = (*REPEATING, "records_per_part")  # the size of parts does not change records

    def __init__(
        self, path: str | Path, row: type[Row], manifest: dict[str, Any], *, records_per_part: int, resume: bool = False
    ) -> None:
        """Take the folder for this run, or continue it with its first `records_per_part`; raises as `Folder`."""
        self.row = row
        super().__init__(path, {**manifest, "records_per_part": records_per_part}, resume=resume)

    def _prepare(self) -> None:
        self.parts = Parts(self.path, self.manifest)
        self.parts.folder.mkdir(exist_ok=True)

    @property
    def is_whole(self) -> bool:
        """True where the run is complete and the files of all its records exist."""
        ends = (self.path / "records.parquet", csv_path(self.path, self.manifest))
        return self.manifest["status"] == "complete" and all(path.is_file() for path in ends)

    def land(self, number: int, records: Sequence[Row]) -> None:
        """Write one part; raises as `Parts.land`."""
        self.parts.land(number, frame_of(self.row, records))

    def read(self, number: int) -> list[Row]:
        """Read the records of a landed part; raises as `Parts.read`."""
        return [self.row(**values) for values in self.parts.read_number(number).iter_rows(named=True)]

    def finish(self) -> None:
        """Write all records as Parquet and CSV, and set the status to complete; CorruptFile for foreign parts."""
        if foreign := sorted({item.name for item in self.parts.folder.iterdir()} - self.parts.names):
            raise CorruptFile(f"{self.parts.folder} holds {', '.join(foreign[:4])}, no part of this run; move it away")
        write_frames(self.path / "records.parquet", self.row, self._frames())
        path = csv_path(self.path, self.manifest)
        with landing(path) as file:
            # Neither a time nor a name in its header.
            zipped = gzip.GzipFile("", "wb", 6, file, mtime=0) if path.suffix == ".gz" else contextlib.nullcontext(file)
            with zipped as text:
                for number, frame in enumerate(self._frames()):
                    text.write(csv_bytes(frame, header=number == 0))
        self.set_status("complete")

    def _frames(self) -> Iterator[pl.DataFrame]:
        for part in self.parts:
            yield from self.parts.read(part).iter_slices(ROW_GROUP)


class Records:
    """The records of a run that had landed when this was made, read in pieces without a lock: it may be going on."""

    def __init__(self, folder: str | Path) -> None:
        """Open the records; MissingFile where there is no run, CorruptFile where it cannot be read."""
        import polars as pl

        folder = Path(folder)
        self.manifest = read_manifest(folder)
        if self.manifest.get("experiment") in WITHOUT_RECORDS:
            raise MissingFile(f"{folder} holds {WITHOUT_RECORDS[self.manifest['experiment']]} and no records")
        self._parts = Parts(folder, self.manifest)
        self._landed = list(self._parts)
        self._path = folder / "records.parquet"
        self._file: pl.LazyFrame | None = None
        self.n_landed = sum(map(self._parts.n_records_of, self._landed))
        self.schema: dict[str, pl.DataType] = {}
        if self.manifest["status"] == "complete" and self._path.is_file():
            with reading(self._path):
                self._file = pl.scan_parquet(_nameable(self._path), glob=False, hive_partitioning=False)
                self.schema = dict(self._file.collect_schema())
                self.n_landed = self._file.select(pl.len()).collect().item()
            if self.n_landed != self.manifest["n_records"]:
                raise CorruptFile(f"{self._path}: holds {self.n_landed:,} records, not those of a finished run")
        elif self._landed:
            self.schema = dict(self._parts.read(self._landed[0]).schema)

    def frames(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """Yield records in order, at most 2**16 or one part at a time; CorruptFile where they cannot be read."""
        columns = list(self.schema) if columns is None else list(columns)
        if self._file is None:
            yield from (self._parts.read(part).select(columns) for part in self._landed)
            return
        for first in range(0, self.n_landed, ROW_GROUP):
            with reading(self._path):
                frame = self._file.select(columns).slice(first, ROW_GROUP).collect()
            yield frame

    def __len__(self) -> int:
        return self.n_landed

    def __getitem__(self, name: str) -> pl.Series:
        """Return one column of all records that had landed."""
        import polars as pl

        frames = [pl.DataFrame(schema={name: self.schema[name]}), *self.frames([name])]
        return pl.concat(frames, rechunk=True)[name]


def _nameable(path: Path) -> Path | IO[bytes]:
    """Return the path, or the content where the path is not UTF-8, as polars needs it."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return io.BytesIO(path.read_bytes())
    return path
