"""Rules of a tokenizer for the `tokenizers` library: normaliser, pre-tokenizer, model, and added tokens.

Files beside a tokenizer add tokens, too, as in the `transformers` library.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...errors import CorruptFile, InvalidInput
from ..tensors import SENTENCES, File, read_object
from .tokenizer import Encoded, Pieces, Spelling, Tokenizer, in_a_line, is_unicode

if TYPE_CHECKING:
    import tokenizers

Built = TypeVar("Built")
# Patterns, vocabularies of tiktoken, classes of transformers: rules that are in no file of a tokenizer.
HELD = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
PATTERNS: dict[str, str] = HELD["patterns"]
CLASSES = {rules: {f"{name}Tokenizer" for name in names.split()} for rules, names in HELD["classes"].items()}
TEXTS_IN_A_CALL = 256  # as if they were the words of one text
CONFIG, MAP, LIST = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
COMPANIONS = (CONFIG, MAP, LIST)
FLAGS = ("lstrip", "rstrip", "normalized", "single_word")
HIGHEST_ID = 2**31 - 1


def by_rules(rules: tokenizers.Tokenizer, file: File | None = None) -> Tokenizer:
    """Return the tokenizer of these rules; raises as `plain`."""
    rules = plain(rules)
    spelling = spelling_of(rules)
    pieces = pieces_of(rules, spelling)
    return Tokenizer(
        runtime="tokenizers",
        model=type(rules.model).__name__,
        pieces=pieces,
        spelling=spelling,
        rules_of=lambda: rules,
        encoder=partial(encode_by, rules),
        merges=partial(merging, rules, pieces) if getattr(rules.model, "ignore_merges", False) else None,
        file=file,
    )


def plain(rules: tokenizers.Tokenizer, *, copy: bool = True) -> tokenizers.Tokenizer:
    """Return a tokenizer without truncation, padding and dropout, which encodes each text in full and always alike.

    It is the same one if that does already; else a copy, or without `copy` the same one, changed. Raises InvalidInput
    for one that cannot be copied because a part of it is written in Python.
    """
    chances = [name for name in ("dropout", "alpha", "nbest_size") if getattr(rules.model, name, None)]
    if not (rules.truncation or rules.padding or chances):
        return rules
    if copy:
        try:
            rules = type(rules).from_str(rules.to_str())
        except Exception as error:  # what the library raises has no class of its own
            raise InvalidInput(SENTENCES["not_copied"].format(error=error)) from None
    rules.no_truncation()
    rules.no_padding()
    for name in chances:
        setattr(rules.model, name, None)
    return rules


def encode_by(rules: tokenizers.Tokenizer, texts: list[str]) -> Encoded:
    """Encode texts without special tokens, in the library's own threads; a text that the rules refuse has no ids."""
    # Several texts go to the library as words of one pre-tokenized text: each is encoded by itself, in fewer objects.
    together = [texts[begin : begin + TEXTS_IN_A_CALL] for begin in range(0, len(texts), TEXTS_IN_A_CALL)]
    try:
        encoded = rules.encode_batch(together, is_pretokenized=True, add_special_tokens=False)
    except Exception:  # the library raises bare Exception
        if len(texts) == 1:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        middle = len(texts) // 2
        ids, text_of = encode_by(rules, texts[:middle])
        more, text_of_more = encode_by(rules, texts[middle:])
        return np.concatenate([ids, more]), np.concatenate([text_of, text_of_more + middle])
    numbers = (np.array(some.word_ids, np.int64) + TEXTS_IN_A_CALL * n for n, some in enumerate(encoded))
    return np.concatenate([np.array(some.ids, np.int64) for some in encoded]), np.concatenate([*numbers])


def merging(rules: Any, pieces: Pieces, numbers: list[int]) -> list[bool]:
    """Return whether merges alone give the pieces of these numbers, by rules that look whole words up first."""
    model = rules.model
    model.ignore_merges = False
    try:
        return [[token.id for token in model.tokenize(pieces.name[n])] == [pieces.token[n]] for n in numbers]
    finally:
        model.ignore_merges = True


def words(patterns: Iterable[str], *, byte_level: bool = True) -> Any:
    """Return a pre-tokenizer that cuts by patterns in turn, and with `byte_level` spells bytes as GPT-2 does."""
    from tokenizers import Regex, pre_tokenizers

    steps: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Split(Regex(one), "isolated") for one in patterns]
    if byte_level:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(steps)


def for_oniguruma(pattern: str) -> str | None:
    """Translate a pattern of tiktoken's engine to that of the `tokenizers` library; None where they may differ.

    There ``{1,3}+`` repeats what is repeated, where here it gives nothing back, which is the same to these patterns;
    and ``$`` ends a line, where here it ends the text.
    """
    if pattern in (PATTERNS["GPT2"], PATTERNS["CL100K"]):
        return pattern.replace("{1,3}+", "{1,3}").replace("$", r"\z")
    return None if re.search(r"\{[0-9]+,?[0-9]*\}\+|(?<![\\\[])[$^]", pattern) else pattern


def guarded(build: Callable[[], Built], wrong: str) -> Built:
    """Return `build()`; turn what a library raises into a CorruptFile that begins with `wrong`."""
    try:
        return build()
    except (KeyboardInterrupt, SystemExit, MemoryError, CorruptFile):
        raise
    except BaseException as error:  # the libraries raise bare Exception, and panics that are not even that
        raise CorruptFile(f"{wrong} ({in_a_line(error)}); scan --tokenizer none goes without") from None


