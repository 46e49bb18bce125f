"""Texts and names that others chose: harmless on a terminal, in CSV and in the report, and printed in full."""

import csv
import json
import os
import unicodedata
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkvocab.runs.records import csv_text
from darkvocab.text import printable

EVIL = {
    "escape": ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
    "8-bit escape": ("\x9b2J", r"\x9b2J"),
    "right-to-left override": ("a\u202eb", r"a\u202eb"),
    "isolate that does not end": ("a\u2067b", r"a\u2067b"),
    "newline": ("a\nb", r"a\nb"),
    "carriage return": ("a\rb", r"a\rb"),
    "line separator": ("a\u2028b", r"a\u2028b"),
    "nul": ("a\x00b", r"a\x00b"),
    "zero width": ("a\u200bb", r"a\u200bb"),
    "tag": ("a\U000e0041b", r"a\U000e0041b"),
    "unassigned": ("a\U000e0fffb", r"a\U000e0fffb"),
    "markup": ("[red]a[/red]", "[red]a[/red]"),
    "closing markup": ("[/]", "[/]"),
    "link markup": ("[link=https://example.org]a[/link]", "[link=https://example.org]a[/link]"),
    "emoji code": (":warning:", ":warning:"),
    "formula": ("=1+1", "=1+1"),
}


def harmless(text):
    """No character that moves, hides, turns round or colours, but for line ends and isolates that close."""
    assert text.count("\u2068") == text.count("\u2069")
    allowed = "\n\u2068\u2069"
    return all(c in allowed or unicodedata.category(c) not in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp") for c in text)


def twins(model, *texts, **others):
    """A model whose tokens with these texts share a row."""
    return model(np.zeros((len(texts), 2)), texts, **others)


@pytest.mark.parametrize(("text", "shown"), EVIL.values(), ids=EVIL)
def test_text_of_a_token_reaches_the_terminal_harmless_and_in_full(model, cli, text, shown):
    result = cli("scan", twins(model, "plain", text))
    assert result.code == 0
    assert harmless(result.out)
    assert f"plain  {shown}\n" in result.out


@pytest.mark.parametrize(("text", "shown"), EVIL.values(), ids=EVIL)
def test_text_of_a_token_reaches_json_as_it_is(model, cli, text, shown):
    result = cli("scan", twins(model, "plain", text), "--json")
    assert result.out.isascii()
    assert harmless(result.out)
    assert json.loads(result.out)["black_holes"][0]["tokens"] == ["plain", text]


def test_right_to_left_letters_do_not_turn_their_surroundings(model, cli):
    result = cli("scan", twins(model, "plain", "\u05e9\u05dc\u05d5\u05dd", "next"))
    assert "plain  \u2068\u05e9\u05dc\u05d5\u05dd\u2069  next\n" in result.out


CELLS = {
    "=1+1": "'=1+1",
    '=HYPERLINK("http://example.org")': '\'=HYPERLINK("http://example.org")',
    "+1": "'+1",
    "-1": "'-1",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": r"\t=1",
    "\r=1": r"\r=1",
    "\n=1": r"\n=1",
    "\ufeff=1": r"\ufeff=1",
    'a"b,c;d': 'a"b,c;d',
    "\x1b[2J": r"\x1b[2J",
    "a\u202eb": r"a\u202eb",
    "'=1": "'=1",
    "": "",
}


def test_text_of_a_token_reaches_csv_harmless(tmp_path, model, cli):
    texts = ["plain", *CELLS]
    assert cli("scan", twins(model, *texts), "--csv", tmp_path / "tokens.csv").code == 0
    content = (tmp_path / "tokens.csv").read_bytes().decode("utf-8")
    assert harmless(content)
    header, *rows = csv.reader(content.splitlines())
    assert header == ["black_hole", "population", "token_id", "token"]
    assert [row[:3] for row in rows] == [["1", str(len(texts)), str(token)] for token in range(len(texts))]
    assert [row[3] for row in rows] == ["plain", *CELLS.values()]


@pytest.mark.slow
@given(text=st.text(st.characters(), max_size=8))
def test_any_text_is_made_harmless(text):
    assert harmless(printable(text))
    assert not csv_text(text).startswith(("=", "+", "-", "@"))
    assert harmless(csv_text(text))
    if text.isprintable():
        assert printable(text) == text


@pytest.mark.parametrize(
    "others",
    [
        {"tensor": "\x1b[2J\u202e.embed_tokens.weight"},
        {"\x1b[2J\u202e.lm_head.weight": np.zeros((2, 2))},
        {"\x1b[2J\u202e.lm_head.weight": np.ones((2, 2))},
    ],
)
def test_name_of_a_tensor_reaches_the_terminal_harmless(model, cli, others):
    result = cli("scan", twins(model, "a", "b", **others))
    assert result.code == 0
    assert r"\x1b[2J\u202e." in result.out
    assert harmless(result.out)


@pytest.mark.parametrize("name", ["\x1b[2J\u202e.npy", "[red]a[bold].npy", "a\nb.npy", os.fsdecode(b"caf\xe9.npy")])
def test_name_of_a_source_reaches_the_terminal_harmless_and_in_full(tmp_path, monkeypatch, cli, name):
    monkeypatch.chdir(tmp_path)
    missing = cli("scan", name)
    np.save(name, np.zeros((2, 2), np.float32))
    result = cli("scan", name)
    (tmp_path / name).write_bytes(b"")
    corrupt = cli("scan", name)
    assert (missing.code, result.code, corrupt.code) == (3, 0, 4)
    assert all(harmless(text) for text in (missing.err, result.out, corrupt.err))
    assert printable(name) in result.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "command"),
    [
        ((2, 2), ["centroid", "-o", os.fsdecode(b"\xe9.safetensors")]),
        ((4,), ["sweep", "--sigma", "0", "--tokens", "5", "--out", os.fsdecode(b"\xe9"), "--base"]),
    ],
)
def test_name_that_is_not_utf8_is_allowed(tmp_path, monkeypatch, cli, shape, command):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9.npy")
    np.save(name, np.zeros(shape, np.float32))
    result = cli(*command, name)
    assert result.code == 0
    assert harmless(result.out)
    assert harmless(result.err)


