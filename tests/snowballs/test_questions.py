"""Questions: seed 003's columns and its own code's answers, and what it forgot to ask, counted plainly."""

import json
from dataclasses import asdict, fields

import notebooks
import numpy as np
import pytest
import torch

from darkvocab.numerics import Touching, decode
from darkvocab.snowballs import run
from darkvocab.snowballs.experiments import QuestionRecord, Questions, questions
from darkvocab.snowballs.run import Cost, clouds

SMALL = {"n_tokens": 70, "dim": 32}
SIGMAS = np.geomspace(1e-6, 3e-3, 9).tolist()


def assert_equal(record, rows, threshold):
    """A record against the notebook's answers of float32 rows: to the bit but for what it rounds to float32."""
    theirs = notebooks.question(rows, threshold)
    ours = {name: getattr(record, name) for name in theirs}
    theirs["mean_linf"] = notebooks.float32_mean(theirs["mean_linf"])
    ours["median_linf"] = np.float32(ours["median_linf"])
    ours["demographics"] = json.loads(ours["demographics"])
    assert ours == theirs


def drawn(settings):
    return (cloud for _, cloud in clouds(settings, range(len(settings))))


# Against the notebook ------------------------------------------------------------------------------------------------


def test_columns_are_seed_003s_and_then_ours():
    names = [field.name for field in fields(QuestionRecord)]
    assert names[:6] == ["sigma", *notebooks.SEED_003]
    ours = "max_linf_steps density_1_step density_2_steps n_columns_coarser touching point trial sampler seed"
    assert set(ours.split()) < set(names)


def test_settings_are_seed_003s_unless_given():
    settings = Questions([1e-6], dim=8)
    assert (settings.n_tokens, settings.base.name, settings.redraw_base, settings.trials) == (
        2221,
        "random-unit",
        True,
        1,
    )
    assert (settings.touching, settings.over) == (Touching(1e-4, strict=True), "tokens")
    assert Questions([1e-6]).dim == 2560


@pytest.mark.parametrize("threshold", [3e-4, 4e-3])
def test_the_notebook_samplers_answers_are_the_notebooks(threshold):
    settings = Questions(SIGMAS, sampler="notebook", touching=Touching(threshold, strict=True), **SMALL)
    records = list(run.records(settings))
    torch.manual_seed(42)
    for sigma, record in zip(np.array(SIGMAS), records, strict=True):
        vector = torch.randn(32, dtype=torch.float32)
        vector = vector / vector.norm()
        rows = (vector + torch.randn(70, 32, dtype=torch.float32) * sigma).to(torch.bfloat16).float()
        assert record.sigma == sigma
        assert_equal(record, rows, threshold)
    assert len({r.density for r in records}) > 2
    assert sum(r.n_black_holes for r in records) > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "distribution"),
    [("sparse", "gaussian"), ("dense", "gaussian"), ("sparse", "laplace"), ("dense", "uniform-ball")],
)
def test_answers_are_the_notebooks_of_the_drawn_rows(sampler, distribution):
    settings = Questions(SIGMAS, sampler=sampler, distribution=distribution, trials=2, **SMALL)
    for record, cloud in zip(run.records(settings), drawn(settings), strict=True):
        assert_equal(record, torch.from_numpy(decode(cloud.words(), "bfloat16")), 1e-4)


@pytest.mark.slow
def test_the_median_is_the_mean_of_two_and_the_inequality_is_strict_where_that_matters():
    # Four tokens have six pairs, whose middle two differ; and a power of two is a distance that occurs.
    few, matters = {"n_tokens": 4, "trials": 4, "dim": 5}, []
    for threshold in (2.0**-9, 2.0**-8, 2.0**-7):
        runs = [Questions([1e-3, 3e-3], touching=Touching(threshold, strict=strict), **few) for strict in (True, False)]
        for below, within, cloud in zip(*map(run.records, runs), drawn(runs[0]), strict=True):
            rows = torch.from_numpy(decode(cloud.words(), "bfloat16"))
            assert_equal(below, rows, threshold)
            assert_equal(within, rows, np.nextafter(np.float32(threshold), np.float32(1)).item())
            apart = np.sort([(rows[i] - rows[j]).abs().max().item() for i in range(4) for j in range(i)])
            matters.append((below.density < within.density, apart[2] < apart[3]))
    assert np.any(matters, axis=0).all()


