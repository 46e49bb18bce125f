"""Texts that llama.cpp cuts out of a text before the model of its tokenizer sees the rest."""

import re
from collections.abc import Callable, Iterable, Mapping, Set

import numpy as np

from .tokenizer import Encoded

WHITE_SPACE = " \t\n\v\f\r"  # as C has it


class Specials:
    """Cut special tokens out of texts: the longest first, and of one length as they are listed.

    `before` and `after` name those that take the white space before or after them along.

    Examples
    --------
    >>> Specials({"<a>": 7, "a>b>": 8}).split("<a>b>, <a>")
    ['<', 8, ', ', 7]
    """

    def __init__(
        self, ids: Mapping[str, int], *, before: Set[str] = frozenset(), after: Set[str] = frozenset()
    ) -> None:
        self._ids = ids
        self._before = before
        self._after = after
        sizes: dict[int, list[str]] = {}
        for text in ids:
            sizes.setdefault(len(text.encode()), []).append(text)
        self._cuts = [pattern for size in sorted(sizes, reverse=True) for pattern in _one_by_one(sizes[size])]
        self._begun = _any_of({text[:2] for text in ids})  # is in every text that has a special one

    def encoder(self, encode: Callable[[list[str]], Encoded]) -> Callable[[list[str]], Encoded]:
        """Return a function that encodes texts, of which `encode` gets what is between special tokens."""

        def encode_between(texts: list[str]) -> Encoded:
            between: list[str] = []
            place: list[int] = []  # of each of them among the parts of all texts
            cut: list[tuple[int, int]] = []  # special tokens, with their places
            text_of: list[int] = []  # of each part
            for n, text in enumerate(texts):
                for part in self.split(text):
                    if isinstance(part, int):
                        cut.append((part, len(text_of)))
                    else:
                        between.append(part)
                        place.append(len(text_of))
                    text_of.append(n)
            ids, of = encode(between) if between else (np.empty(0, np.int64), np.empty(0, np.int64))
            special = np.array(cut, np.int64).reshape(-1, 2)
            places = np.concatenate([np.array(place, np.int64)[of], special[:, 1]])
            order = np.argsort(places, kind="stable")
            return np.concatenate([ids, special[:, 0]])[order], np.array(text_of, np.int64)[places[order]]

        return encode_between

    def split(self, text: str) -> list[str | int]:
        """Return a text's parts in order: special tokens, by id, and what is between them."""
        if not (self._ids and self._begun.search(text)):
            return [text] if text else []
        parts: list[str | int] = [text]
        for pattern in self._cuts:
            parts = [smaller for part in parts for smaller in self._cut(part, pattern)]
        return parts

    def _cut(self, part: str | int, pattern: re.Pattern[str]) -> list[str | int]:
        if isinstance(part, int):
            return [part]
        pieces = pattern.split(part)  # each second one is special
        for n in range(1, len(pieces), 2):
            if pieces[n] in self._before:
                pieces[n - 1] = pieces[n - 1].rstrip(WHITE_SPACE)
            if pieces[n] in self._after:
                pieces[n + 1] = pieces[n + 1].lstrip(WHITE_SPACE)
        return [self._ids[piece] if n % 2 else piece for n, piece in enumerate(pieces) if piece]


def _one_by_one(texts: list[str]) -> list[re.Pattern[str]]:
    """Return patterns that find texts of one length as if each were looked for by itself, one after the other."""
    begins = {text[:n] for text in texts for n in range(1, len(text))}
    overlap = any(text[n:] in begins for text in texts for n in range(1, len(text)))
    return [_any_of([text]) for text in texts] if overlap and len(texts) > 1 else [_any_of(texts)]


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile(f"({'|'.join(map(re.escape, sorted(texts)))})")
