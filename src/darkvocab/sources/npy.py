"""Arrays of numpy's `.npy` format, memory-mapped; no pickle is executed."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np

from .tensors import CorruptFile, Tensor

# numpy has no name for bfloat16: ml_dtypes saves it as two opaque bytes.
DTYPES = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "|V2": "BF16"}


def read_array(path: Path) -> Tensor:
    """The array of a `.npy` file as a tensor named after the file.

    Raises
    ------
    CorruptFile
        Truncated, not `.npy`, holds Python objects, in Fortran order, or of another type than float16, float32,
        float64 and (saved by ml_dtypes) bfloat16.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header that Python 2 wrote
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0), (3, 0)):
                raise ValueError(f"version {version[0]}.{version[1]} of the format, known are 1.0, 2.0 and 3.0")
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, by_columns, dtype = read_header(file)
            offset = file.tell()
    except OSError:
        raise
    except Exception as error:  # numpy's parser lets through whatever Python's raises, TokenError and IndexError too
        raise CorruptFile(f"{path}: not a readable .npy array ({type(error).__name__}: {error})") from None
    if not all(type(n) is int and n >= 0 for n in shape):
        raise CorruptFile(f"{path}: not a readable .npy array (shape {shape})")
    if dtype.str not in DTYPES:
        what = "Python objects" if dtype.hasobject else repr(dtype.str)
        raise CorruptFile(f"{path}: holds {what}; save it as float32, float16 or (with ml_dtypes) bfloat16")
    if size - offset < math.prod(shape) * dtype.itemsize:
        raise CorruptFile(
            f"{path}: not a readable .npy array: {size - offset:,} bytes of data are too few for shape {shape}; "
            "truncated? Save or download it again"
        )
    if by_columns and len(shape) > 1:
        raise CorruptFile(f"{path}: stored column by column; save it with numpy.save(path, numpy.ascontiguousarray(x))")
    return Tensor(name=path.stem, dtype=DTYPES[dtype.str], shape=shape, path=path, offset=offset)
