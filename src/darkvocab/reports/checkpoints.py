"""Tables of commands on checkpoints: scan, plan, corpus, neighbourhood, vocabulary, diff, repair, history, centroid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..measures.counts import Counts, never
from ..numerics import GRIDS
from .console import SHOWN_TOKENS, facts, print_left, print_lines, show, table, token_texts
from .document import WORDS, facts_of, lines_of, print_events, table_of

if TYPE_CHECKING:
    import polars as pl

    from ..checkpoints.scan_result import Scan
    from ..checkpoints.series import Series
    from ..measures.vocabulary import Vocabulary

MOST_DEGREES, MOST_COMPONENTS, MOST_CHANGES, MOST_HOLES = 20, 20, 40, 20  # lines of tables
SHOWN_MEMBERS = 8  # of a black hole of a series


def print_plan(plan: dict[str, Any], to: Console) -> None:
    """Print what a scan would read."""
    show(table_of("plan", plan=plan), to)
    transfer = f"; {plan['bytes_to_transfer'] / 1e6:,.1f} MB of it from the Hub" if plan["source"] else ""
    show(Text(f"{plan['bytes'] / 1e6:,.1f} MB{transfer}; no tensor was read"), to)


def scan_facts(scan: Scan) -> list[tuple[str, str]]:
    """Return what a scan says of the embedding and of its tokens' grades: names and values for people."""
    n_copies = len({token for copies in scan.copies for token in copies.token_ids})
    return facts_of("scan", scan=scan, grids=GRIDS, n_copies=n_copies)


def print_scan(scan: Scan, to: Console, shown: int = SHOWN_TOKENS, most_holes: int = 40) -> None:
    """Print a scan: facts, the dark tokens by category, the black holes in descending order."""
    show(facts(scan_facts(scan)), to)
    show(_categories(scan, shown), to, apart=True)
    if not scan.black_holes:
        return
    show(table_of("holes", holes=scan.black_holes[:most_holes], shown=shown), to, apart=True)
    left = scan.black_holes[most_holes:]
    population = sum(hole.population for hole in left)
    print_left(len(left), f"black holes with {population:,} tokens; --json lists them all", to)


def _categories(scan: Scan, shown: int) -> Table:
    """Tabulate for each category how many tokens it has, how many are dark or weak, and the surest of these."""
    rows = []
    surest = scan.listed("graded")
    titles = WORDS["categories"] | ({} if scan.vocabulary else {"unknown": "without a tokenizer"})
    for category, title in titles.items():
        n = int((scan.tokens["category"] == category).sum())
        if n:
            graded = surest.filter(category=category)
            n_dark = int(graded["dark"].sum())
            ids = graded["id"].to_list()
            texts = token_texts(ids, graded["text"].to_list(), shown)
            rows.append([title, f"{n:,}", f"{n_dark:,}", f"{len(graded) - n_dark:,}", texts])
    return table(("tokens", "all", "dark", "weak", "the surest"), rows, left=("tokens", "the surest"))


def print_neighbourhood(report: dict[str, Any], to: Console, shown: int = SHOWN_TOKENS) -> None:
    """Print facts, the table of degrees, and the components with the most tokens."""
    show(facts(facts_of("neighbourhood", report=report)), to)
    if not report["n_pairs"]:
        return
    _print_degrees(report["degrees"], to)
    show(table_of("components", components=report["components"][:MOST_COMPONENTS], shown=shown), to, apart=True)
    left = report["components"][MOST_COMPONENTS:]
    n_tokens = sum(component["n_tokens"] for component in left)
    print_left(len(left), f"components with {n_tokens:,} tokens; --json lists them all", to)


