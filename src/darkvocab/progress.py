"""Progress of long work: how much is done and how much there is, reported to one callback; and a bar that shows it."""

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

Report = Callable[[int, int], None]  # called with (done, total)
Advance = Callable[[int], None]  # called with the size of a piece that is done
Check = Callable[[], None]  # called each time, may raise
# What rich is told where colours are asked for: by itself it uses them on a terminal, unless NO_COLOR is set.
COLORS: dict[str | None, dict[str, Any]] = {"always": {"color_system": "standard", "no_color": False}}
COLORS |= {None: {}, "auto": {}, "never": {"color_system": None}}


class Progress:
    """Sum up pieces of work, from any thread, and report the sum after each, never more than the total.

    Work that begins before all is known may set `total` and `report` later.

    Examples
    --------
    >>> progress = Progress(10, lambda done, total: print(f"{done} of {total}"))
    >>> progress.advance(8)
    8 of 10
    >>> progress.finish()
    10 of 10
    """

    def __init__(self, total: int, report: Report | None = None) -> None:
        self.total = total
        self._done = 0
        self.report = report
        self._lock = Lock()

    def advance(self, n: int) -> None:
        """Count a piece of work that is done."""
        with self._lock:
            self._done += n
            if self.report:
                self.report(min(self._done, self.total), self.total)

    def finish(self) -> None:
        """Report that all is done, whatever was announced and then not needed."""
        self.advance(self.total)


class _Pace:
    """Text for a progress bar: how far, how fast over the last half minute, how long still.

    The first call's count was done before, by an earlier run, and does not enter the speed.
    """

    def __init__(self, *, in_bytes: bool, check: Check) -> None:
        self._in_bytes, self._check = in_bytes, check
        self._calls: deque[tuple[float, int]] = deque()

    def __call__(self, done: int, total: int) -> str:
        self._check()
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
def progress_bar(
    label: str, *, in_bytes: bool = False, check: Check = lambda: None, quiet: bool = False, color: str | None = None
) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total) that draws a bar on a terminal, in a `color` of COLORS, or where `quiet` nothing.

    In a notebook it writes one line, over and over, and takes it away at the end; elsewhere a line every ten seconds.
    `check` is called each time, and may raise.
    """
    if hasattr(signal, "siginterrupt"):  # on POSIX polars, once imported, has the system resume what these interrupt
        signal.siginterrupt(signal.SIGINT, True)
        signal.siginterrupt(signal.SIGTERM, True)
    pace = _Pace(in_bytes=in_bytes, check=check)
    if sys.stderr.isatty() and not quiet:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = TextColumn(label, markup=False), BarColumn(), TextColumn("{task.description}", markup=False)
        console = Console(stderr=True, **COLORS[color])
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total, description=pace(done, total))
        return
    last = time.monotonic()
    is_notebook = not quiet and type(sys.stderr).__module__ == "ipykernel.iostream"
    layout, seconds = ("\r{:100}", 0.2) if is_notebook else ("{}\n", 10.0)

    def line(done: int, total: int) -> None:
        nonlocal last
        text = pace(done, total)
        if time.monotonic() - last >= seconds and not quiet:
            last = time.monotonic()
            print(layout.format(f"{label}: {text}"), end="", file=sys.stderr, flush=True)

    try:
        yield line
    finally:
        if is_notebook:
            print(layout.format(""), end="\r", file=sys.stderr, flush=True)
