"""Tokenizers of every kind of file: which runtime encodes, which ids, texts and bytes, and what files beside add."""

import json

import numpy as np
import pytest
import sentencepiece
import tiktoken
from safetensors.numpy import save_file
from tokenizer_files import MERGED, PATTERN, of_ranks, ranks, tekken, trained, vocab_and_merges
from tokenizer_files import known as let_be_known
from tokenizers import Tokenizer, models, pre_tokenizers

from darkvocab import EmbeddingMatrix, repair, scan
from darkvocab.checkpoints.plan import plan
from darkvocab.errors import CorruptFile, InvalidInput, MissingFile
from darkvocab.measures.vocabulary import vocabulary
from darkvocab.sources.tokenizer import open_tokenizer

TEXTS = ["the cat", " the 11", "été 丑", "", "x y"]


def ids(tokenizer, texts=TEXTS):
    """Ids of each text, as lists."""
    every, text_of = tokenizer.encode(texts)
    return [every[text_of == n].tolist() for n in range(len(texts))]


# tiktoken -----------------------------------------------------------------------------------------------------------


def test_ranks_are_encoded_as_tiktoken_does(tmp_path, monkeypatch):
    let_be_known(monkeypatch)
    tokenizer = open_tokenizer(of_ranks(tmp_path / "a.tiktoken"))
    theirs = tiktoken.Encoding("", pat_str=PATTERN, mergeable_ranks=ranks(), special_tokens={})
    assert ids(tokenizer) == theirs.encode_ordinary_batch(TEXTS)
    assert (tokenizer.runtime, tokenizer.model) == ("tiktoken", "BPE")
    assert [tokenizer.texts[n] for n in (256 + 3, 256 + 6, 256 + 7, 256 + len(MERGED))] == [
        " the",
        "é",
        r"\xe4\xb8",
        "<|end|>",
    ]
    assert tokenizer.pieces.data[256:] == [*MERGED, b"<|end|>"]


def test_texts_of_a_vocabulary_that_is_normalised_are_normalised_first(tmp_path, monkeypatch):
    let_be_known(monkeypatch, nfc=True)
    assert ids(open_tokenizer(of_ranks(tmp_path / "a.tiktoken")), ["e\u0301"]) == [[256 + 6]]


def test_the_pattern_of_an_unknown_vocabulary_is_not_guessed(tmp_path):
    tokenizer = open_tokenizer(of_ranks(tmp_path / "a.tiktoken"))
    result = vocabulary(tokenizer, 256 + len(MERGED))
    assert set(result.category) == {"unknown", "partial_utf8"}
    assert "the pattern that cuts a text into words is not in a file of ranks" in result.search
    assert (result.text[256 + 3], result.data[256 + 3]) == (" the", b" the")
    with pytest.raises(InvalidInput, match="cannot encode"):
        tokenizer.encode(["a"])


def test_ranks_are_known_whatever_the_order_of_their_lines(tmp_path, monkeypatch):
    let_be_known(monkeypatch)
    path = of_ranks(tmp_path / "a.tiktoken")
    path.write_bytes(b"\n".join(reversed(path.read_bytes().splitlines())))
    assert open_tokenizer(path).cannot_encode is None


def test_metas_tokenizer_model_is_a_file_of_ranks_and_its_config_names_special_tokens(tmp_path, monkeypatch):
    let_be_known(monkeypatch)
    of_ranks(tmp_path / "tokenizer.model")
    named = {"300": {"content": "<|a|>", "special": True}, "301": {"content": "<|b|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": named}))
    for path in (tmp_path, tmp_path / "tokenizer.model"):
        result = vocabulary(open_tokenizer(path), 302)
        assert result.text[256 + len(MERGED) :] == [*[None] * (44 - len(MERGED)), "<|a|>", "<|b|>"]
        assert result.category[300:] == ["special", "special"]
        assert result.witness[300:] == [None, None]  # tiktoken makes no special token of a text


def test_tekken_counts_its_special_tokens_first(tmp_path):
    tokenizer = open_tokenizer(tekken(tmp_path / "tekken.json"))
    theirs = tiktoken.Encoding("", pat_str=PATTERN, mergeable_ranks=ranks(), special_tokens={})
    assert ids(tokenizer) == [[3 + token for token in tokens] for tokens in theirs.encode_ordinary_batch(TEXTS)]
    assert [tokenizer.texts[n] for n in (0, 1, 2, 3, 3 + 256 + 3)] == ["<unk>", "<s>", "</s>", "\0", " the"]


def test_tekken_leaves_out_what_its_size_has_no_room_for(tmp_path):
    path = tekken(tmp_path / "tekken_240101.json", default_vocab_size=3 + 256 + 4)
    assert len(open_tokenizer(path).pieces) == 3 + 256 + 4


