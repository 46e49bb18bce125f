"""Snowballs at every point of a parameter, trial after trial: what sweep, trials and questions have in common."""

from __future__ import annotations

import math
import shlex
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from ..errors import InvalidInput
from ..gpu.batch import Asked
from ..gpu.device import Device, open_device
from ..measures.census import Census
from ..measures.geometry import Geometry
from ..measures.topology import Topology
from ..numerics import Touching
from ..numerics.cells import Cells
from ..numerics.grouping import SELECTIONS
from ..runs.engine import open_engine
from ..runs.folder import SCHEMA_VERSION, versions
from ..runs.notebook_stream import NotebookStream
from ..runs.records import RunFolder, Unsigned, frame_of, read_records
from ..text import printable
from .law import Snowball
from .on_device import MeasuredCloud, measured_clouds
from .settings import Points
from .snowball import SAMPLERS, Cloud, Draw

if TYPE_CHECKING:
    import polars as pl

MEASURES = ("geometry", "steps", "topology")  # beside the census, which is always taken
# How a run is run: never changes a record.
RUNNING = ("engine", "workers", "device", "out", "resume", "progress", "say")
MOST_TOGETHER = 4096  # records in a part at most
MOST_PARTS = 1000  # a folder of more files is slow to list and to read
FEWEST_PARTS = 16  # where there are records enough, so that a short run can be interrupted and shared, too
NOGIL = 5e-3  # seconds of a trial from which threads do not wait for each other's Python
WORTH_THREADS, WORTH_PROCESSES = 0.3, 8.0  # seconds of work from which a second worker pays its start
Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One part: consecutive trials, numbered through the points; for the notebook sampler the stream before them."""

    trials: range
    stream: bytes | None = None
    base: np.ndarray | None = None  # the drawn base that was last in the stream


class Clouds(Points, Generic[Row]):
    """Settings of a run of snowballs, checked; iterate over it for its records, once or as often as you like."""

    experiment: ClassVar[str]
    record: ClassVar[type]

    def __init__(
        self,
        sigmas: Iterable[float],
        *,
        trials: int = 1,
        n_tokens: int = 2100,
        dim: int | None = None,
        base: str | Path | np.ndarray = "qwen3-4b",
        redraw_base: bool = False,
        grid: str = "bfloat16",
        distribution: str = "gaussian",
        arithmetic: str = "float32",
        sampler: str = "sparse",
        measure: Iterable[str] = (),
        over: str = "unique",
        touching: Touching | None = None,
        epsilon: float | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__(
            sigmas,
            n_tokens=n_tokens,
            dim=dim,
            base=base,
            redraw_base=redraw_base,
            grid=grid,
            distribution=distribution,
            arithmetic=arithmetic,
            seed=seed,
        )
        measure = tuple(measure)
        self.trials, self.sampler = trials, sampler
        self.measure, self.over, self.epsilon = tuple(name for name in MEASURES if name in measure), over, epsilon
        if trials < 1:
            raise InvalidInput(f"trials must be >= 1, got {trials}")
        if sampler not in SAMPLERS:
            raise InvalidInput(f"unknown sampler {sampler!r}; choose one of {', '.join(SAMPLERS)}")
        if sampler == "notebook" and distribution != "gaussian":
            raise InvalidInput(f"the notebook sampler draws gaussian noise, not {distribution}; choose sparse or dense")
        unknown = [name for name in measure if name not in (*MEASURES, "census")]
        if unknown:
            raise InvalidInput(f"unknown measure {unknown[0]!r}; choose among census, {', '.join(MEASURES)}")
        if over not in SELECTIONS:
            raise InvalidInput(f"unknown rows {over!r}; choose one of {', '.join(SELECTIONS)}")
        if epsilon is not None and not (epsilon > 0 and math.isfinite(epsilon) and math.isfinite(1e40 / epsilon)):
            raise InvalidInput(f"epsilon must be a finite length > 0 to divide by (weight units), got {epsilon!r}")
        self.touching = touching or (Touching(2 * epsilon) if epsilon else Touching(2, "steps"))
        if sampler == "notebook":
            NotebookStream(seed)  # fails here, not in the middle, where torch is missing
        for sigma in (min(self.sigmas), max(self.sigmas)):
            self._widest = self._snowball(self.base.vector, sigma)  # checks the rest
            self._widest.ranges(n_tokens)

    @abstractmethod
    def _measured(self, cloud: Cloud | MeasuredCloud, snowball: Snowball, point: int, trial: int) -> dict[str, Any]:
        """The columns of one record but for its provenance."""

    def __len__(self) -> int:
        return len(self.sigmas) * self.trials

    # What a trial costs ------------------------------------------------------------------------------------------

    @cached_property
    def trial_seconds(self) -> float:
        """About how long a trial of the largest sigma takes on one core, by the figures of one machine."""
        drawn, rows, is_dense = self.dim, float(self.n_tokens), True
        if self._widest.has_cells:
            cells = self._widest.single_cells()
            if self.sampler == "sparse" and cells.are_few:
                drawn, is_dense = len(cells.columns) + len(cells.unlisted), False
            if not len(cells.unlisted):  # about so many of e**entropy likely rows occur
                likely = 4 * math.exp(min(_entropy(cells), 50.0))
                rows *= likely / (likely + rows)
        matrices = len(self._units) if self.over != "black_holes" or "topology" in self.measure else 0
        draw = 2.0e-4 + self.n_tokens * (2.5e-9 * drawn if is_dense else 1e-9 * drawn + 1e-8)
        return draw + matrices * rows * (3e-9 * drawn + 2e-9 * rows + 2e-12 * rows * drawn)

    @property
    def _units(self) -> set[str]:
        """Units in which distances of all pairs are taken."""
        units = {"weight"} if "geometry" in self.measure else set()
        units |= {"steps"} if "steps" in self.measure else set()
        return units | ({self.touching.unit} if "topology" in self.measure else set())

    @property
    def part_size(self) -> int:
        """Records to a part: about a second's work, and at least sixteen parts; of a long run, a thousandth."""
        longest = max(int(1 / self.trial_seconds), -(-len(self) // MOST_PARTS))
        return max(1, min(longest, -(-len(self) // FEWEST_PARTS), MOST_TOGETHER))

    @property
    def n_parts(self) -> int:
        return -(-len(self) // self.part_size)

    # What ran ----------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Any]:
        """Every setting but the seed, for the manifest."""
        return {
            "sigmas": self.sigmas,
            "trials": self.trials,
            "n_tokens": self.n_tokens,
            "hidden_dim": self.dim,
            "base": self.base.name,
            "redraw_base": self.redraw_base,
            "grid": self.grid,
            "distribution": self.distribution,
            "arithmetic": self.arithmetic,
            "sampler": self.sampler,
            "measure": ["census", *self.measure],
            "over": self.over,
            "touching": str(self.touching) if "topology" in self.measure else None,
            "epsilon": self.epsilon,
        }

    def manifest(self) -> dict[str, Any]:
        """What ran, but for where, when and by how many workers: those do not change the records."""
        return {
            "experiment": self.experiment,
            "command": self.command(),
            "parameters": self.parameters(),
            "seed": self.seed,
            "packages": versions(*(["torch"] if self.sampler == "notebook" else [])),
            "inputs": []
            if self._is_drawn
            else [{"base": self.base.name, "sha256": self.base.sha256, "shape": [self.dim]}],
            "n_records": len(self),
        }

    def command(self) -> str:
        """A command line that repeats this run (its sigmas in full)."""
        options: dict[str, Any] = {
            "sigma": ",".join(repr(sigma) for sigma in self.sigmas),
            "trials": self.trials,
            "tokens": self.n_tokens,
            "dim": self.dim,
            "base": printable(str(self.base.path or self.base.name)),
            "grid": self.grid,
            "distribution": self.distribution,
            "arithmetic": self.arithmetic,
            "sampler": self.sampler,
            "seed": self.seed,
            **self._options(),
        }
        words = ["darkvocab", self.experiment]
        for name, value in options.items():
            if value is True:
                words.append(f"--{name}")
            elif value is not None and value is not False:
                words += [f"--{name}", repr(value) if isinstance(value, float) else str(value)]
        return shlex.join(words)

    def _options(self) -> dict[str, Any]:
        """Options of the command that not every experiment has."""
        touching = self.touching if "topology" in self.measure else None
        return {
            "redraw-base": self.redraw_base,
            "measure": ",".join(["census", *self.measure]),
            "over": self.over,
            "epsilon": self.epsilon,
            "touching": touching and touching.threshold,
            "touching-unit": touching and touching.unit,
            "strict": bool(touching and touching.strict),
        }

    # Running -----------------------------------------------------------------------------------------------------

    def records(
        self,
        *,
        engine: str | Executor = "local",
        workers: int | None = None,
        device: str | Device = "cpu",
        out: str | Path | None = None,
        resume: bool = False,
        progress: Callable[[int, int], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Iterator[Row]:
        """Records in order of point and trial, as they come; the same whatever runs them, and the interruptions.

        Parameters
        ----------
        engine, workers, say : where to run: `darkvocab.runs.engine.open_engine`
        device : "cuda" or "cuda:N" draws and measures on a GPU, "mps" measures there; "cpu" on the engine's cores
        out : a run folder to land them in
        resume : go on with the run that the folder holds; its landed records are read, and come first
        progress : told (records done, records in all), first of all those that had landed

        Raises
        ------
        RunFolderRefused, CorruptFile, DiskFull
            As `RunFolder`.
        InvalidInput
            An engine or a device that there is not; both; fewer than one worker; `resume` without `out`.
        MissingExtra
            torch, or for CUDA Triton, is not installed.
        """
        for records in self._parts(engine, workers, device, out, resume, progress, say, True):
            yield from records

    def __iter__(self) -> Iterator[Row]:
        return self.records()

    def frame(self, *, out: str | Path | None = None, **running: Any) -> pl.DataFrame:
        """All records as one polars frame, through the run folder where there is one; arguments as `records`."""
        if out is None:
            return frame_of(self.record, list(self.records(**running)))
        return read_records(self.land(out, **running))

    def land(self, out: str | Path, **running: Any) -> Path:
        """Run what is missing into the run folder `out` and finish it; no record is kept in memory.

        Other arguments as `records`.
        """
        running = {
            "engine": "local",
            "workers": None,
            "device": "cpu",
            "resume": False,
            "progress": None,
            "say": None,
            **running,
        }
        deque(self._parts(out=out, reading=False, **running), maxlen=0)
        return Path(out)

    def _parts(
        self,
        engine: str | Executor,
        workers: int | None,
        device: str | Device,
        out: str | Path | None,
        resume: bool,
        progress: Callable[[int, int], None] | None,
        say: Callable[[str], None] | None,
        reading: bool,
    ) -> Iterator[list[Row]]:
        """Records of each part; without `reading` only of those that had not landed."""
        if resume and out is None:
            raise InvalidInput("--resume needs the --out folder of the run to go on with")
        there = open_device(device)
        if there and (engine != "local" or workers is not None):
            raise InvalidInput("a device draws and measures by itself: leave out --engine and --workers, or --device")
        nogil = self.trial_seconds > NOGIL
        work = len(self) * self.trial_seconds
        if there or (workers is None and engine == "local" and work < (WORTH_THREADS if nogil else WORTH_PROCESSES)):
            workers = 1
        with ExitStack() as opened:  # the engine first: where it is not there, no folder is made
            runner = opened.enter_context(open_engine(engine, workers, nogil=nogil, say=say or _silent))
            folder: RunFolder[Row] | None = None
            if out is not None:
                made: RunFolder[Row] = RunFolder(
                    out, self.record, self.manifest(), records_per_part=self.part_size, resume=resume
                )
                folder = opened.enter_context(made)
            size = folder.part_size if folder else self.part_size  # a run that goes on keeps to its parts
            n_parts = -(-len(self) // size)
            missing = set(folder.missing()) if folder else set(range(n_parts))
            done = folder.n_landed if folder else 0
            if progress:
                progress(done, len(self))
            tasks = self._tasks(missing, size)
            worth = self.n_tokens > 1  # else there is nothing to compare
            fresh = self._on(there, tasks) if there and worth else runner.map(_measure_part, self, tasks)
            for part in range(n_parts):
                if part not in missing:
                    if reading and folder:
                        yield folder.read(part)
                    continue
                records = next(fresh)
                if folder:
                    folder.land(part, records)
                done += len(records)
                if progress:
                    progress(done, len(self))
                yield records
            if folder and not folder.is_whole:
                self._finish(folder)

    def _on(self, device: Device, tasks: Iterator[_Task]) -> Iterator[list[Row]]:
        """Records of each part, measured on a device; batches do not keep to parts."""
        begun: deque[range] = deque()

        def draws() -> Iterator[Draw]:
            for task in tasks:
                begun.append(task.trials)
                yield from self._draws(task)

        records: list[Row] = []
        for draw, cloud in measured_clouds(device, draws(), self._asked()):
            records.append(self._recorded(begun[0][len(records)], draw.snowball, cloud))
            if len(records) == len(begun[0]):
                begun.popleft()
                yield records
                records = []

    def _finish(self, folder: RunFolder[Row]) -> None:
        folder.finish()

    def _tasks(self, missing: set[int], size: int) -> Iterator[_Task]:
        stream = NotebookStream(self.seed) if self.sampler == "notebook" and missing else None
        base = None
        for part in range(max(missing, default=-1) + 1):
            trials = range(part * size, min((part + 1) * size, len(self)))
            task = _Task(trials=trials, stream=stream.state if stream else None, base=base)
            if part in missing:
                yield task
            if stream and part < max(missing):  # what the part draws, for the stream to go on behind it
                base = deque(self._streamed(task, stream), maxlen=1)[0][1]

    def _streamed(self, task: _Task, stream: NotebookStream) -> Iterator[tuple[int, np.ndarray | None, np.ndarray]]:
        """Number, base (None: the fixed one) and noise of each trial, in the notebooks' order."""
        base = task.base
        for number in task.trials:
            point, trial = divmod(number, self.trials)
            if self._is_drawn and trial == 0 and (point == 0 or self.redraw_base):
                base = stream.base(self.base.name, self.dim)
            yield number, base, stream.noise(self.n_tokens, self.dim)

    def clouds(
        self, numbers: range, stream: bytes | None = None, base: np.ndarray | None = None
    ) -> Iterator[tuple[int, Snowball, Cloud]]:
        """Number, snowball and cloud of consecutive trials, as they are measured.

        Parameters
        ----------
        numbers : of trials, counted through the points
        stream, base : notebook sampler: the stream before the first of them, and the drawn base that was last in it
        """
        for number, draw in zip(numbers, self._draws(_Task(trials=numbers, stream=stream, base=base)), strict=True):
            yield number, draw.snowball, draw.cloud()

    def _draws(self, task: _Task) -> Iterator[Draw]:
        """What is to be drawn for each trial of a part."""
        how: dict[str, Any] = {"seed": self.seed, "sampler": self.sampler}
        if self.sampler == "notebook":
            source = NotebookStream(self.seed, task.stream)
            around: tuple[Any, ...] = ()
            for number, vector, noise in self._streamed(task, source):
                point, trial = divmod(number, self.trials)
                if around != (point, id(vector)):
                    around = point, id(vector)
                    snowball = self._snowball(self.base.vector if vector is None else vector, self.sigmas[point])
                yield Draw(snowball=snowball, point=point, trial=trial, noise=noise, **how)
            return
        for point, together in groupby(task.trials, lambda number: number // self.trials):
            snowball = self._snowball(
                (self._base_at(point) if self.redraw_base else self.base).vector, self.sigmas[point]
            )
            cells = snowball.single_cells() if self.sampler == "sparse" and snowball.has_cells else None
            for number in together:
                yield Draw(snowball=snowball, point=point, trial=number % self.trials, cells=cells, **how)

    def _asked(self) -> tuple[Asked, ...]:
        """What `_measured` asks of the distances."""
        asked: dict[tuple[str, str], dict[str, Any]] = {
            (self.over, unit): {"spread": True}
            for measure, unit in (("geometry", "weight"), ("steps", "steps"))
            if measure in self.measure
        }
        if "topology" in self.measure:
            asked.setdefault((self._graph_over, self.touching.unit), {})["graph"] = self.touching
        return tuple(Asked(over=over, unit=unit, **what) for (over, unit), what in asked.items())

    @property
    def _graph_over(self) -> str:
        """Which rows are the vertices of the graph: tokens, or else unique rows."""
        return self.over if self.over == "tokens" else "unique"

    def _compared(self, cloud: Cloud | MeasuredCloud, census: Census) -> tuple[Geometry | None, Topology | None]:
        """Geometry over the rows asked for; the graph over tokens, or else over unique rows."""
        measured = {"geometry", "steps"} & set(self.measure)
        among = cloud.geometry(census.groups, self.over) if measured else None
        if "topology" not in self.measure:
            return among, None
        over = self._graph_over
        vertices = among if among and self.over == over else cloud.geometry(census.groups, over)
        return among, Topology(vertices.distances(self.touching.unit), self.touching, over=over)

    def _recorded(self, number: int, snowball: Snowball, cloud: Cloud | MeasuredCloud) -> Row:
        measured = self._measured(cloud, snowball, *divmod(number, self.trials))
        made: Row = self.record(**measured, **self._provenance(snowball, cloud))
        return made

    def _provenance(self, snowball: Snowball, cloud: Cloud | MeasuredCloud) -> dict[str, Any]:
        return {
            "sigma_over_median_ulp": snowball.sigma / (self._base_ulp if self._has_one_base else snowball.median_ulp),
            "base": self.base.name,
            "grid": self.grid,
            "distribution": self.distribution,
            "arithmetic": self.arithmetic,
            "sampler": cloud.sampler,
            "seed": Unsigned(self.seed),
            "n_active_columns": cloud.n_drawn,
            "neglected_probability": cloud.neglected,
            "schema_version": SCHEMA_VERSION,
        }

    @property
    def _has_one_base(self) -> bool:
        return super()._has_one_base and not (self._is_drawn and self.sampler == "notebook")

    def _snowball(self, vector: np.ndarray, sigma: float) -> Snowball:
        return self._law(vector, sigma).snowball(self.n_tokens)


def _silent(text: str) -> None:
    pass


@cache
def _keep_memory() -> None:
    """Let freed arrays of up to 32 MiB be the next trial's: glibc does so from when it has seen one freed.

    Until then every trial has its memory from the system anew, cleared page by page: half of a small trial's time.
    """
    np.empty((32 << 20) - (64 << 10), np.uint8)


def _measure_part(clouds: Clouds[Row], task: _Task) -> list[Row]:
    _keep_memory()
    draws = clouds._draws(task)
    return [
        clouds._recorded(number, draw.snowball, draw.cloud()) for number, draw in zip(task.trials, draws, strict=True)
    ]


def _entropy(cells: Cells) -> float:
    """Entropy of a token's row in nats: the sum of its columns'."""
    p = cells.p[cells.p > 0]
    return -float(p @ np.log(p))
