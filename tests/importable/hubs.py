"""A stand-in for the Hub on loopback: its routes, redirects and ranges, and what can go wrong with them."""

import hashlib
import io
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_good"
LARGE = (".safetensors", ".bin", ".gguf", ".pt", "tokenizer.json")  # what LFS keeps


@dataclass
class Blob:
    """A file: its bytes (of a `Path`, read when they are sent), and the hash that the Hub knows it by."""

    content: bytes | Path
    lfs: bool

    def __post_init__(self):
        in_memory = isinstance(self.content, bytes)
        self.size = len(self.content) if in_memory else self.content.stat().st_size
        with io.BytesIO(self.content) if in_memory else self.content.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        git = hashlib.sha1(b"blob %d\0" % self.size + (b"" if self.lfs else self.read(0, self.size))).hexdigest()
        self.oid = self.sha256 if self.lfs else git

    def read(self, begin, end):
        if isinstance(self.content, bytes):
            return self.content[begin:end]
        with self.content.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin)


@dataclass
class Fault:
    """Something that goes wrong with requests for paths that match, `times` times after the first `after`."""

    kind: str  # status, cut, no ranges, range, short, long, stall, etag, no etag, commit, gzip, body, listing
    path: str = ""
    times: int = 1
    after: int = 0
    value: object = None
    headers: dict = field(default_factory=dict)

    def strikes(self, path):
        if not re.search(self.path, path) or not self.times:
            return False
        self.after -= 1
        if self.after >= 0:
            return False
        self.times -= 1
        return True


class Hub:
    """Repositories by name, each with revisions; `served` counts the bytes of bodies, `asked` keeps the requests."""

    def __init__(self):
        self.commits, self.refs, self.tags, self.gated, self.private = {}, {}, {}, set(), set()
        self.faults, self.asked, self.served, self.sent_token = [], [], 0, {}
        self.blobs = {}
        self._lock = threading.Lock()

    def add(self, name, files, revision="main", *, tag=False):
        """Make a revision of these files, {path: bytes or Path}; its commit."""
        held = {path: Blob(content, path.endswith(LARGE)) for path, content in files.items()}
        identity = json.dumps([name, {path: blob.oid for path, blob in sorted(held.items())}])
        commit = hashlib.sha1(identity.encode()).hexdigest()
        self.commits[name, commit] = held
        (self.tags if tag else self.refs).setdefault(name, {})[revision] = commit
        self.blobs.update({blob.sha256: blob for blob in held.values()})
        return commit

    def fail(self, kind, path="", **how):
        self.faults.append(Fault(kind, path, **how))

    def asked_for(self, pattern):
        """Requests whose path matches: (method, path, headers)."""
        return [request for request in self.asked if re.search(pattern, request[1])]

    def _strike(self, path):
        with self._lock:
            return next((fault for fault in self.faults if fault.strikes(path)), None)

    @contextmanager
    def running(self):
        """The endpoint, while it serves; files of LFS come from another port, as from another host."""
        servers = [_server(self, kind) for kind in (_Pages, _Storage)]
        self.endpoint, self.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
        threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            for server, thread in zip(servers, threads, strict=True):
                server.shutdown()
                server.server_close()
                thread.join()


