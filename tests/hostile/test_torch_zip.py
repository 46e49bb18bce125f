"""Files of torch's format that would run something, or are wrong; and files that torch writes, changed."""

import io
import os
import pickle
import random
import re
import struct
import sys
import time
import zipfile
from contextlib import suppress

import numpy as np
import payloads
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkvocab.errors import CorruptFile
from darkvocab.sources import open_source, pickled, torch_zip
from darkvocab.sources.pickled import Name


def zipped(entries, *, compression=zipfile.ZIP_STORED):
    """A zip archive with these (name, bytes)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return file.getvalue()


@pytest.fixture
def torch_file(tmp_path):
    """Write a file as torch does, with this pickle and these storages, right or wrong."""

    def write(pickle, storages=None, *, name="model.bin", more=()):
        data = [(f"m/data/{key}", value) for key, value in (storages or {}).items()]
        path = tmp_path / name
        path.write_bytes(zipped([("m/data.pkl", pickle), *data, *more]))
        return path

    return write


# Pickles, by their opcodes ------------------------------------------------------------------------------------------

text = payloads.text


def number(n):
    """An opcode for an integer of any size."""
    size = (n.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + n.to_bytes(size, "little", signed=True)


def numbers(values):
    return b"(" + b"".join(value if isinstance(value, bytes) else number(value) for value in values) + b"t"


def storage(*, kind="torch\nFloatStorage", key="0", count=6):
    return (
        b"(" + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text("cpu") + numbers([count])[1:-1] + b"tQ"
    )


def tensor(*, offset=0, size=(2, 3), stride=(3, 1), **held):
    held = storage(**held)
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + held
        + numbers([offset])[1:-1]
        + numbers(size)
        + numbers(stride)
        + b"\x89NtR"
    )


def mapping(**values):
    return b"}(" + b"".join(text(name) + value for name, value in values.items()) + b"u"


def whole(value):
    return b"\x80\x02" + value + b"."


GOOD = whole(mapping(a=tensor(), b=tensor(size=(6,), stride=(1,))))
BYTES = np.arange(6, dtype=np.float32).tobytes()


def test_the_good_one_is_read(torch_file):
    result = open_source(torch_file(GOOD, {"0": BYTES})).tensors
    assert {name: t.words().tobytes() for name, t in result.items()} == {"a": BYTES, "b": BYTES}


# Nothing is run -----------------------------------------------------------------------------------------------------

KINDS = [*payloads.payloads("nowhere")]


class Trusting(pickle.Unpickler):
    def persistent_load(self, identifier):
        return identifier


@pytest.mark.parametrize("kind", KINDS)
def test_pickle_that_would_leave_a_file_is_refused_and_leaves_none(tmp_path, torch_file, refuses, kind):
    mark = tmp_path / "mark"
    payload = payloads.payloads(mark)[kind]
    refuses("scan", torch_file(payload), code=4, says=["model.bin", "pickle"])
    for name in ("model.pt", "model.pth"):
        with pytest.raises(CorruptFile, match="pickle"):
            open_source(torch_file(payload, name=name))
    assert not mark.exists()
    if kind == "how a tensor is rebuilt":
        pytest.importorskip("torch")
    with suppress(Exception):
        Trusting(io.BytesIO(payload)).load()
    assert mark.exists()  # so the file would have shown it


@pytest.mark.parametrize("command", [["centroid", "-o", "c.safetensors"], ["sweep", "--sigma", "0", "--base"]])
def test_every_command_refuses_a_pickle_that_would_leave_a_file(tmp_path, torch_file, refuses, command):
    path = torch_file(payloads.payloads(tmp_path / "mark")["REDUCE"])
    refuses(*command, path, code=4, says=["its pickle calls posix.system"])
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_payload_behind_good_tensors_and_in_a_shard_is_refused(tmp_path, kind):
    mark = tmp_path / "mark"
    payload = payloads.payloads(mark)[kind]
    shard = tmp_path / "pytorch_model-1.bin"
    shard.write_bytes(zipped([("m/data.pkl", GOOD[:-1] + b"0" + payload), ("m/data/0", BYTES)]))
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-1.bin"}}')
    with pytest.raises(CorruptFile, match=r"pytorch_model-1\.bin: .*pickle"):
        open_source(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(("content", "says"), payloads.oddities().values(), ids=payloads.oddities())
def test_pickle_that_is_no_weights_is_refused(torch_file, content, says):
    with pytest.raises(CorruptFile, match=rf"model\.bin: .*{re.escape(says)}"):
        open_source(torch_file(content))


def test_what_is_called_is_named(torch_file, refuses):
    says = ["its pickle calls posix.system", "nothing of it was run", "save model.state_dict() alone"]
    refuses("scan", torch_file(payloads.payloads("x")["REDUCE"]), code=4, says=says)


def test_module_that_a_pickle_names_is_not_imported(torch_file):
    assert "this" not in sys.modules
    named = whole(mapping(a=tensor(), zen=b"cthis\nd\n", also=b"cantigravity\nfly\n"))
    assert list(open_source(torch_file(named, {"0": BYTES})).tensors) == ["a"]
    assert "this" not in sys.modules
    assert "antigravity" not in sys.modules


def test_values_are_inert_whatever_the_opcodes():
    seen = set()
    inert = {int, float, str, bytes, bytearray, bool, type(None), list, tuple, pickled.Pairs, Name}
    inert |= {torch_zip.Storage, torch_zip.View}
    noise = random.Random(1)
    opcodes = [b"}", b"]", b")", b"(", b"t", b"u", b"s", b"e", b"a", b"R", b"b", b"Q", b"0", b"1", b"2", b"N", b"\x85"]
    opcodes += [
        text("a"),
        b"K\x01",
        b"q\x00",
        b"h\x00",
        b"ccollections\nOrderedDict\n",
        b"\x81",
        b"o",
        b"\x93",
        tensor(),
    ]
    for _ in range(10_000):
        content = b"".join(noise.choices(opcodes, k=noise.randint(1, 12))) + b"."
        with suppress(CorruptFile):
            builds = (pickled.Pairs, torch_zip.View)
            value = pickled.read_pickle(content, calls=torch_zip.CALLS, builds=builds, refer=torch_zip._refer)
            seen.add(type(value))
    assert len(seen) > 4
    assert seen <= inert


# What takes long, or much room --------------------------------------------------------------------------------------


def quickly(seconds=10):
    began = time.process_time()
    return lambda: time.process_time() - began < seconds


def test_list_that_holds_itself_is_read_once(torch_file):
    itself = b"]q\x00h\x00a"
    result = open_source(torch_file(whole(mapping(loop=itself, a=tensor())), {"0": BYTES})).tensors
    assert list(result) == ["a"]


def test_dict_that_holds_itself_is_read_once(torch_file):
    result = open_source(
        torch_file(whole(b"}q\x00(" + text("me") + b"h\x00" + text("a") + tensor() + b"u"), {"0": BYTES})
    )
    assert list(result.tensors) == ["a"]


def doubled(start, opcode, n=60):
    """A value that is doubled so many times over: small on disk, endless to walk, to hash or to print."""
    return start + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + opcode for k in range(n))


@pytest.mark.parametrize(
    "content",
    [
        doubled(b"]", b"\x86"),
        doubled(b")", b"\x86"),
        b"}" + doubled(b")", b"\x86") + b"Ns",
        doubled(b"]", b"\x86") + b")R",
        doubled(b")", b"\x86") + b"Q",
        b"ctorch\nSize\n" + doubled(b")", b"\x86") + b"R",
        tensor(size=[doubled(b")", b"\x86", 40)]),
    ],
)
def test_values_that_double_take_no_time(torch_file, content):
    in_time = quickly()
    with suppress(CorruptFile):
        open_source(torch_file(whole(content), {"0": BYTES}))
    assert in_time()


@pytest.mark.parametrize(
    "repeated",
    [
        b"h\x00)R0",  # a long name called
        b"ccollections\nOrderedDict\nh\x01R0",  # with a long tuple
        b"ccollections\nOrderedDict\nh\x02\x85R0",  # with a long list
        b"}h\x03Ns0",  # a long key
        b"(" + text("storage") + b"ctorch\nFloatStorage\nh\x03" + text("cpu") + b"K\x06tQ0",
    ],
)
def test_long_thing_that_is_used_again_and_again_takes_no_time(torch_file, repeated):
    long = b"c" + b"a" * 150 + b"\nb\nq\x000(" + b"N" * 20_000 + b"tq\x010](" + b"N" * 20_000 + b"eq\x020"
    long += text("k" * 200_000) + b"q\x030"
    in_time = quickly()
    with suppress(CorruptFile):
        open_source(torch_file(b"\x80\x02" + long + repeated * 20_000 + b"N."))
    assert in_time()


@pytest.mark.slow
def test_nesting_is_refused_where_it_is_deep(torch_file):
    for depth in (17, 50_000):
        content = b"}" + text("a") + b"]" * depth + b"a" * (depth - 1) + b"s"
        with pytest.raises(CorruptFile, match="more than 16 deep"):
            open_source(torch_file(whole(content)))
    with suppress(CorruptFile):
        open_source(torch_file(b"(" * 200_000 + b"."))


def test_more_opcodes_than_weights_need_are_refused(torch_file, monkeypatch):
    monkeypatch.setattr(pickled, "MAX_OPCODES", 1000)
    with pytest.raises(CorruptFile, match="more than 1,000 opcodes"):
        open_source(torch_file(whole(b"N0" * 1000 + b"N")))


def test_long_pickle_is_refused_unread(torch_file, monkeypatch):
    monkeypatch.setattr(torch_zip, "MAX_PICKLE", 1000)
    with pytest.raises(CorruptFile, match=r"a pickle of 2,0\d\d bytes"):
        open_source(torch_file(whole(b"N0" * 1000 + b"N")))


def test_long_names_and_many_tensors_are_refused(torch_file, monkeypatch):
    with pytest.raises(CorruptFile, match="a name of 600 characters"):
        open_source(torch_file(whole(mapping(**{"n" * 600: tensor()})), {"0": BYTES}))
    monkeypatch.setattr(torch_zip, "MAX_TENSORS", 3)
    with pytest.raises(CorruptFile, match="more than 3 tensors"):
        open_source(torch_file(whole(mapping(**{f"a{n}": tensor() for n in range(4)})), {"0": BYTES}))


# What contradicts itself --------------------------------------------------------------------------------------------

CONTRADICTIONS = {
    "storage missing": (tensor(key="1"), "lies in storage '1', which the archive does not hold"),
    "storage elsewhere": (tensor(key="../data.pkl"), "which the archive does not hold"),
    "storage too small": (tensor(count=60), "should be 240 bytes, the archive has 24"),
    "storage too large": (tensor(count=5), "should be 20 bytes, the archive has 24"),
    "storage of 2^62 words": (tensor(count=2**62), "the archive has 24"),
    "storage of -6 words": (tensor(count=-6), "cannot be read"),
    "storage of 2^80 words": (tensor(count=2**80), "cannot be read"),
    "storage of unknown kind": (tensor(kind="torch\nQInt8Storage"), "storage of unknown kind, torch.QInt8Storage"),
    "storage of a function": (tensor(kind="os\nsystem"), "storage of unknown kind, os.system"),
    "too tall": (tensor(size=(3, 3)), "ends at byte 36 of a storage of 24"),
    "behind the end": (tensor(offset=1), "ends at byte 28 of a storage of 24"),
    "before the start": (tensor(offset=-1), "all natural numbers"),
    "far behind": (tensor(offset=2**63 - 1), "of a storage of 24"),
    "strides too large": (tensor(stride=(2**62, 1)), "of a storage of 24"),
    "negative stride": (tensor(offset=3, stride=(-3, 1)), "all natural numbers"),
    "negative size": (tensor(size=(-2, -3)), "all natural numbers"),
    "absurd size": (tensor(size=(2**62, 2**62)), "of a storage of 24"),
    "size beyond all": (tensor(size=(2**80, 1)), "all natural numbers"),
    "stride missing": (tensor(stride=(1,)), "as many strides"),
    "65 dimensions": (tensor(size=(1,) * 65, stride=(1,) * 65), "all natural numbers"),
    "size of None": (tensor(size=(b"N", 3)), "all natural numbers"),
    "true as a size": (tensor(size=(b"\x88", 3)), "all natural numbers"),
    "fraction as a size": (tensor(size=(b"G" + struct.pack(">d", 2), 3)), "all natural numbers"),
    "unknown type": (
        b"ctorch._utils\n_rebuild_tensor_v3\n(" + storage(kind="torch.storage\nUntypedStorage", count=24)
        + b"K\x00" + numbers([2]) + numbers([1]) + b"\x89Nctorch\nfloat4\ntR",
        "unknown dtype 'float4'",
    ),
    "negated": (tensor()[:-2] + b"}" + text("neg") + b"\x88stR", "the negative"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "says"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_tensor_that_contradicts_the_file_is_refused(torch_file, value, says):
    with pytest.raises(CorruptFile, match=rf"model\.bin: .*{re.escape(says)}"):
        open_source(torch_file(whole(mapping(a=value)), {"0": BYTES}))


def test_repeated_row_takes_no_room(torch_file, refuses):
    """A shape that its strides let fit: 2^62 rows of one."""
    path = torch_file(whole(mapping(a=tensor(size=(2**62, 6), stride=(0, 1)))), {"0": BYTES})
    refuses("scan", path, code=2, says=["'a' is a view", "save a copy"])


def test_name_that_comes_twice_is_refused(torch_file, refuses):
    twice = b"}(" + (text("a") + tensor()) * 2 + b"u"
    refuses("scan", torch_file(whole(twice), {"0": BYTES}), code=4, says=["names tensor 'a' twice"])
    joined = mapping(**{"a.b": tensor(), "a": mapping(b=tensor())})
    refuses("scan", torch_file(whole(joined), {"0": BYTES}), code=4, says=["names tensor 'a.b' twice"])


def test_big_endian_is_refused(torch_file, refuses):
    for order in (b"big", b"", b"l" * 1000):
        path = torch_file(GOOD, {"0": BYTES}, more=[("m/byteorder", order)])
        refuses("scan", path, code=4, says=["byte order"])


def test_format_before_torch_1_6_is_refused_with_what_to_do(tmp_path, refuses):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(2, 2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refuses("scan", tmp_path / "old.pt", code=4, says=["before 1.6", "torch.save it again"])


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip", b"\x80\x02}.", b"PK\x05\x06" + bytes(18), b"{}" * 5000])
def test_file_that_is_no_archive_is_refused(tmp_path, refuses, content):
    (tmp_path / "m.bin").write_bytes(content)
    refuses("scan", tmp_path / "m.bin", code=4, says=["m.bin"])


@pytest.mark.parametrize("names", [[], ["m/data.pk"], ["a/data.pkl", "b/data.pkl"], ["m/n/data.pkl"]])
def test_archive_without_one_pickle_is_refused(tmp_path, refuses, names):
    (tmp_path / "m.bin").write_bytes(zipped([(name, GOOD) for name in names]))
    refuses("scan", tmp_path / "m.bin", code=4, says=["entries named data.pkl"])


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_archive_is_refused_and_not_inflated(tmp_path, refuses, compression):
    bomb = zipped([("m/data.pkl", GOOD), ("m/data/0", bytes(5_000_000))], compression=compression)
    (tmp_path / "m.bin").write_bytes(bomb)
    refuses("scan", tmp_path / "m.bin", code=4, says=["is compressed", "torch.save"])


def changed_directory(data, name, at, value):
    """An archive whose directory says something else of this entry; `at` counts from the entry's signature."""
    result = data.rindex(name.encode()) - 46
    assert data[result : result + 4] == b"PK\x01\x02"
    return data[: result + at] + value + data[result + at + len(value) :]


