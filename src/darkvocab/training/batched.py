"""Passes and optimizers of several GPT-2s at once: few calls of torch, on tensors that stay where they are."""

from collections.abc import Sequence
from typing import Any

from .choices import SGD, AdamW, CoupledAdam
from .model import EPS, HEAD, POSITION_EMBEDDING, TOKEN_EMBEDDING, Layout, Passes, scalar_dtype, views

ONE_HOT = 1024  # tokens up to which rows are summed by a product; beyond, that is sorted


class BatchedPasses(Passes):
    """Passes of R models; shapes below have R, then N. A plain twin is `CpuPasses`.

    Nothing waits for the host, and no thread adds to what another adds to: the same bits every time.
    """

    def __init__(self, *models: Any) -> None:
        super().__init__(*models)
        torch, wide, narrow, length = self.torch, self.wide, self.narrow, self.length
        self._n_models = len(wide)
        self.sums, self.products = torch.zeros_like(wide), torch.zeros_like(narrow)
        parts = (views(vectors, self.layout) for vectors in (wide, narrow, self.sums, self.products))
        self._values, self._narrow, self._sums, self._products = parts
        n_vocabulary = self._values[TOKEN_EMBEDDING].shape[1]
        self._rows = torch.eye(n_vocabulary, dtype=wide.dtype, device=wide.device) if n_vocabulary <= ONE_HOT else None
        self._firsts = (torch.arange(self._n_models, device=wide.device) * n_vocabulary)[:, None]
        share = torch.full((self.batch, length), 1 / self.n_predicted, dtype=wide.dtype, device=wide.device)
        share[:, -1] = 0
        self._share = share.view(-1)
        mask = torch.full((length, length), -torch.inf, dtype=narrow.dtype, device=wide.device)
        self._mask = mask.triu(1)  # added to the scores of what a place may not look at

    def gradient(self, out: Any) -> None:
        self.torch.add(self.sums, self.products, out=out)

    def paths(self) -> tuple[Any, Any]:
        return self._sums[TOKEN_EMBEDDING], self._products[self.head]

    def __call__(self, inputs: Any, targets: Any) -> Any:
        torch, layers = self.torch, range(self.architecture.layers)
        rows = inputs[..., None].expand(-1, -1, self.architecture.width)
        embedded = torch.gather(self._values[TOKEN_EMBEDDING], 1, rows)
        x = (self._examples(embedded) + self._values[POSITION_EMBEDDING][:, None]).view_as(embedded)
        saved = []
        for layer in layers:
            normed, first = self._normalise(x, f"transformer.h.{layer}.ln_1")
            added, attended = self._attend(normed, layer)
            x = x + added
            normed, second = self._normalise(x, f"transformer.h.{layer}.ln_2")
            added, expanded = self._expand(normed, layer)
            x = x + added
            saved.append((first, attended, second, expanded))
        normed, last = self._normalise(x, "transformer.ln_f")
        logits = torch.bmm(normed, self._narrow[self.head].mT)
        losses, output_grad = self._score(logits, targets)
        del logits
        torch.bmm(output_grad.mT, normed, out=self._products[self.head])
        grad = self._normalise_back(torch.bmm(output_grad, self._narrow[self.head]), last)
        for layer in reversed(layers):
            first, attended, second, expanded = saved.pop()
            grad += self._normalise_back(self._expand_back(grad.to(self.narrow.dtype), expanded, layer), second)
            grad += self._normalise_back(self._attend_back(grad.to(self.narrow.dtype), attended, layer), first)
        torch.sum(self._examples(grad), 1, out=self._sums[POSITION_EMBEDDING])
        self._embed_back(inputs, grad)
        return losses

    def _examples(self, x: Any) -> Any:
        """View [R, N, ...] as [R, batch, T, ...]."""
        return x.view(self._n_models, self.batch, self.length, *x.shape[2:])

    def _embed_back(self, inputs: Any, grad: Any) -> None:
        """Sum the rows [R, N, width] of each token."""
        torch, out = self.torch, self._sums[TOKEN_EMBEDDING]
        if self._rows is not None:
            chosen = self._rows.index_select(0, inputs.reshape(-1)).view(-1, self.length, out.shape[1])
            # Example by example: one product of all places would keep few of a GPU's processors busy.
            added = torch.bmm(chosen.mT, grad.view(-1, self.length, grad.shape[-1]))
            torch.sum(added.view(self._n_models, self.batch, *out.shape[1:]), 1, out=out)
        else:
            ids, n_vocabulary = (inputs + self._firsts).view(-1), out.shape[1]
            rows = grad.reshape(-1, grad.shape[-1])
            added = torch.ops.aten.embedding_dense_backward(rows, ids, self._n_models * n_vocabulary, -1, False)
            out.copy_(added.view_as(out))

    def _score(self, logits: Any, targets: Any) -> tuple[Any, Any]:
        """Return mean losses [R], and the gradient [R, N, vocabulary] of their sum."""
        torch, aten, wide = self.torch, self.torch.ops.aten, self.sums.dtype
        log_probs = torch.log_softmax(logits, -1, dtype=wide).view(-1, logits.shape[-1])
        labels, ignored = targets.reshape(-1), -100
        losses, total = aten.nll_loss_forward(log_probs, labels, None, 0, ignored)
        shares = self._share.expand(self._n_models, -1).reshape(-1)
        back = aten.nll_loss_backward(shares, log_probs, labels, None, 0, ignored, total)
        output_grad = aten._log_softmax_backward_data(back, log_probs, -1, wide)
        mean = (losses.view_as(targets) * self._share).sum(1)
        return mean, output_grad.to(self.narrow.dtype).view_as(logits)

    def _normalise(self, x: Any, name: str) -> tuple[Any, Any]:
        """Return rows over their deviation, times gain, plus shift; and what the backward pass needs."""
        torch, width = self.torch, self.architecture.width
        gain = self._values[f"{name}.weight"][:, None]
        out = torch.empty(x.shape, dtype=self.narrow.dtype, device=x.device)
        if self.architecture.norm == "layernorm":
            unit, mean, scale = torch.native_layer_norm(x, [width], None, None, EPS)
            torch.addcmul(self._values[f"{name}.bias"][:, None], unit, gain, out=out)
        else:
            mean, scale = None, torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)
            unit = x * scale
            torch.mul(unit, gain, out=out)
        return out, (name, x, unit, mean, scale)

    def _normalise_back(self, output_grad: Any, saved: Any) -> Any:
        """Return the gradient of a norm's input from that of its output, in the wide type."""
        torch, wide = self.torch, self.sums.dtype
        name, x, unit, mean, scale = saved
        by = output_grad * self._values[f"{name}.weight"][:, None]
        torch.sum(output_grad * unit, 1, out=self._sums[f"{name}.weight"])
        if mean is None:
            return (by - unit * (by * unit).mean(-1, keepdim=True)) * scale
        torch.sum(output_grad, 1, dtype=wide, out=self._sums[f"{name}.bias"])
        width, only_input = [self.architecture.width], [True, False, False]
        return torch.ops.aten.native_layer_norm_backward(by, x, width, mean, scale, None, None, only_input)[0]

    def _linear(self, x: Any, name: str) -> Any:
        return self.torch.baddbmm(self._narrow[f"{name}.bias"][:, None], x, self._narrow[f"{name}.weight"])

    def _linear_back(self, output_grad: Any, x: Any, name: str) -> Any:
        """Compute the gradients of a layer's weights from that of its output; return that of its input."""
        torch = self.torch
        torch.sum(output_grad, 1, dtype=self.sums.dtype, out=self._sums[f"{name}.bias"])
        torch.bmm(x.mT, output_grad, out=self._products[f"{name}.weight"])
        return torch.bmm(output_grad, self._narrow[f"{name}.weight"].mT)

    def _expand(self, x: Any, layer: int) -> tuple[Any, Any]:
        name = f"transformer.h.{layer}.mlp"
        inner = self._linear(x, f"{name}.c_fc")
        activated = self.torch.nn.functional.gelu(inner, approximate="tanh")
        return self._linear(activated, f"{name}.c_proj"), (x, inner, activated)

    def _expand_back(self, output_grad: Any, saved: Any, layer: int) -> Any:
        name, (x, inner, activated) = f"transformer.h.{layer}.mlp", saved
        output_grad = self._linear_back(output_grad, activated, f"{name}.c_proj")
        output_grad = self.torch.ops.aten.gelu_backward(output_grad, inner, approximate="tanh")
        return self._linear_back(output_grad, x, f"{name}.c_fc")

    # Attention: [3, R * batch * heads, T, size] of queries, keys and values, so that a product is one call.

    def _split_heads(self, x: Any, n_parts: int) -> Any:
        """Copy [R, N, n_parts * width] to [n_parts, R * batch * heads, T, size]."""
        heads, length = self.architecture.heads, self.length
        split = x.view(-1, length, n_parts, heads, x.shape[-1] // (n_parts * heads)).permute(2, 0, 3, 1, 4)
        return split.reshape(n_parts, -1, *split.shape[3:])

    def _merge_heads(self, x: Any) -> Any:
        """Copy [n_parts, R * batch * heads, T, size] to [R, N, n_parts * width]."""
        n_parts, _, length, size = x.shape
        heads = self.architecture.heads
        merged = x.view(n_parts, -1, heads, length, size).permute(1, 3, 0, 2, 4)
        return merged.reshape(self._n_models, self.batch * length, n_parts * heads * size)

    def _attend(self, x: Any, layer: int) -> tuple[Any, Any]:
        torch, name = self.torch, f"transformer.h.{layer}.attn"
        queries, keys, values = qkv = self._split_heads(self._linear(x, f"{name}.c_attn"), 3)
        probs = torch.softmax(torch.baddbmm(self._mask, queries, keys.mT, alpha=self.scale), -1)
        mixed = self._merge_heads(torch.bmm(probs, values)[None])
        return self._linear(mixed, f"{name}.c_proj"), (x, qkv, probs, mixed)

    def _attend_back(self, output_grad: Any, saved: Any, layer: int) -> Any:
        torch, name, (x, qkv, probs, mixed) = self.torch, f"transformer.h.{layer}.attn", saved
        queries, keys, values = qkv
        (head,) = self._split_heads(self._linear_back(output_grad, mixed, f"{name}.c_proj"), 1)
        back = torch.empty_like(qkv)
        torch.bmm(probs.mT, head, out=back[2])
        scores = torch.bmm(head, values.mT)
        scores = torch.ops.aten._softmax_backward_data(scores, probs, -1, probs.dtype)
        torch.baddbmm(keys, scores, keys, beta=0, alpha=self.scale, out=back[0])
        torch.baddbmm(keys, scores.mT, queries, beta=0, alpha=self.scale, out=back[1])
        return self._linear_back(self._merge_heads(back), x, f"{name}.c_attn")


class _Optimizer:
    """Changes weights [R, n] by gradients [R, n] of the same type, in that type's grid; `names` are of its moments.

    All that a step needs is on the device, the learning rate, too.
    """

    def __init__(self, torch: Any, layout: Layout, weights: Any, gradient: Any, names: Sequence[str]) -> None:
        self._torch, self._weights, self._gradient = torch, weights, gradient
        self.rate = torch.zeros(1, dtype=scalar_dtype(torch, weights.device), device=weights.device)  # of the next step
        self.moments = {name: torch.zeros_like(weights) for name in names}
        self.changing = [weights, *self.moments.values()]  # tensors that a step changes and the next one reads
        self.states = [{"weights": row} for row in weights]  # of each training, named as in a checkpoint
        for name, moment in self.moments.items():
            for state, row in zip(self.states, moment, strict=True):
                state |= {f"{group}.{name}": row[part] for group, part in layout.groups.items()}


class BatchedAdamW(_Optimizer):
    """torch's fused AdamW: one vector of each training that decays, one that does not."""

    def __init__(self, torch: Any, settings: AdamW, layout: Layout, weights: Any, gradient: Any) -> None:
        super().__init__(torch, layout, weights, gradient, ("exp_avg", "exp_avg_sq"))
        counts = self.counts = torch.zeros((2, len(weights)), device=weights.device)
        self.changing.append(counts)
        groups, states = [], {}
        for (name, part), count in zip(layout.groups.items(), counts, strict=True):
            vectors = [row[part] for row in weights]
            for number, vector in enumerate(vectors):
                vector.grad = gradient[number, part]
                state = self.states[number]
                state[f"{name}.step"] = count[number]
                states[vector] = {key: state[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            groups.append({"params": vectors, "weight_decay": settings.weight_decay if name == "matrices" else 0.0})
        self._adamw = torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps, fused=True, capturable=True)
        for group in self._adamw.param_groups:
            group["lr"] = self.rate.view(())
        self._adamw.state.update(states)

    def step(self) -> None:
        self._adamw.step()


class BatchedCoupledAdam(BatchedAdamW):
    """AdamW, but for the embeddings, whose rows share the mean of their second moments."""

    def __init__(self, torch: Any, settings: CoupledAdam, layout: Layout, weights: Any, gradient: Any) -> None:
        super().__init__(torch, settings, layout, weights, gradient)
        self._settings = settings
        self._coupled = [layout.places[name] for name in (TOKEN_EMBEDDING, HEAD) if name in layout.places]

    def step(self) -> None:
        before = [self._weights[:, part].clone() for part, _ in self._coupled]
        super().step()
        # The mean of the moments is the moment of the mean: what the step made of the coupled rows is made anew.
        settings, torch = self._settings, self._torch
        rate, (first, second) = self.rate.float(), settings.betas
        n = self.counts[0][:, None]
        for (part, shape), weights in zip(self._coupled, before, strict=True):
            squares = self.moments["exp_avg_sq"][:, part].unflatten(1, shape)
            squares.copy_(squares.mean(1, keepdim=True, dtype=torch.float32).expand_as(squares))
            scale = (squares.flatten(1).float() / (1 - second**n)).sqrt_().add_(settings.eps)
            moved = self.moments["exp_avg"][:, part].float() / (1 - first**n) / scale
            decayed = weights.float() * (1 - rate * settings.weight_decay)
            self._weights[:, part] = (decayed - rate * moved).to(weights.dtype)


class BatchedSGD(_Optimizer):
    """torch's SGD as on a CPU, which rounds rate and decay to the grid; its fused one errs in bfloat16 there (2.13)."""

    def __init__(self, torch: Any, settings: SGD, layout: Layout, weights: Any, gradient: Any) -> None:
        super().__init__(torch, layout, weights, gradient, ("momentum_buffer",) if settings.momentum else ())
        self._settings, self._decaying = settings, layout.groups["matrices"]
        self._decay = float(torch.tensor(settings.weight_decay, dtype=weights.dtype))

    def step(self) -> None:
        torch, settings, direction = self._torch, self._settings, self._gradient
        if settings.weight_decay:
            part = slice(None), self._decaying
            direction[part].add_(self._weights[part], alpha=self._decay)
        for buffer in self.moments.values():
            direction = buffer.mul_(settings.momentum).add_(direction)
        rate = self.rate.to(direction.dtype).float()
        self._weights.copy_(torch.addcmul(self._weights.float(), direction.float(), -rate))


# By the settings that each takes.
BATCHED: dict[type, Any] = {AdamW: BatchedAdamW, CoupledAdam: BatchedCoupledAdam, SGD: BatchedSGD}
