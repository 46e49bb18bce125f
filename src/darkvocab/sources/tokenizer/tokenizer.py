"""Tokenizer: encodes texts by the library that runs it; has every token's text and bytes, and its rules."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import InvalidInput
from ...text import Shown, shorten
from ..tensors import File

if TYPE_CHECKING:
    import tokenizers

Encoded = tuple[np.ndarray, np.ndarray]  # ids, and the number of each id's text; int64
BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
# GPT-2's alphabet: the character that stands for each byte, for `str.translate` into Latin-1.
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = sorted(set(range(256)) - set(_PRINTED))
BYTE_LEVEL = {**{byte: byte for byte in _PRINTED}, **{256 + n: byte for n, byte in enumerate(_OTHERS)}}
# A character of Latin-1 that stands for no byte must not become one.
_FROM_BYTE_LEVEL = {**{code: 0xFFFD for code in range(256) if code not in BYTE_LEVEL}, **BYTE_LEVEL}


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """Marks in a token's text that say which bytes the token stands for."""

    byte_level: bool = False  # each character stands for a byte, as GPT-2 has it
    space: str = ""  # stands for a space, as ▁ does
    before: str = ""  # begins a piece that continues a word, as ## does
    after: str = ""  # ends a piece that ends a word, as </w> does
    byte_tokens: bool = False  # <0x41> stands for a byte

    def bytes_of(self, text: str) -> bytes:
        """Return the bytes that a token of this text stands for.

        Examples
        --------
        >>> Spelling(byte_level=True).bytes_of("Ġthe"), Spelling(before="##").bytes_of("##ing")
        (b' the', b'ing')
        >>> Spelling(space="▁", byte_tokens=True).bytes_of("<0xE4>")
        b'\\xe4'
        """
        if self.byte_level:
            if self.after and text != self.after:
                text = text.removesuffix(self.after)
            try:
                return text.translate(_FROM_BYTE_LEVEL).encode("latin-1")
            except UnicodeEncodeError:  # no text of this alphabet
                return text.encode()
        if self.byte_tokens and (byte := BYTE_TOKEN.fullmatch(text)):
            return bytes.fromhex(byte[1])
        for mark in (self.before, self.after):  # the mark alone stands for itself
            if mark and text != mark:
                text = text.removeprefix(mark) if mark is self.before else text.removesuffix(mark)
        return (text.replace(self.space, " ") if self.space else text).encode()


class Piece(NamedTuple):
    """Text of a tokenizer: its token, its names, and the bytes that it stands for."""

    token: int
    text: str  # for people
    name: str  # in the rules of the `tokenizers` library
    data: bytes
    body: str | None  # the bytes as text; None where they are no whole UTF-8
    added: bool  # cut out of a text before the model sees it


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Texts of a tokenizer by id and text, in columns, as so many objects would keep the garbage collector busy."""

    token: list[int]
    text: list[str]  # for people; the file's name of the token, if it has one
    name: list[str]  # in `Tokenizer.rules`: often the same
    data: list[bytes]
    added: Set[int] = frozenset()  # numbers of pieces that are cut out of a text before the model, or are `silent`
    silent: Set[int] = frozenset()  # numbers of pieces that no text gives: control tokens of some runtimes

    @cached_property
    def body(self) -> list[str | None]:
        """Bytes of each piece as text; None where they are no whole UTF-8."""
        return list(map(decoded, self.data))

    def __len__(self) -> int:
        return len(self.token)

    def __getitem__(self, n: int) -> Piece:
        return Piece(self.token[n], self.text[n], self.name[n], self.data[n], self.body[n], n in self.added)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tokenizer(Shown):
    """Tokenizer of one runtime: other runtimes may encode a text differently."""

    runtime: str  # tokenizers, tiktoken, sentencepiece or llama.cpp
    model: str  # BPE, WordPiece, Unigram, WordLevel; or as a GGUF file names one that is not known
    pieces: Pieces
    spelling: Spelling  # of the pieces' names
    # Makes `rules`, for tiktoken without merges.
    rules_of: Callable[[], tokenizers.Tokenizer | None] | None = None
    encoder: Callable[[list[str]], Encoded] | None = None
    # If whole words are looked up before pieces merge: whether merges alone give the pieces of these numbers.
    merges: Callable[[list[int]], list[bool]] | None = None
    cannot_encode: str | None = None  # reason why there is no encoder
    file: File | None = None  # the first file that was read
    others: tuple[Callable[[], Tokenizer], ...] = ()  # functions that open other tokenizers of the same model

    def _shown(self) -> dict[str, Any]:
        facts = {"runtime": self.runtime, "model": self.model, "n_texts": len(self.pieces)}
        return {**facts, "file": self.file and str(self.file)}

    @cached_property
    def rules(self) -> tokenizers.Tokenizer | None:
        """Rules of the tokenizer for the `tokenizers` library; None where it cannot express them."""
        return self.rules_of() if self.rules_of else None

    @cached_property
    def texts(self) -> dict[int, str]:
        """Text of every token id, for people; of several texts of one id the last in alphabetical order."""
        return dict(zip(self.pieces.token, self.pieces.text, strict=True))

    def encode(self, texts: list[str]) -> Encoded:
        """Return the ids of texts, and the number of each id's text, [n] int64 both, ascending by text.

        No special tokens are added. Raises InvalidInput with the reason `cannot_encode`.
        """
        if self.encoder is None:
            raise InvalidInput(f"{self.file}: this tokenizer cannot encode: {self.cannot_encode}")
        return self.encoder(texts)


def flat(ids: list[list[int]]) -> Encoded:
    """Concatenate the ids of texts; return them and the number of each id's text."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    every = np.fromiter(itertools.chain.from_iterable(ids), np.int64, int(lengths.sum()))
    return every, np.repeat(np.arange(len(ids)), lengths)


def is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogates, which JSON may have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def in_a_line(error: BaseException) -> str:
    """Return the message of a library's error, on one line and cut short."""
    return shorten(" ".join(str(error).split()), 200)


def decoded(data: bytes) -> str | None:
    """Decode bytes; None where they are no whole UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
