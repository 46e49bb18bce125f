"""Devices: a GPU that draws, groups and compares in place of the cores. It never changes a result.

Kernels are Triton's, on CUDA: twins of the compiled ones that the cores run. On mps only trainings run: it has no
float64, and comparing all columns of all pairs there takes longer than the cores take, which need not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInput, MissingExtra
from ..extras import import_torch

if TYPE_CHECKING:
    import torch

NAMES = re.compile(r"cpu|mps|cuda(:\d+)?")
KNOWN = "cpu, cuda, cuda:N, mps"


def check_device(name: str) -> str:
    """Return the name, if it may be a device's; else raise InvalidInput."""
    if not NAMES.fullmatch(name):
        raise InvalidInput(f"unknown device {name!r}; choose one of {KNOWN}")
    return name


def torch_device(name: str) -> torch.device:
    """Return the device of this name, as torch knows it; "cpu" too.

    Raises InvalidInput for no such name, or none here: no driver, no card of this number, or a torch that was built
    without; MissingExtra where torch is not installed.
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
    """Return the device of this name with its kernels; None for "cpu" and "mps", beside which the cores' run.

    An open one passes. Raises as `torch_device`; MissingExtra, too, on CUDA without Triton.
    """
    if isinstance(name, Device):
        return name
    if check_device(name) == "cpu":
        return None
    place = torch_device(name)
    if place.type == "mps":
        return None
    if find_spec("triton") is None:
        raise MissingExtra(
            f"--device {name} needs Triton, which comes with torch for CUDA on Linux and is not installed; "
            "install it with: pip install triton"
        )
    return Device(place)


def is_full(error: BaseException) -> bool:
    """Return whether torch, or a library that it calls, says so that a device has no room."""
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
        return 1 << 30  # torch's operations on a CPU are there for tests

    def put(self, array: np.ndarray) -> torch.Tensor:
        """Copy an array to the device; unsigned integers become signed ones of the same bits."""
        array = np.require(array, requirements=["C", "W"])  # torch takes no others
        if array.dtype.kind == "u":
            array = array.view(f"i{array.itemsize}")
        tensor = self._torch.from_numpy(array)
        if self.place.type == "cuda":
            tensor = tensor.pin_memory()  # else the host waits until all that was asked before is done
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
