"""Tables, figures and the page, from stored records."""

import json
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from histories import BY_HAND, write_run
from scans import scan_of

from darkvocab import evolve, report, sweep
from darkvocab.errors import CorruptFile
from darkvocab.reports.checkpoints import print_scan
from darkvocab.reports.console import console, isolated, number, token_texts
from darkvocab.reports.document import phrase
from darkvocab.reports.experiments import ranges


def run(path, sigmas=(1e-9, 3e-9, 9e-9), **settings):
    list(sweep(sigmas, **{"n_tokens": 60, "out": path, **settings}))
    return path


@pytest.mark.slow
def test_a_report_reruns_nothing_and_is_the_same_bytes_again(tmp_path):
    folder = run(tmp_path / "run")
    first = {path.name: path.read_bytes() for path in report(folder)}
    assert set(first) == {"report.html", "sweep.png", "sweep.pdf"}
    assert {path.name: path.read_bytes() for path in report(folder)} == first


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"sigmas": [0.0]},
        {"sigmas": [0.0, 1e-9]},
        {"sigmas": [1e-9], "trials": 3},
        {"sigmas": np.geomspace(1e-10, 1e-7, 5), "trials": 2},
        {"sigmas": [1e-6, 1e-5], "base": "random", "dim": 32, "redraw_base": True},
    ],
)
def test_every_sweep_can_be_drawn(settings, tmp_path):
    page = report(run(tmp_path / "run", **settings))[0]
    assert "data:image/png;base64" in page.read_text()


@pytest.mark.slow
def test_the_page_opens_offline(tmp_path):
    html = report(run(tmp_path / "run"))[0].read_text()
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", html)
    assert "default-src &#39;none&#39;" in html
    for link in re.findall(r'href="([^"#]+)"', html):
        assert link == "data:," or (tmp_path / "run" / link).exists()


@pytest.mark.slow
def test_the_page_escapes_what_it_did_not_write(tmp_path):
    base = tmp_path / "<img src=x onerror=alert(1)>.npy"
    np.save(base, np.ones(16, np.float32))
    html = report(run(tmp_path / "run", base=base))[0].read_text()
    assert "<img src=x" not in html
    assert "&lt;img src=x" in html


def test_an_unfinished_run_has_no_report(tmp_path):
    running = sweep([1e-9] * 40, n_tokens=20, out=tmp_path / "run")
    next(running)
    running.close()
    with pytest.raises(FileNotFoundError, match="interrupted; finish it with --resume"):
        report(tmp_path / "run")


@pytest.mark.slow
def test_the_summary_has_the_range_of_each_statistic(tmp_path):
    frame = pl.read_parquet(run(tmp_path / "run", trials=4) / "records.parquet")
    rows = {row["statistic"]: row for row in ranges(frame)}
    holes = frame["n_black_holes"].to_list()
    assert (rows["black holes C"]["min"], rows["black holes C"]["max"]) == (min(holes), max(holes))
    assert rows["black holes C"]["first"] == sum(holes[:4]) / 4
    assert rows["black holes C"]["last"] == sum(holes[-4:]) / 4
    assert "max L-inf / epsilon" not in rows  # no epsilon was passed


@pytest.mark.parametrize(("value", "text"), [(2100, "2,100"), (0.5, "0.5"), (1.23456e-9, "1.235e-09"), (3.0, "3")])
def test_numbers_are_printed_for_people(value, text):
    assert number(value) == text


def test_token_texts_are_shown_up_to_a_number():
    hole = {"population": 4, "token_ids": [5, 6, 7, 8], "tokens": ["a", None, "c", "d"]}
    assert token_texts(hole["token_ids"], hole["tokens"], 3) == "a  #6  c  and 1 more"
    assert token_texts(hole["token_ids"], hole["tokens"]) == "a  #6  c  d"


