"""Tokenizers that SentencePiece runs (`tokenizer.model`, `spiece.model` and so on), and their protocol buffer.

The buffer is parsed in full and checked, since the library trusts parts of it. Its fields are defined in
sentencepiece_model.proto of https://github.com/google/sentencepiece.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...errors import CorruptFile, InvalidInput
from ..tensors import SENTENCES, File
from .rules import CLASSES, added_beside, class_name
from .tokenizer import Encoded, Pieces, Spelling, Tokenizer, flat, in_a_line

if TYPE_CHECKING:
    import sentencepiece
    import tokenizers

SPACE = "\u2581"
SHIFTED = "XLMRobertaTokenizer"  # fairseq's ids: <s>, <pad>, </s> and <unk> first
VARINT, FIXED64, BYTES, _, _, FIXED32 = range(6)  # wire types
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
MODEL_KINDS = {1: "Unigram", 2: "BPE", 3: "Word", 4: "Char"}
BARE = bytes([3 << 3, 0, 4 << 3, 0, 5 << 3, 0])  # normalisation that keeps spaces
TRIE_BLOCK = 256  # units of a trie that one unit can lead to


@dataclass(frozen=True, kw_only=True)
class ModelProto:
    """Pieces and rules of a SentencePiece model."""

    kind: str  # one of `MODEL_KINDS`
    text: list[str]
    score: list[float]
    type: list[int]
    byte_fallback: bool
    charsmap: bytes  # compiled rules of normalisation
    messages: list[tuple[int, bytes]] = field(repr=False)  # fields: pieces (1), trainer (2), normalizer (3)

    def serialised(self, *, bare: bool = False) -> bytes:
        """Return a protocol buffer of the checked fields, or a `bare` one without normalisation."""
        return b"".join(sized(n, BARE if bare and n == 3 else message) for n, message in self.messages)


def from_sentencepiece(path: File, folder: Mapping[str, File]) -> Tokenizer:
    """Open a SentencePiece model; `tokenizer_config.json` and `added_tokens.json` of the folder add tokens.

    Raises CorruptFile; InvalidInput where the tokenizer's class gives tokens other ids than the model does.
    """
    named = class_name(folder)
    if named in CLASSES["other_ids"]:
        raise InvalidInput(SENTENCES["other_ids"].format(path=path, named=named))
    with path.open("rb") as file:
        data = file.read()
    try:
        model = read_model(data)
    except ValueError as error:  # of Unicode, too
        raise CorruptFile(f"{path}: not a SentencePiece model: {in_a_line(error)}; download it again") from None
    run = processor(path, model.serialised())
    ids = _shifted(model) if named == SHIFTED else np.arange(len(model.text))

    def encode(texts: list[str]) -> Encoded:
        every, text_of = flat(run.EncodeAsIds(texts, num_threads=2))
        return ids[every], text_of

    spelling = Spelling(space=SPACE, byte_tokens=model.byte_fallback)
    return Tokenizer(
        runtime="sentencepiece",
        model=model.kind,
        pieces=_pieces(path, model, ids.tolist(), spelling, folder),
        spelling=spelling,
        rules_of=lambda: None if named == SHIFTED else merge_rules(path, model),
        encoder=encode,
        file=path,
    )


def processor(path: File | None, data: bytes) -> sentencepiece.SentencePieceProcessor:
    import sentencepiece

    sentencepiece.set_min_log_level(3)
    run = sentencepiece.SentencePieceProcessor()
    try:
        run.LoadFromSerializedProto(data)
    except (RuntimeError, OSError) as error:
        raise CorruptFile(f"{path}: not a model that SentencePiece takes ({in_a_line(error)})") from None
    return run


def _shifted(model: ModelProto) -> np.ndarray:
    """Return the ids that XLM-RoBERTa gives the pieces: <s> 0, </s> 2, <unk> 3, all others one more."""
    first = {"<s>": 0, "</s>": 2, "<unk>": 3}
    return np.array([first.get(text, n + 1) if n < 3 else n + 1 for n, text in enumerate(model.text)])


def _pieces(path: File, model: ModelProto, ids: list[int], spelling: Spelling, folder: Mapping[str, File]) -> Pieces:
    beside = {one.id: one.content for one in added_beside(folder) if one.id is not None}
    held = zip(ids, model.text, model.type, strict=True)
    rows = [(token, text, kind) for token, text, kind in held if beside.get(token, text) == text]
    known = {token for token, _, _ in rows}
    rows += [(token, text, CONTROL) for token, text in beside.items() if token not in known]
    cut_out = (UNKNOWN, CONTROL, USER_DEFINED)
    added = {n for n, (token, _, kind) in enumerate(rows) if kind in cut_out or token in beside}
    data = [text.encode() if kind in (UNKNOWN, CONTROL) else spelling.bytes_of(text) for _, text, kind in rows]
    silent = {n for n, (_, _, kind) in enumerate(rows) if kind in (CONTROL, UNUSED)}
    texts = [text for _, text, _ in rows]
    return Pieces(token=[token for token, _, _ in rows], text=texts, name=texts, data=data, added=added, silent=silent)


def merge_rules(path: File | None, model: ModelProto) -> tokenizers.Tokenizer | None:
    """Return the model's rules for the `tokenizers` library; None where it would merge a piece alone differently.

    Of two merges into the same text SentencePiece takes the one further left, the library the one listed first.
    """
    import tokenizers
    from tokenizers import models

    if model.kind != "BPE" or len(set(model.text)) < len(model.text):
        return None
    kinds = dict(zip(model.text, model.type, strict=True))
    unknown = next((text for text, kind in kinds.items() if kind == UNKNOWN), None)
    vocab = {text: n for n, text in enumerate(model.text)}
    merges = [
        (-model.score[vocab[text]], vocab[text], text[:n], text[n:])
        for text, kind in kinds.items()
        if kind not in (UNKNOWN, CONTROL, BYTE, UNUSED)
        for n in range(1, len(text))
        if text[:n] in vocab and text[n:] in vocab
    ]
    pairs = [(one, other) for *_, one, other in sorted(merges)]
    bpe = models.BPE(vocab, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=model.byte_fallback)
    rules = tokenizers.Tokenizer(bpe)
    normal = [text for text, kind in kinds.items() if kind == NORMAL]
    alone = processor(path, model.serialised(bare=True)).EncodeAsIds(normal, num_threads=2)
    merged = ([token.id for token in rules.model.tokenize(text)] for text in normal)
    return rules if all(map(list.__eq__, merged, alone)) else None


def read_model(data: bytes) -> ModelProto:
    """Parse a model; raises ValueError."""
    pieces: list[bytes] = []
    others = {2: b"", 3: b""}
    for number, value in fields(data):
        if number == 1 and isinstance(value, bytes):
            pieces.append(value)
        elif number in others and isinstance(value, bytes):
            others[number] += value  # a repeated message is merged with the first, as protocol buffers are
    if not pieces:
        raise ValueError("it has no pieces")
    texts, scores, types = zip(*map(_piece, pieces), strict=True)
    trainer, rules = (dict(fields(others[number])) for number in (2, 3))
    kind = trainer.get(3, 1)
    if kind not in MODEL_KINDS:
        raise ValueError(f"a model of unknown type {kind!r:.20}")
    charsmap = rules.get(2, b"")
    if not isinstance(charsmap, bytes):
        raise ValueError("rules of normalisation that are no bytes")
    if charsmap:
        check_charsmap(charsmap)
    return ModelProto(
        kind=MODEL_KINDS[kind],
        text=list(texts),
        score=list(scores),
        type=list(types),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=charsmap,
        messages=[*((1, piece) for piece in pieces), *others.items()],
    )


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message; ValueError where they do not fill it exactly."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind not in (VARINT, BYTES, FIXED32, FIXED64):
            raise ValueError(f"a field of unknown kind {kind}")
        number, at = _varint(data, at) if kind in (VARINT, BYTES) else ({FIXED32: 4, FIXED64: 8}[kind], at)
        size = 0 if kind == VARINT else number
        if size > len(data) - at:
            raise ValueError(f"a field of {size:,} bytes where {len(data) - at:,} are left")
        yield key >> 3, number if kind == VARINT else data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number in groups of seven bits, and the place after it."""
    value = shift = 0
    for n in range(at, min(at + 10, len(data))):
        value |= (data[n] & 0x7F) << shift
        shift += 7
        if data[n] < 0x80:
            return value, n + 1
    raise ValueError("a number without an end")


