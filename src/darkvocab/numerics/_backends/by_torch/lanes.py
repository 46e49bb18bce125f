"""The tables of `Lanes` on a device, in one copy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...lanes import Lanes


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
    """One copy of them all; to CUDA from pinned memory, so that the host need not wait."""
    arrays = [np.ascontiguousarray(getattr(lanes, name)).reshape(-1).view(np.int64) for name in Tables._fields]
    packed = torch.empty(sum(a.size for a in arrays), dtype=torch.int64, pin_memory=device.type == "cuda")
    np.concatenate(arrays, out=packed.numpy())
    parts = dict(zip(Tables._fields, packed.to(device, non_blocking=True).split([a.size for a in arrays]), strict=True))
    pairs = {name: parts.pop(name).view(torch.int32).reshape(-1, 2) for name in ("often", "seldom")}
    return Tables(**(parts | pairs | {"scale": parts["scale"].view(torch.float64)}))
