"""Neighbours: all pairs of many rows that lie within a limit in every column, without comparing all pairs."""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt

from ..errors import InvalidInput
from . import _backends
from .chebyshev import UNITS, largest_within
from .grids import Grid, as_grid, decode
from .grouping import chunks, n_cores

MAX_PAIRS = 1 << 22  # listed unless more are asked for: 32 MB
FEATURES = 32  # that rows are told apart by before they are compared in full
BLOCKS = 16  # of columns, whose largest and smallest deviations may be such features
FEATURE_SAMPLE = 512  # rows that say which features tell most pairs apart
SMALL_COMPONENT = 256  # rows of a component below which all its pairs are compared
PAIRS_PER_ROW = 4  # up to which the pairs that features do not tell apart are compared one by one
STUCK = 0.75  # share of the rows in one component beyond which all columns are compared, not features
ONE_THREAD_ROWS = 1000  # up to which one thread compares all
BLOCK_BYTES = 1 << 26  # of rows that are compared in full at a time


@dataclass(frozen=True)
class Touching:
    """When two rows touch: their L-infinity distance is <= (or, `strict`, <) the threshold. Recorded as one."""

    threshold: float | int  # weight units, rounded to float32 as distances are; or grid steps
    unit: str = "weight"
    strict: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", float(self.threshold))
        if self.unit not in UNITS:
            raise InvalidInput(f"unknown unit {self.unit!r} of touching; choose one of {', '.join(UNITS)}")
        if not (self.threshold >= 0 and math.isfinite(self.threshold)):
            raise InvalidInput(f"touching must be a finite length >= 0 ({self.unit}), got {self.threshold!r}")
        if self.strict and self.threshold <= 2.0**-150:
            raise InvalidInput(
                f"nothing is nearer than {self.threshold!r}: choose a larger threshold, or <= for equal rows"
            )

    def __str__(self) -> str:
        return f"{'<' if self.strict else '<='} {repr(self.threshold).removesuffix('.0')} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class Near:
    """Graph of rows that are near each other."""

    degrees: Int64[np.ndarray, " n"]  # rows near each row
    tokens: Int64[np.ndarray, " n"]  # the sum of their weights
    labels: Int64[np.ndarray, " n"]  # the first row of each row's component
    n_pairs: int
    pairs: Int32[np.ndarray, "2 pairs"] | None  # each once, in ascending order; None where more than were asked for


def near_rows(
    words: UInt[np.ndarray, "rows dim"],
    grid: str | Grid,
    touching: Touching,
    *,
    weights: Integer[np.ndarray, " n"] | None = None,
    tokens: Integer[np.ndarray, " n"] | None = None,
    rounded: Callable[[np.ndarray], np.ndarray] | None = None,
    max_pairs: int = MAX_PAIRS,
    threads: int | None = None,
) -> Near:
    """Find all pairs of rows that touch: whose L-infinity distance is <= (or <) a threshold; exactly.

    Every row gets a few features, none of which differs by more between two rows than their L-infinity distance:
    single columns, and the largest and smallest deviation of a block of columns from one row's. Rows whose features are
    near make a graph that holds the one asked for; each of its components is taken up again by itself, with features
    that tell its own rows apart, until it falls apart no further; then its pairs are compared, in columns that
    differ by more than the threshold there at all, the most telling first, up to the first that tells them apart.
    The cost is a few passes over the words, n log n, and what is near or nearly so; where no column tells rows apart,
    all pairs of these, a word of memory each.

    Parameters
    ----------
    words : [rows, dim] finite numbers as unsigned words, in memory or memory-mapped
    grid : the grid they belong to, after `rounded`
    weights : how many tokens each row stands for, 1 by default
    tokens : the rows of `words` to take, all by default; `n` counts these
    rounded : what to apply to words, a few rows at a time, before they are compared
    max_pairs : how many pairs may be listed; degrees and components need no list
    threads : to compare with; by default one per core

    Examples
    --------
    >>> near = near_rows(np.array([[0, 9], [1, 9], [2, 9], [7, 9]], np.uint16), "bfloat16", Touching(1, "steps"))
    >>> near.pairs.tolist(), near.degrees.tolist(), near.labels.tolist()
    ([[0, 1], [1, 2]], [1, 2, 1, 0], [0, 0, 0, 3])
    """
    tokens = np.arange(len(words)) if tokens is None else np.asarray(tokens)
    weights = np.ones(len(tokens), np.int64) if weights is None else np.asarray(weights, np.int64)
    threads = threads or n_cores()
    with ThreadPoolExecutor(threads) as pool:
        return _Search(words, tokens, as_grid(grid), rounded, touching, weights, max_pairs, pool, threads).result()


