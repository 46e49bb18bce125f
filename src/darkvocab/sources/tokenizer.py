"""Tokenizers: the texts of a `tokenizer.json`, and the bytes that each of them stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CorruptFile, InvalidInput, MissingFile, machine_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")

# Numbers of the types of tokens in a GGUF file (llama.h).
UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5


def _byte_level() -> dict[int, int]:
    """GPT-2's alphabet: the character that stands for each byte, for `str.translate` into Latin-1."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(plain))
    return {**{byte: byte for byte in plain}, **{256 + n: byte for n, byte in enumerate(others)}}


BYTE_LEVEL = _byte_level()
# A character of Latin-1 that stands for no byte must not pass for one.
_FROM_BYTE_LEVEL = {**{code: 0xFFFD for code in range(256) if code not in BYTE_LEVEL}, **BYTE_LEVEL}


class TokenTexts(dict[int, str]):
    """Texts of tokens by id, and what a GGUF file says of them: not all that makes tokens of a text."""

    def __init__(self, texts: Mapping[int, str], model: str = "", types: Mapping[int, int] | None = None) -> None:
        super().__init__(texts)
        self.model = model  # as the file names it: gpt2, llama, bert, t5, ...
        self.types = types or {}  # by id, numbers as llama.h has them


@machine_errors()
def load_tokenizer(path: Path) -> Tokenizer:
    """Open a `tokenizer.json` with the `tokenizers` library; MissingFile or CorruptFile if it cannot."""
    from tokenizers import Tokenizer

    if not path.is_file():
        raise MissingFile(f"no tokenizer at {str(path)!r}; give a tokenizer.json, or --tokenizer none")
    try:
        return plain(Tokenizer.from_file(str(path)), copy=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and its panics are not even that
        raise CorruptFile(
            f"{path}: not a tokenizer that can be read ({error}); --tokenizer none goes without"
        ) from None


def plain(tokenizer: Tokenizer, *, copy: bool = True) -> Tokenizer:
    """Return a tokenizer that encodes every text in full and always alike: no truncation, no padding, no dropout.

    The same one where it does already; else a copy, or where `copy` is false the same one, changed. One that cannot be
    copied, since a part of it is written in Python, is an InvalidInput.
    """
    chances = [name for name in ("dropout", "alpha", "nbest_size") if getattr(tokenizer.model, name, None)]
    if not (tokenizer.truncation or tokenizer.padding or chances):
        return tokenizer
    if copy:
        try:
            tokenizer = type(tokenizer).from_str(tokenizer.to_str())
        except Exception as error:  # what the library raises has no class of its own
            raise InvalidInput(
                f"the tokenizer truncates, pads or encodes by chance, and cannot be copied without ({error}); "
                "call no_truncation() and no_padding() on it, and set its model's dropout to None"
            ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for name in chances:
        setattr(tokenizer.model, name, None)
    return tokenizer


def texts_by_id(tokenizer: Tokenizer | dict[int, str]) -> dict[int, str]:
    """Return the text of every token id, ascending; where several texts have one id, the last in alphabetical order."""
    if isinstance(tokenizer, dict):
        return tokenizer
    return dict(zip(*_every(tokenizer), strict=True))


def _every(tokenizer: Tokenizer) -> tuple[list[int], list[str]]:
    n_texts = tokenizer.get_vocab_size(with_added_tokens=True)
    named = [text for text in map(tokenizer.id_to_token, range(n_texts)) if text is not None]
    if len(named) == n_texts:  # so each of these ids has one text, and there is no other; to list all takes longer
        return list(range(n_texts)), named
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    texts = sorted(sorted(vocabulary), key=vocabulary.__getitem__)
    return [vocabulary[text] for text in texts], texts


def parts(component: Any) -> list[dict[str, Any]]:
    """Return a normaliser, pre-tokenizer or decoder as the JSON objects of its parts, sequences laid out.

    A component written in Python has no JSON: it is one part of type `Custom`.
    """
    if component is None:
        return []
    try:
        state = json.loads(component.__getstate__())
    except Exception:  # what the library raises has no class of its own
        return [{"type": "Custom"}]
    simple = []
    open_ = [state]
    while open_:
        part = open_.pop()
        inner = next((part[key] for key in ("normalizers", "pretokenizers", "decoders") if key in part), None)
        if inner is None:
            simple.append(part)
        else:
            open_.extend(reversed(inner))
    return simple


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """Marks by which a tokenizer writes in a token's text which bytes the token stands for."""

    byte_level: bool = False  # each character stands for a byte, as GPT-2 has it
    space: str = ""  # stands for a space, as ▁ does
    before: str = ""  # begins a piece that continues a word, as ## does
    after: str = ""  # ends a piece that ends a word, as </w> does
    byte_tokens: bool = False  # <0x41> stands for a byte

    @classmethod
    def of(cls, tokenizer: Tokenizer | TokenTexts) -> Spelling:
        """Return the spelling of a tokenizer, by its model and decoder, else by what comes before the model."""
        if isinstance(tokenizer, TokenTexts):
            return {
                "gpt2": cls(byte_level=True),
                "llama": cls(space="\u2581", byte_tokens=True),
                "t5": cls(space="\u2581"),
                "bert": cls(before="\u2581"),  # here it begins a piece that begins a word, and stands for nothing
            }.get(tokenizer.model, cls())
        model = tokenizer.model
        kind = type(model).__name__
        decoder = parts(tokenizer.decoder)
        writers = [*parts(tokenizer.pre_tokenizer), *parts(tokenizer.normalizer)]
        if any(part["type"] == "ByteLevel" for part in [*decoder, *writers]):
            return cls(byte_level=True, after=getattr(model, "end_of_word_suffix", None) or "")
        byte_tokens = getattr(model, "byte_fallback", False)
        if kind == "Unigram" and tokenizer.token_to_id("<0x00>") is not None:
            byte_tokens = bool(json.loads(model.__getstate__()).get("byte_fallback"))
        return cls(
            space=next(filter(None, [*map(_space_read, decoder), *map(_space_written, writers)]), ""),
            before=getattr(model, "continuing_subword_prefix", None) or "",
            after=getattr(model, "end_of_word_suffix", None) or "",
            byte_tokens=byte_tokens,
        )

    def bytes_of(self, text: str) -> bytes:
        """Return the bytes that a token of this text stands for.

        Examples
        --------
        >>> Spelling(byte_level=True).bytes_of("Ġthe"), Spelling(before="##").bytes_of("##ing")
        (b' the', b'ing')
        >>> Spelling(space="▁", byte_tokens=True).bytes_of("<0xE4>")
        b'\\xe4'
        """
        if self.byte_level:
            if self.after and text != self.after:
                text = text.removesuffix(self.after)
            try:
                return text.translate(_FROM_BYTE_LEVEL).encode("latin-1")
            except UnicodeEncodeError:  # no text of this alphabet
                return text.encode()
        if self.byte_tokens and (byte := BYTE_TOKEN.fullmatch(text)):
            return bytes.fromhex(byte[1])
        for mark in (self.before, self.after):  # a text that is nothing but the mark stands for itself
            if mark and text != mark:
                text = text.removeprefix(mark) if mark is self.before else text.removesuffix(mark)
        return (text.replace(self.space, " ") if self.space else text).encode()


def _space_read(part: dict[str, Any]) -> str:
    """Return what a part of a decoder takes for a space; "" where it does not say."""
    if part["type"] == "Replace" and part["content"] == " ":
        return str(part["pattern"].get("String", ""))
    return _space_written(part) if part["type"] == "Metaspace" else ""


def _space_written(part: dict[str, Any]) -> str:
    """Return what a part of a normaliser or pre-tokenizer writes for a space; "" where it does not say."""
    if part["type"] == "Replace" and part["pattern"].get("String") == " ":
        return str(part["content"])
    return str(part["replacement"]) if part["type"] == "Metaspace" else ""


class Piece(NamedTuple):
    """A text of a tokenizer: its token, and the bytes it stands for."""

    token: int
    text: str
    data: bytes
    body: str | None  # the bytes as text; None where they are no whole UTF-8
    added: bool  # cut out of a text before the model sees it


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Every text of a tokenizer by id and text, in columns: so many objects would keep the garbage collector busy."""

    token: list[int]
    text: list[str]
    data: list[bytes]
    body: list[str | None]
    added: set[str]

    @classmethod
    def of(cls, tokenizer: Tokenizer | TokenTexts, spelling: Spelling) -> Pieces:
        if isinstance(tokenizer, TokenTexts):
            token, text = list(tokenizer), list(tokenizer.values())
            kinds = (UNKNOWN, CONTROL, USER_DEFINED)
            added = {held for n, held in tokenizer.items() if tokenizer.types.get(n) in kinds}
        else:
            token, text = _every(tokenizer)
            added = {one.content for one in tokenizer.get_added_tokens_decoder().values()}
        data = [held.encode() if held in added else spelling.bytes_of(held) for held in text]
        return cls(token=token, text=text, data=data, body=list(map(decoded, data)), added=added)

    def __len__(self) -> int:
        return len(self.token)

    def __getitem__(self, n: int) -> Piece:
        text = self.text[n]
        return Piece(self.token[n], text, self.data[n], self.body[n], text in self.added)


def decoded(data: bytes) -> str | None:
    """Return bytes as text; None where they are no whole UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
