"""GGUF files that are wrong in every way a header can be, and good ones, changed."""

import struct
import time
from contextlib import suppress

import ggufs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkvocab.errors import CorruptFile
from darkvocab.sources import open_source

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)
GOOD = ggufs.gguf(
    [
        ("general.architecture", ggufs.value("text", "llama")),
        ("general.alignment", ggufs.value("u32", 32)),
        ("llama.n", ggufs.value("u64", [1, 2])),
        ("tokenizer.ggml.tokens", ggufs.value("text", ["a", "b", "c", "d"])),
    ],
    [ggufs.entry("token_embd.weight", (4, 3), "F32", 0), ggufs.entry("b", (1, 32), "Q8_0", 64)],
    ROWS.tobytes() + bytes(16) + bytes(34),
)


@pytest.fixture
def gguf_file(tmp_path):
    """Write a GGUF file, right or wrong, as `ggufs.gguf` makes it."""

    def write(*arguments, name="m.gguf", **options):
        (tmp_path / name).write_bytes(ggufs.gguf(*arguments, **options))
        return tmp_path / name

    return write


def one(name="token_embd.weight", shape=(4, 3), kind="F32", offset=0):
    return [ggufs.entry(name, shape, kind, offset)]


def key(kind, content, name="a"):
    return [(name, ggufs.value(kind, content))]


def raw(kind, *content, name="a"):
    return [(name, struct.pack("<I", kind) + b"".join(content))]


def lies(n, inner=None):
    """An array that says it has so many items, of a type by number."""
    return struct.pack("<I", 4 if inner is None else inner) + struct.pack("<Q", n)


DATA = ROWS.tobytes()
CONTRADICTIONS = {
    "no magic": (([], one(), DATA), {"magic": b"GGML"}, "not a GGUF file"),
    "types of tokens": (
        (raw(9, lies(1 << 60), name="tokenizer.ggml.token_type"), one(), DATA),
        {},
        "a header of 1,152,921,504,606,846,97",
    ),
    "version 1": (([], one(), DATA), {"version": 1}, "version 1 of the format, known are 2 and 3"),
    "version 4": (([], one(), DATA), {"version": 4}, "version 4 of the format"),
    "big-endian": (([], one(), DATA), {"version": 3 << 24}, "big-endian"),
    "more values than there are": (([], one(), DATA), {"n_values": 9}, "m.gguf"),
    "2^60 values": (([], one(), DATA), {"n_values": 1 << 60}, "items; at most 4,000,000"),
    "2^60 tensors": (([], one(), DATA), {"n_tensors": 1 << 60}, "items; at most 4,000,000"),
    "more tensors than there are": (([], one(), DATA), {"n_tensors": 3}, "m.gguf"),
    "2^60 texts": ((raw(9, lies(1 << 60, 8)), one(), DATA), {}, "items; at most 4,000,000"),
    "3 million texts": ((raw(9, lies(3_000_000, 8)), one(), DATA), {}, "m.gguf"),
    "2^60 numbers": ((raw(9, lies(1 << 60)), one(), DATA), {}, "truncated"),
    "array of arrays": ((raw(9, lies(3, 9)), one(), DATA), {}, "array of values of unknown type 9"),
    "array of nothing known": ((raw(9, lies(3, 77)), one(), DATA), {}, "array of values of unknown type 77"),
    "value of nothing known": ((raw(13, bytes(8)), one(), DATA), {}, "value of unknown type 13"),
    "long text": ((raw(8, struct.pack("<Q", 1 << 40)), one(), DATA), {}, "truncated"),
    "long key": ((key("u8", 1, name="k" * 1001), one(), DATA), {}, "a name of 1,001 bytes"),
    "key that is no text": ((key("u8", 1, name=b"\xff\xfe"), one(), DATA), {}, "not UTF-8"),
    "key twice": ((key("u8", 1) * 2, one(), DATA), {}, "names 'a' twice"),
    "alignment 0": ((key("u32", 0, name="general.alignment"), one(), DATA), {}, "an alignment of 0"),
    "alignment 24": ((key("u32", 24, name="general.alignment"), one(), DATA), {}, "an alignment of 24"),
    "alignment as text": ((key("text", "32", name="general.alignment"), one(), DATA), {}, "an alignment of '32'"),
    "alignment beyond": ((key("u64", 1 << 62, name="general.alignment"), one(), DATA), {}, "truncated"),
    "tensor twice": (([], one() * 2, DATA), {}, "names tensor 'token_embd.weight' twice"),
    "name that is no text": (([], one(name=b"\xff"), DATA), {}, "not UTF-8"),
    "unknown type": (([], one(kind=4), DATA), {}, "unknown type 4; known: F32"),
    "five dimensions": (([], one(shape=(1, 1, 1, 4, 3)), DATA), {}, "has 5 dimensions"),
    "4 billion dimensions": (([], [ggufs.text("a") + b"\xff" * 4], DATA), {}, "dimensions"),
    "too tall": (([], one(shape=(5, 3)), DATA), {}, "lies at bytes"),
    "absurd shape": (([], one(shape=(1 << 63, 1 << 63, 1 << 63)), DATA), {}, "lies at bytes"),
    "far away": (([], one(offset=1 << 63), DATA), {}, "lies at bytes"),
    "overlapping": (([], one() + one(name="b", offset=32), DATA + bytes(99)), {}, "tensor 'b' overlaps"),
    "the same bytes": (([], one() + one(name="b"), DATA), {}, "overlaps"),
    "no whole blocks": (([], one(kind="Q8_0"), DATA + bytes(99)), {}, "is no multiple of 32"),
    "a number quantised": (([], one(kind="Q8_0", shape=()), DATA + bytes(99)), {}, "is no multiple of 32"),
}


