"""Facts common to sweep, trials and questions: the command that repeats a run, parts, seeds at their limits."""

import json
import shlex

import numpy as np
import pytest

from darkvocab.numerics import Touching
from darkvocab.snowballs import run
from darkvocab.snowballs.experiments import Questions, Sweep, Trials
from darkvocab.snowballs.run import Cost
from darkvocab.snowballs.settings import command

RUNS = {
    "sweep": Sweep([1e-9, 2e-9], n_tokens=30, trials=2),
    "sweep of a graph": Sweep([1e-8], n_tokens=30, measure=["topology"], over="tokens", touching=Touching(3, "steps")),
    "trials": Trials(2e-9, n_tokens=30, trials=3, epsilon=1e-5, base="random", dim=16, redraw_base=True, seed=2**63),
    "trials of a ball": Trials(1e-3, n_tokens=30, trials=2, distribution="uniform-ball", dim=2560, arithmetic="exact"),
    "strict": Trials(
        2e-9, n_tokens=30, trials=2, touching=Touching(1e-4, strict=True), grid="float16", sampler="dense"
    ),
    "questions": Questions([1e-6, 2e-6], n_tokens=30, dim=20),
    "questions around one base": Questions(
        [1e-6, 2e-6], n_tokens=30, base="random", dim=20, redraw_base=False, touching=Touching(0.001)
    ),
    "questions around Qwen3-4B": Questions([1e-8], n_tokens=30, base="qwen3-4b"),
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_the_command_of_a_run_repeats_it(settings, tmp_path, cli):
    run.land(settings, tmp_path / "here")
    _, *words = shlex.split(command(settings)["command"])
    assert cli(*words, "--engine", "serial", "--out", tmp_path / "there").code == 0
    for name in ("manifest.json", "records.parquet", "records.csv"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_parts_are_about_a_second_of_work_and_at_least_sixteen():
    dense = Trials(3.281911e-3, trials=1000)
    assert 0.02 < Cost(dense).trial_seconds < 1
    assert Cost(dense).part_size == int(1 / Cost(dense).trial_seconds)
    assert Cost(Trials(1.5e-9, trials=160)).part_size == 10
    assert Cost(Trials(1.5e-9, trials=10**6)).part_size <= 4096


def test_a_part_does_not_depend_on_the_size_of_parts(monkeypatch):
    settings = Trials(4e-9, n_tokens=100, trials=40)
    whole = list(run.records(settings))
    monkeypatch.setattr(Cost, "part_size", 7)
    assert list(run.records(settings)) == whole


def test_a_long_run_has_a_thousand_parts_or_parts_of_as_many_records_as_are_drawn_together():
    size = Cost(Trials(3.281911e-3, trials=10**6)).part_size
    assert 990 < -(-(10**6) // size) <= 1000
    assert Cost(Trials(1.5e-9, trials=10**8)).part_size == 4096


def test_a_run_that_goes_on_keeps_to_its_parts(monkeypatch, tmp_path):
    """The rule of their size was another when it began."""
    settings = Trials(4e-9, n_tokens=100, trials=40)
    monkeypatch.setattr(Cost, "part_size", 7)
    run.land(settings, tmp_path / "undisturbed")
    begun = run.records(settings, out=tmp_path / "run")
    next(begun)
    begun.close()
    monkeypatch.setattr(Cost, "part_size", 16)
    run.land(settings, tmp_path / "run", resume=True)
    for path in (tmp_path / "undisturbed").rglob("*.*"):
        if path.is_file():
            assert (tmp_path / "run" / path.relative_to(tmp_path / "undisturbed")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_every_seed_can_be_recorded(seed, tmp_path):
    settings = Sweep([2e-9], n_tokens=20, seed=seed)
    run.land(settings, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["seed"] == seed
    assert (
        [record.seed for record in run.records(settings)]
        == run.frame(settings, out=tmp_path / "run", resume=True)["seed"].to_list()
        == [seed]
    )


def test_a_notebook_run_goes_on_in_the_middle_of_the_stream(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(Cost, "part_size", 3)
    settings = {"n_tokens": 20, "dim": 8, "base": "random", "redraw_base": True, "trials": 4, "sampler": "notebook"}
    settings = Trials([1e-3, 2e-3, 3e-3], **settings)
    whole = list(run.records(settings))
    asking = run.records(settings, out=tmp_path / "run")
    for _ in range(5):
        next(asking)
    asking.close()
    assert list(run.records(settings, out=tmp_path / "run", resume=True)) == whole
    assert len({record.mean_l_inf_weight for record in whole}) == len(whole) == 12


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_a_run_folder_is_the_same_bytes_whichever_engine_ran(engine, tmp_path):
    settings = Trials(np.linspace(2e-9, 4e-9, 5), n_tokens=60, trials=20, epsilon=1e-5)
    for folder, options in (("one", "serial"), ("other", engine)):
        run.land(settings, tmp_path / folder, engine=options, workers=2)
    names = sorted(str(path.relative_to(tmp_path / "one")) for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert {"elements.parquet", "manifest.json", "records.csv", "records.parquet"} <= set(names)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
