"""Texts that tokens stand for, and tokens that no text reaches."""

import unicodedata
from pathlib import Path

import ggufs
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizing import BYTES, KINDS, SPLIT, drawn, numbered

from darkvocab import EmbeddingMatrix
from darkvocab.errors import CorruptFile
from darkvocab.measures.vocabulary import proofs, vocabulary
from darkvocab.measures.vocabulary.completions import completions, wholes
from darkvocab.measures.vocabulary.names import reserved_patterns, script_of
from darkvocab.sources.tokenizer import BYTE_LEVEL, Spelling, from_gguf

MODEL = Path(__file__).parents[2] / "demo/all-MiniLM-L6-v2"
LEAD = "ä\xb8"  # how a byte-level tokenizer writes e4 b8, with which 中 begins
real = pytest.mark.skipif(not MODEL.exists(), reason="make test downloads it")


def byte_level(merges=(), normaliser=None):
    """The 256 bytes, what merges make of them, and two added tokens."""
    every = sorted(pre_tokenizers.ByteLevel.alphabet())
    result = Tokenizer(models.BPE(numbered([*every, *(a + b for a, b in merges)]), list(merges)))
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    result.normalizer, result.pre_tokenizer = normaliser, pre_tokenizers.Sequence([split, alone])
    result.decoder = decoders.ByteLevel()
    result.add_special_tokens(["<|end|>"])
    result.add_tokens([AddedToken("<tool>", normalized=False)])
    return result


def of(tokenizer, text, beyond=0):
    """All that is found of one token."""
    n_tokens = max(tokenizer.get_vocab().values()) + 1 + beyond
    result = vocabulary(tokenizer, n_tokens)
    token = tokenizer.token_to_id(text)
    return {
        name: getattr(result, name)[token]
        for name in ("text", "data", "category", "witness", "proof", "script", "reserved")
    }


# What a token stands for ----------------------------------------------------------------------------------------------


def test_columns_of_a_tokenizer_worked_by_hand():
    tokenizer = byte_level([("Ġ", "t"), ("Ġt", "h"), tuple(LEAD)])
    n_tokens = tokenizer.get_vocab_size() + 2
    frame = vocabulary(tokenizer, n_tokens).frame()
    assert frame.columns == ["id", "text", "bytes", "category", "witness", "script", "reserved"]
    assert frame.dtypes == [pl.Int64, *[pl.String] * 6]
    assert frame["id"].to_list() == list(range(n_tokens))
    partial = frame["witness"][-5]
    assert [row[1:] for row in frame.tail(7).rows()] == [
        ("Ġt", "2074", "reachable", " t", "Latin", None),
        ("Ġth", "207468", "reachable", " th", "Latin", None),
        (LEAD, "e4b8", "partial_utf8", partial, None, None),
        ("<|end|>", b"<|end|>".hex(), "special", "<|end|>", "Latin", None),
        ("<tool>", b"<tool>".hex(), "special", "<tool>", "Latin", None),
        (None, None, "beyond_tokenizer", None, None, None),
        (None, None, "beyond_tokenizer", None, None, None),
    ]
    assert 0x4E00 <= ord(partial) < 0x4E40


