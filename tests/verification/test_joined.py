"""Answers of a model beside the grades of its weights: in a scan, on its page, in a check."""

import json

import polars as pl
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import repeaters  # noqa: E402

from darkvocab import check, corpus, report, scan, verify  # noqa: E402
from darkvocab.errors import CorruptFile, InvalidInput  # noqa: E402
from darkvocab.verification.model import Model  # noqa: E402

pytestmark = pytest.mark.slow  # torch and transformers take seconds to import


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return repeaters.saved(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A model that repeats all but untrained tokens, and two trained ones."""
    tokenizer = repeaters.tokenizer()
    unable = [*repeaters.UNTRAINED, 270, 271]
    model = Model(logits=repeaters.Repeater(unable), encode=lambda text: tokenizer.encode(text).ids)
    out = tmp_path_factory.mktemp("runs") / "verify"
    verify(folder, out, model=model, controls=0, missed=308)
    return out


def test_tokens_of_a_scan_have_the_answers_beside_their_grades(folder, run):
    scanned = scan(folder, verified=run)
    tokens = scanned.tokens
    assert tokens["id"].to_list() == list(range(repeaters.N_TOKENS))
    fails = tokens.filter(pl.col("verified"))["id"].to_list()
    assert [token for token in fails if token >= 256] == [270, 271, *repeaters.UNTRAINED]
    assert tokens.filter(pl.col("p_max").is_null())["verified"].is_null().all()
    facts = scanned.verified
    assert (facts["n_asked"], facts["precision"]["n"], facts["precision"]["of"]) == (320, 12, 12)
    assert facts["recall"]["low"] == facts["recall"]["high"] == 12 / len(fails)  # all others were asked for
    assert scanned.to_json()["verified"]["recall"]["n"] == 12
    plain = scan(folder)
    assert plain.verified is None
    assert plain.tokens.equals(tokens.drop("p_max", "verified"))


def test_a_check_fails_on_verified_tokens_that_a_text_reaches(folder, run):
    def outcome(scanned):
        return next(one for one in check(scanned).to_json()["rules"] if one["id"] == "DV016")

    scanned = scan(folder, verified=run)
    reached = scanned.tokens.filter(pl.col("verified") & (pl.col("category") == "reachable"))["id"].to_list()
    result = outcome(scanned)
    assert {270, 271} <= set(reached)
    assert (result["status"], result["measured"]) == ("failed", len(reached))
    assert outcome(scan(folder))["status"] == "off"  # no model was asked


def test_the_page_of_a_run_lists_verified_tokens(run):
    page = report(run)[0].read_text()
    assert '<a href="#table-1-part">Verified tokens</a>' in page
    assert '<section id="table-1-part"' in page
    assert '<td class="t">untrained</td>' in page  # texts stand to the left, with their spaces; numbers to the right
    assert page.index("asked for, untrained") < page.index("sample of the trained")


def test_a_run_on_another_file_or_of_another_kind_is_refused(folder, run, tmp_path):
    other = repeaters.saved(tmp_path / "other", seed=5)
    with pytest.raises(InvalidInput, match="verified the tokens of another file"):
        scan(other, verified=run)
    manifest = json.loads((run / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "experiment": "sweep"}))
    with pytest.raises(InvalidInput, match="holds a run of sweep; give one of `darkvocab verify`"):
        scan(folder, verified=tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "inputs": []}))
    with pytest.raises(CorruptFile, match="not the manifest of a run of verify"):
        scan(folder, verified=tmp_path)


def test_the_command_writes_answers_into_table_json_and_page(cli, folder, run, tmp_path):
    page, csv = tmp_path / "dark.html", tmp_path / "dark.csv"
    result = cli("scan", folder, "--verified", run, "--html", page, "--csv", csv, "--tokens", "dark")
    assert result.code == 0
    assert "of 320 asked for by" in result.out
    assert 'id="answers"' in page.read_text()
    assert {"p_max", "verified"} <= set(pl.read_csv(csv).columns)
    assert cli("check", folder, "--verified", run).code == 1


def test_texts_are_searched_for_verified_tokens(cli, folder, run, tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("a bog, a bop")  # bo: token 270
    counts = corpus(text, model=folder, verified=run)
    assert counts.kinds()["verified"]["n_occurring"] == len(counts.occurring())
    assert counts.occurring().filter(pl.col("id") == 270).select("grade", "verified", "count").rows() == [
        ("trained", True, 2)
    ]
    assert counts.places[270][0]["after"] == "g, a bop"
    failed = cli("corpus", text, "--model", folder, "--verified", run, "--fail-on", "verified")
    assert (failed.code, "trained, verified" in failed.out) == (1, True)
