"""Which sigma explains an observed census best, how surely, how well, and what else explains it?

`run` has `fit`, its settings and its result; `targets` reads the census; `likelihood` estimates
sigma and says how surely, `checks` how well, and what else there is.
"""

from .run import Fit, FitResult, fit

__all__ = ["Fit", "FitResult", "fit"]
