"""Requests to the Hub: with the user's token, refused in words, sent again after failures that may pass.

The library's own retries wait as long as a server asks for, know no date in Retry-After, and cannot be stopped.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from email.utils import parsedate_to_datetime
from importlib import metadata
from typing import Any, TypeVar

import httpx2
from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers, get_session, parse_ratelimit_headers

from ...errors import AccessRefused, CorruptFile, DarkvocabError, MissingFile, Unreachable

MAX_ANSWER = 1 << 26  # bytes of a list of files, or of branches
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each retry of a request that failed
UNCONNECTED = 2  # retries where there is no connection at all
MOST_PAUSE = 60.0  # seconds that a server may ask us to wait
ENOUGH = 1 << 16  # bytes that make a request that was cut no failure
RETRY_STATUSES = (408, 429, 500, 502, 503, 504)  # statuses after which it is worth to ask again
LOGIN = "log in (`hf auth login`, or set HF_TOKEN)"
AGAIN = "run it again; what has arrived is kept"

Result = TypeVar("Result")


@contextlib.contextmanager
def get(url: str, repo: str, revision: str, file: str = "", **options: Any) -> Iterator[httpx2.Response]:
    """Open the answer to a GET; `repo`, `revision` and `file` are named where it is refused.

    Raises MissingFile, AccessRefused or Unreachable where the server refuses; httpx2's HTTPError or InvalidURL where it
    does not answer, or so that it is worth to ask again.
    """
    headers = build_hf_headers(library_name="darkvocab", library_version=metadata.version("darkvocab"))
    headers |= options.pop("headers", {})
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout, **options) as response:
        status = response.status_code
        answers = f"{response.url.host} answers {status} ({response.reason_phrase})"
        if status in RETRY_STATUSES:
            raise httpx2.HTTPStatusError(answers, request=response.request, response=response)
        if refusal := _refusal(status, response.headers.get("x-error-code"), repo, revision, file):
            raise refusal
        if status >= 300:
            raise Unreachable(f"{answers} when asked for {repo}")
        yield response


def _refusal(status: int, code: str | None, repo: str, revision: str, file: str) -> DarkvocabError | None:
    page = f"{constants.ENDPOINT}/{repo}"
    if code == "GatedRepo":
        return AccessRefused(f"{repo} is gated: accept its licence at {page}, then {LOGIN}")
    if code == "RevisionNotFound":
        return MissingFile(f"{repo} has no revision {revision!r}; {page}/tree/main lists its branches and tags")
    if code == "EntryNotFound":
        return MissingFile(f"{repo} has no file {file!r} at revision {revision!r}")
    if code == "RepoNotFound" or status == 404:
        return MissingFile(f"{constants.ENDPOINT} has no model {repo!r}, or it is private: check the name, or {LOGIN}")
    if status in (401, 403):
        says = f"{constants.ENDPOINT} refuses to show {repo} (status {status})"
        return AccessRefused(f"{says}: check your token, or {LOGIN}")
    return None


def blocks(
    ask: Callable[[int], Iterator[bytes]], what: str, at: int = 0, stop: threading.Event | None = None
) -> Iterator[bytes]:
    """Yield what `ask(at)` yields, from byte `at` on; after failures that may pass, `ask` again from where it was cut.

    Setting `stop` ends it, also in a pause. Raises Unreachable where it failed once more in a row than there are
    `PAUSES`, or the server asks for a longer wait.
    """
    stop = stop or threading.Event()
    failures = 0
    while not stop.is_set():
        first = at
        most = len(PAUSES)
        pause = 0.0
        try:
            for block in ask(at):
                at += len(block)
                yield block
            return
        except httpx2.ConnectError as error:
            why = f"no connection ({error})"
            most = UNCONNECTED
        except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
            why = str(error) or type(error).__name__
        except httpx2.HTTPStatusError as error:
            why = str(error)
            pause = pause_asked_for(error.response.headers)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:  # a proxy, redirects without end
            raise Unreachable(f"{what}: {error}; check HF_ENDPOINT or --endpoint, and the proxy") from None
        failures = 1 if at - first >= ENOUGH else failures + 1
        if failures > most:
            raise Unreachable(f"{what}: failed {failures} times in a row, the last time: {why}; {AGAIN}")
        if pause > MOST_PAUSE:
            raise Unreachable(f"{what}: {why}, and asks to wait for {pause:,.0f} s; {AGAIN} then")
        stop.wait(max(pause, PAUSES[failures - 1]))


def whole(
    answer: Callable[[], AbstractContextManager[httpx2.Response]], what: str, stop: threading.Event | None = None
) -> bytes:
    """Return the body of an answer; raises as `blocks`, and Unreachable for more than `MAX_ANSWER` bytes."""

    def body(_: int) -> Iterator[bytes]:
        content = bytearray()
        with answer() as response:
            for block in response.iter_bytes():
                content += block
                if len(content) > MAX_ANSWER:
                    raise Unreachable(f"{what}: answers with more than {MAX_ANSWER:,} bytes, which no answer has")
        yield bytes(content)

    return b"".join(blocks(body, what, stop=stop))


def ask(route: str, repo: str, revision: str, read: Callable[[Any], Result], **parameters: Any) -> Result:
    """Return what `read` makes of the JSON that the Hub's interface answers with to a question on a repository.

    Raises MissingFile, AccessRefused and Unreachable as `get` and `blocks`, and for more than `MAX_ANSWER` bytes;
    CorruptFile where `read` cannot make anything of it.
    """
    url = f"{constants.ENDPOINT}/api/models/{repo}{route}"
    content = whole(lambda: get(url, repo, revision, params=parameters), url)
    try:
        return read(json.loads(content))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CorruptFile(f"{url}: no listing of {repo} ({error!r}); is it a Hub?") from None


def pause_asked_for(headers: httpx2.Headers) -> float:
    """Return the seconds that a server asks to wait, by Retry-After (a number or a date) or the Hub's RateLimit."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text[:9])
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and not limit.remaining else 0.0
