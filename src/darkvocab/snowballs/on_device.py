"""Draw and measure many snowballs at once on a device; results equal those of a core to the last bit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt64

from ..errors import InvalidInput, OutOfMemory
from ..gpu.device import Batch, Device, Measured, Queries, is_full
from ..measures.geometry import Geometry
from ..numerics import Groups, _backends, as_grid
from ..numerics.cells import Cells
from .snowball import SENTENCES, Draw, refuse_overflow

if TYPE_CHECKING:
    import torch

MOST_TRIALS = 1024  # in a batch
ALIGNED = 16  # columns of cells are padded with zeros to a multiple of this, so that rows are read in whole words
COUNTERS = 1 << 32  # points and trials, each below this, that the random generator keeps apart
SHARE = 0.4  # of the free memory for one batch: the next one starts before it is read


@dataclass(frozen=True)
class MeasuredCloud:
    """A snowball that was drawn and measured on a device; fields as those of `DrawnCloud`."""

    measured: Measured
    sampler: str
    n_drawn: int
    neglected: float

    def groups(self) -> Groups:
        return self.measured[0]

    def geometry(self, groups: Groups, over: str) -> Geometry:
        return _MeasuredGeometry(self.measured, over)


class _MeasuredGeometry(Geometry):
    """Geometry whose distances a device has measured, as far as they were queried."""

    def __init__(self, measured: Measured, over: str) -> None:
        self.over = over
        for (rows, unit), distances in measured[1].items():
            if rows == over:
                setattr(self, f"in_{unit}", distances)


Clouds = Iterator[tuple[Draw, MeasuredCloud]]


def measured_clouds(device: Device, draws: Iterable[Draw], queries: Queries) -> Clouds:
    """Draw and measure in order, in batches that fit in memory, and start each batch before the last one is read.

    Raises OutOfMemory if a single snowball does not fit; InvalidInput if noise overflows the grid.
    """
    room = int(SHARE * device.free())
    source = iter(draws)
    waiting = deque[Draw]()
    ahead: Clouds | None = None
    while some := _next_batch(source, waiting, room, queries):
        begun = None
        try:
            with device.active():
                begun = _begin(device, some, queries)
        except RuntimeError as error:
            if not is_full(error):
                raise
            if len(some) == 1 and ahead is None:
                n_tokens = some[0].snowball.n_tokens
                raise OutOfMemory(SENTENCES["no_room"].format(n_tokens=n_tokens, place=device.place)) from None
            waiting.extendleft(reversed(some))
            room = sum(_room(draw, queries) for draw in some) // 2
        yield from ahead or ()
        ahead = begun
    yield from ahead or ()


def _next_batch(source: Iterator[Draw], waiting: deque[Draw], room: int, queries: Queries) -> list[Draw]:
    """Take the next draws that fit into one batch; at least one, if any is left."""
    some: list[Draw] = []
    while len(some) < MOST_TRIALS:
        if not waiting:
            following = next(source, None)
            if following is None:
                break
            waiting.append(following)
        room -= _room(waiting[0], queries)
        if some and (room < 0 or _way(waiting[0]) != _way(some[0])):
            break
        some.append(waiting.popleft())
    return some


def _way(draw: Draw) -> tuple[Callable[[Device, list[Draw]], _Rows], int]:
    """Return the function that draws a snowball onto the device, and its point if a batch may hold one point only."""
    if draw.noise is not None or not draw.snowball.has_cells:
        return _drawn_on_cores, 0
    if draw.is_sparse:
        return _drawn_by_cells, draw.point if draw.cells is not None and len(draw.cells.unlisted) else -1
    return _drawn_by_deviates, 0


def _room(draw: Draw, queries: Queries) -> int:
    """Estimate the bytes that a snowball takes on the device."""
    ball = draw.snowball
    dim = ball.dim
    itemsize = as_grid(ball.grid).bits // 8
    if draw.is_sparse and draw.cells is not None:
        dim = max(1, draw.cells.n_active)
        itemsize = itemsize if len(draw.cells.unlisted) else 1
    noise = 0 if draw.noise is None else draw.noise.nbytes
    return noise + Batch.bytes_each(ball.n_tokens, dim, itemsize, queries)


class _Rows(NamedTuple):
    """Rows of a batch on a device, as `Batch` takes them, and how they were drawn."""

    codes: torch.Tensor
    home: torch.Tensor
    overflows: torch.Tensor  # [T] components that overflow the grid
    drawn: list[tuple[str, int, float]]  # `sampler`, `n_drawn` and `neglected` of each `MeasuredCloud`


def _begin(device: Device, draws: list[Draw], queries: Queries) -> Clouds:
    """Start to draw and measure a batch; the iterator returned waits for the results."""
    put, _ = _way(draws[0])
    rows = put(device, draws)
    batch = Batch(device=device, codes=rows.codes, home=rows.home, grid=as_grid(draws[0].snowball.grid))
    overflows = device.fetch(counts=rows.overflows)
    pending = batch.measure(queries)

    def finished() -> Clouds:
        results = pending(lambda t: draws[t].cloud().index())
        for draw, count in zip(draws, overflows()["counts"].tolist(), strict=True):
            refuse_overflow(count, draw.snowball)
        for draw, result, drawn in zip(draws, results, rows.drawn, strict=True):
            yield draw, MeasuredCloud(result, *drawn)

    return finished()


def _drawn_on_cores(device: Device, draws: list[Draw]) -> _Rows:
    """Draw on the cores what a device cannot draw: dependent components, and noise of torch's CPU stream."""
    clouds = [draw.cloud() for draw in draws]
    dim = max(1, *(cloud.n_drawn for cloud in clouds))
    codes = np.zeros((len(draws), draws[0].snowball.n_tokens, dim), np.result_type(*(cloud.codes for cloud in clouds)))
    home = np.zeros((len(draws), dim), np.int64)
    for t, cloud in enumerate(clouds):
        codes[t, :, : cloud.n_drawn] = cloud.codes
        home[t, : cloud.n_drawn] = cloud.home[cloud.columns]
    drawn = [(cloud.sampler, cloud.n_drawn, cloud.neglected) for cloud in clouds]
    return _Rows(device.put(codes), device.put(home), device.put(np.zeros(len(draws), np.int64)), drawn)


