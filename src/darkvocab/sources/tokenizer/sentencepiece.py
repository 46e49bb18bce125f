"""Tokenizers that SentencePiece runs: `tokenizer.model`, `spiece.model` and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...errors import CorruptFile, InvalidInput
from ..tensors import SENTENCES, File
from .added import added_beside, class_name
from .protobuf import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Model, read_model
from .rules import CLASSES
from .tokenizer import Encoded, Pieces, Spelling, Tokenizer, flat, in_a_line

if TYPE_CHECKING:
    import sentencepiece
    import tokenizers

SPACE = "\u2581"
SHIFTED = "XLMRobertaTokenizer"  # fairseq's: <s>, <pad>, </s> and <unk> first


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


def _shifted(model: Model) -> np.ndarray:
    """Return the ids that XLM-RoBERTa gives the pieces: <s> 0, </s> 2, <unk> 3, and each other one more."""
    first = {"<s>": 0, "</s>": 2, "<unk>": 3}
    return np.array([first.get(text, n + 1) if n < 3 else n + 1 for n, text in enumerate(model.text)])


def _pieces(path: File, model: Model, ids: list[int], spelling: Spelling, folder: Mapping[str, File]) -> Pieces:
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


def merge_rules(path: File | None, model: Model) -> tokenizers.Tokenizer | None:
    """Return the model's rules for the `tokenizers` library, where it merges each piece alone as SentencePiece does.

    Of two ways to merge the same text SentencePiece takes the one further left, the library the one listed first.
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
