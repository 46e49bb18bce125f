"""Drawing on a device: plain torch and Triton against the compiled kernels of the CPU, to the last bit.

Triton's kernels run in its interpreter, and are compiled for absent GPUs. From version 3.9 the interpreter fuses a
multiplication and an addition as the CPU and a GPU do; before, `fusing` makes it.
"""

import importlib.util
from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import kernels  # noqa: E402
import plain_deviates  # noqa: E402
import plain_drawing as drawing  # noqa: E402
from batches import (  # noqa: E402
    SEEDS,
    Dense,
    Sparse,
    compiled_sparse,
    equal,
    room,
    shape_of,
    tied,
    values_at_edges,
)

from darkvocab.numerics import GRIDS  # noqa: E402
from darkvocab.numerics._backends import deviates, rounding  # noqa: E402
from darkvocab.snowballs.on_device import Lanes  # noqa: E402
from darkvocab.snowballs.snowball import Snowball  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kernels")]  # which start two processes
with_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")


# Deviates ------------------------------------------------------------------------------------------------------------


def test_fma_rounds_once():
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(4000) * 2.0 ** rng.integers(-20, 20, 4000) for _ in range(2))
    nearly = -(a * b) * (1 + rng.integers(-3, 4, 4000) * 2.0**-52)  # all but cancels the product
    halfway = np.spacing(a * b) * rng.choice([0.5, -0.5, 0.5 + 2.0**-40], 4000)
    differ = 0
    for c in (nearly, halfway, rng.standard_normal(4000), a * 0):
        result = plain_deviates.fma(*map(torch.from_numpy, (a, b, c))).tolist()
        exact = [float(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in np.stack([a, b, c], axis=1).tolist()]
        assert result == exact
        differ += int((a * b + c != np.array(exact)).sum())
    assert differ > 1000  # an operation that rounds twice would show


def test_square_roots_are_rounded_as_ieee_says():
    x = np.random.default_rng(1).uniform(0, 50, 30_000)
    x[:400] = [np.nextafter(4.0**k, side) for k in range(-50, 50) for side in (0, 0, 9e99, 4.0**k)]
    assert np.array_equal(plain_deviates.sqrt(torch.from_numpy(x)).numpy(), np.sqrt(x))


@pytest.mark.parametrize("laplace", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8_001])
def test_deviates_are_the_compiled_ones_to_the_last_bit(dim, laplace):
    rows, seed, point, trial = [0, 1, 2**31 - 1], 2**64 - 2, 2**32 - 1, 5
    where = torch.tensor(point), torch.tensor(trial)
    z = plain_deviates.row_deviates(torch.tensor(rows), dim, 1, seed, *where, laplace).numpy()
    words, planes = np.empty((4, (dim + 3) // 4), np.uint32), np.empty((4, (dim + 3) // 4))
    key = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32), np.uint64(point), np.uint64(trial)
    for row, result in zip(rows, z, strict=True):
        deviates.row_deviates(row, laplace, np.uint64(1 << 31), *key, words, planes)
        assert np.array_equal(result, planes.reshape(-1)[:dim])


# Dense draws ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("float32", [True, False])
@pytest.mark.parametrize("laplace", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_dense_draws_are_the_compiled_ones(grid, laplace, float32, monkeypatch):
    monkeypatch.setattr(drawing, "CHUNK", 1000)  # several pieces
    batch = Dense(dim=51, n=60, most=1e39)
    for i, seed in enumerate(SEEDS):
        options = {"laplace": laplace, "float32": float32, "stream": i % 2}
        result, true = batch.by(drawing, grid, seed, **options), batch.compiled(grid, seed, **options)
        assert np.array_equal(result[0], true[0])
        assert np.array_equal(result[1], true[1])
        assert result[1][3] > 1000  # of 3,060
        assert len(np.unique(result[0][1])) > 1


@pytest.mark.parametrize(("dim", "n"), [(1, 1), (2, 3), (3, 0), (4, 1), (1030, 2), (5, 300)])
def test_dense_draws_of_any_size(dim, n):
    batch, options = Dense(dim, n), {"laplace": False, "float32": True}
    assert np.array_equal(batch.by(drawing, "bfloat16", 3, **options)[0], batch.compiled("bfloat16", 3, **options)[0])


def test_a_dense_trial_does_not_depend_on_its_batch():
    batch, options = Dense(dim=21, n=30), {"laplace": True, "float32": True}
    whole, overflows = batch.by(drawing, "float8_e5m2", 5, **options)
    for order in ([2], [3, 1, 0, 2]):
        result = batch.by(drawing, "float8_e5m2", 5, order=order, **options)
        assert np.array_equal(result[0], whole[order])
        assert np.array_equal(result[1], overflows[order])


@pytest.mark.parametrize("sigma", [1e-3, 1e39, 1e300])
@pytest.mark.parametrize("grid", GRIDS)
def test_given_noise_makes_the_compiled_rows(grid, sigma):
    z = np.random.default_rng(3).standard_normal((2, 50, 33)).astype(np.float32)
    base, (out, true) = np.linspace(-3, 3, 33).astype(np.float32), (room(grid, *z.shape) for _ in range(2))
    for float32 in (True, False):
        options = {"float32": float32, "shape": shape_of(grid)}
        overflows = drawing.perturb(torch.from_numpy(base), torch.from_numpy(z), sigma, out=out, **options)
        for t in range(2):
            around = base.astype(float), z[t], sigma, float32
            count = rounding.perturb(*around, *shape_of(grid), true[t].numpy())
            assert overflows[t] == count
        assert torch.equal(out, true)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("grid", GRIDS)
def test_values_are_rounded_as_the_compiled_code_does(grid, dtype):
    with np.errstate(over="ignore"):
        x = np.concatenate([values_at_edges(), np.random.default_rng(1).standard_normal(3000)]).astype(dtype)
    out, true = (room(grid, 3, len(x) // 3) for _ in range(2))
    x = x[: out.numel()].reshape(out.shape)
    noise, options = torch.from_numpy(x)[:, :, None], {"float32": False, "shape": shape_of(grid)}
    drawing.perturb(torch.zeros(1), noise, 1.0, **options, out=out[:, :, None])
    rounding.round_to_index(x.ravel(), *shape_of(grid), true.numpy().ravel())
    assert torch.equal(out, true)


# Sparse draws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("grid", ["bfloat16", "float16", "float8_e4m3fn"])
def test_sparse_draws_are_the_compiled_ones(grid, seed, monkeypatch):
    monkeypatch.setattr(drawing, "CHUNK", 10_000)  # several pieces
    batch = Sparse(grid)
    drawn = batch.compiled(seed)
    assert equal(batch.by(drawing, seed), drawn)
    moved = [(codes != 0).mean(axis=0) for codes in drawn]
    assert max(m.max() for m in moved) > 0.3  # often
    assert 0 < min(m[m > 0].min() for m in moved if m.any()) < 1 / 32  # seldom


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025, 3000])
def test_sparse_draws_of_any_size(n):
    batch = Sparse(n=n, dim=15, sigmas=(1e-5, 1e-3))  # up to 128 cells
    assert equal(batch.by(drawing, 5), batch.compiled(5))


@pytest.mark.parametrize("home", range(4))
def test_ties_with_a_threshold_are_settled_as_the_compiled_code_does(home):
    result, codes = tied(home), torch.zeros((1, 30_000, 1), dtype=torch.int8)
    drawing.draw_sparse(Lanes.of([result], [3], [2]), 5, codes)
    true = compiled_sparse(result, 30_000, 5, 3, 2)
    assert np.array_equal(codes[0].numpy(), true)
    assert set(np.unique(true + home)) >= {0, 3}


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_codes_go_where_they_are_asked_to(dtype):
    batch = Sparse(n=200)
    places = [np.arange(len(c.columns))[::-1] * 2 + 1 for c in batch.cells]
    for codes, place, drawn in zip(
        batch.by(drawing, 2**63 + 1, dtype=dtype, places=places), places, batch.compiled(2**63 + 1), strict=True
    ):
        assert np.array_equal(codes[:, place], drawn)
        assert not np.delete(codes, place, axis=1).any()


def test_a_sparse_trial_does_not_depend_on_its_batch():
    batch = Sparse(n=300)
    whole = batch.by(drawing, 7)
    for order in ([2], [3, 1, 0, 2]):
        assert np.array_equal(batch.by(drawing, 7, order=order), whole[order])


# Lanes ---------------------------------------------------------------------------------------------------------------


def test_cells_that_come_many_times_are_read_once():
    result = Sparse().cells[1]
    one, many = (Lanes.of([result] * n, [0] * n, range(n)) for n in (1, 50))
    assert np.array_equal(one.column, many.column)
    assert np.array_equal(one.edges, many.edges)
    assert len(many.often) == 50 * len(one.often) > 0
    assert len(many.seldom) == 50 * len(one.seldom) > 0
    assert np.array_equal(many.often[-len(one.often) :], np.array([[49, 0]]) + one.often)


def test_a_batch_may_be_empty_or_still():
    still = Snowball(base=np.ones(60, np.float32), n_tokens=5, sigma=1e-30).single_cells()
    for cells in ([], [still]):
        lanes = Lanes.of(cells, [0] * len(cells), [0] * len(cells))
        codes = torch.zeros((len(cells), 5, 1), dtype=torch.int8)
        drawing.draw_sparse(lanes, 5, codes)
        assert (len(lanes.often), len(lanes.seldom), int(codes.sum())) == (0, 0, 0)


def test_tables_lie_where_triton_need_not_compile_anew():
    batch = Sparse()
    for n in (1, 2, 3, 4):
        tables = Lanes.of(batch.cells[:n], batch.points[:n], batch.trials[:n]).tensors(torch.device("cpu"))
        assert {(part.data_ptr() - tables.points.data_ptr()) % 16 for part in vars(tables).values()} == {0}
        assert (
            tables.edges[: len(batch.cells[0].thresholds)].numpy().tolist()
            == batch.cells[0].thresholds.view(np.int64).tolist()
        )


@pytest.mark.parametrize("where", [([2**32], [0]), ([0], [-1])])
def test_points_and_trials_beyond_a_counter_are_refused(where):
    with pytest.raises(ValueError, match=r"must be from 0 to 2\*\*32 - 1, got"):
        Lanes.of(Sparse(sigmas=(1e-9,)).cells, *where)


# Triton --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interpreted():
    return kernels.in_a_process("interpret")["drawing"]


@pytest.fixture(scope="module")
def compiled():
    return kernels.in_a_process("compile")["drawing"]


@with_triton
@pytest.mark.parametrize("name", kernels.FACTS["drawing"])
def test_triton_agrees_on(name, interpreted):
    assert interpreted[name] == ""


@with_triton
def test_kernels_are_compiled_without_spills(compiled):
    assert len(compiled) == 10
    assert {name: of["stack"] for name, of in compiled.items() if of["stack"]} == {}


@with_triton
def test_a_gpu_fuses_where_the_cpu_does_and_rounds_every_operation_as_ieee_says(compiled):
    # A logarithm has 9 of them, a turn 15; a thread has four elements, so two of both, or four logarithms.
    fused = {"dense_kernel-gaussian": 2 * (9 + 15), "dense_kernel-laplace": 4 * 9, "seldom_kernel-sparse": 9}
    for name, facts in compiled.items():
        assert facts["fused"] == fused.get(name.rpartition("-")[0], 0)
        assert facts["loose"] == []
