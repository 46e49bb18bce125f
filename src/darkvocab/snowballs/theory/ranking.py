"""Likeliest: the most probable cells of a snowball."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int64

from ...numerics.cells import Cells


@dataclass(frozen=True)
class Likeliest:
    """The most probable cells, descending; of equally probable ones any."""

    log_p: Float64[np.ndarray, " cells"]
    columns: Int64[np.ndarray, " touched"] = field(repr=False)  # original numbers of the columns in which they differ
    index: Int64[np.ndarray, "cells touched"] = field(repr=False)  # ordered index of each cell in these columns


def likeliest(cells: Cells, count: int) -> Likeliest:
    """Return the `count` most probable cells of all (fewer where there are fewer), exactly.

    The best of all columns are among the best of some columns times the cells of the next; columns
    whose second cell is too improbable to come in are left out.

    Examples
    --------
    >>> from darkvocab.snowballs.law import SnowballLaw
    >>> cells = likeliest(SnowballLaw(base=np.array([1.0, 1.0039]), sigma=0.001, arithmetic="exact").cells(100), 3)
    >>> np.exp(cells.log_p).round(3), cells.columns
    (array([0.49 , 0.485, 0.013]), array([0, 1]))
    """
    ordered = [_cells(cells, j, count) for j in range(len(cells.columns))]
    second = np.array([cost[1] if len(cost) > 1 else np.inf for cost, _ in ordered])
    costs = np.zeros(1)
    steps = []
    for j in np.argsort(second, kind="stable"):
        if not second[j] < (costs[-1] if len(costs) == count else np.inf):
            break
        cost, index = ordered[j]
        sums = (costs[:, None] + cost).ravel()
        best = np.argsort(sums, kind="stable")[:count]
        steps.append((j, best // len(cost), index[best % len(cost)]))
        costs = sums[best]
    touched = np.array([j for j, _, _ in steps], np.int64)
    where = np.empty((len(costs), len(steps)), np.int64)
    place = np.arange(len(costs))
    for step in reversed(range(len(steps))):
        _, came_from, index = steps[step]
        where[:, step] = index[place]
        place = came_from[place]
    order = np.argsort(touched)
    return Likeliest(float(cells.log_likeliest.sum()) - costs, cells.columns[touched][order], where[:, order])


def _cells(cells: Cells, j: int, count: int) -> tuple[Float64[np.ndarray, " cells"], Int64[np.ndarray, " cells"]]:
    """Nats by which each cell of an active column is less probable than its likeliest, ascending; and its index."""
    start, end = cells.starts[j], cells.starts[j + 1]
    cost = cells.log_likeliest[j] - cells.log_cell[start:end]
    runs = np.argsort(cost, kind="stable")[:count]
    runs = runs[np.isfinite(cost[runs])]
    each = np.minimum(cells.count[start + runs], count)
    member = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    repeated = np.repeat(runs, each)[:count]
    return cost[repeated], cells.first[start + repeated] + member[:count]
