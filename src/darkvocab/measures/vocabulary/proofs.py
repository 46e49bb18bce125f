"""Prove that no text can reach a token, without a search for one."""

import functools
import json
from typing import Any

from ...sources.tokenizer import BYTE_LEVEL, BYTE_TOKEN, Piece, Tokenizer, parts
from .completions import characters
from .pattern import BYTE_LEVEL_PATTERN, Cuts, NotRead

NO_UTF8 = "its bytes are in no UTF-8 text"
MERGED = "its characters merge into other tokens, wherever they stand"
NORMALISED = "the normaliser changes its characters, wherever they stand"
SPELT = "its character has a token of its own"
SPLIT = "the pre-tokenizer splits its characters, wherever they stand"
CUT_OFF = "the pre-tokenizer splits it off from whatever it would continue"

# Normalisers that leave their results, and each part of them, unchanged.
STEADY = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"}
# Pre-tokenizers that decide between two characters by these two alone,
CUTTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits"}
KIND_EXAMPLES = "a1①!_☃中"  # and a character of each kind that they distinguish.
# Pre-tokenizers that change no character,
ONLY_CUT = {*CUTTERS, "Split", "UnicodeScripts", "CharDelimiterSplit", "FixedLength"}
BORDERS = {"Isolated", "Removed"}  # behaviours of Split that cut wherever a match begins or ends


class Proofs:
    """Proofs that no text can reach a piece of this tokenizer.

    **Merges.** BPE merges the pair of lowest rank, again and again. Where a token stands in a result, no merge has
    crossed its borders, so the merges within were those of its characters alone. A token that its characters alone do
    not give is never given.

    **Bytes for characters.** The tokens of single bytes are only used for characters without a token.

    **Normaliser.** NFC, NFD, NFKC, NFKD and lowercase leave their results, and every part of them, unchanged [1]_. So a
    token whose text they change is in none of their results.

    **Pre-tokenizer.** Those in `CUTTERS` decide between two characters by these two alone. So a token that they cut is
    always cut; and a piece that continues a word is always cut off if they cut between its first character and one of
    each kind. A pattern of `Split` or `ByteLevel` always cuts where `Cuts` proves it. In a sequence, each cuts what the
    ones before it leave whole, so one that always cuts is enough.

    **Ids with several texts.** BPE merges ids, which may be of other characters. Nothing is proved.

    References
    ----------
    .. [1] Unicode Standard Annex 15, "Concatenation of Normalized Strings": the forms are closed under substringing.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.rules is not None
        self._spelling = spelling = tokenizer.spelling
        self._model = tokenizer.rules.model
        self._normaliser = tokenizer.rules.normalizer
        self._cutter = tokenizer.rules.pre_tokenizer
        normaliser = [part["type"] for part in parts(self._normaliser)]
        cutter = [part["type"] for part in parts(self._cutter)]
        self._steady = len(normaliser) == 1 and normaliser[0] in STEADY
        bert = normaliser == ["BertNormalizer"] and cutter == ["BertPreTokenizer"]  # which takes spaces away again
        self._cuts = bert or (set(cutter) <= CUTTERS and (self._steady or not normaliser))
        kind = type(self._model).__name__
        marked = spelling.before or spelling.after
        pieces = tokenizer.pieces
        self._ambiguous = kind == "BPE" and len(set(pieces.token)) < len(pieces)
        self._merges = kind == "BPE" and not marked
        self._spells = kind in ("BPE", "Unigram") and not marked
        self._unknown = _unknown(self._model)
        self._patterns, self._n_unspaced = _patterns(tokenizer)

    def of(self, piece: Piece) -> str | None:
        """Return why no text can reach a piece; None where that is not proved."""
        if piece.added or piece.name == self._unknown or self._ambiguous:
            return None
        if piece.body is None and characters(piece.data) is None:
            return NO_UTF8
        if self._spelling.byte_tokens and BYTE_TOKEN.search(piece.name):
            spelt = self._spells and piece.body and self._model.token_to_id(piece.body) is not None
            return SPELT if spelt else None
        if self._unknown and self._unknown in piece.name:  # the unknown token may merge with any character
            return None
        if self._merges and [token.id for token in self._model.tokenize(piece.name)] != [piece.token]:
            return MERGED
        if self._always_cut(piece):
            return SPLIT
        if self._steady and self._always_changes(piece):
            return NORMALISED
        if not piece.body:
            return None
        if self._cuts and self.words(piece.name) != [piece.name]:
            words = self.words(piece.body)
            if words != [piece.body]:
                return SPLIT if "".join(words) == piece.body else NORMALISED
            beside = (*KIND_EXAMPLES, piece.body[0])
            continues = self._spelling.before and piece.name.startswith(self._spelling.before)
            if continues and all(self.words(kind + piece.body) != [kind + piece.body] for kind in beside):
                return CUT_OFF
        return None

    def _always_cut(self, piece: Piece) -> bool:
        """Return whether a pattern cuts between two of a piece's characters in every text."""
        if not self._patterns or (self._spelling.byte_level and not BYTE_LEVEL.keys() >= set(map(ord, piece.name))):
            return False
        if self._spelling.space and self._spelling.space in piece.name:  # which patterns may see otherwise
            return False
        held = characters(piece.data) or []
        unspaced = held[1:] if piece.data[:1] == b" " else held
        return any(cuts.always(unspaced if n < self._n_unspaced else held) for n, cuts in enumerate(self._patterns))

    def _always_changes(self, piece: Piece) -> bool:
        if piece.body is not None:
            return self._normalised(piece.body) != piece.body
        held = (map(chr, codes.tolist()) for codes in characters(piece.data) or [])
        return any(all(self._normalised(one) != one for one in some) for some in held)

    def _normalised(self, text: str) -> str:
        return text if self._normaliser is None else self._normaliser.normalize_str(text)

    def words(self, text: str) -> list[str]:
        """Split a text into the words that the model sees."""
        normalised = self._normalised(text)
        if self._cutter is None:
            return [normalised]
        return [word for word, _ in self._cutter.pre_tokenize_str(normalised)]


