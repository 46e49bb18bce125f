"""Chebyshev distances of all pairs of rows, compiled: the kernels of `darkvocab.numerics.chebyshev`.

Rows are kept twice: as they come, [n, dim], and in tiles [tiles, dim, lanes], where one column of as many rows as fill
`TILE_BYTES` is contiguous. The inner loop holds the distances of one row to a tile in registers and visits only
listed columns. float32 values whose lower 16 bits are 0 (bfloat16 and all that it holds) are tiled by their upper 16.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .compilation import kernel
from .grouping import unite
from .rounding import bits_of, from_bits

TILE_BYTES = 128  # of one column of a tile: with 2,560 columns it fits into a second-level cache
MASKED = 64  # entries that one word of a mask stands for
LINE = 16  # columns of a row that are copied at a time: a line of the cache, half the time of 64 or of 8


def _raise_by(further: str) -> Callable[..., Any]:
    """A kernel: out[l] = max(out[l], d(tile[columns[k]] of lane l, values[k])) for start <= k < stop and all lanes l.

    d(a, b) is a - b (`further` "above"), b - a ("below") or the larger of them ("apart"). Written in vectors, because
    no loop over a small array is kept in registers by the compiler.
    """

    def codegen(context, builder, signature, args):
        def pointer(n: int) -> ir.Value:
            return context.make_array(signature.args[n])(context, builder, args[n]).data

        stored, number = (context.get_data_type(signature.args[n].dtype) for n in (0, 2))
        number_bytes = {ir.FloatType(): 4, ir.DoubleType(): 8}[number]
        packed = stored == ir.IntType(16)
        lanes = TILE_BYTES // number_bytes  # of one vector
        vector = ir.VectorType(number, lanes)
        int64 = ir.IntType(64)
        int32 = ir.IntType(32)
        words = ir.VectorType(int32, lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        of = ir.FunctionType(vector, [vector])
        magnitude = cgutils.get_or_insert_function(builder.module, of, f"llvm.fabs.v{lanes}f{8 * number_bytes}")

        def values_at(address: ir.Value) -> list[ir.Value]:
            """Return the lanes of a tile's column, in vectors."""
            if not packed:
                return [builder.load(builder.bitcast(address, vector.as_pointer()), align=number_bytes)]
            pairs = builder.load(builder.bitcast(address, words.as_pointer()), align=2)
            lower = builder.shl(pairs, ir.Constant(words, [16] * lanes))
            upper = builder.and_(pairs, ir.Constant(words, [0xFFFF0000] * lanes))
            return [builder.bitcast(half, vector) for half in (lower, upper)]

        tiles, places, theirs, targets = (pointer(n) for n in (0, 1, 2, 5))
        targets = builder.bitcast(targets, vector.as_pointer())
        targets = [builder.gep(targets, [ir.Constant(int64, n)]) for n in range(1 + packed)]
        furthest = [cgutils.alloca_once_value(builder, builder.load(at, align=number_bytes)) for at in targets]
        with cgutils.for_range(builder, args[4], start=args[3]) as loop:
            column = builder.sext(builder.load(builder.gep(places, [loop.index])), int64)
            number_of_row = builder.load(builder.gep(theirs, [loop.index]))
            number_of_row = builder.insert_element(undefined, number_of_row, ir.Constant(int32, 0))
            number_of_row = builder.shuffle_vector(number_of_row, undefined, ir.Constant(words, [0] * lanes))
            address = builder.gep(tiles, [builder.mul(column, ir.Constant(int64, lanes * len(targets)))])
            for place, entries in zip(furthest, values_at(address), strict=True):
                ends = (number_of_row, entries) if further == "below" else (entries, number_of_row)
                by = builder.fsub(*ends)
                most = builder.load(place)
                by = builder.call(magnitude, [by]) if further == "apart" else by
                builder.store(builder.select(builder.fcmp_ordered(">", by, most), by, most), place)
        for target, place in zip(targets, furthest, strict=True):
            builder.store(builder.load(place), target, align=number_bytes)
        return context.get_dummy_value()

    def typed(typingctx, tile, columns, values, start, stop, out):
        return types.void(tile, columns, values, types.int64, types.int64, out), codegen

    return intrinsic(typed)


raise_above, raise_below, raise_apart = (_raise_by(further) for further in ("above", "below", "apart"))


@kernel()
def fill_tiles(rows, tiles):
    """tiles[t, d, l] = rows[t * lanes + l, d], the last row again where there is none."""
    n, dim = rows.shape
    lanes = tiles.shape[2]
    for t in range(len(tiles)):
        for start in range(0, dim, LINE):
            for lane in range(lanes):
                row = rows[min(t * lanes + lane, n - 1)]
                for d in range(start, min(start + LINE, dim)):
                    tiles[t, d, lane] = row[d]


