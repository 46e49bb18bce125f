"""Round trip: tokens whose text alone does not become the token again."""

import numpy as np

from ...sources.tokenizer import Tokenizer

SOME = 8192  # texts that are encoded at a time


def no_round_trip(tokenizer: Tokenizer, n_tokens: int) -> tuple[int, ...] | None:
    """Return tokens whose text, encoded alone, is not this one token, ascending: RT of Land and Bartolo [1]_.

    Added tokens, single bytes, parts of characters and texts with U+FFFD are left out, as there. Such a token may be
    reached all the same, beside others. None where a text is given a space, or another mark of a word's begin: there
    most pieces have no text alone.

    References
    ----------
    .. [1] Land and Bartolo, "Fishing for Magikarp", EMNLP 2024, section 3.1.
    """
    if not tokenizer.spelling.byte_level:
        return None
    pieces = tokenizer.pieces
    asked = [n for n, token in enumerate(pieces.token) if token < n_tokens and n not in pieces.added]
    asked = [n for n in asked if len(pieces.data[n]) > 1 and "\ufffd" not in (pieces.body[n] or "\ufffd")]
    failed: list[int] = []
    for begin in range(0, len(asked), SOME):
        some = asked[begin : begin + SOME]
        ids, text_of = tokenizer.encode([pieces.body[n] or "" for n in some])
        meant = np.array([pieces.token[n] for n in some])
        length = np.bincount(text_of, minlength=len(some))
        same = (length == 1) & np.isin(np.arange(len(some)), text_of[ids == meant[text_of]])
        failed += meant[~same].tolist()
    return tuple(sorted(failed))
