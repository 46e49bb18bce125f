"""Loss and gradient of several GPT-2s of one size abreast, each with its own weights and batch: torch's own calls.

Written out both ways, so that a step is few of them, on tensors that stay where they are. Its plain twins are
transformers' model with autograd, and `Passes`.
"""

from __future__ import annotations

from typing import Any

from .choices import Architecture
from .model import PLACES, TOKENS, Layout

EPS = 1e-5  # of the norms
ONE_HOT = 1024  # tokens up to which rows are summed by a product; beyond, that is sorted


class PassesAbreast:
    """Forwards and backwards through R models [R, n_parameters]; shapes below have R, then N = batch * T places.

    Products are of numbers of the type of `narrow`, sums, norms and losses of the type of `wide`, as in `Passes`.
    Nothing waits for the host, and no thread adds to what another adds to: the same bits every time.
    """

    def __init__(
        self, torch: Any, architecture: Architecture, layout: Layout, wide: Any, narrow: Any, batch: int
    ) -> None:
        """
        Parameters
        ----------
        wide : [R, n], all weights
        narrow : [R, n], the same in the type of the products
        batch : examples of a step
        """
        self._torch, self._architecture = torch, architecture
        self._n_models, self._device = len(wide), wide.device
        self._dtype = narrow.dtype
        self.sums, self.products = torch.zeros_like(wide), torch.zeros_like(narrow)
        self._values, self._narrow = views(wide, layout), views(narrow, layout)
        self._sums, self._products = views(self.sums, layout), views(self.products, layout)
        self._head = "lm_head.weight" if "lm_head.weight" in layout.places else TOKENS
        n_vocabulary, length = self._values[TOKENS].shape[1], architecture.context
        self._batch, self._length = batch, length
        self._rows = torch.eye(n_vocabulary, dtype=wide.dtype, device=wide.device) if n_vocabulary <= ONE_HOT else None
        self._firsts = (torch.arange(self._n_models, device=wide.device) * n_vocabulary)[:, None]
        # The last place of an example predicts nothing.
        share = torch.full((batch, length), 1 / (batch * (length - 1)), dtype=wide.dtype, device=wide.device)
        share[:, -1] = 0
        self._share = share.view(-1)
        ahead = torch.full((length, length), -torch.inf, dtype=narrow.dtype, device=wide.device)
        self._ahead = ahead.triu(1)  # what a place may not look at
        self._scale = (architecture.width // architecture.heads) ** -0.5

    def gradient(self, out: Any) -> None:
        """The last call's gradient [R, n], in the type of `out`."""
        self._torch.add(self.sums, self.products, out=out)

    def __call__(self, inputs: Any, targets: Any) -> Any:
        """Mean losses [R] of R batches of tokens and of what each place is to predict, [R, N]; see `gradient`."""
        torch, layers = self._torch, range(self._architecture.layers)
        embedded = torch.gather(self._values[TOKENS], 1, inputs[..., None].expand(-1, -1, self._architecture.width))
        x = (self._examples(embedded) + self._values[PLACES][:, None]).view_as(embedded)
        kept = []
        for layer in layers:
            normed, first = self._normalise(x, f"transformer.h.{layer}.ln_1")
            added, attended = self._attend(normed, layer)
            x = x + added
            normed, second = self._normalise(x, f"transformer.h.{layer}.ln_2")
            added, expanded = self._expand(normed, layer)
            x = x + added
            kept.append((first, attended, second, expanded))
        normed, last = self._normalise(x, "transformer.ln_f")
        logits = torch.bmm(normed, self._narrow[self._head].mT)
        losses, pushed = self._score(logits, targets)
        del logits
        torch.bmm(pushed.mT, normed, out=self._products[self._head])
        push = self._normalise_back(torch.bmm(pushed, self._narrow[self._head]), last)
        for layer in reversed(layers):
            first, attended, second, expanded = kept.pop()
            push += self._normalise_back(self._expand_back(self._narrowed(push), expanded, layer), second)
            push += self._normalise_back(self._attend_back(self._narrowed(push), attended, layer), first)
        torch.sum(self._examples(push), 1, out=self._sums[PLACES])
        self._embed_back(inputs, push)
        return losses

    def _narrowed(self, x: Any) -> Any:
        return x.to(self._dtype)

    def _examples(self, x: Any) -> Any:
        """Of [R, N, ...]: [R, batch, T, ...]."""
        return x.view(self._n_models, self._batch, self._length, *x.shape[2:])

    # The ends ---------------------------------------------------------------------------------------------------

    def _embed_back(self, inputs: Any, push: Any) -> None:
        """Sum the rows [R, N, width] of each token."""
        torch, out = self._torch, self._sums[TOKENS]
        if self._rows is not None:
            chosen = self._rows.index_select(0, inputs.reshape(-1)).view(-1, self._length, out.shape[1])
            # Example by example: one product of all places would keep few of a GPU's processors busy.
            added = torch.bmm(chosen.mT, push.view(-1, self._length, push.shape[-1]))
            torch.sum(added.view(self._n_models, self._batch, *out.shape[1:]), 1, out=out)
        else:
            ids, n_vocabulary = (inputs + self._firsts).view(-1), out.shape[1]
            rows = push.reshape(-1, push.shape[-1])
            added = torch.ops.aten.embedding_dense_backward(rows, ids, self._n_models * n_vocabulary, -1, False)
            out.copy_(added.view_as(out))

    def _score(self, logits: Any, targets: Any) -> tuple[Any, Any]:
        """Mean losses [R], and the gradient of their sum [R, N, vocabulary]."""
        torch, aten, wide = self._torch, self._torch.ops.aten, self.sums.dtype
        chances = torch.log_softmax(logits, -1, dtype=wide).view(-1, logits.shape[-1])
        labels, ignored = targets.reshape(-1), -100
        losses, total = aten.nll_loss_forward(chances, labels, None, 0, ignored)
        shares = self._share.expand(self._n_models, -1).reshape(-1)
        back = aten.nll_loss_backward(shares, chances, labels, None, 0, ignored, total)
        pushed = aten._log_softmax_backward_data(back, chances, -1, wide)
        mean = (losses.view_as(targets) * self._share).sum(1)
        return mean, self._narrowed(pushed).view_as(logits)

    # Norms ------------------------------------------------------------------------------------------------------

    def _normalise(self, x: Any, name: str) -> tuple[Any, Any]:
        """Rows over their deviation, times gain, plus shift; and what the way back needs."""
        torch, width = self._torch, self._architecture.width
        gain = self._values[f"{name}.weight"][:, None]
        out = torch.empty(x.shape, dtype=self._dtype, device=self._device)
        if self._architecture.norm == "layernorm":
            unit, mean, scale = torch.native_layer_norm(x, [width], None, None, EPS)
            torch.addcmul(self._values[f"{name}.bias"][:, None], unit, gain, out=out)
        else:
            mean, scale = None, torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)
            unit = x * scale
            torch.mul(unit, gain, out=out)
        return out, (name, x, unit, mean, scale)

    def _normalise_back(self, pushed: Any, kept: Any) -> Any:
        """From the gradient of a norm's output to that of its input, in the wide type."""
        torch, wide = self._torch, self.sums.dtype
        name, x, unit, mean, scale = kept
        by = pushed * self._values[f"{name}.weight"][:, None]
        torch.sum(pushed * unit, 1, out=self._sums[f"{name}.weight"])
        if mean is None:
            return (by - unit * (by * unit).mean(-1, keepdim=True)) * scale
        torch.sum(pushed, 1, dtype=wide, out=self._sums[f"{name}.bias"])
        width, only_input = [self._architecture.width], [True, False, False]
        return torch.ops.aten.native_layer_norm_backward(by, x, width, mean, scale, None, None, only_input)[0]

    # Layers -----------------------------------------------------------------------------------------------------

    def _linear(self, x: Any, name: str) -> Any:
        return self._torch.baddbmm(self._narrow[f"{name}.bias"][:, None], x, self._narrow[f"{name}.weight"])

    def _linear_back(self, pushed: Any, x: Any, name: str) -> Any:
        """Gradients of a layer's weights from that of its output; returns that of its input."""
        torch = self._torch
        torch.sum(pushed, 1, dtype=self.sums.dtype, out=self._sums[f"{name}.bias"])
        torch.bmm(x.mT, pushed, out=self._products[f"{name}.weight"])
        return torch.bmm(pushed, self._narrow[f"{name}.weight"].mT)

    def _expand(self, x: Any, layer: int) -> tuple[Any, Any]:
        name = f"transformer.h.{layer}.mlp"
        inner = self._linear(x, f"{name}.c_fc")
        bent = self._torch.nn.functional.gelu(inner, approximate="tanh")
        return self._linear(bent, f"{name}.c_proj"), (x, inner, bent)

    def _expand_back(self, pushed: Any, kept: Any, layer: int) -> Any:
        name, (x, inner, bent) = f"transformer.h.{layer}.mlp", kept
        pushed = self._linear_back(pushed, bent, f"{name}.c_proj")
        pushed = self._torch.ops.aten.gelu_backward(pushed, inner, approximate="tanh")
        return self._linear_back(pushed, x, f"{name}.c_fc")

    # Attention: [3, R * batch * heads, T, size] of queries, keys and values, so that a product is one call.

    def _apart(self, x: Any, kinds: int) -> Any:
        """Of [R, N, kinds * width]: [kinds, R * batch * heads, T, size], a copy."""
        heads, length = self._architecture.heads, self._length
        whole = x.view(-1, length, kinds, heads, x.shape[-1] // (kinds * heads)).permute(2, 0, 3, 1, 4)
        return whole.reshape(kinds, -1, *whole.shape[3:])

    def _together(self, x: Any) -> Any:
        """The way back."""
        kinds, _, length, size = x.shape
        heads = self._architecture.heads
        whole = x.view(kinds, -1, heads, length, size).permute(1, 3, 0, 2, 4)
        return whole.reshape(self._n_models, self._batch * length, kinds * heads * size)

    def _attend(self, x: Any, layer: int) -> tuple[Any, Any]:
        torch, name = self._torch, f"transformer.h.{layer}.attn"
        queries, keys, values = apart = self._apart(self._linear(x, f"{name}.c_attn"), 3)
        chances = torch.softmax(torch.baddbmm(self._ahead, queries, keys.mT, alpha=self._scale), -1)
        mixed = self._together(torch.bmm(chances, values)[None])
        return self._linear(mixed, f"{name}.c_proj"), (x, apart, chances, mixed)

    def _attend_back(self, pushed: Any, kept: Any, layer: int) -> Any:
        torch, name, (x, apart, chances, mixed) = self._torch, f"transformer.h.{layer}.attn", kept
        queries, keys, values = apart
        (head,) = self._apart(self._linear_back(pushed, mixed, f"{name}.c_proj"), 1)
        back = torch.empty_like(apart)
        torch.bmm(chances.mT, head, out=back[2])
        scores = torch.bmm(head, values.mT)
        scores = torch.ops.aten._softmax_backward_data(scores, chances, -1, chances.dtype)
        torch.baddbmm(keys, scores, keys, beta=0, alpha=self._scale, out=back[0])
        torch.baddbmm(keys, scores.mT, queries, beta=0, alpha=self._scale, out=back[1])
        return self._linear_back(self._together(back), x, f"{name}.c_attn")


def views(vectors: Any, layout: Layout) -> dict[str, Any]:
    """Parameters [R, ...] in vectors [R, n]."""
    return {name: vectors[:, part].unflatten(1, shape) for name, (part, shape) in layout.places.items()}
