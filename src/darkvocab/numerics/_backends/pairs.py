"""Chebyshev distances of all pairs, compiled: what `darkvocab.numerics.chebyshev` composes."""

from __future__ import annotations

import numpy as np
from numba import njit

from .rounding import float64_bits

FEW = 16  # distinct values of a column told apart by comparing each with each


@njit(nogil=True, cache=True)
def column_extents(x, extent, gap):  # type: ignore[no-untyped-def]
    """Largest and smallest non-zero distance between two values of each column (0 and infinity where it is constant).

    A column of more than `FEW` distinct values is left to the caller, with a gap of -1.
    """
    seen = np.empty(FEW)
    for d in range(x.shape[1]):
        count = 0
        smallest = np.inf
        low, high = x[0, d], x[0, d]
        for i in range(x.shape[0]):
            value = x[i, d]
            known = False
            for s in range(count):
                if seen[s] == value:
                    known = True
                    break
            if known:
                continue
            if count == FEW:
                smallest = -1.0
                break
            for s in range(count):
                smallest = min(smallest, abs(value - seen[s]))
            seen[count] = value
            count += 1
            low, high = min(low, value), max(high, value)
        extent[d] = high - low
        gap[d] = smallest


@njit(nogil=True, cache=True)
def cut_blocks(extent, gap, ends, uniform):  # type: ignore[no-untyped-def]
    """Cut columns of descending extent where no later one extends farther than the smallest gap since the last cut.

    ends [dim]: end of each block; uniform [dim]: the one distance that rows unequal in it have, 0 where there are
    several. Columns of one and the same distance stay together. Returns the number of blocks.
    """
    blocks = 0
    widest, smallest = 0.0, np.inf
    for d in range(extent.size):
        widest, smallest = max(widest, extent[d]), min(smallest, gap[d])
        if d + 1 < extent.size:
            alike = widest == smallest and extent[d + 1] == smallest and gap[d + 1] == smallest
            if extent[d + 1] > smallest or alike:
                continue
        ends[blocks] = d + 1
        uniform[blocks] = smallest if smallest == widest else 0.0
        blocks += 1
        widest, smallest = 0.0, np.inf
    return blocks


@njit(nogil=True, cache=True)
def refine(x, parents, weights):  # type: ignore[no-untyped-def]
    """Split groups of rows by the values of `x`: new group of every row, the first row of each, its weight in all."""
    n = x.shape[0]
    size = 16
    while size < 2 * n:
        size *= 2
    table = np.full(size, -1, np.int64)
    mask = np.uint64(size - 1)
    groups = np.empty(n, np.int64)
    first = np.empty(n, np.int64)
    sizes = np.zeros(n, np.int64)
    n_groups = 0
    for i in range(n):
        h = np.uint64(parents[i]) * np.uint64(0x9E3779B97F4A7C15)
        for d in range(x.shape[1]):
            h = (h ^ np.uint64(float64_bits(x[i, d]))) * np.uint64(0xD6E8FEB86659FD93)
            h ^= h >> np.uint64(32)
        slot = h & mask
        while True:
            group = table[slot]
            if group < 0:
                table[slot] = n_groups
                groups[i] = n_groups
                first[n_groups] = i
                n_groups += 1
                break
            row = first[group]
            same = parents[row] == parents[i]
            d = 0
            while same and d < x.shape[1]:
                same = x[row, d] == x[i, d]
                d += 1
            if same:
                groups[i] = group
                break
            slot = (slot + np.uint64(1)) & mask
        sizes[groups[i]] += weights[i]
    return groups, first[:n_groups], sizes[:n_groups]


@njit(nogil=True, cache=True)
def peel(x, ends, uniform, block, groups, sizes, weights, counts):  # type: ignore[no-untyped-def]
    """Take the blocks from `block` on in which all unequal rows are equally far apart; stop before one that is not so.

    Block b is the columns ``ends[b-1]:ends[b]`` of `x`; ``counts[b]`` becomes the number of pairs that differ in it and
    in none before. Returns the block to go on with, and the groups that agree so far with their weights.
    """
    while block < ends.size and uniform[block] > 0 and sizes.size < x.shape[0]:
        start = ends[block - 1] if block > 0 else 0
        together = 0
        for size in sizes:
            together += size * size
        groups, _, sizes = refine(x[:, start : ends[block]], groups, weights)
        for size in sizes:
            together -= size * size
        counts[block] = together // 2
        block += 1
    return block, groups, sizes


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"}, inline="always")
def _distance(a, b):  # type: ignore[no-untyped-def]
    top = 0.0
    for d in range(a.size):
        top = max(top, abs(a[d] - b[d]))
    return top


@njit(nogil=True, cache=True)
def pair_distances(rows, ends, sizes, u, v, distances, counts):  # type: ignore[no-untyped-def]
    """Distances of pairs (u, v), u < v < ends[u], in order from the pair given, until the output is full.

    rows [n, dim]; sizes [n]: a pair counts sizes[u] * sizes[v] times. Returns the next pair and how many were written;
    all pairs are done when u has reached n.
    """
    n = rows.shape[0]
    used = 0
    while u < n:
        while v < ends[u]:
            if used == distances.size:
                return u, v, used
            distances[used] = _distance(rows[u], rows[v])
            counts[used] = sizes[u] * sizes[v]
            used += 1
            v += 1
        u += 1
        v = u + 1
    return u, v, used


@njit(nogil=True, cache=True)
def count_distances(multiples, ends, sizes, counts):  # type: ignore[no-untyped-def]
    """counts[k] += sizes[u] * sizes[v] for every pair (u, v), u < v < ends[u], at distance k.

    multiples [dim, n] int16, not negative: column after column, so that a pass over v is one contiguous stream.
    """
    n = multiples.shape[1]
    furthest = np.empty(n, np.int16)
    for u in range(n):
        length = ends[u] - u - 1
        if length <= 0:
            continue
        far = furthest[:length]
        far[:] = 0
        for d in range(multiples.shape[0]):
            here = multiples[d, u]
            column = multiples[d, u + 1 : u + 1 + length]
            for v in range(length):
                far[v] = max(far[v], np.int16(abs(column[v] - here)))
        for v in range(length):
            counts[far[v]] += sizes[u] * sizes[u + 1 + v]
