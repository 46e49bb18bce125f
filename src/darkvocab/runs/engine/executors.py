"""Engines on executors of `concurrent.futures`: the caller's, or threads of our own."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from .base import AHEAD, Concurrent, Result, Shared, Task
from .parcels import Call, do_elsewhere, pack, package_versions


class Borrowed(Concurrent):
    """An executor of the caller's, left open."""

    def __init__(self, executor: Executor, n_workers: int) -> None:
        self._executor = executor
        self._n_workers = n_workers

    def _submitter(self, work: Callable[[Shared, Task], Result], shared: Shared) -> Callable[[Task], Future[Result]]:
        if isinstance(self._executor, ThreadPoolExecutor):
            return lambda task: self._executor.submit(work, shared, task)
        parcel = pack((work, shared))
        versions = package_versions()
        return lambda task: self._executor.submit(pickle.loads, pack(Call(do_elsewhere, versions, parcel, pack(task))))

    def _ahead(self) -> int:
        return AHEAD * self._n_workers


class Threads(Borrowed):
    """Threads of this process."""

    def __init__(self, n_workers: int) -> None:
        super().__init__(ThreadPoolExecutor(n_workers), n_workers)

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)