# SentencePiece ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "word"])
def test_a_model_is_encoded_as_sentencepiece_does(tmp_path, kind):
    path = trained(tmp_path / "tokenizer.model", kind, user_defined_symbols="<sep>")
    tokenizer = open_tokenizer(path)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert ids(tokenizer, [*TEXTS, "the<sep>mat"]) == theirs.EncodeAsIds([*TEXTS, "the<sep>mat"])
    assert tokenizer.runtime == "sentencepiece"
    assert tokenizer.pieces.text == theirs.IdToPiece(list(range(theirs.GetPieceSize())))
    result = vocabulary(tokenizer, len(tokenizer.pieces))
    special = [text for text, kind in zip(result.text, result.category, strict=True) if kind == "special"]
    assert special == ["<unk>", "<s>", "</s>", *[text for text in result.text if text.endswith("<sep>")]]
    for token, witness in enumerate(result.witness):
        assert witness is None or token in theirs.EncodeAsIds(witness)


def test_rules_of_a_bpe_model_merge_as_sentencepiece_does(tmp_path):
    path = trained(tmp_path / "a.model", normalization_rule_name="identity")
    tokenizer = open_tokenizer(path)
    bytes_of_pieces = set(tokenizer.pieces.data)
    assert {b" the", b"\xe4"} <= bytes_of_pieces
    result = vocabulary(tokenizer, len(tokenizer.pieces))
    assert "of which" in result.search
    # A byte of a character that has a token of its own is no text's.
    spelt = [token for token, text in enumerate(result.text) if text == "<0x61>"]
    assert [result.category[token] for token in spelt] == ["unreachable"]
    assert result.proof[spelt[0]] == "its character has a token of its own"


def test_files_beside_a_model_add_tokens(tmp_path):
    path = trained(tmp_path / "spiece.model")
    size = sentencepiece.SentencePieceProcessor(model_file=str(path)).GetPieceSize()
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<mask>": size, "<x>": size + 1}))
    tokenizer = open_tokenizer(tmp_path)
    assert [tokenizer.texts[size], tokenizer.texts[size + 1]] == ["<mask>", "<x>"]
    assert vocabulary(tokenizer, size + 2).category[size:] == ["special", "special"]


def test_xlm_robertas_ids_are_those_of_its_class_and_others_are_refused(tmp_path):
    path = trained(tmp_path / "sentencepiece.bpe.model")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    tokenizer = open_tokenizer(tmp_path)
    assert ids(tokenizer, ["the cat"]) == [[token + 1 for token in theirs.EncodeAsIds("the cat")]]
    assert [tokenizer.texts[token] for token in (0, 2, 3)] == ["<s>", "</s>", "<unk>"]
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CamembertTokenizer"}')
    with pytest.raises(InvalidInput, match="CamembertTokenizer gives tokens other ids"):
        open_tokenizer(path)
    with pytest.raises(MissingFile, match="holds no tokenizer"):
        open_tokenizer(tmp_path)


# Hugging Face -------------------------------------------------------------------------------------------------------


def test_vocab_and_merges_are_gpt2s_where_no_class_says_otherwise(tmp_path):
    tokenizer = open_tokenizer(vocab_and_merges(tmp_path))
    assert ids(tokenizer, ["the the"]) == [[257, 258]]
    assert (tokenizer.runtime, tokenizer.model) == ("tokenizers", "BPE")
    assert (tokenizer.pieces.text[258], tokenizer.pieces.data[258]) == ("Ġthe", b" the")


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        ({"tokenizer_class": "Qwen2TokenizerFast"}, "thé the", 1),  # its é is one character, two bytes
        ({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, "the", 258),
        ({"tokenizer_class": "CLIPTokenizer"}, "THE", 256),
    ],
)
def test_the_class_says_which_rules(tmp_path, config, text, expected):
    tokenizer = open_tokenizer(vocab_and_merges(tmp_path, **config))
    if config["tokenizer_class"].startswith("Qwen2"):
        assert ids(tokenizer, [text]) == ids(tokenizer, [text.replace("é", "e\u0301")])
    else:
        assert expected in ids(tokenizer, [text])[0]


def test_a_class_whose_rules_are_not_known_keeps_its_texts_and_cannot_encode(tmp_path):
    tokenizer = open_tokenizer(vocab_and_merges(tmp_path, tokenizer_class="BlenderbotSmallTokenizer"))
    assert "the rules of BlenderbotSmallTokenizer" in tokenizer.cannot_encode
    assert tokenizer.pieces.data[258] == b" the"
    assert set(vocabulary(tokenizer, 259).category) <= {"unknown", "partial_utf8"}


def test_vocab_txt_is_berts(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\nthe\n##se\nA\n")
    assert ids(open_tokenizer(tmp_path), ["THESE a"]) == [[1, 2, 0]]  # in lower case, as the class has it
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "unk_token": "[UNK]"}')
    assert ids(open_tokenizer(tmp_path), ["these A"]) == [[1, 2, 3]]
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    assert "the rules of BertJapaneseTokenizer" in open_tokenizer(tmp_path).cannot_encode


def saved(folder, **texts):
    rules = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, **texts}, unk_token="[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rules.save(str(folder / "tokenizer.json"))


