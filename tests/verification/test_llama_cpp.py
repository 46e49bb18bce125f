"""A real server: llama.cpp with SmolLM2 on loopback, beside the same file by transformers in this process."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import llama_cpp
import polars as pl
import pytest

from darkvocab import verify
from darkvocab.errors import AccessRefused
from darkvocab.runs.records import read_records

MODEL = Path(__file__).parents[2] / "demo/SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS = [8, 160, 253, 905, 6274, 36744, 39145, 43858, 48047]  # 160 and 253 are bytes that are no whole characters
FEW = {"tokens": TOKENS, "controls": 0, "missed": 0}
KEY = "secret-of-the-server"
ASKED = {**FEW, "api_key_env": "DARK_KEY"}
FAILED = [8, 36744, 39145, 43858, 48047]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("llama.cpp"),  # one server
    pytest.mark.skipif(not find_spec("xllamacpp"), reason="xllamacpp, which has a server, is not installed"),
    pytest.mark.skipif(not MODEL.is_file(), reason=f"make demo/{MODEL.name} fetches the model"),
]


@pytest.fixture(scope="module")
def address():
    """A server with a key, which is in the environment."""
    with pytest.MonkeyPatch.context() as patch, llama_cpp.serving(MODEL, key=KEY) as served:
        patch.setenv("DARK_KEY", KEY)
        yield served


@pytest.fixture
def read_once(monkeypatch):
    """transformers reads the header three times, and sets up the names of all tensors once a tensor: 12 s of 27."""
    gguf = pytest.importorskip("gguf")
    monkeypatch.setattr(gguf, "GGUFReader", cache(gguf.GGUFReader))
    monkeypatch.setattr(gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map))


@pytest.fixture(scope="module")
def run_folder(address, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run_folder"
    verify(MODEL, out, endpoint=address, **ASKED)
    return out


def test_the_server_fails_on_the_tokens_that_it_never_learned(run_folder, address):
    manifest = json.loads((run_folder / "manifest.json").read_text())
    facts = manifest["parameters"]["server"]
    assert (facts["kind"], facts["by_text"], facts["endpoint"]) == ("llama.cpp", False, address)
    records = read_records(run_folder)
    assert records["bound"].any()
    assert not records["p"].has_nulls()  # of bytes that are no whole characters, too
    assert records["p"].max() < 1


def test_the_openai_interface_of_the_same_server_says_the_same(run_folder, address):
    verdict = verify(MODEL, endpoint=f"{address}/v1", **ASKED)
    assert verdict.tokens.filter(pl.col("verified"))["token"].to_list() == FAILED
    records = read_records(run_folder)
    tokens = records.group_by("token", maintain_order=True).agg(pl.col("p").max())
    for ours, theirs in zip(verdict.tokens["p_max"], tokens["p"], strict=True):
        assert ours == pytest.approx(theirs, rel=0.5)  # which requests go together changes the last digits


def test_the_same_file_by_transformers_says_the_same(run_folder, read_once):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    local = verify(MODEL, **FEW).tokens
    assert local.filter(pl.col("verified"))["token"].to_list() == FAILED
    served = (
        read_records(run_folder).group_by("token", maintain_order=True).agg(pl.col("p", "bound").sort_by("p").last())
    )
    for mine, theirs, bound in zip(local["p_max"], served["p"], served["bound"], strict=True):
        assert mine <= theirs * 2
        assert bound or mine >= theirs / 2


def test_chat_uses_the_template_of_the_server(address):
    verdict = verify(MODEL, endpoint=address, chat=True, **{**ASKED, "tokens": [905, 48047]})
    assert verdict.tokens["verified"].to_list() == [False, True]


def test_a_server_with_a_key_asks_for_it(address):
    with pytest.raises(AccessRefused, match="asks for a key"):
        verify(MODEL, endpoint=address, **FEW)
