"""Motion between two states of the same rows, compiled: in grid steps token by token, in weights around the bulk."""

import numpy as np

from .compilation import kernel
from .rounding import bits_of, from_bits


@kernel()
def tally_moves(before, after, l1, l2, l_inf):
    """Lengths [n] of each row's displacement in steps, from its ordered indices [n, dim] before and after."""
    for i in range(before.shape[0]):
        total = top = np.int64(0)
        for d in range(before.shape[1]):
            moved = abs(np.int64(after[i, d]) - np.int64(before[i, d]))
            total += moved
            top = max(top, moved)
        l1[i] = total
        l_inf[i] = top
        squares = 0.0
        if total:
            for d in range(before.shape[1]):
                squares += (np.float64(after[i, d]) - np.float64(before[i, d])) ** 2
        l2[i] = np.sqrt(squares)


@kernel()
def tally_displacements(before, after, sign, bits_before, bits_after, shift, same, steps, l_inf, euclidean):
    """Measure how far each row of words [n, dim] is from another's: in steps, and in weight units by float32 values.

    bits_before, bits_after : the values' bits as float32, once shifted; words of bfloat16 are their upper halves
    same [n]: whether the words are the same ones. Squares are summed in eight lanes, in a fixed order.
    """
    lanes = np.empty(8)
    apart = np.empty(before.shape[1])
    for i in range(before.shape[0]):
        different = before[i, 0] ^ before[i, 0]
        for d in range(before.shape[1]):
            different |= before[i, d] ^ after[i, d]
        same[i] = different == 0
        steps[i] = l_inf[i] = euclidean[i] = 0
        if different == 0:
            continue
        top = most = np.int64(0)
        for d in range(before.shape[1]):
            old, new = np.int64(before[i, d] & (sign - 1)), np.int64(after[i, d] & (sign - 1))
            old = -old if before[i, d] & sign else old
            new = -new if after[i, d] & sign else new
            top = max(top, abs(old - new))
        for d in range(before.shape[1]):
            old, new = np.uint32(bits_before[i, d]) << shift, np.uint32(bits_after[i, d]) << shift
            apart[d] = np.float64(from_bits(np.int32(old))) - np.float64(from_bits(np.int32(new)))
            most = max(most, bits_of(abs(apart[d])))  # as integers, because a compiler reorders no floats
        lanes[:] = 0.0
        whole = before.shape[1] // 8 * 8
        for d in range(0, whole, 8):
            for j in range(8):
                lanes[j] += apart[d + j] * apart[d + j]
        for d in range(whole, before.shape[1]):
            lanes[d - whole] += apart[d] * apart[d]
        steps[i] = top
        l_inf[i] = from_bits(most)
        euclidean[i] = np.sqrt(lanes.sum())


@kernel()
def tally_updates(before, after, driving, norms, seen, decays, always, in_batch, gradient, momentum, columns):
    """Fill `columns` [n, 5] for rows of words [n, dim] of any width: asked, lost, moved, causes, norm.

    See `training.updates`. `seen` is [n], or [0] where not known; `always`, of all rows, to `momentum` are causes.
    """
    for i in range(before.shape[0]):
        n_asked, n_lost, n_moved, is_driven = 0, 0, 0, False
        for d in range(before.shape[1]):  # twice the word of +-0 is 0
            asked = driving.dtype.type(driving[i, d] + driving[i, d]) != 0
            is_driven |= asked
            asked |= decays & (before.dtype.type(before[i, d] + before[i, d]) != 0)
            moved = before[i, d] != after[i, d]
            n_asked += asked
            n_lost += asked & (not moved)
            n_moved += moved
        causes = always | (in_batch if seen.size and seen[i] else 0)
        causes |= gradient if norms[i] != 0 else momentum if is_driven else 0
        columns[i, 0], columns[i, 1], columns[i, 2], columns[i, 3] = n_asked, n_lost, n_moved, causes
        columns[i, 4] = norms[i]


@kernel()
def summarise_moves(l1, l2, l_inf, tokens):
    """Count which of these rows moved, and take mean and maximum over all of them of each length."""
    n_moved = sum_l1 = max_l1 = sum_l_inf = max_l_inf = 0
    sum_l2 = max_l2 = 0.0
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
    apart = np.empty(len(values))
    steps = np.empty(len(values))
    in_weight[:] = 0.0
    in_steps[:] = 0.0
    for i in range(values.shape[0]):
        for j in range(i):
            top = bits_of(np.float32(0))
            most = index.dtype.type(0)
            for d in range(values.shape[1]):
                top = max(top, bits_of(abs(values[i, d] - values[j, d])))  # as integers: a compiler reorders no floats
                most = max(most, abs(index[i, d] - index[j, d]))
            apart[j] = from_bits(top)
            steps[j] = most
        for k in range(len(weights)):
            weight = in_weight[k]  # in registers: memory would be waited for, pair by pair
            step = in_steps[k]
            for j in range(i if weights[k, i] else 0):
                pairs = weights[k, i] * weights[k, j]
                if pairs:  # an infinite distance counts only in its own sets
                    weight += pairs * apart[j]
                    step += pairs * steps[j]
            in_weight[k] = weight
            in_steps[k] = step


@kernel()
def widest(rows, tokens):
    """Width of the widest column of these rows, its largest entry less its smallest, and the first such column."""
    low, high = rows[tokens[0]].copy(), rows[tokens[0]].copy()
    for token in tokens[1:]:
        for d in range(low.size):
            low[d] = rows[token, d] if rows[token, d] < low[d] else low[d]
            high[d] = rows[token, d] if rows[token, d] > high[d] else high[d]
    column = 0
    for d in range(low.size):
        if high[d] - low[d] > high[column] - low[column]:
            column = d
    return high[column] - low[column], column


@kernel()
def around_mean(before, after, tokens, mean):
    """mean [dim] of these rows, in float64, or of their displacements; sum and maximum of the squared distance from it.

    before : [n_tokens, dim], or None for the rows after themselves
    """
    mean[:] = 0.0
    total = largest = 0.0
    for again in (False, True):  # the mean, then what lies around it
        for token in tokens:
            square = 0.0
            for d in range(mean.size):
                value = np.float64(after[token, d])
                if before is not None:
                    value -= np.float64(before[token, d])
                if again:
                    square += (value - mean[d]) * (value - mean[d])
                else:
                    mean[d] += value
            total += square
            largest = max(largest, square)
        if not again:
            mean /= tokens.size
    return total, largest
