"""Studies of what makes and what breaks a black hole: many trainings each, compared as was fixed beforehand."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
