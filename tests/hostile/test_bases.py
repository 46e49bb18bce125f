"""Sigma and base: what is refused before anything is drawn, and what is allowed."""

import json
import math

import numpy as np
import pytest

SIZE = 16


@pytest.fixture
def base_file(tmp_path):
    """Write an array as a `.npy` base."""

    def write(values, dtype=np.float32):
        path = tmp_path / "base.npy"
        np.save(path, np.asarray(values, dtype))
        return path

    return write


OVERFLOWS = ["1e38", "1e39", "1e308", "1e-9:1e38:5"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sigma", "says"),
    [
        ("-1e-9", "sigma must be finite and >= 0 (weight units), got -1e-09"),
        ("1e-9,-2e-9", "got -2e-09"),
        ("-1e-9:1e-9:3", "got -1e-09"),
        ("nan", "got nan"),
        ("nan:1e-9:3", "got nan"),
        ("inf", "got inf"),
        ("1e-9:inf:3", "got inf"),
        ("1e400", "got inf"),
        ("abc", "cannot read --sigma 'abc'"),
        ("", "cannot read --sigma ''"),
        (",", "cannot read --sigma ','"),
        ("1e-9,,2e-9", "give START:STOP:COUNT or a comma list"),
        ("1e-9:2e-9", "give START:STOP:COUNT or a comma list"),
        ("1e-9:2e-9:3:4", "give START:STOP:COUNT or a comma list"),
        ("1e-9:2e-9:0", "give START:STOP:COUNT or a comma list"),
        ("1e-9:2e-9:-3", "give START:STOP:COUNT or a comma list"),
        ("1e-9:2e-9:1.5", "give START:STOP:COUNT or a comma list"),
        ("1e-9:2e-9:99999999999999999999999", "give START:STOP:COUNT or a comma list"),
        ("\x1b[2J", r"cannot read --sigma '\x1b[2J'"),
        *((sigma, "overflows bfloat16") for sigma in OVERFLOWS),
    ],
)
def test_sigma_that_is_none_is_refused_before_anything_is_made(tmp_path, refuses, sigma, says):
    refuses("sweep", f"--sigma={sigma}", "--tokens", 20, "--out", tmp_path / "run", code=2, says=[says])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("grid", ["bfloat16", "float16", "float32", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("arithmetic", ["float32", "exact"])
@pytest.mark.parametrize("sampler", ["sparse", "dense"])
def test_sigma_that_overflows_its_grid_is_refused(tmp_path, refuses, grid, arithmetic, sampler):
    options = ["--grid", grid, "--arithmetic", arithmetic, "--sampler", sampler, "--out", tmp_path / "run"]
    refuses("sweep", "--sigma", "3e38", "--tokens", 20, *options, code=2, says=[f"overflows {grid}", "smaller sigma"])
    assert not (tmp_path / "run").exists()


def test_log_spacing_from_zero_is_refused(refuses):
    refuses("sweep", "--sigma", "0:1e-9:3", "--spacing", "log", code=2, says=["log spacing needs sigmas above 0"])


@pytest.mark.parametrize("sampler", ["sparse", "dense"])
def test_sigma_zero_is_one_black_hole(cli, sampler):
    result = cli("sweep", "--sigma", "0", "--tokens", 30, "--sampler", sampler, "--json")
    assert result.code == 0
    (record,) = json.loads(result.out)["records"]
    assert (record["n_black_holes"], record["black_hole_population"], record["n_singletons"]) == (1, 30, 0)


def test_base_whose_size_contradicts_dim_is_refused(base_file, refuses):
    path = base_file(np.ones(SIZE))
    refuses("sweep", "--sigma", "0", "--base", path, "--dim", 8, code=2, says=["'base.npy' has 16", "--dim says 8"])
    refuses("sweep", "--sigma", "0", "--dim", 8, code=2, says=["'qwen3-4b' has 2,560 components", "--dim says 8"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_base_with_a_component_that_is_no_number_is_refused(base_file, refuses, value, dtype):
    path = base_file([0, 1, value, value], dtype)
    refuses("sweep", "--sigma", "0", "--base", path, code=4, says=["'base.npy': component 2 is", "2 such"])


@pytest.mark.parametrize(
    ("shape", "says"), [((), "no 1-D tensor"), ((0,), "must be a vector"), ((1, 4), "no 1-D tensor")]
)
def test_base_that_is_no_vector_is_refused(base_file, refuses, shape, says):
    refuses("sweep", "--sigma", "0", "--base", base_file(np.zeros(shape)), code=2, says=["base.npy", says])


def test_base_file_without_a_vector_is_refused(checkpoint, refuses):
    path = checkpoint(np.zeros((2, 2)), name="base.safetensors")
    refuses("sweep", "--sigma", "0", "--base", path, code=2, says=["base.safetensors holds no 1-D tensor"])


def test_base_file_with_vectors_that_none_tells_apart_is_refused(checkpoint, refuses):
    path = checkpoint(None, name="base.safetensors", up=np.zeros(4), down=np.zeros(4))
    refuses("sweep", "--sigma", "0", "--base", path, code=2, says=["2 vectors (down, up), none named 'centroid'"])


def test_centroid_is_taken_among_vectors(checkpoint, cli):
    path = checkpoint(None, name="base.safetensors", up=np.zeros(4), centroid=np.zeros(8))
    result = cli("sweep", "--sigma", "0", "--tokens", 5, "--base", path, "--json")
    assert json.loads(result.out)["records"][0]["hidden_dim"] == 8


@pytest.mark.parametrize("base", ["nothing.safetensors", "qwen3", ""])
def test_missing_base_names_what_there_is(tmp_path, monkeypatch, refuses, base):
    monkeypatch.chdir(tmp_path)
    built_in = "neither built in (qwen3-4b, qwen3-4b-centred, random, random-unit) nor a file"
    refuses("sweep", "--sigma", "0", "--base", base, code=3, says=[built_in] if base else ["has none of"])


def test_base_of_unknown_suffix_is_refused(tmp_path, refuses):
    (tmp_path / "base.pkl").write_bytes(b"\x80\x04.")
    refuses("sweep", "--sigma", "0", "--base", tmp_path / "base.pkl", code=2, says=["cannot read 'base.pkl'"])


@pytest.mark.parametrize(("value", "grid"), [(1e300, "bfloat16"), (1e39, "float32"), (1e5, "float16")])
def test_base_beyond_its_grid_is_named(base_file, refuses, value, grid):
    path = base_file([0, value], np.float64)
    result = refuses("sweep", "--sigma", "0", "--base", path, "--grid", grid, code=2, says=["component 1 is", grid])
    assert "sigma" not in result.err


@pytest.mark.parametrize("epsilon", ["0", "-1", "nan", "inf"])
def test_epsilon_that_is_no_length_is_refused(refuses, epsilon):
    refuses("sweep", "--sigma", "0", f"--epsilon={epsilon}", code=2, says=["epsilon must be a finite length > 0"])


def test_epsilon_too_small_to_divide_by_is_refused(tmp_path, refuses):
    options = ["--tokens", 5, "--epsilon", "1e-320", "--out", tmp_path / "run"]
    refuses("sweep", "--sigma", "1e-9", *options, "--json", code=2, says=["epsilon"])
    assert not (tmp_path / "run").exists()


def test_smallest_numbers_are_allowed(base_file, cli):
    path = base_file([5e-324, -5e-324, 0.0, 1e-45], np.float64)
    result = cli("sweep", "--sigma", "5e-324", "--tokens", 5, "--base", path, "--json")
    assert (result.code, result.err.startswith("nothing was kept")) == (0, True)
    assert math.isfinite(json.loads(result.out)["records"][0]["sigma_over_median_ulp"])
