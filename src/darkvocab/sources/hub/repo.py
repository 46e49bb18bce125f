"""A model's repository at one commit, and its files, of which only the bytes that are looked at come here."""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self, cast

import httpx2
from huggingface_hub import constants, hf_hub_url
from huggingface_hub.utils import get_session

from ...errors import CorruptFile, DiskFull, InvalidInput, MissingFile, Unreachable
from ..tensors import RemoteFile, Size, sha256
from .cache import Entry, cache_folder, whole_in_cache
from .pieces import Pieces, Span
from .requests import AGAIN, Failed, check_status, hub_headers, persist

CONNECTIONS = 4
PIECE = 8 << 20  # bytes of a request
BLOCK = 1 << 16  # what is read of a header begins and ends at multiples of this
AHEAD = 1 << 20  # most that is read ahead of a header that is read from one end to the other
MAX_WHOLE = 1 << 28  # bytes of a file that is read as a whole: a config, an index, a tokenizer


@dataclass(kw_only=True)
class Repo:
    """A model's repository at one commit; `open_repo` opens one."""

    name: str  # org/name
    revision: str  # as asked for
    commit: str  # 40 hexadecimal digits
    endpoint: str
    progress: Callable[[int, int], None] | None = None  # (bytes read, bytes asked for) of all files together
    listing: dict[str, Entry] = field(default_factory=dict, repr=False)
    bytes_read: int = 0
    _asked_for: int = 0
    _files: dict[str, HubFile] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __str__(self) -> str:
        return f"{self.name}@{self.commit}"

    def file(self, path: str | PurePosixPath) -> HubFile:
        """Return a file of the repository, whether it exists or not; the same object each time."""
        return self._files.setdefault(str(path), HubFile(self, PurePosixPath(path)))

    def count(self, *, read: int = 0, asked_for: int = 0) -> None:
        """Add to the bytes that were read and asked for."""
        with self._lock:
            self.bytes_read += read
            self._asked_for += asked_for
            if self.progress:
                self.progress(self.bytes_read, self._asked_for)


