"""Deviates: quantiles against many digits, rows against a plain twin of the counters, dense draws against both."""

import math

import numpy as np
import pytest
from scipy import special
from twin import DENSE, RADIUS, TAIL, plain_index, plain_philox, plain_quantile, plain_row

from darkvocab.experiments.cloud import DISTRIBUTIONS, Snowball, draw
from darkvocab.numerics._backends import deviates

WHERE = (2**40 + 7, 3, 2**20 + 1)  # seed, point, trial


# Quantiles -----------------------------------------------------------------------------------------------------------


def probabilities(smallest):
    """Of the lower half, down to this one: evenly, by powers of two, and around the seams of the formulas."""
    rng = np.random.default_rng(1)
    powers = 2.0 ** -np.arange(1, -math.log2(smallest) + 1)
    seams = [0.075, math.exp(-25), math.exp(-(1.6**2))]
    around = [p * (1 + k * 1e-9) for p in seams for k in (-1, 0, 1)]
    near_the_middle = 0.5 - 2.0 ** -np.arange(2, 34)
    p = np.concatenate(
        [rng.uniform(0, 0.5, 100), powers, powers * rng.uniform(1, 2, len(powers)), around, near_the_middle]
    )
    return p[(p >= smallest) & (p < 0.5)]


def worst(quantile, exact, smallest):
    """Largest relative error on both sides of the middle."""
    mpmath = pytest.importorskip("mpmath")
    error = 0.0
    with mpmath.workdps(60):
        for p in probabilities(smallest).tolist():
            true = exact(mpmath, mpmath.mpf(p))
            error = max(error, abs(float((quantile(p - 0.5, p) + true) / true)))
            assert quantile(0.5 - p, p) == -quantile(p - 0.5, p)
    return error


def normal(mpmath, p):
    return mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * p)


def laplace(mpmath, p):
    return -mpmath.log(2 * p) / mpmath.sqrt(2)


def test_the_normal_quantile_is_right_to_fourteen_digits():
    assert worst(deviates.normal_quantile, normal, 1.4e-11) < 1e-14
    assert worst(deviates.far_normal_quantile, normal, 2.0**-65) < 1e-14


def test_the_laplace_quantile_is_right_to_fifteen_digits():
    assert worst(deviates.laplace_quantile, laplace, 2.0**-65) < 2e-15


def test_the_logarithm_is_right_to_fifteen_digits():
    mpmath = pytest.importorskip("mpmath")
    x = np.concatenate([probabilities(2.0**-65), 2 * probabilities(2.0**-65), 1 - 2.0 ** -np.arange(1, 50), [1.0, 2.0]])
    with mpmath.workdps(60):
        exact = [mpmath.log(mpmath.mpf(value)) for value in x.tolist()]
        ours = [deviates.log(value) for value in x.tolist()]
        errors = [abs((a - b) / b) if b else abs(a) for a, b in zip(ours, exact, strict=True)]
    assert max(errors) < 1e-15


def test_quantiles_by_hand():
    assert deviates.normal_quantile(0.475, 0.025) == pytest.approx(1.959963984540054, rel=1e-14)
    assert deviates.far_normal_quantile(-0.5, 1e-15) == pytest.approx(-7.941345326170998, rel=1e-14)
    assert deviates.laplace_quantile(0.25, 0.25) == pytest.approx(math.log(2) / math.sqrt(2), rel=1e-15)
    assert (deviates.normal_quantile(0.0, 0.5), deviates.laplace_quantile(0.0, 0.5)) == (0, 0)


# Rows ----------------------------------------------------------------------------------------------------------------


