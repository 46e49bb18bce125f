"""Files that a machine with AVX-512 wrote are, byte for byte, what this one writes, and with AVX2 alone."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import written
from llvmlite import binding

pytestmark = pytest.mark.slow
WRITTEN = Path(__file__).parent / "kept" / "machine"
AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_records_and_a_scan_are_those_of_a_machine_with_avx_512(tmp_path):
    written.write(tmp_path)
    assert contents(tmp_path) == contents(WRITTEN)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not binding.get_host_cpu_features().get("avx2"), reason="needs a CPU with AVX2"
)
def test_with_avx2_alone_they_are_too(tmp_path):
    command = [sys.executable, written.__file__, tmp_path]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **AVX2})
    assert contents(tmp_path) == contents(WRITTEN)