class HubFile(RemoteFile):
    """A file of a repository. Where the Hub's own cache has all of it, that is read."""

    def __init__(self, repo: Repo, path: PurePosixPath) -> None:
        self.repo = repo
        self.path = path
        self._pieces: Pieces | None = None

    def __str__(self) -> str:
        return f"{self.repo}/{self.path}"

    __repr__ = __str__

    @property
    def entry(self) -> Entry:
        try:
            return self.repo.listing[str(self.path)]
        except KeyError:
            raise MissingFile(f"{self.repo} has no file {str(self.path)!r}") from None

    @property
    def url(self) -> str:
        return hf_hub_url(self.repo.name, str(self.path), revision=self.repo.commit, endpoint=self.repo.endpoint)

    def is_file(self) -> bool:
        return str(self.path) in self.repo.listing

    def stat(self) -> Size:
        return Size(self.entry.size)

    def with_name(self, name: str) -> Self:
        return cast(Self, self.repo.file(self.path.with_name(name)))

    def open(self, mode: str = "rb") -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_Stream(self), BLOCK))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.whole().read_text(encoding)

    @property
    def sha256(self) -> str:
        return self.entry.oid if self.entry.lfs else sha256(self._in_cache() or self.whole())

    def origin(self) -> dict[str, Any]:
        return {
            "repo": self.repo.name,
            "revision": self.repo.revision,
            "commit": self.repo.commit,
            "url": self.url,
            "sha256_by": "the Hub",
            "bytes_read": self.repo.bytes_read,
        }

    def whole(self) -> Path:
        """Bring all of it, and compare it with its hash.

        Raises
        ------
        CorruptFile
            Larger than such files are, or another file than the listing names. Other errors as `bring`.
        """
        if cached := self._in_cache():
            return cached
        size = self.entry.size
        if size > MAX_WHOLE:
            raise CorruptFile(f"{self}: {size:,} bytes; of such a file at most {MAX_WHOLE:,} are read")
        local = self.bring(0, size)
        digest = hashlib.sha256() if self.entry.lfs else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        digest.update(local.read_bytes())
        if digest.hexdigest() != self.entry.oid:
            self._kept().forget()
            raise CorruptFile(f"{self}: what arrived is not the file that the Hub lists (its hash differs); {AGAIN}")
        return local

    def bring(self, offset: int, size: int) -> Path:
        """Return a local file that has these bytes: of the Hub's own cache, or one with holes where nothing was read.

        Raises
        ------
        Unreachable
            No network; a server that goes on to fail, gives no ranges, or other bytes than were asked for.
        AccessRefused
            A gated repository, a token that is not accepted.
        MissingFile
            No such file, or, where HF_HUB_OFFLINE is set, not in the cache.
        CorruptFile
            The server has another file than the listing names.
        OSError
            The disk is full.
        """
        if cached := self._in_cache():
            return cached
        pieces = self._kept()
        if missing := pieces.missing(offset, offset + size):
            self._transfer(pieces, missing)
        return pieces.path

    def here(self, offset: int, size: int) -> int:
        if self._in_cache():
            return size
        return size - sum(end - begin for begin, end in self._kept().missing(offset, offset + size))

    def _in_cache(self) -> Path | None:
        return whole_in_cache(self.repo.name, self.repo.commit, self.path, self.entry)

    def _kept(self) -> Pieces:
        if self._pieces is None:
            self._pieces = Pieces(cache_folder(self.repo.name, "files") / self.entry.oid, self.entry.size)
        return self._pieces

    def _transfer(self, pieces: Pieces, missing: list[Span]) -> None:
        total = sum(end - begin for begin, end in missing)
        if constants.is_offline_mode():
            raise MissingFile(
                f"{self}: {total:,} bytes of it are not in the cache, and HF_HUB_OFFLINE is set; run it once without"
            )
        if shutil.disk_usage(pieces.path.parent).free < total:
            raise DiskFull(
                errno.ENOSPC,
                f"no room for {total:,} bytes of {self} in {pieces.path.parent}; set HF_HOME to where there is",
            )
        self.repo.count(asked_for=total)
        parts = [(at, min(at + PIECE, end)) for begin, end in missing for at in range(begin, end, PIECE)]
        stop = threading.Event()
        with ThreadPoolExecutor(min(CONNECTIONS, len(parts))) as pool:
            running = [pool.submit(self._part, pieces, begin, end, stop) for begin, end in parts]
            try:
                for part in as_completed(running):
                    part.result()
            except BaseException:
                stop.set()
                for part in running:
                    part.cancel()
                raise

    def _part(self, pieces: Pieces, begin: int, end: int, stop: threading.Event) -> None:
        """Read these bytes into the file, from where it was cut each time that it is."""
        at = begin

        def go_on() -> None:
            nonlocal at
            first = at
            try:
                with pieces.path.open("r+b", buffering=0) as file:
                    file.seek(at)
                    for block in self._answer(at, end):
                        if stop.is_set():
                            return
                        left = memoryview(block)
                        while left:
                            written = file.write(left)
                            left, at = left[written:], at + written
                        self.repo.count(read=len(block))
            finally:
                pieces.add(first, at)

        persist(go_on, f"{self}", lambda: at, stop)

    def _answer(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes that a server sends for this range, once its headers say that it sends them."""
        headers = {**hub_headers(), "Accept-Encoding": "identity", "Range": f"bytes={begin}-{end - 1}"}
        with get_session().stream(
            "GET", self.url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as response:
            check_status(response, self.repo.name, self.repo.revision, self.repo.endpoint, str(self.path))
            self._check(response, begin, end)
            left = end - begin
            for block in response.iter_raw():  # as it arrives, so that nothing is lost where it is cut
                left -= len(block)
                if left < 0:
                    raise Unreachable(f"{self}: the server sends more than the {end - begin:,} bytes asked for")
                yield block
            if left:
                raise Failed(f"{left:,} of {end - begin:,} bytes are missing")

    def _check(self, response: httpx2.Response, begin: int, end: int) -> None:
        size = self.entry.size
        oid = self.entry.oid
        host = response.url.host
        answers = [*response.history, response]
        linked = [answer.headers["x-linked-etag"] for answer in answers if "x-linked-etag" in answer.headers]
        etags = linked or [response.headers.get("etag", "")]
        if not all(etags):
            raise Unreachable(f"{self}: {host} does not say which file it sends (no ETag); is it a Hub?")
        commits = {answer.headers["x-repo-commit"] for answer in answers if "x-repo-commit" in answer.headers}
        if any(etag.removeprefix("W/").strip('"') != oid for etag in etags) or commits - {self.repo.commit}:
            raise CorruptFile(
                f"{self}: the server now has another file there ({etags[0][:80]}, listed was {oid}); a file must not "
                f"change while it is read: {AGAIN}"
            )
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Unreachable(f"{self}: {host} sends compressed bytes, where plain ones were asked for")
        if response.status_code == 200 and (begin, end) == (0, size):
            return
        if response.status_code != 206:
            raise Unreachable(
                f"{self}: {host} gives no ranges (status {response.status_code}): all {size:,} bytes would have to be "
                f"read; where that is meant: hf download {self.repo.name} {self.path} --revision {self.repo.commit}"
            )
        sent = response.headers.get("content-range", "no range")
        asked = f"bytes {begin}-{end - 1}/{size}"
        if sent != asked:
            raise Unreachable(f"{self}: {host} sends {sent[:80]!r}, where {asked!r} was asked for")


class _Stream(io.RawIOBase):
    """Reads a remote file, in blocks; the further it is read without a jump, the more at once."""

    def __init__(self, file: HubFile) -> None:
        self._file = file
        self._size = file.stat().st_size
        self._at = 0
        self._begin = self._end = 0  # of what was brought last
        self._ahead = BLOCK

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at < 0:
            raise InvalidInput(f"no byte {at} in {self._file}")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._at))
        if size:
            with self._brought(size).open("rb", buffering=0) as local:
                local.seek(self._at)
                size = local.readinto(memoryview(buffer)[:size])
            self._at += size
        return size

    def _brought(self, size: int) -> Path:
        end = self._at + size
        if not (self._begin <= self._at and end <= self._end):
            onward = self._begin < self._at <= self._end
            self._ahead = min(2 * self._ahead, AHEAD) if onward else BLOCK
            self._begin = self._at // BLOCK * BLOCK
            self._end = min(max(-(-end // BLOCK) * BLOCK, self._begin + self._ahead), self._size)
        return self._file.bring(self._begin, self._end - self._begin)
