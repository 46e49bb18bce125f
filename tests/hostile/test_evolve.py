"""`darkvocab evolve`: what it prints and leaves behind, and histories that are wrong in every way that one can be."""

import contextlib
import json
import os
import re
import shutil

import numpy as np
import polars as pl
import pytest
from histories import BY_HAND, ONE, UP, write_history, write_run, write_words
from hypothesis import given, settings
from hypothesis import strategies as st

from darkvocab import evolve, report
from darkvocab.embedding.history import History
from darkvocab.errors import CorruptFile, NoEmbedding
from darkvocab.training.evolve import FILES


@pytest.fixture
def by_hand(tmp_path):
    return write_run(tmp_path / "run", BY_HAND, [3, 4, 5], record_every="10")


@pytest.fixture(scope="module")
def printed(tmp_path_factory, cli):
    """Run `evolve` on a run folder once: what it printed, and the folder, with its figures, for copies."""
    folder = write_run(tmp_path_factory.mktemp("measured") / "run", BY_HAND, [3, 4, 5], record_every="10")
    return cli("evolve", folder), folder


@pytest.fixture
def measured(printed, tmp_path):
    return shutil.copytree(printed[1], tmp_path / "measured")


@pytest.fixture
def history(tmp_path):
    return write_history(tmp_path / "h.safetensors", BY_HAND)


# Files and the command -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_folder_gets_records_events_and_figures(printed):
    result, folder = printed
    assert result.code == 0
    assert result.out.splitlines()[0] == "history          embedding_evolution.safetensors: 6 rows, 10 steps apart"
    assert "unseen tokens    frozen since step 40" in result.out
    assert re.findall(r"^ *(\d+)  all ", result.out, re.MULTILINE) == ["0", "10", "20", "30", "40", "50"]
    assert "step        40  #1 merges into #2 with 2 tokens: 3 4" in result.out
    built = evolve(folder)
    for name, frame in (("evolution", built.records), ("events", built.events), ("tokens", built.tokens)):
        assert pl.read_parquet(folder / f"{name}.parquet").equals(frame)
    assert json.loads((folder / "evolution.json").read_text()) == built.summary
    figures = sorted(path.name for path in (folder / "figures").iterdir())
    assert figures == sorted(f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf"))


FIGURES = ("counts", "populations", "motion", "spacetime")


@pytest.mark.slow
def test_a_measured_folder_is_the_same_bytes_again(measured, cli, contents):
    before = contents(measured)
    cli("evolve", measured)
    assert contents(measured) == before


@pytest.mark.slow
def test_report_draws_a_measured_history_again(measured, cli, contents):
    before = contents(measured)
    (measured / "figures" / "counts.png").unlink()
    result = cli("report", measured)
    assert (result.code, len(result.out.splitlines())) == (0, 9)
    assert contents(measured) == before


@pytest.mark.slow
def test_a_foreign_file_leaves_nothing_behind_unless_asked(tmp_path, cli, contents):
    path = write_history(tmp_path / "in" / "h.safetensors", BY_HAND)
    result = cli("evolve", path, "--unseen", "3-5", "--init-sigma", "1e-5")
    assert (result.code, list(contents(tmp_path / "in"))) == (0, ["h.safetensors"])
    assert "nothing was kept: --out DIR" in result.err
    assert "11.2c, by the notebook (epsilon 1e-05):" in result.out
    assert cli("evolve", path, "--out", tmp_path / "out").code == 0
    assert set(FILES) < set(contents(tmp_path / "out"))
    assert cli("evolve", path, "--out", tmp_path / "out", "--every", "2").code == 0  # what we wrote we may replace


@pytest.mark.slow
def test_json_has_the_summary_the_tokens_the_events_and_the_records(by_hand, cli):
    printed = json.loads(cli("evolve", by_hand, "--json").out)
    result = evolve(by_hand)
    assert list(printed) == ["summary", "tokens", "events", "records"]
    assert printed["summary"] == result.summary
    for name, frame in (("tokens", result.tokens), ("events", result.events), ("records", result.records)):
        assert printed[name] == frame.to_dicts()


def test_many_events_are_counted_and_not_listed(tmp_path, cli):
    flicker = [[ONE, ONE], [ONE, UP]] * 30
    result = cli("evolve", write_history(tmp_path / "h.safetensors", flicker))
    assert len(re.findall(r"^step +\d", result.out, re.MULTILINE)) == 20
    assert "and 39 more events" in result.out


def test_progress_reaches_the_end(by_hand):
    reports = []
    evolve(by_hand, progress=lambda done, total: reports.append((done, total)))
    assert reports[-1] == (6, 6)


@pytest.mark.slow
def test_the_loss_is_drawn_where_the_run_kept_it(by_hand, cli):
    pl.DataFrame({"step": [0, 1, 2, 3], "loss": [9.0, 3.0, 2.5, None]}).write_parquet(by_hand / "metrics.parquet")
    assert cli("evolve", by_hand).code == 0
    assert (by_hand / "figures" / "loss.pdf").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows", [BY_HAND[:1], BY_HAND[:2], [BY_HAND[0]] * 3, [[ONE], [UP]], [*BY_HAND, *[BY_HAND[2]] * 300]]
)
def test_every_history_can_be_drawn_and_printed(tmp_path, cli, rows):
    path = write_history(tmp_path / "h.safetensors", rows)
    assert cli("evolve", path, "--out", tmp_path / "out").code == 0
    assert cli("evolve", path, "--out", tmp_path / "out", "--unseen", "0").code == 0


