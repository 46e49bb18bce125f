"""The twin of `by_triton.drawing` in torch's own operations: what a GPU draws, on tensors of a CPU, bit for bit.

No device draws by it: CUDA has Triton's kernels.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import plain_distances
import plain_grouping
import torch
from plain_deviates import log, philox, row_deviates
from torch import Tensor

from darkvocab.gpu.device import Device
from darkvocab.numerics._backends.drawing import LANES
from darkvocab.snowballs.on_device import Lanes

CHUNK = 1 << 20  # elements at a time, of some hundred bytes each
TOP = -(1 << 63)  # flipping the top bit puts unsigned words into the order of signed ones

Shape = tuple[int, int, int]  # of a grid: mantissa_bits, min_exponent, max_code


class PlainDevice(Device):
    """A CPU as if it were a GPU: rows are drawn by this module, grouped and compared by its neighbours."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))

    drawing = property(lambda _: sys.modules[__name__])
    grouping = property(lambda _: plain_grouping)
    distances = property(lambda _: plain_distances)


def draw_dense(
    bases: Tensor,
    which: Tensor,
    sigmas: Tensor,
    points: Tensor,
    trials: Tensor,
    seed: int,
    *,
    laplace: bool,
    float32: bool,
    stream: int,
    shape: Shape,
    out: Tensor,
) -> Tensor:
    """Do as `by_triton.drawing.draw_dense`."""
    n, dim = out.shape[1:]
    overflows = torch.zeros(len(which), dtype=torch.int64, device=out.device)
    for t in range(len(which)):
        base, sigma = bases[which[t]], sigmas[t]
        for rows in torch.arange(n, device=out.device).split(max(1, CHUNK // max(1, dim))):
            z = row_deviates(rows, dim, stream, seed, points[t], trials[t], laplace)
            index = _perturbed(base, z, sigma, float32, shape)
            overflows[t] += (index.abs() > shape[2]).sum()
            out[t, rows] = index.to(out.dtype)
    return overflows


def perturb(base: Tensor, z: Tensor, sigma: float, *, float32: bool, shape: Shape, out: Tensor) -> Tensor:
    """Do as `perturbing.perturb`."""
    overflows = torch.zeros(len(z), dtype=torch.int64, device=out.device)
    of_device = torch.full((), sigma, dtype=torch.float64, device=out.device)
    for t in range(len(z)):
        index = _perturbed(base, z[t], of_device, float32, shape)
        overflows[t] = (index.abs() > shape[2]).sum()
        out[t] = index.to(out.dtype)
    return overflows


def _perturbed(base: Tensor, z: Tensor, sigma: Tensor, float32: bool, shape: Shape) -> Tensor:
    if float32:
        return index_of((base.float() + z.float() * sigma.float()).double(), *shape)
    return index_of(base.double() + z.double() * sigma, *shape)


def index_of(x: Tensor, mantissa_bits: int, min_exponent: int, max_code: int) -> Tensor:
    """Return the ordered indices of float64 numbers, int64; beyond the largest finite one: +-(max_code + 1)."""
    bits = x.view(torch.int64)
    exponent = ((bits >> 52 & 0x7FF) - 1023).clamp(min=min_exponent)
    scale = (mantissa_bits - exponent + 1023 << 52).view(torch.float64)
    significand = torch.round((x.abs() * scale).clamp(max=2.0**30)).long()  # half to even
    code = ((exponent - min_exponent << mantissa_bits) + significand).clamp(max=max_code + 1)
    return torch.where(bits < 0, -code, code)


def draw_sparse(lanes: Lanes, seed: int, codes: Tensor) -> None:
    """Do as `by_triton.drawing.draw_sparse`."""
    tables = lanes.tensors(codes.device)
    n = codes.shape[1]
    chunks = -(-n // LANES)
    for some in tables.often.split(max(1, CHUNK // max(1, chunks * LANES))) if n and len(tables.often) else ():
        _draw_often(tables, some, seed, codes, chunks)
    _draw_seldom(tables, seed, codes)


def _draw_often(tables: SimpleNamespace, lanes: Tensor, seed: int, codes: Tensor, chunks: int) -> None:
    """Draw every token of columns that move often from 64 bits, of which the CPU draws the last 48 when it must."""
    n = codes.shape[1]
    trial, row = lanes.unbind(1)
    column = tables.column[row, None]
    point = tables.points[trial, None]
    of_trial = tables.trials[trial, None]
    block = torch.arange(chunks * LANES // 8, device=codes.device)
    planes = philox(block, column, point, of_trial, seed)
    words = torch.stack([plane.reshape(len(lanes), chunks, -1) for plane in planes], dim=2)
    lane = torch.stack([words & 0xFFFF, words >> 16], dim=-1).reshape(len(lanes), -1)[:, :n]
    w0, w1, _, _ = philox(torch.arange(n, device=codes.device), column | 1 << 30, point, of_trial, seed)
    cell = _cell(tables, row[:, None], lane << 48 | (w0 & 0xFFFF) << 32 | w1)
    codes[trial, :, tables.place[row]] = (tables.shift[row, None] + cell).to(codes.dtype)


def _draw_seldom(tables: SimpleNamespace, seed: int, codes: Tensor) -> None:
    """Draw the tokens that leave home, by the gaps between them, of all columns at once until each is through."""
    trial, row = tables.seldom.unbind(1)
    token = torch.full((len(row),), -1.0, dtype=torch.float64, device=codes.device)
    block = 0
    while len(row):
        column = tables.column[row] | 1 << 31
        w0, w1, w2, w3 = philox(
            torch.full_like(column, block), column, tables.points[trial], tables.trials[trial], seed
        )
        uniform = ((w0 << 20 | w1 >> 12).double() + 0.5) * 2.0**-52
        token = token + (1.0 + torch.floor(log(uniform) * tables.scale[row]))
        going = token < codes.shape[1]
        trial, row, token, w2, w3 = trial[going], row[going], token[going], w2[going], w3[going]
        u = _scaled(w2, w3, tables.away[row])
        below = tables.below[row]
        u = torch.where(u ^ TOP >= below ^ TOP, u - below + tables.above[row], u)
        codes[trial, token.long(), tables.place[row]] = (tables.shift[row] + _cell(tables, row, u)).to(codes.dtype)
        block += 1


def _cell(tables: SimpleNamespace, row: Tensor, u: Tensor) -> Tensor:
    """Count the thresholds of its row that each 64-bit word has reached."""
    cell = torch.zeros_like(u)
    start, stop = tables.starts[row], tables.starts[row + 1]
    for k in range(int((stop - start).max()) if row.numel() else 0):
        edge = tables.edges[(start + k).clamp(max=len(tables.edges) - 1)]
        cell += (start + k < stop) & (u ^ TOP >= edge ^ TOP)
    return cell


def _scaled(high: Tensor, low: Tensor, n: Tensor) -> Tensor:
    """Multiply the 64-bit fraction 0.(high)(low) by n < 2**63 and round down."""
    n_high, n_low = n >> 32, n & 0xFFFFFFFF
    first = low * n_low  # up to 2**64: its bits as an unsigned word
    middle = high * n_low  # likewise, and what is added to it does not reach 2**64
    middle = middle + (first >> 32 & 0xFFFFFFFF)
    return high * n_high + (middle >> 32 & 0xFFFFFFFF) + (low * n_high + (middle & 0xFFFFFFFF) >> 32)