@pytest.mark.parametrize("grid", ["bfloat16", "float16", "float8_e4m3fn"])
def test_what_the_notebook_did_not_ask_is_counted_plainly(grid):
    settings = Questions([1e-4, 1e-3, 1e-2], grid=grid, trials=2, base="random", **SMALL)
    densities = set()
    for record, cloud in zip(run.records(settings), drawn(settings), strict=True):
        index = cloud.index().astype(np.int64)
        steps = np.abs(index[:, None] - index[None]).max(axis=2, initial=0)[np.triu_indices(70, 1)]
        assert (record.density_1_step, record.density_2_steps) == ((steps <= 1).mean(), (steps <= 2).mean())
        assert (record.max_linf_steps, record.median_linf_steps) == (steps.max(), np.median(steps))
        assert record.mean_linf_steps == pytest.approx(steps.mean(), rel=1e-12)
        unique, counts = np.unique(index, axis=0, return_counts=True)
        assert (record.n_unique, record.n_singletons) == (len(unique), (counts == 1).sum())
        assert record.black_hole_population == counts[counts >= 2].sum()
        values = decode(cloud.words(), grid)
        assert record.max_linf == np.ptp(values, axis=0).max()
        densities |= {record.density_1_step, record.density_2_steps}
    assert len(densities) > 2


def test_columns_whose_step_the_threshold_does_not_reach_by_hand():
    # ulp of 2**e .. 2**(e + 1) is 2**(e - 7): 2**-13 from 2**-6 on, above 1e-4; 2**-14 below.
    base = np.array([2.0**-6, 2.0**-6 - 2.0**-14, -(2.0**-6), 0.99, 0.0, 2.0**-7, 3e-5], np.float32)
    settings = {"base": base, "redraw_base": False, "n_tokens": 5}

    def coarser(touching):
        return next(questions([1e-9], touching=touching, **settings)).n_columns_coarser

    assert coarser(Touching(1e-4, strict=True)) == 3
    assert coarser(Touching(2.0**-13, strict=True)) == 3  # a step of just the threshold is not below it
    assert coarser(Touching(2.0**-13)) == 1
    assert coarser(Touching(2.0**-14, strict=True)) == 5
    assert coarser(Touching(2.0**-14)) == 3
    assert coarser(Touching(1.0)) == 0


def test_of_columns_that_are_rounded_up_to_a_power_of_two_the_rounded_ones_step_counts():
    base = np.array([2.0**-6 * (1 - 2.0**-12)], np.float32)  # rounds to 2**-6
    settings = Questions([0.0], base=base, redraw_base=False, n_tokens=5)
    assert next(run.records(settings)).n_columns_coarser == 1


# One token, and the rest ---------------------------------------------------------------------------------------------


def test_one_token_touches_itself():
    for sampler in ("sparse", "dense", "notebook"):
        (record,) = questions([1e-5], n_tokens=1, dim=32, sampler=sampler)
        assert (record.density, record.density_1_step, record.density_2_steps) == (1.0, 1.0, 1.0)
        assert (record.mean_linf, record.median_linf, record.max_linf_steps, record.n_black_holes) == (0, 0, 0, 0)
        assert record.demographics == "[1]"


def test_thirteen_populations_are_kept_and_singletons_count():
    (record,) = questions([1e-3], **SMALL)
    assert json.loads(record.demographics) == [1] * 13
    (record,) = questions([0.0], **SMALL)
    assert (json.loads(record.demographics), record.n_black_holes, record.density) == ([70], 1, 1.0)


@pytest.mark.slow
def test_records_are_the_same_for_any_engine_and_size_of_part(monkeypatch):
    for sampler in ("sparse", "notebook"):
        settings = Questions(SIGMAS, sampler=sampler, trials=3, **SMALL)
        one = list(run.records(settings, engine="serial"))
        assert list(run.records(settings, engine="processes", workers=2)) == one
        for size in (1, 4, 21):
            with monkeypatch.context() as patch:
                patch.setattr(Cost, "part_size", size)
                assert list(run.records(settings, engine="threads", workers=2)) == one


def test_every_sigma_has_a_base_of_its_own():
    records = list(questions([1e-4] * 5, trials=2, **SMALL))
    assert len({r.mean_linf for r in records}) == 10
    assert len({r.n_columns_coarser for r in records}) > 1
    for point in range(5):
        assert len({r.n_columns_coarser for r in records if r.point == point}) == 1
    fixed = list(questions([1e-4] * 5, redraw_base=False, **SMALL))
    assert len({r.n_columns_coarser for r in fixed}) == 1


def test_nothing_is_null(tmp_path):
    for record in questions(SIGMAS, **SMALL):
        assert None not in asdict(record).values()


def test_a_threshold_in_steps_is_refused():
    with pytest.raises(ValueError, match="threshold in weight units"):
        Questions([1e-5], touching=Touching(2, "steps"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"n_tokens": -1}, "n_tokens must be"), ({"trials": 0}, "trials must be"), ({"dim": 0}, "dim must be")],
)
def test_settings_that_cannot_be_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        Questions([1e-5], **bad)


def test_a_base_can_be_an_array():
    assert Questions([1e-5], base=np.full(20, 0.01, np.float32), n_tokens=5).redraw_base is False


@pytest.mark.parametrize("fixed", [{"over": "unique"}, {"measure": ["census"]}])
def test_what_questions_fix_is_refused(fixed):
    with pytest.raises((TypeError, ValueError), match=next(iter(fixed))):
        Questions([1e-5], **fixed, **SMALL)
