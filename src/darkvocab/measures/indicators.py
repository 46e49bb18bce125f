"""Indicators of under-trained tokens: distances of each row to rows that training cannot have moved."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from ..embedding.matrix import EmbeddingMatrix
from ..errors import InvalidInput
from ..numerics import _backends, ulp
from ..numerics.grouping import chunks, n_cores
from ..numerics.populations import Law, low_mode, membership
from ..progress import Advance

SAMPLE_ROWS = 2_048  # evenly spaced rows, from which a reference must stand apart
TIGHTNESS = 0.5  # most that the reference's median distance to its mean may be, over that of the sample
BETTER = 0.01  # area under the ROC curve by which another indicator must beat the Euclidean distance
DARK = 0.5  # score from which a token is dark
TINY = 0.01  # a row near zero is shorter than this part of the 95% quantile of the norms, and
GAP = 100.0  # by this factor shorter than the next longer row
FEW_COPIES = 3  # up to so many tokens may share a row because they were copied,
LIKE_OTHERS = 0.05  # unless it is nearer to the mean than this share of all rows
ALONG = 0.9  # cosine from which two rows have one direction,
FEWEST_ALONG = 3  # which so many others at least must have, and at most half of all
N_DIRECTIONS = 8  # of the subspace iteration for the first principal component,
SAMPLE_PASSES = 8  # passes over the sample,
COMPONENT_PASSES = 2  # and then over all rows
ROWS_HELD = 64  # rows, or results of a few rows, in memory at a time
FAR_EXPONENT = 40  # of the longest row, from which rows are scaled to be multiplied in float32
MODE = "low-norm mode"
NEAR_ZERO = "rows near zero"
BLACK_HOLES = "black holes"
UNSEEN_TOKENS = "tokens that never occur in the corpus"  # which is not that of the training: many may be trained
DIRECTION = "rows in one direction"

Rows = Float32[np.ndarray, "rows dim"]
Tokens = Int64[np.ndarray, " _"]  # ids
Lengths = Float64[np.ndarray, " _"]

INDICATORS: dict[str, list[str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Rows taken as never trained."""

    kind: str  # of `known`, several joined by ", "; or MODE, DIRECTION or NEAR_ZERO
    tokens: Int64[np.ndarray, " m"]
    n_left_out: int  # candidates of this kind that lie nearer to the other rows


@dataclass(frozen=True, kw_only=True)
class Indicators:
    """Distances of each token to the reference, and its probability to belong to the same population."""

    norms: Float64[np.ndarray, " n_tokens"]
    near_zero: Int64[np.ndarray, " k"]  # tokens whose rows are orders of magnitude shorter than all others
    reference: Reference | None  # None where no rows stand apart from the others
    columns: dict[str, Float64[np.ndarray, " n_tokens"]]  # by the names of `INDICATORS`; empty without a reference
    by: str | None  # the column that `score` is computed from
    score: Float64[np.ndarray, " n_tokens"]

    def of_first(self, n: int) -> Indicators:
        """Return the indicators of the first n rows, which are those of tokens in a padded matrix."""
        columns = {name: column[:n] for name, column in self.columns.items()}
        return replace(self, norms=self.norms[:n], columns=columns, score=self.score[:n])

    @property
    def dark(self) -> Bool[np.ndarray, " n_tokens"]:
        """Tokens that probably belong to the reference's population."""
        return self.score >= DARK

    @property
    def threshold(self) -> float | None:
        """Largest value of the column `by` among dark tokens; None without any."""
        return float(self.columns[self.by][self.dark].max()) if self.by and self.dark.any() else None

    @property
    def expected_false_positives(self) -> float | None:
        """Expected share of dark tokens outside of the reference's population; None without dark tokens."""
        return float(1 - self.score[self.dark].mean()) if self.dark.any() else None


