"""A model's repository at one commit, and its files, of which only the bytes that are read are downloaded.

Commits, files, branches and tags are as the Hub lists them now, or listed them before. HF_HOME/assets
(HF_ASSETS_CACHE) keeps commits/COMMIT.json, revisions.json, and the downloaded bytes of files in files/HASH. The Hub
library's own cache (HF_HUB_CACHE) is only read.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
from huggingface_hub import cached_assets_path, constants, hf_hub_url

from ...errors import CorruptFile, DiskFull, InvalidInput, MissingFile, Unreachable
from ...landing import write_json
from ..tensors import SENTENCES, RemoteFile, read_object, sha256
from .requests import AGAIN, ask, blocks, get

CONNECTIONS = 4
REQUEST_BYTES = 8 << 20  # bytes of a request
HEADER_BLOCK = 1 << 16  # reads of a header begin and end at multiples of this
READ_AHEAD = 1 << 20  # most bytes that are read ahead of a header
Span = tuple[int, int]  # bytes from, to
MAX_WHOLE = 1 << 28  # bytes of a file that is read whole: a config, an index, a tokenizer


class ListedFile(NamedTuple):
    """File of a commit."""

    size: int
    oid: str  # hexadecimal: SHA-256 of a file in LFS, else git's SHA-1 of the blob

    @property
    def sha256(self) -> str | None:
        return self.oid if len(self.oid) == 64 else None


Listing = dict[str, ListedFile]  # by path in the repository


@dataclass(kw_only=True)
class Repo:
    """A model's repository at one commit, from `open_repo`."""

    name: str  # org/name
    revision: str  # as asked for
    commit: str  # 40 hexadecimal digits
    progress: Callable[[int, int], None] | None = None  # called with (bytes read, bytes asked for) of all files
    listing: Listing = field(repr=False)
    bytes_read: int = 0
    _asked_for: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __str__(self) -> str:
        return f"{self.name}@{self.commit}"

    def file(self, path: str | PurePosixPath) -> HubFile:
        """Return a file of the repository, whether it exists or not."""
        return HubFile(self, PurePosixPath(path))

    def count(self, *, read: int = 0, asked_for: int = 0) -> None:
        with self._lock:
            self.bytes_read += read
            self._asked_for += asked_for
            if self.progress:
                self.progress(self.bytes_read, self._asked_for)


