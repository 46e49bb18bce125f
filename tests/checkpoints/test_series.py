"""A series of checkpoints: by hand, against `evolve` on the same states, from folders and from the Hub."""

import json

import numpy as np
import polars as pl
import pytest
from histories import BY_HAND, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from typer.testing import CliRunner

from darkvocab import EmbeddingMatrix, evolve, series
from darkvocab.checkpoints.series import find_checkpoints, naturally
from darkvocab.cli import app
from darkvocab.errors import CorruptFile

NAME = "embed_tokens.weight"
CENSUS = "n_unique n_black_holes black_hole_population n_singletons largest_bh gini_coefficient".split()


def write(folder, states, *, name="checkpoint-{}", file="model.safetensors", **others):
    """A folder of checkpoints ten steps apart; their names."""
    names = [name.format(10 * at) for at in range(len(states))]
    for place, rows in zip(names, states, strict=True):
        (folder / place).mkdir(parents=True)
        (folder / place / file).write_bytes(save({NAME: np.asarray(rows, np.float32), **others}))
    return names


@pytest.fixture
def by_hand(tmp_path):
    write(tmp_path / "run", BY_HAND)
    return tmp_path / "run"


def test_a_series_by_hand(by_hand):
    result = series(by_hand)
    assert result.checkpoints.select("name", "identical_to", "n_moved", "n_equal", "max_move_l_inf_steps").rows() == [
        ("checkpoint-0", None, None, None, None),
        ("checkpoint-10", None, 1, 5, 1 << 23),  # from 1 to 2
        ("checkpoint-20", None, 3, 3, 1 << 16),
        ("checkpoint-30", None, 1, 5, 1 << 16),
        ("checkpoint-40", "checkpoint-10", 2, 4, 1 << 16),
        ("checkpoint-50", "checkpoint-10", 0, 6, 0),
    ]
    assert result.checkpoints.select("n_born", "n_split", "n_merged", "n_vanished", "n_gained", "n_lost").rows() == [
        (None,) * 6, (0, 0, 0, 0, 0, 1), (0, 1, 0, 0, 0, 0), (0, 0, 0, 0, 1, 1), (0, 0, 1, 0, 0, 0), (0,) * 6
    ]  # fmt: skip
    assert result.black_holes.rows() == [
        (2, 5, "checkpoint-20", "checkpoint-40", "checkpoint-40", [1, 2, 3, 4, 5]),
    ]
    assert result.tokens.select("token", "n_changes", "frozen", "hole").rows() == [
        (0, 1, "checkpoint-10", None),
        (1, 0, "checkpoint-0", 2),
        (2, 0, "checkpoint-0", 2),
        (3, 2, "checkpoint-40", 2),
        (4, 2, "checkpoint-40", 2),
        (5, 2, "checkpoint-30", 2),
    ]
    assert result.summary == {
        "schema_version": 1,
        "asked": [str(by_hand)],
        "revisions": None,
        "n_checkpoints": 6,
        "n_distinct": 4,
        "identical": [["checkpoint-10", "checkpoint-40", "checkpoint-50"]],
        "not_compared": {},
        "events": {"start": 1, "merge": 1, "split": 1, "gain": 1, "lose": 2},
        "n_tokens": 6,
        "n_never_moved": 2,
        "frozen_since": [
            {"name": "checkpoint-0", "n_tokens": 2},
            {"name": "checkpoint-10", "n_tokens": 1},
            {"name": "checkpoint-30", "n_tokens": 1},
            {"name": "checkpoint-40", "n_tokens": 2},
        ],
    }


states = st.lists(
    st.lists(st.lists(st.sampled_from([0.0, -0.0, 1.0]), min_size=2, max_size=2), min_size=7, max_size=7),
    min_size=1,
    max_size=5,
)


@pytest.mark.slow
@settings(max_examples=25)
@given(states=states)
def test_events_and_freezing_are_those_of_a_history_of_the_same_states(tmp_path_factory, states):
    folder = tmp_path_factory.mktemp("states")
    write(folder / "checkpoints", states)
    write_run(folder / "run", states, [], "float32", record_every="10")
    result, reports = series(folder / "checkpoints"), evolve(folder / "run")
    names = pl.col("step").map_elements("checkpoint-{}".format, pl.String)
    columns = "name", "kind", "hole", "other", "tokens"
    assert result.events.select(columns).rows() == reports.events.with_columns(name=names).select(columns).rows()
    every = reports.records.filter(pl.col("tokens") == "all")
    assert result.checkpoints.select(CENSUS).rows() == every.select(CENSUS).rows()
    same = "n_moved mean_move_l_inf_steps max_move_l_inf_steps".split()
    assert result.checkpoints.select(same).rows() == every.select(same).rows()
    assert result.tokens.select("n_changes", "hole").rows() == reports.tokens.select("n_changes", "hole").rows()
    since = reports.tokens["last_change"].fill_null(0).to_list()
    assert result.tokens["frozen"].to_list() == [f"checkpoint-{step}" for step in since]


