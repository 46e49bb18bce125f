"""Rules of tokenizers whose files do not hold them: patterns, vocabularies of tiktoken, classes of transformers."""

import re
import tomllib
from pathlib import Path

HELD = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
PATTERNS: dict[str, str] = HELD["patterns"]
CLASSES = {rules: {f"{name}Tokenizer" for name in names.split()} for rules, names in HELD["classes"].items()}


def for_oniguruma(pattern: str) -> str | None:
    """Return a pattern of tiktoken's engine for that of the `tokenizers` library; None where they may differ.

    There ``{1,3}+`` repeats what is repeated, where here it gives nothing back, which is the same to these patterns;
    and ``$`` ends a line, where here it ends the text.
    """
    if pattern in (PATTERNS["GPT2"], PATTERNS["CL100K"]):
        return pattern.replace("{1,3}+", "{1,3}").replace("$", r"\z")
    return None if re.search(r"\{[0-9]+,?[0-9]*\}\+|(?<![\\\[])[$^]", pattern) else pattern