def _drawn_by_deviates(device: Device, draws: list[Draw]) -> _Rows:
    """Draw a deviate for every component."""
    ball = draws[0].snowball
    codes = device.empty((len(draws), ball.n_tokens, ball.dim), as_grid(ball.grid).bits // 8)
    overflows = _draw_dense(device, draws, [draw.snowball.base for draw in draws], 0, codes)
    home = codes.new_zeros(len(draws), ball.dim).long()
    return _Rows(codes, home, overflows, [("dense", ball.dim, ball.n_tokens * ball.dim * 2.0**-64)] * len(draws))


def _draw_dense(
    device: Device, draws: list[Draw], around: list[np.ndarray], stream: int, codes: torch.Tensor
) -> torch.Tensor:
    bases = {id(base): base for base in around}  # a sweep's points share one
    place = {key: k for k, key in enumerate(bases)}
    ball = draws[0].snowball
    overflows: torch.Tensor = device.drawing.draw_dense(
        device.put(np.stack([base.astype(np.float64) for base in bases.values()])),
        device.put(np.array([place[id(base)] for base in around])),
        device.put(np.array([draw.snowball.sigma for draw in draws])),
        device.put(np.array([draw.point for draw in draws])),
        device.put(np.array([draw.trial for draw in draws])),
        draws[0].seed,
        laplace=ball.distribution == "laplace",
        float32=ball.is_float32,
        stream=stream,
        shape=as_grid(ball.grid).constants,
        out=codes,
    )
    return overflows


def _drawn_by_cells(device: Device, draws: list[Draw]) -> _Rows:
    """Draw cells, column by column; in columns with too many cells, deviates (codes are ordered indices, home is 0)."""
    ball = draws[0].snowball
    cells = [draw.cells for draw in draws if draw.cells is not None]
    wide = cells[0].unlisted  # columns with too many cells; if there are any, the batch has one point
    itemsize = as_grid(ball.grid).bits // 8 if len(wide) else 1
    room = max(1, *(one.n_active for one in cells))
    shape = len(draws), ball.n_tokens, room + -room % ALIGNED
    codes = device.empty(shape, itemsize).zero_()
    home = np.zeros((shape[0], shape[2]), np.int64)
    overflows = codes.new_zeros(shape[0])
    places = None
    if len(wide):  # columns in the base's order keep the lexicographic order of rows
        order = np.argsort(np.concatenate([cells[0].columns, wide]))
        place = np.argsort(order)
        drawn = codes.new_empty(shape[0], shape[1], len(wide))
        overflows = _draw_dense(device, draws, [ball.base[wide]] * len(draws), 1, drawn)
        codes[:, :, device.put(place[len(cells[0].columns) :])] = drawn
        places = [place[: len(cells[0].columns)]] * len(draws)
        home[:, places[0]] = cells[0].home[cells[0].columns]
    else:
        for t, one in enumerate(cells):
            home[t, : one.n_active] = one.home[one.columns]
    lanes = Lanes.of(cells, [draw.point for draw in draws], [draw.trial for draw in draws], places)
    device.drawing.draw_sparse(lanes, draws[0].seed, codes)
    return _Rows(codes, device.put(home), overflows, [("sparse", one.n_active, one.neglected) for one in cells])


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """Lanes of a batch: one lane is one column in one trial, and points to a row of the tables.

    The tables hold the active columns of each `Cells` once, however many trials draw them. Lanes that leave home often
    are drawn token by token, others by the gaps between tokens that do (as in `_backends.drawing`); columns that never
    leave home have no lane. Lanes are ordered by trial, then by column.
    """

    points: Int64[np.ndarray, " trials"]
    trials: Int64[np.ndarray, " trials"]  # number of each trial, for the random generator
    column: Int64[np.ndarray, " rows"]  # as the base numbers it
    place: Int64[np.ndarray, " rows"]  # column of the codes
    shift: Int64[np.ndarray, " rows"]  # the lowest cell, minus home
    starts: Int64[np.ndarray, " rows_plus_one"]  # of each row's edges
    away: UInt64[np.ndarray, " rows"]  # 2**64 times the probability that a component leaves home
    below: UInt64[np.ndarray, " rows"]  # 2**64 times the probability that it lies below home
    above: UInt64[np.ndarray, " rows"]  # random words from this one on put a component above home; 0: none does
    scale: Float64[np.ndarray, " rows"]  # 1 / log(1 - away / 2**64) for the seldom, else 0
    edges: UInt64[np.ndarray, " edges"]  # thresholds of `Cells`
    often: Int32[np.ndarray, "n_often 2"]  # index of the trial in the batch, row of the tables
    seldom: Int32[np.ndarray, "n_seldom 2"]

    @classmethod
    def of(
        cls,
        cells: Sequence[Cells],
        points: Sequence[int] | Int64[np.ndarray, " trials"],
        trials: Sequence[int] | Int64[np.ndarray, " trials"],
        places: Sequence[Int64[np.ndarray, " _"]] | None = None,
    ) -> Lanes:
        """Return the lanes of a batch from the cells, the point and the number of each trial.

        Points and trials lie between 0 and 2**32 - 1. `places` are the columns of the codes that a trial's active
        columns go to, by default the first ones, in order.
        """
        numbers = {"points": np.asarray(points, np.int64), "trials": np.asarray(trials, np.int64)}
        for name, n in numbers.items():
            if n.size and not (n.min() >= 0 and n.max() < COUNTERS):
                raise InvalidInput(f"{name} must be from 0 to 2**32 - 1, got {n.min()} to {n.max()}")
        keys = [(id(one), id(places[t]) if places else 0) for t, one in enumerate(cells)]
        number = {key: k for k, key in enumerate(dict.fromkeys(keys))}
        kind = [number[key] for key in keys]
        parts = [_part(cells[t], places[t] if places else None) for t in map(keys.index, number)]
        tables = {name: np.concatenate([_EMPTY[name], *(part[name] for part in parts)]) for name in _EMPTY}
        ends = np.cumsum([0, *(len(part["column"]) for part in parts)])
        rows = [np.arange(ends[k], ends[k + 1]) for k in kind]
        trial = np.repeat(np.arange(len(rows)), np.array([len(some) for some in rows], np.int64))
        row = np.concatenate([np.empty(0, np.int64), *rows])
        lanes = np.column_stack([trial, row]).astype(np.int32)
        seldom = tables["scale"][row] != 0
        often = ~seldom & (tables["away"][row] > 0)
        starts = np.concatenate([[0], np.cumsum(tables.pop("width"))])
        return cls(starts=starts, often=lanes[often], seldom=lanes[seldom], **tables, **numbers)

    def tensors(self, device: torch.device) -> SimpleNamespace:
        """Copy all arrays to a device and return them by name; uint64 becomes int64 with the same bits."""
        put = Device(device).put
        return SimpleNamespace(**{name: put(array) for name, array in vars(self).items()})


_EMPTY: dict[str, np.ndarray] = {name: np.empty(0, np.int64) for name in ("column", "place", "shift", "width")}
_EMPTY |= {name: np.empty(0, np.uint64) for name in ("away", "below", "above", "edges")}
_EMPTY |= {"scale": np.empty(0)}


def _part(cells: Cells, place: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the rows of the tables for one `Cells`, and the number of edges of each."""
    n = len(cells.columns)
    away, below, above = (np.empty(n, np.uint64) for _ in range(3))
    scale = np.empty(n)
    _backends.drawing.leaving(cells.shift, cells.edge_starts, cells.thresholds, away, below, above, scale)
    return {
        "column": cells.columns,
        "place": np.arange(n) if place is None else place,
        "shift": cells.shift,
        "width": np.diff(cells.edge_starts),
        "away": away,
        "below": below,
        "above": above,
        "edges": cells.thresholds,
        "scale": scale,
    }
