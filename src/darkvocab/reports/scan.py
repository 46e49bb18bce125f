"""Tables of a scan, of what one would read, of a neighbourhood, of a vocabulary, and of the tokens of a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..measures.counts import Counts, never
from ..numerics import GRIDS
from ..text import listed, printable
from .console import SHOWN_TOKENS, facts, isolated, print_left, print_lines, show, table, token_texts, without
from .document import WORDS

if TYPE_CHECKING:
    from ..checkpoints.scan_result import MatrixFacts, Scan
    from ..measures.vocabulary import Vocabulary
    from ..measures.vocabulary.differences import Difference

SHOWN_IDS = 8  # of tokens in a line
CORPUS_KINDS = ("tokens", "n", "that occur", "occurrences")
OCCURRING = ("id", "token", "grade", "times", "texts", "first in", "with the text around")
SHOWN_AROUND = 24  # characters before and behind a token of a corpus
MOST_DEGREES, MOST_COMPONENTS = 20, 20  # lines of the tables of a neighbourhood


def tied(matrix: MatrixFacts) -> str:
    """Say how the output matrix is related to the embedding."""
    if matrix.output_tensor is None or matrix.output_shape is None:
        alone = "tied: no output tensor of its own"
        return alone if matrix.tied else "untied, its config says, but no output tensor is here"
    output = printable(matrix.output_tensor)
    if matrix.output_tensor == matrix.tensor:
        return f"the output tensor, {'tied' if matrix.tied else 'untied'}"
    if matrix.tied:
        return f"tied: {output} holds the same words"
    rows, columns = matrix.output_shape
    if (rows, columns) != (matrix.n_tokens, matrix.hidden_dim):
        return f"untied: the output tensor {output} is {rows:,} x {columns:,}"
    return f"untied: the output tensor {output} differs"


def print_plan(plan: dict[str, Any], to: Console) -> None:
    """Print what a scan would read."""
    rows = []
    for read in plan["reads"]:
        shape = f"{printable(read['tensor'])}  {read['dtype']} {read['shape']}" if read["tensor"] else ""
        sizes = (f"{read[key] / 1e6:,.1f} MB" for key in ("bytes", "file_bytes"))
        rows.append([*sizes, read["purpose"], shape, printable(read["file"])])
    show(table(("would read", "of", "for", "tensor", "file"), rows, left=("for", "tensor", "file")), to)
    transfer = f"; {plan['bytes_to_transfer'] / 1e6:,.1f} MB of it from the Hub" if plan["source"] else ""
    show(Text(f"{plan['bytes'] / 1e6:,.1f} MB{transfer}; no tensor was read"), to)


def scan_facts(scan: Scan) -> Iterator[tuple[str, str]]:
    """Yield what a scan says of the embedding as a whole: names and values for people."""
    source = scan.source
    matrix = scan.matrix
    census = scan.census
    norms = scan.norms
    yield "source", printable(source.path)
    if source.hub:
        megabytes = f"{source.hub['bytes_read'] / 1e6:,.1f} MB from the Hub; the file has {source.bytes / 1e6:,.1f} MB"
        yield "read", megabytes if source.hub["bytes_read"] else "from the cache"
    yield "tensor", f"{printable(matrix.tensor)} (found {matrix.chosen}), {tied(matrix)}"
    for note in matrix.notes:
        yield "note", note
    if matrix.tying.sentence:
        yield "tying", matrix.tying.sentence
    yield "tokens", f"{matrix.n_tokens:,}{without(matrix.skipped)}"
    yield "dimension", f"{matrix.hidden_dim:,}"
    yield "grid", _grid(matrix)
    yield "unique rows", f"{census.n_unique:,}"
    yield "black holes C", f"{census.n_black_holes:,}"
    yield "population P", f"{census.black_hole_population:,} tokens in black holes"
    yield "singletons", f"{census.n_singletons:,}"
    beyond = scan.n_beyond_tokenizer
    yield "beyond tokenizer", "no tokenizer beside the weights" if beyond is None else f"{beyond:,} rows"
    if words := scan.vocabulary:
        if n := words.n_texts_beyond_matrix:
            yield "beyond the matrix", f"{n:,} tokens of the tokenizer, for which there are no rows"
        if words.runtime is not None and (words.runtime != "tokenizers" or words.differs):
            yield "runtime", runtime(words.runtime)
            for difference in words.differs:
                yield "differs", differing(difference)
    yield (
        "norm of rows",
        f"min {norms['min']:.4g}   5% {norms['p5']:.4g}   median {norms['p50']:.4g}   mean {norms['mean']:.4g}   "
        f"95% {norms['p95']:.4g}   max {norms['max']:.4g}",
    )
    name = "L-inf of black holes"
    l_inf = scan.l_inf
    if l_inf is None:
        yield name, "not computed: too many to compare all with all"
    elif census.n_black_holes > 1:
        furthest, mean = ("beyond float32" if value is None else f"{value:.4g}" for value in (l_inf.max, l_inf.mean))
        yield name, f"max {furthest} ({l_inf.max_steps:,} steps)   mean {mean}"


def _grid(matrix: MatrixFacts) -> str:
    if matrix.grid == matrix.stored_grid:
        return matrix.grid
    change = "rounded" if matrix.stored_grid in GRIDS else "dequantised"
    return f"{matrix.grid} ({change} from the stored {matrix.stored_grid})"


def print_scan(scan: Scan, to: Console, shown: int = SHOWN_TOKENS, most_holes: int = 40) -> None:
    """Print a scan: facts, the dark tokens by category, the black holes in descending order."""
    show(facts([*scan_facts(scan), *grade_facts(scan)]), to)
    show(_categories(scan, shown), to, apart=True)
    if not scan.black_holes:
        return
    rows = (
        [str(number), f"{hole.population:,}", token_texts(hole.token_ids, hole.tokens, shown)]
        for number, hole in enumerate(scan.black_holes[:most_holes], 1)
    )
    show(table(("#", "population", "tokens"), rows, left=("tokens",)), to, apart=True)
    left = scan.black_holes[most_holes:]
    population = sum(hole.population for hole in left)
    print_left(len(left), f"black holes with {population:,} tokens; --json lists them all", to)


def grade_facts(scan: Scan) -> Iterator[tuple[str, str]]:
    """Yield what a scan says of its tokens' grades: names and values for people."""
    yield "dark tokens", _dark(scan)
    yield "weak tokens", _weak(scan)
    if asked := scan.verified:
        yield (
            "verified tokens",
            f"{asked['n_verified']:,} of {asked['n_asked']:,} asked for by {printable(asked['run'])}",
        )
        if share := asked["recall"]:
            yield "named by the weights", f"{share['low']:.0%} to {share['high']:.0%} of those that it fails on"
    if counted := scan.counted:
        yield "never occur", f"{counted['n']:,} tokens, in the {counted['n_tokens']:,} of {printable(counted['file'])}"
    for side in scan.grades.sides:
        if side.near_zero:
            ids = listed(list(map(str, side.near_zero)), SHOWN_IDS)
            proof = f". {side.proves}" if side.proves else ""
            of = "" if side.side == "both" else f" of the {side.side}"
            yield "near zero", f"{len(side.near_zero):,} rows{of}: tokens {ids}{proof}"
    if scan.copies:
        n_tokens = len({token for copies in scan.copies for token in copies.token_ids})
        yield "copies", f"{n_tokens:,} trained tokens with the row of another: {_pairs(scan)}"
    if scan.n_never_emitted:
        yield "never emitted", f"{scan.n_never_emitted:,} tokens: greedy decoding takes the lowest id of equal rows"


