"""A language model with its optimizer, one step at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...engine import MissingExtra
from ...folder import write_whole
from ..notebook import INSTALL, import_torch
from .choices import Architecture
from .passes import Passes, array

if TYPE_CHECKING:
    from .lab import Training

SMALL = 1 << 22  # weights whose update one core makes
NOISE, ROUNDING = range(2)  # what a step's generators are for


class Diverged(ArithmeticError):
    """The loss is no number any more."""


class Metrics(NamedTuple):
    """Of one step; the loss is that of its batch before it."""

    step: int
    loss: float
    gradient_norm: float  # before clipping
    learning_rate: float


def import_models() -> Any:
    """transformers, or a sentence that says how to get it."""
    try:
        import transformers
    except ImportError:
        raise MissingExtra(f"train needs transformers, which is not installed; install it with: {INSTALL}") from None
    return transformers


def build(torch: Any, architecture: Architecture, n_vocabulary: int) -> Any:
    """transformers' GPT2LMHeadModel of this size, drawn from torch's global generator, in float32.

    Its GELU is the fused one of the same formula.
    """
    transformers = import_models()
    config = transformers.GPT2Config(
        vocab_size=n_vocabulary,
        n_positions=architecture.context,
        n_embd=architecture.width,
        n_layer=architecture.layers,
        n_head=architecture.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",
        tie_word_embeddings=architecture.tied,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    model = transformers.GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"  # else it says, on every start, that it takes this one
    if architecture.norm == "rmsnorm":
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, torch.nn.LayerNorm):
                    setattr(module, name, torch.nn.RMSNorm(child.normalized_shape, eps=child.eps))
    return model


def _device(torch: Any, name: str) -> Any:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name.partition(":")[0]]:
        raise ValueError(f"torch sees no {name} here; choose one of {', '.join(kind for kind in there if there[kind])}")
    return torch.device(name)


class Learner:
    """The model of a training, from its start; its state is a function of the settings and the steps made.

    The weights are one vector, matrices (which decay) before vectors (which do not), of which the model's parameters
    are views. Where the optimizer keeps its own grid, it has a vector of its own, and the model a float32 copy.
    """

    def __init__(self, training: Training, cores: int | None = None) -> None:
        """`cores` to work on, where there is no other device; by default all. Never changes a result."""
        torch = self._torch = import_torch("train")
        self.training = training
        self._precision = training.kept
        grid = {"bfloat16": torch.bfloat16, "float32": torch.float32}
        weights, kept = grid[self._precision.weights], grid[self._precision.optimizer]
        n_vocabulary, device = training.corpus.n_vocabulary, _device(torch, training.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)  # the notebooks' order: model, its rounding, then the start
            model = build(torch, training.architecture, n_vocabulary)
            shape = n_vocabulary, training.architecture.width
            rows = training.start.rows(torch, shape, weights)
        if rows is not None:
            with torch.no_grad():
                model.transformer.wte.weight.copy_(rows)
        self.model = model.to(device).train()
        parameters = sorted(model.parameters(), key=lambda parameter: parameter.dim() < 2)
        n_matrices = sum(parameter.numel() for parameter in parameters if parameter.dim() >= 2)
        self._shown = torch.cat([parameter.detach().reshape(-1) for parameter in parameters]).to(weights).float()
        self._gradient = torch.zeros_like(self._shown)
        self._kept = self._shown if kept == torch.float32 else self._shown.to(kept)
        self._kept_gradient = self._gradient if kept == torch.float32 else torch.zeros_like(self._kept)
        names = {parameter: name for name, parameter in model.named_parameters()}
        places = {}
        self._clipped, at = [], 0
        for parameter in parameters:
            part = slice(at, at + parameter.numel())
            parameter.data = self._shown[part].view_as(parameter)
            parameter.grad = self._gradient[part].view_as(parameter)
            places[names[parameter]] = part, parameter.shape
            self._clipped.append(self._kept_gradient[part])
            at += parameter.numel()
        groups = []
        for part, decay in ((slice(n_matrices), training.optimizer.weight_decay), (slice(n_matrices, None), 0.0)):
            vector = self._kept[part]
            vector.grad = self._kept_gradient[part]
            groups.append({"params": [vector], "weight_decay": decay})
        self.optimizer = training.optimizer.make(torch, groups)
        self._embedding = model.transformer.wte.weight
        self._weights = weights
        noise = training.noise
        self._noisy = None if noise is None or noise.rows == "all" else torch.from_numpy(training.corpus.unseen)
        self._shape = shape
        self._products = grid[self._precision.products]
        self._passes = None
        if device.type == "cpu":
            vectors = self._shown, self._gradient
            self._passes = Passes(training.architecture, places, *vectors, self._products, cores)

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
    def gradient(self) -> np.ndarray:
        """Of the embedding, in the last step, before clipping."""
        return self.words(self._embedding.grad)

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
        if self._passes:
            with self._alone():  # their threads are our own
                loss = self._passes(inputs, labels)
        else:
            loss = self._differentiate(inputs, labels)
        # Threads that wait for each other cost more than what is too small to be shared out.
        alone = self._alone() if self._passes and self._shown.numel() <= SMALL else nullcontext()
        with alone, self._torch.no_grad():
            return self._update(number, loss)

    def _update(self, number: int, loss: float) -> Metrics:
        torch, training = self._torch, self.training
        if self._kept_gradient is not self._gradient:
            self._kept_gradient.copy_(self._gradient)
        norm = torch.nn.utils.get_total_norm(self._clipped)
        metrics = Metrics(number, loss, norm.item(), training.learning_rate(number))
        if not (math.isfinite(metrics.loss) and math.isfinite(metrics.gradient_norm)):
            what = f"loss {metrics.loss}, gradient norm {metrics.gradient_norm}"
            raise Diverged(f"the training diverged at step {number:,}: {what}; what was recorded before is kept")
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

    def _differentiate(self, inputs: np.ndarray, labels: np.ndarray) -> float:
        """Loss and gradient by transformers' own forward pass and torch's autograd."""
        torch, device = self._torch, self._shown.device
        batch, targets = torch.from_numpy(inputs).to(device), torch.from_numpy(labels).to(device)
        self._gradient.zero_()
        with torch.autocast(device.type, torch.bfloat16, enabled=self._products == torch.bfloat16):
            loss = self.model(input_ids=batch, labels=targets).loss
        loss.backward()
        return float(loss.item())

    def _generator(self, number: int, purpose: int) -> Any:
        """A step's own random numbers, so that a continued training draws those of one that was not interrupted."""
        seed = np.random.SeedSequence([self.training.seed, number, purpose]).generate_state(1, np.uint64)[0]
        return self._torch.Generator(self._shown.device).manual_seed(int(seed) >> 1)

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
                device=bits.device,
            )
            bits.add_(drawn).bitwise_and_(-(1 << 16))

    def _add_noise(self, number: int) -> None:
        noise = self.training.noise
        if noise is None:
            return
        torch = self._torch
        drawn = torch.randn(self._shape, generator=self._generator(number, NOISE), device=self._shown.device)
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
        if self._passes:
            tensors["blocks"] = self._torch.tensor(self._passes.n_blocks)
        for name, group in zip(("matrices", "vectors"), self.optimizer.param_groups, strict=True):
            for key, value in self.optimizer.state.get(group["params"][0], {}).items():
                if self._torch.is_tensor(value):
                    tensors[f"{name}.{key}"] = value
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def load(self, tensors: dict[str, Any]) -> None:
        """Go on from a state."""
        self._kept.copy_(tensors["weights"])
        if self._passes:
            self._passes.n_blocks = max(1, int(tensors["blocks"]))  # whatever cores there are now
        if self._kept is not self._shown:
            self._shown.copy_(self._kept)
        for name, group in zip(("matrices", "vectors"), self.optimizer.param_groups, strict=True):
            (vector,) = group["params"]
            prefix = f"{name}."
            own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if own:
                device = {key: value if key == "step" else value.to(vector.device) for key, value in own.items()}
                self.optimizer.state[vector] = device

    def save(self, folder: Path) -> None:
        """The model as transformers loads it, in the weights' grid."""
        from safetensors.torch import save

        tied = self.training.architecture.tied
        tensors = {
            name: tensor.to(self._weights).cpu().contiguous()
            for name, tensor in self.model.state_dict().items()
            if not (tied and name == "lm_head.weight")
        }
        self.model.config.dtype = self._weights
        self.model.config.architectures = [type(self.model).__name__]
        self.model.config.save_pretrained(folder)
        write_whole(folder / "model.safetensors", save(tensors, {"format": "pt"}))
