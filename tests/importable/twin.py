"""Plain twins that several tests hold compiled code against: Philox, deviates, the chain from noise to grid."""

import math

import ml_dtypes
import numpy as np

from darkvocab.numerics import GRIDS, encode, to_index

DTYPES = {
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
    "float32": np.float32,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}
DENSE, TAIL, RADIUS = 1 << 29, 2 << 29, 3 << 29  # what a dense draw's counters are for


def plain_philox(counter, key):
    """Philox4x32-10 in Python's integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def plain_laplace(word, more):
    """The deviate of a word; of a rare one, of 64 bits."""
    from_end = min(word, 2**32 - 1 - word)
    p = (from_end * 2**32 + more + 0.5) * 2.0**-64 if from_end < 2**20 else (from_end + 0.5) * 2.0**-32
    z = math.log(2 * p) / math.sqrt(2)
    return z if word < 2**31 else -z


def plain_turn(word):
    """Cosine and sine of (word + 1/2) / 2**32 of a full turn; what a quarter of it leaves is found in integers."""
    quarters, rest = divmod(word + 2**29, 2**30)
    x = (rest - 2**29 + 0.5) * math.tau / 2**32
    return [
        (math.cos(x), math.sin(x)),
        (-math.sin(x), math.cos(x)),
        (-math.cos(x), -math.sin(x)),
        (math.sin(x), -math.cos(x)),
    ][quarters % 4]


def plain_normals(word, angle, more):
    """Two deviates of a word for their radius, of 64 bits where it is rare, and one for their angle."""
    p = (word * 2**32 + more + 0.5) * 2.0**-64 if word < 2**20 else (word + 0.5) * 2.0**-32
    return [math.sqrt(-2 * math.log(p)) * part for part in plain_turn(angle)]


def plain_row(row, dim, seed, point, trial, stream=0, is_laplace=False):
    """A row's deviates: blocks of four words, laid out in four planes; rare words take a block of their own."""
    key = seed & 0xFFFFFFFF, seed >> 32

    def words(c0):
        return plain_philox((c0, row | stream << 31, point, trial), key)

    blocks = (dim + 3) // 4
    planes = list(zip(*(words(DENSE | block) for block in range(blocks)), strict=True))
    more = [[words(TAIL | plane * blocks + block)[0] for block in range(blocks)] for plane in range(4)]
    if is_laplace:
        z = [list(map(plain_laplace, *pair)) for pair in zip(planes, more, strict=True)]
    else:
        pairs = [list(map(plain_normals, planes[k], planes[k + 1], more[k])) for k in (0, 2)]
        z = [[pair[i] for pair in some] for some in pairs for i in (0, 1)]
    return np.concatenate(z)[:dim], [word for plane in planes for word in plane][:dim]


def plain_index(base, z, sigma, grid, arithmetic):
    """Ordered indices of ``grid(f32(base + f32(f32(z) * f32(sigma))))``, or of the float64 sum rounded once."""
    if arithmetic == "exact":
        return to_index(encode(base.astype(np.float64) + z * sigma, grid), grid)
    rows = base.astype(np.float32) + z.astype(np.float32) * np.float32(sigma)
    return to_index(rows.astype(DTYPES[grid]).view(GRIDS[grid].word_dtype), grid)


def chances(cells, j):
    """Probability, by its thresholds, of each run of active column `j`, from below; they sum to 1."""
    start, end = cells.edge_starts[j : j + 2]
    padded = np.concatenate([np.zeros(1, np.uint64), cells.thresholds[start:end], np.zeros(1, np.uint64)])
    return np.diff(padded) / 2.0**64  # unsigned differences wrap at 2**64, as the last cell needs
