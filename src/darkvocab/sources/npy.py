"""Arrays of numpy's `.npy` format, memory-mapped; no pickle is executed."""

from __future__ import annotations

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
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, SyntaxError, OverflowError) as error:
        raise CorruptFile(f"{path}: not a readable .npy array ({error})") from None
    if array.dtype.str not in DTYPES:
        raise CorruptFile(
            f"{path}: holds {array.dtype.str!r}; save it as float32, float16 or (with ml_dtypes) bfloat16"
        )
    if array.ndim > 1 and not array.flags.c_contiguous:
        raise CorruptFile(f"{path}: stored column by column; save it with numpy.save(path, numpy.ascontiguousarray(x))")
    return Tensor(name=path.stem, dtype=DTYPES[array.dtype.str], shape=array.shape, path=path, offset=int(array.offset))
