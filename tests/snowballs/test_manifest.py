"""Manifests: every setting as data; the command that is derived from them gives the same settings again."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.main import get_command

from darkvocab import report
from darkvocab.cli import app
from darkvocab.cli.snowballs import PRINTED, RUNNING, settings_of
from darkvocab.errors import CorruptFile, MissingFile
from darkvocab.numerics import Touching
from darkvocab.snowballs import agreement
from darkvocab.snowballs.experiments import Questions, Sweep, Trials
from darkvocab.snowballs.run import land
from darkvocab.snowballs.settings import base_of, command, defaults_of, manifest, options

KINDS = {"sweep": Sweep, "trials": Trials, "questions": Questions}
ARRAY = np.linspace(0.001, 0.02, 50, dtype=np.float32)
EXACT = {"dim": 20, "seed": 2**64 - 1, "n_tokens": 30, "arithmetic": "exact"}
RUNS = {
    "all defaults": [Sweep([1e-9]), Trials(1e-9), Questions([1e-6])],
    "many sigma": [Sweep(np.linspace(1.5e-9, 5e-9, 1000)), Questions(np.geomspace(1e-6, 1e-4, 10))],
    "a drawn base": [
        Sweep([1e-3, 1 / 3], base="random", trials=2, redraw_base=True, grid="float16", **EXACT),
        Sweep([1e-3], distribution="laplace", sampler="dense"),
        Trials([1e-3], base="random-unit", trials=7, redraw_base=True, sampler="dense", **EXACT),
        Trials([1e-3], distribution="uniform-shell", grid="float32"),
        Questions([1e-6, 2e-6], base="random", trials=3, redraw_base=False, grid="float32", **EXACT),
        Questions([1e-6], distribution="laplace", sampler="dense", dim=2560),
    ],
    "measures": [
        Sweep([1e-9], measure=()),
        Sweep([1e-9], measure=("topology",), over="tokens", touching=Touching(3, "steps", strict=True)),
        Sweep([1e-9], measure=("steps", "topology"), over="unique", epsilon=1e-5, distribution="uniform-ball"),
        Trials(2e-9, measure=("geometry",), over="black_holes", touching=Touching(1e-5)),
        Trials(2e-9, epsilon=1e-5, touching=Touching(1e-4, strict=True), base="qwen3-4b-centred"),
        Trials(2e-9, measure=("steps", "topology"), over="tokens", touching=Touching(40, "steps")),
        Questions([1e-6], touching=Touching(0.001), base="qwen3-4b"),
    ],
}
RUNS = [settings for some in RUNS.values() for settings in some]


def words_of(settings):
    return shlex.split(command(settings)["command"])[1:]


def parsed(words):
    """The settings that the command line makes of these words."""
    verb, *options = words
    return settings_of(verb, get_command(app).commands[verb].make_context(verb, options).params)


@pytest.mark.parametrize("settings", RUNS, ids=repr)
def test_the_command_of_a_run_gives_its_settings_again(settings):
    again = parsed(words_of(settings))
    assert again == settings
    assert manifest(again) == manifest(settings)


@pytest.mark.parametrize("verb", KINDS)
def test_every_option_of_a_command_was_among_them(verb):
    of_settings = {p.name for p in get_command(app).commands[verb].params} - {*RUNNING, *PRINTED, "spacing", "help"}
    said = {word[2:].replace("-", "_") for run in RUNS for word in words_of(run) if run.experiment == verb}
    assert of_settings <= said


@pytest.mark.parametrize("verb", KINDS)
def test_defaults_of_a_command_are_those_of_its_settings(verb):
    ours = options(KINDS[verb], defaults_of(KINDS[verb]))
    theirs = {p.name: p.default for p in get_command(app).commands[verb].params}
    assert ours == {name: theirs[name] for name in ours}


@pytest.fixture
def vector(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("around.npy", ARRAY)
    return "around.npy"


@pytest.mark.parametrize("name", ["around.npy", "a name's.npy", "random"])
def test_a_base_from_a_file_is_kept_by_path_and_hash(vector, tmp_path, name):
    if name == "random":  # a folder with the name of a base that is drawn
        (tmp_path / name).mkdir()
        save_file({"centroid": ARRAY}, tmp_path / name / "model.safetensors")
    else:
        (tmp_path / vector).rename(name)
    settings = Sweep([1e-6], base=Path(name), n_tokens=20)
    reports = manifest(settings)
    assert reports["base"] == {"kind": "file", "path": name}
    assert reports["inputs"] == [{"base": name, "sha256": settings.base.sha256, "shape": [50]}]
    assert parsed(words_of(settings)) == settings
    assert base_of(tmp_path, reports) == settings.base


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_base_given_as_an_array_is_kept_with_its_numbers_and_has_no_command(tmp_path, dtype):
    settings = Sweep([1e-6, 1e-5], base=ARRAY.astype(dtype) / 3, n_tokens=50, measure=())
    land(settings, tmp_path / "run")
    reports = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert reports["command"] is None
    assert "its base was given as an array" in reports["no_command"]
    kept = base_of(tmp_path, reports)
    assert kept == settings.base
    assert kept.vector.dtype == dtype
    assert agreement(tmp_path / "run").agrees  # which needs the base
    page = report(tmp_path / "run")[0].read_text()
    assert "The command that repeats it" not in page
    assert "No command line repeats it: its base was given as an array" in page
    land(settings, tmp_path / "run", resume=True)


def test_an_array_that_changed_is_another_run(tmp_path):
    land(Sweep([1e-6], base=ARRAY, n_tokens=20, measure=()), tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds another run: inputs was"):
        land(Sweep([1e-6], base=ARRAY + 1, n_tokens=20, measure=()), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "kept",
    [
        *(None, 5, {}, {"kind": "file"}, {"kind": "file", "path": 3}, {"kind": "array"}, {"kind": "drawn"}),
        {"kind": "array", "dtype": "float32", "bytes": "§"},
        {"kind": "array", "dtype": "float32", "bytes": "AAA="},
        {"kind": "array", "dtype": "object", "bytes": ""},
    ],
)
def test_a_damaged_base_is_corrupt(tmp_path, kept):
    reports = manifest(Sweep([1e-6], base=ARRAY, n_tokens=20))
    with pytest.raises(CorruptFile, match="not the manifest of a run"):
        base_of(tmp_path, reports | {"base": kept})


def test_a_base_whose_file_is_gone_is_missing(vector, tmp_path):
    reports = manifest(Sweep([1e-6], base=vector, n_tokens=20))
    (tmp_path / vector).unlink()
    with pytest.raises(MissingFile, match=r"its base around\.npy is not there any more; put it back"):
        base_of(tmp_path, reports)


def test_a_run_is_the_same_wherever_its_base_lies(vector, tmp_path, monkeypatch):
    settings = Sweep([1e-6, 1e-5], base=vector, n_tokens=20, measure=())
    land(settings, tmp_path / "run")
    whole = (tmp_path / "run" / "manifest.json").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    land(Sweep([1e-6, 1e-5], base=f"../{vector}", n_tokens=20, measure=()), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "manifest.json").read_bytes() == whole


def test_settings_of_another_seed_draw_another_base():
    settings = Sweep([1e-3], base="random", dim=20)
    other = replace(settings, seed=1)
    assert other == Sweep([1e-3], base="random", dim=20, seed=1)
    assert other.base != settings.base
    assert replace(settings, sigmas=[1e-3, 2e-3]).base == settings.base


@pytest.mark.parametrize("settings", RUNS[:3], ids=repr)
def test_settings_are_frozen(settings):
    with pytest.raises(AttributeError):
        settings.n_tokens = 5


def test_of_settings_sigma_the_base_and_what_is_not_at_its_default_are_shown():
    settings = Sweep([1e-9, 2e-9], n_tokens=300, measure=["topology"], touching=Touching(3, "steps"), base=ARRAY)
    assert repr(settings) == (
        "Sweep(sigmas=[1e-09, 2e-09], n_tokens=300, dim=50, base='array', measure=['topology'], "
        "touching=Touching(threshold=3.0, unit='steps', strict=False))"
    )
    assert "<td style='text-align:left'>[1e-09, 2e-09]</td>" in settings._repr_html_()
