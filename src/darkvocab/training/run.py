"""Train: make the steps of trainings, and write each step into its folder while the next ones are computed."""

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
from .outcome import ENDED, METRIC_COLUMNS, TrainingOutcome, n_before_divergence, outcome, write_outcome
from .recording import Recording
from .settings import Training, multiplies_bfloat16
from .stack import Segment, Stack

SECONDS = 20.0  # between checkpoints
CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.safetensors"
STREAM = "splitmix64"  # generator of noise and stochastic rounding, named in a checkpoint


def train(
    training: Training,
    out: str | Path,
    *,
    resume: bool = False,
    cores: int | None = None,
    progress: Report | None = None,
    say: Callable[[str], None] | None = None,
) -> TrainingOutcome:
    """Train, recording every step into a run folder; return the outcome.

    Raises `Diverged` where the loss or the gradient norm is NaN or infinite (the recording then ends with the step
    before), InvalidInput where torch sees no such device, OutOfMemory where the training does not fit in its memory,
    DiskFull, and as `Folder` and `require`.

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
    try:
        with TrainingFolder(training, out, resume=resume) as folder:
            if folder.status == "diverged":
                raise Diverged(f"{folder.path} holds a training that diverged; choose other settings and another --out")
            if folder.is_open and say:
                say_beginning(folder.training, folder, say)
            if folder.is_open:
                train_stack([folder], cores=cores, progress=progress)
            if folder.diverged:
                raise folder.diverged
            folder.clear()
    except RuntimeError as error:
        if not is_full(error):
            raise
        raise no_room(training) from None
    return outcome(folder.path)


def require(training: Training) -> None:
    """Raise MissingExtra where torch or transformers is not installed; raises as `begin` for a start from a model."""
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
    """Train in folders that are taken and have made the same number of steps, as one stack, up to the step `until`.

    Each is then complete or diverged, or has a checkpoint. Raises as `train`; torch's own error where memory is full.
    """
    stack = Stack([folder.training for folder in folders], cores=cores)
    n_steps = stack.training.steps
    until = until or n_steps
    for replica, folder in enumerate(folders):
        folder.begin(partial(stack.load, replica), partial(stack.rows, replica))
    if progress:
        progress(stack.made, n_steps)
    with ThreadPoolExecutor(1) as writer:  # leaving it waits for what is still to be written
        _record(stack, folders, until, writer, progress or (lambda *_: None))
    for replica, folder in enumerate(folders):
        if folder.is_open and until == n_steps:
            stack.save(replica, folder.path / "model")
            folder.end("complete")


def _record(
    stack: Stack, folders: Sequence[TrainingFolder], until: int, writer: ThreadPoolExecutor, report: Report
) -> None:
    """Make the steps while `writer` writes earlier ones; save checkpoints every `SECONDS`, and at the end."""
    saved = time.monotonic()
    written: Future[int] | None = None
    for segment in stack.segments(until):
        earlier, written = written, writer.submit(_write, stack, folders, segment, written)
        if earlier:
            report(earlier.result(), stack.training.steps)
        if segment.last == until or time.monotonic() - saved > SECONDS:
            written.result()
            for replica in [number for number, folder in enumerate(folders) if folder.is_open]:
                folders[replica].checkpoint(stack.state(replica))
            saved = time.monotonic()
            written = None
            report(segment.last, stack.training.steps)
        if not any(folder.is_open for folder in folders):
            return


def _write(stack: Stack, folders: Sequence[TrainingFolder], segment: Segment, earlier: Future[int] | None) -> int:
    """Write a segment into the folders; return its last step."""
    if earlier:
        earlier.result()  # raises where the segment before could not be written: none may follow it
    states, metrics = stack.read(segment)
    for replica, folder in enumerate(folders):
        if folder.is_open:
            folder.extend([kind[:, replica] for kind in states], metrics[:, replica])
    return segment.last


class TrainingFolder(Folder):
    """The files of a training, in a folder that one process at a time works in; to be used in a `with`."""

    recordings: list[Recording]  # the embedding, then what else is asked for
    metrics: Recording
    diverged: Diverged | None = None

    def __init__(self, training: Training, out: str | Path, *, resume: bool = False) -> None:
        """Take the folder for this training, or for its continuation; raises as `Folder`."""
        self.training = training
        self._opened = ExitStack()
        super().__init__(out, {**training.manifest(), "products": training.multiplied_in}, resume=resume)

    def _go_on_from(self, old: dict[str, Any], resume: bool) -> None:
        """Compute products in the dtype that the run began with, unless `products` says otherwise."""
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
        """Open the recordings at the last checkpoint; return the number of its steps, 0 without one.

        `load` is called with the checkpoint's tensors and steps; `first` returns the state before step 1. Raises
        `CorruptFile` where the checkpoint or a recording is damaged.
        """
        training = self.training
        write_json(self.path / "corpus.json", training.corpus.description())
        done = self._restore(load)
        n_states = training.steps // training.record_every
        at = done // training.record_every
        shape = (training.corpus.n_vocabulary, training.architecture.width)
        grid = training.precision_policy.weights
        self.recordings = [self._recording(HISTORY_FILE, HISTORY_KEY, n_states + 1, shape, grid, at + 1 if done else 0)]
        for key in (f"embedding_{kind}" for kind in training.kinds):
            self.recordings.append(self._recording(f"{key}.safetensors", key, n_states, shape, grid, at))
        if "updates" in training.record:
            columns = shape[0], len(updates.UPDATE_COLUMNS)
            self.recordings.append(self._recording(updates.FILE, updates.KEY, n_states, columns, "float32", at))
        self.metrics = self._recording(METRICS, "metrics", training.steps, (len(METRIC_COLUMNS),), "float64", done)
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
            if "CUDA" in str(error):  # an error of the device, not of the file
                raise
            raise CorruptFile(f"{path}: not a checkpoint of this run ({error}); delete it to train anew") from None
        return done

    def extend(self, states: Sequence[np.ndarray], metrics: np.ndarray) -> None:
        """Record states [n, vocabulary, dim] of each recording and metrics [steps, 3], up to a step that diverges."""
        n_good = n_before_divergence(metrics)
        first = self.metrics.n
        n_states = (first + n_good) // self.training.record_every - first // self.training.record_every
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
        """Flush the recordings to disk, and write the state from which the training can go on."""
        from safetensors.torch import save

        for recording in (*self.recordings, self.metrics):
            recording.sync()
        write_whole(self.path / CHECKPOINT, save(state, {"done": str(self.metrics.n), "stream": STREAM}))

    def end(self, status: str) -> None:
        """Close the recordings, write the metrics and the outcome, and set the status: complete or diverged."""
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
        return 0, None  # `TrainingFolder.begin` says what is wrong with it