@pytest.fixture
def reported(tmp_path, monkeypatch, cli):
    """A finished run from a base of this name."""

    def run(name):
        monkeypatch.chdir(tmp_path)
        np.save(name, np.linspace(-0.01, 0.01, 16, dtype=np.float32))
        result = cli("sweep", "--sigma", "0,1e-5", "--tokens", 5, "--base", name, "--out", "run")
        assert result.code == 0
        return tmp_path / "run"

    return run


@pytest.mark.slow
def test_name_of_a_base_is_text_in_the_report(reported):
    page = (reported("<img src=x onerror=alert(1)>&.npy") / "report.html").read_text("utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;.npy" in page


@pytest.mark.slow
def test_name_of_a_base_is_no_formula_in_the_records(reported):
    with (reported("=1+1.npy") / "records.csv").open(encoding="utf-8", newline="") as file:
        assert [row["base"] for row in csv.DictReader(file)] == ["'=1+1.npy"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["$\\nothing$.npy", "\x1b[2J.npy", "\u4e2d.npy"])
def test_name_of_a_base_is_text_in_the_figure(reported, name):
    assert (reported(name) / "figures" / "sweep.pdf").stat().st_size > 0


def test_nothing_of_a_token_is_executed_on_a_terminal(model, start):
    """A true terminal, where styles are allowed but only ours."""
    folder = twins(model, "plain", "\x1b[2J\u202e[red]a[/red]")
    master, slave = os.openpty()
    with start("scan", folder, stdout=slave, stderr=slave) as child:
        os.close(slave)
        content = b""
        with suppress(OSError):  # Linux ends a terminal's output with one
            while block := os.read(master, 1 << 16):
                content += block
    os.close(master)
    text = content.decode("utf-8")
    assert child.returncode == 0
    assert r"\x1b[2J\u202e[red]a[/red]" in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_text_that_the_terminal_cannot_show_is_escaped(model, process, encoding):
    folder = twins(model, "plain", "\u4e2d")
    result = process("scan", folder, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert (result.code, result.err) == (0, "")
    assert r"plain  \u4e2d" in result.out
