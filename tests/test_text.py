"""Values for people: short, safe, and in a notebook a table."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from darkvocab.text import MOST_CHARACTERS, Shown, brief


@dataclass(frozen=True, kw_only=True, repr=False)
class Result(Shown):
    sigma: float
    name: str = "qwen3-4b"
    counts: tuple[int, ...] = (814, 704, 306, 228, 11, 10)
    frame: pl.DataFrame = field(default_factory=lambda: pl.DataFrame({"n": [1, 2]}))
    _cache: int = 7


class Settings(Shown):
    def __init__(self, sigmas):
        self.sigmas = sigmas
        self._hidden = "hidden"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.28412345e-09, "4.28412e-09"),
        (2100, "2100"),
        (None, "None"),
        ("text", "'text'"),
        (Path("runs"), repr(Path("runs"))),
        ((1, 2.5, "a"), "[1, 2.5, 'a']"),
        ([1e-9] * 8, "[1e-09, 1e-09, 1e-09, 1e-09, ... 8 in all]"),
        (np.zeros((3, 2560)), "<ndarray 3 x 2,560>"),
        (np.float64(0.5), "0.5"),
        (pl.DataFrame({"a": [1]}), "<DataFrame 1 x 1>"),
        ({"a": [1], 2: None}, "{a: [1], 2: None}"),
        ("\x1b[2J", "'\\x1b[2J'"),
        ({"\x1b[2J": 1}, "{\\x1b[2J: 1}"),
        ([[[1, 2], []]], "[[[... 2 in all], []]]"),
    ],
)
def test_a_value_is_shown_on_one_line(value, text):
    assert brief(value) == text


def test_a_long_text_is_cut():
    assert len(brief("a" * 10_000)) == MOST_CHARACTERS + 2


def test_a_result_and_settings_have_a_readable_repr():
    counts = "[814, 704, 306, 228, ... 6 in all]"
    assert repr(Result(sigma=1e-9)) == f"Result(sigma=1e-09, name='qwen3-4b', counts={counts}, frame=<DataFrame 2 x 1>)"
    assert repr(Settings([1e-9, 2e-9])) == "Settings(sigmas=[1e-09, 2e-09])"


def test_a_notebook_shows_a_table_and_the_frames():
    html = Result(sigma=1e-9)._repr_html_()
    assert "<caption>Result</caption>" in html
    assert ">sigma</th><td style='text-align:left'>1e-09</td>" in html
    assert html.count('class="dataframe"') == 1
    assert "cache" not in html


def test_a_notebook_runs_nothing_that_a_name_says():
    html = Result(sigma=1e-9, name="<script>alert(1)</script>\x1b[2J")._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[2J" in html
