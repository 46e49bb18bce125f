"""Rules by which llama.cpp encodes texts, as objects of the `tokenizers` library and functions.

Written after llama.cpp's `src/llama-vocab.cpp`, and compared with llama.cpp itself (`docs/files.md`).
"""

from __future__ import annotations

import itertools
import re
import struct
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..tensors import File
from . import sentencepiece as spm
from .rules import encode_by, words
from .sentencepiece import BYTE, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED
from .tokenizer import BYTE_LEVEL, Encoded, flat

if TYPE_CHECKING:
    import tokenizers

    # The rules, if the library can express them, and a function that encodes texts between special tokens.
    Rules = tuple[tokenizers.Tokenizer | None, Callable[[list[str]], Encoded]]

# Patterns by which llama.cpp cuts a text before BPE.
HELD = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
PATTERNS: dict[str, list[str]] = HELD["patterns"]
PATTERN_OF = {name: kept for kept in PATTERNS for name in (kept, *HELD["also"].get(kept, "").split())}
WHOLE_WORDS_FIRST = frozenset(HELD["whole_words_first"])
RAW = frozenset(HELD["raw"])
SPECIAL_TEXTS = frozenset(HELD["special"].split())
NEW_RANGES, CHINESE = (re.sub(r"[0-9a-f]+", r"\\x{\g<0>}", HELD[name]).replace(" ", "") for name in ("new", "chinese"))
NO_CHARACTER = "\ufdd0"
WHITE_SPACE = " \t\n\v\f\r"  # as C has it


def of_15_1(pattern: str) -> str:
    r"""Return a pattern whose \p{L}, \p{N} and so on are those of Unicode 15.1; \p{Lu} and so on become \p{L}."""
    return re.sub(r"\\([pP])\{([A-Z])[a-z]?\}", _class, pattern)


def _class(match: re.Match[str]) -> str:
    held = rf"\p{{{match[2]}}}&&[^{NEW_RANGES}]"
    return f"[{held}]" if match[1] == "p" else f"[^{held}]"


@dataclass(frozen=True, kw_only=True)
class Held:
    """Checked header of a GGUF file's tokenizer."""

    names: list[str]  # of the tokens, by id; each once
    types: np.ndarray  # [n] integers
    scores: np.ndarray  # [n] float32, finite
    merges: list[tuple[str, str]]
    pre: str
    unknown: int | None  # id of the token for what is unknown
    charsmap: bytes  # as `check_charsmap`
    space_prefix: bool
    merge_spaces: bool
    lowercase: bool
    strip_accents: bool
    file: File | None


def bpe(held: Held) -> Rules:
    """Return the rules of byte-pair encoding by merges, on words cut by the patterns of `pre`."""
    from tokenizers import Tokenizer, models, normalizers

    raw = PATTERN_OF[held.pre] in RAW
    # Texts of merges that are no tokens keep ids of their own, and are split at the end.
    known = dict(zip(held.names, range(len(held.names)), strict=True))
    merged = itertools.chain.from_iterable((one, other, one + other) for one, other in held.merges)
    characters = (" ",) if raw else map(chr, BYTE_LEVEL)  # of raw pieces, a space stands for unknown text
    others = [text for text in dict.fromkeys((*merged, *characters)) if text not in known]
    model = models.BPE(
        vocab=known | dict(zip(others, range(len(known), len(known) + len(others)), strict=True)),
        merges=list(dict.fromkeys(held.merges)),
        ignore_merges=held.pre in WHOLE_WORDS_FIRST,
        byte_fallback=raw,
        unk_token=" " if raw else None,
    )
    rules = Tokenizer(model)
    if raw:
        rules.normalizer = normalizers.Replace(" ", SPACE)
    rules.pre_tokenizer = words(map(of_15_1, PATTERNS[PATTERN_OF[held.pre]]), byte_level=not raw)
    # Of GPT-2's alphabet what has no token is dropped, but for ASCII, since a token of one byte has another text.
    names = [f"<0x{byte:02X}>" if raw else chr(byte) if byte < 128 else "" for byte in range(256)]
    bytes_of = ([] if text == " " else text.encode() for text in others)
    parts = [[known[names[byte]] for byte in data if names[byte] in known] for data in bytes_of]
    return rules, _falling_apart(partial(encode_by, rules), len(known), parts)


def _falling_apart(
    encode: Callable[[list[str]], Encoded], n_tokens: int, parts: Sequence[Sequence[int]]
) -> Callable[[list[str]], Encoded]:
    """Return a function that encodes likewise, and replaces each id from `n_tokens` on by some tokens."""
    sizes = np.array([1] * n_tokens + [len(part) for part in parts], np.int64)
    tokens = np.array([*range(n_tokens), *itertools.chain.from_iterable(parts)], np.int64)
    begins = np.cumsum(sizes) - sizes

    def encode_apart(texts: list[str]) -> Encoded:
        ids, text_of = encode(texts)
        size = sizes[ids]
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        return tokens[np.repeat(begins[ids], size) + within], np.repeat(text_of, size)

    return encode_apart if parts else encode


