"""A model's repository at one commit, and its files, of which only the bytes that are looked at come here.

Commits, files, branches and tags are as the Hub lists them, or as they were listed before. What is read is kept under
HF_HOME/assets (HF_ASSETS_CACHE): commits/COMMIT.json, revisions.json, and what was read of files in files/HASH. The
cache of the Hub's library (HF_HUB_CACHE) is only read.
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
HEADER_BLOCK = 1 << 16  # what is read of a header begins and ends at multiples of this
READ_AHEAD = 1 << 20  # most that is read ahead of a header that is read from one end to the other
Span = tuple[int, int]  # bytes from, to
MAX_WHOLE = 1 << 28  # bytes of a file that is read as a whole: a config, an index, a tokenizer


class ListedFile(NamedTuple):
    """A file of a commit."""

    size: int
    oid: str  # hexadecimal, of the content: SHA-256 of what LFS keeps, else git's SHA-1 of the blob

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
    progress: Callable[[int, int], None] | None = None  # gets (bytes read, bytes asked for) of all files together
    listing: dict[str, ListedFile] = field(repr=False)
    bytes_read: int = 0
    _asked_for: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __str__(self) -> str:
        return f"{self.name}@{self.commit}"

    def file(self, path: str | PurePosixPath) -> HubFile:
        """Return a file of the repository, there or not."""
        return HubFile(self, PurePosixPath(path))

    def count(self, *, read: int = 0, asked_for: int = 0) -> None:
        with self._lock:
            self.bytes_read += read
            self._asked_for += asked_for
            if self.progress:
                self.progress(self.bytes_read, self._asked_for)


@dataclass(eq=False, repr=False)
class HubFile(RemoteFile):
    """A file of a repository. Where the cache of the Hub's library has all of it, that is read."""

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
        """Open the file; the bytes that are read come here."""
        return io.BufferedReader(_Stream(self), HEADER_BLOCK)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.whole().read_text(encoding)

    @property
    def sha256(self) -> str:
        """SHA-256 of the whole file, hexadecimal, as the Hub lists it."""
        return self.entry.sha256 or sha256(self.whole())

    def origin(self) -> dict[str, Any]:
        """Return where it is from and how much was read of it, JSON-ready."""
        repo = self.repo
        at = {"repo": repo.name, "revision": repo.revision, "commit": repo.commit, "url": self.url}
        return {**at, "sha256_by": "the Hub", "bytes_read": repo.bytes_read}

    def whole(self) -> Path:
        """Bring all of it here, compared with its hash; for small files.

        Raises as `bring`; CorruptFile also where it is larger than such files are.
        """
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
        """Bring these bytes here, and return a file that has them; elsewhere it may have holes.

        Raises Unreachable (no network; a server that goes on to fail, gives no ranges, or other bytes than were asked
        for), MissingFile (where HF_HUB_OFFLINE is set: not in the cache), AccessRefused (a gated repository, a token
        not accepted), CorruptFile (another file than the listing names), and DiskFull or OSError (no room for it).
        """
        if cached := self._cached():
            return cached
        pieces = self._kept()
        if missing := pieces.missing(offset, offset + size):
            self._transfer(pieces, missing)
        return pieces.path

    def here(self, offset: int, size: int) -> int:
        """Return how many of these bytes have come already."""
        missing = [] if self._cached() else self._kept().missing(offset, offset + size)
        return size - sum(end - begin for begin, end in missing)

    def _cached(self) -> Path | None:
        """Return the whole file in the library's cache, of this commit or of another with the same content."""
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
        """Read these bytes into the file, and record how far that went."""
        begin, end = part
        at = begin
        with pieces.path.open("r+b") as file:
            file.seek(begin)
            try:
                for block in blocks(lambda at: self._range(at, end), str(self), begin, stop):
                    file.write(block)
                    at += len(block)
                    self.repo.count(read=len(block))
                    if stop.is_set():
                        break
            finally:
                file.flush()  # raises where the disk is full, and nothing is recorded
                pieces.add(begin, at)

    def _range(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a range as they arrive, once the answer has shown that it is that range."""
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={begin}-{end - 1}"}
        with get(self.url, self.repo.name, self.repo.revision, str(self.path), headers=headers) as response:
            self._check(response, begin, end)
            left = end - begin
            for block in response.iter_raw():  # as it arrives, so that nothing is lost where it is cut
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
    """A file of `size` bytes of which some pieces are here: holes where the others belong, and beside it a record.

    One of another size is begun anew. Any process may write into it: all write the same bytes at the same places. A
    piece gets its line in the record only when the disk has it, so that a machine that stops leaves no zeros that pass
    for rows.
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
        """Return the parts of these bytes that are not here, in order."""
        gaps = []
        for first, last in [*self._spans(), (end, end)]:
            if begin < min(first, end):
                gaps.append((begin, min(first, end)))
            begin = max(begin, last)
        return gaps

    def add(self, begin: int, end: int) -> None:
        """Record that these bytes were written; OSError where the disk is full, or gone."""
        if begin < end:
            with self.path.open("r+b") as file:
                os.fsync(file.fileno())
            with self._record.open("a", encoding="ascii") as record:  # one write, which no other process can split
                record.write(f"{begin} {end}\n")

    def forget(self) -> None:
        """Take nothing for here any more."""
        self._record.unlink(missing_ok=True)

    def _spans(self) -> list[Span]:
        """Return the record in ascending order, without lines that were cut or cannot be true."""
        try:
            text = self._record.read_text("ascii", "replace")
        except OSError:
            return []
        lines = re.findall("^([0-9]{1,19}) ([0-9]{1,19})\n", text, re.MULTILINE)
        return sorted((int(begin), int(end)) for begin, end in lines if int(begin) < int(end) <= self.size)


class _Stream(io.RawIOBase):
    """The bytes of a remote file, brought in blocks; the further it is read without a jump, the more at once."""

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
    """Pin a revision of a repository to its commit, and list its files.

    Raises as `list_files`.
    """
    asked = revision or constants.DEFAULT_REVISION
    commit, listing = list_files(name, asked)
    return Repo(name=name, revision=asked, commit=commit, progress=progress, listing=listing)


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


def _entry(size: Any, oid: Any) -> ListedFile:
    if not (type(size) is int and size >= 0 and _is_hash(oid, 40, 64)):
        raise InvalidInput(f"a file of size {size!r} and hash {str(oid)[:80]!r}")
    return ListedFile(size, oid)


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
        listing[path.relative_to(folder).as_posix()] = ListedFile(path.stat().st_size, oid)
    return listing
