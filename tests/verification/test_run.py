"""Verification as a run: every answer in a folder, the same bytes however it was interrupted, and what it comes to."""

import json
import os
import pickle
import random

import polars as pl
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import repeaters  # noqa: E402
from forking import forking, killed_until_whole, with_more_entries  # noqa: E402

from darkvocab import scan, verify  # noqa: E402
from darkvocab.errors import InvalidInput, RunFolderRefused  # noqa: E402
from darkvocab.runs.records import read_records  # noqa: E402
from darkvocab.verification.model import TOKENS_AT_ONCE, Model  # noqa: E402
from darkvocab.verification.run import Verify  # noqa: E402

pytestmark = pytest.mark.slow  # torch and transformers take seconds to import
FILES = ("records.parquet", "records.csv", "manifest.json")
FEW = {"controls": 20, "missed": 30}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return repeaters.saved(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def repeater():
    tokenizer = repeaters.tokenizer()
    return Model(logits=repeaters.Repeater(), encode=lambda text: tokenizer.encode(text).ids)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    verify(folder, out, **FEW)
    return out


def test_a_model_that_repeats_all_but_the_untrained_fails_on_these_alone(folder, repeater):
    verdict = verify(folder, model=repeater, **FEW)
    asked = verdict.tokens.filter(pl.col("group") == "asked")
    assert asked["token"].to_list() == list(repeaters.UNTRAINED)
    assert asked["verified"].all()
    assert asked["glitch"].all()
    others = verdict.tokens.filter(pl.col("group") != "asked")
    assert len(others) == 50
    assert not others["verified"].any()
    assert (verdict.precision.n, verdict.precision.of) == (12, 12)
    assert verdict.n_missed[0] < 3
    assert verdict.recall.high > 0.8


def test_a_function_from_ids_to_logits_takes_the_tokenizer_of_the_source(folder):
    verdict = verify(folder, model=repeaters.Repeater(), tokens=[5, 301], controls=0, missed=0)
    assert verdict.tokens.select("token", "verified").rows() == [(5, False), (301, True)]


def test_every_answer_is_kept_with_what_it_was_an_answer_to(whole):
    records = read_records(whole)
    manifest = json.loads((whole / "manifest.json").read_text())
    assert len(records) == manifest["n_records"] == (12 + 20 + 30) * 3 * 3
    assert records["p"].is_between(0, 1).all()
    assert (records["rank"] >= 1).all()
    assert records["frame"].unique(maintain_order=True).to_list() == ["device", "meaning", "list"]
    assert manifest["parameters"]["frames"] == ["device: ~", "meaning: ~", "list: ~"]
    assert {next(iter(one)) for one in manifest["inputs"]} == {"source", "frames"}
    assert manifest["command"].startswith("darkvocab verify ")


def test_an_interrupted_run_goes_on_to_the_same_bytes(folder, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(Model, "batch", lambda *_: 10)
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    verify(folder, straight, **FEW)
    for after in (1, 3):

        def interrupt(done, total, most=after):
            if done >= most * 10 * 9:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            verify(folder, cut, resume=cut.exists(), progress=interrupt, **FEW)
        monkeypatch.setattr(Model, "batch", lambda *_: TOKENS_AT_ONCE)  # as where more memory is free
    with pytest.raises(RunFolderRefused, match="--resume goes on with it"):
        verify(folder, cut, **FEW)
    verify(folder, cut, resume=True, **FEW)
    for name in FILES:
        assert (cut / name).read_bytes() == (straight / name).read_bytes()
    assert read_records(cut).drop("p").equals(read_records(whole).drop("p"))


ASKER = """
import os, pathlib, pickle, sys
import polars, torch
from darkvocab.verification import run
from darkvocab.verification.model import Model, open_model
torch.set_num_threads(1)  # a fork has a pool's locks, but not its threads
Model.batch = lambda *_: 2
folder, scanned = sys.argv[1:]
run.scan = lambda source: pickle.loads(pathlib.Path(scanned).read_bytes())  # kernels take long to load
open_model(folder)  # and so do modules
def attempt(out):
    run.verify(folder, out, resume=os.path.exists(out), controls=8, missed=12)
"""


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_killed_at_twenty_moments_it_ends_with_the_same_bytes(folder, tmp_path):
    # By a process that has imported what takes long, and forks for every attempt. Killed as soon as its folder has some
    # entries more than at its start: of the folder itself, 16 parts, and what is written at the end, some half-written.
    moments = random.Random(3)
    (tmp_path / "scan").write_bytes(pickle.dumps(scan(folder)))
    with forking(ASKER, folder, tmp_path / "scan") as attempt:
        assert not attempt(tmp_path / "undisturbed")
        wholes = killed_until_whole(attempt, tmp_path, 20, lambda out: with_more_entries(out, moments.randint(1, 6)))
    for out in wholes:
        for name in FILES:
            assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
        assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "undisturbed").iterdir()}


