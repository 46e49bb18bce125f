"""Evolution: motion and events by hand, their laws, and the compiled measures against plain numpy."""

from collections import Counter

import numpy as np
import pytest
from gridding import steps
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from darkvocab.measures.geometry import Geometry
from darkvocab.measures.tracking import (
    EVENT_KINDS,
    State,
    cloud,
    drift,
    extent,
    follow,
    holes_of,
    mean_distances,
    moves,
    replay,
    starts,
)
from darkvocab.numerics import encode
from darkvocab.numerics.grouping import identical_rows

GRIDS = ("bfloat16", "float16", "float32")
VALUES = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.0078125, 1.0, 1.0078125, 3.0])
matrices = hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=VALUES)


def state(*rows, grid="bfloat16"):
    return State(encode(np.array(rows, np.float32), grid), grid)


def groups(labels):
    """Tokens with equal letters share a row."""
    return identical_rows(np.frombuffer(labels.encode(), np.uint8)[:, None])


def told(before, after):
    """The events between two partitions, given as letters for every token; a letter that occurs once stands alone."""
    holes = holes_of(groups(before))
    _, events, _ = follow(holes, groups(after), int(holes.max(initial=0)) + 1)
    return [(event.kind, event.hole, event.other, event.tokens) for event in events]


# Events by hand ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        ("aabb", "ccdd", []),  # rows changed, nobody parted
        ("abcd", "aacd", [("birth", 1, 0, (0, 1))]),
        ("aabc", "dabc", [("vanish", 1, 0, (0, 1))]),
        ("aaab", "aaaa", [("gain", 1, 0, (3,))]),
        ("aaaa", "aaab", [("lose", 1, 0, (3,))]),
        ("aaabb", "aaaaa", [("merge", 2, 1, (3, 4))]),
        ("aaaaa", "aaabb", [("split", 2, 1, (3, 4))]),
        ("aaabbb", "aabbbb", [("gain", 2, 1, (2,)), ("lose", 1, 2, (2,))]),
        # Black holes of equal size merge into the one with the smaller number.
        ("aabb", "cccc", [("merge", 2, 1, (2, 3))]),
        # Of two halves the one with the first token goes on.
        ("aaaa", "aabb", [("split", 2, 1, (2, 3))]),
        # One ends: most join another, the rest stand alone.
        ("aaaabbb", "aaaaaac", [("merge", 2, 1, (4, 5)), ("lose", 2, 0, (6,))]),
        # A new one takes tokens from an old one and from none.
        ("aaaabc", "aadddc", [("split", 2, 1, (2, 3)), ("gain", 2, 0, (4,))]),
        # One is torn between two that go on.
        ("aaabbbcc", "aaabbbab", [("merge", 3, 1, (6,)), ("merge", 3, 2, (7,))]),
        # A single shared token is enough to go on.
        ("aab", "cbb", [("gain", 1, 0, (2,)), ("lose", 1, 0, (0,))]),
    ],
)
def test_events_by_hand(before, after, events):
    assert told(before, after) == events


def test_a_number_is_never_used_again():
    holes = holes_of(groups("aabb"))
    holes, events, fresh = follow(holes, groups("abcd"), 3)
    assert ([event.kind for event in events], holes.tolist(), fresh) == (["vanish"] * 2, [0] * 4, 3)
    holes, events, fresh = follow(holes, groups("aabb"), fresh)
    assert ([event.hole for event in events], holes.tolist(), fresh) == ([3, 4], [3, 3, 4, 4], 5)


def test_the_first_state_is_told_too():
    holes = holes_of(groups("abacbd"))
    assert holes.tolist() == [1, 2, 1, 0, 2, 0]
    assert [(event.kind, event.hole, event.tokens) for event in starts(holes)] == [
        ("start", 1, (0, 2)),
        ("start", 2, (1, 4)),
    ]


# Laws of events ------------------------------------------------------------------------------------------------------

partitions = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 5), min_size=n, max_size=n), min_size=1, max_size=8)
)


def partition(holes):
    """The sets of tokens that share a black hole."""
    return {frozenset(np.flatnonzero(holes == hole).tolist()) for hole in np.unique(holes[holes > 0])}


