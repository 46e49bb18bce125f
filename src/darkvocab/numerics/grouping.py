"""Identical-row grouping: hash every row, then compare the words of rows whose hashes agree."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64, UInt, UInt64

from ..errors import InvalidInput, one_of
from . import _backends

CHUNK_BYTES = 1 << 20
SELECTIONS = ("black_holes", "unique", "tokens")


def n_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chunks(rows: np.ndarray, chunk_bytes: int = CHUNK_BYTES) -> Iterator[slice]:
    """Consecutive row ranges of about `chunk_bytes` each."""
    step = max(1, chunk_bytes // max(1, rows.shape[1] * rows.itemsize))
    return (slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step))


def each_chunk(function: Callable[[slice], None], rows: np.ndarray, threads: int | None = None) -> None:
    """Call a function of a few rows at a time, on so many threads, by default one per core."""
    threads = threads or n_cores()
    if threads == 1:
        deque(map(function, chunks(rows)), maxlen=0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            deque(pool.map(function, chunks(rows)), maxlen=0)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """A partition of rows into groups of equal rows, numbered in order of appearance."""

    labels: Int64[np.ndarray, " n"]  # group of each row
    first: Int64[np.ndarray, " groups"]  # first row of each group
    counts: Int64[np.ndarray, " groups"]  # rows in each group
    largest_code: UInt[np.ndarray, " n"]  # magnitude of each row's largest word: beyond max_code, NaN or infinity

    def select(self, over: str) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
        """Return the first row of each group in the selection, and how many rows each stands for.

        Selections are "black_holes" (groups of two rows and more, once each), "unique" (all groups, once each), and
        "tokens" (all groups, as often as they have rows).
        """
        one_of(over, "rows", SELECTIONS)
        first = self.first[self.counts >= 2] if over == "black_holes" else self.first
        return first, self.counts if over == "tokens" else np.ones(len(first), np.int64)


def members_of(numbers: Int64[np.ndarray, " n"]) -> dict[int, Int64[np.ndarray, " k"]]:
    """Return the rows, ascending, that have each number; 0 is for rows in no set."""
    order = np.argsort(numbers, kind="stable")
    which, firsts = np.unique(numbers[order], return_index=True)
    return {int(number): rows for number, rows in zip(which, np.split(order, firsts[1:]), strict=True) if number}


@lru_cache(maxsize=8)
def row_keys(dim: int) -> UInt64[np.ndarray, " dim_plus_one"]:
    """Return random keys for hashes: no file can be crafted whose rows all collide, and no result depends on them."""
    return np.frombuffer(os.urandom(8 * dim + 8), np.uint64)


def identical_rows(
    words: np.ndarray,
    *,
    bitwise: bool = False,
    rounded: Callable[[slice | np.ndarray], np.ndarray] | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Groups:
    """Group equal rows of a matrix of floating-point words, in memory or memory-mapped.

    Exact: rows share a group only after their words were compared. Expected cost one pass over the bytes.

    Parameters
    ----------
    words : [n, dim], uint8, uint16, uint32 or uint64 bit patterns
    bitwise : compare patterns; by default -0.0 equals 0.0 (a NaN equals the same NaN either way: refuse it beforehand)
    rounded : compare ``rounded(rows)`` instead, for a range or numbers of a few rows at a time; other words, of any
        number of columns
    threads : to hash with; by default one per core
    progress : called with the bytes of every chunk once it is hashed

    Examples
    --------
    >>> groups = identical_rows(np.array([[1, 0], [2, 0], [1, 0x8000]], np.uint16))
    >>> groups.labels, groups.counts
    (array([0, 1, 0]), array([2, 1]))
    """
    words = np.asarray(words)
    if words.ndim != 2 or words.dtype.kind != "u":
        raise InvalidInput(f"needs a 2-D array of unsigned words, got {words.dtype} {list(words.shape)}")
    n = len(words)
    kind = rounded(slice(0, 0)) if rounded else words[:0]  # rounding may change how many columns there are, too
    dtype = kind.dtype
    sign = dtype.type(1 << (8 * dtype.itemsize - 1))
    folded = dtype.type(0) if bitwise else sign
    keys = row_keys(kind.shape[1])
    hashes = np.empty(n, np.uint64)
    largest = np.empty(n, dtype)

    def hash_chunk(rows: slice) -> None:
        chunk = rounded(rows) if rounded else words[rows]
        _backends.grouping.hash_rows(chunk, keys, sign, folded, hashes[rows], largest[rows])
        if progress:
            progress(words[rows].nbytes)

    each_chunk(hash_chunk, words, 1 if words.nbytes <= 2 * CHUNK_BYTES else threads)
    labels, first = _group_rounded(hashes, folded, rounded) if rounded else _group(hashes, words, folded)
    counts = np.bincount(labels, minlength=len(first)).astype(np.int64)
    return Groups(labels=labels, first=first, counts=counts, largest_code=largest)


def _group(hashes: np.ndarray, words: np.ndarray, folded: np.unsignedinteger) -> tuple[np.ndarray, np.ndarray]:
    """Return the group of each row and the first row of each group."""
    n = len(hashes)
    labels, first = np.empty((2, n), np.int64)
    table = np.full(1 << max(4, (2 * n - 1).bit_length()), -1)
    return labels, first[: _backends.grouping.group_hashed(hashes, words, folded, table, labels, first)]


def _group_rounded(
    hashes: np.ndarray, folded: np.unsignedinteger, rounded: Callable[[slice | np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and first rows, rounding again only the rows whose hash is not alone."""
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    shared = np.flatnonzero(counts[inverse] > 1)
    local, first = _group(hashes[shared], rounded(shared), folded)
    leader = np.arange(len(hashes))
    leader[shared] = shared[first[local]]
    firsts, labels = np.unique(leader, return_inverse=True)
    return labels.astype(np.int64), firsts
