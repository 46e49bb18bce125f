"""Models on the Hugging Face Hub, of which only the bytes that are looked at are read, by HTTP range.

A revision is pinned to its commit once, and every answer must be of the file that the commit's listing names: by its
content's hash (LFS: SHA-256, else git's), which is its ETag, and by its size. What arrives is kept, by that hash.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self, TypeVar, cast
from urllib.parse import quote

import httpx2
from huggingface_hub import cached_assets_path, constants, hf_hub_url, parse_hf_uri
from huggingface_hub.utils import build_hf_headers, get_session, parse_ratelimit_headers

from ..errors import AccessRefused, CorruptFile, DiskFull, InvalidInput, MissingFile, Unreachable
from .pieces import Pieces, Span
from .tensors import RemoteFile, Size, sha256

CONNECTIONS = 4
PIECE = 8 << 20  # bytes of a request
BLOCK = 1 << 16  # what is read of a header begins and ends at multiples of this
AHEAD = 1 << 20  # most that is read ahead of a header that is read from one end to the other
MAX_ANSWER = 1 << 26  # bytes of a list of files, or of branches
MAX_WHOLE = 1 << 28  # bytes of a file that is read as a whole: a config, an index, a tokenizer

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each retry of a request that failed
UNCONNECTED = 2  # retries where there is no connection at all
MOST_PAUSE = 60.0  # seconds that a server may ask us to wait
ENOUGH = 1 << 16  # bytes that make a request that was cut no failure
LATER = (408, 429, 500, 502, 503, 504)  # statuses after which it is worth to ask again
LOGIN = "log in (`hf auth login`, or set HF_TOKEN)"
AGAIN = "run it again; what has arrived is kept"

Answer = TypeVar("Answer")


class _Failed(Exception):
    """A request that may succeed when it is sent again."""

    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(why)
        self.pause = pause  # seconds that the server asks for


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


@dataclass(kw_only=True)
class Repo:
    """A model's repository at one commit. Made with `open_repo`."""

    name: str  # org/name
    revision: str  # as asked for
    commit: str  # 40 hexadecimal digits
    endpoint: str
    progress: Callable[[int, int], None] | None = None  # told (bytes read, bytes asked for) of all files together
    listing: dict[str, Entry] = field(default_factory=dict, repr=False)
    bytes_read: int = 0
    _asked_for: int = 0
    _files: dict[str, HubFile] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __str__(self) -> str:
        return f"{self.name}@{self.commit}"

    def file(self, path: str | PurePosixPath) -> HubFile:
        """A file of the repository, there or not; the same one each time."""
        return self._files.setdefault(str(path), HubFile(self, PurePosixPath(path)))

    def told(self, *, read: int = 0, asked_for: int = 0) -> None:
        with self._lock:
            self.bytes_read += read
            self._asked_for += asked_for
            if self.progress:
                self.progress(self.bytes_read, self._asked_for)


