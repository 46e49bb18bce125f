"""Batches: many matrices of rows at once on a device, grouped and compared there; what a record says comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..numerics import Grid, Groups, Spread, Touching
from ..numerics.chebyshev import UNITS, KnownDistances, largest_within
from ..numerics.grouping import chunks, row_keys
from ..numerics.totals import exact_total
from .device import Device, is_full

if TYPE_CHECKING:
    import torch

UPLOAD = 1 << 26  # bytes of a matrix that are brought at a time


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to find of the distances of all pairs of some rows, in one unit."""

    over: str  # which rows: as `Groups.select`
    unit: str
    spread: bool = False
    within: tuple[Touching, ...] = ()
    graph: Touching | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found of one matrix of rows; distances by the rows they are over, and their unit."""

    groups: Groups
    distances: dict[tuple[str, str], KnownDistances]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """T matrices of rows on a device, as differences of ordered indices from the `home` of their column."""

    device: Device
    codes: torch.Tensor  # [T, n, dim] int8, int16 or int32
    home: torch.Tensor  # [T, dim] int64
    grid: Grid

    @staticmethod
    def bytes_each(n: int, dim: int, itemsize: int, asked: tuple[Asked, ...]) -> int:
        """About how much room one matrix of n rows takes, while it is measured."""
        rows = max((n // 2 if one.over == "black_holes" else n for one in asked), default=0)
        rows += -rows % 128
        wide = max((8 if itemsize == 4 and one.unit == "steps" else 4 for one in asked), default=0)
        return n * (dim * itemsize + 200) + wide * rows * (dim + rows) + rows * rows // 8

    def measure(self, asked: tuple[Asked, ...]) -> Pending:
        """Begin to group the rows, and to compare those that are asked for."""
        import torch

        device, (t, n, dim) = self.device, self.codes.shape
        leader, collided = device.grouping.leaders(self.codes, device.put(row_keys(dim)[:dim]), folded=False)
        token = torch.arange(n, device=device.place).expand(t, n)
        population = torch.zeros_like(leader).scatter_add_(1, leader, torch.ones_like(leader))  # of each first row
        found = {"leader": leader.to(torch.int32), "collided": collided}
        for number, one in enumerate(asked):
            black = one.over == "black_holes"
            chosen, room = (population >= 2, n // 2) if black else (population >= 1, n)
            # The rows that are not chosen all go to one place more, which is cut off.
            place = torch.where(chosen, chosen.cumsum(1) - 1, room)
            rows = torch.full((t, room + 1), -1, dtype=torch.int64, device=device.place).scatter_(1, place, token)
            weights = population if one.over == "tokens" else torch.ones_like(population)
            weights = torch.zeros_like(rows).scatter_(1, place, weights)
            compared = self._compare(one, rows[:, :room], weights[:, :room], chosen.sum(1))
            found |= {f"{number}.{name}": tensor for name, tensor in compared.items()}
        fetched = device.fetch(list(found.values()))
        return Pending(self, asked, lambda: dict(zip(found, fetched.arrays(), strict=True)))

    def _compare(
        self, one: Asked, rows: torch.Tensor, weights: torch.Tensor, counts: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        import torch

        kernels, grid = self.device.distances, self.grid
        shape = grid.mantissa_bits, grid.min_exponent, grid.max_code
        x = kernels.values(self.codes, self.home, rows, one.unit, shape)
        apart = kernels.all_pairs(x, counts)
        weights = torch.nn.functional.pad(weights, (0, apart.shape[2] - rows.shape[1]))
        dtype = np.dtype(str(apart.dtype).removeprefix("torch."))
        equal = (weights * (weights - 1) // 2).sum(1)
        found = {}
        if one.spread:
            total = weights.sum(1)
            pairs = total * (total - 1) // 2
            found["largest"], found["sums"] = kernels.tally(apart, weights)
            ranks = torch.stack([(pairs - 1) // 2, pairs // 2], 1).clamp(min=0)
            found["middle"] = kernels.ranked(apart, weights, equal, ranks)
        if one.within:
            limits = np.array([largest_within(near.threshold, dtype, strict=near.strict) for near in one.within])
            found["within"] = kernels.within(apart, weights, equal, self.device.put(limits))
        if one.graph:
            limit = float(largest_within(one.graph.threshold, dtype, strict=one.graph.strict))
            degrees, labels = kernels.connect(apart, weights, limit)
            found["degrees"], found["labels"] = degrees.to(torch.int32), labels.to(torch.int32)
        return found


def identical_rows(
    device: Device,
    words: np.ndarray,
    *,
    bitwise: bool = False,
    rounded: Callable[[np.ndarray], np.ndarray] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Groups:
    """`darkvocab.numerics.identical_rows` on a device, to which the rows are brought a few at a time."""
    kind = rounded(words[:0]) if rounded else words[:0]
    there = device.empty((len(words), kind.shape[1]), kind.itemsize)
    for some in chunks(words, UPLOAD):
        there[some] = device.put(rounded(words[some]) if rounded else words[some])
        if progress:
            progress(words[some].nbytes)
    return groups_of(device, there, bitwise=bitwise)


def groups_of(device: Device, words: torch.Tensor, *, bitwise: bool = False) -> Groups:
    """Equal rows of one matrix that is on the device, [n, dim] signed integers with the bits of the grid's words."""
    while True:
        keys = device.put(row_keys(words.shape[1])[: words.shape[1]])
        with device.active():
            hashes, largest = device.grouping.hash_rows(words[None], keys, folded=not bitwise)
            leader, collided = device.grouping.leaders(words[None], keys, folded=not bitwise, hashes=hashes)
            first, codes, again = device.fetch([leader[0], largest[0], collided]).arrays()
        if not again.any():
            return _groups(first, codes.astype(np.uint64))
        row_keys.cache_clear()


