"""Tables of a scan: facts, dark tokens by category, black holes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..numerics import GRIDS
from ..text import printable

if TYPE_CHECKING:
    import polars as pl
from .console import SHOWN_TOKENS, facts, show, token_texts


def tied(report: dict[str, Any]) -> str:
    """What the output matrix is to the rows of a scan."""
    if not report["output_tensor"]:
        own = "tied: no output tensor of its own"
        return own if report["tied"] else "untied, its config says, but no output tensor is here"
    output = printable(report["output_tensor"])
    if report["output_tensor"] == report["tensor"]:
        return f"the output tensor, {'tied' if report['tied'] else 'untied'}"
    if report["tied"]:
        return f"tied: {output} holds the same words"
    rows, columns = report["output_shape"]
    if [rows, columns] != [report["n_tokens"], report["hidden_dim"]]:
        return f"untied: the output tensor {output} is {rows:,} x {columns:,}"
    return f"untied: the output tensor {output} differs"


def _transferred(source: dict[str, Any]) -> tuple[str, str]:
    read, size = source["bytes_read"], source["bytes"]
    return "read", f"{read / 1e6:,.1f} MB from the Hub; the file has {size / 1e6:,.1f} MB" if read else "from the cache"


def print_plan(plan: dict[str, Any], to: Console) -> None:
    """What a scan would read, for people."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("would read", "of", "for", "tensor", "file"):
        table.add_column(name, justify="right" if name in ("would read", "of") else "left", overflow="fold")
    for read in plan["reads"]:
        shape = f"{printable(read['tensor'])}  {read['dtype']} {read['shape']}" if read["tensor"] else ""
        sizes = (f"{read[key] / 1e6:,.1f} MB" for key in ("bytes", "file_bytes"))
        table.add_row(*sizes, read["purpose"], Text(shape), Text(printable(read["file"])))
    show(table, to)
    transfer = f"; {plan['bytes_to_transfer'] / 1e6:,.1f} MB of it from the Hub" if plan["source"] else ""
    show(Text(f"{plan['bytes'] / 1e6:,.1f} MB{transfer}; no tensor was read"), to)


def _without_rows(vocabulary: dict[str, Any] | None) -> list[tuple[str, str]]:
    n = vocabulary["n_texts_beyond_matrix"] if vocabulary else 0
    return [("beyond the matrix", f"{n:,} tokens of the tokenizer, for which there are no rows")] if n else []


def scan_facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What a scan says of the embedding as a whole: names and values for people."""
    grid = report["grid"]
    if grid != report["stored_grid"]:
        how = "rounded" if report["stored_grid"] in GRIDS else "dequantised"
        grid = f"{grid} ({how} from the stored {report['stored_grid']})"
    beyond = report["n_beyond_tokenizer"]
    norms, l_inf = report["norms"], report["l_inf"]
    pairs = [
        ("source", printable(report["source"]["path"])),
        *([_transferred(report["source"])] if "repo" in report["source"] else []),
        ("tensor", f"{printable(report['tensor'])} (found {report['chosen']}), {tied(report)}"),
        ("tokens", f"{report['n_tokens']:,}"),
        ("dimension", f"{report['hidden_dim']:,}"),
        ("grid", grid),
        ("unique rows", f"{report['n_unique']:,}"),
        ("black holes C", f"{report['n_black_holes']:,}"),
        ("population P", f"{report['black_hole_population']:,} tokens in black holes"),
        ("singletons", f"{report['n_singletons']:,}"),
        ("beyond tokenizer", "no tokenizer beside the weights" if beyond is None else f"{beyond:,} rows"),
        *_without_rows(report["vocabulary"]),
        (
            "norm of rows",
            f"min {norms['min']:.4g}   5% {norms['p5']:.4g}   median {norms['p50']:.4g}   mean {norms['mean']:.4g}   "
            f"95% {norms['p95']:.4g}   max {norms['max']:.4g}",
        ),
    ]
    if l_inf is None:
        pairs.append(("L-inf of black holes", "not computed: too many to compare all with all"))
    elif report["n_black_holes"] > 1:
        furthest, mean = ("beyond float32" if l_inf[key] is None else f"{l_inf[key]:.4g}" for key in ("max", "mean"))
        pairs.append(("L-inf of black holes", f"max {furthest} ({l_inf['max_steps']:,} steps)   mean {mean}"))
    return pairs


def print_scan(
    report: dict[str, Any], tokens: pl.DataFrame, to: Console, shown: int = SHOWN_TOKENS, most_holes: int = 40
) -> None:
    """A scan for people: facts, the dark tokens by category, the black holes in descending order."""
    pairs = [*scan_facts(report), ("dark tokens", _dark(report["indicators"], report["n_tokens"]))]
    show(facts(pairs), to)
    to.print()
    show(_categories(tokens, shown), to)
    if not report["black_holes"]:
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("#", justify="right")
    table.add_column("population", justify="right")
    table.add_column("tokens", overflow="fold")
    for number, hole in enumerate(report["black_holes"][:most_holes], 1):
        table.add_row(str(number), f"{hole['population']:,}", Text(token_texts(hole, shown)))
    to.print()
    show(table, to)
    left = report["black_holes"][most_holes:]
    if left:
        population = sum(hole["population"] for hole in left)
        to.print(f"and {len(left):,} more black holes with {population:,} tokens; --json lists them all")


def _dark(indicators: dict[str, Any], n_tokens: int) -> str:
    """How many tokens are dark, by what, and how sure."""
    reference = indicators["reference"]
    if indicators["by"] is None:
        return "none: no rows stand apart from the others"
    share = indicators["expected_false_positives"]
    sure = "" if share is None else f", about {share:.1%} of them wrongly"
    return (
        f"{indicators['n_dark']:,} of {n_tokens:,}{sure}; as {reference['n']:,} rows that were never trained: "
        f"{reference['kind']}"
    )


CATEGORIES = {
    "reachable": "reachable",
    "partial_utf8": "part of a character",
    "special": "special",
    "unreachable": "unreachable",
    "beyond_tokenizer": "beyond the tokenizer",
    "unknown": "without a tokenizer",
}


def _categories(tokens: pl.DataFrame, shown: int) -> Table:
    """Of each category how many tokens there are, how many are dark, and the surest of these."""
    import polars as pl

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("tokens")
    table.add_column("all", justify="right")
    table.add_column("dark", justify="right")
    table.add_column("the surest", overflow="fold")
    for category, title in CATEGORIES.items():
        of = tokens.filter(pl.col("category") == category)
        dark = of.filter("dark").sort("score", "norm", descending=[True, False])
        if len(of):
            listed = {"population": len(dark), "token_ids": dark["id"].to_list(), "tokens": dark["text"].to_list()}
            table.add_row(title, f"{len(of):,}", f"{len(dark):,}", Text(token_texts(listed, shown)))
    return table
