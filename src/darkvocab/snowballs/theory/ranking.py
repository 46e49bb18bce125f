"""The most probable cells of a snowball."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from ...numerics.cells import Cells


def likeliest(cells: Cells, count: int) -> Float64[np.ndarray, " cells"]:
    """Return the logarithms of the `count` largest probabilities of all cells (fewer where there are fewer), exactly.

    They descend. The best of all columns are among the best of some columns times the cells of the next; columns whose
    second cell is too improbable to come in are left out.

    Examples
    --------
    >>> from darkvocab.snowballs.law import SnowballLaw
    >>> law = SnowballLaw(base=np.array([1.0, 1.0039]), sigma=0.001, arithmetic="exact")
    >>> np.exp(likeliest(law.cells(100), 3)).round(3)
    array([0.49 , 0.485, 0.013])
    """
    ordered = [_costs(cells, j, count) for j in range(len(cells.columns))]
    second = np.array([cost[1] if len(cost) > 1 else np.inf for cost in ordered])
    costs = np.zeros(1)
    for j in np.argsort(second, kind="stable"):
        if not second[j] < (costs[-1] if len(costs) == count else np.inf):
            break
        costs = np.sort((costs[:, None] + ordered[j]).ravel())[:count]
    return float(cells.log_likeliest.sum()) - costs


def _costs(cells: Cells, j: int, count: int) -> Float64[np.ndarray, " cells"]:
    """Nats by which each cell of an active column is less probable than its likeliest, ascending."""
    start, end = cells.starts[j], cells.starts[j + 1]
    cost = cells.log_likeliest[j] - cells.log_cell[start:end]
    runs = np.argsort(cost, kind="stable")[:count]
    runs = runs[np.isfinite(cost[runs])]
    return np.repeat(cost[runs], np.minimum(cells.count[start + runs], count))[:count]