def pieces_of(rules: tokenizers.Tokenizer, spelling: Spelling) -> Pieces:
    """Return every text of these rules; an added token stands for the bytes of its text."""
    # The library names an added token after normalisation, by which no other list has it.
    marks = {n: one.content for n, one in rules.get_added_tokens_decoder().items()}
    n_texts = rules.get_vocab_size(with_added_tokens=True)
    token = list(range(n_texts))
    text = [named for n in token if (named := marks.get(n) or rules.id_to_token(n)) is not None]
    if len(text) < n_texts:  # else each id has one text; listing the vocabulary takes longer
        vocabulary = rules.get_vocab(with_added_tokens=True)
        text = sorted(sorted(vocabulary), key=vocabulary.__getitem__)
        token = [vocabulary[named] for named in text]
    contents = set(marks.values())
    added = {n for n, held in enumerate(text) if held in contents}
    data = [held.encode() if n in added else spelling.bytes_of(held) for n, held in enumerate(text)]
    return Pieces(token=token, text=text, name=text, data=data, added=added)


def parts(component: Any) -> list[dict[str, Any]]:
    """Return a component's parts as JSON objects, sequences flattened; one in Python is a part of type `Custom`."""
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


def spelling_of(rules: tokenizers.Tokenizer) -> Spelling:
    """Return the spelling of a tokenizer, by its model and decoder, else by normaliser and pre-tokenizer."""
    model = rules.model
    kind = type(model).__name__
    decoder = parts(rules.decoder)
    writers = [*parts(rules.pre_tokenizer), *parts(rules.normalizer)]
    if any(part["type"] == "ByteLevel" for part in [*decoder, *writers]):
        return Spelling(byte_level=True, after=getattr(model, "end_of_word_suffix", None) or "")
    byte_tokens = getattr(model, "byte_fallback", False)
    if kind == "Unigram" and rules.token_to_id("<0x00>") is not None:
        byte_tokens = bool(json.loads(model.__getstate__()).get("byte_fallback"))
    return Spelling(
        space=next(filter(None, [*map(partial(_space, read=True), decoder), *map(_space, writers)]), ""),
        before=getattr(model, "continuing_subword_prefix", None) or "",
        after=getattr(model, "end_of_word_suffix", None) or "",
        byte_tokens=byte_tokens,
    )


def _space(part: dict[str, Any], *, read: bool = False) -> str:
    """Return the mark that a part writes for a space, or that a decoder reads as one; "" without any."""
    if part["type"] == "Replace":
        old, new = part["pattern"].get("String", ""), part["content"]
        space, mark = (new, old) if read else (old, new)
        return str(mark) if space == " " else ""
    return str(part["replacement"]) if part["type"] == "Metaspace" else ""


@dataclass(frozen=True, kw_only=True)
class Added:
    """Added token, which is cut out of a text before the model sees it."""

    content: str
    id: int | None  # None: the token's own, or the next that is free
    special: bool = True
    flags: Mapping[str, bool] = field(default_factory=dict)


def settings(folder: Mapping[str, File]) -> dict[str, Any]:
    """Read `tokenizer_config.json`, if there is one; raises CorruptFile."""
    return read_object(folder[CONFIG]) if CONFIG in folder else {}


def class_name(folder: Mapping[str, File]) -> str:
    """Return the class in `tokenizer_config.json`, without Fast; "" without one."""
    named = settings(folder).get("tokenizer_class")
    return named.removesuffix("Fast") if isinstance(named, str) else ""


def added_beside(folder: Mapping[str, File]) -> list[Added]:
    """Return the tokens that a folder's files add, first those with an id, ascending; raises CorruptFile."""
    config = settings(folder)
    special = {**(read_object(folder[MAP]) if MAP in folder else {}), **config}
    contents = dict.fromkeys(filter(None, map(_content, _special(special))))
    if isinstance(listed := config.get("added_tokens_decoder"), dict):
        added = [_added(folder[CONFIG], entry, token) for token, entry in listed.items()]
    elif LIST in folder:
        numbered = read_object(folder[LIST]).items()
        added = [
            _added(folder[LIST], {"content": text, "special": text in contents}, token) for text, token in numbered
        ]
    else:
        added = []
    named = {one.content for one in added}
    in_order = sorted(added, key=lambda one: one.id or 0)
    return in_order + [Added(content=text, id=None) for text in contents if text not in named]


def _special(settings: Mapping[str, Any]) -> list[Any]:
    """Return the special tokens of bos_token, additional_special_tokens and so on."""
    every: list[Any] = []
    for name, value in settings.items():
        if name.endswith("_token"):
            every.append(value)
        elif name in ("additional_special_tokens", "extra_special_tokens"):
            every += value if isinstance(value, list) else value.values() if isinstance(value, dict) else []
    return every


def _content(entry: Any) -> str | None:
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) and content and is_unicode(content) else None


def _added(path: File, entry: Any, token: Any) -> Added:
    content = _content(entry)
    number = int(token) if isinstance(token, str) and token.isdecimal() and len(token) <= 10 else token
    if content is None or type(number) is not int or not 0 <= number <= HIGHEST_ID:
        raise CorruptFile(f"{path}: an added token that is not a text with an id: {str(token)[:40]!r}")
    flags = {name: entry[name] for name in FLAGS if isinstance(entry.get(name), bool)}
    return Added(content=content, id=number, special=entry.get("special") is True, flags=flags)
