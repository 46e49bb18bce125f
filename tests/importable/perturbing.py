"""A kernel of Triton's that rounds a base plus noise that it is given, as those that draw round theirs."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from darkvocab.gpu.by_triton.drawing import EXACT, store

FLAT_BLOCK = tl.constexpr(1024)  # elements


def perturb(base, z, sigma, *, float32, shape, out) -> Tensor:
    """Write the ordered indices of the rows ``round(base + sigma z)`` for given noise.

    base [dim] float32 or float64; z [T, n, dim] float32; out [T, n, dim]. Returns the overflows, [T] int64.
    """
    n_trials, n, dim = out.shape
    overflows = torch.zeros(n_trials, dtype=torch.int64, device=out.device)
    if out.numel():
        sigmas = torch.full((1,), sigma, dtype=torch.float64, device=out.device)  # bare, it were a float32
        grid = triton.cdiv(n * dim, FLAT_BLOCK.value), n_trials
        perturb_kernel[grid](base, z, sigmas, out, overflows, n, dim, float32, shape, **EXACT)
    return overflows


@triton.jit(do_not_specialize=["n"])
def perturb_kernel(base, z, sigmas, out, overflows, n, dim, float32: tl.constexpr, shape: tl.constexpr):
    t = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * FLAT_BLOCK
    column = ((first % dim).to(tl.int32) + tl.arange(0, FLAT_BLOCK)) % dim
    i = first + tl.arange(0, FLAT_BLOCK)
    size = n.to(tl.int64) * dim
    live = i < size
    x = tl.load(base + column).to(tl.float64)
    noise = tl.load(z + t * size + i, mask=live, other=0.0).to(tl.float64)
    to = out + t * size + i
    count = store(noise, x, tl.load(sigmas), to, live, float32, shape)
    tl.atomic_add(overflows + t, count.to(tl.int64), mask=count > 0, sem="relaxed")
