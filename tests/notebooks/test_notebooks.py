"""Notebooks run and show what they hold; results and progress show themselves; an interrupted cell goes on."""

import io
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import darkvocab
from darkvocab.notebooks.recipes import compare
from darkvocab.progress import progress_bar
from darkvocab.reports.document import Displayed

FOLDER = Path(__file__).parents[2] / "notebooks"
MODEL = FOLDER.parent / "demo/SmolLM2-135M-Instruct.Q4_1.gguf"
MOST_BYTES = 1_000_000  # of all notebooks
LONG = """
import numpy as np, darkvocab
settings = darkvocab.snowballs.Sweep(np.linspace(1.5e-9, 5e-9, 1600), n_tokens=400)
darkvocab.snowballs.land(settings, {out!r}, resume=True, progress=lambda done, total: print(done, flush=True))
"""


@pytest.mark.slow
def test_every_notebook_runs_and_shows_what_it_holds():
    for name in ("nbclient", "ipykernel", "transformers"):
        pytest.importorskip(name)
    chosen = [path for path in sorted(FOLDER.glob("*.ipynb")) if MODEL.is_file() or path.stem != "real_model"]
    ran = subprocess.run([sys.executable, FOLDER / "run.py", *chosen], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_notebooks_are_stored_as_they_ran_from_top_to_bottom():
    paths = sorted(FOLDER.glob("*.ipynb"))
    assert len(paths) == 8
    assert sum(path.stat().st_size for path in paths) < MOST_BYTES
    for path in paths:
        cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), path.name
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert len(outputs) >= 4, path.name
        assert {output["output_type"] for output in outputs} <= {"execute_result", "display_data", "stream"}, path.name
        assert {output.get("name", "stdout") for output in outputs} == {"stdout"}, path.name


@pytest.mark.slow
def test_a_cell_that_was_interrupted_goes_on_where_it_stopped(tmp_path):
    jupyter_client = pytest.importorskip("jupyter_client")
    pytest.importorskip("ipykernel")
    out = tmp_path / "run"
    manager, client = jupyter_client.manager.start_new_kernel()
    try:

        def stop(message):
            if message["msg_type"] == "stream" and message["content"]["text"].strip() not in ("", "0"):
                manager.interrupt_kernel()

        reply = client.execute_interactive(LONG.format(out=str(out)), output_hook=stop, timeout=60)["content"]
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
        n_landed = darkvocab.summary(out)["n_landed"]
        assert 0 < n_landed < 1600
        counts = []
        client.execute_interactive(
            LONG.format(out=str(out)), output_hook=lambda message: counts.append(message["content"].get("text", ""))
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    numbers = [int(count) for count in "".join(counts).split()]
    assert (numbers[0], numbers[-1]) == (n_landed, 1600)
    assert darkvocab.summary(out)["status"] == "complete"


class Notebook(io.StringIO):
    """Standard error of a notebook."""


Notebook.__module__ = "ipykernel.iostream"


@pytest.mark.parametrize(("stream", "n_lines"), [(Notebook, 0), (io.StringIO, 6)])
def test_progress_takes_one_line_of_a_notebook_and_few_of_a_log(stream, n_lines, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr(time, "monotonic", itertools.count(0, 0.5).__next__)
    with progress_bar("counting") as progress:
        for done in range(60):
            progress(done, 60)
    written = sys.stderr.getvalue()
    assert written.count("\n") == n_lines
    assert "counting: 5" in written
    if stream is Notebook:  # the last writes blanks over the line
        *_, before, last, end = written.split("\r")
        assert "of 60" in before
        assert (last.strip(), end) == ("", "")
        assert len(last) >= len(before)


def test_progress_takes_its_line_away_where_the_work_fails(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Notebook())
    with pytest.raises(KeyboardInterrupt), progress_bar("counting"):
        raise KeyboardInterrupt
    assert sys.stderr.getvalue().strip() == ""


def test_a_notebook_shows_a_comparison_as_a_table_with_each_note_once():
    rows = [compare("C", 13, 13), compare("<P>", 5, 6, note="why"), compare("K", 1, 2, uncheckable="why")]
    shown = Displayed(rows, "comparison.html.j2")
    assert shown == rows
    html = shown._repr_html_()
    assert html.count("<tr>") == 4
    assert html.count("<p>[1] why</p>") == 1
    assert html.count("[1]") == 3
    assert "&lt;P&gt;" in html
    assert "<P>" not in html


@pytest.mark.slow
def test_a_notebook_shows_the_figures_of_a_report(tmp_path):
    darkvocab.snowballs.land(
        darkvocab.snowballs.Sweep([1e-9, 2e-9], n_tokens=20, dim=16, base="random"), tmp_path / "run"
    )
    written = darkvocab.report(tmp_path / "run")
    assert written[0] == tmp_path / "run/report.html"
    html = written._repr_html_()
    assert html.count("<img") == 1
    assert 'src="data:image/png;base64,iVBOR' in html
