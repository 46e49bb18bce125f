"""Compiled kernels: for which instructions, and how they are kept, or not used, or not kept."""

import os
import pickle
import platform
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest
from llvmlite import binding
from numba.core import config

from darkvocab.errors import InvalidInput
from darkvocab.numerics._backends import compilation

HOST, HAS = binding.get_host_cpu_name(), binding.get_host_cpu_features()
KERNEL = """
from darkvocab.numerics._backends.compilation import kernel

@kernel()
def double(x):
    for i in range(x.size):
        x[i] *= 2
"""
USED = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import doubling
doubling.double(np.ones(3))
print(*(sum(hits.values()) for hits in (doubling.double.stats.cache_hits, doubling.double.stats.cache_misses)))
"""
needs_avx2 = pytest.mark.skipif(
    platform.machine() != "x86_64" or not HAS.get("avx2"), reason="names are of CPUs that have AVX2"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Hold a module with a kernel, and what is compiled of it in `kept`."""
    (tmp_path / "doubling.py").write_text(KERNEL)
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path


def use(folder):
    """Use the kernel as a fresh process would; return hits and misses of what is kept."""
    spec = spec_from_file_location("doubling", folder / "doubling.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    x = np.arange(3.0)
    module.double(x)
    assert x.tolist() == [0.0, 2.0, 4.0]
    return tuple(sum(result.values()) for result in (module.double.stats.cache_hits, module.double.stats.cache_misses))


def test_a_kernel_is_compiled_once(folder):
    assert use(folder) == (0, 1)
    assert use(folder) == (1, 0)


def damaged(content):
    yield "cut short", content[:-40]
    yield "cut to nothing", b""
    yield "other bytes", bytes(range(256)) * 10
    yield "one bit", content[:900] + bytes([content[900] ^ 1]) + content[901:] if len(content) > 900 else content[:-1]
    yield "another pickle", pickle.dumps([1, 2, 3])
    yield "another version", pickle.dumps("0.1.0") + b"of another numba"


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_what_is_damaged_or_of_another_version_is_compiled_anew(folder, kind, number):
    use(folder)
    (path,) = (folder / "kept").rglob(f"*.{kind}")
    path.write_bytes(list(damaged(path.read_bytes()))[number][1])
    assert use(folder) == (0, 1)
    assert use(folder) == (1, 0)


def test_where_nothing_can_be_kept_it_is_compiled_every_time(folder, monkeypatch):
    def nowhere(*_):
        raise RuntimeError("no locator available")

    monkeypatch.setattr(compilation.caching.CompileResultCacheImpl, "__init__", nowhere)
    assert use(folder) == use(folder) == (0, 1)


def test_a_kernel_is_compiled_anew_when_one_that_it_may_call_has_changed(folder, monkeypatch):
    use(folder)
    monkeypatch.setattr(compilation, "SOURCES", "of another version")
    assert use(folder) == (0, 1)


@pytest.mark.slow
@needs_avx2
def test_what_was_compiled_for_other_instructions_is_not_used(folder):
    def used(**variables):
        env = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "kept"), **variables}
        run = subprocess.run([sys.executable, "-c", USED, folder], check=True, capture_output=True, text=True, env=env)
        return run.stdout.split()

    assert used(NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="") == ["0", "1"]
    assert used() == ["0", "1"]  # not that of haswell
    assert used(NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="") == ["1", "0"]


@pytest.mark.parametrize(
    ("name", "features", "says"),
    [
        ("nonsense", None, ["NUMBA_CPU_NAME is 'nonsense'", HOST, "generic"]),
        ("sapphirerapids", "", ["NUMBA_CPU_NAME is 'sapphirerapids'"]),
        ("x86-64-v4", "", ["lacks what NUMBA_CPU_NAME=x86-64-v4 ", "+avx512f"]),
        (None, "+avx512f,+avx2", ["NUMBA_CPU_FEATURES=+avx512f,+avx2 ask for: +avx512f;"]),
        (None, "+nonsense,-avx512f", ["ask for: +nonsense;"]),
        ("generic", "nonsense", ["ask for: nonsense;"]),
        ("haswell", "+avx512f", ["NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx512f ask for: +avx512f;"]),
    ],
)
def test_instructions_that_are_not_there_are_refused(monkeypatch, name, features, says):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    outside = dict.fromkeys(compilation.LEVELS["x86-64-v3"].split(), True) | {"avx512f": False}
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: outside)
    with pytest.raises(InvalidInput) as caught:
        compilation.check_processor(name, features)
    for words in says:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "features"),
    [(None, None), ("generic", None), (HOST, None), (HOST, ""), ("", ""), (None, "-nonsense"), (None, HAS.flatten())],
)
def test_what_is_there_may_be_named(name, features):
    compilation.check_processor(name, features)


@needs_avx2
@pytest.mark.parametrize("name", ["haswell", "x86-64", "x86-64-v2", "x86-64-v3"])
def test_what_is_below_it_may_be_named(name):
    compilation.check_processor(name, "")


@pytest.mark.slow
def test_the_command_says_so_and_needs_none_for_its_help(tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((4, 4), np.float32))
    darkvocab = [sys.executable, "-c", "from darkvocab.cli import main; main()"]
    env = {**os.environ, "NUMBA_CPU_NAME": "nonsense"}
    codes = []
    for words in (["scan", tmp_path / "rows.npy"], ["--help"]):
        run = subprocess.run([*darkvocab, *words], capture_output=True, text=True, env=env)
        codes.append(run.returncode)
        if run.returncode:
            assert run.stdout == ""
            assert run.stderr.startswith("darkvocab: NUMBA_CPU_NAME is 'nonsense'")
            assert run.stderr.count("\n") == 1
    assert codes == [2, 0]
