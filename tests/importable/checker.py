"""What checks the arrays that functions take and return in tests; all other types are mypy's."""

import sys
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float, as for mypy


def checked(function):
    """Check dtypes and shapes at each call of a function whose hints, as jaxtyping copies them, name arrays."""
    names = vars(sys.modules[function.__module__])
    hints = function.__annotations__
    for name, hint in list(hints.items()):
        if not _of_arrays(_evaluated(hint, names)):
            hints[name] = Any
    return _beartype(function)


def _evaluated(hint, names):
    try:
        return eval(hint, names) if isinstance(hint, str) else hint
    except NameError:  # a name that is imported for type checkers only
        return Any


def _of_arrays(hint):
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_of_arrays, get_args(hint)))
