"""Loss and gradient of a GPT-2 on a CPU: the library's products, and compiled loops between them."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..numerics._backends import layers as kernels
from ..numerics.grouping import n_cores
from .model import EPS, POSITION_EMBEDDING, TOKEN_EMBEDDING, Passes, views

MOST_BLOCKS = 8  # with more, Python's lock and small products cost what more cores save


def array(tensor: Any) -> np.ndarray:
    """View a CPU tensor as an array without a copy; bfloat16 as its bit patterns, uint16."""
    import torch

    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.element_size() == 2 else tensor.numpy()


@contextmanager
def single_threaded(torch: Any) -> Iterator[None]:
    """Keep torch to the calling thread."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


class CpuPasses(Passes):
    """Passes of one model, its batch cut into `n_blocks`, by default one per core up to 8.

    The blocks' gradients are added up in their order, so that the last bits of the result depend on the number of
    blocks, but not on the cores that work on them. Where `products` of bfloat16 numbers are computed in float32,
    activations are float32 numbers that were rounded to bfloat16.
    """

    def __init__(self, *model: Any, products: str, cores: int | None = None, has_paths: bool = False) -> None:
        super().__init__(*model)
        self.has_paths = has_paths  # `paths` will be asked for
        self.factors = self.narrow.float() if products == "float32" else self.narrow
        self._cores = cores or n_cores()
        self.n_blocks = min(n_cores(), MOST_BLOCKS)
        self._blocks: list[_Block] = []
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, inputs: Any, targets: Any) -> Any:
        if self.n_blocks != len(self._blocks):
            self._cut()
        self.factors.copy_(self.narrow)  # no copy where they are the same tensor
        parts = (np.array_split(array(each).reshape(-1, self.length), self.n_blocks) for each in (inputs, targets))
        for block, *part in zip(self._blocks, *parts, strict=True):
            block.take(*part)
        with single_threaded(self.torch):  # the blocks have threads of their own
            total = sum(self._run())
            for block in self._blocks[1:]:
                self._blocks[0].gradient.add_(block.gradient)
        return self.torch.tensor([total / self.n_predicted], dtype=self.torch.float64)

    def gradient(self, out: Any) -> None:
        out[0].copy_(self._blocks[0].gradient)

    def paths(self) -> tuple[Any, Any]:
        inputs: Any = sum(block.input_gradient for block in self._blocks)
        outputs: Any = sum(block.products[self.head].float() for block in self._blocks)
        return inputs[None], outputs[None]

    def _run(self) -> list[float]:
        """Run the blocks, on this core and the others; return their losses, in order."""
        if self._cores == 1 or len(self._blocks) == 1:
            return [block.run() for block in self._blocks]
        assert self._pool is not None
        first, *others = self._blocks
        futures = [self._pool.submit(block.run) for block in others]
        losses = [first.run(), *(math.nan for _ in others)]
        for number in reversed(range(len(others))):  # the other cores begin with the first
            is_free = futures[number].cancel()  # no thread has begun it
            losses[number + 1] = others[number].run() if is_free else futures[number].result()
        return losses

    def _cut(self) -> None:
        self.n_blocks = min(self.n_blocks, self.batch)
        sizes = [len(part) for part in np.array_split(np.arange(self.batch), self.n_blocks)]
        self._blocks = [_Block(self, size) for size in sizes]
        n_threads = max(1, min(self._cores, len(sizes)) - 1)  # beside the caller's
        self._pool = ThreadPoolExecutor(n_threads, initializer=self.torch.set_num_threads, initargs=(1,))


