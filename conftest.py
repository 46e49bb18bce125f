"""For tests and the examples in `src`: dtypes and shapes of arrays are checked; Triton may be absent."""

import os
from importlib.util import find_spec
from pathlib import Path

# Before torch and numpy are loaded: over tensors as small as these, threads wait for each other, which takes ten times
# as long as one thread. Tests of more threads ask for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import checker
import jaxtyping

SRC = Path(__file__).parent / "src"
KERNELS = {"_backends", "by_triton"}  # compiled functions cannot be wrapped

if not find_spec("triton"):  # as on macOS: no module of its kernels can be imported
    collect_ignore_glob = ["src/darkvocab/*/by_triton/*"]


def without_kernels(package: Path) -> list[str]:
    """Return the names of the largest packages and modules below `package` that hold no kernels."""
    names = []
    for path in sorted(package.iterdir()):
        if path.name in KERNELS or path.name.startswith("__"):
            continue
        name = ".".join(path.relative_to(SRC).with_suffix("").parts)
        if path.is_dir() and any(part.name in KERNELS for part in path.rglob("*")):
            names += without_kernels(path)
        elif path.is_dir() or path.suffix == ".py":
            names.append(name)
    return names


jaxtyping.jaxtyped = checker.jaxtyped_with_arrays  # the name by which the hook decorates
jaxtyping.install_import_hook(without_kernels(SRC / "darkvocab"), "checker.checked")
