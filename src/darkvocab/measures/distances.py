"""Measure distances of rows: of each token's rows in two matrices; of every row to the nearest of some rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from ..embedding.matrix import EmbeddingMatrix
from ..errors import InvalidInput
from ..numerics import Grid, _backends, as_grid, decode
from ..numerics.grouping import each_chunk
from ..progress import Advance


@dataclass(frozen=True, kw_only=True)
class Displacements:
    """Distances between the two rows of each token in two matrices."""

    same: Bool[np.ndarray, " n"]  # bit for bit, on the grid that they were compared on
    l_inf_steps: Int64[np.ndarray, " n"]  # grid steps in the column that differs most; 0 between -0.0 and 0.0
    l_inf: Float64[np.ndarray, " n"]  # largest difference of a column, weight units
    euclidean: Float64[np.ndarray, " n"]  # weight units, summed in float64


def displacements(
    a: EmbeddingMatrix,
    b: EmbeddingMatrix,
    grid: str | Grid | None = None,
    *,
    threads: int | None = None,
    progress: Advance | None = None,
) -> Displacements:
    """Measure the displacements from `a` to `b` of the tokens that both have; rows must be finite.

    A few rows are read at a time and rounded to `grid`, by default that of `a`, in `threads`, by default one per core;
    `progress` is called with the bytes of `a` and `b` as they are compared. Raises InvalidInput for rows of different
    lengths.

    Examples
    --------
    >>> one, other = (EmbeddingMatrix.from_array(np.float32([[0, 1], row])) for row in ([3, 4], [0, 0]))
    >>> far = displacements(one, other, "bfloat16")
    >>> far.same, far.euclidean, far.l_inf
    (array([ True, False]), array([0., 5.]), array([0., 4.]))
    """
    if a.dim != b.dim:
        raise InvalidInput(f"rows of {a.dim:,} and of {b.dim:,} columns cannot be compared")
    target = as_grid(grid or a.grid)
    n = min(a.n_tokens, b.n_tokens)
    steps = np.empty(n, np.int64)
    far = Displacements(same=np.empty(n, bool), l_inf_steps=steps, l_inf=np.empty(n), euclidean=np.empty(n))
    sign = target.word_dtype.type(target.sign)
    shift = np.uint32(16 * (target.name == "bfloat16"))

    def compare(rows: slice) -> None:
        words = a.rounded(rows, target), b.rounded(rows, target)
        bits = words if shift else (decode(of, target).view(np.uint32) for of in words)
        lengths = far.same[rows], far.l_inf_steps[rows], far.l_inf[rows], far.euclidean[rows]
        _backends.motion.tally_displacements(*words, sign, *bits, shift, *lengths)
        if progress:
            progress(a.words[rows].nbytes + b.words[rows].nbytes)

    each_chunk(compare, a.words[:n], threads)
    return far


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
        words = matrix.rounded(rows, target).view()
        words.flags.writeable = False  # as mapped rows are: one kernel for both
        out = np.empty(words.shape, np.int32)
        _backends.neighbours.index_words(words, words.dtype.type(target.sign), out)
        return out

    targets = index(tokens)
    steps = np.empty(matrix.n_tokens, np.int64)

    def measure(rows: slice) -> None:
        _backends.neighbours.nearest(index(rows), targets, steps[rows])
        if progress:
            progress(matrix.words[rows].nbytes)

    each_chunk(measure, matrix.words, threads)
    return steps
