"""The folder of a run: one process at a time works in it, and a manifest says what runs there."""

import contextlib
import json
import os
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Self

from ..errors import CorruptFile, DiskFull, InvalidInput, MissingFile, RunFolderRefused, machine_errors
from ..landing import write_json
from ..text import shorten

SCHEMA_VERSION = 1
UNFINISHED = ("running", "interrupted")
MANIFEST = {"status": str, "parameters": dict, "seed": int, "packages": dict, "inputs": list}
# The command that repeats a run, and paths of its inputs; its records do not depend on them.
REPEATING = ("command", "no_command", "base", "paths")


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, of darkvocab and of the packages that its numbers depend on."""
    named = {name: metadata.version(name) for name in ("darkvocab", "numpy", "numba", "polars", *packages)}
    return {"python": platform.python_version(), **named}


def repeating(
    verb: str, options: Mapping[str, Any], defaults: Mapping[str, Any], obstacle: str | None = None, *arguments: str
) -> dict[str, str | None]:
    """Return what a manifest says of the command that repeats a run: its line, or None and the reason for that.

    Parameters
    ----------
    verb : the command's name, such as "sweep"
    options : values by the names that the command's function gives its options: ``redraw_base``
        is ``--redraw-base``. A switch is True or False (``--no-redraw-base``), a list or a tuple
        repeats its option, None leaves it out.
    defaults : the command's own; options that have these values are left out
    obstacle : why no command line can repeat this run, if none can
    arguments : what stands before the options

    Examples
    --------
    >>> repeating("sweep", {"sigma": "1e-9", "tokens": 300, "strict": True}, {"tokens": 2100})
    {'command': 'darkvocab sweep --sigma 1e-9 --tokens 300 --strict'}
    >>> repeating("sweep", {}, {}, "its base was given as an array")
    {'command': None, 'no_command': 'its base was given as an array'}
    """
    words = ["darkvocab", verb, *arguments]
    for name, value in options.items():
        if value is not None and (name not in defaults or value != defaults[name]):
            words += _words(f"--{name.replace('_', '-')}", value)
    if not obstacle and (unsaid := next((word for word in words if not word.isprintable()), None)):
        obstacle = f"{unsaid!r} has characters that a command line cannot show"
    return {"command": None, "no_command": obstacle} if obstacle else {"command": shlex.join(words)}


def _words(option: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option if value else f"--no-{option.removeprefix('--')}"]
    if isinstance(value, (list, tuple)):
        return [word for item in value for word in _words(option, item)]
    return [option, repr(value) if isinstance(value, float) else str(value)]


@machine_errors()
def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a run folder; MissingFile without one, CorruptFile for one unknown here."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise MissingFile(f"{folder} holds no run: it has no manifest.json")
    try:
        manifest = json.loads(path.read_text("utf-8"))
        version = manifest["schema_version"]
        lacking = [key for key, kind in MANIFEST.items() if not isinstance(manifest.get(key), kind)]
        if not any(isinstance(manifest.get(key), str) for key in ("command", "no_command")):
            lacking.append("command")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFile(f"{path}: not a manifest ({error!r})") from None
    if version != SCHEMA_VERSION:
        raise CorruptFile(f"{path}: schema version {version}, this darkvocab knows {SCHEMA_VERSION}")
    if lacking:
        raise CorruptFile(f"{path}: not a manifest (no {', '.join(lacking)}, or of another type)")
    return manifest


def fixed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that a run and its continuation must share."""
    return {key: value for key, value in manifest.items() if key not in ("status", *REPEATING)}


@machine_errors()
def check_folder(folder: Path, ours: Sequence[str]) -> None:
    """Raise RunFolderRefused for a folder with files, none of them a run's or one of `ours`."""
    if folder.exists() and not folder.is_dir():
        raise RunFolderRefused(f"{folder} is a file; choose another --out")
    names = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 (names, not paths)
    cut = [f".{name}.*.partial" for name in ("manifest.json", *ours)]  # a killed process was writing it
    held = [name for name in names if not any(fnmatch(name, one) for one in cut)]
    if held and not {"manifest.json", *ours} & set(held):
        raise RunFolderRefused(f"{folder} holds other files ({', '.join(held[:4])}); choose another --out")


def take_folder(folder: str | Path, files: Sequence[str]) -> list[Path]:
    """Make a folder for the files of one measurement and return their paths; raises as `check_folder`."""
    folder = Path(folder)
    check_folder(folder, files)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in files]
    paths[-1].unlink(missing_ok=True)  # the last file marks a measurement as complete
    return paths


class Folder:
    """A folder that one process at a time works in, with a manifest that names no times and no machine."""

    adopted: ClassVar[tuple[str, ...]] = REPEATING  # entries that a continuation takes from the first manifest

    @machine_errors()
    def __init__(self, path: str | Path, manifest: dict[str, Any], *, resume: bool = False) -> None:
        """Take the folder for this run, or for its continuation.

        Raises RunFolderRefused where it is in use or holds other files or runs, CorruptFile where one is damaged.
        """
        self.path = Path(path)
        self.manifest = json.loads(json.dumps({"schema_version": SCHEMA_VERSION, **manifest}))
        self.is_migrated = False  # whether a manifest of an earlier version was replaced by ours
        self._lock: int | None = None
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderRefused(f"{self.path} is a file; choose another --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"cannot make the folder {self.path}: {error.strerror}"
            raise RunFolderRefused(f"{reason}; choose another --out") from None
        except ValueError:  # a null byte
            raise RunFolderRefused(f"{str(self.path)!r} is no name of a folder; choose another --out") from None
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
            check_folder(self.path, ())
            self.set_status("running")
        else:
            self._go_on_from(read_manifest(self.path), resume)
        self._prepare()
        for place in ("", "*/"):
            for stale in self.path.glob(f"{place}.*.partial"):
                stale.unlink()  # a killed process was writing it
        self.set_status(self.manifest["status"])

    def _go_on_from(self, old: dict[str, Any], resume: bool) -> None:
        """Continue the run of an old manifest, which must equal ours in all but the adopted entries."""
        self.is_migrated = not self.manifest.keys() - {"no_command"} <= old.keys()
        adopted = [key for key in self.adopted if key in old and not (self.is_migrated and key in REPEATING)]
        wanted = {**self.manifest, **{key: old[key] for key in adopted}}
        if differences := list(_differences(fixed(old), fixed(wanted))):
            raise RunFolderRefused(f"{self.path} holds another run: {'; '.join(differences[:3])}; choose another --out")
        if not resume:
            raise RunFolderRefused(f"{self.path} holds this run already ({old['status']}); --resume goes on with it")
        self.manifest = {**wanted, "status": "running" if old["status"] in UNFINISHED else old["status"]}

    def _prepare(self) -> None:
        """Make or check the rest of the folder, once it is taken."""

    def set_status(self, status: str) -> None:
        """Write the manifest with this status: running, interrupted, complete, or diverged (a training)."""
        self.manifest["status"] = status
        write_json(self.path / "manifest.json", self.manifest)

    def close(self) -> None:
        """Release the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an exception, or when the caller stops asking for records, the run can be resumed.
        if self.manifest["status"] == "running":
            with contextlib.suppress(DiskFull, InvalidInput):  # the exception that ends the run says more
                self.set_status("interrupted")
        self.close()


def _differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
    elif old != new:
        yield f"{at} was {shorten(json.dumps(old), 60)}, now {shorten(json.dumps(new), 60)}"
