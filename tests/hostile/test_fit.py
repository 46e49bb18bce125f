"""Targets that contradict themselves, and settings without sense: a sentence each, and the exit code."""

import json

import numpy as np
import pytest

from darkvocab import fit
from darkvocab.errors import CorruptFile
from darkvocab.snowballs.bases import qwen3_4b_centred
from darkvocab.snowballs.fit.run import Fit


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ("814,1", {}, "a black hole holds two tokens or more, not 1"),
        ("0", {}, "not 0"),
        ("814,704", {"singletons": "-3"}, "--singletons is a number >= 0, or unknown"),
        ("814,704", {"singletons": "few"}, "or unknown; got 'few'"),
        ("814", {"level": 1.0}, "level must lie between 0 and 1"),
        ("814", {"level": float("nan")}, "level must lie between 0 and 1"),
        ("814", {"draws": 3}, "draws must be >= 20"),
        ("814", {"offset": 0.7}, "offset must lie between 0 and 0.5"),
        ("814", {"offset": "some"}, "offset is a number"),
        ("814", {"grid": "bf16"}, "unknown grid 'bf16'"),
        ("814", {"distribution": "cauchy"}, "unknown distribution 'cauchy'"),
        ("814", {"distribution": "uniform-ball"}, "depend on one another"),
        ("814", {"distribution": "uniform"}, "uniform noise cannot be drawn, as a fit does; choose one of gaussian"),
        ("814", {"arithmetic": "double"}, "unknown arithmetic 'double'"),
        ("qwen3-4b", {"grid": "float16"}, "is on bfloat16, not float16"),
        ("qwen3-4b", {"base": np.ones(7, np.float32)}, "has 7 components"),
        ("9999999,3", {}, "of 1,000,000 tokens at most"),
        ("9" * 30, {}, "more than 1e15 tokens"),
    ],
)
def test_settings_without_sense_are_refused(target, settings, message):
    with pytest.raises(ValueError, match=message):
        Fit(target, **settings)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ({"populations": [5, 3], "n_tokens": 6}, ValueError, "8 tokens among 6"),
        ({"populations": [5, 3], "n_tokens": 9, "n_singletons": 5}, ValueError, "n_tokens is 9, by its populations 13"),
        ({"populations": [5, 3], "n_singletons": 2, "n_unique": 9}, ValueError, "n_unique is 9, by its populations 4"),
        ({"populations": [5, 3], "n_black_holes": 4}, ValueError, "n_black_holes is 4, by its populations 2"),
        ({"populations": [5, 1]}, ValueError, "not 1"),
        ({"populations": [5, "3"]}, ValueError, "'3' is no population"),
        ({"populations": [5, True]}, ValueError, "is no population"),
        ({"populations": []}, ValueError, "nothing to fit"),
        ({"populations": [], "n_singletons": 9, "indicators": {"n_dark": 3}}, ValueError, "has no black holes"),
        ({"populations": [5], "hidden_dim": 384}, ValueError, "has 2,560 components, census.json has 384; give the"),
        ({"populations": [5], "n_singletons": -2}, CorruptFile, "n_singletons is no count"),
        ({"populations": [5], "n_tokens": 5.5}, CorruptFile, "n_tokens is no count"),
        ({"rows": 3}, CorruptFile, "no list of populations"),
        ([5, 3], CorruptFile, "no list of populations"),
        ("{", CorruptFile, "is not JSON"),
        ("[" * 100_000, CorruptFile, "is not JSON"),
        (b"\xff\xfe\x00", CorruptFile, "is not JSON"),
    ],
)
def test_targets_that_contradict_themselves_are_refused(content, kind, message, tmp_path):
    path = tmp_path / "census.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(kind, match=message):
        fit(path)


def test_populations_that_no_sigma_makes_are_told():
    # One column of a grid of 8 bits has too few cells for four hundred groups.
    with pytest.raises(ArithmeticError, match="underflows everywhere"):
        fit(",".join(["100"] * 400), base=np.array([1.0], np.float32), grid="float8_e5m2")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--target", "nowhere.json"], 3, "no target 'nowhere.json'"),
        (["--target", "814,1"], 2, "two tokens or more"),
        (["--target", "814", "--offset", "much"], 2, "--offset is a number"),
        (["--target", "814", "--figure", "fit.gif"], 2, "cannot draw fit.gif"),
        (["--target", "814", "--base", "nothing.npy"], 3, "no base 'nothing.npy'"),
        ([], 2, ""),
    ],
)
def test_the_command_says_what_is_wrong(options, code, message, cli):
    result = cli("fit", *options)
    assert result.code == code
    assert message in result.err


@pytest.mark.parametrize("command", ["fit --target 5,3 --draws 20", "expect --sigma 3e-9"])
def test_what_was_found_is_printed_where_no_figure_can_be_written(command, tmp_path, cli):
    figure = tmp_path / "nowhere" / "figure.png"
    result = cli(*command.split(), "--figure", figure)
    assert result.code == 2
    assert f"cannot write {figure}" in result.err
    assert "black holes" in result.out


def test_tokens_far_from_any_grid_step_bound_nothing_and_say_so():
    result = Fit("3,2", base=qwen3_4b_centred()[:2])
    low, high = result.interval
    assert low < high