def sized(number: int, data: bytes) -> bytes:
    """Return a field of bytes, encoded."""
    return bytes([number << 3 | BYTES]) + packed(len(data)) + data


def packed(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _piece(data: bytes) -> tuple[str, float, int]:
    """Return text, score and type of a piece."""
    size = data[1] if len(data) > 7 and data[0] == 1 << 3 | BYTES else BYTES << 7
    usual = len(data) == size + 7 and data[size + 2] == 2 << 3 | FIXED32  # a short text, a score, and no type
    held = {1: data[2 : size + 2], 2: data[size + 3 :]} if usual else dict(fields(data))
    text = held.get(1)
    score = held.get(2, bytes(4))
    kind = held.get(3, NORMAL)
    if not isinstance(text, bytes) or not text or 0 in text:
        raise ValueError("a piece without a text, or with a zero byte in it")
    if not isinstance(score, bytes) or len(score) != 4 or not math.isfinite(number := struct.unpack("<f", score)[0]):
        raise ValueError(f"piece {text[:20]!r} has a score that is no finite number")
    if not isinstance(kind, int) or not NORMAL <= kind <= BYTE:
        raise ValueError(f"piece {text[:20]!r} is of unknown type {kind!r:.20}")
    return text.decode(), number, kind


def check_charsmap(charsmap: bytes) -> None:
    """Check that a trie of normalisation rules leads nowhere outside of itself, since the library does not; ValueError.

    It is a double array (https://github.com/s-yata/darts-clone), after its size and before the texts of its leaves,
    each of which ends with a zero byte.
    """
    size = int.from_bytes(charsmap[:4], "little")
    texts = charsmap[4 + size :]
    if len(charsmap) < 4 or size % (4 * TRIE_BLOCK) or not 0 < size <= len(charsmap) - 4 or texts[-1:] != b"\0":
        raise ValueError("rules of normalisation whose sizes do not agree")
    units = np.frombuffer(charsmap, "<u4", size // 4, 4).astype(np.int64)
    is_leaf = units >> 31 == 1
    offset = units >> 10 << ((units & 1 << 9) >> 6)
    target = np.arange(len(units)) ^ offset
    leads = ~is_leaf
    if (target[leads] // TRIE_BLOCK >= len(units) // TRIE_BLOCK).any():
        raise ValueError("rules of normalisation that lead outside of themselves")
    named = target[leads & (units >> 8 & 1 == 1)]
    values = units[named] & 0x7FFFFFFF
    if (values >= len(texts)).any():
        raise ValueError("rules of normalisation that name texts outside of themselves")
