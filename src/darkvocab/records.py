"""Typed rows and the run folder: what an experiment leaves behind, landed whole, resumable to the same bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import platform
import re
import types
import typing
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from .matrix import printable
from .sources import CorruptFile

if TYPE_CHECKING:
    import polars as pl

SCHEMA_VERSION = 1
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MANIFEST = {"status": str, "command": str, "parameters": dict, "seed": int, "packages": dict, "inputs": list}
PART = re.compile(r"part-(\d{6,})-[0-9a-f]{16}\.parquet")  # its number; a hash of the run, the number and its bytes
Row = TypeVar("Row")


class RunFolderRefused(ValueError):
    """The folder holds another run or other files, or another process works in it."""


class DiskFull(OSError):
    """No space was left to land a file; what had landed before is whole."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is either there whole or not at all: a temporary beside it, synced, then renamed.

    Raises
    ------
    DiskFull
        The disk, the quota or the file size limit.
    ValueError
        The place cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        if error.errno in FULL:
            raise DiskFull(error.errno, f"no space left to write {path} ({len(content):,} bytes)") from None
        raise ValueError(f"cannot write {path}: {error.strerror}; choose another place") from None


def csv_text(text: str) -> str:
    """Text that a spreadsheet shows and does not execute: control characters escaped, no formula at the start."""
    text = printable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def csv_bytes(frame: pl.DataFrame) -> bytes:
    """A frame as CSV: shortest floats that read back the same, missing values empty, texts made harmless."""
    import polars as pl

    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    safe = frame.with_columns(pl.col(name).map_elements(csv_text, return_dtype=pl.String) for name in texts)
    return safe.write_csv().encode("utf-8")


def _dtype(annotation: Any) -> Any:
    import polars as pl

    if isinstance(annotation, types.UnionType):
        annotation = next(kind for kind in typing.get_args(annotation) if kind is not types.NoneType)
    return {int: pl.Int64, float: pl.Float64, str: pl.String}[annotation]


def _schema(row: type) -> dict[str, Any]:
    return {name: _dtype(kind) for name, kind in typing.get_type_hints(row).items()}


def frame_of(row: type[Row], records: Sequence[Row]) -> pl.DataFrame:
    """Records of one type as a polars frame; columns are the fields, in their order."""
    import polars as pl

    values = [tuple(getattr(record, field.name) for field in dataclasses.fields(row)) for record in records]  # type: ignore[arg-type]
    return pl.DataFrame(values, schema=_schema(row), orient="row")


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, of darkvocab and of the packages that its numbers depend on."""
    named = {name: metadata.version(name) for name in ("darkvocab", "numpy", "numba", "polars", *packages)}
    return {"python": platform.python_version(), **named}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises
    ------
    FileNotFoundError
        The folder holds none.
    CorruptFile
        Not a manifest that this version knows.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no run: it has no manifest.json")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        version = manifest["schema_version"]
        lacking = [key for key, kind in MANIFEST.items() if not isinstance(manifest.get(key), kind)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFile(f"{path}: not a manifest ({error!r})") from None
    if version == SCHEMA_VERSION and lacking:
        raise CorruptFile(f"{path}: not a manifest (no {', '.join(lacking)}, or of another type)")
    if version != SCHEMA_VERSION:
        raise CorruptFile(f"{path}: schema version {manifest['schema_version']}, this darkvocab knows {SCHEMA_VERSION}")
    return manifest


def read_records(folder: str | Path) -> pl.DataFrame:
    """All records of a finished run.

    Raises
    ------
    FileNotFoundError
        No run there, or one that is not finished.
    CorruptFile
        A manifest or records that cannot be read.
    """
    import polars as pl

    folder = Path(folder)
    status = read_manifest(folder)["status"]
    path = folder / "records.parquet"
    if status != "complete" or not path.is_file():
        raise FileNotFoundError(f"{folder} holds a run that is {status}; finish it with --resume first")
    try:
        with path.open("rb") as file:
            return pl.read_parquet(file)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise CorruptFile(f"{path}: not the records of a run ({error})") from None


def _differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
    elif old != new:
        yield f"{at} was {_short(old)}, now {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fixed(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a run and its continuation have in common."""
    return {key: value for key, value in manifest.items() if key not in ("status", "command")}


