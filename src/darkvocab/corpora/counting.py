"""Count the tokens of one piece of a corpus, and list the places of sought ones."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import InvalidInput, MissingFile
from ..measures.counts import PLACES, Places, joined
from ..runs.engine import open_engine
from ..sources import open_source
from ..sources.tokenizer import Tokenizer, tokenizer_of
from .documents import Span, Templated, Text, template_of, texts_of

BATCH_TEXTS = 4096  # most that are encoded at a time
BATCH_CHARACTERS = 1 << 18  # from which a batch is full
AROUND = 12  # tokens that are kept before and after a place


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Settings of a count: the model, the sought tokens, and the field of records."""

    source: str
    n_tokens: int  # of the model
    sought: tuple[int, ...]
    field: str
    report: Callable[[int], None] | None = None  # called with the bytes read, if a file is one piece

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of the source; MissingFile without one."""
        if tokenizer := tokenizer_of(open_source(self.source)):
            return tokenizer
        raise MissingFile(f"there is no tokenizer beside {self.source}, by which texts would become tokens")

    @cached_property
    def templated(self) -> Templated:
        """Function from messages of a chat to text, of `template_of`."""
        return template_of(open_source(self.source), self.tokenizer.texts)

    @cached_property
    def bytes_of(self) -> dict[int, bytes]:
        """Bytes of each token, after a space where a word begins if pieces within words are marked."""
        pieces = self.tokenizer.pieces
        mark = self.tokenizer.spelling.before
        spaced = (b" " * bool(mark and not name.startswith(mark)) for name in pieces.name)
        return {token: space + data for token, space, data in zip(pieces.token, spaced, pieces.data, strict=True)}

    @cached_property
    def line_ends(self) -> np.ndarray:
        """Number of line ends in each token; all 0 if the tokenizer treats them as spaces."""
        return np.array([self.bytes_of.get(token, b"").count(b"\n") for token in range(self.n_tokens)])

    def batches(self, spans: list[Span], tally: Counter[str]) -> Iterator[list[Text]]:
        """Yield the texts of a piece in batches that are encoded at a time."""
        batch: list[Text] = []
        size = 0
        for span in spans:
            for text in texts_of(span, self.field, self.templated, tally, by_line=not self.line_ends.any()):
                batch.append(text)
                size += len(text[0])
                if size >= BATCH_CHARACTERS or len(batch) == BATCH_TEXTS:
                    yield batch
                    batch = []
                    size = 0
        if batch:
            yield batch

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what a worker computes anew."""
        return {name: getattr(self, name) for name in ("source", "n_tokens", "sought", "field")}


def count(counting: Counting, spans: list[Span]) -> tuple[Counter[str], np.ndarray, Places]:
    """Count the tokens of one piece: return totals; occurrences of each token, and texts with it; places.

    Texts are encoded in one thread per core, a few batches ahead. Raises as `texts_of`, and InvalidInput for a token
    beyond the rows of the model.
    """
    tally = Counter(n_pieces=1, n_files=sum(not one.begin for one in spans), n_bytes=sum(one.n_bytes for one in spans))
    total = np.zeros((2, counting.n_tokens), np.int64)
    places: Places = {}
    with open_engine("threads") as threads:
        for n_texts, counts, some in threads.map(_encoded, counting, counting.batches(spans, tally)):
            tally.update(n_texts=n_texts, n_tokens=int(counts[0].sum()))
            total += counts
            places = joined(places, some)
            if counting.report and len(spans) == 1:
                counting.report(tally["at"])
    return tally, total, places


def _encoded(counting: Counting, batch: list[Text]) -> tuple[int, np.ndarray, Places]:
    """Encode texts: return their number; occurrences of each token, and texts with it; places of sought ones."""
    n_tokens = counting.n_tokens
    ids, text_of = counting.tokenizer.encode([text for text, *_ in batch])
    if len(ids) and ids.max() >= n_tokens:
        _, file, *_ = batch[text_of[ids.argmax()]]
        sizes = f"the tokenizer of {counting.source} gives token {ids.max():,}, and the model has {n_tokens:,} rows"
        raise InvalidInput(f"{file}: {sizes}: it is the tokenizer of another vocabulary")
    distinct = np.unique(text_of * n_tokens + ids) % n_tokens
    counts = np.stack([np.bincount(of, minlength=n_tokens) for of in (ids, distinct)])
    hits = np.flatnonzero(np.isin(ids, counting.sought))
    places: dict[int, list[dict[str, Any]]] = {}
    for _ in range(PLACES):  # the first of each token, then the second
        tokens, first = np.unique(ids[hits], return_index=True)
        for token, at in zip(tokens.tolist(), hits[first].tolist(), strict=True):
            begin, end = np.searchsorted(text_of, [text_of[at], text_of[at] + 1]).tolist()
            _, path, line, has_lines = batch[text_of[at]]
            file = path.encode("utf-8", "replace").decode()  # the name may not be UTF-8
            line += int(counting.line_ends[ids[begin:at]].sum()) * has_lines
            around = ids[max(begin, at - AROUND) : at], ids[at + 1 : min(end, at + 1 + AROUND)]
            data = (b"".join(counting.bytes_of.get(one, b"") for one in some.tolist()) for some in around)
            before, after = (part.decode("utf-8", "replace") for part in data)
            places.setdefault(token, []).append({"file": file, "line": line, "before": before, "after": after})
        hits = np.delete(hits, first)
    return len(batch), counts, places