def _print_degrees(degrees: list[list[int]], to: Console) -> None:
    """Print how many rows touch so many others, and how many tokens those rows stand for."""
    cells = ([f"{number:,}" for number in row] for row in degrees[:MOST_DEGREES])
    show(table(("degree", "rows", "tokens"), cells), to, apart=True)
    left = degrees[MOST_DEGREES:]
    rows, tokens = (sum(row[at] for row in left) for at in (1, 2))
    what = f"degrees up to {degrees[-1][0]:,}, of {rows:,} rows with {tokens:,} tokens; --json lists them all"
    print_left(len(left), what, to)


def print_diff(report: dict[str, Any], to: Console, shown: int) -> None:
    """Print a diff: facts of each matrix, the farthest movers, and changes of black holes."""
    show(facts(facts_of("diff", report=report, shown=shown)), to)
    for part in report["matrices"]:
        show(facts(facts_of("matrix_diff", part=part, grids=GRIDS)), to, apart=True)
        if part["movers"]:
            show(table_of("movers", part=part, shown=shown), to, apart=True)
            print_left(part["n_moved"] - shown, "moved tokens; --csv FILE lists them all", to)
        changes = [change for change in part["black_holes"] if change["kind"] != "kept"]
        if changes:
            show(table_of("changes", changes=changes[:MOST_CHANGES]), to, apart=True)
            print_left(len(changes) - MOST_CHANGES, "changed black holes; --json lists them all", to)


def print_repair(report: dict[str, Any], to: Console) -> None:
    """Print a repair: what was or would be changed, by which means, and what was read again afterwards."""
    show(facts(facts_of("repair", report=report, how=WORDS["repair"][report["how"]])), to)


def print_series(series: Series, to: Console) -> None:
    """Print each checkpoint's census and changes, events, and the black holes of the last."""
    bytes_read = series.checkpoints["bytes_read"].drop_nulls().to_list()
    values = {"last": series.checkpoints.row(-1, named=True), "bytes_read": sum(bytes_read) if bytes_read else None}
    show(facts(facts_of("series", summary=series.summary, **values)), to)
    show(table_of("checkpoints", rows=series.checkpoints.to_dicts()), to, apart=True)
    print_lines([WORDS["notes"]["series"]], to)
    print_events(series.events, lambda event: f"{event['name']}  ", "--out and --json", to)
    if series.black_holes.height:
        texts = series.tokens["text"]
        rows = series.black_holes.head(MOST_HOLES).to_dicts()
        show(table_of("series_holes", rows=rows, named=partial(_named, texts)), to, apart=True)
        print_left(series.black_holes.height - MOST_HOLES, "black holes; --out and --json have them all", to)


def _named(texts: pl.Series, ids: list[int]) -> str:
    return token_texts(ids, [texts[token] for token in ids[:SHOWN_MEMBERS]], SHOWN_MEMBERS)


def print_centroid(written: dict[str, Any], to: Console) -> None:
    """Print what a centroid was made of, and where it was written."""
    to.print(*lines_of("centroid", written=written), soft_wrap=True)


def print_vocabulary(words: Vocabulary, to: Console, shown: int = SHOWN_TOKENS) -> None:
    """Print facts, the categories with their first tokens, and the reasons that put tokens out of reach."""
    show(facts(facts_of("vocabulary", words=words, listed=partial(_listed, words, shown=SHOWN_TOKENS))), to)
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


def _listed(words: Vocabulary, tokens: Iterable[int], shown: int) -> str:
    ids = list(tokens)
    return token_texts(ids, [words.text[n] for n in ids[:shown]], shown)


def print_counts(counts: Counts, to: Console, shown: int) -> None:
    """Print the kinds of tokens of a corpus, what follows, and the sought that occur, the most frequent first."""
    show(table_of("corpus_kinds", kinds=counts.kinds()), to)
    to.print()
    print_lines(lines_of("corpus", read=counts.read, never=never(counts.tokens["count"].to_numpy())), to)
    rows = counts.occurring().to_dicts()
    if rows:
        show(table_of("occurring", rows=rows[:shown]), to, apart=True)
    print_left(len(rows) - shown, "that occur; --json lists them all", to)
