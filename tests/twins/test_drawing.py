"""The compiled chain from noise to grid against numpy, torch and exact arithmetic; Philox against known answers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from batches import one_column
from hypothesis import given
from hypothesis import strategies as st
from twin import chances, plain_index, plain_philox, plain_row

from darkvocab.numerics import GRIDS, encode, from_index, index_values, to_index
from darkvocab.numerics._backends import drawing
from darkvocab.numerics.cells import DISTRIBUTIONS
from darkvocab.snowballs.snowball import Snowball, draw, perturb

GRIDS_DRAWN = ("bfloat16", "float16", "float8_e4m3fn")


@pytest.mark.parametrize("grid", GRIDS_DRAWN)
@pytest.mark.parametrize("sigma", [1e-9, 1e-5, 3e-3, 0.7])
def test_float32_chain_equals_numpy(grid, sigma):
    rng = np.random.default_rng(1)
    base = (rng.standard_normal(50) * 10.0 ** rng.integers(-9, 1, 50)).astype(np.float32)
    z = rng.standard_normal((300, 50)).astype(np.float32)
    cloud = perturb(Snowball(base=base, n_tokens=300, sigma=sigma, grid=grid), z)
    assert np.array_equal(cloud.index(), plain_index(base, z, sigma, grid, "float32"))


def test_float32_chain_equals_torch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    base, z = torch.randn(64) * 0.01, torch.randn(500, 64)
    theirs = (base.unsqueeze(0) + z * 3e-5).to(torch.bfloat16)
    cloud = perturb(Snowball(base=base.numpy(), n_tokens=500, sigma=3e-5), z.numpy())
    assert np.array_equal(cloud.words(), theirs.view(torch.int16).numpy().view(np.uint16))


@given(base=st.floats(-2, 2), sigma=st.floats(1e-6, 0.1), z=st.floats(-6, 6))
def test_exact_chain_rounds_the_float64_sum_once(base, sigma, z):
    snowball = Snowball(base=np.array([base]), n_tokens=1, sigma=sigma, arithmetic="exact")
    index = perturb(snowball, np.array([[z]], np.float32)).index(np.array([0]))
    plain = to_index(encode(np.array([[base + np.float32(z) * sigma]]), "bfloat16"), "bfloat16")
    assert index.tolist() == plain.tolist()


def test_double_rounding_tells_the_two_arithmetics_apart():
    # The real sum lies a little below the boundary between 1 and its successor; in float32 it is on it, or above.
    boundary = 1 + 2.0**-8
    base, noise = np.array([np.nextafter(np.float32(boundary), np.float32(0))]), np.float32(2.0**-24 * 0.75)
    snowballs = (Snowball(base=base, n_tokens=1, sigma=1.0, arithmetic=a) for a in ("float32", "exact"))
    float32, exact = (int(perturb(s, np.array([[noise]])).index(np.array([0]))[0, 0]) for s in snowballs)
    assert (float32, exact) == (0x3F80, 0x3F80)  # the tie goes to even, that is down: both alike
    base = np.array([np.nextafter(np.float32(boundary), np.float32(2))])
    snowballs = (Snowball(base=base, n_tokens=1, sigma=1.0, arithmetic=a) for a in ("float32", "exact"))
    float32, exact = (
        int(perturb(s, np.array([[-noise * 2]], np.float32)).index(np.array([0]))[0, 0]) for s in snowballs
    )
    assert exact == 0x3F81
    assert float32 == 0x3F80


@pytest.mark.parametrize("arithmetic", ["float32", "exact"])
@pytest.mark.parametrize("grid", GRIDS_DRAWN)
@pytest.mark.parametrize("scale", [0.02, 1.0, 30.0])
def test_thresholds_reproduce_the_chain_for_any_noise(arithmetic, grid, scale):
    # Whatever z, the cell it lands in is the number of thresholds at or below it. Noise is drawn everywhere and put
    # right beside every threshold, where a wrong one would show.
    rng = np.random.default_rng(7)
    base = (rng.standard_normal(200) * 3e-2).astype(np.float32)
    if grid == "bfloat16":
        base[:3] = [2.0**-6, -(2.0**-5), np.nextafter(np.float32(2.0**-6), np.float32(0))]  # at powers of two
    sigma = scale * 2.0**-14
    result = Snowball(base=base, n_tokens=1000, sigma=sigma, grid=grid, arithmetic=arithmetic).single_cells()
    assert (result.count == 1).all()
    for j, d in enumerate(result.columns):
        edges = result.deviates[result.starts[j] : result.starts[j + 1] - 1]
        assert (np.diff(edges) >= 0).all()
        ulps = np.spacing(edges.astype(np.float32)).astype(np.float64)
        probes = np.concatenate([rng.uniform(-6, 6, 20), edges - 2 * ulps, edges + 2 * ulps])
        probes = probes[np.abs(probes) < 8].astype(np.float32)
        snowball = Snowball(base=base[[d]], n_tokens=len(probes), sigma=sigma, grid=grid, arithmetic=arithmetic)
        index = perturb(snowball, probes[:, None]).index()[:, 0]
        assert np.array_equal(index, result.low[j] + (probes[:, None] >= edges).sum(axis=1))
    assert len(result.columns) + len(result.unlisted) >= 1


def test_columns_left_out_do_not_move_within_reach():
    rng = np.random.default_rng(2)
    base = (rng.standard_normal(3000) * 1e-2).astype(np.float32)
    result = Snowball(base=base, n_tokens=100, sigma=4e-8).single_cells()
    still = np.setdiff1d(np.arange(3000), np.concatenate([result.columns, result.unlisted]))
    assert 100 < len(still) < 2950
    furthest = DISTRIBUTIONS["gaussian"].reach(100 * 3000)
    for z in (-furthest, furthest):
        snowball = Snowball(base=base[still], n_tokens=1, sigma=4e-8)
        index = perturb(snowball, np.full((1, len(still)), z, np.float32)).index(np.array([0]))[0]
        assert np.array_equal(index, result.home[still])


def test_cell_probabilities_are_differences_of_the_normal_distribution():
    base = np.array([1.0], np.float32)  # boundaries at 1 - 2**-9 below and 1 + 2**-8, 1 + 3 * 2**-8, ... above
    sigma = 2.0**-8
    result = Snowball(base=base, n_tokens=1, sigma=sigma, arithmetic="exact").single_cells()
    phi = [0.5 * math.erfc(-x / math.sqrt(2)) for x in (-0.5, 1.0, 3.0)]
    at = int(result.home[0] - result.low[0])
    p = chances(result, 0)
    assert p[at : at + 2] == pytest.approx([phi[1] - phi[0], phi[2] - phi[1]], rel=1e-12)
    assert p.sum() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("laplace", [False, True])
def test_words_of_a_distribution_are_exact_in_both_tails(laplace):
    mpmath = pytest.importorskip("mpmath")
    z = np.array([-26.0, -8.3, -5.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 5.0, 8.3, 26.0])
    words = np.empty(z.size, np.uint64)
    drawing.cdf_words(z, laplace, words)
    with mpmath.workprec(300):
        for x, word in zip(z.tolist(), words.tolist(), strict=True):
            far = abs(mpmath.mpf(x))
            tail = mpmath.exp(-far * mpmath.sqrt(2)) / 2 if laplace else mpmath.erfc(far / mpmath.sqrt(2)) / 2
            ours = word if x < 0 else 2**64 - word
            assert abs(ours - 2**64 * tail) <= max(1, 2**64 * tail * mpmath.mpf(2) ** -50)
    extremes = np.empty(2, np.uint64)
    drawing.cdf_words(np.array([-40.0, 40.0]), laplace, extremes)
    assert extremes.tolist() == [0, 2**64 - 1]


# Known answers of philox4x32-10 from the Random123 distribution (kat_vectors): counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_gives_the_known_answers(counter, key, result):
    assert drawing.philox(*(np.uint64(x) for x in counter + key)) == result


def plain_sparse(cells, n_tokens, seed, point, trial):
    """The sparse sampler token by token: a whole 64-bit uniform word for each, and none of the shortcuts."""
    key = seed & 0xFFFFFFFF, seed >> 32
    index = np.tile(cells.home[cells.columns], (n_tokens, 1))
    for j, column in enumerate(cells.columns.tolist()):
        edges = cells.thresholds[cells.edge_starts[j] : cells.edge_starts[j + 1]].tolist()
        low, home = int(cells.low[j]), int(cells.home[column] - cells.low[j])
        below = edges[home - 1] if home > 0 else 0
        above = edges[home] if home < len(edges) else 2**64
        away = below + 2**64 - above
        if away >= 2**59:
            for token in range(n_tokens):
                word, half = divmod(token % 1024 % 256, 2)
                lane = plain_philox((token // 1024 * 128 + word, column, point, trial), key)[token % 1024 // 256]
                w = plain_philox((token, column | 1 << 30, point, trial), key)
                u = (lane >> (16 * half) & 0xFFFF) << 48 | (w[0] & 0xFFFF) << 32 | w[1]
                index[token, j] = low + sum(u >= edge for edge in edges)
        elif away:
            token, block = -1.0, 0
            while True:
                w = plain_philox((block, column | 1 << 31, point, trial), key)
                block += 1
                uniform = ((w[0] << 20 | w[1] >> 12) + 0.5) * 2.0**-52
                token += 1.0 + math.floor(math.log(uniform) * (1.0 / math.log1p(-away * 2.0**-64)))
                if token >= n_tokens:
                    break
                u = (w[2] << 32 | w[3]) * away >> 64
                u = u if u < below else u - below + above
                index[int(token), j] = low + sum(u >= edge for edge in edges)
    return index


@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
@pytest.mark.parametrize(("seed", "point", "trial"), [(1, 0, 0), (2**40 + 7, 3, 2**20)])
def test_the_sparse_sampler_equals_its_plain_twin(seed, point, trial, distribution):
    rng = np.random.default_rng(12)
    base = (rng.standard_normal(60) * 1e-2).astype(np.float32)
    base[:10] = 2.0**-10 + np.arange(10) * 2.0**-17  # on the lattice: they leave seldom, to either side
    snowball = Snowball(base=base, n_tokens=2500, sigma=1.7e-6, distribution=distribution)
    result = snowball.single_cells()
    cloud = draw(snowball, seed=seed, point=point, trial=trial)
    drawn = np.flatnonzero(np.isin(cloud.columns, result.columns))
    index = cloud.index()[:, drawn]
    away = [1 - chances(result, j)[result.home[c] - result.low[j]] for j, c in enumerate(result.columns)]
    assert sum(p > 1 / 32 for p in away) > 5
    assert sum(1e-4 < p < 1 / 32 for p in away) > 10
    assert np.array_equal(index, plain_sparse(result, 2500, seed, point, trial))


@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_columns_of_very_many_cells_are_drawn_by_deviates_of_a_stream_of_their_own(distribution):
    # Around zero the grid is finer than any noise: a component there takes thousands of values.
    base = np.full(64, 2.0**-6, np.float32)
    base[[3, 40, 41, 63]] = [0.0, 1e-12, -1e-15, -1e-9]
    snowball = Snowball(base=base, n_tokens=300, sigma=1e-5, distribution=distribution)
    wide = [3, 40, 41, 63]
    assert snowball.single_cells().unlisted.tolist() == wide
    cloud = draw(snowball, seed=6, point=2, trial=1)
    z = np.array([plain_row(row, 4, 6, 2, 1, stream=1, is_laplace=distribution == "laplace")[0] for row in range(300)])
    plain = plain_index(base[wide], z, 1e-5, "bfloat16", "float32")
    assert cloud.sampler == "sparse"
    assert np.array_equal(cloud.words()[:, wide], from_index(plain, "bfloat16"))
    assert np.array_equal(cloud.index()[:, np.isin(cloud.columns, wide)], plain)
    rest = np.setdiff1d(np.arange(64), wide)
    assert np.abs(to_index(cloud.words()[:, rest], "bfloat16") - 0x3C80).max() == 1


def test_where_many_columns_have_very_many_cells_the_draw_is_dense():
    snowball = Snowball(base=np.zeros(16, np.float32), n_tokens=50, sigma=1e-5)
    sparse, dense = (draw(snowball, seed=6, sampler=sampler) for sampler in ("sparse", "dense"))
    assert (sparse.sampler, sparse.neglected) == ("dense", 50 * 16 * 2.0**-64)
    assert np.array_equal(sparse.words(), dense.words())
    z = np.array([plain_row(row, 16, 6, 0, 0)[0] for row in range(50)])
    assert np.array_equal(
        dense.words(), from_index(plain_index(snowball.base, z, 1e-5, "bfloat16", "float32"), "bfloat16")
    )


@pytest.mark.parametrize("distribution", ["uniform-ball", "uniform-shell"])
def test_components_that_depend_on_each_other_are_drawn_densely(distribution):
    ball = Snowball(base=np.full(16, 0.01, np.float32), n_tokens=20, sigma=1e-5, distribution=distribution)
    sparse, dense = (draw(ball, seed=6, sampler=sampler) for sampler in ("sparse", "dense"))
    assert (sparse.sampler, ball.has_cells) == ("dense", False)
    assert np.array_equal(sparse.words(), dense.words())


@pytest.mark.parametrize("grid", GRIDS)
def test_every_view_of_a_cloud_shows_the_same_rows(grid):
    rng = np.random.default_rng(3)
    base = (rng.standard_normal(100) * 1e-2).astype(np.float32)
    base[[7, 50]] = [0.0, 1e-12]
    snowball = Snowball(base=base, n_tokens=60, sigma=1e-6, grid=grid)
    for cloud in (
        draw(snowball, seed=2),
        draw(snowball, seed=2, sampler="dense"),
        perturb(snowball, rng.standard_normal((60, 100)).astype(np.float32)),
    ):
        index = to_index(cloud.words(), grid)
        assert np.array_equal(cloud.index(), index[:, cloud.columns])
        still = np.setdiff1d(np.arange(100), cloud.columns)
        assert (index[:, still] == cloud.home[still]).all()
        tokens, columns = rng.integers(0, 60, 500), rng.integers(0, 100, 500)
        assert np.array_equal(cloud.elements(tokens, columns), index[tokens, columns])
        assert sorted(cloud.groups().counts) == sorted(np.unique(index, axis=0, return_counts=True)[1])


@pytest.mark.parametrize("home", [0, 1, 2])
def test_ties_with_a_threshold_are_settled_by_further_bits(home):
    # Thresholds whose upper 16 bits nearly all tokens share with their word: 16 bits alone would decide nothing.
    edges = np.array([3 << 48 | 5 << 44, 3 << 48 | 11 << 44], np.uint64)
    result = one_column(100 + home, edges)
    out = np.zeros((400_000, 1), np.int8)
    drawing.draw_sparse(
        result.columns, result.low - result.home, result.edge_starts, edges, 5, 0, 0, 0, out, *drawing.room()
    )
    if home < 2:  # else it leaves home seldom, and is drawn by gaps
        cells = out[:, 0].astype(int) + home
        assert np.array_equal(cells[:30_000], plain_sparse(result, 30_000, 5, 0, 0)[:, 0] - 100)
    assert set(np.unique(out + home)) == {0, 1, 2}


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(1, 2**59))
def test_scaled_is_the_high_word_of_the_product(high, low, n):
    assert drawing._scaled(np.uint64(high), np.uint64(low), np.uint64(n)) == ((high << 32 | low) * n) >> 64


def test_one_token_more_changes_no_other_token():
    rng = np.random.default_rng(4)
    base = (rng.standard_normal(400) * 1e-2).astype(np.float32)
    few, many = (draw(Snowball(base=base, n_tokens=n, sigma=1e-7), seed=5) for n in (1500, 1501))
    columns = np.intersect1d(few.columns, many.columns)
    a = few.words()[:, columns]
    assert np.array_equal(a, many.words()[:1500, columns])
    assert (a != a[0]).any()


def test_seed_point_and_trial_each_make_another_snowball():
    base = np.full(200, 1.0 + 2.0**-8, np.float32)
    draws = [{}, {"seed": 1}, {"seed": 2**32}, {"point": 1}, {"trial": 1}]
    for sampler in ("sparse", "dense"):
        words = [draw(Snowball(base=base, n_tokens=40, sigma=1e-3), sampler=sampler, **d).words() for d in draws]
        assert all((a != b).mean() > 0.1 for i, a in enumerate(words) for b in words[:i])
        again = draw(Snowball(base=base, n_tokens=40, sigma=1e-3), sampler=sampler).words()
        assert np.array_equal(again, words[0])


@pytest.mark.parametrize("arithmetic", ["float32", "exact"])
@pytest.mark.parametrize("sigma", [1e38, 3e38, 1e300])
def test_noise_that_overflows_is_refused(arithmetic, sigma):
    snowball = Snowball(base=np.ones(3), n_tokens=5, sigma=sigma, arithmetic=arithmetic)
    with pytest.raises(ValueError, match="reaches beyond its largest value"):
        snowball.single_cells()
    with pytest.raises(ValueError, match="overflows bfloat16"):
        perturb(snowball, np.full((5, 3), 4.0, np.float32))
    for distribution in ("gaussian", "laplace", "uniform-ball", "uniform-shell"):
        ball = Snowball(
            base=np.ones(3), n_tokens=200, sigma=sigma * 4, arithmetic=arithmetic, distribution=distribution
        )
        with pytest.raises(ValueError, match="overflows bfloat16"):
            draw(ball, sampler="dense")


def test_an_unknown_sampler_is_refused():
    with pytest.raises(ValueError, match="unknown sampler 'notebook'; draw knows sparse and dense"):
        draw(Snowball(base=np.ones(3), n_tokens=5, sigma=1e-3), sampler="notebook")


def test_values_lie_on_the_grid_exactly():
    value = Fraction(float(index_values(0x3F81, "bfloat16")))
    assert value == 1 + Fraction(1, 128)
