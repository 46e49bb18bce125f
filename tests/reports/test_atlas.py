"""The page of a scan before a browser has it: its sentence, its kinds, what is packed into it."""

import gzip
import json
import re
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from atlases import HOSTILE, atlas_of, hostile, qwen_shaped, token_frame

from darkvocab.reports import atlas
from darkvocab.reports.atlas import TOKEN_KINDS, finding, gzipped, kinds_of, pack, page, rounded
from darkvocab.text import printable

N = 8


def told(**columns):
    tokens = token_frame(N, **columns)
    return finding(atlas_of(tokens), kinds_of(tokens), tokens["dark"].to_numpy())


def test_nothing_dark_is_said_so():
    assert told() == "None of 8 tokens stands out as dark; no two tokens share a row."


def test_the_finding_counts_kinds_most_first():
    sentence = told(
        category=["unreachable"] * 5 + ["reachable"] * 3,
        reserved=["[unused#]"] * 2 + [None] * 6,
        dark=[True] * 6 + [False] * 2,
    )
    assert sentence == (
        "6 of 8 tokens (75.0%) are dark: 3 unreachable, 2 with reserved names and 1 reachable, yet under-trained; "
        "no two tokens share a row."
    )


def test_one_kind_and_one_token_have_words_of_their_own():
    dark = [True] + [False] * 7
    assert told(dark=dark, category=["special"] + ["reachable"] * 7).startswith(
        "1 of 8 tokens (12.5%) is dark: it is special;"
    )
    assert told(dark=[True] * 8, category=["unreachable"] * 8).startswith(
        "8 of 8 tokens (100.0%) are dark: all unreachable;"
    )


def test_black_holes_are_counted_in_the_finding():
    holes = {"black_hole": [1, 1, 1, 2, 2, None, None, None], "population": [3, 3, 3, 2, 2, 1, 1, 1]}
    assert told(**holes).endswith("; 5 tokens share only 2 rows (black holes), 3 of them the same one.")
    one = {"black_hole": [1, 1] + [None] * 6, "population": [2, 2] + [1] * 6}
    assert told(**one).endswith("; 2 tokens share one row (a black hole).")


def test_a_token_is_of_one_kind():
    tokens = token_frame(
        7,
        category=["reachable", "reachable", "unreachable", "special", "beyond_tokenizer", "partial_utf8", "unknown"],
        dark=[False, True, True, False, True, False, True],
        reserved=[None, None, None, "<|reserved_special_token_#|>", None, None, None],
    )
    assert [TOKEN_KINDS[kind].key for kind in kinds_of(tokens)] == [
        *("reachable", "under_trained", "unreachable", "reserved", "beyond_tokenizer", "partial_utf8", "unknown")
    ]


def unpacked(scan):
    """The header, the columns and the texts of a packed scan, read in the plain way."""
    content = gzip.decompress(pack(scan, kinds_of(scan.tokens)))
    size = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + size])
    n, at = header["n"], 4 + size
    columns = {}
    for name in [*header["names"], *header["texts"]]:
        planes = np.frombuffer(content[at : at + 4 * n], np.uint8).reshape(4, n)
        columns[name] = planes.T.copy().view(np.float32 if name in header["floats"] else np.int32).ravel()
        at += 4 * n
    units = content[at:].decode().encode("utf-16-le")
    texts, start = {name: [] for name in header["texts"]}, 0
    for lengths in zip(*(columns[name].tolist() for name in header["texts"]), strict=True):
        for name, length in zip(header["texts"], lengths, strict=True):
            end = start + 2 * max(length, 0)
            texts[name].append(None if length < 0 else units[start:end].decode("utf-16-le"))
            start = end
    return header, columns, texts


@pytest.mark.parametrize("at_a_time", [7, 8_192])
@pytest.mark.parametrize("make", [hostile, lambda: qwen_shaped(3_000)])
def test_what_is_packed_is_there_again(make, at_a_time, monkeypatch):
    monkeypatch.setattr(atlas, "TEXTS_AT_A_TIME", at_a_time)
    scan = make()
    tokens = scan.tokens
    header, columns, texts = unpacked(scan)
    assert header["report"] == scan.to_json()
    assert header["columns"] == tokens.columns
    for name in ("text", "witness"):
        assert texts[name] == tokens[name].to_list()
        for row, text in enumerate(texts[name]):
            assert text is None or header["shown"][name].get(str(row), text) == printable(text)
    assert [None if b is None else b.encode("latin-1").hex() for b in texts["bytes"]] == tokens["bytes"].to_list()
    for name in ("id", "black_hole", "population", "n_touching", "steps"):
        assert columns[name].tolist() == tokens[name].fill_null(-1).to_list()
    for name in ("category", "script", "reserved"):
        values = [None if code < 0 else header["codes"][name][code] for code in columns[name]]
        assert values == [None if text is None else printable(text) for text in tokens[name]]
    for name in header["floats"]:
        outside = tokens[name].to_numpy()
        assert np.abs(columns[name] - outside).max() <= 2**-13 * np.abs(outside).max()


