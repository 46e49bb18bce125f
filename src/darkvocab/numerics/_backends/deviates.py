"""Random deviates, compiled: a counter-based generator, what makes its words deviates, and whole rows of a snowball.

Float64 operations in a fixed order, fused only where it says so: the same bits on every machine.
"""

import math

import numpy as np

from .compilation import kernel
from .rounding import EXPONENT, INTEGER_BITS, bits_of, fma, from_bits, index_of, perturbed

GAUSSIAN, LAPLACE, BALL, SHELL = range(4)
DENSE, TAIL, RADIUS = (np.uint64(flag << 29) for flag in (1, 2, 3))  # streams of a row: no counter is used twice
# Terms of the series of a sine and a cosine, highest power first: factorials.
SINE = -1307674368000, 6227020800, -39916800, 362880, -5040, 120, -6
COSINE = 20922789888000, -87178291200, 479001600, -3628800, 40320, -720, 24, -2, 1
# Words below the one or from the other on, whose probabilities are near 0 or 1, get 32 bits more.
LOW_TAIL, HIGH_TAIL = np.uint32(1 << 20), np.uint32(2**32 - (1 << 20))


@kernel(forceinline=True)
def philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10: four 32-bit words from a counter and a key.

    J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for _ in range(10):
        p0 = c0 * np.uint64(0xD2511F53)
        p1 = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & mask, (p0 >> half) ^ c3 ^ k1, p0 & mask
        k0 = (k0 + np.uint64(0x9E3779B9)) & mask
        k1 = (k1 + np.uint64(0xBB67AE85)) & mask
    return c0, c1, c2, c3


@kernel(forceinline=True)
def twice_artanh(s):
    """``log((1 + s) / (1 - s))`` by its series for abs(s) <= 3 - sqrt(8), whose logarithm is that of sqrt(2)."""
    t = s * s
    series = 1 / 17
    for term in (15, 13, 11, 9, 7, 5, 3):
        series = fma(series, t, 1 / term)
    return 2.0 * fma(s * t, series, s)


