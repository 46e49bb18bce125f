"""Compile patterns of pre-tokenizers, and prove that one cuts between given characters in every text."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

# What ByteLevel of the `tokenizers` library splits by, as GPT-2 does (byte_level.rs).
BYTE_LEVEL_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SURROGATES = slice(0xD800, 0xE000)  # in no text
PLANE = 0x10000
LONGEST_PATTERN = 2000  # characters of a pattern, instructions of a program
LONGEST_ANY_CASE = 8  # characters of a text in any case
MOST_CLASSES = 64
DEEPEST = 50  # groups within groups

# Codes that may be larger than PLANE, or are of bytes, or are no numbers.
_CODED = re.compile(r"\\x(?!\{[0-9A-Fa-f]{1,4}\}|[0-7])|\\[oMCc0-9]")
# One character: a property, a class, a code, or an escaped sign.
_ESCAPE = r"\\(?:[pP]\{\^?[\w ]+\}|[dDwWsShHrntfvae]|x[0-7][0-9A-Fa-f]|x\{[0-9A-Fa-f]{1,4}\}|u[0-9A-Fa-f]{4}|[^\w\s])"
_BRACKETS = r"\[\^?(?:\\.|[^\]\[\\])+\]"
_CHARACTER = re.compile(rf"{_ESCAPE}|{_BRACKETS}|[^\\\[\](){{}}*+?|^$]", re.ASCII | re.DOTALL)
_ANY_CASE = re.compile(r"\(\?i:((?:[A-Za-z' |-]|\[[A-Za-z]+\])+)\)")
_UNIT = re.compile(r"\[[A-Za-z]+\]|[A-Za-z' -]")
_REPEAT = re.compile(r"([*+?])([?+]?)|\{(\d{1,3})(,?)(\d{0,3})\}(\??)")


class NotRead(Exception):
    """The pattern has a construct that is not supported, or is too long."""


class Step(NamedTuple):
    """Instruction of a program.

    - ``one``: consume a character of class `a`;
    - ``peek``: the next character is of class `a`, or if not `within`, is not; or the text ends, if `at_end`;
    - ``either``: continue `a` instructions from here; where that leads to no match, `b` from here;
    - ``jump``: continue `a` instructions from here.
    """

    kind: str
    a: int = 0
    b: int = 0
    within: bool = False
    at_end: bool = False


class Fragment(NamedTuple):
    """Program of a part of a pattern, and whether it can match the empty text."""

    code: tuple[Step, ...]
    empty: bool

    def __add__(self, other: Fragment) -> Fragment:  # type: ignore[override]
        return Fragment(self.code + other.code, self.empty and other.empty)


def _either(first: Fragment, second: Fragment) -> Fragment:
    fork = Step("either", 1, len(first.code) + 2)
    over = Step("jump", len(second.code) + 1)
    return Fragment((fork, *first.code, over, *second.code), first.empty or second.empty)


def _repeated(part: Fragment, least: int, most: int | None, *, lazy: bool) -> Fragment:
    """Repeat a part as often as possible, or if `lazy` as seldom."""
    if part.empty or len(part.code) * max(least, most or 0) > LONGEST_PATTERN:
        raise NotRead("a repeat of what may be empty, or of too much")
    length = len(part.code)
    result = Fragment(part.code * least, least == 0)

    def once_more_or(behind: int) -> tuple[Step, ...]:
        return Step("either", *((behind, 1) if lazy else (1, behind))), *part.code

    if most is None:
        return result + Fragment((*once_more_or(length + 2), Step("jump", -length - 1)), True)
    for n in range(most - least, 0, -1):
        result += Fragment(once_more_or(n * (length + 1)), True)
    return result


class Pattern:
    """Program of a pattern in Oniguruma's syntax, as the `tokenizers` library reads it.

    Supported are classes of characters, groups, alternatives, repeats (greedy, lazy, and possessive ones of one class),
    lookahead at one character, ends of lines and of the text, and ASCII letters in any case. All else raises NotRead.
    """

    def __init__(self, pattern: str, runtime: str = "tokenizers") -> None:
        self._pattern = pattern
        self._runtime = runtime
        self._at = 0
        self._depth = 0
        self.classes: list[str] = []  # of characters, each as a pattern of its own
        if len(pattern) > LONGEST_PATTERN or _CODED.search(pattern) or max(pattern, default="") >= chr(4 * PLANE):
            raise NotRead("too long, or with characters by numbers")
        whole = self._choice()
        if self._at < len(pattern) or whole.empty or len(whole.code) > LONGEST_PATTERN:
            raise NotRead(f"character {self._at}, or matches of nothing")
        self.code = whole.code  # a match ends behind its last instruction

    def _choice(self) -> Fragment:
        parts = [self._row()]
        while self._takes("|"):
            parts.append(self._row())
        return functools.reduce(lambda later, part: _either(part, later), reversed(parts))

    def _row(self) -> Fragment:
        row = Fragment((), True)
        after_any_case = False
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            is_any_case = _ANY_CASE.match(self._pattern, self._at)
            if is_any_case and after_any_case:
                raise NotRead("letters in any case that may join others")
            row += self._repeat(self._item())
            after_any_case = bool(is_any_case)
        return row

    def _item(self) -> Fragment:
        if any_case := _ANY_CASE.match(self._pattern, self._at):
            self._at = any_case.end()
            return self._in_any_case(any_case[1].split("|"))
        if (within := self._takes("(?=")) or self._takes("(?!"):
            peek = Step("peek", self._one(), within=within, at_end=not within)
            self._close()
            return Fragment((peek,), True)
        if self._takes(r"\z"):
            return Fragment(tuple(Step("peek", self._class(one), at_end=True) for one in (r"\s", r"\S")), True)
        if self._takes("$"):
            return Fragment((Step("peek", self._class(r"\n"), within=True, at_end=True),), True)
        if self._takes("(?:") or self._takes("("):
            return self._group()
        return Fragment((Step("one", self._one()),), False)

    def _group(self) -> Fragment:
        self._depth += 1
        if self._pattern.startswith("?", self._at) or self._depth > DEEPEST:
            raise NotRead(f"the group at character {self._at}")
        inside = self._choice()
        self._close()
        self._depth -= 1
        return inside

    def _repeat(self, part: Fragment) -> Fragment:
        repeat = _REPEAT.match(self._pattern, self._at)
        if not repeat:
            return part
        self._at = repeat.end()
        if _REPEAT.match(self._pattern, self._at):
            raise NotRead("a repeat of a repeat")
        sign, manner, low, comma, high, lazy = repeat.groups()
        if low:
            if (lazy and not comma) or int(high or low) < int(low):
                raise NotRead("a repeat that is read in more ways than one")
            most = None if comma and not high else int(high or low)
            return _repeated(part, int(low), most, lazy=bool(lazy))
        least = int(sign == "+")
        most = 1 if sign == "?" else None
        repeated = _repeated(part, least, most, lazy=manner == "?")
        if manner != "+":
            return repeated
        if len(part.code) > 1 or part.code[0].kind != "one":
            raise NotRead("a group that is repeated without giving back")
        no_more = Fragment((Step("peek", part.code[0].a, within=False, at_end=True),), True)
        return _either(part, no_more) if sign == "?" else repeated + no_more

    def _in_any_case(self, texts: list[str]) -> Fragment:
        """Read texts of ASCII letters in any case; NotRead where some fold to one character, as "st" to ﬆ."""
        units = [_UNIT.findall(text) for text in texts]
        if max(map(len, units)) > LONGEST_ANY_CASE:
            raise NotRead("a long text in any case")
        ends = [itertools.combinations(range(len(row) + 1), 2) for row in units]
        joined = ["".join(row[a:b]) for row, some in zip(units, ends, strict=True) for a, b in some if b > a + 1]
        if joined and members(f"(?i:{'|'.join(joined)})", self._runtime)[128:].any():
            raise NotRead("letters that are one character in another case")
        cased = [[f"(?i:{unit})" if unit.strip("[]").isalpha() else unit for unit in row] for row in units]
        rows = [Fragment(tuple(Step("one", self._class(unit)) for unit in row), not row) for row in cased]
        return functools.reduce(lambda later, row: _either(row, later), reversed(rows))

    def _one(self) -> int:
        """Read a class of one character, and return its number."""
        character = _CHARACTER.match(self._pattern, self._at)
        if not character:
            raise NotRead(f"character {self._at}")
        self._at = character.end()
        return self._class(character[0])

    def _class(self, pattern: str) -> int:
        if pattern not in self.classes:
            if len(self.classes) == MOST_CLASSES:
                raise NotRead("too many classes")
            self.classes.append(pattern)
        return self.classes.index(pattern)

    def _takes(self, sign: str) -> bool:
        """Skip a sign if it stands at this place; return whether it does."""
        stands = self._pattern.startswith(sign, self._at)
        self._at += len(sign) * stands
        return stands

    def _close(self) -> None:
        if not self._takes(")"):
            raise NotRead(f"no ')' at character {self._at}")


MOST_STEPS = 20_000  # states times classes of characters; real patterns have some thousands
Threads = tuple[int, ...]  # instructions, the preferred one first


class Cuts:
    """Decide whether a pattern splits every text inside given characters.

    A text is split where matches begin and end. Each match is searched for from the end of the one before, at one
    character after the other; there the engine takes the first way through the pattern that leads to a match.
    Characters ``b`` are *whole* in a text if no match begins or ends between two of them: one match holds all of them,
    or no match holds any.

    **One match.** It begins at or before ``b``: the text is ``t u b v``, and matching begins before ``u``. As the
    pattern has no lookbehind, ``u b v`` alone is matched in the same way. So some text keeps ``b`` whole in one match
    exactly if for some ``u`` and ``v`` the match at the start of ``u b v`` ends at or after the end of ``b``.
    All ways of the engine are followed at once, in its order of preference [1]_: a state is the list of instructions
    that wait for the next character. A character leads to the next state, the same for all characters that the pattern
    cannot distinguish; a way that reaches a match ends those after it. There are finitely many states, and those that
    any ``u`` leads to are found by trying every class of characters in every state. From all of them the characters of
    ``b`` are followed. If only the empty state is left, no match reaches the end of ``b``, for any ``u`` and ``v``.

    **No match.** A character of a class in `_sure` begins a match whatever follows, as no text leads from there to its
    end without one. So no text leaves it outside of all matches, and a ``b`` with such a character is not whole in
    this way. Both together are the proof.

    References
    ----------
    .. [1] Cox, "Regular Expression Matching: the Virtual Machine Approach" (2009), on Pike's virtual machine.
    """

    def __init__(self, pattern: str, runtime: str = "tokenizers") -> None:
        read = Pattern(pattern, runtime)
        self._code = read.code
        tables = [members(one, runtime) for one in read.classes]
        # Code points that are in the same tables, of at most 64, are of one class.
        sets = np.zeros(len(code_points()), np.uint64)
        for n, table in enumerate(tables):
            sets[table] |= np.uint64(1 << n)
        _, examples, self._class_of = np.unique(sets, return_index=True, return_inverse=True)
        self._n = len(examples)  # number of classes; as a class, the end of the text
        self._holds = [[*table[examples].tolist(), False] for table in tables]
        # State 0 is empty, and 1 the start.
        self._next = [[0] * self._n]  # of each state by class
        self._ends = [[False] * (self._n + 1)]  # a match ends before this class, or the text's end
        self._explore()
        unsure = self._unsure()
        self._sure = {n for n in range(self._n) if self._next[1][n] not in unsure}
        self._followed = functools.cache(self._follow)

    def always(self, characters: Iterable[np.ndarray]) -> bool:
        """Return whether every text is proved to be cut between two of these characters.

        `characters` holds the possible code points of each; the proof is for all of them together.
        """
        alike = [frozenset(self._class_of[np.searchsorted(code_points(), codes)].tolist()) for codes in characters]
        if not any(some <= self._sure for some in alike):
            return False
        states = frozenset(range(len(self._next)))
        for some in alike:
            states = self._followed(states, some)
        return states <= {0}

    def _follow(self, states: frozenset[int], classes: frozenset[int]) -> frozenset[int]:
        return frozenset(self._next[state][one] for state in states for one in classes)

    def _explore(self) -> None:
        """Find every state that texts lead to, and its next states by class."""
        waiting: list[Threads] = [(0,)]
        states: dict[Threads, int] = {(): 0, (0,): 1}
        for threads in waiting:
            steps = [self._step(threads, symbol) for symbol in range(self._n + 1)]
            if len(states) * self._n > MOST_STEPS:
                raise NotRead("too many states")
            row = []
            for behind, _ in steps[:-1]:
                if behind not in states:
                    states[behind] = len(states)
                    waiting.append(behind)
                row.append(states[behind])
            self._next.append(row)
            self._ends.append([ended for _, ended in steps])

    def _unsure(self) -> set[int]:
        """Find the states from which some text leads to its end without a match on its way."""
        unsure = {state for state, ends in enumerate(self._ends) if not ends[-1]}
        n_before = 0
        while n_before < len(unsure):
            n_before = len(unsure)
            for state, ends in enumerate(self._ends):
                if any(not ended and after in unsure for ended, after in zip(ends, self._next[state], strict=False)):
                    unsure.add(state)
        return unsure

    def _step(self, threads: Threads, symbol: int) -> tuple[Threads, bool]:
        """Follow the ways in order by one class, or the end; return the next state, and if a way matched before it."""
        behind: list[int] = []
        seen: set[int] = set()
        stack = list(reversed(threads))
        while stack:
            at = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            if at == len(self._code):
                return tuple(behind), True
            if self._code[at].kind != "one":
                stack += self._ways(at, symbol)
            elif self._holds[self._code[at].a][symbol]:
                behind.append(at + 1)
        return tuple(behind), False

    def _ways(self, at: int, symbol: int) -> list[int]:
        """Return the instructions after one that consumes nothing, the preferred one last."""
        step = self._code[at]
        if step.kind == "peek":
            passes = step.at_end if symbol == self._n else self._holds[step.a][symbol] is step.within
            return [at + 1] if passes else []
        return [at + step.a] if step.kind == "jump" else [at + step.b, at + step.a]


@functools.cache
def code_points() -> np.ndarray:
    """Return code points with one of each kind that a pattern can distinguish, ascending, uint32.

    These are the first four planes and the ends of the others. Planes 4 to 13 are unassigned, 15 and 16 private, so
    that properties distinguish at most the last two code points of each; plane 14 has tags and selectors in its first
    4,096. No pattern that is read names a single one of them.
    """
    wanted = np.zeros((17, PLANE), bool)
    wanted[:4] = True
    wanted[4:, :16] = wanted[4:, -16:] = True
    wanted[14, :4096] = True
    wanted.ravel()[SURROGATES] = False
    return np.flatnonzero(wanted).astype("<u4")


@functools.lru_cache(128)
def members(pattern: str, runtime: str = "tokenizers") -> np.ndarray:
    """Return for each of `code_points` whether a pattern of one character matches it, bool.

    The engine of the tokenizer itself is asked, as engines have Unicode tables of different versions.
    """
    from tokenizers import Regex, decoders

    codes = code_points()
    text = codes.tobytes().decode("utf-32-le")
    try:
        if runtime == "tiktoken":
            import tiktoken

            ranks = {bytes([byte]): byte for byte in range(256)}
            encoding = tiktoken.Encoding("", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
            return _among(codes, bytes(encoding.encode_ordinary(text)).decode())
        return ~_among(codes, decoders.Replace(Regex(f"(?:{pattern})+"), "").decode([text]))
    except Exception as error:  # the libraries raise bare Exception
        raise NotRead(str(error)) from None


def _among(codes: np.ndarray, text: str) -> np.ndarray:
    return np.isin(codes, np.frombuffer(text.encode("utf-32-le"), "<u4"), kind="table")
