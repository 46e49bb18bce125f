"""Run independent tasks in order, here or on other machines; a counter-based random generator for each.

An engine does `work(shared, task)` for many tasks. It never changes a result: randomness belongs to the task.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import pkgutil
import platform
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    ThreadPoolExecutor,
    wait,
)
from contextlib import ExitStack, suppress
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Self, TypeVar

import numpy as np

from ..errors import EngineLost, InvalidInput, NoScheduler, OtherVersion, WorkerDied
from ..extras import import_extra

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")
Say = Callable[[str], None]
_LOG = logging.getLogger(__name__)

NOISE, BASE, SAMPLE = 0, 1, 2  # what a generator is for: streams of the same task never meet
SEED_LIMIT = 2**64

AHEAD = 2  # tasks begun for each worker: one that it does, one that it finds when it has done it
TICK = 1.0  # seconds between looks at what may change while we wait: workers that join, a scheduler that goes
LIVES = 3  # worker processes that a task may kill
CONNECT = 8.0  # seconds for a scheduler to answer
LOST = 10.0  # seconds of silence after which a scheduler that was there is given up
DASK = {  # settings of Dask's while we use it
    "distributed.comm.timeouts.tcp": 12.0,  # seconds after which a host that vanished is given up; no less than 11
    "distributed.admin.large-graph-warning-threshold": "1TB",  # a warning, where a task is as large as it has to be
}
SILENT, SAY_AGAIN = 5.0, 60.0  # seconds without workers until we say so, and between times that we do
PACKAGES = ("darkvocab", "numpy", "numba")  # that records depend on: workers must have our versions
FOUND = "choose local, serial, threads, processes, dask://HOST:PORT or dask:SCHEDULER_FILE.json"
RESUME = "records that have landed in a run folder are kept: the same run with --resume goes on"


class Engine(ABC):
    """Something that does tasks; `open_engine` opens one, and leaving its `with` block closes it."""

    @abstractmethod
    def map(self, work: Callable[[Shared, Task], Result], shared: Shared, tasks: Iterable[Task]) -> Iterator[Result]:
        """Results of `work(shared, task)`, in the order of the tasks, as they come.

        Tasks are taken about two for each worker ahead. When the caller stops, tasks not begun are dropped.

        Parameters
        ----------
        work : a function of a module that workers can import
        shared : what all tasks need; it travels once to each worker where the engine can do so
        tasks : each travels by itself

        Raises
        ------
        Exception
            The first that `work` raises, as it is, without waiting for the tasks before it.
        WorkerDied, OtherVersion, EngineLost
            From processes and clusters.
        """

    def close(self) -> None:  # noqa: B027, most have something to close
        """End what was started for this engine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_engine(
    spec: str | Executor = "local",
    workers: int | None = None,
    nogil: bool = False,
    *,
    say: Say = _LOG.warning,
    patience: float = math.inf,
) -> Engine:
    """An engine, to be used in a `with` block.

    Parameters
    ----------
    spec :
        "serial": each task when its result is asked for.
        "threads": they share this process; one that has begun a task ends it.
        "processes": each a new Python that imports `work` and has nothing else of this process. One that dies is
        replaced, and its task done again.
        "local": serial for one worker; else threads where `nogil`, processes where not.
        "dask://HOST:PORT", "dask:SCHEDULER_FILE.json", or an address as Dask writes it (tcp://, tls://).
        An executor: used as it is, and left open. Threads are given `shared` itself; others get it as bytes with each
        task, and each of their processes unpickles it once.
    workers : threads or processes, by default a core each; elsewhere, threads of workers to keep busy at least
    nogil : whether the work is mostly compiled code that lets other threads run
    say : told when a worker is replaced, or waited for
    patience : seconds that a cluster may be without workers

    Raises
    ------
    InvalidInput
        No such engine, or fewer than one worker.
    MissingExtra, NoScheduler, OtherVersion
        Dask.

    Examples
    --------
    >>> with open_engine("threads", workers=2) as engine:
    ...     list(engine.map(pow, 2, range(5)))
    [1, 2, 4, 8, 16]
    """
    if workers is not None and workers < 1:
        raise InvalidInput(f"workers must be >= 1, got {workers}")
    if isinstance(spec, Executor):
        return _Borrowed(spec, workers or getattr(spec, "_max_workers", None) or _n_cores())
    n_workers = workers or _n_cores()
    if spec == "local":
        spec = "serial" if n_workers == 1 else "threads" if nogil else "processes"
    if spec == "serial":
        return _Serial()
    if spec == "threads":
        return _Threads(n_workers)
    if spec == "processes":
        return _Processes(n_workers, say)
    kind, _, place = spec.partition(":")
    if place and kind in ("dask", "tcp", "tls"):
        return _Dask(_scheduler_address(spec), workers or 1, say, patience)
    raise InvalidInput(f"unknown engine {spec!r}; {FOUND}")


