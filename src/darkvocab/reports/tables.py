"""Tables for people, from the JSON of a scan and the records of a run."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ..numerics import GRIDS
from ..runs.records import scan_records
from ..text import printable

if TYPE_CHECKING:
    import polars as pl

SHOWN_TOKENS = 12


class Recorded(Protocol):
    """Records by columns: a frame, or a run folder as `darkvocab.records.scan_records` reads it."""

    def __getitem__(self, name: str, /) -> pl.Series: ...

    def __len__(self) -> int: ...


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the process here, with 1


def console() -> Console:
    """A console that neither colours nor cuts what goes into a file or a pipe."""
    plain = _Console(highlight=False, emoji=False, markup=False)
    if not plain.is_terminal:
        plain.width = 160
    return plain


def show(renderable: RenderableType, to: Console) -> None:
    """Print without the blanks that rich leaves at the end of lines."""
    with to.capture() as captured:
        to.print(renderable)
    to.file.write("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def token_texts(hole: dict[str, Any], shown: int = SHOWN_TOKENS) -> str:
    """Texts of a black hole's tokens, or ids where there is no text, the first `shown` of them."""
    texts = [
        f"#{token}" if text is None else isolated(printable(text))
        for token, text in zip(hole["token_ids"][:shown], hole["tokens"][:shown], strict=True)
    ]
    left = hole["population"] - len(texts)
    return "  ".join(texts) + (f"  and {left:,} more" if left else "")


def isolated(text: str) -> str:
    """Text that does not turn its surroundings round: right-to-left letters between isolate marks."""
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text):
        return f"\u2068{text}\u2069"
    return text


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Names and values, one pair a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), Text(value))
    return table


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


SWEEP = {
    "unique_vectors": "unique rows",
    "n_black_holes": "black holes C",
    "black_hole_population": "population P",
    "n_singletons": "singletons",
    "largest_bh": "largest group",
    "max_l_inf": "max L-inf among {rows}",
    "max_l_inf_over_epsilon": "max L-inf / epsilon",
    "max_l_inf_steps": "max L-inf in grid steps",
    "n_components": "components of the graph",
    "global_density": "density of the graph",
}
# The notebook's key metrics, in its order; L-infinity over epsilon there, in weight units where there is none.
TRIALS = {
    "n_unique": "unique rows",
    "n_black_holes": "black holes C",
    "n_singletons": "singletons",
    "black_hole_population": "population P",
    "largest_bh": "largest black hole",
    "gini_coefficient": "Gini coefficient",
    "max_l_inf": "max L-inf / epsilon, {rows}",
    "mean_l_inf": "mean L-inf / epsilon",
    "median_l_inf": "median L-inf / epsilon",
    "max_l_inf_weight": "max L-inf, {rows}",
    "mean_l_inf_weight": "mean L-inf",
    "max_l_inf_steps": "max L-inf in grid steps",
    "n_components": "components of the graph",
    "n_isolated": "isolated rows",
    "largest_component_density": "density of the largest component",
    "global_density": "density of the graph",
}
MOMENTS = ("mean", "std", "min", "max")
ANSWERS = (
    *("sigma", "density", "mean L-inf", "median L-inf", "black holes", "<= 1 step", "<= 2 steps"),
    "populations",
)
QWEN3_4B = "Qwen3-4B: 13 black holes, populations [814, 704, 306, 228, 11, ...]"


def _labelled(records: Recorded, labels: dict[str, str]) -> Iterator[tuple[str, pl.Series]]:
    """Label and values of each statistic that was measured."""
    rows = records["l_inf_rows"].drop_nulls()
    for column, label in labels.items():
        values = records[column]
        if values.null_count() < len(values):
            yield label.format(rows=str(rows[0]).replace("_", " ") if len(rows) else "rows"), values


def ranges(records: Recorded, labels: dict[str, str] = SWEEP) -> list[dict[str, Any]]:
    """Range of each statistic over the records, and its mean at the smallest and at the largest sigma."""
    sigma = records["sigma"]
    first, last = sigma == sigma.min(), sigma == sigma.max()
    return [
        {
            "statistic": label,
            "min": values.min(),
            "median": values.median(),
            "max": values.max(),
            "first": values.filter(first).mean(),
            "last": values.filter(last).mean(),
        }
        for label, values in _labelled(records, labels)
    ]


