"""The closed forms of L-infinity distances: by hand, by enumeration of all outcomes, and against drawn snowballs."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from darkvocab.measures.geometry import Geometry
from darkvocab.numerics import Distances, Touching, as_grid, encode, index_values, to_index
from darkvocab.snowballs.bases import qwen3_4b_centred, random
from darkvocab.snowballs.snowball import Snowball, SnowballLaw, draw
from darkvocab.snowballs.theory.distances import LInfinity, density

ALARM = 1e-6  # false alarms of a whole test, divided among its comparisons


def likely(cells, p, **changes):
    """Cells with these changes, and these probabilities in place of those of their deviates."""
    changed = dataclasses.replace(cells, deviates=np.full(len(p), np.nan), **changes)
    changed.__dict__["p"] = p
    return changed


def made(cells, chances, grid="bfloat16"):
    """Columns of single cells, from the ordered indices and probabilities of each."""
    one = SnowballLaw(base=np.array([1.0]), sigma=0.0, grid=as_grid(grid).name).cells(1)
    first, sizes = np.concatenate(cells), [len(column) for column in cells]
    return likely(
        one,
        columns=np.arange(len(cells)),
        starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        first=first.astype(np.int64),
        count=np.ones(len(first), np.int64),
        p=np.concatenate(chances).astype(float),
    )


def split(runs):
    """Every run of several cells as so many runs of one, equally probable."""
    offsets = [np.arange(n) for n in runs.count]
    cells = np.concatenate([[0], np.cumsum(runs.count)])
    return likely(
        runs,
        starts=cells[runs.starts],
        first=np.repeat(runs.first, runs.count) + np.concatenate(offsets),
        count=np.ones(cells[-1], np.int64),
        p=np.repeat(runs.p / runs.count, runs.count),
    )


def tiny():
    """Three columns of few cells: across a power of two, across zero, and in a binade. float8: 3 bits of mantissa."""
    base = np.array([1.01, 0.0003, 3.3])
    law = SnowballLaw(base=base, sigma=0.06, grid="float8_e4m3fn", arithmetic="exact", distribution="uniform")
    result = law.cells(4)
    assert result.columns.tolist() == [0, 1, 2]
    assert (result.count == 1).all()
    keep = []  # of the many cells around zero only the middle ones
    for j in range(3):
        cells = np.arange(result.starts[j], result.starts[j + 1])
        keep.append(cells[len(cells) // 2 - 2 :][:4])
    chances = [result.p[cells] + 0.01 for cells in keep]
    return made([result.first[c] for c in keep], [p / p.sum() for p in chances], result.grid)


def outcomes(runs, n_tokens, unit):
    """Return of every outcome of n tokens its probability, the distance of the first two tokens, the largest of all."""
    values = runs.first if unit == "steps" else index_values(runs.first, runs.grid)
    parts = [range(a, b) for a, b in itertools.pairwise(runs.starts)]
    chance, first_two, largest = np.ones(1), np.zeros(1), np.zeros(1)
    for part in parts:  # columns are independent: outcomes of one column after another
        held = np.array(list(itertools.product(part, repeat=n_tokens)))
        p, x = runs.p[held].prod(axis=1), values[held]
        apart, extent = np.abs(x[:, 0] - x[:, 1]), np.ptp(x, axis=1)
        chance = np.multiply.outer(chance, p).ravel()
        first_two = np.maximum.outer(first_two, apart).ravel()
        largest = np.maximum.outer(largest, extent).ravel()
    return chance, first_two, largest


def half_way(n_columns):
    """Columns half way between two grid values, that take either with probability 1/2."""
    return SnowballLaw(base=np.full(n_columns, 1 + 2.0**-8), sigma=1e-6, arithmetic="exact").cells(3)


@pytest.mark.slow
def test_two_columns_that_toss_a_coin_by_hand():
    law = LInfinity(half_way(2), 3, "steps")
    assert law.pair.cdf([-1, 0, 0.5, 1]) == pytest.approx([0, 1 / 4, 1 / 4, 1], abs=1e-15)
    assert law.pair.mean == pytest.approx(3 / 4)
    assert law.pair.std == pytest.approx(math.sqrt(3) / 4)
    assert law.pairs_within([0, 1]) == pytest.approx([3 / 4, 3])
    assert law.largest.cdf(0) == pytest.approx(1 / 16)  # three equal tosses 1/4 in a column
    assert law.largest.mean == pytest.approx(15 / 16)
    assert (law.pair.quantile(0.25 - 1e-9), law.pair.quantile(0.2501), law.pair.median) == (0, 1, 1)
    weight = LInfinity(half_way(2), 3, "weight")
    assert weight.largest.mean == pytest.approx(15 / 16 * 2**-7)
    assert weight.pair.cdf(2.0**-7, strict=True) == pytest.approx(1 / 4)


@pytest.mark.parametrize("unit", ["steps", "weight"])
@pytest.mark.parametrize("n_tokens", [2, 3, 4])
def test_distances_are_those_of_all_outcomes(unit, n_tokens):
    runs = tiny()
    if n_tokens == 4:  # two columns, or there are 16 million outcomes
        cells = [slice(a, b) for a, b in itertools.pairwise(runs.starts[:3])]
        runs = made([runs.first[c] for c in cells], [runs.p[c] for c in cells], runs.grid)
    law = LInfinity(runs, n_tokens, unit)
    chance, first_two, largest = outcomes(runs, n_tokens, unit)
    assert chance.sum() == pytest.approx(1, abs=1e-12)
    for one, seen in ((law.pair, first_two), (law.largest, largest)):
        attained = np.unique(seen)
        assert len(attained) >= 4
        for t in [*attained, *(attained + 1e-3)]:
            assert one.cdf(t) == pytest.approx(chance[seen <= t].sum(), abs=1e-12)
            assert one.cdf(t, strict=True) == pytest.approx(chance[seen < t].sum(), abs=1e-12)
        mean = chance @ seen
        assert one.mean == pytest.approx(mean, rel=1e-8)
        assert abs(one.mean - mean) <= one.mean_error + 1e-12
        assert one.std == pytest.approx(math.sqrt(chance @ (seen - mean) ** 2), rel=1e-6)
        for share in (0.001, 0.1, 0.5, 0.77, 0.999):
            assert one.quantile(share) == attained[np.array([chance[seen <= t].sum() for t in attained]) >= share][0]
    n_pairs = math.comb(n_tokens, 2)
    assert law.pairs_within(0) == pytest.approx(n_pairs * chance[first_two == 0].sum(), abs=1e-12)


def test_the_largest_distance_of_two_tokens_is_their_distance():
    made_at = SnowballLaw(base=random(300, 5) * np.float32(3e-3), sigma=3e-7).cells(2)
    single = np.diff(made_at.starts) < 100  # columns of single cells; the others know averages only
    assert single.sum() > 100
    for unit in ("steps", "weight"):
        law = LInfinity(made_at, 2, unit)
        t = np.concatenate([[0.0], np.geomspace(1e-7, 1, 200) * law.pair.runs.extent])
        assert law.largest.cdf(t) == pytest.approx(law.pair.cdf(t), rel=2e-4 if unit == "steps" else 1e-6)


@pytest.mark.parametrize("sigma", [1.5e-9, 5e-9, 1e-6, 3.28e-3])
def test_pairs_at_no_distance_are_the_coincident_pairs(sigma):
    n_tokens = 2100
    made_at = SnowballLaw(base=qwen3_4b_centred()[:400], sigma=sigma).cells(n_tokens)
    expected = math.log(math.comb(n_tokens, 2)) + made_at.log_power_sum(2)
    for unit in ("steps", "weight"):
        assert LInfinity(made_at, n_tokens, unit).log_pairs_within(0) == pytest.approx(expected, rel=1e-12, abs=1e-10)


def test_pairs_that_are_too_few_for_a_number_keep_their_logarithm():
    law = LInfinity(SnowballLaw(base=random(2560, 1) * np.float32(1e-3), sigma=1e-3).cells(2100), 2100)
    with np.errstate(under="ignore"):
        assert law.pairs_within(0) == 0
    assert -20_000 < law.log_pairs_within(0) < -10_000
    logs = law.log_pairs_within([0, 1, 100, 10_000])
    assert (np.diff(logs) > 0).all()


def test_one_token_has_no_distance():
    law = LInfinity(tiny(), 1)
    assert law.pairs_within([0, 10]).tolist() == [0, 0]
    assert law.largest.cdf(0) == pytest.approx(1)
    assert law.largest.median == 0


def test_without_noise_all_distances_are_zero():
    law = LInfinity(SnowballLaw(base=np.array([1.0, 2.0]), sigma=0.0).cells(10), 10, "weight")
    for one in (law.pair, law.largest):
        assert (one.mean, one.std, one.median, one.mean_error, float(one.cdf(0))) == (0, 0, 0, 0, 1)
    assert law.pairs_within(0) == pytest.approx(45)


@pytest.mark.parametrize("unit", ["steps", "weight"])
def test_the_largest_distance_grows_with_the_tokens_up_to_a_million_million(unit):
    base = random(200, 4) * np.float32(3e-3)
    means, medians = [], []
    for n_tokens in (1, 2, 10, 1e3, 1e6, 1e9, 1e12):
        largest = LInfinity(SnowballLaw(base=base, sigma=1e-6).cells(1e12), n_tokens, unit).largest
        means.append(largest.mean)
        medians.append(largest.median)
        assert math.isfinite(largest.std)
        assert largest.mean <= largest.runs.extent
    assert means == sorted(means)
    assert medians == sorted(medians)
    assert means[-1] > means[2] > 0


def test_a_million_million_tokens_fill_a_column_as_the_exponential_law_says():
    # Of N tokens none lies in a cell of probability p with probability (1 - p)**N, exp(-N p) for small p.
    n_tokens, rare = 1e12, 7e-13
    law = LInfinity(made([np.array([0, 1, 5])], [np.array([rare, 1 - rare - 2e-13, 2e-13])]), n_tokens).largest
    neither, low, high = math.exp(-0.9), math.exp(-0.2) * -math.expm1(-0.7), math.exp(-0.7) * -math.expm1(-0.2)
    assert law.cdf([0, 1, 4, 5]) == pytest.approx([neither, neither + low, neither + low + high, 1], rel=1e-9)


def wide(sigma=0.1, grid="float16"):
    """Columns with runs of several cells: within a binade and across many, none across zero."""
    return SnowballLaw(base=np.array([1.7, 0.9, -1.05]), sigma=sigma, grid=grid, arithmetic="exact").cells(2)


def test_two_tokens_in_one_run_by_hand():
    # Of n equally probable cells, n + 2 (n - 1) + ... + 2 (n - d) of n**2 pairs are no more than d apart.
    n, d = 10, np.arange(10)
    run = dataclasses.replace(made([np.array([100])], [np.ones(1)]), count=np.array([n]))
    expected = (n + d * (2 * n - d - 1)) / n**2
    assert LInfinity(run, 2, "steps").pair.cdf(d) == pytest.approx(expected, abs=1e-15)
    spacing = float(index_values([101], "bfloat16")[0] - index_values([100], "bfloat16")[0])
    assert LInfinity(run, 2, "weight").pair.cdf(d * spacing) == pytest.approx(expected, abs=1e-15)


@pytest.mark.slow
def test_a_quantile_is_the_least_distance_that_the_share_does_not_exceed():
    for unit in ("steps", "weight"):
        law = LInfinity(wide(), 50, unit)
        for one in (law.pair, law.largest):
            for share in (0.01, 0.3, 0.5, 0.9):
                result = one.quantile(share)
                step = 1 if unit == "steps" else 1e-8 * result
                assert one.cdf(result - step) < share <= one.cdf(result + (step if unit == "weight" else 0))


@pytest.mark.parametrize("unit", ["steps", "weight"])
def test_two_tokens_in_runs_are_as_in_their_equally_probable_cells(unit):
    runs = wide()
    assert runs.count.max() > 1
    law, cells = LInfinity(runs, 2, unit).pair, LInfinity(split(runs), 2, unit).pair
    t = np.concatenate([np.arange(12), [50, 333.5, 700]]) * (1 if unit == "steps" else 2.0**-11)
    assert law.cdf(t) == pytest.approx(cells.cdf(t), rel=1e-11)
    assert law.mean == pytest.approx(cells.mean, abs=law.mean_error + cells.mean_error)


def test_steps_across_zero_are_as_in_equally_probable_cells():
    runs = SnowballLaw(base=np.array([0.01, -0.02]), sigma=0.05, grid="float16", arithmetic="exact").cells(2)
    law, cells = LInfinity(runs, 2).pair, LInfinity(split(runs), 2).pair
    t = [0, 1, 7, 100, 5_000, 20_000, 25_000, 30_000]
    assert law.cdf(t) == pytest.approx(cells.cdf(t), rel=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
@pytest.mark.parametrize("unit", ["steps", "weight"])
def test_runs_move_the_law_by_less_than_they_are_wide(unit, distribution, monkeypatch):
    # All cells apart are exact. Two components' places in their runs: a sixteenth of sigma. The error is far smaller:
    # 2e-4 of a pair's probability, and of the largest distance 1e-4.
    def both(base):
        law = SnowballLaw(base=base, sigma=0.1, grid="float16", arithmetic="exact", distribution=distribution)
        return law.cells(2100)

    base = np.array([1.7, 0.9, 2.3])
    runs = both(base)
    monkeypatch.setattr("darkvocab.snowballs.snowball.RUN", 0.0)
    cells = both(base)
    assert runs.count.max() > 1 == cells.count.max()
    assert cells.count.sum() == runs.count.sum()
    shift = 0.1 / 16 if unit == "weight" else 2 * runs.count.max()
    rough, exact = LInfinity(runs, 2100, unit), LInfinity(cells, 2100, unit)
    t = np.linspace(0, exact.pair.runs.extent, 400)
    for a, b in ((rough.pair, exact.pair), (rough.largest, exact.largest)):
        assert (a.cdf(t - shift) <= b.cdf(t) + 1e-12).all()
        assert (a.cdf(t + shift) >= b.cdf(t) - 1e-12).all()
        assert a.mean == pytest.approx(b.mean, rel=1e-4, abs=a.mean_error + b.mean_error)
        assert a.median == pytest.approx(b.median, abs=1e-2 * shift if unit == "weight" else 2)
    assert rough.pair.log_cdf(t) == pytest.approx(exact.pair.log_cdf(t), abs=3 * 2e-4)


def test_runs_lose_less_than_a_ten_thousandth_of_a_columns_coincident_pairs(monkeypatch):
    base = np.array([0.003, 0.001, -0.002, 0.0005])
    rough = LInfinity(SnowballLaw(base=base, sigma=3.28e-3).cells(2100), 2100).log_pairs_within(0)
    monkeypatch.setattr("darkvocab.snowballs.snowball.RUN", 0.0)
    exact = LInfinity(SnowballLaw(base=base, sigma=3.28e-3).cells(2100), 2100).log_pairs_within(0)
    assert abs(rough - exact) < 1e-4 * len(base)


def test_touching_is_as_measured_at_every_distance_that_occurs():
    # All pairs of cells, measured: at, just below and just above each distance, in both units and inequalities.
    runs = tiny()
    cells = [np.arange(a, b) for a, b in itertools.pairwise(runs.starts)]
    rows = np.array(list(itertools.product(*cells)))
    chance, index = runs.p[rows].prod(axis=1), runs.first[rows]
    for unit in ("steps", "weight"):
        apart = np.zeros((len(rows), len(rows)))
        for first, block in Distances(index, runs.grid, unit=unit).blocks():
            apart[first : first + len(block), first:] = np.triu(block[:, : len(rows) - first], 1)
        apart += apart.T
        for t in np.unique(apart)[1::3]:
            for threshold in (float(t), np.nextafter(t, np.inf), np.nextafter(t, 0)):
                for strict in (False, True):
                    near = apart < np.float32(threshold) if strict else apart <= np.float32(threshold)
                    expected = chance @ near @ chance
                    assert density(runs, Touching(threshold, unit, strict)) == pytest.approx(expected, abs=1e-12)


def test_touching_knows_that_float32_rounds_differences():
    # Above 0.5 of a float32 spacing a difference of 1 + ... rounds up, at 0.5 to the even neighbour.
    def touch(low, high, threshold, strict=False):
        cells = to_index(encode([low, high], "bfloat16"), "bfloat16")
        measured = Distances(cells[:, None], "bfloat16").within(threshold, strict=strict)
        theory = density(made([cells], [np.array([0.5, 0.5])]), Touching(threshold, strict=strict))
        assert theory == (1 if measured else 0.5)
        return bool(measured)

    assert touch(-1e-30, 2.0**-17, 2.0**-17)  # 2**-17 in float32, and not as near in truth
    assert not touch(-1e-30, 2.0**-17, 2.0**-17, strict=True)
    assert touch(-(2.0**-24), 1.0, 1.0)
    assert not touch(-3 * 2.0**-24, 1.0, 1 + 2.0**-23)
    assert touch(-3 * 2.0**-24, 1.0, 1 + 2.0**-22)


GRIDS = {"bfloat16": 3e-3, "float16": 3e-3, "float8_e4m3fn": 1.0}  # and how large a base's components are
REGIMES = {"collapsed": 0.003, "middle": 0.2, "dispersed": 30.0}  # sigma over the base's median spacing


@pytest.mark.slow
@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("grid", GRIDS)
def test_drawn_snowballs_have_these_distances(grid, regime, distribution):
    # Means over 150 trials, over their standard errors, are about Student's t with 149 degrees; where few trials
    # differ, Bernstein's second term holds, for what one pair adds (for the largest, the law's own deviation). The
    # largest follows its law by the inequality of Dvoretzky, Kiefer, Wolfowitz and Massart, which holds for any law.
    # Bonferroni over all comparisons: a false alarm about 1e-6 a case.
    n_tokens, trials, n_compared = 30, 150, 12
    base = random(80, 6) * np.float32(GRIDS[grid])
    ball = Snowball(base=base, n_tokens=n_tokens, sigma=1.0, grid=grid, distribution=distribution)
    ball = dataclasses.replace(ball, sigma=REGIMES[regime] * ball.median_ulp)
    if grid == "float8_e4m3fn" and regime == "dispersed":
        ball = dataclasses.replace(ball, sigma=8 * ball.median_ulp)  # or laplace overflows
    law = ball.cells(n_tokens)
    laws = {unit: LInfinity(law, n_tokens, unit) for unit in ("steps", "weight")}
    usual = {unit: one.pair.median or one.largest.median or 1.0 for unit, one in laws.items()}
    touching = [Touching(t, unit, strict) for unit, t in usual.items() for strict in (False, True)]
    seen = []
    for trial in range(trials):
        cloud = draw(ball, seed=17, trial=trial)
        geometry = Geometry(cloud.index(), grid, over="tokens")
        values = []
        for unit in laws:
            values += [geometry.distances(unit).spread.mean, geometry.distances(unit).spread.max]
        values += [geometry.distances(t.unit).within(t.threshold, strict=t.strict) for t in touching]
        seen.append([*values, geometry.in_steps.within(0)])
    seen = np.array(seen)
    n_pairs = math.comb(n_tokens, 2)
    expected = []  # mean, standard deviation if known, and what one pair adds
    for one in laws.values():
        expected += [(one.pair.mean, 0, one.largest.mean / n_pairs), (one.largest.mean, one.largest.std, 0)]
    expected += [(density(law, t) * n_pairs, 0, 1) for t in touching]
    expected.append((float(laws["steps"].pairs_within(0)), 0, 1))
    bound, rare = stats.t.isf(ALARM / n_compared / 2, trials - 1), math.log(2 * n_compared / ALARM) / trials
    for (mean, std, one_pair), result in zip(expected, seen.T, strict=True):
        error = bound * max(result.std(ddof=1), std) / math.sqrt(trials) + rare * one_pair
        assert abs(result.mean() - mean) <= error + 1e-7 * mean, (mean, result.mean(), error)
    reach = math.sqrt(math.log(2 * n_compared / ALARM) / (2 * trials))
    for one, column in zip(laws.values(), (1, 3), strict=True):
        largest, counts = np.unique(seen[:, column], return_counts=True)
        step = 1e-6 * largest  # distances were rounded to float32
        upto = np.cumsum(counts) / trials
        assert np.abs(one.largest.cdf(largest + step) - upto).max() < reach
        assert np.abs(one.largest.cdf(largest - step) - (upto - counts / trials)).max() < reach


@pytest.mark.slow
def test_wide_columns_are_as_the_continuous_law_says():
    # Far above the grid's spacing: the largest of 300 differences of two deviates, and of 300 ranges of 2,100.
    sigma, n_tokens, dim = 0.02, 2100, 300
    law = LInfinity(
        SnowballLaw(base=random(dim, 2) * np.float32(1e-2), sigma=sigma, grid="float16").cells(n_tokens),
        n_tokens,
        "weight",
    )
    t, x = np.linspace(0, 12, 2001), np.linspace(-8, 8, 2001)
    pair = (1 - 2 * stats.norm.sf(t / math.sqrt(2))) ** dim
    inside = stats.norm.cdf(x + t[:, None]) - stats.norm.cdf(x)
    with np.errstate(under="ignore"):
        ranges = np.trapezoid(n_tokens * stats.norm.pdf(x) * inside ** (n_tokens - 1), x, axis=1)
        largest = np.minimum(ranges, 1) ** dim
    assert law.pair.mean == pytest.approx(np.trapezoid(1 - pair, t) * sigma, rel=2e-4)
    assert law.largest.mean == pytest.approx(np.trapezoid(1 - largest, t) * sigma, rel=2e-4)


def test_what_makes_no_sense_is_refused():
    runs = half_way(1)
    with pytest.raises(ValueError, match="unknown unit 'ulps'; choose one of weight, steps"):
        LInfinity(runs, 2, "ulps")
    with pytest.raises(ValueError, match="n_tokens must be >= 1, got 0"):
        LInfinity(runs, 0)
    with pytest.raises(ValueError, match="got NaN"):
        LInfinity(runs, 2).pair.cdf(math.nan)
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        LInfinity(runs, 2).pair.quantile(1.5)
