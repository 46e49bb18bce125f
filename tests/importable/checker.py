"""A checker of the arrays that functions take and return in tests; all other types are mypy's."""

import sys
from dataclasses import is_dataclass
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, jaxtyped

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float, as for mypy


def jaxtyped_with_arrays(*, typechecker):
    """Decorate as `jaxtyping.jaxtyped` those functions and dataclasses whose hints name arrays, and leave the others:
    it binds the arguments of each call, whether there is something to check or not."""

    def decorated(function):
        init = function.__init__ if is_dataclass(function) else function
        if isinstance(init, type):
            return function
        names = vars(sys.modules[function.__module__])
        hints = [_evaluated(hint, names) for hint in init.__annotations__.values()]
        return jaxtyped(function, typechecker=typechecker) if any(map(_of_arrays, hints)) else function

    return decorated


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
    except Exception:  # as jaxtyping reads them: a name that is imported for type checkers only
        return Any


def _of_arrays(hint):
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_of_arrays, get_args(hint)))
