"""Tokenizers: which ids a text becomes, by the library that runs it; what each token stands for; the rules behind."""

from .gguf import from_gguf
from .opening import open_tokenizer, tokenizer_files, tokenizer_of
from .rules import by_rules, parts
from .texts import BYTE_LEVEL, BYTE_TOKEN, Piece, Pieces, Spelling, in_a_line
from .tokenizer import Encoded, Tokenizer

__all__ = [
    "BYTE_LEVEL",
    "BYTE_TOKEN",
    "Encoded",
    "Piece",
    "Pieces",
    "Spelling",
    "Tokenizer",
    "by_rules",
    "from_gguf",
    "in_a_line",
    "open_tokenizer",
    "parts",
    "tokenizer_files",
    "tokenizer_of",
]
