"""Files good and bad, and the command: run in this process or, where that matters, in one of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from safetensors.numpy import save_file

COMMAND = Path(sys.executable).parent / "darkvocab"
# Becomes the command, with Ctrl-C on even where the tests run in the background.
LAUNCH = """\
import os, resource, signal, sys
largest, closed, *command = sys.argv[1:]
signal.signal(signal.SIGINT, signal.SIG_DFL)
if largest:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), int(largest)))
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # Python keeps what was cut off, and fails to read it ever after
if closed:
    os.close(int(closed))
os.execv(command[0], command)
"""


@pytest.fixture(scope="session")
def start():
    """Start the command as a process. `largest`: of the files it may write, in bytes; `closed`: a stream by number."""

    def run(*arguments, largest="", closed="", **options):
        line = [sys.executable, "-c", LAUNCH, str(largest), str(closed), COMMAND, *map(str, arguments)]
        return subprocess.Popen(line, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options})

    return run


@pytest.fixture(scope="session")
def process(start, outcome):
    """Run the command as a process to its end."""

    def run(*arguments, **options):
        with start(*arguments, **options) as child:
            out, err = child.communicate(timeout=120)
        return outcome(child.returncode, out or "", err)

    return run


@pytest.fixture(scope="session")
def refuses(cli):
    """Run the command in this process, and see it refuse: with this exit code, in a sentence with these words."""

    def run(*arguments, code, says=()):
        result = cli(*arguments)
        assert result.code == code, result.err or result.out
        assert result.out == ""
        assert result.err.startswith("darkvocab: ")
        for words in says:
            assert words in result.err
        return result

    return run


@pytest.fixture(scope="session")
def scratch(tmp_path_factory):
    """A folder for tests that write many files in turn."""
    return tmp_path_factory.mktemp("scratch")


def _header(header):
    return header if isinstance(header, bytes) else json.dumps(header).encode()


@pytest.fixture
def safetensors_file(tmp_path):
    """Write a safetensors file as told, right or wrong: `header` as JSON or bytes, `length` as it is declared."""

    def write(header, data=b"", *, length=None, name="model.safetensors"):
        text = _header(header)
        path = tmp_path / name
        path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
        return path

    return write


@pytest.fixture
def npy_file(tmp_path):
    """Write a `.npy` file with this header, right or wrong."""

    def write(header, data=b"", *, name="rows.npy"):
        text = header.encode() + b"\n"
        path = tmp_path / name
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)
        return path

    return write


@pytest.fixture
def checkpoint(tmp_path):
    """Write a `.safetensors` file: `rows` as the embedding, and other tensors by name."""

    def write(rows, *, name="model.safetensors", tensor="embed_tokens.weight", **others):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        named = {tensor: rows} if rows is not None else {}
        save_file({key: np.asarray(value, np.float32) for key, value in {**named, **others}.items()}, path)
        return path

    return write


def tokenizer(texts):
    """A `tokenizer.json` with these texts, by id."""
    vocabulary = {text: token for token, text in enumerate(texts)}
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": texts[0]}
    return {"version": "1.0", "added_tokens": [], **empty, "model": model}


@pytest.fixture
def model(checkpoint):
    """Write a model folder: rows, a text for each, other tensors by name."""

    def write(rows, texts, **others):
        folder = checkpoint(rows, name="model/model.safetensors", **others).parent
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer(texts)), "utf-8")
        return folder

    return write


@pytest.fixture(scope="session")
def contents():
    """Everything in a folder, by name."""

    def read(folder):
        files = sorted(folder.rglob("*"))
        return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in files}

    return read


@pytest.fixture(scope="session")
def mutated():
    """One to three pieces of some bytes cut, changed or inserted, or the end cut off."""
    telling = st.sampled_from(
        [b"[", b"{", b"(", b"'", b'"', b"9", b"-", b",", b"e9", b"\x00", b"\xff", b"'''", b"True"]
    )

    def draw(data, good):
        content = bytearray(good)
        for _ in range(data.draw(st.integers(1, 3))):
            at, cut = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 6))
            content[at : at + cut] = data.draw(telling | st.binary(max_size=6))
        return bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)

    return draw
