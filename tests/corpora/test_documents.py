"""Texts of files: the same in every kind of file, cut at line ends, in their lines, with a sentence for what is bad."""

import gzip
import io
import json
import random
from collections import Counter
from types import SimpleNamespace

import polars as pl
import pytest
import texts as made

from darkvocab import corpus
from darkvocab.corpora import documents
from darkvocab.corpora.documents import pieces_of, texts_of
from darkvocab.errors import CorruptFile, InvalidInput, MissingFile


def no_chat(messages, place):
    raise InvalidInput(f"{place}: no template")


def read(*files, field="text", by_line=False):
    """All texts of some files, and what was tallied."""
    tally = Counter()
    pieces, n_binary = pieces_of([str(file) for file in files])
    spans = [span for piece in pieces for span in piece]
    texts = [text for span in spans for text in texts_of(span, field, no_chat, tally, by_line=by_line)]
    return texts, tally | Counter(n_pieces=len(pieces), n_binary=n_binary)


@pytest.mark.parametrize("name", made.FILES)
@pytest.mark.parametrize("piece", [1 << 24, 500])
def test_texts_are_the_same_in_every_kind_of_file(name, piece, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PIECE_BYTES", piece)
    file = tmp_path / name
    file.write_bytes(made.FILES[name](made.TEXTS))
    texts, _ = read(file)
    assert [text for text, *_ in texts] == [text for text in made.TEXTS if text]
    assert not any(has_lines for *_, has_lines in texts)


def test_each_file_of_a_folder_is_a_text(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    for n, text in enumerate(made.TEXTS):
        (folder / ("deeper" if n % 2 else "") / f"{n}.txt").write_text(text)
    (folder / ".hidden").write_text("hidden")
    (folder / "image.png").write_bytes(b"\x89PNG\0\0")
    texts, tally = read(folder)
    assert sorted(text for text, *_ in texts) == sorted(text for text in made.TEXTS if text)
    assert {line for _, _, line, _ in texts} == {1}
    assert tally["n_binary"] == 1


@pytest.mark.parametrize("seed", range(30))
def test_pieces_of_a_text_are_the_text_cut_at_line_ends(seed, tmp_path, monkeypatch):
    lot = random.Random(seed)
    monkeypatch.setattr(documents, "PIECE_BYTES", lot.randint(1, 200))
    monkeypatch.setattr(documents, "MAX_CHARACTERS", lot.randint(1, 60))
    text = "".join(lot.choice("ab \n\n\ré🙂") * lot.choice([1, 1, 1, 90]) for _ in range(lot.randint(1, 300)))
    file = tmp_path / "a.txt"
    file.write_bytes(text.encode())
    texts, tally = read(file)
    assert "".join(one for one, *_ in texts) == text
    assert tally["n_bad_lines"] == 0
    assert all(one.endswith("\n") or len(one) >= documents.MAX_CHARACTERS for one, *_ in texts[:-1])
    lines, by_line = text.split("\n"), read(file, by_line=True)[0]
    assert "".join(one for one, *_ in by_line) == text
    if tally["n_pieces"] == 1:  # else lines are counted from where each begins
        assert all(one.rstrip("\n") in lines[line - 1] for one, _, line, _ in by_line)


def test_a_line_longer_than_a_piece_is_read_once_and_encoded_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PIECE_BYTES", 1000)
    monkeypatch.setattr(documents, "MAX_CHARACTERS", 300)
    line = "word " * 2000
    for name, content in {"a.txt": line, "a.jsonl": json.dumps({"text": line})}.items():
        file = tmp_path / name
        file.write_text(f"{content}\n")
        texts, tally = read(file)
        assert "".join(one for one, *_ in texts).rstrip("\n") == line
        assert max(len(one) for one, *_ in texts) <= 600
        assert tally["n_pieces"] > 5


def test_lines_and_rows_are_those_of_the_file(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two\\nlines"}\n{"text": "three"}')
    (tmp_path / "a.csv").write_text('text,n\none,1\n"two\nlines",2\nthree,3\n')
    pl.DataFrame({"text": ["one", "two", "three"]}).write_parquet(tmp_path / "a.parquet")
    places = {name: [line for _, _, line, _ in read(tmp_path / name)[0]] for name in ("a.jsonl", "a.csv", "a.parquet")}
    assert places == {"a.jsonl": [1, 3, 4], "a.csv": [2, 4, 5], "a.parquet": [1, 2, 3]}


def test_a_field_may_lie_within_others(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": {"b": "deep"}}\n{"a": {"b": null}}\n')
    pl.DataFrame({"a": [{"b": "deep"}, {"b": None}]}).write_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert [text for text, *_ in read(tmp_path / name, field="a.b")[0]] == ["deep"]


def test_bytes_that_are_no_utf8_are_replaced_and_their_lines_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\nb\xffd\nb\xff\xfed\n" + "é".encode()[:1])
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "b\xffd"}\n{"text": "half \\ud800"}\n{"text": "good"}\n')
    (tmp_path / "a.csv").write_bytes(b"text\nb\xffd\ngood\n")
    said = {name: read(tmp_path / name) for name in ("a.txt", "a.jsonl", "a.csv")}
    assert {name: tally["n_bad_lines"] for name, (_, tally) in said.items()} == {"a.txt": 3, "a.jsonl": 2, "a.csv": 1}
    assert said["a.txt"][0][0][0] == "good\nb\ufffdd\nb\ufffd\ufffdd\n\ufffd"
    assert [text for text, *_ in said["a.jsonl"][0]] == ["b\ufffdd", "half \ufffd", "good"]


@pytest.mark.parametrize(("content", "kind"), [(b'{"text": "one"}\n{"text": "two"}', "json"), (b"one\ntwo\n", "text")])
def test_standard_input_is_json_where_it_begins_like_it(content, kind, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(content))))
    texts, tally = read("-")
    assert [text for text, *_ in texts] == (["one", "two"] if kind == "json" else ["one\ntwo\n"])
    assert tally["n_bytes"] == len(content)


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    {
        "no JSON": ("a.jsonl", b'{"text": "a"}\n{"text": \n', CorruptFile, r"a.jsonl:2: not JSON"),
        "deep JSON": ("a.jsonl", b'{"a":' * 99_999, CorruptFile, r"a.jsonl:1: not JSON"),
        "a list": ("a.jsonl", b'{"text": "a"}\n["b"]\n', InvalidInput, r"a.jsonl:2: no field 'text' \(is no object\)"),
        "no field": (
            "a.jsonl",
            b'{"body": "a", "n": 1}',
            InvalidInput,
            r":1: no field 'text' \(body, n\); --field says",
        ),
        "no column": ("a.csv", b"body,n\na,1\n", InvalidInput, r"a.csv:2: no field 'text' \(body, n\)"),
        "a number": ("a.jsonl", b'{"text": 3}', InvalidInput, r"a.jsonl:1: text is a int, neither a text nor messages"),
        "a chat": ("a.jsonl", b'{"text": [{"role": "user"}]}', InvalidInput, r"a.jsonl:1: no template"),
        "no gzip": ("a.txt.gz", b"plain", CorruptFile, r"a.txt.gz: damaged or cut short"),
        "cut gzip": ("a.txt.gz", gzip.compress(b"some text" * 99, mtime=0)[:-12], CorruptFile, "damaged or cut short"),
        "no zstd": ("a.txt.zst", b"plain text", CorruptFile, "damaged or cut short"),
        "cut zstd": ("a.txt.zst", made.zstd.compress(b"some text" * 99)[:-6], CorruptFile, "damaged or cut short"),
        "no Parquet": ("a.parquet", b"PAR1 and more", CorruptFile, "a.parquet: not a Parquet file"),
        "cut Parquet": ("a.parquet", made.as_parquet(made.TEXTS)[:-99], CorruptFile, "not a Parquet file"),
    }.values(),
)
def test_what_is_damaged_or_lacks_a_text_is_named_with_its_line(name, content, error, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=said):
        read(tmp_path / name)


