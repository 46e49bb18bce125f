"""Deviates: formulas against many digits, rows against a plain twin of the counters, dense draws against both."""

import math

import numpy as np
import pytest
from twin import DENSE, RADIUS, TAIL, plain_index, plain_laplace, plain_normals, plain_philox, plain_row

from darkvocab.numerics._backends import deviates
from darkvocab.numerics.cells import DRAWN
from darkvocab.snowballs.snowball import Snowball, draw

WHERE = (2**40 + 7, 3, 2**20 + 1)  # seed, point, trial


# Formulas ------------------------------------------------------------------------------------------------------------


def probabilities():
    """Return probabilities of the lower half, down to 2**-65: evenly, by powers of two, and near the middle."""
    rng = np.random.default_rng(1)
    powers = 2.0 ** -np.arange(2, 66)
    near_the_middle = 0.5 - 2.0 ** -np.arange(2, 34)
    return np.concatenate([rng.uniform(0, 0.5, 100), powers, powers * rng.uniform(1, 2, len(powers)), near_the_middle])


def test_the_laplace_quantile_is_right_to_fifteen_digits():
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        for p in probabilities().tolist():
            true = mpmath.log(2 * mpmath.mpf(p)) / mpmath.sqrt(2)
            assert abs(deviates.laplace_quantile(p - 0.5, p) / true - 1) < 2e-15
            assert deviates.laplace_quantile(0.5 - p, p) == -deviates.laplace_quantile(p - 0.5, p)


def test_the_logarithm_is_right_to_fifteen_digits():
    mpmath = pytest.importorskip("mpmath")
    x = np.concatenate([probabilities(), 2 * probabilities(), 1 - 2.0 ** -np.arange(1, 50), [1.0, 2.0]])
    with mpmath.workdps(60):
        exact = [mpmath.log(mpmath.mpf(value)) for value in x.tolist()]
        ours = [deviates.log(value) for value in x.tolist()]
        errors = [abs((a - b) / b) if b else abs(a) for a, b in zip(ours, exact, strict=True)]
    assert max(errors) < 1e-15


def test_the_logarithm_near_one_is_right_to_fifteen_digits():
    mpmath = pytest.importorskip("mpmath")
    x = np.concatenate([2.0 ** -np.arange(2, 64), np.random.default_rng(1).uniform(0, 0.25, 300)])
    with mpmath.workdps(60):
        for value in np.concatenate([x, -x]).tolist():
            assert abs(deviates.log1p(value) / mpmath.log1p(mpmath.mpf(value)) - 1) < 1e-15


def test_cosine_and_sine_of_every_part_of_a_turn_are_right_to_fifteen_digits():
    mpmath = pytest.importorskip("mpmath")
    seams = [k * 2**29 + i for k in range(8) for i in (-2, -1, 0, 1)]  # eighths of a turn
    words = [word % 2**32 for word in seams] + np.random.default_rng(1).integers(0, 2**32, 300).tolist()
    with mpmath.workdps(60):
        for word in words:
            angle = 2 * mpmath.pi * (mpmath.mpf(word) + mpmath.mpf("0.5")) / 2**32
            cosine, sine = deviates.turn(np.uint32(word))
            assert abs(cosine / mpmath.cos(angle) - 1) < 1e-15
            assert abs(sine / mpmath.sin(angle) - 1) < 1e-15


def test_formulas_by_hand():
    assert deviates.laplace_quantile(0.25, 0.25) == pytest.approx(math.log(2) / math.sqrt(2), rel=1e-15)
    assert deviates.laplace_quantile(0.0, 0.5) == 0
    eighth = np.uint32(2**29)  # of a turn, and half a word's width
    assert deviates.turn(eighth) == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)), rel=1e-9)
    assert deviates.normal_pair(math.exp(-2), np.uint32(2**31 + 2**29)) == pytest.approx((-math.sqrt(2),) * 2, rel=1e-9)


# Rows ----------------------------------------------------------------------------------------------------------------


