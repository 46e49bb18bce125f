"""`expect`: what cannot be expected is refused in a sentence, and what is printed is JSON that anyone reads."""

import json
import math

import numpy as np
import pytest

SWEPT = ["sweep", "--sigma", "1e-9,3e-9,1e-8", "--tokens", "60", "--trials", "20", "--measure", "census"]


def finite(value):
    """Every number of a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def strict(text):
    """JSON as jq reads it: no NaN, no Infinity."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tokens", "0"], "n_tokens must be 1 to 1e15, got 0"),
        (["--tokens", "-5"], "n_tokens must be 1 to 1e15, got -5"),
        (["--tokens", str(10**15 + 1)], "n_tokens must be 1 to 1e15"),
        (["--tokens", str(10**400)], "n_tokens must be 1 to 1e15"),
        (["--distribution", "cauchy"], "unknown distribution 'cauchy'; choose one of gaussian, laplace, uniform"),
        (["--distribution", "uniform-ball"], "uniform-ball noise depend on one another"),
        (["--sigma", "3e38"], "sigma 3e+38 overflows bfloat16"),
        (["--sigma", "-1"], "sigma must be finite and >= 0"),
        (["--sigma", "nan"], "sigma must be finite and >= 0"),
        (["--sigma", "1:2"], "cannot read --sigma '1:2'"),
        (["--sigma", "0:1:3", "--spacing", "log"], "a log spacing needs sigmas above 0"),
        (["--spacing", "cubic"], "unknown spacing 'cubic'; choose linear or log"),
        (["--dim", "0"], "dim must be >= 1, got 0"),
        (["--dim", "7"], "leave --dim out"),
        (["--grid", "bf16"], "unknown grid 'bf16'; choose one of bfloat16"),
        (["--arithmetic", "float8"], "unknown arithmetic 'float8'; choose one of float32, exact"),
        (["--seed", "-1"], "seed must be from 0 to 2**64 - 1, got -1"),
        (["--redraw-base"], "only a drawn base (random, random-unit) can be redrawn"),
        (["--figure", "expected.svg"], "cannot draw expected.svg: a figure's name ends with .png or .pdf"),
        (["--run", "."], "--run has sigma of its own; leave --sigma out"),
    ],
)
def test_setting_that_is_wrong_is_refused(refuses, arguments, says):
    refuses("expect", "--sigma", "1e-9", *arguments, code=2, says=[says])


def test_neither_sigma_nor_run_is_refused(refuses):
    refuses("expect", "--tokens", "5", code=2, says=["give --sigma, such as 1e-9:5e-9:100, or the --run of a sweep"])


def test_more_than_memory_holds_is_refused(refuses):
    refuses("expect", "--sigma", "1e-9", "--base", "random", "--dim", str(10**16), code=2, says=["memory"])


def test_base_that_is_not_there_is_refused(refuses):
    refuses("expect", "--sigma", "1e-9", "--base", "nothing.npy", code=3, says=["no base 'nothing.npy'"])


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [1, 2, 2100, 10**15])
def test_json_is_finite_for_any_number_of_tokens_and_any_sigma(cli, tokens):
    sigmas = "0,1e-45,1e-12,1e-9,5e-9,1e-8,1e-7,1e-3,1,1e30"
    result = cli("expect", "--sigma", sigmas, "--tokens", tokens, "--json")
    assert result.code == 0, result.err
    points = strict(result.out)["points"]
    assert len(points) == 10
    assert finite(points)
    assert {"sigma", "unique_vectors", "n_black_holes", "black_hole_population", "n_singletons"} < set(points[0])


@pytest.mark.parametrize("grid", ["float32", "float16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("distribution", ["gaussian", "laplace", "uniform"])
def test_json_is_finite_on_every_grid(cli, grid, distribution):
    sigmas = "0,1e-12,1e-9,1e-6,1e-3,1"
    result = cli("expect", "--sigma", sigmas, "--grid", grid, "--distribution", distribution, "--json")
    assert result.code == 0, result.err
    assert finite(strict(result.out))


@pytest.mark.slow
def test_a_run_is_held_against_theory(cli, tmp_path):
    assert cli(*SWEPT, "--out", tmp_path / "run").code == 0
    built = cli("expect", "--run", tmp_path / "run", "--json", "--figure", tmp_path / "it.pdf")
    assert built.code == 0, built.err
    result = strict(built.out)
    assert set(result) == {"agreement", "points", "comparisons"}
    assert (result["agreement"]["agrees"], result["agreement"]["n_compared"]) == (True, 12)
    assert [point["sigma"] for point in result["points"]] == [1e-9, 3e-9, 1e-8]
    assert (tmp_path / "it.pdf").read_bytes().startswith(b"%PDF")
    table = cli("expect", "--run", tmp_path / "run")
    assert "The simulation agrees with theory" in table.out


@pytest.mark.slow
def test_a_run_that_does_not_agree_ends_with_1(cli, tmp_path):
    assert cli(*SWEPT, "--out", tmp_path / "run").code == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    manifest["parameters"]["grid"] = "float16"
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    result = cli("expect", "--run", tmp_path / "run")
    assert result.code == 1
    assert "DOES NOT agree" in result.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "says"),
    [
        (["questions", "--sigma", "1e-6", "--tokens", "20", "--dim", "8"], "holds a run of questions"),
        ([*SWEPT, "--distribution", "uniform-shell"], "uniform-shell noise depend on one another"),
        (["sweep", "--sigma", "1e-9", "--tokens", "0"], "n_tokens must be 1 to 1e15, got 0"),
    ],
)
def test_run_of_which_theory_says_nothing_is_refused(cli, refuses, tmp_path, experiment, says):
    assert cli(*experiment, "--out", tmp_path / "run").code == 0
    refuses("expect", "--run", tmp_path / "run", code=2, says=[says])


def test_training_has_no_records_to_hold_against_theory(refuses, tmp_path):
    manifest = {"schema_version": 1, "experiment": "train", "command": "darkvocab train", "parameters": {}, "seed": 1}
    manifest |= {"packages": {}, "inputs": [], "status": "complete"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    refuses("expect", "--run", tmp_path, code=3, says=["holds a training"])


def test_run_that_is_not_there_is_refused(refuses, tmp_path):
    refuses("expect", "--run", tmp_path / "nothing", code=3, says=["holds no run"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["manifest.json", "records.parquet"])
def test_damaged_run_is_corrupt(cli, refuses, tmp_path, name):
    assert cli(*SWEPT, "--out", tmp_path / "run").code == 0
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refuses("expect", "--run", tmp_path / "run", code=4, says=[name])


@pytest.mark.slow
def test_base_of_another_size_is_another_base(cli, refuses, tmp_path):
    path = tmp_path / "base.npy"
    np.save(path, np.linspace(0.001, 0.02, 50, dtype=np.float32))
    assert cli(*SWEPT, "--base", path, "--out", tmp_path / "run").code == 0
    np.save(path, np.linspace(0.001, 0.02, 60, dtype=np.float32))
    refuses("expect", "--run", tmp_path / "run", code=2, says=["is another now", "put back the one"])
    path.unlink()
    refuses("expect", "--run", tmp_path / "run", code=3, says=["is not there any more"])
