"""Engine of a Dask cluster, which repeats the tasks of a worker that died."""

import json
import logging
import math
import pickle
import pkgutil
import re
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import EngineLost, InvalidInput, NoScheduler, WorkerDied, machine_errors
from ...extras import import_extra
from ...text import shorten
from .base import RESUME, SENTENCES, TASKS_AHEAD, TICK, Concurrent, Result, Say, Shared, Task
from .parcels import PACKAGES, Call, do_on_dask, other_version, pack, package_versions

CONNECT = 8.0  # seconds for a scheduler to answer
LOST = 10.0  # seconds without an answer after which a scheduler counts as lost
SETTINGS = {  # of Dask, while we use it
    "distributed.comm.timeouts.tcp": 12.0,  # seconds after which a host counts as lost; no less than 11
    "distributed.admin.large-graph-warning-threshold": "1TB",  # our tasks may be large without a warning
}
LOGGERS = ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio")
SILENT = 5.0  # seconds without workers before the user is told
SAY_AGAIN = 60.0  # seconds until the user is told again


class Dask(Concurrent):
    """A Dask cluster at dask://HOST:PORT, dask:SCHEDULER_FILE.json, or an address as Dask writes it."""

    def __init__(self, spec: str, n_threads: int, say: Say, patience: float) -> None:
        self._address = _scheduler_address(spec)
        dask = import_extra("dask", "dask", "a Dask engine")
        distributed = import_extra("distributed", "dask", "a Dask engine")
        self._at_least = n_threads
        self._say = say
        self._patience = patience
        self._is_lost = False
        self._asked = -math.inf  # when the number of threads was last asked for
        self._n_threads = 0
        self._with_workers = time.monotonic()  # when the cluster last had workers
        self._said = -math.inf  # when the user was last told that it has none
        with ExitStack() as stack:
            for name in LOGGERS:
                stack.callback(logging.getLogger(name).setLevel, logging.getLogger(name).level)
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # we raise what they would log
            stack.enter_context(dask.config.set(SETTINGS))
            connect = partial(distributed.Client, self._address, timeout=CONNECT - 1, set_as_default=False)
            try:
                self._client: Any = _within(CONNECT, connect)
            except (OSError, ValueError) as error:
                raise NoScheduler(SENTENCES["silent"].format(at=self._address, error=str(error) or "silence")) from None
            stack.callback(self._close_client)
            self._refuse_other_versions()
            self._open = stack.pop_all()

    def _submitter(self, work: Callable[[Shared, Task], Result], shared: Shared) -> Callable[[Task], Future[Result]]:
        key = f"darkvocab-{uuid.uuid4().hex}"
        # The scheduler keeps it, and each worker fetches it once. If it were a dependency, Dask would send tasks only
        # to workers that have it.
        self._ask(self._client.set_metadata, [key], pack((work, shared)))
        self._open.callback(self._forget, key)
        submit = self._client.get_executor(pure=False).submit
        versions = package_versions()
        return lambda task: submit(pickle.loads, pack(Call(do_on_dask, versions, key, pack(task))))

    def _forget(self, key: str) -> None:
        with suppress(EngineLost):
            self._ask(self._client.set_metadata, [key], None)

    def _ahead(self) -> int:
        now = time.monotonic()
        if now - self._asked >= TICK:
            self._n_threads = sum(self._ask(self._client.nthreads).values())
            self._asked = now
            self._mind_absence(now)
        return TASKS_AHEAD * max(self._n_threads, self._at_least)

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        if self._client.status != "running" or self._is_lost:
            raise self._lost()
        try:
            return _within(LOST, question, *arguments)
        except OSError:  # a timeout is one
            raise self._lost() from None

    def _mind_absence(self, now: float) -> None:
        if self._n_threads:
            self._with_workers = now
        absent = now - self._with_workers
        if absent > self._patience:
            raise EngineLost(f"{self._address} has had no workers for {absent:.0f} s; start some; {RESUME}")
        if absent > SILENT and now - self._said > SAY_AGAIN:
            self._said = now
            self._say(f"{self._address} has no workers; waiting for some (to start one: dask worker {self._address})")

    def _lost(self) -> EngineLost:
        self._is_lost = True
        return EngineLost(f"the Dask scheduler at {self._address} went away; {RESUME}")

    def _error(self, error: BaseException, task: Any) -> BaseException:
        from distributed.scheduler import KilledWorker

        if isinstance(error, CancelledError):  # we cancel only what nobody waits for
            return self._lost()
        if isinstance(error, Exception):
            self._refuse_other_versions()  # workers with another version may have joined
        if isinstance(error, KilledWorker):
            task = shorten(repr(task), 200)
            return WorkerDied(SENTENCES["killed"].format(task=task, worker=error.last_worker, resume=RESUME))
        return error

    def _refuse_other_versions(self) -> None:
        ours = package_versions()
        ask_all = partial(self._client.run, on_error="return")
        for name in PACKAGES:
            try:
                theirs = _within(LOST, ask_all, pkgutil.resolve_name, f"{name}:__version__")
            except OSError:  # or a timeout: a worker is too busy to answer; every task checks again
                return
            for worker, version in sorted(theirs.items()):
                if isinstance(version, OSError):
                    continue  # a worker that is shutting down
                if isinstance(version, BaseException):
                    version = "none"
                if version != ours[name]:
                    raise other_version(worker, name, version, ours[name])

    def _close_client(self) -> None:
        with suppress(OSError):
            self._client.close(timeout=CONNECT)

    def close(self) -> None:
        self._open.close()


def _within(seconds: float, question: Callable[..., Any], *arguments: Any) -> Any:
    """Return Dask's answer, or raise TimeoutError. Its own timeouts fail where a host accepts and never answers."""
    answer: Future[Any] = Future()

    def ask() -> None:
        try:
            answer.set_result(question(*arguments))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return answer.result(seconds)


@machine_errors()
def _scheduler_address(spec: str) -> str:
    """Return HOST:PORT of dask://HOST:PORT, the address in a scheduler file, or an address as Dask writes it."""
    if spec.startswith("dask:") and not spec.startswith("dask://"):
        place = spec.removeprefix("dask:")
        address = None
        with suppress(ValueError, KeyError, TypeError):
            address = json.loads(Path(place).read_text("utf-8"))["address"]
        if not isinstance(address, str):
            raise InvalidInput(f"{place} is no scheduler file: `dask scheduler --scheduler-file {place}` writes one")
        return address
    address = spec.removeprefix("dask://")
    if not re.fullmatch(r"(t(cp|ls)://)?[^/]+:\d+", address):
        raise InvalidInput(f"cannot read the address {spec!r}; write it as dask://HOST:PORT")
    return address
