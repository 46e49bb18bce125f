"""Evolve: a history by hand, a random one against plain Python, the notebooks' verdicts, and the command."""

import json
import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from gridding import steps
from histories import BY_HAND, write_history, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from darkvocab import evolve
from darkvocab.embedding.history import History
from darkvocab.measures.tracking import replay
from darkvocab.numerics import decode, encode


@pytest.fixture
def by_hand(tmp_path):
    return write_run(tmp_path / "run", BY_HAND, [3, 4, 5], record_every="10")


def of(frame, tokens, *columns):
    """Columns of the records of these tokens, a list a row."""
    return [list(row) for row in frame.filter(frame["tokens"] == tokens).select(columns).rows()]


# By hand -------------------------------------------------------------------------------------------------------------


def test_the_census_by_hand(by_hand):
    result = evolve(by_hand)
    assert result.records.columns[:4] == ["row", "step", "tokens", "n_tokens"]
    columns = "step n_unique n_black_holes black_hole_population n_singletons largest_bh".split()
    assert of(result.records, "all", *columns) == [
        [0, 1, 1, 6, 0, 6],
        [10, 2, 1, 5, 1, 5],
        [20, 3, 2, 5, 1, 3],
        [30, 3, 2, 5, 1, 3],
        [40, 2, 1, 5, 1, 5],
        [50, 2, 1, 5, 1, 5],
    ]
    assert of(result.records, "unseen", "n_tokens", *columns[1:]) == [
        [3, 1, 1, 3, 0, 3],
        [3, 1, 1, 3, 0, 3],
        [3, 1, 1, 3, 0, 3],
        [3, 2, 1, 2, 1, 2],
        [3, 1, 1, 3, 0, 3],
        [3, 1, 1, 3, 0, 3],
    ]
    assert {row[0] for row in of(result.records, "seen", "n_tokens")} == {3}
    assert result.records["gini_coefficient"].to_list()[6] == pytest.approx(2 * (2 + 6) / (2 * 5) - 3 / 2)


def test_motion_by_hand(by_hand):
    result = evolve(by_hand)
    columns = "since n_moved mean_move_l1_steps max_move_l1_steps max_move_l_inf_steps".split()
    assert of(result.records, "all", *columns) == [
        [None] * 5,
        [0, 1, 128 / 6, 128, 128],  # from 1 to 2 there are 128 bfloat16 steps
        [10, 3, 0.5, 1, 1],
        [20, 1, 1 / 6, 1, 1],
        [30, 2, 2 / 6, 1, 1],
        [40, 0, 0, 0, 0],
    ]
    step = 2.0**-7
    assert of(result.records, "unseen", "bulk_motion", "thermal_motion", "centroid_displacement") == [
        [None, None, 0],
        [0, 0, 0],
        [step, 0, step],
        [pytest.approx(step / 3), pytest.approx(step * (2 / 9) ** 0.5), pytest.approx(2 / 3 * step)],
        [pytest.approx(step * 2 / 3), pytest.approx(step * (2 / 9) ** 0.5), 0],
        [0, 0, 0],
    ]
    lengths = "max_l_inf max_l_inf_steps mean_l_inf mean_l_inf_steps radius_max".split()
    assert of(result.records, "unseen", *lengths)[3] == [
        step,
        1,
        *map(pytest.approx, (step * 2 / 3, 2 / 3, step * 2 / 3)),
    ]


def test_events_by_hand(by_hand):
    result = evolve(by_hand)
    assert result.events.select("step", "kind", "hole", "other", "tokens").rows() == [
        (0, "start", 1, None, [0, 1, 2, 3, 4, 5]),
        (10, "lose", 1, None, [0]),
        (20, "split", 2, 1, [1, 2]),  # most stay with the unseen
        (30, "gain", 2, 1, [5]),
        (30, "lose", 1, 2, [5]),
        (40, "merge", 1, 2, [3, 4]),
    ]
    assert result.summary["events"] == {"start": 1, "merge": 1, "split": 1, "gain": 1, "lose": 2}


