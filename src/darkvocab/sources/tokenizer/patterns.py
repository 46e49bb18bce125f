"""Patterns that cut a text into words before BPE sees it, of vocabularies whose files do not hold them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

HELD = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
PATTERNS: dict[str, str] = HELD["patterns"]


def for_oniguruma(pattern: str) -> str | None:
    """Return a pattern of tiktoken's engine for that of the `tokenizers` library; None where they may differ.

    There ``{1,3}+`` repeats what is repeated, where here it gives nothing back, which is the same to these patterns;
    and ``$`` ends a line, where here it ends the text.
    """
    known = (
        pattern.replace("{1,3}+", "{1,3}").replace("$", r"\z")
        if pattern in (PATTERNS["GPT2"], PATTERNS["CL100K"])
        else pattern
    )
    return None if re.search(r"\{[0-9]+,?[0-9]*\}\+|(?<![\\\[])[$^]", known) else known
