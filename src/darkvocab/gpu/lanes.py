"""Lanes: the columns that a batch of trials draws by their cells, as tables that a device can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt64

from ..errors import InvalidInput
from ..numerics import _backends
from ..numerics.cells import Cells

if TYPE_CHECKING:
    import torch

COUNTERS = 1 << 32  # points and trials that the random words of a trial tell apart


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
        """Copy all arrays to a device at once, by their names: words of 64 bits as int64 of the same bits.

        To CUDA from pinned memory, so that the host need not wait.
        """
        import torch

        names = [field.name for field in fields(self)]
        arrays = [np.ascontiguousarray(getattr(self, name)).reshape(-1).view(np.int64) for name in names]
        # Each from a multiple of 16 bytes on: Triton compiles a kernel anew for pointers that are not.
        starts = np.cumsum([0, *(a.size + a.size % 2 for a in arrays)]).tolist()
        packed = torch.empty(starts[-1], dtype=torch.int64, pin_memory=device.type == "cuda")
        for a, start in zip(arrays, starts, strict=False):
            packed.numpy()[start : start + a.size] = a
        moved = packed.to(device, non_blocking=True)
        placed = zip(names, arrays, starts, strict=False)
        parts = {name: moved[start : start + a.size] for name, a, start in placed}
        pairs = {name: parts[name].view(torch.int32).reshape(-1, 2) for name in ("often", "seldom")}
        return SimpleNamespace(**{**parts, **pairs, "scale": parts["scale"].view(torch.float64)})


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