def indicators(
    rows: EmbeddingMatrix | Any,
    known: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    *,
    threads: int | None = None,
    progress: Advance | None = None,
) -> Indicators:
    """Measure Land & Bartolo's indicators [1]_ of every row, by a reference among the rows, and a score.

    The reference is the first of these that stands apart from the other rows: all kinds of `known` together, but for
    `UNSEEN_TOKENS`; each kind of it; the low-norm mode (rows up to the peak of a mode in the lower half of the norms
    that a valley separates from the rest); rows in one direction; rows near zero. Rows stand apart if their median
    distance to their own mean (of the other members) is at most half that of 2,048 other rows. Candidates nearer to the
    others (beyond the geometric mean of both medians) are left out.

    The score, `darkvocab.numerics.populations.membership` of the logarithm of a distance, is the probability that a
    token was trained as little as the reference. The distance is Euclidean unless another indicator separates the
    reference better. Without a reference every score is 0. Rows near zero (`rows_near_zero`) are in no other reference
    and have score 1, as have rows whose Euclidean distance to it is separated from all others by such a gap.

    Parameters
    ----------
    rows : an `EmbeddingMatrix`, or an array as `EmbeddingMatrix.of`; of an untied model its output matrix
    known : ids of tokens that training cannot have moved, by kind, the surest first; or a function that returns them,
        called after norms and the principal component are computed
    progress : called with the bytes of rows that each pass has read

    References
    ----------
    .. [1] S. Land, M. Bartolo, "Fishing for Magikarp: Automatically Detecting Under-trained Tokens in Large Language
       Models", EMNLP 2024, arXiv:2405.05417, section 3.2; the first principal component is of the centred rows, and is
       removed from the rows that are not, as in the authors' code.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> rows = np.concatenate([rng.normal(0, 1, (960, 64)), rng.normal(0.1, 0.01, (40, 64))]).astype(np.float32)
    >>> found = indicators(rows, {"reserved names": np.arange(990, 1000)})
    >>> found.reference.kind, np.flatnonzero(found.dark).tolist() == list(range(960, 1000))
    ('reserved names', True)
    """
    matrix = EmbeddingMatrix.of(rows)
    over = partial(_over, matrix, threads or n_cores(), progress or (lambda n: None))
    norms, frame = _framed(matrix, over)
    near_zero = rows_near_zero(norms)
    sample = np.setdiff1d(_evenly(matrix.n_tokens), near_zero)
    kinds = known() if callable(known) else known or {}
    candidates = _candidates(matrix, kinds, norms, near_zero, sample)
    tried = (_standing_apart(matrix, frame, kind, tokens, sample) for kind, tokens in candidates)
    apart = next(filter(None, tried), None)
    columns = _columns(over, apart.centre, frame) if apart else {}
    score = _score(columns, apart) if apart else np.zeros(matrix.n_tokens)
    score[near_zero] = 1
    facts: dict[str, Any] = {"reference": apart and apart.reference, "by": apart and apart.by}
    return Indicators(norms=norms, near_zero=near_zero, columns=columns, score=score, **facts)


def rows_near_zero(norms: Float64[np.ndarray, " n_tokens"]) -> Int64[np.ndarray, " k"]:
    """Return the tokens whose rows are orders of magnitude shorter than all others.

    These are the rows below the highest gap of a factor of at least `GAP` between two successive norms that begins
    below `TINY` times the 95% quantile.

    Examples
    --------
    >>> rows_near_zero(np.array([0.8, 1e-17, 0.9, 0.0, 0.7])).tolist()
    [1, 3]
    >>> rows_near_zero(np.array([0.8, 0.02, 0.9, 0.1, 0.7])).tolist()
    []
    """
    ordered = np.sort(norms)
    small = int(np.searchsorted(ordered, TINY * np.quantile(ordered, 0.95)))
    gaps = np.flatnonzero(ordered[: min(small, len(ordered) - 1)] * GAP < ordered[1:][:small])
    return np.flatnonzero(norms <= ordered[gaps[-1]]) if len(gaps) else np.empty(0, np.int64)


def bytes_read(matrix: EmbeddingMatrix) -> int:
    """Return how many bytes of rows all passes of `indicators` read; without a reference there is one pass less."""
    n_passes = 1 + COMPONENT_PASSES + 1  # norms and mean, the principal component, distances to the reference
    return n_passes * matrix.words.nbytes


_Over = Callable[[Callable[[Rows], Any]], Iterator[Any]]  # yields the results of a function of all rows