ODD = {
    "encrypted": (8, b"\x01\x00", "is encrypted"),
    "method unknown": (10, b"\x63\x00", "is compressed"),
    "size of 4 GB": (24, b"\xfe\xff\xff\xff", "stored as it is, yet"),
    "both sizes": (20, b"\xfe\xff\xff\xff\xfe\xff\xff\xff", "should end at byte"),
    "offset elsewhere": (42, struct.pack("<I", 41 + len(GOOD)), "has no header at byte"),
    "offset far": (42, b"\xf0\xff\xff\xff", "has no header at byte"),
    "offset of another": (42, b"\x00\x00\x00\x00", "overlaps"),
}


@pytest.mark.parametrize(("at", "value", "says"), ODD.values(), ids=ODD)
def test_odd_archive_is_refused(tmp_path, refuses, at, value, says):
    good = zipped([("m/data.pkl", GOOD), ("m/data/0", BYTES)])
    (tmp_path / "m.bin").write_bytes(changed_directory(good, "m/data/0", at, value))
    refuses("scan", tmp_path / "m.bin", code=4, says=["'m/data/0'", says])


def test_entry_that_comes_twice_is_refused(tmp_path, refuses):
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped([("m/data.pkl", GOOD), ("m/data/0", BYTES), ("m/data/0", BYTES)])
    (tmp_path / "m.bin").write_bytes(twice)
    refuses("scan", tmp_path / "m.bin", code=4, says=["names 'm/data/0' twice"])


