"""Products of rows with a few vectors, compiled: the basis of indicators. Rows are float32, sums float64."""

import numpy as np

from .compilation import kernel

SUMS = {"reassoc", "contract"}  # terms of a sum in any order, so that it is vectorised


@kernel(fastmath=SUMS)
def squares_and_sums(rows, squares, sums):
    """|x|^2 of each row, and the sum of all rows added to `sums`."""
    for i in range(rows.shape[0]):
        x = rows[i]
        total = 0.0
        for d in range(x.size):
            value = np.float64(x[d])
            total += value * value
            sums[d] += value
        squares[i] = total


@kernel(fastmath=SUMS)
def products(rows, vectors, out):
    """Write |x - v0|^2, |x|^2, then x.v0, x.v1, ... of each row x to `out` [rows, 2 + vectors]."""
    first = vectors[0]
    for i in range(rows.shape[0]):
        x = rows[i]
        apart = square = 0.0
        for d in range(x.size):
            value = np.float64(x[d])
            by = value - first[d]
            apart += by * by
            square += value * value
        out[i, 0] = apart
        out[i, 1] = square
        for k in range(vectors.shape[0]):
            vector = vectors[k]
            total = 0.0
            for d in range(x.size):
                total += np.float64(x[d]) * vector[d]
            out[i, 2 + k] = total


@kernel(fastmath=SUMS)
def scatter(rows, directions, offsets, moments):
    """Add a x to moments[k], with a = x.directions[k] - offsets[k], for every row x; float32."""
    for i in range(rows.shape[0]):
        x = rows[i]
        for k in range(directions.shape[0]):
            direction = directions[k]
            moment = moments[k]
            total = offsets.dtype.type(0)
            for d in range(x.size):
                total += x[d] * direction[d]
            total -= offsets[k]
            for d in range(x.size):
                moment[d] += total * x[d]
