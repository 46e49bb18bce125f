"""Settings of all tests: Hypothesis without deadlines (the first call of a kernel compiles it), quick tests that start
no process, the command in this process, and a stand-in for the Hub."""

import gc
import subprocess
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from types import SimpleNamespace

import hubs
import pytest
from hypothesis import settings
from typer.testing import CliRunner

from darkvocab.cli import app

if not (find_spec("triton") and find_spec("torch")):  # where there is none, nobody reads what is of it
    names = ["batches", "compiling", "deviating", "fusing", "interpreted_distances", "interpreted_records", "kernels"]
    names += ["perturbing", "plain_deviates", "plain_distances", "plain_drawing", "plain_grouping"]
    collect_ignore = [f"importable/{name}.py" for name in names]

settings.register_profile("darkvocab", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("darkvocab")
STARTING = {"process", "start"}  # fixtures that run the command as a process


def pytest_collection_modifyitems(items):
    for item in items:
        if STARTING & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    gc.freeze()  # what is loaded by now stays: no collection need look through it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Fail a test that starts a process, a browser or a compiler, and is not marked slow."""
    if item.get_closest_marker("slow"):
        return (yield)

    def refuse(*_, **__):
        pytest.fail("this test starts a process: mark it with @pytest.mark.slow, which `make check` leaves out")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", refuse)
        patch.setattr(BaseProcess, "start", refuse)
        return (yield)


@pytest.fixture(scope="session")
def outcome():
    """Exit code, stdout, and stderr without the notice of compilation, which depends on what ran before."""

    def made(code, out, err):
        lines = [line for line in err.splitlines(keepends=True) if not line.startswith("compiling kernels")]
        return SimpleNamespace(code=code, out=out, err="".join(lines))

    return made


@pytest.fixture(scope="session")
def cli(outcome):
    """Run the command in this process. What it fails to catch reaches the test."""

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        return outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on loopback, without repositories, an empty cache, no token, and no pauses between retries."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    from darkvocab.sources.hub import requests

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with hubs.Hub().running() as served:
        home = tmp_path / "hf"
        places = {"HF_HUB_CACHE": str(home / "hub"), "HF_ASSETS_CACHE": str(home / "assets")}
        places |= {"ENDPOINT": served.endpoint, "HF_TOKEN_PATH": str(home / "token"), "HF_HUB_OFFLINE": False}
        places["HUGGINGFACE_CO_URL_TEMPLATE"] = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in places.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(requests, "PAUSES", (0.0,) * len(requests.PAUSES))
        served.home = home
        yield served
        close_session()
