"""Steps: the distance of every row to the nearest of some rows, on the number grid."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Int64

from ..embedding.matrix import EmbeddingMatrix
from ..errors import InvalidInput
from ..numerics import _backends, as_grid
from ..numerics.grouping import chunks, n_cores
from ..progress import Advance


def steps_to_nearest(
    matrix: EmbeddingMatrix,
    tokens: Int64[np.ndarray, " k"],
    grid: str | None = None,
    *,
    threads: int | None = None,
    progress: Advance | None = None,
) -> Int64[np.ndarray, " n_tokens"]:
    """Measure every row's L-infinity distance, in steps of its grid (or of `grid`), to the nearest of k >= 1 rows.

    Examples
    --------
    >>> rows = EmbeddingMatrix.from_array(np.array([[1.0, 2.0], [1.0078125, 2.0], [0.0, 0.0]]), "bfloat16")
    >>> steps_to_nearest(rows, np.array([0])).tolist()
    [0, 1, 16384]
    """
    if not len(tokens):
        raise InvalidInput("needs one token or more to measure the distance to")
    target = as_grid(grid or matrix.grid)

    def index(rows: Any) -> np.ndarray:
        words = matrix.rounded(rows, target)
        out = np.empty(words.shape, np.int32)
        _backends.neighbours.index_words(words, words.dtype.type(target.sign), out)
        return out

    targets = index(tokens)
    steps = np.empty(matrix.n_tokens, np.int64)

    def measure(rows: slice) -> None:
        _backends.nearest.nearest(index(rows), targets, steps[rows])
        if progress:
            progress(matrix.words[rows].nbytes)

    with ThreadPoolExecutor(threads or n_cores()) as pool:
        list(pool.map(measure, list(chunks(matrix.words))))
    return steps