def moments(records: Recorded, labels: dict[str, str] = TRIALS) -> list[dict[str, Any]]:
    """Mean, sample standard deviation (null for one record) and range of each statistic over the records."""
    rows = []
    for label, values in _labelled(records, labels):
        low, high = values.min(), values.max()
        std = values.std() if low != high or len(values) < 2 else 0.0  # not what rounding makes of it
        rows.append({"statistic": label, "mean": values.mean(), "std": std, "min": low, "max": high})
    return rows


def by_sigma(records: Recorded) -> list[dict[str, Any]]:
    """The three answers at each sigma: means over its trials, and the populations of its first."""
    import polars as pl

    means = "density mean_linf median_linf n_black_holes density_1_step density_2_steps n_columns_coarser".split()
    columns = {name: records[name] for name in ("sigma", *means, "demographics")}
    made = pl.DataFrame(columns).group_by("sigma", maintain_order=True)
    return made.agg(*(pl.col(name).mean() for name in means), pl.col("demographics").first()).to_dicts()


def number(value: float) -> str:
    """A statistic for people: counts in full, lengths to four digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def power(value: float) -> str:
    """A length for people, in powers of ten."""
    return f"{value:.2e}"


def _head(records: Recorded) -> str:
    sigma = records["sigma"]
    points = sigma.n_unique()
    trials = len(records) // points
    first, last = float(sigma.min()), float(sigma.max())  # type: ignore[arg-type]
    between = f"{points:,} sigma from {first:g} to {last:g}" if points > 1 else f"sigma {first:.7g}"
    return f"{len(records):,} records: {between}, {trials:,} trial{'s' * (trials > 1)} each"


def _grid(headings: Iterable[str]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def print_ranges(records: Recorded, to: Console, labels: dict[str, str] = SWEEP) -> None:
    """The notebook's summary of a sweep: how many records, and the range of each statistic."""
    sigma = records["sigma"]
    to.print(_head(records))
    columns = {"min": "min", "median": "median", "max": "max"}
    if sigma.min() < sigma.max():  # type: ignore[operator]
        ends = sigma.to_numpy()
        columns |= {"first": f"at {ends.min():.4g}", "last": f"at {ends.max():.4g}"}
    table = _grid(columns.values())
    for row in ranges(records, labels):
        table.add_row(row["statistic"], *(number(row[key]) for key in columns))
    show(table, to)


def print_trials(records: Recorded, to: Console) -> None:
    """The notebook's summary of trials at one sigma: mean and spread of each statistic; of a sweep its ranges."""
    if records["sigma"].n_unique() > 1:
        print_ranges(records, to, TRIALS)
        return
    to.print(_head(records))
    table = _grid(MOMENTS)
    for cells in moment_cells(records):
        table.add_row(*cells)
    show(table, to)


def moment_cells(records: Recorded) -> list[list[str]]:
    """`moments` for people: the statistic, then `MOMENTS`."""
    return [
        [row["statistic"], *("" if row[key] is None else number(row[key]) for key in MOMENTS)]
        for row in moments(records)
    ]


def print_questions(records: Recorded, to: Console) -> None:
    """The notebook's table of the three answers, its target, densities in grid steps, and what the threshold forces."""
    to.print(_head(records))
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ANSWERS[:-1]:
        table.add_column(heading, justify="right")
    table.add_column(ANSWERS[-1])
    for cells in answer_cells(records):
        table.add_row(*cells)
    show(table, to)
    to.print(f"\n{QWEN3_4B}")
    for sentence in remarks(records):
        to.print(sentence, soft_wrap=not to.is_terminal)


def answer_cells(records: Recorded) -> list[list[str]]:
    """`by_sigma` for people, in the columns of `ANSWERS`."""
    return [
        [
            power(row["sigma"]),
            density(row["density"]),
            power(row["mean_linf"]),
            power(row["median_linf"]),
            number(row["n_black_holes"]),
            density(row["density_1_step"]),
            density(row["density_2_steps"]),
            largest(row["demographics"]),
        ]
        for row in by_sigma(records)
    ]


def density(value: float) -> str:
    """Four decimals as the notebook has them, but a density that is not zero does not look so."""
    return f"{value:.4f}" if value == 0 or value >= 5e-5 else f"{value:.1e}"


