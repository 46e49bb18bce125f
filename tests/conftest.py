"""Hypothesis without deadlines: the first call of a kernel compiles it. A stand-in for the Hub."""

from importlib.util import find_spec

import hubs
import pytest
from hypothesis import settings

if not (find_spec("triton") and find_spec("torch")):  # where there is none, nobody reads what is of it
    names = ("batches", "compiling", "deviating", "interpreted_distances", "interpreted_records", "kernels")
    collect_ignore = [f"importable/{name}.py" for name in names]

settings.register_profile("darkvocab", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("darkvocab")


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
        there = {"HF_HUB_CACHE": str(home / "hub"), "HF_ASSETS_CACHE": str(home / "assets")}
        there |= {"ENDPOINT": served.endpoint, "HF_TOKEN_PATH": str(home / "token"), "HF_HUB_OFFLINE": False}
        there["HUGGINGFACE_CO_URL_TEMPLATE"] = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in there.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(requests, "PAUSES", (0.0,) * len(requests.PAUSES))
        served.home = home
        yield served
        close_session()
