"""Report studies: results under each condition, and answers to the questions that were written down beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from ..errors import InvalidInput
from .document import PAGES, WORDS, lines_of, print_text, rows_of
from .plot import BLACK, BLUE, Axis, Curve, Panel, Plot, around
from .training import CONFIDENCE, mean_of, spread

WIDE = 1e3  # ratio of the greatest to the least value beyond which an axis is logarithmic
SAID: dict[str, str] = WORDS["study"]  # labels of statistics


def answers(records: pl.DataFrame, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Answer each question by the differences between paired trainings, which share a seed.

    An answer is the mean difference, its 95% interval (Student) and a two-sided sign-flip permutation test: exact for
    up to 16 pairs, with 65,536 draws for more. `p_holm` is corrected for all questions of the study (Holm). A question
    with a `value` in place of a second condition takes differences from that.
    """
    from scipy.stats import permutation_test

    ended = records.filter(pl.col("status") == "complete").sort("replica")
    rows: list[dict[str, Any]] = []
    for question in parameters["questions"]:
        statistic = question["statistic"]
        pairs = ended.filter(condition=question["of"]).select("replica", of=statistic)
        if "value" in question:
            pairs = pairs.with_columns(against=pl.lit(question["value"], pl.Float64))
        else:
            other = ended.filter(condition=question["against"]).select("replica", against=statistic)
            pairs = pairs.join(other, on="replica")
        pairs = pairs.drop_nulls()
        first, second = (pairs[name].cast(pl.Float64) for name in ("of", "against"))
        p = None
        if len(pairs) > 1:
            drawn: dict[str, Any] = {"permutation_type": "samples", "n_resamples": 1 << 16, "random_state": 0}
            both = first.to_numpy(), second.to_numpy()
            test = permutation_test(both, lambda a, b, axis: (a - b).mean(axis=axis), vectorized=True, **drawn)
            p = float(test.pvalue)
        rows.append({**question, **(mean_of(first - second) or {"n": 0}), "p": p})
    known = sorted((row for row in rows if row["p"] is not None), key=lambda row: row["p"])
    largest = 0.0
    for place, row in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - place) * row["p"]))
        row["p_holm"] = largest
    return rows


def conditions(records: pl.DataFrame, shown: list[str]) -> dict[str, dict[str, Any]]:
    """Return `mean_of` these columns under each condition, with the numbers of trainings that ended and diverged."""
    rows: dict[str, dict[str, Any]] = {}
    for (name,), part in records.group_by("condition", maintain_order=True):
        ended = part.filter(pl.col("status") == "complete")
        means = {column: mean_of(ended[column].drop_nulls()) for column in shown}
        rows[str(name)] = {"n": len(ended), "n_diverged": len(part) - len(ended), **means}
    return rows


def cells(records: pl.DataFrame, parameters: dict[str, Any]) -> list[list[str]]:
    """Return a row for each condition: its name, mean and deviation of each shown statistic, and n."""
    shown = parameters["shown"]
    rows = conditions(records, shown).items()
    return [[name, *(spread(row[column]) for column in shown), f"{row['n']:,}"] for name, row in rows]


def headings(parameters: dict[str, Any]) -> list[str]:
    """Return the headings of `cells`."""
    return ["", *(SAID[name] for name in parameters["shown"]), "n"]


def answer_cells(records: pl.DataFrame, parameters: dict[str, Any]) -> list[list[str]]:
    """Return a row for each question: its text, statistic, difference, interval, number of pairs and p-values."""
    return rows_of("study_answers", answers=answers(records, parameters), said=SAID)


def sentences(records: pl.DataFrame, parameters: dict[str, Any]) -> list[str]:
    """Return the sentences below the tables."""
    lost = sum(row["n_diverged"] for row in conditions(records, []).values())
    return lines_of("study", parameters=parameters, diverged=lost, confidence=CONFIDENCE)


def print_study(records: pl.DataFrame, to: Console, parameters: dict[str, Any]) -> None:
    """Print the conditions, then the answers."""
    texts = {function.__name__: function(records, parameters) for function in (cells, answer_cells, sentences)}
    print_text("study", to, headings=headings(parameters), asked=PAGES["study"]["headings"], **texts)


def study_json(run: Path, records: pl.DataFrame, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a study."""
    return {
        "run": str(run),
        "study": parameters["study"],
        "confidence": CONFIDENCE,
        "conditions": conditions(records, parameters["shown"]),
        "answers": answers(records, parameters),
        "records": records.to_dicts(),
    }


def study_plot(records: pl.DataFrame, parameters: dict[str, Any]) -> Plot:
    """Plot the shown statistics: each training a point, the mean of each condition with its interval."""
    shown = parameters["shown"]
    rows = conditions(records, shown)
    if not rows:
        raise InvalidInput("no records")
    names = list(rows)[::-1]
    panels = []
    for column in shown:
        part = records.drop_nulls(column)
        places = [names.index(name) for name in part["condition"]]
        series = [Curve(x=part[column], y=places, line="", mark="o", hollow=True, alpha=0.6, colour=BLUE)]
        kept = [(place, row) for place, name in enumerate(names) if (row := rows[name][column])]
        for place, row in kept:
            if row["low"] is not None:
                series.append(Curve(x=[row["low"], row["high"]], y=[place] * 2, colour=BLACK))
        means = [row["mean"] for _, row in kept]
        series.append(Curve(x=means, y=[place for place, _ in kept], line="", mark="s", colour=BLACK, label="mean"))
        values = np.concatenate([np.asarray(one.x, float) for one in series])
        wide = len(values) and 0 < WIDE * values.min() < values.max()
        x = around(values, scale="log" if wide else "linear")
        panels.append(Panel(title=SAID[column], x=x, y=Axis(ends=(-0.6, len(names) - 0.4), names=names), series=series))
    n = parameters["replicas"]
    caption = f"{parameters['title']}\n{n:,} trainings of each condition, means with their {CONFIDENCE:.0%} interval"
    columns = 2 - len(panels) % 2
    height = 0.8 + 0.24 * len(names) * len(panels) / columns + 0.5
    return Plot(panels=panels, columns=columns, shared="y", height=height, caption=caption)
