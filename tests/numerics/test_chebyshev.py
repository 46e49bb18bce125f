"""L-infinity distances of all pairs: by hand, and against every pair computed plainly."""

import itertools
import math
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from darkvocab.numerics import GRIDS, Distances, chebyshev, encode, index_values, to_index
from darkvocab.numerics._backends import distances as kernels
from darkvocab.snowballs.bases import qwen3_4b_centred
from darkvocab.snowballs.snowball import Snowball, draw

# Constants that send small data where large data goes: sorted outright or tallied, in one block or several, looked up
# or computed again, over all columns or only outside windows.
SMALL = {
    "SORTED_ROWS": (0, 256),
    "FEW_ENTRIES": (0, 1 << 24),
    "WINDOW_SAMPLE": (4, 16),
    "BLOCK_PAIRS": (1, 1 << 23),
    "KEPT_PAIRS": (0, 1 << 26),
}
paths = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in SMALL.items()})


class Patched:
    """A context in which the module's constants are these."""

    def __init__(self, **constants):
        self.constants = constants

    def __enter__(self):
        self.patch = pytest.MonkeyPatch()
        for name, value in self.constants.items():
            self.patch.setattr(chebyshev, name, value)

    def __exit__(self, *_):
        self.patch.undo()


WINDOWS = {
    "SORTED_ROWS": 0,
    "FEW_ENTRIES": 0,
    "WINDOW_SAMPLE": 16,
    "BLOCK_PAIRS": 1,
    "STREAMING": 0.5,
    "SETTLING": 1,
    "OPTIMISM": 1,
}


@pytest.fixture(scope="module")
def windows():
    """Windows can be chosen: else nothing that tests them would mean anything."""
    with Patched(**WINDOWS):
        assert chebyshev._windows(np.random.default_rng(1).standard_normal((90, 20), np.float32))[0] > 0


def plain_matrix(index, grid, unit):
    """Distance of every row to every row: float32 differences of float32 values, or whole differences of indices."""
    x = index.astype(np.int64) if unit == "steps" else index_values(index, grid).astype(np.float32)
    with np.errstate(over="ignore"):
        apart = np.abs(x[:, None] - x[None])
    assert apart.dtype == (np.int64 if unit == "steps" else np.float32)
    return apart.max(axis=2, initial=0)


def plain_graph(matrix, weights, limit, strict):
    """The graph of tokens, each named by its row and a number."""
    near = matrix < limit if strict else matrix <= limit
    tokens = np.repeat(np.arange(len(matrix)), weights)
    graph = nx.Graph()
    graph.add_nodes_from(range(len(tokens)))
    graph.add_edges_from((i, j) for i, j in zip(*np.nonzero(near[np.ix_(tokens, tokens)]), strict=True) if i != j)
    return graph, tokens