@given(partitions)
def test_replaying_the_events_gives_every_partition(history):
    told_holes = np.zeros(len(history[0]), np.int64)
    holes, fresh = None, 1
    for labels in history:
        now = identical_rows(np.array(labels, np.uint8)[:, None])
        if holes is None:
            holes = holes_of(now)
            events, fresh = starts(holes), int(holes.max()) + 1
        else:
            before, first_fresh = holes, fresh
            holes, events, fresh = follow(before, now, fresh)
            check_events(before, holes, events, first_fresh)
        replay(told_holes, [(event.kind, event.hole, event.other, event.tokens) for event in events])
        assert told_holes.tolist() == holes.tolist()
        values, counts = np.unique(labels, return_counts=True)
        assert partition(holes) == {
            frozenset(np.flatnonzero(np.array(labels) == value).tolist()) for value in values[counts > 1]
        }


def check_events(before, after, events, fresh):
    """Assert what the docstring of `Event` says of each kind, and that each change is told once."""
    outside, inside = set(before[before > 0].tolist()), set(after[after > 0].tolist())
    times = Counter(token for event in events for token in event.tokens)
    both_sides = Counter(token for event in events if event.kind == "gain" and event.other for token in event.tokens)
    assert set(times) == set(np.flatnonzero(before != after).tolist())
    assert all(times[token] == 1 + both_sides[token] for token in times)
    for event in events:
        assert event.kind in EVENT_KINDS
        assert event.tokens == tuple(sorted(event.tokens))
        old, new = set(before[list(event.tokens)].tolist()), set(after[list(event.tokens)].tolist())
        if event.kind == "birth":
            assert (event.hole >= fresh, old, event.other) == (True, {0}, 0)
            assert event.tokens == tuple(np.flatnonzero(after == event.hole).tolist())
        elif event.kind == "vanish":
            assert (event.hole in inside, new, event.other) == (False, {0}, 0)
            assert event.tokens == tuple(np.flatnonzero(before == event.hole).tolist())
        elif event.kind == "merge":
            assert event.hole not in inside
            assert event.other in outside & inside
            assert (old, new) == ({event.hole}, {event.other})
        elif event.kind == "split":
            assert event.hole >= fresh
            assert event.other in outside & inside
            assert (old, new) == ({event.other}, {event.hole})
        elif event.kind == "gain":
            assert (old, new) == ({event.other}, {event.hole})
        else:
            assert (old, new) == ({event.hole}, {event.other})


# Motion by hand ------------------------------------------------------------------------------------------------------


def test_steps_are_counted_across_a_power_of_two_and_across_zero():
    before, after = state([1.0, 0.0], [0.99609375, -(2.0**-133)]), state([1.0078125, 0.0], [1.0078125, 2.0**-133])
    m = moves(before, after)
    assert (m.l1.tolist(), m.l_inf.tolist()) == ([1, 4], [1, 2])
    assert m.l2.tolist() == [1, 8**0.5]


def test_a_zero_that_changes_its_sign_has_not_moved():
    m = moves(state([0.0, 1.0]), state([-0.0, 1.0]))
    assert (m.l1.tolist(), m.l2.tolist(), m.l_inf.tolist()) == ([0], [0.0], [0])


def test_moves_are_summed_up_over_the_tokens_asked_for():
    before = state([1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0])
    after = state([1.0, 1.0], [1.0234375, 1.03125], [1.0078125, 1.0], [2.0, 2.0])
    assert moves(before, after).spread(np.array([0, 1, 2])) == (2, 8 / 3, 7, 2.0, 5.0, 5 / 3, 4)


def test_what_all_share_is_bulk_and_the_rest_is_thermal():
    before = state([1.0, 1.0], [2.0, 2.0])
    both, tokens = state([1.5, 1.0], [2.5, 2.0]), np.arange(2)
    assert (drift(before, both, tokens).bulk, drift(before, both, tokens).thermal) == (0.5, 0.0)
    apart = state([1.5, 1.0], [1.5, 2.0])
    assert (drift(before, apart, tokens).bulk, drift(before, apart, tokens).thermal) == (0.0, 0.5)
    assert (drift(before, before, tokens).bulk, drift(before, before, tokens).thermal) == (0.0, 0.0)


def test_radii_are_from_the_centroid():
    c = cloud(state([0.0, 0.0], [4.0, 0.0], [0.0, 3.0], [9.0, 9.0]), np.array([0, 1]))
    assert (c.centroid.tolist(), c.radius_max, c.radius_rms) == ([2.0, 0.0], 2.0, 2.0)