def compiled_row(row, dim, seed, point, trial, stream=0, is_laplace=False, kind=None):
    """What `draw_dense` draws of a row before it rounds."""
    words = np.empty((4, (dim + 3) // 4), np.uint32)
    z, rare = np.empty(dim + 4), np.empty(words.size, np.int64)
    where = (
        np.uint64(stream << 31),
        np.uint64(seed & 0xFFFFFFFF),
        np.uint64(seed >> 32),
        np.uint64(point),
        np.uint64(trial),
    )
    deviates.row_deviates(row, is_laplace, *where, words, rare, z[:dim])
    if kind in ("uniform-ball", "uniform-shell"):
        deviates.spread(row, kind == "uniform-ball", *where, z[:dim])
    return z[:dim]


@pytest.mark.parametrize("is_laplace", [False, True])
@pytest.mark.parametrize("stream", [0, 1])
@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 64, 999])
def test_a_row_equals_its_plain_twin(dim, stream, is_laplace):
    rows = [0, 1, 17, 2**20] if dim > 64 else range(12)
    for row in rows:
        plain, _ = plain_row(row, dim, *WHERE, stream, is_laplace)
        assert compiled_row(row, dim, *WHERE, stream, is_laplace) == pytest.approx(plain, rel=1e-13, abs=0)


@pytest.mark.parametrize("is_laplace", [False, True])
def test_rare_words_are_given_more_bits(is_laplace):
    # Every 2,048th: of 16 rows of 2,560, about 20.
    found = 0
    for row in range(16):
        z = compiled_row(row, 2560, 5, 0, 0, is_laplace=is_laplace)
        plain, words = plain_row(row, 2560, 5, 0, 0, is_laplace=is_laplace)
        rare = np.flatnonzero([min(word, 2**32 - 1 - word) < 2**20 for word in words])
        coarse = [(min(words[d], 2**32 - 1 - words[d]) + 0.5) * 2.0**-32 for d in rare]
        coarse = np.log(2 * np.array(coarse)) / math.sqrt(2) if is_laplace else special.ndtri(coarse)
        assert z[rare] == pytest.approx(plain[rare], rel=1e-13, abs=0)
        assert (np.abs(z[rare]) != np.abs(coarse)).all()
        found += len(rare)
    assert found > 8


def test_words_at_the_seams_of_the_tails():
    words = np.array([0, 1, 2**20 - 1, 2**20, 2**31, 2**32 - 2**20 - 1, 2**32 - 2**20, 2**32 - 2, 2**32 - 1], np.uint32)
    z, rare = np.zeros(len(words)), np.empty(len(words), np.int64)
    zero = np.uint64(0)
    where = np.uint64(7), np.uint64(1 << 31), np.uint64(5), zero, np.uint64(2), np.uint64(3)
    deviates._tails(where[0], False, *where[1:], words, rare, z)
    more = [plain_philox((TAIL | d, 7 | 1 << 31, 2, 3), (5, 0))[0] for d in range(len(words))]
    plain = [plain_quantile(word, bits, False) for word, bits in zip(words.tolist(), more, strict=True)]
    rare_words = [0, 1, 2, 6, 7, 8]
    assert z[rare_words] == pytest.approx([plain[i] for i in rare_words], rel=1e-13, abs=0)
    assert z[[3, 4, 5]].tolist() == [0, 0, 0]
    assert z[0] < -6
    assert z[8] > 6


