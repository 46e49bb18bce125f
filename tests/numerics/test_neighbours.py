"""Near rows: by hand, against every pair compared plainly, and where no column tells rows apart."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from darkvocab.numerics import GRIDS, Touching, encode, from_index, index_values, near_rows, to_index
from darkvocab.numerics import neighbours as module
from darkvocab.numerics._backends import neighbours as kernels

# Constants that send small data where large data goes: through features, components, candidates, blocks.
SMALL = {
    "FEATURES": (1, 3, 32),
    "BLOCKS": (1, 3, 16),
    "FEATURE_SAMPLE": (2, 512),
    "SMALL_COMPONENT": (1, 4, 256),
    "PAIRS_PER_ROW": (0, 1, 4),
    "STUCK": (0.1, 0.75),
    "ONE_THREAD_ROWS": (0, 1000),
    "BLOCK_BYTES": (1, 1 << 26),
}
paths = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in SMALL.items()})


@pytest.fixture
def patched():
    patch = pytest.MonkeyPatch()
    yield lambda **constants: [patch.setattr(module, name, value) for name, value in constants.items()]
    patch.undo()


def plain_near(index, grid, touching):
    """Return which rows touch which: whole differences of indices, or float32 differences of float32 values."""
    x = index.astype(np.int64) if touching.unit == "steps" else index_values(index, grid).astype(np.float32)
    with np.errstate(over="ignore"):
        limit = touching.threshold if touching.unit == "steps" else np.float32(touching.threshold)
        apart = np.array([np.abs(x - row).max(axis=1, initial=0) for row in x]).reshape(len(x), len(x))
    near = apart < limit if touching.strict else apart <= limit
    return near & ~np.eye(len(index), dtype=bool)


def plain_labels(near):
    """The first row of each row's component."""
    labels = np.arange(len(near))
    while True:
        lower = np.minimum(labels, np.where(near, labels[None], len(near)).min(axis=1, initial=len(near)))
        if np.array_equal(lower, labels):
            return labels
        labels = lower


def assert_near_is_plain(index, grid, touching, weights=None, **options):
    ours = near_rows(from_index(index, grid), grid, touching, weights=weights, **options)
    near = plain_near(index, grid, touching)
    weights = np.ones(len(index), int) if weights is None else weights
    assert ours.degrees.tolist() == near.sum(axis=1).tolist()
    assert ours.tokens.tolist() == (near @ weights).tolist()
    assert ours.labels.tolist() == plain_labels(near).tolist()
    assert ours.n_pairs == near.sum() // 2
    if ours.n_pairs <= options.get("max_pairs", module.MAX_PAIRS):
        assert np.array_equal(ours.pairs, np.nonzero(np.triu(near)))
    else:
        assert ours.pairs is None


def touchings(unit, index, grid):
    """A threshold that is often the distance of two rows, and either inequality."""
    x = index.astype(np.float64) if unit == "steps" else index_values(index, grid).astype(np.float32)
    with np.errstate(over="ignore"):
        lengths = np.unique(np.abs(x[:, None, :] - x[None]).max(axis=2, initial=0).astype(np.float64))
    lengths = lengths[np.isfinite(lengths)]
    factor = st.sampled_from([1.0, 1.0, 1.25, 0.5])
    threshold = st.builds(lambda length, by: float(length) * by, st.sampled_from(lengths.tolist()), factor)
    return st.builds(lambda length, strict: Touching(length, unit, strict and length > 1e-40), threshold, st.booleans())


# By hand -------------------------------------------------------------------------------------------------------------


def test_steps_by_hand():
    words = from_index(np.array([[0, 9], [1, 9], [2, 9], [2, 11], [-1, 8]]), "bfloat16")
    near = near_rows(words, "bfloat16", Touching(1, "steps"), weights=np.array([1, 5, 1, 1, 2]))
    assert near.pairs.tolist() == [[0, 0, 1], [1, 4, 2]]
    assert (near.degrees.tolist(), near.tokens.tolist()) == ([2, 2, 1, 0, 1], [7, 2, 5, 0, 1])
    assert (near.labels.tolist(), near.n_pairs) == ([0, 0, 0, 3, 0], 3)


