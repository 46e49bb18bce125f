"""Optimizers of several trainings abreast: all that a step needs is on the device, the learning rate, too."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from .choices import SGD, AdamW
from .model import Layout


class Optimizer(ABC):
    """Changes weights [R, n] by gradients [R, n] of the same type, in that type's grid."""

    def __init__(self, torch: Any, settings: Any, layout: Layout, weights: Any, gradient: Any) -> None:
        self._torch, self._weights, self._gradient = torch, weights, gradient
        self.rate = torch.zeros(1, device=weights.device)  # of the next step
        self.states = [{"weights": own} for own in weights]  # of each training, named as a `Learner`'s
        self.moments: list[Any] = []  # [R, n] each
        self.changing = [weights]  # tensors that a step changes and the next one reads
        self._prepare(settings, layout)

    @abstractmethod
    def _prepare(self, settings: Any, layout: Layout) -> None: ...

    @abstractmethod
    def step(self) -> None: ...

    def _keep(self, name: str, group: str, values: Any) -> None:
        for state, value in zip(self.states, values, strict=True):
            state[f"{group}.{name}"] = value


class AdamWAbreast(Optimizer):
    """torch's own, fused: one vector of each training that decays, one that does not."""

    def _prepare(self, settings: AdamW, layout: Layout) -> None:
        torch = self._torch
        counts = torch.zeros((2, len(self._weights)), device=self._weights.device)
        self.moments = [torch.zeros_like(self._weights) for _ in range(2)]
        self.changing += [counts, *self.moments]
        groups, states = [], {}
        for (name, part), count in zip(layout.groups.items(), counts, strict=True):
            vectors = [weights[part] for weights in self._weights]
            kept = {"step": list(count)}
            kept |= {
                key: [own[part] for own in moments]
                for key, moments in zip(("exp_avg", "exp_avg_sq"), self.moments, strict=True)
            }
            for key, values in kept.items():
                self._keep(key, name, values)
            for number, vector in enumerate(vectors):
                vector.grad = self._gradient[number, part]
                states[vector] = {key: values[number] for key, values in kept.items()}
            groups.append({"params": vectors, "weight_decay": settings.weight_decay if name == "matrices" else 0.0})
        self._own = torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps, fused=True, capturable=True)
        for group in self._own.param_groups:
            group["lr"] = self.rate.view(())
        self._own.state.update(states)

    def step(self) -> None:
        self._own.step()


class SGDAbreast(Optimizer):
    """As torch's on a CPU, which rounds rate and decay to the grid; its fused one errs in bfloat16 there (2.13)."""

    def _prepare(self, settings: SGD, layout: Layout) -> None:
        self._settings, self._decaying = settings, layout.groups["matrices"]
        self._decay = float(self._torch.tensor(settings.weight_decay, dtype=self._weights.dtype))
        if settings.momentum:
            self.moments = [self._torch.zeros_like(self._weights)]
            self.changing += self.moments
            for name, part in layout.groups.items():
                self._keep("momentum_buffer", name, [own[part] for own in self.moments[0]])

    def step(self) -> None:
        torch, settings, along = self._torch, self._settings, self._gradient
        if settings.weight_decay:
            part = slice(None), self._decaying
            along[part].add_(self._weights[part], alpha=self._decay)
        for buffer in self.moments:
            along = buffer.mul_(settings.momentum).add_(along)
        rate = self.rate.to(along.dtype).float()
        self._weights.copy_(torch.addcmul(self._weights.float(), along.float(), -rate))


def optimizer(settings: AdamW | SGD) -> type[Optimizer]:
    """The one of these settings."""
    return AdamWAbreast if isinstance(settings, AdamW) else SGDAbreast
