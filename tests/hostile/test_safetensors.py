"""Safetensors files that are wrong in every way a header can be, and files that the library writes."""

import json
import os
import time

import ml_dtypes
import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from darkvocab.errors import CorruptFile
from darkvocab.sources import open_source
from darkvocab.sources.safetensors import BITS

GOOD = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.float16)})


def entry(begin=0, end=4, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


CONTRADICTIONS = {
    "overlapping": ({"x": entry(0, 8, shape=(2,)), "y": entry(4, 12, shape=(2,))}, "'y' overlaps"),
    "the same bytes twice": ({"x": entry(0, 4), "y": entry(0, 4)}, "overlaps"),
    "out of range": ({"x": entry(0, 400, shape=(100,))}, "of a file of"),
    "far out of range": ({"x": entry(0, 2**63, shape=(2**61,))}, "of a file of"),
    "hole before": ({"x": entry(4, 12, shape=(2,))}, "4 bytes before tensor 'x' belong to no tensor"),
    "hole between": ({"x": entry(0, 4), "y": entry(8, 12)}, "4 bytes before tensor 'y' belong to no tensor"),
    "bytes after": ({"x": entry(0, 4)}, "8 bytes at the end belong to no tensor"),
    "no tensors": ({}, "12 bytes at the end belong to no tensor"),
    "reversed": ({"x": entry(12, 0, shape=(3,))}, "'x' lies at bytes"),
    "shape too large": ({"x": entry(0, 12, shape=(4,))}, "needs 16 bytes, has 12"),
    "shape too small": ({"x": entry(0, 12, shape=(2,))}, "needs 8 bytes, has 12"),
    "half bytes": ({"x": entry(0, 12, "F4", (23,))}, "bytes, has 12"),
    "unknown dtype": ({"x": entry(0, 12, "F33", (3,))}, "unknown dtype 'F33'"),
    "dtype in lower case": ({"x": entry(0, 12, "f32", (3,))}, "unknown dtype 'f32'"),
    "three offsets": ({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 4, 12]}}, "two data_offsets"),
    "negative offset": ({"x": entry(-4, 8, shape=(3,))}, "two data_offsets"),
    "negative shape": ({"x": entry(0, 12, shape=(-1, -3))}, "needs dtype, shape"),
    "fractional shape": ({"x": entry(0, 12, shape=(1.5, 2))}, "needs dtype, shape"),
    "true as a number": ({"x": entry(0, 12, shape=(True, 3))}, "needs dtype, shape"),
    "shape as text": ({"x": {"dtype": "F32", "shape": "3", "data_offsets": [0, 12]}}, "needs dtype, shape"),
    "dtype as number": ({"x": {"dtype": 32, "shape": [3], "data_offsets": [0, 12]}}, "needs dtype, shape"),
    "no offsets": ({"x": {"dtype": "F32", "shape": [3]}}, "needs dtype, shape"),
    "entry is a list": ({"x": ["F32", [3], [0, 12]]}, "needs dtype, shape"),
}


@pytest.mark.parametrize(("header", "says"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_header_that_contradicts_its_file_is_refused(safetensors_file, header, says):
    path = safetensors_file(header, bytes(12))
    with pytest.raises(CorruptFile) as error:
        open_source(path)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"", "not JSON"),
        (b"not JSON", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b'{"x":', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"x": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b'{"x": 1, "x": 1}', "names 'x' twice"),
        (b'{"x": {"dtype": "F32", "dtype": "F32"}}', "names 'dtype' twice"),
    ],
)
def test_header_that_is_not_such_json_is_refused(safetensors_file, header, says):
    with pytest.raises(CorruptFile, match=says):
        open_source(safetensors_file(header))


def test_truncated_file_is_refused_at_every_length(tmp_path):
    path = tmp_path / "model.safetensors"
    for length in range(len(GOOD)):
        path.write_bytes(GOOD[:length])
        with pytest.raises(CorruptFile):
            open_source(path)


@pytest.mark.parametrize("length", [3, 2**31, 2**63, 2**64 - 1])
def test_header_longer_than_the_file_is_refused(safetensors_file, length):
    with pytest.raises(CorruptFile, match="the header should be"):
        open_source(safetensors_file(b"{}", length=length))