def _pairs(scan: Scan) -> str:
    groups = (" = ".join(map(str, copies.token_ids[:SHOWN_IDS])) for copies in scan.copies[:SHOWN_IDS])
    return ", ".join(groups) + (", ..." if len(scan.copies) > SHOWN_IDS else "")


def _dark(scan: Scan) -> str:
    n = scan.grades.n_untrained
    reference = scan.indicators.reference
    if not n and scan.indicators.by is None:
        return "none: no rows stand apart from the others"
    if not n:
        rows = f"{reference.n:,} rows that were never trained: {reference.kind}"
        return f"none of {scan.matrix.n_tokens:,} is like the {rows}"
    sides = [side for side in scan.grades.sides if side.n_untrained]
    share = scan.indicators.expected_false_positives
    sure = f", about {share:.1%} of them wrongly" if share else ""
    by = "; ".join(
        side.reference if side.side == "both" else f"{side.n_untrained:,} by the {side.side}, {side.reference}"
        for side in sides
    )
    return f"{n:,} of {scan.matrix.n_tokens:,}{sure}; as rows that were never trained: {by}"


def _weak(scan: Scan) -> str:
    sides = scan.grades.sides
    return sides[0].says if len(sides) == 1 else " ".join(f"By the {side.side}: {side.says}" for side in sides)


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
    show(facts(_neighbourhood_facts(report)), to)
    if not report["n_pairs"]:
        return
    _print_degrees(report["degrees"], to)
    rows = []
    for component in report["components"][:MOST_COMPONENTS]:
        numbers = (f"{component[key]:,}" for key in ("number", "n_tokens", "n_rows", "n_black_holes"))
        rows.append([*numbers, token_texts(component["token_ids"], component["tokens"], shown)])
    show(table(("#", "tokens", "rows", "black holes", ""), rows), to, apart=True)
    left = report["components"][MOST_COMPONENTS:]
    n_tokens = sum(component["n_tokens"] for component in left)
    print_left(len(left), f"components with {n_tokens:,} tokens; --json lists them all", to)


