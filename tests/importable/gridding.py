"""Distances between numbers of a grid, told plainly."""

import numpy as np

from darkvocab.errors import InvalidInput
from darkvocab.numerics import as_grid, decode, encode, to_index


def steps(a, b, grid):
    """Signed number of grid steps from `a` to `b`: exact across powers of two and across zero.

    Both are finite and on the grid, and their shapes broadcast.

    Examples
    --------
    >>> int(steps(1.0, 1.0078125, "bfloat16")), int(steps(0.99609375, 1.0078125, "bfloat16"))
    (1, 2)
    """
    grid = as_grid(grid)
    ends = []
    for name, x in (("a", a), ("b", b)):
        values = np.asarray(x, np.float64)
        if not np.isfinite(values).all():
            raise InvalidInput("needs finite values, got NaN or infinity")
        words = encode(values, grid)
        if (decode(words, grid) != values).any():
            raise InvalidInput(f"{name} has values that are not on the {grid.name} grid; round_to them first")
        ends.append(to_index(words, grid))
    return np.asarray(ends[1] - ends[0])
