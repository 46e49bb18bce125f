"""Devices: a GPU that draws, groups and compares many matrices of rows at once, in place of the cores.

It never changes a result. Kernels are Triton's, on CUDA: twins of the compiled ones that the cores run. Only trainings
run on mps: it has no float64, and compares all columns of all pairs, which takes longer than the cores need for fewer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInput, MissingExtra
from ..extras import import_torch
from ..numerics import Grid, Groups, Spread, Touching
from ..numerics.chebyshev import UNITS, KnownDistances, exact_total, largest_within
from ..numerics.grouping import chunks, row_keys

if TYPE_CHECKING:
    import torch

DEVICE_NAME = re.compile(r"cpu|mps|cuda(:\d+)?")
DEVICE_CHOICES = "cpu, cuda, cuda:N, mps"


def check_device(name: str) -> str:
    """Return the name of a device; raise InvalidInput if it is not one."""
    if not DEVICE_NAME.fullmatch(name):
        raise InvalidInput(f"unknown device {name!r}; choose one of {DEVICE_CHOICES}")
    return name


def torch_device(name: str) -> torch.device:
    """Return torch's device of this name; "cpu" too.

    Raises InvalidInput for an unknown name and for a device that this machine lacks: no driver, no card of this
    number, or a torch built without it; MissingExtra where torch is not installed.
    """
    check_device(name)
    torch = import_torch(f"--device {name}", "gpu")
    kind, _, number = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        reason = f"no driver or no card, though torch {torch.__version__} was built for CUDA {torch.version.cuda}"
        if torch.version.cuda is None:
            reason = f"torch {torch.__version__}, which was built without CUDA; install a CUDA build of it"
        raise InvalidInput(f"torch sees no cuda device here: there is {reason}; or choose --device cpu")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        cards = [f"cuda:{n} ({torch.cuda.get_device_name(n)})" for n in range(torch.cuda.device_count())]
        raise InvalidInput(f"there is no {name} here; choose one of {', '.join(cards)}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InvalidInput("torch sees no mps device here: that is Apple's GPU, on macOS; choose --device cpu")
    return torch.device(name)


def open_device(name: str | Device) -> Device | None:
    """Return the device of this name with its kernels; None for "cpu" and "mps", where compiled kernels run.

    An open `Device` is returned as it is. Raises as `torch_device`; MissingExtra, too, on CUDA without Triton.
    """
    if isinstance(name, Device):
        return name
    if check_device(name) == "cpu" or (place := torch_device(name)).type == "mps":
        return None
    if find_spec("triton") is None:
        needs = f"--device {name} needs Triton, which comes with torch for CUDA on Linux and is not installed"
        raise MissingExtra(f"{needs}; install it with: pip install triton")
    return Device(place)


def is_full(error: BaseException) -> bool:
    """Return whether this error of torch, or of a library that it calls, means that device memory is full."""
    import torch

    said = "out of memory" in str(error) or "ALLOC_FAILED" in str(error)
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and said)


@dataclass(frozen=True)
class Device:
    """Device of torch's where batches are drawn and measured, and the kernels that run there."""

    place: torch.device

    _torch = property(lambda self: import_module("torch"))
    drawing = property(lambda self: import_module(f"{__package__}.by_triton.drawing"))
    grouping = property(lambda self: import_module(f"{__package__}.by_triton.grouping"))
    distances = property(lambda self: import_module(f"{__package__}.by_triton.distances"))

    def active(self) -> AbstractContextManager[Any]:
        """Launch kernels on this device within the `with` block."""
        return self._torch.cuda.device(self.place) if self.place.type == "cuda" else nullcontext()

    def free(self) -> int:
        """Return the bytes of memory that can be had."""
        if self.place.type == "cuda":
            kept = self._torch.cuda.memory_reserved(self.place) - self._torch.cuda.memory_allocated(self.place)
            return int(self._torch.cuda.mem_get_info(self.place)[0]) + kept
        return 1 << 30  # only tests run torch's operations on a CPU

    def put(self, array: np.ndarray) -> torch.Tensor:
        """Copy an array to the device; unsigned integers become signed ones of the same bits."""
        array = np.require(array, requirements=["C", "W"])  # torch takes no others
        if array.dtype.kind == "u":
            array = array.view(f"i{array.itemsize}")
        tensor = self._torch.from_numpy(array)
        if self.place.type == "cuda":
            tensor = tensor.pin_memory()  # else the host waits for all earlier work
        return tensor.to(self.place, non_blocking=True)

    def empty(self, shape: tuple[int, ...], itemsize: int) -> torch.Tensor:
        """Allocate signed integers of so many bytes each."""
        return self._torch.empty(shape, dtype=getattr(self._torch, f"int{8 * itemsize}"), device=self.place)

    def fetch(self, **tensors: torch.Tensor) -> Callable[[], dict[str, np.ndarray]]:
        """Begin to bring tensors back; return the function that waits for them and returns arrays of their names."""
        streamed = self.place.type == "cuda"
        copies = {name: tensor.to("cpu", non_blocking=streamed) for name, tensor in tensors.items()}
        arrived = self._torch.cuda.current_stream().record_event() if streamed else None

        def arrays() -> dict[str, np.ndarray]:
            if arrived is not None:
                arrived.synchronize()
            return {name: copy.numpy() for name, copy in copies.items()}

        return arrays


