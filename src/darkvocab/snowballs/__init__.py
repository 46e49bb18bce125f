"""How does such structure arise?

Base vectors with noise, rounded: drawn, swept, counted, expected in closed form and fitted. A `Sweep`,
`Trials` or `Questions` is the settings of a run; `records`, `frame` and `land` run it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