class HubFile(RemoteFile):
    """A file of a repository. Where the Hub's own cache has all of it, that is read."""

    def __init__(self, repo: Repo, path: PurePosixPath) -> None:
        self.repo, self.path = repo, path
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
        return self.entry.oid if self.entry.lfs else sha256(_cached(self) or self.whole())

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
        """All of it, here, compared with its hash.

        Raises
        ------
        CorruptFile
            Larger than such files are, or another file than the listing names; otherwise as `bring`.
        """
        if cached := _cached(self):
            return cached
        size = self.entry.size
        if size > MAX_WHOLE:
            raise CorruptFile(f"{self}: {size:,} bytes; of such a file at most {MAX_WHOLE:,} are read")
        here = self.bring(0, size)
        digest = hashlib.sha256() if self.entry.lfs else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        digest.update(here.read_bytes())
        if digest.hexdigest() != self.entry.oid:
            self._kept().forget()
            raise CorruptFile(f"{self}: what arrived is not the file that the Hub lists (its hash differs); {AGAIN}")
        return here

    def bring(self, offset: int, size: int) -> Path:
        """A file here that has these bytes: one of the Hub's own cache, or one with holes where nothing was asked for.

        Raises
        ------
        Unreachable
            No network; a server that goes on to fail, gives no ranges, or other bytes than were asked for.
        AccessRefused
            A gated repository, a token that is not accepted.
        MissingFile
            Not there, or, where HF_HUB_OFFLINE is set, not in the cache.
        CorruptFile
            The file is another than the listing names.
        OSError
            The disk is full.
        """
        if cached := _cached(self):
            return cached
        pieces = self._kept()
        if missing := pieces.missing(offset, offset + size):
            self._transfer(pieces, missing)
        return pieces.path

    def here(self, offset: int, size: int) -> int:
        if _cached(self):
            return size
        return size - sum(end - begin for begin, end in self._kept().missing(offset, offset + size))

    def _kept(self) -> Pieces:
        if self._pieces is None:
            self._pieces = Pieces(_folder(self.repo.name, "files") / self.entry.oid, self.entry.size)
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
        self.repo.told(asked_for=total)
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
                        self.repo.told(read=len(block))
            finally:
                pieces.add(first, at)

        _persist(go_on, f"{self}", lambda: at, stop)

    def _answer(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes that a server sends for this range, after it has shown that it sends them."""
        headers = {**_headers(), "Accept-Encoding": "identity", "Range": f"bytes={begin}-{end - 1}"}
        with get_session().stream(
            "GET", self.url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as response:
            _check_status(response, self.repo.name, self.repo.revision, self.repo.endpoint, str(self.path))
            self._check(response, begin, end)
            left = end - begin
            for block in response.iter_raw():  # as it arrives, so that nothing is lost where it is cut
                left -= len(block)
                if left < 0:
                    raise Unreachable(f"{self}: the server sends more than the {end - begin:,} bytes asked for")
                yield block
            if left:
                raise _Failed(f"{left:,} of {end - begin:,} bytes are missing")

    def _check(self, response: httpx2.Response, begin: int, end: int) -> None:
        size, oid, host = self.entry.size, self.entry.oid, response.url.host
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
        said, asked = response.headers.get("content-range", "no range"), f"bytes {begin}-{end - 1}/{size}"
        if said != asked:
            raise Unreachable(f"{self}: {host} sends {said[:80]!r}, where {asked!r} was asked for")


class _Stream(io.RawIOBase):
    """Reads a remote file, in blocks; the further it is read without a jump, the more at once."""

    def __init__(self, file: HubFile) -> None:
        self._file, self._size = file, file.stat().st_size
        self._at, self._begin, self._end, self._ahead = 0, 0, 0, BLOCK

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
            with self._brought(size).open("rb", buffering=0) as here:
                here.seek(self._at)
                size = here.readinto(memoryview(buffer)[:size])
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


# Asking --------------------------------------------------------------------------------------------------------------


def _headers() -> dict[str, str]:
    return build_hf_headers(library_name="darkvocab", library_version=metadata.version("darkvocab"))


def _persist(
    ask: Callable[[], Answer],
    what: str,
    progress: Callable[[], int] = lambda: 0,
    stop: threading.Event | None = None,
) -> Answer | None:
    """What `ask` gives, asked again after failures that may pass; `progress` says how far it got, `stop` ends it.

    Raises
    ------
    Unreachable
        It failed once more in a row than there are `PAUSES`; or the server asks for a longer wait.
    """
    stop = stop or threading.Event()
    failures = 0
    while not stop.is_set():
        before = progress()
        try:
            return ask()
        except httpx2.ConnectError as error:
            failed, most = _Failed(f"no connection ({error})"), UNCONNECTED
        except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
            failed, most = _Failed(str(error) or type(error).__name__), len(PAUSES)
        except _Failed as error:
            failed, most = error, len(PAUSES)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:  # a proxy, redirects without end
            raise Unreachable(f"{what}: {error}; check HF_ENDPOINT and the proxy") from None
        failures = 1 if progress() - before >= ENOUGH else failures + 1
        if failures > most:
            raise Unreachable(f"{what}: failed {failures} times in a row, the last time: {failed}; {AGAIN}")
        if failed.pause > MOST_PAUSE:
            raise Unreachable(f"{what}: {failed}, and asks to wait for {failed.pause:,.0f} s; {AGAIN} then")
        stop.wait(max(failed.pause, PAUSES[failures - 1]))
    return None


def _pause(headers: httpx2.Headers) -> float:
    """Seconds that a server asks to wait: Retry-After as a number or a date, or the Hub's RateLimit."""
    said = headers.get("retry-after", "").strip()
    if said.isdigit():
        return float(said[:9])
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and not limit.remaining else 0.0


def _check_status(response: httpx2.Response, repo: str, revision: str, endpoint: str, file: str = "") -> None:
    """Refuse what is no success, in words; what it may be worth to ask again is `_Failed`."""
    status = response.status_code
    if status < 300:
        return
    if status in LATER:
        raise _Failed(f"{response.url.host} answers {status} ({response.reason_phrase})", _pause(response.headers))
    code, page = response.headers.get("x-error-code", ""), f"{endpoint}/{repo}"
    if code == "GatedRepo":
        raise AccessRefused(f"{repo} is gated: accept its licence at {page}, then {LOGIN}")
    if code == "RevisionNotFound":
        raise MissingFile(f"{repo} has no revision {revision!r}; {page}/tree/main lists its branches and tags")
    if code == "EntryNotFound":
        raise MissingFile(f"{repo} has no file {file!r} at revision {revision!r}")
    if code == "RepoNotFound" or status == 404:
        raise MissingFile(f"{endpoint} has no model {repo!r}, or it is private: check the name, or {LOGIN}")
    if status in (401, 403):
        raise AccessRefused(f"{endpoint} refuses to show {repo} (status {status}): check your token, or {LOGIN}")
    raise Unreachable(f"{response.url.host} answers {status} ({response.reason_phrase}) when asked for {repo}")


def _ask(route: str, repo: str, revision: str, **parameters: Any) -> dict[str, Any]:
    """The JSON object that the Hub's interface answers with to a question on a repository."""
    where = f"{constants.ENDPOINT}/api/models/{repo}{route}"

    def once() -> bytes:
        with get_session().stream(
            "GET", where, params=parameters, headers=_headers(), timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as response:
            _check_status(response, repo, revision, constants.ENDPOINT)
            body = b""
            for block in response.iter_bytes():
                body += block
                if len(body) > MAX_ANSWER:
                    raise Unreachable(f"{where}: answers with more than {MAX_ANSWER:,} bytes; is it a Hub?")
            return body

    try:
        answer = json.loads(cast(bytes, _persist(once, where)))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{where}: no listing of {repo} ({error}); is it a Hub?") from None
    if not isinstance(answer, dict):
        raise CorruptFile(f"{where}: no listing of {repo} (not a JSON object); is it a Hub?")
    return answer


# Repositories --------------------------------------------------------------------------------------------------------


def parse(text: str) -> tuple[str, str | None, str]:
    """Repository, revision (None: the default) and path in it, of `org/name[@revision][/path]`.

    Also with hf:// in front, or as an address of the Hub's pages.

    Raises
    ------
    InvalidInput
        None of these; a data set or a space.

    Examples
    --------
    >>> parse("org/name@step10/model.gguf")
    ('org/name', 'step10', 'model.gguf')
    """
    uri = parse_hf_uri(text if "://" in text else f"hf://{text}", endpoint=constants.ENDPOINT)
    if uri.type != "model":
        raise InvalidInput(f"{text!r} names a {uri.type}, not a model")
    return uri.id, uri.revision, uri.path_in_repo.rstrip("/")


def open_repo(name: str, revision: str | None, progress: Callable[[int, int], None] | None = None) -> Repo:
    """A repository, its revision pinned to a commit, with the list of its files.

    Raises
    ------
    MissingFile, AccessRefused, Unreachable
        As `HubFile.bring`; no such repository or revision.
    CorruptFile
        A listing that is none.
    """
    asked = revision or constants.DEFAULT_REVISION
    opened = _from_cache(name, asked) if constants.is_offline_mode() or _is_commit(asked) else None
    if opened is None and constants.is_offline_mode():
        raise MissingFile(
            f"no revision {asked!r} of {name} is in the cache, and HF_HUB_OFFLINE is set; run it once without"
        )
    commit, listing = opened or _ask_listing(name, asked)
    return Repo(
        name=name, revision=asked, commit=commit, endpoint=constants.ENDPOINT, progress=progress, listing=listing
    )


def revisions(name: str) -> dict[str, str]:
    """Commit of every branch and tag of a repository, by name; where HF_HUB_OFFLINE is set, of those in the cache.

    Raises
    ------
    MissingFile, AccessRefused, Unreachable, CorruptFile
        As `open_repo`.
    """
    if constants.is_offline_mode():
        return _known_revisions(name)
    answer = _ask("/refs", name, constants.DEFAULT_REVISION)
    try:
        return {str(ref["name"]): str(ref["targetCommit"]) for kind in ("tags", "branches") for ref in answer[kind]}
    except (KeyError, TypeError) as error:
        raise CorruptFile(f"{constants.ENDPOINT}: no listing of {name} ({error!r}); is it a Hub?") from None


def _is_commit(revision: str) -> bool:
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def _ask_listing(name: str, revision: str) -> tuple[str, dict[str, Entry]]:
    answer = _ask(f"/revision/{quote(revision, safe='')}", name, revision, blobs=True)
    try:
        commit = answer["sha"]
        if not _is_commit(commit) or (_is_commit(revision) and commit != revision):
            raise InvalidInput(f"commit {commit[:80]!r}")
        listing = {
            held["rfilename"]: _entry(held)
            for held in answer["siblings"]
            if not {"", ".", ".."} & set(held["rfilename"].split("/"))
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptFile(f"{constants.ENDPOINT}: no listing of {name} ({error!r}); is it a Hub?") from None
    _remember(name, revision, commit, listing)
    return commit, listing


def _entry(held: dict[str, Any]) -> Entry:
    lfs = held.get("lfs")
    return Entry(lfs["size"], lfs["sha256"], True) if lfs else Entry(held["size"], held["blobId"], False)


# The cache -----------------------------------------------------------------------------------------------------------
#
# What was read is kept under HF_HOME/assets (HF_ASSETS_CACHE), where the Hub's library wants what others make of it:
# files/HASH with its record, commits/COMMIT.json, revisions.json. The library's own cache (HF_HUB_CACHE) is only read.


def _folder(repo: str, part: str) -> Path:
    return cached_assets_path(
        "darkvocab", namespace=f"models--{repo}", subfolder=part, assets_dir=constants.HF_ASSETS_CACHE
    )


def _hub_folder(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")


def _cached(file: HubFile) -> Path | None:
    """The whole file in the Hub's own cache: of this commit, or of another with the same content."""
    folder = _hub_folder(file.repo.name)
    for found in (folder / "snapshots" / file.repo.commit / file.path, folder / "blobs" / file.entry.oid):
        if found.is_file() and found.stat().st_size == file.entry.size:
            return found
    return None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.write_text(json.dumps(value), "utf-8")
    temporary.replace(path)


def _remember(name: str, revision: str, commit: str, listing: dict[str, Entry]) -> None:
    _write_json(_folder(name, "commits") / f"{commit}.json", {path: asdict(entry) for path, entry in listing.items()})
    if not _is_commit(revision):
        known = _folder(name, "commits").with_name("revisions.json")
        _write_json(known, {**_as_dict(_read_json(known)), revision: commit})


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _known_revisions(name: str) -> dict[str, str]:
    """Commits by revision, as the Hub's own cache has them, and as they were last read here."""
    refs = _hub_folder(name) / "refs"
    theirs = {
        path.relative_to(refs).as_posix(): path.read_text("utf-8").strip()
        for path in sorted(refs.rglob("*"))
        if path.is_file()
    }
    ours = _as_dict(_read_json(_folder(name, "commits").with_name("revisions.json")))
    return {
        name: commit for name, commit in {**theirs, **ours}.items() if isinstance(commit, str) and _is_commit(commit)
    }


def _from_cache(name: str, revision: str) -> tuple[str, dict[str, Entry]] | None:
    """Commit and files of a revision that was read before, or that the Hub's own cache has."""
    commit = revision if _is_commit(revision) else _known_revisions(name).get(revision)
    if commit is None:
        return None
    kept = _as_dict(_read_json(_folder(name, "commits") / f"{commit}.json"))
    try:
        listing = {path: Entry(**entry) for path, entry in kept.items()}
    except (TypeError, ValueError):
        listing = {}
    if not listing and constants.is_offline_mode():
        listing = _snapshot(_hub_folder(name) / "snapshots" / commit)
    return (commit, listing) if listing else None


def _snapshot(folder: Path) -> dict[str, Entry]:
    """The files that the Hub's own cache has of a commit; its blobs are named by their hashes."""
    listing = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        oid = path.resolve().name
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", oid):
            oid = "0" * 40  # a cache without links: what is there whole is not compared with a hash
        listing[path.relative_to(folder).as_posix()] = Entry(path.stat().st_size, oid, len(oid) == 64)
    return listing