def test_header_over_100_mb_is_refused_unread(safetensors_file):
    length = 100_000_001
    path = safetensors_file(b"", length=length)
    os.truncate(path, 8 + length)  # sparse: takes no room
    with pytest.raises(CorruptFile, match="the format allows 100,000,000"):
        open_source(path)


@pytest.mark.parametrize("shape", [(2**600, 2**600), (10**4000,) * 3])
def test_shape_beyond_all_numbers_is_refused(safetensors_file, shape):
    with pytest.raises(CorruptFile, match="has 4"):
        open_source(safetensors_file({"x": entry(0, 4, shape=shape)}, bytes(4)))


def test_name_that_comes_twice_is_found_at_once(safetensors_file):
    names = ",".join(f'"{n}":0' for n in [*range(12_000), 11_999])
    started = time.process_time()
    with pytest.raises(CorruptFile, match="names '11999' twice"):
        open_source(safetensors_file(b"{" + names.encode() + b"}"))
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "command", [["scan"], ["centroid", "-o", "out.safetensors"], ["sweep", "--sigma", "0", "--base"]]
)
def test_corrupt_file_ends_every_command_with_4(tmp_path, monkeypatch, refuses, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cut.safetensors").write_bytes(GOOD[:-1])
    result = refuses(*command, "cut.safetensors", code=4, says=["cut.safetensors", "truncated"])
    assert result.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cut.safetensors"]


def library_reads(content):
    """Return the tensors that the safetensors library reads from these bytes; None when it refuses them."""
    try:
        return {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in safetensors.deserialize(content)}
    except safetensors.SafetensorError:
        return None


def we_read(path):
    """The same of our reader, which refuses with `CorruptFile` or not at all."""
    try:
        result = open_source(path).tensors
    except CorruptFile:
        return None
    return {name: (t.dtype, t.shape, t.words().tobytes()) for name, t in result.items()}


@pytest.mark.slow
@settings(max_examples=600)
@given(data=st.data())
def test_changed_files_are_read_or_refused_as_by_the_library(scratch, mutated, data):
    content = mutated(data, GOOD)
    path = scratch / "mutated.safetensors"
    path.write_bytes(content)
    assert we_read(path) == library_reads(content)


NUMBERS = st.integers(0, 20) | st.sampled_from([-1, 1.5, 2**31, 2**63, 2**64, None, True, "1"])
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*BITS, "F33", "", None]),
        "shape": st.lists(NUMBERS, max_size=4),
        "data_offsets": st.lists(NUMBERS, min_size=1, max_size=3),
    }
)


@pytest.mark.slow
@settings(max_examples=400)
@given(header=st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), ENTRY | NUMBERS, max_size=3))
def test_any_header_is_read_or_refused(scratch, header):
    text = json.dumps(header).encode()
    path = scratch / "any.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    we_read(path)


@settings(max_examples=200)
@given(content=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_as_by_the_library(scratch, content):
    path = scratch / "bytes.safetensors"
    path.write_bytes(content)
    assert we_read(path) == library_reads(content)


DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}


@pytest.mark.slow
@settings(max_examples=150)
@given(data=st.data())
def test_what_the_library_writes_reads_back_word_for_word(scratch, data):
    """Every word, NaN and infinity among them, of tensors of any number and shape."""
    written = {}
    for name in data.draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), max_size=4, unique=True)):
        dtype = np.dtype(DTYPES[data.draw(st.sampled_from(list(DTYPES)))])
        shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
        size = int(np.prod(shape)) * dtype.itemsize
        written[name] = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), dtype).reshape(shape)
    path = scratch / "library.safetensors"
    path.write_bytes(save(written, metadata=data.draw(st.none() | st.just({"made": "here"}))))
    result = open_source(path).tensors
    assert result.keys() == written.keys()
    for name, array in written.items():
        assert (DTYPES[result[name].dtype], result[name].shape) == (array.dtype.type, array.shape)
        assert result[name].words().tobytes() == array.tobytes()
