"""Encoding within a time limit, which holds also where the library does not come back from a text."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np

from ...sources.tokenizer import Encoded

CHUNK_SECONDS = 0.2  # of encoding in one call
CHUNK_TEXTS, CHUNK_CHARACTERS = 8192, 1 << 20
Timed = tuple[np.ndarray, np.ndarray, float]  # ids, the text of each, and the seconds that they took


class OutOfTime(Exception):
    """The search has taken as long as it may."""


class InTime:
    """Encode texts in a thread of its own until a time of the monotonic clock; OutOfTime then.

    A call of the library cannot be broken off: one that has not come back by then is left alone. Its thread does not
    keep the process from ending.
    """

    def __init__(self, encode: Callable[[list[str]], Encoded], until: float) -> None:
        self._encode = encode
        self._until = until
        self._size = 32  # texts to encode at a time
        self.n_texts = 0  # encoded
        self.n_left_alone = 0  # texts of a call that did not come back in time

    def check(self) -> None:
        """Raise OutOfTime if it is."""
        if time.monotonic() > self._until:
            raise OutOfTime

    def __call__(self, texts: list[str]) -> Iterator[Encoded]:
        """Yield ids of some texts at a time, and the text of each; while the caller looks the next are encoded."""
        begin = 0
        some = texts[: self._size]
        waiting = self._started(some)
        while some:
            try:
                ids, text_of, seconds = waiting.result(max(0.0, self._until - time.monotonic()))
            except TimeoutError:
                self.n_left_alone = len(some)
                raise OutOfTime from None
            first = begin
            begin += len(some)
            self.n_texts += len(some)
            self._size = max(1, min(CHUNK_TEXTS, 4 * self._size, int(len(some) / max(1e-6, seconds) * CHUNK_SECONDS)))
            some = texts[begin : begin + self._size]
            waiting = self._started(some)
            yield ids, text_of + first

    def _started(self, texts: list[str]) -> Future[Timed]:
        result: Future[Timed] = Future()

        def run() -> None:
            try:
                result.set_result(self._timed(texts))
            except BaseException as error:  # the library's panics are no Exception
                result.set_exception(error)

        self.check()
        if texts:
            threading.Thread(target=run, daemon=True).start()
        return result

    def _timed(self, texts: list[str]) -> Timed:
        """Return ids, the text of each, and how long that took."""
        began = time.monotonic()
        n = max(1, CHUNK_CHARACTERS // max(1, *map(len, texts)))
        parts = [self._encode(texts[begin : begin + n]) for begin in range(0, len(texts), n)]
        text_of = [numbers + n * chunk for chunk, (_, numbers) in enumerate(parts)]
        return np.concatenate([ids for ids, _ in parts]), np.concatenate(text_of), time.monotonic() - began
