"""Tokenizers that tiktoken runs: files of ranks (`*.tiktoken`, Meta's `tokenizer.model`) and Mistral's tekken.json.

A file of ranks has a line for each token, its bytes in base64 and its rank. The pattern that cuts a text into words is
not in it: `VOCABULARIES` has those of known vocabularies, which are recognised by their ranks.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import CorruptFile
from ..tensors import SENTENCES, File, read_object
from .rules import CONFIG, HELD, HIGHEST_ID, PATTERNS, added_beside, for_oniguruma, settings, words
from .tokenizer import BYTE_LEVEL, Encoded, Pieces, Spelling, Tokenizer, flat, in_a_line, is_unicode

if TYPE_CHECKING:
    import tokenizers

_TO_BYTE_LEVEL = {byte: chr(code) for code, byte in BYTE_LEVEL.items()}
NO_UTF8_BYTE = 0xFF  # in no UTF-8 text, so that no token holds it beside other bytes


@dataclass(frozen=True)
class Known:
    """Rules of a vocabulary that its file of ranks does not hold."""

    name: str
    pattern: str
    marks: Mapping[str, int] = field(default_factory=dict)  # special tokens, if no file beside names them
    nfc: bool = False  # normalise texts first


def _marks(listed: Mapping[str, str], numbered: list[tuple[str, int, int, int]]) -> dict[str, int]:
    """Return the ids of special tokens: of lists by their first id, and of texts with a number in them."""
    ids = {text: n for first, texts in listed.items() for n, text in enumerate(texts.split(), int(first))}
    return ids | {text.format(n): zero + n for text, zero, first, last in numbered for n in range(first, last + 1)}


VOCABULARIES = {  # by `fingerprint` of the ranks
    one["sha256"]: Known(one["name"], PATTERNS[one["pattern"]], _marks(one["marks"], one["numbered"]), one["nfc"])
    for one in HELD["vocabulary"]
}
MISTRAL_MARKS = HELD["mistral"].split()


def is_ranks(begin: bytes) -> bool:
    """Return whether this is the start of a file of ranks: base64, a space, a number, on the first line."""
    first = begin.split(b"\n", 1)[0].split()
    return len(first) == 2 and first[1].isdigit() and _unpacked(first[0]) is not None


def from_ranks(path: File, folder: Mapping[str, File]) -> Tokenizer:
    """Open a file of ranks; `tokenizer_config.json` and `added_tokens.json` of the folder name its special tokens.

    The pattern is `pat_str` of the former, else that of `VOCABULARIES`; without one the tokenizer cannot encode. Raises
    CorruptFile.
    """
    ranks = _ranks(path)
    known = VOCABULARIES.get(fingerprint(ranks))
    marks = {one.id: one.content for one in added_beside(folder) if one.id is not None}
    if known and not marks:
        marks = {token: mark for mark, token in known.marks.items()}
    pattern = settings(folder).get("pat_str") or (known.pattern if known else None)
    if not isinstance(pattern, str | None):
        raise CorruptFile(f"{folder[CONFIG]}: its pat_str is no text; give the pattern that cuts a text into words")
    return _tokenizer(path, ranks, marks, pattern, first=0, nfc=bool(known and known.nfc))


def from_tekken(path: File) -> Tokenizer:
    """Open a tekken.json of Mistral, whose ids are first special tokens, then ranks; raises CorruptFile."""
    held = read_object(path)
    config = held.get("config")
    vocab = held.get("vocab")
    wanted = ("pattern", "default_vocab_size", "default_num_special_tokens")
    pattern, size, n_marks = (config.get(name) if isinstance(config, dict) else None for name in wanted)
    if not (isinstance(pattern, str) and isinstance(vocab, list) and type(size) is int and type(n_marks) is int):
        raise CorruptFile(f"{path}: not a tekken.json: no list of tokens, or its config lacks one of {wanted}")
    if not 0 <= n_marks <= size <= len(vocab) + n_marks or n_marks > len(vocab):
        raise CorruptFile(SENTENCES["tekken_sizes"].format(path=path, size=size, special=n_marks, others=len(vocab)))
    ranks: dict[bytes, int] = {}
    for n, entry in enumerate(vocab[: size - n_marks]):
        data = _unpacked(entry.get("token_bytes")) if isinstance(entry, dict) else None
        if not data or entry.get("rank") != n or data in ranks:
            raise CorruptFile(f"{path}: entry {n:,} of its tokens is no new token of rank {n:,}")
        ranks[data] = n
    marks = {n: f"<SPECIAL_{n}>" for n in range(n_marks)}
    named = held.get("special_tokens")
    if named is None:
        named = [{"rank": n, "token_str": mark} for n, mark in enumerate(MISTRAL_MARKS[:n_marks])]
    for entry in named if isinstance(named, list) else [None]:
        token, text = (entry.get(key) for key in ("rank", "token_str")) if isinstance(entry, dict) else (None, None)
        if type(token) is not int or token not in marks or not (isinstance(text, str) and is_unicode(text)):
            raise CorruptFile(f"{path}: its special tokens are not each a text and a rank below {n_marks:,}")
        marks[token] = text
    return _tokenizer(path, ranks, marks, pattern, first=n_marks, nfc=False)


def fingerprint(ranks: Mapping[bytes, int]) -> str:
    """Return the SHA-256 of a file of these ranks, in their order, hexadecimal."""
    lines = (b"%s %d\n" % (base64.b64encode(data), rank) for data, rank in ranks.items())
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _unpacked(text: object) -> bytes | None:
    """Decode a text in base64; None where it is none."""
    if not isinstance(text, str | bytes):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


def _ranks(path: File) -> dict[bytes, int]:
    """Read the ranks of a file, ascending; CorruptFile for a wrong line, and for a repeated token or rank."""
    with path.open("rb") as file:
        lines = file.read().split(b"\n")
    ranks: dict[bytes, int] = {}
    for n, line in enumerate(lines, 1):
        parts = line.split()
        if not parts:
            continue
        data = _unpacked(parts[0])
        if len(parts) != 2 or not data or not parts[1].isdigit() or len(parts[1]) > 10 or int(parts[1]) > HIGHEST_ID:
            raise CorruptFile(f"{path}: line {n:,} is not a token in base64 and its rank; download it again")
        if data in ranks:
            raise CorruptFile(f"{path}: line {n:,} names the token of line {list(ranks).index(data) + 1:,} again")
        ranks[data] = int(parts[1])
    n_ranks = len(set(ranks.values()))
    if n_ranks < len(ranks):
        raise CorruptFile(f"{path}: {len(ranks):,} tokens have {n_ranks:,} ranks; download it again")
    return dict(sorted(ranks.items(), key=lambda item: item[1]))


def _tokenizer(
    path: File, ranks: Mapping[bytes, int], marks: Mapping[int, str], pattern: str | None, *, first: int, nfc: bool
) -> Tokenizer:
    """Return the tokenizer of ranks, whose ids begin at `first`; raises CorruptFile where they are inconsistent."""
    token = [*(rank + first for rank in ranks.values()), *marks]
    n_ids = len(set(token))
    if n_ids < len(token):
        raise CorruptFile(f"{path}: {len(token) - n_ids:,} special tokens have the id of another token")
    names = [*(data.decode("latin-1").translate(_TO_BYTE_LEVEL) for data in ranks), *marks.values()]
    marked = frozenset(range(len(ranks), len(token)))
    pieces = Pieces(
        token=token,
        text=[*(data.decode("utf-8", "backslashreplace") for data in ranks), *marks.values()],
        name=names,
        data=[*ranks, *(mark.encode() for mark in marks.values())],
        added=marked,
        silent=marked,
    )
    facts: dict[str, Any] = {"runtime": "tiktoken", "model": "BPE", "file": path, "pieces": pieces}
    facts["spelling"] = Spelling(byte_level=True)
    if pattern is None:
        known = ", ".join(one.name for one in VOCABULARIES.values())
        reason = f"the pattern that cuts a text into words is not in a file of ranks, and these are none of {known}"
        return Tokenizer(**facts, cannot_encode=f"{reason}; a tokenizer.json has it, or pat_str in a {CONFIG} beside")
    without = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if without:
        raise CorruptFile(f"{path}: no token for {len(without):,} single bytes, such as 0x{without[0]:02X}")
    vocab = dict(zip(names[: len(ranks)], token, strict=False))
    run = _encoders(path, ranks, pattern, first=first, nfc=nfc)
    return Tokenizer(**facts, **run, rules_of=lambda: _rules(vocab, pattern, nfc))


def _encoders(path: File, ranks: Mapping[bytes, int], pattern: str, *, first: int, nfc: bool) -> dict[str, Any]:
    """Return the functions `encoder` and `merges` of a `Tokenizer`; CorruptFile for a pattern that is none."""
    import tiktoken

    data = list(ranks)
    try:
        encoding = tiktoken.Encoding("", pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens={})
    except ValueError as error:  # of the engine of regular expressions
        raise CorruptFile(f"{path}: its pattern is none that tiktoken takes ({in_a_line(error)})") from None

    def encode(texts: list[str]) -> Encoded:
        if nfc:
            texts = [unicodedata.normalize("NFC", text) for text in texts]
        # tiktoken's encode_ordinary_batch starts a task for each text, which takes longer than encoding it.
        ids, text_of = flat(list(map(encoding.encode_ordinary, texts)))
        return ids + first, text_of

    def merges(pieces: list[int]) -> list[bool]:
        never = bytes([NO_UTF8_BYTE])
        return [
            encoding._encode_single_piece(data[n] + never) == [ranks[data[n]], ranks[never]] or len(data[n]) == 1
            for n in pieces
        ]

    return {"encoder": encode, "merges": merges}


def _rules(vocab: dict[str, int], pattern: str, nfc: bool) -> tokenizers.Tokenizer | None:
    """Return the rules without merges, which take seconds to derive: whole words are looked up first."""
    import tokenizers
    from tokenizers import decoders, models, normalizers

    cut = for_oniguruma(pattern)
    if cut is None:
        return None
    rules = tokenizers.Tokenizer(models.BPE(vocab, [], ignore_merges=True))
    rules.normalizer = normalizers.NFC() if nfc else None
    try:
        rules.pre_tokenizer = words([cut])
    except Exception:  # of the engine of regular expressions, which has no class of its own
        return None
    rules.decoder = decoders.ByteLevel()
    return rules
