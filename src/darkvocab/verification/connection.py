"""Connections to a server: requests side by side, sent again after failures that may pass, with a key in no message."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx2

from ..errors import AccessRefused, InvalidInput
from ..sources.hub.requests import LATER, whole
from ..text import shorten

FIRST_AT_ONCE = 4  # requests, where a server does not say how many it takes
MOST_AT_ONCE = 64
GAIN = 1.1  # of the rate, which makes twice as many requests worth it
BUSY = (429, 503)  # statuses that ask for fewer requests
TIMEOUT = httpx2.Timeout(300, connect=10)  # seconds; a server may have to load the model first
Task = TypeVar("Task")
Result = TypeVar("Result")


class Connection:
    """Requests to one server: as many at once as make it faster, half as many whenever it says that it is busy.

    The key of an environment variable goes into the header of each request, and nowhere else. Redirects are not
    followed.
    """

    def __init__(self, endpoint: str, api_key_env: str | None = None) -> None:
        """Check the address; InvalidInput where it is none, or holds a password, or there is no such variable."""
        self.url = address(endpoint)
        self.key = _key(api_key_env)
        self.at_once = FIRST_AT_ONCE
        self.is_settled = False  # whether more at once are not tried
        self._rate = 0.0
        self._first: str | None = None
        self._n_open = 0
        self._turn = threading.Condition()
        self._stop = threading.Event()
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx2.Limits(max_keepalive_connections=MOST_AT_ONCE)
        self._client = httpx2.Client(headers=headers, timeout=TIMEOUT, limits=limits)
        weakref.finalize(self, self._client.close)

    def send(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Return the status and the JSON of the answer to a GET, or to a POST of a body; None where it is no JSON.

        Raises AccessRefused where the server asks for a key, Unreachable where it fails again and again.
        """
        url = self.url + path
        status = 0

        @contextlib.contextmanager
        def answer() -> Iterator[httpx2.Response]:
            nonlocal status
            with self._client.stream("GET" if body is None else "POST", url, json=body) as response:
                status = response.status_code
                if status in BUSY:
                    self.at_once = max(1, self.at_once // 2)
                    self.is_settled = True
                if status in LATER:
                    raise httpx2.HTTPStatusError(f"status {status}", request=response.request, response=response)
                yield response

        with self._turn:
            self._turn.wait_for(lambda: self._n_open < self.at_once)
            self._n_open += 1
        try:
            content = whole(answer, url, self._stop, "--endpoint")
        finally:
            with self._turn:
                self._n_open -= 1
                self._turn.notify()
        if status in (401, 403):
            what = "does not accept the key" if self.key else "asks for a key"
            raise AccessRefused(f"{url} {what} (status {status}): --api-key-env names the variable that holds one")
        try:
            return status, json.loads(content)
        except (ValueError, RecursionError):
            return status, None

    def together(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """Do tasks that send requests, as many at once as may be; an error or an interruption ends all of them."""
        pool = ThreadPoolExecutor(self.at_once)
        try:
            return list(pool.map(work, tasks))
        except BaseException:
            self._stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def measured(self, what: str, rate: float) -> None:
        """Take note of a rate: twice as many requests at once are tried, as long as that makes the first `what` faster.

        Others are not compared with it: they may cost more.
        """
        self._first = self._first or what
        if self.is_settled or what != self._first:
            return
        if rate > GAIN * self._rate and self.at_once < MOST_AT_ONCE:
            self._rate = rate
            self.at_once *= 2
        else:
            self.is_settled = True
            self.at_once = max(1, self.at_once // 2) if rate <= GAIN * self._rate else self.at_once

    def said(self, status: int, answer: Any) -> str:
        """Return what the server says of an error, short and without the key."""
        error = answer.get("error", answer) if isinstance(answer, dict) else answer
        message = error.get("message", error) if isinstance(error, dict) else error
        text = shorten(" ".join(str(message or "").split()), 200)
        return f"status {status}{f', {text}' if text else ''}".replace(self.key or "\0", "***")


def address(endpoint: str) -> str:
    """Return the address of a server without a slash at its end; InvalidInput where it is none, or holds more.

    Examples
    --------
    >>> address("http://localhost:8080/v1/")
    'http://localhost:8080/v1'
    """
    try:
        url = httpx2.URL(endpoint)
    except (httpx2.InvalidURL, TypeError):
        raise InvalidInput("--endpoint takes the URL of a server, like http://localhost:8080") from None
    if url.userinfo or url.query or url.fragment:
        raise InvalidInput("--endpoint takes no user, password or query: a key goes by --api-key-env")
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidInput(f"--endpoint takes the URL of a server, like http://localhost:8080; got {endpoint!r}")
    return str(url).rstrip("/")


def _key(variable: str | None) -> str | None:
    key = None if variable is None else os.environ.get(variable, "").strip()
    if key == "":
        raise InvalidInput(f"the environment variable {variable} is not set, which --api-key-env names")
    if key and not (key.isascii() and key.isprintable()):
        raise InvalidInput(
            f"the environment variable {variable} holds what is no key: it has other than ASCII characters"
        )
    return key
