"""Patterns that cut a text into words before BPE sees it, of vocabularies whose files do not hold them."""

from __future__ import annotations

import re

# Letters are upper case, title case, modifiers and others, or lower case; marks go with both.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BEFORE, _SIGNS = r"[^\r\n\p{L}\p{N}]?", r" ?[^\s\p{L}\p{N}]+"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"

# Of OpenAI's, as tiktoken has them (tiktoken_ext/openai_public.py).
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
    r"\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
O200K = (
    rf"{_BEFORE}{_UPPER}*{_LOWER}+{_ENDING}?|{_BEFORE}{_UPPER}+{_LOWER}*{_ENDING}?|"
    rf"\p{{N}}{{1,3}}|{_SIGNS}[\r\n/]*|{_SPACES}"
)
# Of Meta's and Alibaba's, as the code beside their models has them.
LLAMA3 = rf"{_ENDING}|{_BEFORE}\p{{L}}+|\p{{N}}{{1,3}}|{_SIGNS}[\r\n]*|{_SPACES}"
QWEN = rf"{_ENDING}|{_BEFORE}\p{{L}}+|\p{{N}}|{_SIGNS}[\r\n]*|{_SPACES}"
QWEN3_5 = rf"{_ENDING}|{_BEFORE}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"


def for_oniguruma(pattern: str) -> str | None:
    """Return a pattern of tiktoken's engine for that of the `tokenizers` library; None where they may differ.

    There ``{1,3}+`` repeats what is repeated, where here it gives nothing back, which is the same to these patterns;
    and ``$`` ends a line, where here it ends the text.
    """
    known = pattern.replace("{1,3}+", "{1,3}").replace("$", r"\z") if pattern in (GPT2, CL100K) else pattern
    return None if re.search(r"\{[0-9]+,?[0-9]*\}\+|(?<![\\\[])[$^]", known) else known
