"""Layers of a GPT-2 between its matrix products, forwards and backwards, compiled for one core.

Rows of activations are float32; or uint16 that hold bfloat16 words; or, for products in float32 of bfloat16 numbers,
uint32 that hold a float32's bits, rounded to bfloat16 where they are read and where they are written. All is computed
in float32. `reassoc` lets sums be vectorised: the same bits on one machine, not on all.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .compilation import kernel
from .rounding import bits_of, from_bits

FAST = {"reassoc", "contract", "nsz"}
WORD = ir.IntType(32)
SIXTEEN = ir.Constant(WORD, 16)


def _nearest(builder, bits):
    """Return the bits of a finite float32 rounded to bfloat16, to nearest even."""
    odd = builder.and_(builder.lshr(bits, SIXTEEN), ir.Constant(WORD, 1))
    bits = builder.add(builder.add(bits, ir.Constant(WORD, 0x7FFF)), odd)
    return builder.and_(bits, ir.Constant(WORD, 0xFFFF0000))


@intrinsic
def widen(typingctx, x):
    """The float32 that an entry holds."""

    def codegen(context, builder, signature, args):
        (kind,) = signature.args
        if kind == types.float32:
            return args[0]
        bits = _nearest(builder, args[0]) if kind == types.uint32 else builder.shl(builder.zext(args[0], WORD), SIXTEEN)
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(x), codegen


@intrinsic
def narrow(typingctx, value, like):
    """A finite float32 as an entry of the type of `like`: itself, or rounded to bfloat16."""

    def codegen(context, builder, signature, args):
        if signature.args[1] == types.float32:
            return args[0]
        bits = _nearest(builder, builder.bitcast(args[0], WORD))
        return bits if signature.args[1] == types.uint32 else builder.trunc(builder.lshr(bits, SIXTEEN), ir.IntType(16))

    return like(types.float32, like), codegen


@kernel(forceinline=True, fastmath=FAST)
def exp(x):
    """e**x of a float32 to 2e-7; 0 below -87, and the largest power of 2 above 88."""
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    n = np.rint(x * np.float32(1.4426950408889634))
    r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)  # Cody and Waite
    series = np.float32(1 / 5040)
    for term in (720, 120, 24, 6, 2, 1, 1):
        series = series * r + np.float32(1 / term)
    return series * from_bits(np.int32((np.int32(n) + 127) << 23))


@kernel(forceinline=True)
def in_order(bits):
    """A float32's bits as an integer in the order of the floats (whose largest is found in vectors), and back."""
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@kernel(fastmath=FAST)
def normalise(x, added, gain, shift, centred, eps, total, out, mean, scale):
    """total [n, dim] float32 = x + added; out = its rows over their deviation, times gain, plus shift.

    `centred`: their mean is taken off first (LayerNorm; else RMSNorm). mean and scale [n] are each row's.
    """
    n, dim = x.shape
    for i in range(n):
        row = total[i]
        level = np.float32(0)
        for d in range(dim):
            row[d] = x[i, d] + widen(added[i, d])
            level += row[d]
        m = level / np.float32(dim) if centred else np.float32(0)
        square = np.float32(0)
        for d in range(dim):
            square += (row[d] - m) * (row[d] - m)
        s = np.float32(1) / np.sqrt(square / np.float32(dim) + eps)
        mean[i] = m
        scale[i] = s
        for d in range(dim):
            out[i, d] = narrow((row[d] - m) * s * gain[d] + shift[d], out[i, d])


@kernel(fastmath=FAST)
def normalise_back(x, mean, scale, gain, centred, output_grad, grad, added_grad, gain_grad, shift_grad):
    """Add the gradients to grad [n, dim], gain_grad and shift_grad [dim]; added_grad gets grad, narrowed."""
    n, dim = x.shape
    for i in range(n):
        m = mean[i]
        s = scale[i]
        along = level = np.float32(0)
        for d in range(dim):
            unit = (x[i, d] - m) * s
            by = widen(output_grad[i, d])
            gain_grad[d] += by * unit
            shift_grad[d] += by
            along += by * gain[d] * unit
            level += by * gain[d]
        along /= np.float32(dim)
        level = level / np.float32(dim) if centred else np.float32(0)
        for d in range(dim):
            unit = (x[i, d] - m) * s
            grad[i, d] += s * (widen(output_grad[i, d]) * gain[d] - level - unit * along)
            added_grad[i, d] = narrow(grad[i, d], added_grad[i, d])


