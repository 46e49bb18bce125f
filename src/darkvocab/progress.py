"""Progress of long work: how much is done and how much there is, reported to one callback."""

from collections.abc import Callable
from threading import Lock

Report = Callable[[int, int], None]  # called with (done, total)
Advance = Callable[[int], None]  # called with the size of a piece that is done


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
