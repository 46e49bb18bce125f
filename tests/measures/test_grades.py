"""Grades: weak tokens by the trained ones' own lower tail, rows near zero, copies, directions, and the worse side."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file
from untrained import two_populations

from darkvocab import EmbeddingMatrix, scan
from darkvocab.measures.census import Census
from darkvocab.measures.dark import TRAINED, UNTRAINED, WEAK, graded, judge
from darkvocab.measures.indicators import BLACK_HOLES, DIRECTION, indicators, rows_near_zero
from darkvocab.numerics.populations import LowerTail, lower_tail

# Lists of 5,000 numbers of one population; `lower_tail` may count some as low with a chance of 1 in 1,000.
ONE_POPULATION = {
    "normal": lambda rng: rng.normal(0, 0.1, 5_000),
    "exponential": lambda rng: -rng.exponential(1, 5_000),  # the bound is met: the worst case
    "gumbel": lambda rng: -rng.gumbel(0, 1, 5_000),
    "lengths": lambda rng: np.log(np.linalg.norm(rng.normal(0, 1, (5_000, 16)), axis=1)),
    "beta": lambda rng: np.log(np.hypot(0.1, rng.beta(3, 1, 5_000))),
}


@pytest.mark.parametrize("name", ONE_POPULATION)
def test_a_population_explains_its_own_lower_tail(name):
    """50 lists each: more than two with low numbers have a chance below 2e-5 at the stated odds."""
    rng = np.random.default_rng(11)
    assert sum(lower_tail(ONE_POPULATION[name](rng)).n_below > 0 for _ in range(50)) <= 2


@pytest.mark.parametrize("n_low", [5, 40, 400])
def test_numbers_below_a_tail_are_counted_and_few_others(n_low):
    rng = np.random.default_rng(n_low)
    others = rng.normal(0, 0.1, 10_000)
    low = rng.uniform(-3, -0.8, n_low)
    tail = lower_tail(np.concatenate([others, low]))
    assert n_low - 1 <= tail.n_below <= n_low + 3
    assert tail.expected < max(1, 0.2 * n_low)
    assert tail.bound < -0.4


def test_low_numbers_that_the_population_alone_makes_as_often_as_the_odds_say_are_none():
    """About one of 10,000 exponential numbers lies as low as the first 5, and 0.0007 as low as the others."""
    rng = np.random.default_rng(5)
    others = -rng.exponential(1, 10_000)
    assert lower_tail(np.concatenate([others, rng.uniform(-9.5, -8.5, 5)])).n_below == 0
    low = np.concatenate([others, rng.uniform(-17, -16, 5)])
    assert lower_tail(low).n_below == 5
    assert lower_tail(low, odds=1e-30).n_below == 0


@pytest.mark.parametrize("name", ONE_POPULATION)
def test_no_more_of_the_population_are_counted_than_stated(name):
    """20 lists, each with 200 numbers around and below the population's own lowest; the seed is fixed."""
    rng = np.random.default_rng(7)
    stated = wrong = 0.0
    for _ in range(20):
        others = ONE_POPULATION[name](rng)
        low = np.min(others) + np.std(others) * rng.uniform(-3, 0.5, 200)
        tail = lower_tail(np.concatenate([others, low]))
        stated += tail.expected
        wrong += (others <= tail.bound).sum()
    assert wrong <= stated


def test_a_tail_that_reaches_as_far_says_so():
    rng = np.random.default_rng(2)
    assert lower_tail(rng.normal(0, 0.1, 10_000), at=-2.0).reaching < 1
    assert lower_tail(-rng.exponential(1, 10_000), at=-2.0).reaching > 100


def half_trained(seed, *, n_trained=8_000, n_weak=60, n_untrained=100, dim=64):
    """Rows around one point: noise alone, a tenth to a quarter of the trained displacement, and all of it."""
    rng = np.random.default_rng(seed)
    share = np.concatenate([np.zeros(n_untrained), rng.uniform(0.1, 0.25, n_weak), rng.normal(1, 0.08, n_trained)])
    rows = rng.normal(0, 0.02, dim) + share[:, None] * rng.normal(0, 0.06, (len(share), dim))
    rows += rng.normal(0, 0.001, rows.shape)
    truth = np.repeat([UNTRAINED, WEAK, TRAINED], [n_untrained, n_weak, n_trained])
    return rows.astype(np.float32), truth


def test_half_trained_rows_are_weak_and_only_those():
    """Five vocabularies of 60 weak rows: recall and precision, 0.95 and 0.97 at least; each seed gave 0.98 or more."""
    for seed in range(5):
        rows, truth = half_trained(seed)
        shown = indicators(rows, {"known": np.arange(20)})
        matrix = EmbeddingMatrix.from_array(rows)
        grade = graded("both", matrix, Census(matrix.groups()), shown).grade
        assert (grade[truth == WEAK] == WEAK).mean() >= 0.95
        assert (truth[grade == WEAK] == WEAK).mean() >= 0.97
        assert (grade[truth == UNTRAINED] == UNTRAINED).mean() >= 0.95


