"""Spell the text of a token with others, as its tokenizer would without it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import CorruptFile

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def spell(rules: str, tokens: Iterable[int]) -> dict[int, list[int]]:
    """Return the ids that spell each of these tokens, as a tokenizer of these rules would if it had none of them.

    A token of the model is spelled by the model itself (its merges, its scores, its longest pieces), so that one that
    is part of a character is spelled, too. The text of an added token, and of a WordPiece that starts a word, takes the
    way of any text. A token that cannot be spelled in full is left out. `rules` is what a `tokenizer.json` holds;
    CorruptFile where that is no tokenizer.
    """
    try:
        return _spelled(json.loads(rules), set(tokens))
    except (KeyboardInterrupt, SystemExit, OSError, MemoryError):
        raise
    except BaseException as error:  # the library raises bare Exception, and its panics are not even that
        raise CorruptFile(f"no pieces can be had of this tokenizer ({error!r}); choose another --how") from None


def _spelled(held: dict[str, Any], tokens: set[int]) -> dict[int, list[int]]:
    from tokenizers import Tokenizer

    model = held["model"]
    kind = model_kind(model)
    if kind == "Unigram":
        texts = dict(enumerate(piece for piece, _ in model["vocab"]))
    else:
        texts = {token: text for text, token in model["vocab"].items()}
    added = {entry["id"]: entry["content"] for entry in held.get("added_tokens") or []}
    ids = {text: token for token, text in {**texts, **added}.items()}
    unknown = texts.get(model.get("unk_id")) if kind == "Unigram" else model.get("unk_token")
    gone = {text for token, text in texts.items() if token in tokens and text != unknown}
    left = {**held, "model": _without(model, kind, gone), "truncation": None, "padding": None, "post_processor": None}
    left["added_tokens"] = [entry for entry in held.get("added_tokens") or [] if entry["id"] not in tokens]
    whole = Tokenizer.from_str(json.dumps(left))
    bare = Tokenizer.from_str(json.dumps({**left, "added_tokens": [], "normalizer": None, "pre_tokenizer": None}))
    prefix = model.get("continuing_subword_prefix") or "##"
    known = {text for text in texts.values() if text not in gone}
    by_model = {}
    by_text = {}
    pieces = {}
    for token in sorted(tokens):
        of_model = token in texts and token not in added
        text = added.get(token, texts.get(token, ""))
        if of_model and kind == "WordPiece" and text.startswith(prefix):
            pieces[token] = _longest(text, prefix, known)
        elif of_model and kind != "WordPiece":
            by_model[token] = text
        elif text:
            by_text[token] = text
    pieces |= _encoded(bare, by_model, exact=kind == "BPE" and not model.get("byte_fallback"))
    pieces |= _encoded(whole, by_text)
    left_over = ids.keys() - gone - {unknown}  # what stands for an unknown character may also be that character
    return {token: [ids[t] for t in parts] for token, parts in pieces.items() if parts and left_over.issuperset(parts)}


def model_kind(model: dict[str, Any]) -> str:
    """Return the type of a tokenizer's model; an older file does not name it."""
    if named := model.get("type"):
        return str(named)
    if isinstance(model["vocab"], list):
        return "Unigram"
    return "BPE" if "merges" in model else "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"


def merges_of(model: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the two texts of each merge of a BPE, and the text that they become."""
    prefix = len(model.get("continuing_subword_prefix") or "")
    pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
    return [(one, other, one + other[prefix:]) for one, other in pairs]


def _without(model: dict[str, Any], kind: str, gone: set[str]) -> dict[str, Any]:
    """Return a tokenizer's model without some of its texts."""
    if kind == "Unigram":  # ids are places: these keep theirs, under a name that no text has
        vocab = [[f"\uffff{n}", -1e9] if row[0] in gone else row for n, row in enumerate(model["vocab"])]
        return {**model, "vocab": vocab}
    left = {**model, "vocab": {text: token for text, token in model["vocab"].items() if text not in gone}}
    if kind == "BPE":
        left["merges"] = [
            [one, other] for one, other, made in merges_of(model) if not gone & {one, other, made, one + other}
        ]
        left["dropout"] = None
    return left


def _longest(text: str, prefix: str, known: set[str]) -> list[str]:
    """Split what continues a word into longest pieces, from its start; none where they do not reach its end."""
    rest = text[len(prefix) :]
    pieces: list[str] = []
    while rest:
        size = next((n for n in range(len(rest), 0, -1) if prefix + rest[:n] in known), 0)
        if not size:
            return []
        pieces.append(prefix + rest[:size])
        rest = rest[size:]
    return pieces


def _encoded(tokenizer: Tokenizer, texts: dict[int, str], *, exact: bool = False) -> dict[int, list[str]]:
    """Return the texts of the pieces of each; none where they should be `exact`, all of the text, and are not."""
    encoded = tokenizer.encode_batch(list(texts.values()), add_special_tokens=False)
    return {
        token: spelled.tokens if not exact or "".join(spelled.tokens) == text else []
        for (token, text), spelled in zip(texts.items(), encoded, strict=True)
    }
