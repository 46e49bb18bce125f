"""Merges: a BPE tokenizer without those that make chosen tokens, so that no text reaches them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInput
from ..measures.vocabulary import vocabulary
from ..progress import Report
from ..sources import read_json
from ..sources.tokenizer import Tokenizer, open_tokenizer
from .spelling import merges_of, model_kind

TOKENIZER_FILE = "tokenizer.json"
N_TEXTS = 20_000  # texts of several tokens that are encoded before and after
TOKENS_IN_A_TEXT = 4


def without_merges(path: Path, tokens: Sequence[int]) -> tuple[bytes, int, list[int]]:
    """Return a tokenizer.json without the merges that make these tokens, how many they were, and the tokens.

    Added tokens and characters, which no merge makes, are left out of them. Raises InvalidInput where none is left, for
    a tokenizer that is no BPE, and for one that looks whole words up first; otherwise as `open_tokenizer`.
    """
    open_tokenizer(path)  # which says what is wrong with it
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
    """Return what became of texts, JSON-ready, where `after` lacks merges of `before`; `progress` as `vocabulary`.

    Raises InvalidInput where a text still reaches one of the tokens, or a text encodes otherwise that none of them, nor
    a token that is made of them, was in.
    """
    old, new = (open_tokenizer(path) for path in (before, after))
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
    encoded = list(zip(texts, _encoded(old, texts), _encoded(new, texts), strict=True))
    gone = np.array([*tokens, *lost])
    others = [text for text, a, b in encoded if not np.isin(a, gone).any() and not np.array_equal(a, b)]
    if others:
        raise InvalidInput(f"the text {others[0]!r} would become other tokens, none of them chosen: nothing is written")
    spelled = _encoded(new, [alone[token] for token in tokens])
    return {
        "n_texts_compared": len(texts),
        "n_texts_changed": sum(not np.array_equal(a, b) for _, a, b in encoded),
        "also_unreachable": lost,
        "splits": [
            {"id": token, "token": alone[token], "ids": ids, "tokens": [alone[one] for one in ids]}
            for token, ids in zip(tokens, map(np.ndarray.tolist, spelled), strict=True)
        ],
    }


def _encoded(tokenizer: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    """Return the ids of each text."""
    ids, of_text = tokenizer.encode(texts)
    return np.split(ids, np.searchsorted(of_text, np.arange(1, len(texts))))
