"""Loss and gradient of a GPT-2 on a CPU, written out: the library's products, and our own loops between them.

The plain twin is transformers' model with autograd, which every other device runs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from ...numerics.grouping import n_cores
from .choices import Architecture

EPS = np.float32(1e-5)  # of the norms


def array(tensor: Any) -> np.ndarray:
    """A tensor's own memory; of bfloat16 the words."""
    import torch

    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.element_size() == 2 else tensor.numpy()


class Passes:
    """Forwards and backwards through a model, its batch shared out among the cores.

    Products are of bfloat16 numbers, or of float32; sums, norms, softmax and GELU are float32. Each core adds up its
    own gradient, so that the result depends on how many there are, in its last bits.
    """

    def __init__(
        self, architecture: Architecture, places: dict[str, tuple[slice, Any]], weights: Any, gradient: Any, dtype: Any
    ) -> None:
        """
        Parameters
        ----------
        places : of the model's parameters, by their names: part of the vectors, shape
        weights, gradient : one float32 vector each, of all parameters
        dtype : torch.bfloat16 or torch.float32, of the products
        """
        self._architecture, self._places, self._dtype = architecture, places, dtype
        self._weights, self._gradient = weights, gradient
        self._shards: list[_Shard] = []
        self._shape: tuple[int, ...] = ()
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, inputs: np.ndarray, labels: np.ndarray) -> float:
        """Mean loss of a batch [batch, context] of inputs and transformers' labels; its gradient into `gradient`."""
        if inputs.shape != self._shape:
            self._share_out(inputs.shape)
        targets = np.full(labels.shape, -1)
        targets[:, :-1] = labels[:, 1:]
        count = labels.shape[0] * (labels.shape[1] - 1)
        narrow = named(self._weights.to(self._dtype), self._places)
        assert self._pool is not None

        def pass_through(shard: _Shard) -> float:
            return shard.run(inputs[shard.part], targets[shard.part], narrow, np.float32(1 / count))

        total = sum(self._pool.map(pass_through, self._shards))
        self._gradient.copy_(self._shards[0].gradient)
        for shard in self._shards[1:]:
            self._gradient.add_(shard.gradient)
        return total / count

    def _share_out(self, shape: tuple[int, ...]) -> None:
        import torch

        n = min(n_cores(), shape[0])
        ends = np.linspace(0, shape[0], n + 1).astype(int)
        parts = [slice(int(first), int(last)) for first, last in pairwise(ends)]
        settings = self._architecture, self._places, self._weights
        self._shards = [_Shard(torch, *settings, part, shape[1], self._dtype) for part in parts]
        self._pool = ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,))
        self._shape = shape


def named(vector: Any, places: dict[str, tuple[slice, Any]]) -> dict[str, Any]:
    """Views of the parameters in a vector of all."""
    return {name: vector[part].view(shape) for name, (part, shape) in places.items()}


class _Norm:
    """What a norm keeps for the way back."""

    def __init__(self, torch: Any, n: int, width: int, dtype: Any) -> None:
        self.total = torch.empty(n, width).numpy()
        self.out = torch.empty(n, width, dtype=dtype)
        self.mean, self.scale = np.empty(n, np.float32), np.empty(n, np.float32)


