"""Work for the tests of the engine: of a module, so that other processes can import it."""

import os
import signal
import time
from pathlib import Path


def add(shared, task):
    return shared + task


def where(shared, task):
    """The task, and the process that did it after a while."""
    time.sleep(shared)
    return task, os.getpid()


def square(shared, task):
    time.sleep(shared)
    return task**2


def refuse_three(shared, task):
    if task == 3:
        raise KeyError("three")
    time.sleep(shared)
    return task


class Unportable(Exception):
    """An object whose pickle cannot be read."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def refuse_unportably(shared, task):
    raise Unportable(1, 2)


def print_and_read(shared, task):
    print("noise", flush=True)
    return os.read(0, 10)


def interrupt(shared, task):
    raise KeyboardInterrupt


def die_once(marks, task):
    """Killed at task 5, the first time."""
    mark = Path(marks) / "died"
    if task == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task**2


def always_die(deadly, task):
    if task == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return task


class Counted:
    """Settings that leave a mark each time they are unpickled."""

    def __init__(self, marks, size):
        self.marks, self.content = str(marks), bytes(size)

    def __setstate__(self, state):
        self.__dict__.update(state)
        descriptor, _ = __import__("tempfile").mkstemp(prefix=f"{os.getpid()}-", dir=self.marks)
        os.close(descriptor)


def size_of(shared, task):
    time.sleep(0.05)
    return len(shared.content), os.getpid()


def count_fetches(dask_scheduler):
    """Count, from now on, what workers ask the scheduler for."""
    fetch = dask_scheduler.handlers["get_metadata"]
    dask_scheduler.n_fetches = 0

    def counted(**question):
        dask_scheduler.n_fetches += 1
        return fetch(**question)

    dask_scheduler.handlers["get_metadata"] = counted
