"""Tokenizers inside GGUF files that lie: each is read, or refused in a sentence, and then encodes or says why not."""

import os
import time

import ggufs
import numpy as np
import pytest
import vocabularies
from hypothesis import given, settings
from hypothesis import strategies as st

from darkvocab.errors import CorruptFile
from darkvocab.sources import chat_template, open_source
from darkvocab.sources.tokenizer import from_gguf, tokenizer_of

N_FILES = int(os.environ.get("DARKVOCAB_FILES", "200"))  # mutated files of each test; 10,000 of each were tried
TEXTS = ["", "a b", "ab é한\n<s>[PAD]<|end|> 123", "▁▁ aa\0", "b" * 300]
GOOD = {
    "gpt2": vocabularies.byte_level(["a b", "Ġ a", "Ġa b"], special=["<|end|>"]),
    "llama": vocabularies.sentencepiece({"▁": -1.0, "a": -2.0, "▁a": -3.0, "ab": -1.5}),
    "bert": vocabularies.bert(["▁a", "b", "▁."]),
    "t5": vocabularies.t5({"▁": -1.0, "▁a": -2.0, "b": -3.0}),
}
ROWS = {"token_embd.weight": np.ones((4, 2), np.float32)}


def tried(open_):
    """Encode with what opens, where it opens; return whether it did."""
    try:
        tokenizer = open_()
        if tokenizer is None or tokenizer.cannot_encode:
            return False
        ids, text_of = tokenizer.encode(TEXTS)  # which makes the rules
    except CorruptFile:
        return False
    assert len(ids) == len(text_of)
    assert ((ids >= 0) & (ids < 1_000)).all()
    return True


@pytest.mark.slow
@settings(max_examples=N_FILES, deadline=None)
@given(data=st.data(), model=st.sampled_from([*GOOD]))
def test_changed_files_are_read_or_refused(scratch, data, model):
    content = bytearray(ggufs.saved(scratch / "good.gguf", ROWS, GOOD[model]).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):  # of the same length, so that what comes behind is still read
        at = data.draw(st.integers(24, len(content) - 1))
        new = data.draw(
            st.binary(min_size=1, max_size=4) | st.sampled_from([b"\xff\xff\xc0\x7f", b"\0\0\0\0", b"\x05\0\0\0"])
        )
        content[at : at + len(new)] = new[: len(content) - at]
    (scratch / "changed.gguf").write_bytes(content)

    def opened():
        source = open_source(scratch / "changed.gguf")
        chat_template(source)
        return tokenizer_of(source)

    tried(opened)


TOKENS = st.lists(
    st.sampled_from([b"a", b"b", b"ab", b"\xe2\x96\x81", b"\xff", b"", b"<0x61>", "Ġ".encode(), b" ", b"</s>"])
    | st.binary(max_size=4),
    max_size=8,
)
NUMBERS = st.lists(st.integers(-1, 7), max_size=8)
FLOATS = st.lists(st.floats(width=32), max_size=8)
ANY = st.none() | st.booleans() | st.integers(-1, 300) | st.sampled_from(["", "gpt2", "llama", "bert", "t5"]) | TOKENS
ANY |= NUMBERS.map(lambda held: np.array(held, np.int32)) | FLOATS.map(lambda held: np.array(held, np.float32))
FIELDS = {
    "model": st.sampled_from(["gpt2", "llama", "bert", "t5", "gemma4"]),
    "pre": st.sampled_from(["default", "llama-bpe", "kimi-k2", "sarvam-moe", "gemma4", "superbpe"]),
    "tokens": TOKENS,
    "token_type": NUMBERS.map(lambda held: np.array(held + [1] * 8, np.int32)),
    "scores": FLOATS.map(lambda held: np.array(held + [0.0] * 8, np.float32)),
    "merges": st.lists(
        st.sampled_from([b"a b", b"b a", b"ab a", b" ", b"", b"a", b"\xff b", "Ġ a".encode()]), max_size=5
    ),
    "precompiled_charsmap": st.binary(max_size=60).map(lambda held: np.frombuffer(held, np.uint8)),
    "unknown_token_id": st.integers(0, 9),
    "add_space_prefix": st.booleans(),
    "remove_extra_whitespaces": st.booleans(),
    "normalizer.lowercase": st.booleans(),
}


@pytest.mark.slow
@settings(max_examples=N_FILES, deadline=None)
@given(
    held=st.fixed_dictionaries({}, optional=FIELDS), odd=st.dictionaries(st.sampled_from([*FIELDS]), ANY, max_size=1)
)
def test_any_values_are_a_tokenizer_or_refused(held, odd):
    metadata = {f"tokenizer.ggml.{key}": value for key, value in {**held, **odd}.items() if value is not None}
    tried(lambda: from_gguf(metadata))


@pytest.mark.parametrize("model", GOOD)
def test_those_that_are_changed_are_read_before(scratch, model):
    assert tried(lambda: tokenizer_of(open_source(ggufs.saved(scratch / "good.gguf", ROWS, GOOD[model]))))


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 100_000])
def test_many_special_tokens_and_long_texts_take_no_long_time(n):
    special = [f"<{number}>" for number in range(n)]
    tokens = [*vocabularies.ALPHABET, *special]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [token.encode() for token in tokens],
        "tokenizer.ggml.token_type": np.array([1] * 256 + [3] * n, np.int32),
        "tokenizer.ggml.merges": [b"a b"],
    }
    began = time.process_time()
    tokenizer = from_gguf(metadata)
    ids, _ = tokenizer.encode(["<0>a" * 1_000, "a" * 4_000, "<" * 4_000])
    assert len(ids) == 10_000
    assert time.process_time() - began < 10
