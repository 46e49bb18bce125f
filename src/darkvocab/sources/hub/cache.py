"""Keep what was read of the Hub, and read what its own library has kept.

Ours is under HF_HOME/assets (HF_ASSETS_CACHE), where the Hub's library wants what others make of it: files/HASH with
its record, commits/COMMIT.json, revisions.json. The library's own cache (HF_HUB_CACHE) is only read.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import cached_assets_path, constants

from ...errors import InvalidInput
from .pieces import write_record


@dataclass(frozen=True)
class Entry:
    """A file of a commit, as the Hub lists it."""

    size: int
    oid: str  # hexadecimal: SHA-256 of what LFS keeps, else git's hash of the blob
    lfs: bool

    def __post_init__(self) -> None:
        hexadecimal = type(self.oid) is str and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", self.oid)
        if not (type(self.size) is int and self.size >= 0 and hexadecimal):
            raise InvalidInput(f"a file of size {self.size!r} and hash {str(self.oid)[:80]!r}")


def is_commit(revision: str) -> bool:
    """Return whether a revision is a commit's full hash."""
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def cache_folder(repo: str, part: str) -> Path:
    """Return the folder of ours for a part (files, commits) of a repository, made where it is missing."""
    return cached_assets_path(
        "darkvocab", namespace=f"models--{repo}", subfolder=part, assets_dir=constants.HF_ASSETS_CACHE
    )


def _hub_folder(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")


def whole_in_cache(name: str, commit: str, path: PurePosixPath, entry: Entry) -> Path | None:
    """Return the whole file in the Hub's own cache, of this commit or of another with the same content, or None."""
    folder = _hub_folder(name)
    for kept in (folder / "snapshots" / commit / path, folder / "blobs" / entry.oid):
        if kept.is_file() and kept.stat().st_size == entry.size:
            return kept
    return None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def remember(name: str, revision: str, commit: str, listing: dict[str, Entry]) -> None:
    """Keep the commit of a revision and its files."""
    entries = {path: asdict(entry) for path, entry in listing.items()}
    write_record(cache_folder(name, "commits") / f"{commit}.json", entries)
    if not is_commit(revision):
        known = cache_folder(name, "commits").with_name("revisions.json")
        write_record(known, {**_as_dict(_read_json(known)), revision: commit})


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def known_revisions(name: str) -> dict[str, str]:
    """Return commits by revision, as the Hub's own cache has them, and as they were last read here."""
    refs = _hub_folder(name) / "refs"
    theirs = {
        path.relative_to(refs).as_posix(): path.read_text("utf-8").strip()
        for path in sorted(refs.rglob("*"))
        if path.is_file()
    }
    ours = _as_dict(_read_json(cache_folder(name, "commits").with_name("revisions.json")))
    return {
        name: commit for name, commit in {**theirs, **ours}.items() if isinstance(commit, str) and is_commit(commit)
    }


def from_cache(name: str, revision: str) -> tuple[str, dict[str, Entry]] | None:
    """Return commit and files of a revision that was read before, or that the Hub's own cache has, or None."""
    commit = revision if is_commit(revision) else known_revisions(name).get(revision)
    if commit is None:
        return None
    kept = _as_dict(_read_json(cache_folder(name, "commits") / f"{commit}.json"))
    try:
        listing = {path: Entry(**entry) for path, entry in kept.items()}
    except (TypeError, ValueError):
        listing = {}
    if not listing and constants.is_offline_mode():
        listing = _snapshot(_hub_folder(name) / "snapshots" / commit)
    return (commit, listing) if listing else None


def _snapshot(folder: Path) -> dict[str, Entry]:
    """List the files that the Hub's own cache has of a commit; its blobs are named by their hashes."""
    listing = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        oid = path.resolve().name
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", oid):
            oid = "0" * 40  # a cache without links: what is there whole is not compared with a hash
        listing[path.relative_to(folder).as_posix()] = Entry(path.stat().st_size, oid, len(oid) == 64)
    return listing
