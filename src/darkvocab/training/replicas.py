"""Train replicas, one training from several seeds: a recording of each, and a record of its end."""

import dataclasses
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..embedding.history import HISTORY_FILE, History
from ..errors import Diverged, InvalidInput, at_least
from ..extras import import_torch
from ..gpu.device import is_full, torch_device
from ..measures.census import counts
from ..numerics.grouping import n_cores
from ..runs.engine import open_engine
from ..runs.folder import repeating
from ..runs.randomness import check_seed
from ..runs.records import CURVES, RunFolder, Unsigned, record_types, write_table
from ..text import Shown
from .choices import ERRORS
from .outcome import METRICS_TABLE, outcome, read_metrics
from .recording import recorded
from .run import METRICS, TrainingFolder, no_room, require, say_beginning, steps_made, train, train_stack
from .settings import Training
from .stack import stack_size

POINTS = 100  # steps at which the replicas are compared
TICK = 1.0  # seconds between reports of progress
(ReplicaRecord,) = record_types(Path(__file__).with_suffix(".toml"), __name__)


@dataclass(frozen=True, kw_only=True, repr=False)
class Replicas(Shown):
    """A training from `n` seeds: its own, and those that follow. Each leaves what `train` leaves with its seed."""

    training: Training
    n: int

    def __post_init__(self) -> None:
        at_least(1, replicas=self.n)
        check_seed(self.training.seed + self.n - 1)

    def __len__(self) -> int:
        return self.n

    def replica(self, number: int) -> Training:
        """Return the training of one replica, counted from 0."""
        return dataclasses.replace(self.training, seed=self.training.seed + number)

    def folder(self, out: Path, number: int) -> Path:
        """Return the run folder of one replica."""
        return out / f"seed-{self.training.seed + number}"

    def manifest(self) -> dict[str, Any]:
        """Return the settings of the run, without place and time."""
        one = self.training.manifest()
        return {
            **one,
            "experiment": "replicas",
            **repeating("train", {**self.training.options(), "replicas": self.n}, {}, self.training.unrepeatable()),
            "parameters": {**one["parameters"], "replicas": self.n},
            "n_records": self.n,
        }

    def run(
        self,
        out: str | Path,
        *,
        resume: bool = False,
        engine: str | Executor = "local",
        workers: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Path:
        """Train all replicas, several side by side; return the run folder. Raises as `train` and `open_engine`.

        It holds the records, `curves.parquet`, and a run folder `seed-S` for each replica. A replica that diverges is
        recorded as such, and the others go on.

        Parameters
        ----------
        resume : go on with what the folder holds, each replica from its last checkpoint
        engine, workers : as `open_engine`, by default a process for each core; no threads, because replicas share
            torch's global generator. Other machines must see the folder at the same path. On a device this process
            trains all replicas together
        progress : is called with (steps made, steps of all)
        say : is called with what a person should know
        """
        require(self.training)
        if engine == "threads" or isinstance(engine, ThreadPoolExecutor):
            raise InvalidInput("replicas share torch's global generator; use the engine processes, or serial")
        if on_device := self.training.device != "cpu":
            if engine != "local" or workers is not None:
                raise InvalidInput(ERRORS["on_device"].format(device=self.training.device))
            torch_device(self.training.device)
        engine, workers, cores = self._spread(engine, workers)
        with ExitStack() as opened:
            runner = opened.enter_context(open_engine(engine, workers, say=say or (lambda _: None)))
            opening = RunFolder(out, ReplicaRecord, self.manifest(), records_per_part=1, resume=resume)
            folder = opened.enter_context(opening)
            if say and not folder.is_whole:
                say_beginning(self.training, folder, say)
            missing = folder.parts.missing()
            shared = self, folder.path.absolute(), cores
            in_stacks = self._train_in_stacks(folder.path, missing)
            with self._watched(folder.path, progress):
                for record in in_stacks if on_device else runner.map(_train, shared, missing):
                    folder.land(record.replica, [record])
            if not folder.is_whole:
                write_table(folder.path / CURVES, self.curves(folder.path))
                folder.finish()
        return folder.path

    def _spread(self, engine: str | Executor, workers: int | None) -> tuple[str | Executor, int | None, int | None]:
        """Return the engine, its number of workers, and the cores of each worker (None: all)."""
        most = min(self.n, n_cores())
        if engine == "local":
            workers = 1 if self.training.device != "cpu" else workers or most
            engine = "serial" if workers == 1 else "processes"
        if engine == "processes":
            workers = workers or most
            return engine, workers, max(1, n_cores() // workers)
        return engine, workers, None if engine == "serial" else 1

    @contextmanager
    def _watched(self, out: Path, progress: Callable[[int, int], None] | None) -> Iterator[None]:
        """Report the progress of all replicas while the block runs, from their files."""
        if progress is None:
            yield
            return
        steps = self.training.steps
        ended = threading.Event()
        folders = [self.folder(out, number) for number in range(self.n)]

        def watch() -> None:
            while True:
                done = (steps if (one / METRICS_TABLE).is_file() else recorded(one / METRICS) for one in folders)
                progress(sum(done), self.n * steps)
                if ended.wait(TICK):
                    return

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            ended.set()
            watching.join()
        progress(self.n * steps, self.n * steps)

    def _train_in_stacks(self, out: Path, numbers: Sequence[int]) -> Iterator[Any]:
        """Train replicas on their device, as many at once as fit; yield the records of those that ended."""
        most = stack_size(import_torch("train"), self.training)
        left = list(numbers)
        while left:
            done = {number: steps_made(self.folder(out, number)) for number in left}
            left = [number for number in left if done[number] is not None]
            yield from (self.record(out, number) for number in done if done[number] is None)
            if not (steps := sorted({n for n in done.values() if n is not None})):
                return
            # All in a stack make the same step: after an interruption those behind catch up first.
            behind = [number for number in left if done[number] == steps[0]][:most]
            try:
                self._train_stack(out, behind, steps[1] if len(steps) > 1 else None)
            except RuntimeError as error:
                if not is_full(error):
                    raise
                if not (most := len(behind) // 2):
                    raise no_room(self.training) from None
            gc.collect()  # free the stack's memory before the next one is built

    def _train_stack(self, out: Path, numbers: Sequence[int], until: int | None) -> None:
        takes = (TrainingFolder(self.replica(number), self.folder(out, number), resume=True) for number in numbers)
        with ExitStack() as opened:
            folders = [opened.enter_context(folder) for folder in takes]
            train_stack(folders, until=until)
            for folder in folders:
                if folder.status == "complete":
                    folder.clear()

    def record(self, out: Path, number: int) -> Any:
        """Return the record of one replica, from its folder."""
        path = self.folder(out, number)
        end = outcome(path)
        losses = read_metrics(path)["loss"].to_numpy()
        values: dict[str, Any] = {
            f"{when}{name}{key}": value
            for when, state in zip(("start_", ""), end.states, strict=True)
            for name, of in (("", "all"), ("unseen_", "unseen"))
            for key, value in state[of].items()
        }
        values |= {f"unseen_{name}": value for name, value in end.unseen_l_inf.items()}
        values |= {f"loss_{name}": end.loss[name] if end.loss else None for name in ("first", "last")}
        values |= {name: getattr(end, name) for name in ("status", "steps", "n_unseen", "centroid_displacement")}
        values["loss_last_100"] = float(losses[-100:].mean()) if len(losses) else None
        return ReplicaRecord(replica=number, seed=Unsigned(self.training.seed + number), **values)

    def curves(self, out: Path) -> pl.DataFrame:
        """Return the census of all and of unseen tokens of every replica at up to 100 steps, spaced geometrically."""
        unseen = self.training.corpus.unseen
        rows = []
        last = self.training.steps // self.training.record_every
        taken = np.unique(np.concatenate([[0], np.geomspace(1, max(last, 1), POINTS).round()]).astype(int))
        for number in range(self.n):
            history = History.open(self.folder(out, number) / HISTORY_FILE)
            for row, words in history.words(taken[taken < history.n_rows].tolist()):
                at = {"seed": self.training.seed + number, "step": history.step(row)}
                rows += [{**at, "tokens": "all", **counts(words)}, {**at, "tokens": "unseen", **counts(words[unseen])}]
        return pl.DataFrame(rows, schema_overrides={"seed": pl.UInt64})


def _train(shared: tuple[Replicas, Path, int | None], number: int) -> Any:
    """Train one replica, or go on with it, and return its record; runs in a worker."""
    replicas, out, cores = shared
    path = replicas.folder(out, number)
    with suppress(Diverged):  # the record says so
        train(replicas.replica(number), path, resume=(path / "manifest.json").is_file(), cores=cores)
    return replicas.record(out, number)
