"""The interface of all engines, the serial one, and the loop of those that do several tasks at a time."""

import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, InvalidStateError, wait
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

from ...errors import EngineLost

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")
Say = Callable[[str], None]

TASKS_AHEAD = 2  # tasks submitted for each worker: the one it does, and the next one
TICK = 1.0  # seconds between checks while waiting: workers may join, or a scheduler may go away
SENTENCES: dict[str, str] = tomllib.loads(Path(__file__).with_name("sentences.toml").read_text("utf-8"))
RESUME = "records that have landed in a run folder are kept: the same run with --resume goes on"


class Engine(ABC):
    """Interface of engines; `open_engine` opens one, and leaving its `with` block closes it."""

    @abstractmethod
    def map(self, work: Callable[[Shared, Task], Result], shared: Shared, tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield the results of `work(shared, task)`, in the order of the tasks.

        About two tasks for each worker are taken ahead; when the caller stops, tasks not begun are dropped. Raises the
        first exception of `work` as it is, without waiting for earlier tasks; processes and clusters also raise
        WorkerDied, OtherVersion and EngineLost.

        Parameters
        ----------
        work : a function of a module that workers can import
        shared : data of all tasks, sent once to each worker where the engine can do so
        tasks : each is sent by itself
        """

    def close(self) -> None:  # noqa: B027, most have something to close
        """Stop the workers of this engine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Serial(Engine):
    """Engine that runs each task when its result is asked for."""

    def map(self, work: Callable[[Shared, Task], Result], shared: Shared, tasks: Iterable[Task]) -> Iterator[Result]:
        return (work(shared, task) for task in tasks)


class Concurrent(Engine):
    """Engine that keeps a few tasks submitted ahead of the caller."""

    _n_workers: int

    @abstractmethod
    def _submitter(self, work: Callable[[Shared, Task], Result], shared: Shared) -> Callable[[Task], Future[Result]]:
        """Return the function that submits a task."""

    def _ahead(self) -> int:
        """Return how many tasks should be submitted; called every TICK. Raises where the engine is lost."""
        return TASKS_AHEAD * self._n_workers

    def _error(self, error: BaseException, task: Any) -> BaseException:
        """Return the error to raise for a future's error."""
        if isinstance(error, (CancelledError, BrokenExecutor)):  # we cancel no future that somebody waits for
            return EngineLost(f"the executor went away ({type(error).__name__}: {error}); {RESUME}")
        return error

    def map(self, work: Callable[[Shared, Task], Result], shared: Shared, tasks: Iterable[Task]) -> Iterator[Result]:
        submit = self._submitter(work, shared)
        remaining = iter(tasks)
        pending: dict[Future[Result], Task] = {}  # in the order of the tasks
        failed: Future[Future[Result]] = Future()

        def note_failure(future: Future[Result]) -> None:
            if _error_of(future) is not None:
                with suppress(InvalidStateError):  # another was first
                    failed.set_result(future)

        try:
            while True:
                for task in islice(remaining, max(0, self._ahead() - len(pending))):
                    future = submit(task)
                    pending[future] = task
                    future.add_done_callback(note_failure)
                if not pending:
                    return
                head = next(iter(pending))
                events: list[Future[Any]] = [head, failed]
                wait(events, timeout=TICK, return_when=FIRST_COMPLETED)
                if failed.done():
                    head = failed.result()
                if not head.done():
                    continue
                task = pending.pop(head)
                if (error := _error_of(head)) is not None:
                    raise self._error(error, task)
                yield head.result()
        except BrokenExecutor as error:  # from `submit`
            raise self._error(error, None) from None
        finally:
            for future in pending:
                future.cancel()


def _error_of(future: Future[Any]) -> BaseException | None:
    return CancelledError() if future.cancelled() else future.exception()
