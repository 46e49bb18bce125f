"""The bench of a GPU runs from end to end before there is one: on a CPU, at small sizes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow
BENCH = Path(__file__).parent.parent / "benches" / "gpu.py"


@pytest.fixture(scope="module")
def rehearsed():
    line = [sys.executable, BENCH, "--rehearse", "--json"]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def test_every_target_has_a_row_with_its_floor(rehearsed):
    rows = {row["what"]: row for row in rehearsed["rows"]}
    for start in (
        "12.4b",
        "13.5a",
        "all pairs of",
        "census of",
        "11.2c, a step of one",
        "11.2c, a step of 2 trainings",
    ):
        (result,) = [row for what, row in rows.items() if what.startswith(start)]
        assert result["seconds"] > 0
        assert result["floor"] > 0
        assert result["of"]
    assert rehearsed["card"].startswith("none: a rehearsal")


def test_what_is_timed_is_what_a_core_makes(rehearsed):
    same = {row["what"].split(",")[0].split(" of ")[0]: row["same"] for row in rehearsed["rows"] if "same" in row}
    assert same == {"12.4b": True, "12.2a": True, "13.5a": True, "census": True}
