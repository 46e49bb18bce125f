"""Tokens that can be reached: the search against every short text."""

import pytest
from tokenizing import KINDS, byte_level, drawn, llama

from darkvocab.measures.vocabulary import vocabulary
from darkvocab.measures.vocabulary.proofs import Proofs
from darkvocab.sources.tokenizer import by_rules


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_short_text_reaches_is_reached_and_every_witness_holds_its_token(kind):
    n_without = 0
    for seed in range(4 if kind in (byte_level, llama) else 10):  # these have 256 tokens and more
        tokenizer, texts = drawn(kind, seed)
        n_tokens = max(tokenizer.get_vocab().values()) + 1
        result = vocabulary(tokenizer, n_tokens)
        reached = {}
        for text, encoding in zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
            for token in encoding.ids:
                reached.setdefault(token, text)
        for token, witness in enumerate(result.witness):
            if witness is None:
                assert token not in reached, (seed, result.text[token], reached[token], result.proof[token])
                n_without += 1
            else:
                assert token in tokenizer.encode(witness, add_special_tokens=False).ids, (seed, witness)
                assert result.proof[token] is None
        ours = by_rules(tokenizer)
        proofs = Proofs(ours)
        for n, token in enumerate(ours.pieces.token):
            assert result.witness[token] is None or proofs.of(ours.pieces[n]) is None, (seed, ours.pieces[n])
    assert n_without > 5  # the tokenizers are such that something was to be missed