def _n_cores() -> int:
    """As of `numerics.grouping`, a stranger here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# What travels: `work` and `shared` as one parcel of bytes, unpickled once in a process; then each task, as bytes.

_unpacking = threading.Lock()  # a worker of several threads fetches and unpickles once, too


def _pickle(value: object) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


@lru_cache(maxsize=2)
def _unpack(parcel: bytes) -> Any:
    return pickle.loads(parcel)


def _do(parcel: bytes, task: bytes) -> Any:
    with _unpacking:
        work, shared = _unpack(parcel)
    return work(shared, pickle.loads(task))


class _Call:
    """A call that is made where its pickle is read.

    So what a worker is asked to do is `pickle.loads`, which every Python has: what our function's import raises is the
    task's error, where Dask would end the worker.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._reduced


def _do_elsewhere(versions: dict[str, str], parcel: bytes, task: bytes) -> Any:
    """In a worker that we did not start: its versions are looked at before anything of ours is unpickled."""
    for name, version in _versions().items():
        if version != versions[name]:
            raise OtherVersion(_other_version(_address(), name, version, versions[name]))
    return _do(parcel, task)


@lru_cache(maxsize=2)
def _fetch(key: str) -> bytes:
    from distributed import get_client

    return get_client().get_metadata([key])  # type: ignore[no-untyped-call]


def _do_on_dask(versions: dict[str, str], key: str, task: bytes) -> Any:
    with _unpacking:
        parcel = _fetch(key)
    return _do_elsewhere(versions, parcel, task)


def _versions() -> dict[str, str]:
    return {name: pkgutil.resolve_name(f"{name}:__version__") for name in PACKAGES}


def _address() -> str:
    if "distributed" in sys.modules:
        with suppress(ValueError):
            return sys.modules["distributed"].get_worker().address
    return f"process {os.getpid()} on {platform.node()}"


def _other_version(worker: str, package: str, found: str, ours: str) -> str:
    return f"worker {worker} has {package} {found}, we have {ours}; install {package}=={ours} there and start it anew"


# The engines.


class _Serial(Engine):
    def map(self, work: Callable[[Shared, Task], Result], shared: Shared, tasks: Iterable[Task]) -> Iterator[Result]:
        return (work(shared, task) for task in tasks)


class _Concurrent(Engine):
    """Futures of tasks, begun a little ahead of the caller."""

    @abstractmethod
    def _submitter(self, work: Callable[[Shared, Task], Result], shared: Shared) -> Callable[[Task], Future[Result]]:
        """What begins a task."""

    @abstractmethod
    def _ahead(self) -> int:
        """Tasks to have begun by now; asked every TICK. Raises where the engine is lost."""

    def _error(self, error: BaseException, task: Any) -> BaseException:
        """What to raise for what a future raised."""
        if isinstance(error, (CancelledError, BrokenExecutor)):  # we cancel only what nobody waits for
            return EngineLost(f"the executor went away ({type(error).__name__}: {error}); {RESUME}")
        return error

    def map(self, work: Callable[[Shared, Task], Result], shared: Shared, tasks: Iterable[Task]) -> Iterator[Result]:
        submit = self._submitter(work, shared)
        remaining = iter(tasks)
        pending: dict[Future[Result], Task] = {}  # in their order
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
                if head.done():
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


class _Borrowed(_Concurrent):
    """An executor of the caller's."""

    def __init__(self, executor: Executor, n_workers: int) -> None:
        self._executor, self._n_workers = executor, n_workers

    def _submitter(self, work: Callable[[Shared, Task], Result], shared: Shared) -> Callable[[Task], Future[Result]]:
        if isinstance(self._executor, ThreadPoolExecutor):
            return lambda task: self._executor.submit(work, shared, task)
        parcel, versions = _pickle((work, shared)), _versions()
        return lambda task: self._executor.submit(
            pickle.loads, _pickle(_Call(_do_elsewhere, versions, parcel, _pickle(task)))
        )

    def _ahead(self) -> int:
        return AHEAD * self._n_workers


class _Threads(_Borrowed):
    def __init__(self, n_workers: int) -> None:
        super().__init__(ThreadPoolExecutor(n_workers), n_workers)

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)


