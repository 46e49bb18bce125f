"""Patterns of pre-tokenizers, read into programs: classes of characters, choices, repeats and looks ahead."""

from __future__ import annotations

import functools
import itertools
import re
from typing import NamedTuple

import numpy as np

# What ByteLevel of the `tokenizers` library splits by, as GPT-2 does (byte_level.rs).
BYTE_LEVEL_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SURROGATES = slice(0xD800, 0xE000)  # are in no text
PLANE = 0x10000
LONGEST = 2000  # characters of a pattern, instructions of a program
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


class Part(NamedTuple):
    """A part of a pattern, and whether it can match without a character."""

    code: tuple[Step, ...]
    empty: bool

    def __add__(self, other: Part) -> Part:  # type: ignore[override]
        return Part(self.code + other.code, self.empty and other.empty)


def _either(first: Part, second: Part) -> Part:
    fork = Step("either", 1, len(first.code) + 2)
    over = Step("jump", len(second.code) + 1)
    return Part((fork, *first.code, over, *second.code), first.empty or second.empty)


def _repeated(part: Part, least: int, most: int | None, *, lazy: bool) -> Part:
    """Repeat a part; as often as can be, or where `lazy` as seldom."""
    if part.empty or len(part.code) * max(least, most or 0) > LONGEST:
        raise NotRead("a repeat of what may be empty, or of too much")
    length = len(part.code)
    result = Part(part.code * least, least == 0)

    def once_more_or(behind: int) -> tuple[Step, ...]:
        return Step("either", *((behind, 1) if lazy else (1, behind))), *part.code

    if most is None:
        return result + Part((*once_more_or(length + 2), Step("jump", -length - 1)), True)
    for n in range(most - least, 0, -1):
        result += Part(once_more_or(n * (length + 1)), True)
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
        if len(pattern) > LONGEST or _CODED.search(pattern) or max(pattern, default="") >= chr(4 * PLANE):
            raise NotRead("too long, or with characters by numbers")
        whole = self._choice()
        if self._at < len(pattern) or whole.empty or len(whole.code) > LONGEST:
            raise NotRead(f"character {self._at}, or matches of nothing")
        self.code = whole.code  # a match ends behind its last instruction

    def _choice(self) -> Part:
        parts = [self._row()]
        while self._takes("|"):
            parts.append(self._row())
        return functools.reduce(lambda later, part: _either(part, later), reversed(parts))

    def _row(self) -> Part:
        row = Part((), True)
        after_any_case = False
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            is_any_case = _ANY_CASE.match(self._pattern, self._at)
            if is_any_case and after_any_case:
                raise NotRead("letters in any case that may join others")
            row += self._repeat(self._item())
            after_any_case = bool(is_any_case)
        return row

    def _item(self) -> Part:
        if any_case := _ANY_CASE.match(self._pattern, self._at):
            self._at = any_case.end()
            return self._in_any_case(any_case[1].split("|"))
        if (within := self._takes("(?=")) or self._takes("(?!"):
            peek = Step("peek", self._one(), within=within, at_end=not within)
            self._close()
            return Part((peek,), True)
        if self._takes(r"\z"):
            return Part(tuple(Step("peek", self._class(one), at_end=True) for one in (r"\s", r"\S")), True)
        if self._takes("$"):
            return Part((Step("peek", self._class(r"\n"), within=True, at_end=True),), True)
        if self._takes("(?:") or self._takes("("):
            return self._group()
        return Part((Step("one", self._one()),), False)

    def _group(self) -> Part:
        self._depth += 1
        if self._pattern.startswith("?", self._at) or self._depth > DEEPEST:
            raise NotRead(f"the group at character {self._at}")
        inside = self._choice()
        self._close()
        self._depth -= 1
        return inside

    def _repeat(self, part: Part) -> Part:
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
        no_more = Part((Step("peek", part.code[0].a, within=False, at_end=True),), True)
        return _either(part, no_more) if sign == "?" else repeated + no_more

    def _in_any_case(self, texts: list[str]) -> Part:
        """Read texts of ASCII letters, of which none may be one character together, as "st" is in ﬆ."""
        units = [_UNIT.findall(text) for text in texts]
        if max(map(len, units)) > LONGEST_ANY_CASE:
            raise NotRead("a long text in any case")
        ends = [itertools.combinations(range(len(row) + 1), 2) for row in units]
        joined = ["".join(row[a:b]) for row, some in zip(units, ends, strict=True) for a, b in some if b > a + 1]
        if joined and members(f"(?i:{'|'.join(joined)})", self._runtime)[128:].any():
            raise NotRead("letters that are one character in another case")
        cased = [[f"(?i:{unit})" if unit.strip("[]").isalpha() else unit for unit in row] for row in units]
        rows = [Part(tuple(Step("one", self._class(unit)) for unit in row), not row) for row in cased]
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
