"""Small vocabularies as GGUF files hold them, of each model that llama.cpp knows."""

import ggufs

from darkvocab.sources.tokenizer import BYTE_LEVEL

ALPHABET = [chr(code) for code, _ in sorted(BYTE_LEVEL.items(), key=lambda pair: pair[1])]  # by byte
CONTROL, USER_DEFINED, UNUSED, BYTE = 3, 4, 5, 6
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def of(model, tokens, types=None, scores=None, merges=None, **others):
    """Values of a header; `others` by their names after `tokenizer.ggml.`, each (kind, value), or a text."""
    values = {
        "model": ("text", model),
        "tokens": ("text", list(tokens)),
        "token_type": ("i32", types),
        "scores": ("f32", scores),
        "merges": ("text", merges),
        **{key: value if isinstance(value, tuple) else ("text", value) for key, value in others.items()},
    }
    header = [("general.architecture", ggufs.value("text", "llama"))]
    return header + [
        (f"tokenizer.ggml.{key}", ggufs.value(kind, value))
        for key, (kind, value) in values.items()
        if value is not None
    ]


def byte_level(merges, more=(), pre="gpt-2", special=(), **others):
    """256 bytes, what is merged (pairs with a space between), further tokens, and control tokens."""
    tokens = [*ALPHABET, *dict.fromkeys(pair.replace(" ", "", 1) for pair in merges), *more, *special]
    types = [1] * (len(tokens) - len(special)) + [CONTROL] * len(special)
    return of("gpt2", tokens, types, merges=list(merges), pre=pre, **others)


def sentencepiece(scored, **others):
    """<unk>, <s>, </s>, 256 bytes, and pieces with scores."""
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *scored]
    types = [2, CONTROL, CONTROL, *[BYTE] * 256, *[1] * len(scored)]
    return of("llama", tokens, types, [0.0] * 259 + list(scored.values()), **others)


def bert(words, **others):
    tokens = ["[PAD]", "[UNK]", *words]
    return of("bert", tokens, [CONTROL, CONTROL] + [1] * len(words), unknown_token_id=("u32", 1), **others)


def t5(scored, types=None, **others):
    tokens = ["<pad>", "</s>", "<unk>", *scored]
    types = [CONTROL, CONTROL, 2, *(types or [1] * len(scored))]
    return of("t5", tokens, types, [0.0] * 3 + list(scored.values()), **others)
