"""The tables of `Lanes` on a device, in one copy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..lanes import Lanes


class Tables(NamedTuple):
    """The arrays of `Lanes`, int64; words of 64 bits by their bit patterns."""

    points: Tensor
    trials: Tensor
    column: Tensor
    place: Tensor
    shift: Tensor
    starts: Tensor
    away: Tensor
    below: Tensor
    above: Tensor
    scale: Tensor  # float64
    edges: Tensor
    often: Tensor  # [lanes, 2] int32
    seldom: Tensor


def on_device(lanes: Lanes, device: torch.device) -> Tables:
    """Copy all arrays at once; to CUDA from pinned memory, so that the host need not wait."""
    arrays = [np.ascontiguousarray(getattr(lanes, name)).reshape(-1).view(np.int64) for name in Tables._fields]
    # Each from a multiple of 16 bytes on: Triton compiles a kernel anew for pointers that are not.
    starts = np.cumsum([0, *(a.size + a.size % 2 for a in arrays)]).tolist()
    packed = torch.empty(starts[-1], dtype=torch.int64, pin_memory=device.type == "cuda")
    for a, start in zip(arrays, starts, strict=False):
        packed.numpy()[start : start + a.size] = a
    moved = packed.to(device, non_blocking=True)
    placed = zip(Tables._fields, arrays, starts, strict=False)
    parts = {name: moved[start : start + a.size] for name, a, start in placed}
    pairs = {name: parts.pop(name).view(torch.int32).reshape(-1, 2) for name in ("often", "seldom")}
    return Tables(**(parts | pairs | {"scale": parts["scale"].view(torch.float64)}))