# Laws and twins of motion --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shape", [(40, 7), (1, 1), (30, 64)])
def test_motion_is_that_of_plain_numpy(grid, shape):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    y = (x + rng.standard_normal(shape) * 0.01 * (rng.random((shape[0], 1)) < 0.5)).astype(np.float32)
    before, after = state(*x, grid=grid), state(*y, grid=grid)
    tokens = np.flatnonzero(rng.random(shape[0]) < 0.7) if shape[0] > 1 else np.arange(1)
    a, b = before.values.astype(np.float64), after.values.astype(np.float64)
    d = steps(a, b, grid)
    m = moves(before, after)
    assert m.l1.tolist() == np.abs(d).sum(axis=1).tolist()
    assert m.l_inf.tolist() == np.abs(d).max(axis=1).tolist()
    assert m.l2 == pytest.approx(np.linalg.norm(d.astype(float), axis=1), rel=1e-14)
    of = np.stack([m.l1, m.l2, m.l_inf])[:, tokens]
    spread = m.spread(tokens)
    assert spread[0] == (d[tokens] != 0).any(axis=1).sum()
    assert spread[1:] == pytest.approx(np.stack([of.mean(axis=1), of.max(axis=1)], axis=1).ravel(), rel=1e-14)
    ours = (b - a)[tokens]
    bulk, rest = ours.mean(axis=0), ours - ours.mean(axis=0)
    assert drift(before, after, tokens).bulk == pytest.approx(np.linalg.norm(bulk), rel=1e-12, abs=1e-300)
    assert drift(before, after, tokens).thermal == pytest.approx(
        np.sqrt((rest**2).sum(axis=1).mean()), rel=1e-12, abs=1e-300
    )
    c, away = cloud(after, tokens), np.linalg.norm(b[tokens] - b[tokens].mean(axis=0), axis=1)
    assert c.centroid == pytest.approx(b[tokens].mean(axis=0), rel=1e-12)
    assert (c.radius_max, c.radius_rms) == pytest.approx((away.max(), np.sqrt((away**2).mean())), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("few", [0, 512])
@given(rows=matrices, seed=st.integers(0, 99))
def test_distances_of_sets_are_those_of_geometry(grid, few, rows, seed):
    now = state(*rows, grid=grid)
    chosen = np.random.default_rng(seed).random(len(rows)) < 0.6
    sets = [np.arange(len(rows)), *(part for part in (np.flatnonzero(chosen), np.flatnonzero(~chosen)) if len(part))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("darkvocab.measures.tracking.MOST_ONE_BY_ONE", few)
        means = mean_distances(now, sets, 100)
    for tokens, mean in zip(sets, means, strict=True):
        among = Geometry(now.index[tokens], grid)
        assert mean == pytest.approx((among.weight.mean, among.steps.mean), rel=1e-12)
        widest = extent(now, tokens)
        assert (widest.weight, widest.steps) == (among.weight.max, among.steps.max)
        assert widest.weight == np.ptp(now.values[tokens][:, widest.column])
        assert widest.steps == np.ptp(now.index[tokens][:, widest.column_of_steps])


@pytest.mark.parametrize("few", [0, 512])
def test_means_of_too_many_rows_are_not_taken(few, monkeypatch):
    monkeypatch.setattr("darkvocab.measures.tracking.MOST_ONE_BY_ONE", few)
    now = state([1.0], [2.0], [3.0], [3.0])
    assert mean_distances(now, [np.arange(4), np.array([2, 3])], 2) == [None, (0.0, 0.0)]


def test_an_infinite_distance_counts_in_its_own_sets_only():
    far = 3.0e38
    now = state([-far], [far], [1.0], [2.0])
    both, near = mean_distances(now, [np.arange(4), np.array([2, 3])], 100)
    assert (both[0], near) == (np.inf, (1.0, 128.0))


@given(rows=matrices, seed=st.integers(0, 99))
def test_motion_does_not_depend_on_the_order_of_tokens(rows, seed):
    rng = np.random.default_rng(seed)
    order, moved = rng.permutation(len(rows)), rows * rng.choice(np.float32([1.0, 1.5]), (len(rows), 1))
    before, after = state(*rows), state(*moved)
    turned = state(*rows[order]), state(*moved[order])
    tokens = np.arange(len(rows))
    assert moves(*turned).l1.tolist() == moves(before, after).l1[order].tolist()
    ours, theirs = drift(before, after, tokens), drift(*turned, tokens)
    assert (theirs.bulk, theirs.thermal) == pytest.approx((ours.bulk, ours.thermal), rel=1e-9, abs=1e-15)