# Changed files ------------------------------------------------------------------------------------------------------


def read_or_refused(path, content):
    path.write_bytes(content)
    with suppress(CorruptFile):
        for result in open_source(path).tensors.values():
            with suppress(CorruptFile, ValueError):  # no number, or a view
                assert result.words().nbytes <= len(content)
                result.words().tobytes()


def test_truncated_file_is_refused(tmp_path):
    good = zipped([("m/data.pkl", GOOD), ("m/data/0", BYTES)])
    path = tmp_path / "m.bin"
    for length in range(0, len(good), 3):
        path.write_bytes(good[:length])
        with pytest.raises(CorruptFile):
            open_source(path)


@pytest.fixture(scope="module")
def real():
    """A file that torch wrote, and its pickle."""
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    weights = torch.arange(12.0).reshape(4, 3)
    torch.save(
        {"state_dict": torch.nn.Linear(3, 2).state_dict(), "wte.weight": weights, "v": weights.t(), "n": 3}, file
    )
    return file.getvalue(), zipfile.ZipFile(file).read("archive/data.pkl")


@pytest.mark.slow
@settings(max_examples=250)
@given(data=st.data())
def test_changed_files_are_read_or_refused(scratch, mutated, real, data):
    read_or_refused(scratch / "mutated.bin", mutated(data, real[0]))


