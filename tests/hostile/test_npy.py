"""`.npy` files that are wrong, and those that numpy writes."""

import io
import zipfile
from contextlib import suppress

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from darkvocab.errors import CorruptFile
from darkvocab.sources import open_source

HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"


def saved(array, path, *, version=(1, 0), allow_pickle=False):
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, version=version, allow_pickle=allow_pickle)
    return path


class Touch:
    """An object whose unpickling creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


def test_pickle_in_an_array_is_not_executed(tmp_path, refuses):
    mark = tmp_path / "mark"
    path = saved(np.array([Touch(mark), None], object), tmp_path / "objects.npy", allow_pickle=True)
    refuses("scan", path, code=4, says=["objects.npy", "Python objects"])
    refuses("sweep", "--sigma", "0", "--base", path, code=4, says=["objects.npy", "Python objects"])
    assert not mark.exists()
    np.load(path, allow_pickle=True)
    assert mark.exists()  # so the file would have shown it


@pytest.mark.parametrize("name", ["model.pkl", "model.onnx", "model.ckpt", "rows", "rows.NPY", "a.npy.index.jso"])
def test_unknown_kind_of_file_is_refused(tmp_path, refuses, name):
    path = saved(np.zeros((2, 2), np.float32), tmp_path / name)
    refuses("scan", path, code=2, says=[name, "give a .safetensors, .bin,", "or a model folder"])


@pytest.mark.parametrize("order", ["<", ">"])
def test_truncated_array_is_refused_at_every_length(tmp_path, order):
    path = saved(np.arange(6, dtype=f"{order}f4").reshape(2, 3), tmp_path / "rows.npy")
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CorruptFile):
            open_source(path)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.asfortranarray(np.zeros((2, 3), np.float32)), "numpy.ascontiguousarray"),
        (np.zeros((2, 3), np.int64), "'<i8'"),
        (np.zeros((2, 3), np.uint16), "'<u2'"),
        (np.zeros((2, 3), bool), "'|b1'"),
        (np.zeros((2, 3), ">f4"), "'>f4'"),
        (np.zeros((2, 3), np.complex64), "'<c8'"),
        (np.zeros((2, 3), "U4"), "'<U4'"),
        (np.zeros((2, 3), "f4,f4"), "'|V8'"),
    ],
)
def test_array_of_another_kind_is_refused(tmp_path, refuses, array, says):
    refuses("scan", saved(array, tmp_path / "rows.npy"), code=4, says=["rows.npy", says])


def test_float64_rows_are_told_what_to_do(tmp_path, refuses):
    refuses("scan", saved(np.zeros((2, 3)), tmp_path / "rows.npy"), code=2, says=["F64", "save it as float32"])


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 3), (3, 0)])
def test_array_that_is_no_matrix_is_refused(tmp_path, refuses, shape):
    refuses("scan", saved(np.zeros(shape, np.float32), tmp_path / "rows.npy"), code=3, says=["has no matrix"])


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{}",
        "[1, 2]",
        "__import__('os').abort()",
        HEADER.replace("(2, 3)", "(2, 300)"),
        HEADER.replace("(2, 3)", "(-2, 3)"),
        HEADER.replace("(2, 3)", "(2, 3.0)"),
        HEADER.replace("(2, 3)", "(99999999999999999999999,)"),
        HEADER.replace("<f4", "<f44"),
        HEADER.replace("False", "0"),
        HEADER + " " * 20_000,
        pytest.param(HEADER[:-4], id="unclosed"),
        HEADER.replace("(2, 3)", "(2, True)"),
        HEADER.replace("'<f4'", "()"),
        HEADER.replace("'shape'", "b'shape'"),
        HEADER.replace("(2, 3)", "(4611686018427387904, 8)"),
        pytest.param("-" * 9000 + "1", id="deep"),
    ],
)
def test_header_that_is_none_is_refused(npy_file, header):
    with pytest.raises(CorruptFile, match=r"not a readable \.npy array"):
        open_source(npy_file(header, bytes(24)))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(tmp_path, version):
    path = saved(np.arange(6, dtype=np.float32).reshape(2, 3), tmp_path / "rows.npy", version=version)
    assert np.array_equal(open_source(path).tensors["rows"].words().view(np.float32), np.load(path))


def test_unknown_version_of_the_format_is_refused(tmp_path):
    path = saved(np.zeros((2, 3), np.float32), tmp_path / "rows.npy", version=(2, 0))
    content = bytearray(path.read_bytes())
    content[6] = 9
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match="version"):
        open_source(path)


def written(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def read_or_refused(path, content):
    path.write_bytes(content)
    with suppress(CorruptFile):
        open_source(path).tensors[path.stem].words()


@pytest.mark.slow
@settings(max_examples=600)
@given(data=st.data())
def test_changed_arrays_are_read_or_refused(scratch, mutated, data):
    read_or_refused(scratch / "mutated.npy", mutated(data, written(np.arange(6, dtype=np.float32).reshape(2, 3))))


@settings(max_examples=200)
@given(content=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(scratch, content):
    read_or_refused(scratch / "bytes.npy", b"\x93NUMPY\x01\x00" + content)
    read_or_refused(scratch / "bytes.npy", content)


@given(
    array=hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, ml_dtypes.bfloat16]),
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
        elements=st.just(0),
    ),
    noise=st.randoms(use_true_random=False),
)
def test_what_numpy_writes_reads_back_word_for_word(scratch, array, noise):
    array = np.frombuffer(noise.randbytes(array.nbytes), array.dtype).reshape(array.shape)
    tensor = open_source(saved(array, scratch / "array.npy")).tensors["array"]
    assert tensor.shape == array.shape
    assert tensor.words().tobytes() == array.tobytes()


# Members of an .npz -------------------------------------------------------------------------------------------------


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


def test_pickle_in_a_member_is_not_executed(tmp_path, cli, refuses):
    mark = tmp_path / "mark"
    path = tmp_path / "objects.npz"
    np.savez(path, objects=np.array([[Touch(mark), None]], object), rows=np.zeros((2, 3), np.float32))
    assert cli("scan", path).code == 0
    refuses("scan", path, "--tensor", "objects", code=2, says=["'objects' is |O [1, 2], not a matrix"])
    assert not mark.exists()


@pytest.mark.parametrize("member", ["rows.npy", "../rows.npy", "/etc/rows.npy"])
def test_member_is_read_where_it_lies(tmp_path, cli, member):
    (tmp_path / "a.npz").write_bytes(zipped({"notes.txt": b"none", member: written(np.zeros((2, 3), np.float32))}))
    assert cli("scan", tmp_path / "a.npz").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_compressed_arrays_are_refused_and_not_inflated(tmp_path, refuses):
    np.savez_compressed(tmp_path / "a.npz", rows=np.zeros((3000, 3000), np.float32))
    refuses("scan", tmp_path / "a.npz", code=4, says=["'rows.npy' is compressed", "numpy.savez"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "member 'rows'"),
        (written(np.zeros((2, 3), np.float32))[:-1], "23 bytes of data are too few"),
        (written(np.zeros((2, 3), np.float32))[:70], "member 'rows'"),
        (b"\x93NUMPY\x01\x00" + HEADER.encode(), "member 'rows'"),
        (b"\x93NUMPY\x09\x00" + HEADER.encode(), "version 9.0"),
    ],
)
def test_member_that_is_cut_is_refused(tmp_path, refuses, content, says):
    """Bytes of the next member are none of this one's."""
    more = written(np.zeros((20, 30), np.float32))
    (tmp_path / "a.npz").write_bytes(zipped({"rows.npy": content, "more.npy": more}))
    refuses("scan", tmp_path / "a.npz", "--tensor", "more", code=4, says=["a.npz", says])


def test_archive_without_arrays_has_no_matrix(tmp_path, refuses):
    (tmp_path / "a.npz").write_bytes(zipped({"notes.txt": b"none"}))
    refuses("scan", tmp_path / "a.npz", code=3, says=["has no matrix"])


@pytest.mark.slow
@settings(max_examples=250)
@given(data=st.data())
def test_changed_archives_are_read_or_refused(scratch, mutated, data):
    good = zipped({"a.npy": written(np.arange(6, dtype=np.float32).reshape(2, 3)), "b.npy": written(np.zeros(3))})
    path = scratch / "mutated.npz"
    path.write_bytes(mutated(data, good))
    with suppress(CorruptFile):
        for tensor in open_source(path).tensors.values():
            with suppress(CorruptFile, ValueError):  # no number, or stored by columns
                tensor.words().tobytes()
