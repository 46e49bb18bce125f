"""Patterns as the `tokenizers` library has them cut texts where tiktoken does: proofs rest on it.

A vocabulary in which all pairs of some characters have a token shows most cuts in its ids.
"""

import itertools

import numpy as np
import pytest
import tiktoken
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from darkvocab.sources.tokenizer import BYTE_LEVEL
from darkvocab.sources.tokenizer.rules import PATTERNS, for_oniguruma

CHARACTERS = "aAsSdt1ǅʰé\u0301中\u0e34٣Ⅷ'\u2019\u017f\u212a!/_-\u200d🙂 \t\n\r\u00a0\u2028\u3000"
NAMES = {byte: chr(code) for code, byte in BYTE_LEVEL.items()}


def ranks():
    """All bytes, all characters by way of their beginnings, all pairs of them."""
    whole = [character.encode() for character in CHARACTERS]
    begun = [data[:n] for data in whole for n in range(2, len(data) + 1)]
    pairs = [one + other for one, other in itertools.product(whole, whole)]
    return {data: n for n, data in enumerate(dict.fromkeys([*(bytes([n]) for n in range(256)), *begun, *pairs]))}


def as_rules(vocab, pattern):
    spelt = {data: "".join(NAMES[byte] for byte in data) for data in vocab}
    merges = [
        (spelt[data[:n]], spelt[data[n:]])
        for data in vocab
        for n in range(1, len(data))
        if data[:n] in vocab and data[n:] in vocab
    ]
    rules = Tokenizer(models.BPE({spelt[data]: n for data, n in vocab.items()}, merges, ignore_merges=True))
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rules.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), in_bytes])
    rules.decoder = decoders.ByteLevel()
    return rules


@pytest.mark.parametrize("name", ["GPT2", "CL100K", "O200K", "LLAMA3", "QWEN", "QWEN3_5"])
def test_the_library_cuts_where_tiktoken_does(name):
    pattern = PATTERNS[name]
    vocab = ranks()
    theirs = tiktoken.Encoding("", pat_str=pattern, mergeable_ranks=vocab, special_tokens={})
    rules = as_rules(vocab, for_oniguruma(pattern))
    lot = np.random.default_rng(1)
    drawn = lot.choice(list(CHARACTERS), (6000, 7))
    texts = ["".join(row[:size]) for row, size in zip(drawn, lot.integers(1, 8, len(drawn)), strict=True)]
    texts += ["".join(pair) for pair in itertools.product(CHARACTERS, CHARACTERS)]
    ours = [encoding.ids for encoding in rules.encode_batch(texts, add_special_tokens=False)]
    differing = [text for text, ids in zip(texts, ours, strict=True) if ids != theirs.encode_ordinary(text)]
    assert not differing, (len(differing), differing[:10])


@pytest.mark.parametrize("pattern", [r"a{2}+", r"a$", r"^a", r"(a|b{1,}+)"])
def test_a_pattern_that_may_mean_something_else_there_has_no_rules(pattern):
    assert for_oniguruma(pattern) is None


@pytest.mark.parametrize("pattern", [r"[^\s]+", r"\p{N}{1,3}", r"\$|a++"])
def test_one_that_means_the_same_is_kept(pattern):
    assert for_oniguruma(pattern) == pattern
