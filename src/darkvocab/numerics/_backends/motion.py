"""Motion between two states of the same rows, compiled: in grid steps token by token, in weights around the bulk."""

import numpy as np

from .compilation import kernel
from .rounding import bits_of, from_bits


@kernel()
def tally_moves(before, after, l1, l2, l_inf):
    """Lengths [n] of each row's displacement in steps, from its ordered indices [n, dim] before and after."""
    for i in range(before.shape[0]):
        total, top = np.int64(0), np.int64(0)
        for d in range(before.shape[1]):
            moved = abs(np.int64(after[i, d]) - np.int64(before[i, d]))
            total += moved
            top = max(top, moved)
        l1[i], l_inf[i] = total, top
        squares = 0.0
        if total:
            for d in range(before.shape[1]):
                squares += (np.float64(after[i, d]) - np.float64(before[i, d])) ** 2
        l2[i] = np.sqrt(squares)


@kernel()
def tally_displacements(before, after, sign, values_before, values_after, same, steps, l_inf, euclidean):
    """Measure how far each row of words [n, dim] is from another's: in steps, and in weight units by float32 values.

    same [n]: whether the words are the same ones. Squares are summed in eight lanes, in a fixed order.
    """
    lanes = np.empty(8)
    for i in range(before.shape[0]):
        different = before[i, 0] ^ before[i, 0]
        for d in range(before.shape[1]):
            different |= before[i, d] ^ after[i, d]
        same[i], steps[i], l_inf[i], euclidean[i] = different == 0, 0, 0.0, 0.0
        if different == 0:
            continue
        top, most = np.int64(0), np.int64(0)
        for d in range(before.shape[1]):
            old, new = np.int64(before[i, d] & (sign - 1)), np.int64(after[i, d] & (sign - 1))
            old = -old if before[i, d] & sign else old
            new = -new if after[i, d] & sign else new
            top = max(top, abs(old - new))
        for d in range(before.shape[1]):  # as integers, because a compiler reorders no floats
            most = max(most, bits_of(abs(np.float64(values_before[i, d]) - np.float64(values_after[i, d]))))
        lanes[:] = 0.0
        whole = before.shape[1] // 8 * 8
        for d in range(0, whole, 8):
            for j in range(8):
                apart = np.float64(values_before[i, d + j]) - np.float64(values_after[i, d + j])
                lanes[j] += apart * apart
        for d in range(whole, before.shape[1]):
            apart = np.float64(values_before[i, d]) - np.float64(values_after[i, d])
            lanes[d - whole] += apart * apart
        steps[i], l_inf[i], euclidean[i] = top, from_bits(most), np.sqrt(lanes.sum())


@kernel()
def summarise_moves(l1, l2, l_inf, tokens):
    """Count which of these rows moved, and take mean and maximum over all of them of each length."""
    n_moved, sum_l1, max_l1, sum_l2, max_l2, sum_l_inf, max_l_inf = 0, 0, 0, 0.0, 0.0, 0, 0
    for token in tokens:
        n_moved += l_inf[token] > 0
        sum_l1 += l1[token]
        max_l1 = max(max_l1, l1[token])
        sum_l2 += l2[token]
        max_l2 = max(max_l2, l2[token])
        sum_l_inf += l_inf[token]
        max_l_inf = max(max_l_inf, l_inf[token])
    n = len(tokens)
    return n_moved, sum_l1 / n, max_l1, sum_l2 / n, max_l2, sum_l_inf / n, max_l_inf


@kernel()
def sum_pairs(values, index, weights, in_weight, in_steps):
    """Sums of the L-infinity distances of all pairs of rows, in weight units (float32) and steps, for sets of tokens.

    values [n, dim] float32, index [n, dim] ordered indices; weights [sets, n] float64: of how many tokens of a set each
    row is. in_weight, in_steps [sets].
    """
    in_weight[:] = 0.0
    in_steps[:] = 0.0
    for i in range(values.shape[0]):
        for j in range(i):
            top, most = bits_of(np.float32(0)), index.dtype.type(0)
            for d in range(values.shape[1]):  # as integers, because a compiler reorders no floats
                top = max(top, bits_of(abs(values[i, d] - values[j, d])))
                most = max(most, abs(index[i, d] - index[j, d]))
            apart = np.float64(from_bits(top))
            for k in range(len(weights)):
                pairs = weights[k, i] * weights[k, j]
                in_weight[k] += pairs * apart
                in_steps[k] += pairs * np.float64(most)


@kernel()
def widen(rows, tokens, low, high):
    """Smallest and largest entry of each column of these rows, to low and high [dim]."""
    low[:] = rows[tokens[0]]
    high[:] = rows[tokens[0]]
    for token in tokens[1:]:
        for d in range(low.size):
            low[d] = rows[token, d] if rows[token, d] < low[d] else low[d]
            high[d] = rows[token, d] if rows[token, d] > high[d] else high[d]


@kernel()
def average(values, tokens, mean, before=None):
    """mean [dim] of these rows of values [n, dim], less what they were `before`, summed in float64."""
    mean[:] = 0.0
    for token in tokens:
        for d in range(mean.size):
            mean[d] += np.float64(values[token, d]) - (0.0 if before is None else np.float64(before[token, d]))
    mean /= tokens.size


@kernel()
def squares_around(values, tokens, centre):
    """Sum and maximum over these rows of the squared distance from `centre` [dim]."""
    total, largest = 0.0, 0.0
    for token in tokens:
        square = 0.0
        for d in range(centre.size):
            apart = np.float64(values[token, d]) - centre[d]
            square += apart * apart
        total += square
        largest = max(largest, square)
    return total, largest


@kernel()
def squares_around_move(before, after, tokens, centre):
    """Sum over these rows of the squared difference of their displacement from `centre` [dim]."""
    total = 0.0
    for token in tokens:
        for d in range(centre.size):
            apart = (np.float64(after[token, d]) - np.float64(before[token, d])) - centre[d]
            total += apart * apart
    return total
