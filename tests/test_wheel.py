"""The wheel and the source distribution, made in this process: what they hold, and what PyPI would say of them."""

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import darkvocab

ROOT = Path(__file__).parent.parent
NAME = f"darkvocab-{darkvocab.__version__}"

pytestmark = pytest.mark.slow


def built(builder, folder):
    return Path(next(builder(str(ROOT)).build(directory=str(folder))))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built(WheelBuilder, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return built(SdistBuilder, tmp_path_factory.mktemp("sdist"))


def test_the_wheel_is_under_a_megabyte_and_holds_the_package_without_tests_and_kernels(wheel):
    assert wheel.name == f"{NAME}-py3-none-any.whl"
    assert wheel.stat().st_size < 1_000_000
    with zipfile.ZipFile(wheel) as file:
        listed = file.namelist()
    assert f"{NAME}.data/data/share/man/man1/darkvocab.1" in listed
    names = [name for name in listed if not name.startswith(f"{NAME}.d")]
    assert "darkvocab/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"darkvocab"}
    assert not {Path(name).suffix for name in names} & {".nbi", ".nbc", ".pyc", ".so"}
    assert not [name for name in names if "test" in Path(name).stem.split("_")]


def test_the_source_distribution_holds_what_git_does_and_neither_models_nor_caches(sdist):
    assert sdist.stat().st_size < 5_000_000
    with tarfile.open(sdist) as file:
        names = {name.removeprefix(f"{NAME}/") for name in file.getnames()} - {"PKG-INFO"}
    assert {"pyproject.toml", "constraints.txt", "Makefile", "tests/test_wheel.py"} <= names
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    assert names <= set(done.stdout.splitlines())


def test_pypi_would_take_both(wheel, sdist):
    check = pytest.importorskip("twine.commands.check")
    assert not check.check([str(wheel), str(sdist)], strict=True)
