"""Geometry: by hand, against every pair in numpy, and against the notebooks' own distances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from darkvocab import EmbeddingMatrix
from darkvocab.measures.geometry import Geometry, geometry
from darkvocab.numerics import GRIDS, as_grid, decode, from_index, index_values

OVER = ("black_holes", "unique", "tokens")


@st.composite
def matrices(draw, grids=tuple(GRIDS), rows=12):
    """A grid and ordered indices: few values, so that rows coincide, or any, of both signs."""
    grid = draw(st.sampled_from(grids))
    home = draw(st.sampled_from([0, GRIDS[grid].max_code // 2, -GRIDS[grid].max_code // 2]))
    reach = draw(st.sampled_from([1, 2, GRIDS[grid].max_code // 4]))
    shape = draw(st.tuples(st.integers(1, rows), st.integers(1, 3)))
    return grid, home + draw(hnp.arrays(np.int64, shape, elements=st.integers(-reach, reach)))


def selected(index, over):
    """The rows asked for, in lexicographic order."""
    unique, counts = np.unique(index, axis=0, return_counts=True)
    return {"black_holes": unique[counts >= 2], "unique": unique, "tokens": np.repeat(unique, counts, axis=0)}[over]


def pairs(x):
    apart = np.abs(x[:, None] - x[None]).max(axis=2, initial=0)
    return np.sort(apart[np.triu_indices(len(x), 1)])


def summary(distances):
    n = len(distances)
    lower, upper = (float(distances[(n + k) // 2]) if n else 0.0 for k in (-1, 0))
    mean = pytest.approx(float(distances.mean(dtype=np.float64)) if n else 0.0, rel=1e-12, abs=0)
    return n, distances.max(initial=0), mean, lower, (lower + upper) / 2


def summarised(spread):
    return spread.n_pairs, spread.max, spread.mean, spread.lower_median, spread.median


# By hand -------------------------------------------------------------------------------------------------------------


def test_a_geometry_by_hand():
    # Tokens a a b c on the bfloat16 grid; a to b one step of 2**-7 above 1, a to c two of 2**-8 below, b to c three.
    rows = np.array([[1.0, 4.0], [1.0, 4.0], [1.0 + 2**-7, 4.0], [1.0 - 2**-7, 4.0]], np.float32)
    unique, tokens, holes = (geometry(rows, "bfloat16", over=over) for over in ("unique", "tokens", "black_holes"))
    assert summarised(unique.weight) == (3, 2**-6, pytest.approx(2**-5 / 3), 2**-7, 2**-7)
    assert summarised(unique.steps) == (3, 3, 2, 2, 2)
    assert summarised(tokens.steps) == (6, 3, 1.5, 1, 1.5)  # 0 1 1 2 2 3
    assert summarised(holes.weight) == (0, 0, 0, 0, 0)
    assert (unique.n_varying_columns, unique.extent.tolist(), unique.extent_steps.tolist()) == (1, [2**-6, 0], [3, 0])
    assert (holes.n_varying_columns, holes.extent.tolist(), holes.extent_steps.tolist()) == (0, [0, 0], [0, 0])
    assert [g.over for g in (unique, tokens, holes)] == ["unique", "tokens", "black_holes"]


def test_steps_cross_zero_and_powers_of_two():
    rows = np.array([[-(2.0**-133)], [2.0**-133]], np.float32)  # the smallest bfloat16 of either sign
    assert geometry(rows, "bfloat16").steps.max == 2
    assert geometry(np.array([[1.0], [4.0]], np.float32), "bfloat16").steps.max == 256


def test_without_rows_everything_is_0():
    for rows in (np.empty((0, 3), np.float32), np.array([[1, 2, 3], [4, 5, 6]], np.float32)):
        g = geometry(rows, over="black_holes")
        assert summarised(g.weight) == summarised(g.steps) == (0, 0, 0, 0, 0)
        assert (g.n_varying_columns, g.extent.tolist(), g.extent_steps.tolist()) == (0, [0] * 3, [0] * 3)


# Against every pair, and the notebooks -------------------------------------------------------------------------------


@pytest.mark.parametrize("over", OVER)
@given(matrices())
def test_a_geometry_is_that_of_every_pair(over, drawn):
    grid, index = drawn
    g = geometry(EmbeddingMatrix(words=from_index(index, grid), grid=as_grid(grid)), over=over)
    rows = selected(index, over)
    values = decode(from_index(rows, grid), grid)
    assert summarised(g.weight) == summary(pairs(values))
    assert summarised(g.steps) == summary(pairs(rows))
    spread = np.ptp(rows, axis=0) if len(rows) else np.zeros(index.shape[1])
    assert np.array_equal(g.extent_steps, spread)
    assert g.n_varying_columns == (spread > 0).sum()
    exact = index_values(rows, grid)
    assert np.array_equal(g.extent, np.ptp(exact, axis=0) if len(rows) else np.zeros(index.shape[1]))


@pytest.mark.parametrize("over", OVER)
@given(matrices(rows=20))
def test_distances_are_the_notebooks_to_the_bit(over, drawn):
    notebooks = pytest.importorskip("notebooks")
    grid, index = drawn
    g = geometry(EmbeddingMatrix(words=from_index(index, grid), grid=as_grid(grid)), over=over)
    rows = notebooks.torch.from_numpy(decode(from_index(selected(index, over), grid), grid))
    largest, mean, median = notebooks.l_inf(rows)
    assert (g.weight.max, g.weight.lower_median) == (largest, median)
    assert g.weight.mean == notebooks.float32_mean(mean)


@given(matrices(grids=("bfloat16",)), st.sampled_from(["float8_e4m3fn", "float8_e5m2"]))
def test_a_coarser_grid_is_rounded_to_first(drawn, grid):
    rows = np.clip(decode(from_index(drawn[1], "bfloat16"), "bfloat16"), -400, 400)
    coarse = EmbeddingMatrix.from_array(rows, grid)
    for over in OVER:
        assert geometry(rows, grid, over=over).steps == geometry(coarse, over=over).steps


@given(matrices(rows=40), st.sampled_from([1, 2, 5]))
def test_threads_change_nothing(drawn, threads):
    grid, index = drawn
    one, several = (Geometry(index, grid, threads=n) for n in (1, threads))
    assert (one.weight, one.steps) == (several.weight, several.steps)


def test_what_is_no_choice_of_rows_is_refused():
    with pytest.raises(ValueError, match="unknown rows 'singletons'; choose one of black_holes, unique, tokens"):
        geometry(np.ones((2, 2), np.float32), over="singletons")
