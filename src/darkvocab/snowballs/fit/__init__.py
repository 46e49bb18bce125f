"""Which sigma explains an observed census best, how surely, how well, and what else explains it?

`run` has `fit` and its settings; `targets` reads the census; `model` and `likelihood` estimate
sigma, `uncertainty` says how surely, `checks` and `evidence` how well, `alternatives` what else
there is; `result` holds it all.
"""

from .result import FitResult
from .run import Fit, fit

__all__ = ["Fit", "FitResult", "fit"]