class RunFolder(Generic[Row]):
    """A folder that one process at a time fills with records, in numbered parts.

    `manifest.json`, `records/part-NNNNNN-HASH.parquet`; at the end `records.parquet` and `records.csv`. The manifest
    has no times and no machine in it: a run that was killed and resumed ends with the bytes of one that was not.
    """

    def __init__(self, path: str | Path, row: type[Row], manifest: dict[str, Any], *, resume: bool = False) -> None:
        """Take the folder for this run, or for its continuation.

        Raises
        ------
        RunFolderRefused
            It is in use; or holds other files, another run, or (without `resume`) this one.
        """
        self.path = Path(path)
        self.row = row
        self.manifest = json.loads(json.dumps({"schema_version": SCHEMA_VERSION, **manifest}))
        self._lock: int | None = None
        self._parts: dict[int, Path] = {}
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderRefused(f"{self.path} is a file; choose another --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderRefused(
                f"cannot make the folder {self.path}: {error.strerror}; choose another --out"
            ) from None
        self._take()
        try:
            self._claim(resume)
        except BaseException:
            self.close()
            raise

    def _take(self) -> None:
        if os.name != "posix":
            return  # the lock is advisory and POSIX only; docs/files.md says so
        import fcntl

        lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise RunFolderRefused(f"{self.path} is in use by another process; wait, or choose another --out") from None
        self._lock = lock

    def _claim(self, resume: bool) -> None:
        if not (self.path / "manifest.json").exists():
            held = sorted(item.name for item in self.path.iterdir() if not item.match(".manifest.json.*.partial"))
            if held:
                raise RunFolderRefused(f"{self.path} holds other files ({', '.join(held[:4])}); choose another --out")
            self.set_status("running")
        else:
            old = read_manifest(self.path)
            differences = list(_differences(_fixed(old), _fixed(self.manifest)))
            if differences:
                raise RunFolderRefused(
                    f"{self.path} holds another run: {'; '.join(differences[:3])}; choose another --out"
                )
            if not resume:
                raise RunFolderRefused(
                    f"{self.path} holds this run already ({old['status']}); --resume goes on with it"
                )
            self.manifest["command"] = old["command"]
            self.set_status(old["status"] if old["status"] == "complete" else "running")
        (self.path / "records").mkdir(exist_ok=True)
        for stale in (*self.path.glob(".*.partial"), *self.path.glob("records/.*.partial")):
            stale.unlink()  # what a killed process was writing
        for path in (self.path / "records").iterdir():
            if named := PART.fullmatch(path.name):
                self._parts[int(named[1])] = path

    @property
    def is_whole(self) -> bool:
        """Whether the run is complete and its merged records are there."""
        merged = (self.path / name for name in ("records.parquet", "records.csv"))
        return self.manifest["status"] == "complete" and all(path.is_file() for path in merged)

    def set_status(self, status: str) -> None:
        """Write the manifest with this status: running, interrupted or complete."""
        self.manifest["status"] = status
        write_whole(self.path / "manifest.json", (json.dumps(self.manifest, indent=2) + "\n").encode())

    def landed(self, number: int) -> bool:
        """Whether this part is there, which means that it is whole."""
        return number in self._parts

    def land(self, number: int, records: Sequence[Row]) -> None:
        """Write one part."""
        content = _parquet(frame_of(self.row, records))
        path = self.path / "records" / f"part-{number:06d}-{self._seal(number, content)}.parquet"
        write_whole(path, content)
        self._parts[number] = path

    def _seal(self, number: int, content: bytes) -> str:
        """Hash of the run, the part's number and its bytes: a part whose name does not bear it is not parsed."""
        return hashlib.sha256(self._identity + f"\n{number}\n".encode() + content).hexdigest()[:16]

    @cached_property
    def _identity(self) -> bytes:
        """The manifest but for what may change, as bytes to hash."""
        return json.dumps(_fixed(self.manifest), sort_keys=True).encode()

    def read(self, number: int) -> list[Row]:
        """Records of a landed part.

        Raises
        ------
        CorruptFile
            Not the part that this run would have written.
        """
        return [self.row(*values) for values in self._frame(number).iter_rows()]

    def _frame(self, number: int) -> pl.DataFrame:
        import polars as pl

        path = self._parts[number]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CorruptFile(f"{path}: cannot be read ({error.strerror}); delete it and --resume") from None
        if path.stem.rpartition("-")[2] != self._seal(number, content):
            raise CorruptFile(f"{path}: does not hold what this run wrote; delete it and --resume")
        return pl.read_parquet(io.BytesIO(content))

    def finish(self, n_parts: int) -> None:
        """Merge the parts into `records.parquet` and `records.csv`, and call the run complete."""
        import polars as pl

        ours = {self._parts[number].name for number in range(n_parts)}
        foreign = sorted({item.name for item in (self.path / "records").iterdir()} - ours)
        if foreign:
            raise CorruptFile(
                f"{self.path / 'records'} holds {', '.join(foreign[:4])}, no part of this run; move it away"
            )
        frame = pl.concat([self._frame(number) for number in range(n_parts)], rechunk=True)
        write_whole(self.path / "records.parquet", _parquet(frame))
        write_whole(self.path / "records.csv", csv_bytes(frame))
        self.set_status("complete")

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An exception, or a caller that stopped asking for records: the run can go on another day.
        if self.manifest["status"] == "running":
            with contextlib.suppress(OSError):
                self.set_status("interrupted")
        self.close()
