"""Chebyshev distances of all pairs of rows, compiled: what `darkvocab.numerics.chebyshev` composes.

Rows are kept twice: as they come, [n, dim], and in tiles [tiles, dim, LANES], where one column of `LANES` rows is
contiguous. The inner loop holds the distances of one row to a tile in registers and visits the columns that it is told.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 32  # rows of a tile: its part of 2,560 float32 columns fits into a second-level cache


@intrinsic
def raise_to(typingctx, tile, columns, values, start, stop, out):  # type: ignore[no-untyped-def]
    """out[l] = max(out[l], abs(tile[columns[k], l] - values[k])) for start <= k < stop and all `LANES` l.

    Written in vectors, because no loop over a small array is kept in registers by the compiler.
    """
    signature = types.void(tile, columns, values, types.int64, types.int64, out)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        def pointer(n: int) -> ir.Value:
            return context.make_array(signature.args[n])(context, builder, args[n]).data

        number = context.get_data_type(signature.args[0].dtype)
        bits = {ir.FloatType(): 32, ir.DoubleType(): 64}[number]
        vector, int64, lane = ir.VectorType(number, LANES), ir.IntType(64), ir.IntType(32)
        undefined = ir.Constant(vector, ir.Undefined)
        absolute = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector]), f"llvm.fabs.v{LANES}f{bits}"
        )
        tiles, places, theirs = pointer(0), pointer(1), pointer(2)
        target = builder.bitcast(pointer(5), vector.as_pointer())
        before = builder.load(target, align=bits // 8)
        entry, head = builder.block, builder.append_basic_block("columns")
        body, done = builder.append_basic_block("column"), builder.append_basic_block("columns.done")
        builder.branch(head)

        builder.position_at_end(head)
        k, furthest = builder.phi(int64), builder.phi(vector)
        k.add_incoming(args[3], entry)
        furthest.add_incoming(before, entry)
        builder.cbranch(builder.icmp_signed("<", k, args[4]), body, done)

        builder.position_at_end(body)
        column = builder.sext(builder.load(builder.gep(places, [k])), int64)
        here = builder.insert_element(undefined, builder.load(builder.gep(theirs, [k])), ir.Constant(lane, 0))
        here = builder.shuffle_vector(here, undefined, ir.Constant(ir.VectorType(lane, LANES), [0] * LANES))
        address = builder.gep(tiles, [builder.mul(column, ir.Constant(int64, LANES))])
        there = builder.load(builder.bitcast(address, vector.as_pointer()), align=bits // 8)
        apart = builder.call(absolute, [builder.fsub(there, here)])
        further = builder.select(builder.fcmp_ordered(">", apart, furthest), apart, furthest)
        k.add_incoming(builder.add(k, ir.Constant(int64, 1)), body)
        furthest.add_incoming(further, body)
        builder.branch(head)

        builder.position_at_end(done)
        builder.store(furthest, target, align=bits // 8)
        return context.get_dummy_value()

    return signature, codegen


@njit(nogil=True, cache=True)
def column_range(x, low, high):  # type: ignore[no-untyped-def]
    """Smallest and largest value of each column of x [n >= 1, dim]."""
    for d in range(x.shape[1]):
        low[d] = high[d] = x[0, d]
    for i in range(1, x.shape[0]):
        for d in range(x.shape[1]):
            low[d] = min(low[d], x[i, d])
            high[d] = max(high[d], x[i, d])


@njit(nogil=True, cache=True)
def fill_tiles(rows, tiles):  # type: ignore[no-untyped-def]
    """tiles[t, d, l] = rows[t * LANES + l, d], the last row again where there is none."""
    n = rows.shape[0]
    for t in range(tiles.shape[0]):
        for start in range(0, rows.shape[1], 64):
            stop = min(start + 64, rows.shape[1])
            for lane in range(LANES):
                row = rows[min(t * LANES + lane, n - 1)]
                for d in range(start, stop):
                    tiles[t, d, lane] = row[d]


@njit(nogil=True, cache=True)
def list_outside(rows, low, high, starts, columns, values):  # type: ignore[no-untyped-def]
    """Columns and values of the entries outside [low, high] of their column, row after row; starts [n + 1] of each row.

    Returns how many there are; where that is not less than the room given, the lists are not whole.
    """
    room = columns.size - 1
    count = 0
    for i in range(rows.shape[0]):
        starts[i] = count
        row = rows[i]
        for d in range(row.size):
            at = min(count, room)
            columns[at] = d
            values[at] = row[d]
            count += (row[d] < low[d]) | (row[d] > high[d])
    starts[rows.shape[0]] = count
    return count


@njit(nogil=True, cache=True)
def stream(tiles, starts, columns, values, row, out):  # type: ignore[no-untyped-def]
    """Raise the distances of rows `row`.. to all rows of `tiles` by their listed columns: out [rows, tiles * LANES]."""
    for t in range(tiles.shape[0]):
        for i in range(out.shape[0]):
            here = out[i, t * LANES : (t + 1) * LANES]
            raise_to(tiles[t], columns, values, starts[row + i], starts[row + i + 1], here)


@njit(nogil=True, cache=True)
def stream_all(tiles, rows, all_columns, out):  # type: ignore[no-untyped-def]
    """Raise the distances of rows 0.. to rows of the same and later tiles by every column."""
    for t in range(tiles.shape[0]):
        for i in range(min(out.shape[0], (t + 1) * LANES)):
            raise_to(tiles[t], all_columns, rows[i], 0, rows.shape[1], out[i, t * LANES : (t + 1) * LANES])


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"}, inline="always")
def _distance(a, b):  # type: ignore[no-untyped-def]
    top = a[0] * 0
    for d in range(a.size):
        top = max(top, abs(a[d] - b[d]))
    return top


@njit(nogil=True, cache=True)
def settle(rows, later, width, out):  # type: ignore[no-untyped-def]
    """Make the upper triangle of `out` final: distances of rows 0..m to rows 0..n.

    out [m, >= n] and later [n - m, >= m] hold what the listed columns of the first and of the second row gave. Pairs
    nearer than `width` may differ most in a column that neither listed: they are compared in full.
    """
    m, n = out.shape[0], rows.shape[0]
    for block in range(0, n, LANES):
        for i in range(min(m, block + LANES)):
            for j in range(max(i + 1, block), min(n, block + LANES)):
                top = max(out[i, j], out[j, i] if j < m else later[j - m, i])
                if top < width:
                    top = _distance(rows[i], rows[j])
                out[i, j] = top


@njit(nogil=True, cache=True)
def tally(block, keys, first, weights, alike, high):  # type: ignore[no-untyped-def]
    """Largest distance, and the sum over pairs, of rows `first`.. to later ones; high[key >> 16] counts the pairs.

    block [m, >= n - first] distances, keys [same] unsigned integers of the same order, weights [n] (a pair counts as
    the product of its rows'); `alike`: all weights are 1.
    """
    largest = block[0, 0] * 0
    total = 0.0
    n = weights.size - first
    for i in range(block.shape[0]):
        here = 0.0
        row, its_keys, its_weights = block[i, i + 1 : n], keys[i, i + 1 : n], weights[first + i + 1 :]
        if alike:
            for j in range(row.size):
                largest = max(largest, row[j])
                here += np.float64(row[j])
                high[its_keys[j] >> 16] += 1
        else:
            for j in range(row.size):
                weight = weights[first + i] * its_weights[j]
                largest = max(largest, row[j])
                here += row[j] * np.float64(weight)
                high[its_keys[j] >> 16] += weight
        total += here
    return largest, total


@njit(nogil=True, cache=True)
def tally_within(keys, first, weights, bin, low):  # type: ignore[no-untyped-def]
    """low[key & 0xFFFF] counts the pairs whose key >> 16 is `bin`; otherwise as `tally`."""
    for i in range(keys.shape[0]):
        its_keys, its_weights = keys[i, i + 1 : weights.size - first], weights[first + i + 1 :]
        for j in range(its_keys.size):
            if its_keys[j] >> 16 == bin:
                low[its_keys[j] & 0xFFFF] += weights[first + i] * its_weights[j]


@njit(nogil=True, cache=True)
def count_near(block, first, weights, limit):  # type: ignore[no-untyped-def]
    """Pairs of rows `first`.. and later ones at a distance <= limit, each counted as in `tally`."""
    count = 0
    for i in range(block.shape[0]):
        row, its_weights = block[i, i + 1 : weights.size - first], weights[first + i + 1 :]
        near = False
        for j in range(row.size):
            near |= row[j] <= limit
        if near:
            here = 0
            for j in range(row.size):
                here += its_weights[j] * (row[j] <= limit)
            count += weights[first + i] * here
    return count


@njit(nogil=True, cache=True)
def connect(block, first, weights, limit, degrees, nearest, edges):  # type: ignore[no-untyped-def]
    """Add to the degrees what pairs <= limit of rows `first`.. and later ones contribute; list edges that connect.

    nearest [n]: the first row met that a row is near to, -1 where none was. Returns how many edges were listed.
    """
    at = 0
    for i in range(block.shape[0]):
        one = first + i
        for j in range(i + 1, weights.size - first):
            if block[i, j] <= limit:
                other = first + j
                degrees[one] += weights[other]
                degrees[other] += weights[one]
                if nearest[other] < 0:
                    nearest[other] = one
                elif nearest[one] == nearest[other]:
                    continue
                edges[0, at] = one
                edges[1, at] = other
                at += 1
    return at


@njit(nogil=True, cache=True)
def find_rank(counts, rank):  # type: ignore[no-untyped-def]
    """In which bin the item of this rank from 0 lies, and its rank there."""
    bin = 0
    while rank >= counts[bin]:
        rank -= counts[bin]
        bin += 1
    return bin, rank


@njit(nogil=True, cache=True)
def fit_windows(ordered, width, low, high):  # type: ignore[no-untyped-def]
    """Place a window no wider than `width` over most of each column's values: ordered [dim, n] ascending.

    Ends go to low and high [dim]; returns how many values are left outside. A window's width is what subtraction in
    the values' own type gives, so that no two values inside are farther apart than `width` in that type.
    """
    outside = 0
    n = ordered.shape[1]
    for d in range(ordered.shape[0]):
        values = ordered[d]
        best, start, first = 0, 0, 0
        span = width
        for last in range(n):
            while values[last] - values[first] > width:
                first += 1
            here = values[last] - values[first]
            if last - first + 1 > best or (last - first + 1 == best and here < span):
                best, start, span = last - first + 1, first, here
        low[d] = values[start] - (width - span) / 2
        high[d] = low[d] + width
        while high[d] - low[d] > width:
            high[d] = np.nextafter(high[d], low[d])
        outside += n - best
    return outside


@njit(nogil=True, cache=True)
def list_pairs(block, later, out):  # type: ignore[no-untyped-def]
    """The entries of a block of rows and `later` columns above its diagonal, row after row."""
    at = 0
    for i in range(block.shape[0]):
        for j in range(i + 1, later):
            out[at] = block[i, j]
            at += 1
