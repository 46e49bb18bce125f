"""The published figures."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from darkvocab import reproduce
from darkvocab.measures.geometry import Geometry
from darkvocab.notebooks.recipes import AGREES, UNCHECKED, sweep_12_2a
from darkvocab.numerics import encode, to_index
from darkvocab.snowballs.bases import load_base, qwen3_4b, qwen3_4b_centred, recorded, varying_words
from darkvocab.training.outcome import read_ends, token_distances

DARKVOCAB = Path(sys.executable).parent / "darkvocab"
START = ("unique rows", "black holes C0", "population P0")


def test_12_1a_agrees_to_the_last_printed_digit():
    pytest.importorskip("torch")
    rows = reproduce("12.1a")
    assert {row.agrees for row in rows} == {AGREES}
    inside = [(row.figure.strip(), row.here) for row in rows]
    assert ("max L-inf over all tokens", "4.39e-05") in inside
    assert inside.index(("largest", "120")) < inside.index(("population P", "123"))


@pytest.mark.slow
def test_the_initial_state_of_11_2c_agrees_to_the_last_printed_digit():
    pytest.importorskip("transformers")
    rows = reproduce("11.2c-init")
    assert [(row.here, row.agrees) for row in rows] == [
        (figure, AGREES) for figure in ("116,480", "8.201394", "21", "15", "122")
    ]


@pytest.mark.slow
def test_12_2a_says_what_it_cannot_check():
    rows = reproduce("12.2a")
    assert [row.agrees for row in rows] == [AGREES] * 3 + [UNCHECKED] * 5
    assert all("centroid" in row.note for row in rows[3:])


def test_12_2a_with_a_centroid_file_is_the_notebooks_sweep(tmp_path):
    pytest.importorskip("torch")
    np.save(tmp_path / "theirs.npy", qwen3_4b_centred())
    settings = sweep_12_2a(tmp_path / "theirs.npy")
    assert (settings.sampler, settings.n_tokens, settings.dim, len(settings), settings.seed) == (
        *("notebook", 2100, 2560, 1000),
        42,
    )
    assert list(settings.sigmas) == np.linspace(1.5e-9, 5e-9, 1000).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["12.1a", "11.2c-init"])
def test_without_torch_the_error_names_the_command_to_install_it(recipe, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    run = subprocess.run(
        [DARKVOCAB, "reproduce", recipe], capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path), "HOME": "/"}
    )
    assert run.returncode == 3
    assert "pip install 'darkvocab[train]'" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match=r"choose one of 12\.2a"):
        reproduce("12.3a")


def test_the_recorded_base_has_every_recorded_word_and_the_whole_histogram():
    facts = recorded()["largest_black_hole"]
    words = encode(qwen3_4b(), "bfloat16")
    assert np.array_equal(words.astype(np.uint32) << 16, qwen3_4b().view(np.uint32))  # on the lattice
    assert {int(d): int(words[int(d)]) for d in facts["words"]} == {int(d): w for d, w in facts["words"].items()}
    exponent = words >> 7 & 0xFF
    assert all(exponent[int(d)] == e for d, e in facts["exponents"].items())
    values, counts = np.unique(exponent, return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {
        int(e): n for e, n in facts["exponent_histogram_biased"].items()
    }


def test_the_recorded_base_has_the_recorded_scalars():
    base, facts = qwen3_4b().astype(np.float64), recorded()["largest_black_hole"]["scalars_float32"]
    assert np.linalg.norm(base) == pytest.approx(facts["norm"], abs=1e-4)
    assert (base.min(), base.max()) == pytest.approx((facts["min"], facts["max"]), abs=1e-6)
    assert base.mean() == pytest.approx(facts["mean"], abs=1e-7)
    assert base.std() == pytest.approx(facts["std"], abs=1e-5)
    assert np.abs(base).mean() == pytest.approx(facts["mean_abs"], rel=0.02)  # not fitted: a check of the filling-in
    assert np.median(np.abs(base)) == pytest.approx(facts["median_abs"], rel=0.02)


def test_the_centred_base_has_the_published_statistics():
    base, facts = qwen3_4b_centred().astype(np.float64), recorded()["centred_centroid"]
    assert f"{np.linalg.norm(base):.6f}" == "0.166061"
    assert base.std() == pytest.approx(3.28e-3, abs=5e-6)
    for q, magnitude in facts["magnitude_percentiles"].items():
        assert np.percentile(np.abs(base), float(q)) == pytest.approx(magnitude, rel=3e-3)
    assert (base.min(), base.max()) == pytest.approx((facts["min"], facts["max"]), rel=1e-6)
    assert base.mean() == pytest.approx(facts["mean"], abs=1e-8)
    assert np.sort(base)[1279] == pytest.approx(facts["median"], rel=1e-6)
    assert (encode(base, "bfloat16").astype(np.uint32) << 16 != qwen3_4b_centred().view(np.uint32)).mean() > 0.9


def test_built_in_bases_are_the_same_everywhere():
    hashes = {name: load_base(name).sha256 for name in ("qwen3-4b", "qwen3-4b-centred")}
    assert hashes == {
        "qwen3-4b": "250736c94b3fc26f90d7eb1e8a711eefeb83caea63658d480ff7ec97b9bbd6d4",
        "qwen3-4b-centred": "52a7d6002574370eb2c3e3c420f44691020bdc88484b9972103a1d3230cbcd56",
    }


def test_the_thirteen_recorded_rows_have_the_published_geometry():
    g = Geometry(to_index(varying_words(), "bfloat16"), "bfloat16")
    assert (f"{g.weight.max:.6e}", f"{g.weight.mean:.6e}") == ("6.103516e-05", "2.895315e-05")


@pytest.fixture
def short(tmp_path):
    """Reproduce a training of 11.2 in fewer steps than its 10,000; returns the rows by figure, and the run folder."""

    def run(recipe, steps):
        rows = {row.figure.strip(): row for row in reproduce(recipe, steps=steps, out=tmp_path / "run")}
        for name in ("parameters", *(f"{name} at the start" for name in START)):
            assert rows[name].agrees == AGREES, rows[name]
        assert rows["unseen tokens"].agrees == UNCHECKED
        assert "loss logged at step 10,000" not in rows
        return rows, tmp_path / "run"

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "steps", "n_apart", "n_rows"), [("11.2c", 100, 10, 9), ("11.2a", 20, 0, 1)])
def test_a_short_training_of_11_2_starts_as_published_and_its_unseen_tokens_gather(
    recipe, steps, n_apart, n_rows, short
):
    # Seen of 11.2c with 16 seeds each on AVX-512, with batches cut into 2 and 8 parts, and on AVX2: 33.2 +- 0.8 of 34
    # unseen tokens share rows (at least 31), and 2.8 +- 1.1 rows are shared (at most 5), alike on all three: the bounds
    # lie 11 and 5 standard deviations off. In 11.2a, where they start as one and are moved alike, all are in one row:
    # with 48 seeds on AVX-512 and 12 on AVX2.
    rows, _ = short(recipe, steps)
    (held,) = (row for name, row in rows.items() if name.startswith("population P of unseen tokens"))
    assert int(held.here.split()[0]) >= int(rows["unseen tokens"].here) - n_apart
    assert int(rows["black holes C at the end, few"].here) <= n_rows
    assert ("loss logged at step 100" in rows) == (recipe == "11.2c")


@pytest.mark.slow
def test_a_short_training_of_11_2b_keeps_its_unseen_tokens_within_the_grain_of_the_noise(short):
    # How many share a row is a matter of where their components lie after so few steps: 0 to 34 of 34, 17 on average
    # over 68 seeds (on AVX-512, with batches cut into 2 and 8 parts, and on AVX2); after 150 steps 0 to 26, 1.8 on
    # average. But noise moves only components next to 0, where the grid is fine enough: unseen tokens differ in
    # 3.4 +- 1.7 of 64, at most 7 (of more than 16 the chance is 1e-7, were it Poisson's). Their largest distance is
    # 0.26% of that between seen ones, at most 2.2%; of its logarithm 1/8 is 9 standard deviations off.
    _, run = short("11.2b", 20)
    history, (_, last) = read_ends(run)
    unseen = np.array(history.unseen)
    differing = (last[unseen] != last[unseen][0]).any(axis=0).sum()
    assert differing <= 16
    seen = np.delete(last, unseen, axis=0)
    assert token_distances(last[unseen], history.grid).weight.max < token_distances(seen, history.grid).weight.max / 8
