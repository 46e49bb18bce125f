"""Forward and backward passes and optimizers of several GPT-2s at once: few calls of torch, on fixed tensors."""

from collections.abc import Sequence
from typing import Any

from .choices import SGD, AdamW, CoupledAdam
from .model import EPS, HEAD, POSITION_EMBEDDING, TOKEN_EMBEDDING, Layout, Passes, scalar_dtype, views

ONE_HOT = 1024  # largest vocabulary whose gradient rows are summed by a one-hot product; above it they are sorted


class BatchedPasses(Passes):
    """Passes of R models; no two threads add to one number, so that results have the same bits every time."""

    def __init__(self, *models: Any) -> None:
        super().__init__(*models)
        torch = self.torch
        self._n_models = len(self.wide)
        self.sums, self.products = torch.zeros_like(self.wide), torch.zeros_like(self.narrow)
        vectors = (self.wide, self.narrow, self.sums, self.products)
        self._values, self._narrow, self._sums, self._products = (views(each, self.layout) for each in vectors)
        n_vocabulary = self._values[TOKEN_EMBEDDING].shape[1]
        self._one_hot = torch.eye(n_vocabulary).to(self.wide) if n_vocabulary <= ONE_HOT else None
        self._first_ids = (torch.arange(self._n_models, device=self.wide.device) * n_vocabulary)[:, None]
        loss_weights = self.wide.new_full((self.batch, self.length), 1 / self.n_predicted)
        loss_weights[:, -1] = 0
        self._loss_weights = loss_weights.view(-1)
        self._mask = self.narrow.new_full((self.length, self.length), -torch.inf).triu(1)  # causal, added to scores

    def gradient(self, out: Any) -> None:
        self.torch.add(self.sums, self.products, out=out)

    def paths(self) -> tuple[Any, Any]:
        return self._sums[TOKEN_EMBEDDING], self._products[self.head]

    def __call__(self, inputs: Any, targets: Any) -> Any:
        torch = self.torch
        layers = range(self.architecture.layers)
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
        """Sum the gradient rows [R, N, width] of each token."""
        out = self._sums[TOKEN_EMBEDDING]
        if self._one_hot is not None:
            chosen = self._one_hot.index_select(0, inputs.reshape(-1)).view(-1, self.length, out.shape[1])
            # Example by example: one product of all positions would keep few of a GPU's processors busy.
            added = self.torch.bmm(chosen.mT, grad.view(-1, self.length, grad.shape[-1]))
            self.torch.sum(added.view(self._n_models, self.batch, *out.shape[1:]), 1, out=out)
        else:
            ids = (inputs + self._first_ids).view(-1)
            rows = grad.reshape(-1, grad.shape[-1])
            sum_rows = self.torch.ops.aten.embedding_dense_backward
            out.copy_(sum_rows(rows, ids, self._n_models * out.shape[1], -1, False).view_as(out))

    def _score(self, logits: Any, targets: Any) -> tuple[Any, Any]:
        """Return mean losses [R], and the gradient [R, N, vocabulary] of their sum."""
        aten = self.torch.ops.aten
        wide = self.sums.dtype
        log_probs = self.torch.log_softmax(logits, -1, dtype=wide).view(-1, logits.shape[-1])
        labels = targets.reshape(-1)
        options = (None, 0, -100)  # no weights of classes, no reduction, and the label that is ignored
        losses, total = aten.nll_loss_forward(log_probs, labels, *options)
        loss_weights = self._loss_weights.expand(self._n_models, -1).reshape(-1)
        grad = aten.nll_loss_backward(loss_weights, log_probs, labels, *options, total)
        output_grad = aten._log_softmax_backward_data(grad, log_probs, -1, wide)
        mean = (losses.view_as(targets) * self._loss_weights).sum(1)
        return mean, output_grad.to(self.narrow.dtype).view_as(logits)

    def _normalise(self, x: Any, name: str) -> tuple[Any, Any]:
        """Return LayerNorm or RMSNorm of rows, and what its backward pass needs."""
        torch = self.torch
        gain = self._values[f"{name}.weight"][:, None]
        out = torch.empty(x.shape, dtype=self.narrow.dtype, device=x.device)
        if self.architecture.norm == "layernorm":
            unit, mean, scale = torch.native_layer_norm(x, x.shape[-1:], None, None, EPS)
            torch.addcmul(self._values[f"{name}.bias"][:, None], unit, gain, out=out)
        else:
            mean = None
            scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)
            unit = x * scale
            torch.mul(unit, gain, out=out)
        return out, (name, x, unit, mean, scale)

    def _normalise_back(self, output_grad: Any, saved: Any) -> Any:
        """Return the gradient of a norm's input from that of its output, in the wide type."""
        torch = self.torch
        name, x, unit, mean, scale = saved
        by = output_grad * self._values[f"{name}.weight"][:, None]
        torch.sum(output_grad * unit, 1, out=self._sums[f"{name}.weight"])
        if mean is None:
            return (by - unit * (by * unit).mean(-1, keepdim=True)) * scale
        torch.sum(output_grad, 1, dtype=self.sums.dtype, out=self._sums[f"{name}.bias"])
        backward = torch.ops.aten.native_layer_norm_backward
        return backward(by, x, x.shape[-1:], mean, scale, None, None, [True, False, False])[0]  # of the input alone

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
        name = f"transformer.h.{layer}.mlp"
        x, inner, activated = saved
        output_grad = self._linear_back(output_grad, activated, f"{name}.c_proj")
        output_grad = self.torch.ops.aten.gelu_backward(output_grad, inner, approximate="tanh")
        return self._linear_back(output_grad, x, f"{name}.c_fc")

    # Attention: [3, R * batch * heads, T, size] of queries, keys and values, so that a product is one call.

    def _split_heads(self, x: Any, n_parts: int) -> Any:
        """Copy [R, N, n_parts * width] to [n_parts, R * batch * heads, T, size]."""
        heads = self.architecture.heads
        split = x.view(-1, self.length, n_parts, heads, x.shape[-1] // (n_parts * heads)).permute(2, 0, 3, 1, 4)
        return split.reshape(n_parts, -1, *split.shape[3:])

    def _merge_heads(self, x: Any) -> Any:
        """Copy [n_parts, R * batch * heads, T, size] to [R, N, n_parts * width]."""
        n_parts, _, length, size = x.shape
        heads = self.architecture.heads
        merged = x.view(n_parts, -1, heads, length, size).permute(1, 3, 0, 2, 4)
        return merged.reshape(self._n_models, self.batch * length, n_parts * heads * size)

    def _attend(self, x: Any, layer: int) -> tuple[Any, Any]:
        name = f"transformer.h.{layer}.attn"
        queries, keys, values = qkv = self._split_heads(self._linear(x, f"{name}.c_attn"), 3)
        probs = self.torch.baddbmm(self._mask, queries, keys.mT, alpha=self.scale).softmax(-1)
        mixed = self._merge_heads(self.torch.bmm(probs, values)[None])
        return self._linear(mixed, f"{name}.c_proj"), (x, qkv, probs, mixed)

    def _attend_back(self, output_grad: Any, saved: Any, layer: int) -> Any:
        torch = self.torch
        name = f"transformer.h.{layer}.attn"
        x, (queries, keys, values), probs, mixed = saved
        (head,) = self._split_heads(self._linear_back(output_grad, mixed, f"{name}.c_proj"), 1)
        grad = head.new_empty(3, *head.shape)
        torch.bmm(probs.mT, head, out=grad[2])
        scores = torch.bmm(head, values.mT)
        scores = torch.ops.aten._softmax_backward_data(scores, probs, -1, probs.dtype)
        torch.baddbmm(keys, scores, keys, beta=0, alpha=self.scale, out=grad[0])
        torch.baddbmm(keys, scores.mT, queries, beta=0, alpha=self.scale, out=grad[1])
        return self._linear_back(self._merge_heads(grad), x, f"{name}.c_attn")


class _Optimizer:
    """Optimizer of weights [R, n] by gradients [R, n] of the same dtype; `names` are those of its moments."""

    def __init__(self, torch: Any, layout: Layout, weights: Any, gradient: Any, names: Sequence[str]) -> None:
        self._torch = torch
        self._weights = weights
        self._gradient = gradient
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
        groups = []
        states = {}
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
        # The mean of the moments is the moment of the mean: the step of the coupled rows is made anew.
        settings = self._settings
        rate = self.rate.float()
        first, second = settings.betas
        n = self.counts[0][:, None]
        for (part, shape), weights in zip(self._coupled, before, strict=True):
            squares = self.moments["exp_avg_sq"][:, part].unflatten(1, shape)
            squares.copy_(squares.mean(1, keepdim=True, dtype=rate.dtype).expand_as(squares))
            scale = (squares.flatten(1).float() / (1 - second**n)).sqrt_().add_(settings.eps)
            moved = self.moments["exp_avg"][:, part].float() / (1 - first**n) / scale
            decayed = weights.float() * (1 - rate * settings.weight_decay)
            self._weights[:, part] = (decayed - rate * moved).to(weights.dtype)


class BatchedSGD(_Optimizer):
    """torch's SGD as on a CPU, which rounds rate and decay to the grid; its fused one errs in bfloat16 there (2.13)."""

    def __init__(self, torch: Any, settings: SGD, layout: Layout, weights: Any, gradient: Any) -> None:
        super().__init__(torch, layout, weights, gradient, ("momentum_buffer",) if settings.momentum else ())
        self._settings = settings
        self._decaying = (slice(None), layout.groups["matrices"])
        self._decay = float(torch.tensor(settings.weight_decay, dtype=weights.dtype))

    def step(self) -> None:
        direction = self._gradient
        if self._settings.weight_decay:
            direction[self._decaying].add_(self._weights[self._decaying], alpha=self._decay)
        for buffer in self.moments.values():
            direction = buffer.mul_(self._settings.momentum).add_(direction)
        rate = self.rate.to(direction.dtype).float()
        self._weights.copy_(self._torch.addcmul(self._weights.float(), direction.float(), -rate))


# By the type of their settings.
BATCHED: dict[type, Any] = {AdamW: BatchedAdamW, CoupledAdam: BatchedCoupledAdam, SGD: BatchedSGD}