def compiled_row(row, dim, seed, point, trial, stream=0, is_laplace=False, kind=None):
    """Return the row that `draw_dense` draws, before it rounds."""
    words, planes = np.empty((4, (dim + 3) // 4), np.uint32), np.empty((4, (dim + 3) // 4))
    z = planes.reshape(-1)[:dim]
    where = (
        np.uint64(stream << 31),
        np.uint64(seed & 0xFFFFFFFF),
        np.uint64(seed >> 32),
        np.uint64(point),
        np.uint64(trial),
    )
    deviates.row_deviates(row, is_laplace, *where, words, planes)
    if kind in ("uniform-ball", "uniform-shell"):
        deviates.spread(row, kind == "uniform-ball", *where, z)
    return z


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
    # Every 4,096th word for a radius, every 2,048th for Laplace: of 32 rows of 2,560, about 10 and 40.
    result = 0
    for row in range(32):
        z = compiled_row(row, 2560, 5, 0, 0, is_laplace=is_laplace).reshape(4, -1)
        plain, words = plain_row(row, 2560, 5, 0, 0, is_laplace=is_laplace)
        plain, words = plain.reshape(4, -1), np.reshape(words, (4, -1))
        if is_laplace:
            rare = np.minimum(words, 2**32 - 1 - words) < 2**20
            coarse = np.array([plain_laplace(max(word, 2**20), 0) for word in words[rare].tolist()])
        else:
            rare = np.repeat(words[::2] < 2**20, 2, axis=0)
            coarse = math.sqrt(-2 * math.log(2.0**-12)) * np.ones(rare.sum())
            assert (np.hypot(z[::2], z[1::2])[rare[::2]] > coarse[::2]).all()
        assert z[rare] == pytest.approx(plain[rare], rel=1e-13, abs=0)
        result += int(rare.sum())
    assert result > 12


@pytest.mark.parametrize("is_laplace", [False, True])
def test_words_at_the_seams_of_the_tails(is_laplace):
    seams = [0, 1, 2**20 - 1, 2**20, 2**31, 2**32 - 2**20 - 1, 2**32 - 2**20, 2**32 - 2, 2**32 - 1]
    words, z = np.array([seams] * 4, np.uint32), np.zeros((4, len(seams)))
    zero = np.uint64(0)
    where = np.uint64(7), np.uint64(1 << 31), np.uint64(5), zero, np.uint64(2), np.uint64(3)
    deviates._tails(where[0], is_laplace, *where[1:], words, z)
    more = [[plain_philox((TAIL | k * 9 + d, 7 | 1 << 31, 2, 3), (5, 0))[0] for d in range(9)] for k in range(4)]
    plain = np.zeros((4, len(seams)))
    for d in [0, 1, 2, 6, 7, 8] if is_laplace else [0, 1, 2]:
        for k in range(4) if is_laplace else (0, 2):
            if is_laplace:
                plain[k, d] = plain_laplace(seams[d], more[k][d])
            else:
                plain[k : k + 2, d] = plain_normals(seams[d], seams[d], more[k][d])
    assert z == pytest.approx(plain, rel=1e-13, abs=0)
    assert (z[:, [0, 8 if is_laplace else 1]] != 0).all()


@pytest.mark.parametrize("is_laplace", [False, True])
def test_the_farthest_tails_are_followed(is_laplace):
    # The rarest word in every one of 3,000 columns: probabilities from 2**-32 down to about 2**-43.
    words, z = np.zeros((4, 750), np.uint32), np.zeros((4, 750))
    zero = np.uint64(0)
    deviates._tails(zero, is_laplace, zero, np.uint64(9), zero, zero, zero, words, z)
    more = [plain_philox((TAIL | d, 0, 0, 0), (9, 0))[0] for d in range(3000)]
    if is_laplace:
        assert z.reshape(-1) == pytest.approx(np.array([plain_laplace(0, bits) for bits in more]), rel=1e-14, abs=0)
    else:
        plain = np.array([plain_normals(0, 0, bits) for bits in more[:750] + more[1500:2250]])
        assert z[::2].reshape(-1) == pytest.approx(plain[:, 0], rel=1e-14, abs=0)
        assert z[1::2].reshape(-1) == pytest.approx(plain[:, 1], rel=1e-14, abs=0)
    assert min(more) < 2**22


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
@pytest.mark.parametrize("distribution", DRAWN)
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
    assert np.array_equal(cloud.index(), plain_index(base, z, sigma, grid, arithmetic))


@pytest.mark.parametrize("distribution", DRAWN)
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
