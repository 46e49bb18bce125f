"""Neighbours: by hand, against the topology of the same rows, and on rows that cannot be asked about."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkvocab import EmbeddingMatrix
from darkvocab.errors import CorruptFile
from darkvocab.measures.geometry import topology
from darkvocab.measures.neighbours import neighbours
from darkvocab.numerics import GRIDS, Touching, as_grid, decode, from_index


def matrix_of(index, grid="bfloat16"):
    return EmbeddingMatrix(words=from_index(index, grid), grid=as_grid(grid))


def column(*index):
    return np.array(index)[:, None]


def test_a_cluster_by_hand():
    # In steps: three tokens at 0 (a black hole), one at 1, one at 2, two at 4 (another, a step too far), one at 100.
    result = neighbours(matrix_of(column(0, 1, 0, 2, 4, 0, 4, 100)))
    assert str(result.touching) == "<= 1 steps"
    assert (result.n_tokens, result.n_unique, result.n_pairs, result.n_isolated) == (8, 5, 2, 2)
    assert result.pairs.tolist() == [[0, 1], [1, 2]]
    assert result.degrees.tolist() == [1, 2, 1, 0, 0]
    assert result.token_degrees.tolist() == [3, 4, 1, 1, 0]
    assert result.n_token_pairs == 3 + 3 + 1 + 1  # within the first hole, with it, 1 and 2, within the second
    components = result.components
    assert result.n_components == 3
    assert (components.rows.tolist(), components.tokens.tolist()) == ([3, 1, 1], [5, 2, 1])
    assert components.black_holes.tolist() == [1, 1, 0]
    assert result.component.tolist() == [0, 0, 0, 1, 2]
    assert result.cluster.tolist() == [0, 1, 2, 3, 5]
    assert (result.core.tolist(), result.outliers.tolist()) == ([0, 1, 2, 5], [3])
    assert [x.tolist() for x in result.degree_table()] == [[0, 1, 2], [2, 2, 1], [3, 4, 1]]
    starts, others = result.adjacency()
    assert (starts.tolist(), others.tolist()) == ([0, 1, 3, 4, 4, 4], [1, 0, 2, 1])


def test_the_cluster_is_of_black_holes_even_where_a_larger_component_has_none():
    result = neighbours(matrix_of(column(0, 1, 2, 3, 50, 50)))
    assert result.components.tokens.tolist() == [4, 2]
    assert result.cluster.tolist() == [4, 5]
    none = neighbours(matrix_of(column(0, 1, 7)))
    assert [len(x) for x in (none.cluster, none.core, none.outliers)] == [0, 0, 0]


@pytest.mark.parametrize("n", [0, 1])
def test_one_token_or_none(n):
    result = neighbours(np.zeros((n, 3), np.float32))
    assert (result.n_unique, result.n_pairs, result.n_components, result.n_isolated) == (n, 0, n, n)
    assert result.pairs.shape == (2, 0)
    assert [len(x) for x in result.degree_table()] == [n, n, n]
    assert [len(x) for x in result.adjacency()] == [n + 1, 0]


@given(
    grid=st.sampled_from(sorted(GRIDS)),
    unit=st.sampled_from(["weight", "steps"]),
    strict=st.booleans(),
    coarser=st.sampled_from([None, "float8_e5m2"]),
    seed=st.integers(0, 999),
)
def test_neighbours_are_the_topology_of_the_same_rows(grid, unit, strict, coarser, seed):
    rng = np.random.default_rng(seed)
    home = int(rng.choice([0, GRIDS[grid].max_code // 2]))
    matrix = matrix_of(home + rng.integers(-3, 4, (40, 2)), grid)
    values = decode(matrix.words, grid)
    length = float(rng.integers(1, 4)) if unit == "steps" else float(np.ptp(values[:7], axis=0).max()) / 2 + 1e-30
    touching = Touching(length, unit, strict)
    result = neighbours(matrix, touching, coarser, max_pairs=2000)
    for over in ("unique", "tokens"):
        graph = topology(matrix, touching, coarser, over=over)
        assert (result.degrees if over == "unique" else result.token_degrees).tolist() == graph.degrees.tolist()
        assert (result.n_pairs if over == "unique" else result.n_token_pairs) == graph.n_edges
        assert result.near.labels.tolist() == graph.labels.tolist()
    assert result.components.tokens.tolist() == graph.sizes.tolist()
    starts, others = result.adjacency()
    assert np.diff(starts).tolist() == result.degrees.tolist()
    assert sorted(zip(np.repeat(np.arange(result.n_unique), result.degrees), others, strict=True)) == sorted(
        (i, j) for one, other in result.pairs.T.tolist() for i, j in ((one, other), (other, one))
    )


def test_more_pairs_than_may_be_listed_are_counted_and_not_listed():
    result = neighbours(matrix_of(column(*range(200))), Touching(5, "steps"), max_pairs=100)
    assert (result.n_pairs, result.degrees.max()) == (5 * 200 - 15, 10)
    for ask in (lambda: result.pairs, result.adjacency):
        with pytest.raises(ValueError, match=r"985 pairs .* \(<= 5 steps\), more than the 100 .* max_pairs=985"):
            ask()
    assert neighbours(matrix_of(column(*range(200))), Touching(5, "steps"), max_pairs=985).pairs.shape == (2, 985)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused_with_their_tokens(bad):
    rows = np.ones((4, 2), np.float32)
    rows[2, 1] = bad
    with pytest.raises(CorruptFile, match=r"1 of 4 rows .* tokens 2"):
        neighbours(rows)


def test_rows_that_overflow_the_grid_are_refused_with_their_tokens():
    with pytest.raises(ValueError, match=r"1 of 2 rows .* overflow float16"):
        neighbours(np.array([[1.0], [1e5]], np.float32), grid="float16")