def compared(device: Device, index: np.ndarray, grid: Grid) -> tuple[Spread, Spread] | None:
    """Distances of all pairs of rows [n, dim] of ordered indices, no two alike, in weight units and in steps.

    None where the device has no room for them, or no numbers.
    """
    room = Batch.bytes_each(len(index), index.shape[1], grid.bits // 8, _SPREADS)
    if len(index) < 2 or room > device.free() or not device.takes(grid, "steps"):
        return None
    try:
        with device.active():
            codes = device.put(index.astype(f"i{grid.bits // 8}"))[None]
            home = codes.new_zeros(1, codes.shape[2]).long()
            pending = Batch(device=device, codes=codes, home=home, grid=grid).measure(_SPREADS)
        (found,) = pending.found(lambda t: index)
    except RuntimeError as error:
        if not is_full(error):
            raise
        return None
    weight, steps = (found.distances["unique", unit].spread for unit in UNITS)
    return weight, steps


_SPREADS = tuple(Asked(over="unique", unit=unit, spread=True) for unit in UNITS)


def _groups(leader: np.ndarray, largest_code: np.ndarray) -> Groups:
    """Of rows that each have their group's first row as leader."""
    is_first = leader == np.arange(len(leader))
    labels = (np.cumsum(is_first) - 1)[leader]
    first = np.flatnonzero(is_first)
    return Groups(
        labels=labels,
        first=first,
        counts=np.bincount(labels, minlength=len(first)),
        largest_code=largest_code,
    )


@dataclass(frozen=True)
class Pending:
    """A batch that is being measured."""

    batch: Batch
    asked: tuple[Asked, ...]
    arrays: Callable[[], dict[str, np.ndarray]]  # waits for them

    def found(self, index: Callable[[int], np.ndarray]) -> list[Found]:
        """What was found of each matrix; `index` gives all ordered indices of one, where something asks for them."""
        made = self.arrays()
        if made["collided"].any():  # rows that differ have one hash: once in 10**13 trials or so
            row_keys.cache_clear()
            with self.batch.device.active():
                again = self.batch.measure(self.asked)
            return again.found(index)
        return [self._found_of(t, made, partial(index, t)) for t in range(len(made["leader"]))]

    def _found_of(self, t: int, made: dict[str, np.ndarray], index: Callable[[], np.ndarray]) -> Found:
        leader = made["leader"][t].astype(np.int64)
        groups = _groups(leader, np.zeros(len(leader), np.uint8))  # what a device has drawn is finite
        distances = {}
        for number, one in enumerate(self.asked):
            tokens, weights = groups.select(one.over)
            of = {name.partition(".")[2]: array[t] for name, array in made.items() if name.startswith(f"{number}.")}
            rows = partial(lambda tokens: index()[tokens], tokens)
            distances[one.over, one.unit] = _known(one, weights, of, rows)
        return Found(groups=groups, distances=distances)


def _known(
    one: Asked, weights: np.ndarray, found: dict[str, np.ndarray], rows: Callable[[], np.ndarray]
) -> KnownDistances:
    components = None
    if one.graph:
        n = len(weights)
        components = found["degrees"][:n].astype(np.int64), found["labels"][:n].astype(np.int64)
    return KnownDistances(
        one.unit,
        weights,
        spread=_spread(weights, found) if one.spread else None,
        within={
            (near.threshold, near.strict): int(count)
            for near, count in zip(one.within, found.get("within", ()), strict=True)
        },
        components=components,
        rows=rows,
    )


def _spread(weights: np.ndarray, found: dict[str, np.ndarray]) -> Spread:
    n = int(weights.sum())
    pairs = n * (n - 1) // 2
    if not pairs:
        return Spread(n_pairs=0, max=0.0, mean=0.0, lower_median=0.0, median=0.0)
    sums = {place: int(found["sums"][place]) for place in np.flatnonzero(found["sums"]).tolist()}
    whole = len(found["sums"]) == 2  # steps in two parts
    total = float(sums.get(0, 0) + (sums.get(1, 0) << 16)) if whole else exact_total(sums)
    lower, upper = found["middle"].tolist()
    return Spread(
        n_pairs=pairs,
        max=float(found["largest"]),
        mean=total / pairs,
        lower_median=lower,
        median=(lower + upper) / 2,
    )