@kernel(forceinline=True)
def log(x):
    """Natural logarithm of a normal float64 > 0, without a branch: ``2 artanh((m - 1) / (m + 1)) + e log 2``."""
    bits = bits_of(x)
    exponent = from_bits(((bits & EXPONENT) >> 52) | INTEGER_BITS) - (2.0**52 + 1023)
    mantissa = from_bits((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000)
    high = mantissa > 1.4142135623730951
    mantissa = mantissa * 0.5 if high else mantissa
    exponent = exponent + 1.0 if high else exponent
    return fma(exponent, 0.6931471805599453, twice_artanh((mantissa - 1.0) / (mantissa + 1.0)))


@kernel(forceinline=True)
def log1p(x):
    """Logarithm of 1 + x for abs(x) <= 1/4."""
    return twice_artanh(x / (2.0 + x))


@kernel(forceinline=True)
def turn(word):
    """Cosine and sine of ``(word + 1/2) / 2**32`` of a full turn, by their series within an eighth of it."""
    quarter = np.uint32(word + np.uint32(1 << 29)) >> np.uint32(30)
    x = (np.float64(np.int32(word - (quarter << np.uint32(30)))) + 0.5) * (math.tau / 2**32)
    t = x * x
    sine = 1 / SINE[0]
    for term in SINE[1:]:
        sine = fma(sine, t, 1 / term)
    sine = fma(x * t, sine, x)
    cosine = 1 / COSINE[0]
    for term in COSINE[1:]:
        cosine = fma(cosine, t, 1 / term)
    across = (quarter & np.uint32(1)) != 0
    one, other = (sine, cosine) if across else (cosine, sine)
    one = -one if (quarter == np.uint32(1)) | (quarter == np.uint32(2)) else one
    return one, -other if quarter >= np.uint32(2) else other


@kernel(forceinline=True)
def normal_pair(p, angle):
    """Two standard normal deviates from a uniform 0 < p < 1 and a random word.

    G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", Annals of Mathematical
    Statistics 29, 1958.
    """
    radius = math.sqrt(-2.0 * log(p))
    cosine, sine = turn(angle)
    return radius * cosine, radius * sine


@kernel(forceinline=True)
def laplace_quantile(q, p):
    """Laplace deviate, of standard deviation 1, of the probability 1/2 + q, where p = 1/2 - abs(q)."""
    z = log(2.0 * p) * -0.7071067811865476
    return -z if q < 0 else z


@kernel()
def fill_words(first, c1, c2, c3, key0, key1, out):
    """Random words of blocks with the counters first, first + 1, ...: out [4, blocks] uint32."""
    for b in range(out.shape[1]):
        w0, w1, w2, w3 = philox(first + np.uint64(b), c1, c2, c3, key0, key1)
        out[0, b] = np.uint32(w0)
        out[1, b] = np.uint32(w1)
        out[2, b] = np.uint32(w2)
        out[3, b] = np.uint32(w3)


@kernel()
def _normals(words, z):
    for plane in (0, 2):
        for b in range(words.shape[1]):
            p = (np.float64(words[plane, b]) + 0.5) * 2.0**-32
            z[plane, b], z[plane + 1, b] = normal_pair(p, words[plane + 1, b])


@kernel()
def _laplaces(words, z):
    for plane in range(4):
        for b in range(words.shape[1]):
            q = (np.float64(words[plane, b]) - 2147483647.5) * 2.0**-32
            z[plane, b] = laplace_quantile(q, 0.5 - abs(q))


@kernel()
def _tails(row, laplace, stream, key0, key1, point, trial, words, z):
    """Redraw, from 64 bits, the deviates of words near the end of their range."""
    blocks = words.shape[1]
    for plane in range(0, 4, 1 if laplace else 2):
        lowest, highest = np.uint32(0xFFFFFFFF), np.uint32(0)
        for b in range(blocks):
            lowest = min(lowest, words[plane, b])
            highest = max(highest, words[plane, b])
        if (lowest >= LOW_TAIL) and (highest < HIGH_TAIL or not laplace):
            continue
        for b in range(blocks):
            word = words[plane, b]
            low = word < LOW_TAIL
            if not low and (word < HIGH_TAIL or not laplace):
                continue
            from_end = np.float64(word) if low else 4294967295.0 - np.float64(word)
            more, _, _, _ = philox(np.uint64(plane * blocks + b) | TAIL, row | stream, point, trial, key0, key1)
            p = (from_end * 2.0**32 + np.float64(more) + 0.5) * 2.0**-64
            if laplace:
                z[plane, b] = laplace_quantile(p - 0.5 if low else 0.5 - p, p)
            else:
                z[plane, b], z[plane + 1, b] = normal_pair(p, words[plane + 1, b])


@kernel()
def row_deviates(row, laplace, stream, key0, key1, point, trial, words, z):
    """Fill z [4, blocks] with independent deviates of standard deviation 1 for one row; words [4, blocks] is room.

    Every block has four words of 32 bits: for Laplace deviates the probability of each, for normal ones the radius of
    two (words 0 and 2) and their angle (1 and 3), so that no probability is off by more than 2**-30. Words near the end
    of a probability's range take 32 bits more from a counter of their own, so that tails are followed to 2**-65.
    """
    row = np.uint64(row)
    fill_words(DENSE, row | stream, point, trial, key0, key1, words)
    if laplace:
        _laplaces(words, z)
    else:
        _normals(words, z)
    _tails(row, laplace, stream, key0, key1, point, trial, words, z)


@kernel()
def spread(row, ball, stream, key0, key1, point, trial, z):
    """Turn one row of normal deviates into one that is uniform in a ball, or on a sphere, of deviation 1 a component.

    The radius of the sphere is sqrt(dim), of the ball sqrt(dim + 2).
    """
    total = 0.0
    for d in range(z.size):
        total += z[d] * z[d]
    radius = math.sqrt(z.size)
    if ball:
        w0, w1, _, _ = philox(RADIUS, np.uint64(row) | stream, point, trial, key0, key1)
        uniform = (np.float64(w0) * 2.0**32 + np.float64(w1) + 0.5) * 2.0**-64
        radius = math.sqrt(z.size + 2) * math.exp(math.log(uniform) / z.size)
    scale = radius / math.sqrt(total)
    for d in range(z.size):
        z[d] *= scale


@kernel()
def draw_dense(base, sigma, distribution, float32, stream, seed, point, trial, shape, out):
    """Ordered indices of rows ``round(base + sigma z)``: out [n, dim]. Returns the number of overflows.

    base [dim] float64; `float32`: z, sigma z and the sum are each rounded to float32 before the grid's rounding. Row i
    is a function of (seed, stream, point, trial, i) and of how many columns there are, and of nothing else.
    """
    mantissa_bits, min_exponent, max_code = shape  # of the grid
    n, dim = out.shape
    key0, key1 = np.uint64(seed & np.uint64(0xFFFFFFFF)), np.uint64(seed >> np.uint64(32))
    c1 = np.uint64(stream) << np.uint64(31)
    c2 = np.uint64(point)
    c3 = np.uint64(trial)
    words = np.empty((4, (dim + 3) // 4), np.uint32)
    planes = np.empty((4, (dim + 3) // 4))
    z = planes.reshape(-1)[:dim]
    overflows = 0
    for i in range(n):
        row_deviates(i, distribution == LAPLACE, c1, key0, key1, c2, c3, words, planes)
        if distribution >= BALL:
            spread(i, distribution == BALL, c1, key0, key1, c2, c3, z)
        for d in range(dim):
            index = index_of(perturbed(base[d], z[d], sigma, float32), mantissa_bits, min_exponent, max_code)
            overflows += abs(index) > max_code
            out[i, d] = index
    return overflows


@kernel()
def token_normals(tokens, attempts, seed, matrix, z):
    """Standard normal deviates of tokens, z [k, dim]: functions of (seed, token, attempt, matrix) and of dim."""
    dim = z.shape[1]
    key0, key1 = np.uint64(seed & np.uint64(0xFFFFFFFF)), np.uint64(seed >> np.uint64(32))
    words = np.empty((4, (dim + 3) // 4), np.uint32)
    planes = np.empty((4, (dim + 3) // 4))
    for i in range(tokens.size):
        attempt = np.uint64(attempts[i])
        row_deviates(tokens[i], False, np.uint64(0), key0, key1, attempt, np.uint64(matrix), words, planes)
        z[i] = planes.reshape(-1)[:dim]


@kernel()
def token_steps(tokens, attempts, most, seed, matrix, steps):
    """Whole numbers from 1 to `most` < 2**32 or from -1 to -most, all as likely, steps [k, dim]; as `token_normals`."""
    dim = steps.shape[1]
    key0, key1 = np.uint64(seed & np.uint64(0xFFFFFFFF)), np.uint64(seed >> np.uint64(32))
    words = np.empty((4, (dim + 3) // 4), np.uint32)
    stream = np.uint64(1 << 31)
    for i in range(tokens.size):
        fill_words(DENSE, np.uint64(tokens[i]) | stream, np.uint64(attempts[i]), np.uint64(matrix), key0, key1, words)
        flat = words.reshape(-1)
        for d in range(dim):
            length = 1 + np.int64((np.uint64(flat[d] >> np.uint32(1)) * np.uint64(most)) >> np.uint64(31))
            steps[i, d] = length if flat[d] & np.uint32(1) else -length
