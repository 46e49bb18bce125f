"""The run folder of a training while it is made: its recordings, its checkpoint, how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..embedding.history import FILE, KEY
from ..errors import CorruptFile, Diverged
from ..landing import landing, write_json, write_whole
from ..runs.folder import Folder, read_manifest
from .learner import Metrics, diverged
from .recording import Recording

if TYPE_CHECKING:
    from .run import Training

CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.safetensors"
SECONDS = 20.0  # between checkpoints
ENDED = ("complete", "diverged")


class Ledger:
    """What a training leaves, in a folder that one process at a time works in; to be used in a `with`."""

    history: Recording  # of the embedding
    others: list[Recording]  # of what else is asked for
    metrics: Recording

    def __init__(self, training: Training, out: str | Path, *, resume: bool = False) -> None:
        """Take the folder for this training, or for its continuation; raises as `Folder`."""
        self.training = training
        self._folder = Folder(out, training.manifest(), resume=resume)
        self.path = self._folder.path
        self._opened = ExitStack()
        self.diverged: Diverged | None = None

    @property
    def status(self) -> str:
        return str(self._folder.manifest["status"])

    @property
    def is_open(self) -> bool:
        """Whether there are steps to be made."""
        return self.status == "running"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.close()
        self._folder.__exit__(*error)

    def begin(self, load: Callable[[dict[str, Any], int], None]) -> int:
        """Open the recordings behind the last checkpoint; the steps it has made.

        `load` brings the model to the checkpoint, if there is one, from its tensors and its number of steps.

        Raises
        ------
        CorruptFile
            The checkpoint or a recording is damaged.
        """
        training = self.training
        write_json(self.path / "corpus.json", training.corpus.description())
        done = self._restore(load)
        shape, grid = (training.corpus.n_vocabulary, training.architecture.width), training.kept.weights
        n_rows, at = training.steps // training.record_every, done // training.record_every
        keys = ["embedding_gradient"] * ("gradients" in training.record)
        keys += ["embedding_exp_avg", "embedding_exp_avg_sq"] * ("moments" in training.record)
        self.history = self._recording(FILE, KEY, n_rows + 1, shape, grid, at + 1 if done else 0)
        self.others = [self._recording(f"{key}.safetensors", key, n_rows, shape, grid, at) for key in keys]
        width = len(Metrics._fields) - 1
        self.metrics = self._recording(METRICS, "metrics", training.steps, (width,), "float64", done)
        return done

    def _recording(self, name: str, key: str, n_rows: int, shape: tuple[int, ...], dtype: str, at: int) -> Recording:
        about = {"record_every": self.training.record_every}
        made = Recording(self.path / name, key, n_rows, shape, dtype, about, resume_at=at)
        return self._opened.enter_context(made)

    def _restore(self, load: Callable[[dict[str, Any], int], None]) -> int:
        path = self.path / CHECKPOINT
        if not path.is_file():
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

    @property
    def _recordings(self) -> tuple[Recording, ...]:
        return self.history, *self.others, self.metrics

    def extend(self, kinds: Sequence[np.ndarray], metrics: np.ndarray) -> None:
        """Record steps: states [n, vocabulary, dim] of each kind, the embedding first, and metrics [steps, 3].

        A step whose loss or norm is no number ends the training as `diverged` with what was before it.
        """
        wrong = np.flatnonzero(~np.isfinite(metrics[:, :2]).all(1))
        first, every = self.metrics.n, self.training.record_every
        good = metrics[: wrong[0]] if len(wrong) else metrics
        n = (first + len(good)) // every - first // every
        for recording, rows in zip((self.history, *self.others), kinds, strict=True):
            recording.extend(rows[:n])
        self.metrics.extend(good)
        if len(wrong):
            number = first + len(good) + 1
            self.diverged = diverged(Metrics(number, *metrics[len(good)].tolist()))
            self.end("diverged")

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Have the disk hold what is recorded, and the state that goes on from there."""
        from safetensors.torch import save

        for recording in self._recordings:
            recording.sync()
        write_whole(self.path / CHECKPOINT, save(state, {"done": str(self.metrics.n)}))

    def end(self, status: str) -> None:
        """Nothing more is recorded: the training is complete, or diverged."""
        if status == "diverged":
            for recording in self._recordings:
                recording.shorten()
        self._opened.close()
        write_metrics(self.path)
        self._folder.set_status(status)

    def clear(self) -> None:
        """Remove what only an unfinished training needs."""
        for name in (CHECKPOINT, METRICS):
            (self.path / name).unlink(missing_ok=True)


def steps_made(path: Path) -> int | None:
    """Steps that the folder of a training has a checkpoint after; None: it has ended."""
    if (path / "manifest.json").is_file() and read_manifest(path)["status"] in ENDED:
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path / CHECKPOINT, "np") as file:
            return int(file.metadata()["done"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return 0  # whoever begins there says what is wrong with it


def write_metrics(path: Path) -> None:
    """Turn a run's recording of its metrics into `metrics.parquet`."""
    import polars as pl
    from safetensors.numpy import load_file

    values = load_file(path / METRICS)["metrics"]
    columns = dict(zip(Metrics._fields[1:], values.T, strict=True))
    frame = pl.DataFrame({"step": np.arange(1, len(values) + 1), **columns})
    with landing(path / "metrics.parquet") as file:
        frame.write_parquet(file, compression="zstd")
