"""Pairs of rows within a limit in every column, compiled: what `darkvocab.numerics.neighbours` composes.

Rows lie in tiles [words, n, lanes]: so many columns of a row as fill `WORD_BYTES` are a word, which is compared at once,
and the first words of all rows lie together, since most pairs go no further. Numbers are ordered indices, int16 or
int32, or float32 values; two are apart where their difference, as an unsigned integer or in float32, exceeds the limit.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .rounding import bits_of

WORD_BYTES = 64
ROWS = 8  # rows that meet another one while it is in the first-level cache
FURTHEST = 2**31 - 1  # deviation that is told from larger ones


@intrinsic
def words_apart(typingctx, x, at, y, there, limit):  # type: ignore[no-untyped-def]
    """Whether any lane of the word of x at this place (of flat x) and that of y are more than `limit` apart.

    Written in vectors, because the compiler makes no one test of a loop that may end early.
    """
    signature = types.boolean(x, types.int64, y, types.int64, limit)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        number = context.get_data_type(signature.args[0].dtype)
        bits = signature.args[0].dtype.bitwidth
        lanes = 8 * WORD_BYTES // bits
        vector = ir.VectorType(number, lanes)

        def word(array: int, place: int) -> ir.Value:
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            return builder.load(
                builder.bitcast(builder.gep(data, [args[place]]), vector.as_pointer()), align=bits // 8
            )

        one, other = word(0, 1), word(2, 3)
        many = ir.Constant(vector, ir.Undefined)
        many = builder.insert_element(many, args[4], ir.Constant(ir.IntType(32), 0))
        many = builder.shuffle_vector(many, many, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))
        if isinstance(number, ir.FloatType):
            kind = ir.FunctionType(vector, [vector])
            magnitude = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fabs.v{lanes}f{bits}")
            beyond = builder.fcmp_ordered(">", builder.call(magnitude, [builder.fsub(one, other)]), many)
        else:
            above = builder.icmp_signed(">", one, other)
            by = builder.sub(builder.select(above, one, other), builder.select(above, other, one))
            beyond = builder.icmp_unsigned(">", by, many)
        mask = builder.bitcast(beyond, ir.IntType(lanes))
        return builder.icmp_unsigned("!=", mask, ir.Constant(mask.type, 0))

    return signature, codegen


@njit(nogil=True, cache=True, forceinline=True)
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(nogil=True, cache=True, forceinline=True)
def _unite(parent, i, j):  # type: ignore[no-untyped-def]
    """Make one set of those of i and j; a set goes by its smallest member."""
    i, j = _root(parent, i), _root(parent, j)
    if i < j:
        parent[j] = i
    else:
        parent[i] = j


@njit(nogil=True, cache=True)
def unite_all(parent, rows, sets):  # type: ignore[no-untyped-def]
    """Make one set of rows[i] and rows[sets[i]], for all i."""
    for i in range(sets.size):
        _unite(parent, rows[i], rows[sets[i]])


@njit(nogil=True, cache=True)
def flatten(parent):  # type: ignore[no-untyped-def]
    """Let every row's parent be the smallest member of its set."""
    for i in range(parent.size):
        parent[i] = _root(parent, i)


@njit(nogil=True, cache=True)
def join(x, x_first, y, y_first, ends, limit, worker, workers, parent, weights, degrees, tokens, pairs):  # type: ignore[no-untyped-def]
    """Pairs of rows x_first.. (tiles x) and later rows y_first.. (tiles y) before ends[row] that are nowhere apart.

    ends [n] ascending; of the blocks of `ROWS` rows of x this worker takes every `workers`-th. Near rows get into one
    set of `parent` [n]; degrees [n] and tokens [n] grow by 1 and by the other's weight, pairs [2, room] lists what it
    has room for. Returns how many pairs there are. Where `degrees` is empty, only the sets are made, and pairs
    that are in one set already not compared.
    """
    words, n_x, lanes = x.shape
    n_y = y.shape[1]
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    counting = degrees.size > 0
    ahead = y_first - x_first
    count = 0
    for start in range(worker * ROWS, n_x, workers * ROWS):
        low, stop = start, min(start + ROWS, n_x)
        for j in range(max(start + 1 - ahead, 0), min(ends[x_first + stop - 1] - y_first, n_y)):
            other = y_first + j
            while ends[x_first + low] <= other:
                low += 1
            for i in range(low, min(stop, j + ahead)):
                row = x_first + i
                if not counting and parent[row] == parent[other]:
                    continue
                near = True
                for word in range(words):
                    if words_apart(flat_x, (word * n_x + i) * lanes, flat_y, (word * n_y + j) * lanes, limit):
                        near = False
                        break
                if not near:
                    continue
                _unite(parent, row, other)
                if counting:
                    degrees[row] += 1
                    degrees[other] += 1
                    tokens[row] += weights[other]
                    tokens[other] += weights[row]
                    if count < pairs.shape[1]:
                        pairs[0, count] = row
                        pairs[1, count] = other
                    count += 1
    return count


@njit(nogil=True, cache=True)
def index_words(words, sign, index):  # type: ignore[no-untyped-def]
    """index[i, d] = ordered index of words[i, d], unsigned bit patterns whose sign bit is the word `sign`."""
    for i in range(words.shape[0]):
        row, out = words[i], index[i]
        for d in range(row.size):
            code = np.int32(row[d] & ~sign)
            out[d] = -code if row[d] & sign else code


def _deviation(x, centre):  # type: ignore[no-untyped-def]
    """x - centre as an integer of its order: itself, or the bits of the float32, turned round below zero."""


@overload(_deviation, inline="always")
def _deviation_of(x, centre):  # type: ignore[no-untyped-def]
    if isinstance(x, types.Integer):
        return lambda x, centre: np.int64(x) - np.int64(centre)

    def of_floats(x, centre):  # type: ignore[no-untyped-def]
        bits = bits_of(x - centre)
        return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))

    return of_floats


@njit(nogil=True, cache=True)
def profile(rows, centre, low, high, extremes):  # type: ignore[no-untyped-def]
    """Range of each column of rows [n, dim], and each row's largest and smallest deviation from `centre` by blocks.

    low and high [dim] are widened; extremes [n, 2 blocks] int32 has the largest, then the smallest, of each block of
    columns, clipped: whole numbers as they are, float32 as integers of their order.
    """
    dim, blocks = rows.shape[1], extremes.shape[1] // 2
    for i in range(rows.shape[0]):
        row = rows[i]
        for d in range(dim):
            low[d] = min(low[d], row[d])
            high[d] = max(high[d], row[d])
        for block in range(blocks):
            start = block * dim // blocks
            part, middle = row[start : (block + 1) * dim // blocks], centre[start:]
            largest = smallest = _deviation(part[0], middle[0])
            for d in range(part.size):
                here = _deviation(part[d], middle[d])
                largest, smallest = max(largest, here), min(smallest, here)
            extremes[i, block] = min(max(largest, -FURTHEST), FURTHEST)
            extremes[i, blocks + block] = min(max(smallest, -FURTHEST), FURTHEST)


@njit(nogil=True, cache=True)
def count_alike(ordered, reach, counts):  # type: ignore[no-untyped-def]
    """counts[d] = pairs of the ascending float64 values ordered[d] that are at most `reach` apart."""
    for d in range(ordered.shape[0]):
        values, first = ordered[d], 0
        for last in range(values.size):
            while values[last] - values[first] > reach:
                first += 1
            counts[d] += last - first
