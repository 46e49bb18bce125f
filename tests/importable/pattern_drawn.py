"""Patterns of pre-tokenizers: those of models, and made-up ones of all that is read in them, drawn by lot."""

from darkvocab.measures.vocabulary.pattern import BYTE_LEVEL_PATTERN

ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PATTERNS = {
    "gpt2": BYTE_LEVEL_PATTERN,
    "qwen": rf"{ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}",
    "llama3": rf"{ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}",
    "o200k": (
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDINGS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDINGS}?|"
        rf"\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"
    ),
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
        r"\s++\z|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    "deepseek": (
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
        rf" ?[\p{{P}}\p{{S}}]+[\r\n]*|{SPACES}"
    ),
}
CHARACTERS = "aB1 '\n"
_ONE = ["a", "B", "1", " ", "'", r"\n", r"\p{L}", r"\p{N}", r"\s", r"\S", r"[^\s\p{L}]", "[aB]", "[^a]", ".", r"\w"]
_AHEAD = [r"(?!\S)", "(?=a)", r"(?!\s)", "$", r"\z", "(?!B)"]
_REPEATED = ["", "", "", "*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "+?", "??", "{1,2}?"]
_NOTHING_BACK = ["*+", "++", "?+"]
_ANY_CASE = ["(?i:'a|b)", "(?i:[ab])", "(?i:ab)?"]


def pattern(lot, depth=2):
    """A pattern of up to three choices of up to three items each."""
    return "|".join(_row(lot, depth) for _ in range(lot.choice([1, 1, 2, 3])))


def _row(lot, depth):
    items = []
    for _ in range(lot.choice([1, 2, 2, 3])):
        kind = lot.random()
        if kind < 0.12:
            items.append(lot.choice(_AHEAD))
        elif kind < 0.2 and depth:
            items.append(lot.choice(["(?:", "("]) + pattern(lot, depth - 1) + ")" + lot.choice(_REPEATED))
        elif kind < 0.25:
            items.append(lot.choice(_ANY_CASE))
        else:
            items.append(lot.choice(_ONE) + lot.choice(_NOTHING_BACK if kind < 0.4 else _REPEATED))
    return "".join(items)
