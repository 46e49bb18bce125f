"""Run sweeps, trials and questions: draw the snowballs, measure them, and write the records to a run folder."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32

from ..errors import InvalidInput
from ..gpu.device import Device, open_device
from ..runs.engine import open_engine
from ..runs.randomness import NotebookStream
from ..runs.records import RunFolder, frame_of, read_records, write_table
from .on_device import measured_clouds
from .settings import RunSettings, manifest
from .snowball import Draw, DrawnCloud, Snowball

if TYPE_CHECKING:
    import polars as pl

MOST_RECORDS = 4096  # in a part
MOST_PARTS = 1000  # a folder of more files is slow to list and to read
FEWEST_PARTS = 16  # if there are enough records, so that short runs can be interrupted and shared, too
NOGIL = 5e-3  # seconds: in longer trials, threads seldom wait for the interpreter lock
WORTH_THREADS = 0.3  # seconds of work from which a second thread is worth its start
WORTH_PROCESSES = 8.0  # the same for a second process


class Cost:
    """Estimated cost of a run, from timings on one machine."""

    def __init__(self, settings: RunSettings) -> None:
        self.n_records = len(settings)
        self.trial_seconds = _trial_seconds(settings)  # one trial at the largest sigma, on one core

    @property
    def part_size(self) -> int:
        """Records in a part: about a second of work, between a thousandth and a sixteenth of all records."""
        longest = max(int(1 / self.trial_seconds), -(-self.n_records // MOST_PARTS))
        return max(1, min(longest, -(-self.n_records // FEWEST_PARTS), MOST_RECORDS))

    @property
    def suits_threads(self) -> bool:
        """True where trials spend long enough in compiled code for threads to run in parallel."""
        return self.trial_seconds > NOGIL

    @property
    def needs_one_worker(self) -> bool:
        """True where the run ends before a second worker would have started."""
        worth = WORTH_THREADS if self.suits_threads else WORTH_PROCESSES
        return self.n_records * self.trial_seconds < worth


def _trial_seconds(settings: RunSettings) -> float:
    n_tokens = settings.n_tokens
    n_drawn = settings.hidden_dim
    is_dense = True
    rows = float(n_tokens)
    widest = settings.snowball(settings.base.vector, max(settings.sigmas))
    if widest.has_cells:
        cells = widest.single_cells()
        if settings.sampler == "sparse" and cells.are_few:
            n_drawn = cells.n_active
            is_dense = False
        if not len(cells.unlisted):  # about e**entropy rows are likely; the entropies of columns add up
            p = cells.p[cells.p > 0]
            likely = 4 * math.exp(min(-float(p @ np.log(p)), 50.0))
            rows *= likely / (likely + rows)
    compares_many = settings.over != "black_holes" or "topology" in settings.measure
    n_matrices = len({query.unit for query in settings.queries()}) if compares_many else 0
    draw = 2.0e-4 + n_tokens * (2.5e-9 * n_drawn if is_dense else 1e-9 * n_drawn + 1e-8)
    return draw + n_matrices * rows * (3e-9 * n_drawn + 2e-9 * rows + 2e-12 * rows * n_drawn)


@dataclass(frozen=True, kw_only=True)
class Task:
    """Consecutive trials, numbered across the points, and the state of the notebook sampler's stream before them."""

    trials: range
    stream: bytes | None = None
    base: Float[np.ndarray, " dim"] | None = None  # the base last drawn from the stream


def tasks(settings: RunSettings, size: int, missing: set[int]) -> Iterator[Task]:
    """Yield a task for each missing part of `size` trials, in order."""
    stream = NotebookStream(settings.seed) if settings.sampler == "notebook" and missing else None
    last = max(missing, default=-1)
    base = None
    for part in range(last + 1):
        trials = range(part * size, min((part + 1) * size, len(settings)))
        task = Task(trials=trials, stream=stream.state if stream else None, base=base)
        if part in missing:
            yield task
        if stream and part < last:  # draw this part to advance the stream to the next one
            base = deque(_streamed(settings, task, stream), maxlen=1)[0][1]


