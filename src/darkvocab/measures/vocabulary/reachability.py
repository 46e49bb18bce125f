"""Reachability: search for each token a text whose encoding holds it, or a proof that there is none."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from ...progress import Report
from ...sources.tokenizer import Pieces, Tokenizer, parts
from .completions import completions
from .proofs import Proofs

LONGEST = 4096  # characters of a token that is encoded; real ones have at most some hundreds
SAMPLE = 64  # tokens of a kind that decide in which context all of the kind are encoded first
MOST_IN_CONTEXTS = 2_000_000  # texts
MOST_COMPLETED = 100_000  # texts in each round of completing pieces of characters
MOST_AMONG = 20_000  # texts of tokens among others, with one other and with two
LONGEST_BESIDE = 16  # characters of another token that a token is put beside
ROUNDS = (1, 8, 64, 512, 4096)  # completions of a piece of a character
SOME = 16_384  # texts that are made at a time
CHUNK_SECONDS = 0.2  # of encoding, after which it can be interrupted
CHUNK_TEXTS, CHUNK_CHARACTERS = 8192, 1 << 20

OWN = None  # a token's own first or last character
BEFORE = (" ", "a", "A", "1", ".", "\n", "(", "-", "_", "'", "é", "я", "中", "か", "ب", "\t", "  ", "a ", ". ", OWN)
AFTER = (" ", "a", "A", "1", ".", "\n", ")", "-", "_", "'", "é", "я", "中", "か", "ب", "\n\n", "  ", " a", OWN)
BESIDE = (" ", "a", "1", ".", "\n")
Context = tuple[str | None, str | None]
CONTEXTS: tuple[Context, ...] = (
    *((before, "") for before in BEFORE),
    *(("", after) for after in AFTER),
    *itertools.product(BESIDE, BESIDE),
)
FORMS: tuple[Callable[[str], str], ...] = (
    str.lower,
    str.upper,
    str.title,
    str.strip,
    *(functools.partial(unicodedata.normalize, form) for form in ("NFC", "NFD", "NFKC", "NFKD")),
)
LETTERS = "qxzjQXZJ", "ꙮꆈᏣ𐍈ʬԖ龘"  # such as no token may have: usual ones, and of rare scripts


class _OutOfTime(Exception):
    """The search has taken as long as it may."""


@dataclass(kw_only=True)
class Search:
    """Search for texts that reach tokens, and its result. Pieces are named by their number."""

    tokenizer: Tokenizer
    n_tokens: int
    seconds: float  # after which the search ends, decided or not
    seeds: list[str] = field(default_factory=list)  # texts to begin with
    progress: Report | None = None  # told how many tokens are decided, of how many
    witnesses: list[str | None] = field(init=False)  # of each token
    proofs: dict[int, str] = field(init=False, default_factory=dict)  # why no text can reach a token
    n_texts: int = field(init=False, default=0)  # encoded
    ended: bool = field(init=False, default=False)  # by itself, not by `seconds`
    too_long: set[int] = field(init=False, default_factory=set)  # tokens that were not encoded
    _tried: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.pieces: Pieces = self.tokenizer.pieces
        self.spelling = self.tokenizer.spelling
        self.witnesses = [None] * self.n_tokens
        self._found = np.zeros(self.n_tokens, bool)
        self._size = 32  # texts to encode at a time
        self._began = time.monotonic()

    def run(self) -> None:
        """Look for a witness of every piece, in the likeliest texts first."""
        with contextlib.suppress(_OutOfTime):
            self._run()
            self.ended = True

    def verdict(self, token: int) -> str:
        """Return the category of a token that stands for a text."""
        if self.witnesses[token] is not None:
            return "reachable"
        return "unreachable" if token in self.proofs or (self.ended and token not in self.too_long) else "unknown"

    def reaches(self, token: int) -> bool:
        """Return whether a text was encoded to this token."""
        return token < self.n_tokens and self.witnesses[token] is not None

    def texts(self) -> list[str]:
        """Return the texts that reach tokens."""
        return [text for text in self.witnesses if text is not None]

    def encode(self, texts: list[str]) -> None:
        """Encode more texts, after the search."""
        with contextlib.suppress(_OutOfTime):
            self._encode([], texts)

    def sentence(self) -> str:
        """Say what was encoded, and how much of what that did not reach is proved."""
        tokens = {token for n, token in enumerate(self.pieces.token) if n not in self.pieces.silent}
        tokens &= set(range(self.n_tokens))
        n_without = sum(self.witnesses[token] is None for token in tokens)
        said = f"{self.n_texts:,} texts encoded without special tokens: {'; '.join(self._tried)}; "
        if not self.ended:
            said += f"ended after {self.seconds:g} seconds, before all of this was done; "
        if self.too_long:
            said += f"{len(self.too_long):,} tokens longer than {LONGEST:,} characters were not encoded; "
        return (
            said + f"{n_without:,} tokens were not reached, of which {len(self.proofs):,} are proved to be out of reach"
        )

    def _run(self) -> None:
        token = self.pieces.token
        text = self.pieces.name
        body = self.pieces.body
        every = [n for n in range(len(self.pieces)) if token[n] < self.n_tokens and len(text[n]) <= LONGEST]
        every = [n for n in every if n not in self.pieces.silent]
        self.too_long = {token[n] for n in range(len(self.pieces)) if len(text[n]) > LONGEST}
        self._encode([], self.seeds)
        whole = self._left([n for n in every if body[n] is not None])
        self._tried.append("each token alone or, where that reaches more, after a space or a letter")
        strangers = self._strangers()
        self._encode([], ["a"])  # where the library breaks down it says so, once
        self._encode([], [*LETTERS[1], *strangers])  # what is unknown has a token, too
        first: list[Context] = [("", ""), *((letter, "") for letter in strangers), (" ", ""), ("a", ""), ("", "a")]
        for group in self._groups(whole):
            sample = group[:: max(1, len(group) // SAMPLE)]
            reached = [self._in_context(sample, context, by_chance=False) for context in first]
            self._in_context(group, first[reached.index(max(reached))])
        whole = self._left(whole)
        for context in first:
            whole = self._left(whole)
            self._in_context(whole, context)
        in_part = [n for n in every if body[n] is None]
        self._prove(self._left(whole + in_part))
        self._in_contexts(self._left(whole), strangers)
        self._completed(in_part)
        self._among(whole)

    # Which pieces, in which order -----------------------------------------------------------------------------------

    def _left(self, pieces: list[int]) -> list[int]:
        """Return the pieces of tokens that are neither reached nor out of reach."""
        token = self.pieces.token
        return [n for n in pieces if not self._found[token[n]] and token[n] not in self.proofs]

    def _groups(self, pieces: list[int]) -> list[list[int]]:
        """Group pieces that want like contexts: added, continuing a word, after a space, ending a word."""
        groups: dict[tuple[bool, ...], list[int]] = {}
        before = self.spelling.before
        after = self.spelling.after
        for n in pieces:
            text = self.pieces.name[n]
            continuing = before != "" and text.startswith(before)
            ending = after != "" and text.endswith(after)
            spaced = self.pieces.data[n][:1] == b" "
            groups.setdefault((n in self.pieces.added, continuing, spaced, ending), []).append(n)
        return list(groups.values())

    def _strangers(self) -> list[str]:
        """Return letters that are part of no longer token, so that one ends before what follows them."""
        if self.tokenizer.model != "WordPiece":
            characters = set().union(*filter(None, self.pieces.body))
            return [letter for some in LETTERS for letter in [a for a in some if a not in characters][:2]]
        begin = sorted(text for text in self.pieces.name if not text.startswith(self.spelling.before or "\0"))
        alone = (a for a, b in itertools.pairwise([*begin, ""]) if len(a) == 1 and not b.startswith(a))
        words = Proofs(self.tokenizer).words
        return list(itertools.islice((a for a in alone if a.isalpha() and words(f"{a}a") == [f"{a}a"]), 3))

    # What is tried --------------------------------------------------------------------------------------------------

    def _within(self, piece: int, context: Context) -> str:
        body = self.pieces.body[piece] or ""
        before, after = context
        return (body[:1] if before is OWN else before) + body + (body[-1:] if after is OWN else after)

    def _in_context(self, pieces: list[int], context: Context, *, by_chance: bool = True) -> int:
        return self._encode(pieces, [self._within(n, context) for n in pieces], by_chance=by_chance)

    def _prove(self, pieces: list[int]) -> None:
        """Prove of tokens that every text of theirs is out of reach."""
        if self.tokenizer.rules is None:
            return
        texts = Counter(self.pieces.token)
        proofs = Proofs(self.tokenizer, one_text_each=len(texts) == len(self.pieces))
        proved: dict[int, list[str]] = {}
        for n in pieces:
            if reason := proofs.of(self.pieces[n]):
                proved.setdefault(self.pieces.token[n], []).append(reason)
        self.proofs |= {token: reasons[0] for token, reasons in proved.items() if len(reasons) == texts[token]}

    def _in_contexts(self, pieces: list[int], strangers: list[str]) -> None:
        """Try spaces, letters, digits and so on before and after; other cases and Unicode forms; other spellings."""
        beside: list[Context] = [*((letter, letter) for letter in strangers), *(("", letter) for letter in strangers)]
        allowed = self.n_texts + MOST_IN_CONTEXTS
        n_contexts = 0
        for context in (*CONTEXTS, *beside):
            left = self._left(pieces)
            if not left or self.n_texts + len(left) > allowed:
                break
            self._in_context(left, context)
            n_contexts += 1
        if not n_contexts:
            return
        self._tried.append(
            f"what this did not reach in {n_contexts} contexts (spaces, line ends, letters, digits and punctuation "
            "before and after), in other cases and Unicode forms"
        )
        rules = self.tokenizer.rules
        replaced = [
            (part["pattern"]["String"], part["content"])
            for part in parts(rules.normalizer if rules else None)
            if part["type"] == "Replace" and part["content"] and "String" in part["pattern"]
        ]

        def others(piece: int) -> Iterator[str]:
            body = self.pieces.body[piece] or ""
            forms = {form(body) for form in FORMS} | {body.replace(new, old) for old, new in replaced}
            forms |= {letter.join(body) for letter in strangers}  # which the model may drop
            forms = {form for form in (*forms, self.pieces.name[piece]) if len(form) <= 2 * LONGEST} - {body}
            sides = itertools.product(("", " ", "a", *strangers), ("", " ", "a"))
            return (before + form + after for before, after in sides for form in sorted(forms))

        self._encode_some(self._left(pieces), others, allowed - self.n_texts)

    def _completed(self, pieces: list[int]) -> None:
        """Try pieces of characters within whole characters, of which there are many."""
        if not pieces:
            return
        self._tried.append(f"pieces of characters as parts of up to {ROUNDS[-1]:,} whole texts")
        done = 0
        for most in ROUNDS:
            left = self._left(pieces)
            until = min(most, MOST_COMPLETED // max(1, len(left)))
            self._encode_some(left, functools.partial(self._wholes, begin=done, end=until), MOST_COMPLETED)
            done = max(done, until)

        def beside(piece: int) -> Iterator[str]:
            sides = (("", "a"), ("a", ""), (" ", ""), ("", " "))
            for text in self._wholes(piece, 0, ROUNDS[1]):
                yield text.upper()
                yield from (before + text + after for before, after in sides)

        self._encode_some(self._left(pieces), beside, MOST_COMPLETED)

    def _wholes(self, piece: int, begin: int, end: int) -> Iterator[str]:
        """Yield some completions of a piece of a character."""
        completed = completions(self.pieces.data[piece])
        if completed is None:
            return
        heads, between, tails = completed
        for n in range(begin, min(end, len(heads) * len(tails))):
            yield heads[n % len(heads)] + between + tails[(n // len(heads) + n) % len(tails)]

    def _among(self, pieces: list[int]) -> None:
        """Try other tokens before and after, the shortest first, one and two at a time."""
        left = self._left(pieces)
        if not left:
            return
        self._tried.append("what was left between other tokens")
        bodies = {body for body in self.pieces.body if body and len(body) <= LONGEST_BESIDE}
        some = sorted(bodies, key=lambda body: (len(body), body))
        ones = some[: MOST_AMONG // (2 * len(left))]
        twos = some[: math.isqrt(MOST_AMONG // (3 * len(left)))]
        around: list[Context] = [*((one, "") for one in ones), *(("", one) for one in ones)]
        for a, b in itertools.product(twos, twos):
            around += [(a, b), (a + b, ""), ("", a + b)]
        self._encode_some(left, lambda piece: (self._within(piece, context) for context in around), 2 * MOST_AMONG)

    # Encoding ---------------------------------------------------------------------------------------------------------

    def _encode_some(self, pieces: list[int], texts: Callable[[int], Iterable[str]], most: int) -> None:
        """Encode so many texts for these pieces."""
        every = itertools.islice(((n, text) for n in pieces for text in texts(n)), max(0, most))
        while some := list(itertools.islice(every, SOME)):
            self._encode([n for n, _ in some], [text for _, text in some])

    def _encode(self, pieces: list[int], texts: list[str], *, by_chance: bool = True) -> int:
        """Encode texts, each meant to reach a piece's token, and count those that did.

        With `by_chance`, tokens that they reach besides are marked as reached, too.

        `pieces` may be empty: then the texts are meant for none.
        """
        meant = np.array([self.pieces.token[n] for n in pieces] or [-1] * len(texts), np.int64)
        n_reached = 0
        others: dict[int, int] = {}  # tokens reached besides, and the number of the text
        try:
            for ids, text_of in self._encoded(texts):
                is_row = ids < self.n_tokens
                ids = ids[is_row]
                text_of = text_of[is_row]
                as_meant = ids == meant[text_of]
                n_reached += len(np.unique(text_of[as_meant]))
                self._reached(ids[as_meant], text_of[as_meant], texts)
                new = ~self._found[ids]
                for token, n in zip(ids[new].tolist(), text_of[new].tolist(), strict=True):
                    others.setdefault(token, n)
                if self.progress:
                    self.progress(int(self._found.sum()) + len(self.proofs), self.n_tokens)
        finally:
            if by_chance:
                self._reached(np.array([*others], np.int64), np.array([*others.values()], np.int64), texts)
        return n_reached

    def _reached(self, tokens: np.ndarray, text_of: np.ndarray, texts: list[str]) -> None:
        new = ~self._found[tokens]
        for token, n in zip(tokens[new].tolist(), text_of[new].tolist(), strict=True):
            if self.witnesses[token] is None:
                self.witnesses[token] = texts[n]
        self._found[tokens] = True

    def _encoded(self, texts: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield ids of some texts at a time, and the text of each; while the caller looks the next are encoded."""
        at = 0
        waiting = None
        with ThreadPoolExecutor(1) as pool:
            while waiting or at < len(texts):
                following = None
                if at < len(texts):
                    some = texts[at : at + self._size]
                    following = at, pool.submit(self._ids_in_time, some)
                    at += len(some)
                if waiting:
                    ids, text_of = waiting[1].result()
                    yield ids, text_of + waiting[0]
                waiting = following

    def _ids_in_time(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        began = time.monotonic()
        if began - self._began > self.seconds:
            raise _OutOfTime
        n = max(1, CHUNK_CHARACTERS // max(1, *map(len, texts)))
        parts = [self.tokenizer.encode(texts[begin : begin + n]) for begin in range(0, len(texts), n)]
        self.n_texts += len(texts)
        rate = len(texts) / max(1e-6, time.monotonic() - began)
        self._size = max(1, min(CHUNK_TEXTS, 4 * self._size, int(rate * CHUNK_SECONDS)))
        text_of = [numbers + n * chunk for chunk, (_, numbers) in enumerate(parts)]
        return np.concatenate([ids for ids, _ in parts]), np.concatenate(text_of)
