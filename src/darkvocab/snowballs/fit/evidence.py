"""Evidence from the rows of black holes against any snowball, whatever its sigma and its base.

Both tests use only that tokens are independent and that noise is: from column to column for
`association`, and with one peak for `gap`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int64
from scipy.special import betaln, gammaln, logsumexp

from ...numerics import as_grid, index_values, ulp


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A cell of a column with fewer tokens than a cell on either side."""

    column: int
    cells: tuple[int, int, int]  # ordered indices, ascending
    tokens: tuple[int, int, int]
    log10_p: float


@dataclass(frozen=True, kw_only=True)
class Association:
    """Two columns that leave their commonest values together."""

    columns: tuple[int, int]
    away: tuple[int, int]  # tokens that are not at the column's commonest value
    both: int
    log10_p: float


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column in which rows differ: its values as ordered indices, and the tokens at each."""

    column: int
    spacing: float  # of the grid there, weight units
    cells: list[int]
    tokens: list[int]


def columns(index: Int64[np.ndarray, "rows dim"], populations: Int64[np.ndarray, " rows"], grid: str) -> list[Column]:
    """Return the columns in which rows differ."""
    rows = []
    for column, cells, tokens in _differing(index, populations):
        spacing = float(ulp(index_values(cells[:1], grid), grid)[0])
        rows.append(Column(column=column, spacing=spacing, cells=cells.tolist(), tokens=tokens.tolist()))
    return rows


def _differing(index: np.ndarray, populations: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the columns in which rows differ: the values that occur, ascending, and the tokens at each."""
    for column in np.flatnonzero((index != index[0]).any(axis=0)).tolist():
        cells, place = np.unique(index[:, column], return_inverse=True)
        yield column, cells, np.bincount(place, populations).astype(np.int64)


def gap(index: Int64[np.ndarray, "rows dim"], populations: Int64[np.ndarray, " rows"], grid: str) -> Gap | None:
    """Return the emptiest place between two values of one column, by its probability; None where there is none.

    Noise with one peak gives a cell between two others, all equally wide, no less than the smaller
    of the two: of the tokens in both, half or more are expected in it.
    ``p <= P(Bin(a + b, 1/2) <= b) + P(Bin(b + c, 1/2) <= b)`` for a, b, c tokens, times the number
    of places looked at (Bonferroni).
    """
    mantissa = as_grid(grid).mantissa_bits
    gaps: list[Gap] = []
    n_places = 0
    for column, cells, tokens in _differing(index, populations):
        low, high = int(cells[0]), int(cells[-1])
        if low * high <= 0 or abs(low) >> mantissa != abs(high) >> mantissa or high - low > 4096:
            continue  # across zero or a power of two cells are not equally wide
        full = np.zeros(high - low + 1, np.int64)
        full[cells - low] = tokens
        n_places += max(0, full.size - 2)
        before, after = np.maximum.accumulate(full), np.maximum.accumulate(full[::-1])[::-1]
        for between in range(1, full.size - 1):
            a, b, c = int(before[between - 1]), int(full[between]), int(after[between + 1])
            if b < min(a, c):
                sides = int(full[:between].argmax()), between + 1 + int(full[between + 1 :].argmax())
                p = float(np.logaddexp(_at_most(b, a + b), _at_most(b, b + c)))
                where = (low + sides[0], low + between, low + sides[1])
                gaps.append(Gap(column=column, cells=where, tokens=(a, b, c), log10_p=p / math.log(10)))
    if not gaps:
        return None
    best = min(gaps, key=lambda one: one.log10_p)
    return replace(best, log10_p=min(0.0, best.log10_p + math.log10(n_places)))


def association(index: Int64[np.ndarray, "rows dim"], populations: Int64[np.ndarray, " rows"]) -> Association | None:
    """Return the two columns most strongly bound together, by Fisher's exact test; None where fewer than two differ.

    Given how many tokens are away from each column's commonest value, independent columns share as
    many of them as a hypergeometric law says; p is its upper tail times the number of pairs of
    columns (Bonferroni).
    """
    commonest = {column: cells[tokens.argmax()] for column, cells, tokens in _differing(index, populations)}
    columns = list(commonest)
    if len(columns) < 2:
        return None
    away = (index[:, columns] != np.array(list(commonest.values()))).astype(np.float64)
    both = (away * populations[:, None]).T @ away
    n, alone = int(populations.sum()), np.diag(both)
    p, i, j = min(
        (_shared(int(both[i, j]), int(alone[i]), int(alone[j]), n), j, i) for i in range(len(columns)) for j in range(i)
    )
    pairs = len(columns) * (len(columns) - 1) / 2
    return Association(
        columns=(columns[i], columns[j]),
        away=(int(alone[i]), int(alone[j])),
        both=int(both[i, j]),
        log10_p=min(0.0, (p + math.log(pairs)) / math.log(10)),
    )


def _at_most(k: int, n: int) -> float:
    """log P(Bin(n, 1/2) <= k)."""
    i = np.arange(k + 1.0)
    return float(logsumexp(-betaln(i + 1, n - i + 1) - math.log(n + 1)) - n * math.log(2))


def _shared(both: int, first: int, second: int, n: int) -> float:
    """log P(X >= both), X hypergeometric: of `first` tokens among n, how many are among `second`."""
    i = np.arange(both, min(first, second) + 1.0)
    terms = _log_choose(first, i) + _log_choose(n - first, second - i) - _log_choose(n, second)
    return float(min(0.0, logsumexp(terms)))


def _log_choose(n: float, k: Any) -> Any:
    return gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