class _Block:
    """Some sequences of the batch: buffers, and a list of calls that is made once, which holds Python's lock least."""

    def __init__(self, passes: CpuPasses, batch: int) -> None:
        torch = self._torch = passes.torch
        self._architecture = passes.architecture
        factors = passes.factors
        self._rounds = factors is not passes.narrow
        self._scale = np.float32(passes.scale)
        width = self._architecture.width
        heads = self._architecture.heads
        length = self._architecture.context
        n = batch * length
        layers = range(self._architecture.layers)
        self.ids = np.empty((batch, length), np.int64)
        self._targets = np.full_like(self.ids, -1)  # -1: predicts nothing
        sums = torch.zeros_like(passes.wide)
        self.gradient = sums[0]
        self._product = torch.zeros_like(factors)
        self._factors, self.products, values, totals = (
            {name: view[0] for name, view in views(vectors, passes.layout).items()}
            for vectors in (factors, self._product, passes.wide, sums)
        )
        self._values, self._sums = ({name: array(view) for name, view in of.items()} for of in (values, totals))
        self._from_tokens = totals[TOKEN_EMBEDDING]
        self.input_gradient: Any = torch.empty_like(self._from_tokens) if passes.has_paths else None

        def buffer(*shape: int) -> Any:
            return torch.empty(shape, dtype=factors.dtype)

        self._norms = [  # their backward passes read these
            SimpleNamespace(total=torch.empty(n, width).numpy(), out=buffer(n, width), mean=mean, scale=scale)
            for mean, scale in np.empty((2 * len(layers) + 1, 2, n), np.float32)
        ]
        size = width // heads
        self._qkv = [buffer(3 * heads, n, size) for _ in layers]
        self._probs = [buffer(heads * batch, length, length) for _ in layers]
        self._mixed = [buffer(n, width) for _ in layers]
        self._activated, self._gelu_grad = ([buffer(n, 4 * width) for _ in layers] for _ in range(2))
        self._embedded = torch.empty(n, width).numpy()
        self._zeros, self._added, self._added_grad, self._output_grad = (buffer(n, width) for _ in range(4))
        self._zeros.zero_()
        self._grad = torch.empty(n, width)  # of the residual stream
        self._inner_grad, self._merged_grad = buffer(n, 4 * width), buffer(n, 3 * width)
        self._head, self._qkv_grad = buffer(heads, n, size), buffer(3 * heads, n, size)
        self._probs_grad = buffer(heads * batch, length, length)
        self._no_shift = np.zeros(width, np.float32)  # in place of RMSNorm's missing bias
        self._logits = buffer(n, self._factors[TOKEN_EMBEDDING].shape[0])
        self._loss = 0.0
        self._calls: list[Callable[[], Any]] = []
        self._write_out(passes.head, np.float32(1 / passes.n_predicted))

    def take(self, inputs: np.ndarray, targets: np.ndarray) -> None:
        """Copy the block's sequences of a batch; their last position predicts nothing."""
        self.ids[:] = inputs
        self._targets[:, :-1] = targets[:, :-1]

    def run(self) -> float:
        """Return the sum of the losses; write the gradient of the batch's mean loss into `gradient`."""
        for call in self._calls:
            call()
        return self._loss

    def _entries(self, tensor: Any) -> np.ndarray:
        """View a tensor of the products' dtype as the array that compiled loops take."""
        return array(tensor).view(np.uint32) if self._rounds else array(tensor)

    def _then(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Add a call to those that each step makes."""
        self._calls.append(partial(function, *arguments, **named))

    def _round(self, product: Any) -> None:
        """Round the entries of a product that the next product reads, with no compiled loop between."""
        if self._rounds:
            self._then(kernels.round_entries, self._entries(product).reshape(-1))

    def _write_out(self, head: str, share: np.float32) -> None:
        """List the calls of a forward and backward pass; `head` is the output matrix."""
        layers = self._architecture.layers
        embeddings = (TOKEN_EMBEDDING, POSITION_EMBEDDING)
        self._then(self.gradient.zero_)
        self._then(kernels.embed, self.ids, *(self._values[name] for name in embeddings), self._embedded)
        x, added = self._embedded, self._zeros
        for layer in range(layers):
            x = self._normalise(2 * layer, f"transformer.h.{layer}.ln_1", x, added)
            added = self._attend(layer)
            x = self._normalise(2 * layer + 1, f"transformer.h.{layer}.ln_2", x, added)
            added = self._expand(layer)
        self._normalise(2 * layers, "transformer.ln_f", x, added)
        weight = self._factors[head]
        last = self._norms[-1].out
        self._then(self._torch.mm, last, weight.t(), out=self._logits)
        self._then(self._score, share)  # puts their gradient in the place of the logits
        self._multiply_back(self._logits.t(), last, head)
        self._then(self._torch.mm, self._logits, weight, out=self._output_grad)
        self._then(self._grad.zero_)
        self._normalise_back(2 * layers, "transformer.ln_f")
        for layer in reversed(range(layers)):
            self._expand_back(layer)
            self._normalise_back(2 * layer + 1, f"transformer.h.{layer}.ln_2")
            self._attend_back(layer)
            self._normalise_back(2 * layer, f"transformer.h.{layer}.ln_1")
        self._then(kernels.embed_back, self.ids, array(self._grad), *(self._sums[name] for name in embeddings))
        if self.input_gradient is not None:
            self._then(self.input_gradient.copy_, self._from_tokens)
        self._then(kernels.add_columns, self._entries(self._product), array(self.gradient))

    def _score(self, share: np.float32) -> None:
        self._loss = kernels.cross_entropy(self._entries(self._logits), self._targets.reshape(-1), share)

    def _normalise(self, number: int, name: str, x: np.ndarray, added: Any) -> np.ndarray:
        norm = self._norms[number]
        weights = self._values[f"{name}.weight"], self._values.get(f"{name}.bias", self._no_shift)
        outputs = norm.total, self._entries(norm.out), norm.mean, norm.scale
        settings = self._architecture.norm == "layernorm", np.float32(EPS)
        self._then(kernels.normalise, x, self._entries(added), *weights, *settings, *outputs)
        return norm.total

    def _normalise_back(self, number: int, name: str) -> None:
        """Compute the gradient of a norm's input, in `_grad` and `_added_grad`, from that of its output."""
        norm = self._norms[number]
        sums = self._sums[f"{name}.weight"], self._sums.get(f"{name}.bias", np.empty_like(self._no_shift))
        centred = self._architecture.norm == "layernorm"
        forward = norm.total, norm.mean, norm.scale, self._values[f"{name}.weight"], centred
        grads = self._entries(self._output_grad), array(self._grad), self._entries(self._added_grad)
        self._then(kernels.normalise_back, *forward, *grads, *sums)

    def _multiply(self, x: Any, name: str, out: Any) -> Any:
        self._then(self._torch.addmm, self._factors[f"{name}.bias"], x, self._factors[f"{name}.weight"], out=out)
        return out

    def _multiply_back(self, x: Any, grad: Any, weight: str) -> None:
        self._then(self._torch.mm, x, grad, out=self.products[weight])

    def _linear_back(self, grad: Any, x: Any, name: str, out: Any) -> None:
        """Compute the gradients of a layer's weights from that of its output, and into `out` that of its input."""
        self._multiply_back(x.t(), grad, f"{name}.weight")
        self._then(self._torch.mm, grad, self._factors[f"{name}.weight"].t(), out=out)

    def _add_columns(self, grad: Any, name: str) -> None:
        self._then(kernels.add_columns, self._entries(grad), self._sums[f"{name}.bias"])

    def _expand(self, layer: int) -> Any:
        name = f"transformer.h.{layer}.mlp"
        inner = self._multiply(self._norms[2 * layer + 1].out, f"{name}.c_fc", self._activated[layer])
        self._then(kernels.gelu, self._entries(inner).reshape(-1), self._entries(self._gelu_grad[layer]).reshape(-1))
        return self._multiply(inner, f"{name}.c_proj", self._added)

    def _expand_back(self, layer: int) -> None:
        name = f"transformer.h.{layer}.mlp"
        self._add_columns(self._added_grad, f"{name}.c_proj")
        self._linear_back(self._added_grad, self._activated[layer], f"{name}.c_proj", self._inner_grad)
        bias = self._sums[f"{name}.c_fc.bias"]
        self._then(kernels.gelu_back, self._entries(self._inner_grad), self._entries(self._gelu_grad[layer]), bias)
        self._linear_back(self._inner_grad, self._norms[2 * layer + 1].out, f"{name}.c_fc", self._output_grad)

    # Attention: queries, keys and values are split head by head, so that all heads' products are one call.

    def _sequences(self, heads: Any) -> Any:
        """View [heads, n, size] as [heads * batch, t, size]."""
        return heads.view(-1, self._architecture.context, heads.shape[-1])

    def _attend(self, layer: int) -> Any:
        bmm = self._torch.bmm
        name = f"transformer.h.{layer}.attn"
        x = self._norms[2 * layer].out
        qkv = self._qkv[layer]
        probs = self._probs[layer]
        n_parts, n, size = qkv.shape
        weight = self._factors[f"{name}.c_attn.weight"].view(-1, n_parts, size).transpose(0, 1)
        bias = self._factors[f"{name}.c_attn.bias"].view(n_parts, 1, size)
        self._then(self._torch.baddbmm, bias, x.expand(n_parts, *x.shape), weight, out=qkv)
        self._round(qkv)
        queries, keys, values = (self._sequences(part) for part in qkv.chunk(3))
        self._then(bmm, queries, keys.transpose(1, 2), out=probs)
        self._then(kernels.attend, self._entries(probs), self._scale)
        self._then(bmm, probs, values, out=self._sequences(self._head))
        self._then(self._mixed[layer].view(n, -1, size).copy_, self._head.transpose(0, 1))
        self._round(self._mixed[layer])
        return self._multiply(self._mixed[layer], f"{name}.c_proj", self._added)

    def _attend_back(self, layer: int) -> None:
        bmm = self._torch.bmm
        name = f"transformer.h.{layer}.attn"
        probs = self._probs[layer]
        grad = self._probs_grad
        heads, n, size = self._head.shape
        self._add_columns(self._added_grad, f"{name}.c_proj")
        self._multiply_back(self._mixed[layer].t(), self._added_grad, f"{name}.c_proj.weight")
        weight = self._factors[f"{name}.c_proj.weight"].view(heads, size, -1).transpose(1, 2)
        self._then(bmm, self._added_grad.expand(heads, *self._added_grad.shape), weight, out=self._head)
        self._round(self._head)
        head = self._sequences(self._head)
        queries, keys, values = (self._sequences(part) for part in self._qkv[layer].chunk(3))
        to_queries, to_keys, to_values = (self._sequences(part) for part in self._qkv_grad.chunk(3))
        self._then(bmm, head, values.transpose(1, 2), out=grad)
        self._then(bmm, probs.transpose(1, 2), head, out=to_values)
        self._then(kernels.attend_back, self._entries(probs), self._entries(grad), self._scale)
        self._then(bmm, grad, keys, out=to_queries)
        self._then(bmm, grad.transpose(1, 2), queries, out=to_keys)
        self._then(self._merged_grad.view(n, -1, size).copy_, self._qkv_grad.transpose(0, 1))
        self._round(self._merged_grad)
        self._add_columns(self._merged_grad, f"{name}.c_attn")
        self._linear_back(self._merged_grad, self._norms[2 * layer].out, f"{name}.c_attn", self._output_grad)
