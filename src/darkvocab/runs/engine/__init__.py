"""Do independent tasks in order, on this machine or on others; an engine never changes a result.

An engine does `work(shared, task)` for many tasks: one after the other, in threads, in processes, on a Dask cluster, or
in an executor of the caller's. Randomness belongs to the task.
"""

import logging
import math
import pickle
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from ...errors import InvalidInput
from ...numerics.grouping import n_cores
from .base import Concurrent, Engine, Result, Say, Serial, Shared, Task
from .dask import Dask
from .parcels import Call, do_elsewhere, pack, package_versions
from .processes import Processes

__all__ = ["Engine", "open_engine"]

ENGINES = "choose local, serial, threads, processes, dask://HOST:PORT or dask:SCHEDULER_FILE.json"
_LOG = logging.getLogger(__name__)


class Borrowed(Concurrent):
    """Engine on an executor of the caller, which is left open."""

    def __init__(self, executor: Executor, n_workers: int) -> None:
        self._executor = executor
        self._n_workers = n_workers

    def _submitter(self, work: Callable[[Shared, Task], Result], shared: Shared) -> Callable[[Task], Future[Result]]:
        if isinstance(self._executor, ThreadPoolExecutor):
            return lambda task: self._executor.submit(work, shared, task)
        parcel = pack((work, shared))
        versions = package_versions()
        return lambda task: self._executor.submit(pickle.loads, pack(Call(do_elsewhere, versions, parcel, pack(task))))


class Threads(Borrowed):
    """Engine of threads of this process."""

    def __init__(self, n_workers: int) -> None:
        super().__init__(ThreadPoolExecutor(n_workers), n_workers)

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)


def open_engine(
    spec: str | Executor = "local",
    workers: int | None = None,
    nogil: bool = False,
    *,
    say: Say = _LOG.warning,
    patience: float = math.inf,
) -> Engine:
    """Open an engine, to be used in a `with` block.

    Raises InvalidInput for an unknown engine or under one worker; MissingExtra, NoScheduler, OtherVersion from Dask.

    Parameters
    ----------
    spec :
        "serial": each task runs when its result is asked for.
        "threads": threads of this process; one that has begun a task finishes it.
        "processes": new Python processes that import `work`. One that dies is replaced, and its task repeated.
        "local": serial for one worker; otherwise threads if `nogil`, else processes.
        "dask://HOST:PORT", "dask:SCHEDULER_FILE.json", or an address as Dask writes it (tcp://, tls://).
        An executor: left open. Threads get `shared` itself, processes its pickle with each task, read once in each.
    workers : threads or processes, by default one per core; on a cluster, the fewest threads to keep busy
    nogil : the work is mostly compiled code that releases Python's lock
    say : called with a sentence when a worker is replaced or waited for
    patience : seconds that a cluster may be without workers

    Examples
    --------
    >>> with open_engine("threads", workers=2) as engine:
    ...     list(engine.map(pow, 2, range(5)))
    [1, 2, 4, 8, 16]
    """
    if workers is not None and workers < 1:
        raise InvalidInput(f"workers must be >= 1, got {workers}")
    if isinstance(spec, Executor):
        return Borrowed(spec, workers or getattr(spec, "_max_workers", None) or n_cores())
    n_workers = workers or n_cores()
    if spec == "local":
        spec = "serial" if n_workers == 1 else "threads" if nogil else "processes"
    if spec == "serial":
        return Serial()
    if spec == "threads":
        return Threads(n_workers)
    if spec == "processes":
        return Processes(n_workers, say)
    kind, _, place = spec.partition(":")
    if place and kind in ("dask", "tcp", "tls"):
        return Dask(spec, workers or 1, say, patience)
    raise InvalidInput(f"unknown engine {spec!r}; {ENGINES}")
