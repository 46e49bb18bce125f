"""Studies: what breaks and what makes a black hole? Each asks many trainings, as was written down before."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
