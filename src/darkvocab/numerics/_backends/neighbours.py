"""Rows near each other, compiled: pairs within a limit in every column, and the distance to the nearest of a few.

Rows lie in tiles [tiles, columns, lanes], where a column of `TILE_BYTES` worth of rows is contiguous: one row meets as
many at once, column by column, until all are apart from it. Numbers are ordered indices, int16 or int32, or float32
values; two are apart where their difference, as an unsigned integer or in float32, exceeds the limit.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .compilation import kernel
from .distances import TILE_BYTES, lowest_bit
from .grouping import unite

CACHED_ROWS = 8  # rows that meet a tile while it is in the first-level cache
AT_ONCE = 128  # columns of two rows that are compared before their difference is looked at
FURTHEST = 2**31 - 1  # deviation that is told from larger ones


@intrinsic
def lanes_near(typingctx, tiles, at, number, limit):
    """A word whose bit l says that entry at + l of flat `tiles` and `number` are not more than `limit` apart.

    Written in vectors, because the compiler makes no word of a loop's comparisons.
    """
    signature = types.uint64(tiles, types.int64, number, limit)

    def codegen(context, builder, signature, args):
        kind = context.get_data_type(signature.args[2])
        width = signature.args[2].bitwidth
        lanes = 8 * TILE_BYTES // width
        vector = ir.VectorType(kind, lanes)

        def all_lanes(value: ir.Value) -> ir.Value:
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))

        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        entries = builder.load(builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer()), align=width // 8)
        numbers = all_lanes(args[2])
        most = all_lanes(args[3])
        if isinstance(kind, ir.FloatType):
            of = ir.FunctionType(vector, [vector])
            magnitude = cgutils.get_or_insert_function(builder.module, of, f"llvm.fabs.v{lanes}f{width}")
            near = builder.fcmp_unordered("<=", builder.call(magnitude, [builder.fsub(entries, numbers)]), most)
        else:
            above = builder.icmp_signed(">", entries, numbers)
            by = builder.sub(builder.select(above, entries, numbers), builder.select(above, numbers, entries))
            near = builder.icmp_unsigned("<=", by, most)
        word = builder.bitcast(near, ir.IntType(lanes))
        return word if lanes == 64 else builder.zext(word, ir.IntType(64))

    return signature, codegen


@kernel(forceinline=True)
def _up_to(n):
    """A word with its lowest n bits set, n from 0 to 64."""
    return ~np.uint64(0) >> np.uint64(64 - n) if n > 0 else np.uint64(0)


@kernel()
def join(x, x_first, y, y_first, ends, limits, worker, workers, parent, weights, degrees, tokens, pairs):
    """Pairs of rows x_first.. (tiles x) and later rows y_first.. (tiles y) before ends[row] that are nowhere apart.

    Apart is what differs by more than limits [columns] in its column. x and y are the same, or y begins behind x; ends
    [n] ascending. This worker takes every `workers`-th block of `CACHED_ROWS` rows of x. Near rows get into one set of
    `parent` [n]; degrees [n] and tokens [n] grow by 1 and the other's weight; pairs [2, room] lists the first pairs.
    Returns how many there are.
    """
    tiles, columns, lanes = y.shape
    n = ends.size
    flat = y.reshape(-1)
    count = 0
    for start in range(worker * CACHED_ROWS, min(len(x) * lanes, n - x_first), workers * CACHED_ROWS):
        stop = min(start + CACHED_ROWS, len(x) * lanes, n - x_first)
        last = ends[x_first + stop - 1]
        first_tile = max(x_first + start + 1 - y_first, 0) // lanes
        for tile in range(first_tile, min(tiles, (last - y_first + lanes - 1) // lanes)):
            first = y_first + tile * lanes
            for i in range(start, stop):
                row = x_first + i
                near = _up_to(min(max(ends[row] - first, 0), lanes)) & ~_up_to(min(max(row + 1 - first, 0), lanes))
                its_tile = x[i // lanes]
                for d in range(columns):
                    if near == 0:
                        break
                    near &= lanes_near(flat, (tile * columns + d) * lanes, its_tile[d, i % lanes], limits[d])
                while near:
                    other = first + lowest_bit(near)
                    near &= near - np.uint64(1)
                    if parent[row] != parent[other]:
                        unite(parent, row, other)
                    degrees[row] += 1
                    degrees[other] += 1
                    tokens[row] += weights[other]
                    tokens[other] += weights[row]
                    if count < pairs.shape[1]:
                        pairs[0, count] = row
                        pairs[1, count] = other
                    count += 1
    return count


@kernel()
def compare_each(one, other, limit, near):
    """near[i]: one[i] and other[i] are nowhere more than `limit` apart."""
    n, dim = one.shape
    for i in range(n):
        near[i] = True
        for start in range(0, dim, AT_ONCE):
            a, b = one[i, start : start + AT_ONCE], other[i, start : start + AT_ONCE]
            beyond = False
            for d in range(a.size):
                beyond |= abs(a[d] - b[d]) > limit
            if beyond:
                near[i] = False
                break


@kernel()
def nearest(index, targets, steps):
    """steps[i] = smallest over rows y of `targets` of max_d |index[i, d] - y[d]|; ordered indices, int32.

    A row mostly is as far from the next target in the column in which it was furthest from the first: look there first.
    """
    for i in range(index.shape[0]):
        x = index[i]
        column = 0
        least = np.int64(1 << 32)  # beyond any difference
        for k in range(targets.shape[0]):
            y = targets[k]
            if abs(np.int64(x[column]) - np.int64(y[column])) >= least:
                continue
            furthest = np.int64(0)
            for d in range(x.size):
                furthest = max(furthest, abs(np.int64(x[d]) - np.int64(y[d])))
            least = min(least, furthest)
            while k == 0 and abs(np.int64(x[column]) - np.int64(y[column])) < least:
                column += 1
        steps[i] = least


@kernel()
def index_words(words, sign, index):
    """index[i, d] = ordered index of words[i, d], unsigned bit patterns whose sign bit is the word `sign`."""
    for i in range(words.shape[0]):
        row = words[i]
        out = index[i]
        for d in range(row.size):
            code = np.int32(row[d] & ~sign)
            out[d] = -code if row[d] & sign else code


@intrinsic
def in_order(typingctx, x):
    """A number as an integer of its order: itself, or the bits of a float32, turned round below zero."""

    def codegen(context, builder, signature, args):
        if isinstance(x, types.Integer):
            return args[0]
        bits = builder.bitcast(args[0], ir.IntType(32))
        signs = builder.ashr(bits, ir.Constant(bits.type, 31))
        return builder.xor(bits, builder.and_(signs, ir.Constant(bits.type, 0x7FFFFFFF)))

    return (x if isinstance(x, types.Integer) else types.int32)(x), codegen


@kernel()
def profile(rows, centre, low, high, extremes):
    """Range of each column of rows [n, dim], and each row's largest and smallest deviation from `centre` by blocks.

    low and high [dim] are widened; extremes [n, 2 blocks] int32 has the largest, then the smallest, of each block of
    columns, clipped: whole numbers as they are, float32 as integers of their order.
    """
    dim = rows.shape[1]
    blocks = extremes.shape[1] // 2
    for i in range(rows.shape[0]):
        row = rows[i]
        for d in range(dim):
            low[d] = min(low[d], row[d])
            high[d] = max(high[d], row[d])
        for block in range(blocks):
            start = block * dim // blocks
            part = row[start : (block + 1) * dim // blocks]
            middle = centre[start:]
            largest = smallest = in_order(part[0] - middle[0])
            for d in range(part.size):
                deviation = in_order(part[d] - middle[d])
                largest, smallest = max(largest, deviation), min(smallest, deviation)
            extremes[i, block] = min(max(largest, -FURTHEST), FURTHEST)
            extremes[i, blocks + block] = min(max(smallest, -FURTHEST), FURTHEST)


@kernel()
def count_alike(ordered, reach, counts):
    """counts[d] = pairs of the ascending float64 values ordered[d] that are at most `reach` apart."""
    for d in range(ordered.shape[0]):
        values = ordered[d]
        first = 0
        for last in range(values.size):
            while values[last] - values[first] > reach:
                first += 1
            counts[d] += last - first
