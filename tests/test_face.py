"""The face of the package: few names at the top, the rest in the wings, and nothing is loaded before it is used."""

import importlib
import subprocess
import sys

import pytest

import darkvocab


def test_the_top_has_the_verbs_and_little_else():
    names = set(darkvocab.__all__) - {"DarkvocabError", "errors"}
    assert len(names) <= 25
    assert {"scan", "check", "repair", "diff", "sweep", "expect", "fit", "train", "evolve"} <= names


@pytest.mark.parametrize("package", ["darkvocab", *(f"darkvocab.{wing}" for wing in darkvocab.WINGS)])
def test_every_name_that_a_package_offers_is_there(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.slow
def test_importing_the_package_loads_nothing_of_it():
    code = "import sys, darkvocab; print([n for n in sys.modules if n.startswith('darkvocab.') or n == 'numpy'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.slow
def test_the_command_line_loads_no_library_that_only_some_commands_need():
    needless = {"huggingface_hub", "importlib.metadata", "llvmlite", "numpy", "packaging", "polars", "rich"}
    code = f"import sys, darkvocab.cli; print(sorted({needless} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
