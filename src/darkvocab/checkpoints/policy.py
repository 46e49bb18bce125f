"""Policy: the rules that a vocabulary is checked by, and the limits of each for a release, as TOML."""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any, Self

import polars as pl

from ..errors import InvalidInput, MissingFile
from ..measures.vocabulary import CATEGORIES
from ..text import Shown, shorten

ERROR, WARNING, OFF = "error", "warning", "off"
SEVERITIES = (ERROR, WARNING, OFF)
MOST_BYTES = 1 << 20  # of a policy file
MOST_DOTS = 1000  # in a line: tomllib takes a minute to read a key of 100,000 parts
MOST_EXEMPTIONS = 1000
MOST_PATTERNS = 200  # in all: each is matched with every token
MOST_NUMBER = (1 << 63) - 1


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Rule that a vocabulary is checked by. Its id keeps its meaning for ever; its name is its table in a policy."""

    id: str
    name: str
    one: str  # noun for what is counted
    many: str  # its plural
    counts: str  # sentence on the tokens
    why: str  # sentence on the trouble with them
    remedy: str
    bound: str = "most"  # or "least": the measured number must not be below
    limit: int | float = 0  # by default
    severity: str = WARNING  # by default
    needs: str | None = None  # the part of a scan without which it is not measured
    can_exempt: bool = True  # it has rows that can be exempt
    tokens: str = "FALSE"  # the tokens that it is about, in SQL on the columns of `check`
    first: str = "id"  # order in which they are named
    undecided: str = "FALSE"  # tokens that it may be about, but that are not decided
    guesses: bool = False  # by the weights: only a warning for tokens that the model repeats (P_max of 0.1 or more)


_HELD = tomllib.loads(Path(__file__).with_name("rules.toml").read_text("utf-8"))
_HEAD, _ALLOW, _ALLOWED = (_HELD.pop(name) for name in ("head", "about_allow", "allow"))
FACTS, SUPPRESSED, SENTENCES = (_HELD.pop(name) for name in ("facts", "suppressed", "sentences"))
RULES = tuple(Rule(name=name, **fields) for name, fields in _HELD.items())
BY_NAME = {rule.name: rule for rule in RULES}
EXEMPTING = tuple(rule.name for rule in RULES if rule.can_exempt)


def _check_known(what: str, names: Iterable[Any], known: Iterable[str]) -> None:
    """Raise InvalidInput for an unknown name, with the nearest known one, or all of them."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name)[:100], known, 1, 0.5)
            end = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"
            raise InvalidInput(f"unknown {what} {_short(name)}; {end}")


