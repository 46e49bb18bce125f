"""The picture of the house is drawn from the imports as they are."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("grimp")
ROOT = Path(__file__).parents[1]
DOCS, SRC = ROOT / "docs", ROOT / "src/darkvocab"


def test_the_picture_is_up_to_date():
    spec = importlib.util.spec_from_file_location("architecture", DOCS / "architecture.py")
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    assert drawing.PICTURE.read_text("utf-8") == drawing.svg(), "out of date: python docs/architecture.py"


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def test_no_folder_is_a_hall_and_no_module_is_long():
    """No folder holds more than a fifth of the lines, and no module has more than 500."""
    modules = {path: lines(path) for path in SRC.rglob("*.py")}
    assert max(modules.values()) <= 500
    rooms = {room: sum(n for path, n in modules.items() if room in path.parents) for room in SRC.iterdir()}
    assert max(rooms.values()) <= sum(modules.values()) / 5


def test_each_folder_says_which_question_it_answers():
    for room in SRC.iterdir():
        if room.is_dir() and room.name != "__pycache__":
            assert (room / "__init__.py").read_text("utf-8").startswith('"""'), room
