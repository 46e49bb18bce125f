"""The run folder of a training while it is made: its recordings, its checkpoint, how it ended."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..embedding.history import FILE, KEY
from ..errors import CorruptFile, Diverged
from ..landing import write_json, write_whole
from ..runs.folder import Folder, read_manifest
from . import updates
from .outcome import COLUMNS, ENDED, measure_outcome, n_before_divergence, write_metrics
from .outcome import FILE as OUTCOME
from .recording import Recording
from .settings import Training

CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.safetensors"
STREAM = "splitmix64"  # of noise and stochastic rounding, as a checkpoint names it


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
        training = self.training
        write_json(self.path / "corpus.json", training.corpus.description())
        done = self._restore(load)
        n_states, at = training.steps // training.record_every, done // training.record_every
        extras = ["embedding_gradient"] * ("gradients" in training.record)
        extras += ["embedding_exp_avg", "embedding_exp_avg_sq"] * ("moments" in training.record)
        shape, grid = (training.corpus.n_vocabulary, training.architecture.width), training.precision_policy.weights
        self.recordings = [self._recording(FILE, KEY, n_states + 1, shape, grid, at + 1 if done else 0)]
        self.recordings += [self._recording(f"{key}.safetensors", key, n_states, shape, grid, at) for key in extras]
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
            self.diverged = Diverged(
                f"the training diverged at step {first + n_good + 1:,}: loss {loss}, gradient norm {norm}; "
                "what was recorded before is kept"
            )
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
        write_metrics(self.path, load_file(self.path / METRICS)["metrics"])
        write_json(self.path / OUTCOME, measure_outcome(self.path, status).to_json())
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


def steps_drawn_otherwise(path: Path) -> int:
    """Count the steps before a checkpoint of a version that drew its random numbers on a CPU from another stream."""
    done, stream = _checkpoint_metadata(path)
    return 0 if stream == STREAM else done


def _checkpoint_metadata(path: Path) -> tuple[int, str | None]:
    """Return the steps made and the stream of random numbers; 0 steps where there is no checkpoint to be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path / CHECKPOINT, "np") as file:
            metadata = file.metadata()
            return int(metadata["done"]), metadata.get("stream")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return 0, None  # whoever begins there says what is wrong with it