@kernel(fastmath=FAST)
def gelu(u, gelu_grad):
    """Replace u, flat, by GELU(u) in its tanh form, and write the derivative to gelu_grad."""
    k = np.float32(math.sqrt(2 / math.pi))
    cubic = np.float32(0.044715)
    half, one, two, three = np.float32(0.5), np.float32(1), np.float32(2), np.float32(3)
    for i in range(u.size):
        x = widen(u[i])
        tanh = one - two / (exp(two * k * (x + cubic * x * x * x)) + one)
        u[i] = narrow(half * x * (one + tanh), u[i])
        derivative = half * (one + tanh) + half * x * (one - tanh * tanh) * k * (one + three * cubic * x * x)
        gelu_grad[i] = narrow(derivative, gelu_grad[i])


@kernel(fastmath=FAST)
def gelu_back(output_grad, gelu_grad, sums):
    """Multiply output_grad [n, dim] by gelu_grad, and add the sums of its columns to sums [dim]."""
    for i in range(output_grad.shape[0]):
        for d in range(output_grad.shape[1]):
            by = widen(output_grad[i, d]) * widen(gelu_grad[i, d])
            output_grad[i, d] = narrow(by, output_grad[i, d])
            sums[d] += by


@kernel(fastmath=FAST)
def add_columns(x, sums):
    """Add the sums of the columns of x [n, dim] to sums [dim]."""
    for i in range(x.shape[0]):
        for d in range(x.shape[1]):
            sums[d] += widen(x[i, d])


@kernel()
def round_entries(x):
    """Round x, flat, to its type: uint32 that hold float32 bits to bfloat16."""
    for i in range(x.size):
        x[i] = narrow(widen(x[i]), x[i])


@kernel(fastmath=FAST)
def attend(scores, scale):
    """Replace scores [heads, t, t] by the softmax of scale * scores over positions up to each query's; 0 beyond."""
    heads, length, _ = scores.shape
    room = np.empty(length, np.float32)
    for h in range(heads):
        for i in range(length):
            row = scores[h, i]
            top = np.int32(-(2**31))
            for j in range(i + 1):
                room[j] = widen(row[j]) * scale
                top = max(top, in_order(bits_of(room[j])))
            most = from_bits(in_order(top))
            total = np.float32(0)
            for j in range(i + 1):
                room[j] = exp(room[j] - most)
                total += room[j]
            total = np.float32(1) / total
            for j in range(i + 1):
                row[j] = narrow(room[j] * total, row[j])
            for j in range(i + 1, length):
                row[j] = narrow(np.float32(0), row[j])


@kernel(fastmath=FAST)
def attend_back(probs, output_grad, scale):
    """Turn output_grad [heads, t, t], the gradient of the probabilities, into that of the scores."""
    heads, length, _ = probs.shape
    for h in range(heads):
        for i in range(length):
            p = probs[h, i]
            by = output_grad[h, i]
            along = np.float32(0)
            for j in range(i + 1):
                along += widen(p[j]) * widen(by[j])
            for j in range(i + 1):
                by[j] = narrow(widen(p[j]) * (widen(by[j]) - along) * scale, by[j])
            for j in range(i + 1, length):
                by[j] = narrow(np.float32(0), by[j])


@kernel(fastmath=FAST)
def cross_entropy(logits, labels, share):
    """Return the sum of the losses where a label is >= 0; logits [n, vocabulary] become share * their gradient."""
    n, vocabulary = logits.shape
    room = np.empty(vocabulary, np.float32)
    loss = 0.0
    for i in range(n):
        row = logits[i]
        if labels[i] < 0:
            for v in range(vocabulary):
                row[v] = narrow(np.float32(0), row[v])
            continue
        top = np.int32(-(2**31))
        for v in range(vocabulary):
            room[v] = widen(row[v])
            top = max(top, in_order(bits_of(room[v])))
        most = from_bits(in_order(top))
        right = np.float64(room[labels[i]] - most)
        total = np.float32(0)
        for v in range(vocabulary):
            room[v] = exp(room[v] - most)
            total += room[v]
        loss += math.log(np.float64(total)) - right
        for v in range(vocabulary):
            room[v] = room[v] / total
        room[labels[i]] -= np.float32(1)
        for v in range(vocabulary):
            row[v] = narrow(room[v] * share, row[v])
    return loss


@kernel()
def embed(ids, tokens, positions, out):
    """Write each token's row plus its position's to out [n, dim]; ids [batch, t]."""
    batch, length = ids.shape
    for b in range(batch):
        for t in range(length):
            row = out[b * length + t]
            token = tokens[ids[b, t]]
            position = positions[t]
            for d in range(row.size):
                row[d] = token[d] + position[d]


@kernel()
def embed_back(ids, grad, tokens, positions):
    """Add the gradient of the embedded rows to those of tokens and positions."""
    batch, length = ids.shape
    for b in range(batch):
        for t in range(length):
            row = grad[b * length + t]
            token = tokens[ids[b, t]]
            position = positions[t]
            for d in range(row.size):
                token[d] += row[d]
                position[d] += row[d]
