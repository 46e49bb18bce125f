"""Train: make the steps of trainings, and record them into their folders while the next ones are made."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ..errors import Diverged, OutOfMemory
from ..extras import import_extra, import_torch
from ..gpu.device import is_full, torch_device
from ..runs.folder import Folder
from .outcome import TrainingOutcome, outcome
from .run_folder import TrainingFolder, steps_drawn_otherwise
from .settings import Training, multiplies_bfloat16
from .stack import Segment, Stack

SECONDS = 20.0  # between checkpoints


def train(
    training: Training,
    out: str | Path,
    *,
    resume: bool = False,
    cores: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> TrainingOutcome:
    """Train, recording every step into a run folder; return what became of it.

    Raises `Diverged` where the loss or the gradient norm is NaN or infinite (the recording ends with the last step
    before), InvalidInput where torch sees no such device, OutOfMemory where it has no room, DiskFull, and as `Folder`
    and `require`.

    Parameters
    ----------
    out : the run folder
    resume : go on with the run of these settings that the folder holds, from its last checkpoint
    cores : to work on, by default all; never changes a result
    progress : is called with (steps made, steps)
    say : is called with what a person should know at the start
    """
    require()
    if training.device != "cpu":
        torch_device(training.device)
    with TrainingFolder(training, out, resume=resume) as folder:
        if folder.status == "diverged":
            raise Diverged(f"{folder.path} holds a training that diverged; choose other settings and another --out")
        if folder.is_open:
            if say:
                say_beginning(folder.training, folder, say)
            try:
                train_stack([folder], cores=cores, progress=progress)
            except RuntimeError as error:
                if not is_full(error):
                    raise
                raise no_room(training) from None
            if folder.diverged:
                raise folder.diverged
        folder.clear()
    return outcome(folder.path)


def require() -> None:
    """Raise `MissingExtra` where torch or transformers is not installed."""
    import_torch("train")
    import_extra("transformers", "train", "train")


def say_beginning(training: Training, folder: Folder, say: Callable[[str], None]) -> None:
    """Say what is trained on, whether an earlier version began it, and whether it is slow here."""
    say(str(training.corpus))
    if training.device == "cpu" and training.multiplied_in == "bfloat16" and not multiplies_bfloat16():
        say("products are computed in bfloat16, as asked or as the run began; this CPU takes ten times float32's time")
    if folder.is_migrated:
        say(f"{folder.path} is of an earlier version of darkvocab; its manifest is brought up to date")
        for path in (folder.path, *sorted(folder.path.glob("seed-*"))):
            if training.is_random and training.device == "cpu" and (done := steps_drawn_otherwise(path)):
                say(
                    f"{path} was begun by a version that drew the random numbers of its steps from another generator; "
                    f"step {done + 1:,} and those after it draw from this version's: the same law, other numbers"
                )


def no_room(training: Training) -> OutOfMemory:
    """Return the error for a training that does not fit in device memory."""
    return OutOfMemory(f"{training.device} has no room for this training; take a smaller --batch, --context or --width")


def train_stack(
    folders: Sequence[TrainingFolder],
    *,
    until: int | None = None,
    cores: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Train in folders that are taken, as one stack: all of them have made the same number of steps.

    It ends at the step `until`, by default the last. Each that was made is then complete, or diverged; one that is to
    go on has a checkpoint there. Raises as `train`, and `torch.OutOfMemoryError` where the device cannot hold so many.
    """
    stack = Stack([folder.training for folder in folders], cores=cores)
    n_steps = stack.training.steps
    until = until or n_steps
    for replica, folder in enumerate(folders):
        folder.begin(partial(stack.load, replica), partial(stack.rows, replica))
    if progress:
        progress(stack.made, n_steps)
    _record(stack, folders, until, progress)
    for replica, folder in enumerate(folders):
        if folder.is_open and until == n_steps:
            stack.save(replica, folder.path / "model")
            folder.end("complete")


def _record(
    stack: Stack, folders: Sequence[TrainingFolder], until: int, progress: Callable[[int, int], None] | None
) -> None:
    """Make the steps, with a thread that writes those before; have checkpoints now and then, and at the end."""
    tell = progress or (lambda *_: None)
    saved, written = time.monotonic(), None
    with ThreadPoolExecutor(1) as writer:  # ends with all written that can be, whatever comes
        for segment in stack.segments(until):
            earlier, written = written, writer.submit(_write, stack, folders, segment, written)
            if earlier:
                tell(earlier.result(), stack.training.steps)
            if segment.last == until or time.monotonic() - saved > SECONDS:
                written.result()
                for replica, folder in enumerate(folders):
                    if folder.is_open:
                        folder.checkpoint(stack.state(replica))
                saved, written = time.monotonic(), None
                tell(segment.last, stack.training.steps)
            if not any(folder.is_open for folder in folders):
                return


def _write(stack: Stack, folders: Sequence[TrainingFolder], segment: Segment, earlier: Future[int] | None) -> int:
    """Write what a segment left into the folders, once the one before it is there; return its last step."""
    if earlier:
        earlier.result()  # what could not be written is not written over
    states, metrics = stack.read(segment)
    for replica, folder in enumerate(folders):
        if folder.is_open:
            folder.extend([kind[:, replica] for kind in states], metrics[:, replica])
    return segment.last
