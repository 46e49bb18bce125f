"""Two checkpoints row by row: by hand, through real files, at the scale of a real checkpoint."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from darkvocab import diff
from darkvocab.checkpoints.diff import changes
from darkvocab.measures.census import Census, census
from darkvocab.numerics.grouping import identical_rows
from darkvocab.reports.checkpoints import print_diff
from darkvocab.reports.console import console

MODEL = Path(__file__).parents[2] / "demo" / "all-MiniLM-L6-v2"
real = pytest.mark.skipif(not MODEL.is_dir(), reason="make test downloads it")
EMBEDDING = "embeddings.word_embeddings.weight"


def rows(n=60, dim=8, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def save(folder, matrix, *, texts=None, config=None, **others):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"model.embed_tokens.weight": matrix, **others}, folder / "model.safetensors")
    if texts:
        model = {"type": "WordLevel", "vocab": {text: i for i, text in enumerate(texts)}, "unk_token": texts[0]}
        (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    (folder / "config.json").write_text(json.dumps(config or {}))
    return folder


# Black holes --------------------------------------------------------------------------------------------------------


def followed(a, b):
    """Changes between two lists of rows, one number a token, as (kind, in A, in B, joined, left, from, to)."""

    def holes(numbers):
        groups = identical_rows(np.array(numbers, np.uint32)[:, None])
        result = np.zeros(len(numbers), np.int64)
        for number, tokens in enumerate(Census(groups).members(), 1):
            result[tokens] = number
        return result

    return [
        (c.kind, c.a, c.b, c.joined.tolist(), c.left.tolist(), c.came_from, c.went_to)
        for c in changes(holes(a), holes(b))
    ]


def test_what_becomes_of_black_holes_by_hand():
    #         0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17 18
    before = [1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 4, 5, 5, 6, 7, 8, 8, 8, 9]
    after = [1, 1, 2, 2, 2, 2, 3, 4, 4, 7, 7, 5, 0, 8, 8, 9, 9, 6, 9]
    # In A by population: 1 is 4, 2 is 2, 3 is 8, 4 is 1, 5 is 3, 6 is 5. In B: 1 is 2, 2 is 9, then 1, 4, 7, 8.
    assert followed(before, after) == [
        ("shrunk", 1, 4, [], [9, 10], (), ((5, 2),)),
        ("grown", 2, 1, [5], [], ((5, 1),), ()),
        ("changed", 3, 2, [18], [17], (), ()),
        ("kept", 4, 3, [], [], (), ()),
        ("merged", 5, None, [], [5, 6], (), ((1, 1),)),
        ("dissolved", 6, None, [], [11, 12], (), ()),
        ("split", None, 5, [9, 10], [], ((1, 2),), ()),
        ("born", None, 6, [13, 14], [], (), ()),
    ]


def test_tokens_of_one_vocabulary_alone_are_in_no_black_hole_of_the_other():
    assert followed([1, 1, 2], [1, 1, 2, 1, 3, 3]) == [
        ("grown", 1, 1, [3], [], (), ()),
        ("born", None, 2, [4, 5], [], (), ()),
    ]
    assert followed([1, 1, 2, 1, 3, 3], [1, 1, 2]) == [
        ("shrunk", 1, 1, [], [3], (), ()),
        ("dissolved", 2, None, [], [4, 5], (), ()),
    ]


def test_changes_account_for_every_token_of_a_black_hole():
    rng = np.random.default_rng(5)
    for _ in range(20):
        a, b = rng.integers(0, 12, 60).tolist(), rng.integers(0, 12, 60 + rng.integers(9)).tolist()
        result = followed(a, b)
        assert sum(hole_a is not None for _, hole_a, *_ in result) == sum(a.count(n) > 1 for n in set(a))
        assert sum(hole_b is not None for _, _, hole_b, *_ in result) == sum(b.count(n) > 1 for n in set(b))
        for kind, hole_a, hole_b, joined, left, came, went in result:
            assert (hole_a is None) == (kind in ("split", "born"))
            assert (hole_b is None) == (kind in ("merged", "dissolved"))
            assert sum(n for _, n in came) <= len(joined)
            assert sum(n for _, n in went) <= len(left)


# Rows ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rows_are_equal_by_value_or_bit_for_bit(tmp_path):
    a, b = rows(4, 2), rows(4, 2)
    a[1, 0], b[1, 0], b[2, 1], b[3] = 0.0, -0.0, a[2, 1] * 2, a[3] + 3
    one, other = save(tmp_path / "a", a), save(tmp_path / "b", b)
    (part,) = diff(one, other).parts
    assert (part.equal.tolist(), part.displacements.same.tolist()) == (
        [True, True, False, False],
        [True, False] + [False] * 2,
    )
    assert part.movers().tolist() == [3, 2]
    assert part.displacements.l_inf_steps[2] == 1 << 23  # a binade
    (part,) = diff(one, other, bitwise=True).parts
    assert part.equal.tolist() == [True, False, False, False]
    assert diff(one, one).differs is False
    assert diff(one, other).differs is True


def test_vocabularies_may_differ_in_size_and_texts(tmp_path):
    texts = [f"t{i}" for i in range(70)]
    a = save(tmp_path / "a", rows(60), texts=texts[:60])
    b = save(tmp_path / "b", np.concatenate([rows(60), rows(4)]), texts=[*texts[:5], "new", *texts[6:62]])
    result = diff(a, b).to_json()
    (part,) = result["matrices"]
    assert {k: part[k] for k in ("n_common", "n_equal", "n_moved", "n_only_a", "n_only_b")} == {
        **{"n_common": 60, "n_equal": 60, "n_moved": 0, "n_only_a": 0, "n_only_b": 4},
    }
    assert part["moved"] is None
    assert result["texts"] == {
        **{"n_different": 1, "n_only_a": 0, "n_only_b": 2},
        "different": [{"token_id": 5, "a": "t5", "b": "new"}],
    }
    assert [(hole["kind"], hole["joined"]) for hole in part["black_holes"]] == [("born", [k, 60 + k]) for k in range(4)]
    assert diff(b, a).to_json()["matrices"][0]["n_only_a"] == 4
    assert diff(a, b, tokenizer="none").to_json()["texts"] is None


@pytest.mark.slow
def test_other_grids_are_compared_on_the_coarser_one(tmp_path):
    a = save(tmp_path / "a", rows())
    b = save(tmp_path / "b", rows().astype(ml_dtypes.bfloat16))
    c = save(tmp_path / "c", rows().astype(np.float16))
    for x, y, grid in ((a, b, "bfloat16"), (b, a, "bfloat16"), (a, c, "float16"), (c, b, "bfloat16")):
        (part,) = diff(x, y).parts
        assert part.grid.name == grid
    assert diff(a, b).differs is False
    (part,) = diff(a, b, grid="float32").parts
    assert part.equal.sum() == 0
    (part,) = diff(a, c, grid="float8_e5m2").parts
    assert part.equal.mean() > 0.9  # rounded twice here and once there


def test_an_untied_model_is_compared_by_both_matrices(tmp_path):
    head, other = rows(seed=1), rows(seed=1)
    other[7] = other[8]
    tied = save(tmp_path / "tied", rows())
    a, b = (save(tmp_path / name, rows(), **{"lm_head.weight": h}) for name, h in (("a", head), ("b", other)))
    result = diff(a, b)
    assert [(part.matrix, part.movers().tolist()) for part in result.parts] == [("input", []), ("output", [7])]
    assert [part.matrix for part in diff(a, b, matrix="input").parts] == ["input"]
    assert [part.matrix for part in diff(a, b, matrix="output").parts] == ["output"]
    assert [part.matrix for part in diff(tied, tied).parts] == ["input"]
    result = diff(tied, a)
    assert [part.matrix for part in result.parts] == ["input", "output"]
    assert result.parts[1].equal.sum() == 0  # the rows of the one that is tied are its output, too
    (part,) = diff(a, b, tensor="lm_head.weight").parts
    assert (part.matrix, part.movers().tolist()) == ("as asked", [7])
    (part,) = diff(a, a, tensor="model.embed_tokens.weight", tensor_b="lm_head.weight").parts
    assert part.equal.sum() == 0


def test_an_output_matrix_that_is_not_here_is_said_to_be_missing(tmp_path):
    a = save(tmp_path / "a", rows(), **{"lm_head.weight": rows(seed=1)})
    b = save(tmp_path / "b", rows(), config={"tie_word_embeddings": False})
    result = diff(a, b)
    assert [part.matrix for part in result.parts] == ["input"]
    assert result.notes == ("output matrices not compared (B: untied, its config says, but without an output tensor)",)
    with pytest.raises(ValueError, match="no output matrices to compare"):
        diff(a, b, matrix="output")


def test_states_of_a_history_are_compared(tmp_path):
    states = np.stack([rows(seed=0), rows(seed=0), rows(seed=0)])
    states[2, :5] = states[2, 0]
    save_file({"embedding_history": states}, tmp_path / "h.safetensors")
    path = tmp_path / "h.safetensors"
    (part,) = diff(path, path, tensor="embedding_history[0]", tensor_b="embedding_history[2]").parts
    assert part.movers().size == 4
    assert [change.kind for change in part.changes] == ["born"]


def test_the_csv_has_every_token_of_every_matrix(tmp_path):
    texts = ["=1+1", *(f"t{i}" for i in range(9))]
    a = save(tmp_path / "a", rows(10, 2), texts=texts, **{"lm_head.weight": rows(10, 2, 1)})
    changed = rows(12, 2)
    changed[:10] = rows(10, 2)
    changed[3:5] = changed[3]
    b = save(tmp_path / "b", changed, texts=texts, **{"lm_head.weight": rows(10, 2, 1)})
    diff(a, b).write_csv(tmp_path / "d.csv")
    frame = pl.read_csv(tmp_path / "d.csv")
    assert frame.columns == [
        *("matrix", "token_id", "token_a", "token_b", "status", "l_inf_steps", "l_inf", "euclidean"),
        *("black_hole_a", "black_hole_b"),
    ]
    assert frame["matrix"].to_list() == ["input"] * 12 + ["output"] * 10
    moved = frame.filter(pl.col("status") == "moved")
    assert moved["token_id"].to_list() == [4]
    assert moved["euclidean"][0] == pytest.approx(np.linalg.norm((changed[3] - rows(10, 2)[4]).astype(float)))
    assert frame["status"].to_list()[10:12] == ["only in b"] * 2
    assert frame.row(10)[2:] == (None, None, "only in b", None, None, None, None, None)
    assert frame.row(0)[2] == "'=1+1"
    assert frame["black_hole_b"].to_list()[:6] == [None, None, None, 1, 1, None]


def test_the_table_says_what_moved_and_what_became_of_black_holes(tmp_path, capsys):
    texts = [f"t{i}" for i in range(60)]
    changed = rows()
    changed[:3] = changed[0]
    changed[9, 0] += 1
    report = diff(save(tmp_path / "a", rows(), texts=texts), save(tmp_path / "b", changed, texts=texts)).to_json()
    print_diff(report, console(), 2)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "compared 60 rows of 8, by value, on float32" in lines
    assert "equal 57, of which 57 bit for bit" in lines
    assert "black holes C 0 -> 1" in lines
    assert "born #1 0 -> 3 +3" in lines
    assert "and 1 more moved tokens; --csv FILE lists them all" in lines


@pytest.mark.slow
@real
def test_the_real_checkpoint_against_a_copy_of_it_with_other_rows(tmp_path):
    tensors = load_file(MODEL / "model.safetensors")
    original = tensors[EMBEDDING]
    tensors[EMBEDDING] = original.copy()
    tensors[EMBEDDING][1:100] = original[1]
    tensors[EMBEDDING][20000:20100] *= np.float32(1.001)
    save_file({EMBEDDING: tensors[EMBEDDING]}, tmp_path / "model.safetensors")
    shutil.copy(MODEL / "tokenizer.json", tmp_path)
    result = diff(MODEL, tmp_path)
    (part,) = result.parts
    moved = np.flatnonzero((original != tensors[EMBEDDING]).any(axis=1))
    assert sorted(part.movers().tolist()) == moved.tolist()
    apart = (tensors[EMBEDDING].astype(float) - original)[moved]
    assert part.displacements.euclidean[moved] == pytest.approx(np.linalg.norm(apart, axis=1), rel=1e-12)
    assert part.displacements.l_inf[moved] == pytest.approx(np.abs(apart).max(axis=1), rel=0, abs=0)
    assert [(change.kind, change.population_b) for change in part.changes] == [("born", 99)]
    assert census(tensors[EMBEDDING]).populations.tolist() == [99]
    assert result.texts["different"] == []


def test_a_diff_says_in_a_line_what_differs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.arange(24, dtype=np.float32).reshape(12, 2)
    np.save("a.npy", rows)
    rows[3:5] += 1
    np.save("b.npy", rows)
    result = diff("a.npy", "b.npy")
    assert repr(result).startswith("Diff(a='a.npy', b='b.npy', differs=True, input matrix=MatrixDiff(matrix='input', ")
    assert "n_common=12, n_equal=10, n_moved=2" in repr(result.parts[0])
    assert len(repr(result)) < 300
