"""A scan as a result: the JSON that the previous version wrote, one order of dark tokens, what it looks like."""

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from atlases import atlas_of, token_frame
from safetensors.numpy import save_file
from scans import scan_of

from darkvocab import check, scan
from darkvocab.reports.atlas import kinds_of, pack, page
from darkvocab.reports.checkpoints import print_scan
from darkvocab.reports.console import console

BEFORE = Path(__file__).parent / "data" / "scan.json"  # of this model, `darkvocab scan model --json --tokens dark`


def save_model(folder: Path) -> None:
    """An untied model: the input has two black holes, of the output the last rows are as they began."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    inputs, outputs = (rng.normal(0, 0.05, (300, 16)).astype(np.float32) for _ in range(2))
    inputs[[7, 9, 50]] = inputs[7]
    inputs[[3, 4]] = inputs[3]
    outputs[-60:] = rng.normal(0.1, 0.002, (60, 16))
    outputs[-1] = outputs[-2]
    save_file({"model.embed_tokens.weight": inputs, "lm_head.weight": outputs}, folder / "model.safetensors")
    texts = [*(f"t{i}" for i in range(270)), *(f"[unused{i}]" for i in range(20))]
    model = {"type": "WordLevel", "vocab": {text: i for i, text in enumerate(texts)}, "unk_token": "t0"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))


def same(actual, expected):
    """Equal, with keys in the same order; numbers that are no counts up to how sums are ordered."""
    if isinstance(expected, dict):
        return list(actual) == list(expected) and all(same(actual[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(same, actual, expected))
    return actual == (pytest.approx(expected, rel=1e-9, abs=1e-12) if isinstance(expected, float) else expected)


# Keys that came with version 3, of a scan and of a token.
SINCE = {"padding_token", "grades", "n_never_emitted", "copies", "tying", "notes", "skipped", "template_tokens"}
SINCE_OF_TOKENS = {"grade", "side", "input_distance", "input_score"}


def test_the_json_is_that_of_the_version_before_with_grades(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(Path("model"))
    scanned = json.loads(json.dumps(scan("model").to_json("dark"), allow_nan=False))
    before = json.loads(BEFORE.read_text())
    assert (scanned.pop("schema_version"), before.pop("schema_version")) == (3, 2)
    assert {key: scanned.pop(key) for key in SINCE}["grades"]["n_untrained"] == 60
    for token in scanned["tokens"]:
        assert {key: token.pop(key) for key in SINCE_OF_TOKENS}["grade"] == "untrained"
    assert same(scanned, before)


# Ties of the score, of the distance, and of both; scores that differ by less than a page shows.
TIED = {
    "score": [1.0, 1.0, 1.0, 1 - 1e-9, 1.0, 0.2],
    "euclidean": [0.3, 0.1, 0.3, 0.0, 0.2, 9.0],
    "dark": [True] * 5 + [False],
}
SUREST = [1, 4, 0, 2, 3]


def test_the_surest_come_first_in_the_list_and_in_the_csv(tmp_path):
    scanned = atlas_of(token_frame(6, **TIED))
    assert scanned.listed("dark")["id"].to_list() == SUREST
    assert [token["id"] for token in scanned.to_json("dark")["tokens"]] == SUREST
    scanned.write_tokens(tmp_path / "dark.csv", "dark")
    assert pl.read_csv(tmp_path / "dark.csv")["id"].to_list() == SUREST


def test_the_surest_come_first_in_the_table(capsys):
    print_scan(atlas_of(token_frame(6, **TIED)), console())
    assert "t1  t4  t0  t2  t3" in capsys.readouterr().out


def test_the_surest_come_first_in_a_verdict():
    verdict = check(atlas_of(token_frame(6, **TIED)))
    result = {finding.rule.name: finding.token_ids for finding in verdict.findings}
    assert result["dark-tokens"] == result["dark-reachable-tokens"] == SUREST


def test_the_surest_come_first_in_the_page():
    scanned = atlas_of(token_frame(6, **TIED))
    html = page(scanned).decode()
    places = [html.index(f'<tr><td class="n">{token}</td>') for token in SUREST]
    assert places == sorted(places)
    content = gzip.decompress(pack(scanned, kinds_of(scanned.tokens)))
    header = json.loads(content[4 : 4 + int.from_bytes(content[:4], "little")])
    start = 4 + int.from_bytes(content[:4], "little") + header["names"].index("rank") * 4 * 6
    rank = np.frombuffer(content[start : start + 24], np.uint8).reshape(4, 6).T.copy().view(np.int32).ravel()
    assert np.argsort(rank).tolist() == [*SUREST, 5]


def test_a_scan_says_in_a_line_what_it_found():
    scanned = scan_of({}, {"dark": True}, {"black_hole": 1}, {"black_hole": 1}, path="a<b>\x1b.bin")
    assert repr(scanned) == (
        r"Scan(source='a<b>\x1b.bin', tensor='embed.weight', grid='bfloat16', n_black_holes=1, "
        "black_hole_population=2, n_dark=1, n_weak=0, reference='reserved names', tokens=<DataFrame 4 x 17>)"
    )
    assert r"'a&lt;b&gt;\x1b.bin'" in scanned._repr_html_().replace("&#x27;", "'")


def test_a_verdict_says_in_a_line_what_it_found():
    verdict = check(scan_of({}, {"dark": True}))
    assert repr(verdict) == (
        "Verdict(source='model/model.safetensors', passed=False, n_errors=1, n_warnings=1, findings={"
        "dark-tokens: '1 dark token, at most 0 allowed.', "
        "dark-reachable-tokens: '1 dark token that a text reaches, at most 0 allowed.'})"
    )


def test_a_scan_cannot_be_changed():
    scanned = scan_of({})
    with pytest.raises(AttributeError):
        scanned.census = None
    with pytest.raises(AttributeError):
        scanned.census.n_unique = 3