# Histories that are wrong --------------------------------------------------------------------------------------------

WORDS = np.full((3, 4, 2), 0x3F80, np.uint16)


@pytest.mark.parametrize(
    ("words", "dtype", "metadata", "code", "says"),
    [
        (WORDS[0], "BF16", {}, 4, "BF16 [4, 2]; a history is [rows, vocabulary, dim]"),
        (WORDS[None], "BF16", {}, 4, "BF16 [1, 3, 4, 2]; a history is"),
        (WORDS, "I16", {}, 4, "I16 [3, 4, 2]; a history keeps its words in one of BF16, F16, F32"),
        (WORDS.astype(np.uint64), "F64", {}, 4, "keeps its words in one of BF16, F16, F32"),
        (WORDS.astype(np.uint8), "F8_E4M3", {}, 4, "keeps its words in one of BF16, F16, F32"),
        (WORDS[:0], "BF16", {}, 4, "BF16 [0, 4, 2]: nothing is in it"),
        (WORDS[:, :0], "BF16", {}, 4, "nothing is in it"),
        (WORDS[:, :, :0], "BF16", {}, 4, "nothing is in it"),
        (WORDS, "BF16", {"recorded": "4"}, 4, "says that 4 rows are recorded, has room for 3"),
        (WORDS, "BF16", {"recorded": "0"}, 4, "no row is recorded yet"),
        (WORDS, "BF16", {"recorded": "-1"}, 4, "recorded must be a count, its header says '-1'"),
        (WORDS, "BF16", {"recorded": "many"}, 4, "recorded must be a count"),
        (WORDS, "BF16", {"recorded": ""}, 4, "recorded must be a count"),
        (WORDS, "BF16", {"recorded": "9" * 5000}, 4, "recorded must be a count"),
        (WORDS, "BF16", {"recorded": "\u0663"}, 4, "recorded must be a count"),
        (WORDS, "BF16", {"recorded": 3}, 4, "__metadata__ must hold texts by name"),
        (WORDS, "BF16", {"record_every": "0"}, 4, "record_every is 0"),
        (WORDS, "BF16", {"record_every": "1.5"}, 4, "record_every must be a count"),
    ],
)
def test_history_that_is_none_is_refused(tmp_path, refuses, words, dtype, metadata, code, says):
    path = write_words(tmp_path / "h.safetensors", words, dtype, **metadata)
    result = refuses("evolve", path, "--out", tmp_path / "out", code=code, says=["h.safetensors", says])
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_key_is_refused_with_the_keys_that_there_are(tmp_path, refuses):
    path = write_words(tmp_path / "h.safetensors", WORDS, "BF16", key="states\x1b[2J")
    refuses("evolve", path, code=3, says=["no tensor 'embedding_history'", "states\\x1b[2J BF16 [3, 4, 2]", "--tensor"])
    assert "\x1b" not in refuses("evolve", path, "--tensor", "other", code=3, says=["no tensor 'other'"]).err


def test_truncated_history_is_refused_at_every_length(history, tmp_path):
    content = history.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        with pytest.raises(CorruptFile):
            evolve(cut)


def test_history_that_is_cut_while_it_is_read_is_an_error_and_no_crash(history):
    opened = History.open(history)
    rows = opened.words(opened.rows())
    next(rows)
    os.truncate(history, opened.tensor.offset + 4 * opened.state_bytes + 5)
    with pytest.raises(CorruptFile, match="ends within row 4; it was cut"):
        list(rows)


