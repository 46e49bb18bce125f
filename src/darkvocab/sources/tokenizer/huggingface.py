"""Tokenizers of Hugging Face: `tokenizer.json`; `vocab.json` with `merges.txt`; `vocab.txt`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import CorruptFile
from ..tensors import SENTENCES, File, read_object
from .rules import CLASSES, HIGHEST_ID, PATTERNS, added_beside, by_rules, class_name, guarded, plain, settings, words
from .tokenizer import BYTE_LEVEL, Pieces, Spelling, Tokenizer, is_unicode

if TYPE_CHECKING:
    import tokenizers

LONGEST_WORD = 100  # characters; BERT's
PREFIX = re.compile(rb'continuing_subword_prefix"\s*:\s*"[^"]|\\u00(5[fF]|[67])')  # or the key in escapes


def from_json(path: File, folder: Mapping[str, File]) -> Tokenizer:
    """Open a `tokenizer.json` with the `tokenizers` library; files beside it add tokens. Raises CorruptFile."""
    import tokenizers

    local = path if isinstance(path, Path) else path.whole()
    _check_prefix(local)
    return _by(path, folder, lambda: plain(tokenizers.Tokenizer.from_file(str(local)), copy=False))


def _check_prefix(path: Path) -> None:
    """Check that the second piece of each merge begins with a BPE's `continuing_subword_prefix`; raises CorruptFile.

    The library cuts the prefix off unchecked; inside a character, that ends the process.
    """
    if not PREFIX.search(path.read_bytes()):
        return
    model = read_object(path).get("model")
    model = model if isinstance(model, dict) else {}
    prefix, merges = (model.get(name) for name in ("continuing_subword_prefix", "merges"))
    if not (isinstance(prefix, str) and prefix and isinstance(merges, list)):
        return
    pairs = (pair.partition(" ")[::2] if isinstance(pair, str) else pair for pair in merges)
    for pair in pairs:
        if isinstance(pair, list | tuple) and len(pair) == 2 and not str(pair[1]).startswith(prefix):
            raise CorruptFile(SENTENCES["other_mark"].format(path=path))


def from_vocab(path: File, folder: Mapping[str, File]) -> Tokenizer:
    """Open a `vocab.json` with the `merges.txt` of its folder, by the rules of its class. Raises CorruptFile."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    vocab = read_object(path)
    if not all(type(token) is int and 0 <= token <= HIGHEST_ID for token in vocab.values()):
        raise CorruptFile(f"{path}: not a vocabulary: not each text has an id from 0 to {HIGHEST_ID:,}")
    named = class_name(folder)
    if named not in ("", "Qwen2Tokenizer", "CLIPTokenizer", *CLASSES["gpt2"]):
        return _without_rules(path, vocab, named)
    suffix = "</w>" if named == "CLIPTokenizer" else None
    unknown = _unknown(folder, vocab) if suffix else None
    merges = _merges(folder["merges.txt"])

    def build() -> tokenizers.Tokenizer:
        options = {name: text for name, text in (("end_of_word_suffix", suffix), ("unk_token", unknown)) if text}
        rules = tokenizers.Tokenizer(models.BPE(vocab, merges, **options))
        rules.decoder = decoders.ByteLevel()
        if named == "Qwen2Tokenizer":
            rules.normalizer = normalizers.NFC()
            rules.pre_tokenizer = words([PATTERNS["QWEN"]])
        elif suffix:
            spaces = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
            rules.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
            word = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
            cut = pre_tokenizers.Split(tokenizers.Regex(word), "removed", invert=True)
            rules.pre_tokenizer = pre_tokenizers.Sequence([cut, words([])])
        else:
            spaced = settings(folder).get("add_prefix_space") is True
            rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
        return rules

    return _by(path, folder, build)


def from_words(path: File, folder: Mapping[str, File]) -> Tokenizer:
    """Open a `vocab.txt`, a piece on each line, by BERT's rules, where its class has them. Raises CorruptFile."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    lines = _lines(path)
    vocab = {text.removesuffix("\r"): n for n, text in enumerate(lines[:-1] if lines[-1] == "" else lines)}
    named = class_name(folder)
    if named not in ("", *CLASSES["bert"]):
        return _without_rules(path, vocab, named)
    config = settings(folder)

    def build() -> tokenizers.Tokenizer:
        unknown = _unknown(folder, vocab) or "[UNK]"
        rules = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=unknown, max_input_chars_per_word=LONGEST_WORD))
        rules.normalizer = normalizers.BertNormalizer(
            handle_chinese_chars=config.get("tokenize_chinese_chars") is not False,
            strip_accents=config["strip_accents"] if isinstance(config.get("strip_accents"), bool) else None,
            lowercase=config.get("do_lower_case") is not False,
        )
        rules.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        rules.decoder = decoders.WordPiece()
        return rules

    return _by(path, folder, build)


def _by(path: File, folder: Mapping[str, File], build: Callable[[], tokenizers.Tokenizer]) -> Tokenizer:
    """Return the tokenizer of the rules that `build` makes, with the tokens that a folder's files add."""
    from tokenizers import AddedToken

    added = added_beside(folder)

    def build_all() -> tokenizers.Tokenizer:
        rules = build()
        known = {one.content for one in rules.get_added_tokens_decoder().values()}
        for one in added:
            if one.content not in known:
                flags = {"normalized": not one.special, **one.flags}
                rules.add_tokens([AddedToken(one.content, special=one.special, **flags)])
        return rules

    return by_rules(guarded(build_all, f"{path}: not a tokenizer that can be read"), path)


def _lines(path: File) -> list[str]:
    try:
        return path.read_text("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path}: not UTF-8 at byte {error.start:,}") from None


def _merges(path: File) -> list[tuple[str, str]]:
    """Read the pairs of a `merges.txt`; raises CorruptFile."""
    pairs = []
    for n, line in enumerate(_lines(path), 1):
        if not line.strip() or (n == 1 and line.startswith("#version")):
            continue
        one, space, other = line.rstrip("\r").partition(" ")
        if not space or " " in other:
            raise CorruptFile(f"{path}: line {n:,} is not two pieces with a space between")
        pairs.append((one, other))
    return pairs


def _unknown(folder: Mapping[str, File], vocab: Mapping[str, Any]) -> str | None:
    named = settings(folder).get("unk_token")
    text = named.get("content") if isinstance(named, dict) else named
    return text if isinstance(text, str) and text in vocab else None


def _without_rules(path: File, vocab: Mapping[str, int], named: str) -> Tokenizer:
    """Return a tokenizer that has texts but cannot encode, as the rules of its class are not known here."""
    if not all(map(is_unicode, vocab)):
        raise CorruptFile(f"{path}: holds half a character")
    spelling = Spelling(byte_level=all(character in vocab for character in map(chr, BYTE_LEVEL)))
    texts = list(vocab)
    return Tokenizer(
        runtime="tokenizers",
        model="unknown",
        pieces=Pieces(token=list(vocab.values()), text=texts, name=texts, data=list(map(spelling.bytes_of, texts))),
        spelling=spelling,
        cannot_encode=f"the rules of {named} for {path.name} are not known here; a tokenizer.json has them",
        file=path,
    )
