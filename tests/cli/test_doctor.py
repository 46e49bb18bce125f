"""Answers of `doctor` about an installation, whole or not; and --version."""

import json
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
from jsonschema import Draft202012Validator

import darkvocab
from darkvocab.cli import doctor, shell
from darkvocab.errors import InvalidInput
from darkvocab.numerics._backends import grouping

SCHEMA = Path(__file__).parents[2] / "docs/schemas/doctor.json"
REQUIRES = [
    "numpy>=2.0",
    "oldlib>=3.0",
    "zstd; python_version < '3'",
    "torch>=2.4; extra == 'train'",
    "torch>=2.4; extra == 'verify'",
    "nothere>=1; extra == 'dask'",
]
INSTALLED = {"numpy": "2.3.1", "oldlib": "3.2", "torch": "2.13.0+cpu"}


@pytest.fixture
def installation(monkeypatch, tmp_path):
    """An installation of these packages, without a device; versions may be changed."""
    versions = dict(INSTALLED)

    def distributions(name):
        return iter([SimpleNamespace(version=versions[name])] if name in versions else [])

    def torch_device(name):
        raise InvalidInput("no such device")

    monkeypatch.setattr("importlib.metadata.requires", lambda name: REQUIRES)
    monkeypatch.setattr("importlib.metadata.distributions", distributions)
    monkeypatch.setattr("darkvocab.gpu.device.torch_device", torch_device)
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    (tmp_path / "darkvocab" / "files").mkdir(parents=True)
    (tmp_path / "darkvocab" / "files" / "a").write_bytes(bytes(3_000_000))
    return versions


def test_packages_extras_and_caches_are_listed(cli, installation, tmp_path):
    result = cli("doctor", "--json")
    said = json.loads(result.out)
    assert result.code == 0
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(said)
    assert (said["darkvocab"], said["python"]) == (darkvocab.__version__, platform.python_version())
    assert (said["device"], said["broken"]) == ("cpu", None)
    assert said["packages"] == [
        {"name": "numpy", "needs": ">=2.0", "version": "2.3.1", "fits": True},
        {"name": "oldlib", "needs": ">=3.0", "version": "3.2", "fits": True},
    ]
    assert [package["fits"] for package in said["extras"]["dask"]["packages"]] == [False]
    assert [package["version"] for package in said["extras"]["train"]["packages"]] == ["2.13.0+cpu"]
    assert said["caches"]["embeddings"]["path"] == str(tmp_path / "darkvocab")
    assert 3_000_000 <= said["caches"]["embeddings"]["bytes"] < 3_100_000
    assert said["caches"]["models"]["bytes"] == 0


def test_a_missing_extra_is_no_fault_and_its_command_is_printed(cli, installation):
    result = cli("doctor")
    assert result.code == 0
    assert result.out.endswith("\nfor --engine dask: pip install 'darkvocab[dask]'\n")
    assert result.out.count("pip install") == 1


@pytest.mark.parametrize("version", [None, "2.9"])
def test_a_base_package_that_is_missing_or_too_old_is_a_fault(cli, installation, version):
    del installation["oldlib"]
    if version:
        installation["oldlib"] = version
    result = cli("doctor")
    assert result.code == 1, result.err
    assert "oldlib is missing or too old: pip install 'oldlib>=3.0'\n" in result.out


def test_a_library_that_cannot_be_loaded_is_a_fault(cli, installation, monkeypatch):
    def caches():
        raise ImportError("Numba needs NumPy 2.3 or less")

    monkeypatch.setattr(doctor, "_caches", caches)
    result = cli("doctor")
    assert result.code == 1, result.err
    assert "a library cannot be loaded (Numba needs NumPy 2.3 or less): pip install" in result.out


def test_kernels_that_are_kept_nowhere_are_said(cli, installation, monkeypatch):
    monkeypatch.setattr(grouping.hash_rows._cache, "_cache_path", None)
    result = cli("doctor")
    assert result.code == 0
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in result.out


def test_the_version_names_python_and_the_instruction_set(cli):
    result = cli("--version")
    assert result.out == f"darkvocab {darkvocab.__version__}, Python {platform.python_version()}, {shell.machine()}\n"
    assert result.code == 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86-64")
def test_instruction_sets_are_those_that_the_processor_has(monkeypatch):
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "haswell")
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: {"avx2": True, "avx512f": False})
    assert shell.machine() == f"{platform.system()} x86_64, haswell, AVX2"
