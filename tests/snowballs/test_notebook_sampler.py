"""The notebook sampler draws torch's own numbers in the notebooks' order."""

import numpy as np
import pytest

from darkvocab import sweep
from darkvocab.numerics import to_index

torch = pytest.importorskip("torch")


def plain(rows):
    """Seed 000's measure_snowball, for bfloat16 rows in float32."""
    unique, counts = torch.unique(rows, dim=0, return_counts=True)
    holes = unique[counts >= 2]
    if len(holes) > 1:
        cube = (holes.unsqueeze(1) - holes.unsqueeze(0)).abs().max(dim=2)[0]
        pairs = cube[~torch.eye(len(holes), dtype=torch.bool)]
        l_inf = pairs.max().item(), pairs.mean().item(), pairs.median().item()
    else:
        l_inf = 0.0, 0.0, 0.0
    return len(unique), len(holes), int(counts[counts >= 2].sum()), int(counts.max()), l_inf


def ours(record):
    return (
        record.unique_vectors,
        record.n_black_holes,
        record.black_hole_population,
        record.largest_bh,
        (record.max_l_inf, pytest.approx(record.mean_l_inf, rel=1e-6), record.median_l_inf),
    )


@pytest.mark.slow
def test_the_sweep_is_the_notebooks_to_the_bit(tmp_path):
    base = (torch.randn(96, generator=torch.Generator().manual_seed(1)) * 3e-3).numpy()
    np.save(tmp_path / "base.npy", base)
    sigmas = np.linspace(2e-8, 2e-7, 12)
    records = list(sweep(sigmas, n_tokens=200, base=tmp_path / "base.npy", sampler="notebook", seed=42, workers=3))
    in_memory = list(sweep(sigmas, n_tokens=200, base=base, sampler="notebook", seed=42))
    assert [(r.unique_vectors, r.max_l_inf) for r in in_memory] == [(r.unique_vectors, r.max_l_inf) for r in records]
    torch.manual_seed(42)
    result = 0
    for sigma, record in zip(sigmas, records, strict=True):
        noise = torch.randn(200, 96, dtype=torch.float32) * sigma
        rows = (torch.from_numpy(base).unsqueeze(0) + noise).to(torch.bfloat16).to(torch.float32)
        assert plain(rows) == ours(record)
        result += record.n_black_holes
    assert result > 20


@pytest.mark.parametrize("redraw", [False, True])
def test_a_drawn_base_comes_from_the_same_stream_before_the_noise(redraw):
    records = list(
        sweep([1e-5, 1e-5, 2e-5], n_tokens=128, dim=64, base="random", redraw_base=redraw, sampler="notebook", seed=3)
    )
    torch.manual_seed(3)
    base = None
    for record in records:
        if redraw or base is None:
            base = torch.randn(64)
        rows = (base + torch.randn(128, 64) * record.sigma).to(torch.bfloat16).to(torch.float32)
        assert plain(rows) == ours(record)


def test_the_global_generator_of_torch_is_left_alone():
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    next(sweep([1e-5], n_tokens=16, dim=16, base="random", sampler="notebook"))
    assert torch.equal(torch.randn(3), expected)


def test_a_notebook_run_resumes_to_the_same_bytes(tmp_path):
    settings = {"n_tokens": 128, "dim": 64, "base": "random", "redraw_base": True, "sampler": "notebook"}
    sigmas = np.linspace(1e-6, 1e-5, 33)
    list(sweep(sigmas, out=tmp_path / "whole", **settings))
    running = sweep(sigmas, out=tmp_path / "stopped", **settings)
    for _ in range(10):
        next(running)
    running.close()
    list(sweep(sigmas, out=tmp_path / "stopped", resume=True, **settings))
    assert (tmp_path / "stopped" / "records.csv").read_bytes() == (tmp_path / "whole" / "records.csv").read_bytes()


def test_words_of_a_cloud_are_torchs_bits():
    from darkvocab import Snowball
    from darkvocab.runs.randomness import NotebookStream
    from darkvocab.snowballs.snowball import perturb

    base, noise = NotebookStream(9).base("random", 64), NotebookStream(10).noise(50, 64)
    torch.manual_seed(10)
    rows = (torch.from_numpy(base) + torch.randn(50, 64) * 1e-4).to(torch.bfloat16)
    cloud = perturb(Snowball(base=base, n_tokens=50, sigma=1e-4), noise)
    assert np.array_equal(cloud.index(), to_index(rows.view(torch.int16).numpy().view(np.uint16), "bfloat16"))
