"""What a token's text says by itself: its script, and whether it is one of a family of reserved names."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable

# Any of these words, in brackets or pipes and with a number, names a token that was held in reserve: [unused5],
# <|reserved_special_token_7|>, <extra_id_3>, <|placeholder1|>, <SPECIAL_12>, <｜place▁holder▁no▁3｜>, >>UNUSED_1<<.
_WORDS = r"unused|reserved|extra|place\W?holder|dummy|made\W?up|pad|padding|filler|spare|blank|empty|unk|special|control|custom"
_IN_BRACKETS = re.compile(rf"[<\[{{|>].*(?<![a-z])(?:{_WORDS})(?![a-z]).*[>\]}}|<]\W?", re.IGNORECASE | re.DOTALL)
# These say it without brackets, too: madeupword0001.
_BARE = re.compile(r"\W?(?:unused|reserved|place\W?holder|dummy|made\W?up)(?:\W?(?:word|token))?[\W_]?[0-9]+", re.IGNORECASE)
_NUMBER = re.compile("[0-9]+")
LONGEST_NAME = 100  # characters
FAMILY = 3  # names that differ in their number only, from which on they are a family


def reserved_patterns(texts: Iterable[str]) -> dict[str, str]:
    """Texts that are names of tokens in reserve, and the pattern of each: ``[unused12]`` is ``[unused#]``.

    A name in reserve holds a number and, as a word of its own, one of: unused, reserved, extra, placeholder, dummy,
    madeup, pad, padding, filler, spare, blank, empty, unk, special, control, custom; and stands in brackets, pipes or
    angles, where it is not one of the plainest alone with its number (unused, reserved, placeholder, dummy, madeup, each
    also with -word or -token). And at least three texts differ from each other in the number only. So `<0x41>`, `1999`,
    `##12`, `<2024>` and `iPad2` are none.

    Examples
    --------
    >>> reserved_patterns(["[unused0]", "[unused1]", "[unused2]", "[PAD]", "1998", "1999", "2000"])
    {'[unused0]': '[unused#]', '[unused1]': '[unused#]', '[unused2]': '[unused#]'}
    """
    families = defaultdict(list)
    for text in texts:
        if text.isalpha() or len(text) > LONGEST_NAME or not _NUMBER.search(text):
            continue
        if _IN_BRACKETS.fullmatch(text) or _BARE.fullmatch(text):
            families[_NUMBER.sub("#", text)].append(text)
    return {text: pattern for pattern, family in families.items() if len(family) >= FAMILY for text in family}


@functools.cache
def _script(character: str) -> str | None:
    from fontTools import unicodedata

    code = unicodedata.script(character)
    return None if code in ("Zyyy", "Zinh", "Zzzz") else unicodedata.script_name(code)


def script_of(text: str) -> str:
    """Unicode script of a text's letters and signs: Latin, Han, ...; "Mixed" of several, "Common" of none.

    Characters that many scripts share (digits, punctuation, symbols, combining marks) do not count.

    Examples
    --------
    >>> [script_of(text) for text in (" the", "劉", "μm", "2024", "さくら", "桜の")]
    ['Latin', 'Han', 'Mixed', 'Common', 'Hiragana', 'Mixed']
    """
    if text.isascii():
        return "Latin" if text.upper() != text.lower() else "Common"
    scripts = {script for script in map(_script, set(text)) if script}
    return "Mixed" if len(scripts) > 1 else scripts.pop() if scripts else "Common"
