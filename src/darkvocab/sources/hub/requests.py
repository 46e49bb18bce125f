"""Ask the Hub, again where a failure may pass, and refuse in words."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from importlib import metadata
from typing import Any, TypeVar, cast

import httpx2
from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers, get_session, parse_ratelimit_headers

from ...errors import AccessRefused, CorruptFile, MissingFile, Unreachable

MAX_ANSWER = 1 << 26  # bytes of a list of files, or of branches
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each retry of a request that failed
UNCONNECTED = 2  # retries where there is no connection at all
MOST_PAUSE = 60.0  # seconds that a server may ask us to wait
ENOUGH = 1 << 16  # bytes that make a request that was cut no failure
LATER = (408, 429, 500, 502, 503, 504)  # statuses after which it is worth to ask again
LOGIN = "log in (`hf auth login`, or set HF_TOKEN)"
AGAIN = "run it again; what has arrived is kept"

Answer = TypeVar("Answer")


class Failed(Exception):
    """A request that may succeed when it is sent again."""

    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(why)
        self.pause = pause  # seconds that the server asks for


def hub_headers() -> dict[str, str]:
    """Return the headers of every request: who asks, and the user's token."""
    return build_hf_headers(library_name="darkvocab", library_version=metadata.version("darkvocab"))


def persist(
    once: Callable[[], Answer],
    what: str,
    progress: Callable[[], int] = lambda: 0,
    stop: threading.Event | None = None,
) -> Answer | None:
    """Call `once`, and again after failures that may pass, and return its answer; None where `stop` was set.

    Parameters
    ----------
    what : what is asked for, for the error
    progress : returns how many bytes have arrived: where many have, the next failure is a first one again

    Raises
    ------
    Unreachable
        It failed once more in a row than there are `PAUSES`; or the server asks for a longer wait.
    """
    stop = stop or threading.Event()
    failures = 0
    while not stop.is_set():
        before = progress()
        most = len(PAUSES)
        try:
            return once()
        except httpx2.ConnectError as error:
            failure = Failed(f"no connection ({error})")
            most = UNCONNECTED
        except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
            failure = Failed(str(error) or type(error).__name__)
        except Failed as error:
            failure = error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:  # a proxy, redirects without end
            raise Unreachable(f"{what}: {error}; check HF_ENDPOINT and the proxy") from None
        failures = 1 if progress() - before >= ENOUGH else failures + 1
        if failures > most:
            raise Unreachable(f"{what}: failed {failures} times in a row, the last time: {failure}; {AGAIN}")
        if failure.pause > MOST_PAUSE:
            raise Unreachable(f"{what}: {failure}, and asks to wait for {failure.pause:,.0f} s; {AGAIN} then")
        stop.wait(max(failure.pause, PAUSES[failures - 1]))
    return None


def pause_asked_for(headers: httpx2.Headers) -> float:
    """Return the seconds that a server asks to wait: Retry-After as a number or a date, or the Hub's RateLimit."""
    said = headers.get("retry-after", "").strip()
    if said.isdigit():
        return float(said[:9])
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and not limit.remaining else 0.0


def check_status(response: httpx2.Response, repo: str, revision: str, endpoint: str, file: str = "") -> None:
    """Refuse what is no success, in words; raise `Failed` where asking again may help."""
    status = response.status_code
    if status < 300:
        return
    if status in LATER:
        pause = pause_asked_for(response.headers)
        raise Failed(f"{response.url.host} answers {status} ({response.reason_phrase})", pause)
    code = response.headers.get("x-error-code", "")
    page = f"{endpoint}/{repo}"
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


def ask(route: str, repo: str, revision: str, **parameters: Any) -> dict[str, Any]:
    """Ask the Hub's interface about a repository and return the JSON object that it answers with."""
    url = f"{constants.ENDPOINT}/api/models/{repo}{route}"

    def once() -> bytes:
        with get_session().stream(
            "GET", url, params=parameters, headers=hub_headers(), timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as response:
            check_status(response, repo, revision, constants.ENDPOINT)
            body = b""
            for block in response.iter_bytes():
                body += block
                if len(body) > MAX_ANSWER:
                    raise Unreachable(f"{url}: answers with more than {MAX_ANSWER:,} bytes; is it a Hub?")
            return body

    try:
        answer = json.loads(cast(bytes, persist(once, url)))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{url}: no listing of {repo} ({error}); is it a Hub?") from None
    if not isinstance(answer, dict):
        raise CorruptFile(f"{url}: no listing of {repo} (not a JSON object); is it a Hub?")
    return answer
