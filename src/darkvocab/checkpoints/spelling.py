"""Tokenizers without chosen tokens: how they spell the texts of these, and their files with fewer merges."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CorruptFile, InvalidInput
from ..measures.vocabulary import vocabulary
from ..progress import Report
from ..sources import read_json
from ..sources.tokenizer import Tokenizer, open_tokenizer

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_FILE = "tokenizer.json"
N_TEXTS = 20_000  # texts of several tokens that are encoded before and after
TOKENS_IN_A_TEXT = 4


def spell(rules: str, tokens: Iterable[int]) -> dict[int, list[int]]:
    """Return the ids that spell each of these tokens by a tokenizer of these rules that has none of them.

    A token of the model is spelled by the model alone (merges, scores, longest pieces), which works for parts of
    characters, too; an added token, or a WordPiece that starts a word, is encoded as any text. A token that cannot be
    spelled in full is left out. `rules` is the text of a `tokenizer.json`; CorruptFile where that is no tokenizer.
    """
    try:
        return _spelled(json.loads(rules), set(tokens))
    except (KeyboardInterrupt, SystemExit, OSError, MemoryError):
        raise
    except BaseException as error:  # the library raises bare Exception, and its panics are not even that
        raise CorruptFile(f"no pieces can be had of this tokenizer ({error!r}); choose another --how") from None


def _spelled(held: dict[str, Any], tokens: set[int]) -> dict[int, list[int]]:
    import tokenizers

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
    whole = tokenizers.Tokenizer.from_str(json.dumps(left))
    left |= {"added_tokens": [], "normalizer": None, "pre_tokenizer": None}
    bare = tokenizers.Tokenizer.from_str(json.dumps(left))
    prefix = model.get("continuing_subword_prefix") or "##"
    known = {text for text in texts.values() if text not in gone}
    chosen = {token: added.get(token, texts.get(token, "")) for token in sorted(tokens)}
    of_model = {token: text for token, text in chosen.items() if token in texts and token not in added}
    by_model = {} if kind == "WordPiece" else of_model
    within = {token: text for token, text in of_model.items() if kind == "WordPiece" and text.startswith(prefix)}
    by_text = {token: text for token, text in chosen.items() if text and token not in {**by_model, **within}}
    pieces = {token: _longest(text, prefix, known) for token, text in within.items()}
    pieces |= _pieces_of(bare, by_model, exact=kind == "BPE" and not model.get("byte_fallback"))
    pieces |= _pieces_of(whole, by_text)
    left_over = ids.keys() - gone - {unknown}  # the unknown token may be such a character itself
    return {token: [ids[t] for t in parts] for token, parts in pieces.items() if parts and left_over.issuperset(parts)}


def model_kind(model: dict[str, Any]) -> str:
    """Return the type of a tokenizer's model, by its parts where an older file does not name it."""
    if named := model.get("type"):
        return str(named)
    if isinstance(model["vocab"], list):
        return "Unigram"
    return "BPE" if "merges" in model else "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"


