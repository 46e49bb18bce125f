"""Engine of worker processes: new Pythons that get tasks and answer through standard input and output."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any

from ...errors import WorkerDied
from ...text import shorten
from .base import RESUME, SENTENCES, Concurrent, Result, Say, Shared, Task
from .parcels import do, pack

LIVES = 3  # worker processes that one task may kill
WORKER_CODE = f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import serve; serve()"


class Processes(Concurrent):
    """Engine of worker processes, each with a thread that waits for it, so that a dead process's task is known."""

    def __init__(self, n_workers: int, say: Say) -> None:
        self._n_workers = n_workers
        self._say = say
        self._threads = ThreadPoolExecutor(n_workers)
        self._idle: list[_Worker] = []
        self._all: list[_Worker] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def _submitter(self, work: Callable[[Shared, Task], Result], shared: Shared) -> Callable[[Task], Future[Result]]:
        parcel = pack((work, shared))
        return lambda task: self._threads.submit(self._ask, parcel, task)

    def _ask(self, parcel: bytes, task: Any) -> Any:
        request = pack(task)
        for _ in range(LIVES):
            worker = self._take()
            try:
                answer = worker.ask(parcel, request)
            except EOFError:
                if self._is_closed:
                    raise CancelledError from None
                self._all.remove(worker)
                end = worker.end()
                self._say(f"a worker process ended ({end}) while it did a task; another does it again")
                continue
            self._idle.append(worker)
            is_result, value = pickle.loads(answer)
            if is_result:
                return value
            raise value
        raise WorkerDied(SENTENCES["died"].format(task=shorten(repr(task), 200), lives=LIVES, end=end, resume=RESUME))

    def _take(self) -> _Worker:
        with self._lock:
            if self._is_closed:
                raise CancelledError
            if not self._idle:
                self._all.append(_Worker())
                return self._all[-1]
            return self._idle.pop()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        for worker in list(self._all):
            worker.kill()  # the thread that waits for it gets EOFError
        self._threads.shutdown(cancel_futures=True)
        for worker in self._all:
            worker.end()


class _Worker:
    """A new Python that does tasks, one at a time.

    It has nothing of this process's `__main__`, threads, locks and open files. It has its own process group, so that
    Ctrl-C does not reach it, and it ends when its standard input is closed, however this process ended.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER_CODE, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        self._parcel: bytes | None = None  # the last one that was sent

    def ask(self, parcel: bytes, request: bytes) -> bytes:
        """Return the answer to a request. Raises EOFError where the process ended."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            _send(self._process.stdin, b"" if self._parcel is parcel else parcel)
            _send(self._process.stdin, request)
        except OSError:
            raise EOFError from None
        self._parcel = parcel
        return _receive(self._process.stdout)

    def kill(self) -> None:
        self._process.kill()  # it holds nothing to save

    def end(self) -> str:
        """Wait for the end of the process and say how it ended."""
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


def serve() -> None:
    """Do the tasks that come through standard input, as a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what the work reads and prints must not use our pipes
    os.dup2(2, 1)
    inbox: SimpleQueue[tuple[bytes, bytes]] = SimpleQueue()
    threading.Thread(target=_listen, args=(requests, inbox), daemon=True).start()
    parcel = b""
    while True:
        new, request = inbox.get()
        parcel = new or parcel
        try:
            answer = pack((True, do(parcel, request)))
        except BaseException as error:
            answer = pack((False, _portable(error)))
        _send(answers, answer)


def _listen(requests: IO[bytes], inbox: SimpleQueue[tuple[bytes, bytes]]) -> None:
    while True:
        try:
            inbox.put((_receive(requests), _receive(requests)))
        except EOFError:
            os._exit(0)  # the parent is gone or wants no answer: do not wait for the end of the task


def _portable(error: BaseException) -> BaseException:
    """Return the error with its traceback as a note, or a RuntimeError with that text if it cannot be pickled."""
    text = "".join(traceback.format_exception(error))
    try:
        error.add_note(f"\nin a worker process:\n{text}")
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(text)
    return error
