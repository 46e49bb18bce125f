"""The folder of a run: one process at a time, a manifest that says what runs there, files that land whole."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Self

from ..errors import FULL, CorruptFile, DiskFull, InvalidInput, MissingFile, RunFolderRefused

SCHEMA_VERSION = 1
BEGUN_WITH = ("command", "no_command", "paths")  # of a manifest: may differ where a run is gone on with, and stay
UNFINISHED = ("running", "interrupted")
MANIFEST = {"status": str, "parameters": dict, "seed": int, "packages": dict, "inputs": list}


def refuse_write(path: Path, error: OSError) -> DiskFull | InvalidInput:
    """Return the error for a file that cannot be written."""
    if error.errno in FULL:
        return DiskFull(error.errno, f"no space left to write {path}; make room")
    return InvalidInput(f"cannot write {path}: {error.strerror}; choose another place")


@contextlib.contextmanager
def landing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that is there whole at the end, or not at all: a temporary beside it, synced, then renamed.

    Raises
    ------
    DiskFull
        The disk, the quota or the file size limit.
    InvalidInput
        The place cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise refuse_write(path, error) from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; raises as `landing`."""
    with landing(path) as file:
        file.write(content)


@contextlib.contextmanager
def landing_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that is there whole at the end, or not at all: a temporary beside it, then renamed.

    Raises
    ------
    DiskFull
        The disk, the quota or the file size limit.
    InvalidInput
        The place is taken, or cannot be written to.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 (gives `.` a name, and leaves links what they are)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InvalidInput(f"{path} is there already; choose another place")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise refuse_write(path, error) from None


def copy_file(source: Path, target: Path, progress: Callable[[int], None] | None = None) -> None:
    """Copy what a file holds; file systems that can let the two share their blocks until one is written to.

    `progress` is told the bytes of every piece.
    """
    with source.open("rb") as file, target.open("wb") as copy:
        size, piece = os.fstat(file.fileno()).st_size, 1 << 26
        done = 0
        while done < size:
            try:
                n = os.copy_file_range(file.fileno(), copy.fileno(), piece, done, done)
            except (AttributeError, OSError) as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                break  # not on this system, or not between these two
            if not n:
                break
            done += n
            if progress:
                progress(n)
        file.seek(done)
        copy.seek(done)
        while block := file.read(1 << 22):
            copy.write(block)
            if progress:
                progress(len(block))
        copy.flush()
        os.fsync(copy.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all; raises as `landing`."""
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, of darkvocab and of the packages that its numbers depend on."""
    named = {name: metadata.version(name) for name in ("darkvocab", "numpy", "numba", "polars", *packages)}
    return {"python": platform.python_version(), **named}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises
    ------
    MissingFile
        The folder holds none.
    CorruptFile
        Not a manifest that this version knows.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise MissingFile(f"{folder} holds no run: it has no manifest.json")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        version = manifest["schema_version"]
        lacking = [key for key, kind in MANIFEST.items() if not isinstance(manifest.get(key), kind)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFile(f"{path}: not a manifest ({error!r})") from None
    if version != SCHEMA_VERSION:
        raise CorruptFile(f"{path}: schema version {version}, this darkvocab knows {SCHEMA_VERSION}")
    if lacking:
        raise CorruptFile(f"{path}: not a manifest (no {', '.join(lacking)}, or of another type)")
    return manifest


def fixed(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a run and its continuation have in common."""
    return {key: value for key, value in manifest.items() if key not in ("status", *BEGUN_WITH)}


def check_folder(folder: Path, ours: Sequence[str]) -> None:
    """Refuse to write among files that are neither a run's nor ours.

    Raises
    ------
    RunFolderRefused
    """
    if folder.exists() and not folder.is_dir():
        raise RunFolderRefused(f"{folder} is a file; choose another --out")
    held = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
    if held and not {"manifest.json", *ours} & set(held):
        raise RunFolderRefused(f"{folder} holds other files ({', '.join(held[:4])}); choose another --out")


class Folder:
    """A folder that one process at a time works in, with a manifest that has no times and no machine in it."""

    def __init__(self, path: str | Path, manifest: dict[str, Any], *, resume: bool = False) -> None:
        """Take the folder for this run, or for its continuation.

        Raises
        ------
        RunFolderRefused
            It is in use; or holds other files, another run, or (without `resume`) this one.
        CorruptFile
            What it holds is damaged.
        """
        self.path = Path(path)
        self.manifest = json.loads(json.dumps({"schema_version": SCHEMA_VERSION, **manifest}))
        self._lock: int | None = None
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
            differences = list(_differences(fixed(old), fixed(self.manifest)))
            if differences:
                raise RunFolderRefused(
                    f"{self.path} holds another run: {'; '.join(differences[:3])}; choose another --out"
                )
            if not resume:
                raise RunFolderRefused(
                    f"{self.path} holds this run already ({old['status']}); --resume goes on with it"
                )
            for key in (key for key in BEGUN_WITH if key not in old):
                self.manifest.pop(key, None)
            self.manifest.update({key: old[key] for key in BEGUN_WITH if key in old})
            self.manifest["status"] = "running" if old["status"] in UNFINISHED else old["status"]
        self._prepare()
        for stale in (found for place in ("", "*/") for found in self.path.glob(f"{place}.*.partial")):
            stale.unlink()  # what a killed process was writing
        self.set_status(self.manifest["status"])

    def _prepare(self) -> None:
        """What else a folder that is ours must have or must not hold."""

    def set_status(self, status: str) -> None:
        """Write the manifest with this status: running, interrupted, complete, or diverged (a training)."""
        self.manifest["status"] = status
        write_json(self.path / "manifest.json", self.manifest)

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


def _differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
    elif old != new:
        yield f"{at} was {_short(old)}, now {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
