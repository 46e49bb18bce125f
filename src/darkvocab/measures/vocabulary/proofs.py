"""Proofs that no text at all can reach a token, without a search for one."""

from __future__ import annotations

from ...sources.tokenizer import BYTE_TOKEN, Piece, Tokenizer, parts
from .completions import completions

NO_UTF8 = "its bytes are in no UTF-8 text"
MERGED = "its characters merge into other tokens, wherever they stand"
NORMALISED = "the normaliser changes its characters, wherever they stand"
SPELT = "its character has a token of its own"
SPLIT = "the pre-tokenizer splits its characters, wherever they stand"
CUT_OFF = "the pre-tokenizer splits it off from whatever it would continue"

# Normalisers whose results hold nothing that they would change again, neither in whole nor in part.
STEADY = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"}
# Pre-tokenizers that cut between two characters or not whatever stands around the two,
CUTTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits"}
KINDS = "a1①!_☃中"  # and a character of each kind that they tell apart.


class Proofs:
    """Find reasons why no text can reach a piece of this tokenizer.

    **Merges.** BPE merges the pair of lowest rank, again and again. Where a token stands in a result, no merge has
    crossed its borders, so those within were the ones that its characters see when they are alone. A token that
    its own characters do not give when they are alone is never given, whatever stands beside them.

    **Bytes for characters.** The tokens of single bytes stand in for characters without a token.

    **Normaliser.** NFC, NFD, NFKC, NFKD and lowercase letters leave what they have made as it is, and every part of it
    [1]_. So a token whose text they change is in no text that they have made.

    **Pre-tokenizer.** Those in `CUTTERS` cut between two characters, or do not, for the sake of these two. So a token
    that they cut is always cut; and a piece that continues a word is always cut off where they cut between its first
    character and one of each kind.

    References
    ----------
    .. [1] Unicode Standard Annex 15, "Concatenation of Normalized Strings": the forms are closed under substringing.
    """

    def __init__(self, tokenizer: Tokenizer, *, one_text_each: bool = True) -> None:
        spelling = tokenizer.spelling
        rules = tokenizer.rules
        assert rules is not None
        self._spelling = spelling
        self._model = rules.model
        self._normaliser = rules.normalizer
        self._cutter = rules.pre_tokenizer
        normaliser = [part["type"] for part in parts(self._normaliser)]
        cutter = [part["type"] for part in parts(self._cutter)]
        self._steady = len(normaliser) == 1 and normaliser[0] in STEADY
        bert = normaliser == ["BertNormalizer"] and cutter == ["BertPreTokenizer"]  # which takes spaces away again
        self._cuts = bert or (set(cutter) <= CUTTERS and (self._steady or not normaliser))
        kind = type(self._model).__name__
        marked = spelling.before or spelling.after
        self._merges = kind == "BPE" and one_text_each and not marked
        self._spells = kind in ("BPE", "Unigram") and not marked
        self._unknown: str | None = getattr(self._model, "unk_token", None)

    def of(self, piece: Piece) -> str | None:
        """Return why no text can reach a piece; None where that is not proved."""
        if piece.added or piece.name == self._unknown:
            return None
        if piece.body is None and completions(piece.data) is None:
            return NO_UTF8
        if self._spelling.byte_tokens and BYTE_TOKEN.search(piece.name):
            spelt = self._spells and piece.body and self._model.token_to_id(piece.body) is not None
            return SPELT if spelt else None
        if self._unknown and self._unknown in piece.name:  # which may merge with what is not its characters
            return None
        if self._merges and [token.id for token in self._model.tokenize(piece.name)] != [piece.token]:
            return MERGED
        if not piece.body:
            return None
        if self._steady and self._normalised(piece.body) != piece.body:
            return NORMALISED
        if self._cuts and self.words(piece.name) != [piece.name]:
            words = self.words(piece.body)
            if words != [piece.body]:
                return SPLIT if "".join(words) == piece.body else NORMALISED
            beside = (*KINDS, piece.body[0])
            continues = self._spelling.before and piece.name.startswith(self._spelling.before)
            if continues and all(self.words(kind + piece.body) != [kind + piece.body] for kind in beside):
                return CUT_OFF
        return None

    def _normalised(self, text: str) -> str:
        return text if self._normaliser is None else self._normaliser.normalize_str(text)

    def words(self, text: str) -> list[str]:
        """Split a text into the words that the model is given, one after the other."""
        normalised = self._normalised(text)
        if self._cutter is None:
            return [normalised]
        return [word for word, _ in self._cutter.pre_tokenize_str(normalised)]
