"""Patterns by which llama.cpp cuts a text before BPE, as `llama_patterns.toml` has them."""

import re
import tomllib
from pathlib import Path

_HELD = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
PATTERNS: dict[str, list[str]] = _HELD["patterns"]
PATTERN_OF = {name: name for name in PATTERNS} | {
    name: of for of, names in _HELD["also"].items() for name in names.split()
}
WHOLE_WORDS_FIRST = frozenset(_HELD["whole_words_first"])
RAW = frozenset(_HELD["raw"])
SPECIAL = frozenset(_HELD["special"].split())
NEW_RANGES = re.sub(r"[0-9a-f]+", r"\\x{\g<0>}", _HELD["new"]).replace(" ", "")


def of_15_1(pattern: str) -> str:
    r"""Return a pattern whose \p{L}, \p{N} and so on hold what Unicode 15.1 has; \p{Lu} and so on are \p{L}."""
    return re.sub(r"\\([pP])\{([A-Z])[a-z]?\}", _class, pattern)


def _class(match: re.Match[str]) -> str:
    held = rf"\p{{{match[2]}}}&&[^{NEW_RANGES}]"
    return f"[{held}]" if match[1] == "p" else f"[^{held}]"
