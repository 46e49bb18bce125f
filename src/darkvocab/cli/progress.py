"""Progress on stderr: how far, how fast, how long still."""

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from .shell import check_interrupted, say

Result = TypeVar("Result")


class _Pace:
    """Text for a progress bar: how far, how fast over the last half minute, how long still.

    The first call's count was done before, by an earlier run, and does not enter the speed.
    """

    def __init__(self, *, in_bytes: bool = False) -> None:
        self._in_bytes = in_bytes
        self._calls: deque[tuple[float, int]] = deque()

    def __call__(self, done: int, total: int) -> str:
        check_interrupted()
        now = time.monotonic()
        if self._calls and done < self._calls[-1][1]:  # another thing has begun
            self._calls.clear()
        self._calls.append((now, done))
        while len(self._calls) > 2 and self._calls[1][0] <= now - 30:
            self._calls.popleft()
        then, before = self._calls[0]
        rate = (done - before) / (now - then) if now > then else 0.0
        reached = _in_bytes(done, total) if self._in_bytes else f"{done:,} of {total:,}"
        if not rate:
            return reached
        speed, unit = (rate / 1e6, " MB") if self._in_bytes else (rate, "")
        shown = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
        return f"{reached}, {shown}{unit}/s, about {_spoken((total - done) / rate)} left"


def _in_bytes(done: int, total: int) -> str:
    scale, unit = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
    return f"{done / scale:,.1f} of {total / scale:,.1f} {unit}"


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


@contextmanager
def progress_bar(label: str, *, in_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total) that draws a bar on a terminal, or else writes a line every ten seconds."""
    for number in (signal.SIGINT, signal.SIGTERM):  # polars, once imported, has the system resume what they interrupt
        signal.siginterrupt(number, True)
    pace = _Pace(in_bytes=in_bytes)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = TextColumn(label, markup=False), BarColumn(), TextColumn("{task.description}", markup=False)
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total, description=pace(done, total))
        return
    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        text = pace(done, total)
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            say(f"{label}: {text}")

    yield line


@cache
def announce_compilation() -> None:
    """Say once that kernels are being compiled, when they are; the compiled ones are kept for the next time."""
    from numba.core import event

    class Announce(event.Listener):  # type: ignore[misc]
        said = False

        def on_start(self, event: Any) -> None:
            if not self.said:
                self.said = True
                say("compiling kernels for this machine: a few seconds, the first time only")

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compile", Announce())


def watched(label: str, call: Callable[..., Result], *given: Any, in_bytes: bool = False, **settings: Any) -> Result:
    """Call a function of the library, whose kernels may be compiled first, and show its progress."""
    announce_compilation()
    with progress_bar(label, in_bytes=in_bytes) as progress:
        return call(*given, progress=progress, **settings)
