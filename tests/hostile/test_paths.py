"""Paths that cannot be, and files that may not be read: an error of the tree from a library call, too."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkvocab.errors import AccessRefused, DarkvocabError, DiskFull, Unreachable
from darkvocab.landing import landing, landing_folder, write_whole
from darkvocab.runs.engine import open_engine
from darkvocab.runs.folder import Folder, check_folder, read_manifest
from darkvocab.runs.records import Records, read_records
from darkvocab.sources import open_source, revisions, sha256
from darkvocab.sources.tokenizer import open_tokenizer

LONG = "x" * 300
READS = {
    "a source": open_source,
    "a tokenizer": lambda path: open_tokenizer(Path(path)),
    "a manifest": lambda path: read_manifest(Path(path)),
    "records": read_records,
    "records in pieces": Records,
    "a scheduler file": lambda path: open_engine(f"dask:{path}"),
}
WRITES = {
    "a file": lambda path: write_whole(Path(path), b""),
    "a folder": lambda path: landing_folder(Path(path)).__enter__(),
    "a run folder": lambda path: Folder(path, {}),
}


PATHS = {"long": LONG, "in long": f"{LONG}/file", "null": "null\0byte"}


@pytest.mark.parametrize("path", [*PATHS.values(), "\udcff"], ids=[*PATHS, "bytes"])
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_path_that_cannot_be_read_is_refused(read, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DarkvocabError) as raised:
        read(path)
    assert raised.value.exit_code in (2, 3)
    assert str(raised.value)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_path_that_cannot_be_written_to_is_refused(write, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DarkvocabError) as raised:
        write(path)
    assert raised.value.exit_code in (2, 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        write_whole(pipe, b"rows")
        assert read.result(10) == b"rows"
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
def test_a_full_device_is_no_space_left_and_stays_a_device(monkeypatch):
    monkeypatch.setattr(Path, "replace", refuse)  # root could put a file there
    with pytest.raises(DiskFull, match="no space left to write /dev/full"):
        write_whole(Path("/dev/full"), b"rows")
    assert Path("/dev/full").is_char_device()


def refuse(*_, **__):
    raise PermissionError(13, "Permission denied", "/secret")


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_file({"wte.weight": np.zeros((3, 2), np.float32)}, path)
    tensor = open_source(path).tensors["wte.weight"]
    monkeypatch.setattr(np, "memmap", refuse)
    with pytest.raises(AccessRefused, match="/secret: Permission denied"):
        tensor.words()
    monkeypatch.setattr(Path, "open", refuse)
    for read in (open_source, sha256):
        with pytest.raises(AccessRefused, match="/secret: Permission denied"):
            read(path)


def test_a_folder_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr("os.listdir", refuse)
    for read in (open_source, lambda path: check_folder(path, []), lambda path: Folder(path, {})):
        with pytest.raises(AccessRefused, match="/secret: Permission denied"):
            read(tmp_path)


def test_a_text_that_is_too_long_for_a_path_names_no_model_on_the_hub():
    with pytest.raises(DarkvocabError):
        revisions(f"org/{LONG}")


@pytest.mark.parametrize("land", [landing, landing_folder])
def test_an_error_of_what_is_written_is_not_taken_for_one_of_the_place(land, tmp_path):
    """A network that goes is an OSError, as is a place that cannot be written to."""

    def write():
        with land(tmp_path / "place"):
            raise Unreachable("the server went away")

    with pytest.raises(Unreachable, match=r"^the server went away$"):
        write()
    assert not list(tmp_path.iterdir())
