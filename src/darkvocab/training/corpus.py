"""Read the text that a model is trained on: token ids, which tokens never occur, and the order of examples."""

import hashlib
import sys
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from ..errors import CorruptFile, InvalidInput, MissingFile
from ..sources.tokenizer import open_tokenizer
from ..text import Shown, printable
from .choices import ERRORS

DEFAULT_BYTES = 265_905  # the length of the notebooks' novel
ORDERED = 4096  # examples whose order is computed at once


@dataclass(frozen=True, kw_only=True, repr=False)
class Corpus(Shown):
    """A text as token ids of a vocabulary."""

    name: str
    sha256: str  # of the file's bytes
    n_vocabulary: int
    n_dropped: int = 0  # bytes of the text outside the vocabulary
    path: str | None = None  # of its file, as given; None for the default text and for token ids of a caller
    is_default: bool = False  # Python's help topics
    tokenizer: str | None = None  # path of its tokenizer.json, as given; None: the tokens are bytes
    tokenizer_sha256: str | None = None
    ids: Integer[np.ndarray, " n_tokens"]

    def __post_init__(self) -> None:
        if not len(self.ids):
            raise InvalidInput(f"corpus {self.name}: no tokens of the vocabulary of {self.n_vocabulary:,} in it")
        if not 0 <= self.ids.min() <= self.ids.max() < self.n_vocabulary:
            raise InvalidInput(ERRORS["beyond_vocabulary"].format(corpus=self, largest=self.ids.max()))

    @cached_property
    def unseen(self) -> Int64[np.ndarray, " n_unseen"]:
        """Tokens that never occur in the text, ascending."""
        return np.flatnonzero(np.bincount(self.ids, minlength=self.n_vocabulary) == 0)

    def __str__(self) -> str:
        dropped = f" ({self.n_dropped:,} bytes beyond the vocabulary dropped)" if self.n_dropped else ""
        return f"corpus {printable(self.name)}: {len(self.ids):,} tokens{dropped}; unseen: {spans(self.unseen)}"

    def inputs(self) -> list[dict[str, Any]]:
        """Return what identifies the text and the tokenizer, for a manifest."""
        text = {"corpus": self.name, "sha256": self.sha256, "shape": [len(self.ids)]}
        if self.tokenizer is None:
            return [text]
        return [text, {"tokenizer": Path(self.tokenizer).name, "sha256": self.tokenizer_sha256}]

    def paths(self) -> dict[str, str]:
        """Return the files that were read, by the options that name them."""
        named = {"corpus": self.path, "tokenizer": self.tokenizer}
        return {option: path for option, path in named.items() if path is not None}

    def description(self) -> dict[str, Any]:
        """Return the contents of `corpus.json`: what was read, and the unseen tokens."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "n_tokens": len(self.ids),
            "n_dropped": self.n_dropped,
            "n_vocabulary": self.n_vocabulary,
            "unseen": self.unseen.tolist(),
        }


def spans(ids: Int64[np.ndarray, " n"], most: int = 20) -> str:
    """Describe token ids, ascending: how many, and the first of them as ranges.

    Examples
    --------
    >>> spans(np.array([0, 1, 2, 7]))
    '4 tokens (0-2, 7)'
    """
    if not len(ids):
        return "none"
    ends = np.flatnonzero(np.diff(ids) != 1)
    runs = zip(ids[np.append(0, ends + 1)], ids[np.append(ends, -1)], strict=True)
    named = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    return f"{len(ids):,} tokens ({', '.join(named[:most])}{', ...' if len(named) > most else ''})"


def load_corpus(
    source: str | Path | None = None, *, vocabulary: int | None = None, tokenizer: str | Path | None = None
) -> Corpus:
    """Read a text.

    Raises MissingFile where there is no such file; InvalidInput for no token in it, a text that is not UTF-8, or a
    vocabulary that is too small.

    Parameters
    ----------
    source : a file; by default the first 265,905 ASCII bytes of the help topics that come with Python
    vocabulary : without a tokenizer the tokens are the text's bytes below this: 128 (the default) or 256, as a rule
    tokenizer : a tokenizer.json; the text is then UTF-8, and the vocabulary at least the tokenizer's
    """
    if source is None:
        from pydoc_data.topics import topics

        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        origin: dict[str, Any] = {"name": f"pydoc-topics of Python {version}", "is_default": True}
        text = "".join(topics[topic] for topic in sorted(topics)).encode("ascii", "ignore")[:DEFAULT_BYTES]
    else:
        if (path := Path(source)).is_dir():
            raise MissingFile(f"corpus {path} is a folder; give a text file")
        origin = {"name": path.name, "path": str(source)}
        text = path.read_bytes()
    if not text:
        raise InvalidInput(f"corpus {origin['name']} is empty")
    origin["sha256"] = hashlib.sha256(text).hexdigest()
    if tokenizer is not None:
        return _encoded(origin, text, Path(tokenizer), vocabulary)
    n_vocabulary = 128 if vocabulary is None else vocabulary
    if not 1 <= n_vocabulary <= 256:
        raise InvalidInput(ERRORS["bytes_vocabulary"].format(n=n_vocabulary))
    ids = np.frombuffer(text, np.uint8)
    kept = ids[ids < n_vocabulary] if n_vocabulary < 256 else ids
    return Corpus(**origin, n_vocabulary=n_vocabulary, n_dropped=len(ids) - len(kept), ids=kept)


def _encoded(origin: dict[str, Any], text: bytes, path: Path, vocabulary: int | None) -> Corpus:
    if not path.is_file():
        raise MissingFile(f"there is no tokenizer {path}")
    try:
        tokenizer = open_tokenizer(path)
    except CorruptFile as error:
        raise InvalidInput(f"{path}: not a tokenizer.json ({error.__context__})") from None
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(ERRORS["not_utf8"].format(name=origin["name"], at=error.start)) from None
    size = len(tokenizer.pieces)
    if vocabulary is not None and vocabulary < size:
        raise InvalidInput(f"{path} has {size:,} tokens, more than the vocabulary of {vocabulary:,}")
    ids = tokenizer.encode([decoded])[0].astype(np.int32)
    hashed = hashlib.sha256(path.read_bytes()).hexdigest()
    return Corpus(**origin, n_vocabulary=vocabulary or size, tokenizer=str(path), tokenizer_sha256=hashed, ids=ids)


def shuffled(places: Int64[np.ndarray, " k"], n: int, key: int) -> Int64[np.ndarray, " k"]:
    """Apply a keyed permutation of range(n) to numbers of that range, without a table.

    A Feistel network of four rounds over the next power of four, repeated until the result is in range.

    Examples
    --------
    >>> sorted(shuffled(np.arange(10), 10, key=7).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = np.random.SeedSequence([key, n]).generate_state(4, np.uint64)
    out = np.asarray(places).astype(np.uint64)
    beyond = np.ones(len(out), bool)
    while beyond.any():
        left, right = out[beyond] >> np.uint64(half), out[beyond] & mask
        for round_key in keys:
            mixed = (right + round_key) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
            mixed *= np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed >> np.uint64(32)) & mask)
        out[beyond] = (left << np.uint64(half)) | right
        beyond = out >= np.uint64(n)
    return out.astype(np.int64)


@lru_cache(maxsize=256)  # trainings in one stack have a part each
def _ordered(seed: int, n: int, part: int) -> Int64[np.ndarray, " ordered"]:
    """Return examples part * ORDERED, ... of a training, see `examples`."""
    places = part * ORDERED + np.arange(ORDERED)
    epochs = places // n
    out = np.empty(ORDERED, np.int64)
    for epoch in np.unique(epochs):
        of_epoch = epochs == epoch
        key = np.random.SeedSequence([seed, int(epoch)]).generate_state(1, np.uint64)[0]
        out[of_epoch] = shuffled(places[of_epoch] % n, n, int(key))
    return out


def examples(seed: int, n: int, first: int, most: int) -> Int64[np.ndarray, " most"]:
    """Return `most` examples of a training, from number `first` on: 0 to n - 1 in a new order every epoch."""
    parts = range(first // ORDERED, (first + most - 1) // ORDERED + 1)
    order = np.concatenate([_ordered(seed, n, part) for part in parts])
    return order[first - parts[0] * ORDERED :][:most]