def test_of_an_untied_model_a_token_is_weak_that_is_so_on_either_side(tmp_path):
    """Rows 100 to 160 are weak in the input; in the output 130 to 160 and 1,000 to 1,030."""
    inputs, outputs = half_trained(1)[0], half_trained(2)[0]
    inputs[1:100], outputs[1:100] = inputs[0], outputs[0]
    outputs[[*range(100, 130), *range(1_000, 1_030)]] = outputs[[*range(1_000, 1_030), *range(100, 130)]]
    save_file({"model.embed_tokens.weight": inputs, "lm_head.weight": outputs}, tmp_path / "model.safetensors")
    judged = judge(EmbeddingMatrix.open(tmp_path))
    weak = np.flatnonzero(judged.grade == WEAK)
    assert len(np.setxor1d(weak, [*range(100, 160), *range(1_000, 1_030)])) <= 2
    assert [judged.side()[token] for token in (110, 150, 1_010)] == ["input", "both", "output"]


def test_where_rows_are_missed_none_is_said_to_be_weak_or_not():
    rows, _ = half_trained(0)
    matrix = EmbeddingMatrix.from_array(rows)
    side = graded("both", matrix, Census(matrix.groups()), indicators(rows, {"known": np.arange(20)}))
    tail = LowerTail(n_below=0, expected=0.0, bound=-np.inf, missed=112.7, reaching=0.1)
    assert replace(side, tail=tail).says.startswith("Cannot tell: some 113 rows more")
    assert replace(side, tail=replace(tail, missed=0.2)).says.startswith("None is weak")


def test_no_rare_word_is_weak_where_trained_rows_reach_to_the_untrained():
    """Rows moved by a beta(3, 1) share of their displacement run into the untrained ones: cannot tell."""
    rows = two_populations(3, 400, n_trained=8_000, dim=64)
    rows[1:200:2] = rows[0:200:2]
    (side,) = judge(EmbeddingMatrix.from_array(rows)).sides
    assert not (side.grade == WEAK).any()
    assert side.says.startswith("Cannot tell")


@pytest.mark.parametrize(("scale", "n"), [(1e-18, 40), (1e-7, 6), (0.0, 3)])
def test_rows_orders_of_magnitude_below_all_others_are_near_zero(scale, n):
    rng = np.random.default_rng(4)
    norms = np.linalg.norm(rng.normal(0, 0.1, (4_000, 64)), axis=1)
    norms[100 : 100 + n] *= scale
    assert rows_near_zero(norms).tolist() == list(range(100, 100 + n))


@pytest.mark.parametrize("norms", [[0.0] * 5, [1.0] * 5, [1.0, 0.02, 0.5], list(np.geomspace(1e-9, 1, 4_000))])
def test_norms_without_a_gap_have_no_rows_near_zero(norms):
    assert len(rows_near_zero(np.array(norms))) == 0


def normal(n=3_000, dim=32, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (n, dim)).astype(np.float32)


def test_of_an_untied_model_the_worse_side_counts_and_is_named(tmp_path):
    inputs, outputs = normal(), normal(seed=1)
    inputs[100:140] *= 1e-17
    outputs[200:240] = outputs[200]
    outputs[120:140] = outputs[200]
    save_file({"model.embed_tokens.weight": inputs, "lm_head.weight": outputs}, tmp_path / "model.safetensors")
    scanned = scan(tmp_path)
    tokens = scanned.tokens
    assert tokens.filter("dark")["id"].to_list() == [*range(100, 140), *range(200, 240)]
    assert tokens["side"][100] == "input"
    assert tokens["side"][120] == "both"
    assert tokens["side"][200] == "output"
    assert tokens["side"][0] is None
    assert [side.n_untrained for side in scanned.grades.sides] == [40, 60]
    assert scanned.grades.sides[0].near_zero == tuple(range(100, 140))
    assert scanned.n_never_emitted == 59


def test_copies_of_trained_rows_are_no_black_holes_of_untrained_ones():
    rows = normal()
    rows[10] = rows[20]
    (side,) = judge(EmbeddingMatrix.from_array(rows)).sides
    assert side.indicators.reference is None
    assert not side.grade.any()


def test_a_single_pair_nearer_to_the_mean_than_all_others_was_never_trained():
    rows = normal()
    rows[[10, 20]] = rows.mean(0)
    (side,) = judge(EmbeddingMatrix.from_array(rows)).sides
    assert side.indicators.reference.kind == BLACK_HOLES
    assert np.flatnonzero(side.grade == UNTRAINED).tolist() == [10, 20]


def test_rows_in_the_direction_of_one_are_found():
    rng = np.random.default_rng(8)
    rows = normal()
    rows[500:560] = rows[3] * rng.uniform(0.3, 2, (60, 1)) + rng.normal(0, 0.005, (60, 32))
    (side,) = judge(EmbeddingMatrix.from_array(rows)).sides
    assert side.indicators.reference.kind == DIRECTION
    assert np.flatnonzero(side.grade == UNTRAINED).tolist() == [3, *range(500, 560)]
