"""Arrays of numpy's `.npy` format, alone or as members of an `.npz`, memory-mapped; no pickle is executed."""

import math
import warnings

import numpy as np
from numpy.lib import format as npy

from ..errors import CorruptFile, InvalidInput
from .archive import read_archive
from .tensors import SENTENCES, File, Tensor

# numpy has no name for bfloat16: ml_dtypes saves it as two opaque bytes.
NPY_DTYPES = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "|V2": "BF16"}


def read_array(path: File) -> Tensor:
    """Return the array of a `.npy` file as a tensor named after the file.

    Raises CorruptFile: truncated, not `.npy`, holds Python objects, in Fortran order, or of another type than float16,
    float32, float64 and (saved by ml_dtypes) bfloat16.
    """
    tensor, dtype = _read_header(path, path.stem, str(path), 0, path.stat().st_size)
    if dtype.str not in NPY_DTYPES:
        what = "Python objects" if dtype.hasobject else repr(dtype.str)
        raise CorruptFile(f"{path}: holds {what}; save it as float32, float16 or (with ml_dtypes) bfloat16")
    if tensor.strides:
        raise CorruptFile(f"{path}: stored column by column; save it with numpy.save(path, numpy.ascontiguousarray(x))")
    return tensor


def read_arrays(path: File) -> dict[str, Tensor]:
    """Return the arrays of an `.npz` file that `numpy.savez` wrote, by name; members that are no arrays are left out.

    An array of another type, or in Fortran order, is listed and raises only when it is read. Raises as `read_archive`
    (so for `numpy.savez_compressed`), and CorruptFile for a member that is truncated or not `.npy`.
    """
    tensors = {}
    for member, entry in read_archive(path).items():
        if member.endswith(".npy"):
            name = member.removesuffix(".npy")
            what = f"{path}: member {name[:80]!r}"
            tensors[name], _ = _read_header(path, name, what, entry.offset, entry.offset + entry.size)
    return tensors


def _read_header(path: File, name: str, what: str, start: int, end: int) -> tuple[Tensor, np.dtype]:
    """Read the header of an array at bytes `start` to `end` of a file; return the tensor and its numpy dtype."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header that Python 2 wrote
            file.seek(start)
            version = npy.read_magic(file)
            if version not in ((1, 0), (2, 0), (3, 0)):
                raise InvalidInput(f"version {version[0]}.{version[1]} of the format, known are 1.0, 2.0 and 3.0")
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, by_columns, dtype = read_header(file)
            offset = file.tell()
    except OSError:
        raise
    except Exception as error:  # numpy parses with Python's tokenizer: TokenError, IndexError and so on
        raise CorruptFile(f"{what}: not a readable .npy array ({type(error).__name__}: {error})") from None
    if not all(type(n) is int and n >= 0 for n in shape):
        raise CorruptFile(f"{what}: not a readable .npy array (shape {shape})")
    needed = 0 if dtype.hasobject else math.prod(shape) * dtype.itemsize  # objects are a pickle, of any length
    if end - offset < needed:
        raise CorruptFile(SENTENCES["too_few_numbers"].format(what=what, size=end - offset, shape=shape))
    # In Fortran order; in words.
    strides = tuple(math.prod(shape[:axis]) for axis in range(len(shape))) if by_columns and len(shape) > 1 else None
    kind = NPY_DTYPES.get(dtype.str, dtype.str)
    return Tensor(name=name, dtype=kind, shape=shape, path=path, offset=offset, strides=strides), dtype