Arrays = dict[str, np.ndarray]  # by their names
UPLOAD = 1 << 26  # bytes of a matrix that are brought at a time


@dataclass(frozen=True, kw_only=True)
class DistanceQuery:
    """Figures to take of the distances of all pairs of some rows, in one unit."""

    over: str  # which rows: as `Groups.select`
    unit: str
    spread: bool = False
    within: tuple[Touching, ...] = ()
    graph: Touching | None = None


Queries = tuple[DistanceQuery, ...]
Index = Callable[[int], np.ndarray]  # the ordered indices of a matrix
# Groups and distances of one matrix of rows; distances by the rows they are over, and their unit.
Measured = tuple[Groups, dict[tuple[str, str], KnownDistances]]
# Waits for the results of all matrices; takes a function that returns one's indices, for rows needed later.
Pending = Callable[[Index], list[Measured]]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """T matrices of rows on a device, as differences of ordered indices from the `home` of their column."""

    device: Device
    codes: torch.Tensor  # [T, n, dim] int8, int16 or int32
    home: torch.Tensor  # [T, dim] int64
    grid: Grid

    @staticmethod
    def bytes_each(n: int, dim: int, itemsize: int, queries: Queries) -> int:
        """Estimate the bytes that one matrix of n rows takes while it is measured."""
        rows = max((n // 2 if query.over == "black_holes" else n for query in queries), default=0)
        rows += -rows % 128
        wide = max((8 if itemsize == 4 and query.unit == "steps" else 4 for query in queries), default=0)
        return n * (dim * itemsize + 200) + wide * rows * (dim + rows) + rows * rows // 8

    def measure(self, queries: Queries) -> Pending:
        """Begin to group the rows, and to compare those that queries are about."""
        import torch

        device = self.device
        t, n, dim = self.codes.shape
        leader, collided = device.grouping.leaders(self.codes, device.put(row_keys(dim)[:dim]), folded=False)
        token = torch.arange(n, device=device.place).expand(t, n)
        population = torch.zeros_like(leader).scatter_add_(1, leader, torch.ones_like(leader))  # of each first row
        tensors = {"leader": leader.to(torch.int32), "collided": collided}
        for number, query in enumerate(queries):
            black = query.over == "black_holes"
            chosen = population >= (2 if black else 1)
            room = n // 2 if black else n
            # Rows that are not chosen go to an extra last place, which is cut off.
            place = torch.where(chosen, chosen.cumsum(1) - 1, room)
            rows = torch.full((t, room + 1), -1, dtype=torch.int64, device=device.place).scatter_(1, place, token)
            weights = population if query.over == "tokens" else torch.ones_like(population)
            weights = torch.zeros_like(rows).scatter_(1, place, weights)
            figures = self._compare(query, rows[:, :room], weights[:, :room], chosen.sum(1))
            tensors |= {f"{number}.{name}": tensor for name, tensor in figures.items()}
        return partial(self._results, queries, device.fetch(**tensors))

    def _results(self, queries: Queries, fetched: Callable[[], Arrays], index: Index) -> list[Measured]:
        arrays = fetched()
        if arrays["collided"].any():  # different rows share a hash: about once in 10**13 trials
            row_keys.cache_clear()
            with self.device.active():
                again = self.measure(queries)
            return again(index)
        of_each = ({name: array[t] for name, array in arrays.items()} for t in range(len(self.codes)))
        return [_result(queries, figures, partial(index, t)) for t, figures in enumerate(of_each)]

    def _compare(
        self, query: DistanceQuery, rows: torch.Tensor, weights: torch.Tensor, counts: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        import torch

        kernels = self.device.distances
        x = kernels.values(self.codes, self.home, rows, query.unit, self.grid.constants)
        distances = kernels.all_pairs(x, counts)
        weights = torch.nn.functional.pad(weights, (0, distances.shape[2] - rows.shape[1]))
        dtype = np.dtype(str(distances.dtype).removeprefix("torch."))
        equal = (weights * (weights - 1) // 2).sum(1)
        figures = {}
        if query.spread:
            total = weights.sum(1)
            pairs = total * (total - 1) // 2
            figures["largest"], figures["sums"] = kernels.tally(distances, weights)
            ranks = torch.stack([(pairs - 1) // 2, pairs // 2], 1).clamp(min=0)
            figures["middle"] = kernels.ranked(distances, weights, equal, ranks)
        if query.within:
            limits = np.array([largest_within(near.threshold, dtype, strict=near.strict) for near in query.within])
            figures["within"] = kernels.within(distances, weights, equal, self.device.put(limits))
        if query.graph:
            limit = float(largest_within(query.graph.threshold, dtype, strict=query.graph.strict))
            degrees, labels = kernels.connect(distances, weights, limit)
            figures["degrees"] = degrees.to(torch.int32)
            figures["labels"] = labels.to(torch.int32)
        return figures


def identical_rows(
    device: Device,
    words: np.ndarray,
    *,
    bitwise: bool = False,
    rounded: Callable[[slice], np.ndarray] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Groups:
    """Group equal rows as `darkvocab.numerics.identical_rows`, on a device, to which a few are brought at a time."""
    kind = rounded(slice(0, 0)) if rounded else words[:0]
    placed = device.empty((len(words), kind.shape[1]), kind.itemsize)
    for some in chunks(words, UPLOAD):
        placed[some] = device.put(rounded(some) if rounded else words[some])
        if progress:
            progress(words[some].nbytes)
    return groups_of(device, placed, bitwise=bitwise)


def groups_of(device: Device, words: torch.Tensor, *, bitwise: bool = False) -> Groups:
    """Group equal rows of one matrix on the device, [n, dim] signed integers with the bits of the grid's words."""
    dim = words.shape[1]
    while True:
        keys = device.put(row_keys(dim)[:dim])
        with device.active():
            hashes, largest = device.grouping.hash_rows(words[None], keys, folded=not bitwise)
            leader, collided = device.grouping.leaders(words[None], keys, folded=not bitwise, hashes=hashes)
            arrays = device.fetch(leader=leader[0], largest=largest[0], collided=collided)()
        if not arrays["collided"].any():
            return _groups(arrays["leader"], arrays["largest"].astype(np.uint64))
        row_keys.cache_clear()


def compared(device: Device, index: np.ndarray, grid: Grid) -> tuple[Spread, Spread] | None:
    """Compare all pairs of rows [n, dim] of ordered indices, no two alike, in weight units and in steps.

    Returns None where the device has no room for them.
    """
    room = Batch.bytes_each(len(index), index.shape[1], grid.bits // 8, _SPREADS)
    if len(index) < 2 or room > device.free():
        return None
    try:
        with device.active():
            codes = device.put(index.astype(f"i{grid.bits // 8}"))[None]
            home = codes.new_zeros(1, codes.shape[2]).long()
            pending = Batch(device=device, codes=codes, home=home, grid=grid).measure(_SPREADS)
        ((_, distances),) = pending(lambda t: index)
    except RuntimeError as error:
        if not is_full(error):
            raise
        return None
    weight, steps = (distances["unique", unit].spread for unit in UNITS)
    return weight, steps


_SPREADS = tuple(DistanceQuery(over="unique", unit=unit, spread=True) for unit in UNITS)


def _groups(leader: np.ndarray, largest_code: np.ndarray) -> Groups:
    """Return the groups of rows that each have their group's first row as leader."""
    is_first = leader == np.arange(len(leader))
    labels = (np.cumsum(is_first) - 1)[leader]
    return Groups(labels=labels, first=np.flatnonzero(is_first), counts=np.bincount(labels), largest_code=largest_code)


def _result(queries: Queries, arrays: Arrays, index: Callable[[], np.ndarray]) -> Measured:
    leader = arrays["leader"].astype(np.int64)
    groups = _groups(leader, np.zeros(len(leader), np.uint8))  # what a device has drawn is finite
    distances = {}
    for number, query in enumerate(queries):
        tokens, weights = groups.select(query.over)
        known = KnownDistances(query.unit, weights, partial(lambda tokens: index()[tokens], tokens))
        prefix = f"{number}."
        figures = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
        if query.spread:
            known.spread = _spread(known.n_pairs, figures)
        counts = zip(query.within, figures.get("within", ()), strict=True)
        known.near = {(near.threshold, near.strict): int(count) for near, count in counts}
        if query.graph:
            degrees, labels = (figures[name][: len(weights)].astype(np.int64) for name in ("degrees", "labels"))
            known.graph = degrees, labels
        distances[query.over, query.unit] = known
    return groups, distances


def _spread(n_pairs: int, figures: Arrays) -> Spread:
    if not n_pairs:
        return Spread()
    sums = {place: int(figures["sums"][place]) for place in np.flatnonzero(figures["sums"]).tolist()}
    whole = len(figures["sums"]) == 2  # steps in two parts
    total = float(sums.get(0, 0) + (sums.get(1, 0) << 16)) if whole else exact_total(sums)
    return Spread.of(n_pairs, float(figures["largest"]), total, *figures["middle"].tolist())
