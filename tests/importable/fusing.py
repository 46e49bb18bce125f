"""Triton's interpreter with a `tl.fma` that rounds once, as a GPU's does: before version 3.9 its own rounds twice."""

import numpy as np
import torch
import triton.language as tl
from plain_deviates import fma
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, interpreter_builder


def rounds_once():
    """Say whether the interpreter's `tl.fma` gives the last bit of a sum that all but cancels."""
    x, y, z = (TensorHandle(np.array([value]), tl.float64) for value in (1 + 2.0**-30, 1 - 2.0**-30, -1.0))
    return interpreter_builder.create_fma(x, y, z).data.tolist() == [-(2.0**-60)]


def fuse():
    """Replace the interpreter's `tl.fma` where it rounds the product, too."""
    if not rounds_once():
        InterpreterBuilder.create_fma = _fused
        assert rounds_once()


def _fused(builder, x, y, z):
    assert z.dtype.scalar == tl.float64  # kernels fuse no other
    terms = (torch.from_numpy(term.copy()) for term in np.broadcast_arrays(x.data, y.data, z.data))
    return TensorHandle(fma(*terms).numpy(), z.dtype.scalar)
