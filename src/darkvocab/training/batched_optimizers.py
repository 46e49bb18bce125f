"""Optimizers of several trainings at once: all that a step needs is on the device, the learning rate, too."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from .choices import SGD, AdamW
from .model import Layout, scalar_dtype


class Optimizer(ABC):
    """Changes weights [R, n] by gradients [R, n] of the same type, in that type's grid."""

    def __init__(self, torch: Any, settings: Any, layout: Layout, weights: Any, gradient: Any) -> None:
        self._torch, self._weights, self._gradient = torch, weights, gradient
        self.rate = torch.zeros(1, dtype=scalar_dtype(torch, weights.device), device=weights.device)  # of the next step
        self.states = [{"weights": row} for row in weights]  # of each training, named as in a checkpoint
        self.moments: list[Any] = []  # [R, n] each
        self.changing = [weights]  # tensors that a step changes and the next one reads
        self._prepare(settings, layout)

    @abstractmethod
    def _prepare(self, settings: Any, layout: Layout) -> None: ...

    @abstractmethod
    def step(self) -> None: ...

    def _name(self, name: str, group: str, values: Any) -> None:
        for state, value in zip(self.states, values, strict=True):
            state[f"{group}.{name}"] = value


class BatchedAdamW(Optimizer):
    """torch's fused AdamW: one vector of each training that decays, one that does not."""

    def _prepare(self, settings: AdamW, layout: Layout) -> None:
        torch = self._torch
        counts = torch.zeros((2, len(self._weights)), device=self._weights.device)
        self.moments = [torch.zeros_like(self._weights) for _ in range(2)]
        self.changing += [counts, *self.moments]
        groups, states = [], {}
        for (name, part), count in zip(layout.groups.items(), counts, strict=True):
            vectors = [row[part] for row in self._weights]
            first, second = ([row[part] for row in moments] for moments in self.moments)
            held = {"step": list(count), "exp_avg": first, "exp_avg_sq": second}
            for key, values in held.items():
                self._name(key, name, values)
            for number, vector in enumerate(vectors):
                vector.grad = self._gradient[number, part]
                states[vector] = {key: values[number] for key, values in held.items()}
            groups.append({"params": vectors, "weight_decay": settings.weight_decay if name == "matrices" else 0.0})
        self._adamw = torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps, fused=True, capturable=True)
        for group in self._adamw.param_groups:
            group["lr"] = self.rate.view(())
        self._adamw.state.update(states)

    def step(self) -> None:
        self._adamw.step()


class BatchedSGD(Optimizer):
    """torch's SGD as on a CPU, which rounds rate and decay to the grid; its fused one errs in bfloat16 there (2.13)."""

    def _prepare(self, settings: SGD, layout: Layout) -> None:
        self._settings, self._decaying = settings, layout.groups["matrices"]
        self._decay = float(self._torch.tensor(settings.weight_decay, dtype=self._weights.dtype))
        if settings.momentum:
            self.moments = [self._torch.zeros_like(self._weights)]
            self.changing += self.moments
            for name, part in layout.groups.items():
                self._name("momentum_buffer", name, [row[part] for row in self.moments[0]])

    def step(self) -> None:
        torch, settings, direction = self._torch, self._settings, self._gradient
        if settings.weight_decay:
            part = slice(None), self._decaying
            direction[part].add_(self._weights[part], alpha=self._decay)
        for buffer in self.moments:
            direction = buffer.mul_(settings.momentum).add_(direction)
        rate = self.rate.to(direction.dtype).float()
        self._weights.copy_(torch.addcmul(self._weights.float(), direction.float(), -rate))


def optimizer(settings: AdamW | SGD) -> type[Optimizer]:
    """Return the class for these settings."""
    return BatchedAdamW if isinstance(settings, AdamW) else BatchedSGD
