"""The pieces that spell a token: by hand for each kind of tokenizer, against the library on a real one."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from darkvocab.checkpoints.spelling import spell
from darkvocab.errors import CorruptFile

MODEL = Path(__file__).parents[2] / "demo" / "all-MiniLM-L6-v2"
real = pytest.mark.skipif(not MODEL.is_dir(), reason="make test downloads it")


def saved(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def bpe(**settings):
    vocab = {t: i for i, t in enumerate(["a", "b", "c", "d", "ab", "cd", "abcd", "abc", "Ġ", "Ġab", "x"])}
    merges = [("a", "b"), ("c", "d"), ("ab", "cd"), ("ab", "c"), ("Ġ", "ab")]
    return Tokenizer(models.BPE(vocab, merges, **settings))


def test_bpe_spells_by_the_merges_that_are_left(tmp_path):
    tokenizer = bpe()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    path = saved(tokenizer, tmp_path)
    assert spell(path.read_text("utf-8"), [6]) == {6: [4, 5]}  # abcd: ab cd
    assert spell(path.read_text("utf-8"), [6, 5]) == {6: [7, 3], 5: [2, 3]}  # without cd: abc d
    assert spell(path.read_text("utf-8"), [6, 4]) == {6: [0, 1, 5], 4: [0, 1]}  # without ab, and so without abc
    assert spell(path.read_text("utf-8"), [9]) == {
        9: [8, 4]
    }  # a space and ab, although the text " ab" is never a token's name
    assert spell(path.read_text("utf-8"), [10]) == {}  # a byte that nothing spells
    assert spell(path.read_text("utf-8"), [4, 0]) == {}  # ab without a: not in full


def test_older_files_name_merges_in_one_text_and_no_type(tmp_path):
    path = saved(bpe(), tmp_path)
    held = json.loads(path.read_text())
    held["model"]["merges"] = [" ".join(pair) for pair in held["model"]["merges"]]
    del held["model"]["type"]
    path.write_text(json.dumps(held))
    assert spell(path.read_text("utf-8"), [6]) == {6: [4, 5]}


def test_random_merges_are_left_out_of_it(tmp_path):
    path = saved(bpe(dropout=0.9), tmp_path)
    assert all(spell(path.read_text("utf-8"), [6]) == {6: [4, 5]} for _ in range(20))


def test_word_pieces_start_a_word_or_go_on_with_it(tmp_path):
    texts = [
        "[UNK]",
        "un",
        "##used",
        "##us",
        "##ed",
        "##u",
        "##s",
        "##e",
        "##d",
        "unused",
        "[",
        "]",
        "[unused0]",
        "##q",
        "##qq",
    ]
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(texts)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    path = saved(tokenizer, tmp_path)
    assert spell(path.read_text("utf-8"), [9]) == {9: [1, 2]}  # un ##used
    assert spell(path.read_text("utf-8"), [2]) == {2: [3, 4]}  # ##us ##ed
    assert spell(path.read_text("utf-8"), [2, 3]) == {2: [5, 6, 4], 3: [5, 6]}
    assert spell(path.read_text("utf-8"), [14]) == {14: [13, 13]}
    assert spell(path.read_text("utf-8"), [13]) == {}
    assert spell(path.read_text("utf-8"), [12]) == {}  # the 0 is unknown
    assert spell(path.read_text("utf-8"), [0]) == {}  # [UNK] is no text


def test_unigrams_spell_by_their_scores(tmp_path):
    vocab = [
        ("<unk>", 0.0),
        ("▁", -2.0),
        ("▁a", -3.0),
        ("b", -2.5),
        ("▁ab", -1.0),
        ("a", -2.0),
        ("c", -9.0),
        ("▁abc", -1.0),
        ("▁z", -1.0),
    ]
    path = saved(Tokenizer(models.Unigram(vocab, unk_id=0)), tmp_path)
    assert spell(path.read_text("utf-8"), [4]) == {4: [2, 3]}
    assert spell(path.read_text("utf-8"), [4, 2]) == {4: [1, 5, 3], 2: [1, 5]}
    assert spell(path.read_text("utf-8"), [7, 4]) == {7: [2, 3, 6], 4: [2, 3]}
    assert spell(path.read_text("utf-8"), [6, 8]) == {}  # without them c and z are unknown


def test_words_alone_have_no_pieces(tmp_path):
    path = saved(Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]")), tmp_path)
    assert spell(path.read_text("utf-8"), [1, 2]) == {}


def test_added_tokens_are_spelled_as_any_text(tmp_path):
    tokenizer = bpe()
    tokenizer.add_special_tokens([AddedToken("abx", special=True), AddedToken("dab", special=True)])
    tokenizer.add_tokens(["abdab"])
    tokenizer.decoder = decoders.ByteLevel()
    path = saved(tokenizer, tmp_path)
    assert spell(path.read_text("utf-8"), [11]) == {11: [4, 10]}
    assert spell(path.read_text("utf-8"), [13]) == {13: [4, 12]}  # ab, and the other added one
    assert spell(path.read_text("utf-8"), [13, 12]) == {13: [4, 3, 4], 12: [3, 4]}


def test_ids_of_no_text_have_no_pieces(tmp_path):
    assert spell(saved(bpe(), tmp_path).read_text("utf-8"), [99]) == {}


@pytest.mark.slow
@real
def test_a_real_tokenizer_without_some_tokens(tmp_path):
    path = MODEL / "tokenizer.json"
    chosen = [*range(1, 100), 2003, 2062, 8999, 20000, 30000, 30521]
    result = spell(path.read_text("utf-8"), chosen)
    texts = {token: text for text, token in Tokenizer.from_file(str(path)).get_vocab().items()}
    assert not {piece for pieces in result.values() for piece in pieces} & set(chosen)
    for token, pieces in result.items():
        assert "".join(texts[piece].removeprefix("##") for piece in pieces) == texts[token].removeprefix("##")
    assert [texts[piece] for piece in result[1]] == ["[", "unused", "##0", "]"]
    assert {len(texts[token].removeprefix("##")) for token in set(chosen) - set(result)} == {1}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"model": {}}', '{"model": {"type": "BPE", "vocab": 5, "merges": 3}}']
)
def test_tokenizer_that_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(CorruptFile, match="no pieces can be had"):
        spell((tmp_path / "tokenizer.json").read_text("utf-8"), [1])
