"""A language model with its optimizer on a CPU, one step at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import Diverged
from ..extras import import_torch
from .model import Layout, begin, grid, save
from .passes import Passes, array

if TYPE_CHECKING:
    from .run import Training

SMALL = 1 << 22  # weights whose update one core makes
NOISE, ROUNDING = range(2)  # what a step's generators are for


class Metrics(NamedTuple):
    """Of one step; the loss is that of its batch before it."""

    step: int
    loss: float
    gradient_norm: float  # before clipping
    learning_rate: float


def diverged(metrics: Metrics) -> Diverged:
    """Return the error of a training that diverged at the step of these metrics."""
    what = f"loss {metrics.loss}, gradient norm {metrics.gradient_norm}"
    return Diverged(f"the training diverged at step {metrics.step:,}: {what}; what was recorded before is kept")


class Learner:
    """The model of a training on a CPU, from its start; its state is a function of the settings and the steps made.

    The weights are one vector, matrices (which decay) before vectors (which do not), of which the model's parameters
    are views. Where the optimizer keeps its own grid, it has a vector of its own, and the model a float32 copy.
    """

    gradient: np.ndarray  # words of the embedding's, in the last step, before it was clipped; where that is recorded

    def __init__(self, training: Training, cores: int | None = None) -> None:
        """`cores` to work on, by default all. Never changes a result."""
        torch = self._torch = import_torch("train")
        self.training = training
        self._precision = training.kept
        self._weights, kept = grid(torch, self._precision.weights), grid(torch, self._precision.optimizer)
        self.model = begin(torch, training)
        layout = Layout.of(self.model)
        self._shown = layout.vector(torch, self.model).to(self._weights).float()
        self._gradient = torch.zeros_like(self._shown)
        self._kept = self._shown if kept == torch.float32 else self._shown.to(kept)
        self._kept_gradient = self._gradient if kept == torch.float32 else torch.zeros_like(self._kept)
        for name, parameter in self.model.named_parameters():
            part, shape = layout.places[name]
            parameter.data = self._shown[part].view(shape)
            parameter.grad = self._gradient[part].view(shape)
        self._clipped = [self._kept_gradient[part] for part, _ in layout.places.values()]
        groups = []
        for part, decay in zip(layout.groups.values(), (training.optimizer.weight_decay, 0.0), strict=True):
            vector = self._kept[part]
            vector.grad = self._kept_gradient[part]
            groups.append({"params": [vector], "weight_decay": decay})
        self.optimizer = training.optimizer.make(torch, groups)
        self._embedding = self.model.transformer.wte.weight
        noise = training.noise
        self._noisy = None if noise is None or noise.rows == "all" else torch.from_numpy(training.corpus.unseen)
        self._shape = tuple(self._embedding.shape)
        products = grid(torch, self._precision.products)
        self._passes = Passes(training.architecture, layout.places, self._shown, self._gradient, products, cores)

    # What is recorded -------------------------------------------------------------------------------------------

    def words(self, tensor: Any) -> np.ndarray:
        """A tensor of the embedding's shape as words of the weights' grid."""
        own = array(tensor.detach().to(self._weights).cpu().contiguous())
        return own.view(f"u{own.itemsize}")

    @property
    def rows(self) -> np.ndarray:
        """The embedding."""
        return self.words(self._embedding)

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Adam's moments of the embedding."""
        at = self._embedding.storage_offset()
        state = self.optimizer.state[self.optimizer.param_groups[0]["params"][0]]
        part = slice(at, at + self._embedding.numel())
        first, second = (state[name][part].view(self._shape) for name in ("exp_avg", "exp_avg_sq"))
        return self.words(first), self.words(second)

    # A step -----------------------------------------------------------------------------------------------------

    def step(self, number: int, inputs: np.ndarray, labels: np.ndarray) -> Metrics:
        """Make step `number`, counted from 1.

        Raises
        ------
        Diverged
            The loss or the gradient is no number; the weights are as they were before.
        """
        with self._alone():  # their threads are our own
            loss = self._passes(inputs, labels)
        # Threads that wait for each other cost more than what is too small to be shared out.
        alone = self._alone() if self._shown.numel() <= SMALL else nullcontext()
        with alone, self._torch.no_grad():
            return self._update(number, loss)

    def _update(self, number: int, loss: float) -> Metrics:
        torch, training = self._torch, self.training
        if self._kept_gradient is not self._gradient:
            self._kept_gradient.copy_(self._gradient)
        norm = torch.nn.utils.get_total_norm(self._clipped)
        metrics = Metrics(number, loss, norm.item(), training.learning_rate(number))
        if not (math.isfinite(metrics.loss) and math.isfinite(metrics.gradient_norm)):
            raise diverged(metrics)
        if "gradients" in training.record:
            self.gradient = self.words(self._embedding.grad).copy()
        if training.clip is not None:  # by torch's own rule, in the gradient's grid
            self._kept_gradient.mul_(torch.clamp(training.clip / (norm + 1e-6), max=1.0))
        for group in self.optimizer.param_groups:
            group["lr"] = metrics.learning_rate
        self.optimizer.step()
        self._round(number)
        self._add_noise(number)
        return metrics

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """torch keeps to this thread."""
        threads = self._torch.get_num_threads()
        self._torch.set_num_threads(1)
        try:
            yield
        finally:
            self._torch.set_num_threads(threads)

    def _generator(self, number: int, purpose: int) -> Any:
        """A step's own random numbers, so that a continued training draws those of one that was not interrupted."""
        seed = np.random.SeedSequence([self.training.seed, number, purpose]).generate_state(1, np.uint64)[0]
        return self._torch.Generator().manual_seed(int(seed) >> 1)

    def _round(self, number: int) -> None:
        """Bring the weights onto their grid, and the model's copy to them."""
        torch = self._torch
        if self._kept is not self._shown:
            self._shown.copy_(self._kept)
        elif self._precision.rounded and self.training.rounding == "nearest":
            self._shown.copy_(self._shown.to(self._weights))
        elif self._precision.rounded:
            # Added to a float32's bits, 16 random ones carry into bfloat16's as often as the rest is large.
            bits = self._shown.view(torch.int32)
            drawn = torch.randint(
                0,
                1 << 16,
                bits.shape,
                generator=self._generator(number, ROUNDING),
                dtype=torch.int32,
            )
            bits.add_(drawn).bitwise_and_(-(1 << 16))

    def _add_noise(self, number: int) -> None:
        noise = self.training.noise
        if noise is None:
            return
        torch = self._torch
        drawn = torch.randn(self._shape, generator=self._generator(number, NOISE))
        drawn = drawn.to(self._weights) * noise.sigma  # in the weights' grid, as `randn_like` has it
        rows = self._embedding.data.to(self._weights)
        if self._noisy is None:
            rows += drawn
        else:
            rows[self._noisy] += drawn[self._noisy]
        self._embedding.data.copy_(rows)
        if self._kept is not self._shown:
            at = self._embedding.storage_offset()
            self._kept[at : at + rows.numel()].copy_(rows.reshape(-1))

    # Checkpoints ------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on, as named tensors."""
        tensors = {"weights": self._kept}
        tensors["blocks"] = self._torch.tensor(self._passes.n_blocks)
        for name, group in zip(("matrices", "vectors"), self.optimizer.param_groups, strict=True):
            for key, value in self.optimizer.state.get(group["params"][0], {}).items():
                if self._torch.is_tensor(value):
                    tensors[f"{name}.{key}"] = value
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def load(self, tensors: dict[str, Any]) -> None:
        """Go on from a state."""
        self._kept.copy_(tensors["weights"])
        self._passes.n_blocks = max(1, int(tensors["blocks"]))  # whatever cores there are now
        if self._kept is not self._shown:
            self._shown.copy_(self._kept)
        for name, group in zip(("matrices", "vectors"), self.optimizer.param_groups, strict=True):
            (vector,) = group["params"]
            prefix = f"{name}."
            own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if own:
                self.optimizer.state[vector] = own

    def save(self, folder: Path) -> None:
        """The model as transformers loads it, in the weights' grid."""
        save(self.model, self._weights, folder)
