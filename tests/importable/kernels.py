"""Triton's kernels in a process of their own: facts in its interpreter, or what they compile to; JSON by area and name.

`kernels.py interpret`, `kernels.py compile`. No GPU is needed: launches are compiled, not run.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from functools import cache, partial

if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1" if sys.argv[1] == "interpret" else "0"  # before a kernel is decorated

import numpy as np
import plain_drawing as plain
import torch
from batches import SEEDS, Dense, Rows, Sparse, compiled_sparse, equal, room, shape_of, tied, values_at_edges

from darkvocab.numerics import GRIDS
from darkvocab.snowballs.on_device import Lanes

ARCHITECTURES = (80, 90)  # of GPUs: A100, H100


# In the interpreter ---------------------------------------------------------------------------------------------------


def drawing():
    from triton.language import constexpr

    from darkvocab.gpu.by_triton import drawing

    # Few programs: each costs some 50 ms.
    drawing.DENSE_BLOCK, drawing.TILE_BLOCKS = constexpr(256), constexpr(128)
    return drawing


def dense(grid, seed, *, dim=21, n=37, n_trials=2, **how):
    batch = Dense(dim, n, n_trials)
    for result, true in zip(batch.by(drawing(), grid, seed, **how), batch.compiled(grid, seed, **how), strict=True):
        assert np.array_equal(result, true)


def dense_sizes():
    for dim, n in ((1, 1), (3, 2), (5, 60), (1030, 1), (4, 0)):
        dense("bfloat16", 9, dim=dim, n=n, n_trials=1, laplace=False, float32=False, stream=1)


def tails():
    """Words on both sides of those that are given more bits, and others, to the last bit."""
    from deviating import deviate

    from darkvocab.numerics._backends import deviates

    seams = [0, 1, 2**20 - 1, 2**20, 2**31, 2**32 - 2**20 - 1, 2**32 - 2**20, 2**32 - 2, 2**32 - 1]
    words = np.random.default_rng(1).integers(0, 2**32, (4, 50), dtype=np.uint32)
    words[:, : len(seams)] = seams
    words[:, len(seams) : 30] >>= 12  # rare ones
    for laplace, seed in itertools.product((False, True), SEEDS):
        z, true = torch.zeros((4, 50), dtype=torch.float64), np.zeros((4, 50))
        deviate[(1,)](torch.from_numpy(words.view(np.int32)), z, 50, seed, 7, 3, 2, laplace, 64)
        key = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32), np.uint64(3), np.uint64(2)
        (deviates._laplaces if laplace else deviates._normals)(words, true)
        deviates._tails(np.uint64(7), laplace, np.uint64(0), *key, words, true)
        assert np.array_equal(z.numpy(), true)


def dense_alone():
    batch, options = Dense(21, 37, 2), {"laplace": True, "float32": True}
    both = batch.by(drawing(), "float8_e5m2", 5, **options)
    for result, alone in zip(both, batch.by(drawing(), "float8_e5m2", 5, order=[1], **options), strict=True):
        assert np.array_equal(result[[1]], alone)


def given_noise():
    import perturbing

    z = torch.from_numpy(np.random.default_rng(3).standard_normal((2, 50, 33)).astype(np.float32))
    base = torch.from_numpy(np.linspace(-3, 3, 33))
    for grid, float32, sigma in itertools.product(GRIDS, (False, True), (1e-3, 1e39, 1e300)):
        one, other = room(grid, *z.shape), room(grid, *z.shape)
        options = {"float32": float32, "shape": shape_of(grid)}
        overflows = perturbing.perturb(base, z, sigma, out=one, **options)
        assert torch.equal(overflows, plain.perturb(base, z, sigma, out=other, **options))
        assert torch.equal(one, other)


def rounded():
    import perturbing

    x = torch.from_numpy(values_at_edges())
    for grid, values in itertools.product(GRIDS, (x, x.float())):
        one, other = room(grid, len(x)), room(grid, len(x))
        noise, options = values[None, :, None], {"float32": False, "shape": shape_of(grid)}
        for by, out in ((perturbing, one), (plain, other)):
            by.perturb(torch.zeros(1), noise, 1.0, **options, out=out[None, :, None])
        assert torch.equal(one, other)


def sparse(grid, seed, **how):
    batch = Sparse(grid, **how)
    assert equal(batch.by(drawing(), seed), batch.compiled(seed))


def sparse_sizes():
    for n in (0, 1, 1023, 1025):
        sparse("bfloat16", 11, n=n, dim=4, sigmas=(1e-7,))


def sparse_places():
    batch = Sparse(n=70, dim=10)
    whole = batch.by(drawing(), 2**63 + 1, dtype=torch.int16)
    assert np.array_equal(batch.by(drawing(), 2**63 + 1, order=[3, 0], dtype=torch.int16), whole[[3, 0]])
    places = [np.arange(len(c.columns))[::-1] * 2 + 1 for c in batch.cells]
    for codes, place, of_trial in zip(batch.by(drawing(), 2**63 + 1, places=places), places, whole, strict=True):
        assert np.array_equal(codes[:, place], of_trial[:, : len(place)])


def ties():
    result = tied(home=1)
    codes = torch.zeros((1, 2000, 1), dtype=torch.int8)
    drawing().draw_sparse(Lanes.of([result], [0], [0]), 5, codes)
    assert np.array_equal(codes[0].numpy(), compiled_sparse(result, 2000, 5, 0, 0))


def hashed(bits, n_trials, n, dim):
    from darkvocab.gpu.by_triton import grouping

    rows = Rows(bits, n_trials, n, dim)
    for folded in (True, False):
        for result, true in zip(grouping.hash_rows(*rows.tensors(), folded), rows.compiled(folded), strict=True):
            assert np.array_equal(result.numpy(), true)


def led(bits, n_trials, n, dim):
    from darkvocab.gpu.by_triton import grouping

    rows = Rows(bits, n_trials, n, dim)
    for folded in (True, False):
        leader, collided = grouping.leaders(*rows.tensors(), folded)
        assert np.array_equal(leader.numpy(), rows.leaders(folded))
        assert not collided.any()


def collisions():
    from darkvocab.gpu.by_triton import grouping

    rows = Rows(16, 3, 40, 6)
    rows.words[1] = rows.words[1, 0]  # all alike: nothing to tell apart
    words, keys = rows.tensors()
    assert grouping.leaders(words, keys * 0, True)[1].tolist() == [True, False, True]


SHAPES = [(3, 50, 5), (1, 9, 16), (2, 10, 600), (1, 20, 640), (1, 300, 48), (2, 1, 7), (2, 0, 3), (2, 3, 0)]
FACTS = {
    "drawing": {
        f"a dense draw of {grid}, {'laplace' if laplace else 'gaussian'}": partial(
            dense, grid, SEEDS[i], laplace=laplace, float32=i % 2 == laplace, stream=i % 2
        )
        for i, grid in enumerate(GRIDS)
        for laplace in (False, True)
    }
    | {
        "dense draws of any size": dense_sizes,
        "deviates of rare and other words": tails,
        "a dense trial alone and in a batch": dense_alone,
        "given noise": given_noise,
        "rounding": rounded,
        "a sparse draw of bfloat16": partial(sparse, "bfloat16", SEEDS[2], n=200, dim=16),
        "a sparse draw of float16": partial(sparse, "float16", SEEDS[3], n=200, dim=16),
        "a sparse draw of float8_e4m3fn": partial(sparse, "float8_e4m3fn", SEEDS[4], n=200, dim=16),
        "a sparse draw of up to 128 cells": partial(sparse, "bfloat16", 3, n=100, dim=12, sigmas=(1e-3, 1e-9)),
        "sparse draws of any size": sparse_sizes,
        "sparse draws in any order and at any place": sparse_places,
        "ties with a threshold": ties,
    },
    "grouping": {
        f"{name} of {bits}-bit words, {' x '.join(map(str, shape))}": partial(fact, bits, *shape)
        for name, fact in (("hashes", hashed), ("leaders", led))
        for bits in (8, 16, 32)
        for shape in SHAPES
    }
    | {"rows of one hash that differ": collisions},
}


# Compiled -------------------------------------------------------------------------------------------------------------


def compiled(launches):
    """Facts of every kernel that these launch, by "kernel-variant-architecture"."""
    from compiling import compiled

    for architecture, (variant, work) in itertools.product(ARCHITECTURES, launches):
        with tempfile.TemporaryDirectory() as folder:
            for name, result in compiled(work, architecture, folder):
                yield f"{name}-{variant}-{architecture}", facts(result)


def facts(kernel):
    loose = r"\S*\.(?:ftz|approx|full)\S*|fma\S*f32|(?:mul|add|sub|mad)\.f(?:32|64)"
    return {
        "registers": kernel.registers,
        "stack": kernel.stack,
        "fused": kernel.ptx.count("fma.rn.f64"),
        "loose": sorted(set(re.findall(loose, kernel.ptx))),  # what is not IEEE's operation, or may yet be fused
        "wide_loads": len(re.findall(r"ld\.global(?:\.\w+)*\.v4\.b32|ld\.global(?:\.\w+)*\.v2\.b64", kernel.ptx)),
    }


def drawing_launches():
    import perturbing

    from darkvocab.gpu.by_triton import drawing as ours

    number = torch.zeros(256, dtype=torch.int64)
    out, base = torch.empty((256, 2100, 2560), dtype=torch.int16), torch.zeros((1, 2560), dtype=torch.float64)
    where = base, number, number.double(), number, number, 2**64 - 1

    def dense(laplace, float32):
        options = {"laplace": laplace, "float32": float32, "stream": 0, "shape": shape_of("bfloat16")}
        ours.draw_dense(*where, **options, out=out)

    yield "gaussian", lambda: dense(False, True)
    yield "laplace", lambda: dense(True, False)
    noise = torch.empty((1, 2100, 2560))
    options = {"float32": True, "shape": shape_of("bfloat16")}
    yield "float32", lambda: perturbing.perturb(base[0].float(), noise, 1e-3, **options, out=out[:1])
    batch = Sparse(sigmas=(1e-6, 3e-9))
    lanes = Lanes.of(batch.cells, (0, 0), (0, 1))
    yield "sparse", lambda: ours.draw_sparse(lanes, 2**63, torch.empty((2, 1100, 60), dtype=torch.int8))


def grouping_launches():
    from darkvocab.gpu.by_triton import grouping as ours

    kinds = {
        "scan": ((1, 151_936, 2560), torch.int16),
        "dense": ((512, 2100, 2560), torch.int16),
        "float32": ((1, 151_936, 2560), torch.int32),
        "sparse": ((512, 2100, 48), torch.int8),
        "scattered": ((512, 2100, 37), torch.int8),
    }
    for name, (shape, dtype) in kinds.items():
        words, keys = torch.empty(shape, dtype=dtype), torch.empty(shape[2], dtype=torch.int64)
        hashes = torch.zeros(shape[:2], dtype=torch.int64)
        yield name, lambda w=words, k=keys: ours.hash_rows(w, k, True)
        yield name, lambda w=words, k=keys, h=hashes: ours.leaders(w, k, True, h)


LAUNCHES = {"drawing": drawing_launches, "grouping": grouping_launches}


@cache
def in_a_process(what):
    """Return the results of `main`, by area and name."""
    done = subprocess.run([sys.executable, __file__, what], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def main(what):
    if what == "compile":
        result = {area: dict(compiled(list(launches()))) for area, launches in LAUNCHES.items()}
    else:
        from fusing import fuse  # needs Triton, which this module's importers do not

        fuse()
        result = {area: {name: fails(fact) for name, fact in facts.items()} for area, facts in FACTS.items()}
    json.dump(result, sys.stdout)


def fails(fact):
    """The traceback of a fact that does not hold."""
    try:
        fact()
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    main(*sys.argv[1:])