def test_freezing_by_hand(by_hand):
    result = evolve(by_hand)
    assert result.tokens.select("token", "seen", "n_changes", "last_change", "hole").rows() == [
        (0, True, 1, 10, None),
        (1, True, 0, None, 2),
        (2, True, 0, None, 2),
        (3, False, 2, 40, 2),
        (4, False, 2, 40, 2),
        (5, False, 2, 30, 2),
    ]
    assert result.summary["freezing"] == {
        "all": {"last_change": 40, "n_never_moved": 2, "n_moved_last": 0},
        "seen": {"last_change": 10, "n_never_moved": 2, "n_moved_last": 0},
        "unseen": {"last_change": 40, "n_never_moved": 0, "n_moved_last": 0},
    }


def test_every_so_many_rows_motion_is_since_the_row_before_that_was_taken(by_hand):
    result = evolve(by_hand, every=2)
    assert of(result.records, "all", "step", "since", "n_moved") == [
        [0, None, None],
        [20, 0, 4],
        [40, 20, 3],
        [50, 40, 0],
    ]
    assert result.summary["n_measured"] == 4


def test_without_unseen_tokens_all_are_one_set(tmp_path):
    path = write_history(tmp_path / "h.safetensors", BY_HAND)
    result = evolve(path)
    assert result.records["tokens"].unique().to_list() == ["all"]
    assert result.summary["unseen"] is None
    assert result.tokens["seen"].null_count() == 6
    assert evolve(path, unseen="3-5").records.equals(evolve(path, unseen=[5, 4, 3, 3]).records)
    assert evolve(path, unseen=()).records["tokens"].unique().sort().to_list() == ["all", "seen"]


def test_rows_that_are_not_written_yet_are_left_out(tmp_path):
    path = write_history(tmp_path / "h.safetensors", BY_HAND, recorded="3")
    result = evolve(path)
    assert (result.summary["n_recorded"], result.summary["n_planned"], result.summary["last_step"]) == (3, 6, 2)
    assert result.records["n_unique"].to_list() == [1, 2, 3]


def test_a_single_row_has_no_motion(tmp_path):
    result = evolve(write_run(tmp_path / "run", BY_HAND[2:3], [3, 4, 5]))
    assert result.records["n_moved"].null_count() == 3
    assert result.summary["freezing"]["all"] == {"last_change": None, "n_never_moved": 6, "n_moved_last": 0}


# Against plain Python ------------------------------------------------------------------------------------------------


def plain(words, grid, unseen):
    """Compute what `evolve` records, a token and a pair at a time."""
    values = [decode(row, grid).astype(np.float64) for row in words]
    absent = set(unseen)
    sets = {"all": range(len(words[0]))}
    sets |= {"seen": [t for t in sets["all"] if t not in absent], "unseen": sorted(absent)}
    for row, now in enumerate(values):
        for name, tokens in sets.items():
            rows = [tuple((now[token] + 0.0).tolist()) for token in tokens]
            counts = sorted(Counter(rows).values())
            black = [n for n in counts if n > 1]
            pairs = [(a, b) for i, a in enumerate(tokens) for b in list(tokens)[:i]]
            far = [float(np.abs((now[a] - now[b]).astype(np.float32)).max()) for a, b in pairs] or [0.0]
            in_steps = [int(np.abs(steps(now[a], now[b], grid)).max()) for a, b in pairs] or [0]
            centroid, start = (x[list(tokens)].mean(axis=0) for x in (now, values[0]))
            radii = [math.dist(now[token], centroid) for token in tokens]
            record = {
                "row": row,
                "step": row,
                "tokens": name,
                "n_tokens": len(tokens),
                "n_unique": len(counts),
                "n_black_holes": len(black),
                "black_hole_population": sum(black),
                "n_singletons": len(counts) - len(black),
                "largest_bh": max(black, default=0),
                "gini_coefficient": sum(abs(a - b) for a in black for b in black) / (2 * len(black) * sum(black))
                if black
                else 0.0,
                "max_l_inf": max(far),
                "mean_l_inf": np.mean(far),
                "max_l_inf_steps": max(in_steps),
                "mean_l_inf_steps": np.mean(in_steps),
                "centroid_norm": math.hypot(*centroid),
                "centroid_displacement": math.dist(centroid, start),
                "radius_max": max(radii),
                "radius_rms": np.sqrt(np.mean(np.square(radii))),
            }
            if row:
                d = [steps(values[row - 1][token], now[token], grid) for token in tokens]
                apart = [now[token] - values[row - 1][token] for token in tokens]
                mean = np.mean(apart, axis=0)
                record |= {"since": row - 1, "n_moved": sum(bool(x.any()) for x in d)}
                for length, order in (("l1", 1), ("l2", 2), ("l_inf", np.inf)):
                    lengths = [np.linalg.norm(x.astype(float), order) for x in d]
                    record |= {f"mean_move_{length}_steps": np.mean(lengths), f"max_move_{length}_steps": max(lengths)}
                record["bulk_motion"] = math.hypot(*mean)
                record["thermal_motion"] = math.sqrt(np.mean([math.dist(x, mean) ** 2 for x in apart]))
            yield record


