"""A machine without Triton, as one with macOS: whatever needs it is left out, and says so."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parent.parent
SCRIPT = "import pytest, sys; sys.modules['triton'] = None; sys.exit(pytest.main(sys.argv[1:]))"


@pytest.mark.slow
def test_all_is_collected_and_tests_of_kernels_are_skipped_with_a_reason():
    where = ("src/darkvocab", "tests/twins", "tests/importable")
    line = [sys.executable, "-c", SCRIPT, "--quiet", "-rs", "-k", "triton_agrees_on", *where]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout[-3000:]
    assert "needs triton" in done.stdout
    assert " passed" not in done.stdout