@dataclass(eq=False, repr=False)
class HubFile(RemoteFile):
    """File of a repository, read from the cache of the Hub's library if that has all of it."""

    repo: Repo
    path: PurePosixPath

    def __str__(self) -> str:
        return f"{self.repo}/{self.path}"

    __repr__ = __str__

    @property
    def entry(self) -> ListedFile:
        return self.repo.listing[str(self.path)]

    @property
    def url(self) -> str:
        return hf_hub_url(self.repo.name, str(self.path), revision=self.repo.commit)

    def is_file(self) -> bool:
        """Return whether the file exists; nothing else can be asked of one that does not."""
        return str(self.path) in self.repo.listing

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(st_size=self.entry.size)

    def with_name(self, name: str) -> HubFile:
        """Return the file of this name in the same folder, whether it exists or not."""
        return self.repo.file(self.path.with_name(name))

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """Open the file; bytes are downloaded as they are read."""
        return io.BufferedReader(_Stream(self), HEADER_BLOCK)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.whole().read_text(encoding)

    @property
    def sha256(self) -> str:
        """SHA-256 of the whole file, hexadecimal, as the Hub lists it."""
        return self.entry.sha256 or sha256(self.whole())

    def origin(self) -> dict[str, Any]:
        """Return repository, revision, commit and bytes read, JSON-ready."""
        repo = self.repo
        at = {"repo": repo.name, "revision": repo.revision, "commit": repo.commit, "url": self.url}
        return {**at, "sha256_by": "the Hub", "bytes_read": repo.bytes_read}

    def whole(self) -> Path:
        """Download a file, at most `MAX_WHOLE` bytes (else CorruptFile), and check its hash; raises as `bring`."""
        if cached := self._cached():
            return cached
        size = self.entry.size
        if size > MAX_WHOLE:
            raise CorruptFile(f"{self}: {size:,} bytes; of such a file at most {MAX_WHOLE:,} are read")
        path = self.bring(0, size)
        git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        digest = hashlib.sha256() if self.entry.sha256 else git
        digest.update(path.read_bytes())
        if digest.hexdigest() != self.entry.oid:
            self._kept().forget()
            raise CorruptFile(f"{self}: what arrived is not the file that the Hub lists (its hash differs); {AGAIN}")
        return path

    def bring(self, offset: int, size: int) -> Path:
        """Download these bytes, and return a local file that has them; elsewhere it may have holes.

        Raises Unreachable (no network; a server that keeps failing, gives no ranges, or other bytes than asked for),
        MissingFile (not in the cache while HF_HUB_OFFLINE is set), AccessRefused (a gated repository, a token not
        accepted), CorruptFile (not the file of the listing), and DiskFull or OSError (no room for it).
        """
        if cached := self._cached():
            return cached
        pieces = self._kept()
        if missing := pieces.missing(offset, offset + size):
            self._transfer(pieces, missing)
        return pieces.path

    def here(self, offset: int, size: int) -> int:
        """Return how many of these bytes are downloaded already."""
        missing = [] if self._cached() else self._kept().missing(offset, offset + size)
        return size - sum(end - begin for begin, end in missing)

    def _cached(self) -> Path | None:
        """Return the file in the library's cache, of this commit or of another with the same content."""
        folder = library_folder(self.repo.name)
        for path in (folder / "snapshots" / self.repo.commit / self.path, folder / "blobs" / self.entry.oid):
            if path.is_file() and path.stat().st_size == self.entry.size:
                return path
        return None

    def _kept(self) -> PartialFile:
        return PartialFile(assets(self.repo.name, "files") / self.entry.oid, self.entry.size)

    def _transfer(self, pieces: PartialFile, missing: list[Span]) -> None:
        total = sum(end - begin for begin, end in missing)
        if constants.is_offline_mode():
            raise MissingFile(SENTENCES["offline"].format(what=f"{self}: {total:,} bytes of it are not"))
        folder = pieces.path.parent
        if shutil.disk_usage(folder).free < total:
            room = f"no room for {total:,} bytes of {self} in {folder}; set HF_HOME to where there is"
            raise DiskFull(errno.ENOSPC, room)
        self.repo.count(asked_for=total)
        parts = [
            (at, min(at + REQUEST_BYTES, end)) for begin, end in missing for at in range(begin, end, REQUEST_BYTES)
        ]
        stop = threading.Event()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            try:
                list(pool.map(lambda part: self._part(pieces, part, stop), parts))
            finally:
                stop.set()

    def _part(self, pieces: PartialFile, part: Span, stop: threading.Event) -> None:
        """Download these bytes into the file, and record how many arrived."""
        begin, end = part
        received = blocks(lambda at: self._range(at, end), str(self), begin, stop)
        with pieces.path.open("r+b") as file:
            file.seek(begin)
            try:
                while not stop.is_set() and (block := next(received, b"")):
                    file.write(block)
                    self.repo.count(read=len(block))
            finally:
                file.flush()  # raises where the disk is full, and nothing is recorded
                pieces.add(begin, file.tell())

    def _range(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a range as they arrive, after checking that the answer is of that range."""
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={begin}-{end - 1}"}
        with get(self.url, self.repo.name, self.repo.revision, str(self.path), headers=headers) as response:
            self._check(response, begin, end)
            left = end - begin
            for block in response.iter_raw():  # as they arrive, so that nothing is lost at a cut
                left -= len(block)
                if left < 0:
                    raise Unreachable(f"{self}: the server sends more than the {end - begin:,} bytes asked for")
                yield block
            if left:
                raise httpx2.RemoteProtocolError(f"{left:,} of {end - begin:,} bytes are missing")

    def _check(self, response: httpx2.Response, begin: int, end: int) -> None:
        entry = self.entry
        host = response.url.host
        answers = [answer.headers for answer in (*response.history, response)]
        linked = [headers["x-linked-etag"] for headers in answers if "x-linked-etag" in headers]
        etags = linked or [response.headers.get("etag", "")]
        if not all(etags):
            raise Unreachable(f"{self}: {host} does not say which file it sends (no ETag); is it a Hub?")
        commits = {headers["x-repo-commit"] for headers in answers if "x-repo-commit" in headers}
        if any(etag.removeprefix("W/").strip('"') != entry.oid for etag in etags) or commits - {self.repo.commit}:
            raise CorruptFile(SENTENCES["another_file"].format(file=self, sent=etags[0][:80], entry=entry, again=AGAIN))
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Unreachable(f"{self}: {host} sends compressed bytes, where plain ones were asked for")
        if response.status_code == 200 and (begin, end) == (0, entry.size):
            return
        if response.status_code != 206:
            raise Unreachable(SENTENCES["no_ranges"].format(file=self, host=host, response=response, entry=entry))
        sent = response.headers.get("content-range", "no range")
        asked = f"bytes {begin}-{end - 1}/{entry.size}"
        if sent != asked:
            raise Unreachable(f"{self}: {host} sends {sent[:80]!r}, where {asked!r} was asked for")


class PartialFile:
    """Local file of `size` bytes, with holes where bytes are not downloaded yet, and a record of those that are.

    A file of another size is begun anew. Several processes may write into it: all write the same bytes at the same
    places. A piece is recorded only after it is synced, so that a crash leaves no zeros that pass for rows.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._record = path.with_name(f"{path.name}.spans")
        with path.open("ab") as file:  # not emptied: another process may be writing into it
            if file.tell() != size:
                self.forget()
                file.truncate(size)

    def missing(self, begin: int, end: int) -> list[Span]:
        """Return the spans of these bytes that are not downloaded, in order."""
        gaps = []
        for first, last in [*self._spans(), (end, end)]:
            if begin < min(first, end):
                gaps.append((begin, min(first, end)))
            begin = max(begin, last)
        return gaps

    def add(self, begin: int, end: int) -> None:
        """Record that these bytes were written; OSError for a disk that is full, or gone."""
        if begin < end:
            with self.path.open("r+b") as file:
                os.fsync(file.fileno())
            with self._record.open("a", encoding="ascii") as record:  # one write, which no other process can split
                record.write(f"{begin} {end}\n")

    def forget(self) -> None:
        """Delete the record, so that all bytes are missing."""
        self._record.unlink(missing_ok=True)

    def _spans(self) -> list[Span]:
        """Return the recorded spans in order, without lines that are cut or cannot be true."""
        try:
            text = self._record.read_text("ascii", "replace")
        except OSError:
            return []
        lines = re.findall("^([0-9]{1,19}) ([0-9]{1,19})\n", text, re.MULTILINE)
        return sorted((int(begin), int(end)) for begin, end in lines if int(begin) < int(end) <= self.size)


class _Stream(io.RawIOBase):
    """Bytes of a remote file, downloaded in blocks that grow while it is read in sequence."""

    def __init__(self, file: HubFile) -> None:
        self._file = file
        self._size = file.entry.size
        self._at = 0
        self._brought: Span = (0, 0)
        self._ahead = HEADER_BLOCK

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise InvalidInput(f"no byte {at} in {self._file}")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if self._at >= end:
            return 0
        begin, brought = self._brought
        if not begin <= self._at <= end <= brought:
            self._ahead = min(2 * self._ahead, READ_AHEAD) if begin < self._at <= brought else HEADER_BLOCK
            begin = self._at // HEADER_BLOCK * HEADER_BLOCK
            brought = min(max(-(-end // HEADER_BLOCK) * HEADER_BLOCK, begin + self._ahead), self._size)
            self._brought = (begin, brought)
        with self._file.bring(begin, brought - begin).open("rb", buffering=0) as file:
            file.seek(self._at)
            size = file.readinto(memoryview(buffer)[: end - self._at])
        self._at += size
        return size


def open_repo(name: str, revision: str | None, progress: Callable[[int, int], None] | None = None) -> Repo:
    """Pin a revision of a repository to its commit, and list its files; raises as `list_files`."""
    asked = revision or constants.DEFAULT_REVISION
    commit, listing = list_files(name, asked)
    return Repo(name=name, revision=asked, commit=commit, progress=progress, listing=listing)


def list_files(name: str, revision: str) -> tuple[str, Listing]:
    """Return a revision's commit and files, from the cache if HF_HUB_OFFLINE is set; raises as `ask`."""
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
    """Return the commit of every branch and tag, by name, or of the cached ones while offline; raises as `ask`."""
    if constants.is_offline_mode():
        return _known_revisions(name)

    def read(answer: Any) -> dict[str, str]:
        return {str(ref["name"]): str(ref["targetCommit"]) for ref in [*answer["tags"], *answer["branches"]]}

    return ask("/refs", name, constants.DEFAULT_REVISION, read)


def _entry(size: Any, oid: Any) -> ListedFile:
    if not (type(size) is int and size >= 0 and _is_hash(oid, 40, 64)):
        raise InvalidInput(f"a file of size {size!r} and hash {str(oid)[:80]!r}")
    return ListedFile(size, oid)


def _is_hash(text: object, *lengths: int) -> bool:
    return isinstance(text, str) and len(text) in lengths and re.fullmatch("[0-9a-f]+", text) is not None


def assets(repo: str, part: str) -> Path:
    """Return the folder for a part of what is kept of a repository, and create it if need be."""
    namespace = f"models--{repo}"
    return cached_assets_path("darkvocab", namespace, part, assets_dir=constants.HF_ASSETS_CACHE)


def library_folder(repo: str) -> Path:
    """Return the folder where the Hub's library keeps files of a repository."""
    return Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is none."""
    try:
        return read_object(path)
    except (OSError, CorruptFile):
        return {}


def _known_revisions(name: str) -> dict[str, str]:
    """Return the commit of each revision in the library's cache and in ours."""
    refs = library_folder(name) / "refs"
    files = [path for path in sorted(refs.rglob("*")) if path.is_file()]
    known = {path.relative_to(refs).as_posix(): path.read_text("utf-8", "replace").strip() for path in files}
    known |= _read_json(assets(name, "commits").with_name("revisions.json"))
    return {revision: commit for revision, commit in known.items() if _is_hash(commit, 40)}


def _known_listing(name: str, commit: str) -> Listing:
    """Return the files of a commit as listed before, or while offline as the library's cache has them."""
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
        listing[path.relative_to(folder).as_posix()] = ListedFile(path.stat().st_size, oid)
    return listing