def _unknown(model: Any) -> str | None:
    """Return the unknown token of a model, which stands for any character."""
    if type(model).__name__ != "Unigram":
        return getattr(model, "unk_token", None)
    token = json.loads(model.__getstate__()).get("unk_id")
    return None if token is None else str(model.id_to_token(token))


def _patterns(tokenizer: Tokenizer) -> tuple[list[Cuts], int]:
    """Return the patterns by which a pre-tokenizer cuts text, and how many see it before a space is added in front."""
    assert tokenizer.rules is not None
    cuts: list[Cuts] = []
    n_unspaced = 0
    in_bytes = any(part["type"] == "ByteLevel" for part in parts(tokenizer.rules.normalizer))
    for part in [] if in_bytes else parts(tokenizer.rules.pre_tokenizer):
        if part["type"] == "ByteLevel":
            in_bytes = True
            n_unspaced = len(cuts) if part.get("add_prefix_space", True) else 0
            if part.get("use_regex", True):
                cuts += _cuts_of(BYTE_LEVEL_PATTERN, tokenizer.runtime)
        elif part["type"] == "Split" and part["behavior"] in BORDERS and "Regex" in part["pattern"]:
            cuts += _cuts_of(part["pattern"]["Regex"], tokenizer.runtime)
        if part["type"] not in ONLY_CUT:
            break
    sees_characters = tokenizer.spelling.byte_level and not in_bytes  # the model sees them, not bytes
    return ([], 0) if sees_characters else (cuts, n_unspaced)


@functools.lru_cache(16)
def _cuts_of(pattern: str, runtime: str) -> tuple[Cuts, ...]:
    """Return the cuts of a pattern; nothing where it cannot be read."""
    try:
        return (Cuts(pattern, runtime),)
    except NotRead:
        return ()