class _Processes(_Concurrent):
    """As many threads as processes, each of which waits for one process: a task is known to be in one, or in none."""

    def __init__(self, n_workers: int, say: Say) -> None:
        self._n_workers, self._say = n_workers, say
        self._threads = ThreadPoolExecutor(n_workers)
        self._idle: list[_Python] = []
        self._all: list[_Python] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def _submitter(self, work: Callable[[Shared, Task], Result], shared: Shared) -> Callable[[Task], Future[Result]]:
        parcel = _pickle((work, shared))
        return lambda task: self._threads.submit(self._ask, parcel, task)

    def _ahead(self) -> int:
        return AHEAD * self._n_workers

    def _ask(self, parcel: bytes, task: Any) -> Any:
        request = _pickle(task)
        for _ in range(LIVES):
            python = self._take()
            try:
                answer = python.ask(parcel, request)
            except EOFError:
                if self._is_closed:
                    raise CancelledError from None
                self._all.remove(python)
                end = python.end()
                self._say(f"a worker process ended ({end}) while it did a task; another does it again")
                continue
            self._idle.append(python)
            is_result, value = pickle.loads(answer)
            if is_result:
                return value
            raise value
        raise WorkerDied(
            f"task {_short(task)} ended its worker process {LIVES} times (the last: {end}); "
            f"where memory ran out, use fewer workers, else try the engine serial; {RESUME}"
        )

    def _take(self) -> _Python:
        with self._lock:
            if self._is_closed:
                raise CancelledError
            if not self._idle:
                self._all.append(_Python())
                return self._all[-1]
            return self._idle.pop()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        for python in list(self._all):
            python.kill()  # its thread reads the end of its answers
        self._threads.shutdown(cancel_futures=True)
        for python in self._all:
            python.end()


class _Python:
    """A new Python that does tasks, one at a time, told through its standard input and output.

    It starts without this process's `__main__`, threads, locks and open files; in a group of its own, so that Ctrl-C is
    for us; and it ends when its standard input does, whatever became of us.
    """

    def __init__(self) -> None:
        start = "import sys; sys.path[:] = sys.argv[1:]; from darkvocab.runs.engine import _serve; _serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", start, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
        )
        self._has: bytes | None = None  # the parcel

    def ask(self, parcel: bytes, request: bytes) -> bytes:
        """The answer to a request. Raises EOFError where the process ended."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        try:
            _send(stdin, b"" if self._has is parcel else parcel)
            _send(stdin, request)
        except OSError:
            raise EOFError from None
        self._has = parcel
        return _receive(stdout)

    def kill(self) -> None:
        self._process.kill()  # it holds nothing to save

    def end(self) -> str:
        """How it ended, once it has."""
        self.kill()
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        return signal.Signals(-status).name if status < 0 else f"exit code {status}"


def _send(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(struct.pack("<Q", len(message)))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    header = pipe.read(8)
    length = struct.unpack("<Q", header)[0] if len(header) == 8 else 0
    message = pipe.read(length)
    if len(header) < 8 or len(message) < length:
        raise EOFError
    return message


def _serve() -> None:
    """What a `_Python` does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what the work reads or prints is not ours
    os.dup2(2, 1)
    inbox: SimpleQueue[tuple[bytes, bytes]] = SimpleQueue()
    threading.Thread(target=_listen, args=(requests, inbox), daemon=True).start()
    parcel = b""
    while True:
        new, request = inbox.get()
        parcel = new or parcel
        try:
            answer = _pickle((True, _do(parcel, request)))
        except BaseException as error:
            answer = _pickle((False, _portable(error)))
        _send(answers, answer)


def _listen(requests: IO[bytes], inbox: SimpleQueue[tuple[bytes, bytes]]) -> None:
    while True:
        try:
            inbox.put((_receive(requests), _receive(requests)))
        except EOFError:
            os._exit(0)  # the process that asked is gone, or wants no answer: not even the task's end is waited for


def _portable(error: BaseException) -> BaseException:
    """The error with its traceback as a note; where it does not survive pickling, one that says the same."""
    text = "".join(traceback.format_exception(error))
    try:
        error.add_note(f"\nin a worker process:\n{text}")
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(text)
    return error


def _short(task: object) -> str:
    text = repr(task)
    return text if len(text) <= 200 else f"{text[:197]}..."


