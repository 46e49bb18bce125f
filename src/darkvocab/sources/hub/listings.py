"""Commits, files, branches and tags of a model on the Hub, as it lists them, or as they were listed before.

What is read is kept under HF_HOME/assets (HF_ASSETS_CACHE): commits/COMMIT.json, revisions.json, and what was read of
files in files/HASH. The cache of the Hub's library (HF_HUB_CACHE) is only read.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from huggingface_hub import cached_assets_path, constants

from ...errors import CorruptFile, InvalidInput, MissingFile
from ...landing import write_json
from ..tensors import SENTENCES, read_object
from .requests import ask


class Entry(NamedTuple):
    """A file of a commit."""

    size: int
    oid: str  # hexadecimal, of the content: SHA-256 of what LFS keeps, else git's SHA-1 of the blob

    @property
    def sha256(self) -> str | None:
        return self.oid if len(self.oid) == 64 else None


Listing = dict[str, Entry]  # by path in the repository


def list_files(name: str, revision: str) -> tuple[str, Listing]:
    """Return the commit of a revision, and its files; where HF_HUB_OFFLINE is set, as the cache has them.

    Raises as `ask`, and MissingFile where the cache has no such revision.
    """
    offline = constants.is_offline_mode()
    commit = _known_revisions(name).get(revision, revision) if offline else revision
    if _is_hash(commit, 40) and (listing := _known_listing(name, commit)):
        return commit, listing
    if offline:
        raise MissingFile(SENTENCES["offline"].format(what=f"no revision {revision!r} of {name} is"))

    def read(answer: Any) -> tuple[str, Listing]:
        commit = answer["sha"]
        if not _is_hash(commit, 40) or (_is_hash(revision, 40) and commit != revision):
            raise InvalidInput(f"commit {str(commit)[:80]!r}")
        listing = {}
        for file in answer["siblings"]:
            path = file["rfilename"]
            lfs = file.get("lfs")
            if not {"", ".", ".."} & set(path.split("/")):
                listing[path] = _entry(lfs["size"], lfs["sha256"]) if lfs else _entry(file["size"], file["blobId"])
        return commit, listing

    commit, listing = ask(f"/revision/{quote(revision, safe='')}", name, revision, read, blobs=True)
    folder = assets(name, "commits")
    write_json(folder / f"{commit}.json", listing)
    if revision != commit:
        known = folder.with_name("revisions.json")
        write_json(known, {**_read_json(known), revision: commit})
    return commit, listing


def revisions(name: str) -> dict[str, str]:
    """Return the commit of every branch and tag, by name; where HF_HUB_OFFLINE is set, of those in the cache.

    Raises as `ask`.
    """
    if constants.is_offline_mode():
        return _known_revisions(name)

    def read(answer: Any) -> dict[str, str]:
        return {str(ref["name"]): str(ref["targetCommit"]) for ref in [*answer["tags"], *answer["branches"]]}

    return ask("/refs", name, constants.DEFAULT_REVISION, read)


def _entry(size: Any, oid: Any) -> Entry:
    if not (type(size) is int and size >= 0 and _is_hash(oid, 40, 64)):
        raise InvalidInput(f"a file of size {size!r} and hash {str(oid)[:80]!r}")
    return Entry(size, oid)


def _is_hash(text: object, *lengths: int) -> bool:
    return isinstance(text, str) and len(text) in lengths and re.fullmatch("[0-9a-f]+", text) is not None


def assets(repo: str, part: str) -> Path:
    """Return the folder for what is kept of a repository; it is made where it is missing."""
    return cached_assets_path(
        "darkvocab", namespace=f"models--{repo}", subfolder=part, assets_dir=constants.HF_ASSETS_CACHE
    )


def library_folder(repo: str) -> Path:
    """Return the folder where the Hub's library keeps files of a repository."""
    return Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; an empty one where there is none."""
    try:
        return read_object(path)
    except (OSError, CorruptFile):
        return {}


def _known_revisions(name: str) -> dict[str, str]:
    """Return the commits by revision, as the library's cache has them, and as they were last read here."""
    refs = library_folder(name) / "refs"
    files = [path for path in sorted(refs.rglob("*")) if path.is_file()]
    known = {path.relative_to(refs).as_posix(): path.read_text("utf-8", "replace").strip() for path in files}
    known |= _read_json(assets(name, "commits").with_name("revisions.json"))
    return {revision: commit for revision, commit in known.items() if _is_hash(commit, 40)}


def _known_listing(name: str, commit: str) -> Listing:
    """Return the files of a commit as they were listed before, or, offline, as the library's cache has them."""
    kept = _read_json(assets(name, "commits") / f"{commit}.json")
    try:
        listing = {path: _entry(*entry) for path, entry in kept.items()}
    except (TypeError, ValueError):
        listing = {}
    if listing or not constants.is_offline_mode():
        return listing
    folder = library_folder(name) / "snapshots" / commit
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        blob = path.readlink().name if path.is_symlink() else ""  # the blob may link to the library's shared store
        oid = blob if _is_hash(blob, 40, 64) else "0" * 40  # without links: a whole file is not compared with a hash
        listing[path.relative_to(folder).as_posix()] = Entry(path.stat().st_size, oid)
    return listing
