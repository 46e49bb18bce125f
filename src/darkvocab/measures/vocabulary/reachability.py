"""Search for each token a text whose encoding holds it, or a proof that there is none."""

import contextlib
import functools
import itertools
import math
import threading
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from ...progress import Report
from ...sources.tokenizer import Encoded, Pieces, Tokenizer, by_rules, parts
from .completions import cut_apart, wholes
from .proofs import Proofs

LONGEST_TOKEN = 4096  # characters of a token that is encoded; real ones have at most some hundreds
SAMPLE_TOKENS = 64  # of a group, by which the context is chosen in which the whole group is encoded first
MOST_IN_CONTEXTS = 2_000_000  # texts
MOST_COMPLETED = 100_000  # texts in each round of completing pieces of characters
MOST_JOINED = 20_000  # texts of pieces of characters beside others
MOST_AMONG = 20_000  # texts of tokens beside one other, and between two
LONGEST_BESIDE = 16  # characters of such another token
ROUNDS = (1, 8, 64, 512, 4096)  # completions of a piece of a character
SOME = 16_384  # texts that are composed at a time

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
LETTERS = ("qxzjQXZJ", "ꙮꆈᏣ𐍈ʬԖ龘")  # usual and rare letters that may be in no longer token

CHUNK_SECONDS = 0.2  # of encoding in one call
CHUNK_TEXTS = 8192
CHUNK_CHARACTERS = 1 << 20
Timed = tuple[np.ndarray, np.ndarray, float]  # ids, the text of each, and the seconds that they took


class OutOfTime(Exception):
    """The time limit of the search has passed."""


