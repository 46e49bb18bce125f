"""Pickle work for other processes: function and shared data as one parcel, unpickled once, and each task."""

import os
import pickle
import pkgutil
import platform
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from ...errors import OtherVersion

PACKAGES = ("darkvocab", "numpy", "numba")  # records depend on them: workers must have our versions

_unpack = lru_cache(maxsize=2)(pickle.loads)
_unpacking = threading.Lock()  # a worker of several threads fetches and unpickles once, too


def pack(value: object) -> bytes:
    """Pickle a value."""
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def do(parcel: bytes, task: bytes) -> Any:
    """Do one task of a parcel."""
    with _unpacking:
        work, shared = _unpack(parcel)
    return work(shared, pickle.loads(task))


class Call:
    """A call that is made when its pickle is read.

    Workers run `pickle.loads`, which every Python has, so that a failing import is the task's error, not the worker's.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._reduced


def do_elsewhere(ours: dict[str, str], parcel: bytes, task: bytes) -> Any:
    """Do one task in a worker that we did not start; compare versions before anything is unpickled."""
    for name, version in package_versions().items():
        if version != ours[name]:
            raise other_version(_address(), name, version, ours[name])
    return do(parcel, task)


@lru_cache(maxsize=2)
def _fetch(key: str) -> bytes:
    from distributed import get_client

    return get_client().get_metadata([key])  # type: ignore[no-untyped-call]


def do_on_dask(ours: dict[str, str], key: str, task: bytes) -> Any:
    """Do one task of a parcel that the scheduler keeps; raises as `do_elsewhere`."""
    with _unpacking:
        parcel = _fetch(key)
    return do_elsewhere(ours, parcel, task)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that records depend on."""
    return {name: pkgutil.resolve_name(f"{name}:__version__") for name in PACKAGES}


def _address() -> str:
    if "distributed" in sys.modules:
        with suppress(ValueError):
            return sys.modules["distributed"].get_worker().address
    return f"process {os.getpid()} on {platform.node()}"


def other_version(worker: str, package: str, theirs: str, ours: str) -> OtherVersion:
    """Return the error for a worker with another version of a package."""
    versions = f"worker {worker} has {package} {theirs}, we have {ours}"
    return OtherVersion(f"{versions}; install {package}=={ours} there and start it anew")
