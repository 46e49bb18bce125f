"""Connections to a server: requests side by side, sent again after failures that may pass, with a key in no message."""

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

FIRST_AT_ONCE = 4  # requests, where a server does not say how many it takes
MOST_AT_ONCE = 64
GAIN = 1.1  # of the rate, which makes twice as many requests worth it
BUSY = (429, 503)  # statuses that ask for fewer requests
TIMEOUT = httpx2.Timeout(300, connect=10)  # seconds; a server may have to load the model first
Task = TypeVar("Task")
Result = TypeVar("Result")


class Connection:
    """Requests to a server, with the key of an environment variable in their header and nowhere else.

    As many go at once as make it faster, and half as many when it says that it is busy. Redirects are not followed.
    """

    def __init__(self, endpoint: str, api_key_env: str | None = None) -> None:
        """Check the address and the key; InvalidInput where one of them is none, or the address holds a password."""
        self.url = _address(endpoint)
        self.key = os.environ.get(api_key_env, "").strip() if api_key_env else None
        if api_key_env and not (self.key and self.key.isascii() and self.key.isprintable()):
            raise InvalidInput(f"the environment variable {api_key_env} is not set, or holds no key")
        self.at_once = FIRST_AT_ONCE
        self.is_settled = False  # whether more at once are not tried
        self._rate: tuple[str, float] = ("", 0.0)  # what it is of: others are not compared with it, they may cost more
        self._stop = threading.Event()
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self._client = httpx2.Client(headers=headers, timeout=TIMEOUT)
        weakref.finalize(self, self._client.close)

    def send(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Return status and JSON (None where it is none) of the answer to a GET, or to a POST of a body.

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
        """Do tasks of a kind, each of which sends requests; an error or an interruption ends all of them."""
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
        """Send twice as many requests at once from now on, where the last time that made the first kind faster."""
        first, last = self._rate
        if self.is_settled or first not in ("", kind):
            return
        is_faster = rate > GAIN * last
        self.is_settled = not is_faster or self.at_once == MOST_AT_ONCE
        self.at_once = min(MOST_AT_ONCE, 2 * self.at_once) if is_faster else self.at_once // 2
        self._rate = kind, rate

    def said(self, answer: Any) -> str:
        """Return what the server says of an error, short and without the key."""
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
