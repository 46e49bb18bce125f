"""Compiled kernels; each module is imported when it is first asked for, because numba takes long to import."""

from pkgutil import iter_modules

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=[module.name for module in iter_modules(__path__)]
)
