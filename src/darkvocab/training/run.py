"""A training and its recording: the embedding after every step, in a run folder that a killed run goes on in."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedding.history import History
from ..errors import CorruptFile, Diverged, InvalidInput, MissingFile
from ..extras import import_torch
from ..gpu.device import check_device, is_full, torch_device
from ..measures.census import Census, counts
from ..measures.geometry import Geometry
from ..numerics import Grid, identical_rows, index_values, to_index
from ..runs.folder import read_manifest, versions
from ..runs.randomness import check_seed
from .choices import (
    PRECISIONS,
    ROUNDINGS,
    SCHEDULES,
    SGD,
    AdamW,
    Architecture,
    GaussianNoise,
    NormalStart,
    PointStart,
    Precision,
    SnowballStart,
)
from .corpus import Batches, Corpus, load_corpus
from .learner import Learner, Metrics
from .model import import_models
from .run_folder import ENDED, SECONDS, Ledger
from .train_stack import no_room, train_together

if TYPE_CHECKING:
    import polars as pl

EXTRAS = ("gradients", "moments")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of a training, checked; `run` makes it.

    By default 11.2c's model from a snowball, with weights in bfloat16 and optimizer state in float32, without the
    notebooks' defects.
    """

    corpus: Corpus = field(default_factory=load_corpus)
    architecture: Architecture = field(default_factory=Architecture)
    start: NormalStart | PointStart | SnowballStart = field(default_factory=SnowballStart)
    noise: GaussianNoise | None = None
    precision: str = "bf16-weights"  # a key of `PRECISIONS`
    rounding: str = "nearest"  # of bf16-weights: or "stochastic"
    optimizer: AdamW | SGD = field(default_factory=AdamW)
    schedule: str = "linear"  # of the learning rate, down to 0; or "constant"
    clip: float | None = 1.0  # largest Euclidean norm of the gradient
    batch: int = 32
    steps: int = 10_000
    label_shift: int = 1  # 2: the notebooks', whose data set and model shift once each
    seed: int = 42
    device: str = "cpu"
    record_every: int = 1
    record: tuple[str, ...] = ()  # of `EXTRAS`, beside the embedding

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in ("batch", "steps", "record_every"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be >= 1, got {getattr(self, name)}")
        for name, known in (("precision", PRECISIONS), ("rounding", ROUNDINGS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise InvalidInput(f"unknown {name} {getattr(self, name)!r}; choose one of {', '.join(known)}")
        if self.label_shift not in (1, 2):
            raise InvalidInput(f"label_shift must be 1 or 2, got {self.label_shift}")
        if self.rounding == "stochastic" and not self.kept.rounded:
            raise InvalidInput(
                f"precision {self.precision} does not round what it updates; stochastic is for bf16-weights"
            )
        if self.clip is not None and not self.clip > 0:
            raise InvalidInput(f"clip must be > 0, got {self.clip!r}")
        if self.steps % self.record_every:
            raise InvalidInput(f"{self.steps:,} steps are no multiple of record_every {self.record_every:,}")
        check_device(self.device)
        unknown = [name for name in self.record if name not in EXTRAS]
        if unknown:
            raise InvalidInput(f"cannot record {unknown[0]!r}; choose of {', '.join(EXTRAS)}")
        if "moments" in self.record and not isinstance(self.optimizer, AdamW):
            raise InvalidInput("moments are Adam's; this optimizer has none")
        self.batches  # noqa: B018, checks the corpus against the context

    @property
    def kept(self) -> Precision:
        return PRECISIONS[self.precision]

    @cached_property
    def batches(self) -> Batches:
        return Batches(
            corpus=self.corpus,
            context=self.architecture.context,
            batch=self.batch,
            seed=self.seed,
            label_shift=self.label_shift,
        )

    def learning_rate(self, step: int) -> float:
        """Of step `step`, counted from 1."""
        whole = self.optimizer.learning_rate
        return whole * (self.steps - step + 1) / self.steps if self.schedule == "linear" else whole

    # What ran ---------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Any]:
        """Every setting but the seed, for the manifest."""
        start, noise = dataclasses.asdict(self.start), self.noise
        return {
            **dataclasses.asdict(self.architecture),
            "start": self.start.name,
            **{f"init_{name}": value for name, value in start.items()},
            "noise": "none" if noise is None else "gaussian",
            **({} if noise is None else {"noise_sigma": noise.sigma, "noise_rows": noise.rows}),
            "precision": self.precision,
            "rounding": self.rounding,
            "optimizer": self.optimizer.name,
            **dataclasses.asdict(self.optimizer),
            "schedule": self.schedule,
            "clip": self.clip,
            "batch": self.batch,
            "steps": self.steps,
            "label_shift": self.label_shift,
            "vocabulary": self.corpus.n_vocabulary,
            "n_unseen": len(self.corpus.unseen),
            "device": self.device,
            "record_every": self.record_every,
            "record": list(self.record),
        }

    def manifest(self) -> dict[str, Any]:
        """What ran, but for where and when."""
        corpus = self.corpus
        return {
            "experiment": "train",
            "command": self.command(),
            "parameters": self.parameters(),
            "seed": self.seed,
            "packages": versions("torch", "transformers"),
            "inputs": [{"corpus": corpus.name, "sha256": corpus.sha256, "shape": [len(corpus.ids)]}],
        }

    def command(self) -> str:
        """A command line that repeats this run, given its corpus."""
        options = {
            "corpus": None if self.corpus.is_default else self.corpus.name,
            **self.parameters(),
            "seed": self.seed,
        }
        for name in ("n_unseen", "betas", "eps", "momentum", "record"):
            options.pop(name, None)
        words = ["darkvocab", "train"]
        for name, value in options.items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                words += [option if value else f"--no-{name.replace('_', '-')}"]
            elif value is not None:
                words += [option, str(value)]
        words += [word for name in self.record for word in ("--record", name)]
        return shlex.join(words)

    # Running ----------------------------------------------------------------------------------------------------

    def metrics(self, learner: Learner | None = None, after: int = 0) -> Iterator[Metrics]:
        """Make the steps, on the CPU, one at a time, without a record of them; `learner` is what is trained."""
        learner = learner or Learner(self)
        for step in range(after + 1, self.steps + 1):
            yield learner.step(step, *self.batches(step))

    def run(
        self,
        out: str | Path,
        *,
        resume: bool = False,
        cores: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Path:
        """Train, recording every step into a run folder; returns the folder.

        Parameters
        ----------
        resume : go on with the run of these settings that the folder holds, from its last checkpoint
        cores : to work on, by default all; never changes a result
        progress : is called with (steps made, steps)
        say : is called with what a person should know at the start

        Raises
        ------
        Diverged
            The loss is no number any more; the recording ends with the last step that was made.
        InvalidInput
            torch sees no such device.
        OutOfMemory
            The device has no room for it.
        RunFolderRefused, CorruptFile, DiskFull
            As `RunFolder`.
        MissingExtra
            torch or transformers is not installed.
        """
        require()
        if self.device != "cpu":
            torch_device(self.device)
        with Ledger(self, out, resume=resume) as ledger:
            if ledger.status == "diverged":
                raise Diverged(f"{ledger.path} holds a training that diverged; choose other settings and another --out")
            if ledger.is_open:
                if say:
                    say(str(self.corpus))
                if self.device == "cpu":
                    self._train(ledger, cores, progress)
                else:
                    self._train_on_device(ledger, progress)
            ledger.clear()
        return ledger.path

    def _train(self, ledger: Ledger, cores: int | None, progress: Callable[[int, int], None] | None) -> None:
        learner = Learner(self, cores)
        done = ledger.begin(lambda tensors, _: learner.load(tensors))
        if not done:
            ledger.history.append(learner.rows)
        if progress:
            progress(done, self.steps)
        saved = time.monotonic()
        try:
            for made in self.metrics(learner, done):
                if made.step % self.record_every == 0:
                    ledger.history.append(learner.rows)
                    for recording, rows in zip(ledger.others, self._others(learner), strict=True):
                        recording.append(rows)
                ledger.metrics.append(np.array(made[1:]))
                if time.monotonic() - saved > SECONDS or made.step == self.steps:
                    ledger.checkpoint(learner.state())
                    saved = time.monotonic()
                if progress:
                    progress(made.step, self.steps)
        except Diverged:
            ledger.end("diverged")
            raise
        learner.save(ledger.path / "model")
        ledger.end("complete")

    def _train_on_device(self, ledger: Ledger, progress: Callable[[int, int], None] | None) -> None:
        try:
            train_together([ledger], progress=progress)
        except RuntimeError as error:
            if not is_full(error):
                raise
            raise no_room(self) from None
        if ledger.diverged:
            raise ledger.diverged

    def _others(self, learner: Learner) -> Iterator[np.ndarray]:
        if "gradients" in self.record:
            yield learner.gradient
        if "moments" in self.record:
            yield from learner.moments


def require() -> None:
    """See that what a training needs is installed, or raise `MissingExtra`."""
    import_torch("train")
    import_models()


def outcome(run: str | Path) -> dict[str, Any]:
    """What a training came to: the census of its first and last recorded state, over all and over unseen tokens.

    Raises
    ------
    MissingFile
        No finished training there.
    CorruptFile
        Its files cannot be read.
    """
    path = Path(run)
    manifest = read_manifest(path)
    if manifest.get("experiment") != "train" or manifest["status"] not in ENDED:
        raise MissingFile(f"{path} holds no training that has ended")
    history, ends = read_ends(path)
    if history.unseen is None:
        raise CorruptFile(f"{path}: its corpus.json does not say which tokens are unseen")
    unseen = np.array(history.unseen, np.int64)
    losses = read_metrics(path)["loss"]
    return {
        "run": str(path),
        "status": manifest["status"],
        "steps": len(losses),
        "n_unseen": len(unseen),
        "loss": {"first": losses[0], "last": losses[-1]} if len(losses) else None,
        "states": [
            {"step": step, "all": counts(end), "unseen": counts(end[unseen])}
            for step, end in zip((0, history.step(history.n_rows - 1)), ends, strict=True)
        ],
        "unseen_l_inf": _l_inf(ends[1][unseen], history.grid),
        "centroid_displacement": displacement(*ends, history.grid),
    }


def read_ends(run: Path) -> tuple[History, tuple[np.ndarray, np.ndarray]]:
    """A run's history, and the words [vocabulary, dim] of its first and last state; raises as `History.open`."""
    history = History.open(run)
    (_, first), (_, last) = history.words((0, history.n_rows - 1))
    return history, (first, last)


def read_metrics(run: Path) -> pl.DataFrame:
    """The metrics of an ended training.

    Raises
    ------
    CorruptFile
        They are missing, or not what a training leaves.
    """
    import polars as pl

    path = run / "metrics.parquet"
    try:
        return pl.read_parquet(path, columns=["step", *Metrics._fields[1:]])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise CorruptFile(f"{path}: not the metrics of a training ({error})") from None


def displacement(first: np.ndarray, last: np.ndarray, grid: Grid) -> float:
    """How far the centroid moved, Euclidean, weight units, between two states of words [vocabulary, dim]."""
    before, after = (index_values(to_index(words, grid), grid).mean(axis=0) for words in (first, last))
    return float(np.linalg.norm(after - before))


def apart(words: np.ndarray, grid: Grid) -> Geometry:
    """Distances over all pairs of tokens, of words [n, dim]."""
    tokens, weights = Census(identical_rows(words)).groups.select("tokens")
    return Geometry(to_index(words, grid)[tokens], grid, over="tokens", weights=weights)


def _l_inf(words: np.ndarray, grid: Grid) -> dict[str, float | int | None]:
    if len(words) < 2:
        return dict.fromkeys(("max_l_inf", "mean_l_inf", "max_l_inf_steps"))
    made = apart(np.ascontiguousarray(words), grid)
    return {
        "max_l_inf": float(made.weight.max),
        "mean_l_inf": float(made.weight.mean),
        "max_l_inf_steps": int(made.steps.max),
    }
