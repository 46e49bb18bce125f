"""The wheel: its files besides the modules."""

from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent


def test_the_package_says_that_it_is_typed():
    names = [file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()]
    assert "darkvocab/py.typed" in names
