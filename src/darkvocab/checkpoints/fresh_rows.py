"""Fresh rows for untrained tokens, on their grid."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt

from ..embedding.matrix import EmbeddingMatrix
from ..errors import CorruptFile, InvalidInput
from ..numerics import encode, from_index, to_index
from ..progress import Advance

METHODS = "mean", "pieces", "gaussian", "output", "merges"
TILE_ROWS = 2048  # rows that are read, or multiplied in float32, at a time
LONGEST_JITTER = 2**24  # steps


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Statistics of the kept rows: mean and, for Gaussian rows, the factors of their covariance, all in float64.

    ``covariance = S F F^T S`` for S = diag(scale), with n - 1 in the denominator. Columns are divided by their scale,
    multiplied in float32 for 2,048 rows at a time and summed in float64: exact to about 1e-6 of the product of two
    columns' standard deviations. The factors are of a pivoted Cholesky decomposition, which leaves out directions with
    less than dim * 2**-24 of a column's variance.
    """

    n: int
    rms: float  # root mean square of their norms
    mean: Float64[np.ndarray, " dim"]
    scale: Float64[np.ndarray, " dim"]
    factor: Float64[np.ndarray, "dim rank"]  # of rank 0 where no covariance is asked for


def trained(
    matrix: EmbeddingMatrix,
    kept: Bool[np.ndarray, " n_tokens"],
    *,
    covariance: bool = False,
    progress: Advance | None = None,
) -> Trained:
    """Measure mean and covariance of kept rows; InvalidInput without any, CorruptFile where one has NaN or infinity."""
    n = int(kept.sum())
    dim = matrix.dim
    if not n:
        raise InvalidInput(f"all {matrix.n_tokens:,} rows of {matrix.tensor} are chosen: none is left to learn from")
    total = np.zeros(dim)
    squares = np.zeros(dim)
    for tokens, values in _tiles(matrix, kept, progress):
        if not np.isfinite(values).all():
            bad = tokens[~np.isfinite(values).all(axis=1)]
            named = ", ".join(matrix.label(token) for token in bad[:8])
            kept_rows = f"rows of {matrix.tensor} that are to be kept"
            raise CorruptFile(f"{kept_rows} hold NaN or infinity: tokens {named}; choose them, too")
        total += values.sum(axis=0)
        squares += np.einsum("ij,ij->j", values, values)
    mean = total / n
    variance = squares / n - mean * mean  # only to scale with: what it lacks in accuracy the factors have
    scale = np.sqrt(np.where(variance > 0, variance, 1.0))
    factor = _factor(matrix, kept, mean, scale, progress) if covariance and n > 1 else np.zeros((dim, 0))
    return Trained(n=n, rms=float((squares.sum() / n) ** 0.5), mean=mean, scale=scale, factor=factor)


def _tiles(
    matrix: EmbeddingMatrix, kept: np.ndarray, progress: Advance | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield kept tokens and their rows in float64, a tile at a time."""
    for start in range(0, matrix.n_tokens, TILE_ROWS):
        tokens = start + np.flatnonzero(kept[start : start + TILE_ROWS])
        if len(tokens):
            yield tokens, matrix.rows(tokens).astype(np.float64)
        if progress:
            progress(matrix.words[start : start + TILE_ROWS].nbytes)


def _factor(
    matrix: EmbeddingMatrix, kept: np.ndarray, mean: np.ndarray, scale: np.ndarray, progress: Advance | None
) -> Float64[np.ndarray, "dim rank"]:
    from scipy.linalg.blas import ssyrk
    from scipy.linalg.lapack import dpstrf

    dim = len(mean)
    product = np.zeros((dim, dim), order="F")
    for _, values in _tiles(matrix, kept, progress):
        values -= mean
        values /= scale
        product += ssyrk(1.0, values.astype(np.float32).T, lower=1)
    lower, pivots, rank, _ = dpstrf(product / (kept.sum() - 1), tol=dim * 2.0**-24, lower=1)
    factor = np.zeros((dim, rank))
    factor[pivots - 1] = np.tril(lower)[:, :rank]
    return factor


@dataclass(frozen=True, kw_only=True)
class FreshRows:
    """Fresh rows, each a function of the trained rows and of (seed, token, attempt), whatever others are drawn.

    A row around a mean, of all trained rows or of a token's pieces, differs from it by 1 to `jitter` steps in every
    component. A row of the Gaussian law, or in a direction, is rounded to the grid, and jittered from the second
    attempt on.
    """

    matrix: EmbeddingMatrix
    trained: Trained
    gaussian: bool
    directions: EmbeddingMatrix | None = None  # whose rows are scaled to the root mean square of the trained norms
    pieces: Mapping[int, Sequence[int]]  # tokens around the mean of whose rows a token's row is drawn
    seed: int
    jitter: int  # grid steps
    stream: int  # 0 for the input matrix, 1 for the output matrix

    def draw(self, tokens: Int64[np.ndarray, " k"], attempts: Int64[np.ndarray, " k"]) -> UInt[np.ndarray, "k dim"]:
        """Return the words of fresh rows, clipped to the largest value of the grid."""
        from ..numerics._backends.deviates import token_normals, token_steps

        grid = self.matrix.grid
        shape = (len(tokens), self.matrix.dim)
        key = np.uint64(self.seed), self.stream
        centres = np.tile(self.trained.mean, (len(tokens), 1))
        for i, token in enumerate(tokens.tolist()):
            if token in self.pieces:
                centres[i] = self.matrix.rows(list(self.pieces[token])).astype(np.float64).mean(axis=0)
        if self.directions is not None:
            centres = self.directions.rows(tokens).astype(np.float64)
            centres *= self.trained.rms / np.linalg.norm(centres, axis=1, keepdims=True)
        if self.gaussian:
            z = np.empty(shape)
            token_normals(tokens, attempts, *key, z)
            rank = self.trained.factor.shape[1]
            centres += (z[:, :rank] @ self.trained.factor.T) * self.trained.scale
        index = to_index(encode(centres, grid), grid)
        steps = np.empty(shape, np.int64)
        token_steps(tokens, attempts, self.jitter, *key, steps)
        is_centred = not self.gaussian and self.directions is None
        index += np.where((attempts > 0)[:, None] | is_centred, steps, 0)
        return from_index(np.clip(index, -grid.max_code, grid.max_code), grid)
