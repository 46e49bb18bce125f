"""Sweep (12.2a): snowballs over a range of sigma, and the census of each."""

from __future__ import annotations

import math
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine import check_seed, run
from ..matrix import printable
from ..measures.census import Census
from ..measures.geometry import geometry
from ..numerics import as_grid, round_to
from ..numerics.cells import cell_ranges
from ..numerics.grids import median_ulp
from ..numerics.grouping import n_cores
from ..records import SCHEMA_VERSION, RunFolder, frame_of, read_records, versions
from .bases import DRAWN, Base, load_base
from .cloud import SAMPLERS, Cloud, Snowball, draw, perturb
from .notebook import NotebookStream

if TYPE_CHECKING:
    import polars as pl

PART_WORK = 1 << 26  # components drawn, counted for the slowest sigma, that make a part of the records
SHARED_WORK = 1 << 21  # components drawn from which threads pay: below, they wait for each other's Python


@dataclass(frozen=True)
class SweepRecord:
    """One snowball. The first fourteen fields are seed 000's columns, in its order; L-infinity is among black holes."""

    sigma: float
    unique_vectors: int
    n_black_holes: int
    black_hole_population: int
    n_singletons: int
    largest_bh: int  # population of the largest group: 1 when there is no black hole
    max_l_inf: float  # weight units; 0 with fewer than two black holes
    mean_l_inf: float
    median_l_inf: float  # the lower of two middle values
    n_tokens: int
    hidden_dim: int
    epsilon: float | None  # the length that the user passed
    sigma_over_epsilon: float | None
    max_l_inf_over_epsilon: float | None
    point: int
    trial: int
    sigma_over_median_ulp: float  # median over the components of the rounded base
    max_l_inf_steps: int
    mean_l_inf_steps: float
    median_l_inf_steps: int
    l_inf_rows: str  # over which rows L-infinity was taken
    base: str
    grid: str
    arithmetic: str
    sampler: str  # that drew these rows; "sparse" falls back on "dense"
    seed: int
    n_active_columns: int  # columns that were drawn
    neglected_probability: float  # bound on the chance that the sampler's neglect of far tails shows in this record
    schema_version: int