def _neighbourhood_facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    core = len(report["cluster"]["core"])
    outliers = len(report["cluster"]["outliers"])
    smoke = (
        f"{core + outliers:,} tokens around the black holes (component {report['cluster']['component']:,}): core "
        f"{core:,}, in a black hole or touching one; outliers {outliers:,}, by way of others"
        if core
        else "none: there are no black holes"
    )
    return [
        ("source", printable(report["source"]["path"])),
        ("tensor", f"{printable(report['tensor'])} (found {report['chosen']})"),
        *((name, told.format(**report)) for name, told in WORDS["neighbourhood"].items()),
        ("frozen smoke", smoke),
    ]


def _print_degrees(degrees: list[list[int]], to: Console) -> None:
    """Print how many rows touch so many others, and how many tokens those rows stand for."""
    cells = ([f"{number:,}" for number in row] for row in degrees[:MOST_DEGREES])
    show(table(("degree", "rows", "tokens"), cells), to, apart=True)
    left = degrees[MOST_DEGREES:]
    rows, tokens = (sum(row[at] for row in left) for at in (1, 2))
    what = f"degrees up to {degrees[-1][0]:,}, of {rows:,} rows with {tokens:,} tokens; --json lists them all"
    print_left(len(left), what, to)


def print_vocabulary(words: Vocabulary, to: Console, shown: int = SHOWN_TOKENS) -> None:
    """Print facts, the categories with their first tokens, and the reasons that put tokens out of reach."""
    show(facts(_vocabulary_facts(words)), to)
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


def _vocabulary_facts(words: Vocabulary) -> Iterator[tuple[str, str]]:
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


def _read(counts: Counts) -> Iterator[str]:
    """Yield what was read, and what follows for tokens that do not occur."""
    words = WORDS["corpus"]
    for name in ("read", "n_bad_lines", "n_binary"):
        if counts.read.get(name, 1):
            yield words[name].format(**counts.read, megabytes=counts.read["n_bytes"] / 1e6)
    yield words["never" if counts.read["n_tokens"] else "none"].format(**never(counts.tokens["count"].to_numpy()))


def print_counts(counts: Counts, to: Console, shown: int) -> None:
    """Print the kinds, what follows, and the sought tokens that occur, the most frequent first."""
    kinds = ([kind, *(f"{n:,}" for n in numbers.values())] for kind, numbers in counts.kinds().items())
    show(table(CORPUS_KINDS, kinds), to)
    to.print()
    print_lines(_read(counts), to)
    rows = _occurring(counts)
    if rows:
        show(table(OCCURRING, rows[:shown], left=("token", "grade", *OCCURRING[-2:])), to, apart=True)
    print_left(len(rows) - shown, "that occur; --json lists them all", to)


def _occurring(counts: Counts) -> list[list[str]]:
    """Return a row for each sought token that occurs, the most frequent first: `OCCURRING`."""
    rows = []
    for row in counts.occurring().iter_rows(named=True):
        text = f"#{row['id']}" if row["text"] is None else printable(row["text"])
        before, after = printable(row["before"])[-SHOWN_AROUND:], printable(row["after"])[:SHOWN_AROUND]
        numbers = (f"{row[name]:,}" for name in ("count", "n_texts"))
        grade = row["grade"] + ", verified" * bool(row.get("verified"))
        where = f"{printable(row['file'])}:{row['line']}"
        rows.append([str(row["id"]), isolated(text), grade, *numbers, where, isolated(f"{before}[{text}]{after}")])
    return rows
