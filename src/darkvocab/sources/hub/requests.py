"""Requests to the Hub: with the user's token, errors in words, and retries after failures that may pass.

The library's own retries wait as long as a server asks, ignore dates in Retry-After, and cannot be stopped.
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
from ..tensors import SENTENCES

MAX_ANSWER = 1 << 26  # bytes of a list of files, or of branches
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each retry of a request that failed
UNCONNECTED = 2  # retries where there is no connection at all
MOST_PAUSE = 60.0  # seconds that a server may ask us to wait
ENOUGH = 1 << 16  # bytes of a cut answer from which it does not count as a failure
RETRY_STATUSES = (408, 429, 500, 502, 503, 504)
LOGIN = "log in (`hf auth login`, or set HF_TOKEN)"
AGAIN = "run it again; what has arrived is kept"
REFUSALS: dict[str, str] = SENTENCES["hub"]

Result = TypeVar("Result")


@contextlib.contextmanager
def get(url: str, repo: str, revision: str, file: str = "", **options: Any) -> Iterator[httpx2.Response]:
    """Open the answer to a GET; errors name `repo`, `revision` and `file`.

    Raises MissingFile, AccessRefused or Unreachable where the server refuses; httpx2's HTTPError or InvalidURL where it
    does not answer, or with one of `RETRY_STATUSES`.
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
    """Return the error of a refused request, by the Hub's code, else by the status; None where it is not refused."""
    reason = code if code in REFUSALS else {404: "RepoNotFound", 401: "refused", 403: "refused"}.get(status)
    if reason is None:
        return None
    facts = {"repo": repo, "revision": revision, "file": file, "status": status, "login": LOGIN}
    error = AccessRefused if reason in ("GatedRepo", "refused") else MissingFile
    return error(REFUSALS[reason].format(**facts, hub=constants.ENDPOINT))


def blocks(
    ask: Callable[[int], Iterator[bytes]], what: str, at: int = 0, stop: threading.Event | None = None
) -> Iterator[bytes]:
    """Yield the blocks of `ask(at)`, from byte `at` on; after failures that may pass, ask again from the cut on.

    Setting `stop` ends it, also in a pause. Raises Unreachable after more failures in a row than there are `PAUSES`, or
    where the server asks to wait longer than `MOST_PAUSE`.
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
    """Ask the Hub's API about a repository, and return what `read` makes of the JSON.

    Raises MissingFile, AccessRefused and Unreachable as `get` and `whole`, CorruptFile where `read` fails.
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
