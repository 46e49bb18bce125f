"""A kernel of Triton's that makes deviates of words that it is given, as those that draw make them of theirs."""

import triton
import triton.language as tl

from darkvocab.gpu.by_triton.drawing import laplace_of, normal_pair


@triton.jit
def deviate(words, z, blocks, seed: tl.uint64, row, point, trial, is_laplace: tl.constexpr, size: tl.constexpr):
    b = tl.arange(0, size)
    live = b < blocks
    c1, c2, c3 = row.to(tl.uint32), point.to(tl.uint32), trial.to(tl.uint32)
    for plane in tl.static_range(0, 4, 2):
        at = b + plane * blocks
        one = tl.load(words + at, mask=live, other=0).to(tl.uint32, bitcast=True)
        other = tl.load(words + at + blocks, mask=live, other=0).to(tl.uint32, bitcast=True)
        if is_laplace:
            x = laplace_of(one, at, live, seed, c1, c2, c3)
            y = laplace_of(other, at + blocks, live, seed, c1, c2, c3)
        else:
            x, y = normal_pair(one, other, at, live, seed, c1, c2, c3)
        tl.store(z + at, x, mask=live)
        tl.store(z + at + blocks, y, mask=live)
