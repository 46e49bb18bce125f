"""Topology: by hand, against networkx, and against the notebooks' own graph."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from darkvocab import EmbeddingMatrix
from darkvocab.measures.geometry import Topology, topology
from darkvocab.numerics import GRIDS, Distances, Touching, as_grid, decode, from_index

OVER = ("black_holes", "unique", "tokens")
STATISTICS = "n_components n_isolated largest_component_size largest_component_density global_density".split()


def line(*values):
    """Rows of one column, on a grid where all is exact."""
    return np.array(values, np.float32)[:, None]


def statistics(t):
    return tuple(getattr(t, name) for name in STATISTICS)


@st.composite
def graphs(draw, units=("weight", "steps")):
    """Rows of few values, of which many coincide or nearly do, and a threshold that is often the distance of two."""
    grid = draw(st.sampled_from(sorted(GRIDS)))
    home = draw(st.sampled_from([0, GRIDS[grid].max_code // 2, -GRIDS[grid].max_code // 2]))
    reach = draw(st.sampled_from([2, 5, 9]))
    shape = draw(st.tuples(st.integers(1, 16), st.integers(1, 3)))
    index = home + draw(hnp.arrays(np.int64, shape, elements=st.integers(-reach, reach)))
    unit, strict = draw(st.sampled_from(units)), draw(st.booleans())
    x = index if unit == "steps" else decode(from_index(index, grid), grid)
    lengths = np.unique(np.abs(x[:, None] - x[None]).max(axis=2))
    limit = float(draw(st.sampled_from(lengths.tolist()))) * draw(st.sampled_from([1, 1, 1.5]))
    return grid, index, Touching(limit if limit > 0 or not strict else 1.0, unit, strict)


def selected(index, over):
    """The rows asked for, in lexicographic order."""
    unique, counts = np.unique(index, axis=0, return_counts=True)
    return {"black_holes": unique[counts >= 2], "unique": unique, "tokens": np.repeat(unique, counts, axis=0)}[over]


def plain_graph(index, grid, touching):
    x = index if touching.unit == "steps" else decode(from_index(index, grid), grid)
    apart = np.abs(x[:, None] - x[None]).max(axis=2, initial=0)
    limit = touching.threshold if touching.unit == "steps" else np.float32(touching.threshold)
    near = apart < limit if touching.strict else apart <= limit
    graph = nx.Graph()
    graph.add_nodes_from(range(len(x)))
    graph.add_edges_from((i, j) for i, j in zip(*np.nonzero(near), strict=True) if i < j)
    return graph


# By hand -------------------------------------------------------------------------------------------------------------


def test_a_graph_by_hand():
    # 0 - 1 - 2 are a path, 10 and 11 a pair, 20 is alone.
    t = topology(line(0, 1, 2, 10, 11, 20), Touching(1.0))
    assert statistics(t) == (3, 1, 3, 2 / 3, 3 / 15)
    assert (t.n_vertices, t.n_edges, t.mean_degree, t.max_degree) == (6, 3, 1, 2)
    assert (t.sizes.tolist(), t.degrees.tolist(), t.labels.tolist()) == (
        [3, 2, 1],
        [1, 2, 1, 1, 1, 0],
        [0, 0, 0, 3, 3, 5],
    )


def test_the_inequality_by_hand():
    rows = line(0, 1, 2)
    assert [topology(rows, Touching(1.0, strict=strict)).n_edges for strict in (False, True)] == [2, 0]
    assert [topology(rows, Touching(2.0, strict=strict)).n_edges for strict in (False, True)] == [3, 2]


def test_steps_by_hand():
    rows = line(1 - 2**-8, 1, 1 + 2**-7)  # a step each, of two lengths
    assert topology(rows, Touching(1, "steps"), "bfloat16").n_edges == 2
    assert topology(rows, Touching(2, "steps", strict=True), "bfloat16").n_edges == 2
    assert topology(rows, Touching(2**-8), "bfloat16").n_edges == 1


def test_tokens_of_a_black_hole_touch_each_other():
    rows = line(0, 0, 0, 5, 5, 9)
    assert statistics(topology(rows, Touching(0.0), over="tokens")) == (3, 1, 3, 1.0, 4 / 15)
    assert statistics(topology(rows, Touching(0.0))) == (3, 3, 1, 1.0, 0.0)
    assert statistics(topology(rows, Touching(5.0), over="tokens")) == (1, 0, 6, 12 / 15, 12 / 15)
    assert statistics(topology(rows, Touching(5.0), over="black_holes")) == (1, 0, 2, 1.0, 1.0)
    assert topology(rows, Touching(0.0, "steps"), over="tokens").degrees.tolist() == [2, 1, 0]


def test_one_vertex_and_none_follow_the_notebook():
    assert statistics(topology(line(3), Touching(1.0))) == (1, 1, 1, 1.0, 1.0)
    assert statistics(topology(line(3, 3, 3), Touching(1.0))) == (1, 1, 1, 1.0, 1.0)
    for none in (topology(line(3, 4), Touching(1.0), over="black_holes"), topology(line(), Touching(1.0))):
        assert statistics(none) == (0, 0, 0, 0.0, 0.0)
        assert (none.n_vertices, none.n_edges, none.mean_degree, none.max_degree) == (0, 0, 0, 0)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 5, 1, 4, 2]])
@pytest.mark.parametrize("sign", [1, -1])
def test_of_components_of_equal_size_the_one_with_the_first_row_by_value_counts(order, sign):
    # A path of three at -4, a triangle at 10; the first column is constant, the second tied. Whichever token comes
    # first, the lowest row decides: turned over, it is in the triangle.
    path, triangle = [-4, -3, -2], [10, 10.5, 11]
    rows = np.array([[7, 0, sign * x] for x in path + triangle], np.float32)[order]
    t = topology(rows, Touching(1.0))
    assert t.sizes.tolist() == [3, 3]
    assert t.largest_component_density == (2 / 3 if sign == 1 else 1.0)


# Against networkx, and the notebooks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("over", OVER)
@given(graphs())
def test_a_graph_is_that_of_networkx(over, drawn):
    grid, index, touching = drawn
    rows = selected(index, over)
    graph = plain_graph(rows, grid, touching)
    t = topology(EmbeddingMatrix(words=from_index(index, grid), grid=as_grid(grid)), touching, over=over)
    components = list(nx.connected_components(graph))
    assert t.sizes.tolist() == sorted(map(len, components), reverse=True)
    assert (t.n_vertices, t.n_edges) == (len(rows), graph.number_of_edges())
    degrees = [degree for _, degree in graph.degree]
    assert t.max_degree == max(degrees, default=0)
    assert t.mean_degree == pytest.approx(np.mean(degrees) if degrees else 0, rel=1e-14)
    assert t.n_isolated == degrees.count(0)
    if len(rows) > 1:
        assert t.global_density == graph.number_of_edges() / (len(rows) * (len(rows) - 1) // 2)
        largest = graph.subgraph(max(components, key=len))  # the first of equals, in order of rows
        n = len(largest)
        assert t.largest_component_density == (largest.number_of_edges() / (n * (n - 1) // 2) if n > 1 else 1.0)
    assert (t.touching, t.over) == (touching, over)


@pytest.mark.parametrize("over", OVER)
@given(graphs(units=("weight",)))
def test_a_graph_is_the_notebooks_to_the_bit(over, drawn):
    notebooks = pytest.importorskip("notebooks")
    grid, index, touching = drawn
    t = topology(EmbeddingMatrix(words=from_index(index, grid), grid=as_grid(grid)), touching, over=over)
    rows = notebooks.torch.from_numpy(decode(from_index(selected(index, over), grid), grid))
    assert statistics(t) == notebooks.topology(rows, touching.threshold, touching.strict)


@given(graphs(), st.sampled_from([2, 5]))
def test_an_array_and_threads_give_the_same(drawn, threads):
    grid, index, touching = drawn
    words = from_index(index, grid)
    matrix = topology(EmbeddingMatrix(words=words, grid=as_grid(grid)), touching, threads=1)
    array = topology(decode(words, grid), touching, grid, threads=threads)
    assert statistics(array) == statistics(matrix)
    assert array.degrees.tolist() == matrix.degrees.tolist()


@pytest.mark.slow
def test_hundreds_of_rows_are_the_notebooks_to_the_bit():
    # Several tiles and thousands of edges, in clusters of many sizes.
    notebooks = pytest.importorskip("notebooks")
    rng = np.random.default_rng(4)
    rows = np.rint(rng.integers(0, 40, (60, 5)).repeat(8, axis=0) + rng.standard_normal((480, 5))).astype(np.float32)
    unique = notebooks.torch.unique(notebooks.torch.from_numpy(rows), dim=0)
    for limit in (0.0, 1.0, 2.0, 5.0, 9.0, 50.0):
        assert statistics(topology(rows, Touching(limit))) == notebooks.topology(unique, limit)


# What cannot be asked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1.0, -1e-300, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("unit", ["weight", "steps"])
def test_lengths_that_are_none_are_refused(bad, unit):
    with pytest.raises(ValueError, match=r"touching must be a finite length >= 0 \(" + unit):
        Touching(bad, unit)


@pytest.mark.parametrize("nothing", [0.0, 1e-50])
def test_a_strict_threshold_of_nothing_is_refused(nothing):
    with pytest.raises(ValueError, match=r"nothing is nearer than .*: choose a larger threshold, or <="):
        Touching(nothing, strict=True)
    assert Touching(nothing).threshold == nothing


def test_other_words_and_units_are_refused():
    with pytest.raises(ValueError, match="unknown unit 'ulps' of touching; choose one of weight, steps"):
        Touching(1.0, "ulps")
    with pytest.raises(ValueError, match="unknown rows 'all'"):
        topology(line(1, 2), Touching(1.0), over="all")
    with pytest.raises(ValueError, match="distances in weight cannot be held against touching <= 2 steps"):
        Topology(Distances(np.array([[1], [2]]), "bfloat16"), Touching(2, "steps"))


@pytest.mark.parametrize("strict", [False, True])
def test_a_threshold_beyond_float32_holds_for_all_rows(strict):
    assert topology(line(0, 1, 2), Touching(1e39, strict=strict)).n_edges == 3


def test_a_touching_says_what_it_is():
    assert str(Touching(1e-4, strict=True)) == "< 0.0001 weight"
    assert str(Touching(2, "steps")) == "<= 2 steps"