def test_both_zeros_are_one_number_and_steps_cross_them():
    words = np.array([[0x8000], [0x0000], [0x8001], [0x0001]], np.uint16)
    zero = near_rows(words, "bfloat16", Touching(0, "steps"))
    assert zero.pairs.tolist() == [[0], [1]]
    assert near_rows(words, "bfloat16", Touching(0.0)).pairs.tolist() == [[0], [1]]
    assert near_rows(words, "bfloat16", Touching(1, "steps")).n_pairs == 5
    assert near_rows(words, "bfloat16", Touching(2, "steps", strict=True)).n_pairs == 5


def test_thresholds_between_steps_and_beyond_all_of_them():
    words = from_index(np.array([[0], [1], [2], [-32639], [32639]]), "bfloat16")
    counts = {(1, True): 0, (1.5, False): 2, (1.5, True): 2, (2, True): 2, (2, False): 3, (1e9, True): 10}
    assert {key: near_rows(words, "bfloat16", Touching(key[0], "steps", key[1])).n_pairs for key in counts} == counts


@pytest.mark.parametrize("grid", ["bfloat16", "float32"])
def test_rows_may_be_farther_apart_than_a_signed_word_can_say(grid):
    far = GRIDS[grid].max_code - 9
    words = from_index(np.array([[0, -far, 0], [0, far, 1], [1, far - 5, 1]]), grid)
    counts = {1: 0, 5: 1, 300: 1, 2 * far - 1: 2, 2 * far: 3}
    assert {k: near_rows(words, grid, Touching(k, "steps")).n_pairs for k in counts} == counts


def test_differences_and_thresholds_are_rounded_to_float32():
    values = np.array([[1.0], [-(2.0**-30)]], np.float32)  # the real difference is 1 + 2**-30
    assert near_rows(encode(values, "float32"), "float32", Touching(1.0)).n_pairs == 1
    apart = encode(np.array([[0.0], [1e-4]], np.float32), "float32")  # float32(1e-4) lies below the real 1e-4
    assert [near_rows(apart, "float32", Touching(1e-4, strict=strict)).n_pairs for strict in (False, True)] == [1, 0]


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("unit", ["weight", "steps"])
def test_one_row_or_none_has_no_neighbours(n, unit):
    near = near_rows(np.zeros((n, 3), np.uint16), "bfloat16", Touching(1, unit))
    assert (near.degrees.tolist(), near.labels.tolist(), near.pairs.shape) == ([0] * n, list(range(n)), (2, 0))


# Against the plain twin ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["weight", "steps"])
@given(paths=paths, threads=st.sampled_from([1, 2]), data=st.data())
@settings(max_examples=60)
def test_few_rows_equal_all_pairs(unit, paths, threads, data):
    grid = data.draw(st.sampled_from(sorted(GRIDS)))
    top = GRIDS[grid].max_code
    reach = data.draw(st.sampled_from([0, 1, 3, top]))
    home = data.draw(st.sampled_from([0, 1, top // 2, -top]))
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 6)))
    index = np.clip(home + data.draw(hnp.arrays(np.int64, shape, elements=st.integers(-reach, reach))), -top, top)
    weights = data.draw(st.none() | hnp.arrays(np.int64, len(index), elements=st.integers(1, 3)))
    max_pairs = data.draw(st.sampled_from([0, 2, 1 << 22]))
    touching = data.draw(touchings(unit, index, grid))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in paths.items():
            patch.setattr(module, name, value)
        assert_near_is_plain(index, grid, touching, weights, max_pairs=max_pairs, threads=threads)


