"""Run independent tasks through an executor, in order; a counter-based random generator for each.

Any `concurrent.futures.Executor` serves. The work releases the GIL in compiled kernels, so threads are the default:
they share their inputs and start at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import TypeVar

import numpy as np

Task = TypeVar("Task")
Result = TypeVar("Result")

NOISE, BASE = 0, 1  # what a generator is for: streams of the same task never meet
SEED_LIMIT = 2**64


def run(
    work: Callable[[Task], Result], tasks: Iterable[Task], executor: Executor | None = None, *, ahead: int = 4
) -> Iterator[Result]:
    """Results of `work` on each task, in the order of the tasks, at most `ahead` of them begun at a time.

    Without an executor each task runs when its result is asked for. When the caller stops, tasks not begun are dropped.
    """
    if executor is None:
        yield from map(work, tasks)
        return
    remaining = iter(tasks)
    pending = deque(executor.submit(work, task) for task in islice(remaining, ahead))
    try:
        while pending:
            result = pending.popleft().result()
            pending.extend(executor.submit(work, task) for task in islice(remaining, 1))
            yield result
    finally:
        for future in pending:
            future.cancel()


def check_seed(seed: int) -> int:
    """The seed, if it is one: 0 <= seed < 2**64.

    Raises
    ------
    ValueError
    """
    if not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"seed must be from 0 to 2**64 - 1, got {seed}")
    return seed


def generator(seed: int, point: int, trial: int, *, block: int = 0, purpose: int = NOISE) -> np.random.Generator:
    """Generator of one trial of one point: Philox4x64 with key (seed, purpose), counter (0, block, point, trial).

    Whatever else was drawn, in whatever order or process, the numbers are the same.
    """
    key = np.array([check_seed(seed), purpose], np.uint64)
    counter = np.array([0, block, point, trial], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