class InTime:
    """Encode texts in another thread until a time of the monotonic clock; OutOfTime then.

    A call of the library cannot be interrupted: one that has not returned by then is abandoned. Its thread does not
    keep the process from ending.
    """

    def __init__(self, encode: Callable[[list[str]], Encoded], until: float) -> None:
        self._encode = encode
        self._until = until
        self._size = 32  # texts to encode at a time
        self.n_texts = 0  # encoded
        self.n_left_alone = 0  # texts of an abandoned call

    def check(self) -> None:
        """Raise OutOfTime after the time limit."""
        if time.monotonic() > self._until:
            raise OutOfTime

    def __call__(self, texts: list[str]) -> Iterator[Encoded]:
        """Yield ids, and the text of each, of some texts at a time; the next are encoded meanwhile."""
        begin = 0
        some = texts[: self._size]
        waiting = self._started(some)
        while some:
            try:
                ids, text_of, seconds = waiting.result(max(0.0, self._until - time.monotonic()))
            except TimeoutError:
                self.n_left_alone = len(some)
                raise OutOfTime from None
            first = begin
            begin += len(some)
            self.n_texts += len(some)
            self._size = max(1, min(CHUNK_TEXTS, 4 * self._size, int(len(some) / max(1e-6, seconds) * CHUNK_SECONDS)))
            some = texts[begin : begin + self._size]
            waiting = self._started(some)
            yield ids, text_of + first

    def _started(self, texts: list[str]) -> Future[Timed]:
        result: Future[Timed] = Future()

        def run() -> None:
            try:
                result.set_result(self._timed(texts))
            except BaseException as error:  # the library's panics are no Exception
                result.set_exception(error)

        self.check()
        if texts:
            threading.Thread(target=run, daemon=True).start()
        return result

    def _timed(self, texts: list[str]) -> Timed:
        """Return ids, the text of each, and how long that took."""
        began = time.monotonic()
        n = max(1, CHUNK_CHARACTERS // max(1, *map(len, texts)))
        parts = [self._encode(texts[begin : begin + n]) for begin in range(0, len(texts), n)]
        text_of = [numbers + n * chunk for chunk, (_, numbers) in enumerate(parts)]
        return np.concatenate([ids for ids, _ in parts]), np.concatenate(text_of), time.monotonic() - began


@dataclass(kw_only=True)
class Search:
    """Search for texts that reach tokens, and its result. Pieces are given by their number."""

    tokenizer: Tokenizer
    n_tokens: int
    seconds: float  # after which the search ends, decided or not
    seeds: list[str] = field(default_factory=list)  # texts that are encoded first
    progress: Report | None = None  # called with (tokens decided, tokens)
    witnesses: list[str | None] = field(init=False)  # of each token
    proofs: dict[int, str] = field(init=False, default_factory=dict)  # reason why no text can reach a token
    ended: bool = field(init=False, default=False)  # by itself, not by `seconds`
    too_long: set[int] = field(init=False, default_factory=set)  # tokens that were not encoded
    _tried: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.pieces: Pieces = self.tokenizer.pieces
        self.spelling = self.tokenizer.spelling
        self.witnesses = [None] * self.n_tokens
        self._token = np.array(self.pieces.token, np.int64)
        self._found = np.zeros(self.n_tokens, bool)
        self._until = time.monotonic() + self.seconds
        self._in_time = InTime(self.tokenizer.encode, self._until)

    def run(self) -> None:
        """Look for a witness of every piece, in the likeliest texts first."""
        token = self.pieces.token
        text = self.pieces.name
        body = self.pieces.body
        self.too_long = {token[n] for n, name in enumerate(text) if len(name) > LONGEST_TOKEN}
        every = [n for n, name in enumerate(text) if token[n] < self.n_tokens and len(name) <= LONGEST_TOKEN]
        every = [n for n in every if n not in self.pieces.silent]
        with contextlib.suppress(OutOfTime):
            self._encode([], self.seeds)
            whole = self._left([n for n in every if body[n] is not None])
            self._tried.append("each token alone or, where that reaches more, after a space or a letter")
            strangers = self._strangers()
            self._encode([], ["a"])  # where the library breaks down it says so, once
            self._encode([], [*LETTERS[1], *strangers])  # what is unknown has a token, too
            first: list[Context] = [("", ""), *((letter, "") for letter in strangers), (" ", ""), ("a", ""), ("", "a")]
            for group in self._groups(whole):
                sample = group[:: max(1, len(group) // SAMPLE_TOKENS)]
                reached = [self._in_context(sample, context, by_chance=False) for context in first]
                self._in_context(group, first[reached.index(max(reached))])
            for context in first:
                self._in_context(self._left(whole), context)
            self._prove(self._left(whole))
            self._in_contexts(self._left(whole), strangers)
            self._completed([n for n in every if body[n] is None])
            self._among(whole)
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
        with contextlib.suppress(OutOfTime):
            self._encode([], texts)

    def sentence(self) -> str:
        """Return a sentence on the texts that were encoded, and on the tokens that were not reached."""
        silent = self.pieces.silent
        left = {self.pieces.token[n] for n in self._left(range(len(self.pieces))) if n not in silent}
        n_without = len(left) + len(self.proofs)
        said = f"{self._in_time.n_texts:,} texts encoded without special tokens: {'; '.join(self._tried)}; "
        if not self.ended:
            n_left_alone = self._in_time.n_left_alone
            at_work = f", while the tokenizer was at work on {n_left_alone:,} of them" if n_left_alone else ""
            said += f"ended after {self.seconds:g} seconds{at_work}, before all of this was done; "
        if self.too_long:
            said += f"{len(self.too_long):,} tokens longer than {LONGEST_TOKEN:,} characters were not encoded; "
        said += f"{n_without:,} tokens were not reached, of which {len(self.proofs):,} are proved to be out of reach"
        return said

    def _left(self, pieces: Sequence[int]) -> list[int]:
        """Return the pieces of tokens that are neither reached nor proved to be out of reach."""
        numbers = np.asarray(pieces, np.int64)
        numbers = numbers[self._token[numbers] < self.n_tokens]
        left = ~self._found
        left[[*self.proofs]] = False
        return numbers[left[self._token[numbers]]].tolist()

    def _groups(self, pieces: list[int]) -> list[list[int]]:
        """Group pieces by the context they need: added, continuing a word, after a space, ending a word."""
        groups: dict[tuple[bool, ...], list[int]] = defaultdict(list)
        for n in pieces:
            text = self.pieces.name[n]
            continuing = bool(self.spelling.before) and text.startswith(self.spelling.before)
            ending = bool(self.spelling.after) and text.endswith(self.spelling.after)
            groups[n in self.pieces.added, continuing, self.pieces.data[n][:1] == b" ", ending].append(n)
        return list(groups.values())

    def _strangers(self) -> list[str]:
        """Return letters that are part of no longer token, so that a token ends before or after them."""
        if self.tokenizer.model != "WordPiece":
            characters = set().union(*filter(None, self.pieces.body))
            return [letter for some in LETTERS for letter in [a for a in some if a not in characters][:2]]
        begin = sorted(text for text in self.pieces.name if not text.startswith(self.spelling.before or "\0"))
        alone = [a for a, b in itertools.pairwise([*begin, ""]) if len(a) == 1 and not b.startswith(a) and a.isalpha()]
        return list(itertools.islice(self._in_words(alone), 3))

    def _in_words(self, letters: list[str]) -> Iterator[str]:
        """Yield the letters that normalisation keeps, and that form one word with an "a" after them."""
        import tokenizers

        rules = self.tokenizer.rules
        if rules is None:
            return
        words = {f"{letter}a": n for n, letter in enumerate(letters)}
        whole = tokenizers.Tokenizer(tokenizers.models.WordLevel({**words, "": len(words)}, unk_token=""))
        whole.normalizer = rules.normalizer
        whole.pre_tokenizer = rules.pre_tokenizer
        for ids, _ in InTime(by_rules(whole).encode, self._until)([*words]):
            yield from (letters[n] for n in ids.tolist() if n < len(words))

    def _within(self, piece: int, context: Context) -> str:
        body = self.pieces.body[piece] or ""
        before, after = context
        return (body[:1] if before is OWN else before) + body + (body[-1:] if after is OWN else after)

    def _in_context(self, pieces: list[int], context: Context, *, by_chance: bool = True) -> int:
        return self._encode(pieces, [self._within(n, context) for n in pieces], by_chance=by_chance)

    def _prove(self, pieces: list[int]) -> None:
        """Prove of tokens that each of their texts is out of reach."""
        if self.tokenizer.rules is None or not pieces:
            return
        prover = Proofs(self.tokenizer)
        n_texts = Counter(self.pieces.token)
        proved: dict[int, list[str]] = {}
        for n in pieces:
            self._in_time.check()
            if reason := prover.of(self.pieces[n]):
                proved.setdefault(self.pieces.token[n], []).append(reason)
        self.proofs |= {token: reasons[0] for token, reasons in proved.items() if len(reasons) == n_texts[token]}

    def _in_contexts(self, pieces: list[int], strangers: list[str]) -> None:
        """Try spaces, letters, digits and so on before and after, other cases, Unicode forms and spellings."""
        beside: list[Context] = [*((letter, letter) for letter in strangers), *(("", letter) for letter in strangers)]
        allowed = self._in_time.n_texts + MOST_IN_CONTEXTS
        n_contexts = 0
        for context in (*CONTEXTS, *beside):
            left = self._left(pieces)
            if not left or self._in_time.n_texts + len(left) > allowed:
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
            forms = {form for form in (*forms, self.pieces.name[piece]) if len(form) <= 2 * LONGEST_TOKEN} - {body}
            sides = itertools.product(("", " ", "a", *strangers), ("", " ", "a"))
            return (before + form + after for before, after in sides for form in sorted(forms))

        self._encode_some(self._left(pieces), others, allowed - self._in_time.n_texts)

    def _completed(self, pieces: list[int]) -> None:
        """Try parts of characters within the many whole characters that they may belong to."""
        if not pieces:
            return
        self._tried.append(
            f"pieces of characters as parts of up to {ROUNDS[-1]:,} whole texts, and beside pieces that hold the rest"
        )
        data = self.pieces.data
        done = 0
        for most in ROUNDS:
            if most == ROUNDS[2]:
                self._prove(self._left(pieces))
            left = self._left(pieces)
            until = min(most, MOST_COMPLETED // max(1, len(left)))
            self._encode_some(left, lambda piece: wholes(data[piece], done, until), MOST_COMPLETED)  # noqa: B023
            done = max(done, until)

        def beside(piece: int) -> Iterator[str]:
            sides = (("", "a"), ("a", ""), (" ", ""), ("", " "))
            for text in wholes(data[piece], 0, ROUNDS[1]):
                yield text.upper()
                yield from (before + text + after for before, after in sides)

        self._encode_some(self._left(pieces), beside, MOST_COMPLETED)
        inside = [data[n] for n in pieces if b"\x80" <= data[n][:1] < b"\xc0"]  # which begin inside a character
        left = self._left(pieces)
        most = MOST_JOINED // max(1, len(left))

        def joined(piece: int) -> Iterator[str]:
            some = data[piece]
            before = (data[n] + some for n in pieces) if some in inside else iter(())
            both = itertools.chain((some + rest for rest in inside), before)
            proper = list(itertools.islice(filter(cut_apart, both), most))
            texts = (wholes(held, n, n + 1) for n in range(ROUNDS[1]) for held in proper)
            return itertools.islice(itertools.chain.from_iterable(texts), most)

        self._encode_some(left, joined, MOST_JOINED)

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

    def _encode_some(self, pieces: list[int], texts: Callable[[int], Iterable[str]], most: int) -> None:
        """Encode up to `most` texts for these pieces."""
        every = itertools.islice(((n, text) for n in pieces for text in texts(n)), max(0, most))
        while some := list(itertools.islice(every, SOME)):
            self._encode([n for n, _ in some], [text for _, text in some])

    def _encode(self, pieces: list[int], texts: list[str], *, by_chance: bool = True) -> int:
        """Encode texts, each meant to reach a piece's token (without pieces none), and return how many did.

        With `by_chance`, other tokens that they reach are marked as reached, too.
        """
        meant = np.array([self.pieces.token[n] for n in pieces] or [-1] * len(texts), np.int64)
        n_reached = 0
        others: dict[int, int] = {}  # tokens reached besides, and the number of the text
        try:
            for ids, text_of in self._in_time(texts):
                is_row = ids < self.n_tokens
                ids = ids[is_row]
                text_of = text_of[is_row]
                as_meant = ids == meant[text_of]
                n_reached += int(np.count_nonzero(np.diff(text_of[as_meant], prepend=-1)))  # texts, which ascend
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
