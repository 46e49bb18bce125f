"""Fit a snowball to an observed census: sigma with its interval, goodness of fit, and rival explanations.

`run` holds `fit`, its settings and its result; `targets` reads the census; `likelihood` estimates
sigma and its interval; `checks` tests the fit and compares it with other hypotheses.
"""

from .run import Fit, FitResult, fit

__all__ = ["Fit", "FitResult", "fit"]
