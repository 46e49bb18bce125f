"""Exact totals: sums of many floats that do not depend on the order in which they are added."""

import math

INFINITE = 255  # exponent of float32


def exact_total(sums: dict[int, int]) -> float:
    """Return the sum of float32 numbers >= 0, rounded once, from the integer sum of the significands of each exponent.

    `sums` goes by the exponent's 8 bits; a significand has 24 bits, of a subnormal number fewer.

    Examples
    --------
    >>> exact_total({127: 3 << 23})  # thrice the significand of 1.0
    3.0
    """
    if sums.get(INFINITE):
        return math.inf
    return sum(total << max(exponent, 1) for exponent, total in sums.items()) / 2**150


def is_exact(n: int, largest: float, smallest: float) -> bool:
    """Return whether float64 adds n float32 numbers without rounding, in any order: zeros, or between these two.

    All are multiples of the last place of the smallest, and no partial sum has more than 53 bits of it.
    """
    if not (math.isfinite(largest) and n):
        return True
    last_place = math.ldexp(1.0, max(math.frexp(smallest)[1] - 24, -149)) if smallest else 2.0**-149
    return n * largest <= 2.0**53 * last_place
