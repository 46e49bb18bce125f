"""Verdicts: thresholds from controls, criteria of others, and intervals that hold what they say."""

import numpy as np
import polars as pl
import pytest

from darkvocab.measures.verdict import FEWEST_CONTROLS, judge

FRAMES, PLACES = ("one", "two"), 3


def answers(tokens, p, *, group="asked", grade="untrained", kind="letters", stratum=-1, right=False, first=1):
    """Records of tokens, each with p at its best place, and less elsewhere."""
    return pl.DataFrame(
        {
            "token": token,
            "text": f"t{token}",
            "kind": kind,
            "grade": grade,
            "group": group,
            "stratum": stratum,
            "order": first + number,
            "frame": frame,
            "place": place,
            "p": best if (frame, place) == ("two", 1) else best / 2,
            "rank": 1 if right else 7,
            "answer": token if right and frame == "one" else 0,
            "answer_text": "x",
        }
        for number, (token, best) in enumerate(zip(tokens, p, strict=True))
        for frame in FRAMES
        for place in range(PLACES)
    )


def test_p_max_is_over_frames_and_places_and_each_criterion_is_its_own():
    records = answers([5, 6, 7, 8], [0.0005, 0.005, 0.05, 0.5])
    records = pl.concat([records, answers([9], [0.0001], right=True)])
    verdict = judge(records, {"strata": []})
    tokens = verdict.tokens
    assert tokens["p_max"].to_list() == pytest.approx([0.0005, 0.005, 0.05, 0.5, 0.0001])
    assert tokens["land"].to_list() == ["strongly verified", "verified", "doubtful", "rejected", "strongly verified"]
    assert tokens["glitch"].to_list() == [True] * 4 + [False]  # the last is right in one frame
    assert tokens["verified"].to_list() == [True, True, False, False, True]  # without controls below 0.01
    assert verdict.thresholds == {"all": 0.01}
    assert verdict.recall is None
    assert verdict.n_missed is None


def test_a_token_is_verified_below_the_controls_first_percent_of_its_kind():
    p = np.linspace(0.08, 0.9, 100)
    controls = answers(range(100, 200), p, group="control", grade="trained")
    marks = answers(range(200, 200 + FEWEST_CONTROLS), p[:FEWEST_CONTROLS] / 100, group="control", kind="marks")
    asked = [answers([1], [0.05]), answers([2], [0.05], kind="marks"), answers([3], [0.0005], kind="digits")]
    verdict = judge(pl.concat([*asked, controls, marks]), {"strata": []})
    assert list(verdict.thresholds) == ["all", "letters", "marks"]  # of digits there are no controls
    assert verdict.thresholds["letters"] == pytest.approx(0.08)  # the lowest of a hundred: none lies below
    assert verdict.tokens.filter(pl.col("group") == "asked")["verified"].to_list() == [True, False, True]


def test_what_a_model_knows_is_not_verified_however_well_the_controls_do():
    controls = answers(range(100, 200), [0.999] * 100, group="control", grade="trained")
    verdict = judge(pl.concat([answers([1, 2], [0.99, 0.09]), controls]), {"strata": []})
    assert verdict.thresholds == {"all": 0.1, "letters": 0.1}
    assert verdict.tokens["verified"].to_list()[:2] == [False, True]


def test_precision_is_of_the_graded_and_recall_counts_strata_by_their_size():
    asked = answers(range(20), [0.0001] * 15 + [0.9] * 5)
    trained = answers([40], [0.0001], grade="trained")  # asked for by its id
    near = answers(range(50, 60), [0.0001] * 5 + [0.9] * 5, group="missed", grade="trained", stratum=0)
    far = answers(range(60, 160), [0.9] * 100, group="missed", grade="trained", stratum=1)
    verdict = judge(pl.concat([asked, trained, near, far]), {"strata": [10, 100]})
    assert (verdict.precision.n, verdict.precision.of) == (15, 20)
    assert verdict.precision.low < 0.75 < verdict.precision.high
    assert verdict.n_missed == (5, 5)  # all of both strata were asked for: nothing is left to estimate
    assert verdict.recall.low == verdict.recall.high == 0.75


