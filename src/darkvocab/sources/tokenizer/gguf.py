"""Tokenizers of GGUF files: `tokenizer.ggml.*`, as llama.cpp reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...errors import CorruptFile
from ..tensors import File
from .llama_cpp import BUILDERS, HELD, PATTERN_OF, RAW, SPECIAL_TEXTS, WHOLE_WORDS_FIRST, Held, Specials
from .rules import guarded, merging
from .sentencepiece import CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED, check_charsmap
from .tokenizer import BYTE_TOKEN, Pieces, Spelling, Tokenizer, decoded

if TYPE_CHECKING:
    from .llama_cpp import Rules

GGUF_MODELS: dict[str, dict[str, Any]] = HELD["models"]
Value = TypeVar("Value")


def from_gguf(metadata: Mapping[str, Any], file: File | None = None) -> Tokenizer | None:
    """Return the tokenizer of a GGUF file by the metadata of its header; None where that has no texts.

    Special tokens are cut out of a text first, as llama.cpp does with prompts of a chat template. Padding texts that
    converters add are left out. A tokenizer whose rules are not known here, or that llama.cpp does not load, cannot
    encode, and has the reason.

    Raises CorruptFile: values of wrong types, or too few; scores that are not finite; a character map that leads out of
    itself.
    """
    header = _Header(metadata=metadata, file=file)
    model = header.value("model", str, "")
    pre = "gemma4" if model == "gemma4" else header.value("pre", str, "") or "default"
    tokens = _Tokens.of(header, model)
    if not tokens.text:
        return None
    known = GGUF_MODELS.get(model, {"kind": model, "spelling": {}})
    is_raw = model == "gpt2" and PATTERN_OF.get(pre) in RAW
    spelling = Spelling(**(GGUF_MODELS["gemma4"] if is_raw else known)["spelling"])
    read = Tokenizer(
        runtime="llama.cpp",
        model=known["kind"],
        pieces=tokens.pieces(spelling),
        spelling=spelling,
        cannot_encode=_unreadable(header, model, pre, tokens),
        file=file,
    )
    if read.cannot_encode:
        return read
    held = header.held(tokens, model, pre)

    @cache
    def built() -> Rules:
        return guarded(lambda: BUILDERS[model](held), f"{file}: tokenizer.ggml.* makes no tokenizer")

    alone = model == "gpt2" and pre in WHOLE_WORDS_FIRST
    ids = {tokens.text[n]: n for n in sorted(tokens.special - tokens.broken)}
    before, after = _strips(header, ids, pre)
    return replace(
        read,
        rules_of=lambda: built()[0],
        encoder=Specials(ids, before=before, after=after).encoder(lambda texts: built()[1](texts)),
        merges=(lambda numbers: merging(built()[0], read.pieces, numbers)) if alone else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Header:
    """Values of a header, by their names after `tokenizer.ggml.`; CorruptFile for one of another type."""

    metadata: Mapping[str, Any]
    file: File | None

    def wrong(self, what: str) -> CorruptFile:
        return CorruptFile(f"{self.file}: {what}; scan --tokenizer none goes without")

    def value(self, key: str, kind: type[Value], missing: Value) -> Value:
        value = self.metadata.get(f"tokenizer.ggml.{key}", missing)
        if not isinstance(value, kind):
            raise self.wrong(f"tokenizer.ggml.{key} is of type {type(value).__name__}, not {kind.__name__}")
        return value

    def numbers(self, key: str, kinds: str, n: int, missing: float) -> np.ndarray:
        """Return the first `n` numbers of an array; without it `n` times `missing`."""
        value = self.value(key, np.ndarray, np.full(n, missing))
        if value.dtype.kind not in kinds + "f" * (f"tokenizer.ggml.{key}" not in self.metadata) or len(value) < n:
            raise self.wrong(f"tokenizer.ggml.{key} has {len(value):,} {value.dtype.name} for {n:,} tokens")
        if not np.isfinite(value[:n]).all():
            raise self.wrong(f"tokenizer.ggml.{key} holds numbers that are not finite")
        return value[:n]

    def held(self, tokens: _Tokens, model: str, pre: str) -> Held:
        n_tokens = len(tokens.name)
        unknown = self.value("unknown_token_id", int, n_tokens)
        if unknown >= n_tokens:
            unknown = GGUF_MODELS.get(model, {}).get("unknown", n_tokens)
        lowercase = self.value("normalizer.lowercase", bool, True)
        charsmap = self.value("precompiled_charsmap", np.ndarray, np.empty(0, np.uint8)).tobytes()
        if charsmap:
            try:
                check_charsmap(charsmap)
            except ValueError as error:
                raise self.wrong(f"tokenizer.ggml.precompiled_charsmap: {error}") from None
        merges = (merge.decode(errors="replace").split(" ", 1) for merge in self.value("merges", list, []))
        return Held(
            names=tokens.name,
            types=tokens.type,
            scores=self.numbers("scores", "if", n_tokens, 0.0).astype(np.float32),
            merges=[(pair[0], pair[1]) for pair in merges if len(pair) == 2],
            pre=pre,
            unknown=unknown if unknown < n_tokens else None,
            charsmap=charsmap,
            space_prefix=self.value("add_space_prefix", bool, model == "llama"),
            merge_spaces=self.value("remove_extra_whitespaces", bool, False),
            lowercase=lowercase,
            strip_accents=self.value("normalizer.strip_accents", bool, lowercase),
            file=self.file,
        )


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """Tokens of a file, by id."""

    raw: list[bytes]  # their texts
    text: list[str]
    name: list[str]  # in the rules
    type: np.ndarray
    special: set[int]  # cut out of a text before the model sees it
    broken: set[int]  # whose texts are no UTF-8

    @classmethod
    def of(cls, header: _Header, model: str) -> _Tokens:
        raw = [text.split(b"\0", 1)[0] for text in header.value("tokens", list, [])]  # as C reads them
        types = header.numbers("token_type", "iu", len(raw), NORMAL)
        text = [held.decode(errors="replace") or f"[EMPTY_{n}]" for n, held in enumerate(raw)]
        special = set(np.flatnonzero(np.isin(types, (UNKNOWN, CONTROL, USER_DEFINED))).tolist())
        named = {one: n for n, one in enumerate(text) if one in SPECIAL_TEXTS}
        special |= set(named.values())
        if "<|tool_response>" in named:  # as llama.cpp has it for the sake of Gemma 4
            special.discard(named.get("</s>", -1))
        broken = {n for n, one in enumerate(text) if "\ufffd" in one and one.encode() != raw[n]}
        name = [_name(one, model) for one in text]
        for n in special:
            name[n] = text[n]
        for n in broken:
            name[n] = f" {n}"  # which no text holds, as each space is replaced
        return cls(raw=raw, text=text, name=name, type=types, special=special, broken=broken)

    def pieces(self, spelling: Spelling) -> Pieces:
        """Return the tokens as pieces, which show the text that they stand for, if it is one."""
        padding = {n for n in np.flatnonzero(self.type == UNUSED).tolist() if self.text[n] == f"[PAD{n}]"}
        token = [n for n in range(len(self.text)) if n not in padding]
        data = []
        shown = []
        for n in token:
            if n in self.special or n in self.broken:
                data.append(self.raw[n])
                shown.append(self.text[n])
                continue
            name = self.name[n]
            stands_for = spelling.bytes_of(name)
            as_it_is = spelling.before or (spelling.byte_tokens and BYTE_TOKEN.fullmatch(name))
            data.append(stands_for)
            shown.append(name if as_it_is else decoded(stands_for) or name)
        added = {number for number, n in enumerate(token) if n in self.special}
        return Pieces(token=token, text=shown, name=[self.name[n] for n in token], data=data, added=added)


def _name(text: str, model: str) -> str:
    """Name a piece; BERT's by ## for pieces that continue a word, where files mark those that begin one."""
    if model != "bert":
        return text
    return text.removeprefix(SPACE) if text.startswith(SPACE) and text != SPACE else f"##{text}"


