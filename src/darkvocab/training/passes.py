"""Forward and backward pass of a GPT-2, written out: what those of one model and those of several share."""

from abc import ABC, abstractmethod
from typing import Any

from .choices import Architecture
from .model import TOKEN_EMBEDDING, Layout

EPS = 1e-5  # of the norms


class Passes(ABC):
    """Loss and gradient of R GPT-2s of one size, each with its own weights and batch of N = batch * T places.

    Products are of numbers of the type of `narrow`; sums, norms and losses are of the type of `wide`. The plain twin is
    transformers' model with autograd.

    Parameters
    ----------
    wide : [R, n], all weights
    narrow : [R, n], the same in the type of the products: bfloat16 or float32
    batch : examples of a step
    """

    def __init__(
        self, torch: Any, architecture: Architecture, layout: Layout, wide: Any, narrow: Any, batch: int
    ) -> None:
        self.torch, self.architecture, self.layout = torch, architecture, layout
        self.wide, self.narrow = wide, narrow
        self.batch, self.length = batch, architecture.context
        self.n_predicted = batch * (self.length - 1)  # the last place of an example predicts nothing
        self.head = "lm_head.weight" if "lm_head.weight" in layout.places else TOKEN_EMBEDDING
        self.scale = (architecture.width // architecture.heads) ** -0.5  # of products of queries and keys

    @abstractmethod
    def __call__(self, inputs: Any, targets: Any) -> Any:
        """Return mean losses [R] of R batches of tokens and of what each place is to predict, [R, N] int64."""

    @abstractmethod
    def gradient(self, out: Any) -> None:
        """Write the last call's gradient [R, n], in the type of `out`."""