def _short(value: Any) -> str:
    return shorten(repr(value), 60)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Number that a rule allows, and the severity of more (of a `least` rule: of less)."""

    allowed: int | float
    severity: str

    def __post_init__(self) -> None:
        _check_known("severity", [self.severity], SEVERITIES)
        number = isinstance(self.allowed, (int, float)) and not isinstance(self.allowed, bool)
        if not (number and 0 <= self.allowed <= MOST_NUMBER):
            raise InvalidInput(f"a limit must be a number >= 0, got {_short(self.allowed)}")


@dataclass(frozen=True, kw_only=True)
class Exemption:
    """Tokens that are exempt from some rules: those of any of these ids, texts, patterns or categories."""

    reason: str
    rules: tuple[str, ...] = EXEMPTING
    ids: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()  # as the tokenizer names them
    patterns: tuple[str, ...] = ()  # regular expressions (of Rust's `regex`), found anywhere in the text
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise InvalidInput("reason must say why, it is empty")
        for name in self.rules:
            if name in BY_NAME and name not in EXEMPTING:
                raise InvalidInput(SENTENCES["no_rows"].format(name=name))
            _check_known("rule", [name], EXEMPTING)
        _check_known("category", self.categories, CATEGORIES)
        for token in self.ids:
            if not 0 <= token <= MOST_NUMBER:
                raise InvalidInput(f"ids must be token ids >= 0, got {_short(token)}")
        for pattern in self.patterns:
            _check_pattern(pattern)
        if not (self.ids or self.texts or self.patterns or self.categories):
            raise InvalidInput("names no tokens: give ids, texts, patterns or categories")


DEFAULT_LIMITS = {rule.name: Limit(allowed=rule.limit, severity=rule.severity) for rule in RULES}
LISTS: dict[str, type] = {"rules": str, "ids": int, "texts": str, "patterns": str, "categories": str}


def _exemption(number: int, entry: Any) -> Exemption:
    try:
        if not isinstance(entry, dict):
            raise InvalidInput(f"must be a table, got {_short(entry)}")
        _check_known("key", entry, ("reason", *LISTS))
        if not isinstance(entry.get("reason"), str):
            raise InvalidInput("needs a reason, a text that says why")
        for key, kind in LISTS.items():
            value = entry.get(key, [])
            if not isinstance(value, list) or any(type(item) is not kind for item in value):
                kinds = "numbers" if kind is int else "texts"
                raise InvalidInput(SENTENCES["not_a_list"].format(key=key, kinds=kinds, value=_short(value)))
        return Exemption(reason=entry["reason"], **{key: tuple(entry[key]) for key in LISTS if key in entry})
    except ValueError as error:
        raise InvalidInput(f"[[allow]] number {number}: {error}") from None


DEFAULT_ALLOW = tuple(_exemption(number, entry) for number, entry in enumerate(_ALLOWED, 1))


@dataclass(frozen=True, kw_only=True, repr=False)
class Policy(Shown):
    """Limits of all rules, and the exempt tokens. `Policy()` is the default one.

    Examples
    --------
    >>> policy = Policy.parse('[black-holes]\\nmost = 13')
    >>> policy.limits["black-holes"], policy.limits["dark-reachable-tokens"]
    (Limit(allowed=13, severity='error'), Limit(allowed=0, severity='error'))
    >>> Policy.parse('[black-hole]\\nmost = 13')
    Traceback (most recent call last):
        ...
    darkvocab.errors.InvalidInput: policy: unknown key 'black-hole'; did you mean 'black-holes'?
    """

    limits: Mapping[str, Limit] = field(default_factory=dict)  # by name; a rule that is not named has its default
    allow: tuple[Exemption, ...] = DEFAULT_ALLOW
    origin: str | None = None  # the file it was read from

    def __post_init__(self) -> None:
        _check_known("rule", self.limits, BY_NAME)
        n_patterns = sum(len(exemption.patterns) for exemption in self.allow)
        if len(self.allow) > MOST_EXEMPTIONS or n_patterns > MOST_PATTERNS:
            most = {"most": MOST_EXEMPTIONS, "most_patterns": MOST_PATTERNS}
            raise InvalidInput(SENTENCES["too_many"].format(n=len(self.allow), n_patterns=n_patterns, **most))
        object.__setattr__(self, "limits", {name: self.limits.get(name, DEFAULT_LIMITS[name]) for name in BY_NAME})

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a policy from a TOML file; raises MissingFile, or InvalidInput: too large, not UTF-8, or as `parse`."""
        path = Path(path)
        if not path.exists():
            raise MissingFile(f"no policy at {str(path)!r}; --print-policy prints one to start from")
        if not path.is_file():
            raise InvalidInput(f"{path}: a policy is a TOML file, this is none")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise InvalidInput(f"{path}: more than {MOST_BYTES:,} bytes, which no policy needs")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{path}: not UTF-8, which TOML is (byte {error.start:,}); save it as UTF-8") from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, origin: str | None = None) -> Self:
        """Parse a policy from TOML; keys that are missing are as in the default.

        Raises InvalidInput: not TOML, an unknown key, a value of another type or out of range.
        """
        where = origin or "policy"
        for number, line in enumerate(text.split("\n"), 1):
            if line.count(".") > MOST_DOTS:
                raise InvalidInput(f"{where}: line {number:,} has more than {MOST_DOTS:,} points; break it up")
        try:
            content = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise InvalidInput(f"{where}: not TOML ({said})") from None
        try:
            _check_known("key", content, (*BY_NAME, "allow"))
            limits = {name: _limit(BY_NAME[name], value) for name, value in content.items() if name != "allow"}
            if "allow" not in content:
                return cls(limits=limits, origin=origin)
            if not isinstance(content["allow"], list):
                raise InvalidInput("allow must be tables, each under [[allow]]")
            allow = tuple(_exemption(number, entry) for number, entry in enumerate(content["allow"], 1))
            return cls(limits=limits, allow=allow, origin=origin)
        except ValueError as error:
            raise InvalidInput(f"{where}: {error}") from None


def _limit(rule: Rule, table: Any) -> Limit:
    default = DEFAULT_LIMITS[rule.name]
    try:
        if not isinstance(table, dict):
            raise InvalidInput(f"must be a table with {rule.bound} and severity, got {_short(table)}")
        _check_known("key", table, (rule.bound, "severity"))
        allowed = table.get(rule.bound, default.allowed)
        if rule.bound == "most" and (not isinstance(allowed, int) or isinstance(allowed, bool)):
            raise InvalidInput(f"most must be a whole number >= 0, got {_short(allowed)}")
        return Limit(allowed=allowed, severity=table.get("severity", default.severity))
    except ValueError as error:
        raise InvalidInput(f"[{rule.name}] {error}") from None


def _check_pattern(pattern: str) -> None:
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        said = re.search("^(?:regex )?error: (?!regex parse)(.+)$", str(error), re.MULTILINE)
        why = f" ({said[1]})" if said else ""
        raise InvalidInput(f"no regular expression: {_short(pattern)}{why}") from None


def default_policy() -> str:
    """Return the default policy as commented TOML, to start from."""
    blocks = [_HEAD]
    for rule in RULES:
        comment = "".join(f"# {line}\n" for line in wrap(f"{rule.id}. {rule.counts} {rule.why}", 118))
        blocks.append(f'{comment}[{rule.name}]\n{rule.bound} = {rule.limit}\nseverity = "{rule.severity}"\n')
    comment = _ALLOW.format(categories=", ".join(CATEGORIES))
    for exemption in DEFAULT_ALLOW:
        rules = f"rules = {json.dumps(exemption.rules)}"  # JSON lists are TOML lists
        listed = "\n".join(wrap(rules, 118, subsequent_indent="    ", break_on_hyphens=False))
        categories = json.dumps(exemption.categories)
        blocks.append(f'{comment}[[allow]]\nreason = "{exemption.reason}"\n{listed}\ncategories = {categories}\n')
        comment = ""
    return "\n".join(blocks)