# Which checkpoints ---------------------------------------------------------------------------------------------------


def test_names_are_sorted_by_their_numbers():
    names = ["step10", "step2", "step1000", "Step1", "step2-b", "step"]
    assert sorted(names, key=naturally) == ["step", "Step1", "step2", "step2-b", "step10", "step1000"]


def test_folders_are_models_and_without_any_files_are(tmp_path, by_hand):
    (by_hand / "logs").mkdir()
    (by_hand / "optimizer.pt").write_bytes(b"")
    assert [name for name, _ in find_checkpoints([by_hand])] == [f"checkpoint-{at}" for at in range(0, 60, 10)]
    assert [name for name, _ in find_checkpoints([by_hand], "*-20,*-5?")] == ["checkpoint-20", "checkpoint-50"]
    files = tmp_path / "files"
    files.mkdir()
    for name in ("step_10.safetensors", "step_9.npy", "notes.txt"):
        (files / name).write_bytes(save({NAME: np.zeros((3, 2), np.float32)}))
    assert [name for name, _ in find_checkpoints([files])] == ["step_9.npy", "step_10.safetensors"]


def test_several_sources_are_taken_as_they_are_given(by_hand):
    paths = [by_hand / "checkpoint-40", by_hand / "checkpoint-0/model.safetensors"]
    assert find_checkpoints(paths) == [(str(path), path) for path in paths]
    result = series(*paths)
    assert result.checkpoints["name"].to_list() == list(map(str, paths))
    assert result.summary["events"] == {"start": 1, "gain": 1}


@pytest.mark.parametrize(
    ("sources", "options", "error", "says"),
    [
        ([], {}, ValueError, "give one source"),
        (["{}/checkpoint-0", "{}"], {"revisions": "*"}, ValueError, "several without"),
        (["{}/checkpoint-0"], {}, ValueError, "is one model folder; give several"),
        (["{}/checkpoint-0/model.safetensors"], {}, ValueError, "is one checkpoint; give several"),
        (
            ["{}"],
            {"revisions": "step*"},
            FileNotFoundError,
            r"no checkpoint that matches 'step\*'; it has checkpoint-0",
        ),
        (["{}/nowhere"], {}, FileNotFoundError, "no file or folder"),
        (["{}/checkpoint-0", "{}"], {}, FileNotFoundError, r"has none of model\.safetensors"),
    ],
)
def test_what_is_no_series_is_refused(by_hand, sources, options, error, says):
    with pytest.raises(error, match=says):
        series(*(source.format(by_hand) for source in sources), **options)


def test_a_recorded_training_is_measured_by_evolve(tmp_path):
    run = write_run(tmp_path / "run", BY_HAND, [])
    with pytest.raises(ValueError, match="darkvocab evolve"):
        series(run)
    assert series(tmp_path).summary["n_checkpoints"] == 1  # its last row


# What cannot be compared ---------------------------------------------------------------------------------------------


def test_another_vocabulary_begins_anew_and_says_so(tmp_path):
    rows = np.ones((5, 2), np.float32)
    states = [rows, rows, np.ones((6, 2)), np.ones((6, 2)), np.ones((6, 3))]
    write(tmp_path, states, name="step{}")
    result = series(tmp_path)
    assert result.summary["not_compared"] == {
        "step20": "6 tokens x 2, but step10 has 5 x 2: the series begins anew",
        "step40": "6 tokens x 3, but step30 has 6 x 2: the series begins anew",
    }
    assert result.checkpoints["n_moved"].to_list() == [None, 0, None, 0, None]
    assert result.events.select("name", "kind", "hole").rows() == [
        ("step0", "start", 1),
        ("step20", "start", 2),
        ("step40", "start", 3),
    ]
    assert set(result.tokens["frozen"]) == {"step40"}


def test_another_grid_is_compared_where_one_is_given(tmp_path):
    write(tmp_path, [np.ones((4, 2))], name="a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/model.safetensors").write_bytes(save({NAME: np.ones((4, 2), np.float16)}))
    assert "--grid puts both on one" in series(tmp_path).checkpoints["not_compared"][1]
    result = series(tmp_path, grid="bfloat16")
    assert result.checkpoints.select("grid", "stored_grid", "not_compared", "n_moved").rows() == [
        ("bfloat16", "float32", None, None),
        ("bfloat16", "float16", None, 0),
    ]
    assert result.summary["identical"] == []  # other words, though the same values


