"""Give each trial its own random numbers: a counter-based generator for each seed, purpose, point and trial.

The notebooks instead draw everything from one stream, torch's global CPU generator.
"""

import numpy as np
from jaxtyping import Float32

from ..errors import InvalidInput
from ..extras import import_torch

NOISE, BASE, SAMPLE = 0, 1, 2  # purposes of a generator: their streams never overlap
SEED_LIMIT = 2**64


def check_seed(seed: int) -> int:
    """Return the seed; raise InvalidInput unless 0 <= seed < 2**64."""
    if not 0 <= seed < SEED_LIMIT:
        raise InvalidInput(f"seed must be from 0 to 2**64 - 1, got {seed}")
    return seed


def generator(seed: int, point: int, trial: int, *, purpose: int = NOISE) -> np.random.Generator:
    """Return the generator of one trial: Philox4x64 with key (seed, purpose) and counter (0, 0, point, trial).

    Its numbers do not depend on what else was drawn, in which order, or in which process.
    """
    key = np.array([check_seed(seed), purpose], np.uint64)
    counter = np.array([0, 0, point, trial], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class NotebookStream:
    """One stream for a whole experiment, as after ``torch.manual_seed(seed)``, without touching torch's global state.

    The notebooks' numbers, bit for bit, for draws of their shapes: ``torch.randn`` fills small tensors in another way.
    """

    def __init__(self, seed: int, state: bytes | None = None) -> None:
        """Start the stream, or continue it from a `state`."""
        torch = import_torch("--sampler notebook")
        self._torch = torch
        self._generator = torch.Generator(device="cpu").manual_seed(seed)
        if state is not None:
            self._generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))

    @property
    def state(self) -> bytes:
        """State of the stream, from which another can continue."""
        return bytes(self._generator.get_state().numpy())

    def noise(self, *shape: int) -> Float32[np.ndarray, " ..."]:
        """Draw ``torch.randn(*shape)``, float32."""
        return self._torch.randn(*shape, generator=self._generator, dtype=self._torch.float32).numpy()

    def base(self, kind: str, dim: int) -> Float32[np.ndarray, " dim"]:
        """Draw ``torch.randn(dim)``; for "random-unit" divide it by its norm, as torch computes it."""
        vector = self._torch.randn(dim, generator=self._generator, dtype=self._torch.float32)
        return (vector / vector.norm() if kind == "random-unit" else vector).numpy()
