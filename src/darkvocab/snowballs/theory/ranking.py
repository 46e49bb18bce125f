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
    costs = np.zeros(1)
    if len(cells.columns):
        is_likeliest, first = cells.cost == 0, cells.starts[:-1]
        second = np.minimum.reduceat(np.where(is_likeliest, np.inf, cells.cost), first)
        second[np.add.reduceat(np.where(is_likeliest, cells.count, 0), first) > 1] = 0
        for j in np.argsort(second, kind="stable"):
            limit = costs[-1] if len(costs) == count else np.inf
            if not second[j] < limit:
                break
            runs = slice(cells.starts[j], cells.starts[j + 1])
            column = np.repeat(cells.cost[runs], np.minimum(cells.count[runs], count))
            costs = np.sort(np.add.outer(costs, column[column < limit]).ravel())[:count]
    return float(cells.log_likeliest.sum()) - costs