def test_right_to_left_texts_keep_their_place():
    assert isolated("\u05d0\u05d1") == "\u2068\u05d0\u05d1\u2069"
    assert isolated("abc") == "abc"


def test_lines_in_a_pipe_have_no_trailing_blanks(capsys):
    in_hole = {"black_hole": 1}
    scanned = scan_of({}, in_hole | {"text": "[red]x[/red]"}, in_hole | {"text": "[/]"}, tokenizer=False)
    print_scan(scanned, console())
    printed = capsys.readouterr().out
    assert "[red]x[/red]  [/]" in printed
    assert not [line for line in printed.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize(
    ("output", "shape", "is_tied", "says"),
    [
        (None, None, True, "tied: no output tensor of its own"),
        (None, None, False, "untied, its config says, but no output tensor is here"),
        ("head", (9, 8), True, "tied: head holds the same words"),
        ("head", (9, 8), False, "untied: the output tensor head differs"),
        ("head", (16, 8), False, "untied: the output tensor head is 16 x 8"),
        ("rows", (9, 8), False, "the output tensor, untied"),
    ],
)
def test_what_the_output_matrix_is_to_the_rows_stands_in_words(output, shape, is_tied, says):
    matrix = replace(scan_of(*[{}] * 9, tensor="rows").matrix, output_tensor=output, output_shape=shape, tied=is_tied)
    assert phrase("tied", matrix=matrix) == says


def trained(folder, losses=(4.0, 3.0, 2.5), status="complete"):
    """A training's folder as the lab leaves it, as far as its page looks at it."""
    parameters = {"steps": 3, "start": "snowball", "n_unseen": 3, "vocabulary": 6}
    write_run(folder, BY_HAND, [3, 4, 5], record_every="10")
    manifest = {"schema_version": 1, "experiment": "train", "command": "darkvocab train", "parameters": parameters}
    manifest |= {"seed": 1, "packages": {"python": "3"}, "inputs": [{"corpus": "x", "sha256": "0"}], "status": status}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    metrics = {"step": range(1, len(losses) + 1), "loss": losses}
    pl.DataFrame(metrics, schema={"step": pl.Int64, "loss": pl.Float64}).write_parquet(folder / "metrics.parquet")
    return folder


@pytest.mark.slow
def test_a_training_has_a_page(tmp_path):
    written = report(trained(tmp_path / "run"))
    assert [path.name for path in written] == ["report.html", "loss.png", "loss.pdf"]
    html = written[0].read_text()
    assert "3 steps from a snowball start; 3 of 6 tokens do not occur in the text." in html
    assert "The loss fell from 4.0000 to 2.5000 nats per token." in html
    assert '<tr><th scope="row">black holes C</th><td class="n">1</td><td class="n">1</td><td class="n">1</td>' in html
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in report(tmp_path / "run")] == before


def test_a_training_that_diverged_at_once_has_a_page_without_a_figure(tmp_path):
    written = report(trained(tmp_path / "run", losses=(), status="diverged"))
    assert [path.name for path in written] == ["report.html"]
    assert "The training diverged" in written[0].read_text()


def test_a_training_that_goes_on_has_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="interrupted; finish it with --resume"):
        report(trained(tmp_path / "run", status="interrupted"))


@pytest.mark.parametrize("name", ["metrics.parquet", "embedding_evolution.safetensors", "manifest.json"])
def test_a_damaged_training_is_named(tmp_path, name):
    folder = trained(tmp_path / "run")
    (folder / name).write_bytes(b"{}")
    with pytest.raises(CorruptFile, match=name):
        report(folder)


@pytest.mark.slow
def test_an_evolution_has_a_page_that_says_what_ran(tmp_path):
    folder = trained(tmp_path / "run")
    evolve(folder, out=folder)
    html = report(folder)[0].read_text()
    assert "6 tokens, 3 of them unseen, over 50 optimizer steps." in html
    assert "#2 splits off #1 with 2 tokens: 1 2" in html
    assert "darkvocab train" in html
