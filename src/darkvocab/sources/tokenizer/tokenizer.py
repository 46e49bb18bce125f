"""Tokenizer: texts to token ids by the library that runs it, every token's text and bytes, and its rules."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InvalidInput
from ...text import Shown
from ..tensors import File
from .texts import Pieces, Spelling

if TYPE_CHECKING:
    import tokenizers

Encoded = tuple[np.ndarray, np.ndarray]  # ids, and the number of the text that each is of; int64


def flat(ids: list[list[int]]) -> Encoded:
    """Return the ids of some texts one after the other, and the number of the text that each is of."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    every = np.fromiter(itertools.chain.from_iterable(ids), np.int64, int(lengths.sum()))
    return every, np.repeat(np.arange(len(ids)), lengths)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tokenizer(Shown):
    """A tokenizer as one runtime has it: which ids a text becomes is a matter of the runtime, too."""

    runtime: str  # tokenizers, tiktoken, sentencepiece or llama.cpp
    model: str  # BPE, WordPiece, Unigram, WordLevel; or as a GGUF file names one that is not known
    pieces: Pieces
    spelling: Spelling  # of the pieces' names
    # The same for the `tokenizers` library, of tiktoken's without merges; made when they are asked for.
    rules_of: Callable[[], tokenizers.Tokenizer | None] | None = None
    encoder: Callable[[list[str]], Encoded] | None = None
    # Where whole words are looked up before pieces merge: whether merges alone give these pieces, by number.
    merges: Callable[[list[int]], list[bool]] | None = None
    cannot_encode: str | None = None  # why there is no encoder
    file: File | None = None  # the file that was read, or the first of them
    others: tuple[Callable[[], Tokenizer], ...] = ()  # open further tokenizers that apply to the same model

    def _shown(self) -> dict[str, Any]:
        """Show what it is, not its texts."""
        facts = {"runtime": self.runtime, "model": self.model, "n_texts": len(self.pieces)}
        return {**facts, "file": self.file and str(self.file)}

    @cached_property
    def rules(self) -> tokenizers.Tokenizer | None:
        """Rules of the tokenizer for the `tokenizers` library; None where that has none like them."""
        return self.rules_of() if self.rules_of else None

    @cached_property
    def texts(self) -> dict[int, str]:
        """Text of every token id, as it is shown; where several texts have one id, the last in alphabetical order."""
        return dict(zip(self.pieces.token, self.pieces.text, strict=True))

    def encode(self, texts: list[str]) -> Encoded:
        """Return ids and the number of the text that each is of, [n] int64 each, ascending by text.

        No special tokens are added. InvalidInput where `cannot_encode` says why.
        """
        if self.encoder is None:
            raise InvalidInput(f"{self.file}: this tokenizer cannot encode: {self.cannot_encode}")
        return self.encoder(texts)
