"""Tokenizers made to mislead: odd texts, texts without end, rules that break down or take for ever."""

import dataclasses
import json
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizing import numbered

from darkvocab.errors import CorruptFile
from darkvocab.measures.vocabulary import CATEGORIES, vocabulary
from darkvocab.sources.tokenizer import by_rules


def words(texts, unknown="[UNK]", cutter=None):
    tokenizer = Tokenizer(models.WordLevel(numbered(texts), unk_token=unknown))
    if cutter:
        tokenizer.pre_tokenizer = cutter
    return tokenizer


def test_texts_that_a_terminal_or_a_page_would_take_for_more_are_kept_as_they_are():
    texts = ["\0", "\x1b[2J", "\u202ehcraes", "<script>alert(1)</script>", "=1+1", "\ufeff", "a\r\nb", ""]
    result = vocabulary(words(texts), len(texts))
    assert result.text == texts
    assert result.data == [text.encode() for text in texts]
    assert result.category == [*["reachable"] * 7, "unreachable"]  # of an empty text there is no token
    assert result.witness[:7] == texts[:7]


def test_a_tokenizer_without_a_token_for_the_unknown_refuses_texts_and_is_searched_all_the_same():
    texts = ["a", "b c", "d", "e f", "g", "h"]
    result = vocabulary(words(texts, cutter=pre_tokenizers.WhitespaceSplit()), 6)
    assert result.witness == [None if " " in text else text for text in texts]


def test_texts_longer_than_any_token_are_not_encoded():
    result = vocabulary(words(["a", "x" * 1_000_000, "y" * 4097, "z" * 4096]), 4)
    assert result.category == ["reachable", "unknown", "unknown", "reachable"]
    assert "2 tokens longer than 4,096 characters were not encoded" in result.search


def test_many_long_texts_are_encoded_some_at_a_time():
    texts = [f"{n}" + "x" * 4000 for n in range(800)]
    assert vocabulary(words(texts), 800).witness == texts


def test_a_panic_of_the_library_is_a_corrupt_file(capfd):
    tokenizer = words(["a", "b"], cutter=pre_tokenizers.FixedLength(length=0))
    with pytest.raises(CorruptFile, match=r"breaks down while it encodes \(chunk size must be non-zero\)"):
        vocabulary(tokenizer, 2)
    assert capfd.readouterr().err.count("panicked") <= 1  # the library's own words


def test_a_regular_expression_that_the_library_gives_up_on_is_a_corrupt_file():
    texts = [f"{'a' * n}b" for n in range(30, 40)]  # of which it tries ten million ways to take each apart
    tokenizer = words(texts, cutter=pre_tokenizers.Split(Regex(r"(a+)+$"), "isolated"))
    with pytest.raises(CorruptFile, match="retry-limit-in-match"):
        vocabulary(tokenizer, 10)


class Cutter:
    """A pre-tokenizer in Python, which the library cannot copy."""

    def __init__(self, error=None, seconds=0.0):
        self.error, self.seconds = error, seconds

    def pre_tokenize(self, text):
        time.sleep(self.seconds)
        if self.error:
            raise self.error


def test_a_slow_rule_ends_the_search():
    texts = [f"a{n}" for n in range(2000)]
    tokenizer = words(texts, cutter=pre_tokenizers.PreTokenizer.custom(Cutter(seconds=0.01)))
    began = time.monotonic()
    result = vocabulary(tokenizer, 2000, seconds=0.3)
    assert time.monotonic() - began < 10
    assert set(result.category) <= {"reachable", "unknown"}
    assert result.categories["unknown"] > 1000
    assert "ended after 0.3 seconds" in result.search


def test_an_encoder_that_does_not_come_back_ends_the_search_in_time():
    done = threading.Event()
    tokenizer = by_rules(words(["a", "b"]))
    stuck = dataclasses.replace(tokenizer, encoder=lambda texts: done.wait() and tokenizer.encode(texts))
    began = time.monotonic()
    result = vocabulary(stuck, 2, seconds=0.3)
    done.set()
    assert time.monotonic() - began < 5
    assert (result.category, result.witness) == (["unknown"] * 2, [None] * 2)
    assert "ended after 0.3 seconds, while the tokenizer was at work on 1 of them" in result.search


