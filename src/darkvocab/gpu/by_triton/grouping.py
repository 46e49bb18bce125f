"""Group equal rows in Triton: the hash of `_backends.grouping`, and each row's first equal, without waiting.

Words are signed integers of 8, 16 or 32 bits that carry unsigned ones' bits; tensors are C-contiguous.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE_COLUMNS = 512  # at a time, of wide rows
TILE_WORDS = {1: 2048, 2: 4096, 4: 2048}  # words of a tile by their bytes: larger ones spill registers
SCATTERED_TILE = 1024  # where rows do not begin at multiples of 16 words
VECTOR = 16  # bytes of a row that a thread loads at once
LAUNCH = {"num_warps": 4, "enable_fp_fusion": False}


def tile(dim: int, itemsize: int) -> tuple[int, int, int]:
    """Choose rows and columns of a tile for rows of `dim` words, and the neighbours in a row that a thread takes."""
    vector = VECTOR // itemsize if dim % 16 == 0 else 1  # Triton counts on a multiple of 16 only
    columns = max(vector, min(TILE_COLUMNS, triton.next_power_of_2(dim)))
    size = TILE_WORDS[itemsize] if vector > 1 else SCATTERED_TILE
    return size // columns, columns, vector


def hash_rows(words: Tensor, keys: Tensor, folded: bool) -> tuple[Tensor, Tensor]:
    """Hash each row, ``sum_d keys[d] * words[.., d] mod 2**64`` (multilinear), and find its largest magnitude code.

    Both are [T, n] int64; the hash by its bit pattern, the code without its sign bit. Words are [T, n, dim], keys [dim]
    int64, bit patterns of random 64-bit words; if `folded`, the word of -0.0, the sign bit alone, counts as 0.
    """
    n_trials, n, dim = words.shape
    hashes, largest = (torch.empty((n_trials, n), dtype=torch.int64, device=words.device) for _ in range(2))
    if n_trials * n:
        shape = tile(dim, words.itemsize)
        grid = (triton.cdiv(n_trials * n, shape[0]),)
        hash_kernel[grid](words, keys, hashes, largest, n_trials * n, dim, folded, shape, **LAUNCH)
    return hashes, largest


def leaders(words: Tensor, keys: Tensor, folded: bool, hashes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Find the first row that equals each row, of its own trial: [T, n] int64, exact where no rows collided.

    Trials, up to 65,535, in which rows of one hash differ are marked, [T] bool: to be repeated with other keys. Takes
    what `hash_rows` does, and its `hashes` where the caller has them.
    """
    n_trials, n, dim = words.shape
    if hashes is None:
        hashes, _ = hash_rows(words, keys, folded)
    ordered, order = torch.sort(hashes, dim=1, stable=True)
    collided = torch.zeros(n_trials, dtype=torch.bool, device=words.device)
    if n_trials and n > 1:
        shape = tile(dim, words.itemsize)
        grid = triton.cdiv(n - 1, shape[0]), n_trials
        differ_kernel[grid](words, ordered, order, collided, n, dim, folded, shape, **LAUNCH)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    run = starts.cumsum(1) - 1
    firsts = order.new_empty(n_trials, n + 1)  # the last takes all rows that start no run, and is not read
    firsts.scatter_(1, torch.where(starts, run, n), order)
    return torch.empty_like(order).scatter_(1, order, firsts.gather(1, run)), collided


@triton.jit
def _load_words(words, rows, column, inside, dim, folded: tl.constexpr):
    """Words of some rows and columns, unsigned; beyond the last row or column 0."""
    signed = tl.load(words + rows[:, None] * dim + column[None, :], mask=inside, other=0)
    word_bits: tl.constexpr = words.dtype.element_ty.primitive_bitwidth
    sign: tl.constexpr = -(1 << (word_bits - 1))
    if folded:
        signed = tl.where(signed == sign, 0, signed)
    if word_bits == 8:
        unsigned = signed.to(tl.uint8, bitcast=True).to(tl.uint32)
    elif word_bits == 16:
        unsigned = signed.to(tl.uint16, bitcast=True).to(tl.uint32)
    else:
        unsigned = signed.to(tl.uint32, bitcast=True)
    return unsigned


@triton.jit(do_not_specialize=["n_rows"])
def hash_kernel(words, keys, hashes, largest, n_rows, dim, folded: tl.constexpr, shape: tl.constexpr):
    """Several rows a program, so that each key is loaded for all; a thread sums its own words before threads do."""
    tile_rows: tl.constexpr = shape[0]
    tile_columns: tl.constexpr = shape[1]
    vector: tl.constexpr = shape[2]
    word_bits: tl.constexpr = words.dtype.element_ty.primitive_bitwidth
    magnitude: tl.constexpr = (1 << (word_bits - 1)) - 1
    rows = tl.program_id(0).to(tl.int64) * tile_rows + tl.arange(0, tile_rows)
    total = tl.zeros([tile_rows, tile_columns // vector], tl.uint64)
    top = tl.zeros([tile_rows, tile_columns // vector], tl.uint32)
    for start in range(0, dim, tile_columns):
        column = start + tl.arange(0, tile_columns)
        key = tl.load(keys + column, mask=column < dim, other=0).to(tl.uint64, bitcast=True)
        inside = (rows < n_rows)[:, None] & (column < dim)[None, :]
        unsigned = _load_words(words, rows, column, inside, dim, folded)
        products = key[None, :] * unsigned.to(tl.uint64)
        codes = unsigned & magnitude
        if vector > 1:
            products = tl.sum(tl.reshape(products, [tile_rows, tile_columns // vector, vector]), axis=2)
            codes = tl.max(tl.reshape(codes, [tile_rows, tile_columns // vector, vector]), axis=2)
        total += products
        top = tl.maximum(top, codes)
    tl.store(hashes + rows, tl.sum(total, axis=1).to(tl.int64, bitcast=True), mask=rows < n_rows)
    tl.store(largest + rows, tl.max(top, axis=1).to(tl.int64), mask=rows < n_rows)


@triton.jit(do_not_specialize=["n"])
def differ_kernel(words, ordered, order, collided, n, dim, folded: tl.constexpr, shape: tl.constexpr):
    """Mark trials in which rows with the same hash, next to each other in the order of hashes, differ."""
    tile_rows: tl.constexpr = shape[0]
    tile_columns: tl.constexpr = shape[1]
    vector: tl.constexpr = shape[2]
    t = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * tile_rows + tl.arange(0, tile_rows)
    within = place < n - 1
    at = t * n + place
    same = within & (tl.load(ordered + at, mask=within, other=0) == tl.load(ordered + at + 1, mask=within, other=0))
    if tl.max(same.to(tl.int32)) > 0:
        one = t * n + tl.load(order + at, mask=within, other=0)
        other = t * n + tl.load(order + at + 1, mask=within, other=0)
        apart = tl.zeros([tile_rows, tile_columns // vector], tl.uint32)
        for start in range(0, dim, tile_columns):
            column = start + tl.arange(0, tile_columns)
            inside = same[:, None] & (column < dim)[None, :]
            bits = _load_words(words, one, column, inside, dim, folded)
            bits ^= _load_words(words, other, column, inside, dim, folded)
            if vector > 1:
                bits = tl.max(tl.reshape(bits, [tile_rows, tile_columns // vector, vector]), axis=2)
            apart |= bits
        if tl.max(tl.max(apart, axis=1), axis=0) > 0:
            tl.store(collided + t, 1)