def assert_distances_are_plain(index, grid, unit, weights=None, threads=1):
    ours = Distances(index, grid, unit=unit, weights=weights, threads=threads)
    weights = np.ones(len(index), int) if weights is None else weights
    matrix = plain_matrix(index, grid, unit)
    tokens = np.repeat(np.arange(len(index)), weights)
    pairs = np.sort(matrix[np.ix_(tokens, tokens)][np.triu_indices(len(tokens), 1)])
    spread = ours.spread
    assert ours.n_pairs == spread.n_pairs == len(pairs)
    lower, upper = (float(pairs[(len(pairs) + k) // 2]) if len(pairs) else 0.0 for k in (-1, 0))
    assert (spread.max, spread.lower_median, spread.median) == (pairs.max(initial=0), lower, (lower + upper) / 2)
    assert spread.mean == (math.fsum(pairs.tolist()) / len(pairs) if len(pairs) else 0.0)
    distances, counts = np.unique(pairs, return_counts=True)
    spectrum = ours.spectrum()
    assert np.array_equal(spectrum[0], distances)
    assert np.array_equal(spectrum[1], counts)
    limits = {0.0, *pairs[[0, len(pairs) // 3, -1]].tolist()} - {np.inf} if len(pairs) else {0.0, 1.0}
    for limit in limits:
        assert ours.within(limit) == (pairs <= limit).sum()
        assert ours.within(limit, strict=True) == (pairs < limit).sum()
        for strict in (False, True) if limit else (False,):
            assert_components_are_plain(ours, matrix, weights, limit, strict)


def assert_components_are_plain(ours, matrix, weights, limit, strict):
    graph, tokens = plain_graph(matrix, weights, limit, strict)
    degrees, labels = ours.components(limit, strict=strict)
    assert [degrees[row] for row in tokens] == [degree for _, degree in graph.degree]
    for some in nx.connected_components(graph):
        rows = tokens[list(some)]
        assert (labels[rows] == rows.min()).all()


# By hand -------------------------------------------------------------------------------------------------------------


def test_distances_and_medians_by_hand():
    index = np.array([[0], [1], [3], [7]])  # distances 1 2 3 4 6 7
    spread = Distances(index, "bfloat16", unit="steps").spread
    assert (spread.n_pairs, spread.max, spread.mean, spread.lower_median, spread.median) == (6, 7, 23 / 6, 3, 3.5)
    block = next(Distances(index, "bfloat16", unit="steps").blocks())
    assert block[0] == 0
    assert [block[1][i, j] for i in range(4) for j in range(i + 1, 4)] == [1, 3, 7, 2, 6, 4]


def test_a_row_that_stands_for_three_by_hand():
    # Rows a a a b, two steps apart: three pairs at 0, three at 2.
    ours = Distances(np.array([[5, 1], [7, 1]]), "bfloat16", unit="steps", weights=np.array([3, 1]))
    spread = ours.spread
    assert (spread.n_pairs, spread.max, spread.mean, spread.lower_median, spread.median) == (6, 2, 1, 0, 1)
    assert (ours.within(0), ours.within(2), ours.within(2, strict=True)) == (3, 6, 3)
    assert [x.tolist() for x in ours.spectrum()] == [[0, 2], [3, 3]]
    assert [x.tolist() for x in ours.components(1)] == [[2, 0], [0, 1]]
    assert [x.tolist() for x in ours.components(2)] == [[3, 3], [0, 0]]


def test_the_unit_of_weight_sees_the_ulp_and_steps_do_not():
    # From 1.0 a step up is 2**-7, a step down 2**-8; through zero the steps of both signs add up.
    one = int(to_index(encode([1.0], "bfloat16"), "bfloat16")[0])
    index = np.array([[one - 1], [one], [one + 1]])
    assert Distances(index, "bfloat16").spectrum()[0].tolist() == [2.0**-8, 2.0**-7, 3 * 2.0**-8]
    assert Distances(index, "bfloat16", unit="steps").spectrum()[0].tolist() == [1, 2]
    assert Distances(np.array([[-one], [one]]), "bfloat16", unit="steps").spread.max == 2 * one
    assert Distances(np.array([[-one], [one]]), "bfloat16").spread.max == 2.0


def test_differences_are_rounded_to_float32_as_torch_rounds_them():
    values = np.array([[1.0], [-(2.0**-30)]], np.float32)  # the real difference is 1 + 2**-30
    index = to_index(encode(values, "float32"), "float32")
    assert Distances(index, "float32").spread.max == 1.0


def test_a_threshold_is_rounded_to_float32_as_torch_rounds_it():
    torch = pytest.importorskip("torch")
    apart = torch.tensor([0.0, 1e-4])  # float32(1e-4) lies below the real 1e-4
    ours = Distances(to_index(encode(apart.numpy()[:, None], "float32"), "float32"), "float32")
    assert (ours.within(1e-4), ours.within(1e-4, strict=True)) == (1, 0)
    assert [(apart[1] <= 1e-4).item(), (apart[1] < 1e-4).item()] == [True, False]


@pytest.mark.parametrize("index", [np.array([[3, 4]]), np.empty((0, 4), np.int64)], ids=["one", "none"])
@pytest.mark.parametrize("few_rows", [0, 256])
def test_one_row_or_none_has_no_pairs(index, few_rows):
    with Patched(SORTED_ROWS=few_rows):
        ours = Distances(index, "bfloat16")
        spread = ours.spread
        assert (spread.n_pairs, spread.max, spread.mean, spread.lower_median, spread.median) == (0, 0, 0, 0, 0)
        assert (ours.within(9), ours.components(9)[0].tolist()) == (0, [0] * len(index))
        assert [len(x) for x in ours.spectrum()] == [0, 0]


def test_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unknown unit 'ulps'; choose one of weight, steps"):
        Distances(np.array([[1]]), "bfloat16", unit="ulps")


# Against the plain twin ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("unit", chebyshev.UNITS)
@given(paths=paths, threads=st.sampled_from([1, 2]), data=st.data())
def test_few_rows_equal_all_pairs(unit, paths, threads, data):
    # Ties and duplicates, many values, values around zero and at the ends of every grid.
    grid = data.draw(st.sampled_from(sorted(GRIDS)))
    reach = data.draw(st.sampled_from([0, 1, 3, GRIDS[grid].max_code]))
    home = data.draw(st.sampled_from([0, 1, GRIDS[grid].max_code // 2, -GRIDS[grid].max_code]))
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 5)))
    index = home + data.draw(hnp.arrays(np.int64, shape, elements=st.integers(-reach, reach)))
    index = np.clip(index, -GRIDS[grid].max_code, GRIDS[grid].max_code)
    weights = data.draw(st.none() | hnp.arrays(np.int64, len(index), elements=st.integers(1, 3)))
    with Patched(**paths):
        assert_distances_are_plain(index, grid, unit, weights, threads)


KINDS = {
    "few values": lambda rng, n, dim, top: rng.integers(0, 3, (n, dim)),
    "any values": lambda rng, n, dim, top: rng.integers(-top, top + 1, (n, dim)),
    "a cloud": lambda rng, n, dim, top: top // 2 + np.rint(rng.standard_normal((n, dim)) * 4).astype(int),
    "columns of every exponent": lambda rng, n, dim, top: (
        rng.integers(top // 8, top * 7 // 8, dim) + np.rint(rng.standard_normal((n, dim)) * 3).astype(int)
    ),
    "across zero": lambda rng, n, dim, top: np.rint(rng.standard_normal((n, dim)) * rng.integers(1, 9, dim)).astype(
        int
    ),
    "a collapsed cloud": lambda rng, n, dim, top: (
        rng.integers(top // 8, top * 7 // 8, dim) + (rng.random((n, dim)) < rng.random(dim) ** 6)
    ),
    "few columns vary": lambda rng, n, dim, top: top // 3 + (np.arange(dim) == 0) * rng.integers(0, 9, (n, dim)),
}


@pytest.mark.slow
@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("unit", chebyshev.UNITS)
@settings(max_examples=50)
@given(
    paths=paths,
    threads=st.sampled_from([1, 2]),
    kind=st.sampled_from(sorted(KINDS)),
    grid=st.sampled_from(sorted(GRIDS)),
    n=st.integers(13, 100),
    dim=st.integers(1, 12),
    heaviest=st.sampled_from([1, 2]),
    seed=st.integers(0, 999),
)
def test_many_rows_equal_all_pairs(unit, paths, threads, kind, grid, n, dim, heaviest, seed):
    rng = np.random.default_rng(seed)
    top = GRIDS[grid].max_code
    index = np.clip(KINDS[kind](rng, n, dim, top), -top, top)
    weights = rng.integers(1, heaviest + 1, n)
    with Patched(**paths):
        assert_distances_are_plain(index, grid, unit, weights, threads)


LARGEST = GRIDS["float32"].max_code
CASES = {  # (grid, index): made against the choice of windows
    "every column equally extreme": (
        "bfloat16",
        np.random.default_rng(1).choice([-0x3F80, 0x3F80], (90, 20)),
    ),
    "differences that overflow float32": (
        "float32",
        np.random.default_rng(2).choice([-LARGEST, LARGEST, 0, LARGEST // 2], (90, 6), p=[0.05, 0.05, 0.5, 0.4]),
    ),
    "one huge row": (
        "bfloat16",
        np.vstack([0x3C00 + np.random.default_rng(3).integers(-3, 4, (89, 20)), np.full(20, 0x7F7F)]),
    ),
    "one huge column": (
        "bfloat16",
        0x3C00 + np.random.default_rng(4).integers(-3, 4, (90, 20)) * np.where(np.arange(20) == 7, 300, 1),
    ),
    "all rows equal": ("bfloat16", np.full((90, 20), -0x3C00)),
    "pairs of equal rows, negative": (
        "bfloat16",
        -0x3C00 + np.repeat(np.random.default_rng(5).integers(-40, 41, (45, 20)), 2, axis=0),
    ),
    "two clusters": (
        "bfloat16",
        np.random.default_rng(6).integers(-2, 3, (90, 20)) + np.where(np.arange(90)[:, None] % 2, 0x3C00, 0x3F00),
    ),
    "subnormal": ("float32", np.random.default_rng(7).integers(-50, 51, (90, 6))),
}


@pytest.mark.slow
@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("unit", chebyshev.UNITS)
@pytest.mark.parametrize("case", CASES)
def test_adversarial_rows_equal_all_pairs(case, unit):
    grid, index = CASES[case]
    with Patched(**WINDOWS):
        assert_distances_are_plain(index, grid, unit)
        assert_distances_are_plain(index, grid, unit, np.arange(len(index)) % 2 + 1, threads=2)


@pytest.mark.slow
@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("kept", [0, 1 << 26])
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_windows_and_several_blocks_are_taken_and_equal_all_pairs(dtype, kept, monkeypatch):
    # The tests above would pass if every path fell back on the plainest: here is one that surely does not.
    rng = np.random.default_rng(8)
    index = np.rint(np.clip(rng.standard_normal((150, 30)) * 20, -120, 120)).astype(dtype)
    widths, listed, stream = [], [], kernels.stream

    def watched(*args):
        listed.append(args[4].size)
        widths.append(args[6])
        return stream(*args)

    monkeypatch.setattr(kernels, "stream", watched)
    with Patched(**{**WINDOWS, "KEPT_PAIRS": kept}):
        ours = Distances(index, "bfloat16", unit="steps")
        assert [first for first, _ in ours.blocks()] == [0, 64, 128]
        assert all(width > 0 for width in widths)
        assert len(widths) == 3
        assert max(listed) < 0.4 * index.size
        assert ours.spread.n_pairs == 150 * 149 // 2
        assert (len(widths) == 3) == (kept > 0)  # else computed anew
        for unit, grid in itertools.product(chebyshev.UNITS, ("bfloat16", "float16", "float32")):
            assert_distances_are_plain(index, grid, unit, threads=2)
            one, two = (Distances(index, grid, unit=unit, threads=threads).spread for threads in (1, 2))
            assert one == two  # the mean to the last bit


@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=20), st.floats(0.0625, 4, width=32))
def test_a_window_is_no_wider_than_asked_and_holds_the_most_values(values, width):
    # By subtraction in float32, which is what distances are: no two values inside are farther apart than the width.
    ordered = np.sort(np.array([values], np.float32), axis=1)
    low, high = np.empty(1, np.float32), np.empty(1, np.float32)
    outside = kernels.fit_windows(ordered, np.float32(width), low, high)
    assert high[0] - low[0] <= np.float32(width)
    most = max(int(((ordered >= x) & (ordered - x <= np.float32(width))).sum()) for x in ordered[0])
    assert outside == len(values) - most
    assert ((ordered < low) | (ordered > high)).sum() <= outside + 2  # the ends may be rounded inwards


@pytest.mark.parametrize("few", [0, 512])
@pytest.mark.parametrize(("unit", "largest"), [("weight", 38), ("weight", 4), ("steps", 38)])
def test_the_mean_is_of_the_exact_sum_where_float64_would_round(few, unit, largest):
    rng = np.random.default_rng(3)
    values = np.float32(rng.choice([-1, 1], 300) * 10.0 ** rng.uniform(-44, largest, 300))[:, None]
    weights = rng.integers(1, 1 << 12, 300)
    index = to_index(encode(values, "float32"), "float32")
    apart = plain_matrix(index, "float32", unit).tolist()
    pairs = [(int(weights[i] * weights[j]), apart[i][j]) for i, j in itertools.combinations(range(300), 2)]
    exact = sum(count * Fraction(distance) for count, distance in pairs)
    with Patched(SORTED_ROWS=few, BLOCK_PAIRS=1):
        ours = Distances(index, "float32", unit=unit, weights=weights)
        assert ours.spread.mean == float(exact) / ours.n_pairs
    rounded = sum(float(count) * distance for count, distance in pairs)
    assert rounded != float(exact)


def test_columns_without_variation_are_left_out_and_steps_are_counted_from_the_smallest():
    index = np.array([[4, 1, 9], [4, 2, 9], [4, 3, 9]])
    assert Distances(index, "bfloat16", unit="steps").rows.tolist() == [[0], [1], [2]]


def test_two_thousand_rows_of_a_notebooks_size():
    # 12.4b's matrix, 2,100 x 2,560: 3,000 random pairs in full, and the largest of all by the columns' ranges.
    snowball = Snowball(base=qwen3_4b_centred(), n_tokens=2100, sigma=3.281911e-3)
    index = draw(snowball, seed=1, sampler="dense").index()
    ours = Distances(index, "bfloat16", threads=2)
    values = index_values(index, "bfloat16", np.float32)
    i, j = np.random.default_rng(2).integers(0, 2100, (2, 3000))
    i, j = np.minimum(i, j)[i != j], np.maximum(i, j)[i != j]
    matrix = np.zeros((2100, 2100), np.float32)
    for first, block in ours.blocks():
        matrix[first : first + len(block), first:] = block[:, : 2100 - first]
    assert np.array_equal(matrix[i, j], np.abs(values[i] - values[j]).max(axis=1))
    assert ours.spread.max == np.ptp(values, axis=0).max()
    pairs = np.sort(matrix[np.triu_indices(2100, 1)])
    assert (ours.spread.lower_median, ours.within(0.016)) == (pairs[(len(pairs) - 1) // 2], (pairs <= 0.016).sum())
    assert ours.spread.mean == pytest.approx(pairs.mean(dtype=np.float64), rel=1e-12)
    assert chebyshev._Walk(ours.rows).width > 0
