"""The workflow for GitHub: valid, with the oldest and the newest Python, and with scripts that exist."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / ".github/workflows/ci.yml"


@pytest.mark.slow
def test_it_is_valid():
    pytest.importorskip("check_jsonschema")
    line = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout


def test_the_wheel_is_tried_on_three_systems_with_the_oldest_and_the_newest_python():
    spec = importlib.util.spec_from_file_location("pins", ROOT / ".ci/pins.py")
    pins = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pins)
    text = WORKFLOW.read_text()
    assert re.findall(r"python: \[(.+)\]", text) == [", ".join(f'"{python}"' for python in pins.ends())]
    assert re.findall(r"system: \[(\w+)-.+, (\w+)-.+, (\w+)-.+\]", text) == [("ubuntu", "macos", "windows")]


def test_what_it_runs_is_there():
    scripts = set(re.findall(r"\.ci/[\w.]+", WORKFLOW.read_text()))
    assert scripts == {".ci/run", ".ci/lowest.py", ".ci/installed.py"}
    assert all((ROOT / script).is_file() for script in scripts)
