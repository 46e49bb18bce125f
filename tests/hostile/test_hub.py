"""A Hub that fails, lies, changes or refuses: a sentence and an exit code, and never more bytes than were asked for."""

import json
import os
import shutil
import signal
import threading
import time
from email.utils import formatdate

import httpx2
import hubs
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from darkvocab import scan
from darkvocab.errors import CorruptFile
from darkvocab.sources import open_source
from darkvocab.sources.hub import repo, requests

ROWS = np.random.default_rng(0).standard_normal((4000, 64)).astype(np.float32)
LAYER = np.zeros((300_000,), np.float32)
WEIGHTS = save({"embed_tokens.weight": ROWS, "layers.0.weight": LAYER})
FILES = {"model.safetensors": WEIGHTS, "config.json": b"{}"}
SMALL = {"model.safetensors": save({"embed_tokens.weight": ROWS})}


@pytest.fixture
def model(hub):
    hub.commit = hub.add("org/model", FILES)
    return hub


def starts(hub):
    """First bytes of the ranges of the weights, in the order in which they were asked for."""
    return [int(headers["range"][6:].split("-")[0]) for _, path, headers in hub.asked_for("model.safetensors$")]


# Failures that pass --------------------------------------------------------------------------------------------------


def test_transfer_that_is_cut_goes_on_where_it_was_cut(model):
    model.fail("cut", "/blobs/", after=1, times=4, value=200_000)
    assert scan("org/model").to_json()["n_tokens"] == 4000
    begun = starts(model)
    assert begun[2] - begun[1] == 200_000
    assert model.served <= len(WEIGHTS) - LAYER.nbytes + repo.HEADER_BLOCK + 5000


@pytest.mark.parametrize("path", ["api/models", "resolve", "/blobs/"])
@pytest.mark.parametrize("status", [408, 429])
def test_refusals_that_pass_are_waited_for(model, path, status):
    model.fail("status", path, times=3, value=status, headers={"Retry-After": "0"})
    assert scan("org/model").to_json()["n_tokens"] == 4000


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({"Retry-After": "9" * 400}, 999_999_999),
        ({"RateLimit": '"api";r=0;t=12'}, 12),
        ({"RateLimit": '"api";r=3;t=12'}, 0),
    ],
)
def test_a_pause_is_as_long_as_the_server_asks(headers, seconds):
    assert requests.pause_asked_for(httpx2.Headers(headers)) == seconds


def test_a_pause_that_is_no_number_in_ascii_is_none():
    assert requests.pause_asked_for(httpx2.Headers([(b"Retry-After", "\u00b2".encode("latin-1"))])) == 0


def test_a_pause_until_a_date_is_as_long_as_it_takes():
    headers = httpx2.Headers({"Retry-After": formatdate(time.time() + 100, usegmt=True)})
    assert 90 < requests.pause_asked_for(headers) <= 100


# Failures that stay --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["api/models", "resolve", "/blobs/"])
@pytest.mark.parametrize("status", [429, 502])
def test_server_that_goes_on_to_fail_ends_the_command(model, refuses, path, status):
    model.fail("status", path, times=100, value=status)
    refuses("scan", "org/model", code=3, says=["failed 6 times in a row", f"answers {status}", "run it again"])


def test_server_that_asks_for_a_long_wait_ends_the_command(model, refuses):
    model.fail("status", "resolve", value=429, headers={"Retry-After": "3600"})
    refuses("scan", "org/model", code=3, says=["answers 429", "asks to wait for 3,600 s"])


def test_connection_that_is_cut_again_and_again_ends_the_command(model, refuses):
    model.fail("cut", "/blobs/", times=100, value=10)
    refuses("scan", "org/model", code=3, says=["failed 6 times in a row", "what has arrived is kept"])