def wandering(grid, seed, n_rows=6, n_tokens=14, dim=5):
    """Rows that tokens jump between: some of them, all alike at every fourth row, none at the next; both zeros."""
    rng = np.random.default_rng(seed)
    values = np.zeros((n_rows, n_tokens, dim), np.float32)
    values[0] = rng.choice([-1.0, 0.0, 1.0, 1.0078125], (4, dim))[rng.integers(0, 4, n_tokens)]
    for row in range(1, n_rows):
        values[row] = values[row - 1]
        if row % 4 == 0:
            continue
        moving = rng.random(n_tokens) < (1.0 if row % 4 == 3 else 0.4)
        jumps = rng.choice([0.0, 0.0078125, -1.0], (1 if row % 4 == 3 else 3, dim))
        values[row][moving] += jumps[rng.integers(0, len(jumps), moving.sum())]
        values[row][values[row] == 0] *= -1
    return encode(values, grid)


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("seed", range(4))
def test_every_column_is_that_of_plain_python(tmp_path, grid, seed):
    words, unseen = wandering(grid, seed), [0, 3, 4, 9, 10, 13]
    built = evolve(write_history(tmp_path / "h.safetensors", decode(words, grid), grid), unseen=unseen)
    expected = list(plain(words, grid, unseen))
    result = built.records.to_dicts()
    assert len(result) == len(expected)
    for ours, theirs in zip(result, expected, strict=True):
        for column, value in ours.items():
            if value is None or isinstance(value, str):
                assert theirs.get(column) == value, column
            else:
                assert value == pytest.approx(theirs[column], rel=1e-9, abs=1e-12), column


@pytest.mark.slow
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_records_do_not_depend_on_the_order_of_tokens(tmp_path_factory, seed):
    words = decode(wandering("bfloat16", seed), "bfloat16")
    order = np.random.default_rng(seed).permutation(words.shape[1])
    place = tmp_path_factory.mktemp("order")
    one = evolve(write_history(place / "a.safetensors", words), unseen=[1, 5, 6])
    other = evolve(
        write_history(place / "b.safetensors", words[:, order]),
        unseen=np.flatnonzero(np.isin(order, [1, 5, 6])).tolist(),
    )
    for column in one.records.columns:
        for ours, theirs in zip(one.records[column], other.records[column], strict=True):
            near = isinstance(ours, float)
            assert ours == (pytest.approx(theirs, rel=1e-9, abs=1e-12) if near else theirs), column
    for column in ("seen", "n_changes", "last_change"):
        assert one.tokens[column][order.tolist()].to_list() == other.tokens[column].to_list()


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_events_give_the_black_holes_of_every_row_again(tmp_path_factory, seed):
    words = wandering("bfloat16", seed)
    path = tmp_path_factory.mktemp("replay") / "h.safetensors"
    result = evolve(write_history(path, decode(words, "bfloat16")))
    holes = np.zeros(words.shape[1], np.int64)
    for row, (_, words_now) in enumerate(History.open(path).words(range(len(words)))):
        happened = result.events.filter(result.events["row"] == row).with_columns(pl.col("other").fill_null(0))
        replay(holes, happened.select("kind", "hole", "other", "tokens").rows())
        now = decode(words_now, "bfloat16") + 0.0
        together = (now[:, None] == now[None]).all(axis=2)
        alone = together.sum(axis=1) == 1
        assert (holes == 0).tolist() == alone.tolist()
        assert np.array_equal(
            (holes[:, None] == holes[None]) | np.eye(len(holes), dtype=bool), together | np.outer(alone, alone)
        )
    assert result.tokens["hole"].fill_null(0).to_list() == holes.tolist()


