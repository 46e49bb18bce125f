"""Summaries of a run: numpy's statistics, over all records and at each sigma, whatever the numbers are."""

import json
import math
import shutil
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from darkvocab import summary, sweep
from darkvocab.cli import app
from darkvocab.errors import CorruptFile
from darkvocab.reports import summary as module
from darkvocab.reports.summary import SHOWN_QUANTILES
from darkvocab.runs.records import RunFolder, read_records


@dataclass(frozen=True)
class Row:
    sigma: float | None
    length: float | None
    count: int
    name: str | None
    seed: int


def folder(path, rows, *, landed=None, size=4):
    """A run with these records; of an unfinished one only the first parts."""
    manifest = {"command": "", "parameters": {}, "seed": 1, "packages": {}, "inputs": [], "n_records": len(rows)}
    with RunFolder(path, Row, manifest, records_per_part=size) as run:
        for number in run.parts.missing()[:landed]:
            run.land(number, rows[number * size : (number + 1) * size])
        if landed is None:
            run.finish()
    return path


ROWS = [Row(1e-9 * (k // 5), k / 8, (7 * k) % 5, "ab"[k % 2], 2**53 + 1) for k in range(20)]


def test_statistics_worked_by_hand(tmp_path):
    result = summary(folder(tmp_path / "run", [Row(1.0, v, 1, "a", 1) for v in (1.0, 2.0, 3.0, 5.0)]), bins=2)
    assert result["columns"] == {
        "length": {
            **{"count": 4, "nulls": 0, "nan": 0, "infinite": 0},
            **{"mean": 2.75, "std": pytest.approx(math.sqrt((1.75**2 + 0.75**2 + 0.25**2 + 2.25**2) / 3))},
            **{"min": 1.0, "p5": pytest.approx(1.15), "p25": 1.75, "p50": 2.5, "p75": 3.5},
            **{"p95": pytest.approx(4.7), "max": 5.0, "histogram": {"edges": [1.0, 3.0, 5.0], "counts": [2, 2]}},
        }
    }
    assert result["same"] == {"sigma": 1.0, "count": 1, "name": "a", "seed": 1}
    assert result["sigmas"] == {"count": 1, "min": 1.0, "max": 1.0}


def test_texts_that_are_as_frequent_stand_in_the_order_in_which_they_come(tmp_path):
    names = [f"n{(7 * k) % 31}" for k in range(31)]  # a random order passes once in 31! runs
    result = summary(folder(tmp_path / "run", [Row(1.0, 1.0, 1, name, 1) for name in names]))
    assert list(result["texts"]["name"]["counts"]) == names


def check(row, values):
    """A row of statistics against numpy's of the same values, None where there is none."""
    outside = np.array([value for value in values if value is not None], float)
    finite = outside[np.isfinite(outside)]
    assert row["nulls"] == sum(value is None for value in values)
    assert (row["nan"], row["infinite"]) == (np.isnan(outside).sum(), np.isinf(outside).sum())
    assert row["count"] == len(finite)
    if not len(finite):
        assert (row["mean"], row["p50"], row["histogram"]) == (None, None, None)
        return
    with np.errstate(all="ignore"):
        expected = dict(zip(SHOWN_QUANTILES, np.quantile(finite, list(SHOWN_QUANTILES.values())), strict=True))
        expected |= {"mean": finite.mean(), "std": finite.std(ddof=1) if len(finite) > 1 else math.nan}
    for key, value in expected.items():
        exact = key in SHOWN_QUANTILES
        assert row[key] == (pytest.approx(value, rel=0 if exact else 1e-9, abs=0) if np.isfinite(value) else None), key
    assert (row["min"], row["max"]) == (finite.min(), finite.max())
    counts, edges = row["histogram"]["counts"], row["histogram"]["edges"]
    assert (sum(counts), len(edges)) == (len(finite), len(counts) + 1)
    if row["min"] == row["max"]:
        assert counts == [len(finite)]
        return
    try:
        with np.errstate(over="raise"):
            theirs, at = np.histogram(finite, bins=7)
    except (ValueError, FloatingPointError):  # a range too small, or beyond float64
        return
    assert (counts, edges) == (theirs.tolist(), at.tolist())


SIGMA = st.sampled_from([None, math.nan, 0.0, 1e-9, 2e-9, 3e-9])
LENGTH = st.none() | st.floats() | st.floats(0, 1) | st.sampled_from([0.0, -0.0, 1.0, 1e308, -1e308])
COUNT = st.integers(0, 5) | st.integers(-(2**62), 2**62)


@pytest.mark.slow
@given(data=st.lists(st.builds(Row, SIGMA, LENGTH, COUNT, st.sampled_from(["a", "b", None]), st.just(3)), min_size=1))
def test_statistics_are_numpys_over_all_and_at_each_sigma(tmp_path_factory, data):
    path = folder(tmp_path_factory.mktemp("summary") / "run", data)
    result = summary(path, ["length", "count", "name"], bins=7)
    json.dumps(result, allow_nan=False)
    groups = {}
    for record in data:
        key = record.sigma if record.sigma is not None and np.isfinite(record.sigma) else None
        groups.setdefault(key, []).append(record)
    assert result["sigmas"]["count"] == len(groups)
    for name in ("length", "count"):
        check(result["columns"][name], [getattr(record, name) for record in data])
        if len(groups) > 1:
            single = result["columns"][name]["by_sigma"]
            assert [row["sigma"] for row in single] == sorted(groups, key=lambda key: (key is None, key))
            for row in single:
                check(row, [getattr(record, name) for record in groups[row["sigma"]]])
            means = [row["mean"] for row in single if row["mean"] is not None]
            if means and name == "count":
                ends = result["columns"][name]["mean_over_sigmas"]
                assert ends["lowest"]["mean"] == pytest.approx(min(means))
                assert ends["highest"]["mean"] == pytest.approx(max(means))
    names = [record.name for record in data]
    assert result["texts"]["name"]["counts"] == {name: names.count(name) for name in set(names)}
    shutil.rmtree(path)


def test_what_is_the_same_in_every_record_is_told_apart_unless_asked_for(tmp_path):
    path = folder(tmp_path / "run", ROWS)
    result = summary(path)
    assert result["same"] == {"seed": 2**53 + 1}  # exact
    assert list(result["columns"]) == ["sigma", "length", "count"]
    assert result["texts"] == {"name": {"n_distinct": 2, "counts": {"a": 10, "b": 10}}}
    asked = summary(path, ["seed"])
    assert (asked["same"], asked["texts"]) == ({}, {})
    assert asked["columns"]["seed"]["histogram"]["counts"] == [20]
    nothing = summary(folder(tmp_path / "nothing", [Row(1.0, None, k, None, 1) for k in range(3)]))
    assert nothing["same"] == {"sigma": 1.0, "length": None, "name": None, "seed": 1}


def test_a_summary_does_not_depend_on_the_order_of_sigma(tmp_path):
    ordered, mixed = summary(folder(tmp_path / "a", ROWS)), summary(folder(tmp_path / "b", ROWS[::-1]))
    assert mixed["columns"] == ordered["columns"]


def test_a_summary_of_an_unfinished_run_is_of_what_has_landed(tmp_path):
    part = summary(folder(tmp_path / "part", ROWS, landed=3))
    first = summary(folder(tmp_path / "first", ROWS[:12]))
    assert (part["status"], part["n_landed"], part["n_records"]) == ("interrupted", 12, 20)
    assert (part["columns"], part["same"], part["texts"]) == (first["columns"], first["same"], first["texts"])
    nothing = summary(folder(tmp_path / "nothing", ROWS, landed=0), ["length"])
    assert (nothing["n_landed"], nothing["columns"]) == (0, {})


def test_many_sigma_are_told_apart_only_while_they_are_few_numbers(tmp_path, monkeypatch):
    path = folder(tmp_path / "run", ROWS)
    monkeypatch.setattr(module, "MOST_NUMBERS", 4 * 2 * 42)
    assert summary(path)["columns"]["length"]["by_sigma"] is None
    assert len(summary(path, ["length", "count"])["columns"]["length"]["by_sigma"]) == 4


@pytest.mark.parametrize(
    ("asked", "says"),
    [({"columns": ["nothing"]}, "no column 'nothing'; choose one of sigma, length"), ({"bins": 0}, "from 1 to 10,000")],
)
def test_what_cannot_be_summed_up_is_refused(tmp_path, asked, says):
    with pytest.raises(ValueError, match=says):
        summary(folder(tmp_path / "run", ROWS), **asked)


def test_records_whose_sigma_is_text_are_refused(tmp_path):
    path = folder(tmp_path / "run", ROWS)
    read_records(path).with_columns(pl.col("sigma").cast(pl.String)).write_parquet(path / "records.parquet")
    with pytest.raises(CorruptFile, match="sigma is no number"):
        summary(path)


# The command --------------------------------------------------------------------------------------------------------


def run(*words, code=0):
    result = CliRunner().invoke(app, ["summary", *map(str, words)], catch_exceptions=False, env={"COLUMNS": "160"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    path = tmp_path_factory.mktemp("swept") / "run"
    list(sweep([1e-9, 3e-9, 9e-9], trials=20, n_tokens=60, out=path))
    return path


@pytest.mark.slow
def test_the_table_has_a_row_for_each_column_that_varies(swept):
    printed = run(swept).stdout
    assert "60 records at 3 sigma from 1e-09 to 9e-09\n" in printed
    above, below = printed.split("the same in every record:\n")
    rows = {line.split("  ")[0] for line in above.splitlines()}
    same = dict(line.split(maxsplit=1) for line in below.splitlines())
    assert {"n_black_holes", "unique_vectors", "sigma"} <= rows
    assert (same["seed"], same["base"], same["epsilon"]) == ("42", "qwen3-4b", "none")
    assert not rows & same.keys()


def test_a_column_that_is_asked_for_has_a_row_for_each_sigma(swept):
    printed = run(swept, "--column", "n_singletons", "--column", "sampler", "--bins", 5).stdout
    values = read_records(swept).filter(pl.col("sigma") == 9e-9)["n_singletons"]
    (line,) = [line for line in printed.splitlines() if line.startswith("9e-09")]
    assert line.split()[:2] == ["9e-09", "20"]
    assert float(line.split()[2]) == pytest.approx(values.mean(), rel=1e-3)
    assert "sampler: sparse 60\n" in printed
    assert "the same" not in printed


def test_the_command_prints_json_of_a_run_with_every_kind_of_number(tmp_path):
    odd = [Row(None, v, 1, "\x1b[2J", 1) for v in (math.nan, math.inf, None, 1.0, 2.0)]
    path = folder(tmp_path / "run", odd)

    def refused(name):
        raise AssertionError(name)

    result = json.loads(run(path, "--json").stdout, parse_constant=refused)
    assert result["columns"]["length"]["count"] == 2
    printed = run(path).stdout
    assert "length: 1 missing, 1 NaN, 1 infinite, left out above" in printed
    assert "\x1b" not in printed


def test_an_unfinished_run_says_how_much_has_landed(tmp_path):
    path = folder(tmp_path / "run", ROWS, landed=2)
    result = run(path)
    assert "8 of 20 records have landed; the run is interrupted" in result.stderr
    assert "landed" not in result.stdout
    assert json.loads(run(path, "--json").stdout)["n_landed"] == 8
    assert "0 of 20 records have landed" in run(folder(tmp_path / "nothing", ROWS, landed=0)).stderr


def test_no_run_and_no_column_end_with_their_exit_codes(tmp_path, swept):
    assert "holds no run" in run(tmp_path / "nothing", code=3).stderr
    assert "no column 'x'" in run(swept, "--column", "x", code=2).stderr