@pytest.mark.parametrize("is_laplace", [False, True])
def test_the_farthest_tails_are_followed(is_laplace):
    # The rarest word in every one of 3,000 columns: probabilities from 2**-32 down to about 2**-43.
    words, z, rare = np.zeros(3000, np.uint32), np.zeros(3000), np.empty(3000, np.int64)
    zero = np.uint64(0)
    deviates._tails(zero, is_laplace, zero, np.uint64(9), zero, zero, zero, words, rare, z)
    more = [plain_philox((TAIL | d, 0, 0, 0), (9, 0))[0] for d in range(3000)]
    assert z == pytest.approx(np.array([plain_quantile(0, bits, is_laplace) for bits in more]), rel=1e-14, abs=0)
    assert min(more) < 2**22


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_nothing_is_written_behind_a_row(dim):
    words, rare, zero = np.empty((4, (dim + 3) // 4), np.uint32), np.empty(8, np.int64), np.uint64(0)
    z = np.full(dim + 8, np.nan)
    for row in range(4000):
        deviates.row_deviates(row, False, zero, zero, zero, zero, zero, words, rare, z[:dim])
    assert np.isnan(z[dim:]).all()


@pytest.mark.parametrize("kind", ["uniform-ball", "uniform-shell"])
@pytest.mark.parametrize("dim", [1, 2, 7, 300])
def test_spread_rows_equal_their_plain_twin(kind, dim):
    seed, point, trial = WHERE
    for row in range(5):
        z, _ = plain_row(row, dim, *WHERE, stream=1)
        w = plain_philox((RADIUS, row | 1 << 31, point, trial), (seed & 0xFFFFFFFF, seed >> 32))
        uniform = (w[0] * 2**32 + w[1] + 0.5) * 2.0**-64
        radius = math.sqrt(dim + 2) * uniform ** (1 / dim) if kind == "uniform-ball" else math.sqrt(dim)
        plain = z / np.linalg.norm(z) * radius
        assert compiled_row(row, dim, *WHERE, stream=1, kind=kind) == pytest.approx(plain, rel=1e-12, abs=0)


# Dense draws ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arithmetic", ["float32", "exact"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(
    ("grid", "sigma"), [("bfloat16", 1e-5), ("float16", 3e-3), ("float32", 3e-3), ("float8_e5m2", 0.1)]
)
def test_a_dense_draw_is_its_deviates_through_the_chain(grid, sigma, distribution, arithmetic):
    rng = np.random.default_rng(1)
    base = (rng.standard_normal(51) * 10.0 ** rng.integers(-6, 1, 51)).astype(np.float32)
    snowball = Snowball(
        base=base, n_tokens=40, sigma=sigma, grid=grid, distribution=distribution, arithmetic=arithmetic
    )
    seed, point, trial = WHERE
    cloud = draw(snowball, seed=seed, point=point, trial=trial, sampler="dense")
    is_laplace = distribution == "laplace"
    z = np.array([compiled_row(row, 51, *WHERE, is_laplace=is_laplace, kind=distribution) for row in range(40)])
    assert cloud.sampler == "dense"
    assert np.array_equal(cloud.index(slice(None)), plain_index(base, z, sigma, grid, arithmetic))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_row_of_a_dense_draw_does_not_depend_on_how_many_are_drawn(distribution):
    base = np.linspace(0.01, 0.02, 33).astype(np.float32)
    few, many = (
        draw(Snowball(base=base, n_tokens=n, sigma=1e-3, distribution=distribution), seed=4, sampler="dense")
        for n in (5, 90)
    )
    assert np.array_equal(few.codes, many.codes[:5])
    assert len(np.unique(many.codes, axis=0)) == 90


def test_no_counter_is_used_for_two_purposes():
    # The rows, tails and radii of both streams and the three purposes of the sparse sampler, as the twins have them:
    # at the smallest and largest numbers that each can take. Words 2 and 3, the point and the trial, are the same.
    small, row, column = range(3), (0, 1, 2**31 - 1), (0, 1, 2**29 - 1)
    token_block, token = (0, 1, 2**28), (0, 1, 2**29 - 1)
    used = {
        "words 0": {(DENSE | b, r) for b in (*small, 2**29 - 1) for r in row},
        "words 1": {(DENSE | b, r | 1 << 31) for b in (*small, 2**29 - 1) for r in row},
        "tails 0": {(TAIL | d, r) for d in column for r in row},
        "tails 1": {(TAIL | d, r | 1 << 31) for d in column for r in row},
        "radius 0": {(RADIUS, r) for r in row},
        "radius 1": {(RADIUS, r | 1 << 31) for r in row},
        "lanes": {(b, c) for b in token_block for c in column},
        "ties": {(t, c | 1 << 30) for t in token for c in column},
        "gaps": {(b, c | 1 << 31) for b in token for c in column},
    }
    assert (int(deviates.DENSE), int(deviates.TAIL), int(deviates.RADIUS)) == (DENSE, TAIL, RADIUS)
    names = list(used)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert not used[one] & used[other], (one, other)


def test_the_two_streams_of_a_trial_differ_in_every_word():
    for dim in (5, 200):
        rows = [plain_row(row, dim, *WHERE, stream)[1] for row in range(20) for stream in (0, 1)]
        assert len({word for row in rows for word in row}) >= 40 * dim - 1  # two of 8,000 words may be equal by chance