@pytest.mark.parametrize("grid", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_step_and_token(tmp_path, refuses, grid, bad):
    values = np.array(BY_HAND)
    values[2, 4, 1] = bad
    path = write_history(tmp_path / "h.safetensors", values, grid, record_every="100")
    refuses("evolve", path, code=4, says=["at step 200 (row 2) 1 of 6 tokens hold NaN or infinity: 4; no census"])
    assert evolve(path, every=5).summary["last_step"] == 500  # a row that is not looked at may hold what it will


def test_what_is_not_finite_in_rows_that_are_not_written_is_ignored(tmp_path):
    values = np.array(BY_HAND)
    values[4:] = np.nan
    assert evolve(write_history(tmp_path / "h.safetensors", values, recorded="4")).summary["last_step"] == 3


@pytest.mark.parametrize(
    ("unseen", "code", "says"),
    [
        ("6", 2, "unseen token 6 is not one of the history's 6: 0 to 5"),
        ("0-6", 2, "unseen token 6"),
        ("0-99999999999999999", 2, "unseen token 99999999999999999"),
        ("5-3", 2, "named as 0-8,127, got '5-3'"),
        ("", 2, "named as 0-8,127"),
        ("nothing.json", 3, "no file 'nothing.json'"),
    ],
)
def test_unseen_tokens_that_are_none_are_refused(history, refuses, unseen, code, says):
    refuses("evolve", history, "--unseen", unseen, code=code, says=[says])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("corpus.json", "{", "not JSON"),
        ("corpus.json", "[" * 99_999, "not JSON"),
        ("corpus.json", "[1]", "not a JSON object"),
        ("corpus.json", b"\xff\xfe", "not JSON"),
        ("corpus.json", '{"unseen": 5}', "unseen must be a list of token ids"),
        ("corpus.json", '{"unseen": [true]}', "unseen must be a list of token ids"),
        ("corpus.json", '{"unseen": [6]}', "unseen token 6 is not one of the history's 6"),
        ("corpus.json", '{"unseen": [-1]}', "unseen token -1"),
        ("manifest.json", "null", "not a JSON object"),
        ("manifest.json", '{"parameters": []}', "its parameters are no JSON object"),
        ("manifest.json", '{"parameters": {"init_sigma": "small"}}', "init_sigma must be a finite length"),
        ("manifest.json", '{"parameters": {"noise_epsilon": NaN}}', "noise_epsilon must be a finite length"),
        ("manifest.json", '{"parameters": {"init_sigma": true}}', "init_sigma must be a finite length"),
        ("manifest.json", '{"parameters": {"init_sigma": -1e-5}}', "init_sigma must be a finite length"),
    ],
)
def test_file_beside_the_history_that_is_wrong_is_refused(by_hand, refuses, name, content, says):
    (by_hand / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refuses("evolve", by_hand, code=4, says=[name, says])
    assert not (by_hand / "evolution.json").exists()


@pytest.mark.parametrize("option", ["--init-sigma", "--noise-epsilon"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_length_that_is_none_is_refused(history, refuses, option, value):
    refuses("evolve", history, option, value, code=2, says=["must be a finite length >= 0"])


def test_a_source_that_is_not_there_is_named(tmp_path, refuses, history):
    refuses("evolve", tmp_path / "nothing", code=3, says=["no file or folder", "nothing"])
    refuses("evolve", tmp_path, code=3, says=["has no embedding_evolution.safetensors; it has h.safetensors"])
    (tmp_path / "empty").mkdir()
    refuses("evolve", tmp_path / "empty", code=3, says=["give the folder of a training run"])


def test_a_folder_with_something_else_is_left_alone(tmp_path, history, refuses, contents):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    refuses("evolve", history, "--out", tmp_path / "photos", code=2, says=["holds other files (cat.jpg)"])
    refuses("evolve", history, "--out", history, code=2, says=["is a file; choose another --out"])
    assert list(contents(tmp_path / "photos")) == ["cat.jpg"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FILES, "metrics.parquet"])
def test_figures_of_files_that_are_not_ours_are_refused(measured, name):
    (measured / name).write_bytes(b"PAR1 nothing")
    with pytest.raises(CorruptFile, match="not what darkvocab evolve left there"):
        report(measured)
    (measured / name).unlink()
    if name not in ("metrics.parquet", "evolution.json"):
        with pytest.raises(FileNotFoundError, match="no measured history"):
            report(measured)


@pytest.mark.slow
@pytest.mark.parametrize("lacking", ["n_planned", "freezing", "last_step"])
def test_a_summary_that_lacks_a_fact_is_refused(measured, lacking):
    place = measured / "evolution.json"
    place.write_text(json.dumps({key: value for key, value in json.loads(place.read_text()).items() if key != lacking}))
    with pytest.raises(CorruptFile, match=f"not what darkvocab evolve left there .*{lacking}"):
        report(measured)


@pytest.mark.slow
@settings(max_examples=150)
@given(data=st.data())
def test_any_changed_history_is_measured_or_refused(scratch, mutated, data):
    good = write_history(scratch / "good.safetensors", BY_HAND, recorded="5", record_every="2").read_bytes()
    path = scratch / "mutated.safetensors"
    path.write_bytes(mutated(data, good))
    with contextlib.suppress(CorruptFile, NoEmbedding):
        evolve(path)
