"""Counts of a corpus beside a scan: a column, a kind of reference, a figure on the page, and files that are refused."""

import polars as pl
import pytest
import texts as made

from darkvocab import corpus, scan
from darkvocab.errors import CorruptFile, InvalidInput, MissingFile
from darkvocab.measures.counts import COUNTS_FILE
from darkvocab.measures.indicators import UNSEEN_TOKENS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return made.model(tmp_path_factory.mktemp("model"))


def counts_at(path, counts):
    frame = pl.DataFrame({"id": list(counts), "count": list(counts.values())})
    frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)
    return path


def test_counts_of_a_run_stand_beside_the_grades(model, tmp_path):
    (tmp_path / "a.txt").write_text("a gong, well")
    counted = corpus(tmp_path / "a.txt", tmp_path / "run", model=model)
    scanned, plain = scan(model, counts=tmp_path / "run" / COUNTS_FILE), scan(model)
    assert scanned.tokens["count"].to_list() == counted.tokens["count"].to_list()
    assert scanned.tokens.drop("count").equals(plain.tokens)  # most never occur: no sign of what is untrained
    assert scanned.counted["n"] == counted.to_json()["never"]["n"]
    assert scanned.to_json("dark")["tokens"][0]["count"] in (0, 1)
    assert "counted" not in plain.to_json()


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_tokens_that_never_occur_are_a_reference_where_they_stand_apart(name, model, tmp_path):
    path = counts_at(tmp_path / name, {token: 5 for token in range(made.N_TOKENS) if token not in made.UNTRAINED})
    plain, scanned = scan(model), scan(model, counts=path)
    assert plain.indicators.reference.kind != UNSEEN_TOKENS
    assert scanned.indicators.reference.kind == UNSEEN_TOKENS
    assert scanned.indicators.reference.n == len(made.UNTRAINED)
    assert scanned.listed("dark")["id"].sort().to_list() == list(made.UNTRAINED)


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"id,n\n1,2\n", InvalidInput, "counts are columns `id` and `count` of whole numbers from 0 on, not Schema"),
        (b"id,count\n1,-2\n", InvalidInput, "counts are columns `id` and `count`"),
        (b"id,count\n1,\n", InvalidInput, "counts are columns `id` and `count`"),
        (b"id,count\n1,0.5\n", InvalidInput, "counts are columns `id` and `count`"),
        (b"id,count\n1,2\n1,3\n", InvalidInput, "an id is there twice, or beyond the 320 tokens of the model: 1"),
        (b"id,count\n320,2\n", InvalidInput, "beyond the 320 tokens of the model: 320"),
        (b"", CorruptFile, "not counts as Parquet or CSV"),
        (None, MissingFile, "a.csv"),
    ],
)
def test_a_file_of_other_counts_is_refused(content, error, said, model, tmp_path):
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(error, match=said):
        scan(model, counts=tmp_path / "a.csv")


def test_a_file_that_is_no_parquet_is_refused(model, tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"id,count\n1,2\n")
    with pytest.raises(CorruptFile, match="not counts as Parquet or CSV"):
        scan(model, counts=tmp_path / "a.parquet")


def test_the_command_has_a_line_a_column_and_a_figure(cli, model, tmp_path):
    path = counts_at(tmp_path / "a.parquet", dict.fromkeys(range(256), 3))
    page, csv = tmp_path / "a.html", tmp_path / "b.csv"
    printed = cli("scan", model, "--counts", path, "--html", page, "--csv", csv, "--tokens", "all")
    assert printed.code == 0
    assert f"64 tokens, in the 768 of {path}" in printed.out
    assert pl.read_csv(csv)["count"].sum() == 768
    assert 'id="frequency"' in page.read_text()
    cli("scan", model, "--html", page)
    assert 'id="frequency"' not in page.read_text()