def wordpiece(held: Held) -> Rules:
    """Return the rules of BERT: each word by its longest pieces from the left, after the first with ##."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    n_names = len(held.names)
    vocabulary = dict(zip(held.names, range(n_names), strict=True))
    unknown = "\0" if held.unknown is None else held.names[held.unknown]
    vocabulary.setdefault(unknown, n_names)
    # A piece that begins a word may also stand within one, where the text holds the mark itself.
    vocabulary |= {f"##{SPACE}{name}": n for n, name in enumerate(held.names) if not name.startswith("##")}
    model = models.WordPiece(
        vocab=vocabulary, unk_token=unknown, continuing_subword_prefix="##", max_input_chars_per_word=1 << 30
    )
    rules = Tokenizer(model)
    steps: list[normalizers.Normalizer] = [normalizers.Replace(Regex(f"[{NEW_RANGES}]"), NO_CHARACTER)]
    if held.strip_accents:  # keep a decomposed character's first, of a Korean syllable the first letter
        for n in range(19):
            block = f"[\\x{{{0xAC00 + 588 * n:x}}}-\\x{{{0xAC00 + 588 * n + 587:x}}}]"
            steps.append(normalizers.Replace(Regex(block), chr(0x1100 + n)))
        steps.append(normalizers.NFD())
    steps.append(normalizers.Replace(Regex(r"[\p{Cc}\p{Cf}\p{Co}\x{fffd}&&\S]"), ""))
    if held.strip_accents:
        steps.append(normalizers.Replace(Regex(r"\p{M}"), ""))
    if held.lowercase:
        steps += [normalizers.Replace("İ", "i"), normalizers.Lowercase()]
    rules.normalizer = normalizers.Sequence(steps)
    white_space = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    words = pre_tokenizers.Split(Regex(rf"[\p{{P}}$+<=>^`|~{CHINESE}]"), "isolated")
    rules.pre_tokenizer = pre_tokenizers.Sequence([white_space, words])
    return rules, _falling_apart(partial(encode_by, rules), n_names, [] if unknown in held.names else [[]])


def unigram(held: Held) -> Rules:
    """Return the rules of T5: the pieces with the largest sum of scores, after the character map."""
    import sentencepiece
    from tokenizers import Tokenizer, models

    normal = held.types == NORMAL
    user_defined = held.types == USER_DEFINED
    # Unknown text costs 10 more than the dearest piece in use. A dearer unused piece would change that: one character
    # gets the score of the dearest, several are left out.
    dearest = held.scores[normal].min(initial=np.inf)
    single = np.fromiter((len(name) == 1 for name in held.names), bool, len(held.names))
    matched = normal | user_defined | ((held.types == UNUSED) & (single | (held.scores >= dearest)))
    scores = np.where(matched & ~user_defined, np.maximum(held.scores, dearest).astype(np.float64), 0.0)
    # Unmatched pieces get a name that no text holds, as each space becomes a mark.
    is_matched = zip(held.names, matched.tolist(), strict=True)
    names = [name if match else f" {n}" for n, (name, match) in enumerate(is_matched)]
    vocabulary = list(zip(names, scores.tolist(), strict=True))
    if held.unknown is None:
        vocabulary.append((" ", 0.0))
    rules = Tokenizer(models.Unigram(vocabulary, unk_id=len(names) if held.unknown is None else held.unknown))
    by_model = _falling_apart(partial(encode_by, rules), len(names), [[]] if held.unknown is None else [])
    normalizer = None
    if held.charsmap:
        rules_of_text = spm.sized(2, held.charsmap) + spm.BARE
        normalizer = sentencepiece.SentencePieceNormalizer(normalizer_spec=rules_of_text)

    def encode(texts: list[str]) -> Encoded:
        return by_model([_spaced(text, held) for text in (normalizer.Normalize(texts) if normalizer else texts)])

    return rules, encode


def _spaced(text: str, held: Held) -> str:
    """Mark spaces: one before each word if spaces are merged, else all, and one before the first word."""
    if held.merge_spaces:
        return "".join(SPACE + word for word in text.split(" ") if word)
    words = text.lstrip(" ")
    if held.space_prefix and words:
        text = text[: len(text) - len(words)] + " " + words
    return text.replace(" ", SPACE)


def by_scores(held: Held) -> Rules:
    """Return the rules of SentencePiece's byte-pair encoding, which merges the pair of the highest score first."""
    of_bytes = dict.fromkeys(f"<0x{byte:02X}>" for byte in range(256))
    scores = zip(held.names, held.scores.tolist(), strict=True)
    pieces = [(name, score, BYTE if name in of_bytes else NORMAL) for name, score in scores]
    pieces += [(name, 0.0, BYTE) for name in of_bytes.keys() - set(held.names)]
    pieces += [(" ", 0.0, UNKNOWN)]
    data = _model_proto(pieces, space_prefix=held.space_prefix)
    run = spm.processor(held.file, data)

    def encode(texts: list[str]) -> Encoded:
        return flat(run.EncodeAsIds(texts, num_threads=2))

    rules = spm.merge_rules(held.file, spm.read_model(data))
    return rules, _falling_apart(encode, len(held.names), [[]] * (len(pieces) - len(held.names)))