def merges_of(model: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the two texts of each merge of a BPE, and the merged text."""
    prefix = len(model.get("continuing_subword_prefix") or "")
    pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
    return [(one, other, one + other[prefix:]) for one, other in pairs]


def _without(model: dict[str, Any], kind: str, gone: set[str]) -> dict[str, Any]:
    """Return a tokenizer's model without some of its texts."""
    if kind == "Unigram":  # ids are positions, so deleted pieces leave a name that no text has
        vocab = [[f"\uffff{n}", -1e9] if row[0] in gone else row for n, row in enumerate(model["vocab"])]
        return {**model, "vocab": vocab}
    left = {**model, "vocab": {text: token for text, token in model["vocab"].items() if text not in gone}}
    if kind == "BPE":
        merges = merges_of(model)
        left["merges"] = [[a, b] for a, b, merged in merges if not gone & {a, b, merged, a + b}]
        left["dropout"] = None
    return left


def _longest(text: str, prefix: str, known: set[str]) -> list[str]:
    """Split a piece that continues a word into longest pieces from its start; none where they do not reach its end."""
    rest = text[len(prefix) :]
    pieces: list[str] = []
    while rest:
        size = next((n for n in range(len(rest), 0, -1) if prefix + rest[:n] in known), 0)
        if not size:
            return []
        pieces.append(prefix + rest[:size])
        rest = rest[size:]
    return pieces


def _pieces_of(rules: tokenizers.Tokenizer, texts: dict[int, str], *, exact: bool = False) -> dict[int, list[str]]:
    """Return the pieces of each text; none where `exact` and the pieces are not the whole text."""
    encoded = rules.encode_batch(list(texts.values()), add_special_tokens=False)
    return {
        token: spelled.tokens if not exact or "".join(spelled.tokens) == text else []
        for (token, text), spelled in zip(texts.items(), encoded, strict=True)
    }


def without_merges(path: Path, tokens: Sequence[int]) -> tuple[bytes, int, list[int]]:
    """Return a tokenizer.json without the merges that make these tokens, their number, and the tokens that lose any.

    Raises InvalidInput where no merge makes any of the tokens (they are added, or characters), for a tokenizer that is
    no BPE, and for one that looks whole words up first; otherwise as `open_tokenizer`.
    """
    open_tokenizer(path)  # raises for a file that is none
    held: dict[str, Any] = read_json(path)
    model = held["model"]
    kind = model_kind(model)
    if kind != "BPE":
        raise InvalidInput(f"{path} is a {kind} tokenizer, which merges nothing; --how pieces gives fresh rows instead")
    if model.get("ignore_merges"):
        raise InvalidInput(f"{path} looks whole words up before it merges: its tokens are reached without their merges")
    texts = {token: text for text, token in model["vocab"].items()}
    added = {entry["id"] for entry in held.get("added_tokens") or []}
    results = [text for *_, text in merges_of(model)]
    makeable = set(results)
    merged = [token for token in tokens if token not in added and texts.get(token) in makeable]
    if not merged:
        raise InvalidInput(f"no merge of {path} makes any of the {len(tokens):,} tokens: they are added or characters")
    gone = {texts[token] for token in merged}
    model["merges"] = [pair for pair, text in zip(model["merges"], results, strict=True) if text not in gone]
    return json.dumps(held, ensure_ascii=False, indent=2).encode(), len(results) - len(model["merges"]), merged


def compare_tokenizers(
    before: Path, after: Path, tokens: Sequence[int], seed: int, progress: Report | None = None
) -> dict[str, Any]:
    """Return what changes where `after` lacks the merges of these tokens, JSON-ready; `progress` as `vocabulary`.

    Raises InvalidInput where a text still reaches one of the tokens, or a text is encoded differently that had neither
    one of them nor a token made of them.
    """
    old, new = map(open_tokenizer, (before, after))
    was, now = (vocabulary(tokenizer, progress=progress) for tokenizer in (old, new))
    still = [token for token in tokens if now.witness[token] is not None]
    if still:
        raise InvalidInput(f"token {still[0]} is still reached, by {now.witness[still[0]]!r}: nothing is written")
    witnesses = enumerate(zip(was.witness, now.witness, strict=True))
    lost = [token for token, (a, b) in witnesses if a is not None and b is None and token not in tokens]
    alone = [(data or b"").decode("utf-8", "replace") for data in was.data]
    drawn = np.random.default_rng(seed).integers(len(alone), size=(N_TEXTS, TOKENS_IN_A_TEXT))
    texts = [witness for witness in was.witness if witness]
    texts += ["".join(alone[token] for token in row) for row in drawn.tolist()]
    encoded = list(zip(texts, _ids_of(old, texts), _ids_of(new, texts), strict=True))
    gone = np.array([*tokens, *lost])
    others = [text for text, a, b in encoded if not np.isin(a, gone).any() and not np.array_equal(a, b)]
    if others:
        raise InvalidInput(f"the text {others[0]!r} would become other tokens, none of them chosen: nothing is written")
    spelled = _ids_of(new, [alone[token] for token in tokens])
    return {
        "n_texts_compared": len(texts),
        "n_texts_changed": sum(not np.array_equal(a, b) for _, a, b in encoded),
        "also_unreachable": lost,
        "splits": [
            {"id": token, "token": alone[token], "ids": ids, "tokens": [alone[one] for one in ids]}
            for token, ids in zip(tokens, map(np.ndarray.tolist, spelled), strict=True)
        ],
    }


def _ids_of(tokenizer: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    ids, of_text = tokenizer.encode(texts)
    return np.split(ids, np.searchsorted(of_text, np.arange(1, len(texts))))
