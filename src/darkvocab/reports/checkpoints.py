"""Print reports on checkpoints: scan, plan, corpus, neighbourhood, vocabulary, diff, repair, series, centroid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..measures.counts import Counts, never
from ..numerics import GRIDS
from .console import SHOWN_TOKENS, token_texts
from .document import WORDS, facts_of, first_events, print_text, printer

if TYPE_CHECKING:
    import polars as pl

    from ..checkpoints.scan_result import Scan
    from ..checkpoints.series import Series
    from ..measures.vocabulary import Vocabulary


print_plan = printer("plan")  # the reads of a scan
print_neighbourhood = printer("neighbourhood")  # facts, degrees, and the components with the most tokens
print_repair = printer("repair")  # changes made or planned, the method, and what was verified afterwards
print_centroid = printer("centroid")  # provenance and path of a centroid


def scan_facts(scan: Scan) -> list[tuple[str, str]]:
    """Return facts about the embedding and the grades of its tokens: names and values."""
    n_copies = len({token for copies in scan.copies for token in copies.token_ids})
    return facts_of("scan", scan=scan, grids=GRIDS, n_copies=n_copies)


def print_scan(scan: Scan, to: Console, shown: int = SHOWN_TOKENS, most_holes: int = 40) -> None:
    """Print facts, the dark tokens by category, and the black holes in descending order."""
    values = {"facts": scan_facts(scan), "categories": _categories(scan), "black_holes": scan.black_holes}
    print_text("scan", to, shown=shown, most_holes=most_holes, **values)


def _categories(scan: Scan) -> Iterator[dict[str, Any]]:
    """Yield each category with its numbers of tokens, dark ones and weak ones, and the latter two, the surest first."""
    surest = scan.listed("graded")
    titles = WORDS["categories"] | ({} if scan.vocabulary else {"unknown": "without a tokenizer"})
    for category, title in titles.items():
        if n := int((scan.tokens["category"] == category).sum()):
            graded = surest.filter(category=category)
            n_dark = int(graded["dark"].sum())
            tokens = {"ids": graded["id"].to_list(), "texts": graded["text"].to_list()}
            yield {"title": title, "n": n, "n_dark": n_dark, "n_weak": len(graded) - n_dark, **tokens}


def print_diff(report: dict[str, Any], to: Console, shown: int) -> None:
    """Print facts about each matrix, the tokens that moved farthest, and changes of black holes."""
    print_text("diff", to, report=report, shown=shown, grids=GRIDS)


def print_series(series: Series, to: Console) -> None:
    """Print census and changes of each checkpoint, events, and the black holes of the last checkpoint."""
    print_text("series", to, series=series, named=_named(series.tokens["text"]), **first_events(series.events))


def _named(texts: Sequence[str | None] | pl.Series) -> Callable[[Sequence[int], int], str]:
    """Return a function of ids and a number that names the first tokens by these texts."""
    return lambda ids, shown: token_texts(ids, [texts[token] for token in ids[:shown]], shown)


def print_vocabulary(words: Vocabulary, to: Console, shown: int = SHOWN_TOKENS) -> None:
    """Print facts, the categories with their first tokens, and the proofs that tokens are unreachable."""
    by_proof = {proof: tokens for proof, tokens in _tokens_by(words.proof).items() if proof}
    print_text(
        "vocabulary",
        to,
        words=words,
        shown=shown,
        by_category=_tokens_by(words.category),
        by_proof=dict(sorted(by_proof.items(), key=lambda item: -len(item[1]))),
        named=_named(words.text),
        n_witnessed=lambda tokens: sum(words.witness[token] is not None for token in tokens),
    )


def _tokens_by(names: Iterable[str | None]) -> dict[str | None, list[int]]:
    tokens: dict[str | None, list[int]] = defaultdict(list)
    for token, name in enumerate(names):
        tokens[name].append(token)
    return tokens


def print_counts(counts: Counts, to: Console, shown: int) -> None:
    """Print occurrences in a corpus by kind of token, estimates, and the tokens sought, the most frequent first."""
    print_text("counts", to, counts=counts, never=never(counts.tokens["count"].to_numpy()), shown=shown)
