"""Run folders that version 0.1.0 left before settings, run and outcome were told apart (commit 6d79372).

They were made with `darkvocab train --layers 1 --heads 2 --width 8 --context 8 --batch 2 --seed 7 --corpus text.txt`,
and interrupted from Python after 3 of 6 steps.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import darkvocab
from darkvocab import Training, evolve, report, train
from darkvocab.runs.folder import read_manifest, versions
from darkvocab.runs.records import read_records
from darkvocab.sources.safetensors import read_tensors
from darkvocab.training.choices import Architecture, GaussianNoise
from darkvocab.training.corpus import load_corpus
from darkvocab.training.outcome import outcome
from darkvocab.training.replicas import Replicas

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

KEPT = Path(__file__).parents[1] / "kept" / "trainings"
SMALL = {"architecture": Architecture(layers=1, heads=2, width=8, context=8), "batch": 2, "seed": 7}
NOISE = {"noise": GaussianNoise(sigma=1e-3), "precision": "pure-bf16"}


@pytest.fixture
def kept(tmp_path):
    """A copy of a kept folder, as if the packages of now had made it: a run goes on with those of its start only."""

    def copied(name):
        folder = shutil.copytree(KEPT / name, tmp_path / name)
        for path in folder.rglob("manifest.json"):
            manifest = json.loads(path.read_text())
            path.write_text(json.dumps({**manifest, "packages": versions("torch", "transformers")}))
        return folder

    return copied


def settings(**more):
    return Training(corpus=load_corpus(KEPT / "text.txt"), **{**SMALL, "steps": 6, **more})


def states(folder):
    (tensor,) = read_tensors(folder / "embedding_evolution.safetensors").values()
    return tensor.words()


def test_a_finished_training_is_read_measured_and_shown(kept):
    folder = kept("train")
    assert not (folder / "outcome.json").exists()
    end = outcome(folder)
    assert (end.status, end.steps, end.n_unseen) == ("complete", 6, 52)
    assert [state["step"] for state in end.states] == [0, 6]
    assert end.states[0]["all"]["n_unique"] + end.states[0]["all"]["n_black_holes"] > 0
    assert len(evolve(folder).records.filter(tokens="all")) == 7
    assert report(folder)[0].is_file()
    assert train(settings(record=("gradients",)), folder, resume=True) == end  # nothing is left to do


def test_an_interrupted_training_goes_on_from_its_checkpoint(kept):
    folder, said = kept("interrupted"), []
    before = states(folder)[:4]
    end = train(settings(record=("gradients",)), folder, resume=True, say=said.append)
    assert (end.status, end.steps) == ("complete", 6)
    assert np.array_equal(states(folder)[:4], before)
    # The other training that was not interrupted has the same settings. Another machine's sums differ in last bits.
    losses, whole = (pl.read_parquet(run / "metrics.parquet")["loss"] for run in (folder, KEPT / "train"))
    assert losses.to_numpy() == pytest.approx(whole.to_numpy(), abs=1e-3)
    assert f"--corpus {KEPT / 'text.txt'}" in read_manifest(folder)["command"]  # it was its name alone
    assert said[1:] == [f"{folder} is of an earlier version of darkvocab; its manifest is brought up to date"]


def test_one_with_noise_goes_on_and_says_that_its_noise_is_of_another_generator(kept):
    folder, said = kept("interrupted-noise"), []
    before = states(folder)[:4]
    end = train(settings(**NOISE), folder, resume=True, say=said.append)
    assert (end.status, end.steps) == ("complete", 6)
    assert np.array_equal(states(folder)[:4], before)
    assert "step 4 and those after it draw from this version's" in said[2]


def test_replicas_are_read_summed_up_shown_and_not_made_again(kept):
    folder = kept("replicas")
    before = read_records(folder)
    assert before["seed"].to_list() == [7, 8]
    assert darkvocab.summary(folder, ["loss_last"])["n_landed"] == 2
    assert report(folder)[0].is_file()
    replicas = Replicas(training=settings(steps=3), n=2)
    shutil.rmtree(folder / "records")  # their seals are of the packages of then
    assert replicas.run(folder, resume=True, engine="serial") == folder
    assert read_records(folder).equals(before)
    assert replicas.record(folder, 1).loss_last == before["loss_last"][1]
