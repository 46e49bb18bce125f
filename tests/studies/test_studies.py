"""Studies: every one runs at a toy size, its answers are those of plain arithmetic, and one that is stopped goes on."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from darkvocab import Training, report
from darkvocab.cli.options import options_of
from darkvocab.errors import CorruptFile, Diverged, MissingFile, RunFolderRefused
from darkvocab.reports.console import console
from darkvocab.reports.studies import answers, conditions, print_study, study_json
from darkvocab.runs.folder import read_manifest
from darkvocab.runs.records import frame_of, read_records
from darkvocab.studies import Study, StudyRecord, study
from darkvocab.studies import run as running
from darkvocab.studies.fresh import from_fresh_rows, with_words
from darkvocab.training.choices import Architecture, ModelStart
from darkvocab.training.corpus import load_corpus
from darkvocab.training.run import train
from darkvocab.training.stack import Stack

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

DOCUMENTS = Path(__file__).parents[2] / "docs" / "findings"
SMALL = {"architecture": Architecture(layers=1, heads=2, width=16, context=12), "batch": 4, "steps": 20, "seed": 7}


def test_every_study_is_written_down_and_lists_what_there_is():
    assert {path.stem for path in DOCUMENTS.glob("*.md")} - {"README"} == set(running.STUDIES)
    columns, options = StudyRecord.__annotations__, {*options_of("train"), "fresh"}
    for name in running.STUDIES:
        one = Study.of(name)
        assert (DOCUMENTS / f"{name}.md").read_text().startswith(f"# {name}: ")
        assert one.replicas >= 8
        assert all(set(given) <= options for given in one.conditions.values())
        assert {row["statistic"] for row in one.questions} | set(one.shown) <= set(columns)
        for row in one.questions:
            assert {row["of"], row.get("against", row["of"])} <= set(one.conditions)
            assert ("value" in row) != ("against" in row)
        seeds = [(one.condition(n), one.training(n).seed) for n in range(len(one))]
        assert len({place for place, _ in seeds}) == len(one) == len(one.conditions) * one.replicas
        assert all(seed == 1 + replica for (_, replica), seed in seeds)  # pairs share a seed


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    return {name: study(name, folder / name, quick=True, replicas=1, engine="serial") for name in running.STUDIES}


@pytest.mark.parametrize("name", running.STUDIES)
def test_a_study_at_a_toy_size_measures_what_its_questions_ask(name, runs):
    records, parameters = read_records(runs[name]), read_manifest(runs[name])["parameters"]
    assert records["status"].to_list() == ["complete"] * len(Study.of(name).conditions)
    for row in parameters["questions"]:
        part = records.filter(condition=row["of"])
        assert row["statistic"] == "first_split" or part[row["statistic"]].null_count() == 0, row
    assert not (runs[name] / "trainings").exists()
    page, *figures = report(runs[name])
    text = page.read_text()
    assert all(row["ask"].replace("'", "&#39;") in text for row in parameters["questions"])
    assert [path.name for path in figures] == ["study.png", "study.pdf"]


def test_what_the_studies_measure_obeys_their_laws(runs):
    move = read_records(runs["why-rows-move"])
    parts = move.filter(pl.col("displacement") > 0).select("by_decay", "by_gradient", "by_momentum", "by_rounding")
    assert parts.sum_horizontal().to_numpy() == pytest.approx(np.ones(len(parts)), abs=1e-9)
    assert parts["by_rounding"].abs().max() < 1e-3  # float32 weights
    assert set(move["largest_input_gradient"].drop_nulls()) == {0.0}
    assert move.filter(condition="untied, no decay")["displacement"].item() == 0
    assert move.filter(condition="untied")["by_decay"].item() == pytest.approx(1, abs=0.01)
    lost = read_records(runs["lost-updates"])
    assert lost["lost_beyond_formula"].abs().max() < 2e-3  # where an update is half an ulp to the last bit
    decay = read_records(runs["decay"])
    exact = decay.filter(pl.col("condition").str.contains("float32"))
    assert exact["norm_ratio"].to_numpy() == pytest.approx(exact["expected_ratio"].to_numpy(), rel=1e-5)
    still = decay.filter(pl.col("condition").is_in(["1e-5, to nearest", "1e-3, to nearest"]))
    assert set(still["norm_ratio"]) == {1.0}
    noise = read_records(runs["natural-noise"])
    plain = noise.filter(~pl.col("condition").str.contains("stochastic"))
    assert set(plain["start_n_unique"]) == {1}
    split = noise.filter(pl.col("condition").str.contains("stochastic"))
    assert split["n_unique"].min() > 1
    assert split["entropy"].max() <= math.log(34) + 1e-12


# Answers -------------------------------------------------------------------------------------------------------------


def made(values, questions, status=None):
    """Records of trainings: values [condition][replica] of `loss`."""
    rows = [
        StudyRecord(**{**running.EMPTY, "condition": name, "replica": n, "seed": n, "steps": 1, "n_unseen": 0,
                       "status": (status or {}).get((name, n), "complete"), "loss": value})
        for name, column in values.items() for n, value in enumerate(column)
    ]  # fmt: skip
    parameters = {"questions": questions, "shown": ["loss"], "title": "t", "replicas": 8, "study": "x"}
    return frame_of(StudyRecord, rows), parameters


def test_an_answer_is_of_pairs_exact_and_corrected():
    drawn = np.random.default_rng(5)
    a, b, c = drawn.normal(0, 1, 8), drawn.normal(1.5, 1, 8), drawn.normal(0, 1, 8)
    questions = [
        {"ask": "1", "statistic": "loss", "of": "b", "against": "a"},
        {"ask": "2", "statistic": "loss", "of": "c", "against": "a"},
        {"ask": "3", "statistic": "loss", "of": "b", "value": 0},
    ]
    result = answers(*made({"a": a.tolist(), "b": b.tolist(), "c": c.tolist()}, questions))
    raw = []
    for row, d in zip(result, (b - a, c - a, b), strict=True):
        flips = [np.dot(signs, d) / 8 for signs in itertools.product((1, -1), repeat=8)]
        raw.append(np.mean(np.abs(flips) >= abs(d.mean()) - 1e-12))
        low, high = stats.t.interval(0.95, 7, d.mean(), d.std(ddof=1) / np.sqrt(8))
        assert (row["n"], row["mean"], row["low"], row["high"]) == (8, *map(pytest.approx, (d.mean(), low, high)))
        assert row["p"] == pytest.approx(raw[-1])
    order = np.argsort(raw)
    expected = np.maximum.accumulate([min(1, (3 - k) * raw[i]) for k, i in enumerate(order)])
    assert [result[i]["p_holm"] for i in order] == pytest.approx(expected)


def test_of_many_pairs_the_signs_are_drawn_and_the_same_each_time():
    # All differences are above 0: of 2**24 signs two are as far; of 65,536 drawn ones one in 65,537 counts at least.
    values = {"a": np.zeros(24).tolist(), "b": np.linspace(1, 2, 24).tolist()}
    questions = [{"ask": "1", "statistic": "loss", "of": "b", "against": "a"}]
    first, second = (answers(*made(values, questions))[0]["p"] for _ in range(2))
    assert first == second
    assert 0 < first < 1e-4


def test_trainings_that_diverged_are_counted_and_in_no_mean():
    question = {"ask": "1", "statistic": "loss", "of": "b", "against": "a"}
    lost = {("b", 2): "diverged"}
    records, parameters = made({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 3.0, None, 5.0]}, [question], lost)
    (row,) = answers(records, parameters)
    assert (row["n"], row["mean"], row["std"]) == (3, 1.0, 0.0)
    rows = conditions(records, ["loss"])
    assert [(rows[name]["n"], rows[name]["n_diverged"]) for name in "ab"] == [(4, 0), (3, 1)]
    terminal = console()
    with terminal.capture() as captured:
        print_study(records, terminal, parameters)
    assert "1 training diverged and is not in the means" in captured.get()
    json.dumps(study_json(Path("x"), records, parameters), allow_nan=False)


@pytest.mark.parametrize("column", [[None, None], [None, 1.0]])
def test_a_question_without_pairs_has_no_answer(column):
    question = {"ask": "1", "statistic": "loss", "of": "b", "against": "a"}
    records, parameters = made({"a": [1.0, 2.0], "b": column}, [question])
    (row,) = answers(records, parameters)
    assert (row["n"], row["p"]) == (sum(value is not None for value in column), None)
    print_study(records, console(), parameters)


def test_a_training_that_diverges_is_recorded(tmp_path, monkeypatch):
    def diverging(training, path, **options):
        training = Training.of(**{**Study.of("decay", quick=True).conditions["1e-2, float32"], "learning_rate": 1e30})
        with pytest.raises(Diverged):
            train(training, path, **options)
        raise Diverged("so it did")

    monkeypatch.setattr(running, "train", diverging)
    records = read_records(study("decay", tmp_path / "run", quick=True, replicas=1, engine="serial"))
    assert set(records["status"]) == {"diverged"}
    assert records["norm_ratio"].null_count() == len(records) == len(Study.of("decay").conditions)
    assert set(records["steps"]) != {0}  # those before it diverged
    assert report(tmp_path / "run")


# Runs ----------------------------------------------------------------------------------------------------------------


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_killed_and_interrupted_it_goes_on_to_the_same_bytes(runs, tmp_path, cli):
    command = ["study", "decay", "--quick", "--replicas", "1", "--engine", "serial", "--out", tmp_path / "cut"]
    resume = []
    for number in (signal.SIGKILL, signal.SIGINT):
        line = [sys.executable, "-c", "from darkvocab.cli import main; main()", *command, *resume]
        child = subprocess.Popen(line, stderr=subprocess.PIPE)
        before = len(list(tmp_path.glob("cut/records/*")))
        while child.poll() is None and len(list(tmp_path.glob("cut/records/*"))) < before + 2:
            time.sleep(0.01)
        os.kill(child.pid, number)
        assert child.wait(60) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        child.stderr.close()
        resume = ["--resume"]
    assert cli(*command, "--resume").code == 0
    whole = content(runs["decay"])
    assert {name: data for name, data in content(tmp_path / "cut").items() if name in whole} == whole


def test_a_study_of_other_settings_does_not_go_on(runs):
    with pytest.raises(RunFolderRefused):
        study("decay", runs["decay"], quick=True, replicas=2, resume=True)
    with pytest.raises(RunFolderRefused):
        study("coupled-adam", runs["decay"], quick=True, replicas=1, resume=True)


def test_what_cannot_be_run_is_a_sentence(tmp_path, cli):
    missing = cli("study", "noise", "--out", tmp_path / "x")
    assert missing.code == 2
    assert "natural-noise" in missing.err
    assert cli("study", "decay", "--replicas", "0", "--out", tmp_path / "x").code == 2
    assert cli("study", "decay", "--engine", "threads", "--out", tmp_path / "x").code == 2
    assert not (tmp_path / "x").exists()


# Fresh rows ----------------------------------------------------------------------------------------------------------


def test_words_become_tokens_of_their_own():
    corpus = load_corpus()
    one, two = corpus.unseen[:2].tolist()
    held = with_words(corpus, {one: "the", two: "the "})
    assert bytes(held.ids).replace(bytes([two]), b"the ").replace(bytes([one]), b"the") == bytes(corpus.ids)
    assert {one, two}.isdisjoint(held.unseen.tolist())


@pytest.mark.parametrize("how", ["none", "pieces"])
def test_a_training_goes_on_from_fresh_rows(how, tmp_path):
    training = Training(**{**SMALL, "architecture": Architecture(layers=1, width=16, context=12, tied=False)})
    last = from_fresh_rows(training, how, ["the ", "and"], tmp_path, 1)
    start = Stack([last]).rows(0)
    trained = Stack([Training(**{**SMALL, "architecture": training.architecture,
                                 "start": ModelStart(model=str(tmp_path / "first" / "model"))})]).rows(0)  # fmt: skip
    tokens = training.corpus.unseen[:2]
    others = np.setdiff1d(np.arange(128), tokens)
    assert np.array_equal(start[others], trained[others])
    assert np.array_equal(start[tokens], trained[tokens]) == (how == "none")
    if how == "pieces":
        rows = (start.astype(np.uint32) << 16).view(np.float32)
        assert np.abs(rows[tokens[0]] - rows[list(b"the ")].mean(axis=0)).max() < 2**-7 * np.abs(rows).max()


def test_a_model_that_cannot_be_started_from_is_a_sentence(tmp_path, cli):
    train(Training(**SMALL), tmp_path / "run")
    model = tmp_path / "run" / "model"
    small = "--layers 1 --width 16 --context 12 --batch 4 --steps 5 --seed 7 --start model".split()
    assert cli("train", *small, "--init-model", model, "--out", tmp_path / "on").code == 0
    before, after = (Stack([Training(**{**SMALL, "start": ModelStart(model=str(model))})]).rows(0) for _ in range(2))
    assert np.array_equal(before, after)
    assert read_manifest(tmp_path / "on")["command"].count(f"--init-model {model}") == 1
    wide = cli("train", *small, "--width", "32", "--init-model", model, "--out", tmp_path / "no")
    assert (wide.code, "of another size" in wide.err) == (2, True)
    untied = cli("train", *small, "--no-tied", "--init-model", model, "--out", tmp_path / "no")
    assert (untied.code, "another model" in untied.err) == (2, True)
    nowhere = cli("train", *small, "--init-model", tmp_path, "--out", tmp_path / "no")
    assert (nowhere.code, "no model.safetensors" in nowhere.err) == (3, True)
    unnamed = cli("train", *small, "--out", tmp_path / "no")
    assert (unnamed.code, "needs init_model" in unnamed.err) == (2, True)
    (model / "model.safetensors").write_bytes(b"\x08" + bytes(20))
    with pytest.raises(CorruptFile, match="not a safetensors file"):
        Stack([Training(**{**SMALL, "start": ModelStart(model=str(model))})])
    with pytest.raises(MissingFile, match="give the folder model of a training"):
        Training(**{**SMALL, "start": ModelStart(model=str(tmp_path))}).manifest()