@kernel()
def fill_packed(rows, pairs):
    """Fill tiles with float32's upper halves: pairs[t, d, l] uint32 has lane l and, above, l + lanes / 2."""
    n, dim = rows.shape
    half = pairs.shape[2]
    for t in range(len(pairs)):
        for start in range(0, dim, LINE):
            for lane in range(half):
                lower = rows[min(2 * t * half + lane, n - 1)]
                upper = rows[min(2 * t * half + lane + half, n - 1)]
                for d in range(start, min(start + LINE, dim)):
                    low, high = np.uint32(bits_of(lower[d])), np.uint32(bits_of(upper[d]))
                    pairs[t, d, lane] = (low >> np.uint32(16)) | (high & np.uint32(0xFFFF0000))


@intrinsic
def masks_outside(typingctx, row, low, high, start):
    """Two words whose bit l says that row[start + l] is below low[start + l], or above high[start + l], for l < MASKED.

    Written in vectors, because the compiler finds no other way to skip the many entries that lie inside.
    """
    signature = types.UniTuple(types.uint64, 2)(row, low, high, types.int64)

    def codegen(context, builder, signature, args):
        vector = ir.VectorType(context.get_data_type(signature.args[0].dtype), MASKED)

        def entries(n: int) -> ir.Value:
            address = builder.gep(context.make_array(signature.args[n])(context, builder, args[n]).data, [args[3]])
            return builder.load(builder.bitcast(address, vector.as_pointer()), align=4)

        values = entries(0)
        masks = [builder.fcmp_ordered(sign, values, entries(n)) for sign, n in (("<", 1), (">", 2))]
        masks = [builder.bitcast(mask, ir.IntType(MASKED)) for mask in masks]
        return context.make_tuple(builder, signature.return_type, masks)

    return signature, codegen