@dataclass(frozen=True)
class _Telling:
    """Features that tell some rows apart."""

    columns: np.ndarray  # in which any two are apart, the most telling first
    features: np.ndarray  # [rows, features], the most telling first: some of the columns, and deviations
    slack: float  # by which features may differ more than the rows, from rounding
    whole: bool  # features are all the columns


@dataclass(eq=False)
class _Search:
    """Rows still to be compared, and the pairs that are near so far.

    Rows are numbers whose differences are distances: float32 values, or ordered indices in int16 or int32.
    """

    words: np.ndarray
    places: np.ndarray  # of the rows among the words
    grid: Grid
    rounded: Callable[[np.ndarray], np.ndarray] | None
    touching: Touching
    weights: np.ndarray
    max_pairs: int
    pool: ThreadPoolExecutor
    threads: int

    def __post_init__(self) -> None:
        n = len(self.weights)
        self.dim = self.words.shape[1]
        in_steps = np.int16 if self.grid.bits <= 16 else np.int32
        self.dtype = np.dtype(np.float32 if self.touching.unit == "weight" else in_steps)
        self.limit = self._limit(self.touching)
        self.degrees, self.tokens = np.zeros((2, n), np.int64)
        self.parent = np.arange(n)
        self.n_pairs = 0
        self.pairs: list[np.ndarray] = []

    def _limit(self, touching: Touching) -> float | int:
        """Largest difference that counts as near."""
        if self.dtype == np.float32:
            return float(largest_within(touching.threshold, self.dtype, strict=touching.strict))
        whole = math.ceil(touching.threshold) - 1 if touching.strict else math.floor(touching.threshold)
        return min(whole, (1 << self.dtype.itemsize * 8) - 1)  # no two indices are farther apart

    def result(self) -> Near:
        if len(self.weights) > 1:
            self._descend()
        _backends.grouping.flatten(self.parent)
        pairs = None
        if self.n_pairs <= self.max_pairs:
            pairs = np.concatenate([np.empty((2, 0), np.int32), *self.pairs], axis=1)
            both = np.minimum(*pairs).astype(np.int64)  # a pair as one number
            both <<= 32
            both |= np.maximum(*pairs)
            both.sort()
            pairs[0] = both >> 32
            pairs[1] = both
        return Near(degrees=self.degrees, tokens=self.tokens, labels=self.parent, n_pairs=self.n_pairs, pairs=pairs)

    def _descend(self) -> None:
        """Split rows into components until these are small or split no further, and compare the rows of each."""
        waiting = [(np.arange(len(self.weights)), False)]
        small: list[tuple[np.ndarray, np.ndarray]] = []  # rows of small components, and the components' sizes
        while waiting:
            rows, stuck = waiting.pop()
            telling = self._telling(rows)
            if not len(telling.columns):
                self._all_near(rows)
                continue
            order = np.argsort(telling.features[:, 0], kind="stable")
            rows = rows[order]
            features = telling.features[order]
            first = features[:, 0].astype(np.float64)
            ends = np.searchsorted(first, first + self._reach(telling.slack), side="right")
            if stuck or telling.whole:
                columns = telling.columns[:0] if telling.whole else telling.columns
                self._compare(rows, columns, ends, features, telling.slack)
                continue
            tiles = _tiled(features)
            limits = np.full(FEATURES, self._most(telling.slack))
            graph = self._join([(tiles, 0, tiles, 0)], ends, limits, PAIRS_PER_ROW * len(rows), self.weights[rows])
            if graph.pairs is not None:
                self._settle(rows, graph.pairs)
                continue
            order = np.argsort(graph.labels, kind="stable")
            _, sizes = np.unique(graph.labels, return_counts=True)
            starts = np.cumsum(sizes) - sizes
            for start, size in zip(starts[sizes > SMALL_COMPONENT], sizes[sizes > SMALL_COMPONENT], strict=True):
                waiting.append((np.sort(rows[order[start : start + size]]), size > STUCK * len(rows)))
            few = (sizes > 1) & (sizes <= SMALL_COMPONENT)
            small.append((rows[order[np.repeat(few, sizes)]], sizes[few]))
        if small:
            rows, sizes = (np.concatenate(parts) for parts in zip(*small, strict=True))
            ends = np.repeat(np.cumsum(sizes), sizes)
            self._compare(rows, np.arange(self.dim), ends, np.empty((len(rows), 0), self.dtype), 0.0)

    def _telling(self, rows: np.ndarray) -> _Telling:
        """Choose features that tell these rows apart, by a sample of them."""
        blocks = min(BLOCKS, self.dim)
        centre = self._whole(rows[:1])[0]
        bits = np.empty((len(rows), 2 * blocks), np.int32)

        def look(some: slice) -> tuple[np.ndarray, np.ndarray]:
            low, high = centre.copy(), centre.copy()
            _backends.neighbours.profile(self._whole(rows[some]), centre, low, high, bits[some])
            return low, high

        lows, highs = zip(*self.pool.map(look, self._chunks(rows)), strict=True)
        low, high = np.min(lows, axis=0), np.max(highs, axis=0)
        with np.errstate(over="ignore"):
            apart = high - low if self.dtype == np.float32 else high.astype(np.int64) - low
        columns = np.flatnonzero(apart > self.limit)
        bits = np.column_stack([bits[:, :blocks].max(axis=1), bits[:, blocks:].min(axis=1), bits])
        extremes, slack = _deviations(bits, self.dtype)
        sample = np.random.default_rng(len(rows)).permutation(len(rows))[:FEATURE_SAMPLE]
        values = np.concatenate([self._whole(rows[sample])[:, columns], extremes[sample]], axis=1)
        alike = np.zeros(values.shape[1], np.int64)
        _backends.neighbours.count_alike(np.sort(values.T.astype(np.float64), axis=1), self._reach(slack), alike)
        columns = columns[np.argsort(alike[: len(columns)], kind="stable")]
        if len(columns) <= FEATURES:
            return _Telling(columns, self._columns(rows, columns), 0.0, True)
        telling = np.argsort(alike, kind="stable")[:FEATURES] - len(columns)
        features = np.empty((len(rows), FEATURES), self.dtype)
        features[:, telling < 0] = self._columns(rows, columns[: (telling < 0).sum()])
        features[:, telling >= 0] = extremes[:, telling[telling >= 0]]
        return _Telling(columns, features, slack, False)

    def _compare(
        self, rows: np.ndarray, columns: np.ndarray, ends: np.ndarray, features: np.ndarray, slack: float
    ) -> None:
        """Compare each of these rows with those after it and before its end, by its features and in these columns."""
        limits = np.repeat([self._most(slack), self._most(0.0)], [features.shape[1], len(columns)])
        room = self.max_pairs - self.n_pairs
        graph = self._join(self._blocks(rows, columns, ends, features), ends, limits, room, self.weights[rows])
        _backends.grouping.unite_all(self.parent, rows, rows[graph.labels])
        self.degrees[rows] += graph.degrees
        self.tokens[rows] += graph.tokens
        self._list(graph.n_pairs, None if graph.pairs is None else rows[graph.pairs])

    def _blocks(
        self, rows: np.ndarray, columns: np.ndarray, ends: np.ndarray, features: np.ndarray
    ) -> Iterator[tuple[np.ndarray, int, np.ndarray, int]]:
        """Tiles of some rows, the place of the first, and the same of later rows that they may be near to."""

        def tiled(some: slice) -> np.ndarray:
            return _tiled(np.concatenate([features[some], self._columns(rows[some], columns)], axis=1))

        width = features.shape[1] + len(columns)
        tile_bytes = _backends.neighbours.TILE_BYTES
        size = max(1, BLOCK_BYTES // (width * tile_bytes)) * tile_bytes // self.dtype.itemsize
        for first in range(0, len(rows), size):
            tiles = tiled(slice(first, first + size))
            yield tiles, first, tiles, first
            last = ends[min(first + size, len(rows)) - 1]
            for later in range(first + size, last, size):
                yield tiles, first, tiled(slice(later, min(later + size, last))), later

    def _join(
        self,
        blocks: Iterable[tuple[np.ndarray, int, np.ndarray, int]],
        ends: np.ndarray,
        limits: np.ndarray,
        room: int,
        weights: np.ndarray,
    ) -> Near:
        """Return the graph of rows in blocks of tiles; no pairs where there are more than room for."""
        n = len(ends)
        threads = self.threads if n > ONE_THREAD_ROWS else 1
        parents = [np.arange(n) for _ in range(threads)]
        degrees, tokens = np.zeros((2, threads, n), np.int64)
        n_pairs = 0
        listed = [np.empty((2, 0), np.int32)]
        for x, x_first, y, y_first in blocks:
            most = max(0, min(room - n_pairs, x[:, 0].size * y[:, 0].size))

            def work(worker: int) -> tuple[int, np.ndarray]:
                pairs = np.empty((2, most), np.int32)  # noqa: B023
                graph = parents[worker], weights, degrees[worker], tokens[worker]
                count = _backends.neighbours.join(x, x_first, y, y_first, ends, limits, worker, threads, *graph, pairs)  # noqa: B023
                return count, pairs[:, :count].copy()

            for count, pairs in self.pool.map(work, range(threads)):
                n_pairs += count
                listed.append(pairs)
            if n_pairs > room:
                listed = listed[:1]
        for parent in parents[1:]:
            _backends.grouping.unite_all(parents[0], np.arange(n), parent)
        _backends.grouping.flatten(parents[0])
        return Near(
            degrees=degrees.sum(axis=0),
            tokens=tokens.sum(axis=0),
            labels=parents[0],
            n_pairs=n_pairs,
            pairs=np.concatenate(listed, axis=1) if n_pairs <= room else None,
        )

    def _settle(self, rows: np.ndarray, pairs: np.ndarray) -> None:
        """Compare these pairs of rows in full."""
        pairs = rows[pairs]
        near = np.empty(pairs.shape[1], np.bool_)

        def compare(some: slice) -> None:
            one, other = (self._whole(of[some]) for of in pairs)
            _backends.neighbours.compare_each(one, other, self._most(0.0), near[some])

        list(self.pool.map(compare, self._chunks(pairs[0])))
        one, other = pairs = pairs[:, near]
        _backends.grouping.unite_all(self.parent, one, other)
        for a, b in ((one, other), (other, one)):
            np.add.at(self.degrees, a, 1)
            np.add.at(self.tokens, a, self.weights[b])
        self._list(pairs.shape[1], pairs)

    def _list(self, n_pairs: int, pairs: np.ndarray | None) -> None:
        """Keep the pairs, or drop all once there are more than `max_pairs`."""
        self.n_pairs += n_pairs
        if self.n_pairs > self.max_pairs:
            self.pairs = []
        elif pairs is not None:
            self.pairs.append(pairs.astype(np.int32))

    def _all_near(self, rows: np.ndarray) -> None:
        """Record that every two of these rows are near."""
        _backends.grouping.unite_all(self.parent, rows, np.full(len(rows), rows[0]))
        self.degrees[rows] += len(rows) - 1
        self.tokens[rows] += self.weights[rows].sum() - self.weights[rows]
        n_pairs = len(rows) * (len(rows) - 1) // 2
        fits = self.n_pairs + n_pairs <= self.max_pairs
        self._list(n_pairs, rows[np.stack(np.triu_indices(len(rows), 1))] if fits else None)

    def _chunks(self, rows: np.ndarray) -> Iterator[slice]:
        return chunks(np.broadcast_to(self.words[:1], (len(rows), self.dim)))

    def _columns(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return these columns of these rows, [rows, columns]."""
        out = np.empty((len(rows), len(columns)), self.dtype)

        def take(some: slice) -> None:
            out[some] = self._numbers(self.words[self.places[rows[some]][:, None], columns])

        list(self.pool.map(take, self._chunks(rows)))
        return out

    def _whole(self, rows: np.ndarray) -> np.ndarray:
        """Return all columns of these rows, [rows, dim]."""
        places = self.places[rows]
        together = places[-1] - places[0] == len(places) - 1 and (np.diff(places) == 1).all()
        return self._numbers(self.words[places[0] : places[-1] + 1] if together else self.words[places])

    def _numbers(self, words: np.ndarray) -> np.ndarray:
        words = self.rounded(words) if self.rounded else words
        if self.dtype == np.float32:
            return decode(words, self.grid)
        index = np.empty(words.shape, self.dtype)
        _backends.neighbours.index_words(words, self.grid.word_dtype.type(self.grid.sign), index)
        return index

    def _reach(self, slack: float) -> float:
        """Return the largest distance at which two numbers, or features, may still count as near."""
        most = self._most(slack)
        return float(_above(float(most)) if self.dtype == np.float32 else most)

    def _most(self, slack: float) -> Any:
        """Return the limit, or for features with slack a little more, in the type of differences."""
        if self.dtype != np.float32:
            return np.dtype(f"u{self.dtype.itemsize}").type(self.limit)
        return _above(self.limit * (1 + 2.0**-22) + slack) if slack else np.float32(self.limit)


def _above(length: float) -> np.float32:
    """Return the next float32 above."""
    with np.errstate(over="ignore"):
        return np.nextafter(np.float32(length), np.float32(np.inf))


def _tiled(numbers: np.ndarray) -> np.ndarray:
    """[tiles, columns, lanes] of [n, columns], the last row again where there is none."""
    lanes = _backends.neighbours.TILE_BYTES // numbers.itemsize
    tiles = np.empty((-(-len(numbers) // lanes), numbers.shape[1], lanes), numbers.dtype)
    _backends.distances.fill_tiles(numbers, tiles)
    return tiles


def _deviations(bits: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, float]:
    """Features of `profile` as numbers of this type, and by how much their rounding may part two of them."""
    if dtype != np.float32:
        far = np.iinfo(dtype).max  # clipped numbers are no farther apart
        return np.clip(bits, -far, far).astype(dtype), 0.0
    values = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)
    if not np.isfinite(values).all():
        return np.zeros_like(values), 0.0  # overflowed: they tell no rows apart
    return values, float(np.abs(values).max(initial=0)) * 2.0**-22