def _server(hub, handler):
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request, client_address):
            """A client that has heard enough."""

    Server.hub = hub
    return Server(("127.0.0.1", 0), handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self._handle()

    def do_GET(self):
        self._handle()

    def _handle(self):
        hub, path = self.server.hub, unquote(self.path)
        with hub._lock:
            hub.asked.append((self.command, path, {name.lower(): text for name, text in self.headers.items()}))
        self.fault = hub._strike(path)
        if self.fault and self.fault.kind == "status":
            self._send(self.fault.value, b"", self.fault.headers)
        else:
            self._answer(path)

    def _send(self, status, body, headers=(), *, length=None):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "HEAD":
            return
        for at in range(0, len(body), 1 << 18):
            block = body[at : at + (1 << 18)]
            self.wfile.write(block)
            with self.server.hub._lock:
                self.server.hub.served += len(block)

    def _send_blob(self, blob, headers):
        """A file or the range of it that is asked for, or what a fault makes of that."""
        kind = self.fault.kind if self.fault else None
        asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", self.headers.get("Range", ""))
        begin, end = (int(asked[1]), int(asked[2]) + 1) if asked else (0, blob.size)
        partial = asked is not None and kind != "no ranges"
        body = blob.read(begin, end) if partial else blob.read(0, blob.size)
        headers = dict(headers)
        if partial:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{blob.size}"
        if kind == "range":
            headers["Content-Range"] = self.fault.value or f"bytes {begin + 1}-{end}/{blob.size}"
        elif kind == "gzip":
            headers["Content-Encoding"] = "gzip"
        elif kind == "body":
            body = bytes(len(body))
        elif kind == "cut":  # after this many bytes
            self._send(206 if partial else 200, body[: self.fault.value or len(body) // 2], headers, length=len(body))
            self.close_connection = True
            return
        elif kind == "stall":  # after this many bytes, until the client has gone
            sent, stalled = self.fault.value
            self._send(206 if partial else 200, body[:sent], headers, length=len(body))
            self.wfile.flush()
            stalled.set()
            self.rfile.read(1)
            self.close_connection = True
            return
        elif kind == "short":
            body = body[: len(body) // 2]
        elif kind == "long":
            body += b"\0" * 1000
        self._send(206 if partial else 200, body, headers)


class _Pages(_Handler):
    """The Hub itself."""

    def _answer(self, path):
        hub = self.server.hub
        route = urlsplit(path).path
        name = re.match(r"/(?:api/models/)?([^/]+/[^/]+)", route)
        if not name or name[1] not in {key for key, _ in hub.commits} | hub.private:
            return self._refuse(401 if "Authorization" not in self.headers else 404, "RepoNotFound")
        name = name[1]
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if name in hub.private and not allowed:
            return self._refuse(401, "RepoNotFound")
        if resolve := re.fullmatch(r"/[^/]+/[^/]+/resolve/([^/]+)/(.+)", route):
            if name in hub.gated and not allowed:
                return self._refuse(401 if "Authorization" not in self.headers else 403, "GatedRepo")
            return self._resolve(name, *resolve.groups())
        if route.endswith("/refs"):
            refs = {"branches": self._refs(hub.refs, name), "tags": self._refs(hub.tags, name), "converts": []}
            return self._listing(refs)
        revision = re.fullmatch(r"/api/models/[^/]+/[^/]+/revision/(.+)", route)
        commit = self._commit(name, revision[1] if revision else "main")
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        listing = {"id": name, "sha": commit, "siblings": [self._sibling(*item) for item in self._files(name, commit)]}
        return self._listing(listing)

    def _refs(self, refs, name):
        return [
            {"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": commit}
            for ref, commit in refs.get(name, {}).items()
        ]

    def _commit(self, name, revision):
        hub = self.server.hub
        if (name, revision) in hub.commits:
            return revision
        return hub.refs.get(name, {}).get(revision) or hub.tags.get(name, {}).get(revision)

    def _files(self, name, commit):
        return self.server.hub.commits[name, commit].items()

    def _sibling(self, path, blob):
        lfs = {"lfs": {"size": blob.size, "sha256": blob.sha256, "pointerSize": 130}} if blob.lfs else {}
        return {"rfilename": path, "size": blob.size, "blobId": blob.oid if not blob.lfs else "0" * 40, **lfs}

    def _refuse(self, status, code):
        self._send(status, b'{"error": "no"}', {"X-Error-Code": code, "X-Error-Message": "no"})

    def _listing(self, listing):
        value = self.fault.value(listing) if self.fault and self.fault.kind == "listing" else listing
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self._send(200, body, {"Content-Type": "application/json"})

    def _resolve(self, name, revision, path):
        commit = self._commit(name, revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        blob = dict(self._files(name, commit)).get(path)
        if blob is None:
            return self._refuse(404, "EntryNotFound")
        kind = self.fault.kind if self.fault else None
        headers = {"X-Repo-Commit": "f" * 40 if kind == "commit" else commit}
        etag = "" if kind == "no etag" else '"' + ("e" * 64 if kind == "etag" else blob.oid) + '"'
        if not blob.lfs:
            return self._send_blob(blob, {**headers, "ETag": etag})
        where = f"{self.server.hub.storage}/blobs/{blob.sha256}?signature=x&until={formatdate()}"
        linked = {"X-Linked-Etag": etag, "X-Linked-Size": blob.size, "Location": where.replace(" ", "+")}
        return self._send(302, b"", {**headers, **linked})


class _Storage(_Handler):
    """The other host, where LFS files lie: it must not see a token."""

    def _answer(self, path):
        if "Authorization" in self.headers:
            return self._send(400, b"a token")
        blob = self.server.hub.blobs[re.match(r"/blobs/([0-9a-f]{64})", path)[1]]
        return self._send_blob(blob, {"ETag": '"of the storage"'})
