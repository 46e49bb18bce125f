"""Tokenizers of GGUF files: texts and types of tokens, as `tokenizer.ggml.*` has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..tensors import File
from .texts import Pieces, Spelling
from .tokenizer import Tokenizer

# Numbers of the types of tokens (llama.h).
UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5

SPELLINGS = {
    "gpt2": Spelling(byte_level=True),
    "llama": Spelling(space="\u2581", byte_tokens=True),
    "t5": Spelling(space="\u2581"),
    "bert": Spelling(before="\u2581"),  # here it begins a piece that begins a word, and stands for nothing
}


def from_gguf(metadata: Mapping[str, Any], file: File | None = None) -> Tokenizer | None:
    """Return the tokenizer of a GGUF file by the metadata of its header; None where that has no texts.

    Texts that converters give to rows for which the tokenizer has none are left out.
    """
    model, texts, types = (metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "tokens", "token_type"))
    named = dict(enumerate(texts)) if isinstance(texts, list) else {}
    kinds = dict(enumerate(types)) if isinstance(types, list) and len(types) == len(named) else {}
    for token, kind in kinds.items():
        if kind == UNUSED and named[token] == f"[PAD{token}]":
            del named[token]
    if not named:
        return None
    model = model if isinstance(model, str) else ""
    spelling = SPELLINGS.get(model, Spelling())
    text = list(named.values())
    added = {n for n, token in enumerate(named) if kinds.get(token) in (UNKNOWN, CONTROL, USER_DEFINED)}
    data = [held.encode() if n in added else spelling.bytes_of(held) for n, held in enumerate(text)]
    return Tokenizer(
        runtime="llama.cpp",
        model=model,
        pieces=Pieces.of(list(named), text, data, added),
        spelling=spelling,
        cannot_encode="the file holds the tokens' texts, but not all that makes tokens of a text",
        file=file,
    )
