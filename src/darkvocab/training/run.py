"""Train: make the steps of trainings, and record them into their folders while the next ones are made."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..embedding.history import HISTORY_FILE, HISTORY_KEY
from ..errors import CorruptFile, Diverged, OutOfMemory
from ..extras import import_extra, import_torch
from ..gpu.device import is_full, torch_device
from ..landing import write_json, write_whole
from ..progress import Report
from ..runs.folder import Folder, read_manifest
from ..sources.safetensors import read_metadata
from . import updates
from .choices import ERRORS, ModelStart
from .model import begin
from .outcome import COLUMNS, ENDED, TrainingOutcome, n_before_divergence, outcome, write_outcome
from .recording import Recording
from .settings import Training, multiplies_bfloat16
from .stack import Segment, Stack

SECONDS = 20.0  # between checkpoints
CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.safetensors"
STREAM = "splitmix64"  # of noise and stochastic rounding, as a checkpoint names it


def train(
    training: Training,
    out: str | Path,
    *,
    resume: bool = False,
    cores: int | None = None,
    progress: Report | None = None,
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
    require(training)
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


def require(training: Training) -> None:
    """Raise MissingExtra where torch or transformers is not installed; as `begin` for a model that is to go on."""
    torch = import_torch("train")
    import_extra("transformers", "train", "train")
    if isinstance(training.start, ModelStart):
        begin(torch, training)


def say_beginning(training: Training, folder: Folder, say: Callable[[str], None]) -> None:
    """Say what is trained on, whether an earlier version began it, and whether it is slow here."""
    say(str(training.corpus))
    if training.device == "cpu" and training.multiplied_in == "bfloat16" and not multiplies_bfloat16():
        say("products are computed in bfloat16, as asked or as the run began; this CPU takes ten times float32's time")
    if folder.is_migrated:
        say(f"{folder.path} is of an earlier version of darkvocab; its manifest is brought up to date")
        for path in (folder.path, *sorted(folder.path.glob("seed-*"))):
            done, stream = _checkpoint_metadata(path)
            if training.is_random and training.device == "cpu" and done and stream != STREAM:
                old = f"{path} was begun by a version that drew the random numbers of its steps from another generator"
                now = f"step {done + 1:,} and those after it draw from this version's: the same law, other numbers"
                say(f"{old}; {now}")


def no_room(training: Training) -> OutOfMemory:
    """Return the error for a training that does not fit in device memory."""
    return OutOfMemory(f"{training.device} has no room for this training; take a smaller --batch, --context or --width")


def train_stack(
    folders: Sequence[TrainingFolder],
    *,
    until: int | None = None,
    cores: int | None = None,
    progress: Report | None = None,
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


def _record(stack: Stack, folders: Sequence[TrainingFolder], until: int, progress: Report | None) -> None:
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


class TrainingFolder(Folder):
    """The files that a training leaves, in a folder that one process at a time works in; to be used in a `with`."""

    recordings: list[Recording]  # the embedding's, then what else is asked for
    metrics: Recording
    diverged: Diverged | None = None

    def __init__(self, training: Training, out: str | Path, *, resume: bool = False) -> None:
        """Take the folder for this training, or for its continuation; raises as `Folder`."""
        self.training = training
        self._opened = ExitStack()
        super().__init__(out, {**training.manifest(), "products": training.multiplied_in}, resume=resume)

    def _go_on_from(self, old: dict[str, Any], resume: bool) -> None:
        """Multiply as the run began, unless told otherwise; one of an earlier version, as this machine does."""
        began = old.get("products", self.manifest["products"])
        if self.training.products == "auto" and began in ("float32", "bfloat16"):
            self.training = dataclasses.replace(self.training, products=began)
            self.manifest["products"] = began
        super()._go_on_from({**old, "products": began}, resume)

    @property
    def status(self) -> str:
        return str(self.manifest["status"])

    @property
    def is_open(self) -> bool:
        """Tell whether there are steps to be made."""
        return self.status == "running"

    def close(self) -> None:
        self._opened.close()
        super().close()

    def begin(self, load: Callable[[dict[str, Any], int], None], first: Callable[[], np.ndarray]) -> int:
        """Open the recordings behind the last checkpoint; return the steps it has made.

        `load` brings the model to the checkpoint, if there is one, from its tensors and its number of steps; `first`
        returns the state before step 1, which is recorded where there is no checkpoint. Raises `CorruptFile` where the
        checkpoint or a recording is damaged.
        """
        training, every = self.training, self.training.record_every
        write_json(self.path / "corpus.json", training.corpus.description())
        done = self._restore(load)
        n_states, at = training.steps // every, done // every
        shape, grid = (training.corpus.n_vocabulary, training.architecture.width), training.precision_policy.weights
        self.recordings = [self._recording(HISTORY_FILE, HISTORY_KEY, n_states + 1, shape, grid, at + 1 if done else 0)]
        for key in (f"embedding_{kind}" for kind in training.kinds):
            self.recordings.append(self._recording(f"{key}.safetensors", key, n_states, shape, grid, at))
        if "updates" in training.record:
            columns = shape[0], len(updates.COLUMNS)
            self.recordings.append(self._recording(updates.FILE, updates.KEY, n_states, columns, "float32", at))
        self.metrics = self._recording(METRICS, "metrics", training.steps, (len(COLUMNS),), "float64", done)
        if not done:
            self.recordings[0].extend(first()[None])
        return done

    def _recording(self, name: str, key: str, n_rows: int, shape: tuple[int, ...], dtype: str, at: int) -> Recording:
        metadata = {"record_every": self.training.record_every}
        recording = Recording(self.path / name, key, n_rows, shape, dtype, metadata, resume_at=at)
        return self._opened.enter_context(recording)

    def _restore(self, load: Callable[[dict[str, Any], int], None]) -> int:
        if not (path := self.path / CHECKPOINT).is_file():
            return 0
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
                done = int(file.metadata()["done"])
            load(tensors, done)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if "CUDA" in str(error):  # the card's trouble, not the file's
                raise
            raise CorruptFile(f"{path}: not a checkpoint of this run ({error}); delete it to train anew") from None
        return done

    def extend(self, states: Sequence[np.ndarray], metrics: np.ndarray) -> None:
        """Record steps: states [n, vocabulary, dim] for each recording, and metrics [steps, 3].

        A step whose loss or norm is NaN or infinite ends the training as `diverged`, with what was
        before it.
        """
        n_good = n_before_divergence(metrics)
        first, every = self.metrics.n, self.training.record_every
        n_states = (first + n_good) // every - first // every
        for recording, rows in zip(self.recordings, states, strict=True):
            recording.extend(rows[:n_states])
        self.metrics.extend(metrics[:n_good])
        if n_good < len(metrics):
            loss, norm, _ = metrics[n_good].tolist()
            self.diverged = Diverged(ERRORS["diverged"].format(step=first + n_good + 1, loss=loss, norm=norm))
            for recording in (*self.recordings, self.metrics):
                recording.shorten()
            self.end("diverged")

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Have the disk hold what is recorded, and the state that goes on from there."""
        from safetensors.torch import save

        for recording in (*self.recordings, self.metrics):
            recording.sync()
        write_whole(self.path / CHECKPOINT, save(state, {"done": str(self.metrics.n), "stream": STREAM}))

    def end(self, status: str) -> None:
        """Close the recordings, write the metrics and the outcome, and call the training complete or diverged."""
        from safetensors.numpy import load_file

        self._opened.close()
        write_outcome(self.path, load_file(self.path / METRICS)["metrics"], status)
        self.set_status(status)

    def clear(self) -> None:
        """Remove what only an unfinished training needs."""
        for name in (CHECKPOINT, METRICS):
            (self.path / name).unlink(missing_ok=True)


def steps_made(path: Path) -> int | None:
    """Return the steps that a training's folder has a checkpoint after, or None where it has ended."""
    if (path / "manifest.json").is_file() and read_manifest(path)["status"] in ENDED:
        return None
    return _checkpoint_metadata(path)[0]


def _checkpoint_metadata(path: Path) -> tuple[int, str | None]:
    """Return the steps made and the stream of random numbers; 0 steps where there is no checkpoint to be read."""
    try:
        metadata = read_metadata(path / CHECKPOINT)
        return int(metadata["done"]), metadata.get("stream")
    except (OSError, ValueError, KeyError):
        return 0, None  # whoever begins there says what is wrong with it
