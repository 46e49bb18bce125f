"""The picture of the house is drawn from the imports as they are."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("grimp")
DOCS = Path(__file__).parents[1] / "docs"


def test_the_picture_is_up_to_date():
    spec = importlib.util.spec_from_file_location("architecture", DOCS / "architecture.py")
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    assert drawing.PICTURE.read_text("utf-8") == drawing.svg(), "out of date: python docs/architecture.py"
