"""Tokenizer files that are wrong in every way: sizes that lie, tokens twice, bad patterns; and good ones, changed."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizer_files
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_files import tekken, trained, vocab_and_merges

from darkvocab.errors import CorruptFile, DarkvocabError
from darkvocab.measures.vocabulary import vocabulary
from darkvocab.sources.tokenizer import open_tokenizer, tiktoken
from darkvocab.sources.tokenizer.sentencepiece import TRIE_BLOCK, check_charsmap, fields, read_model

MUTATIONS = Path(tokenizer_files.__file__).with_name("mutations.py")


def message(number, data):
    """A field of bytes in a protocol buffer."""
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def piece(text, score=0.0, kind=None):
    """A piece of a SentencePiece model."""
    body = message(1, text) + b"\x15" + struct.pack("<f", score) + (b"" if kind is None else bytes([0x18, kind]))
    return message(1, body)


PIECES = piece(b"<unk>", kind=2) + piece(b"a") + piece(b"b", -1)
WRONG_MODELS = {
    "nothing": (b"", "not a tokenizer that can be read"),
    "a page": (b"\n<!DOCTYPE html><html></html>", "not a SentencePiece model"),
    "a size that lies": (b"\n\xff\xff\xff\xff\x07abc", "a field of 2,147,483,647 bytes where 3 are left"),
    "a size without an end": (b"\n" + b"\xff" * 20, "a number without an end"),
    "an unknown kind": (b"\n\x00" + b"\x0f\x01", "a field of unknown kind 7"),
    "no pieces": (b"\n" + b"\x00", "a piece without a text"),
    "a zero in a piece": (PIECES + piece(b"c\0d"), "a zero byte"),
    "a score that is none": (PIECES + piece(b"c", float("nan")), "no finite number"),
    "half a character": (PIECES + piece(b"\xe4\xb8"), "can't decode"),
    "a type that is none": (PIECES + piece(b"c", kind=9), "unknown type 9"),
    "a piece twice": (PIECES + piece(b"a"), "not a model that SentencePiece takes"),
    "no unknown": (piece(b"a") + piece(b"b"), "not a model that SentencePiece takes"),
    "a model that is none": (PIECES + message(2, b"\x18\x09"), "a model of unknown type 9"),
    "rules too short": (PIECES + message(3, message(2, b"ab")), "whose sizes do not agree"),
    "bytes that are a number": (PIECES + message(3, b"\x10\x05"), "rules of normalisation that are no bytes"),
}


@pytest.mark.parametrize(("data", "says"), WRONG_MODELS.values(), ids=WRONG_MODELS)
def test_a_sentencepiece_model_that_lies_is_refused(tmp_path, data, says):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match=says):
        open_tokenizer(path)


def test_one_of_pieces_alone_is_none_of_these(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(PIECES)
    assert vocabulary(path).text == ["<unk>", "a", "b"]


def charsmap(units, texts=b"x\0"):
    """Rules of normalisation: a trie of these units, each 32 bits, and what leaves name."""
    data = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(data)) + data + texts


@pytest.mark.parametrize(
    ("units", "texts", "says"),
    [
        ([0] * (TRIE_BLOCK - 1), b"x\0", "sizes do not agree"),
        ([0] * TRIE_BLOCK, b"x", "sizes do not agree"),
        ([1 << 10 << 8] + [0] * (TRIE_BLOCK - 1), b"x\0", "lead outside"),
        ([1 << 8] + [0] * (TRIE_BLOCK - 1), b"x\0", None),  # leads to itself, whose value is 256
    ],
)
def test_rules_of_normalisation_lead_nowhere_outside(units, texts, says):
    if says:
        with pytest.raises(ValueError, match=says):
            check_charsmap(charsmap(units, texts))
    else:
        with pytest.raises(ValueError, match="name texts outside"):
            check_charsmap(charsmap(units, texts))
        check_charsmap(charsmap(units, bytes(257)))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=4000))
def test_any_bytes_are_rules_or_an_error(data):
    try:
        check_charsmap(data)
    except ValueError:
        return
    assert len(data) > 4 * TRIE_BLOCK


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_model_or_an_error(data):
    try:
        held = list(fields(data))
        model = read_model(data)
    except ValueError:
        return
    assert model.text
    assert sum(number == 1 for number, _ in held) == len(model.text)
    assert read_model(model.serialised()).text == model.text


def test_a_model_is_what_was_read_of_it(tmp_path):
    data = trained(tmp_path / "a.model", "unigram").read_bytes()
    model = read_model(data)
    assert read_model(model.serialised()) == model
    assert len(model.charsmap) > 100_000


# Ranks and tekken ---------------------------------------------------------------------------------------------------

TEXT = b"IQ== 0\nIg== 1\n"
WRONG_RANKS = {
    "no rank": (TEXT + b"Iw==\n", "line 3 is not a token"),
    "no base64": (TEXT + b"I! 2\n", "line 3 is not a token"),
    "a rank of no number": (TEXT + b"Iw== -1\n", "line 3 is not a token"),
    "a rank beyond all": (TEXT + b"Iw== 99999999999999999999\n", "line 3 is not a token"),
    "an empty token": (TEXT + b"  2\n", "line 3 is not a token"),
    "a token twice": (TEXT + b"IQ== 2\n", "line 3 names the token of line 1 again"),
    "a rank twice": (TEXT + b"Iw== 1\n", "3 tokens have 2 ranks"),
    "cut in a token": (TEXT + b"Iw=", "line 3 is not a token"),
}


@pytest.mark.parametrize(("data", "says"), WRONG_RANKS.values(), ids=WRONG_RANKS)
def test_ranks_that_are_wrong_are_refused(tmp_path, data, says):
    (tmp_path / "a.tiktoken").write_bytes(data)
    with pytest.raises(CorruptFile, match=says):
        open_tokenizer(tmp_path / "a.tiktoken")


@pytest.mark.parametrize(
    ("pattern", "says"), [("(", "its pattern is none"), (3, "pat_str is no text"), ([["x"]], "no text")]
)
def test_a_pattern_beside_ranks_that_is_none_is_refused(tmp_path, pattern, says):
    path = tokenizer_files.of_ranks(tmp_path / "a.tiktoken")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pat_str": pattern}))
    with pytest.raises(CorruptFile, match=says):
        open_tokenizer(path)


def test_ranks_without_some_byte_cannot_encode(tmp_path, monkeypatch):
    known = tiktoken.Known("Made up", tokenizer_files.PATTERN)
    monkeypatch.setattr(tiktoken, "fingerprint", lambda ranks: "")
    monkeypatch.setitem(tiktoken.VOCABULARIES, "", known)
    (tmp_path / "a.tiktoken").write_bytes(TEXT)
    with pytest.raises(CorruptFile, match="no token for 254 single bytes, such as 0x00"):
        open_tokenizer(tmp_path / "a.tiktoken")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.binary(max_size=12) | st.sampled_from([b"IQ== 0", b"Ig== 1", b"Iw== 2147483648", b"YWI= 7"]), max_size=6
    )
)
def test_any_lines_are_ranks_or_an_error(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "any.tiktoken"
    path.write_bytes(b"\n".join([b"JA== 9", *lines]))
    try:
        tokenizer = open_tokenizer(path)
    except CorruptFile:
        return
    assert len(set(tokenizer.pieces.token)) == len(set(tokenizer.pieces.data)) == len(tokenizer.pieces)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
KEYS = ["added_tokens_decoder", "bos_token", "additional_special_tokens", "tokenizer_class", "unk_token", "299"]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES), st.dictionaries(st.text(max_size=5), VALUES, max_size=3))
def test_any_config_adds_tokens_or_is_an_error(tmp_path_factory, config, added):
    folder = tmp_path_factory.getbasetemp() / "any-config"
    folder.mkdir(exist_ok=True)
    vocab_and_merges(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "added_tokens.json").write_text(json.dumps(added))
    try:
        tokenizer = open_tokenizer(folder)
    except CorruptFile:
        return
    assert len(tokenizer.pieces) >= 259


WRONG_TEKKEN = {
    "a size that lies": ({"default_vocab_size": 10**9}, "says that it has 1,000,000,000 tokens"),
    "less than nothing": ({"default_vocab_size": -1}, "says that it has -1 tokens"),
    "only special tokens": (
        {"default_num_special_tokens": 10**9, "default_vocab_size": 10**9},
        "1,000,000,000 of them",
    ),
    "a size of no number": ({"default_vocab_size": "a"}, "not a tekken.json"),
    "no pattern": ({"pattern": None}, "not a tekken.json"),
    "a pattern that is none": ({"pattern": "("}, "its pattern is none that tiktoken takes"),
    "a pattern too large": ({"pattern": "(a{1000}){1000}"}, "its pattern is none that tiktoken takes"),
}


@pytest.mark.parametrize(("changes", "says"), WRONG_TEKKEN.values(), ids=WRONG_TEKKEN)
def test_a_tekken_file_that_lies_is_refused(tmp_path, changes, says):
    with pytest.raises(CorruptFile, match=says):
        open_tokenizer(tekken(tmp_path / "tekken.json", **changes))


@pytest.mark.parametrize(
    ("special", "says"),
    [
        ([{"rank": 3, "token_str": "<a>"}], "not each a text and a rank below 3"),
        ([{"rank": 0, "token_str": "\ud800"}], "not each a text"),
        ("<a>", "not each a text"),
        ([7], "not each a text"),
    ],
)
def test_special_tokens_of_tekken_that_are_none_are_refused(tmp_path, special, says):
    path = tekken(tmp_path / "tekken.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "special_tokens": special}))
    with pytest.raises(CorruptFile, match=says):
        open_tokenizer(path)


@pytest.mark.parametrize("pattern", [r"(?:(?=a)a+)+b|x", "a*"])
def test_a_pattern_that_tiktoken_gives_up_on_is_a_corrupt_file(tmp_path, capfd, pattern):
    merged = [b"a" * n for n in range(2, 60)]
    with pytest.raises(CorruptFile, match="breaks down while it encodes"):
        vocabulary(tekken(tmp_path / "tekken.json", merged=merged, pattern=pattern))
    assert capfd.readouterr().err.count("panicked") <= 1  # the library's own words


# Hugging Face's -----------------------------------------------------------------------------------------------------

WRONG_TEXTS = {
    "merges of unknown pieces": ("merges.txt", b"t h\nzz zz\n", "not a tokenizer that can be read"),
    "three pieces a line": ("merges.txt", b"t h e\n", "line 1 is not two pieces"),
    "merges of no text": ("merges.txt", b"t \xff\n", "not UTF-8 at byte 2"),
    "ids of no number": ("vocab.json", b'{"a": true}', "not each text has an id"),
    "ids below nothing": ("vocab.json", b'{"a": -1}', "not each text has an id"),
    "ids beyond all": ("vocab.json", b'{"a": 100000000000}', "not each text has an id"),
    "a list": ("vocab.json", b"[]", "not a JSON object"),
    "levels without end": ("vocab.json", b"[" * 100_000, "not JSON"),
    "half a character": ("vocab.json", b'{"\\ud800": 0}', "not a tokenizer that can be read"),
    "a config of no object": ("tokenizer_config.json", b"7", "not a JSON object"),
    "an added token of no text": (
        "tokenizer_config.json",
        b'{"added_tokens_decoder": {"1": 7}}',
        "an added token that",
    ),
    "an added token of no id": ("added_tokens.json", b'{"<a>": "x"}', "an added token that"),
    "an added token of an id beyond all": ("added_tokens.json", b'{"<a>": 1e30}', "an added token that"),
    "a map of no object": ("special_tokens_map.json", b"[]", "not a JSON object"),
}


@pytest.mark.parametrize(("name", "data", "says"), WRONG_TEXTS.values(), ids=WRONG_TEXTS)
def test_files_of_texts_that_are_wrong_are_refused(tmp_path, name, data, says):
    vocab_and_merges(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorruptFile, match=says):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize("merges", [[["t", "Ġh"]], ["t Ġh"], [["t", ""]]])
@pytest.mark.parametrize("escaped", ["", "_", "c", "x"])
def test_a_mark_that_the_library_would_cut_through_a_character_for_is_refused(tmp_path, escaped, merges):
    # It would end the process, not only raise an error.
    key = "".join(f"\\u{ord(c):04X}" if c in escaped else c for c in "continuing_subword_prefix")
    model = {"type": "BPE", "vocab": {"t": 0, "h": 1, "Ġh": 2, "tĠh": 3, "": 4}, "merges": merges, "key": "("}
    text = json.dumps({"version": "1.0", "added_tokens": [], "model": model}, ensure_ascii=False)
    (tmp_path / "tokenizer.json").write_text(text.replace('"key"', f'"{key}"'))
    with pytest.raises(CorruptFile, match="do not begin with its mark"):
        open_tokenizer(tmp_path)


def test_words_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"[UNK]\na\xff\n")
    with pytest.raises(CorruptFile, match="not UTF-8 at byte 7"):
        open_tokenizer(tmp_path)


def test_ids_far_beyond_the_texts_take_no_room(tmp_path):
    (tmp_path / "a.tiktoken").write_bytes(b"IQ== 0\nIg== 2147483647\n")
    with pytest.raises(DarkvocabError, match="2 texts with ids up to 2,147,483,648"):
        vocabulary(tmp_path / "a.tiktoken")
    assert vocabulary(tmp_path / "a.tiktoken", 3).text == ["!", None, None]


@pytest.mark.parametrize("name", ["tokenizer.model", "tekken.json", "vocab.json", "tokenizer.json", "a.tiktoken"])
@pytest.mark.parametrize("data", [b"", b"\n", b"\0" * 100, b"\xff\xfe", b"{}", b"[]", b"null", b"<html>"])
def test_files_of_nothing_are_one_sentence(tmp_path, cli, name, data):
    vocab_and_merges(tmp_path)
    (tmp_path / name).write_bytes(data)
    result = cli("vocabulary", tmp_path / name)
    if name != "vocab.json" or data != b"{}":
        assert (result.code, result.out) == (4, "")
        assert len(result.err.splitlines()) == 1


# Good ones, changed -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_changed_files_are_tokenizers_or_an_error():
    done = subprocess.run([sys.executable, MUTATIONS, "all", "20", "3"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])  # no crash, nothing that takes ten seconds
    for line in done.stdout.splitlines():
        outcomes = json.loads(line)
        kind = outcomes.pop("kind")
        assert outcomes.pop("grown_mb") < 200, kind
        assert sum(outcomes.values()) == 20, kind
        assert set(outcomes) <= {"opened", "CorruptFile", "InvalidInput", "MissingFile"}, kind
