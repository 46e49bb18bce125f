"""The twin of `by_triton.grouping` in torch's own operations, which no device runs.

Words are signed integers of 8, 16 or 32 bits that carry unsigned ones' bits.
"""

import torch
from torch import Tensor

CHUNK = 1 << 22  # words at a time, of some tens of bytes each


def hash_rows(words: Tensor, keys: Tensor, folded: bool) -> tuple[Tensor, Tensor]:
    """Hash each row, ``sum_d keys[d] * words[.., d] mod 2**64`` (multilinear), and find its largest magnitude code.

    Both are [T, n] int64; the hash by its bit pattern, the code without its sign bit. Words are [T, n, dim], keys [dim]
    int64, bit patterns of random 64-bit words; if `folded`, the word of -0.0, the sign bit alone, counts as 0.
    """
    n_trials, n, dim = words.shape
    rows = words.reshape(n_trials * n, dim)
    hashes, largest = (torch.zeros(len(rows), dtype=torch.int64, device=words.device) for _ in range(2))
    step = max(1, CHUNK // max(1, dim))
    for start in range(0, len(rows) if dim else 0, step):
        some = _unsigned(rows[start : start + step], folded)
        hashes[start : start + step] = (some * keys).sum(1)
        largest[start : start + step] = (some & (_sign(words) - 1)).amax(1)
    return hashes.view(n_trials, n), largest.view(n_trials, n)


def _sign(words: Tensor) -> int:
    return 1 << (8 * words.itemsize - 1)


def _unsigned(words: Tensor, folded: bool) -> Tensor:
    unsigned = words.long() & (2 * _sign(words) - 1)
    return torch.where(unsigned == _sign(words), 0, unsigned) if folded else unsigned


def leaders(words: Tensor, keys: Tensor, folded: bool, hashes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Find the first row that equals each row, of its own trial: [T, n] int64, exact where no rows collided.

    Trials in which rows of one hash differ are marked, [T] bool: to be repeated with other keys. Takes what `hash_rows`
    does, and its `hashes` where the caller has them.
    """
    if hashes is None:
        hashes, _ = hash_rows(words, keys, folded)
    ordered, order = torch.sort(hashes, dim=1, stable=True)  # rows of one hash ascend
    collided = torch.zeros(len(words), dtype=torch.bool, device=words.device)
    for t in range(len(words)):
        again = torch.nonzero(ordered[t, 1:] == ordered[t, :-1])[:, 0]
        for some in again.split(max(1, CHUNK // max(1, words.shape[2]))):
            one, other = (_unsigned(words[t, order[t, some + k]], folded) for k in (0, 1))
            collided[t] |= (one != other).any()
    return first_of_runs(ordered, order), collided


def first_of_runs(ordered: Tensor, order: Tensor) -> Tensor:
    """Return the first row of each row's hash, from a stable sort of each trial's hashes: [T, n] int64."""
    n_trials, n = ordered.shape
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    run = starts.cumsum(1) - 1
    firsts = order.new_empty(n_trials, n + 1)  # the last takes all rows that start no run, and is not read
    firsts.scatter_(1, torch.where(starts, run, n), order)
    return torch.empty_like(order).scatter_(1, order, firsts.gather(1, run))