def largest(demographics: str) -> str:
    """The first five populations."""
    populations = json.loads(demographics)
    return str(populations[:5])[:-1] + (", ...]" if len(populations) > 5 else "]")


def remarks(records: Recorded) -> list[str]:
    """What nobody should read into the answers of 13.5a."""
    touching, dim = records["touching"][0], records["hidden_dim"][0]
    coarser = records["n_columns_coarser"]
    least, most = int(coarser.min()), int(coarser.max())  # type: ignore[arg-type]
    if not most:
        return []
    how_many = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    share = (
        f"{least / dim:.0%}"
        if f"{least / dim:.0%}" == f"{most / dim:.0%}"
        else f"{least / dim:.0%} to {most / dim:.0%}"
    )
    return [
        f"The threshold ({touching}) lies below the grid's own step in {how_many} of {dim:,} columns ({share}): two "
        "tokens that differ there at all, by one step, count as apart. Once tokens move in those columns that alone "
        "drives the density to 0; the densities at 1 and 2 steps ask the grid itself."
    ]


PRINTED: dict[str, Callable[[Recorded, Console], None]] = {
    "sweep": print_ranges,
    "trials": print_trials,
    "questions": print_questions,
}


def summarised(experiment: str, records: Recorded) -> list[dict[str, Any]]:
    """What `--json` says of all the records."""
    if experiment == "questions":
        return by_sigma(records)
    if experiment == "trials" and records["sigma"].n_unique() == 1:
        return moments(records)
    return ranges(records, TRIALS if experiment == "trials" else SWEEP)


def experiment_json(experiment: str, made: pl.DataFrame | Path) -> Iterator[str]:
    """`{"summary": [...], "records": [...]}` piece by piece, from a run folder without holding its records."""
    import polars as pl
    import polars.selectors as cs

    records: Any = made if isinstance(made, pl.DataFrame) else scan_records(made)
    frames = [made] if isinstance(made, pl.DataFrame) else records.frames()
    yield '{"summary": ' + json.dumps(_finite(summarised(experiment, records)), allow_nan=False) + ', "records": ['
    comma = ""
    for frame in frames:
        for row in frame.with_columns(pl.when(cs.float().is_finite()).then(cs.float())).iter_rows(named=True):
            yield comma + json.dumps(row, allow_nan=False)
            comma = ", "
    yield "]}\n"


def _finite(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON knows no infinity: null."""
    return [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]


def print_experiment(experiment: str, made: pl.DataFrame | Path, to: Console) -> None:
    """The table of an experiment, from its frame or its run folder."""
    import polars as pl

    PRINTED[experiment](made if isinstance(made, pl.DataFrame) else scan_records(made), to)


def print_training(made: dict[str, Any], to: Console) -> None:
    """The first and the last state of a training."""
    names = {
        "n_unique": "unique rows",
        "n_black_holes": "black holes C",
        "black_hole_population": "population P",
        "n_singletons": "singletons",
        "largest_bh": "largest black hole",
    }
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for state in made["states"]:
        table.add_column(f"step {state['step']:,}", justify="right")
        table.add_column("unseen", justify="right")
    for key, name in names.items():
        table.add_row(name, *(f"{state[of][key]:,}" for state in made["states"] for of in ("all", "unseen")))
    show(table, to)
    loss = f"loss {made['loss']['first']:.4f} to {made['loss']['last']:.4f}; " if made["loss"] else ""
    to.print(f"{loss}the centroid moved by {made['centroid_displacement']:.6f}; {made['n_unseen']:,} tokens unseen")


def print_comparison(rows: Sequence[dict[str, Any]], to: Console) -> None:
    """Published figures beside ours, and below the table what stands in the way of checking one."""
    notes = list(dict.fromkeys(row["note"] for row in rows if row["note"]))
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading, justify in (("figure", "left"), ("published", "right"), ("here", "right"), ("agrees?", "left")):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        mark = f" [{notes.index(row['note']) + 1}]" if row["note"] else ""
        table.add_row(*(Text(str(row[key])) for key in ("figure", "published", "here")), Text(row["agrees"] + mark))
    show(table, to)
    for number, note in enumerate(notes, 1):
        to.print(f"[{number}] {note}")