class _Dask(_Concurrent):
    """A Dask cluster, which does again what a worker that died had begun."""

    def __init__(self, address: str, n_threads: int, say: Say, patience: float) -> None:
        dask = import_extra("dask", "dask", "a Dask engine")
        distributed = import_extra("distributed", "dask", "a Dask engine")
        self._address, self._at_least, self._say, self._patience = address, n_threads, say, patience
        self._is_lost, self._asked, self._n_threads = False, -math.inf, 0
        self._with_workers = time.monotonic()  # when there were some last
        self._said = -math.inf  # when we said that there are none
        with ExitStack() as stack:
            for name in ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio"):
                stack.callback(logging.getLogger(name).setLevel, logging.getLogger(name).level)
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # what they would report, we raise
            stack.enter_context(dask.config.set(DASK))
            try:
                self._client: Any = _within(
                    CONNECT, partial(distributed.Client, address, timeout=CONNECT - 1, set_as_default=False)
                )
            except (OSError, ValueError) as error:
                raise NoScheduler(
                    f"no Dask scheduler answers at {address} ({str(error) or 'silence'}); "
                    "check the address, that `dask scheduler` runs there, and that no firewall is between"
                ) from None
            stack.callback(self._close_client)
            self._refuse_other_versions()
            self._open = stack.pop_all()

    def _submitter(self, work: Callable[[Shared, Task], Result], shared: Shared) -> Callable[[Task], Future[Result]]:
        key = f"darkvocab-{uuid.uuid4().hex}"
        # Kept by the scheduler, where a worker that lacks it asks. As a dependency, Dask would hold that tasks belong
        # where it is, and leave other workers idle.
        self._ask(self._client.set_metadata, [key], _pickle((work, shared)))
        self._open.callback(self._forget, key)
        submit, versions = self._client.get_executor(pure=False).submit, _versions()
        return lambda task: submit(pickle.loads, _pickle(_Call(_do_on_dask, versions, key, _pickle(task))))

    def _forget(self, key: str) -> None:
        with suppress(EngineLost):
            self._ask(self._client.set_metadata, [key], None)

    def _ahead(self) -> int:
        now = time.monotonic()
        if now - self._asked >= TICK:
            self._n_threads = sum(self._ask(self._client.nthreads).values())
            self._asked = now
            self._mind_absence(now)
        return AHEAD * max(self._n_threads, self._at_least)

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
            self._refuse_other_versions()  # of workers that joined since: they may be why
        if isinstance(error, KilledWorker):
            return WorkerDied(
                f"task {_short(task)} ended every worker that took it (the last: {error.last_worker.address}); "
                f"look into that worker's log, give workers more memory or fewer threads; {RESUME}"
            )
        return error

    def _refuse_other_versions(self) -> None:
        ours = _versions()
        for name in PACKAGES:
            try:
                found = _within(
                    LOST, partial(self._client.run, on_error="return"), pkgutil.resolve_name, f"{name}:__version__"
                )
            except OSError:  # a timeout is one: a worker is too busy to say; every task looks, too
                return
            for worker, version in sorted(found.items()):
                if isinstance(version, OSError):
                    continue  # a worker that is going
                if isinstance(version, BaseException):
                    version = "none"
                if version != ours[name]:
                    raise OtherVersion(_other_version(worker, name, version, ours[name]))

    def _close_client(self) -> None:
        with suppress(OSError):
            self._client.close(timeout=CONNECT)

    def close(self) -> None:
        self._open.close()


def _within(seconds: float, question: Callable[..., Any], *arguments: Any) -> Any:
    """What Dask answers, or TimeoutError: its own timeouts do not hold where the other end accepts and says nothing."""
    answer: Future[Any] = Future()

    def ask() -> None:
        try:
            answer.set_result(question(*arguments))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return answer.result(seconds)


def _scheduler_address(spec: str) -> str:
    """HOST:PORT of dask://HOST:PORT, the address in a scheduler file, or an address as Dask writes it."""
    if spec.startswith("dask:") and not spec.startswith("dask://"):
        place = spec.removeprefix("dask:")
        try:
            address = json.loads(Path(place).read_text("utf-8"))["address"]
        except (ValueError, KeyError, TypeError):
            address = None
        if not isinstance(address, str):
            raise InvalidInput(f"{place} is no scheduler file: `dask scheduler --scheduler-file {place}` writes one")
        return address
    address = spec.removeprefix("dask://")
    if not re.fullmatch(r"(t(cp|ls)://)?[^/]+:\d+", address):
        raise InvalidInput(f"cannot read the address {spec!r}; write it as dask://HOST:PORT")
    return address


def check_seed(seed: int) -> int:
    """The seed, if it is one: 0 <= seed < 2**64.

    Raises
    ------
    InvalidInput
    """
    if not 0 <= seed < SEED_LIMIT:
        raise InvalidInput(f"seed must be from 0 to 2**64 - 1, got {seed}")
    return seed


def generator(seed: int, point: int, trial: int, *, purpose: int = NOISE) -> np.random.Generator:
    """Generator of one trial of one point: Philox4x64 with key (seed, purpose), counter (0, 0, point, trial).

    Whatever else was drawn, in whatever order or process, the numbers are the same.
    """
    key = np.array([check_seed(seed), purpose], np.uint64)
    counter = np.array([0, 0, point, trial], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
