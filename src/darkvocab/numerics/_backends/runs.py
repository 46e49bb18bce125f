"""Runs of cells, compiled: the grid values within reach of a component, neighbours together where noise cannot tell."""

from __future__ import annotations

import numpy as np
from numba import njit

from .drawing import _float32_of, _perturbed
from .rounding import bits_of, index_of, value_of


@njit(nogil=True, cache=True)
def _run_end(k, width, mantissa_bits, min_exponent):  # type: ignore[no-untyped-def]
    """Last cell of the run that cell k begins: an aligned block of its binade no wider than `width`, or k alone.

    A power of two, whose cell is narrower than those above it, is always alone.
    """
    code, mantissa = abs(k), (1 << mantissa_bits) - 1
    if code & mantissa == 0:
        return k
    binade = max((code >> mantissa_bits) - 1, 0)
    size = 1
    while size < (1 << mantissa_bits) and 2 * size * value_of(1, 0, binade + min_exponent - mantissa_bits) <= width:
        size *= 2
    if k >= 0:
        return k | (size - 1)
    end = max(code & -size, 1)
    return -end if end & mantissa else -end - 1


@njit(nogil=True, cache=True)
def run_edges(low, high, width, mantissa_bits, min_exponent, max_code, starts, last):  # type: ignore[no-untyped-def]
    """Runs of every column's cells low..high; within 2**-12 of `width` around zero all cells are one run.

    starts [columns + 1]; last [runs] their last cells, or empty: count only.

    Returns the number of runs.
    """
    near = index_of(width * 2.0**-12, mantissa_bits, min_exponent, max_code)
    n = 0
    for d in range(low.size):
        starts[d] = n
        k = low[d]
        while k <= high[d]:
            end = near if abs(k) <= near else _run_end(k, width, mantissa_bits, min_exponent)
            end = min(end, high[d])
            if k < -near:
                end = min(end, -near - 1)
            if last.size:
                last[n] = end
            n += 1
            k = end + 1
    starts[low.size] = n
    return n


@njit(nogil=True, cache=True)
def _order(x):  # type: ignore[no-untyped-def]
    """Ordered index of a float32."""
    bits = np.int64(bits_of(x))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


@njit(nogil=True, cache=True)
def _reaches(order, base, sigma, boundary, upward_tie):  # type: ignore[no-untyped-def]
    x = _perturbed(base, np.float64(_float32_of(order)), sigma, True)
    return x > boundary or (upward_tie and x == boundary)


@njit(nogil=True, cache=True)
def edge_deviates(base, starts, last, sigma, float32, mantissa_bits, min_exponent, out):  # type: ignore[no-untyped-def]
    """The deviate from which a component lies beyond each run but its column's last, whose place in `out` stays.

    As `darkvocab.numerics._backends.drawing.cell_thresholds`: in the float32 chain the midpoint below the smallest
    float32 deviate that gets there, here searched for around the real number's threshold.
    """
    top = np.int64(0x49800000)  # ordered index of float32 2**20, beyond any deviate
    for d in range(base.size):
        for run in range(starts[d], starts[d + 1] - 1):
            k = last[run] + 1
            below = value_of(k - 1, mantissa_bits, min_exponent)
            boundary = (below + value_of(k, mantissa_bits, min_exponent)) / 2
            real = (boundary - base[d]) / sigma
            if not float32:
                out[run] = real
                continue
            upward_tie = k % 2 == 0
            start = _order(np.float32(min(max(real, -1048575.0), 1048575.0)))
            step = np.int64(1)
            if _reaches(start, base[d], sigma, boundary, upward_tie):
                hit, miss = start, max(start - step, -top)
                while miss > -top and _reaches(miss, base[d], sigma, boundary, upward_tie):
                    hit = miss
                    step *= 2
                    miss = max(start - step, -top)
            else:
                miss, hit = start, min(start + step, top)
                while hit < top and not _reaches(hit, base[d], sigma, boundary, upward_tie):
                    miss = hit
                    step *= 2
                    hit = min(start + step, top)
            while hit - miss > 1:
                middle = (hit + miss) >> 1
                if _reaches(middle, base[d], sigma, boundary, upward_tie):
                    hit = middle
                else:
                    miss = middle
            out[run] = (np.float64(_float32_of(miss)) + np.float64(_float32_of(hit))) / 2
