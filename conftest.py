"""For the examples in `src`: where there is no Triton, as on macOS, no module of its kernels can be imported."""

from importlib.util import find_spec

if not find_spec("triton"):
    collect_ignore_glob = ["src/darkvocab/*/by_triton/*"]
