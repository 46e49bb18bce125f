"""Rows grouped on a device: plain torch and Triton against the compiled hash and a table of rows.

Triton's kernels run in its interpreter, and are compiled for GPUs that need not be here.
"""

import importlib.util
import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import kernels  # noqa: E402
import plain_grouping as grouping  # noqa: E402
from batches import Rows  # noqa: E402

SHAPES = [(3, 50, 5), (1, 9, 16), (2, 40, 600), (1, 2100, 40), (2, 1, 7), (2, 0, 3), (0, 4, 4), (2, 3, 0), (1, 5, 1)]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kernels")]  # which start two processes
with_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("shape", SHAPES)
def test_hashes_are_the_compiled_ones(shape, bits, folded, monkeypatch):
    monkeypatch.setattr(grouping, "CHUNK", 3000)  # several pieces
    rows = Rows(bits, *shape)
    for result, true in zip(grouping.hash_rows(*rows.tensors(), folded), rows.compiled(folded), strict=True):
        assert np.array_equal(result.numpy(), true)


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_leader_is_the_first_equal_row(shape, bits, folded, monkeypatch):
    monkeypatch.setattr(grouping, "CHUNK", 3000)
    rows = Rows(bits, *shape)
    leader, collided = grouping.leaders(*rows.tensors(), folded)
    assert np.array_equal(leader.numpy(), rows.leaders(folded))
    assert not collided.any()


def test_leaders_may_be_given_the_hashes():
    rows = Rows(16, 2, 60, 4)
    words, keys = rows.tensors()
    hashes, _ = grouping.hash_rows(words, keys, True)
    assert torch.equal(grouping.leaders(words, keys * 0, True, hashes)[0], grouping.leaders(words, keys, True)[0])


def test_rows_of_one_hash_that_differ_are_told():
    rows = Rows(16, 3, 40, 6)
    rows.words[1] = rows.words[1, 0]  # all alike: nothing to tell apart
    words, keys = rows.tensors()
    _, collided = grouping.leaders(words, keys * 0, True)
    assert collided.tolist() == [True, False, True]


def test_minus_zero_collides_with_zero_only_where_bits_are_compared():
    words = torch.tensor([[[0, 5], [-(2**15), 5]]], dtype=torch.int16)
    keys = torch.zeros(2, dtype=torch.int64)
    assert [bool(grouping.leaders(words, keys, folded)[1]) for folded in (True, False)] == [False, True]


def test_a_trial_does_not_depend_on_its_batch():
    rows = Rows(8, 5, 80, 3)
    words, keys = rows.tensors()
    whole, _ = grouping.leaders(words, keys, True)
    order = torch.tensor([4, 0, 2])
    assert torch.equal(grouping.leaders(words[order], keys, True)[0], whole[order])
    assert torch.equal(grouping.leaders(words[3:4], keys, True)[0], whole[3:4])


# Triton --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interpreted():
    return kernels.in_a_process("interpret")["grouping"]


@pytest.fixture(scope="module")
def compiled():
    return kernels.in_a_process("compile")["grouping"]


@with_triton
@pytest.mark.parametrize("name", kernels.FACTS["grouping"])
def test_triton_agrees_on(name, interpreted):
    assert interpreted[name] == ""


@with_triton
def test_kernels_are_compiled_without_spills(compiled):
    assert len(compiled) == 20
    assert {name: of["stack"] for name, of in compiled.items() if of["stack"]} == {}


@with_triton
@pytest.mark.parametrize("architecture", [80, 90])
def test_rows_are_loaded_by_16_bytes(compiled, architecture):
    for kind, kernel in itertools.product(("scan", "dense", "float32", "sparse"), ("hash_kernel", "differ_kernel")):
        assert compiled[f"{kernel}-{kind}-{architecture}"]["wide_loads"] >= 2  # of both rows