@pytest.mark.slow
@settings(max_examples=250)
@given(data=st.data())
def test_changed_pickles_are_read_or_refused(scratch, mutated, real, data):
    content = mutated(data, real[1])
    read_or_refused(
        scratch / "pickle.pt", zipped([("m/data.pkl", content), *((f"m/data/{k}", bytes(48)) for k in range(3))])
    )


OPCODES = [bytes([n]) for n in range(256)]


@settings(max_examples=250)
@given(pieces=st.lists(st.sampled_from([*OPCODES, tensor(), storage(), text("a"), b"K\x01"]) | st.binary(max_size=3)))
def test_any_opcodes_are_read_or_refused(scratch, pieces):
    read_or_refused(scratch / "opcodes.pt", zipped([("m/data.pkl", b"".join(pieces) + b"."), ("m/data/0", BYTES)]))


@settings(max_examples=100)
@given(content=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(scratch, content):
    read_or_refused(scratch / "bytes.bin", content)
    read_or_refused(scratch / "bytes.bin", b"PK\x03\x04" + content + b"PK\x05\x06" + content[:18])


def test_sparse_file_of_a_terabyte_takes_no_memory(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "m.bin"
    path.write_bytes(zipped([("m/data.pkl", GOOD), ("m/data/0", BYTES)]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.truncate(path, 1 << 40)
    with pytest.raises(CorruptFile):
        open_source(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB
