"""Tables of a vocabulary: what its tokens are, which no text reaches and why, and where runtimes differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console

from ..text import printable
from .console import SHOWN_TOKENS, facts, show, table, token_texts
from .document import WORDS

if TYPE_CHECKING:
    from ..measures.vocabulary import Vocabulary
    from ..measures.vocabulary.differences import Difference


def print_vocabulary(words: Vocabulary, to: Console, shown: int = SHOWN_TOKENS) -> None:
    """Print facts, the categories with their first tokens, and the reasons that put tokens out of reach."""
    show(facts(_facts(words)), to)
    rows = []
    for category, n in words.categories.items():
        tokens = [token for token, one in enumerate(words.category) if one == category]
        n_reached = sum(words.witness[token] is not None for token in tokens)
        rows.append([WORDS["categories"][category], f"{n:,}", f"{n_reached:,}", _listed(words, tokens, shown)])
    show(table(("tokens", "all", "with a witness", "the first"), rows, left=("tokens", "the first")), to, apart=True)
    proofs = Counter(reason for reason in words.proof if reason)
    if proofs:
        rows = [
            [reason, f"{n:,}", _listed(words, [token for token, one in enumerate(words.proof) if one == reason], shown)]
            for reason, n in proofs.most_common()
        ]
        headings = ("proved out of reach", "tokens", "the first")
        show(table(headings, rows, left=headings[::2]), to, apart=True)


def _facts(words: Vocabulary) -> Iterator[tuple[str, str]]:
    yield "tokenizer", printable(words.tokenizer or "none")
    yield "model", f"{words.model}, {words.n_texts:,} texts with ids up to {words.n_tokens - 1:,}"
    yield "runtime", runtime(words.runtime)
    yield "reachability", words.search
    if words.no_round_trip is not None:
        listed = _listed(words, words.no_round_trip, SHOWN_TOKENS)
        yield "no round trip", f"{len(words.no_round_trip):,} texts alone become other tokens  {listed}".rstrip()
    yield "fragments", f"{words.n_fragments:,} parts of characters besides the single bytes"
    for difference in words.differs:
        yield "differs", differing(difference)


def _listed(words: Vocabulary, tokens: Iterable[int], shown: int) -> str:
    ids = list(tokens)
    return token_texts(ids, [words.text[n] for n in ids[:shown]], shown)


def runtime(name: str | None) -> str:
    """Say for which library reachability holds."""
    return "none" if name is None else f"{name}: what is said of reachability holds for it"


def differing(difference: Difference) -> str:
    """Say how another tokenizer that applies, or merges alone, differ."""
    where = f", {printable(difference.tokenizer)}" if difference.tokenizer else ""
    counts = {
        "ids with other bytes": difference.n_other_bytes,
        "tokens that it does not reach": difference.n_not_reached,
        "tokens that it alone reaches": difference.n_reached_only_here,
    }
    said = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n)
    if difference.cannot_compare:
        said = f"{said + '; ' if said else ''}not compared in full: {printable(difference.cannot_compare)}"
    first = difference.first[:4]
    named = "  ".join(f"#{one.token_id}" if one.text is None else printable(one.text) for one in first)
    return f"{difference.runtime}{where}: {said or 'no differences'}{' (' + named + ', ...)' if named else ''}"
