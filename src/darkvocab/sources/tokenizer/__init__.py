"""Tokenizers: which ids a text becomes, by the library that runs it; what each token stands for; the rules behind."""

from .gguf import from_gguf as from_gguf
from .opening import open_tokenizer as open_tokenizer
from .opening import tokenizer_files as tokenizer_files
from .opening import tokenizer_of as tokenizer_of
from .rules import by_rules as by_rules
from .rules import parts as parts
from .texts import BYTE_LEVEL as BYTE_LEVEL
from .texts import BYTE_TOKEN as BYTE_TOKEN
from .texts import Piece as Piece
from .texts import Pieces as Pieces
from .texts import Spelling as Spelling
from .texts import in_a_line as in_a_line
from .tokenizer import Encoded as Encoded
from .tokenizer import Tokenizer as Tokenizer
