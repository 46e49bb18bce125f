"""The notebooks' own random numbers: torch's global CPU generator, drawn from in the notebooks' order."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from ..extras import import_torch


class NotebookStream:
    """One stream for a whole experiment, as after ``torch.manual_seed(seed)``, without touching torch's global state.

    Bit for bit the notebooks' numbers on the CPU: ``torch.randn`` fills float32 tensors of 16 elements and more by
    another rule than smaller ones, so draws must have the notebooks' shapes.
    """

    def __init__(self, seed: int, state: bytes | None = None) -> None:
        """Start the stream, or go on from a `state` of it."""
        torch = import_torch("--sampler notebook")
        self._torch = torch
        self._generator = torch.Generator(device="cpu").manual_seed(seed)
        if state is not None:
            self._generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))

    @property
    def state(self) -> bytes:
        """State of the stream: a stream made from it goes on from there."""
        return bytes(self._generator.get_state().numpy())

    def noise(self, *shape: int) -> Float32[np.ndarray, ...]:
        """``torch.randn(*shape)``, float32."""
        return self._torch.randn(*shape, generator=self._generator, dtype=self._torch.float32).numpy()

    def base(self, kind: str, dim: int) -> Float32[np.ndarray, " dim"]:
        """``torch.randn(dim)``; for "random-unit" divided by its norm as torch computes it."""
        vector = self._torch.randn(dim, generator=self._generator, dtype=self._torch.float32)
        return (vector / vector.norm() if kind == "random-unit" else vector).numpy()
