"""Groups of equal rows, by hashes and a table that compares bytes, and sets of rows in a forest; compiled.

In the forest `parent` [n] leads from each row to the smallest of its set.
"""

import numpy as np

from .compilation import kernel


@kernel()
def hash_rows(words, keys, sign, folded, hashes, largest):
    """Multilinear hash of each row, ``sum_d keys[d] * words[i, d] mod 2**64``, and its largest magnitude code.

    words [n, dim] unsigned; keys [dim] random uint64; the word `folded` counts as 0 (-0.0; 0 to compare bits).
    """
    for i in range(words.shape[0]):
        total = np.uint64(0)
        top = sign ^ sign
        for d in range(words.shape[1]):
            word = words[i, d]
            if word == folded:
                word = sign ^ sign
            top = max(top, word & ~sign)
            total += keys[d] * np.uint64(word)
        hashes[i] = total
        largest[i] = top


@kernel(inline="always")
def _same(words, a, b, folded):
    zero = folded ^ folded
    for d in range(words.shape[1]):
        x, y = words[a, d], words[b, d]
        if x != y and ((x != folded and x != zero) or (y != folded and y != zero)):
            return False
    return True


@kernel()
def group_hashed(hashes, words, folded, table, labels, first):
    """Label rows so that equal labels mean equal rows; groups are numbered in order of appearance.

    An open-addressing table keyed by the hash; a row joins a group only after its words were compared with the group's
    first row. table [a power of two, at least 2 n]: -1s that become the group at each slot; labels [n], first [n]
    (first row of each group). Returns the number of groups.
    """
    mask = np.uint64(table.size - 1)
    groups = 0
    for i in range(hashes.size):
        slot = (hashes[i] ^ (hashes[i] >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
        slot = (slot >> np.uint64(20)) & mask
        while True:
            group = table[slot]
            if group < 0:
                table[slot] = groups
                labels[i] = groups
                first[groups] = i
                groups += 1
                break
            if hashes[first[group]] == hashes[i] and _same(words, first[group], i, folded):
                labels[i] = group
                break
            slot = (slot + np.uint64(1)) & mask
    return groups


@kernel(forceinline=True)
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel(forceinline=True)
def unite(parent, i, j):
    """Make one set of those of i and j; a set goes by its smallest member."""
    i = _root(parent, i)
    j = _root(parent, j)
    if i < j:
        parent[j] = i
    else:
        parent[i] = j


@kernel()
def unite_all(parent, one, other):
    """Make one set of one[i] and other[i], for all i."""
    for i in range(one.size):
        unite(parent, one[i], other[i])


@kernel()
def flatten(parent):
    """Let every row's parent be the smallest member of its set: parents come before their children."""
    for i in range(parent.size):
        parent[i] = parent[parent[i]]