def test_recall_is_said_only_where_all_graded_tokens_were_asked_for():
    records = pl.concat([answers([1], [0.0001]), answers([2], [0.9], group="missed", grade="trained", stratum=0)])
    assert judge(records, {"strata": [1], "tokens": "graded"}).recall.high == 1
    part = judge(records, {"strata": [1], "tokens": "dark"})  # the weak ones are in neither group
    assert part.recall is None
    assert part.n_missed == (0, 0)


@pytest.mark.slow
def test_the_interval_of_the_missed_holds_their_number_as_often_as_it_says():
    # 300 vocabularies with known numbers of failing tokens in two strata, 90% intervals. Fewer than 83% held would come
    # of a true 90% with a probability of 1e-4 (binomial).
    rng = np.random.default_rng(3)
    sizes, drawn = (400, 4000), (100, 200)
    held = 0
    for _ in range(300):
        failing = rng.integers(5, 60), rng.integers(5, 60)
        parts = []
        for stratum, (n, size, k) in enumerate(zip(failing, sizes, drawn, strict=True)):
            n_seen = rng.hypergeometric(n, size - n, k)
            p = [0.0001] * n_seen + [0.9] * (k - n_seen)
            parts.append(answers(range(k), p, group="missed", grade="trained", stratum=stratum, first=1 + stratum * k))
            parts[-1] = parts[-1].with_columns(pl.col("token") + 1000 * stratum)
        low, high = judge(pl.concat(parts), {"strata": sizes}).n_missed
        held += low <= sum(failing) <= high
    assert held > 0.83 * 300


def bounded(records):
    """The same answers, of which a server said no more than a bound."""
    return records.with_columns(bound=True, rank=pl.lit(None, pl.Int64))


def test_a_bound_above_the_limit_leaves_a_token_undecided_and_one_below_it_verifies():
    records = pl.concat(
        [
            bounded(answers([1, 2], [0.005, 0.05])),
            answers([3], [0.5]).with_columns(bound=False),
            # It came at one place, so that a bound at another one changes nothing.
            bounded(answers([4], [0.9])).with_columns(bound=pl.col("frame") == "one", p=pl.lit(0.4)),
        ],
        how="vertical_relaxed",
    )
    verdict = judge(records, {"strata": []})
    assert verdict.tokens["verified"].to_list() == [True, None, False, False]
    assert verdict.tokens["land"].to_list() == [None, None, "rejected", "rejected"]
    assert verdict.tokens["bound"].to_list() == [True, True, False, False]
    assert (verdict.n_undecided, verdict.n_not_asked) == (1, 0)
    assert verdict.precision.n == 1
    plain = judge(pl.concat([answers([1], [0.005]), answers([2, 3, 4], [0.5] * 3)]), {"strata": []})
    assert verdict.precision.low == pytest.approx(plain.precision.low, abs=0.05)
    assert verdict.precision.high > plain.precision.high + 0.05  # the undecided one may be verified


def test_tokens_that_were_not_asked_for_count_nowhere():
    asked = answers([1, 2], [0.005, 0.5]).with_columns(bound=False)
    unknown = {"p": pl.lit(None, pl.Float64), "answer": pl.lit(None, pl.Int64)}
    missed = answers([5, 6], [0.5, 0.5], group="missed", grade="trained", stratum=0).with_columns(bound=False)
    records = [asked, answers([3], [0]).with_columns(bound=False, **unknown), missed]
    verdict = judge(pl.concat(records, how="vertical_relaxed"), {"strata": [50]})
    assert verdict.tokens.filter(token=3).select("p_max", "verified", "glitch", "land").row(0) == (None,) * 4
    assert (verdict.precision.n, verdict.precision.of) == (1, 2)
    assert (verdict.n_undecided, verdict.n_not_asked) == (0, 1)
    assert judge(pl.concat([asked, missed]), {"strata": [50]}).n_missed == verdict.n_missed