def test_no_network_is_said_soon(hub, refuses, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    says = ["no file or folder 'org/model' here, and http://127.0.0.1:9/", "failed 3 times", "no connection"]
    refuses("scan", "org/model", code=3, says=says)


@pytest.mark.parametrize("endpoint", ["gopher://x", "nonsense"])
def test_endpoint_that_is_none_is_refused(hub, refuses, monkeypatch, endpoint):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    refuses("scan", "org/model", code=3, says=["check HF_ENDPOINT"])


# What may not be read ------------------------------------------------------------------------------------------------


def test_gated_repository_says_what_to_do(model, refuses, monkeypatch):
    model.gated.add("org/model")
    says = ["org/model is gated", f"accept its licence at {model.endpoint}/org/model", "hf auth login", "HF_TOKEN"]
    refuses("scan", "org/model", code=3, says=says)
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    refuses("scan", "org/model", code=3, says=says)
    monkeypatch.setenv("HF_TOKEN", hubs.TOKEN)
    assert scan("org/model").to_json()["n_tokens"] == 4000


def test_missing_repository_revision_and_file_are_told_apart(model, refuses, monkeypatch):
    model.private.add("org/secret")
    for token in ("", "hf_of_somebody_else"):
        monkeypatch.setenv("HF_TOKEN", token)
        for name in ("org/nothing", "org/secret"):
            says = [f"no file or folder '{name}' here, and", f"has no model '{name}', or it is private", "log in"]
            refuses("scan", name, code=3, says=says)
    refuses("scan", "org/model@v9", code=3, says=["org/model has no revision 'v9'", "tree/main"])
    refuses("scan", "org/model/other.safetensors", code=3, says=["has no file or folder 'other.safetensors'"])


@pytest.mark.parametrize(
    ("status", "says"), [(401, "check your token"), (403, "check your token"), (418, "answers 418")]
)
def test_other_refusals_are_said(model, refuses, status, says):
    model.fail("status", "resolve", value=status)
    refuses("scan", "org/model", code=3, says=[says])


# Servers that answer otherwise than asked ----------------------------------------------------------------------------


def test_server_without_ranges_is_refused_and_not_read(hub, refuses):
    large = save({"embed_tokens.weight": ROWS, "layers.0.weight": np.zeros(8_000_000, np.float32)})
    hub.add("org/model", {"model.safetensors": large})
    hub.fail("no ranges", "/blobs/", times=100)
    says = ["gives no ranges (status 200)", f"all {len(large):,} bytes", "hf download org/model model.safetensors"]
    refuses("scan", "org/model", code=3, says=says)
    assert len(hub.asked_for("/blobs/")) == 1
    time.sleep(0.2)
    assert hub.served < len(large) // 2  # what the sockets hold; then the line was dead


@pytest.mark.parametrize(
    ("kind", "path", "code", "says"),
    [
        ("range", "/blobs/", 3, "was asked for"),
        ("short", "/blobs/", 3, "bytes are missing"),
        ("long", "/blobs/", 3, "sends more than"),
        ("gzip", "/blobs/", 3, "compressed bytes"),
        ("no etag", "resolve", 3, "(no ETag)"),
        ("etag", "resolve", 4, "another file"),
        ("commit", "resolve", 4, "another file"),
        ("body", "config.json", 4, "its hash differs"),
        ("etag", "config.json", 4, "another file"),
        ("no etag", "config.json", 3, "(no ETag)"),
    ],
)
def test_answer_that_is_not_what_was_asked_for_is_refused(model, refuses, kind, path, code, says):
    model.fail(kind, path, times=100)
    refuses("scan", "org/model", code=code, says=["org/model@", says])
    model.faults.clear()
    assert scan("org/model").to_json()["n_tokens"] == 4000  # and nothing of it was kept


@pytest.mark.parametrize("value", ["bytes 0-9", "bytes */100", "nothing", "bytes 0-65535/99", "items 0-65535/12000000"])
def test_ranges_that_contradict_the_listing_are_refused(model, refuses, value):
    model.fail("range", "/blobs/", times=100, value=value)
    refuses("scan", "org/model", code=3, says=["sends", repr(value), "was asked for"])


def test_file_that_changes_during_the_read_is_refused_and_never_mixed(model):
    model.fail("etag", "resolve.*safetensors", after=1, times=100)
    with pytest.raises(CorruptFile, match="a file must not change while it is read"):
        scan("org/model")
    model.faults.clear()
    moved = model.add("org/model", {"model.safetensors": save({"embed_tokens.weight": ROWS + 1, "b": LAYER})})
    words = open_source("org/model").tensors["embed_tokens.weight"].words()
    assert np.array_equal(words.view(np.float32), ROWS + 1)
    assert scan("org/model").to_json()["source"]["commit"] == moved


def test_redirects_without_an_end_are_refused(model, refuses):
    model.storage = f"{model.endpoint}/org/model/resolve/main/model.safetensors?"
    refuses("scan", "org/model", code=3, says=["redirects"])


# Listings and files that lie -----------------------------------------------------------------------------------------


def changed(**values):
    return lambda listing: {**listing, **values}


def sibling(**values):
    return lambda listing: {**listing, "siblings": [{**listing["siblings"][0], **values}]}


LFS = {"size": len(WEIGHTS), "sha256": "0" * 64, "pointerSize": 130}
LISTINGS = {
    "no JSON": lambda listing: b"{",
    "a list": lambda listing: [],
    "nothing": lambda listing: {},
    "no commit": changed(sha=None),
    "a commit that is a path": changed(sha="../../../../etc"),
    "siblings of no kind": changed(siblings=[1]),
    "siblings that are none": changed(siblings=5),
    "a name that is none": sibling(rfilename=5),
    "no size": sibling(lfs=None, size=None),
    "a size below zero": sibling(lfs={**LFS, "size": -1}),
    "a size that is a text": sibling(lfs={**LFS, "size": "1"}),
    "a hash that is a path": sibling(lfs={**LFS, "sha256": "../../x"}),
    "a hash that is a number": sibling(lfs={**LFS, "sha256": 5}),
    "a blob that is a path": sibling(lfs=None, blobId="../../x"),
    "LFS that is none": sibling(lfs=[1]),
}


@pytest.mark.parametrize("lie", LISTINGS.values(), ids=LISTINGS)
def test_listing_that_is_none_is_refused(model, refuses, lie):
    model.fail("listing", "api/models", times=100, value=lie)
    refuses("scan", "org/model", code=4, says=["listing of org/model", "is it a Hub?"])


@pytest.mark.slow
@pytest.mark.parametrize("answer", [b"[", [], {}, {"tags": 5, "branches": []}, {"tags": [], "branches": [{"name": 1}]}])
def test_list_of_branches_that_is_none_is_refused(model, refuses, answer):
    model.fail("listing", "/refs", times=100, value=lambda listing: answer)
    refuses("history", "org/model", code=4, says=["listing of org/model", "is it a Hub?"])


def test_listing_of_another_commit_and_one_without_an_end_are_refused(model, refuses, monkeypatch):
    model.fail("listing", "api/models", value=changed(sha="a" * 40))
    refuses("scan", f"org/model@{model.commit}", code=4, says=["listing of org/model", "commit"])
    monkeypatch.setattr(requests, "MAX_ANSWER", 10)
    refuses("scan", "org/model", code=3, says=["answers with more than 10 bytes"])


def test_ref_in_the_library_s_cache_that_is_no_text_is_no_commit(hub, refuses, monkeypatch):
    refs = hub.home / "hub/models--org--model/refs"
    refs.mkdir(parents=True)
    (refs / "main").write_bytes(b"\xff")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refuses("scan", "org/model", code=3, says=["no revision 'main' of org/model is in the cache"])


def test_names_that_reach_outside_are_no_files(model, refuses):
    model.fail("listing", "api/models", times=100, value=sibling(rfilename="../../model.safetensors"))
    refuses("scan", "org/model/../../model.safetensors", code=3, says=["no file or folder"])
    refuses("scan", "org/model", code=3, says=["has no file or folder"])


@pytest.mark.parametrize("size", [len(WEIGHTS) + 1, 1 << 42])
def test_listed_size_that_is_not_the_file_s_is_refused(model, refuses, size):
    oid = model.commits["org/model", model.commit]["model.safetensors"].oid
    lie = sibling(lfs={**LFS, "size": size, "sha256": oid})
    model.fail("listing", "api/models", times=100, value=lie)
    refuses("scan", "org/model", code=3, says=[f"/{size}' was asked for"])


def test_header_that_lies_takes_neither_memory_nor_disk(hub, refuses):
    entry = {"dtype": "F32", "shape": [1 << 30, 1 << 10], "data_offsets": [0, 1 << 42]}
    header = json.dumps({"embed_tokens.weight": entry}).encode()
    hub.add("org/model", {"model.safetensors": len(header).to_bytes(8, "little") + header + bytes(100)})
    refuses("scan", "org/model", code=4, says=["org/model@", "lies at bytes", "made to mislead"])
    hub.add("org/model", {"model.safetensors": (1 << 40).to_bytes(8, "little") + bytes(100)})
    refuses("scan", "org/model", code=4, says=["the header should be 1,099,511,627,776 bytes"])
    assert sum(path.stat().st_blocks for path in hub.home.rglob("*")) * 512 < 1_000_000


def test_large_file_is_not_taken_for_a_config(model, refuses, monkeypatch):
    monkeypatch.setattr(repo, "MAX_WHOLE", 1)
    refuses("scan", "org/model", code=4, says=["config.json: 2 bytes; of such a file at most 1 are read"])


@pytest.mark.parametrize("shard", ["../model.safetensors", "x/model.safetensors", "https://x/a.safetensors", "..", ""])
def test_index_cannot_point_elsewhere(hub, refuses, shard):
    index = json.dumps({"weight_map": {"embed_tokens.weight": shard}}).encode()
    hub.add("org/model", {"model.safetensors.index.json": index, "a.safetensors": WEIGHTS})
    refuses("scan", "org/model", code=4, says=["org/model@", "in the same folder"])
    assert len(hub.asked_for("resolve")) == 1


def test_index_that_names_what_is_not_there_is_refused(hub, refuses):
    index = {"embed_tokens.weight": "b.safetensors", "lm_head.weight": "a.safetensors"}
    files = {"model.safetensors.index.json": json.dumps({"weight_map": index}).encode()}
    hub.add("org/model", files | {"a.safetensors": WEIGHTS})
    refuses("scan", "org/model", code=3, says=["names 2 shards", "b.safetensors not there"])
    hub.add("org/model", files | {"b.safetensors": WEIGHTS, "a.safetensors": WEIGHTS})
    refuses("scan", "org/model", code=4, says=["'lm_head.weight' in a.safetensors, which does not hold it"])


def test_errors_on_the_way_through_an_archive_are_errors_of_the_network(hub, refuses):
    hub.add("org/model", {"pytorch_model.bin": b"PK\x05\x06" + bytes(200_000)})
    refuses("scan", "org/model", code=4, says=["whose directory cannot be read"])
    hub.fail("status", "/blobs/", after=1, times=100, value=500)
    hub.add("org/model", {"pytorch_model.bin": b"PK\x05\x06" + bytes(200_001)})
    refuses("scan", "org/model", code=3, says=["answers 500"])


# Disk and interruption -----------------------------------------------------------------------------------------------


def test_disk_without_room_is_said_before_it_is_written_to(model, refuses, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10))
    refuses("scan", "org/model", code=130, says=["no room for 65,536 bytes of org/model@", "HF_HOME"])
    assert not model.asked_for("resolve")