def parse_sigmas(text: str, spacing: str = "linear") -> list[float]:
    """Sigmas from ``START:STOP:COUNT`` (both ends included) or a comma-separated list, weight units.

    Raises
    ------
    ValueError
        Neither form, or a value that is not finite or is negative, or a log spacing from zero.

    Examples
    --------
    >>> parse_sigmas("1:2:3"), parse_sigmas("1e-9:1e-7:3", "log"), parse_sigmas("0,2e-9")
    ([1.0, 1.5, 2.0], [1e-09, 1e-08, 1e-07], [0.0, 2e-09])
    """
    if spacing not in ("linear", "log"):
        raise ValueError(f"unknown spacing {spacing!r}; choose linear or log")
    ends, colon, number = text.rpartition(":")
    try:
        sigmas = [float(part) for part in (ends.split(":") if colon else text.split(","))]
        count = int(number) if colon else len(sigmas)
    except ValueError:
        count = 0
    if not 1 <= count <= sys.maxsize // 16 or (colon and len(sigmas) != 2):  # beyond, numpy has no array for them
        raise ValueError(f"cannot read --sigma {text!r}; give START:STOP:COUNT or a comma list, such as 1e-9:5e-9:100")
    for sigma in sigmas:
        if not (sigma >= 0 and math.isfinite(sigma)):
            raise ValueError(f"sigma must be finite and >= 0 (weight units), got {sigma!r}")
    if not colon:
        return sigmas
    if spacing == "log" and min(sigmas) == 0:
        raise ValueError(f"a log spacing needs sigmas above 0, got {text!r}")
    start, stop = sigmas
    space = np.geomspace if spacing == "log" else np.linspace
    return space(start, stop, count).tolist()


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One part: consecutive trials, numbered through the sweep, and for the notebook sampler their bases and noise."""

    part: int
    trials: range
    bases: dict[int, np.ndarray] = field(default_factory=dict)  # of a point
    noise: dict[int, np.ndarray] = field(default_factory=dict)  # of a trial


class Sweep:
    """The settings of a sweep, checked; iterate over it for its records, once or as often as you like."""

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
        arithmetic: str = "float32",
        sampler: str = "sparse",
        epsilon: float | None = None,
        seed: int = 42,
    ) -> None:
        self.sigmas = [float(sigma) for sigma in sigmas]
        self.trials, self.n_tokens, self.grid = trials, n_tokens, as_grid(grid).name
        self.arithmetic, self.sampler, self.epsilon = arithmetic, sampler, epsilon
        self.seed, self.redraw_base = check_seed(seed), redraw_base
        if not self.sigmas:
            raise ValueError("needs at least one sigma")
        if trials < 1:
            raise ValueError(f"trials must be >= 1, got {trials}")
        if sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {sampler!r}; choose one of {', '.join(SAMPLERS)}")
        if epsilon is not None and not (epsilon > 0 and math.isfinite(epsilon) and math.isfinite(1e40 / epsilon)):
            raise ValueError(f"epsilon must be a finite length > 0 to divide by (weight units), got {epsilon!r}")
        self._is_drawn = isinstance(base, str) and base in DRAWN
        if redraw_base and not self._is_drawn:
            raise ValueError(f"only a drawn base ({', '.join(DRAWN)}) can be redrawn at each sigma, not {str(base)!r}")
        if dim is not None and dim < 1:
            raise ValueError(f"dim must be >= 1, got {dim}")
        self._spec, self._dim = base, dim
        self.base = self._base_at(0)
        self.dim = self.base.vector.size
        if sampler == "notebook":
            NotebookStream(seed)  # fails here, not in the middle, where torch is missing
        for sigma in (min(self.sigmas), max(self.sigmas)):
            snowball = self._snowball(self.base.vector, sigma)  # checks the rest
        self._most_active = self._active_columns(snowball)

    def _active_columns(self, snowball: Snowball) -> int:
        _, low, high = cell_ranges(snowball.base, snowball.sigma, self.n_tokens, self.grid, self.arithmetic)
        return int((high > low).sum())

    def __len__(self) -> int:
        return len(self.sigmas) * self.trials

    @property
    def part_size(self) -> int:
        """Trials to a part: about a second's work or less, and at least sixteen parts where there are trials enough."""
        return max(1, min(PART_WORK // self._trial_work, -(-len(self) // 16), 1024))

    @property
    def _trial_work(self) -> int:
        """Components drawn for the slowest sigma, and as much again as grouping costs."""
        return self.n_tokens * ((self._most_active if self.sampler == "sparse" else self.dim) + 16)

    @property
    def n_parts(self) -> int:
        return -(-len(self) // self.part_size)

    def manifest(self) -> dict[str, Any]:
        """What ran, but for where, when and by how many workers: those do not change the records."""
        return {
            "experiment": "sweep",
            "command": self.command(),
            "parameters": {
                "sigmas": self.sigmas,
                "trials": self.trials,
                "n_tokens": self.n_tokens,
                "hidden_dim": self.dim,
                "base": self.base.name,
                "redraw_base": self.redraw_base,
                "grid": self.grid,
                "arithmetic": self.arithmetic,
                "sampler": self.sampler,
                "epsilon": self.epsilon,
                "l_inf_rows": "black_holes",
                "part_size": self.part_size,
            },
            "seed": self.seed,
            "packages": versions(*(["torch"] if self.sampler == "notebook" else [])),
            "inputs": []
            if self._is_drawn
            else [{"base": self.base.name, "sha256": self.base.sha256, "shape": [self.dim]}],
            "n_records": len(self),
        }

    def command(self) -> str:
        """A command line that repeats this sweep (its sigmas in full)."""
        words = ["darkvocab", "sweep", "--sigma", ",".join(repr(sigma) for sigma in self.sigmas)]
        words += ["--trials", str(self.trials), "--tokens", str(self.n_tokens), "--dim", str(self.dim)]
        words += ["--base", printable(str(self.base.path or self.base.name))]
        words += ["--redraw-base"] if self.redraw_base else []
        words += ["--grid", self.grid, "--arithmetic", self.arithmetic, "--sampler", self.sampler]
        words += ["--seed", str(self.seed)]
        words += ["--epsilon", repr(self.epsilon)] if self.epsilon is not None else []
        return shlex.join(words)

    def records(
        self,
        *,
        workers: int | None = None,
        executor: Executor | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[SweepRecord]:
        """Records in order of point and trial, as they come; the same whatever the workers and interruptions.

        Parameters
        ----------
        workers : threads; by default one per core where the compiled work of a trial is long enough to share, else one
        executor : instead of threads of our own
        out : a run folder to land them in
        resume : go on with the run that the folder holds; its landed records are read, and come first
        progress : told (records done, records in all)

        Raises
        ------
        RunFolderRefused, CorruptFile, DiskFull
            As `RunFolder`.
        ValueError
            Fewer than one worker; `resume` without `out`.
        """
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be >= 1, got {workers}")
        if resume and out is None:
            raise ValueError("--resume needs the --out folder of the run to go on with")
        folder = RunFolder(out, SweepRecord, self.manifest(), resume=resume) if out is not None else None
        threads = workers or (n_cores() if self._trial_work > SHARED_WORK else 1)
        own = ThreadPoolExecutor(threads) if executor is None and threads > 1 else None
        with folder or nullcontext(), own or nullcontext():
            landed = {part for part in range(self.n_parts) if folder.landed(part)} if folder else set()
            fresh = run(self._measure_part, self._tasks(landed), executor or own, ahead=2 * threads)
            done = 0
            for part in range(self.n_parts):
                if folder and part in landed:
                    records = folder.read(part)
                else:
                    records = next(fresh)
                    if folder:
                        folder.land(part, records)
                done += len(records)
                if progress:
                    progress(done, len(self))
                yield from records
            if folder and not folder.is_whole:
                folder.finish(self.n_parts)

    def __iter__(self) -> Iterator[SweepRecord]:
        return self.records()

    def frame(self, *, out: str | Path | None = None, **running: Any) -> pl.DataFrame:
        """All records as one polars frame, through the run folder where there is one; arguments as `records`."""
        if out is None:
            return frame_of(SweepRecord, list(self.records(**running)))
        deque(self.records(out=out, **running), maxlen=0)  # they land; none is kept in memory
        return read_records(out)

    def _tasks(self, landed: set[int]) -> Iterator[_Task]:
        stream = NotebookStream(self.seed) if self.sampler == "notebook" else None
        vector = self.base.vector
        for part in range(self.n_parts):
            task = _Task(part=part, trials=range(part * self.part_size, min((part + 1) * self.part_size, len(self))))
            for number in task.trials if stream else ():
                point, trial = divmod(number, self.trials)
                if self._is_drawn and trial == 0 and (point == 0 or self.redraw_base):
                    vector = stream.base(self.base.name, self.dim)  # type: ignore[union-attr]
                task.bases[point] = vector
                task.noise[number] = stream.noise(self.n_tokens, self.dim)  # type: ignore[union-attr]
            if part not in landed:
                yield task

    def _measure_part(self, task: _Task) -> list[SweepRecord]:
        records = []
        for point, numbers in groupby(task.trials, lambda number: number // self.trials):
            vector, ulp = self.base.vector, self._median_ulp
            if point in task.bases or self.redraw_base:
                vector = task.bases[point] if point in task.bases else self._base_at(point).vector
                ulp = median_ulp(round_to(vector, self.grid), self.grid)
            snowball = self._snowball(vector, self.sigmas[point])
            cells = snowball.cells() if self.sampler == "sparse" else None
            for number in numbers:
                trial = number % self.trials
                if number in task.noise:
                    cloud = perturb(snowball, task.noise[number])
                else:
                    cloud = draw(snowball, seed=self.seed, point=point, trial=trial, sampler=self.sampler, cells=cells)
                records.append(self._record(cloud, point, trial, ulp))
        return records

    def _record(self, cloud: Cloud, point: int, trial: int, ulp: float) -> SweepRecord:
        census = Census(cloud.groups())
        among = geometry(cloud.index(census.representatives), self.grid)
        sigma, epsilon, furthest = self.sigmas[point], self.epsilon, among.weight.max
        return SweepRecord(
            sigma=sigma,
            unique_vectors=census.n_unique,
            n_black_holes=census.n_black_holes,
            black_hole_population=census.black_hole_population,
            n_singletons=census.n_singletons,
            largest_bh=census.largest_group,
            max_l_inf=furthest,
            mean_l_inf=among.weight.mean,
            median_l_inf=among.weight.lower_median,
            n_tokens=self.n_tokens,
            hidden_dim=self.dim,
            epsilon=epsilon,
            sigma_over_epsilon=sigma / epsilon if epsilon else None,
            max_l_inf_over_epsilon=furthest / epsilon if epsilon else None,
            point=point,
            trial=trial,
            sigma_over_median_ulp=sigma / ulp,
            max_l_inf_steps=int(among.steps.max),
            mean_l_inf_steps=among.steps.mean,
            median_l_inf_steps=int(among.steps.lower_median),
            l_inf_rows="black_holes",
            base=self.base.name,
            grid=self.grid,
            arithmetic=self.arithmetic,
            sampler=cloud.sampler,
            seed=self.seed,
            n_active_columns=len(cloud.columns),
            neglected_probability=cloud.neglected,
            schema_version=SCHEMA_VERSION,
        )

    def _base_at(self, point: int) -> Base:
        return load_base(self._spec, self._dim, seed=self.seed, point=point)

    def _snowball(self, vector: np.ndarray, sigma: float) -> Snowball:
        return Snowball(base=vector, n_tokens=self.n_tokens, sigma=sigma, grid=self.grid, arithmetic=self.arithmetic)

    @cached_property
    def _median_ulp(self) -> float:
        return median_ulp(round_to(self.base.vector, self.grid), self.grid)


def sweep(sigmas: Iterable[float], **settings: Any) -> Iterator[SweepRecord]:
    """Snowballs over a range of sigma: records in order, as they come.

    Parameters
    ----------
    sigmas : standard deviations of the noise, weight units
    settings : of `Sweep` (trials, n_tokens, dim, base, redraw_base, grid, arithmetic, sampler, epsilon, seed) and of
        `Sweep.records` (workers, executor, out, resume, progress)

    Examples
    --------
    >>> for record in sweep([0.0, 2e-9], n_tokens=100):
    ...     print(record.n_black_holes, record.black_hole_population)
    1 100
    4 99
    """
    running = {
        name: settings.pop(name) for name in ("workers", "executor", "out", "resume", "progress") if name in settings
    }
    return Sweep(sigmas, **settings).records(**running)
