"""Patterns of pre-tokenizers, read into programs, and proofs that one cuts between characters wherever they stand."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

# What ByteLevel of the `tokenizers` library splits by, as GPT-2 does (byte_level.rs).
BYTE_LEVEL_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SURROGATES = slice(0xD800, 0xE000)  # are in no text
PLANE = 0x10000
LONGEST_PATTERN = 2000  # characters of a pattern, instructions of a program
LONGEST_ANY_CASE = 8  # characters of a text in any case
MOST_CLASSES = 64
DEEPEST = 50  # groups within groups

# Code points by numbers that may be larger than PLANE, or in bytes, or that are no numbers at all.
_CODED = re.compile(r"\\x(?!\{[0-9A-Fa-f]{1,4}\}|[0-7])|\\[oMCc0-9]")
# One character: a property, a class, a code, or a sign that would otherwise have a meaning.
_ESCAPE = r"\\(?:[pP]\{\^?[\w ]+\}|[dDwWsShHrntfvae]|x[0-7][0-9A-Fa-f]|x\{[0-9A-Fa-f]{1,4}\}|u[0-9A-Fa-f]{4}|[^\w\s])"
_BRACKETS = r"\[\^?(?:\\.|[^\]\[\\])+\]"
_CHARACTER = re.compile(rf"{_ESCAPE}|{_BRACKETS}|[^\\\[\](){{}}*+?|^$]", re.ASCII | re.DOTALL)
_ANY_CASE = re.compile(r"\(\?i:((?:[A-Za-z' |-]|\[[A-Za-z]+\])+)\)")
_UNIT = re.compile(r"\[[A-Za-z]+\]|[A-Za-z' -]")
_REPEAT = re.compile(r"([*+?])([?+]?)|\{(\d{1,3})(,?)(\d{0,3})\}(\??)")


class NotRead(Exception):
    """The pattern holds something whose meaning is not known here, or it is too long."""


class Step(NamedTuple):
    """An instruction.

    - ``one``: the next character is of class `a`; go on behind it;
    - ``peek``: the next character is of class `a`, or not of it, as `within` says; or the text ends, if `at_end`;
    - ``either``: go on `a` instructions from here; where that leads to no match, `b` from here;
    - ``jump``: go on `a` instructions from here.
    """

    kind: str
    a: int = 0
    b: int = 0
    within: bool = False
    at_end: bool = False


class Fragment(NamedTuple):
    """A part of a pattern, and whether it can match without a character."""

    code: tuple[Step, ...]
    empty: bool

    def __add__(self, other: Fragment) -> Fragment:  # type: ignore[override]
        return Fragment(self.code + other.code, self.empty and other.empty)


def _either(first: Fragment, second: Fragment) -> Fragment:
    fork = Step("either", 1, len(first.code) + 2)
    over = Step("jump", len(second.code) + 1)
    return Fragment((fork, *first.code, over, *second.code), first.empty or second.empty)


def _repeated(part: Fragment, least: int, most: int | None, *, lazy: bool) -> Fragment:
    """Repeat a part; as often as can be, or where `lazy` as seldom."""
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
    """A pattern in Oniguruma's syntax, as the `tokenizers` library reads it, as a program.

    It holds classes of characters, groups, choices, repeats (as long or as short as can be; of one class also without
    giving back), a look ahead at one character, ends of lines and of the text, and ASCII letters in any case. All else
    is NotRead.
    """

    def __init__(self, pattern: str, runtime: str = "tokenizers") -> None:
        self._pattern = pattern
        self._runtime = runtime
        self._at = 0
        self._depth = 0
        self.classes: list[str] = []  # what one character can be, each as a pattern of its own
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
        """Read texts of ASCII letters, of which none may be one character together, as "st" is in ﬆ."""
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
        """Read what stands for one character, and return the number of its class."""
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
        """Go on behind a sign, where it stands at this place; return whether it does."""
        stands = self._pattern.startswith(sign, self._at)
        self._at += len(sign) * stands
        return stands

    def _close(self) -> None:
        if not self._takes(")"):
            raise NotRead(f"no ')' at character {self._at}")


MOST_STEPS = 20_000  # of one state by one class of characters; real patterns take some thousands

Threads = tuple[int, ...]  # instructions, the one that is preferred first


class Cuts:
    """Decide whether each split of a text by a pattern has a border inside given characters.

    A text is split where matches begin and end: a match is searched for from the end of the one before, at each
    character in turn until there is one; at each the engine takes the first way through the pattern that leads to a
    match. Some characters, ``b``, are *whole* in a text if no match begins or ends between two of them. Then one match
    holds all of them, or no match holds any.

    **One match.** It begins at or before ``b``, at the end of some left part ``u``: the text is ``t u' b v``, and
    matching begins before ``u'``. As the pattern looks at nothing on the left, the text ``u' b v`` is matched in the
    same way from its beginning. So some text keeps ``b`` whole in one match exactly if there are ``u'`` and ``v``
    such that the match at the beginning of ``u' b v`` ends at or behind the end of ``b``.
    The ways of the engine are followed all at once, in the order in which it prefers them [1]_: a state is the list
    of instructions that wait for the next character. One of a class of characters that the pattern cannot tell apart
    leads to the next state; a way that has come to a match ends those behind it. There are finitely many lists, and
    all that any ``u'`` leads to are found by trying every class in every state. From all of them at once the
    characters of ``b`` are followed. If no list is left with anything that waits, no match reaches the end of ``b``,
    whatever ``u'`` and ``v`` are.

    **No match.** There is a match at each character of a class in `_sure`, whatever follows: no text leads from there
    to its end without a match on its way. So no text leaves such a character outside of all matches, and ``b``
    that holds one cannot be whole in that way. Both together are the proof.

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
        self._n = len(examples)  # classes; the number behind them stands for the end of the text
        self._holds = [[*table[examples].tolist(), False] for table in tables]
        # Two states by number: nothing waits any more; and the beginning.
        self._next = [[0] * self._n]  # of each state by class
        self._ends = [[False] * (self._n + 1)]  # a match ends before this class, or the text's end
        self._explore()
        unsure = self._unsure()
        self._sure = {n for n in range(self._n) if self._next[1][n] not in unsure}
        self._followed = functools.cache(self._follow)

    def always(self, characters: Iterable[np.ndarray]) -> bool:
        """Return whether it is proved that every split of every text cuts between two of some characters.

        `characters` holds the code points that each of them can be; it is decided for all of these together.
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
        """Find every state that texts lead to, and where each class leads from it."""
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
        """Follow the ways in order by one class, or the end; return what waits behind it, and if one matched before."""
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
            step = self._code[at]
            if step.kind == "either":
                stack += [at + step.b, at + step.a]
            elif step.kind == "jump":
                stack.append(at + step.a)
            elif step.kind == "peek":
                passes = step.at_end if symbol == self._n else self._holds[step.a][symbol] is step.within
                stack += [at + 1] if passes else []
            elif self._holds[step.a][symbol]:
                behind.append(at + 1)
        return tuple(behind), False


@functools.cache
def code_points() -> np.ndarray:
    """Return code points among which is one of each kind that a pattern can tell apart, ascending, uint32.

    These are the first four planes and the ends of the others. In planes 4 to 13 no character is assigned, and 15 and
    16 are for private use, so that properties tell apart the last two of a plane at most, as they do in the first;
    plane 14 holds tags and selectors within its first 4,096. No pattern that is read names one of them by itself.
    """
    wanted = np.zeros((17, PLANE), bool)
    wanted[:4] = True
    wanted[4:, :16] = wanted[4:, -16:] = True
    wanted[14, :4096] = True
    wanted.ravel()[SURROGATES] = False
    return np.flatnonzero(wanted).astype("<u4")


@functools.lru_cache(128)
def members(pattern: str, runtime: str = "tokenizers") -> np.ndarray:
    """Return for each of `code_points` whether the engine's pattern of one character matches it, bool.

    The engine that runs the tokenizer is asked, so that its own Unicode tables count: others are of other versions.
    """
    from tokenizers import Regex, decoders

    codes = code_points()
    text = codes.tobytes().decode("utf-32-le")
    try:
        if runtime == "tiktoken":
            return _among(codes, _matched_by_tiktoken(pattern, text))
        return ~_among(codes, decoders.Replace(Regex(f"(?:{pattern})+"), "").decode([text]))
    except Exception as error:  # what the libraries raise has no class of its own
        raise NotRead(str(error)) from None


def _matched_by_tiktoken(pattern: str, text: str) -> str:
    import tiktoken

    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return bytes(encoding.encode_ordinary(text)).decode()


def _among(codes: np.ndarray, text: str) -> np.ndarray:
    return np.isin(codes, np.frombuffer(text.encode("utf-32-le"), "<u4"), kind="table")