def test_files_beside_tokenizer_json_add_tokens_as_transformers_does(tmp_path):
    saved(tmp_path, cat=2)
    config = {"added_tokens_decoder": {"3": {"content": "<|a|>", "special": True}}, "eos_token": "<|b|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        tokenizer = open_tokenizer(path)
        assert ids(tokenizer, ["the<|a|>cat <|b|>"]) == [[1, 3, 2, 4]]
        assert [tokenizer.texts[3], tokenizer.texts[4]] == ["<|a|>", "<|b|>"]


def test_added_tokens_json_and_the_map_count_too(tmp_path):
    saved(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<x>": 2}')
    (tmp_path / "special_tokens_map.json").write_text(
        '{"pad_token": {"content": "<p>"}, "additional_special_tokens": ["<q>"]}'
    )
    assert open_tokenizer(tmp_path).texts == {0: "[UNK]", 1: "the", 2: "<x>", 3: "<p>", 4: "<q>"}


# Folders and checkpoints --------------------------------------------------------------------------------------------


def test_tokenizer_json_is_first_and_the_others_are_kept(tmp_path, monkeypatch):
    let_be_known(monkeypatch)
    saved(tmp_path)
    of_ranks(tmp_path / "tokenizer.model")
    tekken(tmp_path / "tekken.json")
    tokenizer = open_tokenizer(tmp_path)
    assert (tokenizer.runtime, tokenizer.file.name) == ("tokenizers", "tokenizer.json")
    assert [other().file.name for other in tokenizer.others] == ["tokenizer.model", "tekken.json"]


def test_a_checkpoint_is_read_with_any_of_them(tmp_path):
    save_file({"model.embed_tokens.weight": np.eye(300, 8, dtype="f4")}, tmp_path / "model.safetensors")
    tekken(tmp_path / "tekken.json")
    matrix = EmbeddingMatrix.open(tmp_path)
    assert matrix.texts[3 + 256 + 3] == " the"
    facts = scan(tmp_path, checksum=False).to_json()["vocabulary"]
    assert facts["tokenizer"] == str(tmp_path / "tekken.json")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    trained(elsewhere / "tokenizer.model")
    for given in (elsewhere, elsewhere / "tokenizer.model"):
        assert EmbeddingMatrix.open(tmp_path, tokenizer=given).tokenizer.runtime == "sentencepiece"


def test_a_plan_names_the_files_of_the_tokenizer(tmp_path):
    save_file({"model.embed_tokens.weight": np.eye(300, 8, dtype="f4")}, tmp_path / "model.safetensors")
    vocab_and_merges(tmp_path, tokenizer_class="GPT2Tokenizer")
    names = [read["file"].split("/")[-1] for read in plan(tmp_path)["reads"] if read["purpose"] == "tokenizer"]
    assert names == ["vocab.json", "merges.txt", "tokenizer_config.json"]


def test_a_plan_names_another_one_that_applies(tmp_path):
    save_file({"model.embed_tokens.weight": np.eye(300, 8, dtype="f4")}, tmp_path / "model.safetensors")
    saved(tmp_path)
    tekken(tmp_path / "tekken.json")
    (tmp_path / "vocab.txt").write_text("a")
    names = [read["file"].split("/")[-1] for read in plan(tmp_path)["reads"] if read["purpose"] == "tokenizer"]
    assert names == ["tokenizer.json", "tekken.json"]


def test_pieces_are_spelled_by_any_tokenizer_of_the_library(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(
        {"model.embed_tokens.weight": np.random.default_rng(0).normal(size=(260, 8)).astype("f4")},
        folder / "model.safetensors",
    )
    vocab_and_merges(folder)
    out = tmp_path / "out"
    report = repair(folder, out, tokens=[257], how="pieces")
    assert report["matrices"][0]["without_pieces"] == []
    of_ranks(tmp_path / "a.tiktoken")
    with pytest.raises(InvalidInput, match=r"pieces need a tokenizer\.json; .*a\.tiktoken is run by tiktoken"):
        repair(folder, tmp_path / "other", tokens=[257], how="pieces", tokenizer=tmp_path / "a.tiktoken")


@pytest.mark.parametrize("name", ["merges.txt", "vocab.json"])
def test_half_of_a_tokenizer_is_refused(tmp_path, name):
    vocab_and_merges(tmp_path)
    other = {"merges.txt": "vocab.json", "vocab.json": "merges.txt"}[name]
    if name == "vocab.json":
        (tmp_path / other).unlink()
    with pytest.raises((InvalidInput, MissingFile), match="half of a tokenizer"):
        open_tokenizer(tmp_path / name)


def test_a_merge_of_unknown_pieces_is_a_corrupt_file(tmp_path):
    vocab_and_merges(tmp_path)
    (tmp_path / "merges.txt").write_text("t h\nzz zz\n")
    with pytest.raises(CorruptFile, match="not a tokenizer that can be read"):
        open_tokenizer(tmp_path)
