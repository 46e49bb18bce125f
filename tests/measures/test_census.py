"""Census: by hand, against a sort of the rows, and against the notebooks' own counts."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from darkvocab import EmbeddingMatrix, census
from darkvocab.errors import CorruptFile
from darkvocab.numerics import GRIDS, as_grid, from_index, round_to

VALUES = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0, 1.0078125, 3.0])
matrices = hnp.arrays(np.float32, st.tuples(st.integers(1, 25), st.integers(1, 3)), elements=VALUES)


def rows_of(*populations):
    """A matrix with groups of these populations, in this order."""
    return np.repeat(np.arange(len(populations), dtype=np.float32), populations)[:, None]


# By hand -------------------------------------------------------------------------------------------------------------


def test_a_census_by_hand():
    rows = np.array([[5], [7], [5], [9], [7], [5], [1], [9]], np.float32)  # 5 three times, 7 and 9 twice, 1 once
    c = census(rows)
    assert (c.n_tokens, c.n_unique, c.n_black_holes, c.n_singletons, c.black_hole_population) == (8, 4, 3, 1, 7)
    assert (c.largest_group, c.largest_black_hole, c.smallest_black_hole, c.top2_population) == (3, 3, 2, 5)
    assert (c.mean_population, c.lower_median_population) == (7 / 3, 2)
    assert c.populations.tolist() == [3, 2, 2]
    assert c.representatives.tolist() == [0, 1, 3]  # of equal populations, the first token first
    assert [x.tolist() for x in c.members()] == [[0, 2, 5], [1, 4], [3, 7]]
    assert [x.tolist() for x in c.population_spectrum()] == [[1, 2, 3], [1, 2, 1]]
    # Ascending 2 2 3: 2 (1*2 + 2*2 + 3*3) / (3 * 7) - 4 / 3
    assert c.gini == pytest.approx(30 / 21 - 4 / 3, rel=1e-14)


@pytest.mark.parametrize(
    ("populations", "median", "top2"),
    [((2,), 2, 2), ((2, 9), 2, 11), ((9, 2, 5), 5, 14), ((9, 2, 5, 7), 5, 16), ((1, 4, 1), 4, 4)],
)
def test_the_median_population_is_the_lower_of_two(populations, median, top2):
    c = census(rows_of(*populations))
    assert (c.lower_median_population, c.top2_population) == (median, top2)


def test_the_gini_coefficient_is_0_for_equals_and_near_1_for_one_that_has_nearly_all():
    assert census(rows_of(4, 4, 4, 4)).gini == pytest.approx(0, abs=1e-15)
    assert census(rows_of(2, 2, 2, 2, 10_000)).gini == pytest.approx(0.8, abs=1e-3)
    assert (census(rows_of(7)).gini, census(rows_of(1, 1)).gini) == (0, 0)


def test_without_black_holes_all_that_is_theirs_is_0():
    c = census(rows_of(1, 1, 1))
    assert (c.n_unique, c.n_black_holes, c.n_singletons, c.black_hole_population) == (3, 0, 3, 0)
    assert (c.largest_black_hole, c.smallest_black_hole, c.mean_population, c.lower_median_population) == (0, 0, 0, 0)
    assert (c.top2_population, c.gini, c.largest_group) == (0, 0, 1)
    assert (c.populations.tolist(), c.members(), c.representatives.tolist()) == ([], [], [])


def test_without_tokens_everything_is_0():
    c = census(np.empty((0, 3), np.float32))
    assert (c.n_tokens, c.n_unique, c.n_black_holes, c.n_singletons, c.largest_group, c.gini) == (0, 0, 0, 0, 0, 0)


def test_zeros_of_both_signs_are_one_row_unless_bits_are_compared():
    rows = np.array([[0.0, 1.0], [-0.0, 1.0]], np.float32)
    assert (census(rows).n_unique, census(rows, bitwise=True).n_unique) == (1, 2)


# Against a sort, and the notebooks -----------------------------------------------------------------------------------


@given(matrices)
def test_a_census_is_that_of_a_sort(rows):
    unique, counts = np.unique(rows + 0.0, axis=0, return_counts=True)
    c = census(rows)
    assert (c.n_tokens, c.n_unique, c.n_singletons) == (len(rows), len(unique), (counts == 1).sum())
    assert c.populations.tolist() == sorted(counts[counts >= 2].tolist(), reverse=True)
    assert (c.n_black_holes, c.black_hole_population) == ((counts >= 2).sum(), counts[counts >= 2].sum())
    assert c.largest_group == counts.max()
    sizes, groups = c.population_spectrum()
    assert dict(zip(sizes.tolist(), groups.tolist(), strict=True)) == {n: (counts == n).sum() for n in set(counts)}
    for population, first, tokens in zip(c.populations, c.representatives, c.members(), strict=True):
        assert tokens.tolist() == np.flatnonzero((rows == rows[first]).all(axis=1)).tolist()
        assert (first, population) == (tokens[0], len(tokens))
    firsts = c.representatives
    order = list(zip(-c.populations, firsts, strict=True))
    assert order == sorted(order)


@given(matrices)
def test_statistics_are_the_notebooks(rows):
    notebooks = pytest.importorskip("notebooks")
    theirs = notebooks.trial(notebooks.torch.from_numpy(rows), 1.0, 1.0)
    c = census(rows)
    ours = {
        "n_tokens": c.n_tokens,
        "n_unique": c.n_unique,
        "n_black_holes": c.n_black_holes,
        "n_singletons": c.n_singletons,
        "total_population": c.n_tokens,
        "black_hole_population": c.black_hole_population,
        "largest_bh": c.largest_black_hole,
        "smallest_bh": c.smallest_black_hole,
        "mean_bh_size": pytest.approx(c.mean_population, rel=1e-6),
        "median_bh_size": c.lower_median_population,
        "top2_population": c.top2_population,
        "gini_coefficient": pytest.approx(c.gini, abs=1e-6),
    }
    assert {name: theirs[name] for name in ours} == ours


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=40))
def test_statistics_of_large_populations_are_the_notebooks(populations):
    notebooks = pytest.importorskip("notebooks")
    holes = notebooks.torch.tensor([n for n in populations if n >= 2], dtype=notebooks.torch.int64)
    assert census(rows_of(*populations)).gini == pytest.approx(notebooks.gini(holes), abs=1e-5)


# What a census can be taken of ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_a_matrix_and_an_array_give_the_same(grid):
    index = np.random.default_rng(1).integers(-3, 4, (200, 2))
    words = from_index(index, grid)
    c = census(EmbeddingMatrix(words=words, grid=as_grid(grid)))
    counts = np.unique(index, axis=0, return_counts=True)[1]
    assert c.populations.tolist() == sorted(counts[counts >= 2], reverse=True)
    dtype = np.dtype(grid) if grid in ("float16", "float32") else np.dtype(getattr(ml_dtypes, grid))
    assert census(words.view(dtype)).populations.tolist() == c.populations.tolist()


def test_a_tensor_of_torch_gives_the_same():
    torch = pytest.importorskip("torch")
    rows = torch.randint(0, 3, (60, 2)).to(torch.bfloat16)
    assert census(rows).populations.tolist() == census(rows.float().numpy()).populations.tolist()


def test_every_token_has_the_number_of_its_black_hole():
    result = census(np.array([[1], [2], [3], [2], [1], [2], [4]], np.float32))
    assert result.numbers.tolist() == [2, 1, 0, 1, 2, 1, 0]
    for number, tokens in enumerate(result.members(), 1):
        assert np.flatnonzero(result.numbers == number).tolist() == tokens.tolist()


@given(hnp.arrays(np.float32, (12, 2), elements=st.floats(-2, 2, width=32)), st.sampled_from(sorted(GRIDS)))
def test_a_coarser_grid_is_rounded_to_first(rows, grid):
    assert census(rows, grid).populations.tolist() == census(round_to(rows, grid)).populations.tolist()


def test_float64_is_rounded_to_the_grid_that_is_given():
    assert census(np.array([[1.0], [1.0 + 2.0**-40]]), "bfloat16").n_unique == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused_with_their_tokens(bad):
    rows = np.ones((4, 2), np.float32)
    rows[2, 1] = bad
    with pytest.raises(CorruptFile, match=r"1 of 4 rows .* tokens 2"):
        census(rows)


def test_rows_that_overflow_the_grid_are_refused_with_their_tokens():
    with pytest.raises(ValueError, match=r"1 of 2 rows .* overflow float16 .* tokens 1; choose a wider grid"):
        census(np.array([[1.0], [1e5]], np.float32), "float16")


def test_arrays_that_are_no_rows_are_refused():
    with pytest.raises(ValueError, match="float64 is no grid"):
        census(np.ones((2, 2)))
    with pytest.raises(ValueError, match="needs rows"):
        census(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="unknown grid 'bf16'"):
        census(np.ones((2, 2), np.float32), "bf16")