def test_parquet_without_the_column_names_those_there_are(tmp_path):
    pl.DataFrame({"body": ["a"], "n": [1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match=r"a.parquet:1: no field 'text' \(body, n\)"):
        read(tmp_path / "a.parquet")


def test_a_place_far_inside_a_file_is_named_by_its_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PIECE_BYTES", 100)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n' * 20 + b"{\n")
    with pytest.raises(CorruptFile, match=r"a.jsonl behind byte 141:10: not JSON"):
        read(tmp_path / "a.jsonl")


def test_what_is_not_there_is_missing(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, said in (("none.txt", "no file or folder"), ("empty", "there is no text in")):
        with pytest.raises(MissingFile, match=said):
            pieces_of([str(tmp_path / name)])
    for name in ("a.txt", "a.parquet"):
        (tmp_path / name).write_bytes(made.as_parquet(["a"]))
        ((span,),), _ = pieces_of([str(tmp_path / name)])
        (tmp_path / name).unlink()
        with pytest.raises(MissingFile, match=name):
            list(texts_of(span, "text", no_chat, Counter(), by_line=False))


def test_empty_files_hold_no_text(tmp_path):
    for name, content in {"a.txt": b"", "a.jsonl": b"", "a.csv": b"", "a.gz": gzip.compress(b"", mtime=0)}.items():
        (tmp_path / name).write_bytes(content)
    assert read(tmp_path)[0] == []


def test_a_name_that_is_no_utf8_is_read_and_shown(tmp_path):
    file = tmp_path / "caf\udce9.txt"
    file.write_bytes(b"a fog")
    counts = corpus(tmp_path, model=made.model(tmp_path / ".model"))
    assert counts.occurring()["file"].to_list() == [f"{tmp_path}/caf?.txt"]
    json.dumps(counts.to_json())


def test_spans_have_all_bytes_of_a_file_and_all_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PIECE_BYTES", 1000)
    (tmp_path / "a.txt").write_bytes(b"ab\n" * 3333)
    pl.DataFrame({"text": [str(n).zfill(1000) for n in range(3)]}).write_parquet(
        tmp_path / "b.parquet", compression="uncompressed"
    )
    pieces, _ = pieces_of([str(tmp_path)])
    spans = [span for piece in pieces for span in piece]
    for name in ("a.txt", "b.parquet"):
        ours = [span for span in spans if span.path.endswith(name)]
        assert sum(span.n_bytes for span in ours) == (tmp_path / name).stat().st_size
        assert [span.begin for span in ours[1:]] == [span.end for span in ours[:-1]]
        assert sum(not span.begin for span in ours) == 1