def clusters(rng, n, dim, top):
    """Rows around a few homes, most of them alone."""
    homes = rng.integers(-top + 9, top - 9, (max(1, n // 6), dim))
    return homes[rng.integers(0, len(homes), n)] + rng.integers(-2, 3, (n, dim)) * (rng.random((n, dim)) < 0.3)


KINDS = {
    "any values": lambda rng, n, dim, top: rng.integers(-top, top + 1, (n, dim)),
    "three values": lambda rng, n, dim, top: rng.integers(0, 3, (n, dim)),
    "clusters": clusters,
    "equal in most columns": lambda rng, n, dim, top: (
        top // 3 + rng.integers(-9, 10, (n, dim)) * (rng.random((n, dim)) < 1.5 / dim)
    ),
    "one column, copied": lambda rng, n, dim, top: rng.integers(0, 40, (n, 1)) + np.zeros((1, dim), int),
    "a chain": lambda rng, n, dim, top: np.arange(n)[:, None] // 2 + rng.integers(0, 2, (n, dim)),
    "across zero": lambda rng, n, dim, top: np.rint(rng.standard_normal((n, dim)) * 2).astype(int),
}


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["weight", "steps"])
@settings(max_examples=80)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    paths=paths,
    threads=st.sampled_from([1, 3]),
    grid=st.sampled_from(sorted(GRIDS)),
    n=st.integers(13, 180),
    dim=st.integers(1, 70),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_many_rows_equal_all_pairs(unit, kind, paths, threads, grid, n, dim, seed, data):
    rng = np.random.default_rng(seed)
    top = GRIDS[grid].max_code
    index = np.clip(KINDS[kind](rng, n, dim, top), -top, top)
    steps = Touching(data.draw(st.sampled_from([0, 1, 2, 5, 300])), "steps")
    touching = steps if unit == "steps" else data.draw(touchings("weight", index[:12], grid))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in paths.items():
            patch.setattr(module, name, value)
        assert_near_is_plain(index, grid, touching, rng.integers(1, 3, n), threads=threads)


LARGEST = GRIDS["float32"].max_code


@pytest.mark.parametrize(
    "touching", [Touching(1e30), Touching(3.4e38), Touching(3.3e38, strict=True), Touching(1e39), Touching(5, "steps")]
)
def test_differences_that_overflow_float32(touching, patched):
    patched(FEATURES=3, PAIRS_PER_ROW=0, SMALL_COMPONENT=1)
    rng = np.random.default_rng(2)
    index = rng.choice([-LARGEST, LARGEST, LARGEST - 1, 0, LARGEST // 2], (60, 8), p=[0.05, 0.05, 0.05, 0.45, 0.4])
    assert_near_is_plain(index, "float32", touching)


@pytest.mark.slow
def test_every_path_is_taken(monkeypatch):
    # The tests above would pass if all data went one way: here clusters of every size go every way, and two threads.
    rng = np.random.default_rng(5)
    homes = rng.integers(-9000, 9000, (6, 300))
    sizes = [700, 400, 300, 60, 20, 2]
    index = np.repeat(homes, sizes, axis=0)
    index[:700, ::7] += rng.integers(0, 3, (700, 43))  # never near, in many columns: stuck
    index[700:1100, :40] += rng.integers(0, 2, (400, 40))  # all near
    index[1100:1400, :3] += rng.integers(0, 4, (300, 3))  # in three columns
    index[1400:, 5] += rng.integers(0, 9, 82)
    index = np.vstack([index, rng.integers(-9000, 9000, (300, 300))])
    index = index[rng.permutation(len(index))]
    called = []
    for name in ("_all_near", "_compare", "_settle", "_join"):
        work = getattr(module._Search, name)

        def watched(self, *args, name=name, work=work):
            called.append(name)
            return work(self, *args)

        monkeypatch.setattr(module._Search, name, watched)
    monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 17)
    assert_near_is_plain(index, "bfloat16", Touching(1, "steps"), rng.integers(1, 4, len(index)), threads=2)
    assert {"_all_near", "_compare", "_join"} <= set(called)
    assert_near_is_plain(index[-300:], "bfloat16", Touching(1, "steps"), threads=2)
    monkeypatch.setattr(module, "PAIRS_PER_ROW", 1 << 20)
    assert_near_is_plain(index[:200], "bfloat16", Touching(1, "steps"), threads=2)
    assert "_settle" in called


def test_features_differ_by_no_more_than_the_rows():
    # In every unit and type: deviations of float32 values are rounded, and the slack must make up for it.
    rng = np.random.default_rng(6)
    for scale in (1e-3, 1.0, 1e6):
        rows = (scale * rng.standard_normal((60, 40)) + rng.standard_normal(40)).astype(np.float32)
        bits, low = np.empty((60, 6), np.int32), rows[0].copy()
        kernels.profile(rows, rows[0], low, low.copy(), bits)
        features, slack = module._deviations(bits, np.dtype(np.float32))
        apart = np.abs(rows[:, None].astype(np.float64) - rows[None]).max(axis=2)
        between = np.abs(features[:, None].astype(np.float64) - features[None]).max(axis=2)
        assert (between <= apart * (1 + 2.0**-22) + slack).all()
        assert low.tolist() == rows.min(axis=0).tolist()
    rows = rng.integers(-32639, 32640, (60, 40)).astype(np.int16)
    bits = np.empty((60, 6), np.int32)
    kernels.profile(rows, rows[0], rows[0].copy(), rows[0].copy(), bits)
    deviations = rows.astype(int) - rows[0]
    assert bits[:, 0].tolist() == deviations[:, :13].max(axis=1).tolist()
    assert bits[:, 5].tolist() == deviations[:, 26:].min(axis=1).tolist()


def test_deviations_that_are_rounded_part_no_near_rows(patched):
    # The first row is a thousand away, so that deviations from it are rounded by more than the threshold.
    patched(FEATURES=2)
    rng = np.random.default_rng(7)
    rows = np.zeros((400, 40), np.float32)
    rows[0] = 1000
    rows[1:, 0] = 1e-5 * rng.integers(1, 2000, 399)
    rows[1:] = np.array([np.roll(row, column) for row, column in zip(rows[1:], rng.integers(0, 40, 399), strict=True)])
    index = to_index(encode(rows, "float32"), "float32")
    assert plain_near(index, "float32", Touching(1.5e-5)).any()
    assert_near_is_plain(index, "float32", Touching(1.5e-5))


# Where output or work could be quadratic -----------------------------------------------------------------------------


def test_a_memory_mapped_matrix_and_a_choice_of_its_rows(tmp_path):
    index = clusters(np.random.default_rng(1), 1500, 300, 30_000)
    np.save(tmp_path / "rows.npy", from_index(index, "bfloat16"))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    some = np.random.default_rng(2).permutation(1500)[:400]
    near = near_rows(mapped, "bfloat16", Touching(4, "steps"), tokens=some)
    plain = plain_near(index[some], "bfloat16", Touching(4, "steps"))
    assert np.array_equal(near.pairs, np.nonzero(np.triu(plain)))
    assert plain.any()


@pytest.mark.parametrize("kind", ["all near", "near in 20 columns", "in every column"])
def test_a_large_cluster_is_counted_in_bounded_memory(kind):
    # Of 6,000 rows up to 18 million pairs are near: a list of them would take 144 MB.
    rng = np.random.default_rng(3)
    n, dim = 6000, 64
    index = np.tile(rng.integers(-9000, 9000, dim), (n, 1))
    index += rng.integers(0, 2, (n, dim))
    if kind == "near in 20 columns":
        index[:, :20] += rng.random((n, 20)) < 0.02
    elif kind == "in every column":
        index += rng.random((n, dim)) < 0.01
    words = from_index(index, "bfloat16")
    near_rows(words[:1500], "bfloat16", Touching(1, "steps"), max_pairs=10)
    tracemalloc.start()
    near = near_rows(words, "bfloat16", Touching(1, "steps"), max_pairs=1000, threads=2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    assert near.pairs is None
    some = rng.permutation(n)[:40]
    expected = [(np.abs(index - index[i]).max(axis=1) <= 1).sum() - 1 for i in some]
    assert near.degrees[some].tolist() == expected
    assert near.n_pairs == near.degrees.sum() // 2 > 5_000_000
    assert (near.labels == 0).sum() == (near.degrees > 0).sum() == n


def test_rows_equal_in_most_columns_are_not_all_compared(monkeypatch):
    # Each of 5,000 rows differs from the base in one of 500 columns: no column tells more than some ten of them apart,
    # but their largest and smallest deviations do.
    rng = np.random.default_rng(4)
    index = np.tile(rng.integers(12_000, 13_000, 500), (5000, 1))
    index[np.arange(5000), rng.integers(0, 500, 5000)] += rng.choice([-1, 1], 5000) * rng.integers(9, 3000, 5000)
    candidates = []
    join = module._Search._join

    def watched(self, *args):
        result = join(self, *args)
        candidates.append(result.n_pairs)
        return result

    monkeypatch.setattr(module._Search, "_join", watched)
    near = near_rows(from_index(index, "bfloat16"), "bfloat16", Touching(1, "steps"))
    assert max(candidates) < 5000 * 50
    some = rng.permutation(5000)[:40]
    assert near.degrees[some].tolist() == [(np.abs(index - index[i]).max(axis=1) <= 1).sum() - 1 for i in some]
    assert near.n_pairs > 0
