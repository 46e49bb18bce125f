"""Tokens that are added to a tokenizer by the files beside it, as the `transformers` library adds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import CorruptFile
from ..tensors import File, read_object
from .tokenizer import is_unicode

CONFIG, MAP, LIST = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
COMPANIONS = (CONFIG, MAP, LIST)
FLAGS = ("lstrip", "rstrip", "normalized", "single_word")
HIGHEST = 2**31 - 1  # id


@dataclass(frozen=True, kw_only=True)
class Added:
    """A token that is cut out of a text before the model sees it."""

    content: str
    id: int | None  # None: the token's own, or the next that is free
    special: bool = True
    flags: Mapping[str, bool] = field(default_factory=dict)


def settings(folder: Mapping[str, File]) -> dict[str, Any]:
    """Return what `tokenizer_config.json` says; nothing where there is none. Raises CorruptFile."""
    return read_object(folder[CONFIG]) if CONFIG in folder else {}


def class_name(folder: Mapping[str, File]) -> str:
    """Return the tokenizer's class by `tokenizer_config.json`, without Fast; "" where it names none."""
    named = settings(folder).get("tokenizer_class")
    return named.removesuffix("Fast") if isinstance(named, str) else ""


def added_beside(folder: Mapping[str, File]) -> list[Added]:
    """Return the tokens that a folder's files add, those with an id first, ascending. Raises CorruptFile."""
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
    """Return the special tokens by the names of their parts: bos_token, additional_special_tokens and so on."""
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
    if content is None or type(number) is not int or not 0 <= number <= HIGHEST:
        raise CorruptFile(f"{path}: an added token that is not a text with an id: {str(token)[:40]!r}")
    flags = {name: entry[name] for name in FLAGS if isinstance(entry.get(name), bool)}
    return Added(content=content, id=number, special=entry.get("special") is True, flags=flags)