@dataclass(frozen=True)
class _Frame:
    """Vectors removed from rows before angles are measured."""

    mean: Float64[np.ndarray, " dim"]
    component: Float64[np.ndarray, " dim"]  # the first principal one, of length 1


@dataclass(frozen=True, kw_only=True)
class _Apart:
    """Reference that stands apart, and its rows by the indicator that separates it best."""

    reference: Reference
    candidates: Tokens  # the reference's, and those left out of it
    centre: Float64[np.ndarray, " dim"]
    by: str
    floor: float  # the indicator's value that rounding alone makes of 0
    logarithms: Float64[np.ndarray, " rows"]  # of the indicator of distinct rows, each to the mean of the others
    furthest: float  # half-way, in logarithms, to the other rows


def _evenly(n_tokens: int) -> Tokens:
    return np.unique(np.linspace(0, n_tokens - 1, SAMPLE_ROWS).astype(np.int64))


def _candidates(
    matrix: EmbeddingMatrix, known: Mapping[str, Any], norms: np.ndarray, near_zero: Tokens, sample: Tokens
) -> Iterator[tuple[str, Tokens]]:
    n_tokens = len(norms)
    kinds = {}
    for kind, tokens in known.items():
        tokens = np.unique(np.asarray(tokens, np.int64))
        if len(tokens) and not (tokens[0] >= 0 and tokens[-1] < n_tokens):
            raise InvalidInput(f"{kind}: token ids must be 0 to {n_tokens - 1:,}, got {tokens[0]} to {tokens[-1]}")
        tokens = np.setdiff1d(tokens, near_zero)
        if len(tokens) > 1:
            kinds[kind] = tokens
    sure = {kind: tokens for kind, tokens in kinds.items() if kind != UNSEEN_TOKENS}
    if len(sure) > 1:
        yield ", ".join(sure), np.unique(np.concatenate(list(sure.values())))
    yield from kinds.items()
    if mode := low_mode(np.delete(norms, near_zero)):
        yield MODE, np.setdiff1d(np.flatnonzero(norms <= mode.peak), near_zero)
    yield DIRECTION, np.setdiff1d(_along(matrix, norms, sample), near_zero)
    yield NEAR_ZERO, near_zero


def _along(matrix: EmbeddingMatrix, norms: np.ndarray, sample: Tokens) -> Tokens:
    """Return the tokens in the most common direction of sampled rows; none where few rows share one.

    Rows in one direction differ only in length: an untrained row, scaled, for example by weight decay.
    """
    lengths = np.maximum(norms, np.finfo(np.float64).tiny)
    drawn = (matrix.rows(sample) / lengths[sample, None]).astype(np.float32)
    near = (drawn @ drawn.T > ALONG).sum(1) - 1
    near[near > len(sample) / 2] = 0
    if not len(near) or near.max() < FEWEST_ALONG:
        return np.empty(0, np.int64)
    hub = drawn[near.argmax()].astype(np.float64)  # products of rows beyond float32 stay finite
    cosines = [matrix.rows(rows) @ hub / lengths[rows] for rows in chunks(matrix.words)]
    along = np.flatnonzero(np.concatenate(cosines) > ALONG)
    return along if len(along) <= len(norms) / 2 else np.empty(0, np.int64)


