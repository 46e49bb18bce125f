"""Rounding to a number grid on tensors: `_backends.rounding`, bit for bit. Needs float64, which mps lacks."""

from __future__ import annotations

import torch
from torch import Tensor


def index_of(x: Tensor, mantissa_bits: int, min_exponent: int, max_code: int) -> Tensor:
    """Return the ordered indices of float64 numbers, int64; beyond the largest finite one: +-(max_code + 1)."""
    bits = x.view(torch.int64)
    exponent = ((bits >> 52 & 0x7FF) - 1023).clamp(min=min_exponent)
    scale = (mantissa_bits - exponent + 1023 << 52).view(torch.float64)
    significand = torch.round((x.abs() * scale).clamp(max=2.0**30)).long()  # half to even
    code = ((exponent - min_exponent << mantissa_bits) + significand).clamp(max=max_code + 1)
    return torch.where(bits < 0, -code, code)
