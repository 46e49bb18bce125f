"""Judgement of a checkpoint's tokens: of which matrix, from which rows, and in which order."""

import numpy as np
import pytest
from safetensors.numpy import save_file
from untrained import area, two_populations

from darkvocab import EmbeddingMatrix
from darkvocab.measures.census import Census
from darkvocab.measures.dark import judge, judged_matrix, surest_first
from darkvocab.measures.indicators import bytes_read


def normal(n, dim=16, seed=0):
    return np.random.default_rng(seed).normal(0, 0.05, (n, dim)).astype(np.float32)


@pytest.mark.parametrize(
    ("score", "distance", "order"),
    [
        ([0.5, 1.0, 0.75], None, [1, 2, 0]),
        ([1.0, 1.0, 1.0], None, [0, 1, 2]),
        ([1.0, 1.0, 0.5, 1.0], [0.2, 0.1, 0.0, 0.1], [1, 3, 0, 2]),
        ([np.nan, 0.0, 1.0], None, [2, 1, 0]),
    ],
)
def test_the_surest_come_first_the_nearest_of_equal_scores_and_ties_by_id(score, distance, order):
    assert surest_first(np.array(score), None if distance is None else np.array(distance)).tolist() == order


@pytest.mark.parametrize(("n_output", "judged"), [(60, "lm_head.weight"), (50, "wte.weight"), (None, "wte.weight")])
def test_the_output_is_judged_where_it_has_a_row_for_every_token(n_output, judged, tmp_path):
    tensors = {"wte.weight": normal(60)}
    if n_output:
        tensors["lm_head.weight"] = normal(n_output, seed=1)
    save_file(tensors, tmp_path / "model.safetensors")
    assert judged_matrix(EmbeddingMatrix.open(tmp_path)).tensor == judged


def test_black_holes_lead_to_the_rows_that_stand_apart_with_them():
    rows = two_populations(3, 400, n_trained=4_000, dim=64)
    rows[1:200:2] = rows[0:200:2]
    judgement = judge(EmbeddingMatrix.from_array(rows))
    assert judgement.judged.indicators.reference.kind == "black holes"
    assert judgement.judged.census.numbers.tolist() == Census(judgement.judged.matrix.groups()).numbers.tolist()
    assert area(judgement.judged.indicators.score, np.arange(len(rows)) < 400) > 0.99


@pytest.mark.parametrize("apart", [True, False])
def test_passes_read_what_they_announce(apart):
    rows = normal(2_000, 32)
    if apart:
        rows[1_900:] = rows[0]
    matrix = EmbeddingMatrix.from_array(rows)
    read = []
    judge(matrix, census=Census(matrix.groups()), progress=read.append)
    assert sum(read) == bytes_read(matrix) - (0 if apart else matrix.words.nbytes)
