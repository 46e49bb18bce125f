"""Targets: populations from a list, a census, a scan and a checkpoint, of which no more is measured than is needed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from untrained import two_populations

from darkvocab.snowballs.bases import qwen3_4b_centred
from darkvocab.snowballs.fit.run import Fit
from darkvocab.snowballs.fit.targets import load_target
from darkvocab.snowballs.snowball import Snowball, draw

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


def test_populations_are_read_from_a_list_a_census_and_a_scan(tmp_path):
    by_list = load_target("814, 704,306", 5)
    assert (by_list.partition.populations.tolist(), by_list.partition.n_tokens) == ([814, 704, 306], 1829)
    census = {"populations": [3, 2], "n_tokens": 9, "n_black_holes": 2, "n_singletons": 4, "n_unique": 6}
    (tmp_path / "census.json").write_text(json.dumps(census))
    assert load_target(tmp_path / "census.json").partition.n_singletons == 4
    scan = {"populations": [3, 2], "n_tokens": 100, "n_singletons": 95, "indicators": {"n_dark": 7}}
    (tmp_path / "scan.json").write_text(json.dumps(scan))
    assert load_target(tmp_path / "scan.json").partition.n_singletons == 2  # dark and alone
    assert load_target("5,3", "unknown").partition.n_tokens is None


def test_a_checkpoint_is_a_target_with_rows_grid_and_base(tmp_path):
    # 400 tokens around one vector on the float16 grid, and 2,000 others: their black holes are what is fitted.
    base = qwen3_4b_centred()[:300]
    cloud = draw(Snowball(base=base, n_tokens=400, sigma=3e-9, grid="float16"), seed=5)
    others = np.random.default_rng(1).normal(0, 0.02, (2000, 300)).astype(np.float16)
    np.save(tmp_path / "model.npy", np.concatenate([cloud.words().view(np.float16), others]))
    target = load_target(tmp_path / "model.npy")
    counts = cloud.groups().counts
    assert target.partition.populations.tolist() == sorted(counts[counts > 1].tolist(), reverse=True)
    assert (target.grid, target.dim, target.index.shape) == ("float16", 300, (int((counts > 1).sum()), 300))
    built = Fit(target, draws=100)
    assert built.hypothesis.grid == "float16"
    row = cloud.words()[cloud.groups().first[counts.argmax()]].view(np.float16)
    assert (built.base.vector == row).all()
    assert built.base.name == "the largest black hole of model.npy"
    around = Fit(target, base=base, singletons=None, draws=100)  # the vector that they were drawn around
    low, high = around.interval
    assert low / 1.2 < 3e-9 < high * 1.2
    result = around.result()
    assert result.gap is None or result.gap.log10_p > -4
    assert result.association is None or result.association.log10_p > -4


MEASURED = """
import json, sys
from darkvocab.snowballs.fit.targets import load_target
partition = load_target(sys.argv[1]).partition
modules = [name for name in sys.modules if name.startswith("darkvocab.")]
print(json.dumps([partition.populations.tolist(), partition.n_singletons, modules]))
"""


def test_of_a_checkpoint_what_a_scan_finds_is_fitted_and_no_more_is_measured(tmp_path):
    # 400 dark tokens, half of them in pairs. A scan also takes neighbours, steps to the nearest black hole and
    # distances between black holes, each by a kernel that is imported where it is used.
    rows = two_populations(3, 400, n_trained=4_000, dim=64)
    rows[1:200:2] = rows[0:200:2]
    np.save(tmp_path / "model.npy", rows)
    scanned = subprocess.run(
        [BIN / "darkvocab", "scan", tmp_path / "model.npy", "--json"], capture_output=True, text=True, check=True
    )
    (tmp_path / "scan.json").write_text(scanned.stdout)
    expected = load_target(tmp_path / "scan.json").partition
    line = [sys.executable, "-c", MEASURED, tmp_path / "model.npy"]
    populations, n_singletons, modules = json.loads(
        subprocess.run(line, capture_output=True, text=True, check=True).stdout
    )
    assert populations == expected.populations.tolist() == [2] * 100
    assert n_singletons == expected.n_singletons > 150
    assert "darkvocab.measures.indicators" in modules
    too_much = (
        "checkpoints",
        "measures.neighbours",
        "_backends.neighbours",
        "_backends.chebyshev",
    )
    assert [name for name in modules for part in too_much if part in name] == []
