"""Runs of cells, compiled: the grid values within reach of a component, neighbours together where noise cannot tell."""

from __future__ import annotations

from numba import njit

from .drawing import threshold
from .rounding import index_of, value_of


@njit(nogil=True, cache=True)
def _run_end(k, width, mantissa_bits, min_exponent):
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
def run_edges(low, high, width, mantissa_bits, min_exponent, max_code, starts, last):
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
def edge_deviates(base, starts, last, sigma, float32, mantissa_bits, min_exponent, out):
    """The `threshold` beyond each run but its column's last, whose place in `out` stays."""
    for d in range(base.size):
        for run in range(starts[d], starts[d + 1] - 1):
            out[run] = threshold(last[run] + 1, base[d], sigma, float32, mantissa_bits, min_exponent)