def test_means_are_left_out_where_rows_are_very_many_and_maxima_are_not(tmp_path, monkeypatch):
    path = write_history(tmp_path / "h.safetensors", BY_HAND)
    whole = evolve(path, unseen="3-5")
    monkeypatch.setattr("darkvocab.training.evolve.MOST_COMPARED", 1)
    result = evolve(path, unseen="3-5")
    assert of(result.records, "all", "mean_l_inf", "mean_l_inf_steps")[1:3] == [[None, None]] * 2
    assert result.records["max_l_inf"].equals(whole.records["max_l_inf"])
    assert result.records["max_l_inf_steps"].equals(whole.records["max_l_inf_steps"])
    assert (result.summary["geometry"]["mean_l_inf"], result.summary["geometry"]["min_l_inf"]) == (0.0, 0.0)


def test_a_distance_that_float32_cannot_hold_is_infinite_in_records_and_null_in_json(tmp_path):
    far = [[[3e38], [-3e38], [1.0], [2.0]]] * 2
    result = evolve(write_history(tmp_path / "h.safetensors", far, "float32"), unseen=[0, 1], init_sigma=1e-5)
    assert result.records["max_l_inf"][0] == math.inf
    assert result.summary["geometry"]["max_l_inf"] is None
    json.dumps(result.summary, allow_nan=False)
    there_and_back = [[[3e38], [3e38]], [[-3e38], [-3e38]]]
    result = evolve(write_history(tmp_path / "h.safetensors", there_and_back, "float32"))
    assert result.records["bulk_motion"][-1] == pytest.approx(6e38, rel=1e-6)
    assert result.summary["notebook_displacement"] is None


# The notebooks' verdicts ---------------------------------------------------------------------------------------------

STEP = 2.0**-10  # of bfloat16 between 1/8 and 1/4


def ended(*populations, start=((2,) * 14 + (94, *(1,) * 6)), components=(0.1875, 2.0)):
    """A history of 128 tokens whose 51 unseen end in black holes of these populations, a step of 2^-10 apart each."""
    first = np.tile(np.float32(components), (128, 1))
    first[:, 1] = np.repeat(2 + np.arange(len(start)) / 64, start)
    last = np.tile(np.float32(components), (128, 1))
    last[:77, 1] = 1 + np.arange(77) / 128  # the seen have all parted
    last[77:, 0] += STEP * np.repeat(np.arange(len(populations)), populations)
    return [first, last]


@pytest.fixture
def finished(tmp_path):
    def write(*populations, **parameters):
        return write_run(tmp_path / "run", ended(*populations), list(range(77, 128)), parameters=parameters)

    return write


def test_the_geometry_of_11_2c_is_that_of_two_black_holes_one_grid_step_apart(finished):
    result = evolve(finished(49, 2, init_sigma=1e-5))
    geometry = result.summary["geometry"]
    assert [f"{geometry[key]:.6e}" for key in ("min_l_inf", "max_l_inf", "mean_l_inf")] == [
        "0.000000e+00",
        "9.765625e-04",
        "7.506127e-05",  # the three as published
    ]
    assert (geometry["component"], geometry["component_ulp"], geometry["component_steps"]) == (0, STEP, 1)
    assert (geometry["max_l_inf_steps"], geometry["n_black_holes"], geometry["black_hole_population"]) == (1, 2, 51)
    (verdict,) = result.summary["verdicts"]
    assert verdict["seed"] == "11.2c"
    assert verdict["notebook"] == [
        "Black hole count: initial 15, final 2. Black hole population: initial 122, final 51. Dead tokens: 51.",
        "Multiple black holes present. Consolidation: 15 -> 2 black holes.",
        "Dead tokens scattered widely (max L-inf = 98x epsilon). Does not match Qwen's tight clustering.",
        "HYPOTHESIS CHALLENGED. Initial clustering did not produce stable snowball structure.",
    ]
    assert verdict["grid"][0] == (
        "The largest distance, 0.000977, is 1 grid step in component 0, where the spacing of bfloat16 is 0.000977, "
        "not 1e-05."
    )
    assert verdict["grid"][1].startswith("In 2 of 2 components a single step is 10 epsilon or more")
    assert "at most 1 grid step apart" in verdict["grid"][2]
    assert verdict["grid"][2].endswith("a tight snowball.")
    assert "HYPOTHESIS SUPPORTED" in verdict["grid"][3]


