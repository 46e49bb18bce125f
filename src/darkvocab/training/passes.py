"""Loss and gradient of a GPT-2 on a CPU, written out: the library's products, and our own loops between them.

The plain twin is transformers' model with autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..numerics.grouping import n_cores
from .choices import Architecture

EPS = np.float32(1e-5)  # of the norms
MOST_BLOCKS = 8  # beyond, Python's lock and small products eat what more cores bring


def array(tensor: Any) -> np.ndarray:
    """A tensor's own memory; of bfloat16 the words."""
    import torch

    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.element_size() == 2 else tensor.numpy()


def multiplies_bfloat16(torch: Any) -> bool:
    """Tell whether torch has a library for products of bfloat16, which takes AVX-512 or Arm's BF16, or plain loops."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _in_float32(torch: Any) -> SimpleNamespace:
    """Make torch's products of bfloat16 matrices from those of float32: sums in float32, rounded once.

    Where bfloat16 has no library, this takes a thirtieth of the time.
    """

    def widened(product: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *factors, out: out.copy_(product(*(factor.float() for factor in factors)))

    return SimpleNamespace(**{name: widened(getattr(torch, name)) for name in ("mm", "addmm", "bmm", "baddbmm")})


class Passes:
    """Forwards and backwards through a model, its batch cut into `n_blocks`, by default one for every core up to 8.

    Products are of bfloat16 numbers, or of float32; sums, norms, softmax and GELU are float32. The blocks' gradients
    are added up in their order, so that the result depends on how many there are, in its last bits, and on no cores.
    """

    def __init__(
        self,
        architecture: Architecture,
        places: dict[str, tuple[slice, Any]],
        weights: Any,
        gradient: Any,
        dtype: Any,
        cores: int | None = None,
    ) -> None:
        """
        Parameters
        ----------
        places : of the model's parameters, by their names: part of the vectors, shape
        weights, gradient : one float32 vector each, of all parameters
        dtype : torch.bfloat16 or torch.float32, of the products
        cores : to work on, by default all there are
        """
        self._architecture, self._places = architecture, places
        self._weights, self._gradient = weights, gradient
        self._narrow = weights.to(dtype)  # of float32 it is the weights
        self._cores = cores or n_cores()
        self.n_blocks = min(n_cores(), MOST_BLOCKS)
        self._blocks: list[_Block] = []
        self._shape: tuple[int, ...] = ()
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, inputs: np.ndarray, labels: np.ndarray) -> float:
        """Mean loss of a batch [batch, context] of inputs and transformers' labels; its gradient into `gradient`."""
        if (*inputs.shape, self.n_blocks) != self._shape:
            self._cut(*inputs.shape)
        if self._narrow is not self._weights:
            self._narrow.copy_(self._weights)
        at = 0
        for block in self._blocks:
            block.take(inputs[at : at + len(block.ids)], labels[at : at + len(block.ids)])
            at += len(block.ids)
        total = sum(self._run())
        self._gradient.copy_(self._blocks[0].gradient)
        for block in self._blocks[1:]:
            self._gradient.add_(block.gradient)
        return total / (labels.shape[0] * (labels.shape[1] - 1))

    def _run(self) -> list[float]:
        """Run the blocks, here and on the other cores; their losses, in order."""
        if self._cores == 1 or len(self._blocks) == 1:
            return [block.run() for block in self._blocks]
        assert self._pool is not None
        first, *others = self._blocks
        futures = [self._pool.submit(block.run) for block in others]
        losses = [first.run(), *(math.nan for _ in others)]
        for number in reversed(range(len(others))):  # the other cores begin at the front
            mine = futures[number].cancel()
            losses[number + 1] = others[number].run() if mine else futures[number].result()
        return losses

    def _cut(self, batch: int, length: int) -> None:
        import torch

        settings = self._architecture, self._places, self._weights, self._narrow
        share = np.float32(1 / (batch * (length - 1)))
        parts = np.array_split(np.arange(batch), min(batch, self.n_blocks))
        self._blocks = [_Block(torch, *settings, len(part), length, share) for part in parts]
        others = max(1, min(self._cores, len(parts)) - 1)  # threads beside the caller's
        self._pool = ThreadPoolExecutor(others, initializer=torch.set_num_threads, initargs=(1,))
        self._shape = batch, length, self.n_blocks