def _unreadable(header: _Header, model: str, pre: str, tokens: _Tokens) -> str | None:
    """Return why the tokenizer of these tokens cannot encode; None if it can."""
    if model not in BUILDERS:
        return f"tokenizers of the model {model!r} (tokenizer.ggml.model) are not supported"
    if model in ("gpt2", "gemma4"):
        if pre not in PATTERN_OF:
            return f"the pre-tokenizer {pre!r} (tokenizer.ggml.pre) is not known here"
        if "tokenizer.ggml.merges" not in header.metadata and pre != "kimi-k2":
            return "the file has no tokenizer.ggml.merges, without which llama.cpp does not load it"
    if model == "t5":
        for n in np.flatnonzero(tokens.type == USER_DEFINED).tolist():
            if not tokens.text[n].isascii():
                return f"llama.cpp breaks characters that begin like its user-defined token {tokens.text[n]!r}"
    if len(set(tokens.name)) < len(tokens.name):
        twice = next(name for name, n in Counter(tokens.name).items() if n > 1)
        return f"two of its tokens have the text {twice!r}, with which llama.cpp does not load it"
    return None


def _strips(header: _Header, ids: Mapping[str, int], pre: str) -> tuple[set[str], set[str]]:
    """Return the special tokens that strip the white space before, and after them, as llama.cpp names them."""
    name, architecture = (str(header.metadata.get(f"general.{key}", "")) for key in ("name", "architecture"))
    if "jina-v2-" in pre or any(kind in architecture for kind in ("nomic-bert-moe", "jina-bert-v3")):
        return {"<mask>"}, set()
    if any(kind in name.lower() for kind in ("phi-3", "phi3")):
        return set(), {*ids, "</s>"} - {"<unk>", "<s>", "<|endoftext|>"}
    return {"[MASK]"} if "modern-bert" in name.lower() else set(), set()
