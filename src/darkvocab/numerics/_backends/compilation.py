"""Compilation of kernels by numba: for which instructions, how fast, and how results are kept for the next process."""

import platform
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from pickle import loads
from typing import Any

from llvmlite import binding
from numba import njit
from numba.core import caching, config

from ...errors import FULL, InvalidInput

V2 = "cx16 popcnt sahf sse3 ssse3 sse4.1 sse4.2"  # features of the levels of the x86-64 psABI
V3 = f"{V2} avx avx2 bmi bmi2 f16c fma lzcnt movbe"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"
PROCESSORS = {"x86-64": "", "x86-64-v2": V2, "x86-64-v3": V3, "haswell": V3, "x86-64-v4": V4}


def check_processor(name: str | None, features: str | None) -> None:
    """Raise InvalidInput unless this machine has the instructions that numba's variables name; None: not set.

    What they name beyond that would end the process by SIGILL, and LLVM passes over a name that it does not know.
    """
    host, has = binding.get_host_cpu_name(), binding.get_host_cpu_features()
    known = PROCESSORS if platform.machine() in ("x86_64", "AMD64") else {}
    asked = [feature for feature in (features or "").split(",") if not feature.startswith("-")]
    if name and name not in ("generic", host):
        if name not in known:
            raise InvalidInput(
                f"NUMBA_CPU_NAME is {name!r}, a processor that kernels cannot be compiled for here; unset it (this one "
                f"is {host}), or choose one of {', '.join(['generic', *known])}"
            )
        asked += [f"+{feature}" for feature in known[name].split()]
    lacking = [feature for feature in asked if feature and not (feature[0] == "+" and has.get(feature[1:]))]
    if lacking:
        variables = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
        given = [f"{variable}={value}" for variable, value in variables.items() if value]
        raise InvalidInput(
            f"this machine ({host}) lacks what {' and '.join(given)} ask{'s' * (len(given) == 1)} for: "
            f"{', '.join(lacking)}; without, kernels are compiled for what is there"
        )


if config.CPU_NAME or config.CPU_FEATURES:  # asked only then: it takes a while
    check_processor(config.CPU_NAME, config.CPU_FEATURES)


class _Files(caching.IndexDataCacheFile):  # type: ignore[misc]
    """A kernel's files: what numba writes, and a hash behind it. What is damaged counts as not there."""

    def _dump(self, obj: Any) -> bytes:
        data = super()._dump(obj)
        return data + sha256(data).digest()

    def _load_index(self) -> dict[Any, str]:
        try:
            return super()._load_index()
        except Exception:  # unpickling raises any
            return {}

    def _load_data(self, name: str) -> Any:
        data = Path(self._data_path(name)).read_bytes()
        if sha256(data[:-32]).digest() != data[-32:]:
            raise OSError("not what was written")
        return loads(data)


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    """Compiled signatures of a kernel, by processor and features, of this version of numba and of the source."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp, base = self._impl.locator.get_source_stamp(), self._impl.filename_base
        self._cache_file = _Files(cache_path=self._cache_path, filename_base=base, source_stamp=stamp)

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            if error.errno in FULL:
                raise


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function when it is first called, with these options of numba, and keep it where there is a place.

    Divisions raise nothing; without that, and a wrapper for C, a kernel takes a tenth less to compile.
    """

    def decorated(function: Callable[..., Any]) -> Any:
        compiled = njit(nogil=True, no_cfunc_wrapper=True, error_model="numpy", **options)(function)
        with suppress(RuntimeError):  # no folder can be written
            compiled._cache = _Cache(function)
        return compiled

    return decorated
