"""A stack of trainings and their ledgers: the device makes steps while a thread writes down those before."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from ..errors import OutOfMemory
from .run_folder import SECONDS, Ledger
from .stack import Stack, Stretch

if TYPE_CHECKING:
    from .run import Training

AHEAD = 1  # stretches of steps that may wait to be written while the next is made


def train_together(
    ledgers: Sequence[Ledger], until: int | None = None, progress: Callable[[int, int], None] | None = None
) -> None:
    """Train in folders that are taken: a stack that all have made the same number of steps of.

    Parameters
    ----------
    until : the step that ends it, by default the last. Each that was made is then complete, or diverged; one that is to
        go on has a checkpoint there
    progress : is called with (steps made, steps)

    Raises
    ------
    CorruptFile, DiskFull
        As `Training.run`. What was recorded can be gone on with.
    torch.OutOfMemoryError
        The device cannot hold so many.
    """
    stack = Stack([ledger.training for ledger in ledgers])
    steps = ledgers[0].training.steps
    until = until or steps
    for replica, ledger in enumerate(ledgers):
        done = ledger.begin(partial(stack.load, replica))
        if not done:
            ledger.history.append(stack.rows(replica))
    if progress:
        progress(stack.made, steps)
    _steps(stack, ledgers, until, progress)
    for replica, ledger in enumerate(ledgers):
        if ledger.is_open and until == steps:
            stack.save(replica, ledger.path / "model")
            ledger.end("complete")


def no_room(training: Training) -> OutOfMemory:
    """Return the error for a training that does not fit in device memory."""
    return OutOfMemory(f"{training.device} has no room for this training; take a smaller --batch, --context or --width")


def _steps(stack: Stack, ledgers: Sequence[Ledger], until: int, progress: Callable[[int, int], None] | None) -> None:
    waiting: deque[tuple[int, Future[None]]] = deque()
    before, saved = None, time.monotonic()
    with ThreadPoolExecutor(1) as writer:  # ends with all written that can be, whatever comes
        for stretch in stack.stretches(until):
            before = writer.submit(_write, stack, ledgers, stretch, before)
            waiting.append((stretch.last, before))
            due = stretch.last == until or time.monotonic() - saved > SECONDS
            while len(waiting) > (0 if due else AHEAD):
                last, written = waiting.popleft()
                written.result()
                if due and not waiting:
                    for replica, ledger in enumerate(ledgers):
                        if ledger.is_open:
                            ledger.checkpoint(stack.state(replica))
                    saved = time.monotonic()
                if progress:
                    progress(last, stack.training.steps)
            if not any(ledger.is_open for ledger in ledgers):
                return


def _write(stack: Stack, ledgers: Sequence[Ledger], stretch: Stretch, before: Future[None] | None) -> None:
    if before is not None:
        before.result()  # what could not be written is not written over
    kinds, metrics = stack.read(stretch)
    for replica, ledger in enumerate(ledgers):
        if ledger.is_open:
            ledger.extend([kind[:, replica] for kind in kinds], metrics[:, replica])