EXPLODES = """
import sys, time
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from darkvocab.measures.vocabulary import vocabulary
texts = [f"{'a' * n}" for n in range(3900, 4000)]  # at each letter the engine takes millions of ways, for hours in all
model = getattr(models, sys.argv[1])({text: n for n, text in enumerate(["[UNK]", *texts])}, unk_token="[UNK]")
tokenizer = Tokenizer(model)
tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?=.{0,2000}.*z)a|.+"), "isolated")
began = time.monotonic()
found = vocabulary(tokenizer, 101, seconds=1)
assert time.monotonic() - began < 20
assert found.category[1:] == ["unknown"] * 100, found.category
assert "ended after 1 seconds, while the tokenizer was at work on" in found.search, found.search
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["WordLevel", "WordPiece"])
def test_a_pattern_that_explodes_leaves_tokens_unknown_and_does_not_keep_the_process(model):
    subprocess.run([sys.executable, "-c", EXPLODES, model], check=True, timeout=60)


def test_a_pre_tokenizer_in_python_works_and_is_not_copied():
    tokenizer = words(["a", "b"], cutter=pre_tokenizers.PreTokenizer.custom(Cutter()))
    assert vocabulary(tokenizer, 2).witness == ["a", "b"]
    tokenizer.enable_padding(length=10)
    with pytest.raises(ValueError, match="cannot be copied without"):
        vocabulary(tokenizer, 2)


def test_a_pre_tokenizer_in_python_that_refuses_every_text_reaches_nothing():
    tokenizer = words(["a", "b"], cutter=pre_tokenizers.PreTokenizer.custom(Cutter(KeyError("no"))))
    result = vocabulary(tokenizer, 2)
    assert (result.category, result.proof) == (["unreachable"] * 2, [None] * 2)


def write(path, **model):
    path.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": {"unk_token": "b", **model}}))
    return path


def test_half_a_character_in_a_file_is_refused(tmp_path):
    path = write(tmp_path / "tokenizer.json", type="WordLevel", vocab={"\ud800": 0, "b": 1})
    with pytest.raises(CorruptFile, match="not a tokenizer that can be read"):
        vocabulary(path, 3)


def test_an_id_of_four_thousand_million_takes_no_room(tmp_path):
    path = write(tmp_path / "tokenizer.json", type="WordLevel", vocab={"a": 2**32 - 1, "b": 1})
    result = vocabulary(path, 2)
    assert (result.text, result.n_texts, result.n_texts_beyond_matrix) == ([None, "b"], 2, 1)


def test_no_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        vocabulary(tmp_path / "tokenizer.json", 1)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text(max_size=6), st.integers(0, 12), min_size=1, max_size=12),
    st.sampled_from(["WordLevel", "WordPiece", "BPE", "Unigram"]),
    st.integers(0, 10),
)
def test_any_vocabulary_is_explained(tmp_path_factory, vocab, kind, n_tokens):
    path = tmp_path_factory.getbasetemp() / "any.json"
    if kind == "Unigram":
        model = {"type": kind, "vocab": [[text, -float(n)] for text, n in vocab.items()], "unk_id": 0}
    else:
        model = {"type": kind, "vocab": vocab, "unk_token": next(iter(vocab))}
        model |= {
            "BPE": {"merges": []},
            "WordPiece": {"continuing_subword_prefix": "#", "max_input_chars_per_word": 9},
        }.get(kind, {})
    path.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    try:
        result = vocabulary(path, n_tokens)
    except CorruptFile:
        return
    assert result.n_tokens == n_tokens
    assert set(result.category) <= set(CATEGORIES)
    texts = [result.text[token] is not None for token in range(n_tokens)]
    assert [category != "beyond_tokenizer" for category in result.category] == texts
    assert all(len(result.frame()[name]) == n_tokens for name in result.frame().columns)
