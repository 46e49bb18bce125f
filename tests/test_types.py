"""Arrays are checked in tests, in every module but the kernels: no list of modules in which to forget one."""

import ast
import pkgutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError

import darkvocab
from darkvocab.numerics.grouping import n_cores
from darkvocab.snowballs.fit.checks import association
from darkvocab.snowballs.theory import Partition

KERNELS = ("._backends", ".by_triton")


def test_every_module_but_the_kernels_is_checked():
    modules = [module.name for module in pkgutil.walk_packages(darkvocab.__path__, "darkvocab.") if not module.ispkg]
    unchecked = [name for name in modules if type(find_spec(name).loader).__name__ != "_JaxtypingLoader"]
    assert len(modules) > 100
    assert [name for name in unchecked if not any(part in name for part in KERNELS)] == []


def test_no_hint_has_a_literal_ellipsis_as_its_shape():
    # A hint with `...` raises when jaxtyping reads it, and nothing is checked; " ..." is right: ruff unquotes "...".
    files = sorted(Path(darkvocab.__file__).parent.rglob("*.py"))
    nodes = ((file, node) for file in files for node in ast.walk(ast.parse(file.read_text())))
    shaped = [(file, node) for file, node in nodes if isinstance(node, ast.Subscript) and _is_of_arrays(node)]
    assert len(shaped) > 300
    assert [f"{file.name}:{node.lineno}" for file, node in shaped if _shape_of(node) is ...] == []


def _is_of_arrays(node):
    """`Kind[np.ndarray, shape]`."""
    kind = getattr(node.slice, "elts", [None])[0]
    return isinstance(kind, ast.Attribute) and kind.attr == "ndarray"


def _shape_of(node):
    return getattr(node.slice.elts[1], "value", None)


@pytest.mark.parametrize("index", [np.zeros((2, 3)), np.zeros(2, dtype=np.int64), np.zeros((3, 3), dtype=np.int64)])
def test_an_array_of_another_dtype_or_shape_is_refused(index):
    with pytest.raises(TypeCheckError):
        association(index, np.ones(2, dtype=np.int64))


def test_an_array_of_another_dtype_is_refused_as_a_dataclasses_field():
    with pytest.raises(TypeCheckError):
        Partition(np.ones(2), None)


def test_functions_without_arrays_are_left_as_they_are():
    assert not hasattr(n_cores, "__wrapped__")
    assert hasattr(association, "__wrapped__")