def _framed(matrix: EmbeddingMatrix, over: _Over) -> tuple[Lengths, _Frame]:
    """Return the norms of all rows, and their mean and first principal component.

    Subspace iteration, over the sample and then over all rows: each pass shrinks the angle to the component by the
    ratio of the 9th variance to the 1st.
    """

    def summed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        squares = np.empty(len(rows))
        sums = np.zeros(matrix.dim)
        _backends.products.squares_and_sums(rows, squares, sums)
        return squares, sums

    squares = []
    mean = np.zeros(matrix.dim)
    for of_rows, sums in over(summed):
        squares.append(of_rows)
        mean += sums / matrix.n_tokens
    norms = np.sqrt(np.concatenate(squares))
    exponent = int(np.frexp(norms.max())[1])
    scale = np.float32(2.0**-exponent if abs(exponent) > FAR_EXPONENT else 1.0)  # to keep squares within float32
    middle = mean * scale
    drawn = matrix.rows(_evenly(matrix.n_tokens))
    drawn *= scale
    drawn -= middle.astype(np.float32)
    directions = np.linalg.qr(drawn[:: -(-len(drawn) // N_DIRECTIONS)].T)[0].T
    for _ in range(SAMPLE_PASSES):
        directions = np.linalg.qr(drawn.T @ (drawn @ directions.T))[0].T
    del drawn

    def moved(rows: np.ndarray) -> np.ndarray:
        of_rows = np.zeros(directions.shape, np.float32)
        _backends.products.scatter(rows if scale == 1 else rows * scale, across, offsets, of_rows)
        return of_rows

    for _ in range(COMPONENT_PASSES):
        across = directions.astype(np.float32, order="C")
        offsets = (directions @ middle).astype(np.float32)
        moments = np.zeros(directions.shape)  # covariance times directions, but for a factor
        for of_rows in over(moved):
            moments += of_rows
        turn = np.linalg.eigh((directions @ moments.T + moments @ directions.T) / 2)[1][:, ::-1]
        directions = np.linalg.qr((turn.T @ moments).T)[0].T
    return norms, _Frame(mean, directions[0])


def _over(matrix: EmbeddingMatrix, threads: int, advance: Advance, function: Callable[[Rows], Any]) -> Iterator[Any]:
    """Yield the results of a function of a few rows at a time, in the order of the rows."""

    def of(rows: slice) -> Any:
        result = function(matrix.rows(rows))
        advance(matrix.words[rows].nbytes)
        return result

    waiting = chunks(matrix.words)
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(waiting, ROWS_HELD)):
            yield from pool.map(of, some)


def _columns(over: _Over, centre: np.ndarray, frame: _Frame) -> dict[str, Lengths]:
    vectors = np.stack([centre, frame.mean, frame.component])

    def against(rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), 5))
        _backends.products.products(rows, vectors, out)
        return out

    return _distances(np.concatenate(list(over(against))), centre, frame)


def _distances(products: np.ndarray, centre: Float64[np.ndarray, "*rows dim"], frame: _Frame) -> dict[str, Lengths]:
    """Compute the columns from [rows, 5]: |x - u|^2, |x|^2, x.u, x.m and x.c, for one centre u or one of each row."""
    apart, squares, xu, xm, xc = products.T
    uu = (centre * centre).sum(-1)
    um = centre @ frame.mean
    uc = centre @ frame.component
    mm = float(frame.mean @ frame.mean)
    return {
        "euclidean": np.sqrt(apart),
        "cosine": _cosine_distance(xu, squares, uu),
        "cosine_mean_removed": _cosine_distance(xu - xm - um + mm, squares - 2 * xm + mm, uu - 2 * um + mm),
        "cosine_pc_removed": _cosine_distance(xu - xc * uc, squares - xc * xc, uu - uc * uc),
    }


def _cosine_distance(product: np.ndarray, one: np.ndarray, other: np.ndarray | np.floating) -> np.ndarray:
    """Return the cosine distance of two vectors from their product and squared lengths; 1 where one of them is 0."""
    lengths = np.sqrt(np.maximum(one, 0) * np.maximum(other, 0))
    return 1 - np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)


def _against(
    matrix: EmbeddingMatrix, tokens: Tokens, centre: np.ndarray, frame: _Frame, n_members: int = 0
) -> dict[str, Lengths]:
    """Compute the columns of some rows; with `n_members`, each to the mean of the other members."""
    parts = []
    for rows in _read(matrix, tokens, ROWS_HELD):
        x = rows.astype(np.float64)
        u = (n_members * centre - x) / (n_members - 1) if n_members else centre
        factors = (x - u, x - u), (x, x), (x, u), (x, frame.mean), (x, frame.component)
        parts.append(_distances(np.stack([(a * b).sum(1) for a, b in factors], 1), u, frame))
    return {name: np.concatenate([part[name] for part in parts]) for name in INDICATORS}