class _Shard:
    """One core's part of the batch, with room for all that the way back needs."""

    def __init__(
        self,
        torch: Any,
        architecture: Architecture,
        places: dict[str, tuple[slice, Any]],
        weights: Any,
        part: slice,
        length: int,
        dtype: Any,
    ) -> None:
        self._torch, self._architecture, self.part = torch, architecture, part
        batch, width, heads = part.stop - part.start, architecture.width, architecture.heads
        n, layers = batch * length, range(architecture.layers)
        self._batch, self._length, self._n = batch, length, n
        self.gradient = torch.zeros_like(weights)
        self._gradients = named(self.gradient, places)
        self._values = {name: weight.numpy() for name, weight in named(weights, places).items()}
        self._sums = {name: gradient.numpy() for name, gradient in self._gradients.items()}

        def room(*shape: int) -> Any:
            return torch.empty(shape, dtype=dtype)

        self._norms = [_Norm(torch, n, width, dtype) for _ in range(2 * architecture.layers + 1)]
        self._qkv = [room(n, 3 * width) for _ in layers]
        self._scores = [room(heads, batch, length, length) for _ in layers]
        self._mixed = [room(n, width) for _ in layers]
        self._inner, self._slope = ([room(n, 4 * width) for _ in layers] for _ in range(2))
        self._start = torch.empty(n, width).numpy()
        self._nothing, self._added, self._passed, self._pushed = (room(n, width) for _ in range(4))
        self._nothing.zero_()
        self._push = torch.empty(n, width)
        self._wide, self._pushed_qkv = room(n, 4 * width), room(n, 3 * width)
        self._pushed_scores = room(heads, batch, length, length)
        self._level = np.zeros(width, np.float32)  # RMSNorm's shift, and where its gradient goes

    def run(self, ids: np.ndarray, targets: np.ndarray, narrow: dict[str, Any], share: np.float32) -> float:
        """Sum of the losses; the gradient of `share` times it into `gradient`."""
        from ...numerics._backends.layers import cross_entropy, embed

        torch, layers = self._torch, self._architecture.layers
        self.gradient.zero_()
        head = "lm_head.weight" if "lm_head.weight" in narrow else "transformer.wte.weight"
        with torch.no_grad():
            embed(ids, self._values["transformer.wte.weight"], self._values["transformer.wpe.weight"], self._start)
            x, added = self._start, self._nothing
            for layer in range(layers):
                x = self._normalise(2 * layer, f"transformer.h.{layer}.ln_1", x, added)
                added = self._attend(layer, narrow)
                x = self._normalise(2 * layer + 1, f"transformer.h.{layer}.ln_2", x, added)
                added = self._expand(layer, narrow)
            self._normalise(2 * layers, "transformer.ln_f", x, added)
            last = self._norms[-1].out
            logits = torch.mm(last, narrow[head].t())
            loss = cross_entropy(array(logits), targets.reshape(-1), share)
            self._gradients[head].add_(torch.mm(logits.t(), last))
            torch.mm(logits, narrow[head], out=self._pushed)
            self._push.zero_()
            self._normalise_back(2 * layers, "transformer.ln_f")
            for layer in reversed(range(layers)):
                self._expand_back(layer, narrow)
                self._normalise_back(2 * layer + 1, f"transformer.h.{layer}.ln_2")
                self._attend_back(layer, narrow)
                self._normalise_back(2 * layer, f"transformer.h.{layer}.ln_1")
            self._embed_back(ids)
        return float(loss)

    # Norms ------------------------------------------------------------------------------------------------------

    @property
    def _centred(self) -> bool:
        return self._architecture.norm == "layernorm"

    def _normalise(self, number: int, name: str, x: np.ndarray, added: Any) -> np.ndarray:
        from ...numerics._backends.layers import normalise

        norm = self._norms[number]
        gain, shift = self._values[f"{name}.weight"], self._values.get(f"{name}.bias", self._level)
        where = norm.total, array(norm.out), norm.mean, norm.scale
        normalise(x, array(added), gain, shift, self._centred, EPS, *where)
        return norm.total

    def _normalise_back(self, number: int, name: str) -> None:
        """From the gradient of a norm's output, in `_pushed`, to that of what flows past it, in `_push`, `_passed`."""
        from ...numerics._backends.layers import normalise_back

        norm = self._norms[number]
        sums = self._sums[f"{name}.weight"], self._sums.get(f"{name}.bias", np.empty_like(self._level))
        how = norm.total, norm.mean, norm.scale, self._values[f"{name}.weight"], self._centred
        normalise_back(*how, array(self._pushed), self._push.numpy(), array(self._passed), *sums)

    # Layers -----------------------------------------------------------------------------------------------------

    def _linear(self, x: Any, name: str, narrow: dict[str, Any], out: Any) -> Any:
        return self._torch.addmm(narrow[f"{name}.bias"], x, narrow[f"{name}.weight"], out=out)

    def _linear_back(self, pushed: Any, x: Any, name: str, narrow: dict[str, Any], out: Any) -> None:
        """Gradients of a product's weights from that of its output, and into `out` that of its input."""
        self._gradients[f"{name}.weight"].add_(self._torch.mm(x.t(), pushed))
        self._torch.mm(pushed, narrow[f"{name}.weight"].t(), out=out)

    def _expand(self, layer: int, narrow: dict[str, Any]) -> Any:
        from ...numerics._backends.layers import gelu

        name = f"transformer.h.{layer}.mlp"
        inner = self._linear(self._norms[2 * layer + 1].out, f"{name}.c_fc", narrow, self._inner[layer])
        gelu(array(inner).reshape(-1), array(self._slope[layer]).reshape(-1))
        return self._linear(inner, f"{name}.c_proj", narrow, self._added)

    def _expand_back(self, layer: int, narrow: dict[str, Any]) -> None:
        from ...numerics._backends.layers import add_columns, gelu_back

        name = f"transformer.h.{layer}.mlp"
        add_columns(array(self._passed), self._sums[f"{name}.c_proj.bias"])
        self._linear_back(self._passed, self._inner[layer], f"{name}.c_proj", narrow, self._wide)
        gelu_back(array(self._wide), array(self._slope[layer]), self._sums[f"{name}.c_fc.bias"])
        self._linear_back(self._wide, self._norms[2 * layer + 1].out, f"{name}.c_fc", narrow, self._pushed)

    def _heads(self, rows: Any, part: int) -> list[Any]:
        """Columns of every head of queries (0), keys (1) or values (2): views [batch, t, size]."""
        size = self._architecture.width // self._architecture.heads
        shaped, first = rows.view(self._batch, self._length, -1), part * self._architecture.width
        return [shaped[:, :, first + h * size : first + (h + 1) * size] for h in range(self._architecture.heads)]

    def _scale(self) -> np.float32:
        return np.float32((self._architecture.width // self._architecture.heads) ** -0.5)

    def _attend(self, layer: int, narrow: dict[str, Any]) -> Any:
        from ...numerics._backends.layers import attend

        torch, name = self._torch, f"transformer.h.{layer}.attn"
        qkv = self._linear(self._norms[2 * layer].out, f"{name}.c_attn", narrow, self._qkv[layer])
        queries, keys, values = (self._heads(qkv, part) for part in range(3))
        scores, mixed = self._scores[layer], self._heads(self._mixed[layer], 0)
        for h, (query, key) in enumerate(zip(queries, keys, strict=True)):
            torch.bmm(query, key.transpose(1, 2), out=scores[h])
        attend(array(scores).reshape(-1, self._length, self._length), self._scale())
        for h, value in enumerate(values):
            torch.bmm(scores[h], value, out=mixed[h])
        return self._linear(self._mixed[layer], f"{name}.c_proj", narrow, self._added)

    def _attend_back(self, layer: int, narrow: dict[str, Any]) -> None:
        from ...numerics._backends.layers import add_columns, attend_back

        torch, name = self._torch, f"transformer.h.{layer}.attn"
        add_columns(array(self._passed), self._sums[f"{name}.c_proj.bias"])
        self._linear_back(self._passed, self._mixed[layer], f"{name}.c_proj", narrow, self._pushed)
        queries, keys, values = (self._heads(self._qkv[layer], part) for part in range(3))
        to_queries, to_keys, to_values = (self._heads(self._pushed_qkv, part) for part in range(3))
        chances, pushed = self._scores[layer], self._pushed_scores
        for h, mixed in enumerate(self._heads(self._pushed, 0)):
            torch.bmm(mixed, values[h].transpose(1, 2), out=pushed[h])
            torch.bmm(chances[h].transpose(1, 2), mixed, out=to_values[h])
        square = -1, self._length, self._length
        attend_back(array(chances).reshape(square), array(pushed).reshape(square), self._scale())
        for h in range(len(queries)):
            torch.bmm(pushed[h], keys[h], out=to_queries[h])
            torch.bmm(pushed[h].transpose(1, 2), queries[h], out=to_keys[h])
        add_columns(array(self._pushed_qkv), self._sums[f"{name}.c_attn.bias"])
        self._linear_back(self._pushed_qkv, self._norms[2 * layer].out, f"{name}.c_attn", narrow, self._pushed)

    def _embed_back(self, ids: np.ndarray) -> None:
        from ...numerics._backends.layers import embed_back

        tokens, places = self._sums["transformer.wte.weight"], self._sums["transformer.wpe.weight"]
        embed_back(ids, self._push.numpy(), tokens, places)
