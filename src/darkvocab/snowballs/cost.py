"""Cost: about how long a run takes, so into how many parts it goes and whether more workers pay."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..numerics.cells import Cells
from .settings import RunSettings

MOST_TOGETHER = 4096  # records in a part at most
MOST_PARTS = 1000  # a folder of more files is slow to list and to read
FEWEST_PARTS = 16  # where there are records enough, so that a short run can be interrupted and shared, too
NOGIL = 5e-3  # seconds of a trial from which threads do not wait for each other's Python
WORTH_THREADS, WORTH_PROCESSES = 0.3, 8.0  # seconds of work from which a second worker pays its start


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a run, by the figures of one machine."""

    n_records: int
    trial_seconds: float  # of a trial of the largest sigma, on one core

    @classmethod
    def of(cls, settings: RunSettings) -> Cost:
        """Estimate what a run costs."""
        return cls(len(settings), _trial_seconds(settings))

    @property
    def part_size(self) -> int:
        """Records of a part: a second's work; at most a sixteenth, at least a thousandth of all."""
        longest = max(int(1 / self.trial_seconds), -(-self.n_records // MOST_PARTS))
        return max(1, min(longest, -(-self.n_records // FEWEST_PARTS), MOST_TOGETHER))

    @property
    def suits_threads(self) -> bool:
        """Whether trials are long enough, in compiled code, for threads to share them."""
        return self.trial_seconds > NOGIL

    @property
    def needs_one_worker(self) -> bool:
        """Whether the run is over before a second worker would have begun."""
        worth = WORTH_THREADS if self.suits_threads else WORTH_PROCESSES
        return self.n_records * self.trial_seconds < worth


def _trial_seconds(settings: RunSettings) -> float:
    n_tokens = settings.n_tokens
    n_drawn = settings.hidden_dim
    is_dense = True
    rows = float(n_tokens)
    widest = settings.snowball(settings.base.vector, max(settings.sigmas))
    if widest.has_cells:
        cells = widest.single_cells()
        if settings.sampler == "sparse" and cells.are_few:
            n_drawn = cells.n_active
            is_dense = False
        if not len(cells.unlisted):  # about so many of e**entropy likely rows occur
            likely = 4 * math.exp(min(_entropy(cells), 50.0))
            rows *= likely / (likely + rows)
    compares_many = settings.over != "black_holes" or "topology" in settings.measure
    n_matrices = len(_units(settings)) if compares_many else 0
    draw = 2.0e-4 + n_tokens * (2.5e-9 * n_drawn if is_dense else 1e-9 * n_drawn + 1e-8)
    return draw + n_matrices * rows * (3e-9 * n_drawn + 2e-9 * rows + 2e-12 * rows * n_drawn)


def _units(settings: RunSettings) -> set[str]:
    """Units in which distances of all pairs are taken."""
    units = {unit for measure, unit in (("geometry", "weight"), ("steps", "steps")) if measure in settings.measure}
    return units | ({settings.touching.unit} if settings.touching else set())


def _entropy(cells: Cells) -> float:
    """Entropy of a token's row in nats: the sum of its columns'."""
    p = cells.p[cells.p > 0]
    return -float(p @ np.log(p))