def _standing_apart(matrix: EmbeddingMatrix, frame: _Frame, kind: str, tokens: Tokens, sample: Tokens) -> _Apart | None:
    """Return these tokens as a reference, or None where they do not stand apart from the sampled others."""
    others = np.setdiff1d(sample, tokens)
    if min(len(tokens), len(others)) < 2:
        return None
    kept = tokens
    for _ in range(2):
        centre = _mean(matrix, kept)
        distances = _lengths(matrix, tokens, centre)
        kept = tokens[distances <= np.sqrt(np.median(distances) * np.median(_lengths(matrix, others, centre)))]
        if len(kept) < 2:
            return None
    centre = _mean(matrix, kept)
    few = kind == BLACK_HOLES and len(kept) <= FEW_COPIES
    if few and (matrix.rows(kept) == matrix.rows(kept[:1])).all() and not _is_central(matrix, kept[:1], others, frame):
        return None  # a trained row that was copied to a few tokens
    inside = _against(matrix, kept[:: -(-len(kept) // SAMPLE_ROWS)], centre, frame, len(kept))
    outside = _against(matrix, others, centre, frame)
    areas = {
        name: _area(inside[name], outside[name])
        for name in INDICATORS
        if np.median(inside[name]) <= TIGHTNESS * np.median(outside[name])
    }
    by = max(areas, key=lambda name: areas[name] + BETTER * (name == "euclidean"), default=None)
    if by is None:
        return None
    rounding = np.sqrt(np.sum(ulp(centre, matrix.grid) ** 2) / 12)
    floor = rounding if by == "euclidean" else max(0.5 * rounding**2 / max(centre @ centre, rounding**2), 1e-12)
    logarithms = _logarithms(inside[by], floor)
    return _Apart(
        reference=Reference(kind=kind, tokens=kept, n_left_out=len(tokens) - len(kept)),
        candidates=tokens,
        centre=centre,
        by=by,
        floor=float(floor),
        logarithms=np.unique(logarithms),
        furthest=float(np.median(logarithms) + np.median(_logarithms(outside[by], floor))) / 2,
    )


def _score(columns: dict[str, Lengths], apart: _Apart) -> Float64[np.ndarray, " n_tokens"]:
    """Return the probability of each token to belong to the population of the reference."""
    kind = apart.reference.kind
    logarithms = _logarithms(columns[apart.by], apart.floor)
    score = np.zeros(len(logarithms))
    if kind == DIRECTION:  # a cluster by its definition, no sample of one
        score[apart.candidates] = 1
    elif kind != NEAR_ZERO:
        law = Law.of_lower_half(logarithms, apart.logarithms) if kind == MODE else Law.of_sample(apart.logarithms)
        score = membership(logarithms, law, at_least=len(apart.reference.tokens), furthest=apart.furthest)
    score[rows_near_zero(columns["euclidean"])] = 1  # a few equal rows are too few for a law
    return score


def _is_central(matrix: EmbeddingMatrix, token: Tokens, others: Tokens, frame: _Frame) -> bool:
    """Return whether a row is nearer to the mean of all rows than nearly all others, as an untrained row is."""
    return bool(_lengths(matrix, token, frame.mean) <= np.quantile(_lengths(matrix, others, frame.mean), LIKE_OTHERS))


def _read(matrix: EmbeddingMatrix, tokens: Tokens, n_rows: int) -> Iterator[Rows]:
    for start in range(0, len(tokens), n_rows):
        yield matrix.rows(tokens[start : start + n_rows])


def _mean(matrix: EmbeddingMatrix, tokens: Tokens) -> Float64[np.ndarray, " dim"]:
    return np.sum([rows.sum(0, dtype=np.float64) for rows in _read(matrix, tokens, SAMPLE_ROWS)], 0) / len(tokens)


def _lengths(matrix: EmbeddingMatrix, tokens: Tokens, centre: Float64[np.ndarray, " dim"]) -> Lengths:
    """Measure the Euclidean distance of some rows to a point."""
    return np.concatenate([np.linalg.norm(rows - centre, axis=1) for rows in _read(matrix, tokens, ROWS_HELD)])


def _area(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return the area under the ROC curve: the share of pairs with the inner distance smaller, ties counting half."""
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, "left") + np.searchsorted(ordered, inside, "right")
    return float(1 - below.mean() / (2 * len(ordered)))


def _logarithms(distances: np.ndarray, floor: float) -> np.ndarray:
    return np.log(np.maximum(distances, floor))
