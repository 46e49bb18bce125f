"""Compilation of kernels by numba: for which instructions, and how what was compiled is kept for the next process."""

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

from ...errors import InvalidInput

# CPU features of the x86-64 psABI's levels; those of other names only LLVM knows.
AVX2 = "avx2 bmi bmi2 f16c fma lzcnt movbe"
AVX512 = "avx512f avx512bw avx512cd avx512dq avx512vl"
LEVELS = {"x86-64": "", "x86-64-v2": "sse4.2 popcnt", "haswell": AVX2, "x86-64-v3": AVX2, "x86-64-v4": AVX512}
# All kernels: one that calls another is compiled anew when that changes.
SOURCES = sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()


def check_processor(name: str | None, features: str | None) -> None:
    """Raise InvalidInput if this machine lacks what numba's variables name (None: not set): else SIGILL follows."""
    host = binding.get_host_cpu_name()
    has = binding.get_host_cpu_features()
    known = {"generic": "", host: "", **(LEVELS if platform.machine() in ("x86_64", "AMD64") else {})}
    if name and name not in known:
        raise InvalidInput(
            f"NUMBA_CPU_NAME is {name!r}, for which no kernels can be compiled here; unset it, or choose one of "
            f"{', '.join(known)}"
        )
    asked = [*(features or "").split(","), *(f"+{feature}" for feature in known[name or "generic"].split())]
    lacking = [feature for feature in asked if feature[:1] not in "-" and not has.get(feature.removeprefix("+"))]
    if lacking:
        raise InvalidInput(
            f"this machine ({host}) lacks what NUMBA_CPU_NAME={name or ''} NUMBA_CPU_FEATURES={features or ''} ask "
            f"for: {', '.join(lacking)}; unset them, and kernels are compiled for what is there"
        )


if config.CPU_NAME or config.CPU_FEATURES:  # asked only then: it takes a while
    check_processor(config.CPU_NAME, config.CPU_FEATURES)


class _Files(caching.IndexDataCacheFile):  # type: ignore[misc]
    """A kernel's files: what numba writes, followed by a hash. A damaged file counts as missing."""

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


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function when it is first called, with these options of numba; keep it by processor and features."""

    def decorated(function: Callable[..., Any]) -> Any:
        compiled = njit(nogil=True, no_cfunc_wrapper=True, error_model="numpy", **options)(function)
        with suppress(RuntimeError):  # no folder can be written
            cache = caching.FunctionCache(function)
            stamp = SOURCES, cache._impl.locator.get_source_stamp()
            cache._cache_file = _Files(cache.cache_path, cache._impl.filename_base, stamp)
            compiled._cache = cache
        return compiled

    return decorated