def _model_proto(pieces: Iterable[tuple[str, float, int]], *, space_prefix: bool) -> bytes:
    """Return a SentencePiece model of pieces with score and type: BPE with byte fallback and marked spaces."""
    listed = bytearray()
    for text, score, kind in pieces:
        scored = struct.pack("<Bf", 2 << 3 | spm.FIXED32, score)
        listed += spm.sized(1, spm.sized(1, text.encode()) + scored + bytes([3 << 3, kind]))
    trainer = bytes([3 << 3, 2]) + spm.packed(35 << 3) + b"\1"
    return bytes(listed) + spm.sized(2, trainer) + spm.sized(3, bytes([3 << 3, space_prefix, 4 << 3, 0, 5 << 3, 1]))


class Specials:
    """Cut special tokens out of texts: the longest first, of one length in the order of the list.

    `before` and `after` name those that strip the white space before or after them.

    Examples
    --------
    >>> Specials({"<a>": 7, "a>b>": 8}).split("<a>b>, <a>")
    ['<', 8, ', ', 7]
    """

    def __init__(
        self, ids: Mapping[str, int], *, before: Set[str] = frozenset(), after: Set[str] = frozenset()
    ) -> None:
        self._ids = ids
        self._before = before
        self._after = after
        sizes: dict[int, list[str]] = {}
        for text in ids:
            sizes.setdefault(len(text.encode()), []).append(text)
        self._cuts = [pattern for size in sorted(sizes, reverse=True) for pattern in _one_by_one(sizes[size])]
        self._begun = _any_of({text[:2] for text in ids})  # in every text with a special token

    def encoder(self, encode: Callable[[list[str]], Encoded]) -> Callable[[list[str]], Encoded]:
        """Return a function that encodes texts; `encode` gets the parts between special tokens."""

        def encode_between(texts: list[str]) -> Encoded:
            parts = [(n, part) for n, text in enumerate(texts) for part in self.split(text)]
            text_of = np.fromiter((n for n, _ in parts), np.int64, len(parts))
            special = {place: part for place, (_, part) in enumerate(parts) if isinstance(part, int)}
            between = {place: part for place, (_, part) in enumerate(parts) if isinstance(part, str)}
            ids, of = encode(list(between.values())) if between else (np.empty(0, np.int64), np.empty(0, np.int64))
            places = np.concatenate([np.array(list(between), np.int64)[of], np.array(list(special), np.int64)])
            order = np.argsort(places, kind="stable")
            every = np.concatenate([ids, np.array(list(special.values()), np.int64)])
            return every[order], text_of[places[order]]

        return encode_between

    def split(self, text: str) -> list[str | int]:
        """Split a text into the ids of special tokens and the texts between them."""
        if not (self._ids and self._begun.search(text)):
            return [text] if text else []
        parts: list[str | int] = [text]
        for pattern in self._cuts:
            parts = [smaller for part in parts for smaller in self._cut(part, pattern)]
        return parts

    def _cut(self, part: str | int, pattern: re.Pattern[str]) -> list[str | int]:
        if isinstance(part, int):
            return [part]
        pieces = pattern.split(part)  # each second one is special
        for n in range(1, len(pieces), 2):
            if pieces[n] in self._before:
                pieces[n - 1] = pieces[n - 1].rstrip(WHITE_SPACE)
            if pieces[n] in self._after:
                pieces[n + 1] = pieces[n + 1].lstrip(WHITE_SPACE)
        return [self._ids[piece] if n % 2 else piece for n, piece in enumerate(pieces) if piece]


def _one_by_one(texts: list[str]) -> list[re.Pattern[str]]:
    """Return patterns that find texts of one length as if each were searched for in turn."""
    begins = {text[:n] for text in texts for n in range(1, len(text))}
    overlap = any(text[n:] in begins for text in texts for n in range(1, len(text)))
    return [_any_of([text]) for text in texts] if overlap and len(texts) > 1 else [_any_of(texts)]


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile(f"({'|'.join(map(re.escape, sorted(texts)))})")


BUILDERS = {"gpt2": bpe, "gemma4": bpe, "llama": by_scores, "bert": wordpiece, "t5": unigram}