def test_rows_that_are_no_numbers_name_the_checkpoint(tmp_path):
    write(tmp_path, [np.ones((4, 2)), [[1, 1], [1, np.nan], [2, 2], [3, 3]]])
    with pytest.raises(CorruptFile, match="checkpoint-10: 1 of 4 rows"):
        series(tmp_path)
    write(tmp_path / "large", [np.full((4, 2), 1e30)])
    with pytest.raises(ValueError, match=r"checkpoint-0: 4 of 4 rows .* overflow"):
        series(tmp_path / "large", grid="float16")


# The Hub -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def revisions(hub):
    """1,500 tokens: step10 is step2's file, step100 has its rows in another file, in main some have moved."""
    rows = np.random.default_rng(1).standard_normal((1500, 32)).astype(np.float32)
    rows[[3, 4, 5]] = rows[2]
    moved = rows.copy()
    moved[4:900] += 1
    text = json.dumps({"version": "1.0"}).encode()
    files = [{NAME: rows}, {NAME: rows}, {NAME: rows, "norm": rows[0]}, {NAME: moved}]
    for name, tensors in zip(("step10", "step2", "step100", "main"), files, strict=True):
        hub.add("org/model", {"model.safetensors": save(tensors), "config.json": text}, name, tag=name == "step2")
    hub.rows = rows
    return hub


def test_revisions_on_the_hub_are_read_once_where_their_hash_says_so(revisions, monkeypatch):
    grouped, groups = [], EmbeddingMatrix.groups
    monkeypatch.setattr(EmbeddingMatrix, "groups", lambda *args, **how: grouped.append(args) or groups(*args, **how))
    result = series("org/model", revisions="step*,main")
    assert result.checkpoints.select("name", "identical_to", "n_moved").rows() == [
        ("step2", None, None),
        ("step10", "step2", 0),
        ("step100", "step2", 0),
        ("main", None, 896),
    ]
    read = result.checkpoints["bytes_read"].to_list()
    assert read[1] == 0
    assert all(revisions.rows.nbytes <= n <= revisions.rows.nbytes + 66_000 for n in (read[0], read[2], read[3]))
    commits = revisions.refs["org/model"] | revisions.tags["org/model"]
    assert result.checkpoints["commit"].to_list() == [commits[name] for name in ("step2", "step10", "step100", "main")]
    assert result.black_holes.select("population", "born", "joined", "frozen").rows() == [
        (2, "step2", "main", "step2"),
        (2, "main", "main", "main"),  # what split off, and moved
    ]
    assert len(grouped) == 2  # of step2 and main: the others have the words of the one before
    assert len(find_checkpoints(["org/model"])) == 4


def test_a_series_of_an_untied_model_reads_no_output_matrix(hub):
    rows = np.random.default_rng(1).standard_normal((1500, 32)).astype(np.float32)
    for at, name in enumerate(("step1", "step2")):
        tensors = {NAME: rows + at, "lm_head.weight": rows * 2}
        hub.add("org/model", {"model.safetensors": save(tensors)}, name)
    read = series("org/model", revisions="step*").checkpoints["bytes_read"].to_list()
    assert all(n <= rows.nbytes + 66_000 for n in read)


def test_a_repository_without_such_revisions_is_refused(revisions):
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint that matches 'v\*'; it has main, step2, step10, step100"
    ):
        series("org/model", revisions="v*")
    with pytest.raises(ValueError, match="is one checkpoint"):
        series("org/model@step2")
    with pytest.raises(FileNotFoundError, match="has no model 'org/none'"):
        series("org/none")


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command_prints_and_lands_a_series(by_hand, tmp_path):
    shown = CliRunner().invoke(app, ["history", str(by_hand), "--out", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.stderr
    for words in ("4 with other rows than all before", "as checkpoint-10", "#1 merges into #2", "checkpoint-0: 2"):
        assert words in shown.stdout
    assert pl.read_csv(tmp_path / "out/checkpoints.csv")["n_moved"].to_list() == [None, 1, 3, 1, 2, 0]
    assert pl.read_parquet(tmp_path / "out/tokens.parquet").height == 6
    assert json.loads((tmp_path / "out/series.json").read_text())["n_distinct"] == 4
    printed = CliRunner().invoke(app, ["history", str(by_hand), "--json"])
    result = json.loads(printed.stdout)
    assert list(result) == ["summary", "checkpoints", "black_holes", "tokens", "events"]
    assert result["black_holes"][0]["tokens"] == [1, 2, 3, 4, 5]
    again = CliRunner().invoke(app, ["history", str(by_hand), "--out", str(by_hand)])
    assert (again.exit_code, "holds other files" in again.stderr) == (2, True)


def test_names_from_elsewhere_cannot_write_to_the_terminal(tmp_path):
    write(tmp_path, BY_HAND[:2], name="\x1b[2J{}")
    shown = CliRunner().invoke(app, ["history", str(tmp_path)])
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert "\\x1b[2J0" in shown.stdout