@pytest.mark.parametrize(("parts", "options", "says"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_header_that_contradicts_its_file_is_refused_at_once(gguf_file, refuses, parts, options, says):
    path = gguf_file(*parts, **options)
    refuses("scan", path, code=4, says=["m.gguf", says])
    began = time.process_time()
    with pytest.raises(CorruptFile):
        open_source(path)
    assert time.process_time() - began < 5


def test_truncated_file_is_refused(tmp_path):
    assert list(open_source(written(tmp_path / "m.gguf", GOOD)).tensors) == ["token_embd.weight", "b"]
    for length in range(0, len(GOOD), 2):
        with pytest.raises(CorruptFile):
            open_source(written(tmp_path / "m.gguf", GOOD[:length]))


def written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (3, 0), (2, 2, 3)])
def test_tensor_that_is_no_matrix_is_refused(gguf_file, refuses, shape):
    refuses("scan", gguf_file([], one(shape=shape), DATA), code=3, says=["has no matrix"])


def test_integers_are_no_rows(gguf_file, refuses):
    path = gguf_file([], one(kind="I32"), DATA)
    refuses("scan", path, code=3, says=["has no matrix"])
    refuses("scan", path, "--tensor", "token_embd.weight", code=2, says=["is I32 [4, 3], not a matrix"])


def split(count, n=0):
    return [("split.no", ggufs.value("u16", n)), ("split.count", ggufs.value("u16", count))]


@pytest.mark.parametrize("name", ["m.gguf", "m-00001-of-00003.gguf", "m-1-of-2.gguf", "-00001-of-00002.gguf"])
def test_part_with_another_name_is_refused(gguf_file, refuses, name):
    refuses(
        "scan", gguf_file(split(2), one(), DATA, name=name), code=4, says=["one of 2 parts", "-00001-of-00002.gguf"]
    )


def test_missing_part_is_named(gguf_file, refuses):
    path = gguf_file(split(300), one(), DATA, name="m-00001-of-00300.gguf")
    refuses("scan", path, code=3, says=["m-00002-of-00300.gguf", "and 296 more not there"])


def test_tensor_in_two_parts_is_refused(gguf_file, refuses):
    gguf_file(split(2, 1), one(), DATA, name="m-00002-of-00002.gguf")
    path = gguf_file(split(2), one(), DATA, name="m-00001-of-00002.gguf")
    refuses("scan", path, code=4, says=["m-00002-of-00002.gguf", "which another part holds, too"])


def test_name_of_a_tensor_and_text_of_a_token_cannot_forge_a_line(gguf_file, cli):
    texts = [("tokenizer.ggml.tokens", ggufs.value("text", ["\x1b[2J\ndarkvocab: no problem", "b", "c", "d"]))]
    path = gguf_file(texts, one(name="up\x1b[2J\ndarkvocab: no problem"), np.ones((4, 3), np.float32).tobytes())
    result = cli("scan", path)
    assert result.code == 0
    assert "\x1b" not in result.out
    assert "\ndarkvocab: no problem" not in result.out


def read_or_refused(path, content):
    with suppress(CorruptFile):
        for result in open_source(written(path, content)).tensors.values():
            with suppress(CorruptFile):
                assert result.words().nbytes <= len(content)
                result.words().tobytes()


@pytest.mark.slow
@settings(max_examples=250)
@given(data=st.data())
def test_changed_files_are_read_or_refused(scratch, mutated, data):
    read_or_refused(scratch / "mutated.gguf", mutated(data, GOOD))


@settings(max_examples=100)
@given(content=st.binary(max_size=60), n_values=st.integers(0, 3), n_tensors=st.integers(0, 3))
def test_any_bytes_are_read_or_refused(scratch, content, n_values, n_tensors):
    read_or_refused(scratch / "bytes.gguf", b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_values) + content)
    read_or_refused(scratch / "bytes.gguf", content)


SIZES = st.integers(0, 5) | st.sampled_from([32, 2**31, 2**32, 2**63, 2**64 - 1])


@settings(max_examples=200)
@given(
    entries=st.lists(
        st.tuples(st.sampled_from("abc"), st.lists(SIZES, max_size=5), st.integers(0, 42), SIZES), max_size=3
    )
)
def test_any_tensors_are_read_or_refused(scratch, entries):
    listed = [ggufs.entry(name, shape, kind, offset) for name, shape, kind, offset in entries]
    read_or_refused(scratch / "any.gguf", ggufs.gguf([], listed, bytes(200)))
