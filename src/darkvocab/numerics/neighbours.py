"""Neighbours: all pairs of many rows that lie within a limit in every column, without comparing all pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, Integer, Num, UInt

from .chebyshev import UNITS, largest_within
from .grids import Grid, as_grid, decode
from .grouping import chunks, n_cores

MAX_PAIRS = 1 << 22  # listed unless more are asked for: 32 MB
FEATURES = 32  # that rows are told apart by before they are compared in full
BLOCKS = 16  # of columns, whose largest and smallest deviations may be such features
SAMPLE = 512  # rows that say which features tell most pairs apart
SMALL = 256  # rows of a component below which all its pairs are compared
STUCK = 0.75  # of the rows in one component: features do not tell them apart, and all columns must
BLOCK_BYTES = 1 << 26  # of rows that are compared in full at a time


@dataclass(frozen=True, kw_only=True)
class Near:
    """The graph of rows that are near each other."""

    degrees: Int64[np.ndarray, " n"]  # rows near each row
    tokens: Int64[np.ndarray, " n"]  # the sum of their weights
    labels: Int64[np.ndarray, " n"]  # the first row of each row's component
    n_pairs: int
    pairs: Int32[np.ndarray, "2 pairs"] | None  # each once, in ascending order; None where more than were asked for


def near_rows(
    words: UInt[np.ndarray, "n dim"],
    grid: str | Grid,
    threshold: float | int,
    *,
    unit: str = "weight",
    strict: bool = False,
    weights: Integer[np.ndarray, " n"] | None = None,
    tokens: Integer[np.ndarray, " n"] | None = None,
    rounded: Callable[[np.ndarray], np.ndarray] | None = None,
    max_pairs: int = MAX_PAIRS,
    threads: int | None = None,
) -> Near:
    """Rows at an L-infinity distance <= threshold (`strict`: < threshold) of each other, exactly.

    Every row gets a few features, none of which differs by more between two rows than their L-infinity distance:
    single columns, and the largest and smallest deviation of a block of columns from one row's. Rows whose features are
    near make a graph that holds the one asked for; each of its components is taken up again by itself, with features
    that tell its own rows apart, until it falls apart no further; then its pairs are compared, in columns that
    differ by more than the threshold there at all, the most telling first, up to the first that tells them apart.

    Parameters
    ----------
    words : [n, dim] finite numbers as unsigned words, in memory or memory-mapped
    grid : the grid they belong to, after `rounded`
    threshold, unit, strict : a length >= 0 in "weight" units (rounded to float32, as distances are) or grid "steps"
    weights : how many tokens each row stands for, 1 by default
    tokens : the rows of `words` to take, all by default; `n` counts these
    rounded : what to apply to words, a few rows at a time, before they are compared
    max_pairs : how many pairs may be listed; degrees and components need no list
    threads : to compare with; by default one per core

    Returns
    -------
    Near
        The cost is a few passes over the words, n log n, and what is near or nearly so; where no column tells rows
        apart, all pairs of these, a word of memory each.

    Examples
    --------
    >>> near = near_rows(np.array([[0, 9], [1, 9], [2, 9], [7, 9]], np.uint16), "bfloat16", 1, unit="steps")
    >>> near.pairs.tolist(), near.degrees.tolist(), near.labels.tolist()
    ([[0, 1], [1, 2]], [1, 2, 1, 0], [0, 0, 0, 3])
    """
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}; choose one of {', '.join(UNITS)}")
    tokens = np.arange(len(words)) if tokens is None else np.asarray(tokens)
    weights = np.ones(len(tokens), np.int64) if weights is None else np.asarray(weights, np.int64)
    read = _Rows(words, tokens, as_grid(grid), unit, rounded)
    with ThreadPoolExecutor(threads or n_cores()) as pool:
        search = _Search(read, read.limit(threshold, strict), weights, max_pairs, pool, threads or n_cores())
        return search.result()


class _Rows:
    """Rows as numbers whose differences are distances: float32 values, or ordered indices in int16 or int32."""

    def __init__(self, words: np.ndarray, tokens: np.ndarray, grid: Grid, unit: str, rounded: Any) -> None:
        self.words, self.tokens, self.grid, self.rounded = words, tokens, grid, rounded
        self.dim = words.shape[1]
        self.dtype = np.dtype(np.float32 if unit == "weight" else np.int16 if grid.bits <= 16 else np.int32)

    def limit(self, threshold: float | int, strict: bool) -> float | int:
        """The largest difference that counts as near; below 0 if none."""
        if self.dtype == np.float32:
            return float(largest_within(threshold, self.dtype, strict=strict))
        whole = int(min(threshold, 1 << 32))
        return min(whole - (strict and whole == threshold), np.iinfo(f"u{self.dtype.itemsize}").max)

    def columns(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """These columns of these rows, [rows, columns]."""
        return self._numbers(self.words[self.tokens[rows][:, None], columns])

    def whole(self, rows: np.ndarray) -> np.ndarray:
        """All columns of these rows, [rows, dim]."""
        tokens = self.tokens[rows]
        together = tokens[-1] - tokens[0] == len(tokens) - 1 and (np.diff(tokens) == 1).all()
        return self._numbers(self.words[tokens[0] : tokens[-1] + 1] if together else self.words[tokens])

    def _numbers(self, words: np.ndarray) -> np.ndarray:
        from ._backends.neighbours import index_words

        words = self.rounded(words) if self.rounded else words
        if self.dtype == np.float32:
            return decode(words, self.grid)
        index = np.empty(words.shape, self.dtype)
        index_words(words, self.grid.word_dtype.type(self.grid.sign), index)
        return index


class _Search:
    """What is still to be compared, and what was found so far."""

    def __init__(
        self, read: _Rows, limit: float, weights: np.ndarray, max_pairs: int, pool: ThreadPoolExecutor, threads: int
    ) -> None:
        self.read, self.limit, self.weights, self.pool, self.threads = read, limit, weights, pool, threads
        n = len(weights)
        self.degrees, self.tokens, self.parent = np.zeros(n, np.int64), np.zeros(n, np.int64), np.arange(n)
        self.n_pairs, self.max_pairs = 0, max_pairs
        self.pairs: list[np.ndarray] = []

    def result(self) -> Near:
        from ._backends.neighbours import flatten

        if self.limit >= 0 and len(self.weights) > 1:
            self._descend()
        flatten(self.parent)
        pairs = None
        if self.n_pairs <= self.max_pairs:
            pairs = np.sort(np.concatenate([np.empty((2, 0), np.int32), *self.pairs], axis=1), axis=0)
            pairs = pairs[:, np.lexsort(pairs[::-1])]
        return Near(degrees=self.degrees, tokens=self.tokens, labels=self.parent, n_pairs=self.n_pairs, pairs=pairs)

    def _descend(self) -> None:
        """Take rows apart until components are small, or stuck, and compare what is left of them."""
        waiting, small, sizes_of_small = [(np.arange(len(self.weights)), False)], [], []
        while waiting:
            rows, stuck = waiting.pop()
            columns, features, slack = self._telling(rows)
            if not len(columns):
                self._all_near(rows)
            elif stuck or features is None:
                key = self._columns(rows, columns[:1])[:, 0]
                order = np.argsort(key, kind="stable")
                self._compare(rows[order], columns, _ends(key[order], self._reach(0.0)))
            else:
                order, sizes = self._components(rows, features, slack)
                starts = np.cumsum(sizes) - sizes
                for start, size in zip(starts[sizes > SMALL], sizes[sizes > SMALL], strict=True):
                    waiting.append((order[start : start + size], size > STUCK * len(rows)))
                few = (sizes > 1) & (sizes <= SMALL)
                small.append(order[np.repeat(few, sizes)])
                sizes_of_small.append(sizes[few])
        if small:
            sizes = np.concatenate(sizes_of_small)
            self._compare(np.concatenate(small), np.arange(self.read.dim), np.repeat(np.cumsum(sizes), sizes))

    def _telling(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, float]:
        """Columns that tell any of these rows apart, most telling first; if many, features [rows, FEATURES] that do.

        And by how much more than the rows features may differ, from rounding.
        """
        from ._backends.neighbours import count_alike, profile

        read, blocks = self.read, min(BLOCKS, self.read.dim)
        centre = read.whole(rows[:1])[0]
        bits = np.empty((len(rows), 2 * blocks), np.int32)

        def look(some: slice) -> tuple[np.ndarray, np.ndarray]:
            numbers = read.whole(rows[some])
            low, high = centre.copy(), centre.copy()
            profile(numbers, centre, low, high, bits[some])
            return low, high

        lows, highs = zip(*self.pool.map(look, self._chunks(rows)), strict=True)
        low, high = np.min(lows, axis=0), np.max(highs, axis=0)
        with np.errstate(over="ignore"):
            apart = high - low if read.dtype == np.float32 else high.astype(np.int64) - low
        columns = np.flatnonzero(apart > self.limit)
        extremes, slack = _deviations(bits, read.dtype)
        sample = np.random.default_rng(len(rows)).permutation(len(rows))[:SAMPLE]
        values = np.concatenate([read.whole(rows[sample])[:, columns], extremes[sample]], axis=1)
        alike = np.zeros(values.shape[1], np.int64)
        count_alike(np.sort(values.T.astype(np.float64), axis=1), self._reach(slack), alike)
        telling = columns[np.argsort(alike[: len(columns)], kind="stable")]
        if len(columns) <= FEATURES:
            return telling, None, slack
        best = np.argsort(alike, kind="stable")[:FEATURES]
        single = best[best < len(columns)]
        features = np.concatenate([self._columns(rows, columns[single]), extremes[:, best[best >= len(columns)] - len(columns)]], axis=1)
        return telling, features[:, np.argsort(np.argsort(best >= len(columns), kind="stable"))], slack

    def _components(self, rows: np.ndarray, features: np.ndarray, slack: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows, component after component of the graph of near features, ascending in each; the components' sizes."""
        order = np.argsort(features[:, 0], kind="stable")
        features = features[order]
        tiles, none = _tiled(features), np.empty(0, np.int64)
        parent, *_ = self._join([(tiles, 0, tiles, 0)], _ends(features[:, 0], self._reach(slack)), self._most(slack), none)
        component = np.empty(len(rows), np.int64)
        component[order] = parent
        order = np.argsort(component, kind="stable")
        _, sizes = np.unique(component[order], return_counts=True)
        return rows[order], sizes

    def _compare(self, rows: np.ndarray, columns: np.ndarray, ends: np.ndarray) -> None:
        """Compare each of these rows with those after it and before its end, in these columns."""
        from ._backends.neighbours import unite_all

        parent, degrees, tokens, pairs = self._join(self._blocks(rows, columns, ends), ends, self._most(0.0), self.weights[rows])
        unite_all(self.parent, rows, parent)
        self.degrees[rows] += degrees
        self.tokens[rows] += tokens
        self.pairs += [rows[some].astype(np.int32) for some in pairs]

    def _blocks(self, rows: np.ndarray, columns: np.ndarray, ends: np.ndarray) -> Iterator[tuple[np.ndarray, int, np.ndarray, int]]:
        """Tiles of rows, the first one's place, and those of later rows that they may be near to."""
        from ._backends.neighbours import TILE_BYTES

        lanes = TILE_BYTES // self.read.dtype.itemsize
        size = max(1, BLOCK_BYTES // (len(columns) * TILE_BYTES)) * lanes
        for first in range(0, len(rows), size):
            tiles = _tiled(self._columns(rows[first : first + size], columns))
            yield tiles, first, tiles, first
            last = ends[min(first + size, len(rows)) - 1]
            for later in range(first + size, last, size):
                yield tiles, first, _tiled(self._columns(rows[later : min(later + size, last)], columns)), later

    def _join(self, blocks: Iterable[tuple[np.ndarray, int, np.ndarray, int]], ends: np.ndarray, most: Any, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
        from ._backends.neighbours import join, unite_all, flatten

        n, m, threads = len(ends), len(weights), self.threads if len(ends) > 1000 else 1
        parents = [np.arange(n) for _ in range(threads)]
        degrees, tokens = np.zeros((threads, m), np.int64), np.zeros((threads, m), np.int64)
        listed: list[np.ndarray] = []
        for x, x_first, y, y_first in blocks:
            room = max(0, min(self.max_pairs - self.n_pairs, x[:, 0].size * y[:, 0].size)) if m else 0

            def work(worker: int) -> tuple[int, np.ndarray]:
                pairs = np.empty((2, room), np.int32)
                count = join(x, x_first, y, y_first, ends, most, worker, threads, parents[worker], weights, degrees[worker], tokens[worker], pairs)
                return count, pairs[:, : min(count, room)].copy()

            for count, pairs in self.pool.map(work, range(threads)):
                self.n_pairs += count
                listed.append(pairs)
            if self.n_pairs > self.max_pairs:
                listed = []
        for parent in parents[1:]:
            unite_all(parents[0], np.arange(n), parent)
        flatten(parents[0])
        return parents[0], degrees.sum(axis=0), tokens.sum(axis=0), listed

    def _all_near(self, rows: np.ndarray) -> None:
        """Every two of these rows are near."""
        from ._backends.neighbours import unite_all

        unite_all(self.parent, rows, np.zeros(len(rows), np.int64))
        self.degrees[rows] += len(rows) - 1
        self.tokens[rows] += self.weights[rows].sum() - self.weights[rows]
        self.n_pairs += len(rows) * (len(rows) - 1) // 2
        if self.n_pairs <= self.max_pairs:
            self.pairs.append(rows[np.stack(np.triu_indices(len(rows), 1))].astype(np.int32))

    def _chunks(self, rows: np.ndarray) -> Iterator[slice]:
        return chunks(np.broadcast_to(self.read.words[:1], (len(rows), self.read.dim)))

    def _columns(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """These columns of these rows, [rows, columns]."""
        out = np.empty((len(rows), len(columns)), self.read.dtype)

        def take(some: slice) -> None:
            out[some] = self.read.columns(rows[some], columns)

        list(self.pool.map(take, self._chunks(rows)))
        return out

    def _reach(self, slack: float) -> float:
        """No two numbers, or features, that count as near lie farther apart than this."""
        return float(np.nextafter(self._most(slack), np.float32(np.inf))) if self.read.dtype == np.float32 else self.limit

    def _most(self, slack: float) -> Any:
        """The limit, and slack, in the type of differences."""
        if self.read.dtype == np.float32:
            return np.float32(self.limit) if not slack else np.nextafter(np.float32(self.limit * (1 + 2.0**-22) + slack), np.float32(np.inf))
        return np.dtype(f"u{self.read.dtype.itemsize}").type(self.limit)


def _ends(key: np.ndarray, reach: float) -> np.ndarray:
    """Behind the last of the ascending numbers that is at most `reach` above each."""
    wide = key.astype(np.float64)
    return np.searchsorted(wide, wide + reach, side="right")


def _tiled(numbers: np.ndarray) -> np.ndarray:
    """[tiles, columns, lanes] of [n, columns], the last row again where there is none."""
    from ._backends.distances import fill_tiles
    from ._backends.neighbours import TILE_BYTES

    lanes = TILE_BYTES // numbers.itemsize
    tiles = np.empty((-(-len(numbers) // lanes), numbers.shape[1], lanes), numbers.dtype)
    fill_tiles(numbers, tiles)
    return tiles


def _deviations(bits: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, float]:
    """Features of `profile` as numbers of this type, and by how much their rounding may part two of them."""
    if dtype != np.float32:
        far = np.iinfo(dtype).max  # clipped numbers are no farther apart
        return np.clip(bits, -far, far).astype(dtype), 0.0
    values = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)
    if not np.isfinite(values).all():
        return np.zeros_like(values), 0.0  # overflowed: they tell nothing
    return values, float(np.abs(values).max(initial=0)) * 2.0**-22
