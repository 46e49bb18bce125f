"""The check of the pins, without a network: `make pins` and CI run it with one."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def pins():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("pins", ROOT / ".ci/pins.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.slow
def test_a_registry_that_cannot_be_reached_is_said(pins, monkeypatch, tmp_path):
    pytest.importorskip("uv")
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "UV_HTTP_RETRIES": "0", "UV_CACHE_DIR": str(tmp_path)}
    monkeypatch.setattr(pins, "ENVIRONMENT", pins.ENVIRONMENT | nowhere)
    monkeypatch.setattr("sys.argv", ["pins.py"])
    with pytest.raises(SystemExit, match="PyPI cannot be reached, so nothing is known of the pins; try again"):
        pins.main()


def test_what_is_not_pinned_is_said(pins, monkeypatch):
    monkeypatch.setattr(pins, "solve", lambda *options: "numpy==1.0 ; sys_platform == 'linux'\ntorch==2.13.0\n")
    assert pins.fault("Linux x86-64", "3.11", True) == "not in constraints.txt: numpy==1.0\n"
    assert pins.fault("Linux x86-64", "3.11", False) == ""


def test_every_platform_is_solved_for_the_oldest_and_the_newest_python_with_the_pins_and_without(
    pins, monkeypatch, capsys
):
    def solve(*options):
        if "aarch64-apple-darwin" in options and "3.14" in options and "--constraint" in options:
            raise ValueError("no wheels")
        return ""

    monkeypatch.setattr(pins, "solve", solve)
    assert pins.ends() == ("3.11", "3.14")
    assert pins.check() == 1
    printed = capsys.readouterr()
    assert printed.out == "pins: 11 of 12 installs resolve from PyPI alone\n"
    assert printed.err == "macOS 14 arm64, Python 3.14, with the pins:\nno wheels\n"


def test_the_lowest_versions_are_those_of_all_extras_but_for_triton(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / ".ci")
    lines = importlib.import_module("lowest").requirements()
    names = {re.match(r"[\w.-]+", line)[0] for line in lines}
    assert {"numpy", "typer", "torch", "transformers", "lightning", "dask", "pytest"} <= names
    assert "triton" not in names
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["dependencies"]) <= set(lines)