def draws(settings: RunSettings, task: Task) -> Iterator[Draw]:
    """Yield the `Draw` of each trial of a part."""
    if settings.sampler == "notebook":
        yield from _notebook_draws(settings, task)
        return
    of_run: dict[str, Any] = {"seed": settings.seed, "sampler": settings.sampler}
    for point, numbers in groupby(task.trials, lambda number: number // settings.trials):
        snowball = settings.snowball(settings.base_at(point).vector, settings.sigmas[point])
        cells = snowball.single_cells() if settings.sampler == "sparse" and snowball.has_cells else None
        for number in numbers:
            yield Draw(snowball=snowball, point=point, trial=number % settings.trials, cells=cells, **of_run)


def clouds(settings: RunSettings, numbers: range) -> Iterator[tuple[Draw, DrawnCloud]]:
    """Draw consecutive trials and yield each with its rows; with the notebook sampler they must begin at 0."""
    for draw in draws(settings, Task(trials=numbers)):
        yield draw, draw.cloud()


def _notebook_draws(settings: RunSettings, task: Task) -> Iterator[Draw]:
    snowball: Snowball | None = None
    around: tuple[int, int] | None = None
    for number, vector, noise in _streamed(settings, task, NotebookStream(settings.seed, task.stream)):
        point, trial = divmod(number, settings.trials)
        if snowball is None or around != (point, id(vector)):
            around = point, id(vector)
            snowball = settings.snowball(settings.base.vector if vector is None else vector, settings.sigmas[point])
        yield Draw(snowball=snowball, seed=settings.seed, point=point, trial=trial, sampler="notebook", noise=noise)


def _streamed(
    settings: RunSettings, task: Task, stream: NotebookStream
) -> Iterator[tuple[int, Float[np.ndarray, " dim"] | None, Float32[np.ndarray, "n_tokens dim"]]]:
    """Yield number, base (None: the fixed one) and noise of each trial, drawn in the notebooks' order."""
    base = task.base
    for number in task.trials:
        point, trial = divmod(number, settings.trials)
        if settings.base.kind == "drawn" and trial == 0 and (point == 0 or settings.redraw_base):
            base = stream.base(settings.base.name, settings.hidden_dim)
        yield number, base, stream.noise(settings.n_tokens, settings.hidden_dim)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a run: where and how it runs. They never change a record."""

    engine: str | Executor = "local"  # as `darkvocab.runs.engine.open_engine`
    workers: int | None = None
    device: str | Device = "cpu"  # "cuda" or "cuda:N" draws and measures on a GPU; with "mps" the cores do
    out: str | Path | None = None  # a run folder for the records
    resume: bool = False  # continue the run in that folder; the records it holds come first
    progress: Callable[[int, int], None] | None = None  # called with the numbers of records done and in all
    say: Callable[[str], None] = lambda text: None  # called with messages for the user


def records(settings: RunSettings, **options: Any) -> Iterator[Any]:
    """Yield records in order of point and trial; engine, device and interruptions do not change them.

    The settings are a `Sweep`, `Trials` or `Questions`, the options those of `Options`. Raises
    InvalidInput for an unknown engine or device, for both together, fewer than one worker, and
    `resume` without `out`; MissingExtra where torch, or for CUDA Triton, is not installed.
    """
    for part in _parts(settings, Options(**options), reading=True):
        yield from part


def records_of(kind: type[RunSettings], sigmas: Any, given: dict[str, Any]) -> Iterator[Any]:
    """Yield the records of a run; `given` holds its settings, besides the sigmas, and its options."""
    options = {name: given.pop(name) for name in Options.__dataclass_fields__ if name in given}
    return records(kind(sigmas, **given), **options)


def frame(settings: RunSettings, **options: Any) -> pl.DataFrame:
    """Return all records as one polars frame, written to a run folder first with `out`; raises as `records`."""
    if options.get("out") is None:
        return frame_of(settings.row, list(records(settings, **options)))
    return read_records(land(settings, **options))


def land(settings: RunSettings, out: str | Path, **options: Any) -> Path:
    """Run into the folder `out`, keeping no record in memory, and return its path; raises as `records`."""
    deque(_parts(settings, Options(out=out, **options), reading=False), maxlen=0)
    return Path(out)


def _parts(settings: RunSettings, options: Options, *, reading: bool) -> Iterator[list[Any]]:
    """Yield the records of each part; without `reading`, only of parts that are not in the folder yet."""
    if options.resume and options.out is None:
        raise InvalidInput("--resume needs the --out folder of the run to go on with")
    device = open_device(options.device)
    workers = options.workers
    cost = Cost(settings)
    if device and (options.engine != "local" or workers is not None):
        raise InvalidInput("a device draws and measures by itself: leave out --engine and --workers, or --device")
    if device or (workers is None and options.engine == "local" and cost.needs_one_worker):
        workers = 1
    with ExitStack() as opened:  # the engine first: if it cannot be opened, no folder is made
        engine = opened.enter_context(open_engine(options.engine, workers, nogil=cost.suits_threads, say=options.say))
        folder = opened.enter_context(_folder(settings, cost, options)) if options.out is not None else None
        size = folder.parts.size if folder else cost.part_size  # a resumed run keeps the size of its parts
        n_parts = -(-len(settings) // size)
        missing = set(folder.parts.missing()) if folder else set(range(n_parts))
        n_done = folder.parts.n_landed if folder else 0
        progress = options.progress or (lambda done, total: None)
        progress(n_done, len(settings))
        waiting = tasks(settings, size, missing)
        is_compared = settings.n_tokens > 1  # else a device has nothing to measure
        fresh = _on(device, settings, waiting) if device and is_compared else engine.map(_measure, settings, waiting)
        for part in range(n_parts) if reading or not folder else sorted(missing):
            if folder and part not in missing:
                yield folder.read(part)
                continue
            measured = next(fresh)
            if folder:
                folder.land(part, measured)
            n_done += len(measured)
            progress(n_done, len(settings))
            yield measured
        if folder and not folder.is_whole:
            for name, table in settings.tables():
                write_table(folder.path / name, table)
            folder.finish()


def _folder(settings: RunSettings, cost: Cost, options: Options) -> RunFolder[Any]:
    assert options.out is not None
    sizes: dict[str, Any] = {"records_per_part": cost.part_size, "resume": options.resume}
    folder: RunFolder[Any] = RunFolder(options.out, settings.row, manifest(settings), **sizes)
    if folder.is_migrated:
        options.say(f"{folder.path} is of an earlier version of darkvocab; its manifest is brought up to date")
    return folder


@cache
def _keep_memory() -> None:
    """Make glibc reuse freed arrays of up to 32 MiB, which it does after it has seen one freed.

    Otherwise the system clears new pages for every trial, which takes half the time of a small one.
    """
    np.empty((32 << 20) - (64 << 10), np.uint8)


def _measure(settings: RunSettings, task: Task) -> list[Any]:
    """Draw and measure the trials of a part on a core."""
    _keep_memory()
    return [settings.record(draw, draw.cloud()) for draw in draws(settings, task)]


def _on(device: Device, settings: RunSettings, waiting: Iterator[Task]) -> Iterator[list[Any]]:
    """Yield the records of each part, measured on a device in batches that may span parts."""
    sizes: deque[int] = deque()

    def drawn() -> Iterator[Draw]:
        for task in waiting:
            sizes.append(len(task.trials))
            yield from draws(settings, task)

    measured: list[Any] = []
    for draw, cloud in measured_clouds(device, drawn(), settings.queries()):
        measured.append(settings.record(draw, cloud))
        if len(measured) == sizes[0]:
            sizes.popleft()
            yield measured
            measured = []
