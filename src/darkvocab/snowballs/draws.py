"""Draws: the snowballs of consecutive trials, each its own stream or all the notebooks' one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float, Float32

from ..runs.randomness import NotebookStream
from .law import Snowball
from .settings import RunSettings
from .snowball import Cloud, Draw


@dataclass(frozen=True, kw_only=True)
class Task:
    """Consecutive trials, numbered through the points, and the notebook sampler's stream."""

    trials: range
    stream: bytes | None = None
    base: Float[np.ndarray, " dim"] | None = None  # the drawn base that was last in the stream


def tasks(settings: RunSettings, size: int, missing: set[int]) -> Iterator[Task]:
    """Yield the missing parts of `size` trials, in order."""
    stream = NotebookStream(settings.seed) if settings.sampler == "notebook" and missing else None
    last = max(missing, default=-1)
    base = None
    for part in range(last + 1):
        trials = range(part * size, min((part + 1) * size, len(settings)))
        task = Task(trials=trials, stream=stream.state if stream else None, base=base)
        if part in missing:
            yield task
        if stream and part < last:  # what the part draws, for the stream to go on behind it
            base = deque(_streamed(settings, task, stream), maxlen=1)[0][1]


def draws(settings: RunSettings, task: Task) -> Iterator[Draw]:
    """Yield what is to be drawn for each trial of a part."""
    if settings.sampler == "notebook":
        yield from _notebook_draws(settings, task)
        return
    for point, numbers in groupby(task.trials, lambda number: number // settings.trials):
        snowball = settings.snowball(settings.base_at(point).vector, settings.sigmas[point])
        cells = snowball.single_cells() if settings.sampler == "sparse" and snowball.has_cells else None
        for number in numbers:
            yield Draw(
                snowball=snowball,
                seed=settings.seed,
                point=point,
                trial=number % settings.trials,
                sampler=settings.sampler,
                cells=cells,
            )


def clouds(settings: RunSettings, numbers: range) -> Iterator[tuple[Draw, Cloud]]:
    """Yield what is drawn for consecutive trials; those of the notebook sampler begin with 0."""
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
    """Yield number, base (None: the fixed one) and noise of each trial, in the notebooks' order."""
    base = task.base
    for number in task.trials:
        point, trial = divmod(number, settings.trials)
        if settings.base.kind == "drawn" and trial == 0 and (point == 0 or settings.redraw_base):
            base = stream.base(settings.base.name, settings.hidden_dim)
        yield number, base, stream.noise(settings.n_tokens, settings.hidden_dim)