def test_a_missing_number_is_packed_as_none():
    tokens = token_frame(2, score=[None, 1.0], steps=[None, 3])
    _, columns, _ = unpacked(atlas_of(tokens))
    assert np.isnan(columns["score"]).tolist() == [True, False]
    assert columns["steps"].tolist() == [-1, 3]


@pytest.mark.parametrize("value", [1.0, -1.0, 0.1, 3.4e38, 1e-38, 123456.789])
def test_rounding_is_off_by_one_in_sixteen_thousand_at_most(value):
    assert abs(float(rounded(np.array([value]))[0]) - value) <= abs(value) * 2**-13.9


def test_the_same_scan_is_the_same_bytes():
    assert page(hostile()) == page(hostile())


def test_no_text_of_a_token_is_markup_before_a_script_ran():
    html = page(hostile()).decode()
    head, scripts = html.split('<script type="application/octet-stream"')
    assert "<script" not in head
    assert "<img" not in head
    assert "onload=window" not in head.replace("&gt;&lt;svg onload=window", "")
    assert "\u202e" not in html
    assert "\u2028" not in html
    assert scripts.count("</script>") == 3  # the data, the library, and ours
    assert max(len(text) for text in HOSTILE) > 10_000
    assert "x" * 300 not in head


def test_the_list_of_a_page_begins_with_what_is_dark():
    tokens = token_frame(400, score=np.arange(400) / 400, dark=np.arange(400) >= 390)
    html = page(atlas_of(tokens)).decode()
    assert html.count("<tr><td class") == 10
    assert html.index('<td class="n">399<') < html.index('<td class="n">391<')
    assert "10 dark tokens" in html


def test_from_which_score_a_token_is_dark_is_no_distance():
    html = page(atlas_of(token_frame(5), indicators={"threshold": 0.0625})).decode()
    assert "A token is dark from a score of 0.5, that is, up to a distance of 0.0625" in html


def test_a_scan_without_a_tokenizer_has_a_page():
    tokens = token_frame(5, text=[None] * 5, category=["unknown"] * 5, score=[None] * 5, dark=[None] * 5)
    html = page(atlas_of(tokens, vocabulary=None, n_beyond_tokenizer=None)).decode()
    assert "known by id" in html
    assert "not explained" in html
    assert pl.Series(kinds_of(tokens)).unique().to_list() == [1]


def test_weak_tokens_are_counted_whatever_kind_they_are_and_said_to_be_triangles():
    tokens = token_frame(
        5,
        grade=["untrained", "weak", "weak", "weak", "trained"],
        dark=[True] + [False] * 4,
        reserved=[None, None, None, "[unused#]", None],
    )
    html = page(atlas_of(tokens)).decode()
    assert "<div><dt>weak</dt><dd>3</dd></div>" in html
    assert "Filled marks are dark, triangles that point down are weak." in html
    rows = re.findall(
        r"</svg> ([a-z, ]+)</th><td class=\"n\">(\d)</td><td class=\"n\">(\d)</td>\n<td class=\"n\">(\d)</td>", html
    )
    assert rows == [
        ("reachable", "1", "0", "0"),
        ("reserved name", "1", "0", "1"),
        ("reachable, yet dark", "1", "1", "0"),
        ("weak", "2", "0", "2"),
    ]


def test_each_kind_has_its_colours_in_the_style_too():
    style = (Path(atlas.__file__).parent / "page.css").read_text().lower()
    for kind in TOKEN_KINDS:
        if kind.light != TOKEN_KINDS[0].light:
            assert f".kind-{kind.key} path" in style
        for colour in (kind.light, kind.dark):
            assert colour.lower() in style or colour == "#000000"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 999, 65_536, 70_001, 1 << 20])
def test_two_halves_that_are_compressed_at_once_are_one_member_of_gzip(size):
    content = (b"what both halves hold, " * (size // 23 + 1))[:size]
    for part in (content, np.random.default_rng(size).bytes(size)):
        reader = zlib.decompressobj(wbits=31)  # as browsers read it: one member, and nothing behind it
        assert reader.decompress(gzipped(part)) + reader.flush() == part
        assert (reader.eof, reader.unused_data) == (True, b"")
    assert len(gzipped(content)) < len(content) / 20 + 60
