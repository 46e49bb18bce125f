"""Connect to a server: parallel requests, retries after failures that may pass, and a key that is in no message."""

import contextlib
import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx2

from ..errors import AccessRefused, InvalidInput
from ..sources.hub.requests import RETRY_STATUSES, whole
from ..text import shorten

FIRST_AT_ONCE = 4  # requests, if a server does not say how many it takes
MOST_AT_ONCE = 64
GAIN = 1.1  # least gain of the rate by twice as many requests
BUSY = (429, 503)  # statuses that ask for fewer requests
TIMEOUT = httpx2.Timeout(300, connect=10)  # seconds; a server may have to load the model first
Task = TypeVar("Task")
Result = TypeVar("Result")


class Connection:
    """Connection to a server, with the key of an environment variable in the header of requests and nowhere else.

    The number of parallel requests is doubled while that is faster, and halved when the server is busy. Redirects are
    not followed.
    """

    def __init__(self, endpoint: str, api_key_env: str | None = None) -> None:
        """Check address and key; InvalidInput for an invalid one, and for an address with a password."""
        self.url = _address(endpoint)
        self.key = os.environ.get(api_key_env, "").strip() if api_key_env else None
        if api_key_env and not (self.key and self.key.isascii() and self.key.isprintable()):
            raise InvalidInput(f"the environment variable {api_key_env} is not set, or holds no key")
        self.at_once = FIRST_AT_ONCE
        self.is_settled = False  # no more at once are tried
        self._rate: tuple[str, float] = ("", 0.0)  # of a kind of task: others may cost more, and are not compared
        self._stop = threading.Event()
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self._client = httpx2.Client(headers=headers, timeout=TIMEOUT)
        weakref.finalize(self, self._client.close)

    def send(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Send a GET, or a POST of a body; return status and JSON (None for something else) of the answer.

        Raises AccessRefused where the server asks for a key, Unreachable where it fails again and again.
        """
        status = 0

        @contextlib.contextmanager
        def answer() -> Iterator[httpx2.Response]:
            nonlocal status
            with self._client.stream("GET" if body is None else "POST", self.url + path, json=body) as response:
                status = response.status_code
                if status in BUSY:
                    self.at_once = max(1, self.at_once // 2)
                    self.is_settled = True
                if status in RETRY_STATUSES:
                    raise httpx2.HTTPStatusError(f"status {status}", request=response.request, response=response)
                yield response

        content = whole(answer, self.url + path, self._stop)
        if status in (401, 403):
            what = "does not accept the key" if self.key else "asks for a key"
            raise AccessRefused(f"{self.url} {what} (status {status}): --api-key-env names the variable that holds one")
        try:
            return status, json.loads(content)
        except (ValueError, RecursionError):
            return status, None

    def together(self, work: Callable[[Task], Result], tasks: Sequence[Task], kind: str) -> list[Result]:
        """Run tasks of a kind, each of which sends requests, in parallel; an error or interruption ends all."""
        begun = time.monotonic()
        pool = ThreadPoolExecutor(self.at_once)
        try:
            results = list(pool.map(work, tasks))
        except BaseException:
            self._stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        self.measured(kind, len(tasks) / (time.monotonic() - begun))
        return results

    def measured(self, kind: str, rate: float) -> None:
        """Double the parallel requests while that makes the first kind of task faster; else halve them, and settle."""
        first, last = self._rate
        if self.is_settled or first not in ("", kind):
            return
        is_faster = rate > GAIN * last
        self.is_settled = not is_faster or self.at_once == MOST_AT_ONCE
        self.at_once = min(MOST_AT_ONCE, 2 * self.at_once) if is_faster else self.at_once // 2
        self._rate = kind, rate

    def said(self, answer: Any) -> str:
        """Return the server's message of an error, short and without the key."""
        error = answer.get("error", answer) if isinstance(answer, dict) else answer
        message = error.get("message", error) if isinstance(error, dict) else error
        return shorten(" ".join(str(message or "").replace(self.key or "\0", "***").split()), 200)


def _address(endpoint: str) -> str:
    try:
        url = httpx2.URL(endpoint)
    except (httpx2.InvalidURL, TypeError):
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidInput("--endpoint takes the URL of a server, like http://localhost:8080")
    if url.userinfo or url.query or url.fragment:
        raise InvalidInput("--endpoint takes no user, password or query: a key goes by --api-key-env")
    return str(url).rstrip("/")
