"""Vocabulary in arrays: what is left, completions and code points, beside plain loops."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizing import byte_level, drawn

from darkvocab.measures.vocabulary import pattern
from darkvocab.measures.vocabulary.completions import MOST_COMPLETIONS, _drawn, cut_apart
from darkvocab.measures.vocabulary.reachability import Search
from darkvocab.sources.tokenizer import by_rules

INSIDE = rb"[\x80-\xbf]*"


@given(st.one_of(st.binary(max_size=12), st.text(max_size=4).map(lambda text: text.encode()[1:-1])))
def test_bytes_are_cut_where_characters_begin(data):
    end = re.match(INSIDE, data)[0]
    wholes = [n for n in range(len(data), len(end) - 1, -1) if _whole(data[len(end) : n])]
    rest = data[wholes[0] :]
    if len(end) > 3 or not (rest == b"" or _begins(rest)):
        assert cut_apart(data) is None
    else:
        assert cut_apart(data) == (end, data[len(end) : wholes[0]].decode(), rest)


def _whole(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _begins(data):
    """Say whether some bytes behind these make one character of them."""
    more = [bytes(some) for n in range(1, 4) for some in itertools.product((0x80, 0x8F, 0x90, 0xBF), repeat=n)]
    return any(_whole(data + some) and len((data + some).decode()) == 1 for some in more)


@pytest.mark.parametrize("codes", [range(0x4E00, 0x4E40), range(0x80, 0x800), range(0x3F000, 0x41000), range(0)])
def test_letters_and_signs_are_drawn_in_turn_then_all_others(codes):
    lot = [chr(code) for code in np.random.default_rng(0).permutation(np.array(codes, np.int64))]
    near = [c for c in lot if ord(c) < 0x40000]
    letters = [c for c in near if re.fullmatch(r"\w", c)]
    is_letter = set(letters)
    signs = [c for c in near if c.isprintable() and c not in is_letter]
    turns = [c for turn in itertools.zip_longest(letters, signs) for c in turn if c]
    usual = set(turns)
    assert _drawn(np.array(codes, np.int64)) == tuple([*turns, *(c for c in lot if c not in usual)][:MOST_COMPLETIONS])


def test_code_points_are_those_of_the_first_planes_and_the_ends_of_the_others():
    ends = [*range(16), *range(0xFFF0, 0x10000)]
    later = {0x10000 * plane + n for plane in range(4, 17) for n in ends} | set(range(0xE0000, 0xE1000))
    assert pattern.code_points().tolist() == sorted({*range(0xD800), *range(0xE000, 0x40000), *later})


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_is_neither_reached_nor_out_of_reach_nor_beyond_the_rows(seed):
    rng = np.random.default_rng(seed)
    tokenizer = by_rules(drawn(byte_level, seed)[0])
    token = tokenizer.pieces.token
    search = Search(tokenizer=tokenizer, n_tokens=max(token) - 20, seconds=60)
    search._found[:] = rng.random(search.n_tokens) < 0.5
    search.proofs = {int(one): "why" for one in rng.choice(search.n_tokens, 40)}
    for pieces in (range(len(token)), rng.permutation(len(token))[:90].tolist(), []):
        plain = [
            n
            for n in pieces
            if token[n] < search.n_tokens and not search._found[token[n]] and token[n] not in search.proofs
        ]
        assert search._left(pieces) == plain