@pytest.mark.parametrize(
    ("spelling", "text", "data"),
    [
        (Spelling(byte_level=True), "Ġthe", b" the"),
        (Spelling(byte_level=True), "ĊĠ", b"\n "),
        (Spelling(byte_level=True), LEAD, b"\xe4\xb8"),
        (Spelling(byte_level=True), "a b", b"a b"),  # not of the alphabet: stands for itself
        (Spelling(byte_level=True), "\xa0", b"\xc2\xa0"),
        (Spelling(byte_level=True, after="</w>"), "the</w>", b"the"),
        (Spelling(space="▁", byte_tokens=True), "▁the", b" the"),
        (Spelling(space="▁", byte_tokens=True), "<0xE4>", b"\xe4"),
        (Spelling(space="▁"), "<0xE4>", b"<0xE4>"),
        (Spelling(before="##"), "##ing", b"ing"),
        (Spelling(before="##"), "##", b"##"),
        (Spelling(before="##"), "a##", b"a##"),
        (Spelling(after="</w>"), "the</w>", b"the"),
        (Spelling(after="</w>"), "</w>", b"</w>"),
        (Spelling(), "Ġ▁##", "Ġ▁##".encode()),
    ],
)
def test_bytes_that_a_text_stands_for(spelling, text, data):
    assert spelling.bytes_of(text) == data


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_decodes_a_token_to_the_same_bytes(kind):
    tokenizer, _ = drawn(kind, 7)
    result = vocabulary(tokenizer, max(tokenizer.get_vocab().values()) + 1)
    first = tokenizer.token_to_id(next(text for text in result.text if text and text.isalpha()))
    n_compared = 0
    for token, (text, data) in enumerate(zip(result.text, result.data, strict=True)):
        if text is None or result.category[token] in ("special", "partial_utf8"):
            continue
        decoded = [tokenizer.decode(ids, skip_special_tokens=False) for ids in ([first], [first, token])]
        said = decoded[1].removeprefix(decoded[0])
        assert said.strip() in (data.decode().strip(), ""), text  # decoders add and drop spaces between words
        n_compared += said.strip() != ""
    assert n_compared >= 3


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (*("Ελλάδα", "Greek"),),
        (*(" привет", "Cyrillic"),),
        (*("中文", "Han"),),
        (*("한국", "Hangul"),),
        (*("日本の", "Mixed"),),
        (*("3½ €", "Common"),),
        (*("e\u0301", "Latin"),),
        (*("", "Common"),),
    ],
)
def test_script_of_a_text(text, script):
    assert script_of(text) == script


def test_families_of_names_in_reserve():
    families = {
        "[unused#]": ["[unused0]", "[unused1]", "[unused993]"],
        "<|reserved_special_token_#|>": [f"<|reserved_special_token_{n}|>" for n in (0, 7, 247)],
        "<extra_id_#>": [f"<extra_id_{n}>" for n in range(3)],
        "<unused#>": [f"<unused{n}>" for n in range(99)],
        "<pad_#>": ["<pad_1>", "<pad_2>", "<pad_3>"],
        "<|placeholder#|>": [f"<|placeholder{n}|>" for n in (1, 2, 3)],
        "<｜place▁holder▁no▁#｜>": [f"<｜place▁holder▁no▁{n}｜>" for n in range(4)],  # noqa: RUF001
        "madeupword#": ["madeupword0000", "madeupword0001", "madeupword0002"],
        "▁<extra_id_#>": [],
        "<|vision_reserved_special_token_#|>": [f"<|vision_reserved_special_token_{n}|>" for n in range(3)],
        "<SPECIAL_#>": ["<SPECIAL_12>", "<SPECIAL_13>", "<SPECIAL_999>"],
        "[control_#]": ["[control_8]", "[control_9]", "[control_10]"],
        ">>UNUSED_#<<": [f">>UNUSED_{n}<<" for n in range(3)],
        "[UNUSED_TOKEN_#]": [f"[UNUSED_TOKEN_{n}]" for n in range(3)],
        "<reg_extra_#>": [f"<reg_extra_{n}>" for n in range(3)],
    }
    others = [
        *("1997", "1998", "1999", "<0x41>", "<0x42>", "<0x43>", "##10", "##11", "##12", "<2023>", "<2024>", "<2025>"),
        *("iPad2", "iPad3", "iPad4", "extra1", "extra2", "extra3", "[PAD]", "<|0.00|>", "<|0.02|>", "<|0.04|>"),
        *("<reserved_1>", "<reserved_2>", "<loc1>", "<loc2>", "<loc3>", "<spade1>", "<spade2>", "<spade3>"),
        *("<unused>", "a" * 200 + "[unused1]", "padding", "unused"),
    ]
    texts = [text for family in families.values() for text in family]
    assert reserved_patterns([*texts, *others]) == {text: name for name, some in families.items() for text in some}


# Which tokens a text reaches ------------------------------------------------------------------------------------------