@intrinsic
def lowest_bit(typingctx, bits):
    """Return the place of the lowest bit that is set in uint64 `bits`, which are not all 0."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@kernel()
def list_outside(rows, low, high, starts, columns, values):
    """Columns and values of the entries below low and above high of their column: starts [2 n + 1] of each row's.

    Row after row, first those below, then those above. Returns how many there are, of which the first are listed.
    """
    n, dim = rows.shape
    count = 0
    above = np.empty((dim + MASKED - 1) // MASKED, np.uint64)
    for i in range(n):
        row = rows[i]
        starts[2 * i] = count
        for word in range(above.size):
            start = word * MASKED
            below = np.uint64(0)
            if start + MASKED <= dim:
                below, above[word] = masks_outside(row, low, high, start)
            else:
                above[word] = 0
                for d in range(start, dim):
                    below |= np.uint64(row[d] < low[d]) << np.uint64(d - start)
                    above[word] |= np.uint64(row[d] > high[d]) << np.uint64(d - start)
            count = _list(row, below, start, count, columns, values)
        starts[2 * i + 1] = count
        for word in range(above.size):
            count = _list(row, above[word], word * MASKED, count, columns, values)
    starts[2 * n] = count
    return count


@kernel(forceinline=True)
def _list(row, bits, start, count, columns, values):
    while bits:
        d = start + lowest_bit(bits)
        bits &= bits - np.uint64(1)
        if count < columns.size:
            columns[count] = d
            values[count] = row[d]
        count += 1
    return count


@kernel()
def _distance(a, b):
    top = bits_of(a[0] - a[0])  # lengths in the order of their bits: integers, because a compiler reorders no floats
    for d in range(a.size):
        top = max(top, bits_of(abs(a[d] - b[d])))
    return from_bits(top)


@kernel()
def _settle(row, rows, width, out):
    """Compare `row` in full with the rows whose distance so far is below `width`."""
    near = False
    for j in range(out.size):
        near |= out[j] < width
    if near:
        for j in range(out.size):
            if out[j] < width:
                out[j] = _distance(row, rows[j])


@kernel(forceinline=True)
def _raise(tile, starts, i, columns, values, out):
    """Raise the distances of row i to a tile by its listed entries: how far below others, how far above others it is.

    Where the other is lower still, or higher, it lists the column too.
    """
    raise_above(tile, columns, values, starts[2 * i], starts[2 * i + 1], out)
    raise_below(tile, columns, values, starts[2 * i + 1], starts[2 * i + 2], out)


@kernel()
def stream(tiles, lanes, rows, starts, columns, values, width, out):
    """Distances of rows 0..m to later rows of 0..n, from the listed entries: the part of `out` above its diagonal.

    starts [2 n + 1]; out [m, tiles * lanes], zeros. A pair is as far apart as the entries of either row make it, the
    later row's first; pairs that come out nearer than `width` may differ most in a column that neither lists.
    """
    n = len(rows)
    m = len(out)
    square = np.empty((lanes, lanes), out.dtype)
    for t in range(len(tiles)):
        tile = tiles[t]
        first = t * lanes
        last = min((t + 1) * lanes, n)
        for i in range(min(m, first)):
            distances = out[i, first:last]
            _raise(tile, starts, i, columns, values, distances)
            _settle(rows[i], rows[first:last], width, distances)
        if first >= m:
            continue
        for start in range(first, n, lanes):  # to where they are found again above the diagonal
            stop = min(start + lanes, n)
            square[:] = 0
            for i in range(start, stop):
                _raise(tile, starts, i, columns, values, square[i - start])
            if start > first:
                for j in range(first, min(last, m)):
                    for i in range(start, stop):
                        out[j, i] = square[i - start, j - first]
            else:
                for j in range(first, min(last, m)):
                    for i in range(j + 1, last):
                        out[j, i] = max(square[i - start, j - first], square[j - first, i - start])
                    _settle(rows[j], rows[j + 1 : last], width, out[j, j + 1 : last])


@kernel()
def stream_all(tiles, lanes, rows, all_columns, out):
    """Distances of rows 0..m to rows of the same and later tiles, from every column; out as in `stream`."""
    for t in range(len(tiles)):
        for i in range(min(len(out), (t + 1) * lanes)):
            raise_apart(tiles[t], all_columns, rows[i], 0, rows.shape[1], out[i, t * lanes : (t + 1) * lanes])


@kernel()
def tally(keys, first, weights, bins):
    """Tally the pairs of rows `first`.. and later ones by their keys, and return the largest key.

    keys [m, >= n - first] unsigned integers in the order of the distances, weights [n] (a pair counts as the product of
    its rows'); bins [key >> 16] are raised by how many pairs they get, and by the sum of these keys' lower 16 bits.
    """
    largest = keys[0, 0] ^ keys[0, 0]
    for i in range(keys.shape[0]):
        its_keys = keys[i, i + 1 : weights.size - first]
        its_weights = weights[first + i + 1 :]
        for j in range(its_keys.size):
            largest = max(largest, its_keys[j])
        for j in range(its_keys.size):
            key = np.uint64(its_keys[j])
            weight = weights[first + i] * its_weights[j]
            bins[key >> np.uint64(16), 0] += weight
            bins[key >> np.uint64(16), 1] += weight * np.int64(key & np.uint64(0xFFFF))
    return largest


@kernel()
def tally_within(keys, first, weights, bin, low):
    """low[key & 0xFFFF] counts the pairs whose key >> 16 is `bin`; otherwise as `tally`."""
    for i in range(keys.shape[0]):
        its_keys = keys[i, i + 1 : weights.size - first]
        its_weights = weights[first + i + 1 :]
        for j in range(its_keys.size):
            if its_keys[j] >> 16 == bin:
                low[its_keys[j] & 0xFFFF] += weights[first + i] * its_weights[j]


@kernel()
def count_near(block, first, weights, limit):
    """Pairs of rows `first`.. and later ones at a distance <= limit, each counted as in `tally`."""
    count = 0
    for i in range(block.shape[0]):
        row = block[i, i + 1 : weights.size - first]
        its_weights = weights[first + i + 1 :]
        near = False
        for j in range(row.size):
            near |= row[j] <= limit
        if near:
            tokens = 0
            for j in range(row.size):
                tokens += its_weights[j] * (row[j] <= limit)
            count += weights[first + i] * tokens
    return count


@kernel()
def connect(block, first, weights, limit, degrees, parent):
    """Add to the degrees what pairs <= limit of rows `first`.. and later ones contribute, and unite their sets.

    Sets lie in `parent` [n], as in `grouping`; a pair counts as in `tally`.
    """
    for i in range(block.shape[0]):
        one = first + i
        row = block[i, i + 1 : weights.size - first]
        its_weights = weights[one + 1 :]
        its_degrees = degrees[one + 1 :]
        its_parents = parent[one + 1 :]
        near = False
        for j in range(row.size):
            near |= row[j] <= limit
        if not near:
            continue
        tokens = 0
        apart = False
        for j in range(row.size):
            is_near = row[j] <= limit
            tokens += its_weights[j] * is_near
            its_degrees[j] += weights[one] * is_near
            apart |= is_near & (its_parents[j] != parent[one])
        degrees[one] += tokens
        for j in range(row.size if apart else 0):
            if row[j] <= limit and its_parents[j] != parent[one]:
                unite(parent, one, one + 1 + j)


@kernel()
def fit_windows(ordered, width, low, high):
    """Place a window no wider than `width` over most of each column's values: ordered [dim, n] ascending.

    Ends go to low and high [dim]; returns how many values are left outside. A window's width is what subtraction in
    the values' own type gives, so that no two values inside are farther apart than `width` in that type.
    """
    outside = 0
    n = ordered.shape[1]
    for d in range(ordered.shape[0]):
        values = ordered[d]
        best = start = first = 0
        span = width
        for last in range(n):
            while values[last] - values[first] > width:
                first += 1
            extent = values[last] - values[first]
            if last - first + 1 > best or (last - first + 1 == best and extent < span):
                best, start, span = last - first + 1, first, extent
        low[d] = values[start] - (width - span) / 2
        high[d] = low[d] + width
        while high[d] - low[d] > width:
            high[d] = np.nextafter(high[d], low[d])
        outside += n - best
    return outside


@kernel()
def list_pairs(block, later, out):
    """Write to `out` the entries of a block of rows and `later` columns above its diagonal, row after row."""
    at = 0
    for i in range(block.shape[0]):
        for j in range(i + 1, later):
            out[at] = block[i, j]
            at += 1