def test_another_question_in_the_same_folder_is_refused(folder, whole):
    with pytest.raises(RunFolderRefused, match=r"holds another run: .*missed was 30, now 40"):
        verify(folder, whole, resume=True, controls=20, missed=40)


def test_worker_processes_give_the_same_answers(folder, whole):
    settings = Verify(source=str(folder), **FEW)
    answers = settings.run(engine="processes", workers=2)
    assert answers.drop("p").equals(read_records(whole).drop("p"))
    assert (answers["p"] / read_records(whole)["p"] - 1).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"controls": -1}, "controls must be >= 0, got -1"),
        ({"tokens": "320"}, "there is no token 320"),
        ({"chat": True}, "the chat template of"),
        ({"resume": True}, "--resume needs the --out folder"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_what_cannot_be_asked_is_refused(folder, given, said):
    with pytest.raises(InvalidInput, match=said):
        verify(folder, **given)


def test_a_folder_with_other_files_is_refused_before_the_model_is_opened(folder, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr("darkvocab.verification.run.open_model", None)
    with pytest.raises(RunFolderRefused, match=r"holds other files \(notes.txt\)"):
        verify(folder, tmp_path)


def test_a_manifest_that_a_killed_process_was_writing_is_no_obstacle(folder, repeater, tmp_path):
    (tmp_path / ".manifest.json.77.partial").write_text("{")
    verify(folder, tmp_path, tokens=[5], model=repeater, controls=0, missed=0, resume=True)
    assert not [*tmp_path.glob("*.partial")]


def test_tokens_may_come_from_anything_that_yields_ids(folder):
    verdict = verify(folder, tokens=(token for token in (7, 3)), model=repeaters.Repeater(), controls=0, missed=0)
    assert verdict.tokens["token"].to_list() == [3, 7]


def test_a_model_in_memory_is_asked_by_this_process(folder, repeater):
    with pytest.raises(InvalidInput, match="a model in memory is asked by this process"):
        verify(folder, model=repeater, engine="processes")
    with pytest.raises(InvalidInput, match="without a chat template"):
        verify(folder, model=repeater, chat=True)


def test_a_context_that_is_shorter_than_a_frame_is_refused(folder, repeater):
    short = Model(logits=repeater.logits, encode=repeater.encode, context=50)
    with pytest.raises(InvalidInput, match=r"the frame device has \d+ tokens, the model's context 50"):
        verify(folder, model=short)


def test_the_command_prints_a_table_and_writes_a_page(cli, folder, tmp_path):
    out = tmp_path / "run"
    result = cli("verify", folder, "--out", out, "--controls", 20, "--missed", 30, "--show", 3)
    assert result.code == 0
    assert "asked for, untrained" in result.out
    assert "1% quantile of 20 controls" in result.out
    page = (out / "report.html").read_text()
    assert '<h2 id="table-1">' not in page  # a model that was drawn fails on no token more than on others
    assert (out / "figures" / "answers.pdf").is_file()
    again = cli("verify", folder, "--out", out, "--controls", 20, "--missed", 30, "--resume", "--json")
    assert len(json.loads(again.out)["tokens"]) == 62
    assert cli("report", out).code == 0