def test_a_token_whose_characters_merge_otherwise_is_proved_to_be_out_of_reach():
    # In "abc" b and c merge first, wherever it stands; so ab is seen before another c only, and abc = ab + c never.
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]
    tokenizer = Tokenizer(models.BPE(numbered(["a", "b", "c", "bc", "ab", "abc"]), merges))
    assert of(tokenizer, "abc") | {"text": "", "data": b""} == {
        **{"text": "", "data": b"", "category": "unreachable", "witness": None, "proof": proofs.MERGED},
        **{"script": "Latin", "reserved": None},
    }
    assert of(tokenizer, "ab")["witness"] == "ab"


def test_a_merge_that_only_another_token_for_the_same_id_reaches_is_not_proved_away():
    # "ab" is never merged, but "x" has its id, and with c it makes abc.
    vocab = {"a": 0, "b": 1, "c": 2, "ab": 3, "x": 3, "abc": 4}
    tokenizer = Tokenizer(models.BPE(vocab, [("ab", "c")]))
    result = vocabulary(tokenizer, 5)
    assert result.n_texts == 6
    assert (result.text[3], result.witness[3], result.proof[4]) == ("x", "x", None)


def test_a_token_that_the_pattern_always_cuts_is_proved_to_be_out_of_reach():
    # A letter, then a mark: \p{L}+ ends before the mark. A mark that is first in its word keeps the letter.
    begun = "à\u00b8"  # e0 b8, with which both begin
    letter, mark = f"{begun}ģ", f"{begun}±"
    within = [("à", "\u00b8"), (begun, "ģ"), (begun, "±")]
    tokenizer = byte_level([*within, (letter, mark), (mark, letter), ("1", "2")])
    assert of(tokenizer, letter + mark)["category"] == "unreachable"
    assert of(tokenizer, letter + mark)["proof"] == proofs.SPLIT
    assert of(tokenizer, "12")["proof"] == proofs.SPLIT
    assert of(tokenizer, mark + letter)["witness"] is not None


def test_a_space_that_is_put_before_what_a_pattern_has_split_is_not_what_it_cuts():
    # The pattern cuts before each space; ByteLevel then puts one before every piece.
    tokenizer = byte_level([("Ġ", "a"), ("a", "Ġ")])
    split = pre_tokenizers.Split(Regex(" |[^ ]+"), "isolated")
    spaced = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, spaced])
    assert of(tokenizer, "Ġa")["witness"] == "a"
    assert of(tokenizer, "aĠ")["proof"] == proofs.SPLIT


def test_whole_words_that_are_looked_up_first_are_reached_though_their_merges_go_another_way():
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]
    model = models.BPE(numbered(["a", "b", "c", "bc", "ab", "abc"]), merges, ignore_merges=True)
    result = of(Tokenizer(model), "abc")
    assert (result["category"], result["witness"], result["proof"]) == ("reachable", "abc", None)