@pytest.mark.parametrize(
    ("populations", "sigma", "notebook", "grid"),
    [
        ((49, 2), 1e-3, "HYPOTHESIS SUPPORTED", "HYPOTHESIS SUPPORTED"),
        ((51,), 1e-5, "PARTIAL SUPPORT", "PARTIAL SUPPORT"),
        ((20, 20, 5, 6), 1e-5, "HYPOTHESIS CHALLENGED", "HYPOTHESIS CHALLENGED"),  # three steps from end to end
        ((1,) * 51, 1e-5, "HYPOTHESIS CHALLENGED", "HYPOTHESIS CHALLENGED"),
    ],
)
def test_the_conclusions_of_11_2c(finished, populations, sigma, notebook, grid):
    (verdict,) = evolve(finished(*populations, init_sigma=sigma)).summary["verdicts"]
    assert verdict["notebook"][-1].startswith(notebook)
    assert grid in verdict["grid"][-1]


def test_a_distance_of_exactly_ten_epsilon_is_scattered(finished):
    for sigma, tight in ((STEP / 10, False), (math.nextafter(STEP / 10, 1) * 1.0001, True)):
        (verdict,) = evolve(finished(49, 2), init_sigma=sigma).summary["verdicts"]
        assert ("tight snowball" in verdict["notebook"][2]) is tight


def test_11_2b_is_positive_where_the_unseen_are_in_two_black_holes(finished):
    (verdict,) = evolve(finished(31, 20, noise_epsilon=3e-5)).summary["verdicts"]
    assert verdict["seed"] == "11.2b"
    assert verdict["notebook"] == [
        "Black hole count (C): 2. Total black hole population (P): 51. Dead tokens in corpus: 51.",
        "POSITIVE RESULT: Synthetic noise causes black hole diffusion!",
        "Black holes fragmented: 2 distinct clusters.",
        "Synthetic noise CAN break black hole symmetry at scale epsilon ~ 3.00e-05.",
    ]
    assert verdict["grid"][0] == (
        "Among unseen tokens alone: C = 2, P = 51 of 51, at most 1 grid step apart in any component."
    )
    assert "In 0 of 2 components half a step" in verdict["grid"][2]


def test_11_2b_is_null_where_all_are_in_one(finished):
    (verdict,) = evolve(finished(51, noise_epsilon=2e-3)).summary["verdicts"]
    assert verdict["notebook"][1] == "NULL RESULT: Even synthetic noise doesn't break black holes."
    assert "In 1 of 2 components half a step" in verdict["grid"][2]  # 2^-11 is within 4 x 2e-4, 2^-7 is not


def test_verdicts_need_the_lengths_and_the_unseen_tokens(finished, tmp_path):
    assert evolve(finished(49, 2)).summary["verdicts"] == []
    for epsilon, seeds in ((1e-5, ["11.2c", "11.2b"]), (0.0, ["11.2c"])):  # no noise, nothing to ask of it
        given = evolve(finished(49, 2), init_sigma=1e-5, noise_epsilon=epsilon).summary["verdicts"]
        assert [verdict["seed"] for verdict in given] == seeds
    alone = evolve(write_history(tmp_path / "h.safetensors", ended(49, 2)), init_sigma=1e-5)
    assert (alone.summary["geometry"], alone.summary["verdicts"]) == (None, [])


@pytest.mark.parametrize("seed", range(12))
def test_the_displacement_of_the_notebooks_is_rounded_at_every_step(tmp_path, seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal((2, 128, 5)) * 0.01 + rng.standard_normal((2, 1, 5))).astype(np.float32)
    result = evolve(write_history(tmp_path / "h.safetensors", values))
    history = torch.from_numpy(values).to(torch.bfloat16)
    theirs = (history[1].mean(dim=0) - history[0].mean(dim=0)).norm().item()
    assert result.summary["notebook_displacement"] == theirs
    assert result.records["centroid_displacement"][-1] == pytest.approx(theirs, rel=0.01)
