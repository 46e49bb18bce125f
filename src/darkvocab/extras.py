"""Optional dependencies, imported when they are needed; the error says which extra installs them."""

from importlib import import_module
from typing import Any

from .errors import MissingExtra


def import_extra(package: str, extra: str, what: str) -> Any:
    """Import an optional package; MissingExtra says that `what` needs it and `extra` installs it."""
    try:
        return import_module(package)
    except ImportError:
        install = f"pip install 'darkvocab[{extra}]'"
        raise MissingExtra(f"{what} needs {package}, which is not installed; install it with: {install}") from None


def import_torch(what: str, extra: str = "train") -> Any:
    """Import and return torch; raises as `import_extra`."""
    return import_extra("torch", extra, what)