def named(vector: Any, places: dict[str, tuple[slice, Any]]) -> dict[str, Any]:
    """Views of the parameters in a vector of all."""
    return {name: vector[part].view(shape) for name, (part, shape) in places.items()}


class _Norm:
    """What a norm keeps for the way back."""

    def __init__(self, torch: Any, n: int, width: int, dtype: Any) -> None:
        self.total = torch.empty(n, width).numpy()
        self.out = torch.empty(n, width, dtype=dtype)
        self.mean, self.scale = np.empty(n, np.float32), np.empty(n, np.float32)


class _Block:
    """Some sequences of the batch: room for all that the way back needs, and the calls that fill it.

    The calls and their arguments are made once, so that Python, whose lock the cores share, has next to nothing to do
    between them.
    """

    def __init__(
        self,
        torch: Any,
        architecture: Architecture,
        places: dict[str, tuple[slice, Any]],
        weights: Any,
        narrow: Any,
        batch: int,
        length: int,
        share: np.float32,
    ) -> None:
        is_fast = narrow.dtype == torch.float32 or multiplies_bfloat16(torch)
        self._torch, self._architecture = torch if is_fast else _in_float32(torch), architecture
        width, heads = architecture.width, architecture.heads
        n, layers = batch * length, range(architecture.layers)
        self._batch, self._length = batch, length
        self.ids, self._targets = np.empty((batch, length), np.int64), np.empty((batch, length), np.int64)
        self.gradient = torch.zeros_like(weights)
        self._narrow = named(narrow, places)
        self._values = {name: array(weight) for name, weight in named(weights, places).items()}
        self._sums = {name: array(gradient) for name, gradient in named(self.gradient, places).items()}

        def room(*shape: int) -> Any:
            return torch.empty(shape, dtype=narrow.dtype)

        self._norms = [_Norm(torch, n, width, narrow.dtype) for _ in range(2 * architecture.layers + 1)]
        size = width // heads
        self._apart = [room(3 * heads, n, size) for _ in layers]
        self._chances = [room(heads * batch, length, length) for _ in layers]
        self._mixed = [room(n, width) for _ in layers]
        self._inner, self._slope = ([room(n, 4 * width) for _ in layers] for _ in range(2))
        self._start = torch.empty(n, width).numpy()
        self._nothing, self._added, self._passed, self._pushed = (room(n, width) for _ in range(4))
        self._nothing.zero_()
        self._push = torch.empty(n, width)
        self._wide, self._pushed_qkv = room(n, 4 * width), room(n, 3 * width)
        self._head, self._pushed_apart = room(heads, n, size), room(3 * heads, n, size)
        self._pushed_chances = room(heads * batch, length, length)
        self._level = np.zeros(width, np.float32)  # RMSNorm's shift, and where its gradient goes
        self._logits = room(n, self._narrow["transformer.wte.weight"].shape[0])
        self._product = torch.zeros_like(narrow)  # gradients of products' weights
        self._products = named(self._product, places)
        self._loss = 0.0
        self._calls: list[Callable[[], Any]] = []
        self._write_out(share)

    def take(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        """The block's sequences of a batch, labels as transformers takes them."""
        self.ids[:] = inputs
        self._targets[:, :-1], self._targets[:, -1] = labels[:, 1:], -1

    def run(self) -> float:
        """Sum of the losses; the gradient of `share` times it into `gradient`."""
        for call in self._calls:
            call()
        return self._loss

    # The calls, in their order ----------------------------------------------------------------------------------

    def _then(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        self._calls.append(partial(function, *arguments, **named))

    def _write_out(self, share: np.float32) -> None:
        from ..numerics._backends.layers import embed, embed_back

        torch, layers = self._torch, self._architecture.layers
        tokens, places = "transformer.wte.weight", "transformer.wpe.weight"
        self._then(self.gradient.zero_)
        self._then(embed, self.ids, self._values[tokens], self._values[places], self._start)
        x, added = self._start, self._nothing
        for layer in range(layers):
            x = self._normalise(2 * layer, f"transformer.h.{layer}.ln_1", x, added)
            added = self._attend(layer)
            x = self._normalise(2 * layer + 1, f"transformer.h.{layer}.ln_2", x, added)
            added = self._expand(layer)
        self._normalise(2 * layers, "transformer.ln_f", x, added)
        head = "lm_head.weight" if "lm_head.weight" in self._narrow else tokens
        last, logits = self._norms[-1].out, self._logits
        self._then(torch.mm, last, self._narrow[head].t(), out=logits)
        self._then(self._score, share)
        self._multiply_back(logits.t(), last, head)
        self._then(torch.mm, logits, self._narrow[head], out=self._pushed)
        self._then(self._push.zero_)
        self._normalise_back(2 * layers, "transformer.ln_f")
        for layer in reversed(range(layers)):
            self._expand_back(layer)
            self._normalise_back(2 * layer + 1, f"transformer.h.{layer}.ln_2")
            self._attend_back(layer)
            self._normalise_back(2 * layer, f"transformer.h.{layer}.ln_1")
        self._then(embed_back, self.ids, array(self._push), self._sums[tokens], self._sums[places])
        self._then(self.gradient.add_, self._product)

    def _score(self, share: np.float32) -> None:
        from ..numerics._backends.layers import cross_entropy

        self._loss = cross_entropy(array(self._logits), self._targets.reshape(-1), share)

    # Norms ------------------------------------------------------------------------------------------------------

    @property
    def _centred(self) -> bool:
        return self._architecture.norm == "layernorm"

    def _normalise(self, number: int, name: str, x: np.ndarray, added: Any) -> np.ndarray:
        from ..numerics._backends.layers import normalise

        norm = self._norms[number]
        gain, shift = self._values[f"{name}.weight"], self._values.get(f"{name}.bias", self._level)
        where = norm.total, array(norm.out), norm.mean, norm.scale
        self._then(normalise, x, array(added), gain, shift, self._centred, EPS, *where)
        return norm.total

    def _normalise_back(self, number: int, name: str) -> None:
        """From the gradient of a norm's output, in `_pushed`, to that of what flows past it, in `_push`, `_passed`."""
        from ..numerics._backends.layers import normalise_back

        norm = self._norms[number]
        sums = self._sums[f"{name}.weight"], self._sums.get(f"{name}.bias", np.empty_like(self._level))
        how = norm.total, norm.mean, norm.scale, self._values[f"{name}.weight"], self._centred
        self._then(normalise_back, *how, array(self._pushed), array(self._push), array(self._passed), *sums)

    # Layers -----------------------------------------------------------------------------------------------------

    def _multiply(self, x: Any, name: str, out: Any) -> Any:
        self._then(self._torch.addmm, self._narrow[f"{name}.bias"], x, self._narrow[f"{name}.weight"], out=out)
        return out

    def _multiply_back(self, x: Any, pushed: Any, weight: str) -> None:
        """Gradient of a product's weights, x @ pushed."""
        self._then(self._torch.mm, x, pushed, out=self._products[weight])

    def _linear_back(self, pushed: Any, x: Any, name: str, out: Any) -> None:
        """Gradients of a layer's weights from that of its output, and into `out` that of its input."""
        self._multiply_back(x.t(), pushed, f"{name}.weight")
        self._then(self._torch.mm, pushed, self._narrow[f"{name}.weight"].t(), out=out)

    def _add_columns(self, pushed: Any, name: str) -> None:
        from ..numerics._backends.layers import add_columns

        self._then(add_columns, array(pushed), self._sums[f"{name}.bias"])

    def _expand(self, layer: int) -> Any:
        from ..numerics._backends.layers import gelu

        name = f"transformer.h.{layer}.mlp"
        inner = self._multiply(self._norms[2 * layer + 1].out, f"{name}.c_fc", self._inner[layer])
        self._then(gelu, array(inner).reshape(-1), array(self._slope[layer]).reshape(-1))
        return self._multiply(inner, f"{name}.c_proj", self._added)

    def _expand_back(self, layer: int) -> None:
        from ..numerics._backends.layers import gelu_back

        name = f"transformer.h.{layer}.mlp"
        self._add_columns(self._passed, f"{name}.c_proj")
        self._linear_back(self._passed, self._inner[layer], f"{name}.c_proj", self._wide)
        self._then(gelu_back, array(self._wide), array(self._slope[layer]), self._sums[f"{name}.c_fc.bias"])
        self._linear_back(self._wide, self._norms[2 * layer + 1].out, f"{name}.c_fc", self._pushed)

    # Attention: queries, keys and values lie apart, head by head, so that all heads' products are one call.

    def _scale(self) -> np.float32:
        return np.float32((self._architecture.width // self._architecture.heads) ** -0.5)

    def _sequences(self, apart: Any) -> Any:
        """Of [heads, n, size]: [heads * batch, t, size]."""
        return apart.view(-1, self._length, apart.shape[-1])

    def _attend(self, layer: int) -> Any:
        from ..numerics._backends.layers import attend

        torch, name = self._torch, f"transformer.h.{layer}.attn"
        x, apart, chances = self._norms[2 * layer].out, self._apart[layer], self._chances[layer]
        kinds, n, size = apart.shape
        weight = self._narrow[f"{name}.c_attn.weight"].view(-1, kinds, size).transpose(0, 1)
        bias = self._narrow[f"{name}.c_attn.bias"].view(kinds, 1, size)
        self._then(torch.baddbmm, bias, x.expand(kinds, *x.shape), weight, out=apart)
        queries, keys, values = (self._sequences(part) for part in apart.chunk(3))
        self._then(torch.bmm, queries, keys.transpose(1, 2), out=chances)
        self._then(attend, array(chances), self._scale())
        self._then(torch.bmm, chances, values, out=self._sequences(self._head))
        self._then(self._mixed[layer].view(n, -1, size).copy_, self._head.transpose(0, 1))
        return self._multiply(self._mixed[layer], f"{name}.c_proj", self._added)

    def _attend_back(self, layer: int) -> None:
        from ..numerics._backends.layers import attend_back

        torch, name = self._torch, f"transformer.h.{layer}.attn"
        chances, pushed = self._chances[layer], self._pushed_chances
        heads, n, size = self._head.shape
        self._add_columns(self._passed, f"{name}.c_proj")
        self._multiply_back(self._mixed[layer].t(), self._passed, f"{name}.c_proj.weight")
        weight = self._narrow[f"{name}.c_proj.weight"].view(heads, size, -1).transpose(1, 2)
        self._then(torch.bmm, self._passed.expand(heads, *self._passed.shape), weight, out=self._head)
        head = self._sequences(self._head)
        queries, keys, values = (self._sequences(part) for part in self._apart[layer].chunk(3))
        to_queries, to_keys, to_values = (self._sequences(part) for part in self._pushed_apart.chunk(3))
        self._then(torch.bmm, head, values.transpose(1, 2), out=pushed)
        self._then(torch.bmm, chances.transpose(1, 2), head, out=to_values)
        self._then(attend_back, array(chances), array(pushed), self._scale())
        self._then(torch.bmm, pushed, keys, out=to_queries)
        self._then(torch.bmm, pushed.transpose(1, 2), queries, out=to_keys)
        self._then(self._pushed_qkv.view(n, -1, size).copy_, self._pushed_apart.transpose(0, 1))
        self._add_columns(self._pushed_qkv, f"{name}.c_attn")
        self._linear_back(self._pushed_qkv, self._norms[2 * layer].out, f"{name}.c_attn", self._pushed)