def environment(hub, tmp_path):
    return {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}


def test_disk_that_fills_up_ends_the_command(model, process, tmp_path):
    result = process("scan", "org/model", largest=1_000_000, env=environment(model, tmp_path))
    assert (result.code, result.out) == (130, "")
    assert "no space left to write" in result.err


@pytest.mark.parametrize("command", ["scan", "check"])  # check has imported polars by then, which handles signals
def test_interrupted_transfer_goes_on_with_what_is_missing(command, model, start, process, tmp_path):
    stalled = threading.Event()
    model.fail("stall", "/blobs/", after=1, value=(700_000, stalled))
    model.fail("stall", "/blobs/", after=1, times=99, value=(0, threading.Event()))  # where a busy machine tries again
    short = {**environment(model, tmp_path), "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    with start(command, "org/model", env=short) as child:
        assert stalled.wait(60)
        time.sleep(0.2)  # so that what was sent has arrived
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (130, "")
    assert "interrupted" in err
    model.faults.clear()
    model.asked.clear()
    result = process("scan", "org/model", "--json", env=environment(model, tmp_path))
    assert json.loads(result.out)["n_tokens"] == 4000
    assert len(starts(model)) == 1
    assert json.loads(result.out)["source"]["bytes_read"] <= ROWS.nbytes - 300_000
