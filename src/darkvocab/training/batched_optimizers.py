"""Optimizers of several trainings at once: all that a step needs is on the device, the learning rate, too."""

from collections.abc import Sequence
from typing import Any

from .choices import SGD, AdamW, CoupledAdam
from .model import HEAD, TOKEN_EMBEDDING, Layout, scalar_dtype


class _Optimizer:
    """Changes weights [R, n] by gradients [R, n] of the same type, in that type's grid; `names` are of its moments."""

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
