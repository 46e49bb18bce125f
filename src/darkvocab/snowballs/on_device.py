"""Snowballs drawn and measured on a device, many at once, to the last bit as on a core."""

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

MOST = 1024  # trials of a batch
ALIGNED = 16  # columns to whose multiples cells are padded, with zeros: rows are then read in whole words
COUNTERS = 1 << 32  # points and trials that the random words of a trial tell apart
SHARE = 0.4  # of the free memory that one takes: the next is begun before it is read


@dataclass(frozen=True)
class MeasuredCloud:
    """A snowball that was drawn and measured on a device."""

    measured: Measured
    sampler: str
    n_drawn: int
    neglected: float

    def groups(self) -> Groups:
        return self.measured[0]

    def geometry(self, groups: Groups, over: str) -> Geometry:
        return _MeasuredGeometry(self.measured, over)


class _MeasuredGeometry(Geometry):
    """Geometry from distances that a device has measured, those that were queried."""

    def __init__(self, measured: Measured, over: str) -> None:
        self.over = over
        for (rows, unit), distances in measured[1].items():
            if rows == over:
                setattr(self, f"in_{unit}", distances)


Clouds = Iterator[tuple[Draw, MeasuredCloud]]


def measured_clouds(device: Device, draws: Iterable[Draw], queries: Queries) -> Clouds:
    """Draw and measure in order, as many at once as there is room for, one batch ahead.

    Raises OutOfMemory where there is no room for a single one; InvalidInput where noise overflows
    the grid.
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
    """Take the next draws that go together; one, if there is any, however little room there is."""
    some: list[Draw] = []
    while len(some) < MOST:
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
    """Return how a snowball comes onto the device, and its point where a batch must be of one."""
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
    """Rows of a batch on a device, as `Batch` has them, and how they were drawn."""

    codes: torch.Tensor
    home: torch.Tensor
    overflows: torch.Tensor  # [T], of the grid
    drawn: list[tuple[str, int, float]]  # sampler, columns, and what is neglected, as `MeasuredCloud` has them


def _begin(device: Device, draws: list[Draw], queries: Queries) -> Clouds:
    """Begin to draw and to measure a batch; the iterator waits for what comes of it."""
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
    """Draw on the cores what the device cannot: dependent components, and what torch's stream on a CPU has drawn."""
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
    """Draw cells, column by column; where there are too many, deviates from a home of 0."""
    ball = draws[0].snowball
    cells = [draw.cells for draw in draws if draw.cells is not None]
    wide = cells[0].unlisted  # where there are any, all are of one point
    itemsize = as_grid(ball.grid).bits // 8 if len(wide) else 1
    room = max(1, *(one.n_active for one in cells))
    shape = len(draws), ball.n_tokens, room + -room % ALIGNED
    codes = device.empty(shape, itemsize).zero_()
    home = np.zeros((shape[0], shape[2]), np.int64)
    overflows, places = codes.new_zeros(shape[0]), None
    if len(wide):  # in the order of the base's columns, so that rows keep their lexicographic order
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
    """Every column of every trial: a lane is one trial's use of a row of the tables.

    The tables hold the active columns of each `Cells` once, whatever number of trials draw them. A lane that moves
    often is drawn token by token, one that moves seldom by the gaps between its moves, as `_backends.drawing` has it; a
    column that never leaves home is no lane. Lanes are in the order of their trials, and of columns within a trial.
    """

    points: Int64[np.ndarray, " trials"]
    trials: Int64[np.ndarray, " trials"]  # the number that each draws by; its place in the batch is its index here
    column: Int64[np.ndarray, " rows"]  # as the base numbers it
    place: Int64[np.ndarray, " rows"]  # column of the codes that are drawn
    shift: Int64[np.ndarray, " rows"]  # the lowest cell, minus home
    starts: Int64[np.ndarray, " rows_plus_one"]  # of each row's edges
    away: UInt64[np.ndarray, " rows"]  # 2**64 times the probability that a component leaves home
    below: UInt64[np.ndarray, " rows"]  # the part of it that lies below home
    above: UInt64[np.ndarray, " rows"]  # the word from which a component lies above home; 0 for none
    scale: Float64[np.ndarray, " rows"]  # 1 / log(1 - away / 2**64) where that is seldom, else 0
    edges: UInt64[np.ndarray, " edges"]  # thresholds of `Cells`
    often: Int32[np.ndarray, "n_often 2"]  # trial of the batch, row of the tables
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

        One `Cells` that comes many times is read once; points and trials are from 0 to 2**32 - 1. `places` says where
        in a row of codes a trial's active columns go; by default the first ones, in order.
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
        """Copy all arrays to a device, by their names: words of 64 bits as int64 of the same bits."""
        put = Device(device).put
        return SimpleNamespace(**{name: put(array) for name, array in vars(self).items()})


_EMPTY: dict[str, np.ndarray] = {name: np.empty(0, np.int64) for name in ("column", "place", "shift", "width")}
_EMPTY |= {name: np.empty(0, np.uint64) for name in ("away", "below", "above", "edges")}
_EMPTY |= {"scale": np.empty(0)}


def _part(cells: Cells, place: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the rows of one `Cells`, and how many edges each has."""
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
