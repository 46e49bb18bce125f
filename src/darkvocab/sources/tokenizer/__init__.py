"""Tokenizers: which ids a text becomes, by the library that runs it; what each token stands for; the rules behind."""

from .gguf import from_gguf as from_gguf
from .opening import open_tokenizer as open_tokenizer
from .opening import tokenizer_files as tokenizer_files
from .opening import tokenizer_of as tokenizer_of
from .rules import by_rules as by_rules
from .rules import parts as parts
from .tokenizer import BYTE_LEVEL as BYTE_LEVEL
from .tokenizer import BYTE_TOKEN as BYTE_TOKEN
from .tokenizer import Encoded as Encoded
from .tokenizer import Piece as Piece
from .tokenizer import Pieces as Pieces
from .tokenizer import Spelling as Spelling
from .tokenizer import Tokenizer as Tokenizer
from .tokenizer import in_a_line as in_a_line
from .tokenizer import is_unicode as is_unicode
