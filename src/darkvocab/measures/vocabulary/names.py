"""Facts of a token's text: its script, and whether it is a reserved name."""

import functools
import re
from collections import defaultdict
from collections.abc import Iterable

from fontTools import unicodedata

# Words that, in brackets and with a number, make a reserved name: [unused5], <|reserved_special_token_7|>,
# <extra_id_3>, <|placeholder1|>, <SPECIAL_12>, [control_8], >>UNUSED_1<<, DeepSeek's place_holder_no_3.
PLAIN = (r"unused", r"reserved", r"place\W?holder", r"dummy", r"made\W?up")  # need no brackets: madeupword0001
BRACKETED = (*PLAIN, *"extra pad padding filler spare blank empty unk special control custom".split())
_BRACKETED = re.compile(rf"[<\[{{|>].*(?<![a-z])(?:{'|'.join(BRACKETED)})(?![a-z]).*[>\]}}|<]\W?", re.I | re.S)
_UNBRACKETED = re.compile(rf"\W?(?:{'|'.join(PLAIN)})(?:\W?(?:word|token))?[\W_]?[0-9]+", re.I)
_NUMBER = re.compile("[0-9]+")
LONGEST_NAME = 100  # characters
FAMILY = 3  # names that differ in their numbers only


def reserved_patterns(texts: Iterable[str]) -> dict[str, str]:
    """Return the texts that are reserved names, and the pattern of each: ``[unused#]`` for ``[unused12]``.

    A reserved name holds a number and a word of `PLAIN`, or in brackets, angles or pipes one of `BRACKETED`; and at
    least three texts differ from each other only in their numbers. So `<0x41>`, `1999`, `##12`, `<2024>`, `iPad2` and
    `extra1` are none.

    Examples
    --------
    >>> reserved_patterns(["[unused0]", "[unused1]", "[unused2]", "[PAD]", "1998", "1999", "2000"])
    {'[unused0]': '[unused#]', '[unused1]': '[unused#]', '[unused2]': '[unused#]'}
    """
    families = defaultdict(list)
    for text in texts:
        if text.isalpha() or len(text) > LONGEST_NAME or not _NUMBER.search(text):
            continue
        if _BRACKETED.fullmatch(text) or _UNBRACKETED.fullmatch(text):
            families[_NUMBER.sub("#", text)].append(text)
    return {text: pattern for pattern, family in families.items() if len(family) >= FAMILY for text in family}


@functools.cache
def _script(character: str) -> str | None:
    code = unicodedata.script(character)
    return None if code in ("Zyyy", "Zinh", "Zzzz") else unicodedata.script_name(code)


def script_of(text: str) -> str:
    """Return the Unicode script of a text's letters and signs: Latin, Han, ...; "Mixed" of several, "Common" of none.

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