def test_ids_with_several_texts_merge_to_tokens_that_the_pattern_would_cut():
    # "a1" is always cut, but "x" has its id, and with b it makes a1b.
    tokenizer = Tokenizer(models.BPE({"b": 0, "a1": 1, "x": 1, "a1b": 2}, [("a1", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}+"), "isolated")
    result = of(tokenizer, "a1b")
    assert "xb" in result["witness"]
    assert result["proof"] is None


def test_a_piece_of_a_character_that_always_changes_or_is_cut_is_proved_to_be_out_of_reach():
    # e1 84 begins Hangul that NFC keeps, ef a4 ideographs that it does not; ea cc a letter and a mark.
    tokenizer = byte_level([("ï", "¤"), ("á", "Ħ"), ("Ãª", "Ì"), ("Ã", "ª")], normalizers.NFC())
    assert of(tokenizer, "ï¤")["proof"] == proofs.NORMALISED
    assert of(tokenizer, "áĦ")["witness"] is not None
    assert of(tokenizer, "ÃªÌ")["proof"] == proofs.SPLIT


def test_a_piece_of_a_character_is_tried_beside_pieces_that_hold_the_rest():
    # Every character that begins with c3 merges; only where its second byte has joined what follows is c3 alone.
    rest = [
        character for code, character in ((byte, chr(code)) for code, byte in BYTE_LEVEL.items()) if 0x80 <= code < 0xC0
    ]
    tokenizer = byte_level([("ī", "z"), *(("Ã", one) for one in rest)])
    assert of(tokenizer, "Ã")["witness"] == "Éz"


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_a_token_that_the_normaliser_changes_is_proved_to_be_out_of_reach(form):
    words = ["[UNK]", "e\u0301", "é", "ﬁ", "fi", "x"]
    tokenizer = Tokenizer(models.WordLevel(numbered(words), unk_token="[UNK]"))
    tokenizer.normalizer = getattr(normalizers, form)()
    result = vocabulary(tokenizer, len(words))
    changed = [unicodedata.normalize(form, word) != word for word in words]
    assert [category == "unreachable" for category in result.category] == changed
    assert [proof == proofs.NORMALISED for proof in result.proof] == changed


def test_a_token_of_one_byte_whose_character_has_a_token():
    model = models.BPE(numbered(["<unk>", *BYTES, "▁", "a"]), [], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.ByteFallback()
    result = vocabulary(tokenizer, 259)
    columns = result.category, result.witness, result.proof
    category, witness, proof = (dict(zip(result.text, column, strict=True)) for column in columns)
    assert (category["<0x61>"], proof["<0x61>"]) == ("unreachable", proofs.SPELT)
    assert (category["<0x62>"], witness["<0x62>"]) == ("reachable", "b")
    assert category["<0xE4>"] == "partial_utf8"
    assert b"\xe4" in witness["<0xE4>"].encode()
    assert (category["<0xFF>"], witness["<0xFF>"], proof["<0xFF>"]) == ("partial_utf8", None, proofs.NO_UTF8)
    assert category["<unk>"] == "unreachable"  # every character has a token, or bytes


def test_pieces_that_continue_a_word_need_one_that_ends_before_them():
    # After "a" or "x" no longer token begins: "xb" is x + ##b. Every other letter joins the b.
    words = ["[UNK]", "a", "b", "ab", "bb", "##b", "x", "##!"]
    tokenizer = Tokenizer(models.WordPiece(numbered(words), unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    assert of(tokenizer, "##b")["witness"] in ("xb", "abb", "bbb")
    assert (of(tokenizer, "##!")["category"], of(tokenizer, "##!")["proof"]) == ("unreachable", proofs.CUT_OFF)


@real
def test_the_real_tokenizer_has_its_994_names_in_reserve_and_337_pieces_out_of_reach():
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    result = vocabulary(tokenizer, 30_522)
    assert (result.model, result.n_texts, result.n_texts_beyond_matrix) == ("WordPiece", 30_522, 0)
    assert result.categories == {"reachable": 29_186, "unreachable": 1_331, "special": 5}
    unused = [token for token, pattern in enumerate(result.reserved) if pattern]
    assert {result.reserved[token] for token in unused} == {"[unused#]"}
    assert len(unused) == 994
    assert {result.category[token] for token in unused} == {"unreachable"}
    dark = [token for token, category in enumerate(result.category) if category == "unreachable"]
    assert None not in [result.proof[token] for token in dark]
    pieces = [result.text[token] for token in dark if result.proof[token] == proofs.CUT_OFF]
    assert len(pieces) == 336
    assert "##劉" in pieces
    assert {unicodedata.category(text[2])[0] for text in pieces} == {"L", "P", "S"}  # Chinese, and what `##!` is like
    assert {result.text[token] for token in dark} - set(pieces) == {result.text[token] for token in unused} | {"..."}
    assert "1,331 tokens were not reached, of which 1,331 are proved" in result.search
    tokenizer.no_truncation()
    tokenizer.no_padding()
    witnessed = [token for token in range(30_522) if result.witness[token] is not None]
    texts = [result.witness[token] for token in witnessed]
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    assert all(token in encoding.ids for token, encoding in zip(witnessed, encoded, strict=True))
    assert "[unused5]" not in tokenizer.encode("[unused5]", add_special_tokens=False).tokens


def test_pieces_of_characters_find_whole_characters_around_them():
    tokenizer = byte_level([tuple(LEAD), (LEAD, "Ń"), ("Ĺ", "ä"), ("Ġ", "ä"), ("Ń", "a")])
    for text in (LEAD, "Ĺä", "Ġä", "Ńa", "Ĺ"):
        result = of(tokenizer, text)
        assert result["category"] == "partial_utf8"
        assert result["data"] in result["witness"].encode()
        assert tokenizer.token_to_id(text) in tokenizer.encode(result["witness"]).ids
    assert of(tokenizer, LEAD + "Ń")["witness"] == "中"


# Odd tokenizers -------------------------------------------------------------------------------------------------------


def test_ids_without_texts_and_texts_without_rows():
    vocab = {"[UNK]": 0, "a": 1, "b": 4, "d": 4, "c": 9}
    result = vocabulary(Tokenizer(models.WordLevel(vocab, unk_token="[UNK]")), 6)
    assert result.text == ["[UNK]", "a", None, None, "d", None]
    assert result.category == ["reachable", "reachable", *["beyond_tokenizer"] * 2, "reachable", "beyond_tokenizer"]
    assert (result.n_texts, result.n_texts_beyond_matrix) == (5, 1)
    assert result.categories == {"reachable": 3, "beyond_tokenizer": 3}


def test_truncation_padding_and_dropout_are_set_aside_and_the_tokenizer_is_left_as_it_is():
    tokenizer = Tokenizer(models.BPE(numbered(["a", "b", "ab"]), [("a", "b")], dropout=0.99))
    tokenizer.enable_truncation(1)
    tokenizer.enable_padding(pad_id=1, length=7)
    result = vocabulary(tokenizer, 3)
    assert result.witness == ["a", "b", "ab"]
    assert tokenizer.truncation["max_length"] == 1
    assert tokenizer.padding["length"] == 7
    assert tokenizer.model.dropout == pytest.approx(0.99)


def test_what_the_search_has_no_time_for_is_unknown():
    tokenizer = byte_level([("a", "b")])
    result = vocabulary(tokenizer, 300, seconds=0)
    assert result.categories == {"partial_utf8": 128, "special": 2, "beyond_tokenizer": 41, "unknown": 129}
    assert "ended after 0 seconds" in result.search


def test_without_a_tokenizer_everything_is_unknown():
    result = vocabulary(None, 3)
    assert (result.model, result.categories, result.search) == (None, {"unknown": 3}, "no tokenizer")
    assert result.frame()["text"].to_list() == [None] * 3


def test_a_negative_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="n_tokens must be >= 0, got -1"):
        vocabulary(None, -1)


def test_the_same_tokenizer_gives_the_same_witnesses():
    assert vocabulary(byte_level([tuple(LEAD)]), 260) == vocabulary(byte_level([tuple(LEAD)]), 260)


# From files -----------------------------------------------------------------------------------------------------------


def test_a_matrix_holds_the_tokenizer_that_its_texts_are_of(tmp_path):
    save_file({"model.embed_tokens.weight": np.ones((300, 2), "f4")}, tmp_path / "model.safetensors")
    byte_level([("a", "b")]).save(str(tmp_path / "tokenizer.json"))
    matrix = EmbeddingMatrix.open(tmp_path)
    result = vocabulary(matrix.tokenizer, matrix.n_tokens)
    assert {token: text for token, text in enumerate(result.text) if text is not None} == matrix.texts
    assert result == vocabulary(tmp_path / "tokenizer.json", 300)
    assert EmbeddingMatrix.open(tmp_path, tokenizer="none").tokenizer is None


def test_a_gguf_file_that_llama_cpp_does_not_load_says_what_its_tokens_are_but_not_whether_they_are_reached(tmp_path):
    texts = ["<unk>", "<s>", "▁the", "<0xE4>", "<0x41>", "▁<tool>", "[PAD6]", "[PAD8]", "[PAD8]"]
    types = [2, 3, 1, 6, 6, 4, 5, 5, 1]
    values = [
        ("tokenizer.ggml.model", ggufs.value("text", "llama")),
        ("tokenizer.ggml.tokens", ggufs.value("text", texts)),
        ("tokenizer.ggml.token_type", ggufs.value("i32", types)),
    ]
    path = ggufs.saved(tmp_path / "a.gguf", {"token_embd.weight": np.ones((9, 2), "f4")}, values)
    matrix = EmbeddingMatrix.open(path)
    result = vocabulary(matrix.tokenizer, matrix.n_tokens)
    assert (result.model, result.runtime) == ("BPE", "llama.cpp")
    assert result.category == [
        *("special", "special", "unknown", "partial_utf8", "unknown", "special", "beyond_tokenizer"),
        *("unknown", "unknown"),  # [PAD7] would be row 7's, and row 8 is no unused one
    ]
    assert result.data[2:5] == [b" the", b"\xe4", b"A"]
    assert "nothing was encoded: two of its tokens have the text '[PAD8]'" in result.search
    assert matrix.n_beyond_tokenizer == 1


@pytest.mark.parametrize(
    ("model", "text", "data"),
    [
        ("gpt2", "Ġa", b" a"),
        ("bert", "▁a", b"a"),
        ("bert", "ing", b"ing"),
        ("t5", "▁a", b" a"),
        ("rwkv", "▁", b"\xe2\x96\x81"),
    ],
)
def test_spelling_of_a_gguf_file_by_its_model(model, text, data):
    metadata = {"tokenizer.ggml.model": model, "tokenizer.ggml.tokens": [text.encode()]}
    assert vocabulary(from_gguf(metadata), 1).data == [data]


def test_types_of_tokens_that_are_not_as_many_as_their_texts_are_refused(tmp_path):
    values = [
        ("tokenizer.ggml.tokens", ggufs.value("text", ["a", "[PAD1]"])),
        ("tokenizer.ggml.token_type", ggufs.value("i32", [5])),
    ]
    path = ggufs.saved(tmp_path / "a.gguf", {"token_embd.weight": np.ones((2, 2), "f4")}, values)
    with pytest.raises(CorruptFile, match="token_type has 1 int32 for 2 tokens"):
        EmbeddingMatrix.open(path)
    assert EmbeddingMatrix.open(path, tokenizer="none").n_tokens == 2


# Pieces of characters -------------------------------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=4), st.data())
def test_completions_hold_the_bytes_that_were_cut_out_of_a_text(text, data):
    whole = text.encode("utf-8", "surrogatepass").replace(b"\xed", b"\xec")  # surrogates are no characters
    begin = data.draw(st.integers(0, len(whole) - 1))
    held = whole[begin : data.draw(st.integers(begin + 1, len(whole)))]
    heads, between, tails = completions(held)
    for head, tail in [(heads[0], tails[0]), (heads[-1], tails[-1])]:
        assert held in (head + between + tail).encode()


@pytest.mark.parametrize("data", [b"\xc5", b"\x80", b"\xb8 the \xe4\xb8", b"\x80\xe4\xb8"])
def test_each_completion_is_tried_once(data):
    heads, between, tails = completions(data)
    texts = list(wholes(data, 0, len(heads) * len(tails) + 1))
    assert sorted(texts) == sorted(head + between + tail for head in heads for tail in tails)


def test_two_bytes_have_completions_where_any_text_holds_them():
    characters = [
        chr(code).encode() for code in [*range(0xD800), *range(0xE000, 0x110000, 7), *range(0x10FF00, 0x110000)]
    ]
    within = {character[n : n + 2] for character in characters for n in range(len(character) - 1)}
    last, first = {character[-1:] for character in characters}, {character[:1] for character in characters}
    possible = within | {a + b for a in last for b in first}
    some = [bytes([a, b]) for a in (0x41, 0x80, 0xBF, 0xC1, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xF5) for b in range(256)]
    assert [completions(pair) is not None for pair in some] == [pair in possible for pair in some]
    assert completions(b"\x80" * 3) is not None  # the end of a character of four bytes
    assert completions(b"\x80" * 4) is None
    alone = [byte for byte in range(256) if completions(bytes([byte])) is None]
    assert alone == [0xC0, 0xC1, *range(0xF5, 0x100)]
