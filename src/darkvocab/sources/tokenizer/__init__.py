"""Tokenizers: which ids a text becomes, by the library that runs it; what each token stands for; the rules behind."""

from ..tensors import Source
from .gguf import from_gguf
from .huggingface import load_tokenizer
from .rules import by_rules, parts, plain
from .texts import BYTE_LEVEL, BYTE_TOKEN, Piece, Pieces, Spelling, decoded
from .tokenizer import RUNTIMES, Encoded, Tokenizer

__all__ = [
    "BYTE_LEVEL",
    "BYTE_TOKEN",
    "RUNTIMES",
    "Encoded",
    "Piece",
    "Pieces",
    "Spelling",
    "Tokenizer",
    "by_rules",
    "decoded",
    "from_gguf",
    "load_tokenizer",
    "parts",
    "plain",
    "tokenizer_of",
]


def tokenizer_of(source: Source) -> Tokenizer | None:
    """Return the tokenizer of a checkpoint: beside its weights, else in their file; None where it has none.

    Raises as `load_tokenizer`; a remote file is read now.
    """
    if source.tokenizer is not None:
        return load_tokenizer(source.tokenizer)
    if not source.metadata:
        return None
    return from_gguf(source.metadata, next((tensor.path for tensor in source.tensors.values()), None))
