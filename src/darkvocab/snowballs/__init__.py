"""Snowballs, base vectors with noise that are rounded to a grid: draw, sweep, count, predict and fit them.

A `Sweep`, `Trials` or `Questions` holds the settings of a run; `records`, `frame` and `land` run it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
